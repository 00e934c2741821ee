/*
 * fuzz_merge: what the answers of a prefill and of a decode engine are merged into is JSON, as is an event,
 * and what was cut into bufs is merged like what was not.
 *
 * Up to the first zero byte it is the prefill engine's answer, then the decode engine's, which is given as
 * the first two events of a stream, too.
 */
#include "router/split_merge.h"

#include "fuzz/fuzz_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct buf_budget budget = { .max_bytes = 64u << 20 };
static struct buf_pool pool;

static void add(struct hold *h, struct slice text) {
	struct piece piece = { text.p, text.n, NULL };

	hold_append_forced(h, &pool, &piece, 1);
}

/* In bufs of n bytes. */
static struct hold held(struct slice text, size_t n) {
	struct hold h = { .bytes = text.n };

	for (struct buf **next = &h.first; text.n; next = &h.last->next) {
		h.last = *next = buf_new_forced(&pool, n);
		h.last->used = (uint32_t)size_min(n, text.n);
		memcpy(h.last->data, text.p, h.last->used);
		text = slice_skip(text, h.last->used);
	}
	return h;
}

/* As the client gets it. */
static struct hold merged(struct slice prefill_text, struct slice decode_text, size_t n) {
	struct hold prefill = held(prefill_text, n), decode = held(decode_text, n), out = { .bytes = 0 };
	struct splice_cursor c;
	struct split_merge m;
	struct split_answer answer;
	struct piece piece;

	if (split_merge_read(&m, &prefill) && split_merge_answer(&m, &decode, &pool, &answer)) {
		splice_begin(&c, &answer.splice, &decode);
		while (splice_pieces(&c, &piece, 1))
			add(&out, (struct slice){ piece.p, piece.n });
		assert(out.bytes == splice_length(&answer.splice, decode.bytes));
		assert(is_json_held(&out));
		split_answer_free(&answer, &pool);
	}
	hold_free(&prefill, &pool);
	hold_free(&decode, &pool);
	return out;
}

static void assert_same(const struct hold *a, const struct hold *b) {
	char *x = text_of(a), *y = text_of(b);

	assert(a->bytes == b->bytes && memcmp(x, y, (size_t)a->bytes) == 0);
	free(x);
	free(y);
}

static void merge_event(struct split_merge *m, struct slice event) {
	struct hold out = { .bytes = 0 };
	struct splice splice;
	bool is_concerned = split_merge_concerns(m, event);

	if (!split_merge_event(m, event, &splice))
		return;
	assert(is_concerned);
	splice_append(&splice, event, &out, &pool);
	assert(out.bytes == splice_length(&splice, event.n));
	char *after = text_of(&out);
	assert(is_json(data_of((struct slice){ after, (size_t)out.bytes })));
	free(after);
	hold_free(&out, &pool);
}

static void merge_events(struct slice prefill_text, struct slice json) {
	struct hold prefill = held(prefill_text, 4000), event = { .bytes = 0 };
	struct split_merge m;

	add(&event, SLICE("data:"));
	add(&event, json);
	add(&event, SLICE("\n\n"));
	char *text = text_of(&event);
	for (int i = 0; i < 2 && (i > 0 || split_merge_read(&m, &prefill)); i++)
		merge_event(&m, (struct slice){ text, (size_t)event.bytes });
	free(text);
	hold_free(&prefill, &pool);
	hold_free(&event, &pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	if (!pool.budget)
		buf_pool_init(&pool, &budget);
	struct slice decode = { (const char *)data, n };
	struct slice prefill = next_part(&decode);
	struct hold whole = merged(prefill, decode, 4000), cut = merged(prefill, decode, 1 + n % 5);
	assert_same(&whole, &cut);
	merge_events(prefill, decode);
	hold_free(&whole, &pool);
	hold_free(&cut, &pool);
	return 0;
}
