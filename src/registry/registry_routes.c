#include "registry/registry_routes.h"

#include "base/clock.h"
#include "registry/registry_change.h"
#include "registry/registry_metrics.h"

static struct registry_core *core_of(struct endpoint_call *c) {
	return ((struct registry_routes *)endpoint_context(c))->core;
}

static struct registry_routes *routes_of(struct endpoint_call *c) {
	registry_core_tick(core_of(c)); /* what is read is true now */
	return endpoint_context(c);
}

/* --- reading --------------------------------------------------------------------------- */

static void run_health(struct endpoint_call *c) {
	struct roster_counts n;

	roster_counts(routes_of(c)->core->roster, &n);
	endpoint_answer_json(c, 200,
	    json_pack("{s:s, s:s, s:i, s:i, s:o}", "status", "healthy", "registry", "running",
		"registered_services", (int)n.n_records, "healthy_services", (int)n.n_alive, "timestamp",
		registry_core_timestamp()));
}

static struct roster_filter filter_of(struct endpoint_call *c, char room[static RECORD_TEXT_MAX]) {
	struct slice status = endpoint_query(c, "status"), healthy;

	if (status.p) { /* the next value goes where this one stands */
		status.n = size_min(status.n, RECORD_TEXT_MAX);
		memcpy(room, status.p, status.n);
		status.p = room;
	}
	healthy = endpoint_query(c, "healthy");
	return roster_filter_of(status, healthy);
}

static void answer_list(struct registry_routes *r, struct endpoint_call *c) {
	char room[RECORD_TEXT_MAX];
	struct roster_filter filter = filter_of(c, room);
	struct record_text t = { .p = NULL };
	const struct roster_entry *e = NULL;
	json_int_t n = 0;

	record_text_put(&t, SLICE("{\"services\":["));
	while ((e = roster_next(r->core->roster, e, &filter))) {
		if (n++ > 0)
			record_text_put(&t, SLICE(","));
		record_print(e->record, e->is_alive, &t);
	}
	json_t *rest = json_pack("{s:I, s:o}", "total", n, "timestamp", registry_core_timestamp());
	char *end = json_dumps(rest, JSON_COMPACT);
	record_text_put(&t, SLICE("],"));
	record_text_put(&t, slice_of(end + 1)); /* without its brace */
	endpoint_answer_text(c, 200, "application/json", (struct slice){ t.p, t.n });
	json_decref(rest);
	free(end);
	free(t.p);
}

static bool is_watch(struct endpoint_call *c) {
	struct slice watch = endpoint_query(c, "watch");

	return endpoint_head(c)->method == METHOD_GET && watch.n && !slice_eq(watch, SLICE("0")) &&
	    !slice_is(watch, SLICE("false"));
}

static void run_list(struct endpoint_call *c) {
	struct registry_routes *r = routes_of(c);

	if (is_watch(c))
		watchers_add(r->core->watchers, c);
	else if (buf_is_over_budget(&r->core->loop->bufs))
		endpoint_answer_error(c, 503, "overloaded", "Too much waits for clients that do not read");
	else
		answer_list(r, c);
}

static void run_get(struct endpoint_call *c) {
	struct slice name = endpoint_param(c);
	const struct roster_entry *e = roster_find(routes_of(c)->core->roster, name);

	if (e)
		endpoint_answer_json(c, 200, record_json(e->record, e->is_alive));
	else
		registry_core_answer_not_found(c, name);
}

static void run_stats(struct endpoint_call *c) {
	struct registry_routes *r = routes_of(c);
	struct roster_counts n;

	roster_counts(r->core->roster, &n);
	endpoint_answer_json(c, 200,
	    json_pack("{s:i, s:i, s:i, s:o, s:o, s:I, s:o}", "total_services", (int)n.n_records,
		"healthy_services", (int)n.n_alive, "unhealthy_services", (int)(n.n_records - n.n_alive),
		"status_distribution", roster_count_statuses(r->core->roster), "host_distribution",
		roster_count_hosts(r->core->roster), "uptime",
		(json_int_t)((clock_now_ns() - r->started_ns) / 1000000000u), "timestamp",
		registry_core_timestamp()));
}

static void run_metrics(struct endpoint_call *c) {
	registry_core_tick(core_of(c));
	endpoint_answer_metrics(c, registry_metrics_write);
}

/* --- probes on demand -------------------------------------------------------------------- */

struct question {
	struct prober_wish wish;
	struct registry_routes *routes;
	struct endpoint_call *call;
	size_t n_name;
	char name[];
};

static void answer_health(struct endpoint_call *c, const struct roster_entry *e) {
	const struct record *record = e->record;

	endpoint_answer_json(c, 200,
	    json_pack("{s:s, s:s, s:b, s:f, s:o}", "service", record->name, "health_status",
		record_health_name(record->health), "is_healthy", e->is_alive, "last_heartbeat",
		(double)record->heartbeat_s, "timestamp", registry_core_timestamp()));
}

static void question_on_done(struct prober_wish *wish, bool is_healthy) {
	struct question *q = container_of(wish, struct question, wish);
	struct registry_routes *r = q->routes;
	struct slice name = { q->name, q->n_name };
	const struct roster_entry *e = is_healthy
	    ? roster_heartbeat(r->core->roster, name, clock_wall_ms(), registry_core_now_ms())
	    : roster_find(r->core->roster, name);

	if (e)
		answer_health(q->call, e);
	else
		registry_core_answer_not_found(q->call, name);
	free(q);
	watchers_wake(r->core->watchers);
}

static void question_on_gone(void *owner) {
	struct question *q = owner;

	list_remove(&q->wish.link);
	free(q);
}

static void run_probe(struct endpoint_call *c) {
	struct registry_routes *r = routes_of(c);
	struct slice name = endpoint_param(c);

	if (!roster_find(r->core->roster, name)) {
		registry_core_answer_not_found(c, name);
		return;
	}
	struct question *q = calloc(1, sizeof(*q) + name.n + 1);
	q->wish.on_done = question_on_done;
	q->routes = r;
	q->call = c;
	q->n_name = name.n;
	memcpy(q->name, name.p, name.n);
	endpoint_keep(c, question_on_gone, q);
	bool is_asked = prober_ask(r->core->prober, slice_of(q->name), &q->wish);
	assert(is_asked); /* it has whom the roster has */
}

/* --- changes ---------------------------------------------------------------------------- */

static void run_post(struct endpoint_call *c) {
	registry_change_post(core_of(c), c);
}

static void run_put(struct endpoint_call *c) {
	registry_change_put(core_of(c), c);
}

static void run_delete(struct endpoint_call *c) {
	registry_change_delete(core_of(c), c);
}

static void run_heartbeat(struct endpoint_call *c) {
	registry_change_heartbeat(core_of(c), c);
}

/* --- the server --------------------------------------------------------------------------- */

static const struct endpoint rows[REGISTRY_ROUTES_N] = {
	{ METHOD_GET, "/health", .run = run_health },
	{ METHOD_GET, "/services", .run = run_list },
	{ METHOD_POST, "/services", run_post, .body_bytes_max = 1, .writes = true },
	{ METHOD_GET, "/services/{name}", .run = run_get },
	{ METHOD_PUT, "/services/{name}", run_put, .body_bytes_max = 1, .writes = true },
	{ METHOD_DELETE, "/services/{name}", run_delete, .writes = true },
	{ METHOD_GET, "/services/{name}/health", .run = run_probe },
	{ METHOD_POST, "/services/{name}/heartbeat", run_heartbeat, .body_bytes_max = 1, .writes = true },
	{ METHOD_GET, "/stats", .run = run_stats },
	{ METHOD_GET, "/metrics", .run = run_metrics },
};

int registry_routes_open(struct registry_routes *r, int fd) {
	r->started_ns = clock_now_ns();
	memcpy(r->rows, rows, sizeof(rows));
	for (size_t i = 0; i < n_elems(r->rows); i++)
		if (r->rows[i].body_bytes_max)
			r->rows[i].body_bytes_max = r->core->config->body_limit_bytes;
	return endpoint_server_open(
	    &r->server, r->core->loop, fd, r->rows, n_elems(r->rows), r, r->core->config->token);
}

void registry_routes_close(struct registry_routes *r) {
	assert(r->core->n_writing == 0);
	endpoint_server_close(&r->server);
}

void registry_routes_deinit(struct registry_routes *r) {
	endpoint_server_deinit(&r->server);
}
