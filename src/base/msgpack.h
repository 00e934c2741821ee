/*
 * msgpack: reads MessagePack where it stands, value by value.
 *
 * Nothing is allocated, whatever a header claims to be behind it: an array or a map is its number of
 * members, which follow as values of their own. Texts point into the input. False: it is malformed or ends
 * too early; *rest is anywhere then.
 */
#pragma once

#include "base/slice.h"

enum msgpack_type {
	MSGPACK_NIL,
	MSGPACK_BOOL,
	MSGPACK_UINT,
	MSGPACK_OTHER, /* a negative or broken number, or of a type of its own */
	MSGPACK_TEXT,  /* str or bin */
	MSGPACK_ARRAY,
	MSGPACK_MAP,
};

struct msgpack {
	enum msgpack_type type;
	uint64_t n;        /* BOOL, UINT: the value; ARRAY: members; MAP: members, keys and values apart */
	struct slice text; /* TEXT */
};

/* Takes one value off the front, of an array or a map its header alone. */
must_use bool msgpack_next(struct slice *rest, struct msgpack *value_out);

/* The same with all that is in it, however deep; returns what that is in *whole_out. */
must_use bool msgpack_skip(struct slice *rest, struct slice *whole_out);
