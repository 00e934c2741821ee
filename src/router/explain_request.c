/*
 * POST /explain. The body is read as the data port reads one, on the control thread, a piece at a time;
 * after each worker 0 says whether an instance would be picked now. If so it explains, since its policies
 * have counters of their own as every worker's have; the rows come back with a reference on its snapshot.
 */
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/text.h"
#include "fleet/guard.h"
#include "fleet/label.h"
#include "policy/explain.h"
#include "router/decision_json.h"
#include "router/exchange.h"
#include "router/explain_ask.h"
#include "router/forward.h"
#include "router/inspect.h"
#include "router/own_field.h"
#include "router/rank_field.h"
#include "router/scan.h"

#define PATH_BYTES_MAX 512
#define MODEL_BYTES    257
#define PIECE_BYTES    65536u

/* The data port's and nobody else's business: its own framing, its credentials. */
static bool is_of_the_request(const struct field *f) {
	switch ((enum field_id)f->id) {
	case FIELD_HOST:
	case FIELD_CONTENT_LENGTH:
	case FIELD_CONTENT_TYPE:
	case FIELD_EXPECT:
	case FIELD_AUTHORIZATION:
	case FIELD_COOKIE:
		return false;
	default:
		return !head_is_hop_field(f);
	}
}

struct query {
	struct explain_ask ask;
	struct mail mail;
	struct worker *worker;
	struct inspect inspect;
	size_t n_read, n_body;      /* bytes of the body */
	enum reply_dialect dialect; /* that the request would be answered in */
	uint64_t seed;              /* of the id, if the client gave one */
	struct rank_wish rank;      /* that counts */
	struct demand demand;
	struct settings *settings;   /* it would go by */
	const struct tenant *tenant; /* of them: whose request it would be */
	/* the worker's answer */
	enum cause cause; /* of no explanation */
	uint32_t label;   /* of the model */
	struct snapshot *snapshot;
	struct explanation e;
};

/* --- the answer --------------------------------------------------------------------------- */

static json_t *codes_json(uint32_t codes) {
	json_t *list = json_array();

	for (unsigned code = 1; code < FILTER_CODES; code++)
		if (codes & 1u << code)
			json_array_append_new(list, json_string(filter_text((enum filter_code)code)));
	return list;
}

/* The same with what they go by, and in words. */
static json_t *why_json(const struct explain_row *row) {
	json_t *list = json_array();

	for (unsigned code = 1; code < FILTER_CODES; code++) {
		if (!(row->codes & 1u << code))
			continue;
		json_t *json = json_object();

		decision_json_rejection(json, (enum filter_code)code, &row->details[code]);
		json_array_append_new(list, json);
	}
	return list;
}

static json_t *load_json(const struct load_sum *load) {
	return json_pack("{s:I, s:I, s:I, s:I}", "requests", (json_int_t)load->n_requests, "prefills",
	    (json_int_t)load->n_prefills, "prefill_tokens", (json_int_t)load->prefill_tokens, "decode_tokens",
	    (json_int_t)load->decode_tokens);
}

static json_t *breaker_json(const struct instance *inst) {
	struct breaker_view view = breaker_peek(&inst->breaker, clock_now_ns() / 1000000u);

	return json_string(breaker_state_text(view.state));
}

static json_t *row_json(const struct query *q, uint32_t i) {
	const struct explain_row *row = &q->e.rows[i];
	bool is_eligible = i < q->e.n_eligible;
	json_t *json = json_object();

	json_object_set_new(json, "instance", decision_json_text(row->instance->spec.name));
	json_object_set_new(json, "serial", json_integer(row->instance->serial));
	json_object_set_new(
	    json, "state", json_string(instance_state_text(q->snapshot->rows[row->row].state)));
	json_object_set_new(json, "breaker", breaker_json(row->instance));
	json_object_set_new(json, "eligible", json_boolean(is_eligible));
	json_object_set_new(json, "codes", codes_json(row->codes));
	json_object_set_new(json, "rejections", why_json(row));
	decision_json_score(json, q->e.scorer, &row->score);
	json_object_set_new(json, "gap", decision_json_gap(q->e.scorer, &row->score, &q->e.rows[0].score));
	json_object_set_new(
	    json, "probability", row->probability < 0 ? json_null() : decision_json_number(row->probability));
	json_object_set_new(json, "weight", json_real(row->weight / (double)INSTANCE_WEIGHT_ONE));
	json_object_set_new(json, "load", load_json(&row->load));
	json_object_set_new(json, "cached_tokens", json_integer(row->cached_tokens));
	return json;
}

static json_t *demand_json(const struct query *q) {
	const struct demand *d = &q->demand;
	struct slice asked = inspect_model(&q->inspect);

	return json_pack("{s:s, s:o, s:s, s:o, s:b, s:I, s:I, s:I, s:I}", "model",
	    label_text(LABEL_MODEL, q->label), "model_asked",
	    asked.n ? decision_json_text(asked) : json_null(), "capability", capability_text(d->capability),
	    "features", decision_json_features(d->features), "session", d->session != 0, "prompt_bytes",
	    (json_int_t)d->prompt_bytes, "prompt_tokens", (json_int_t)d->prompt_tokens, "prompt_blocks",
	    (json_int_t)d->n_keys, "output_max", (json_int_t)d->output_max);
}

/* Nobody would get it: what the client would be told. */
static json_t *refusal_json(const struct query *q) {
	if (!q->e.outcome)
		return json_null();
	enum cause cause = turn_cause_as(q->settings->config, exchange_cause(q->e.outcome), false);

	return json_pack("{s:i, s:s}", "status", (int)reply_error(cause, q->dialect).status, "code",
	    cause_row(cause)->code);
}

static struct decision_why why_of(const struct explanation *e) {
	struct decision_why why = { .ring = e->ring, .score = NAN, .next_score = NAN };

	if (e->outcome) {
		why.refusal = exchange_cause(e->outcome);
		return why;
	}
	why.reason = e->reason;
	why.is_panic = e->is_panic;
	why.is_probe = guard_is_probing(e->rows[0].instance, clock_now_ns() / 1000000u);
	why.instance = e->rows[0].instance->spec.name;
	if (e->has_scores)
		why.score = (double)e->rows[0].score.total;
	if (e->has_scores && e->n_eligible > 1) {
		why.next = e->rows[1].instance->spec.name;
		why.next_score = (double)e->rows[1].score.total;
	}
	return why;
}

static void query_answer(const struct query *q) {
	struct decision_why why = why_of(&q->e);
	json_t *rows = json_array(), *json = json_object();

	for (uint32_t i = 0; i < q->e.n_rows; i++)
		json_array_append_new(rows, row_json(q, i));
	json_object_set_new(json, "policy", json_string(policy_name(q->e.policy)));
	json_object_set_new(json, "snapshot", json_integer((json_int_t)q->snapshot->version));
	json_object_set_new(json, "seed", decision_json_hex(q->seed));
	decision_json_why(json, &why);
	json_object_set_new(json, "lower_is_better", json_boolean(policy_is_cost(q->e.scorer)));
	json_object_set_new(json, "refusal", refusal_json(q));
	json_object_set_new(json, "demand", demand_json(q));
	json_object_set_new(json, "rows", rows);
	endpoint_answer_json(q->ask.call, 200, json);
}

/* --- on its way --------------------------------------------------------------------------- */

static void query_free(struct query *q) {
	inspect_deinit(&q->inspect, &q->ask.explain->loop->bufs);
	policy_explanation_free(&q->e);
	snapshot_unref(&q->snapshot);
	settings_unref(&q->settings);
	free(q);
}

/* The model that a refusal is about, where it says so. */
static const char *refused_model(const struct query *q, char room[MODEL_BYTES]) {
	struct slice model = slice_head(inspect_model(&q->inspect), MODEL_BYTES - 1);
	bool is_said = q->cause == CAUSE_MODEL_NOT_FOUND ||
	    (q->cause == CAUSE_NO_INSTANCE && q->dialect == REPLY_INFINILM && model.n);

	memcpy(room, model.n ? model.p : "", model.n);
	room[model.n] = '\0';
	return is_said ? room : NULL;
}

/* Back on the control thread. */
static void deliver_explained(struct mail *mail) {
	struct query *q = container_of(mail, struct query, mail);
	char room[MODEL_BYTES];

	explain_ask_end(&q->ask);
	if (q->ask.call && q->cause)
		explain_refuse(q->ask.call, q->dialect, q->cause, refused_model(q, room));
	else if (q->ask.call)
		query_answer(q);
	query_free(q);
}

static void deliver_query(struct mail *mail);

/* The next piece of the body. */
static enum cause query_read(struct query *q, struct slice body) {
	struct slice piece = slice_head(slice_skip(body, q->n_read), PIECE_BYTES);
	enum cause cause = piece.n ? inspect_feed(&q->inspect, piece.p, piece.n) : CAUSE_NONE;

	q->n_read += piece.n;
	return !cause && q->n_read == body.n ? inspect_finish(&q->inspect) : cause;
}

/* Back for more of the body. */
static void deliver_unread(struct mail *mail) {
	struct query *q = container_of(mail, struct query, mail);
	if (q->n_read > q->settings->config->hold_limit_bytes)
		q->cause = CAUSE_MODEL_LATE;
	else if (q->ask.call)
		q->cause = query_read(q, endpoint_body(q->ask.call));
	if (q->cause || !q->ask.call)
		deliver_explained(mail);
	else
		loop_post(&q->worker->loop, &q->mail, deliver_query);
}

/* It is mail that brings us here: the turn has not looked at the clock yet. */
static void query_explain(struct query *q, const struct model *model) {
	struct worker *w = q->worker;
	struct pick_input input = { .model = model, .demand = &q->demand, .now_ns = clock_now_ns() };

	worker_demand(w, &q->inspect, model, q->tenant, &q->demand);
	worker_expect(w, &q->inspect, model, q->n_body, &q->demand);
	q->demand.seed = q->seed;
	q->demand.rank = q->rank;
	q->label = model->label;
	policy_explain(&w->policies, &input, &q->e);
	q->snapshot = snapshot_ref(w->policies.snapshot);
}

/* On the worker's thread, between two requests' steps. */
static void deliver_query(struct mail *mail) {
	struct query *q = container_of(mail, struct query, mail);
	const struct snapshot *snap = q->worker->policies.snapshot;
	const struct model *model = exchange_model(q->settings->config, snap, &q->inspect);

	if (!exchange_has_enough(q->worker, q->settings, q->tenant, &q->inspect, q->n_read)) {
		loop_post(q->ask.explain->loop, &q->mail, deliver_unread);
		return;
	}
	if (!tenant_may_use(q->tenant, inspect_model(&q->inspect)))
		q->cause = CAUSE_TENANT_DENIED;
	else if (model)
		query_explain(q, model);
	else
		q->cause =
		    snap->any.n_candidates + snap->any.n_reserve ? CAUSE_MODEL_NOT_FOUND : CAUSE_NO_INSTANCE;
	loop_post(q->ask.explain->loop, &q->mail, deliver_explained);
}

/* --- what is asked ------------------------------------------------------------------------ */

enum { HAS_MESSAGES, HAS_PROMPT, HAS_INPUT, HAS_ITEM, HAS_FORMAT, HAS_DIMENSIONS, N_HAS };

static const struct scan_want wants[N_HAS] = {
	[HAS_MESSAGES] = { .path = "messages" },
	[HAS_PROMPT] = { .path = "prompt" },
	[HAS_INPUT] = { .path = "input" },
	[HAS_ITEM] = { .path = "input.[]" },
	[HAS_FORMAT] = { .path = "encoding_format" },
	[HAS_DIMENSIONS] = { .path = "dimensions" },
};

static struct scan_table table;

__attribute__((constructor)) static void guess_table_init(void) {
	scan_table_init(&table, wants, N_HAS, NULL);
}

/* Where such a body is sent, when nobody says it. What is wrong with it is found when it is read. */
static const char *guess_path(struct slice text) {
	struct scan_value values[N_HAS];
	struct scan s;
	char room[1];

	scan_init(&s, &table, values, room, sizeof(room));
	enum scan_verdict verdict = text.n ? scan_feed(&s, text.p, text.n) : SCAN_MORE;
	uint64_t has = s.found | s.open;
	bool is_embedded = has >> HAS_FORMAT & 1 || has >> HAS_DIMENSIONS & 1 ||
	    (has >> HAS_ITEM & 1 && values[HAS_ITEM].type != SCAN_OBJECT);

	if (verdict > SCAN_COMPLETE || has >> HAS_MESSAGES & 1)
		return "/v1/chat/completions";
	if (has >> HAS_PROMPT & 1)
		return "/v1/completions";
	if (has >> HAS_INPUT & 1)
		return is_embedded ? "/v1/embeddings" : "/v1/responses";
	return "/v1/chat/completions";
}

static bool is_form(struct slice type) {
	const char *semicolon = type.n ? memchr(type.p, ';', type.n) : NULL;
	struct slice bare = semicolon ? slice_head(type, (size_t)(semicolon - type.p)) : type;

	return slice_is(slice_trim(bare), SLICE("multipart/form-data"));
}

static bool is_path(struct slice path) {
	for (size_t i = 0; i < path.n; i++)
		if (path.p[i] <= ' ' || path.p[i] > '~' || path.p[i] == '#')
			return false;
	return path.n && path.p[0] == '/' && path.n <= PATH_BYTES_MAX;
}

/* The head that the inference request would have had; the caller frees *text_out. */
static bool make_head(
    struct endpoint_call *call, struct slice path, struct head_room *room, char **text_out) {
	const struct head *head = endpoint_head(call);
	struct slice type = head_find(head, FIELD_CONTENT_TYPE);
	enum cause cause;
	size_t n = 0;
	FILE *out = open_memstream(text_out, &n);

	assert(out);
	fprintf(out, "POST %.*s HTTP/1.1\r\nhost: headrace\r\ncontent-type: %.*s\r\ncontent-length: %zu\r\n",
	    (int)path.n, path.p, (int)type.n, type.p, endpoint_body(call).n);
	for (unsigned i = 0; i < head->n_fields; i++) {
		struct slice name = head_name(head, &head->fields[i]),
			     value = head_value(head, &head->fields[i]);

		if (is_of_the_request(&head->fields[i]))
			fprintf(
			    out, "%.*s: %.*s\r\n", (int)name.n, name.p, (int)value.n, value.n ? value.p : "");
	}
	fputs("\r\n", out);
	fclose(out);
	return head_parse_request(room, (struct slice){ *text_out, n }, &cause) == 0;
}

/* Without an id the request would get one that nobody knows. */
static uint64_t seed_of(const struct head *head, const struct option_list *names) {
	struct slice id = forward_find_id(head, names->items, names->n);

	return id.p ? worker_seed(id) : 0;
}

/* The first piece. CAUSE_NONE, or as what the data port would refuse it. */
static enum cause query_begin(struct query *q, struct endpoint_call *call, struct slice path) {
	struct explain *explain = &((struct report *)endpoint_context(call))->explain;
	const struct router_config *config = q->settings->config;
	struct head_room room;
	char *text;
	enum cause cause = CAUSE_MALFORMED;

	q->worker = &explain->router->workers[0];
	q->n_body = endpoint_body(call).n;
	q->dialect = reply_dialect(config->errors, path);
	if (q->n_body > config->body_limit_bytes)
		return CAUSE_BODY_TOO_LARGE;
	if (make_head(call, path, &room, &text)) {
		q->seed = seed_of(&room.head, &config->request_id_headers);
		cause = config->trusts_rank ? rank_field_read(&room.head, &q->rank) : CAUSE_NONE;
		if (!cause)
			cause = inspect_init(&q->inspect, &config->inspect, &explain->loop->bufs, &room.head);
		if (!cause)
			cause = query_read(q, endpoint_body(call));
	}
	free(text);
	return cause;
}

/* The field that a refusal is about; NULL: none. */
static const char *unknown_field(struct endpoint_call *call, enum cause cause, char room[MODEL_BYTES]) {
	struct slice field = own_field_unknown(endpoint_head(call));

	if (cause != CAUSE_UNKNOWN_HEADER)
		return NULL;
	snprintf(room, MODEL_BYTES, "%.*s", (int)field.n, field.p);
	return room;
}

static void query_start(struct endpoint_call *call, struct slice path, const struct tenant *tenant) {
	struct explain *explain = &((struct report *)endpoint_context(call))->explain;
	struct query *q = calloc(1, sizeof(*q));
	q->settings = settings_ref(explain->router->settings);
	q->tenant = tenant;
	enum cause cause = query_begin(q, call, path);

	if (cause) {
		char field[MODEL_BYTES];
		explain_refuse(call, q->dialect, cause, unknown_field(call, cause, field));
	}
	if (!cause && explain_ask_begin(&q->ask, call)) {
		loop_post(&q->worker->loop, &q->mail, deliver_query);
		return;
	}
	inspect_deinit(&q->inspect, &explain->loop->bufs);
	settings_unref(&q->settings);
	free(q);
}

void explain_request(struct endpoint_call *call) {
	const struct report *report = endpoint_context(call);
	char room[PATH_BYTES_MAX + 1];
	struct slice type = head_find(endpoint_head(call), FIELD_CONTENT_TYPE), path;

	if (!type.p || (!inspect_is_json(type) && !is_form(type))) {
		explain_error(call, 415, "unsupported_media_type",
		    "the body is asked for as application/json or multipart/form-data");
		return;
	}
	if (!endpoint_query_is_good(call)) {
		explain_error(call, 400, "bad_request", EXPLAIN_BAD_QUERY);
		return;
	}
	path = endpoint_query(call, "path");
	if (!path.p && is_form(type))
		path = SLICE("/v1/audio/transcriptions");
	else if (!path.p)
		path = slice_of(guess_path(
		    slice_head(endpoint_body(call), report->router->settings->config->inspect_limit_bytes)));
	if (!is_path(path)) {
		explain_error(call, 400, "bad_request", "path is no path");
		return;
	}
	memcpy(room, path.p, path.n); /* it is valid until the next look at the query */
	path.p = room;
	const struct tenant_table *tenants = report->router->settings->config->tenants;
	struct slice name = endpoint_query(call, "tenant");
	uint32_t tenant = name.p ? tenant_by_name(tenants, name) : TENANT_ANONYMOUS;
	if (name.p && tenant == TENANT_ANONYMOUS)
		explain_error(call, 400, "bad_request", "there is no such tenant");
	else
		query_start(call, path, tenant_get(tenants, tenant));
}
