/*
 * A record is made in one way: the members that may be kept are laid over those of the
 * older record, if there is one, and the result is judged, whole, by the table below. So
 * a PUT cannot make what a POST would not, and what comes from the disk is judged too.
 *
 * JSON comes from jansson, in two pieces made once: all before last_heartbeat, and all
 * after is_healthy. What lies between changes with every heartbeat and is three scalars.
 */
#include "registry/record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum field_kind { FIELD_TEXT, FIELD_PORT, FIELD_TTL, FIELD_WEIGHT, FIELD_OBJECT };

struct field {
	const char *name;
	enum field_kind kind;
	bool is_required;
	bool may_be_empty;
	size_t n_max;
};

/* In the order in which they are judged. */
static const struct field fields[] = {
	{ "name", FIELD_TEXT, .is_required = true, .n_max = RECORD_NAME_MAX },
	{ "host", FIELD_TEXT, .is_required = true, .n_max = RECORD_TEXT_MAX },
	{ "port", FIELD_PORT, .is_required = true },
	{ "hostname", FIELD_TEXT, .is_required = true, .may_be_empty = true, .n_max = RECORD_TEXT_MAX },
	{ "url", FIELD_TEXT, .is_required = true, .may_be_empty = true, .n_max = RECORD_TEXT_MAX },
	{ "status", FIELD_TEXT, .is_required = true, .may_be_empty = true, .n_max = RECORD_TEXT_MAX },
	{ "metadata", FIELD_OBJECT, .n_max = RECORD_JSON_MAX },
	{ "weight", FIELD_WEIGHT, .n_max = 0 },
	{ "role", FIELD_TEXT, .may_be_empty = true, .n_max = RECORD_TEXT_MAX },
	{ "labels", FIELD_OBJECT, .n_max = RECORD_JSON_MAX },
	{ "ttl", FIELD_TTL, .n_max = 0 },
};

#define HEAD_FIELDS 6 /* the required ones */

static void object_free(json_t **j) {
	json_decref(*j);
}
static void text_free(char **p) {
	free(*p);
}

/* --- judging -------------------------------------------------------------------------- */

static bool is_printable(const char *s, size_t n) {
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return true;
}

static bool is_int_between(const json_t *v, json_int_t min, json_int_t max) {
	return json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max;
}

static bool is_weight(const json_t *v) {
	double weight = json_number_value(v);
	return json_is_number(v) && isfinite(weight) && weight >= 0 && weight <= RECORD_WEIGHT_MAX;
}

static bool field_is_good(const struct field *f, const json_t *v) {
	switch (f->kind) {
	case FIELD_TEXT:
		return json_is_string(v) && json_string_length(v) <= f->n_max &&
		    (f->may_be_empty || json_string_length(v) > 0) &&
		    is_printable(json_string_value(v), json_string_length(v));
	case FIELD_PORT:
		return is_int_between(v, 1, UINT16_MAX);
	case FIELD_TTL:
		return is_int_between(v, 1, RECORD_TTL_MAX_S);
	case FIELD_WEIGHT:
		return is_weight(v);
	case FIELD_OBJECT:
		return json_is_object(v) && json_dumpb(v, NULL, 0, JSON_COMPACT) <= f->n_max;
	}
	return false;
}

static bool refuse(struct record_refusal *refusal, const char *what, const char *field) {
	snprintf(refusal->text, sizeof(refusal->text), "%s%s%s", what, field ? ": " : "", field ? field : "");
	return false;
}

static bool object_is_good(const json_t *object, struct record_refusal *refusal) {
	for (size_t i = 0; i < n_elems(fields); i++)
		if (fields[i].is_required && !json_object_get(object, fields[i].name))
			return refuse(refusal, "Missing required field", fields[i].name);
	for (size_t i = 0; i < n_elems(fields); i++) {
		const json_t *v = json_object_get(object, fields[i].name);
		if (v && !field_is_good(&fields[i], v))
			return refuse(refusal, "Invalid field", fields[i].name);
	}
	return true;
}

/* --- making --------------------------------------------------------------------------- */

static json_t *timestamp_json(int64_t unix_s) {
	char line[40];
	struct tm tm;
	time_t t = (time_t)unix_s;
	if (!gmtime_r(&t, &tm) || strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S+00:00", &tm) == 0)
		return json_string("1970-01-01T00:00:00+00:00");
	return json_string(line);
}

/* The six required members and the timestamp, without the brace that closes them. */
static char *print_head(const json_t *object, int64_t registered_s, size_t *n_out) {
	json_t *head cleanup(object_free) = json_object();
	for (size_t i = 0; i < HEAD_FIELDS; i++)
		json_object_set(head, fields[i].name, json_object_get(object, fields[i].name));
	json_object_set_new(head, "timestamp", timestamp_json(registered_s));
	char *text = json_dumps(head, JSON_COMPACT);
	*n_out = strlen(text) - 1;
	return text;
}

/* metadata, what else was sent, and the weight of the metadata if it has the only one: "," + "..." + "}". */
static char *print_tail(const json_t *object, size_t *n_out, size_t *n_derived_out) {
	json_t *tail cleanup(object_free) = json_object();
	for (size_t i = HEAD_FIELDS; i < n_elems(fields); i++)
		json_object_set(tail, fields[i].name, json_object_get(object, fields[i].name));
	size_t n_sent = json_dumpb(tail, NULL, 0, JSON_COMPACT);
	json_t *weight = json_object_get(json_object_get(tail, "metadata"), "weight");
	if (is_weight(weight) && !json_object_get(tail, "weight"))
		json_object_set(tail, "weight", weight);
	char *text = json_dumps(tail, JSON_COMPACT);
	*n_out = strlen(text);
	*n_derived_out = *n_out - n_sent;
	text[0] = ',';
	return text;
}

static const char *block_put(char **at, const char *p, size_t n) {
	char *start = *at;
	memcpy(start, p, n);
	start[n] = '\0';
	*at += n + 1;
	return start;
}

static const char *block_put_member(char **at, const json_t *object, const char *name) {
	const json_t *v = json_object_get(object, name);
	return v ? block_put(at, json_string_value(v), json_string_length(v)) : NULL;
}

/* From an object that is good. */
static struct record *record_new(const json_t *object, int64_t registered_s) {
	size_t n_head, n_tail, n_derived, n_texts = 0;
	char *head cleanup(text_free) = print_head(object, registered_s, &n_head);
	char *tail cleanup(text_free) = print_tail(object, &n_tail, &n_derived);
	for (size_t i = 0; i < n_elems(fields); i++)
		if (fields[i].kind == FIELD_TEXT)
			n_texts += json_string_length(json_object_get(object, fields[i].name)) + 1;

	size_t bytes = sizeof(struct record) + n_head + 1 + n_tail + 1 + n_texts;
	struct record *r = malloc(bytes);
	char *at = (char *)(r + 1);
	const json_t *metadata = json_object_get(object, "metadata");
	const json_t *weight = json_object_get(object, "weight");
	if (!weight)
		weight = json_object_get(metadata, "weight");
	const char *type = json_string_value(json_object_get(metadata, "type"));
	*r = (struct record){
		.name = block_put_member(&at, object, "name"),
		.host = block_put_member(&at, object, "host"),
		.hostname = block_put_member(&at, object, "hostname"),
		.url = block_put_member(&at, object, "url"),
		.status = block_put_member(&at, object, "status"),
		.role = block_put_member(&at, object, "role"),
		.has_weight = is_weight(weight),
		.weight = is_weight(weight) ? json_number_value(weight) : 1,
		.is_openai = type && strcmp(type, "openai-api") == 0,
		.port = (uint16_t)json_integer_value(json_object_get(object, "port")),
		.ttl_s = (uint32_t)json_integer_value(json_object_get(object, "ttl")),
		.registered_s = registered_s,
		.bytes = bytes,
		.head = { block_put(&at, head, n_head), n_head },
		.tail = { block_put(&at, tail, n_tail), n_tail },
		.n_derived = n_derived,
	};
	r->is_running = strcmp(r->status, "running") == 0;
	assert(at <= (char *)r + bytes);
	return r;
}

/* What the older record was sent, or nothing. */
static json_t *object_of(const struct record *base) {
	if (!base)
		return json_object();
	size_t n;
	char *text cleanup(text_free) = record_stored(base, &n);
	json_t *object = json_loadb(text, n, 0, NULL);
	assert(object); /* it was printed by jansson */
	return object;
}

/* Lays the members of `sent` over those of base, judges, and makes a record. */
static struct record *record_over(
    const struct record *base, const json_t *sent, uint64_t wall_ms, struct record_refusal *refusal_out) {
	json_t *object cleanup(object_free) = object_of(base);
	for (size_t i = base ? 1 : 0; i < n_elems(fields); i++) {
		json_t *v = json_object_get(sent, fields[i].name);
		if (v && !json_is_null(v))
			json_object_set(object, fields[i].name, v);
	}
	if (!json_object_get(object, "metadata"))
		json_object_set_new(object, "metadata", json_object());
	if (!object_is_good(object, refusal_out))
		return NULL;
	int64_t wall_s = (int64_t)(wall_ms / 1000);
	struct record *r = record_new(object, base ? base->registered_s : wall_s);
	r->heartbeat_s = wall_s;
	r->health = base ? base->health : HEALTH_UNKNOWN;
	return r;
}

struct record *record_parse(
    struct slice body, const struct record *base, uint64_t wall_ms, struct record_refusal *refusal_out) {
	json_t *sent cleanup(object_free) = json_loadb(body.n ? body.p : "", body.n, 0, NULL);
	if (!json_is_object(sent)) {
		refuse(refusal_out, "Invalid JSON", NULL);
		return NULL;
	}
	return record_over(base, sent, wall_ms, refusal_out);
}

struct record *record_with_status(const struct record *r, struct slice status, uint64_t wall_ms) {
	struct record_refusal refusal = { "" };
	json_t *sent cleanup(object_free) = json_object();
	if (json_object_set_new(sent, "status", json_stringn(status.n ? status.p : "", status.n)) < 0)
		return NULL; /* not UTF-8 */
	return record_over(r, sent, wall_ms, &refusal);
}

void record_free(struct record **r) {
	free(*r);
	*r = NULL;
}

/* --- the store's text -------------------------------------------------------------------- */

char *record_stored(const struct record *r, size_t *n_out) {
	size_t n_tail = r->tail.n - 1 - r->n_derived;
	char *text = malloc(r->head.n + n_tail + 2);
	memcpy(text, r->head.p, r->head.n);
	memcpy(text + r->head.n, r->tail.p, n_tail);
	*n_out = r->head.n + n_tail + 1;
	text[*n_out - 1] = '}';
	text[*n_out] = '\0';
	return text;
}

struct record *record_new_stored(struct slice text, uint64_t wall_ms) {
	struct record_refusal refusal = { "" };
	struct tm tm = { 0 };
	json_t *object cleanup(object_free) = json_loadb(text.n ? text.p : "", text.n, 0, NULL);
	const char *timestamp = json_string_value(json_object_get(object, "timestamp"));
	if (!timestamp || !strptime(timestamp, "%Y-%m-%dT%H:%M:%S", &tm) ||
	    !json_object_get(object, "metadata") || !object_is_good(object, &refusal))
		return NULL;
	struct record *r = record_new(object, (int64_t)timegm(&tm));
	r->heartbeat_s = (int64_t)(wall_ms / 1000);
	return r;
}

/* --- printing --------------------------------------------------------------------------- */

const char *record_health_name(enum record_health health) {
	static const char *const names[] = { "unknown", "healthy", "unhealthy" };
	assert((unsigned)health < n_elems(names));
	return names[health];
}

void record_text_put(struct record_text *t, struct slice bytes) {
	if (!bytes.n)
		return;
	if (!t->p || t->room - t->n < bytes.n) {
		t->room = size_max(2 * t->room, t->n + bytes.n + 1024);
		t->p = realloc(t->p, t->room);
	}
	memcpy(t->p + t->n, bytes.p, bytes.n);
	t->n += bytes.n;
}

void record_print(const struct record *r, bool is_healthy, struct record_text *t) {
	char live[128]; /* numbers and fixed words: the one place where JSON is not jansson's, for 10,000
			   records */
	int n = snprintf(live, sizeof(live),
	    ",\"last_heartbeat\":%lld.0,\"health_status\":\"%s\",\"is_healthy\":%s",
	    (long long)r->heartbeat_s, record_health_name(r->health), is_healthy ? "true" : "false");
	record_text_put(t, r->head);
	record_text_put(t, (struct slice){ live, (size_t)n });
	record_text_put(t, r->tail);
}

json_t *record_json(const struct record *r, bool is_healthy) {
	struct record_text t = { .p = NULL };
	record_print(r, is_healthy, &t);
	json_t *object = json_loadb(t.p, t.n, 0, NULL);
	free(t.p);
	assert(object);
	return object;
}
