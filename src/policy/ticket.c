#include "policy/ticket.h"

#include "policy/choice.h"
#include "policy/locality.h"
#include "policy/session_table.h"

/* Fewer uncached tokens than these say more of the network than of the engine. */
#define LESSON_TOKENS_MIN 256u
#define LESSON_BYTES_MIN  1024u

/* How much a lesson counts against all before it. */
#define FIRST_TOKEN_SHARE 0.2
#define RATIO_SHARE       0.05
#define LENGTH_SHARE      0.05
#define LENGTH_MAX        (1u << 20) /* tokens: longer ones are not believed */

/*
 * Tokens a byte. A token is hardly less than a byte, and seldom more than a line; beyond is no usage of the
 * text that was sent: engines are peers, and images have tokens, too. One lesson moves no ratio far.
 */
#define RATIO_MIN  0.01
#define RATIO_MAX  2.0
#define RATIO_STEP 2.0

/* Work and predictions are remembered with this decay each. */
#define MEMORY 0.9

/* An instance is given up on when nearly none of so many predicted tokens were there. */
#define DOUBT_TOKENS 16384.0
#define DOUBT_PART   0.1

/* --- open ----------------------------------------------------------------------------------- */

/* What is likely to be found in its cache, as far as it kept such promises before. */
static void predict(struct ticket *t, const struct policy_set *set, const struct demand *demand) {
	const struct prefix_hit *hit = set->index ? prefix_scan_find(set->scan, t->instance->slot) : NULL;

	if (!hit)
		return;
	t->n_blocks = (uint16_t)hit->n_blocks;
	t->n_known = (uint16_t)hit->n_known;
	t->age = hit->age;
	t->age_beyond = hit->age_beyond;
	t->cached_tokens = choice_cached_tokens(demand, hit, t->instance);
}

/*
 * Blocks of prompts that the engine has yet to compute are in the index, but not in its cache: this request
 * may come before they are.
 */
static bool may_overtake(const struct ticket *t, const struct policy_set *set) {
	uint64_t n_queued = load_total(set->load, t->instance->slot).prefill_tokens;
	double n_bytes = (double)n_queued / set->lessons[t->label].tokens_per_byte;

	return n_queued && t->age <= (n_bytes / PROMPT_BLOCK_BYTES + 1) * PREFIX_BLOCK_TICKS;
}

/* The engine said how much it keeps: until its answers say better, that is believed. */
static void heed_cache_size(const struct ticket *t, struct policy_set *set) {
	uint64_t n_tokens = atomic_load_explicit(&t->instance->learned.cache_tokens, memory_order_relaxed);
	double n_blocks = (double)n_tokens / set->lessons[t->label].tokens_per_byte / PROMPT_BLOCK_BYTES;
	double age = n_blocks * PREFIX_BLOCK_TICKS;

	if (n_tokens && prefix_index_horizon(set->index, t->instance->slot) == PREFIX_HORIZON_NONE)
		prefix_index_learn(set->index, t->instance->slot,
		    age < PREFIX_AGE_MAX ? (uint32_t)age : PREFIX_AGE_MAX, false);
}

/* Whose prompt is computed now, as far as this worker knows. */
static void tell_head(const struct policy_set *set, unsigned slot) {
	const struct list *first = list_first(&set->queues[slot]);
	const struct ticket *head = first ? container_of(first, const struct ticket, link) : NULL;

	load_set_head(
	    set->load, set->worker, slot, head ? head->opened_ns : 0, head ? head->charged_tokens : 0);
}

static void enqueue(struct ticket *t, struct policy_set *set) {
	list_init(&t->link);
	list_push(&set->queues[t->instance->slot], &t->link);
	tell_head(set, t->instance->slot);
}

static void dequeue(struct ticket *t, struct policy_set *set) {
	list_remove(&t->link);
	tell_head(set, t->instance->slot);
}

static void bind_response(
    struct policy_set *set, uint64_t response, const struct instance *owner, uint64_t now_ns) {
	session_table_bind(set->responses, response, session_home_of(owner), now_ns / 1000000000u);
}

static bool is_home_of_any(const struct snapshot *snap, struct session_home home) {
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (session_home_is(home, snap->rows[i].instance))
			return true;
	return false;
}

/* Ids are the engines' own: one that gives out another's, by chance or by will, does not get its requests. */
static bool is_anothers(
    const struct policy_set *set, uint64_t response, const struct instance *inst, uint64_t now_ns) {
	struct session_home home;

	return session_table_find(set->responses, response, now_ns / 1000000000u, &home) &&
	    !session_home_is(home, inst) && is_home_of_any(set->snapshot, home);
}

void ticket_keep_response(
    const struct ticket *t, struct policy_set *set, uint64_t response, uint64_t now_ns) {
	assert(ticket_is_open(t));
	if (set->responses && !is_anothers(set, response, t->instance, now_ns))
		bind_response(set, response, t->instance, now_ns);
}

static bool is_no_text(const struct demand *demand) {
	uint32_t media = 1u << FEATURE_IMAGE_INPUT | 1u << FEATURE_AUDIO_INPUT;

	return demand->features & media || demand->is_counted || demand->is_prompt_open;
}

/* The prompt is all the work: a whole answer is there as soon as a first token would be. */
static bool is_prefill_only(const struct demand *demand) {
	uint32_t judges = 1u << CAPABILITY_EMBEDDINGS | 1u << CAPABILITY_RERANK | 1u << CAPABILITY_SCORE;

	return judges >> demand->capability & 1 || demand->output_max == 1;
}

static void prepare(struct ticket *t, struct policy_set *set, const struct pick_input *input,
    const struct pick_result *pick) {
	const struct demand *demand = input->demand;
	const struct policy *policy = policy_of(set, input->model);

	*t = (struct ticket){
		.instance = pick->instance,
		.opened_ns = input->now_ns,
		.prompt_bytes = (uint32_t)u64_min(demand->prompt_bytes, UINT32_MAX),
		.label = (uint16_t)input->model->label,
		.prompt_tokens = demand->prompt_tokens,
		.output_tokens = demand->output_tokens,
		.is_no_text = is_no_text(demand),
		.is_looked_up = set->index && demand->n_keys && choice_wants_index(policy, input->model),
		.is_prefilled = demand->is_prefilled,
		.is_several = demand->is_batch || demand->features >> FEATURE_N & 1,
		.is_prefill_only = is_prefill_only(demand),
		.service_s = -1,
		.phase = TICKET_PREFILL,
		.capability = (uint8_t)demand->capability,
	};
	predict(t, set, demand);
	t->may_overtake = t->n_blocks && may_overtake(t, set);
	t->charged_tokens = t->is_prefilled ? 0 : t->prompt_tokens - t->cached_tokens;
}

static void move_to_decode(struct ticket *t, struct policy_set *set) {
	uint32_t decode_tokens = t->prompt_tokens + t->output_tokens;

	dequeue(t, set);
	load_move(set->load, set->worker, t->instance->slot, t->charged_tokens, decode_tokens);
	t->charged_tokens = decode_tokens;
	t->phase = TICKET_DECODE;
}

/* It is charged. */
static void begin(struct ticket *t, struct policy_set *set, const struct pick_input *input,
    const struct pick_result *pick) {
	const struct demand *demand = input->demand;
	const struct policy *policy = policy_of(set, input->model);

	enqueue(t, set);
	if (t->is_prefilled)
		move_to_decode(t, set);
	if (t->is_several)
		atomic_fetch_add_explicit(&t->instance->learned.n_several, 1, memory_order_relaxed);
	locality_keep(set, input, pick);
	if (t->is_looked_up) {
		choice_own(set->index, t->instance);
		heed_cache_size(t, set);
		prefix_index_put(set->index, t->instance->slot, demand->keys, demand->n_keys);
	}
	if (policy->bind && !input->is_hedge)
		policy->bind(set, input, pick);
	if (pick->reason == PICK_RESPONSE_OWNER) /* it is not idle */
		bind_response(set, demand->response, pick->instance, input->now_ns);
}

void ticket_open(struct ticket *t, struct policy_set *set, const struct pick_input *input,
    const struct pick_result *pick) {
	assert(!ticket_is_open(t));
	prepare(t, set, input, pick);
	load_charge(set->load, set->worker, t->instance->slot, t->charged_tokens);
	begin(t, set, input, pick);
}

bool ticket_try_open(struct ticket *t, struct policy_set *set, const struct pick_input *input,
    const struct pick_result *pick) {
	const struct candidate *candidate = &input->model->candidates[set->eligible[pick->at]];
	uint32_t n_max = snapshot_traits(set->snapshot, candidate)->capacity;

	assert(candidate->instance == pick->instance);
	if (!n_max || !demand_is_work(input->demand)) {
		ticket_open(t, set, input, pick);
		t->is_capped = n_max > 0; /* whoever waits for room there hears of its end */
		return true;
	}
	assert(!ticket_is_open(t));
	prepare(t, set, input, pick);
	t->is_capped = true;
	if (!load_try_charge(set->load, set->worker, t->instance->slot, t->charged_tokens, n_max)) {
		*t = (struct ticket){ .phase = TICKET_CLOSED };
		return false;
	}
	begin(t, set, input, pick);
	return true;
}

/* Its place in the queue stays. */
void ticket_move(struct ticket *to, struct ticket *from) {
	assert(!ticket_is_open(to));
	*to = *from;
	if (to->phase == TICKET_PREFILL) {
		list_init(&to->link);
		list_insert_after(&from->link, &to->link);
		list_remove(&from->link);
	}
	*from = (struct ticket){ .phase = TICKET_CLOSED };
}

/* --- the first token ------------------------------------------------------------------------ */

static void learn_mean(_Atomic double *mean, double sample, double share) {
	double before = learned_read(mean);

	learned_write(mean, before > 0 ? before + (sample - before) * share : sample);
}

/* Follows peaks at once and forgets them slowly. */
static void learn_first_token(struct learned *learned, double sample_s) {
	double before = learned_read(&learned->first_token_s);

	if (sample_s > before)
		learned_write(&learned->first_token_s, sample_s);
	else
		learn_mean(&learned->first_token_s, sample_s, FIRST_TOKEN_SHARE);
}

void ticket_first(struct ticket *t, struct policy_set *set, uint64_t now_ns) {
	if (t->phase != TICKET_PREFILL)
		return;
	struct learned *learned = &t->instance->learned;
	uint64_t before_ns = atomic_load_explicit(&learned->first_ns, memory_order_relaxed);

	/* Prompts pass one after the other: it was served since the one before it was. */
	t->service_s = (float)((double)(now_ns - u64_min(u64_max(t->opened_ns, before_ns), now_ns)) / 1e9);
	learn_first_token(learned, (double)(now_ns - t->opened_ns) / 1e9);
	atomic_store_explicit(&learned->first_ns, now_ns, memory_order_relaxed);
	move_to_decode(t, set);
}

void ticket_answered(struct ticket *t, struct policy_set *set, uint64_t now_ns) {
	if (t->is_prefill_only)
		ticket_first(t, set, now_ns);
	else if (t->phase == TICKET_PREFILL)
		move_to_decode(t, set);
}

/* --- close ---------------------------------------------------------------------------------- */

/*
 * Tokens over time, not the mean of rates: prompts that an engine takes in one batch have their first
 * tokens at once, and the time is all the first one's.
 */
static void learn_rate(const struct ticket *t, uint64_t n_uncached) {
	struct learned *learned = &t->instance->learned;
	double tokens = learned_read(&learned->recent_tokens) * MEMORY + (double)n_uncached;
	double seconds = learned_read(&learned->recent_s) * MEMORY + (double)t->service_s;

	if (n_uncached < LESSON_TOKENS_MIN || t->service_s < 0 || seconds <= 0)
		return;
	learned_write(&learned->recent_tokens, tokens);
	learned_write(&learned->recent_s, seconds);
	learned_write(&learned->prefill_rate, tokens / seconds);
}

static void learn_ratio(const struct ticket *t, struct policy_set *set, uint64_t prompt_tokens) {
	double *ratio = &set->lessons[t->label].tokens_per_byte;
	double said = (double)prompt_tokens / (double)t->prompt_bytes;

	if (t->prompt_bytes < LESSON_BYTES_MIN || t->is_no_text || said < RATIO_MIN)
		return;
	if (said > *ratio * RATIO_STEP)
		said = *ratio * RATIO_STEP;
	*ratio += (said - *ratio) * RATIO_SHARE;
}

static void learn_length(double *mean, uint64_t n_tokens) {
	if (n_tokens)
		*mean += ((double)u64_min(n_tokens, LENGTH_MAX) - *mean) * LENGTH_SHARE;
}

/* Blocks believed and blocks found: how far this instance's part of the index is to be trusted. */
static void learn_trust(const struct ticket *t, struct policy_set *set, double n_cached) {
	struct learned *learned = &t->instance->learned;
	double tokens_per_block = (double)t->prompt_tokens * PROMPT_BLOCK_BYTES / t->prompt_bytes;
	double met = n_cached < t->n_blocks ? n_cached : t->n_blocks;
	double predicted = learned_read(&learned->recent_predicted) * MEMORY + t->n_blocks * tokens_per_block;
	double actual = learned_read(&learned->recent_actual) * MEMORY + met * tokens_per_block;

	/* Restarted, its cache flushed, or none. It is to show first that it keeps anything. */
	if (predicted > DOUBT_TOKENS && actual < predicted * DOUBT_PART)
		prefix_index_forget(set->index, t->instance->slot);
	learned_write(&learned->recent_predicted, predicted);
	learned_write(&learned->recent_actual, actual);
}

/* Whether blocks of such ages are still there: what the index learns the size of the cache from. */
static void learn_horizon(const struct ticket *t, struct policy_set *set, double n_cached) {
	uint16_t slot = t->instance->slot;

	if (t->n_blocks && n_cached < t->n_blocks)
		prefix_index_learn(set->index, slot, t->age, false);
	else if (t->n_known > t->n_blocks && n_cached > t->n_blocks + 1)
		prefix_index_learn(set->index, slot, t->age_beyond, true);
}

static void count(_Atomic uint64_t *counter, double n) {
	atomic_store_explicit(
	    counter, atomic_load_explicit(counter, memory_order_relaxed) + (uint64_t)n, memory_order_relaxed);
}

/* In the engine's tokens, whatever we took the prompt to be. */
static void learn_cache(
    const struct ticket *t, struct policy_set *set, uint64_t prompt_tokens, uint64_t cached_tokens) {
	struct learned *learned = &t->instance->learned;
	double cached = (double)cached_tokens / (double)prompt_tokens; /* of the prompt */
	double n_cached = cached * t->prompt_bytes / PROMPT_BLOCK_BYTES + 0.5;

	if (!t->prompt_tokens)
		return;
	count(
	    &learned->predicted_tokens, (double)t->cached_tokens * (double)prompt_tokens / t->prompt_tokens);
	count(&learned->actual_tokens, (double)cached_tokens);
	if (!set->index || !t->n_known || (t->may_overtake && n_cached < t->n_blocks))
		return;
	if (t->n_blocks)
		learn_trust(t, set, n_cached);
	learn_horizon(t, set, n_cached);
}

/*
 * Nobody said what the prompt was: by what it was taken for. What was believed to be cached nobody confirmed,
 * so it must not be most of it; without the index nothing is believed.
 */
static void learn_unsaid(const struct ticket *t) {
	if (t->is_looked_up && !t->is_no_text && t->cached_tokens <= t->prompt_tokens / 2)
		learn_rate(t, t->prompt_tokens - t->cached_tokens);
}

static void learn(const struct ticket *t, struct policy_set *set, const struct ticket_usage *usage) {
	uint64_t prompt = usage->prompt_tokens, cached = u64_min(usage->cached_tokens, prompt);

	learn_length(&set->lessons[t->label].output_tokens, usage->output_tokens);
	if (t->is_prefilled)
		return;
	if (!prompt)
		learn_unsaid(t);
	if (!prompt || (double)prompt > RATIO_MAX * t->prompt_bytes)
		return;
	learn_length(&set->lessons[t->label].prompt_tokens, prompt);
	learn_ratio(t, set, prompt);
	learn_rate(t, prompt - (usage->has_cached ? cached : u64_min(t->cached_tokens, prompt)));
	if (usage->has_cached)
		learn_cache(t, set, prompt, cached);
}

void ticket_close(struct ticket *t, struct policy_set *set, const struct ticket_usage *usage) {
	if (!ticket_is_open(t))
		return;
	uint16_t slot = t->instance->slot;

	if (t->phase == TICKET_PREFILL) {
		dequeue(t, set);
		load_release_prefill(set->load, set->worker, slot, t->charged_tokens);
	} else {
		load_release_decode(set->load, set->worker, slot, t->charged_tokens);
	}
	if (t->is_several)
		atomic_fetch_sub_explicit(&t->instance->learned.n_several, 1, memory_order_relaxed);
	if (usage)
		learn(t, set, usage);
	*t = (struct ticket){ .phase = TICKET_CLOSED };
}
