#include "unit/babysitter/yard.h"

/* An output between two pipes that the test writes and a file that it reads. */
struct desk {
	struct rig rig;
	struct output output;
	struct output_rules rules;
	struct log_writer *writer;
	char folder[64], path[96];
	int out, err; /* our ends */
	char *text;   /* of the file, after desk_close() */
	unsigned n_offered;
	char offered[16][64];
};

static void desk_on_line(struct output *o, struct slice line) {
	struct desk *d = container_of(o, struct desk, output);
	if (d->n_offered < n_elems(d->offered))
		snprintf(d->offered[d->n_offered], sizeof(d->offered[0]), "%.*s", (int)line.n, line.p);
	d->n_offered++;
}

static void desk_attach(struct desk *d) {
	int out[2], err[2];
	assert_int_equal(pipe2(out, O_CLOEXEC | O_NONBLOCK) | pipe2(err, O_CLOEXEC | O_NONBLOCK), 0);
	fcntl(out[1], F_SETPIPE_SZ, 1 << 20);
	output_attach(&d->output, out[0], err[0]);
	d->out = out[1];
	d->err = err[1];
}

static void desk_open(struct desk *d, struct output_rules rules) {
	*d = (struct desk){ .folder = "/tmp/output_XXXXXX", .rules = rules };
	assert_non_null(mkdtemp(d->folder));
	snprintf(d->path, sizeof(d->path), "%s/log", d->folder);
	rig_open(&d->rig);
	d->writer = log_writer_new(d->path, 1);
	output_init(&d->output, &d->rig.loop, log_writer_ring(d->writer, 0), &d->rules);
	d->output.on_line = desk_on_line;
	desk_attach(d);
}

static void say(int fd, const char *text) {
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* Both pipes end; all of it is in d->text then. */
static void desk_close(struct desk *d) {
	size_t n;
	close(d->out);
	close(d->err);
	rig_until(&d->rig, d->output.streams[0].fd < 0 && d->output.streams[1].fd < 0);
	output_close(&d->output);
	log_writer_free(&d->writer);
	rig_close(&d->rig);
	FILE *f = fopen(d->path, "r"), *copy = open_memstream(&d->text, &n);
	for (int c = fgetc(f); c != EOF; c = fgetc(f))
		fputc(c, copy);
	fclose(f);
	fclose(copy);
	folder_remove(d->folder);
}

static unsigned count(const char *text, char c) {
	unsigned n = 0;
	for (; *text; text++)
		n += *text == c;
	return n;
}

static void lines_have_a_prefix(void **state) {
	struct desk d;
	desk_open(&d, (struct output_rules){ .prefix = "[a] " });
	say(d.out, "one\ntw");
	rig_until(&d.rig, d.output.n_bytes == 6);
	assert_int_equal(d.n_offered, 1);
	say(d.out, "o\r\n\nlast");
	rig_until(&d.rig, d.output.n_bytes == 14);
	desk_close(&d);
	assert_string_equal(d.text, "[a] one\n[a] two\n[a] \n[a] last\n");
	assert_int_equal(d.n_offered, 4);
	assert_string_equal(d.offered[1], "two");
	assert_string_equal(d.offered[3], "last");
	free(d.text);
}

static void the_streams_do_not_mix(void **state) {
	struct desk d;
	desk_open(&d, (struct output_rules){ .prefix = "" });
	say(d.out, "o1");
	say(d.err, "e1");
	rig_until(&d.rig, d.output.n_bytes == 4);
	say(d.out, "o2\n");
	rig_until(&d.rig, d.output.n_bytes == 7);
	say(d.err, "e2\n");
	desk_close(&d);
	assert_string_equal(d.text, "o1o2\ne1e2\n");
	free(d.text);
}

/* At the limit, one above it, and twice: 8192 fit. */
static void long_lines_are_split(void **state) {
	static const struct {
		unsigned n, n_lines;
	} cases[] = { { 8191, 1 }, { 8192, 1 }, { 8193, 2 }, { 16384, 2 }, { 16385, 3 } };
	for (size_t i = 0; i < n_elems(cases); i++) {
		struct desk d;
		char text[20000];
		desk_open(&d, (struct output_rules){ .prefix = "" });
		memset(text, 'x', cases[i].n);
		snprintf(text + cases[i].n, 10, "\nend\n");
		say(d.out, text);
		desk_close(&d);
		assert_int_equal(count(d.text, 'x'), cases[i].n);
		assert_int_equal(count(d.text, '\n'), cases[i].n_lines + 1);
		assert_string_equal(d.text + strlen(d.text) - 5, "\nend\n");
		free(d.text);
	}
}

/* A second's worth passes; the rest is counted and said, and all of it was offered. */
static void above_the_rate_lines_are_counted(void **state) {
	struct desk d;
	desk_open(&d, (struct output_rules){ .prefix = "[a] ", .max_lines_s = 10 });
	for (unsigned i = 0; i < 100; i++)
		say(d.out, "line\n");
	rig_until(&d.rig, d.output.n_lines == 100);
	assert_int_equal(d.n_offered, 100);
	assert_int_equal(d.output.n_dropped_total, 90);
	desk_close(&d);
	assert_int_equal(count(d.text, '\n'), 11);
	assert_non_null(strstr(d.text, "[a] (90 lines, 450 bytes were not written: "));
	free(d.text);
}

static void the_rate_of_bytes(void **state) {
	struct desk d;
	char line[1001];
	memset(line, 'x', sizeof(line));
	line[999] = '\n';
	line[1000] = '\0';
	desk_open(&d, (struct output_rules){ .prefix = "", .max_bytes_s = 20000 });
	for (unsigned i = 0; i < 100; i++)
		say(d.out, line);
	rig_until(&d.rig, d.output.n_lines == 100);
	desk_close(&d);
	assert_in_range(count(d.text, 'x'), 19 * 999, 25 * 999); /* some flows in while they are read */
	free(d.text);
}

/* Told within a second also when nothing follows. */
static void what_was_dropped_is_told_in_time(void **state) {
	struct desk d;
	desk_open(&d, (struct output_rules){ .prefix = "", .max_lines_s = 1 });
	say(d.out, "1\n2\n3\n");
	rig_until(&d.rig, d.output.n_dropped == 2);
	rig_until(&d.rig, d.output.n_dropped == 0);
	desk_close(&d);
	assert_string_equal(d.text, "1\n(2 lines, 4 bytes were not written: too many at a time)\n");
	free(d.text);
}

/* Nobody looks at the lines: they are counted without being cut. */
static void a_flood_is_counted_exactly(void **state) {
	struct desk d;
	char text[50001];
	desk_open(&d, (struct output_rules){ .prefix = "", .max_lines_s = 5 });
	d.output.on_line = NULL;
	for (unsigned i = 0; i < 25000; i++)
		memcpy(text + 2 * i, "y\n", 2);
	text[50000] = '\0';
	unsigned n_said = 0;
	for (unsigned i = 0; i < 40; i++) {
		say(d.out, text);
		say(d.out, "half");
		n_said += 25000;
		rig_until(&d.rig, d.output.n_bytes == (i + 1) * 50004u);
	}
	desk_close(&d);
	assert_int_equal(d.output.n_lines, n_said + 1);
	assert_int_equal(count(d.text, '\n'),
	    n_said + 1 - d.output.n_dropped_total +
		/* lines that tell of it */ count(d.text, '('));
	free(d.text);
}

static uint64_t still_ns;

static uint64_t still_clock(void) {
	return still_ns;
}

/* L48: whatever comes, a stream is one slice every other millisecond. */
static void a_flood_is_read_in_slices(void **state) {
	static char text[4 * OUTPUT_SLICE_BYTES];
	struct desk d;
	still_ns = clock_now_ns();
	clock_set_source(still_clock);
	desk_open(&d, (struct output_rules){ .prefix = "", .max_lines_s = 5 });
	d.output.on_line = NULL;
	memset(text, '\n', sizeof(text));
	assert_int_equal(write(d.out, text, sizeof(text)), sizeof(text));
	for (unsigned i = 1; i <= 4; i++) {
		rig_until(&d.rig, d.output.n_bytes == i * OUTPUT_SLICE_BYTES);
		rig_spin(&d.rig, 20);
		assert_int_equal(d.output.n_bytes, i * OUTPUT_SLICE_BYTES);
		still_ns += 2000000;
	}
	clock_set_source(NULL);
	desk_close(&d);
	free(d.text);
}

static void a_new_pair_takes_over(void **state) {
	struct desk d;
	desk_open(&d, (struct output_rules){ .prefix = "" });
	int out = d.out, err = d.err;
	say(out, "of the first, without an end");
	desk_attach(&d);
	assert_int_equal(d.n_offered, 1);
	say(d.out, "of the second\n");
	close(out);
	close(err);
	desk_close(&d);
	assert_string_equal(d.text, "of the first, without an end\nof the second\n");
	free(d.text);
}

/* --- real children -------------------------------------------------------------------- */

/* More than any pipe holds, to a log that takes nothing: the child comes to its end. */
static void a_child_never_waits_for_the_log(void **state) {
	struct yard y;
	char path[96];
	yard_init(&y);
	snprintf(path, sizeof(path), "%s/fifo", y.folder);
	assert_int_equal(mkfifo(path, 0600), 0);
	int reader = open(path, O_RDONLY | O_NONBLOCK); /* who never reads */
	struct log_writer *writer = log_writer_new(path, 1);
	assert_non_null(writer);
	y.argv[0] = "/bin/sh";
	y.argv[1] = "-c";
	y.argv[2] = "yes 'a line of no interest' | head -c 8000000; exec sleep 100 >/dev/null 2>&1";
	yard_open(&y, log_writer_ring(writer, 0));
	y.keeper.output.on_line = NULL;
	keeper_tell(&y.keeper, CHILD_E_START);
	yard_until(&y, y.keeper.output.n_bytes == 8000000);
	assert_true(y.keeper.output.n_dropped_total > 100000);
	close(reader); /* the writer gets EPIPE and gives up */
	yard_close(&y);
	log_writer_free(&writer);
}

/* `yes`: the log grows at its rate, whatever comes. */
static void a_flood_costs_its_rate(void **state) {
	struct yard y;
	char path[96];
	struct stat st;
	yard_init(&y);
	snprintf(path, sizeof(path), "%s/log", y.folder);
	struct log_writer *writer = log_writer_new(path, 1);
	y.config.output.max_lines_s = OUTPUT_LINES_S;
	y.config.output.max_bytes_s = OUTPUT_BYTES_S;
	y.argv[0] = "yes";
	yard_open(&y, log_writer_ring(writer, 0));
	y.keeper.output.on_line = NULL;
	uint64_t since_ns = clock_now_ns();
	keeper_tell(&y.keeper, CHILD_E_START);
	yard_until(&y, y.keeper.output.n_bytes > 10000000);
	uint64_t n_seconds = (clock_now_ns() - since_ns) / 1000000000u + 1;
	yard_stop(&y);
	log_writer_free(&writer);
	y.keeper.output.ring = NULL; /* it goes before the keeper here, so that the file is whole */
	assert_int_equal(stat(path, &st), 0);
	uint64_t n_lines = y.keeper.output.n_lines - y.keeper.output.n_dropped_total;
	assert_in_range(n_lines, OUTPUT_LINES_S, OUTPUT_LINES_S * (n_seconds + 1));
	assert_true((uint64_t)st.st_size <= (n_lines * strlen("[engine] y\n") + (n_seconds + 1) * 128));
	yard_close(&y);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_have_a_prefix),
		cmocka_unit_test(the_streams_do_not_mix),
		cmocka_unit_test(long_lines_are_split),
		cmocka_unit_test(above_the_rate_lines_are_counted),
		cmocka_unit_test(the_rate_of_bytes),
		cmocka_unit_test(what_was_dropped_is_told_in_time),
		cmocka_unit_test(a_flood_is_counted_exactly),
		cmocka_unit_test(a_flood_is_read_in_slices),
		cmocka_unit_test(a_new_pair_takes_over),
		cmocka_unit_test(a_child_never_waits_for_the_log),
		cmocka_unit_test(a_flood_costs_its_rate),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
