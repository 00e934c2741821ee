#include "unit/unit.h"

#include "router/recruit.h"

/* As POST /workers has it; `more` are members behind the url, each with its comma. */
static struct recruit *read(const char *url, const char *more, const char **why) {
	char text[4096];
	json_error_t error;

	snprintf(text, sizeof(text), "{\"url\": \"%s\"%s}", url, more);
	json_t *body = json_loads(text, 0, &error);
	assert_non_null(body);
	struct recruit *r = recruit_new(body, why);
	json_decref(body);
	return r;
}

static void assert_text(struct slice text, const char *expected) {
	assert_int_equal(text.n, strlen(expected));
	assert_memory_equal(text.p, expected, text.n);
}

static void assert_label(const struct recruit *r, uint32_t i, const char *key, const char *value) {
	assert_true(i < r->spec.labels.n);
	assert_text(r->spec.labels.items[i].key, key);
	assert_text(r->spec.labels.items[i].value, value);
}

static void urls_have_one_form(void **state) {
	const struct {
		const char *given, *form;
	} good[] = {
		{ "http://h", "http://h:80" },
		{ "HTTP://Some.Host:8000/", "http://some.host:8000" },
		{ "https://h", "https://h:443" },
		{ "http://[::1]:8000", "http://[::1]:8000" },
		{ "http://h:1@0", "http://h:1@0" },
		{ "http://h:1@007", "http://h:1@7" },
		{ "https://API.example/v1beta//", "https://api.example:443/v1beta" },
		{ "http://h/a@3", "http://h:80/a@3" },
	};
	char url[RECRUIT_URL_BYTES];

	for (size_t i = 0; i < n_elems(good); i++) {
		assert_true(recruit_url(slice_of(good[i].given), url));
		assert_string_equal(url, good[i].form);
	}
}

static void what_is_no_url_is_refused(void **state) {
	const char *const bad[] = { "", "h:1", "grpc://h:1", "http://", "http://h:0", "http://h:65536",
		"http://h:1/v1?q", "http://h:1@", "http://h:1@1024", "http://h:1@-1", "http://h:1@1@1",
		"http://0.0.0.0:1", "http://u@h:1", "http://h :1" };
	char url[RECRUIT_URL_BYTES];

	for (size_t i = 0; i < n_elems(bad); i++)
		assert_false(recruit_url(slice_of(bad[i]), url));
}

static void ranks_are_cut_off(void **state) {
	assert_text(recruit_base(SLICE("http://h:1@12")), "http://h:1");
	assert_text(recruit_base(SLICE("http://h:1")), "http://h:1");
	assert_text(recruit_base(SLICE("http://h:1@")), "http://h:1@");
	assert_text(recruit_base(SLICE("12")), "12");
	assert_text(recruit_base(SLICE("")), "");
}

static void a_target_is_read(void **state) {
	const char *why;
	struct recruit *r = read("https://GPU-1:8000@3", ", \"api_key\": \"k\"", &why);
	const struct instance_spec *at = &r->spec.instance;

	assert_text(at->name, "https://gpu-1:8000@3");
	assert_text(at->url, "https://gpu-1:8000@3");
	assert_text(r->base, "https://gpu-1:8000");
	assert_text(at->authority, "gpu-1:8000");
	assert_text(at->host, "gpu-1");
	assert_text(at->key, "k");
	assert_int_equal(at->port, 8000);
	assert_int_equal(at->rank, 3);
	assert_true(at->has_rank && at->is_tls);
	assert_false(at->base.n || at->is_provider);
	assert_int_equal(r->spec.weight, INSTANCE_WEIGHT_ONE);
	assert_int_equal(r->spec.models.n, 0);
	assert_int_equal(r->spec.labels.n, 0);
	recruit_free(&r);
	assert_null(r);
}

static void a_provider_may_have_a_path(void **state) {
	const char *why, *label = ", \"labels\": {\"provider\": \"openai\"}";
	struct recruit *r = read("https://API.example/v1beta/openai/", label, &why);
	const struct instance_spec *at = &r->spec.instance;

	assert_text(at->url, "https://api.example:443/v1beta/openai");
	assert_text(r->base, "https://api.example:443/v1beta/openai");
	assert_text(at->authority, "api.example:443");
	assert_text(at->base, "/v1beta/openai");
	assert_true(at->is_provider && at->is_tls && !at->has_rank);
	recruit_free(&r);
	assert_null(read("https://api.example/v1", ", \"labels\": {\"provider\": \"other\"}", &why));
	assert_string_equal(why, "url has a path, which is for workers with the label provider = openai");
	assert_null(read("https://api.example/v1", "", &why));
}

static void a_paths_length_is_bounded(void **state) {
	const char *why, *label = ", \"labels\": {\"provider\": \"openai\"}";
	char url[200];

	snprintf(url, sizeof(url), "http://h:1/%0*d", (int)RECRUIT_PATH_BYTES_MAX - 1, 0);
	struct recruit *r = read(url, label, &why);
	assert_text(r->spec.instance.url, url);
	recruit_free(&r);
	snprintf(url, sizeof(url), "http://h:1/%0*d", (int)RECRUIT_PATH_BYTES_MAX, 0);
	assert_null(read(url, label, &why));
}

static void ranks_are_said_in_many_ways(void **state) {
	const struct {
		const char *more, *label;
	} rows[] = { { ", \"dp_size\": 8", "8" }, { ", \"dp_size\": \"0008\"", "8" },
		{ ", \"data_parallel_size\": 4, \"dp_size\": 8", "4" }, { ", \"dp_size\": 0", "auto" },
		{ ", \"dp_size\": \"auto\"", "auto" }, { ", \"data_parallel_size\": \"1024\"", "1024" },
		{ ", \"dp_size\": 2, \"labels\": {\"dp_size\": \"7\"}", "2" } };
	const char *const bad[] = { "1025", "-1", "\"x\"", "1.5", "\"\"", "true" };
	const char *why;
	char more[64];

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct recruit *r = read("http://h:1", rows[i].more, &why);
		assert_int_equal(r->spec.labels.n, 1);
		assert_label(r, 0, "dp_size", rows[i].label);
		assert_int_equal(r->spec.n_ranks, 0);
		recruit_free(&r);
	}
	for (size_t i = 0; i < n_elems(bad); i++) {
		snprintf(more, sizeof(more), ", \"dp_size\": %s", bad[i]);
		assert_null(read("http://h:1", more, &why));
	}
}

static void members_become_labels(void **state) {
	const char *why;
	struct recruit *r = read("http://h:1",
	    ", \"worker_type\": \"decode\", \"bootstrap_port\": \"8998\", \"priority\": 1000, "
	    "\"cost\": 0.5, "
	    "\"labels\": {\"cost\": \"9\", \"zone\": \"eu\"}",
	    &why);

	assert_int_equal(r->spec.labels.n, 5);
	assert_label(r, 0, "role", "decode");
	assert_label(r, 1, "bootstrap_port", "8998");
	assert_label(r, 2, "priority", "1000");
	assert_label(r, 3, "cost", "0.5");
	assert_label(r, 4, "zone", "eu");
	assert_true(json_is_integer(json_object_get(r->json, "bootstrap_port")));
	recruit_free(&r);
}

static void costs_are_plain_decimals(void **state) {
	const struct {
		const char *json, *label;
	} costs[] = { { "1", "1" }, { "1.0", "1" }, { "0", "0" }, { "1e-7", "0.0000001" }, { "10", "10" },
		{ "1e9", "1000000000" } };
	const char *why;
	char more[32];

	for (size_t i = 0; i < n_elems(costs); i++) {
		snprintf(more, sizeof(more), ", \"cost\": %s", costs[i].json);
		struct recruit *r = read("http://h:1", more, &why);
		assert_label(r, 0, "cost", costs[i].label);
		recruit_free(&r);
	}
}

static void models_are_named_once(void **state) {
	const char *why;
	struct recruit *r =
	    read("http://h:1", ", \"model_id\": \"a\", \"models\": [\"b\", \"a\", \"b\"]", &why);

	assert_int_equal(r->spec.models.n, 2);
	assert_text(r->spec.models.items[0].key, "a");
	assert_text(r->spec.models.items[1].key, "b");
	recruit_free(&r);
}

static void null_is_as_nothing_and_the_unknown_is_left_out(void **state) {
	const char *why;
	struct recruit *r =
	    read("http://h:1", ", \"labels\": null, \"cost\": null, \"chat_template\": 7", &why);

	assert_non_null(r);
	assert_int_equal(json_object_size(r->json), 1);
	recruit_free(&r);
}

static void a_change_keeps_the_rest(void **state) {
	const char *why;
	struct recruit *r = read("http://h:1", ", \"priority\": 1, \"labels\": {\"a\": \"b\"}", &why);
	json_t *body = json_pack("{s:i, s:s}", "priority", 2, "url", "http://other:1");
	struct recruit *changed = recruit_change(r, body, &why);

	assert_text(changed->spec.instance.name, "http://h:1");
	assert_label(changed, 0, "priority", "2");
	assert_label(changed, 1, "a", "b");
	assert_label(r, 0, "priority", "1");
	json_decref(body);
	recruit_free(&changed);
	body = json_pack("{s:n}", "labels");
	changed = recruit_change(r, body, &why);
	assert_int_equal(changed->spec.labels.n, 1);
	json_decref(body);
	recruit_free(&changed);
	body = json_array();
	assert_null(recruit_change(r, body, &why));
	assert_string_equal(why, "the body is no object");
	json_decref(body);
	recruit_free(&r);
}

static void what_is_wrong_is_said(void **state) {
	const struct {
		const char *more, *why;
	} bad[] = {
		{ ", \"model_id\": \"\"", "model_id is no text of 1 to 256 bytes" },
		{ ", \"model_id\": \"a\\u0007\"", "model_id is no text of 1 to 256 bytes" },
		{ ", \"priority\": 4294967296", "priority is no integer from 0 to 4294967295" },
		{ ", \"priority\": 1.5", "priority is no integer from 0 to 4294967295" },
		{ ", \"cost\": 1000000000.1", "cost is no number from 0 to 1000000000" },
		{ ", \"worker_type\": 1", "worker_type is none of regular, prefill, decode" },
		{ ", \"bootstrap_port\": \" 1\"", "bootstrap_port is no number from 1 to 65535" },
		{ ", \"bootstrap_port\": 1.0", "bootstrap_port is no number from 1 to 65535" },
		{ ", \"labels\": {\"\": \"a\"}", "labels is no object of at most 48 texts" },
		{ ", \"labels\": {\"a\": \"\\n\"}", "labels is no object of at most 48 texts" },
		{ ", \"api_key\": \"a\\r\\nb: c\"", "api_key is no printable text without blanks" },
		{ ", \"tool_parser\": 1", "tool_parser is no text of at most 1024 bytes" },
	};
	const char *why;

	for (size_t i = 0; i < n_elems(bad); i++) {
		assert_null(read("http://h:1", bad[i].more, &why));
		assert_string_equal(why, bad[i].why);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urls_have_one_form),
		cmocka_unit_test(what_is_no_url_is_refused),
		cmocka_unit_test(ranks_are_cut_off),
		cmocka_unit_test(a_target_is_read),
		cmocka_unit_test(a_provider_may_have_a_path),
		cmocka_unit_test(a_paths_length_is_bounded),
		cmocka_unit_test(ranks_are_said_in_many_ways),
		cmocka_unit_test(members_become_labels),
		cmocka_unit_test(costs_are_plain_decimals),
		cmocka_unit_test(models_are_named_once),
		cmocka_unit_test(null_is_as_nothing_and_the_unknown_is_left_out),
		cmocka_unit_test(a_change_keeps_the_rest),
		cmocka_unit_test(what_is_wrong_is_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
