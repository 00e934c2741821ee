/*
 * forward: the rules for heads on their way through: what is dropped, what is added,
 * what is rewritten (RFC 9110 section 7.6). Both heads are built anew from the parsed
 * form; targets and values stay as they came, byte for byte.
 */
#pragma once

#include "fleet/instance.h"
#include "http/call.h"

struct forward {
	struct slice request_id;
	struct slice peer; /* the client's address */
	struct slice key;  /* ours, for the engine, in place of the client's; empty: none */
	bool drops_keys;   /* the client's stay here */
	bool wants_plain;  /* an answer that is not compressed */
	bool trusts_rank;  /* the client's word for it goes on to an engine without ranks */
};

/* Request head towards an engine, complete but for the body. A provider is told neither who the client is nor
 * what it shows to us. */
void forward_request(struct call_out *o, const struct head *request, const struct instance *instance,
    const struct forward *f, enum framing framing, uint64_t length);

/* How the instance was chosen, for clients that are told. */
struct forward_explained {
	struct slice instance, reason;
	struct slice decision; /* empty: it is not remembered */
	uint64_t n_attempts;
	uint64_t cached_percent; /* of the prompt, as predicted */
};

struct forward_answer {
	const struct head *request;
	struct slice request_id;
	bool is_final; /* clients are not to repeat the request by themselves, unless the engine says
			  otherwise */
	bool is_last;  /* the connection is to end after this answer, whatever the client wants */
	const struct forward_explained *explained; /* NULL: nothing is said */
	struct slice fields;                       /* more of the head: lines, each with its CRLF */
	bool is_edited;                            /* its body may become longer than its head says */
	bool owns_limits, owns_origins;            /* x-ratelimit-*, access-control-* are ours alone to say */
};

/* How the answer is framed for this client. */
enum framing forward_framing(const struct head *answer, const struct head *request, bool is_edited);

/* Response head towards a client; true when the connection ends with the answer. */
bool forward_response(struct call_out *o, const struct head *answer, const struct forward_answer *f);

/* Marks the fields of an upload's trailer section that do not go on (call_put_end() leaves them out). */
void forward_mark_trailer(struct head *trailer, const struct head *request);

/* An interim response (1xx), whole. */
void forward_interim(struct call_out *o, const struct head *interim);

/* The value of the first of these fields that is a good id ([A-Za-z0-9._-]{1,128}); p is NULL when none is.
 */
struct slice forward_find_id(const struct head *request, const char *const *names, size_t n_names);
