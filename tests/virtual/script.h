/*
 * script: a play of many clients and engines, told by a text of one act a line.
 *
 * The first byte of a line is the act, the rest its argument. In what peers say, "|"
 * stands for CR LF and "~" for LF, so that a play can be read and edited. Acts work on
 * the client and the engine's connection in hand; one that is impossible does nothing,
 * so that any text is a play. Honest peers put into their heads
 *
 *     x-tag: CLIENT.REQUEST.SIZE.MODEL.STREAM
 *
 * of which bodies are made (script_request_body, script_answer_body): ledger.h can then
 * tell what must have come out at the other end.
 */
#pragma once

#include "virtual/world.h"

#define SCRIPT_CLIENTS_MAX 16
#define SCRIPT_TIME_MAX_MS 200000
#define SCRIPT_KINDS       12

struct script {
	struct world *w;
	struct peer *clients[SCRIPT_CLIENTS_MAX];
	unsigned n_clients;
	struct peer *client, *engine; /* NULL engine: the newest */
	uint64_t passed_ms;
	const char *wrong; /* NULL: nothing so far */
};

/* --- what honest peers say ------------------------------------------------------------ */

static inline struct slice script_tag_part(struct slice tag, unsigned i) {
	struct slice part = { NULL, 0 };
	for (unsigned k = 0; k <= i; k++) {
		const char *dot = tag.n ? memchr(tag.p, '.', tag.n) : NULL;
		part = slice_head(tag, dot ? (size_t)(dot - tag.p) : tag.n);
		tag = dot ? slice_skip(tag, part.n + 1) : (struct slice){ NULL, 0 };
	}
	return part;
}

static inline void script_pad(struct bytes *b, struct slice tag) {
	static const size_t counts[] = { 0, 10, 300, 2000 };
	size_t i = parsed_number(script_tag_part(tag, 2), 10);
	char text[16];
	snprintf(text, sizeof(text), "%.*s:padding", (int)size_min(tag.n, 2), tag.p);
	for (size_t n = i < n_elems(counts) ? counts[i] : 0; n > 0; n--)
		bytes_add(b, slice_of(text));
}

static inline void script_request_body(struct bytes *b, struct slice tag) {
	struct slice model = script_tag_part(tag, 3);
	bool is_streamed = slice_eq(script_tag_part(tag, 4), SLICE("s"));
	bytes_printf(b, "{\"tag\":\"%.*s\",\"pad\":\"", (int)tag.n, tag.p);
	script_pad(b, tag);
	bytes_printf(b, "\",\"model\":\"%.*s\",\"stream\":%s,\"messages\":[]}", (int)model.n, model.p,
	    is_streamed ? "true" : "false");
}

enum script_framing { SCRIPT_BARE, SCRIPT_LENGTH, SCRIPT_CHUNKED, SCRIPT_TO_END };

struct script_kind {
	const char *head;
	enum script_framing framing;
	bool is_sse, has_trailer;
};

#define SCRIPT_JSON "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
#define SCRIPT_SSE  "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"

static const struct script_kind script_kinds[SCRIPT_KINDS] = {
	{ SCRIPT_JSON, SCRIPT_LENGTH, false, false },
	{ SCRIPT_SSE, SCRIPT_CHUNKED, true, false },
	{ SCRIPT_JSON, SCRIPT_CHUNKED, false, true },
	{ SCRIPT_SSE "connection: close\r\n", SCRIPT_TO_END, true, false },
	{ "HTTP/1.1 204 No Content\r\n", SCRIPT_BARE, false, false },
	{ "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n", SCRIPT_LENGTH, false, false },
	{ "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" SCRIPT_JSON,
	    SCRIPT_LENGTH, false, false },
	{ "HTTP/1.0 200 OK\r\n", SCRIPT_TO_END, false, false },
	{ SCRIPT_SSE "connection: close\r\n", SCRIPT_CHUNKED, true, false },
	{ SCRIPT_SSE, SCRIPT_LENGTH, true, false },
	{ "HTTP/1.1 2000 OK\r\n", SCRIPT_LENGTH, false, false }, /* not HTTP */
	{ SCRIPT_JSON "content-length: 0\r\n", SCRIPT_CHUNKED, false, false },
};

static inline void script_answer_body(struct bytes *b, unsigned kind, struct slice tag) {
	const struct script_kind *k = &script_kinds[kind];
	if (k->framing == SCRIPT_BARE)
		return;
	for (unsigned i = 0; k->is_sse && i < 5; i++) {
		bytes_printf(b, "data: {\"choices\":[{\"tag\":\"%.*s\",\"n\":%u", (int)tag.n, tag.p, i);
		bytes_printf(b, ",\"pad\":\"");
		if (i == 2)
			script_pad(b, tag);
		bytes_printf(b, "\"}]}\n\n");
	}
	if (k->is_sse) {
		bytes_printf(b, "data: [DONE]\n\n");
		return;
	}
	bytes_printf(b,
	    "{\"tag\":\"%.*s\",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4},\"pad\":\"",
	    (int)tag.n, tag.p);
	script_pad(b, tag);
	bytes_printf(b, "\"}");
}

static inline void script_chunks(struct bytes *out, struct slice body, bool has_trailer) {
	static const size_t sizes[] = { 1, 40, 7, 5000 };
	for (size_t i = 0; body.n; i++) {
		struct slice chunk = slice_head(body, sizes[i % n_elems(sizes)]);
		bytes_printf(out, "%zX%s\r\n", chunk.n, i % 3 ? "" : ";x=y");
		bytes_add(out, chunk);
		bytes_printf(out, "\r\n");
		body = slice_skip(body, chunk.n);
	}
	bytes_printf(out, "0\r\n%s\r\n", has_trailer ? "x-sum: 1\r\n" : "");
}

static inline void script_answer(struct bytes *out, unsigned kind, struct slice tag, bool is_head) {
	const struct script_kind *k = &script_kinds[kind];
	struct bytes body = { .n_max = SIZE_MAX };
	script_answer_body(&body, kind, tag);
	bytes_printf(out, "%sx-kind: %u\r\nx-tag: %.*s\r\n", k->head, kind, (int)tag.n, tag.p);
	if (k->framing == SCRIPT_LENGTH)
		bytes_printf(out, "content-length: %zu\r\n", body.n);
	if (k->framing == SCRIPT_CHUNKED)
		bytes_printf(out, "transfer-encoding: chunked\r\n");
	bytes_printf(out, "\r\n");
	if (k->framing == SCRIPT_CHUNKED && !is_head)
		script_chunks(out, bytes_slice(&body), k->has_trailer);
	else if (!is_head)
		bytes_add(out, bytes_slice(&body));
	bytes_deinit(&body);
}

/* --- acts -------------------------------------------------------------------------------- */

/* A small number; 0 if it is none. */
static inline size_t script_number(struct slice arg) {
	size_t n = parsed_number(arg, 10);
	return n == SIZE_MAX ? 0 : size_min(n, 1u << 30);
}

static inline bool script_can_talk(const struct peer *p) {
	return p && !p->has_left && !p->has_reset && !p->was_closed && p->link != PEER_FAILED;
}

static inline struct peer *script_engine(const struct script *s) {
	return s->engine ? s->engine : net_newest(-1);
}

static inline void script_say(struct peer *p, struct slice text) {
	while (script_can_talk(p) && text.n) {
		size_t n = 0;
		while (n < text.n && text.p[n] != '|' && text.p[n] != '~')
			n++;
		peer_say(p, slice_head(text, n));
		if (n < text.n)
			peer_say(p, text.p[n] == '|' ? SLICE("\r\n") : SLICE("\n"));
		text = slice_skip(text, size_min(n + 1, text.n));
	}
}

static inline void act_new_client(struct script *s, struct slice arg) {
	if (s->n_clients < SCRIPT_CLIENTS_MAX && net.n_peers < NET_PEERS_MAX)
		s->client = s->clients[s->n_clients++] = net_client();
}

static inline void act_pick_client(struct script *s, struct slice arg) {
	if (s->n_clients)
		s->client = s->clients[script_number(arg) % s->n_clients];
}

/* Number n of the connections that are open, the newest first. */
static inline void act_pick_engine(struct script *s, struct slice arg) {
	struct peer *open[16];
	size_t n = 0;
	for (unsigned i = net.n_peers; i-- > 1 && n < n_elems(open);)
		if (net.peers[i].engine >= 0 && !net.peers[i].was_closed)
			open[n++] = &net.peers[i];
	s->engine = n ? open[script_number(arg) % n] : NULL;
}

static inline void act_client_says(struct script *s, struct slice arg) {
	script_say(s->client, arg);
}

static inline void act_engine_says(struct script *s, struct slice arg) {
	script_say(script_engine(s), arg);
}

/* Makes up an answer of this kind to the next request, of which the head at least has come; said by '+'. */
static inline void act_answer(struct script *s, struct slice arg) {
	struct peer *engine = script_engine(s);
	struct parsed m;
	struct slice rest = engine ? peer_unseen(engine) : (struct slice){ NULL, 0 };
	if (!engine || !parsed_next(&m, PARSED_REQUEST, &rest, false))
		return;
	if (!m.is_bad && engine->n_seen >= engine->n_promised) { /* else it was answered early */
		script_answer(&engine->todo, (unsigned)script_number(arg) % SCRIPT_KINDS,
		    parsed_field(&m, "x-tag"), slice_has_prefix(m.line, SLICE("HEAD ")));
		engine->n_promised = engine->n_seen + 1;
	}
	if (!m.is_bad && m.is_whole)
		engine->n_seen = engine->got.n - rest.n;
	parsed_deinit(&m);
}

/* The next n bytes of what was made up; 0: all. */
static inline void act_say_on(struct script *s, struct slice arg) {
	struct peer *engine = script_engine(s);
	if (!script_can_talk(engine) || engine->n_todo_said == engine->todo.n)
		return;
	struct slice rest = slice_skip(bytes_slice(&engine->todo), engine->n_todo_said);
	size_t n = script_number(arg);
	rest = slice_head(rest, n ? n : rest.n);
	engine->n_todo_said += rest.n;
	peer_say(engine, rest);
}

/* The exchange at work for a client, or NULL. */
static inline const struct exchange *script_exchange(const struct script *s, const struct peer *client) {
	list_each (it, &s->w->worker.active) {
		const struct exchange *x = container_of(it, struct exchange, link);
		if (x->down.conn && x->down.conn->fd == client->fd)
			return x;
	}
	return NULL;
}

/* An engine that works for a client that leaves is let go in the same turn. */
static inline void script_leave(struct script *s, void (*how)(struct peer *)) {
	struct peer *client = s->client, *engine = NULL;
	if (!client || client->has_left || client->has_reset)
		return;
	world_settle(s->w);
	const struct exchange *x = client->was_closed ? NULL : script_exchange(s, client);
	if (x && x->upstream)
		engine = net_peer(x->upstream->conn.fd);
	how(client);
	world_turn(s->w);
	if (engine && !engine->was_closed && s->w->config.half_close == ROUTER_HALF_CLOSE_ABORT)
		s->wrong = "the client left and its engine goes on";
}

static inline void act_client_finishes(struct script *s, struct slice arg) {
	script_leave(s, peer_finish);
}

static inline void act_client_closes(struct script *s, struct slice arg) {
	script_leave(s, peer_close);
}

static inline void act_client_breaks(struct script *s, struct slice arg) {
	script_leave(s, peer_break);
}

static inline void act_engine_finishes(struct script *s, struct slice arg) {
	if (script_can_talk(script_engine(s)))
		peer_finish(script_engine(s));
}

static inline void act_engine_closes(struct script *s, struct slice arg) {
	if (script_can_talk(script_engine(s)))
		peer_close(script_engine(s));
}

static inline void act_engine_breaks(struct script *s, struct slice arg) {
	if (script_can_talk(script_engine(s)))
		peer_break(script_engine(s));
}

static inline void act_engine_deafens(struct script *s, struct slice arg) {
	if (script_can_talk(script_engine(s)))
		peer_deafen(script_engine(s));
}

/* Takes n bytes more; nothing said: all. */
static inline void act_client_reads(struct script *s, struct slice arg) {
	if (s->client)
		peer_stall(s->client, arg.n ? script_number(arg) : SIZE_MAX);
}

static inline void act_engine_reads(struct script *s, struct slice arg) {
	struct peer *engine = script_engine(s);
	if (engine && engine->link == PEER_UP) /* what has just connected can always be written to */
		peer_stall(engine, arg.n ? script_number(arg) : SIZE_MAX);
}

/* m20: engine 2 accepts; 1 refuses, 2 is silent, 3 cannot be reached. */
static inline void act_mood(struct script *s, struct slice arg) {
	size_t n = script_number(arg);
	net.moods[n / 10 % NET_ENGINES_MAX][0] = (enum net_mood)(n % 10 % 4);
}

static inline void act_answer_connects(struct script *s, struct slice arg) {
	for (unsigned i = 1; i < net.n_peers; i++)
		if (net.peers[i].engine >= 0 && net.peers[i].link == PEER_WAITING)
			peer_answer_connect(&net.peers[i], script_number(arg) == 0);
}

static inline void script_fleet(struct world *w, size_t variant) {
	static const char *const models[][4] = {
		{ "m", "m", "m,n", NULL },  /* where all plays begin */
		{ "m", NULL, "m,n", NULL }, /* one leaves */
		{ "m", "m", "m,n", "m" },   /* one comes */
		{ NULL, "m", "m,n", NULL }, /* another one leaves */
		{ NULL, NULL, NULL, NULL }, /* nobody is there */
		{ "m", "m", NULL, NULL },   /* one model: nobody waits for its name */
	};
	if (variant == w->variant)
		return;
	w->variant = variant;
	for (unsigned i = 0; i < 4; i++) {
		char name[8];
		const char *model = models[variant % n_elems(models)][i];
		snprintf(name, sizeof(name), "e%u", i);
		if (model)
			world_set_engine(w, i, model, 1);
		else
			fleet_remove(w->fleet, SOURCE_STATIC, slice_of(name));
	}
	world_publish(w);
}

static inline void act_fleet(struct script *s, struct slice arg) {
	script_fleet(s->w, script_number(arg));
}

/* Second requests for all that may have one, after so long. */
static inline void script_hedge(struct world *w, uint64_t wait_ms) {
	static const char *const models[] = { "m", "n" };
	w->config.hedge = (struct hedge_options){
		.is_enabled = true, .percentile = 0.5, .wait_min_ms = wait_ms, .budget = 1
	};
	for (unsigned i = 0; i < n_elems(models); i++) {
		const struct model *model = snapshot_model(w->worker.view->snapshot, slice_of(models[i]));
		struct lateness_model *l = model ? &w->worker.lateness[model->label] : NULL;
		for (unsigned k = 0; l && k < 2 * LATENESS_SIZES * LATENESS_MIN; k++)
			lateness_learn(&l->of[k & 1][k / 2 % LATENESS_SIZES], 0);
	}
}

static inline void act_option(struct script *s, struct slice arg) {
	struct router_config *config = &s->w->config;
	size_t n = arg.n ? script_number(slice_skip(arg, 1)) : 0;
	switch (arg.n ? arg.p[0] : 0) {
	case 'a':
		config->retry.attempts = 1 + (uint32_t)(n % 4);
		config->retry.sent = true; /* for the rest of the play */
		break;
	case 'B':
		config->breaker.limits.failures = (uint32_t)(n % 8);
		break;
	case 'H':
		script_hedge(s->w, 1 + n % 1000);
		break;
	case 'b':
		config->body_limit_bytes = n;
		break;
	case 'c':
		config->half_close = n ? ROUTER_HALF_CLOSE_SERVE : ROUTER_HALF_CLOSE_ABORT;
		break;
	case 'f':
		config->timeout.first_byte_all = n;
		break;
	case 'h':
		config->hold_limit_bytes = n;
		break;
	case 'i':
		config->inspect_limit_bytes = n;
		break;
	case 'm':
		s->w->router.budget.max_bytes = n ? n : 16u << 20;
		break;
	case 'r':
		net.read_max = 10 * n;
		break;
	case 's':
		net.socket_errno = n ? EMFILE : 0;
		break;
	case 't':
		config->timeout.total_ms = n;
		break;
	case 'w':
		net.write_max = 10 * n;
		break;
	default:
		break;
	}
}

static inline uint64_t script_time(struct script *s, struct slice arg) {
	uint64_t ms = u64_min(script_number(arg), SCRIPT_TIME_MAX_MS - s->passed_ms);
	s->passed_ms += ms;
	return ms;
}

static inline void act_pass(struct script *s, struct slice arg) {
	world_pass(s->w, script_time(s, arg));
}

static inline void act_pause(struct script *s, struct slice arg) {
	world_pause(script_time(s, arg));
}

static inline void act_turn(struct script *s, struct slice arg) {
	world_turn(s->w);
}

static inline void act_settle(struct script *s, struct slice arg) {
	world_settle(s->w);
}

typedef void (*act_fn)(struct script *s, struct slice arg);

static const struct {
	char name;
	act_fn run;
} script_acts[] = {
	{ 'c', act_new_client },
	{ '@', act_pick_client },
	{ '#', act_pick_engine },
	{ '>', act_client_says },
	{ '<', act_engine_says },
	{ 'a', act_answer },
	{ '+', act_say_on },
	{ 'f', act_client_finishes },
	{ 'x', act_client_closes },
	{ 'k', act_client_breaks },
	{ 'F', act_engine_finishes },
	{ 'X', act_engine_closes },
	{ 'K', act_engine_breaks },
	{ 'D', act_engine_deafens },
	{ 'r', act_client_reads },
	{ 'R', act_engine_reads },
	{ 'm', act_mood },
	{ 'y', act_answer_connects },
	{ 'v', act_fleet },
	{ 'o', act_option },
	{ 't', act_pass },
	{ 'p', act_pause },
	{ '.', act_turn },
	{ 'w', act_settle },
};

/* Each charge belongs to one exchange at work, and each request that came in is there or counted as ended. */
static inline void script_check_load(struct script *s) {
	const struct metric_shard *m = s->w->worker.metrics;
	uint64_t n_ended = m->succeeded + m->failed + m->rejected + m->cancelled;
	uint64_t n_charged = 0, n_active = 0;
	list_each (it, &s->w->worker.active) {
		const struct exchange *x = container_of(it, struct exchange, link);
		n_active++;
		n_charged += (x->ticket.instance != NULL) + hedge_is_out(x);
	}
	if (m->accepted != n_ended + n_active || s->w->worker.n_active != n_active)
		s->wrong = "requests are lost to the count";
	if (world_load(s->w) != n_charged)
		s->wrong = "load is not what is at work";
}

/* --- the play ---------------------------------------------------------------------------- */

static inline struct world *script_world(void) {
	struct world *w = WORLD("m", "m", "m,n");
	w->config.request_id_headers.n = 0; /* ids are the router's own: the ledger knows requests by them */
	return w;
}

/* Everything as script_world() left it, but for the time. All connections must be closed. */
static inline void script_renew(struct world *w) {
	net_reset();
	world_configure(&w->config);
	w->config.request_id_headers.n = 0;
	w->router.budget.max_bytes = 16u << 20;
	script_fleet(w, 0);
	const struct snapshot *snap = w->worker.view->snapshot;
	for (uint32_t i = 0; i < snap->n_rows; i++) {
		snap->rows[i].instance->avoid_until_ms = 0;
		snap->rows[i].instance->n_failures = 0;
		snap->rows[i].instance->breaker.word = 0;
	}
	rng_init(&w->worker.rng, 1);
	struct policy_set fresh = {
		.options = &w->config.policies, .load = w->router.load, .rng = &w->worker.rng
	};
	policy_set_deinit(&w->worker.policies);
	policy_set_init(&fresh);
	w->worker.policies = fresh;
	memset(w->worker.lateness, 0, 16 * sizeof(*w->worker.lateness)); /* there are fewer models */
	policy_set_adopt(&w->worker.policies, w->worker.view->snapshot);
	bytes_clear(&w->log);
	w->n_lines = 0;
	w->worker.n_ids = 0;
}

/* Clients leave, and engines that still work for one who is half gone. */
static inline void script_end(struct world *w) {
	net.read_max = net.write_max = 0; /* the end need not be slow */
	world_settle(w);
	world_say_goodbye(w);
	for (unsigned i = 0; i < 20 && !list_is_empty(&w->worker.active); i++) {
		for (unsigned k = 1; k < net.n_peers; k++)
			if (net.peers[k].engine >= 0)
				peer_break(&net.peers[k]);
		world_pass(w, 1000);
	}
	if (w->worker.server.n_sessions)
		world_pass(w, 2500); /* some linger */
}

/* NULL, or what went wrong. Everybody has left then, but can still be looked at. */
static inline const char *script_play(struct world *w, struct slice text) {
	struct script s = { .w = w };
	while (text.n && !s.wrong) {
		const char *end = memchr(text.p, '\n', text.n);
		struct slice line = slice_head(text, end ? (size_t)(end - text.p) : text.n);
		text = slice_skip(text, size_min(line.n + 1, text.n));
		for (size_t i = 0; line.n && i < n_elems(script_acts); i++)
			if (script_acts[i].name == line.p[0])
				script_acts[i].run(&s, slice_skip(line, 1));
		script_check_load(&s);
	}
	script_end(w);
	return s.wrong ? s.wrong : world_is_wrong(w);
}
