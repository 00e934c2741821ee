#include "unit/unit.h"

#include "registry/record.h"

#define WALL_MS UINT64_C(1767225599999) /* 2025-12-31T23:59:59.999Z */

#define PLAIN                                                                                                \
	"{\"name\":\"a\",\"host\":\"10.0.0.1\",\"port\":8100,\"hostname\":\"n1\",\"url\":\"http://"          \
	"10.0.0.1:8100\","                                                                                   \
	"\"status\":\"running\"}"

static struct record *parse(const char *body, const struct record *base, struct record_refusal *refusal) {
	*refusal = (struct record_refusal){ "" };
	return record_parse(slice_of(body), base, WALL_MS, refusal);
}

static struct record *good(const char *body) {
	struct record_refusal refusal;
	struct record *r = parse(body, NULL, &refusal);
	if (!r)
		fail_msg("%s: %s", body, refusal.text);
	return r;
}

static struct record *changed(const struct record *base, const char *body) {
	struct record_refusal refusal;
	struct record *r = parse(body, base, &refusal);
	if (!r)
		fail_msg("%s: %s", body, refusal.text);
	return r;
}

static void assert_refused(const char *body, const struct record *base, const char *why) {
	struct record_refusal refusal;
	struct record *r = parse(body, base, &refusal);
	if (r)
		fail_msg("taken: %s", body);
	assert_string_equal(refusal.text, why);
}

/* As a client gets it; the two ways of printing must agree. */
static void assert_prints(const struct record *r, bool is_healthy, const char *text) {
	struct record_text t = { .p = NULL };
	record_print(r, is_healthy, &t);
	record_text_put(&t, (struct slice){ "", 1 });
	json_t *object = record_json(r, is_healthy);
	char *dump = json_dumps(object, JSON_COMPACT);
	assert_string_equal(t.p, text);
	assert_string_equal(dump, text);
	free(dump);
	json_decref(object);
	free(t.p);
}

/* PLAIN with one member more or another value for one. */
static char *with(const char *member, const char *value) {
	json_t *object = json_loads(PLAIN, 0, NULL);
	json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);
	assert_non_null(v);
	json_object_set_new(object, member, v);
	char *text = json_dumps(object, 0);
	json_decref(object);
	return text;
}

/* --- shape ------------------------------------------------------------------------------ */

static void an_old_clients_record_has_the_documented_members_in_order(void **state) {
	struct record *r = good(PLAIN);
	assert_prints(r, true,
	    "{\"name\":\"a\",\"host\":\"10.0.0.1\",\"port\":8100,\"hostname\":\"n1\","
	    "\"url\":\"http://"
	    "10.0.0.1:8100\",\"status\":\"running\",\"timestamp\":\"2025-12-31T23:59:59+00:00\","
	    "\"last_heartbeat\":1767225599.0,\"health_status\":\"unknown\",\"is_healthy\":true,\"metadata\":{"
	    "}}");
	assert_true(r->is_running);
	assert_false(r->is_openai || r->has_weight);
	assert_true(r->weight == 1);
	assert_int_equal(r->ttl_s, 0);
	assert_null(r->role);
	record_free(&r);
	assert_null(r);
	record_free(&r);
}

static void the_new_members_follow_as_they_were_sent(void **state) {
	struct record *r =
	    good("{\"ttl\":30,\"labels\":{\"zone\":\"z\",\"n\":[1,null]},\"role\":\"prefill\",\"weight\":3,"
		 "\"metadata\":{\"type\":\"openai-api\",\"weight\":9,\"static\":true},\"timestamp\":\"mine\","
		 "\"last_heartbeat\":5,\"is_healthy\":true,\"extra\":1,\"name\":\"a\",\"host\":\"h\","
		 "\"port\":65535,"
		 "\"hostname\":\"\",\"url\":\"\",\"status\":\"starting\"}");
	r->health = HEALTH_UNHEALTHY;
	r->heartbeat_s++;
	assert_prints(r, false,
	    "{\"name\":\"a\",\"host\":\"h\",\"port\":65535,\"hostname\":\"\",\"url\":\"\",\"status\":"
	    "\"starting\","
	    "\"timestamp\":\"2025-12-31T23:59:59+00:00\",\"last_heartbeat\":1767225600.0,"
	    "\"health_status\":\"unhealthy\",\"is_healthy\":false,"
	    "\"metadata\":{\"type\":\"openai-api\",\"weight\":9,\"static\":true},\"weight\":3,\"role\":"
	    "\"prefill\","
	    "\"labels\":{\"zone\":\"z\",\"n\":[1,null]},\"ttl\":30}");
	assert_true(r->is_openai && r->has_weight && !r->is_running);
	assert_true(r->weight == 3);
	assert_int_equal(r->ttl_s, 30);
	assert_string_equal(r->role, "prefill");
	record_free(&r);
}

static void a_weight_in_the_metadata_is_offered_at_the_top(void **state) {
	char *body = with("metadata", "{\"weight\":2.5}");
	struct record *r = good(body), *next;
	assert_true(r->has_weight && r->weight == 2.5);
	json_t *object = record_json(r, true);
	assert_true(json_number_value(json_object_get(object, "weight")) == 2.5);
	json_decref(object);

	/* and goes with it: it was never sent as a member of its own */
	next = changed(r, "{\"metadata\":{}}");
	assert_false(next->has_weight);
	object = record_json(next, true);
	assert_null(json_object_get(object, "weight"));
	json_decref(object);
	record_free(&next);

	next = changed(r, "{\"weight\":7}");
	assert_true(next->weight == 7);
	record_free(&next);
	free(body);
	record_free(&r);

	static const char *const nonsense[] = { "{\"weight\":\"3\"}", "{\"weight\":-1}", "{\"weight\":true}",
		"{\"weight\":1e300}" };
	for (size_t i = 0; i < n_elems(nonsense); i++) {
		body = with("metadata", nonsense[i]);
		r = good(body);
		assert_false(r->has_weight);
		assert_true(r->weight == 1);
		record_free(&r);
		free(body);
	}
}

static void text_of_all_languages_survives(void **state) {
	char *body = with("name", "\"d\\u00e9j\\u00e0 \\ud83d\\ude00 \\\"q\\\" \\\\ /\"");
	struct record *r = good(body), *again;
	size_t n;
	char *stored = record_stored(r, &n);
	again = record_new_stored((struct slice){ stored, n }, WALL_MS);
	assert_non_null(again);
	assert_string_equal(r->name, "d\xc3\xa9j\xc3\xa0 \xf0\x9f\x98\x80 \"q\" \\ /");
	assert_string_equal(again->name, r->name);
	assert_true(slice_eq(again->head, r->head));
	record_free(&again);
	free(stored);
	record_free(&r);
	free(body);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void what_is_no_object_is_no_json(void **state) {
	static const char *const bodies[] = { "", "{", "nonsense", "[]", "3", "null", "\"name\"", PLAIN "x",
		"{\"name\":\"\\u0000\"}", "{\"name\":\"\xff\"}", "{\"port\":99999999999999999999}" };
	struct record *base = good(PLAIN);
	for (size_t i = 0; i < n_elems(bodies); i++) {
		assert_refused(bodies[i], NULL, "Invalid JSON");
		assert_refused(bodies[i], base, "Invalid JSON");
	}
	record_free(&base);
}

static void missing_members_are_named_in_the_documented_order(void **state) {
	static const char *const required[] = { "name", "host", "port", "hostname", "url", "status" };
	static const char *const values[] = { "\"a\"", "\"h\"", "1", "\"n\"", "\"u\"", "\"s\"" };
	char why[64], body[256] = "{\"metadata\":3", all[300];
	for (size_t i = 0; i < n_elems(required); i++) {
		snprintf(why, sizeof(why), "Missing required field: %s", required[i]);
		snprintf(all, sizeof(all), "%s}", body);
		assert_refused(all, NULL, why);
		snprintf(all, sizeof(all), "%s,\"%s\":null}", body, required[i]);
		assert_refused(all, NULL, why);
		size_t n = strlen(body);
		snprintf(body + n, sizeof(body) - n, ",\"%s\":%s", required[i], values[i]);
	}
	snprintf(all, sizeof(all), "%s}", body);
	assert_refused(all, NULL, "Invalid field: metadata");
}

static char *text_of(char c, size_t n) {
	char *s = malloc(n + 3);
	memset(s + 1, c, n);
	s[0] = s[n + 1] = '"';
	s[n + 2] = '\0';
	return s;
}

static void assert_member(const char *member, const char *value, bool is_good) {
	char why[64], *body = with(member, value);
	snprintf(why, sizeof(why), "Invalid field: %s", member);
	struct record *base = good(PLAIN);
	if (is_good) {
		struct record *r = good(body), *next = changed(base, body);
		record_free(&r);
		record_free(&next);
	} else {
		assert_refused(body, NULL, why);
		if (strcmp(member, "name") != 0)
			assert_refused(body, base, why);
	}
	record_free(&base);
	free(body);
}

static void wrong_values_are_refused(void **state) {
	static const struct {
		const char *member, *value;
		bool is_good;
	} cases[] = {
		{ "name", "\"\"", false },
		{ "name", "3", false },
		{ "name", "\"a\\nb\"", false },
		{ "name", "\"a/b c\"", true },
		{ "host", "\"\"", false },
		{ "host", "[]", false },
		{ "host", "\"h\\u007f\"", false },
		{ "hostname", "\"\"", true },
		{ "hostname", "{}", false },
		{ "url", "\"\"", true },
		{ "url", "true", false },
		{ "url", "\"http://h\\r\\n\"", false },
		{ "status", "\"\"", true },
		{ "status", "1", false },
		{ "status", "\"\\t\"", false },
		{ "port", "0", false },
		{ "port", "1", true },
		{ "port", "65535", true },
		{ "port", "65536", false },
		{ "port", "-1", false },
		{ "port", "\"80\"", false },
		{ "port", "80.0", false },
		{ "port", "true", false },
		{ "ttl", "0", false },
		{ "ttl", "1", true },
		{ "ttl", "86400", true },
		{ "ttl", "86401", false },
		{ "ttl", "1.5", false },
		{ "ttl", "\"5\"", false },
		{ "ttl", "-9223372036854775808", false },
		{ "weight", "0", true },
		{ "weight", "0.5", true },
		{ "weight", "1000000", true },
		{ "weight", "1000001", false },
		{ "weight", "-1", false },
		{ "weight", "\"1\"", false },
		{ "weight", "true", false },
		{ "role", "\"decode\"", true },
		{ "role", "\"\"", true },
		{ "role", "1", false },
		{ "labels", "{}", true },
		{ "labels", "[]", false },
		{ "labels", "\"a\"", false },
		{ "metadata", "{}", true },
		{ "metadata", "[]", false },
		{ "metadata", "1", false },
	};
	for (size_t i = 0; i < n_elems(cases); i++)
		assert_member(cases[i].member, cases[i].value, cases[i].is_good);
}

static void sizes_end_where_they_say(void **state) {
	static const struct {
		const char *member;
		size_t n_max;
	} texts[] = { { "name", 256 }, { "host", 1024 }, { "hostname", 1024 }, { "url", 1024 },
		{ "status", 1024 }, { "role", 1024 } };
	for (size_t i = 0; i < n_elems(texts); i++) {
		char *fits = text_of('x', texts[i].n_max), *exceeds = text_of('x', texts[i].n_max + 1);
		assert_member(texts[i].member, fits, true);
		assert_member(texts[i].member, exceeds, false);
		free(fits);
		free(exceeds);
	}
	static const char *const objects[] = { "metadata", "labels" };
	for (size_t i = 0; i < n_elems(objects); i++) {
		size_t n = 256 * 1024 - strlen("{\"k\":\"\"}");
		char *value = text_of('x', n), *object = malloc(n + 32);
		snprintf(object, n + 32, "{ \"k\" : %s }", value); /* spaces do not count */
		assert_member(objects[i], object, true);
		free(value);
		value = text_of('x', n + 1);
		snprintf(object, n + 32, "{\"k\":%s}", value);
		assert_member(objects[i], object, false);
		free(value);
		free(object);
	}
}

/* --- changes -------------------------------------------------------------------------------------- */

static void a_put_changes_what_it_names_and_nothing_else(void **state) {
	struct record_refusal refusal;
	char *body = with("metadata", "{\"a\":1,\"b\":2}");
	struct record *first = good(body), *r;
	first->health = HEALTH_HEALTHY;
	r = record_parse(
	    SLICE("{\"name\":\"other\",\"status\":\"draining\",\"port\":null,\"metadata\":{\"c\":3},"
		  "\"labels\":{\"l\":1},\"ttl\":7,\"unknown\":[]}"),
	    first, WALL_MS + 5000, &refusal);
	assert_non_null(r);
	assert_prints(r, false,
	    "{\"name\":\"a\",\"host\":\"10.0.0.1\",\"port\":8100,\"hostname\":\"n1\","
	    "\"url\":\"http://10.0.0.1:8100\",\"status\":\"draining\","
	    "\"timestamp\":\"2025-12-31T23:59:59+00:00\",\"last_heartbeat\":1767225604.0,"
	    "\"health_status\":\"healthy\",\"is_healthy\":false,\"metadata\":{\"c\":3},\"labels\":{\"l\":1},"
	    "\"ttl\":7}");
	struct record *same = changed(r, "{\"metadata\":null,\"labels\":null,\"ttl\":null,\"weight\":null}");
	assert_true(slice_eq(same->head, r->head) && slice_eq(same->tail, r->tail));
	record_free(&same);
	record_free(&r);
	record_free(&first);
	free(body);
}

static void a_heartbeat_may_set_the_status(void **state) {
	struct record *first = good(PLAIN);
	struct record *r = record_with_status(first, SLICE("draining"), WALL_MS + 1000);
	assert_non_null(r);
	assert_string_equal(r->status, "draining");
	assert_false(r->is_running);
	assert_int_equal(r->registered_s, first->registered_s);
	assert_int_equal(r->heartbeat_s, first->heartbeat_s + 1);
	record_free(&r);
	char *longer = text_of('x', 1025);
	assert_null(record_with_status(first, (struct slice){ longer + 1, 1025 }, WALL_MS));
	assert_null(record_with_status(first, SLICE("\xff"), WALL_MS));
	assert_null(record_with_status(first, SLICE("a\nb"), WALL_MS));
	free(longer);
	record_free(&first);
}

/* --- the store's text --------------------------------------------------------------------------------- */

static void what_was_stored_comes_back(void **state) {
	static const char *const members[][2] = { { "metadata", "{\"weight\":2,\"x\":[1.5,\"y\"]}" },
		{ "weight", "0.1" }, { "labels", "{\"a\":{\"b\":[]}}" }, { "role", "\"decode\"" },
		{ "ttl", "5" }, { "status", "\"draining\"" } };
	for (size_t i = 0; i < n_elems(members); i++) {
		size_t n;
		char *body = with(members[i][0], members[i][1]);
		struct record *r = good(body);
		char *stored = record_stored(r, &n);
		assert_int_equal(strlen(stored), n);
		struct record *again = record_new_stored((struct slice){ stored, n }, WALL_MS + 60000);
		assert_non_null(again);
		assert_true(slice_eq(again->head, r->head) && slice_eq(again->tail, r->tail));
		assert_int_equal(again->n_derived, r->n_derived);
		assert_int_equal(again->registered_s, r->registered_s);
		assert_int_equal(again->heartbeat_s, r->heartbeat_s + 60);
		assert_int_equal(again->health, HEALTH_UNKNOWN);
		assert_int_equal(again->ttl_s, r->ttl_s);
		assert_true(again->weight == r->weight);
		record_free(&again);
		free(stored);
		record_free(&r);
		free(body);
	}
}

/* Every cut and every flipped bit is refused or gives a record that is good by itself; none may crash. */
static void damaged_stored_text_is_no_record(void **state) {
	size_t n;
	char *body = with("metadata", "{\"type\":\"openai-api\"}");
	struct record *r = good(body), *again;
	char *stored = record_stored(r, &n);
	for (size_t cut = 0; cut < n; cut++)
		assert_null(record_new_stored((struct slice){ stored, cut }, WALL_MS));
	for (size_t bit = 0; bit < 8 * n; bit++) {
		stored[bit / 8] ^= (char)(1 << bit % 8);
		again = record_new_stored((struct slice){ stored, n }, WALL_MS);
		if (again) {
			char *second = record_stored(again, &(size_t){ 0 });
			free(second);
		}
		record_free(&again);
		stored[bit / 8] ^= (char)(1 << bit % 8);
	}
	assert_null(record_new_stored(SLICE(PLAIN), WALL_MS)); /* no timestamp */
	free(stored);
	record_free(&r);
	free(body);
}

static void health_has_three_names(void **state) {
	assert_string_equal(record_health_name(HEALTH_UNKNOWN), "unknown");
	assert_string_equal(record_health_name(HEALTH_HEALTHY), "healthy");
	assert_string_equal(record_health_name(HEALTH_UNHEALTHY), "unhealthy");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_old_clients_record_has_the_documented_members_in_order),
		cmocka_unit_test(the_new_members_follow_as_they_were_sent),
		cmocka_unit_test(a_weight_in_the_metadata_is_offered_at_the_top),
		cmocka_unit_test(text_of_all_languages_survives),
		cmocka_unit_test(what_is_no_object_is_no_json),
		cmocka_unit_test(missing_members_are_named_in_the_documented_order),
		cmocka_unit_test(wrong_values_are_refused),
		cmocka_unit_test(sizes_end_where_they_say),
		cmocka_unit_test(a_put_changes_what_it_names_and_nothing_else),
		cmocka_unit_test(a_heartbeat_may_set_the_status),
		cmocka_unit_test(what_was_stored_comes_back),
		cmocka_unit_test(damaged_stored_text_is_no_record),
		cmocka_unit_test(health_has_three_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
