/*
 * call: one HTTP request and its answer on one connection, as the exchange sees it.
 *
 * The same object serves both sides: towards a client it receives a request and sends
 * an answer, towards an engine the reverse. It knows framing, not routing, and hides
 * which HTTP version and which connection carry it. Everything a peer does is an
 * outcome. The owner is woken through its job and pulls.
 *
 * Receiving: call_recv() reads once from the socket and takes the framing off. The
 * pieces are valid until the next receive of any call of the thread.
 *
 * Sending: gather with call_begin(), call_put_*() in the order of the message, then
 * call_flush(), which makes one system call. Nothing else may send or receive on this
 * thread in between.
 */
#pragma once

#include "http/body.h"
#include "net/conn.h"

#define CALL_PIECES_MAX 32

enum call_outcome {
	CALL_E_AGAIN = 1, /* nothing now */
	CALL_E_GONE,      /* the peer ended or broke the connection before the message was complete */
	CALL_E_BAD,       /* the peer broke the grammar */
};

struct call {
	struct conn *conn; /* NULL once the connection was given back or closed */
	struct body in;
	struct buf *trailer; /* raw trailer section, lent once it begins */
	uint64_t out_left;   /* of a FRAMING_LENGTH message */
	uint64_t in_bytes;   /* body bytes received, framing taken off */
	uint64_t out_bytes;  /* body bytes put, framing not counted */
	uint16_t seen_bytes; /* of an incomplete response head */
	uint8_t out_framing;
	bool out_has_begun;
	bool out_is_done;
};

_Static_assert(sizeof(struct call) <= 104, "an exchange has two");

/* What one receive brought. */
struct call_in {
	struct piece pieces[CALL_PIECES_MAX];
	size_t n;
	size_t bytes;
	bool is_end; /* the message is complete */
};

/* A message, or a part of one, being gathered. On the caller's stack. */
struct call_out {
	struct call *call;
	struct loop *loop;
	size_t scratch_used;
	size_t n;
	struct piece pieces[CALL_PIECES_MAX + 8];
};

/* The conn must be open or connecting; the call does not own it. `in` says how the peer frames its message.
 */
void call_init(struct call *c, struct conn *conn, enum framing in, uint64_t in_length);

/* Gives back what the call itself holds; the conn is the owner's. */
void call_deinit(struct call *c);

/* Reads at most `max` bytes. 0: something came, or the end, behind which nothing wakes the owner any more. */
must_use int call_recv(struct call *c, size_t max, struct call_in *in_out);

/* Response head on an engine's connection; on 0 the call receives its body from now on (not for 1xx). */
must_use int call_recv_head(struct call *c, struct head_room *room, enum method method);

/* Trailer fields that came behind the body; false when there were none or they were refused. */
bool call_trailer(const struct call *c, struct head_room *room);

void call_begin(struct call_out *o, struct call *c);
/* The target in two parts, of which the first may be empty. */
void call_put_request_line(struct call_out *o, struct slice method, struct slice base, struct slice target);
void call_put_status_line(struct call_out *o, unsigned status);
void call_put_field(struct call_out *o, struct slice name, struct slice value);
/* Bytes of a head as they are: for a field that is made of many pieces. */
void call_put_text(struct call_out *o, struct slice text);
void call_put_head_end(struct call_out *o, enum framing framing, uint64_t length);
/* The end of an interim (1xx) head: the message itself is still to come. */
void call_put_interim_end(struct call_out *o);
/* Bytes are framed as one chunk where the message is chunked. With FRAMING_LENGTH no more than was announced.
 */
void call_put_data(struct call_out *o, const struct piece *pieces, size_t n);
/* The end of the message; `trailers` may be NULL and is dropped unless the message is chunked. */
void call_put_end(struct call_out *o, const struct head *trailers);
/* 0 or CALL_E_GONE. What the socket does not take is kept and sent by the connection itself. */
must_use int call_flush(struct call_out *o);

/* Decimal digits, in `room`. */
struct slice call_decimal(uint64_t n, char room[20]);

/* Bytes kept because the peer does not read. */
static inline size_t call_pending(const struct call *c) {
	return c->conn ? c->conn->out_bytes : 0;
}

static inline bool call_is_received(const struct call *c) {
	return body_is_complete(&c->in);
}

/* The peer ended or broke the connection, as far as events told. */
static inline bool call_is_gone(const struct call *c) {
	return !c->conn || c->conn->peer_closed || c->conn->is_broken;
}

static inline void call_want(struct call *c, bool wants) {
	if (c->conn)
		conn_want_read(c->conn, wants);
}

/* Bytes of the message may wait: pull again without an event. */
static inline bool call_has_input(const struct call *c) {
	return c->conn && (c->conn->unread.n || c->conn->can_read);
}
