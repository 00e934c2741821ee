#include "router/explain.h"

#include <stdlib.h>

#include "base/text.h"
#include "fleet/label.h"
#include "router/explain_ask.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     1000u
#define NAME_BYTES    257u
#define SINCE_MAX     UINT64_C(8000000000000) /* the year 2223: in nanoseconds it fits */

void explain_init(struct explain *e, struct loop *loop, struct router *router) {
	*e = (struct explain){ .loop = loop, .router = router, .moment = decision_moment_now() };
}

/* --- questions in general --------------------------------------------------------------------- */

void explain_error(struct endpoint_call *call, unsigned status, const char *code, const char *message) {
	endpoint_answer_json(call, status,
	    json_pack("{s:{s:s, s:s, s:n, s:s}}", "error", "message", message, "type",
		"invalid_request_error", "param", "code", code));
}

void explain_refuse(struct endpoint_call *call, enum cause cause, const char *detail) {
	char *text = reply_error_text(cause, detail, REPLY_OPENAI);

	endpoint_answer_text(
	    call, reply_error(cause, REPLY_OPENAI).status, "application/json", slice_of(text));
	free(text);
}

static void ask_on_gone(void *owner) {
	struct explain_ask *ask = owner;

	ask->call = NULL;
}

bool explain_ask_begin(struct explain_ask *ask, struct endpoint_call *call) {
	struct report *report = endpoint_context(call);

	if (report->explain.n_asks >= EXPLAIN_ASKS_MAX) {
		explain_refuse(call, CAUSE_OVERLOADED, NULL);
		return false;
	}
	report->explain.n_asks++;
	*ask = (struct explain_ask){ .explain = &report->explain, .call = call };
	endpoint_keep(call, ask_on_gone, ask);
	return true;
}

void explain_ask_end(struct explain_ask *ask) {
	assert(ask->explain->n_asks > 0);
	ask->explain->n_asks--;
}

/* --- decisions -------------------------------------------------------------------------------- */

/* What is looked for. A text that is empty asks for nothing. */
struct filter {
	char model[NAME_BYTES], instance[NAME_BYTES], reason[32], id[DECISION_ID_MAX + 1];
	uint64_t since_ns;
	uint32_t limit;
	bool is_number; /* id is a decision's, not a request's */
};

/* The part of one worker. */
struct part {
	struct mail mail;
	struct search *search;
	struct worker *worker;
	uint32_t n;
	struct decision items[];
};

struct search {
	struct explain_ask ask;
	struct filter filter;
	struct part **parts;
	unsigned n_parts, n_left;
};

static bool is_wanted(const char *wanted, const char *text) {
	return !wanted[0] || !strcmp(wanted, text);
}

static bool has_id(const struct filter *f, const struct decision *d) {
	char room[DECISION_TEXT_BYTES];

	if (!f->id[0])
		return true;
	return slice_eq(
	    slice_of(f->id), f->is_number ? decision_text(d, room) : (struct slice){ d->id, d->id_n });
}

static bool fits(const struct filter *f, const struct decision *d) {
	return d->at_ns >= f->since_ns && has_id(f, d) &&
	    is_wanted(f->model, label_text(LABEL_MODEL, d->model)) &&
	    is_wanted(f->instance, label_text(LABEL_INSTANCE, d->chosen.label)) &&
	    is_wanted(f->reason, pick_reason_text((enum pick_reason)d->reason));
}

static void search_free(struct search *s) {
	for (unsigned i = 0; i < s->n_parts; i++)
		free(s->parts[i]);
	free(s->parts);
	free(s);
}

/* Newest first. */
static int decision_cmp(const void *one, const void *other) {
	const struct decision *a = *(const struct decision *const *)one;
	const struct decision *b = *(const struct decision *const *)other;

	if (a->at_ns != b->at_ns)
		return a->at_ns > b->at_ns ? -1 : 1;
	return a->number > b->number ? -1 : a->number < b->number;
}

/* All that was found, sorted; the caller frees it. */
static const struct decision **search_join(const struct search *s, size_t *n_out) {
	const struct decision **all;
	size_t n = 0;

	for (unsigned i = 0; i < s->n_parts; i++)
		n += s->parts[i]->n;
	all = malloc((n + 1) * sizeof(*all));
	*n_out = n;
	n = 0;
	for (unsigned i = 0; i < s->n_parts; i++)
		for (uint32_t k = 0; k < s->parts[i]->n; k++)
			all[n++] = &s->parts[i]->items[k];
	qsort(all, n, sizeof(*all), decision_cmp);
	return all;
}

static void search_answer(const struct search *s) {
	struct decision_moment *moment = &s->ask.explain->moment;
	size_t n;
	const struct decision **all = search_join(s, &n);

	decision_moment_refresh(moment);
	if (s->filter.id[0] && n == 0) {
		explain_error(s->ask.call, 404, "not_found", "no such decision is remembered");
	} else if (s->filter.id[0]) {
		endpoint_answer_json(s->ask.call, 200, decision_json(all[0], moment));
	} else {
		json_t *list = json_array();

		for (size_t i = 0; i < n && i < s->filter.limit; i++)
			json_array_append_new(list, decision_json(all[i], moment));
		endpoint_answer_json(s->ask.call, 200, json_pack("{s:o}", "decisions", list));
	}
	free(all);
}

/* Back on the control thread. */
static void deliver_found(struct mail *mail) {
	struct part *part = container_of(mail, struct part, mail);
	struct search *s = part->search;

	if (--s->n_left)
		return;
	explain_ask_end(&s->ask);
	if (s->ask.call)
		search_answer(s);
	search_free(s);
}

/* On the worker's thread. */
static void deliver_search(struct mail *mail) {
	struct part *part = container_of(mail, struct part, mail);
	const struct filter *f = &part->search->filter;
	const struct decision *d;

	for (uint32_t age = 0; part->n < f->limit && (d = decision_at(&part->worker->decisions, age)); age++)
		if (fits(f, d))
			part->items[part->n++] = *d;
	loop_post(part->search->ask.explain->loop, &part->mail, deliver_found);
}

static void search_start(struct endpoint_call *call, const struct filter *filter) {
	struct search *s = calloc(1, sizeof(*s));

	if (!explain_ask_begin(&s->ask, call)) {
		free(s);
		return;
	}
	struct router *router = s->ask.explain->router;
	size_t room = size_min(filter->limit, router->config->explain.n_records);

	s->filter = *filter;
	s->filter.limit = (uint32_t)room;
	s->n_parts = s->n_left = router->n_workers;
	s->parts = malloc(s->n_parts * sizeof(struct part *));
	for (unsigned i = 0; i < s->n_parts; i++) {
		s->parts[i] = malloc(sizeof(struct part) + room * sizeof(struct decision));
		*s->parts[i] = (struct part){ .search = s, .worker = &router->workers[i] };
	}
	for (unsigned i = 0, n = s->n_parts; i < n; i++)
		loop_post(&router->workers[i].loop, &s->parts[i]->mail, deliver_search);
}

/* False: it is too long to be one. */
static bool take_text(struct endpoint_call *call, const char *key, char *to, size_t size) {
	struct slice text = endpoint_query(call, key);

	if (text.n >= size)
		return false;
	if (text.n)
		memcpy(to, text.p, text.n);
	to[text.n] = '\0';
	return true;
}

static bool is_reason(const char *text) {
	for (unsigned i = 0; i < PICK_REASONS; i++)
		if (!strcmp(text, pick_reason_text((enum pick_reason)i)))
			return true;
	return false;
}

/* A number, when it is there. */
static bool take_uint(struct endpoint_call *call, const char *key, uint64_t max, uint64_t *value_inout) {
	struct slice text = endpoint_query(call, key);

	return !text.p || text_uint(text, max, value_inout);
}

/* What is wrong with the query, or NULL. */
static const char *filter_read(struct filter *f, struct endpoint_call *call) {
	const struct decision_moment *moment = &((struct report *)endpoint_context(call))->explain.moment;
	uint64_t limit = LIMIT_DEFAULT, since_ms = 0;

	if (!take_uint(call, "limit", LIMIT_MAX, &limit) || !limit)
		return "limit is a number from 1 to 1000";
	if (!take_uint(call, "since", SINCE_MAX, &since_ms))
		return "since is in milliseconds since 1970";
	if (!take_text(call, "reason", f->reason, sizeof(f->reason)) ||
	    (f->reason[0] && !is_reason(f->reason)))
		return "there is no such reason";
	if (!take_text(call, "model", f->model, sizeof(f->model)) ||
	    !take_text(call, "instance", f->instance, sizeof(f->instance)))
		return "no name is so long";
	int64_t since_ns = (int64_t)moment->now_ns + ((int64_t)since_ms - (int64_t)moment->wall_ms) * 1000000;

	f->since_ns = since_ns > 0 ? (uint64_t)since_ns : 0;
	f->limit = (uint32_t)limit;
	return NULL;
}

void explain_decisions(struct endpoint_call *call) {
	struct filter filter = { .limit = 0 };
	const char *wrong = filter_read(&filter, call);

	if (wrong)
		explain_error(call, 400, "bad_request", wrong);
	else
		search_start(call, &filter);
}

/* "3-117". A request whose id looks like that is not found by it. */
static bool is_number(struct slice id) {
	const char *dash = memchr(id.p, '-', id.n);
	uint64_t value;

	return dash && text_uint(slice_head(id, (size_t)(dash - id.p)), LOAD_WORKERS_MAX, &value) &&
	    text_uint(slice_skip(id, (size_t)(dash - id.p) + 1), UINT64_MAX, &value);
}

void explain_decision(struct endpoint_call *call) {
	struct slice id = endpoint_param(call);
	struct filter filter = { .limit = 1, .is_number = is_number(id) };

	if (id.n > DECISION_ID_MAX) {
		explain_error(call, 404, "not_found", "no such decision is remembered");
		return;
	}
	memcpy(filter.id, id.p, id.n);
	search_start(call, &filter);
}
