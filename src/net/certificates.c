#include "net/certificates.h"

#include "base/log.h"

#define RENEWAL_MS (12 * 3600 * 1000u)

static void certificates_drop(struct certificates *c) {
	tls_server_unref(&c->server);
	tls_client_unref(&c->client);
	tls_client_unref(&c->loop->tls);
}

/* One file that cannot be read, and none of it is used. */
static bool certificates_read(struct certificates *c, char *why) {
	struct tls_server *server = NULL;
	struct tls_client *client = NULL;

	if ((c->server_files->n && !(server = tls_server_new(c->server_files, why))) ||
	    (c->client_files && !(client = tls_client_new(c->client_files, why)))) {
		tls_server_unref(&server);
		return false;
	}
	certificates_drop(c);
	c->server = server;
	c->client = client;
	c->loop->tls = tls_client_ref(client);
	return true;
}

void certificates_reload(struct certificates *c) {
	char why[TLS_WHY_BYTES];
	struct log_event e;
	bool is_good = certificates_read(c, why);

	if (is_good && c->on_change)
		c->on_change(c);
	log_begin(&e, is_good ? LOG_INFO : LOG_ERROR,
	    is_good ? "certificates read again" : "certificates cannot be read: the old ones stay");
	if (!is_good)
		line_text(&e.line, SLICE("reason"), slice_of(why));
	log_end(&e);
}

static void certificates_on_renewal(struct timer *t) {
	struct certificates *c = container_of(t, struct certificates, renewal);

	certificates_reload(c);
	loop_timer(c->loop, &c->renewal, RENEWAL_MS);
}

bool certificates_open(struct certificates *c, struct loop *loop, char why[static TLS_WHY_BYTES]) {
	c->loop = loop;
	timer_init(&c->renewal, certificates_on_renewal);
	if (!certificates_read(c, why))
		return false;
	if (c->server || c->client)
		loop_timer(loop, &c->renewal, RENEWAL_MS);
	return true;
}

void certificates_close(struct certificates *c) {
	if (c->loop)
		timer_stop(&c->renewal);
}

void certificates_deinit(struct certificates *c) {
	if (c->loop)
		certificates_drop(c);
}
