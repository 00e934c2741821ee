/*
 * The writer sleeps on a semaphore that the first line after a sleep posts, then waits
 * a little longer so that a busy process pays for one wake-up a batch, not one a line.
 */
#include "net/log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/rotate.h"

#define BATCH_NS        20000000
#define BLOCKED_POLL_MS 100
#define DAY_MS          86400000u
#define ROLL_AGAIN_MS   60000u

struct log_writer {
	pthread_t thread;
	sem_t wake;
	_Atomic bool is_asleep;
	_Atomic bool is_ending;
	int fd;
	bool owns_fd;
	bool is_file; /* never blocks */
	char *path;
	uint64_t roll_at_ms;        /* wall time of the next day's file; UINT64_MAX: there is one for ever */
	bool is_cut;                /* what was written last is the begin of a line */
	_Atomic uint64_t max_bytes; /* 0: no rotation */
	unsigned n_kept;
	uint64_t size_bytes;
	unsigned n_rings;
	struct log_ring *rings;
};

/* Bytes written of both pieces; 0 when the descriptor takes none for now; -1 when it fails. */
static ssize_t writer_write(struct log_writer *w, const struct iovec pieces[2]) {
	struct pollfd pfd = { .fd = w->fd, .events = POLLOUT };
	ssize_t done;
	if (w->is_file) {
		done = writev(w->fd, pieces, 2); /* whole lines: others may append, too */
	} else if (poll(&pfd, 1, BLOCKED_POLL_MS) == 0) {
		return 0;
	} else { /* a pipe that is ready takes this much without blocking */
		done = write(w->fd, pieces[0].iov_base, size_min(pieces[0].iov_len, PIPE_BUF));
	}
	if (done < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return done;
}

static int writer_open(const char *path) {
	return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
}

/* Takes the file over, under the number that the last one had. */
static void writer_turn(struct log_writer *w, int fd) {
	while (dup3(fd, w->fd, O_CLOEXEC) < 0 && errno == EINTR)
		;
	close(fd);
}

/* After so many bytes. What cannot be rotated grows on, and is tried again as much later. */
static void writer_note(struct log_writer *w, size_t n) {
	uint64_t max_bytes = atomic_load_explicit(&w->max_bytes, memory_order_acquire);
	w->size_bytes += n;
	if (!max_bytes || w->size_bytes < max_bytes || w->is_cut)
		return;
	w->size_bytes = 0;
	int fd = rotate_files(w->path, w->n_kept) ? writer_open(w->path) : -1;
	if (fd >= 0)
		writer_turn(w, fd);
}

/* --- a file a day --------------------------------------------------------------------------- */

static int day_open(const char *path, uint64_t wall_ms) {
	char name[PATH_MAX];
	struct tm day;
	time_t seconds = (time_t)(wall_ms / 1000);
	gmtime_r(&seconds, &day);
	int n = snprintf(
	    name, sizeof(name), "%s.%04d-%02d-%02d", path, day.tm_year + 1900, day.tm_mon + 1, day.tm_mday);
	if (n < 0 || (size_t)n >= sizeof(name)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return writer_open(name);
}

/* The folders that it is in; those that exist are left as they are. */
static void parents_make(const char *path) {
	char name[PATH_MAX];
	int n = snprintf(name, sizeof(name), "%s", path);

	if (n <= 0 || (size_t)n >= sizeof(name))
		return;
	for (char *slash = strchr(name + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(name, 0750);
		*slash = '/';
	}
}

static uint64_t day_end_ms(uint64_t wall_ms) {
	return (wall_ms / DAY_MS + 1) * DAY_MS;
}

/* Between lines. */
static void writer_roll(struct log_writer *w) {
	uint64_t now_ms = clock_wall_ms();
	if (now_ms < w->roll_at_ms || w->is_cut)
		return;
	int fd = day_open(w->path, now_ms);
	if (fd >= 0) {
		writer_turn(w, fd);
		w->roll_at_ms = day_end_ms(now_ms);
		return;
	}
	int error = errno;
	struct log_event e;
	log_begin(&e, LOG_ERROR, "log file of the day cannot be opened: the last one goes on");
	line_text(&e.line, SLICE("file"), slice_of(w->path));
	line_text(&e.line, SLICE("error"), slice_of(strerror(error)));
	log_end(&e);
	w->roll_at_ms = now_ms + ROLL_AGAIN_MS;
}

/* --- the thread ----------------------------------------------------------------------------- */

/* Writes what the ring holds. False: the descriptor does not take it. */
static bool writer_drain(struct log_writer *w, struct log_ring *r) {
	for (;;) {
		uint64_t taken = atomic_load_explicit(&r->taken, memory_order_relaxed);
		uint64_t written = atomic_load_explicit(&r->written, memory_order_acquire);
		if (taken == written)
			return true;
		size_t at = taken % LOG_RING_BYTES;
		size_t n = (size_t)(written - taken), first = size_min(n, LOG_RING_BYTES - at);
		ssize_t done =
		    writer_write(w, (struct iovec[]){ { r->bytes + at, first }, { r->bytes, n - first } });
		if (done <= 0)
			return false;
		w->is_cut = r->bytes[(at + (size_t)done - 1) % LOG_RING_BYTES] != '\n';
		writer_note(w, (size_t)done);
		atomic_store_explicit(&r->taken, taken + (uint64_t)done, memory_order_release);
	}
}

/* Until somebody has a line, or a day is over: others who append want its file, too. */
static void writer_sleep(struct log_writer *w) {
	struct timespec day_end = { .tv_sec = (time_t)(w->roll_at_ms / 1000),
		.tv_nsec = (long)(w->roll_at_ms % 1000 * 1000000) };
	bool is_daily = w->roll_at_ms != UINT64_MAX;
	int r;

	do
		r = is_daily ? sem_timedwait(&w->wake, &day_end) : sem_wait(&w->wake);
	while (r < 0 && errno == EINTR);
}

static void *writer_main(void *arg) {
	struct log_writer *w = arg;
	unsigned at = 0; /* the ring to begin with: one that stopped inside a line goes on first */
	for (;;) {
		bool ending = atomic_load(&w->is_ending);
		bool stuck = false;
		if (w->roll_at_ms != UINT64_MAX)
			writer_roll(w);
		for (unsigned i = 0; i < w->n_rings && !stuck; i++) {
			stuck = !writer_drain(w, &w->rings[at]);
			if (!stuck)
				at = (at + 1) % w->n_rings;
		}
		if (ending)
			return NULL;
		struct timespec batch = { .tv_nsec = stuck ? 5 * BATCH_NS : BATCH_NS };
		nanosleep(&batch, NULL);
		if (stuck)
			continue;
		atomic_store(&w->is_asleep, true);
		bool empty = true;
		for (unsigned i = 0; i < w->n_rings; i++)
			empty &= atomic_load(&w->rings[i].written) == atomic_load(&w->rings[i].taken);
		if (empty && !atomic_load(&w->is_ending))
			writer_sleep(w);
		atomic_store(&w->is_asleep, false);
	}
}

static void writer_start(struct log_writer *w) {
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the control thread's */
	int r = pthread_create(&w->thread, NULL, writer_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	assert(r == 0);
}

static struct log_writer *writer_make(int fd, const char *path, unsigned n_rings, uint64_t roll_at_ms) {
	if (fd < 0)
		return NULL;
	struct log_writer *w = calloc(1, sizeof(*w));
	w->fd = fd;
	w->owns_fd = fd != STDOUT_FILENO;
	w->roll_at_ms = roll_at_ms;
	struct stat st;
	w->is_file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	w->size_bytes = w->is_file ? (uint64_t)st.st_size : 0;
	w->path = strdup(path);
	w->n_rings = n_rings;
	w->rings = aligned_alloc(64, n_rings * sizeof(*w->rings));
	for (unsigned i = 0; i < n_rings; i++) {
		struct log_ring *r = &w->rings[i];
		atomic_init(&r->written, 0);
		atomic_init(&r->taken, 0);
		atomic_init(&r->n_dropped, 0);
		r->writer = w;
	}
	sem_init(&w->wake, 0, 0);
	writer_start(w);
	return w;
}

struct log_writer *log_writer_new(const char *path, unsigned n_rings) {
	int fd = strcmp(path, "-") == 0 ? STDOUT_FILENO : writer_open(path);
	return writer_make(fd, path, n_rings, UINT64_MAX);
}

struct log_writer *log_writer_new_daily(const char *path, unsigned n_rings) {
	uint64_t now_ms = clock_wall_ms();
	parents_make(path);
	return writer_make(day_open(path, now_ms), path, n_rings, day_end_ms(now_ms));
}

int log_writer_fd(const struct log_writer *w) {
	return w->fd;
}

void log_writer_rotate(struct log_writer *w, uint64_t max_bytes, unsigned keep) {
	if (!w->owns_fd || !w->is_file)
		return;
	w->n_kept = keep;
	atomic_store_explicit(&w->max_bytes, max_bytes, memory_order_release);
}

void log_writer_free(struct log_writer **wp) {
	struct log_writer *w = *wp;
	*wp = NULL;
	if (!w)
		return;
	atomic_store(&w->is_ending, true);
	sem_post(&w->wake);
	pthread_join(w->thread, NULL);
	sem_destroy(&w->wake);
	if (w->owns_fd)
		close(w->fd);
	free(w->rings);
	free(w->path);
	free(w);
}

struct log_ring *log_writer_ring(struct log_writer *w, unsigned i) {
	assert(i < w->n_rings);
	return &w->rings[i];
}

bool log_ring_put(struct log_ring *r, struct slice line) {
	uint64_t written = atomic_load_explicit(&r->written, memory_order_relaxed);
	uint64_t taken = atomic_load_explicit(&r->taken, memory_order_acquire);
	if (LOG_RING_BYTES - (written - taken) < line.n) {
		atomic_fetch_add_explicit(&r->n_dropped, 1, memory_order_relaxed);
		return false;
	}
	size_t at = written % LOG_RING_BYTES;
	size_t first = size_min(line.n, LOG_RING_BYTES - at);
	memcpy(r->bytes + at, line.p, first);
	memcpy(r->bytes, line.p + first, line.n - first);
	atomic_store_explicit(&r->written, written + line.n, memory_order_seq_cst);
	if (atomic_load_explicit(&r->writer->is_asleep, memory_order_seq_cst) &&
	    atomic_exchange(&r->writer->is_asleep, false))
		sem_post(&r->writer->wake);
	return true;
}
