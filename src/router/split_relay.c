#include "router/split_relay.h"

#include "router/split.h"
#include "router/steps.h"

/* Of an event, and of what one read of a stream makes. */
#define OUT_BYTES_MAX (1u << 20)

/* Of a stream its last event that says something is kept. */
static void keep_last_event(struct hold *answer, struct buf_pool *pool) {
	struct event_cutter cutter = { .bytes_max = OUT_BYTES_MAX };
	struct hold last = { NULL, NULL, 0 };

	for (const struct buf *b = answer->first; b; b = b->next) {
		struct slice text = { b->data, b->used }, event, json;
		while (event_cut(&cutter, pool, false, &text, &event) == 0) {
			if (!split_merge_is_told(event) || !event_data(event, &json))
				continue;
			struct piece piece = { json.p, json.n, NULL };
			hold_free(&last, pool);
			hold_append_forced(&last, pool, &piece, 1);
		}
	}
	event_cutter_clear(&cutter, pool);
	hold_free(answer, pool);
	*answer = last;
}

void split_relay_learn(struct exchange *x) {
	struct split *p = x->split;
	struct split_merge *m = &p->relay.merge;

	if (p->is_stream)
		keep_last_event(&p->answer, exchange_bufs(x));
	if (!split_merge_read(m, &p->answer))
		*m = (struct split_merge){ .prefill = NULL };
	if (p->relay.has_begun)
		split_merge_miss(m);
}

void split_relay_forget(struct exchange *x) {
	x->split->relay.merge = (struct split_merge){ .prefill = NULL };
}

bool split_relay_begin(struct exchange *x, const struct head *answer) {
	struct split *p = x->split;
	bool may_know = p->relay.merge.prefill || (!p->has_answer && aside_is_there(&p->prefill));
	bool is_whole = x->tap.kind == TAP_JSON;

	if (!may_know || answer->status >= 300 || (!is_whole && x->tap.kind != TAP_EVENTS))
		return false;
	p->relay.kind = is_whole ? SPLIT_RELAY_WHOLE : SPLIT_RELAY_EVENTS;
	p->relay.events.bytes_max = OUT_BYTES_MAX;
	return true;
}

/* --- on their way ---------------------------------------------------------------------------------- */

/* False: the client is gone, as the next one will say, too. */
static bool flush(struct exchange *x, struct call_out *out) {
	int r = call_flush(out);

	call_begin(out, &x->down);
	return !r;
}

static void pass_spliced(
    struct exchange *x, const struct splice *splice, const struct hold *body, struct call_out *out) {
	struct splice_cursor at;
	size_t n;

	splice_begin(&at, splice, body);
	do {
		struct piece pieces[CALL_PIECES_MAX];

		n = splice_pieces(&at, pieces, CALL_PIECES_MAX);
		answer_pass(x, out, pieces, n);
		if (n < CALL_PIECES_MAX)
			return;
	} while (flush(x, out));
}

/* What is held goes on, with these edits. */
static void pass_held(struct exchange *x, const struct splice *splice, struct call_out *out) {
	struct split_relay *r = &x->split->relay;

	r->sent = r->held;
	r->held = (struct hold){ NULL, NULL, 0 };
	pass_spliced(x, splice, &r->sent, out);
}

static const struct splice none = { .n = 0 };

/* --- a whole answer -------------------------------------------------------------------------------- */

static void pass_merged(struct exchange *x, struct call_out *out) {
	struct split_relay *r = &x->split->relay;
	struct split_answer answer;

	if (!r->merge.prefill || !split_merge_answer(&r->merge, &r->held, exchange_bufs(x), &answer)) {
		pass_held(x, &none, out);
		return;
	}
	pass_held(x, &answer.splice, out);
	if (!answer.offsets.bytes)
		return;
	flush(x, out);
	split_answer_free(&answer, exchange_bufs(x));
}

static void put_whole(struct exchange *x, const struct call_in *in, struct call_out *out) {
	struct split_relay *r = &x->split->relay;

	hold_append_forced(&r->held, exchange_bufs(x), in->pieces, in->n);
	if (in->is_end) {
		pass_merged(x, out);
	} else if (r->held.bytes > exchange_config(x)->hold_limit_bytes ||
	    buf_is_over_budget(exchange_bufs(x))) {
		r->kind = SPLIT_RELAY_NONE;
		pass_held(x, &none, out);
	}
}

/* --- a stream -------------------------------------------------------------------------------------- */

static void keep(struct exchange *x, struct slice text) {
	struct piece piece = { text.p, text.n, NULL };
	hold_append_forced(&x->split->relay.held, exchange_bufs(x), &piece, 1);
}

static void keep_event(struct exchange *x, struct slice event) {
	struct split_relay *r = &x->split->relay;
	struct splice splice;

	if (r->held.bytes <= OUT_BYTES_MAX && split_merge_event(&r->merge, event, &splice) &&
	    splice_length(&splice, event.n) <= OUT_BYTES_MAX)
		splice_append(&splice, event, &r->held, exchange_bufs(x));
	else
		keep(x, event);
}

/* An event that is too large goes on as it is, up to its end. */
static void begin_large(struct exchange *x) {
	struct split_relay *r = &x->split->relay;
	uint8_t line = r->events.line;

	keep(x, event_part(&r->events));
	event_cutter_clear(&r->events, exchange_bufs(x));
	r->events.line = line;
	r->is_large = true;
}

/* What is behind it. */
static struct slice keep_large(struct exchange *x, struct slice text) {
	struct split_relay *r = &x->split->relay;
	size_t n = event_end(&r->events.line, text);
	struct slice head = slice_head(text, n ? n : text.n);

	keep(x, head);
	r->is_large = !n;
	return slice_skip(text, head.n);
}

static void keep_piece(struct exchange *x, struct slice text) {
	struct split_relay *r = &x->split->relay;
	struct slice event;
	int outcome = 0;

	while (outcome != EVENT_MORE) {
		if (r->is_large)
			text = keep_large(x, text);
		outcome = event_cut(&r->events, exchange_bufs(x), false, &text, &event);
		if (!outcome)
			keep_event(x, event);
		else if (outcome == EVENT_LARGE)
			begin_large(x);
	}
}

/* Whole events that say nothing of what is merged, as nearly all do. */
static bool is_plain(const struct split_relay *r, const struct call_in *in) {
	if (in->n != 1 || r->is_large || event_part(&r->events).n)
		return false;
	struct slice text = { in->pieces[0].p, in->pieces[0].n };
	return slice_has_suffix(text, SLICE("\n\n")) && !split_merge_concerns(&r->merge, text);
}

static void put_events(struct exchange *x, const struct call_in *in, struct call_out *out) {
	struct split_relay *r = &x->split->relay;

	r->has_begun = true;
	if (is_plain(r, in)) {
		answer_pass(x, out, in->pieces, in->n);
		return;
	}
	for (size_t i = 0; i < in->n; i++)
		keep_piece(x, (struct slice){ in->pieces[i].p, in->pieces[i].n });
	if (in->is_end)
		keep(x, event_part(&r->events));
	pass_held(x, &none, out);
}

void split_relay_put(struct exchange *x, const struct call_in *in, struct call_out *out) {
	hold_free(&x->split->relay.sent, exchange_bufs(x));
	switch ((enum split_relay_kind)x->split->relay.kind) {
	case SPLIT_RELAY_WHOLE:
		put_whole(x, in, out);
		break;
	case SPLIT_RELAY_EVENTS:
		put_events(x, in, out);
		break;
	default:
		answer_pass(x, out, in->pieces, in->n);
	}
}

void split_relay_end(struct exchange *x) {
	struct split_relay *r = &x->split->relay;

	event_cutter_clear(&r->events, exchange_bufs(x));
	hold_free(&r->held, exchange_bufs(x));
	hold_free(&r->sent, exchange_bufs(x));
}
