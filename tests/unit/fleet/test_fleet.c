#include "unit/fleet/scene.h"

static const struct pair llama = { SLICE("llama"), { NULL, 0 } };
static const struct pair qwen = { SLICE("qwen"), { NULL, 0 } };

/* A record with declared models needs only addresses to be routable. */
static struct fleet_spec spec_of(const char *name) {
	return (struct fleet_spec){
		.instance = scene_target(name),
		.weight = 1,
		.models = { &llama, 1 },
	};
}

static struct fleet_spec undeclared_spec_of(const char *name) {
	struct fleet_spec spec = spec_of(name);

	spec.models.n = 0;
	return spec;
}

static struct snapshot *build(struct fleet *fleet) {
	struct snapshot *snap = fleet_build(fleet);

	assert_non_null(snap);
	return snap;
}

static void assert_unchanged(struct fleet *fleet) {
	assert_null(fleet_build(fleet));
}

/* The row of that name, in the only or first source that has it. */
static const struct snapshot_row *row_of(const struct snapshot *snap, const char *name) {
	for (uint32_t r = 0; r < snap->n_rows; r++)
		if (slice_eq(snap->rows[r].instance->spec.name, slice_of(name)))
			return &snap->rows[r];
	return NULL;
}

static struct instance *add(struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec) {
	struct instance *inst = NULL;

	assert_int_equal(fleet_upsert(fleet, source, spec), 0);
	struct snapshot *snap = build(fleet);
	for (uint32_t r = 0; r < snap->n_rows; r++)
		if (snap->rows[r].source == source &&
		    slice_eq(snap->rows[r].instance->spec.name, spec->instance.name))
			inst = snap->rows[r].instance;
	assert_non_null(inst);
	snapshot_unref(&snap);
	return inst;
}

static void resolve(struct fleet *fleet, const struct instance *inst, const char *ip) {
	struct sockaddr_storage address = scene_address(ip, inst->spec.port);

	fleet_set_addresses(fleet, inst, &address, 1);
}

static void a_snapshot_is_built_when_something_changed(void **state) {
	struct fleet *fleet = fleet_new();
	struct snapshot *snap = build(fleet);

	assert_int_equal(snap->n_rows, 0);
	assert_int_equal(snap->version, 1);
	snapshot_unref(&snap);
	assert_unchanged(fleet);

	struct fleet_spec spec = spec_of("a");
	struct instance *inst = add(fleet, SOURCE_STATIC, &spec);
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	assert_unchanged(fleet);
	resolve(fleet, inst, "10.0.0.1");
	snap = build(fleet);
	assert_int_equal(snap->version, 3);
	assert_int_equal(snap->any.n_candidates, 1);
	assert_int_equal(snap->rows[0].state, INSTANCE_UNKNOWN);
	snapshot_unref(&snap);
	resolve(fleet, inst, "10.0.0.1");
	fleet_set_state(fleet, inst, INSTANCE_UNKNOWN);
	assert_unchanged(fleet);

	spec.weight = 2;
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	snap = build(fleet);
	assert_ptr_equal(snap->rows[0].instance, inst);
	assert_int_equal(snap->rows[0].weight, 2);
	snapshot_unref(&snap);
	fleet_free(&fleet);
	fleet_free(&fleet);
}

static void replace_removes_what_it_does_not_name(void **state) {
	struct fleet_spec specs[] = { spec_of("b"), spec_of("a"), spec_of("c") };
	struct fleet *fleet = fleet_new();

	assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, specs, 3), 0);
	assert_int_equal(fleet_replace(fleet, SOURCE_REGISTRY, specs, 1), 0);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_rows, 4);
	for (uint32_t r = 0; r < 3; r++)
		assert_int_equal(snap->rows[r].instance->spec.name.p[0], "abc"[r]);
	struct instance *a = snap->rows[0].instance;
	snapshot_unref(&snap);
	assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, specs, 3), 0);
	assert_unchanged(fleet);

	assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, specs, 2), 0);
	snap = build(fleet);
	assert_int_equal(snap->n_rows, 3);
	assert_ptr_equal(snap->rows[0].instance, a);
	assert_null(row_of(snap, "c"));
	assert_int_equal(snap->rows[2].source, SOURCE_REGISTRY);
	snapshot_unref(&snap);

	assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, NULL, 0), 0);
	snap = build(fleet);
	assert_int_equal(snap->n_rows, 1);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void remove_is_by_source_and_name(void **state) {
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();

	add(fleet, SOURCE_STATIC, &spec);
	assert_int_equal(fleet_remove(fleet, SOURCE_REGISTRY, SLICE("a")), FLEET_E_ABSENT);
	assert_int_equal(fleet_remove(fleet, SOURCE_STATIC, SLICE("ab")), FLEET_E_ABSENT);
	assert_unchanged(fleet);
	assert_int_equal(fleet_remove(fleet, SOURCE_STATIC, SLICE("a")), 0);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_rows, 0);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static bool knows(struct fleet *fleet, const char *model) {
	struct snapshot *snap = build(fleet);
	bool is_known = snapshot_model(snap, slice_of(model));

	snapshot_unref(&snap);
	return is_known;
}

static void models_are_known_for_a_time_after_their_last_record(void **state) {
	struct fleet_spec spec = spec_of("a"), other = spec_of("b");
	struct fleet *fleet = fleet_new();

	other.models.items = &qwen;
	add(fleet, SOURCE_STATIC, &spec);
	assert_int_equal(fleet_remove(fleet, SOURCE_STATIC, SLICE("a")), 0);
	assert_true(knows(fleet, "llama"));
	fleet_forget(fleet, 1000, 500000);
	fleet_forget(fleet, 1000, 500999);
	assert_unchanged(fleet);
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0); /* back, and gone again: a new time */
	assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, &other, 1), 0);
	fleet_forget(fleet, 1000, 501000);
	assert_true(knows(fleet, "llama"));
	fleet_forget(fleet, 1000, 502000);
	assert_false(knows(fleet, "llama"));
	fleet_free(&fleet);
}

/* Another address: nobody has asked it for its models yet. */
static void an_engine_that_moved_may_have_the_same_models(void **state) {
	struct fleet_spec spec = undeclared_spec_of("a");
	struct fleet *fleet = fleet_new();
	const struct instance *inst = add(fleet, SOURCE_STATIC, &spec);

	assert_int_equal(fleet_set_models(fleet, inst, (struct pairs){ &llama, 1 }), 0);
	spec.instance.url = SLICE("http://engine:9000");
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	assert_true(knows(fleet, "llama"));
	fleet_free(&fleet);
}

static void lost_models_have_a_limit(void **state) {
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();
	char name[16];
	struct pair model = { { name, 0 }, { NULL, 0 } };

	spec.models.items = &model;
	for (unsigned i = 0; i < FLEET_LOST_MAX + 1; i++) {
		model.key.n = (size_t)snprintf(name, sizeof(name), "m%u", i);
		assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
		assert_int_equal(fleet_remove(fleet, SOURCE_STATIC, SLICE("a")), 0);
	}
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_models, FLEET_LOST_MAX);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void a_new_url_is_a_new_instance(void **state) {
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *old = instance_ref(add(fleet, SOURCE_STATIC, &spec));

	resolve(fleet, old, "10.0.0.1");
	fleet_set_state(fleet, old, INSTANCE_READY);
	spec.instance.url = SLICE("http://elsewhere:8000");
	struct instance *inst = add(fleet, SOURCE_STATIC, &spec);

	assert_ptr_not_equal(inst, old);
	assert_int_not_equal(inst->slot, old->slot);
	/* Late news of the old one reaches nobody. */
	resolve(fleet, old, "10.0.0.1");
	fleet_set_state(fleet, old, INSTANCE_READY);
	assert_int_equal(fleet_set_models(fleet, old, (struct pairs){ &qwen, 1 }), 0);
	assert_unchanged(fleet);

	enum instance_state is = INSTANCE_READY;
	assert_false(fleet_state(fleet, old, &is));
	assert_true(fleet_state(fleet, inst, &is));
	assert_int_equal(is, INSTANCE_UNKNOWN);
	fleet_free(&fleet);
	assert_int_equal(old->refs, 1);
	instance_unref(&old);
}

static void models_are_discovered(void **state) {
	struct pair found[] = { { SLICE("qwen"), SLICE("{\"created\":1}") } };
	struct fleet_spec spec = undeclared_spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *inst = add(fleet, SOURCE_STATIC, &spec);

	resolve(fleet, inst, "10.0.0.1");
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->any.n_candidates, 0);
	snapshot_unref(&snap);

	/* An engine without models is an answer, too. */
	assert_int_equal(fleet_set_models(fleet, inst, (struct pairs){ NULL, 0 }), 0);
	snap = build(fleet);
	assert_int_equal(snap->any.n_candidates, 1);
	assert_int_equal(snap->n_models, 0);
	snapshot_unref(&snap);

	assert_int_equal(fleet_set_models(fleet, inst, (struct pairs){ found, 1 }), 0);
	snap = build(fleet);
	assert_string_equal(snapshot_model(snap, SLICE("qwen"))->object.p, "{\"created\":1}");
	snapshot_unref(&snap);

	/* A new time stamp makes no snapshot of its own, but is in the next one. */
	found[0].value = SLICE("{\"created\":2}");
	assert_int_equal(fleet_set_models(fleet, inst, (struct pairs){ found, 1 }), 0);
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	assert_unchanged(fleet);
	fleet_set_state(fleet, inst, INSTANCE_READY);
	snap = build(fleet);
	assert_string_equal(snapshot_model(snap, SLICE("qwen"))->object.p, "{\"created\":2}");
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void declared_models_are_believed(void **state) {
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *inst = add(fleet, SOURCE_STATIC, &spec);

	resolve(fleet, inst, "10.0.0.1");
	struct snapshot *snap = build(fleet);
	assert_true(snap->rows[0].are_models_declared);
	snapshot_unref(&snap);
	assert_int_equal(fleet_set_models(fleet, inst, (struct pairs){ &qwen, 1 }), 0);
	assert_unchanged(fleet);

	spec.models.items = &qwen;
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	snap = build(fleet);
	assert_null(snapshot_model(snap, SLICE("llama")));
	assert_int_equal(snapshot_model(snap, SLICE("qwen"))->n_candidates, 1);
	snapshot_unref(&snap);

	/* No longer declared: not routable before the engine was asked. */
	spec.models.n = 0;
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	snap = build(fleet);
	assert_int_equal(snap->n_models, 0);
	assert_int_equal(snap->any.n_candidates, 0);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

/* The configuration's leaves at once: requests that come in between go on. */
static void who_registers_what_is_configured_loses_no_request(void **state) {
	struct fleet_spec configured[] = { spec_of("declared"), undeclared_spec_of("asked") };

	for (size_t i = 0; i < n_elems(configured); i++) {
		struct fleet_spec registered = undeclared_spec_of("http://engine:8000");
		struct fleet *fleet = fleet_new();
		struct instance *old = add(fleet, SOURCE_STATIC, &configured[i]);

		registered.instance.key = SLICE("another");
		resolve(fleet, old, "10.0.0.1");
		assert_int_equal(fleet_set_models(fleet, old, (struct pairs){ &llama, 1 }), 0);
		fleet_set_state(fleet, old, INSTANCE_READY);
		assert_int_equal(fleet_upsert(fleet, SOURCE_API, &registered), 0);
		assert_int_equal(fleet_remove(fleet, SOURCE_STATIC, configured[i].instance.name), 0);
		struct snapshot *snap = build(fleet);
		assert_int_equal(snap->n_rows, 1);
		assert_int_equal(snap->rows[0].state, INSTANCE_READY);
		assert_int_equal(snapshot_model(snap, SLICE("llama"))->n_candidates, 1);
		/* What was declared was so there; here the engine is asked. */
		assert_int_equal(
		    fleet_set_models(fleet, snap->rows[0].instance, (struct pairs){ &qwen, 1 }), 0);
		snapshot_unref(&snap);
		snap = build(fleet);
		assert_int_equal(snapshot_model(snap, SLICE("qwen"))->n_candidates, 1);
		snapshot_unref(&snap);
		fleet_free(&fleet);
	}
}

static void another_server_is_not_known_by_what_is_configured(void **state) {
	struct fleet_spec configured = spec_of("a"), registered = undeclared_spec_of("b");
	struct fleet *fleet = fleet_new();
	struct instance *old = add(fleet, SOURCE_STATIC, &configured);

	registered.instance.authority = SLICE("engine:8001");
	resolve(fleet, old, "10.0.0.1");
	fleet_set_state(fleet, old, INSTANCE_READY);
	struct instance *new = add(fleet, SOURCE_API, &registered);
	enum instance_state is;

	assert_true(fleet_state(fleet, new, &is));
	assert_int_equal(is, INSTANCE_UNKNOWN);
	fleet_free(&fleet);
}

static void equal_identity_is_one_target(void **state) {
	struct fleet_spec z = spec_of("z"), a = spec_of("a");
	struct fleet *fleet = fleet_new();

	a.models.items = &qwen;
	struct instance *older = add(fleet, SOURCE_STATIC, &z), *younger = add(fleet, SOURCE_STATIC, &a);
	resolve(fleet, older, "10.0.0.1");
	resolve(fleet, younger, "10.0.0.1");
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_rows, 2);
	assert_int_equal(snap->rows[0].primary, 1);
	assert_int_equal(snap->rows[1].primary, 1);
	assert_int_equal(snap->any.n_candidates, 1);
	assert_ptr_equal(snapshot_model(snap, SLICE("llama"))->candidates[0].instance, older);
	assert_ptr_equal(snapshot_model(snap, SLICE("qwen"))->candidates[0].instance, older);
	snapshot_unref(&snap);

	/* They part when one moves, and again when the older one goes. */
	resolve(fleet, younger, "10.0.0.2");
	snap = build(fleet);
	assert_int_equal(snap->any.n_candidates, 2);
	snapshot_unref(&snap);
	resolve(fleet, younger, "10.0.0.1");
	assert_int_equal(fleet_remove(fleet, SOURCE_STATIC, SLICE("z")), 0);
	snap = build(fleet);
	assert_int_equal(snap->any.n_candidates, 1);
	assert_ptr_equal(snap->any.candidates[0].instance, younger);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void unresolved_records_are_not_one_target(void **state) {
	struct fleet_spec specs[] = { spec_of("a"), spec_of("b") };
	struct fleet *fleet = fleet_new();

	assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, specs, 2), 0);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->rows[0].primary, 0);
	assert_int_equal(snap->rows[1].primary, 1);
	assert_int_equal(snap->any.n_candidates, 0);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void a_drained_peer_drains_the_target(void **state) {
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *fixed = add(fleet, SOURCE_STATIC, &spec);
	struct instance *registered = add(fleet, SOURCE_REGISTRY, &spec);

	resolve(fleet, fixed, "10.0.0.1");
	resolve(fleet, registered, "10.0.0.1");
	fleet_set_state(fleet, fixed, INSTANCE_READY);
	fleet_set_state(fleet, registered, INSTANCE_UNHEALTHY);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->rows[0].state, INSTANCE_READY);
	assert_int_equal(snap->any.n_candidates, 1);
	snapshot_unref(&snap);

	fleet_set_state(fleet, registered, INSTANCE_DRAINING);
	snap = build(fleet);
	assert_int_equal(snap->rows[0].state, INSTANCE_DRAINING);
	assert_int_equal(snap->any.n_candidates, 0);
	snapshot_unref(&snap);

	fleet_set_state(fleet, registered, INSTANCE_UNKNOWN);
	snap = build(fleet);
	assert_int_equal(snap->rows[0].state, INSTANCE_READY);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

/* --- the operator's wishes ----------------------------------------------------------------------- */

static void wish(struct fleet *fleet, const char *name, enum instance_state state) {
	const struct fleet_wish wish = { .state = state };

	fleet_set_wish(fleet, slice_of(name), &wish);
}

static void assert_row(struct fleet *fleet, uint32_t row, enum instance_state expected, uint32_t weight) {
	struct snapshot *snap = build(fleet);

	assert_string_equal(instance_state_text(snap->rows[row].state), instance_state_text(expected));
	assert_int_equal(snap->rows[row].weight, weight);
	assert_int_equal(snap->any.n_candidates + snap->any.n_reserve, expected < INSTANCE_DRAINING);
	snapshot_unref(&snap);
}

/* Syncs, a record of the same name elsewhere, its removal and return: the word stands. */
static void a_wish_outlives_what_sources_say(void **state) {
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *inst = add(fleet, SOURCE_REGISTRY, &spec);

	resolve(fleet, inst, "10.0.0.1");
	fleet_set_state(fleet, inst, INSTANCE_READY);
	assert_row(fleet, 0, INSTANCE_READY, 1);
	wish(fleet, "a", INSTANCE_DRAINING);
	assert_int_equal(fleet_will(fleet, inst), INSTANCE_DRAINING);
	assert_row(fleet, 0, INSTANCE_DRAINING, 1); /* before health has heard of it */
	assert_int_equal(fleet_replace(fleet, SOURCE_REGISTRY, &spec, 1), 0);
	assert_unchanged(fleet);

	spec.instance.port = 8001;
	spec.instance.url = SLICE("http://engine:8001");
	inst = NULL;
	assert_int_equal(fleet_upsert(fleet, SOURCE_REGISTRY, &spec), 0);
	assert_row(fleet, 0, INSTANCE_DRAINING, 1);

	assert_int_equal(fleet_remove(fleet, SOURCE_REGISTRY, SLICE("a")), 0);
	inst = add(fleet, SOURCE_REGISTRY, &spec);
	resolve(fleet, inst, "10.0.0.1");
	assert_row(fleet, 0, INSTANCE_DRAINING, 1);
	wish(fleet, "a", INSTANCE_UNKNOWN);
	assert_int_equal(fleet_will(fleet, inst), INSTANCE_UNKNOWN);
	assert_row(fleet, 0, INSTANCE_UNKNOWN, 1);
	fleet_free(&fleet);
}

static void a_weight_that_is_wished_goes_before_the_sources(void **state) {
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *inst = add(fleet, SOURCE_STATIC, &spec);
	struct fleet_wish heavy = { .has_weight = true, .weight = 2500 };

	resolve(fleet, inst, "10.0.0.1");
	fleet_set_wish(fleet, SLICE("a"), &heavy);
	assert_row(fleet, 0, INSTANCE_UNKNOWN, 2500);
	spec.weight = 7;
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	assert_row(fleet, 0, INSTANCE_UNKNOWN, 2500);
	wish(fleet, "a", INSTANCE_UNKNOWN);
	assert_row(fleet, 0, INSTANCE_UNKNOWN, 7);
	fleet_free(&fleet);
}

static void a_source_may_drain_too(void **state) {
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *inst = add(fleet, SOURCE_REGISTRY, &spec);

	resolve(fleet, inst, "10.0.0.1");
	spec.is_draining = true;
	assert_int_equal(fleet_upsert(fleet, SOURCE_REGISTRY, &spec), 0);
	assert_row(fleet, 0, INSTANCE_DRAINING, 1);
	wish(fleet, "a", INSTANCE_DISABLED);
	assert_int_equal(fleet_will(fleet, inst), INSTANCE_DISABLED);
	wish(fleet, "a", INSTANCE_UNKNOWN);
	assert_int_equal(fleet_will(fleet, inst), INSTANCE_DRAINING);
	spec.is_draining = false;
	assert_int_equal(fleet_upsert(fleet, SOURCE_REGISTRY, &spec), 0);
	assert_row(fleet, 0, INSTANCE_UNKNOWN, 1);
	fleet_free(&fleet);
}

static void count_wish(void *context, struct slice name, const struct fleet_wish *wish) {
	unsigned *n = context;

	*n += wish->state == INSTANCE_DRAINING && name.n > 0;
}

static void wishes_are_bounded(void **state) {
	struct fleet_spec here = spec_of("n0");
	struct fleet *fleet = fleet_new();
	unsigned n = 0;
	char name[16];

	add(fleet, SOURCE_REGISTRY, &here);
	for (unsigned i = 0; i < FLEET_WISHES_MAX; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		wish(fleet, name, INSTANCE_DRAINING);
	}
	wish(fleet, "n1", INSTANCE_DISABLED);
	fleet_each_wish(fleet, count_wish, &n);
	assert_int_equal(n, FLEET_WISHES_MAX - 1);
	wish(fleet, "n2", INSTANCE_UNKNOWN);
	wish(fleet, "more", INSTANCE_DRAINING); /* in its place */
	assert_int_equal(fleet_wish(fleet, SLICE("n1")).state, INSTANCE_DISABLED);
	wish(fleet, "one more", INSTANCE_DRAINING); /* n0 is here, n1 is the oldest that is not */
	assert_int_equal(fleet_wish(fleet, SLICE("n0")).state, INSTANCE_DRAINING);
	assert_int_equal(fleet_wish(fleet, SLICE("n1")).state, INSTANCE_UNKNOWN);
	assert_int_equal(fleet_wish(fleet, SLICE("n3")).state, INSTANCE_DRAINING);
	assert_int_equal(fleet_wish(fleet, SLICE("one more")).state, INSTANCE_DRAINING);
	fleet_free(&fleet);
}

/* Who had the name goes on beside who has it now, until it is let go. */
static void another_target_takes_over_a_name(void **state) {
	struct fleet_spec specs[] = { spec_of("a"), spec_of("b") };
	struct fleet *fleet = fleet_new();
	struct instance *old = add(fleet, SOURCE_STATIC, &specs[0]);

	unsigned old_port = old->spec.port;

	resolve(fleet, old, "10.0.0.1");
	add(fleet, SOURCE_STATIC, &specs[1]);
	assert_int_equal(fleet_take_over(fleet, SOURCE_STATIC, &specs[0]), 0);
	assert_unchanged(fleet); /* it is the same target */
	for (unsigned port = 8001; port < 8004; port++) {
		specs[0].instance.port = (uint16_t)port;
		assert_int_equal(fleet_take_over(fleet, SOURCE_STATIC, &specs[0]), 0);
		struct snapshot *snap = build(fleet);
		assert_int_equal(snap->n_rows, 3);
		assert_int_equal(snap->rows[0].instance->spec.port, port);
		assert_int_equal(snap->rows[0].source, SOURCE_STATIC);
		assert_false(snap->rows[0].is_namesake || snap->rows[1].is_namesake);
		assert_true(snap->rows[2].is_namesake);
		assert_int_equal(snap->rows[2].source, SOURCE_LEAVING);
		/* 8001 was never to be found: the one before it goes on; 8002 was. */
		assert_int_equal(snap->rows[2].instance->spec.port, port == 8003 ? 8002 : old_port);
		assert_int_equal(snap->any.n_candidates, 1);
		if (port == 8002)
			resolve(fleet, snap->rows[0].instance, "10.0.0.2");
		snapshot_unref(&snap);
	}
	assert_int_equal(fleet_replace(fleet, SOURCE_LEAVING, NULL, 0), 0);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_rows, 2);
	assert_int_equal(snap->rows[0].instance->spec.port, 8003);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

/* It takes no connections; or its babysitter, which only the registry's record has, says that it does not
 * serve. */
static void a_refusing_or_denied_peer_ejects_the_target(void **state) {
	for (unsigned i = 0; i < 4; i++) {
		bool is_primary_ill = i & 1, is_denied = i & 2;
		struct fleet_spec spec = spec_of("a");
		struct fleet *fleet = fleet_new();
		struct instance *fixed = add(fleet, SOURCE_STATIC, &spec);
		struct instance *registered = add(fleet, SOURCE_REGISTRY, &spec);

		resolve(fleet, fixed, "10.0.0.1");
		resolve(fleet, registered, "10.0.0.1");
		fleet_set_state(fleet, fixed, is_primary_ill ? INSTANCE_UNHEALTHY : INSTANCE_READY);
		fleet_set_state(fleet, registered, INSTANCE_UNHEALTHY);
		fleet_set_share(fleet, fixed, 1, is_primary_ill);
		fleet_set_share(fleet, registered, 1, !is_denied);
		fleet_set_denied(fleet, registered, is_denied);
		struct snapshot *snap = build(fleet);
		assert_int_equal(snap->rows[0].state, INSTANCE_UNHEALTHY);
		assert_int_equal(snap->rows[0].share, 1);
		/* A panic serves who is no more than denied. */
		assert_int_equal(snap->rows[0].is_refusing, !is_denied || is_primary_ill);
		assert_false(snapshot_is_routable(snap, 0));
		snapshot_unref(&snap);

		fleet_set_state(fleet, fixed, INSTANCE_READY);
		fleet_set_state(fleet, registered, INSTANCE_READY);
		fleet_set_share(fleet, fixed, INSTANCE_SHARE_FULL, false);
		fleet_set_share(fleet, registered, 1, false);
		fleet_set_denied(fleet, registered, false);
		snap = build(fleet);
		assert_true(snapshot_is_routable(snap, 0));
		assert_int_equal(snap->rows[0].share, INSTANCE_SHARE_FULL);
		snapshot_unref(&snap);
		fleet_free(&fleet);
	}
}

static void ready_after_draining(void *object) {
	struct fleet *fleet = object;
	struct snapshot *snap = fleet_build(fleet);

	fleet_set_state(fleet, snap->rows[0].instance, INSTANCE_READY);
}

static void an_illegal_move_aborts(void **state) {
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *inst = add(fleet, SOURCE_STATIC, &spec);

	fleet_set_state(fleet, inst, INSTANCE_DRAINING);
	assert_true(scene_aborts(ready_after_draining, fleet));
	fleet_set_state(fleet, inst, INSTANCE_UNKNOWN);
	fleet_set_state(fleet, inst, INSTANCE_DEGRADED);
	assert_false(scene_aborts(ready_after_draining, fleet));
	fleet_free(&fleet);
}

static void addresses_are_a_set_up_to_the_limit(void **state) {
	struct sockaddr_storage many[INSTANCE_ADDRESSES_MAX + 1], turned[2];
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *inst = add(fleet, SOURCE_STATIC, &spec);

	for (size_t i = 0; i < n_elems(many); i++) {
		many[i] = scene_address("10.0.0.1", 80);
		((struct sockaddr_in *)&many[i])->sin_addr.s_addr = htonl(0x0a000001 + (uint32_t)i);
	}
	fleet_set_addresses(fleet, inst, many, 2);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->rows[0].n_addresses, 2);
	snapshot_unref(&snap);
	instance_set_good_address(inst, 1);
	turned[0] = many[1], turned[1] = many[0];
	fleet_set_addresses(fleet, inst, turned, 2);
	assert_unchanged(fleet);
	assert_int_equal(instance_good_address(inst, 2), 1);

	fleet_set_addresses(fleet, inst, many, n_elems(many));
	assert_int_equal(instance_good_address(inst, INSTANCE_ADDRESSES_MAX), 0);
	snap = build(fleet);
	assert_int_equal(snap->rows[0].n_addresses, INSTANCE_ADDRESSES_MAX);
	snapshot_unref(&snap);
	fleet_set_addresses(fleet, inst, NULL, 0);
	snap = build(fleet);
	assert_int_equal(snap->any.n_candidates, 0);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void bad_records_are_refused_singly(void **state) {
	static char long_text[FLEET_TEXT_BYTES_MAX + 2];
	struct fleet_spec good = spec_of("good"), bad[7];
	struct pair model = { { long_text, FLEET_MODEL_BYTES_MAX + 1 }, { NULL, 0 } };
	struct fleet *fleet = fleet_new();

	memset(long_text, 'x', sizeof(long_text) - 1);
	for (size_t i = 0; i < n_elems(bad); i++)
		bad[i] = spec_of("bad");
	bad[0].instance.name = (struct slice){ NULL, 0 };
	bad[1].instance.url = (struct slice){ long_text, FLEET_TEXT_BYTES_MAX + 1 };
	bad[2].instance.authority = SLICE("evil\r\nx: y");
	bad[3].instance.port = 0;
	bad[4].weight = FLEET_WEIGHT_MAX + 1;
	bad[5].models = (struct pairs){ &model, 1 };
	bad[6].instance.host = (struct slice){ NULL, 0 };
	for (size_t i = 0; i < n_elems(bad); i++) {
		struct fleet_spec specs[] = { bad[i], good };

		assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, specs, 2), FLEET_E_LIMIT);
	}
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_rows, 1);
	snapshot_unref(&snap);

	/* At the limits all is well. */
	model.key.n = FLEET_MODEL_BYTES_MAX;
	good.models = (struct pairs){ &model, 1 };
	good.weight = FLEET_WEIGHT_MAX;
	good.instance.url = (struct slice){ long_text, FLEET_TEXT_BYTES_MAX };
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &good), 0);

	/* One that was good before stays as it was. */
	struct fleet_spec spoilt = good;
	spoilt.weight = FLEET_WEIGHT_MAX + 1;
	assert_int_equal(fleet_replace(fleet, SOURCE_STATIC, &spoilt, 1), FLEET_E_LIMIT);
	snap = build(fleet);
	assert_int_equal(snap->n_rows, 1);
	assert_int_equal(snap->rows[0].weight, FLEET_WEIGHT_MAX);
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void an_engines_list_has_limits(void **state) {
	static char names[FLEET_MODELS_MAX + 1][16], object[FLEET_MODELS_BYTES_MAX];
	static struct pair models[FLEET_MODELS_MAX + 1];
	struct fleet_spec spec = undeclared_spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *inst = add(fleet, SOURCE_STATIC, &spec);

	for (unsigned i = 0; i <= FLEET_MODELS_MAX; i++) {
		snprintf(names[i], sizeof(names[i]), "m%u", i);
		models[i].key = slice_of(names[i]);
	}
	assert_int_equal(fleet_set_models(fleet, inst, (struct pairs){ models, FLEET_MODELS_MAX }), 0);
	assert_int_equal(
	    fleet_set_models(fleet, inst, (struct pairs){ models, FLEET_MODELS_MAX + 1 }), FLEET_E_LIMIT);
	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_models, FLEET_MODELS_MAX);
	snapshot_unref(&snap);

	/* What does not fit or is no name is left out; the rest counts. */
	memset(object, 'x', sizeof(object));
	models[0].value = (struct slice){ object, sizeof(object) };
	models[1].key = (struct slice){ NULL, 0 };
	models[2].key = SLICE("new\nline");
	assert_int_equal(fleet_set_models(fleet, inst, (struct pairs){ models, 5 }), FLEET_E_LIMIT);
	snap = build(fleet);
	assert_int_equal(snap->n_models, 2);
	assert_non_null(snapshot_model(snap, SLICE("m3")));
	assert_non_null(snapshot_model(snap, SLICE("m4")));
	snapshot_unref(&snap);
	fleet_free(&fleet);
}

static void the_fleet_can_be_full(void **state) {
	struct fleet *fleet = fleet_new();
	char name[16];

	for (unsigned i = 0; i < INSTANCE_SLOTS_MAX; i++) {
		snprintf(name, sizeof(name), "e%u", i);
		struct fleet_spec spec = spec_of(name);
		assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &spec), 0);
	}
	struct fleet_spec extra = spec_of("extra"), moved = spec_of("e7");
	moved.instance.port = 8001;
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &extra), FLEET_E_FULL);
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &moved), FLEET_E_FULL);

	struct snapshot *snap = build(fleet);
	assert_int_equal(snap->n_rows, INSTANCE_SLOTS_MAX);
	assert_int_equal(row_of(snap, "e7")->instance->spec.port, 8000);
	/* A slot comes back when the last snapshot that lists its instance is gone. */
	assert_int_equal(fleet_remove(fleet, SOURCE_STATIC, SLICE("e9")), 0);
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &extra), FLEET_E_FULL);
	snapshot_unref(&snap);
	assert_int_equal(fleet_upsert(fleet, SOURCE_STATIC, &extra), 0);
	fleet_free(&fleet);
}

static void what_a_connector_calls_an_engine_is_in_its_row(void **state) {
	struct fleet_spec spec = spec_of("a");
	struct fleet *fleet = fleet_new();
	struct instance *inst = instance_ref(add(fleet, SOURCE_ZMQ, &spec));
	char longest[FLEET_KV_ENGINE_BYTES + 1];

	memset(longest, 'e', sizeof(longest));
	assert_int_equal(fleet_set_kv_engine(fleet, inst, SLICE("engine-1")), 0);
	struct snapshot *snap = build(fleet);
	assert_string_equal(snap->rows[0].kv_engine.p, "engine-1");
	assert_int_equal(snap->rows[0].kv_engine.n, 8);
	assert_int_equal(fleet_set_kv_engine(fleet, inst, SLICE("engine-1")), 0);
	assert_int_equal(fleet_set_kv_engine(fleet, inst, SLICE("engine\n")), FLEET_E_LIMIT);
	assert_int_equal(
	    fleet_set_kv_engine(fleet, inst, (struct slice){ longest, sizeof(longest) }), FLEET_E_LIMIT);
	assert_unchanged(fleet);
	snapshot_unref(&snap);

	assert_int_equal(
	    fleet_set_kv_engine(fleet, inst, (struct slice){ longest, FLEET_KV_ENGINE_BYTES }), 0);
	snap = build(fleet);
	assert_int_equal(snap->rows[0].kv_engine.n, FLEET_KV_ENGINE_BYTES);
	snapshot_unref(&snap);
	assert_int_equal(inst->learned.n_restarts, 1);
	assert_int_equal(fleet_set_kv_engine(fleet, inst, (struct slice){ NULL, 0 }), 0);
	assert_int_equal(inst->learned.n_restarts, 1);
	snap = build(fleet);
	assert_int_equal(snap->rows[0].kv_engine.n, 0);
	snapshot_unref(&snap);

	assert_int_equal(fleet_remove(fleet, SOURCE_ZMQ, SLICE("a")), 0);
	snap = build(fleet);
	assert_int_equal(fleet_set_kv_engine(fleet, inst, SLICE("engine-1")), 0);
	assert_unchanged(fleet);
	snapshot_unref(&snap);
	instance_unref(&inst);
	fleet_free(&fleet);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_snapshot_is_built_when_something_changed),
		cmocka_unit_test(replace_removes_what_it_does_not_name),
		cmocka_unit_test(remove_is_by_source_and_name),
		cmocka_unit_test(models_are_known_for_a_time_after_their_last_record),
		cmocka_unit_test(an_engine_that_moved_may_have_the_same_models),
		cmocka_unit_test(lost_models_have_a_limit),
		cmocka_unit_test(a_new_url_is_a_new_instance),
		cmocka_unit_test(models_are_discovered),
		cmocka_unit_test(declared_models_are_believed),
		cmocka_unit_test(who_registers_what_is_configured_loses_no_request),
		cmocka_unit_test(another_server_is_not_known_by_what_is_configured),
		cmocka_unit_test(equal_identity_is_one_target),
		cmocka_unit_test(unresolved_records_are_not_one_target),
		cmocka_unit_test(a_drained_peer_drains_the_target),
		cmocka_unit_test(a_wish_outlives_what_sources_say),
		cmocka_unit_test(a_weight_that_is_wished_goes_before_the_sources),
		cmocka_unit_test(a_source_may_drain_too),
		cmocka_unit_test(wishes_are_bounded),
		cmocka_unit_test(another_target_takes_over_a_name),
		cmocka_unit_test(a_refusing_or_denied_peer_ejects_the_target),
		cmocka_unit_test(an_illegal_move_aborts),
		cmocka_unit_test(addresses_are_a_set_up_to_the_limit),
		cmocka_unit_test(bad_records_are_refused_singly),
		cmocka_unit_test(an_engines_list_has_limits),
		cmocka_unit_test(the_fleet_can_be_full),
		cmocka_unit_test(what_a_connector_calls_an_engine_is_in_its_row),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
