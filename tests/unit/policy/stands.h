/*
 * stands: picks among instances of which something is said.
 *
 * A stand is a row: its labels as text, "zone=z1 capacity=2", and what else is special of it.
 */
#pragma once

#include "policy/filter.h"
#include "unit/policy/picks.h"

#define STANDS_LABELS_MAX 8

struct stand {
	const char *labels; /* NULL: none */
	enum instance_state state;
	bool is_foreign; /* of a registry */
	bool is_idle;    /* weight 0 */
	bool is_loading;
	const char *model; /* NULL: "m" */
};

static inline struct pairs stand_labels(const char *text, struct pair *room) {
	struct pairs labels = { room, 0 };

	while (text && *text) {
		size_t n = strcspn(text, " "), key = strcspn(text, "=");

		assert_true(labels.n < STANDS_LABELS_MAX && key < n);
		room[labels.n++] = (struct pair){ { text, key }, { text + key + 1, n - key - 1 } };
		text += n + (text[n] == ' ');
	}
	return labels;
}

/* From now on the picks are made among these; the instances are those of picks_open(), by row. */
static inline void stands_adopt(struct picks *p, const struct stand *stands, uint32_t n) {
	struct pair labels[PICKS_ROWS_MAX][STANDS_LABELS_MAX], models[PICKS_ROWS_MAX];
	struct snapshot_row rows[PICKS_ROWS_MAX];

	assert_true(n <= p->snap->n_rows);
	for (uint32_t r = 0; r < n; r++) {
		const struct stand *stand = &stands[r];

		models[r] = (struct pair){ slice_of(stand->model ? stand->model : "m"), { NULL, 0 } };
		rows[r] = p->snap->rows[r];
		rows[r].source = stand->is_foreign ? SOURCE_REGISTRY : SOURCE_STATIC;
		rows[r].state = stand->state ? stand->state : INSTANCE_READY;
		rows[r].weight = stand->is_idle ? 0 : INSTANCE_WEIGHT_ONE;
		rows[r].are_models_known = !stand->is_loading;
		rows[r].labels = stand_labels(stand->labels, labels[r]);
		rows[r].models = (struct pairs){ &models[r], 1 };
	}
	struct snapshot *next =
	    snapshot_new(p->set.snapshot->version + 1, rows, n, (struct pairs){ NULL, 0 });
	policy_set_adopt(&p->set, next);
	snapshot_unref(&next);
}

static inline void stands_open(struct picks *p, const char *policy, const struct stand *stands, uint32_t n) {
	static const uint16_t equal[PICKS_ROWS_MAX] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };

	picks_open(p, policy, equal, n, 1);
	stands_adopt(p, stands, n);
}

/* Of a request for "m" by p->demand; `tried` has the letters of rows. */
static inline struct pick_input stands_input(struct picks *p, const char *tried, uint16_t *slots) {
	struct pick_input input = {
		.model = snapshot_model(p->set.snapshot, SLICE("m")), .demand = &p->demand, .tried = slots
	};

	for (; *tried; tried++)
		slots[input.n_tried++] = picks_instance(p, (uint32_t)(*tried - 'a'))->slot;
	return input;
}

/* Whom 64 picks go to, as letters, or the outcome of the first as a digit. */
static inline const char *stands_picked(struct picks *p, const char *tried) {
	static char letters[PICKS_ROWS_MAX + 1];
	bool is_picked[PICKS_ROWS_MAX] = { false };
	uint16_t slots[PICKS_ROWS_MAX];
	size_t n = 0;

	for (unsigned i = 0; i < 64; i++) {
		struct pick_input input = stands_input(p, tried, slots);
		struct pick_result result;
		int r = policy_pick(&p->set, &input, &result);

		if (r) {
			letters[0] = (char)('0' + r);
			letters[1] = '\0';
			return letters;
		}
		is_picked[result.row] = true;
	}
	for (uint32_t r = 0; r < PICKS_ROWS_MAX; r++)
		if (is_picked[r])
			letters[n++] = (char)('a' + r);
	letters[n] = '\0';
	return letters;
}

/* The outcome of a pick as stands_picked() has it. */
#define OUTCOME(outcome) ((char[]){ (char)('0' + (outcome)), '\0' })
