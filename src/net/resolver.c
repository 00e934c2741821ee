#include "net/resolver.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdatomic.h>

/* Lookups that libuv's threads have in hand, of all loops. */
static _Atomic uint32_t n_running;

static bool resolver_has(
    const struct sockaddr_storage *addresses, size_t n, const struct sockaddr_storage *a) {
	for (size_t i = 0; i < n; i++)
		if (memcmp(&addresses[i], a, sizeof(*a)) == 0)
			return true;
	return false;
}

/* Copies what is IPv4 or IPv6, each address once: a hosts file may well say one twice. */
static size_t resolver_copy(
    const struct addrinfo *list, uint16_t port, struct sockaddr_storage *out, size_t n_max) {
	size_t n = 0;
	for (const struct addrinfo *a = list; a && n < n_max; a = a->ai_next) {
		struct sockaddr_storage *to = &out[n];
		if (a->ai_family != AF_INET && a->ai_family != AF_INET6)
			continue;
		memset(to, 0, sizeof(*to));
		memcpy(to, a->ai_addr, a->ai_addrlen);
		if (a->ai_family == AF_INET)
			((struct sockaddr_in *)to)->sin_port = htons(port);
		else
			((struct sockaddr_in6 *)to)->sin6_port = htons(port);
		n += !resolver_has(out, n, to);
	}
	return n;
}

bool resolver_is_address(const char *host, uint16_t port, struct sockaddr_storage *address_out) {
	/* IPv4 is not left to getaddrinfo(): it takes "1.2.3" for 1.2.0.3. It knows scopes (fe80::1%eth0). */
	static const struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_family = AF_INET6, .ai_socktype = SOCK_STREAM
	};
	struct sockaddr_in *in = (struct sockaddr_in *)address_out;
	struct addrinfo *found;
	memset(address_out, 0, sizeof(*address_out));
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		return true;
	}
	if (getaddrinfo(host, NULL, &hints, &found) != 0)
		return false;
	bool good = resolver_copy(found, port, address_out, 1) == 1;
	freeaddrinfo(found);
	return good;
}

struct resolver *resolver_new(resolver_fn on_done, void *context) {
	struct resolver *r = calloc(1, sizeof(*r));
	r->on_done = on_done;
	r->request.data = context;
	return r;
}

void resolver_free(struct resolver **rp) {
	struct resolver *r = *rp;
	*rp = NULL;
	if (!r)
		return;
	r->is_abandoned = true;
	if (!r->is_busy)
		free(r);
	else
		uv_cancel((uv_req_t *)&r->request);
}

static void resolver_on_answer(uv_getaddrinfo_t *request, int status, struct addrinfo *list) {
	struct resolver *r = container_of(request, struct resolver, request);
	struct sockaddr_storage addresses[RESOLVER_ADDRESSES_MAX];
	size_t n = status == 0 ? resolver_copy(list, r->port, addresses, n_elems(addresses)) : 0;
	uv_freeaddrinfo(list);
	atomic_fetch_sub(&n_running, 1);
	r->is_busy = false;
	if (r->is_abandoned)
		free(r);
	else
		r->on_done(r, addresses, n);
}

void resolver_start(struct resolver *r, struct loop *loop, const char *host, uint16_t port) {
	struct sockaddr_storage address;
	if (r->is_busy)
		return;
	if (resolver_is_address(host, port, &address)) {
		r->on_done(r, &address, 1);
		return;
	}
	if (strcasecmp(host, "localhost") == 0) { /* whatever the hosts file says (RFC 6761 section 6.3) */
		struct sockaddr_storage both[2];
		bool is_both = resolver_is_address("127.0.0.1", port, &both[0]) &&
		    resolver_is_address("::1", port, &both[1]);
		r->on_done(r, both, is_both ? 2 : 1);
		return;
	}
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	r->port = port;
	r->is_busy = uv_getaddrinfo(&loop->uv, &r->request, resolver_on_answer, host, NULL, &hints) == 0;
	if (r->is_busy)
		atomic_fetch_add(&n_running, 1);
	else
		r->on_done(r, NULL, 0);
}

unsigned resolver_n_running(void) {
	return atomic_load(&n_running);
}
