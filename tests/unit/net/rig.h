/*
 * rig: a real loop, and sockets whose far ends the test holds in its hands.
 *
 * rig_until() runs the loop turn by turn until a condition holds and fails the test
 * when it does not in a minute. Everything lives on the test's stack; rig_close() checks
 * that all that was lent came back.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit/unit.h"

#include "base/clock.h"
#include "net/conn.h"
#include "net/listener.h"

#define RIG_PATIENCE_NS 60000000000u

struct rig {
	struct loop loop;
	struct buf_budget budget;
	uint64_t since_ns; /* of this wait; 0: none */
};

static inline void rig_open(struct rig *r) {
	r->budget = (struct buf_budget){ .max_bytes = 64u << 20 };
	r->since_ns = 0;
	assert_int_equal(loop_init(&r->loop, &r->budget), 0);
}

/* All conns are closed; their memory is still there. */
static inline void rig_close(struct rig *r) {
	loop_deinit(&r->loop);
	assert_int_equal(r->budget.used_bytes, 0);
}

/* Bytes lent to anybody. */
static inline uint64_t rig_lent(struct rig *r) {
	buf_pool_report(&r->loop.bufs);
	return atomic_load(&r->budget.used_bytes);
}

/* The loop has nothing to do before the next event, timer, or look at what the far ends have heard: what it
 * did last may have been what they wait for, and no event tells of that. */
static inline void rig_rest(struct rig *r) {
	struct pollfd events = { .fd = uv_backend_fd(&r->loop.uv), .events = POLLIN };
	int timeout_ms = uv_backend_timeout(&r->loop.uv);
	poll(&events, 1, timeout_ms < 0 || timeout_ms > 10 ? 10 : timeout_ms);
}

static inline void rig_turn(struct rig *r, const char *what) {
	if (!r->since_ns)
		r->since_ns = uv_hrtime();
	else
		rig_rest(r);
	if (uv_hrtime() - r->since_ns > RIG_PATIENCE_NS)
		fail_msg("waited in vain for %s", what);
	uv_run(&r->loop.uv, UV_RUN_NOWAIT);
}

#define rig_until(r, cond)                                                                                   \
	do {                                                                                                 \
		(r)->since_ns = 0;                                                                           \
		while (!(cond))                                                                              \
			rig_turn(r, #cond);                                                                  \
	} while (0)

/* What is ready now, `n` turns of it; never waits. */
static inline void rig_spin(struct rig *r, unsigned n) {
	while (n-- > 0)
		uv_run(&r->loop.uv, UV_RUN_NOWAIT);
}

/* --- sockets ---------------------------------------------------------------------- */

static inline struct sockaddr_storage rig_loopback(uint16_t port) {
	struct sockaddr_storage at = { .ss_family = AF_INET };
	((struct sockaddr_in *)&at)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	((struct sockaddr_in *)&at)->sin_port = htons(port);
	return at;
}

/* A listening socket on a port of the kernel's choice. */
static inline int rig_listen(uint16_t *port_out) {
	struct sockaddr_storage at = rig_loopback(0);
	int fd = listener_bind((struct sockaddr *)&at, false);
	assert_true(fd >= 0);
	*port_out = listener_port(fd);
	return fd;
}

/* The connection that is on its way. */
static inline int rig_accept(int listening) {
	struct pollfd arrival = { .fd = listening, .events = POLLIN };
	poll(&arrival, 1, 60000);
	return accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Blocking, connected: the kernel completes it before anybody accepts. */
static inline int rig_connect(uint16_t port) {
	struct sockaddr_storage at = rig_loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(struct sockaddr_in)), 0);
	return fd;
}

/* Two ends of one TCP connection, not blocking: ours and the far one. */
static inline void rig_pair(int *near_out, int *far_out) {
	uint16_t port;
	int listening = rig_listen(&port);
	*far_out = rig_connect(port);
	*near_out = rig_accept(listening);
	assert_true(*near_out >= 0);
	fcntl(*far_out, F_SETFL, O_NONBLOCK);
	close(listening);
}

static inline int rig_option(int fd, int level, int option) {
	int value = -1;
	socklen_t n = sizeof(value);
	assert_int_equal(getsockopt(fd, level, option, &value, &n), 0);
	return value;
}

/* The kernel finds out within two minutes that the far end is gone. */
static inline void rig_assert_keep_alive(int fd) {
	assert_true(rig_option(fd, SOL_SOCKET, SO_KEEPALIVE));
	int idle_s = rig_option(fd, IPPROTO_TCP, TCP_KEEPIDLE);
	int interval_s = rig_option(fd, IPPROTO_TCP, TCP_KEEPINTVL);
	assert_in_range(idle_s + interval_s * rig_option(fd, IPPROTO_TCP, TCP_KEEPCNT), 1, 120);
}

/* The far end speaks: all of it, into the socket's buffer. */
static inline void rig_say(int fd, struct slice text) {
	assert_int_equal(send(fd, text.p, text.n, MSG_NOSIGNAL), text.n);
}

/* Ends a connection by a reset. */
static inline void rig_reset(int fd) {
	struct linger now = { .l_onoff = 1 };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

/* What the far end has read so far, grown as needed. */
struct heard {
	char *p;
	size_t n, room;
	bool is_ended, is_reset;
};

/* Reads what there is, at most `max` bytes. */
static inline void rig_hear(int fd, struct heard *h, size_t max) {
	while (max && !h->is_ended && !h->is_reset) {
		if (h->room - h->n < 65536)
			h->p = realloc(h->p, h->room = 2 * h->room + 65536);
		ssize_t n = recv(fd, h->p + h->n, size_min(max, h->room - h->n), MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		h->is_ended = n == 0;
		h->is_reset = n < 0;
		h->n += n > 0 ? (size_t)n : 0;
		max -= n > 0 ? (size_t)n : 0;
	}
}

static inline struct slice rig_heard(const struct heard *h) {
	return (struct slice){ h->p, h->n };
}

/* Until the far end has heard this much, or the end. */
static inline void rig_listen_to(struct rig *r, int fd, struct heard *h, size_t n) {
	r->since_ns = 0;
	for (;;) {
		rig_spin(r, 1); /* what is ready, before any waiting */
		rig_hear(fd, h, SIZE_MAX);
		if (h->n >= n || h->is_ended || h->is_reset)
			return;
		rig_turn(r, "bytes at the far end");
	}
}

static inline void heard_free(struct heard *h) {
	free(h->p);
	*h = (struct heard){ .p = NULL };
}
