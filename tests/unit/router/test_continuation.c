#include "unit/router/held.h"

#include "router/continuation.h"

/* --- requests ----------------------------------------------------------------------------- */

struct asked {
	enum continuation_kind kind;
	const char *body, *text;
	uint64_t n_tokens;
	const char *expected; /* NULL: there is nothing left to ask for */
};

#define CHAT  CONTINUATION_CHAT
#define PLAIN CONTINUATION_COMPLETION
#define TAIL  ",\"continue_final_message\":true,\"add_generation_prompt\":false}"

static const struct asked asked[] = {
	{ CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "a b", 2,
	    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"a "
	    "b\"}]" TAIL },
	/* Escapes stay as they are, white space too. */
	{ CHAT, " { \"messages\" : [ {} ] , \"model\":\"m\" } \r\n", "\\n\\\"\\ud83d\\ude00\xc3\xa9", 1,
	    " { \"messages\" : [ {} ,{\"role\":\"assistant\",\"content\":\"\\n\\\"\\ud83d\\ude00\xc3\xa9\"}]"
	    " , \"model\":\"m\" ,\"continue_final_message\":true,\"add_generation_prompt\":false} \r\n" },
	/* Limits before and behind the text, and both. */
	{ CHAT, "{\"max_tokens\":100,\"messages\":[1]}", "t", 7,
	    "{\"max_tokens\":93,\"messages\":[1,{\"role\":\"assistant\",\"content\":\"t\"}]" TAIL },
	{ CHAT, "{\"messages\":[1],\"max_completion_tokens\":8}", "t", 7,
	    "{\"messages\":[1,{\"role\":\"assistant\",\"content\":\"t\"}],\"max_completion_tokens\":1" TAIL },
	{ CHAT, "{\"max_completion_tokens\":12,\"messages\":[1],\"max_tokens\":9}", "t", 2,
	    "{\"max_completion_tokens\":10,\"messages\":[1,{\"role\":\"assistant\",\"content\":\"t\"}],"
	    "\"max_tokens\":7" TAIL },
	{ CHAT, "{\"max_completion_tokens\":12,\"max_tokens\":9,\"messages\":[1]}", "t", 2,
	    "{\"max_completion_tokens\":10,\"max_tokens\":7,\"messages\":[1,{\"role\":\"assistant\","
	    "\"content\":\"t\"}]" TAIL },
	{ CHAT, "{\"messages\":[1],\"max_tokens\":7}", "t", 7, NULL },
	{ CHAT, "{\"messages\":[1],\"max_tokens\":null}", "t", 7,
	    "{\"messages\":[1,{\"role\":\"assistant\",\"content\":\"t\"}],\"max_tokens\":null" TAIL },
	/* The last one of a name counts, as engines have it. */
	{ CHAT, "{\"messages\":[1],\"messages\":[2]}", "t", 1,
	    "{\"messages\":[1],\"messages\":[2,{\"role\":\"assistant\",\"content\":\"t\"}]" TAIL },
	{ PLAIN, "{\"prompt\":\"Say \\\"\",\"max_tokens\":5}", " it\\\"", 3,
	    "{\"prompt\":\"Say \\\" it\\\"\",\"max_tokens\":2}" },
	{ PLAIN, "{\"max_tokens\":5,\"prompt\":\"\"}", "it", 4, "{\"max_tokens\":1,\"prompt\":\"it\"}" },
	{ PLAIN, "{\"max_tokens\":5,\"prompt\":\"\"}", "it", 5, NULL },
};

static void bodies_are_spliced(void **state) {
	for (size_t i = 0; i < n_elems(asked); i++)
		for (size_t step = 1; step <= strlen(asked[i].body); step++) {
			struct hold body = held(slice_of(asked[i].body), step);
			struct hold text = held(slice_of(asked[i].text), 1), out = { .bytes = 0 };
			struct continuation_request r;
			assert_true(continuation_accepts(&r, asked[i].kind, &body));
			bool is_left = continuation_ask(&r, &body, &text, asked[i].n_tokens, &pool, &out);
			assert_int_equal(is_left, asked[i].expected != NULL);
			char *got = text_of(&out);
			if (is_left)
				assert_string_equal(got, asked[i].expected);
			free(got);
			hold_free(&body, &pool);
			hold_free(&text, &pool);
			hold_free(&out, &pool);
		}
}

static bool accepts(enum continuation_kind kind, const char *members) {
	char body[300];
	struct continuation_request r;
	snprintf(body, sizeof(body), "{%s%s}",
	    kind == CHAT ? "\"messages\":[{}]" : "\"prompt\":\"x\",\"max_tokens\":9", members);
	struct hold h = held(slice_of(body), 1000);
	bool good = continuation_accepts(&r, kind, &h);
	hold_free(&h, &pool);
	return good;
}

static void who_is_accepted(void **state) {
	static const char *const good[] = { "", ",\"n\":1", ",\"n\":null", ",\"best_of\":1",
		",\"logprobs\":null", ",\"logprobs\":false", ",\"echo\":false", ",\"suffix\":null",
		",\"suffix\":\"\"", ",\"tools\":[{\"type\":\"function\"}]", ",\"tool_choice\":\"auto\"",
		",\"tool_choice\":\"none\"", ",\"response_format\":null", ",\"min_tokens\":0",
		",\"stream_options\":{\"include_usage\":true}", ",\"temperature\":0.5",
		",\"metadata\":{\"n\":2,\"echo\":true}", ",\"stop\":[\"x\"]", ",\"guided_choice\":[]" };
	static const char *const bad[] = { ",\"n\":2", ",\"n\":\"1\"", ",\"n\":1.5", ",\"best_of\":3",
		",\"n\":2,\"best_of\":1", ",\"logprobs\":true", ",\"logprobs\":5", ",\"top_logprobs\":1",
		",\"echo\":true", ",\"suffix\":\"x\"", ",\"response_format\":{\"type\":\"json_object\"}",
		",\"guided_json\":{\"type\":\"object\"}", ",\"guided_choice\":[\"a\"]",
		",\"structured_outputs\":{\"regex\":\"a\"}", ",\"continue_final_message\":false",
		",\"continue_final_message\":true", ",\"add_generation_prompt\":true",
		",\"add_generation_prompt\":null", ",\"min_tokens\":3", ",\"use_beam_search\":true",
		",\"max_tokens\":\"9\"", ",\"max_tokens\":-1", ",\"max_completion_tokens\":1.5",
		",\"include_stop_str_in_output\":true", ",\"prompt_logprobs\":0.5",
		",\"\\u006eprompt\":1,\"\\u006e\":2" };
	for (unsigned kind = CHAT; kind <= PLAIN; kind++) {
		for (size_t i = 0; i < n_elems(good); i++)
			if (!accepts(kind, good[i]))
				fail_msg("refused: %s", good[i]);
		for (size_t i = 0; i < n_elems(bad); i++)
			if (accepts(kind, bad[i]))
				fail_msg("accepted: %s", bad[i]);
	}
	assert_false(accepts(CHAT, ",\"tool_choice\":\"required\""));
	assert_false(accepts(CHAT, ",\"tool_choice\":{\"type\":\"function\"}"));
	assert_false(accepts(CHAT, ",\"messages\":[]"));
	assert_false(accepts(CHAT, ",\"messages\":\"x\""));
	assert_false(accepts(PLAIN, ",\"prompt\":[\"x\"]"));
	assert_false(accepts(PLAIN, ",\"prompt\":[1,2]"));
	assert_false(accepts(PLAIN, ",\"max_tokens\":null")); /* engines differ in what they take it for */
}

static void no_memory_is_told(void **state) {
	static char text[100000];
	struct continuation_request r;
	struct hold body = held(SLICE("{\"messages\":[1]}"), 100), out = { .bytes = 0 }, said;
	memset(text, 'a', sizeof(text));
	said = held((struct slice){ text, sizeof(text) }, 64);
	assert_true(continuation_accepts(&r, CHAT, &body));
	buf_pool_report(&pool);
	budget.max_bytes = budget.used_bytes + 1000;
	assert_false(continuation_ask(&r, &body, &said, 1, &pool, &out));
	budget.max_bytes = 16u << 20;
	hold_free(&body, &pool);
	hold_free(&said, &pool);
	hold_free(&out, &pool);
}

/* --- events --------------------------------------------------------------------------------- */

/* The event as it goes on. */
static const char *take(struct continuation *c, const char *event) {
	static char text[2000];
	struct continuation_event out;
	char *exact = malloc(strlen(event) + 1); /* in memory of its own */
	size_t n = 0;
	memcpy(exact, event, strlen(event));
	if (!continuation_take(c, (struct slice){ exact, strlen(event) }, &out)) {
		free(exact);
		return NULL;
	}
	for (unsigned i = 0; i < out.n_parts; i++) {
		memcpy(text + n, out.parts[i].p, out.parts[i].n);
		n += out.parts[i].n;
	}
	text[n] = '\0';
	free(exact);
	return text;
}

static struct slice said(struct continuation *c, const char *event) {
	struct continuation_event out;
	assert_true(continuation_take(c, slice_of(event), &out));
	return out.text;
}

#define DELTA(id, content)                                                                                   \
	"data: {\"id\":\"" id "\",\"created\":" id ",\"model\":\"m" id "\",\"choices\":[{\"index\":0,"       \
	"\"delta\":{\"content\":\"" content "\"},\"finish_reason\":null}]}\n\n"
#define ROLE(id)                                                                                             \
	"data: {\"id\":\"" id "\",\"created\":" id                                                           \
	",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
#define USAGE(id, in, out, all)                                                                              \
	"data: {\"id\":\"" id "\",\"choices\":[],\"usage\":{\"prompt_tokens\":" in ",\"total_tokens\":" all  \
	",\"completion_tokens\":" out ",\"prompt_tokens_details\":{\"cached_tokens\":9}}}\n\n"
#define END "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"

static void the_first_stream_is_passed(void **state) {
	static const char *const events[] = { ROLE("1"), DELTA("1", "a"), ": c\n\n", "\n",
		"event: x\nid: 3\ndata: {\"a\":1}\r\n\r\n", USAGE("1", "9", "2", "11"), END,
		"data: [DONE]\n\n", "data:{\"choices\":[{\"text\":\"a\"}]}\n\n" };
	struct continuation c;
	continuation_init(&c, CHAT);
	for (size_t i = 0; i < n_elems(events); i++)
		assert_string_equal(take(&c, events[i]), events[i]);
	assert_int_equal(c.n_tokens, 2); /* its usage counts */
}

static void text_is_as_it_was_escaped(void **state) {
	struct continuation c;
	continuation_init(&c, CHAT);
	assert_true(slice_eq(said(&c, DELTA("1", "a\\\"\\u00e9\\\\")), SLICE("a\\\"\\u00e9\\\\")));
	assert_true(slice_eq(said(&c, ROLE("1")), SLICE("")));
	assert_true(slice_eq(said(&c, "data: {\"choices\":[{\"text\":\"b\"}]}\n\n"), SLICE("")));
	assert_int_equal(c.n_tokens, 1);
	continuation_init(&c, PLAIN);
	assert_true(slice_eq(said(&c, "data: {\"choices\":[{\"text\":\"b\"}]}\r\n\r\n"), SLICE("b")));
	assert_true(continuation_is_possible(&c));
}

static void what_can_be_gone_on_with(void **state) {
	struct continuation c;
	static const char *const ends[] = { END, "data: [DONE]\n\n", "data: {\"error\":{\"code\":1}}\n\n",
		"data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}\n\n",
		"data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"x\"}}]}\n\n",
		"data: {\"choices\":[{\"delta\":{\"reasoning\":\"x\"}}]}\n\n",
		"data: {\"choices\":[{\"delta\":{\"refusal\":\"x\"}}]}\n\n", DELTA("1", "a\xe2\x82"),
		DELTA("1", "\xff"), DELTA("1", "\xed\xa0\x80") };
	static const char *const nothing[] = { "data: {\"choices\":[{\"delta\":{\"tool_calls\":[]}}]}\n\n",
		"data: {\"choices\":[{\"delta\":{\"reasoning_content\":null}}]}\n\n",
		"data: {\"error\":null}\n\n", ": x\n\n", ROLE("1") };
	static const struct {
		const char *text;
		bool is_possible;
	} texts[] = { { "\\ud83d", false }, { "a\\uDBff", false }, { "\\\\ud83d", true },
		{ "\\\\\\ud83d", false }, { "\\ude00", true }, { "\\ud83d\\ude00", true },
		{ "\\u00e9", true }, { "xud83d", true }, { "\xe2\x82\xac", true } };

	continuation_init(&c, CHAT);
	take(&c, ROLE("1"));
	assert_false(continuation_is_possible(&c)); /* it said nothing yet */
	take(&c, DELTA("1", "a"));
	for (size_t i = 0; i < n_elems(nothing); i++)
		take(&c, nothing[i]);
	assert_true(continuation_is_possible(&c));
	for (size_t i = 0; i < n_elems(ends); i++) {
		struct continuation copy = c;
		take(&copy, ends[i]);
		if (continuation_is_possible(&copy))
			fail_msg("goes on after %s", ends[i]);
	}
	for (size_t i = 0; i < n_elems(texts); i++) {
		char event[200];
		snprintf(event, sizeof(event), "data: {\"choices\":[{\"delta\":{\"content\":\"%s\"}}]}\n\n",
		    texts[i].text);
		take(&c, event);
		if (continuation_is_possible(&c) != texts[i].is_possible)
			fail_msg("%s", texts[i].text);
		take(&c, ROLE("1")); /* an event without text changes nothing */
		assert_int_equal(continuation_is_possible(&c), texts[i].is_possible);
	}
}

static void other_streams_look_like_the_first(void **state) {
	struct continuation c;
	continuation_init(&c, CHAT);
	take(&c, ROLE("1"));
	take(&c, DELTA("1", "a"));
	take(&c, DELTA("1", "b"));
	continuation_resume(&c);
	assert_string_equal(take(&c, ROLE("77")), "");
	assert_string_equal(take(&c, DELTA("77", "c")), DELTA("1", "c"));
	assert_string_equal(take(&c, ": x\n\n"), ": x\n\n");
	assert_string_equal(take(&c, END), END);
	/* Its prompt was longer by what had been said. */
	assert_string_equal(take(&c, USAGE("77", "12", "3", "15")), USAGE("1", "10", "5", "15"));
	assert_string_equal(take(&c, "data: [DONE]\n\n"), "data: [DONE]\n\n");
	assert_int_equal(c.n_tokens, 5);
}

static void usage_of_the_first_counts_where_it_is_known(void **state) {
	struct continuation c;
	continuation_init(&c, CHAT);
	take(&c,
	    "data: {\"choices\":[{\"delta\":{\"content\":\"a b\"}}],"
	    "\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":4,\"total_tokens\":12}}\n\n");
	assert_int_equal(c.n_tokens, 4);
	continuation_resume(&c);
	assert_string_equal(take(&c, USAGE("77", "20", "3", "23")),
	    "data: {\"id\":\"77\",\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"total_tokens\":15"
	    ",\"completion_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\n");
}

static void a_third_stream(void **state) {
	struct continuation c;
	continuation_init(&c, CHAT);
	take(&c, DELTA("1", "a"));
	continuation_resume(&c);
	take(&c, DELTA("2", "b"));
	continuation_resume(&c);
	assert_string_equal(take(&c, DELTA("3", "c")), DELTA("1", "c"));
	assert_string_equal(take(&c, USAGE("3", "32", "1", "33")), USAGE("1", "30", "3", "33"));
}

static void what_is_not_understood(void **state) {
	struct continuation c;
	char longest[900];
	continuation_init(&c, CHAT);
	assert_null(take(&c, "data: {\"a\":\ndata: 1}\n\n"));
	assert_null(take(&c, "data: {\"a\":\n\n"));
	assert_null(take(&c, "data: hello\n\n"));
	memset(longest, 'a', sizeof(longest));
	memcpy(longest, "data: {\"id\":\"", 13);
	snprintf(longest + 700, sizeof(longest) - 700, "\"}\n\n");
	assert_null(take(&c, longest));
}

/* Usage that counts less than what was said, or is not all there, makes no nonsense. */
static void odd_usage(void **state) {
	struct continuation c;
	continuation_init(&c, CHAT);
	take(&c, DELTA("1", "a"));
	take(&c, DELTA("1", "a"));
	continuation_resume(&c);
	assert_string_equal(take(&c, "data: {\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n"),
	    "data: {\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":3}}\n\n");
	assert_string_equal(take(&c, "data: {\"usage\":{\"completion_tokens\":1}}\n\n"),
	    "data: {\"usage\":{\"completion_tokens\":3}}\n\n");
	assert_string_equal(take(&c, "data: {\"usage\":{\"completion_tokens\":-1}}\n\n"),
	    "data: {\"usage\":{\"completion_tokens\":-1}}\n\n");
	assert_string_equal(take(&c, "data: {\"usage\":null}\n\n"), "data: {\"usage\":null}\n\n");
	assert_string_equal(
	    take(&c,
		"data: {\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":18446744073709551615,"
		"\"total_tokens\":1}}\n\n"),
	    "data: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":18446744073709551615,"
	    "\"total_tokens\":18446744073709551615}}\n\n");
	take(&c, DELTA("1", "a"));
	assert_true(c.n_tokens == UINT64_MAX);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bodies_are_spliced),
		cmocka_unit_test(who_is_accepted),
		cmocka_unit_test(no_memory_is_told),
		cmocka_unit_test(the_first_stream_is_passed),
		cmocka_unit_test(text_is_as_it_was_escaped),
		cmocka_unit_test(what_can_be_gone_on_with),
		cmocka_unit_test(other_streams_look_like_the_first),
		cmocka_unit_test(usage_of_the_first_counts_where_it_is_known),
		cmocka_unit_test(a_third_stream),
		cmocka_unit_test(what_is_not_understood),
		cmocka_unit_test(odd_usage),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
