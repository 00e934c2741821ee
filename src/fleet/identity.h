/*
 * identity: tells whether two records lead to the same target. Private to this folder.
 *
 * It is made of what a connection would be made of: TLS or not, the set of resolved
 * addresses with their ports, and the data-parallel rank; of a provider also of its name and path, since one
 * address serves many. The order of the addresses
 * and repeats do not count, an IPv4 address written as IPv6 is that IPv4 address, and
 * ::1 beside 127.0.0.1 is what "localhost" resolves to, so it is the same as the latter
 * alone. Pure; no allocation.
 */
#pragma once

#include <sys/socket.h>

#include "fleet/instance.h"

struct identity_endpoint {
	uint8_t ip[16]; /* IPv4 in its mapped form */
	uint32_t scope_id;
	uint32_t port;
};

struct identity {
	uint32_t is_tls, has_rank, rank;
	uint32_t provider; /* a hash of its authority and base; 0: it is none */
	uint32_t n;        /* 0: nothing is resolved, and no identity equals it in meaning */
	struct identity_endpoint endpoints[INSTANCE_ADDRESSES_MAX]; /* ascending, no repeats */
};

/* AF_INET and AF_INET6; at most INSTANCE_ADDRESSES_MAX. */
void identity_init(struct identity *id, const struct instance_spec *spec,
    const struct sockaddr_storage *addresses, uint32_t n);

/* A total order, for sorting; 0 when equal. */
int identity_cmp(const struct identity *a, const struct identity *b);
