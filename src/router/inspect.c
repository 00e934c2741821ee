#include "router/inspect.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define MODEL_BYTES_MAX   256
#define SESSION_BYTES_MAX 256

enum want { WANT_MODEL, WANT_STREAM, WANT_SESSION };

static const struct scan_want wants[] = {
	[WANT_MODEL] = { .path = "model", .text_bytes_max = MODEL_BYTES_MAX, .unique = true },
	[WANT_STREAM] = { .path = "stream" },
	[WANT_SESSION] = { .path = "prompt_cache_key", .text_bytes_max = SESSION_BYTES_MAX },
};

static struct scan_table table;

__attribute__((constructor)) static void inspect_table_init(void) {
	scan_table_init(&table, wants, n_elems(wants), NULL);
}

struct reading {
	struct scan scan;
	struct scan_value values[n_elems(wants)];
	char text[];
};

static struct reading *reading_of(const struct inspect *in) {
	return (struct reading *)in->buf->data;
}

/* application/json or anything that ends in +json (RFC 6839), parameters aside. */
static bool is_json_type(struct slice type) {
	const char *semicolon = memchr(type.p, ';', type.n);
	if (semicolon)
		type = slice_trim(slice_head(type, (size_t)(semicolon - type.p)));
	if (slice_is(type, SLICE("application/json")) || slice_is(type, SLICE("text/json")))
		return true;
	return type.n > 5 && slice_is(slice_skip(type, type.n - 5), SLICE("+json"));
}

/*
 * Where an engine is asked to make something, a request without a body is a mistake that
 * is told at once. Elsewhere it is usual: SDKs send a JSON type with every POST.
 */
static bool needs_body(struct slice path) {
	static const struct slice ends[] = { { "/completions", 12 }, { "/embeddings", 11 },
		{ "/messages", 9 }, { "/responses", 10 }, { "/count_tokens", 13 } };
	for (size_t i = 0; i < n_elems(ends); i++)
		if (path.n >= ends[i].n && slice_eq(slice_skip(path, path.n - ends[i].n), ends[i]))
			return true;
	return false;
}

enum cause inspect_init(struct inspect *in, struct buf_pool *pool, const struct head *head) {
	*in = (struct inspect){ .cause = CAUSE_NONE };
	struct slice type = head_find(head, FIELD_CONTENT_TYPE);
	if (head->method != METHOD_POST || (type.p && !is_json_type(type)))
		return CAUSE_NONE;
	in->is_guess = !type.p;
	in->may_be_empty = !needs_body(head_path(head));
	struct slice coding = head_find(head, FIELD_CONTENT_ENCODING);
	if (!in->is_guess && coding.n && !slice_is(coding, SLICE("identity")))
		return CAUSE_ENCODING;
	in->buf = buf_new(pool, sizeof(struct reading) + table.text_bytes);
	if (!in->buf)
		return CAUSE_OVERLOADED;
	struct reading *r = reading_of(in);
	scan_init(&r->scan, &table, r->values, r->text, table.text_bytes);
	return CAUSE_NONE;
}

void inspect_deinit(struct inspect *in, struct buf_pool *pool) {
	buf_unref(pool, &in->buf);
}

static enum cause cause_of(enum scan_verdict verdict) {
	switch (verdict) {
	case SCAN_MORE:
	case SCAN_COMPLETE:
		return CAUSE_NONE;
	case SCAN_E_DUPLICATE:
		return CAUSE_DUPLICATE_MODEL;
	case SCAN_E_SYNTAX:
	case SCAN_E_DEPTH:
		break;
	}
	return CAUSE_INVALID_JSON;
}

static enum cause inspect_judge(struct inspect *in, enum scan_verdict verdict) {
	const struct reading *r = reading_of(in);
	in->cause = cause_of(verdict);
	if (in->cause)
		return in->cause;
	const struct scan_value *model = scan_found(&r->scan, WANT_MODEL);
	if (model && model->type != SCAN_NULL && (model->type != SCAN_STRING || model->flaw != SCAN_SOUND))
		in->cause = CAUSE_MODEL_NAME;
	const struct scan_value *stream = scan_found(&r->scan, WANT_STREAM);
	in->is_streamed = stream && stream->type == SCAN_BOOL && stream->truth;
	return in->cause;
}

enum cause inspect_feed(struct inspect *in, struct buf_pool *pool, const char *p, size_t n) {
	for (size_t i = 0; in->is_guess && i < n; i++) {
		if (memchr(" \t\r\n", p[i], 4))
			continue;
		in->is_guess = false;
		if (p[i] != '{')
			inspect_deinit(in, pool);
	}
	if (!in->buf)
		return CAUSE_NONE;
	if (in->cause)
		return in->cause;
	return inspect_judge(in, scan_feed(&reading_of(in)->scan, p, n));
}

enum cause inspect_finish(struct inspect *in, struct buf_pool *pool) {
	in->is_complete = true;
	if (in->is_guess || (in->may_be_empty && in->buf && scan_is_blank(&reading_of(in)->scan)))
		inspect_deinit(in, pool);
	if (!in->buf)
		return CAUSE_NONE;
	if (in->cause)
		return in->cause;
	return inspect_judge(in, scan_finish(&reading_of(in)->scan));
}

bool inspect_is_decided(const struct inspect *in) {
	return !in->buf || in->is_complete || scan_found(&reading_of(in)->scan, WANT_MODEL);
}

struct slice inspect_model(const struct inspect *in) {
	const struct scan_value *model = in->buf ? scan_found(&reading_of(in)->scan, WANT_MODEL) : NULL;
	return model && model->type == SCAN_STRING ? model->text : (struct slice){ NULL, 0 };
}

uint64_t inspect_session(const struct inspect *in) {
	const struct scan_value *key = in->buf ? scan_found(&reading_of(in)->scan, WANT_SESSION) : NULL;
	if (!key || key->type != SCAN_STRING || key->flaw != SCAN_SOUND || key->text.n == 0)
		return 0;
	struct slice model = inspect_model(in);
	uint64_t hash =
	    XXH3_64bits_withSeed(key->text.p, key->text.n, model.n ? XXH3_64bits(model.p, model.n) : 0);
	return hash ? hash : 1;
}
