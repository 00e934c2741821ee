#include "router/instances.h"

#include <stdlib.h>

#include "base/log.h"
#include "router/decision_json.h"
#include "router/explain_ask.h"

static struct report *report_of(struct endpoint_call *c) {
	return endpoint_context(c);
}

/* --- what is shown ------------------------------------------------------------------------ */

/* In thousandths. Who wrote 3 reads 3. */
static json_t *weight_json(uint32_t weight) {
	if (weight % INSTANCE_WEIGHT_ONE)
		return json_real((double)weight / INSTANCE_WEIGHT_ONE);
	return json_integer(weight / INSTANCE_WEIGHT_ONE);
}

static json_t *wish_json(const struct fleet_wish *wish) {
	return json_pack("{s:s?, s:o}", "state", wish->state ? instance_state_text(wish->state) : NULL,
	    "weight", wish->has_weight ? weight_json(wish->weight) : json_null());
}

/* Who wants that the target of this row gets no work; NULL: nobody. */
static const char *drainer_of(const struct report *r, const struct snapshot_row *primary) {
	const struct snapshot *snap = r->snapshot;
	bool is_sources = false;

	if (primary->state < INSTANCE_DRAINING)
		return NULL;
	for (uint32_t i = primary->primary; i != SNAPSHOT_NO_ROW; i = snap->rows[i].next_peer) {
		const struct instance *inst = snap->rows[i].instance;

		if (fleet_wish(r->fleet, inst->spec.name).state)
			return "operator";
		is_sources |= fleet_will(r->fleet, inst) != INSTANCE_UNKNOWN;
	}
	return is_sources ? "registry" : "engine";
}

/* Rows of one target are in one state, and have its requests together. */
static json_t *row_json(const struct report *r, const struct snapshot_row *row) {
	const struct snapshot_row *primary = &r->snapshot->rows[row->primary];
	const struct instance_spec *spec = &row->instance->spec;
	struct fleet_wish wish = fleet_wish(r->fleet, spec->name);
	json_t *json =
	    json_pack("{s:o, s:s, s:s, s:s?, s:o, s:I, s:o, s:o}", "instance", decision_json_text(spec->name),
		"source", fleet_source_text(row->source), "state", instance_state_text(primary->state),
		"drained_by", drainer_of(r, primary), "weight", weight_json(primary->weight), "in_flight",
		(json_int_t)load_requests(r->router->load, primary->instance->slot), "kv_engine",
		primary->kv_engine.n ? decision_json_text(primary->kv_engine) : json_null(), "wished",
		wish_json(&wish));

	if (spec->has_rank)
		json_object_set_new(json, "rank", json_integer(spec->rank));
	return json;
}

/* By its own name, or by the one that all ranks of its engine have in front. */
static bool is_called(const struct instance_spec *spec, struct slice name) {
	struct slice engine;
	uint16_t rank;

	return slice_eq(spec->name, name) ||
	    (spec->has_rank && rank_split(spec->name, &engine, &rank) && slice_eq(engine, name));
}

struct listing {
	const struct report *report;
	struct slice name; /* of whom; empty: of all */
	json_t *list;
};

static bool has_row(const struct snapshot *snap, struct slice name) {
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (is_called(&snap->rows[i].instance->spec, name))
			return true;
	return false;
}

static void add_absent(void *context, struct slice name, const struct fleet_wish *wish) {
	struct listing *l = context;

	if ((!l->name.n || slice_eq(l->name, name)) && !has_row(l->report->snapshot, name))
		json_array_append_new(l->list,
		    json_pack("{s:o, s:n, s:n, s:n, s:n, s:i, s:n, s:o}", "instance",
			decision_json_text(name), "source", "state", "drained_by", "weight", "in_flight", 0,
			"kv_engine", "wished", wish_json(wish)));
}

static json_t *instances_json(const struct report *r, struct slice name) {
	struct listing l = { r, name, json_array() };

	for (uint32_t i = 0; i < r->snapshot->n_rows; i++)
		if (!name.n || is_called(&r->snapshot->rows[i].instance->spec, name))
			json_array_append_new(l.list, row_json(r, &r->snapshot->rows[i]));
	fleet_each_wish(r->fleet, add_absent, &l);
	return json_pack("{s:o}", "instances", l.list);
}

void instances_list(struct endpoint_call *c) {
	endpoint_answer_json(c, 200, instances_json(report_of(c), (struct slice){ NULL, 0 }));
}

/* --- what is done ------------------------------------------------------------------------- */

/* A mail that goes from worker to worker behind the snapshot, and the call that waits for its return. */
struct errand {
	struct explain_ask ask;
	struct mail mail;
	struct worker *worker;
	unsigned n_left;
	size_t name_n;
	char name[];
};

static void errand_go_on(struct errand *e);

/* Back on the control thread. */
static void deliver_back(struct mail *mail) {
	struct errand *e = container_of(mail, struct errand, mail);

	e->worker++;
	if (e->ask.call && --e->n_left) {
		errand_go_on(e);
		return;
	}
	explain_ask_end(&e->ask);
	if (e->ask.call)
		endpoint_answer_json(e->ask.call, 200,
		    instances_json(report_of(e->ask.call), (struct slice){ e->name, e->name_n }));
	free(e);
}

/* On the worker's thread: what was posted before has been delivered. */
static void deliver_there(struct mail *mail) {
	struct errand *e = container_of(mail, struct errand, mail);

	loop_post(e->ask.explain->loop, &e->mail, deliver_back);
}

static void errand_go_on(struct errand *e) {
	loop_post(&e->worker->loop, &e->mail, deliver_there);
}

/* Answers when all workers go by it. */
static void answer_when_done(struct endpoint_call *c, struct slice name) {
	struct router *router = report_of(c)->router;
	struct errand *e = calloc(1, sizeof(*e) + name.n + 1);

	if (!explain_ask_begin(&e->ask, c)) {
		free(e);
		return;
	}
	e->worker = router->workers;
	e->n_left = router->n_workers;
	e->name_n = name.n;
	memcpy(e->name, name.p, name.n);
	errand_go_on(e);
}

typedef void (*wish_fn)(struct fleet_wish *wish, const struct fleet_wish *by);

static void wish_state(struct fleet_wish *wish, const struct fleet_wish *by) {
	wish->state = by->state;
}

static void wish_weight(struct fleet_wish *wish, const struct fleet_wish *by) {
	wish->has_weight = by->has_weight;
	wish->weight = by->weight;
}

static void log_wish(const char *event, struct slice name, const struct fleet_wish *wish) {
	struct log_event e;

	log_begin(&e, LOG_INFO, event);
	line_text(&e.line, SLICE("instance"), name);
	line_text(&e.line, SLICE("state"), slice_of(wish->state ? instance_state_text(wish->state) : "any"));
	if (wish->has_weight)
		line_uint(&e.line, SLICE("weight_thousandths"), wish->weight);
	log_end(&e);
}

static void wish_of_name(struct fleet *fleet, struct slice name, wish_fn set, const struct fleet_wish *by) {
	struct fleet_wish wish = fleet_wish(fleet, name);

	set(&wish, by);
	log_wish("an operator wishes something of an instance", name, &wish);
	fleet_set_wish(fleet, name, &wish);
}

/* Of all names of the targets that have this one; the name of an engine with ranks is that of all. False:
 * there is no such name. */
static bool wish_of_target(
    const struct report *r, struct slice name, wish_fn set, const struct fleet_wish *by) {
	const struct snapshot *snap = r->snapshot;
	struct fleet_wish old = fleet_wish(r->fleet, name);
	bool is_here = false, is_wished = old.state || old.has_weight;

	for (uint32_t i = 0; i < snap->n_rows; i++) {
		if (!is_called(&snap->rows[i].instance->spec, name))
			continue;
		is_here = true;
		for (uint32_t k = snap->rows[i].primary; k != SNAPSHOT_NO_ROW; k = snap->rows[k].next_peer)
			wish_of_name(r->fleet, snap->rows[k].instance->spec.name, set, by);
	}
	if (!is_here && is_wished) /* it has left; the wish stays */
		wish_of_name(r->fleet, name, set, by);
	return is_here || is_wished;
}

static void change(struct endpoint_call *c, wish_fn set, const struct fleet_wish *by) {
	struct report *r = report_of(c);
	struct slice name = endpoint_param(c);

	if (!wish_of_target(r, name, set, by)) {
		explain_error(c, 404, "not_found", "there is no instance of that name");
		return;
	}
	r->on_wish(r);
	answer_when_done(c, name);
}

void instances_drain(struct endpoint_call *c) {
	change(c, wish_state, &(struct fleet_wish){ .state = INSTANCE_DRAINING });
}

void instances_disable(struct endpoint_call *c) {
	change(c, wish_state, &(struct fleet_wish){ .state = INSTANCE_DISABLED });
}

void instances_enable(struct endpoint_call *c) {
	change(c, wish_state, &(struct fleet_wish){ .state = INSTANCE_UNKNOWN });
}

/* False: it is none. */
static bool read_weight(struct slice body, struct fleet_wish *wish_out) {
	json_t *json = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, NULL);
	const json_t *weight = json_object_get(json, "weight");
	double thousandths = json_number_value(weight) * INSTANCE_WEIGHT_ONE;
	bool is_good = json_object_size(json) == 1 &&
	    (json_is_null(weight) ||
		(json_is_number(weight) && thousandths >= 0 && thousandths <= FLEET_WEIGHT_MAX));

	if (is_good)
		*wish_out = (struct fleet_wish){ .has_weight = !json_is_null(weight),
			.weight = thousandths > 0 && thousandths < 1 ? 1 : (uint32_t)(thousandths + 0.5) };
	json_decref(json);
	return is_good;
}

void instances_weight(struct endpoint_call *c) {
	struct fleet_wish wish;

	if (read_weight(endpoint_body(c), &wish))
		change(c, wish_weight, &wish);
	else
		explain_error(c, 400, "bad_request", "expected {\"weight\":N}, N from 0 to 1000000, or null");
}

static void log_lost_wish(void *context, struct slice name, const struct fleet_wish *wish) {
	log_wish("what an operator wished of an instance is not known to the new process", name, wish);
}

void instances_log_lost(const struct fleet *fleet) {
	fleet_each_wish(fleet, log_lost_wish, NULL);
}
