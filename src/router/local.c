#include "router/local.h"

#include <jansson.h>

#include "base/clock.h"
#include "base/text.h"
#include "policy/session_table.h"
#include "router/pairs_json.h"

struct local_state {
	const struct worker *worker;
	const struct head *request;
	const struct snapshot *snap;
	const struct tenant *tenant;
	unsigned n_routable, n_total;
	unsigned n_prefill, n_decode; /* of the routable ones, by their role */
};

/* A JSON text is sent as plain text. */
typedef json_t *(*local_fn)(const struct local_state *s, unsigned *status);

/* As configured; null: there is none. */
static json_t *registry_url(const struct local_state *s) {
	const char *url = s->worker->settings->config->registry_url;
	return url[0] ? json_string(url) : json_null();
}

static json_t *now_seconds(void) {
	return json_integer((json_int_t)(clock_wall_ms() / 1000));
}

/* --- models ----------------------------------------------------------------- */

/* The object that an engine gave, whole, or one made from the id. */
static json_t *model_object(const struct model *m) {
	json_t *object = m->object.n ? json_loadb(m->object.p, m->object.n, 0, NULL) : NULL;
	if (json_is_object(object))
		return object;
	json_decref(object);
	return json_pack("{s:o, s:s, s:i, s:s}", "id", text_json(m->name), "object", "model", "created", 0,
	    "owned_by", "headrace");
}

/* Under the name that clients have for it: an alias, or its own. */
static void add_model(const struct local_state *s, json_t *data, const struct model *m, struct slice name) {
	if (!m || !m->n_healthy || !tenant_may_use(s->tenant, name))
		return;
	json_t *object = model_object(m);
	if (!slice_eq(name, m->name))
		json_object_set_new(object, "id", text_json(name));
	json_array_append_new(data, object);
}

static json_t *local_models(const struct local_state *s, unsigned *status) {
	const struct alias_table *aliases = &s->worker->settings->config->aliases;
	json_t *data = json_array();
	for (unsigned i = 0; i < s->snap->n_models; i++)
		if (!alias_find(aliases, s->snap->models[i].name))
			add_model(s, data, &s->snap->models[i], s->snap->models[i].name);
	for (size_t i = 0; i < aliases->n; i++)
		add_model(s, data, snapshot_model(s->snap, aliases->items[i].model), aliases->items[i].name);
	return json_pack("{s:s, s:o}", "object", "list", "data", data);
}

/* --- health ------------------------------------------------------------------ */

/* Engines that announce themselves as half of a pair are of no use without the other half. */
static bool lacks_half(const struct local_state *s) {
	bool has_pairs = s->worker->settings->config->pd.discovery_address[0];
	return has_pairs && !(s->n_prefill && s->n_decode);
}

/* Somebody may answer a client: those that prefill never do. */
static bool is_able(const struct local_state *s) {
	return s->n_routable > s->n_prefill && !lacks_half(s);
}

/* What the other router puts before the url of one that prefills or decodes. */
static const char *half_of(const struct snapshot_row *row) {
	for (uint32_t i = 0; i < row->labels.n; i++) {
		const struct pair *label = &row->labels.items[i];
		if (slice_eq(label->key, SLICE("role")))
			return slice_eq(label->value, SLICE("prefill")) ? "Prefill: "
			    : slice_eq(label->value, SLICE("decode"))   ? "Decode: "
									: "";
	}
	return "";
}

/* As vLLM's router has it: a text, and good only while all are well, and both halves there. */
static json_t *local_health_of_all(const struct local_state *s, unsigned *status) {
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	assert(out);
	for (unsigned i = 0; i < s->n_total; i++) {
		const struct snapshot_row *row = &s->snap->rows[i];
		if (row->primary == i && !snapshot_is_routable(s->snap, i))
			fprintf(out, "%s%s%s", ftell(out) ? ", " : "Unhealthy workers: ", half_of(row),
			    row->instance->spec.url.p);
	}
	fclose(out);
	*status = n || !is_able(s) ? 503 : 200;
	json_t *json = text_json(n ? (struct slice){ text, n }
		: !s->n_total      ? SLICE("No workers")
		: is_able(s)       ? SLICE("OK")
				   : SLICE("No pair of a prefill and a decode worker"));
	free(text);
	return json;
}

static json_t *local_health(const struct local_state *s, unsigned *status) {
	if (s->worker->settings->config->dialect == ROUTER_VLLM &&
	    slice_eq(head_path(s->request), SLICE("/health")))
		return local_health_of_all(s, status);
	char count[32];
	snprintf(count, sizeof(count), "%u/%u", s->n_routable, s->n_total);
	return json_pack("{s:s, s:s, s:s, s:o, s:s?, s:o}", "status", is_able(s) ? "healthy" : "running",
	    "router", "running", "healthy_services", count, "registry_url", registry_url(s), "message",
	    is_able(s) ? NULL : "No healthy services available", "timestamp", now_seconds());
}

static json_t *local_liveness(const struct local_state *s, unsigned *status) {
	return json_pack("{s:s}", "status", "alive");
}

static json_t *local_readiness(const struct local_state *s, unsigned *status) {
	bool draining = atomic_load_explicit(&s->worker->router->is_draining, memory_order_relaxed);
	if (is_able(s) && !draining)
		return json_pack("{s:s, s:i, s:i}", "status", "ready", "healthy_workers", (int)s->n_routable,
		    "total_workers", (int)s->n_total);
	*status = 503;
	return json_pack("{s:s, s:s, s:i}", "status", "not_ready", "reason",
	    draining            ? "the router is being stopped"
		: s->n_routable ? "no pair of a prefill and a decode instance is available"
				: "no instance is available",
	    "total_workers", (int)s->n_total);
}

/* --- services ----------------------------------------------------------------- */

/* What the registry has of it, or the labels. */
static json_t *service_metadata(const struct snapshot_row *row) {
	json_t *metadata = row->metadata.n ? json_loadb(row->metadata.p, row->metadata.n, 0, NULL) : NULL;
	return metadata ? metadata : pairs_json(row->labels);
}

/* The port next to the engine's is the babysitter's, where there is one. */
static json_t *service_sitter(const struct snapshot_row *row) {
	const struct instance_spec *spec = &row->instance->spec;
	char url[TEXT_URL_BYTES];
	if (row->source != SOURCE_REGISTRY || spec->port == UINT16_MAX)
		return json_null();
	(spec->is_tls ? text_print_tls_url : text_print_url)(
	    url, sizeof(url), spec->host.p, (uint16_t)(spec->port + 1));
	return json_string(url);
}

/* Since it came; what the slot had counted before was another's. */
static void service_count(const struct router *router, const struct instance *inst, json_t *info) {
	uint64_t n_requests = 0, n_errors = 0;
	for (unsigned w = 0; w < router->n_workers; w++) {
		n_requests += metric_read(&router->workers[w].tallies[inst->slot].n_requests);
		n_errors += metric_read(&router->workers[w].tallies[inst->slot].n_errors);
	}
	n_requests -= metric_read(&inst->n_requests_before);
	n_errors -= metric_read(&inst->n_errors_before);
	json_object_set_new(info, "request_count", json_integer((json_int_t)n_requests));
	json_object_set_new(info, "error_count", json_integer((json_int_t)n_errors));
	json_object_set_new(
	    info, "in_flight", json_integer((json_int_t)load_requests(router->load, inst->slot)));
}

/* Who wrote 3 reads 3. */
static json_t *service_weight(const struct snapshot_row *row) {
	if (row->weight % INSTANCE_WEIGHT_ONE)
		return json_real((double)row->weight / INSTANCE_WEIGHT_ONE);
	return json_integer(row->weight / INSTANCE_WEIGHT_ONE);
}

static json_t *service_info(const struct local_state *s, uint32_t row_index) {
	const struct snapshot_row *row = &s->snap->rows[row_index];
	const struct instance *inst = row->instance;
	struct breaker_view breaker = breaker_peek(&inst->breaker, loop_now_ms(&s->worker->loop));
	json_t *info = json_pack("{s:o, s:o, s:i, s:o, s:o, s:b, s:s, s:s, s:f, s:o, s:o, s:o}", "name",
	    text_json(inst->spec.name), "host", text_json(inst->spec.host), "port", (int)inst->spec.port,
	    "url", text_json(inst->spec.url), "babysitter_url", service_sitter(row), "healthy",
	    snapshot_is_routable(s->snap, row_index), "status", instance_state_text(row->state), "breaker",
	    breaker_state_text(breaker.state), "response_time", (double)metric_read(&inst->response_us) / 1e6,
	    "weight", service_weight(row), "models", pairs_json_keys(row->models), "metadata",
	    service_metadata(row));
	if (inst->spec.has_rank)
		json_object_set_new(info, "rank", json_integer(inst->spec.rank));
	service_count(s->worker->router, inst, info);
	return info;
}

static json_t *services_array(const struct local_state *s) {
	json_t *array = json_array();
	for (unsigned i = 0; i < s->snap->n_rows; i++)
		json_array_append_new(array, service_info(s, i));
	return array;
}

static json_t *local_services(const struct local_state *s, unsigned *status) {
	return json_pack("{s:o, s:i, s:o}", "services", services_array(s), "total", (int)s->n_total,
	    "registry_url", registry_url(s));
}

static json_t *local_stats(const struct local_state *s, unsigned *status) {
	return json_pack("{s:i, s:i, s:o, s:o}", "total_services", (int)s->n_total, "healthy_services",
	    (int)s->n_routable, "registry_url", registry_url(s), "services", services_array(s));
}

/* --- sessions -------------------------------------------------------------------- */

#define SESSION_TEXT_MAX 256u

static int hex_digit(char c) {
	return c >= '0' && c <= '9'                          ? c - '0'
	    : ascii_lower(c) >= 'a' && ascii_lower(c) <= 'f' ? ascii_lower(c) - 'a' + 10
							     : -1;
}

/* Percent-decoded; empty when it is longer than `room`, or badly encoded. */
static struct slice decode(struct slice value, char room[SESSION_TEXT_MAX]) {
	size_t n = 0;

	for (size_t i = 0; i < value.n; i++, n++) {
		bool is_coded = value.p[i] == '%';
		int high = is_coded && i + 2 < value.n ? hex_digit(value.p[i + 1]) : -1;
		int low = high >= 0 ? hex_digit(value.p[i + 2]) : -1;

		if (n == SESSION_TEXT_MAX || (is_coded && low < 0))
			return (struct slice){ room, 0 };
		room[n] = is_coded ? (char)(high << 4 | low) : value.p[i];
		i += is_coded ? 2 : 0;
	}
	return (struct slice){ room, n };
}

/* The value of session_id in the query, as it stands there. */
static struct slice query_session(const struct head *request) {
	static const struct slice name = { "session_id=", 11 };
	struct slice rest = slice_skip(head_target(request), head_path(request).n);

	while (rest.n > 1) {
		rest = slice_skip(rest, 1); /* '?' or '&' */
		const char *end = memchr(rest.p, '&', rest.n);
		size_t n = end ? (size_t)(end - rest.p) : rest.n;

		if (n >= name.n && memcmp(rest.p, name.p, name.n) == 0)
			return (struct slice){ rest.p + name.n, n - name.n };
		rest = slice_skip(rest, n);
	}
	return (struct slice){ rest.p, 0 };
}

/* Whichever model it was of: a session's hash is salted with that, and with whose it is. */
static bool end_session(const struct local_state *s, struct slice text, struct slice model) {
	struct session_table *sessions = s->worker->router->sessions;
	uint64_t key = worker_session_key(s->tenant, text, model);

	return key && sessions && session_table_end(sessions, key);
}

static json_t *local_finish_session(const struct local_state *s, unsigned *status) {
	char room[SESSION_TEXT_MAX];
	struct slice text = decode(query_session(s->request), room);
	bool is_ended;

	if (!worker_session_key(s->tenant, text, (struct slice){ NULL, 0 })) {
		*status = 400;
		return json_pack("{s:s, s:s}", "error", "session_id is missing, or no text of 1 to 256 bytes",
		    "code", "bad_request");
	}
	is_ended = end_session(s, text, (struct slice){ NULL, 0 });
	for (unsigned i = 0; i < s->snap->n_models; i++)
		is_ended |= end_session(s, text, s->snap->models[i].name);
	return json_pack("{s:s, s:b}", "status", "ok", "ended", is_ended);
}

/* --- the table ------------------------------------------------------------------ */

static const struct {
	struct slice path;
	local_fn make;
	bool is_post; /* else GET and HEAD */
} endpoints[] = {
	{ { "/v1/models", 10 }, local_models, false },
	{ { "/models", 7 }, local_models, false },
	{ { "/health", 7 }, local_health, false },
	{ { "/status", 7 }, local_health, false },
	{ { "/liveness", 9 }, local_liveness, false },
	{ { "/readiness", 10 }, local_readiness, false },
	{ { "/services", 9 }, local_services, false },
	{ { "/stats", 6 }, local_stats, false },
	{ { "/finish_session", 15 }, local_finish_session, true },
};

static local_fn local_find(const struct head *request) {
	bool is_post = request->method == METHOD_POST;
	if (!is_post && request->method != METHOD_GET && request->method != METHOD_HEAD)
		return NULL;
	struct slice path = head_path(request);
	for (size_t i = 0; i < n_elems(endpoints); i++)
		if (endpoints[i].is_post == is_post && slice_eq(path, endpoints[i].path))
			return endpoints[i].make;
	return NULL;
}

bool local_is_ours(const struct head *request) {
	return local_find(request) != NULL;
}

bool local_is_open(const struct head *request) {
	local_fn make = local_find(request);
	return make == local_health || make == local_liveness || make == local_readiness;
}

static void count_routable(struct local_state *s) {
	for (unsigned i = 0; i < s->snap->n_rows; i++) {
		if (!snapshot_is_routable(s->snap, i))
			continue;
		struct slice role = pairs_value(s->snap->rows[i].labels, SLICE("role"));
		s->n_routable++;
		s->n_prefill += slice_eq(role, SLICE("prefill"));
		s->n_decode += slice_eq(role, SLICE("decode"));
	}
}

int local_answer(const struct local_question *q, struct call *call, struct reply *reply) {
	struct local_state s = { .worker = q->worker,
		.request = q->request,
		.snap = q->snap,
		.tenant = q->tenant,
		.n_total = q->snap->n_rows };
	count_routable(&s);

	reply->status = 200;
	json_t *document = local_find(q->request)(&s, &reply->status);
	bool is_text = json_is_string(document);
	char *text = is_text ? strdup(json_string_value(document)) : json_dumps(document, JSON_COMPACT);
	assert(text);
	json_decref(document);
	reply->content_type = is_text ? SLICE("text/plain; charset=utf-8") : SLICE("application/json");
	reply->body = slice_of(text);
	int r = reply_send(call, reply);
	free(text);
	return r;
}
