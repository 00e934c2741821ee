#include "unit/unit.h"

#include <jansson.h>

static unsigned n_looks; /* into objects of a record */

#define json_object_get(object, key) (n_looks++, json_object_get(object, key))
#include "discovery/service.c"
#undef json_object_get

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
		{ "{\"name\":\"n\",\"host\":\"0.0.0.0\",\"port\":1," TYPE "}", SERVICE_E_BAD,
		    "its host is a wildcard" },
		{ "{\"name\":\"n\",\"host\":\"::\",\"port\":1," TYPE "}", SERVICE_E_BAD,
		    "its host is a wildcard" },
		{ "{\"name\":\"n\",\"host\":\"*\",\"port\":1," TYPE "}", SERVICE_E_BAD, "no host" },
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
	assert_false(s->spec.instance.is_tls);
	service_free(&s);

	s = parsed("{" ENGINE ",\"url\":\"HTTPS://elsewhere:1\"," TYPE "}");
	assert_text(s->spec.instance.url, "https://h:8000");
	assert_text(s->spec.instance.authority, "h:8000");
	assert_true(s->spec.instance.is_tls);
	service_free(&s);
}

static void weights_are_found_and_bounded(void **state) {
	static const struct {
		const char *top, *meta;
		unsigned weight;
	} rows[] = {
		{ "", "", 1000 },
		{ ",\"weight\":5", "", 5000 },
		{ "", ",\"weight\":6", 6000 },
		{ ",\"weight\":5", ",\"weight\":6", 5000 },
		{ ",\"weight\":null", ",\"weight\":6", 6000 },
		{ ",\"weight\":\"5\"", "", 1000 },
		{ ",\"weight\":0", ",\"weight\":6", 0 },
		{ ",\"weight\":0.0", "", 0 },
		{ ",\"weight\":-5", "", 1000 },
		{ ",\"weight\":-5", ",\"weight\":6", 6000 },
		{ ",\"weight\":2.9", "", 2900 },
		{ ",\"weight\":0.29", "", 290 }, /* as a double it is a little less */
		{ ",\"weight\":1e-300", "", 1 },
		{ ",\"weight\":2000", "", 2000000 },
		{ ",\"weight\":999999.9999", "", FLEET_WEIGHT_MAX },
		{ ",\"weight\":1000000", "", FLEET_WEIGHT_MAX },
		{ ",\"weight\":1000001", "", FLEET_WEIGHT_MAX },
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

	s = parsed("{" ENGINE ",\"metadata\":{\"type\":\"openai-api\",\"models\":[\"a\"],"
		   "\"models_list\":[{\"id\":\"a\",\"x\":1},{\"id\":\"a\",\"x\":2}]}}");
	assert_text(s->spec.models.items[0].value, "{\"id\":\"a\",\"x\":1}"); /* the first one counts */
	service_free(&s);
}

/* What a record may have much of. Texts are of n_bytes, with a number in front. */
static json_t *many_texts(unsigned n, int n_bytes) {
	json_t *texts = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(texts, json_sprintf("%0*u", n_bytes, i));
	return texts;
}

static json_t *many_labels(unsigned n, int n_bytes) {
	json_t *labels = json_object();

	for (unsigned i = 0; i < n; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%u", i);
		json_object_set_new(labels, key, json_sprintf("%0*u", n_bytes, i));
	}
	return labels;
}

static json_t *many_objects(unsigned n) {
	json_t *objects = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(objects, json_pack("{s:i}", "id", (int)i));
	return objects;
}

/* One object for a name that is there many times. */
static json_t *large_object(unsigned n_bytes) {
	return json_pack("[{s:s, s:o}]", "id", "0", "x", json_sprintf("%0*u", (int)n_bytes, 0));
}

static json_t *same_texts(unsigned n) {
	json_t *texts = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(texts, json_string("0"));
	return texts;
}

/* A record's metadata has these members. NULL: it is taken, otherwise why it is not. Takes both. */
static const char *judged_with(const char *key, json_t *value, const char *other_key, json_t *other) {
	json_t *metadata = json_pack("{s:s}", "type", "openai-api");
	struct service *s;

	json_object_set_new(metadata, key, value);
	if (other_key)
		json_object_set_new(metadata, other_key, other);
	json_t *record =
	    json_pack("{s:s, s:s, s:i, s:o}", "name", "n", "host", "h", "port", 1, "metadata", metadata);
	int r = service_parse(record, &s, &why);
	assert_int_equal(r, why ? SERVICE_E_BAD : 0);
	assert_true(!s == (r != 0));
	service_free(&s);
	json_decref(record);
	return why;
}

static void assert_why(const char *said, const char *expected) {
	if (expected)
		assert_string_equal(said, expected);
	else
		assert_null(said);
}

static void too_much_of_anything_is_refused(void **state) {
	const unsigned models = FLEET_MODELS_MAX, labels = FLEET_LABELS_MAX;
	const int name = FLEET_MODEL_BYTES_MAX, label = FLEET_LABELS_BYTES_MAX / 8 - (int)sizeof("k0") - 1;
	/* All but the text itself: type, key, quotes and what else a record has. */
	const int rest = (int)strlen("{\"name\":\"n\",\"host\":\"h\",\"port\":1,\"metadata\":"
				     "{\"type\":\"openai-api\",\"x\":[\"\"]}}");
	const int all = (int)SERVICE_BYTES_MAX - rest;

	assert_why(judged_with("models", many_texts(models, 4), NULL, NULL), NULL);
	assert_why(judged_with("models", many_texts(models + 1, 4), NULL, NULL), "too many models");
	assert_why(judged_with("models", many_texts(1, name), NULL, NULL), NULL);
	assert_why(judged_with("models", many_texts(1, name + 1), NULL, NULL), "a model's name is too long");
	assert_why(judged_with("models_list", many_objects(models), NULL, NULL), NULL);
	assert_why(judged_with("models_list", many_objects(models + 1), NULL, NULL), "too many models");
	assert_why(judged_with("models", same_texts(models), "models_list", large_object(900)), NULL);
	assert_why(judged_with("models", same_texts(models), "models_list", large_object(1024)),
	    "its models are too large");
	assert_why(judged_with("labels", many_labels(labels, 2), NULL, NULL), NULL);
	assert_why(judged_with("labels", many_labels(labels + 1, 2), NULL, NULL), "too many labels");
	assert_why(
	    judged_with("labels", many_labels(labels, 2), "role", json_string("r")), "too many labels");
	assert_why(judged_with("labels", many_labels(8, label), NULL, NULL), NULL);
	assert_why(judged_with("labels", many_labels(8, label + 1), NULL, NULL), "its labels are too large");
	assert_why(judged_with("x", many_texts(1, all), NULL, NULL), NULL);
	assert_why(judged_with("x", many_texts(1, all + 1), NULL, NULL), "it is too large");
}

/* Records of this size are read in the thread that serves all others. */
static void many_models_are_few_looks(void **state) {
	json_t *ids = many_texts(FLEET_MODELS_MAX, 4);
	json_t *objects = json_array();

	for (size_t i = 0; i < FLEET_MODELS_MAX; i++)
		json_array_append_new(objects, json_pack("{s:O}", "id", json_array_get(ids, i)));
	n_looks = 0;
	assert_why(judged_with("models", ids, "models_list", objects), NULL);
	assert_in_range(n_looks, FLEET_MODELS_MAX, 3 * FLEET_MODELS_MAX);
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
		bool is_alive, is_leaving, is_draining;
	} rows[] = {
		{ "", true, false, false },
		{ ",\"status\":\"running\",\"is_healthy\":true", true, false, false },
		{ ",\"status\":\"running\",\"is_healthy\":false", false, false, false },
		{ ",\"status\":\"draining\",\"is_healthy\":false", true, false, true },
		{ ",\"status\":\"stopped\",\"is_healthy\":false", false, true, false },
		{ ",\"status\":7,\"is_healthy\":null", true, false, false },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		char text[256];

		snprintf(text, sizeof(text), "{" ENGINE "," TYPE "%s}", rows[i].more);
		struct service *s = parsed(text);
		assert_int_equal(s->is_alive, rows[i].is_alive);
		assert_int_equal(s->is_leaving, rows[i].is_leaving);
		assert_int_equal(s->spec.is_draining, rows[i].is_draining);
		service_free(&s);
	}
}

static void the_url_may_name_a_rank(void **state) {
	struct service *s = parsed("{" ENGINE "," TYPE ",\"url\":\"https://elsewhere:1@12\"}");

	assert_text(s->spec.instance.name, "n");
	assert_text(s->spec.instance.url, "https://h:8000@12");
	assert_text(s->spec.instance.authority, "h:8000");
	assert_true(s->spec.instance.has_rank);
	assert_int_equal(s->spec.instance.rank, 12);
	service_free(&s);
	s = parsed("{" ENGINE "," TYPE ",\"url\":\"http://h:8000@x\"}");
	assert_text(s->spec.instance.url, "http://h:8000");
	assert_false(s->spec.instance.has_rank);
	service_free(&s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_are_judged),
		cmocka_unit_test(a_target_is_made_of_host_and_port),
		cmocka_unit_test(weights_are_found_and_bounded),
		cmocka_unit_test(models_come_with_their_objects),
		cmocka_unit_test(too_much_of_anything_is_refused),
		cmocka_unit_test(many_models_are_few_looks),
		cmocka_unit_test(labels_and_role_are_kept),
		cmocka_unit_test(who_is_alive_and_who_leaves),
		cmocka_unit_test(the_url_may_name_a_rank),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
