/*
 * Snapshots of a fleet. Records find their peers of one identity, and the ranks of one engine each other, by
 * sorting: both are looked for once for many changes.
 */
#include <stdlib.h>

#include "fleet/fleet_record.h"

static uint32_t record_weight(const struct fleet *fleet, const struct record *record) {
	struct fleet_wish wish = fleet_wish(fleet, record->instance->spec.name);

	return wish.has_weight ? wish.weight : record->weight;
}

/* --- one target ------------------------------------------------------------------------------ */

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
		enum instance_state own = worse(record->state, fleet_will(fleet, record->instance));
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

/* --- ranks ----------------------------------------------------------------------------------- */

/* By what record_shares_engine() goes by, then by row. */
static int record_engine_cmp(const void *left, const void *right) {
	const struct record *a = *(struct record *const *)left, *b = *(struct record *const *)right;
	int cmp = pair_text_cmp(a->instance->spec.authority, b->instance->spec.authority);

	if (!cmp)
		cmp = pair_text_cmp(a->instance->spec.key, b->instance->spec.key);
	if (!cmp)
		cmp = (int)a->instance->spec.is_tls - (int)b->instance->spec.is_tls;
	if (!cmp)
		cmp = (int)a->source - (int)b->source;
	return cmp ? cmp : (a->row > b->row) - (a->row < b->row);
}

/* Finds the ranks of each engine. */
static void fleet_gather(const struct fleet *fleet) {
	struct record *ranks[INSTANCE_SLOTS_MAX];
	uint32_t n = 0;

	for (uint32_t i = 0; i < fleet->n_records; i++) {
		struct record *record = fleet->records[i];

		record->row = record->first_rank = i;
		record->next_rank = SNAPSHOT_NO_ROW;
		if (record->instance->spec.has_rank)
			ranks[n++] = record;
	}
	if (n)
		qsort(ranks, n, sizeof(ranks[0]), record_engine_cmp);
	for (uint32_t i = 1; i < n; i++) {
		if (!record_shares_engine(ranks[i - 1], ranks[i]))
			continue;
		ranks[i - 1]->next_rank = ranks[i]->row;
		ranks[i]->first_rank = ranks[i - 1]->first_rank;
	}
}

/* --- the whole ------------------------------------------------------------------------------- */

struct snapshot *fleet_build(struct fleet *fleet) {
	if (!fleet->is_dirty)
		return NULL;
	struct snapshot_row *rows = calloc(fleet->n_records + 1, sizeof(*rows));

	fleet_merge(fleet);
	fleet_gather(fleet);
	for (uint32_t i = 0; i < fleet->n_records; i++) {
		const struct record *record = fleet->records[i];

		rows[i] = (struct snapshot_row){
			.instance = record->instance,
			.source = record->source,
			.is_namesake = fleet_has_name(fleet, record->source, record->instance->spec.name),
			.state = record->row_state,
			.weight = record_weight(fleet, record),
			.share = record->row_share,
			.is_refusing = record->is_row_refusing,
			.are_models_known = record->are_models_known,
			.are_models_declared = record->are_models_declared,
			.primary = record->primary->row,
			.first_rank = record->first_rank,
			.next_rank = record->next_rank,
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
