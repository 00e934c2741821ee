/*
 * server: the clients' side of HTTP/1.1 on one thread: its listeners, its sessions, and
 * what to do with a request.
 *
 * A session is one client's connection: it waits for heads, judges them, hands each
 * request to the handler as a call, and goes on to the next when the handler says that
 * it is done (session_next). One request is at work at a time; what was pipelined waits
 * in the socket, but for what one read brought together with the head. A malformed head
 * or an expired head deadline is answered here and ends the connection.
 *
 * When all places of clients are taken and another one waits, the connection that has been without a
 * request for longest is ended, else the one that has been sending its head for longest (408), else the
 * oldest handshake: who has been at that for SPARED_MS, a constant. One with a request at work never is.
 *
 * With `tls` set new clients must speak TLS. A handshake has HANDSHAKE_MS, a constant; when
 * too many are under way the oldest of them is ended for each that begins.
 *
 * The handler embeds struct call in an object of its own. From begin() until
 * session_next() or session_abort() the connection's events wake the call's owner.
 */
#pragma once

#include "http/call.h"
#include "net/listener.h"

enum session_state {
	SESSION_HANDSHAKE = 1, /* of TLS */
	SESSION_IDLE,          /* between requests */
	SESSION_HEAD,          /* part of a head has come */
	SESSION_CALL,          /* a request is the handler's */
	SESSION_LINGER, /* answered and half closed: reads on so that the answer is not lost to a reset */
	SESSION_CLOSED,
};

struct server;
struct reply;

struct session {
	struct conn conn;
	struct job job;
	struct timer timer;
	struct list link;  /* server->sessions of its state */
	uint64_t since_ms; /* it is in its state; not kept while a request is at work */
	struct server *server;
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} peer;
	uint32_t n_requests;
	uint32_t lingered_bytes;
	uint16_t seen_bytes; /* of an incomplete head */
	uint8_t state;       /* enum session_state */
	bool has_skipped;    /* the empty line before this request */
};

struct server_limits {
	uint64_t head_ms;      /* first byte of a head to its last */
	uint64_t keepalive_ms; /* idle between requests */
};

struct server_handler {
	/*
	 * A valid head. Copies what it wants to keep of it and returns its owner's job, after session_take()
	 * bound a call to the session. The job runs next.
	 */
	struct job *(*begin)(struct server *server, struct session *session, const struct head *head);

	/*
	 * The session itself refuses a request, of whose head what was read is in `head` (no target: not even
	 * that). For counting and logging; sets reply->request_id, good until the reply is sent. May be NULL.
	 */
	void (*refused)(
	    struct server *server, const struct head *head, enum cause cause, struct reply *reply);
};

#define SERVER_HANDSHAKES_MAX 1024

struct server {
	struct loop *loop;
	const struct server_handler *handler;
	void *context; /* the handler's own */
	struct server_limits limits;
	struct list doors; /* a listener each; most have one */
	struct slab slab;
	/* By state, the longest in it first. Those with a request at work are in none: it has them. */
	struct list sessions[SESSION_CLOSED];
	struct job make_room;
	uint32_t n_handshakes;
	uint32_t n_handshakes_max;   /* SERVER_HANDSHAKES_MAX; may be set after opening, not 0 */
	_Atomic uint32_t n_sessions; /* written by the loop's thread alone */
	_Atomic bool is_closing;     /* the accept queue was taken */
	struct client_budget *clients;
	struct timer trim;
	uint8_t dialect;        /* enum reply_dialect, of all refusals; set after opening */
	struct tls_server *tls; /* the owner's, set after opening and changed at any time; NULL: plain */
};

/* Takes the listening socket; -1: none yet. */
must_use int server_open(struct server *s, struct loop *loop, int fd, struct client_budget *budget,
    const struct server_limits *limits, const struct server_handler *handler, void *context);

/* Takes one socket more to accept from. Not after server_leave(). */
must_use int server_listen(struct server *s, int fd);

/* Stops accepting (queues taken first); sessions go on. Who else has the sockets accepts from them still. */
void server_leave(struct server *s);

/* Stops accepting (queue taken first), closes idle sessions; those at work close after their answer. */
void server_drain(struct server *s);

/* The same, and who is in the middle of a head is told that this is being stopped. */
void server_end(struct server *s);

/* Closes everything. Calls at work must have been ended by their owners. */
void server_close(struct server *s);

/* Now and then, where several threads share the places: a client of another thread may wait for one, and only
 * this one have somebody to end for it. */
void server_yield(struct server *s);

/* After the loop has ended. */
void server_deinit(struct server *s);

/* Binds the call to the session's request; from now on events wake `job`. */
void session_take(struct session *s, struct call *call, struct job *job, const struct head *head);

/*
 * The answer is complete (or refused): gives the call back. With keep the next request is read, otherwise the
 * connection ends in order.
 */
void session_next(struct call *call, bool keep);

/* Ends the connection at once. With reset the client sees that the answer was cut. */
void session_abort(struct call *call, bool reset);

static inline struct session *session_of(struct call *call) {
	return container_of(call->conn, struct session, conn);
}

/* The client's address as text, at most 45 characters. */
struct slice session_peer(const struct session *s, char room[46]);

/* Whether the next answer on it must say "close". */
static inline bool session_is_last(const struct session *s) {
	return s->server->is_closing;
}
