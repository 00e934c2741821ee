#include "unit/unit.h"

#include <unistd.h>

#include "sim/trace_file.h"

#define S 1000000000ull

/* Reads `text` as a file into `trace`; the message without the file's name, NULL: it was good. */
static const char *read_text(struct trace *trace, const char *text) {
	static char message[TRACE_FILE_MESSAGE_BYTES];
	char path[] = "/tmp/test_trace_file.XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	trace_init(trace);
	bool is_good = trace_file_read(trace, path, message);
	unlink(path);
	if (is_good)
		return NULL;
	assert_memory_equal(message, path, strlen(path));
	return message + strlen(path);
}

static void mooncake(void **state) {
	const uint64_t blocks[] = { 0, 7, 4000000000000 };
	struct trace t;

	assert_null(read_text(&t,
	    "{\"timestamp\": 27000, \"input_length\": 1100, \"output_length\": 5, "
	    "\"hash_ids\": [0, 7, 4000000000000]}\n\n"
	    "{\"output_length\":0,\"timestamp\":30000.5,\"input_length\":0,\"hash_ids\":[],\"more\":1}"));
	assert_int_equal(t.n, 2);
	assert_int_equal(t.requests[0].at_ns, 27 * S);
	assert_int_equal(t.requests[0].n_input_tokens, 1100);
	assert_int_equal(t.requests[0].n_output_tokens, 5);
	assert_int_equal(t.requests[0].n_blocks, 3);
	assert_int_equal(t.requests[0].session, 0);
	assert_memory_equal(trace_blocks(&t, &t.requests[0]), blocks, sizeof(blocks));
	assert_int_equal(t.requests[1].at_ns, 30 * S + 500000);
	assert_int_equal(t.requests[1].n_blocks, 0);
	trace_deinit(&t);
}

static void azure(void **state) {
	struct trace t;

	assert_null(read_text(&t,
	    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
	    "2023-11-16 23:59:59.9799600,374,44\r\n"
	    "2023-11-17 00:00:01,396,109\r\n"
	    "2024-03-01 00:00:00.5+00:00,1,0\r\n"));
	assert_int_equal(t.n, 3);
	assert_int_equal(t.requests[0].at_ns, 1700179199ull * S + 979960000);
	assert_int_equal(t.requests[0].n_input_tokens, 374);
	assert_int_equal(t.requests[0].n_output_tokens, 44);
	assert_int_equal(t.requests[0].n_blocks, 0);
	assert_int_equal(t.requests[1].at_ns, 1700179201ull * S);
	assert_int_equal(t.requests[2].at_ns, 1709251200ull * S + 500000000);
	trace_deinit(&t);
}

static void decision_log(void **state) {
	const uint64_t blocks[] = { 0xffffffffffffffff, 0x1a };
	struct trace t;

	assert_null(read_text(&t,
	    "{\"id\":\"x\",\"ts_ns\":12,\"prompt_tokens\":600,\"output_tokens\":3,"
	    "\"blocks\":[\"ffffffffffffffff\",\"1A\"],\"session\":\"c0ffee\"}\n"
	    "{\"ts_ns\":9,\"prompt_tokens\":1,\"output_tokens\":1}\n"));
	assert_int_equal(t.n, 2);
	assert_int_equal(t.requests[0].at_ns, 12);
	assert_int_equal(t.requests[0].n_input_tokens, 600);
	assert_int_equal(t.requests[0].n_output_tokens, 3);
	assert_int_equal(t.requests[0].session, 0xc0ffee);
	assert_memory_equal(trace_blocks(&t, &t.requests[0]), blocks, sizeof(blocks));
	assert_int_equal(t.requests[1].n_blocks, 0);
	assert_int_equal(t.requests[1].session, 0);
	trace_deinit(&t);
}

#define MOONCAKE "{\"timestamp\":1,\"input_length\":2,\"output_length\":3,\"hash_ids\":[4]}\n"
#define AZURE    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374,44\n"
#define DECISION "{\"ts_ns\":1,\"prompt_tokens\":2,\"output_tokens\":3,\"blocks\":[\"4\"]}\n"

static void mistakes_have_a_line_and_a_name(void **state) {
	const struct {
		const char *text, *where, *what;
	} bad[] = {
		{ "", ":1: ", "no requests" },
		{ "\n\n", ":3: ", "no requests" },
		{ "TIMESTAMP,ContextTokens,GeneratedTokens\n", ":2: ", "no requests" },
		{ "hello\n", ":1: ", "expected JSON lines" },
		{ "[1]\n", ":1: ", "expected JSON lines" },
		{ "{\"timestamp\": 1, \"input\n", ":1: ", "broken JSON" },
		{ MOONCAKE "{\"timestamp\":\n", ":2: ", "broken JSON" },
		{ MOONCAKE "7\n", ":2: ", "broken JSON" },
		{ MOONCAKE "[]\n", ":2: ", "expected a JSON object" },
		{ MOONCAKE "{}\n", ":2: ", "timestamp: " },
		{ MOONCAKE "{\"timestamp\":-1}\n", ":2: ", "timestamp: " },
		{ MOONCAKE "{\"timestamp\":1e99}\n", ":2: ", "timestamp: " },
		{ MOONCAKE "{\"timestamp\":1,\"input_length\":-2}\n", ":2: ", "input_length: " },
		{ MOONCAKE "{\"timestamp\":1,\"input_length\":100000001}\n", ":2: ", "input_length: " },
		{ MOONCAKE "{\"timestamp\":1,\"input_length\":2,\"output_length\":\"3\"}\n",
		    ":2: ", "output_length: " },
		{ MOONCAKE "{\"timestamp\":1,\"input_length\":2,\"output_length\":3}\n",
		    ":2: ", "hash_ids: " },
		{ MOONCAKE "{\"timestamp\":1,\"input_length\":2,\"output_length\":3,\"hash_ids\":[1,-1]}\n",
		    ":2: ", "hash_ids: " },
		{ MOONCAKE "{\"timestamp\":1,\"input_length\":2,\"output_length\":3,\"hash_ids\":[\"1\"]}\n",
		    ":2: ", "hash_ids: " },
		{ MOONCAKE DECISION, ":2: ", "timestamp: " }, /* one format a file */
		{ DECISION MOONCAKE, ":2: ", "ts_ns: " },
		{ DECISION "{\"ts_ns\":-1}\n", ":2: ", "ts_ns: " },
		{ DECISION "{\"ts_ns\":1,\"prompt_tokens\":-2}\n", ":2: ", "prompt_tokens: " },
		{ DECISION "{\"ts_ns\":1,\"prompt_tokens\":2}\n", ":2: ", "output_tokens: " },
		{ DECISION "{\"ts_ns\":1,\"prompt_tokens\":2,\"output_tokens\":3,\"blocks\":[\"\"]}\n",
		    ":2: ", "blocks: " },
		{ DECISION "{\"ts_ns\":1,\"prompt_tokens\":2,\"output_tokens\":3,"
			   "\"blocks\":[\"12345678123456789\"]}\n",
		    ":2: ", "blocks: " },
		{ DECISION "{\"ts_ns\":1,\"prompt_tokens\":2,\"output_tokens\":3,\"blocks\":[\"0g\"]}\n",
		    ":2: ", "blocks: " },
		{ DECISION "{\"ts_ns\":1,\"prompt_tokens\":2,\"output_tokens\":3,\"blocks\":{}}\n",
		    ":2: ", "blocks: " },
		{ DECISION "{\"ts_ns\":1,\"prompt_tokens\":2,\"output_tokens\":3,\"session\":7}\n",
		    ":2: ", "session: " },
		{ AZURE "2023-11-16 18:15:46,374\n", ":3: ", "three fields" },
		{ AZURE "2023-11-16 18:15:46,374,44,1\n", ":3: ", "three fields" },
		{ AZURE "2023-11-16 18:15:46,-374,44\n", ":3: ", "token counts" },
		{ AZURE "2023-11-16 18:15:46,374,100000001\n", ":3: ", "token counts" },
		{ AZURE "2023-11-16T18:15:46,374,44\n", ":3: ", "a time" },
		{ AZURE "2023-13-16 18:15:46,374,44\n", ":3: ", "a time" },
		{ AZURE "2023-00-16 18:15:46,374,44\n", ":3: ", "a time" },
		{ AZURE "1969-11-16 18:15:46,374,44\n", ":3: ", "a time" },
		{ AZURE "2023-11-16 18:15:46.,374,44\n", ":3: ", "a time" },
		{ AZURE "2023-11-16 18:15:46.5x,374,44\n", ":3: ", "a time" },
		{ AZURE "2023-11-16 18:15,374,44\n", ":3: ", "a time" },
	};

	for (size_t i = 0; i < n_elems(bad); i++) {
		struct trace t;
		const char *message = read_text(&t, bad[i].text);

		if (!message || strncmp(message, bad[i].where, strlen(bad[i].where)) ||
		    !strstr(message, bad[i].what))
			fail_msg("row %zu: %s", i, message ? message : "it was good");
		trace_deinit(&t);
	}
}

static void a_file_that_is_not_there(void **state) {
	char message[TRACE_FILE_MESSAGE_BYTES];
	struct trace t;

	trace_init(&t);
	assert_false(trace_file_read(&t, "/nowhere/at/all", message));
	assert_string_equal(message, "/nowhere/at/all: No such file or directory");
	assert_false(trace_file_read(&t, "/", message));
	assert_string_equal(message, "/:1: Is a directory");
	trace_deinit(&t);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mooncake),
		cmocka_unit_test(azure),
		cmocka_unit_test(decision_log),
		cmocka_unit_test(mistakes_have_a_line_and_a_name),
		cmocka_unit_test(a_file_that_is_not_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
