#include "router/split_body.h"

#include "router/scan.h"

enum want {
	WANT_PROMPT = SPLIT_MEMBERS, /* whatever it is called */
	WANT_ITEM,                   /* of a list of prompts, told as they pass */
	WANTS,
};

#define PROMPTS "messages|prompt|input|text|input_ids|token_ids|prompt_token_ids"

static const struct scan_want wants[WANTS] = {
	[SPLIT_MAX_TOKENS] = { .path = "max_tokens" },
	[SPLIT_MAX_COMPLETION_TOKENS] = { .path = "max_completion_tokens" },
	[SPLIT_MAX_OUTPUT_TOKENS] = { .path = "max_output_tokens" },
	[SPLIT_MIN_TOKENS] = { .path = "min_tokens" },
	[SPLIT_STREAM] = { .path = "stream" },
	[SPLIT_STREAM_OPTIONS] = { .path = "stream_options" },
	[SPLIT_KV_PARAMS] = { .path = "kv_transfer_params" },
	[SPLIT_SAMPLING] = { .path = "sampling_params" },
	[SPLIT_SAMPLING_MAX_TOKENS] = { .path = "sampling_params.max_tokens" },
	[SPLIT_SAMPLING_MIN_TOKENS] = { .path = "sampling_params.min_tokens" },
	[SPLIT_BOOTSTRAP_HOST] = { .path = "bootstrap_host" },
	[SPLIT_BOOTSTRAP_PORT] = { .path = "bootstrap_port" },
	[SPLIT_BOOTSTRAP_ROOM] = { .path = "bootstrap_room" },
	[WANT_PROMPT] = { .path = PROMPTS },
	[WANT_ITEM] = { .path = "prompt.[]|text.[]|input_ids.[]", .tells = true },
};

static struct scan_table table;

struct reading {
	struct scan scan;
	struct scan_value values[WANTS];
	uint32_t n_items;
};

/* Token ids are one prompt; texts and lists of ids are many. */
static void on_item(struct scan *s, unsigned id, const char *p) {
	struct reading *r = container_of(s, struct reading, scan);
	const struct scan_value *v = &r->values[id];

	r->n_items += s->found >> id & 1 && (v->type == SCAN_STRING || v->type == SCAN_ARRAY);
}

__attribute__((constructor)) static void split_body_init(void) {
	scan_table_init(&table, wants, WANTS, on_item);
}

enum split_api split_api_of(struct slice path) {
	static const struct {
		struct slice path;
		enum split_api api;
	} rows[] = {
		{ SLICE("/v1/chat/completions"), SPLIT_API_CHAT },
		{ SLICE("/v1/completions"), SPLIT_API_COMPLETION },
		{ SLICE("/v1/responses"), SPLIT_API_RESPONSES },
		{ SLICE("/inference/v1/generate"), SPLIT_API_TOKENS },
		{ SLICE("/generate"), SPLIT_API_GENERATE },
	};

	for (size_t i = 0; i < n_elems(rows); i++)
		if (slice_eq(path, rows[i].path))
			return rows[i].api;
	return SPLIT_API_NONE;
}

/* Behind the brace that is the first byte but for white space; 0: it is no object. */
static uint64_t opening(const struct hold *body) {
	uint64_t at = hold_skip_blank(body, 0);

	return hold_byte(body, at) == '{' ? at + 1 : 0;
}

static bool is_above_one(const struct scan *scan, unsigned id) {
	const struct scan_value *v = scan_found(scan, id);

	return v && v->type == SCAN_NUMBER && (v->flaw != SCAN_SOUND || v->number > 1);
}

static bool has(const struct split_body *b, enum split_member member) {
	return b->members[member].n;
}

bool split_body_read(struct split_body *b, enum split_api api, const struct hold *body) {
	struct reading r = { .n_items = 0 };
	enum scan_verdict verdict = SCAN_MORE;

	*b = (struct split_body){ .api = api, .open_at = opening(body) };
	scan_init(&r.scan, &table, r.values, NULL, 0);
	for (const struct buf *at = body->first; at && verdict <= SCAN_COMPLETE; at = at->next)
		verdict = scan_feed(&r.scan, at->data, at->used);
	if (scan_finish(&r.scan) != SCAN_COMPLETE || !b->open_at || !scan_found(&r.scan, WANT_PROMPT))
		return false;
	for (unsigned i = 0; i < SPLIT_MEMBERS; i++) {
		const struct scan_value *v = scan_found(&r.scan, i);

		if (!v)
			continue;
		b->members[i].at = v->offset;
		b->members[i].n = v->length;
	}
	const struct scan_value *sampling = scan_found(&r.scan, SPLIT_SAMPLING);
	if (sampling && sampling->type == SCAN_OBJECT &&
	    !hold_is_blank(body, sampling->offset + 1, sampling->offset + sampling->length - 1))
		b->sampling_open_at = sampling->offset + 1;
	b->clamps_min = is_above_one(&r.scan, SPLIT_MIN_TOKENS);
	b->clamps_sampling_min = is_above_one(&r.scan, SPLIT_SAMPLING_MIN_TOKENS);
	b->n_batch = r.n_items;
	if (has(b, SPLIT_STREAM_OPTIONS))
		splice_find_member(body, b->members[SPLIT_STREAM_OPTIONS].at,
		    b->members[SPLIT_STREAM_OPTIONS].n, &b->options_at, &b->options_n);
	return true;
}

/* --- edits ------------------------------------------------------------------------------------ */

/* In place of the value that is there. */
static void replace(
    const struct split_body *b, enum split_member member, struct slice value, struct splice *out) {
	splice_add(out,
	    (struct splice_edit){ .at = b->members[member].at, .n_cut = b->members[member].n, .put = value });
}

static void insert(uint64_t at, struct slice text, struct splice *out) {
	splice_add(out, (struct splice_edit){ .at = at, .put = text });
}

/* `key` has its quotes and colon. */
static void set(const struct split_body *b, enum split_member member, struct slice key, struct slice value,
    struct splice *out) {
	if (has(b, member)) {
		replace(b, member, value, out);
		return;
	}
	insert(b->open_at, key, out);
	insert(b->open_at, value, out);
	insert(b->open_at, SLICE(","), out);
}

static void set_params(const struct split_body *b, struct slice params, struct splice *out) {
	if (params.n)
		set(b, SPLIT_KV_PARAMS, SLICE("\"kv_transfer_params\":"), params, out);
	else if (has(b, SPLIT_KV_PARAMS)) /* where an engine finds another one is not for clients to say */
		replace(b, SPLIT_KV_PARAMS, SLICE("null"), out);
}

/* Where the limits are in an object of their own. */
static void limit_sampling(const struct split_body *b, struct splice *out) {
	if (has(b, SPLIT_SAMPLING_MAX_TOKENS))
		replace(b, SPLIT_SAMPLING_MAX_TOKENS, SLICE("1"), out);
	else if (b->sampling_open_at)
		insert(b->sampling_open_at, SLICE("\"max_tokens\":1,"), out);
	else
		set(b, SPLIT_SAMPLING, SLICE("\"sampling_params\":"), SLICE("{\"max_tokens\":1}"), out);
	if (b->clamps_sampling_min)
		replace(b, SPLIT_SAMPLING_MIN_TOKENS, SLICE("1"), out);
}

static void limit(const struct split_body *b, struct splice *out) {
	if (b->api == SPLIT_API_TOKENS) {
		limit_sampling(b, out);
		return;
	}
	if (b->api == SPLIT_API_RESPONSES)
		set(b, SPLIT_MAX_OUTPUT_TOKENS, SLICE("\"max_output_tokens\":"), SLICE("1"), out);
	else
		set(b, SPLIT_MAX_TOKENS, SLICE("\"max_tokens\":"), SLICE("1"), out);
	if (has(b, SPLIT_MAX_COMPLETION_TOKENS))
		replace(b, SPLIT_MAX_COMPLETION_TOKENS, SLICE("1"), out);
	if (b->clamps_min)
		replace(b, SPLIT_MIN_TOKENS, SLICE("1"), out);
}

void split_body_prefill(const struct split_body *b, struct slice params, struct splice *out) {
	set_params(b, params, out);
	limit(b, out);
	if (has(b, SPLIT_STREAM))
		replace(b, SPLIT_STREAM, SLICE("false"), out);
	if (has(b, SPLIT_STREAM_OPTIONS))
		splice_add(out, (struct splice_edit){ .at = b->options_at, .n_cut = b->options_n });
}

void split_body_decode(const struct split_body *b, struct slice params, struct splice *out) {
	set_params(b, params, out);
}

void split_body_decode_from(const struct split_body *b, struct slice lead, const struct hold *from,
    const struct split_range *ranges, unsigned n, struct splice *out) {
	uint64_t at = b->open_at;
	bool is_given = has(b, SPLIT_KV_PARAMS);

	if (is_given) {
		replace(b, SPLIT_KV_PARAMS, lead, out);
		at = b->members[SPLIT_KV_PARAMS].at + b->members[SPLIT_KV_PARAMS].n;
	} else {
		insert(at, SLICE("\"kv_transfer_params\":"), out);
		insert(at, lead, out);
	}
	for (unsigned i = 0; i < n; i++)
		splice_add(out,
		    (struct splice_edit){
			.at = at, .from = from, .from_at = ranges[i].at, .from_n = ranges[i].n });
	if (!is_given)
		insert(at, SLICE(","), out);
}

void split_body_bootstrap(
    const struct split_body *b, const struct split_bootstrap *with, struct splice *out) {
	set(b, SPLIT_BOOTSTRAP_HOST, SLICE("\"bootstrap_host\":"), with->host, out);
	set(b, SPLIT_BOOTSTRAP_PORT, SLICE("\"bootstrap_port\":"), with->port, out);
	set(b, SPLIT_BOOTSTRAP_ROOM, SLICE("\"bootstrap_room\":"), with->room, out);
}
