#include "unit/registry/fleetlet.h"

#include "base/heap.h"

#define START_MS 5000u
#define WALL_MS  UINT64_C(1700000000000)

static uint64_t now_ms;

static struct roster *fleet(void) {
	now_ms = START_MS;
	return roster_new(
	    &(struct roster_options){ .epoch = "00112233445566ff", .version = 1000, .seed = 7 }, now_ms);
}

static void put(struct roster *r, const char *name, const char *status, unsigned ttl_s) {
	const struct roster_entry *e = roster_put(r, record_of(name, status, ttl_s, 80), now_ms);
	assert_ptr_equal(e, roster_find(r, slice_of(name)));
}

static bool beat(struct roster *r, const char *name) {
	return roster_heartbeat(r, slice_of(name), WALL_MS, now_ms) != NULL;
}

static void note_swept(void *context, struct slice name) {
	char *all = context;
	size_t n = strlen(all);
	assert_true(n + name.n + 2 < 4096);
	memcpy(all + n, name.p, name.n);
	memcpy(all + n + name.n, " ", 2);
}

/* --- leases ---------------------------------------------------------------------------------- */

static void a_lease_ends_to_the_millisecond(void **state) {
	struct roster *r = fleet();
	put(r, "a", "running", 0);
	put(r, "b", "running", 30);
	assert_true(is_alive(r, "a") && is_alive(r, "b"));
	let_pass(r, &now_ms, 29999);
	assert_true(is_alive(r, "b"));
	let_pass(r, &now_ms, 1);
	assert_false(is_alive(r, "b"));
	let_pass(r, &now_ms, 89999);
	assert_true(is_alive(r, "a"));
	assert_int_equal(counts_of(r).n_alive, 1);
	let_pass(r, &now_ms, 1);
	assert_false(is_alive(r, "a"));
	assert_int_equal(counts_of(r).n_alive, 0);
	assert_int_equal(counts_of(r).n_expired, 2);
	assert_int_equal(roster_version(r), 1004);
	roster_free(&r);
	assert_null(r);
}

static void heartbeats_keep_and_revive(void **state) {
	struct roster *r = fleet();
	put(r, "a", "running", 10);
	for (int i = 0; i < 50; i++) {
		let_pass(r, &now_ms, 9999);
		assert_true(beat(r, "a"));
	}
	assert_true(is_alive(r, "a"));
	assert_int_equal(roster_version(r), 1001); /* the put alone */
	let_pass(r, &now_ms, 10000);
	assert_false(is_alive(r, "a"));
	assert_true(roster_heartbeat(r, SLICE("a"), WALL_MS + 9999, now_ms)->is_alive);
	assert_int_equal(roster_find(r, SLICE("a"))->record->heartbeat_s, WALL_MS / 1000 + 9);
	assert_int_equal(counts_of(r).n_revived, 1);
	assert_int_equal(roster_version(r), 1003);
	assert_false(beat(r, "b"));
	let_pass(r, &now_ms, 10000);
	assert_false(is_alive(r, "a"));
	roster_free(&r);
}

static void what_a_probe_found_stays_with_the_address(void **state) {
	struct roster *r = fleet();
	put(r, "a", "running", 0);
	roster_set_health(r, SLICE("a"), HEALTH_UNHEALTHY, now_ms);
	put(r, "a", "draining", 0);
	assert_int_equal(roster_find(r, SLICE("a"))->record->health, HEALTH_UNHEALTHY);
	roster_put(r, record_of("a", "running", 0, 83), now_ms); /* another port, the same host */
	assert_int_equal(roster_find(r, SLICE("a"))->record->health, HEALTH_UNKNOWN);
	roster_free(&r);
}

static void only_running_is_alive(void **state) {
	struct roster *r = fleet();
	put(r, "a", "draining", 0);
	assert_false(is_alive(r, "a"));
	beat(r, "a");
	assert_false(is_alive(r, "a"));
	put(r, "a", "running", 0);
	assert_true(is_alive(r, "a"));
	put(r, "a", "Running", 0);
	assert_false(is_alive(r, "a"));
	let_pass(r, &now_ms, 200000);
	put(r, "a", "running", 0);
	assert_true(is_alive(r, "a"));
	assert_int_equal(counts_of(r).n_expired, 0);
	roster_free(&r);
}

static void a_shorter_ttl_counts_at_once(void **state) {
	struct roster *r = fleet();
	put(r, "a", "running", 86400);
	put(r, "a", "running", 1);
	let_pass(r, &now_ms, 999);
	assert_true(is_alive(r, "a"));
	let_pass(r, &now_ms, 1);
	assert_false(is_alive(r, "a"));
	roster_free(&r);
}

static void who_brings_no_ttl_has_the_registrys(void **state) {
	now_ms = START_MS;
	struct roster *r = roster_new(&(struct roster_options){ .epoch = "", .ttl_ms = 5000 }, now_ms);
	put(r, "a", "running", 0);
	put(r, "b", "running", 6);
	let_pass(r, &now_ms, 4999);
	assert_true(is_alive(r, "a"));
	let_pass(r, &now_ms, 1);
	assert_false(is_alive(r, "a"));
	assert_true(is_alive(r, "b"));
	roster_free(&r);
}

static void the_silent_are_swept(void **state) {
	char swept[4096] = "";
	struct roster *r = fleet();
	put(r, "short", "running", 1);
	put(r, "usual", "running", 0);
	put(r, "long", "running", 200);
	put(r, "still", "stopped", 0);
	put(r, "beats", "stopped", 0);
	let_pass(r, &now_ms, 300000);
	assert_int_equal(sweep(r, now_ms, note_swept, swept), 0);
	beat(r, "beats");
	let_pass(r, &now_ms, 1);
	uint64_t version = roster_version(r);
	assert_int_equal(sweep(r, now_ms, note_swept, swept), 3);
	assert_string_equal(swept, "short usual still ");
	assert_int_equal(roster_version(r), version + 3);
	let_pass(r, &now_ms, 199999);
	swept[0] = '\0';
	assert_int_equal(sweep(r, now_ms, note_swept, swept), 0);
	let_pass(r, &now_ms, 1);
	assert_int_equal(sweep(r, now_ms, note_swept, swept), 1);
	assert_string_equal(swept, "long ");
	assert_int_equal(counts_of(r).n_records, 1);
	assert_int_equal(counts_of(r).n_swept, 4);
	roster_free(&r);
}

static void a_restart_gives_full_leases_and_spreads_their_ends(void **state) {
	enum { N = 1000 };
	char name[16];
	unsigned n_dead_before = 0, n_steps = 0;
	struct roster *r = fleet();
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		roster_restore(r, record_of(name, i % 10 ? "running" : "stopped", 0, 80), now_ms);
	}
	assert_int_equal(roster_version(r), 1000);
	assert_int_equal(counts_of(r).n_alive, N * 9 / 10);
	let_pass(r, &now_ms, 119999);
	assert_int_equal(counts_of(r).n_alive, N * 9 / 10);
	for (int s = 0; s < 60; s++) { /* no second takes more than a twentieth of them */
		let_pass(r, &now_ms, 1000);
		unsigned n_dead = (unsigned)counts_of(r).n_expired;
		assert_true(n_dead - n_dead_before < N / 20);
		n_steps += n_dead > n_dead_before;
		n_dead_before = n_dead;
	}
	let_pass(r, &now_ms, 1);
	assert_int_equal(counts_of(r).n_alive, 0);
	assert_true(n_steps > 50);
	roster_free(&r);
}

static void a_heartbeat_ends_the_spread(void **state) {
	struct roster *r = fleet();
	char name[16];
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		roster_restore(r, record_of(name, "running", 0, 80), now_ms);
	}
	let_pass(r, &now_ms, 1000);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		beat(r, name);
	}
	let_pass(r, &now_ms, 119999);
	assert_int_equal(counts_of(r).n_alive, 100);
	let_pass(r, &now_ms, 1);
	assert_int_equal(counts_of(r).n_alive, 0);
	roster_free(&r);
}

/* --- the process stood still ----------------------------------------------------------------------- */

static void after_a_standstill_leases_start_afresh(void **state) {
	char swept[4096] = "";
	struct roster *r = fleet();
	put(r, "usual", "running", 0);
	put(r, "short", "running", 10);
	put(r, "dead", "running", 1);
	put(r, "long", "running", 86400);
	let_pass(r, &now_ms, 9000);
	assert_false(is_alive(r, "dead"));
	uint64_t version = roster_version(r);
	now_ms += 100000000; /* longer than everything */
	roster_advance(r, now_ms);
	assert_int_equal(sweep(r, now_ms, note_swept, swept), 0);
	assert_int_equal(roster_version(r), version);
	assert_true(is_alive(r, "usual") && is_alive(r, "short") && is_alive(r, "long"));
	assert_false(is_alive(r, "dead"));
	let_pass(r, &now_ms, 9999);
	assert_true(is_alive(r, "short"));
	let_pass(r, &now_ms, 1);
	assert_false(is_alive(r, "short"));
	let_pass(r, &now_ms, 109999);
	assert_true(is_alive(r, "usual"));
	let_pass(r, &now_ms, 1);
	assert_false(is_alive(r, "usual"));
	let_pass(r, &now_ms,
	    300000 - 9000 - 120000 + 1000 + 1); /* "dead" was silent for 8 s and its ttl when it began */
	sweep(r, now_ms, note_swept, swept);
	assert_string_equal(swept, "dead ");
	roster_free(&r);
}

static void a_short_stop_is_long_for_short_leases_only(void **state) {
	struct roster *r = fleet();
	put(r, "four", "running", 4);
	put(r, "five", "running", 5);
	let_pass(r, &now_ms, 3000);
	now_ms += 2400; /* more than half of 4 s, less than half of 5 s */
	roster_advance(r, now_ms);
	assert_true(is_alive(r, "four"));
	assert_false(is_alive(r, "five"));
	assert_int_equal(counts_of(r).n_graces, 1);
	roster_free(&r);
}

static void a_heartbeat_after_the_stop_finds_the_lease(void **state) {
	struct roster *r = fleet();
	put(r, "a", "running", 0);
	now_ms += 3600000;
	assert_true(beat(r, "a")); /* before any tick */
	assert_true(is_alive(r, "a"));
	assert_int_equal(roster_version(r), 1001);
	roster_free(&r);
}

static void time_that_does_not_move_or_goes_back_is_harmless(void **state) {
	struct roster *r = fleet();
	put(r, "a", "running", 1);
	roster_advance(r, 0);
	roster_advance(r, now_ms);
	roster_heartbeat(r, SLICE("a"), 0, 17);
	assert_true(is_alive(r, "a"));
	let_pass(r, &now_ms, 999);
	assert_true(is_alive(r, "a"));
	let_pass(r, &now_ms, 1);
	assert_false(is_alive(r, "a"));
	roster_free(&r);
}

/* --- versions ------------------------------------------------------------------------------------------- */

static void expect_change(const struct roster *r, uint64_t *version, const char *name, bool is_delete) {
	struct roster_change c;
	if (!roster_next_change(r, version, &c))
		fail_msg("no news of %s", name);
	assert_true(slice_eq(c.name, slice_of(name)));
	assert_int_equal(c.is_delete, is_delete);
	assert_int_equal(c.version, *version);
	assert_ptr_equal(c.entry, is_delete ? NULL : roster_find(r, slice_of(name)));
}

static void expect_no_change(const struct roster *r, uint64_t *version) {
	struct roster_change c;
	assert_false(roster_next_change(r, version, &c));
	assert_int_equal(*version, roster_version(r));
}

static void watchers_hear_of_all_that_changed_once(void **state) {
	struct roster *r = fleet();
	uint64_t v = roster_version(r), early = v;
	assert_string_equal(roster_epoch(r), "00112233445566ff");
	expect_no_change(r, &v);
	put(r, "a", "running", 10);
	put(r, "b", "running", 0);
	put(r, "a", "running", 10); /* the same again */
	assert_int_equal(roster_version(r), 1002);
	expect_change(r, &v, "a", false);
	expect_change(r, &v, "b", false);
	expect_no_change(r, &v);

	roster_set_health(r, SLICE("b"), HEALTH_HEALTHY, now_ms);
	roster_set_health(r, SLICE("b"), HEALTH_HEALTHY, now_ms);
	roster_set_health(r, SLICE("nobody"), HEALTH_HEALTHY, now_ms);
	expect_change(r, &v, "b", false);
	expect_no_change(r, &v);

	let_pass(r, &now_ms, 10000);
	expect_change(r, &v, "a", false);
	assert_true(roster_delete(r, SLICE("a"), now_ms));
	assert_false(roster_delete(r, SLICE("a"), now_ms));
	expect_change(r, &v, "a", true);
	expect_no_change(r, &v);

	expect_change(r, &early, "b", false); /* its newest state; what came before it is left out */
	expect_change(r, &early, "a", true);
	expect_no_change(r, &early);

	put(r, "a", "running", 10);
	early = 1000;
	expect_change(r, &early, "b", false);
	expect_change(r, &early, "a", false);
	expect_no_change(r, &early);
	roster_free(&r);
}

static void the_ring_forgets(void **state) {
	struct roster *r = fleet();
	put(r, "a", "running", 0);
	assert_true(roster_remembers(r, 1000) && roster_remembers(r, 1001));
	assert_false(roster_remembers(r, 999) || roster_remembers(r, 1002) || roster_remembers(r, 0) ||
	    roster_remembers(r, UINT64_MAX));
	for (uint64_t v = 1002; v <= 1000 + ROSTER_RING; v++)
		roster_set_health(r, SLICE("a"), v % 2 ? HEALTH_HEALTHY : HEALTH_UNHEALTHY, now_ms);
	assert_int_equal(roster_version(r), 1000 + ROSTER_RING);
	assert_true(roster_remembers(r, 1000));
	uint64_t v = 1000;
	expect_change(r, &v, "a", false);
	assert_int_equal(v, 1000 + ROSTER_RING);
	roster_delete(r, SLICE("a"), now_ms);
	assert_false(roster_remembers(r, 1000));
	assert_true(roster_remembers(r, 1001));
	v = 1001;
	expect_change(r, &v, "a", true);
	roster_free(&r);
}

/* --- lists and counts
 * --------------------------------------------------------------------------------------- */

static void expect_list(
    const struct roster *r, struct slice status, struct slice healthy, const char *names) {
	char all[256] = "";
	struct roster_filter f = roster_filter_of(status, healthy);
	for (const struct roster_entry *e = NULL; (e = roster_next(r, e, &f));) {
		size_t n = strlen(all);
		snprintf(all + n, sizeof(all) - n, "%s ", e->record->name);
	}
	assert_string_equal(all, names);
}

static void filters_are_the_documented_ones(void **state) {
	const struct slice none = { NULL, 0 };
	struct roster *r = fleet();
	put(r, "old", "running", 1);
	put(r, "new", "running", 0);
	put(r, "gone", "running", 0);
	put(r, "off", "stopped", 0);
	let_pass(r, &now_ms, 1000);
	roster_delete(r, SLICE("gone"), now_ms);
	put(r, "old", "running", 2); /* keeps its place */
	expect_list(r, none, none, "old new off ");
	let_pass(r, &now_ms, 2000);
	expect_list(r, none, SLICE("true"), "new ");
	expect_list(r, none, SLICE("TrUe"), "new ");
	expect_list(r, none, SLICE("false"), "old off ");
	expect_list(r, none, SLICE("1"), "old off ");
	expect_list(r, none, SLICE(""), "old new off ");
	expect_list(r, SLICE("running"), none, "old new ");
	expect_list(r, SLICE("runn"), none, "");
	expect_list(r, SLICE("Running"), none, "");
	expect_list(r, SLICE(""), SLICE("true"), "new ");
	expect_list(r, SLICE("running"), SLICE("no"), "old ");
	assert_ptr_equal(roster_next(r, NULL, NULL), roster_find(r, SLICE("old")));
	roster_free(&r);
}

static void distributions_are_counted(void **state) {
	struct roster *r = fleet();
	roster_put(r, record_of("a", "running", 0, 3), now_ms);
	roster_put(r, record_of("b", "running", 0, 4), now_ms);
	roster_put(r, record_of("c", "", 0, 6), now_ms);
	json_t *j = roster_count_statuses(r);
	char *text = json_dumps(j, JSON_COMPACT);
	assert_string_equal(text, "{\"running\":2,\"\":1}");
	free(text);
	json_decref(j);
	j = roster_count_hosts(r);
	text = json_dumps(j, JSON_COMPACT);
	assert_string_equal(text, "{\"h0\":2,\"h1\":1}");
	free(text);
	json_decref(j);
	roster_free(&r);
}

static void a_full_table_says_so(void **state) {
	now_ms = START_MS;
	struct roster *r = roster_new(&(struct roster_options){ .records_max = 2 }, now_ms);
	struct record *third = record_of("c", "running", 0, 80), *again = record_of("b", "running", 9, 80);
	put(r, "a", "running", 0);
	assert_true(roster_has_room(r, third));
	put(r, "b", "running", 0);
	assert_false(roster_has_room(r, third));
	assert_true(roster_has_room(r, again));
	roster_delete(r, SLICE("a"), now_ms);
	assert_true(roster_has_room(r, third));
	roster_free(&r);

	r = roster_new(&(struct roster_options){ .bytes_max = 3000 }, now_ms);
	put(r, "a", "running", 0);
	size_t each = counts_of(r).bytes;
	while (roster_has_room(r, third)) {
		char name[16];
		snprintf(name, sizeof(name), "x%u", counts_of(r).n_records);
		put(r, name, "running", 0);
	}
	assert_true(counts_of(r).bytes <= 3000 && counts_of(r).bytes + 2 * each > 3000);
	roster_free(&r);
	record_free(&third);
	record_free(&again);
}

static void a_heartbeat_takes_nothing_from_the_heap(void **state) {
	enum { N = 10000 };
	static char names[N][12];
	struct roster *r = fleet();
	for (int i = 0; i < N; i++) {
		snprintf(names[i], sizeof(names[i]), "svc-%d", i);
		put(r, names[i], "running", 0);
	}
	uint64_t before = heap_allocations(), version = roster_version(r);
	for (int i = 0; i < 60000; i++) { /* a minute of 1,000 a second */
		now_ms++;
		assert_true(beat(r, names[(i * 7919) % N]));
	}
	assert_int_equal(heap_allocations(), before);
	assert_int_equal(roster_version(r), version);
	assert_int_equal(counts_of(r).n_alive, N);
	roster_free(&r);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lease_ends_to_the_millisecond),
		cmocka_unit_test(heartbeats_keep_and_revive),
		cmocka_unit_test(what_a_probe_found_stays_with_the_address),
		cmocka_unit_test(only_running_is_alive),
		cmocka_unit_test(a_shorter_ttl_counts_at_once),
		cmocka_unit_test(who_brings_no_ttl_has_the_registrys),
		cmocka_unit_test(the_silent_are_swept),
		cmocka_unit_test(a_restart_gives_full_leases_and_spreads_their_ends),
		cmocka_unit_test(a_heartbeat_ends_the_spread),
		cmocka_unit_test(after_a_standstill_leases_start_afresh),
		cmocka_unit_test(a_short_stop_is_long_for_short_leases_only),
		cmocka_unit_test(a_heartbeat_after_the_stop_finds_the_lease),
		cmocka_unit_test(time_that_does_not_move_or_goes_back_is_harmless),
		cmocka_unit_test(watchers_hear_of_all_that_changed_once),
		cmocka_unit_test(the_ring_forgets),
		cmocka_unit_test(filters_are_the_documented_ones),
		cmocka_unit_test(distributions_are_counted),
		cmocka_unit_test(a_full_table_says_so),
		cmocka_unit_test(a_heartbeat_takes_nothing_from_the_heap),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
