/*
 * ledger: what became of every generation, for tests that count on it.
 *
 * A generation is started once and ends once: finished, cancelled (its client left),
 * or failed (by a fault). The counts cover all since the last reset, the rows the
 * newest n_rows_max of them. A ticket names one generation; it stays valid after its
 * row was overwritten, when only the counts move, and after a reset, when nothing does.
 * Times are milliseconds since the ledger was made. Owns its memory. One thread.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

#define LEDGER_ID_BYTES 128

enum ledger_state {
	LEDGER_RUNNING,
	LEDGER_FINISHED,
	LEDGER_CANCELLED,
	LEDGER_FAILED,
	LEDGER_N_STATES,
};

struct ledger;

struct ledger *ledger_new(size_t n_rows_max, uint64_t now_ns);
void ledger_free(struct ledger **ledger);

/*
 * From now on every generation that has begun is a line of `fd`, its id, in one write each: opened with
 * O_APPEND it tells of them whatever becomes of the process. The ledger closes it.
 */
void ledger_keep(struct ledger *l, int fd);

/* `api` and `model` must outlive the ledger; an `id` is cut to LEDGER_ID_BYTES - 1. */
uint64_t ledger_start(
    struct ledger *l, struct slice id, const char *api, const char *model, bool is_stream, uint64_t now_ns);

/* Which rank serves it, and as which leg of a pair; `leg` is static, or NULL: it is none. */
void ledger_place(struct ledger *l, uint64_t ticket, uint32_t rank, const char *leg);

/* It is at work, and was not refused: from here on another one for the same request is one too many. */
void ledger_begin(struct ledger *l, uint64_t ticket);

void ledger_prompt(struct ledger *l, uint64_t ticket, uint32_t n_prompt_tokens, uint32_t n_cached_tokens);

/* The first token is out. */
void ledger_first_token(struct ledger *l, uint64_t ticket, uint64_t now_ns);

/* `state` is one of the three ends; `cause` (static, may be NULL) names the fault. Once a ticket. */
void ledger_end(struct ledger *l, uint64_t ticket, enum ledger_state state, const char *cause,
    uint32_t n_emitted_tokens, uint64_t now_ns);

void ledger_reset(struct ledger *l);

/* {"counts":{"started":n,...},"generations":[{...},...]}, oldest first. The caller owns it. */
json_t *ledger_json(const struct ledger *l);

uint64_t ledger_count(const struct ledger *l, enum ledger_state state);
