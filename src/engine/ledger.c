#include "engine/ledger.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define NS_PER_US 1000u
#define US_PER_MS 1000.0

struct row {
	uint64_t ticket;
	char id[LEDGER_ID_BYTES];
	const char *api, *model, *leg, *cause;
	uint32_t rank;
	uint64_t started_ns, first_token_ns, ended_ns; /* 0: not yet */
	uint32_t n_prompt_tokens, n_cached_tokens, n_emitted_tokens;
	enum ledger_state state;
	bool is_stream;
};

struct ledger {
	uint64_t began_ns;
	uint64_t first_ticket; /* since the last reset */
	uint64_t next_ticket;
	uint64_t counts[LEDGER_N_STATES];
	int fd; /* -1: begun generations are told nobody */
	size_t n_rows_max;
	struct row rows[];
};

static const char *const state_names[LEDGER_N_STATES] = {
	[LEDGER_RUNNING] = "running",
	[LEDGER_FINISHED] = "finished",
	[LEDGER_CANCELLED] = "cancelled",
	[LEDGER_FAILED] = "failed",
};

struct ledger *ledger_new(size_t n_rows_max, uint64_t now_ns) {
	assert(n_rows_max > 0 && now_ns > 0);
	struct ledger *l = calloc(1, sizeof(*l) + n_rows_max * sizeof(l->rows[0]));
	l->n_rows_max = n_rows_max;
	l->began_ns = now_ns;
	l->fd = -1;
	return l;
}

void ledger_free(struct ledger **ledger) {
	if (*ledger && (*ledger)->fd >= 0)
		close((*ledger)->fd);
	free(*ledger);
	*ledger = NULL;
}

/* NULL when the row was overwritten or belongs to the time before a reset. */
static struct row *row_of(struct ledger *l, uint64_t ticket) {
	assert(ticket < l->next_ticket);
	struct row *row = &l->rows[ticket % l->n_rows_max];
	return ticket >= l->first_ticket && row->ticket == ticket ? row : NULL;
}

uint64_t ledger_start(
    struct ledger *l, struct slice id, const char *api, const char *model, bool is_stream, uint64_t now_ns) {
	uint64_t ticket = l->next_ticket++;
	struct row *row = &l->rows[ticket % l->n_rows_max];

	*row = (struct row){
		.ticket = ticket,
		.api = api,
		.model = model,
		.is_stream = is_stream,
		.started_ns = now_ns,
	};
	snprintf(row->id, sizeof(row->id), "%.*s", (int)size_min(id.n, sizeof(row->id) - 1), id.p);
	l->counts[LEDGER_RUNNING]++;
	return ticket;
}

void ledger_place(struct ledger *l, uint64_t ticket, uint32_t rank, const char *leg) {
	struct row *row = row_of(l, ticket);
	if (row) {
		row->rank = rank;
		row->leg = leg;
	}
}

void ledger_keep(struct ledger *l, int fd) {
	assert(l->fd < 0 && fd >= 0);
	l->fd = fd;
}

void ledger_begin(struct ledger *l, uint64_t ticket) {
	const struct row *row = row_of(l, ticket);
	char line[LEDGER_ID_BYTES + 1];

	if (l->fd < 0 || !row)
		return;
	int n = snprintf(line, sizeof(line), "%s\n", row->id);
	if (write(l->fd, line, (size_t)n) != n) { /* who counts would count too few */
		fprintf(stderr, "headrace mock-engine: ledger: %s\n", strerror(errno));
		abort();
	}
}

void ledger_prompt(struct ledger *l, uint64_t ticket, uint32_t n_prompt_tokens, uint32_t n_cached_tokens) {
	struct row *row = row_of(l, ticket);
	if (row) {
		row->n_prompt_tokens = n_prompt_tokens;
		row->n_cached_tokens = n_cached_tokens;
	}
}

void ledger_first_token(struct ledger *l, uint64_t ticket, uint64_t now_ns) {
	struct row *row = row_of(l, ticket);
	if (row)
		row->first_token_ns = now_ns;
}

void ledger_end(struct ledger *l, uint64_t ticket, enum ledger_state state, const char *cause,
    uint32_t n_emitted_tokens, uint64_t now_ns) {
	assert(state == LEDGER_FINISHED || state == LEDGER_CANCELLED || state == LEDGER_FAILED);
	if (ticket < l->first_ticket)
		return;
	assert(l->counts[LEDGER_RUNNING] > 0);
	l->counts[LEDGER_RUNNING]--;
	l->counts[state]++;

	struct row *row = row_of(l, ticket);
	if (!row)
		return;
	assert(row->state == LEDGER_RUNNING);
	row->state = state;
	row->cause = cause;
	row->n_emitted_tokens = n_emitted_tokens;
	row->ended_ns = now_ns;
}

void ledger_reset(struct ledger *l) {
	l->first_ticket = l->next_ticket;
	memset(l->counts, 0, sizeof(l->counts));
}

uint64_t ledger_count(const struct ledger *l, enum ledger_state state) {
	assert(state < LEDGER_N_STATES);
	return l->counts[state];
}

/* Milliseconds with three places, null for what has not happened. */
static json_t *ms_json(const struct ledger *l, uint64_t at_ns) {
	uint64_t us = (at_ns - l->began_ns) / NS_PER_US;
	return at_ns ? json_real((double)us / US_PER_MS) : json_null();
}

static json_t *row_json(const struct ledger *l, const struct row *row) {
	return json_pack("{s:s, s:s, s:s?, s:I, s:s?, s:b, s:s, s:s?, s:o, s:o, s:o, s:I, s:I, s:I}", "id",
	    row->id, "api", row->api, "model", row->model, "rank", (json_int_t)row->rank, "leg", row->leg,
	    "stream", row->is_stream, "state", state_names[row->state], "cause", row->cause, "started_ms",
	    ms_json(l, row->started_ns), "first_token_ms", ms_json(l, row->first_token_ns), "ended_ms",
	    ms_json(l, row->ended_ns), "prompt_tokens", (json_int_t)row->n_prompt_tokens, "cached_tokens",
	    (json_int_t)row->n_cached_tokens, "emitted_tokens", (json_int_t)row->n_emitted_tokens);
}

json_t *ledger_json(const struct ledger *l) {
	json_t *counts = json_pack("{s:I}", "started", (json_int_t)(l->next_ticket - l->first_ticket));
	for (enum ledger_state s = 0; s < LEDGER_N_STATES; s++)
		json_object_set_new(counts, state_names[s], json_integer((json_int_t)l->counts[s]));

	json_t *rows = json_array();
	uint64_t n_kept = u64_min(l->next_ticket - l->first_ticket, l->n_rows_max);
	for (uint64_t ticket = l->next_ticket - n_kept; ticket < l->next_ticket; ticket++)
		json_array_append_new(rows, row_json(l, &l->rows[ticket % l->n_rows_max]));
	return json_pack("{s:o, s:o}", "counts", counts, "generations", rows);
}
