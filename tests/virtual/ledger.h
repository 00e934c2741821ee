/*
 * ledger: after a play (script.h), the accounts of all peers against the access log.
 *
 * The router's own request ids, which count from 1, tie together a line of the log,
 * the requests that engines got and the answer that a client got. Then, for any play:
 *
 * - each request that was accepted has one line and at most one answer, with its status;
 * - what ended well is complete at the client, what did not is not, or is a refusal;
 * - what engines got is well-formed, and is meant for them;
 * - a request that is not safe to repeat arrived at one connection at most, or, where that is allowed, at
 *   no more than were allowed, one more with hedging;
 * - nothing went to an engine once a byte of the answer had gone to the client.
 *
 * If all peers were honest besides: answers and bodies are the ones of that tag, went
 * to the client that asked, and came from an engine that serves the model.
 */
#pragma once

#include "virtual/script.h"

#define LEDGER_ROWS_MAX 2048
#define LEDGER_ID_BYTES 32

struct ledger_row {
	char method[20], cause[24];
	unsigned status;
	unsigned n_lines, n_answers;
	bool has_clean_end;   /* the engine ended its connection in order behind it */
	unsigned n_arrived;   /* connections on which at least a byte of it was acknowledged */
	uint64_t last_sent;   /* move at which it was begun last */
	uint64_t first_heard; /* at which its answer, or an interim one, began; 0: never */
};

struct ledger {
	struct ledger_row rows[LEDGER_ROWS_MAX];
	unsigned n_rows;
	bool is_honest, has_hedges;
	unsigned n_sends_max; /* of what is not safe to repeat */
	const char *wrong;
};

static inline void ledger_blame(struct ledger *l, const char *what) {
	if (!l->wrong)
		l->wrong = what;
}

/* NULL: not one of ours. */
static inline struct ledger_row *ledger_row(struct ledger *l, struct slice id) {
	size_t n = id.n == LEDGER_ID_BYTES ? parsed_number(slice_skip(id, LEDGER_ID_BYTES - 8), 16) : 0;
	return n >= 1 && n <= l->n_rows ? &l->rows[n - 1] : NULL;
}

/* --- the log ------------------------------------------------------------------------------ */

static inline void ledger_read_line(struct ledger *l, struct slice text) {
	json_t *line = json_loadb(text.p, text.n, 0, NULL);
	const char *id = "", *method = "", *cause = "";
	int status = 0;
	if (json_unpack(line, "{s:s, s:s, s:i, s:s}", "id", &id, "method", &method, "status", &status,
		"cause", &cause))
		ledger_blame(l, "a line of the log is not a line of the log");
	struct ledger_row *row = ledger_row(l, slice_of(id));
	if (!row)
		ledger_blame(l, "a line of the log has an unknown id");
	else if (row->n_lines++)
		ledger_blame(l, "a request was logged twice");
	if (row) {
		row->status = (unsigned)status;
		snprintf(row->method, sizeof(row->method), "%s", method);
		snprintf(row->cause, sizeof(row->cause), "%s", cause);
	}
	json_decref(line);
}

static inline void ledger_read_log(struct ledger *l, const struct world *w) {
	struct slice rest = bytes_slice(&w->log);
	while (rest.n && !l->wrong) {
		const char *end = memchr(rest.p, '\n', rest.n);
		size_t n = end ? (size_t)(end - rest.p) : rest.n;
		ledger_read_line(l, slice_head(rest, n));
		rest = slice_skip(rest, size_min(n + 1, rest.n));
	}
	if (w->n_lines != l->n_rows)
		ledger_blame(l, "not every request was logged");
}

/* --- engines ------------------------------------------------------------------------------- */

static inline bool ledger_has_prefix(struct slice text, const struct bytes *whole) {
	return text.n == 0 || slice_has_prefix(bytes_slice(whole), text);
}

static inline void ledger_check_request_body(
    struct ledger *l, const struct peer *engine, const struct parsed *m) {
	struct slice tag = parsed_field(m, "x-tag"), model = script_tag_part(tag, 3);
	struct bytes expected = { .n_max = SIZE_MAX };
	if (slice_has_prefix(m->line, SLICE("POST ")))
		script_request_body(&expected, tag);
	if (!ledger_has_prefix(bytes_slice(&m->body), &expected) || (m->is_whole && m->body.n != expected.n))
		ledger_blame(l, "an engine got another body than the client sent");
	bool serves = slice_eq(model, SLICE("m")) || (slice_eq(model, SLICE("n")) && engine->engine == 2);
	if (!serves && slice_has_prefix(m->line, SLICE("POST ")))
		ledger_blame(l, "an engine got a request for a model of others");
	bytes_deinit(&expected);
}

/* One request on an engine's connection, from byte `at` on. */
static inline void ledger_check_request(
    struct ledger *l, const struct peer *engine, const struct parsed *m, size_t at) {
	struct slice host = parsed_field(m, "host");
	char authority[16];
	snprintf(authority, sizeof(authority), "e%d:8000", engine->engine);
	struct ledger_row *row = ledger_row(l, parsed_field(m, "x-request-id"));
	if (m->is_bad || !host.p || !slice_eq(host, slice_of(authority)) || !row) {
		ledger_blame(l, "an engine got what is no request");
		return;
	}
	struct slice method = slice_of(row->method);
	if (!slice_has_prefix(m->line, method) || m->line.p[method.n] != ' ')
		ledger_blame(l, "an engine got another method than was logged");
	row->n_arrived += engine->n_arrived > at;
	if (!l->has_hedges || !row->has_clean_end) /* which of two it was that answered is not known here */
		row->has_clean_end = engine->has_left;
	row->last_sent = u64_max(row->last_sent, peer_when(engine, at));
	if (l->is_honest)
		ledger_check_request_body(l, engine, m);
}

static inline void ledger_check_engine(struct ledger *l, const struct peer *engine) {
	struct slice rest = bytes_slice(&engine->got);
	struct parsed m;
	for (bool was_whole = true; !l->wrong;) {
		size_t at = engine->got.n - rest.n;
		if (!parsed_next(&m, PARSED_REQUEST, &rest, false))
			break;
		if (!was_whole)
			ledger_blame(l, "an engine got a request behind an incomplete one");
		was_whole = m.is_whole;
		ledger_check_request(l, engine, &m, at);
		parsed_deinit(&m);
	}
}

/* --- clients ---------------------------------------------------------------------------------- */

/* The router's own answer to what is logged as the cause. */
static inline bool ledger_is_refusal(const struct ledger_row *row, struct slice body) {
	char code[64] = "";
	for (enum cause cause = CAUSE_NONE + 1; cause < N_CAUSES; cause++)
		if (strcmp(cause_row(cause)->label, row->cause) == 0)
			snprintf(code, sizeof(code), "\"code\":\"%s\"", cause_row(cause)->code);
	return code[0] && parsed_has(body, code);
}

/* What was cut is the front of the right body, and behind an event may stand one that tells of the cut. */
static inline bool ledger_is_front(struct slice body, const struct bytes *whole) {
	static const char *const tellings[] = { "data: {\"error\":{",
		"event: error\ndata: ", "event: response.failed\ndata: " };
	size_t n = 0;
	while (n < body.n && n < whole->n && body.p[n] == whole->p[n])
		n++;
	if (n == body.n)
		return true;
	while (n > 0 && !(n > 1 && body.p[n - 1] == '\n' && body.p[n - 2] == '\n'))
		n--;
	struct slice rest = slice_skip(body, n);
	for (size_t i = 0; i < n_elems(tellings); i++) {
		struct slice telling = slice_of(tellings[i]);
		if (slice_eq(
			slice_head(rest, telling.n), slice_head(telling, rest.n))) /* cut itself, perhaps */
			return true;
	}
	return false;
}

static inline void ledger_check_relayed(
    struct ledger *l, const struct ledger_row *row, unsigned client, const struct parsed *m) {
	struct slice tag = parsed_field(m, "x-tag"), body = bytes_slice(&m->body);
	size_t kind = parsed_number(parsed_field(m, "x-kind"), 10);
	struct bytes expected = { .n_max = SIZE_MAX };
	if (kind >= SCRIPT_KINDS || parsed_number(script_tag_part(tag, 0), 10) != client) {
		ledger_blame(l, "a client got the answer of another one");
		return;
	}
	if (strcmp(row->method, "HEAD") != 0)
		script_answer_body(&expected, (unsigned)kind, tag);
	/* What ends with the connection may end anywhere, if only it ends in order. */
	bool may_end = script_kinds[kind].framing == SCRIPT_TO_END && row->has_clean_end;
	if (m->is_whole && !slice_eq(body, bytes_slice(&expected)) &&
	    !(may_end && ledger_has_prefix(body, &expected)))
		ledger_blame(l, "an answer that looks complete is not");
	if (!m->is_whole && !ledger_is_front(body, &expected))
		ledger_blame(l, "an answer has another body than the engine sent");
	bytes_deinit(&expected);
}

/* One final answer. */
static inline void ledger_check_answer(struct ledger *l, struct ledger_row *row, const struct parsed *m) {
	bool is_good = strcmp(row->cause, "none") == 0;
	bool is_gone = strcmp(row->cause, "client_gone") == 0;
	if (row->n_answers++)
		ledger_blame(l, "a request was answered twice");
	if (m->status != row->status && !is_gone)
		ledger_blame(l, "an answer has another status than was logged");
	if (is_good && !m->is_whole)
		ledger_blame(l, "an answer that was logged as good is not complete");
	if (!is_good && m->is_whole && !ledger_is_refusal(row, bytes_slice(&m->body)) &&
	    strcmp(row->method, "HEAD") != 0)
		ledger_blame(l, "an answer that was cut looks complete");
}

/* Reads the next answer; `m` is then to be freed. NULL: none, or one without an id. */
static inline struct ledger_row *ledger_next_answer(
    struct ledger *l, const struct peer *client, struct slice *rest, struct parsed *m) {
	bool has_ended = client->was_shut || (client->was_closed && !client->was_reset);
	struct slice at = *rest;
	if (!parsed_next(m, PARSED_RESPONSE, rest, has_ended)) {
		*rest = slice_head(*rest, 0);
		return NULL;
	}
	struct ledger_row *row = ledger_row(l, parsed_field(m, "x-request-id"));
	if (row && strcmp(row->method, "HEAD") == 0) {
		parsed_deinit(m);
		*rest = at;
		m->is_bad |= !parsed_next(m, PARSED_RESPONSE_TO_HEAD, rest, has_ended);
	}
	if (m->is_bad)
		ledger_blame(l, "a client got what is no answer");
	return row;
}

static inline void ledger_check_client(struct ledger *l, const struct peer *client, unsigned number) {
	struct slice rest = bytes_slice(&client->got);
	struct parsed m = { .line = { NULL, 0 } };
	uint64_t heard = 0;
	for (bool was_whole = true; rest.n && !l->wrong;) {
		uint64_t now = peer_when(client, client->got.n - rest.n);
		struct ledger_row *row = ledger_next_answer(l, client, &rest, &m);
		if (!m.line.p)
			break;
		if (!was_whole)
			ledger_blame(l, "a client got an answer behind an incomplete one");
		was_whole = m.is_whole;
		if (m.status >= 200 || m.status != 100)
			heard = heard ? heard : now;
		if (row) {
			row->first_heard = heard;
			ledger_check_answer(l, row, &m);
			if (l->is_honest && parsed_field(&m, "x-kind").p)
				ledger_check_relayed(l, row, number, &m);
		}
		if (m.status >= 200)
			heard = 0;
		parsed_deinit(&m);
		m.line.p = NULL;
	}
}

/* --- the whole ---------------------------------------------------------------------------------- */

static inline void ledger_check_row(struct ledger *l, const struct ledger_row *row) {
	bool is_safe = strcmp(row->method, "GET") == 0 || strcmp(row->method, "HEAD") == 0 ||
	    strcmp(row->method, "OPTIONS") == 0;
	if (!is_safe && row->n_arrived > l->n_sends_max)
		ledger_blame(l, "a request that is not safe to repeat was repeated");
	if (row->first_heard && row->last_sent > row->first_heard)
		ledger_blame(l, "a request was sent when its answer had begun");
	if (strcmp(row->cause, "none") == 0 && !row->n_answers)
		ledger_blame(l, "an answer that was logged as good never came");
}

/* NULL, or what is wrong. Between script_play() and script_renew(). */
static inline const char *ledger_check(const struct world *w, bool is_honest) {
	static struct ledger ledger; /* large */
	struct ledger *l = &ledger;
	unsigned n_clients = 0;
	if (w->worker.n_ids > LEDGER_ROWS_MAX)
		return NULL;
	l->n_rows = (unsigned)w->worker.n_ids;
	l->is_honest = is_honest;
	l->has_hedges = w->config.hedge.is_enabled;
	l->n_sends_max = (w->config.retry.sent ? 4 : 1) + l->has_hedges;
	l->wrong = NULL;
	memset(l->rows, 0, l->n_rows * sizeof(l->rows[0]));
	ledger_read_log(l, w);
	for (unsigned i = 1; i < net.n_peers; i++)
		if (net.peers[i].engine >= 0)
			ledger_check_engine(l, &net.peers[i]);
	for (unsigned i = 1; i < net.n_peers; i++)
		if (net.peers[i].engine < 0)
			ledger_check_client(l, &net.peers[i], n_clients++);
	for (unsigned i = 0; i < l->n_rows && !l->wrong; i++)
		ledger_check_row(l, &l->rows[i]);
	return l->wrong;
}
