#include "fleet/label.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define BUCKETS 2048u /* a power of two, at most half full */

static_assert(BUCKETS >= 2 * LABELS, "probing must meet an empty bucket soon");

struct label_set {
	const char *texts[LABELS]; /* that of LABEL_OTHER is never stored */
	uint32_t n_texts;
	uint16_t buckets[BUCKETS]; /* a label, or 0 */
};

static struct label_set sets[LABEL_KINDS] = { { .n_texts = 1 }, { .n_texts = 1 }, { .n_texts = 1 } };

uint32_t label_intern(enum label_kind kind, struct slice name) {
	struct label_set *set = &sets[kind];
	uint32_t at = (uint32_t)XXH3_64bits(name.p, name.n);

	if (slice_eq(name, SLICE("other")))
		return LABEL_OTHER;
	for (; set->buckets[at % BUCKETS]; at++)
		if (slice_eq(slice_of(set->texts[set->buckets[at % BUCKETS]]), name))
			return set->buckets[at % BUCKETS];
	if (set->n_texts == LABELS)
		return LABEL_OTHER;

	set->texts[set->n_texts] = strndup(name.p, name.n);
	assert(set->texts[set->n_texts]);
	set->buckets[at % BUCKETS] = (uint16_t)set->n_texts;
	return set->n_texts++;
}

const char *label_text(enum label_kind kind, uint32_t label) {
	if (label == LABEL_OTHER)
		return "other";
	assert(label < LABELS && sets[kind].texts[label]);
	return sets[kind].texts[label];
}
