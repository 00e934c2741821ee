#include "unit/fleet/scene.h"

#include "discovery/membership.h"
#include "fleet/health_state.h"

enum { GRACE_MS = 60000, TICK_MS = 250 };

/* A fleet, what a registry says of it, and a clock. */
struct town {
	struct fleet *fleet;
	struct membership *m;
	uint64_t now_ms;
	bool is_heard;
};

static struct town town_open(void) {
	struct town t = { .fleet = fleet_new(), .now_ms = 1000, .is_heard = true };

	t.m = membership_new(t.fleet, GRACE_MS);
	return t;
}

static void town_close(struct town *t) {
	membership_free(&t->m);
	fleet_free(&t->fleet);
}

/* As the registry has it; more: further members of the object, with a comma before each. */
static json_t *record_of(const char *name, const char *more) {
	/* A member given twice: the last one counts. */
	char text[1024];

	snprintf(text, sizeof(text),
	    "{\"name\":\"%s\",\"host\":\"h\",\"port\":8000,\"status\":\"running\","
	    "\"metadata\":{\"type\":\"openai-api\",\"models\":[\"m\"]}%s}",
	    name, more);
	json_t *record = json_loads(text, 0, NULL);
	assert_non_null(record);
	return record;
}

static void put(struct town *t, const char *name, const char *more) {
	json_t *record = record_of(name, more);

	membership_put(t->m, record, t->now_ms);
	json_decref(record);
}

static void erase(struct town *t, const char *name) {
	membership_delete(t->m, slice_of(name), t->now_ms);
}

static void expire(struct town *t, const char *name) {
	membership_expire(t->m, slice_of(name), t->now_ms);
}

/* Names are single letters. */
static json_t *list_of(const char *names) {
	json_t *list = json_array();

	for (; *names; names++)
		json_array_append_new(list, record_of((const char[]){ *names, '\0' }, ""));
	return list;
}

static void list(struct town *t, const char *names) {
	json_t *services = list_of(names);

	membership_list(t->m, services, t->now_ms);
	json_decref(services);
}

static void pass(struct town *t, uint64_t ms) {
	for (uint64_t i = 0; i < ms; i += TICK_MS) {
		t->now_ms += TICK_MS;
		membership_tick(t->m, t->is_heard, t->now_ms);
	}
}

/* The fleet as it is, whether it has changed or not. */
static struct snapshot *town_build(struct town *t) {
	struct fleet_spec other = { .instance = scene_target("other"), .weight = 1 };

	assert_int_equal(fleet_upsert(t->fleet, SOURCE_STATIC, &other), 0);
	assert_int_equal(fleet_remove(t->fleet, SOURCE_STATIC, SLICE("other")), 0);
	struct snapshot *snap = fleet_build(t->fleet);
	assert_non_null(snap);
	return snap;
}

/* The fleet's names, in their order. */
static void assert_fleet(struct town *t, const char *names) {
	json_t *services = membership_services(t->m);
	char found[64] = "";
	struct snapshot *snap = town_build(t);

	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (snap->rows[i].source == SOURCE_REGISTRY)
			found[strlen(found)] = snap->rows[i].instance->spec.name.p[0];
	assert_string_equal(found, names);
	assert_int_equal(json_array_size(services), strlen(names));
	json_decref(services);
	snapshot_unref(&snap);
}

static struct membership_counts counts(const struct town *t) {
	struct membership_counts n;

	membership_counts(t->m, &n);
	return n;
}

static void who_is_deleted_leaves_at_once(void **state) {
	struct town t = town_open();

	put(&t, "a", "");
	put(&t, "b", "");
	assert_fleet(&t, "ab");
	erase(&t, "a");
	erase(&t, "nobody");
	assert_fleet(&t, "b");
	town_close(&t);
}

static void who_is_not_running_leaves_at_once(void **state) {
	struct town t = town_open();

	put(&t, "a", "");
	put(&t, "a", ",\"status\":\"stopped\"");
	assert_fleet(&t, "");
	put(&t, "b", ",\"status\":\"starting\""); /* nor does it come */
	assert_fleet(&t, "");
	town_close(&t);
}

static enum instance_state state_of_only(struct town *t) {
	struct snapshot *snap = fleet_build(t->fleet);

	assert_non_null(snap);
	assert_int_equal(snap->n_rows, 1);
	enum instance_state found = snap->rows[0].state;
	snapshot_unref(&snap);
	return found;
}

/* The registry calls it unhealthy as long as it drains: that says nothing. */
static void who_drains_stays_without_new_work(void **state) {
	struct town t = town_open();

	put(&t, "a", "");
	assert_int_equal(state_of_only(&t), INSTANCE_UNKNOWN);
	put(&t, "a", ",\"status\":\"draining\",\"is_healthy\":false");
	assert_int_equal(state_of_only(&t), INSTANCE_DRAINING);
	assert_int_equal(counts(&t).n_missing, 0);
	pass(&t, 2 * GRACE_MS);
	put(&t, "a", "");
	assert_int_equal(state_of_only(&t), INSTANCE_UNKNOWN);
	put(&t, "a", ",\"status\":\"draining\"");
	expire(&t, "a");
	pass(&t, GRACE_MS + TICK_MS);
	assert_fleet(&t, "");
	town_close(&t);
}

static void whose_lease_is_over_stays_for_the_grace(void **state) {
	struct town t = town_open();

	put(&t, "a", "");
	put(&t, "a", ",\"is_healthy\":false");
	pass(&t, GRACE_MS - TICK_MS);
	assert_fleet(&t, "a");
	put(&t, "a", ",\"is_healthy\":true");
	assert_int_equal(counts(&t).n_missing, 0);
	put(&t, "a", ",\"is_healthy\":false");
	pass(&t, GRACE_MS - TICK_MS);
	assert_fleet(&t, "a");
	pass(&t, TICK_MS);
	assert_fleet(&t, "");
	town_close(&t);
}

static void who_is_not_listed_stays_for_the_grace(void **state) {
	struct town t = town_open();

	list(&t, "abcd");
	list(&t, "abc");
	for (unsigned i = 0; i < GRACE_MS / 10000; i++) {
		assert_fleet(&t, "abcd");
		pass(&t, 10000);
		list(&t, "abc");
	}
	assert_fleet(&t, "abc");
	town_close(&t);
}

static void while_the_registry_is_away_no_grace_passes(void **state) {
	struct town t = town_open();

	list(&t, "ab");
	list(&t, "a");
	pass(&t, GRACE_MS / 2);
	t.is_heard = false;
	pass(&t, 100 * GRACE_MS);
	assert_fleet(&t, "ab");
	t.is_heard = true;
	pass(&t, GRACE_MS / 2 - TICK_MS);
	assert_fleet(&t, "ab");
	pass(&t, TICK_MS);
	assert_fleet(&t, "a");
	town_close(&t);
}

/* The process was stopped: what it did not hear is nobody's fault. */
static void a_standstill_is_no_time(void **state) {
	struct town t = town_open();

	list(&t, "ab");
	list(&t, "a");
	pass(&t, TICK_MS);
	t.now_ms += 2 * GRACE_MS;
	pass(&t, TICK_MS);
	assert_fleet(&t, "ab");
	town_close(&t);
}

static void many_at_once_are_held_back(void **state) {
	static const struct {
		const char *before, *after, *kept;
	} rows[] = {
		{ "a", "", "" }, /* one is never many */
		{ "abc", "ab", "ab" },
		{ "abc", "a", "abc" },
		{ "abcdefghij", "abcdefg", "abcdefg" }, /* 30 % */
		{ "abcdefghij", "abcdef", "abcdefghij" },
		{ "abcdefghij", "", "abcdefghij" },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct town t = town_open();

		list(&t, rows[i].before);
		list(&t, rows[i].after);
		pass(&t, GRACE_MS + 1000);
		assert_fleet(&t, rows[i].kept);
		assert_int_equal(counts(&t).n_held_back,
		    strcmp(rows[i].kept, rows[i].after) ? strlen(rows[i].before) - strlen(rows[i].after) : 0);
		pass(&t, MEMBERSHIP_HOLD_MS); /* in the end it is believed */
		assert_fleet(&t, rows[i].after);
		assert_int_equal(counts(&t).n_held_back, 0);
		town_close(&t);
	}
}

static void deletions_are_not_held_back(void **state) {
	struct town t = town_open();

	list(&t, "abcdef");
	for (const char *p = "abcdef"; *p; p++)
		erase(&t, (const char[]){ *p, '\0' });
	assert_fleet(&t, "");
	assert_int_equal(counts(&t).n_members, 0);
	town_close(&t);
}

static void who_is_deleted_after_its_lease_leaves_at_once(void **state) {
	struct town t = town_open();

	list(&t, "ab");
	put(&t, "b", ",\"is_healthy\":false");
	pass(&t, GRACE_MS / 2);
	assert_fleet(&t, "ab");
	erase(&t, "b");
	assert_fleet(&t, "a");
	town_close(&t);
}

/* A registry's sweep is told as such, or arrives as a list without them. */
static void who_was_silent_for_too_long_has_the_grace(void **state) {
	for (int by_list = 0; by_list < 2; by_list++) {
		struct town t = town_open();

		list(&t, "abcdef");
		for (const char *p = "bcdef"; *p; p++)
			put(&t, (const char[]){ *p, '\0' }, ",\"is_healthy\":false");
		for (const char *p = "bcdef"; *p && !by_list; p++)
			expire(&t, (const char[]){ *p, '\0' });
		if (by_list)
			list(&t, "a");
		pass(&t, GRACE_MS - TICK_MS);
		assert_fleet(&t, "abcdef");
		pass(&t, 1000); /* too many at once */
		assert_fleet(&t, "abcdef");
		pass(&t, MEMBERSHIP_HOLD_MS);
		assert_fleet(&t, "a");
		town_close(&t);
	}
}

/* The end of the lease was missed: it begins to be missing now. */
static void who_is_swept_out_unseen_has_the_grace(void **state) {
	struct town t = town_open();

	list(&t, "ab");
	expire(&t, "b");
	expire(&t, "nobody");
	assert_int_equal(counts(&t).n_missing, 1);
	pass(&t, GRACE_MS - TICK_MS);
	assert_fleet(&t, "ab");
	expire(&t, "b"); /* does not begin it anew */
	pass(&t, TICK_MS);
	assert_fleet(&t, "a");
	town_close(&t);
}

static void what_an_earlier_run_knew_needs_no_grace(void **state) {
	struct town t = town_open();
	json_t *kept = list_of("abcd");

	membership_restore(t.m, kept, t.now_ms);
	json_decref(kept);
	t.is_heard = false;
	pass(&t, 100 * GRACE_MS);
	assert_fleet(&t, "abcd");
	t.is_heard = true;
	list(&t, "abc");
	pass(&t, TICK_MS);
	assert_fleet(&t, "abc");
	list(&t, "ab"); /* c was seen in this one */
	pass(&t, GRACE_MS / 2);
	assert_fleet(&t, "abc");
	town_close(&t);
}

static void who_is_listed_with_a_bad_record_is_seen(void **state) {
	struct town t = town_open();
	json_t *kept = list_of("a"), *bad = record_of("a", ",\"port\":0");
	json_t *services = json_pack("[o]", bad);

	membership_restore(t.m, kept, t.now_ms);
	membership_list(t.m, services, t.now_ms);
	json_decref(kept);
	json_decref(services);
	list(&t, "");
	pass(&t, GRACE_MS - TICK_MS); /* so it has its grace */
	assert_fleet(&t, "a");
	pass(&t, TICK_MS);
	assert_fleet(&t, "");
	town_close(&t);
}

/* For how long the only engine is held out from now on. */
static uint64_t held_ms(struct town *t) {
	struct snapshot *snap = town_build(t);

	assert_int_equal(snap->n_rows, 1);
	uint64_t until_ms = snap->rows[0].held_until_ms;
	snapshot_unref(&snap);
	return until_ms > t->now_ms ? until_ms - t->now_ms : 0;
}

static void who_comes_and_goes_is_held_out_longer_each_time(void **state) {
	struct town t = town_open();
	uint64_t hold_ms = 500;

	put(&t, "a", "");
	assert_int_equal(held_ms(&t), 0);
	erase(&t, "a");
	put(&t, "a", ""); /* a restart is no offence */
	assert_int_equal(held_ms(&t), 0);
	for (unsigned i = 0; i < 12; i++) {
		hold_ms = u64_min(2 * hold_ms, 300000);
		erase(&t, "a");
		put(&t, "a", "");
		assert_int_equal(held_ms(&t), hold_ms);
		put(&t, "a", ",\"weight\":2"); /* news change nothing in that */
		assert_int_equal(held_ms(&t), hold_ms);
		assert_int_equal(counts(&t).n_members, 1);
	}
	assert_int_equal(hold_ms, 300000);
	pass(&t, 2 * hold_ms); /* a long time of peace */
	erase(&t, "a");
	put(&t, "a", "");
	assert_int_equal(held_ms(&t), 0);
	town_close(&t);
}

/* The weight of one engine in that of all that serve the model, as a worker sees it. */
static double share_of(struct town *t, const char *name) {
	struct snapshot *snap = town_build(t);
	const struct model *model = snapshot_model(snap, SLICE("m"));
	double own = 0, all = 0;

	for (uint32_t i = 0; i < model->n_candidates; i++) {
		const struct candidate *c = &model->candidates[i];

		all += c->weight;
		if (slice_eq(c->instance->spec.name, slice_of(name)))
			own += c->weight;
	}
	snapshot_unref(&snap);
	return all > 0 ? own / all : 0;
}

/* What is believed of an engine that answers every probe is told to the fleet. */
static void judge(struct town *t, struct health_state *h, const struct snapshot_row *row) {
	struct sockaddr_storage address = scene_address("10.0.0.1", (uint16_t)(8000 + row->instance->slot));

	health_state_probe(h, HEALTH_PROBE_GOOD, t->now_ms);
	fleet_set_addresses(t->fleet, row->instance, &address, 1);
	fleet_set_state(t->fleet, row->instance, h->state);
	fleet_set_share(t->fleet, row->instance, health_state_share(h, t->now_ms), false);
}

/* "a" is there for good, "f" for half a second in each; for five minutes. */
static void who_flaps_gets_next_to_nothing_while_others_serve(void **state) {
	static const struct health_limits limits = {
		.interval_ms = 5000, .slow_start_ms = 30000, .stall_ms = 30000, .errors_max = 3
	};
	struct town t = town_open();
	struct health_state steady, flapper;
	double share = 0;
	unsigned n = 0;

	put(&t, "a", "");
	health_state_init(&steady, &limits, t.now_ms);
	for (unsigned i = 0; i < 300; i++) {
		put(&t, "f", "");
		for (uint64_t from_ms = t.now_ms; t.now_ms < from_ms + 1000; n++, pass(&t, TICK_MS)) {
			struct snapshot *snap = town_build(&t);

			if (t.now_ms == from_ms) {
				health_state_init(&flapper, &limits, t.now_ms);
				health_state_hold(&flapper, snap->rows[1].held_until_ms, t.now_ms);
			}
			judge(&t, &steady, &snap->rows[0]);
			if (snap->n_rows == 2)
				judge(&t, &flapper, &snap->rows[1]);
			snapshot_unref(&snap);
			share += share_of(&t, "f");
			assert_true(share_of(&t, "a") > 0);
			if (t.now_ms == from_ms + 500)
				erase(&t, "f");
		}
	}
	assert_true(share > 0); /* it was seen */
	assert_true(share / n < 0.01);
	town_close(&t);
}

static void a_model_is_known_for_the_grace_after_its_last_engine_left(void **state) {
	struct town t = town_open();
	struct snapshot *snap;

	put(&t, "a", "");
	erase(&t, "a");
	pass(&t, GRACE_MS);
	snap = town_build(&t);
	assert_non_null(snapshot_model(snap, SLICE("m")));
	snapshot_unref(&snap);
	pass(&t, TICK_MS);
	snap = town_build(&t);
	assert_null(snapshot_model(snap, SLICE("m")));
	snapshot_unref(&snap);
	town_close(&t);
}

static void a_bad_record_leaves_the_older_one(void **state) {
	struct town t = town_open();

	put(&t, "a", "");
	put(&t, "a", ",\"port\":0");
	put(&t, "a", ",\"host\":7");
	assert_fleet(&t, "a");
	assert_int_equal(counts(&t).n_bad, 2);
	json_t *services =
	    json_pack("[{s:s,s:s,s:{s:s}}]", "name", "a", "host", "a b", "metadata", "type", "openai-api");
	membership_list(t.m, services, t.now_ms); /* it is listed all the same */
	json_decref(services);
	assert_int_equal(counts(&t).n_missing, 0);
	assert_fleet(&t, "a");
	town_close(&t);
}

static void who_is_back_is_not_missing_whatever_its_record(void **state) {
	static const struct {
		const char *more;
		unsigned n_missing;
	} rows[] = {
		{ ",\"port\":0", 0 },
		{ ",\"metadata\":{\"type\":\"openai-api\",\"models\":[\"\\u0001\"]}", 0 }, /* to the fleet */
		{ ",\"port\":0,\"is_healthy\":false", 1 },
		{ ",\"port\":0,\"status\":\"draining\"", 1 },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct town t = town_open();

		put(&t, "a", "");
		put(&t, "a", ",\"is_healthy\":false");
		assert_int_equal(counts(&t).n_missing, 1);
		put(&t, "a", rows[i].more);
		assert_int_equal(counts(&t).n_bad, 1);
		assert_int_equal(counts(&t).n_missing, rows[i].n_missing);
		pass(&t, GRACE_MS + TICK_MS);
		assert_fleet(&t, rows[i].n_missing ? "" : "a");
		town_close(&t);
	}
}

static void what_is_no_engine_any_more_leaves(void **state) {
	struct town t = town_open();

	put(&t, "a", "");
	put(&t, "a", ",\"metadata\":{\"type\":\"vLLM\"}");
	put(&t, "b", ",\"metadata\":{}");
	assert_fleet(&t, "");
	assert_int_equal(counts(&t).n_bad, 0);
	town_close(&t);
}

static void only_news_counts_as_a_change(void **state) {
	struct town t = town_open();

	put(&t, "a", ",\"last_heartbeat\":1.0");
	uint64_t version = membership_version(t.m);
	put(&t, "a", ",\"last_heartbeat\":2.0");
	assert_int_equal(membership_version(t.m), version);
	put(&t, "a", ",\"weight\":2");
	assert_true(membership_version(t.m) > version);
	town_close(&t);
}

static void more_than_the_fleet_holds_are_refused_one_by_one(void **state) {
	struct town t = town_open();
	char name[16];

	for (unsigned i = 0; i < INSTANCE_SLOTS_MAX + 10; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		put(&t, name, "");
	}
	assert_int_equal(counts(&t).n_members, INSTANCE_SLOTS_MAX);
	assert_int_equal(counts(&t).n_bad, 10);
	assert_int_equal(counts(&t).n_waiting, 10);
	pass(&t, 5000);
	assert_int_equal(counts(&t).n_bad, 10);
	erase(&t, "n0"); /* its place is taken without another word */
	erase(&t, "n1");
	pass(&t, 1000);
	assert_int_equal(counts(&t).n_members, INSTANCE_SLOTS_MAX);
	assert_int_equal(counts(&t).n_waiting, 8);
	town_close(&t);
}

static void all_records_together_have_a_limit(void **state) {
	struct town t = town_open();
	json_t *record = record_of("x", "");
	json_t *text = json_sprintf("%0*u", 500000, 0);
	unsigned n_fit = 0;
	char name[16];

	json_object_set_new(json_object_get(record, "metadata"), "x", text);
	for (unsigned i = 0; i < MEMBERSHIP_BYTES_MAX / 500000 + 10; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		json_object_set_new(record, "name", json_string(name));
		membership_put(t.m, record, t.now_ms);
		n_fit += counts(&t).n_bad == 0;
	}
	assert_in_range(n_fit, MEMBERSHIP_BYTES_MAX / 500000 - 1, MEMBERSHIP_BYTES_MAX / 500000);
	assert_int_equal(counts(&t).n_members, n_fit);
	json_object_set_new(record, "name", json_string("n0"));
	json_object_set_new(record, "weight", json_integer(2));
	membership_put(t.m, record, t.now_ms); /* in place of an older one there is room */
	assert_int_equal(counts(&t).n_bad, MEMBERSHIP_BYTES_MAX / 500000 + 10 - n_fit);
	put(&t, "n1", ""); /* so that there is some */
	put(&t, "small", "");
	json_object_set_new(record, "name", json_string("last"));
	membership_put(t.m, record, t.now_ms);
	assert_int_equal(counts(&t).n_members, n_fit + 2);
	put(&t, "small", ",\"is_healthy\":false");
	assert_int_equal(counts(&t).n_missing, 1);
	json_object_set_new(record, "name", json_string("small")); /* there is no room, but it is back */
	membership_put(t.m, record, t.now_ms);
	assert_int_equal(counts(&t).n_missing, 0);
	json_decref(record);
	town_close(&t);
}

/* Engines with a new name at each start. */
static void names_that_left_make_room(void **state) {
	struct town t = town_open();
	char name[16];

	for (unsigned i = 0; i < MEMBERSHIP_NAMES_MAX + 100; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		put(&t, name, "");
		assert_int_equal(counts(&t).n_members, 1);
		erase(&t, name);
	}
	assert_int_equal(counts(&t).n_bad, 0);
	town_close(&t);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_is_deleted_leaves_at_once),
		cmocka_unit_test(who_is_not_running_leaves_at_once),
		cmocka_unit_test(who_drains_stays_without_new_work),
		cmocka_unit_test(whose_lease_is_over_stays_for_the_grace),
		cmocka_unit_test(who_is_not_listed_stays_for_the_grace),
		cmocka_unit_test(while_the_registry_is_away_no_grace_passes),
		cmocka_unit_test(a_standstill_is_no_time),
		cmocka_unit_test(many_at_once_are_held_back),
		cmocka_unit_test(deletions_are_not_held_back),
		cmocka_unit_test(who_is_deleted_after_its_lease_leaves_at_once),
		cmocka_unit_test(who_was_silent_for_too_long_has_the_grace),
		cmocka_unit_test(who_is_swept_out_unseen_has_the_grace),
		cmocka_unit_test(what_an_earlier_run_knew_needs_no_grace),
		cmocka_unit_test(who_is_listed_with_a_bad_record_is_seen),
		cmocka_unit_test(who_comes_and_goes_is_held_out_longer_each_time),
		cmocka_unit_test(who_flaps_gets_next_to_nothing_while_others_serve),
		cmocka_unit_test(a_model_is_known_for_the_grace_after_its_last_engine_left),
		cmocka_unit_test(a_bad_record_leaves_the_older_one),
		cmocka_unit_test(who_is_back_is_not_missing_whatever_its_record),
		cmocka_unit_test(what_is_no_engine_any_more_leaves),
		cmocka_unit_test(only_news_counts_as_a_change),
		cmocka_unit_test(more_than_the_fleet_holds_are_refused_one_by_one),
		cmocka_unit_test(all_records_together_have_a_limit),
		cmocka_unit_test(names_that_left_make_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
