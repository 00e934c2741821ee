/*
 * The request's body on its way to the engine, and the copy that is kept of it for
 * another attempt. One read a run at most, so that a busy exchange cannot keep the
 * thread from the others; level-triggered events bring it back.
 */
#include "router/steps.h"

#include "router/alias.h"
#include "router/forward.h"

enum framing upload_framing(const struct exchange *x, uint64_t *length) {
	const struct head *h = exchange_head(x);
	*length = h->content_length;
	if (h->framing == FRAMING_NONE || !call_is_received(&x->down))
		return (enum framing)h->framing;
	struct head_room trailer;
	if (call_trailer(&x->down, &trailer) && trailer.head.n_fields)
		return FRAMING_CHUNKED;
	*length = x->hold.bytes;
	return FRAMING_LENGTH;
}

void upload_put_end(struct exchange *x, struct call_out *o) {
	struct head_room trailer;
	bool has = x->head && call_trailer(&x->down, &trailer);
	if (has)
		forward_mark_trailer(&trailer.head, exchange_head(x));
	call_put_end(o, has ? &trailer.head : NULL);
}

void upload_edit(const struct exchange *x, struct splice *edits) {
	const struct alias *alias = alias_find(&exchange_config(x)->aliases, inspect_model(&x->inspect));
	if (!alias)
		return;
	if (x->inspect.body == INSPECT_FORM)
		alias_edit_form(alias, &x->hold, head_find(exchange_head(x), FIELD_CONTENT_TYPE), edits);
	else
		alias_edit_json(alias, &x->hold, edits);
}

void upload_forget(struct exchange *x) {
	x->keeps_replay = false;
	hold_free(&x->hold, exchange_bufs(x));
}

/* Keeps a copy for another try, unless there is none or the copy would be large. */
static void keep_replay(struct exchange *x, const struct call_in *in) {
	if (!x->keeps_replay)
		return;
	const struct router_config *config = exchange_config(x);
	bool is_of_use = x->upstream->is_reused || x->n_sends < config->retry.attempts ||
	    inspect_response(&x->inspect) || config->hedge.is_enabled ||
	    (config->resume.is_enabled && x->inspect.is_streamed);
	if (x->hold.bytes + in->bytes <= REPLAY_BYTES_MAX && is_of_use &&
	    hold_append(&x->hold, exchange_bufs(x), in->pieces, in->n))
		return;
	upload_forget(x);
}

/* The body named its model behind what was waited for: it is too late to choose by it, but the log should
 * know. */
static void learn_model(struct exchange *x) {
	const struct snapshot *snap = x->view->snapshot;
	if (x->model != &snap->any || !inspect_is_decided(&x->inspect))
		return;
	struct slice name = inspect_model(&x->inspect);
	const struct model *model = name.n ? snapshot_model(snap, name) : NULL;
	if (model)
		x->model = model;
}

/* One receive of the body, passed on. CALL_E_AGAIN: nothing came, or a cause ends the exchange. */
static int upload_pump_once(struct exchange *x, enum cause *cause) {
	struct call_in in;
	struct call_out o;
	int r = arrival_receive(x, &in, cause);
	if (r)
		return CALL_E_AGAIN;
	keep_replay(x, &in);
	learn_model(x);
	call_begin(&o, &x->up);
	call_put_data(&o, in.pieces, in.n);
	if (in.is_end) {
		upload_put_end(x, &o);
		if (x->at.first_byte) /* nobody asks any more */
			inspect_deinit(&x->inspect, exchange_bufs(x));
	}
	if (call_flush(&o))
		x->is_upload_broken = true;
	return 0;
}

enum cause upload_pump(struct exchange *x) {
	enum cause cause = CAUSE_NONE;
	int r = 0;
	if (x->up.out_is_done)
		return CAUSE_NONE;
	if (buf_is_over_budget(
		exchange_bufs(x))) /* who waits for memory must not hold any that can be spared */
		upload_forget(x);
	do {
		bool may_read =
		    !x->is_upload_broken && !call_pending(&x->up) && !buf_is_over_budget(exchange_bufs(x));
		call_want(&x->down, may_read);
		if (!may_read)
			break;
		r = upload_pump_once(x, &cause);
	} while (r == 0 && x->down.conn->unread.n && !x->up.out_is_done);
	return cause;
}
