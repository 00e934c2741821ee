/*
 * splice: a held body with a few places changed, as it goes out: nothing of it is copied or written anew.
 *
 * An edit cuts bytes out and puts others in their place: a text, or a range of another hold. Edits are kept
 * in the order of their places; of several at one place the first added comes first, and they do not
 * overlap. The texts, the holds and the body are the caller's and live until the last piece was taken.
 *
 * Pure.
 */
#pragma once

#include "router/hold.h"

#define SPLICE_EDITS_MAX 32u

struct splice_edit {
	uint64_t at, n_cut; /* in the body as it is */
	struct slice put;
	const struct hold *from; /* NULL: only the text is put; else behind it, of this one: */
	uint64_t from_at, from_n;
};

struct splice {
	struct splice_edit edits[SPLICE_EDITS_MAX];
	unsigned n;
};

/* At most SPLICE_EDITS_MAX edits. */
void splice_add(struct splice *s, struct splice_edit edit);

/* How many bytes n_bytes of body become. */
uint64_t splice_length(const struct splice *s, uint64_t n_bytes);

/* The place of the whole member of a JSON object whose value is this one, with the comma that parts it from
 * another: what is cut to take it out. The scanner found it, in a body that is valid. Linear. */
void splice_find_member(
    const struct hold *body, uint64_t value_at, uint64_t value_n, uint64_t *at_out, uint64_t *n_out);

struct splice_cursor {
	/* private */
	const struct splice *splice;
	struct buf *buf; /* of the body */
	uint64_t at;     /* in the body: all before it is out */
	uint64_t buf_at; /* where `buf` begins */
	unsigned edit;   /* the next one */
	struct slice put;
	struct buf *from; /* of the edit that is being put; NULL: none is */
	uint64_t from_skip, from_left;
};

/* `splice` without edits gives the body as it is. */
void splice_begin(struct splice_cursor *c, const struct splice *s, const struct hold *body);

/* The next pieces, at most n_max; 0: there are no more. */
size_t splice_pieces(struct splice_cursor *c, struct piece *pieces, size_t n_max);

/* What a text that stands in one piece becomes, behind what *out has, whatever the budget says. */
void splice_append(const struct splice *s, struct slice text, struct hold *out, struct buf_pool *pool);
