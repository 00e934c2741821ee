#include "unit/policy/picks.h"

#include "policy/ticket.h"

#define SECOND UINT64_C(1000000000)

static const uint16_t equal[PICKS_ROWS_MAX] = { 1, 1, 1, 1 };

/* A fleet of three under cache_aware, with an index, and one request's pick. */
struct desk {
	struct picks p;
	struct prefix_index *index;
	uint64_t keys[8];
	struct pick_input input;
	struct pick_result pick;
};

static void desk_open(struct desk *d) {
	*d = (struct desk){ .index = prefix_index_new(1 << 16) };
	picks_open(&d->p, "cache_aware", equal, 3, 1);
	d->p.set.index = d->index;
	policy_set_adopt(&d->p.set, d->p.snap);
	for (unsigned i = 0; i < n_elems(d->keys); i++)
		d->keys[i] = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
	d->p.demand = (struct demand){ .prompt_bytes = sizeof(d->keys) / 8 * PROMPT_BLOCK_BYTES,
		.prompt_tokens = 4096,
		.output_tokens = 100,
		.keys = d->keys,
		.n_keys = n_elems(d->keys) };
	d->input = (struct pick_input){ .model = snapshot_model(d->p.set.snapshot, SLICE("m")),
		.demand = &d->p.demand,
		.now_ns = 10 * SECOND };
}

static void desk_close(struct desk *d) {
	picks_close(&d->p);
	prefix_index_free(&d->index);
}

static void desk_take(struct desk *d, struct ticket *t) {
	assert_int_equal(policy_pick(&d->p.set, &d->input, &d->pick), 0);
	ticket_open(t, &d->p.set, &d->input, &d->pick);
}

static struct load_sum desk_load(const struct desk *d) {
	return load_sum(d->p.load, d->pick.instance->slot);
}

static void assert_load(
    const struct desk *d, uint64_t n_requests, uint64_t n_prefills, uint64_t prefill, uint64_t decode) {
	struct load_sum sum = desk_load(d);

	assert_int_equal(sum.n_requests, n_requests);
	assert_int_equal(sum.n_prefills, n_prefills);
	assert_int_equal(sum.prefill_tokens, prefill);
	assert_int_equal(sum.decode_tokens, decode);
}

static void the_load_follows_a_request(void **state) {
	struct ticket t = { .phase = TICKET_CLOSED };
	struct desk d;

	desk_open(&d);
	desk_take(&d, &t);
	assert_load(&d, 1, 1, 4096, 0);
	ticket_first(&t, &d.p.set, 11 * SECOND);
	assert_load(&d, 1, 0, 0, 4196);
	ticket_first(&t, &d.p.set, 12 * SECOND);
	assert_load(&d, 1, 0, 0, 4196);
	ticket_close(&t, &d.p.set, NULL);
	assert_load(&d, 0, 0, 0, 0);
	ticket_close(&t, &d.p.set, NULL);
	ticket_first(&t, &d.p.set, 12 * SECOND);
	assert_load(&d, 0, 0, 0, 0);
	desk_close(&d);
}

static void a_request_that_never_began_is_released_too(void **state) {
	struct ticket t = { .phase = TICKET_CLOSED };
	struct desk d;

	desk_open(&d);
	desk_take(&d, &t);
	ticket_close(&t, &d.p.set, NULL);
	assert_load(&d, 0, 0, 0, 0);
	assert_false(ticket_is_open(&t));
	desk_close(&d);
}

/* The head of the queue is the oldest without a first token, whoever ends first. */
static void the_head_is_told(void **state) {
	struct ticket t[3] = { { .phase = TICKET_CLOSED } };
	struct desk d;

	desk_open(&d);
	d.p.demand.n_keys = 0;
	assert_int_equal(policy_pick(&d.p.set, &d.input, &d.pick), 0);
	for (unsigned i = 0; i < 3; i++) {
		d.input.now_ns = (10 + i) * SECOND;
		d.p.demand.prompt_tokens = 1000 * (i + 1);
		ticket_open(&t[i], &d.p.set, &d.input, &d.pick);
	}
	assert_int_equal(desk_load(&d).head_ns, 10 * SECOND);
	assert_int_equal(desk_load(&d).head_tokens, 1000);
	ticket_first(&t[1], &d.p.set, 14 * SECOND);
	assert_int_equal(desk_load(&d).head_tokens, 1000);
	ticket_close(&t[0], &d.p.set, NULL);
	assert_int_equal(desk_load(&d).head_ns, 12 * SECOND);
	assert_int_equal(desk_load(&d).head_tokens, 3000);
	ticket_first(&t[2], &d.p.set, 15 * SECOND);
	assert_int_equal(desk_load(&d).head_ns, 0);
	ticket_close(&t[1], &d.p.set, NULL);
	ticket_close(&t[2], &d.p.set, NULL);
	assert_load(&d, 0, 0, 0, 0);
	desk_close(&d);
}

/* Moved in its middle, before and after its first token: its turn is the same, and what it is charged with.
 */
static void a_ticket_may_move(void **state) {
	struct ticket t[3] = { { .phase = TICKET_CLOSED } }, moved = t[0], again = t[0];
	struct desk d;

	desk_open(&d);
	d.p.demand.n_keys = 0;
	ticket_move(&moved, &again); /* nobody's */
	assert_false(ticket_is_open(&moved));
	assert_int_equal(policy_pick(&d.p.set, &d.input, &d.pick), 0);
	for (unsigned i = 0; i < 3; i++) {
		d.p.demand.prompt_tokens = 1000 * (i + 1);
		ticket_open(&t[i], &d.p.set, &d.input, &d.pick);
	}
	ticket_move(&moved, &t[1]);
	assert_false(ticket_is_open(&t[1]));
	assert_load(&d, 3, 3, 6000, 0);
	ticket_close(&t[1], &d.p.set, NULL);
	ticket_close(&t[0], &d.p.set, NULL);
	assert_int_equal(desk_load(&d).head_tokens, 2000);
	ticket_first(&moved, &d.p.set, 12 * SECOND);
	assert_int_equal(desk_load(&d).head_tokens, 3000);
	ticket_move(&again, &moved);
	ticket_close(&again, &d.p.set, NULL);
	ticket_close(&t[2], &d.p.set, NULL);
	assert_load(&d, 0, 0, 0, 0);
	desk_close(&d);
}

/* What is cached already is no work: the second request is charged with nothing. */
static void cached_blocks_are_not_charged(void **state) {
	struct ticket first = { .phase = TICKET_CLOSED }, second = first;
	struct desk d;

	desk_open(&d);
	desk_take(&d, &first);
	struct instance *inst = d.pick.instance;
	desk_take(&d, &second);
	assert_ptr_equal(d.pick.instance, inst);
	assert_int_equal(d.pick.reason, PICK_PREFIX_HIT);
	assert_load(&d, 2, 2, 4096, 0);
	assert_int_equal(second.cached_tokens, 4096);
	ticket_close(&first, &d.p.set, NULL);
	ticket_close(&second, &d.p.set, NULL);
	assert_load(&d, 0, 0, 0, 0);
	desk_close(&d);
}

static void a_whole_request(
    struct desk *d, uint64_t begin_ns, uint64_t first_ns, const struct ticket_usage *usage) {
	struct ticket t = { .phase = TICKET_CLOSED };

	d->input.now_ns = begin_ns;
	desk_take(d, &t);
	ticket_first(&t, &d->p.set, first_ns);
	ticket_close(&t, &d->p.set, usage);
}

static void the_rate_is_learned(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 4096, .has_cached = true };
	struct desk d;

	desk_open(&d);
	a_whole_request(&d, 10 * SECOND, 12 * SECOND, &usage);
	assert_float_equal((float)learned_read(&d.pick.instance->learned.prefill_rate), 2048.0F, 1e-3F);
	assert_float_equal((float)learned_read(&d.pick.instance->learned.first_token_s), 2.0F, 1e-3F);
	desk_close(&d);
}

/* A whole answer comes when its last token is there: that is no prefill. What has no more than one token is.
 */
static void a_whole_answer_is_no_first_token(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 4096, .output_tokens = 100, .has_cached = true };
	static const struct demand all_prompt[] = { { .capability = CAPABILITY_EMBEDDINGS },
		{ .capability = CAPABILITY_RERANK }, { .capability = CAPABILITY_SCORE },
		{ .output_max = 1 } };
	struct ticket t = { .phase = TICKET_CLOSED };
	struct desk d;

	desk_open(&d);
	desk_take(&d, &t);
	ticket_answered(&t, &d.p.set, 14 * SECOND);
	assert_load(&d, 1, 0, 0, 4196);
	ticket_answered(&t, &d.p.set, 15 * SECOND);
	assert_load(&d, 1, 0, 0, 4196);
	ticket_close(&t, &d.p.set, &usage);
	ticket_answered(&t, &d.p.set, 16 * SECOND);
	assert_load(&d, 0, 0, 0, 0);
	const struct learned *learned = &d.pick.instance->learned;
	assert_true(learned_read(&learned->prefill_rate) == 0);
	assert_true(learned_read(&learned->first_token_s) == 0);
	assert_int_equal(learned->first_ns, 0);
	desk_close(&d);
	for (unsigned i = 0; i < n_elems(all_prompt); i++) {
		desk_open(&d);
		d.p.demand.capability = all_prompt[i].capability;
		d.p.demand.output_max = all_prompt[i].output_max;
		desk_take(&d, &t);
		ticket_answered(&t, &d.p.set, 12 * SECOND);
		ticket_close(&t, &d.p.set, &usage);
		learned = &d.pick.instance->learned;
		assert_float_equal((float)learned_read(&learned->prefill_rate), 2048.0F, 1e-3F);
		assert_float_equal((float)learned_read(&learned->first_token_s), 2.0F, 1e-3F);
		desk_close(&d);
	}
}

/* Streams say nothing of tokens unless they are asked: what was estimated is a rate all the same. */
static void a_rate_is_learned_without_usage(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 0 };
	struct ticket t = { .phase = TICKET_CLOSED };
	struct desk d;

	desk_open(&d);
	a_whole_request(&d, 10 * SECOND, 12 * SECOND, &usage);
	const struct learned *learned = &d.pick.instance->learned;
	assert_float_equal((float)learned_read(&learned->prefill_rate), 2048.0F, 1e-3F);
	assert_int_equal(learned->predicted_tokens, 0);
	assert_float_equal((float)policy_tokens_per_byte(&d.p.set, d.input.model), 0.25F, 1e-6F);
	/* What is believed to be cached nobody confirms: where that is most of a prompt, the rest is no
	 * measure. */
	a_whole_request(&d, 20 * SECOND, 29 * SECOND, &usage);
	assert_int_equal(d.pick.reason, PICK_PREFIX_HIT);
	assert_float_equal((float)learned_read(&learned->prefill_rate), 2048.0F, 1e-3F);
	desk_close(&d);
	for (unsigned i = 0; i < 4; i++) {
		desk_open(&d);
		d.p.demand.features = i == 0 ? 1u << FEATURE_IMAGE_INPUT : 0;
		d.p.demand.is_prompt_open = i == 1;
		desk_take(&d, &t);
		if (i == 2)
			ticket_answered(&t, &d.p.set, 12 * SECOND);
		else
			ticket_first(&t, &d.p.set, 12 * SECOND);
		ticket_close(&t, &d.p.set, i == 3 ? NULL : &usage);
		assert_true(learned_read(&d.pick.instance->learned.prefill_rate) == 0);
		desk_close(&d);
	}
}

/* A constant time is what is reported, each instance's own; a peak is followed at once and forgotten slowly.
 */
static void constant_times_are_reported_as_they_are(void **state) {
	static const double times_s[] = { 0.02, 0.005, 0.05 };
	struct picks p;

	picks_open(&p, "round_robin", equal, 3, 1);
	for (unsigned i = 0; i < 300; i++) {
		struct ticket t;
		uint64_t now_ns = i * SECOND;
		uint32_t row = picks_send(&p, now_ns, &t);

		ticket_first(&t, &p.set, now_ns + (uint64_t)(times_s[row] * 1e9 + 0.5));
		ticket_close(&t, &p.set, NULL);
	}
	for (uint32_t r = 0; r < 3; r++) {
		double mean = learned_read(&picks_instance(&p, r)->learned.first_token_s);

		assert_true(mean > times_s[r] - 1e-8 && mean < times_s[r] + 1e-8);
	}
	for (unsigned i = 0; i <= 60; i++) { /* one takes 10 times as long, once */
		const struct learned *learned;
		struct ticket t;
		uint32_t row = picks_send(&p, (1000 + i) * SECOND, &t);

		if (row == 1)
			ticket_first(&t, &p.set, (1000 + i) * SECOND + SECOND / (i < 3 ? 20 : 200));
		ticket_close(&t, &p.set, NULL);
		learned = &picks_instance(&p, 1)->learned;
		if (i == 2)
			assert_float_equal((float)learned_read(&learned->first_token_s), 0.05F, 1e-6F);
		if (i == 5)
			assert_float_equal((float)learned_read(&learned->first_token_s), 0.041F, 1e-6F);
		if (i == 60)
			assert_float_equal((float)learned_read(&learned->first_token_s), 0.005F, 1e-3F);
	}
	picks_close(&p);
}

/* It waited behind another: only what came after that one's first token was its own prefill. */
static void waiting_is_no_work(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 4096, .has_cached = true };
	struct ticket first = { .phase = TICKET_CLOSED }, second = first;
	struct desk d;

	desk_open(&d);
	desk_take(&d, &first);
	d.p.demand.n_keys = 0; /* nothing is cached of the next one */
	struct pick_result same = d.pick;
	assert_int_equal(policy_pick(&d.p.set, &d.input, &d.pick), 0);
	ticket_open(&second, &d.p.set, &d.input, &same);
	ticket_first(&first, &d.p.set, 12 * SECOND);
	ticket_first(&second, &d.p.set, 13 * SECOND);
	ticket_close(&second, &d.p.set, &usage);
	assert_float_equal((float)learned_read(&same.instance->learned.prefill_rate), 4096.0F, 1e-3F);
	ticket_close(&first, &d.p.set, NULL);
	desk_close(&d);
}

/* Two prompts of one batch have their first tokens at once: that is no rate of millions. */
static void a_batch_is_no_miracle(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 4096, .has_cached = true };
	struct ticket first = { .phase = TICKET_CLOSED }, second = first;
	struct desk d;

	desk_open(&d);
	desk_take(&d, &first);
	struct pick_result same = d.pick;
	assert_int_equal(policy_pick(&d.p.set, &d.input, &d.pick), 0);
	ticket_open(&second, &d.p.set, &d.input, &same);
	ticket_first(&first, &d.p.set, 14 * SECOND);
	ticket_first(&second, &d.p.set, 14 * SECOND + 10);
	ticket_close(&first, &d.p.set, &usage);
	ticket_close(&second, &d.p.set, &usage);
	assert_in_range((uint64_t)learned_read(&same.instance->learned.prefill_rate), 1024, 2200);
	desk_close(&d);
}

/* The estimate of a prompt's tokens may be wrong: what was cached is told in the engine's. */
static void a_wrong_estimate_is_no_eviction(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 3000, .cached_tokens = 3000, .has_cached = true };
	struct ticket t = { .phase = TICKET_CLOSED };
	struct desk d;

	desk_open(&d);
	for (unsigned i = 0; i < 10; i++)
		a_whole_request(&d, (10 + i) * SECOND, (10 + i) * SECOND + 1, &usage);
	unsigned slot = d.pick.instance->slot;
	assert_int_equal(prefix_index_horizon(d.index, slot), PREFIX_HORIZON_NONE);
	desk_take(&d, &t);
	assert_int_equal(t.cached_tokens, t.prompt_tokens);
	ticket_close(&t, &d.p.set, NULL);
	desk_close(&d);
}

/* A second request that came before the first was computed found nothing: that is no eviction. */
static void who_overtakes_teaches_nothing(void **state) {
	struct ticket_usage none = { .prompt_tokens = 4096, .has_cached = true };
	struct ticket first = { .phase = TICKET_CLOSED }, second = first;
	struct desk d;

	desk_open(&d);
	desk_take(&d, &first);
	desk_take(&d, &second);
	assert_int_equal(second.n_blocks, n_elems(d.keys));
	ticket_close(&second, &d.p.set, &none);
	unsigned slot = d.pick.instance->slot;
	assert_int_equal(prefix_index_horizon(d.index, slot), PREFIX_HORIZON_NONE);
	ticket_close(&first, &d.p.set, NULL);
	a_whole_request(&d, 20 * SECOND, 21 * SECOND, &none); /* now nobody is before it */
	assert_int_not_equal(prefix_index_horizon(d.index, slot), PREFIX_HORIZON_NONE);
	desk_close(&d);
}

/* An image's tokens say nothing of what a byte of text is worth. */
static void images_teach_no_ratio(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 30000 };
	struct desk d;

	desk_open(&d);
	d.p.demand.features = 1u << FEATURE_IMAGE_INPUT;
	for (unsigned i = 0; i < 100; i++)
		a_whole_request(&d, (10 + i) * SECOND, (10 + i) * SECOND + 1, &usage);
	assert_float_equal((float)policy_tokens_per_byte(&d.p.set, d.input.model), 0.25F, 1e-6F);
	desk_close(&d);
}

/* Nor do the digits of token ids. */
static void token_ids_teach_no_ratio(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 30000 };
	struct desk d;

	desk_open(&d);
	d.p.demand.is_counted = true;
	for (unsigned i = 0; i < 100; i++)
		a_whole_request(&d, (10 + i) * SECOND, (10 + i) * SECOND + 1, &usage);
	assert_float_equal((float)policy_tokens_per_byte(&d.p.set, d.input.model), 0.25F, 1e-6F);
	desk_close(&d);
}

/* What an engine says of its size is believed until its answers know better. */
static void the_size_of_a_cache_is_heard(void **state) {
	struct ticket t = { .phase = TICKET_CLOSED };
	struct desk d;

	desk_open(&d);
	for (uint32_t r = 0; r < 3; r++)
		picks_instance(&d.p, r)->learned.cache_tokens = 51200; /* 100 blocks of 2 KiB */
	desk_take(&d, &t);
	assert_int_equal(prefix_index_horizon(d.index, d.pick.instance->slot), 100 * PREFIX_BLOCK_TICKS);
	ticket_close(&t, &d.p.set, NULL);
	desk_close(&d);
}

static void tokens_per_byte_are_learned(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 8192 };
	struct desk d;

	desk_open(&d);
	assert_float_equal((float)policy_tokens_per_byte(&d.p.set, d.input.model), 0.25F, 1e-6F);
	for (unsigned i = 0; i < 200; i++)
		a_whole_request(&d, (10 + i) * SECOND, (10 + i) * SECOND + 1, &usage);
	assert_float_equal((float)policy_tokens_per_byte(&d.p.set, d.input.model), 0.5F, 1e-3F);
	desk_close(&d);
}

/* An engine that keeps nothing of what it was given is not believed for long. */
static void an_index_that_is_wrong_loses_trust(void **state) {
	struct ticket_usage none = { .prompt_tokens = 4096, .has_cached = true };
	struct ticket t = { .phase = TICKET_CLOSED };
	struct desk d;

	desk_open(&d);
	for (unsigned i = 0; i < 4; i++)
		a_whole_request(&d, (10 + i) * SECOND, (10 + i) * SECOND + 1, &none);
	desk_take(&d, &t);
	assert_in_range(t.cached_tokens, 0, 2048);
	ticket_close(&t, &d.p.set, NULL);
	desk_close(&d);
}

static void what_is_predicted_and_found_is_counted(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 4096, .cached_tokens = 0, .has_cached = true };
	struct desk d;

	desk_open(&d);
	a_whole_request(&d, 10 * SECOND, 11 * SECOND, &usage);
	usage.cached_tokens = 3000;
	a_whole_request(&d, 12 * SECOND, 13 * SECOND, &usage);
	assert_int_equal(d.pick.instance->learned.predicted_tokens, 4096);
	assert_int_equal(d.pick.instance->learned.actual_tokens, 3000);
	desk_close(&d);
}

/* Figures that make no sense teach nothing that does harm. */
static void absurd_usage_is_survived(void **state) {
	struct ticket_usage usage = { .prompt_tokens = 1, .cached_tokens = UINT64_MAX, .has_cached = true };
	struct ticket t = { .phase = TICKET_CLOSED };
	struct desk d;

	desk_open(&d);
	for (unsigned i = 0; i < 300; i++) {
		usage.prompt_tokens = i % 2 ? UINT64_MAX : 1;
		a_whole_request(&d, (10 + i) * SECOND, (10 + i) * SECOND, &usage);
	}
	desk_take(&d, &t);
	assert_true(t.cached_tokens <= t.prompt_tokens);
	ticket_close(&t, &d.p.set, NULL);
	assert_load(&d, 0, 0, 0, 0);
	double ratio = policy_tokens_per_byte(&d.p.set, d.input.model);
	assert_true(ratio > 0 && ratio <= 4);
	desk_close(&d);
}

/* What another instance computes is in decode from the beginning, and teaches nothing of this one. */
static void what_is_prefilled_elsewhere_is_decoded(void **state) {
	struct ticket t = { .phase = TICKET_CLOSED };
	struct desk d;

	desk_open(&d);
	d.p.demand.is_prefilled = true;
	desk_take(&d, &t);
	assert_load(&d, 1, 0, 0, 4196);
	ticket_first(&t, &d.p.set, 11 * SECOND);
	ticket_close(&t, &d.p.set,
	    &(struct ticket_usage){ .prompt_tokens = 4096, .output_tokens = 100, .has_cached = true });
	assert_load(&d, 0, 0, 0, 0);
	assert_true(learned_read(&d.pick.instance->learned.prefill_rate) <= 0);
	assert_true(learned_read(&d.pick.instance->learned.first_token_s) <= 0);
	desk_close(&d);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_load_follows_a_request),
		cmocka_unit_test(a_request_that_never_began_is_released_too),
		cmocka_unit_test(the_head_is_told),
		cmocka_unit_test(a_ticket_may_move),
		cmocka_unit_test(cached_blocks_are_not_charged),
		cmocka_unit_test(the_rate_is_learned),
		cmocka_unit_test(a_whole_answer_is_no_first_token),
		cmocka_unit_test(a_rate_is_learned_without_usage),
		cmocka_unit_test(constant_times_are_reported_as_they_are),
		cmocka_unit_test(waiting_is_no_work),
		cmocka_unit_test(a_batch_is_no_miracle),
		cmocka_unit_test(a_wrong_estimate_is_no_eviction),
		cmocka_unit_test(who_overtakes_teaches_nothing),
		cmocka_unit_test(images_teach_no_ratio),
		cmocka_unit_test(token_ids_teach_no_ratio),
		cmocka_unit_test(the_size_of_a_cache_is_heard),
		cmocka_unit_test(tokens_per_byte_are_learned),
		cmocka_unit_test(an_index_that_is_wrong_loses_trust),
		cmocka_unit_test(what_is_predicted_and_found_is_counted),
		cmocka_unit_test(what_is_prefilled_elsewhere_is_decoded),
		cmocka_unit_test(absurd_usage_is_survived),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
