/*
 * Logs that SQLite wrote, cut and flipped everywhere: what stands behind damage must be
 * found, and what a power cut leaves must not be taken for damage.
 */
#include "unit/registry/shelf.h"

#include <sqlite3.h>
#include <sys/mman.h>

#include "base/rng.h"
#include "registry/wal.h"

enum { N_OLD = 30, N_NEW = 12, HEADER = 32, SECTOR = 512 };

struct scene {
	char dir[128];
	unsigned char *p, *before; /* the log, and as it was before the last transaction */
	size_t n, n_before;
	size_t ends[N_NEW + 1]; /* of the transactions, from where the first begins */
	size_t n_frame;
	int fd; /* a copy of the log, to do harm to */
};

static void run(sqlite3 *db, const char *sql) {
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
}

static unsigned char *log_read(const struct scene *s, size_t *n_out) {
	char path[PATH_MAX];
	struct stat st;
	snprintf(path, sizeof(path), "%s/x.db-wal", s->dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	unsigned char *p = malloc((size_t)st.st_size);
	assert_int_equal(pread(fd, p, (size_t)st.st_size, 0), st.st_size);
	*n_out = (size_t)st.st_size;
	close(fd);
	return p;
}

static void set_log(struct scene *s, const unsigned char *p, size_t n) {
	assert_int_equal(ftruncate(s->fd, 0), 0);
	assert_int_equal(pwrite(s->fd, p, n, 0), n);
}

static int look(const struct scene *s, uint64_t *end_out) {
	int r = wal_look(s->fd, end_out);
	assert_true(r >= 0);
	return r;
}

/* Where what is committed ends; SQLite's own file may be longer: an older log is underneath. */
static size_t log_end(struct scene *s) {
	uint64_t end;
	size_t n;
	unsigned char *p = log_read(s, &n);
	set_log(s, p, n);
	assert_int_equal(look(s, &end), 0);
	free(p);
	return (size_t)end;
}

/* N_NEW transactions of one page and more, over those of an older log that is as long. */
static void scene_open(struct scene *s) {
	char path[PATH_MAX], sql[128];
	sqlite3 *db;
	*s = (struct scene){ .fd = memfd_create("log", MFD_CLOEXEC) };
	snprintf(s->dir, sizeof(s->dir), "%s/wal-XXXXXX", quick_base());
	assert_non_null(mkdtemp(s->dir));
	snprintf(path, sizeof(path), "%s/x.db", s->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	run(db, "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; CREATE TABLE t (x)");
	for (int i = 0; i < N_OLD; i++)
		run(db, "INSERT INTO t VALUES (randomblob(1500))");
	run(db, "PRAGMA wal_checkpoint(RESTART); DELETE FROM t WHERE rowid = 1");
	s->ends[0] = log_end(s);
	for (int i = 1; i <= N_NEW; i++) {
		s->before = i == N_NEW ? log_read(s, &s->n_before) : NULL;
		snprintf(sql, sizeof(sql), "INSERT INTO t VALUES (randomblob(%d))",
		    i == N_NEW ? 9000 : 100 + i % 3 * 900);
		run(db, sql);
		s->ends[i] = log_end(s);
	}
	s->p = log_read(s, &s->n);
	s->n_frame = 1024 + 24;
	sqlite3_close(db);
	assert_true(s->ends[N_NEW] < s->n_before && s->n == s->n_before);
	assert_true(s->ends[N_NEW] - s->ends[N_NEW - 1] >= 8 * s->n_frame);
}

static void scene_close(struct scene *s) {
	free(s->p);
	free(s->before);
	close(s->fd);
	dir_remove(s->dir);
}

/* Which transaction a byte is of: the one that ends behind it. */
static int transaction_of(const struct scene *s, size_t at) {
	int i = 0;
	while (i < N_NEW && s->ends[i] <= at)
		i++;
	return i;
}

static bool is_end(const struct scene *s, size_t at) {
	return at == s->ends[transaction_of(s, at - 1)];
}

static void what_sqlite_wrote_is_whole(void **state) {
	struct scene s;
	uint64_t end;
	scene_open(&s);
	assert_int_equal(look(&s, &end), 0);
	assert_int_equal(end, s.ends[N_NEW]);
	set_log(&s, s.p, 0);
	assert_int_equal(look(&s, &end), 0);
	assert_int_equal(end, 0);
	scene_close(&s);
}

static void a_log_cut_anywhere_is_torn_there(void **state) {
	struct scene s;
	uint64_t end, last = UINT64_MAX;
	scene_open(&s);
	set_log(&s, s.p, s.ends[N_NEW]);
	for (size_t n = s.ends[N_NEW] - 1; n > 0; n -= n > s.ends[N_NEW - 4] || n < 100 ? 1 : 53) {
		assert_int_equal(ftruncate(s.fd, (off_t)n), 0);
		int r = look(&s, &end);
		bool is_whole = n == HEADER || (n > HEADER && is_end(&s, n));
		if (r != (is_whole ? 0 : WAL_E_TORN))
			fail_msg("cut to %zu bytes it is %d", n, r);
		assert_true(end <= n && end <= last && (end <= HEADER || is_end(&s, end)));
		last = end;
	}
	scene_close(&s);
}

/* Flipped to 0 the size in a frame's header is no end of a transaction any more. */
static bool unmakes_end(const struct scene *s, size_t at, unsigned char flipped) {
	size_t in_frame = (at - HEADER) % s->n_frame;
	const unsigned char *size = s->p + at - in_frame + 4;
	if (in_frame < 4 || in_frame > 7 || flipped)
		return false;
	for (size_t i = 0; i < 4; i++)
		if (size + i != s->p + at && size[i])
			return false;
	return true;
}

static void flip_and_look(struct scene *s, size_t at, unsigned bit) {
	unsigned char byte = s->p[at] ^ (unsigned char)(1u << bit);
	uint64_t end;
	assert_int_equal(pwrite(s->fd, &byte, 1, (off_t)at), 1);
	int r = look(s, &end), of = transaction_of(s, at);
	if (of == N_NEW || (of == N_NEW - 1 && unmakes_end(s, at, byte)))
		assert_true(r == WAL_E_DAMAGED || (r == WAL_E_TORN && end == s->ends[of - 1]));
	else if (r != WAL_E_DAMAGED)
		fail_msg("bit %u of byte %zu, in transaction %d, is flipped: it is %d", bit, at, of, r);
	assert_int_equal(pwrite(s->fd, s->p + at, 1, (off_t)at), 1);
}

/* Every bit of the headers, a bit of every seventh byte of the pages. */
static void no_flipped_bit_goes_unseen(void **state) {
	struct scene s;
	struct rng rng;
	rng_init(&rng, 1);
	scene_open(&s);
	set_log(&s, s.p, s.n);
	for (size_t at = 0; at < s.ends[N_NEW]; at++) {
		bool is_header = at < HEADER || (at - HEADER) % s.n_frame < 24;
		for (unsigned bit = 0; is_header && bit < 8; bit++)
			flip_and_look(&s, at, bit);
		if (!is_header && at % 7 == 0)
			flip_and_look(&s, at, (unsigned)rng_below(&rng, 8));
	}
	scene_close(&s);
}

/* A sector that is lost is found, too, where two transactions and more stand behind it. */
static void no_lost_sector_goes_unseen(void **state) {
	static const unsigned char zeros[SECTOR];
	struct scene s;
	uint64_t end;
	scene_open(&s);
	for (size_t at = 0; at + SECTOR < s.ends[N_NEW - 3]; at += SECTOR) {
		if (memcmp(s.p + at, zeros, SECTOR) == 0)
			continue; /* a page is empty there */
		set_log(&s, s.p, s.n);
		assert_int_equal(pwrite(s.fd, zeros, SECTOR, (off_t)at), SECTOR);
		assert_int_equal(look(&s, &end), WAL_E_DAMAGED);
	}
	scene_close(&s);
}

/* Any sectors of the last transaction may be missing, and those of the older log be there instead. */
static void what_a_power_cut_leaves_is_no_damage(void **state) {
	struct scene s;
	struct rng rng;
	uint64_t end;
	unsigned n_torn = 0, n_whole = 0;
	rng_init(&rng, 2);
	scene_open(&s);
	unsigned char *left = malloc(s.n);
	for (unsigned i = 0; i < 3000; i++) {
		uint64_t share = rng_below(&rng, 11); /* tenths that are there */
		memcpy(left, s.before, s.n);
		for (size_t at = 0; at < s.n; at += SECTOR)
			if (rng_below(&rng, 10) < share)
				memcpy(left + at, s.p + at, size_min(SECTOR, s.n - at));
		set_log(&s, left, s.n);
		int r = look(&s, &end);
		assert_int_not_equal(r, WAL_E_DAMAGED);
		assert_int_equal(end, s.ends[r ? N_NEW - 1 : transaction_of(&s, end - 1)]);
		n_torn += r == WAL_E_TORN;
		n_whole += end == s.ends[N_NEW];
	}
	assert_true(n_torn > 1000 && n_whole > 100);
	free(left);
	scene_close(&s);
}

static void other_files_are_damaged(void **state) {
	unsigned char zeros[4096] = { 0 };
	struct scene s = { .fd = memfd_create("log", MFD_CLOEXEC) };
	uint64_t end;
	set_log(&s, zeros, sizeof(zeros));
	assert_int_equal(look(&s, &end), WAL_E_DAMAGED);
	set_log(&s, zeros, HEADER); /* a header that was not safe yet, with nothing behind it */
	assert_int_equal(look(&s, &end), WAL_E_TORN);
	assert_int_equal(end, 0);
	close(s.fd);
	assert_int_equal(wal_look(-1, &end), -EBADF);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_sqlite_wrote_is_whole),
		cmocka_unit_test(a_log_cut_anywhere_is_torn_there),
		cmocka_unit_test(no_flipped_bit_goes_unseen),
		cmocka_unit_test(no_lost_sector_goes_unseen),
		cmocka_unit_test(what_a_power_cut_leaves_is_no_damage),
		cmocka_unit_test(other_files_are_damaged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
