/* What is answered at once: one table of paths and methods, one function each. */
#include "base/clock.h"
#include "engine/mock.h"
#include "engine/random.h"
#include "engine/tokens.h"

#define JSON_TYPE    "application/json"
#define TEXT_TYPE    "text/plain; charset=utf-8"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define ANSWER_BYTES (256ull << 20)

/* The version of vLLM whose forms are spoken. */
#define VLLM_VERSION "0.11.0"

void mock_respond_json(struct mock_response *r, uint32_t status, json_t *json) {
	assert(json);
	r->status = status;
	r->content_type = JSON_TYPE;
	bytes_init(&r->body, ANSWER_BYTES);
	if (!bytes_add_json(&r->body, json)) { /* more than we hold for anybody */
		r->status = 500;
		r->content_type = NULL;
	}
	json_decref(json);
}

void mock_respond_refusal(struct mock_response *r, const struct refusal *refusal, bool is_anthropic) {
	mock_respond_json(r, refusal->status, api_error(refusal, is_anthropic));
}

static void respond_error(struct mock_response *r, uint32_t status, const char *message) {
	mock_respond_json(r, status, json_pack("{s:s}", "error", message));
}

/* vLLM makes a new id for each answer; this one stays, so that whoever compares answers sees no change. */
static json_t *permission(const struct mock *m) {
	uint64_t seed = (uint64_t)m->created_s;
	json_t *id = json_sprintf("modelperm-%016lx%016lx", random_nth(seed, 0), random_nth(seed, 1));
	return json_pack("{s:o, s:s, s:I, s:b, s:b, s:b, s:b, s:b, s:b, s:s, s:n, s:b}", "id", id, "object",
	    "model_permission", "created", (json_int_t)m->created_s, "allow_create_engine", false,
	    "allow_sampling", true, "allow_logprobs", true, "allow_search_indices", false, "allow_view", true,
	    "allow_fine_tuning", false, "organization", "*", "group", "is_blocking", false);
}

static void get_models(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	json_t *data = json_array();
	for (size_t i = 0; i < m->rules.n_models; i++)
		json_array_append_new(data,
		    json_pack("{s:s, s:s, s:I, s:s, s:s, s:n, s:I, s:[o]}", "id", m->rules.models[i],
			"object", "model", "created", (json_int_t)m->created_s, "owned_by", "vllm", "root",
			m->rules.models[i], "parent", "max_model_len", (json_int_t)m->rules.n_model_tokens,
			"permission", permission(m)));
	mock_respond_json(r, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
}

static void get_health(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	r->status = fault_plan_is_healthy(&m->fault.plan) && !q->is_sick ? 200 : 503;
}

static void get_version(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	mock_respond_json(r, 200, json_pack("{s:s}", "version", VLLM_VERSION));
}

static void get_load(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	mock_respond_json(r, 200, json_pack("{s:I}", "server_load", (json_int_t)m->n_serving));
}

static void get_sglang_load(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	mock_respond_json(r, 200, json_pack("{s:I}", "load", (json_int_t)m->n_serving));
}

static void get_server_info(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	static const char *const modes[] = { "null", "prefill", "decode" };
	mock_respond_json(r, 200,
	    json_pack("{s:s, s:s, s:I, s:I, s:s}", "model_path", m->rules.models[0], "served_model_name",
		m->rules.models[0], "dp_size", (json_int_t)m->rules.kv.n_ranks, "tp_size",
		(json_int_t)m->rules.kv.tp_size, "disaggregation_mode", modes[m->rules.kv.role]));
}

static void get_model_info(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	mock_respond_json(r, 200,
	    json_pack("{s:s, s:s, s:b}", "model_path", m->rules.models[0], "tokenizer_path",
		m->rules.models[0], "is_generation", true));
}

static void forget_prompts(struct mock *m) {
	for (uint32_t i = 0; i < m->rules.kv.n_ranks; i++)
		scheduler_forget(&m->ranks[i]);
}

static void post_reset_prefix_cache(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	forget_prompts(m);
	r->status = 200;
}

static void post_flush_cache(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	forget_prompts(m);
	r->status = 200;
	r->content_type = TEXT_TYPE;
	bytes_init(&r->body, ANSWER_BYTES);
	bytes_add(&r->body, SLICE("Cache flushed.\n"));
}

static void get_metrics(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	r->status = 200;
	r->content_type = METRICS_TYPE;
	bytes_init(&r->body, ANSWER_BYTES);
	scheduler_metrics(m->ranks, m->rules.kv.n_ranks, m->rules.models[0], &r->body);
	bytes_printf(&r->body,
	    "# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.\n"
	    "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %ld\n",
	    (long)m->created_s);
}

static void post_tokenize(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	struct refusal refusal;
	json_t *answer = tokens_list(&m->rules, q->body, &refusal);
	if (answer)
		mock_respond_json(r, 200, answer);
	else
		mock_respond_refusal(r, &refusal, false);
}

static void post_detokenize(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	struct refusal refusal;
	json_t *answer = tokens_text(&m->rules, q->body, &refusal);
	if (answer)
		mock_respond_json(r, 200, answer);
	else
		mock_respond_refusal(r, &refusal, false);
}

static void post_count_tokens(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	struct refusal refusal;
	json_t *answer = tokens_count(&m->rules, q->body, &refusal);
	if (answer)
		mock_respond_json(r, 200, answer);
	else
		mock_respond_refusal(r, &refusal, true);
}

static void get_faults(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	char text[FAULT_TEXT_BYTES];
	mock_respond_json(r, 200,
	    json_pack("{s:s, s:I}", "fault", fault_plan_print(&m->fault.plan, text), "requests",
		(json_int_t)m->fault.n_judged));
}

/* {"fault":"SPEC"}, or SPEC as it is. */
static void post_faults(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	char message[FAULT_TEXT_BYTES];
	struct fault_plan plan;
	struct slice text = q->body.p ? q->body : SLICE("");
	json_t *json = json_loadb(text.p, text.n, 0, NULL);
	const json_t *spec = json_object_get(json, "fault");

	while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r'))
		text.n--;
	if (json && !json_is_string(spec)) {
		respond_error(r, 400, "expected {\"fault\":\"SPEC\"}");
	} else if (!fault_plan_parse(json ? slice_of(json_string_value(spec)) : text, &plan, message)) {
		respond_error(r, 400, message);
	} else {
		fault_arm(&m->fault, &plan);
		get_faults(m, q, r);
	}
	json_decref(json);
}

static void get_ledger(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	json_t *ledger = ledger_json(m->ledger);
	json_object_set_new(ledger, "transfers", kv_table_json(m->channel.table, clock_now_ns()));
	mock_respond_json(r, 200, ledger);
}

static void post_reset(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	const struct fault_plan none = { 0 };
	forget_prompts(m);
	ledger_reset(m->ledger);
	kv_table_reset(m->channel.table);
	capture_clear(&m->capture);
	stored_clear(&m->stored);
	fault_arm(&m->fault, &m->config->fault);
	fault_arm(&m->header_fault, &none);
	get_faults(m, q, r);
}

static void get_captured(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	mock_respond_json(r, 200, capture_json(&m->capture));
}

static void delete_captured(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	capture_clear(&m->capture);
	get_captured(m, q, r);
}

static void respond_stored(
    struct mock *m, const struct mock_request *q, const struct stored_response *s, struct mock_response *r) {
	struct refusal refusal;

	if (slice_eq(q->method, SLICE("GET"))) {
		mock_respond_json(r, 200, api_stored_response(s));
	} else if (slice_eq(q->method, SLICE("DELETE"))) {
		mock_respond_json(
		    r, 200, json_pack("{s:s, s:s, s:b}", "id", s->id, "object", "response", "deleted", true));
		stored_remove(&m->stored, slice_of(s->id));
	} else { /* cancel: none is made in the background */
		api_refuse(&refusal, 400, NULL, "Cannot cancel a synchronous response.");
		refusal.type = "invalid_request_error";
		mock_respond_refusal(r, &refusal, false);
	}
}

/* Of /v1/responses/ID by GET and DELETE, and of /v1/responses/ID/cancel by POST; empty: it is none of these.
 */
static struct slice stored_id(const struct mock_request *q) {
	static const struct slice prefix = { "/v1/responses/", 14 }, cancel = { "/cancel", 7 };
	bool is_cancel = slice_eq(q->method, SLICE("POST"));
	struct slice id = slice_has_prefix(q->path, prefix) ? slice_skip(q->path, prefix.n) : SLICE("");
	size_t n = id.n;

	if (is_cancel)
		n = id.n > cancel.n && slice_eq(slice_skip(id, id.n - cancel.n), cancel) ? id.n - cancel.n
											 : 0;
	else if (!slice_eq(q->method, SLICE("GET")) && !slice_eq(q->method, SLICE("DELETE")))
		n = 0;
	return slice_head(id, n && !memchr(id.p, '/', n) ? n : 0);
}

static void answer_stored(
    struct mock *m, const struct mock_request *q, struct slice id, struct mock_response *r) {
	const struct stored_response *s = stored_find(&m->stored, id);
	struct refusal refusal;

	if (s) {
		respond_stored(m, q, s, r);
		return;
	}
	api_miss_response(&refusal, id);
	mock_respond_refusal(r, &refusal, false);
}

enum { OF_VLLM = 1 << MOCK_VLLM, OF_SGLANG = 1 << MOCK_SGLANG, OF_ALL = OF_VLLM | OF_SGLANG };

static const struct route {
	const char *method, *path;
	void (*answer)(struct mock *m, const struct mock_request *q, struct mock_response *r);
	unsigned flavors;
} routes[] = {
	{ "GET", "/v1/models", get_models, OF_ALL },
	{ "GET", "/health", get_health, OF_ALL },
	{ "GET", "/health_generate", get_health, OF_SGLANG },
	{ "GET", "/ping", get_health, OF_ALL },
	{ "POST", "/ping", get_health, OF_ALL },
	{ "GET", "/version", get_version, OF_VLLM },
	{ "GET", "/load", get_load, OF_VLLM },
	{ "GET", "/get_load", get_sglang_load, OF_SGLANG },
	{ "GET", "/get_server_info", get_server_info, OF_SGLANG },
	{ "GET", "/get_model_info", get_model_info, OF_SGLANG },
	{ "POST", "/reset_prefix_cache", post_reset_prefix_cache, OF_VLLM },
	{ "POST", "/flush_cache", post_flush_cache, OF_SGLANG },
	{ "GET", "/metrics", get_metrics, OF_ALL },
	{ "POST", "/tokenize", post_tokenize, OF_ALL },
	{ "POST", "/detokenize", post_detokenize, OF_ALL },
	{ "POST", "/v1/messages/count_tokens", post_count_tokens, OF_ALL },
	{ "GET", "/mock/faults", get_faults, OF_ALL },
	{ "POST", "/mock/faults", post_faults, OF_ALL },
	{ "GET", "/mock/ledger", get_ledger, OF_ALL },
	{ "POST", "/mock/reset", post_reset, OF_ALL },
	{ "GET", "/captured_requests", get_captured, OF_ALL },
	{ "DELETE", "/captured_requests", delete_captured, OF_ALL },
};

void mock_answer(struct mock *m, const struct mock_request *q, struct mock_response *r) {
	const char *allow = api_of_path(q->path) ? "POST" : NULL;
	struct slice id = stored_id(q);

	*r = (struct mock_response){ 0 };
	if (id.n) {
		answer_stored(m, q, id, r);
		return;
	}
	for (size_t i = 0; i < n_elems(routes); i++) {
		if (!slice_eq(q->path, slice_of(routes[i].path)) ||
		    !(routes[i].flavors & 1u << m->config->flavor))
			continue;
		if (slice_eq(q->method, slice_of(routes[i].method))) {
			routes[i].answer(m, q, r);
			return;
		}
		allow = allow ? allow : routes[i].method;
	}
	mock_respond_json(
	    r, allow ? 405 : 404, json_pack("{s:s}", "detail", allow ? "Method Not Allowed" : "Not Found"));
	r->allow = allow;
}
