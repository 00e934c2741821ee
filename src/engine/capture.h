/*
 * capture: the newest requests as they came, for tests that look at what arrived.
 *
 * Bounded in number and bytes; the oldest goes first, and of a body only the first
 * CAPTURE_BODY_BYTES are kept. Owns copies of all it is given. One thread.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

#define CAPTURE_REQUESTS_MAX 256u
#define CAPTURE_BYTES_MAX    (16u * 1024u * 1024u)
#define CAPTURE_BODY_BYTES   (1024u * 1024u)

struct capture_record;

struct capture {
	struct capture_record *records[CAPTURE_REQUESTS_MAX]; /* a ring */
	uint64_t n_taken;                                     /* ever; the next goes to n_taken % max */
	uint32_t n_kept;
	size_t n_bytes;
};

/* The three parts of a request's first line and fields, "name: value" lines joined by '\n'. */
struct capture_request {
	struct slice method, target, fields, body;
};

/* Zeroed memory is an empty capture. */
void capture_add(struct capture *c, const struct capture_request *r);
void capture_clear(struct capture *c);

/*
 * {"requests":[{"number","method","path","headers":[[name,value],...],"body","body_bytes"},...]},
 * oldest first. A body that is not UTF-8 stands in "body_base64" instead. The caller owns it.
 */
json_t *capture_json(const struct capture *c);
