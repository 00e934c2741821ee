#include "unit/policy/stands.h"

#include <math.h>

#include "base/heap.h"
#include "fleet/guard.h"

#define RESPONSE  UINT64_C(0x9e3779b97f4a7c15)
#define BIT(code) (UINT32_C(1) << (code))

static uint32_t codes(struct picks *p, uint32_t row) {
	uint16_t slots[PICKS_ROWS_MAX];
	struct pick_input input = stands_input(p, "", slots);

	struct filter_ask ask = filter_ask(&p->set, &input);

	return filter_codes(&ask, row);
}

/* --- one filter each: three instances, who of them may, and what the others are refused for ------------ */

struct single {
	struct stand stands[3];
	struct demand demand;
	const char *picked;
	enum filter_code codes[3];
	int outcome; /* when those that may have been tried */
};

static void assert_single(const struct single *s, void (*prepare)(struct picks *p)) {
	struct picks p;

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		stands_open(&p, policy_name(*policy), s->stands, 3);
		p.demand = s->demand;
		if (prepare)
			prepare(&p);
		const char *picked = stands_picked(&p, "");
		/* Others have reasons of their own to leave some out. */
		if (*policy == policy_find(SLICE("round_robin")))
			assert_string_equal(picked, s->picked);
		assert_int_equal(picked[strspn(picked, s->picked)], '\0');
		for (uint32_t r = 0; r < 3; r++)
			assert_int_equal(codes(&p, r), s->codes[r] ? BIT(s->codes[r]) : 0);
		picks_close(&p);
	}
}

/* The same when nobody may. */
static void assert_refused(const struct stand *stands, uint32_t n, const struct demand *demand, int outcome) {
	struct picks p;

	stands_open(&p, "round_robin", stands, n);
	p.demand = *demand;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(outcome));
	picks_close(&p);
}

static void a_rerank_never_reaches_who_only_chats(void **state) {
	static const struct single s = {
		.stands = { { .labels = "capabilities=chat" }, { .labels = "capabilities=rerank,score" },
		    { .labels = "capabilities=chat capabilities@m=chat,rerank" } },
		.demand = { .capability = CAPABILITY_RERANK },
		.picked = "bc",
		.codes = { FILTER_CAPABILITY_MISSING },
	};
	static const struct stand chats[] = { { .labels = "capabilities=chat" },
		{ .labels = "capabilities=chat,completion" },
		{ .labels = "capabilities=chat", .state = INSTANCE_UNHEALTHY } };

	assert_single(&s, NULL);
	assert_refused(chats, 3, &s.demand, PICK_E_CAPABILITY);
}

/* Nobody declares a path that we do not know; who declares nothing may do anything. */
static void what_is_not_declared_is_not_held_against_anybody(void **state) {
	static const struct single unknown = {
		.stands = { { .labels = "capabilities=chat" }, { .labels = NULL },
		    { .labels = "features=tools" } },
		.demand = { .capability = CAPABILITY_OTHER },
		.picked = "abc",
	};
	static const struct single known = {
		.stands = { { .labels = "capabilities=chat" }, { .labels = NULL },
		    { .labels = "features=tools" } },
		.demand = { .capability = CAPABILITY_RERANK },
		.picked = "bc",
		.codes = { FILTER_CAPABILITY_MISSING },
	};

	assert_single(&unknown, NULL);
	assert_single(&known, NULL);
}

static void all_features_asked_for_are_needed(void **state) {
	static const struct single s = {
		.stands = { { .labels = "features=tools,stream" }, { .labels = "features=tools" },
		    { .labels = NULL } },
		.demand = { .capability = CAPABILITY_CHAT,
		    .features = BIT(FEATURE_TOOLS) | BIT(FEATURE_STREAM) },
		.picked = "ac",
		.codes = { FILTER_NONE, FILTER_FEATURE_MISSING },
	};
	static const struct stand few[] = { { .labels = "features=tools" }, { .labels = "features=stream" },
		{ .labels = "features=n" } };

	assert_single(&s, NULL);
	assert_refused(few, 3, &s.demand, PICK_E_FEATURE);
}

static void prompt_and_output_fit_together(void **state) {
	static const struct single s = {
		.stands = { { .labels = "context=1000" }, { .labels = "context=1500" }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000, .output_max = 500 },
		.picked = "bc",
		.codes = { FILTER_CONTEXT_TOO_SMALL },
	};
	static const struct single full = {
		.stands = { { .labels = "context=1000" }, { .labels = "context=1001" }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000 },
		.picked = "bc",
		.codes = { FILTER_CONTEXT_TOO_SMALL },
	};
	/* As bytes it would be far too long; as an image it need not be. */
	static const struct single image = {
		.stands = { { .labels = "context=1000" }, { .labels = "context=1500" }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000000, .features = BIT(FEATURE_IMAGE_INPUT) },
		.picked = "abc",
	};

	/* What has not come may be an image. */
	static const struct single open = {
		.stands = { { .labels = "context=1000" }, { .labels = "context=1500" }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000000, .is_prompt_open = true },
		.picked = "abc",
	};

	/* But what is text has come, and an image makes it no shorter. */
	static const struct single captioned = {
		.stands = { { .labels = "context=1000" }, { .labels = "context=1500" }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000000,
		    .text_tokens = 1200,
		    .features = BIT(FEATURE_IMAGE_INPUT) },
		.picked = "bc",
		.codes = { FILTER_CONTEXT_TOO_SMALL },
	};
	static const struct single begun = {
		.stands = { { .labels = "context=1000" }, { .labels = "context=1500" }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000000, .text_tokens = 1200, .is_prompt_open = true },
		.picked = "bc",
		.codes = { FILTER_CONTEXT_TOO_SMALL },
	};

	/* Of many prompts each has a context for itself; their outputs count as before. */
	static const struct single batch = {
		.stands = { { .labels = "context=1000" }, { .labels = "context=1500" }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000000, .output_max = 1200, .is_batch = true },
		.picked = "bc",
		.codes = { FILTER_CONTEXT_TOO_SMALL },
	};

	assert_single(&s, NULL);
	assert_single(&full, NULL);
	assert_single(&image, NULL);
	assert_single(&open, NULL);
	assert_single(&captioned, NULL);
	assert_single(&begun, NULL);
	assert_single(&batch, NULL);
}

/* It may be half as long as thought: whom that fits is asked before nobody is. */
static void an_estimate_alone_refuses_nobody(void **state) {
	static const struct stand stands[] = { { .labels = "context=1000" }, { .labels = "context=1100" },
		{ .labels = "context=500" } };
	struct demand demand = { .prompt_tokens = 2000, .output_max = 100 };
	struct picks p;

	stands_open(&p, "round_robin", stands, 3);
	p.demand = demand;
	assert_string_equal(stands_picked(&p, ""), "b");
	demand.prompt_tokens = 2002;
	picks_close(&p);
	assert_refused(stands, 3, &demand, PICK_E_CONTEXT);
	demand = (struct demand){ .prompt_tokens = 1, .output_max = 1101 };
	assert_refused(stands, 3, &demand, PICK_E_CONTEXT);
}

static void who_is_not_cleared_gets_nothing_private(void **state) {
	static const char *const picked[PRIVACY_RESTRICTED] = { "abc", "bc", "c" };
	/* What a registry says of clearance is not believed: it is the instance that says it. */
	static const struct stand stands[] = { { .labels = "clearance=restricted", .is_foreign = true },
		{ .labels = "clearance=internal" },
		{ .labels = "clearance=restricted clearance@m=confidential" } };
	struct picks p;

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		stands_open(&p, policy_name(*policy), stands, 3);
		for (unsigned level = 0; level < PRIVACY_LEVELS; level++) {
			/* The floor and the client's wish: the higher counts, so none can lower the other. */
			for (unsigned other = 0; other <= level; other++) {
				const char *expected =
				    level == PRIVACY_RESTRICTED ? OUTCOME(PICK_E_PRIVACY) : picked[level];

				p.options.privacy_floor = (enum privacy)level;
				p.demand.privacy = (enum privacy)other;
				assert_string_equal(stands_picked(&p, ""), expected);
				p.options.privacy_floor = (enum privacy)other;
				p.demand.privacy = (enum privacy)level;
				assert_string_equal(stands_picked(&p, ""), expected);
			}
		}
		assert_int_equal(codes(&p, 0), BIT(FILTER_CLEARANCE_LOW));
		picks_close(&p);
	}
}

/* However little is left: who is not cleared is no last resort. */
static void a_last_resort_never_crosses_a_clearance(void **state) {
	static const struct stand stands[] = { { .labels = "clearance=internal" }, { .labels = NULL },
		{ .labels = NULL, .state = INSTANCE_UNHEALTHY }, { .labels = NULL, .is_idle = true },
		{ .labels = "clearance=internal", .state = INSTANCE_UNHEALTHY } };
	struct picks p;

	stands_open(&p, "round_robin", stands, 5);
	p.demand.privacy = PRIVACY_INTERNAL;
	assert_string_equal(stands_picked(&p, ""), "a");
	assert_string_equal(stands_picked(&p, "a"), "e");
	assert_string_equal(stands_picked(&p, "ae"), OUTCOME(PICK_E_NONE_LEFT));
	instance_avoid(picks_instance(&p, 0), 0);
	instance_avoid(picks_instance(&p, 4), 0);
	assert_string_equal(stands_picked(&p, ""), "a");
	assert_string_equal(stands_picked(&p, "a"), "e");
	p.demand.privacy = PRIVACY_CONFIDENTIAL;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_PRIVACY));
	picks_close(&p);
}

static void need_eu(struct picks *p) {
	p->options.residency = SLICE("eu");
}

static void all_tags_of_residency_are_needed(void **state) {
	static const struct single s = {
		.stands = { { .labels = "residency=eu,de,fr" }, { .labels = "residency=de" },
		    { .labels = "residency=eu" } },
		.demand = { .residency = { "de", 2 } },
		.picked = "a",
		.codes = { FILTER_NONE, FILTER_RESIDENCY_MISSING, FILTER_RESIDENCY_MISSING },
	};
	static const struct stand none[] = { { .labels = "residency=eu", .is_foreign = true },
		{ .labels = NULL }, { .labels = "residency=us" } };

	assert_single(&s, need_eu);
	assert_refused(none, 3, &s.demand, PICK_E_PRIVACY);
}

static void need_region(struct picks *p) {
	p->options.locality = (struct locality_options){
		.mode = LOCALITY_REQUIRE, .zone = traits_word(SLICE("z1")), .region = traits_word(SLICE("r1"))
	};
	p->demand.origin_zone = traits_word(SLICE("z2"));
}

static void need_zone(struct picks *p) {
	need_region(p);
	p->options.locality.region = 0;
}

/* Where a request says that it comes from moves no border. */
static void a_required_place_is_kept_to(void **state) {
	static const struct single region = {
		.stands = { { .labels = "region=r1 zone=z2" }, { .labels = "region=r2 zone=z1" },
		    { .labels = NULL } },
		.picked = "a",
		.codes = { FILTER_NONE, FILTER_REGION_DENIED, FILTER_REGION_DENIED },
	};
	static const struct single zone = {
		.stands = { { .labels = "region=r1 zone=z2" }, { .labels = "region=r2 zone=z1" },
		    { .labels = NULL } },
		.picked = "b",
		.codes = { FILTER_REGION_DENIED, FILTER_NONE, FILTER_REGION_DENIED },
	};
	struct picks p;

	assert_single(&region, need_region);
	assert_single(&zone, need_zone);
	stands_open(&p, "round_robin", region.stands, 3);
	need_region(&p);
	p.options.locality.region = traits_word(SLICE("r3"));
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_PRIVACY));
	picks_close(&p);
}

static void two_at_each(struct picks *p) {
	for (uint32_t r = 0; r < 3; r++)
		picks_charge(p, r, 2);
}

static void who_is_full_gets_no_more(void **state) {
	static const struct single s = {
		.stands = { { .labels = "capacity=2" }, { .labels = "capacity=3" },
		    { .labels = "capacity=0" } },
		.picked = "bc",
		.codes = { FILTER_AT_CAPACITY },
	};
	static const struct stand full[] = { { .labels = "capacity=1" }, { .labels = "capacity=2" },
		{ .labels = NULL, .state = INSTANCE_UNHEALTHY } };
	struct picks p;

	assert_single(&s, two_at_each);
	/* It will have time again: the ill one is not asked. */
	stands_open(&p, "round_robin", full, 3);
	two_at_each(&p);
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_FULL));
	load_release_prefill(p.load, 0, picks_instance(&p, 1)->slot, 0);
	assert_string_equal(stands_picked(&p, ""), "b");
	picks_close(&p);
}

/* Nobody else gets it, however little is left; the ill come before the wrong ones. */
static void an_accelerator_is_kept_to(void **state) {
	static const struct stand stands[] = { { .labels = "accelerator=h100" },
		{ .labels = "accelerator=a100" }, { .labels = NULL },
		{ .labels = "accelerator=h100", .state = INSTANCE_UNHEALTHY } };
	struct picks p;

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		stands_open(&p, policy_name(*policy), stands, 4);
		p.demand.accelerator = traits_word(SLICE("h100"));
		assert_string_equal(stands_picked(&p, ""), "a");
		assert_string_equal(stands_picked(&p, "a"), "d");
		assert_string_equal(stands_picked(&p, "ad"), OUTCOME(PICK_E_NONE_LEFT));
		assert_int_equal(codes(&p, 0), 0);
		assert_int_equal(codes(&p, 1), BIT(FILTER_ACCELERATOR_MISSING));
		assert_int_equal(codes(&p, 2), BIT(FILTER_ACCELERATOR_MISSING));
		p.demand.accelerator = traits_word(SLICE("tpu"));
		assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_ACCELERATOR));
		picks_close(&p);
	}
}

/* Who is unified may have it alone, as may who decodes by a connector that computes what is missing. */
static void parts_are_kept_to(void **state) {
	static const struct stand stands[] = { { .labels = "role=prefill" }, { .labels = "role=decode" },
		{ .labels = "role=decode kv_connector=sglang" }, { .labels = NULL },
		{ .labels = "role=prefill kv_connector=sglang" } };
	struct picks p;
	uint16_t slots[PICKS_ROWS_MAX];

	stands_open(&p, "round_robin", stands, 5);
	struct pick_input input = stands_input(&p, "", slots);
	struct pick_result pick;
	assert_string_equal(stands_picked(&p, "bd"), OUTCOME(PICK_E_NONE_LEFT));
	assert_int_equal(codes(&p, 0), BIT(FILTER_ROLE_MISMATCH));
	assert_int_equal(codes(&p, 2), BIT(FILTER_ROLE_MISMATCH));
	assert_int_equal(codes(&p, 3), 0);

	input.model = input.model->decode;
	input.connector = CONNECTOR_SGLANG;
	assert_int_equal(policy_pick(&p.set, &input, &pick), 0);
	assert_int_equal(pick.row, 2);
	input.kv_mode = KV_MODE_WRITE;
	assert_int_equal(policy_pick(&p.set, &input, &pick), PICK_E_NONE_EXIST);
	input.connector = CONNECTOR_NIXL;
	input.kv_mode = KV_MODE_READ;
	assert_int_equal(policy_pick(&p.set, &input, &pick), 0);
	assert_int_equal(pick.row, 1);

	input.model = snapshot_model(p.set.snapshot, SLICE("m"))->first;
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(policy_pick(&p.set, &input, &pick), 0);
		assert_true(pick.row == 0 || pick.row == 3);
	}
	picks_close(&p);
}

/* Of whichever engine; one without ranks gets it, too. */
static void a_rank_is_kept_to(void **state) {
	static const struct stand stands[] = { { .labels = NULL }, { .labels = NULL }, { .labels = NULL } };
	struct picks p;

	stands_open(&p, "round_robin", stands, 3);
	for (uint16_t i = 0; i < 3; i++) {
		picks_instance(&p, i)->spec.has_rank = true;
		picks_instance(&p, i)->spec.rank = i;
	}
	p.demand.rank = (struct rank_wish){ 2, true };
	assert_string_equal(stands_picked(&p, ""), "c");
	assert_string_equal(stands_picked(&p, "c"), OUTCOME(PICK_E_NONE_LEFT));
	assert_int_equal(codes(&p, 0), BIT(FILTER_RANK_ABSENT));
	assert_int_equal(codes(&p, 2), 0);
	p.demand.rank.rank = 3;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_RANK));
	picks_instance(&p, 1)->spec.has_rank = false;
	assert_string_equal(stands_picked(&p, ""), "b");
	p.demand.rank.is_given = false;
	assert_int_equal(codes(&p, 0), 0);
	picks_close(&p);
}

/* Row 0 takes 1000 tokens a second and has 500 of them to do, row 1 takes 3000, row 2 what they take on
 * average. */
static void work_at_rates(struct picks *p) {
	learned_write(&picks_instance(p, 0)->learned.prefill_rate, 1000);
	learned_write(&picks_instance(p, 1)->learned.prefill_rate, 3000);
	load_charge(p->load, 0, picks_instance(p, 0)->slot, 500);
}

static void who_is_late_is_left_out(void **state) {
	static const struct single tight = {
		.stands = { { .labels = NULL }, { .labels = NULL }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000, .deadline_ms = 499 },
		.picked = "b",
		.codes = { FILTER_SLO_UNATTAINABLE, FILTER_NONE, FILTER_SLO_UNATTAINABLE },
	};
	static const struct single loose = {
		.stands = { { .labels = NULL }, { .labels = NULL }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000, .deadline_ms = 500 },
		.picked = "bc",
		.codes = { FILTER_SLO_UNATTAINABLE },
	};
	static const struct single unknown = {
		.stands = { { .labels = NULL }, { .labels = NULL }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000, .deadline_ms = 1 },
		.picked = "abc",
	};
	struct picks p;

	assert_single(&tight, work_at_rates);
	assert_single(&loose, work_at_rates);
	assert_single(&unknown, NULL);
	stands_open(&p, "round_robin", tight.stands, 3);
	work_at_rates(&p);
	p.demand = unknown.demand;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_LATE));
	picks_close(&p);
}

/* Who says nothing has 50, as everybody where nobody has one: then nothing is asked. */
static void a_priority_is_kept_to(void **state) {
	static const struct single s = {
		.stands = { { .labels = "priority=49" }, { .labels = "priority=0 priority@m=60" },
		    { .labels = "priority=60" } },
		.demand = { .priority_min = 50 },
		.picked = "bc",
		.codes = { FILTER_PRIORITY_LOW },
	};
	static const struct stand none[] = { { .labels = NULL }, { .labels = NULL } };
	struct picks p;

	assert_single(&s, NULL);
	stands_open(&p, "round_robin", s.stands, 3);
	p.demand.priority_min = 61;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_PRIORITY));
	stands_adopt(&p, none, 2);
	assert_string_equal(stands_picked(&p, ""), "ab");
	picks_close(&p);
}

static void may_cost_1000(struct picks *p) {
	p->options.cost_ceiling = 1000;
}

static void what_costs_too_much_is_left_out(void **state) {
	/* 1000 tokens in and 500 out: 0.5 * 1000 + 1 * 500, one micro-unit more, and not known. */
	static const struct single s = {
		.stands = { { .labels = "price_in=500000 price_out=1000000" },
		    { .labels = "price_in=501000 price_out=1000000" }, { .labels = NULL } },
		.demand = { .prompt_tokens = 1000, .output_tokens = 900, .output_max = 500 },
		.picked = "ac",
		.codes = { FILTER_NONE, FILTER_OVER_COST },
	};
	static const struct stand dear[] = { { .labels = "price_in=1000001" },
		{ .labels = "price_in=2000000" }, { .labels = "price_out=3000000" } };
	struct picks p;

	assert_single(&s, may_cost_1000);
	stands_open(&p, "round_robin", dear, 3);
	may_cost_1000(&p);
	p.demand = s.demand;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_COST));
	p.options.cost_ceiling = 0;
	assert_string_equal(stands_picked(&p, ""), "abc");
	picks_close(&p);
}

/* Who says nothing costs 1, as everybody where nobody says anything: then nothing is asked. */
static void what_costs_more_than_the_client_wants_is_left_out(void **state) {
	static const struct single s = {
		.stands = { { .labels = "cost=0.5 price_in=1" }, { .labels = "cost=1.25" },
		    { .labels = NULL } },
		.demand = { .has_cost_max = true, .cost_max = 1 },
		.picked = "ac",
		.codes = { FILTER_NONE, FILTER_OVER_COST },
	};
	static const struct stand none[] = { { .labels = NULL }, { .labels = "price_in=1" } };
	struct picks p;

	assert_single(&s, NULL);
	stands_open(&p, "round_robin", s.stands, 3);
	p.demand.has_cost_max = true;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_COST));
	stands_adopt(&p, none, 2);
	assert_string_equal(stands_picked(&p, ""), "ab");
	picks_close(&p);
}

/* --- together ------------------------------------------------------------------------------------------ */

static void who_is_drained_gets_nothing_new(void **state) {
	static const struct stand stands[] = { { .labels = NULL, .state = INSTANCE_DRAINING },
		{ .labels = NULL }, { .labels = NULL, .state = INSTANCE_DISABLED },
		{ .labels = NULL, .is_loading = true }, { .labels = NULL, .model = "n" } };
	struct picks p;

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		stands_open(&p, policy_name(*policy), stands, 5);
		assert_string_equal(stands_picked(&p, ""), "b");
		assert_string_equal(stands_picked(&p, "b"), OUTCOME(PICK_E_NONE_LEFT));
		picks_close(&p);
	}
}

/* An explanation has all codes of everybody; each filter hits somebody. */
static void every_code_of_every_row_is_explained(void **state) {
	static const struct stand stands[] = {
		{ .labels =
			"capabilities=chat features=tools context=10 capacity=1 price_in=9000000 region=r2 "
			"role=prefill priority=9",
		    .state = INSTANCE_DRAINING },
		{ .labels = NULL, .state = INSTANCE_DISABLED, .is_loading = true },
		{ .labels = NULL, .model = "n" },
		{ .labels = "clearance=restricted residency=eu region=r1 accelerator=h100",
		    .state = INSTANCE_UNHEALTHY },
		{ .labels = "clearance=restricted residency=eu region=r1 accelerator=h100" },
		{ .labels = "clearance=restricted residency=eu region=r1 accelerator=h100", .is_idle = true },
	};
	uint16_t slots[PICKS_ROWS_MAX];
	struct picks p;

	stands_open(&p, "round_robin", stands, 6);
	need_region(&p);
	need_eu(&p);
	may_cost_1000(&p);
	p.demand = (struct demand){ .capability = CAPABILITY_RERANK,
		.features = BIT(FEATURE_N),
		.prompt_tokens = 1000,
		.privacy = PRIVACY_RESTRICTED,
		.accelerator = traits_word(SLICE("h100")),
		.priority_min = 10,
		.deadline_ms = 100 };
	picks_charge(&p, 0, 1);
	learned_write(&picks_instance(&p, 0)->learned.prefill_rate, 1000);
	instance_avoid(picks_instance(&p, 3), 0);
	struct pick_input input = stands_input(&p, "ae", slots);

	const uint32_t common = BIT(FILTER_CLEARANCE_LOW) | BIT(FILTER_RESIDENCY_MISSING) |
	    BIT(FILTER_REGION_DENIED) | BIT(FILTER_ACCELERATOR_MISSING);
	const uint32_t expected[] = {
		common | BIT(FILTER_DRAINING) | BIT(FILTER_CAPABILITY_MISSING) | BIT(FILTER_FEATURE_MISSING) |
		    BIT(FILTER_CONTEXT_TOO_SMALL) | BIT(FILTER_AT_CAPACITY) | BIT(FILTER_SLO_UNATTAINABLE) |
		    BIT(FILTER_OVER_COST) | BIT(FILTER_ALREADY_TRIED) | BIT(FILTER_ROLE_MISMATCH) |
		    BIT(FILTER_PRIORITY_LOW),
		common | BIT(FILTER_DISABLED) | BIT(FILTER_LOADING),
		common | BIT(FILTER_MODEL_ABSENT),
		BIT(FILTER_UNHEALTHY) | BIT(FILTER_AVOIDED),
		BIT(FILTER_ALREADY_TRIED),
		0,
	};
	struct filter_ask ask = filter_ask(&p.set, &input);
	uint32_t seen = BIT(FILTER_NONE) | BIT(FILTER_TENANT_DENIED) | BIT(FILTER_BREAKER_OPEN) |
	    BIT(FILTER_BELOW_MIN_SCORE) | BIT(FILTER_RESPONSE_ELSEWHERE) |
	    BIT(FILTER_RANK_ABSENT); /* of others */
	for (uint32_t r = 0; r < n_elems(expected); r++) {
		assert_int_equal(filter_codes(&ask, r), expected[r]);
		seen |= expected[r];
	}
	assert_int_equal(seen, BIT(FILTER_CODES) - 1);
	for (unsigned code = 0; code < FILTER_CODES; code++)
		assert_non_null(filter_text((enum filter_code)code));
	picks_close(&p);
}

/* NAN is equal to itself here. */
static void assert_number(double value, double expected) {
	assert_int_equal(isnan(value) != 0, isnan(expected) != 0);
	assert_true(isnan(expected) || value == expected);
}

/* The numbers that each filter went by, of instances that are out for one reason each. */
static void codes_have_their_numbers(void **state) {
	static const struct stand stands[] = { { .labels = "context=10" }, { .labels = "features=tools,n" },
		{ .labels = "clearance=internal" }, { .labels = "capacity=2" },
		{ .labels = "price_in=9000000" }, { .labels = NULL },
		{ .labels = "clearance=restricted", .state = INSTANCE_DRAINING } };
	static const struct {
		uint32_t row;
		enum filter_code code;
		struct filter_detail detail;
	} rows[] = {
		{ 0, FILTER_CONTEXT_TOO_SMALL, { 1050, 10 } },
		{ 1, FILTER_FEATURE_MISSING, { BIT(FEATURE_STREAM), NAN } },
		{ 2, FILTER_CLEARANCE_LOW, { PRIVACY_RESTRICTED, PRIVACY_INTERNAL } },
		{ 3, FILTER_AT_CAPACITY, { 2, 2 } },
		{ 4, FILTER_OVER_COST, { 9000, 1000 } },
		{ 5, FILTER_SLO_UNATTAINABLE, { 1500, 1499 } },
		{ 6, FILTER_DRAINING, { NAN, NAN } },
	};
	struct filter_detail details[FILTER_CODES];
	uint16_t slots[PICKS_ROWS_MAX];
	struct picks p;

	stands_open(&p, "round_robin", stands, 7);
	may_cost_1000(&p);
	p.demand = (struct demand){ .features = BIT(FEATURE_N) | BIT(FEATURE_STREAM),
		.prompt_tokens = 1000,
		.output_max = 50,
		.privacy = PRIVACY_RESTRICTED,
		.deadline_ms = 1499 };
	picks_charge(&p, 3, 2);
	learned_write(&picks_instance(&p, 5)->learned.prefill_rate, 1000);
	load_charge(p.load, 0, picks_instance(&p, 5)->slot, 500);
	struct pick_input input = stands_input(&p, "", slots);
	struct filter_ask ask = filter_ask(&p.set, &input);
	for (size_t i = 0; i < n_elems(rows); i++) {
		enum filter_code code = rows[i].code;

		assert_true(filter_codes(&ask, rows[i].row) & BIT(code));
		filter_details(&ask, rows[i].row, BIT(code), details);
		assert_number(details[code].value, rows[i].detail.value);
		assert_number(details[code].limit, rows[i].detail.limit);
	}
	p.demand.prompt_tokens = 100000001; /* to the unit, however much it is */
	ask = filter_ask(&p.set, &input);
	filter_details(&ask, 4, BIT(FILTER_OVER_COST), details);
	assert_number(details[FILTER_OVER_COST].value, 900000009);
	instance_avoid(picks_instance(&p, 0), 0);
	uint64_t until_ms = picks_instance(&p, 0)->avoid_until_ms;
	assert_true(until_ms > 1);
	input.now_ns = (until_ms - 1) * 1000000;
	filter_details(&ask, 0, BIT(FILTER_AVOIDED), details);
	assert_true(details[FILTER_AVOIDED].value == 1);
	picks_close(&p);
}

/* When most are ill the judgement is: they are eligible then, and the explanation says so. */
static void in_a_panic_the_ill_are_eligible(void **state) {
	static const struct stand stands[] = { { .labels = NULL },
		{ .labels = NULL, .state = INSTANCE_UNHEALTHY },
		{ .labels = NULL, .state = INSTANCE_UNHEALTHY } };
	struct picks p;

	stands_open(&p, "round_robin", stands, 3);
	assert_string_equal(stands_picked(&p, ""), "abc");
	for (uint32_t r = 0; r < 3; r++)
		assert_int_equal(codes(&p, r), 0);
	picks_close(&p);
}

/* What removed the last of them is the reason, not what removed the others before. */
static void the_last_filter_is_the_reason(void **state) {
	static const struct stand stands[] = { { .labels = "capabilities=rerank" },
		{ .labels = "capabilities=chat clearance=internal capacity=1" },
		{ .labels = "capabilities=chat" } };
	struct picks p;

	stands_open(&p, "round_robin", stands, 3);
	p.demand = (struct demand){ .capability = CAPABILITY_CHAT, .privacy = PRIVACY_INTERNAL };
	assert_string_equal(stands_picked(&p, ""), "b");
	picks_charge(&p, 1, 1);
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_FULL));
	load_release_prefill(p.load, 0, picks_instance(&p, 1)->slot, 0);
	assert_string_equal(stands_picked(&p, "b"), OUTCOME(PICK_E_NONE_LEFT));
	p.demand.privacy = PRIVACY_RESTRICTED;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_PRIVACY));
	p.demand.capability = CAPABILITY_SPEECH;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_CAPABILITY));
	picks_close(&p);
}

/* 60 s long, for this model and capability alone; nobody else left, it is asked all the same. */
static void a_refused_route_is_avoided_for_a_while(void **state) {
	static const struct stand stands[] = { { .labels = NULL }, { .labels = NULL },
		{ .labels = "capabilities=chat" } };
	uint16_t slots[PICKS_ROWS_MAX];
	struct picks p;

	stands_open(&p, "round_robin", stands, 3);
	p.demand.capability = CAPABILITY_RERANK;
	struct pick_input input = stands_input(&p, "", slots);
	struct learned *learned = &picks_instance(&p, 0)->learned;
	uint32_t label = input.model->label;
	assert_true(learned_clear(learned, CAPABILITY_RERANK, label, 0));
	assert_false(learned_clear(learned, CAPABILITY_RERANK, label, 100));
	assert_string_equal(stands_picked(&p, ""), "b");
	assert_int_equal(codes(&p, 0), BIT(FILTER_CAPABILITY_MISSING));
	assert_string_equal(stands_picked(&p, "b"), "a");
	assert_string_equal(stands_picked(&p, "ab"), OUTCOME(PICK_E_NONE_LEFT));
	p.demand.capability = CAPABILITY_SCORE;
	assert_string_equal(stands_picked(&p, ""), "ab");
	p.demand.capability = CAPABILITY_RERANK;
	assert_true(learned_is_cleared(learned, CAPABILITY_RERANK, label, LEARNED_CLEARED_MS - 1));
	assert_false(learned_is_cleared(learned, CAPABILITY_RERANK, label, LEARNED_CLEARED_MS));
	assert_false(learned_is_cleared(learned, CAPABILITY_RERANK, label + 1, 0));
	/* Of another model: no news, but it counts from now on. */
	assert_false(learned_clear(learned, CAPABILITY_RERANK, label + 1, 100));
	assert_string_equal(stands_picked(&p, ""), "ab");
	picks_close(&p);
}

static const struct breaker_limits breakers = { .successes = 1, .open_ms = 1000, .open_max_ms = 5000 };

static void trip(struct picks *p, const char *names) {
	for (; *names; names++)
		guard_trip(picks_instance(p, (uint32_t)(*names - 'a')), &breakers, 0);
}

static int outcome_at(struct picks *p, uint64_t now_ms, uint32_t *row_out, uint64_t *open_ms_out) {
	uint16_t slots[PICKS_ROWS_MAX];
	struct pick_input input = stands_input(p, "", slots);
	struct pick_result result;

	input.now_ns = now_ms * 1000000;
	int r = policy_pick(&p->set, &input, &result);
	*row_out = r ? UINT32_MAX : result.row;
	*open_ms_out = r ? filter_open_ms(&p->set, &input) : 0;
	return r;
}

/* While there are others, and then neither: nobody is asked before its time, not even as a last resort. */
static void an_open_breaker_is_not_crossed(void **state) {
	static const struct stand stands[] = { { .labels = NULL }, { .labels = NULL },
		{ .labels = NULL, .state = INSTANCE_UNHEALTHY } };
	struct breaker_permit permit;
	uint64_t open_ms;
	struct picks p;
	uint32_t row;

	stands_open(&p, "round_robin", stands, 3);
	trip(&p, "a");
	assert_string_equal(stands_picked(&p, ""), "b");
	assert_int_equal(codes(&p, 0), BIT(FILTER_BREAKER_OPEN));
	assert_string_equal(stands_picked(&p, "b"), "c"); /* the ill before it */
	assert_string_equal(stands_picked(&p, "bc"), OUTCOME(PICK_E_NONE_LEFT));
	trip(&p, "bc");
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_OPEN));
	assert_int_equal(codes(&p, 2), BIT(FILTER_BREAKER_OPEN) | BIT(FILTER_UNHEALTHY));
	guard_trip(picks_instance(&p, 1), &(struct breaker_limits){ .open_max_ms = 4000 }, 0);
	assert_int_equal(outcome_at(&p, 1000, &row, &open_ms), PICK_E_OPEN);
	assert_int_equal(open_ms, 3000);
	assert_int_equal(outcome_at(&p, 4000, &row, &open_ms), 0); /* half-open: as any other */
	assert_int_equal(row, 1);
	assert_true(guard_admit(picks_instance(&p, 1), 4000, &permit));
	assert_int_equal(outcome_at(&p, 4000, &row, &open_ms), PICK_E_OPEN);
	assert_int_equal(open_ms, 0); /* when that one ends */
	assert_int_equal(codes(&p, 1), BIT(FILTER_BREAKER_OPEN));
	picks_close(&p);
}

/* To wait for a breaker helps only where nothing else is in the way. */
static void what_else_speaks_against_it_counts_more(void **state) {
	static const struct stand stands[] = { { .labels = "capabilities=chat" },
		{ .labels = "capabilities=chat capacity=1" }, { .labels = "capabilities=rerank" } };
	uint16_t slots[PICKS_ROWS_MAX];
	struct picks p;

	stands_open(&p, "round_robin", stands, 3);
	p.demand.capability = CAPABILITY_RERANK;
	trip(&p, "c");
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_OPEN));
	trip(&p, "ab");
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_OPEN));
	p.demand.capability = CAPABILITY_SPEECH;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_CAPABILITY));
	assert_int_equal(codes(&p, 0), BIT(FILTER_CAPABILITY_MISSING) | BIT(FILTER_BREAKER_OPEN));
	/* Only those are waited for who could have it. */
	p.demand.capability = CAPABILITY_CHAT;
	guard_reset(picks_instance(&p, 2));
	guard_trip(picks_instance(&p, 2), &(struct breaker_limits){ .open_max_ms = 1 }, 0);
	struct pick_input input = stands_input(&p, "", slots);
	assert_int_equal(filter_open_ms(&p.set, &input), 5000);
	input = stands_input(&p, "a", slots);
	assert_int_equal(filter_open_ms(&p.set, &input), 5000);
	input = stands_input(&p, "ab", slots);
	assert_int_equal(filter_open_ms(&p.set, &input), 0);
	/* Who was tried has its own reason. */
	assert_string_equal(stands_picked(&p, "a"), OUTCOME(PICK_E_NONE_LEFT));
	/* Who is merely full will have room sooner. */
	guard_reset(picks_instance(&p, 1));
	picks_charge(&p, 1, 1);
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_FULL));
	picks_close(&p);
}

/* For thousands of fleets and requests: who is picked has no code but one of health, and who is picked by
 * nobody has one, unless it is in reserve. */
static void picks_and_codes_agree(void **state) {
	static const char *const labels[] = { NULL, "capabilities=chat",
		"capabilities=rerank clearance=internal", "features=tools clearance=restricted",
		"context=100 residency=eu", "capacity=1 region=r1", "price_in=2000000 region=r1 residency=eu",
		"clearance=confidential region=r1 residency=eu,de" };
	const uint32_t health = BIT(FILTER_AVOIDED) | BIT(FILTER_UNHEALTHY);
	struct rng rng;
	unsigned n_picked = 0, n_refused = 0;

	rng_init(&rng, 7);
	for (unsigned round = 0; round < 3000; round++) {
		struct stand stands[6] = { { .labels = NULL } };
		uint16_t slots[PICKS_ROWS_MAX];
		struct pick_result result;
		struct picks p;
		uint32_t n = 3 + (uint32_t)rng_below(&rng, 4);

		for (uint32_t r = 0; r < n; r++)
			stands[r] = (struct stand){ .labels = labels[rng_below(&rng, n_elems(labels))],
				.state = 1 + (enum instance_state)rng_below(&rng, INSTANCE_STATES - 1),
				.is_foreign = rng_below(&rng, 4) == 0 };
		stands_open(&p, "least_load", stands, n);
		p.options.privacy_floor = (enum privacy)rng_below(&rng, 2);
		p.options.locality.mode = rng_below(&rng, 4) ? LOCALITY_OFF : LOCALITY_REQUIRE;
		p.options.locality.region = traits_word(SLICE("r1"));
		p.options.cost_ceiling = rng_below(&rng, 2) * 300;
		p.demand.capability = rng_below(&rng, 2) ? CAPABILITY_CHAT : CAPABILITY_RERANK;
		p.demand.privacy = (enum privacy)rng_below(&rng, 3);
		p.demand.prompt_tokens = (uint32_t)rng_below(&rng, 190);
		p.demand.residency = rng_below(&rng, 4) ? SLICE("") : SLICE("eu");
		picks_charge(&p, (uint32_t)rng_below(&rng, n), 1);
		instance_avoid(picks_instance(&p, (uint32_t)rng_below(&rng, n)), 0);
		picks_keep_response(&p, (uint32_t)rng_below(&rng, n), RESPONSE, 0);
		p.demand.response = rng_below(&rng, 2) * RESPONSE;
		if (rng_below(&rng, 2))
			guard_trip(picks_instance(&p, (uint32_t)rng_below(&rng, n)), &breakers, 0);
		struct pick_input input = stands_input(&p, "", slots);
		if (!input.model || policy_pick(&p.set, &input, &result)) {
			n_refused++;
			for (uint32_t r = 0; r < n && input.model; r++)
				assert_int_not_equal(codes(&p, r), 0);
		} else {
			/* The prompt is an estimate: half of it counts before nobody is left. */
			uint32_t all = codes(&p, result.row) & ~health;

			n_picked++;
			assert_true(all == 0 || (all == BIT(FILTER_CONTEXT_TOO_SMALL)));
		}
		picks_close(&p);
	}
	assert_true(n_picked > 500 && n_refused > 500);
}

/* Objects of the engines' model lists; the last has another model. */
static void engines_say_so(struct snapshot_row *rows) {
	static const char text[] = "{\"max_model_len\":100}";
	static const struct pair list = { { "m", 1 }, { text, sizeof(text) - 1 } };
	static const struct pair other = { { "n", 1 }, { text, sizeof(text) - 1 } };

	for (uint32_t r = 0; r < 3; r++)
		rows[r].models = (struct pairs){ &list, 1 };
	rows[2].state = INSTANCE_UNHEALTHY;
	rows[3].models = (struct pairs){ &other, 1 };
}

/* Requests are recorded with the codes of those that they did not go to: nothing is read anew for that. */
static void codes_of_candidates_allocate_nothing(void **state) {
	static const struct stand stands[] = { { .labels = NULL }, { .labels = NULL },
		{ .labels = NULL, .state = INSTANCE_UNHEALTHY }, { .labels = NULL, .model = "n" } };
	struct picks p;

	heap_init();
	stands_open(&p, "round_robin", stands, 4);
	picks_change(&p, engines_say_so);
	p.demand.output_max = 1000;
	uint64_t before = heap_allocations();
	for (uint32_t r = 0; r < 3; r++)
		assert_int_equal(
		    codes(&p, r), BIT(FILTER_CONTEXT_TOO_SMALL) | (r == 2 ? BIT(FILTER_UNHEALTHY) : 0));
	assert_int_equal(heap_allocations(), before);
	assert_int_equal(codes(&p, 3), BIT(FILTER_MODEL_ABSENT));
	picks_close(&p);
}

/* --- stored responses ---------------------------------------------------------------------------------- */

static const struct stand equals[4] = { { .labels = NULL } };

/* Why and how p->demand goes where it goes. */
static struct pick_result picked_at(struct picks *p, uint64_t now_s) {
	uint16_t slots[PICKS_ROWS_MAX];
	struct pick_input input = stands_input(p, "", slots);
	struct pick_result result;

	input.now_ns = now_s * 1000000000;
	assert_int_equal(policy_pick(&p->set, &input, &result), 0);
	return result;
}

/* Under every policy, however busy it is and wherever the session lives. */
static void a_stored_response_is_asked_for_where_it_is(void **state) {
	struct picks p;

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		stands_open(&p, policy_name(*policy), equals, 4);
		for (uint32_t r = 0; r < 4; r++)
			picks_keep_response(&p, r, (r + 1) * RESPONSE, 0);
		picks_charge(&p, 2, 200);
		p.demand.session = 7;
		session_table_bind(p.sessions, 7, session_home_of(picks_instance(&p, 0)), 0);
		for (uint32_t r = 0; r < 4; r++) {
			p.demand.response = (r + 1) * RESPONSE;
			const char *picked = stands_picked(&p, "");

			assert_true(picked[0] == (char)('a' + r) && !picked[1]);
			struct pick_result pick = picked_at(&p, 0);
			assert_int_equal(pick.reason, PICK_RESPONSE_OWNER);
			assert_int_equal(pick.n_eligible, 1);
			assert_int_equal(pick.n_left_out, 3);
			assert_int_equal(pick.n_candidates, 4);
		}
		picks_close(&p);
	}
}

/* It was tried, is out, or is not cleared: the others may have it, as if nobody were the owner. */
static void an_owner_that_is_not_eligible_is_passed_over(void **state) {
	static const struct stand ill[4] = { { .state = INSTANCE_UNHEALTHY } },
				  draining[4] = { { .state = INSTANCE_DRAINING } },
				  inside[4] = { { .labels = NULL }, { .labels = "clearance=restricted" },
					  { .labels = "clearance=restricted" } };
	struct picks p;

	stands_open(&p, "round_robin", equals, 4);
	picks_keep_response(&p, 0, RESPONSE, 0);
	p.demand.response = RESPONSE;
	assert_string_equal(stands_picked(&p, ""), "a");
	assert_string_equal(stands_picked(&p, "a"), "bcd");
	stands_adopt(&p, ill, 4);
	assert_string_equal(stands_picked(&p, ""), "bcd");
	assert_int_equal(picked_at(&p, 0).reason, PICK_ROUND_ROBIN);
	stands_adopt(&p, draining, 4);
	assert_string_equal(stands_picked(&p, ""), "bcd");
	stands_adopt(&p, inside, 4);
	p.demand.privacy = PRIVACY_RESTRICTED;
	assert_string_equal(stands_picked(&p, ""), "bc");
	picks_close(&p);
}

/* Whatever the others could do: they do not have it. */
static void an_owner_that_is_out_for_a_moment_is_waited_for(void **state) {
	static const struct stand limited[4] = { { .labels = "capacity=2" } },
				  slow[4] = { { .labels = "capacity=2 context=10" } };
	struct picks p;

	stands_open(&p, "round_robin", limited, 4);
	picks_keep_response(&p, 0, RESPONSE, 0);
	p.demand.response = RESPONSE;
	p.demand.capability = CAPABILITY_RESPONSES;
	picks_charge(&p, 0, 2);
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_FULL));
	assert_string_equal(stands_picked(&p, "bcd"), OUTCOME(PICK_E_FULL));
	assert_int_equal(codes(&p, 0), BIT(FILTER_AT_CAPACITY));
	assert_int_equal(codes(&p, 1), BIT(FILTER_RESPONSE_ELSEWHERE));
	/* Another one speaks against it that does not pass, or it was tried. */
	assert_string_equal(stands_picked(&p, "a"), "bcd");
	stands_adopt(&p, slow, 4);
	p.demand.prompt_tokens = 100;
	assert_string_equal(stands_picked(&p, ""), "bcd");
	stands_adopt(&p, equals, 4);
	for (uint32_t r = 0; r < 4; r++)
		learned_write(&picks_instance(&p, r)->learned.prefill_rate, r ? 10000 : 10);
	p.demand.deadline_ms = 5000;
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_OWNER));
	p.demand.deadline_ms = 0;
	assert_string_equal(stands_picked(&p, ""), "a");
	trip(&p, "a");
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_OWNER));
	guard_reset(picks_instance(&p, 0));
	instance_avoid(picks_instance(&p, 0), 0);
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_OWNER));
	/* All are: then it is asked all the same. */
	for (uint32_t r = 1; r < 4; r++)
		instance_avoid(picks_instance(&p, r), 0);
	assert_string_equal(stands_picked(&p, ""), "a");
	picks_close(&p);
}

/* What another one refused such a request for is doubted before nobody is left: the owner's, too. */
static void an_owner_that_refused_and_is_full_is_waited_for(void **state) {
	static const struct stand limited[3] = { { .labels = "capacity=2" } };
	uint16_t slots[PICKS_ROWS_MAX];
	struct picks p;

	stands_open(&p, "round_robin", limited, 3);
	picks_keep_response(&p, 0, RESPONSE, 0);
	p.demand.response = RESPONSE;
	p.demand.capability = CAPABILITY_RESPONSES;
	struct pick_input input = stands_input(&p, "", slots);
	for (uint32_t r = 0; r < 3; r++)
		learned_clear(&picks_instance(&p, r)->learned, CAPABILITY_RESPONSES, input.model->label, 0);
	assert_string_equal(stands_picked(&p, ""), "a");
	picks_charge(&p, 0, 2);
	assert_string_equal(stands_picked(&p, ""), OUTCOME(PICK_E_FULL));
	picks_close(&p);
}

/* One that was tried did not do; the others have no room now: that is what is to be waited for. */
static void who_is_full_counts_more_than_who_was_tried(void **state) {
	static const struct stand limited[3] = { { .labels = NULL }, { .labels = "capacity=1" },
		{ .labels = "capacity=1" } };
	struct picks p;

	stands_open(&p, "round_robin", limited, 3);
	picks_charge(&p, 1, 1);
	picks_charge(&p, 2, 1);
	assert_string_equal(stands_picked(&p, ""), "a");
	assert_string_equal(stands_picked(&p, "a"), OUTCOME(PICK_E_FULL));
	picks_close(&p);
}

/* To cancel it makes room, to read it takes none. */
static void what_is_about_a_response_needs_no_room(void **state) {
	static const struct stand limited[3] = { { .labels = "capacity=2" } };
	struct picks p;

	stands_open(&p, "round_robin", limited, 3);
	picks_keep_response(&p, 0, RESPONSE, 0);
	p.demand.response = RESPONSE;
	p.demand.capability = CAPABILITY_OTHER;
	picks_charge(&p, 0, 2);
	assert_string_equal(stands_picked(&p, ""), "a");
	learned_write(&picks_instance(&p, 0)->learned.prefill_rate, 10);
	p.demand.prompt_tokens = 100;
	p.demand.deadline_ms = 5;
	assert_string_equal(stands_picked(&p, ""), "a");
	picks_close(&p);
}

static void an_owner_is_known_while_it_is_asked_for(void **state) {
	struct session_home other;
	struct ticket t;
	struct picks p;

	stands_open(&p, "round_robin", equals, 4);
	picks_keep_response(&p, 2, RESPONSE, 1000);
	p.demand.response = RESPONSE;
	assert_int_equal(picked_at(&p, 1000 + 7200).reason, PICK_RESPONSE_OWNER);
	assert_int_equal(picked_at(&p, 1000 + 7200 + 2 * SESSION_TICK_S).reason, PICK_ROUND_ROBIN);
	assert_int_equal(picks_send(&p, UINT64_C(8000) * 1000000000, &t), 2);
	ticket_close(&t, &p.set, NULL);
	assert_int_equal(picked_at(&p, 8000 + 7200).reason, PICK_RESPONSE_OWNER);
	p.demand.response = 2 * RESPONSE;
	assert_int_equal(picked_at(&p, 8000).reason, PICK_ROUND_ROBIN);
	/* The slot has another one now. */
	other = session_home_of(picks_instance(&p, 2));
	other.serial = (other.serial + 1) & SESSION_SERIAL_MASK;
	session_table_bind(p.responses, 2 * RESPONSE, other, 8000);
	assert_int_equal(picked_at(&p, 8000).reason, PICK_ROUND_ROBIN);
	p.set.responses = NULL;
	p.demand.response = RESPONSE;
	assert_int_equal(picked_at(&p, 8000).reason, PICK_ROUND_ROBIN);
	picks_close(&p);
}

/* An engine that gives out the id of another's response, by chance or by will, does not get it. */
static void an_owner_is_not_replaced_while_it_is_there(void **state) {
	struct session_home gone;
	struct picks p;

	stands_open(&p, "round_robin", equals, 4);
	picks_keep_response(&p, 2, RESPONSE, 1000);
	picks_keep_response(&p, 1, RESPONSE, 1001);
	p.demand.response = RESPONSE;
	assert_ptr_equal(picked_at(&p, 1001).instance, picks_instance(&p, 2));
	/* Its own is as good as new. */
	picks_keep_response(&p, 2, RESPONSE, 8000);
	assert_int_equal(picked_at(&p, 8000 + 7000).reason, PICK_RESPONSE_OWNER);
	/* It was idle for too long, or is not in the fleet any more. */
	picks_keep_response(&p, 1, RESPONSE, 20000);
	assert_ptr_equal(picked_at(&p, 20000).instance, picks_instance(&p, 1));
	gone = session_home_of(picks_instance(&p, 1));
	gone.serial = (gone.serial + 1) & SESSION_SERIAL_MASK;
	session_table_bind(p.responses, RESPONSE, gone, 20000);
	picks_keep_response(&p, 3, RESPONSE, 20000);
	assert_ptr_equal(picked_at(&p, 20000).instance, picks_instance(&p, 3));
	picks_close(&p);
}

/* Two picks are of the same moment: the one that opens its ticket first has the place. */
static void the_last_place_is_given_once(void **state) {
	static const struct stand stands[] = { { .labels = "capacity=1" }, { .labels = "capacity=0" } };
	struct ticket first = { .phase = TICKET_CLOSED }, second = first;
	uint16_t slots[PICKS_ROWS_MAX];
	struct pick_result pick;
	struct picks p;

	stands_open(&p, "round_robin", stands, 2);
	struct pick_input input = stands_input(&p, "b", slots);
	assert_int_equal(policy_pick(&p.set, &input, &pick), 0);
	assert_ptr_equal(pick.instance, picks_instance(&p, 0));
	assert_true(ticket_try_open(&first, &p.set, &input, &pick) && first.is_capped);
	assert_false(ticket_try_open(&second, &p.set, &input, &pick));
	assert_false(ticket_is_open(&second));
	assert_int_equal(load_requests(p.load, pick.instance->slot), 1);
	assert_int_equal(policy_pick(&p.set, &input, &pick), PICK_E_FULL);
	ticket_close(&first, &p.set, NULL);
	assert_int_equal(load_requests(p.load, picks_instance(&p, 0)->slot), 0);

	input = stands_input(&p, "a", slots); /* that one has no cap */
	assert_int_equal(policy_pick(&p.set, &input, &pick), 0);
	assert_true(ticket_try_open(&first, &p.set, &input, &pick));
	assert_true(ticket_try_open(&second, &p.set, &input, &pick) && !second.is_capped);
	ticket_close(&first, &p.set, NULL);
	ticket_close(&second, &p.set, NULL);
	picks_close(&p);
}

/* A request that goes elsewhere does not move it. */
static void a_detour_leaves_the_owner(void **state) {
	uint16_t slots[PICKS_ROWS_MAX];
	struct ticket t = { .phase = TICKET_CLOSED };
	struct pick_result result;
	struct picks p;

	stands_open(&p, "round_robin", equals, 4);
	picks_keep_response(&p, 1, RESPONSE, 0);
	p.demand.response = RESPONSE;
	struct pick_input input = stands_input(&p, "b", slots);
	assert_int_equal(policy_pick(&p.set, &input, &result), 0);
	ticket_open(&t, &p.set, &input, &result);
	ticket_close(&t, &p.set, NULL);
	assert_int_not_equal(result.row, 1);
	assert_string_equal(stands_picked(&p, ""), "b");
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rerank_never_reaches_who_only_chats),
		cmocka_unit_test(what_is_not_declared_is_not_held_against_anybody),
		cmocka_unit_test(all_features_asked_for_are_needed),
		cmocka_unit_test(prompt_and_output_fit_together),
		cmocka_unit_test(an_estimate_alone_refuses_nobody),
		cmocka_unit_test(who_is_not_cleared_gets_nothing_private),
		cmocka_unit_test(a_last_resort_never_crosses_a_clearance),
		cmocka_unit_test(all_tags_of_residency_are_needed),
		cmocka_unit_test(a_required_place_is_kept_to),
		cmocka_unit_test(who_is_full_gets_no_more),
		cmocka_unit_test(an_accelerator_is_kept_to),
		cmocka_unit_test(parts_are_kept_to),
		cmocka_unit_test(a_rank_is_kept_to),
		cmocka_unit_test(who_is_late_is_left_out),
		cmocka_unit_test(what_costs_too_much_is_left_out),
		cmocka_unit_test(what_costs_more_than_the_client_wants_is_left_out),
		cmocka_unit_test(a_priority_is_kept_to),
		cmocka_unit_test(who_is_drained_gets_nothing_new),
		cmocka_unit_test(every_code_of_every_row_is_explained),
		cmocka_unit_test(codes_have_their_numbers),
		cmocka_unit_test(in_a_panic_the_ill_are_eligible),
		cmocka_unit_test(the_last_filter_is_the_reason),
		cmocka_unit_test(a_refused_route_is_avoided_for_a_while),
		cmocka_unit_test(an_open_breaker_is_not_crossed),
		cmocka_unit_test(what_else_speaks_against_it_counts_more),
		cmocka_unit_test(picks_and_codes_agree),
		cmocka_unit_test(codes_of_candidates_allocate_nothing),
		cmocka_unit_test(a_stored_response_is_asked_for_where_it_is),
		cmocka_unit_test(an_owner_is_not_replaced_while_it_is_there),
		cmocka_unit_test(an_owner_that_is_not_eligible_is_passed_over),
		cmocka_unit_test(an_owner_that_is_out_for_a_moment_is_waited_for),
		cmocka_unit_test(an_owner_that_refused_and_is_full_is_waited_for),
		cmocka_unit_test(who_is_full_counts_more_than_who_was_tried),
		cmocka_unit_test(what_is_about_a_response_needs_no_room),
		cmocka_unit_test(an_owner_is_known_while_it_is_asked_for),
		cmocka_unit_test(a_detour_leaves_the_owner),
		cmocka_unit_test(the_last_place_is_given_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
