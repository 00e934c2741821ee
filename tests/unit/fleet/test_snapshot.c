#include "unit/fleet/scene.h"

#include <pthread.h>

#include "fleet/label.h"

#define ROWS_MAX 8

/* Rows that are ready, resolved and asked; the tests change what they are about. */
struct bed {
	struct snapshot_row rows[ROWS_MAX];
	struct sockaddr_storage address;
	uint32_t n;
};

static void bed_add(struct bed *bed, const struct pair *models, uint32_t n_models) {
	uint32_t r = bed->n++;

	bed->address = scene_address("10.0.0.1", 80);
	bed->rows[r] = (struct snapshot_row){
		.instance = scene_instance("a"),
		.state = INSTANCE_READY,
		.weight = r + 1,
		.are_models_known = true,
		.primary = r,
		.addresses = &bed->address,
		.n_addresses = 1,
		.models = { models, n_models },
	};
}

static struct snapshot *bed_snapshot(struct bed *bed) {
	return snapshot_new(1, bed->rows, bed->n, (struct pairs){ NULL, 0 });
}

static void bed_free(struct bed *bed) {
	for (uint32_t r = 0; r < bed->n; r++)
		instance_unref(&bed->rows[r].instance);
}

static const struct pair llama = { SLICE("llama"), SLICE("{\"id\":\"llama\"}") };
static const struct pair qwen = { SLICE("qwen"), { NULL, 0 } };
static const struct pair both[] = { { SLICE("qwen"), SLICE("{\"id\":\"qwen\"}") },
	{ SLICE("llama"), SLICE("{\"id\":\"llama\",\"n\":2}") } };

static void assert_candidates(const struct model *model, const uint32_t *rows, uint32_t n) {
	assert_non_null(model);
	assert_int_equal(model->n_candidates, n);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(model->candidates[i].row, rows[i]);
}

static void lost_models_are_known_and_served_by_nobody(void **state) {
	static const struct pair lost[] = { { SLICE("llama"), { NULL, 0 } }, { SLICE("gone"), { NULL, 0 } } };
	struct bed bed = { .n = 0 };

	bed_add(&bed, &llama, 1);
	struct snapshot *snap = snapshot_new(1, bed.rows, bed.n, (struct pairs){ lost, n_elems(lost) });
	assert_int_equal(snap->n_models, 2);
	assert_candidates(snapshot_model(snap, SLICE("gone")), NULL, 0);
	assert_int_equal(snapshot_model(snap, SLICE("gone"))->n_healthy, 0);
	assert_candidates(snapshot_model(snap, SLICE("llama")), (uint32_t[]){ 0 }, 1);
	assert_string_equal(snapshot_model(snap, SLICE("llama"))->object.p, "{\"id\":\"llama\"}");
	snapshot_unref(&snap);
	bed_free(&bed);
}

static void models_are_sorted_and_found(void **state) {
	struct bed bed = { .n = 0 };

	bed_add(&bed, &qwen, 1);
	bed_add(&bed, &llama, 1);
	bed_add(&bed, both, 2);
	struct snapshot *snap = bed_snapshot(&bed);

	assert_int_equal(snap->n_models, 2);
	assert_true(slice_eq(snap->models[0].name, SLICE("llama")));
	assert_true(slice_eq(snap->models[1].name, SLICE("qwen")));
	assert_ptr_equal(snapshot_model(snap, SLICE("llama")), &snap->models[0]);
	assert_ptr_equal(snapshot_model(snap, SLICE("qwen")), &snap->models[1]);
	assert_null(snapshot_model(snap, SLICE("llam")));
	assert_null(snapshot_model(snap, SLICE("LLAMA")));
	assert_null(snapshot_model(snap, (struct slice){ NULL, 0 }));

	assert_candidates(&snap->models[0], (uint32_t[]){ 1, 2 }, 2);
	assert_candidates(&snap->models[1], (uint32_t[]){ 0, 2 }, 2);
	assert_candidates(&snap->any, (uint32_t[]){ 0, 1, 2 }, 3);
	assert_int_equal(snap->n_candidates, 7);
	assert_int_equal(snap->models[0].candidates[1].weight, 3);
	assert_int_equal(snap->models[0].candidates[1].slot, bed.rows[2].instance->slot);
	assert_ptr_equal(snap->models[0].candidates[1].instance, bed.rows[2].instance);
	assert_string_equal(label_text(LABEL_MODEL, snap->models[1].label), "qwen");
	assert_int_equal(snap->any.label, LABEL_OTHER);
	/* The first object there is, not the first row. */
	assert_string_equal(snap->models[0].object.p, "{\"id\":\"llama\"}");
	assert_string_equal(snap->models[1].object.p, "{\"id\":\"qwen\"}");
	snapshot_unref(&snap);
	bed_free(&bed);
}

static const struct traits *traits_at(const struct snapshot *snap, const char *model, uint32_t i) {
	const struct model *m = model[0] ? snapshot_model(snap, slice_of(model)) : &snap->any;

	assert_true(i < m->n_candidates + m->n_reserve);
	return snapshot_traits(snap, &m->candidates[i]);
}

/* Row 1 is in reserve, row 3 is drained: the first has traits as any other, the second when asked for. */
static void what_is_said_of_candidates_stands_beside_them(void **state) {
	static const struct pair labels[][2] = {
		{ { SLICE("context@qwen"), SLICE("100") }, { SLICE("zone"), SLICE("z") } },
		{ { SLICE("clearance"), SLICE("internal") }, { SLICE("capacity"), SLICE("3") } },
		{ { SLICE("clearance"), SLICE("internal") }, { SLICE("capacity"), SLICE("4") } },
	};
	static const struct pair sized[] = { { SLICE("qwen"), SLICE("{\"max_model_len\":300}") },
		{ SLICE("llama"), SLICE("{\"max_model_len\":400}") } };
	struct bed bed = { .n = 0 };
	struct traits drained;

	for (uint32_t r = 0; r < 4; r++) {
		bed_add(&bed, r == 3 ? &llama : sized, r == 3 ? 1 : 2);
		bed.rows[r].labels = (struct pairs){ labels[r % 3], 2 };
	}
	bed.rows[1].weight = 0;
	bed.rows[2].source = SOURCE_REGISTRY;
	bed.rows[3].state = INSTANCE_DRAINING;
	struct snapshot *snap = bed_snapshot(&bed);

	assert_int_equal(traits_at(snap, "qwen", 0)->context_tokens, 100);
	assert_int_equal(traits_at(snap, "llama", 0)->context_tokens, 400);
	assert_int_equal(traits_at(snap, "", 0)->context_tokens, 0);
	assert_true(traits_at(snap, "", 0)->zone == traits_word(SLICE("z")));
	assert_int_equal(traits_at(snap, "qwen", 1)->clearance, PRIVACY_PUBLIC);
	assert_int_equal(traits_at(snap, "qwen", 1)->capacity, 4);
	assert_int_equal(traits_at(snap, "qwen", 2)->clearance, PRIVACY_INTERNAL);
	assert_int_equal(traits_at(snap, "qwen", 2)->context_tokens, 300);
	assert_int_equal(snapshot_model(snap, SLICE("qwen"))->least.known,
	    1u << TRAIT_CONTEXT | 1u << TRAIT_ZONE | 1u << TRAIT_CLEARANCE | 1u << TRAIT_CAPACITY);
	assert_int_equal(
	    snap->any.least.known, 1u << TRAIT_ZONE | 1u << TRAIT_CLEARANCE | 1u << TRAIT_CAPACITY);
	const struct traits_least *least = &snapshot_model(snap, SLICE("qwen"))->least;
	assert_int_equal(least->context_tokens, 100);
	assert_int_equal(least->clearance, PRIVACY_PUBLIC);
	assert_int_equal(least->capabilities, UINT32_MAX);
	snapshot_row_traits(snap, 3, SLICE("qwen"), &drained);
	assert_int_equal(drained.context_tokens, 100);
	snapshot_unref(&snap);
	bed_free(&bed);
}

static void rows_of_one_target_speak_for_it(void **state) {
	static const struct pair labels[][2] = {
		{ { SLICE("clearance"), SLICE("restricted") }, { SLICE("capacity"), SLICE("3") } },
		{ { SLICE("clearance"), SLICE("internal") }, { SLICE("context"), SLICE("500") } },
		{ { SLICE("clearance"), SLICE("confidential") }, { SLICE("context"), SLICE("600") } },
	};
	struct bed bed = { .n = 0 };
	struct traits of_peer;

	for (uint32_t r = 0; r < 3; r++) {
		bed_add(&bed, &llama, 1);
		bed.rows[r].labels = (struct pairs){ labels[r], 2 };
		bed.rows[r].primary = 1;
	}
	bed.rows[0].source = bed.rows[1].source = SOURCE_REGISTRY;
	struct snapshot *snap = bed_snapshot(&bed);

	assert_int_equal(traits_at(snap, "llama", 0)->capacity, 3);
	assert_int_equal(traits_at(snap, "llama", 0)->context_tokens, 500);
	assert_int_equal(traits_at(snap, "llama", 0)->clearance, PRIVACY_CONFIDENTIAL);
	snapshot_row_traits(snap, 2, SLICE("llama"), &of_peer);
	assert_memory_equal(&of_peer, traits_at(snap, "llama", 0), sizeof(of_peer));
	snapshot_unref(&snap);
	bed_free(&bed);
}

static void only_some_rows_are_routable(void **state) {
	struct bed bed = { .n = 0 };

	for (int i = 0; i < ROWS_MAX; i++)
		bed_add(&bed, &llama, 1);
	for (enum instance_state s = 0; s < INSTANCE_STATES; s++)
		bed.rows[s].state = s;
	bed.rows[6].are_models_known = false;
	bed.rows[7].n_addresses = 0;
	struct snapshot *snap = bed_snapshot(&bed);

	assert_candidates(&snap->any, (uint32_t[]){ 0, 1, 2 }, 3);
	assert_candidates(snapshot_model(snap, SLICE("llama")), (uint32_t[]){ 0, 1, 2 }, 3);
	for (uint32_t r = 0; r < ROWS_MAX; r++)
		assert_int_equal(snapshot_is_routable(snap, r), r < 3);
	snapshot_unref(&snap);
	bed_free(&bed);
}

static void a_model_without_routable_rows_is_known(void **state) {
	struct bed bed = { .n = 0 };

	bed_add(&bed, &llama, 1);
	bed_add(&bed, &qwen, 1);
	bed.rows[0].state = INSTANCE_DRAINING;
	struct snapshot *snap = bed_snapshot(&bed);

	assert_candidates(snapshot_model(snap, SLICE("llama")), NULL, 0);
	assert_int_equal(snapshot_model(snap, SLICE("llama"))->object.n, 0);
	snapshot_unref(&snap);
	bed_free(&bed);
}

/* The candidates of one model with n rows: h healthy, u unhealthy, r refusing, d draining; H and U have the
 * weight 0. */
static void assert_chosen(const char *health, const char *chosen, const char *reserve, bool is_panic) {
	struct bed bed = { .n = 0 };
	char found[16] = "";

	for (const char *p = health; *p; p++) {
		bed_add(&bed, &llama, 1);
		struct snapshot_row *row = &bed.rows[bed.n - 1];
		row->state = *p == 'h' || *p == 'H' ? INSTANCE_READY
		    : *p == 'd'                     ? INSTANCE_DRAINING
						    : INSTANCE_UNHEALTHY;
		if (*p == 'H' || *p == 'U')
			row->weight = 0;
		row->is_refusing = *p == 'r';
	}
	struct snapshot *snap = bed_snapshot(&bed);
	const struct model *model = snapshot_model(snap, SLICE("llama"));
	for (uint32_t i = 0; i < model->n_candidates + model->n_reserve; i++)
		found[i] = health[model->candidates[i].row];
	assert_string_equal(found + model->n_candidates, reserve);
	found[model->n_candidates] = 0;
	assert_string_equal(found, chosen);
	assert_int_equal(model->is_panic, is_panic);
	assert_int_equal(snap->any.n_candidates, model->n_candidates);
	assert_int_equal(snap->any.n_reserve, model->n_reserve);
	assert_int_equal(snap->any.is_panic, is_panic);
	snapshot_unref(&snap);
	bed_free(&bed);
}

static void unhealthy_rows_are_left_out_until_they_are_more_than_half(void **state) {
	assert_chosen("hhh", "hhh", "", false);
	assert_chosen("huh", "hh", "u", false);
	assert_chosen("hu", "h", "u", false);
	assert_chosen("huu", "huu", "", true);
	assert_chosen("uuuu", "uuuu", "", true);
	assert_chosen("huur", "huu", "r", true);
	assert_chosen("hrr", "h", "rr", false); /* they would not be served */
	assert_chosen("uudddd", "uu", "", true);
	assert_chosen("hudd", "h", "u", false); /* who is drained is not counted */
}

static void the_last_one_left_is_always_tried(void **state) {
	assert_chosen("u", "u", "", true);
	assert_chosen("r", "", "r", false);
	assert_chosen("rr", "", "rr", false);
	assert_chosen("ru", "u", "r", true);
	assert_chosen("rd", "", "r", false);
	assert_chosen("d", "", "", false);
}

static void a_row_of_weight_0_is_tried_when_nobody_else_serves(void **state) {
	assert_chosen("hHh", "hh", "H", false);
	assert_chosen("HH", "HH", "", false);
	assert_chosen("HuH", "HH", "u", false);
	assert_chosen("hHu", "h", "Hu", false); /* it counts as well in what makes a panic */
	assert_chosen("hUuu", "huu", "U", true);
	assert_chosen("Huu", "Huu", "", true); /* none that is well has a weight */
	assert_chosen("UU", "UU", "", true);
	assert_chosen("Hd", "H", "", false);
}

static void a_model_may_have_more_candidates_than_there_are_for_any(void **state) {
	struct bed bed = { .n = 0 };

	for (unsigned i = 0; i < 6; i++) {
		bed_add(&bed, i < 2 ? &llama : &qwen, 1);
		bed.rows[i].state = i < 2 ? INSTANCE_UNHEALTHY : INSTANCE_READY;
	}
	struct snapshot *snap = bed_snapshot(&bed);

	assert_candidates(snapshot_model(snap, SLICE("llama")), (uint32_t[]){ 0, 1 }, 2);
	assert_int_equal(snapshot_model(snap, SLICE("llama"))->n_healthy, 0);
	assert_candidates(&snap->any, (uint32_t[]){ 2, 3, 4, 5 }, 4);
	snapshot_unref(&snap);
	bed_free(&bed);
}

/* Two ready rows of these weights and shares, or, when is_ill, of a reserve: their ratio is `expected`. */
static void assert_ratio(
    const uint32_t *weights, const uint8_t *shares, bool is_ill, const uint16_t *expected) {
	struct bed bed = { .n = 0 };

	for (uint32_t r = 0; r < 2; r++) {
		bed_add(&bed, &llama, 1);
		bed.rows[r].weight = weights[r];
		bed.rows[r].share = shares[r];
		bed.rows[r].state = is_ill ? INSTANCE_UNHEALTHY : INSTANCE_READY;
		bed.rows[r].is_refusing = is_ill;
	}
	struct snapshot *snap = bed_snapshot(&bed);
	const struct model *models[] = { &snap->any, snapshot_model(snap, SLICE("llama")) };
	for (size_t m = 0; m < n_elems(models); m++) {
		assert_int_equal(is_ill ? models[m]->n_reserve : models[m]->n_candidates, 2);
		for (uint32_t i = 0; i < 2; i++)
			assert_int_equal(models[m]->candidates[i].weight, expected[i]);
	}
	assert_int_equal(snap->rows[0].weight, weights[0]);
	snapshot_unref(&snap);
	bed_free(&bed);
}

static void weights_and_shares_make_ratios(void **state) {
	enum { ONE = INSTANCE_WEIGHT_ONE, MOST = FLEET_WEIGHT_MAX, FULL = INSTANCE_SHARE_FULL };
	static const struct {
		uint32_t weights[2];
		uint8_t shares[2]; /* 0 is full */
		uint16_t ratio[2];
	} rows[] = {
		{ { ONE, ONE }, { FULL, 0 }, { 1, 1 } },
		{ { 3 * ONE, ONE }, { 4, 4 }, { 3, 1 } },
		{ { 2000 * ONE, 1000 * ONE }, { 0, 0 }, { 2, 1 } },
		{ { 2 * ONE + ONE / 2, ONE }, { 0, 0 }, { 5, 2 } },
		{ { MOST, MOST - ONE }, { 0, 0 }, { UINT16_MAX, UINT16_MAX } },
		{ { MOST, 333333 * ONE }, { 0, 0 }, { UINT16_MAX, 21845 } },
		{ { MOST, ONE }, { 0, 0 }, { UINT16_MAX, 1 } },
		{ { MOST, 1 }, { 0, 0 }, { UINT16_MAX, 1 } },
		{ { ONE, ONE }, { 1, FULL }, { 1, 16 } },
		{ { 3 * ONE, 1000 * ONE }, { 4, FULL }, { 3, 4000 } },
		{ { MOST, MOST }, { 1, FULL }, { 1, 16 } },
		{ { MOST, 1000 * ONE }, { 1, FULL }, { 125, 2 } },
		{ { 0, 0 }, { 0, 0 }, { 1, 1 } },
		{ { 0, 0 }, { 1, FULL }, { 1, 16 } },
	};

	for (size_t i = 0; i < n_elems(rows); i++)
		for (int is_ill = 0; is_ill < 2; is_ill++)
			assert_ratio(rows[i].weights, rows[i].shares, is_ill, rows[i].ratio);
	/* In a reserve, where it stands beside others, 0 is 1. */
	assert_ratio((uint32_t[]){ 0, 3 * ONE }, (uint8_t[]){ 0, 0 }, true, (uint16_t[]){ 1, 3 });
}

static void costs_divide_weights(void **state) {
	static const struct {
		const char *costs[2];
		uint16_t ratio[2];
	} rows[] = {
		{ { "2", "2" }, { 1, 1 } },
		{ { "1", "3" }, { UINT16_MAX, 21845 } },
		{ { "2", "0.5" }, { 1, 4 } },
		{ { "0", "0.01" }, { 1, 1 } },
		{ { "0", "1" }, { 100, 1 } },
		{ { "1000000000", "0" }, { 1, UINT16_MAX } },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct bed bed = { .n = 0 };
		struct pair labels[2];

		for (uint32_t r = 0; r < 2; r++) {
			labels[r] = (struct pair){ SLICE("cost"), slice_of(rows[i].costs[r]) };
			bed_add(&bed, &llama, 1);
			bed.rows[r].weight = INSTANCE_WEIGHT_ONE;
			bed.rows[r].labels = (struct pairs){ &labels[r], 1 };
		}
		struct snapshot *snap = bed_snapshot(&bed);
		for (uint32_t r = 0; r < 2; r++)
			assert_int_equal(snap->models[0].candidates[r].weight, rows[i].ratio[r]);
		snapshot_unref(&snap);
		bed_free(&bed);
	}
}

static void rows_of_one_target_are_one_candidate(void **state) {
	struct bed bed = { .n = 0 };

	bed_add(&bed, &qwen, 1);
	bed_add(&bed, both, 2);
	bed_add(&bed, &llama, 1);
	bed.rows[0].primary = 2;
	bed.rows[1].primary = 2;
	bed.rows[1].state = INSTANCE_UNHEALTHY; /* what its primary is counts */
	struct snapshot *snap = bed_snapshot(&bed);

	assert_candidates(&snap->any, (uint32_t[]){ 2 }, 1);
	assert_candidates(snapshot_model(snap, SLICE("llama")), (uint32_t[]){ 2 }, 1);
	assert_candidates(snapshot_model(snap, SLICE("qwen")), (uint32_t[]){ 2 }, 1);
	assert_string_equal(snapshot_model(snap, SLICE("qwen"))->object.p, "{\"id\":\"qwen\"}");
	assert_int_equal(snap->n_rows, 3);
	assert_true(snapshot_is_routable(snap, 1));
	snapshot_unref(&snap);
	bed_free(&bed);
}

static void a_model_named_twice_is_one(void **state) {
	struct pair twice[] = { llama, llama };
	struct bed bed = { .n = 0 };

	bed_add(&bed, twice, 2);
	struct snapshot *snap = bed_snapshot(&bed);

	assert_int_equal(snap->n_models, 1);
	assert_candidates(&snap->models[0], (uint32_t[]){ 0 }, 1);
	snapshot_unref(&snap);
	bed_free(&bed);
}

static void uniform_means_all_serve_all(void **state) {
	struct bed bed = { .n = 0 };
	struct snapshot *snap = bed_snapshot(&bed);

	assert_int_equal(snap->any.n_candidates, 0);
	assert_null(snapshot_model(snap, SLICE("llama")));
	snapshot_unref(&snap);

	bed_add(&bed, both, 2);
	bed_add(&bed, both, 2);
	snap = bed_snapshot(&bed);
	snapshot_unref(&snap);

	bed.rows[1].models.n = 1;
	snap = bed_snapshot(&bed);
	snapshot_unref(&snap);
	bed_free(&bed);
}

static void rows_are_deep_copies(void **state) {
	char name[] = "llama", zone[] = "eu";
	struct pair model = { slice_of(name), { NULL, 0 } }, label = { SLICE("zone"), slice_of(zone) };
	struct bed bed = { .n = 0 };

	bed_add(&bed, &model, 1);
	bed.rows[0].labels = (struct pairs){ &label, 1 };
	struct snapshot *snap = bed_snapshot(&bed);

	memset(name, 'x', 5);
	memset(zone, 'x', 2);
	memset(&bed.address, 0, sizeof(bed.address));
	assert_non_null(snapshot_model(snap, SLICE("llama")));
	assert_string_equal(snap->rows[0].models.items[0].key.p, "llama");
	assert_string_equal(snap->rows[0].labels.items[0].value.p, "eu");
	assert_int_equal(snap->rows[0].addresses[0].ss_family, AF_INET);
	snapshot_unref(&snap);
	bed_free(&bed);
}

/* The instances live as long as somebody holds a snapshot that lists them. */
static void a_snapshot_keeps_its_instances(void **state) {
	struct bed bed = { .n = 0 };

	bed_add(&bed, &llama, 1);
	struct snapshot *snap = bed_snapshot(&bed), *other = snapshot_ref(snap);
	struct instance *inst = bed.rows[0].instance;

	assert_int_equal(inst->refs, 2);
	snapshot_unref(&snap);
	assert_null(snap);
	assert_int_equal(inst->refs, 2);
	bed_free(&bed);
	assert_int_equal(inst->refs, 1);
	assert_string_equal(other->rows[0].instance->spec.name.p, "a");
	snapshot_unref(&other);
	snapshot_unref(&other);
}

static void a_thousand_models_are_found(void **state) {
	static struct pair models[1000];
	static char names[1000][16];
	struct bed bed = { .n = 0 };

	for (unsigned i = 0; i < 1000; i++) {
		snprintf(names[i], sizeof(names[i]), "m%u", i * 7919);
		models[i].key = slice_of(names[i]);
	}
	bed_add(&bed, models, 1000);
	struct snapshot *snap = bed_snapshot(&bed);

	assert_int_equal(snap->n_models, 1000);
	for (unsigned i = 0; i < 1000; i++) {
		const struct model *model = snapshot_model(snap, models[i].key);

		assert_non_null(model);
		assert_true(slice_eq(model->name, models[i].key));
	}
	for (unsigned i = 1; i < 1000; i++)
		assert_true(pair_text_cmp(snap->models[i - 1].name, snap->models[i].name) < 0);
	snapshot_unref(&snap);
	bed_free(&bed);
}

static void *reader(void *object) {
	for (int i = 0; i < 20000; i++) {
		struct snapshot *snap = snapshot_ref(object);

		if (!snapshot_model(snap, SLICE("llama")))
			return snap;
		snapshot_unref(&snap);
	}
	struct snapshot *last = object;
	snapshot_unref(&last);
	return NULL;
}

/* Whichever thread lets go last frees it, and the instance with it. */
static void threads_share_references(void **state) {
	struct bed bed = { .n = 0 };
	pthread_t threads[3];
	void *result;

	bed_add(&bed, &llama, 1);
	struct snapshot *snap = bed_snapshot(&bed);

	bed_free(&bed);
	for (size_t i = 0; i < n_elems(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader, snapshot_ref(snap)), 0);
	snapshot_unref(&snap);
	for (size_t i = 0; i < n_elems(threads); i++) {
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_null(result);
	}
}

static const struct pair prefills = { SLICE("role"), SLICE("prefill") };
static const struct pair decodes = { SLICE("role@llama"), SLICE("decode") };

/* Row 0 is unified, row 1 prefills, row 2 decodes llama and is unified for qwen. */
static void roles_make_pools(void **state) {
	struct bed bed = { .n = 0 };

	bed_add(&bed, both, 2);
	bed_add(&bed, &llama, 1);
	bed_add(&bed, both, 2);
	bed.rows[1].labels = (struct pairs){ &prefills, 1 };
	bed.rows[2].labels = (struct pairs){ &decodes, 1 };
	struct snapshot *snap = bed_snapshot(&bed);
	const struct model *m = snapshot_model(snap, SLICE("llama"));

	assert_candidates(m, (uint32_t[]){ 0, 2 }, 2);
	assert_candidates(m->first, (uint32_t[]){ 0, 1 }, 2);
	assert_candidates(m->decode, (uint32_t[]){ 2 }, 1);
	assert_true(slice_eq(m->first->name, m->name) && m->decode->label == m->label);
	assert_int_equal(snapshot_traits(snap, &m->decode->candidates[0])->kv.role, ROLE_DECODE);
	assert_null(snapshot_model(snap, SLICE("qwen"))->first);
	assert_candidates(snap->any.first, (uint32_t[]){ 0, 1, 2 }, 3);
	assert_candidates(snap->any.decode, NULL, 0);
	for (uint32_t i = 0; i < snapshot_n_choices(snap); i++) {
		const struct model *at = snapshot_choice(snap, i);

		assert_int_equal(snapshot_choice_index(snap, at), i);
		assert_ptr_equal(snapshot_counterpart(snap, at), at);
	}
	snapshot_unref(&snap);
	bed.rows[1].labels = bed.rows[2].labels = (struct pairs){ NULL, 0 };
	snap = bed_snapshot(&bed);
	assert_int_equal(snap->n_pools, 0);
	assert_null(snapshot_model(snap, SLICE("llama"))->first);
	snapshot_unref(&snap);
	bed_free(&bed);
}

/* Whether others have roles or not. */
static void lost_models_have_empty_pools(void **state) {
	static const struct pair lost[] = { { SLICE("gone"), { NULL, 0 } }, { SLICE("llama"), { NULL, 0 } } };
	struct bed bed = { .n = 0 };

	bed_add(&bed, &llama, 1);
	bed.rows[0].labels = (struct pairs){ &prefills, 1 };
	struct snapshot *snap = snapshot_new(1, bed.rows, bed.n, (struct pairs){ lost, n_elems(lost) });
	assert_candidates(snapshot_model(snap, SLICE("gone")), NULL, 0);
	assert_null(snapshot_model(snap, SLICE("gone"))->first);
	assert_candidates(snapshot_model(snap, SLICE("llama"))->first, (uint32_t[]){ 0 }, 1);
	assert_candidates(snapshot_model(snap, SLICE("llama"))->decode, NULL, 0);
	snapshot_unref(&snap);
	bed_free(&bed);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(models_are_sorted_and_found),
		cmocka_unit_test(lost_models_are_known_and_served_by_nobody),
		cmocka_unit_test(only_some_rows_are_routable),
		cmocka_unit_test(what_is_said_of_candidates_stands_beside_them),
		cmocka_unit_test(rows_of_one_target_speak_for_it),
		cmocka_unit_test(a_model_without_routable_rows_is_known),
		cmocka_unit_test(unhealthy_rows_are_left_out_until_they_are_more_than_half),
		cmocka_unit_test(the_last_one_left_is_always_tried),
		cmocka_unit_test(a_row_of_weight_0_is_tried_when_nobody_else_serves),
		cmocka_unit_test(a_model_may_have_more_candidates_than_there_are_for_any),
		cmocka_unit_test(weights_and_shares_make_ratios),
		cmocka_unit_test(costs_divide_weights),
		cmocka_unit_test(rows_of_one_target_are_one_candidate),
		cmocka_unit_test(a_model_named_twice_is_one),
		cmocka_unit_test(uniform_means_all_serve_all),
		cmocka_unit_test(rows_are_deep_copies),
		cmocka_unit_test(a_snapshot_keeps_its_instances),
		cmocka_unit_test(a_thousand_models_are_found),
		cmocka_unit_test(roles_make_pools),
		cmocka_unit_test(lost_models_have_empty_pools),
		cmocka_unit_test(threads_share_references),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
