/*
 * generator: traces made up from a seed.
 *
 * Conversations begin at random (a Poisson process) and have `turns` requests each. The
 * prompt of a turn is all that was said before, and then `input` tokens more: first the
 * group's own prefix (a system prompt, the tools of an agent), then the conversation's.
 * Between two turns is the time that the answer takes and that somebody thinks. Lengths
 * and thinking vary around what is given: lengths by half at most, thinking exponentially.
 *
 *     gen:shared_prefix   one turn each: documents or instructions that many ask about
 *     gen:multi_turn      chats: little in common but the system prompt, which grow slowly
 *     gen:agents          few kinds with a long common prefix, many steps in quick succession
 *
 * What stands behind the name as ",key=value" replaces that kind's default. The
 * same text, seed and block size make the same trace.
 */
#pragma once

#include "base/slice.h"
#include "sim/trace.h"

#define GENERATOR_MESSAGE_BYTES 256

struct generator {
	const char *name;
	uint64_t n;                           /* requests */
	double rate;                          /* requests a second, all conversations together */
	uint64_t groups;                      /* of conversations with a common prefix */
	uint64_t prefix_tokens;               /* of it */
	uint64_t turns;                       /* requests of a conversation */
	uint64_t input_tokens, output_tokens; /* of a turn */
	uint64_t think_ms;                    /* between two turns */
};

/* Is it a generator's text, "gen:...", good or not? */
bool generator_is_named(struct slice text);

/* On a mistake returns false and says in `message` what it is. */
must_use bool generator_parse(
    struct generator *generator, struct slice text, char message[static GENERATOR_MESSAGE_BYTES]);

/* Puts generator->n requests into an empty trace; a block is n_block_tokens long. */
void generator_run(
    const struct generator *generator, uint64_t seed, uint32_t n_block_tokens, struct trace *trace);
