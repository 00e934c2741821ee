/*
 * body: takes the framing off a message body, piece by piece (RFC 9112 section 7).
 *
 * Pure: bytes in, views of data out. Chunk lines are bounded in length, the value in
 * digits, the framing of a whole body in proportion to its data; anything that is not
 * the grammar is bad for good. Trailer bytes come out as they are, for the caller to
 * collect and parse (head_parse_trailer); their number is bounded here.
 */
#pragma once

#include "http/head.h"

#define BODY_CHUNK_LINE_MAX 256u
#define BODY_TRAILER_MAX    (16384u - (unsigned)sizeof(struct buf)) /* fills a buf of 16 KiB */

enum body_outcome {
	BODY_DATA = 1, /* *out is content */
	BODY_TRAILER,  /* *out is part of the trailer section; the last part ends with its empty line */
	BODY_MORE,     /* all input was used */
	BODY_END,      /* the message ended before what is left of the input */
	BODY_BAD,
};

struct body {
	uint64_t left;           /* of this chunk or this length; UINT64_MAX: until the connection closes */
	uint64_t data_bytes;     /* content that came out so far */
	uint64_t overhead_bytes; /* framing that went in */
	uint32_t trailer_bytes;
	uint16_t line_bytes;
	uint8_t n_digits;
	uint8_t state;
};

void body_init(struct body *b, enum framing framing, uint64_t length);

/* Takes from the front of *in. Call again until BODY_MORE, BODY_END or BODY_BAD. */
must_use enum body_outcome body_next(struct body *b, struct slice *in, struct slice *out);

bool body_is_complete(const struct body *b);
