/* base64: RFC 4648 section 4, with padding. */
#pragma once

#include "engine/bytes.h"

/* False, with nothing added, when the ceiling of `out` would be passed. */
bool base64_add(struct bytes *out, struct slice data);
