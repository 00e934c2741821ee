/*
 * size_class: long prompts go to instances of cache_type "static", others to those of "paged",
 * as InfiniLM-SVC's router has it; among those of the class another policy decides.
 *
 * The class of an instance is its label cache_type or, without one, that of the metadata in its
 * record. When nobody of the wanted class is eligible, all are: the class is a wish. [size_class]
 * threshold is in bytes of the prompt, [size_class] then is the other policy: cache_aware unless
 * said otherwise, so that conversations stay where their cache is.
 */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "policy/choice.h"

enum class { CLASS_NONE, CLASS_STATIC, CLASS_PAGED };

/* The cells of a model: first all those of the other policy, then room for the positions of one class. */
struct cell {
	char of_other[ROUND_ROBIN_CELL_BYTES];
	uint64_t room;
};

bool policy_can_follow(const struct policy *policy) {
	return policy != &size_class_policy && !policy->build &&
	    (policy->cell_bytes == 0 || policy->init == round_robin_init);
}

static const struct policy *then_of(const struct policy_options *options) {
	return options->size_class_then ? options->size_class_then : &cache_aware_policy;
}

/* --- who is of which class ------------------------------------------------------------------ */

static enum class class_of_word(struct slice word) {
	if (slice_is(word, SLICE("static"))) return CLASS_STATIC;
	return slice_is(word, SLICE("paged")) ? CLASS_PAGED : CLASS_NONE;
}

static enum class class_of_metadata(struct slice text) {
	json_t *object = text.n ? json_loadb(text.p, text.n, 0, NULL) : NULL;
	json_t *word = json_object_get(object, "cache_type");
	enum class class = json_is_string(word)
	    ? class_of_word((struct slice){ json_string_value(word), json_string_length(word) })
	    : CLASS_NONE;

	json_decref(object);
	return class;
}

static enum class class_of_row(const struct snapshot_row *row) {
	for (uint32_t i = 0; i < row->labels.n;
	     i++) if (slice_eq(row->labels.items[i].key,
			  SLICE("cache_type"))) return class_of_word(row->labels.items[i].value);
	return class_of_metadata(row->metadata);
}

/* A byte for each candidate. */
static void *size_class_build(
    const struct snapshot *snap, const struct model *model, const struct policy_options *options) {
	uint8_t *classes = malloc(model->n_candidates);

	for (uint32_t i = 0; i < model->n_candidates; i++)
		classes[i] = (uint8_t)class_of_row(&snap->rows[model->candidates[i].row]);
	return classes;
}

/* --- a pick --------------------------------------------------------------------------------- */

/* Those of the class go back to where they belong; nobody looked at the others. */
static void spread_scores(struct choice *choice, const struct choice *narrow) {
	uint32_t left = narrow->n;

	for (uint32_t i = choice->n; i-- > 0;) {
		if (left > 0 && narrow->eligible[left - 1] == choice->eligible[i])
			choice->scores[i] = narrow->scores[--left];
		else
			choice->scores[i] = (struct policy_score){ .total = NAN };
	}
}

static uint32_t place_of(const struct choice *choice, uint32_t position) {
	uint32_t i = 0;

	while (choice->eligible[i] != position)
		i++;
	return i;
}

/* What is left of the choice: those of the class, or everybody. */
static struct choice narrow_to(const struct choice *choice, enum class class) {
	uint32_t *room = (uint32_t *)((char *)choice->cells + choice->n_candidates * ROUND_ROBIN_CELL_BYTES);
	const uint8_t *classes = choice->table;
	struct choice narrow = *choice;

	narrow.n = 0;
	narrow.weight = 0;
	narrow.eligible = room;
	for (uint32_t i = 0; i < choice->n; i++) {
		uint32_t position = choice->eligible[i];

		if (classes[position] != class)
			continue;
		room[narrow.n++] = position;
		narrow.weight += choice->candidates[position].weight;
	}
	return narrow.n ? narrow : *choice;
}

static uint32_t size_class_pick(struct choice *choice) {
	const struct policy *then = then_of(choice->options);
	bool is_long = choice->demand->prompt_bytes > choice->options->size_class_bytes;
	struct choice narrow = narrow_to(choice, is_long ? CLASS_STATIC : CLASS_PAGED);
	uint32_t i = 0;

	narrow.reason = then->reason;
	if (narrow.n > 1)
		i = then->pick(&narrow);
	choice->reason = narrow.n > 1 ? narrow.reason : PICK_SIZE_CLASS;
	i = place_of(choice, narrow.eligible[i]);
	if (narrow.n < choice->n)
		spread_scores(choice, &narrow);
	return i;
}

static void size_class_bind(
    struct policy_set *set, const struct pick_input *input, const struct pick_result *pick) {
	if (then_of(set->options)->bind)
		then_of(set->options)->bind(set, input, pick);
}

const struct policy size_class_policy = {
	.name = "size_class",
	.reason = PICK_SIZE_CLASS,
	.wants_session = true,
	.wants_prompt = true,
	.wants_index = true,
	.cell_bytes = sizeof(struct cell),
	.init = round_robin_init,
	.carry = round_robin_carry,
	.build = size_class_build,
	.builds_always = true,
	.scorer = then_of,
	.pick = size_class_pick,
	.bind = size_class_bind,
};
