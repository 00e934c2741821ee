#include "router/fleet_view.h"

#include <stdlib.h>

#include "base/decimal.h"
#include "base/digest.h"
#include "router/leavers.h"
#include "router/pairs_json.h"

#define JOB_REMOVE "RemoveWorker"

/* --- ids ------------------------------------------------------------------------------------- */

void fleet_view_id(struct slice url, char id_out[static FLEET_VIEW_ID_BYTES]) {
	struct digester *digester = digester_new();
	uint8_t d[DIGEST_BYTES];
	size_t n = 0;

	digester_sha256(digester, url, d);
	digester_free(&digester);
	d[6] = (uint8_t)((d[6] & 0x0f) | 0x80); /* RFC 9562 section 5.8: a form of one's own */
	d[8] = (uint8_t)((d[8] & 0x3f) | 0x80);
	for (size_t i = 0; i < 16; i++)
		n += (size_t)snprintf(id_out + n, FLEET_VIEW_ID_BYTES - n,
		    i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", d[i]);
}

static bool is_its_name(struct slice url, struct slice id_or_url) {
	char id[FLEET_VIEW_ID_BYTES];

	if (slice_eq(url, id_or_url))
		return true;
	if (id_or_url.n != FLEET_VIEW_ID_BYTES - 1)
		return false;
	fleet_view_id(url, id);
	return slice_is(id_or_url, slice_of(id));
}

bool fleet_view_is_meant(struct slice url, struct slice id_or_url) {
	return is_its_name(url, id_or_url) || is_its_name(recruit_base(url), id_or_url);
}

/* --- one worker -------------------------------------------------------------------------------- */

static struct slice label_in(struct pairs labels, const char *name) {
	for (uint32_t i = 0; i < labels.n; i++)
		if (slice_eq(labels.items[i].key, slice_of(name)))
			return labels.items[i].value;
	return (struct slice){ NULL, 0 };
}

struct slice fleet_view_type(struct pairs labels) {
	struct slice role = label_in(labels, "role");
	bool is_half = slice_eq(role, SLICE("prefill")) || slice_eq(role, SLICE("decode"));

	return is_half ? role : SLICE("regular");
}

static double number_in(struct pairs labels, const char *name, double max, double otherwise) {
	double value;

	return decimal_parse(label_in(labels, name), max, &value) ? value : otherwise;
}

/* What both kinds have: what its source says of it. */
static json_t *described(struct slice url, struct pairs models, struct pairs labels) {
	char id[FLEET_VIEW_ID_BYTES];
	double port = number_in(labels, "bootstrap_port", UINT16_MAX, 0);
	struct slice policy = label_in(labels, "policy");

	fleet_view_id(url, id);
	json_t *json = json_pack("{s:s, s:o, s:o, s:o, s:o, s:s, s:I, s:f, s:o, s:o}", "id", id, "url",
	    text_json(url), "model_id", text_json(models.n ? models.items[0].key : SLICE("unknown")),
	    "models", pairs_json_keys(models), "worker_type", text_json(fleet_view_type(labels)),
	    "connection_mode", "http", "priority",
	    (json_int_t)number_in(labels, "priority", TRAITS_PRIORITY_MAX, TRAITS_PRIORITY), "cost",
	    number_in(labels, "cost", TRAITS_COST_MAX, TRAITS_COST), "labels", pairs_json(labels), "metadata",
	    pairs_json(labels));
	if (port > 0)
		json_object_set_new(json, "bootstrap_port", json_integer((json_int_t)port));
	if (policy.n)
		json_object_set_new(json, "policy", text_json(policy));
	return json;
}

static void add_job(json_t *json, const struct recruits_row *row) {
	static const char *const kept[] = { "tokenizer_path", "reasoning_parser", "tool_parser" };
	json_t *job =
	    json_pack("{s:s, s:s}", "status", recruit_status_text(row->status), "job_type", "AddWorker");

	if (row->error[0])
		json_object_set_new(job, "error", json_string(row->error));
	json_object_set_new(json, "job_status", job);
	for (size_t i = 0; i < n_elems(kept); i++) {
		json_t *value = json_object_get(row->recruit->json, kept[i]);

		if (value)
			json_object_set(json, kept[i], value);
	}
}

/* It was removed, and requests are there. */
static void set_leaving(json_t *json, uint64_t n_requests) {
	json_object_set_new(json, "is_healthy", json_false());
	json_object_set_new(json, "state", json_string(instance_state_text(INSTANCE_DRAINING)));
	json_object_set_new(json, "load", json_integer((json_int_t)n_requests));
	json_object_set_new(
	    json, "job_status", json_pack("{s:s, s:s}", "status", "processing", "job_type", JOB_REMOVE));
}

/* Once for each url: two names of one address are two workers to who registered them, and one to routing. */
static bool is_shown(const struct snapshot *snap, uint32_t row) {
	struct slice url = snap->rows[row].instance->spec.url;

	for (uint32_t r = snap->rows[row].primary; r != row; r = snap->rows[r].next_peer)
		if (slice_eq(snap->rows[r].instance->spec.url, url))
			return false;
	return true;
}

/* How many ranks of its engine are known here. */
static unsigned n_ranks(const struct snapshot *snap, const struct snapshot_row *row) {
	unsigned n = 0;

	for (uint32_t i = row->first_rank; i != SNAPSHOT_NO_ROW; i = snap->rows[i].next_rank)
		n += is_shown(snap, i);
	return n;
}

static void add_rank(json_t *json, const struct snapshot *snap, const struct snapshot_row *row) {
	static const char *const both[] = { "labels", "metadata" };
	double said = number_in(row->labels, "dp_size", RANKS_MAX, 0);
	char rank[8], size[16];

	snprintf(rank, sizeof(rank), "%u", row->instance->spec.rank);
	snprintf(size, sizeof(size), "%u", said > 0 ? (unsigned)said : n_ranks(snap, row));
	for (size_t i = 0; i < n_elems(both); i++) {
		json_t *labels = json_object_get(json, both[i]);

		json_object_set_new(labels, "dp_rank", json_string(rank));
		json_object_set_new(labels, "dp_size", json_string(size));
	}
}

/* Requests go by the primary of its target. */
static json_t *of_row(const struct report *r, const struct snapshot_row *row) {
	const struct instance *inst = row->instance, *primary = r->snapshot->rows[row->primary].instance;
	struct recruits_row recruit;
	json_t *json = described(inst->spec.url, row->models, row->labels);

	json_object_set_new(
	    json, "is_healthy", json_boolean(snapshot_is_routable(r->snapshot, row->primary)));
	json_object_set_new(json, "state", json_string(instance_state_text(row->state)));
	json_object_set_new(json, "source", json_string(fleet_source_text(row->source)));
	json_object_set_new(
	    json, "load", json_integer((json_int_t)load_requests(r->router->load, primary->slot)));
	if (inst->spec.has_rank)
		add_rank(json, r->snapshot, row);
	if (recruits_find(r->recruits, inst->spec.url, &recruit))
		add_job(json, &recruit);
	return json;
}

static json_t *of_recruit(const struct recruits_row *row) {
	const struct fleet_spec *spec = &row->recruit->spec;
	json_t *json = described(spec->instance.url, spec->models, spec->labels);

	json_object_set_new(json, "is_healthy", json_false());
	json_object_set_new(json, "state", json_string(instance_state_text(INSTANCE_UNKNOWN)));
	json_object_set_new(json, "source", json_string(fleet_source_text(SOURCE_API)));
	json_object_set_new(json, "load", json_integer(0));
	add_job(json, row);
	return json;
}

/* --- all of them --------------------------------------------------------------------------------- */

/* Everybody who is meant, as a list. */
struct listing {
	const struct report *report;
	struct slice id_or_url;       /* empty: all */
	const struct recruit **shown; /* with a row; sorted */
	size_t n_shown;
	json_t *list;
};

static bool is_wanted(const struct listing *v, struct slice url) {
	return !v->id_or_url.n || fleet_view_is_meant(url, v->id_or_url);
}

static int recruit_cmp(const void *left, const void *right) {
	uintptr_t a = (uintptr_t) * (const struct recruit *const *)left,
		  b = (uintptr_t) * (const struct recruit *const *)right;

	return (a > b) - (a < b);
}

/* Whose rows are in the snapshot: of a rank its own, or its engine's. */
static void find_shown(struct listing *v) {
	const struct snapshot *snap = v->report->snapshot;
	struct recruits_row recruit;

	v->shown = malloc((snap->n_rows + 1) * sizeof(*v->shown));
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (recruits_find(v->report->recruits, snap->rows[i].instance->spec.url, &recruit))
			v->shown[v->n_shown++] = recruit.recruit;
	qsort(v->shown, v->n_shown, sizeof(*v->shown), recruit_cmp);
}

static void add_recruit(void *context, const struct recruits_row *row) {
	struct listing *v = context;

	if (is_wanted(v, row->recruit->spec.instance.url) &&
	    !bsearch(&row->recruit, v->shown, v->n_shown, sizeof(*v->shown), recruit_cmp))
		json_array_append_new(v->list, of_recruit(row));
}

static bool has_url(const json_t *list, const json_t *url) {
	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_equal(json_object_get(json_array_get(list, i), "url"), url))
			return true;
	return false;
}

/* Unless somebody else has its url by now. */
static void add_leaver(void *context, const json_t *worker, uint64_t n_requests) {
	struct listing *v = context;
	const json_t *url = json_object_get(worker, "url");

	if (!is_wanted(v, slice_of(json_string_value(url))) || has_url(v->list, url))
		return;
	json_t *json = json_deep_copy(worker);
	set_leaving(json, n_requests);
	json_array_append_new(v->list, json);
}

static uint64_t now_of(const struct report *report) {
	return loop_now_ms(report->router->petitions.loop);
}

static json_t *list_of(const struct report *report, struct slice id_or_url) {
	const struct snapshot *snap = report->snapshot;
	struct listing v = { .report = report, .id_or_url = id_or_url, .list = json_array() };

	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (is_shown(snap, i) && is_wanted(&v, snap->rows[i].instance->spec.url))
			json_array_append_new(v.list, of_row(report, &snap->rows[i]));
	find_shown(&v);
	recruits_each(report->recruits, add_recruit, &v);
	leavers_each(report->leavers, now_of(report), add_leaver, &v);
	free(v.shown);
	return v.list;
}

static json_int_t count_type(const json_t *list, const char *type) {
	json_int_t n = 0;

	for (size_t i = 0; i < json_array_size(list); i++)
		n +=
		    !strcmp(json_string_value(json_object_get(json_array_get(list, i), "worker_type")), type);
	return n;
}

static json_t *stats_of(const struct report *report, const json_t *list) {
	json_int_t n_healthy = 0, load = 0;
	json_int_t n_regular = count_type(list, "regular"), n_prefill = count_type(list, "prefill"),
		   n_decode = count_type(list, "decode");

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *worker = json_array_get(list, i);

		n_healthy += json_is_true(json_object_get(worker, "is_healthy"));
		load += json_integer_value(json_object_get(worker, "load"));
	}
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I}}", "prefill_count", n_prefill,
	    "decode_count", n_decode, "regular_count", n_regular, "total_workers",
	    (json_int_t)json_array_size(list), "healthy_workers", n_healthy, "total_models",
	    (json_int_t)report->snapshot->n_models, "total_load", load, "by_type", "regular", n_regular,
	    "prefill", n_prefill, "decode", n_decode);
}

json_t *fleet_view_list(const struct report *report) {
	json_t *list = list_of(report, (struct slice){ NULL, 0 });

	return json_pack("{s:o, s:I, s:o}", "workers", list, "total", (json_int_t)json_array_size(list),
	    "stats", stats_of(report, list));
}

/* Of its ranks. */
static json_t *engine_of(const json_t *ranks) {
	json_t *json = json_deep_copy(json_array_get(ranks, 0));
	struct slice url = recruit_base(slice_of(json_string_value(json_object_get(json, "url"))));
	char id[FLEET_VIEW_ID_BYTES];
	json_int_t load = 0;
	bool is_healthy = true;

	for (size_t i = 0; i < json_array_size(ranks); i++) {
		const json_t *rank = json_array_get(ranks, i);

		load += json_integer_value(json_object_get(rank, "load"));
		is_healthy &= json_is_true(json_object_get(rank, "is_healthy"));
	}
	fleet_view_id(url, id);
	json_object_set_new(json, "id", json_string(id));
	json_object_set_new(json, "url", text_json(url));
	json_object_set_new(json, "load", json_integer(load));
	json_object_set_new(json, "is_healthy", json_boolean(is_healthy));
	json_object_del(json_object_get(json, "labels"), "dp_rank");
	json_object_del(json_object_get(json, "metadata"), "dp_rank");
	return json;
}

json_t *fleet_view_one(const struct report *report, struct slice id_or_url) {
	json_t *list = list_of(report, id_or_url), *first = json_array_get(list, 0);
	struct slice url = slice_of(json_string_value(json_object_get(first, "url")));

	json_t *one = first && !is_its_name(url, id_or_url) ? engine_of(list) : json_incref(first);
	json_decref(list);
	return one;
}

void fleet_view_leave(const struct report *report, const struct snapshot_row *row) {
	uint64_t now_ms = now_of(report), drain_ms = report->router->settings->config->timeout.drain_ms;

	leavers_add(report->leavers, row->instance, of_row(report, row), now_ms + drain_ms, now_ms);
}

json_t *fleet_view_leaver(const struct report *report, struct slice id_or_url) {
	json_t *worker = fleet_view_one(report, id_or_url);
	const char *type =
	    json_string_value(json_object_get(json_object_get(worker, "job_status"), "job_type"));

	if (type && !strcmp(type, JOB_REMOVE) && json_integer_value(json_object_get(worker, "load")))
		return worker;
	json_decref(worker);
	return NULL;
}

json_t *fleet_view_urls(const struct report *report) {
	const struct snapshot *snap = report->snapshot;
	json_t *urls = json_array();

	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (is_shown(snap, i))
			json_array_append_new(urls, text_json(snap->rows[i].instance->spec.url));
	return json_pack("{s:o}", "urls", urls);
}

/* That of its target, whose primary alone gets requests and is asked for figures. */
static json_t *load_of(const struct report *r, const struct snapshot_row *row) {
	const struct instance *primary = r->snapshot->rows[row->primary].instance;
	json_int_t in_flight = (json_int_t)load_requests(r->router->load, primary->slot);
	double running, waiting;
	bool is_said = scraper_figure(r->scraper, primary, FIGURE_RUNNING, &running) &&
	    scraper_figure(r->scraper, primary, FIGURE_WAITING, &waiting);

	return json_pack("{s:o, s:I, s:I, s:o, s:o}", "worker", text_json(row->instance->spec.url), "load",
	    is_said ? (json_int_t)(running + waiting) : in_flight, "in_flight", in_flight, "running",
	    is_said ? json_integer((json_int_t)running) : json_null(), "waiting",
	    is_said ? json_integer((json_int_t)waiting) : json_null());
}

json_t *fleet_view_loads(const struct report *report) {
	const struct snapshot *snap = report->snapshot;
	json_t *workers = json_array();

	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (is_shown(snap, i))
			json_array_append_new(workers, load_of(report, &snap->rows[i]));
	return json_pack("{s:o}", "workers", workers);
}

const struct snapshot_row *fleet_view_healthy(const struct snapshot *snapshot, struct slice type) {
	for (uint32_t i = 0; i < snapshot->n_rows; i++) {
		const struct snapshot_row *row = &snapshot->rows[i];

		if (row->primary == i && !row->instance->spec.is_provider &&
		    slice_eq(fleet_view_type(row->labels), type) && snapshot_is_routable(snapshot, i))
			return row;
	}
	return NULL;
}
