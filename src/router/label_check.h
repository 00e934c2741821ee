/*
 * label_check: labels that routing goes by and that say nothing it understands.
 *
 * In the configuration such a label is a mistake. Of other instances it counts as not said, which the fleet
 * logs of those that it reads, and this, once for each instance, of policies, which it does not know. Control
 * thread.
 */
#pragma once

#include "fleet/snapshot.h"

/* What is wrong with it, as one sentence; NULL: nothing, or routing does not go by it. `is_ours`: it stands
 * in the router's own configuration. */
const char *label_check_mistake(struct slice name, struct slice value, bool is_ours);

struct label_check {
	uint32_t serial; /* of the newest instance that was looked at */
};

/* A snapshot, perhaps with new instances. */
void label_check_see(struct label_check *check, const struct snapshot *snap);
