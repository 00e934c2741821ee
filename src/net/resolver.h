/*
 * resolver: turns a host name into addresses without blocking the loop.
 *
 * Addresses in text form are answered within resolver_start(). One lookup at a time
 * for each resolver; the work is done on libuv's thread pool. The callback runs on the
 * loop's thread; n 0 means that the name is not known now.
 */
#pragma once

#include <sys/socket.h>

#include "net/loop.h"

#define RESOLVER_ADDRESSES_MAX 16

struct resolver;
typedef void (*resolver_fn)(struct resolver *r, const struct sockaddr_storage *addresses, size_t n);

struct resolver {
	uv_getaddrinfo_t request;
	resolver_fn on_done;
	uint16_t port;
	bool is_busy;
	bool is_abandoned; /* freed by its owner: the callback frees the memory */
};

/* On the heap: a lookup that runs cannot be taken back. */
struct resolver *resolver_new(resolver_fn on_done, void *context);
void resolver_free(struct resolver **r);

/* host: NUL-terminated, an IPv6 address without brackets. Does nothing while a lookup runs. */
void resolver_start(struct resolver *r, struct loop *loop, const char *host, uint16_t port);

static inline void *resolver_context(const struct resolver *r) {
	return r->request.data;
}

/*
 * Lookups of the process that have not come back, abandoned ones included. Neither loop_deinit() nor exit()
 * returns before they do, and that is up to the name servers.
 */
unsigned resolver_n_running(void);

/* True and one address when `host` is an address in text form, with its scope where it has one
 * (fe80::1%eth0). Looks nothing up. */
bool resolver_is_address(const char *host, uint16_t port, struct sockaddr_storage *address_out);
