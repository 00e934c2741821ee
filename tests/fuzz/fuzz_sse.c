/* fuzz_sse: an answer teaches the same however it is cut. The first byte says how and of which kind it is. */
#include "router/tap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct buf_budget budget = { .max_bytes = 1u << 20 };
static struct buf_pool pool;
static struct tap_scratch scratch;

static struct tap listen_to(enum tap_kind kind, struct slice text, size_t step) {
	struct tap t = { .kind = (uint8_t)kind, .at_boundary = true };
	unsigned n_events = 0;

	for (size_t at = 0; at < text.n; at += step) {
		struct slice part = slice_head(slice_skip(text, at), step);
		struct piece piece = { part.p, part.n, NULL };
		n_events += tap_feed(&t, &scratch, &pool, &piece, 1).n_content;
	}
	tap_finish(&t, &scratch, &pool);
	assert(n_events == t.n_events && !t.saved);
	return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	if (n == 0)
		return 0;
	if (!pool.budget) {
		buf_pool_init(&pool, &budget);
		tap_scratch_init(&scratch, &pool);
	}
	enum tap_kind kind = data[0] & 1 ? TAP_EVENTS : TAP_JSON;
	struct slice text = { (const char *)data + 1, n - 1 };
	struct tap whole = listen_to(kind, text, n), cut = listen_to(kind, text, data[0] / 2 + 1u);
	assert(whole.tokens_in == cut.tokens_in && whole.tokens_out == cut.tokens_out);
	assert(whole.n_events == cut.n_events && whole.has_usage == cut.has_usage);
	assert(whole.is_done == cut.is_done && whole.at_boundary == cut.at_boundary);
	return 0;
}
