#include "router/explain.h"

#include <stdlib.h>

#include "base/text.h"
#include "fleet/label.h"
#include "router/explain_ask.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     1000u
#define NAME_BYTES    257u
#define SCAN_RECORDS  1024u /* in one turn of a worker */
#define NOT_FOUND     "no such decision is remembered"
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

enum reply_dialect explain_dialect(struct endpoint_call *call) {
	const struct report *report = endpoint_context(call);

	return reply_dialect(report->router->settings->config->errors, head_path(endpoint_head(call)));
}

void explain_refuse(
    struct endpoint_call *call, enum reply_dialect dialect, enum cause cause, const char *detail) {
	char *text = reply_error_text(cause, detail, dialect);

	endpoint_answer_text(call, reply_error(cause, dialect).status, "application/json", slice_of(text));
	free(text);
}

static void ask_on_gone(void *owner) {
	struct explain_ask *ask = owner;

	ask->call = NULL;
}

bool explain_ask_begin(struct explain_ask *ask, struct endpoint_call *call) {
	struct report *report = endpoint_context(call);

	if (report->explain.n_asks >= EXPLAIN_ASKS_MAX) {
		explain_refuse(call, explain_dialect(call), CAUSE_OVERLOADED, NULL);
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

/* What is looked for. A text that is empty, or a number 0, asks for nothing. */
struct filter {
	char model[NAME_BYTES], instance[NAME_BYTES], reason[32], request[DECISION_ID_MAX + 1];
	uint64_t since_ns;
	uint64_t number; /* of one record, of this worker */
	uint32_t worker, limit;
};

/*
 * A mail that goes from worker to worker and comes back after each. There it looks at SCAN_RECORDS
 * records, then waits behind the events of others. Each may find as many as were asked for; what is too
 * much is left out before the next one is asked.
 */
struct search {
	struct explain_ask ask;
	struct mail mail;
	struct filter filter;
	struct worker *worker; /* that is asked now */
	unsigned n_left;       /* to be asked, with this one */
	uint64_t next;         /* the record to look at; 0: none */
	uint32_t n, n_before;  /* found, and found at others */
	struct decision items[];
};

static bool is_wanted(const char *wanted, const char *text) {
	return !wanted[0] || !strcmp(wanted, text);
}

/* A request that was refused has nothing of what is asked for here. */
static bool fits_choice(const struct filter *f, const struct decision *d) {
	struct decision_why why = decision_why_of(d);

	if (d->refusal)
		return !f->instance[0] && !f->reason[0];
	return is_wanted(f->instance, label_text(LABEL_INSTANCE, d->chosen.label)) &&
	    (!f->reason[0] || decision_has_reason(&why, f->reason));
}

static bool fits(const struct filter *f, const struct decision *d) {
	return d->at_ns >= f->since_ns &&
	    (!f->request[0] || slice_eq(slice_of(f->request), (struct slice){ d->id, d->id_n })) &&
	    is_wanted(f->model, label_text(LABEL_MODEL, d->model)) && fits_choice(f, d);
}

/* Newest first. */
static int decision_cmp(const void *one, const void *other) {
	const struct decision *a = one, *b = other;

	if (a->at_ns != b->at_ns)
		return a->at_ns > b->at_ns ? -1 : 1;
	return a->number > b->number ? -1 : a->number < b->number;
}

static void search_sort(struct search *s) {
	qsort(s->items, s->n, sizeof(s->items[0]), decision_cmp);
	s->n = (uint32_t)size_min(s->n, s->filter.limit);
}

static void search_answer(struct search *s) {
	struct decision_moment *moment = &s->ask.explain->moment;
	bool is_for_one = s->filter.number || s->filter.request[0];
	json_t *list;

	search_sort(s);
	decision_moment_refresh(moment);
	if (is_for_one && s->n)
		endpoint_answer_json(s->ask.call, 200, decision_json(&s->items[0], moment));
	if (is_for_one && !s->n)
		explain_error(s->ask.call, 404, "not_found", NOT_FOUND);
	if (is_for_one)
		return;
	list = json_array();
	for (uint32_t i = 0; i < s->n; i++)
		json_array_append_new(list, decision_json(&s->items[i], moment));
	endpoint_answer_json(s->ask.call, 200, json_pack("{s:o}", "decisions", list));
}

static void search_ask(struct search *s);

/* Back on the control thread. */
static void deliver_found(struct mail *mail) {
	struct search *s = container_of(mail, struct search, mail);

	if (s->n > s->filter.limit)
		search_sort(s);
	if (s->ask.call && --s->n_left) {
		s->worker++;
		search_ask(s);
		return;
	}
	explain_ask_end(&s->ask);
	if (s->ask.call)
		search_answer(s);
	free(s);
}

/* One record. False: there are no older ones, or there are enough. */
static bool search_look(struct search *s) {
	const struct decision_ring *ring = &s->worker->decisions;
	uint64_t age = ring->n_begun - s->next;
	const struct decision *d;

	if (!s->next || age >= ring->n || s->n == s->n_before + s->filter.limit)
		return false;
	d = decision_at(ring, (uint32_t)age);
	if (d && fits(&s->filter, d))
		s->items[s->n++] = *d;
	s->next = s->filter.number ? 0 : s->next - 1;
	return true;
}

/* On the worker's thread, as what follows. Records that come meanwhile are too late. */
static void deliver_scan(struct mail *mail) {
	struct search *s = container_of(mail, struct search, mail);

	for (unsigned i = 0; i < SCAN_RECORDS; i++) {
		if (!search_look(s)) {
			loop_post(s->ask.explain->loop, &s->mail, deliver_found);
			return;
		}
	}
	loop_post(&s->worker->loop, &s->mail, deliver_scan);
}

static void deliver_search(struct mail *mail) {
	struct search *s = container_of(mail, struct search, mail);

	s->next = s->filter.number ? s->filter.number : s->worker->decisions.n_begun;
	deliver_scan(mail);
}

static void search_ask(struct search *s) {
	s->n_before = s->n;
	loop_post(&s->worker->loop, &s->mail, deliver_search);
}

static void search_start(struct endpoint_call *call, const struct filter *filter) {
	struct router *router = ((struct report *)endpoint_context(call))->router;
	size_t limit = size_min(filter->limit, router->settings->config->explain.n_records);
	struct search *s = malloc(sizeof(*s) + 2 * limit * sizeof(s->items[0]));

	if (!s) {
		explain_refuse(call, explain_dialect(call), CAUSE_OVERLOADED, NULL);
		return;
	}
	*s = (struct search){ .filter = *filter, .n_left = filter->number ? 1 : router->n_workers };
	s->filter.limit = (uint32_t)limit;
	s->worker = &router->workers[filter->worker];
	if (explain_ask_begin(&s->ask, call))
		search_ask(s);
	else
		free(s);
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

/* A number, when it is there. */
static bool take_uint(struct endpoint_call *call, const char *key, uint64_t max, uint64_t *value_inout) {
	struct slice text = endpoint_query(call, key);

	return !text.p || text_uint(text, max, value_inout);
}

/* What is wrong with the query, or NULL. */
static const char *filter_read(struct filter *f, struct endpoint_call *call) {
	const struct decision_moment *moment = &((struct report *)endpoint_context(call))->explain.moment;
	uint64_t limit = LIMIT_DEFAULT, since_ms = 0;

	if (!endpoint_query_is_good(call))
		return EXPLAIN_BAD_QUERY;
	if (!take_uint(call, "limit", LIMIT_MAX, &limit) || !limit)
		return "limit is a number from 1 to 1000";
	if (!take_uint(call, "since", SINCE_MAX, &since_ms))
		return "since is in milliseconds since 1970";
	if (!take_text(call, "reason", f->reason, sizeof(f->reason)) ||
	    (f->reason[0] && !decision_is_reason(f->reason)))
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
static bool filter_take_number(struct filter *f, struct slice id) {
	const char *dash = memchr(id.p, '-', id.n);
	uint64_t worker;

	if (!dash || !text_uint(slice_head(id, (size_t)(dash - id.p)), LOAD_WORKERS_MAX, &worker) ||
	    !text_uint(slice_skip(id, (size_t)(dash - id.p) + 1), UINT64_MAX, &f->number))
		return false;
	f->worker = (uint32_t)worker;
	return true;
}

void explain_decision(struct endpoint_call *call) {
	const struct router *router = ((struct report *)endpoint_context(call))->router;
	struct slice id = endpoint_param(call);
	struct filter filter = { .limit = 1 };
	bool is_number = filter_take_number(&filter, id);

	if (id.n > DECISION_ID_MAX || (is_number && (!filter.number || filter.worker >= router->n_workers))) {
		explain_error(call, 404, "not_found", NOT_FOUND);
		return;
	}
	if (!is_number)
		memcpy(filter.request, id.p, id.n);
	search_start(call, &filter);
}
