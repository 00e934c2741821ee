#include "fleet/rank.h"

#include "unit/fleet/scene.h"

static void urls_may_name_a_rank(void **state) {
	struct rank_url url;

	assert_true(rank_url(SLICE("https://gpu:8000@3"), &url));
	assert_true(slice_eq(url.url.host, SLICE("gpu")));
	assert_int_equal(url.url.port, 8000);
	assert_true(url.has_rank);
	assert_int_equal(url.rank, 3);
	assert_true(rank_url(SLICE("http://[::1]:8000@0"), &url));
	assert_true(slice_eq(url.url.host, SLICE("::1")));
	assert_true(url.has_rank);
	assert_int_equal(url.rank, 0);
	assert_true(rank_url(SLICE("http://gpu@1023"), &url));
	assert_int_equal(url.rank, RANKS_MAX - 1);
	assert_true(rank_url(SLICE("http://gpu:8000/"), &url));
	assert_false(url.has_rank);
}

static void what_is_no_rank_is_no_url(void **state) {
	static const char *const wrong[] = { "http://gpu:8000@", "http://gpu:8000@x", "http://gpu:8000@-1",
		"http://gpu:8000@+1", "http://gpu:8000@1024", "http://gpu:8000@3@4", "http://user@gpu:8000",
		"http://user@gpu:8000@1", "@3", "", "gpu:8000@3" };
	struct rank_url url = { .rank = 7 };

	for (size_t i = 0; i < n_elems(wrong); i++) {
		assert_false(rank_url(slice_of(wrong[i]), &url));
		assert_non_null(rank_url_mistake(wrong[i]));
	}
	assert_int_equal(url.rank, 7);
}

static void mistakes_have_a_sentence(void **state) {
	assert_null(rank_url_mistake("http://gpu:8000@3"));
	assert_null(rank_url_mistake("https://gpu/"));
	assert_non_null(strstr(rank_url_mistake("grpc://gpu:1@3"), "gRPC"));
	assert_null(rank_url_mistake("http://gpu:1/v1"));
}

static void names_are_split_at_the_last_sign(void **state) {
	struct slice name;
	uint16_t rank;

	assert_true(rank_split(SLICE("a@b@12"), &name, &rank));
	assert_true(slice_eq(name, SLICE("a@b")));
	assert_int_equal(rank, 12);
	assert_false(rank_split(SLICE("a@b"), &name, &rank));
	assert_false(rank_split((struct slice){ NULL, 0 }, &name, &rank));
}

static void counts_are_numbers_or_auto(void **state) {
	static const char *const wrong[] = { "", "-1", "1025", "8 ", "Auto", "all" };
	uint16_t n;

	assert_true(rank_count(SLICE("8"), &n));
	assert_int_equal(n, 8);
	assert_true(rank_count(SLICE("1024"), &n));
	assert_int_equal(n, RANKS_MAX);
	assert_true(rank_count(SLICE("0"), &n));
	assert_int_equal(n, RANKS_AUTO);
	n = 1;
	assert_true(rank_count(SLICE("auto"), &n));
	assert_int_equal(n, RANKS_AUTO);
	for (size_t i = 0; i < n_elems(wrong); i++)
		assert_false(rank_count(slice_of(wrong[i]), &n));
}

static void the_label_counts_before_the_role(void **state) {
	const struct rank_defaults defaults = { 2, 3, RANKS_AUTO }, none = { 0 };
	struct pair labels[] = { { SLICE("role"), SLICE("prefill") }, { SLICE("dp_size"), SLICE("8") } };

	assert_int_equal(rank_count_of((struct pairs){ labels, 2 }, &defaults), 8);
	assert_int_equal(rank_count_of((struct pairs){ labels, 1 }, &defaults), 3);
	labels[0].value = SLICE("decode");
	assert_int_equal(rank_count_of((struct pairs){ labels, 1 }, &defaults), RANKS_AUTO);
	labels[0].value = SLICE("regular");
	assert_int_equal(rank_count_of((struct pairs){ labels, 1 }, &defaults), 2);
	labels[1].value = SLICE("many");
	assert_int_equal(rank_count_of((struct pairs){ labels, 2 }, &defaults), 2);
	assert_int_equal(rank_count_of((struct pairs){ NULL, 0 }, &none), 1);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urls_may_name_a_rank),
		cmocka_unit_test(what_is_no_rank_is_no_url),
		cmocka_unit_test(mistakes_have_a_sentence),
		cmocka_unit_test(names_are_split_at_the_last_sign),
		cmocka_unit_test(counts_are_numbers_or_auto),
		cmocka_unit_test(the_label_counts_before_the_role),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
