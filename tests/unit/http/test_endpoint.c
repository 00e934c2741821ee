#include "unit/net/rig.h"

#include <sys/resource.h>

#include "http/endpoint.h"
#include "http/reply.h"

#define ROUND SLICE("GET /round HTTP/1.1\r\nHost: x\r\n\r\n")

#define OK(type, n) "HTTP/1.1 200 OK\r\ncontent-type: " type "\r\ncontent-length: " n "\r\n\r\n"
#define EVENTS_HEAD                                                                                          \
	"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"                  \
	"transfer-encoding: chunked\r\n\r\n"

enum { LARGE_BYTES = 32 << 20, BODY_MAX = 100, UNWANTED_MAX = 65536, PENDING_MAX = 1 << 20 };

struct scene {
	struct rig rig;
	struct endpoint_server server;
	uint16_t port;
	unsigned n_run, n_gone;
	struct endpoint_call *kept;
};

static void on_gone(void *owner) {
	struct scene *s = owner;
	s->n_gone++;
	s->kept = NULL;
}

static void run_round(struct endpoint_call *c) {
	struct scene *s = endpoint_context(c);
	char text[32];
	int n = snprintf(text, sizeof(text), "round %u", ++s->n_run);
	endpoint_answer_text(c, 200, "text/plain", (struct slice){ text, (size_t)n });
}

static void run_large(struct endpoint_call *c) {
	char *text = malloc(LARGE_BYTES + 1);
	for (unsigned i = 0; i < LARGE_BYTES / 16; i++)
		snprintf(text + i * 16, 17, "%15u\n", i);
	endpoint_answer_text(c, 200, "text/plain", (struct slice){ text, LARGE_BYTES });
	free(text);
}

static json_t *text_of(struct slice s) {
	return s.p ? json_stringn(s.p, s.n) : json_null();
}

static void run_thing(struct endpoint_call *c) {
	struct scene *s = endpoint_context(c);
	s->n_run++;
	endpoint_answer_json(c, 201,
	    json_pack("{s:o, s:o}", "name", text_of(endpoint_param(c)), "body", text_of(endpoint_body(c))));
}

static void run_query(struct endpoint_call *c) {
	json_t *a = text_of(endpoint_query(c, "a")), *b = text_of(endpoint_query(c, "b"));
	json_t *json = json_pack("[o, o, o]", text_of(endpoint_param(c)), a, b);
	if (!endpoint_query_is_good(c))
		json_array_append_new(json, json_string("badly encoded"));
	endpoint_answer_json(c, 200, json);
}

static void run_gone(struct endpoint_call *c) {
	struct scene *s = endpoint_context(c);
	s->n_run++;
	endpoint_answer_text(c, 204, NULL, SLICE("no body"));
}

static void run_error(struct endpoint_call *c) {
	struct slice name = endpoint_param(c);
	endpoint_answer_error(c, 503, "overloaded", "'%.*s' cannot", (int)name.n, name.p);
}

static void run_invalid(struct endpoint_call *c) {
	endpoint_answer_json(c, 200, json_pack("{s:s}", "name", "\xff"));
}

static void run_kept(struct endpoint_call *c) {
	struct scene *s = endpoint_context(c);
	s->n_run++;
	endpoint_keep(c, on_gone, s);
	s->kept = c;
}

static void run_events(struct endpoint_call *c) {
	struct scene *s = endpoint_context(c);
	if (!endpoint_wants_events(c)) {
		endpoint_answer_text(c, 406, NULL, SLICE(""));
		return;
	}
	run_kept(c);
	endpoint_stream_begin(s->kept, "text/event-stream");
}

/* Copied: nobody owns it. */
static bool put_text(struct endpoint_call *c, struct slice text) {
	return endpoint_stream_put(c, (struct piece){ text.p, text.n, NULL });
}

/* Does not ask whether the client wants them. */
static void run_blind_events(struct endpoint_call *c) {
	struct scene *s = endpoint_context(c);
	run_kept(c);
	endpoint_stream_begin(s->kept, "text/event-stream");
	assert_true(put_text(s->kept, SLICE("data: 1\n\n")));
}

static const struct endpoint rows[] = {
	{ METHOD_GET, "/round", .run = run_round },
	{ METHOD_GET, "/large", .run = run_large },
	{ METHOD_POST, "/things", .run = run_thing, .body_bytes_max = BODY_MAX, .writes = true },
	{ METHOD_GET, "/things/all", .run = run_round },
	{ METHOD_PUT, "/things/{name}", .run = run_thing, .body_bytes_max = BODY_MAX, .writes = true },
	{ METHOD_DELETE, "/things/{name}", .run = run_gone, .writes = true },
	{ METHOD_GET, "/things/{name}/query", .run = run_query },
	{ METHOD_GET, "/rest/{path*}", .run = run_query },
	{ METHOD_GET, "/error/{name}", .run = run_error },
	{ METHOD_GET, "/invalid", .run = run_invalid },
	{ METHOD_GET, "/kept", .run = run_kept },
	{ METHOD_GET, "/events", .run = run_events },
	{ METHOD_GET, "/blind", .run = run_blind_events },
};

static struct scene *scene_open_token(const char *token) {
	struct scene *s = calloc(1, sizeof(*s));
	rig_open(&s->rig);
	int fd = rig_listen(&s->port);
	assert_int_equal(
	    endpoint_server_open(&s->server, &s->rig.loop, fd, rows, n_elems(rows), s, token), 0);
	return s;
}

static struct scene *scene_open(void) {
	return scene_open_token(NULL);
}

static void scene_close(struct scene *s) {
	endpoint_server_close(&s->server);
	rig_close(&s->rig);
	endpoint_server_deinit(&s->server);
	free(s);
}

/* The far end hears this, and no more for now. */
static void assert_hears(struct scene *s, int fd, const char *text) {
	struct heard heard = { .n = 0 };
	rig_listen_to(&s->rig, fd, &heard, strlen(text));
	if (!slice_eq(rig_heard(&heard), slice_of(text)))
		fail_msg("heard \"%.*s\", not \"%s\"", (int)heard.n, heard.p, text);
	heard_free(&heard);
}

/* It hears what begins like this and has these words in it, then the end. */
static void assert_last_words(struct scene *s, int fd, const char *first, const char *later) {
	struct heard heard = { .n = 0 };
	rig_listen_to(&s->rig, fd, &heard, SIZE_MAX);
	assert_true(heard.is_ended);
	if (!slice_eq(slice_head(rig_heard(&heard), strlen(first)), slice_of(first)) ||
	    !memmem(heard.p, heard.n, later, strlen(later)))
		fail_msg("heard \"%.*s\", not \"%s...%s\"", (int)heard.n, heard.p, first, later);
	heard_free(&heard);
}

/* One request on a connection of its own: what the answer begins with, and what is in it. */
static void assert_answers(struct scene *s, const char *text, const char *first, const char *later) {
	int fd = rig_connect(s->port);
	rig_say(fd, slice_of(text));
	assert_last_words(s, fd, first, later);
	close(fd);
}

/* --- answers ------------------------------------------------------------------------ */

static void each_path_has_its_answer(void **state) {
	struct scene *s = scene_open();
	int fd = rig_connect(s->port);
	rig_say(fd, ROUND);
	assert_hears(s, fd, OK("text/plain", "7") "round 1");
	rig_say(fd, SLICE("GET /round?a=b HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(s, fd, OK("text/plain", "7") "round 2");
	rig_say(fd, SLICE("DELETE /things/one HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(s, fd, "HTTP/1.1 204 No Content\r\n\r\n");
	rig_say(fd, SLICE("GET /things/all HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(s, fd, OK("text/plain", "7") "round 4");
	rig_say(fd, SLICE("GET /error/n%C3%A9%ff HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(s, fd,
	    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
	    "content-length: 45\r\n\r\n{\"error\":\"'n\xc3\xa9?' cannot\",\"code\":\"overloaded\"}");
	rig_say(fd, SLICE("GET /invalid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
	assert_last_words(s, fd, "HTTP/1.1 500 ", "\"code\":\"internal_error\"");
	close(fd);
	scene_close(s);
}

static void head_has_the_head_alone(void **state) {
	struct scene *s = scene_open();
	int fd = rig_connect(s->port);
	rig_say(fd, SLICE("HEAD /round HTTP/1.1\r\nHost: x\r\n\r\nGET /round HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(s, fd, OK("text/plain", "7") OK("text/plain", "7") "round 2");
	rig_say(fd, SLICE("HEAD /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
	struct heard heard = { .n = 0 };
	rig_listen_to(&s->rig, fd, &heard, SIZE_MAX);
	assert_true(slice_eq(slice_head(rig_heard(&heard), 13), SLICE("HTTP/1.1 404 ")));
	assert_memory_equal(heard.p + heard.n - 4, "\r\n\r\n", 4);
	heard_free(&heard);
	close(fd);
	scene_close(s);
}

static void what_is_not_there_is_refused(void **state) {
	static const char not_found[] = "HTTP/1.1 404 Not Found\r\n",
			  not_allowed[] = "HTTP/1.1 405 Method Not Allowed\r\n",
			  json[] = "{\"error\":\"there is nothing at this path\",\"code\":\"bad_request\"}";
	static const struct {
		const char *text, *first, *later;
	} requests[] = {
		{ "GET /", not_found, json },
		{ "GET /roun", not_found, json },
		{ "GET /round/", not_found, json },
		{ "POST /none", not_found, json },
		{ "PUT /things/", not_found, json },
		{ "PUT /things/a/b", not_found, json },
		{ "GET /things//query", not_found, json },
		{ "GET /rest/", not_found, json },
		{ "GET /rest", not_found, json },
		{ "GET /things/a/quer", not_found, json },
		{ "POST /round", not_allowed, "\r\nallow: GET, HEAD\r\n" },
		{ "DELETE /round", not_allowed, "\"code\":\"bad_request\"}" },
		{ "OPTIONS /round", not_allowed, "\r\nallow: GET, HEAD\r\n" },
		{ "PATCH /things", not_allowed, "\r\nallow: POST\r\n" },
		{ "GET /things/a", not_allowed, "\r\nallow: PUT, DELETE\r\n" },
		{ "POST /things/all", not_allowed, "\r\nallow: GET, HEAD, PUT, DELETE\r\n" },
		{ "PUT /things/a%2", "HTTP/1.1 400 ", "\"code\":\"bad_request\"}" },
		{ "PUT /things/a%g0", "HTTP/1.1 400 ", "\"code\":\"bad_request\"}" },
		{ "PUT /things/a%00b", "HTTP/1.1 400 ", "\"code\":\"bad_request\"}" },
	};
	for (size_t i = 0; i < n_elems(requests); i++) {
		struct scene *s = scene_open();
		char text[128];
		snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		    requests[i].text);
		assert_answers(s, text, requests[i].first, requests[i].later);
		assert_int_equal(s->n_run, 0);
		scene_close(s);
	}
}

static void bad_heads_are_refused_as_plainly(void **state) {
	static char large[HEAD_BYTES_MAX + 100];
	int n = snprintf(large, sizeof(large), "GET /round HTTP/1.1\r\nHost: x\r\na: ");
	memset(large + n, 'y', sizeof(large) - (size_t)n);
	const struct {
		struct slice text;
		const char *first, *later;
	} heads[] = {
		{ { large, sizeof(large) }, "HTTP/1.1 431 ", "\"code\":\"head_too_large\"}" },
		{ SLICE("round\r\n\r\n"), "HTTP/1.1 400 ", "{\"error\":\"the request is not" },
		{ SLICE("GET /round HTTP/1.1\r\n\r\n"), "HTTP/1.1 400 ", "\"code\":\"bad_request\"}" },
	};
	for (size_t i = 0; i < n_elems(heads); i++) {
		struct scene *s = scene_open();
		int fd = rig_connect(s->port);
		for (size_t at = 0; at < heads[i].text.n; at += 9000) {
			rig_say(fd, slice_head(slice_skip(heads[i].text, at), 9000));
			rig_spin(&s->rig, 2);
		}
		assert_last_words(s, fd, heads[i].first, heads[i].later);
		assert_int_equal(s->n_run, 0);
		close(fd);
		scene_close(s);
	}
}

/* As on the router's admin port, whose errors look like those of its data port. */
static void errors_may_have_the_shape_of_an_api(void **state) {
	static const char *const texts[] = { "GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"POST /round HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "round\r\n\r\n" };
	struct scene *s = scene_open();
	s->server.server.dialect = REPLY_BY_PATH;
	for (size_t i = 0; i < n_elems(texts); i++)
		assert_answers(s, texts[i], "HTTP/1.1 40", "{\"error\":{\"message\":");
	scene_close(s);
}

/* --- what was asked ------------------------------------------------------------------ */

static void names_and_queries_are_decoded(void **state) {
	static const struct {
		const char *target, *answer;
	} requests[] = {
		{ "/things/a/query", "[\"a\",null,null]" },
		{ "/things/a%2Fb%20+/query?a=1&b=2", "[\"a/b +\",\"1\",\"2\"]" },
		{ "/things/a/query?b=&a", "[\"a\",\"\",\"\"]" },
		{ "/things/a/query?aa=1&&=3&%61=x+y%2B%26&a=2", "[\"a\",\"x y+&\",null]" },
		{ "/things/a/query?a=%4&b=%", "[\"a\",\"%4\",\"%\",\"badly encoded\"]" },
		{ "/things/a/query?c=%00", "[\"a\",null,null,\"badly encoded\"]" },
		{ "/things/a/query?%zz&a=1", "[\"a\",\"1\",null,\"badly encoded\"]" },
		{ "/things/a/query?", "[\"a\",null,null]" },
		{ "/rest/http://h:1/", "[\"http://h:1/\",null,null]" },
		{ "/rest/http%3A%2F%2Fh?a=1", "[\"http://h\",\"1\",null]" },
	};
	struct scene *s = scene_open();
	for (size_t i = 0; i < n_elems(requests); i++) {
		char text[256];
		snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		    requests[i].target);
		assert_answers(s, text, "HTTP/1.1 200 OK\r\n", requests[i].answer);
	}
	scene_close(s);
}

static void a_body_may_come_byte_by_byte(void **state) {
	static const char *const texts[] = {
		"PUT /things/one HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"PUT /things/one HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
		"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\na: b\r\n\r\n",
	};
	struct scene *s = scene_open();
	int fd = rig_connect(s->port);
	for (size_t i = 0; i < n_elems(texts); i++) {
		size_t n = strlen(texts[i]);
		for (size_t at = 0; at < n; at++) {
			assert_int_equal(s->n_run, i);
			rig_say(fd, (struct slice){ texts[i] + at, 1 });
			rig_spin(&s->rig, 2);
		}
		assert_hears(s, fd,
		    "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 29\r\n\r\n"
		    "{\"name\":\"one\",\"body\":\"hello\"}");
	}
	close(fd);
	scene_close(s);
}

/* What is pipelined is answered in order, each when the one before it has been. */
static void requests_may_come_all_at_once(void **state) {
	struct scene *s = scene_open();
	int fd = rig_connect(s->port);
	rig_say(fd,
	    SLICE("PUT /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
		  "GET /kept HTTP/1.1\r\nHost: x\r\n\r\n"
		  "PUT /things/b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n2"));
	assert_hears(s, fd,
	    "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 23\r\n\r\n"
	    "{\"name\":\"a\",\"body\":\"1\"}");
	rig_until(&s->rig, s->kept);
	rig_spin(&s->rig, 5);
	assert_int_equal(s->n_run, 2);
	endpoint_answer_text(s->kept, 200, "text/plain", SLICE("now"));
	assert_hears(s, fd,
	    OK("text/plain", "3") "now"
				  "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n"
				  "content-length: 23\r\n\r\n{\"name\":\"b\",\"body\":\"2\"}");
	assert_int_equal(s->n_gone, 0);
	close(fd);
	scene_close(s);
}

static void say_body(struct scene *s, int fd, const char *first, bool is_chunked, size_t n) {
	char head[256], *body = malloc(n + 1);
	memset(body, 'x', n);
	int length = snprintf(head, sizeof(head),
	    is_chunked ? "%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n"
		       : "%s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
	    first, n);
	rig_say(fd, (struct slice){ head, (size_t)length });
	for (size_t at = 0; at < n; at += 9000) {
		rig_say(fd, (struct slice){ body + at, size_min(9000, n - at) });
		rig_spin(&s->rig, 2);
	}
	if (is_chunked)
		rig_say(fd, SLICE("\r\n0\r\n\r\n"));
	free(body);
}

static void bodies_have_limits(void **state) {
	static const struct {
		const char *first, *answer;
		size_t n_max;
	} targets[] = {
		{ "PUT /things/one", "HTTP/1.1 201 ", BODY_MAX },
		{ "GET /round", "HTTP/1.1 200 ", UNWANTED_MAX },
	};
	for (unsigned i = 0; i < 8; i++) {
		struct scene *s = scene_open();
		bool is_chunked = i & 1, is_over = i & 2;
		int fd = rig_connect(s->port);
		say_body(s, fd, targets[i / 4].first, is_chunked, targets[i / 4].n_max + is_over);
		if (is_over) {
			assert_last_words(s, fd, "HTTP/1.1 413 ", "\"code\":\"body_too_large\"}");
		} else {
			struct heard heard = { .n = 0 };
			rig_listen_to(&s->rig, fd, &heard, 1);
			assert_memory_equal(heard.p, targets[i / 4].answer, strlen(targets[i / 4].answer));
			heard_free(&heard);
			rig_say(fd, ROUND); /* the connection goes on */
			assert_hears(s, fd, OK("text/plain", "7") "round 2");
		}
		assert_int_equal(s->n_run, is_over ? 0 : 2);
		close(fd);
		scene_close(s);
	}
}

static void a_broken_body_is_refused(void **state) {
	struct scene *s = scene_open();
	assert_answers(s, "PUT /things/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
	    "HTTP/1.1 400 ", "\r\nconnection: close\r\n");
	int fd = rig_connect(s->port);
	rig_say(fd, SLICE("PUT /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhell"));
	rig_until(&s->rig, !list_is_empty(&s->server.active));
	close(fd);
	rig_until(&s->rig, list_is_empty(&s->server.active));
	assert_int_equal(s->n_run, 0);
	scene_close(s);
}

static void who_asks_first_is_told_to_continue(void **state) {
	struct scene *s = scene_open();
	int fd = rig_connect(s->port);
	rig_say(fd,
	    SLICE("PUT /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"));
	assert_hears(s, fd, "HTTP/1.1 100 Continue\r\n\r\n");
	rig_spin(&s->rig, 5);
	rig_say(fd, SLICE("1"));
	assert_hears(s, fd,
	    "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 23\r\n\r\n"
	    "{\"name\":\"a\",\"body\":\"1\"}");
	rig_say(fd,
	    SLICE(
		"PUT /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n"));
	assert_last_words(s, fd, "HTTP/1.1 413 ", "\r\nconnection: close\r\n");
	close(fd);
	scene_close(s);
}

static void writing_needs_the_token(void **state) {
	static const struct {
		const char *field;
		bool is_good;
	} tokens[] = {
		{ "", false },
		{ "Authorization: Bearer secret\r\n", true },
		{ "authorization: bEARER  secret\r\n", true },
		{ "Authorization: Bearer secre\r\n", false },
		{ "Authorization: Bearer secrets\r\n", false },
		{ "Authorization: Bearer secretsecret\r\n", false },
		{ "Authorization: Bearer \r\n", false },
		{ "Authorization: Bearer\r\n", false },
		{ "Authorization: secret\r\n", false },
		{ "Authorization: Basic secret\r\n", false },
	};
	struct scene *s = scene_open_token("secret");
	for (size_t i = 0; i < n_elems(tokens); i++) {
		char text[256];
		snprintf(text, sizeof(text),
		    "DELETE /things/a HTTP/1.1\r\nHost: x\r\n%sConnection: close\r\n\r\n", tokens[i].field);
		s->n_run = 0;
		if (tokens[i].is_good)
			assert_answers(s, text, "HTTP/1.1 204 ", "\r\n\r\n");
		else
			assert_answers(s, text, "HTTP/1.1 401 ", "\"code\":\"invalid_api_key\"}");
		assert_int_equal(s->n_run, tokens[i].is_good);
	}
	assert_answers(s, "POST /things HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 401 ",
	    "\r\nwww-authenticate: Bearer\r\n");
	assert_answers(
	    s, "GET /round HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 ", "round");
	scene_close(s);
	s = scene_open_token("");
	assert_answers(
	    s, "DELETE /things/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 204 ", "");
	scene_close(s);
}

/* With a guard it is the token, or a program on this machine; a browser that is led here is none. */
static void writing_is_for_who_is_here(void **state) {
	static const struct {
		const char *fields;
		bool is_good;
	} cases[] = {
		{ "Host: 127.0.0.1:29000\r\n", true },
		{ "Host: localhost\r\n", true },
		{ "Host: LocalHost:29000\r\n", true },
		{ "Host: [::1]:29000\r\n", true },
		{ "Host: [::1]:29000\r\nAuthorization: Bearer wrong\r\n", true },
		{ "Host: router.example\r\n", false },
		{ "Host: localhost.example\r\n", false },
		{ "Host: router.example\r\nAuthorization: Bearer secret\r\n", true },
		{ "Host: 127.0.0.1:29000\r\nOrigin: https://evil.example\r\n", false },
		{ "Host: 127.0.0.1:29000\r\nOrigin: null\r\n", false },
		{ "Host: 127.0.0.1:29000\r\nOrigin: https://ops.example\r\nAuthorization: Bearer secret\r\n",
		    true },
	};
	struct scene *s = scene_open_token("secret");
	s->server.is_guarded = true;
	for (size_t i = 0; i < n_elems(cases); i++) {
		char text[256];
		snprintf(text, sizeof(text), "DELETE /things/a HTTP/1.1\r\n%sConnection: close\r\n\r\n",
		    cases[i].fields);
		s->n_run = 0;
		assert_answers(s, text, cases[i].is_good ? "HTTP/1.1 204 " : "HTTP/1.1 401 ",
		    cases[i].is_good ? "\r\n\r\n" : "\"code\":\"invalid_api_key\"}");
		assert_int_equal(s->n_run, cases[i].is_good);
	}
	assert_answers(s, "GET /round HTTP/1.1\r\nHost: router.example\r\nConnection: close\r\n\r\n",
	    "HTTP/1.1 200 ", "round");
	scene_close(s);
	s = scene_open_token("");
	s->server.is_guarded = true;
	assert_answers(s, "DELETE /things/a HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
	    "HTTP/1.1 204 ", "");
	assert_answers(s,
	    "DELETE /things/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \r\nConnection: close\r\n\r\n",
	    "HTTP/1.1 401 ", "programs on this machine");
	scene_close(s);
}

/* --- time ----------------------------------------------------------------------------- */

static uint64_t fake_ns;

static uint64_t fake_source(void) {
	return fake_ns;
}

static struct scene *scene_open_timeless(void) {
	fake_ns = 1000000000;
	clock_set_source(fake_source);
	return scene_open();
}

static void scene_pass(struct scene *s, uint64_t ms) {
	fake_ns += ms * 1000000;
	rig_spin(&s->rig, 5);
}

static void scene_close_timeless(struct scene *s) {
	scene_close(s);
	clock_set_source(NULL);
}

/* Wait for the far end's bytes without a clock: loopback brings them within a few turns. */
static void scene_say(struct scene *s, int fd, struct slice text) {
	rig_say(fd, text);
	rig_spin(&s->rig, 10);
}

static void a_body_that_stops_is_refused(void **state) {
	struct scene *s = scene_open_timeless();
	int fd = rig_connect(s->port);
	scene_say(s, fd, SLICE("PUT /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"));
	scene_pass(s, 9900);
	scene_say(s, fd, SLICE("h")); /* and begins afresh */
	scene_pass(s, 9900);
	rig_say(fd, SLICE("e")); /* it is there when the deadline is looked at */
	scene_pass(s, 200);
	assert_false(list_is_empty(&s->server.active));
	struct heard heard = { .n = 0 };
	rig_hear(fd, &heard, SIZE_MAX);
	assert_int_equal(heard.n, 0);
	scene_pass(s, 9900);
	assert_false(list_is_empty(&s->server.active));
	scene_pass(s, 200);
	assert_true(list_is_empty(&s->server.active));
	rig_hear(fd, &heard, SIZE_MAX);
	assert_true(slice_has_prefix(rig_heard(&heard), SLICE("HTTP/1.1 408 ")));
	heard_free(&heard);
	close(fd);
	assert_int_equal(s->n_run, 0);
	scene_close_timeless(s);
}

static void a_body_that_drips_is_refused(void **state) {
	struct scene *s = scene_open_timeless();
	struct heard heard = { .n = 0 };
	int fd = rig_connect(s->port);
	scene_say(s, fd, SLICE("PUT /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n"));
	for (unsigned i = 0; i < 5; i++) {
		scene_pass(s, 5900);
		scene_say(s, fd, SLICE("h"));
	}
	assert_false(list_is_empty(&s->server.active));
	scene_pass(s, 600);
	assert_true(list_is_empty(&s->server.active));
	rig_hear(fd, &heard, SIZE_MAX);
	assert_true(slice_has_prefix(rig_heard(&heard), SLICE("HTTP/1.1 408 ")));
	heard_free(&heard);
	close(fd);
	assert_int_equal(s->n_run, 0);
	scene_close_timeless(s);
}

static void no_body_is_taken_without_memory(void **state) {
	struct scene *s = scene_open();
	uint64_t max_bytes = s->rig.budget.max_bytes;
	s->rig.budget.max_bytes = 0;
	assert_answers(s,
	    "PUT /things/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
	    "HTTP/1.1 503 ", "overloaded");
	assert_int_equal(s->n_run, 0);
	s->rig.budget.max_bytes = max_bytes;
	assert_answers(s,
	    "PUT /things/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
	    "HTTP/1.1 201 ", "hello");
	assert_int_equal(s->server.bodies_bytes, 0);
	scene_close(s);
}

static void an_invitation_is_given_once(void **state) {
	struct scene *s = scene_open_timeless();
	struct heard heard = { .n = 0 };
	int fd = rig_connect(s->port);
	scene_say(s, fd,
	    SLICE("PUT /things/a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
	scene_pass(s, 11000);
	rig_hear(fd, &heard, SIZE_MAX);
	assert_true(slice_has_prefix(
	    rig_heard(&heard), SLICE("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408 Request Timeout\r\n")));
	heard_free(&heard);
	close(fd);
	scene_close_timeless(s);
}

static void who_does_not_read_is_cut(void **state) {
	struct scene *s = scene_open_timeless();
	int fd = rig_connect(s->port);
	scene_say(s, fd, SLICE("GET /large HTTP/1.1\r\nHost: x\r\n\r\n"));
	scene_pass(s, 29000);
	assert_false(list_is_empty(&s->server.active));
	scene_pass(s, 2000);
	assert_true(list_is_empty(&s->server.active));
	close(fd);
	scene_close_timeless(s);
}

static void a_large_answer_arrives_whole(void **state) {
	struct scene *s = scene_open();
	struct heard heard = { .n = 0 };
	int fd = rig_connect(s->port);
	rig_say(fd, SLICE("GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
	rig_spin(&s->rig, 5);
	assert_false(list_is_empty(&s->server.active)); /* it does not fit into the socket */
	rig_listen_to(&s->rig, fd, &heard, SIZE_MAX);
	assert_true(heard.is_ended && heard.n > LARGE_BYTES);
	char last[17];
	snprintf(last, sizeof(last), "%15u\n", LARGE_BYTES / 16 - 1);
	assert_memory_equal(heard.p + heard.n - 16, last, 16);
	heard_free(&heard);
	close(fd);
	scene_close(s);
}

static void who_leaves_or_stays_to_the_end_leaves_nothing(void **state) {
	for (unsigned leaves = 0; leaves < 2; leaves++) {
		struct scene *s = scene_open();
		int fd = rig_connect(s->port);
		rig_say(fd, SLICE("GET /large HTTP/1.1\r\nHost: x\r\n\r\n"));
		rig_until(&s->rig, !list_is_empty(&s->server.active));
		rig_spin(&s->rig, 3);
		if (leaves) {
			rig_reset(fd);
			rig_until(&s->rig, list_is_empty(&s->server.active));
		}
		scene_close(s);
		if (!leaves)
			close(fd);
	}
}

/* --- kept calls ----------------------------------------------------------------------- */

static int scene_keep(struct scene *s, const char *text) {
	int fd = rig_connect(s->port);
	rig_say(fd, slice_of(text));
	rig_until(&s->rig, s->kept);
	return fd;
}

static void a_kept_call_is_answered_later(void **state) {
	struct scene *s = scene_open();
	int fd = scene_keep(s, "GET /kept HTTP/1.1\r\nHost: x\r\n\r\n");
	struct heard heard = { .n = 0 };
	rig_spin(&s->rig, 5);
	rig_hear(fd, &heard, SIZE_MAX);
	assert_int_equal(heard.n, 0);
	endpoint_answer_json(s->kept, 200, json_object());
	assert_hears(s, fd, OK("application/json", "2") "{}");
	rig_say(fd, ROUND);
	assert_hears(s, fd, OK("text/plain", "7") "round 2");
	heard_free(&heard);
	close(fd);
	rig_spin(&s->rig, 5);
	assert_int_equal(s->n_gone, 0);
	scene_close(s);
}

static void a_client_that_leaves_is_gone(void **state) {
	static const char *const texts[] = {
		"GET /kept HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /kept HTTP/1.1\r\nHost: x\r\n\r\nGET /round HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /blind HTTP/1.1\r\nHost: x\r\n\r\n",
	};
	for (unsigned i = 0; i < 4 * n_elems(texts); i++) {
		struct scene *s = scene_open();
		unsigned how = i % 4;
		if (how != 1 && i / 4 < 2) { /* it may have closed its side alone: see below */
			scene_close(s);
			continue;
		}
		int fd = rig_connect(s->port);
		if (how == 3) /* request and end are one event of an open connection */
			rig_until(&s->rig, s->server.server.n_sessions);
		rig_spin(&s->rig, how);
		rig_say(fd, slice_of(texts[i / 4]));
		if (how >= 2) { /* with the request itself */
			shutdown(fd, SHUT_WR);
		} else {
			rig_until(&s->rig, s->kept);
			rig_spin(&s->rig, 3);
			if (how)
				rig_reset(fd);
			else
				close(fd);
		}
		rig_until(&s->rig, s->n_gone);
		assert_null(s->kept);
		assert_true(list_is_empty(&s->server.active));
		assert_int_equal(s->n_run, 1);
		rig_spin(&s->rig, 3);
		assert_int_equal(s->n_gone, 1);
		if (how >= 2)
			close(fd);
		scene_close(s);
	}
}

static void who_closes_one_side_gets_the_answer(void **state) {
	for (unsigned i = 0; i < 6; i++) {
		struct scene *s = scene_open();
		bool is_large = i % 2;
		char *text = calloc(1, LARGE_BYTES + 1);
		struct heard heard = { .n = 0 };
		memset(text, 'x', LARGE_BYTES);
		int fd = rig_connect(s->port);
		rig_say(fd, SLICE("GET /kept HTTP/1.1\r\nHost: x\r\n\r\n"));
		if (i / 2 == 0) /* with the request itself */
			shutdown(fd, SHUT_WR);
		rig_until(&s->rig, s->kept);
		if (i / 2)
			shutdown(fd, SHUT_WR);
		rig_spin(&s->rig, i / 2 == 2 ? 0 : 5); /* 0: the answer comes before it is noticed */
		assert_int_equal(s->n_gone, 0);
		endpoint_answer_text(
		    s->kept, 200, "text/plain", (struct slice){ text, is_large ? LARGE_BYTES : 5 });
		rig_listen_to(&s->rig, fd, &heard, SIZE_MAX);
		assert_true(heard.is_ended);
		assert_true(heard.n > (is_large ? LARGE_BYTES : 5));
		rig_until(&s->rig, s->server.server.n_sessions == 0);
		assert_int_equal(s->n_gone, 0);
		heard_free(&heard);
		free(text);
		close(fd);
		scene_close(s);
	}
}

/* Who has answered has nothing to do with the client any more. */
static void an_answered_call_is_nobodys(void **state) {
	struct scene *s = scene_open();
	int fd = scene_keep(s, "GET /kept HTTP/1.1\r\nHost: x\r\n\r\n");
	char *text = calloc(1, LARGE_BYTES);
	endpoint_answer_text(s->kept, 200, "text/plain", (struct slice){ text, LARGE_BYTES });
	free(text);
	assert_false(list_is_empty(&s->server.active));
	rig_reset(fd);
	rig_until(&s->rig, list_is_empty(&s->server.active));
	assert_int_equal(s->n_gone, 0);
	scene_close(s);
}

/* Idle clients must not use up what the program needs for itself. */
static void clients_have_half_of_the_descriptors(void **state) {
	struct scene *s = scene_open();
	struct rlimit limit;
	struct heard heard = { .n = 0 };
	int fds[3];
	getrlimit(RLIMIT_NOFILE, &limit);
	assert_int_equal(s->server.clients.n_max, limit.rlim_cur / 2);
	s->server.clients.n_max = 2;
	for (size_t i = 0; i < n_elems(fds); i++) {
		fds[i] = rig_connect(s->port);
		rig_say(fds[i], ROUND);
		rig_spin(&s->rig, 10);
	}
	assert_int_equal(s->n_run, 2);
	assert_int_equal(s->server.clients.n_open, 2);
	close(fds[0]);
	rig_listen_to(&s->rig, fds[2], &heard, 8);
	assert_int_equal(s->n_run, 3);
	heard_free(&heard);
	close(fds[1]);
	close(fds[2]);
	scene_close(s);
}

static void draining_waits_for_kept_calls(void **state) {
	struct scene *s = scene_open();
	int fd = scene_keep(s, "GET /kept HTTP/1.1\r\nHost: x\r\n\r\n"), idle = rig_connect(s->port);
	rig_say(idle, ROUND);
	assert_hears(s, idle, OK("text/plain", "7") "round 2");
	endpoint_server_drain(&s->server);
	assert_last_words(s, idle, "", ""); /* its end */
	assert_int_equal(s->n_gone, 0);
	endpoint_answer_text(s->kept, 200, "text/plain", SLICE("now"));
	assert_last_words(s, fd, "HTTP/1.1 200 OK\r\n", "\r\nconnection: close\r\n");
	close(fd);
	close(idle);
	scene_close(s);
}

static void closing_tells_who_has_kept(void **state) {
	struct scene *s = scene_open();
	int fd = scene_keep(s, "GET /kept HTTP/1.1\r\nHost: x\r\n\r\n");
	struct heard heard = { .n = 0 };
	endpoint_server_close(&s->server);
	assert_int_equal(s->n_gone, 1);
	rig_listen_to(&s->rig, fd, &heard, SIZE_MAX);
	assert_true(heard.is_reset);
	heard_free(&heard);
	close(fd);
	rig_close(&s->rig);
	endpoint_server_deinit(&s->server);
	free(s);
}

/* --- streams -------------------------------------------------------------------------- */

static void events_come_one_by_one(void **state) {
	struct scene *s = scene_open();
	int fd = scene_keep(s,
	    "GET /events HTTP/1.1\r\nHost: x\r\nAccept: application/json, Text/Event-Stream;q=0.9\r\n\r\n");
	assert_hears(s, fd, EVENTS_HEAD);
	assert_true(put_text(s->kept, SLICE("data: 1\n\n")));
	assert_hears(s, fd, "9\r\ndata: 1\n\n\r\n");
	assert_true(put_text(s->kept, SLICE("")));
	assert_true(put_text(s->kept, SLICE("data: 22\n\n")));
	assert_hears(s, fd, "a\r\ndata: 22\n\n\r\n");
	endpoint_stream_end(s->kept, false);
	assert_hears(s, fd, "0\r\n\r\n");
	rig_say(fd, ROUND); /* the connection goes on */
	assert_hears(s, fd, OK("text/plain", "7") "round 2");
	assert_int_equal(s->n_gone, 0);
	close(fd);
	scene_close(s);
}

static void who_does_not_want_events_gets_none(void **state) {
	static const char *const fields[] = { "", "Accept: application/json\r\n",
		"Accept: text/event-streams\r\n" };
	struct scene *s = scene_open();
	for (size_t i = 0; i < n_elems(fields); i++) {
		char text[256];
		snprintf(text, sizeof(text), "GET /events HTTP/1.1\r\nHost: x\r\n%sConnection: close\r\n\r\n",
		    fields[i]);
		assert_answers(s, text, "HTTP/1.1 406 ", "");
	}
	assert_null(s->kept);
	scene_close(s);
}

static void http10_has_events_to_the_end(void **state) {
	struct scene *s = scene_open();
	int fd = scene_keep(s, "GET /blind HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
	endpoint_stream_end(s->kept, false);
	assert_hears(s, fd,
	    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
	    "connection: close\r\n\r\ndata: 1\n\n");
	assert_last_words(s, fd, "", "");
	close(fd);
	scene_close(s);
}

static void a_cut_is_seen(void **state) {
	struct scene *s = scene_open();
	int fd = scene_keep(s, "GET /blind HTTP/1.1\r\nHost: x\r\n\r\n");
	struct heard heard = { .n = 0 };
	rig_listen_to(&s->rig, fd, &heard, strlen(EVENTS_HEAD));
	endpoint_stream_end(s->kept, true);
	rig_listen_to(&s->rig, fd, &heard, SIZE_MAX);
	assert_true(heard.is_reset);
	assert_int_equal(s->n_gone, 0);
	heard_free(&heard);
	close(fd);
	scene_close(s);
}

/* The head is all there is to say: who would send events finds the call gone. */
static void head_of_a_stream_ends_it(void **state) {
	struct scene *s = scene_open();
	int fd = rig_connect(s->port);
	rig_say(fd, SLICE("HEAD /blind HTTP/1.1\r\nHost: x\r\n\r\nGET /round HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(s, fd, EVENTS_HEAD OK("text/plain", "7") "round 2");
	assert_int_equal(s->n_gone, 1);
	close(fd);
	scene_close(s);
}

/* Its call is what an endpoint's call begins with. */
static size_t scene_pending(struct scene *s) {
	return call_pending((const struct call *)s->kept);
}

/* Puts until something waits: what the kernel takes is no matter of ours. */
static void scene_stuff(struct scene *s) {
	static char text[1000];
	memset(text, 'x', sizeof(text));
	while (!scene_pending(s))
		assert_true(put_text(s->kept, (struct slice){ text, sizeof(text) }));
}

/* The text that found nothing waiting does not count. */
static void what_waits_for_a_reader_has_a_limit(void **state) {
	for (unsigned over = 0; over < 2; over++) {
		struct scene *s = scene_open();
		int fd = scene_keep(s, "GET /blind HTTP/1.1\r\nHost: x\r\n\r\n");
		struct heard heard = { .n = 0 };
		scene_stuff(s);
		size_t n = PENDING_MAX + 1000 - scene_pending(s) + over;
		char *text = malloc(n);
		memset(text, 'y', n);
		assert_int_equal(put_text(s->kept, (struct slice){ text, n }), !over);
		if (!over)
			assert_false(put_text(s->kept, SLICE("z")));
		assert_int_equal(s->n_gone, 0);
		endpoint_stream_end(s->kept, over);
		if (!over)
			rig_say(fd, SLICE("GET /round HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
		rig_listen_to(&s->rig, fd, &heard, SIZE_MAX);
		assert_int_equal(heard.is_reset, over);
		assert_int_equal(heard.is_ended, !over);
		assert_int_equal(memmem(heard.p, heard.n, "y\r\n0\r\n\r\nHTTP/1.1 200 ", 20) != NULL, !over);
		heard_free(&heard);
		free(text);
		close(fd);
		scene_close(s);
	}
}

static void the_first_text_may_have_any_size(void **state) {
	struct scene *s = scene_open();
	int fd = scene_keep(s, "GET /blind HTTP/1.1\r\nHost: x\r\n\r\n");
	struct heard heard = { .n = 0 };
	char *text = calloc(1, LARGE_BYTES);
	rig_until(&s->rig, !scene_pending(s));
	assert_true(put_text(s->kept, (struct slice){ text, LARGE_BYTES }));
	assert_true(scene_pending(s) > PENDING_MAX);
	assert_true(put_text(s->kept, SLICE("data: last\n\n")));
	endpoint_stream_end(s->kept, false);
	rig_listen_to(&s->rig, fd, &heard, LARGE_BYTES + strlen(EVENTS_HEAD));
	while (!slice_eq(slice_skip(rig_heard(&heard), heard.n - 5), SLICE("0\r\n\r\n")))
		rig_listen_to(&s->rig, fd, &heard, heard.n + 1);
	assert_non_null(memmem(heard.p + LARGE_BYTES, heard.n - LARGE_BYTES, "data: last\n\n", 12));
	heard_free(&heard);
	free(text);
	close(fd);
	scene_close(s);
}

static void who_does_not_read_events_is_cut(void **state) {
	struct scene *s = scene_open_timeless();
	int fd = rig_connect(s->port);
	struct heard heard = { .n = 0 };
	scene_say(s, fd, SLICE("GET /blind HTTP/1.1\r\nHost: x\r\n\r\n"));
	scene_pass(s, 100000); /* silence is no offence while nothing waits */
	scene_stuff(s);
	while (scene_pending(s) < PENDING_MAX / 2) /* more than one read sets free */
		assert_true(put_text(s->kept, SLICE("data: more than nothing\n\n")));
	scene_pass(s, 29000);
	size_t n_pending = scene_pending(s);
	while (scene_pending(s) == n_pending) { /* until the kernel has told */
		rig_hear(fd, &heard, 65536);
		scene_pass(s, 0);
	}
	assert_true(scene_pending(s) > 0);
	scene_pass(s, 29000);
	assert_int_equal(s->n_gone, 0);
	scene_pass(s, 2000);
	assert_int_equal(s->n_gone, 1);
	assert_true(list_is_empty(&s->server.active));
	heard_free(&heard);
	close(fd);
	scene_close_timeless(s);
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_path_has_its_answer),
		cmocka_unit_test(head_has_the_head_alone),
		cmocka_unit_test(what_is_not_there_is_refused),
		cmocka_unit_test(bad_heads_are_refused_as_plainly),
		cmocka_unit_test(errors_may_have_the_shape_of_an_api),
		cmocka_unit_test(names_and_queries_are_decoded),
		cmocka_unit_test(a_body_may_come_byte_by_byte),
		cmocka_unit_test(requests_may_come_all_at_once),
		cmocka_unit_test(bodies_have_limits),
		cmocka_unit_test(a_broken_body_is_refused),
		cmocka_unit_test(who_asks_first_is_told_to_continue),
		cmocka_unit_test(writing_needs_the_token),
		cmocka_unit_test(writing_is_for_who_is_here),
		cmocka_unit_test(a_body_that_stops_is_refused),
		cmocka_unit_test(a_body_that_drips_is_refused),
		cmocka_unit_test(no_body_is_taken_without_memory),
		cmocka_unit_test(an_invitation_is_given_once),
		cmocka_unit_test(who_does_not_read_is_cut),
		cmocka_unit_test(a_large_answer_arrives_whole),
		cmocka_unit_test(who_leaves_or_stays_to_the_end_leaves_nothing),
		cmocka_unit_test(a_kept_call_is_answered_later),
		cmocka_unit_test(a_client_that_leaves_is_gone),
		cmocka_unit_test(who_closes_one_side_gets_the_answer),
		cmocka_unit_test(an_answered_call_is_nobodys),
		cmocka_unit_test(clients_have_half_of_the_descriptors),
		cmocka_unit_test(draining_waits_for_kept_calls),
		cmocka_unit_test(closing_tells_who_has_kept),
		cmocka_unit_test(events_come_one_by_one),
		cmocka_unit_test(who_does_not_want_events_gets_none),
		cmocka_unit_test(http10_has_events_to_the_end),
		cmocka_unit_test(a_cut_is_seen),
		cmocka_unit_test(head_of_a_stream_ends_it),
		cmocka_unit_test(what_waits_for_a_reader_has_a_limit),
		cmocka_unit_test(the_first_text_may_have_any_size),
		cmocka_unit_test(who_does_not_read_events_is_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
