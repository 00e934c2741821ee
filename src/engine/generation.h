/*
 * generation: one request for text, from its body to the last byte of its answer.
 *
 * generation_parse() reads the body by the rules of an API (api.h), counts and hashes
 * the prompt and fixes what the answer will be: the text is a function of model,
 * prompt, seed and index of the choice. The scheduler says when a token is made; it
 * is rendered into server-sent events by generation_step() as soon as the client has
 * room for it, or a plain answer at the end by generation_whole(). What all events of
 * a choice share is rendered once.
 *
 * Pure: no socket, no clock. Owns all it points to but `api` and `model`. One thread.
 */
#pragma once

#include "engine/bytes.h"
#include "engine/kv_leg.h"
#include "engine/latency.h"
#include "engine/prompt.h"
#include "engine/speech.h"

#define GENERATION_CHOICES_MAX 128u
#define GENERATION_STOPS_MAX   64u
#define GENERATION_TOKENS_MAX  (1u << 23) /* of all choices */

struct api;

/* What the engine is, for all generations alike. */
struct generation_rules {
	const char *const *models; /* the first is what a request without a model gets */
	size_t n_models;
	uint32_t n_model_tokens;   /* prompt and output together, at most */
	uint32_t n_tokens_default; /* output of a request that does not say how much */
	uint32_t n_block_tokens;
	uint64_t seed;
	bool echoes; /* repeat the last user message */
	struct kv_rules kv;
};

/* Why a request is not served. The API renders it: api_error(). */
struct refusal {
	uint32_t status;
	bool is_invalid;   /* it did not even pass vLLM's validation */
	const char *param; /* static, or NULL */
	const char *type;  /* likewise; NULL: that of the status */
	char message[256]; /* valid UTF-8 */
};

enum finish { FINISH_STOP, FINISH_LENGTH };

struct generation_choice {
	struct speech speech;
	struct speech_cursor begin, cursor; /* it begins behind what was said before */
	uint32_t n_tokens, n_made;
	size_t n_text_bytes; /* the text ends here, SIZE_MAX: with the tokens */
	size_t n_sent_bytes;
	int stop; /* index of the stop string that ends it, or -1 */
	enum finish finish;
	bool has_prompt;           /* its prompt was echoed */
	struct speech_cursor told; /* so far their probabilities are told */
	size_t n_told_characters;
	struct bytes frame; /* one event, with the text at frame_hole left out */
	size_t frame_hole;
};

struct generation {
	struct latency_sequence sequence;   /* the scheduler's */
	uint64_t ticket;                    /* the ledger's */
	uint64_t started_ns, last_token_ns; /* the scheduler's */
	const struct api *api;
	const char *model;
	char *id;
	int64_t created_s;
	uint32_t rank;

	/* asked for */
	bool is_stream, with_usage, with_usage_always, with_stop;
	bool is_base64;          /* embeddings */
	uint32_t n_dimensions;   /* embeddings */
	uint32_t n_per_prompt;   /* choices */
	uint32_t n_tokens_asked; /* 0: left to us */
	bool is_stored;          /* responses: it can be asked for later */
	char *previous_id;       /* responses: which it goes on from, or NULL */
	uint64_t seed;
	struct kv_leg leg;
	bool is_fetched;      /* its prompt was computed by another engine */
	json_t *stops;        /* array of strings, or NULL */
	json_t *prompt_texts; /* likewise: the prompts, to be echoed before their answers */
	bool prompts_only;    /* one token is made and not shown */
	bool with_logprobs;
	uint32_t n_top_logprobs;
	bool with_prompt_logprobs;
	uint32_t n_top_prompt_logprobs;
	json_t *prompt_logprobs; /* what is told of each prompt, or NULL */
	uint32_t n_ranked_max;   /* rerank: results; 0: all */

	struct prompt *prompts;
	size_t n_prompts;
	uint32_t n_prompt_tokens, n_cached_tokens;

	char *echo;
	size_t n_echo_bytes;
	char *said; /* of the answer, which goes on from there; NULL: it begins */
	size_t n_said_bytes;
	struct generation_choice *choices;
	uint32_t n_choices;
	uint32_t n_steps;      /* rendered so far; the sequence says how many could be */
	uint32_t n_events;     /* with content, rendered so far */
	uint32_t n_events_max; /* never more than these; the parser sets no limit, UINT32_MAX */
	uint32_t n_steps_max;  /* the scheduler makes no more, and holds it; likewise */
	uint32_t n_rendered;   /* of any kind, where an API numbers them */
};

/* Who it is. The request id becomes the id of the answer, behind the API's prefix, and stands in the ledger.
 */
struct generation_name {
	struct slice id; /* anything; bytes that are not printable ASCII become '?' */
	int64_t created_s;
	uint64_t nonce; /* no other request has it */
	uint32_t rank;  /* that is to serve it */
};

/* False with a refusal; `g` is to be deinitialised either way. */
must_use bool generation_parse(struct generation *g, const struct api *api,
    const struct generation_rules *rules, const struct generation_name *name, struct slice body,
    struct refusal *refusal);
void generation_deinit(struct generation *g);

/* What the nth choice for a prompt with this hash is made of. */
struct speech generation_speech(
    const struct generation *g, const struct generation_rules *rules, uint64_t hash, uint32_t nth);

/* Prompts are of no more use once they are in the scheduler's cache. */
void generation_drop_prompts(struct generation *g);

/* The most tokens that any choice will have; 0 for embeddings. */
uint32_t generation_output_tokens(const struct generation *g);

/* How many choices make a token in that step, from 0. */
uint32_t generation_tokens_in_step(const struct generation *g, uint32_t step);

/* What is to be echoed before the choice, or NULL. */
const json_t *generation_prompt_text(const struct generation *g, const struct generation_choice *c);

/* Rendered so far, of all choices. */
uint32_t generation_made_tokens(const struct generation *g);

/* What comes before the first token of a stream. */
void generation_open(struct generation *g, struct bytes *out);

/* The scheduler has made tokens that are not rendered yet. */
static inline bool generation_is_behind(const struct generation *g) {
	return g->n_steps < g->sequence.n_made_tokens && g->n_events < g->n_events_max;
}

/*
 * Every choice that is not finished says its next token. For a stream its events are added
 * to `out` (otherwise it may be NULL), up to the one that makes n_events reach n_events_max.
 */
void generation_step(struct generation *g, struct bytes *out);

/* What follows the last token of a stream. */
void generation_close(struct generation *g, struct bytes *out);

/* The answer in one piece; false when it is more than `out` may hold. */
must_use bool generation_whole(const struct generation *g, struct bytes *out);
