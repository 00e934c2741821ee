/*
 * A session of OpenSSL over a BIO of ours: recv and send without SIGPIPE, the bytes
 * counted, and no second recv behind a short one, which would find nothing.
 */
#include "net/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/socket.h>

#include "base/slice.h"

#define RECORD_BYTES 16384u

struct tls {
	SSL *ssl;
	struct tls_server *server; /* one of these two */
	struct tls_client *client;
	const char *failure;
	uint64_t sent_bytes;
	int fd;
	uint8_t end; /* enum tls_outcome: how reading ended, once it has */
	bool has_begun, is_open;
	bool is_drained; /* a short read has emptied the socket, in this call */
	bool has_failed; /* the socket said so */
	bool wants_write;
	bool is_finishing; /* the last word is on its way */
};

/* --- the socket, as OpenSSL sees it --------------------------------------------------- */

static int bio_result(BIO *bio, struct tls *t, ssize_t n, int retry) {
	BIO_clear_retry_flags(bio);
	if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOBUFS))
		BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
	else if (n < 0)
		t->has_failed = true;
	return (int)n;
}

static int bio_read(BIO *bio, char *at, int n) {
	struct tls *t = BIO_get_data(bio);
	ssize_t got = -1;

	if (t->is_drained)
		errno = EAGAIN;
	else
		got = recv(t->fd, at, (size_t)n, 0);
	if (got == 0)
		BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
	t->is_drained = got < n && got != 0;
	return bio_result(bio, t, got, BIO_FLAGS_READ);
}

static int bio_write(BIO *bio, const char *at, int n) {
	struct tls *t = BIO_get_data(bio);
	ssize_t sent = send(t->fd, at, (size_t)n, MSG_NOSIGNAL);

	if (sent > 0)
		t->sent_bytes += (size_t)sent;
	return bio_result(bio, t, sent, BIO_FLAGS_WRITE);
}

static long bio_ctrl(BIO *bio, int what, long number, void *pointer) {
	if (what == BIO_CTRL_EOF)
		return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
	return what == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void bio_make_method(void) {
	bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket");
	assert(bio_method);
	BIO_meth_set_read(bio_method, bio_read);
	BIO_meth_set_write(bio_method, bio_write);
	BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

/* --- a session -------------------------------------------------------------------------- */

static struct tls *tls_new(SSL *ssl) {
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct tls *t = ssl ? calloc(1, sizeof(*t)) : NULL;

	pthread_once(&once, bio_make_method);
	BIO *bio = t ? BIO_new(bio_method) : NULL;
	if (!bio) {
		SSL_free(ssl);
		free(t);
		return NULL;
	}
	BIO_set_data(bio, t);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
	t->ssl = ssl;
	t->fd = -1;
	return t;
}

struct tls *tls_accept(struct tls_server *server) {
	struct tls *t = tls_new(tls_server_session(server));

	if (t)
		t->server = tls_server_ref(server);
	return t;
}

struct tls *tls_connect(struct tls_client *client, const char *host) {
	struct tls *t = tls_new(tls_client_session(client, host));

	if (t)
		t->client = tls_client_ref(client);
	return t;
}

void tls_bind(struct tls *t, int fd) {
	assert(t->fd < 0);
	t->fd = fd;
}

void tls_free(struct tls **tp) {
	struct tls *t = *tp;

	*tp = NULL;
	if (!t)
		return;
	SSL_free(t->ssl);
	tls_server_unref(&t->server);
	tls_client_unref(&t->client);
	free(t);
}

/* Before each call of OpenSSL's: its errors are the thread's. */
static void tls_enter(struct tls *t) {
	ERR_clear_error();
	t->is_drained = false;
}

/* What a call that returned `r` came to. */
static int tls_outcome(struct tls *t, int r) {
	int error = SSL_get_error(t->ssl, r);

	t->wants_write = error == SSL_ERROR_WANT_WRITE;
	switch (error) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return TLS_E_AGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return TLS_E_EOF;
	case SSL_ERROR_SSL:
		return ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING
		    ? TLS_E_TRUNCATED
		    : TLS_E_BROKEN;
	default:
		return TLS_E_BROKEN;
	}
}

static const char *tls_explain(const struct tls *t, int outcome) {
	long verdict = SSL_get_verify_result(t->ssl);
	const char *reason = ERR_reason_error_string(ERR_peek_error());

	if (verdict != X509_V_OK)
		return X509_verify_cert_error_string(verdict);
	if (outcome == TLS_E_TRUNCATED || t->has_failed || !reason)
		return "the connection ended in the handshake";
	return reason;
}

int tls_shake(struct tls *t) {
	if (t->failure)
		return TLS_E_BROKEN;
	tls_enter(t);
	t->has_begun = true;
	int r = SSL_do_handshake(t->ssl);
	if (r == 1) {
		t->is_open = true;
		t->wants_write = false;
		return 0;
	}
	r = tls_outcome(t, r);
	if (r == TLS_E_AGAIN)
		return r;
	t->failure = tls_explain(t, r);
	ERR_clear_error();
	return TLS_E_BROKEN;
}

bool tls_is_shaking(const struct tls *t) {
	return t->has_begun && !t->is_open;
}

int tls_read(struct tls *t, char *at, size_t max, size_t *n_out) {
	int r = t->end;

	assert(t->is_open);
	*n_out = 0;
	tls_enter(t);
	while (!r && *n_out < max) {
		size_t n = 0;
		int got = SSL_read_ex(t->ssl, at + *n_out, max - *n_out, &n);
		*n_out += n;
		if (got != 1)
			r = tls_outcome(t, got);
	}
	if (r && r != TLS_E_AGAIN)
		t->end = (uint8_t)r;
	return *n_out ? 0 : r;
}

bool tls_has_ended(const struct tls *t) {
	return t->end;
}

bool tls_hears_end(struct tls *t) {
	char byte;
	size_t n;

	assert(t->is_open);
	tls_enter(t);
	int r = t->end ? t->end : SSL_peek_ex(t->ssl, &byte, 1, &n) == 1 ? 0 : tls_outcome(t, 0);
	if (r && r != TLS_E_AGAIN)
		t->end = (uint8_t)r;
	return r == TLS_E_EOF;
}

/* The first record of what is to be sent; copied unless it stands in one piece. */
static struct slice tls_gather(const struct iovec *pieces, size_t n, size_t skip) {
	static _Thread_local char record[RECORD_BYTES];
	size_t used = 0;

	if (pieces[0].iov_len - skip >= RECORD_BYTES || n == 1)
		return slice_head(
		    (struct slice){ (const char *)pieces[0].iov_base + skip, pieces[0].iov_len - skip },
		    RECORD_BYTES);
	for (size_t i = 0; i < n && used < RECORD_BYTES; i++, skip = 0) {
		size_t part = size_min(pieces[i].iov_len - skip, RECORD_BYTES - used);
		memcpy(record + used, (const char *)pieces[i].iov_base + skip, part);
		used += part;
	}
	return (struct slice){ record, used };
}

int tls_write(struct tls *t, const struct iovec *pieces, size_t n, size_t *n_out) {
	size_t i = 0, skip = 0; /* `skip` bytes of pieces[i] are done with */

	assert(t->is_open && !(SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN));
	*n_out = 0;
	tls_enter(t);
	for (;;) {
		size_t taken = 0;
		while (i < n && skip == pieces[i].iov_len)
			i++, skip = 0;
		if (i == n)
			return 0;
		struct slice record = tls_gather(pieces + i, n - i, skip);
		int r = SSL_write_ex(t->ssl, record.p, record.n, &taken);
		if (r != 1)
			return tls_outcome(t, r) == TLS_E_AGAIN ? TLS_E_AGAIN : TLS_E_BROKEN;
		t->wants_write = false;
		*n_out += taken;
		for (skip += taken; i < n && skip > pieces[i].iov_len; i++)
			skip -= pieces[i].iov_len;
	}
}

int tls_finish(struct tls *t) {
	bool is_said = SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN;

	if (!t->is_open || t->has_failed || t->end == TLS_E_BROKEN || (is_said && !t->is_finishing))
		return 0;
	tls_enter(t);
	int r = SSL_shutdown(t->ssl);
	t->is_finishing = r < 0 && tls_outcome(t, r) == TLS_E_AGAIN && t->wants_write;
	return t->is_finishing ? TLS_E_AGAIN : 0;
}

bool tls_wants_write(const struct tls *t) {
	return t->wants_write || t->is_finishing;
}

uint64_t tls_sent_bytes(const struct tls *t) {
	return t->sent_bytes;
}

const char *tls_failure(const struct tls *t) {
	return t->failure;
}
