/*
 * inspect: what the router learns of a request before it picks an instance, found in its head
 * and, while that arrives, in its body.
 *
 * Of a POST the body is read when it is JSON, by its type or, where the client gave none, by
 * its first byte, and when it is a form (multipart/form-data), for its model alone; all others
 * are routed without a model. The prompt's blocks are hashed as they pass (prompt_chain.h).
 * What is known can be asked for until inspect_deinit(), as often as there are tries. It lives
 * in one lent buf, and in a second one while a prompt is longer than a block or comes in parts.
 *
 * Whoever inspects owns the struct; one thread. The rules outlive it. No text of a prompt or
 * of a session is kept.
 */
#pragma once

#include "http/head.h"
#include "policy/demand.h"

/* Members of a body that name a session, in the order that counts unless told otherwise. */
#define INSPECT_MEMBERS 6
#define INSPECT_MEMBERS_NAMES                                                                                \
	"prompt_cache_key, conversation, previous_response_id, session_params.session_id, "                  \
	"metadata.user_id, user"
#define INSPECT_HEADER_MAX 63u /* bytes of the name of a header that brings a session */

/* Where a session is looked for. The first that is there and well-formed counts, headers first. */
struct inspect_rules {
	const char *const *headers; /* lower case, at most INSPECT_HEADER_MAX bytes each */
	size_t n_headers;
	uint64_t header_lengths; /* of their names, as bits */
	uint8_t members[INSPECT_MEMBERS];
	uint8_t n_members;
};

enum inspect_body { INSPECT_NOTHING, INSPECT_JSON, INSPECT_FORM };

struct inspect {
	struct buf *buf;    /* what is known; NULL: nothing more than what stands here */
	uint8_t body;       /* enum inspect_body: what of it is read */
	uint8_t cause;      /* enum cause */
	uint8_t capability; /* private, see inspect_capability() */
	uint8_t privacy;
	uint8_t cost_tolerance;
	uint8_t class; /* private, see inspect_wishes() */
	bool has_cost_tolerance;
	bool is_guess; /* no type was given and no byte has come yet */
	bool may_be_empty;
	bool is_complete;
	bool is_streamed;
	bool may_name_response; /* private, see inspect_may_name_response() */
	bool named_response;    /* private, see inspect_names_response() */
};

_Static_assert(sizeof(struct inspect) <= 24, "it lives in every exchange");

/* What makes keys of equal prompts and sessions differ, and what bytes are worth in tokens. */
struct inspect_salt {
	uint64_t tenant;
	struct slice model;
	double tokens_per_byte;
};

/* Fills *rules; the headers stay the caller's. The members are added then, one by one. */
void inspect_rules_init(struct inspect_rules *rules, const char *const *headers, size_t n_headers);

/* False: it is none of INSPECT_MEMBERS_NAMES, or was added before. */
must_use bool inspect_rules_add(struct inspect_rules *rules, struct slice member);

/* Whether a body of this content type is read as JSON. */
bool inspect_is_json(struct slice content_type);

/* Decides by the head. A cause other than NONE refuses the request. */
enum cause inspect_init(
    struct inspect *in, const struct inspect_rules *rules, struct buf_pool *pool, const struct head *head);
void inspect_deinit(struct inspect *in, struct buf_pool *pool);

/* The next bytes of the body. The cause is final. */
enum cause inspect_feed(struct inspect *in, const char *p, size_t n);
/* The body is complete. */
enum cause inspect_finish(struct inspect *in);

/* True when the model will not change any more: it was named, or none will be. */
bool inspect_is_decided(const struct inspect *in);

/* The same of the session: none that counts more can come. */
bool inspect_has_session(const struct inspect *in);

/*
 * True when it is about a stored response, by its path or by previous_response_id, as far as is known. Stays
 * known when all else is forgotten. An id in a path is taken as it stands there: those that engines give out
 * need no encoding.
 */
bool inspect_names_response(const struct inspect *in);

/* A hash of the id of the stored response that its path names, which is no work for who has it; 0: it names
 * none, or all is forgotten. */
uint64_t inspect_response(const struct inspect *in);

/* True while it names none, and its body may do so yet. */
bool inspect_may_name_response(const struct inspect *in);

/* True when nothing more will be learned of the request. */
bool inspect_has_all(const struct inspect *in);

/* The model as named by the client: p is NULL when none was (so far). A bad one is a cause of inspect_feed().
 */
struct slice inspect_model(const struct inspect *in);

/*
 * What is asked for, so far: by method and path, but that a completion with a suffix is an infill, whose
 * text goes between prompt and suffix. Stays known when all else is forgotten.
 */
enum capability inspect_capability(const struct inspect *in);

/*
 * What requests of one session have in common: a hash of the text of 1 to 256 bytes that the rules find,
 * so far. 0: there is none. Of equal texts for different models or tenants the results differ.
 */
uint64_t inspect_session(const struct inspect *in, const struct inspect_salt *with);

/* The same of a session's text, wherever it comes from; 0: it is no such text. */
uint64_t inspect_session_of(struct slice text, const struct inspect_salt *with);

/* A hash of the id of a stored response; 0: it is no such text. And what demand.response is of it: whoever
 * asks for it by its path names no model. */
uint64_t inspect_id_hash(struct slice id);
uint64_t inspect_response_key(uint64_t hash, uint64_t tenant);

/* What its head says of its wait for a place. */
struct inspect_wishes {
	uint8_t class;        /* 0 goes first, 7 last */
	uint64_t wait_ms;     /* that it wants to wait at the most, even for a fleet; 0: not said */
	uint32_t deadline_ms; /* for its first token; 0: none */
};
struct inspect_wishes inspect_wishes(const struct inspect *in);

/*
 * All that is known so far. `keys` has room for PROMPT_BLOCKS_MAX and lives as long as *out is used.
 * Expected output, residency and seed are the caller's to fill in: they are 0 and empty.
 */
void inspect_demand(
    const struct inspect *in, const struct inspect_salt *with, uint64_t *keys, struct demand *out);
