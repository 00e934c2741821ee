#include "unit/unit.h"

#include "router/split_body.h"

#define PARAMS SLICE("{\"do_remote_decode\":true}")

static struct buf_budget budget;
static struct buf_pool pool;

static int setup(void **state) {
	budget = (struct buf_budget){ .max_bytes = 1u << 20 };
	buf_pool_init(&pool, &budget);
	return 0;
}

static int teardown(void **state) {
	buf_pool_deinit(&pool);
	return budget.used_bytes != 0;
}

static struct hold keep(const char *text) {
	struct piece piece = { text, strlen(text), NULL };
	struct hold h = { .bytes = 0 };

	assert_true(hold_append(&h, &pool, &piece, 1));
	return h;
}

static void assert_text(const struct splice *s, const struct hold *body, const char *expected) {
	struct splice_cursor c;
	struct piece pieces[4];
	char text[4096];
	size_t n, used = 0;

	splice_begin(&c, s, body);
	while ((n = splice_pieces(&c, pieces, n_elems(pieces))))
		for (size_t i = 0; i < n; i++) {
			assert_true(used + pieces[i].n < sizeof(text));
			memcpy(text + used, pieces[i].p, pieces[i].n);
			used += pieces[i].n;
		}
	text[used] = '\0';
	assert_string_equal(text, expected);
	assert_int_equal(splice_length(s, body->bytes), used);
}

/* What both legs are sent for this body. */
static void assert_legs(enum split_api api, const char *text, const char *prefill, const char *decode) {
	struct hold body = keep(text);
	struct splice p = { .n = 0 }, d = { .n = 0 };
	struct split_body b;

	assert_true(split_body_read(&b, api, &body));
	split_body_prefill(&b, PARAMS, &p);
	assert_text(&p, &body, prefill);
	split_body_decode(&b, SLICE("{\"x\":1}"), &d);
	assert_text(&d, &body, decode);
	hold_free(&body, &pool);
}

static void a_prefill_has_one_token_and_no_stream(void **state) {
	assert_legs(SPLIT_API_CHAT, "{\"model\":\"m\",\"messages\":[]}",
	    "{\"kv_transfer_params\":{\"do_remote_decode\":true},\"max_tokens\":1,\"model\":\"m\","
	    "\"messages\":[]}",
	    "{\"kv_transfer_params\":{\"x\":1},\"model\":\"m\",\"messages\":[]}");
	assert_legs(SPLIT_API_CHAT,
	    " { \"messages\":[],\"max_tokens\": 100, \"max_completion_tokens\":7,\"min_tokens\":5,"
	    "\"stream\" : true ,\"stream_options\":{\"include_usage\":true}}",
	    " {\"kv_transfer_params\":{\"do_remote_decode\":true}, \"messages\":[],\"max_tokens\": 1, "
	    "\"max_completion_tokens\":1,\"min_tokens\":1,\"stream\" : false }",
	    " {\"kv_transfer_params\":{\"x\":1}, \"messages\":[],\"max_tokens\": 100, "
	    "\"max_completion_tokens\":7,\"min_tokens\":5,"
	    "\"stream\" : true ,\"stream_options\":{\"include_usage\":true}}");
	assert_legs(SPLIT_API_COMPLETION, "{\"prompt\":\"a\",\"min_tokens\":0,\"kv_transfer_params\":null}",
	    "{\"max_tokens\":1,\"prompt\":\"a\",\"min_tokens\":0,\"kv_transfer_params\":{\"do_remote_"
	    "decode\":true}}",
	    "{\"prompt\":\"a\",\"min_tokens\":0,\"kv_transfer_params\":{\"x\":1}}");
	assert_legs(SPLIT_API_COMPLETION, "{\"stream_options\": {} , \"prompt\":\"a\",\"max_tokens\":2}",
	    "{\"kv_transfer_params\":{\"do_remote_decode\":true}, \"prompt\":\"a\",\"max_tokens\":1}",
	    "{\"kv_transfer_params\":{\"x\":1},\"stream_options\": {} , \"prompt\":\"a\",\"max_tokens\":2}");
	assert_legs(SPLIT_API_RESPONSES, "{\"input\":\"a\",\"stream\":true}",
	    "{\"kv_transfer_params\":{\"do_remote_decode\":true},\"max_output_tokens\":1,\"input\":\"a\","
	    "\"stream\":false}",
	    "{\"kv_transfer_params\":{\"x\":1},\"input\":\"a\",\"stream\":true}");
}

static void limits_may_be_in_sampling_params(void **state) {
	assert_legs(SPLIT_API_TOKENS,
	    "{\"token_ids\":[1,2],\"sampling_params\":{\"max_tokens\":9,\"min_tokens\":3}}",
	    "{\"kv_transfer_params\":{\"do_remote_decode\":true},\"token_ids\":[1,2],"
	    "\"sampling_params\":{\"max_tokens\":1,\"min_tokens\":1}}",
	    "{\"kv_transfer_params\":{\"x\":1},\"token_ids\":[1,2],"
	    "\"sampling_params\":{\"max_tokens\":9,\"min_tokens\":3}}");
	assert_legs(SPLIT_API_TOKENS, "{\"token_ids\":[1],\"sampling_params\":{\"n\":1}}",
	    "{\"kv_transfer_params\":{\"do_remote_decode\":true},\"token_ids\":[1],"
	    "\"sampling_params\":{\"max_tokens\":1,\"n\":1}}",
	    "{\"kv_transfer_params\":{\"x\":1},\"token_ids\":[1],\"sampling_params\":{\"n\":1}}");
	assert_legs(SPLIT_API_TOKENS, "{\"token_ids\":[1],\"sampling_params\":{}}",
	    "{\"kv_transfer_params\":{\"do_remote_decode\":true},\"token_ids\":[1],"
	    "\"sampling_params\":{\"max_tokens\":1}}",
	    "{\"kv_transfer_params\":{\"x\":1},\"token_ids\":[1],\"sampling_params\":{}}");
	assert_legs(SPLIT_API_TOKENS, "{\"token_ids\":[1],\"sampling_params\":{ \t}}",
	    "{\"kv_transfer_params\":{\"do_remote_decode\":true},\"token_ids\":[1],"
	    "\"sampling_params\":{\"max_tokens\":1}}",
	    "{\"kv_transfer_params\":{\"x\":1},\"token_ids\":[1],\"sampling_params\":{ \t}}");
}

/* Engines take the last of two: that is the one that is replaced, and nothing is put in front. */
static void the_last_of_two_is_replaced(void **state) {
	assert_legs(SPLIT_API_COMPLETION, "{\"max_tokens\":5,\"prompt\":[1],\"max_tokens\":6}",
	    "{\"kv_transfer_params\":{\"do_remote_decode\":true},\"max_tokens\":5,\"prompt\":[1],\"max_"
	    "tokens\":1}",
	    "{\"kv_transfer_params\":{\"x\":1},\"max_tokens\":5,\"prompt\":[1],\"max_tokens\":6}");
}

/* Where an engine finds another one is not for clients to say. */
static void the_clients_params_are_no_engines(void **state) {
	struct hold body = keep("{\"prompt\":\"a\",\"kv_transfer_params\": {\"remote_host\":\"h\"} }"),
		    without = keep("{\"prompt\":\"a\"}");
	struct splice s = { .n = 0 }, t = { .n = 0 };
	struct split_body b;

	assert_true(split_body_read(&b, SPLIT_API_COMPLETION, &body));
	split_body_decode(&b, (struct slice){ NULL, 0 }, &s);
	assert_text(&s, &body, "{\"prompt\":\"a\",\"kv_transfer_params\": null }");
	assert_true(split_body_read(&b, SPLIT_API_COMPLETION, &without));
	split_body_decode(&b, (struct slice){ NULL, 0 }, &t);
	assert_text(&t, &without, "{\"prompt\":\"a\"}");
	hold_free(&body, &pool);
	hold_free(&without, &pool);
}

static void params_may_come_from_an_answer(void **state) {
	struct hold body = keep("{\"prompt\":\"a\"}"),
		    given = keep("{\"prompt\":\"a\",\"kv_transfer_params\":5}");
	struct hold answer = keep("{\"kv_transfer_params\":{\"remote_port\":1}}");
	struct splice s = { .n = 0 }, t = { .n = 0 };
	struct split_body b;

	assert_true(split_body_read(&b, SPLIT_API_COMPLETION, &body));
	split_body_decode_from(
	    &b, SLICE("{\"x\":2,"), &answer, (struct split_range[]){ { 23, 8 }, { 31, 8 } }, 2, &s);
	assert_text(&s, &body, "{\"kv_transfer_params\":{\"x\":2,\"remote_port\":1},\"prompt\":\"a\"}");
	assert_true(split_body_read(&b, SPLIT_API_COMPLETION, &given));
	split_body_decode_from(
	    &b, (struct slice){ NULL, 0 }, &answer, &(struct split_range){ 22, 17 }, 1, &t);
	assert_text(&t, &given, "{\"prompt\":\"a\",\"kv_transfer_params\":{\"remote_port\":1}}");
	hold_free(&body, &pool);
	hold_free(&given, &pool);
	hold_free(&answer, &pool);
}

static void engines_may_meet_at_a_bootstrap_server(void **state) {
	static const struct split_bootstrap with = { SLICE("\"h\""), SLICE("8998"), SLICE("[1,2]") };
	struct hold body = keep("{\"text\":[\"a\",\"b\"],\"bootstrap_port\":null}");
	struct splice s = { .n = 0 };
	struct split_body b;

	assert_true(split_body_read(&b, SPLIT_API_GENERATE, &body));
	assert_int_equal(b.n_batch, 2);
	split_body_bootstrap(&b, &with, &s);
	assert_text(&s, &body,
	    "{\"bootstrap_host\":\"h\",\"bootstrap_room\":[1,2],\"text\":[\"a\",\"b\"],\"bootstrap_port\":"
	    "8998}");
	hold_free(&body, &pool);
}

static void prompts_are_counted(void **state) {
	static const struct {
		const char *text;
		uint32_t n;
	} rows[] = {
		{ "{\"prompt\":\"a\"}", 0 },
		{ "{\"prompt\":[1,2,3]}", 0 },
		{ "{\"prompt\":[\"a\"]}", 1 },
		{ "{\"input_ids\":[[1],[2,3],[4]]}", 3 },
		{ "{\"messages\":[{},{}]}", 0 },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct hold body = keep(rows[i].text);
		struct split_body b;

		assert_true(split_body_read(&b, SPLIT_API_GENERATE, &body));
		assert_int_equal(b.n_batch, rows[i].n);
		hold_free(&body, &pool);
	}
}

static void what_has_no_prompt_is_not_shared(void **state) {
	static const char *const texts[] = { "{}", "[{\"prompt\":1}]", "\"prompt\"",
		"{\"prompt\":", "{\"model\":\"m\"}" };

	for (size_t i = 0; i < n_elems(texts); i++) {
		struct hold body = keep(texts[i]);
		struct split_body b;

		assert_false(split_body_read(&b, SPLIT_API_CHAT, &body));
		hold_free(&body, &pool);
	}
	assert_int_equal(split_api_of(SLICE("/v1/embeddings")), SPLIT_API_NONE);
	assert_int_equal(split_api_of(SLICE("/v1/responses")), SPLIT_API_RESPONSES);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_prefill_has_one_token_and_no_stream),
		cmocka_unit_test(limits_may_be_in_sampling_params),
		cmocka_unit_test(the_last_of_two_is_replaced),
		cmocka_unit_test(the_clients_params_are_no_engines),
		cmocka_unit_test(params_may_come_from_an_answer),
		cmocka_unit_test(engines_may_meet_at_a_bootstrap_server),
		cmocka_unit_test(prompts_are_counted),
		cmocka_unit_test(what_has_no_prompt_is_not_shared),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
