#include "unit/unit.h"

#include "router/rate.h"

#define SECOND UINT64_C(1000000000)
#define START  (1000 * SECOND)

enum { FREE = 1, COUNTED, METERED, BOTH };

static const struct tenant tenants[] = {
	{ .name = "free" },
	{ .name = "counted", .requests_per_minute = 3 },
	{ .name = "metered", .tokens_per_minute = 600 },
	{ .name = "both", .requests_per_minute = 60, .tokens_per_minute = 600 },
};

struct rates {
	struct tenant_table *tenants;
	struct rate_table *table;
};

static struct rates rates_of(uint64_t per_second) {
	struct rates r = { .tenants = tenant_table_new(tenants, n_elems(tenants)) };

	r.table = rate_table_new(r.tenants, per_second);
	assert_non_null(r.table);
	return r;
}

static void rates_free(struct rates *r) {
	rate_table_free(&r->table);
	assert_null(r->table);
	tenant_table_free(&r->tenants);
}

static enum cause take(struct rates *r, uint32_t tenant, uint32_t label, uint32_t tokens, uint64_t now_ns,
    struct rate_claim *claim) {
	const struct demand demand = { .prompt_tokens = tokens / 2, .output_tokens = tokens - tokens / 2 };

	*claim = (struct rate_claim){ .tokens = 0 };
	return rate_take(r->table, tenant, label, &demand, now_ns, claim);
}

static struct rate_use used(uint64_t tokens) {
	return (struct rate_use){ .tokens = tokens, .is_request = true };
}

static void without_limits_there_is_no_table(void **state) {
	struct tenant_table *table = tenant_table_new(tenants, 1);
	struct rate_claim claim = { .tokens = 0 };
	const struct demand demand = { .prompt_tokens = 5 };
	char room[RATE_FIELDS_BYTES];

	assert_null(rate_table_new(table, 0));
	assert_null(rate_table_new(NULL, 0));
	assert_int_equal(rate_take(NULL, 1, 0, &demand, START, &claim), CAUSE_NONE);
	assert_true(rate_is_taken(&claim));
	rate_settle(NULL, 1, used(9), START, &claim);
	assert_false(rate_is_taken(&claim));
	assert_false(rate_is_limited(NULL, 1));
	assert_int_equal(rate_fields(NULL, 1, 0, START, room).n, 0);
	tenant_table_free(&table);
}

static void requests_are_counted_by_tenant_and_model(void **state) {
	struct rates r = rates_of(0);
	struct rate_claim claim;

	for (unsigned label = 1; label < 3; label++) {
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(take(&r, COUNTED, label, 1000000, START, &claim), CAUSE_NONE);
		assert_int_equal(take(&r, COUNTED, label, 1, START, &claim), CAUSE_REQUEST_RATE);
		assert_false(rate_is_taken(&claim));
		assert_int_equal(claim.wait_s, 20);
	}
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(take(&r, FREE, 1, 1000000, START, &claim), CAUSE_NONE);
	assert_int_equal(take(&r, COUNTED, 1, 1, START + 20 * SECOND - 1, &claim), CAUSE_REQUEST_RATE);
	assert_int_equal(claim.wait_s, 1);
	assert_int_equal(take(&r, COUNTED, 1, 1, START + 20 * SECOND, &claim), CAUSE_NONE);
	rates_free(&r);
}

/* What is refused for its tokens is no request either, and the other way round. */
static void it_is_all_or_nothing(void **state) {
	struct rates r = rates_of(2);
	struct rate_claim claim;
	char room[RATE_FIELDS_BYTES];

	assert_int_equal(take(&r, BOTH, 1, 600, START, &claim), CAUSE_NONE);
	for (unsigned i = 0; i < 500; i++)
		assert_int_equal(take(&r, BOTH, 1, 100, START, &claim), CAUSE_TOKEN_RATE);
	assert_int_equal(claim.wait_s, 10);
	struct slice left = rate_fields(r.table, BOTH, 1, START, room);
	assert_non_null(memmem(left.p, left.n, "remaining-requests: 59\r\n", 24));
	/* nor is what is refused for all: two were free, of another tenant and of none */
	assert_int_equal(take(&r, FREE, 1, 0, START, &claim), CAUSE_NONE);
	for (unsigned i = 0; i < 500; i++)
		assert_int_equal(take(&r, BOTH, 2, 100, START, &claim), CAUSE_ROUTER_RATE);
	assert_int_equal(claim.wait_s, 1);
	struct slice fields = rate_fields(r.table, BOTH, 2, START, room);
	assert_non_null(memmem(fields.p, fields.n, "remaining-requests: 60\r\n", 24));
	assert_non_null(memmem(fields.p, fields.n, "remaining-tokens: 600\r\n", 23));
	rates_free(&r);
}

static void tokens_are_settled_once(void **state) {
	struct rates r = rates_of(0);
	struct rate_claim claim, other;

	assert_int_equal(take(&r, METERED, 1, 500, START, &claim), CAUSE_NONE);
	assert_int_equal(take(&r, METERED, 1, 200, START, &other), CAUSE_TOKEN_RATE);
	rate_settle(r.table, METERED, used(400), START, &claim);
	for (unsigned i = 0; i < 5; i++)
		rate_settle(r.table, METERED, used(0), START, &claim); /* to no effect */
	assert_int_equal(take(&r, METERED, 1, 201, START, &other), CAUSE_TOKEN_RATE);
	assert_int_equal(take(&r, METERED, 1, 200, START, &other), CAUSE_NONE);
	/* a debt delays whatever comes, tokens or not */
	rate_settle(r.table, METERED, used(1400), START, &other);
	assert_int_equal(take(&r, METERED, 1, 0, START, &other), CAUSE_TOKEN_RATE);
	assert_in_range(other.wait_s, 120, 121);
	/* what was refused has nothing to settle */
	rate_settle(r.table, METERED, used(0), START, &other);
	assert_int_equal(take(&r, METERED, 1, 0, START + 119 * SECOND, &other), CAUSE_TOKEN_RATE);
	assert_int_equal(take(&r, METERED, 1, 0, START + 121 * SECOND, &other), CAUSE_NONE);
	rates_free(&r);
}

/* No engine was asked. */
static void who_was_turned_away_counts_as_nobody(void **state) {
	struct rates r = rates_of(5);
	struct rate_claim claim;

	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(take(&r, COUNTED, 1, 10, START, &claim), CAUSE_NONE);
		rate_settle(r.table, COUNTED, (struct rate_use){ .is_request = false }, START, &claim);
	}
	rates_free(&r);
}

/* More than a minute's worth is asked for at once: it goes when all is there. */
static void what_is_larger_than_the_limit_goes_alone(void **state) {
	struct rates r = rates_of(0);
	struct rate_claim claim;

	assert_int_equal(take(&r, METERED, 1, 1, START, &claim), CAUSE_NONE);
	assert_int_equal(take(&r, METERED, 1, UINT32_MAX, START, &claim), CAUSE_TOKEN_RATE);
	assert_int_equal(claim.wait_s, 1);
	assert_int_equal(take(&r, METERED, 1, UINT32_MAX, START + SECOND, &claim), CAUSE_NONE);
	rates_free(&r);
}

static void all_share_the_seconds(void **state) {
	struct rates r = rates_of(10);
	struct rate_claim claim;
	unsigned n = 0;

	for (uint64_t ms = 0; ms < 10000; ms++)
		n += take(&r, FREE, (uint32_t)ms % 5, 10, START + ms * 1000000, &claim) == CAUSE_NONE;
	assert_in_range(n, 108, 110); /* a second's worth at once, and what the ten seconds bring */
	rates_free(&r);
}

static void fields_are_openais(void **state) {
	struct rates r = rates_of(0);
	struct rate_claim claim;
	char room[RATE_FIELDS_BYTES];

	assert_int_equal(rate_fields(r.table, FREE, 1, START, room).n, 0);
	assert_int_equal(take(&r, BOTH, 1, 86, START, &claim), CAUSE_NONE);
	struct slice fields = rate_fields(r.table, BOTH, 1, START, room);
	assert_true(slice_eq(fields,
	    SLICE("x-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 59\r\n"
		  "x-ratelimit-reset-requests: 1s\r\n"
		  "x-ratelimit-limit-tokens: 600\r\nx-ratelimit-remaining-tokens: 514\r\n"
		  "x-ratelimit-reset-tokens: 8.6s\r\n")));
	fields = rate_fields(r.table, BOTH, 1, START + 8 * SECOND + 580000000, room);
	assert_non_null(memmem(fields.p, fields.n, "reset-requests: 0ms\r\n", 21));
	assert_non_null(memmem(fields.p, fields.n, "reset-tokens: 20ms\r\n", 20));
	rate_settle(r.table, BOTH, used(36600 + 86), START, &claim);
	fields = rate_fields(r.table, BOTH, 1, START, room);
	assert_non_null(memmem(fields.p, fields.n, "reset-tokens: 1h0m0s\r\n", 22)); /* no debt is longer */
	fields = rate_fields(r.table, BOTH, 1, START + 1799999900000, room);
	assert_non_null(memmem(fields.p, fields.n, "reset-tokens: 30m0.001s\r\n", 25));
	assert_non_null(memmem(fields.p, fields.n, "remaining-tokens: 0\r\n", 21));
	rates_free(&r);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_limits_there_is_no_table),
		cmocka_unit_test(requests_are_counted_by_tenant_and_model),
		cmocka_unit_test(it_is_all_or_nothing),
		cmocka_unit_test(tokens_are_settled_once),
		cmocka_unit_test(who_was_turned_away_counts_as_nobody),
		cmocka_unit_test(what_is_larger_than_the_limit_goes_alone),
		cmocka_unit_test(all_share_the_seconds),
		cmocka_unit_test(fields_are_openais),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
