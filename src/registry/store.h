/*
 * store: makes records durable, on a thread of its own.
 *
 * An operation puts the JSON text of one record, or deletes a name. It is submitted on
 * the loop's thread; the store's thread commits all that waits in one transaction, and
 * `done` is called on the loop's thread, in the order of commits. STORE_DONE means: on
 * disk, safe from kill -9 and power cuts. STORE_FAILED (disk full, read-only, I/O error)
 * means that it probably did not happen: answer 503. The store goes on trying with what
 * comes next. `--store memory` keeps nothing and is always done.
 *
 * Operations of one name follow each other: `prepare` is called when all earlier ones of
 * that name are done (at once, inside store_submit(), or later inside the turn that
 * brought their end), so it sees the roster as it then is. That is where to judge "404"
 * and to make the JSON text. If it returns false the operation is over and `done` is not
 * called. The memory of an operation belongs to the caller, is lent from store_submit()
 * to `done` (or to prepare's false), and may be freed or submitted again inside both.
 *
 *     static bool put_prepare(struct store_op *op) {
 *             op->json = record_stored(x->record, &op->n_json);   // the store frees it
 *             return true;
 *     }
 *     static void put_done(struct store_op *op, enum store_outcome outcome) {
 *             outcome == STORE_DONE ? roster_put(...), answer 201 : answer 503
 *     }
 *
 * Opening and loading block and happen before the loop runs.
 */
#pragma once

#include "net/loop.h"

#define STORE_OPS_MAX   (64u * 1024u)
#define STORE_BYTES_MAX (64u << 20) /* JSON text that waits */
#define STORE_SAYS_MAX  320

struct store;

enum store_outcome {
	STORE_DONE,
	STORE_FAILED,
};

struct store_op {
	struct slice name; /* the caller's, as long as the operation */
	char *json;        /* NULL: delete. malloc'ed by prepare, freed by the store */
	size_t n_json;
	size_t n_held; /* bytes that the caller keeps for it; counts as waiting from submit to done */
	bool (*prepare)(struct store_op *op); /* NULL: nothing to prepare, json is set (or NULL) */
	void (*done)(struct store_op *op, enum store_outcome outcome);

	/* the store's */
	struct list link;
	struct store_lane *lane;
};

/* What a store says when it does not open; a sentence for people. */
struct store_fault {
	char text[STORE_SAYS_MAX];
};

/* state_dir/registry.db is opened or made; NULL: `memory`. Not NULL and damaged, of another version, or in
 * use: no store, fault_out says why. On a read-only disk it can be loaded, and every operation fails until
 * the disk can be written. Its thread starts with store_start(). */
must_use struct store *store_open(const char *state_dir, struct store_fault *fault_out);

/* Every record that was put and not deleted. Returns false, with a fault, when the file is damaged or `each`
 * returns false (not a record). Once, before store_start(). */
typedef bool (*store_each_fn)(void *context, struct slice name, struct slice json);
must_use bool store_load(struct store *s, store_each_fn each, void *context, struct store_fault *fault_out);

/* 16 hexadecimal digits: made with the file; another one when a start could not be recorded (disk full,
 * read-only). */
const char *store_epoch(const struct store *s);
/* Beyond every version that was used under this epoch before: where the roster goes on. */
uint64_t store_version(const struct store *s);

void store_start(struct store *s, struct loop *loop);

/* False: too much waits already (503); nothing was taken. */
must_use bool store_submit(struct store *s, struct store_op *op);

/* Waits until everything that was submitted is done, calling prepare and done here, and ends the thread. */
void store_close(struct store *s);

/* After store_close() (or without a start) and when the loop delivers no more mail. */
void store_free(struct store **s);

struct store_counts {
	uint64_t n_done, n_failed, n_commits;
	uint32_t n_waiting;
	bool is_failing;            /* the last commit failed, or the next one would: read-only */
	char fault[STORE_SAYS_MAX]; /* why, or "" */
};
void store_counts(struct store *s, struct store_counts *counts_out);
