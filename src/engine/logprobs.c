#include "engine/logprobs.h"

#include <math.h>
#include <stdio.h>

#include "base/utf8.h"
#include "engine/random.h"

#define NO_CHARACTER "\xef\xbf\xbd" /* a token that is a part of one */

/* Of the nth token. Rank 0 is the token itself; each of the others has half of what is left. */
static double logprob_of(uint64_t seed, uint32_t nth, uint32_t rank) {
	double p = 0.5 + 0.49 * (double)(random_nth(~seed, nth) >> 11) / (double)(1ull << 53);
	return rank == 0 ? log(p) : log1p(-p) - rank * M_LN2;
}

static double logprob(const struct generation_choice *c, uint32_t nth, uint32_t rank) {
	return logprob_of(c->speech.seed, nth, rank);
}

static bool next_token(struct generation_choice *c, struct slice *token) {
	return c->told.n_tokens - c->begin.n_tokens < c->n_made && speech_next(&c->speech, &c->told, token);
}

/* --- chat ------------------------------------------------------------------------ */

static json_t *chat_entry(struct slice token, double value) {
	json_t *bytes = json_array();
	for (size_t i = 0; i < token.n; i++)
		json_array_append_new(bytes, json_integer((unsigned char)token.p[i]));
	return json_pack("{s:s%, s:f, s:o}", "token", token.p, token.n, "logprob", value, "bytes", bytes);
}

json_t *logprobs_chat(const struct generation *g, struct generation_choice *c) {
	json_t *content = json_array();
	struct slice token;

	while (next_token(c, &token)) {
		uint32_t nth = c->told.n_tokens - 1;
		json_t *entry = chat_entry(token, logprob(c, nth, 0)), *top = json_array();
		for (uint32_t rank = 0; rank < g->n_top_logprobs; rank++) {
			struct slice word = rank ? speech_rival(&c->speech, nth, rank) : token;
			json_array_append_new(top, chat_entry(word, logprob(c, nth, rank)));
		}
		json_object_set_new(entry, "top_logprobs", top);
		json_array_append_new(content, entry);
	}
	return json_pack("{s:o}", "content", content);
}

/* --- completions ----------------------------------------------------------------- */

static json_t *top_json(
    const struct generation *g, const struct generation_choice *c, struct slice token, uint32_t nth) {
	json_t *top = json_object();
	json_object_setn_new(top, token.p, token.n, json_real(logprob(c, nth, 0)));
	for (uint32_t rank = 1; rank < g->n_top_logprobs; rank++) {
		struct slice word = speech_rival(&c->speech, nth, rank);
		if (!json_object_getn(top, word.p, word.n)) /* the token may be that word */
			json_object_setn_new(top, word.p, word.n, json_real(logprob(c, nth, rank)));
	}
	return top;
}

static void add(json_t *lists, const char *name, json_t *value) {
	json_array_append_new(json_object_get(lists, name), value);
}

static void add_token(
    json_t *lists, struct generation_choice *c, struct slice token, json_t *value, json_t *top) {
	add(lists, "text_offset", json_integer((json_int_t)c->n_told_characters));
	add(lists, "token_logprobs", value);
	add(lists, "tokens", json_stringn(token.p, token.n));
	add(lists, "top_logprobs", top);
	for (size_t i = 0; i < token.n; i++)
		c->n_told_characters += ((unsigned char)token.p[i] & 0xc0) != 0x80;
}

static bool is_text(struct slice s) {
	while (s.n > 0) {
		size_t n = (unsigned char)s.p[0] < 0x80 ? 1 : utf8_length(s);
		if (n == 0)
			return false;
		s = slice_skip(s, n);
	}
	return true;
}

/*
 * As prompt.h counts them. Nothing stands before the first one, so that it has no probability; to a decode,
 * which has not computed them, none has one.
 */
static void add_prompt(const struct generation *g, struct generation_choice *c, json_t *lists) {
	bool is_known = g->leg.part != KV_DECODE;
	const json_t *prompt = generation_prompt_text(g, c);
	struct slice rest = { json_string_value(prompt), json_string_length(prompt) };
	struct slice token = slice_head(rest, size_min(rest.n, PROMPT_TOKEN_BYTES));

	add_token(lists, c, is_text(token) ? token : SLICE(NO_CHARACTER), json_null(), json_null());
	for (uint32_t nth = UINT32_MAX; (rest = slice_skip(rest, token.n)).n > 0; nth--) {
		token = slice_head(rest, size_min(rest.n, PROMPT_TOKEN_BYTES));
		struct slice text = is_text(token) ? token : SLICE(NO_CHARACTER);
		add_token(lists, c, text, is_known ? json_real(logprob(c, nth, 0)) : json_null(),
		    is_known ? top_json(g, c, text, nth) : json_null());
	}
}

json_t *logprobs_completion(const struct generation *g, struct generation_choice *c) {
	json_t *lists =
	    json_pack("{s:[], s:[], s:[], s:[]}", "text_offset", "token_logprobs", "tokens", "top_logprobs");
	struct slice token;

	if (g->prompt_texts && !c->has_prompt)
		add_prompt(g, c, lists);
	while (!g->prompts_only && next_token(c, &token)) {
		uint32_t nth = c->told.n_tokens - 1;
		add_token(lists, c, token, json_real(logprob(c, nth, 0)), top_json(g, c, token, nth));
	}
	return lists;
}

/* --- prompts ---------------------------------------------------------------------- */

static void add_candidate(json_t *candidates, uint32_t id, struct slice text, double value, uint32_t rank) {
	char key[16];
	snprintf(key, sizeof(key), "%u", id);
	if (!json_object_get(candidates, key)) /* a rival may be that token */
		json_object_set_new(candidates, key,
		    json_pack("{s:f, s:i, s:s%}", "logprob", value, "rank", (int)rank + 1, "decoded_token",
			text.p, text.n));
}

json_t *logprobs_prompt(const struct prompt *p, uint32_t n_top) {
	const struct speech rivals = { .seed = p->hash };
	json_t *list = json_array();

	for (uint32_t nth = 0; nth < p->n_kept; nth++) {
		const char *token = (const char *)&p->tokens[nth];
		struct slice text = { token, strnlen(token, PROMPT_TOKEN_BYTES) }; /* the last one is short */
		json_t *candidates =
		    nth ? json_object() : json_null(); /* nothing stands before the first one */
		if (nth)
			add_candidate(candidates, p->tokens[nth], is_text(text) ? text : SLICE(NO_CHARACTER),
			    logprob_of(p->hash, nth, 0), 0);
		for (uint32_t rank = 1; nth && rank < n_top; rank++) {
			struct slice word = speech_rival(&rivals, nth, rank);
			add_candidate(
			    candidates, speech_id(word), word, logprob_of(p->hash, nth, rank), rank);
		}
		json_array_append_new(list, candidates);
	}
	return list;
}

static void add_triple(json_t *list, json_t *value, uint32_t id) {
	json_array_append_new(list, json_pack("[o, I, n]", value, (json_int_t)id));
}

json_t *logprobs_input(const struct prompt *p, uint32_t n_top) {
	json_t *list = json_array();
	(void)n_top;
	for (uint32_t nth = 0; nth < p->n_kept; nth++)
		add_triple(list, nth ? json_real(logprob_of(p->hash, nth, 0)) : json_null(), p->tokens[nth]);
	return list;
}

json_t *logprobs_ids(const struct generation_choice *c) {
	struct speech_cursor cursor = c->begin;
	json_t *list = json_array();
	struct slice token;

	for (uint32_t nth = 0; nth < c->n_made && speech_next(&c->speech, &cursor, &token); nth++)
		add_triple(list, json_real(logprob(c, nth, 0)), speech_id(token));
	return list;
}
