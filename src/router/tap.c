#include "router/tap.h"

#include <jansson.h>

#include "router/inspect.h"

enum want {
	WANT_PROMPT,
	WANT_COMPLETION,
	WANT_INPUT, /* and its two companions, in this order */
	WANT_CACHE_READ,
	WANT_CACHE_CREATION,
	WANT_OUTPUT,
	WANT_MESSAGE_INPUT, /* likewise */
	WANT_MESSAGE_CACHE_READ,
	WANT_MESSAGE_CACHE_CREATION,
	WANT_RESPONSE_INPUT,
	WANT_RESPONSE_OUTPUT,
	WANT_CACHED, /* chat and completions; responses; responses' last event */
	WANT_INPUT_CACHED,
	WANT_RESPONSE_CACHED,
	WANT_TYPE,    /* behind all counts */
	WANT_CONTENT, /* the first of those that hold what the model said */
	WANT_CONTENT_LAST = WANT_CONTENT + 12,
	WANT_RESPONSE_ID, /* of an event, and of a JSON answer: not in the table of other answers */
	WANT_ID,
	N_WANTS,
};

#define ID_BYTES_MAX 256

static const struct scan_want wants[N_WANTS] = {
	[WANT_PROMPT] = { .path = "usage.prompt_tokens" },
	[WANT_COMPLETION] = { .path = "usage.completion_tokens" },
	[WANT_INPUT] = { .path = "usage.input_tokens" },
	[WANT_CACHE_READ] = { .path = "usage.cache_read_input_tokens" },
	[WANT_CACHE_CREATION] = { .path = "usage.cache_creation_input_tokens" },
	[WANT_OUTPUT] = { .path = "usage.output_tokens" },
	[WANT_MESSAGE_INPUT] = { .path = "message.usage.input_tokens" },
	[WANT_MESSAGE_CACHE_READ] = { .path = "message.usage.cache_read_input_tokens" },
	[WANT_MESSAGE_CACHE_CREATION] = { .path = "message.usage.cache_creation_input_tokens" },
	[WANT_RESPONSE_INPUT] = { .path = "response.usage.input_tokens" },
	[WANT_RESPONSE_OUTPUT] = { .path = "response.usage.output_tokens" },
	[WANT_CACHED] = { .path = "usage.prompt_tokens_details.cached_tokens" },
	[WANT_INPUT_CACHED] = { .path = "usage.input_tokens_details.cached_tokens" },
	[WANT_RESPONSE_CACHED] = { .path = "response.usage.input_tokens_details.cached_tokens" },
	[WANT_TYPE] = { .path = "type", .text_bytes_max = 48 },
	[WANT_CONTENT] = { .path = "choices.[].delta.content" },
	{ .path = "choices.[].delta.reasoning_content" },
	{ .path = "choices.[].delta.reasoning" },
	{ .path = "choices.[].delta.refusal" },
	{ .path = "choices.[].delta.tool_calls" },
	{ .path = "choices.[].text" },
	{ .path = "choices.[].token_ids" }, /* vLLM's generate */
	{ .path = "delta" },                /* responses, a string */
	{ .path = "delta.text" },           /* messages, where it is an object */
	{ .path = "delta.thinking" },
	{ .path = "delta.partial_json" },
	{ .path = "text" },                          /* SGLang's generate */
	[WANT_CONTENT_LAST] = { .path = "content" }, /* llama.cpp's completion */
	[WANT_RESPONSE_ID] = { .path = "response.id", .text_bytes_max = ID_BYTES_MAX },
	[WANT_ID] = { .path = "id", .text_bytes_max = ID_BYTES_MAX },
};

/* What errors say of themselves, in the shapes of OpenAI, Anthropic, vLLM, Ollama and FastAPI. */
enum refusal_want {
	REFUSAL_PARAM, /* and the next: a name, all others are sentences or codes */
	REFUSAL_ERROR_PARAM,
	REFUSAL_TEXT,
};

#define REFUSAL(member)                                                                                      \
	{ .path = member, .text_bytes_max = 512, .tells = true }

static const struct scan_want refusal_wants[] = {
	[REFUSAL_PARAM] = REFUSAL("param"),
	[REFUSAL_ERROR_PARAM] = REFUSAL("error.param"),
	[REFUSAL_TEXT] = REFUSAL("error.message"),
	REFUSAL("error.code"),
	REFUSAL("error"),
	REFUSAL("message"),
	REFUSAL("code"),
	REFUSAL("detail"),
};

#undef REFUSAL

_Static_assert(n_elems(refusal_wants) <= N_WANTS, "both have room for their values");

/* The second one is for an answer whose id is sought, until it is found. */
static struct scan_table table, response_table, refusal_table;

struct tap_reading {
	struct scan scan;
	bool names_part, is_unsupported; /* of a 404 */
	struct scan_value values[N_WANTS];
	char text[];
};

static bool has_words(struct slice text, struct slice lower) {
	for (; text.n >= lower.n; text = slice_skip(text, 1))
		if (slice_is(slice_head(text, lower.n), lower))
			return true;
	return false;
}

static void on_refusal(struct scan *s, unsigned id, const char *p) {
	struct tap_reading *r = container_of(s, struct tap_reading, scan);
	const struct scan_value *v = &r->values[id];
	bool is_named = id < REFUSAL_TEXT ? v->text.n > 0 : has_words(v->text, SLICE("model"));
	r->names_part |= v->flaw != SCAN_SOUND || is_named;
	r->is_unsupported |= has_words(v->text, SLICE("not support"));
}

__attribute__((constructor)) static void tap_table_init(void) {
	scan_table_init(&table, wants, WANT_RESPONSE_ID, NULL);
	scan_table_init(&response_table, wants, N_WANTS, NULL);
	scan_table_init(&refusal_table, refusal_wants, n_elems(refusal_wants), on_refusal);
}

/* Where in a line of an event stream the next byte stands. */
enum line_state {
	LINE_START, /* `matched` bytes of "data:" have been seen */
	LINE_VALUE, /* behind "data:", before the first byte that is no space */
	LINE_JSON,
	LINE_DONE, /* `matched` bytes of "[DONE]" have been seen */
	LINE_SKIP,
};

static struct buf *new_reading(struct buf_pool *pool) {
	size_t text_bytes = size_max(response_table.text_bytes, refusal_table.text_bytes);
	return buf_new_forced(pool, sizeof(struct tap_reading) + text_bytes);
}

void tap_scratch_init(struct tap_scratch *s, struct buf_pool *pool) {
	*s = (struct tap_scratch){ .buf = new_reading(pool) };
}

void tap_scratch_deinit(struct tap_scratch *s, struct buf_pool *pool) {
	buf_unref(pool, &s->buf);
}

void tap_init(struct tap *t, const struct head *answer) {
	struct slice type = head_find(answer, FIELD_CONTENT_TYPE);
	struct slice coding = head_find(answer, FIELD_CONTENT_ENCODING);
	*t = (struct tap){ .at_boundary = true };
	if (coding.n && !slice_is(coding, SLICE("identity"))) {
		t->is_of_request = answer->status == 404;
		return;
	}
	if (slice_is(slice_head(type, 17), SLICE("text/event-stream")))
		t->kind = TAP_EVENTS;
	else if (type.n && inspect_is_json(type))
		t->kind = answer->status == 404 ? TAP_NOT_FOUND : TAP_JSON;
}

void tap_deinit(struct tap *t, struct buf_pool *pool) {
	buf_unref(pool, &t->saved);
}

/* --- the JSON in it -------------------------------------------------------- */

/* The scanner at work: the thread's, unless this answer has one of its own. */
static struct tap_reading *tap_reading(const struct tap *t, const struct tap_scratch *s) {
	return (struct tap_reading *)(t->saved ? t->saved : s->buf)->data;
}

static void tap_read_begin(struct tap *t, struct tap_scratch *s) {
	struct tap_reading *r = tap_reading(t, s);
	const struct scan_table *by = t->kind == TAP_NOT_FOUND ? &refusal_table
	    : t->seeks_response                                ? &response_table
							       : &table;
	scan_init(&r->scan, by, r->values, r->text, by->text_bytes);
	r->names_part = r->is_unsupported = false;
	t->is_reading = true;
}

static void tap_read(struct tap *t, struct tap_scratch *s, const char *p, size_t n) {
	if (scan_feed(&tap_reading(t, s)->scan, p, n) > SCAN_COMPLETE)
		t->is_reading = false, t->is_refused = true; /* nothing to learn */
}

static bool take_count(const struct scan *scan, unsigned id, uint64_t *count) {
	const struct scan_value *v = scan_found(scan, id);
	bool is_count = v && v->type == SCAN_NUMBER && v->flaw == SCAN_SOUND;
	if (is_count)
		*count = v->number;
	return is_count;
}

/* Anthropic's messages count beside the input what the cache gave and took. */
static void take_input(const struct scan *scan, unsigned id, uint64_t *count) {
	uint64_t input = 0, cache_read = 0, cache_creation = 0;
	if (!take_count(scan, id, &input))
		return;
	take_count(scan, id + 1, &cache_read);
	take_count(scan, id + 2, &cache_creation);
	*count = input + cache_read + cache_creation;
}

static bool has_suffix(struct slice s, struct slice suffix) {
	return s.n >= suffix.n && slice_eq(slice_skip(s, s.n - suffix.n), suffix);
}

/* Something longer than "" or []. */
static bool has_content(const struct scan *scan) {
	static const uint64_t contents = (UINT64_C(2) << WANT_CONTENT_LAST) - (UINT64_C(1) << WANT_CONTENT);
	for (uint64_t ids = scan->found & contents; ids; ids &= ids - 1) {
		const struct scan_value *v = &scan->values[__builtin_ctzll(ids)];
		if ((v->type == SCAN_STRING || v->type == SCAN_ARRAY) && v->length > 2)
			return true;
	}
	return false;
}

static bool is_last(struct slice type) {
	return slice_eq(type, SLICE("message_stop")) || slice_eq(type, SLICE("response.completed")) ||
	    slice_eq(type, SLICE("response.incomplete")) || slice_eq(type, SLICE("response.failed"));
}

static void tap_take_usage(struct tap *t, const struct scan *scan) {
	static const uint8_t cached[] = { WANT_CACHED, WANT_INPUT_CACHED, WANT_RESPONSE_CACHED,
		WANT_CACHE_READ, WANT_MESSAGE_CACHE_READ };
	take_count(scan, WANT_PROMPT, &t->tokens_in);
	take_input(scan, WANT_INPUT, &t->tokens_in);
	take_input(scan, WANT_MESSAGE_INPUT, &t->tokens_in);
	take_count(scan, WANT_RESPONSE_INPUT, &t->tokens_in);
	for (unsigned i = 0; i < n_elems(cached); i++)
		t->has_cached |= take_count(scan, cached[i], &t->tokens_cached);
	t->has_usage |= take_count(scan, WANT_COMPLETION, &t->tokens_out);
	t->has_usage |= take_count(scan, WANT_OUTPUT, &t->tokens_out);
	t->has_usage |= take_count(scan, WANT_RESPONSE_OUTPUT, &t->tokens_out);
}

/* Events have one of their own: what they are about is the response. */
static uint64_t tap_take_id(struct tap *t, const struct scan *scan) {
	const struct scan_value *v = scan_found(scan, t->kind == TAP_EVENTS ? WANT_RESPONSE_ID : WANT_ID);
	uint64_t response = v && v->type == SCAN_STRING ? inspect_id_hash(v->text) : 0;
	t->seeks_response = !response;
	return response;
}

/* A JSON text ended: what did it say? */
static void tap_read_end(struct tap *t, struct tap_scratch *s, struct tap_news *news) {
	struct scan *scan = &tap_reading(t, s)->scan;
	t->is_reading = false;
	if (t->kind == TAP_EVENTS && scan_finish(scan) != SCAN_COMPLETE)
		return;
	if (scan->found & ((UINT32_C(1) << WANT_TYPE) - 1))
		tap_take_usage(t, scan);
	if (t->seeks_response)
		news->response = tap_take_id(t, scan);
	const struct scan_value *type = scan_found(scan, WANT_TYPE);
	if (!type || type->type != SCAN_STRING || has_suffix(type->text, SLICE("delta")))
		news->n_content += has_content(scan);
	else /* it repeats what deltas have said, or has nothing to say */
		t->is_done |= is_last(type->text);
}

/* The read ended inside a JSON text: its scanner is kept, and the thread gets another. */
static void tap_save(struct tap *t, struct tap_scratch *s, struct buf_pool *pool) {
	if (!t->is_reading) {
		buf_unref(pool, &t->saved);
	} else if (!t->saved) {
		t->saved = s->buf;
		s->buf = new_reading(pool);
	}
}

/* --- the events around it --------------------------------------------------- */

/* A line has ended, and if it is empty an event. */
static void tap_line_end(struct tap *t, struct tap_scratch *s, struct tap_news *news) {
	bool is_blank = t->line == LINE_START && t->matched == 0;
	t->is_done |= t->line == LINE_DONE && t->matched == 6;
	if (is_blank) {
		if (t->is_reading)
			tap_read_end(t, s, news);
		t->is_reading = t->is_refused = false;
		t->at_boundary = true;
	}
	t->line = LINE_START;
	t->matched = 0;
}

/* The bytes of one line up to its end or the end of the input, without the end. */
static void tap_line(struct tap *t, struct tap_scratch *s, const char *p, const char *end) {
	if (t->line == LINE_START && t->matched == 0 && end - p >= 5 && memcmp(p, "data:", 5) == 0) {
		p += 5; /* whole, as nearly always */
		t->line = LINE_VALUE;
	}
	while (p < end && t->line == LINE_START) {
		if (t->matched == 0 && *p == '\r') /* of a line end that was cut in two */
			p++;
		else if (*p++ != "data:"[t->matched])
			t->line = LINE_SKIP;
		else if (++t->matched == 5)
			t->line = LINE_VALUE;
	}
	while (p < end && t->line == LINE_VALUE && (*p == ' ' || *p == '\r'))
		p++;
	if (p < end && t->line == LINE_VALUE) {
		t->matched = 0;
		t->line = *p == '[' ? LINE_DONE : LINE_JSON;
		if (t->line == LINE_JSON && t->is_reading)
			tap_read(t, s, "\n", 1); /* lines of one event are joined by it */
		else if (t->line == LINE_JSON && !t->is_refused)
			tap_read_begin(t, s);
	}
	if (p < end && t->line == LINE_JSON && t->is_reading)
		tap_read(t, s, p, (size_t)(end - p));
	while (p < end && t->line == LINE_DONE)
		if (t->matched == 6 && *p == '\r')
			p++;
		else if (t->matched == 6 || *p++ != "[DONE]"[t->matched++])
			t->line = LINE_SKIP;
}

static void tap_events(struct tap *t, struct tap_scratch *s, struct slice text, struct tap_news *news) {
	const char *p = text.p, *end = text.p + text.n;
	while (p < end) {
		t->at_boundary = false;
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		const char *stop = newline ? newline : end;
		const char *text_end = newline && stop > p && stop[-1] == '\r' ? stop - 1 : stop;
		tap_line(t, s, p, text_end);
		if (!newline)
			break;
		tap_line_end(t, s, news);
		p = newline + 1;
	}
}

struct tap_news tap_feed(
    struct tap *t, struct tap_scratch *s, struct buf_pool *pool, const struct piece *pieces, size_t n) {
	struct tap_news news = { .n_content = 0 };
	if (t->kind == TAP_NONE)
		return news;
	for (size_t i = 0; i < n; i++) {
		if (t->kind == TAP_EVENTS) {
			tap_events(t, s, (struct slice){ pieces[i].p, pieces[i].n }, &news);
			continue;
		}
		if (t->at_boundary)
			tap_read_begin(t, s);
		t->at_boundary = false;
		if (t->is_reading)
			tap_read(t, s, pieces[i].p, pieces[i].n);
	}
	t->n_events += news.n_content;
	tap_save(t, s, pool);
	return news;
}

static void tap_refusal_end(struct tap *t, struct tap_scratch *s) {
	struct tap_reading *r = tap_reading(t, s);
	t->is_reading = false;
	t->is_of_request = scan_finish(&r->scan) == SCAN_COMPLETE && r->names_part && !r->is_unsupported;
}

struct tap_news tap_finish(struct tap *t, struct tap_scratch *s, struct buf_pool *pool) {
	struct tap_news news = { .n_content = 0 };
	if (t->kind == TAP_NOT_FOUND && t->is_reading)
		tap_refusal_end(t, s);
	if (t->kind == TAP_JSON && t->is_reading)
		tap_read_end(t, s, &news);
	buf_unref(pool, &t->saved);
	news.n_content = 0; /* only events are counted */
	return news;
}

char *tap_error_event(enum cause cause, enum reply_dialect dialect) {
	char *text = NULL, *event = NULL;
	int n = -1;
	if (dialect == REPLY_RESPONSES) {
		const struct cause_row *row = cause_row(cause);
		json_t *failed = json_pack("{s:s, s:{s:s, s:s, s:{s:s, s:s}}}", "type", "response.failed",
		    "response", "object", "response", "status", "failed", "error", "code", row->code,
		    "message", row->message);
		text = json_dumps(failed, JSON_COMPACT);
		json_decref(failed);
		n = asprintf(&event, "event: response.failed\ndata: %s\n\n", text);
	} else {
		text = reply_error_text(cause, NULL, dialect);
		n = asprintf(
		    &event, dialect == REPLY_ANTHROPIC ? "event: error\ndata: %s\n\n" : "data: %s\n\n", text);
	}
	assert(n > 0);
	free(text);
	return event;
}
