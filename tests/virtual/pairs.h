/*
 * pairs: engines that prefill and engines that decode, in a world; the first ones prefill.
 */
#pragma once

#include "virtual/world.h"

#define PAIRS_ENGINES_MAX 6

/* How engines of a connector are told to the router; `mode` and `port` may be NULL. */
struct pairs_how {
	const char *connector, *mode, *port;
	bool is_concurrent;
};

static const struct pairs_how pairs_nixl = { "nixl", NULL, NULL, false };
static const struct pairs_how pairs_moriio = { "moriio", "write", NULL, true };
static const struct pairs_how pairs_sglang = { "sglang", NULL, "8998", true };

static inline void pairs_set_engine(
    struct world *w, unsigned i, const char *role, const struct pairs_how *how) {
	struct pair labels[4] = { { SLICE("role"), slice_of(role) },
		{ SLICE("kv_connector"), slice_of(how->connector) } };
	struct pairs list = { labels, 2 };

	if (how->mode)
		labels[list.n++] = (struct pair){ SLICE("kv_mode"), slice_of(how->mode) };
	if (how->port)
		labels[list.n++] = (struct pair){ SLICE("bootstrap_port"), slice_of(how->port) };
	world_set_labelled(w, i, "m", 1, list);
}

/* Prompts of any length are shared, and each leg may be had three times. */
static inline void pairs_configure(struct world *w) {
	w->config.retry.attempts = 3;
	w->config.retry.sent = true;
}

/* All serve "m". */
static inline struct world *pairs_world(
    const struct pairs_how *how, unsigned n_prefills, unsigned n_decodes) {
	static const char *const models[] = { "m", "m", "m", "m", "m", "m", NULL };
	assert(n_prefills + n_decodes <= PAIRS_ENGINES_MAX);
	struct world *w = world_new(models + PAIRS_ENGINES_MAX - n_prefills - n_decodes);

	for (unsigned i = 0; i < n_prefills + n_decodes; i++)
		pairs_set_engine(w, i, i < n_prefills ? "prefill" : "decode", how);
	pairs_configure(w);
	return w;
}
