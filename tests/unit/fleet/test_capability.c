#include "fleet/capability.h"

#include "unit/unit.h"

static void test_paths(void **state) {
	assert_int_equal(capability_of(SLICE("POST"), SLICE("/v1/chat/completions")), CAPABILITY_CHAT);
	assert_int_equal(capability_of(SLICE("POST"), SLICE("/v1/rerank")), CAPABILITY_RERANK);
	assert_int_equal(
	    capability_of(SLICE("POST"), SLICE("/v1/audio/transcriptions")), CAPABILITY_TRANSCRIPTION);
	assert_int_equal(capability_of(SLICE("GET"), SLICE("/v1/chat/completions")), CAPABILITY_OTHER);
	assert_int_equal(capability_of(SLICE("POST"), SLICE("/v1/chat/completions/")), CAPABILITY_OTHER);
	assert_int_equal(capability_of(SLICE("POST"), SLICE("")), CAPABILITY_OTHER);
}

static void test_masks(void **state) {
	uint32_t mask;

	assert_true(capability_mask(SLICE(" rerank,chat , score"), &mask));
	assert_int_equal(mask,
	    1u << CAPABILITY_CHAT | 1u << CAPABILITY_RESPONSES | 1u << CAPABILITY_MESSAGES |
		1u << CAPABILITY_RERANK | 1u << CAPABILITY_SCORE);
	assert_true(capability_mask(SLICE(""), &mask));
	assert_int_equal(mask, 0);
	mask = 7;
	assert_false(capability_mask(SLICE("chat,chats"), &mask));
	assert_int_equal(mask, 7);
	assert_true(feature_mask(SLICE("tools image_input"), &mask));
	assert_int_equal(mask, 1u << FEATURE_TOOLS | 1u << FEATURE_IMAGE_INPUT);
	assert_true(feature_mask(SLICE("adapter"), &mask));
	assert_int_equal(mask, 1u << FEATURE_ADAPTER);
	assert_false(feature_mask(SLICE("Tools"), &mask));
}

/* What is printed can be read back. */
static void test_words(void **state) {
	uint32_t mask;

	for (unsigned i = 0; i < CAPABILITIES; i++) {
		assert_true(capability_mask(slice_of(capability_text((enum capability)i)), &mask));
		assert_true(mask >> i & 1);
	}
	for (unsigned i = 0; i < FEATURES; i++) {
		assert_true(feature_mask(slice_of(feature_text((enum feature)i)), &mask));
		assert_int_equal(mask, 1u << i);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_masks),
		cmocka_unit_test(test_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
