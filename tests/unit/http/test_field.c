#include "unit/unit.h"

#include "http/field.h"

static const struct {
	const char *name;
	enum field_id id;
	bool is_hop, is_protected;
} rows[] = {
	{ "Host", FIELD_HOST, false, true },
	{ "Connection", FIELD_CONNECTION, true, false },
	{ "Content-Length", FIELD_CONTENT_LENGTH, true, true },
	{ "Transfer-Encoding", FIELD_TRANSFER_ENCODING, true, true },
	{ "Expect", FIELD_EXPECT, true, false },
	{ "Content-Type", FIELD_CONTENT_TYPE, false, true },
	{ "Content-Encoding", FIELD_CONTENT_ENCODING, false, true },
	{ "X-Forwarded-For", FIELD_X_FORWARDED_FOR, false, true },
	{ "X-Forwarded-Host", FIELD_X_FORWARDED_HOST, false, true },
	{ "Keep-Alive", FIELD_KEEP_ALIVE, true, false },
	{ "Proxy-Connection", FIELD_PROXY_CONNECTION, true, false },
	{ "Proxy-Authenticate", FIELD_PROXY_AUTHENTICATE, true, false },
	{ "Proxy-Authorization", FIELD_PROXY_AUTHORIZATION, true, false },
	{ "TE", FIELD_TE, true, false },
	{ "Trailer", FIELD_TRAILER, false, false },
	{ "Upgrade", FIELD_UPGRADE, true, false },
	{ "HTTP2-Settings", FIELD_HTTP2_SETTINGS, true, false },
	{ "Authorization", FIELD_AUTHORIZATION, false, true },
	{ "Cookie", FIELD_COOKIE, false, true },
	{ "Date", FIELD_DATE, false, false },
	{ "X-Request-Id", FIELD_X_REQUEST_ID, false, false },
	{ "Retry-After", FIELD_RETRY_AFTER, false, false },
};

static void every_field_is_found_in_any_case(void **state) {
	assert_int_equal(n_elems(rows), N_FIELD_IDS - 1);
	for (size_t i = 0; i < n_elems(rows); i++) {
		char upper[32], lower[32];
		size_t n = strlen(rows[i].name);
		for (size_t k = 0; k < n; k++) {
			lower[k] = ascii_lower(rows[i].name[k]);
			upper[k] = lower[k] >= 'a' && lower[k] <= 'z' ? (char)(lower[k] - 32) : lower[k];
		}
		assert_int_equal(field_find(slice_of(rows[i].name)), rows[i].id);
		assert_int_equal(field_find((struct slice){ lower, n }), rows[i].id);
		assert_int_equal(field_find((struct slice){ upper, n }), rows[i].id);
	}
}

/* One byte off, one too many, one too few: another field. */
static void near_misses_are_others(void **state) {
	for (size_t i = 0; i < n_elems(rows); i++) {
		char name[33];
		size_t n = strlen(rows[i].name);
		for (size_t k = 0; k < n; k++) {
			memcpy(name, rows[i].name, n);
			for (const char *c = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"; *c; c++) {
				name[k] = *c;
				bool is_same = *c == ascii_lower(rows[i].name[k]);
				assert_int_equal(field_find((struct slice){ name, n }),
				    is_same ? rows[i].id : FIELD_OTHER);
			}
		}
		memcpy(name, rows[i].name, n);
		name[n] = 'x';
		assert_int_equal(field_find((struct slice){ name, n + 1 }), FIELD_OTHER);
		assert_int_equal(field_find((struct slice){ name, n - 1 }), FIELD_OTHER);
	}
	assert_int_equal(field_find(SLICE("")), FIELD_OTHER);
	assert_int_equal(field_find(SLICE("x-a-very-long-name-that-is-longer-than-all")), FIELD_OTHER);
}

static void some_belong_to_a_hop(void **state) {
	for (size_t i = 0; i < n_elems(rows); i++) {
		assert_int_equal(field_is_hop(rows[i].id), rows[i].is_hop);
		assert_int_equal(field_is_protected(rows[i].id), rows[i].is_protected);
		assert_int_equal(field_is_barred_from_trailer(rows[i].id), rows[i].id != FIELD_DATE);
	}
	assert_false(field_is_hop(FIELD_OTHER));
	assert_false(field_is_protected(FIELD_OTHER));
	assert_false(field_is_barred_from_trailer(FIELD_OTHER));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_is_found_in_any_case),
		cmocka_unit_test(near_misses_are_others),
		cmocka_unit_test(some_belong_to_a_hop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
