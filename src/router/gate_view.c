#include "router/gate_view.h"

#include <math.h>

/* null: there is none. */
static json_t *count_or_null(uint64_t n, bool is_known) {
	return is_known ? json_integer((json_int_t)n) : json_null();
}

static uint64_t read_count(const _Atomic uint32_t *n) {
	return atomic_load_explicit(n, memory_order_relaxed);
}

static void add_cap(json_t *to, const struct cap *cap) {
	uint64_t max = read_count(&cap->max);

	json_object_set_new(to, "max_requests", count_or_null(max, max));
	json_object_set_new(to, "requests", count_or_null(read_count(&cap->n), max));
	json_object_set_new(to, "waiting", count_or_null(read_count(&cap->n_waiting), true));
}

static json_t *model_text(uint32_t label) {
	return label == LABEL_OTHER ? json_null() : json_string(label_text(LABEL_MODEL, label));
}

/* Those that have anything to tell. */
static json_t *models_of(const struct admission *a) {
	json_t *models = json_array();

	for (uint32_t label = 0; label < LABELS; label++) {
		const struct cap *cap = &a->models[label];
		bool has_news = read_count(&cap->n_waiting) || (read_count(&cap->max) && read_count(&cap->n));

		if (!has_news)
			continue;
		json_t *model = json_pack("{s:o}", "model", model_text(label));
		add_cap(model, cap);
		json_array_append_new(models, model);
	}
	return models;
}

/* null: nobody's. It may be one whose requests are there still, but no tenant any more. */
static json_t *tenant_text(uint32_t tenant) {
	return tenant == TENANT_ANONYMOUS ? json_null() : json_string(tenant_number_name(tenant));
}

/* Those that have a cap, or somebody who waits. */
static json_t *tenants_of(const struct router *router) {
	const struct admission *a = router->admission;
	json_t *tenants = json_array();

	for (uint32_t i = 0; i < ADMISSION_TENANTS_MAX; i++) {
		const struct cap *cap = &a->tenants[i];

		if (!read_count(&cap->max) && !read_count(&cap->n_waiting))
			continue;
		json_t *tenant = json_pack("{s:o}", "tenant", tenant_text(i));
		add_cap(tenant, cap);
		json_array_append_new(tenants, tenant);
	}
	return tenants;
}

struct queue_view {
	const struct router *router;
	json_t *list;
};

static void see_waiter(void *context, const struct gate_sight *sight) {
	const struct waiter *w = sight->waiter;
	const struct queue_view *view = context;
	json_t *id;

	if (json_array_size(view->list) == GATE_VIEW_WAITERS_MAX)
		return;
	id = json_string(w->id);
	json_array_append_new(view->list,
	    json_pack("{s:o, s:i, s:i, s:o, s:o, s:I, s:b}", "id", id ? id : json_null(), "position",
		(int)sight->position, "class", (int)w->fair.class, "tenant", tenant_text(w->place.tenant),
		"model", model_text(w->place.label), "waited_ms", (json_int_t)sight->waited_ms,
		"called_before", w->is_again));
}

json_t *gate_view(const struct router *router) {
	const struct router_admission *config = &router->settings->config->admission;
	double rate = gatekeeper_drain_rate(router->gate);
	json_t *view = json_object(), *classes = json_array(), *queue = json_array();

	add_cap(view, &router->admission->all);
	for (unsigned class = 0; class < FAIR_CLASSES; class ++)
		json_array_append_new(classes, json_integer(gatekeeper_n_waiting(router->gate, class)));
	gatekeeper_each(router->gate, see_waiter, &(struct queue_view){ router, queue });
	json_object_set_new(view, "queue_size", json_integer(gatekeeper_n_max(router->gate)));
	json_object_set_new(view, "queue_timeout_ms", json_integer((json_int_t)config->queue_timeout_ms));
	json_object_set_new(view, "drained_per_second", isnan(rate) ? json_null() : json_real(rate));
	json_object_set_new(view, "retry_after", json_integer(gatekeeper_retry_after_s(router->gate)));
	json_object_set_new(view, "classes", classes);
	json_object_set_new(view, "models", models_of(router->admission));
	json_object_set_new(view, "tenants", tenants_of(router));
	json_object_set_new(view, "queue", queue);
	return view;
}
