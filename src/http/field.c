#include "http/field.h"

enum { HOP = 1, PROTECTED = 2 };

static const struct {
	struct slice name;
	enum field_id id;
	unsigned flags;
} known[] = {
	{ { "te", 2 }, FIELD_TE, HOP },
	{ { "host", 4 }, FIELD_HOST, PROTECTED },
	{ { "date", 4 }, FIELD_DATE, 0 },
	{ { "expect", 6 }, FIELD_EXPECT, HOP },
	{ { "cookie", 6 }, FIELD_COOKIE, PROTECTED },
	{ { "upgrade", 7 }, FIELD_UPGRADE, HOP },
	{ { "trailer", 7 }, FIELD_TRAILER, 0 },
	{ { "connection", 10 }, FIELD_CONNECTION, HOP },
	{ { "keep-alive", 10 }, FIELD_KEEP_ALIVE, HOP },
	{ { "retry-after", 11 }, FIELD_RETRY_AFTER, 0 },
	{ { "content-type", 12 }, FIELD_CONTENT_TYPE, PROTECTED },
	{ { "x-request-id", 12 }, FIELD_X_REQUEST_ID, 0 },
	{ { "authorization", 13 }, FIELD_AUTHORIZATION, PROTECTED },
	{ { "content-length", 14 }, FIELD_CONTENT_LENGTH, HOP | PROTECTED },
	{ { "http2-settings", 14 }, FIELD_HTTP2_SETTINGS, HOP },
	{ { "x-forwarded-for", 15 }, FIELD_X_FORWARDED_FOR, PROTECTED },
	{ { "x-forwarded-host", 16 }, FIELD_X_FORWARDED_HOST, PROTECTED },
	{ { "content-encoding", 16 }, FIELD_CONTENT_ENCODING, PROTECTED },
	{ { "proxy-connection", 16 }, FIELD_PROXY_CONNECTION, HOP },
	{ { "transfer-encoding", 17 }, FIELD_TRANSFER_ENCODING, HOP | PROTECTED },
	{ { "proxy-authenticate", 18 }, FIELD_PROXY_AUTHENTICATE, HOP },
	{ { "proxy-authorization", 19 }, FIELD_PROXY_AUTHORIZATION, HOP },
};

#define LENGTH_MAX 19u

/* First row of each length; known[] is sorted by length. */
static uint8_t first[LENGTH_MAX + 2];
static uint8_t flags_of[N_FIELD_IDS];

__attribute__((constructor)) static void field_init(void) {
	unsigned row = 0;
	for (unsigned n = 0; n < n_elems(first); n++) {
		while (row < n_elems(known) && known[row].name.n < n)
			row++;
		first[n] = (uint8_t)row;
	}
	for (row = 0; row < n_elems(known); row++)
		flags_of[known[row].id] = (uint8_t)known[row].flags;
}

/*
 * Among the bytes of a token none but a capital letter becomes a letter, a digit or a hyphen when bit 0x20
 * is set, so that eight can be compared at once.
 */
static bool is_known(const char *name, const char *known_name, size_t n) {
	const uint64_t case_bits = UINT64_C(0x2020202020202020);
	uint64_t a, b;
	for (; n >= 8; n -= 8, name += 8, known_name += 8) {
		memcpy(&a, name, 8);
		memcpy(&b, known_name, 8);
		if ((a | case_bits) != (b | case_bits))
			return false;
	}
	while (n > 0 && (name[n - 1] | 0x20) == known_name[n - 1])
		n--;
	return n == 0;
}

enum field_id field_find(struct slice name) {
	if (name.n > LENGTH_MAX)
		return FIELD_OTHER;
	for (unsigned row = first[name.n]; row < first[name.n + 1]; row++)
		if (is_known(name.p, known[row].name.p, name.n))
			return known[row].id;
	return FIELD_OTHER;
}

bool field_is_hop(enum field_id id) {
	return flags_of[id] & HOP;
}

bool field_is_protected(enum field_id id) {
	return flags_of[id] & PROTECTED;
}

bool field_is_barred_from_trailer(enum field_id id) {
	return id != FIELD_OTHER && id != FIELD_DATE;
}
