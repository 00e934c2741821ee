/*
 * percent: what stands in a target behind percent signs (RFC 3986 section 2.1), as text.
 *
 * Nothing here allocates: a room of the raw text's length is enough for what is decoded.
 */
#pragma once

#include "base/slice.h"

/* "%2F" and, in a query, "+". Needs raw.n bytes of room. False: not encoded as it should be, or a NUL, which
 * would end a C string that is made of it. */
must_use bool percent_decode(struct slice raw, bool is_query, char *to, size_t *n_out);

/*
 * The first value of a key of the query (without its question mark); p is NULL when the key is not there.
 * Needs query.n bytes of room. A value that is badly encoded comes as it stands there.
 */
struct slice percent_query(struct slice query, struct slice key, char *room);
