#include "engine/capture.h"

#include "engine/base64.h"

struct capture_record {
	size_t n_method, n_target, n_fields, n_body; /* one after the other in text */
	size_t n_body_sent;
	char text[];
};

static size_t size_of(const struct capture_record *r) {
	return sizeof(*r) + r->n_method + r->n_target + r->n_fields + r->n_body;
}

static uint64_t oldest(const struct capture *c) {
	return c->n_taken - c->n_kept;
}

static void drop_oldest(struct capture *c) {
	struct capture_record **r = &c->records[oldest(c) % CAPTURE_REQUESTS_MAX];
	assert(c->n_kept > 0);
	c->n_bytes -= size_of(*r);
	c->n_kept--;
	free(*r);
	*r = NULL;
}

void capture_clear(struct capture *c) {
	while (c->n_kept > 0)
		drop_oldest(c);
}

static char *append(char *at, struct slice s) {
	if (s.n)
		memcpy(at, s.p, s.n);
	return at + s.n;
}

void capture_add(struct capture *c, const struct capture_request *request) {
	struct slice body = slice_head(request->body, CAPTURE_BODY_BYTES);
	struct capture_record lengths = {
		.n_method = request->method.n,
		.n_target = request->target.n,
		.n_fields = request->fields.n,
		.n_body = body.n,
		.n_body_sent = request->body.n,
	};
	size_t n_bytes = size_of(&lengths);

	assert(n_bytes <= CAPTURE_BYTES_MAX); /* the server bounds a head far below */
	while (c->n_kept == CAPTURE_REQUESTS_MAX || c->n_bytes + n_bytes > CAPTURE_BYTES_MAX)
		drop_oldest(c);
	struct capture_record *r = malloc(n_bytes);
	*r = lengths;
	append(append(append(append(r->text, request->method), request->target), request->fields), body);
	c->records[c->n_taken++ % CAPTURE_REQUESTS_MAX] = r;
	c->n_kept++;
	c->n_bytes += n_bytes;
}

/* As text, or NULL when it is not UTF-8. */
static json_t *text_json(struct slice s) {
	return json_stringn(s.n ? s.p : "", s.n);
}

/* Field values may be Latin-1: what is not UTF-8 is shown as '?'. */
static json_t *field_json(struct slice s) {
	json_t *text = text_json(s);
	if (text)
		return text;
	struct bytes ascii = { .n_max = s.n };
	for (size_t i = 0; i < s.n; i++)
		bytes_add(&ascii, (unsigned char)s.p[i] < 0x80 ? (struct slice){ s.p + i, 1 } : SLICE("?"));
	text = text_json(bytes_slice(&ascii));
	bytes_deinit(&ascii);
	return text;
}

static json_t *fields_json(struct slice fields) {
	json_t *list = json_array();
	while (fields.n > 0) {
		const char *end = memchr(fields.p, '\n', fields.n);
		struct slice line = slice_head(fields, end ? (size_t)(end - fields.p) : fields.n);
		const char *colon = line.n ? memchr(line.p, ':', line.n) : NULL;
		size_t n_name = colon ? (size_t)(colon - line.p) : line.n;
		struct slice value = slice_trim(slice_skip(line, size_min(n_name + 1, line.n)));
		json_array_append_new(
		    list, json_pack("[o, o]", field_json(slice_head(line, n_name)), field_json(value)));
		fields = slice_skip(fields, size_min(line.n + 1, fields.n));
	}
	return list;
}

static json_t *record_json(const struct capture_record *r, uint64_t number) {
	struct slice rest = { r->text, size_of(r) - sizeof(*r) };
	struct slice method = slice_head(rest, r->n_method);
	struct slice target = slice_head(rest = slice_skip(rest, r->n_method), r->n_target);
	struct slice fields = slice_head(rest = slice_skip(rest, r->n_target), r->n_fields);
	struct slice body = slice_skip(rest, r->n_fields);
	json_t *json = json_pack("{s:I, s:o, s:o, s:o, s:I}", "number", (json_int_t)number, "method",
	    field_json(method), "path", field_json(target), "headers", fields_json(fields), "body_bytes",
	    (json_int_t)r->n_body_sent);

	json_t *text = text_json(body);
	if (text) {
		json_object_set_new(json, "body", text);
		return json;
	}
	struct bytes base64 = { .n_max = 2 * (size_t)CAPTURE_BODY_BYTES };
	base64_add(&base64, body);
	json_object_set_new(json, "body_base64", text_json(bytes_slice(&base64)));
	bytes_deinit(&base64);
	return json;
}

json_t *capture_json(const struct capture *c) {
	json_t *list = json_array();
	for (uint64_t i = oldest(c); i < c->n_taken; i++)
		json_array_append_new(list, record_json(c->records[i % CAPTURE_REQUESTS_MAX], i));
	return json_pack("{s:o}", "requests", list);
}
