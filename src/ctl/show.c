#include "ctl/show.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/grid.h"

/* --- members ------------------------------------------------------------------------------ */

static const char *text_of(const json_t *object, const char *key) {
	const char *text = json_string_value(json_object_get(object, key));

	return text && text[0] ? text : "-";
}

static json_int_t integer_of(const json_t *object, const char *key) {
	return json_integer_value(json_object_get(object, key));
}

/* With so many decimals; "-" where there is no number. */
static void add_number(struct grid *g, const json_t *object, const char *key, int n_decimals) {
	const json_t *value = json_object_get(object, key);

	if (json_is_number(value))
		grid_add(g, "%.*f", n_decimals, json_number_value(value));
	else
		grid_add(g, "-");
}

/* "0.130 = 0.000 queue_s + 0.130 uncached_s" */
static void add_score(struct grid *g, const json_t *row) {
	const json_t *score = json_object_get(row, "score"), *part;
	char line[256];
	const char *key;
	size_t n;

	if (!json_is_number(score)) {
		grid_add(g, "-");
		return;
	}
	n = (size_t)snprintf(line, sizeof(line), "%.3f", json_number_value(score));
	json_object_foreach((json_t *)json_object_get(row, "parts"), key, part) if (n < sizeof(line)) n +=
	    (size_t)snprintf(line + n, sizeof(line) - n, "%s%.3f %s", strchr(line, '=') ? " + " : " = ",
		json_number_value(part), key);
	grid_add(g, "%s", line);
}

/* Nothing need speak against who is not eligible: others are nearer, or have what is asked for, or will. */
static void add_rejections(struct grid *g, const json_t *list, bool is_refused) {
	const char *none = is_refused ? "others are waited for" : "others come before it";
	char line[512] = "";
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(list) && n < sizeof(line); i++)
		n += (size_t)snprintf(line + n, sizeof(line) - n, "%s%s", n ? "; " : "",
		    text_of(json_array_get(list, i), "text"));
	grid_add(g, "%s", n ? line : none);
}

static void put_line(FILE *out, const char *format, ...) printf_like(2, 3);

/* One line of prose, as clean as a cell. */
static void put_line(FILE *out, const char *format, ...) {
	char line[1024];
	struct grid g;
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	grid_init(&g, 1);
	grid_add(&g, "%s", line);
	grid_print(&g, out);
	grid_deinit(&g);
}

/* "chosen   a: it is its turn (round_robin)", or why nobody was. */
static void put_chosen(const json_t *answer, FILE *out) {
	const json_t *refusal = json_object_get(answer, "refusal");
	const char *reasoning = text_of(answer, "reasoning");

	if (json_is_object(refusal))
		put_line(out, "refused  with %lld %s; %s", (long long)integer_of(refusal, "status"),
		    text_of(refusal, "code"), reasoning);
	else if (json_is_string(refusal))
		put_line(out, "refused  with %s; %s", json_string_value(refusal), reasoning);
	else
		put_line(out, "chosen   %s", reasoning);
}

static void begin_grid(struct grid *g, const char *const *names, unsigned n) {
	grid_init(g, n);
	for (unsigned i = 0; i < n; i++)
		grid_add(g, "%s", names[i]);
}

/* --- an explanation ----------------------------------------------------------------------- */

static void put_demand(const json_t *demand, FILE *out) {
	put_line(out, "request  model %s, %s, prompt of %lld tokens in %lld bytes, %s",
	    text_of(demand, "model"), text_of(demand, "capability"),
	    (long long)integer_of(demand, "prompt_tokens"), (long long)integer_of(demand, "prompt_bytes"),
	    json_is_true(json_object_get(demand, "session")) ? "of a session" : "of no session");
}

static void add_explained_row(struct grid *g, const json_t *answer, const json_t *row, size_t i) {
	const json_t *load = json_object_get(row, "load"), *probability = json_object_get(row, "probability");
	bool is_eligible = json_is_true(json_object_get(row, "eligible"));

	if (is_eligible)
		grid_add(g, "%zu", i + 1);
	else
		grid_add(g, "-");
	grid_add(g, "%s", text_of(row, "instance"));
	grid_add(g, "%s", text_of(row, "state"));
	add_score(g, row);
	add_number(g, row, "cached_tokens", 0);
	add_number(g, load, "requests", 0);
	add_number(g, load, "prefill_tokens", 0);
	if (!is_eligible)
		add_rejections(g, json_object_get(row, "rejections"),
		    json_is_object(json_object_get(answer, "refusal")));
	else if (json_is_number(probability))
		grid_add(g, "%s, with a chance of %.1f %%", i ? "eligible" : "drawn this time",
		    100 * json_number_value(probability));
	else
		grid_add(g, "%s", i ? "eligible" : "chosen");
}

void show_explanation(const json_t *answer, FILE *out) {
	static const char *const names[] = { "#", "INSTANCE", "STATE", "SCORE", "CACHED", "REQUESTS",
		"QUEUED", "WHY" };
	const json_t *rows = json_object_get(answer, "rows");
	struct grid g;

	put_line(out, "policy   %s, snapshot %lld", text_of(answer, "policy"),
	    (long long)integer_of(answer, "snapshot"));
	put_demand(json_object_get(answer, "demand"), out);
	put_chosen(answer, out);
	begin_grid(&g, names, n_elems(names));
	g.is_number[0] = g.is_number[4] = g.is_number[5] = g.is_number[6] = true;
	for (size_t i = 0; i < json_array_size(rows); i++)
		add_explained_row(&g, answer, json_array_get(rows, i), i);
	fputc('\n', out);
	grid_print(&g, out);
	grid_deinit(&g);
}

/* --- decisions ---------------------------------------------------------------------------- */

static void add_status(struct grid *g, const json_t *decision) {
	if (json_is_true(json_object_get(decision, "settled")))
		add_number(g, decision, "status", 0);
	else
		grid_add(g, "at work");
}

void show_decisions(const json_t *answer, FILE *out) {
	static const char *const names[] = { "TIME", "ID", "MODEL", "INSTANCE", "REASON", "PROMPT", "CACHED",
		"TRIES", "STATUS", "MS", "REQUEST" };
	const json_t *list = json_object_get(answer, "decisions");
	struct grid g;

	begin_grid(&g, names, n_elems(names));
	g.is_number[5] = g.is_number[6] = g.is_number[7] = g.is_number[8] = g.is_number[9] = true;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *d = json_array_get(list, i);

		grid_add(&g, "%s", text_of(d, "ts"));
		grid_add(&g, "%s", text_of(d, "id"));
		grid_add(&g, "%s", text_of(d, "model"));
		grid_add(&g, "%s", text_of(json_object_get(d, "chosen"), "instance"));
		grid_add(&g, "%s", text_of(d, "reason"));
		add_number(&g, d, "prompt_tokens", 0);
		add_number(&g, d, "predicted_cached_tokens", 0);
		add_number(&g, d, "n_attempts", 0);
		add_status(&g, d);
		add_number(&g, d, "total_ms", 1);
		grid_add(&g, "%s", text_of(d, "request_id"));
	}
	grid_print(&g, out);
	grid_deinit(&g);
}

/* --- breakers ----------------------------------------------------------------------------- */

/* Milliseconds as seconds. */
static void add_seconds(struct grid *g, const json_t *object, const char *key) {
	const json_t *value = json_object_get(object, key);

	if (json_is_number(value))
		grid_add(g, "%.1f", json_number_value(value) / 1000);
	else
		grid_add(g, "-");
}

void show_breakers(const json_t *answer, FILE *out) {
	static const char *const names[] = { "INSTANCE", "STATE", "FAILURES", "SUCCESSES", "LEFT_S",
		"LAST_FAILURE_S", "GOOD", "BAD", "NEUTRAL" };
	const json_t *list = json_object_get(answer, "breakers");
	struct grid g;

	begin_grid(&g, names, n_elems(names));
	for (unsigned i = 2; i < n_elems(names); i++)
		g.is_number[i] = true;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *b = json_array_get(list, i), *outcomes = json_object_get(b, "outcomes");

		grid_add(&g, "%s", text_of(b, "instance"));
		grid_add(&g, "%s", text_of(b, "state"));
		add_number(&g, b, "failures", 0);
		add_number(&g, b, "successes", 0);
		add_seconds(&g, b, "left_ms");
		add_seconds(&g, b, "last_failure_ms");
		add_number(&g, outcomes, "good", 0);
		add_number(&g, outcomes, "bad", 0);
		add_number(&g, outcomes, "neutral", 0);
	}
	grid_print(&g, out);
	grid_deinit(&g);
}

/* --- instances ---------------------------------------------------------------------------- */

void show_instances(const json_t *answer, FILE *out) {
	static const char *const names[] = { "INSTANCE", "SOURCE", "STATE", "DRAINED_BY", "WEIGHT",
		"IN_FLIGHT" };
	const json_t *list = json_object_get(answer, "instances");
	struct grid g;

	begin_grid(&g, names, n_elems(names));
	g.is_number[4] = g.is_number[5] = true;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *row = json_array_get(list, i);
		const json_t *weight = json_object_get(row, "weight");

		grid_add(&g, "%s", text_of(row, "instance"));
		grid_add(&g, "%s", text_of(row, "source"));
		grid_add(
		    &g, "%s", json_is_null(json_object_get(row, "state")) ? "absent" : text_of(row, "state"));
		grid_add(&g, "%s", text_of(row, "drained_by"));
		add_number(&g, row, "weight", json_is_real(weight) ? 3 : 0);
		add_number(&g, row, "in_flight", 0);
	}
	grid_print(&g, out);
	grid_deinit(&g);
}

/* --- one decision ------------------------------------------------------------------------- */

static void put_outcome(const json_t *d, FILE *out) {
	const json_t *attempts = json_object_get(d, "attempts"), *actual;

	for (size_t i = 0; i < json_array_size(attempts); i++) {
		const json_t *attempt = json_array_get(attempts, i);

		put_line(out, "attempt  %zu: %s, %s", i + 1, text_of(attempt, "instance"),
		    strcmp(text_of(attempt, "cause"), "none") ? text_of(attempt, "cause") : "good");
	}
	actual = json_object_get(d, "actual_cached_tokens");
	if (json_is_number(actual))
		put_line(out, "cache    %lld tokens were expected in it, %lld were there",
		    (long long)integer_of(d, "predicted_cached_tokens"),
		    (long long)json_integer_value(actual));
	else
		put_line(out, "cache    %lld tokens were expected in it",
		    (long long)integer_of(d, "predicted_cached_tokens"));
	if (json_is_true(json_object_get(d, "settled")))
		put_line(out, "ended    with %lld, cause %s, after %.1f ms",
		    (long long)integer_of(d, "status"), text_of(d, "cause"),
		    json_number_value(json_object_get(d, "total_ms")));
	else
		put_line(out, "ended    not yet");
}

static void put_candidates(const json_t *d, FILE *out) {
	static const char *const names[] = { "INSTANCE", "SCORE", "WHY" };
	const json_t *others = json_object_get(d, "alternatives"), *rejected = json_object_get(d, "rejected");
	struct grid g;

	begin_grid(&g, names, n_elems(names));
	grid_add(&g, "%s", text_of(json_object_get(d, "chosen"), "instance"));
	add_score(&g, json_object_get(d, "chosen"));
	grid_add(&g, "chosen");
	for (size_t i = 0; i < json_array_size(others); i++) {
		grid_add(&g, "%s", text_of(json_array_get(others, i), "instance"));
		add_score(&g, json_array_get(others, i));
		grid_add(&g, "eligible");
	}
	for (size_t i = 0; i < json_array_size(rejected); i++) {
		const json_t *row = json_array_get(rejected, i);

		grid_add(&g, "%s", text_of(row, "instance"));
		grid_add(&g, "-");
		grid_add(&g, "%s", text_of(row, "text"));
	}
	fputc('\n', out);
	grid_print(&g, out);
	grid_deinit(&g);
}

void show_decision(const json_t *d, FILE *out) {
	put_line(out, "decision %s at %s, request %s", text_of(d, "id"), text_of(d, "ts"),
	    text_of(d, "request_id"));
	put_demand(d, out);
	put_line(out, "policy   %s, snapshot %lld, %lld of %lld eligible, decided in %.1f us",
	    text_of(d, "policy"), (long long)integer_of(d, "snapshot"),
	    (long long)integer_of(d, "n_eligible"), (long long)integer_of(d, "n_candidates"),
	    (double)integer_of(d, "pick_ns") / 1000);
	put_chosen(d, out);
	put_outcome(d, out);
	put_candidates(d, out);
}

/* --- an upgrade --------------------------------------------------------------------------- */

void show_upgrade(const json_t *answer, FILE *out) {
	put_line(out, "process %lld serves now, started from %s", (long long)integer_of(answer, "pid"),
	    text_of(answer, "path"));
}

/* --- a reload ---------------------------------------------------------------------------- */

/* "worker NAME: option: from -> to"; what is no text is shown as JSON. */
static void put_changes(const json_t *changes, const char *of, const char *name, FILE *out) {
	for (size_t i = 0; i < json_array_size(changes); i++) {
		const json_t *change = json_array_get(changes, i);
		char *from = json_dumps(json_object_get(change, "from"), JSON_COMPACT | JSON_ENCODE_ANY);
		char *to = json_dumps(json_object_get(change, "to"), JSON_COMPACT | JSON_ENCODE_ANY);

		put_line(out, "%s%s%s%s%s: %s -> %s", of, of[0] ? " " : "", name, of[0] ? ": " : "",
		    text_of(change, "option"), from ? from : "-", to ? to : "-");
		free(from);
		free(to);
	}
}

static void put_names(const json_t *names, const char *of, const char *what, FILE *out) {
	for (size_t i = 0; i < json_array_size(names); i++) {
		const char *name = json_string_value(json_array_get(names, i));

		put_line(out, "%s %s: %s", of, name ? name : "-", what);
	}
}

static void put_named(const json_t *named, const char *of, FILE *out) {
	const json_t *changed = json_object_get(named, "changed");

	put_names(json_object_get(named, "added"), of, "added", out);
	put_names(json_object_get(named, "removed"), of, "removed", out);
	for (size_t i = 0; i < json_array_size(changed); i++) {
		const json_t *item = json_array_get(changed, i);

		put_changes(json_object_get(item, "changes"), of, text_of(item, "name"), out);
	}
}

static void put_lines(const json_t *lines, FILE *out) {
	for (size_t i = 0; i < json_array_size(lines); i++) {
		const char *line = json_string_value(json_array_get(lines, i));

		put_line(out, "%s", line ? line : "-");
	}
}

void show_reload(const json_t *answer, FILE *out) {
	put_lines(json_object_get(answer, "warnings"), out);
	put_changes(json_object_get(answer, "options"), "", "", out);
	put_named(json_object_get(answer, "workers"), "worker", out);
	put_named(json_object_get(answer, "tenants"), "tenant", out);
	put_line(out, "the configuration was read again and applied");
}

void show_mistakes(const json_t *answer, FILE *out) {
	put_lines(json_object_get(answer, "mistakes"), out);
}
