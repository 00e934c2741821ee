#include "unit/fleet/scene.h"

#include "fleet/identity.h"

/* The identity of a plain target on port 80 with these addresses; NULL ends them. */
static struct identity identity_of(const char *const *texts) {
	struct instance_spec spec = scene_target("a");
	struct sockaddr_storage addresses[INSTANCE_ADDRESSES_MAX];
	struct identity id;
	uint32_t n = 0;

	for (; texts[n]; n++)
		addresses[n] = scene_address(texts[n], 80);
	identity_init(&id, &spec, addresses, n);
	return id;
}

#define IDENTITY(...) identity_of((const char *const[]){ __VA_ARGS__, NULL })

static bool is_same(struct identity a, struct identity b) {
	int cmp = identity_cmp(&a, &b);

	assert_int_equal(cmp<0, identity_cmp(&b, &a)> 0);
	return cmp == 0;
}

static void addresses_are_a_set(void **state) {
	assert_true(is_same(IDENTITY("10.0.0.1", "10.0.0.2"), IDENTITY("10.0.0.2", "10.0.0.1", "10.0.0.2")));
	assert_false(is_same(IDENTITY("10.0.0.1", "10.0.0.2"), IDENTITY("10.0.0.1")));
	assert_false(is_same(IDENTITY("10.0.0.1"), IDENTITY("10.0.0.2")));
	assert_false(is_same(IDENTITY("fe80::1"), IDENTITY("fe80::2")));
}

static void ipv4_may_be_written_as_ipv6(void **state) {
	assert_true(is_same(IDENTITY("::ffff:10.0.0.1"), IDENTITY("10.0.0.1")));
}

static void localhost_is_127_0_0_1(void **state) {
	assert_true(is_same(IDENTITY("::1", "127.0.0.1"), IDENTITY("127.0.0.1")));
	assert_false(is_same(IDENTITY("::1"), IDENTITY("127.0.0.1")));
	assert_false(is_same(IDENTITY("::1", "127.0.0.2"), IDENTITY("127.0.0.2")));
}

static void port_rank_and_tls_count(void **state) {
	struct sockaddr_storage at_80 = scene_address("10.0.0.1", 80), at_81 = scene_address("10.0.0.1", 81);
	struct instance_spec plain = scene_target("a"), ranked = plain, tls = plain,
			     renamed = scene_target("b");
	struct identity base, other;

	ranked.rank = 1;
	tls.is_tls = true;
	identity_init(&base, &plain, &at_80, 1);
	identity_init(&other, &plain, &at_81, 1);
	assert_false(is_same(base, other));
	identity_init(&other, &ranked, &at_80, 1);
	assert_false(is_same(base, other));
	identity_init(&other, &tls, &at_80, 1);
	assert_false(is_same(base, other));
	identity_init(&other, &renamed, &at_80, 1);
	assert_true(is_same(base, other));
}

/* One address serves many of them. */
static void a_provider_is_known_by_its_name_and_path(void **state) {
	struct sockaddr_storage address = scene_address("10.0.0.1", 443);
	struct instance_spec spec = scene_target("a"), other = spec;
	struct identity a, b;

	spec.is_provider = other.is_provider = true;
	spec.base = other.base = SLICE("/v1");
	identity_init(&a, &spec, &address, 1);
	identity_init(&b, &other, &address, 1);
	assert_true(is_same(a, b));
	other.base = SLICE("/v2");
	identity_init(&b, &other, &address, 1);
	assert_false(is_same(a, b));
	other = spec;
	other.authority = SLICE("other:8000");
	identity_init(&b, &other, &address, 1);
	assert_false(is_same(a, b));
	other = spec;
	other.is_provider = false;
	identity_init(&b, &other, &address, 1);
	assert_false(is_same(a, b));
}

static void scope_counts(void **state) {
	struct sockaddr_storage one = scene_address("fe80::1", 80), two = one;
	struct instance_spec spec = scene_target("a");
	struct identity a, b;

	((struct sockaddr_in6 *)&two)->sin6_scope_id = 2;
	identity_init(&a, &spec, &one, 1);
	identity_init(&b, &spec, &two, 1);
	assert_false(is_same(a, b));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_a_set),
		cmocka_unit_test(ipv4_may_be_written_as_ipv6),
		cmocka_unit_test(localhost_is_127_0_0_1),
		cmocka_unit_test(port_rank_and_tls_count),
		cmocka_unit_test(a_provider_is_known_by_its_name_and_path),
		cmocka_unit_test(scope_counts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
