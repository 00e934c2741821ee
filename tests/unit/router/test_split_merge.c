#include "unit/router/held.h"

#include <jansson.h>

#include "base/rng.h"
#include "router/split_merge.h"

/* The decode engine's answer as the client gets it, to be freed; NULL: it goes as it is. */
static char *merged(const char *prefill, const char *decode, size_t step) {
	struct hold first = held(slice_of(prefill), step), second = held(slice_of(decode), step);
	struct hold out = { .bytes = 0 };
	struct splice_cursor c;
	struct piece piece;
	struct split_merge m;
	struct split_answer answer;
	char *text = NULL;

	if (split_merge_read(&m, &first) && split_merge_answer(&m, &second, &pool, &answer)) {
		splice_begin(&c, &answer.splice, &second);
		while (splice_pieces(&c, &piece, 1))
			hold_append_forced(&out, &pool, &piece, 1);
		assert_int_equal(out.bytes, splice_length(&answer.splice, second.bytes));
		text = text_of(&out);
		split_answer_free(&answer, &pool);
		hold_free(&out, &pool);
	}
	hold_free(&first, &pool);
	hold_free(&second, &pool);
	return text;
}

struct example {
	const char *prefill, *decode, *expected; /* NULL: as it is */
};

static void assert_examples(const struct example *e, size_t n) {
	static const size_t steps[] = { 1, 2, 7, 64, 4000 };

	for (; n > 0; n--, e++)
		for (size_t i = 0; i < n_elems(steps); i++) {
			char *text = merged(e->prefill, e->decode, steps[i]);
			if (e->expected && text)
				assert_string_equal(text, e->expected);
			else if (e->expected || text)
				fail_msg("%s of %s", text ? "an edit" : "no edit", e->decode);
			free(text);
		}
}

/* --- counts ------------------------------------------------------------------------------ */

#define USAGE(details) "{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1" details "}}"
#define CACHED(n)      ",\"prompt_tokens_details\":{\"cached_tokens\":" n "}"
#define INPUT(n)       ",\"input_tokens_details\":{\"cached_tokens\":" n "}"

static void cached_tokens_are_of_the_prefill(void **state) {
	static const struct example examples[] = {
		{ USAGE(CACHED("8")), USAGE(CACHED("0")), USAGE(CACHED("8")) },
		/* What was pulled is cached to who pulled it. */
		{ USAGE(CACHED("8")), USAGE(CACHED("900")), USAGE(CACHED("8")) },
		{ USAGE(CACHED("0")), USAGE(CACHED("99999999999999999999")), USAGE(CACHED("0")) },
		{ USAGE(CACHED("8")), USAGE(CACHED("-1")), USAGE(CACHED("8")) },
		{ USAGE(CACHED("8")), USAGE(CACHED("0.0")), USAGE(CACHED("8")) },
		{ USAGE(CACHED("8")), USAGE(CACHED("1.5")), USAGE(CACHED("8")) },
		{ USAGE(CACHED("8")), USAGE(CACHED("null")), USAGE(CACHED("8")) },
		{ USAGE(CACHED("0")), USAGE(CACHED("-1")), USAGE(CACHED("0")) },
		{ USAGE(INPUT("8")), USAGE(INPUT("0")), USAGE(INPUT("8")) },
		/* What was there before stays, white space too. */
		{ USAGE(CACHED("8")), "{ \"usage\" : { \"prompt_tokens_details\" : { \"a\" : 1 } } }\r\n",
		    "{ \"usage\" : { \"prompt_tokens_details\" : { \"a\" : 1 ,\"cached_tokens\":8} } }\r\n" },
		{ USAGE(CACHED("8")), USAGE(",\"prompt_tokens_details\":{ }"),
		    USAGE(",\"prompt_tokens_details\":{ \"cached_tokens\":8}") },
		{ USAGE(CACHED("8")), USAGE(",\"prompt_tokens_details\":null"), USAGE(CACHED("8")) },
		{ USAGE(CACHED("8")), USAGE(""), USAGE(CACHED("8")) },
		{ USAGE(INPUT("8")), USAGE(""), USAGE(INPUT("8")) },
		{ USAGE(CACHED("8")), "{\"usage\":{}}",
		    "{\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":8}}}" },
		/* The last one of a name counts. */
		{ USAGE(CACHED("7") CACHED("8")), USAGE(CACHED("0") CACHED("0")),
		    USAGE(CACHED("0") CACHED("8")) },
		{ USAGE(CACHED("8")),
		    "{\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":5}},\"usage\":{}}",
		    "{\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":5}},"
		    "\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":8}}}" },
	};

	assert_examples(examples, n_elems(examples));
}

static void what_needs_no_count_is_left(void **state) {
	static const struct example examples[] = {
		{ USAGE(CACHED("8")), "{\"usage\":null}", NULL },
		{ USAGE(CACHED("8")), "{\"id\":\"x\"}", NULL },
		{ USAGE(CACHED("8")), USAGE(",\"prompt_tokens_details\":[]"), NULL },
		{ USAGE(CACHED("8")), "Internal Server Error", NULL },
		{ USAGE(CACHED("8")), "", NULL },
		{ USAGE(CACHED("8")), "{\"usage\":{}", NULL },
		{ USAGE(CACHED("8")), "{\"usage\":{}}}", NULL },
		{ USAGE(""), USAGE(CACHED("0")), NULL },
		{ USAGE(CACHED("-1")), USAGE(CACHED("0")), NULL },
		{ USAGE(CACHED("\"8\"")), USAGE(CACHED("0")), NULL },
		{ "{\"usage\":", USAGE(CACHED("0")), NULL },
	};

	assert_examples(examples, n_elems(examples));
}

/* --- logprobs ------------------------------------------------------------------------------- */

#define PROMPT_LOGPROBS "[null, {\"5\":{\"logprob\":-0.5}}]"

static void prompt_logprobs_are_of_the_prefill(void **state) {
	static const struct example examples[] = {
		{ "{\"prompt_logprobs\":" PROMPT_LOGPROBS "}", "{\"prompt_logprobs\":null}",
		    "{\"prompt_logprobs\":" PROMPT_LOGPROBS "}" },
		/* That engine did not compute what it says. */
		{ "{\"prompt_logprobs\":" PROMPT_LOGPROBS "}", "{\"prompt_logprobs\":[null,{}]}",
		    "{\"prompt_logprobs\":" PROMPT_LOGPROBS "}" },
		{ "{\"prompt_logprobs\":" PROMPT_LOGPROBS "}", "{\"choices\":[{}],\"id\":\"1\"}",
		    "{\"choices\":[{}],\"prompt_logprobs\":" PROMPT_LOGPROBS ",\"id\":\"1\"}" },
		{ "{\"prompt_logprobs\":" PROMPT_LOGPROBS "}", "{}", NULL },
		{ "{\"prompt_logprobs\":null}", "{\"prompt_logprobs\":[null]}", NULL },
		{ "{\"choices\":[{\"prompt_logprobs\":" PROMPT_LOGPROBS "},{\"prompt_logprobs\":[null]}]}",
		    "{\"choices\":[{\"prompt_logprobs\":null},{\"prompt_logprobs\":null}]}",
		    "{\"choices\":[{\"prompt_logprobs\":" PROMPT_LOGPROBS
		    "},{\"prompt_logprobs\":[null]}]}" },
		{ "{\"choices\":[{},{\"prompt_logprobs\":[null]}]}", "{\"choices\":[{},{ }]}",
		    "{\"choices\":[{},{ \"prompt_logprobs\":[null]}]}" },
		{ "{\"choices\":[{\"prompt_logprobs\":[null]}]}", "{\"choices\":[{\"index\":0 }]}",
		    "{\"choices\":[{\"index\":0 ,\"prompt_logprobs\":[null]}]}" },
		/* Choices that do not fit. */
		{ "{\"choices\":[{\"prompt_logprobs\":[null]}]}", "{\"choices\":[{},{}]}", NULL },
		{ "{\"choices\":[{\"prompt_logprobs\":[null]}]}", "{\"choices\":[]}", NULL },
		{ "{\"choices\":[{\"prompt_logprobs\":[null]}]}", "{\"choices\":[7]}", NULL },
		{ "{\"choices\":[{\"prompt_logprobs\":[null]}],\"choices\":null}", "{\"choices\":[{}]}",
		    NULL },
		{ "{\"choices\":[{\"prompt_logprobs\":[null]}]}", "{\"choices\":[{}],\"choices\":{}}", NULL },
	};

	assert_examples(examples, n_elems(examples));
}

/* A choice with echo and the usage behind it. */
#define ECHOED(choices, n) "{\"choices\":[" choices "],\"usage\":{\"completion_tokens\":" n CACHED("4") "}}"
#define LOGPROBS(offsets, logprobs, tokens, top, prompt)                                                     \
	"{\"logprobs\":{\"text_offset\":[" offsets "],\"token_logprobs\":[" logprobs "],\"tokens\":[" tokens \
	"],\"top_logprobs\":" top "},\"prompt_logprobs\":" prompt "}"
#define PREFILL                                                                                              \
	LOGPROBS("0, 2, 5", "null, -1.5, -2", "\"He\",\"llo\",\"x\"", "[null,{\"a\":-1},{\"x\":-2}]",        \
	    "[null,{}]")
#define PLAIN(logprobs) LOGPROBS("0,2,5", "null," logprobs ",-2", "\"He\",\"llo\",\"x\"", "null", "[null,{}]")

static void echo_has_the_prompt_of_the_prefill(void **state) {
	static const struct example examples[] = {
		/* The other's prompt is replaced. */
		{ ECHOED(PREFILL, "1"),
		    ECHOED(LOGPROBS("0,2,5,6", "null,0 ,-3,-4", "\"He\",\"llo\",\"y\",\"z\"",
			       "[ null, null,{\"y\":-3},{\"z\":-4}]", "null"),
			"2"),
		    ECHOED(LOGPROBS("0,2,5,6", "null, -1.5 ,-3,-4", "\"He\",\"llo\",\"y\",\"z\"",
			       "[null,{\"a\":-1},{\"y\":-3},{\"z\":-4}]", "[null,{}]"),
			"2") },
		{ ECHOED(PLAIN("-1"), "1"), ECHOED(PLAIN("0"), "1"), ECHOED(PLAIN("-1"), "1") },
		/* It said nothing. */
		{ ECHOED(PLAIN("-1"), "1"), ECHOED(LOGPROBS("0,2", "0,0", "1,2", "null", "null"), "0"),
		    ECHOED(LOGPROBS("0,2", "null,-1", "1,2", "null", "[null,{}]"), "0") },
		/* It says the prompt alone, and counts what it does not say. */
		{ ECHOED(PLAIN("-1"), "1"), ECHOED(LOGPROBS("0,2", "null,0", "1,2", "null", "null"), "1"),
		    ECHOED(LOGPROBS("0,2", "null,-1", "1,2", "null", "[null,{}]"), "1") },
		/* It has no prompt: this one goes before it. */
		{ ECHOED(PREFILL, "1"),
		    ECHOED(
			LOGPROBS(" 0, 1 ", "-3,-4", "\"y\",\"z\"", "[{\"y\":-3},{\"z\":-4}]", "null"), "2"),
		    ECHOED(LOGPROBS("0, 2,5,6 ", "null, -1.5,-3,-4", "\"He\",\"llo\",\"y\",\"z\"",
			       "[null,{\"a\":-1},{\"y\":-3},{\"z\":-4}]", "[null,{}]"),
			"2") },
		{ ECHOED(PREFILL, "1"), ECHOED(LOGPROBS("", " ", "", "[]", "null"), "0"),
		    ECHOED(
			LOGPROBS("0, 2", "null, -1.5 ", "\"He\",\"llo\"", "[null,{\"a\":-1}]", "[null,{}]"),
			"0") },
		{ ECHOED(PLAIN("-1") "," PLAIN("-2"), "2"),
		    ECHOED(LOGPROBS("0", "-7", "\"y\"", "null", "null") "," LOGPROBS(
			       "0,1e1", "-8,-9", "\"z\",\"z\"", "null", "null"),
			"3"),
		    ECHOED(LOGPROBS("0,2,5", "null,-1,-7", "\"He\",\"llo\",\"y\"", "null",
			       "[null,{}]") "," LOGPROBS("0,2,5,15", "null,-2,-8,-9",
			       "\"He\",\"llo\",\"z\",\"z\"", "null", "[null,{}]"),
			"3") },
	};

	assert_examples(examples, n_elems(examples));
}

#define ODD(offsets, logprobs, tokens, top, n)                                                               \
	{                                                                                                    \
		.decode = ECHOED(LOGPROBS(offsets, logprobs, tokens, top, "null"), n),                       \
		.expected = ECHOED(LOGPROBS(offsets, logprobs, tokens, top, "[null,{}]"), n)                 \
	}

/* prompt_logprobs alone are merged where the arrays are not what engines make of echo. */
static void odd_logprobs_are_left(void **state) {
	static const char *const prefills[] = {
		LOGPROBS("0,2", "null,-1", "1,2", "null", "[null,{}]"),
		LOGPROBS("0,2,5", "null,-1", "1,2,3", "null", "[null,{}]"),
		LOGPROBS("0,2,-5", "null,-1,2", "1,2,3", "null", "[null,{}]"),
		LOGPROBS("0,2,\"5\"", "null,-1,2", "1,2,3", "null", "[null,{}]"),
		LOGPROBS("0,2,5e9", "null,-1,2", "1,2,3", "null", "[null,{}]"),
		LOGPROBS("0", "-1", "1", "null", "[null,{}]"), /* no echo */
		"{\"logprobs\":null,\"prompt_logprobs\":[null,{}]}",
		"{\"logprobs\":{\"tokens\":[1,2,3],\"text_offset\":[0,2,5],\"token_logprobs\":[null,-1,2]},"
		"\"logprobs\":null,\"prompt_logprobs\":[null,{}]}",
		LOGPROBS("0,2,5", "null,-1,2", "1,2,3", "[null,null]", "[null,{}]"),
	};
	static const struct example odd[] = {
		ODD("0,2,5", "null,-3,2", "1,2,3", "null", "2"),
		ODD("0,2,5", "null,-3,2", "1,2,3", "null", "null"),
		ODD("0,2,5", "null,-3", "1,2,3", "null", "1"),
		ODD("0,2,5", "null,-3,2", "1,2,3", "[]", "1"),
		ODD("0,2,null", "null,-3,2", "1,2,3", "null", "1"),
		ODD("0", "null", "1", "null", "18446744073709551615"),
		{ .decode = ECHOED(
		      "{\"logprobs\":{\"tokens\":[1]},\"logprobs\":null,\"prompt_logprobs\":1}", "1"),
		    .expected = ECHOED(
			"{\"logprobs\":{\"tokens\":[1]},\"logprobs\":null,\"prompt_logprobs\":[null,{}]}",
			"1") },
		{ .decode = ECHOED("{\"logprobs\":{\"tokens\":{}},\"prompt_logprobs\":1}", "0"),
		    .expected = ECHOED("{\"logprobs\":{\"tokens\":{}},\"prompt_logprobs\":[null,{}]}", "0") },
	};
	static const struct example good = ODD("0,2,5", "null,-3,2", "1,2,3", "null", "1");
	char prefill[300];

	for (size_t i = 0; i < n_elems(prefills); i++) {
		snprintf(prefill, sizeof(prefill), "{\"choices\":[%s]}", prefills[i]);
		assert_examples(&(struct example){ prefill, good.decode, good.expected }, 1);
	}
	for (size_t i = 0; i < n_elems(odd); i++)
		assert_examples(
		    &(struct example){ "{\"choices\":[" PLAIN("-1") "]}", odd[i].decode, odd[i].expected },
		    1);
}

#define META(members) "{\"text\":\"x\",\"meta_info\":{" members "}}"

static void meta_info_of_sglang(void **state) {
	static const struct example examples[] = {
		{ META("\"cached_tokens\":3,\"input_token_logprobs\":[[null,1,null],[-1,2,null]]"),
		    META("\"input_token_logprobs\":[[-2,3,null]],\"cached_tokens\":0"),
		    META("\"input_token_logprobs\":[[null,1,null],[-1,2,null],[-2,3,null]],\"cached_tokens\":"
			 "3") },
		{ META("\"input_token_logprobs\":[[null,1]]"), META("\"input_token_logprobs\":[ ]"),
		    META("\"input_token_logprobs\":[[null,1] ]") },
		{ META("\"input_token_logprobs\":[ ]"), META("\"input_token_logprobs\":[]"), NULL },
		{ META("\"input_token_logprobs\":[1]"), META("\"input_token_logprobs\":null"), NULL },
		{ META("\"cached_tokens\":3"), META(""), META("\"cached_tokens\":3") },
		{ META("\"cached_tokens\":3"), META("\"id\":\"a\""),
		    META("\"id\":\"a\",\"cached_tokens\":3") },
		{ META("\"cached_tokens\":3"), META("\"cached_tokens\":2"), META("\"cached_tokens\":3") },
		{ META("\"cached_tokens\":3"), "{\"meta_info\":null}", NULL },
		{ "[" META("\"cached_tokens\":3") "," META("\"input_token_logprobs\":[1]") "]",
		    "[" META("") "," META("\"input_token_logprobs\":[2]") "]",
		    "[" META("\"cached_tokens\":3") "," META("\"input_token_logprobs\":[1,2]") "]" },
		{ "[" META("\"cached_tokens\":3") "]", "[" META("") "," META("") "]", NULL },
	};

	assert_examples(examples, n_elems(examples));
}

static char *dumped(json_t *answer) {
	char *text = json_dumps(answer, JSON_COMPACT);
	json_decref(answer);
	return text;
}

/* n choices that have prompt_logprobs or nothing, and a count. */
static char *choices_text(unsigned n, bool is_prefill) {
	json_t *choices = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(
		    choices, is_prefill ? json_pack("{s:[n]}", "prompt_logprobs") : json_object());
	return dumped(json_pack("{s:o, s:{s:{s:i}}}", "choices", choices, "usage", "prompt_tokens_details",
	    "cached_tokens", is_prefill ? 5 : 0));
}

/* More of them than there is room for: the count alone. */
static void parts_are_bounded(void **state) {
	for (unsigned n = 1; n <= 2 * MERGE_PARTS_MAX; n++) {
		char *prefill = choices_text(n, true), *decode = choices_text(n, false);
		char *text = merged(prefill, decode, 100);
		assert_non_null(strstr(text, "\"cached_tokens\":5"));
		assert_int_equal(strstr(text, "prompt_logprobs") != NULL, n <= MERGE_PARTS_MAX);
		free(prefill);
		free(decode);
		free(text);
	}
}

#define FOUR(text) text "," text "," text "," text

/* Four prompts that go before take too many edits; four that are replaced do not. */
static void edits_are_bounded(void **state) {
#define BARE(prompt) LOGPROBS("0", "-7", "\"y\"", "null", prompt)
	static const struct example examples[] = {
		{ ECHOED(FOUR(PLAIN("-1")), "4"), ECHOED(FOUR(BARE("null")), "4"),
		    ECHOED(FOUR(BARE("[null,{}]")), "4") },
		{ ECHOED(FOUR(PLAIN("-1")), "4"), ECHOED(FOUR(PLAIN("0")), "4"),
		    ECHOED(FOUR(PLAIN("-1")), "4") },
	};
#undef BARE

	assert_examples(examples, n_elems(examples));
}

/* What moves text_offset takes memory. */
static void without_memory_it_is_left(void **state) {
	json_t *offsets = json_array();
	struct split_merge m;
	struct split_answer answer;

	for (int i = 0; i < 100000; i++)
		json_array_append_new(offsets, json_integer(i));
	char *decode = dumped(
	    json_pack("{s:{}, s:[{s:{s:o}}]}", "usage", "choices", "logprobs", "text_offset", offsets));
	struct hold first = held(SLICE(ECHOED(PLAIN("-1"), "1")), 4000),
		    second = held(slice_of(decode), 4000);
	assert_true(split_merge_read(&m, &first));
	buf_pool_report(&pool);
	budget.max_bytes = budget.used_bytes + 1000;
	assert_false(split_merge_answer(&m, &second, &pool, &answer));
	budget.max_bytes = 16u << 20;
	assert_true(split_merge_answer(&m, &second, &pool, &answer));
	split_answer_free(&answer, &pool);
	hold_free(&first, &pool);
	hold_free(&second, &pool);
	free(decode);
}

/* --- events ----------------------------------------------------------------------------------- */

/* The next event of a stream as the client gets it, to be freed; NULL: it goes as it is. */
static char *next_event(struct split_merge *m, const char *event) {
	struct hold out = { .bytes = 0 };
	struct splice splice;
	char *text = NULL, *exact = malloc(strlen(event)); /* in memory of its own */

	memcpy(exact, event, strlen(event));
	if (split_merge_event(m, (struct slice){ exact, strlen(event) }, &splice)) {
		splice_append(&splice, (struct slice){ exact, strlen(event) }, &out, &pool);
		assert_int_equal(out.bytes, splice_length(&splice, strlen(event)));
		text = text_of(&out);
	}
	hold_free(&out, &pool);
	free(exact);
	return text;
}

static char *merged_event(const char *prefill, const char *event) {
	struct hold first = held(slice_of(prefill), 50);
	struct split_merge m;

	assert_true(split_merge_read(&m, &first));
	char *text = next_event(&m, event);
	hold_free(&first, &pool);
	return text;
}

static void events_with_a_count(void **state) {
	static const struct example examples[] = {
		{ USAGE(CACHED("8")), "data: " USAGE(CACHED("0")) "\n\n",
		    "data: " USAGE(CACHED("8")) "\n\n" },
		{ USAGE(CACHED("8")), "id: 1\r\ndata:{\"choices\":[],\"usage\" : {}}\r\n: c\r\n\r\n",
		    "id: 1\r\ndata:{\"choices\":[],\"usage\" : "
		    "{\"prompt_tokens_details\":{\"cached_tokens\":8}}}"
		    "\r\n: c\r\n\r\n" },
		{ USAGE(CACHED("8")), "data: {\"choices\":[{\"text\":\"\\\"usage\\\":{\"}],\"usage\":{}}\n\n",
		    "data: {\"choices\":[{\"text\":\"\\\"usage\\\":{\"}],"
		    "\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\n" },
		{ USAGE(INPUT("8")),
		    "event: response.completed\ndata: {\"response\":" USAGE(INPUT("0")) "}\n\n",
		    "event: response.completed\ndata: {\"response\":" USAGE(INPUT("8")) "}\n\n" },
		{ USAGE(INPUT("8")), "data: {\"response\":" USAGE("") "}\n\n",
		    "data: {\"response\":" USAGE(INPUT("8")) "}\n\n" },
		{ META("\"cached_tokens\":3,\"input_token_logprobs\":[1]"),
		    "data: " META("\"cached_tokens\":0,\"input_token_logprobs\":[2]") "\n\n",
		    "data: " META("\"cached_tokens\":3,\"input_token_logprobs\":[1,2]") "\n\n" },
	};
	static const struct example left[] = {
		{ USAGE(CACHED("8")), "data: {\"choices\":[{\"delta\":{}}],\"usage\":null}\n\n", NULL },
		{ USAGE(CACHED("8")), "data: {\"choices\":[{\"text\":\"\\\"usage\\\":{\"}]}\n\n", NULL },
		{ USAGE(CACHED("8")), "data: {\"choices\":[{\"usage\":{}}]}\n\n", NULL },
		{ USAGE(CACHED("8")), "data: {\"usage\":{}\n\n", NULL },
		{ USAGE(CACHED("8")), "data: {\"usage\":{}\ndata: }\n\n", NULL },
		{ USAGE(CACHED("8")), ": {\"usage\":{}}\n\n", NULL },
		{ USAGE(CACHED("8")), "data: [DONE]\n\n", NULL },
		{ USAGE(CACHED("8")), "data: {\"meta_info\":{}}\n\n", NULL },
		{ USAGE(CACHED("8")), "\n", NULL },
		{ USAGE(CACHED("8")), "data: \"usage\"", NULL },
		{ USAGE(CACHED("8")), "data: \"usage\" :", NULL },
		/* One of a batch. */
		{ "[" META("\"cached_tokens\":3") "," META("") "]", "data: " META("") "\n\n", NULL },
	};

	for (size_t i = 0; i < n_elems(examples); i++) {
		char *text = merged_event(examples[i].prefill, examples[i].decode);
		assert_non_null(text);
		assert_string_equal(text, examples[i].expected);
		free(text);
	}
	for (size_t i = 0; i < n_elems(left); i++)
		if (merged_event(left[i].prefill, left[i].decode))
			fail_msg("an edit of %s", left[i].decode);
}

/* Of a stream: what the client gets of each event, up to one that is empty. */
static void assert_stream(const char *prefill, const struct example *e, bool is_late) {
	struct hold first = held(slice_of(prefill), 50);
	struct split_merge m;

	assert_true(split_merge_read(&m, &first));
	if (is_late)
		split_merge_miss(&m);
	for (; e->decode; e++) {
		bool is_plain = !split_merge_concerns(&m, slice_of(e->decode));
		char *text = next_event(&m, e->decode);
		if (e->expected && text)
			assert_string_equal(text, e->expected);
		else if (e->expected || text)
			fail_msg("%s of %s", text ? "an edit" : "no edit", e->decode);
		assert_false(is_plain && text);
		free(text);
	}
	hold_free(&first, &pool);
}

#define EVENT(members)       "data: {" members "}\n\n"
#define CHOICES(choices)     EVENT("\"choices\":[" choices "]")
#define CHOICE(index, after) CHOICES("{\"index\":" index "," after "}")
#define MEMBER(value)        "\"prompt_logprobs\":" value

static void prompt_logprobs_stand_where_an_event_has_them(void **state) {
	static const struct example of_all[] = {
		{ .decode = EVENT("\"choices\":[{\"delta\":{}}]") },
		{ .decode = EVENT(MEMBER("7")) },
		{ .decode = EVENT(MEMBER("null")), .expected = EVENT(MEMBER(PROMPT_LOGPROBS)) },
		{ .decode = EVENT(MEMBER("null")) },
		{ .decode = EVENT(MEMBER("[ ]")) },
		/* What an engine that has not computed it says of a prompt is nowhere. */
		{ .decode = EVENT("\"id\":1," MEMBER("[null, null]") ",\"choices\":[]"),
		    .expected = EVENT("\"id\":1," MEMBER(PROMPT_LOGPROBS) ",\"choices\":[]") },
		{ .decode = CHOICE("0", MEMBER("[null]")) },
		{ .decode = NULL },
	};
	static const struct example of_two[] = {
		{ .decode = CHOICE("1", MEMBER("[]")), .expected = CHOICE("1", MEMBER("[2]")) },
		{ .decode = CHOICE("1", MEMBER("null")) },
		{ .decode = CHOICES("{\"prompt_logprobs\":null}") },
		{ .decode = CHOICES("{\"prompt_logprobs\":null,\"index\":0}") },
		{ .decode = CHOICES(
		      "{\"index\":1,\"prompt_logprobs\":[0]},{\"index\":0,\"prompt_logprobs\":null}"),
		    .expected = CHOICES(
			"{\"index\":1,\"prompt_logprobs\":[2]},{\"index\":0,\"prompt_logprobs\":[1]}") },
		{ .decode = CHOICE("2", MEMBER("[0]")) },
		{ .decode = CHOICE("-1", MEMBER("[0]")) },
		{ .decode = CHOICE("\"0\"", MEMBER("[0]")) },
		{ .decode = CHOICE("4294967296", MEMBER("[0]")) },
		{ .decode = EVENT(MEMBER("[0]")) },
		{ .decode = NULL },
	};
	static const struct example late[] = {
		{ .decode = EVENT(MEMBER("null")) },
		{ .decode = EVENT(MEMBER("[0]")), .expected = EVENT(MEMBER(PROMPT_LOGPROBS)) },
		{ .decode = NULL },
	};

	assert_stream("{\"prompt_logprobs\":" PROMPT_LOGPROBS "}", of_all, false);
	assert_stream("{\"prompt_logprobs\":" PROMPT_LOGPROBS "}", late, true);
	assert_stream("{\"choices\":[{\"prompt_logprobs\":[1]},{\"prompt_logprobs\":[2]}]}", of_two, false);
}

#define WORDS(offsets, logprobs, tokens, top)                                                                \
	"\"logprobs\":{\"text_offset\":[" offsets "],\"token_logprobs\":[" logprobs "],\"tokens\":[" tokens  \
	"],\"top_logprobs\":" top "}"
#define FIRST(index, logprobs, top) CHOICE(index, WORDS("0,2,5", logprobs, "\"He\",\"llo\",\"y\"", top))

static void echo_has_its_prompt_in_the_first_words(void **state) {
	static const struct example one[] = {
		{ .decode = CHOICE("0", "\"logprobs\":null") },
		{ .decode = CHOICE("0", WORDS("", "", "", "[]")) },
		{ .decode = FIRST("0", " null , null ,-7 ", "[null, null,{\"y\":-7}]"),
		    .expected = FIRST("0", "null, -1.5 ,-7 ", "[null,{\"a\":-1},{\"y\":-7}]") },
		/* Once: more of that kind is the engine's own. */
		{ .decode = FIRST("0", "null,null,-7", "[null,null,{\"y\":-7}]") },
		{ .decode = NULL },
	};
	static const struct example of_two[] = {
		{ .decode = FIRST("1", "null,0,-7", "null"), .expected = FIRST("1", "null,-2,-7", "null") },
		{ .decode = CHOICE("1", WORDS("6", "-8", "\"z\"", "null")) },
		/* The prompt alone. */
		{ .decode = CHOICE("0", WORDS("0,2", "null,null", "1,2", "null")),
		    .expected = CHOICE("0", WORDS("0,2", "null,-1", "1,2", "null")) },
		{ .decode = NULL },
	};

	assert_stream(ECHOED(PREFILL, "1"), one, false);
	assert_stream(ECHOED(PLAIN("-1") "," PLAIN("-2"), "2"), of_two, false);
	assert_stream(ECHOED(PREFILL, "1"), &one[3], true);
}

/* The first words of a choice that are not what engines make of echo leave it at that. */
static void first_words_without_the_prompt_are_left(void **state) {
	static const char *const odd[] = {
		CHOICE("0", WORDS("0", "-7", "\"y\"", "null")),
		CHOICE("0", WORDS("0", "null", "\"y\"", "null")),
		FIRST("0", "-1,-2,-3", "null"),
		FIRST("0", "null,-2", "null"),
		FIRST("0", "null,-2,-3", "[null,null,null]"),
		CHOICE("0", WORDS("0,2,-5", "null,-2,-3", "1,2,3", "null")),
	};
	static const char *const elsewhere[] = {
		CHOICE("0", "\"logprobs\":{\"tokens\":[1,2,3]}"),
		FIRST("1", "null,null,-3", "null"),
		CHOICES("{" WORDS("0,2,5", "null,null,-3", "1,2,3", "null") "}"),
		CHOICES("{" WORDS("0,2,5", "null,null,-3", "1,2,3", "null") ",\"index\":0}"),
		EVENT(WORDS("0,2,5", "null,null,-3", "1,2,3", "null")),
		"data: {\"choices\":[{\"index\":0," WORDS("0,2,5", "null,null,-3", "1,2,3", "null") "}]\n\n",
	};
	static const char good[] = FIRST("0", "null,null,-3", "null"),
			  merged_good[] = FIRST("0", "null,-1,-3", "null");

	for (size_t i = 0; i < n_elems(odd); i++)
		assert_stream(ECHOED(PLAIN("-1"), "1"),
		    (const struct example[]){ { .decode = odd[i] }, { .decode = good }, { .decode = NULL } },
		    false);
	for (size_t i = 0; i < n_elems(elsewhere); i++)
		assert_stream(ECHOED(PLAIN("-1"), "1"),
		    (const struct example[]){ { .decode = elsewhere[i] },
			{ .decode = good, .expected = merged_good }, { .decode = NULL } },
		    false);
}

/* An event with more choices than there is room for, and one with as many as there is. */
static void choices_of_an_event_are_bounded(void **state) {
#define EIGHT(text) text "," text "," text "," text "," text "," text "," text "," text
#define TWICE(last)                                                                                          \
	"{\"index\":0," WORDS("0,2,5", "null," last ",-2", "\"He\",\"llo\",\"x\"", "null") "," MEMBER(       \
	    "[1]") "}"
	static const struct example events[] = {
		{ .decode = CHOICES(EIGHT(TWICE("0")) "," TWICE("0")) },
		{ .decode = CHOICES(EIGHT("{\"index\":0," MEMBER("[1]") "}")),
		    .expected = CHOICES(EIGHT("{\"index\":0," MEMBER("[null,{}]") "}")) },
		{ .decode = NULL },
	};
#undef EIGHT
#undef TWICE

	assert_stream(ECHOED(PLAIN("-1"), "1"), events, false);
}

/* --- any two answers --------------------------------------------------------------------------- */

/* An array of n items, or null, or nothing. */
static void put_array(json_t *object, const char *name, struct rng *rng, uint64_t n) {
	json_t *array = json_array();

	for (uint64_t i = 0; i < n; i++)
		json_array_append_new(array, rng_below(rng, 2) ? json_integer((json_int_t)i) : json_null());
	if (rng_below(rng, 8) == 0)
		json_array_clear(array);
	if (rng_below(rng, 8))
		json_object_set_new(object, name, rng_below(rng, 8) ? json_incref(array) : json_null());
	json_decref(array);
}

static json_t *drawn_choice(struct rng *rng, uint64_t n) {
	static const char *const names[] = { "tokens", "token_logprobs", "top_logprobs" };
	json_t *choice = json_object(), *logprobs = json_object(), *offsets = json_array();

	for (uint64_t i = 0; i < n; i++)
		json_array_append_new(offsets, json_integer((json_int_t)(i * 3)));
	json_object_set_new(logprobs, "text_offset", offsets);
	for (unsigned i = 0; i < n_elems(names); i++)
		put_array(logprobs, names[i], rng, n);
	if (rng_below(rng, 4))
		json_object_set(choice, "logprobs", logprobs);
	put_array(choice, "prompt_logprobs", rng, 2);
	json_decref(logprobs);
	return choice;
}

static json_t *drawn_counts(struct rng *rng, const char *details) {
	json_t *counts = json_object();

	if (rng_below(rng, 4))
		json_object_set_new(counts, "cached_tokens", json_integer((json_int_t)rng_below(rng, 4) - 1));
	if (details) {
		json_t *usage = json_pack("{s:I}", "completion_tokens", (json_int_t)rng_below(rng, 5));
		json_object_set_new(usage, details, rng_below(rng, 4) ? json_incref(counts) : json_null());
		json_decref(counts);
		return usage;
	}
	put_array(counts, "input_token_logprobs", rng, rng_below(rng, 3));
	return counts;
}

static char *drawn_answer(struct rng *rng) {
	static const size_t flags[] = { JSON_COMPACT, 0, JSON_INDENT(3) };
	json_t *answer = json_object(), *choices = json_array();

	for (uint64_t i = rng_below(rng, 3); i > 0; i--)
		json_array_append_new(choices, drawn_choice(rng, rng_below(rng, 5)));
	if (rng_below(rng, 4))
		json_object_set(answer, "choices", choices);
	else
		json_object_set_new(answer, "meta_info", drawn_counts(rng, NULL));
	if (rng_below(rng, 4))
		json_object_set_new(answer, "usage",
		    drawn_counts(rng, rng_below(rng, 2) ? "prompt_tokens_details" : "input_tokens_details"));
	put_array(answer, "prompt_logprobs", rng, 3);
	json_decref(choices);
	char *text = json_dumps(answer, flags[rng_below(rng, n_elems(flags))]);
	json_decref(answer);
	return text;
}

/* Takes out what may be merged, wherever it is. */
static void strip(json_t *value) {
	static const char *const names[] = { "prompt_tokens_details", "input_tokens_details", "cached_tokens",
		"prompt_logprobs", "input_token_logprobs", "tokens", "token_logprobs", "top_logprobs",
		"text_offset" };
	const char *name;
	json_t *member;
	size_t i;

	for (i = 0; i < n_elems(names); i++)
		json_object_del(value, names[i]);
	json_object_foreach(value, name, member) strip(member);
	json_array_foreach(value, i, member) strip(member);
}

static void nothing_else_changes(void **state) {
	unsigned n_merged = 0;
	struct rng rng;

	rng_init(&rng, 6);
	for (unsigned round = 0; round < 20000; round++) {
		char *prefill = drawn_answer(&rng), *decode = drawn_answer(&rng);
		char *text = merged(prefill, decode, 1 + rng_below(&rng, 200));
		if (text) {
			json_t *before = json_loads(decode, 0, NULL);
			json_t *after = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
			if (!after)
				fail_msg("no JSON: %s", text);
			strip(before);
			strip(after);
			assert_true(json_equal(before, after));
			json_decref(before);
			json_decref(after);
			n_merged++;
		}
		free(prefill);
		free(decode);
		free(text);
	}
	assert_in_range(n_merged, 5000, 19000);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cached_tokens_are_of_the_prefill),
		cmocka_unit_test(what_needs_no_count_is_left),
		cmocka_unit_test(prompt_logprobs_are_of_the_prefill),
		cmocka_unit_test(echo_has_the_prompt_of_the_prefill),
		cmocka_unit_test(odd_logprobs_are_left),
		cmocka_unit_test(meta_info_of_sglang),
		cmocka_unit_test(parts_are_bounded),
		cmocka_unit_test(edits_are_bounded),
		cmocka_unit_test(without_memory_it_is_left),
		cmocka_unit_test(events_with_a_count),
		cmocka_unit_test(prompt_logprobs_stand_where_an_event_has_them),
		cmocka_unit_test(echo_has_its_prompt_in_the_first_words),
		cmocka_unit_test(first_words_without_the_prompt_are_left),
		cmocka_unit_test(choices_of_an_event_are_bounded),
		cmocka_unit_test(nothing_else_changes),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
