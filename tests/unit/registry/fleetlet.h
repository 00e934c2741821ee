/* fleetlet: a roster in virtual time, and records made in one line. */
#pragma once

#include "unit/unit.h"

#include "registry/roster.h"

/* ttl_s 0: none is sent. */
static inline struct record *record_of(const char *name, const char *status, unsigned ttl_s, unsigned port) {
	char body[512], ttl[32] = "";
	struct record_refusal refusal;
	if (ttl_s)
		snprintf(ttl, sizeof(ttl), ",\"ttl\":%u", ttl_s);
	int n = snprintf(body, sizeof(body),
	    "{\"name\":\"%s\",\"host\":\"h%u\",\"port\":%u,\"hostname\":\"n\",\"url\":\"u\",\"status\":\"%"
	    "s\"%s}",
	    name, port % 3, port, status, ttl);
	struct record *r =
	    record_parse((struct slice){ body, (size_t)n }, NULL, UINT64_C(1700000000000), &refusal);
	if (!r)
		fail_msg("%s: %s", body, refusal.text);
	return r;
}

/* As the program does it: never more than a tick at once. */
static inline void let_pass(struct roster *r, uint64_t *now_ms, uint64_t ms) {
	for (uint64_t end_ms = *now_ms + ms; *now_ms < end_ms;) {
		*now_ms = u64_min(end_ms, *now_ms + ROSTER_TICK_MS);
		roster_advance(r, *now_ms);
	}
}

static inline bool is_alive(const struct roster *r, const char *name) {
	const struct roster_entry *e = roster_find(r, slice_of(name));
	return e && e->is_alive;
}

static inline struct roster_counts counts_of(const struct roster *r) {
	struct roster_counts c;
	roster_counts(r, &c);
	return c;
}

struct sweep {
	struct slice names[64];
	unsigned n;
};

static inline void sweep_note(void *context, struct slice name) {
	struct sweep *s = context;
	assert_true(s->n < n_elems(s->names));
	s->names[s->n++] = (struct slice){ strndup(name.p, name.n), name.n };
}

/* As the program does it, but for the store: takes out who is silent for too long, and tells each. How many
 * those were. */
static inline unsigned sweep(
    struct roster *r, uint64_t now_ms, void (*swept)(void *context, struct slice name), void *context) {
	struct sweep s = { .n = 0 };
	unsigned n = roster_each_silent(r, now_ms, sweep_note, &s);
	assert_int_equal(n, s.n);
	for (unsigned i = 0; i < s.n; i++) {
		assert_true(roster_sweep_one(r, s.names[i], now_ms));
		swept(context, s.names[i]);
		free((char *)s.names[i].p);
	}
	return s.n;
}
