#include "router/policy_config.h"

#include <stdlib.h>

#include "fleet/traits.h"
#include "policy/policy.h"

const char *const policy_config_names[] = { "cache_aware", "round_robin", "least_load", "power_of_two",
	"random", "weighted_random", "least_latency", "consistent_hash", "rendezvous_hash", "session",
	"bucket", "size_class", "composite", "least_connections", NULL };

static const struct policy *find(struct option_set *set, const char *path, const char *name) {
	const struct policy *policy = policy_find(slice_of(name));

	if (!policy)
		option_mistake(set, path, "\"%s\" is no policy", name);
	return policy;
}

static struct slice join(struct option_set *set, const struct option_list *list) {
	size_t bytes = 1;

	for (size_t i = 0; i < list->n; i++)
		bytes += strlen(list->items[i]) + 1;
	char *text = option_alloc(set, bytes), *at = text;
	for (size_t i = 0; i < list->n; i++)
		at += snprintf(at, bytes - (size_t)(at - text), "%s%s", i ? "," : "", list->items[i]);
	return (struct slice){ text, (size_t)(at - text) };
}

static void verify_locality(struct option_set *set, struct router_config *config) {
	struct locality_options *locality = &config->policies.locality;

	locality->zone = traits_word(slice_of(config->zone));
	locality->region = traits_word(slice_of(config->region));
	locality->threshold = strtod(config->locality_threshold, NULL);
	if (locality->zone || locality->region)
		option_default(set, config, "locality.mode", "prefer");
	else if (locality->mode != LOCALITY_OFF)
		option_mistake(set, "locality.mode", "needs locality.zone or locality.region");
}

void policy_config_verify(struct option_set *set, struct router_config *config) {
	const struct option_map *given = &config->model_policies;
	struct policy_of_model *models = calloc(given->n + 1, sizeof(*models));

	for (size_t i = 0; i < given->n; i++)
		models[i] = (struct policy_of_model){ slice_of(given->items[i].name),
			find(set, "policy.models", given->items[i].value) };
	config->policies.policy = find(set, "policy.default", config->policy);
	config->policies.models = models;
	config->policies.n_models = given->n;
	verify_locality(set, config);
	config->policies.residency = join(set, &config->residency);
}

void policy_config_free(struct router_config *config) {
	free((void *)config->policies.models);
}
