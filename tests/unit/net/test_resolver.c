#include "unit/net/rig.h"

#include <arpa/inet.h>
#include <net/if.h>

#include "net/resolver.c"

struct answers {
	struct sockaddr_storage addresses[RESOLVER_ADDRESSES_MAX];
	size_t n;
	unsigned n_calls;
};

/* This machine's name: one that must be looked up. */
static const char *own_name(void) {
	static char name[256];
	assert_int_equal(gethostname(name, sizeof(name)), 0);
	return name;
}

static void on_done(struct resolver *r, const struct sockaddr_storage *addresses, size_t n) {
	struct answers *a = resolver_context(r);
	if (n)
		memcpy(a->addresses, addresses, n * sizeof(*addresses));
	a->n = n;
	a->n_calls++;
}

static uint16_t port_of(const struct sockaddr_storage *at) {
	return ntohs(at->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)at)->sin6_port
					       : ((const struct sockaddr_in *)at)->sin_port);
}

static void an_address_is_known_at_once(void **state) {
	static const struct {
		const char *host;
		sa_family_t family;
	} rows[] = { { "127.0.0.1", AF_INET }, { "255.1.2.3", AF_INET }, { "::1", AF_INET6 },
		{ "fe80::1:2", AF_INET6 } };
	struct answers a = { .n = 0 };
	struct resolver *r = resolver_new(on_done, &a);
	for (size_t i = 0; i < n_elems(rows); i++) {
		resolver_start(r, NULL, rows[i].host, 8000);
		assert_int_equal(a.n_calls, i + 1);
		assert_int_equal(a.n, 1);
		assert_int_equal(a.addresses[0].ss_family, rows[i].family);
		assert_int_equal(port_of(&a.addresses[0]), 8000);
	}
	resolver_free(&r);
	assert_null(r);
	resolver_free(&r);
}

static void only_whole_addresses_are_addresses(void **state) {
	static const char *const rows[] = { "", "localhost", "1.2.3", "1.2.3.4.5", "256.1.1.1", "[::1]",
		"::1%lo", "0x7f.1", "1.2.3.4 ", ":::" };
	struct sockaddr_storage address;
	for (size_t i = 0; i < n_elems(rows); i++)
		assert_false(resolver_is_address(rows[i], 80, &address));
}

static void an_address_keeps_its_scope(void **state) {
	struct sockaddr_storage address;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address;
	struct in6_addr expected;
	unsigned index = if_nametoindex("lo");
	char numbered[32];
	if (!index)
		skip(); /* a loopback of another name */
	inet_pton(AF_INET6, "fe80::1", &expected);
	snprintf(numbered, sizeof(numbered), "fe80::1%%%u", index);
	const char *const hosts[] = { "fe80::1%lo", numbered };
	for (size_t i = 0; i < n_elems(hosts); i++) {
		assert_true(resolver_is_address(hosts[i], 80, &address));
		assert_int_equal(address.ss_family, AF_INET6);
		assert_memory_equal(&in6->sin6_addr, &expected, sizeof(expected));
		assert_int_equal(in6->sin6_scope_id, index);
		assert_int_equal(port_of(&address), 80);
	}
	assert_true(resolver_is_address("fe80::1", 80, &address));
	assert_int_equal(in6->sin6_scope_id, 0);
	assert_false(resolver_is_address("fe80::1%none-such", 80, &address));
}

/* "127.0.0.1 engine" and "::1 engine" in a hosts file make 127.0.0.1 appear twice. */
static void each_address_is_taken_once(void **state) {
	static const char *const texts[] = { "127.0.0.1", "::1", "127.0.0.1", "127.0.0.2", "::1" };
	static const char *const kept[] = { "127.0.0.1", "::1", "127.0.0.2" };
	struct addrinfo list[n_elems(texts) + 1];
	struct sockaddr_storage expected, in[n_elems(texts)], out[RESOLVER_ADDRESSES_MAX];
	struct sockaddr local = { .sa_family = AF_UNIX };
	for (size_t i = 0; i < n_elems(texts); i++) {
		assert_true(resolver_is_address(texts[i], 0, &in[i]));
		list[i] = (struct addrinfo){ .ai_family = in[i].ss_family,
			.ai_addr = (struct sockaddr *)&in[i],
			.ai_addrlen = in[i].ss_family == AF_INET ? sizeof(struct sockaddr_in)
								 : sizeof(struct sockaddr_in6),
			.ai_next = &list[i + 1] };
	}
	list[n_elems(texts)] =
	    (struct addrinfo){ .ai_family = AF_UNIX, .ai_addr = &local, .ai_addrlen = sizeof(local) };
	assert_int_equal(resolver_copy(list, 8000, out, n_elems(out)), n_elems(kept));
	for (size_t i = 0; i < n_elems(kept); i++) {
		assert_true(resolver_is_address(kept[i], 8000, &expected));
		assert_memory_equal(&out[i], &expected, sizeof(expected));
	}
	assert_int_equal(resolver_copy(list, 8000, out, 2), 2);
}

static void localhost_is_this_machine(void **state) {
	struct answers a = { .n = 0 };
	struct resolver *resolver = resolver_new(on_done, &a);
	struct rig r;
	rig_open(&r);
	resolver_start(resolver, &r.loop, "LocalHost", 4711);
	assert_int_equal(a.n_calls, 1);
	assert_int_equal(a.n, 2);
	assert_int_equal(a.addresses[0].ss_family, AF_INET);
	assert_int_equal(a.addresses[1].ss_family, AF_INET6);
	assert_int_equal(port_of(&a.addresses[1]), 4711);
	resolver_free(&resolver);
	rig_close(&r);
}

static void a_name_is_looked_up(void **state) {
	struct answers a = { .n = 0 };
	struct addrinfo *known = NULL;
	if (getaddrinfo(own_name(), NULL, NULL, &known) != 0)
		skip(); /* a bare root has no /etc/hosts */
	freeaddrinfo(known);
	struct resolver *resolver = resolver_new(on_done, &a);
	struct rig r;
	rig_open(&r);
	resolver_start(resolver, &r.loop, own_name(), 4711);
	assert_int_equal(a.n_calls, 0);
	resolver_start(resolver, &r.loop, own_name(), 1); /* one at a time */
	rig_until(&r, a.n_calls);
	assert_int_equal(a.n_calls, 1);
	assert_in_range(a.n, 1, RESOLVER_ADDRESSES_MAX);
	for (size_t i = 0; i < a.n; i++)
		assert_int_equal(port_of(&a.addresses[i]), 4711);
	resolver_start(resolver, &r.loop, own_name(), 4712); /* and again */
	rig_until(&r, a.n_calls == 2);
	assert_int_equal(port_of(&a.addresses[0]), 4712);
	resolver_free(&resolver);
	rig_close(&r);
}

static void what_is_no_name_has_no_address(void **state) {
	char host[400];
	struct answers a = { .n = 1 };
	struct resolver *resolver = resolver_new(on_done, &a);
	struct rig r;
	rig_open(&r);
	memset(host, 'x', sizeof(host) - 1);
	host[sizeof(host) - 1] = '\0';
	resolver_start(resolver, &r.loop, host, 80);
	rig_until(&r, a.n_calls);
	assert_int_equal(a.n, 0);
	resolver_free(&resolver);
	rig_close(&r);
}

/* The lookup ends when it likes; nobody is told, and nothing is left. */
static void a_lookup_may_be_abandoned(void **state) {
	struct answers a = { .n = 0 };
	struct rig r;
	rig_open(&r);
	for (unsigned i = 0; i < 8; i++) {
		struct resolver *resolver = resolver_new(on_done, &a);
		resolver_start(resolver, &r.loop, own_name(), 80);
		resolver_free(&resolver);
	}
	assert_int_equal(resolver_n_running(), 8);
	rig_close(&r);
	assert_int_equal(resolver_n_running(), 0);
	assert_int_equal(a.n_calls, 0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_is_known_at_once),
		cmocka_unit_test(only_whole_addresses_are_addresses),
		cmocka_unit_test(an_address_keeps_its_scope),
		cmocka_unit_test(each_address_is_taken_once),
		cmocka_unit_test(localhost_is_this_machine),
		cmocka_unit_test(a_name_is_looked_up),
		cmocka_unit_test(what_is_no_name_has_no_address),
		cmocka_unit_test(a_lookup_may_be_abandoned),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
