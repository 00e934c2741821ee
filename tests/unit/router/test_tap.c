#include "unit/unit.h"

#include <jansson.h>

#include "router/inspect.h"
#include "router/tap.h"

static struct buf_budget budget;
static struct buf_pool pool;
static struct tap_scratch scratch;

static int setup(void **state) {
	budget = (struct buf_budget){ .max_bytes = 1u << 20 };
	buf_pool_init(&pool, &budget);
	tap_scratch_init(&scratch, &pool);
	return 0;
}

static int teardown(void **state) {
	tap_scratch_deinit(&scratch, &pool);
	buf_pool_deinit(&pool);
	return budget.used_bytes != 0;
}

static void begin(struct tap *t, const char *fields) {
	char text[300];
	struct head_room room;
	int n = snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n%s\r\n", fields);
	assert_int_equal(head_parse_response(&room, (struct slice){ text, (size_t)n }, METHOD_POST), 0);
	tap_init(t, &room.head);
}

/* Feeds a part, in memory of its own. */
static struct tap_news feed_news(struct tap *t, struct slice part) {
	char *exact = malloc(part.n + !part.n);
	memcpy(exact, part.p, part.n);
	struct piece pieces[2] = { { exact, part.n / 2, NULL },
		{ exact + part.n / 2, part.n - part.n / 2, NULL } };
	struct tap_news news = tap_feed(t, &scratch, &pool, pieces, 2);
	free(exact);
	return news;
}

/* How many content events end in it. */
static unsigned feed(struct tap *t, struct slice part) {
	return feed_news(t, part).n_content;
}

/* What a tap learns of an answer. */
struct lesson {
	uint64_t tokens_in, tokens_out;
	unsigned n_events;
	bool has_usage, is_done;
};

/* Listens to the whole answer: `first` bytes, then `step` at a time. */
static struct lesson listen_to(const char *fields, struct slice text, size_t first, size_t step) {
	struct tap t;
	begin(&t, fields);
	unsigned n_events = feed(&t, slice_head(text, first));
	for (size_t at = first; at < text.n; at += step)
		n_events += feed(&t, slice_head(slice_skip(text, at), step));
	tap_finish(&t, &scratch, &pool);
	assert_null(t.saved);
	assert_int_equal(n_events, t.n_events);
	struct lesson lesson = { t.tokens_in, t.tokens_out, t.n_events, t.has_usage, t.is_done };
	tap_deinit(&t, &pool);
	return lesson;
}

/* --- event streams -------------------------------------------------------------------- */

#define EVENTS "Content-Type: text/event-stream\r\n"

static const struct row {
	const char *text;
	struct lesson lesson; /* tokens in, out, content events, usage, done */
} streams[] = {
	/* OpenAI's chat and completions */
	{ "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n"
	  "data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n"
	  "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":2,"
	  "\"prompt_tokens_details\":{\"cached_tokens\":7}}}\n\n"
	  "data: [DONE]\n\n",
	    { 11, 2, 2, true, true } },
	{ "data:{\"choices\":[{\"text\":\"a\"}]}\n\ndata:[DONE]\n\n", { 0, 0, 1, false, true } },
	{ "data:   {\"choices\":[{\"text\":\"a\"}]}\r\n\r\ndata:   [DONE]\r\n\r\n",
	    { 0, 0, 1, false, true } },
	{ "data: {\"choices\":[{\"text\":\"a\"}]}\n\n", { 0, 0, 1, false, false } },
	/* OpenAI's responses */
	{ "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n"
	  "event: response.output_text.delta\ndata: "
	  "{\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n"
	  "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":"
	  "{\"input_tokens\":5,\"output_tokens\":6}}}\n\n",
	    { 5, 6, 1, true, true } },
	/* which may end early, or fail */
	{ "data: {\"type\":\"response.incomplete\",\"response\":{\"incomplete_details\":"
	  "{\"reason\":\"max_output_tokens\"},\"usage\":{\"input_tokens\":5,\"output_tokens\":6,"
	  "\"input_tokens_details\":{\"cached_tokens\":4}}}}\n\n",
	    { 5, 6, 0, true, true } },
	{ "data: {\"type\":\"response.failed\",\"response\":{\"error\":{},\"usage\":null}}\n\n",
	    { 0, 0, 0, false, true } },
	{ "data: {\"type\":\"response.in_progress\"}\n\n", { 0, 0, 0, false, false } },
	/* Anthropic's messages */
	{ "event: message_start\ndata: "
	  "{\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,"
	  "\"output_tokens\":1}}}\n\n"
	  "event: ping\ndata: {\"type\": \"ping\"}\n\n"
	  "event: content_block_delta\ndata: "
	  "{\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\n"
	  "event: content_block_delta\ndata: "
	  "{\"type\":\"content_block_delta\",\"delta\":{\"text\":\"b\"}}\n\n"
	  "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\n\n"
	  "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
	    { 9, 15, 2, true, true } },
	/* whose prompt is what was read, what came from the cache and what went into it */
	{ "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,"
	  "\"cache_creation_input_tokens\":100,\"cache_read_input_tokens\":2000,"
	  "\"output_tokens\":1}}}\n\n"
	  "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\n\n",
	    { 2109, 15, 0, true, false } },
	{ "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"cache_read_input_tokens\":2000,"
	  "\"cache_creation_input_tokens\":null,\"input_tokens\":9}}}\n\n"
	  "data: {\"type\":\"message_delta\",\"usage\":{\"cache_read_input_tokens\":2000,"
	  "\"cache_creation_input_tokens\":0,\"input_tokens\":9,\"output_tokens\":15}}\n\n",
	    { 2009, 15, 0, true, false } },
	{ "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,"
	  "\"cache_creation_input_tokens\":100}}}\n\n"
	  "data: {\"type\":\"message_delta\",\"usage\":{\"cache_read_input_tokens\":7,"
	  "\"output_tokens\":15}}\n\n",
	    { 109, 15, 0, true, false } },
	/* [DONE] counts as a whole value at the start of a line alone */
	{ "data: {\"choices\":[{\"text\":\"data: [DONE]\\n\\ndata: [DONE]\"}]}\n\n",
	    { 0, 0, 1, false, false } },
	{ "data: x[DONE]\n\n", { 0, 0, 0, false, false } },
	{ "data: [DONE]x\n\n", { 0, 0, 0, false, false } },
	{ "data: [DONE\n\n]\n\n", { 0, 0, 0, false, false } },
	{ "data: [[DONE]]\n\n", { 0, 0, 0, false, false } },
	{ ": [DONE]\n\nevent: [DONE]\n\n[DONE]\n\n", { 0, 0, 0, false, false } },
	{ " data: [DONE]\n\n", { 0, 0, 0, false, false } },
	{ "xdata: [DONE]\n\n", { 0, 0, 0, false, false } },
	/* comments, other fields, names that only look alike */
	{ ": keep-alive\n\nid: 7\nretry: 3\n\ndat: {\"choices\":[{\"text\":\"a\"}]}\n\ndatas: {}\n\ndata\n\n",
	    { 0, 0, 0, false, false } },
	{ "data:\n\ndata: \n\ndata:\r\n\r\ndata: \r\n\r\n", { 0, 0, 0, false, false } },
	/* one event, its data on several lines */
	{ "data: {\"choices\":[{\"text\":\"a\"}],\ndata: "
	  "\"usage\":{\"completion_tokens\":3,\ndata:\"prompt_tokens\":4}}\n\n",
	    { 4, 3, 1, true, false } },
	{ "data: {\"choices\":[{\"text\":\"a\"}],\r\nid: 1\r\ndata: "
	  "\"usage\":{\"completion_tokens\":3}}\r\n\r\n",
	    { 0, 3, 1, true, false } },
	/* an event that is cut off does not count */
	{ "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"a\"}]}\n",
	    { 0, 0, 1, false, false } },
	/* what is no JSON is no content */
	{ "data: hello\n\ndata: {oops}\n\ndata: {\"choices\":[{\"text\":\"a\"}]}\n\n",
	    { 0, 0, 1, false, false } },
	{ "data: {\"choices\":[{\"text\":\"a\"}]\n\ndata: {oops}\ndata: {\"choices\":[{\"text\":\"a\"}]}\n\n",
	    { 0, 0, 0, false, false } },
	{ "data: {\"usage\":{\"completion_tokens\":3},\"x\":\"\r\n\r\n", { 0, 0, 0, false, false } },
	{ "data: {\"x\":\"a\r\ndata: b\",\"choices\":[{\"text\":\"a\"}]}\r\n\r\n",
	    { 0, 0, 0, false, false } },
	/* numbers that are none */
	{ "data: {\"choices\":[],\"usage\":{\"completion_tokens\":-3,\"prompt_tokens\":\"4\"}}\n\n",
	    { 0, 0, 0, false, false } },
	{ "\n\n\r\n\n", { 0, 0, 0, false, false } },
	{ "", { 0, 0, 0, false, false } },
};

static void assert_learns(const struct row *row, const char *fields, size_t first, size_t step) {
	struct lesson l = listen_to(fields, slice_of(row->text), first, step);
	const struct lesson *e = &row->lesson;
	if (l.tokens_in != e->tokens_in || l.tokens_out != e->tokens_out || l.n_events != e->n_events ||
	    l.has_usage != e->has_usage || l.is_done != e->is_done)
		fail_msg("in %u, out %u, %u events, usage %d, done %d (parts of %zu, %zu): %s",
		    (unsigned)l.tokens_in, (unsigned)l.tokens_out, l.n_events, l.has_usage, l.is_done, first,
		    step, row->text);
}

/* One lesson from one stream, however it is cut. */
static void streams_are_understood_in_any_parts(void **state) {
	for (size_t i = 0; i < n_elems(streams); i++) {
		size_t n = strlen(streams[i].text);
		for (size_t first = 0; first <= n; first++)
			assert_learns(&streams[i], EVENTS, first, n + 1);
		for (size_t step = 1; step < 6; step++)
			assert_learns(&streams[i], EVENTS, 0, step);
	}
}

/* --- content ---------------------------------------------------------------------------- */

#define CHOICE(rest) "{\"id\":\"c-1\",\"choices\":[{\"index\":0," rest "}],\"usage\":null}"

/* Events as the engines send them; with content, or without. */
static const struct {
	const char *json;
	bool has_content;
} events[] = {
	/* vLLM */
	{ CHOICE("\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null"), false },
	{ CHOICE("\"delta\":{\"content\":\" a\"},\"logprobs\":null,\"finish_reason\":null"), true },
	{ CHOICE("\"delta\":{\"content\":\"\\n\"},\"finish_reason\":\"length\""), true },
	{ CHOICE("\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\",\"stop_reason\":null"), false },
	{ CHOICE("\"delta\":{\"reasoning_content\":\"Hm\"},\"finish_reason\":null"), true },
	{ CHOICE("\"delta\":{\"reasoning\":\"Hm\",\"reasoning_content\":null}"), true },
	{ CHOICE("\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\"}}]}"), true },
	{ CHOICE("\"delta\":{\"content\":null,\"tool_calls\":[]}"), false },
	{ CHOICE("\"text\":\" a\",\"logprobs\":null,\"finish_reason\":null"), true },
	{ CHOICE("\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\""), false },
	{ CHOICE("\"token_ids\":[17],\"finish_reason\":null"), true },
	{ CHOICE("\"token_ids\":[],\"finish_reason\":\"stop\""), false },
	{ "{\"choices\":[],\"usage\":{\"total_tokens\":3}}", false },
	{ "{\"error\":{\"message\":\"text\",\"code\":400}}", false },
	/* SGLang */
	{ CHOICE("\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":null,"
		 "\"tool_calls\":null},\"matched_stop\":null"),
	    false },
	{ CHOICE("\"delta\":{\"role\":null,\"content\":\" a\",\"reasoning_content\":null,"
		 "\"tool_calls\":null},\"matched_stop\":null"),
	    true },
	{ CHOICE(
	      "\"delta\":{\"role\":null,\"content\":null,\"reasoning_content\":\"Hm\",\"tool_calls\":null}"),
	    true },
	{ CHOICE("\"delta\":{\"role\":null,\"content\":null,\"reasoning_content\":null,"
		 "\"tool_calls\":null},\"finish_reason\":\"stop\",\"matched_stop\":2"),
	    false },
	{ "{\"text\":\" a\",\"output_ids\":[17],\"meta_info\":{\"finish_reason\":null}}", true },
	/* llama.cpp */
	{ "{\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"role\":\"assistant\","
	  "\"content\":null}}],\"object\":\"chat.completion.chunk\"}",
	    false },
	{ "{\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"content\":\"a\"}}],\"id\":\"c\"}",
	    true },
	{ "{\"choices\":[{\"finish_reason\":\"stop\",\"index\":0,\"delta\":{}}],\"timings\":{\"predicted_n\":"
	  "4}}",
	    false },
	{ "{\"index\":0,\"content\":\" a\",\"tokens\":[17],\"stop\":false}", true },
	{ "{\"index\":0,\"content\":\"\",\"tokens\":[],\"stop\":true}", false },
	/* OpenAI */
	{ CHOICE("\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null"),
	    false },
	{ CHOICE("\"delta\":{\"refusal\":\"No\"}"), true },
	{ CHOICE("\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\""), false },
	{ CHOICE("\"delta\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"index\":0,"
		 "\"id\":\"call_1\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}"),
	    true },
	{ "{\"type\":\"response.output_item.added\",\"item\":{\"content\":[]}}", false },
	{ "{\"type\":\"response.output_text.delta\",\"item_id\":\"m\",\"delta\":\"a\",\"logprobs\":[]}",
	    true },
	{ "{\"type\":\"response.output_text.delta\",\"item_id\":\"m\",\"delta\":\"\"}", false },
	{ "{\"type\":\"response.reasoning_summary_text.delta\",\"delta\":\"Hm\"}", true },
	{ "{\"type\":\"response.function_call_arguments.delta\",\"delta\":\"{\"}", true },
	{ "{\"type\":\"response.output_text.done\",\"text\":\"a\"}", false },
	/* Anthropic */
	{ "{\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"\"}}", false },
	{ "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}", true },
	{ "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"Hm\"}}",
	    true },
	{ "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\"}"
	  "}",
	    false },
	{ "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\"}"
	  "}",
	    true },
	{ "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"signature_delta\",\"signature\":\"xyz\"}}",
	    false },
	{ "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{}}", false },
	/* what only looks alike */
	{ "{\"choices\":[{\"delta\":[{\"content\":\"a\"}]}]}", false },
	{ "{\"choices\":{\"delta\":{\"content\":\"a\"}}}", false },
	{ "{\"choices\":{\"[]\":{\"delta\":{\"content\":\"a\"}}}}", false },
	{ "{\"choices\":[[{\"delta\":{\"content\":\"a\"}}]]}", false },
	{ "{\"choices\":[{\"message\":{\"content\":\"a\"}}]}", false },
	{ "{\"x\":{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}}", false },
	{ "{\"choices\":[{\"delta\":{\"content\":12345}}]}", false },
	{ "[{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}]", false },
};

/* The client's first token, and the estimate: what the model said and nothing else, in any parts. */
static void only_what_the_model_said_is_counted(void **state) {
	for (size_t i = 0; i < n_elems(events); i++) {
		char text[400];
		int n = snprintf(text, sizeof(text), "data: %s\n\n", events[i].json);
		assert_true(n > 0 && (size_t)n < sizeof(text));
		struct row row = { text, { 0, 0, events[i].has_content, false, false } };
		for (int first = 0; first <= n; first++)
			assert_learns(&row, EVENTS, (size_t)first, (size_t)n + 1);
		assert_learns(&row, EVENTS, 0, 1);
	}
}

/* A stream without usage, from its role to its end: as many as there were tokens. */
static void a_stream_is_estimated(void **state) {
	static const struct row row = {
		"data: " CHOICE(
		    "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}") "\n\n"
									   "data: " CHOICE(
									       "\"delta\":{\"content\":"
									       "\"a\"}") "\n\n"
											 "data: " CHOICE(
											     "\"delta\":{"
											     "\"content\":\" "
											     "b\"}") "\n\n"
												     "data:"
												     " " CHOICE(
													 "\"d"
													 "elt"
													 "a\""
													 ":{}"
													 ",\""
													 "fin"
													 "ish"
													 "_re"
													 "aso"
													 "n\""
													 ":\""
													 "sto"
													 "p"
													 "\"") "\n\n"
													       "data: [DONE]\n\n",
		{ 0, 0, 2, false, true },
	};
	for (size_t step = 1; step <= strlen(row.text); step++)
		assert_learns(&row, EVENTS, 0, step);
}

/* An error event may be said where an event has ended, nowhere else. */
static void boundaries_are_known(void **state) {
	for (size_t i = 0; i < n_elems(streams); i++) {
		const char *text = streams[i].text;
		struct tap t;
		bool is_line_empty = true;
		begin(&t, EVENTS);
		assert_true(t.at_boundary);
		for (size_t n = 0; text[n]; n++) {
			bool expected = text[n] == '\n' && is_line_empty;
			is_line_empty = text[n] == '\n' || (is_line_empty && text[n] == '\r');
			feed(&t, (struct slice){ text + n, 1 });
			if (t.at_boundary != expected)
				fail_msg("after %zu bytes of %s", n + 1, text);
		}
		tap_deinit(&t, &pool);
	}
}

/* The thread's scanner is lent to a stream only while an event is cut. */
static void streams_share_a_scanner(void **state) {
	static const char *const texts[] = {
		"data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"completion_tokens\":1}}\n\n",
		"data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"completion_tokens\":22}}\n\n",
		"data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"completion_tokens\":333}}\n\n"
	};
	struct tap taps[3];
	buf_pool_report(&pool);
	uint64_t before = budget.used_bytes;
	for (size_t k = 0; k < 3; k++)
		begin(&taps[k], EVENTS);
	for (size_t i = 0; i < 100; i++) {
		for (size_t k = 0; k < 3; k++)
			if (i < strlen(texts[k]))
				feed(&taps[k], (struct slice){ texts[k] + i, 1 });
		if (i == 20)
			assert_true(taps[0].saved && taps[1].saved && taps[2].saved);
	}
	assert_int_equal(taps[0].tokens_out, 1);
	assert_int_equal(taps[1].tokens_out, 22);
	assert_int_equal(taps[2].tokens_out, 333);
	for (size_t k = 0; k < 3; k++)
		assert_null(taps[k].saved);
	buf_pool_report(&pool);
	assert_int_equal(budget.used_bytes, before);
}

/* --- JSON ------------------------------------------------------------------------------ */

static void documents_are_read(void **state) {
	static const struct row documents[] = {
		{ "{\"choices\":[{\"message\":{}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}",
		    { 3, 4, 0, true, false } },
		{ "{\"type\":\"message\",\"usage\":{\"input_tokens\":5,\"output_tokens\":6}}\n",
		    { 5, 6, 0, true, false } },
		{ "{\"type\":\"message\",\"usage\":{\"input_tokens\":5,\"output_tokens\":6,"
		  "\"cache_creation_input_tokens\":20,\"cache_read_input_tokens\":300}}",
		    { 325, 6, 0, true, false } },
		/* in the other dialects the cached ones are among the counted */
		{ "{\"object\":\"response\",\"usage\":{\"input_tokens\":5,\"input_tokens_details\":"
		  "{\"cached_tokens\":4},\"output_tokens\":6}}",
		    { 5, 6, 0, true, false } },
		{ "{\"object\":\"list\",\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}",
		    { 8, 0, 0, false, false } },
		{ "{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}", { 3, 4, 0, true, false } },
		{ "{\"x\":{\"usage\":{\"completion_tokens\":4}}}", { 0, 0, 0, false, false } },
		{ "{\"usage\":{\"completion_tokens\":4.5}}", { 0, 0, 0, false, false } },
		{ "data: [DONE]\n\n", { 0, 0, 0, false, false } },
		{ "", { 0, 0, 0, false, false } },
	};
	for (size_t i = 0; i < n_elems(documents); i++) {
		size_t n = strlen(documents[i].text);
		for (size_t first = 0; first <= n; first++)
			assert_learns(&documents[i], "Content-Type: application/json\r\n", first, n + 1);
		assert_learns(&documents[i], "Content-Type: application/json; charset=utf-8\r\n", 0, 1);
	}
}

static void only_plain_answers_of_two_types_are_read(void **state) {
	static const struct {
		const char *fields;
		enum tap_kind kind;
	} heads[] = {
		{ EVENTS, TAP_EVENTS },
		{ "Content-Type: Text/Event-Stream; charset=utf-8\r\n", TAP_EVENTS },
		{ "Content-Type: APPLICATION/JSON\r\nContent-Encoding: Identity\r\n", TAP_JSON },
		{ EVENTS "Content-Encoding: gzip\r\n", TAP_NONE },
		{ "Content-Type: application/json\r\nContent-Encoding: br\r\n", TAP_NONE },
		{ "Content-Type: text/html\r\n", TAP_NONE },
		{ "Content-Type: text/event\r\n", TAP_NONE },
		{ "", TAP_NONE },
	};
	for (size_t i = 0; i < n_elems(heads); i++) {
		struct tap t;
		begin(&t, heads[i].fields);
		assert_int_equal(t.kind, heads[i].kind);
		if (t.kind == TAP_NONE) {
			assert_int_equal(
			    feed(&t, SLICE("data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n")), 0);
			assert_false(t.is_done);
		}
		tap_finish(&t, &scratch, &pool);
		tap_deinit(&t, &pool);
	}
}

/* --- the id of a response ---------------------------------------------------------------- */

#define JSON "Content-Type: application/json\r\n"

/* What is found in the parts of an answer, which is listened to as a response, or not. */
static uint64_t id_in(const char *fields, struct slice text, size_t first, size_t step, bool is_response) {
	uint64_t found = 0;
	struct tap t;
	begin(&t, fields);
	t.seeks_response = is_response;
	for (size_t at = 0, n = first; at < text.n; at += n, n = step) {
		uint64_t response = feed_news(&t, slice_head(slice_skip(text, at), n)).response;
		assert_true(!found || !response); /* it is told once */
		found |= response;
	}
	found |= tap_finish(&t, &scratch, &pool).response;
	assert_int_equal(t.seeks_response, is_response && !found);
	tap_deinit(&t, &pool);
	return found;
}

static void assert_id(const char *fields, const char *answer, const char *id) {
	struct slice text = slice_of(answer);
	uint64_t hash = id ? inspect_id_hash(slice_of(id)) : 0;
	for (size_t first = 0; first <= text.n; first++)
		assert_int_equal(id_in(fields, text, first, text.n + 1, true), hash);
	for (size_t step = 1; step < 6; step++)
		assert_int_equal(id_in(fields, text, step, step, true), hash);
	assert_int_equal(id_in(fields, text, text.n, 1, false), 0);
}

static void the_id_of_a_response_is_found(void **state) {
	assert_id(JSON,
	    "{\"id\":\"resp_1\",\"object\":\"response\",\"output\":[{\"id\":\"msg_2\"}],\"usage\":{}}",
	    "resp_1");
	assert_id(JSON,
	    "{\"output\":[{\"id\":\"msg_2\"}],\"response\":{\"id\":\"no\"},\"i\\u0064\":\"a\\/b\"}", "a/b");
	assert_id(JSON, "{\"output\":[{\"id\":\"msg_2\"}]}", NULL);
	assert_id(JSON, "{\"id\":7}", NULL);
	assert_id(JSON, "{\"id\":\"\"}", NULL);
	assert_id(JSON, "{\"id\":null,\"usage\":{\"input_tokens\":3}}", NULL);
	assert_id(EVENTS,
	    "event: response.created\ndata: {\"type\":\"response.created\",\"id\":\"no\",\"response\":"
	    "{\"id\":\"resp_1\",\"usage\":null}}\n\n"
	    "data: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\",\"delta\":\"a\"}\n\n"
	    "data: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_other\"}}\n\n",
	    "resp_1");
	/* as soon as one has it */
	assert_id(EVENTS, ": hello\n\ndata: {\"id\":\"x\"}\n\ndata: {\"response\":{\"id\":\"r\"}}\n\n", "r");
	assert_id(EVENTS, "data: {\"response\":{\"id\":\"r\"}}\n", NULL);
	assert_id(EVENTS "Content-Encoding: gzip\r\n", "data: {\"response\":{\"id\":\"r\"}}\n\n", NULL);
}

/* What is sought beside the tokens changes nothing of them. */
static void tokens_are_counted_all_the_same(void **state) {
	for (size_t i = 0; i < n_elems(streams); i++) {
		struct tap t;
		begin(&t, EVENTS);
		t.seeks_response = true;
		feed(&t, slice_of(streams[i].text));
		tap_finish(&t, &scratch, &pool);
		assert_int_equal(t.n_events, streams[i].lesson.n_events);
		assert_int_equal(t.tokens_in, streams[i].lesson.tokens_in);
		assert_int_equal(t.tokens_out, streams[i].lesson.tokens_out);
		assert_int_equal(t.is_done, streams[i].lesson.is_done);
		tap_deinit(&t, &pool);
	}
	struct tap t;
	begin(&t, EVENTS);
	t.seeks_response = true;
	assert_int_equal(
	    feed(&t, SLICE("data: {\"id\":\"a long id\",\"response\":{\"id\":\"another\"}}\n\n")), 0);
	tap_finish(&t, &scratch, &pool);
	tap_deinit(&t, &pool);
}

/* --- the error event -------------------------------------------------------------------- */

static void a_cut_stream_is_told_in_its_dialect(void **state) {
	static const struct {
		enum reply_dialect dialect;
		const char *prefix, *path[3];
	} dialects[] = {
		{ REPLY_OPENAI, "data: ", { "error", "code" } },
		{ REPLY_ANTHROPIC, "event: error\ndata: ", { "error", "code" } },
		{ REPLY_RESPONSES, "event: response.failed\ndata: ", { "response", "error", "code" } },
	};
	for (size_t i = 0; i < n_elems(dialects); i++) {
		struct slice prefix = slice_of(dialects[i].prefix);
		char *event = tap_error_event(CAUSE_STREAM_BROKEN, dialects[i].dialect);
		struct slice text = slice_of(event);
		assert_true(slice_has_prefix(text, prefix));
		assert_true(slice_eq(slice_skip(text, text.n - 2), SLICE("\n\n")));
		text = slice_skip(slice_head(text, text.n - 2), prefix.n);
		assert_null(memchr(text.p, '\n', text.n));
		json_t *json = json_loadb(text.p, text.n, 0, NULL), *at = json;
		for (size_t k = 0; k < 3 && dialects[i].path[k]; k++)
			at = json_object_get(at, dialects[i].path[k]);
		assert_string_equal(json_string_value(at), "upstream_failed");
		if (dialects[i].dialect == REPLY_RESPONSES)
			assert_string_equal(
			    json_string_value(json_object_get(json, "type")), "response.failed");
		json_decref(json);
		free(event);
	}
}

/* --- refusals ------------------------------------------------------------------------- */

static bool is_of_request(const char *status, const char *type, struct slice text, size_t step) {
	char head[300];
	struct head_room room;
	struct tap t;
	int n = snprintf(head, sizeof(head), "HTTP/1.1 %s\r\ncontent-type: %s\r\n\r\n", status, type);
	assert_int_equal(head_parse_response(&room, (struct slice){ head, (size_t)n }, METHOD_POST), 0);
	tap_init(&t, &room.head);
	for (size_t at = 0; at < text.n; at += step)
		assert_int_equal(feed(&t, slice_head(slice_skip(text, at), step)), 0);
	tap_finish(&t, &scratch, &pool);
	assert_null(t.saved);
	bool result = t.is_of_request;
	tap_deinit(&t, &pool);
	return result;
}

#define X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

#define CODED(type) type "\r\ncontent-encoding: gzip"

static void a_404_is_of_the_route_or_of_the_request(void **state) {
	static const char *const of_route[] = { "", "{}", "[]", "Not Found", "{\"detail\":\"Not Found\"}",
		"{\"error\":{\"code\":404,\"message\":\"File Not Found\",\"type\":\"not_found_error\"}}",
		"{\"error\":{\"message\":\"Invalid URL (POST /v1/x)\",\"param\":null,\"code\":null}}",
		"{\"error\":{\"message\":\"The model does not support Embeddings API\",\"param\":\"model\"}}",
		"{\"x\":\"model\",\"error\":{\"x\":{\"message\":\"model\"}}}",
		"{\"error\":{\"message\":\"modem\",\"param\":\"\"}}" };
	static const char *const of_request[] = { /* vLLM, its older versions, Anthropic's and Ollama's */
		"{\"error\":{\"message\":\"The model `x` does not exist.\",\"type\":\"NotFoundError\","
		"\"param\":\"model\",\"code\":404}}",
		"{\"object\":\"error\",\"message\":\"The model `x` does not "
		"exist.\",\"type\":\"NotFoundError\"}",
		"{\"type\":\"error\",\"error\":{\"type\":\"not_found_error\",\"message\":\"model: x\"}}",
		"{\"error\":\"model 'x' not found, try pulling it first\"}",
		"{\"error\":{\"message\":\"?\",\"code\":\"model_not_found\"}}",
		"{\"detail\":\"Model not found\"}", "{\"error\":{\"message\":\"UNKNOWN MODEL\"}}",
		/* another part of the request */
		"{\"error\":{\"message\":\"Response with id 'r' not found.\",\"param\":\"response_id\"}}",
		/* no router says so much, nor in lines */
		"{\"message\":\"" X64 X64 X64 X64 X64 X64 X64 X64 "x\"}", "{\"message\":\"a\\nb\"}"
	};
	for (size_t step = 1; step < 1000; step = step * 10 - 1) {
		for (size_t i = 0; i < n_elems(of_route); i++)
			if (is_of_request("404 no", "application/json", slice_of(of_route[i]), step))
				fail_msg("of the request: %s", of_route[i]);
		for (size_t i = 0; i < n_elems(of_request); i++)
			if (!is_of_request("404 no", "application/json", slice_of(of_request[i]), step))
				fail_msg("of the route: %s", of_request[i]);
		assert_false(is_of_request("404 no", "text/html", slice_of(of_request[0]), step));
		assert_true(
		    is_of_request("404 no", "application/problem+json", slice_of(of_request[0]), step));
		assert_true(is_of_request("404 no", "Text/JSON ; charset=x", slice_of(of_request[0]), step));
		assert_false(
		    is_of_request("404 no", "application/problem+json", slice_of(of_route[4]), step));
		/* What cannot be read may be anything. */
		assert_true(is_of_request("404 no", CODED("application/json"), slice_of(of_route[4]), step));
		assert_true(is_of_request("404 no", CODED("text/html"), slice_of("\x1f\x8b"), step));
		assert_false(is_of_request("405 no", CODED("application/json"), slice_of(of_route[4]), step));
		assert_false(is_of_request("405 no", "application/json", slice_of(of_request[0]), step));
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_are_understood_in_any_parts),
		cmocka_unit_test(only_what_the_model_said_is_counted),
		cmocka_unit_test(a_stream_is_estimated),
		cmocka_unit_test(boundaries_are_known),
		cmocka_unit_test(streams_share_a_scanner),
		cmocka_unit_test(documents_are_read),
		cmocka_unit_test(only_plain_answers_of_two_types_are_read),
		cmocka_unit_test(a_cut_stream_is_told_in_its_dialect),
		cmocka_unit_test(the_id_of_a_response_is_found),
		cmocka_unit_test(tokens_are_counted_all_the_same),
		cmocka_unit_test(a_404_is_of_the_route_or_of_the_request),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
