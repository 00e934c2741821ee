#include "net/resolver.h"

#include <arpa/inet.h>
#include <netdb.h>

bool resolver_is_address(const char *host, uint16_t port, struct sockaddr_storage *address_out) {
	struct sockaddr_in *in = (struct sockaddr_in *)address_out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address_out;
	memset(address_out, 0, sizeof(*address_out));
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		return true;
	}
	if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		return true;
	}
	return false;
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

/* Copies what is IPv4 or IPv6, without repetitions of the same address by other socket types. */
static size_t resolver_copy(const struct addrinfo *list, uint16_t port, struct sockaddr_storage *out) {
	size_t n = 0;
	for (const struct addrinfo *a = list; a && n < RESOLVER_ADDRESSES_MAX; a = a->ai_next) {
		struct sockaddr_storage *to = &out[n];
		memset(to, 0, sizeof(*to));
		memcpy(to, a->ai_addr, a->ai_addrlen);
		if (a->ai_family == AF_INET)
			((struct sockaddr_in *)to)->sin_port = htons(port);
		else if (a->ai_family == AF_INET6)
			((struct sockaddr_in6 *)to)->sin6_port = htons(port);
		else
			continue;
		n++;
	}
	return n;
}

static void resolver_on_answer(uv_getaddrinfo_t *request, int status, struct addrinfo *list) {
	struct resolver *r = container_of(request, struct resolver, request);
	struct sockaddr_storage addresses[RESOLVER_ADDRESSES_MAX];
	size_t n = status == 0 ? resolver_copy(list, r->port, addresses) : 0;
	uv_freeaddrinfo(list);
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
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	r->port = port;
	r->is_busy = uv_getaddrinfo(&loop->uv, &r->request, resolver_on_answer, host, NULL, &hints) == 0;
	if (!r->is_busy)
		r->on_done(r, NULL, 0);
}
