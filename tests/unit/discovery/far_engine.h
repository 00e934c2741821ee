/*
 * far_engine: an engine whose words the test says, and a clock that the test moves.
 *
 * Time stands still but for far_pass() and far_until(), which let 50 ms pass with each
 * turn of the loop: what is due in seconds comes in a few turns.
 */
#pragma once

#include "unit/net/rig.h"

#define FAR_STEP_MS 50

static uint64_t far_now_ns;

static inline uint64_t far_clock(void) {
	return far_now_ns;
}

static inline void far_clock_start(void) {
	far_now_ns = 1000000000;
	clock_set_source(far_clock);
}

static inline void far_step(struct rig *r) {
	far_now_ns += FAR_STEP_MS * 1000000u;
	rig_spin(r, 1);
}

static inline void far_pass(struct rig *r, uint64_t ms) {
	for (uint64_t passed = 0; passed < ms; passed += FAR_STEP_MS) {
		far_step(r);
		rig_spin(r, 4); /* what that began goes as far as it can */
	}
}

/* A day of that time is more than anything waits for. */
#define far_until(r, cond)                                                                                   \
	do {                                                                                                 \
		uint64_t since_ns = far_now_ns;                                                              \
		for (; !(cond); far_step(r))                                                                 \
			if (far_now_ns - since_ns > 86400000000000u)                                         \
				fail_msg("waited in vain for %s", #cond);                                    \
	} while (0)

struct far_engine {
	struct sockaddr_storage address;
	int listening;
};

static inline void far_open(struct far_engine *e) {
	uint16_t port;
	e->listening = rig_listen(&port);
	e->address = rig_loopback(port);
}

static inline void far_close(struct far_engine *e) {
	close(e->listening);
}

/* The next connection, or -1 when there is none now. */
static inline int far_accept(struct far_engine *e) {
	return accept4(e->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Accepts and reads the head of a request. */
static inline int far_hear(struct rig *r, struct far_engine *e, struct heard *heard) {
	int fd;
	*heard = (struct heard){ .n = 0 };
	far_until(r, (fd = far_accept(e)) >= 0);
	far_until(r, (rig_hear(fd, heard, SIZE_MAX), memmem(heard->p, heard->n, "\r\n\r\n", 4)));
	return fd;
}

/* Says it, as fast as it is taken; then nothing more. */
static inline void far_say(struct rig *r, int fd, struct slice text) {
	while (text.n) {
		ssize_t n = send(fd, text.p, text.n, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			break; /* the other side has had enough */
		text = slice_skip(text, n > 0 ? (size_t)n : 0);
		rig_spin(r, 1);
	}
	shutdown(fd, SHUT_WR);
}

/* Until the other side lets go of the connection. */
static inline void far_await_end(struct rig *r, int fd) {
	struct heard rest = { .n = 0 };
	far_until(r, (rig_hear(fd, &rest, SIZE_MAX), rest.is_ended || rest.is_reset));
	heard_free(&rest);
	close(fd);
}

/* One request, which must ask for `path`, and its answer. */
static inline void far_answer(struct rig *r, struct far_engine *e, const char *path, struct slice text) {
	struct heard heard;
	char line[128];
	int fd = far_hear(r, e, &heard);
	snprintf(line, sizeof(line), "GET %s HTTP/1.1\r\n", path);
	if (!slice_eq(slice_head(rig_heard(&heard), strlen(line)), slice_of(line)))
		fail_msg("asked for %.*s, not for %s", (int)heard.n, heard.p, path);
	heard_free(&heard);
	far_say(r, fd, text);
	far_await_end(r, fd);
	rig_spin(r, 4); /* what that began goes as far as it can */
}
