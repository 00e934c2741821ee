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
#include <time.h>
#include <unistd.h>

#include "net/rotate.h"

#define BATCH_NS        20000000
#define BLOCKED_POLL_MS 100

struct log_writer {
	pthread_t thread;
	sem_t wake;
	_Atomic bool is_asleep;
	_Atomic bool is_ending;
	int fd;
	bool owns_fd;
	bool is_file; /* never blocks */
	char *path;
	_Atomic uint64_t max_bytes; /* 0: no rotation */
	unsigned n_kept;
	uint64_t size_bytes;
	unsigned n_rings;
	struct log_ring *rings;
};

/* Bytes written; 0 when the descriptor takes none for now; -1 when it fails. */
static ssize_t writer_write(struct log_writer *w, const char *p, size_t n) {
	struct pollfd pfd = { .fd = w->fd, .events = POLLOUT };
	if (!w->is_file) { /* a pipe that is ready takes this much without blocking */
		n = size_min(n, PIPE_BUF);
		if (poll(&pfd, 1, BLOCKED_POLL_MS) == 0)
			return 0;
	}
	ssize_t done = write(w->fd, p, n);
	if (done < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return done;
}

static int writer_open(const char *path) {
	return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
}

/* After bytes that end at `end`. What cannot be rotated grows on, and is tried again as much later. */
static void writer_note(struct log_writer *w, const char *end, size_t n) {
	uint64_t max_bytes = atomic_load_explicit(&w->max_bytes, memory_order_acquire);
	w->size_bytes += n;
	if (!max_bytes || w->size_bytes < max_bytes || end[-1] != '\n')
		return;
	w->size_bytes = 0;
	int fd = rotate_files(w->path, w->n_kept) ? writer_open(w->path) : -1;
	if (fd < 0)
		return;
	close(w->fd);
	w->fd = fd;
}

/* Writes what the ring holds. False: the descriptor does not take it. */
static bool writer_drain(struct log_writer *w, struct log_ring *r) {
	for (;;) {
		uint64_t taken = atomic_load_explicit(&r->taken, memory_order_relaxed);
		uint64_t written = atomic_load_explicit(&r->written, memory_order_acquire);
		if (taken == written)
			return true;
		size_t at = taken % LOG_RING_BYTES;
		size_t n =
		    LOG_RING_BYTES - at < written - taken ? LOG_RING_BYTES - at : (size_t)(written - taken);
		ssize_t done = writer_write(w, r->bytes + at, n);
		if (done <= 0)
			return false;
		writer_note(w, r->bytes + at + done, (size_t)done);
		atomic_store_explicit(&r->taken, taken + (uint64_t)done, memory_order_release);
	}
}

static void *writer_main(void *arg) {
	struct log_writer *w = arg;
	unsigned at = 0; /* the ring to begin with: one that stopped inside a line goes on first */
	for (;;) {
		bool ending = atomic_load(&w->is_ending);
		bool stuck = false;
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
			while (sem_wait(&w->wake) < 0 && errno == EINTR)
				;
		atomic_store(&w->is_asleep, false);
	}
}

struct log_writer *log_writer_new(const char *path, unsigned n_rings) {
	bool is_stdout = strcmp(path, "-") == 0;
	int fd = is_stdout ? STDOUT_FILENO : writer_open(path);
	if (fd < 0)
		return NULL;
	struct log_writer *w = calloc(1, sizeof(*w));
	w->fd = fd;
	w->owns_fd = !is_stdout;
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
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the control thread's */
	int r = pthread_create(&w->thread, NULL, writer_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	assert(r == 0);
	return w;
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
