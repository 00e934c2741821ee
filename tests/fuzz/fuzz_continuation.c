/*
 * fuzz_continuation: what is spliced stays JSON, and however a stream is cut into reads its events are the
 * same.
 *
 * Up to the first zero byte it is the body of a request, up to the second one the first engine's stream, then
 * another engine's.
 */
#include "router/continuation.h"
#include "router/event.h"

#include "fuzz/fuzz_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct buf_budget budget = { .max_bytes = 64u << 20 };
static struct buf_pool pool;

static void add(struct hold *h, struct slice text) {
	struct piece piece = { text.p, text.n, NULL };

	if (text.n && !hold_append(h, &pool, &piece, 1))
		abort();
}

/* An event that goes on, as its client gets it, is as much JSON as it was. */
static void check_parts(const struct continuation_event *event, struct slice before) {
	size_t n = 0;

	for (unsigned i = 0; i < event->n_parts; i++)
		n += event->parts[i].n;
	char *text = malloc(n + 1), *to = text;
	for (unsigned i = 0; i < event->n_parts; to += event->parts[i].n, i++)
		memcpy(to, event->parts[i].p, event->parts[i].n);
	if (event->n_parts > 1) /* something was spliced */
		assert(is_json(data_of((struct slice){ text, n })) || !is_json(data_of(before)));
	free(text);
}

static void take_stream(struct continuation *c, struct slice stream, struct hold *said) {
	uint8_t line = 0;

	while (stream.n) {
		struct continuation_event out;
		size_t end = event_end(&line, stream), cut = 0;
		uint8_t slow = 0;
		for (size_t i = 0; i < (end ? end : stream.n) && !cut; i++) /* byte by byte */
			cut = event_end(&slow, (struct slice){ stream.p + i, 1 }) ? i + 1 : 0;
		assert(cut == end);
		struct slice event = slice_head(stream, end);
		if (!end || !continuation_take(c, event, &out))
			return;
		check_parts(&out, event);
		add(said, out.text);
		stream = slice_skip(stream, end);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	if (!pool.budget)
		buf_pool_init(&pool, &budget);
	struct slice rest = { (const char *)data, n };
	struct slice body_text = next_part(&rest), first = next_part(&rest);
	for (unsigned kind = CONTINUATION_CHAT; kind <= CONTINUATION_COMPLETION; kind++) {
		struct hold body = { .bytes = 0 }, said = { .bytes = 0 }, out = { .bytes = 0 };
		struct continuation_request request;
		struct continuation c;
		add(&body, body_text);
		continuation_init(&c, kind);
		take_stream(&c, first, &said);
		if (continuation_is_possible(&c)) {
			if (continuation_accepts(&request, kind, &body) &&
			    continuation_ask(&request, &body, &said, c.n_tokens, &pool, &out))
				assert(is_json_held(&out));
			continuation_resume(&c);
			take_stream(&c, rest, &said);
		}
		hold_free(&body, &pool);
		hold_free(&said, &pool);
		hold_free(&out, &pool);
	}
	return 0;
}
