#include "router/engine_info.h"

#include <stdlib.h>

#include "base/text.h"
#include "router/fleet_view.h"
#include "router/pairs_json.h"

#define ANSWER_MS        20000u
#define ANSWER_BYTES_MAX (1u << 20)

enum engine_question { QUESTION_ROUTE, QUESTION_COMPLETION, QUESTION_CHAT, QUESTION_LIFE };

#define ROLES 3

struct engine_info {
	struct list link; /* report->infos */
	struct report *report;
	struct petition *petition;
	struct snapshot *snapshot;
	const struct snapshot_row *rows[ROLES], *row; /* of it: who is to be asked, and who is */
	unsigned n_rows, n_asked;
	struct fetch fetch;
	enum engine_question question;
};

static void info_free(struct engine_info *i) {
	fetch_cancel(&i->fetch);
	list_remove(&i->link);
	snapshot_unref(&i->snapshot);
	free(i);
}

/* --- what is known without the engine ---------------------------------------------------------- */

static json_int_t n_ranks(const struct snapshot_row *row) {
	uint64_t n;

	for (uint32_t i = 0; i < row->labels.n; i++)
		if (slice_eq(row->labels.items[i].key, SLICE("dp_size")) &&
		    text_uint(row->labels.items[i].value, UINT16_MAX, &n))
			return (json_int_t)n;
	return 1;
}

static json_t *known_of(const struct engine_info *i) {
	const struct pairs models = i->row->models;
	struct slice first = models.n ? models.items[0].key : SLICE("unknown");

	return json_pack("{s:o, s:o, s:o, s:b, s:I, s:I}", "model_path", text_json(first), "model_id",
	    text_json(first), "models", pairs_json_keys(models), "is_generation", true, "dp_size",
	    n_ranks(i->row), "worker_count", (json_int_t)i->snapshot->n_rows);
}

/* --- the answer ----------------------------------------------------------------------------------- */

static bool is_health(const struct engine_info *i) {
	return slice_eq(i->petition->path, SLICE("/health_generate"));
}

static void pass_on(const struct engine_info *i, unsigned status, struct slice body) {
	json_t *json = json_loadb(body.p, body.n, 0, NULL);

	if (json)
		petition_answer_json(i->petition, status, json);
	else
		petition_answer_text(i->petition, status, body);
}

static void ask(struct engine_info *i);

static void ask_next(struct engine_info *i) {
	i->row = i->rows[i->n_asked++];
	i->question = QUESTION_ROUTE;
	ask(i);
}

/* What the engine is asked that has no route for its health. False: nothing is left. */
static bool find_question(struct engine_info *i) {
	bool is_half = !slice_eq(fleet_view_type(i->row->labels), SLICE("regular"));

	if (i->question >= QUESTION_CHAT || (!is_half && !i->row->models.n))
		return false;
	i->question = is_half ? QUESTION_LIFE : i->question + 1;
	return true;
}

/* True: it is answered. */
static bool conclude(struct engine_info *i, int outcome, unsigned status, struct slice body) {
	bool lacks_route = !outcome && (status == 404 || status == 405 || status == 501);

	if (outcome) {
		petition_answer_error(
		    i->petition, 502, "upstream_failed", fetch_outcome_text((enum fetch_outcome)outcome));
	} else if (!lacks_route && status < 300 && is_health(i) && i->n_asked < i->n_rows) {
		ask_next(i);
		return false;
	} else if (!lacks_route) {
		pass_on(i, status, i->question == QUESTION_ROUTE || status >= 300 ? body : SLICE("OK"));
	} else if (!is_health(i)) {
		petition_answer_json(i->petition, 200, known_of(i));
	} else if (find_question(i)) {
		ask(i);
		return false;
	} else {
		petition_answer_error(
		    i->petition, 503, "unsupported_capability", "the engine generates nothing by these APIs");
	}
	return true;
}

/* What the engine does for it ends, too. */
static void on_left(void *keeper, struct petition *p) {
	struct engine_info *i = keeper;

	assert(i->petition == p);
	info_free(i);
}

static void on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct engine_info *i = container_of(f, struct engine_info, fetch);

	if (conclude(i, outcome, status, body))
		info_free(i);
}

/* --- the question ------------------------------------------------------------------------------------ */

/* One token of the first model; the caller frees it. */
static char *canary(const struct engine_info *i) {
	struct slice model = i->row->models.items[0].key;
	json_t *json = json_pack("{s:o, s:i}", "model", text_json(model), "max_tokens", 1);

	if (i->question == QUESTION_CHAT)
		json_object_set_new(
		    json, "messages", json_pack("[{s:s, s:s}]", "role", "user", "content", "Hi"));
	else
		json_object_set_new(json, "prompt", json_string("Hi"));
	char *text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	return text;
}

static struct slice path_of(const struct engine_info *i) {
	switch (i->question) {
	case QUESTION_COMPLETION:
		return SLICE("/v1/completions");
	case QUESTION_CHAT:
		return SLICE("/v1/chat/completions");
	case QUESTION_LIFE:
		return slice_of(i->report->router->settings->config->health.endpoint);
	default:
		return i->petition->path;
	}
}

static void ask(struct engine_info *i) {
	const struct instance *inst = i->row->instance;
	bool generates = i->question == QUESTION_COMPLETION || i->question == QUESTION_CHAT;
	char *body = generates ? canary(i) : NULL;
	const struct fetch_request request = { .method = body ? SLICE("POST") : SLICE("GET"),
		.authority = inst->spec.authority,
		.path = path_of(i),
		.bearer = instance_key(&inst->spec, i->report->router->settings->config->engine_key),
		.body = slice_of(body),
		.tls_host = instance_tls_host(inst) };

	fetch_start(&i->fetch, i->report->explain.loop,
	    &i->row->addresses[instance_good_address(inst, i->row->n_addresses)], &request);
	free(body);
}

void engine_info_ask(struct report *report, struct petition *p) {
	static const struct slice types[ROLES] = { { "regular", 7 }, { "prefill", 7 }, { "decode", 6 } };
	struct engine_info *i = calloc(1, sizeof(*i));

	list_init(&i->link);
	list_push(&report->infos, &i->link);
	fetch_init(&i->fetch, ANSWER_MS, ANSWER_BYTES_MAX, on_done);
	i->report = report;
	i->petition = p;
	i->snapshot = snapshot_ref((struct snapshot *)report->snapshot);
	for (size_t t = 0; t < ROLES; t++) {
		const struct snapshot_row *row = fleet_view_healthy(i->snapshot, types[t]);

		if (row)
			i->rows[i->n_rows++] = row;
	}
	if (i->n_rows) {
		petition_keep(p, on_left, i);
		ask_next(i);
		return;
	}
	petition_answer_error(p, 503, "no_healthy_instance", "no instance is available for this request");
	info_free(i);
}

void engine_info_close(struct report *report) {
	list_each_safe (it, &report->infos)
		info_free(container_of(it, struct engine_info, link));
}
