/*
 * kv_table: the prompts whose blocks a prefill makes, keeps, has given away or let go, by the
 * key that both legs know them by.
 *
 *     -> MAKING -> HELD -> FETCHED          by the decode, once
 *            \        \--> EXPIRED          nobody came for ttl_ns
 *             \----------> FAILED           its prefill did not come to an end
 *
 * A decode that comes before its prefill asks; a prefill may wait for that. The newest
 * KV_TABLE_ROWS are remembered: what was pushed out is unknown. Blocks expire when somebody
 * looks. Pure: times are arguments, monotonic. Owns its memory. One thread.
 */
#pragma once

#include <jansson.h>

#include "engine/kv_leg.h"

#define KV_TABLE_ROWS 4096u

enum kv_state { KV_UNKNOWN, KV_MAKING, KV_HELD, KV_FETCHED, KV_EXPIRED, KV_FAILED, KV_N_STATES };

struct kv_table;

struct kv_table *kv_table_new(uint64_t ttl_ns);
void kv_table_free(struct kv_table **t);

/* A prefill begins. False: another one makes the same; blocks that are still held under the key are let go.
 */
must_use bool kv_table_make(struct kv_table *t, const struct kv_leg *leg, uint32_t rank, uint64_t now_ns);

/* Its blocks are complete. */
void kv_table_hold(struct kv_table *t, const char *key, uint64_t now_ns);

/* It ends before that. Nothing happens to what is complete. */
void kv_table_fail(struct kv_table *t, const char *key);

/* One decode more, or less, waits for what has this key. */
void kv_table_ask(struct kv_table *t, const char *key, int change, uint64_t now_ns);
bool kv_table_is_asked(const struct kv_table *t, const char *key);

enum kv_state kv_table_state(struct kv_table *t, const char *key, uint64_t now_ns);

/* Who holds it, and what it is the beginning of. Only of what is known. */
uint32_t kv_table_rank(const struct kv_table *t, const char *key);
uint64_t kv_table_prompt(const struct kv_table *t, const char *key);

/* What is HELD is given away. */
void kv_table_fetch(struct kv_table *t, const char *key);

/*
 * How many are "making" and "held" and how many decodes wait ("asked"), now; how many were "fetched",
 * "expired" and "failed" since the last reset. The caller owns it.
 */
json_t *kv_table_json(struct kv_table *t, uint64_t now_ns);

/* Forgets all but what is being made. */
void kv_table_reset(struct kv_table *t);

/* "held", for people. */
const char *kv_state_name(enum kv_state state);
