/*
 * The head parser: a cursor over contiguous bytes, one function a line of the grammar.
 *
 * It starts again from the first byte when a head was not complete; the session calls
 * it only when another line has ended, so a dripping peer buys at most one pass per
 * line. Offsets are 16 bits wide: no head is longer than 64 KiB.
 */
#include "http/head.h"

#include "base/span.h"

enum { TOKEN = 1, TARGET = 2, HOST = 4, DIGIT = 8 };

static uint8_t classes[256];

__attribute__((constructor)) static void head_init(void) {
	for (unsigned c = 0; c < 256; c++) {
		bool digit = c >= '0' && c <= '9';
		bool alpha = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
		unsigned k = digit ? DIGIT : 0;
		if (digit || alpha || (c && c < 128 && strchr("!#$%&'*+-.^_`|~", (int)c)))
			k |= TOKEN;
		if (c > 0x20 && c != 0x7f && c != '#')
			k |= TARGET;
		if (digit || alpha || (c && c < 128 && strchr("-._~%!$&'()*+;=", (int)c)))
			k |= HOST;
		classes[c] = (uint8_t)k;
	}
}

static inline bool is_class(char c, unsigned class) {
	return classes[(unsigned char)c] & class;
}

struct cursor {
	const char *base, *p, *end;
	enum cause cause; /* of a refusal */
	bool is_method_known;
};

static uint16_t at(const struct cursor *c, const char *p) {
	return (uint16_t)(p - c->base);
}

static int refuse(struct cursor *c, enum cause cause) {
	c->cause = cause;
	return HEAD_E_REFUSED;
}

/* Over all bytes of the class; HEAD_E_MORE at the end of the input. */
static int skip_class(struct cursor *c, unsigned class) {
	while (c->p < c->end && is_class(*c->p, class))
		c->p++;
	return c->p < c->end ? 0 : HEAD_E_MORE;
}

/* Over a field's value or a reason phrase; HEAD_E_MORE at the end of the input. */
static int skip_value(struct cursor *c) {
	c->p = span_value(c->p, c->end);
	return c->p < c->end ? 0 : HEAD_E_MORE;
}

static int expect(struct cursor *c, struct slice text, enum cause cause) {
	size_t n = size_min(text.n, (size_t)(c->end - c->p));
	if (memcmp(c->p, text.p, n) != 0)
		return refuse(c, cause);
	c->p += n;
	return n == text.n ? 0 : HEAD_E_MORE;
}

static int expect_crlf(struct cursor *c) {
	if (c->end - c->p < 2)
		return expect(c, SLICE("\r\n"), CAUSE_MALFORMED);
	if (c->p[0] != '\r' || c->p[1] != '\n')
		return refuse(c, CAUSE_MALFORMED);
	c->p += 2;
	return 0;
}

/* name ":" OWS value OWS CRLF, or the empty line: then *is_last. */
static int parse_field(struct cursor *c, struct field *f, bool *is_last) {
	if (c->p < c->end && *c->p == '\r') {
		*is_last = true;
		return expect_crlf(c);
	}
	const char *name = c->p;
	int r = skip_class(c, TOKEN);
	if (r)
		return r;
	if (c->p == name || *c->p != ':')
		return refuse(c, CAUSE_MALFORMED);
	f->name_at = at(c, name);
	f->name_n = (uint16_t)(c->p - name);
	c->p++;

	while (c->p < c->end && (*c->p == ' ' || *c->p == '\t'))
		c->p++;
	const char *value = c->p;
	r = skip_value(c);
	if (r)
		return r;
	const char *end = c->p;
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	f->value_at = at(c, value);
	f->value_n = (uint16_t)(end - value);
	f->is_named = false;
	return expect_crlf(c);
}

static int parse_fields(struct cursor *c, struct head_room *room) {
	struct head *h = &room->head;
	struct field spare;
	for (bool is_last = false;;) {
		struct field *f = h->n_fields < HEAD_FIELDS_MAX ? &room->fields[h->n_fields] : &spare;
		int r = parse_field(c, f, &is_last);
		if (r)
			return r;
		if (is_last)
			break;
		if (f == &spare)
			return refuse(c, CAUSE_HEAD_TOO_LARGE);
		f->id = (uint8_t)field_find(head_name(h, f));
		h->n_fields++;
	}
	h->bytes = at(c, c->p);
	return 0;
}

static void head_start(struct cursor *c, struct head_room *room, struct slice in) {
	*c = (struct cursor){ .base = in.p, .p = in.p, .end = in.p + size_min(in.n, HEAD_BYTES_MAX) };
	room->head = (struct head){ .base = in.p, .fields = room->fields };
}

/* What a parse that ran out of input means: too much already, or wait. */
static int head_end(struct cursor *c, int r, struct slice in, enum cause too_large) {
	if (r == HEAD_E_MORE && in.n >= HEAD_BYTES_MAX)
		return refuse(c, too_large);
	return r;
}

/* --- what the fields mean ------------------------------------------------- */

/* 1 to 18 digits (RFC 9110 section 8.6). */
static bool parse_length(struct slice v, uint64_t *out) {
	uint64_t n = 0;
	if (v.n == 0 || v.n > 18)
		return false;
	for (size_t i = 0; i < v.n; i++) {
		if (!is_class(v.p[i], DIGIT))
			return false;
		n = n * 10 + (uint64_t)(v.p[i] - '0');
	}
	*out = n;
	return true;
}

/* uri-host [ ":" port ], the host not empty. */
static bool is_authority(struct slice v) {
	size_t i = 0;
	if (v.n && v.p[0] == '[') {
		for (i = 1; i < v.n && (is_class(v.p[i], DIGIT) || strchr("abcdefABCDEF:.", v.p[i])); i++)
			;
		if (i < 3 || i == v.n || v.p[i++] != ']')
			return false;
	} else {
		while (i < v.n && is_class(v.p[i], HOST))
			i++;
		if (i == 0)
			return false;
	}
	if (i == v.n)
		return true;
	if (v.p[i++] != ':' || v.n - i > 5)
		return false;
	unsigned port = 0;
	for (; i < v.n; i++) {
		if (!is_class(v.p[i], DIGIT))
			return false;
		port = port * 10 + (unsigned)(v.p[i] - '0');
	}
	return port <= 65535;
}

static bool name_eq(struct slice a, struct slice b) {
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (ascii_lower(a.p[i]) != ascii_lower(b.p[i]))
			return false;
	return true;
}

/* What all Connection fields of a head say together. */
struct connection_options {
	unsigned n;
	bool has_close, has_keep_alive;
};

/* Marks the fields that Connection names, and reads its two options. */
static void apply_connection(struct head *h, struct slice list, struct connection_options *said) {
	struct slice option;
	while (slice_next_member(&list, &option) && ++said->n <= HEAD_FIELDS_MAX) {
		said->has_close |= slice_is(option, SLICE("close"));
		said->has_keep_alive |= slice_is(option, SLICE("keep-alive"));
		for (unsigned i = 0; option.n && i < h->n_fields; i++) {
			struct field *f = &h->fields[i];
			f->is_named |=
			    !field_is_protected((enum field_id)f->id) && name_eq(head_name(h, f), option);
		}
	}
}

/* Length, transfer coding and connection: the same law for both directions (RFC 9112 section 6). */
static enum cause apply_framing(struct head *h) {
	unsigned n_lengths = 0, n_codings = 0;
	struct connection_options said = { .n = 0 };
	for (unsigned i = 0; i < h->n_fields; i++) {
		struct field *f = &h->fields[i];
		struct slice v = head_value(h, f);
		if (f->id == FIELD_CONTENT_LENGTH) {
			n_lengths++;
			if (!parse_length(v, &h->content_length))
				return CAUSE_MALFORMED;
		} else if (f->id == FIELD_TRANSFER_ENCODING) {
			n_codings++;
			if (!slice_is(v, SLICE("chunked")))
				return h->minor == 0 ? CAUSE_MALFORMED : CAUSE_TRANSFER_CODING;
		} else if (f->id == FIELD_CONNECTION) {
			apply_connection(h, v, &said);
		}
	}
	if (n_lengths > 1 || n_codings > 1 || (n_lengths && n_codings) || (n_codings && h->minor == 0))
		return CAUSE_MALFORMED;
	if (said.n > HEAD_FIELDS_MAX) /* each was compared with every field */
		return CAUSE_HEAD_TOO_LARGE;
	h->keep_alive = !said.has_close && (h->minor == 1 || said.has_keep_alive);
	h->has_length = n_lengths;
	if (n_codings)
		h->framing = FRAMING_CHUNKED;
	else if (h->has_length)
		h->framing = FRAMING_LENGTH;
	return CAUSE_NONE;
}

/* --- requests ------------------------------------------------------------- */

static const struct {
	struct slice name;
	enum method method;
} methods[] = {
	{ { "POST", 4 }, METHOD_POST },
	{ { "GET", 3 }, METHOD_GET },
	{ { "HEAD", 4 }, METHOD_HEAD },
	{ { "OPTIONS", 7 }, METHOD_OPTIONS },
	{ { "PUT", 3 }, METHOD_PUT },
	{ { "DELETE", 6 }, METHOD_DELETE },
	{ { "PATCH", 5 }, METHOD_OTHER },
};

/* The rest of the IANA registry and what web software commonly adds; CONNECT and TRACE are left out on
 * purpose. */
static const char *const more_methods[] = { "ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY",
	"LABEL", "LINK", "LOCK", "M-SEARCH", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF",
	"MKWORKSPACE", "MOVE", "NOTIFY", "ORDERPATCH", "PROPFIND", "PROPPATCH", "PURGE", "QUERY", "REBIND",
	"REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UNSUBSCRIBE",
	"UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL" };

static bool find_method(struct slice name, uint8_t *method_out) {
	*method_out = METHOD_OTHER;
	for (size_t i = 0; i < n_elems(methods); i++)
		if (slice_eq(name, methods[i].name)) {
			*method_out = (uint8_t)methods[i].method;
			return true;
		}
	for (size_t i = 0; i < n_elems(more_methods); i++)
		if (slice_eq(name, slice_of(more_methods[i])))
			return true;
	return false;
}

/* "HTTP/1." DIGIT: what is not HTTP at all is malformed, other versions are refused as such. */
static int parse_version(struct cursor *c, struct head *h) {
	int r = expect(c, SLICE("HTTP/"), CAUSE_MALFORMED);
	if (r)
		return r;
	if (c->end - c->p < 3)
		return HEAD_E_MORE;
	if (!is_class(c->p[0], DIGIT) || c->p[1] != '.' || !is_class(c->p[2], DIGIT))
		return refuse(c, CAUSE_MALFORMED);
	if (c->p[0] != '1' || c->p[2] > '1')
		return refuse(c, CAUSE_VERSION);
	h->minor = (uint8_t)(c->p[2] - '0');
	c->p += 3;
	return 0;
}

static int parse_request_line(struct cursor *c, struct head *h) {
	const char *method = c->p;
	int r = skip_class(c, TOKEN);
	if (r)
		return r;
	if (c->p == method || *c->p != ' ')
		return refuse(c, CAUSE_MALFORMED);
	h->method_at = at(c, method);
	h->method_n = (uint16_t)(c->p - method);
	c->is_method_known =
	    find_method(head_method(h), &h->method); /* a refusal of HEAD has no body either */
	const char *target = ++c->p;

	r = skip_class(c, TARGET);
	if ((size_t)(c->p - target) > HEAD_TARGET_MAX)
		return refuse(c, CAUSE_TARGET_TOO_LONG);
	if (r)
		return r;
	if (c->p == target || *c->p != ' ')
		return refuse(c, CAUSE_MALFORMED);
	h->target_at = at(c, target);
	h->target_n = (uint16_t)(c->p - target);
	c->p++;
	r = parse_version(c, h);
	return r ? r : expect_crlf(c);
}

/* origin-form stays; absolute-form becomes it; "*" is for OPTIONS (RFC 9112 section 3.2). */
static bool apply_target(struct head *h, struct slice host) {
	struct slice t = head_target(h);
	if (t.p[0] == '/')
		return true;
	if (t.n == 1 && t.p[0] == '*')
		return h->method == METHOD_OPTIONS;

	struct slice scheme = slice_head(t, 7);
	size_t skip = slice_is(scheme, SLICE("http://")) ? 7 : 0;
	if (!skip && slice_is(slice_head(t, 8), SLICE("https://")))
		skip = 8;
	if (!skip)
		return false;
	struct slice rest = slice_skip(t, skip);
	size_t n = 0;
	while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
		n++;
	if (!name_eq(slice_head(rest, n), host) || (n < rest.n && rest.p[n] != '/'))
		return false;
	h->target_at = (uint16_t)(h->target_at + skip + n);
	h->target_n = (uint16_t)(h->target_n - skip - n);
	return true;
}

static enum cause apply_request(const struct cursor *c, struct head *h) {
	enum cause cause = apply_framing(h);
	if (cause)
		return cause;
	struct slice host = { NULL, 0 };
	unsigned n_hosts = 0;
	for (unsigned i = 0; i < h->n_fields; i++) {
		struct slice v = head_value(h, &h->fields[i]);
		if (h->fields[i].id == FIELD_HOST) {
			host = v;
			n_hosts++;
		} else if (h->fields[i].id == FIELD_EXPECT && h->minor == 1) {
			if (!slice_is(v, SLICE("100-continue")))
				return CAUSE_EXPECTATION;
			h->expects_continue = true;
		}
	}
	if (n_hosts > 1 || (n_hosts == 0 && h->minor == 1) || (n_hosts && !is_authority(host)))
		return CAUSE_MALFORMED;
	if (!c->is_method_known)
		return CAUSE_METHOD;
	if (!apply_target(h, host))
		return CAUSE_MALFORMED;
	return CAUSE_NONE;
}

int head_parse_request(struct head_room *room, struct slice in, enum cause *cause_out) {
	struct cursor c;
	head_start(&c, room, in);
	int r = parse_request_line(&c, &room->head);
	if (r) {
		r = head_end(&c, r, in, CAUSE_TARGET_TOO_LONG);
	} else {
		r = head_end(&c, parse_fields(&c, room), in, CAUSE_HEAD_TOO_LARGE);
		if (r == 0 && (c.cause = apply_request(&c, &room->head)) != CAUSE_NONE)
			r = HEAD_E_REFUSED;
	}
	*cause_out = c.cause;
	return r;
}

/* --- responses ------------------------------------------------------------ */

/* HTTP-version SP 3DIGIT [ SP reason ] CRLF: even the space may be missing (RFC 9112 section 4). */
static int parse_status_line(struct cursor *c, struct head *h) {
	int r = parse_version(c, h);
	if (r)
		return r;
	r = expect(c, SLICE(" "), CAUSE_MALFORMED);
	if (r)
		return r;
	if (c->end - c->p < 4)
		return HEAD_E_MORE;
	for (unsigned i = 0; i < 3; i++) {
		if (!is_class(c->p[i], DIGIT))
			return refuse(c, CAUSE_MALFORMED);
		h->status = (uint16_t)(h->status * 10 + (c->p[i] - '0'));
	}
	c->p += 3;
	if (h->status < 100 || h->status > 599)
		return refuse(c, CAUSE_MALFORMED);
	if (*c->p == ' ') {
		r = skip_value(c);
		if (r)
			return r;
	}
	return expect_crlf(c);
}

static bool apply_response(struct head *h, enum method method) {
	if (apply_framing(h) != CAUSE_NONE || h->status == 101)
		return false;
	if (h->status < 200 || h->status == 204 || h->status == 304 || method == METHOD_HEAD)
		h->framing = FRAMING_NONE;
	else if (h->framing == FRAMING_NONE)
		h->framing = FRAMING_CLOSE;
	return true;
}

int head_parse_response(struct head_room *room, struct slice in, enum method method) {
	struct cursor c;
	head_start(&c, room, in);
	int r = parse_status_line(&c, &room->head);
	if (r == 0)
		r = parse_fields(&c, room);
	r = head_end(&c, r, in, CAUSE_UPSTREAM_MALFORMED);
	if (r == 0 && !apply_response(&room->head, method))
		r = HEAD_E_REFUSED;
	return r;
}

int head_parse_trailer(struct head_room *room, struct slice in) {
	struct cursor c;
	head_start(&c, room, in);
	return head_end(&c, parse_fields(&c, room), in, CAUSE_HEAD_TOO_LARGE);
}

/* --- views ---------------------------------------------------------------- */

struct buf *head_copy(struct buf_pool *pool, const struct head *head) {
	size_t fields_bytes = head->n_fields * sizeof(struct field);
	size_t n = sizeof(struct head) + fields_bytes + head->bytes;
	struct buf *b = buf_new_forced(pool, n);
	struct head *copy = (struct head *)b->data;
	char *text = b->data + sizeof(*copy) + fields_bytes;
	*copy = *head;
	copy->fields = (struct field *)(copy + 1);
	copy->base = text;
	memcpy(copy->fields, head->fields, fields_bytes);
	memcpy(text, head->base, head->bytes);
	b->used = (uint32_t)n;
	return b;
}

struct slice head_path(const struct head *h) {
	struct slice t = head_target(h);
	const char *query = memchr(t.p, '?', t.n);
	return query ? slice_head(t, (size_t)(query - t.p)) : t;
}

struct slice head_find(const struct head *h, enum field_id id) {
	for (unsigned i = 0; i < h->n_fields; i++)
		if (h->fields[i].id == id)
			return head_value(h, &h->fields[i]);
	return (struct slice){ NULL, 0 };
}

struct slice head_find_name(const struct head *h, struct slice lower) {
	for (unsigned i = 0; i < h->n_fields; i++)
		if (slice_is(head_name(h, &h->fields[i]), lower))
			return head_value(h, &h->fields[i]);
	return (struct slice){ NULL, 0 };
}

bool head_names_in_connection(const struct head *h, struct slice name) {
	for (unsigned i = 0; i < h->n_fields; i++) {
		struct slice list = head_value(h, &h->fields[i]), option;
		while (h->fields[i].id == FIELD_CONNECTION && slice_next_member(&list, &option))
			if (name_eq(option, name))
				return true;
	}
	return false;
}

bool head_is_worth_parsing(struct slice in, uint16_t *seen) {
	bool is_first = *seen == 0;
	struct slice fresh = slice_skip(in, *seen);
	*seen = (uint16_t)size_min(in.n, HEAD_BYTES_MAX);
	return is_first || in.n >= HEAD_BYTES_MAX || memchr(fresh.p, '\n', fresh.n);
}
