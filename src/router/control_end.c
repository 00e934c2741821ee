/* The end of the process, in order; and the process that takes its place. */
#include "router/control.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "base/log.h"
#include "base/notify.h"
#include "router/instances.h"
#include "router/recruits.h"
#include "router/verdicts.h"

#define DRAIN_CHECK_MS 20
#define END_MS         1000 /* for what was written to leave */

/* --- the end ------------------------------------------------------------------------ */

static void control_stop(struct control *c) {
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_stop(&c->router.workers[i]);
	watchdog_stop(&c->watchdog);
	timer_stop(&c->drain);
	timer_stop(&c->publish);
	upgrade_deinit(&c->upgrade);
	succession_end(&c->succession);
	reload_deinit(&c->reload);
	certificates_close(&c->certificates);
	watcher_deinit(&c->watcher);
	health_deinit(&c->health);
	scraper_deinit(&c->scraper);
	kv_engines_deinit(&c->kv_engines);
	if (c->has_registry)
		registry_source_deinit(&c->registry);
	if (c->has_zmq)
		zmq_source_deinit(&c->zmq);
	endpoint_server_close(&c->admin);
	if (control_has_metrics(c))
		endpoint_server_close(&c->metrics);
	control_close_recruits(c);
	verdicts_close(c->router.verdicts);
	signals_close(&c->signals);
	loop_stop(&c->loop);
}

/* Their sockets are closed by workers from now on. */
static void control_forget_data(struct control *c) {
	for (size_t i = 0; i < c->sockets.n_data; i++)
		c->sockets.data[i] = -1;
}

static bool control_has_clients(const struct control *c) {
	for (unsigned i = 0; i < c->router.n_workers; i++) {
		const struct server *s = &c->router.workers[i].server;
		if (!atomic_load(&s->is_closing) ||
		    atomic_load_explicit(&s->n_sessions, memory_order_relaxed))
			return true;
	}
	return false;
}

/* Those of the process before us are ours as well: who stops us stops all of the service. */
static bool control_is_empty(const struct control *c) {
	return !control_has_clients(c) && !succession_has_predecessor(&c->succession);
}

/* Nobody is waited for any longer, but what they are told must reach them. */
static void control_end(struct control *c) {
	struct log_event e;
	log_begin(&e, LOG_INFO, "stopping: requests at work are refused or cut");
	log_end(&e);
	c->state = CONTROL_ENDING;
	succession_hurry(&c->succession);
	c->drain_until_ms = loop_now_ms(&c->loop) + END_MS;
	atomic_store_explicit(&c->router.is_ending, true, memory_order_relaxed);
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_end(&c->router.workers[i]);
	loop_timer(&c->loop, &c->drain, DRAIN_CHECK_MS);
}

static void control_drain(struct control *c) {
	struct log_event e;
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_drain(&c->router.workers[i]);
	control_forget_data(c);
	c->state = CONTROL_DRAINING;
	log_begin(&e, LOG_INFO, "stopping: not accepting, requests at work finish");
	line_uint(&e.line, SLICE("drain_ms"), c->config->timeout.drain_ms);
	log_end(&e);
	c->drain_until_ms = loop_now_ms(&c->loop) + c->config->timeout.drain_ms;
}

void control_on_drain(struct timer *t) {
	struct control *c = container_of(t, struct control, drain);
	bool is_late = c->state != CONTROL_ANNOUNCING && loop_now_ms(&c->loop) >= c->drain_until_ms;
	if (c->state == CONTROL_ANNOUNCING)
		control_drain(c);
	else if (control_is_empty(c) || (c->state == CONTROL_ENDING && is_late)) {
		control_stop(c);
		return;
	} else if (is_late) {
		control_end(c);
		return;
	}
	loop_timer(&c->loop, &c->drain, DRAIN_CHECK_MS);
}

/* Clients come no more, those who are here stay for [timeout] announce and get no more than that answer. */
static void control_begin_drain(struct control *c) {
	c->state = CONTROL_ANNOUNCING;
	atomic_store_explicit(&c->router.is_leaving, true, memory_order_relaxed);
	loop_timer(&c->loop, &c->drain, c->config->timeout.announce_ms);
}

void control_on_stop(struct control *c) {
	struct log_event e;
	if (c->state == CONTROL_STARTING) {
		if (!succession_is_offered(&c->succession)) /* the process before us goes on */
			_exit(1);
		c->is_told = true; /* it may have gone already: then we serve, and stop in order */
		return;
	}
	if (c->is_told) { /* a second time: now; a third one waits for nothing */
		(c->state == CONTROL_ENDING ? control_stop : control_end)(c);
		return;
	}
	c->is_told = true;
	if (c->state != CONTROL_RUNNING) { /* another process has taken over */
		log_begin(&e, LOG_INFO, "stopping: this process does so already");
		log_end(&e);
		return;
	}
	upgrade_cancel(&c->upgrade, "the router is being stopped");
	log_begin(&e, LOG_INFO, "stopping: not ready, still accepting");
	line_uint(&e.line, SLICE("announce_ms"), c->config->timeout.announce_ms);
	log_end(&e);
	if (!upgrade_is_going(&c->upgrade)) /* else the manager watches another one already */
		notify_manager("STOPPING=1");
	atomic_store_explicit(&c->router.is_draining, true, memory_order_relaxed);
	control_begin_drain(c);
}

/* What comes of it is in the log. */
void control_reload(struct control *c) {
	json_t *report;
	(void)reload_run(&c->reload, &report);
	json_decref(report);
}

void control_on_signal(struct signals *signals, int number) {
	struct control *c = container_of(signals, struct control, signals);
	if (number == SIGHUP && c->state == CONTROL_STARTING)
		c->is_reload_due = true;
	else if (number == SIGHUP) /* one that stops says no, in the log */
		control_reload(c);
	else if (number == SIGUSR2 && c->state == CONTROL_RUNNING)
		upgrade_start(&c->upgrade);
	else if (number != SIGUSR2)
		control_on_stop(c);
}

/* --- another process takes our place ------------------------------------------------------ */

static bool control_may_upgrade(const struct upgrade *u) {
	return container_of(u, const struct control, upgrade)->state == CONTROL_RUNNING;
}

static void control_close_zmq_records(struct control_sockets *s) {
	if (s->zmq_records >= 0)
		close(s->zmq_records);
	s->zmq_records = -1;
}

/* The socket, and who is known by it, so that the new process need not wait until they all have come again.
 */
static size_t control_collect_zmq(struct control *c, struct handed items[static 2]) {
	struct control_sockets *s = &c->sockets;
	if (!c->has_zmq)
		return 0;
	control_close_zmq_records(s);
	s->zmq_records = zmq_source_keep(&c->zmq);
	items[0] = (struct handed){ "zmq", s->zmq };
	items[1] = (struct handed){ "zmq_records", s->zmq_records };
	return s->zmq_records >= 0 ? 2 : 1;
}

static size_t control_collect(struct upgrade *u, struct handed **items_out) {
	struct control *c = container_of(u, struct control, upgrade);
	const struct control_sockets *s = &c->sockets;
	assert(c->state == CONTROL_RUNNING); /* else workers have closed them */
	u->timeout_ms = c->config->timeout.upgrade_ms;
	struct handed *items = calloc(s->n_data + 5, sizeof(*items));
	size_t n = 0;
	for (size_t i = 0; i < s->n_data; i++)
		items[n++] = (struct handed){ "data", s->data[i] };
	items[n++] = (struct handed){ "admin", s->admin };
	if (s->metrics >= 0)
		items[n++] = (struct handed){ "metrics", s->metrics };
	n += control_collect_zmq(c, items + n);
	if (fcntl(STDERR_FILENO, F_GETFD) >= 0)
		items[n++] = (struct handed){ "stderr", STDERR_FILENO };
	*items_out = items;
	return n;
}

/* We are as ready as before for whom we have, who are told by each answer to come again by another
 * connection. */
static void control_leave(struct control *c) {
	for (unsigned i = 0; i < c->router.n_workers; i++)
		worker_leave(&c->router.workers[i]);
	control_forget_data(c);
	control_begin_drain(c);
}

/* Engines whose connections end come again, to the process that listens now. */
static void control_leave_zmq(struct control *c) {
	if (!c->has_zmq)
		return;
	zmq_source_leave(&c->zmq);
	control_close_zmq_records(&c->sockets);
	close(c->sockets.zmq);
}

/* It serves. We may have been told to stop since it was told to go: then we are about it. */
static void control_on_successor(struct upgrade *u) {
	struct control *c = container_of(u, struct control, upgrade);
	endpoint_server_drain(&c->admin);
	if (control_has_metrics(c))
		endpoint_server_drain(&c->metrics);
	if (c->has_registry)
		registry_source_leave_file(&c->registry);
	control_leave_zmq(c);
	recruits_leave_file(c->report.recruits);
	instances_log_lost(c->fleet);
	watchdog_stop(&c->watchdog); /* or we would vouch for the one that the manager watches now */
	if (c->state == CONTROL_RUNNING)
		control_leave(c);
}

static void control_on_hurry(struct upgrade *u) {
	struct control *c = container_of(u, struct control, upgrade);
	if (c->state != CONTROL_ENDING)
		control_end(c);
}

const struct upgrade_owner control_upgrade_owner = { control_may_upgrade, control_collect,
	control_on_successor, control_on_hurry };
