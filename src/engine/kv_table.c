#include "engine/kv_table.h"

#include <stdio.h>

#include "engine/prompt.h"

struct row {
	uint64_t hash; /* of the key */
	char key[KV_KEY_BYTES];
	uint64_t prompt, until_ns;
	uint32_t rank, n_asking;
	enum kv_state state;
};

struct kv_table {
	uint64_t ttl_ns;
	uint64_t n_rows; /* ever; the next is n_rows % KV_TABLE_ROWS */
	uint64_t n_ended[KV_N_STATES];
	struct row rows[KV_TABLE_ROWS];
};

const char *kv_state_name(enum kv_state state) {
	static const char *const names[KV_N_STATES] = { "unknown", "making", "held", "fetched", "expired",
		"failed" };
	return names[state];
}

struct kv_table *kv_table_new(uint64_t ttl_ns) {
	struct kv_table *t = calloc(1, sizeof(*t));
	t->ttl_ns = ttl_ns;
	return t;
}

void kv_table_free(struct kv_table **t) {
	free(*t);
	*t = NULL;
}

/* The one place where blocks change their state. */
static void set_state(struct kv_table *t, struct row *row, enum kv_state state) {
	assert(state != KV_FETCHED || row->state == KV_HELD);
	assert(state != KV_HELD || row->state == KV_MAKING);
	row->state = state;
	if (state == KV_FETCHED || state == KV_EXPIRED || state == KV_FAILED)
		t->n_ended[state]++;
}

static struct row *find(const struct kv_table *t, const char *key) {
	uint64_t hash = prompt_hash_of(slice_of(key)), n = u64_min(t->n_rows, KV_TABLE_ROWS);
	for (uint64_t i = 0; i < n; i++) {
		const struct row *row = &t->rows[i];
		if (row->hash == hash && strcmp(row->key, key) == 0)
			return (struct row *)row;
	}
	return NULL;
}

static void expire(struct kv_table *t, struct row *row, uint64_t now_ns) {
	if (row->state == KV_HELD && row->until_ns <= now_ns)
		set_state(t, row, KV_EXPIRED);
}

static struct row *find_or_add(struct kv_table *t, const char *key, uint64_t now_ns) {
	struct row *row = find(t, key);
	if (row) {
		expire(t, row, now_ns);
		return row;
	}
	row = &t->rows[t->n_rows++ % KV_TABLE_ROWS];
	if (row->state == KV_HELD)
		set_state(t, row, KV_EXPIRED);
	*row = (struct row){ .hash = prompt_hash_of(slice_of(key)) };
	snprintf(row->key, sizeof(row->key), "%s", key);
	return row;
}

bool kv_table_make(struct kv_table *t, const struct kv_leg *leg, uint32_t rank, uint64_t now_ns) {
	struct row *row = find_or_add(t, leg->key, now_ns);
	if (row->state == KV_MAKING)
		return false;
	if (row->state == KV_HELD)
		set_state(t, row, KV_EXPIRED);
	row->prompt = leg->prompt;
	row->rank = rank;
	set_state(t, row, KV_MAKING);
	return true;
}

void kv_table_hold(struct kv_table *t, const char *key, uint64_t now_ns) {
	struct row *row = find(t, key);
	if (!row || row->state != KV_MAKING)
		return;
	set_state(t, row, KV_HELD);
	row->until_ns = now_ns + t->ttl_ns;
}

void kv_table_fail(struct kv_table *t, const char *key) {
	struct row *row = find(t, key);
	if (row && row->state == KV_MAKING)
		set_state(t, row, KV_FAILED);
}

void kv_table_ask(struct kv_table *t, const char *key, int change, uint64_t now_ns) {
	struct row *row = change > 0 ? find_or_add(t, key, now_ns) : find(t, key);
	if (row && (change > 0 || row->n_asking > 0)) /* it may have been pushed out meanwhile */
		row->n_asking += (uint32_t)change;
}

bool kv_table_is_asked(const struct kv_table *t, const char *key) {
	const struct row *row = find(t, key);
	return row && row->n_asking > 0;
}

enum kv_state kv_table_state(struct kv_table *t, const char *key, uint64_t now_ns) {
	struct row *row = find(t, key);
	if (!row)
		return KV_UNKNOWN;
	expire(t, row, now_ns);
	return row->state;
}

uint32_t kv_table_rank(const struct kv_table *t, const char *key) {
	return find(t, key)->rank;
}

uint64_t kv_table_prompt(const struct kv_table *t, const char *key) {
	return find(t, key)->prompt;
}

void kv_table_fetch(struct kv_table *t, const char *key) {
	set_state(t, find(t, key), KV_FETCHED);
}

json_t *kv_table_json(struct kv_table *t, uint64_t now_ns) {
	uint64_t counts[KV_N_STATES], n_asking = 0;
	json_t *json = json_object();

	for (uint64_t i = 0; i < KV_TABLE_ROWS; i++)
		expire(t, &t->rows[i], now_ns);
	memcpy(counts, t->n_ended, sizeof(counts));
	for (uint64_t i = 0; i < KV_TABLE_ROWS; i++) {
		n_asking += t->rows[i].n_asking;
		if (t->rows[i].state < KV_FETCHED)
			counts[t->rows[i].state]++;
	}
	json_object_set_new(json, "asked", json_integer((json_int_t)n_asking));
	for (enum kv_state s = KV_MAKING; s < KV_N_STATES; s++)
		json_object_set_new(json, kv_state_name(s), json_integer((json_int_t)counts[s]));
	return json;
}

void kv_table_reset(struct kv_table *t) {
	for (uint64_t i = 0; i < KV_TABLE_ROWS; i++)
		if (t->rows[i].state >= KV_HELD)
			t->rows[i].state = KV_UNKNOWN;
	memset(t->n_ended, 0, sizeof(t->n_ended));
}
