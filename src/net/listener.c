#include "net/listener.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "net/conn.h"

#define ACCEPTS_PER_TURN 64
#define BACKLOG          4096
#define RETRY_MS         100
#define UNSENT_BYTES_MAX 131072

static void listener_on_event(uv_poll_t *poll, int status, int events);

int listener_bind(const struct sockaddr *addr, bool reuse_port) {
	socklen_t len =
	    addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int on = 1, unsent = UNSENT_BYTES_MAX;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (reuse_port)
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	conn_keep_alive(fd);
	if (bind(fd, addr, len) < 0 || listen(fd, BACKLOG) < 0) {
		int error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

/* The caller frees it; NULL: there is none. */
static struct addrinfo *listener_find(const char *host, uint16_t port) {
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	struct addrinfo *found;
	char service[8];
	snprintf(service, sizeof(service), "%u", port);
	return getaddrinfo(host, service, &hints, &found) == 0 ? found : NULL;
}

int listener_bind_host(const char *host, uint16_t port, bool reuse_port) {
	struct addrinfo *found = listener_find(host, port);
	if (!found)
		return -EADDRNOTAVAIL;
	int fd = listener_bind(found->ai_addr, reuse_port);
	freeaddrinfo(found);
	return fd;
}

/* Port and address; a scope tells link-local ones apart. */
static bool is_same_address(const struct sockaddr *a, const struct sockaddr *b) {
	const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
	const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;
	if (a->sa_family != b->sa_family)
		return false;
	if (a->sa_family == AF_INET)
		return a4->sin_port == b4->sin_port && a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	return a->sa_family == AF_INET6 && a6->sin6_port == b6->sin6_port &&
	    a6->sin6_scope_id == b6->sin6_scope_id &&
	    memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
}

static bool is_listening(int fd) {
	int type = 0, listens = 0;
	socklen_t n = sizeof(type);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_STREAM)
		return false;
	n = sizeof(listens);
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && listens;
}

bool listener_is_at_host(int fd, const char *host, uint16_t port) {
	struct sockaddr_storage at = { .ss_family = AF_UNSPEC };
	socklen_t n = sizeof(at);
	struct addrinfo *found = listener_find(host, port);
	bool is_there = found && is_listening(fd) && getsockname(fd, (struct sockaddr *)&at, &n) == 0 &&
	    is_same_address((struct sockaddr *)&at, found->ai_addr);
	if (found)
		freeaddrinfo(found);
	return is_there;
}

uint16_t listener_port(int fd) {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} at = { .in6.sin6_port = 0 };
	socklen_t len = sizeof(at);
	if (getsockname(fd, &at.sa, &len) < 0)
		return 0;
	return ntohs(at.sa.sa_family == AF_INET6 ? at.in6.sin6_port : at.in.sin_port);
}

void listener_resume(struct listener *l) {
	if (l->is_closing || !l->is_paused)
		return;
	l->is_paused = false;
	timer_stop(&l->retry);
	uv_poll_start(&l->poll, UV_READABLE, listener_on_event);
}

static void listener_pause(struct listener *l) {
	l->is_paused = true;
	uv_poll_stop(&l->poll);
	loop_timer(l->loop, &l->retry, RETRY_MS); /* another thread's clients may leave meanwhile */
}

static void listener_on_retry(struct timer *t) {
	listener_resume(container_of(t, struct listener, retry));
}

static bool listener_take_place(struct listener *l) {
	struct client_budget *b = l->budget;
	if (!b)
		return true;
	if (atomic_fetch_add_explicit(&b->n_open, 1, memory_order_relaxed) < b->n_max || l->is_closing)
		return true; /* the last ones are taken beyond it: half of all descriptors is kept for engines
			      */
	atomic_fetch_sub_explicit(&b->n_open, 1, memory_order_relaxed);
	return false;
}

static void listener_give_place(struct listener *l) {
	if (l->budget)
		atomic_fetch_sub_explicit(&l->budget->n_open, 1, memory_order_relaxed);
}

/* One client; false when there is none, or no room for it. */
static bool listener_accept(struct listener *l) {
	if (!listener_take_place(l))
		return false; /* if somebody still waits, the next event says so */
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	int fd = accept4(l->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		l->on_accept(l, fd, &peer);
		return true;
	}
	listener_give_place(l);
	if (errno == ECONNABORTED || errno == EINTR)
		return true;
	if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
		listener_pause(l);
	return false;
}

static void listener_on_event(uv_poll_t *poll, int status, int events) {
	struct listener *l = container_of(poll, struct listener, poll);
	if (l->budget && client_budget_is_full(l->budget)) {
		listener_pause(l);
		if (l->full)
			loop_wake(l->loop, l->full);
		return;
	}
	for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++)
		if (!listener_accept(l))
			return;
}

int listener_open(struct listener *l, struct loop *loop, int fd, struct client_budget *budget,
    void (*on_accept)(struct listener *, int, const struct sockaddr_storage *)) {
	*l = (struct listener){ .loop = loop, .budget = budget, .on_accept = on_accept, .fd = fd };
	timer_init(&l->retry, listener_on_retry);
	int r = uv_poll_init(&loop->uv, &l->poll, fd);
	if (r < 0)
		return r;
	return uv_poll_start(&l->poll, UV_READABLE, listener_on_event);
}

void listener_client_gone(struct listener *l) {
	listener_give_place(l);
	listener_resume(l);
}

void listener_close(struct listener *l) {
	if (l->is_closing)
		return;
	l->is_closing =
	    true; /* closing a socket of a shared port resets what is queued on it: take that first */
	/* A full queue has one more; who comes meanwhile need not be waited for. */
	for (unsigned i = 0; i <= BACKLOG && listener_accept(l); i++)
		;
	timer_stop(&l->retry);
	uv_close((uv_handle_t *)&l->poll, NULL);
	close(l->fd);
	l->fd = -1;
}
