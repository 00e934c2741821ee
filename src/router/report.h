/*
 * report: what the router shows on its metrics and admin listeners.
 *
 * /metrics in Prometheus' text format, /config with the values in effect, and what
 * router/explain.h answers. Read on the
 * control thread from counters that workers write and anybody may read.
 */
#pragma once

#include "discovery/health.h"
#include "discovery/registry_source.h"
#include "discovery/scrape.h"
#include "discovery/watch.h"
#include "discovery/zmq_source.h"
#include "fleet/snapshot.h"
#include "http/endpoint.h"
#include "router/explain.h"
#include "router/upgrade.h"
#include "router/vllm_report.h"
#include "router/worker.h"

struct leavers;
struct recruits;
struct reload;

struct report {
	struct router *router;
	const struct snapshot *snapshot; /* the newest; the control thread keeps it current */
	struct fleet *fleet; /* whose wishes an operator may change; then on_wish() makes them known */
	void (*on_wish)(struct report *r);
	const struct health *health;
	const struct scraper *scraper;
	const struct watcher *watcher;
	const struct registry_source *registry; /* NULL: there is none */
	const struct zmq_source *zmq;           /* likewise */
	struct vllm_turnover turnover;          /* noted where metrics have the names of vLLM's router */
	struct explain explain;
	struct upgrade *upgrade;
	struct reload *reload;
	struct recruits *recruits;
	struct leavers *leavers;
	struct list flushes, infos; /* under way (router/flush.h, router/engine_info.h) */
};

/* Both tables take a struct report as context. */
extern const struct endpoint report_metrics_endpoints[], report_admin_endpoints[];
extern const size_t report_n_metrics_endpoints, report_n_admin_endpoints;
