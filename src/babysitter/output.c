#include "babysitter/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PAUSE_MS        2 /* after each read: at most 500 of them a second and stream */
#define TELL_MS         1000
#define LEFT_SLICES_MAX 16 /* what is read of a pipe whose process is gone */

/* --- the rate ------------------------------------------------------------------------- */

static void bucket_init(struct output_bucket *b, uint64_t per_s, uint64_t now_ns) {
	*b = (struct output_bucket){ .per_s = per_s, .tokens = per_s, .filled_ns = now_ns };
}

static void bucket_fill(struct output_bucket *b, uint64_t now_ns) {
	uint64_t elapsed_ns = u64_min(now_ns - b->filled_ns, 1000000000u);
	uint64_t fresh = b->per_s * elapsed_ns / 1000000000u;
	if (!fresh)
		return; /* the time is not forgotten */
	b->tokens = u64_min(b->per_s, b->tokens + fresh);
	b->filled_ns = now_ns;
}

static bool bucket_has(const struct output_bucket *b, uint64_t n) {
	return !b->per_s || b->tokens >= n;
}

static void bucket_take(struct output_bucket *b, uint64_t n) {
	if (b->per_s)
		b->tokens -= n;
}

/* --- lines ---------------------------------------------------------------------------- */

static void output_on_tell(struct timer *t) {
	struct output *o = container_of(t, struct output, tell);
	char text[OUTPUT_PREFIX_MAX + 128];
	if (!o->n_dropped)
		return;
	int n = snprintf(text, sizeof(text),
	    "%.*s(%llu lines, %llu bytes were not written: too many at a time)\n", (int)OUTPUT_PREFIX_MAX,
	    o->rules->prefix, (unsigned long long)o->n_dropped, (unsigned long long)o->dropped_bytes);
	if (!o->ring || log_ring_put(o->ring, (struct slice){ text, (size_t)n }))
		o->n_dropped = o->dropped_bytes = 0;
	else
		loop_timer(o->loop, &o->tell, TELL_MS);
}

static void output_drop(struct output *o, uint64_t n_lines, uint64_t n_bytes) {
	o->n_dropped += n_lines;
	o->n_dropped_total += n_lines;
	o->dropped_bytes += n_bytes;
	if (!timer_is_running(&o->tell))
		loop_timer(o->loop, &o->tell, TELL_MS);
}

static void output_write(struct output *o, struct slice line) {
	char text[OUTPUT_PREFIX_MAX + OUTPUT_LINE_MAX + 1];
	struct slice prefix = slice_head(slice_of(o->rules->prefix), OUTPUT_PREFIX_MAX);
	size_t n = prefix.n + line.n + 1;
	if (!o->ring)
		return;
	if (!bucket_has(&o->lines, 1) || !bucket_has(&o->bytes, n)) {
		output_drop(o, 1, line.n + 1);
		return;
	}
	bucket_take(&o->lines, 1);
	bucket_take(&o->bytes, n);
	if (prefix.n)
		memcpy(text, prefix.p, prefix.n);
	memcpy(text + prefix.n, line.p, line.n);
	text[n - 1] = '\n';
	if (!log_ring_put(o->ring, (struct slice){ text, n }))
		output_drop(o, 1, line.n + 1);
}

static void output_line(struct output *o, struct slice line) {
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	o->n_lines++;
	if (o->on_line)
		o->on_line(o, line);
	output_write(o, line);
}

/* --- bytes ---------------------------------------------------------------------------- */

static void stream_end_line(struct output_stream *s) {
	struct slice line = { s->line, s->n };
	s->n = 0;
	if (line.n || !s->is_cut)
		output_line(s->output, line);
	s->is_cut = false;
}

/* A part of a line; what fills the buffer goes out as a line of its own. */
static void stream_add(struct output_stream *s, struct slice part) {
	while (part.n) {
		size_t n = size_min(part.n, OUTPUT_LINE_MAX - s->n);
		memcpy(s->line + s->n, part.p, n);
		s->n += (uint32_t)n;
		part = slice_skip(part, n);
		if (s->n == OUTPUT_LINE_MAX) {
			output_line(s->output, (struct slice){ s->line, s->n });
			s->n = 0;
			s->is_cut = true;
		}
	}
}

static uint64_t count_newlines(struct slice text) {
	uint64_t n = 0;
	for (size_t i = 0; i < text.n; i++)
		n += text.p[i] == '\n';
	return n;
}

/* Nothing more may be written for now and nobody looks: whole lines are counted, not cut. */
static struct slice stream_skip_flood(struct output_stream *s, struct slice text) {
	struct output *o = s->output;
	if (o->on_line || !o->ring || bucket_has(&o->lines, 1))
		return text;
	const char *last = memrchr(text.p, '\n', text.n);
	if (!last)
		return text;
	struct slice lines = { text.p, (size_t)(last + 1 - text.p) };
	uint64_t n_lines = count_newlines(lines);
	o->n_lines += n_lines;
	output_drop(o, n_lines, lines.n + s->n);
	s->n = 0;
	s->is_cut = false;
	return slice_skip(text, lines.n);
}

static void stream_feed(struct output_stream *s, struct slice text) {
	s->output->n_bytes += text.n;
	while (text.n) {
		text = stream_skip_flood(s, text);
		const char *end = text.n ? memchr(text.p, '\n', text.n) : NULL;
		if (!end) {
			stream_add(s, text);
			return;
		}
		struct slice part = { text.p, (size_t)(end - text.p) };
		stream_add(s, part);
		stream_end_line(s);
		text = slice_skip(text, part.n + 1);
	}
}

static void stream_close(struct output_stream *s) {
	if (s->fd < 0)
		return;
	if (s->n) /* the last line had no end */
		stream_end_line(s);
	fd_event_close(&s->event);
	timer_stop(&s->pause);
	close(s->fd);
	s->fd = -1;
}

/* True: there may be more at once. */
static bool stream_read(struct output_stream *s) {
	struct output *o = s->output;
	ssize_t n = read(s->fd, o->slice, OUTPUT_SLICE_BYTES);
	if (n > 0) {
		bucket_fill(&o->lines, o->loop->now_ns);
		bucket_fill(&o->bytes, o->loop->now_ns);
		stream_feed(s, (struct slice){ o->slice, (size_t)n });
		return true;
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		stream_close(s);
	return false;
}

static void output_run(struct job *j) {
	struct output *o = container_of(j, struct output, job);
	for (unsigned i = 0; i < n_elems(o->streams); i++) {
		struct output_stream *s = &o->streams[i];
		if (s->fd < 0 || timer_is_running(&s->pause) || !stream_read(s))
			continue;
		fd_event_stop(&s->event);
		loop_timer(o->loop, &s->pause, PAUSE_MS);
	}
}

static void stream_on_pause(struct timer *t) {
	fd_event_start(&container_of(t, struct output_stream, pause)->event);
}

/* --- life ----------------------------------------------------------------------------- */

static void stream_open(struct output_stream *s, int fd) {
	s->fd = fd;
	s->n = 0;
	s->is_cut = false;
	if (fd >= 0 && fd_event_open(&s->event, s->output->loop, fd, &s->output->job) < 0)
		stream_close(s);
}

/* The process is gone: nothing comes any more, and what is there is a pipe's worth at most. */
static void stream_finish(struct output_stream *s) {
	for (unsigned i = 0; i < LEFT_SLICES_MAX && s->fd >= 0 && stream_read(s); i++)
		;
	stream_close(s);
}

void output_init(
    struct output *o, struct loop *loop, struct log_ring *ring, const struct output_rules *rules) {
	*o = (struct output){ .loop = loop, .ring = ring, .rules = rules };
	job_init(&o->job, output_run);
	timer_init(&o->tell, output_on_tell);
	/* Any line must find room in a full bucket. */
	uint64_t bytes_s = rules->max_bytes_s;
	if (bytes_s)
		bytes_s = u64_max(bytes_s, OUTPUT_PREFIX_MAX + OUTPUT_LINE_MAX + 1);
	bucket_init(&o->lines, rules->max_lines_s, loop->now_ns);
	bucket_init(&o->bytes, bytes_s, loop->now_ns);
	o->slice = malloc(OUTPUT_SLICE_BYTES);
	for (unsigned i = 0; i < n_elems(o->streams); i++) {
		o->streams[i].output = o;
		o->streams[i].fd = -1;
		timer_init(&o->streams[i].pause, stream_on_pause);
	}
}

void output_attach(struct output *o, int out_fd, int err_fd) {
	int fds[] = { out_fd, err_fd };
	for (unsigned i = 0; i < n_elems(o->streams); i++) {
		stream_finish(&o->streams[i]);
		stream_open(&o->streams[i], fds[i]);
	}
}

void output_close(struct output *o) {
	for (unsigned i = 0; i < n_elems(o->streams); i++)
		stream_finish(&o->streams[i]);
	output_on_tell(&o->tell);
	timer_stop(&o->tell);
	job_cancel(&o->job);
	free(o->slice);
	o->slice = NULL;
}
