#include "ctl/question.h"

#include <stdlib.h>

#include "http/origin.h"

#define ANSWER_BYTES_MAX (64u << 20)

struct asking {
	struct loop loop;
	struct fetch fetch;
	struct answer *answer;
};

static void on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct asking *a = container_of(f, struct asking, fetch);

	if (outcome)
		a->answer->failure = fetch_outcome_text((enum fetch_outcome)outcome);
	a->answer->status = status;
	a->answer->n = body.n;
	a->answer->body = malloc(body.n + 1);
	if (body.n)
		memcpy(a->answer->body, body.p, body.n);
	a->answer->body[body.n] = '\0';
	loop_stop(&a->loop);
}

void question_ask(const struct question *q, struct answer *out) {
	struct buf_budget budget = { .max_bytes = ANSWER_BYTES_MAX };
	struct asking *a = calloc(1, sizeof(*a));
	struct fetch_request request = {
		.method = q->method, .path = slice_of(q->path), .body = q->body, .fields = q->fields
	};

	*out = (struct answer){ .failure = NULL };
	a->answer = out;
	if (loop_init(&a->loop, &budget) < 0) {
		out->failure = fetch_outcome_text(FETCH_E_LOCAL);
		free(a);
		return;
	}
	struct origin *origin = origin_new(&a->loop, slice_of(q->url));
	if (origin) {
		fetch_init(&a->fetch, q->timeout_ms, ANSWER_BYTES_MAX, on_done);
		origin_fetch(origin, &a->fetch, &request);
		loop_run(&a->loop);
		origin_free(&origin);
	} else {
		out->failure = "not a url";
	}
	loop_deinit(&a->loop);
	free(a);
}
