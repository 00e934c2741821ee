/*
 * babysitter_routes: what a babysitter answers on the port behind its engine's: /health,
 * /models, /info, /metrics, and POST /drain.
 *
 * Reads the parts of the babysitter and changes none of them; a drain is handed to its
 * owner. One thread, the loop's.
 */
#pragma once

#include "babysitter/babysitter_config.h"
#include "babysitter/keeper.h"
#include "babysitter/readiness.h"
#include "babysitter/registrar.h"
#include "http/endpoint.h"

struct babysitter_routes {
	const struct babysitter_config *config;
	const struct keeper *keeper;
	const struct readiness *readiness;
	const struct registrar *registrar; /* NULL: there is no registry */
	const char *host;                  /* that others know us by; "" while that is not known */
	uint64_t started_ns;
	bool is_leaving; /* told to end */
	void (*on_drain)(struct babysitter_routes *routes);
	struct list lists; /* of models, being fetched; list_init() */
};

extern const struct endpoint babysitter_routes_rows[];
extern const size_t babysitter_routes_n_rows;

/* The engine is, or will be, gone: answers who waits for its models. Before readiness_stop(). */
void babysitter_routes_forget(struct babysitter_routes *routes);

/* "ready", "starting", "unresponsive", ...: what /health says. */
const char *babysitter_routes_state(const struct babysitter_routes *routes);
/* The engine serves: /health is 200. */
bool babysitter_routes_is_serving(const struct babysitter_routes *routes);
