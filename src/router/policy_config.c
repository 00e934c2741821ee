#include "router/policy_config.h"

#include "fleet/fleet.h"
#include "fleet/traits.h"
#include "policy/policy.h"
#include "policy/session_table.h"
#include "router/scan.h"

const char *const policy_config_names[] = { "cache_aware", "round_robin", "least_load", "power_of_two",
	"random", "weighted_random", "least_latency", "consistent_hash", "rendezvous_hash", "session",
	"bucket", "size_class", "composite", "least_connections", NULL };

static const struct policy *find(struct option_set *set, const char *path, const char *name) {
	const struct policy *policy = policy_find(slice_of(name));

	if (!policy)
		option_mistake(set, path, "\"%s\" is no policy", name);
	return policy;
}

_Static_assert(144 * 3600 <= SESSION_IDLE_MAX_S, "the longest idle time that is taken can be told");

static const struct policy *find_then(struct option_set *set, const char *name) {
	const struct policy *policy = find(set, "size_class.then", name);

	if (policy && !policy_can_follow(policy))
		option_mistake(
		    set, "size_class.then", "\"%s\" cannot decide among the engines of a class", name);
	return policy;
}

void policy_config_verify_model(struct option_set *set, const char *path, struct slice model) {
	if (!model.n || model.n > FLEET_MODEL_BYTES_MAX || !scan_is_clean(model))
		option_mistake(set, path,
		    "\"%.*s\" is no name of a model: expected 1 to %d bytes without control characters",
		    (int)model.n, model.n ? model.p : "", FLEET_MODEL_BYTES_MAX);
}

static struct policy_of_model model_policy(
    struct option_set *set, const char *path, struct slice model, const char *name) {
	policy_config_verify_model(set, path, model);
	return (struct policy_of_model){ model, find(set, path, name) };
}

/* Of "MODEL=POLICY". Names of models may have a '=', those of policies have none. */
static struct policy_of_model given_policy(struct option_set *set, const char *text) {
	static const char path[] = "policy.model_policy";
	const char *equals = strrchr(text, '=');

	if (equals)
		return model_policy(set, path, (struct slice){ text, (size_t)(equals - text) }, equals + 1);
	option_mistake(set, path, "expected MODEL=POLICY, got \"%s\"", text);
	return (struct policy_of_model){ { text, 0 }, NULL };
}

/* The first that is of a model counts. */
static void verify_models(struct option_set *set, struct router_config *config) {
	const struct option_list *given = &config->given_policies;
	const struct option_map *map = &config->model_policies;
	struct policy_of_model *models = option_alloc(set, (given->n + map->n + 1) * sizeof(*models));

	for (size_t i = 0; i < given->n; i++) {
		models[i] = given_policy(set, given->items[i]);
		for (size_t k = 0; k < i; k++)
			if (models[i].model.n && slice_eq(models[i].model, models[k].model))
				option_mistake(set, "policy.model_policy", "\"%.*s\" is there twice",
				    (int)models[i].model.n, models[i].model.p);
	}
	for (size_t i = 0; i < map->n; i++)
		models[given->n + i] =
		    model_policy(set, "policy.models", slice_of(map->items[i].name), map->items[i].value);
	config->policies.models = models;
	config->policies.n_models = given->n + map->n;
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
	if (locality->zone || locality->region)
		option_default(set, config, "locality.mode", "prefer");
	else if (locality->mode != LOCALITY_OFF)
		option_mistake(set, "locality.mode", "needs locality.zone or locality.region");
}

/* Who moves one of the flags over from vLLM's router has the other's default from there, too. */
static void verify_balance(struct option_set *set, struct router_config *config) {
	static const char abs[] = "policy.balance_abs_threshold", rel[] = "policy.balance_rel_threshold";
	const struct policy_options *options = &config->policies;

	if (options->balance_rel_threshold > 0 && options->balance_rel_threshold < 1)
		option_mistake(set, rel, "expected 1 or more, or 0");
	if (options->balance_rel_threshold > 0 && !option_is_given(set, abs))
		option_default(set, config, abs, "64");
	if (options->balance_abs_threshold && !option_is_given(set, rel))
		option_default(set, config, rel, "1.5");
}

static void verify_composite(struct option_set *set, const struct router_config *config) {
	const double *weights = config->policies.composite_weights;
	unsigned n = 0;

	for (unsigned i = 0; i < n_elems(config->policies.composite_weights); i++)
		n += weights[i] > 0;
	if (!n)
		option_mistake(set, "composite.load", "the four weights are 0: nothing would count");
}

static void warn_without_effect(struct option_set *set) {
	static const struct {
		const char *path, *why;
	} rows[] = {
		{ "policy.eviction_interval",
		    "has no effect: the index is bounded by policy.prefix_index_mb" },
		{ "policy.max_tree_size", "has no effect: the index is bounded by policy.prefix_index_mb" },
	};

	for (size_t i = 0; i < n_elems(rows); i++)
		if (option_is_given(set, rows[i].path))
			option_warning(set, rows[i].path, "%s", rows[i].why);
}

/* Of a role; NULL: the model's. */
static const struct policy *find_role(struct option_set *set, const char *path, const char *name) {
	return name[0] ? find(set, path, name) : NULL;
}

void policy_config_verify(struct option_set *set, struct router_config *config) {
	config->policies.policy = find(set, "policy.default", config->policy);
	config->policies.prefill = find_role(set, "policy.prefill", config->prefill_policy);
	config->policies.decode = find_role(set, "policy.decode", config->decode_policy);
	if (!connector_find(slice_of(config->pd.connector), &config->policies.connector))
		config->policies.connector = CONNECTOR_NIXL; /* its row says what is wrong */
	verify_models(set, config);
	verify_locality(set, config);
	verify_balance(set, config);
	verify_composite(set, config);
	config->policies.residency = join(set, &config->residency);
	config->policies.size_class_then = find_then(set, config->size_class_then);
	warn_without_effect(set);
}
