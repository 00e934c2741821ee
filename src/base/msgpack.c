#include "base/msgpack.h"

/* What stands behind a first byte of 0xc0 to 0xdf. */
enum shape {
	SHAPE_NONE, /* no such byte */
	SHAPE_PLAIN,
	SHAPE_LENGTH, /* a length of `bytes` and so many bytes more, `extra` besides */
	SHAPE_NUMBER, /* a number of `bytes` */
	SHAPE_MEMBERS,
};

static const struct {
	uint8_t shape, type, bytes, extra;
} shapes[] = {
	[0x00] = { SHAPE_PLAIN, MSGPACK_NIL, 0, 0 },
	[0x02] = { SHAPE_PLAIN, MSGPACK_BOOL, 0, 0 },
	[0x03] = { SHAPE_PLAIN, MSGPACK_BOOL, 0, 0 },
	[0x04] = { SHAPE_LENGTH, MSGPACK_TEXT, 1, 0 }, /* bin */
	[0x05] = { SHAPE_LENGTH, MSGPACK_TEXT, 2, 0 },
	[0x06] = { SHAPE_LENGTH, MSGPACK_TEXT, 4, 0 },
	[0x07] = { SHAPE_LENGTH, MSGPACK_OTHER, 1, 1 }, /* ext, with its type */
	[0x08] = { SHAPE_LENGTH, MSGPACK_OTHER, 2, 1 },
	[0x09] = { SHAPE_LENGTH, MSGPACK_OTHER, 4, 1 },
	[0x0a] = { SHAPE_NUMBER, MSGPACK_OTHER, 4, 0 }, /* float */
	[0x0b] = { SHAPE_NUMBER, MSGPACK_OTHER, 8, 0 },
	[0x0c] = { SHAPE_NUMBER, MSGPACK_UINT, 1, 0 },
	[0x0d] = { SHAPE_NUMBER, MSGPACK_UINT, 2, 0 },
	[0x0e] = { SHAPE_NUMBER, MSGPACK_UINT, 4, 0 },
	[0x0f] = { SHAPE_NUMBER, MSGPACK_UINT, 8, 0 },
	[0x10] = { SHAPE_NUMBER, MSGPACK_OTHER, 1, 0 }, /* int */
	[0x11] = { SHAPE_NUMBER, MSGPACK_OTHER, 2, 0 },
	[0x12] = { SHAPE_NUMBER, MSGPACK_OTHER, 4, 0 },
	[0x13] = { SHAPE_NUMBER, MSGPACK_OTHER, 8, 0 },
	[0x14] = { SHAPE_PLAIN, MSGPACK_OTHER, 0, 2 }, /* fixext */
	[0x15] = { SHAPE_PLAIN, MSGPACK_OTHER, 0, 3 },
	[0x16] = { SHAPE_PLAIN, MSGPACK_OTHER, 0, 5 },
	[0x17] = { SHAPE_PLAIN, MSGPACK_OTHER, 0, 9 },
	[0x18] = { SHAPE_PLAIN, MSGPACK_OTHER, 0, 17 },
	[0x19] = { SHAPE_LENGTH, MSGPACK_TEXT, 1, 0 }, /* str */
	[0x1a] = { SHAPE_LENGTH, MSGPACK_TEXT, 2, 0 },
	[0x1b] = { SHAPE_LENGTH, MSGPACK_TEXT, 4, 0 },
	[0x1c] = { SHAPE_MEMBERS, MSGPACK_ARRAY, 2, 0 },
	[0x1d] = { SHAPE_MEMBERS, MSGPACK_ARRAY, 4, 0 },
	[0x1e] = { SHAPE_MEMBERS, MSGPACK_MAP, 2, 0 },
	[0x1f] = { SHAPE_MEMBERS, MSGPACK_MAP, 4, 0 },
};

static bool take(struct slice *rest, uint64_t n, struct slice *out) {
	if (n > rest->n)
		return false;
	*out = (struct slice){ rest->p, (size_t)n };
	*rest = slice_skip(*rest, (size_t)n);
	return true;
}

/* Big-endian. */
static bool take_number(struct slice *rest, unsigned bytes, uint64_t *n_out) {
	struct slice digits;

	if (!take(rest, bytes, &digits))
		return false;
	*n_out = 0;
	for (size_t i = 0; i < digits.n; i++)
		*n_out = *n_out << 8 | (unsigned char)digits.p[i];
	return true;
}

/* Those whose first byte holds all of it, or the length. */
static bool take_short(struct slice *rest, unsigned char first, struct msgpack *v) {
	if (first < 0x80)
		*v = (struct msgpack){ MSGPACK_UINT, .n = first };
	else if (first < 0x90)
		*v = (struct msgpack){ MSGPACK_MAP, .n = 2 * (first & 0x0fu) };
	else if (first < 0xa0)
		*v = (struct msgpack){ MSGPACK_ARRAY, .n = first & 0x0fu };
	else /* else a negative number */
		v->type = first < 0xc0 ? MSGPACK_TEXT : MSGPACK_OTHER;
	return v->type != MSGPACK_TEXT || take(rest, first & 0x1f, &v->text);
}

static bool take_long(struct slice *rest, unsigned char first, struct msgpack *v) {
	unsigned at = first - 0xc0u;
	struct slice bytes;

	v->type = (enum msgpack_type)shapes[at].type;
	switch ((enum shape)shapes[at].shape) {
	case SHAPE_PLAIN:
		v->n = v->type == MSGPACK_BOOL ? first & 1 : 0;
		return take(rest, shapes[at].extra, &bytes);
	case SHAPE_NUMBER:
		return take_number(rest, shapes[at].bytes, &v->n);
	case SHAPE_MEMBERS:
		if (!take_number(rest, shapes[at].bytes, &v->n))
			return false;
		v->n *= v->type == MSGPACK_MAP ? 2 : 1;
		return true;
	case SHAPE_LENGTH:
		if (!take_number(rest, shapes[at].bytes, &v->n) ||
		    !take(rest, v->n + shapes[at].extra, &bytes))
			return false;
		v->text = v->type == MSGPACK_TEXT ? bytes : v->text;
		v->n = 0;
		return true;
	default:
		return false;
	}
}

bool msgpack_next(struct slice *rest, struct msgpack *value_out) {
	struct slice first;

	*value_out = (struct msgpack){ MSGPACK_NIL, .n = 0 };
	if (!take(rest, 1, &first))
		return false;
	unsigned char byte = (unsigned char)first.p[0];
	return (byte < 0xc0 || byte >= 0xe0 ? take_short : take_long)(rest, byte, value_out);
}

bool msgpack_skip(struct slice *rest, struct slice *whole_out) {
	const char *from = rest->p;
	struct msgpack v;

	/* Each member takes a byte at least. */
	for (uint64_t n_left = 1; n_left; n_left--) {
		if (n_left > rest->n || !msgpack_next(rest, &v))
			return false;
		if (v.type == MSGPACK_ARRAY || v.type == MSGPACK_MAP)
			n_left += v.n;
	}
	*whole_out = (struct slice){ from, (size_t)(rest->p - from) };
	return true;
}
