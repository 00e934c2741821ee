#include "unit/unit.h"

#include "http/head.h"

static void assert_slice(struct slice s, const char *text) {
	if (!s.p || !slice_eq(s, slice_of(text)))
		fail_msg("\"%.*s\" is not \"%s\"", (int)s.n, s.p ? s.p : "", text);
}

enum side { REQUEST, RESPONSE, TRAILER };

/* Parses the first n bytes of text from memory of just that size. */
static int parse(struct head_room *room, enum side side, struct slice text, size_t n, enum cause *cause) {
	char *exact = malloc(n + !n);
	memcpy(exact, text.p, n);
	struct slice in = { exact, n };
	*cause = CAUSE_UPSTREAM_MALFORMED;
	int r = side == REQUEST ? head_parse_request(room, in, cause)
	    : side == RESPONSE  ? head_parse_response(room, in, METHOD_GET)
				: head_parse_trailer(room, in);
	free(exact);
	room->head.base = text.p;
	return r;
}

/* A good head is incomplete up to its last byte and does not care what follows. */
static void assert_good(struct head_room *room, enum side side, struct slice text) {
	enum cause cause;
	for (size_t n = 0; n < text.n; n++)
		if (parse(room, side, text, n, &cause) != HEAD_E_MORE)
			fail_msg("not incomplete after %zu bytes: %.*s", n, (int)text.n, text.p);
	char *longer = malloc(text.n + 8);
	memcpy(longer, text.p, text.n);
	memcpy(longer + text.n, "\r\n\0GET \n", 8);
	if (parse(room, side, (struct slice){ longer, text.n + 8 }, text.n + 8, &cause) != 0)
		fail_msg("refused: %.*s", (int)text.n, text.p);
	free(longer);
	assert_int_equal(parse(room, side, text, text.n, &cause), 0);
	assert_int_equal(room->head.bytes, text.n);
}

/* A bad one is refused for good from some byte on; until then it is incomplete. */
static void assert_refused(enum side side, struct slice text, enum cause expected) {
	struct head_room room;
	enum cause cause = CAUSE_NONE;
	bool refused = false;
	for (size_t n = 0; n <= text.n; n++) {
		int r = parse(&room, side, text, n, &cause);
		if (r == 0 || (refused && r != HEAD_E_REFUSED))
			fail_msg("accepted with %zu bytes: %.*s", n, (int)text.n, text.p);
		refused = r == HEAD_E_REFUSED;
	}
	if (!refused || cause != expected)
		fail_msg("%s, not %s: %.*s", refused ? cause_row(cause)->label : "incomplete",
		    cause_row(expected)->label, (int)text.n, text.p);
}

/* --- requests ------------------------------------------------------------------------- */

static void good_requests(void **state) {
	static const struct {
		const char *text, *method_text, *target;
		enum method method;
		enum framing framing;
		uint64_t length;
		unsigned minor, n_fields;
		bool keep_alive, expects_continue;
	} rows[] = {
		{ "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", METHOD_GET, FRAMING_NONE, 0, 1, 1, true,
		    false },
		{ "POST /v1/x?q=/?&y HTTP/1.1\r\nhOsT:a.b:8000\r\nContent-Length:12\r\n\r\n", "POST",
		    "/v1/x?q=/?&y", METHOD_POST, FRAMING_LENGTH, 12, 1, 2, true, false },
		{ "PUT /\xc3\xa9 HTTP/1.1\r\nHost: [::1]:80\r\ntransfer-encoding: Chunked\r\n\r\n", "PUT",
		    "/\xc3\xa9", METHOD_PUT, FRAMING_CHUNKED, 0, 1, 2, true, false },
		{ "GET / HTTP/1.0\r\n\r\n", "GET", "/", METHOD_GET, FRAMING_NONE, 0, 0, 0, false, false },
		{ "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET", "/", METHOD_GET, FRAMING_NONE, 0,
		    0, 1, true, false },
		{ "HEAD / HTTP/1.1\r\nConnection: x, CLOSE\r\nHost: a\r\n\r\n", "HEAD", "/", METHOD_HEAD,
		    FRAMING_NONE, 0, 1, 2, false, false },
		{ "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 0\r\n\r\n", "POST",
		    "/", METHOD_POST, FRAMING_LENGTH, 0, 1, 3, true, true },
		{ "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", "POST", "/",
		    METHOD_POST, FRAMING_LENGTH, 1, 0, 2, false, false },
		{ "DELETE /a HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999999\r\n\r\n", "DELETE",
		    "/a", METHOD_DELETE, FRAMING_LENGTH, 999999999999999999, 1, 2, true, false },
		{ "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "*", METHOD_OPTIONS, FRAMING_NONE, 0, 1,
		    1, true, false },
		{ "PATCH / HTTP/1.1\r\nHost: a\r\n\r\n", "PATCH", "/", METHOD_OTHER, FRAMING_NONE, 0, 1, 1,
		    true, false },
		{ "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH", "/", METHOD_OTHER, FRAMING_NONE, 0, 1,
		    1, true, false },
		{ "GET http://a.b/c?d HTTP/1.1\r\nHost: A.b\r\n\r\n", "GET", "/c?d", METHOD_GET, FRAMING_NONE,
		    0, 1, 1, true, false },
		{ "GET HTTPS://a:1/ HTTP/1.1\r\nHost: a:1\r\n\r\n", "GET", "/", METHOD_GET, FRAMING_NONE, 0,
		    1, 1, true, false },
		{ "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", METHOD_GET, FRAMING_NONE, 0, 1, 1,
		    true, false },
		{ "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "*", METHOD_OPTIONS,
		    FRAMING_NONE, 0, 1, 1, true, false },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct head_room room;
		const struct head *h = &room.head;
		assert_good(&room, REQUEST, slice_of(rows[i].text));
		assert_slice(head_method(h), rows[i].method_text);
		assert_slice(head_target(h), rows[i].target);
		assert_int_equal(h->method, rows[i].method);
		assert_int_equal(h->framing, rows[i].framing);
		assert_int_equal(h->content_length, rows[i].length);
		assert_int_equal(h->has_length, rows[i].framing == FRAMING_LENGTH);
		assert_int_equal(h->minor, rows[i].minor);
		assert_int_equal(h->n_fields, rows[i].n_fields);
		assert_int_equal(h->keep_alive, rows[i].keep_alive);
		assert_int_equal(h->expects_continue, rows[i].expects_continue);
	}
}

/* Of the two options that contradict each other the one that ends wins, in any order (RFC 9112 section 9.3).
 */
static void close_beats_keep_alive(void **state) {
	static const char *const rows[] = {
		"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, keep-alive\r\n\r\n",
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct head_room room;
		assert_good(&room, REQUEST, slice_of(rows[i]));
		assert_false(room.head.keep_alive);
	}
}

/* Each between "GET / HTTP/1.1 CRLF Host: a CRLF" and the empty line. */
static void bad_fields(void **state) {
	static const struct {
		const char *field;
		enum cause cause;
	} rows[] = {
		{ "a : b\r\n", CAUSE_MALFORMED },
		{ ": b\r\n", CAUSE_MALFORMED },
		{ " a: b\r\n", CAUSE_MALFORMED },
		{ "a: b\r\n c\r\n", CAUSE_MALFORMED },
		{ "a: b\r\n\tc\r\n", CAUSE_MALFORMED },
		{ "a\r\n", CAUSE_MALFORMED },
		{ "a b: c\r\n", CAUSE_MALFORMED },
		{ "a: b\n", CAUSE_MALFORMED },
		{ "a: b\rc\r\n", CAUSE_MALFORMED },
		{ "a: b\r\r\n", CAUSE_MALFORMED },
		{ "a: b\x7f\r\n", CAUSE_MALFORMED },
		{ "\x80: b\r\n", CAUSE_MALFORMED },
		{ "\n", CAUSE_MALFORMED },
		{ "Host: a\r\n", CAUSE_MALFORMED },
		{ "Content-Length: \r\n", CAUSE_MALFORMED },
		{ "Content-Length: +1\r\n", CAUSE_MALFORMED },
		{ "Content-Length: -1\r\n", CAUSE_MALFORMED },
		{ "Content-Length: 0x1\r\n", CAUSE_MALFORMED },
		{ "Content-Length: 1 1\r\n", CAUSE_MALFORMED },
		{ "Content-Length: 1,1\r\n", CAUSE_MALFORMED },
		{ "Content-Length: 1000000000000000000\r\n", CAUSE_MALFORMED },
		{ "Content-Length: 1\r\nContent-Length: 1\r\n", CAUSE_MALFORMED },
		{ "Content-Length: 1\r\ncontent-length: 2\r\n", CAUSE_MALFORMED },
		{ "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", CAUSE_MALFORMED },
		{ "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", CAUSE_MALFORMED },
		{ "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CAUSE_MALFORMED },
		{ "Transfer-Encoding: chunked, chunked\r\n", CAUSE_TRANSFER_CODING },
		{ "Transfer-Encoding: gzip, chunked\r\n", CAUSE_TRANSFER_CODING },
		{ "Transfer-Encoding: identity\r\n", CAUSE_TRANSFER_CODING },
		{ "Transfer-Encoding: \r\n", CAUSE_TRANSFER_CODING },
		{ "Transfer-Encoding: xchunked\r\n", CAUSE_TRANSFER_CODING },
		{ "Transfer-Encoding: chunked;q=1\r\n", CAUSE_TRANSFER_CODING },
		{ "Transfer-Encoding: \"chunked\"\r\n", CAUSE_TRANSFER_CODING },
		{ "Expect: 200-ok\r\n", CAUSE_EXPECTATION },
		{ "Expect: 100-continue, x\r\n", CAUSE_EXPECTATION },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		char text[300];
		int n = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", rows[i].field);
		assert_refused(REQUEST, (struct slice){ text, (size_t)n }, rows[i].cause);
	}
	assert_refused(REQUEST, SLICE("GET / HTTP/1.1\r\nHost: a\r\na: b\0c\r\n\r\n"), CAUSE_MALFORMED);
	assert_refused(REQUEST, SLICE("GET / HTTP/1.1\r\nHost: a\r\na\0: b\r\n\r\n"), CAUSE_MALFORMED);
}

static void bad_first_lines(void **state) {
	static const struct {
		const char *line;
		enum cause cause;
	} rows[] = {
		{ "", CAUSE_MALFORMED },
		{ " GET / HTTP/1.1", CAUSE_MALFORMED },
		{ "GET  / HTTP/1.1", CAUSE_MALFORMED },
		{ "GET /  HTTP/1.1", CAUSE_MALFORMED },
		{ "GET / HTTP/1.1 ", CAUSE_MALFORMED },
		{ "GET\t/ HTTP/1.1", CAUSE_MALFORMED },
		{ "GET /\tHTTP/1.1", CAUSE_MALFORMED },
		{ "GET /", CAUSE_MALFORMED },
		{ "GET", CAUSE_MALFORMED },
		{ "GET / http/1.1", CAUSE_MALFORMED },
		{ "GET / HTTP/1", CAUSE_MALFORMED },
		{ "GET / HTTP/1.1\n", CAUSE_MALFORMED },
		{ "GET / HTTP/1.11", CAUSE_MALFORMED },
		{ "GET / HTTP/11.1", CAUSE_MALFORMED },
		{ "GET / HTTP/1,1", CAUSE_MALFORMED },
		{ "GET / XTTP/1.1", CAUSE_MALFORMED },
		{ "GET / HTTP/1.2", CAUSE_VERSION },
		{ "GET / HTTP/0.9", CAUSE_VERSION },
		{ "GET / HTTP/2.0", CAUSE_VERSION },
		{ "PRI * HTTP/2.0", CAUSE_VERSION },
		{ "G(T / HTTP/1.1", CAUSE_MALFORMED },
		{ "get / HTTP/1.1", CAUSE_METHOD },
		{ "GETT / HTTP/1.1", CAUSE_METHOD },
		{ "CONNECT a:80 HTTP/1.1", CAUSE_METHOD },
		{ "TRACE / HTTP/1.1", CAUSE_METHOD },
		{ "GET a HTTP/1.1", CAUSE_MALFORMED },
		{ "GET * HTTP/1.1", CAUSE_MALFORMED },
		{ "OPTIONS ** HTTP/1.1", CAUSE_MALFORMED },
		{ "GET /#a HTTP/1.1", CAUSE_MALFORMED },
		{ "GET /\x7f HTTP/1.1", CAUSE_MALFORMED },
		{ "GET http:// HTTP/1.1", CAUSE_MALFORMED },
		{ "GET http://b/ HTTP/1.1", CAUSE_MALFORMED },
		{ "GET http://a:80/ HTTP/1.1", CAUSE_MALFORMED },
		{ "GET http://u@a/ HTTP/1.1", CAUSE_MALFORMED },
		{ "GET http:/a/ HTTP/1.1", CAUSE_MALFORMED },
		{ "GET ftp://a/ HTTP/1.1", CAUSE_MALFORMED },
		{ "GET //a HTTP/1.1x", CAUSE_MALFORMED },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		char text[300];
		int n = snprintf(text, sizeof(text), "%s\r\nHost: a\r\n\r\n", rows[i].line);
		assert_refused(REQUEST, (struct slice){ text, (size_t)n }, rows[i].cause);
	}
}

static void hosts(void **state) {
	static const struct {
		const char *host;
		bool good;
	} rows[] = {
		{ "a", true },
		{ "a.b-c_d~e", true },
		{ "127.0.0.1:65535", true },
		{ "a:", true },
		{ "a:0", true },
		{ "[::1]", true },
		{ "[fe80::1]:8080", true },
		{ "[1::ffff:1.2.3.4]", true },
		{ "a%20b", true },
		{ "", false },
		{ ":80", false },
		{ "a:65536", false },
		{ "a:123456", false },
		{ "a:8a", false },
		{ "a:80:80", false },
		{ "a b", false },
		{ "a/b", false },
		{ "u@a", false },
		{ "a,b", false },
		{ "a?", false },
		{ "[]", false },
		{ "[:]", false },
		{ "[::1", false },
		{ "[::g]", false },
		{ "[::1]x", false },
		{ "::1", false },
		{ "\xc3\xa9", false },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct head_room room;
		char text[300];
		int n = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", rows[i].host);
		if (rows[i].good)
			assert_good(&room, REQUEST, (struct slice){ text, (size_t)n });
		else
			assert_refused(REQUEST, (struct slice){ text, (size_t)n }, CAUSE_MALFORMED);
	}
	assert_refused(REQUEST, SLICE("GET / HTTP/1.1\r\n\r\n"), CAUSE_MALFORMED);
	assert_refused(REQUEST, SLICE("GET / HTTP/1.0\r\nHost: a b\r\n\r\n"), CAUSE_MALFORMED);
	assert_refused(
	    REQUEST, SLICE("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), CAUSE_MALFORMED);
}

/* RFC 9110 section 5.6.2. */
static bool is_tchar(int c) {
	return c && c < 128 &&
	    strchr("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", c);
}

/* Every byte at every kind of place. */
static void every_byte_has_its_places(void **state) {
	for (int c = 0; c < 256; c++) {
		bool is_value = c == '\t' || (c >= 0x20 && c != 0x7f);
		struct {
			struct slice text;
			enum cause cause;
		} rows[] = {
			{ SLICE("GET / HTTP/1.1\r\nHost: a\r\nx-?y: z\r\n\r\n"),
			    is_tchar(c) || c == ':' ? CAUSE_NONE : CAUSE_MALFORMED },
			{ SLICE("GET / HTTP/1.1\r\nHost: a\r\nx: y?z\r\n\r\n"),
			    is_value ? CAUSE_NONE : CAUSE_MALFORMED },
			{ SLICE("GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n"),
			    c > 0x20 && c != 0x7f && c != '#' ? CAUSE_NONE : CAUSE_MALFORMED },
			{ SLICE("G?T / HTTP/1.1\r\nHost: a\r\n\r\n"),
			    c == 'E'          ? CAUSE_NONE
				: is_tchar(c) ? CAUSE_METHOD
					      : CAUSE_MALFORMED },
		};
		for (size_t i = 0; i < n_elems(rows); i++) {
			struct head_room room;
			char text[60];
			memcpy(text, rows[i].text.p, rows[i].text.n);
			*(char *)memchr(text, '?', rows[i].text.n) = (char)c;
			struct slice s = { text, rows[i].text.n };
			if (rows[i].cause)
				assert_refused(REQUEST, s, rows[i].cause);
			else
				assert_good(&room, REQUEST, s);
		}
	}
}

/* --- limits --------------------------------------------------------------------------- */

static char large[2 * HEAD_BYTES_MAX];

static int parse_large(struct head_room *room, size_t n, enum cause *cause) {
	return head_parse_request(room, (struct slice){ large, n }, cause);
}

/* Offsets are 16 bits wide: the last field of the largest head is where they would break. */
static void a_head_may_have_65535_bytes(void **state) {
	struct head_room room;
	enum cause cause;
	for (size_t n = HEAD_BYTES_MAX - 3; n <= HEAD_BYTES_MAX + 3; n++) {
		size_t at = (size_t)snprintf(large, sizeof(large), "GET / HTTP/1.1\r\nHost: a\r\nfill: ");
		memset(large + at, 'x', n);
		memcpy(large + n - 14, "\r\nlast: 67\r\n\r\n", 14);
		int r = parse_large(&room, n, &cause);
		if (n > HEAD_BYTES_MAX) {
			assert_int_equal(r, HEAD_E_REFUSED);
			assert_int_equal(cause, CAUSE_HEAD_TOO_LARGE);
			continue;
		}
		assert_int_equal(r, 0);
		assert_int_equal(room.head.bytes, n);
		assert_int_equal(room.head.n_fields, 3);
		assert_slice(head_find_name(&room.head, SLICE("last")), "67");
		assert_int_equal(head_find_name(&room.head, SLICE("fill")).n, n - 14 - at);
		assert_int_equal(parse_large(&room, n - 1, &cause), HEAD_E_MORE);
	}
	memset(large, 'x', sizeof(large));
	memcpy(large, "GET / HTTP/1.1\r\na: ", 19);
	assert_int_equal(parse_large(&room, HEAD_BYTES_MAX - 1, &cause), HEAD_E_MORE);
	assert_int_equal(parse_large(&room, HEAD_BYTES_MAX, &cause), HEAD_E_REFUSED);
	assert_int_equal(cause, CAUSE_HEAD_TOO_LARGE);
	memset(large, 'x', sizeof(large)); /* a name */
	memcpy(large, "GET / HTTP/1.1\r\n", 16);
	assert_int_equal(parse_large(&room, sizeof(large), &cause), HEAD_E_REFUSED);
	assert_int_equal(cause, CAUSE_HEAD_TOO_LARGE);
}

static void a_target_may_have_32768_bytes(void **state) {
	struct head_room room;
	enum cause cause;
	for (size_t n = HEAD_TARGET_MAX - 1; n <= HEAD_TARGET_MAX + 1; n++) {
		memset(large, '/', sizeof(large));
		memcpy(large, "GET ", 4);
		memcpy(large + 4 + n, " HTTP/1.1\r\nHost: a\r\n\r\n", 22);
		int r = parse_large(&room, 4 + n + 22, &cause);
		assert_int_equal(r, n <= HEAD_TARGET_MAX ? 0 : HEAD_E_REFUSED);
		if (r)
			assert_int_equal(cause, CAUSE_TARGET_TOO_LONG);
		else
			assert_int_equal(head_target(&room.head).n, n);
	}
	memset(large, 'G', sizeof(large)); /* no end of the method, even */
	assert_int_equal(parse_large(&room, HEAD_BYTES_MAX - 1, &cause), HEAD_E_MORE);
	assert_int_equal(parse_large(&room, sizeof(large), &cause), HEAD_E_REFUSED);
	assert_int_equal(cause, CAUSE_TARGET_TOO_LONG);
}

static void a_head_may_have_100_fields(void **state) {
	struct head_room room;
	enum cause cause;
	for (unsigned n_fields = HEAD_FIELDS_MAX - 1; n_fields <= HEAD_FIELDS_MAX + 1; n_fields++) {
		size_t n = (size_t)snprintf(large, sizeof(large), "GET / HTTP/1.1\r\nHost: a\r\n");
		for (unsigned i = 1; i < n_fields; i++)
			n += (size_t)snprintf(large + n, sizeof(large) - n, "f%u: %u\r\n", i, i);
		memcpy(large + n, "\r\n", 2);
		int r = parse_large(&room, n + 2, &cause);
		assert_int_equal(r, n_fields <= HEAD_FIELDS_MAX ? 0 : HEAD_E_REFUSED);
		if (r)
			assert_int_equal(cause, CAUSE_HEAD_TOO_LARGE);
		else
			assert_int_equal(room.head.n_fields, n_fields);
	}
	assert_slice(head_find_name(&room.head, SLICE("f99")), "99");
}

/* Each is compared with every field: without a limit one head would cost as much as five hundred. */
static void connection_may_have_100_options(void **state) {
	struct head_room room;
	enum cause cause;
	for (unsigned n_options = HEAD_FIELDS_MAX; n_options <= HEAD_FIELDS_MAX + 1; n_options++) {
		size_t n =
		    (size_t)snprintf(large, sizeof(large), "GET / HTTP/1.1\r\nHost: a\r\nConnection: ");
		for (unsigned i = 1; i < n_options; i++) {
			const char *next = i == n_options / 2 ? "\r\nConnection: x" : "x,";
			n += (size_t)snprintf(large + n, sizeof(large) - n, "%s", next);
		}
		n += (size_t)snprintf(large + n, sizeof(large) - n, "x\r\n\r\n");
		int r = parse_large(&room, n, &cause);
		assert_int_equal(r, n_options <= HEAD_FIELDS_MAX ? 0 : HEAD_E_REFUSED);
		if (r)
			assert_int_equal(cause, CAUSE_HEAD_TOO_LARGE);
	}
}

/* --- responses ------------------------------------------------------------------------ */

static void good_responses(void **state) {
	static const struct {
		const char *text;
		enum method method;
		unsigned status;
		enum framing framing;
		uint64_t length;
		bool has_length, keep_alive;
	} rows[] = {
		{ "HTTP/1.1 200 OK\r\n\r\n", METHOD_GET, 200, FRAMING_CLOSE, 0, false, true },
		{ "HTTP/1.1 200\r\n\r\n", METHOD_GET, 200, FRAMING_CLOSE, 0, false, true },
		{ "HTTP/1.1 200 \r\n\r\n", METHOD_GET, 200, FRAMING_CLOSE, 0, false, true },
		{ "HTTP/1.1 599 \xe6\xb0\xb4 a\tb\r\n\r\n", METHOD_GET, 599, FRAMING_CLOSE, 0, false, true },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", METHOD_POST, 200, FRAMING_LENGTH, 5, true,
		    true },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", METHOD_POST, 200, FRAMING_CHUNKED,
		    0, false, true },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", METHOD_HEAD, 200, FRAMING_NONE, 5, true,
		    true },
		{ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", METHOD_HEAD, 200, FRAMING_NONE, 0,
		    false, true },
		{ "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", METHOD_GET, 204, FRAMING_NONE, 5,
		    true, true },
		{ "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", METHOD_GET, 304, FRAMING_NONE, 5,
		    true, true },
		{ "HTTP/1.1 100 Continue\r\n\r\n", METHOD_POST, 100, FRAMING_NONE, 0, false, true },
		{ "HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n", METHOD_POST, 103, FRAMING_NONE,
		    0, false, true },
		{ "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", METHOD_GET, 200, FRAMING_CLOSE, 0, false,
		    false },
		{ "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", METHOD_GET, 200, FRAMING_LENGTH, 0, true,
		    false },
		{ "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", METHOD_GET, 200,
		    FRAMING_LENGTH, 0, true, true },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct head_room room;
		assert_good(&room, RESPONSE, slice_of(rows[i].text));
		assert_int_equal(head_parse_response(&room, slice_of(rows[i].text), rows[i].method), 0);
		assert_int_equal(room.head.status, rows[i].status);
		assert_int_equal(room.head.framing, rows[i].framing);
		assert_int_equal(room.head.content_length, rows[i].length);
		assert_int_equal(room.head.has_length, rows[i].has_length);
		assert_int_equal(room.head.keep_alive, rows[i].keep_alive);
	}
}

static void bad_responses(void **state) {
	static const char *const rows[] = {
		"\r\nHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1  200 OK\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n",
		"HTTP/1.1 2000 OK\r\n\r\n",
		"HTTP/1.1 099 OK\r\n\r\n",
		"HTTP/1.1 600 OK\r\n\r\n",
		"HTTP/1.1 200\tOK\r\n\r\n",
		"HTTP/1.1 200 O\x01K\r\n\r\n",
		"HTTP/1.1 200 OK\n\r\n",
		"HTTP/1.1 200 OK\r\r\n\r\n",
		"HTTP/1.1 +20 OK\r\n\r\n",
		"HTTP/2.0 200 OK\r\n\r\n",
		"HTTP/1.2 200 OK\r\n\r\n",
		"http/1.1 200 OK\r\n\r\n",
		"ICY 200 OK\r\n\r\n",
		"garbage",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
		"HTTP/1.1 200 OK\r\na : b\r\n\r\n",
	};
	for (size_t i = 0; i < n_elems(rows); i++)
		assert_refused(RESPONSE, slice_of(rows[i]), CAUSE_UPSTREAM_MALFORMED);

	struct head_room room;
	memset(large, 'x', sizeof(large));
	memcpy(large, "HTTP/1.1 200 ", 13);
	assert_int_equal(
	    head_parse_response(&room, (struct slice){ large, HEAD_BYTES_MAX - 1 }, METHOD_GET), HEAD_E_MORE);
	assert_int_equal(
	    head_parse_response(&room, (struct slice){ large, HEAD_BYTES_MAX }, METHOD_GET), HEAD_E_REFUSED);
}

static void trailers(void **state) {
	struct head_room room;
	assert_good(&room, TRAILER, SLICE("\r\n"));
	assert_int_equal(room.head.n_fields, 0);
	assert_good(&room, TRAILER, SLICE("a: b\r\nc:\r\n\r\n"));
	assert_int_equal(room.head.n_fields, 2);
	assert_slice(head_find_name(&room.head, SLICE("a")), "b");
	assert_slice(head_find_name(&room.head, SLICE("c")), "");
	assert_refused(TRAILER, SLICE("a b\r\n\r\n"), CAUSE_UPSTREAM_MALFORMED);
	assert_refused(TRAILER, SLICE("a: b\n\r\n"), CAUSE_UPSTREAM_MALFORMED);
}

/* --- fields --------------------------------------------------------------------------- */

static const struct slice example = SLICE(
    "POST /a/b?c?d HTTP/1.1\r\nHost: h\r\nConnection: X-One, ,host\r\nconnection: TE,\tx-two, "
    "content-type\r\n"
    "x-ONE:  1 \r\nX-Two: \t2\t2\t\r\nX-Three:\r\nTE: trailers\r\nContent-Type: t\r\nx-one: again\r\n\r\n");

static bool is_hop(const struct head *h, struct slice lower) {
	for (unsigned i = 0; i < h->n_fields; i++)
		if (slice_is(head_name(h, &h->fields[i]), lower))
			return head_is_hop_field(&h->fields[i]);
	fail();
	return false;
}

static void assert_example(const struct head *h) {
	assert_slice(head_path(h), "/a/b");
	assert_slice(head_find(h, FIELD_HOST), "h");
	assert_slice(head_find(h, FIELD_CONTENT_TYPE), "t");
	assert_null(head_find(h, FIELD_COOKIE).p);
	assert_slice(head_find_name(h, SLICE("x-one")), "1"); /* the first of two */
	assert_slice(head_find_name(h, SLICE("x-two")), "2\t2");
	assert_slice(head_find_name(h, SLICE("x-three")), "");
	assert_null(head_find_name(h, SLICE("x-four")).p);
}

static void fields_are_found(void **state) {
	struct head_room room;
	assert_good(&room, REQUEST, example);
	assert_example(&room.head);
}

/* What Connection names belongs to this hop, but for what is not the client's to strip. */
static void connection_names_fields(void **state) {
	struct head_room room;
	assert_good(&room, REQUEST, example);
	assert_true(is_hop(&room.head, SLICE("x-one")));
	assert_true(room.head.fields[room.head.n_fields - 1].is_named);
	assert_true(is_hop(&room.head, SLICE("x-two")));
	assert_true(is_hop(&room.head, SLICE("te")));
	assert_true(is_hop(&room.head, SLICE("connection")));
	assert_false(is_hop(&room.head, SLICE("x-three")));
	assert_false(is_hop(&room.head, SLICE("host")));
	assert_false(is_hop(&room.head, SLICE("content-type")));
}

static void connection_names_what_comes_later(void **state) {
	struct head_room room;
	assert_good(&room, REQUEST,
	    SLICE("GET / HTTP/1.1\r\nHost: x\r\nConnection: close, x-Sum\r\nX-Other: x-no\r\n"
		  "connection: ,\tx-last \r\n\r\n"));
	assert_true(head_names_in_connection(&room.head, SLICE("X-Sum")));
	assert_true(head_names_in_connection(&room.head, SLICE("x-last")));
	assert_true(head_names_in_connection(&room.head, SLICE("close")));
	assert_false(head_names_in_connection(&room.head, SLICE("x-su")));
	assert_false(head_names_in_connection(&room.head, SLICE("x-summ")));
	assert_false(head_names_in_connection(&room.head, SLICE("x-no")));
	assert_false(head_names_in_connection(&room.head, SLICE("x-other")));
}

/* A head that comes byte by byte is parsed once a line, not once a byte. */
static void a_head_is_worth_parsing_when_a_line_has_ended(void **state) {
	uint16_t seen = 0;
	unsigned n_worth = 0;
	for (size_t n = 1; n <= example.n; n++) {
		bool worth = head_is_worth_parsing(slice_head(example, n), &seen);
		assert_int_equal(worth, n == 1 || example.p[n - 1] == '\n');
		assert_int_equal(seen, n);
		n_worth += worth;
	}
	assert_true(n_worth > 3);
	assert_false(head_is_worth_parsing(example, &seen)); /* nothing is new */
	seen = 10;
	assert_true(head_is_worth_parsing(example, &seen));

	seen = 1; /* too much is too much without a line's end */
	memset(large, 'x', sizeof(large));
	assert_false(head_is_worth_parsing((struct slice){ large, HEAD_BYTES_MAX - 1 }, &seen));
	assert_true(head_is_worth_parsing((struct slice){ large, HEAD_BYTES_MAX }, &seen));
	assert_true(head_is_worth_parsing((struct slice){ large, sizeof(large) }, &seen));
	assert_int_equal(seen, HEAD_BYTES_MAX);
}

static void a_copy_stands_alone(void **state) {
	struct buf_budget budget = { .max_bytes = 0 }; /* it is forced */
	struct buf_pool pool;
	struct head_room room;
	enum cause cause;
	buf_pool_init(&pool, &budget);
	char *text = malloc(example.n);
	memcpy(text, example.p, example.n);
	assert_int_equal(head_parse_request(&room, (struct slice){ text, example.n }, &cause), 0);
	struct buf *b = head_copy(&pool, &room.head);
	memset(text, 'x', example.n);
	free(text);
	memset(&room, 'x', sizeof(room));
	const struct head *h = (const struct head *)b->data;
	assert_true(b->used <= b->size);
	assert_int_equal(h->n_fields, 9);
	assert_int_equal(h->method, METHOD_POST);
	assert_slice(head_method(h), "POST");
	assert_example(h);
	buf_unref(&pool, &b);
	buf_pool_deinit(&pool);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_requests),
		cmocka_unit_test(close_beats_keep_alive),
		cmocka_unit_test(bad_fields),
		cmocka_unit_test(bad_first_lines),
		cmocka_unit_test(hosts),
		cmocka_unit_test(every_byte_has_its_places),
		cmocka_unit_test(a_head_may_have_65535_bytes),
		cmocka_unit_test(a_target_may_have_32768_bytes),
		cmocka_unit_test(a_head_may_have_100_fields),
		cmocka_unit_test(connection_may_have_100_options),
		cmocka_unit_test(good_responses),
		cmocka_unit_test(bad_responses),
		cmocka_unit_test(trailers),
		cmocka_unit_test(fields_are_found),
		cmocka_unit_test(connection_names_fields),
		cmocka_unit_test(connection_names_what_comes_later),
		cmocka_unit_test(a_head_is_worth_parsing_when_a_line_has_ended),
		cmocka_unit_test(a_copy_stands_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
