/*
 * shelf: a store, the loop it answers to, a folder of its own, and operations that note
 * what became of them.
 */
#pragma once

#include "unit/net/rig.h"

#include <dirent.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "registry/store.h"

struct shelf {
	struct rig rig;
	struct store *store;
	struct store_fault fault;
	char dir[128];
};

struct write {
	struct store_op op;
	char name[32];
	char *text;         /* NULL: a delete */
	struct write *then; /* submitted when this one is done */
	struct shelf *shelf;
	int outcome; /* -1: not yet */
	unsigned order;
	bool is_prepared, is_cancelled;
};

static unsigned n_ended; /* writes that were done, in order */

/* Memory behind it where there is any: kill -9 does not care, and it is quick. */
static inline void shelf_dir(struct shelf *s, const char *base) {
	snprintf(s->dir, sizeof(s->dir), "%s/headrace-store-XXXXXX", base);
	assert_non_null(mkdtemp(s->dir));
}

static inline const char *quick_base(void) {
	return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

static inline void dir_remove(const char *dir) {
	char path[PATH_MAX];
	DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));) {
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	if (d)
		closedir(d);
	rmdir(dir);
}

static inline bool each_is_ignored(void *context, struct slice name, struct slice json) {
	return true;
}

/* is_memory: no folder. Opens, loads, starts. */
static inline void shelf_open(struct shelf *s, bool is_memory, store_each_fn each, void *context) {
	rig_open(&s->rig);
	s->store = store_open(is_memory ? NULL : s->dir, &s->fault);
	if (!s->store)
		fail_msg("%s", s->fault.text);
	if (!store_load(s->store, each ? each : each_is_ignored, context, &s->fault))
		fail_msg("%s", s->fault.text);
	store_start(s->store, &s->rig.loop);
}

static inline void shelf_close(struct shelf *s) {
	store_close(s->store);
	rig_close(&s->rig);
	store_free(&s->store);
	assert_null(s->store);
}

static inline bool write_prepare(struct store_op *op) {
	struct write *w = container_of(op, struct write, op);
	assert_false(w->is_prepared);
	w->is_prepared = true;
	if (w->is_cancelled)
		return false;
	if (w->text) {
		op->json = strdup(w->text);
		op->n_json = strlen(w->text);
	}
	return true;
}

static inline void write_done(struct store_op *op, enum store_outcome outcome) {
	struct write *w = container_of(op, struct write, op);
	assert_int_equal(w->outcome, -1);
	w->outcome = (int)outcome;
	w->order = ++n_ended;
	if (w->then)
		assert_true(store_submit(w->shelf->store, &w->then->op));
}

static inline void write_init(struct write *w, const char *name, const char *text) {
	*w = (struct write){ .outcome = -1, .text = text ? strdup(text) : NULL };
	snprintf(w->name, sizeof(w->name), "%s", name);
	w->op = (struct store_op){ .name = slice_of(w->name), .prepare = write_prepare, .done = write_done };
}

static inline void write_free(struct write *w) {
	free(w->text);
	w->text = NULL;
}

/* One write, waited for. */
static inline enum store_outcome shelf_write(struct shelf *s, const char *name, const char *text) {
	struct write w;
	write_init(&w, name, text);
	assert_true(store_submit(s->store, &w.op));
	rig_until(&s->rig, w.outcome >= 0);
	write_free(&w);
	return (enum store_outcome)w.outcome;
}
