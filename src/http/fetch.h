/*
 * fetch: one request of our own to somebody's server, on a control thread's loop.
 *
 * Whole answer in memory, bounded in time and size, or, with `on_part`, an answer
 * without end (events), where `timeout_ms` is the longest silence. on_done runs once,
 * on the loop's thread, after which the fetch may be started again or freed;
 * fetch_cancel() ends it without a callback.
 */
#pragma once

#include "http/call.h"

/* Why there is no answer. */
enum fetch_outcome {
	FETCH_E_CONNECT = 1, /* refused, unreachable, not open in time; the name does not resolve */
	FETCH_E_TIMEOUT,
	FETCH_E_BROKEN, /* ended before the answer was complete */
	FETCH_E_MALFORMED,
	FETCH_E_TOO_LARGE,
	FETCH_E_TLS,   /* the handshake failed: not the server that was meant, or it does not take us */
	FETCH_E_LOCAL, /* we are short of descriptors, memory or ports: says nothing about the server */
};

/* For log lines. */
const char *fetch_outcome_text(enum fetch_outcome outcome);

#define FETCH_CONNECT_MS 5000u

struct fetch;
/* outcome 0: an answer, whose body is valid during the call. Otherwise status is 0 and the body empty. */
typedef void (*fetch_fn)(struct fetch *f, int outcome, unsigned status, struct slice body);
/* Bytes of an answer with status 200, framing taken off. May cancel the fetch; `part` is void then. */
typedef void (*fetch_part_fn)(struct fetch *f, struct slice part);

/* The texts are used before fetch_start() returns. */
struct fetch_request {
	struct slice method; /* empty: GET */
	struct slice authority, path;
	struct slice base;    /* in front of the path; may be empty */
	struct slice accept;  /* empty: application/json */
	struct slice bearer;  /* empty: no Authorization */
	struct slice body;    /* application/json; sent when p is not NULL */
	struct slice fields;  /* more of the head: lines, each with its CRLF */
	const char *tls_host; /* TLS is spoken, with who proves to be it; NULL: plain */
};

struct fetch {
	struct fetch_link *link; /* the connection; NULL while idle */
	fetch_fn on_done;
	fetch_part_fn on_part; /* NULL: the whole body is given to on_done */
	uint64_t timeout_ms;   /* of which connecting may take FETCH_CONNECT_MS */
	size_t body_bytes_max;
	const char *failure;        /* FETCH_E_TLS: why, for people; static */
	bool has_retry_after;       /* of an answer: it says when to come again */
	struct origin_try *attempt; /* origin's: it goes over the origin's addresses */
};

void fetch_init(struct fetch *f, uint64_t timeout_ms, size_t body_bytes_max, fetch_fn on_done);
/* May call on_done before it returns (nothing could be opened). */
void fetch_start(struct fetch *f, struct loop *loop, const struct sockaddr_storage *address,
    const struct fetch_request *request);
/* Not one that an origin has in hand: origin_cancel(). */
void fetch_cancel(struct fetch *f);

static inline bool fetch_is_busy(const struct fetch *f) {
	return f->link || f->attempt;
}
