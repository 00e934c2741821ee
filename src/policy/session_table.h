/*
 * session_table: which instance a session lives at, for all threads of the process. Stored
 * responses, which only the engine has that made them, are kept in a table of the same kind.
 *
 * One table of a size that is set once: set-associative, without locks, one word of 64 bits a
 * session. When a set is full the session that was idle longest is forgotten: sessions are then
 * fewer than there were, and go on elsewhere. Any thread calls any function at any time.
 *
 * How many sessions live at an instance is counted exactly as words change. Idle ones are swept
 * out bit by bit, as others are bound; a lookup does not believe them before that.
 *
 * Keys are 64-bit hashes, salted by who makes them, not 0. What is kept of a key may be
 * another one's, once in two million lookups of unknown ones in a full table.
 *
 * Times are the caller's, in seconds of one clock that never goes back.
 */
#pragma once

#include "fleet/instance.h"

/* A second is kept in units of so many: expiry is as coarse as that. */
#define SESSION_TICK_S 16u
/* After so many units times wrap: idle must be well below. */
#define SESSION_TICKS      65536u
#define SESSION_IDLE_MAX_S (SESSION_TICKS / 2 * SESSION_TICK_S)

struct session_table;

/* Room for `capacity` sessions, rounded up to a power of two; one is over when idle for `idle_s`, 1 to
 * SESSION_IDLE_MAX_S. NULL: the system has not so much memory. */
must_use struct session_table *session_table_new(size_t capacity, uint64_t idle_s);
void session_table_free(struct session_table **t); /* accepts NULL, clears */

/* What is kept of an instance: its slot, and enough of its serial to tell it from those before it. */
struct session_home {
	uint16_t slot, serial;
};

#define SESSION_SERIAL_MASK 0xfffu

static inline struct session_home session_home_of(const struct instance *inst) {
	return (struct session_home){ inst->slot, (uint16_t)(inst->serial & SESSION_SERIAL_MASK) };
}

static inline bool session_home_is(struct session_home home, const struct instance *inst) {
	return home.slot == inst->slot && home.serial == (inst->serial & SESSION_SERIAL_MASK);
}

/* Where the session lives. False: it is not known, or was idle for too long. Changes nothing. */
bool session_table_find(
    const struct session_table *t, uint64_t key, uint64_t now_s, struct session_home *home_out);

/* It lives there from now on, and was used now. */
void session_table_bind(struct session_table *t, uint64_t key, struct session_home home, uint64_t now_s);

/* It is over. False: it was not known. */
bool session_table_end(struct session_table *t, uint64_t key);

/* Sessions at an instance: those that ended or were swept out do not count. */
uint32_t session_table_count(const struct session_table *t, struct session_home home);

size_t session_table_capacity(const struct session_table *t);
