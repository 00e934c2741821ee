/*
 * fake_net: the network as the router sees it in these tests: no sockets, no kernel.
 *
 * net/conn.c and net/listener.c are compiled in here, with the calls they make of the
 * system and of libuv's poll handles renamed to those below; all above is the router's
 * own. A descriptor stands for a struct peer, the far end of one connection, of which
 * the test is the master. Readiness is told as epoll and libuv tell it: level-triggered,
 * a peer that ended is readable and disconnected, one that broke is an error that stops
 * the handle.
 *
 * One network a process, one thread at a time. What peers said and got stays until
 * net_reset(). Mistakes of a test are assertions.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/bytes.h"
#include "net/conn.h"
#include "net/listener.h"
#include "net/tcp_ack.h"

#define NET_PEERS_MAX     1024
#define NET_BYTES_MAX     (64u << 20) /* one direction of one connection */
#define NET_FD_FIRST      100000      /* of the listener; no descriptor of the process is that high */
#define NET_ENGINES_MAX   80
#define NET_ADDRESSES_MAX 2

/* What an address of an engine does with a connect. */
enum net_mood { MOOD_ACCEPT, MOOD_REFUSE, MOOD_SILENT, MOOD_UNREACHABLE };

enum peer_link {
	PEER_WAITING = 1, /* in the listener's queue, or the connect is not answered */
	PEER_UP,
	PEER_FAILED, /* the connect */
};

/* What the router sent from byte `at` on left it at that move of the network. */
struct net_mark {
	size_t at;
	uint64_t move;
};

struct peer {
	int fd;
	int engine; /* which one; -1: a client */
	enum peer_link link;
	struct bytes said;  /* by the peer */
	size_t n_heard;     /* bytes of it that the router received */
	struct bytes got;   /* from the router */
	size_t n_arrived;   /* bytes of it that were acknowledged: all, until the peer is deaf */
	size_t n_seen;      /* bytes of it that the test has looked at */
	struct bytes marks; /* struct net_mark: when it came */
	struct bytes todo;  /* for scripts: what it is going to say */
	size_t n_todo_said;
	size_t n_promised; /* requests that begin before this byte of what it got are answered in it */
	size_t room;       /* bytes that the router's socket still takes; SIZE_MAX: the peer reads */
	bool has_left;     /* the peer's FIN stands behind what it said */
	bool has_reset;
	bool is_deaf;    /* what comes is not acknowledged any more */
	bool is_gone;    /* and answered by a reset */
	bool was_shut;   /* the router's FIN */
	bool was_closed; /* by the router */
	bool was_reset;  /* by the router, or by closing on bytes that it did not receive */
	bool lingers;    /* the router's close will be a reset */
	uv_poll_t *poll;
	uv_poll_cb on_event;
	int interest;
};

static struct net {
	struct peer peers[NET_PEERS_MAX]; /* the first is the listener; descriptors count from NET_FD_FIRST */
	unsigned n_peers;
	enum net_mood moods[NET_ENGINES_MAX][NET_ADDRESSES_MAX];
	int socket_errno;           /* of every socket() while not 0 */
	size_t read_max, write_max; /* bytes of one call; 0: no limit */
	uint64_t now_ns;
	uint64_t n_moves; /* calls that moved something */
	unsigned n_closing;
	struct {
		uv_handle_t *handle;
		uv_close_cb on_closed;
	} closing[NET_PEERS_MAX];
} net;

static inline uint64_t net_clock(void) {
	return net.now_ns;
}

static inline struct peer *net_peer_new(int engine) {
	assert(net.n_peers < NET_PEERS_MAX);
	struct peer *p = &net.peers[net.n_peers];
	struct bytes said = p->said, got = p->got, marks = p->marks, todo = p->todo;
	*p = (struct peer){ .fd = NET_FD_FIRST + (int)net.n_peers++, .engine = engine };
	p->link = PEER_WAITING;
	p->room = SIZE_MAX;
	p->said = said; /* memory of an earlier one */
	p->got = got;
	p->marks = marks;
	p->todo = todo;
	p->said.n = p->got.n = p->marks.n = p->todo.n = 0;
	p->said.n_max = p->got.n_max = p->marks.n_max = p->todo.n_max = NET_BYTES_MAX;
	return p;
}

/* Forgets all connections, which the router must have closed, but the listener. */
static inline void net_reset(void) {
	assert(net.n_closing == 0);
	for (unsigned i = 1; i < net.n_peers; i++)
		assert(!net.peers[i].poll);
	net.n_peers = size_min(net.n_peers, 1);
	memset(net.moods, 0, sizeof(net.moods));
	net.socket_errno = 0;
	net.read_max = net.write_max = 0;
}

static inline void net_free(void) {
	for (unsigned i = 0; i < NET_PEERS_MAX; i++) {
		bytes_deinit(&net.peers[i].said);
		bytes_deinit(&net.peers[i].got);
		bytes_deinit(&net.peers[i].marks);
		bytes_deinit(&net.peers[i].todo);
	}
	uint64_t now_ns = net.now_ns;
	memset(&net, 0, sizeof(net));
	net.now_ns = now_ns;
}

/* --- what the router calls ----------------------------------------------------- */

static inline struct peer *net_peer(int fd) {
	assert(fd >= NET_FD_FIRST && fd < NET_FD_FIRST + (int)net.n_peers);
	struct peer *p = &net.peers[fd - NET_FD_FIRST];
	assert(!p->was_closed);
	return p;
}

static inline int net_fail(int error) {
	errno = error;
	return -1;
}

static inline int net_socket(int family, int type, int protocol) {
	if (net.socket_errno)
		return net_fail(net.socket_errno);
	if (net.n_peers == NET_PEERS_MAX)
		return net_fail(EMFILE);
	return net_peer_new(0)->fd;
}

/* Address number k of engine number i is 10.0.k.i+1, or fd00::k:i+1. */
static inline int net_connect(int fd, const struct sockaddr *addr, socklen_t n) {
	struct peer *p = net_peer(fd);
	const uint8_t *tail = addr->sa_family == AF_INET
	    ? (const uint8_t *)&((const struct sockaddr_in *)addr)->sin_addr
	    : ((const struct sockaddr_in6 *)addr)->sin6_addr.s6_addr + 12;
	unsigned k = addr->sa_family == AF_INET ? tail[2] : tail[1];
	p->engine = tail[3] - 1;
	assert(p->engine >= 0 && p->engine < NET_ENGINES_MAX && k < NET_ADDRESSES_MAX);
	net.n_moves++;
	switch (net.moods[p->engine][k]) {
	case MOOD_ACCEPT:
		p->link = PEER_UP;
		break;
	case MOOD_REFUSE:
		p->link = PEER_FAILED;
		break;
	case MOOD_SILENT:
		break;
	case MOOD_UNREACHABLE:
		return net_fail(ENETUNREACH);
	}
	return net_fail(EINPROGRESS);
}

static inline int net_accept4(int fd, struct sockaddr *addr, socklen_t *n, int flags) {
	for (unsigned i = 1; i < net.n_peers; i++) {
		struct peer *p = &net.peers[i];
		if (p->engine >= 0 || p->link != PEER_WAITING)
			continue;
		struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001) };
		memcpy(addr, &from, sizeof(from));
		*n = sizeof(from);
		p->link = PEER_UP;
		net.n_moves++;
		return p->fd;
	}
	return net_fail(EAGAIN);
}

static inline int net_setsockopt(int fd, int level, int option, const void *value, socklen_t n) {
	if (level == SOL_SOCKET && option == SO_LINGER)
		net_peer(fd)->lingers = true;
	return 0;
}

static inline int net_getsockopt(int fd, int level, int option, void *value, socklen_t *n) {
	assert(level == SOL_SOCKET && option == SO_ERROR);
	int error = net_peer(fd)->link == PEER_FAILED ? ECONNREFUSED : 0;
	memcpy(value, &error, sizeof(error));
	return 0;
}

static inline ssize_t net_recv(int fd, void *to, size_t max, int flags) {
	struct peer *p = net_peer(fd);
	size_t n = size_min(max, p->said.n - p->n_heard);
	if (net.read_max)
		n = size_min(n, net.read_max);
	if (p->link == PEER_FAILED) /* a fetch asks what it was */
		return net_fail(ECONNREFUSED);
	assert(max > 0 && p->link == PEER_UP);
	if (!n && !p->has_reset && !p->has_left)
		return net_fail(EAGAIN);
	net.n_moves++;
	if (!n && p->has_reset)
		return net_fail(ECONNRESET);
	if (n)
		memcpy(to, p->said.p + p->n_heard, n);
	p->n_heard += n;
	return (ssize_t)n;
}

static inline ssize_t net_sendmsg(int fd, const struct msghdr *msg, int flags) {
	struct peer *p = net_peer(fd);
	size_t left = size_min(p->room, net.write_max ? net.write_max : SIZE_MAX), n = 0;
	struct net_mark mark = { p->got.n, net.n_moves };
	assert(p->link == PEER_UP && !p->was_shut && flags & MSG_NOSIGNAL);
	if (p->has_reset)
		return net_fail(EPIPE);
	for (size_t i = 0; i < msg->msg_iovlen && left > n; i++) {
		const struct iovec *v = &msg->msg_iov[i];
		size_t part = size_min(v->iov_len, left - n);
		bool has_room = bytes_add(&p->got, (struct slice){ v->iov_base, part });
		assert(has_room);
		n += part;
	}
	if (!n)
		return net_fail(EAGAIN);
	bool fits = bytes_add(&p->marks, (struct slice){ (const char *)&mark, sizeof(mark) });
	assert(fits);
	net.n_moves++;
	if (p->room != SIZE_MAX)
		p->room -= n;
	if (!p->is_deaf)
		p->n_arrived = p->got.n;
	p->has_reset = p->is_gone;
	return (ssize_t)n;
}

static inline ssize_t net_send(int fd, const void *from, size_t n, int flags) {
	struct iovec v = { (void *)(uintptr_t)from, n };
	struct msghdr msg = { .msg_iov = &v, .msg_iovlen = 1 };
	return net_sendmsg(fd, &msg, flags);
}

static inline int net_shutdown(int fd, int how) {
	struct peer *p = net_peer(fd);
	assert(how == SHUT_WR);
	net.n_moves += !p->was_shut;
	p->was_shut = true;
	return 0;
}

static inline int net_close(int fd) {
	struct peer *p = net_peer(fd);
	assert(!p->poll);
	net.n_moves++;
	p->was_reset = p->lingers || p->n_heard < p->said.n;
	p->was_closed = true;
	return 0;
}

bool tcp_ack_is_none(int fd, uint64_t since) {
	return net_peer(fd)->n_arrived <= since;
}

static inline int net_poll_init(uv_loop_t *loop, uv_poll_t *poll, int fd) {
	struct peer *p = net_peer(fd);
	assert(!p->poll);
	p->poll = poll;
	poll->data = p;
	return 0;
}

static inline struct peer *net_peer_of(const void *poll) {
	struct peer *p = ((const uv_poll_t *)poll)->data;
	assert(p->poll == poll);
	return p;
}

static inline int net_poll_start(uv_poll_t *poll, int interest, uv_poll_cb on_event) {
	struct peer *p = net_peer_of(poll);
	p->interest = interest;
	p->on_event = on_event;
	return 0;
}

static inline int net_poll_stop(uv_poll_t *poll) {
	net_peer_of(poll)->interest = 0;
	return 0;
}

static inline int net_is_active(const uv_handle_t *handle) {
	return net_peer_of(handle)->interest != 0;
}

static inline void net_close_handle(uv_handle_t *handle, uv_close_cb on_closed) {
	struct peer *p = net_peer_of(handle);
	assert(net.n_closing < n_elems(net.closing));
	p->poll = NULL;
	p->interest = 0;
	net.closing[net.n_closing].handle = handle;
	net.closing[net.n_closing++].on_closed = on_closed;
}

#define socket        net_socket
#define connect       net_connect
#define accept4       net_accept4
#define setsockopt    net_setsockopt
#define getsockopt    net_getsockopt
#define recv          net_recv
#define send          net_send
#define sendmsg       net_sendmsg
#define shutdown      net_shutdown
#define close         net_close
#define uv_poll_init  net_poll_init
#define uv_poll_start net_poll_start
#define uv_poll_stop  net_poll_stop
#define uv_is_active  net_is_active
#define uv_close      net_close_handle
#include "net/conn.c"
#include "net/listener.c"
#undef socket
#undef connect
#undef accept4
#undef setsockopt
#undef getsockopt
#undef recv
#undef send
#undef sendmsg
#undef shutdown
#undef close
#undef uv_poll_init
#undef uv_poll_start
#undef uv_poll_stop
#undef uv_is_active
#undef uv_close

/* --- events ---------------------------------------------------------------------- */

static inline bool net_has_waiting_client(void) {
	for (unsigned i = 1; i < net.n_peers; i++)
		if (net.peers[i].engine < 0 && net.peers[i].link == PEER_WAITING)
			return true;
	return false;
}

static inline int net_readiness(const struct peer *p) {
	if (p == &net.peers[0])
		return net_has_waiting_client() ? UV_READABLE : 0;
	if (p->link != PEER_UP)
		return 0;
	return (p->n_heard < p->said.n || p->has_left ? UV_READABLE : 0) | (p->has_left ? UV_DISCONNECT : 0) |
	    (p->room ? UV_WRITABLE : 0);
}

/* Tells what is ready, everybody once. False: nothing was. */
static inline bool net_poll(void) {
	bool any = false;
	for (unsigned i = 0; i < net.n_peers; i++) {
		struct peer *p = &net.peers[i];
		if (!p->poll || !p->interest)
			continue;
		bool is_broken = p->has_reset || p->link == PEER_FAILED;
		int ready = is_broken ? 0 : net_readiness(p) & p->interest;
		if (is_broken)
			p->interest = 0;
		if (is_broken || ready)
			p->on_event(p->poll, is_broken ? UV_EBADF : 0, ready);
		any |= is_broken || ready;
	}
	return any;
}

/* What libuv does at the end of a turn. */
static inline void net_end_turn(void) {
	for (unsigned i = 0; i < net.n_closing; i++)
		if (net.closing[i].on_closed)
			net.closing[i].on_closed(net.closing[i].handle);
	net.n_closing = 0;
}

/* --- what the test does -------------------------------------------------------------- */

/* A client that connects. */
static inline struct peer *net_client(void) {
	return net_peer_new(-1);
}

static inline void peer_say(struct peer *p, struct slice text) {
	bool fits = bytes_add(&p->said, text);
	assert(fits && !p->has_left);
}

static inline void peer_says(struct peer *p, const char *text) {
	peer_say(p, slice_of(text));
}

/* FIN; it still reads. */
static inline void peer_finish(struct peer *p) {
	p->has_left = true;
}

/* FIN, and nobody is there any more. */
static inline void peer_close(struct peer *p) {
	p->has_left = p->is_deaf = p->is_gone = true;
}

static inline void peer_break(struct peer *p) {
	p->has_reset = p->is_deaf = p->is_gone = true;
}

/* Its process is gone and its FIN on the way: peer_finish() lets it arrive. */
static inline void peer_deafen(struct peer *p) {
	p->is_deaf = true;
}

/* The router's socket takes this much more. */
static inline void peer_stall(struct peer *p, size_t room) {
	p->room = room;
}

/* What it got and the test has not looked at. */
static inline struct slice peer_unseen(const struct peer *p) {
	return p->got.n ? slice_skip(bytes_slice(&p->got), p->n_seen) : (struct slice){ NULL, 0 };
}

/* The move of the network at which byte `at` of what it got came. */
static inline uint64_t peer_when(const struct peer *p, size_t at) {
	uint64_t move = 0;
	for (size_t i = 0; i < p->marks.n; i += sizeof(struct net_mark)) {
		struct net_mark mark;
		memcpy(&mark, p->marks.p + i, sizeof(mark));
		if (mark.at > at)
			break;
		move = mark.move;
	}
	return move;
}

/* The connect is answered. */
static inline void peer_answer_connect(struct peer *p, bool accepts) {
	assert(p->engine >= 0 && p->link == PEER_WAITING);
	p->link = accepts ? PEER_UP : PEER_FAILED;
}

/* The newest connection to an engine, or to that one if `engine` >= 0; NULL: there is none. */
static inline struct peer *net_newest(int engine) {
	for (unsigned i = net.n_peers; i-- > 1;)
		if (net.peers[i].engine >= 0 && (engine < 0 || net.peers[i].engine == engine))
			return &net.peers[i];
	return NULL;
}

/* Connections that were made to that engine; -1: to all. */
static inline unsigned net_n_connects(int engine) {
	unsigned n = 0;
	for (unsigned i = 1; i < net.n_peers; i++)
		n += net.peers[i].engine >= 0 && (engine < 0 || net.peers[i].engine == engine);
	return n;
}
