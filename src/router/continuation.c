#include "router/continuation.h"

#include "base/utf8.h"
#include "router/event.h"
#include "router/scan.h"

#define NO_TOKENS UINT64_MAX

/* --- the request -------------------------------------------------------------------- */

enum request_want {
	REQUEST_MESSAGES,
	REQUEST_MESSAGE,
	REQUEST_PROMPT,
	REQUEST_MAX_TOKENS,
	REQUEST_MAX_COMPLETION_TOKENS,
	REQUEST_TOOL_CHOICE,
	/* Told as they pass: who has one of them, or one with a value, is not accepted. */
	REQUEST_SEVERAL,
	REQUEST_MUST_NOT_BE,
	REQUEST_BARRED,
	N_REQUEST_WANTS,
};

/* Members that are refused unless their value says nothing. */
#define BARRED                                                                                               \
	"logprobs|top_logprobs|prompt_logprobs|echo|suffix|use_beam_search|min_tokens|"                      \
	"include_stop_str_in_output|return_token_ids|return_tokens_as_token_ids|return_hidden_states|"       \
	"truncate_prompt_tokens|prompt_embeds|functions|modalities|audio|response_format|guided_json|"       \
	"guided_regex|guided_choice|guided_grammar|structured_outputs|structural_tag|regex|ebnf|"            \
	"json_schema|grammar|format"

static const struct scan_want request_wants[N_REQUEST_WANTS] = {
	[REQUEST_MESSAGES] = { .path = "messages" },
	[REQUEST_MESSAGE] = { .path = "messages.[]" },
	[REQUEST_PROMPT] = { .path = "prompt" },
	[REQUEST_MAX_TOKENS] = { .path = "max_tokens" },
	[REQUEST_MAX_COMPLETION_TOKENS] = { .path = "max_completion_tokens" },
	[REQUEST_TOOL_CHOICE] = { .path = "tool_choice" },
	[REQUEST_SEVERAL] = { .path = "n|best_of", .tells = true },
	[REQUEST_MUST_NOT_BE] = { .path = "continue_final_message|add_generation_prompt", .tells = true },
	[REQUEST_BARRED] = { .path = BARRED, .tells = true },
};

#undef BARRED

static struct scan_table request_table;

struct request_reading {
	struct scan scan;
	struct scan_value values[N_REQUEST_WANTS];
	bool is_barred;
};

/* Null, false, 0, and what is empty say nothing. */
static bool says_something(const struct scan_value *v) {
	switch (v->type) {
	case SCAN_NULL:
		return false;
	case SCAN_BOOL:
		return v->truth;
	case SCAN_NUMBER:
		return v->flaw != SCAN_SOUND || v->number;
	default:
		return v->length > 2;
	}
}

static void on_barred(struct scan *s, unsigned id, const char *p) {
	struct request_reading *r = container_of(s, struct request_reading, scan);
	const struct scan_value *v = &r->values[id];
	bool is_found = s->found >> id & 1;

	if (id == REQUEST_MUST_NOT_BE)
		r->is_barred = true;
	else if (id == REQUEST_SEVERAL && is_found)
		r->is_barred |= v->type != SCAN_NULL &&
		    (v->type != SCAN_NUMBER || v->flaw != SCAN_SOUND || v->number > 1);
	else if (is_found)
		r->is_barred |= says_something(v);
}

/* False: a limit is there that is no count. */
static bool read_limit(struct continuation_request *r, const struct scan *scan, unsigned i) {
	const struct scan_value *v = scan_found(scan, REQUEST_MAX_TOKENS + i);

	if (!v || v->type == SCAN_NULL)
		return true;
	r->limits[i].at = v->offset;
	r->limits[i].n = v->length;
	r->limits[i].tokens = v->number;
	return v->type == SCAN_NUMBER && v->flaw == SCAN_SOUND;
}

/* Behind its messages comes another one. A choice of tools that is longer than "auto" and "none" forces one.
 */
static bool accepts_chat(struct continuation_request *r, const struct scan *scan) {
	const struct scan_value *messages = scan_found(scan, REQUEST_MESSAGES);
	const struct scan_value *choice = scan_found(scan, REQUEST_TOOL_CHOICE);

	if (!messages || messages->type != SCAN_ARRAY || !scan_found(scan, REQUEST_MESSAGE))
		return false;
	r->text_at = messages->offset + messages->length - 1;
	return !choice || choice->type == SCAN_NULL || (choice->type == SCAN_STRING && choice->length <= 6);
}

/* What engines take for a limit that is not given would be given twice. */
static bool accepts_completion(struct continuation_request *r, const struct scan *scan) {
	const struct scan_value *prompt = scan_found(scan, REQUEST_PROMPT);

	if (!prompt || prompt->type != SCAN_STRING || !r->limits[0].n)
		return false;
	r->text_at = prompt->offset + prompt->length - 1;
	return true;
}

bool continuation_accepts(
    struct continuation_request *r, enum continuation_kind kind, const struct hold *body) {
	struct request_reading reading = { .is_barred = false };
	enum scan_verdict verdict = SCAN_MORE;

	*r = (struct continuation_request){ .kind = (uint8_t)kind };
	scan_init(&reading.scan, &request_table, reading.values, NULL, 0);
	for (const struct buf *b = body->first; b && verdict <= SCAN_COMPLETE; b = b->next)
		verdict = scan_feed(&reading.scan, b->data, b->used);
	if (scan_finish(&reading.scan) != SCAN_COMPLETE || reading.is_barred)
		return false;
	r->end_at = hold_trim_blank(body, body->bytes) - 1;
	return read_limit(r, &reading.scan, 0) && read_limit(r, &reading.scan, 1) &&
	    (kind == CONTINUATION_CHAT ? accepts_chat(r, &reading.scan)
				       : accepts_completion(r, &reading.scan));
}

/* --- writing a body -------------------------------------------------------------------- */

struct writer {
	struct buf_pool *pool;
	struct hold *out;
	const struct buf *at; /* of the body, which is copied once from front to back */
	uint64_t offset;      /* of at's first byte */
	uint64_t done;        /* so far it was copied, or left out */
	bool is_short;        /* of memory */
};

static void put(struct writer *w, struct slice text) {
	struct piece piece = { text.p, text.n, NULL };
	w->is_short = w->is_short || !hold_append(w->out, w->pool, &piece, 1);
}

static void put_hold(struct writer *w, const struct hold *text) {
	for (const struct buf *b = text->first; b; b = b->next)
		put(w, (struct slice){ b->data, b->used });
}

/* The body up to `end`, or nothing of it. */
static void pass_to(struct writer *w, uint64_t end, bool is_copied) {
	while (w->done < end) {
		uint64_t from = w->done - w->offset;
		size_t n = (size_t)u64_min(end - w->done, w->at->used - from);
		if (is_copied)
			put(w, (struct slice){ w->at->data + from, n });
		w->done += n;
		if (from + n == w->at->used) {
			w->offset += w->at->used;
			w->at = w->at->next;
		}
	}
}

static void put_text(struct writer *w, const struct continuation_request *r, const struct hold *text) {
	pass_to(w, r->text_at, true);
	if (r->kind == CONTINUATION_CHAT)
		put(w, SLICE(",{\"role\":\"assistant\",\"content\":\""));
	put_hold(w, text);
	if (r->kind == CONTINUATION_CHAT)
		put(w, SLICE("\"}"));
}

static void put_limit(struct writer *w, const struct continuation_request *r, unsigned i, uint64_t n_tokens) {
	char room[20];

	if (!r->limits[i].n)
		return;
	pass_to(w, r->limits[i].at, true);
	put(w, call_decimal(r->limits[i].tokens - n_tokens, room));
	pass_to(w, r->limits[i].at + r->limits[i].n, false);
}

bool continuation_ask(const struct continuation_request *r, const struct hold *body, const struct hold *text,
    uint64_t n_tokens, struct buf_pool *pool, struct hold *out) {
	struct writer w = { .pool = pool, .out = out, .at = body->first };
	unsigned first = r->limits[1].at < r->limits[0].at; /* in the order in which they stand */
	bool has_text = false;

	for (unsigned i = 0; i < CONTINUATION_LIMITS; i++)
		if (r->limits[i].n && r->limits[i].tokens <= n_tokens)
			return false;
	for (unsigned i = 0; i < CONTINUATION_LIMITS; i++) {
		unsigned k = i ^ first;
		if (!has_text && r->limits[k].n && r->limits[k].at > r->text_at) {
			put_text(&w, r, text);
			has_text = true;
		}
		put_limit(&w, r, k, n_tokens);
	}
	if (!has_text)
		put_text(&w, r, text);
	pass_to(&w, r->end_at, true);
	if (r->kind == CONTINUATION_CHAT)
		put(&w, SLICE(",\"continue_final_message\":true,\"add_generation_prompt\":false"));
	pass_to(&w, body->bytes, true);
	return !w.is_short;
}

/* --- an event -------------------------------------------------------------------------- */

enum event_want {
	EVENT_ID, /* in the order of enum continuation_member */
	EVENT_CREATED,
	EVENT_MODEL,
	EVENT_FINGERPRINT,
	EVENT_ROLE,
	EVENT_CONTENT,
	EVENT_TEXT,
	EVENT_FINISH,
	EVENT_PROMPT_TOKENS,
	EVENT_COMPLETION_TOKENS,
	EVENT_TOTAL_TOKENS,
	EVENT_CACHED_TOKENS,
	EVENT_ERROR,
	EVENT_ODD, /* what cannot be gone on with; told as it passes */
	N_EVENT_WANTS,
};

#define ODD                                                                                                  \
	"choices.[].delta.tool_calls|choices.[].delta.function_call|choices.[].delta.reasoning_content|"     \
	"choices.[].delta.reasoning|choices.[].delta.refusal|choices.[].delta.audio|choices.[].logprobs"

static const struct scan_want event_wants[N_EVENT_WANTS] = {
	[EVENT_ID] = { .path = "id" },
	[EVENT_CREATED] = { .path = "created" },
	[EVENT_MODEL] = { .path = "model" },
	[EVENT_FINGERPRINT] = { .path = "system_fingerprint" },
	[EVENT_ROLE] = { .path = "choices.[].delta.role" },
	[EVENT_CONTENT] = { .path = "choices.[].delta.content" },
	[EVENT_TEXT] = { .path = "choices.[].text" },
	[EVENT_FINISH] = { .path = "choices.[].finish_reason" },
	[EVENT_PROMPT_TOKENS] = { .path = "usage.prompt_tokens" },
	[EVENT_COMPLETION_TOKENS] = { .path = "usage.completion_tokens" },
	[EVENT_TOTAL_TOKENS] = { .path = "usage.total_tokens" },
	[EVENT_CACHED_TOKENS] = { .path = "usage.prompt_tokens_details.cached_tokens" },
	[EVENT_ERROR] = { .path = "error" },
	[EVENT_ODD] = { .path = ODD, .tells = true },
};

#undef ODD

static struct scan_table event_table;

struct event_reading {
	struct scan scan;
	struct scan_value values[N_EVENT_WANTS];
	struct slice json;
	bool is_odd;
};

static void on_odd(struct scan *s, unsigned id, const char *p) {
	struct event_reading *r = container_of(s, struct event_reading, scan);
	if (s->found >> id & 1)
		r->is_odd |= says_something(&r->values[id]);
}

__attribute__((constructor)) static void continuation_tables_init(void) {
	scan_table_init(&request_table, request_wants, N_REQUEST_WANTS, on_barred);
	scan_table_init(&event_table, event_wants, N_EVENT_WANTS, on_odd);
}

void continuation_init(struct continuation *c, enum continuation_kind kind) {
	*c = (struct continuation){ .kind = (uint8_t)kind, .prompt_tokens = NO_TOKENS };
}

static struct slice raw(const struct event_reading *r, unsigned id) {
	const struct scan_value *v = scan_found(&r->scan, id);
	return v ? (struct slice){ r->json.p + v->offset, (size_t)v->length } : (struct slice){ NULL, 0 };
}

/* Between the quotes of a string; empty: it is none. */
static struct slice raw_text(const struct event_reading *r, unsigned id) {
	const struct scan_value *v = scan_found(&r->scan, id);
	struct slice text = raw(r, id);
	return v && v->type == SCAN_STRING ? (struct slice){ text.p + 1, text.n - 2 }
					   : (struct slice){ NULL, 0 };
}

static bool count_of(const struct event_reading *r, unsigned id, uint64_t *count) {
	const struct scan_value *v = scan_found(&r->scan, id);
	bool is_count = v && v->type == SCAN_NUMBER && v->flaw == SCAN_SOUND;
	*count = is_count ? v->number : 0;
	return is_count;
}

/* \uD800 to \uDBFF at the end: its other half would be in the next event. */
static bool ends_in_half(struct slice text) {
	size_t n_slashes = 0;

	if (text.n < 6)
		return false;
	const char *u = text.p + text.n - 5;
	while (u - n_slashes > text.p && u[-1 - (ptrdiff_t)n_slashes] == '\\')
		n_slashes++;
	return n_slashes % 2 && u[0] == 'u' && (u[1] | 0x20) == 'd' && memchr("89abAB", u[2], 6);
}

/* JSON with anything else is refused, or read with losses; half a character may end in the next event. */
static bool is_utf8(struct slice text) {
	while (text.n) {
		size_t n = (unsigned char)text.p[0] < 0x80 ? 1 : utf8_length(text);
		if (!n)
			return false;
		text = slice_skip(text, n);
	}
	return true;
}

/* --- splices ----------------------------------------------------------------------------- */

struct splice {
	struct slice old, new;
};

struct splices {
	struct splice items[CONTINUATION_SPLICES_MAX];
	unsigned n;
};

/* In the order in which they stand. */
static void splice_put(struct splices *s, struct slice old, struct slice new) {
	unsigned i = s->n++;

	assert(s->n <= CONTINUATION_SPLICES_MAX);
	for (; i > 0 && s->items[i - 1].old.p > old.p; i--)
		s->items[i] = s->items[i - 1];
	s->items[i] = (struct splice){ old, new };
}

static void put_parts(struct slice event, const struct splices *s, struct continuation_event *out) {
	const char *at = event.p;

	for (unsigned i = 0; i < s->n; i++) {
		out->parts[out->n_parts++] = (struct slice){ at, (size_t)(s->items[i].old.p - at) };
		out->parts[out->n_parts++] = s->items[i].new;
		at = s->items[i].old.p + s->items[i].old.n;
	}
	out->parts[out->n_parts++] = (struct slice){ at, (size_t)(event.p + event.n - at) };
}

/* Of the first stream it is kept, in others it is put in. False: there is no room for it. */
static bool take_identity(struct continuation *c, const struct event_reading *r, struct splices *s) {
	for (unsigned i = 0; i < CONTINUATION_MEMBERS; i++) {
		struct slice value = raw(r, EVENT_ID + i);
		if (!value.n)
			continue;
		if (c->identity_n[i] && c->is_resumed)
			splice_put(
			    s, value, (struct slice){ c->identity + c->identity_at[i], c->identity_n[i] });
		if (c->identity_n[i] || c->is_resumed)
			continue;
		if (value.n > sizeof(c->identity) - c->identity_used)
			return false;
		memcpy(c->identity + c->identity_used, value.p, value.n);
		c->identity_at[i] = c->identity_used;
		c->identity_n[i] = (uint16_t)value.n;
		c->identity_used = (uint16_t)(c->identity_used + value.n);
	}
	return true;
}

static void splice_count(
    struct splices *s, const struct event_reading *r, unsigned id, uint64_t count, char room[static 20]) {
	if (scan_found(&r->scan, id))
		splice_put(s, raw(r, id), call_decimal(count, room));
}

/* Engines count as they like. */
static uint64_t sum(uint64_t a, uint64_t b) {
	return a + u64_min(b, UINT64_MAX - a);
}

/* What both engines counted, as one would have. */
static void take_usage(struct continuation *c, const struct event_reading *r, struct splices *s,
    struct continuation_event *out) {
	uint64_t prompt, completion, total, cached;
	bool has_prompt = count_of(r, EVENT_PROMPT_TOKENS, &prompt);

	if (!count_of(r, EVENT_COMPLETION_TOKENS, &completion))
		return;
	c->n_tokens = sum(c->n_before, completion);
	if (!c->is_resumed && has_prompt)
		c->prompt_tokens = prompt;
	if (!c->is_resumed)
		return;
	prompt = c->prompt_tokens != NO_TOKENS ? c->prompt_tokens : prompt - u64_min(prompt, c->n_before);
	splice_count(s, r, EVENT_COMPLETION_TOKENS, c->n_tokens, out->digits[0]);
	if (!has_prompt)
		return;
	splice_count(s, r, EVENT_PROMPT_TOKENS, prompt, out->digits[1]);
	if (count_of(r, EVENT_TOTAL_TOKENS, &total))
		splice_count(s, r, EVENT_TOTAL_TOKENS, sum(prompt, c->n_tokens), out->digits[2]);
	if (count_of(r, EVENT_CACHED_TOKENS, &cached) && cached > prompt)
		splice_count(s, r, EVENT_CACHED_TOKENS, prompt, out->digits[3]);
}

static void take_text(struct continuation *c, const struct event_reading *r, struct slice text) {
	const struct scan_value *finish = scan_found(&r->scan, EVENT_FINISH);
	const struct scan_value *error = scan_found(&r->scan, EVENT_ERROR);

	c->is_over |=
	    r->is_odd || (finish && finish->type != SCAN_NULL) || (error && error->type != SCAN_NULL);
	if (!text.n)
		return;
	c->n_tokens = sum(c->n_tokens, 1);
	c->has_text = true;
	c->is_over |= !is_utf8(text);
	c->is_split = ends_in_half(text);
}

/* It says no more than who speaks. */
static bool is_opening(const struct event_reading *r, struct slice text) {
	const struct scan_value *finish = scan_found(&r->scan, EVENT_FINISH);
	return scan_found(&r->scan, EVENT_ROLE) && !text.n && !r->is_odd &&
	    (!finish || finish->type == SCAN_NULL);
}

static bool take_json(
    struct continuation *c, struct slice event, struct slice json, struct continuation_event *out) {
	struct event_reading r = { .json = json };
	struct splices s = { .n = 0 };

	scan_init(&r.scan, &event_table, r.values, NULL, 0);
	if (scan_feed(&r.scan, json.p, json.n) > SCAN_COMPLETE || scan_finish(&r.scan) != SCAN_COMPLETE)
		return false;
	out->text = raw_text(&r, c->kind == CONTINUATION_CHAT ? EVENT_CONTENT : EVENT_TEXT);
	take_text(c, &r, out->text);
	if (!take_identity(c, &r, &s))
		return false;
	take_usage(c, &r, &s, out);
	if (!c->is_resumed || !is_opening(&r, out->text))
		put_parts(event, &s, out);
	return true;
}

bool continuation_take(struct continuation *c, struct slice event, struct continuation_event *out) {
	struct slice data;

	out->n_parts = 0;
	out->text = (struct slice){ NULL, 0 };
	if (!event_data(event, &data))
		return false;
	if (data.n && data.p[0] != '[')
		return take_json(c, event, data, out);
	c->is_over |= data.n > 0;
	out->parts[out->n_parts++] = event;
	return true;
}

bool continuation_is_possible(const struct continuation *c) {
	return c->has_text && !c->is_over && !c->is_split;
}

void continuation_resume(struct continuation *c) {
	assert(continuation_is_possible(c));
	c->is_resumed = true;
	c->n_before = c->n_tokens;
}
