/*
 * disk: a disk whose power can fail. It stands between SQLite and the files and knows of
 * each file what is durable (the last sync) and what was only written since. A snapshot is
 * what the next start finds: of what was not synced, any 512 bytes may be there or not, in
 * any order, whatever was written after it.
 *
 * A write that fails has written a part of it. A sync that fails is as bad as Linux makes it: what was
 * written may be lost, and no later sync brings it back, though reading still shows it.
 *
 * A disk may turn read-only under open files, as Linux makes it after an error.
 *
 * SQLite syncs the folder with the first sync of a file it made; so a file is there from
 * its first sync on, and before that perhaps.
 */
#pragma once

#include "unit/unit.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>
#include <unistd.h>

#include "base/rng.h"

#define DISK_FILES  4
#define DISK_SECTOR 512u

struct disk_write {
	struct disk_write *next;
	sqlite3_int64 at;
	size_t n;
	bool is_truncate; /* to `at` */
	char bytes[];
};

struct disk_file {
	char name[64];
	bool is_durable; /* its name is */
	bool is_there;
	char *p; /* durable content */
	size_t n;
	struct disk_write *first, **end;
};

struct disk_handle {
	sqlite3_file base;
	struct disk_file *file; /* NULL: not of interest */
	sqlite3_file *real;
};

static struct {
	pthread_mutex_t mutex;
	sqlite3_vfs vfs, *real;
	struct disk_file files[DISK_FILES];
	unsigned n_syncs, n_events;
	unsigned snap_at;    /* event at which to take a snapshot; 0: never */
	const char *snap_to; /* a folder */
	bool is_snapped, is_on;
	unsigned fail_in;       /* the sync that fails; 0: none */
	unsigned fail_write_in; /* the write that does */
	bool is_read_only;      /* what is open is written no more: EROFS */
	struct rng rng;
} disk = { .mutex = PTHREAD_MUTEX_INITIALIZER };

static struct disk_file *disk_file(const char *path) {
	const char *name = path ? strrchr(path, '/') + 1 : "";
	for (unsigned i = 0; i < DISK_FILES && disk.is_on; i++) {
		struct disk_file *f = &disk.files[i];
		if (!f->name[0]) {
			snprintf(f->name, sizeof(f->name), "%s", name);
			f->end = &f->first;
		}
		if (strcmp(f->name, name) == 0)
			return f;
	}
	return NULL;
}

static void disk_note(struct disk_file *f, const void *p, size_t n, sqlite3_int64 at, bool is_truncate) {
	struct disk_write *w = malloc(sizeof(*w) + n);
	*w = (struct disk_write){ .at = at, .n = n, .is_truncate = is_truncate };
	if (n)
		memcpy(w->bytes, p, n);
	*f->end = w;
	f->end = &w->next;
}

static void bytes_apply(char **p, size_t *n, const char *bytes, size_t at, size_t n_bytes) {
	if (at + n_bytes > *n) {
		*p = realloc(*p, at + n_bytes);
		memset(*p + *n, 0, at + n_bytes - *n);
		*n = at + n_bytes;
	}
	memcpy(*p + at, bytes, n_bytes);
}

static void disk_forget(struct disk_file *f) {
	for (struct disk_write *w = f->first, *next; w; w = next) {
		next = w->next;
		free(w);
	}
	f->first = NULL;
	f->end = &f->first;
}

static void disk_sync(struct disk_file *f) {
	for (const struct disk_write *w = f->first; w; w = w->next) {
		if (!w->is_truncate)
			bytes_apply(&f->p, &f->n, w->bytes, (size_t)w->at, w->n);
		else if ((size_t)w->at < f->n)
			f->n = (size_t)w->at;
	}
	disk_forget(f);
	f->is_durable = f->is_there = true;
}

/* --- what is left after a power cut ------------------------------------------------------------- */

/* All, nothing, or a coin for each sector. */
static void tear(char **p, size_t *n, const struct disk_file *f, uint64_t mood) {
	for (const struct disk_write *w = f->first; w && mood; w = w->next) {
		if (w->is_truncate) {
			if ((mood == 1 || rng_below(&disk.rng, 2)) && (size_t)w->at < *n)
				*n = (size_t)w->at;
			continue;
		}
		for (size_t done = 0, step; done < w->n; done += step) {
			step = size_min(w->n - done, DISK_SECTOR - ((size_t)w->at + done) % DISK_SECTOR);
			if (mood == 1 || rng_below(&disk.rng, 2))
				bytes_apply(p, n, w->bytes + done, (size_t)w->at + done, step);
		}
	}
}

static void snapshot_file(const struct disk_file *f, const char *dir) {
	char path[PATH_MAX], *p;
	size_t n = f->n;
	uint64_t mood = rng_below(&disk.rng, 4);
	snprintf(path, sizeof(path), "%s/%s", dir, f->name);
	unlink(path);
	if (!f->is_there || (!f->is_durable && rng_below(&disk.rng, 2)))
		return;
	p = malloc(n + 1);
	if (n)
		memcpy(p, f->p, n);
	tear(&p, &n, f, mood);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), n);
	close(fd);
	free(p);
}

static void disk_snapshot(const char *dir) {
	for (unsigned i = 0; i < DISK_FILES; i++)
		if (disk.files[i].name[0])
			snapshot_file(&disk.files[i], dir);
	disk.is_snapped = true;
}

/* Before each thing that SQLite does. */
static void disk_event(void) {
	if (++disk.n_events == disk.snap_at)
		disk_snapshot(disk.snap_to);
}

/* --- SQLite's side ----------------------------------------------------------------------------------- */

static struct disk_handle *handle_of(sqlite3_file *f) {
	return (struct disk_handle *)f;
}

static int on_close(sqlite3_file *f) {
	return handle_of(f)->real->pMethods->xClose(handle_of(f)->real);
}

static int on_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at) {
	return handle_of(f)->real->pMethods->xRead(handle_of(f)->real, p, n, at);
}

static int on_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at) {
	struct disk_handle *h = handle_of(f);
	bool fails = false;
	if (disk.is_read_only)
		return SQLITE_IOERR_WRITE;
	pthread_mutex_lock(&disk.mutex);
	if (h->file) {
		disk_event();
		fails = disk.fail_write_in && --disk.fail_write_in == 0;
		n = fails ? (int)rng_below(&disk.rng, (uint64_t)n) : n;
		disk_note(h->file, p, (size_t)n, at, false);
	}
	pthread_mutex_unlock(&disk.mutex);
	int r = h->real->pMethods->xWrite(h->real, p, n, at);
	return fails ? SQLITE_IOERR_WRITE : r;
}

static int on_truncate(sqlite3_file *f, sqlite3_int64 size) {
	struct disk_handle *h = handle_of(f);
	if (disk.is_read_only)
		return SQLITE_IOERR_TRUNCATE;
	pthread_mutex_lock(&disk.mutex);
	if (h->file) {
		disk_event();
		disk_note(h->file, NULL, 0, size, true);
	}
	pthread_mutex_unlock(&disk.mutex);
	return h->real->pMethods->xTruncate(h->real, size);
}

static int on_sync(sqlite3_file *f, int flags) {
	struct disk_handle *h = handle_of(f);
	int r = SQLITE_OK; /* the real disk need not be asked */
	pthread_mutex_lock(&disk.mutex);
	if (h->file) {
		disk_event();
		disk.n_syncs++;
		if (disk.fail_in && --disk.fail_in == 0) {
			tear(&h->file->p, &h->file->n, h->file, rng_below(&disk.rng, 4));
			disk_forget(h->file);
			r = SQLITE_IOERR_FSYNC;
		} else {
			disk_sync(h->file);
		}
	}
	pthread_mutex_unlock(&disk.mutex);
	return r;
}

static int on_size(sqlite3_file *f, sqlite3_int64 *size_out) {
	return handle_of(f)->real->pMethods->xFileSize(handle_of(f)->real, size_out);
}
static int on_lock(sqlite3_file *f, int level) {
	return handle_of(f)->real->pMethods->xLock(handle_of(f)->real, level);
}
static int on_unlock(sqlite3_file *f, int level) {
	return handle_of(f)->real->pMethods->xUnlock(handle_of(f)->real, level);
}
static int on_check_lock(sqlite3_file *f, int *is_locked_out) {
	return handle_of(f)->real->pMethods->xCheckReservedLock(handle_of(f)->real, is_locked_out);
}
static int on_control(sqlite3_file *f, int op, void *arg) {
	return handle_of(f)->real->pMethods->xFileControl(handle_of(f)->real, op, arg);
}
static int on_sector_size(sqlite3_file *f) {
	return handle_of(f)->real->pMethods->xSectorSize(handle_of(f)->real);
}
static int on_characteristics(sqlite3_file *f) {
	return handle_of(f)->real->pMethods->xDeviceCharacteristics(handle_of(f)->real);
}

static int on_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *f, int flags, int *flags_out) {
	/* Version 1: no shared memory. The store does without. */
	static const sqlite3_io_methods methods = { 1, on_close, on_read, on_write, on_truncate, on_sync,
		on_size, on_lock, on_unlock, on_check_lock, on_control, on_sector_size, on_characteristics,
		NULL, NULL, NULL, NULL, NULL, NULL };
	struct disk_handle *h = handle_of(f);
	h->real = (sqlite3_file *)(h + 1);
	h->base.pMethods = NULL;
	int r = disk.real->xOpen(disk.real, path, h->real, flags, flags_out);
	if (r != SQLITE_OK)
		return r;
	h->base.pMethods = &methods;
	pthread_mutex_lock(&disk.mutex);
	h->file = disk_file(path);
	if (h->file)
		h->file->is_there = true;
	pthread_mutex_unlock(&disk.mutex);
	return SQLITE_OK;
}

static void disk_install(uint64_t seed) {
	rng_init(&disk.rng, seed);
	disk.real = sqlite3_vfs_find(NULL);
	disk.vfs = *disk.real;
	disk.vfs.zName = "disk";
	disk.vfs.pNext = NULL;
	disk.vfs.szOsFile = (int)sizeof(struct disk_handle) + disk.real->szOsFile;
	disk.vfs.xOpen = on_open;
	assert_int_equal(sqlite3_vfs_register(&disk.vfs, 1), SQLITE_OK);
}

/* What is in the folder now is durable; from now on it is watched. */
static inline void disk_begin(const char *dir) {
	char path[PATH_MAX];
	static const char name[] = "registry.db";
	disk.is_on = true;
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	struct disk_file *f = disk_file(path);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	f->n = (size_t)lseek(fd, 0, SEEK_END);
	f->p = malloc(f->n);
	assert_int_equal(pread(fd, f->p, f->n, 0), f->n);
	f->is_durable = f->is_there = true;
	close(fd);
}

static inline void disk_end(void) {
	for (unsigned i = 0; i < DISK_FILES; i++) {
		disk_sync(&disk.files[i]);
		free(disk.files[i].p);
	}
	memset(disk.files, 0, sizeof(disk.files));
	disk.is_on = false;
}
