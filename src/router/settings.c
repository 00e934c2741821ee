#include "router/settings.h"

#include <stdlib.h>

_Static_assert(TENANT_NUMBERS_MAX <= ADMISSION_TENANTS_MAX, "each tenant has a cap");

static _Atomic uint32_t n_alive;

static struct admission_tenant *shares_of(const struct tenant_table *table) {
	uint32_t n = tenant_table_n(table);
	struct admission_tenant *shares = calloc(n, sizeof(*shares));

	for (uint32_t i = 0; i < n; i++) {
		if (!tenant_is_there(table, i))
			continue;
		const struct tenant *tenant = tenant_get(table, i);
		shares[i] =
		    (struct admission_tenant){ tenant->max_requests, tenant->weight, tenant->priority };
	}
	return shares;
}

struct settings *settings_new(
    const struct router_config *config, unsigned n_workers, const struct settings *before) {
	size_t bytes = sizeof(struct settings) + n_workers * sizeof(struct settings_users);
	struct settings *s = aligned_alloc(alignof(struct settings), bytes);

	assert(s);
	memset(s, 0, bytes);
	s->config = config;
	tenant_table_label(config->tenants);
	s->shares = shares_of(config->tenants);
	s->n_tenants = tenant_table_n(config->tenants);
	s->rates = rate_table_new(config->tenants, config->requests_per_second);
	if (before)
		rate_table_follow(s->rates, before->rates);
	atomic_init(&s->refs, 1);
	atomic_fetch_add(&n_alive, 1);
	return s;
}

void settings_own(struct settings *s, struct router_config *config) {
	assert(!s->owned && s->config == config);
	s->owned = config;
}

struct settings *settings_ref(struct settings *s) {
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void settings_unref(struct settings **sp) {
	struct settings *s = *sp;

	*sp = NULL;
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1)
		return;
	rate_table_free(&s->rates); /* it looks at the tenants, which are the configuration's */
	free((struct admission_tenant *)s->shares);
	router_config_free(&s->owned);
	free(s);
	atomic_fetch_sub(&n_alive, 1);
}

void settings_release(struct settings **sp, unsigned worker) {
	struct settings *s = *sp;

	*sp = NULL;
	assert(s->users[worker].n > 0);
	if (--s->users[worker].n == 0)
		settings_unref(&s);
}

struct admission_limits settings_limits(const struct settings *s) {
	const struct router_admission *admission = &s->config->admission;

	return (struct admission_limits){ .max_requests = admission->max_requests,
		.model_requests = admission->model_requests,
		.models = admission->models,
		.tenants = s->shares,
		.n_tenants = s->n_tenants };
}

uint32_t settings_n_alive(void) {
	return atomic_load(&n_alive);
}
