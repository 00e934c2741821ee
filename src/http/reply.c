#include "http/reply.h"

#include <jansson.h>

enum reply_dialect reply_dialect(enum reply_dialect dialect, struct slice path) {
	if (dialect != REPLY_BY_PATH)
		return dialect;
	if (slice_has_prefix(path, SLICE("/v1/messages")))
		return REPLY_ANTHROPIC;
	if (slice_has_prefix(path, SLICE("/v1/responses")))
		return REPLY_RESPONSES;
	return REPLY_OPENAI;
}

void reply_follow(struct reply *reply, const struct head *request, bool is_last) {
	reply->is_head = request->method == METHOD_HEAD;
	reply->closes = is_last || !request->keep_alive;
	reply->keeps_http10 = request->minor == 0 && !reply->closes;
}

int reply_send(struct call *call, const struct reply *r) {
	char digits[20];
	struct call_out o;
	call_begin(&o, call);
	call_put_status_line(&o, r->status);
	if (r->content_type.n)
		call_put_field(&o, SLICE("content-type"), r->content_type);
	if (r->request_id.n)
		call_put_field(&o, SLICE("x-request-id"), r->request_id);
	if (r->decision.n)
		call_put_field(&o, SLICE("x-headrace-decision"), r->decision);
	if (r->retry_after_s)
		call_put_field(&o, SLICE("retry-after"), call_decimal(r->retry_after_s, digits));
	if (r->is_final)
		call_put_field(&o, SLICE("x-should-retry"), SLICE("false"));
	if (r->allow.n)
		call_put_field(&o, SLICE("allow"), r->allow);
	if (r->authenticate.n)
		call_put_field(&o, SLICE("www-authenticate"), r->authenticate);
	if (r->fields.n)
		call_put_text(&o, r->fields);
	if (r->closes)
		call_put_field(&o, SLICE("connection"), SLICE("close"));
	else if (r->keeps_http10)
		call_put_field(&o, SLICE("connection"), SLICE("keep-alive"));

	bool has_length = r->status != 204; /* which has none by definition (RFC 9110 section 8.6) */
	call_put_head_end(&o, has_length ? FRAMING_LENGTH : FRAMING_NONE, r->body.n);
	if (r->is_head || !has_length) {
		call->out_left = 0;
	} else {
		struct piece body = { r->body.p, r->body.n, r->body_owner };
		call_put_data(&o, &body, 1);
	}
	call_put_end(&o, NULL);
	return call_flush(&o);
}

/* InfiniLM-SVC's words, byte for byte; what it has none for keeps ours. */
#define FOR_MODEL .before = "No healthy services available for model '", .after = "'"
static const struct reply_error infinilm[N_CAUSES] = {
	[CAUSE_NO_INSTANCE] = { .status = 503, .message = "No healthy services available", FOR_MODEL },
	[CAUSE_BREAKERS_OPEN] = { .status = 503, .message = "No healthy services available", FOR_MODEL },
	[CAUSE_MODEL_NOT_FOUND] = { .status = 503, .message = "No healthy services available", FOR_MODEL },
	[CAUSE_CONNECT_FAILED] = { .status = 503, .message = "Service unavailable - connection refused" },
	[CAUSE_CONNECT_TIMEOUT] = { .status = 504, .message = "Service timeout" },
	[CAUSE_FIRST_BYTE_TIMEOUT] = { .status = 504, .message = "Service timeout" },
	[CAUSE_TOTAL_TIMEOUT] = { .status = 504, .message = "Service timeout" },
	[CAUSE_STREAM_STALLED] = { .status = 504, .message = "Service timeout" },
	[CAUSE_UPSTREAM_CLOSED] = { .status = 502,
	    .message = "Bad gateway - error communicating with service" },
	[CAUSE_UPSTREAM_MALFORMED] = { .status = 502,
	    .message = "Bad gateway - error communicating with service" },
	[CAUSE_STREAM_BROKEN] = { .status = 502, .message = "Failed to read response from service" },
	[CAUSE_BODY_MALFORMED] = { .status = 400, .message = "Failed to read request body" },
	[CAUSE_METHOD] = { .status = 400, .message = "Invalid HTTP method" },
};
#undef FOR_MODEL

struct reply_error reply_error(enum cause cause, enum reply_dialect dialect) {
	const struct cause_row *row = cause_row(cause);
	if (dialect == REPLY_INFINILM && infinilm[cause].status)
		return infinilm[cause];
	return (struct reply_error){ row->status, row->message, NULL, NULL };
}

bool reply_is_final(enum cause cause, unsigned status) {
	return (status == 429 || status == 503 || cause == CAUSE_WAIT_TIMEOUT) && cause != CAUSE_STOPPING;
}

/* The message, with the detail where there is one that is UTF-8. */
static json_t *error_message(const struct reply_error *e, const char *detail) {
	json_t *text = !detail ? NULL
	    : e->before        ? json_sprintf("%s%s%s", e->before, detail, e->after)
			       : json_sprintf("%s: %s", e->message, detail);
	return text ? text : json_string(e->message);
}

char *reply_error_text(enum cause cause, const char *detail, enum reply_dialect dialect) {
	const struct cause_row *row = cause_row(cause);
	const struct reply_error e = reply_error(cause, dialect);
	json_t *message = error_message(&e, detail), *error;
	if (dialect == REPLY_PLAIN || dialect == REPLY_INFINILM)
		error = json_pack("{s:o, s:s}", "error", message, "code", row->code);
	else if (dialect == REPLY_ANTHROPIC)
		error = json_pack("{s:s, s:{s:s, s:o, s:s}}", "type", "error", "error", "type",
		    cause_anthropic_type(e.status), "message", message, "code", row->code);
	else
		error = json_pack("{s:{s:o, s:s, s:n, s:s}}", "error", "message", message, "type", row->type,
		    "param", "code", row->code);
	char *text = json_dumps(error, JSON_COMPACT);
	assert(text);
	json_decref(error);
	return text;
}

int reply_refuse(struct call *call, struct reply *reply, enum cause cause, const char *detail,
    enum reply_dialect dialect) {
	char *text = reply_error_text(cause, detail, dialect);
	reply->status = reply_error(cause, dialect).status;
	if (!reply->retry_after_s)
		reply->retry_after_s = cause_row(cause)->retry_after_s;
	reply->content_type = SLICE("application/json");
	reply->body = slice_of(text);
	int r = reply_send(call, reply);
	free(text);
	return r;
}
