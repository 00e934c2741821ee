#include "router/breakers.h"

#include "base/clock.h"
#include "fleet/guard.h"
#include "router/decision_json.h"
#include "router/explain_ask.h"

static const struct report *report_of(struct endpoint_call *c) {
	return endpoint_context(c);
}

/* What the slot had counted before was another's. */
uint64_t breakers_count(
    const struct router *router, const struct instance *inst, enum breaker_outcome outcome) {
	uint64_t n = 0;

	for (unsigned i = 0; i < router->n_workers; i++)
		n += metric_read(&router->workers[i].tallies[inst->slot].n_outcomes[outcome]);
	return n - metric_read(&inst->n_outcomes_before[outcome]);
}

/* --- what is shown ------------------------------------------------------------------------ */

static json_t *outcomes_json(const struct router *router, const struct instance *inst) {
	json_t *json = json_object();

	for (enum breaker_outcome i = 0; i < BREAKER_OUTCOMES; i++)
		json_object_set_new(
		    json, breaker_outcome_text(i), json_integer((json_int_t)breakers_count(router, inst, i)));
	return json;
}

static json_t *breaker_json(const struct router *router, const struct instance *inst, uint64_t now_ms) {
	struct breaker_view view = breaker_peek(&inst->breaker, now_ms);
	uint64_t failed_ms = metric_read(&inst->failed_ms);

	return json_pack("{s:o, s:s, s:i, s:i, s:b, s:I, s:o, s:o}", "instance",
	    decision_json_text(inst->spec.name), "state", breaker_state_text(view.state), "failures",
	    (int)view.n_failures, "successes", (int)view.n_successes, "probed", view.is_probed, "left_ms",
	    (json_int_t)view.remaining_ms, "last_failure_ms",
	    failed_ms ? json_integer((json_int_t)(now_ms - u64_min(failed_ms, now_ms))) : json_null(),
	    "outcomes", outcomes_json(router, inst));
}

/* Of the rows of this name; empty: of all. Those that are one instance are listed once. */
static json_t *breakers_json(const struct report *r, struct slice name) {
	const struct snapshot *snap = r->snapshot;
	uint64_t now_ms = clock_now_ns() / 1000000u;
	json_t *list = json_array();

	for (uint32_t i = 0; i < snap->n_rows; i++) {
		const struct snapshot_row *row = &snap->rows[i];

		if (name.n ? slice_eq(row->instance->spec.name, name) : row->primary == i)
			json_array_append_new(
			    list, breaker_json(r->router, snap->rows[row->primary].instance, now_ms));
	}
	return json_pack("{s:o}", "breakers", list);
}

void breakers_list(struct endpoint_call *c) {
	endpoint_answer_json(c, 200, breakers_json(report_of(c), (struct slice){ NULL, 0 }));
}

/* --- what is done ------------------------------------------------------------------------- */

typedef void (*change_fn)(struct instance *inst, const struct breaker_limits *limits, uint64_t now_ms);

static void trip(struct instance *inst, const struct breaker_limits *limits, uint64_t now_ms) {
	guard_trip(inst, limits, now_ms);
}

static void reset(struct instance *inst, const struct breaker_limits *limits, uint64_t now_ms) {
	guard_reset(inst);
}

static void change(struct endpoint_call *c, change_fn fn) {
	const struct report *r = report_of(c);
	const struct snapshot *snap = r->snapshot;
	struct slice name = endpoint_param(c);
	unsigned n = 0;

	for (uint32_t i = 0; i < snap->n_rows; i++) {
		if (!slice_eq(snap->rows[i].instance->spec.name, name))
			continue;
		fn(snap->rows[snap->rows[i].primary].instance, &r->router->settings->config->breaker.limits,
		    clock_now_ns() / 1000000u);
		n++;
	}
	if (n)
		endpoint_answer_json(c, 200, breakers_json(r, name));
	else
		explain_error(c, 404, "not_found", "there is no instance of that name");
}

void breakers_trip(struct endpoint_call *c) {
	change(c, trip);
}

void breakers_reset(struct endpoint_call *c) {
	change(c, reset);
}

/* --- metrics ------------------------------------------------------------------------------ */

static void write_moves(const struct instance *inst, FILE *out) {
	for (enum breaker_state from = 0; from < BREAKER_STATES; from++)
		for (enum breaker_state to = 0; to < BREAKER_STATES; to++) {
			uint32_t n = atomic_load_explicit(&inst->n_moves[from][to], memory_order_relaxed);
			const struct metric_label labels[] = { { "instance", inst->spec.name.p },
				{ "from", breaker_state_text(from) }, { "to", breaker_state_text(to) } };

			if (n) /* most never happen */
				metric_write_labelled(
				    out, "headrace_breaker_transitions_total", labels, n_elems(labels), n);
		}
}

static void write_outcomes(const struct router *router, const struct instance *inst, FILE *out) {
	for (enum breaker_outcome i = 0; i < BREAKER_OUTCOMES; i++) {
		const struct metric_label labels[] = { { "instance", inst->spec.name.p },
			{ "outcome", breaker_outcome_text(i) } };

		metric_write_labelled(out, "headrace_breaker_outcomes_total", labels, n_elems(labels),
		    (double)breakers_count(router, inst, i));
	}
}

/* One for each name: sources may have different targets of one name. */
static bool has_series(const struct snapshot *snap, uint32_t row) {
	const struct snapshot_row *rows = snap->rows;

	if (rows[row].primary != row)
		return false;
	for (uint32_t i = 0; rows[row].is_namesake && i < row; i++)
		if (rows[i].primary == i &&
		    slice_eq(rows[i].instance->spec.name, rows[row].instance->spec.name))
			return false;
	return true;
}

void breakers_write_metrics(const struct router *router, const struct snapshot *snap, FILE *out) {
	uint64_t now_ms = clock_now_ns() / 1000000u;

	metric_write_family(out, "headrace_breaker_state", "gauge", "0 closed, 1 open, 2 half-open.");
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (has_series(snap, i))
			metric_write_row(out, "headrace_breaker_state", "instance",
			    snap->rows[i].instance->spec.name.p,
			    breaker_peek(&snap->rows[i].instance->breaker, now_ms).state);
	metric_write_family(
	    out, "headrace_breaker_transitions_total", "counter", "Moves of breakers, those that happened.");
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (has_series(snap, i))
			write_moves(snap->rows[i].instance, out);
	metric_write_family(out, "headrace_breaker_outcomes_total", "counter",
	    "Attempts at an instance by what they say of it: good, bad, or nothing (neutral).");
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (has_series(snap, i))
			write_outcomes(router, snap->rows[i].instance, out);
}
