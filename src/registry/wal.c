/*
 * The format is https://www.sqlite.org/fileformat2.html#the_write_ahead_log: a header, then
 * frames, each a page with a header of its own. A frame's sum goes on from the sum of the
 * frame before. So one that does not fit leaves the next one provable: it fits the sum
 * that stands in the bad one's header or, if that is what is bad, the sum that the bad
 * one should have.
 *
 * The last transaction may have reached the disk in any order, sector by sector, but
 * nothing is written behind it before it is safe: where a frame fits that stands behind
 * the end of the bad one's transaction, this one was safe.
 */
#include "registry/wal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC        0x377f0682u /* the lowest bit: sums are of big-endian words */
#define VERSION      3007000u
#define HEADER_BYTES 32
#define FRAME_BYTES  24 /* of a frame's header */
#define PAGE_MIN     512u
#define PAGE_MAX     65536u

struct wal_sum {
	uint32_t a, b;
};

struct wal_frame {
	struct wal_sum sum; /* as it is written */
	bool is_commit;     /* the last one of a transaction */
	bool has_salts;     /* this log's, not those of one that was here before */
	bool has_a_salt;    /* one of them: nothing else has it but what is damaged */
};

struct wal_look {
	bool is_big_endian;
	uint32_t n_page;
	unsigned char salts[8];
	unsigned char *bytes;  /* of the frame at hand */
	struct wal_sum sum;    /* as it should be, of the frames so far up to a bad one */
	struct wal_sum before; /* as it is written, of the frame before */
	uint64_t end;          /* of the last whole transaction */
	bool is_bad;           /* a frame was that did not fit */
	bool is_bad_before;    /* the one before was the first such frame */
	bool is_behind;        /* behind the end of that one's transaction */
	bool is_damaged, has_tail;
};

static uint32_t big_endian(const unsigned char *p) {
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t word(const unsigned char *p, bool is_big_endian) {
	uint32_t w = big_endian(p);
	return is_big_endian ? w : __builtin_bswap32(w);
}

static struct wal_sum sum_on(const struct wal_look *w, struct wal_sum s, const unsigned char *p, size_t n) {
	for (size_t i = 0; i < n; i += 8) {
		s.a += word(p + i, w->is_big_endian) + s.b;
		s.b += word(p + i + 4, w->is_big_endian) + s.a;
	}
	return s;
}

static struct wal_sum sum_at(const unsigned char *p) {
	return (struct wal_sum){ big_endian(p), big_endian(p + 4) };
}

static bool sum_eq(struct wal_sum x, struct wal_sum y) {
	return x.a == y.a && x.b == y.b;
}

/* The sum of the frame at hand, if that of the one before is this. */
static struct wal_sum frame_sum(const struct wal_look *w, struct wal_sum before) {
	return sum_on(w, sum_on(w, before, w->bytes, 8), w->bytes + FRAME_BYTES, w->n_page);
}

/* False: this is no header. */
static bool look_at_header(struct wal_look *w, const unsigned char header[static HEADER_BYTES]) {
	uint32_t magic = big_endian(header);
	w->is_big_endian = magic & 1;
	w->n_page = big_endian(header + 8);
	w->sum = sum_on(w, (struct wal_sum){ 0, 0 }, header, 24);
	w->before = w->sum;
	memcpy(w->salts, header + 16, sizeof(w->salts));
	bool is_page_size =
	    w->n_page >= PAGE_MIN && w->n_page <= PAGE_MAX && (w->n_page & (w->n_page - 1)) == 0;
	return (magic & ~1u) == MAGIC && big_endian(header + 4) == VERSION && is_page_size &&
	    sum_eq(w->sum, sum_at(header + 24));
}

static struct wal_frame frame_at(const struct wal_look *w) {
	bool has_first = memcmp(w->bytes + 8, w->salts, 4) == 0;
	bool has_second = memcmp(w->bytes + 12, w->salts + 4, 4) == 0;
	return (struct wal_frame){
		.sum = sum_at(w->bytes + 16),
		.is_commit = big_endian(w->bytes + 4) != 0,
		.has_salts = has_first && has_second,
		.has_a_salt = has_first || has_second,
	};
}

/* As SQLite takes it: it fits what was before, and nothing was bad so far. */
static bool take_good(struct wal_look *w, const struct wal_frame *f, uint64_t end) {
	struct wal_sum sum = frame_sum(w, w->sum);
	bool fits = sum_eq(sum, f->sum) && f->has_salts && big_endian(w->bytes) != 0;
	w->sum = sum;
	if (fits && f->is_commit) {
		w->end = end;
		w->has_tail = false;
	}
	return fits;
}

/* Behind a bad one. */
static void take_later(struct wal_look *w, const struct wal_frame *f) {
	bool fits = f->has_a_salt &&
	    (sum_eq(frame_sum(w, w->before), f->sum) ||
		(w->is_bad_before && sum_eq(frame_sum(w, w->sum), f->sum)));
	w->is_damaged |= fits && w->is_behind;
	w->is_behind |= fits && f->is_commit;
	w->is_bad_before = false;
}

static void take_frame(struct wal_look *w, uint64_t end) {
	struct wal_frame f = frame_at(w);
	if (w->is_bad) {
		take_later(w, &f);
	} else if (!take_good(w, &f, end)) {
		w->is_bad = w->is_bad_before = true;
		w->is_behind = f.has_a_salt && f.is_commit;
	}
	w->has_tail |= f.has_a_salt && end != w->end;
	w->before = f.sum;
}

/* 1: there it is, 0: the file ends before, or a negative errno. */
static int read_at(int fd, void *bytes, size_t n, uint64_t at) {
	ssize_t r;
	do
		r = pread(fd, bytes, n, (off_t)at);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r == (ssize_t)n;
}

static int look_at_frames(struct wal_look *w, int fd, uint64_t n_file) {
	size_t n = FRAME_BYTES + w->n_page;
	uint64_t at = HEADER_BYTES;
	int r = 1;
	w->bytes = malloc(n);
	w->end = at;
	for (; r == 1 && !w->is_damaged && n_file - at >= n; at += n) {
		r = read_at(fd, w->bytes, n, at);
		if (r == 1)
			take_frame(w, at + n);
	}
	free(w->bytes);
	if (r < 0)
		return r;
	if (w->is_damaged)
		return WAL_E_DAMAGED;
	bool is_cut = at < n_file && at == w->end; /* a part of a frame, of whatever log */
	return w->has_tail || is_cut ? WAL_E_TORN : 0;
}

int wal_look(int fd, uint64_t *end_out) {
	struct wal_look w = { .n_page = 0 };
	unsigned char header[HEADER_BYTES];
	struct stat st;
	*end_out = 0;
	if (fstat(fd, &st) < 0)
		return -errno;
	uint64_t n_file = (uint64_t)st.st_size;
	if (n_file == 0)
		return 0;
	int r = read_at(fd, header, sizeof(header), 0);
	if (r < 0)
		return r;
	if (r == 0 || !look_at_header(&w, header)) /* frames come when the header is safe */
		return n_file > HEADER_BYTES ? WAL_E_DAMAGED : WAL_E_TORN;
	r = look_at_frames(&w, fd, n_file);
	*end_out = w.end;
	return r;
}
