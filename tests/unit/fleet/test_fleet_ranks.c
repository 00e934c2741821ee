/* Engines with data-parallel ranks: one record of a source, many rows. */
#include "unit/fleet/scene.h"

static const struct pair llama = { SLICE("llama"), { NULL, 0 } };

static struct fleet_spec engine(const char *name, uint16_t n_ranks) {
	return (struct fleet_spec){ .instance = scene_target(name), .weight = 1, .n_ranks = n_ranks };
}

/* Rank k, as somebody writes it. */
static struct fleet_spec pinned(const char *name, const char *url, uint16_t rank) {
	struct fleet_spec spec = engine(name, 0);

	spec.instance.url = slice_of(url);
	spec.instance.rank = rank;
	spec.instance.has_rank = true;
	return spec;
}

static void put(struct fleet *fleet, const struct fleet_spec *spec) {
	assert_int_equal(fleet_upsert(fleet, SOURCE_REGISTRY, spec), 0);
}

static struct snapshot *build(struct fleet *fleet) {
	struct snapshot *snap = fleet_build(fleet);

	assert_non_null(snap);
	return snap;
}

static void resolve(struct fleet *fleet, const struct instance *inst) {
	struct sockaddr_storage address = scene_address("10.0.0.1", inst->spec.port);

	fleet_set_addresses(fleet, inst, &address, 1);
}

/* The rows are NAME@0 and so on, in this order, ranks of one engine. */
static void assert_ranks(const struct snapshot *snap, const char *name, uint32_t n) {
	char text[32], url[64];

	assert_int_equal(snap->n_rows, n);
	for (uint32_t r = 0; r < n; r++) {
		const struct instance_spec *spec = &snap->rows[r].instance->spec;

		snprintf(text, sizeof(text), "%s@%u", name, r);
		snprintf(url, sizeof(url), "http://engine:8000@%u", r);
		assert_true(slice_eq(spec->name, slice_of(text)));
		assert_true(slice_eq(spec->url, slice_of(url)));
		assert_true(slice_eq(spec->authority, SLICE("engine:8000")));
		assert_true(spec->has_rank);
		assert_int_equal(spec->rank, r);
		assert_int_equal(snap->rows[r].first_rank, 0);
		assert_int_equal(snap->rows[r].next_rank, r + 1 < n ? r + 1 : SNAPSHOT_NO_ROW);
		assert_int_equal(snap->rows[r].primary, r);
		assert_int_equal(snapshot_n_ranks(snap, r), n);
	}
}

static void an_engine_becomes_its_ranks(void **state) {
	struct fleet *fleet = fleet_new();
	struct fleet_spec spec = engine("e", 12);

	put(fleet, &spec);
	struct snapshot *snap = build(fleet);
	assert_ranks(snap, "e", 12);
	resolve(fleet, snap->rows[0].instance);
	assert_int_equal(fleet_set_models(fleet, snap->rows[3].instance, (struct pairs){ &llama, 1 }), 0);
	snapshot_unref(&snap);
	snap = build(fleet);
	assert_ranks(snap, "e", 12);
	assert_int_equal(snapshot_model(snap, SLICE("llama"))->n_candidates, 12);
	snapshot_unref(&snap);
	put(fleet, &spec);
	assert_null(fleet_build(fleet));
	assert_int_equal(fleet_remove(fleet, SOURCE_REGISTRY, SLICE("e")), 0);
	assert_int_equal(fleet_remove(fleet, SOURCE_REGISTRY, SLICE("e")), FLEET_E_ABSENT);
	snap = build(fleet);
	assert_int_equal(snap->n_rows, 0);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void one_rank_is_no_rank(void **state) {
	struct fleet *fleet = fleet_new();
	struct fleet_spec spec = engine("e", 1);

	put(fleet, &spec);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_rows, 1);
	assert_false(snap->rows[0].instance->spec.has_rank);
	assert_true(slice_eq(snap->rows[0].instance->spec.name, SLICE("e")));
	assert_int_equal(snap->rows[0].first_rank, 0);
	assert_int_equal(snap->rows[0].next_rank, SNAPSHOT_NO_ROW);
	assert_int_equal(snapshot_n_ranks(snap, 0), 1);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void ranks_named_one_by_one_are_of_one_engine(void **state) {
	struct fleet_spec specs[] = { pinned("z", "http://engine:8000@0", 0), engine("m", 1),
		pinned("a", "http://engine:8000@1", 1), pinned("b", "http://engine:8000@1", 1) };
	struct fleet *fleet = fleet_new();

	specs[1].n_ranks = 1;
	assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, specs, n_elems(specs)), 0);
	struct snapshot *snap = build(fleet);
	resolve(fleet, snap->rows[0].instance); /* a */
	resolve(fleet, snap->rows[2].instance); /* m: the engine itself, which is no rank of it */
	snapshot_unref(&snap);
	snap = build(fleet);
	assert_int_equal(snap->rows[0].next_rank, 1);
	assert_int_equal(snap->rows[1].next_rank, 3);
	assert_int_equal(snap->rows[3].first_rank, 0);
	assert_int_equal(snap->rows[2].first_rank, 2);
	assert_int_equal(snapshot_n_ranks(snap, 3), 2);
	assert_int_equal(snapshot_n_ranks(snap, 2), 1);
	assert_int_equal(snap->rows[3].n_addresses, 1);
	assert_int_equal(snap->rows[0].primary, snap->rows[1].primary); /* the same rank twice */
	assert_int_equal(snap->rows[2].primary, 2);
	assert_int_equal(snap->rows[3].primary, 3);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void ranks_come_and_go_and_the_others_stay(void **state) {
	struct fleet *fleet = fleet_new();
	struct fleet_spec spec = engine("e", 4);
	struct instance *kept[4];

	put(fleet, &spec);
	struct snapshot *snap = build(fleet);
	for (unsigned i = 0; i < 4; i++)
		kept[i] = snap->rows[i].instance;
	resolve(fleet, kept[0]);
	assert_int_equal(fleet_set_models(fleet, kept[0], (struct pairs){ &llama, 1 }), 0);
	fleet_set_state(fleet, kept[0], INSTANCE_READY);
	spec.n_ranks = 8;
	put(fleet, &spec);
	snapshot_unref(&snap);
	snap = build(fleet);
	assert_ranks(snap, "e", 8);
	for (unsigned i = 0; i < 4; i++)
		assert_ptr_equal(snap->rows[i].instance, kept[i]);
	assert_int_equal(snap->rows[7].n_addresses, 1); /* at once: nobody has to wait for them */
	assert_true(snap->rows[7].are_models_known);
	assert_int_equal(snap->rows[7].state, INSTANCE_READY);
	spec.n_ranks = 2;
	put(fleet, &spec);
	snapshot_unref(&snap);
	snap = build(fleet);
	assert_ranks(snap, "e", 2);
	assert_ptr_equal(snap->rows[1].instance, kept[1]);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void the_engine_says_how_many_it_has(void **state) {
	struct fleet *fleet = fleet_new();
	struct fleet_spec spec = engine("e", RANKS_AUTO);

	spec.models = (struct pairs){ &llama, 1 };
	put(fleet, &spec);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_rows, 1);
	struct instance *whole = instance_ref(snap->rows[0].instance);
	resolve(fleet, whole);
	snapshot_unref(&snap);
	assert_int_equal(fleet_set_ranks(fleet, whole, 8), 0);
	snap = build(fleet);
	assert_ranks(snap, "e", 8);
	assert_int_equal(snapshot_model(snap, SLICE("llama"))->n_candidates, 8);
	struct instance *first = snap->rows[0].instance;
	snapshot_unref(&snap);
	assert_int_equal(fleet_set_ranks(fleet, whole, 3), 0); /* it has left */
	assert_int_equal(fleet_set_ranks(fleet, first, 8), 0);
	assert_int_equal(fleet_set_ranks(fleet, first, 0), 0);
	put(fleet, &spec); /* its source says nothing new */
	assert_null(fleet_build(fleet));
	assert_int_equal(fleet_set_ranks(fleet, first, 2), 0);
	snap = build(fleet);
	assert_ranks(snap, "e", 2);
	assert_ptr_equal(snap->rows[0].instance, first);
	snapshot_unref(&snap);
	assert_int_equal(fleet_set_ranks(fleet, first, 1), 0);
	snap = build(fleet);
	assert_int_equal(snap->n_rows, 1);
	assert_true(slice_eq(snap->rows[0].instance->spec.name, SLICE("e")));
	snapshot_unref(&snap);
	instance_unref(&whole);
	fleet_free(&fleet);
}

static void nobody_is_counted_who_was_told(void **state) {
	struct fleet_spec specs[] = { engine("four", 4), pinned("one", "http://engine:8000@9", 9) };
	struct fleet *fleet = fleet_new();

	assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, specs, 2), 0);
	struct snapshot *snap = build(fleet);
	for (uint32_t r = 0; r < snap->n_rows; r++)
		assert_int_equal(fleet_set_ranks(fleet, snap->rows[r].instance, 2), 0);
	assert_null(fleet_build(fleet));
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void defaults_hold_for_whom_nothing_was_said(void **state) {
	const struct rank_defaults two = { 2, 3, 1 };
	const struct pair role = { SLICE("role"), SLICE("prefill") };
	struct fleet_spec specs[] = { engine("a", 0), engine("b", 4), engine("c", 0) };
	struct fleet *fleet = fleet_new();

	specs[2].labels = (struct pairs){ &role, 1 };
	assert_int_equal(fleet_replace(fleet, SOURCE_REGISTRY, specs, 3), 0);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_rows, 1 + 4 + 1);
	snapshot_unref(&snap);
	fleet_set_rank_defaults(fleet, &two);
	snap = build(fleet);
	assert_int_equal(snap->n_rows, 2 + 4 + 3);
	snapshot_unref(&snap);
	fleet_set_rank_defaults(fleet, &(struct rank_defaults){ 0 });
	snap = build(fleet);
	assert_int_equal(snap->n_rows, 1 + 4 + 1);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void those_that_are_taken_over_leave_later(void **state) {
	struct fleet_spec spec = engine("e", 4);
	struct fleet *fleet = fleet_new();
	struct slice name;

	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	assert_false(fleet_has_others(fleet, SOURCE_STATIC, &spec, 1));
	spec.n_ranks = 2;
	assert_int_equal(fleet_check(fleet, SOURCE_STATIC, &spec, 1, &name), 0);
	assert_int_equal(fleet_take_over(fleet, SOURCE_STATIC, &spec), 0);
	assert_true(fleet_has_others(fleet, SOURCE_STATIC, &spec, 1));
	fleet_set_rank_defaults(fleet, &(struct rank_defaults){ 3, 3, 3 }); /* is about others */
	struct snapshot *snap = build(fleet);
	assert_ranks(snap, "e", 4);
	snapshot_unref(&snap);
	assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, &spec, 1), 0);
	assert_false(fleet_has_others(fleet, SOURCE_STATIC, &spec, 1));
	snap = build(fleet);
	assert_ranks(snap, "e", 2);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void an_engine_has_room_for_all_ranks_or_none(void **state) {
	struct fleet *fleet = fleet_new();
	struct fleet_spec many = engine("m", RANKS_MAX), spec = engine("e", 2);
	struct slice name;

	for (unsigned i = 0; i < 3; i++) {
		char text[8];

		snprintf(text, sizeof(text), "m%u", i);
		many.instance.name = slice_of(text);
		put(fleet, &many);
	}
	put(fleet, &spec);
	many.instance.name = SLICE("last");
	assert_int_equal(fleet_check(fleet, SOURCE_REGISTRY, &many, 1, &name), FLEET_E_FULL);
	assert_int_equal(fleet_upsert(fleet, SOURCE_REGISTRY, &many), FLEET_E_FULL);
	spec.n_ranks = RANKS_MAX;
	assert_int_equal(fleet_upsert(fleet, SOURCE_REGISTRY, &spec), 0); /* two are there */
	assert_int_equal(instance_n_free(), 0);
	spec.n_ranks = 2;
	put(fleet, &spec);
	assert_int_equal(instance_n_free(), RANKS_MAX - 2);
	fleet_free(&fleet);
}

static void names_have_room_for_the_rank(void **state) {
	char text[FLEET_TEXT_BYTES_MAX + 1];
	struct fleet *fleet = fleet_new();
	struct fleet_spec spec = engine("e", 2);

	memset(text, 'n', sizeof(text));
	spec.instance.name = (struct slice){ text, FLEET_TEXT_BYTES_MAX };
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), FLEET_E_LIMIT);
	spec.n_ranks = 1;
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	spec.instance.name.n -= RANK_SUFFIX_BYTES;
	spec.n_ranks = RANKS_MAX;
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	fleet_free(&fleet);
}

static void a_wish_is_of_one_rank(void **state) {
	const struct fleet_wish drain = { .state = INSTANCE_DRAINING };
	struct fleet *fleet = fleet_new();
	struct fleet_spec spec = engine("e", 3);

	put(fleet, &spec);
	fleet_set_wish(fleet, SLICE("e@1"), &drain);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->rows[0].state, INSTANCE_UNKNOWN);
	assert_int_equal(snap->rows[1].state, INSTANCE_DRAINING);
	resolve(fleet, snap->rows[1].instance);
	spec.n_ranks = 5;
	put(fleet, &spec);
	snapshot_unref(&snap);
	snap = build(fleet);
	assert_int_equal(snap->rows[4].state, INSTANCE_UNKNOWN);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_engine_becomes_its_ranks),
		cmocka_unit_test(one_rank_is_no_rank),
		cmocka_unit_test(ranks_named_one_by_one_are_of_one_engine),
		cmocka_unit_test(ranks_come_and_go_and_the_others_stay),
		cmocka_unit_test(the_engine_says_how_many_it_has),
		cmocka_unit_test(nobody_is_counted_who_was_told),
		cmocka_unit_test(defaults_hold_for_whom_nothing_was_said),
		cmocka_unit_test(those_that_are_taken_over_leave_later),
		cmocka_unit_test(an_engine_has_room_for_all_ranks_or_none),
		cmocka_unit_test(names_have_room_for_the_rank),
		cmocka_unit_test(a_wish_is_of_one_rank),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
