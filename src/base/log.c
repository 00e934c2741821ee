#include "base/log.h"

#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"

static _Atomic unsigned threshold = LOG_INFO;
static _Atomic int copy_fd = -1;

void log_set_level(enum log_level level) {
	atomic_store_explicit(&threshold, level, memory_order_relaxed);
}

void log_copy_to(int fd) {
	atomic_store_explicit(&copy_fd, fd, memory_order_relaxed);
}

void log_begin(struct log_event *e, enum log_level level, const char *event) {
	static const char *const names[] = { "debug", "info", "warn", "error" };
	e->is_wanted = level >= atomic_load_explicit(&threshold, memory_order_relaxed);
	line_begin(&e->line);
	line_time(&e->line, SLICE("ts"), clock_wall_ms());
	line_text(&e->line, SLICE("level"), slice_of(names[level]));
	line_text(&e->line, SLICE("event"), slice_of(event));
}

void log_end(struct log_event *e) {
	if (!e->is_wanted)
		return;
	line_end(&e->line);
	/* A pipe that is ready takes this much at once; one that nobody reads must not hold us up. */
	_Static_assert(LINE_BYTES <= PIPE_BUF, "a line is written whole or not at all");
	struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };
	int fd = atomic_load_explicit(&copy_fd, memory_order_relaxed);
	ssize_t n = poll(&ready, 1, 0) == 1 ? write(STDERR_FILENO, e->line.text, e->line.n) : 0;
	if (fd >= 0)
		n = write(fd, e->line.text, e->line.n);
	(void)n; /* nobody is left to be told */
}
