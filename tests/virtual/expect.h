/*
 * expect: what the named tests say again and again about answers, requests and the log.
 * What a peer got is read once, from front to back.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "virtual/world.h"

static inline struct parsed expect_message(struct peer *p, enum parsed_kind kind) {
	struct parsed m;
	struct slice rest = peer_unseen(p);
	assert_non_null(p);
	if (!parsed_next(&m, kind, &rest, p->was_shut || (p->was_closed && !p->was_reset)))
		fail_msg("no message but \"%.*s\"", (int)peer_unseen(p).n, peer_unseen(p).p);
	if (m.is_bad)
		fail_msg("not HTTP: \"%.*s\"", (int)peer_unseen(p).n, peer_unseen(p).p);
	p->n_seen = p->got.n - rest.n;
	return m;
}

static inline void expect_body(const struct parsed *m, const char *body) {
	if (!slice_eq(bytes_slice(&m->body), slice_of(body)))
		fail_msg("the body is \"%.*s\"", (int)m->body.n, m->body.p);
}

static inline void expect_field(const struct parsed *m, const char *name, const char *value) {
	struct slice found = parsed_field(m, name);
	if (!found.p || !slice_eq(found, slice_of(value)))
		fail_msg("%s is not %s in \"%.*s\"", name, value, (int)m->fields.n, m->fields.p);
}

static inline void expect_no_field(const struct parsed *m, const char *name) {
	unsigned n;
	parsed_find(m, name, &n);
	assert_int_equal(n, 0);
}

/* The next answer, complete. The caller frees it by parsed_deinit(). */
static inline struct parsed expect_answer_kind(
    struct peer *client, enum parsed_kind kind, unsigned status, const char *body) {
	struct parsed m = expect_message(client, kind);
	if (m.status != status || !m.is_whole)
		fail_msg("%.*s, %s, \"%.*s\"", (int)m.line.n, m.line.p, m.is_whole ? "whole" : "cut",
		    (int)m.body.n, m.body.p);
	if (body)
		expect_body(&m, body);
	return m;
}

static inline void expect_answer(struct peer *client, unsigned status, const char *body) {
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, status, body);
	parsed_deinit(&m);
}

/* An answer of the router's own with that code. */
static inline void expect_refusal(struct peer *client, unsigned status, const char *code) {
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, status, NULL);
	char text[64];
	snprintf(text, sizeof(text), "\"code\":\"%s\"", code);
	if (!parsed_has(bytes_slice(&m.body), text))
		fail_msg("the answer is \"%.*s\"", (int)m.body.n, m.body.p);
	expect_field(&m, "content-type", "application/json");
	parsed_deinit(&m);
}

/* The same, and whether clients are told not to come again by themselves. */
static inline void expect_last_word(struct peer *client, unsigned status, const char *code, bool is_final) {
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, status, NULL);
	assert_true(parsed_has(bytes_slice(&m.body), code));
	if (is_final)
		expect_field(&m, "x-should-retry", "false");
	else
		expect_no_field(&m, "x-should-retry");
	parsed_deinit(&m);
}

/* An answer that began and does not look complete. */
static inline void expect_cut(struct peer *client, const char *body) {
	struct parsed m = expect_message(client, PARSED_RESPONSE);
	if (body)
		expect_body(&m, body);
	assert_false(m.is_whole);
	assert_true(client->was_shut || client->was_closed);
	parsed_deinit(&m);
}

/* The next request at an engine, complete. The caller frees it. */
static inline struct parsed expect_request_head(struct peer *engine, const char *line) {
	struct parsed m = expect_message(engine, PARSED_REQUEST);
	if (!slice_eq(m.line, slice_of(line)))
		fail_msg("the request is \"%.*s\"", (int)m.line.n, m.line.p);
	return m;
}

static inline void expect_request(struct peer *engine, const char *line, const char *body) {
	struct parsed m = expect_request_head(engine, line);
	expect_body(&m, body);
	assert_true(m.is_whole);
	parsed_deinit(&m);
}

static inline void expect_nothing(const struct peer *p) {
	if (peer_unseen(p).n)
		fail_msg("unexpected: \"%.*s\"", (int)peer_unseen(p).n, peer_unseen(p).p);
}

/* The last line of the access log. */
static inline void expect_logged(const struct world *w, unsigned status, const char *cause) {
	const char *end = w->log.p + w->log.n, *begin = end - 1;
	char text[80];
	assert_true(w->n_lines > 0);
	while (begin > w->log.p && begin[-1] != '\n')
		begin--;
	struct slice line = { begin, (size_t)(end - begin) };
	snprintf(text, sizeof(text), "\"status\":%u,", status);
	bool has_status = parsed_has(line, text);
	snprintf(text, sizeof(text), "\"cause\":\"%s\"", cause);
	if (!has_status || !parsed_has(line, text))
		fail_msg("not status %u, cause %s, but %.*s", status, cause, (int)line.n, line.p);
}

/* What the test started with is gone from the router's side. */
static inline void expect_closed(const struct peer *p) {
	assert_non_null(p);
	assert_true(p->was_closed);
}

/* The end of a test: all leave, nothing is left, and each request was logged once. */
static inline void expect_end(struct world *w, unsigned n_requests) {
	world_say_goodbye(w);
	if (w->n_lines != n_requests)
		fail_msg("%u requests, %u lines:\n%.*s", n_requests, w->n_lines, (int)w->log.n, w->log.p);
	const char *wrong = world_free(&w);
	if (wrong)
		fail_msg("%s", wrong);
}

/* --- acts ------------------------------------------------------------------------------ */

static inline void say(struct world *w, struct peer *p, const char *text) {
	peer_says(p, text);
	world_settle(w);
}

/* As one chunk. */
static inline void say_chunk(struct world *w, struct peer *p, const char *text) {
	char line[24];
	snprintf(line, sizeof(line), "%zx\r\n", strlen(text));
	peer_says(p, line);
	peer_says(p, text);
	say(w, p, "\r\n");
}

/* A client that connects and says this. */
static inline struct peer *ask(struct world *w, const char *text) {
	struct peer *client = net_client();
	say(w, client, text);
	return client;
}

#define GET       "GET /x HTTP/1.1\r\nhost: h\r\n\r\n"
#define ANSWER_OK "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
#define SSE_HEAD  "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

#define CHAT     "/v1/chat/completions"
#define STREAMED "{\"model\":\"m\",\"stream\":true}"

/* A POST of JSON of which `n` bytes are announced and the text comes now. */
static inline struct peer *post_part(struct world *w, const char *path, size_t n, const char *text) {
	char head[256];
	struct peer *client = net_client();
	snprintf(head, sizeof(head),
	    "POST %s HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n",
	    path, n);
	peer_says(client, head);
	say(w, client, text);
	return client;
}

static inline struct peer *post(struct world *w, const char *path, const char *body) {
	return post_part(w, path, strlen(body), body);
}

/* A POST of JSON in chunks; none has come yet. */
static inline struct peer *post_chunked(struct world *w, const char *path) {
	char head[256];
	snprintf(head, sizeof(head),
	    "POST %s HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ntransfer-encoding: "
	    "chunked\r\n\r\n",
	    path);
	return ask(w, head);
}
