#include "engine/fault.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/text.h"
#include "engine/random.h"

#define MILLION        1000000u
#define EVENTS_MAX     1000000u
#define REQUESTS_MAX   1000000000u
#define LATENCY_MS_MAX 3600000u

/* Reads the part after the colon, which has at least one byte. */
typedef bool (*parse_value_fn)(struct slice s, uint32_t *value_out);
typedef void (*print_value_fn)(uint32_t value, char *line, size_t size);

static bool parse_up_to(struct slice s, uint64_t max, uint32_t *value_out) {
	uint64_t value;
	if (!text_uint(s, max, &value))
		return false;
	*value_out = (uint32_t)value;
	return true;
}

static bool parse_events(struct slice s, uint32_t *value_out) {
	return parse_up_to(s, EVENTS_MAX, value_out);
}

static bool parse_requests(struct slice s, uint32_t *value_out) {
	return parse_up_to(s, REQUESTS_MAX, value_out);
}

static bool parse_status(struct slice s, uint32_t *value_out) {
	uint32_t status;
	if (!parse_up_to(s, 599, &status) || status < 400)
		return false;
	*value_out = status;
	return true;
}

static bool parse_latency(struct slice s, uint32_t *value_out) {
	uint64_t ms;
	if (!text_duration_ms(s, &ms) || ms > LATENCY_MS_MAX)
		return false;
	*value_out = (uint32_t)ms;
	return true;
}

static bool parse_health(struct slice s, uint32_t *value_out) {
	*value_out = slice_eq(s, SLICE("ok"));
	return *value_out || slice_eq(s, SLICE("fail"));
}

/* "0", "1", "0.25", "1.0": at most six places. */
static bool parse_rate(struct slice s, uint32_t *value_out) {
	const char *dot = memchr(s.p, '.', s.n);
	size_t n_whole = dot ? (size_t)(dot - s.p) : s.n;
	uint32_t whole, places = 0;

	if (!parse_up_to(slice_head(s, n_whole), 1, &whole))
		return false;
	if (dot) {
		struct slice rest = slice_skip(s, n_whole + 1);
		if (rest.n > 6 || !parse_up_to(rest, MILLION, &places))
			return false;
		for (size_t i = rest.n; i < 6; i++)
			places *= 10;
	}
	if (whole == 1 && places)
		return false;
	*value_out = whole * MILLION + places;
	return true;
}

static void print_number(uint32_t value, char *line, size_t size) {
	snprintf(line, size, "%u", value);
}

static void print_latency(uint32_t value, char *line, size_t size) {
	snprintf(line, size, "%ums", value);
}

static void print_health(uint32_t value, char *line, size_t size) {
	snprintf(line, size, "%s", value ? "ok" : "fail");
}

static void print_rate(uint32_t value, char *line, size_t size) {
	snprintf(line, size, "%u.%06u", value / MILLION, value % MILLION);
}

/* A row without parse takes no value. */
static const struct {
	const char *name;
	const char *form;
	parse_value_fn parse;
	print_value_fn print;
} kinds[FAULT_N_KINDS] = {
	[FAULT_HANG_HEAD] = { "hang_head", NULL, NULL, NULL },
	[FAULT_HANG_STREAM] = { "hang_stream", "a number of events", parse_events, print_number },
	[FAULT_RESET] = { "reset", "a number of events", parse_events, print_number },
	[FAULT_GARBAGE] = { "garbage", NULL, NULL, NULL },
	[FAULT_STATUS] = { "status", "400 to 599", parse_status, print_number },
	[FAULT_CRASH] = { "crash", NULL, NULL, NULL },
	[FAULT_LATENCY] = { "latency", "a duration up to 1h, such as 250ms", parse_latency, print_latency },
	[FAULT_HEALTH] = { "health", "ok or fail", parse_health, print_health },
	[FAULT_FAIL_FIRST] = { "fail_first", "a number of requests", parse_requests, print_number },
	[FAULT_FAIL_RATE] = { "fail_rate", "0 to 1 with at most six places", parse_rate, print_rate },
};

const char *fault_name(enum fault_kind kind) {
	assert(kind < FAULT_N_KINDS);
	return kinds[kind].name;
}

static enum fault_kind kind_of(struct slice name) {
	for (enum fault_kind kind = 0; kind < FAULT_N_KINDS; kind++)
		if (slice_eq(name, slice_of(kinds[kind].name)))
			return kind;
	return FAULT_NONE;
}

/* What is quoted in a message came from outside: printable ASCII only. */
static void explain(char *message, const char *format, ...) printf_like(2, 3);
static void explain(char *message, const char *format, ...) {
	va_list args;
	va_start(args, format);
	vsnprintf(message, FAULT_TEXT_BYTES, format, args);
	va_end(args);
	for (char *c = message; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

static bool parse_member(struct slice member, struct fault_plan *plan, char *message) {
	const char *colon = memchr(member.p, ':', member.n);
	size_t n_name = colon ? (size_t)(colon - member.p) : member.n;
	enum fault_kind kind = kind_of(slice_head(member, n_name));
	struct slice shown = slice_head(member, 64);
	const char *wrong = NULL;

	if (kind == FAULT_NONE)
		wrong = "is no fault";
	else if (plan->present & 1u << kind)
		wrong = "stands there twice";
	else if (!kinds[kind].parse && colon)
		wrong = "takes no value";
	if (wrong) {
		explain(message, "\"%.*s\" %s", (int)shown.n, shown.p, wrong);
		return false;
	}
	if (kinds[kind].parse &&
	    (!colon || !kinds[kind].parse(slice_skip(member, n_name + 1), &plan->values[kind]))) {
		explain(message, "\"%.*s\": %s needs %s", (int)shown.n, shown.p, kinds[kind].name,
		    kinds[kind].form);
		return false;
	}
	plan->present |= 1u << kind;
	return true;
}

bool fault_plan_parse(struct slice text, struct fault_plan *plan_out, char message[static FAULT_TEXT_BYTES]) {
	struct fault_plan plan = { 0 };
	struct slice member;

	text = slice_trim(text);
	if (text.n > 0 && !slice_eq(text, SLICE("none")))
		while (slice_next_member(&text, &member))
			if (!parse_member(member, &plan, message))
				return false;
	*plan_out = plan;
	return true;
}

const char *fault_plan_print(const struct fault_plan *plan, char text[static FAULT_TEXT_BYTES]) {
	size_t n = 0;
	for (enum fault_kind kind = 0; kind < FAULT_N_KINDS; kind++) {
		char value[16] = "";
		if (!fault_plan_has(plan, kind))
			continue;
		if (kinds[kind].print)
			kinds[kind].print(plan->values[kind], value, sizeof(value));
		n += (size_t)snprintf(text + n, FAULT_TEXT_BYTES - n, "%s%s%s%s", n ? "," : "",
		    kinds[kind].name, value[0] ? ":" : "", value);
		assert(n < FAULT_TEXT_BYTES);
	}
	if (n == 0)
		snprintf(text, FAULT_TEXT_BYTES, "none");
	return text;
}

bool fault_plan_has(const struct fault_plan *plan, enum fault_kind kind) {
	assert(kind < FAULT_N_KINDS);
	return plan->present & 1u << kind;
}

bool fault_plan_is_healthy(const struct fault_plan *plan) {
	return !fault_plan_has(plan, FAULT_HEALTH) || plan->values[FAULT_HEALTH];
}

bool fault_plan_is_equal(const struct fault_plan *a, const struct fault_plan *b) {
	return memcmp(a, b, sizeof(*a)) == 0; /* no padding, and absent values are 0 */
}

void fault_arm(struct fault *f, const struct fault_plan *plan) {
	f->plan = *plan;
	f->n_judged = 0;
}

/* Does the gate let this request fail? Without a gate every one does. */
static bool is_chosen(const struct fault *f, uint64_t nth) {
	bool first = fault_plan_has(&f->plan, FAULT_FAIL_FIRST),
	     rate = fault_plan_has(&f->plan, FAULT_FAIL_RATE);
	if (!first && !rate)
		return true;
	if (first && nth < f->plan.values[FAULT_FAIL_FIRST])
		return true;
	return rate && random_nth(f->seed, nth) % MILLION < f->plan.values[FAULT_FAIL_RATE];
}

/* The failure that comes first in the life of an answer. */
static enum fault_kind earliest(const struct fault_plan *plan) {
	static const enum fault_kind before_head[] = { FAULT_CRASH, FAULT_GARBAGE, FAULT_HANG_HEAD,
		FAULT_STATUS };
	bool hang = fault_plan_has(plan, FAULT_HANG_STREAM), reset = fault_plan_has(plan, FAULT_RESET);

	for (size_t i = 0; i < n_elems(before_head); i++)
		if (fault_plan_has(plan, before_head[i]))
			return before_head[i];
	if (hang && reset)
		return plan->values[FAULT_RESET] <= plan->values[FAULT_HANG_STREAM] ? FAULT_RESET
										    : FAULT_HANG_STREAM;
	if (hang || reset)
		return hang ? FAULT_HANG_STREAM : FAULT_RESET;
	return FAULT_NONE;
}

struct fault_verdict fault_judge(struct fault *f) {
	const struct fault_plan *plan = &f->plan;
	bool gated = fault_plan_has(plan, FAULT_FAIL_FIRST) || fault_plan_has(plan, FAULT_FAIL_RATE);
	struct fault_verdict verdict = { .kind = FAULT_NONE, .latency_ms = plan->values[FAULT_LATENCY] };

	if (!is_chosen(f, f->n_judged++))
		return verdict;
	verdict.kind = earliest(plan);
	verdict.status = plan->values[FAULT_STATUS];
	if (verdict.kind == FAULT_NONE && gated) {
		verdict.kind = FAULT_STATUS;
		verdict.status = 500;
	}
	if (verdict.kind == FAULT_HANG_STREAM || verdict.kind == FAULT_RESET)
		verdict.n_events = plan->values[verdict.kind];
	return verdict;
}
