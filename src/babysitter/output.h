/*
 * output: what the engine says on standard output and error, always drained.
 *
 * Bytes are read in slices of 64 KiB, one a turn and stream; who fills whole slices is
 * read every other millisecond, so that a flood costs little and the writer is slowed at some
 * 30 MB/s but never held up. Lines of more than 8 KiB are split. Each line is offered to
 * on_line as it came, then written with a prefix, unless it is above the rate; what is
 * not written is counted and said, once a second.
 *
 * Writing is a log_writer's business: it never blocks the loop, and a full disk or a
 * reader who sleeps costs lines, not progress. One thread; the embedder owns the struct,
 * the writer belongs to the caller and may be shared.
 */
#pragma once

#include "net/fd_event.h"
#include "net/log_writer.h"

#define OUTPUT_LINE_MAX    8192u
#define OUTPUT_SLICE_BYTES 65536u
#define OUTPUT_PREFIX_MAX  128u

struct output_rules {
	const char *prefix;   /* "[name] "; "" for none */
	uint64_t max_lines_s; /* a second; 0: no limit */
	uint64_t max_bytes_s; /* a second, prefixes included; 0: no limit */
};

#define OUTPUT_LINES_S 1000u
#define OUTPUT_BYTES_S (1024u * 1024u)

struct output;

/* One line without its end. Every one of them: set it to NULL when nothing is looked for any more. */
typedef void (*output_line_fn)(struct output *o, struct slice line);

/* A token bucket that holds one second's worth. */
struct output_bucket {
	uint64_t per_s, tokens, filled_ns;
};

struct output_stream {
	struct output *output;
	struct fd_event event;
	struct timer pause;
	int fd;      /* -1: ended */
	uint32_t n;  /* bytes of a line that is not complete */
	bool is_cut; /* the line is above 8 KiB: its first pieces are out */
	char line[OUTPUT_LINE_MAX];
};

struct output {
	struct loop *loop;
	struct log_ring *ring; /* NULL: nothing is written */
	const struct output_rules *rules;
	output_line_fn on_line; /* may be NULL and change at any time */
	struct job job;
	struct timer tell;
	struct output_stream streams[2];
	struct output_bucket lines, bytes;
	uint64_t n_lines, n_bytes;         /* all that came */
	uint64_t n_dropped, dropped_bytes; /* since they were last told */
	uint64_t n_dropped_total;
	char *slice; /* OUTPUT_SLICE_BYTES */
};

/* The ring's only producer is this output; rules must outlive it. */
void output_init(
    struct output *o, struct loop *loop, struct log_ring *ring, const struct output_rules *rules);

/* Reads these two from now on and closes them at their end; the former pair is read out and closed. */
void output_attach(struct output *o, int out_fd, int err_fd);

/* Reads what is there, says what was dropped, closes. */
void output_close(struct output *o);
