#include "router/forward.h"

#include "router/own_field.h"
#include "router/rank_field.h"
#include "router/tenant.h"

#define ID_BYTES_MAX   128
#define NAME_BYTES_MAX 256

struct slice forward_find_id(const struct head *request, const char *const *names, size_t n_names) {
	for (size_t i = 0; i < n_names; i++) {
		struct slice id = head_find_name(request, slice_of(names[i]));
		bool good = id.n >= 1 && id.n <= ID_BYTES_MAX;
		for (size_t k = 0; good && k < id.n; k++) {
			char c = ascii_lower(id.p[k]);
			good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
			    c == '-';
		}
		if (good)
			return id;
	}
	return (struct slice){ NULL, 0 };
}

/* Underscores make two names one behind some servers: only session_id, which agents send, goes on. */
static bool is_doubtful_name(struct slice name) {
	return memchr(name.p, '_', name.n) && !slice_is(name, SLICE("session_id"));
}

/* What came, and the client behind it. */
static void put_forwarded_for(struct call_out *o, const struct head *request, struct slice peer) {
	call_put_text(o, SLICE("x-forwarded-for: "));
	for (unsigned i = 0; i < request->n_fields; i++) {
		const struct field *f = &request->fields[i];
		if (f->id != FIELD_X_FORWARDED_FOR || !f->value_n)
			continue;
		call_put_text(o, head_value(request, f));
		call_put_text(o, SLICE(", "));
	}
	call_put_text(o, peer);
	call_put_text(o, SLICE("\r\n"));
}

static void put_rank(struct call_out *o, const struct instance_spec *spec) {
	char digits[20];

	if (spec->has_rank)
		call_put_field(o, SLICE("x-data-parallel-rank"), call_decimal(spec->rank, digits));
}

void forward_request(struct call_out *o, const struct head *request, const struct instance *instance,
    const struct forward *f, enum framing framing, uint64_t length) {
	struct slice host = head_find(request, FIELD_HOST);
	const struct instance_spec *spec = &instance->spec;
	bool drops_keys = f->drops_keys || f->key.n || spec->is_provider;
	bool drops_rank = !f->trusts_rank || spec->has_rank;

	call_put_request_line(
	    o, head_method(request), spec->base, instance_target(spec, head_target(request)));
	call_put_field(o, SLICE("host"), spec->authority);
	for (unsigned i = 0; i < request->n_fields; i++) {
		const struct field *field = &request->fields[i];
		struct slice name = head_name(request, field);
		if (head_is_hop_field(field) || field->id == FIELD_HOST ||
		    field->id == FIELD_X_FORWARDED_FOR || field->id == FIELD_X_FORWARDED_HOST ||
		    field->id == FIELD_X_REQUEST_ID || is_doubtful_name(name))
			continue;
		if (drops_keys && tenant_is_credential(request, field))
			continue;
		if (f->wants_plain && slice_is(name, SLICE("accept-encoding")))
			continue;
		if (drops_rank && rank_field_is(name))
			continue;
		if (field->id == FIELD_TRAILER && framing != FRAMING_CHUNKED)
			continue;
		if (field->id == FIELD_COOKIE && spec->is_provider)
			continue;
		call_put_field(o, name, head_value(request, field));
	}
	if (f->key.n) {
		call_put_text(o, SLICE("authorization: Bearer "));
		call_put_text(o, f->key);
		call_put_text(o, SLICE("\r\n"));
	}
	if (!spec->is_provider)
		put_forwarded_for(o, request, f->peer);
	if (host.n && !spec->is_provider)
		call_put_field(o, SLICE("x-forwarded-host"), host);
	call_put_field(o, SLICE("x-request-id"), f->request_id);
	put_rank(o, &instance->spec);
	call_put_head_end(o, framing, length);
}

void forward_mark_trailer(struct head *trailer, const struct head *request) {
	for (unsigned i = 0; i < trailer->n_fields; i++) {
		struct field *f = &trailer->fields[i];
		struct slice name = head_name(trailer, f);
		f->is_named =
		    is_doubtful_name(name) || rank_field_is(name) || head_names_in_connection(request, name);
	}
}

enum framing forward_framing(const struct head *answer, const struct head *request, bool is_edited) {
	enum framing framing = (enum framing)answer->framing;
	if (framing == FRAMING_NONE || (framing == FRAMING_LENGTH && !is_edited))
		return framing;
	return request->minor == 0 ? FRAMING_CLOSE : FRAMING_CHUNKED;
}

/* Names are anybody's text: what may stand in no field becomes an underscore. */
static void put_name(struct call_out *o, struct slice field, struct slice name) {
	char room[NAME_BYTES_MAX];

	name = slice_head(name, sizeof(room));
	for (size_t i = 0; i < name.n; i++)
		room[i] = (unsigned char)name.p[i] < ' ' || name.p[i] == 0x7f ? '_' : name.p[i];
	call_put_field(o, field, slice_trim((struct slice){ room, name.n }));
}

static void put_explained(struct call_out *o, const struct forward_explained *e) {
	char digits[20];

	put_name(o, SLICE("x-headrace-instance"), e->instance);
	call_put_field(o, SLICE("x-headrace-reason"), e->reason);
	call_put_field(o, SLICE("x-headrace-attempts"), call_decimal(e->n_attempts, digits));
	call_put_field(o, SLICE("x-headrace-cache-hit"), call_decimal(e->cached_percent, digits));
	if (e->decision.n)
		call_put_field(o, SLICE("x-headrace-decision"), e->decision);
}

static bool begins_with(struct slice name, struct slice lower) {
	return name.n >= lower.n && slice_is(slice_head(name, lower.n), lower);
}

/* What an engine may not say in our place. */
static bool is_ours(struct slice name, const struct forward_answer *f) {
	return (f->explained && own_field_is_of_answers(name)) ||
	    (f->owns_limits && begins_with(name, SLICE("x-ratelimit-"))) ||
	    (f->owns_origins && begins_with(name, SLICE("access-control-")));
}

static void put_response_fields(
    struct call_out *o, const struct head *answer, const struct forward_answer *f) {
	for (unsigned i = 0; i < answer->n_fields; i++) {
		const struct field *field = &answer->fields[i];
		struct slice name = head_name(answer, field);
		if (!head_is_hop_field(field) && field->id != FIELD_X_REQUEST_ID && !is_ours(name, f))
			call_put_field(o, name, head_value(answer, field));
	}
}

bool forward_response(struct call_out *o, const struct head *answer, const struct forward_answer *f) {
	enum framing framing = forward_framing(answer, f->request, f->is_edited);
	bool ends = f->is_last || !f->request->keep_alive || framing == FRAMING_CLOSE;
	char digits[20];

	call_put_status_line(o, answer->status);
	put_response_fields(o, answer, f);
	call_put_field(o, SLICE("x-request-id"), f->request_id);
	if (f->is_final && !head_find_name(answer, SLICE("x-should-retry")).p)
		call_put_field(o, SLICE("x-should-retry"), SLICE("false"));
	if (f->explained)
		put_explained(o, f->explained);
	if (f->fields.n)
		call_put_text(o, f->fields);
	if (ends)
		call_put_field(o, SLICE("connection"), SLICE("close"));
	else if (f->request->minor == 0)
		call_put_field(o, SLICE("connection"), SLICE("keep-alive"));
	if (framing == FRAMING_NONE && answer->has_length && answer->status >= 200 && answer->status != 204)
		call_put_field(o, SLICE("content-length"), call_decimal(answer->content_length, digits));
	call_put_head_end(o, framing, answer->content_length);
	return ends;
}

void forward_interim(struct call_out *o, const struct head *interim) {
	static const struct forward_explained explained;
	static const struct forward_answer all = {
		.explained = &explained, .owns_limits = true, .owns_origins = true
	};
	call_put_status_line(o, interim->status);
	put_response_fields(o, interim, &all);
	call_put_interim_end(o);
}
