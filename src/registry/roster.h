/*
 * roster: who is in the fleet: records by name, their leases, and what changed lately.
 *
 * It has no clock: callers pass monotonic milliseconds that never go back, so neither a
 * jump of the wall clock nor a test's time does any harm. A record is alive while its
 * status is "running" and its last heartbeat is younger than its ttl. Who is silent for
 * longer than max(300 s, 2.5 ttl) is swept out.
 *
 * Every change that a watcher must know (put, delete, liveness, health) has a version,
 * one more than the last; the newest ROSTER_RING of them are kept. Heartbeats of living
 * records change nothing and cost O(1).
 *
 * Call roster_advance() at least every ROSTER_TICK_MS. When it was not called for more
 * than half of a record's ttl, the process stood still: leases are then granted afresh,
 * and the time does not count as silence.
 *
 * The roster owns its records and entries; an entry is valid until the next call that
 * takes the roster without const. One thread. Writes are made durable first (store.h):
 * ask roster_has_room() before, roster_put() after; roster_put() itself never refuses.
 */
#pragma once

#include "base/list.h"
#include "base/wheel.h"
#include "registry/record.h"

#define ROSTER_RECORDS_MAX 100000u
#define ROSTER_BYTES_MAX   (512u << 20)
#define ROSTER_RING        16384u
#define ROSTER_TTL_MS      120000u
#define ROSTER_TICK_MS     200u
#define ROSTER_EPOCH_BYTES 17 /* 16 hexadecimal digits */

struct roster;

/* Read-only for everybody else. */
struct roster_entry {
	struct record *record;
	struct list link; /* in the order of registration */
	struct timer expiry;
	struct roster *roster;
	uint64_t heard_ms; /* of the last heartbeat, or of a grace that counts as one; may be in the future */
	uint64_t changed_at; /* version */
	uint32_t hash;
	bool is_alive; /* as of the last call: "is_healthy" */
};

struct roster_options {
	uint32_t records_max; /* 0: ROSTER_RECORDS_MAX */
	size_t bytes_max;     /* 0: ROSTER_BYTES_MAX */
	uint64_t ttl_ms;      /* of records that bring none; 0: ROSTER_TTL_MS */
	const char *epoch;    /* of the store */
	uint64_t version;     /* to go on from: of the store */
	uint64_t seed;        /* for hashes and spreading */
};

must_use struct roster *roster_new(const struct roster_options *o, uint64_t now_ms);
void roster_free(struct roster **r);

/* Lets leases end that are over, so that is_alive is true now. Every other call with now_ms does it first. */
void roster_advance(struct roster *r, uint64_t now_ms);

const char *roster_epoch(const struct roster *r);
uint64_t roster_version(const struct roster *r);

/* --- changing it; the roster takes the record --------------------------------------- */

/* At start: the record gets its full lease from now, and up to half of it on top, so that not all end at
 * once. Makes no version. */
void roster_restore(struct roster *r, struct record *record, uint64_t now_ms);

/* False: the table is full, for this record: 507 or 503. */
must_use bool roster_has_room(const struct roster *r, const struct record *record);

/* Registers, or replaces the record of that name in its place; counts as a heartbeat.
 * At the same address it keeps what the last probe found. */
const struct roster_entry *roster_put(struct roster *r, struct record *record, uint64_t now_ms);

/* False: there is none. */
bool roster_delete(struct roster *r, struct slice name, uint64_t now_ms);

/* Renews the lease. NULL: there is none. A status in the heartbeat's body that differs is a put
 * (record_with_status). */
const struct roster_entry *roster_heartbeat(
    struct roster *r, struct slice name, uint64_t wall_ms, uint64_t now_ms);

/* What a probe found; leaves the lease alone. */
void roster_set_health(struct roster *r, struct slice name, enum record_health health, uint64_t now_ms);

/* Tells who is silent for too long; whether one is, as of the last call with now_ms; takes one out, when the
 * store has. False: there is none, or it was heard again. Telling is O(n): once a minute. */
typedef void (*roster_silent_fn)(void *context, struct slice name);
unsigned roster_each_silent(struct roster *r, uint64_t now_ms, roster_silent_fn each, void *context);
bool roster_is_silent(const struct roster *r, const struct roster_entry *e);
bool roster_sweep_one(struct roster *r, struct slice name, uint64_t now_ms);

/* --- reading it ------------------------------------------------------------------------ */

const struct roster_entry *roster_find(const struct roster *r, struct slice name);

enum roster_wish { ROSTER_ANY, ROSTER_HEALTHY, ROSTER_UNHEALTHY };
struct roster_filter {
	struct slice status; /* exactly this one; .p NULL: any */
	enum roster_wish healthy;
};

/* From the values of a query's `status` and `healthy`, decoded; .p NULL: not given. Empty ones count as not
 * given. */
struct roster_filter roster_filter_of(struct slice status, struct slice healthy);

/* In the order of registration: NULL begins, NULL ends. */
const struct roster_entry *roster_next(
    const struct roster *r, const struct roster_entry *last, const struct roster_filter *filter);

struct roster_change {
	uint64_t version;
	bool is_delete;
	bool is_swept;                    /* it was silent for too long: nobody asked for that delete */
	struct slice name;                /* valid until the roster changes */
	const struct roster_entry *entry; /* as it is now; NULL for a delete */
};

/* False: too old, or a version that never was: the watcher needs a reset. */
must_use bool roster_remembers(const struct roster *r, uint64_t version);

/* The first change after *version that still says something (older news of a name that changed again is left
 * out). Moves *version on; false: none, *version is now roster_version(). Ask roster_remembers() first. */
must_use bool roster_next_change(const struct roster *r, uint64_t *version, struct roster_change *change_out);

struct roster_counts {
	uint32_t n_records, n_alive;
	size_t bytes;
	uint64_t n_heartbeats, n_puts, n_deletes, n_expired, n_revived, n_swept, n_graces;
};
void roster_counts(const struct roster *r, struct roster_counts *counts_out);

/* {"running": 3, ...} and {"10.0.0.1": 2, ...}. New references; O(n). */
must_use json_t *roster_count_statuses(const struct roster *r);
must_use json_t *roster_count_hosts(const struct roster *r);
