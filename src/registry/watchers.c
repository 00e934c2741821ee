#include "registry/watchers.h"

#include "base/text.h"

#define RESET UINT64_MAX

static const struct slice frame = { "data: ", 6 }, frame_end = { "\n\n", 2 };

static const struct piece still_there = { ":\n\n", 3, NULL };

struct watcher {
	struct list link;
	struct watchers *watchers;
	struct endpoint_call *call;
	struct timer patience; /* of a long poll */
	uint64_t version;      /* it knows everything up to this */
	bool is_stream;
};

/* --- events ---------------------------------------------------------------------- */

static void put_json(struct record_text *t, json_t *value) {
	char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

	record_text_put(t, text ? slice_of(text) : SLICE("null"));
	free(text);
	json_decref(value);
}

/* {..."epoch":E,"version":N,"list":[ */
static void put_opening(struct watchers *w, struct record_text *t, struct slice start, struct slice list) {
	char digits[20];

	record_text_put(t, frame);
	record_text_put(t, start);
	record_text_put(t, SLICE("\"epoch\":"));
	put_json(t, json_string(roster_epoch(w->roster)));
	record_text_put(t, SLICE(",\"version\":"));
	record_text_put(t, call_decimal(roster_version(w->roster), digits));
	record_text_put(t, list);
}

static void put_change(struct record_text *t, const struct roster_change *change) {
	record_text_put(t,
	    change->is_delete ? SLICE("{\"op\":\"delete\",\"name\":") : SLICE("{\"op\":\"put\",\"name\":"));
	put_json(t, json_stringn(change->name.p, change->name.n));
	if (!change->is_delete) {
		record_text_put(t, SLICE(",\"record\":"));
		record_print(change->entry->record, change->entry->is_alive, t);
	}
	record_text_put(t, change->is_swept ? SLICE(",\"reason\":\"expired\"}") : SLICE("}"));
}

static void print_changes(struct watchers *w, uint64_t from, struct record_text *t) {
	struct roster_change change;

	put_opening(w, t, SLICE("{"), SLICE(",\"changes\":["));
	for (bool is_first = true; roster_next_change(w->roster, &from, &change); is_first = false) {
		if (!is_first)
			record_text_put(t, SLICE(","));
		put_change(t, &change);
	}
	record_text_put(t, SLICE("]}"));
	record_text_put(t, frame_end);
}

static void print_reset(struct watchers *w, struct record_text *t) {
	const struct roster_filter all = { .healthy = ROSTER_ANY };
	const struct roster_entry *e = NULL;

	put_opening(w, t, SLICE("{\"reset\":true,"), SLICE(",\"services\":["));
	for (bool is_first = true; (e = roster_next(w->roster, e, &all)); is_first = false) {
		if (!is_first)
			record_text_put(t, SLICE(","));
		record_print(e->record, e->is_alive, t);
	}
	record_text_put(t, SLICE("]}"));
	record_text_put(t, frame_end);
}

static struct buf *print_event(struct watchers *w, uint64_t from) {
	struct record_text t = { .p = NULL };

	if (from == RESET)
		print_reset(w, &t);
	else
		print_changes(w, from, &t);
	struct buf *b = buf_new_whole(&w->loop->bufs, t.n);
	memcpy(b->data, t.p, t.n);
	b->used = (uint32_t)t.n;
	free(t.p);
	w->n_printed++;
	return b;
}

/* What who knows `from` has to hear, as an event with its frame; from RESET: everything. Good until the next
 * call; who needs it longer counts its owner. */
static struct piece event_since(struct watchers *w, uint64_t from) {
	struct watch_text *e = from == RESET ? &w->reset : &w->changes;
	uint64_t to = roster_version(w->roster);

	if (!e->buf || e->from != from || e->to != to) {
		buf_unref(&w->loop->bufs, &e->buf);
		*e = (struct watch_text){ print_event(w, from), from, to };
	}
	return (struct piece){ e->buf->data, e->buf->used, e->buf };
}

static struct piece without_frame(struct piece event) {
	return (struct piece){ event.p + frame.n, event.n - frame.n - frame_end.n, event.owner };
}

/* It may be large: it is not kept beyond the turn, unless somebody waits for it anyway. */
static void watch_text_forget(struct watchers *w, struct watch_text *e) {
	if (e->buf && (e->buf->n_refs == 1 || w->is_closed))
		buf_unref(&w->loop->bufs, &e->buf);
}

static void watchers_forget(struct watchers *w) {
	watch_text_forget(w, &w->changes);
	watch_text_forget(w, &w->reset);
}

/* Does anything of what came behind this version still say something? Versions that were overtaken do not. */
static bool has_news(const struct watchers *w, uint64_t version) {
	struct roster_change change;
	return roster_next_change(w->roster, &version, &change);
}

/* --- watchers ----------------------------------------------------------------------- */

static void watcher_free(struct watcher *x) {
	timer_stop(&x->patience);
	list_remove(&x->link);
	x->watchers->n--;
	free(x);
}

static void watcher_on_gone(void *owner) {
	watcher_free(owner);
}

static void watcher_answer(struct watcher *x, struct piece event) {
	struct endpoint_call *call = x->call;

	watcher_free(x);
	endpoint_answer_piece(call, 200, "application/json", without_frame(event));
}

static void watcher_cut(struct watcher *x) {
	struct endpoint_call *call = x->call;

	x->watchers->n_cut++;
	watcher_free(x);
	endpoint_stream_end(call, true);
}

/* False: it is gone. */
static bool watcher_tell(struct watcher *x, struct piece event) {
	if (!x->is_stream)
		watcher_answer(x, event);
	else if (endpoint_stream_put(x->call, event))
		return true;
	else
		watcher_cut(x);
	return false;
}

/* Nothing happened: the same version, or one that says nothing. */
static void watcher_on_impatience(struct timer *t) {
	struct watcher *x = container_of(t, struct watcher, patience);
	struct watchers *w = x->watchers;

	watcher_answer(x, event_since(w, roster_remembers(w->roster, x->version) ? x->version : RESET));
	watchers_forget(w);
}

/* False: it is gone. */
static bool watcher_look(struct watcher *x) {
	struct watchers *w = x->watchers;
	uint64_t from = x->version;

	if (from == roster_version(w->roster))
		return true;
	x->version = roster_version(w->roster);
	if (!roster_remembers(w->roster, from))
		from = RESET;
	if (from != RESET && !has_news(w, from))
		return true;
	w->n_events += from != RESET;
	w->n_resets += from == RESET;
	return watcher_tell(x, event_since(w, from));
}

/* In order, after the last news. */
static void watcher_dismiss(struct watcher *x) {
	struct endpoint_call *call = x->call;

	if (!watcher_look(x))
		return;
	if (!x->is_stream) {
		watcher_on_impatience(&x->patience);
		return;
	}
	watcher_free(x);
	endpoint_stream_end(call, false);
}

/* --- all of them --------------------------------------------------------------------- */

static void watchers_run(struct job *job) {
	struct watchers *w = container_of(job, struct watchers, job);

	list_each_safe (it, &w->all)
		watcher_look(container_of(it, struct watcher, link));
	w->told = roster_version(w->roster);
	watchers_forget(w);
}

static void watchers_on_alive(struct timer *t) {
	struct watchers *w = container_of(t, struct watchers, alive);

	list_each_safe (it, &w->all) {
		struct watcher *x = container_of(it, struct watcher, link);
		if (x->is_stream)
			watcher_tell(x, still_there);
	}
	watchers_forget(w);
	loop_timer(w->loop, &w->alive, WATCHERS_ALIVE_MS);
}

void watchers_init(struct watchers *w, struct loop *loop, const struct roster *roster) {
	*w = (struct watchers){ .loop = loop, .roster = roster, .told = roster_version(roster) };
	list_init(&w->all);
	job_init(&w->job, watchers_run);
	timer_init(&w->alive, watchers_on_alive);
	loop_timer(loop, &w->alive, WATCHERS_ALIVE_MS);
}

void watchers_close(struct watchers *w) {
	w->is_closed = true;
	timer_stop(&w->alive);
	job_cancel(&w->job);
	list_each_safe (it, &w->all)
		watcher_dismiss(container_of(it, struct watcher, link));
	watchers_forget(w);
}

void watchers_deinit(struct watchers *w) {
	assert(list_is_empty(&w->all) && !w->changes.buf && !w->reset.buf);
}

void watchers_wake(struct watchers *w) {
	if (w->told != roster_version(w->roster) && !w->is_closed)
		loop_wake(w->loop, &w->job);
}

/* The version in "EPOCH:VERSION"; RESET when it does not lead on to what is now. */
static uint64_t version_of(const struct watchers *w, struct slice since) {
	struct slice epoch = slice_of(roster_epoch(w->roster));
	uint64_t version;

	if (since.n <= epoch.n || !slice_eq(slice_head(since, epoch.n), epoch) || since.p[epoch.n] != ':')
		return RESET;
	if (!text_uint(slice_skip(since, epoch.n + 1), INT64_MAX, &version))
		return RESET;
	return roster_remembers(w->roster, version) ? version : RESET;
}

static struct watcher *watcher_new(struct watchers *w, struct endpoint_call *call, uint64_t version) {
	struct watcher *x = calloc(1, sizeof(*x));

	x->watchers = w;
	x->call = call;
	x->version = version;
	list_init(&x->link);
	list_push(&w->all, &x->link);
	w->n++;
	timer_init(&x->patience, watcher_on_impatience);
	endpoint_keep(call, watcher_on_gone, x);
	return x;
}

static void watchers_add_stream(struct watchers *w, struct endpoint_call *call, uint64_t from) {
	struct watcher *x = watcher_new(w, call, roster_version(w->roster));

	x->is_stream = true;
	endpoint_stream_begin(call, "text/event-stream");
	watcher_tell(x, from == RESET || has_news(w, from) ? event_since(w, from) : still_there);
}

void watchers_add(struct watchers *w, struct endpoint_call *call) {
	uint64_t from = version_of(w, endpoint_query(call, "since"));

	if (w->is_closed || w->n >= WATCHERS_MAX) {
		endpoint_answer_error(call, 503, "overloaded",
		    w->is_closed ? "The registry is being stopped" : "Too many watchers");
		return;
	}
	if (buf_is_over_budget(&w->loop->bufs)) {
		endpoint_answer_error(call, 503, "overloaded", "Too much waits for clients that do not read");
		return;
	}
	w->n_resets += from == RESET;
	if (endpoint_wants_events(call)) {
		watchers_add_stream(w, call, from);
	} else if (from == RESET || has_news(w, from)) {
		endpoint_answer_piece(call, 200, "application/json", without_frame(event_since(w, from)));
	} else {
		struct watcher *x = watcher_new(w, call, from);
		loop_timer(w->loop, &x->patience, WATCHERS_POLL_MS);
	}
	loop_wake(w->loop, &w->job); /* forgets what was printed */
}
