/*
 * continuation: what an answer that was cut needs in order to be gone on with by another engine, as splices
 * on bytes: of the request's body, and of the events of the stream that follows. Nothing is parsed into
 * a tree, decoded or written anew.
 *
 * A continuation listens to the events of an answer, one whole event at a time, and says what text was in
 * it. Once it was told that another stream follows, the events of that come out as if the first engine had
 * said them: id, created, model and system_fingerprint as they were, the chunk with nothing but the role
 * left out, usage added up. The text stays escaped as the engine had it: joined it is the content of a JSON
 * string.
 *
 * Tokens are counted by the events that have text, or by usage where each event has it. A prompt that is
 * counted with the text so far is told as shorter by that.
 *
 * Pure. The caller owns all bytes. docs/resume.md says which requests are accepted, and why.
 */
#pragma once

#include "router/hold.h"

enum continuation_kind { CONTINUATION_CHAT, CONTINUATION_COMPLETION };

/* --- the request -------------------------------------------------------------------- */

#define CONTINUATION_LIMITS 2 /* max_tokens and max_completion_tokens */

/* Where something goes into a body; offsets from its start. */
struct continuation_request {
	uint64_t text_at, end_at; /* of the bracket or quote before which the text goes, of the last brace */
	struct {
		uint64_t at, n, tokens; /* its digits; n 0: it is not there */
	} limits[CONTINUATION_LIMITS];
	uint8_t kind;
};

/* A whole body, JSON that was found to be valid. False: an answer to it cannot be gone on with. */
must_use bool continuation_accepts(
    struct continuation_request *r, enum continuation_kind kind, const struct hold *body);

/*
 * Makes the body that asks for the rest, in *out, which is empty. `text`: what was said so far, in n_tokens.
 * False: the limit of tokens leaves nothing, or there is no memory (then *out has a part).
 */
must_use bool continuation_ask(const struct continuation_request *r, const struct hold *body,
    const struct hold *text, uint64_t n_tokens, struct buf_pool *pool, struct hold *out);

/* --- the answer ---------------------------------------------------------------------- */

#define CONTINUATION_IDENTITY_BYTES 640u

enum continuation_member {
	CONTINUATION_ID,
	CONTINUATION_CREATED,
	CONTINUATION_MODEL,
	CONTINUATION_FINGERPRINT,
	CONTINUATION_MEMBERS,
};

struct continuation {
	uint64_t n_tokens;      /* said so far, by all engines */
	uint64_t n_before;      /* of them, by those before this one */
	uint64_t prompt_tokens; /* of the first one's usage; UINT64_MAX: it said none */
	uint8_t kind;
	bool is_resumed;
	bool has_text;
	bool is_over;  /* it has ended, or said what cannot be gone on with: no UTF-8, for one */
	bool is_split; /* the text ends within a surrogate pair */
	uint16_t identity_n[CONTINUATION_MEMBERS];
	uint16_t identity_at[CONTINUATION_MEMBERS];
	uint16_t identity_used;
	char identity[CONTINUATION_IDENTITY_BYTES]; /* as the first engine wrote them */
};

#define CONTINUATION_SPLICES_MAX 8

/* One event as it goes to the client; valid as long as the event and the continuation. */
struct continuation_event {
	struct slice parts[2 * CONTINUATION_SPLICES_MAX + 1];
	unsigned n_parts;  /* 0: it is left out */
	struct slice text; /* what it says, escaped */
	char digits[4][20];
};

void continuation_init(struct continuation *c, enum continuation_kind kind);

/* The next whole event. False: it is none that is understood. */
must_use bool continuation_take(struct continuation *c, struct slice event, struct continuation_event *out);

/* Whether what was said up to here can be gone on with. */
bool continuation_is_possible(const struct continuation *c);

/* The events that follow are of another engine, which goes on where the last one stopped. */
void continuation_resume(struct continuation *c);
