/*
 * log_writer: one thread that writes what all others have to log.
 *
 * A producer thread owns a log_ring and puts whole lines into it; the writer thread
 * empties all rings into a descriptor. Nobody ever waits: a line that finds no room
 * is dropped and counted, which is what happens when the disk is full or the reader
 * of a pipe is slow or gone. The writer never ends the process for a failed write; it
 * goes on when writing is possible again. A line is never written in part: what a
 * failed write left unfinished is finished first.
 */
#pragma once

#include <stdatomic.h>

#include "base/slice.h"

#define LOG_RING_BYTES (1u << 19)

struct log_writer;

/* One producer, one consumer. */
struct log_ring {
	_Alignas(64) _Atomic uint64_t written; /* by the producer */
	_Alignas(64) _Atomic uint64_t taken;   /* by the writer */
	struct log_writer *writer;
	_Atomic uint64_t n_dropped;
	char bytes[LOG_RING_BYTES];
};

/* path: "-" for standard output, else a file that is appended to. NULL with errno when it cannot be opened.
 */
must_use struct log_writer *log_writer_new(const char *path, unsigned n_rings);

/*
 * A file of max_bytes becomes path.1, older ones move up, `keep` of them stay. It may grow by one ring above
 * that, since a line is never cut. Before the first line; nothing for standard output.
 */
void log_writer_rotate(struct log_writer *w, uint64_t max_bytes, unsigned keep);

/*
 * The same with a file a day: path.YYYY-MM-DD, a new one for what is written from midnight UTC on. Folders
 * that are missing are made. While a new day's file cannot be opened, which is logged, the last one goes on.
 */
must_use struct log_writer *log_writer_new_daily(const char *path, unsigned n_rings);

/* Where lines go, the same number for the writer's life. Of a file: others may append whole lines, which do
 * not mix with the writer's, but for a disk that is full. */
int log_writer_fd(const struct log_writer *w);

/* Writes what is there, waits for the thread, closes. */
void log_writer_free(struct log_writer **w);

struct log_ring *log_writer_ring(struct log_writer *w, unsigned i);

/* False: no room, dropped and counted. */
bool log_ring_put(struct log_ring *r, struct slice line);
