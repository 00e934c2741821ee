/*
 * Names are found by open addressing: linear probing, deletion by shifting back, a seeded
 * hash. Each living record has one timer in a wheel of the roster's own, set to the end of
 * its lease; a heartbeat moves the deadline, and the wheel notices when the old one comes
 * up. The ring holds names of changes, not records: a watcher is told what is so now.
 */
#include "registry/roster.h"

#include <stdlib.h>
#include <strings.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/rng.h"

#define SLOTS_MIN        1024u
#define SWEEP_SILENCE_MS 300000u
#define GAP_MIN_MS       (1000u / 2) /* half of the shortest ttl: shorter gaps are nobody's */

struct change {
	char *name;
	uint32_t n;
	bool is_delete, is_swept;
};

struct roster {
	struct roster_entry **slots; /* a power of two */
	uint32_t n_slots;
	struct list entries;
	struct wheel wheel;
	uint64_t now_ms;
	struct change *ring; /* the change of version v is at v % ROSTER_RING */
	uint64_t version, version_start;
	struct roster_counts counts;
	uint32_t records_max;
	size_t bytes_max;
	uint64_t ttl_ms; /* of records that bring none */
	uint64_t hash_seed;
	struct rng rng;
	char epoch[ROSTER_EPOCH_BYTES];
};

/* --- the table ------------------------------------------------------------------------- */

static uint32_t name_hash(const struct roster *r, struct slice name) {
	return (uint32_t)XXH3_64bits_withSeed(name.n ? name.p : "", name.n, r->hash_seed);
}

static struct slice entry_name(const struct roster_entry *e) {
	return slice_of(e->record->name);
}

/* The slot of that name, or the free one where it would stand. */
static uint32_t slot_of(const struct roster *r, struct slice name, uint32_t hash) {
	uint32_t at = hash & (r->n_slots - 1);
	while (r->slots[at] && (r->slots[at]->hash != hash || !slice_eq(entry_name(r->slots[at]), name)))
		at = (at + 1) & (r->n_slots - 1);
	return at;
}

static struct roster_entry *entry_find(const struct roster *r, struct slice name) {
	return r->slots[slot_of(r, name, name_hash(r, name))];
}

static void table_grow(struct roster *r) {
	r->n_slots = r->n_slots ? 2 * r->n_slots : SLOTS_MIN;
	free(r->slots);
	r->slots = calloc(r->n_slots, sizeof(struct roster_entry *));
	list_each (l, &r->entries) {
		struct roster_entry *e = container_of(l, struct roster_entry, link);
		r->slots[slot_of(r, entry_name(e), e->hash)] = e;
	}
}

static void table_remove(struct roster *r, const struct roster_entry *e) {
	uint32_t mask = r->n_slots - 1, hole = slot_of(r, entry_name(e), e->hash);
	assert(r->slots[hole] == e);
	for (uint32_t at = (hole + 1) & mask; r->slots[at]; at = (at + 1) & mask) {
		uint32_t home = r->slots[at]->hash & mask;
		if (((at - home) & mask) < ((at - hole) & mask))
			continue; /* it would come to stand before its home */
		r->slots[hole] = r->slots[at];
		hole = at;
	}
	r->slots[hole] = NULL;
}

/* --- versions ---------------------------------------------------------------------------- */

static void note_change(struct roster *r, struct roster_entry *e, bool is_delete) {
	struct slice name = entry_name(e);
	struct change *c = &r->ring[++r->version % ROSTER_RING];
	assert(name.p);
	if (c->n < name.n || !c->name)
		c->name = realloc(c->name, name.n + 1);
	memcpy(c->name, name.p, name.n + 1);
	c->n = (uint32_t)name.n;
	c->is_delete = is_delete;
	c->is_swept = false;
	e->changed_at = r->version;
}

/* --- leases --------------------------------------------------------------------------------- */

static uint64_t ttl_ms(const struct roster *r, const struct record *record) {
	return record->ttl_s ? record->ttl_s * UINT64_C(1000) : r->ttl_ms;
}

static uint64_t silence_ms(const struct roster *r, const struct roster_entry *e) {
	return r->now_ms > e->heard_ms ? r->now_ms - e->heard_ms : 0;
}

static void lease_run(struct roster *r, struct roster_entry *e) {
	uint64_t end_ms = e->heard_ms + ttl_ms(r, e->record);
	timer_start(&r->wheel, &e->expiry, end_ms - r->wheel.now_ms);
}

/* The only place where is_alive changes. True if it did. */
static bool entry_judge(struct roster *r, struct roster_entry *e) {
	bool is_alive = e->record->is_running && silence_ms(r, e) < ttl_ms(r, e->record);
	if (is_alive)
		lease_run(r, e);
	else
		timer_stop(&e->expiry);
	if (is_alive == e->is_alive)
		return false;
	e->is_alive = is_alive;
	r->counts.n_alive += is_alive ? 1 : UINT32_MAX;
	return true;
}

/* The wheel stands at this timer's millisecond, the roster's time may be further on. */
static void on_expiry(struct timer *t) {
	struct roster_entry *e = container_of(t, struct roster_entry, expiry);
	struct roster *r = e->roster;
	assert(e->is_alive && e->record->is_running);
	assert(r->wheel.now_ms >= e->heard_ms + ttl_ms(r, e->record));
	e->is_alive = false;
	r->counts.n_alive--;
	r->counts.n_expired++;
	note_change(r, e, false);
}

/* Nobody could be heard for gap_ms. For those to whom that is long, the living start afresh and the others'
 * time stood still. */
static void grant_grace(struct roster *r, uint64_t gap_ms) {
	r->counts.n_graces++;
	list_each (l, &r->entries) {
		struct roster_entry *e = container_of(l, struct roster_entry, link);
		if (gap_ms <= ttl_ms(r, e->record) / 2)
			continue;
		e->heard_ms = e->is_alive ? u64_max(e->heard_ms, r->now_ms) : e->heard_ms + gap_ms;
		if (e->is_alive)
			lease_run(r, e);
	}
}

void roster_advance(struct roster *r, uint64_t now_ms) {
	if (now_ms <= r->now_ms)
		return;
	uint64_t gap_ms = now_ms - r->now_ms;
	r->now_ms = now_ms;
	if (gap_ms > GAP_MIN_MS)
		grant_grace(r, gap_ms);
	wheel_advance(&r->wheel, now_ms);
}

/* --- entries --------------------------------------------------------------------------------- */

static struct roster_entry *entry_new(struct roster *r, struct record *record) {
	if (3 * ((uint64_t)r->counts.n_records + 1) > 2 * (uint64_t)r->n_slots)
		table_grow(r);
	struct roster_entry *e = malloc(sizeof(*e));
	*e = (struct roster_entry){ .record = record, .roster = r };
	e->hash = name_hash(r, slice_of(record->name));
	list_init(&e->link);
	list_push(&r->entries, &e->link);
	timer_init(&e->expiry, on_expiry);
	uint32_t at = slot_of(r, slice_of(record->name), e->hash);
	assert(!r->slots[at]);
	r->slots[at] = e;
	r->counts.n_records++;
	r->counts.bytes += sizeof(*e) + record->bytes;
	return e;
}

static void entry_free(struct roster *r, struct roster_entry *e) {
	timer_stop(&e->expiry);
	table_remove(r, e);
	list_remove(&e->link);
	assert(r->counts.n_records > 0);
	r->counts.n_records--;
	r->counts.n_alive -= e->is_alive;
	r->counts.bytes -= sizeof(*e) + e->record->bytes;
	record_free(&e->record);
	free(e);
}

struct roster *roster_new(const struct roster_options *o, uint64_t now_ms) {
	struct roster *r = calloc(1, sizeof(*r));
	r->records_max = o->records_max ? o->records_max : ROSTER_RECORDS_MAX;
	r->bytes_max = o->bytes_max ? o->bytes_max : ROSTER_BYTES_MAX;
	r->ttl_ms = o->ttl_ms ? o->ttl_ms : ROSTER_TTL_MS;
	r->version = r->version_start = o->version;
	r->now_ms = now_ms;
	r->ring = calloc(ROSTER_RING, sizeof(struct change));
	rng_init(&r->rng, o->seed);
	r->hash_seed = rng_next(&r->rng);
	snprintf(r->epoch, sizeof(r->epoch), "%s", o->epoch ? o->epoch : "");
	list_init(&r->entries);
	wheel_init(&r->wheel, now_ms);
	table_grow(r);
	return r;
}

void roster_free(struct roster **rp) {
	struct roster *r = *rp;
	*rp = NULL;
	if (!r)
		return;
	while (!list_is_empty(&r->entries))
		entry_free(r, container_of(r->entries.next, struct roster_entry, link));
	assert(r->counts.n_records == 0 && r->counts.n_alive == 0 && r->counts.bytes == 0);
	for (uint32_t i = 0; i < ROSTER_RING; i++)
		free(r->ring[i].name);
	free(r->ring);
	free(r->slots);
	free(r);
}

/* --- changes ------------------------------------------------------------------------------------ */

bool roster_has_room(const struct roster *r, const struct record *record) {
	const struct roster_entry *e = entry_find(r, slice_of(record->name));
	size_t bytes = r->counts.bytes + record->bytes;
	bytes = e ? bytes - e->record->bytes : bytes + sizeof(*e);
	return (e || r->counts.n_records < r->records_max) && bytes <= r->bytes_max;
}

static void entry_replace_record(struct roster *r, struct roster_entry *e, struct record *record) {
	r->counts.bytes += record->bytes - e->record->bytes;
	record_free(&e->record);
	e->record = record;
}

static bool record_is_same(const struct record *a, const struct record *b) {
	return slice_eq(a->head, b->head) && slice_eq(a->tail, b->tail) && a->health == b->health;
}

/* What a probe found at the one is true of the other. */
static bool record_is_where(const struct record *a, const struct record *b) {
	return a->port == b->port && a->is_openai == b->is_openai && strcmp(a->host, b->host) == 0 &&
	    strcmp(a->url, b->url) == 0;
}

void roster_restore(struct roster *r, struct record *record, uint64_t now_ms) {
	roster_advance(r, now_ms);
	struct roster_entry *e = entry_find(r, slice_of(record->name));
	if (e)
		entry_replace_record(r, e, record);
	else
		e = entry_new(r, record);
	e->heard_ms = now_ms + rng_below(&r->rng, ttl_ms(r, record) / 2 + 1);
	entry_judge(r, e);
}

const struct roster_entry *roster_put(struct roster *r, struct record *record, uint64_t now_ms) {
	roster_advance(r, now_ms);
	struct roster_entry *e = entry_find(r, slice_of(record->name));
	if (e &&
	    record_is_where(e->record, record)) /* a probe may have ended while the write was under way */
		record->health = e->record->health;
	bool is_change = !e || !record_is_same(e->record, record);
	if (e)
		entry_replace_record(r, e, record);
	else
		e = entry_new(r, record);
	r->counts.n_puts++;
	e->heard_ms = r->now_ms;
	if (entry_judge(r, e) || is_change)
		note_change(r, e, false);
	return e;
}

bool roster_delete(struct roster *r, struct slice name, uint64_t now_ms) {
	roster_advance(r, now_ms);
	struct roster_entry *e = entry_find(r, name);
	if (!e)
		return false;
	r->counts.n_deletes++;
	note_change(r, e, true);
	entry_free(r, e);
	return true;
}

const struct roster_entry *roster_heartbeat(
    struct roster *r, struct slice name, uint64_t wall_ms, uint64_t now_ms) {
	roster_advance(r, now_ms);
	struct roster_entry *e = entry_find(r, name);
	if (!e)
		return NULL;
	r->counts.n_heartbeats++;
	e->record->heartbeat_s = (int64_t)(wall_ms / 1000);
	e->heard_ms = r->now_ms;
	if (entry_judge(r, e)) {
		r->counts.n_revived++;
		note_change(r, e, false);
	}
	return e;
}

void roster_set_health(struct roster *r, struct slice name, enum record_health health, uint64_t now_ms) {
	roster_advance(r, now_ms);
	struct roster_entry *e = entry_find(r, name);
	if (!e || e->record->health == health)
		return;
	e->record->health = health;
	note_change(r, e, false);
}

static bool is_silent(const struct roster *r, const struct roster_entry *e) {
	return silence_ms(r, e) > u64_max(SWEEP_SILENCE_MS, ttl_ms(r, e->record) * 5 / 2);
}

unsigned roster_each_silent(struct roster *r, uint64_t now_ms, roster_silent_fn each, void *context) {
	unsigned n = 0;
	roster_advance(r, now_ms);
	list_each (l, &r->entries) {
		struct roster_entry *e = container_of(l, struct roster_entry, link);
		if (!is_silent(r, e))
			continue;
		each(context, entry_name(e));
		n++;
	}
	return n;
}

bool roster_is_silent(const struct roster *r, const struct roster_entry *e) {
	return is_silent(r, e);
}

bool roster_sweep_one(struct roster *r, struct slice name, uint64_t now_ms) {
	roster_advance(r, now_ms);
	struct roster_entry *e = entry_find(r, name);
	if (!e || !is_silent(r, e))
		return false;
	assert(!e->is_alive);
	note_change(r, e, true);
	r->ring[r->version % ROSTER_RING].is_swept = true;
	entry_free(r, e);
	r->counts.n_swept++;
	return true;
}

/* --- reading -------------------------------------------------------------------------------------- */

const char *roster_epoch(const struct roster *r) {
	return r->epoch;
}

uint64_t roster_version(const struct roster *r) {
	return r->version;
}

const struct roster_entry *roster_find(const struct roster *r, struct slice name) {
	return entry_find(r, name);
}

struct roster_filter roster_filter_of(struct slice status, struct slice healthy) {
	struct roster_filter f = { .status = status.n ? status : (struct slice){ NULL, 0 } };
	if (healthy.n)
		f.healthy = slice_is(healthy, SLICE("true")) ? ROSTER_HEALTHY : ROSTER_UNHEALTHY;
	return f;
}

static bool filter_takes(const struct roster_filter *f, const struct roster_entry *e) {
	if (f->status.p && !slice_eq(f->status, slice_of(e->record->status)))
		return false;
	return f->healthy == ROSTER_ANY || (f->healthy == ROSTER_HEALTHY) == e->is_alive;
}

const struct roster_entry *roster_next(
    const struct roster *r, const struct roster_entry *last, const struct roster_filter *filter) {
	const struct list *l = last ? last->link.next : r->entries.next;
	for (; l != &r->entries; l = l->next) {
		const struct roster_entry *e = container_of(l, const struct roster_entry, link);
		if (!filter || filter_takes(filter, e))
			return e;
	}
	return NULL;
}

bool roster_remembers(const struct roster *r, uint64_t version) {
	uint64_t n_kept = u64_min(r->version - r->version_start, ROSTER_RING);
	return version <= r->version && r->version - version <= n_kept;
}

bool roster_next_change(const struct roster *r, uint64_t *version, struct roster_change *change_out) {
	assert(roster_remembers(r, *version));
	while (*version < r->version) {
		uint64_t v = ++*version;
		const struct change *c = &r->ring[v % ROSTER_RING];
		struct slice name = { c->name, c->n };
		const struct roster_entry *e = entry_find(r, name);
		if (c->is_delete ? e != NULL : !e || e->changed_at != v)
			continue; /* newer news of it will come */
		*change_out = (struct roster_change){ v, c->is_delete, c->is_swept, name, e };
		return true;
	}
	return false;
}

void roster_counts(const struct roster *r, struct roster_counts *counts_out) {
	*counts_out = r->counts;
}

static void count_one(json_t *counts, const char *key) {
	json_t *n = json_object_get(counts, key);
	if (n)
		json_integer_set(n, json_integer_value(n) + 1);
	else
		json_object_set_new(counts, key, json_integer(1));
}

json_t *roster_count_statuses(const struct roster *r) {
	json_t *counts = json_object();
	list_each (l, &r->entries)
		count_one(counts, container_of(l, struct roster_entry, link)->record->status);
	return counts;
}

json_t *roster_count_hosts(const struct roster *r) {
	json_t *counts = json_object();
	list_each (l, &r->entries)
		count_one(counts, container_of(l, struct roster_entry, link)->record->host);
	return counts;
}
