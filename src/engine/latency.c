#include "engine/latency.h"

#define NS_PER_S 1000000000ull

static struct latency_sequence *first_of(const struct list *head) {
	struct list *link = list_first(head);
	return link ? container_of(link, struct latency_sequence, link) : NULL;
}

void latency_init(struct latency *l, const struct latency_options *options) {
	assert(options->n_running_max > 0);
	*l = (struct latency){ .options = *options };
	list_init(&l->waiting);
	list_init(&l->prefill);
	list_init(&l->decode);
	list_init(&l->held);
}

static bool is_running(const struct latency_sequence *s) {
	return s->state == LATENCY_PREFILL || s->state == LATENCY_DECODE || s->state == LATENCY_HELD;
}

/* The one place where a sequence changes lists, and with them the counts. */
static void set_state(struct latency *l, struct latency_sequence *s, enum latency_state state) {
	struct list *lists[] = { NULL, &l->waiting, &l->prefill, &l->decode, &l->held };
	bool was_running = is_running(s);

	assert(state != LATENCY_WAITING || s->state == LATENCY_DONE);
	assert(state != LATENCY_DECODE || s->state == LATENCY_PREFILL);
	if (s->state == LATENCY_WAITING)
		l->n_waiting--;
	if (s->state != LATENCY_DONE)
		list_remove(&s->link);
	s->state = state;
	if (state == LATENCY_WAITING)
		l->n_waiting++;
	if (state != LATENCY_DONE)
		list_push(lists[state], &s->link);

	uint64_t n_tokens = (uint64_t)s->n_prompt_tokens + s->n_made_tokens;
	if (!was_running && is_running(s)) {
		l->n_running++;
		l->n_context_tokens += n_tokens;
	} else if (was_running && !is_running(s)) {
		assert(l->n_running > 0 && l->n_context_tokens >= n_tokens);
		l->n_running--;
		l->n_context_tokens -= n_tokens;
	}
}

struct latency_sequence *latency_starting(const struct latency *l) {
	struct latency_sequence *s = first_of(&l->prefill);
	return s && s->due_ns == LATENCY_NEVER ? s : NULL;
}

/* Whoever comes to the head of the prefill queue is served from `at_ns` on. */
static void offer_prefill(struct latency *l, uint64_t at_ns) {
	const struct latency_sequence *s = latency_starting(l);
	if (s)
		l->prefill_from_ns = u64_max(at_ns, s->admitted_ns);
}

void latency_begin(struct latency *l, struct latency_sequence *s, uint32_t n_cached_tokens) {
	assert(s == latency_starting(l));
	assert(n_cached_tokens <= s->n_prompt_tokens);
	uint64_t n_tokens = s->n_prompt_tokens - n_cached_tokens, rate = l->options.prefill_tokens_per_s;
	s->due_ns = l->prefill_from_ns + (rate ? n_tokens * NS_PER_S / rate : 0);
}

static void admit_waiting(struct latency *l, uint64_t at_ns) {
	while (l->n_running < l->options.n_running_max && l->n_waiting > 0) {
		struct latency_sequence *s = first_of(&l->waiting);
		s->due_ns = LATENCY_NEVER;
		/* For a late caller the place was free before somebody came for it. */
		s->admitted_ns = u64_max(at_ns, s->submitted_ns);
		set_state(l, s, LATENCY_PREFILL);
	}
	offer_prefill(l, at_ns);
}

static void set_now(struct latency *l, uint64_t now_ns) {
	assert(now_ns >= l->now_ns);
	assert(!latency_starting(l));
	l->now_ns = now_ns;
}

void latency_submit(struct latency *l, struct latency_sequence *s, uint32_t n_prompt_tokens,
    uint32_t n_output_tokens, uint64_t now_ns) {
	assert(s->state == LATENCY_DONE);
	set_now(l, now_ns);
	*s = (struct latency_sequence){
		.submitted_ns = now_ns,
		.n_prompt_tokens = n_prompt_tokens,
		.n_output_tokens = n_output_tokens,
	};
	list_init(&s->link);
	set_state(l, s, LATENCY_WAITING);
	admit_waiting(l, now_ns);
}

static struct latency_sequence *next_due(const struct latency *l) {
	struct latency_sequence *prefill = first_of(&l->prefill), *decode = first_of(&l->decode);
	if (!prefill || !decode)
		return prefill ? prefill : decode;
	return decode->due_ns <= prefill->due_ns ? decode : prefill;
}

static void make_token(struct latency *l, struct latency_sequence *s, uint64_t at_ns) {
	s->n_made_tokens++;
	l->n_context_tokens++;
	if (s->n_made_tokens == s->n_output_tokens) {
		set_state(l, s, LATENCY_DONE);
		return;
	}
	s->due_ns = at_ns + l->options.inter_token_ns;
	if (s->state == LATENCY_PREFILL) {
		set_state(l, s, LATENCY_DECODE);
	} else {
		list_remove(&s->link);
		list_push(&l->decode, &s->link);
	}
}

struct latency_sequence *latency_pop(struct latency *l, uint64_t now_ns, uint64_t *at_ns_out) {
	struct latency_sequence *s = next_due(l);
	assert(!latency_starting(l));
	if (!s || s->due_ns > now_ns)
		return NULL;
	uint64_t at_ns = s->due_ns;
	assert(s->n_made_tokens < s->n_output_tokens || s->state == LATENCY_PREFILL);
	if (s->n_output_tokens == 0)
		set_state(l, s, LATENCY_DONE);
	else
		make_token(l, s, at_ns);
	admit_waiting(l, at_ns);
	*at_ns_out = at_ns;
	return s;
}

uint64_t latency_due_ns(const struct latency *l) {
	struct latency_sequence *s = next_due(l);
	return s ? s->due_ns : LATENCY_NEVER;
}

void latency_hold(struct latency *l, struct latency_sequence *s, uint64_t now_ns) {
	assert(s->state != LATENCY_DONE);
	set_now(l, now_ns);
	set_state(l, s, LATENCY_HELD);
	offer_prefill(l, now_ns);
}

void latency_abort(struct latency *l, struct latency_sequence *s, uint64_t now_ns) {
	if (s->state == LATENCY_DONE)
		return;
	set_now(l, now_ns);
	set_state(l, s, LATENCY_DONE);
	admit_waiting(l, now_ns);
}
