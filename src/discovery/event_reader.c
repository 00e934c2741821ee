#include "discovery/event_reader.h"

void event_reader_init(struct event_reader *r, size_t bytes_max) {
	*r = (struct event_reader){ .bytes_max = bytes_max };
}

void event_reader_deinit(struct event_reader *r) {
	free(r->line);
	free(r->data);
	*r = (struct event_reader){ .bytes_max = r->bytes_max };
}

static bool append(char **text, size_t *n, size_t *room, size_t bytes_max, struct slice more) {
	if (more.n > bytes_max - *n)
		return false;
	if (*n + more.n > *room) {
		*room = size_max(*n + more.n, 2 * *room);
		*text = realloc(*text, *room);
	}
	if (more.n)
		memcpy(*text + *n, more.p, more.n);
	*n += more.n;
	return true;
}

static bool append_data(struct event_reader *r, struct slice more) {
	if (r->has_data && !append(&r->data, &r->data_n, &r->data_room, r->bytes_max, SLICE("\n")))
		return false;
	r->has_data = true;
	return append(&r->data, &r->data_n, &r->data_room, r->bytes_max, more);
}

static bool end_event(struct event_reader *r, event_reader_fn on_event, void *context) {
	struct slice data = { r->data, r->data_n };
	bool had_data = r->has_data;

	r->has_data = false;
	r->data_n = 0;
	return !had_data || on_event(context, data);
}

static bool end_line(struct event_reader *r, event_reader_fn on_event, void *context) {
	struct slice line = { r->line, r->line_n };

	r->line_n = 0;
	if (line.n == 0)
		return end_event(r, on_event, context);
	if (slice_has_prefix(line, SLICE("data:"))) {
		line = slice_skip(line, strlen("data:"));
		if (line.n && line.p[0] == ' ')
			line = slice_skip(line, 1);
		return append_data(r, line);
	}
	return !slice_eq(line, SLICE("data")) || append_data(r, (struct slice){ "", 0 });
}

/* A line ends with CR, LF, or both. */
bool event_reader_feed(struct event_reader *r, struct slice part, event_reader_fn on_event, void *context) {
	while (part.n) {
		size_t n = 0;

		if (r->was_cr && part.p[0] == '\n') {
			r->was_cr = false;
			part = slice_skip(part, 1);
			continue;
		}
		r->was_cr = false;
		while (n < part.n && part.p[n] != '\n' && part.p[n] != '\r')
			n++;
		if (!append(&r->line, &r->line_n, &r->line_room, r->bytes_max, slice_head(part, n)))
			return false;
		if (n == part.n)
			return true;
		r->was_cr = part.p[n] == '\r';
		part = slice_skip(part, n + 1);
		if (!end_line(r, on_event, context))
			return false;
	}
	return true;
}
