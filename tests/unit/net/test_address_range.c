#include "unit/unit.h"

#include <arpa/inet.h>

#include "net/address_range.h"

static bool has(const char *range, const char *host) {
	struct address_range r;
	struct address a;

	assert_true(address_range_parse(slice_of(range), &r));
	assert_true(address_of_host(slice_of(host), &a));
	return address_range_has(&r, &a);
}

static void ranges_end_at_their_bits(void **state) {
	static const struct {
		const char *range, *first, *last, *below, *above;
	} rows[] = {
		{ "10.0.0.0/8", "10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0" },
		{ "172.16.0.0/12", "172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0" },
		{ "10.1.2.3", "10.1.2.3", "10.1.2.3", "10.1.2.2", "10.1.2.4" },
		{ "10.1.2.2/31", "10.1.2.2", "10.1.2.3", "10.1.2.1", "10.1.2.4" },
		{ "fe80::/10", "fe80::", "febf::1", "fe7f:ffff::", "fec0::" },
		{ "fd00::/8", "fd00::", "fdff::1", "fcff::", "fe00::" },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		assert_true(has(rows[i].range, rows[i].first));
		assert_true(has(rows[i].range, rows[i].last));
		assert_false(has(rows[i].range, rows[i].below));
		assert_false(has(rows[i].range, rows[i].above));
	}
}

static void families_are_apart(void **state) {
	assert_true(has("0.0.0.0/0", "1.2.3.4"));
	assert_false(has("0.0.0.0/0", "::1"));
	assert_true(has("::/0", "::1"));
	assert_false(has("::/0", "1.2.3.4"));
	assert_true(has("10.0.0.0/8", "::ffff:10.0.0.1"));
	assert_true(has("169.254.0.0/16", "64:ff9b::a9fe:a9fe")); /* by NAT64 */
	assert_true(has("169.254.0.0/16", "2002:a9fe:a9fe::1"));  /* by 6to4 */
	assert_false(has("169.254.0.0/16", "64:ff9b:1::a9fe:a9fe"));
}

static void what_is_no_range(void **state) {
	static const char *const texts[] = { "", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.1/8",
		"::/129", "fe80::1/10", "name", "name/8", "localhost", "10.0.0.0/8/8", "10.0.0.0/ 8",
		"10.0.0.0 /8", "[::]/0" };
	struct address_range r;

	for (size_t i = 0; i < n_elems(texts); i++)
		if (address_range_parse(slice_of(texts[i]), &r))
			fail_msg("\"%s\" was taken", texts[i]);
}

static void addresses_in_all_their_spellings(void **state) {
	static const char *const spellings[] = { "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1",
		"0177.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1" };
	static const char *const names[] = { "", "engine", "engine-1.example", "127.0.0.1.example",
		"1.2.3.4.5", "256.1.1.1", ":", "::g", "fe80" };
	struct address a;

	for (size_t i = 0; i < n_elems(spellings); i++) {
		assert_true(address_of_host(slice_of(spellings[i]), &a));
		assert_true(a.is_ipv4);
		assert_memory_equal(a.bytes, ((uint8_t[]){ 127, 0, 0, 1 }), 4);
	}
	for (size_t i = 0; i < n_elems(names); i++)
		assert_false(address_of_host(slice_of(names[i]), &a));
	assert_true(address_of_host(slice_of("fe80::1%eth0"), &a));
	assert_false(a.is_ipv4);
}

static void by_default_all_but_a_few(void **state) {
	static const char *const refused[] = { "169.254.0.1", "169.254.169.254", "0xa9fea9fe", "fe80::1",
		"fe80::1%lo", "febf::1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254",
		"fd20:ce::254", "::ffff:169.254.169.254", "224.0.0.1", "239.255.255.255", "255.255.255.255",
		"ff02::1" };
	static const char *const taken[] = { "10.0.0.1", "127.0.0.1", "::1", "0.0.0.0", "1.0.0.1",
		"223.255.255.255", "8.8.8.8", "2001:db8::1", "fd00::1", "100.100.100.201", "169.253.1.1",
		"fec0::1", "localhost", "LocalHost", "engine.example" };

	for (size_t i = 0; i < n_elems(refused); i++)
		if (address_range_allow(NULL, 0, slice_of(refused[i])))
			fail_msg("%s was taken", refused[i]);
	for (size_t i = 0; i < n_elems(taken); i++)
		if (!address_range_allow(NULL, 0, slice_of(taken[i])))
			fail_msg("%s was refused", taken[i]);
}

static void with_ranges_only_those(void **state) {
	struct address_range ranges[2];

	assert_true(address_range_parse(SLICE("10.0.0.0/8"), &ranges[0]));
	assert_true(address_range_parse(SLICE("169.254.0.0/16"), &ranges[1]));
	assert_true(address_range_allow(ranges, 2, SLICE("169.254.1.1")));
	assert_true(address_range_allow(ranges, 2, SLICE("10.1.1.1")));
	assert_false(address_range_allow(ranges, 2, SLICE("127.0.0.1")));
	assert_false(address_range_allow(ranges, 2, SLICE("localhost")));
	assert_true(address_range_allow(ranges, 2, SLICE("engine.example")));
	assert_true(address_range_parse(SLICE("::1"), &ranges[0]));
	assert_true(address_range_allow(ranges, 1, SLICE("localhost")));
}

static struct sockaddr_storage address_of(const char *text) {
	struct sockaddr_storage a = { .ss_family = strchr(text, ':') ? AF_INET6 : AF_INET };
	void *at = a.ss_family == AF_INET ? (void *)&((struct sockaddr_in *)&a)->sin_addr
					  : (void *)&((struct sockaddr_in6 *)&a)->sin6_addr;

	assert_int_equal(inet_pton(a.ss_family, text, at), 1);
	return a;
}

/* What a name stands for is judged as if it had been written. */
static void what_a_name_leads_to_is_judged_alike(void **state) {
	static const char *const hosts[] = { "169.254.169.254", "::ffff:169.254.169.254", "fe80::1",
		"fd00:ec2::254", "10.0.0.1", "127.0.0.1", "::1", "::ffff:10.0.0.1", "2001:db8::1" };
	struct address_range range;

	assert_true(address_range_parse(SLICE("10.0.0.0/8"), &range));
	for (size_t i = 0; i < n_elems(hosts); i++) {
		struct sockaddr_storage a = address_of(hosts[i]);
		assert_int_equal(address_range_allow_address(NULL, 0, &a),
		    address_range_allow(NULL, 0, slice_of(hosts[i])));
		assert_int_equal(address_range_allow_address(&range, 1, &a),
		    address_range_allow(&range, 1, slice_of(hosts[i])));
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_end_at_their_bits),
		cmocka_unit_test(families_are_apart),
		cmocka_unit_test(what_is_no_range),
		cmocka_unit_test(addresses_in_all_their_spellings),
		cmocka_unit_test(by_default_all_but_a_few),
		cmocka_unit_test(with_ranges_only_those),
		cmocka_unit_test(what_a_name_leads_to_is_judged_alike),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
