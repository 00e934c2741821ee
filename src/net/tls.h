/*
 * tls: TLS on one connected socket that does not block.
 *
 * A session belongs to its conn (net/conn.h) and to its thread; it does not own the
 * descriptor, which outlives it. It never waits: what the socket does not give or take
 * now is TLS_E_AGAIN, and tls_wants_write() says which of the two it is. A peer's faults are outcomes,
 * never asserted; what was wrong is in words at tls_failure().
 *
 * Between two calls a session holds no buffers but for a record that came or went in part.
 */
#pragma once

#include <stdint.h>
#include <sys/uio.h>

#include "net/tls_context.h"

enum tls_outcome {
	TLS_E_AGAIN = 1,
	TLS_E_EOF,       /* the peer said that it has said all */
	TLS_E_TRUNCATED, /* its bytes ended without that: whoever cut them, some may be missing */
	TLS_E_BROKEN,    /* the socket failed, or what came is not TLS as we speak it */
};

struct tls;

/* NULL: no memory. The session keeps the context. */
must_use struct tls *tls_accept(struct tls_server *server);
/* host: NUL-terminated, name or address that the other side must prove to be. */
must_use struct tls *tls_connect(struct tls_client *client, const char *host);
/* Once, before anything else. */
void tls_bind(struct tls *t, int fd);
/* Says nothing to the peer. Clears the pointer; takes NULL. */
void tls_free(struct tls **t);

/* The handshake, as far as it goes now. 0: done. */
must_use int tls_shake(struct tls *t);
bool tls_is_shaking(const struct tls *t); /* begun, and not done */

/* All that there is, at most `max` bytes. 0: *n_out is not 0; an end that came behind is told by the next
 * call, and tls_has_ended() by now. */
must_use int tls_read(struct tls *t, char *at, size_t max, size_t *n_out);
bool tls_has_ended(const struct tls *t);

/* Looks without reading whether the next thing that was said is that all was said. */
bool tls_hears_end(struct tls *t);

/*
 * As much as the socket takes, small pieces together in records. *n_out bytes are done
 * with; the others must be given again, in pieces of any shape, and more behind them if
 * there are: the first record of them is made already. 0, TLS_E_AGAIN or TLS_E_BROKEN.
 */
must_use int tls_write(struct tls *t, const struct iovec *pieces, size_t n, size_t *n_out);

/* Says that nothing more will be said. 0: said, now or before, or there is nobody to say it to; TLS_E_AGAIN:
 * the socket is full. */
must_use int tls_finish(struct tls *t);

/* Whether what it needs next is a socket that takes bytes, be it to read. */
bool tls_wants_write(const struct tls *t);

/* Bytes that the socket took, records and handshake. */
uint64_t tls_sent_bytes(const struct tls *t);

/* What the handshake failed for, for people; static. NULL: it did not. */
const char *tls_failure(const struct tls *t);
