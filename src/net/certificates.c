#include "net/certificates.h"

#include "base/log.h"

#define RENEWAL_MS (12 * 3600 * 1000u)

static void certificates_let_go(struct certificates *c) {
	tls_server_unref(&c->server);
	tls_client_unref(&c->client);
	tls_client_unref(&c->loop->tls);
}

/* One file that cannot be read, and none of it is used. */
bool certificates_fetch(struct certificates_fresh *fresh, char why[static TLS_WHY_BYTES]) {
	fresh->server = NULL;
	fresh->client = NULL;
	if ((!fresh->server_files->n || (fresh->server = tls_server_new(fresh->server_files, why))) &&
	    (!fresh->client_files || (fresh->client = tls_client_new(fresh->client_files, why))))
		return true;
	certificates_drop(fresh);
	return false;
}

void certificates_drop(struct certificates_fresh *fresh) {
	tls_server_unref(&fresh->server);
	tls_client_unref(&fresh->client);
}

static void certificates_adopt(struct certificates *c, struct certificates_fresh *fresh) {
	certificates_let_go(c);
	c->server_files = fresh->server_files;
	c->client_files = fresh->client_files;
	c->server = fresh->server;
	c->client = fresh->client;
	c->loop->tls = tls_client_ref(c->client);
	*fresh = (struct certificates_fresh){ .server = NULL };
}

static bool certificates_read(struct certificates *c, char *why) {
	struct certificates_fresh fresh = { .server_files = c->server_files,
		.client_files = c->client_files };

	if (!certificates_fetch(&fresh, why))
		return false;
	certificates_adopt(c, &fresh);
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

/* Where nobody speaks TLS there is nothing to renew. */
static void certificates_renew_later(struct certificates *c) {
	if (c->server || c->client)
		loop_timer(c->loop, &c->renewal, RENEWAL_MS);
}

static void certificates_on_renewal(struct timer *t) {
	struct certificates *c = container_of(t, struct certificates, renewal);

	certificates_reload(c);
	certificates_renew_later(c);
}

bool certificates_open(struct certificates *c, struct loop *loop, char why[static TLS_WHY_BYTES]) {
	c->loop = loop;
	timer_init(&c->renewal, certificates_on_renewal);
	if (!certificates_read(c, why))
		return false;
	certificates_renew_later(c);
	return true;
}

void certificates_take(struct certificates *c, struct certificates_fresh *fresh) {
	timer_stop(&c->renewal);
	certificates_adopt(c, fresh);
	certificates_renew_later(c);
	if (c->on_change)
		c->on_change(c);
}

void certificates_close(struct certificates *c) {
	if (c->loop)
		timer_stop(&c->renewal);
}

void certificates_deinit(struct certificates *c) {
	if (c->loop)
		certificates_let_go(c);
}
