/*
 * event_reader: takes the data of server-sent events out of bytes that come in parts.
 *
 * Fields other than data, and comments, are passed over; the lines of one event's data
 * are joined with newlines, as the standard says. Pure but for its buffers, which
 * event_reader_deinit() frees. One thread.
 */
#pragma once

#include "base/slice.h"

struct event_reader {
	char *line, *data; /* what has come of both */
	size_t line_n, line_room, data_n, data_room, bytes_max;
	bool has_data, was_cr;
};

/* The data of one event, valid during the call, which may deinit and init the reader. False: no more. */
typedef bool (*event_reader_fn)(void *context, struct slice data);

/* bytes_max: of one line, and of one event's data. */
void event_reader_init(struct event_reader *r, size_t bytes_max);
void event_reader_deinit(struct event_reader *r);

/* False: an event is larger than it may be, or the callback said so. */
must_use bool event_reader_feed(
    struct event_reader *r, struct slice part, event_reader_fn on_event, void *context);
