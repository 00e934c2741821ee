/*
 * Mail only records and wakes a job; the job puts questions, in turns with a fresh clock. A question
 * ends in a callback of its own: of an answer, or of its timer, and takes its other requests back.
 */
#include "router/verdicts.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/metric.h"
#include "base/text.h"
#include "http/origin.h"

#define ANSWER_BYTES_MAX (64u << 10) /* of who says no; nobody reads it */
#define PROLONG_MS       2000u       /* between two questions about a key that nobody can answer */

/* One URL. */
struct authority {
	struct origin *origin;
	char *path;
	bool is_failing; /* as the log has it */
};

/* One GET. */
struct asking {
	struct fetch fetch;
	struct question *question;
	struct authority *authority;
};

struct question {
	struct list link; /* verdicts->questions */
	struct verdicts *verdicts;
	struct list inquiries; /* who waits for it */
	struct timer timer;
	uint8_t digest[DIGEST_BYTES];
	unsigned n_open; /* askings without an answer */
	bool has_failed; /* one of them said nothing about the key */
	struct asking askings[];
};

struct verdicts {
	struct loop *loop;
	struct verdict_table *table;
	uint64_t timeout_ms;
	struct job job;
	struct list asked; /* to be looked at */
	struct list questions;
	unsigned n_questions;
	bool is_closed;
	uint64_t n_valid, n_invalid, n_failed; /* questions that ended so */
	uint64_t n_busy;                       /* inquiries that were turned away */
	unsigned n_authorities;
	struct authority authorities[VERDICT_URLS_MAX];
};

/* --- words ---------------------------------------------------------------------------- */

/* Behind it the inquiry is not ours, unless a cancel is on its way. */
static void answer(struct inquiry *q, enum verdict verdict) {
	assert(!q->verdict && verdict);
	list_remove(&q->link);
	digest_wipe(q->key, sizeof(q->key));
	q->verdict = (uint8_t)verdict;
	loop_post(q->home, &q->mail, q->on_verdict);
}

static void answer_all(struct list *inquiries, enum verdict verdict) {
	struct list *first;

	while ((first = list_first(inquiries)))
		answer(container_of(first, struct inquiry, link), verdict);
}

/* --- a question's end ------------------------------------------------------------------- */

static void cancel_askings(struct question *q) {
	for (unsigned i = 0; i < q->verdicts->n_authorities; i++)
		origin_cancel(q->askings[i].authority->origin, &q->askings[i].fetch);
}

static enum verdict fall_back(struct verdicts *v, const uint8_t *digest, enum verdict otherwise) {
	bool is_kept = verdict_table_prolong(v->table, digest, loop_now_ms(v->loop), PROLONG_MS);

	return is_kept ? VERDICT_STALE : otherwise;
}

static void end_question(struct question *q, enum verdict verdict) {
	struct verdicts *v = q->verdicts;

	cancel_askings(q);
	timer_stop(&q->timer);
	list_remove(&q->link);
	v->n_questions--;
	if (verdict == VERDICT_FAILED) {
		v->n_failed++;
		verdict = fall_back(v, q->digest, VERDICT_FAILED);
	} else {
		v->n_valid += verdict == VERDICT_VALID;
		v->n_invalid += verdict == VERDICT_INVALID;
		verdict_table_put(v->table, q->digest, verdict == VERDICT_VALID, loop_now_ms(v->loop));
	}
	answer_all(&q->inquiries, verdict);
	free(q);
}

/* --- answers ---------------------------------------------------------------------------- */

/* Said once until it answers again: a flood of keys makes no flood of lines. */
static void note_failure(struct authority *a, const char *why, unsigned status) {
	struct log_event e;

	if (a->is_failing)
		return;
	a->is_failing = true;
	log_begin(&e, LOG_WARN, "a server of API keys does not say whether they are valid");
	line_text(&e.line, SLICE("url"), slice_of(origin_url(a->origin)));
	line_text(&e.line, SLICE("why"), slice_of(why));
	if (status)
		line_uint(&e.line, SLICE("status"), status);
	log_end(&e);
}

static void note_answer(struct authority *a) {
	struct log_event e;

	if (!a->is_failing)
		return;
	a->is_failing = false;
	log_begin(&e, LOG_INFO, "a server of API keys answers again");
	line_text(&e.line, SLICE("url"), slice_of(origin_url(a->origin)));
	log_end(&e);
}

/* Whether it says that the key is bad. Others are busy, broken, or elsewhere. */
static bool is_no(unsigned status) {
	return status >= 400 && status < 500 && status != 408 && status != 425 && status != 429;
}

static void on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct asking *a = container_of(f, struct asking, fetch);
	struct question *q = a->question;

	q->n_open--;
	if (outcome)
		note_failure(a->authority, fetch_outcome_text((enum fetch_outcome)outcome), 0);
	else if (status != 200 && !is_no(status))
		note_failure(a->authority, "an unexpected status", status);
	else
		note_answer(a->authority);
	q->has_failed |= outcome || (status != 200 && !is_no(status));
	if (!outcome && status == 200)
		end_question(q, VERDICT_VALID);
	else if (!q->n_open)
		end_question(q, q->has_failed ? VERDICT_FAILED : VERDICT_INVALID);
}

/* Of an answer with status 200: what stands in it is nobody's concern. */
static void on_part(struct fetch *f, struct slice part) {
	struct asking *a = container_of(f, struct asking, fetch);

	note_answer(a->authority);
	end_question(a->question, VERDICT_VALID);
}

static void on_late(struct timer *timer) {
	struct question *q = container_of(timer, struct question, timer);

	for (unsigned i = 0; i < q->verdicts->n_authorities; i++)
		if (fetch_is_busy(&q->askings[i].fetch))
			note_failure(q->askings[i].authority, fetch_outcome_text(FETCH_E_TIMEOUT), 0);
	end_question(q, VERDICT_FAILED);
}

/* --- questions -------------------------------------------------------------------------- */

static struct question *find_question(const struct verdicts *v, const uint8_t *digest) {
	list_each (l, &v->questions) {
		struct question *q = container_of(l, struct question, link);

		if (digest_is_equal(q->digest, digest, DIGEST_BYTES))
			return q;
	}
	return NULL;
}

static struct question *put_question(struct verdicts *v, const struct inquiry *inquiry) {
	struct question *q = calloc(1, sizeof(*q) + v->n_authorities * sizeof(q->askings[0]));
	struct fetch_request request = { .bearer = { inquiry->key, inquiry->n_key }, .accept = SLICE("*/*") };

	q->verdicts = v;
	q->n_open = v->n_authorities;
	memcpy(q->digest, inquiry->digest, DIGEST_BYTES);
	list_init(&q->inquiries);
	list_init(&q->link);
	list_push(&v->questions, &q->link);
	v->n_questions++;
	timer_init(&q->timer, on_late);
	loop_timer(v->loop, &q->timer, v->timeout_ms);
	for (unsigned i = 0; i < v->n_authorities; i++) {
		struct asking *a = &q->askings[i];

		a->question = q;
		a->authority = &v->authorities[i];
		fetch_init(&a->fetch, v->timeout_ms, ANSWER_BYTES_MAX, on_done);
		a->fetch.on_part = on_part;
		request.path = slice_of(a->authority->path);
		origin_fetch(a->authority->origin, &a->fetch, &request);
	}
	return q;
}

static void consider(struct verdicts *v, struct inquiry *inquiry) {
	enum verdict_found found = verdict_table_find(v->table, inquiry->digest, loop_now_ms(v->loop));
	struct question *q = find_question(v, inquiry->digest);

	if (found != VERDICT_UNKNOWN) {
		answer(inquiry, found == VERDICT_GOOD ? VERDICT_VALID : VERDICT_INVALID);
	} else if (!q && v->n_questions == VERDICT_QUESTIONS_MAX) {
		v->n_busy++;
		answer(inquiry, fall_back(v, inquiry->digest, VERDICT_BUSY));
	} else {
		if (!q)
			q = put_question(v, inquiry);
		digest_wipe(inquiry->key, sizeof(inquiry->key));
		list_remove(&inquiry->link);
		list_push(&q->inquiries, &inquiry->link);
	}
}

static void run(struct job *job) {
	struct verdicts *v = container_of(job, struct verdicts, job);
	struct list *first;

	while ((first = list_first(&v->asked)))
		consider(v, container_of(first, struct inquiry, link));
}

/* --- mail ------------------------------------------------------------------------------- */

static void on_ask(struct mail *mail) {
	struct inquiry *q = container_of(mail, struct inquiry, mail);
	struct verdicts *v = q->verdicts;

	list_init(&q->link);
	if (v->is_closed) {
		answer(q, VERDICT_FAILED);
		return;
	}
	list_push(&v->asked, &q->link);
	loop_wake(v->loop, &v->job);
}

void verdicts_ask(struct inquiry *q) {
	q->verdict = VERDICT_NONE;
	loop_post(q->verdicts->loop, &q->mail, on_ask);
}

/* It may be among those asked, wait for a question, or have its word. */
static void on_cancel(struct mail *mail) {
	struct inquiry *q = container_of(mail, struct inquiry, cancel);

	list_remove(&q->link);
	digest_wipe(q->key, sizeof(q->key));
	loop_post(q->home, &q->cancel, q->on_cancelled);
}

void verdicts_cancel(struct inquiry *q) {
	loop_post(q->verdicts->loop, &q->cancel, on_cancel);
}

/* --- life ------------------------------------------------------------------------------- */

/* An origin has the server; what is behind it is asked for as it stands, with its query. */
static bool open_authority(struct verdicts *v, const char *text) {
	struct slice url = slice_of(text);
	struct authority *a = &v->authorities[v->n_authorities];
	struct text_url parts;

	if (!text_url(url, &parts))
		return false;
	a->origin = origin_new(v->loop, slice_head(url, url.n - parts.path.n));
	if (!a->origin)
		return false;
	a->path = strdup(parts.path.n ? parts.path.p : "/"); /* it goes to the end of the text */
	v->n_authorities++;
	return true;
}

struct verdicts *verdicts_new(
    struct loop *loop, const struct verdict_options *options, const char **url_out) {
	struct verdicts *v = calloc(1, sizeof(*v));

	assert(options->urls.n && options->urls.n <= VERDICT_URLS_MAX);
	v->loop = loop;
	v->timeout_ms = options->timeout_ms;
	v->table = verdict_table_new(VERDICT_ENTRIES, &options->times);
	job_init(&v->job, run);
	list_init(&v->asked);
	list_init(&v->questions);
	for (size_t i = 0; i < options->urls.n; i++)
		if (!open_authority(v, options->urls.items[i])) {
			*url_out = options->urls.items[i];
			verdicts_free(&v);
			break;
		}
	return v;
}

void verdicts_close(struct verdicts *v) {
	if (!v)
		return;
	v->is_closed = true;
	answer_all(&v->asked, VERDICT_FAILED);
	list_each_safe (l, &v->questions)
		end_question(container_of(l, struct question, link), VERDICT_FAILED);
	job_cancel(&v->job);
}

void verdicts_free(struct verdicts **verdicts) {
	struct verdicts *v = *verdicts;

	*verdicts = NULL;
	if (!v)
		return;
	assert(list_is_empty(&v->asked) && list_is_empty(&v->questions));
	job_cancel(&v->job);
	for (unsigned i = 0; i < v->n_authorities; i++) {
		origin_free(&v->authorities[i].origin);
		free(v->authorities[i].path);
	}
	verdict_table_free(&v->table);
	free(v);
}

/* --- sights ------------------------------------------------------------------------------ */

enum verdict_found verdicts_find(
    const struct verdicts *v, const uint8_t digest[static DIGEST_BYTES], uint64_t now_ms) {
	return verdict_table_find(v->table, digest, now_ms);
}

unsigned verdicts_n_connections(const struct verdicts *v) {
	return v->n_authorities * VERDICT_QUESTIONS_MAX;
}

uint64_t verdicts_patience_ms(const struct verdicts *v) {
	return 2 * v->timeout_ms;
}

void verdicts_write_metrics(const struct verdicts *v, FILE *out) {
	const char *name = "headrace_key_questions_total";

	metric_write_family(out, name, "counter",
	    "Questions to other servers about API keys: what came of them; busy: not put, since too many "
	    "were "
	    "under way.");
	metric_write_row(out, name, "outcome", "valid", (double)v->n_valid);
	metric_write_row(out, name, "outcome", "invalid", (double)v->n_invalid);
	metric_write_row(out, name, "outcome", "failed", (double)v->n_failed);
	metric_write_row(out, name, "outcome", "busy", (double)v->n_busy);
	metric_write_one(out, "headrace_key_questions", "gauge", "Of them, those that are under way.",
	    (double)v->n_questions);
	metric_write_one(out, "headrace_key_verdicts", "gauge",
	    "API keys of which is remembered what was said.",
	    (double)verdict_table_count(v->table, loop_now_ms(v->loop)));
}
