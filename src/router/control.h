/*
 * control: the state of the control thread, and what its files do for each other: control_fleet.c keeps the
 * fleet true, control_end.c ends the process in order or hands it over, router.c starts it. Private to these.
 */
#pragma once

#include "discovery/health.h"
#include "discovery/kv_engine.h"
#include "discovery/registry_source.h"
#include "discovery/scrape.h"
#include "discovery/watch.h"
#include "discovery/zmq_source.h"
#include "net/certificates.h"
#include "net/signals.h"
#include "net/watchdog.h"
#include "router/label_check.h"
#include "router/reload.h"
#include "router/report.h"
#include "router/succession.h"
#include "router/upgrade.h"
#include "router/worker.h"

#define CONTROL_PUBLISH_MS 20 /* between two snapshots: news that come one by one share one */

enum control_state {
	CONTROL_STARTING = 1, /* not accepting: the process before us still does */
	CONTROL_RUNNING,
	CONTROL_ANNOUNCING, /* not ready, still accepting */
	CONTROL_DRAINING,   /* not accepting, streams finish */
	CONTROL_ENDING,     /* everybody has been told, and takes what was written for him */
};

/* That we listen on, open while we are running; -1: none. */
struct control_sockets {
	int *data;
	size_t n_data;
	int admin, metrics;
	/* For a successor alone: the source listens on a copy; what it knew when one was last asked for. */
	int zmq, zmq_records;
};

struct control {
	struct loop loop;
	struct router router;
	const struct router_config *config; /* of the newest settings */
	struct fleet *fleet;
	struct snapshot *snapshot; /* the newest, as published */
	struct watcher watcher;
	struct health health;
	struct scraper scraper;
	struct registry_source registry;
	struct zmq_source zmq;
	struct kv_engines kv_engines;
	bool has_registry, has_zmq, is_started; /* the workers are there */
	struct control_sockets sockets;
	struct succession succession;
	struct upgrade upgrade;
	struct endpoint_server admin, metrics;
	struct report report;
	struct label_check labels;
	struct reload reload;
	struct signals signals;
	struct timer drain, publish, warm;
	uint64_t warm_until_ms;
	struct certificates certificates;
	struct watchdog watchdog;
	uint64_t published_ms;
	uint64_t drain_until_ms;
	enum control_state state;
	bool is_told;       /* to stop */
	bool is_reload_due; /* asked for before there was anything to reload */
};

/* --- control_fleet.c --- */

void control_publish_now(struct control *c);
void control_on_publish(struct timer *t);
void control_on_watch(struct watcher *watcher);
void control_on_kv_engines(struct kv_engines *kv_engines);
bool control_open_registry(struct control *c);
void control_open_zmq(struct control *c);
void control_open_health(struct control *c);
void control_open_scraper(struct control *c);
void control_open_gate(struct control *c);
void control_close_gate(struct control *c);
bool control_open_verdicts(struct control *c);
bool control_fill_fleet(struct control *c);
void control_open_recruits(struct control *c);
void control_close_recruits(struct control *c);

/* --- control_end.c --- */

extern const struct upgrade_owner control_upgrade_owner;

void control_on_drain(struct timer *t);
void control_on_stop(struct control *c);
void control_reload(struct control *c);
void control_on_signal(struct signals *signals, int number);

/* --- router.c --- */

bool control_has_metrics(const struct control *c);
