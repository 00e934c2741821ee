#include "router/static_fleet.h"

#include <stdlib.h>

static struct pairs pairs_of_list(const struct option_list *list, struct pair *room) {
	for (size_t i = 0; i < list->n; i++)
		room[i] = (struct pair){ .key = slice_of(list->items[i]) };
	return (struct pairs){ room, (uint32_t)list->n };
}

static struct pairs pairs_of_map(const struct option_map *map, struct pair *room) {
	for (size_t i = 0; i < map->n; i++)
		room[i] = (struct pair){ slice_of(map->items[i].name), slice_of(map->items[i].value) };
	return (struct pairs){ room, (uint32_t)map->n };
}

/* `room` has as many pairs as it has models and labels. */
static struct fleet_spec spec_of(
    const struct router_worker *w, const struct rank_defaults *ranks, struct pair *room) {
	struct fleet_spec spec = {
		.instance = { .name = slice_of(w->name),
		    .url = slice_of(w->url),
		    .host = slice_of(w->host),
		    .base = slice_of(w->base),
		    .key = slice_of(w->api_key),
		    .port = w->port,
		    .rank = w->rank,
		    .has_rank = w->has_rank,
		    .is_tls = w->is_tls },
		.weight = w->weight * INSTANCE_WEIGHT_ONE,
		.models = pairs_of_list(&w->models, room),
		.labels = pairs_of_map(&w->labels, room + w->models.n),
	};

	struct slice origin = spec.instance.url;
	if (w->has_rank && !rank_split(origin, &origin, &spec.instance.rank))
		assert(!"a url that was made of its parts");
	origin = slice_head(origin, origin.n - spec.instance.base.n);
	spec.instance.authority = slice_skip(origin, w->is_tls ? strlen("https://") : strlen("http://"));
	spec.n_ranks = w->n_ranks ? w->n_ranks : rank_count_of(spec.labels, ranks);
	return spec;
}

void static_fleet_init(struct static_fleet *fleet, const struct router_config *config) {
	const struct router_worker *workers = config->workers.items;
	const struct static_file *file = &config->static_services;
	size_t n_workers = config->workers.n, n_pairs = 0;

	for (size_t i = 0; i < n_workers; i++)
		n_pairs += workers[i].models.n + workers[i].labels.n;
	*fleet = (struct static_fleet){ .n = n_workers + file->n,
		.specs = calloc(n_workers + file->n + 1, sizeof(*fleet->specs)),
		.pairs = calloc(n_pairs + 1, sizeof(*fleet->pairs)) };
	struct pair *room = fleet->pairs;
	for (size_t i = 0; i < n_workers; i++) {
		fleet->specs[i] = spec_of(&workers[i], &config->ranks, room);
		room += workers[i].models.n + workers[i].labels.n;
	}
	for (size_t i = 0; i < file->n; i++) {
		struct fleet_spec *spec = &fleet->specs[n_workers + i];

		*spec = file->services[i]->spec;
		spec->n_ranks = rank_count_of(spec->labels, &config->ranks);
	}
}

void static_fleet_deinit(struct static_fleet *fleet) {
	free(fleet->specs);
	free(fleet->pairs);
	*fleet = (struct static_fleet){ .n = 0 };
}
