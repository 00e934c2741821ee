#include "router/config_diff.h"

#include "base/option_diff.h"
#include "router/pairs_json.h"
#include "router/static_fleet.h"

#define MASK "(secret)"

/* --- options ------------------------------------------------------------------------------ */

static bool is_listed(const json_t *list, const char *option) {
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!strcmp(json_string_value(json_object_get(json_array_get(list, i), "option")), option))
			return true;
	return false;
}

/* A file of the same name with another key in it. */
static void add_key_of_file(
    json_t *list, const char *option, const char *file, const char *from, const char *to) {
	if (file[0] && strcmp(from, to) && !is_listed(list, option))
		json_array_append_new(
		    list, json_pack("{s:s, s:s, s:s}", "option", option, "from", MASK, "to", MASK));
}

static json_t *options_of(const struct router_config *before, const struct router_config *after) {
	json_t *list = option_diff(before->options, after->options, false);

	add_key_of_file(list, "upstream.api_key_file", after->upstream_key_file, before->upstream_key,
	    after->upstream_key);
	return list;
}

/* --- things with names: name -> {option: value} --------------------------------------------- */

static json_t *ranks_json(uint16_t n) {
	return n == RANKS_AUTO ? json_string("auto") : json_integer(n);
}

static json_t *workers_of(const struct router_config *config) {
	json_t *workers = json_object();
	struct static_fleet fleet;

	static_fleet_init(&fleet, config);
	for (size_t i = 0; i < fleet.n; i++) {
		const struct fleet_spec *spec = &fleet.specs[i];

		json_object_setn_new(workers, spec->instance.name.p, spec->instance.name.n,
		    json_pack("{s:o, s:o, s:f, s:o, s:o, s:o, s:o}", "ranks", ranks_json(spec->n_ranks),
			"url", text_json(spec->instance.url), "weight",
			(double)spec->weight / INSTANCE_WEIGHT_ONE, "models", pairs_json_keys(spec->models),
			"labels", pairs_json(spec->labels), "metadata", text_json(spec->metadata), "api_key",
			text_json(spec->instance.key)));
	}
	static_fleet_deinit(&fleet);
	return workers;
}

static json_t *list_json(const struct option_list *list) {
	json_t *json = json_array();

	for (size_t i = 0; i < list->n; i++)
		json_array_append_new(json, text_json(slice_of(list->items[i])));
	return json;
}

static json_t *map_json(const struct option_map *map) {
	json_t *json = json_object();

	for (size_t i = 0; i < map->n; i++)
		json_object_set_new(json, map->items[i].name, text_json(slice_of(map->items[i].value)));
	return json;
}

/* Not the keys, which are masked whatever they are, but what is another one when they are others. */
static json_t *keys_json(const struct tenant_table *table, uint32_t tenant) {
	struct tenant_keys keys = tenant_keys_of(table, tenant);
	json_t *json = json_array();

	json_array_append_new(json, json_integer(keys.n));
	for (unsigned i = 0; i < DIGEST_BYTES; i++)
		json_array_append_new(json, json_integer(keys.sum[i]));
	return json;
}

static json_t *tenants_of(const struct router_config *config) {
	const struct tenant_table *table = config->tenants;
	json_t *tenants = json_object();

	for (uint32_t i = 1; i < tenant_table_n(table); i++) {
		if (!tenant_is_there(table, i))
			continue;
		const struct tenant *t = tenant_get(table, i);
		json_object_set_new(tenants, t->name,
		    json_pack("{s:o, s:o, s:I, s:I, s:I, s:i, s:I, s:s, s:o}", "keys", keys_json(table, i),
			"models", list_json(&t->models), "max_requests", (json_int_t)t->max_requests,
			"requests_per_minute", (json_int_t)t->requests_per_minute, "tokens_per_minute",
			(json_int_t)t->tokens_per_minute, "priority", (int)t->priority, "weight",
			(json_int_t)t->weight, "privacy_floor", privacy_text(t->privacy_floor), "labels",
			map_json(&t->labels)));
	}
	return tenants;
}

static json_t *shown(const char *option, json_t *value) {
	bool is_secret = !strcmp(option, "api_key") || !strcmp(option, "keys");

	return is_secret ? json_string(MASK) : json_incref(value);
}

static json_t *changes_of(json_t *before, json_t *after) {
	json_t *list = json_array(), *from;
	const char *option;

	json_object_foreach(before, option, from) {
		json_t *to = json_object_get(after, option);

		if (!json_equal(from, to))
			json_array_append_new(list,
			    json_pack("{s:s, s:o, s:o}", "option", option, "from", shown(option, from), "to",
				shown(option, to)));
	}
	return list;
}

/* Takes both. */
static json_t *diff_named(json_t *before, json_t *after) {
	json_t *added = json_array(), *removed = json_array(), *changed = json_array(), *item;
	const char *name;

	json_object_foreach(before, name, item) {
		json_t *now = json_object_get(after, name), *changes = now ? changes_of(item, now) : NULL;

		if (!now)
			json_array_append_new(removed, json_string(name));
		if (json_array_size(changes))
			json_array_append_new(
			    changed, json_pack("{s:s, s:O}", "name", name, "changes", changes));
		json_decref(changes);
	}
	json_object_foreach(after, name, item) {
		if (!json_object_get(before, name))
			json_array_append_new(added, json_string(name));
	}
	json_decref(before);
	json_decref(after);
	return json_pack("{s:o, s:o, s:o}", "added", added, "removed", removed, "changed", changed);
}

/* --- all --------------------------------------------------------------------------------------- */

json_t *config_diff(const struct router_config *before, const struct router_config *after) {
	return json_pack("{s:o, s:o, s:o}", "options", options_of(before, after), "workers",
	    diff_named(workers_of(before), workers_of(after)), "tenants",
	    diff_named(tenants_of(before), tenants_of(after)));
}

static bool is_empty(const json_t *named) {
	return !json_array_size(json_object_get(named, "added")) &&
	    !json_array_size(json_object_get(named, "removed")) &&
	    !json_array_size(json_object_get(named, "changed"));
}

bool config_diff_is_empty(const json_t *diff) {
	return !json_array_size(json_object_get(diff, "options")) &&
	    is_empty(json_object_get(diff, "workers")) && is_empty(json_object_get(diff, "tenants"));
}
