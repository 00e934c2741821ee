#include "unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/log_writer.c"

static char folder[] = "/tmp/log_writer_XXXXXX", path[64];

static int folder_make(void **state) {
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/log", folder);
	return 0;
}

static int folder_remove(void **state) {
	return rmdir(folder);
}

static int path_remove(void **state) {
	return unlink(path);
}

/* Puts one line; where there is no room, waits for the writer and tries again. How many tries were dropped.
 */
static uint64_t put_surely(struct log_ring *r, struct slice line) {
	uint64_t n_dropped = 0;
	while (!log_ring_put(r, line)) {
		n_dropped++;
		sched_yield();
	}
	return n_dropped;
}

/* A line of ring `ring` with a number in it; its length depends on the number. */
static struct slice numbered(char room[300], unsigned ring, unsigned number) {
	static const char filler[] =
	    "........................................................................"
	    "........................................................................";
	int n = snprintf(room, 300, "%u %u %.*s\n", ring, number, (int)(number * 37 % 131), filler);
	return (struct slice){ room, (size_t)n };
}

/* All that is in the file; the caller frees it. */
static char *file_text(const char *name, size_t *n_out) {
	FILE *f = fopen(name, "r");
	assert_non_null(f);
	char *text = NULL;
	size_t n = 0;
	FILE *copy = open_memstream(&text, &n);
	for (int c = fgetc(f); c != EOF; c = fgetc(f))
		fputc(c, copy);
	fclose(copy);
	fclose(f);
	*n_out = n;
	return text;
}

/* Every line of `text` is a whole one, those of each ring in order; returns how many there are. */
static unsigned check_lines(const char *text, size_t n, unsigned n_rings) {
	unsigned next[4] = { 0 }, n_lines = 0;
	const char *p = text;
	while (p < text + n) {
		char line[300], *end;
		unsigned ring = (unsigned)(*p - '0');
		assert_true(ring < n_rings);
		next[ring] = (unsigned)strtoul(p + 2, &end, 10);
		struct slice s = numbered(line, ring, next[ring]);
		assert_true((size_t)(text + n - p) >= s.n);
		assert_memory_equal(p, s.p, s.n);
		p += s.n;
		n_lines++;
	}
	return n_lines;
}

static void *producer_main(void *arg) {
	struct log_ring *r = arg;
	char room[300];
	unsigned ring = (unsigned)(r - log_writer_ring(r->writer, 0));
	for (unsigned i = 0; i < 30000; i++)
		put_surely(r, numbered(room, ring, i));
	return NULL;
}

/* Three times around each ring, by a thread of its own. */
static void every_line_is_written_whole(void **state) {
	enum { N_RINGS = 3 };
	struct log_writer *w = log_writer_new(path, N_RINGS);
	pthread_t threads[N_RINGS];
	for (unsigned i = 0; i < N_RINGS; i++)
		pthread_create(&threads[i], NULL, producer_main, log_writer_ring(w, i));
	for (unsigned i = 0; i < N_RINGS; i++)
		pthread_join(threads[i], NULL);
	assert_true(atomic_load(&log_writer_ring(w, 0)->written) > 3 * LOG_RING_BYTES);
	log_writer_free(&w);
	assert_null(w);
	log_writer_free(&w);
	size_t n;
	char *text = file_text(path, &n);
	assert_int_equal(check_lines(text, n, N_RINGS), N_RINGS * 30000);
	free(text);
}

static void a_file_is_appended_to(void **state) {
	for (unsigned i = 0; i < 2; i++) {
		struct log_writer *w = log_writer_new(path, 1);
		assert_true(log_ring_put(log_writer_ring(w, 0), i ? SLICE("two\n") : SLICE("one\n")));
		log_writer_free(&w);
	}
	size_t n;
	char *text = file_text(path, &n);
	assert_int_equal(n, 8);
	assert_memory_equal(text, "one\ntwo\n", 8);
	free(text);
	struct stat st;
	stat(path, &st);
	assert_int_equal(st.st_mode & 07, 0); /* not for everybody's eyes */
}

/* A line that comes while the writer sleeps wakes it. */
static void a_sleeping_writer_wakes(void **state) {
	struct log_writer *w = log_writer_new(path, 1);
	struct log_ring *r = log_writer_ring(w, 0);
	for (unsigned i = 1; i <= 3; i++) {
		while (!atomic_load(&w->is_asleep))
			sched_yield();
		assert_true(log_ring_put(r, SLICE("line\n")));
		while (atomic_load(&r->taken) < 5 * i)
			sched_yield();
	}
	log_writer_free(&w);
}

static void what_cannot_be_opened_is_null(void **state) {
	errno = 0;
	assert_null(log_writer_new("/nonexistent/log", 1));
	assert_int_equal(errno, ENOENT);
}

/* The pipe is full, and all that was taken from the ring stands in it: the writer takes no more for now. */
static bool is_stuck(const struct log_ring *r, int pipe_fd) {
	struct pollfd pipe = { .fd = pipe_fd, .events = POLLOUT };
	int n_bytes = 0;
	return !poll(&pipe, 1, 0) && !ioctl(pipe_fd, FIONREAD, &n_bytes) &&
	    atomic_load(&r->taken) == (uint64_t)n_bytes;
}

/*
 * Fills the ring of a writer that cannot write: the pipe, if there is one, is full too.
 * What comes then is dropped and counted. How many lines stand in both.
 */
static unsigned fill_up(struct log_ring *r, int pipe_fd) {
	char room[300];
	unsigned n = 0;
	for (bool is_last = false; !is_last;) {
		is_last = pipe_fd < 0 || is_stuck(r, pipe_fd);
		while (log_ring_put(r, numbered(room, 0, n)))
			n++;
	}
	uint64_t dropped = atomic_load(&r->n_dropped);
	for (unsigned i = 0; i < 10; i++)
		assert_false(log_ring_put(r, (struct slice){ room, sizeof(room) }));
	assert_int_equal(atomic_load(&r->n_dropped), dropped + 10);
	return n;
}

static void a_full_disk_drops_and_counts(void **state) {
	struct log_writer *w = log_writer_new("/dev/full", 1);
	struct log_ring *r = log_writer_ring(w, 0);
	fill_up(r, -1);
	assert_int_equal(atomic_load(&r->n_dropped), 11);
	assert_int_equal(atomic_load(&r->taken), 0);
	assert_true(LOG_RING_BYTES - atomic_load(&r->written) < 300);
	log_writer_free(&w); /* does not wait for ever */
}

static void a_ring_can_be_filled_to_the_last_byte(void **state) {
	static char half[LOG_RING_BYTES / 2];
	struct log_writer *w = log_writer_new("/dev/full", 1);
	struct log_ring *r = log_writer_ring(w, 0);
	struct slice line = { half, sizeof(half) };
	assert_true(log_ring_put(r, line));
	assert_true(log_ring_put(r, line));
	assert_false(log_ring_put(r, SLICE("x")));
	log_writer_free(&w);
}

/* Opens the fifo's reading end and a writer on it. */
static struct log_writer *fifo_open(int *reader_out) {
	assert_int_equal(mkfifo(path, 0600), 0);
	*reader_out = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(*reader_out >= 0);
	return log_writer_new(path, 1);
}

/* Reads until `n` bytes are there. */
static char *read_all(int fd, size_t n) {
	char *text = malloc(n + 1);
	for (size_t k = 0; k < n;) {
		ssize_t part = read(fd, text + k, n - k);
		if (part > 0)
			k += (size_t)part;
		else
			sched_yield();
	}
	assert_true(read(fd, text + n, 1) <= 0);
	return text;
}

static void a_reader_that_stops_holds_nobody(void **state) {
	int reader;
	struct log_writer *w = fifo_open(&reader);
	struct log_ring *r = log_writer_ring(w, 0);
	int probe = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	unsigned n = fill_up(r, probe);
	close(probe);
	size_t n_bytes = atomic_load(&r->written);
	assert_true(n_bytes > LOG_RING_BYTES);
	char *text = read_all(reader, n_bytes);
	assert_int_equal(check_lines(text, n_bytes, 1), n);
	free(text);
	assert_true(log_ring_put(r, SLICE("again\n")));
	text = read_all(reader, 6);
	assert_memory_equal(text, "again\n", 6);
	free(text);
	log_writer_free(&w);
	close(reader);
}

static void a_reader_that_left_may_come_back(void **state) {
	int reader;
	struct log_writer *w = fifo_open(&reader);
	struct log_ring *r = log_writer_ring(w, 0);
	assert_true(log_ring_put(r, SLICE("first\n")));
	free(read_all(reader, 6));
	while (atomic_load(&r->taken) < 6)
		sched_yield();
	close(reader);
	unsigned n = fill_up(r, -1); /* SIGPIPE would end us here */
	reader = open(path, O_RDONLY | O_NONBLOCK);
	size_t n_bytes = atomic_load(&r->written) - 6;
	char *text = read_all(reader, n_bytes);
	assert_int_equal(check_lines(text, n_bytes, 1), n);
	free(text);
	log_writer_free(&w);
	close(reader);
}

static void a_dash_is_standard_output(void **state) {
	fflush(stdout);
	int real = dup(STDOUT_FILENO), file = open(path, O_WRONLY | O_CREAT, 0600);
	dup2(file, STDOUT_FILENO);
	struct log_writer *w = log_writer_new("-", 1);
	bool put = log_ring_put(log_writer_ring(w, 0), SLICE("to stdout\n"));
	log_writer_free(&w);
	bool is_open = fcntl(STDOUT_FILENO, F_GETFD) >= 0;
	dup2(real, STDOUT_FILENO);
	close(real);
	close(file);
	size_t n;
	char *text = file_text(path, &n);
	assert_true(put && is_open);
	assert_int_equal(n, 10);
	assert_memory_equal(text, "to stdout\n", 10);
	free(text);
}

/* --- a file a day ------------------------------------------------------------------------- */

#define NEW_YEAR_MS UINT64_C(1767225600000) /* 2026-01-01T00:00:00Z */

static _Atomic uint64_t wall_ms;

static uint64_t wall_now(void) {
	return atomic_load(&wall_ms);
}

static int days_begin(void **state) {
	atomic_store(&wall_ms, NEW_YEAR_MS - 1);
	clock_set_wall_source(wall_now);
	return 0;
}

static int days_end(void **state) {
	clock_set_wall_source(NULL);
	return 0;
}

/* Where the lines of this day are. */
static const char *day_name(char room[96], const char *day) {
	snprintf(room, 96, "%s.%s", path, day);
	return room;
}

/* Puts numbered lines, from `n` on, until the file is there; the number of the next one. */
static unsigned put_until(struct log_ring *r, unsigned n, const char *file) {
	struct stat st;
	char room[300];
	while (stat(file, &st) < 0 || !S_ISREG(st.st_mode))
		put_surely(r, numbered(room, 0, n++));
	return n;
}

/* The lines of both, one after the other, are all that were put; then neither is there any more. */
static void check_days(const char *first, const char *second, unsigned n_lines) {
	size_t n1, n2;
	char *a = file_text(first, &n1), *b = file_text(second, &n2);
	a = realloc(a, n1 + n2 + 1);
	memcpy(a + n1, b, n2);
	assert_true(n1 > 0 && a[n1 - 1] == '\n');
	assert_true(n2 > 0);
	assert_int_equal(check_lines(a, n1 + n2, 1), n_lines);
	free(a);
	free(b);
	unlink(first);
	unlink(second);
}

static void a_day_has_a_file_of_its_own(void **state) {
	char old[96], new[96], room[300];
	day_name(old, "2025-12-31");
	day_name(new, "2026-01-01");
	struct log_writer *w = log_writer_new_daily(path, 1);
	struct log_ring *r = log_writer_ring(w, 0);
	int fd = log_writer_fd(w);
	put_surely(r, numbered(room, 0, 0));
	while (atomic_load(&r->taken) < atomic_load(&r->written))
		sched_yield();
	assert_int_equal(access(new, F_OK), -1);
	atomic_store(&wall_ms, NEW_YEAR_MS);
	unsigned n = put_until(r, 1, new);
	put_surely(r, numbered(room, 0, n++));
	assert_int_equal(log_writer_fd(w), fd);
	log_writer_free(&w);
	check_days(old, new, n);
}

static void a_day_that_cannot_be_opened_goes_on_in_the_last_file(void **state) {
	char old[96], new[96], said[64], room[300];
	struct stat st = { .st_size = 0 };
	snprintf(said, sizeof(said), "%s/said", folder);
	int fd = open(said, O_WRONLY | O_APPEND | O_CREAT, 0600);
	assert_int_equal(mkdir(day_name(new, "2026-01-01"), 0700), 0);
	struct log_writer *w = log_writer_new_daily(path, 1);
	struct log_ring *r = log_writer_ring(w, 0);
	unsigned n = put_until(r, 0, day_name(old, "2025-12-31"));
	put_surely(r, numbered(room, 0, n++));
	log_copy_to(fd);
	atomic_store(&wall_ms, NEW_YEAR_MS);
	for (; !st.st_size; fstat(fd, &st))
		put_surely(r, numbered(room, 0, n++));
	log_copy_to(-1);
	assert_int_equal(rmdir(new), 0);
	atomic_store(&wall_ms, NEW_YEAR_MS + ROLL_AGAIN_MS);
	n = put_until(r, n, new);
	put_surely(r, numbered(room, 0, n++));
	log_writer_free(&w);
	check_days(old, new, n);
	close(fd);
	unlink(said);
}

static void folders_that_are_missing_are_made(void **state) {
	char upper[64], lower[80], inside[96], file[128], below[136];
	snprintf(upper, sizeof(upper), "%s/new", folder);
	snprintf(lower, sizeof(lower), "%s/newer", upper);
	snprintf(inside, sizeof(inside), "%s/log", lower);
	snprintf(file, sizeof(file), "%s.2025-12-31", inside);
	struct log_writer *w = log_writer_new_daily(inside, 1);
	assert_non_null(w);
	log_writer_free(&w);
	snprintf(below, sizeof(below), "%s/log", file);
	assert_null(log_writer_new_daily(below, 1));
	assert_int_equal(errno, ENOTDIR);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(rmdir(lower), 0);
	assert_int_equal(rmdir(upper), 0);
}

/* Events of an idle program are lines of their day, too. */
static void a_day_begins_without_a_line_of_ours(void **state) {
	char old[96], new[96];
	struct log_writer *w = log_writer_new_daily(path, 1);
	assert_int_equal(access(day_name(old, "2025-12-31"), F_OK), 0);
	atomic_store(&wall_ms, NEW_YEAR_MS);
	while (access(day_name(new, "2026-01-01"), F_OK) < 0)
		sched_yield();
	log_writer_free(&w);
	assert_int_equal(unlink(old), 0);
	assert_int_equal(unlink(new), 0);
}

/* Of who writes to the same file, as events do, none cuts a line of the writer. */
static void others_append_whole_lines(void **state) {
	struct log_writer *w = log_writer_new(path, 1);
	struct log_ring *r = log_writer_ring(w, 0);
	pthread_t thread;
	pthread_create(&thread, NULL, producer_main, r);
	while (atomic_load(&r->taken) < 3 * LOG_RING_BYTES)
		assert_int_equal(write(log_writer_fd(w), "event\n", 6), 6);
	pthread_join(thread, NULL);
	log_writer_free(&w);
	size_t n, kept = 0;
	char *text = file_text(path, &n);
	for (size_t at = 0, end; at < n; at = end) {
		end = at + (size_t)((char *)memchr(text + at, '\n', n - at) + 1 - (text + at));
		if (end - at == 6 && !memcmp(text + at, "event\n", 6))
			continue;
		memmove(text + kept, text + at, end - at);
		kept += end - at;
	}
	assert_true(kept < n);
	assert_int_equal(check_lines(text, kept, 1), 30000);
	free(text);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(every_line_is_written_whole, path_remove),
		cmocka_unit_test_teardown(a_file_is_appended_to, path_remove),
		cmocka_unit_test_teardown(a_sleeping_writer_wakes, path_remove),
		cmocka_unit_test(what_cannot_be_opened_is_null),
		cmocka_unit_test(a_full_disk_drops_and_counts),
		cmocka_unit_test(a_ring_can_be_filled_to_the_last_byte),
		cmocka_unit_test_teardown(a_reader_that_stops_holds_nobody, path_remove),
		cmocka_unit_test_teardown(a_reader_that_left_may_come_back, path_remove),
		cmocka_unit_test_teardown(a_dash_is_standard_output, path_remove),
		cmocka_unit_test_setup_teardown(a_day_has_a_file_of_its_own, days_begin, days_end),
		cmocka_unit_test_setup_teardown(
		    a_day_that_cannot_be_opened_goes_on_in_the_last_file, days_begin, days_end),
		cmocka_unit_test_setup_teardown(folders_that_are_missing_are_made, days_begin, days_end),
		cmocka_unit_test_setup_teardown(a_day_begins_without_a_line_of_ours, days_begin, days_end),
		cmocka_unit_test_teardown(others_append_whole_lines, path_remove),
	};
	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
