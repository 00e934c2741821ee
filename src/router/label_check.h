/*
 * label_check: labels that routing goes by and that say nothing it understands.
 *
 * In the configuration such a label is a mistake. Of other instances it counts as not said, which the fleet
 * logs of those that it reads, and this, once for each instance and each policy that is named, of policies,
 * which it does not know. Control thread.
 */
#pragma once

#include "fleet/snapshot.h"

/* What is wrong with it, as one sentence; NULL: nothing, or routing does not go by it. `is_ours`: it stands
 * in the router's own configuration. */
const char *label_check_mistake(struct slice name, struct slice value, bool is_ours);

struct label_check {
	uint64_t
	    seen[INSTANCE_SLOTS_MAX]; /* of each slot: its instance and what was wrong with it, as a hash */
};

/* A snapshot, perhaps with new instances or labels. */
void label_check_see(struct label_check *check, const struct snapshot *snap);
