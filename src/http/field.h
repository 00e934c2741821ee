/*
 * field: the header fields that a proxy must know, by number.
 *
 * Names are compared without regard to case (RFC 9110 section 5.1).
 */
#pragma once

#include "base/slice.h"

enum field_id {
	FIELD_OTHER,
	FIELD_HOST,
	FIELD_CONNECTION,
	FIELD_CONTENT_LENGTH,
	FIELD_TRANSFER_ENCODING,
	FIELD_EXPECT,
	FIELD_CONTENT_TYPE,
	FIELD_CONTENT_ENCODING,
	FIELD_X_FORWARDED_FOR,
	FIELD_X_FORWARDED_HOST,
	FIELD_KEEP_ALIVE,
	FIELD_PROXY_CONNECTION,
	FIELD_PROXY_AUTHENTICATE,
	FIELD_PROXY_AUTHORIZATION,
	FIELD_TE,
	FIELD_TRAILER,
	FIELD_UPGRADE,
	FIELD_HTTP2_SETTINGS,
	FIELD_AUTHORIZATION,
	FIELD_COOKIE,
	FIELD_DATE,
	FIELD_X_REQUEST_ID,
	FIELD_RETRY_AFTER,
	N_FIELD_IDS
};

/* `name` is a token (RFC 9110 section 5.6.2). */
enum field_id field_find(struct slice name);

/* Belongs to one hop (RFC 9110 section 7.6.1) or is rebuilt by us: never copied to the other side. */
bool field_is_hop(enum field_id id);

/* Stays even if Connection names it: framing, routing and credentials are not a peer's to strip. */
bool field_is_protected(enum field_id id);

/* May not stand in a trailer section (RFC 9110 section 6.5.1). */
bool field_is_barred_from_trailer(enum field_id id);
