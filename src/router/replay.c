#include "router/replay.h"

/* What stands in the buf. */
struct kept {
	uint64_t session, prompt_tokens;
	size_t n_keys;
	uint64_t keys[];
};

struct buf *replay_keep(struct buf_pool *pool, const struct demand *demand) {
	size_t n_keys = size_min(demand->n_keys, REPLAY_BLOCKS_MAX);
	struct buf *buf;

	if (!demand->prompt_tokens)
		return NULL;
	buf = buf_new(pool, sizeof(struct kept) + n_keys * sizeof(uint64_t));
	if (!buf)
		return NULL;
	struct kept *k = (struct kept *)buf->data;

	*k = (struct kept){ demand->session, demand->prompt_tokens, n_keys };
	if (n_keys)
		memcpy(k->keys, demand->keys, n_keys * sizeof(*k->keys));
	return buf;
}

static char *put_text(char *to, const char *text) {
	size_t n = strlen(text);

	memcpy(to, text, n);
	return to + n;
}

static char *put_decimal(char *to, uint64_t value) {
	char digits[20];
	size_t n = 0;

	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n > 0)
		*to++ = digits[--n];
	return to;
}

/* In quotes, since not every reader's numbers have 64 bits. */
static char *put_hash(char *to, uint64_t value) {
	*to++ = '"';
	for (int shift = 60; shift >= 0; shift -= 4)
		*to++ = "0123456789abcdef"[value >> shift & 15];
	*to++ = '"';
	return to;
}

struct slice replay_line(
    const struct buf *kept, const struct replay_counts *r, char room[static REPLAY_LINE_BYTES]) {
	const struct kept *k = (const struct kept *)kept->data;
	char *p = put_decimal(put_text(room, "{\"ts_ns\":"), r->at_ns);

	p = put_decimal(
	    put_text(p, ",\"prompt_tokens\":"), r->prompt_tokens ? r->prompt_tokens : k->prompt_tokens);
	p = put_decimal(put_text(p, ",\"output_tokens\":"), r->output_tokens);
	if (k->session)
		p = put_hash(put_text(p, ",\"session\":"), k->session);
	p = put_text(p, ",\"blocks\":[");
	for (size_t i = 0; i < k->n_keys; i++) {
		if (i)
			*p++ = ',';
		p = put_hash(p, k->keys[i]);
	}
	p = put_text(p, "]}\n");
	assert(p <= room + REPLAY_LINE_BYTES);
	return (struct slice){ room, (size_t)(p - room) };
}
