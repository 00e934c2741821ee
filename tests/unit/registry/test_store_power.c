/*
 * Power cuts: whatever the disk kept of what was not synced, all that was acknowledged is
 * there afterwards, and the group under way is there as a whole or not at all.
 */
#include "unit/registry/disk.h"
#include "unit/registry/shelf.h"

#include "registry/wal.h"

#ifdef __SANITIZE_THREAD__
#define N_GROUPS 120 /* it is slow there */
#else
#define N_GROUPS 300
#endif
#define N_NAMES   32
#define GROUP_MAX 6

struct expected {
	long id[N_NAMES]; /* -1: not there */
};

static bool each_noted(void *context, struct slice name, struct slice json) {
	struct expected *x = context;
	char text[32];
	snprintf(text, sizeof(text), "%.*s", (int)name.n - 1, name.p + 1);
	long *id = &x->id[strtoul(text, NULL, 10) % N_NAMES];
	snprintf(text, sizeof(text), "%.*s", 16, json.p);
	*id = strtol(text, NULL, 10);
	return true;
}

static void read_snapshot(const char *dir, struct expected *x_out) {
	struct store_fault fault = { "" };
	disk.is_on = false;
	memset(x_out, -1, sizeof(*x_out));
	struct store *s = store_open(dir, &fault);
	if (!s || !store_load(s, each_noted, x_out, &fault))
		fail_msg("after a power cut: %s", fault.text);
	store_free(&s);
	disk.is_on = true;
}

static void expect_id(struct expected *x, long id) {
	x->id[id % N_NAMES] = id % 9 == 0 ? -1 : id;
}

/* Some writes in one go, of large and small texts; waits for all. Those that were done are noted in *x.
 * Returns how many of the last ones failed. */
static unsigned one_group(struct shelf *s, struct rng *rng, long *next, struct expected *x) {
	struct write w[GROUP_MAX];
	unsigned n = 1 + (unsigned)rng_below(rng, GROUP_MAX), n_failed = 0;
	static char text[40000];
	for (unsigned i = 0; i < n; i++) {
		char name[16];
		long id = (*next)++;
		snprintf(name, sizeof(name), "n%ld", id % N_NAMES);
		size_t n_text = 20 + rng_below(rng, rng_below(rng, 4) ? 300 : sizeof(text) - 20);
		memset(text, 'x', n_text);
		snprintf(text, 20, "%-19ld", id);
		text[19] = ' ';
		text[n_text] = '\0';
		write_init(&w[i], name, id % 9 == 0 ? NULL : text);
	}
	n_ended = 0;
	for (unsigned i = 0; i < n; i++)
		assert_true(store_submit(s->store, &w[i].op));
	rig_until(&s->rig, n_ended == n);
	for (unsigned i = 0; i < n; i++) {
		n_failed = w[i].outcome == STORE_DONE ? 0 : n_failed + 1;
		if (w[i].outcome == STORE_DONE)
			expect_id(x, *next - n + i);
		write_free(&w[i]);
	}
	return n_failed;
}

/* The thread may have committed a group in several steps, in the order of submission: any prefix is right. */
static bool is_between(const struct expected *found, const struct expected *before, long first, long end) {
	struct expected x = *before;
	for (long id = first; id <= end; id++) {
		if (memcmp(found, &x, sizeof(x)) == 0)
			return true;
		expect_id(&x, id);
	}
	return false;
}

/* Of what failed any run is right: each transaction overwrites the one before. */
static bool is_acked_or_failed(
    const struct expected *found, const struct expected *acked, long first, long end) {
	for (; first <= end; first++)
		if (is_between(found, acked, first, end))
			return true;
	return false;
}

/* The log goes into the file often, so that power is cut in the middle of that, too. */
static int on_connection(sqlite3 *db, const char **error_out, const void *api) {
	return sqlite3_wal_autocheckpoint(db, 60);
}

/* Two folders: one that is watched, with a store in it, and one for what is left of it. */
static void cut_open(struct shelf *s, struct shelf *cut) {
	shelf_dir(s, quick_base());
	shelf_dir(cut, quick_base());
	shelf_open(s, false, NULL, NULL); /* made before it is watched */
	shelf_close(s);
	disk_begin(s->dir);
	shelf_open(s, false, NULL, NULL);
}

static void cut_close(struct shelf *s, struct shelf *cut) {
	shelf_close(s);
	disk_end();
	dir_remove(s->dir);
	dir_remove(cut->dir);
}

static void a_power_cut_loses_nothing_that_was_acknowledged(void **state) {
	struct shelf s, cut;
	struct expected acked, before, found;
	struct rng rng;
	long next = 1;
	unsigned n_cuts = 0, n_newer = 0;
	rng_init(&rng, 21);
	memset(&acked, -1, sizeof(acked));
	cut_open(&s, &cut);
	for (int i = 0; i < N_GROUPS; i++) {
		long first = next;
		before = acked;
		disk.is_snapped = false;
		disk.snap_to = cut.dir;
		disk.snap_at = disk.n_events + 1 + (unsigned)rng_below(&rng, i % 2 ? 12 : 120);
		assert_int_equal(one_group(&s, &rng, &next, &acked), 0);
		disk.snap_at = 0;
		bool was_inside = disk.is_snapped;
		if (!was_inside) /* after it: then all of it is acknowledged */
			disk_snapshot(cut.dir);
		read_snapshot(cut.dir, &found);
		if (!is_between(&found, was_inside ? &before : &acked, was_inside ? first : next, next))
			fail_msg(
			    "group %d: a power cut %s it lost something", i, was_inside ? "in" : "after");
		n_cuts += was_inside;
		n_newer += was_inside && memcmp(&found, &before, sizeof(found)) != 0;
	}
	assert_true(n_cuts > N_GROUPS / 4 && n_cuts < N_GROUPS);
	assert_true(n_newer > 0 && n_newer < n_cuts);
	assert_true(disk.n_syncs >= N_GROUPS);
	cut_close(&s, &cut);
}

/* What fails is answered so, may be there or not, and is gone when something later was acknowledged. */
static void failures(unsigned *fail_in, unsigned among) {
	struct shelf s, cut;
	struct expected acked, found;
	struct rng rng;
	struct store_counts counts;
	long next = 1;
	unsigned n_failed = 0; /* since the last one that was acknowledged */
	rng_init(&rng, 31);
	memset(&acked, -1, sizeof(acked));
	cut_open(&s, &cut);
	for (int i = 0; i < N_GROUPS; i++) {
		*fail_in = rng_below(&rng, 3) ? 0 : 1 + (unsigned)rng_below(&rng, among);
		long first = next;
		unsigned n = one_group(&s, &rng, &next, &acked);
		n_failed = n == next - first ? n_failed + n : n;
		disk_snapshot(cut.dir);
		read_snapshot(cut.dir, &found);
		if (!is_acked_or_failed(&found, &acked, next - n_failed, next))
			fail_msg("group %d: the power cut lost something, or brought something back", i);
	}
	store_counts(s.store, &counts);
	assert_true(counts.n_failed > N_GROUPS / 8 && counts.n_done > N_GROUPS);
	*fail_in = 0;
	cut_close(&s, &cut);
}

static void a_sync_that_fails_is_no_acknowledgement(void **state) {
	failures(&disk.fail_in, 4);
}

static void a_write_that_fails_is_no_acknowledgement(void **state) {
	failures(&disk.fail_write_in, 12);
}

/* The frames of two transactions that failed, the second one shorter, must not stand behind a third. */
static void what_failed_is_no_damage_of_the_log(void **state) {
	static const size_t sizes[] = { 40000, 12000 };
	struct shelf s, cut;
	char text[40001], path[PATH_MAX];
	uint64_t end;
	cut_open(&s, &cut);
	for (size_t i = 0; i < n_elems(sizes); i++) {
		memset(text, 'x', sizes[i]);
		text[sizes[i]] = '\0';
		disk.fail_in = 1;
		assert_int_equal(shelf_write(&s, "a", text), STORE_FAILED);
		assert_int_equal(disk.fail_in, 0);
	}
	assert_int_equal(shelf_write(&s, "a", "1"), STORE_DONE);
	snprintf(path, sizeof(path), "%s/registry.db-wal", s.dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(wal_look(fd, &end), 0);
	close(fd);
	cut_close(&s, &cut);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_power_cut_loses_nothing_that_was_acknowledged),
		cmocka_unit_test(a_sync_that_fails_is_no_acknowledgement),
		cmocka_unit_test(a_write_that_fails_is_no_acknowledgement),
		cmocka_unit_test(what_failed_is_no_damage_of_the_log),
	};
	disk_install(22);
	sqlite3_auto_extension((void (*)(void))on_connection);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
