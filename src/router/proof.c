#include "router/proof.h"

#include "router/verdicts.h"

static struct worker *worker_of(const struct inquiry *q) {
	return container_of(q->home, struct worker, loop);
}

static void put_inquiry(struct inquiry *q) {
	slab_put(&worker_of(q)->inquiries, q);
}

static void on_verdict(struct mail *mail) {
	struct inquiry *q = container_of(mail, struct inquiry, mail);

	q->is_back = true;
	if (q->job) /* else the answer to the cancel is behind this */
		loop_wake(q->home, q->job);
}

static void on_cancelled(struct mail *mail) {
	put_inquiry(container_of(mail, struct inquiry, cancel));
}

static void ask(struct exchange *x, struct slice key, const uint8_t *digest) {
	struct inquiry *q = x->inquiry = slab_get(&x->worker->inquiries);

	q->verdicts = x->worker->router->verdicts;
	q->home = &x->worker->loop;
	q->on_verdict = on_verdict;
	q->on_cancelled = on_cancelled;
	q->job = &x->job;
	q->is_back = false;
	memcpy(q->digest, digest, DIGEST_BYTES);
	memcpy(q->key, key.p, key.n);
	q->n_key = (uint16_t)key.n;
	verdicts_ask(q);
}

/* What becomes a header's value, and could be one of the keys that are made for that. */
static bool is_text(struct slice key) {
	for (size_t i = 0; i < key.n; i++)
		if (key.p[i] <= ' ' || key.p[i] > '~')
			return false;
	return key.n <= TENANT_KEY_MAX;
}

static enum cause welcome(struct exchange *x) {
	x->tenant = exchange_config(x)->validation.tenant;
	return CAUSE_NONE;
}

enum cause proof_take(struct exchange *x, struct slice key, const uint8_t digest[static DIGEST_BYTES]) {
	struct metric_shard *m = x->worker->metrics;

	if (!is_text(key))
		return CAUSE_INVALID_KEY;
	switch (verdicts_find(x->worker->router->verdicts, digest, loop_now_ms(&x->worker->loop))) {
	case VERDICT_GOOD:
		metric_add(&m->verdicts_valid, 1);
		return welcome(x);
	case VERDICT_BAD:
		metric_add(&m->verdicts_invalid, 1);
		return CAUSE_INVALID_KEY;
	case VERDICT_UNKNOWN:
		break;
	}
	ask(x, key, digest);
	return CAUSE_NONE;
}

static enum cause cause_of(struct exchange *x, enum verdict verdict) {
	switch (verdict) {
	case VERDICT_STALE:
		metric_add(&x->worker->metrics->verdicts_stale, 1);
		return welcome(x);
	case VERDICT_VALID:
		return welcome(x);
	case VERDICT_INVALID:
		return CAUSE_INVALID_KEY;
	case VERDICT_BUSY:
		return CAUSE_KEYS_BUSY;
	default:
		return CAUSE_KEY_UNVERIFIED;
	}
}

bool proof_hear(struct exchange *x, enum cause *cause_out) {
	struct inquiry *q = x->inquiry;

	if (!q->is_back)
		return false;
	x->inquiry = NULL;
	*cause_out = cause_of(x, (enum verdict)q->verdict);
	put_inquiry(q);
	return true;
}

void proof_leave(struct exchange *x) {
	struct inquiry *q = x->inquiry;

	if (!q)
		return;
	x->inquiry = NULL;
	q->job = NULL;
	if (q->is_back)
		put_inquiry(q);
	else
		verdicts_cancel(q);
}

uint64_t proof_patience_ms(const struct exchange *x) {
	return verdicts_patience_ms(x->worker->router->verdicts);
}
