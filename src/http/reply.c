#include "http/reply.h"

#include <jansson.h>

enum reply_dialect reply_dialect(struct slice path) {
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
	if (r->retry_after_s)
		call_put_field(&o, SLICE("retry-after"), call_decimal(r->retry_after_s, digits));
	if (r->allow.n)
		call_put_field(&o, SLICE("allow"), r->allow);
	if (r->authenticate.n)
		call_put_field(&o, SLICE("www-authenticate"), r->authenticate);
	if (r->closes)
		call_put_field(&o, SLICE("connection"), SLICE("close"));
	else if (r->keeps_http10)
		call_put_field(&o, SLICE("connection"), SLICE("keep-alive"));

	bool has_length = r->status != 204; /* which has none by definition (RFC 9110 section 8.6) */
	call_put_head_end(&o, has_length ? FRAMING_LENGTH : FRAMING_NONE, r->body.n);
	if (r->is_head || !has_length) {
		call->out_left = 0;
	} else {
		struct piece body = { r->body.p, r->body.n, NULL };
		call_put_data(&o, &body, 1);
	}
	call_put_end(&o, NULL);
	return call_flush(&o);
}

char *reply_error_text(enum cause cause, const char *detail, enum reply_dialect dialect) {
	const struct cause_row *row = cause_row(cause);
	json_t *message = detail ? json_sprintf("%s: %s", row->message, detail) : NULL;
	if (!message) /* no detail, or one that was no UTF-8 */
		message = json_string(row->message);
	json_t *error = dialect == REPLY_PLAIN ? json_pack("{s:o, s:s}", "error", message, "code", row->code)
	    : dialect == REPLY_ANTHROPIC
	    ? json_pack("{s:s, s:{s:s, s:o, s:s}}", "type", "error", "error", "type",
		  cause_anthropic_type(row->status), "message", message, "code", row->code)
	    : json_pack("{s:{s:o, s:s, s:n, s:s}}", "error", "message", message, "type", row->type, "param",
		  "code", row->code);
	char *text = json_dumps(error, JSON_COMPACT);
	assert(text);
	json_decref(error);
	return text;
}

int reply_refuse(struct call *call, struct reply *reply, enum cause cause, const char *detail,
    enum reply_dialect dialect) {
	const struct cause_row *row = cause_row(cause);
	char *text = reply_error_text(cause, detail, dialect);
	reply->status = row->status;
	reply->retry_after_s = row->retry_after_s;
	reply->content_type = SLICE("application/json");
	reply->body = slice_of(text);
	int r = reply_send(call, reply);
	free(text);
	return r;
}
