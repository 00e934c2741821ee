#include "unit/fleet/scene.h"
#include "unit/http/wire.h"

#include "router/forward.h"

static void parse_request(struct head_room *room, const char *text) {
	enum cause cause;
	assert_int_equal(head_parse_request(room, slice_of(text), &cause), 0);
}

/* --- requests ------------------------------------------------------------------------- */

static const struct forward as_usual = { .request_id = SLICE("id-1"), .peer = SLICE("10.0.0.1") };

/* This engine must hear just `expected`. */
static void assert_request_to(struct instance_spec spec, const char *text, const struct forward *f,
    enum framing framing, uint64_t length, const char *expected) {
	struct instance *instance = instance_new(&spec);
	struct head_room room;
	struct call_out o;
	struct wire w;
	parse_request(&room, text);
	wire_open(&w, FRAMING_NONE, 0);
	call_begin(&o, &w.call);
	forward_request(&o, &room.head, instance, f, framing, length);
	assert_int_equal(call_flush(&o), 0);
	wire_heard(&w, expected);
	wire_close(&w);
	instance_unref(&instance);
}

static void assert_request(
    const char *text, const struct forward *f, enum framing framing, uint64_t length, const char *expected) {
	assert_request_to(scene_target("one"), text, f, framing, length, expected);
}

#define OURS(for) "x-forwarded-for: " for "\r\nx-forwarded-host: client.host\r\nx-request-id: id-1\r\n"

static void a_request_is_rebuilt(void **state) {
	assert_request("GET /a?b=%20c HTTP/1.1\r\nHost: client.host\r\nAccept:*/*\r\nX-Y:  v "
		       "\r\nAuthorization: Bearer k\r\n\r\n",
	    &as_usual, FRAMING_NONE, 0,
	    "GET /a?b=%20c HTTP/1.1\r\nhost: engine:8000\r\nAccept: */*\r\nX-Y: v\r\nAuthorization: Bearer "
	    "k\r\n" OURS("10.0.0.1") "\r\n");
	assert_request("POST http://client.host/x HTTP/1.1\r\nHost: client.host\r\nContent-Length: 3\r\n\r\n",
	    &as_usual, FRAMING_LENGTH, 3,
	    "POST /x HTTP/1.1\r\nhost: engine:8000\r\n" OURS("10.0.0.1") "content-length: 3\r\n\r\n");
	assert_request("OPTIONS http://client.host HTTP/1.1\r\nHost: client.host\r\n\r\n", &as_usual,
	    FRAMING_NONE, 0, "OPTIONS * HTTP/1.1\r\nhost: engine:8000\r\n" OURS("10.0.0.1") "\r\n");
}

/* HTTP/1.0 has no Host and no chunks; the engine gets HTTP/1.1. */
static void an_old_client_is_translated(void **state) {
	assert_request("POST / HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", &as_usual,
	    FRAMING_LENGTH, 3,
	    "POST / HTTP/1.1\r\nhost: engine:8000\r\nx-forwarded-for: 10.0.0.1\r\nx-request-id: id-1\r\n"
	    "content-length: 3\r\n\r\n");
}

static void what_belongs_to_the_hop_stays_here(void **state) {
	assert_request(
	    "POST / HTTP/1.1\r\nHost: client.host\r\nConnection: keep-alive, X-Mine, Authorization\r\n"
	    "Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nTE: trailers\r\n"
	    "Upgrade: h2c\r\nHTTP2-Settings: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n"
	    "x-mine: secret\r\nAuthorization: stays\r\nTrailer: X-Sum\r\nY: 1\r\n\r\n",
	    &as_usual, FRAMING_CHUNKED, 0,
	    "POST / HTTP/1.1\r\nhost: engine:8000\r\nAuthorization: stays\r\nTrailer: X-Sum\r\nY: 1\r\n" OURS(
		"10.0.0.1") "transfer-encoding: chunked\r\n\r\n");
	/* the chunked body was complete and goes with its length: there are no trailers to announce */
	assert_request(
	    "POST / HTTP/1.1\r\nHost: client.host\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n",
	    &as_usual, FRAMING_LENGTH, 5,
	    "POST / HTTP/1.1\r\nhost: engine:8000\r\n" OURS("10.0.0.1") "content-length: 5\r\n\r\n");
}

static void a_rank_is_said_once(void **state) {
	static const char request[] = "GET / HTTP/1.1\r\nHost: client.host\r\nX-Data-Parallel-Rank: 5\r\n"
				      "x_data_parallel_rank: 6\r\nx-data-parallel-rank: 7\r\n\r\n";
	static const char head[] = "GET / HTTP/1.1\r\nhost: engine:8000\r\n" OURS("10.0.0.1");
	struct forward trusting = as_usual;
	struct instance_spec rank = scene_target("one");
	char expected[256];

	trusting.trusts_rank = true;
	rank.has_rank = true;
	for (rank.rank = 0; rank.rank < 3; rank.rank++) {
		snprintf(expected, sizeof(expected), "%sx-data-parallel-rank: %u\r\n\r\n", head, rank.rank);
		assert_request_to(rank, request, &as_usual, FRAMING_NONE, 0, expected);
		assert_request_to(rank, request, &trusting, FRAMING_NONE, 0, expected);
	}
	snprintf(expected, sizeof(expected), "%s\r\n", head);
	assert_request(request, &as_usual, FRAMING_NONE, 0, expected);
	assert_request("GET / HTTP/1.1\r\nHost: client.host\r\nX-Data-Parallel-Rank: 5\r\n\r\n", &trusting,
	    FRAMING_NONE, 0,
	    "GET / HTTP/1.1\r\nhost: engine:8000\r\nX-Data-Parallel-Rank: 5\r\n" OURS("10.0.0.1") "\r\n");
}

static void doubtful_names_are_dropped(void **state) {
	assert_request(
	    "GET / HTTP/1.1\r\nHost: client.host\r\nX_Forwarded_For: 6.6.6.6\r\ncontent_length: 5\r\n_: x\r\n"
	    "Session_Id: s\r\nsession_id2: t\r\n\r\n",
	    &as_usual, FRAMING_NONE, 0,
	    "GET / HTTP/1.1\r\nhost: engine:8000\r\nSession_Id: s\r\n" OURS("10.0.0.1") "\r\n");
}

static void what_we_say_ourselves_is_said_once(void **state) {
	assert_request(
	    "GET / HTTP/1.1\r\nHost: client.host\r\nX-Request-ID: theirs\r\nX-Forwarded-Host: forged\r\n"
	    "x-request-id: again\r\n\r\n",
	    &as_usual, FRAMING_NONE, 0, "GET / HTTP/1.1\r\nhost: engine:8000\r\n" OURS("10.0.0.1") "\r\n");
}

/* What a head may not bring, a trailer may not either. */
static void a_provider_is_told_what_it_must_know(void **state) {
	struct instance_spec spec = scene_target("one");
	struct forward f = as_usual;
	spec.is_provider = true;
	spec.base = SLICE("/api/openai");
	assert_request_to(spec,
	    "POST /v1/responses?x=/v1 HTTP/1.1\r\nHost: client.host\r\nAuthorization: Bearer k\r\nX-Api-Key: "
	    "k\r\n"
	    "Cookie: c\r\nX-Forwarded-For: 10.0.0.2\r\nY: 1\r\nContent-Length: 3\r\n\r\n",
	    &f, FRAMING_LENGTH, 3,
	    "POST /api/openai/responses?x=/v1 HTTP/1.1\r\nhost: engine:8000\r\nY: 1\r\nx-request-id: id-1\r\n"
	    "content-length: 3\r\n\r\n");
	f.key = SLICE("ours");
	assert_request_to(spec, "GET /v1x HTTP/1.1\r\nHost: client.host\r\nAuthorization: Bearer k\r\n\r\n",
	    &f, FRAMING_NONE, 0,
	    "GET /api/openai/v1x HTTP/1.1\r\nhost: engine:8000\r\nauthorization: Bearer ours\r\n"
	    "x-request-id: id-1\r\n\r\n");
}

static void trailers_are_marked(void **state) {
	static const struct {
		const char *field;
		bool stays;
	} rows[] = {
		{ "x-sum: 1", false },
		{ "session_id: 1", false },
		{ "x_sum: 1", true },
		{ "X-MINE: 1", true },
		{ "x-min: 1", false },
	};
	struct head_room request, trailer;
	parse_request(&request, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close, x-Mine\r\n\r\n");
	for (size_t i = 0; i < n_elems(rows); i++) {
		char text[64];
		snprintf(text, sizeof(text), "%s\r\n\r\n", rows[i].field);
		assert_int_equal(head_parse_trailer(&trailer, slice_of(text)), 0);
		forward_mark_trailer(&trailer.head, &request.head);
		assert_int_equal(trailer.head.fields[0].is_named, rows[i].stays);
	}
}

/* Credentials of clients stay here when they are ours to judge, and where we bring our own. */
static void keys_stay_where_they_belong(void **state) {
	struct forward f = as_usual;
	const char *text =
	    "GET / HTTP/1.1\r\nHost: client.host\r\nAuthorization: Bearer theirs\r\nX-API-Key: "
	    "theirs\r\nX-Api-Keys: x\r\n\r\n";

	f.drops_keys = true;
	assert_request(text, &f, FRAMING_NONE, 0,
	    "GET / HTTP/1.1\r\nhost: engine:8000\r\nX-Api-Keys: x\r\n" OURS("10.0.0.1") "\r\n");
	f.key = SLICE("ours");
	assert_request(text, &f, FRAMING_NONE, 0,
	    "GET / HTTP/1.1\r\nhost: engine:8000\r\nX-Api-Keys: x\r\nauthorization: Bearer ours\r\n" OURS(
		"10.0.0.1") "\r\n");
	f.drops_keys = false;
	assert_request(text, &f, FRAMING_NONE, 0,
	    "GET / HTTP/1.1\r\nhost: engine:8000\r\nX-Api-Keys: x\r\nauthorization: Bearer ours\r\n" OURS(
		"10.0.0.1") "\r\n");
}

static void the_chain_of_addresses_grows(void **state) {
	assert_request("GET / HTTP/1.1\r\nHost: client.host\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nA: b\r\n"
		       "x-forwarded-for:\r\nx-forwarded-for: 3.3.3.3\r\n\r\n",
	    &as_usual, FRAMING_NONE, 0,
	    "GET / HTTP/1.1\r\nhost: engine:8000\r\nA: b\r\n" OURS(
		"1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.1") "\r\n");
}

/* However long it came, all of it goes on: who cuts a chain hides where it began. */
static void a_long_chain_stays_whole(void **state) {
	static char value[60001], text[65000], expected[65000];
	memset(value, '7', sizeof(value) - 1);
	snprintf(
	    text, sizeof(text), "GET / HTTP/1.1\r\nHost: client.host\r\nX-Forwarded-For: %s\r\n\r\n", value);
	snprintf(expected, sizeof(expected),
	    "GET / HTTP/1.1\r\nhost: engine:8000\r\nx-forwarded-for: %s, 10.0.0.1\r\n"
	    "x-forwarded-host: client.host\r\nx-request-id: id-1\r\n\r\n",
	    value);
	assert_request(text, &as_usual, FRAMING_NONE, 0, expected);
}

static void ids_are_chosen(void **state) {
	static const char *const names[] = { "x-request-id", "x-correlation-id" };
	static const struct {
		const char *fields, *id;
	} rows[] = {
		{ "", NULL },
		{ "X-Request-Id: a.B_9-z\r\n", "a.B_9-z" },
		{ "x-correlation-id: second\r\nx-request-id: first\r\n", "first" },
		{ "x-request-id: not good\r\nx-correlation-id: second\r\n", "second" },
		{ "x-request-id:\r\nx-correlation-id: second\r\n", "second" },
		{ "x-request-id: \"quoted\"\r\n", NULL },
		{ "x-request-id: \xc3\xa9\r\n", NULL },
		{ "x-request-id: a,b\r\n", NULL },
		{ "other: a\r\n", NULL },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct head_room room;
		char text[200];
		snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", rows[i].fields);
		parse_request(&room, text);
		struct slice id = forward_find_id(&room.head, names, n_elems(names));
		assert_int_equal(id.p != NULL, rows[i].id != NULL);
		assert_true(slice_eq(id, slice_of(rows[i].id)));
	}
	for (size_t n = 127; n <= 129; n++) {
		struct head_room room;
		char text[200];
		snprintf(
		    text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: %0*d\r\n\r\n", (int)n, 7);
		parse_request(&room, text);
		assert_int_equal(forward_find_id(&room.head, names, 1).n, n <= 128 ? n : 0);
	}
}

/* --- answers -------------------------------------------------------------------------- */

/* Requests, by what matters for an answer to them. */
#define NEW     "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define NEW_END "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
#define OLD     "GET / HTTP/1.0\r\n\r\n"
#define OLD_ON  "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
#define HEAD    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"

/* The end of our heads: id, then what is said of connection and framing. */
#define ENDS(tail) "x-request-id: id-1\r\n" tail "\r\n"

static void answers_fit_their_clients(void **state) {
	static const struct {
		const char *request, *answer, *expected;
		bool ends, is_last;
	} rows[] = {
		{ NEW, "HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nA: b\r\n\r\n",
		    "HTTP/1.1 200 OK\r\nA: b\r\n" ENDS("content-length: 3\r\n"), false, false },
		{ NEW, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS("connection: close\r\ncontent-length: 3\r\n"), true, true },
		{ NEW_END, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS("connection: close\r\ncontent-length: 3\r\n"), true, false },
		{ NEW, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS("transfer-encoding: chunked\r\n"), false, false },
		{ NEW, "HTTP/1.0 200 OK\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS("transfer-encoding: chunked\r\n"), false, false },
		{ OLD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS("connection: close\r\n"), true, false },
		{ OLD_ON, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS("connection: close\r\n"), true, false },
		{ OLD_ON, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS("connection: keep-alive\r\ncontent-length: 3\r\n"), false,
		    false },
		{ OLD, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS("connection: close\r\ncontent-length: 3\r\n"), true, false },
		/* no body, and what may be said of the one that there would be */
		{ HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS("content-length: 3\r\n"), false, false },
		{ HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS(""), false, false },
		{ HEAD, "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n" ENDS(""), false, false },
		{ NEW, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
		    "HTTP/1.1 204 No Content\r\n" ENDS(""), false, false },
		{ NEW, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n",
		    "HTTP/1.1 304 Not Modified\r\nETag: x\r\n" ENDS("content-length: 9\r\n"), false, false },
		{ NEW, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		    "HTTP/1.1 200 OK\r\n" ENDS("content-length: 0\r\n"), false, false },
		/* the hop's own */
		{ NEW,
		    "HTTP/1.1 200 OK\r\nConnection: close, X-Engine\r\nKeep-Alive: x\r\nX-Engine: "
		    "7\r\nUpgrade: h2\r\n"
		    "Proxy-Authenticate: x\r\nX-Request-Id: theirs\r\nSet_Cookie: a\r\nContent-Length: "
		    "3\r\n\r\n",
		    "HTTP/1.1 200 OK\r\nSet_Cookie: a\r\n" ENDS("content-length: 3\r\n"), false, false },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct head_room request, answer;
		struct call_out o;
		struct wire w;
		parse_request(&request, rows[i].request);
		assert_int_equal(
		    head_parse_response(&answer, slice_of(rows[i].answer), (enum method)request.head.method),
		    0);
		struct forward_answer f = {
			.request = &request.head, .request_id = SLICE("id-1"), .is_last = rows[i].is_last
		};
		wire_open(&w, FRAMING_NONE, 0);
		call_begin(&o, &w.call);
		assert_int_equal(forward_response(&o, &answer.head, &f), rows[i].ends);
		assert_int_equal(call_flush(&o), 0);
		assert_int_equal(w.call.out_framing, forward_framing(&answer.head, &request.head, false));
		wire_heard(&w, rows[i].expected);
		wire_close(&w);
	}
}

#define SAID                                                                                                 \
	"x-headrace-instance: gpu__1\r\nx-headrace-reason: prefix_hit\r\nx-headrace-attempts: 2\r\n"         \
	"x-headrace-cache-hit: 87\r\n"

/* An engine may stand behind another router: what that said is not what we say. */
static void a_choice_is_explained(void **state) {
	static const struct slice answer = SLICE("HTTP/1.1 204 x\r\nX-Headrace-Instance: b\r\n"
						 "x-headrace-decision: 7\r\nx-headrace-other: c\r\n\r\n");
	static const struct {
		bool is_explained;
		const char *decision, *fields;
	} rows[] = {
		{ true, "1-20", "x-headrace-other: c\r\n" ENDS(SAID "x-headrace-decision: 1-20\r\n") },
		{ true, "", "x-headrace-other: c\r\n" ENDS(SAID) },
		{ false, "",
		    "X-Headrace-Instance: b\r\nx-headrace-decision: 7\r\nx-headrace-other: c\r\n" ENDS("") },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct forward_explained explained = { .instance = SLICE(" gpu\r\n1"),
			.reason = SLICE("prefix_hit"),
			.decision = slice_of(rows[i].decision),
			.n_attempts = 2,
			.cached_percent = 87 };
		struct head_room request, head;
		char expected[512];
		struct call_out o;
		struct wire w;
		parse_request(&request, NEW);
		assert_int_equal(head_parse_response(&head, answer, METHOD_GET), 0);
		struct forward_answer f = { .request = &request.head,
			.request_id = SLICE("id-1"),
			.explained = rows[i].is_explained ? &explained : NULL };
		wire_open(&w, FRAMING_NONE, 0);
		call_begin(&o, &w.call);
		assert_false(forward_response(&o, &head.head, &f));
		assert_int_equal(call_flush(&o), 0);
		snprintf(expected, sizeof(expected), "HTTP/1.1 204 No Content\r\n%s", rows[i].fields);
		wire_heard(&w, expected);
		wire_close(&w);
	}
}

/* Limits and origins that are ours to say are not an engine's as well. */
static void what_is_ours_to_say_is_said_once(void **state) {
	static const struct slice answer = SLICE("HTTP/1.1 204 x\r\nX-RateLimit-Limit-Requests: 1\r\n"
						 "Access-Control-Allow-Origin: *\r\nx-rate: 2\r\n\r\n");
	static const char *const expected[] = {
		"X-RateLimit-Limit-Requests: 1\r\nAccess-Control-Allow-Origin: *\r\nx-rate: 2\r\n",
		"Access-Control-Allow-Origin: *\r\nx-rate: 2\r\n",
		"X-RateLimit-Limit-Requests: 1\r\nx-rate: 2\r\n",
		"x-rate: 2\r\n",
	};
	for (unsigned i = 0; i < n_elems(expected); i++) {
		struct head_room request, head;
		struct call_out o;
		struct wire w;
		char text[512];
		parse_request(&request, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
		assert_int_equal(head_parse_response(&head, answer, METHOD_GET), 0);
		struct forward_answer f = { .request = &request.head,
			.request_id = SLICE("id-1"),
			.fields = SLICE("x-ours: 1\r\nx-mine: 2\r\n"),
			.owns_limits = i & 1,
			.owns_origins = i & 2 };
		wire_open(&w, FRAMING_NONE, 0);
		call_begin(&o, &w.call);
		assert_false(forward_response(&o, &head.head, &f));
		assert_int_equal(call_flush(&o), 0);
		snprintf(text, sizeof(text),
		    "HTTP/1.1 204 No Content\r\n%sx-request-id: id-1\r\nx-ours: 1\r\nx-mine: 2\r\n\r\n",
		    expected[i]);
		wire_heard(&w, text);
		wire_close(&w);
	}
}

static void interim_answers_are_whole(void **state) {
	struct head_room interim;
	struct call_out o;
	struct wire w;
	assert_int_equal(
	    head_parse_response(&interim,
		SLICE("HTTP/1.1 103 x\r\nLink: </a>\r\nConnection: x\r\nContent-Length: 5\r\n\r\n"),
		METHOD_GET),
	    0);
	wire_open(&w, FRAMING_NONE, 0);
	call_begin(&o, &w.call);
	forward_interim(&o, &interim.head);
	assert_false(w.call.out_has_begun);
	assert_int_equal(call_flush(&o), 0);
	wire_heard(&w, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
	wire_close(&w);
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_is_rebuilt),
		cmocka_unit_test(an_old_client_is_translated),
		cmocka_unit_test(what_belongs_to_the_hop_stays_here),
		cmocka_unit_test(a_rank_is_said_once),
		cmocka_unit_test(doubtful_names_are_dropped),
		cmocka_unit_test(what_we_say_ourselves_is_said_once),
		cmocka_unit_test(a_provider_is_told_what_it_must_know),
		cmocka_unit_test(trailers_are_marked),
		cmocka_unit_test(keys_stay_where_they_belong),
		cmocka_unit_test(the_chain_of_addresses_grows),
		cmocka_unit_test(a_long_chain_stays_whole),
		cmocka_unit_test(ids_are_chosen),
		cmocka_unit_test(answers_fit_their_clients),
		cmocka_unit_test(a_choice_is_explained),
		cmocka_unit_test(what_is_ours_to_say_is_said_once),
		cmocka_unit_test(interim_answers_are_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
