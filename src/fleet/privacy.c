#include "fleet/privacy.h"

static const char *const words[PRIVACY_LEVELS] = {
	[PRIVACY_PUBLIC] = "public",
	[PRIVACY_INTERNAL] = "internal",
	[PRIVACY_CONFIDENTIAL] = "confidential",
	[PRIVACY_RESTRICTED] = "restricted",
};

const char *privacy_text(enum privacy level) {
	assert(level < PRIVACY_LEVELS);
	return words[level];
}

bool privacy_find(struct slice word, enum privacy *level_out) {
	for (unsigned i = 0; i < PRIVACY_LEVELS; i++)
		if (slice_eq(slice_of(words[i]), word)) {
			*level_out = (enum privacy)i;
			return true;
		}
	return false;
}
