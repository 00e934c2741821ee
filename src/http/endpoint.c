/*
 * A call to an endpoint goes through these states; its job is woken by its connection
 * and by its timer, and only looks what has come:
 *
 *     BODY -> RUNNING -> SENDING -> end             answered within run()
 *             RUNNING -> KEPT -> SENDING -> end     answered later
 *                        KEPT -> STREAM -> SENDING -> end
 *
 * SENDING lasts until the socket has taken the answer, so that a client that asks
 * without reading holds one answer at most. The owner of a kept call is told that it is
 * gone by the job alone (or by closing the server), never from within a call that the
 * owner made.
 */
#include "http/endpoint.h"

#include <sys/resource.h>

#include "base/percent.h"
#include "base/utf8.h"
#include "http/caller.h"
#include "http/reply.h"

#define BODY_IDLE_MS      10000
#define BODY_MS           30000        /* altogether */
#define BODIES_BYTES_MAX  (256u << 20) /* of all calls of a server */
#define WRITE_MS          30000        /* for a client that does not read */
#define UNWANTED_BYTES    65536u
#define STREAM_BYTES_MAX  (1u << 20)
#define MESSAGE_BYTES_MAX 512
#define BODY_ROOM_MIN     4096u

enum endpoint_state { ENDPOINT_BODY = 1, ENDPOINT_RUNNING, ENDPOINT_KEPT, ENDPOINT_STREAM, ENDPOINT_SENDING };

struct endpoint_call {
	struct call call;
	struct job job;
	struct timer timer;
	struct list link; /* server->active */
	struct endpoint_server *server;
	const struct endpoint *row; /* NULL: not known yet, or refused */
	struct buf *head;
	char *body;
	size_t body_bytes, body_room;
	uint64_t body_until_ms;
	char *text; /* decoded: the parameter, behind it a value of the query */
	size_t param_bytes;
	void (*on_gone)(void *owner); /* of a kept call that is not answered */
	void *owner;
	uint64_t sent_bytes;    /* by the connection, when it was last looked at */
	size_t unlimited_bytes; /* a stream's text that was put while nothing waited */
	uint8_t state;          /* enum endpoint_state */
	bool keeps;             /* the connection, after the answer */
	bool is_invited;        /* 100 (Continue) was said */
	bool is_late;           /* the body's deadline has passed */
};

static const struct head *head_of(const struct endpoint_call *c) {
	return (const struct head *)c->head->data;
}

static void endpoint_timer(struct endpoint_call *c, uint64_t delay_ms) {
	timer_stop(&c->timer); /* the new deadline may be the earlier one */
	loop_timer(c->server->server.loop, &c->timer, delay_ms);
}

/* --- the end of a call -------------------------------------------------------------- */

static void endpoint_free(struct endpoint_call *c) {
	struct endpoint_server *s = c->server;
	buf_unref(&s->server.loop->bufs, &c->head);
	job_cancel(&c->job);
	timer_stop(&c->timer);
	list_remove(&c->link);
	s->bodies_bytes -= c->body_room;
	free(c->body);
	free(c->text);
	slab_put(&s->calls, c);
	if (list_is_empty(&s->active))
		slab_trim(&s->calls);
}

/* In order: everything was said. */
static void endpoint_finish(struct endpoint_call *c) {
	session_next(&c->call, c->keeps);
	endpoint_free(c);
}

static void endpoint_abort(struct endpoint_call *c) {
	session_abort(&c->call, true);
	endpoint_free(c);
}

/* As one of these two, and whoever has kept it hears of it. */
static void endpoint_leave(struct endpoint_call *c, void (*end)(struct endpoint_call *)) {
	void (*on_gone)(void *owner) = c->on_gone;
	void *owner = c->owner;
	end(c);
	if (on_gone)
		on_gone(owner);
}

/* Who has said that he says no more may still wait for the answer to what is being done for him. */
static bool endpoint_is_left(const struct endpoint_call *c) {
	const struct conn *conn = c->call.conn;
	bool is_awaited = c->state == ENDPOINT_KEPT || c->state == ENDPOINT_SENDING;
	return is_awaited ? conn->is_broken || conn->has_failed : call_is_gone(&c->call);
}

/* The answer is complete, but for what the client has not taken. The caller's hands are off the call now. */
static void endpoint_send_rest(struct endpoint_call *c, int r) {
	c->on_gone = NULL;
	if (c->state == ENDPOINT_KEPT && !endpoint_is_left(c))
		conn_ignore_peer_close(c->call.conn);
	if (c->server->running == c)
		c->server->running = NULL;
	if (r) {
		endpoint_abort(c);
	} else if (!call_pending(&c->call)) {
		endpoint_finish(c);
	} else {
		c->state = ENDPOINT_SENDING;
		endpoint_timer(c, WRITE_MS);
		if (call_is_gone(&c->call)) /* its event has been */
			loop_wake(c->server->server.loop, &c->job);
	}
}

/* --- answers ------------------------------------------------------------------------ */

static void endpoint_begin_answer(struct endpoint_call *c, struct reply *reply) {
	assert(c->state == ENDPOINT_BODY || c->state == ENDPOINT_RUNNING || c->state == ENDPOINT_KEPT);
	reply_follow(reply, head_of(c), session_is_last(session_of(&c->call)) || !call_is_received(&c->call));
	c->keeps = !reply->closes;
}

static void endpoint_send(struct endpoint_call *c, struct reply *reply) {
	endpoint_begin_answer(c, reply);
	endpoint_send_rest(c, reply_send(&c->call, reply));
}

static enum reply_dialect endpoint_dialect(const struct endpoint_call *c) {
	return reply_dialect((enum reply_dialect)c->server->server.dialect, head_path(head_of(c)));
}

static void endpoint_refuse(struct endpoint_call *c, enum cause cause, struct slice allow) {
	struct reply reply = { .allow = allow };
	if (cause == CAUSE_ADMIN_KEY)
		reply.authenticate = SLICE("Bearer");
	endpoint_begin_answer(c, &reply);
	endpoint_send_rest(c, reply_refuse(&c->call, &reply, cause, NULL, endpoint_dialect(c)));
}

void endpoint_answer_piece(struct endpoint_call *c, unsigned status, const char *type, struct piece body) {
	struct reply reply = { .status = status };
	if (type) {
		reply.content_type = slice_of(type);
		reply.body = (struct slice){ body.p, body.n };
		reply.body_owner = body.owner;
	}
	endpoint_send(c, &reply);
}

void endpoint_answer_text(struct endpoint_call *c, unsigned status, const char *type, struct slice body) {
	endpoint_answer_piece(c, status, type, (struct piece){ body.p, body.n, NULL });
}

void endpoint_answer_metrics(struct endpoint_call *c, void (*write)(void *context, FILE *out)) {
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	assert(out);
	write(endpoint_context(c), out);
	fclose(out);
	endpoint_answer_text(c, 200, "text/plain; version=0.0.4; charset=utf-8", (struct slice){ text, n });
	free(text);
}

static void endpoint_send_json(struct endpoint_call *c, struct reply *reply, json_t *json) {
	char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
	json_decref(json);
	if (!text) { /* something in it was not text */
		reply->status = 500;
		text = strdup("{\"error\":\"the answer is not valid JSON\",\"code\":\"internal_error\"}");
	}
	reply->content_type = SLICE("application/json");
	reply->body = slice_of(text);
	endpoint_send(c, reply);
	free(text);
}

void endpoint_answer_json(struct endpoint_call *c, unsigned status, json_t *json) {
	struct reply reply = { .status = status };
	endpoint_send_json(c, &reply, json);
}

/* Messages quote what clients say: what is no text becomes question marks. */
static void endpoint_clean(char *message) {
	for (struct slice rest = slice_of(message); rest.n;) {
		char *p = message + (rest.p - message);
		size_t n = *p > 0 ? 1 : utf8_length(rest);
		if (!n)
			*p = '?';
		rest = slice_skip(rest, n ? n : 1);
	}
}

void endpoint_answer_error(
    struct endpoint_call *c, unsigned status, const char *code, const char *format, ...) {
	struct reply reply = { .status = status, .retry_after_s = status == 503 };
	char message[MESSAGE_BYTES_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	endpoint_clean(message);
	if (status == 401)
		reply.authenticate = SLICE("Bearer");
	endpoint_send_json(c, &reply, json_pack("{s:s, s:s}", "error", message, "code", code));
}

/* --- kept calls and streams --------------------------------------------------------- */

void endpoint_keep(struct endpoint_call *c, void (*on_gone)(void *owner), void *owner) {
	assert(c->state == ENDPOINT_RUNNING && c->server->running == c);
	c->server->running = NULL;
	c->state = ENDPOINT_KEPT;
	c->on_gone = on_gone;
	c->owner = owner;
	if (call_is_gone(&c->call)) /* its event has been */
		loop_wake(c->server->server.loop, &c->job);
}

/* What cannot be sent is found out by the job, not under the owner's hands. */
static void endpoint_flush(struct endpoint_call *c, struct call_out *o) {
	if (call_flush(o) || call_is_gone(&c->call))
		loop_wake(c->server->server.loop, &c->job);
	else if (call_pending(&c->call) && !timer_is_running(&c->timer)) {
		c->sent_bytes = c->call.conn->sent_bytes;
		endpoint_timer(c, WRITE_MS);
	}
}

void endpoint_stream_begin(struct endpoint_call *c, const char *type) {
	struct call_out o;
	struct reply reply = { .closes = false };
	assert(c->state == ENDPOINT_KEPT);
	endpoint_begin_answer(c, &reply);
	bool has_chunks = head_of(c)->minor > 0;
	c->keeps &= has_chunks;
	c->state = ENDPOINT_STREAM;
	call_begin(&o, &c->call);
	call_put_status_line(&o, 200);
	call_put_field(&o, SLICE("content-type"), slice_of(type));
	call_put_field(&o, SLICE("cache-control"), SLICE("no-cache"));
	if (!c->keeps)
		call_put_field(&o, SLICE("connection"), SLICE("close"));
	call_put_head_end(&o, has_chunks ? FRAMING_CHUNKED : FRAMING_CLOSE, 0);
	endpoint_flush(c, &o);
	if (reply.is_head) /* that was all; the job ends it */
		loop_wake(c->server->server.loop, &c->job);
}

bool endpoint_stream_put(struct endpoint_call *c, struct piece text) {
	struct call_out o;
	assert(c->state == ENDPOINT_STREAM);
	size_t n_pending = call_pending(&c->call);
	if (c->call.conn->is_broken || head_of(c)->method == METHOD_HEAD)
		return true; /* on_gone is on its way */
	if (!n_pending)
		c->unlimited_bytes = text.n;
	else if (n_pending + text.n > STREAM_BYTES_MAX + c->unlimited_bytes)
		return false;
	call_begin(&o, &c->call);
	call_put_data(&o, &text, 1);
	endpoint_flush(c, &o);
	return true;
}

void endpoint_stream_end(struct endpoint_call *c, bool cut) {
	struct call_out o;
	assert(c->state == ENDPOINT_STREAM);
	if (cut || c->call.conn->is_broken) {
		endpoint_abort(c);
		return;
	}
	call_begin(&o, &c->call);
	if (head_of(c)->method != METHOD_HEAD)
		call_put_end(&o, NULL);
	endpoint_send_rest(c, o.n ? call_flush(&o) : 0);
}

/* An event of the connection: has the client read? */
static void endpoint_watch_reader(struct endpoint_call *c) {
	uint64_t sent_bytes = c->call.conn->sent_bytes;
	if (!call_pending(&c->call))
		timer_stop(&c->timer);
	else if (sent_bytes != c->sent_bytes)
		endpoint_timer(c, WRITE_MS);
	c->sent_bytes = sent_bytes;
}

/* --- the request -------------------------------------------------------------------- */

static bool endpoint_matches(const struct endpoint *row, struct slice path, struct slice *param_out) {
	const char *brace = strchr(row->path, '{');
	*param_out = (struct slice){ NULL, 0 };
	if (!brace)
		return slice_eq(path, slice_of(row->path));
	struct slice before = { row->path, (size_t)(brace - row->path) };
	if (!slice_has_prefix(path, before))
		return false;
	const char *closing = strchr(brace, '}');
	assert(closing);
	struct slice rest = slice_skip(path, before.n);
	if (closing[-1] == '*') {
		*param_out = rest;
		return rest.n;
	}
	const char *slash = rest.n ? memchr(rest.p, '/', rest.n) : NULL;
	*param_out = (struct slice){ rest.p, slash ? (size_t)(slash - rest.p) : rest.n };
	return param_out->n && slice_eq(slice_skip(rest, param_out->n), slice_of(closing + 1));
}

static unsigned endpoint_methods(const struct endpoint *row) {
	return 1u << row->method | (row->method == METHOD_GET ? 1u << METHOD_HEAD : 0);
}

static struct slice endpoint_allow(unsigned methods, char room[64]) {
	static const char *const names[] = {
		[METHOD_GET] = "GET",
		[METHOD_HEAD] = "HEAD",
		[METHOD_POST] = "POST",
		[METHOD_PUT] = "PUT",
		[METHOD_DELETE] = "DELETE",
		[METHOD_OPTIONS] = "OPTIONS",
	};
	size_t n = 0;
	room[0] = '\0';
	for (unsigned m = METHOD_GET; m < n_elems(names); m++)
		if (methods & 1u << m)
			n += (size_t)snprintf(room + n, 64 - n, "%s%s", n ? ", " : "", names[m]);
	return (struct slice){ room, n };
}

/* A room of the target's length is enough for all that is decoded. */
static char *endpoint_text(struct endpoint_call *c) {
	if (!c->text)
		c->text = malloc(head_of(c)->target_n + 1u);
	return c->text;
}

bool endpoint_has_token(const struct endpoint_call *c, struct slice token) {
	return caller_has_token(head_of(c), token);
}

static bool endpoint_is_allowed(struct endpoint_call *c) {
	struct slice token = slice_of(c->server->token);
	if (!c->row->writes || (token.n && endpoint_has_token(c, token)))
		return true;
	return c->server->is_guarded ? caller_is_of_here(session_of(&c->call), head_of(c)) : !token.n;
}

static size_t endpoint_body_max(const struct endpoint_call *c) {
	return c->row->body_bytes_max ? c->row->body_bytes_max : UNWANTED_BYTES;
}

/* Finds the row. Answers and returns false when the head alone is reason to. */
static bool endpoint_admit(struct endpoint_call *c) {
	const struct endpoint_server *s = c->server;
	const struct head *head = head_of(c);
	struct slice path = head_path(head), param, found = { NULL, 0 };
	unsigned methods = 0;
	char allow[64];
	for (size_t i = 0; i < s->n_rows && !c->row; i++) {
		if (!endpoint_matches(&s->rows[i], path, &param))
			continue;
		methods |= endpoint_methods(&s->rows[i]);
		if (endpoint_methods(&s->rows[i]) & 1u << head->method) {
			c->row = &s->rows[i];
			found = param;
		}
	}
	if (!methods)
		endpoint_refuse(c, CAUSE_NOT_FOUND, (struct slice){ NULL, 0 });
	else if (!c->row)
		endpoint_refuse(c, CAUSE_NOT_ALLOWED, endpoint_allow(methods, allow));
	else if (!endpoint_is_allowed(c) && s->is_guarded)
		endpoint_refuse(c, CAUSE_ADMIN_KEY, (struct slice){ NULL, 0 });
	else if (!endpoint_is_allowed(c))
		endpoint_answer_error(c, 401, "invalid_api_key", "this needs the right bearer token");
	else if (found.n && !percent_decode(found, false, endpoint_text(c), &c->param_bytes))
		endpoint_answer_error(
		    c, 400, "bad_request", "the path is not percent-encoded as it should be");
	else if (head->framing == FRAMING_LENGTH && head->content_length > endpoint_body_max(c))
		endpoint_refuse(c, CAUSE_BODY_TOO_LARGE, (struct slice){ NULL, 0 });
	else
		return true;
	return false;
}

/* False: all the bodies together have taken what there is for them. */
static bool endpoint_make_room(struct endpoint_call *c, size_t n) {
	struct endpoint_server *s = c->server;
	if (n <= c->body_room)
		return true;
	size_t room =
	    size_min(size_max(n, size_max(2 * c->body_room, BODY_ROOM_MIN)), c->row->body_bytes_max);
	size_t more = room - c->body_room;
	if (more > BODIES_BYTES_MAX - s->bodies_bytes || buf_is_over_budget(&s->server.loop->bufs))
		return false;
	s->bodies_bytes += more;
	c->body_room = room;
	c->body = realloc(c->body, room);
	return true;
}

/* CAUSE_NONE, or why it is refused. */
static enum cause endpoint_keep_body(struct endpoint_call *c, const struct call_in *in) {
	if (c->call.in_bytes > endpoint_body_max(c))
		return CAUSE_BODY_TOO_LARGE;
	if (!c->row->body_bytes_max)
		return CAUSE_NONE;
	if (!endpoint_make_room(c, c->body_bytes + in->bytes))
		return CAUSE_OVERLOADED;
	for (size_t i = 0; i < in->n; i++) {
		memcpy(c->body + c->body_bytes, in->pieces[i].p, in->pieces[i].n);
		c->body_bytes += in->pieces[i].n;
	}
	return CAUSE_NONE;
}

/* Some of it has come: silence begins afresh, but the whole must end. */
static void endpoint_await_body(struct endpoint_call *c) {
	uint64_t now_ms = loop_now_ms(c->server->server.loop);
	c->is_late = now_ms >= c->body_until_ms;
	if (!c->is_late)
		endpoint_timer(c, u64_min(BODY_IDLE_MS, c->body_until_ms - now_ms));
}

/* RFC 9110 section 10.1.1. The next look at the connection shows if nobody heard it. */
static int endpoint_invite(struct endpoint_call *c) {
	struct call_out o;
	if (c->is_invited || !head_of(c)->expects_continue || c->call.in_bytes)
		return 0;
	c->is_invited = true;
	call_begin(&o, &c->call);
	call_put_status_line(&o, 100);
	call_put_interim_end(&o);
	return call_flush(&o);
}

static void endpoint_run(struct endpoint_call *c) {
	struct endpoint_server *s = c->server;
	timer_stop(&c->timer);
	c->state = ENDPOINT_RUNNING;
	s->running = c;
	c->row->run(c);
	assert(s->running != c); /* answered or kept */
}

static void endpoint_receive(struct endpoint_call *c) {
	struct call_in in;
	int r;
	if (!c->row && !endpoint_admit(c))
		return;
	while ((r = call_recv(&c->call, LOOP_READ_BYTES, &in)) == 0) {
		enum cause cause = endpoint_keep_body(c, &in);
		if (cause) {
			endpoint_refuse(c, cause, (struct slice){ NULL, 0 });
			return;
		}
		if (in.is_end) {
			endpoint_run(c);
			return;
		}
		endpoint_await_body(c);
	}
	if (r == CALL_E_BAD)
		endpoint_refuse(c, CAUSE_MALFORMED, (struct slice){ NULL, 0 });
	else if (r == CALL_E_GONE || endpoint_invite(c))
		endpoint_abort(c);
	else if (c->is_late) /* what came before this was looked at has been read */
		endpoint_refuse(c, CAUSE_BODY_TIMEOUT, (struct slice){ NULL, 0 });
}

static void endpoint_on_job(struct job *job) {
	struct endpoint_call *c = container_of(job, struct endpoint_call, job);
	assert(c->state != ENDPOINT_RUNNING);
	if (c->state == ENDPOINT_BODY)
		endpoint_receive(c);
	else if (endpoint_is_left(c))
		endpoint_leave(c, endpoint_abort);
	else if (c->state == ENDPOINT_STREAM && head_of(c)->method == METHOD_HEAD)
		endpoint_leave(c, endpoint_finish);
	else if (c->state == ENDPOINT_STREAM)
		endpoint_watch_reader(c);
	else if (c->state == ENDPOINT_SENDING && !call_pending(&c->call))
		endpoint_finish(c);
}

static void endpoint_on_timer(struct timer *t) {
	struct endpoint_call *c = container_of(t, struct endpoint_call, timer);
	bool has_read = !call_pending(&c->call) || c->sent_bytes != c->call.conn->sent_bytes;
	c->is_late = true;
	if (c->state == ENDPOINT_BODY || (c->state == ENDPOINT_STREAM && has_read))
		loop_wake(c->server->server.loop, &c->job);
	else if (c->state != ENDPOINT_SENDING || call_pending(&c->call)) /* else its event has just been */
		endpoint_leave(c, endpoint_abort);
}

static struct job *endpoint_on_begin(
    struct server *server, struct session *session, const struct head *head) {
	struct endpoint_server *s = server->context;
	struct endpoint_call *c = slab_get_zeroed(&s->calls);
	c->server = s;
	c->state = ENDPOINT_BODY;
	c->head = head_copy(&server->loop->bufs, head);
	job_init(&c->job, endpoint_on_job);
	timer_init(&c->timer, endpoint_on_timer);
	list_init(&c->link);
	list_push(&s->active, &c->link);
	session_take(session, &c->call, &c->job, head);
	loop_timer(server->loop, &c->timer, BODY_IDLE_MS);
	c->body_until_ms = loop_now_ms(server->loop) + BODY_MS;
	return &c->job;
}

/* --- what was asked ------------------------------------------------------------------ */

void *endpoint_context(const struct endpoint_call *c) {
	return c->server->context;
}

const struct head *endpoint_head(const struct endpoint_call *c) {
	return head_of(c);
}

struct slice endpoint_param(const struct endpoint_call *c) {
	return (struct slice){ c->text, c->param_bytes };
}

struct slice endpoint_body(const struct endpoint_call *c) {
	return (struct slice){ c->body, c->body_bytes };
}

static struct slice endpoint_raw_query(const struct endpoint_call *c) {
	struct slice target = head_target(head_of(c));
	return slice_skip(target, size_min(head_path(head_of(c)).n + 1, target.n));
}

bool endpoint_query_is_good(struct endpoint_call *c) {
	size_t n;
	return percent_decode(endpoint_raw_query(c), true, endpoint_text(c) + c->param_bytes, &n);
}

struct slice endpoint_query(struct endpoint_call *c, const char *key) {
	return percent_query(endpoint_raw_query(c), slice_of(key), endpoint_text(c) + c->param_bytes);
}

struct slice endpoint_peer(struct endpoint_call *c, char room[static ENDPOINT_PEER_BYTES]) {
	return caller_peer(session_of(&c->call), room);
}

bool endpoint_is_local(struct endpoint_call *c) {
	return caller_is_local(session_of(&c->call));
}

bool endpoint_wants_events(const struct endpoint_call *c) {
	struct slice rest = head_find_name(head_of(c), SLICE("accept")), member;
	if (head_of(c)->method == METHOD_HEAD)
		return false;
	while (slice_next_member(&rest, &member)) {
		const char *semicolon = member.n ? memchr(member.p, ';', member.n) : NULL;
		if (semicolon)
			member = slice_trim(slice_head(member, (size_t)(semicolon - member.p)));
		if (slice_is(member, SLICE("text/event-stream")))
			return true;
	}
	return false;
}

/* --- the server ---------------------------------------------------------------------- */

static const struct server_handler handler = { .begin = endpoint_on_begin };

/* The other half is for what the program does itself: who asks must not keep it from that. */
static uint32_t endpoint_clients_max(void) {
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return UINT32_MAX;
	return (uint32_t)u64_min(limit.rlim_cur / 2, UINT32_MAX);
}

int endpoint_server_open(struct endpoint_server *s, struct loop *loop, int fd, const struct endpoint *rows,
    size_t n_rows, void *context, const char *token) {
	static const struct server_limits limits = { .head_ms = 10000, .keepalive_ms = 75000 };
	s->rows = rows;
	s->n_rows = n_rows;
	s->context = context;
	s->token = token;
	s->is_guarded = false;
	s->running = NULL;
	s->bodies_bytes = 0;
	list_init(&s->active);
	slab_init(&s->calls, sizeof(struct endpoint_call));
	atomic_init(&s->clients.n_open, 0);
	s->clients.n_max = endpoint_clients_max();
	int r = server_open(&s->server, loop, fd, &s->clients, &limits, &handler, s);
	s->server.dialect = REPLY_PLAIN;
	return r;
}

void endpoint_server_drain(struct endpoint_server *s) {
	server_drain(&s->server);
}

void endpoint_server_close(struct endpoint_server *s) {
	server_drain(&s->server);
	while (!list_is_empty(&s->active)) /* on_gone may end others as well */
		endpoint_leave(
		    container_of(list_first(&s->active), struct endpoint_call, link), endpoint_abort);
	server_close(&s->server);
}

void endpoint_server_deinit(struct endpoint_server *s) {
	server_deinit(&s->server);
	slab_deinit(&s->calls);
}
