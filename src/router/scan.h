/*
 * scan: finds the values of a few members in a JSON text while it arrives.
 *
 * A scanner reads a body piece by piece, judges it by the grammar of RFC 8259
 * and notes type, place and value of the members that its table wants. It
 * builds no tree, allocates nothing, never recurses, and gives one outcome for
 * one text, however that was cut into pieces.
 *
 * The caller owns everything: the table (read-only once initialised, shared by
 * all threads), the scanner, the array for its values and the room for decoded
 * strings. A scanner belongs to one thread at a time and keeps no pointer into
 * a piece after scan_feed() returned.
 *
 * A path may lead through arrays: "[]" stands for the items of one, all of them. Of several
 * items the last counts, as of several members of one name.
 *
 * One want may have several paths, as if they were names of one member: the value that came last
 * counts, of whatever path. Containers on the way to it take nothing back when they are repeated.
 *
 * Members marked `tells` are told to the caller while the piece is there: where the value begins
 * and where it has ended, or its decoded text. So its bytes, or many texts, can be dealt with on
 * the way, without being held.
 *
 * A repeated member counts as most parsers count it: the last one wins, also
 * when it is the parent that is repeated. Members marked `unique` refuse it.
 * Keys are compared after decoding. UTF-8 is checked where text is decoded and
 * passed over elsewhere; escapes and raw control characters are judged everywhere.
 */
#pragma once

#include "base/slice.h"

enum {
	SCAN_DEPTH_MAX = 512, /* open objects and arrays */
	SCAN_PATH_MAX = 7,    /* keys in a path, "[]" among them */
	SCAN_NAME_MAX = 32,   /* bytes of one key in a path */
	SCAN_WANTS_MAX = 64,
	SCAN_NODES_MAX = 128,
};

enum scan_verdict {
	SCAN_MORE,        /* good so far, the top-level value is still open */
	SCAN_COMPLETE,    /* the top-level value is closed: only white space may follow */
	SCAN_E_SYNTAX,    /* not JSON, or ended too early */
	SCAN_E_DEPTH,     /* more than SCAN_DEPTH_MAX levels */
	SCAN_E_DUPLICATE, /* a unique member came again */
};

enum scan_type { SCAN_NULL, SCAN_BOOL, SCAN_NUMBER, SCAN_STRING, SCAN_OBJECT, SCAN_ARRAY };

/* Why a value that was found could not be read into `text` or `number`. */
enum scan_flaw {
	SCAN_SOUND,
	SCAN_TOO_LONG,    /* string: more than text_bytes_max once decoded */
	SCAN_BAD_TEXT,    /* string: not UTF-8, a lone surrogate, U+0000 to U+001F or U+007F */
	SCAN_NOT_COUNTED, /* number: negative, with a fraction, or in more than 32 bytes that are not all
			     digits */
	SCAN_TOO_LARGE,   /* number: 2^64 or more */
};

/* One wanted member. Its id is its index in the array that the table was made from. */
struct scan_want {
	const char *path;        /* keys joined by dots: "usage.prompt_tokens", "choices.[].text"; of
				  * several, joined by |, none lies within another */
	uint16_t text_bytes_max; /* decode a string up to this size; 0: its place is enough */
	bool unique;             /* not through arrays */
	bool tells;              /* see scan_tell_fn */
};

struct scan_value {
	uint64_t offset; /* of its first byte, from the start of the text */
	uint64_t length; /* in bytes, with quotes or brackets; 0 while it is open */
	union {
		struct slice text; /* SCAN_STRING, in the caller's room; empty unless sound */
		uint64_t number;   /* SCAN_NUMBER; 0 when not counted, UINT64_MAX when too large */
		bool truth;        /* SCAN_BOOL */
	};
	enum scan_type type;
	enum scan_flaw flaw;
};

/* One key of one path; private. Children are listed by the length of their name, `item` has none. */
struct scan_node {
	const char *name;
	uint64_t below; /* ids of this member and of all inside it */
	uint64_t bit;   /* its own, 0 when only members inside are wanted */
	uint16_t text_at, text_bytes_max;
	uint8_t id;
	uint8_t next; /* sibling with a name of the same length, 0 ends */
	uint8_t item; /* of each item, when this is an array */
	bool unique;
	bool tells_place, tells_text;
	uint8_t child[SCAN_NAME_MAX + 1];
};

typedef const char *(*scan_skip_fn)(const char *p, const char *end);

struct scan;

/*
 * Tells of a member marked `tells`, within scan_feed(). Without text_bytes_max: its value begins at p,
 * which is in `open` then, or has ended before p, which is in `found`; both are places in the
 * piece. With it: it is a string and found; its text, if sound, is there for the time of the
 * call only, in a room that all such members share. A value that another one
 * replaces, or that a refusal cuts, does not end.
 */
typedef void (*scan_tell_fn)(struct scan *s, unsigned id, const char *p);

struct scan_table {
	scan_skip_fn skip; /* the best kernel for this processor, see scan_simd.h */
	scan_tell_fn tell; /* for members marked `tells`; NULL where none is */
	size_t text_bytes; /* room that each scanner needs for decoded strings */
	unsigned n_wants, n_nodes;
	struct scan_node nodes[SCAN_NODES_MAX]; /* 0 is "not wanted", 1 the top-level value */
};

/* Makes *t from n_wants rows whose paths must outlive it. Mistakes in them are ours: assertions. */
void scan_table_init(struct scan_table *t, const struct scan_want *wants, size_t n_wants, scan_tell_fn tell);

struct scan {
	const struct scan_table *table;
	struct scan_value *values;
	uint64_t offset; /* bytes read; after a refusal the offset of the refused byte */
	uint64_t found;  /* ids whose values are complete, as bits: ask as often as you like */
	uint64_t open;   /* ids whose values have begun: type and offset are known */

	/* private from here on */
	uint64_t seen; /* ids of unique members whose key has passed */
	uint16_t depth;
	uint8_t verdict, state, after; /* `after`: the state behind the value that is being read */
	uint8_t node;                  /* of the value that is or will be read, 0 when not wanted */
	uint8_t within;                /* of the innermost open container */
	uint8_t number;                /* state inside a number */
	uint8_t escape;                /* state inside an escape */
	uint16_t unit, high;           /* UTF-16 unit being read; high surrogate that waits for its low one */
	uint16_t token_n, token_max;   /* bytes kept of this token; token_max + 1: too many */
	char *token;                   /* where they are kept; NULL: nobody wants them */
	const char *literal;           /* what must follow of true, false, null */
	const char *piece;             /* that scan_feed() works on */
	char *text;
	uint8_t path[SCAN_PATH_MAX + 2]; /* nodes of the open containers, by depth */
	char scratch[SCAN_NAME_MAX];
	uint64_t is_object[SCAN_DEPTH_MAX / 64]; /* one bit for each open container */
};

/*
 * Starts a text. `values` has room for t->n_wants values and is read only where `found` or `open`
 * says so; `text` has text_size >= t->text_bytes. Both live as long as *s is used.
 */
void scan_init(
    struct scan *s, const struct scan_table *t, struct scan_value *values, char *text, size_t text_size);

/* Reads the next n bytes; any n, also 0. A refusal is final: more bytes do not change it. */
must_use enum scan_verdict scan_feed(struct scan *s, const char *p, size_t n);

/* The text has ended: SCAN_COMPLETE or a refusal. */
must_use enum scan_verdict scan_finish(struct scan *s);

/* Nothing but white space so far: what tells an empty body from a broken one. */
bool scan_is_blank(const struct scan *s);

/* UTF-8 without control characters: what a text has to be to be sound. */
bool scan_is_clean(struct slice text);

/* The value of this id when it is complete, else NULL. */
static inline const struct scan_value *scan_found(const struct scan *s, unsigned id) {
	return s->found >> id & 1 ? &s->values[id] : NULL;
}
