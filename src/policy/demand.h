/*
 * demand: what one request asks of the instance that will answer it, as far as filters
 * and policies read it.
 *
 * Made by whoever has the request (the exchange, the simulator, an explanation) and only
 * read here. Zero is a good demand: nothing known, nothing asked for. Everything it points
 * to lives until the pick, and the opening of its ticket, are over.
 */
#pragma once

#include "fleet/traits.h"

/*
 * The prompt as chained hashes of its blocks, of PROMPT_BLOCK_BYTES raw bytes each: an equal
 * key means an equal block and equal ones before it. Salted: keys of different models, tenants
 * or spaces never meet.
 */
#define PROMPT_BLOCK_BYTES 2048u
#define PROMPT_BLOCKS_MAX  2048u

/* The data-parallel rank that a request must go to, where there are ranks. */
struct rank_wish {
	uint16_t rank;
	bool is_given;
};

struct demand {
	enum capability capability;
	uint32_t features;      /* bits of enum feature */
	uint32_t prompt_tokens; /* estimated from bytes unless given; 0: not known */
	uint32_t text_tokens;   /* of them, what is here and sure to be text: it has no fewer */
	uint32_t output_tokens; /* expected; 0: not known */
	uint32_t output_max;    /* asked for; 0: no limit was named */
	uint64_t prompt_bytes;  /* of the prompt-bearing values */
	bool is_counted;        /* token ids were given: what its bytes are worth is no measure of others */
	bool is_batch;          /* several prompts: their sum needs no common context */
	bool is_indivisible;    /* no connector knows it: any engine but those that prefill may have it */
	bool is_prefilled;      /* another instance has computed the prompt: here it is only fetched */
	bool is_prompt_open;  /* the rest of it is on its way: its size is a guess, where its length was told
				 rather too high */
	const uint64_t *keys; /* of the leading blocks */
	uint32_t n_keys;      /* at most PROMPT_BLOCKS_MAX */
	uint64_t
	    whole; /* likewise of all of a prompt that has no full block; 0: it has, or is not all here */
	uint64_t session;  /* a hash of what requests that belong together have in common; 0: nothing known */
	uint64_t response; /* likewise of the id of a stored response that it goes on from or is about */
	enum privacy privacy;   /* at least */
	struct slice residency; /* tags that an instance must have, separated by commas; empty: none */
	uint64_t origin_zone;   /* traits_word() of where it comes from; 0: where the router is */
	uint64_t accelerator;   /* traits_word() of what it must run on; 0: anything */
	struct rank_wish rank;
	uint32_t priority_min; /* of its instance, where any has one (TRAIT_PRIORITY) */
	double cost_max;       /* likewise (TRAIT_COST), if: */
	bool has_cost_max;
	uint8_t cost_tolerance; /* 0 cheapest to 100 fastest */
	bool has_cost_tolerance;
	uint32_t deadline_ms; /* for its first token; 0: none */
	uint64_t seed;        /* for ties; of the request's id, so that a replay is exact */
};

/* Tokens that the answer is likely to have at the most. */
static inline uint32_t demand_expected_output(const struct demand *demand) {
	uint32_t n = demand->output_tokens;

	return demand->output_max && (n == 0 || n > demand->output_max) ? demand->output_max : n;
}

/* It costs an engine more than an answer from memory: calls about a stored response by its path do not, and
 * to cancel one makes room. */
static inline bool demand_is_work(const struct demand *demand) {
	return !demand->response || demand->capability != CAPABILITY_OTHER;
}
