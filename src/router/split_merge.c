/*
 * split_merge: both answers are read for places (split_reading); an edit puts a range of the prefill engine's
 * into the decode engine's.
 *
 * In an answer with echo the arrays of a choice's logprobs have an item for each token of the prompt, then
 * one for each that was said, of which a prefill engine says one. Whether a decode engine's have the prompt
 * is seen from its usage: without it there are as many items as completion tokens. An event has no usage:
 * there, and where the prompt is all that there is, it is seen from its first token, which alone has no
 * logprob.
 */
#include "router/split_merge.h"

#include "router/event.h"
#include "router/split_reading.h"

/* Of a part, by what becomes of arrays with echo; and of all that is in no part. */
enum { EDITS_OF_PART = 3, EDITS_OF_PART_BEFORE = 1 + 2 * (MERGE_ARRAYS - MERGE_TOKENS), EDITS_ELSEWHERE = 3 };

_Static_assert(MERGE_PARTS_MAX *EDITS_OF_PART + EDITS_ELSEWHERE <= SPLICE_EDITS_MAX, "all parts have room");

/* --- of the prefill engine's answer ------------------------------------------------------ */

static bool is_count(const struct scan_value *v) {
	return v->type == SCAN_NUMBER && v->flaw == SCAN_SOUND;
}

static struct merge_range range_of(uint64_t at, uint64_t end) {
	return (struct merge_range){ (uint32_t)at, (uint32_t)(end - at) };
}

static struct merge_range range_if(bool is_good, const struct scan_value *v) {
	return is_good ? range_of(v->offset, v->offset + v->length) : (struct merge_range){ 0, 0 };
}

/* The prompt's items; all arrays that there are have those, and one more. */
static void take_prompt(struct merge_part *p, const struct merge_found *f) {
	uint64_t n = f->arrays[MERGE_PROMPT_LOGPROBS].n;

	if (!n || f->text_end == UINT64_MAX || f->arrays[MERGE_TOKENS].n != n + 1)
		return;
	for (unsigned k = MERGE_TOKENS; k < MERGE_ARRAYS; k++)
		if (f->arrays[k].n && f->arrays[k].n != n + 1)
			return;
	for (unsigned k = MERGE_TOKENS; k < MERGE_ARRAYS; k++)
		if (f->arrays[k].n)
			p->prompts[k - MERGE_TOKENS] =
			    range_of(f->arrays[k].value.offset + 1, f->arrays[k].prompt_end);
	p->n_prompt = (uint32_t)n;
	p->text_end = (uint32_t)f->text_end;
}

/* False: nothing of it is of use. */
static bool take_part(struct merge_part *p, const struct split_reading *r, const struct merge_found *f) {
	const struct scan_value *input = &f->input_logprobs;
	const struct scan_value *prompt = &f->arrays[MERGE_PROMPT_LOGPROBS].value;

	p->cached = range_if(is_count(&f->cached), &f->cached);
	p->prompt_logprobs = range_if(prompt->type == SCAN_ARRAY, prompt);
	if (input->type == SCAN_ARRAY && !merge_is_empty(r, input))
		p->input_logprobs = range_of(input->offset + 1, input->offset + input->length - 1);
	take_prompt(p, f);
	return p->cached.n || p->prompt_logprobs.n || p->input_logprobs.n;
}

static struct merge_due all_due(const struct split_merge *m) {
	struct merge_due due = { .top = m->prompt_logprobs.n > 0 };

	for (unsigned i = 0; i < m->n_parts; i++) {
		due.echo |= (uint8_t)((m->parts[i].n_prompt > 0) << i);
		due.prompt_logprobs |= (uint8_t)((m->parts[i].prompt_logprobs.n > 0) << i);
	}
	return due;
}

bool split_merge_read(struct split_merge *m, const struct hold *prefill) {
	struct split_reading r;
	bool has_part = false;

	*m = (struct split_merge){ .prefill = prefill };
	if (prefill->bytes > UINT32_MAX || !merge_read_prefill(&r, prefill))
		return false;
	m->is_input = is_count(&r.counts[MERGE_INPUT_USAGE].cached);
	const struct scan_value *cached = &r.counts[m->is_input ? MERGE_INPUT_USAGE : MERGE_USAGE].cached;
	m->cached = range_if(is_count(cached), cached);
	m->prompt_logprobs = range_if(r.prompt_logprobs.type == SCAN_ARRAY, &r.prompt_logprobs);
	for (unsigned i = 0; i < r.n_parts && r.n_parts <= MERGE_PARTS_MAX; i++)
		has_part |= take_part(&m->parts[i], &r, &r.parts[i]);
	m->n_parts = has_part ? (uint8_t)r.n_parts : 0;
	m->due = all_due(m);
	m->has_prompt_logprobs = m->due.top || m->due.prompt_logprobs;
	return m->cached.n || m->prompt_logprobs.n || m->n_parts;
}

/* --- edits of the decode engine's --------------------------------------------------------- */

struct merging {
	const struct split_merge *m;
	const struct split_reading *r;
	struct splice *splice;
};

/* `text` and a range of the prefill engine's answer, in place of n bytes at `at`. */
static void put(
    const struct merging *g, uint64_t at, uint64_t n, struct slice text, struct merge_range range) {
	splice_add(g->splice,
	    (struct splice_edit){ .at = at,
		.n_cut = n,
		.put = text,
		.from = g->m->prefill,
		.from_at = range.at,
		.from_n = range.n });
}

static void put_text(const struct merging *g, uint64_t at, struct slice text) {
	splice_add(g->splice, (struct splice_edit){ .at = at, .put = text });
}

static void replace(const struct merging *g, const struct scan_value *v, struct merge_range range) {
	put(g, v->offset, v->length, (struct slice){ NULL, 0 }, range);
}

/* `member` is its comma, its name and whatever stands before the range. */
static void add_member(
    const struct merging *g, const struct scan_value *object, struct slice member, struct merge_range range) {
	bool is_first = merge_is_empty(g->r, object);
	put(g, object->offset + object->length - 1, 0, slice_skip(member, is_first), range);
}

/* Behind the bracket of an array that has others, or none. */
static void put_items(
    const struct merging *g, const struct scan_value *array, bool is_empty, struct merge_range range) {
	put(g, array->offset + 1, 0, (struct slice){ NULL, 0 }, range);
	if (!is_empty)
		put_text(g, array->offset + 1, SLICE(","));
}

/* The count that is, or would be, a member of this object. */
static void merge_count(const struct merging *g, const struct scan_value *object,
    const struct scan_value *count, struct merge_range range) {
	if (count->length)
		replace(g, count, range);
	else if (object->type == SCAN_OBJECT)
		add_member(g, object, SLICE(",\"cached_tokens\":"), range);
}

static void merge_usage(const struct merging *g) {
	static const struct slice details[] = { SLICE(",\"prompt_tokens_details\":{\"cached_tokens\":"),
		SLICE(",\"input_tokens_details\":{\"cached_tokens\":") };
	bool is_response = g->r->counts[MERGE_RESPONSE_USAGE].usage.length > 0;
	const struct merge_counts *c = &g->r->counts[!g->m->is_input ? MERGE_USAGE
		: is_response                                        ? MERGE_RESPONSE_USAGE
								     : MERGE_INPUT_USAGE];

	if (!g->m->cached.n)
		return;
	if (c->details.type == SCAN_OBJECT) {
		merge_count(g, &c->details, &c->cached, g->m->cached);
	} else if (c->details.length && c->details.type == SCAN_NULL) {
		put(g, c->details.offset, c->details.length, SLICE("{\"cached_tokens\":"), g->m->cached);
		put_text(g, c->details.offset + c->details.length, SLICE("}"));
	} else if (!c->details.length && c->usage.type == SCAN_OBJECT) {
		add_member(g, &c->usage, details[g->m->is_input], g->m->cached);
		put_text(g, c->usage.offset + c->usage.length - 1, SLICE("}"));
	}
}

static void merge_meta(const struct merging *g, const struct merge_part *p, const struct merge_found *f) {
	const struct scan_value *input = &f->input_logprobs;

	if (p->cached.n)
		merge_count(g, &f->object, &f->cached, p->cached);
	if (p->input_logprobs.n && input->type == SCAN_ARRAY)
		put_items(g, input, merge_is_empty(g->r, input), p->input_logprobs);
}

/* --- logprobs with echo -------------------------------------------------------------------- */

enum echo { ECHO_LEFT, ECHO_BEFORE, ECHO_REPLACED };

/* The same arrays, of one length. */
static bool is_alike(const struct merge_part *p, const struct merge_found *f) {
	for (unsigned k = MERGE_TOKENS; k < MERGE_ARRAYS; k++) {
		bool is_array = f->arrays[k].value.type == SCAN_ARRAY;
		if (is_array != (p->prompts[k - MERGE_TOKENS].n > 0) ||
		    (is_array && f->arrays[k].n != f->arrays[MERGE_TOKENS].n))
			return false;
	}
	return f->text_end != UINT64_MAX;
}

static enum echo echo_of(const struct split_merge *m, const struct split_reading *r) {
	uint64_t n_items = 0, n_prompts = 0;
	bool has_prompts = true, begin_null = true;

	for (unsigned i = 0; i < m->n_parts; i++) {
		uint64_t n = r->parts[i].arrays[MERGE_TOKENS].n;
		if (!m->parts[i].n_prompt || !is_alike(&m->parts[i], &r->parts[i]))
			return ECHO_LEFT;
		n_items += n;
		n_prompts += m->parts[i].n_prompt;
		has_prompts &= n >= m->parts[i].n_prompt;
		begin_null &= r->parts[i].begins_null;
	}
	if (has_prompts && begin_null && n_items == n_prompts)
		return ECHO_REPLACED; /* max_tokens 0: a token is counted that is not told */
	if (!is_count(&r->completion_tokens))
		return ECHO_LEFT;
	bool has_room = (unsigned)m->n_parts * EDITS_OF_PART_BEFORE + EDITS_ELSEWHERE <= SPLICE_EDITS_MAX;
	if (n_items == r->completion_tokens.number)
		return has_room ? ECHO_BEFORE : ECHO_LEFT;
	return has_prompts && n_items - n_prompts == r->completion_tokens.number ? ECHO_REPLACED : ECHO_LEFT;
}

/* Tokens and their places are those of the prompt already. */
static void replace_prompt(const struct merging *g, const struct merge_part *p, const struct merge_found *f) {
	for (unsigned k = MERGE_TOKEN_LOGPROBS; k <= MERGE_TOP_LOGPROBS; k++) {
		const struct merge_items *a = &f->arrays[k];
		uint64_t at = a->value.offset + 1;
		if (a->n)
			put(g, at, a->prompt_end - at, (struct slice){ NULL, 0 },
			    p->prompts[k - MERGE_TOKENS]);
	}
}

static void put_prompt(const struct merging *g, const struct merge_part *p, const struct merge_found *f,
    const struct hold *offsets) {
	const struct merge_items *moved = &f->arrays[MERGE_TEXT_OFFSET];

	for (unsigned k = MERGE_TOKENS; k < MERGE_TEXT_OFFSET; k++)
		if (f->arrays[k].value.type == SCAN_ARRAY)
			put_items(g, &f->arrays[k].value, !f->arrays[k].n, p->prompts[k - MERGE_TOKENS]);
	if (moved->value.type != SCAN_ARRAY)
		return;
	uint64_t at = moved->value.offset + 1;
	put(g, at, 0, (struct slice){ NULL, 0 }, p->prompts[MERGE_TEXT_OFFSET - MERGE_TOKENS]);
	if (moved->n)
		splice_add(g->splice,
		    (struct splice_edit){ .at = at,
			.n_cut = moved->end - at,
			.put = SLICE(","),
			.from = offsets,
			.from_at = f->offsets_at,
			.from_n = f->offsets_n });
}

static void merge_prompt_logprobs(
    const struct merging *g, const struct merge_part *p, const struct merge_found *f) {
	const struct scan_value *v = &f->arrays[MERGE_PROMPT_LOGPROBS].value;

	if (!p->prompt_logprobs.n)
		return;
	if (v->length)
		replace(g, v, p->prompt_logprobs);
	else if (f->object.type == SCAN_OBJECT)
		add_member(g, &f->object, SLICE(",\"prompt_logprobs\":"), p->prompt_logprobs);
}

/* --- the whole ------------------------------------------------------------------------------ */

static void merge_parts(const struct merging *g, const struct hold *offsets) {
	enum echo echo = ECHO_LEFT;

	if (!g->m->n_parts || g->m->n_parts != g->r->n_parts)
		return;
	echo = echo_of(g->m, g->r);
	for (unsigned i = 0; i < g->m->n_parts; i++) {
		const struct merge_part *p = &g->m->parts[i];
		const struct merge_found *f = &g->r->parts[i];
		merge_meta(g, p, f);
		merge_prompt_logprobs(g, p, f);
		if (echo == ECHO_REPLACED)
			replace_prompt(g, p, f);
		else if (echo == ECHO_BEFORE)
			put_prompt(g, p, f, offsets);
	}
}

static void merge_top(const struct merging *g) {
	const struct scan_value *v = &g->r->prompt_logprobs, *choices = &g->r->choices;

	if (!g->m->prompt_logprobs.n)
		return;
	if (v->length)
		replace(g, v, g->m->prompt_logprobs);
	else if (choices->length)
		put(g, choices->offset + choices->length, 0, SLICE(",\"prompt_logprobs\":"),
		    g->m->prompt_logprobs);
}

bool split_merge_answer(
    const struct split_merge *m, const struct hold *decode, struct buf_pool *pool, struct split_answer *out) {
	struct split_reading r;
	struct merging g = { .m = m, .r = &r, .splice = &out->splice };
	bool is_read = merge_read_decode(&r, decode, m, pool);

	out->splice.n = 0;
	out->offsets = r.offsets;
	if (is_read) {
		merge_parts(&g, &out->offsets);
		merge_top(&g);
		merge_usage(&g);
	}
	if (!out->splice.n)
		split_answer_free(out, pool);
	return out->splice.n > 0;
}

void split_answer_free(struct split_answer *a, struct buf_pool *pool) {
	hold_free(&a->offsets, pool);
}

/* --- events --------------------------------------------------------------------------------- */

/* A member of this name, given with its quotes, whose value begins so. A name within a string has no bare
 * quote.
 */
static bool has_member(struct slice text, struct slice name, struct slice begin) {
	for (;;) {
		const char *at = text.n ? memmem(text.p, text.n, name.p, name.n) : NULL;
		if (!at)
			return false;
		text = slice_skip(text, (size_t)(at - text.p) + name.n);
		struct slice rest = slice_trim(text);
		if (rest.n && *rest.p == ':' && slice_has_prefix(slice_trim(slice_skip(rest, 1)), begin))
			return true;
	}
}

static bool has_usage(struct slice text) {
	return has_member(text, SLICE("\"usage\""), SLICE("{"));
}

static bool has_meta(struct slice text) {
	return has_member(text, SLICE("\"meta_info\""), SLICE("{"));
}

static bool has_prompt_logprobs(struct slice text) {
	return has_member(text, SLICE("\"prompt_logprobs\""), SLICE(""));
}

static bool has_logprobs(struct slice text) {
	return has_member(text, SLICE("\"token_logprobs\""), SLICE("["));
}

bool split_merge_is_told(struct slice event) {
	return has_usage(event) || has_meta(event);
}

bool split_merge_concerns(const struct split_merge *m, struct slice text) {
	return (m->cached.n && has_usage(text)) || (m->n_parts && has_meta(text)) ||
	    (m->due.echo && has_logprobs(text)) || (m->has_prompt_logprobs && has_prompt_logprobs(text));
}

/* A list that is there is not the decode engine's to say; for one that is not this may be the place. */
static bool takes_prompt_logprobs(const struct merging *g, const struct scan_value *v, bool is_due) {
	bool is_list = v->type == SCAN_ARRAY && !merge_is_empty(g->r, v);
	return is_list || (is_due && v->length && (v->type == SCAN_ARRAY || v->type == SCAN_NULL));
}

static bool begins_with_prompt(const struct merge_part *p, const struct merge_found *f) {
	return f->begins_null && f->arrays[MERGE_TOKENS].n >= p->n_prompt && is_alike(p, f);
}

static void merge_choice(const struct merging *g, struct merge_due *due, const struct merge_found *f) {
	if (f->index >= g->m->n_parts)
		return;
	const struct merge_part *p = &g->m->parts[f->index];
	uint8_t bit = (uint8_t)(1u << f->index);
	const struct scan_value *v = &f->arrays[MERGE_PROMPT_LOGPROBS].value;

	if (p->prompt_logprobs.n && takes_prompt_logprobs(g, v, due->prompt_logprobs & bit)) {
		replace(g, v, p->prompt_logprobs);
		due->prompt_logprobs &= (uint8_t)~bit;
	}
	if (!(due->echo & bit) || !f->arrays[MERGE_TOKENS].n)
		return;
	due->echo &= (uint8_t)~bit;
	if (begins_with_prompt(p, f))
		replace_prompt(g, p, f);
}

static void merge_choices(const struct merging *g, struct merge_due *due) {
	const struct scan_value *v = &g->r->prompt_logprobs;

	if (g->m->prompt_logprobs.n && takes_prompt_logprobs(g, v, due->top)) {
		replace(g, v, g->m->prompt_logprobs);
		due->top = false;
	}
	for (unsigned i = 0; i < g->r->n_parts && g->r->n_parts <= MERGE_PARTS_MAX; i++)
		merge_choice(g, due, &g->r->parts[i]);
}

bool split_merge_event(struct split_merge *m, struct slice event, struct splice *out) {
	struct split_reading r;
	struct merging g = { .m = m, .r = &r, .splice = out };
	struct slice json;

	out->n = 0;
	if (!split_merge_concerns(m, event))
		return false;
	if (!event_data(event, &json) || !json.n || !merge_read_event(&r, json, m))
		return false;
	merge_usage(&g);
	if (m->n_parts == 1 && r.n_parts == 1)
		merge_meta(&g, &m->parts[0], &r.parts[0]);
	merge_choices(&g, &m->due);
	for (unsigned i = 0; i < out->n; i++)
		out->edits[i].at += (uint64_t)(json.p - event.p);
	return out->n > 0;
}

void split_merge_miss(struct split_merge *m) {
	m->due = (struct merge_due){ .echo = 0 };
}
