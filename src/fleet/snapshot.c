#include "fleet/snapshot.h"

#include <math.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "fleet/label.h"
#include "fleet/packed.h"

#define COST_MIN 0.01 /* what costs less has no more of a share */

/* "This row has this model": sorted, they are the model table. A lost model's row is behind the last one. */
struct offer {
	const struct pair *model;
	uint32_t row, primary;
};

/* What the block has to hold; upper bounds where several rows offer one model. */
struct need {
	size_t n_pairs, n_offers, n_pools, n_addresses, n_candidates, n_buckets, text_bytes;
};

/* Does a label say of anybody that it only prefills or decodes, for whatever model? */
static bool has_role(struct pairs labels) {
	for (uint32_t i = 0; i < labels.n; i++) {
		struct slice key = labels.items[i].key;
		enum role role;

		if ((slice_eq(key, SLICE("role")) || slice_eq(slice_head(key, 5), SLICE("role@"))) &&
		    role_find(labels.items[i].value, &role) && role != ROLE_UNIFIED)
			return true;
	}
	return false;
}

static bool has_roles(const struct snapshot_row *rows, uint32_t n_rows) {
	for (uint32_t i = 0; i < n_rows; i++)
		if (has_role(rows[i].labels))
			return true;
	return false;
}

static struct need need_of(const struct snapshot_row *rows, uint32_t n_rows, struct pairs lost) {
	struct need need = { .n_offers = lost.n, .n_pairs = lost.n, .n_candidates = n_rows, .n_buckets = 1 };

	need.text_bytes = pairs_text_bytes(lost);
	for (uint32_t i = 0; i < n_rows; i++) {
		need.n_offers += rows[i].models.n;
		need.n_pairs += rows[i].models.n + rows[i].labels.n;
		need.n_addresses += rows[i].n_addresses;
		need.text_bytes += pairs_text_bytes(rows[i].models) + pairs_text_bytes(rows[i].labels) +
		    rows[i].metadata.n + 1 + rows[i].kv_engine.n + 1;
	}
	need.n_candidates += need.n_offers;
	if (has_roles(rows, n_rows)) { /* two pools a model and of all, and each row in two of the three */
		need.n_pools = 2 * (need.n_offers + 1);
		need.n_candidates *= 2;
	}
	while (need.n_buckets < 2 * need.n_offers + 1)
		need.n_buckets *= 2;
	assert(need.n_candidates < UINT32_MAX && need.n_buckets < UINT32_MAX);
	return need;
}

/* From each primary on, the rows of its target. */
static void link_peers(struct snapshot_row *rows, uint32_t n_rows) {
	uint32_t *last = malloc((n_rows + 1) * sizeof(*last));

	for (uint32_t r = 0; r < n_rows; r++) {
		rows[r].next_peer = SNAPSHOT_NO_ROW;
		last[r] = r;
	}
	for (uint32_t r = 0; r < n_rows; r++) {
		uint32_t primary = rows[r].primary;

		if (primary == r)
			continue;
		rows[last[primary]].next_peer = r;
		last[primary] = r;
	}
	free(last);
}

static void write_rows(struct snapshot_row *rows, uint32_t n_rows, struct pair *pairs,
    struct sockaddr_storage *addresses, char *text) {
	for (uint32_t i = 0; i < n_rows; i++) {
		struct snapshot_row *row = &rows[i];

		assert(row->primary < n_rows);
		instance_ref(row->instance);
		row->models = pairs_write(row->models, &pairs, &text);
		row->labels = pairs_write(row->labels, &pairs, &text);
		row->metadata = packed_text(&text, row->metadata);
		row->kv_engine = packed_text(&text, row->kv_engine);
		if (row->n_addresses)
			memcpy(addresses, row->addresses, row->n_addresses * sizeof(*addresses));
		row->addresses = addresses;
		addresses += row->n_addresses;
	}
}

/* By name; rows of one target side by side, so that it becomes one candidate. */
static int offer_cmp(const void *left, const void *right) {
	const struct offer *a = left, *b = right;
	int by_name = pair_text_cmp(a->model->key, b->model->key);

	if (by_name)
		return by_name;
	if (a->primary != b->primary)
		return a->primary < b->primary ? -1 : 1;
	return (a->row > b->row) - (a->row < b->row);
}

static struct offer *offers_sorted(const struct snapshot *snap, size_t n_offers) {
	struct offer *offers = malloc((n_offers + 1) * sizeof(*offers)), *at = offers;

	for (uint32_t r = 0; r < snap->n_rows; r++)
		for (uint32_t m = 0; m < snap->rows[r].models.n; m++)
			*at++ = (struct offer){ &snap->rows[r].models.items[m], r, snap->rows[r].primary };
	for (uint32_t i = 0; i < snap->lost.n; i++)
		*at++ = (struct offer){ &snap->lost.items[i], snap->n_rows, snap->n_rows };
	assert(at == offers + n_offers);
	qsort(offers, n_offers, sizeof(*offers), offer_cmp);
	return offers;
}

/* --- what is said of them ----------------------------------------------------- */

static struct slice object_of(const struct snapshot_row *row, struct slice model) {
	for (uint32_t i = 0; i < row->models.n; i++)
		if (slice_eq(row->models.items[i].key, model))
			return row->models.items[i].value;
	return (struct slice){ NULL, 0 };
}

void snapshot_row_traits(
    const struct snapshot *snap, uint32_t row, struct slice model, struct traits *traits_out) {
	const struct snapshot_row *rows = snap->rows;
	uint32_t primary = rows[row].primary;

	assert(row < snap->n_rows);
	*traits_out = (struct traits){ .known = 0 };
	for (uint32_t r = primary; r != SNAPSHOT_NO_ROW; r = rows[r].next_peer)
		traits_declare(traits_out, rows[r].labels, model, !fleet_source_is_foreign(rows[r].source));
	for (uint32_t r = primary; r != SNAPSHOT_NO_ROW && model.n; r = rows[r].next_peer)
		traits_discover(traits_out, object_of(&rows[r], model));
}

/* Of all the candidates and the reserve of a model, whose name is known. */
static void write_traits(const struct snapshot *snap, struct model *model, struct traits *traits) {
	model->least = TRAITS_LEAST;
	for (uint32_t i = 0; i < model->n_candidates + model->n_reserve; i++) {
		snapshot_row_traits(snap, model->candidates[i].row, model->name, &traits[i]);
		traits_join(&model->least, &traits[i]);
	}
}

/* --- who is a candidate ------------------------------------------------------ */

/* Could take traffic, were it healthy. */
static bool is_usable(const struct snapshot *snap, uint32_t r) {
	const struct snapshot_row *row = &snap->rows[r];

	return row->state <= INSTANCE_UNHEALTHY && row->are_models_known && row->n_addresses > 0;
}

/* What there is for a model, counted before any is chosen. */
struct census {
	uint32_t n_usable, n_healthy;
	uint32_t n_serving; /* healthy, with a weight */
	uint32_t n_spare;   /* unhealthy, but not refusing */
	bool is_panic;
};

static void census_count(struct census *census, const struct snapshot *snap, uint32_t r) {
	const struct snapshot_row *row = &snap->rows[r];

	if (!is_usable(snap, r))
		return;
	census->n_usable++;
	if (row->state <= INSTANCE_DEGRADED) {
		census->n_healthy++;
		census->n_serving += row->weight > 0;
	} else if (!row->is_refusing) {
		census->n_spare++;
	}
}

static void census_decide(struct census *census) {
	uint32_t n_ill = census->n_usable - census->n_healthy;

	census->is_panic = census->n_spare && 2 * n_ill > census->n_usable;
}

static bool is_candidate(const struct snapshot *snap, const struct census *census, uint32_t r) {
	const struct snapshot_row *row = &snap->rows[r];

	if (row->weight == 0 && census->n_serving > 0)
		return false;
	return row->state <= INSTANCE_DEGRADED || (census->is_panic && !row->is_refusing);
}

static struct candidate candidate_of(const struct snapshot *snap, uint32_t r) {
	struct instance *inst = snap->rows[r].instance;

	return (struct candidate){ .instance = inst, .row = r, .slot = inst->slot };
}

/* What counts of a row's weight now: the dearer, the less. */
static uint64_t weight_of(const struct snapshot_row *row, const struct traits *traits) {
	uint64_t weight =
	    (uint64_t)snapshot_row_weight(row) * (row->share ? row->share : INSTANCE_SHARE_FULL);

	return u64_max((uint64_t)((double)weight / fmax(traits_cost(traits), COST_MIN) / COST_MIN + 0.5), 1);
}

static uint64_t common_divisor(uint64_t a, uint64_t b) {
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* Gives n candidates their weights: exact ratios where 16 bits can hold them. */
static void weigh(
    const struct snapshot *snap, struct candidate *candidates, const struct traits *traits, uint32_t n) {
	uint64_t divisor = 0, most = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t weight = weight_of(&snap->rows[candidates[i].row], &traits[i]);

		divisor = common_divisor(weight, divisor);
		most = u64_max(most, weight);
	}
	for (uint32_t i = 0; i < n; i++) {
		uint64_t weight = weight_of(&snap->rows[candidates[i].row], &traits[i]);

		candidates[i].weight = most / divisor <= UINT16_MAX
		    ? (uint16_t)(weight / divisor)
		    : (uint16_t)u64_max((weight * UINT16_MAX + most / 2) / most, 1);
	}
}

/* Where the candidates of the next model go, and what is said of them. */
struct room {
	struct candidate *candidates;
	struct traits *traits;
	struct model *pools; /* NULL: there are no roles */
	uint32_t *primaries; /* scratch */
};

/* Parts those who serve a model, n primaries, each row once, into its candidates and its reserve. */
static void model_part(struct snapshot *snap, struct model *model, const struct room *room,
    const uint32_t *primaries, uint32_t n) {
	struct candidate *candidates = room->candidates + snap->n_candidates;
	struct traits *traits = room->traits + snap->n_candidates;
	struct census census = { .n_usable = 0 };

	for (uint32_t i = 0; i < n; i++)
		census_count(&census, snap, primaries[i]);
	census_decide(&census);
	for (uint32_t i = 0; i < n; i++)
		if (is_usable(snap, primaries[i]) && is_candidate(snap, &census, primaries[i]))
			candidates[model->n_candidates++] = candidate_of(snap, primaries[i]);
	for (uint32_t i = 0; i < n; i++)
		if (is_usable(snap, primaries[i]) && !is_candidate(snap, &census, primaries[i]))
			candidates[model->n_candidates + model->n_reserve++] =
			    candidate_of(snap, primaries[i]);
	model->candidates = candidates;
	model->n_healthy = census.n_healthy;
	model->is_panic = census.is_panic;
	write_traits(snap, model, traits);
	weigh(snap, candidates, traits, model->n_candidates);
	weigh(snap, candidates + model->n_candidates, traits + model->n_candidates, model->n_reserve);
	snap->n_candidates += model->n_candidates + model->n_reserve;
}

static bool is_in_pool(enum pool pool, enum role role) {
	switch (pool) {
	case POOL_FIRST:
		return role != ROLE_DECODE;
	case POOL_DECODE:
		return role == ROLE_DECODE;
	default:
		return role != ROLE_PREFILL;
	}
}

/* The same with those of n primaries alone that belong into this pool; `roles` are parallel to them. */
static void pool_part(
    struct snapshot *snap, struct model *model, const struct room *room, const uint8_t *roles, uint32_t n) {
	uint32_t *chosen = malloc((n + 1) * sizeof(*chosen)), n_chosen = 0;

	for (uint32_t i = 0; i < n; i++)
		if (is_in_pool(model->pool, (enum role)roles[i]))
			chosen[n_chosen++] = room->primaries[i];
	model_part(snap, model, room, chosen, n_chosen);
	free(chosen);
}

static const struct model *write_pool(struct snapshot *snap, const struct model *model, enum pool pool,
    const struct room *room, const uint8_t *roles, uint32_t n) {
	struct model *own = &room->pools[snap->n_pools++];

	*own = (struct model){
		.name = model->name, .object = model->object, .label = model->label, .pool = pool
	};
	pool_part(snap, own, room, roles, n);
	return own;
}

/* Who serves a model that has its name, object and label: n of room->primaries. */
static void model_fill(struct snapshot *snap, struct model *model, const struct room *room, uint32_t n) {
	uint8_t *roles = calloc(n + 1, sizeof(*roles));
	bool has_any = false;

	for (uint32_t i = 0; room->pools && i < n; i++) {
		struct traits traits;

		snapshot_row_traits(snap, room->primaries[i], model->name, &traits);
		roles[i] = traits.kv.role;
		has_any |= roles[i] != ROLE_UNIFIED;
	}
	pool_part(snap, model, room, roles, n);
	if (has_any) {
		model->first = write_pool(snap, model, POOL_FIRST, room, roles, n);
		model->decode = write_pool(snap, model, POOL_DECODE, room, roles, n);
	}
	free(roles);
}

static void write_any(struct snapshot *snap, const struct room *room) {
	uint32_t n = 0;

	for (uint32_t r = 0; r < snap->n_rows; r++)
		if (snap->rows[r].primary == r)
			room->primaries[n++] = r;
	snap->any = (struct model){ .label = LABEL_OTHER };
	model_fill(snap, &snap->any, room, n);
}

/* The offers of one name, which are at the front. */
static size_t count_offers(const struct offer *offers, size_t n_offers) {
	size_t n = 1;

	while (n < n_offers && slice_eq(offers[n].model->key, offers[0].model->key))
		n++;
	return n;
}

/* One model out of its n offers. */
static void write_model(struct snapshot *snap, const struct offer *offers, size_t n, struct model *model,
    const struct room *room) {
	uint32_t n_primaries = 0;

	*model = (struct model){ .name = offers[0].model->key };
	for (size_t i = 0; i < n; i++) {
		if (offers[i].primary == snap->n_rows) /* lost: the last one */
			break;
		if (model->object.n == 0 && is_usable(snap, offers[i].primary))
			model->object = offers[i].model->value;
		if (i == 0 || offers[i].primary != offers[i - 1].primary)
			room->primaries[n_primaries++] = offers[i].primary;
	}
	model->label = label_intern(LABEL_MODEL, model->name);
	model_fill(snap, model, room, n_primaries);
}

static void write_models(
    struct snapshot *snap, struct model *models, const struct room *room, size_t n_offers) {
	struct offer *offers = offers_sorted(snap, n_offers);

	for (size_t i = 0; i < n_offers;) {
		struct model *model = &models[snap->n_models++];

		size_t n = count_offers(offers + i, n_offers - i);

		write_model(snap, offers + i, n, model, room);
		i += n;
	}
	free(offers);
}

static void write_buckets(const struct snapshot *snap, uint32_t *buckets) {
	for (uint32_t i = 0; i < snap->n_models; i++) {
		struct slice name = snap->models[i].name;
		uint32_t at = (uint32_t)XXH3_64bits(name.p, name.n) & snap->bucket_mask;

		while (buckets[at])
			at = (at + 1) & snap->bucket_mask;
		buckets[at] = i + 1;
	}
}

struct snapshot *snapshot_new(
    uint64_t version, const struct snapshot_row *rows, uint32_t n_rows, struct pairs lost) {
	struct need need = need_of(rows, n_rows, lost);
	size_t bytes = sizeof(struct snapshot) + n_rows * sizeof(struct snapshot_row) +
	    (need.n_offers + need.n_pools) * sizeof(struct model) +
	    need.n_candidates * (sizeof(struct candidate) + sizeof(struct traits)) +
	    need.n_pairs * sizeof(struct pair) + need.n_addresses * sizeof(struct sockaddr_storage) +
	    need.n_buckets * sizeof(uint32_t) + need.text_bytes;
	char *block = calloc(1, bytes), *at = block;

	/* By falling alignment: what is aligned to 8 first, then the buckets, then text. */
	struct snapshot *snap = packed_array(&at, 1, sizeof(*snap));
	struct snapshot_row *own_rows = packed_array(&at, n_rows, sizeof(*own_rows));
	struct model *models = packed_array(&at, need.n_offers, sizeof(*models));
	struct model *pools = packed_array(&at, need.n_pools, sizeof(*pools));
	struct candidate *candidates = packed_array(&at, need.n_candidates, sizeof(*candidates));
	struct traits *traits = packed_array(&at, need.n_candidates, sizeof(*traits));
	struct pair *pairs = packed_array(&at, need.n_pairs, sizeof(*pairs));
	struct sockaddr_storage *addresses = packed_array(&at, need.n_addresses, sizeof(*addresses));
	uint32_t *buckets = packed_array(&at, need.n_buckets, sizeof(*buckets));
	char *text = packed_array(&at, need.text_bytes, 1);
	assert(at == block + bytes);

	snap->version = version;
	snap->n_rows = n_rows;
	snap->rows = own_rows;
	snap->models = models;
	snap->pools = pools;
	snap->candidates = candidates;
	snap->traits = traits;
	snap->buckets = buckets;
	snap->bucket_mask = (uint32_t)need.n_buckets - 1;
	atomic_init(&snap->refs, 1);
	if (n_rows)
		memcpy(own_rows, rows, n_rows * sizeof(*rows));
	snap->lost = pairs_write(lost, &pairs, &text);
	write_rows(own_rows, n_rows, pairs, addresses, text);
	link_peers(own_rows, n_rows);
	struct room room = { candidates, traits, need.n_pools ? pools : NULL,
		malloc((n_rows + 1) * sizeof(*room.primaries)) };
	write_any(snap, &room);
	write_models(snap, models, &room, need.n_offers);
	free(room.primaries);
	write_buckets(snap, buckets);
	return snap;
}

struct snapshot *snapshot_ref(struct snapshot *snap) {
	uint32_t before = atomic_fetch_add_explicit(&snap->refs, 1, memory_order_relaxed);

	assert(before > 0);
	return snap;
}

void snapshot_unref(struct snapshot **snap_ptr) {
	struct snapshot *snap = *snap_ptr;

	if (!snap)
		return;
	*snap_ptr = NULL;
	uint32_t before = atomic_fetch_sub_explicit(&snap->refs, 1, memory_order_acq_rel);
	assert(before > 0);
	if (before > 1)
		return;
	for (uint32_t r = 0; r < snap->n_rows; r++) {
		struct instance *inst = snap->rows[r].instance;

		instance_unref(&inst);
	}
	free(snap);
}

const struct model *snapshot_model(const struct snapshot *snap, struct slice name) {
	for (uint32_t at = (uint32_t)XXH3_64bits(name.p, name.n);; at++) {
		uint32_t bucket = snap->buckets[at & snap->bucket_mask];

		if (bucket == 0)
			return NULL;
		if (slice_eq(snap->models[bucket - 1].name, name))
			return &snap->models[bucket - 1];
	}
}

const struct model *snapshot_counterpart(const struct snapshot *snap, const struct model *model) {
	const struct model *same = model->name.n ? snapshot_model(snap, model->name) : &snap->any;

	if (!same || model->pool == POOL_ALONE)
		return same;
	return model->pool == POOL_FIRST ? same->first : same->decode;
}

const char *fleet_source_text(enum fleet_source source) {
	static const char *const texts[FLEET_SOURCES] = { "static", "registry", "zmq", "api", "leaving" };

	assert(source < FLEET_SOURCES);
	return texts[source];
}

size_t snapshot_n_ranks(const struct snapshot *snap, uint32_t row) {
	size_t n = 1;

	for (uint32_t r = snap->rows[row].first_rank; r != SNAPSHOT_NO_ROW; r = snap->rows[r].next_rank)
		n = size_max(n, snap->rows[r].instance->spec.rank + 1u);
	return n;
}

bool snapshot_is_routable(const struct snapshot *snap, uint32_t r) {
	assert(r < snap->n_rows);
	const struct snapshot_row *row = &snap->rows[snap->rows[r].primary];

	return row->state <= INSTANCE_DEGRADED && row->are_models_known && row->n_addresses > 0;
}
