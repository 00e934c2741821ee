/*
 * speech: the text that an engine answers with, token by token.
 *
 * Either words chosen by a seed, without end, or the echo of a given text, cut before
 * its spaces and into pieces of at most 32 bytes, never inside a UTF-8 character.
 * A speech is a value: the n-th token is always the same, so nothing need be kept of
 * what was said. Tokens after the first carry their leading space. Pure.
 */
#pragma once

#include "base/slice.h"

struct speech {
	uint64_t seed;
	struct slice echo; /* p NULL: words */
};

struct speech_cursor {
	uint32_t n_tokens; /* taken so far */
	size_t n_bytes;    /* their text */
};

/* The next token, or false at the end of an echo. The slice is static or points into the echo. */
bool speech_next(const struct speech *r, struct speech_cursor *cursor, struct slice *token_out);

/* The place behind `said`, where the speech begins with that, in whole tokens. False: it does not. */
bool speech_seek(const struct speech *r, struct slice said, struct speech_cursor *cursor_out);

/* Whether it is one of the words that speeches are made of, without its space. */
bool speech_has_word(struct slice word);

/* The id of a token in the vocabulary. */
uint32_t speech_id(struct slice token);

/* Words that might have been the nth token: another one for each rank from 1. */
struct slice speech_rival(const struct speech *r, uint32_t nth, uint32_t rank);

/*
 * Counts the tokens of the speech, at most n_tokens_max, and ends in the token in which
 * one of the stop strings (none is empty) is complete. Returns which one, or -1.
 * *n_bytes_out is where the text before that stop string ends; without one it is the
 * end of an echo, or SIZE_MAX for words.
 */
int speech_measure(const struct speech *r, uint32_t n_tokens_max, const struct slice *stops, size_t n_stops,
    uint32_t *n_tokens_out, size_t *n_bytes_out);
