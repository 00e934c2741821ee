#include "unit/unit.h"

#include "engine/message.h"
#include "engine/prompt.h"

static struct prompt prompt_of(const char *salt, const char *text, size_t n_at_once) {
	struct prompt p;
	struct slice rest = slice_of(text);
	prompt_init(&p, 2, slice_of(salt)); /* blocks of 8 bytes */
	while (rest.n) {
		struct slice part = slice_head(rest, n_at_once);
		prompt_add(&p, part);
		rest = slice_skip(rest, part.n);
	}
	prompt_finish(&p);
	return p;
}

static void tokens_and_blocks_are_counted(void **state) {
	static const struct {
		const char *text;
		uint32_t n_tokens, n_keys;
	} rows[] = { { "", 1, 0 }, { "a", 1, 0 }, { "abcd", 1, 0 }, { "abcde", 2, 0 }, { "abcdefgh", 2, 1 },
		{ "abcdefghi", 3, 1 }, { "abcdefghijklmnopqrstuvwx", 6, 3 } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct prompt p = prompt_of("m", rows[i].text, 100);
		assert_int_equal(p.n_tokens, rows[i].n_tokens);
		assert_int_equal(p.n_keys, rows[i].n_keys);
		prompt_deinit(&p);
	}
}

static void the_split_does_not_matter(void **state) {
	static const char text[] = "the same text, whatever pieces it comes in";
	struct prompt whole = prompt_of("m", text, sizeof(text));
	for (size_t n = 1; n < sizeof(text); n++) {
		struct prompt p = prompt_of("m", text, n);
		assert_int_equal(p.hash, whole.hash);
		assert_int_equal(p.n_keys, whole.n_keys);
		assert_memory_equal(p.keys, whole.keys, whole.n_keys * sizeof(whole.keys[0]));
		prompt_deinit(&p);
	}
	prompt_deinit(&whole);
}

static void keys_cover_all_before_them_and_the_salt(void **state) {
	struct prompt a = prompt_of("m", "same....one.....tail....", 100);
	struct prompt b = prompt_of("m", "same....two.....tail....", 100);
	struct prompt c = prompt_of("n", "same....one.....tail....", 100);
	assert_int_equal(a.keys[0], b.keys[0]);
	assert_int_not_equal(a.keys[1], b.keys[1]);
	assert_int_not_equal(a.keys[2], b.keys[2]);
	assert_int_not_equal(a.keys[0], c.keys[0]);
	assert_int_not_equal(a.hash, b.hash);
	prompt_deinit(&a);
	prompt_deinit(&b);
	prompt_deinit(&c);
}

static void one_token_is_always_left_to_compute(void **state) {
	struct prompt p = prompt_of("m", "abcdefghijklmnop", 100),
		      longer = prompt_of("m", "abcdefghijklmnopq", 100);
	assert_int_equal(prompt_cached_tokens(&p, 0), 0);
	assert_int_equal(prompt_cached_tokens(&p, 1), 2);
	assert_int_equal(prompt_cached_tokens(&p, 2), 2);
	assert_int_equal(prompt_cached_tokens(&longer, 2), 4);
	prompt_deinit(&p);
	prompt_deinit(&longer);
}

static void kept_tokens_are_their_bytes(void **state) {
	struct prompt p;
	prompt_init(&p, 2, SLICE("m"));
	prompt_keep_tokens(&p);
	prompt_add(&p,
	    SLICE("ab\x01\xff"
		  "cdef"));
	prompt_add_token(&p, 0xdeadbeef);
	prompt_add(&p, SLICE("z"));
	prompt_finish(&p);
	assert_int_equal(p.n_kept, 4);
	assert_int_equal(p.tokens[0], 0xff016261u);
	assert_int_equal(p.tokens[1], 0x66656463u);
	assert_int_equal(p.tokens[2], 0xdeadbeefu);
	assert_int_equal(p.tokens[3], 'z');
	prompt_deinit(&p);
}

static struct prompt prompt_of_content(const char *json) {
	struct prompt p;
	json_t *content = json_loads(json, JSON_DECODE_ANY, NULL);
	assert_non_null(content);
	prompt_init(&p, 16, SLICE("m"));
	assert_true(message_add_content(&p, content));
	prompt_finish(&p);
	json_decref(content);
	return p;
}

static void images_count_and_differ(void **state) {
	static const char *const same[] = {
		"[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:x\"}}]",
		"[{\"type\":\"input_image\",\"image_url\":\"data:x\"}]",
		"[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"data\":\"data:x\"}}]",
		"[{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"data:x\"}}]",
	};
	struct prompt other =
	    prompt_of_content("[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:y\"}}]");
	for (size_t i = 0; i < n_elems(same); i++) {
		struct prompt p = prompt_of_content(same[i]), first = prompt_of_content(same[0]);
		assert_int_equal(p.n_tokens, PROMPT_IMAGE_TOKENS);
		assert_int_equal(p.hash, first.hash);
		assert_int_not_equal(p.hash, other.hash);
		prompt_deinit(&p);
		prompt_deinit(&first);
	}
	prompt_deinit(&other);
}

static void content_forms(void **state) {
	struct prompt string = prompt_of_content("\"hello you\"");
	struct prompt parts = prompt_of_content("[{\"type\":\"text\",\"text\":\"hello \"},\"you\"]");
	struct prompt other = prompt_of_content("[{\"type\":\"tool_use\",\"input\":{\"a\":1}}]");
	struct prompt p;
	json_t *wrong = json_pack("{s:i}", "a", 1), *wrong_part = json_pack("[i]", 1);

	assert_int_equal(string.hash, parts.hash);
	assert_int_equal(other.n_tokens, (sizeof("{\"type\":\"tool_use\",\"input\":{\"a\":1}}") - 1 + 3) / 4);
	prompt_init(&p, 16, SLICE("m"));
	assert_true(message_add_content(&p, NULL));
	assert_false(message_add_content(&p, wrong));
	assert_false(message_add_content(&p, wrong_part));
	json_decref(wrong);
	json_decref(wrong_part);
	prompt_deinit(&string);
	prompt_deinit(&parts);
	prompt_deinit(&other);
	prompt_deinit(&p);
}

static void the_last_message_of_the_user(void **state) {
	json_t *messages =
	    json_loads("[{\"role\":\"user\",\"content\":\"one\"},"
		       "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"tw\"},\"o\"]},"
		       "{\"role\":\"assistant\",\"content\":\"three\"}]",
		0, NULL);
	struct bytes text = { .n_max = 100 };
	message_text(message_last_of_user(messages), &text);
	assert_true(slice_eq(bytes_slice(&text), SLICE("two")));
	assert_null(message_last_of_user(NULL));
	bytes_deinit(&text);
	json_decref(messages);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tokens_and_blocks_are_counted),
		cmocka_unit_test(the_split_does_not_matter),
		cmocka_unit_test(keys_cover_all_before_them_and_the_salt),
		cmocka_unit_test(one_token_is_always_left_to_compute),
		cmocka_unit_test(kept_tokens_are_their_bytes),
		cmocka_unit_test(images_count_and_differ),
		cmocka_unit_test(content_forms),
		cmocka_unit_test(the_last_message_of_the_user),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
