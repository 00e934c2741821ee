/*
 * event: whole events out of the pieces in which a stream of them comes (server-sent events, WHATWG HTML
 * 9.2). Lines end with LF or CR LF; engines send no others.
 *
 * Nothing is copied of an event that stands in one piece; one that comes in several is gathered in a buf.
 */
#pragma once

#include "base/buf.h"

/* Of one event, so that it fits a buf. The largest that engines send have a few hundred bytes, with usage and
 * all, but for those that tell of a prompt. */
#define EVENT_BYTES_MAX (65536u - sizeof(struct buf))

/*
 * Bytes up to the end of the first event in `text`, its empty line included; 0: it ends later. *line is 0 at
 * the start of a stream, and kept from call to call.
 */
size_t event_end(uint8_t *line, struct slice text);

/* The value of the one data field of a whole event; empty: it has none. False: it has several. */
must_use bool event_data(struct slice event, struct slice *data_out);

/* Zeroed is new. */
struct event_cutter {
	struct buf *part;
	uint32_t bytes_max; /* of an event in several pieces; 0: EVENT_BYTES_MAX */
	uint8_t line;       /* of event_end() */
	bool is_whole;      /* `part` was given out, and is of no use at the next call */
};

enum event_outcome {
	EVENT_MORE = 1, /* the text is used up, its last event goes on */
	EVENT_LARGE,    /* it is longer than that, or there is no memory; the text is where it was */
};

/*
 * 0: the next event of *text, which begins behind it now; valid until the next call, and as long as the
 * text. `is_forced`: whatever the budget says.
 */
must_use int event_cut(struct event_cutter *c, struct buf_pool *pool, bool is_forced, struct slice *text,
    struct slice *event_out);

/* What is gathered of an event that has not ended. */
struct slice event_part(const struct event_cutter *c);

/* As new, of the same size. */
void event_cutter_clear(struct event_cutter *c, struct buf_pool *pool);
