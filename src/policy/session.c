/*
 * session: requests of one session stay with one instance; new sessions go to the instance
 * with the fewest of them.
 *
 * Where a session lives is in a table that all threads share (policy/session_table.h), bound when a
 * request goes there. Counts are per weight, by the operator's will: how an instance is now says nothing of
 * the time that a session lasts. Then the least load decides, then rendezvous hashing.
 * It is soft: a home that has more than [session] overload times what the others have in flight
 * (and more than a few) is left for the least loaded, and the session lives there from then on. So
 * it does when its home is not eligible. Requests without a session go to the least loaded.
 */
#include "base/mix.h"
#include "policy/choice.h"
#include "policy/session_table.h"

enum part { PART_WORK, PART_WEIGHT, PART_SESSIONS };

static uint64_t seconds(uint64_t ns) {
	return ns / 1000000000u;
}

/* Where the home is among the eligible; UINT32_MAX: it is not. */
static uint32_t find_home(const struct choice *choice, struct session_home home) {
	for (uint32_t i = 0; i < choice->n; i++)
		if (session_home_is(home, choice_candidate(choice, i)->instance))
			return i;
	return UINT32_MAX;
}

struct vacancy {
	uint64_t n_sessions; /* with this one */
	uint64_t weight;     /* its own */
	struct choice_measure measure;
	double hash;
};

/* Is `a` the better one for a new session? Negative: it is. */
static int compare(const struct vacancy *a, const struct vacancy *b) {
	uint64_t x = a->n_sessions * b->weight, y = b->n_sessions * a->weight;
	int cmp = (x > y) - (x < y);

	if (!cmp)
		cmp = choice_measure_cmp(a->measure, b->measure);
	return cmp ? cmp : (a->hash < b->hash) - (a->hash > b->hash);
}

static struct vacancy look(struct choice *choice, uint32_t i) {
	const struct candidate *c = choice_candidate(choice, i);
	struct policy_score *score = &choice->scores[i];
	uint32_t n = session_table_count(choice->sessions, session_home_of(c->instance));
	struct vacancy v = { (uint64_t)n + 1, choice_own_weight(choice, i), choice_show(choice, i),
		choice_hash(choice, i, choice->demand->session) };

	score->parts[PART_SESSIONS] = (float)n;
	score->total = (float)v.n_sessions * INSTANCE_WEIGHT_ONE / (float)v.weight;
	return v;
}

static uint32_t find_vacancy(struct choice *choice) {
	struct vacancy best_one = look(choice, 0);
	uint32_t best = 0;

	for (uint32_t i = 1; i < choice->n; i++) {
		struct vacancy v = look(choice, i);

		if (compare(&v, &best_one) < 0) {
			best_one = v;
			best = i;
		}
	}
	return best;
}

/* Who computes the session's prompts has another home than who decodes them. */
static uint64_t key_of(const struct model *model, const struct demand *demand) {
	return model->pool == POOL_ALONE || !demand->session ? demand->session
							     : mix64(demand->session + model->pool);
}

static uint32_t session_pick(struct choice *choice) {
	uint64_t key = key_of(choice->model, choice->demand);
	struct session_home home;
	uint32_t own, other;

	if (!key || !choice->sessions) {
		choice->reason = PICK_LEAST_LOAD;
		return choice_least_loaded(choice);
	}
	if (!session_table_find(choice->sessions, key, seconds(choice->now_ns), &home))
		return find_vacancy(choice);
	own = find_home(choice, home);
	choice->reason = PICK_STICKY_SPILL;
	if (own == UINT32_MAX)
		return find_vacancy(choice);
	other = own;
	if (choice_is_overloaded(choice, own, choice->options->session_overload))
		other = choice_least_loaded(choice);
	if (other == own)
		choice->reason = PICK_STICKY_HIT;
	return other;
}

static void session_bind(
    struct policy_set *set, const struct pick_input *input, const struct pick_result *pick) {
	uint64_t key = key_of(input->model, input->demand);

	if (set->sessions && key)
		session_table_bind(
		    set->sessions, key, session_home_of(pick->instance), seconds(input->now_ns));
}

const struct policy session_policy = {
	.name = "session",
	.reason = PICK_STICKY_NEW,
	.wants_session = true,
	.is_cost = true,
	.parts = { "work_tokens", "weight", "sessions" },
	.pick = session_pick,
	.bind = session_bind,
};
