#include "unit/registry/shelf.h"

#define BOTH(test)                                                                                           \
	static void test##_in_memory(void **state) {                                                         \
		struct shelf s = { .dir = "" };                                                              \
		shelf_open(&s, true, NULL, NULL);                                                            \
		test(&s);                                                                                    \
	}                                                                                                    \
	static void test##_on_disk(void **state) {                                                           \
		struct shelf s;                                                                              \
		shelf_dir(&s, quick_base());                                                                 \
		shelf_open(&s, false, NULL, NULL);                                                           \
		test(&s);                                                                                    \
		dir_remove(s.dir);                                                                           \
	}

static void nothing_is_done_inside_submit(struct shelf *s) {
	struct write w;
	write_init(&w, "a", "{}");
	assert_true(store_submit(s->store, &w.op));
	assert_true(w.is_prepared);
	assert_int_equal(w.outcome, -1);
	rig_until(&s->rig, w.outcome >= 0);
	assert_int_equal(w.outcome, STORE_DONE);
	assert_null(w.op.json);
	shelf_close(s);
	write_free(&w);
}
BOTH(nothing_is_done_inside_submit)

static void done_comes_in_order(struct shelf *s) {
	enum { N = 3000 };
	struct write *w = calloc(N, sizeof(*w));
	struct store_counts counts;
	char name[16];
	n_ended = 0;
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		write_init(&w[i], name, i % 5 ? "{\"x\":1}" : NULL);
		assert_true(store_submit(s->store, &w[i].op));
	}
	store_counts(s->store, &counts);
	assert_true(counts.n_waiting > 0);
	rig_until(&s->rig, n_ended == N);
	for (int i = 0; i < N; i++) {
		assert_int_equal(w[i].outcome, STORE_DONE);
		assert_int_equal(w[i].order, i + 1);
		write_free(&w[i]);
	}
	store_counts(s->store, &counts);
	assert_int_equal(counts.n_done, N);
	assert_int_equal(counts.n_failed, 0);
	assert_int_equal(counts.n_waiting, 0);
	assert_false(counts.is_failing);
	if (s->dir[0]) /* groups, not one commit a write */
		assert_in_range(counts.n_commits, 1, N / 4);
	shelf_close(s);
	free(w);
}
BOTH(done_comes_in_order)

/* a1, a2 (cancelled), a3 share a name: each is prepared when the one before is done. */
static void writes_of_one_name_follow_each_other(struct shelf *s) {
	struct write a1, a2, a3, b;
	n_ended = 0;
	write_init(&a1, "a", "{}");
	write_init(&a2, "a", "{}");
	write_init(&a3, "a", NULL);
	write_init(&b, "b", "{}");
	a2.is_cancelled = true;
	assert_true(store_submit(s->store, &a1.op));
	assert_true(store_submit(s->store, &a2.op));
	assert_true(store_submit(s->store, &a3.op));
	assert_true(store_submit(s->store, &b.op));
	assert_true(a1.is_prepared && b.is_prepared && !a2.is_prepared && !a3.is_prepared);
	while (a1.outcome < 0) {
		assert_false(a2.is_prepared || a3.is_prepared);
		rig_turn(&s->rig, "a1");
	}
	rig_until(&s->rig, a3.outcome >= 0 && b.outcome >= 0);
	assert_true(a2.is_prepared);
	assert_int_equal(a2.outcome, -1);
	assert_true(a1.order < a3.order);
	shelf_close(s);
	write_free(&a1);
	write_free(&a2);
	write_free(&b);
}
BOTH(writes_of_one_name_follow_each_other)

static void a_cancelled_write_leaves_no_trace(struct shelf *s) {
	struct store_counts counts;
	struct write w;
	for (int i = 0; i < 3; i++) {
		write_init(&w, "a", "{}");
		w.is_cancelled = true;
		assert_true(store_submit(s->store, &w.op));
		assert_true(w.is_prepared);
		write_free(&w);
	}
	store_counts(s->store, &counts);
	assert_int_equal(counts.n_waiting, 0);
	shelf_close(s);
}
BOTH(a_cancelled_write_leaves_no_trace)

static void closing_waits_for_all_and_for_what_they_lead_to(struct shelf *s) {
	struct write first, same, other, late;
	write_init(&first, "a", "{}");
	write_init(&same, "a", "{}");
	write_init(&other, "b", "{}");
	write_init(&late, "c", "{}");
	first.then = &same;
	same.then = &other;
	first.shelf = same.shelf = s;
	assert_true(store_submit(s->store, &first.op));
	store_close(s->store);
	assert_int_equal(first.outcome, STORE_DONE);
	assert_int_equal(same.outcome, STORE_DONE);
	assert_int_equal(other.outcome, STORE_DONE);
	assert_false(store_submit(s->store, &late.op));
	rig_spin(&s->rig, 3); /* mail that is under way is harmless */
	shelf_close(s);
	write_free(&first);
	write_free(&same);
	write_free(&other);
	write_free(&late);
}
BOTH(closing_waits_for_all_and_for_what_they_lead_to)

static void too_much_is_refused(struct shelf *s) {
	struct write *w = calloc(STORE_OPS_MAX + 1, sizeof(*w));
	n_ended = 0;
	for (unsigned i = 0; i <= STORE_OPS_MAX; i++) {
		write_init(&w[i], "same", NULL); /* one lane: they cannot be quicker than we are */
		assert_int_equal(store_submit(s->store, &w[i].op), i < STORE_OPS_MAX);
	}
	assert_false(w[STORE_OPS_MAX].is_prepared);
	store_close(s->store);
	assert_int_equal(n_ended, STORE_OPS_MAX);
	shelf_close(s);
	free(w);
}

static void too_many_are_refused(void **state) {
	struct shelf s = { .dir = "" };
	shelf_open(&s, true, NULL, NULL);
	too_much_is_refused(&s);
}

static void too_many_bytes_are_refused(void **state) {
	struct shelf s = { .dir = "" };
	struct write w[80];
	char *text = malloc((1 << 20) + 1);
	memset(text, 'x', 1 << 20);
	text[1 << 20] = '\0';
	shelf_open(&s, true, NULL, NULL);
	n_ended = 0;
	for (unsigned i = 0; i < n_elems(w); i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%u", i);
		write_init(&w[i], name, text);
		assert_int_equal(store_submit(s.store, &w[i].op), i < STORE_BYTES_MAX >> 20);
	}
	rig_until(&s.rig, n_ended == STORE_BYTES_MAX >> 20);
	assert_int_equal(shelf_write(&s, "again", "{}"), STORE_DONE);
	shelf_close(&s);
	for (unsigned i = 0; i < n_elems(w); i++)
		write_free(&w[i]);
	free(text);
}

/* Also what waits in the lane of one name, before it is printed. */
static void too_many_held_bytes_are_refused(void **state) {
	struct shelf s = { .dir = "" };
	struct write w[80];
	shelf_open(&s, true, NULL, NULL);
	n_ended = 0;
	for (unsigned i = 0; i < n_elems(w); i++) {
		write_init(&w[i], "n", "{}");
		w[i].op.n_held = 1 << 20;
		assert_int_equal(store_submit(s.store, &w[i].op), i < STORE_BYTES_MAX >> 20);
	}
	rig_until(&s.rig, n_ended == STORE_BYTES_MAX >> 20);
	assert_int_equal(shelf_write(&s, "again", "{}"), STORE_DONE);
	shelf_close(&s);
	for (unsigned i = 0; i < n_elems(w); i++)
		write_free(&w[i]);
}

static void every_store_in_memory_is_another_epoch(void **state) {
	struct store_fault fault;
	struct store *a = store_open(NULL, &fault), *b = store_open(NULL, &fault);
	assert_int_equal(strlen(store_epoch(a)), 16);
	assert_string_not_equal(store_epoch(a), store_epoch(b));
	store_free(&a);
	store_free(&b);
	store_free(&b);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_done_inside_submit_in_memory),
		cmocka_unit_test(nothing_is_done_inside_submit_on_disk),
		cmocka_unit_test(done_comes_in_order_in_memory),
		cmocka_unit_test(done_comes_in_order_on_disk),
		cmocka_unit_test(writes_of_one_name_follow_each_other_in_memory),
		cmocka_unit_test(writes_of_one_name_follow_each_other_on_disk),
		cmocka_unit_test(a_cancelled_write_leaves_no_trace_in_memory),
		cmocka_unit_test(a_cancelled_write_leaves_no_trace_on_disk),
		cmocka_unit_test(closing_waits_for_all_and_for_what_they_lead_to_in_memory),
		cmocka_unit_test(closing_waits_for_all_and_for_what_they_lead_to_on_disk),
		cmocka_unit_test(too_many_are_refused),
		cmocka_unit_test(too_many_bytes_are_refused),
		cmocka_unit_test(too_many_held_bytes_are_refused),
		cmocka_unit_test(every_store_in_memory_is_another_epoch),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
