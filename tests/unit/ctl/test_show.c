#include "unit/unit.h"

#include "ctl/grid.h"
#include "ctl/show.h"

/* What is printed of this JSON. */
static char *shown(void (*show)(const json_t *json, FILE *out), const char *text) {
	json_t *json = json_loads(text, 0, NULL);
	char *line = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&line, &n);

	assert_non_null(json);
	show(json, out);
	fclose(out);
	json_decref(json);
	return line;
}

static void assert_shown(
    void (*show)(const json_t *json, FILE *out), const char *text, const char *expected) {
	char *is = shown(show, text);

	assert_string_equal(is, expected);
	free(is);
}

static void cells_stand_in_columns(void **state) {
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	struct grid g;

	grid_init(&g, 3);
	g.is_number[1] = true;
	for (unsigned i = 0; i < 3; i++)
		grid_add(&g, "%c", 'A' + i);
	grid_add(&g, "long");
	grid_add(&g, "1000");
	grid_add(&g, "x\x1b[2J\n");
	grid_print(&g, out);
	fclose(out);
	assert_string_equal(text, "A        B  C\nlong  1000  x?[2J?\n");
	free(text);
	grid_deinit(&g);
}

#define ROW(name, rest) "{\"instance\":\"" name "\",\"state\":\"ready\"," rest "}"
#define LOAD            "\"load\":{\"requests\":2,\"prefill_tokens\":700},\"cached_tokens\":96"

static void an_explanation_is_a_table(void **state) {
	assert_shown(show_explanation,
	    "{\"policy\":\"cache_aware\",\"snapshot\":7,\"reason\":\"prefix_hit\",\"reasoning\":\"gpu-1: it "
	    "has it (prefix_hit)\","
	    "\"refusal\":null,"
	    "\"demand\":{\"model\":\"m\",\"capability\":\"chat\",\"prompt_tokens\":50,\"prompt_bytes\":200,"
	    "\"session\":true},\"rows\":[" ROW("gpu-1",
		"\"eligible\":true,\"codes\":[],\"score\":0.25,\"parts\":{\"queue_s\":0.2,\"kv_s\":0.05}"
		"," LOAD) "," ROW("b",
		"\"eligible\":true,\"codes\":[],\"score\":null,\"probability\":0.5," LOAD) "," ROW("c",
		"\"eligible\":false,\"rejections\":[{\"text\":\"is being drained\"},{\"text\":\"is "
		"full\"}],\"score\":null," LOAD) "," ROW("d",
		"\"eligible\":false,\"rejections\":[],\"score\":null," LOAD) "]}",
	    "policy   cache_aware, snapshot 7\n"
	    "request  model m, chat, prompt of 50 tokens in 200 bytes, of a session\n"
	    "chosen   gpu-1: it has it (prefix_hit)\n"
	    "\n"
	    "#  INSTANCE  STATE  SCORE                               CACHED  REQUESTS  QUEUED  WHY\n"
	    "1  gpu-1     ready  0.250 = 0.200 queue_s + 0.050 kv_s      96         2     700  chosen\n"
	    "2  b         ready  -                                       96         2     700  eligible, "
	    "with a "
	    "chance of 50.0 %\n"
	    "-  c         ready  -                                       96         2     700  is being "
	    "drained; "
	    "is full\n"
	    "-  d         ready  -                                       96         2     700  others come "
	    "before it\n");
}

static void a_refusal_is_said(void **state) {
	char *is = shown(show_explanation,
	    "{\"policy\":\"random\",\"reason\":null,\"reasoning\":\"nobody: they are "
	    "out\",\"refusal\":{\"status\":503,\"code\":\"no_healthy_"
	    "instance\"},"
	    "\"demand\":{},\"rows\":[" ROW(
		"a", "\"eligible\":false,\"rejections\":[],\"score\":null," LOAD) "]}");

	assert_non_null(strstr(is, "  others are waited for\n"));
	assert_non_null(strstr(is, "refused  with 503 no_healthy_instance; nobody: they are out\n"));
	assert_null(strstr(is, "chosen"));
	free(is);
	is = shown(show_decision, "{\"refusal\":\"privacy_violation\",\"reasoning\":\"nobody: none may\"}");
	assert_non_null(strstr(is, "refused  with privacy_violation; nobody: none may\n"));
	free(is);
}

static void a_decision_says_what_became_of_it(void **state) {
	assert_shown(show_decision,
	    "{\"id\":\"0-1\",\"request_id\":\"r\",\"ts\":\"T\",\"capability\":\"chat\",\"model\":\"m\","
	    "\"prompt_tokens\":50,\"prompt_bytes\":200,\"session\":false,\"predicted_cached_tokens\":40,"
	    "\"actual_cached_tokens\":32,\"policy\":\"round_robin\",\"snapshot\":3,\"reasoning\":\"b: it is "
	    "its turn\","
	    "\"chosen\":{\"instance\":\"b\",\"score\":null},\"alternatives\":[],"
	    "\"rejected\":[{\"instance\":\"a\",\"code\":\"avoided\",\"text\":\"is left "
	    "alone\"}],\"n_candidates\":2,\"n_eligible\":1,"
	    "\"pick_ns\":1500,\"attempts\":[{\"instance\":\"a\",\"cause\":\"connect_failed\"},"
	    "{\"instance\":\"b\",\"cause\":\"none\"}],\"settled\":true,\"status\":200,\"cause\":\"none\","
	    "\"total_ms\":12.5}",
	    "decision 0-1 at T, request r\n"
	    "request  model m, chat, prompt of 50 tokens in 200 bytes, of no session\n"
	    "policy   round_robin, snapshot 3, 1 of 2 eligible, decided in 1.5 us\n"
	    "chosen   b: it is its turn\n"
	    "attempt  1: a, connect_failed\n"
	    "attempt  2: b, good\n"
	    "cache    40 tokens were expected in it, 32 were there\n"
	    "ended    with 200, cause none, after 12.5 ms\n"
	    "\n"
	    "INSTANCE  SCORE  WHY\n"
	    "b         -      chosen\n"
	    "a         -      is left alone\n");
}

static void breakers_are_a_table(void **state) {
	assert_shown(show_breakers,
	    "{\"breakers\":[{\"instance\":\"a\",\"state\":\"open\",\"failures\":0,\"successes\":0,\"probed\":"
	    "false,"
	    "\"left_ms\":41250,\"last_failure_ms\":18750,\"outcomes\":{\"good\":5120,\"bad\":12,\"neutral\":"
	    "3}},"
	    "{\"instance\":\"b\",\"state\":\"closed\",\"failures\":2,\"last_failure_ms\":null}]}",
	    "INSTANCE  STATE   FAILURES  SUCCESSES  LEFT_S  LAST_FAILURE_S  GOOD  BAD  NEUTRAL\n"
	    "a         open           0          0    41.2            18.8  5120   12        3\n"
	    "b         closed         2          -       -               -     -    -        -\n");
}

/* Of another version, say. */
static void instances_are_a_table(void **state) {
	assert_shown(show_instances,
	    "{\"instances\":[{\"instance\":\"a\",\"source\":\"static\",\"state\":\"draining\",\"drained_by\":"
	    "\"operator\",\"weight\":2.5,\"in_flight\":3,\"wished\":{}},{\"instance\":\"gone\",\"source\":"
	    "null,"
	    "\"state\":null,\"drained_by\":null,\"weight\":null,\"in_flight\":0,\"wished\":{}}]}",
	    "INSTANCE  SOURCE  STATE     DRAINED_BY  WEIGHT  IN_FLIGHT\n"
	    "a         static  draining  operator     2.500          3\n"
	    "gone      -       absent    -                -          0\n");
}

static void what_is_not_there_is_a_dash(void **state) {
	char *is = shown(show_decisions, "{\"decisions\":[{\"id\":\"0-1\"}]}");

	assert_non_null(strstr(is, "\n-     0-1"));
	free(is);
	free(shown(show_decisions, "{}"));
	free(shown(show_decision, "{\"chosen\":1,\"attempts\":{},\"rejected\":[3],\"alternatives\":[null]}"));
	free(shown(show_breakers, "{\"breakers\":[3,{\"outcomes\":[]}]}"));
	free(shown(show_explanation, "{\"rows\":[1,{\"codes\":[5]}],\"demand\":[]}"));
}

static void an_upgrade_is_a_line(void **state) {
	assert_shown(show_upgrade, "{\"pid\":17,\"path\":\"/usr/bin/headrace\"}",
	    "process 17 serves now, started from /usr/bin/headrace\n");
	free(shown(show_upgrade, "{}"));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cells_stand_in_columns),
		cmocka_unit_test(an_explanation_is_a_table),
		cmocka_unit_test(a_refusal_is_said),
		cmocka_unit_test(a_decision_says_what_became_of_it),
		cmocka_unit_test(breakers_are_a_table),
		cmocka_unit_test(instances_are_a_table),
		cmocka_unit_test(an_upgrade_is_a_line),
		cmocka_unit_test(what_is_not_there_is_a_dash),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
