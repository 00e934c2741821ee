/*
 * scan: a pushdown automaton over pieces of text.
 *
 * Every byte gets a class. Between tokens the table scan_grammar says what a byte of
 * that class means in the present state; that is the whole of JSON's structure.
 * Inside a token the same table leads back to the function that reads the token,
 * so a piece may end anywhere and the next one goes on there: each function reads
 * on from `p` with what the state says and returns where it stopped.
 *
 * The open containers are one bit each. Which of them lie on a wanted path is known
 * by their depth, as paths are short: `path` holds a node of the table for each of
 * the first levels, 0 where nothing is wanted. A value whose node is 0, nearly all
 * of them, is only passed over; that is what the kernels in scan_simd.c are for.
 *
 * A token that somebody wants (a key where keys matter, a wanted string or number)
 * is read where it stands if it is there whole and plain. Otherwise its bytes are
 * kept, decoded, in `token`, which has a ceiling.
 */
#include "router/scan.h"

#include <math.h>

#include "base/text.h"
#include "base/utf8.h"
#include "router/scan_grammar.h"
#include "router/scan_simd.h"

#define fallthrough __attribute__((fallthrough))

_Static_assert(sizeof(struct scan) <= 256, "a scanner lives in every exchange");

enum { NODE_NONE, NODE_TOP };

/* ---- the table of wanted members ------------------------------------------------- */

static uint8_t node_find(const struct scan_table *t, uint8_t parent, struct slice name) {
	if (name.n > SCAN_NAME_MAX)
		return NODE_NONE;
	uint8_t i = t->nodes[parent].child[name.n];
	while (i && memcmp(t->nodes[i].name, name.p, name.n) != 0)
		i = t->nodes[i].next;
	return i;
}

static uint8_t node_add(struct scan_table *t, uint8_t parent, struct slice name) {
	assert(name.n > 0 && name.n <= SCAN_NAME_MAX && t->n_nodes < SCAN_NODES_MAX);
	uint8_t i = (uint8_t)t->n_nodes++;
	uint8_t *list = &t->nodes[parent].child[name.n];
	t->nodes[i] = (struct scan_node){ .name = name.p, .next = *list };
	*list = i;
	return i;
}

static uint8_t node_get_item(struct scan_table *t, uint8_t parent) {
	assert(t->n_nodes < SCAN_NODES_MAX);
	if (!t->nodes[parent].item)
		t->nodes[parent].item = (uint8_t)t->n_nodes++;
	return t->nodes[parent].item;
}

static uint8_t node_get(struct scan_table *t, uint8_t parent, struct slice name) {
	if (slice_eq(name, SLICE("[]")))
		return node_get_item(t, parent);
	uint8_t i = node_find(t, parent, name);
	return i ? i : node_add(t, parent, name);
}

/* Takes what is before the next such mark off *rest, which is nothing when there is none. */
static struct slice cut_name(struct slice *rest, char mark) {
	const char *end = memchr(rest->p, mark, rest->n);
	struct slice name = slice_head(*rest, end ? (size_t)(end - rest->p) : rest->n);
	*rest = end ? slice_skip(*rest, name.n + 1) : (struct slice){ NULL, 0 };
	return name;
}

/* The node that the path ends at. The bits of `below` go to all on the way. */
static struct scan_node *path_add(struct scan_table *t, struct slice path, uint64_t below, bool unique) {
	uint8_t at = NODE_TOP;
	assert(path.p);
	for (unsigned n_keys = 0; path.p; n_keys++) {
		assert(n_keys < SCAN_PATH_MAX);
		at = node_get(t, at, cut_name(&path, '.'));
		assert(t->nodes[at].name || !unique); /* items are many */
		t->nodes[at].below |= below;
	}
	return &t->nodes[at];
}

static void node_fill(
    struct scan_node *node, const struct scan_want *want, uint8_t id, uint64_t bit, size_t text_at) {
	assert(node->bit == 0);
	node->bit = bit;
	node->below |= bit;
	node->id = id;
	node->unique = want->unique;
	node->tells_place = want->tells && !want->text_bytes_max;
	node->tells_text = want->tells && want->text_bytes_max;
	node->text_at = (uint16_t)text_at;
	node->text_bytes_max = want->text_bytes_max;
}

static void table_add(struct scan_table *t, const struct scan_want *want, uint8_t id, size_t text_at) {
	struct slice rest = slice_of(want->path);
	uint64_t bit = UINT64_C(1) << id;
	bool is_one = !memchr(rest.p, '|', rest.n);
	assert(!want->tells || t->tell);
	while (rest.p) {
		struct slice path = cut_name(&rest, '|');
		node_fill(path_add(t, path, is_one ? bit : 0, want->unique), want, id, bit, text_at);
	}
}

/* Texts that are told share the first bytes of the room: one is told before the next is read. */
static size_t shared_text_bytes(const struct scan_want *wants, size_t n_wants) {
	size_t n_bytes = 0;
	for (size_t i = 0; i < n_wants; i++)
		if (wants[i].tells)
			n_bytes = size_max(n_bytes, wants[i].text_bytes_max);
	return n_bytes;
}

void scan_table_init(struct scan_table *t, const struct scan_want *wants, size_t n_wants, scan_tell_fn tell) {
	assert(n_wants <= SCAN_WANTS_MAX);
	*t = (struct scan_table){
		.skip = scan_has_avx2() ? scan_skip_avx2 : scan_skip_sse2,
		.tell = tell,
		.text_bytes = shared_text_bytes(wants, n_wants),
		.n_nodes = NODE_TOP + 1,
	};
	for (size_t i = 0; i < n_wants; i++) {
		table_add(t, &wants[i], (uint8_t)i, wants[i].tells ? 0 : t->text_bytes);
		t->text_bytes += wants[i].tells ? 0 : wants[i].text_bytes_max;
	}
	assert(t->text_bytes < UINT16_MAX);
}

/* ---- refusals and tokens --------------------------------------------------------- */

/* The byte at p is one too many. Returns `end`: there is nothing more to read. */
static cold const char *refuse(struct scan *s, const char *p, const char *end, enum scan_verdict why) {
	s->verdict = (uint8_t)why;
	s->state = AT_END;
	s->offset += (uint64_t)(p - s->piece);
	return end;
}

static void token_begin(struct scan *s, char *room, size_t room_bytes) {
	s->token = room;
	s->token_n = 0;
	s->token_max = (uint16_t)room_bytes;
	s->high = 0;
}

/* Keeps n bytes that stand in the text as they are. */
static void token_keep(struct scan *s, const char *p, size_t n) {
	if (!s->token || n == 0)
		return;
	s->high = 0;
	if (n > (size_t)(s->token_max - s->token_n)) {
		s->token = NULL;
		s->token_n = s->token_max + 1;
		return;
	}
	memcpy(s->token + s->token_n, p, n);
	s->token_n = (uint16_t)(s->token_n + n);
}

/* The whole token, whose last n bytes are at p: there, or in `token` when more was kept before. */
static struct slice token_end(struct scan *s, const char *p, size_t n) {
	if (s->token_n == 0)
		return (struct slice){ p, n };
	token_keep(s, p, n);
	return (struct slice){ s->token, s->token_n };
}

/*
 * Keeps what an escape stands for. A surrogate is written as if it were a character, three
 * bytes that are not UTF-8; a low one that comes right behind a high one makes both good.
 */
static void token_keep_unit(struct scan *s, uint32_t c) {
	if (!s->token)
		return;
	uint16_t high = s->high;
	if (high && (c & 0xfc00) == 0xdc00) {
		s->token_n -= 3;
		c = 0x10000 + ((high & 0x3ffu) << 10 | (c & 0x3ff));
	}
	char utf8[4];
	size_t n = 0;
	if (c < 0x80) {
		utf8[n++] = (char)c;
	} else {
		unsigned n_more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
		utf8[n++] = (char)(0xff00 >> (n_more + 1) | c >> 6 * n_more);
		while (n_more-- > 0)
			utf8[n++] = (char)(0x80 | (c >> 6 * n_more & 0x3f));
	}
	token_keep(s, utf8, n);
	s->high = (c & 0xfffffc00) == 0xd800 ? (uint16_t)c : 0;
}

/* Eight bytes of ASCII from 0x20 to 0x7e. */
static inline bool is_plain_8(const char *p) {
	uint64_t ones = UINT64_C(0x0101010101010101), word;
	memcpy(&word, p, sizeof(word));
	return ((word | (word - 0x20 * ones) | (word + ones)) & 0x80 * ones) == 0;
}

static bool is_plain(struct slice text) {
	if (text.n < 8)
		return false;
	for (size_t i = 0; i < text.n - 8; i += 8)
		if (!is_plain_8(text.p + i))
			return false;
	return is_plain_8(text.p + text.n - 8);
}

bool scan_is_clean(struct slice text) {
	if (is_plain(text))
		return true;
	while (text.n) {
		unsigned char c = (unsigned char)*text.p;
		size_t n = c < 0x80 ? c >= 0x20 && c != 0x7f : utf8_length(text);
		if (n == 0)
			return false;
		text = slice_skip(text, n);
	}
	return true;
}

/* ---- values ---------------------------------------------------------------------- */

static inline uint64_t offset_of(const struct scan *s, const char *p) {
	return s->offset + (uint64_t)(p - s->piece);
}

static inline const struct scan_node *node_of(const struct scan *s) {
	return &s->table->nodes[s->node];
}

/*
 * A value begins at p. It replaces what an earlier member of the same name had brought.
 * This and value_end() return where the value is noted, NULL when nobody wants it.
 */
static inline struct scan_value *value_begin(struct scan *s, enum scan_type type, const char *p) {
	if (s->node == NODE_NONE)
		return NULL;
	const struct scan_node *node = node_of(s);
	s->found &= ~node->below;
	s->open = (s->open & ~node->below) | node->bit;
	if (!node->bit)
		return NULL;
	struct scan_value *v = &s->values[node->id];
	*v = (struct scan_value){ .offset = offset_of(s, p), .type = type };
	if (unlikely(node->tells_place))
		s->table->tell(s, node->id, p);
	return v;
}

/* The value that began last has ended before p. */
static inline struct scan_value *value_end(struct scan *s, const char *p) {
	s->state = s->after;
	if (s->node == NODE_NONE)
		return NULL;
	const struct scan_node *node = node_of(s);
	if (!node->bit)
		return NULL;
	struct scan_value *v = &s->values[node->id];
	v->length = offset_of(s, p) - v->offset;
	s->found |= node->bit;
	s->open &= ~node->bit;
	if (unlikely(node->tells_place))
		s->table->tell(s, node->id, p);
	return v;
}

static inline bool is_in_object(const struct scan *s) {
	return s->is_object[(s->depth - 1u) / 64] & 1;
}

static const char *container_begin(struct scan *s, const char *p, const char *end, bool is_object) {
	if (s->depth == SCAN_DEPTH_MAX)
		return refuse(s, p, end, SCAN_E_DEPTH);
	value_begin(s, is_object ? SCAN_OBJECT : SCAN_ARRAY, p);
	uint64_t *levels = &s->is_object[s->depth / 64];
	*levels = *levels << 1 | is_object;
	s->depth++;
	if (s->depth < n_elems(s->path))
		s->path[s->depth] = s->node;
	s->within = s->node;
	s->node = node_of(s)->item; /* of an object: each key says its own */
	s->state = is_object ? AT_FIRST_KEY : AT_FIRST_ITEM;
	s->after = is_object ? AFTER_MEMBER : AFTER_ITEM;
	return p + 1;
}

static const char *container_end(struct scan *s, const char *p) {
	assert(s->depth > 0);
	s->depth--;
	s->is_object[s->depth / 64] >>= 1;
	s->node = s->within;
	s->within = s->depth < n_elems(s->path) ? s->path[s->depth] : NODE_NONE;
	s->after = s->depth == 0 ? AT_END : is_in_object(s) ? AFTER_MEMBER : AFTER_ITEM;
	value_end(s, p + 1);
	return p + 1;
}

/* ---- strings --------------------------------------------------------------------- */

static inline const char *key_end(struct scan *s, struct slice key, const char *quote, const char *end) {
	s->state = AT_COLON;
	s->node = s->within ? node_find(s->table, s->within, key) : NODE_NONE;
	if (s->node && node_of(s)->unique) {
		uint64_t bit = node_of(s)->bit;
		if (s->seen & bit)
			return refuse(s, quote, end, SCAN_E_DUPLICATE);
		s->seen |= bit;
	}
	return quote + 1;
}

/* A wanted string is whole: at its place in the room when it came in parts, else still in the piece. */
static void text_end(struct scan *s, struct scan_value *v, struct slice text) {
	char *room = s->text + node_of(s)->text_at;
	if (text.n > node_of(s)->text_bytes_max) {
		v->flaw = SCAN_TOO_LONG;
	} else if (!scan_is_clean(text)) {
		v->flaw = SCAN_BAD_TEXT;
	} else {
		if (text.p != room)
			memcpy(room, text.p, text.n);
		v->text = (struct slice){ room, text.n };
	}
}

/* The closing quote is at `quote`, behind the plain bytes from `run` on. */
static const char *string_end(struct scan *s, const char *run, const char *quote, const char *end) {
	struct slice token = token_end(s, run, (size_t)(quote - run));
	if (s->state == IN_KEY)
		return key_end(s, token, quote, end);
	struct scan_value *v = value_end(s, quote + 1);
	if (v && node_of(s)->text_bytes_max) {
		text_end(s, v, token);
		if (node_of(s)->tells_text)
			s->table->tell(s, node_of(s)->id, quote + 1);
	}
	return quote + 1;
}

enum { ESCAPE_NONE, ESCAPE_LAST_DIGIT, ESCAPE_FIRST_DIGIT = 4, ESCAPE_LETTER };

static const char *escape_more(struct scan *s, const char *p, const char *end) {
	if (s->escape == ESCAPE_LETTER) {
		uint8_t meaning = scan_escape[(uint8_t)*p];
		if (!meaning)
			return refuse(s, p, end, SCAN_E_SYNTAX);
		s->escape = meaning == 'u' ? ESCAPE_FIRST_DIGIT : ESCAPE_NONE;
		s->unit = 0;
		if (!s->escape)
			token_keep_unit(s, meaning);
		p++;
	}
	for (; s->escape && p < end; p++) {
		uint8_t digit = scan_hex[(uint8_t)*p];
		if (!digit)
			return refuse(s, p, end, SCAN_E_SYNTAX);
		s->unit = (uint16_t)(s->unit << 4 | (digit & 15));
		if (--s->escape == ESCAPE_NONE)
			token_keep_unit(s, s->unit);
	}
	return p;
}

/* Nearly all strings end within 16 bytes or are very long. */
static inline const char *string_pass(const struct scan *s, const char *p, const char *end) {
	if (end - p >= 16) {
		uint32_t mask = scan_mask16(p);
		p += mask ? __builtin_ctz(mask) : 16;
		if (mask && *p != '\\')
			return p;
	}
	return s->table->skip(p, end);
}

static const char *string_more(struct scan *s, const char *p, const char *end) {
	while (p < end) {
		if (s->escape) {
			p = escape_more(s, p, end);
			continue;
		}
		const char *run = p;
		p = s->token ? scan_span(p, end) : string_pass(s, p, end);
		if (p < end && *p == '"')
			return string_end(s, run, p, end);
		token_keep(s, run, (size_t)(p - run));
		if (p == end)
			break;
		if (*p != '\\')
			return refuse(s, p, end, SCAN_E_SYNTAX);
		s->escape = ESCAPE_LETTER;
		p++;
	}
	return p;
}

/* Reads a key from its opening quote on: at once if it is here whole and plain. */
static inline const char *key_begin(struct scan *s, const char *p, const char *end) {
	const char *name = p + 1, *quote = scan_span(name, end);
	if (likely(quote < end && *quote == '"')) {
		p = key_end(s, (struct slice){ name, (size_t)(quote - name) }, quote, end);
		if (p == end || *p != ':')
			return p;
		s->state = AT_VALUE;
		return p + 1;
	}
	s->state = IN_KEY;
	token_begin(s, s->within ? s->scratch : NULL, sizeof(s->scratch));
	return string_more(s, name, end);
}

static const char *text_begin(struct scan *s, const char *p, const char *end) {
	const char *run = p + 1, *quote = scan_span(run, end);
	s->state = IN_STRING;
	token_begin(s, s->text + node_of(s)->text_at, node_of(s)->text_bytes_max);
	if (quote < end && *quote == '"')
		return string_end(s, run, quote, end);
	return string_more(s, run, end);
}

static inline const char *string_begin(struct scan *s, const char *p, const char *end) {
	if (value_begin(s, SCAN_STRING, p) && node_of(s)->text_bytes_max)
		return text_begin(s, p, end);
	p = string_pass(s, p + 1, end);
	if (likely(p < end && *p == '"')) {
		value_end(s, p + 1);
		return p + 1;
	}
	s->state = IN_STRING;
	s->token = NULL;
	return string_more(s, p, end);
}

/* ---- numbers and literals -------------------------------------------------------- */

/* Of one that is not all digits, such as 1e3 or 5.0, or is too large. */
static cold enum scan_flaw read_real(struct slice digits, uint64_t *number_out) {
	char text[SCAN_NAME_MAX + 1];
	assert(digits.n < sizeof(text));
	memcpy(text, digits.p, digits.n);
	text[digits.n] = '\0';
	double value = strtod(text, NULL); /* lint: allow, the grammar is checked */
	if (value != trunc(value))
		return SCAN_NOT_COUNTED;
	bool is_large = value >= 0x1p64;
	*number_out = is_large ? UINT64_MAX : (uint64_t)value;
	return is_large ? SCAN_TOO_LARGE : SCAN_SOUND;
}

static void number_begin(struct scan *s, const char *p) {
	struct scan_value *v = value_begin(s, SCAN_NUMBER, p);
	if (v && *p == '-')
		v->flaw = SCAN_NOT_COUNTED;
	s->state = IN_NUMBER;
	s->number = AT_NUMBER;
	token_begin(s, v ? s->scratch : NULL, sizeof(s->scratch));
}

static void number_read(struct scan *s, struct scan_value *v, struct slice digits) {
	if (digits.n > sizeof(s->scratch)) {
		v->flaw = s->number == IN_INTEGER ? SCAN_TOO_LARGE : SCAN_NOT_COUNTED;
		v->number = s->number == IN_INTEGER ? UINT64_MAX : 0;
	} else if (!text_uint(digits, UINT64_MAX, &v->number)) {
		v->flaw = read_real(digits, &v->number);
	}
}

/* It is told of once it is known. */
static void number_end(struct scan *s, const char *run, const char *p) {
	const struct scan_node *node = s->node == NODE_NONE ? NULL : node_of(s);
	struct scan_value *v = node && node->bit ? &s->values[node->id] : NULL;
	if (v && !v->flaw)
		number_read(s, v, token_end(s, run, (size_t)(p - run)));
	value_end(s, p);
}

static const char *number_more(struct scan *s, const char *p, const char *end) {
	const char *run = p;
	uint8_t state = s->number;
	while (p < end) {
		uint8_t next = scan_number_grammar[state][scan_class[(uint8_t)*p]];
		if (next == NUMBER_END)
			break;
		state = next;
		p++;
	}
	s->number = state;
	if (p == end)
		token_keep(s, run, (size_t)(p - run));
	else if (scan_number_may_end(state))
		number_end(s, run, p);
	else
		return refuse(s, p, end, SCAN_E_SYNTAX);
	return p;
}

static const char *literal_more(struct scan *s, const char *p, const char *end) {
	const char *rest = s->literal;
	while (p < end && *rest && *p == *rest)
		p++, rest++;
	s->literal = rest;
	if (!*rest)
		value_end(s, p);
	else if (p < end)
		return refuse(s, p, end, SCAN_E_SYNTAX);
	return p;
}

/* The first letter tells which literal it must be. Four more decide at once, if they are here. */
static const char *literal_begin(struct scan *s, const char *p, const char *end) {
	struct scan_value *v = value_begin(s, *p == 'n' ? SCAN_NULL : SCAN_BOOL, p);
	if (v)
		v->truth = *p == 't';
	s->state = IN_LITERAL;
	s->literal = *p == 't' ? "true" : *p == 'f' ? "alse" : "null";
	if (*p == 'f')
		p++;
	if (end - p < 4 || memcmp(p, s->literal, 4) != 0)
		return literal_more(s, p, end);
	value_end(s, p + 4);
	return p + 4;
}

/* ---- the text -------------------------------------------------------------------- */

static hot const char *text_more(struct scan *s, const char *p, const char *end) {
	while (p < end) {
		switch ((enum action)scan_grammar[s->state][scan_class[(uint8_t)*p]]) {
		case PASS:
			do
				p++;
			while (p < end && *p == ' ');
			break;
		case GO_VALUE:
			s->state = AT_VALUE;
			p++;
			break;
		case GO_KEY:
			s->state = AT_KEY;
			p++;
			if (p == end || *p != '"')
				break;
			fallthrough;
		case BEGIN_KEY:
			p = key_begin(s, p, end);
			break;
		case BEGIN_STRING:
			p = string_begin(s, p, end);
			break;
		case MORE_STRING:
			p = string_more(s, p, end);
			break;
		case BEGIN_NUMBER:
			number_begin(s, p);
			fallthrough;
		case MORE_NUMBER:
			p = number_more(s, p, end);
			break;
		case BEGIN_LITERAL:
			p = literal_begin(s, p, end);
			break;
		case MORE_LITERAL:
			p = literal_more(s, p, end);
			break;
		case BEGIN_OBJECT:
			p = container_begin(s, p, end, true);
			break;
		case BEGIN_ARRAY:
			p = container_begin(s, p, end, false);
			break;
		case END_CONTAINER:
			p = container_end(s, p);
			break;
		case REFUSE:
			p = refuse(s, p, end, SCAN_E_SYNTAX);
			break;
		default:
			__builtin_unreachable(); /* nothing else is in the table; saves a compare a token */
		}
	}
	return p;
}

void scan_init(
    struct scan *s, const struct scan_table *t, struct scan_value *values, char *text, size_t text_size) {
	assert(text_size >= t->text_bytes);
	/* What lies behind is written before it is read. */
	memset(s, 0, offsetof(struct scan, scratch));
	s->table = t;
	s->values = values;
	s->text = text;
	s->state = AT_VALUE;
	s->after = AT_END;
	s->node = NODE_TOP;
}

enum scan_verdict scan_feed(struct scan *s, const char *p, size_t n) {
	if (s->verdict >= SCAN_E_SYNTAX || n == 0)
		return s->verdict;
	s->piece = p;
	text_more(s, p, p + n);
	if (s->verdict < SCAN_E_SYNTAX) {
		s->offset += n;
		s->verdict = s->state == AT_END ? SCAN_COMPLETE : SCAN_MORE;
	}
	s->piece = NULL;
	return s->verdict;
}

enum scan_verdict scan_finish(struct scan *s) {
	if (s->verdict >= SCAN_E_SYNTAX)
		return s->verdict;
	/* Only a number at the top has no last byte of its own. */
	if (s->state == IN_NUMBER && s->depth == 0 && scan_number_may_end(s->number))
		s->state = AT_END;
	s->verdict = s->state == AT_END ? SCAN_COMPLETE : SCAN_E_SYNTAX;
	return s->verdict;
}

bool scan_is_blank(const struct scan *s) {
	return s->state == AT_VALUE && s->depth == 0;
}
