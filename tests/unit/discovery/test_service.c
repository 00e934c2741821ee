#include "unit/unit.h"

#include "discovery/service.h"

#define ENGINE "\"name\":\"n\",\"host\":\"h\",\"port\":8000"
#define TYPE   "\"metadata\":{\"type\":\"openai-api\"}"

static const char *why;

/* The outcome; a service to free on 0. */
static int parse(const char *text, struct service **service_out) {
	json_t *record = json_loads(text, JSON_DECODE_ANY, NULL);

	assert_non_null(record);
	int r = service_parse(record, service_out, &why);
	json_decref(record); /* the service has its own */
	assert_true((r == 0) == (*service_out != NULL));
	return r;
}

static struct service *parsed(const char *text) {
	struct service *s;

	assert_int_equal(parse(text, &s), 0);
	return s;
}

static void assert_text(struct slice text, const char *expected) {
	assert_true(slice_eq(text, slice_of(expected)));
}

static void records_are_judged(void **state) {
	static const struct {
		const char *text;
		int outcome;
		const char *why;
	} rows[] = {
		{ "{" ENGINE "," TYPE "}", 0, NULL },
		{ "{" ENGINE "}", SERVICE_E_OTHER, NULL },
		{ "{" ENGINE ",\"metadata\":7}", SERVICE_E_OTHER, NULL },
		{ "{" ENGINE ",\"metadata\":{\"type\":\"vLLM\"}}", SERVICE_E_OTHER, NULL },
		{ "null", SERVICE_E_BAD, "not an object" },
		{ "[]", SERVICE_E_BAD, "not an object" },
		{ "{\"host\":\"h\",\"port\":1," TYPE "}", SERVICE_E_BAD, "no name" },
		{ "{\"name\":\"\",\"host\":\"h\",\"port\":1," TYPE "}", SERVICE_E_BAD, "no name" },
		{ "{\"name\":7,\"host\":\"h\",\"port\":1," TYPE "}", SERVICE_E_BAD, "no name" },
		{ "{\"name\":\"n\",\"port\":1," TYPE "}", SERVICE_E_BAD, "no host" },
		{ "{\"name\":\"n\",\"host\":\"a/b\",\"port\":1," TYPE "}", SERVICE_E_BAD, "no host" },
		{ "{\"name\":\"n\",\"host\":\"a\\r\\nb\",\"port\":1," TYPE "}", SERVICE_E_BAD, "no host" },
		{ "{\"name\":\"n\",\"host\":\"h\"," TYPE "}", SERVICE_E_BAD, "no port" },
		{ "{\"name\":\"n\",\"host\":\"h\",\"port\":0," TYPE "}", SERVICE_E_BAD, "no port" },
		{ "{\"name\":\"n\",\"host\":\"h\",\"port\":65536," TYPE "}", SERVICE_E_BAD, "no port" },
		{ "{\"name\":\"n\",\"host\":\"h\",\"port\":\"80\"," TYPE "}", SERVICE_E_BAD, "no port" },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct service *s;

		assert_int_equal(parse(rows[i].text, &s), rows[i].outcome);
		if (rows[i].why)
			assert_string_equal(why, rows[i].why);
		service_free(&s);
	}
}

static void a_target_is_made_of_host_and_port(void **state) {
	struct service *s = parsed("{" ENGINE ",\"url\":\"http://elsewhere:1\"," TYPE "}");

	assert_text(s->spec.instance.name, "n");
	assert_text(s->spec.instance.url, "http://h:8000");
	assert_text(s->spec.instance.authority, "h:8000");
	assert_int_equal(s->spec.instance.port, 8000);
	assert_true(s->is_alive && !s->is_leaving);
	service_free(&s);

	s = parsed("{\"name\":\"n\",\"host\":\"::1\",\"port\":65535," TYPE "}");
	assert_text(s->spec.instance.url, "http://[::1]:65535");
	assert_text(s->spec.instance.authority, "[::1]:65535");
	assert_text(s->spec.instance.host, "::1");
	service_free(&s);
}

static void weights_are_found_and_bounded(void **state) {
	static const struct {
		const char *top, *meta;
		unsigned weight;
	} rows[] = {
		{ "", "", 1 },
		{ ",\"weight\":5", "", 5 },
		{ "", ",\"weight\":6", 6 },
		{ ",\"weight\":5", ",\"weight\":6", 5 },
		{ ",\"weight\":null", ",\"weight\":6", 6 },
		{ ",\"weight\":\"5\"", "", 1 },
		{ ",\"weight\":0", "", 1 },
		{ ",\"weight\":-5", "", 1 },
		{ ",\"weight\":2.9", "", 2 },
		{ ",\"weight\":1e300", "", FLEET_WEIGHT_MAX },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		char text[256];

		snprintf(text, sizeof(text), "{" ENGINE "%s,\"metadata\":{\"type\":\"openai-api\"%s}}",
		    rows[i].top, rows[i].meta);
		struct service *s = parsed(text);
		assert_int_equal(s->spec.weight, rows[i].weight);
		service_free(&s);
	}
}

static void models_come_with_their_objects(void **state) {
	struct service *s =
	    parsed("{" ENGINE ",\"metadata\":{\"type\":\"openai-api\",\"models\":[\"a\",7,\"\",\"b\"],"
		   "\"models_list\":[{\"id\":\"b\",\"x\":1},7,{\"id\":\"c\"}]}}");

	assert_int_equal(s->spec.models.n, 2);
	assert_text(s->spec.models.items[0].key, "a");
	assert_int_equal(s->spec.models.items[0].value.n, 0);
	assert_text(s->spec.models.items[1].key, "b");
	assert_text(s->spec.models.items[1].value, "{\"id\":\"b\",\"x\":1}");
	service_free(&s);
}

static void too_many_models_are_cut(void **state) {
	json_t *models = json_array();

	for (unsigned i = 0; i < FLEET_MODELS_MAX + 5; i++)
		json_array_append_new(models, json_sprintf("m%u", i));
	json_t *record = json_pack("{s:s, s:s, s:i, s:{s:s, s:o}}", "name", "n", "host", "h", "port", 1,
	    "metadata", "type", "openai-api", "models", models);
	struct service *s;
	assert_int_equal(service_parse(record, &s, &why), 0);
	assert_int_equal(s->spec.models.n, FLEET_MODELS_MAX);
	service_free(&s);
	json_decref(record);
}

static void labels_and_role_are_kept(void **state) {
	struct service *s =
	    parsed("{" ENGINE ",\"role\":\"prefill\",\"labels\":{\"zone\":\"a\",\"n\":7},"
		   "\"metadata\":{\"type\":\"openai-api\",\"role\":\"decode\",\"labels\":{\"zone\":"
		   "\"b\",\"rack\":\"r\"},\"static\":true}}");
	static const struct pair expected[] = { { SLICE("role"), SLICE("prefill") },
		{ SLICE("zone"), SLICE("a") }, { SLICE("rack"), SLICE("r") } };

	assert_true(pairs_eq(s->spec.labels, (struct pairs){ expected, n_elems(expected) }));
	assert_non_null(strstr(s->spec.metadata.p, "\"static\":true"));
	service_free(&s);
}

static void who_is_alive_and_who_leaves(void **state) {
	static const struct {
		const char *more;
		bool is_alive, is_leaving;
	} rows[] = {
		{ "", true, false },
		{ ",\"status\":\"running\",\"is_healthy\":true", true, false },
		{ ",\"status\":\"running\",\"is_healthy\":false", false, false },
		{ ",\"status\":\"draining\",\"is_healthy\":false", false, true },
		{ ",\"status\":7,\"is_healthy\":null", true, false },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		char text[256];

		snprintf(text, sizeof(text), "{" ENGINE "," TYPE "%s}", rows[i].more);
		struct service *s = parsed(text);
		assert_int_equal(s->is_alive, rows[i].is_alive);
		assert_int_equal(s->is_leaving, rows[i].is_leaving);
		service_free(&s);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_are_judged),
		cmocka_unit_test(a_target_is_made_of_host_and_port),
		cmocka_unit_test(weights_are_found_and_bounded),
		cmocka_unit_test(models_come_with_their_objects),
		cmocka_unit_test(too_many_models_are_cut),
		cmocka_unit_test(labels_and_role_are_kept),
		cmocka_unit_test(who_is_alive_and_who_leaves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
