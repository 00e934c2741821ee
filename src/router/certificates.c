#include "router/certificates.h"

/* Is there anybody to speak TLS to? */
static bool has_others(const struct router_config *config) {
	if (tls_options_is_https(config->registry_url))
		return true;
	for (size_t i = 0; i < config->workers.n; i++)
		if (config->workers.items[i].is_tls)
			return true;
	return false;
}

/* One file that cannot be read, and none of it is used. */
static bool certificates_read(struct certificates *c, char *why) {
	const struct router_tls *tls = &c->config->tls;

	if (tls->server.files.n && !(c->server = tls_server_new(&tls->server.files, why)))
		return false;
	if (has_others(c->config) && !(c->client = tls_client_new(&tls->client, why)))
		return false;
	return true;
}

bool certificates_reload(struct certificates *c, char why[static TLS_WHY_BYTES]) {
	struct certificates next = { .config = c->config };
	bool is_good = certificates_read(&next, why);

	certificates_deinit(is_good ? c : &next);
	if (is_good)
		*c = next;
	return is_good;
}

bool certificates_init(
    struct certificates *c, const struct router_config *config, char why[static TLS_WHY_BYTES]) {
	*c = (struct certificates){ .config = config };
	return certificates_reload(c, why);
}

void certificates_deinit(struct certificates *c) {
	tls_server_unref(&c->server);
	tls_client_unref(&c->client);
}
