/*
 * settings: the configuration as requests use it, with what follows from it for them: what each
 * tenant may have of the places, and the meters of its limits.
 *
 * Never changed: a reload (router/reload.h) makes new ones and gives them to all workers. A request takes
 * those of its worker when it begins and keeps them until it ends, so that it ends under what it began
 * under; the last one to go, on whatever thread, takes the old configuration along. How many requests of
 * a worker use them is counted there, without atomics; workers that do, and the control thread, hold a
 * reference.
 */
#pragma once

#include "router/admission.h"
#include "router/config.h"
#include "router/rate.h"

struct settings_users { /* of one worker, and written by it alone */
	alignas(64) uint32_t n;
};

struct settings {
	const struct router_config *config;
	const struct admission_tenant *shares; /* of the places, by number of tenant */
	uint32_t n_tenants;                    /* of them */
	struct rate_table *rates;              /* NULL: nothing is limited */

	/* private */
	struct router_config *owned; /* NULL: the configuration is somebody else's, who outlives this */
	_Atomic uint32_t refs;
	struct settings_users users[]; /* by worker */
};

/*
 * On the control thread. One reference, the caller's. Meters go on as in `before` (NULL: there is nothing
 * before) where their limits are the same. The configuration must outlive the settings; settings_own() hands
 * it over.
 */
must_use struct settings *settings_new(
    const struct router_config *config, unsigned n_workers, const struct settings *before);

/* The configuration, one of router_config_load() or _read(), is freed with the settings. */
void settings_own(struct settings *s, struct router_config *config);

struct settings *settings_ref(struct settings *s);
void settings_unref(struct settings **s); /* accepts NULL, clears; any thread */

/* For a worker: one more use; the first needs the reference of its caller, and keeps it. */
static inline struct settings *settings_use(struct settings *s, unsigned worker) {
	s->users[worker].n++;
	return s;
}

/* One use less; with the last one goes the reference. Clears. */
void settings_release(struct settings **s, unsigned worker);

static inline const struct tenant *settings_tenant(const struct settings *s, uint32_t tenant) {
	return tenant_get(s->config->tenants, tenant);
}

/* What admission and gatekeeper go by; valid as long as the settings. */
struct admission_limits settings_limits(const struct settings *s);

/* How many there are in the process. */
uint32_t settings_n_alive(void);
