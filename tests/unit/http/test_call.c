#include "unit/http/wire.h"

/* --- receiving ------------------------------------------------------------------------ */

/* What came so far. */
struct got {
	char text[4000];
	size_t n;
	bool is_end;
};

/* Receives until there is nothing more for now; the outcome of the last try, 0 at the end of the message. */
static int receive(struct wire *w, size_t max, struct got *got) {
	for (;;) {
		struct call_in in;
		int r = call_recv(&w->call, max, &in);
		if (r)
			return r;
		size_t before = got->n;
		for (size_t i = 0; i < in.n; i++) {
			memcpy(got->text + got->n, in.pieces[i].p, in.pieces[i].n);
			got->n += in.pieces[i].n;
		}
		assert_int_equal(got->n - before, in.bytes);
		got->is_end = in.is_end;
		if (in.is_end)
			return 0;
		assert_true(in.n > 0);
	}
}

static void assert_got(const struct got *got, const char *text) {
	if (!slice_eq((struct slice){ got->text, got->n }, slice_of(text)))
		fail_msg("\"%.*s\" is not \"%s\"", (int)got->n, got->text, text);
}

static void every_framing_is_taken_off(void **state) {
	static const struct {
		enum framing framing;
		uint64_t length;
		const char *text, *body, *rest;
	} rows[] = {
		{ FRAMING_NONE, 0, "next", "", "" },
		{ FRAMING_LENGTH, 4, "bodynext", "body", "next" },
		{ FRAMING_LENGTH, 0, "next", "", "" },
		{ FRAMING_CHUNKED, 0, "2\r\nbo\r\n2;x\r\ndy\r\n0\r\n\r\nnext", "body", "next" },
		{ FRAMING_CHUNKED, 0, "0\r\n\r\nnext", "", "next" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct got got = { .n = 0 };
		struct wire w;
		wire_open(&w, rows[i].framing, rows[i].length);
		wire_say(&w, slice_of(rows[i].text));
		assert_int_equal(receive(&w, 1000, &got), 0);
		assert_got(&got, rows[i].body);
		assert_true(call_is_received(&w.call));
		assert_true(slice_eq(w.conn.unread, slice_of(rows[i].rest)));
		assert_int_equal(w.call.in_bytes, strlen(rows[i].body));
		assert_int_equal(receive(&w, 1000, &got), 0); /* and again, without touching what follows */
		assert_true(slice_eq(w.conn.unread, slice_of(rows[i].rest)));
		wire_close(&w);
	}
}

static void a_body_comes_in_any_pieces(void **state) {
	static const char text[] = "3\r\nabc\r\n00a;x=y\r\n0123456789\r\n0\r\nTrailer: yes\r\n\r\n";
	for (size_t step = 1; step < sizeof(text); step++) {
		struct got got = { .n = 0 };
		struct head_room trailer;
		struct wire w;
		wire_open(&w, FRAMING_CHUNKED, 0);
		for (size_t at = 0; at < sizeof(text) - 1; at += step) {
			struct slice part = { text + at, size_min(step, sizeof(text) - 1 - at) };
			wire_say(&w, part);
			int r = receive(&w, step > 8 ? 5 : 1000, &got);
			assert_int_equal(r, at + part.n == sizeof(text) - 1 ? 0 : CALL_E_AGAIN);
		}
		assert_got(&got, "abc0123456789");
		assert_true(call_trailer(&w.call, &trailer));
		assert_true(slice_eq(head_find_name(&trailer.head, SLICE("trailer")), SLICE("yes")));
		wire_close(&w);
	}
}

/* More chunks in one read than fit into one struct call_in. */
static void a_storm_of_chunks_is_taken_in_turns(void **state) {
	char text[700], body[101];
	struct got got = { .n = 0 };
	struct call_in in;
	struct wire w;
	size_t n = 0;
	for (unsigned i = 0; i < 100; i++) {
		body[i] = (char)('a' + i % 26);
		n += (size_t)snprintf(text + n, sizeof(text) - n, "1\r\n%c\r\n", body[i]);
	}
	body[100] = '\0';
	n += (size_t)snprintf(text + n, sizeof(text) - n, "0\r\n\r\n");
	wire_open(&w, FRAMING_CHUNKED, 0);
	wire_say(&w, (struct slice){ text, n });
	assert_int_equal(call_recv(&w.call, 1000, &in), 0);
	assert_int_equal(in.n, CALL_PIECES_MAX);
	assert_false(in.is_end);
	assert_true(call_has_input(&w.call));
	memcpy(got.text, body, CALL_PIECES_MAX);
	got.n = CALL_PIECES_MAX;
	assert_int_equal(receive(&w, 1000, &got), 0);
	assert_got(&got, body);
	wire_close(&w);
}

/* Where the end of the connection is the end of the message, and where it is not. */
static void an_end_is_not_always_an_end(void **state) {
	static const struct {
		enum framing framing;
		const char *text;
		bool reset;
		int r;
	} rows[] = {
		{ FRAMING_CLOSE, "body", false, 0 },
		{ FRAMING_CLOSE, "body", true, CALL_E_GONE },
		{ FRAMING_LENGTH, "body", false, CALL_E_GONE },
		{ FRAMING_LENGTH, "body", true, CALL_E_GONE },
		{ FRAMING_CHUNKED, "4\r\nbody\r\n", false, CALL_E_GONE },
		{ FRAMING_CHUNKED, "4\r\nbody\r\n0\r\n", false, CALL_E_GONE },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct got got = { .n = 0 };
		struct wire w;
		wire_open(&w, rows[i].framing, 5);
		wire_say(&w, slice_of(rows[i].text));
		assert_int_equal(receive(&w, 1000, &got), CALL_E_AGAIN);
		assert_false(call_is_gone(&w.call));
		wire_end(&w, rows[i].reset);
		assert_true(call_is_gone(&w.call));
		assert_int_equal(receive(&w, 1000, &got), rows[i].r);
		assert_got(&got, "body");
		assert_int_equal(call_is_received(&w.call), rows[i].r == 0);
		wire_close(&w);
	}
}

static void bad_grammar_is_told(void **state) {
	static const char *const rows[] = { "x", "1\r\nab", "0\r\nbad trailer\r\n\r\n", "0\r\na: b\n",
		"-1\r\n" };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct got got = { .n = 0 };
		struct wire w;
		wire_open(&w, FRAMING_CHUNKED, 0);
		wire_say(&w, slice_of(rows[i]));
		assert_int_equal(receive(&w, 1000, &got), CALL_E_BAD);
		wire_close(&w);
	}
}

/* A body that ends in order is good however much others hold, and cut where it may be. */
static void an_end_needs_no_memory(void **state) {
	static const char *const trailers[] = { "\r\n", "X-Sum: 1\r\n\r\n" };
	for (size_t i = 0; i < n_elems(trailers); i++) {
		size_t n = strlen(trailers[i]);
		for (size_t k = 0; k < n; k++) {
			struct got got = { .n = 0 };
			struct head_room trailer;
			struct wire w;
			wire_open(&w, FRAMING_CHUNKED, 0);
			w.rig.budget.max_bytes = 0;
			wire_say(&w, SLICE("1\r\na\r\n0\r\n"));
			wire_say(&w, (struct slice){ trailers[i], k });
			int before = receive(&w, 1000, &got);
			wire_say(&w, (struct slice){ trailers[i] + k, n - k });
			int after = before == CALL_E_AGAIN ? receive(&w, 1000, &got) : before;
			unsigned n_fields = call_trailer(&w.call, &trailer) ? trailer.head.n_fields : 0;
			bool is_kept = w.call.trailer;
			wire_close(&w);
			assert_int_equal(after, 0);
			assert_int_equal(n_fields, i);
			assert_int_equal(is_kept, i); /* of an empty one nothing is */
		}
	}
}

static void a_long_trailer_is_kept_whole(void **state) {
	char line[101];
	struct got got = { .n = 0 };
	struct head_room trailer;
	struct wire w;
	int r = CALL_E_AGAIN;
	wire_open(&w, FRAMING_CHUNKED, 0);
	wire_say(&w, SLICE("0\r\n"));
	for (unsigned i = 0; i <= 90; i++) {
		assert_int_equal(r, CALL_E_AGAIN);
		snprintf(line, sizeof(line), "field-%02u: %088u\r\n", i, i);
		wire_say(&w, i < 90 ? slice_of(line) : SLICE("\r\n"));
		r = receive(&w, 1000, &got);
	}
	assert_int_equal(r, 0);
	assert_true(call_trailer(&w.call, &trailer));
	assert_int_equal(trailer.head.n_fields, 90);
	assert_true(slice_eq(slice_skip(head_find_name(&trailer.head, SLICE("field-89")), 86), SLICE("89")));
	wire_close(&w);
	assert_int_equal(w.rig.budget.used_bytes, 0);
}

/* --- heads ---------------------------------------------------------------------------- */

static void heads_come_in_any_pieces(void **state) {
	static const char text[] =
	    "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
	for (size_t step = 1; step < sizeof(text); step += step < 8 ? 1 : 7) {
		struct got got = { .n = 0 };
		struct head_room room;
		unsigned statuses[2], n_heads = 0;
		struct wire w;
		wire_open(&w, FRAMING_NONE, 0);
		for (size_t at = 0; at < sizeof(text) - 1; at += step) {
			wire_say(&w, (struct slice){ text + at, size_min(step, sizeof(text) - 1 - at) });
			while (n_heads < 2 && call_recv_head(&w.call, &room, METHOD_GET) == 0)
				statuses[n_heads++] = room.head.status;
			if (n_heads == 2)
				(void)!receive(&w, 1000, &got);
		}
		assert_int_equal(statuses[0], 103);
		assert_int_equal(statuses[1], 200);
		assert_true(got.is_end);
		assert_got(&got, "body");
		wire_close(&w);
	}
}

static void a_bad_head_is_told(void **state) {
	static const char *const rows[] = { "SSH-2.0-x\r\n", "HTTP/1.1 999 x\r\n\r\n",
		"HTTP/1.1 101 x\r\n\r\n", "\r\n" };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct head_room room;
		struct wire w;
		wire_open(&w, FRAMING_NONE, 0);
		wire_say(&w, slice_of(rows[i]));
		assert_int_equal(call_recv_head(&w.call, &room, METHOD_GET), CALL_E_BAD);
		wire_close(&w);
	}
}

/* Not for every byte that drips in: what is wrong behind the first ones is told when the line has ended, for
 * each head anew. */
static void a_head_is_parsed_when_a_line_has_ended(void **state) {
	static const char *const befores[] = { "", "HTTP/1.1 103 Early\r\nLink: xxxxxxxxxx\r\n\r\n" };
	for (size_t i = 0; i < n_elems(befores); i++) {
		struct head_room room;
		struct wire w;
		wire_open(&w, FRAMING_NONE, 0);
		if (i) {
			wire_say(&w, slice_of(befores[i]));
			assert_int_equal(call_recv_head(&w.call, &room, METHOD_GET), 0);
		}
		for (const char *p = "HTTP/2.0 "; *p; p++) {
			wire_say(&w, (struct slice){ p, 1 });
			assert_int_equal(call_recv_head(&w.call, &room, METHOD_GET), CALL_E_AGAIN);
		}
		wire_say(&w, SLICE("\n"));
		assert_int_equal(call_recv_head(&w.call, &room, METHOD_GET), CALL_E_BAD);
		wire_close(&w);
	}
}

/* No line need end for that. */
static void what_is_not_http_is_bad_at_once(void **state) {
	struct head_room room;
	struct wire w;
	wire_open(&w, FRAMING_NONE, 0);
	wire_say(&w, SLICE("\x15\x03\x01"));
	assert_int_equal(call_recv_head(&w.call, &room, METHOD_GET), CALL_E_BAD);
	wire_close(&w);
}

static void a_head_that_never_ends_is_bad(void **state) {
	static char text[HEAD_BYTES_MAX];
	struct head_room room;
	struct wire w;
	int r = CALL_E_AGAIN;
	memset(text, 'x', sizeof(text));
	memcpy(text, "HTTP/1.1 200 OK\r\na: ", 20);
	wire_open(&w, FRAMING_NONE, 0);
	for (size_t at = 0; at < sizeof(text); at += 5000) {
		assert_int_equal(r, CALL_E_AGAIN);
		wire_say(&w, (struct slice){ text + at, size_min(5000, sizeof(text) - at) });
		r = call_recv_head(&w.call, &room, METHOD_GET);
	}
	rig_until(
	    &w.rig, r != CALL_E_AGAIN || (r = call_recv_head(&w.call, &room, METHOD_GET)) != CALL_E_AGAIN);
	assert_int_equal(r, CALL_E_BAD);
	wire_close(&w);
}

static void an_end_before_the_head_is_gone(void **state) {
	for (unsigned reset = 0; reset < 2; reset++) {
		struct head_room room;
		struct wire w;
		wire_open(&w, FRAMING_NONE, 0);
		wire_say(&w, SLICE("HTTP/1.1 20"));
		assert_int_equal(call_recv_head(&w.call, &room, METHOD_GET), CALL_E_AGAIN);
		wire_end(&w, reset);
		assert_int_equal(call_recv_head(&w.call, &room, METHOD_GET), CALL_E_GONE);
		wire_close(&w);
	}
}

/* --- sending -------------------------------------------------------------------------- */

static void put_body(struct call_out *o, const char *a, const char *b) {
	struct piece pieces[] = { { a, strlen(a), NULL }, { b, strlen(b), NULL } };
	call_put_data(o, pieces, 2);
}

static void messages_are_framed(void **state) {
	static const struct {
		enum framing framing;
		uint64_t length;
		const char *text;
	} rows[] = {
		{ FRAMING_LENGTH, 8, "POST /x HTTP/1.1\r\na: b\r\nc: \r\ncontent-length: 8\r\n\r\nHello, !" },
		{ FRAMING_CHUNKED, 0,
		    "POST /x HTTP/1.1\r\na: b\r\nc: \r\ntransfer-encoding: chunked\r\n\r\n7\r\nHello, "
		    "\r\n1\r\n!\r\n0\r\n\r\n" },
		{ FRAMING_CLOSE, 0, "POST /x HTTP/1.1\r\na: b\r\nc: \r\n\r\nHello, !" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct call_out o;
		struct wire w;
		wire_open(&w, FRAMING_NONE, 0);
		call_begin(&o, &w.call);
		call_put_request_line(&o, SLICE("POST"), (struct slice){ NULL, 0 }, SLICE("/x"));
		call_put_field(&o, SLICE("a"), SLICE("b"));
		call_put_field(&o, SLICE("c"), SLICE(""));
		assert_false(w.call.out_has_begun);
		call_put_head_end(&o, rows[i].framing, rows[i].length);
		assert_true(w.call.out_has_begun);
		put_body(&o, "Hello", ", ");
		put_body(&o, "", ""); /* an empty chunk would be the end */
		assert_int_equal(call_flush(&o), 0);
		call_begin(&o, &w.call);
		put_body(&o, "", "!");
		call_put_end(&o, NULL);
		assert_int_equal(call_flush(&o), 0);
		assert_true(w.call.out_is_done);
		assert_int_equal(w.call.out_bytes, 8);
		wire_heard(&w, rows[i].text);
		wire_close(&w);
	}
}

static void a_status_line_has_a_reason_or_none(void **state) {
	struct call_out o;
	struct wire w;
	wire_open(&w, FRAMING_NONE, 0);
	call_begin(&o, &w.call);
	call_put_status_line(&o, 103);
	call_put_field(&o, SLICE("link"), SLICE("<x>"));
	call_put_interim_end(&o);
	assert_false(w.call.out_has_begun);
	call_put_status_line(&o, 299);
	call_put_head_end(&o, FRAMING_NONE, 0);
	call_put_end(&o, NULL);
	assert_int_equal(call_flush(&o), 0);
	wire_heard(&w, "HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\nHTTP/1.1 299 \r\n\r\n");
	wire_close(&w);
}

/* Trailers go with chunks alone, and never what frames, routes or authorises. */
static void trailers_are_sifted(void **state) {
	static const struct slice text =
	    SLICE("X-Sum: 1\r\nContent-Length: 5\r\nhost: evil\r\ncookie: a\r\nDate: now\r\nX-Mine: 2\r\n"
		  "Transfer-Encoding: chunked\r\n\r\n");
	static const struct {
		enum framing framing;
		const char *end;
	} rows[] = {
		{ FRAMING_CHUNKED, "transfer-encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nDate: now\r\n\r\n" },
		{ FRAMING_CLOSE, "\r\n" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		char expected[200];
		struct head_room trailer;
		struct call_out o;
		struct wire w;
		assert_int_equal(head_parse_trailer(&trailer, text), 0);
		for (unsigned k = 0; k < trailer.head.n_fields; k++) /* by who does not want it to go on */
			trailer.head.fields[k].is_named =
			    slice_eq(head_name(&trailer.head, &trailer.head.fields[k]), SLICE("X-Mine"));
		wire_open(&w, FRAMING_NONE, 0);
		call_begin(&o, &w.call);
		call_put_status_line(&o, 200);
		call_put_head_end(&o, rows[i].framing, 0);
		call_put_end(&o, &trailer.head);
		assert_int_equal(call_flush(&o), 0);
		snprintf(expected, sizeof(expected), "HTTP/1.1 200 OK\r\n%s", rows[i].end);
		wire_heard(&w, expected);
		wire_close(&w);
	}
}

static void decimals(void **state) {
	static const struct {
		uint64_t n;
		const char *text;
	} rows[] = { { 0, "0" }, { 7, "7" }, { 10, "10" }, { 999999999999999999, "999999999999999999" },
		{ UINT64_MAX, "18446744073709551615" } };
	for (size_t i = 0; i < n_elems(rows); i++) {
		char room[20];
		assert_true(slice_eq(call_decimal(rows[i].n, room), slice_of(rows[i].text)));
	}
}

static void who_is_gone_hears_nothing(void **state) {
	struct call_out o;
	struct wire w;
	wire_open(&w, FRAMING_NONE, 0);
	wire_end(&w, true);
	call_begin(&o, &w.call);
	call_put_status_line(&o, 200);
	call_put_head_end(&o, FRAMING_LENGTH, 5);
	assert_int_equal(call_flush(&o), CALL_E_GONE);
	assert_int_equal(call_pending(&w.call), 0);
	call_deinit(&w.call);
	assert_int_equal(call_pending(&w.call), 0);
	assert_true(call_is_gone(&w.call));
	assert_false(call_has_input(&w.call));
	wire_close(&w);
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_framing_is_taken_off),
		cmocka_unit_test(a_body_comes_in_any_pieces),
		cmocka_unit_test(a_storm_of_chunks_is_taken_in_turns),
		cmocka_unit_test(an_end_is_not_always_an_end),
		cmocka_unit_test(bad_grammar_is_told),
		cmocka_unit_test(an_end_needs_no_memory),
		cmocka_unit_test(a_long_trailer_is_kept_whole),
		cmocka_unit_test(heads_come_in_any_pieces),
		cmocka_unit_test(a_bad_head_is_told),
		cmocka_unit_test(a_head_is_parsed_when_a_line_has_ended),
		cmocka_unit_test(what_is_not_http_is_bad_at_once),
		cmocka_unit_test(a_head_that_never_ends_is_bad),
		cmocka_unit_test(an_end_before_the_head_is_gone),
		cmocka_unit_test(messages_are_framed),
		cmocka_unit_test(a_status_line_has_a_reason_or_none),
		cmocka_unit_test(trailers_are_sifted),
		cmocka_unit_test(decimals),
		cmocka_unit_test(who_is_gone_hears_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
