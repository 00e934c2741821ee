/*
 * label: the small numbers that stand for models, instances and tenants in metrics.
 *
 * They come and go; a series, once made, stays. So the first 1000
 * names of each kind that the fleet ever had get a number of their own, for the life
 * of the process, and all later ones share that of "other". Names from requests never
 * get here: they are looked up in a snapshot, which carries the number.
 *
 * label_intern() belongs to the control thread. Other threads know a number because a
 * snapshot was published to them, and may ask for its text.
 */
#pragma once

#include "base/slice.h"

enum label_kind { LABEL_MODEL, LABEL_INSTANCE, LABEL_TENANT };

#define LABEL_KINDS 3
#define LABEL_OTHER 0u
#define LABELS_MAX  1000u             /* of a kind, not counting "other" */
#define LABELS      (LABELS_MAX + 1u) /* length of an array indexed by label */

must_use uint32_t label_intern(enum label_kind kind, struct slice name);

/* NUL-terminated, valid for ever. */
const char *label_text(enum label_kind kind, uint32_t label);
