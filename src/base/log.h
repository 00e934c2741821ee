/*
 * log: what happens to the program itself, one JSON line an event on standard error, and in a file if wanted.
 *
 * Rare by design: starts, stops, engines that come and go. Requests have the access
 * log. Any thread; a line is written with one call, so lines do not mix. Never a
 * prompt, never a key.
 *
 *     struct log_event e;
 *     log_begin(&e, LOG_WARN, "engine is silent");
 *     line_text(&e.line, SLICE("instance"), name);
 *     log_end(&e);
 */
#pragma once

#include "base/line.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_event {
	struct line line;
	bool is_wanted;
};

/* Lines below this level are not written. LOG_INFO at the start. */
void log_set_level(enum log_level level);

/* Lines are appended there, too: a file, opened so, that stays open until this says otherwise. -1: nowhere.
 */
void log_copy_to(int fd);

/* `event` is a fixed phrase, small letters. */
void log_begin(struct log_event *e, enum log_level level, const char *event);
void log_end(struct log_event *e);
