/*
 * rank: the data-parallel ranks of an engine, as urls, names and labels say them.
 *
 * One server may stand before several engines that work side by side, each with a cache and a queue of its
 * own; a header says which one a request is for. To the router each is an instance: http://HOST:PORT@K is
 * rank K of the engine at http://HOST:PORT. Pure; slices point into what was given.
 */
#pragma once

#include "base/text.h"
#include "fleet/pair.h"

#define RANKS_MAX  1024u      /* of one engine */
#define RANKS_AUTO UINT16_MAX /* as a count: as many as the engine says that it has */

#define RANK_SUFFIX_BYTES sizeof("@1023")

/* "https://host:8000@3". */
struct rank_url {
	struct text_url url;
	uint16_t rank; /* below RANKS_MAX; 0 without one */
	bool has_rank;
};

/* As text_url(), with or without "@K" behind it. */
must_use bool rank_url(struct slice text, struct rank_url *url_out);

/* What is wrong with it as the url of an engine, for people; NULL: nothing. */
const char *rank_url_mistake(const char *text);

/* The name without its "@K", and the rank; false: it ends in none. */
must_use bool rank_split(struct slice name, struct slice *name_out, uint16_t *rank_out);

/* A count: 1 to RANKS_MAX; 0 and "auto" are RANKS_AUTO. */
must_use bool rank_count(struct slice text, uint16_t *n_out);

/* How many ranks an engine has of which nobody says it, by its label role. */
struct rank_defaults {
	uint16_t unified, prefill, decode; /* 0 is 1 */
};

/* As its label dp_size says, else as by default: 1 or more, or RANKS_AUTO. */
uint16_t rank_count_of(struct pairs labels, const struct rank_defaults *defaults);
