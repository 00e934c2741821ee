#include "router/alias_config.h"

#include <jansson.h>
#include <stdlib.h>

#include "router/policy_config.h"

#define FLAG "router.model_alias"

/* The model's id as it stands in a body. */
static struct slice json_of(struct option_set *set, struct slice model) {
	json_t *json = json_stringn(model.p, model.n);
	char *text = json_dumps(json, JSON_ENCODE_ANY);
	size_t n = text ? strlen(text) : 0;
	char *own = option_alloc(set, n + 1);

	memcpy(own, text ? text : "", n);
	free(text);
	json_decref(json);
	return (struct slice){ own, n };
}

static struct alias alias_of(
    struct option_set *set, const char *path, struct slice name, struct slice model) {
	policy_config_verify_model(set, path, name);
	policy_config_verify_model(set, path, model);
	return (struct alias){ name, model, json_of(set, model) };
}

/* Of "ALIAS=MODEL". Ids of models may have a '=', such an alias stands in [alias]. */
static struct alias given_alias(struct option_set *set, const char *text) {
	const char *equals = strchr(text, '=');

	if (equals)
		return alias_of(
		    set, FLAG, (struct slice){ text, (size_t)(equals - text) }, slice_of(equals + 1));
	option_mistake(set, FLAG, "expected ALIAS=MODEL, got \"%s\"", text);
	return (struct alias){ .name = slice_of(text) };
}

/* The first of a name counts: what is given by flags stands before the file's. */
static size_t add(struct alias *items, size_t n, const struct alias *alias) {
	for (size_t i = 0; i < n; i++)
		if (slice_eq(items[i].name, alias->name))
			return n;
	items[n] = *alias;
	return n + 1;
}

static size_t collect(struct option_set *set, const struct router_config *config, struct alias *items) {
	const struct option_list *given = &config->given_aliases;
	const struct option_map *map = &config->alias_map;
	size_t n = 0, before;

	for (size_t i = 0; i < given->n; i++) {
		struct alias alias = given_alias(set, given->items[i]);

		before = n;
		n = add(items, n, &alias);
		if (n == before)
			option_mistake(set, FLAG, "\"%.*s\" is there twice", (int)alias.name.n, alias.name.p);
	}
	for (size_t i = 0; i < map->n; i++) {
		struct alias alias =
		    alias_of(set, "alias", slice_of(map->items[i].name), slice_of(map->items[i].value));

		n = add(items, n, &alias);
	}
	return n;
}

static bool is_declared(const struct router_config *config, struct slice model) {
	for (size_t i = 0; i < config->workers.n; i++) {
		const struct option_list *models = &config->workers.items[i].models;

		for (size_t k = 0; k < models->n; k++)
			if (slice_eq(slice_of(models->items[k]), model))
				return true;
	}
	return false;
}

static void verify_alias(
    struct option_set *set, const struct router_config *config, const struct alias *alias) {
	int n = (int)alias->name.n;

	if (alias_find(&config->aliases, alias->model))
		option_mistake(set, "alias", "\"%.*s\" stands for \"%.*s\", which is an alias itself", n,
		    alias->name.p, (int)alias->model.n, alias->model.p);
	else if (is_declared(config, alias->name))
		option_warning(set, "alias",
		    "\"%.*s\" is a model of a worker, too: requests for it are for \"%.*s\"", n,
		    alias->name.p, (int)alias->model.n, alias->model.p);
}

void alias_config_verify(struct option_set *set, struct router_config *config) {
	size_t n_max = config->given_aliases.n + config->alias_map.n;
	struct alias *items = option_alloc(set, (n_max + 1) * sizeof(*items));
	size_t n = collect(set, config, items);

	qsort(items, n, sizeof(*items), alias_cmp);
	config->aliases = (struct alias_table){ items, n };
	for (size_t i = 0; i < n; i++)
		verify_alias(set, config, &items[i]);
}
