#include "engine/kv_channel.h"

#include "base/clock.h"
#include "engine/bytes.h"

#define BODY_BYTES_MAX 4096u

/* A decode that waits. */
struct asker {
	struct list link;
	struct timer timer;
	struct kv_channel *channel;
	struct endpoint_call *call;
	json_t *question;
};

static const char *text_of(const json_t *question, const char *key) {
	const char *text = json_string_value(json_object_get(question, key));
	return text ? text : "";
}

static const char *key_of(const json_t *question) {
	return text_of(question, "key");
}

/* --- answers ---------------------------------------------------------------------- */

/* Takes `json`. One that waits gets its answer as a stream: a client that leaves such a call is gone. */
static void say(struct endpoint_call *call, bool is_stream, unsigned status, json_t *json) {
	if (!is_stream) {
		endpoint_answer_json(call, status, json);
		return;
	}
	char *text = json_dumps(json, JSON_COMPACT);
	bool is_taken = endpoint_stream_put(call, (struct piece){ text, strlen(text), NULL });
	endpoint_stream_end(call, !is_taken);
	free(text);
	json_decref(json);
}

/* They are the blocks of whom they are said to be, and of the same prompt. */
static bool is_meant(const struct kv_channel *c, const json_t *question) {
	const char *key = key_of(question), *wanted = text_of(question, "engine_id");
	const json_t *rank = json_object_get(question, "rank");
	uint32_t holder = kv_table_rank(c->table, key);
	char engine_id[KV_ENGINE_BYTES], prompt[17];

	kv_engine_id(c->rules, holder, engine_id);
	snprintf(prompt, sizeof(prompt), "%016lx", kv_table_prompt(c->table, key));
	return (!rank || json_integer_value(rank) == holder) &&
	    (!wanted[0] || strcmp(wanted, engine_id) == 0) &&
	    strcmp(text_of(question, "prompt"), prompt) == 0;
}

static bool is_open(struct kv_channel *c, const json_t *question) {
	return kv_table_state(c->table, key_of(question), clock_now_ns()) < KV_HELD;
}

static void answer(struct kv_channel *c, struct endpoint_call *call, const json_t *question, bool is_stream) {
	const char *key = key_of(question);
	enum kv_state state = kv_table_state(c->table, key, clock_now_ns());

	if (state != KV_HELD) {
		say(call, is_stream, 404, json_pack("{s:s}", "error", kv_state_name(state)));
	} else if (!is_meant(c, question)) {
		say(call, is_stream, 409, json_pack("{s:s}", "error", "of another engine, rank or prompt"));
	} else {
		kv_table_fetch(c->table, key);
		say(call, is_stream, 200, json_pack("{s:s}", "key", key));
	}
}

/* --- who waits -------------------------------------------------------------------- */

static void asker_free(struct asker *a) {
	kv_table_ask(a->channel->table, key_of(a->question), -1, clock_now_ns());
	timer_stop(&a->timer);
	list_remove(&a->link);
	json_decref(a->question);
	free(a);
}

static void on_gone(void *owner) {
	asker_free(owner);
}

static void on_late(struct timer *t) {
	struct asker *a = container_of(t, struct asker, timer);
	answer(a->channel, a->call, a->question, true);
	asker_free(a);
}

/* Takes the question. */
static void wait_for(struct kv_channel *c, struct endpoint_call *call, json_t *question) {
	struct asker *a = calloc(1, sizeof(*a));

	*a = (struct asker){ .channel = c, .call = call, .question = question };
	list_init(&a->link);
	list_push(&c->askers, &a->link);
	timer_init(&a->timer, on_late);
	loop_timer(c->loop, &a->timer, c->ttl_ms);
	endpoint_keep(call, on_gone, a);
	endpoint_stream_begin(call, "application/json");
	kv_table_ask(c->table, key_of(question), 1, clock_now_ns());
	if (c->on_asked)
		c->on_asked(c);
}

static void tell_askers(struct kv_channel *c) {
	list_each_safe (it, &c->askers) {
		struct asker *a = container_of(it, struct asker, link);
		if (is_open(c, a->question))
			continue;
		answer(c, a->call, a->question, true);
		asker_free(a);
	}
}

/* --- endpoints -------------------------------------------------------------------- */

static void post_fetch(struct endpoint_call *call) {
	struct kv_channel *c = endpoint_context(call);
	struct slice body = endpoint_body(call);
	json_t *question = json_loadb(body.p ? body.p : "", body.n, 0, NULL);

	if (!key_of(question)[0] || strlen(key_of(question)) >= KV_KEY_BYTES) {
		endpoint_answer_error(call, 400, "bad_request", "Whose blocks?");
	} else if (json_is_true(json_object_get(question, "wait")) && is_open(c, question)) {
		wait_for(c, call, question);
		return;
	} else {
		answer(c, call, question, false);
	}
	json_decref(question);
}

static void get_query(struct endpoint_call *call) {
	const struct kv_channel *c = endpoint_context(call);
	json_t *ranks = json_object();

	for (uint32_t i = 0; i < c->rules->n_ranks; i++) {
		char rank[16], engine_id[KV_ENGINE_BYTES];
		snprintf(rank, sizeof(rank), "%u", i);
		kv_engine_id(c->rules, i, engine_id);
		json_object_set_new(ranks, rank, json_pack("{s:s}", "engine_id", engine_id));
	}
	endpoint_answer_json(call, 200, ranks);
}

static const struct endpoint endpoints[] = {
	{ METHOD_POST, "/mock/kv/fetch", post_fetch, BODY_BYTES_MAX, false },
	{ METHOD_GET, "/query", get_query, 0, false },
};

/* --- life ------------------------------------------------------------------------- */

void kv_channel_init(struct kv_channel *c, const struct kv_rules *rules, uint64_t ttl_ms) {
	*c =
	    (struct kv_channel){ .rules = rules, .table = kv_table_new(ttl_ms * 1000000u), .ttl_ms = ttl_ms };
	list_init(&c->askers);
}

int kv_channel_open(struct kv_channel *c, struct loop *loop, int fd) {
	c->loop = loop;
	return endpoint_server_open(&c->server, loop, fd, endpoints, n_elems(endpoints), c, NULL);
}

void kv_channel_close(struct kv_channel *c) {
	endpoint_server_close(&c->server);
}

void kv_channel_deinit(struct kv_channel *c) {
	if (c->loop)
		endpoint_server_deinit(&c->server);
	kv_table_free(&c->table);
}

void kv_channel_hold(struct kv_channel *c, const char *key) {
	kv_table_hold(c->table, key, clock_now_ns());
	tell_askers(c);
}

void kv_channel_fail(struct kv_channel *c, const char *key) {
	kv_table_fail(c->table, key);
	tell_askers(c);
}
