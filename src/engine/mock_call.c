/*
 * A call is one request to the mock engine. Its job is woken by its connection and by
 * the scheduler; timers only wake it as well. What it does then depends on its state:
 *
 *     BODY -> (DELAYED) -> RUNNING -> end      a generation
 *     BODY -> (DELAYED) -> AWAITING -> RUNNING one that is a leg of a pair: mock_leg.c
 *     BODY -> (DELAYED) -> end                 what is answered at once
 *     DELAYED, RUNNING -> HUNG, CUTTING -> end by a fault
 *
 * Tokens are rendered as the client takes them: the scheduler counts them whether the
 * client reads or not, and what waits to be sent has a ceiling. Three functions end a
 * call: finish() in order, cut() by a reset or a FIN, leave() when the client is gone;
 * all of them pass settle(), so that the ledger hears of each generation once.
 */
#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/text.h"
#include "engine/mock_call.h"
#include "http/reply.h"

#define PENDING_BYTES_MAX 65536u /* beyond, nothing is rendered until the client reads */
#define RESET_DELAY_MS    5      /* what was sent shall arrive before the reset that overtakes it */

static struct scheduler *scheduler_of(const struct mock_call *c) {
	return &c->mock->ranks[c->generation.rank];
}

static const struct head *head_of(const struct mock_call *c) {
	return (const struct head *)c->head->data;
}

/* --- responses that are stored --------------------------------------------------- */

static void store(struct mock_call *c) {
	const struct generation *g = &c->generation;

	if (g->is_stored)
		stored_put(&c->mock->stored,
		    &(struct stored_response){
			g->id, g->model, g->created_s, g->choices[0].finish == FINISH_STOP });
}

/* What it goes on from is there, if it goes on from anything. */
static bool has_previous(const struct mock_call *c, struct refusal *refusal) {
	const char *id = c->generation.previous_id;

	if (!id || stored_find(&c->mock->stored, slice_of(id)))
		return true;
	api_miss_response(refusal, slice_of(id));
	return false;
}

/* --- the ways to end ------------------------------------------------------------- */

static void settle(struct mock_call *c, enum ledger_state state) {
	const char *fault = c->verdict.kind == FAULT_NONE ? NULL : fault_name(c->verdict.kind);
	const char *cause = NULL;

	if (!c->is_counted)
		return;
	c->is_counted = false;
	c->mock->n_serving--;
	/* Only a failure has a fault for its cause, and a client that grew tired of a hang. */
	if (state == LEDGER_FAILED || c->state == CALL_HUNG)
		cause = c->failure ? c->failure : fault;
	scheduler_end(scheduler_of(c), &c->generation, state, cause, clock_now_ns());
	mock_leg_end(c);
	if (state == LEDGER_FINISHED)
		store(c);
	else
		mock_tick(c->mock); /* a place may have become free */
}

static void drop_request(struct mock_call *c) {
	buf_unref(&c->mock->loop.bufs, &c->head);
	bytes_deinit(&c->body);
}

static void release(struct mock_call *c) {
	assert(!c->is_counted);
	timer_stop(&c->timer);
	job_cancel(&c->job);
	list_remove(&c->link);
	list_remove(&c->await_link);
	kv_fetch_cancel(&c->fetch);
	drop_request(c);
	generation_deinit(&c->generation);
	struct mock *m = c->mock;
	slab_put(&m->slab, c);
	if (list_is_empty(&m->calls))
		slab_trim(&m->slab);
}

static void finish(struct mock_call *c) {
	settle(c, LEDGER_FINISHED);
	session_next(&c->call, c->keeps);
	release(c);
}

static void cut(struct mock_call *c, bool reset) {
	settle(c, LEDGER_FAILED);
	session_abort(&c->call, reset);
	release(c);
}

static void leave(struct mock_call *c) {
	settle(c, LEDGER_CANCELLED);
	session_abort(&c->call, false);
	release(c);
}

void mock_call_cut(struct list *link) {
	struct mock_call *c = container_of(link, struct mock_call, link);
	settle(c, LEDGER_CANCELLED);
	session_abort(&c->call, true);
	release(c);
}

/* --- answers in one piece -------------------------------------------------------- */

static void send_reply(struct mock_call *c, struct reply *reply) {
	reply->closes = !c->keeps;
	reply->keeps_http10 = c->is_http10 && c->keeps;
	if (reply_send(&c->call, reply))
		leave(c);
	else
		finish(c);
}

/* Takes the body of the response. A health page that says 503 has none and, as vLLM's, does not ask anybody
 * to come again: with retry-after it would say that it drains. */
static void respond(struct mock_call *c, struct mock_response *response) {
	struct bytes body = response->body;
	bool is_busy = response->status == 429 || response->status == 503;
	struct reply reply = {
		.status = response->status,
		.retry_after_s = is_busy && response->content_type,
		.content_type = slice_of(response->content_type),
		.allow = slice_of(response->allow),
		.is_head = c->head && head_of(c)->method == METHOD_HEAD,
		.body = bytes_slice(&body),
	};
	send_reply(c, &reply);
	bytes_deinit(&body);
}

static void refuse(struct mock_call *c, const struct refusal *refusal) {
	struct mock_response response = { 0 };
	mock_respond_refusal(&response, refusal, c->is_anthropic);
	respond(c, &response);
}

static void refuse_request(struct mock_call *c, uint32_t status, const char *message) {
	struct refusal refusal;
	api_refuse(&refusal, status, NULL, "%s", message);
	c->keeps = false;
	refuse(c, &refusal);
}

static void answer_at_once(struct mock_call *c) {
	const struct mock_request request = {
		.method = head_method(head_of(c)),
		.path = head_path(head_of(c)),
		.body = bytes_slice(&c->body),
		.is_sick = c->is_sick,
	};
	struct mock_response response;
	mock_answer(c->mock, &request, &response);
	respond(c, &response);
}

/* --- generations ----------------------------------------------------------------- */

/* Only the head of an answer, with room for more. `length` counts for a plain answer. */
static void put_head(struct mock_call *c, struct call_out *o, size_t length) {
	bool is_stream = c->generation.is_stream;
	char rank[20];

	call_put_status_line(o, 200);
	call_put_field(o, SLICE("content-type"),
	    is_stream ? SLICE("text/event-stream; charset=utf-8") : SLICE("application/json"));
	call_put_field(o, SLICE("x-mock-rank"), call_decimal(c->generation.rank, rank));
	if (!c->keeps)
		call_put_field(o, SLICE("connection"), SLICE("close"));
	if (!is_stream)
		call_put_head_end(o, FRAMING_LENGTH, length);
	else
		call_put_head_end(o, c->is_http10 ? FRAMING_CLOSE : FRAMING_CHUNKED, 0);
}

/* The fault's event is reached: silence, or a reset a moment later. */
static void strike(struct mock_call *c) {
	assert(c->verdict.kind == FAULT_HANG_STREAM || c->verdict.kind == FAULT_RESET);
	if (c->verdict.kind == FAULT_HANG_STREAM) {
		if (c->generation.sequence.state != LATENCY_DONE)
			scheduler_hold(scheduler_of(c), &c->generation, clock_now_ns());
		c->state = CALL_HUNG;
		return;
	}
	settle(c, LEDGER_FAILED);
	c->state = CALL_CUTTING;
	loop_timer(&c->mock->loop, &c->timer, RESET_DELAY_MS);
}

/* A plain answer under a fault of streams: its head and the first half of its body. */
static void answer_in_part(struct mock_call *c, struct slice body) {
	struct call_out o;
	struct piece half = { body.p, c->verdict.n_events ? body.n / 2 : 0, NULL };

	call_begin(&o, &c->call);
	put_head(c, &o, body.n);
	call_put_data(&o, &half, 1);
	if (call_flush(&o))
		leave(c);
	else
		strike(c);
}

static void answer_whole(struct mock_call *c) {
	struct bytes *out = &c->mock->events;
	char rank[32];

	bytes_clear(out);
	if (!generation_whole(&c->generation, out)) {
		refuse_request(c, 500, "The answer is too large.");
		return;
	}
	if (c->verdict.kind != FAULT_NONE) {
		answer_in_part(c, bytes_slice(out));
		return;
	}
	struct reply reply = {
		.status = 200,
		.content_type = SLICE("application/json"),
		.body = bytes_slice(out),
		.fields = { rank,
		    (size_t)snprintf(rank, sizeof(rank), "x-mock-rank: %u\r\n", c->generation.rank) },
	};
	send_reply(c, &reply);
}

/* Renders what the client has room for; true when the answer is complete. */
static bool render(struct mock_call *c, struct bytes *out) {
	struct generation *g = &c->generation;
	size_t n_pending = call_pending(&c->call);

	bytes_clear(out);
	if (g->n_steps == 0 && generation_is_behind(g))
		generation_open(g, out);
	while (n_pending + out->n < PENDING_BYTES_MAX && generation_is_behind(g))
		generation_step(g, out);
	bool is_complete = g->sequence.state == LATENCY_DONE && g->n_steps == g->sequence.n_made_tokens &&
	    g->n_events < g->n_events_max;
	if (is_complete)
		generation_close(g, out);
	return is_complete;
}

static void speak(struct mock_call *c) {
	struct generation *g = &c->generation;
	struct bytes *out = &c->mock->events;
	struct call_out o;

	bool is_complete = render(c, out);
	call_begin(&o, &c->call);
	if (!c->call.out_has_begun)
		put_head(c, &o, 0);
	call_put_data(&o, &(struct piece){ out->p, out->n, NULL }, 1);
	if (is_complete)
		call_put_end(&o, NULL);
	if (o.n > 0 && call_flush(&o))
		leave(c);
	else if (is_complete)
		finish(c);
	else if (g->n_events >= g->n_events_max)
		strike(c);
	else if (generation_is_behind(g) && call_pending(&c->call) == 0)
		loop_timer(&c->mock->loop, &c->timer, 0); /* the socket took all: no event will come of it */
}

static void run_generation(struct mock_call *c) {
	struct generation *g = &c->generation;

	if (g->sequence.state == LATENCY_DONE)
		mock_leg_hold(c);
	if (g->is_stream) {
		speak(c);
		return;
	}
	while (generation_is_behind(g))
		generation_step(g, NULL);
	if (g->sequence.state == LATENCY_DONE)
		answer_whole(c);
}

void mock_call_wake(struct generation *g) {
	struct mock_call *c = container_of(g, struct mock_call, generation);
	loop_wake(&c->mock->loop, &c->job);
}

/* Where a stream is to be struck by its fault. */
static void limit_events(struct mock_call *c) {
	struct generation *g = &c->generation;
	if (!g->is_stream || (c->verdict.kind != FAULT_HANG_STREAM && c->verdict.kind != FAULT_RESET))
		return;
	g->n_events_max = c->verdict.n_events;
	/* A step is one event of each choice at most: an engine that hangs shows no more progress. */
	if (c->verdict.kind == FAULT_HANG_STREAM)
		g->n_steps_max = (c->verdict.n_events + g->n_choices - 1) / g->n_choices;
}

static void submit(struct mock_call *c) {
	struct mock *m = c->mock;
	struct generation *g = &c->generation;
	uint64_t now_ns = clock_now_ns();

	limit_events(c);
	scheduler_submit(scheduler_of(c), g, now_ns);
	c->state = CALL_RUNNING;
	if (c->is_http10 && g->is_stream)
		c->keeps = false; /* only its end ends such an answer */
	if (c->verdict.kind == FAULT_HANG_HEAD) {
		scheduler_hold(scheduler_of(c), g, now_ns);
		c->state = CALL_HUNG;
	} else if (g->is_stream) {
		loop_wake(&m->loop, &c->job); /* the head goes out before the first token, as in vLLM */
	}
	mock_tick(m);
}

/* --- legs of a pair ------------------------------------------------------------------ */

/* As vLLM has it: the head of a stream goes out whatever becomes of it, and what goes wrong then is an event.
 */
static void send_head(struct mock_call *c) {
	struct call_out o;

	call_begin(&o, &c->call);
	put_head(c, &o, 0);
	if (call_flush(&o))
		leave(c);
}

static void fail_leg(struct mock_call *c, const struct refusal *why) {
	struct bytes *out = &c->mock->events;
	struct call_out o;

	c->failure = "kv_transfer";
	settle(c, LEDGER_FAILED);
	if (!c->call.out_has_begun) {
		refuse(c, why);
		return;
	}
	bytes_clear(out);
	api_add_event(out, NULL, api_error(why, c->is_anthropic));
	call_begin(&o, &c->call);
	call_put_data(&o, &(struct piece){ out->p, out->n, NULL }, 1);
	call_put_end(&o, NULL);
	if (call_flush(&o))
		leave(c);
	else
		finish(c);
}

static void follow_leg(struct mock_call *c, enum leg_outcome outcome, const struct refusal *why) {
	c->state = CALL_AWAITING;
	if (outcome == LEG_READY)
		submit(c);
	else if (outcome == LEG_FAILED)
		fail_leg(c, why);
	else if (c->generation.is_stream && !c->call.out_has_begun)
		send_head(c);
}

static void begin_leg(struct mock_call *c) {
	struct refusal why;
	follow_leg(c, mock_leg_begin(c, &why), &why);
}

static void look_at_leg(struct mock_call *c) {
	struct refusal why;
	follow_leg(c, mock_leg_look(c, &why), &why);
}

/* --- the request ----------------------------------------------------------------- */

static void answer_with_status(struct mock_call *c) {
	struct refusal refusal;
	settle(c, LEDGER_FAILED);
	api_refuse(&refusal, c->verdict.status, NULL, "This failure was asked for.");
	refuse(c, &refusal);
}

static void answer_with_garbage(struct mock_call *c) {
	static const char garbage[] = "\x16\x03\x01 is not the way to begin an answer\n\n";
	const struct piece piece = { garbage, sizeof(garbage) - 1, NULL };
	if (conn_send(c->call.conn, &piece, 1))
		leave(c);
	else
		cut(c, false);
}

/* The request is understood and its delay is over. */
static void act(struct mock_call *c) {
	enum fault_kind kind = c->verdict.kind;

	if (c->is_api && kind != FAULT_STATUS)
		ledger_begin(c->mock->ledger, c->generation.ticket);
	if (kind == FAULT_CRASH)
		raise(SIGKILL);
	else if (kind == FAULT_GARBAGE)
		answer_with_garbage(c);
	else if (kind == FAULT_STATUS)
		answer_with_status(c);
	else if (kind == FAULT_RESET && (c->verdict.n_events == 0 || !c->is_api))
		cut(c, true);
	else if (c->is_api && c->generation.leg.part && kind != FAULT_HANG_HEAD)
		begin_leg(c);
	else if (c->is_api)
		submit(c);
	else if (kind != FAULT_NONE)
		c->state = CALL_HUNG;
	else
		answer_at_once(c);
}

static void capture(struct mock_call *c) {
	const struct head *h = head_of(c);
	struct bytes fields = { .n_max = HEAD_BYTES_MAX + HEAD_FIELDS_MAX };
	struct slice path = head_path(h);

	if (slice_has_prefix(path, SLICE("/mock/")) || slice_eq(path, SLICE("/captured_requests")))
		return;
	for (unsigned i = 0; i < h->n_fields; i++) {
		bytes_add(&fields, head_name(h, &h->fields[i]));
		bytes_add(&fields, SLICE(":"));
		bytes_add(&fields, head_value(h, &h->fields[i]));
		bytes_add(&fields, SLICE("\n"));
	}
	capture_add(&c->mock->capture,
	    &(struct capture_request){
		.method = head_method(h),
		.target = head_target(h),
		.fields = bytes_slice(&fields),
		.body = bytes_slice(&c->body),
	    });
	bytes_deinit(&fields);
}

static bool is_authorized(const struct mock_call *c) {
	struct slice key = slice_of(c->mock->config->api_key);
	struct slice bearer = head_find(head_of(c), FIELD_AUTHORIZATION);
	struct slice bare = head_find_name(head_of(c), SLICE("x-api-key"));

	if (key.n == 0 || !slice_has_prefix(head_path(head_of(c)), SLICE("/v1")))
		return true;
	if (slice_is(slice_head(bearer, 7), SLICE("bearer ")))
		return slice_eq(slice_trim(slice_skip(bearer, 7)), key);
	return slice_eq(bare, key);
}

/* The fault of its header, else that of the engine, which spares all but the APIs. */
static void judge(struct mock_call *c, const struct fault_plan *of_header) {
	struct mock *m = c->mock;

	c->verdict.kind = FAULT_NONE;
	if (of_header) {
		c->is_sick = !fault_plan_is_healthy(of_header);
		if (!fault_plan_is_equal(of_header, &m->header_fault.plan))
			fault_arm(&m->header_fault, of_header);
		c->verdict = fault_judge(&m->header_fault);
	} else if (c->is_api) {
		c->verdict = fault_judge(&m->fault);
	}
}

/* The rank that is asked for, else the next one in turn. */
static bool find_rank(struct mock_call *c, uint32_t *rank_out, struct refusal *refusal) {
	struct slice wanted = head_find_name(head_of(c), SLICE("x-data-parallel-rank"));
	uint32_t n_ranks = c->mock->rules.kv.n_ranks;
	uint64_t rank;

	if (!wanted.p)
		rank = c->mock->n_placed++ % n_ranks;
	else if (!text_uint(wanted, n_ranks - 1, &rank))
		return api_refuse(refusal, 400, "data_parallel_rank",
		    "data_parallel_rank is out of range [0, %u).", n_ranks);
	*rank_out = (uint32_t)rank;
	return true;
}

static bool parse_generation(struct mock_call *c, const struct api *api) {
	struct mock *m = c->mock;
	struct slice id = head_find_name(head_of(c), SLICE("x-request-id"));
	struct refusal refusal;
	char made[33];

	if (id.n == 0) {
		snprintf(made, sizeof(made), "%016lx%016lx", rng_next(&m->rng), rng_next(&m->rng));
		id = slice_of(made);
	}
	struct generation_name name = {
		.id = id, .created_s = (int64_t)(clock_wall_ms() / 1000), .nonce = rng_next(&m->rng)
	};
	if (!find_rank(c, &name.rank, &refusal) ||
	    !generation_parse(&c->generation, api, &m->rules, &name, bytes_slice(&c->body), &refusal) ||
	    !has_previous(c, &refusal)) {
		refuse(c, &refusal);
		return false;
	}
	c->is_api = c->is_counted = true;
	m->n_serving++;
	scheduler_start(scheduler_of(c), &c->generation, slice_of(c->generation.id + strlen(api->id_prefix)),
	    clock_now_ns());
	drop_request(c);
	return true;
}

/* The request has arrived: understand it, then act now or later. */
static void dispatch(struct mock_call *c) {
	const struct head *h = head_of(c);
	struct slice spec = head_find_name(h, SLICE("x-mock-fault"));
	const struct api *api = h->method == METHOD_POST ? api_of_path(head_path(h)) : NULL;
	struct mock_response response = { 0 };
	char message[FAULT_TEXT_BYTES];
	struct fault_plan plan;

	call_want(&c->call, false);
	capture(c);
	if (!is_authorized(c)) {
		mock_respond_json(&response, 401, json_pack("{s:s}", "error", "Unauthorized"));
		respond(c, &response);
		return;
	}
	if (spec.p && !fault_plan_parse(spec, &plan, message)) {
		refuse_request(c, 400, message);
		return;
	}
	bool has_plan = spec.p; /* the head is gone soon */
	if (api && !parse_generation(c, api))
		return;
	judge(c, has_plan ? &plan : NULL);
	if (c->verdict.latency_ms == 0) {
		act(c);
		return;
	}
	c->state = CALL_DELAYED;
	loop_timer(&c->mock->loop, &c->timer, c->verdict.latency_ms);
}

/* RFC 9110 section 10.1.1. The next look at the connection shows if nobody heard it. */
static bool invite_body(struct mock_call *c) {
	struct call_out o;
	bool invites = c->invites && c->call.in_bytes == 0;

	c->invites = false;
	if (!invites)
		return true;
	call_begin(&o, &c->call);
	call_put_status_line(&o, 100);
	call_put_interim_end(&o);
	return call_flush(&o) == 0;
}

static void receive(struct mock_call *c) {
	struct call_in in;
	int r;

	if (!c->head) {
		refuse_request(c, 503, "There is no memory for the request.");
		return;
	}
	if (head_of(c)->content_length > MOCK_BODY_BYTES_MAX) {
		refuse_request(c, 413, "The body is too large.");
		return;
	}
	while ((r = call_recv(&c->call, LOOP_READ_BYTES, &in)) == 0) {
		for (size_t i = 0; i < in.n; i++)
			if (!bytes_add(&c->body, (struct slice){ in.pieces[i].p, in.pieces[i].n })) {
				refuse_request(c, 413, "The body is too large.");
				return;
			}
		if (in.is_end) {
			dispatch(c);
			return;
		}
	}
	if (r == CALL_E_BAD)
		refuse_request(c, 400, "The body is not framed as HTTP/1.1 says.");
	else if (r == CALL_E_GONE || !invite_body(c))
		leave(c);
}

static void run(struct job *job) {
	struct mock_call *c = container_of(job, struct mock_call, job);

	if (c->state == CALL_BODY)
		receive(c);
	else if (call_is_gone(&c->call))
		leave(c);
	else if (c->state == CALL_RUNNING)
		run_generation(c);
	else if (c->state == CALL_AWAITING)
		look_at_leg(c);
	else if (c->state == CALL_DELAYED && !timer_is_running(&c->timer))
		act(c);
	else if (c->state == CALL_CUTTING && !timer_is_running(&c->timer))
		cut(c, true);
}

static void on_timer(struct timer *t) {
	struct mock_call *c = container_of(t, struct mock_call, timer);
	loop_wake(&c->mock->loop, &c->job);
}

static struct job *begin(struct server *server, struct session *session, const struct head *head) {
	struct mock *m = server->context;
	struct mock_call *c = slab_get_zeroed(&m->slab);

	c->mock = m;
	c->state = CALL_BODY;
	c->keeps = head->keep_alive && !session_is_last(session);
	c->invites = head->expects_continue;
	c->is_http10 = head->minor == 0;
	c->is_anthropic = slice_has_prefix(head_path(head), SLICE("/v1/messages"));
	c->head = head_copy(&m->loop.bufs, head);
	bytes_init(&c->body, MOCK_BODY_BYTES_MAX);
	job_init(&c->job, run);
	timer_init(&c->timer, on_timer);
	list_init(&c->link);
	list_init(&c->await_link);
	list_push(&m->calls, &c->link);
	session_take(session, &c->call, &c->job, head);
	return &c->job;
}

const size_t mock_call_bytes = sizeof(struct mock_call);
const struct server_handler mock_handler = { .begin = begin };
