#include "engine/speech.h"

#include "engine/bytes.h"
#include "engine/random.h"

#define ECHO_TOKEN_BYTES_MAX 32
#define N_IDS                131072u

/* Water on its way, since the answers mean nothing. */
/* clang-format off */
static const char *const words[] = {
	" a", " above", " across", " after", " all", " along", " and", " bank", " basin", " bed",
	" below", " bend", " blue", " bridge", " brook", " by", " calm", " canal", " carries",
	" clear", " cold", " course", " current", " dam", " deep", " delta", " down", " drifts",
	" drop", " ebb", " eddy", " falls", " fast", " fills", " flood", " flows", " foam", " for",
	" ford", " from", " gate", " gathers", " glides", " gravel", " green", " harbor", " head",
	" hill", " in", " into", " island", " it", " keeps", " lake", " leads", " level", " light",
	" long", " low", " marsh", " meets", " mill", " mist", " moves", " narrow", " near", " of",
	" old", " on", " open", " over", " past", " pool", " pours", " quiet", " race", " rain",
	" reed", " rests", " ridge", " rises", " river", " rock", " runs", " salt", " sand",
	" sea", " shallow", " shore", " silt", " slow", " source", " spills", " spring", " stone",
	" stream", " the", " through", " tide", " to", " toward", " turns", " under", " valley",
	" wave", " weir", " wheel", " where", " wide", " wind", " with", " yields",
};
/* clang-format on */

static struct slice word_token(const struct speech *r, uint32_t nth) {
	struct slice word = slice_of(words[random_nth(r->seed, nth) % n_elems(words)]);
	return nth == 0 ? slice_skip(word, 1) : word;
}

struct slice speech_rival(const struct speech *r, uint32_t nth, uint32_t rank) {
	assert(rank > 0 && rank < n_elems(words));
	return slice_of(words[(random_nth(r->seed, nth) % n_elems(words) + rank) % n_elems(words)]);
}

static bool is_inside_character(char c) {
	return ((unsigned char)c & 0xc0) == 0x80;
}

static struct slice echo_token(struct slice rest) {
	size_t n = 1;
	while (n < rest.n && rest.p[n] != ' ' && n < ECHO_TOKEN_BYTES_MAX)
		n++;
	while (n < rest.n && is_inside_character(rest.p[n]))
		n++; /* a character over the limit is completed, not cut */
	return slice_head(rest, n);
}

bool speech_next(const struct speech *r, struct speech_cursor *cursor, struct slice *token_out) {
	struct slice token;
	if (r->echo.p) {
		if (cursor->n_bytes >= r->echo.n)
			return false;
		token = echo_token(slice_skip(r->echo, cursor->n_bytes));
	} else {
		token = word_token(r, cursor->n_tokens);
	}
	cursor->n_tokens++;
	cursor->n_bytes += token.n;
	*token_out = token;
	return true;
}

bool speech_seek(const struct speech *r, struct slice said, struct speech_cursor *cursor_out) {
	struct speech_cursor cursor = { 0 };
	struct slice token;

	while (cursor.n_bytes < said.n) {
		struct slice rest = slice_skip(said, cursor.n_bytes);
		if (!speech_next(r, &cursor, &token) || !slice_has_prefix(rest, token))
			return false;
	}
	*cursor_out = cursor;
	return true;
}

uint32_t speech_id(struct slice token) {
	uint32_t id = 0;
	for (size_t i = 0; i < token.n; i++)
		id = id * 31 + (unsigned char)token.p[i];
	return id % N_IDS;
}

bool speech_has_word(struct slice word) {
	for (size_t i = 0; i < n_elems(words); i++)
		if (slice_eq(word, slice_skip(slice_of(words[i]), 1)))
			return true;
	return false;
}

/* The first place at or after `from` where the text holds one of the stops; -1: none does. */
static int find_stop(
    struct slice text, size_t from, const struct slice *stops, size_t n_stops, size_t *at_out) {
	int found = -1;
	for (size_t i = 0; i < n_stops; i++) {
		struct slice rest = slice_skip(text, size_min(from, text.n));
		const char *hit = memmem(rest.p, rest.n, stops[i].p, stops[i].n);
		if (hit && (found < 0 || (size_t)(hit - text.p) < *at_out)) {
			found = (int)i;
			*at_out = (size_t)(hit - text.p);
		}
	}
	return found;
}

int speech_measure(const struct speech *r, uint32_t n_tokens_max, const struct slice *stops, size_t n_stops,
    uint32_t *n_tokens_out, size_t *n_bytes_out) {
	struct speech_cursor cursor = { 0 };
	struct bytes text = { .n_max = SIZE_MAX / 2 }; /* as much as the tokens come to */
	struct slice token;
	size_t n_stop_max = 1;
	int stop = -1;

	*n_tokens_out = n_tokens_max;
	*n_bytes_out = SIZE_MAX;
	if (!r->echo.p && n_stops == 0)
		return -1;
	for (size_t i = 0; i < n_stops; i++) {
		assert(stops[i].n > 0);
		n_stop_max = size_max(n_stop_max, stops[i].n);
	}
	while (stop < 0 && cursor.n_tokens < n_tokens_max && speech_next(r, &cursor, &token)) {
		/* A stop string may have begun in an earlier token. */
		size_t from = text.n < n_stop_max ? 0 : text.n - (n_stop_max - 1);
		bytes_add(&text, token);
		stop = find_stop(bytes_slice(&text), from, stops, n_stops, n_bytes_out);
	}
	*n_tokens_out = cursor.n_tokens;
	if (stop < 0 && r->echo.p)
		*n_bytes_out = r->echo.n;
	bytes_deinit(&text);
	return stop;
}
