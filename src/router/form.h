/*
 * form: finds the field "model" of a multipart/form-data body while it arrives (RFC 7578, RFC 2046).
 *
 * The body is passed over in pieces of any size, with constant memory, and gives one
 * outcome however it is cut. Parts may come in any order; of their headers only the name
 * in Content-Disposition is read. Strict where a reader could be led astray: CRLF, no
 * folds, at most FORM_HEADERS_MAX bytes of headers a part, one disposition with one name,
 * a boundary as RFC 2046 has it, a closing delimiter. A preamble and an epilogue are
 * passed over, as engines do.
 *
 * The caller owns the struct. One thread.
 */
#pragma once

#include "base/slice.h"

#define FORM_BOUNDARY_MAX 70u
#define FORM_HEADERS_MAX  8192u
#define FORM_VALUE_MAX    256u

enum form_verdict {
	FORM_MORE,        /* good so far */
	FORM_COMPLETE,    /* the closing delimiter has come */
	FORM_E_SYNTAX,    /* not a form, or it ended too early */
	FORM_E_DUPLICATE, /* a second part of that name */
};

struct form {
	/* private, but for value_n, value_at and has_value */
	char delimiter[4 + FORM_BOUNDARY_MAX]; /* CRLF, two dashes, the boundary */
	uint8_t delimiter_n;
	uint8_t n_matched; /* bytes of the delimiter that may just be passing */
	uint8_t state, verdict;
	uint8_t n_word;                 /* bytes in `word`; more than it holds: it is none of ours */
	char word[20];                  /* of the name or value that is being read, lower case for names */
	uint16_t header_bytes;          /* of this part */
	bool has_disposition, has_name; /* this part */
	bool reads_name;                /* the parameter that is being read is `name` */
	bool is_model;                  /* this part */
	bool has_value;                 /* the part's value is complete */
	uint16_t value_n;               /* FORM_VALUE_MAX + 1: it is longer */
	uint64_t value_at;              /* where it begins, from the start of the body */
	uint64_t n_fed;                 /* bytes before this piece */
	char value[FORM_VALUE_MAX];
};

/* Starts with the value of a Content-Type field. False: it has no boundary, or a bad one. */
must_use bool form_init(struct form *f, struct slice type);

/* Reads the next n bytes; any n, also 0. A refusal is final. */
must_use enum form_verdict form_feed(struct form *f, const char *p, size_t n);

/* The body has ended: FORM_COMPLETE or a refusal. */
must_use enum form_verdict form_finish(struct form *f);

/* No byte has come: what tells an empty body from a broken one. */
bool form_is_blank(const struct form *f);

/* The value of the part, as it stands there; p is NULL while it is not complete, or when it is too long. */
static inline struct slice form_value(const struct form *f) {
	bool is_there = f->has_value && f->value_n <= FORM_VALUE_MAX;
	return is_there ? (struct slice){ f->value, f->value_n } : (struct slice){ NULL, 0 };
}
