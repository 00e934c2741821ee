#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/text.h"

enum { UNTOUCHED = 4711 };

static void numbers(void **state) {
	static const struct {
		const char *text;
		uint64_t max, value;
		bool good;
	} cases[] = {
		{ "0", 0, 0, true },
		{ "007", 9, 7, true },
		{ "65535", 65535, 65535, true },
		{ "65536", 65535, 0, false },
		{ "18446744073709551615", UINT64_MAX, UINT64_MAX, true },
		{ "18446744073709551616", UINT64_MAX, 0, false },
		{ "184467440737095516150", UINT64_MAX, 0, false },
		{ "9", 8, 0, false },
		{ "", 10, 0, false },
		{ "+1", 10, 0, false },
		{ "-1", 10, 0, false },
		{ " 1", 10, 0, false },
		{ "1 ", 10, 0, false },
		{ "0x1", 10, 0, false },
		{ "1.0", 10, 0, false },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		uint64_t value = UNTOUCHED;

		assert_int_equal(text_uint(slice_of(cases[i].text), cases[i].max, &value), cases[i].good);
		assert_int_equal(value, cases[i].good ? cases[i].value : UNTOUCHED);
	}
}

static void durations(void **state) {
	static const struct {
		const char *text;
		uint64_t ms;
	} good[] = {
		{ "0", 0 },
		{ "0s", 0 },
		{ "500ms", 500 },
		{ "3s", 3000 },
		{ "2m", 120000 },
		{ "1h", 3600000 },
		{ "5124095576030h", UINT64_C(18446744073708000000) },
	};
	static const char *const bad[] = { "", "3", "s", "ms", "3 s", "3s ", "1.5s", "-1s", "3sec", "1m30s",
		"1d", "5124095576031h", "18446744073709551616ms" };

	for (size_t i = 0; i < n_elems(good); i++) {
		uint64_t ms = UNTOUCHED;

		assert_true(text_duration_ms(slice_of(good[i].text), &ms));
		assert_int_equal(ms, good[i].ms);
	}
	for (size_t i = 0; i < n_elems(bad); i++) {
		uint64_t ms = UNTOUCHED;

		assert_false(text_duration_ms(slice_of(bad[i]), &ms));
		assert_int_equal(ms, UNTOUCHED);
	}
}

static void sizes(void **state) {
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "512", 512 },
		{ "256k", 256 << 10 },
		{ "256KiB", 256 << 10 },
		{ "64MiB", 64 << 20 },
		{ "64m", 64 << 20 },
		{ "2G", UINT64_C(2) << 30 },
		{ "17179869183GiB", UINT64_C(17179869183) << 30 },
	};
	static const char *const bad[] = { "", "k", "MiB", "1KB", "1MB", "1 MiB", "1.5g", "-1", "1kk", "0x10",
		"17179869184GiB", "18446744073709551616" };

	for (size_t i = 0; i < n_elems(good); i++) {
		uint64_t bytes = UNTOUCHED;

		assert_true(text_size_bytes(slice_of(good[i].text), &bytes));
		assert_int_equal(bytes, good[i].bytes);
	}
	for (size_t i = 0; i < n_elems(bad); i++) {
		uint64_t bytes = UNTOUCHED;

		assert_false(text_size_bytes(slice_of(bad[i]), &bytes));
		assert_int_equal(bytes, UNTOUCHED);
	}
}

/* 63 letters, the longest label, in names of 253 and 254 bytes. */
#define LABEL "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz-0123456789"

static void hosts(void **state) {
	static const char *const good[] = { "localhost", "gpu-1.rack_2.example.com", "a.", "10.0.0.1", "::1",
		"::", "fe80::1", "::ffff:10.0.0.1", "1a", "a.1b", LABEL "." LABEL "." LABEL "." LABEL "" };
	static const char *const bad[] = { "", ".", "a..b", ".a", "a b", "a/b", "a:1", "[::1]", "1.2.3",
		"1.2.3.256", "a.123", "12", "fe80::1%eth0", "::g", "1::2::3", "h\xc3\xb6st", LABEL "x",
		"a\nb" };
	char longest[253 + 1 + 1];

	for (size_t i = 0; i + 1 < n_elems(good); i++)
		assert_true(text_is_host(slice_of(good[i])));
	for (size_t i = 0; i < n_elems(bad); i++)
		assert_false(text_is_host(slice_of(bad[i])));
	assert_false(text_is_host((struct slice){ "a\0b", 3 }));
	snprintf(longest, sizeof(longest), "%.253s.", good[n_elems(good) - 1]);
	assert_true(text_is_host((struct slice){ longest, 253 }));
	assert_false(text_is_host((struct slice){ longest, 254 }));
}

static void wildcards_in_all_their_spellings(void **state) {
	static const char *const wild[] = { "0.0.0.0", "0", "0x0", "0.0", "000.0.0.0",
		"::", "0:0:0:0:0:0:0:0", "::0.0.0.0", "::ffff:0.0.0.0", "::ffff:0:0", "::%eth0", "[::]",
		"[0.0.0.0]", "*" };
	static const char *const others[] = { "", "[]", "[", "[::", "::1", "[::1]", "0.0.0.1",
		"::ffff:0.0.0.1", "10.0.0.0", "127.0.0.1", "localhost", "**", "*.example", "0.example",
		"zero", "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0" };

	for (size_t i = 0; i < n_elems(wild); i++)
		if (!text_is_wildcard(slice_of(wild[i])))
			fail_msg("%s is one address", wild[i]);
	for (size_t i = 0; i < n_elems(others); i++)
		if (text_is_wildcard(slice_of(others[i])))
			fail_msg("%s is all addresses", others[i]);
}

static void authorities(void **state) {
	static const struct {
		const char *text, *host;
		uint16_t port;
	} good[] = {
		{ "a", "a", 80 },
		{ "a:1", "a", 1 },
		{ "10.0.0.1:65535", "10.0.0.1", 65535 },
		{ "[::1]", "::1", 80 },
		{ "[::1]:8000", "::1", 8000 },
	};
	static const char *const bad[] = { "", ":", ":80", "a:", "a:0", "a:65536", "a:b", "a:1:2", "::1",
		"[::1", "[::1]8000", "[a]:1", "[]:1", "[10.0.0.1]:1", "u@a:1", "a:+1" };

	for (size_t i = 0; i < n_elems(good); i++) {
		struct slice host;
		uint16_t port;

		assert_true(text_authority(slice_of(good[i].text), 80, &host, &port));
		assert_true(slice_eq(host, slice_of(good[i].host)));
		assert_int_equal(port, good[i].port);
	}
	for (size_t i = 0; i < n_elems(bad); i++) {
		struct slice host = { NULL, UNTOUCHED };
		uint16_t port = UNTOUCHED;

		assert_false(text_authority(slice_of(bad[i]), 80, &host, &port));
		assert_int_equal(host.n, UNTOUCHED);
		assert_int_equal(port, UNTOUCHED);
	}
}

static void urls(void **state) {
	static const struct {
		const char *text, *scheme, *host, *path;
		uint16_t port;
	} good[] = {
		{ "http://a", "http", "a", "", 80 },
		{ "HTTP://a/", "HTTP", "a", "/", 80 },
		{ "https://a.b:8443/x/y?z=1", "https", "a.b", "/x/y?z=1", 8443 },
		{ "https://a", "https", "a", "", 443 },
		{ "http://[::1]:8000", "http", "::1", "", 8000 },
		{ "grpc+tls://a", "grpc+tls", "a", "", 0 },
	};
	static const char *const bad[] = { "", "a", "a:1", "http:", "http:/a", "http://", "http:///x", "://a",
		"1p://a", "h p://a", "http://a b", "http://a/ b", "http://a/\n", "http://a/#x",
		"http://u:p@a/", "http://a?x", "http://a:0/", "http://::1/", "http://a:x/",
		"http://a/\xc3\xa4" };

	for (size_t i = 0; i < n_elems(good); i++) {
		struct text_url url;

		assert_true(text_url(slice_of(good[i].text), &url));
		assert_true(slice_eq(url.scheme, slice_of(good[i].scheme)));
		assert_true(slice_eq(url.host, slice_of(good[i].host)));
		assert_true(slice_eq(url.path, slice_of(good[i].path)));
		assert_int_equal(url.port, good[i].port);
	}
	for (size_t i = 0; i < n_elems(bad); i++) {
		struct text_url url;

		assert_false(text_url(slice_of(bad[i]), &url));
	}
}

static void what_is_printed_is_read_back(void **state) {
	static const struct {
		uint64_t number;
		const char *duration, *size;
	} cases[] = {
		{ 0, "0", "0" },
		{ 1, "1ms", "1" },
		{ 1000, "1s", "1000" },
		{ 1024, "1024ms", "1KiB" },
		{ 1500, "1500ms", "1500" },
		{ 90000, "90s", "90000" },
		{ 7200000, "2h", "7200000" },
		{ 64 << 20, "67108864ms", "64MiB" },
		{ UINT64_C(3) << 30, "3221225472ms", "3GiB" },
		{ UINT64_MAX, "18446744073709551615ms", "18446744073709551615" },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		char line[TEXT_PRINT_BYTES];
		uint64_t number;

		assert_string_equal(text_print_duration(cases[i].number, line), cases[i].duration);
		assert_true(text_duration_ms(slice_of(line), &number));
		assert_int_equal(number, cases[i].number);
		assert_string_equal(text_print_size(cases[i].number, line), cases[i].size);
		assert_true(text_size_bytes(slice_of(line), &number));
		assert_int_equal(number, cases[i].number);
	}
}

static void distances(void **state) {
	static const struct {
		const char *a, *b;
		unsigned distance;
	} cases[] = {
		{ "", "", 0 },
		{ "", "abc", 3 },
		{ "port", "port", 0 },
		{ "prot", "port", 2 },
		{ "threds", "threads", 1 },
		{ "kitten", "sitting", 3 },
		{ LABEL "x", "x", 63 },
		{ LABEL "xy", "x", UINT32_MAX },
	};

	for (size_t i = 0; i < n_elems(cases); i++) {
		struct slice a = slice_of(cases[i].a), b = slice_of(cases[i].b);

		assert_int_equal(text_distance(a, b), cases[i].distance);
		assert_int_equal(text_distance(b, a), cases[i].distance);
	}
}

static void addresses_of_colons_stand_in_brackets(void **state) {
	char url[TEXT_URL_BYTES];
	text_print_url(url, sizeof(url), "10.0.0.5", 8101);
	assert_string_equal(url, "http://10.0.0.5:8101");
	text_print_url(url, sizeof(url), "fe80::1", 80);
	assert_string_equal(url, "http://[fe80::1]:80");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(durations),
		cmocka_unit_test(sizes),
		cmocka_unit_test(hosts),
		cmocka_unit_test(wildcards_in_all_their_spellings),
		cmocka_unit_test(authorities),
		cmocka_unit_test(urls),
		cmocka_unit_test(what_is_printed_is_read_back),
		cmocka_unit_test(distances),
		cmocka_unit_test(addresses_of_colons_stand_in_brackets),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
