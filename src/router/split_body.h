/*
 * split_body: the two bodies of a request whose prompt one instance computes and another one decodes, as
 * edits of the body that the client sent.
 *
 * The prefill's asks for one token and no stream; what is there of it is replaced, what is not there is put
 * in front of the first member, and `stream_options` is taken out. Both bodies have the connector's
 * parameters as `kv_transfer_params`, in place of what the client gave. SGLang's engines get one and the same
 * body, with the place where prefill and decode meet.
 *
 * Pure. Texts and bodies are the caller's and live as long as the edits.
 */
#pragma once

#include "router/splice.h"

enum split_api {
	SPLIT_API_NONE, /* of no API whose work can be shared */
	SPLIT_API_CHAT,
	SPLIT_API_COMPLETION,
	SPLIT_API_RESPONSES,
	SPLIT_API_TOKENS,   /* /inference/v1/generate: its limits are in sampling_params */
	SPLIT_API_GENERATE, /* /generate, SGLang's own */
};

enum split_member {
	SPLIT_MAX_TOKENS,
	SPLIT_MAX_COMPLETION_TOKENS,
	SPLIT_MAX_OUTPUT_TOKENS,
	SPLIT_MIN_TOKENS,
	SPLIT_STREAM,
	SPLIT_STREAM_OPTIONS,
	SPLIT_KV_PARAMS,
	SPLIT_SAMPLING, /* the object */
	SPLIT_SAMPLING_MAX_TOKENS,
	SPLIT_SAMPLING_MIN_TOKENS,
	SPLIT_BOOTSTRAP_HOST,
	SPLIT_BOOTSTRAP_PORT,
	SPLIT_BOOTSTRAP_ROOM,
	SPLIT_MEMBERS,
};

struct split_body {
	enum split_api api;
	uint64_t open_at; /* behind the first brace */
	struct {
		uint64_t at, n; /* n 0: it is not there */
	} members[SPLIT_MEMBERS];
	uint64_t options_at, options_n; /* of the whole member stream_options */
	uint64_t sampling_open_at;      /* likewise of sampling_params, when that is an object with members */
	bool clamps_min, clamps_sampling_min; /* the least number of tokens is above 1 */
	uint32_t n_batch;                     /* prompts in a list; 0: it is none */
};

/* By its path. */
enum split_api split_api_of(struct slice path);

/* A whole body, JSON that was found to be valid. False: it is no request of this API with a prompt. */
must_use bool split_body_read(struct split_body *b, enum split_api api, const struct hold *body);

/* `params`: the JSON value of kv_transfer_params; empty: there is none, and the client's becomes null. */
void split_body_prefill(const struct split_body *b, struct slice params, struct splice *out);
void split_body_decode(const struct split_body *b, struct slice params, struct splice *out);

/* The same with params that stand in another hold, in n ranges behind `lead`. */
struct split_range {
	uint64_t at, n;
};
#define SPLIT_RANGES 2
void split_body_decode_from(const struct split_body *b, struct slice lead, const struct hold *from,
    const struct split_range *ranges, unsigned n, struct splice *out);

/* Values of bootstrap_host, bootstrap_port and bootstrap_room. */
struct split_bootstrap {
	struct slice host, port, room;
};
void split_body_bootstrap(const struct split_body *b, const struct split_bootstrap *with, struct splice *out);
