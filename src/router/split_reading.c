#include "router/split_reading.h"

enum want {
	WANT_PROMPT_LOGPROBS,
	WANT_COMPLETION_TOKENS,
	WANT_USAGE,
	WANT_DETAILS,
	WANT_CACHED,
	WANT_INPUT_DETAILS,
	WANT_INPUT_CACHED,
	WANT_RESPONSE_USAGE,
	WANT_RESPONSE_DETAILS,
	WANT_RESPONSE_CACHED,
	WANT_META, /* and its two members, in the order of those of an item */
	WANT_META_CACHED,
	WANT_META_LOGPROBS,
	WANT_ITEM_META,
	WANT_ITEM_CACHED,
	WANT_ITEM_LOGPROBS,
	WANT_ITEM, /* of a batch; told, as are all that follow */
	WANT_CHOICES,
	WANT_CHOICE,
	WANT_INDEX,
	WANT_ARRAY,                             /* in the order of enum merge_array */
	WANT_TOKEN = WANT_ARRAY + MERGE_ARRAYS, /* likewise: an item of it */
	N_WANTS = WANT_TOKEN + MERGE_ARRAYS,
};

#define TOLD(member)                                                                                         \
	{ .path = member, .tells = true }

static const struct scan_want wants[N_WANTS] = {
	[WANT_PROMPT_LOGPROBS] = { .path = "prompt_logprobs" },
	[WANT_COMPLETION_TOKENS] = { .path = "usage.completion_tokens" },
	[WANT_USAGE] = { .path = "usage" },
	[WANT_DETAILS] = { .path = "usage.prompt_tokens_details" },
	[WANT_CACHED] = { .path = "usage.prompt_tokens_details.cached_tokens" },
	[WANT_INPUT_DETAILS] = { .path = "usage.input_tokens_details" },
	[WANT_INPUT_CACHED] = { .path = "usage.input_tokens_details.cached_tokens" },
	[WANT_RESPONSE_USAGE] = { .path = "response.usage" },
	[WANT_RESPONSE_DETAILS] = { .path = "response.usage.input_tokens_details" },
	[WANT_RESPONSE_CACHED] = { .path = "response.usage.input_tokens_details.cached_tokens" },
	[WANT_META] = { .path = "meta_info" },
	[WANT_META_CACHED] = { .path = "meta_info.cached_tokens" },
	[WANT_META_LOGPROBS] = { .path = "meta_info.input_token_logprobs" },
	[WANT_ITEM_META] = { .path = "[].meta_info" },
	[WANT_ITEM_CACHED] = { .path = "[].meta_info.cached_tokens" },
	[WANT_ITEM_LOGPROBS] = { .path = "[].meta_info.input_token_logprobs" },
	[WANT_ITEM] = TOLD("[]"),
	[WANT_CHOICES] = TOLD("choices"),
	[WANT_CHOICE] = TOLD("choices.[]"),
	[WANT_INDEX] = TOLD("choices.[].index"),
	[WANT_ARRAY + MERGE_PROMPT_LOGPROBS] = TOLD("choices.[].prompt_logprobs"),
	[WANT_ARRAY + MERGE_TOKENS] = TOLD("choices.[].logprobs.tokens"),
	[WANT_ARRAY + MERGE_TOKEN_LOGPROBS] = TOLD("choices.[].logprobs.token_logprobs"),
	[WANT_ARRAY + MERGE_TOP_LOGPROBS] = TOLD("choices.[].logprobs.top_logprobs"),
	[WANT_ARRAY + MERGE_TEXT_OFFSET] = TOLD("choices.[].logprobs.text_offset"),
	[WANT_TOKEN + MERGE_PROMPT_LOGPROBS] = TOLD("choices.[].prompt_logprobs.[]"),
	[WANT_TOKEN + MERGE_TOKENS] = TOLD("choices.[].logprobs.tokens.[]"),
	[WANT_TOKEN + MERGE_TOKEN_LOGPROBS] = TOLD("choices.[].logprobs.token_logprobs.[]"),
	[WANT_TOKEN + MERGE_TOP_LOGPROBS] = TOLD("choices.[].logprobs.top_logprobs.[]"),
	[WANT_TOKEN + MERGE_TEXT_OFFSET] = TOLD("choices.[].logprobs.text_offset.[]"),
};

#undef TOLD

static struct scan_table table;

struct reader {
	struct scan scan;
	struct scan_value values[N_WANTS];
	struct split_reading *out;
	struct merge_found part;      /* that is being read */
	bool has_arrays;              /* likewise */
	const struct split_merge *by; /* whose prompts go before; NULL: nobody's */
	struct buf_pool *pool;        /* for text_offset, moved; NULL: it is not */
	bool is_short;                /* of memory */
};

static struct scan_value value_of(const struct reader *r, unsigned id) {
	const struct scan_value *v = scan_found(&r->scan, id);
	return v ? *v : (struct scan_value){ .length = 0 };
}

/* --- items ----------------------------------------------------------------------------- */

/* What this part of a decode engine's answer is merged with, if it has a prompt to go before. */
static const struct merge_part *partner(const struct reader *r) {
	unsigned i = r->out->held ? r->out->n_parts : r->part.index;
	bool is_one = r->by && i < r->by->n_parts && r->by->parts[i].n_prompt;
	return is_one ? &r->by->parts[i] : NULL;
}

static void put_offset(struct reader *r, struct slice text) {
	struct piece piece = { text.p, text.n, NULL };
	r->is_short = r->is_short || !hold_append(&r->out->offsets, r->pool, &piece, 1);
}

static void take_offset(struct reader *r, const struct scan_value *v) {
	const struct merge_part *by = partner(r);
	struct merge_found *part = &r->part;
	char room[20];

	if (v->type != SCAN_NUMBER || v->flaw != SCAN_SOUND || v->number > UINT32_MAX)
		part->text_end = UINT64_MAX;
	if (part->text_end == UINT64_MAX)
		return;
	part->text_end = v->number;
	if (!by || !r->pool)
		return;
	if (part->arrays[MERGE_TEXT_OFFSET].n > 1)
		put_offset(r, SLICE(","));
	put_offset(r, call_decimal(by->text_end + v->number, room));
}

static void begin_items(struct reader *r, unsigned k) {
	r->part.arrays[k] = (struct merge_items){ .n = 0 };
	r->has_arrays = true;
	if (k != MERGE_TEXT_OFFSET)
		return;
	r->part.text_end = 0;
	r->part.offsets_at = r->out->offsets.bytes;
}

static void end_item(struct reader *r, unsigned k) {
	const struct scan_value *v = &r->values[WANT_TOKEN + k];
	const struct merge_part *by = partner(r);
	struct merge_items *a = &r->part.arrays[k];

	a->n++;
	if (!by)
		a->prompt_end = a->end;
	a->end = v->offset + v->length;
	if (by && a->n == by->n_prompt)
		a->prompt_end = a->end;
	if (k == MERGE_TEXT_OFFSET)
		take_offset(r, v);
	if (k == MERGE_TOKEN_LOGPROBS && a->n == 1)
		r->part.begins_null = v->type == SCAN_NULL;
}

/* --- parts ------------------------------------------------------------------------------- */

static void put_part(struct split_reading *out, const struct merge_found *part) {
	if (out->n_parts < MERGE_PARTS_MAX)
		out->parts[out->n_parts] = *part;
	out->n_parts++;
}

static void begin_choice(struct reader *r) {
	r->part = (struct merge_found){ .index = UINT32_MAX };
	r->has_arrays = false;
}

/* Behind arrays that were read it is of no use. */
static void take_index(struct reader *r) {
	const struct scan_value *v = &r->values[WANT_INDEX];
	bool is_index = v->type == SCAN_NUMBER && v->flaw == SCAN_SOUND && v->number < UINT32_MAX;
	r->part.index = is_index && !r->has_arrays ? (uint32_t)v->number : UINT32_MAX;
}

static void end_choice(struct reader *r) {
	struct merge_found *part = &r->part;

	part->object = value_of(r, WANT_CHOICE);
	for (unsigned k = 0; k < MERGE_ARRAYS; k++) {
		struct scan_value v = value_of(r, WANT_ARRAY + k);
		if (!v.length)
			part->arrays[k] = (struct merge_items){ .n = 0 };
		part->arrays[k].value = v;
	}
	part->offsets_n = r->out->offsets.bytes - part->offsets_at;
	put_part(r->out, part);
}

static void end_meta(struct reader *r, unsigned id) {
	struct merge_found part = {
		.object = value_of(r, id),
		.cached = value_of(r, id + WANT_META_CACHED - WANT_META),
		.input_logprobs = value_of(r, id + WANT_META_LOGPROBS - WANT_META),
	};
	put_part(r->out, &part);
}

static void on_told(struct scan *s, unsigned id, const char *p) {
	struct reader *r = container_of(s, struct reader, scan);
	bool is_end = s->found >> id & 1;

	if (id >= WANT_TOKEN && is_end)
		end_item(r, id - WANT_TOKEN);
	else if (id >= WANT_ARRAY && id < WANT_TOKEN && !is_end)
		begin_items(r, id - WANT_ARRAY);
	else if (id == WANT_CHOICES && !is_end)
		r->out->n_parts = 0;
	else if (id == WANT_CHOICE && !is_end)
		begin_choice(r);
	else if (id == WANT_CHOICE)
		end_choice(r);
	else if (id == WANT_INDEX && is_end)
		take_index(r);
	else if (id == WANT_ITEM && is_end)
		end_meta(r, WANT_ITEM_META);
}

__attribute__((constructor)) static void split_reading_table_init(void) {
	scan_table_init(&table, wants, N_WANTS, on_told);
}

/* --- an answer --------------------------------------------------------------------------- */

static void take_counts(const struct reader *r) {
	static const uint8_t ids[MERGE_USAGES][3] = {
		[MERGE_USAGE] = { WANT_USAGE, WANT_DETAILS, WANT_CACHED },
		[MERGE_INPUT_USAGE] = { WANT_USAGE, WANT_INPUT_DETAILS, WANT_INPUT_CACHED },
		[MERGE_RESPONSE_USAGE] = { WANT_RESPONSE_USAGE, WANT_RESPONSE_DETAILS, WANT_RESPONSE_CACHED },
	};

	for (unsigned i = 0; i < MERGE_USAGES; i++)
		r->out->counts[i] = (struct merge_counts){
			.usage = value_of(r, ids[i][0]),
			.details = value_of(r, ids[i][1]),
			.cached = value_of(r, ids[i][2]),
		};
}

static bool read_all(struct reader *r) {
	struct split_reading *out = r->out;
	enum scan_verdict verdict = SCAN_MORE;

	scan_init(&r->scan, &table, r->values, NULL, 0);
	if (!out->held)
		verdict = scan_feed(&r->scan, out->json.p, out->json.n);
	for (const struct buf *b = out->held ? out->held->first : NULL; b && verdict <= SCAN_COMPLETE;
	     b = b->next)
		verdict = scan_feed(&r->scan, b->data, b->used);
	if (scan_finish(&r->scan) != SCAN_COMPLETE || r->is_short)
		return false;
	out->prompt_logprobs = value_of(r, WANT_PROMPT_LOGPROBS);
	out->completion_tokens = value_of(r, WANT_COMPLETION_TOKENS);
	out->choices = value_of(r, WANT_CHOICES);
	take_counts(r);
	if (!out->n_parts && scan_found(&r->scan, WANT_META))
		end_meta(r, WANT_META);
	return true;
}

/* The parts are written before they are read. */
static void reading_init(struct split_reading *out, const struct hold *held, struct slice json) {
	memset(out, 0, offsetof(struct split_reading, parts));
	out->held = held;
	out->json = json;
}

bool merge_read_prefill(struct split_reading *out, const struct hold *answer) {
	struct reader r = { .out = out };

	reading_init(out, answer, (struct slice){ NULL, 0 });
	return read_all(&r);
}

bool merge_read_decode(struct split_reading *out, const struct hold *answer, const struct split_merge *m,
    struct buf_pool *pool) {
	struct reader r = { .out = out, .by = m, .pool = pool };

	reading_init(out, answer, (struct slice){ NULL, 0 });
	return read_all(&r);
}

bool merge_read_event(struct split_reading *out, struct slice json, const struct split_merge *m) {
	struct reader r = { .out = out, .by = m };

	reading_init(out, NULL, json);
	return read_all(&r);
}

bool merge_is_empty(const struct split_reading *r, const struct scan_value *v) {
	uint64_t from = v->offset + 1, end = v->offset + v->length - 1;

	if (r->held)
		return hold_is_blank(r->held, from, end);
	return slice_is_blank((struct slice){ r->json.p + from, (size_t)(end - from) });
}
