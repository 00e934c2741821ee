/*
 * privacy: how far a request may travel, and what an instance needs as clearance to get it.
 *
 * The order is that of trust: what is cleared for a level is cleared for those below. Nobody
 * is cleared for more than the lowest unless the operator says so.
 */
#pragma once

#include "base/slice.h"

enum privacy { PRIVACY_PUBLIC, PRIVACY_INTERNAL, PRIVACY_CONFIDENTIAL, PRIVACY_RESTRICTED };

#define PRIVACY_LEVELS 4

const char *privacy_text(enum privacy level);

/* By its word, in lower case. False when it is none. */
must_use bool privacy_find(struct slice word, enum privacy *level_out);
