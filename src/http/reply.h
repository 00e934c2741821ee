/*
 * reply: an answer of our own: a document, or a refusal in the dialect of the API that
 * was called (OpenAI's or Anthropic's error object) or of the system that we stand in
 * for, always with a stable code.
 */
#pragma once

#include "http/call.h"

struct reply {
	unsigned status;
	uint16_t retry_after_s;    /* 0: not said */
	bool is_final;             /* clients that know the word do not repeat the request by themselves */
	bool closes;               /* the connection ends after it */
	bool is_head;              /* to HEAD: no body is sent */
	bool keeps_http10;         /* the client speaks HTTP/1.0 and asked to keep the connection */
	struct slice content_type; /* empty: none */
	struct slice body;
	struct buf *body_owner;  /* what the body stands in, if it may be kept instead of copied; else NULL */
	struct slice request_id; /* sent back when not empty */
	struct slice decision;   /* likewise: x-headrace-decision */
	struct slice allow;      /* methods, with 405 */
	struct slice authenticate; /* the challenge, with 401 */
	struct slice fields;       /* more of the head: lines, each with its CRLF */
};

/* The whole answer, at once. 0 or CALL_E_GONE. */
must_use int reply_send(struct call *call, const struct reply *reply);

/* What a valid request head says about the answer: is_head, closes, keeps_http10. */
void reply_follow(struct reply *reply, const struct head *request, bool is_last);

enum reply_dialect {
	REPLY_BY_PATH, /* not one of its own: see reply_dialect() */
	REPLY_OPENAI,
	REPLY_ANTHROPIC,
	REPLY_RESPONSES,
	REPLY_PLAIN,    /* {"error": message, "code": code}, for endpoints that are nobody's API but ours */
	REPLY_INFINILM, /* the same, with the status codes and messages of InfiniLM-SVC's router */
};

/* The dialect itself or, if it is REPLY_BY_PATH, that of the API that was called. */
enum reply_dialect reply_dialect(enum reply_dialect dialect, struct slice path);

/* What a dialect makes of a cause. */
struct reply_error {
	unsigned status;
	const char *message;        /* said alone */
	const char *before, *after; /* said around a detail */
};
struct reply_error reply_error(enum cause cause, enum reply_dialect dialect);

/*
 * Whether a refusal with this cause and status says by x-should-retry that a client's own repeats would only
 * add to what there is too much of: all 429 and 503, and the 408 for a wait in vain; but not of a server that
 * is being stopped, beside which others may serve. How soon there is room is for the caller to weigh.
 */
bool reply_is_final(enum cause cause, unsigned status);

/* The error object as JSON text; the caller frees it. detail: what it is about (the model), or NULL. */
must_use char *reply_error_text(enum cause cause, const char *detail, enum reply_dialect dialect);

/* reply_send() of a refusal; of `reply` the flags and all of its head are used;
 * without retry_after_s the cause's own. */
must_use int reply_refuse(
    struct call *call, struct reply *reply, enum cause cause, const char *detail, enum reply_dialect dialect);
