/*
 * registrar: keeps the registry's two records of this babysitter true: "<name>", its
 * own, and "<name>-server", the engine's.
 *
 * It is told what should be (registrar_want) and works until the registry agrees,
 * whatever has happened to it in the meantime: registers, sends heartbeats, registers
 * again when a heartbeat is answered 404, deletes what should not be there any more,
 * and tries again for ever, 0.5 s doubling to 10 s, while the registry is away. Each of
 * the two records is a machine of its own with at most one request under way; what is
 * wanted may change at any time, also while a request flies: the answer then counts
 * for what was asked, and the next request says what is wanted now.
 *
 * One thread, the loop's. Requests go through origin (http/origin.h).
 */
#pragma once

#include <jansson.h>

#include "http/origin.h"

enum { REGISTRAR_OWN, REGISTRAR_SERVER, REGISTRAR_N };

enum registrar_state {
	REGISTRAR_ABSENT = 1, /* not there, as far as we know */
	REGISTRAR_UNKNOWN,    /* a request failed in a way that leaves open what it did */
	REGISTRAR_PRESENT,    /* acknowledged: `present` */
};

struct registrar;

struct registrar_record {
	struct registrar *owner;
	struct fetch fetch;
	struct timer timer; /* heartbeat, or the next try */
	char *name;
	char *path; /* "/services/NAME", NAME percent-encoded */
	char *path_heartbeat;
	char *wanted;        /* the body of its registration; NULL: should not be there */
	char *sending;       /* the body that is under way; NULL: none */
	char *present;       /* the body that the registry has acknowledged */
	uint64_t backoff_ms; /* of the next failure */
	enum registrar_state state;
	unsigned asking;                                 /* enum registrar_request, private */
	bool is_pausing;                                 /* the timer runs for the next try */
	bool is_heard;                                   /* registrar_want() was called */
	uint64_t n_registered, n_heartbeats, n_failures; /* for metrics */
};

struct registrar {
	struct loop *loop;
	struct origin *origin;
	struct slice bearer;
	uint64_t heartbeat_ms;
	struct registrar_record records[REGISTRAR_N];
	void (*on_answer)(
	    struct registrar *r); /* something is known that was not, or a request failed; may be NULL */
	bool is_down;             /* the last request got no answer: for the log */
};

/* origin and bearer must outlive it. name: the babysitter's. */
void registrar_init(struct registrar *r, struct loop *loop, struct origin *origin, const char *name,
    struct slice bearer, uint64_t heartbeat_ms, void (*on_answer)(struct registrar *r));

/* Cancels what is under way. */
void registrar_deinit(struct registrar *r);

/*
 * What the record should be: the object that is posted, or NULL for none. Takes the reference. The same as
 * before does nothing. What is not wanted from the start is deleted too: an earlier life may have left it.
 */
void registrar_want(struct registrar *r, unsigned which, json_t *record);

/* All that is wanted is so: what should be gone is, the rest is registered. */
bool registrar_is_settled(const struct registrar *r);

/* The registry is away as far as the last answers say, and none is waited for. */
bool registrar_is_in_vain(const struct registrar *r);

/* "myengine-server" */
const char *registrar_name(const struct registrar *r, unsigned which);
bool registrar_is_present(const struct registrar *r, unsigned which);
