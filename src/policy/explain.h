/*
 * explain: what a pick would do, and why, without doing it.
 *
 * policy_explain() makes the pick that policy_pick() would make now and puts everything
 * back that a pick moves: the policy's counters and the random numbers are afterwards what
 * they were, byte for byte. Load, prefix index and learned figures are only read. The
 * scratch of the set (the scan, the eligible, the scores) is overwritten, so that it must
 * not be called between a pick and the opening of its ticket.
 *
 * On the thread of the set. Allocates: it is for people's questions, not for requests.
 */
#pragma once

#include "policy/filter.h"

/* An instance as a pick sees it. */
struct explain_row {
	uint32_t row; /* in set->snapshot; a primary one */
	const struct instance *instance;
	uint32_t
	    codes; /* of one that is not eligible: filter_codes(), or its score; 0: others come before it */
	struct filter_detail details[FILTER_CODES]; /* of these codes */
	struct policy_score score;                  /* its total is NAN when the pick did not look at it */
	double probability; /* that it is picked, where that is left to chance; else negative */
	uint32_t weight;    /* in thousandths, of the snapshot's row */
	struct load_sum load;
	uint32_t cached_tokens; /* of this prompt, predicted */
};

struct explanation {
	int outcome; /* 0, or the enum pick_outcome of a pick that finds nobody */
	enum pick_reason reason;
	enum pick_ring ring;
	bool is_panic;                         /* the unhealthy are among those to choose from */
	const struct policy *policy, *scorer;  /* who picks, and whose scores there are */
	bool has_scores;                       /* the one that is picked was compared with others */
	uint32_t n_eligible, n_scored, n_rows; /* scored: those that composite left out, too */
	struct explain_row *rows;              /* the caller's: policy_explanation_free() */
};

/*
 * A row for each instance of the snapshot: first the one that is picked, then the other eligible ones,
 * best first, then all others. Whom the pick did not look at comes behind whom it compared. Where a policy
 * has no scores the order is that of picks each of which leaves out those before it; after EXPLAIN_RANKED_MAX
 * of them, and where such picks would go elsewhere, it is that of the snapshot.
 */
#define EXPLAIN_RANKED_MAX 16
void policy_explain(struct policy_set *set, const struct pick_input *input, struct explanation *out);
void policy_explanation_free(struct explanation *e);

/* Does the score say more for its instance than the other? One that was not looked at never does. */
bool explain_is_better(
    const struct policy *scorer, const struct policy_score *score, const struct policy_score *than);

/* Whether the pick made last took the one that it took by comparing scores. */
bool explain_has_scores(const struct policy_set *set, const struct pick_result *pick);

/*
 * Of those that the filters left composite counts as candidates only the so many best, and none below
 * its least score when the one that is picked reaches that. Is this score of the pick made last too low?
 */
bool explain_is_below(const struct policy_set *set, const struct model *model,
    const struct policy_score *picked, const struct policy_score *score);

/* What FILTER_BELOW_MIN_SCORE goes by for one with this score. */
struct filter_detail explain_below(const struct policy_set *set, const struct policy_score *score);

/* So many may count as candidates. */
uint32_t explain_candidates_max(const struct policy_set *set, const struct model *model);

/* The code that a pick would have stopped at; FILTER_NONE of 0. */
enum filter_code explain_first(uint32_t codes);
