/*
 * listener: a listening socket of one loop, on a uv_poll_t with our own accept4.
 *
 * Accepting stops when the process-wide budget of client descriptors is used up, or
 * when the kernel says that descriptors or memory have run out: new clients then wait
 * in the backlog, old ones live, nothing spins. It goes on when a client leaves
 * (listener_client_gone) or a moment later. Who waits for the budget's sake may be told of
 * (`full`), so that a client who does nothing can be ended for it.
 *
 * TCP_NODELAY, keep-alive probes and the limit of unsent bytes are set here and inherited by what is
 * accepted.
 */
#pragma once

#include <sys/socket.h>

#include "net/loop.h"

/* Shared by all listeners that serve clients; n_max is set once, before threads exist. */
struct client_budget {
	_Atomic uint32_t n_open;
	_Atomic bool
	    is_awaited; /* somebody waits for a place, and on his thread nobody could be ended for it */
	uint32_t n_max;
};

struct listener {
	uv_poll_t poll;
	struct loop *loop;
	struct client_budget *budget; /* NULL: not limited (admin) */
	/* Takes the connected descriptor. */
	void (*on_accept)(struct listener *l, int fd, const struct sockaddr_storage *peer);
	struct timer retry;
	struct job
	    *full; /* the owner's, set after opening: woken when a client waits for a place; NULL: none */
	int fd;
	bool is_paused;
	bool is_closing;
};

/* A bound, listening, nonblocking socket or a negative errno. reuse_port: one of a set that shares the port.
 */
must_use int listener_bind(const struct sockaddr *addr, bool reuse_port);

/* The same at the first address of a host name or address; -EADDRNOTAVAIL when it has none. May block: at
 * start-up. */
must_use int listener_bind_host(const char *host, uint16_t port, bool reuse_port);

/* The port that the socket is bound to: it may have been picked by the kernel. 0: not known. */
uint16_t listener_port(int fd);

/* Whether it is a stream socket that listens at the first address of that host name or address. May block. */
must_use bool listener_is_at_host(int fd, const char *host, uint16_t port);

/* Whether no new client has a place. Changes at any time. */
static inline bool client_budget_is_full(const struct client_budget *b) {
	return atomic_load_explicit(&b->n_open, memory_order_relaxed) >= b->n_max;
}

must_use int listener_open(struct listener *l, struct loop *loop, int fd, struct client_budget *budget,
    void (*on_accept)(struct listener *, int, const struct sockaddr_storage *));

/* A client of this listener's thread is gone: gives its place back. */
void listener_client_gone(struct listener *l);

/* Somebody else's place has become free. */
void listener_resume(struct listener *l);

/* Accepts what waits in the queue, then closes the socket. Other processes that have it lose nothing. */
void listener_close(struct listener *l);
