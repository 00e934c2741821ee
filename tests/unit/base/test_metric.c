#include "unit/unit.h"

#include "base/metric.h"
#include "base/slice.h"

static struct metric_shard shards[3];
static struct metric_shard *const all[] = { &shards[0], &shards[1], &shards[2] };

static int clear(void **state) {
	memset(shards, 0, sizeof(shards));
	return 0;
}

/* The exposition as text; the caller frees it. */
static char *exposition(void) {
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	metric_write(out, all, n_elems(all));
	fclose(out);
	return text;
}

static const char *model_text(uint32_t label) {
	static const char *const texts[] = { "other", "qwen", "lla\"ma\\\n" };
	return label < n_elems(texts) ? texts[label] : "many";
}

static const char *instance_text(uint32_t label) {
	return label ? "gpu0" : "other";
}

static char *requests(void) {
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	metric_write_requests(out, all, n_elems(all), model_text, instance_text);
	fclose(out);
	return text;
}

/* How many lines of `text` are `line`. */
static unsigned count_lines(const char *text, const char *line) {
	unsigned n = 0;
	size_t line_n = strlen(line);
	for (const char *p = text; *p; p = strchr(p, '\n') + 1)
		n += strncmp(p, line, line_n) == 0 && p[line_n] == '\n';
	return n;
}

static void assert_has_line(const char *text, const char *line) {
	if (count_lines(text, line) != 1)
		fail_msg("%u times \"%s\" in:\n%s", count_lines(text, line), line, text);
}

static void counters_are_summed(void **state) {
	metric_add(&shards[0].picks, 1);
	metric_add(&shards[1].picks, 20);
	metric_add(&shards[2].picks, 300);
	metric_add(&shards[0].tokens_in, 7);
	metric_add(&shards[2].tokens_estimated, 8);
	char *text = exposition();
	assert_has_line(text, "# TYPE headrace_picks_total counter");
	assert_has_line(text, "headrace_picks_total 321");
	assert_has_line(text, "headrace_client_aborts_total 0");
	assert_has_line(text, "# TYPE headrace_tokens_total counter"); /* once for the three rows */
	assert_has_line(text, "headrace_tokens_total{kind=\"prompt\"} 7");
	assert_has_line(text, "headrace_tokens_total{kind=\"completion\"} 0");
	assert_has_line(text, "headrace_tokens_total{kind=\"completion_estimated\"} 8");
	free(text);
}

static void times_fall_into_buckets(void **state) {
	static const struct {
		uint64_t ns;
		unsigned bucket;
	} rows[] = {
		{ 0, 0 },
		{ 249999, 0 },
		{ 250001, 1 },
		{ 499999, 1 },
		{ 500001, 2 },
		{ 1000001, 3 },
		{ 65535999999, 18 },
		{ 65536000001, 19 },
		{ UINT64_MAX, 19 },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct metric_histogram h = { 0 };
		metric_observe(&h, rows[i].ns);
		for (unsigned b = 0; b < METRIC_BUCKETS; b++)
			assert_int_equal(metric_read(&h.buckets[b]), b == rows[i].bucket);
		assert_int_equal(metric_read(&h.sum_ns), rows[i].ns);
	}
}

static void a_histogram_is_written_cumulatively(void **state) {
	metric_observe(&shards[0].request, 100000);
	metric_observe(&shards[1].request, 300000);
	metric_observe(&shards[2].request, 400000000000);
	char *text = exposition();
	assert_has_line(text, "# TYPE headrace_request_seconds histogram");
	assert_has_line(text, "headrace_request_seconds_bucket{le=\"0.00025\"} 1");
	assert_has_line(text, "headrace_request_seconds_bucket{le=\"0.0005\"} 2");
	assert_has_line(text, "headrace_request_seconds_bucket{le=\"65.536\"} 2");
	assert_has_line(text, "headrace_request_seconds_bucket{le=\"+Inf\"} 3");
	assert_has_line(text, "headrace_request_seconds_sum 400.0004");
	assert_has_line(text, "headrace_request_seconds_count 3");
	free(text);
}

/* `le` says less or equal. */
static void a_bound_belongs_to_its_bucket(void **state) {
	metric_observe(&shards[0].request, 250000);
	metric_observe(&shards[0].request, 500000);
	char *text = exposition();
	bool ok = count_lines(text, "headrace_request_seconds_bucket{le=\"0.00025\"} 1") == 1 &&
	    count_lines(text, "headrace_request_seconds_bucket{le=\"0.0005\"} 2") == 1;
	free(text);
	assert_true(ok);
}

static void requests_are_counted_by_key(void **state) {
	for (unsigned i = 0; i < 5; i++)
		metric_count_request(&shards[i % 2], 1, 1, 200);
	metric_count_request(&shards[0], 1, 1, 503);
	metric_count_request(&shards[1], 0, 0, 404);
	metric_count_request(&shards[2], 0, 0, 404);
	metric_count_request(&shards[2], 65535, 1, 599);
	char *text = requests();
	assert_has_line(text, "# TYPE headrace_requests_total counter");
	assert_has_line(text, "headrace_requests_total{model=\"qwen\",instance=\"gpu0\",code=\"200\"} 5");
	assert_has_line(text, "headrace_requests_total{model=\"qwen\",instance=\"gpu0\",code=\"503\"} 1");
	assert_has_line(text, "headrace_requests_total{model=\"other\",instance=\"other\",code=\"404\"} 2");
	assert_has_line(text, "headrace_requests_total{model=\"many\",instance=\"gpu0\",code=\"599\"} 1");
	assert_int_equal(shards[0].n_tallies, 2);
	free(text);
}

/* However many keys there are, the table does not fill up and nothing is lost. */
static void too_many_keys_are_other(void **state) {
	for (uint32_t model = 3; model < 20003; model++)
		metric_count_request(&shards[0], model, 9, 200);
	assert_int_equal(shards[0].n_tallies, METRIC_TALLY_SIZE / 4 * 3 + 1);
	for (uint32_t model = 3; model < 20003; model++)
		metric_count_request(&shards[0], model, 9, 200);
	assert_int_equal(shards[0].n_tallies, METRIC_TALLY_SIZE / 4 * 3 + 1);

	char *text = requests(), line[100];
	snprintf(line, sizeof(line),
	    "headrace_requests_total{model=\"other\",instance=\"other\",code=\"200\"} %u",
	    2 * (20000 - METRIC_TALLY_SIZE / 4 * 3));
	assert_has_line(text, line);
	assert_int_equal(
	    count_lines(text, "headrace_requests_total{model=\"many\",instance=\"gpu0\",code=\"200\"} 2"),
	    METRIC_TALLY_SIZE / 4 * 3);
	free(text);
}

static void labels_are_escaped(void **state) {
	metric_count_request(&shards[0], 2, 0, 200);
	char *text = requests();
	assert_has_line(
	    text, "headrace_requests_total{model=\"lla\\\"ma\\\\\\n\",instance=\"other\",code=\"200\"} 1");
	free(text);

	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	metric_write_family(out, "a_total", "gauge", "Some.");
	metric_write_row(out, "a_total", NULL, NULL, 1234567890123.0);
	metric_write_row(out, "a_total", "x", "\"", 0.5);
	metric_write_labelled(out, "a_total", (struct metric_label[]){ { "x", "y" }, { "z", "\n" } }, 2, 3);
	fclose(out);
	assert_string_equal(text,
	    "# HELP a_total Some.\n# TYPE a_total gauge\na_total 1234567890123\na_total{x=\"\\\"\"} 0.5\n"
	    "a_total{x=\"y\",z=\"\\n\"} 3\n");
	free(text);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(counters_are_summed, clear),
		cmocka_unit_test(times_fall_into_buckets),
		cmocka_unit_test_setup(a_histogram_is_written_cumulatively, clear),
		cmocka_unit_test_setup(a_bound_belongs_to_its_bucket, clear),
		cmocka_unit_test_setup(requests_are_counted_by_key, clear),
		cmocka_unit_test_setup(too_many_keys_are_other, clear),
		cmocka_unit_test_setup(labels_are_escaped, clear),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
