/*
 * head_oracle: what must hold of every head that was accepted, whatever the bytes were.
 *
 * All views lie inside the head, fields are made of the bytes that fields are made of,
 * and a head that is built anew from the parsed form is the same head. Broken rules
 * are assertions.
 */
#pragma once

#include "http/head.h"

#define HEAD_AGAIN_MAX (HEAD_BYTES_MAX + 4 * HEAD_FIELDS_MAX + 64)

struct head_text {
	size_t n;
	char p[HEAD_AGAIN_MAX];
};

static inline void head_text_add(struct head_text *t, struct slice s) {
	assert(t->n + s.n <= sizeof(t->p));
	memcpy(t->p + t->n, s.p, s.n);
	t->n += s.n;
}

static inline void oracle_inside(const struct head *h, struct slice s) {
	assert(s.p >= h->base && s.p + s.n <= h->base + h->bytes);
}

static inline void oracle_fields(const struct head *h, struct slice in) {
	assert(h->base == in.p && h->bytes <= in.n && h->n_fields <= HEAD_FIELDS_MAX);
	assert(h->bytes >= 2 && memcmp(h->base + h->bytes - 2, "\r\n", 2) == 0);
	for (unsigned i = 0; i < h->n_fields; i++) {
		struct slice name = head_name(h, &h->fields[i]), value = head_value(h, &h->fields[i]);
		oracle_inside(h, name);
		oracle_inside(h, value);
		assert(name.n && value.n == slice_trim(value).n && h->fields[i].id == field_find(name));
		for (size_t k = 0; k < name.n; k++)
			assert(
			    name.p[k] > ' ' && name.p[k] < 127 && !strchr("\"(),/:;<=>?@[\\]{}", name.p[k]));
		for (size_t k = 0; k < value.n; k++)
			assert(
			    value.p[k] == '\t' || ((unsigned char)value.p[k] >= 0x20 && value.p[k] != 0x7f));
	}
}

static inline void head_text_add_fields(struct head_text *t, const struct head *h) {
	for (unsigned i = 0; i < h->n_fields; i++) {
		head_text_add(t, head_name(h, &h->fields[i]));
		head_text_add(t, SLICE(": "));
		head_text_add(t, head_value(h, &h->fields[i]));
		head_text_add(t, SLICE("\r\n"));
	}
	head_text_add(t, SLICE("\r\n"));
}

static inline void oracle_same(const struct head *a, const struct head *b) {
	assert(
	    a->n_fields == b->n_fields && a->content_length == b->content_length && a->status == b->status);
	assert(a->method == b->method && a->framing == b->framing && a->minor == b->minor);
	assert(a->keep_alive == b->keep_alive && a->has_length == b->has_length);
	assert(a->expects_continue == b->expects_continue);
	for (unsigned i = 0; i < a->n_fields; i++) {
		assert(slice_eq(head_name(a, &a->fields[i]), head_name(b, &b->fields[i])));
		assert(slice_eq(head_value(a, &a->fields[i]), head_value(b, &b->fields[i])));
		assert(a->fields[i].is_named == b->fields[i].is_named);
	}
}

static inline void oracle_request(struct slice in) {
	static struct head_room room, again, part;
	static struct head_text text;
	enum cause cause = CAUSE_NONE, other;
	const struct head *h = &room.head;

	int r = head_parse_request(&room, in, &cause);
	assert((r == HEAD_E_REFUSED) == (cause != CAUSE_NONE));
	int half = head_parse_request(&part, slice_head(in, in.n / 2), &other);
	assert(half == HEAD_E_MORE || half == r); /* a verdict is final */
	if (r)
		return;
	oracle_fields(h, in);
	oracle_inside(h, head_method(h));
	assert(head_target(h).n && slice_has_prefix(head_target(h), head_path(h)));
	text.n = 0;
	head_text_add(&text, head_method(h));
	head_text_add(&text, SLICE(" "));
	head_text_add(&text, head_target(h));
	head_text_add(&text, h->minor ? SLICE(" HTTP/1.1\r\n") : SLICE(" HTTP/1.0\r\n"));
	head_text_add_fields(&text, h);
	if (text.n > HEAD_BYTES_MAX)
		return;
	r = head_parse_request(&again, (struct slice){ text.p, text.n }, &cause);
	assert(r == 0 && again.head.bytes == text.n);
	oracle_same(h, &again.head);
	assert(slice_eq(head_method(h), head_method(&again.head)));
	assert(slice_eq(head_target(h), head_target(&again.head)));
}

static inline void oracle_response(struct slice in, enum method method) {
	static struct head_room room, again, part;
	static struct head_text text;
	const struct head *h = &room.head;

	int r = head_parse_response(&room, in, method);
	int half = head_parse_response(&part, slice_head(in, in.n / 2), method);
	assert(half == HEAD_E_MORE || half == r);
	if (r)
		return;
	oracle_fields(h, in);
	assert(h->status >= 100 && h->status <= 599 && h->status != 101);
	text.n = 0;
	head_text_add(&text, h->minor ? SLICE("HTTP/1.1 ") : SLICE("HTTP/1.0 "));
	char digits[3] = { (char)('0' + h->status / 100), (char)('0' + h->status / 10 % 10),
		(char)('0' + h->status % 10) };
	head_text_add(&text, (struct slice){ digits, 3 });
	head_text_add(&text, SLICE("\r\n"));
	head_text_add_fields(&text, h);
	if (text.n > HEAD_BYTES_MAX)
		return;
	r = head_parse_response(&again, (struct slice){ text.p, text.n }, method);
	assert(r == 0 && again.head.bytes == text.n);
	oracle_same(h, &again.head);
}
