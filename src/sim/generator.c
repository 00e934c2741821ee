#include "sim/generator.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/decimal.h"
#include "base/rng.h"
#include "base/text.h"

#define MARK         SLICE("gen:")
#define NS_PER_S     1e9
#define NS_PER_MS    1000000u
#define REQUESTS_MAX 1000000u
#define LENGTH_MAX   1000000u
#define RATE_MAX     1e6
#define THINK_MS_MAX 86400000u
#define ANSWER_NS    20000000u /* a token of an answer, before somebody thinks about it */

static const struct generator kinds[] = {
	{ "shared_prefix", .n = 1000, .rate = 4, .groups = 16, .prefix_tokens = 4096, .turns = 1,
	    .input_tokens = 512, .output_tokens = 128, .think_ms = 0 },
	{ "multi_turn", .n = 1000, .rate = 4, .groups = 1, .prefix_tokens = 1024, .turns = 8,
	    .input_tokens = 512, .output_tokens = 256, .think_ms = 20000 },
	{ "agents", .n = 1000, .rate = 4, .groups = 4, .prefix_tokens = 8192, .turns = 16,
	    .input_tokens = 1024, .output_tokens = 96, .think_ms = 1000 },
};

/* ---- the text ---- */

struct key {
	const char *name;
	size_t offset;
	uint64_t min, max;
};

static const struct key keys[] = {
	{ "n", offsetof(struct generator, n), 1, REQUESTS_MAX },
	{ "groups", offsetof(struct generator, groups), 1, REQUESTS_MAX },
	{ "prefix_tokens", offsetof(struct generator, prefix_tokens), 0, LENGTH_MAX },
	{ "turns", offsetof(struct generator, turns), 1, 1000 },
	{ "input_tokens", offsetof(struct generator, input_tokens), 1, LENGTH_MAX },
	{ "output_tokens", offsetof(struct generator, output_tokens), 1, LENGTH_MAX },
};

bool generator_is_named(struct slice text) {
	return slice_has_prefix(text, MARK);
}

static bool set_uint(struct generator *g, const struct key *key, struct slice value, char *message) {
	uint64_t *member = (uint64_t *)((char *)g + key->offset), n;

	if (!text_uint(value, key->max, &n) || n < key->min) {
		snprintf(message, GENERATOR_MESSAGE_BYTES, "%s: expected a number from %llu to %llu",
		    key->name, (unsigned long long)key->min, (unsigned long long)key->max);
		return false;
	}
	*member = n;
	return true;
}

static bool set_rate(struct generator *g, struct slice value, char *message) {
	double rate;

	if (!decimal_parse(value, RATE_MAX, &rate) || rate < 1e-3) {
		snprintf(
		    message, GENERATOR_MESSAGE_BYTES, "rate: expected requests per second, 0.001 to 1000000");
		return false;
	}
	g->rate = rate;
	return true;
}

static bool set_think(struct generator *g, struct slice value, char *message) {
	uint64_t ms;

	if (!text_duration_ms(value, &ms) || ms > THINK_MS_MAX) {
		snprintf(message, GENERATOR_MESSAGE_BYTES, "think: expected a time such as 20s, at most 24h");
		return false;
	}
	g->think_ms = ms;
	return true;
}

static bool set(struct generator *g, struct slice item, char *message) {
	const char *equals = item.n ? memchr(item.p, '=', item.n) : NULL;
	struct slice name = { item.p, equals ? (size_t)(equals - item.p) : item.n };
	struct slice value = equals ? slice_skip(item, name.n + 1) : (struct slice){ item.p, 0 };

	if (slice_eq(name, SLICE("rate")))
		return set_rate(g, value, message);
	if (slice_eq(name, SLICE("think")))
		return set_think(g, value, message);
	for (size_t i = 0; i < n_elems(keys); i++)
		if (slice_eq(name, slice_of(keys[i].name)))
			return set_uint(g, &keys[i], value, message);
	snprintf(message, GENERATOR_MESSAGE_BYTES,
	    "\"%.*s\" is none of n, rate, groups, prefix_tokens, turns, input_tokens, output_tokens, think",
	    (int)size_min(name.n, 64), name.p);
	return false;
}

bool generator_parse(
    struct generator *generator, struct slice text, char message[static GENERATOR_MESSAGE_BYTES]) {
	struct slice rest = text, name = { NULL, 0 }, item;
	size_t i = 0;

	assert(generator_is_named(text));
	rest = slice_skip(text, MARK.n);
	(void)slice_next_member(&rest, &name);
	while (i < n_elems(kinds) && !slice_eq(name, slice_of(kinds[i].name)))
		i++;
	if (i == n_elems(kinds)) {
		snprintf(message, GENERATOR_MESSAGE_BYTES,
		    "\"%.*s\" is none of gen:shared_prefix, gen:multi_turn, gen:agents",
		    (int)size_min(text.n, 64), text.p);
		return false;
	}
	*generator = kinds[i];
	while (slice_next_member(&rest, &item))
		if (!set(generator, item, message))
			return false;
	return true;
}

/* ---- the trace ---- */

/* One conversation as it goes on. */
struct talk {
	const struct generator *generator;
	struct rng *rng;
	uint64_t number, group;
	uint32_t n_block_tokens;
	uint64_t n_tokens; /* said so far */
	uint64_t *blocks;
	size_t room;
};

/* In (0, 1). */
static double draw(struct rng *rng) {
	return ((double)(rng_next(rng) >> 12) + 0.5) * 0x1p-52;
}

/* Around `mean`, which is 1 or more, from half of it to half as much more. */
static uint64_t vary(struct rng *rng, uint64_t mean) {
	uint64_t half = mean / 2;

	return mean - half + rng_below(rng, 2 * half + 1);
}

/* An id for what `owner` says up to its token n_tokens, all before it included. */
static uint64_t block_id(uint64_t owner, uint64_t n_tokens) {
	struct rng rng;

	rng_init(&rng, owner * 0x9e3779b97f4a7c15ull ^ n_tokens);
	return rng_next(&rng);
}

/* The ids of the talk's prompt: full blocks within the prefix are the group's. */
static uint32_t talk_blocks(struct talk *t, uint64_t n_tokens) {
	size_t n = (size_t)((n_tokens + t->n_block_tokens - 1) / t->n_block_tokens);

	if (n > t->room) {
		t->room = 2 * n;
		t->blocks = realloc(t->blocks, t->room * sizeof(*t->blocks));
	}
	for (size_t i = 0; i < n; i++) {
		uint64_t end = u64_min(n_tokens, (i + 1) * (uint64_t)t->n_block_tokens);
		bool is_shared = end <= t->generator->prefix_tokens;

		t->blocks[i] = block_id(is_shared ? 2 * t->group : 2 * t->number + 1, end);
	}
	return (uint32_t)n;
}

static void run_talk(struct talk *t, uint64_t at_ns, struct trace *trace) {
	const struct generator *g = t->generator;

	t->n_tokens = g->prefix_tokens;
	for (uint64_t turn = 0; turn < g->turns && trace->n < g->n; turn++) {
		uint64_t n_input = t->n_tokens + vary(t->rng, g->input_tokens);
		uint64_t n_output = vary(t->rng, g->output_tokens);

		if (n_input > TRACE_TOKENS_MAX)
			break;
		struct trace_request request = {
			.at_ns = at_ns,
			.n_input_tokens = (uint32_t)n_input,
			.n_output_tokens = (uint32_t)n_output,
			.n_blocks = talk_blocks(t, n_input),
			.session = block_id(2 * t->number + 1, 0),
		};
		trace_add(trace, &request, t->blocks);
		t->n_tokens = n_input + n_output;
		at_ns +=
		    n_output * ANSWER_NS + (uint64_t)(-log(draw(t->rng)) * (double)g->think_ms * NS_PER_MS);
	}
}

void generator_run(
    const struct generator *generator, uint64_t seed, uint32_t n_block_tokens, struct trace *trace) {
	double talks_per_s = generator->rate / (double)generator->turns, at_ns = 0;
	struct rng rng;
	struct talk talk = { .generator = generator, .rng = &rng, .n_block_tokens = n_block_tokens };

	rng_init(&rng, seed);
	for (; trace->n < generator->n; talk.number++) {
		at_ns += -log(draw(&rng)) * NS_PER_S / talks_per_s;
		talk.group = rng_below(&rng, generator->groups);
		run_talk(&talk, (uint64_t)at_ns, trace);
	}
	free(talk.blocks);
}
