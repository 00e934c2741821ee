#include "fleet/identity.h"

#include <netinet/in.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static int endpoint_cmp(const void *a, const void *b) {
	return memcmp(a, b, sizeof(struct identity_endpoint));
}

static struct identity_endpoint endpoint_of(const struct sockaddr_storage *address) {
	struct identity_endpoint e = { .scope_id = 0 };

	if (address->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)address;

		memset(e.ip + 10, 0xff, 2);
		memcpy(e.ip + 12, &in->sin_addr, 4);
		e.port = ntohs(in->sin_port);
		return e;
	}
	assert(address->ss_family == AF_INET6);
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;

	memcpy(e.ip, &in6->sin6_addr, sizeof(e.ip));
	e.scope_id = in6->sin6_scope_id;
	e.port = ntohs(in6->sin6_port);
	return e;
}

/* Is this ::1, and 127.0.0.1 with the same port among the others? */
static bool is_second_loopback(const struct identity *id, const struct identity_endpoint *e) {
	struct identity_endpoint v4 = { .ip = { [10] = 0xff, 0xff, 127, 0, 0, 1 }, .port = e->port };

	return memcmp(e->ip, &in6addr_loopback, sizeof(e->ip)) == 0 &&
	    bsearch(&v4, id->endpoints, id->n, sizeof(v4), endpoint_cmp);
}

static uint32_t provider_of(const struct instance_spec *spec) {
	if (!spec->is_provider)
		return 0;
	uint64_t authority = XXH3_64bits(spec->authority.p, spec->authority.n);

	return (uint32_t)XXH3_64bits_withSeed(spec->base.p, spec->base.n, authority) | 1;
}

void identity_init(struct identity *id, const struct instance_spec *spec,
    const struct sockaddr_storage *addresses, uint32_t n) {
	assert(n <= INSTANCE_ADDRESSES_MAX);
	*id = (struct identity){ .is_tls = spec->is_tls,
		.has_rank = spec->has_rank,
		.rank = spec->rank,
		.provider = provider_of(spec),
		.n = n };
	for (uint32_t i = 0; i < n; i++)
		id->endpoints[i] = endpoint_of(&addresses[i]);
	qsort(id->endpoints, n, sizeof(id->endpoints[0]), endpoint_cmp);

	const struct identity all = *id;
	id->n = 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct identity_endpoint *e = &all.endpoints[i];
		bool is_repeat = i > 0 && endpoint_cmp(e - 1, e) == 0;

		if (!is_repeat && !is_second_loopback(&all, e))
			id->endpoints[id->n++] = *e;
	}
}

int identity_cmp(const struct identity *a, const struct identity *b) {
	int head = memcmp(a, b, offsetof(struct identity, endpoints));

	return head ? head : memcmp(a->endpoints, b->endpoints, a->n * sizeof(a->endpoints[0]));
}
