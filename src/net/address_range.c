#include "net/address_range.h"

#include <arpa/inet.h>

#include "base/text.h"

#define HOST_MAX 255

static unsigned address_bits(const struct address *a) {
	return a->is_ipv4 ? 32 : 128;
}

static void address_set_ipv4(struct address *a, const void *bytes) {
	*a = (struct address){ .is_ipv4 = true };
	memcpy(a->bytes, bytes, 4);
}

/* Where in it an IPv4 address stands that packets to it end up at; NULL: nowhere. */
static const uint8_t *embedded_ipv4(const struct in6_addr *in6) {
	static const uint8_t nat64[12] = { 0x00, 0x64, 0xff, 0x9b }; /* 64:ff9b::/96, RFC 6052 */
	static const uint8_t six_to_four[2] = { 0x20, 0x02 };        /* 2002::/16, RFC 3056 */

	if (IN6_IS_ADDR_V4MAPPED(in6) || memcmp(in6->s6_addr, nat64, sizeof(nat64)) == 0)
		return in6->s6_addr + 12;
	return memcmp(in6->s6_addr, six_to_four, sizeof(six_to_four)) == 0 ? in6->s6_addr + 2 : NULL;
}

static void address_set_ipv6(struct address *a, const struct in6_addr *in6) {
	const uint8_t *ipv4 = embedded_ipv4(in6);

	if (ipv4) {
		address_set_ipv4(a, ipv4);
		return;
	}
	*a = (struct address){ .is_ipv4 = false };
	memcpy(a->bytes, in6->s6_addr, 16);
}

static bool address_read_ipv6(const char *text, struct address *out) {
	struct in6_addr in6;

	if (inet_pton(AF_INET6, text, &in6) != 1)
		return false;
	address_set_ipv6(out, &in6);
	return true;
}

bool address_of_host(struct slice host, struct address *out) {
	char text[HOST_MAX + 1];
	struct in_addr in;

	if (host.n == 0 || host.n > HOST_MAX)
		return false;
	memcpy(text, host.p, host.n);
	text[host.n] = '\0';
	if (memchr(text, ':', host.n)) {
		text[strcspn(text, "%")] = '\0';
		return address_read_ipv6(text, out);
	}
	if (!inet_aton(text, &in)) /* resolvers take its old spellings, too */
		return false;
	address_set_ipv4(out, &in);
	return true;
}

bool address_range_has(const struct address_range *range, const struct address *address) {
	unsigned n = range->n_bits / 8, rest = range->n_bits % 8;

	if (range->first.is_ipv4 != address->is_ipv4 || memcmp(range->first.bytes, address->bytes, n) != 0)
		return false;
	return rest == 0 || (range->first.bytes[n] ^ address->bytes[n]) >> (8 - rest) == 0;
}

static bool is_clear_behind(const struct address_range *range) {
	for (unsigned bit = range->n_bits; bit < address_bits(&range->first); bit++)
		if (range->first.bytes[bit / 8] & (0x80 >> bit % 8))
			return false;
	return true;
}

bool address_range_parse(struct slice text, struct address_range *range_out) {
	const char *slash = text.n ? memchr(text.p, '/', text.n) : NULL;
	struct slice host = slash ? slice_head(text, (size_t)(slash - text.p)) : text;
	struct address_range range = { .n_bits = 0 };

	if (!text_is_host(host) || !address_of_host(host, &range.first))
		return false;
	uint64_t n_bits = address_bits(&range.first);
	if (slash && !text_uint(slice_skip(text, host.n + 1), n_bits, &n_bits))
		return false;
	range.n_bits = (uint8_t)n_bits;
	if (!is_clear_behind(&range))
		return false;
	*range_out = range;
	return true;
}

const char *address_range_mistake(const char *text) {
	struct address_range range;

	return address_range_parse(slice_of(text), &range)
	    ? NULL
	    : "expected an address range such as 10.0.0.0/8 or fd00::/8";
}

/* What nobody should be sent to unless the configuration names it. 0.0.0.0 leads to this machine, as
 * 127.0.0.1 does, where engines may be. */
static bool is_refused(const struct address *address) {
	static const struct address_range refused[] = {
		{ { { 224 }, true }, 3 },                 /* multicast, broadcast, reserved */
		{ { { 169, 254 }, true }, 16 },           /* link-local, and most metadata */
		{ { { 100, 100, 100, 200 }, true }, 32 }, /* Alibaba */
		{ { { 168, 63, 129, 16 }, true }, 32 },   /* Azure */
		{ { { 192, 0, 0, 192 }, true }, 32 },     /* Oracle */
		{ { { 0xff }, false }, 8 },               /* multicast */
		{ { { 0xfe, 0x80 }, false }, 10 },        /* link-local */
		{ { { 0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, 0x54 }, false }, 128 }, /* AWS: fd00:ec2::254 */
		{ { { 0xfd, 0x20, 0x00, 0xce, [14] = 0x02, 0x54 }, false }, 128 }, /* Google: fd20:ce::254 */
	};

	for (size_t i = 0; i < n_elems(refused); i++)
		if (address_range_has(&refused[i], address))
			return true;
	return false;
}

static bool is_allowed(const struct address_range *ranges, size_t n, const struct address *address) {
	if (n == 0)
		return !is_refused(address);
	for (size_t i = 0; i < n; i++)
		if (address_range_has(&ranges[i], address))
			return true;
	return false;
}

bool address_range_allow(const struct address_range *ranges, size_t n, struct slice host) {
	static const struct address local[] = { { { 127, 0, 0, 1 }, true }, { { [15] = 1 }, false } };
	struct address address;

	if (slice_is(host, SLICE("localhost")))
		return is_allowed(ranges, n, &local[0]) || is_allowed(ranges, n, &local[1]);
	return !address_of_host(host, &address) || is_allowed(ranges, n, &address);
}

bool address_range_allow_address(
    const struct address_range *ranges, size_t n, const struct sockaddr_storage *address) {
	struct address a;

	if (address->ss_family == AF_INET)
		address_set_ipv4(&a, &((const struct sockaddr_in *)address)->sin_addr);
	else
		address_set_ipv6(&a, &((const struct sockaddr_in6 *)address)->sin6_addr);
	return is_allowed(ranges, n, &a);
}

void address_print(const struct sockaddr_storage *address, char text[static ADDRESS_TEXT_BYTES]) {
	const void *bytes = address->ss_family == AF_INET
	    ? (const void *)&((const struct sockaddr_in *)address)->sin_addr
	    : (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr;
	const char *printed = inet_ntop(address->ss_family, bytes, text, ADDRESS_TEXT_BYTES);

	assert(printed);
}
