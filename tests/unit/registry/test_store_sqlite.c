/*
 * The file of the store against everything that can happen to it: kill -9, full disks,
 * files cut short, flipped bits, other files in its place.
 */
#include "unit/registry/shelf.h"

#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "base/rng.h"
#include "registry/wal.h"

/* --- what is in a store ---------------------------------------------------------------------------- */

#define N_NAMES 512
#define N_MORE  40

/* Names are n0 to n511; a text is {"id":N}. -1: not there. */
struct content {
	long id[N_NAMES];
	unsigned n;
};

static bool each_noted(void *context, struct slice name, struct slice json) {
	struct content *c = context;
	char text[64];
	snprintf(text, sizeof(text), "%.*s", (int)name.n - 1, name.p + 1);
	unsigned long i = strtoul(text, NULL, 10);
	assert_true(name.p[0] == 'n' && i < N_NAMES && c->id[i] == -1);
	assert_true(json.n > 7 && json.n < 40 && memcmp(json.p, "{\"id\":", 6) == 0);
	snprintf(text, sizeof(text), "%.*s", (int)json.n - 7, json.p + 6);
	c->id[i] = strtol(text, NULL, 10);
	c->n++;
	return true;
}

/* False: refused, with a reason. */
static bool read_content(const char *dir, struct content *c, char epoch[17], uint64_t *version_out) {
	struct store_fault fault = { "" };
	c->n = 0;
	for (int i = 0; i < N_NAMES; i++)
		c->id[i] = -1;
	struct store *s = store_open(dir, &fault);
	bool ok = s && store_load(s, each_noted, c, &fault);
	if (ok && epoch) {
		snprintf(epoch, 17, "%s", store_epoch(s));
		*version_out = store_version(s);
	}
	store_free(&s);
	if (!ok)
		assert_true(strlen(fault.text) > 10);
	assert_int_equal(ok, fault.text[0] == '\0');
	return ok;
}

static void write_id(struct shelf *s, long id, enum store_outcome wanted) {
	char name[16], text[64];
	snprintf(name, sizeof(name), "n%ld", id % N_NAMES);
	snprintf(text, sizeof(text), "{\"id\":%ld}", id);
	assert_int_equal(shelf_write(s, name, text), wanted);
}

/* --- life ------------------------------------------------------------------------------------------------
 */

static void what_was_put_is_there_again(void **state) {
	struct shelf s;
	struct content c;
	char epoch[17], again[17];
	uint64_t version, later;
	shelf_dir(&s, quick_base());
	shelf_open(&s, false, NULL, NULL);
	snprintf(epoch, sizeof(epoch), "%s", store_epoch(s.store));
	version = store_version(s.store);
	assert_int_equal(strlen(epoch), 16);
	write_id(&s, 1, STORE_DONE);
	write_id(&s, 2, STORE_DONE);
	write_id(&s, 1 + N_NAMES, STORE_DONE); /* n1 again */
	assert_int_equal(shelf_write(&s, "n2", NULL), STORE_DONE);
	assert_int_equal(shelf_write(&s, "n3", NULL), STORE_DONE); /* never was */
	shelf_close(&s);
	for (int i = 0; i < 3; i++) {
		assert_true(read_content(s.dir, &c, again, &later));
		assert_int_equal(c.n, 1);
		assert_int_equal(c.id[1], 1 + N_NAMES);
		assert_string_equal(again, epoch);
		assert_true(later >= version + (UINT64_C(1) << 32)); /* room for what the last run gave out */
		assert_true(later < UINT64_C(1) << 53);
		version = later;
	}
	dir_remove(s.dir);
}

static void a_new_file_is_a_new_epoch(void **state) {
	struct shelf s;
	struct content c;
	char first[17], second[17];
	uint64_t version;
	shelf_dir(&s, quick_base());
	assert_true(read_content(s.dir, &c, first, &version));
	dir_remove(s.dir); /* the folder is made, too */
	assert_true(read_content(s.dir, &c, second, &version));
	assert_int_equal(c.n, 0);
	assert_string_not_equal(first, second);
	dir_remove(s.dir);
}

static void a_store_has_one_user(void **state) {
	struct shelf s;
	struct store_fault fault;
	shelf_dir(&s, quick_base());
	shelf_open(&s, false, NULL, NULL);
	assert_null(store_open(s.dir, &fault));
	assert_non_null(strstr(fault.text, "another registry uses"));
	write_id(&s, 1, STORE_DONE);
	shelf_close(&s);
	dir_remove(s.dir);
}

static void texts_of_any_size_and_name_survive(void **state) {
	struct shelf s;
	size_t n = 600 * 1024;
	char *text = malloc(n + 1);
	memset(text, 'x', n);
	text[n] = '\0';
	shelf_dir(&s, quick_base());
	shelf_open(&s, false, NULL, NULL);
	assert_int_equal(shelf_write(&s, "", text), STORE_DONE);
	assert_int_equal(shelf_write(&s, "'; DROP TABLE record; --", "1"), STORE_DONE);
	assert_int_equal(shelf_write(&s, "", NULL), STORE_DONE);
	assert_int_equal(shelf_write(&s, "\xc3\xa9", text), STORE_DONE);
	shelf_close(&s);
	shelf_open(&s, false, NULL, NULL);
	shelf_close(&s);
	free(text);
	dir_remove(s.dir);
}

/* --- kill -9
 * -------------------------------------------------------------------------------------------------- */

#define N_KILLS  300
#define N_FLYING 200 /* fewer than there are names: at most one unacknowledged write a name */

static bool is_delete(long id) {
	return id % 7 == 0;
}

struct flyer {
	struct store_op op;
	char name[16];
	long id;
};

static struct {
	struct shelf shelf;
	struct flyer flyers[N_FLYING];
	long next;
	int pipe;
} child;

static void fly(struct flyer *f);

static void flyer_done(struct store_op *op, enum store_outcome outcome) {
	struct flyer *f = container_of(op, struct flyer, op);
	if (outcome != STORE_DONE || write(child.pipe, &f->id, sizeof(f->id)) != sizeof(f->id))
		_exit(3);
	fly(f);
}

static void fly(struct flyer *f) {
	char text[64];
	f->id = child.next++;
	snprintf(f->name, sizeof(f->name), "n%ld", f->id % N_NAMES);
	int n = snprintf(text, sizeof(text), "{\"id\":%ld}", f->id);
	f->op = (struct store_op){ .name = slice_of(f->name), .done = flyer_done };
	f->op.json = is_delete(f->id) ? NULL : strdup(text);
	f->op.n_json = is_delete(f->id) ? 0 : (size_t)n;
	if (!store_submit(child.shelf.store, &f->op))
		_exit(4);
}

/* Writes until it is killed, and tells every id that was acknowledged. */
static _Noreturn void child_main(const char *dir, long first, int fd) {
	child.pipe = fd;
	child.next = first;
	snprintf(child.shelf.dir, sizeof(child.shelf.dir), "%s", dir);
	rig_open(&child.shelf.rig);
	child.shelf.store = store_open(dir, &child.shelf.fault);
	if (!child.shelf.store || !store_load(child.shelf.store, each_is_ignored, NULL, &child.shelf.fault))
		_exit(5);
	store_start(child.shelf.store, &child.shelf.rig.loop);
	for (size_t i = 0; i < N_FLYING; i++)
		fly(&child.flyers[i]);
	loop_run(&child.shelf.rig.loop);
	_exit(6);
}

/* Kills a child after n acknowledgements; returns the last id that was acknowledged, or before - 1. */
static long run_and_kill(const char *dir, long first, unsigned n) {
	int fds[2], status;
	long id, last = first - 1;
	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(fds[0]);
		child_main(dir, first, fds[1]);
	}
	close(fds[1]);
	for (unsigned i = 0;; i++) {
		if (i == n)
			kill(pid, SIGKILL);
		if (read(fds[0], &id, sizeof(id)) != sizeof(id))
			break;
		assert_int_equal(id, last + 1); /* in order */
		last = id;
	}
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	return last;
}

static long id_after(long id) {
	return is_delete(id) ? -1 : id;
}

static void kill_nine_loses_nothing_that_was_acknowledged(void **state) {
	struct shelf s;
	struct content c;
	struct rng rng;
	long held[N_NAMES], next = 1, n_acked = 0;
	rng_init(&rng, 11);
	shelf_dir(&s, quick_base());
	for (int i = 0; i < N_NAMES; i++)
		held[i] = -1;
	for (int kill_no = 0; kill_no < N_KILLS; kill_no++) {
		long last = run_and_kill(s.dir, next, 1 + (unsigned)rng_below(&rng, 600));
		n_acked += last - next + 1;
		for (long id = next; id <= last; id++)
			held[id % N_NAMES] = id_after(id);
		if (!read_content(s.dir, &c, NULL, NULL))
			fail_msg("the file is damaged after %d kills", kill_no + 1);
		for (int i = 0; i < N_NAMES; i++) {
			long flying = last + 1 + ((i - (last + 1)) % N_NAMES + N_NAMES) % N_NAMES;
			bool is_new = flying <= last + N_FLYING && c.id[i] == id_after(flying);
			if (c.id[i] != held[i] && !is_new)
				fail_msg("kill %d: n%d is %ld, acknowledged was %ld", kill_no, i, c.id[i],
				    held[i]);
			held[i] = c.id[i];
		}
		next = last + N_FLYING + 1;
	}
	assert_true(n_acked > N_KILLS * 100);
	dir_remove(s.dir);
}

/* Also while the file is being made. */
static void kill_nine_at_the_start_leaves_a_store_or_none(void **state) {
	struct shelf s;
	struct content c;
	struct rng rng;
	rng_init(&rng, 5);
	for (int i = 0; i < 60; i++) {
		int fds[2];
		char byte;
		shelf_dir(&s, quick_base());
		assert_int_equal(pipe(fds), 0);
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			close(fds[0]);
			close(fds[1]); /* it begins */
			_exit(read_content(s.dir, &c, NULL, NULL) ? 0 : 1);
		}
		close(fds[1]);
		assert_int_equal(read(fds[0], &byte, 1), 0);
		close(fds[0]);
		for (volatile uint64_t spin = rng_below(&rng, 3000000); spin > 0; spin--)
			;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		assert_true(read_content(s.dir, &c, NULL, NULL));
		dir_remove(s.dir);
	}
}

/* --- full disks
 * ------------------------------------------------------------------------------------------------- */

static struct store_counts counts_of(struct shelf *s) {
	struct store_counts c;
	store_counts(s->store, &c);
	return c;
}

static const char *name_of(long id) {
	static char name[16];
	snprintf(name, sizeof(name), "n%ld", id % N_NAMES);
	return name;
}

/* Fills a store until it fails, makes room, and looks at what is there. */
static void fill_up(struct shelf *s, void (*make_room)(void *), void *context) {
	struct content c;
	static char text[32 * 1024];
	long id = 0, n_failed = 0;
	enum store_outcome outcome = STORE_DONE;
	write_id(s, id++, STORE_DONE);
	memset(text, ' ', sizeof(text) - 1);
	while (outcome == STORE_DONE) {
		assert_true(id < 400);
		outcome = shelf_write(s, "n511", memcpy(text, "{\"id\":1}", 8));
		if (outcome == STORE_DONE) {
			char small[32];
			snprintf(small, sizeof(small), "{\"id\":%ld}", id);
			outcome = shelf_write(s, name_of(id), small);
			id += outcome == STORE_DONE;
		}
	}
	assert_true(counts_of(s).is_failing && counts_of(s).fault[0]);
	for (int i = 0; i < N_MORE; i++) /* the log begins anew, which makes room for some, but not for all */
		n_failed += shelf_write(s, name_of(400 + i), text) == STORE_FAILED;
	assert_true(n_failed > 0);
	make_room(context);
	for (int i = 0; i < N_MORE; i++)
		assert_int_equal(shelf_write(s, name_of(400 + i), NULL), STORE_DONE);
	write_id(s, 505, STORE_DONE);
	write_id(s, 506, STORE_DONE);
	assert_int_equal(shelf_write(s, "n510", NULL), STORE_DONE);
	assert_int_equal(shelf_write(s, "n511", "{\"id\":7}"), STORE_DONE);
	assert_false(counts_of(s).is_failing);
	shelf_close(s);
	assert_true(read_content(s->dir, &c, NULL, NULL));
	for (long i = 0; i < id; i++)
		assert_int_equal(c.id[i], i);
	assert_int_equal(c.id[505], 505);
	assert_int_equal(c.id[506], 506);
	assert_int_equal(c.id[510], -1);
	assert_int_equal(c.id[511], 7);
}

static void raise_limit(void *context) {
	struct rlimit *old = context;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, old), 0);
}

static void a_file_at_its_size_limit_fails_and_recovers(void **state) {
	struct shelf s;
	struct rlimit old, low;
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	shelf_dir(&s, quick_base());
	shelf_open(&s, false, NULL, NULL);
	low = (struct rlimit){ .rlim_cur = 400 * 1024, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	fill_up(&s, raise_limit, &old);
	dir_remove(s.dir);
}

/* A folder on a disk of one megabyte, for this process alone. False: not allowed here. */
static bool small_disk(struct shelf *s) {
	shelf_dir(s, "/tmp");
	if (unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	    mount("tmpfs", s->dir, "tmpfs", 0, "size=1m") == 0)
		return true;
	rmdir(s->dir);
	return false;
}

static void small_disk_gone(struct shelf *s) {
	assert_int_equal(umount2(s->dir, MNT_DETACH), 0);
	rmdir(s->dir);
}

/* Nothing fits any more, but for n_free bytes. */
static void put_ballast(const struct shelf *s, off_t n_free) {
	static const char zeros[4096];
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/ballast", s->dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	while (write(fd, zeros, sizeof(zeros)) > 0)
		;
	assert_int_equal(ftruncate(fd, lseek(fd, 0, SEEK_CUR) - n_free), 0);
	close(fd);
}

static void drop_ballast(void *context) {
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/ballast", ((struct shelf *)context)->dir);
	unlink(path);
}

static void a_full_disk_fails_and_recovers(void **state) {
	struct shelf s;
	if (!small_disk(&s))
		skip(); /* needs the right to mount */
	shelf_open(&s, false, NULL, NULL);
	put_ballast(&s, 300 * 1024);
	fill_up(&s, drop_ballast, &s);
	small_disk_gone(&s);
}

/* What is known is served; as the start could not be noted down, watchers begin anew. */
static void a_start_on_a_full_disk_reads_under_another_epoch(void **state) {
	struct shelf s;
	struct content c;
	char epoch[17], full[17], after[17];
	uint64_t version, version_full;
	if (!small_disk(&s))
		skip(); /* needs the right to mount */
	shelf_open(&s, false, NULL, NULL);
	for (long id = 0; id < 100; id++)
		write_id(&s, id, STORE_DONE);
	shelf_close(&s);
	assert_true(read_content(s.dir, &c, epoch, &version));
	put_ballast(&s, 0);
	assert_true(read_content(s.dir, &c, full, &version_full));
	assert_int_equal(c.n, 100);
	assert_string_not_equal(full, epoch);
	drop_ballast(&s);
	assert_true(read_content(s.dir, &c, after, &version_full));
	assert_int_equal(c.n, 100);
	assert_string_equal(after, epoch);
	assert_true(version_full > version);
	small_disk_gone(&s);
}

struct image {
	char *p;
	size_t n;
};

static struct image image_of(const char *dir, const char *file) {
	char path[PATH_MAX];
	struct stat st;
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	struct image i = { malloc((size_t)st.st_size + 1), (size_t)st.st_size };
	assert_int_equal(pread(fd, i.p, i.n, 0), i.n);
	close(fd);
	return i;
}

static void image_put(const char *dir, const char *file, const char *p, size_t n) {
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/%s", dir, file);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), n);
	close(fd);
}

static void remount(const struct shelf *s, unsigned long flags) {
	assert_int_equal(mount(NULL, s->dir, NULL, MS_REMOUNT | flags, "size=1m"), 0);
}

/* Three records, the last of them in the log alone if there is one, and behind it a torn end. */
static void three_records(struct shelf *s, bool has_log) {
	shelf_open(s, false, NULL, NULL);
	write_id(s, 1, STORE_DONE);
	write_id(s, 2, STORE_DONE);
	shelf_close(s);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		shelf_open(s, false, NULL, NULL);
		write_id(s, 3, STORE_DONE);
		if (!has_log)
			shelf_close(s);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	if (has_log) {
		struct image log = image_of(s->dir, "registry.db-wal");
		log.p[log.n] = 1; /* the image has room for it */
		image_put(s->dir, "registry.db-wal", log.p, log.n + 1);
		free(log.p);
	}
}

static void expect_ids(const struct content *c, long n) {
	assert_int_equal(c->n, n);
	for (long id = 1; id <= n; id++)
		assert_int_equal(c->id[id], id);
}

/* What is known is served, and what is new is stored as soon as it can be. */
static void a_start_on_a_read_only_disk_reads_fails_and_recovers(void **state) {
	for (int has_log = 0; has_log < 2; has_log++) {
		struct shelf s;
		struct content c;
		char epoch[17], other[17], after[17];
		uint64_t version, later;
		if (!small_disk(&s))
			skip(); /* needs the right to mount */
		assert_true(read_content(s.dir, &c, epoch, &version));
		three_records(&s, has_log);
		remount(&s, MS_RDONLY);
		assert_true(read_content(s.dir, &c, other, &later));
		expect_ids(&c, 3);
		assert_string_not_equal(other, epoch);
		shelf_open(&s, false, NULL, NULL);
		struct store_fault fault;
		assert_null(store_open(s.dir, &fault)); /* one user, here too */
		assert_true(counts_of(&s).is_failing);
		write_id(&s, 4, STORE_FAILED);
		assert_int_equal(shelf_write(&s, "n1", NULL), STORE_FAILED);
		assert_non_null(strstr(counts_of(&s).fault, "Read-only"));
		remount(&s, 0);
		write_id(&s, 4, STORE_DONE);
		assert_false(counts_of(&s).is_failing);
		shelf_close(&s);
		assert_true(read_content(s.dir, &c, after, &later));
		expect_ids(&c, 4);
		assert_string_equal(after, epoch);
		assert_true(later > version);
		small_disk_gone(&s);
	}
}

static void damage_on_a_read_only_disk_stops_the_start_all_the_same(void **state) {
	struct shelf s;
	struct content c;
	if (!small_disk(&s))
		skip(); /* needs the right to mount */
	remount(&s, MS_RDONLY);
	assert_false(read_content(s.dir, &c, NULL, NULL)); /* nothing is there */
	remount(&s, 0);
	three_records(&s, false);
	struct image db = image_of(s.dir, "registry.db");
	char *at = memmem(db.p, db.n, "{\"id\":2}", 8);
	assert_non_null(at);
	at[6] = '5';
	image_put(s.dir, "registry.db", db.p, db.n);
	free(db.p);
	remount(&s, MS_RDONLY);
	assert_false(read_content(s.dir, &c, NULL, NULL));
	small_disk_gone(&s);
}

/* --- damage
 * -------------------------------------------------------------------------------------------------------- */

/* A store as it is when the power goes: n_old records in the file, n_new only in its log. One commit a
 * record. */
struct remains {
	struct shelf shelf;
	struct image db, wal;
	long n_old, n_new;
	int looked; /* what wal_look() said of the log that was read last */
};

static void remains_make(struct remains *x, long n_old, long n_new) {
	*x = (struct remains){ .n_old = n_old, .n_new = n_new };
	shelf_dir(&x->shelf, quick_base());
	shelf_open(&x->shelf, false, NULL, NULL);
	for (long id = 0; id < n_old; id++)
		write_id(&x->shelf, id, STORE_DONE);
	shelf_close(&x->shelf);
	shelf_open(&x->shelf, false, NULL, NULL);
	for (long id = n_old; id < n_old + n_new; id++)
		write_id(&x->shelf, id, STORE_DONE);
	x->db = image_of(x->shelf.dir, "registry.db");
	x->wal = image_of(x->shelf.dir, "registry.db-wal");
	shelf_close(&x->shelf);
}

static void remains_free(struct remains *x) {
	free(x->db.p);
	free(x->wal.p);
	dir_remove(x->shelf.dir);
}

/* Refused, or a state that once was: the first k records, whole. Returns k, or -1. A log that was neither cut
 * nor refused has lost nothing. */
static long remains_read(struct remains *x, const char *db, size_t n_db, const char *wal, size_t n_wal) {
	struct content c;
	char path[PATH_MAX];
	uint64_t end;
	image_put(x->shelf.dir, "registry.db", db, n_db);
	image_put(x->shelf.dir, "registry.db-wal", wal, n_wal);
	snprintf(path, sizeof(path), "%s/registry.db-wal", x->shelf.dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	x->looked = wal_look(fd, &end);
	close(fd);
	if (!read_content(x->shelf.dir, &c, NULL, NULL))
		return -1;
	for (long id = 0; id < N_NAMES; id++)
		if (c.id[id] != (id < c.n ? id : -1))
			fail_msg("%u records, and n%ld is %ld", c.n, id, c.id[id]);
	assert_true(c.n >= x->n_old);
	return c.n;
}

static void a_log_cut_anywhere_gives_an_older_state(void **state) {
	struct remains x;
	long k, last = 0;
	remains_make(&x, 20, 12);
	assert_int_equal(remains_read(&x, x.db.p, x.db.n, x.wal.p, x.wal.n), 32);
	for (size_t cut = 0; cut <= x.wal.n; cut += cut % 4096 < 64 ? 1 : 509) {
		k = remains_read(&x, x.db.p, x.db.n, x.wal.p, cut);
		assert_true(k >= last); /* a longer log never says less */
		last = k;
	}
	assert_true(last >= 31);
	remains_free(&x);
}

static void a_file_cut_short_is_refused_or_whole(void **state) {
	struct remains x;
	unsigned n_refused = 0, n_cuts = 0;
	remains_make(&x, 300, 3);
	for (size_t cut = 0; cut < x.db.n; cut += cut % 4096 < 8 ? 1 : 251, n_cuts++)
		n_refused += remains_read(&x, x.db.p, cut, x.wal.p, 0) < 0;
	assert_int_equal(n_refused, n_cuts);
	for (size_t cut = 0; cut < x.db.n; cut += cut % 4096 < 8 ? 1 : 251) {
		long k = remains_read(&x, x.db.p, cut, x.wal.p, x.wal.n);
		assert_true(k < 0 || k == 303); /* the log may hold what was cut off */
	}
	assert_int_equal(remains_read(&x, x.db.p, x.db.n, x.wal.p, 0), 300);
	remains_free(&x);
}

static void flipped_bits_are_refused_or_harmless(void **state) {
	struct remains x;
	struct rng rng;
	unsigned n_refused = 0;
	rng_init(&rng, 3);
	remains_make(&x, 40, 10);
	for (unsigned i = 0; i < 1500; i++) {
		struct image *which = i % 3 ? &x.db : &x.wal;
		uint64_t bit = rng_below(&rng, 8 * which->n);
		which->p[bit / 8] ^= (char)(1 << bit % 8);
		long k = remains_read(&x, x.db.p, x.db.n, x.wal.p, which == &x.db ? 0 : x.wal.n);
		n_refused += k < 0;
		if (which == &x.wal) { /* the last change may be taken for one that was not acknowledged */
			assert_true(k < 0 || k >= 49);
			assert_true(k < 0 || x.looked == (k == 49 ? WAL_E_TORN : 0));
		}
		which->p[bit / 8] ^= (char)(1 << bit % 8);
	}

	assert_true(n_refused > 50);
	remains_free(&x);
}

/* Every bit of ten records' names, texts and sums, as the file has them. */
static void no_flipped_bit_of_a_record_is_believed(void **state) {
	struct remains x;
	struct content c;
	remains_make(&x, 40, 1);
	for (int id = 10; id < 20; id++) {
		char record[32];
		int n = snprintf(record, sizeof(record), "n%d{\"id\":%d}", id, id);
		char *at = memmem(x.db.p, x.db.n, record, (size_t)n);
		assert_non_null(at);
		for (int bit = 0; bit < 8 * (n + 8); bit++) { /* the sum follows */
			at[bit / 8] ^= (char)(1 << bit % 8);
			image_put(x.shelf.dir, "registry.db", x.db.p, x.db.n);
			image_put(x.shelf.dir, "registry.db-wal", "", 0);
			assert_false(read_content(x.shelf.dir, &c, NULL, NULL));
			at[bit / 8] ^= (char)(1 << bit % 8);
		}
	}
	remains_free(&x);
}

/* --- other files
 * ----------------------------------------------------------------------------------------------------- */

static void expect_refusal(const char *dir, const char *words) {
	struct store_fault fault = { "" };
	struct store *s = store_open(dir, &fault);
	if (s)
		fail_msg("opened; wanted: %s", words);
	if (!strstr(fault.text, words))
		fail_msg("%s; wanted: %s", fault.text, words);
}

static void run_sqlite(const char *dir, const char *sql) {
	char path[PATH_MAX];
	sqlite3 *db;
	snprintf(path, sizeof(path), "%s/registry.db", dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void other_files_are_refused_with_a_reason(void **state) {
	struct shelf s;
	struct content c;
	char zeros[8192] = { 0 };
	shelf_dir(&s, quick_base());
	image_put(s.dir, "registry.db", "", 0);
	expect_refusal(s.dir, "damaged: not a database");
	image_put(s.dir, "registry.db", zeros, sizeof(zeros));
	expect_refusal(s.dir, "damaged: not a database");
	image_put(s.dir, "registry.db", "SQLite format 3", 16);
	expect_refusal(s.dir, "damaged: not a database");

	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/registry.db", s.dir);
	unlink(path);
	run_sqlite(s.dir, "CREATE TABLE t (x)");
	expect_refusal(s.dir, "not a registry's file");
	unlink(path);

	image_put(s.dir, "registry.db-wal", zeros, sizeof(zeros));
	expect_refusal(s.dir, "is missing, but its log");
	snprintf(path, sizeof(path), "%s/registry.db-wal", s.dir);
	unlink(path);

	image_put(s.dir, "registry.db.new", zeros, sizeof(zeros)); /* of a start that was killed */
	assert_true(read_content(s.dir, &c, NULL, NULL));
	run_sqlite(s.dir, "PRAGMA user_version = 2");
	expect_refusal(s.dir, "has schema version 2, this program knows 1");
	run_sqlite(s.dir, "PRAGMA user_version = 1; DELETE FROM meta WHERE key = 'epoch'");
	expect_refusal(s.dir, "no epoch");
	run_sqlite(s.dir, "INSERT INTO meta VALUES ('epoch', '0123456789abcdef'); DROP TABLE record");
	expect_refusal(s.dir, "no such table");
	dir_remove(s.dir);
}

static void folders_that_cannot_be_are_named(void **state) {
	struct store_fault fault;
	char *longer = malloc(6000);
	memset(longer, 'x', 5999);
	longer[5999] = '\0';
	expect_refusal("/proc/none", "/proc/none cannot be made");
	expect_refusal("/dev/null", "/dev/null cannot be opened");
	expect_refusal(longer, "too long");
	assert_null(store_open("/proc", &fault));
	free(longer);
}

static bool each_is_no_record(void *context, struct slice name, struct slice json) {
	return false;
}

static void what_is_no_record_stops_the_start(void **state) {
	struct shelf s;
	shelf_dir(&s, quick_base());
	shelf_open(&s, false, NULL, NULL);
	write_id(&s, 17, STORE_DONE);
	shelf_close(&s);
	s.store = store_open(s.dir, &s.fault);
	assert_non_null(s.store);
	assert_false(store_load(s.store, each_is_no_record, NULL, &s.fault));
	assert_non_null(strstr(s.fault.text, "damaged: the record of n17 cannot be read"));
	store_free(&s.store);
	dir_remove(s.dir);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_put_is_there_again),
		cmocka_unit_test(a_new_file_is_a_new_epoch),
		cmocka_unit_test(a_store_has_one_user),
		cmocka_unit_test(texts_of_any_size_and_name_survive),
		cmocka_unit_test(kill_nine_loses_nothing_that_was_acknowledged),
		cmocka_unit_test(kill_nine_at_the_start_leaves_a_store_or_none),
		cmocka_unit_test(a_file_at_its_size_limit_fails_and_recovers),
		cmocka_unit_test(a_full_disk_fails_and_recovers),
		cmocka_unit_test(a_start_on_a_full_disk_reads_under_another_epoch),
		cmocka_unit_test(a_start_on_a_read_only_disk_reads_fails_and_recovers),
		cmocka_unit_test(damage_on_a_read_only_disk_stops_the_start_all_the_same),
		cmocka_unit_test(a_log_cut_anywhere_gives_an_older_state),
		cmocka_unit_test(a_file_cut_short_is_refused_or_whole),
		cmocka_unit_test(flipped_bits_are_refused_or_harmless),
		cmocka_unit_test(no_flipped_bit_of_a_record_is_believed),
		cmocka_unit_test(other_files_are_refused_with_a_reason),
		cmocka_unit_test(folders_that_cannot_be_are_named),
		cmocka_unit_test(what_is_no_record_stops_the_start),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
