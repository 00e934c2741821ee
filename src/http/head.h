/*
 * head: request and response heads of HTTP/1.1 (RFC 9112), strictly.
 *
 * One pass over contiguous bytes judges and splits a head: first line, CRLF only, no
 * folds, token names, no controls in values, one valid Host, one way of framing,
 * counts and sizes. Any doubt is a refusal. Field texts are views into the bytes that
 * were parsed; head_copy() makes a head that stands alone in one buf.
 */
#pragma once

#include "base/buf.h"
#include "base/cause.h"
#include "http/field.h"

#define HEAD_BYTES_MAX  (65536u - (unsigned)sizeof(struct buf)) /* fills a buf of 64 KiB */
#define HEAD_FIELDS_MAX 100u
#define HEAD_TARGET_MAX 32768u

struct field {
	uint16_t name_at, name_n;
	uint16_t value_at, value_n;
	uint8_t id;    /* enum field_id */
	bool is_named; /* by Connection, and not protected: belongs to this hop */
};

enum method {
	METHOD_OTHER, /* known to the registry, no special meaning here */
	METHOD_GET,
	METHOD_HEAD,
	METHOD_POST,
	METHOD_PUT,
	METHOD_DELETE,
	METHOD_OPTIONS,
};

enum framing {
	FRAMING_NONE,   /* no body */
	FRAMING_LENGTH, /* content_length bytes */
	FRAMING_CHUNKED,
	FRAMING_CLOSE, /* until the connection ends; responses only */
};

struct head {
	const char *base;
	struct field *fields;
	uint64_t content_length; /* with FRAMING_LENGTH; for responses also kept when there is no body */
	uint16_t bytes;          /* of the whole head, last CRLF included */
	uint16_t n_fields;
	uint16_t status; /* responses */
	uint16_t method_at, method_n;
	uint16_t target_at, target_n; /* origin-form: an absolute-form target has lost its authority */
	uint8_t method;               /* enum method */
	uint8_t framing;              /* enum framing */
	uint8_t minor;                /* HTTP/1.minor */
	bool keep_alive;              /* the sender means to keep the connection */
	bool expects_continue;
	bool has_length; /* a Content-Length field was there */
};

/* Where a head is parsed to, before it is copied. */
struct head_room {
	struct head head;
	struct field fields[HEAD_FIELDS_MAX];
};

enum head_outcome {
	HEAD_E_MORE = 1, /* not complete, nothing wrong so far */
	HEAD_E_REFUSED,  /* see *cause_out */
};

/* 0 when room->head is complete. Empty lines before the request line must have been skipped. */
must_use int head_parse_request(struct head_room *room, struct slice in, enum cause *cause_out);

/* `method` is that of the request: a response to HEAD has no body. Refusals are CAUSE_UPSTREAM_MALFORMED. */
must_use int head_parse_response(struct head_room *room, struct slice in, enum method method);

/* Fields only, up to and with the empty line: a trailer section. */
must_use int head_parse_trailer(struct head_room *room, struct slice in);

/* A copy in one buf; the head stands at its start. Taken even beyond the budget: its size is bounded here. */
struct buf *head_copy(struct buf_pool *pool, const struct head *head);

static inline struct slice head_name(const struct head *h, const struct field *f) {
	return (struct slice){ h->base + f->name_at, f->name_n };
}
static inline struct slice head_value(const struct head *h, const struct field *f) {
	return (struct slice){ h->base + f->value_at, f->value_n };
}
static inline struct slice head_method(const struct head *h) {
	return (struct slice){ h->base + h->method_at, h->method_n };
}
static inline struct slice head_target(const struct head *h) {
	if (h->target_n == 0) /* absolute-form without a path (RFC 9112 section 3.2.4) */
		return h->method == METHOD_OPTIONS ? SLICE("*") : SLICE("/");
	return (struct slice){ h->base + h->target_at, h->target_n };
}

/* The target without its query. */
struct slice head_path(const struct head *h);

/* First field of that id or name (lower case); p is NULL when there is none. */
struct slice head_find(const struct head *h, enum field_id id);
struct slice head_find_name(const struct head *h, struct slice lower);

/* Whether a Connection field of the head names it. */
bool head_names_in_connection(const struct head *h, struct slice name);

/*
 * The first bytes tell what is no HTTP at all; after that, parsing an incomplete head again makes sense only
 * when another line has ended or there is too much. *seen: the bytes that were there the last time, 0 at
 * first.
 */
bool head_is_worth_parsing(struct slice in, uint16_t *seen);

/* True when the field belongs to this hop alone. */
static inline bool head_is_hop_field(const struct field *f) {
	return f->is_named || field_is_hop((enum field_id)f->id);
}
