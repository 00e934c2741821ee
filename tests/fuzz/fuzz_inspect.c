/*
 * fuzz_inspect: what is learned of a JSON body does not depend on how it was cut: cause, model, session,
 * features and the keys of its prompt. The first byte says how; every '~' of the body stands for nearly two
 * blocks of text, so that small inputs have long prompts.
 */
#include "router/inspect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define BODY_BYTES_MAX (1u << 20)
#define TILDE_BYTES    (2 * PROMPT_BLOCK_BYTES - 1)

static struct buf_budget budget = { .max_bytes = 1u << 24 };
static struct buf_pool pool;
static struct inspect_rules rules;
static struct head_room request;
static char body[BODY_BYTES_MAX];
static uint64_t keys[2][PROMPT_BLOCKS_MAX];

static void begin(void) {
	static const char head[] =
	    "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-type: text/json\r\n\r\n";
	struct slice rest = SLICE(INSPECT_MEMBERS_NAMES), member;
	enum cause cause;
	buf_pool_init(&pool, &budget);
	inspect_rules_init(&rules, NULL, 0);
	while (slice_next_member(&rest, &member)) {
		bool is_known = inspect_rules_add(&rules, member);
		assert(is_known);
	}
	int r = head_parse_request(&request, SLICE(head), &cause);
	assert(r == 0);
}

static size_t expand(const uint8_t *data, size_t n) {
	size_t at = 0;
	for (size_t i = 0; i < n && at + TILDE_BYTES < BODY_BYTES_MAX; i++) {
		size_t n_same = data[i] == '~' ? TILDE_BYTES : 1;
		memset(body + at, data[i], n_same);
		at += n_same;
	}
	return at;
}

static enum cause learn(size_t n, size_t step, uint64_t *room, struct demand *out) {
	const struct inspect_salt salt = { .tenant = 1, .tokens_per_byte = 0.25 };
	struct inspect in;
	enum cause cause = inspect_init(&in, &rules, &pool, &request.head);
	for (size_t at = 0; at < n && !cause; at += step)
		cause = inspect_feed(&in, body + at, size_min(step, n - at));
	if (!cause)
		cause = inspect_finish(&in);
	if (!cause) {
		inspect_demand(&in, &salt, room, out);
		assert(out->n_keys <= out->prompt_bytes / PROMPT_BLOCK_BYTES);
		assert(inspect_model(&in).n <= 256 && inspect_is_decided(&in) && inspect_has_all(&in));
	}
	inspect_deinit(&in, &pool);
	return cause;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	if (n == 0)
		return 0;
	if (!pool.budget)
		begin();
	struct demand whole, cut;
	size_t n_body = expand(data + 1, n - 1);
	enum cause cause = learn(n_body, n_body + 1, keys[0], &whole);
	enum cause cause_cut = learn(n_body, data[0] * 11u + 1, keys[1], &cut);
	assert(!cause == !cause_cut); /* of two mistakes the first is told that a piece brought to light */
	if (cause)
		return 0;
	assert(whole.n_keys == cut.n_keys && whole.prompt_bytes == cut.prompt_bytes);
	assert(whole.prompt_tokens == cut.prompt_tokens && whole.is_batch == cut.is_batch);
	assert(whole.capability == cut.capability && whole.is_counted == cut.is_counted);
	assert(whole.features == cut.features && whole.output_max == cut.output_max);
	assert(whole.session == cut.session);
	assert(memcmp(keys[0], keys[1], whole.n_keys * sizeof(keys[0][0])) == 0);
	return 0;
}
