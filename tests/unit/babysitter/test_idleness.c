#include "unit/unit.h"

#include "babysitter/idleness.h"

static void requests_are_counted_by_their_metrics(void **state) {
	static const struct {
		const char *text;
		int64_t n;
	} rows[] = {
		{ "", -1 },
		{ "process_cpu_seconds_total 3\n", -1 },
		{ "vllm:num_requests_running{model_name=\"a b\"} 3.0\nvllm:num_requests_waiting{x=\"y\"} 2\n",
		    5 },
		{ "# HELP vllm:num_requests_running x 7\nvllm:num_requests_running 0.0", 0 },
		{ "vllm:num_requests_running_total 9\n", -1 },
		{ "sglang:num_running_reqs{} 1\nsglang:num_queue_reqs{} 1\n", 2 },
		{ "llamacpp:requests_processing 4\r\n", 4 },
		{ "vllm:num_requests_running NaN\n", -1 },
		{ "vllm:num_requests_running -1\n", -1 },
		{ "vllm:num_requests_running{a=\"1\"} 1\nvllm:num_requests_running{a=\"2\"} 1e0\n", 2 },
	};
	for (size_t i = 0; i < n_elems(rows); i++)
		if (idleness_count_requests(slice_of(rows[i].text)) != rows[i].n)
			fail_msg("row %zu gives %lld", i,
			    (long long)idleness_count_requests(slice_of(rows[i].text)));
}

static void connections_are_counted_by_their_port(void **state) {
	char table[] =
	    "  sl  local_address rem_address   st tx_queue\n"
	    "   0: 0100007F:1F90 00000000:0000 0A 00000000\n" /* listens */
	    "   1: 0100007F:1F90 0100007F:D2C4 01 00000000\n" /* one */
	    "   2: 0100007F:D2C4 0100007F:1F90 01 00000000\n" /* its other end */
	    "   3: 0100007F:1F90 0100007F:D2C5 06 00000000\n" /* waits to be forgotten */
	    "   4: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:D2C6 01 0\n" /* two
													*/
	    "   5: 0100007F:1F91 0100007F:D2C4 01 00000000\n"
	    "garbage\n\n";
	FILE *f = fmemopen(table, sizeof(table) - 1, "r");
	assert_int_equal(idleness_count_connections(f, 8080), 2);
	fclose(f);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_counted_by_their_metrics),
		cmocka_unit_test(connections_are_counted_by_their_port),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
