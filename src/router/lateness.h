/*
 * lateness: when an answer is late to begin, by how long those of its model took lately, and what second
 * requests are paid from (router/hedge.h).
 *
 * Times are learned apart for prompts of different sizes and for streamed and whole answers: a long prompt
 * takes long without anything being wrong, and a whole answer begins when its last token is made. Each is a
 * histogram of steps of a quarter of an octave, so that a percentile is told up to a fifth too late, never
 * too early; old times fade by halves.
 *
 * Pure; a struct belongs to one thread. All zero is a good start: nothing is known, nothing is saved up.
 */
#pragma once

#include "base/defs.h"

struct hedge_options {
	bool is_enabled;
	double percentile;    /* above 0, below 1: who is later than this part of the others is late */
	uint64_t wait_min_ms; /* nobody is before that */
	double budget;        /* 0 to 1: second requests by requests */
};

#define LATENESS_SIZES  4u
#define LATENESS_STEPS  80u   /* beyond a quarter of an hour all is one */
#define LATENESS_MEMORY 2048u /* times that count in full */
#define LATENESS_MIN    20u   /* fewer say nothing */
#define LATENESS_NEVER  UINT64_MAX

struct lateness {
	uint16_t n;
	uint16_t n_in[LATENESS_STEPS];
};

/* Of one model on one thread. */
struct lateness_model {
	struct lateness of[2][LATENESS_SIZES];
	double saved; /* second requests that may be made */
};

/* Where answers are counted to prompts of which so many tokens have to be computed. */
struct lateness *lateness_of(struct lateness_model *m, uint32_t n_tokens, bool is_streamed);

/* An answer took so long to begin; or has not begun for so long, which is as good for what it is asked for.
 */
void lateness_learn(struct lateness *l, uint64_t ms);

/* After so long an answer is late. LATENESS_NEVER: too little is known. */
must_use uint64_t lateness_ms(const struct lateness *l, const struct hedge_options *options);

/* A request came that could be made twice; no more is saved than what two hundred requests at 5 % bring. */
void lateness_save(struct lateness_model *m, const struct hedge_options *options);

/* For a second request. False: there is not enough, and nothing was taken. */
must_use bool lateness_spend(struct lateness_model *m);

/* It was not made after all. */
void lateness_give_back(struct lateness_model *m);
