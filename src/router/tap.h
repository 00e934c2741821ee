/*
 * tap: listens to an answer on its way to the client: tokens, content events, the end.
 *
 * It never changes, delays or copies a byte. A JSON answer is scanned for its usage;
 * of an event stream every `data:` line is. The scanner of the thread is borrowed
 * while the bytes of one read are looked at; only an answer or an event that is cut by
 * the end of a read keeps a scanner of its own until it is complete.
 *
 * Usage is understood in the three dialects: OpenAI's chat and completions, OpenAI's
 * responses, Anthropic's messages, whose cached tokens are part of the prompt. Without
 * usage the content events are counted: those with text, reasoning, a refusal, a part of
 * a tool call or token ids, not empty. The first of them is the first token. The chunk
 * with the role, the last one with the reason and comments are none. Of several choices
 * in one event, which engines send one by one, the last decides. The id of a response is
 * found where it is asked for, and only there.
 *
 * The JSON of a 404 is scanned for what is not there. It is of the request, not of its route, when
 * the error names a parameter or speaks of a model, unless of one that does not support what was
 * asked for; when a text of it is longer than 512 bytes or has control characters, as none has that a
 * server gives for a path that it does not know; not when it has no text. So is one that is compressed,
 * since nobody knows what it says. Other 404s, and JSON that is none, are of the route.
 */
#pragma once

#include "http/reply.h"
#include "router/scan.h"

enum tap_kind {
	TAP_NONE,
	TAP_JSON,
	TAP_EVENTS,
	TAP_NOT_FOUND, /* the JSON of a 404 */
};

struct tap_reading;

/* One per thread, shared by all its taps. */
struct tap_scratch {
	struct buf *buf;
};

struct tap {
	struct buf *saved; /* the scanner of an answer or event that is not complete */
	uint64_t tokens_in, tokens_out;
	uint64_t tokens_cached; /* of those in */
	uint32_t n_events;      /* with content */
	uint8_t kind;           /* enum tap_kind */
	uint8_t line;           /* where in a line the last read ended */
	uint8_t matched;        /* bytes of "data:" or "[DONE]" seen on this line */
	bool is_reading;        /* a JSON text has begun and not ended */
	bool is_refused;        /* this event is no JSON */
	bool has_usage, has_cached;
	bool is_of_request;  /* a 404 that is complete, or cannot be read: the route is there */
	bool is_done;        /* [DONE] or the last event of another dialect passed */
	bool seeks_response; /* the id of a response, at the caller's wish; false once it is found */
	bool at_boundary;    /* the last byte ended an event, or nothing came yet */
};

void tap_scratch_init(struct tap_scratch *s, struct buf_pool *pool);
void tap_scratch_deinit(struct tap_scratch *s, struct buf_pool *pool);

void tap_init(struct tap *t, const struct head *answer);
void tap_deinit(struct tap *t, struct buf_pool *pool);

/* What was found in some bytes. */
struct tap_news {
	unsigned n_content; /* content events that ended in them */
	uint64_t response;  /* inspect_id_hash() of the id that is sought; 0: it was not there */
};

/* The next bytes of the answer. */
struct tap_news tap_feed(
    struct tap *t, struct tap_scratch *s, struct buf_pool *pool, const struct piece *pieces, size_t n);

/* The answer is complete. Content is none in this news. */
struct tap_news tap_finish(struct tap *t, struct tap_scratch *s, struct buf_pool *pool);

/* The event that tells a client of this dialect that its stream was cut; the caller frees it. */
must_use char *tap_error_event(enum cause cause, enum reply_dialect dialect);
