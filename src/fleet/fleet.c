/*
 * The table is an array of pointers to records, sorted by source, name and rank: lookups
 * bisect it, its order is that of the rows, and an insertion moves at most 32 KiB of
 * pointers on a thread that has time. The ranks that one record of a source has become
 * stand together, a run. Snapshots are made in fleet_build.c.
 */
#include "fleet/fleet.h"

#include <stdlib.h>

#include "base/log.h"
#include "fleet/fleet_record.h"

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

	if (!fleet)
		return;
	*fleet_ptr = NULL;
	for (uint32_t i = 0; i < fleet->n_records; i++)
		record_free(fleet, fleet->records[i]);
	fleet_forget(fleet, 0, 0);
	fleet_forget_wishes(fleet);
	free(fleet);
}

/* What its source calls it. */
static struct slice record_engine(const struct record *record) {
	struct slice name = record->instance->spec.name;

	return slice_head(name, name.n - record->n_suffix);
}

/* Among those of its engine: 0 is the engine as a whole, 1 its rank 0. */
static uint32_t record_place(const struct record *record) {
	return record->n_suffix ? record->instance->spec.rank + 1u : 0;
}

static int record_cmp(
    const struct record *record, enum fleet_source source, struct slice engine, uint32_t place) {
	if (record->source != source)
		return record->source < source ? -1 : 1;
	int by_engine = pair_text_cmp(record_engine(record), engine);

	return by_engine ? by_engine : (record_place(record) > place) - (record_place(record) < place);
}

/* Where the record of that place is, or where it would go. */
static uint32_t fleet_position(const struct fleet *fleet, enum fleet_source source, struct slice engine,
    uint32_t place, bool *is_there_out) {
	uint32_t from = 0, to = fleet->n_records;

	*is_there_out = false;
	while (from < to) {
		uint32_t mid = from + (to - from) / 2;
		int cmp = record_cmp(fleet->records[mid], source, engine, place);

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

/* The records that one of a source's is: of all ranks. */
struct run {
	uint32_t from, to;
};

static struct run fleet_run(const struct fleet *fleet, enum fleet_source source, struct slice engine) {
	bool is_there;
	uint32_t from = fleet_position(fleet, source, engine, 0, &is_there), to = from;

	while (to < fleet->n_records && fleet->records[to]->source == source &&
	    slice_eq(record_engine(fleet->records[to]), engine))
		to++;
	return (struct run){ from, to };
}

bool fleet_has_name(const struct fleet *fleet, unsigned n_sources, struct slice name) {
	struct slice engine;
	uint16_t rank;
	bool is_there = false, is_rank = rank_split(name, &engine, &rank);

	for (unsigned source = 0; source < n_sources && !is_there; source++) {
		fleet_position(fleet, (enum fleet_source)source, name, 0, &is_there);
		if (!is_there && is_rank)
			fleet_position(fleet, (enum fleet_source)source, engine, rank + 1u, &is_there);
	}
	return is_there;
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
	    (!at->base.n || is_text_ok(at->base, FLEET_TEXT_BYTES_MAX)) && at->port > 0;
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

static void log_no_room(struct slice engine) {
	struct log_event e;

	log_begin(&e, LOG_WARN, "no room for all ranks of an engine");
	line_text(&e.line, SLICE("engine"), engine);
	log_end(&e);
}

/* Once for each change: what is wrong stays without effect. */
static void log_mistakes(const struct record *record) {
	for (uint32_t i = 0; i < record->labels.n; i++) {
		const struct pair *label = &record->labels.items[i];
		const char *mistake =
		    traits_mistake(label->key, label->value, record->source != SOURCE_REGISTRY);
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
	bool is_there, is_usable = record->n_addresses && record->are_models_known;
	uint32_t at =
	    fleet_position(fleet, SOURCE_LEAVING, record_engine(record), record_place(record), &is_there);

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
	record->n_ranks = spec->n_ranks;
	record->held_until_ms = spec->held_until_ms;
	record->is_draining = spec->is_draining;
	return is_changed;
}

/* --- ranks ------------------------------------------------------------------------------------ */

/* Texts of one rank. */
struct rank_room {
	char name[FLEET_TEXT_BYTES_MAX + RANK_SUFFIX_BYTES], url[FLEET_TEXT_BYTES_MAX + RANK_SUFFIX_BYTES];
};

static struct slice print_rank(char *room, size_t n_room, struct slice text, uint32_t rank) {
	int n = snprintf(room, n_room, "%.*s@%u", (int)text.n, text.p, rank);

	assert(n > 0 && (size_t)n < n_room);
	return (struct slice){ room, (size_t)n };
}

/* What it leads to, without ranks. Whether it is a provider is said by a label, whatever the source. */
static struct instance_spec target_of(const struct fleet_spec *spec) {
	struct instance_spec target = spec->instance;

	for (uint32_t i = 0; i < spec->labels.n; i++)
		target.is_provider |= slice_eq(spec->labels.items[i].key, SLICE("provider")) &&
		    slice_eq(spec->labels.items[i].value, SLICE("openai"));
	return target;
}

/* What stands at a place of an engine's. */
static struct instance_spec spec_at(const struct fleet_spec *engine, uint32_t place, struct rank_room *room) {
	struct instance_spec spec = target_of(engine);

	if (!place)
		return spec;
	assert(!spec.has_rank);
	spec.rank = (uint16_t)(place - 1);
	spec.has_rank = true;
	spec.name = print_rank(room->name, sizeof(room->name), spec.name, spec.rank);
	spec.url = print_rank(room->url, sizeof(room->url), spec.url, spec.rank);
	return spec;
}

/* Of the ith of n. */
static uint32_t place_of(uint32_t i, uint32_t n) {
	return n > 1 ? i + 1 : 0;
}

static bool may_have_ranks(const struct instance_spec *spec) {
	return spec->name.n + RANK_SUFFIX_BYTES <= FLEET_TEXT_BYTES_MAX &&
	    spec->url.n + RANK_SUFFIX_BYTES <= FLEET_TEXT_BYTES_MAX;
}

/* Of what may be RANKS_AUTO. */
static uint16_t asked_ranks(const struct fleet *fleet, const struct fleet_spec *spec) {
	if (spec->instance.has_rank || target_of(spec).is_provider)
		return 1;
	return spec->n_ranks ? spec->n_ranks : rank_count_of(spec->labels, &fleet->ranks);
}

/* As many as there are, until the engine says another number. */
static uint32_t fleet_n_ranks(
    const struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec) {
	uint16_t n = asked_ranks(fleet, spec);
	struct run run = fleet_run(fleet, source, spec->instance.name);

	assert(n <= RANKS_MAX || n == RANKS_AUTO);
	return n == RANKS_AUTO ? (uint32_t)size_max(run.to - run.from, 1) : n;
}

/* As its source had it. */
static struct fleet_spec record_spec(const struct record *record) {
	struct fleet_spec spec = {
		.instance = record->instance->spec,
		.weight = record->weight,
		.labels = record->labels,
		.metadata = slice_of(record->metadata),
		.held_until_ms = record->held_until_ms,
		.n_ranks = record->n_ranks,
		.is_draining = record->is_draining,
	};

	if (record->are_models_declared)
		spec.models = record->models;
	if (record->n_suffix) {
		spec.instance.name = record_engine(record);
		spec.instance.url = slice_head(spec.instance.url, spec.instance.url.n - record->n_suffix);
		spec.instance.has_rank = false;
		spec.instance.rank = 0;
	}
	return spec;
}

static void record_set_addresses(struct record *record, const struct sockaddr_storage *addresses, uint32_t n,
    const struct identity *identity) {
	free(record->addresses);
	record->addresses = n ? malloc(n * sizeof(*addresses)) : NULL;
	if (n)
		memcpy(record->addresses, addresses, n * sizeof(*addresses));
	record->n_addresses = n;
	record->identity = *identity;
}

static void record_inherit(struct record *record, const struct record *kin) {
	struct identity identity;

	identity_init(&identity, &record->instance->spec, kin->addresses, kin->n_addresses);
	record_set_addresses(record, kin->addresses, kin->n_addresses, &identity);
	if (kin->are_models_known && (!kin->are_models_declared || kin->source != record->source)) {
		pairs_replace(&record->models, kin->models);
		record->are_models_known = true;
	}
	if (kin->state >= INSTANCE_DRAINING) /* that is of the other one alone */
		return;
	record->state = kin->state;
	record->share = kin->share;
	record->is_refusing = kin->is_refusing;
	record->is_denied = kin->is_denied;
}

/* --- what sources deliver --------------------------------------------------------------------- */

/* What becomes of a record that another one takes the place of. */
typedef void (*end_fn)(struct fleet *fleet, struct record *record);

/* What is known of this one's server is known of a new record, too: of another rank of it, of the engine as
 * it was before there were ranks, or, of who is registered at run time, as the configuration has it. */
static bool is_kin(const struct record *record, const struct record *kin) {
	const struct instance_spec *a = &record->instance->spec, *b = &kin->instance->spec;

	if (record->source == SOURCE_API && kin->source == SOURCE_STATIC)
		return a->is_tls == b->is_tls && slice_eq(a->authority, b->authority) &&
		    slice_eq(a->base, b->base);
	return (a->has_rank || b->has_rank) && record_shares_server(record, kin);
}

/* In place of `old`, or new. */
static struct record *fleet_add(
    struct fleet *fleet, enum fleet_source source, const struct instance_spec *spec, uint8_t n_suffix) {
	struct record *record = record_new(fleet, source, spec);

	assert(record); /* fleet_judge() */
	record->n_suffix = n_suffix;
	for (uint32_t i = 0; i < fleet->n_records; i++) {
		if (is_kin(record, fleet->records[i])) {
			record_inherit(record, fleet->records[i]);
			break;
		}
	}
	fleet->is_dirty = true;
	return record;
}

static void fleet_put(struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec,
    uint32_t place, end_fn end) {
	struct slice engine = spec->instance.name;
	struct rank_room room;
	struct instance_spec target = spec_at(spec, place, &room);
	bool is_there;
	uint32_t at = fleet_position(fleet, source, engine, place, &is_there);
	struct record *old = is_there ? fleet->records[at] : NULL, *record = old;

	if (!old || !instance_spec_eq(&old->instance->spec, &target)) {
		record = fleet_add(fleet, source, &target, (uint8_t)(target.name.n - engine.n));
		if (old) {
			fleet->records[at] = record;
			end(fleet, old);
		} else {
			fleet_insert(fleet, at, record);
		}
	}
	record->round = fleet->round;
	if (record_update(record, spec))
		fleet->is_dirty = true;
}

/* How many of these places have no record that is the same. */
static uint32_t fleet_n_new(
    const struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec, uint32_t n) {
	uint32_t n_new = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct rank_room room;
		uint32_t place = place_of(i, n);
		struct instance_spec target = spec_at(spec, place, &room);
		bool is_there;
		uint32_t at = fleet_position(fleet, source, spec->instance.name, place, &is_there);

		n_new += !is_there || !instance_spec_eq(&fleet->records[at]->instance->spec, &target);
	}
	return n_new;
}

static int fleet_judge(const struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec,
    uint32_t n, uint32_t *n_free) {
	if (!is_spec_ok(spec) || (n > 1 && !may_have_ranks(&spec->instance)))
		return FLEET_E_LIMIT;
	uint32_t n_new = fleet_n_new(fleet, source, spec, n);

	if (n_new > *n_free)
		return FLEET_E_FULL;
	*n_free -= n_new;
	return 0;
}

static int fleet_take(
    struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec, uint32_t n, end_fn end) {
	uint32_t n_free = instance_n_free();
	struct run run = fleet_run(fleet, source, spec->instance.name);
	int outcome = fleet_judge(fleet, source, spec, n, &n_free);

	for (uint32_t i = run.from; outcome && i < run.to; i++)
		fleet->records[i]->round = fleet->round;
	for (uint32_t i = 0; !outcome && i < n; i++)
		fleet_put(fleet, source, spec, place_of(i, n), end);
	return outcome;
}

/* Of a run: what is beyond its n ranks, or not one of them. */
static void fleet_trim(struct fleet *fleet, struct run run, uint32_t n) {
	uint32_t n_kept = run.from, n_behind = fleet->n_records - run.to;

	for (uint32_t i = run.from; i < run.to; i++) {
		struct record *record = fleet->records[i];
		uint32_t place = record_place(record);

		if (n == 1 ? place == 0 : place > 0 && place <= n) /* none, if n is 0 */
			fleet->records[n_kept++] = record;
		else
			record_free(fleet, record);
	}
	fleet->is_dirty |= n_kept != run.to;
	memmove(fleet->records + n_kept, fleet->records + run.to, n_behind * sizeof(fleet->records[0]));
	fleet->n_records = n_kept + n_behind;
}

/* The texts of the spec may be those of a record that leaves. */
static int fleet_resize(
    struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec, uint32_t n) {
	int outcome = fleet_take(fleet, source, spec, n, record_free);

	if (!outcome)
		fleet_trim(fleet, fleet_run(fleet, source, spec->instance.name), n);
	return outcome;
}

int fleet_upsert(struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec) {
	return fleet_resize(fleet, source, spec, fleet_n_ranks(fleet, source, spec));
}

int fleet_take_over(struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec) {
	return fleet_take(fleet, source, spec, fleet_n_ranks(fleet, source, spec), fleet_set_aside);
}

int fleet_check(const struct fleet *fleet, enum fleet_source source, const struct fleet_spec *specs, size_t n,
    struct slice *name_out) {
	uint32_t n_free = instance_n_free();
	int outcome = 0;

	for (size_t i = 0; i < n && !outcome; i++) {
		*name_out = specs[i].instance.name;
		outcome =
		    fleet_judge(fleet, source, &specs[i], fleet_n_ranks(fleet, source, &specs[i]), &n_free);
	}
	return outcome;
}

bool fleet_has_others(
    const struct fleet *fleet, enum fleet_source source, const struct fleet_spec *specs, size_t n) {
	size_t n_named = 0, n_there = 0;

	for (size_t i = 0; i < n; i++)
		n_named += fleet_n_ranks(fleet, source, &specs[i]);
	for (uint32_t i = 0; i < fleet->n_records; i++) {
		n_there += fleet->records[i]->source == source;
		if (fleet->records[i]->source == SOURCE_LEAVING)
			return true;
	}
	return n_there > n_named;
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
	struct run run = fleet_run(fleet, source, name);

	fleet_trim(fleet, run, 0);
	return run.to > run.from ? 0 : FLEET_E_ABSENT;
}

/* --- what is learned -------------------------------------------------------------------------- */

int fleet_set_ranks(struct fleet *fleet, const struct instance *inst, uint32_t n) {
	const struct record *record = fleet_record(fleet, inst);

	if (!record || record->source == SOURCE_LEAVING || n == 0)
		return 0;
	struct fleet_spec spec = record_spec(record);

	if (asked_ranks(fleet, &spec) != RANKS_AUTO)
		return 0;
	return fleet_resize(fleet, record->source, &spec, (uint32_t)size_min(n, RANKS_MAX));
}

void fleet_set_rank_defaults(struct fleet *fleet, const struct rank_defaults *defaults) {
	fleet->ranks = *defaults;
	for (uint32_t i = 0; i < fleet->n_records;) {
		const struct record *record = fleet->records[i];
		struct fleet_spec spec = record_spec(record);

		if (!record->n_ranks && record->source != SOURCE_LEAVING &&
		    fleet_upsert(fleet, record->source, &spec))
			log_no_room(spec.instance.name);
		record = fleet->records[i]; /* the first of its run now */
		i = fleet_run(fleet, record->source, record_engine(record)).to;
	}
}

static int record_set_models(struct fleet *fleet, struct record *record, struct pairs models) {
	struct pair kept[FLEET_MODELS_MAX];
	uint32_t n_kept = 0;
	size_t bytes = 0;

	if (record->are_models_declared)
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

int fleet_set_models(struct fleet *fleet, const struct instance *inst, struct pairs models) {
	struct record *record = fleet_record(fleet, inst);
	int outcome = record ? record_set_models(fleet, record, models) : 0;

	for (uint32_t i = 0; record && i < fleet->n_records; i++)
		if (record_shares_engine(record, fleet->records[i]))
			outcome |= record_set_models(fleet, fleet->records[i], models);
	return outcome;
}

static void fleet_move(
    struct fleet *fleet, struct record *record, const struct sockaddr_storage *addresses, uint32_t n) {
	struct identity identity;

	identity_init(&identity, &record->instance->spec, addresses, n);
	/* Resolvers turn the order round each time: the same addresses are no news. */
	if (n == record->n_addresses && identity_cmp(&identity, &record->identity) == 0)
		return;
	record_set_addresses(record, addresses, n, &identity);
	instance_set_good_address(record->instance, 0);
	fleet->is_dirty = true;
}

void fleet_set_addresses(
    struct fleet *fleet, const struct instance *inst, const struct sockaddr_storage *addresses, size_t n) {
	struct record *record = fleet_record(fleet, inst);

	n = size_min(n, INSTANCE_ADDRESSES_MAX);
	if (record)
		fleet_move(fleet, record, addresses, (uint32_t)n);
	for (uint32_t i = 0; record && i < fleet->n_records; i++)
		if (record_shares_engine(record, fleet->records[i]))
			fleet_move(fleet, fleet->records[i], addresses, (uint32_t)n);
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
	bool had_one = record && record->kv_engine;
	if (!record || !text_replace(&record->kv_engine, engine_id))
		return 0;
	fleet->is_dirty = true;
	if (had_one && engine_id.n) /* each process has a name of its own */
		atomic_fetch_add_explicit(&record->instance->learned.n_restarts, 1, memory_order_relaxed);
	return 0;
}

bool fleet_state(const struct fleet *fleet, const struct instance *inst, enum instance_state *state_out) {
	const struct record *record = fleet_record(fleet, inst);

	if (record)
		*state_out = record->state;
	return record;
}

enum instance_state fleet_will(const struct fleet *fleet, const struct instance *inst) {
	const struct record *record = fleet_record(fleet, inst);

	if (!record)
		return INSTANCE_UNKNOWN;
	return worse(fleet_wish(fleet, record->instance->spec.name).state,
	    record->is_draining ? INSTANCE_DRAINING : INSTANCE_UNKNOWN);
}
