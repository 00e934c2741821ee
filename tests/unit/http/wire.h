/*
 * wire: a call on a real connection whose far end the test holds.
 *
 * Texts that the far end says are there when wire_say() returns; wire_heard() waits for
 * what the call has sent and compares it byte by byte.
 */
#pragma once

#include "unit/net/rig.h"

#include "http/call.h"

struct wire {
	struct rig rig;
	struct conn conn;
	struct call call;
	struct job job;
	bool is_closed;
	int far; /* -1: closed */
};

static inline void wire_on_event(struct job *job) {}

static inline void wire_on_closed(struct conn *c) {
	container_of(c, struct wire, conn)->is_closed = true;
}

/* `in` and `length`: how the far end frames what it says. */
static inline void wire_open(struct wire *w, enum framing in, uint64_t length) {
	int near;
	w->is_closed = false;
	rig_open(&w->rig);
	job_init(&w->job, wire_on_event);
	rig_pair(&near, &w->far);
	assert_int_equal(conn_open(&w->conn, &w->rig.loop, near, &w->job, wire_on_closed), 0);
	call_init(&w->call, &w->conn, in, length);
}

static inline void wire_close(struct wire *w) {
	if (w->call.conn)
		call_deinit(&w->call);
	conn_close(&w->conn);
	rig_until(&w->rig, w->is_closed);
	if (w->far >= 0)
		close(w->far);
	rig_close(&w->rig);
}

static inline void wire_say(struct wire *w, struct slice text) {
	rig_say(w->far, text);
	rig_until(&w->rig, w->conn.can_read);
}

static inline void wire_end(struct wire *w, bool reset) {
	if (reset)
		rig_reset(w->far);
	else
		close(w->far);
	w->far = -1;
	rig_until(&w->rig, w->conn.peer_closed);
}

static inline void wire_heard(struct wire *w, const char *text) {
	struct heard heard = { .n = 0 };
	rig_listen_to(&w->rig, w->far, &heard, strlen(text));
	if (!slice_eq(rig_heard(&heard), slice_of(text)))
		fail_msg("heard \"%.*s\", not \"%s\"", (int)heard.n, heard.p, text);
	heard_free(&heard);
}
