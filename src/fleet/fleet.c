/*
 * The table is an array of pointers to records, sorted by source and name: lookups
 * bisect it, its order is that of the rows, and an insertion moves at most 32 KiB of
 * pointers on a thread that has time. Records find their peers of one identity when a
 * snapshot is built, by sorting.
 */
#include "fleet/fleet.h"

#include <stdlib.h>

#define HASH_FUNCTION HASH_SAX /* the default one falls through its cases, which clang refuses */
#include <uthash.h>

#include "base/log.h"
#include "fleet/identity.h"

/* A model of a record that is gone. */
struct lost {
	UT_hash_handle hh;
	uint64_t since_ms; /* 0: until the next fleet_forget() */
	char name[];
};

struct wish {
	UT_hash_handle hh;
	struct fleet_wish is;
	char name[];
};

struct record {
	struct instance *instance;
	enum fleet_source source;
	enum instance_state state;
	uint32_t weight;
	uint8_t share;
	bool is_refusing, is_denied, is_draining;
	bool are_models_known, are_models_declared;
	uint32_t n_addresses;
	struct sockaddr_storage *addresses;
	struct pairs models, labels;
	char *metadata;  /* NULL: none */
	char *kv_engine; /* likewise */
	uint64_t held_until_ms;
	struct identity identity;
	uint64_t age;   /* counts records: the smaller, the older */
	uint64_t round; /* the last delivery that named it */

	/* of a build */
	uint32_t row;
	struct record *primary;
	enum instance_state row_state;
	uint8_t row_share;
	bool is_row_refusing;
};

struct fleet {
	struct record *records[INSTANCE_SLOTS_MAX];
	struct record *by_slot[INSTANCE_SLOTS_MAX];
	struct lost *lost;   /* by name */
	struct wish *wishes; /* likewise */
	uint32_t n_records;  /* each owns a slot, so there are never more than slots */
	uint64_t n_ages, round, version;
	bool is_dirty;
};

struct fleet *fleet_new(void) {
	struct fleet *fleet = calloc(1, sizeof(*fleet));

	fleet->is_dirty = true;
	return fleet;
}

static struct record *record_new(
    struct fleet *fleet, enum fleet_source source, const struct instance_spec *spec) {
	struct instance *inst = instance_new(spec);

	if (!inst)
		return NULL;
	struct record *record = calloc(1, sizeof(*record));
	record->instance = inst;
	record->source = source;
	record->share = INSTANCE_SHARE_FULL;
	record->age = fleet->n_ages++;
	identity_init(&record->identity, &inst->spec, NULL, 0);
	assert(!fleet->by_slot[inst->slot]);
	fleet->by_slot[inst->slot] = record;
	return record;
}

static void fleet_lose(struct fleet *fleet, struct slice model) {
	struct lost *lost;

	HASH_FIND(hh, fleet->lost, model.p, model.n, lost);
	if (!lost) {
		if (HASH_COUNT(fleet->lost) == FLEET_LOST_MAX)
			return;
		lost = calloc(1, sizeof(*lost) + model.n + 1);
		memcpy(lost->name, model.p, model.n);
		HASH_ADD(hh, fleet->lost, name[0], (unsigned)model.n, lost);
	}
	lost->since_ms = 0;
}

static void lost_free(struct fleet *fleet, struct lost *lost) {
	/* The analyser does not see that the last one takes the table along. */
	HASH_DEL(fleet->lost, lost); /* NOLINT(clang-analyzer-unix.Malloc) */
	free(lost);
	fleet->is_dirty = true;
}

void fleet_forget(struct fleet *fleet, uint64_t kept_ms, uint64_t now_ms) {
	struct lost *lost, *next;

	HASH_ITER(hh, fleet->lost, lost, next) {
		if (!lost->since_ms)
			lost->since_ms = now_ms;
		if (now_ms - lost->since_ms >= kept_ms)
			lost_free(fleet, lost);
	}
}

static void wish_free(struct fleet *fleet, struct wish *wish) {
	HASH_DEL(fleet->wishes, wish); /* NOLINT(clang-analyzer-unix.Malloc) */
	free(wish);
}

static struct wish *wish_find(const struct fleet *fleet, struct slice name) {
	struct wish *wish;

	HASH_FIND(hh, fleet->wishes, name.p, name.n, wish);
	return wish;
}

static void record_free(struct fleet *fleet, struct record *record) {
	assert(fleet->by_slot[record->instance->slot] == record);
	for (uint32_t i = 0; i < record->models.n; i++)
		fleet_lose(fleet, record->models.items[i].key);
	fleet->by_slot[record->instance->slot] = NULL;
	instance_unref(&record->instance);
	pairs_free(&record->models);
	pairs_free(&record->labels);
	free(record->metadata);
	free(record->kv_engine);
	free(record->addresses);
	free(record);
}

void fleet_free(struct fleet **fleet_ptr) {
	struct fleet *fleet = *fleet_ptr;
	struct wish *wish, *next;

	if (!fleet)
		return;
	*fleet_ptr = NULL;
	for (uint32_t i = 0; i < fleet->n_records; i++)
		record_free(fleet, fleet->records[i]);
	fleet_forget(fleet, 0, 0);
	HASH_ITER(hh, fleet->wishes, wish, next) {
		wish_free(fleet, wish);
	}
	free(fleet);
}

static int record_name_cmp(const struct record *record, enum fleet_source source, struct slice name) {
	if (record->source != source)
		return record->source < source ? -1 : 1;
	return pair_text_cmp(record->instance->spec.name, name);
}

/* Where the record of that name is, or where it would go. */
static uint32_t fleet_position(
    const struct fleet *fleet, enum fleet_source source, struct slice name, bool *is_there_out) {
	uint32_t from = 0, to = fleet->n_records;

	*is_there_out = false;
	while (from < to) {
		uint32_t mid = from + (to - from) / 2;
		int cmp = record_name_cmp(fleet->records[mid], source, name);

		if (cmp == 0) {
			*is_there_out = true;
			return mid;
		}
		if (cmp < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

/* What this instance is the runtime of; NULL when it has left the fleet. */
static struct record *fleet_record(const struct fleet *fleet, const struct instance *inst) {
	struct record *record = fleet->by_slot[inst->slot];

	return record && record->instance == inst ? record : NULL;
}

/* Such texts end up in heads, log lines and metrics. */
static bool is_text_ok(struct slice text, size_t bytes_max) {
	for (size_t i = 0; i < text.n; i++)
		if ((unsigned char)text.p[i] < ' ' || text.p[i] == 0x7f)
			return false;
	return text.n > 0 && text.n <= bytes_max;
}

static bool is_model_ok(const struct pair *model) {
	return is_text_ok(model->key, FLEET_MODEL_BYTES_MAX);
}

static bool is_target_ok(const struct instance_spec *at) {
	return is_text_ok(at->name, FLEET_TEXT_BYTES_MAX) && is_text_ok(at->url, FLEET_TEXT_BYTES_MAX) &&
	    is_text_ok(at->authority, FLEET_TEXT_BYTES_MAX) && is_text_ok(at->host, FLEET_TEXT_BYTES_MAX) &&
	    at->port > 0;
}

static bool is_spec_ok(const struct fleet_spec *spec) {
	for (uint32_t i = 0; i < spec->models.n; i++)
		if (!is_model_ok(&spec->models.items[i]))
			return false;
	return is_target_ok(&spec->instance) && spec->weight <= FLEET_WEIGHT_MAX &&
	    spec->models.n <= FLEET_MODELS_MAX && pairs_text_bytes(spec->models) <= FLEET_MODELS_BYTES_MAX &&
	    spec->labels.n <= FLEET_LABELS_MAX && pairs_text_bytes(spec->labels) <= FLEET_LABELS_BYTES_MAX;
}

/* True when there was something to replace. */
static bool pairs_replace(struct pairs *pairs, struct pairs by) {
	if (pairs_eq(*pairs, by))
		return false;
	pairs_free(pairs);
	*pairs = pairs_copy(by);
	return true;
}

static bool text_replace(char **text, struct slice by) {
	if (slice_eq(slice_of(*text), by))
		return false;
	free(*text);
	*text = by.n ? strndup(by.p, by.n) : NULL;
	return true;
}

/* Once for each change: what is wrong stays without effect. */
static void log_mistakes(const struct record *record) {
	for (uint32_t i = 0; i < record->labels.n; i++) {
		const struct pair *label = &record->labels.items[i];
		const char *mistake =
		    traits_mistake(label->key, label->value, record->source == SOURCE_STATIC);
		struct log_event e;

		if (!mistake)
			continue;
		log_begin(&e, LOG_WARN, "label ignored");
		line_text(&e.line, SLICE("instance"), record->instance->spec.name);
		line_text(&e.line, SLICE("label"), label->key);
		line_text(&e.line, SLICE("why"), slice_of(mistake));
		log_end(&e);
	}
}

static void fleet_insert(struct fleet *fleet, uint32_t at, struct record *record) {
	assert(fleet->n_records < INSTANCE_SLOTS_MAX);
	memmove(fleet->records + at + 1, fleet->records + at,
	    (fleet->n_records - at) * sizeof(fleet->records[0]));
	fleet->records[at] = record;
	fleet->n_records++;
}

/* It is not in the table any more, under what it was known by. Of two the one that nobody could ask goes. */
static void fleet_set_aside(struct fleet *fleet, struct record *record) {
	struct slice name = record->instance->spec.name;
	bool is_there, is_usable = record->n_addresses && record->are_models_known;
	uint32_t at = fleet_position(fleet, SOURCE_LEAVING, name, &is_there);

	record->source = SOURCE_LEAVING;
	if (!is_there) {
		fleet_insert(fleet, at, record);
	} else if (is_usable) {
		record_free(fleet, fleet->records[at]);
		fleet->records[at] = record;
	} else {
		record_free(fleet, record);
	}
}

static bool record_update(struct record *record, const struct fleet_spec *spec) {
	bool is_declared = spec->models.n > 0;
	bool is_changed = record->weight != spec->weight || record->are_models_declared != is_declared ||
	    record->is_draining != spec->is_draining;

	if (pairs_replace(&record->labels, spec->labels)) {
		log_mistakes(record);
		is_changed = true;
	}
	is_changed |= text_replace(&record->metadata,
	    spec->metadata.n > FLEET_METADATA_MAX ? (struct slice){ NULL, 0 } : spec->metadata);
	/* What the engine said stays, unless the record speaks for it now or has ceased to. */
	if (is_declared || record->are_models_declared) {
		is_changed |= pairs_replace(&record->models, spec->models);
		record->are_models_known = is_declared;
	}
	record->are_models_declared = is_declared;
	record->weight = spec->weight;
	record->held_until_ms = spec->held_until_ms;
	record->is_draining = spec->is_draining;
	return is_changed;
}

/* What becomes of a record that another one takes the place of. */
typedef void (*end_fn)(struct fleet *fleet, struct record *record);

static int fleet_take(
    struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec, end_fn end) {
	bool is_there;
	uint32_t at = fleet_position(fleet, source, spec->instance.name, &is_there);
	struct record *old = is_there ? fleet->records[at] : NULL, *record = old;

	if (old)
		old->round = fleet->round;
	if (!is_spec_ok(spec))
		return FLEET_E_LIMIT;
	if (!old || !instance_spec_eq(&old->instance->spec, &spec->instance)) {
		record = record_new(fleet, source, &spec->instance);
		if (!record)
			return FLEET_E_FULL;
		if (old) {
			fleet->records[at] = record;
			end(fleet, old);
		} else {
			fleet_insert(fleet, at, record);
		}
		record->round = fleet->round;
		fleet->is_dirty = true;
	}
	if (record_update(record, spec))
		fleet->is_dirty = true;
	return 0;
}

int fleet_upsert(struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec) {
	return fleet_take(fleet, source, spec, record_free);
}

int fleet_take_over(struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec) {
	return fleet_take(fleet, source, spec, fleet_set_aside);
}

int fleet_check(const struct fleet *fleet, enum fleet_source source, const struct fleet_spec *specs, size_t n,
    struct slice *name_out) {
	uint32_t n_free = instance_n_free();

	for (size_t i = 0; i < n; i++) {
		const struct instance_spec *spec = &specs[i].instance;
		bool is_there;
		uint32_t at = fleet_position(fleet, source, spec->name, &is_there);

		*name_out = spec->name;
		if (!is_spec_ok(&specs[i]))
			return FLEET_E_LIMIT;
		if (is_there && instance_spec_eq(&fleet->records[at]->instance->spec, spec))
			continue;
		if (!n_free--)
			return FLEET_E_FULL;
	}
	return 0;
}

int fleet_replace(struct fleet *fleet, enum fleet_source source, const struct fleet_spec *specs, size_t n) {
	uint32_t n_kept = 0;
	int outcome = 0;

	fleet->round++;
	for (size_t i = 0; i < n; i++) {
		int r = fleet_upsert(fleet, source, &specs[i]);

		if (r)
			outcome = r;
	}
	for (uint32_t i = 0; i < fleet->n_records; i++) {
		struct record *record = fleet->records[i];

		if (record->source != source || record->round == fleet->round)
			fleet->records[n_kept++] = record;
		else
			record_free(fleet, record);
	}
	fleet->is_dirty |= n_kept != fleet->n_records;
	fleet->n_records = n_kept;
	return outcome;
}

int fleet_remove(struct fleet *fleet, enum fleet_source source, struct slice name) {
	bool is_there;
	uint32_t at = fleet_position(fleet, source, name, &is_there);

	if (!is_there)
		return FLEET_E_ABSENT;
	record_free(fleet, fleet->records[at]);
	fleet->n_records--;
	memmove(fleet->records + at, fleet->records + at + 1,
	    (fleet->n_records - at) * sizeof(fleet->records[0]));
	fleet->is_dirty = true;
	return 0;
}

int fleet_set_models(struct fleet *fleet, const struct instance *inst, struct pairs models) {
	struct record *record = fleet_record(fleet, inst);
	struct pair kept[FLEET_MODELS_MAX];
	uint32_t n_kept = 0;
	size_t bytes = 0;

	if (!record || record->are_models_declared)
		return 0;
	for (uint32_t i = 0; i < models.n && n_kept < FLEET_MODELS_MAX; i++) {
		size_t more = pairs_text_bytes((struct pairs){ &models.items[i], 1 });

		if (!is_model_ok(&models.items[i]) || more > FLEET_MODELS_BYTES_MAX - bytes)
			continue;
		bytes += more;
		kept[n_kept++] = models.items[i];
	}
	/* Engines stamp the objects with the time of asking: new ids are news, new objects are not. */
	if (!record->are_models_known || !pairs_keys_eq(record->models, (struct pairs){ kept, n_kept }))
		fleet->is_dirty = true;
	pairs_replace(&record->models, (struct pairs){ kept, n_kept });
	record->are_models_known = true;
	return n_kept == models.n ? 0 : FLEET_E_LIMIT;
}

void fleet_set_addresses(
    struct fleet *fleet, const struct instance *inst, const struct sockaddr_storage *addresses, size_t n) {
	struct record *record = fleet_record(fleet, inst);
	struct identity identity;

	if (!record)
		return;
	n = size_min(n, INSTANCE_ADDRESSES_MAX);
	identity_init(&identity, &inst->spec, addresses, (uint32_t)n);
	/* Resolvers turn the order round each time: the same addresses are no news. */
	if (n == record->n_addresses && identity_cmp(&identity, &record->identity) == 0)
		return;
	free(record->addresses);
	record->addresses = n ? malloc(n * sizeof(*addresses)) : NULL;
	if (n)
		memcpy(record->addresses, addresses, n * sizeof(*addresses));
	record->n_addresses = (uint32_t)n;
	record->identity = identity;
	instance_set_good_address(record->instance, 0);
	fleet->is_dirty = true;
}

void fleet_set_state(struct fleet *fleet, const struct instance *inst, enum instance_state state) {
	struct record *record = fleet_record(fleet, inst);

	if (!record || record->state == state)
		return;
	assert(instance_state_may_follow(record->state, state));
	record->state = state;
	fleet->is_dirty = true;
}

void fleet_set_share(struct fleet *fleet, const struct instance *inst, unsigned share, bool is_refusing) {
	struct record *record = fleet_record(fleet, inst);

	assert(share > 0 && share <= INSTANCE_SHARE_FULL);
	if (!record || (record->share == share && record->is_refusing == is_refusing))
		return;
	record->share = (uint8_t)share;
	record->is_refusing = is_refusing;
	fleet->is_dirty = true;
}

void fleet_set_denied(struct fleet *fleet, const struct instance *inst, bool is_denied) {
	struct record *record = fleet_record(fleet, inst);

	if (!record || record->is_denied == is_denied)
		return;
	record->is_denied = is_denied;
	fleet->is_dirty = true;
}

int fleet_set_kv_engine(struct fleet *fleet, const struct instance *inst, struct slice engine_id) {
	struct record *record = fleet_record(fleet, inst);

	if (engine_id.n && !is_text_ok(engine_id, FLEET_KV_ENGINE_BYTES))
		return FLEET_E_LIMIT;
	if (record && text_replace(&record->kv_engine, engine_id))
		fleet->is_dirty = true;
	return 0;
}

bool fleet_state(const struct fleet *fleet, const struct instance *inst, enum instance_state *state_out) {
	const struct record *record = fleet_record(fleet, inst);

	if (record)
		*state_out = record->state;
	return record;
}

/* --- what is wished ------------------------------------------------------------------------- */

static bool has_name(const struct fleet *fleet, unsigned n_sources, struct slice name) {
	bool is_there = false;

	for (unsigned source = 0; source < n_sources && !is_there; source++)
		fleet_position(fleet, (enum fleet_source)source, name, &is_there);
	return is_there;
}

static void fleet_forget_wish(struct fleet *fleet) {
	struct wish *wish = fleet->wishes; /* the oldest, then in their order */
	struct log_event e;

	while (has_name(fleet, FLEET_SOURCES, slice_of(wish->name)))
		wish = wish->hh.next; /* there are more of them than records */
	log_begin(&e, LOG_WARN, "too many names are wished something of: one that is not here is forgotten");
	line_text(&e.line, SLICE("instance"), slice_of(wish->name));
	log_end(&e);
	wish_free(fleet, wish);
}

void fleet_set_wish(struct fleet *fleet, struct slice name, const struct fleet_wish *wish) {
	struct wish *w = wish_find(fleet, name);

	assert(wish->state == INSTANCE_UNKNOWN || wish->state >= INSTANCE_DRAINING);
	assert(wish->weight <= FLEET_WEIGHT_MAX);
	fleet->is_dirty = true;
	if (!wish->state && !wish->has_weight) {
		if (w)
			wish_free(fleet, w);
		return;
	}
	if (!w && HASH_COUNT(fleet->wishes) == FLEET_WISHES_MAX)
		fleet_forget_wish(fleet);
	if (!w) {
		w = calloc(1, sizeof(*w) + name.n + 1);
		memcpy(w->name, name.p, name.n);
		/* The analyser takes one that was forgotten for the table's head still. */
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
		HASH_ADD(hh, fleet->wishes, name[0], (unsigned)name.n, w);
	}
	w->is = *wish;
}

struct fleet_wish fleet_wish(const struct fleet *fleet, struct slice name) {
	const struct wish *wish = wish_find(fleet, name);

	return wish ? wish->is : (struct fleet_wish){ .state = INSTANCE_UNKNOWN };
}

void fleet_each_wish(const struct fleet *fleet,
    void (*see)(void *context, struct slice name, const struct fleet_wish *wish), void *context) {
	for (const struct wish *w = fleet->wishes; w; w = w->hh.next)
		see(context, slice_of(w->name), &w->is);
}

static enum instance_state worse(enum instance_state a, enum instance_state b) {
	return a > b ? a : b;
}

static enum instance_state record_will(const struct fleet *fleet, const struct record *record) {
	enum instance_state source = record->is_draining ? INSTANCE_DRAINING : INSTANCE_UNKNOWN;

	return worse(fleet_wish(fleet, record->instance->spec.name).state, source);
}

enum instance_state fleet_will(const struct fleet *fleet, const struct instance *inst) {
	const struct record *record = fleet_record(fleet, inst);

	return record ? record_will(fleet, record) : INSTANCE_UNKNOWN;
}

static uint32_t record_weight(const struct fleet *fleet, const struct record *record) {
	struct fleet_wish wish = fleet_wish(fleet, record->instance->spec.name);

	return wish.has_weight ? wish.weight : record->weight;
}

/* --- snapshots ------------------------------------------------------------------------------ */

/* By identity, the oldest of one identity first. */
static int record_identity_cmp(const void *left, const void *right) {
	const struct record *a = *(struct record *const *)left, *b = *(struct record *const *)right;
	int by_identity = identity_cmp(&a->identity, &b->identity);

	return by_identity ? by_identity : (a->age > b->age) - (a->age < b->age);
}

/* It was drained or disabled, takes no connections, or its babysitter, which its peers may not have, says
 * that it does not serve. */
static bool speaks_for_target(const struct record *record, enum instance_state state) {
	return state >= INSTANCE_DRAINING ||
	    (state == INSTANCE_UNHEALTHY && (record->is_refusing || record->is_denied));
}

/* Finds each record's primary, and passes on to it what a peer says of both. */
static void fleet_merge(const struct fleet *fleet) {
	struct record *sorted[INSTANCE_SLOTS_MAX], *primary = NULL;

	memcpy(sorted, fleet->records, fleet->n_records * sizeof(sorted[0]));
	qsort(sorted, fleet->n_records, sizeof(sorted[0]), record_identity_cmp);
	for (uint32_t i = 0; i < fleet->n_records; i++) {
		struct record *record = sorted[i];

		if (!primary || record->n_addresses == 0 ||
		    identity_cmp(&primary->identity, &record->identity) != 0)
			primary = record;
		enum instance_state own = worse(record->state, record_will(fleet, record));
		record->primary = primary;
		record->row_state = own;
		record->row_share = record->share;
		record->is_row_refusing = record->is_refusing;
		if (!speaks_for_target(record, own) || own < primary->row_state)
			continue;
		primary->row_state = own;
		primary->row_share = record->share;
		primary->is_row_refusing |= record->is_refusing;
	}
}

struct snapshot *fleet_build(struct fleet *fleet) {
	if (!fleet->is_dirty)
		return NULL;
	struct snapshot_row *rows = calloc(fleet->n_records + 1, sizeof(*rows));

	fleet_merge(fleet);
	for (uint32_t i = 0; i < fleet->n_records; i++)
		fleet->records[i]->row = i;
	for (uint32_t i = 0; i < fleet->n_records; i++) {
		const struct record *record = fleet->records[i];

		rows[i] = (struct snapshot_row){
			.instance = record->instance,
			.source = record->source,
			.is_namesake = has_name(fleet, record->source, record->instance->spec.name),
			.state = record->row_state,
			.weight = record_weight(fleet, record),
			.share = record->row_share,
			.is_refusing = record->is_row_refusing,
			.are_models_known = record->are_models_known,
			.are_models_declared = record->are_models_declared,
			.primary = record->primary->row,
			.n_addresses = record->n_addresses,
			.addresses = record->addresses,
			.models = record->models,
			.labels = record->labels,
			.metadata = slice_of(record->metadata),
			.kv_engine = slice_of(record->kv_engine),
			.held_until_ms = record->held_until_ms,
		};
	}
	struct pair *lost = calloc(HASH_COUNT(fleet->lost) + 1, sizeof(*lost));
	uint32_t n_lost = 0;
	for (const struct lost *l = fleet->lost; l; l = l->hh.next)
		lost[n_lost++].key = slice_of(l->name);
	struct snapshot *snap =
	    snapshot_new(++fleet->version, rows, fleet->n_records, (struct pairs){ lost, n_lost });
	free(lost);
	free(rows);
	fleet->is_dirty = false;
	return snap;
}
