/*
 * address_range: which addresses others may send us to, or have registered.
 *
 * A host is judged by what is written, in every spelling that a resolver takes for an
 * address without asking anybody ("127.1", "0x7f000001", "::ffff:10.0.0.1", a scope
 * behind '%'), and "localhost". Other names are not looked up: whoever may change a
 * name's address may change it after the look as well. Who connects to what a name stands
 * for judges the address then, as if it had been written.
 */
#pragma once

#include <sys/socket.h>

#include "base/slice.h"

struct address {
	uint8_t bytes[16]; /* IPv4: the first four */
	bool is_ipv4;      /* also when it was written as ::ffff:a.b.c.d */
};

struct address_range {
	struct address first;
	uint8_t n_bits;
};

/* "10.0.0.0/8", "fd00::/8", "10.1.2.3". Bits behind the prefix must be 0. */
must_use bool address_range_parse(struct slice text, struct address_range *range_out);

/* What is wrong with a range as somebody configured it; NULL: nothing. */
const char *address_range_mistake(const char *text);

bool address_range_has(const struct address_range *range, const struct address *address);

/* False: a name. host: without brackets. */
must_use bool address_of_host(struct slice host, struct address *address_out);

/*
 * Whether a host may be registered. Without ranges (n 0): all but link-local addresses, those at which
 * clouds serve their machines' metadata and keys, and multicast.
 * localhost: when 127.0.0.1 or ::1 may.
 */
bool address_range_allow(const struct address_range *ranges, size_t n, struct slice host);

/* The same of an address, IPv4 or IPv6, that is about to be connected to. */
bool address_range_allow_address(
    const struct address_range *ranges, size_t n, const struct sockaddr_storage *address);

#define ADDRESS_TEXT_BYTES 46

/* As it is written, without its port and scope. */
void address_print(const struct sockaddr_storage *address, char text[static ADDRESS_TEXT_BYTES]);
