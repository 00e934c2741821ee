/*
 * reload: another configuration for a router that runs.
 *
 * The sources of the start are read again, command line, environment and file with all files that they name,
 * and applied as a whole or not at all: a mistake anywhere, or another value of an option that cannot change
 * while the router runs, changes nothing. Requests end under the settings that they began under
 * (router/settings.h); picks, probes and questions to engines go by the new ones at once.
 *
 * Engines that the configuration does not name any more leave when those that are new in it are known,
 * addresses and models, or after five seconds: no model is without engines in between.
 *
 * Control thread. What happened is in the log, and told to the service manager.
 */
#pragma once

#include "discovery/health.h"
#include "discovery/registry_source.h"
#include "discovery/scrape.h"
#include "discovery/watch.h"
#include "http/endpoint.h"
#include "net/certificates.h"
#include "router/upgrade.h"
#include "router/worker.h"

struct reload {
	/* The owner's, before reload_init(); all outlive it. */
	int argc;
	char *const *argv;
	struct loop *loop;
	struct router *router;
	struct fleet *fleet;
	struct snapshot *const *snapshot; /* the newest, as published */
	struct watcher *watcher;
	struct health *health;
	struct scraper *scraper;
	struct registry_source *registry; /* NULL: there is none */
	struct certificates *certificates;
	const struct upgrade *upgrade;           /* the new process has read the old files: none meanwhile */
	struct endpoint_server *admin, *metrics; /* the latter NULL: there is no such listener */
	/* Settings or fleet may be others now: publish. */
	void (*on_change)(struct reload *r);

	/* private */
	struct timer leave; /* of engines that are not named any more */
	uint64_t leave_by_ms;
	uint32_t newest; /* serial of the instances that there were before the first reload that waits */
	uint64_t n_applied, n_refused;
};

void reload_init(struct reload *r);
void reload_deinit(struct reload *r);

/*
 * True: {"applied": true, "warnings": [line]} and what config_diff() has. False, and nothing has happened:
 * {"applied": false, "error": {"message", "code", ...}, "mistakes": [line]}. The caller owns it.
 */
bool reload_run(struct reload *r, json_t **report_out);

/* POST /reload, in the admin table: answered when all workers go by the new settings. */
void reload_answer(struct endpoint_call *call);

void reload_write_metrics(const struct reload *r, FILE *out);

/* What their modules go by, of a configuration. */
struct health_options reload_health_options(const struct router_config *config);
struct scrape_options reload_scrape_options(const struct router_config *config, const struct load *load);
struct watch_intervals reload_watch_intervals(const struct router_config *config);
struct registry_options reload_registry_options(const struct router_config *config);

/* Files of certificates; clients of engines without TLS need none. */
struct certificates_fresh reload_tls_files(const struct router_config *config);
