#include "discovery/progress.h"

#include <jansson.h>

#include "base/samples.h"

#define BODY_BYTES_MAX (2u << 20) /* of metrics: engines with many ranks have long ones */

/*
 * What moves with each step of an engine, or nearly; that some move with whole requests only
 * does no harm beside the others.
 */
static const char *const counters[] = {
	"vllm:iteration_tokens_total_sum",
	"vllm:iteration_tokens_total_count",
	"vllm:prompt_tokens_total",
	"vllm:generation_tokens_total",
	"sglang:realtime_tokens_total",
	"sglang:num_used_tokens",
	"sglang:prompt_tokens_total",
	"sglang:generation_tokens_total",
	"llamacpp:n_decode_total",
	"llamacpp:prompt_tokens_total",
	"llamacpp:tokens_predicted_total",
};

static void progress_end(struct progress *p, enum health_progress progress) {
	free(p->model);
	p->model = NULL;
	p->on_done(p, progress);
}

static void progress_ask(
    struct progress *p, const struct fetch_request *request, uint64_t timeout_ms, fetch_fn on_answer) {
	fetch_init(&p->fetch, timeout_ms, BODY_BYTES_MAX, on_answer);
	fetch_start(&p->fetch, p->loop, &p->address, request);
}

/* --- the counters ------------------------------------------------------------------------ */

static void progress_ask_counters(struct progress *p, fetch_fn on_answer) {
	const struct fetch_request request = {
		.authority = p->authority,
		.path = SLICE("/metrics"),
		.accept = SLICE("text/plain"),
		.bearer = p->bearer,
		.tls_host = p->tls_host,
	};

	progress_ask(p, &request, p->answer_ms, on_answer);
}

static bool read_counters(
    const struct progress *p, int outcome, unsigned status, struct slice body, double *sum_out) {
	struct slice engine = { p->engine[0] ? p->engine : NULL, strlen(p->engine) };

	return !outcome && status == 200 &&
	    samples_sum_of(body, counters, n_elems(counters), engine, sum_out);
}

static void progress_on_second(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct progress *p = container_of(f, struct progress, fetch);
	double sum;

	if (outcome == FETCH_E_LOCAL)
		progress_end(p, HEALTH_PROGRESS_UNASKED);
	else if (!read_counters(p, outcome, status, body, &sum))
		progress_end(p, p->is_mute ? HEALTH_PROGRESS_MUTE : HEALTH_PROGRESS_UNSAID);
	else if (sum != p->sum)
		progress_end(p, HEALTH_PROGRESS_MOVES);
	else if (p->is_refused)
		progress_end(p, HEALTH_PROGRESS_UNSAID);
	else
		progress_end(p, p->is_mute ? HEALTH_PROGRESS_MUTE : HEALTH_PROGRESS_STILL);
}

static void progress_on_pause(struct timer *t) {
	progress_ask_counters(container_of(t, struct progress, pause), progress_on_second);
}

/* --- the canary -------------------------------------------------------------------------- */

static void progress_on_canary(struct fetch *f, int outcome, unsigned status, struct slice body);

static void progress_send_canary(struct progress *p) {
	json_t *json = json_pack("{s:s, s:i, s:b}", "model", p->model, "max_tokens", 1, "stream", (int)false);

	if (p->is_second_path)
		json_object_set_new(
		    json, "messages", json_pack("[{s:s, s:s}]", "role", "user", "content", "Hi"));
	else
		json_object_set_new(json, "prompt", json_string("Hi"));
	char *text = json_dumps(json, JSON_COMPACT), field[40] = "";

	if (p->engine[0])
		snprintf(field, sizeof(field), "x-data-parallel-rank: %s\r\n", p->engine);
	const struct fetch_request request = {
		.method = SLICE("POST"),
		.authority = p->authority,
		.path = p->is_second_path ? SLICE("/v1/chat/completions") : SLICE("/v1/completions"),
		.bearer = p->bearer,
		.tls_host = p->tls_host,
		.body = slice_of(text),
		.fields = slice_of(field),
	};

	progress_ask(p, &request, p->pause_ms, progress_on_canary);
	free(text);
	json_decref(json);
}

static void progress_on_canary(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct progress *p = container_of(f, struct progress, fetch);

	if (!outcome && !p->is_second_path && (status == 404 || status == 405)) {
		p->is_second_path = true;
		progress_send_canary(p);
	} else if (!outcome && status < 300) {
		progress_end(p, HEALTH_PROGRESS_MOVES);
	} else if (outcome == FETCH_E_LOCAL) {
		progress_end(p, HEALTH_PROGRESS_UNASKED);
	} else if (outcome == FETCH_E_CONNECT) {
		progress_end(p, HEALTH_PROGRESS_UNSAID); /* it never got it; probes see to that */
	} else {
		p->is_refused = !outcome && status < 500;
		p->is_mute = !p->is_refused;
		if (p->has_sum)
			progress_ask_counters(p, progress_on_second);
		else
			progress_end(p, outcome ? HEALTH_PROGRESS_MUTE : HEALTH_PROGRESS_UNSAID);
	}
}

/* --- the beginning ----------------------------------------------------------------------- */

static void progress_on_first(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct progress *p = container_of(f, struct progress, fetch);

	p->has_sum = read_counters(p, outcome, status, body, &p->sum);
	if (outcome == FETCH_E_LOCAL)
		progress_end(p, HEALTH_PROGRESS_UNASKED);
	else if (p->model && (p->is_hung || !p->has_sum))
		progress_send_canary(p);
	else if (p->has_sum)
		loop_timer(p->loop, &p->pause, p->pause_ms);
	else
		progress_end(p, HEALTH_PROGRESS_UNSAID);
}

void progress_init(
    struct progress *p, struct loop *loop, uint64_t answer_ms, uint64_t pause_ms, progress_fn on_done) {
	*p = (struct progress){
		.loop = loop, .on_done = on_done, .answer_ms = answer_ms, .pause_ms = pause_ms
	};
	timer_init(&p->pause, progress_on_pause);
}

void progress_start(struct progress *p, const struct progress_question *question) {
	assert(!progress_is_busy(p) && !p->model);
	p->address = *question->address;
	p->authority = question->instance->spec.authority;
	p->bearer = question->bearer;
	p->tls_host = instance_tls_host(question->instance);
	p->model = question->model.p ? strndup(question->model.p, question->model.n) : NULL;
	p->engine[0] = '\0';
	if (question->instance->spec.has_rank)
		snprintf(p->engine, sizeof(p->engine), "%u", question->instance->spec.rank);
	p->is_hung = question->is_hung;
	p->is_second_path = p->is_mute = p->is_refused = false;
	progress_ask_counters(p, progress_on_first);
}

void progress_cancel(struct progress *p) {
	fetch_cancel(&p->fetch);
	timer_stop(&p->pause);
	free(p->model);
	p->model = NULL;
}
