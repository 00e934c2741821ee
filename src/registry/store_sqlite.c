/*
 * One file, registry.db, in WAL mode with synchronous=FULL: a commit is on disk when it
 * returns. The file is made under another name and renamed when it is whole, so one that
 * lacks its schema was damaged and never is a new one; SQLite itself would take an empty
 * file for a new database. registry.lock is held by the process that has the store.
 *
 *     meta(key, value)         epoch, generation
 *     record(name, json, sum)  sum: XXH3 of name, a zero byte, json
 *
 * SQLite takes damage of its log for the log's end, so the log is looked through before it
 * is opened (wal.h): damage stops the start, a torn end is cut off.
 *
 * On a disk that is read-only at the start, what is there is read: without a log as a file that nobody
 * changes; with one without SQLite's locks, which want to write, and with the index of the log in memory.
 * registry.lock holds all others off. Each commit looks whether the disk can be written meanwhile.
 *
 * The generation counts the starts and is the upper half of every version: versions grow
 * within an epoch over restarts, without a write for each change.
 */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/log.h"
#include "base/text.h"
#include "registry/store_backend.h"
#include "registry/wal.h"

#define SCHEMA_VERSION   1
#define APPLICATION_ID   0x48726567 /* "Hreg" */
#define HEADER_BYTES     100        /* of an SQLite file */
#define GENERATION_SHIFT 32         /* versions stay below 2^53 for two million starts */
#define GENERATION_MAX   ((1 << 21) - 1)

struct sqlite_store {
	struct store_backend base;
	sqlite3 *db;
	sqlite3_stmt *put, *delete;
	int dir_fd, lock_fd;
	bool has_leftovers; /* of a transaction that failed, in the log */
	char path[4096];
};

static void printf_like(2, 3) say(struct store_fault *fault, const char *format, ...) {
	va_list args;
	va_start(args, format);
	vsnprintf(fault->text, sizeof(fault->text), format, args);
	va_end(args);
}

static bool run(sqlite3 *db, const char *sql) {
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static int64_t record_sum(struct slice name, struct slice json) {
	XXH3_state_t x;
	XXH3_64bits_reset(&x);
	XXH3_64bits_update(&x, name.n ? name.p : "", name.n);
	XXH3_64bits_update(&x, "", 1);
	XXH3_64bits_update(&x, json.p, json.n);
	return (int64_t)XXH3_64bits_digest(&x);
}

/* --- making a new file ------------------------------------------------------------------------- */

static const char *const new_files[] = { "registry.db.new", "registry.db.new-journal", "registry.db.new-wal",
	"registry.db.new-shm" };

static bool fill_new(sqlite3 *db) {
	char epoch[17], sql[256];
	store_epoch_random(epoch);
	snprintf(sql, sizeof(sql),
	    "INSERT INTO meta VALUES ('epoch', '%s'), ('generation', 0); PRAGMA application_id = %d; "
	    "PRAGMA user_version = %d; COMMIT",
	    epoch, APPLICATION_ID, SCHEMA_VERSION);
	return run(db,
		   "PRAGMA synchronous = EXTRA; BEGIN;"
		   "CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;"
		   "CREATE TABLE record (name TEXT PRIMARY KEY, json TEXT NOT NULL, sum INTEGER NOT NULL)"
		   " WITHOUT ROWID") &&
	    run(db, sql) && run(db, "PRAGMA journal_mode = WAL");
}

static bool make_new(struct sqlite_store *s, struct store_fault *fault) {
	char path[sizeof(s->path) + 8];
	sqlite3 *db = NULL;
	for (size_t i = 0; i < n_elems(new_files); i++)
		unlinkat(s->dir_fd, new_files[i], 0);
	snprintf(path, sizeof(path), "%s.new", s->path);
	bool ok = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
		      NULL) == SQLITE_OK &&
	    fill_new(db);
	if (!ok)
		say(fault, "%s cannot be made: %s", s->path, db ? sqlite3_errmsg(db) : "out of memory");
	sqlite3_close(db);
	int fd = ok ? openat(s->dir_fd, new_files[0], O_RDWR | O_CLOEXEC) : -1;
	if (ok &&
	    (fd < 0 || fsync(fd) < 0 || renameat(s->dir_fd, new_files[0], s->dir_fd, "registry.db") < 0 ||
		fsync(s->dir_fd) < 0)) {
		say(fault, "%s cannot be made: %s", s->path, strerror(errno));
		ok = false;
	}
	if (fd >= 0)
		close(fd);
	return ok;
}

/* --- opening ------------------------------------------------------------------------------------ */

static bool hold_folder(struct sqlite_store *s, const char *state_dir, struct store_fault *fault) {
	if (mkdir(state_dir, 0750) < 0 && errno != EEXIST) {
		say(fault, "the folder %s cannot be made: %s", state_dir, strerror(errno));
		return false;
	}
	s->dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0) {
		say(fault, "the folder %s cannot be opened: %s", state_dir, strerror(errno));
		return false;
	}
	s->lock_fd = openat(s->dir_fd, "registry.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (s->lock_fd < 0 && errno == EROFS)
		s->lock_fd = openat(s->dir_fd, "registry.lock", O_RDONLY | O_CLOEXEC);
	if (s->lock_fd < 0) {
		say(fault, "%s/registry.lock cannot be opened: %s", state_dir, strerror(errno));
		return false;
	}
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		say(fault, "another registry uses %s", state_dir);
		return false;
	}
	return true;
}

/* A file that is there must look like a database; SQLite would fill an empty one. 1: there is none. */
static int look_at_file(struct sqlite_store *s, struct store_fault *fault) {
	static const char magic[16] = "SQLite format 3";
	char header[HEADER_BYTES];
	int fd = openat(s->dir_fd, "registry.db", O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT) {
		say(fault, "%s cannot be read: %s", s->path, strerror(errno));
		return -1;
	}
	if (fd < 0 && faccessat(s->dir_fd, "registry.db-wal", F_OK, 0) == 0) {
		say(fault,
		    "%s is missing, but its log registry.db-wal is there: bring the file back, or move "
		    "the log away to begin with an empty registry",
		    s->path);
		return -1;
	}
	if (fd < 0)
		return 1;
	ssize_t n = pread(fd, header, sizeof(header), 0);
	close(fd);
	if (n == (ssize_t)sizeof(header) && memcmp(header, magic, sizeof(magic)) == 0)
		return 0;
	say(fault, "%s is damaged: not a database", s->path);
	return -1;
}

static bool cut_log(struct sqlite_store *s, int fd, uint64_t end, struct store_fault *fault) {
	char path[sizeof(s->path) + 8];
	struct log_event e;
	if (ftruncate(fd, (off_t)end) < 0 || fsync(fd) < 0) {
		say(fault, "%s-wal cannot be cut: %s", s->path, strerror(errno));
		return false;
	}
	log_begin(&e, LOG_WARN, "the store's log had a torn end, which was cut off");
	snprintf(path, sizeof(path), "%s-wal", s->path);
	line_text(&e.line, SLICE("log"), slice_of(path));
	line_uint(&e.line, SLICE("end"), end);
	log_end(&e);
	return true;
}

/* Without may_cut a torn end stays: SQLite does not read it. */
static bool look_at_log(struct sqlite_store *s, bool may_cut, struct store_fault *fault) {
	uint64_t end = 0;
	int fd = openat(s->dir_fd, "registry.db-wal", (may_cut ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return true;
	int r = fd < 0 ? -errno : wal_look(fd, &end);
	bool ok = r == 0 || (r == WAL_E_TORN && (!may_cut || cut_log(s, fd, end, fault)));
	if (r == WAL_E_DAMAGED)
		say(fault,
		    "%s-wal is damaged and has changes behind the damage: bring the file back, or move it "
		    "away to go on with the older records of registry.db",
		    s->path);
	else if (r < 0)
		say(fault, "%s-wal cannot be read: %s", s->path, strerror(-r));
	if (fd >= 0)
		close(fd);
	return ok;
}

/* The first column of the first row; "" if there is none or an error. */
static void ask(sqlite3 *db, const char *sql, char *answer_out, size_t size) {
	sqlite3_stmt *stmt = NULL;
	answer_out[0] = '\0';
	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_ROW &&
	    sqlite3_column_text(stmt, 0))
		snprintf(answer_out, size, "%s", (const char *)sqlite3_column_text(stmt, 0));
	else
		snprintf(answer_out, size, "%s", sqlite3_errmsg(db));
	sqlite3_finalize(stmt);
}

/* -1: not a number, or less than nothing. */
static int64_t ask_number(sqlite3 *db, const char *sql) {
	char answer[128];
	uint64_t n;
	ask(db, sql, answer, sizeof(answer));
	return text_uint(slice_of(answer), INT64_MAX, &n) ? (int64_t)n : -1;
}

static bool check_content(struct sqlite_store *s, struct store_fault *fault) {
	char answer[160];
	ask(s->db, "PRAGMA quick_check(1)", answer, sizeof(answer));
	if (strcmp(answer, "ok") != 0) {
		say(fault, "%s is damaged: %s", s->path, answer);
		return false;
	}
	if (ask_number(s->db, "PRAGMA application_id") != APPLICATION_ID) {
		say(fault, "%s is not a registry's file", s->path);
		return false;
	}
	int64_t version = ask_number(s->db, "PRAGMA user_version");
	if (version != SCHEMA_VERSION) {
		say(fault, "%s has schema version %lld, this program knows %d", s->path, (long long)version,
		    SCHEMA_VERSION);
		return false;
	}
	return true;
}

/* The epoch goes on if this start can be recorded, else this run has one of its own. */
static bool begin_generation(struct sqlite_store *s, struct store_fault *fault) {
	char epoch[32];
	ask(s->db, "SELECT value FROM meta WHERE key = 'epoch'", epoch, sizeof(epoch));
	int64_t generation = ask_number(s->db, "SELECT value FROM meta WHERE key = 'generation'");
	if (strlen(epoch) != 16 || strspn(epoch, "0123456789abcdef") != 16 || generation < 0) {
		say(fault, "%s is damaged: no epoch", s->path);
		return false;
	}
	if (generation < GENERATION_MAX &&
	    run(s->db, "UPDATE meta SET value = value + 1 WHERE key = 'generation'")) {
		memcpy(s->base.epoch, epoch, 17); /* 16 digits, as was just seen */
		s->base.version = (uint64_t)(generation + 1) << GENERATION_SHIFT;
	} else {
		store_epoch_random(s->base.epoch);
		s->has_leftovers = true;
	}
	return true;
}

static bool open_with(
    struct sqlite_store *s, const char *name, int flags, const char *pragmas, struct store_fault *fault) {
	if (sqlite3_open_v2(name, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK &&
	    run(s->db, pragmas) && run(s->db, "PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF"))
		return check_content(s, fault);
	say(fault, "%s cannot be opened: %s", s->path, s->db ? sqlite3_errmsg(s->db) : "out of memory");
	return false;
}

static bool open_to_write(struct sqlite_store *s, struct store_fault *fault) {
	if (!open_with(s, s->path, SQLITE_OPEN_READWRITE,
		"PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
		"PRAGMA journal_size_limit = 67108864",
		fault))
		return false;
	if (sqlite3_prepare_v3(s->db,
		"INSERT INTO record VALUES (?1, ?2, ?3)"
		" ON CONFLICT (name) DO UPDATE SET json = excluded.json, sum = excluded.sum",
		-1, SQLITE_PREPARE_PERSISTENT, &s->put, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v3(s->db, "DELETE FROM record WHERE name = ?1", -1, SQLITE_PREPARE_PERSISTENT,
		&s->delete, NULL) != SQLITE_OK) {
		say(fault, "%s is damaged: %s", s->path, sqlite3_errmsg(s->db));
		return false;
	}
	return true;
}

/* By the descriptor of the folder: in a uri, the path would want escapes. */
static bool open_to_read(struct sqlite_store *s, struct store_fault *fault) {
	bool has_log = faccessat(s->dir_fd, "registry.db-wal", F_OK, 0) == 0;
	char uri[96];
	snprintf(uri, sizeof(uri), "file:/proc/self/fd/%d/registry.db?%s", s->dir_fd,
	    has_log ? "mode=ro&vfs=unix-none" : "immutable=1");
	return open_with(s, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI,
	    "PRAGMA locking_mode = EXCLUSIVE" /* else the index of the log would be a file */, fault);
}

static bool is_disk_read_only(const struct sqlite_store *s) {
	return faccessat(s->dir_fd, "registry.db", W_OK, 0) < 0 && errno == EROFS;
}

static bool open_file(struct sqlite_store *s, struct store_fault *fault) {
	s->base.is_read_only = is_disk_read_only(s);
	return look_at_log(s, !s->base.is_read_only, fault) &&
	    (s->base.is_read_only ? open_to_read(s, fault) : open_to_write(s, fault)) &&
	    begin_generation(s, fault);
}

static void close_file(struct sqlite_store *s) {
	sqlite3_finalize(s->put);
	sqlite3_finalize(s->delete);
	s->put = s->delete = NULL;
	int r = sqlite3_close(s->db);
	assert(r == SQLITE_OK);
	s->db = NULL;
}

static void sqlite_close(struct store_backend *b) {
	struct sqlite_store *s = container_of(b, struct sqlite_store, base);
	close_file(s);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	free(s);
}

/* --- loading and committing ------------------------------------------------------------------- */

static struct slice column_slice(sqlite3_stmt *stmt, int i) {
	const char *p = sqlite3_column_blob(stmt, i);
	return (struct slice){ p ? p : "", (size_t)sqlite3_column_bytes(stmt, i) };
}

static bool sqlite_load(
    struct store_backend *b, store_each_fn each, void *context, struct store_fault *fault_out) {
	struct sqlite_store *s = container_of(b, struct sqlite_store, base);
	sqlite3_stmt *stmt = NULL;
	int r = sqlite3_prepare_v2(s->db, "SELECT name, json, sum FROM record", -1, &stmt, NULL);
	while (r == SQLITE_OK || r == SQLITE_ROW) {
		r = sqlite3_step(stmt);
		if (r != SQLITE_ROW)
			break;
		struct slice name = column_slice(stmt, 0), json = column_slice(stmt, 1);
		if (record_sum(name, json) == sqlite3_column_int64(stmt, 2) && each(context, name, json))
			continue;
		say(fault_out, "%s is damaged: the record of %.*s cannot be read", s->path,
		    (int)size_min(name.n, 128), name.p);
		sqlite3_finalize(stmt);
		return false;
	}
	if (r != SQLITE_DONE)
		say(fault_out, "%s is damaged: %s", s->path, sqlite3_errmsg(s->db));
	sqlite3_finalize(stmt);
	return r == SQLITE_DONE;
}

static bool run_op(struct sqlite_store *s, const struct store_op *op) {
	sqlite3_stmt *stmt = op->json ? s->put : s->delete;
	sqlite3_bind_text(stmt, 1, op->name.n ? op->name.p : "", (int)op->name.n, SQLITE_STATIC);
	if (op->json) {
		sqlite3_bind_text(stmt, 2, op->json, (int)op->n_json, SQLITE_STATIC);
		sqlite3_bind_int64(stmt, 3, record_sum(op->name, (struct slice){ op->json, op->n_json }));
	}
	bool ok = sqlite3_step(stmt) == SQLITE_DONE;
	ok &= sqlite3_reset(stmt) == SQLITE_OK;
	sqlite3_clear_bindings(stmt);
	return ok;
}

/* It was read-only when it was opened. The epoch of this run stays its own: no version of another was used.
 */
static bool begin_to_write(struct sqlite_store *s, struct store_fault *fault) {
	if (is_disk_read_only(s)) {
		say(fault, "%s: %s", s->path, strerror(EROFS));
		return false;
	}
	close_file(s);
	s->base.is_read_only = !look_at_log(s, true, fault) || !open_to_write(s, fault);
	return !s->base.is_read_only;
}

/* What failed may stand in the log, where a shorter transaction would not cover it: a look at the
 * log would take it for damage. So the log begins anew. */
static bool drop_leftovers(struct sqlite_store *s) {
	if (s->has_leftovers &&
	    sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) != SQLITE_OK)
		return false;
	s->has_leftovers = false;
	return true;
}

static int sqlite_commit(struct store_backend *b, const struct list *ops, struct store_fault *fault_out) {
	struct sqlite_store *s = container_of(b, struct sqlite_store, base);
	if (b->is_read_only && !begin_to_write(s, fault_out))
		return -1;
	bool ok = drop_leftovers(s) && run(s->db, "BEGIN IMMEDIATE");
	list_each (l, ops)
		ok = ok && run_op(s, container_of(l, struct store_op, link));
	if (ok && run(s->db, "COMMIT"))
		return 0;
	say(fault_out, "%s: %s (%d)", s->path, sqlite3_errmsg(s->db), sqlite3_extended_errcode(s->db));
	s->has_leftovers = true;
	if (!sqlite3_get_autocommit(s->db))
		(void)run(s->db, "ROLLBACK");
	return -1;
}

struct store_backend *store_sqlite_open(const char *state_dir, struct store_fault *fault_out) {
	static const struct store_kind kind = {
		.load = sqlite_load,
		.commit = sqlite_commit,
		.close = sqlite_close,
	};
	struct sqlite_store *s = calloc(1, sizeof(*s));
	s->base.kind = &kind;
	s->dir_fd = s->lock_fd = -1;
	bool ok = (size_t)snprintf(s->path, sizeof(s->path), "%s/registry.db", state_dir) < sizeof(s->path);
	if (!ok)
		say(fault_out, "the path of the state folder is too long");
	ok = ok && hold_folder(s, state_dir, fault_out);
	int found = ok ? look_at_file(s, fault_out) : -1;
	if (found == 1)
		found = make_new(s, fault_out) ? 0 : -1;
	if (found == 0 && open_file(s, fault_out))
		return &s->base;
	sqlite_close(&s->base);
	return NULL;
}
