/*
 * One round of looking is a row of steps, each one request: the list, the other list,
 * and while the engine is not ready yet perhaps a completion. A round ends in
 * readiness_end(), which says what is told and when the next one begins.
 */
#include "babysitter/readiness.h"

#include "base/text.h"

#define PAUSE_MIN_MS  100
#define PAUSE_MAX_MS  1000
#define TRY_MS        2000 /* an engine that loads may accept and say nothing */
#define COMPLETION_MS 120000
#define LIST_BYTES    (1u << 20)
#define N_SUSPECT     2

enum readiness_step { STEP_LIST, STEP_OTHER_LIST, STEP_COMPLETION, STEP_CHAT };

static void readiness_ask(struct readiness *r, enum readiness_step step);

/* --- where ---------------------------------------------------------------------------- */

void readiness_url(char url[static ORIGIN_URL_MAX], const char *host, uint16_t port, bool is_tls) {
	if (text_is_wildcard(slice_of(host)))
		host = strchr(host, ':') ? "::1" : "127.0.0.1";
	(is_tls ? text_print_tls_url : text_print_url)(url, ORIGIN_URL_MAX, host, port);
}

static struct origin *readiness_open_origin(struct readiness *r, const char *url) {
	struct origin *o = origin_new(r->loop, slice_of(url));

	assert(o);
	if (r->rules->tls_name)
		origin_expect(o, r->rules->tls_name);
	return o;
}

static void readiness_open_origins(struct readiness *r, uint16_t port) {
	char url[ORIGIN_URL_MAX], other[ORIGIN_URL_MAX];

	readiness_url(url, r->rules->host, port, r->rules->tls_name);
	readiness_url(other, "127.0.0.1", port, r->rules->tls_name);
	r->origins[0] = readiness_open_origin(r, url);
	r->origins[1] = strcmp(url, other) ? readiness_open_origin(r, other) : NULL;
	r->origin = 0;
}

/* --- the list --------------------------------------------------------------------------- */

json_t *readiness_read_list(struct slice body) {
	json_t *root = body.n ? json_loadb(body.p, body.n, 0, NULL) : NULL, *model;
	json_t *data = json_is_array(root) ? root : json_object_get(root, "data");
	json_t *list = json_is_array(data) ? json_array() : NULL;
	size_t i;

	json_array_foreach(data, i, model) {
		const json_t *id = json_object_get(model, "id");
		if (json_is_string(id) && json_string_length(id))
			json_array_append(list, model);
		else if (json_is_string(model) && json_string_length(model))
			json_array_append_new(list, json_pack("{s:O}", "id", model));
	}
	json_decref(root);
	return list;
}

/* The ids, in the order of the list: an engine may change what else it says each time. */
static bool is_same_list(const json_t *a, const json_t *b) {
	if (json_array_size(a) != json_array_size(b))
		return false;
	for (size_t i = 0; i < json_array_size(a); i++)
		if (!json_equal(json_object_get(json_array_get(a, i), "id"),
			json_object_get(json_array_get(b, i), "id")))
			return false;
	return true;
}

/* Takes the reference. */
static void readiness_take_list(struct readiness *r, json_t *list) {
	bool is_news = !r->has_list || !is_same_list(list, r->models);

	r->has_list = true;
	if (!is_news) {
		json_decref(list);
		return;
	}
	json_decref(r->models);
	r->models = list;
	if (r->ops->on_models)
		r->ops->on_models(r);
}

/* --- rounds ------------------------------------------------------------------------------ */

static void readiness_end(struct readiness *r, bool is_good) {
	if (r->state == READINESS_TRYING && !is_good) {
		loop_timer(r->loop, &r->timer, r->pause_ms);
		r->pause_ms = u64_min(2 * r->pause_ms, PAUSE_MAX_MS);
		return;
	}
	bool was_trying = r->state == READINESS_TRYING;
	r->state = READINESS_SERVING;
	r->n_failed = is_good ? 0 : r->n_failed + 1;
	bool is_doubted = r->n_failed > 0 && readiness_is_good(r);
	loop_timer(r->loop, &r->timer,
	    is_doubted ? u64_min(r->rules->interval_ms, PAUSE_MAX_MS) : r->rules->interval_ms);
	if (was_trying)
		r->ops->on_ready(r);
	else
		r->ops->on_look(r, is_good);
}

/* The engine has listed its models, or will not. */
static void readiness_end_list(struct readiness *r) {
	if (r->state == READINESS_TRYING && r->rules->completion)
		readiness_ask(r, STEP_COMPLETION);
	else
		readiness_end(r, true);
}

static void readiness_on_list(struct readiness *r, unsigned status, struct slice body) {
	bool is_good = status >= 200 && status < 300;
	bool is_first = r->step == STEP_LIST;
	json_t *list = is_good ? readiness_read_list(body) : NULL;

	if (list && (json_array_size(list) || !is_first)) {
		readiness_take_list(r, list);
		readiness_end_list(r);
		return;
	}
	json_decref(list);
	if (is_first && (is_good || status == 404))
		readiness_ask(r, STEP_OTHER_LIST);
	else if (is_good || status == 404 || status == 401 || status == 403)
		readiness_end_list(r);
	else
		readiness_end(r, false);
}

static void readiness_on_completion(struct readiness *r, unsigned status) {
	if (status == 404 && r->step == STEP_COMPLETION)
		readiness_ask(r, STEP_CHAT);
	else
		readiness_end(r, status >= 200 && status < 300);
}

static void readiness_on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct readiness *r = container_of(f, struct readiness, fetch);

	assert(r->state != READINESS_IDLE);
	if (outcome == FETCH_E_CONNECT && r->state == READINESS_TRYING && r->origins[1] &&
	    !r->has_tried_other) {
		r->has_tried_other = true;
		r->origin ^= 1;
		readiness_ask(r, r->step);
	} else if (outcome == FETCH_E_LOCAL && r->state == READINESS_SERVING) {
		loop_timer(r->loop, &r->timer, r->rules->interval_ms); /* nothing was seen */
	} else if (outcome) {
		readiness_end(r, false);
	} else if (r->step == STEP_LIST || r->step == STEP_OTHER_LIST) {
		readiness_on_list(r, status, body);
	} else {
		readiness_on_completion(r, status);
	}
}

static char *make_completion(const struct readiness *r) {
	json_t *id = json_object_get(json_array_get(r->models, 0), "id");
	json_t *body = json_pack("{s:i}", "max_tokens", 1);

	if (id)
		json_object_set(body, "model", id);
	if (r->step == STEP_CHAT)
		json_object_set_new(
		    body, "messages", json_pack("[{s:s, s:s}]", "role", "user", "content", "Hi"));
	else
		json_object_set_new(body, "prompt", json_string("Hi"));
	char *text = json_dumps(body, JSON_COMPACT);
	json_decref(body);
	return text;
}

static void readiness_ask(struct readiness *r, enum readiness_step step) {
	static const char *const paths[] = { "/v1/models", "/models", "/v1/completions",
		"/v1/chat/completions" };
	bool is_list = step == STEP_LIST || step == STEP_OTHER_LIST;
	bool is_trying = r->state == READINESS_TRYING;
	char *body;

	r->step = step;
	body = is_list ? NULL : make_completion(r);
	fetch_init(&r->fetch,
	    !is_list        ? COMPLETION_MS
		: is_trying ? u64_min(r->rules->timeout_ms, TRY_MS)
			    : r->rules->timeout_ms,
	    LIST_BYTES, readiness_on_done);
	const struct fetch_request request = {
		.method = is_list ? SLICE("GET") : SLICE("POST"),
		.path = slice_of(paths[step]),
		.bearer = r->rules->bearer,
		.body = slice_of(body),
	};
	origin_fetch(r->origins[r->origin], &r->fetch, &request);
	free(body); /* used before origin_fetch() returned */
}

static void readiness_on_timer(struct timer *t) {
	struct readiness *r = container_of(t, struct readiness, timer);
	r->has_tried_other = false;
	readiness_ask(r, STEP_LIST);
}

/* --- outside -------------------------------------------------------------------------------- */

void readiness_init(struct readiness *r, struct loop *loop, const struct readiness_rules *rules,
    const struct readiness_ops *ops) {
	*r = (struct readiness){
		.loop = loop,
		.rules = rules,
		.ops = ops,
		.state = READINESS_IDLE,
		.models = json_array(),
	};
	timer_init(&r->timer, readiness_on_timer);
	fetch_init(&r->fetch, rules->timeout_ms, LIST_BYTES, readiness_on_done);
}

void readiness_stop(struct readiness *r) {
	if (r->state != READINESS_IDLE)
		origin_cancel(r->origins[r->origin], &r->fetch);
	timer_stop(&r->timer);
	origin_free(&r->origins[0]);
	origin_free(&r->origins[1]);
	r->state = READINESS_IDLE;
	r->has_list = false;
	r->n_failed = 0;
	json_decref(r->models);
	r->models = json_array();
}

void readiness_deinit(struct readiness *r) {
	readiness_stop(r);
	json_decref(r->models);
	r->models = NULL;
}

void readiness_start(struct readiness *r, uint16_t port) {
	assert(port > 0);
	readiness_stop(r);
	readiness_open_origins(r, port);
	r->state = READINESS_TRYING;
	r->port = port;
	r->pause_ms = PAUSE_MIN_MS;
	loop_timer(r->loop, &r->timer, PAUSE_MIN_MS);
}

struct origin *readiness_origin(const struct readiness *r) {
	return r->state == READINESS_SERVING ? r->origins[r->origin] : NULL;
}

bool readiness_is_good(const struct readiness *r) {
	return r->state == READINESS_SERVING && r->n_failed < N_SUSPECT;
}
