#include "router/cors.h"

#include "base/text.h"

#define HEADERS_MAX 1024u /* bytes of the list of fields that a preflight asks for */

static struct slice origin_of(const struct head *request) {
	return head_find_name(request, SLICE("origin"));
}

const char *cors_mistake(const char *origin) {
	struct slice text = slice_of(origin);
	struct text_url url;

	if (slice_is(text, SLICE("*")))
		return NULL;
	if (text.n > CORS_ORIGIN_MAX || !text_url(text, &url) || url.path.n)
		return "expected * or SCHEME://HOST[:PORT]";
	for (size_t i = 0; i < text.n; i++)
		if (text.p[i] != ascii_lower(text.p[i]))
			return "expected lower case: so browsers send it";
	return NULL;
}

static bool is_anybody(const struct option_list *origins) {
	for (size_t i = 0; i < origins->n; i++)
		if (strcmp(origins->items[i], "*") == 0)
			return true;
	return false;
}

static bool is_allowed(const struct option_list *origins, struct slice origin) {
	for (size_t i = 0; i < origins->n; i++)
		if (slice_eq(origin, slice_of(origins->items[i])))
			return true;
	return false;
}

bool cors_is_preflight(const struct option_list *origins, const struct head *request) {
	return origins->n && request->method == METHOD_OPTIONS && origin_of(request).n &&
	    head_find_name(request, SLICE("access-control-request-method")).n;
}

/* Who may read it; answers for one origin are not for another one (Vary), but where anybody may. */
static size_t put_origin(const struct option_list *origins, const struct head *request, char *room) {
	struct slice origin = origin_of(request);
	bool is_any = is_anybody(origins);
	int n = 0;

	if (is_any && origin.n)
		n = snprintf(room, CORS_FIELDS_BYTES, "access-control-allow-origin: *\r\n");
	else if (!is_any && origins->n && is_allowed(origins, origin))
		n = snprintf(room, CORS_FIELDS_BYTES, "access-control-allow-origin: %.*s\r\nvary: origin\r\n",
		    (int)origin.n, origin.p);
	else if (!is_any && origins->n)
		n = snprintf(room, CORS_FIELDS_BYTES, "vary: origin\r\n");
	return (size_t)n;
}

static bool may_read(const struct option_list *origins, const struct head *request) {
	struct slice origin = origin_of(request);

	return origin.n && (is_anybody(origins) || is_allowed(origins, origin));
}

struct slice cors_fields(
    const struct option_list *origins, const struct head *request, char room[static CORS_FIELDS_BYTES]) {
	static const char exposed[] =
	    "access-control-expose-headers: x-request-id, retry-after, x-should-retry, "
	    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
	    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
	    "x-headrace-instance, x-headrace-reason, x-headrace-attempts, x-headrace-cache-hit, "
	    "x-headrace-decision\r\n";
	size_t n = put_origin(origins, request, room);

	if (may_read(origins, request)) {
		memcpy(room + n, exposed, sizeof(exposed) - 1);
		n += sizeof(exposed) - 1;
	}
	return (struct slice){ room, n };
}

/* A list of tokens, as it may stand in an answer. */
static bool is_list(struct slice list) {
	static const char letters[] = "!#$%&'*+-.^_`|~, 0123456789"
				      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

	for (size_t i = 0; i < list.n; i++)
		if (!memchr(letters, list.p[i], sizeof(letters) - 1))
			return false;
	return list.n && list.n <= HEADERS_MAX;
}

/* SDKs send fields of their own that nobody can list: who is allowed at all may send what it asks for. */
struct slice cors_preflight_fields(
    const struct option_list *origins, const struct head *request, char room[static CORS_FIELDS_BYTES]) {
	struct slice asked = head_find_name(request, SLICE("access-control-request-headers"));
	size_t n = put_origin(origins, request, room);

	if (!may_read(origins, request))
		return (struct slice){ room, n };
	if (!is_list(asked))
		asked = SLICE("authorization, content-type");
	n += (size_t)snprintf(room + n, CORS_FIELDS_BYTES - n,
	    "access-control-allow-methods: GET, POST, %sDELETE, OPTIONS\r\naccess-control-allow-headers: "
	    "%.*s\r\n"
	    "access-control-max-age: 3600\r\n",
	    is_anybody(origins) ? "PUT, PATCH, " : "", (int)asked.n, asked.p);
	assert(n < CORS_FIELDS_BYTES);
	return (struct slice){ room, n };
}
