/*
 * scrape: asks each engine again and again how busy it is (GET /metrics).
 *
 * What it says (discovery/figures.h) goes to the instance's struct learned. An engine that has no
 * such page, or no figures there, is asked once a minute; one that fails less often than the
 * others, and nothing else follows of that: it is no evidence of health, and what was learned
 * stays until it is too old. Providers are not asked. Of records that are one target the first is asked.
 *
 * Of an engine with data-parallel ranks the first is asked, and each learns what is said of it; how many
 * there are goes to the fleet, and `on_change` asks the owner to build and publish a snapshot.
 *
 * A restart shows in the time its process began, or in a counter that falls. Control thread only.
 */
#pragma once

#include "base/rng.h"
#include "discovery/figures.h"
#include "fleet/fleet.h"
#include "fleet/load.h"
#include "net/loop.h"

enum scrape_outcome {
	SCRAPE_GOOD,
	SCRAPE_NONE,   /* there are no figures */
	SCRAPE_FAILED, /* no answer, or one that says nothing of the matter */
	SCRAPE_OUTCOMES,
};

/* The word that metrics use. */
const char *scrape_outcome_text(enum scrape_outcome outcome);

struct scrape_options {
	uint64_t interval_ms; /* 0: nobody is asked */
	uint64_t timeout_ms;
	const char *api_key;     /* for the engines; "": none */
	const struct load *load; /* this router's */
};

struct scrape;

struct scraper {
	struct loop *loop;
	struct fleet *fleet;
	struct scrape_options options;
	struct snapshot *snapshot;                  /* the one last synced */
	struct scrape *scrapes[INSTANCE_SLOTS_MAX]; /* by slot */
	struct timer tick;
	struct job change;
	struct rng rng;
	uint32_t first_row;   /* of the next tick */
	unsigned n_under_way; /* as of this tick */
	uint64_t counts[SCRAPE_OUTCOMES];
	void (*on_change)(struct scraper *s);
};

/* The text of the options must outlive it. */
void scraper_init(struct scraper *s, struct loop *loop, struct fleet *fleet,
    const struct scrape_options *options, void (*on_change)(struct scraper *));
/* Other options, from now on. */
void scraper_retune(struct scraper *s, const struct scrape_options *options);
void scraper_deinit(struct scraper *s);

/* The instances of this snapshot are asked, others are let go. */
void scraper_sync(struct scraper *s, struct snapshot *snapshot);

/* As it was said last, or shown by a counter; false when it was not, or that is three intervals ago. */
must_use bool scraper_figure(
    const struct scraper *s, const struct instance *inst, enum figure figure, double *value_out);
