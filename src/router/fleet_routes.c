#include "router/fleet_routes.h"

#include <stdlib.h>

#include "base/percent.h"
#include "base/utf8.h"
#include "router/engine_info.h"
#include "router/fleet_view.h"
#include "router/flush.h"
#include "router/pairs_json.h"

#define CODE_ADD       "ADD_WORKER_FAILED"
#define CODE_REMOVE    "REMOVE_WORKER_FAILED"
#define CODE_UPDATE    "UPDATE_WORKER_FAILED"
#define CODE_NOT_FOUND "WORKER_NOT_FOUND"

#define QUOTED_BYTES_MAX 300u

static struct report *report_of(const struct petition *p) {
	return p->petitions->context;
}

/* --- whom a path or a query names ------------------------------------------------------------- */

/* An id, or a url in its one form. */
struct meant {
	char *text;
	struct slice is;
	char url[RECRUIT_URL_BYTES];
};

/* Takes the text. */
static void meant_init(struct meant *m, char *text) {
	m->text = text;
	m->is = slice_of(text);
	if (recruit_url(m->is, m->url))
		m->is = slice_of(m->url);
}

/* Behind "/workers/": encoded or not. */
static void meant_by_path(struct meant *m, const struct petition *p) {
	struct slice raw = slice_skip(p->path, strlen("/workers/"));
	char *text = malloc(raw.n + 1);
	size_t n;

	if (!percent_decode(raw, false, text, &n)) {
		memcpy(text, raw.p, raw.n);
		n = raw.n;
	}
	text[n] = '\0';
	meant_init(m, text);
}

static void meant_deinit(struct meant *m) {
	free(m->text);
}

/* A sentence about somebody; the caller frees it. */
static char *sentence(const char *before, struct slice who, const char *after) {
	struct slice quoted = utf8_head(who, QUOTED_BYTES_MAX);
	char *text = NULL;

	if (asprintf(&text, "%s%.*s%s", before, (int)quoted.n, quoted.p, after) < 0)
		abort();
	return text;
}

/* A text that may quote a path. */
static void set_sentence(struct petition *p, unsigned status, const char *code, const char *before,
    struct slice who, const char *after) {
	json_t *quoted = text_json(who);
	char *text = sentence(before, slice_of(json_string_value(quoted)), after);

	if (!code)
		petition_set_text(p, status, slice_of(text));
	else if (status < 300)
		petition_set_json(p, status, json_pack("{s:b, s:s}", "success", true, "message", text));
	else
		petition_set_error(p, status, code, text);
	free(text);
	json_decref(quoted);
}

/* --- they come -------------------------------------------------------------------------------- */

static const struct {
	unsigned status;
	const char *text;
} outcomes[] = {
	[RECRUITS_E_FULL] = { 503, "there are too many workers" },
	[RECRUITS_E_LIMIT] = { 422, "the worker is beyond a limit of the fleet" },
	[RECRUITS_E_WHOLE] = { 409, "its engine is registered with all of its ranks" },
};

/* A job is under way: takes the worker. */
static void set_accepted(struct petition *p, json_t *worker, const char *message) {
	const char *id = json_string_value(json_object_get(worker, "id"));
	char location[FLEET_VIEW_ID_BYTES + 16];

	assert(id);
	snprintf(location, sizeof(location), "/workers/%s", id);
	petition_set_json(p, 202,
	    json_pack("{s:s, s:s, s:s, s:s, s:b, s:s, s:o}", "status", "accepted", "worker_id", id, "job_id",
		id, "location", location, "success", true, "message", message, "worker", worker));
}

static void accepted(struct petition *p, struct slice url) {
	struct report *r = report_of(p);

	set_accepted(p, fleet_view_one(r, url), "the worker is registered when it is well");
	recruits_answer(r->recruits, p);
}

/* What is well-formed and not taken all the same has a reason of its own. */
static const char *body_mistake(const json_error_t *error) {
	switch (json_error_code(error)) {
	case json_error_duplicate_key:
		return "the request body has a member twice";
	case json_error_numeric_overflow:
		return "the request body has a number that is too large";
	case json_error_null_character:
	case json_error_null_byte_in_key:
		return "the request body has a text with \\u0000 in it";
	case json_error_stack_overflow:
		return "the request body is nested too deeply";
	default:
		return "the request body is not valid JSON";
	}
}

/* NULL, and a sentence that says what is wrong. */
static json_t *body_of(const struct petition *p, const char **why_out) {
	json_error_t error;
	json_t *body = json_loadb(p->body, p->body_bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);

	*why_out = body ? NULL : body_mistake(&error);
	return body;
}

static bool is_registered(const struct recruits *recruits, struct slice url) {
	struct recruits_row row;

	return recruits_find(recruits, url, &row) && row.status != RECRUIT_FAILED &&
	    slice_eq(row.recruit->spec.instance.url, url);
}

static void post_worker(struct petition *p) {
	const char *why;
	json_t *body = body_of(p, &why);
	struct recruit *recruit = body ? recruit_new(body, &why) : NULL;
	char url[RECRUIT_URL_BYTES], scratch[RECRUIT_URL_BYTES];
	bool has_url = recruit_url(slice_of(json_string_value(json_object_get(body, "url"))), scratch);

	json_decref(body);
	if (!recruit) {
		petition_answer_error(p, has_url ? 422 : 400, CODE_ADD, why);
		return;
	}
	snprintf(url, sizeof(url), "%s", recruit->url);
	if (is_registered(report_of(p)->recruits, slice_of(url))) {
		recruit_free(&recruit);
		petition_answer_error(p, 400, CODE_ADD, "it is there already: PUT changes it");
		return;
	}
	int outcome = recruits_put(report_of(p)->recruits, &recruit);
	if (outcome)
		petition_answer_error(p, outcomes[outcome].status, CODE_ADD, outcomes[outcome].text);
	else
		accepted(p, slice_of(url));
}

void fleet_routes_added(struct petition *p, const char *url, const char *error) {
	if (error) {
		char *text = sentence("Failed to add worker ", slice_of(url), ": ");

		set_sentence(p, 400, NULL, text, slice_of(error), "");
		free(text);
	} else {
		set_sentence(p, 200, NULL, "Successfully added worker: ", slice_of(url), "");
	}
	recruits_answer(report_of(p)->recruits, p);
}

static bool is_there(const struct report *r, struct slice url) {
	struct recruits_row row;

	for (uint32_t i = 0; i < r->snapshot->n_rows; i++)
		if (fleet_view_is_meant(r->snapshot->rows[i].instance->spec.url, url))
			return true;
	return recruits_find(r->recruits, url, &row) && row.status != RECRUIT_FAILED;
}

/* What the query says, as if it were a body. */
static struct recruit *recruit_of_query(const struct petition *p, const char **why_out) {
	char *url = petition_query(p, "url"), *key = petition_query(p, "api_key");
	json_t *body = json_object();

	if (url)
		json_object_set_new(body, "url", text_json(slice_of(url)));
	if (key)
		json_object_set_new(body, "api_key", text_json(slice_of(key)));
	struct recruit *recruit = recruit_new(body, why_out);
	json_decref(body);
	free(url);
	free(key);
	return recruit;
}

static void add_worker(struct petition *p) {
	struct report *r = report_of(p);
	const char *why;
	struct recruit *recruit = recruit_of_query(p, &why);
	char url[RECRUIT_URL_BYTES];

	if (!recruit) {
		set_sentence(p, 400, NULL, "Failed to add worker: ", slice_of(why), "");
		petition_release(p);
		return;
	}
	snprintf(url, sizeof(url), "%s", recruit->url);
	bool is_known = is_there(r, slice_of(url));
	if (is_known || !recruits_can_wait(r->recruits)) {
		recruit_free(&recruit);
		fleet_routes_added(
		    p, url, is_known ? "it is there already" : "too many calls wait for workers");
		return;
	}
	int outcome = recruits_put(r->recruits, &recruit);
	if (outcome)
		fleet_routes_added(p, url, outcomes[outcome].text);
	else
		recruits_wait(r->recruits, slice_of(url), p);
}

/* --- who of them is meant --------------------------------------------------------------------- */

struct search {
	struct slice id_or_url;
	json_t *urls;
};

static void note_recruit(void *context, const struct recruits_row *row) {
	struct search *s = context;
	struct slice url = row->recruit->spec.instance.url;

	if (fleet_view_is_meant(url, s->id_or_url))
		json_array_append_new(s->urls, text_json(url));
}

/* Their urls: of an engine, those of its ranks. A new reference. */
static json_t *recruits_meant(const struct recruits *recruits, struct slice id_or_url) {
	struct search s = { id_or_url, json_array() };

	recruits_each(recruits, note_recruit, &s);
	return s.urls;
}

static struct slice url_in(const json_t *urls, size_t i) {
	return slice_of(json_string_value(json_array_get(urls, i)));
}

/* --- they go ---------------------------------------------------------------------------------- */

struct removal {
	struct report *report;
	struct slice id_or_url;
	unsigned n_recruits, n_static;
	const char *why_not; /* of those that are meant and stay */
};

static void remove_recruits(struct removal *removal) {
	struct recruits *recruits = removal->report->recruits;
	json_t *urls = recruits_meant(recruits, removal->id_or_url);

	for (size_t i = 0; i < json_array_size(urls); i++)
		removal->n_recruits += !recruits_remove(recruits, url_in(urls, i));
	json_decref(urls);
}

static const char is_rank[] = " is a rank of an engine: that is removed as a whole, or the rank drained";

/* Until the configuration is read again. */
static void remove_static(struct removal *removal, const struct instance_spec *spec) {
	struct fleet *fleet = removal->report->fleet;
	struct slice engine;
	uint16_t rank;

	if (!fleet_remove(fleet, SOURCE_STATIC, spec->name))
		removal->n_static++;
	else if (!fleet_view_is_meant(recruit_base(spec->url), removal->id_or_url))
		removal->why_not = is_rank;
	else if (rank_split(spec->name, &engine, &rank))
		removal->n_static += !fleet_remove(fleet, SOURCE_STATIC, engine);
}

static void remove_rows(struct removal *removal) {
	const struct snapshot *snap = removal->report->snapshot;
	struct recruits_row whole;

	for (uint32_t i = 0; i < snap->n_rows; i++) {
		const struct instance_spec *spec = &snap->rows[i].instance->spec;

		if (!fleet_view_is_meant(spec->url, removal->id_or_url))
			continue;
		if (snap->rows[i].source == SOURCE_STATIC)
			remove_static(removal, spec);
		else if (snap->rows[i].source != SOURCE_API)
			removal->why_not = " stands in a registry: it is removed there, or drained here";
		else if (recruits_find(removal->report->recruits, spec->url, &whole))
			removal->why_not = is_rank;
	}
}

/* Of those that are meant: whose records are gone. */
static void show_leavers(const struct removal *removal) {
	const struct report *r = removal->report;
	enum instance_state state;

	for (uint32_t i = 0; i < r->snapshot->n_rows; i++) {
		const struct snapshot_row *row = &r->snapshot->rows[i];

		if (fleet_view_is_meant(row->instance->spec.url, removal->id_or_url) &&
		    !fleet_state(r->fleet, row->instance, &state))
			fleet_view_leave(r, row);
	}
}

/* Answers in JSON, with a code, or in text. */
static void remove_meant(struct petition *p, const struct meant *m, bool is_text) {
	struct report *r = report_of(p);
	struct removal removal = { .report = r, .id_or_url = m->is };
	const char *code = is_text ? NULL : CODE_REMOVE;

	remove_rows(&removal);
	remove_recruits(&removal);
	bool is_removed = removal.n_static || removal.n_recruits;
	if (is_removed) {
		show_leavers(&removal);
		r->on_wish(r);
	}
	json_t *leaver = fleet_view_leaver(r, m->is);
	if (leaver && !is_text)
		set_accepted(p, json_incref(leaver), "the worker is gone when its requests have ended");
	else if (leaver || is_removed)
		set_sentence(p, 200, code, "Successfully removed worker: ", m->is, "");
	else if (removal.why_not)
		set_sentence(p, is_text ? 200 : 409, code, "Worker ", m->is, removal.why_not);
	else
		set_sentence(p, is_text ? 200 : 404, is_text ? NULL : CODE_NOT_FOUND, "Worker ", m->is,
		    " is not there");
	json_decref(leaver);
	recruits_answer(r->recruits, p);
}

static void delete_worker(struct petition *p) {
	struct meant m;

	meant_by_path(&m, p);
	remove_meant(p, &m, false);
	meant_deinit(&m);
}

static void remove_worker(struct petition *p) {
	char *url = petition_query(p, "url");
	struct meant m;

	if (!url) {
		petition_answer_text(p, 400, SLICE("Failed to remove worker: url is missing"));
		return;
	}
	meant_init(&m, url);
	remove_meant(p, &m, true);
	meant_deinit(&m);
}

/* --- they change -------------------------------------------------------------------------------- */

static bool has_failed(const struct recruits *recruits, struct slice url) {
	struct recruits_row row;

	return recruits_find(recruits, url, &row) && row.status == RECRUIT_FAILED;
}

/* Those who are meant. Who failed is put again, an engine in place of its ranks, when nobody else is meant. A
 * new reference. */
static json_t *recruits_to_change(const struct recruits *recruits, struct slice id_or_url) {
	json_t *urls = recruits_meant(recruits, id_or_url), *others = json_array();

	for (size_t i = 0; i < json_array_size(urls); i++)
		if (!has_failed(recruits, url_in(urls, i)))
			json_array_append(others, json_array_get(urls, i));
	if (json_array_size(others)) {
		json_decref(urls);
		return others;
	}
	json_decref(others);
	return urls;
}

/* One of them. True: it is answered, with what is wrong. */
static bool change(struct petition *p, struct slice url, const json_t *body) {
	struct recruits *recruits = report_of(p)->recruits;
	struct recruits_row row;
	const char *why;
	bool is_there = recruits_find(recruits, url, &row);

	assert(is_there);
	struct recruit *changed = recruit_change(row.recruit, body, &why);
	if (!changed) {
		petition_answer_error(p, 422, CODE_UPDATE, why);
		return true;
	}
	int outcome = recruits_put(recruits, &changed);
	if (outcome)
		petition_answer_error(p, outcomes[outcome].status, CODE_UPDATE, outcomes[outcome].text);
	return outcome;
}

/* At least one. */
static void change_all(struct petition *p, const json_t *urls) {
	const char *why;
	json_t *body = body_of(p, &why);
	size_t n = json_array_size(urls);
	bool is_answered = false;

	if (!body) {
		petition_answer_error(p, 400, CODE_UPDATE, why);
		return;
	}
	for (size_t i = 0; i < n && !is_answered; i++)
		is_answered = change(p, url_in(urls, i), body);
	json_decref(body);
	if (!is_answered)
		accepted(p, n > 1 ? recruit_base(url_in(urls, 0)) : url_in(urls, 0));
}

static void put_worker(struct petition *p) {
	struct report *r = report_of(p);
	struct meant m;

	meant_by_path(&m, p);
	json_t *urls = recruits_to_change(r->recruits, m.is);
	json_t *other = json_array_size(urls) ? NULL : fleet_view_one(r, m.is);
	if (json_array_size(urls))
		change_all(p, urls);
	else if (other)
		petition_answer_error(
		    p, 409, CODE_UPDATE, "only workers that were registered here can be changed here");
	else
		petition_answer_error(p, 404, CODE_NOT_FOUND, "there is no such worker");
	json_decref(urls);
	json_decref(other);
	meant_deinit(&m);
}

/* --- they are shown ----------------------------------------------------------------------------- */

static void list_workers(struct petition *p) {
	petition_answer_json(p, 200, fleet_view_list(report_of(p)));
}

static void get_worker(struct petition *p) {
	struct meant m;

	meant_by_path(&m, p);
	json_t *worker = fleet_view_one(report_of(p), m.is);
	if (worker)
		petition_answer_json(p, 200, worker);
	else
		petition_answer_error(p, 404, CODE_NOT_FOUND, "there is no such worker");
	meant_deinit(&m);
}

static void list_urls(struct petition *p) {
	petition_answer_json(p, 200, fleet_view_urls(report_of(p)));
}

static void list_loads(struct petition *p) {
	petition_answer_json(p, 200, fleet_view_loads(report_of(p)));
}

/* --- the rest -------------------------------------------------------------------------------------- */

static void flush(struct petition *p) {
	flush_caches(report_of(p), p);
}

static void diagnose(struct petition *p) {
	petition_answer_json(
	    p, 404, json_pack("{s:b, s:s}", "enabled", false, "error", "program scheduling is not built"));
}

static void inform(struct petition *p) {
	engine_info_ask(report_of(p), p);
}

/* --- the table ------------------------------------------------------------------------------------- */

static const struct fleet_route {
	enum method method;
	struct slice path;
	bool takes_rest; /* something stands behind the path */
	enum petition_kind kind;
	void (*run)(struct petition *p);
} routes[] = {
	{ METHOD_POST, { "/workers", 8 }, false, PETITION_OF_OPERATOR, post_worker },
	{ METHOD_GET, { "/workers", 8 }, false, PETITION_OF_OPERATOR, list_workers },
	{ METHOD_GET, { "/workers/", 9 }, true, PETITION_OF_OPERATOR, get_worker },
	{ METHOD_PUT, { "/workers/", 9 }, true, PETITION_OF_OPERATOR, put_worker },
	{ METHOD_DELETE, { "/workers/", 9 }, true, PETITION_OF_OPERATOR, delete_worker },
	{ METHOD_POST, { "/add_worker", 11 }, false, PETITION_OF_OPERATOR, add_worker },
	{ METHOD_POST, { "/remove_worker", 14 }, false, PETITION_OF_OPERATOR, remove_worker },
	{ METHOD_GET, { "/list_workers", 13 }, false, PETITION_OF_OPERATOR, list_urls },
	{ METHOD_POST, { "/flush_cache", 12 }, false, PETITION_OF_OPERATOR, flush },
	{ METHOD_GET, { "/get_loads", 10 }, false, PETITION_OF_OPERATOR, list_loads },
	{ METHOD_GET, { "/get_load", 9 }, false, PETITION_OF_OPERATOR, list_loads },
	{ METHOD_GET, { "/load", 5 }, false, PETITION_OF_OPERATOR, list_loads },
	{ METHOD_GET, { "/scheduling/diagnostics", 23 }, false, PETITION_OF_OPERATOR, diagnose },
	{ METHOD_GET, { "/get_server_info", 16 }, false, PETITION_OF_CLIENT, inform },
	{ METHOD_GET, { "/get_model_info", 15 }, false, PETITION_OF_CLIENT, inform },
	{ METHOD_GET, { "/health_generate", 16 }, false, PETITION_OF_CLIENT, inform },
};

static const struct fleet_route *find(enum method method, struct slice path) {
	if (method == METHOD_HEAD)
		method = METHOD_GET;
	for (size_t i = 0; i < n_elems(routes); i++)
		if (routes[i].method == method &&
		    (routes[i].takes_rest
			    ? slice_has_prefix(path, routes[i].path) && path.n > routes[i].path.n
			    : slice_eq(path, routes[i].path)))
			return &routes[i];
	return NULL;
}

bool fleet_routes_find(const struct head *request, enum petition_kind *kind_out) {
	const struct fleet_route *route = find((enum method)request->method, head_path(request));

	if (route)
		*kind_out = route->kind;
	return route;
}

/* Another process has the fleet, or has read what it is to be: a change would be lost. */
static bool is_handed_on(const struct report *r) {
	return upgrade_is_running(r->upgrade) ||
	    atomic_load_explicit(&r->router->is_leaving, memory_order_relaxed);
}

void fleet_routes_run(struct petition *p) {
	const struct fleet_route *route = find(p->method, p->path);

	assert(route);
	if (p->method != METHOD_GET && is_handed_on(report_of(p)))
		petition_answer_error(p, 503, "upgrade_running",
		    "the router is being stopped, or replaced: ask again when it is");
	else
		route->run(p);
}

void fleet_routes_call(struct endpoint_call *call) {
	struct report *r = endpoint_context(call);

	petition_run(&r->router->petitions, call);
}
