/* kept_log: what is logged stays here, for a test to look at. */
#pragma once

#include "unit/unit.h"

#include "base/log.h"

static char log_text[65536];
static size_t log_bytes;

void log_begin(struct log_event *e, enum log_level level, const char *event) {
	line_begin(&e->line);
	line_text(&e->line, SLICE("event"), slice_of(event));
}

void log_end(struct log_event *e) {
	line_end(&e->line);
	assert_true(log_bytes + e->line.n < sizeof(log_text));
	memcpy(log_text + log_bytes, e->line.text, e->line.n);
	log_bytes += e->line.n;
	log_text[log_bytes] = '\0';
}

/* How often the log says this. */
static unsigned said(const char *text) {
	unsigned n = 0;

	for (const char *p = log_text; (p = strstr(p, text)); p++)
		n++;
	return n;
}
