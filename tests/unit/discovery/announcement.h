/*
 * announcement: messages as engines send them to the discovery socket, written by a test: members one by
 * one, then announcement_end().
 */
#pragma once

#include "unit/unit.h"

#include "base/slice.h"

struct announcement {
	char bytes[8192];
	size_t n; /* the map's header is the first */
	unsigned n_members;
};

static inline void announcement_raw(struct announcement *a, struct slice bytes) {
	assert_true(a->n + bytes.n <= sizeof(a->bytes));
	memcpy(a->bytes + a->n, bytes.p, bytes.n);
	a->n += bytes.n;
}

static inline void announcement_text(struct announcement *a, const char *text) {
	char head[2] = { '\xd9', (char)strlen(text) };

	announcement_raw(a, (struct slice){ head, sizeof(head) });
	announcement_raw(a, slice_of(text));
}

static inline void announcement_key(struct announcement *a, const char *key) {
	a->n = a->n ? a->n : 1;
	a->n_members++;
	announcement_text(a, key);
}

static inline void announcement_add(struct announcement *a, const char *key, const char *value) {
	announcement_key(a, key);
	announcement_text(a, value);
}

static inline void announcement_number(struct announcement *a, const char *key, uint8_t value) {
	char number[2] = { '\xcc', (char)value };

	announcement_key(a, key);
	announcement_raw(a, (struct slice){ number, sizeof(number) });
}

static inline struct slice announcement_end(struct announcement *a) {
	assert_true(a->n_members < 16);
	a->bytes[0] = (char)(0x80 | a->n_members);
	a->n = a->n ? a->n : 1;
	return (struct slice){ a->bytes, a->n };
}

/* Of an engine at that port of 127.0.0.1. */
static inline void announcement_begin(struct announcement *a, const char *type, unsigned port) {
	char http[32], zmq[32];

	*a = (struct announcement){ .n = 0 };
	snprintf(http, sizeof(http), "127.0.0.1:%u", port);
	snprintf(zmq, sizeof(zmq), "127.0.0.1:%u", port + 10000);
	announcement_add(a, "type", type);
	announcement_add(a, "http_address", http);
	announcement_add(a, "zmq_address", zmq);
}
