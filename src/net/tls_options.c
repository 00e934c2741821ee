#include "net/tls_options.h"

static struct tls_files read_pair(struct option_set *set, const char *text) {
	const char *colon = strrchr(text, ':');

	if (!colon)
		return (struct tls_files){ text, text };
	char *chain = option_alloc(set, (size_t)(colon - text) + 1);
	memcpy(chain, text, (size_t)(colon - text));
	return (struct tls_files){ chain, colon + 1 };
}

static void collect_certificates(struct option_set *set, struct tls_server_options *o) {
	struct tls_files *all = option_alloc(set, (o->certificates.n + 1) * sizeof(*all));

	o->files.certificates = all;
	if (o->chain[0])
		all[o->files.n++] = (struct tls_files){ o->chain, o->key[0] ? o->key : o->chain };
	for (size_t i = 0; i < o->certificates.n; i++)
		all[o->files.n++] = read_pair(set, o->certificates.items[i]);
}

void tls_options_verify_server(struct option_set *set, struct tls_server_options *options) {
	const struct tls_server_files *files = &options->files;
	char why[TLS_WHY_BYTES];

	if (options->key[0] && !options->chain[0])
		option_mistake(set, "tls.key", "there is no certificate for it");
	collect_certificates(set, options);
	if (files->client_ca[0] && !files->n)
		option_mistake(
		    set, "tls.client_ca", "there is no certificate of our own, so that nobody is asked");
	struct tls_server *server = files->n ? tls_server_new(files, why) : NULL;
	if (files->n && !server)
		option_mistake(set, options->chain[0] ? "tls.certificate" : "tls.certificates", "%s", why);
	tls_server_unref(&server);
}

void tls_options_verify_client(struct option_set *set, struct tls_client_files *files, const char *prefix) {
	char why[TLS_WHY_BYTES], path[64];

	if (files->certificate.key[0] && !files->certificate.chain[0]) {
		snprintf(path, sizeof(path), "%skey", prefix);
		option_mistake(set, path, "there is no certificate for it");
	}
	if (!files->certificate.key[0])
		files->certificate.key = files->certificate.chain;
	if (!files->ca[0] && !files->certificate.chain[0])
		return;
	struct tls_client *client = tls_client_new(files, why);
	if (!client) {
		snprintf(path, sizeof(path), "%s%s", prefix, files->ca[0] ? "ca" : "certificate");
		option_mistake(set, path, "%s", why);
	}
	tls_client_unref(&client);
}

bool tls_options_is_https(const char *url) {
	return slice_is(slice_head(slice_of(url), 8), SLICE("https://"));
}
