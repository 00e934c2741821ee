#include "router/patience.h"

#include "router/tenancy.h"

static bool may_speak(const struct exchange *x) {
	return x->turn.began_ms && x->turn.n_words < UINT16_MAX && x->inspect.is_streamed && !x->is_head &&
	    ((const struct head *)x->head->data)->minor > 0 && inspect_wishes(&x->inspect).wait_ms;
}

uint64_t patience_due_ms(const struct exchange *x) {
	return may_speak(x) ? x->turn.began_ms + (x->turn.n_words + UINT64_C(1)) * PATIENCE_MS : UINT64_MAX;
}

/* Whether this is the last answer on the client's connection is said here, as forward_response() would. */
static void begin_answer(struct exchange *x, struct call_out *o) {
	const struct head *head = (const struct head *)x->head->data;
	char fields[TENANCY_FIELDS_BYTES];

	x->ends_connection |= !head->keep_alive || !call_is_received(&x->down) ||
	    session_is_last(session_of(&x->down)) ||
	    atomic_load_explicit(&x->worker->router->is_leaving, memory_order_relaxed);
	call_put_status_line(o, 200);
	call_put_field(o, SLICE("content-type"), SLICE("text/event-stream"));
	call_put_field(o, SLICE("cache-control"), SLICE("no-cache"));
	call_put_field(o, SLICE("x-request-id"), exchange_id(x));
	call_put_text(o, tenancy_fields(x, head, fields));
	if (x->ends_connection)
		call_put_field(o, SLICE("connection"), SLICE("close"));
	call_put_head_end(o, FRAMING_CHUNKED, 0);
	x->status = 200;
	x->tap.kind = TAP_EVENTS; /* what is told of an error from now on is an event */
	x->tap.at_boundary = true;
}

int patience_speak(struct exchange *x) {
	static const char comment[] = ": waiting\n\n";
	uint64_t now_ms = loop_now_ms(&x->worker->loop);
	struct piece piece = { comment, sizeof(comment) - 1, NULL };
	struct call_out o;

	if (patience_due_ms(x) > now_ms)
		return 0;
	x->turn.n_words = (uint16_t)u64_min((now_ms - x->turn.began_ms) / PATIENCE_MS, UINT16_MAX);
	if (call_pending(&x->down))
		return 0;
	call_begin(&o, &x->down);
	if (!x->down.out_has_begun)
		begin_answer(x, &o);
	call_put_data(&o, &piece, 1);
	return call_flush(&o);
}

bool patience_fits(const struct head *answer) {
	struct tap tap;

	tap_init(&tap, answer);
	return answer->status == 200 && tap.kind == TAP_EVENTS;
}
