/*
 * handover: listening sockets from a process to its successor, and what they say to each
 * other about it.
 *
 * They talk over a pair of sockets that keep messages apart; the successor inherits one end,
 * named by HANDOVER_VARIABLE. The old process gives its sockets at once, each with a word
 * that says what it is; later both say single words. Words that one does not know it leaves
 * alone: the two may be of different versions.
 *
 * All calls are for one thread at a time. What a message brought is ours to close, and is
 * closed by exec.
 */
#pragma once

#include <stddef.h>

#include "base/defs.h"

#define HANDOVER_VARIABLE   "HEADRACE_HANDOVER"
#define HANDOVER_WORD_BYTES 16

struct handed {
	char what[HANDOVER_WORD_BYTES]; /* no line breaks in it */
	int fd;                         /* -1: taken */
};

struct handed_list {
	struct handed *items;
	size_t n;
};

/* Both ends, not blocking, closed by exec. 0 or -errno. */
must_use int handover_pair(int fds[2]);

/* Gives copies of all of them; the other end finds them whenever it looks. 0 or -errno. */
must_use int handover_give(int channel, const struct handed *items, size_t n);

/*
 * What was given, all of it: waits up to a minute. 0 or -errno (-EPROTO: that is no handover), *out is then
 * empty.
 */
must_use int handover_receive(int channel, struct handed_list *out);

/* The first that is of this kind leaves the list: the caller's. -1: there is none. */
int handed_take(struct handed_list *list, const char *what);

/* Closes what nobody took. */
void handed_list_free(struct handed_list *list);

/* 0 or -errno (-EPIPE: nobody is there). */
must_use int handover_say(int channel, const char *word);

/* The next word. 0; -EAGAIN: none yet; other -errno: none will come, the other end is gone (-EPIPE). */
must_use int handover_hear(int channel, char word[HANDOVER_WORD_BYTES]);

/*
 * The end that we inherited, not blocking and closed by exec; the variable is gone afterwards. -1: we are
 * nobody's successor; -EPROTO: the variable does not name one.
 */
must_use int handover_inherited(void);
