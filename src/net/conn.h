/*
 * conn: one connected byte stream on a uv_poll_t, with our own recv and sendmsg.
 *
 * A conn is embedded in what it serves (a session, an upstream) and belongs to the
 * loop's thread. Events are only recorded here and the owner's job is woken; the
 * owner then looks at the state and pulls: conn_fill() reads once, conn_send() writes
 * at once and keeps what the socket does not take. What is kept is either copied into
 * lent bufs or, when the bytes stand in a buf already, referenced.
 *
 * Reading goes into the thread's one read buffer. `unread` is the part not consumed
 * yet; it moves into a buf of the conn's own as soon as another conn needs the read
 * buffer, so slices taken from it are valid until the next conn_fill() or conn_more()
 * of any conn of the thread.
 *
 * Interest in reading is dropped lazily: only when bytes arrive that nobody wants.
 * The peer's close is reported even then.
 *
 * With conn_secure() TLS is spoken on the socket (net/tls.h), and all of this is about what
 * TLS carries. Until its handshake is over the conn is connecting, on either side.
 */
#pragma once

#include "base/slice.h"
#include "net/loop.h"
#include "net/tls.h"

enum conn_state {
	CONN_CONNECTING = 1, /* or shaking hands */
	CONN_OPEN,
	CONN_CLOSED,
};

/* Outcomes of reading and writing. What a peer does is never a negative code. */
enum conn_outcome {
	CONN_E_AGAIN = 1, /* nothing to read now */
	CONN_E_EOF,       /* the peer ended its side in order */
	CONN_E_BROKEN,    /* reset, timed out, unreachable; TLS: not TLS, or ended without a word */
	CONN_E_FULL,      /* the limit of conn_more() is reached */
};

/* Bytes to send. With an owner they are referenced while they wait, else copied. */
struct piece {
	const char *p;
	size_t n;
	struct buf *owner;
};

/* One waiting piece. */
struct conn_out {
	struct conn_out *next;
	struct buf *buf;
	const char *p;
	size_t n;
};

struct conn {
	uv_poll_t poll;
	struct loop *loop;
	struct job *job;                   /* the owner's, woken by every event */
	void (*on_closed)(struct conn *c); /* last call: frees what embeds the conn */
	int fd;
	uint8_t state;    /* enum conn_state */
	uint8_t interest; /* UV_READABLE | ... now set on the poll handle */
	bool wants_read;
	bool can_read;    /* bytes or the end wait in the socket, as far as events told */
	bool peer_closed; /* FIN or worse was seen by an event */
	bool hears_close; /* the peer's close is still to be reported */
	bool has_failed;  /* an event said so; what came before may still be read */
	bool is_broken;
	struct slice unread;
	struct buf *stash;    /* where unread stands, unless it is in loop->read_buf */
	struct conn_out *out; /* waiting pieces, first to last */
	struct conn_out *out_last;
	size_t out_bytes;
	uint64_t sent_bytes; /* that the socket took since it was opened, TLS's own among them */
	struct tls *tls;     /* NULL: plain */
};

_Static_assert(sizeof(struct conn) <= 320, "a connection is cheap");

/* Takes a connected socket (nonblocking, close-on-exec). Events start at once. Negative: the fd is closed. */
must_use int conn_open(
    struct conn *c, struct loop *l, int fd, struct job *job, void (*on_closed)(struct conn *));

/*
 * Starts a connect; CONN_OPEN or CONN_E_BROKEN shows in state and is_broken after a wake.
 * Negative: nothing was opened (-EMFILE, -ENETUNREACH, ...), on_closed is not called.
 */
must_use int conn_connect(struct conn *c, struct loop *l, const struct sockaddr *addr, struct job *job,
    void (*on_closed)(struct conn *));

/*
 * Right after one of these: TLS by this session, which is the conn's from now on. The
 * handshake has no deadline of its own; when it fails the conn is broken.
 */
void conn_secure(struct conn *c, struct tls *tls);

/* What a handshake failed for, in words; NULL: none has failed. */
const char *conn_tls_failure(const struct conn *c);

/* Has the kernel find out within two minutes that a silent peer is gone without a word. */
void conn_keep_alive(int fd);

/* Unlinks and closes; on_closed follows before the turn ends. With reset, what the peer did not get is lost
 * to it at once. */
void conn_close(struct conn *c);
void conn_reset(struct conn *c);

/* FIN, and TLS's farewell before it; reading goes on. Nothing may wait to be sent. While the socket is full
 * it is yet to be done: to be called again at the next wake, after which it does nothing. */
void conn_shutdown(struct conn *c);

/* The next conn_fill() asks the socket, whatever events have told: bytes may have come since the last poll.
 */
void conn_look(struct conn *c);

/* Reads at most `max` bytes into `unread` if that is empty. 0: there is something. */
must_use int conn_fill(struct conn *c, size_t max);

/* Reads more behind `unread`, kept in one piece of at most `limit` bytes. */
must_use int conn_more(struct conn *c, size_t limit);

/* Gives back what held bytes that are consumed by now. Slices taken from it end. */
void conn_relax(struct conn *c);

static inline void conn_consume(struct conn *c, size_t n) {
	c->unread = slice_skip(c->unread, n);
}

/* 0 or CONN_E_BROKEN. Afterwards the pieces may be reused. */
must_use int conn_send(struct conn *c, const struct piece *pieces, size_t n);

/* Whether the owner wants to be woken by bytes. On at the start. */
void conn_want_read(struct conn *c, bool wants);

/* Seen by its owner: no more wake-ups for the peer's close (half_close = "serve"). */
void conn_ignore_peer_close(struct conn *c);
