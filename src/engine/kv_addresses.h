/*
 * kv_addresses: the request id of connectors whose engines know each other by what stands in it:
 *
 *     ___prefill_addr_HOST:PORT___decode_addr_HOST:PORT_{32 hex}
 */
#pragma once

#include "engine/kv_leg.h"

/*
 * Our own address must be in the place of the leg's part; that of the prefill becomes the peer. The
 * refusal is a 500: a connector whose request has no such id dies of it.
 */
must_use bool kv_addresses_read(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal);
