#include "unit/unit.h"

#include "fleet/label.h"
#include "router/tenant.h"

static const char *const some_models[] = { "llama", "qwen-*" };
static const struct tenant two[] = {
	{ .name = "a", .weight = 1 },
	{ .name = "b", .weight = 3, .models = { some_models, n_elems(some_models) } },
};

/* a's key is key-a, and so on. */
static struct tenant_table *table_of_two(struct digester *d) {
	struct tenant_table *table = tenant_table_new(two, n_elems(two));
	uint8_t digest[DIGEST_BYTES];

	digester_sha256(d, SLICE("key-a"), digest);
	assert_int_equal(tenant_table_add(table, 1, digest), 0);
	digester_sha256(d, SLICE("key-b"), digest);
	assert_int_equal(tenant_table_add(table, 2, digest), 0);
	return table;
}

/* Who asks with these fields; the cause if nobody. */
static enum cause admit(
    const struct tenant_table *table, struct digester *d, const char *fields, uint16_t *out) {
	struct head_room room;
	char text[2048];
	enum cause cause;

	snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n", fields);
	assert_int_equal(head_parse_request(&room, slice_of(text), &cause), 0);
	return tenant_admit(table, d, &room.head, out);
}

static void everybody_is_anonymous_without_keys(void **state) {
	uint16_t tenant = 7;

	assert_int_equal(admit(NULL, NULL, "Authorization: Bearer whatever\r\n", &tenant), CAUSE_NONE);
	assert_int_equal(tenant, TENANT_ANONYMOUS);
	assert_int_equal(tenant_table_n(NULL), 1);
	assert_string_equal(tenant_get(NULL, 0)->name, "anonymous");
	assert_int_equal(tenant_get(NULL, 0)->salt, 0);
	assert_true(tenant_may_use(tenant_get(NULL, 0), SLICE("any")));
}

static void a_key_says_whose_it_is(void **state) {
	static const struct {
		const char *fields;
		unsigned tenant;
		enum cause cause;
	} rows[] = {
		{ "Authorization: Bearer key-a\r\n", 1, CAUSE_NONE },
		{ "Authorization: Bearer key-b\r\n", 2, CAUSE_NONE },
		{ "x-api-key: key-b\r\n", 2, CAUSE_NONE },
		{ "X-API-Key:  key-b \r\n", 2, CAUSE_NONE },
		{ "authorization: bEaReR   key-a\r\n", 1, CAUSE_NONE },
		{ "Authorization: Bearer key-a\r\nx-api-key: key-a\r\n", 1, CAUSE_NONE },
		{ "Authorization: Bearer key-a\r\nConnection: authorization, x-api-key\r\n", 1, CAUSE_NONE },
		/* a client without a key sends empty fields */
		{ "Authorization: Bearer key-a\r\nx-api-key:\r\n", 1, CAUSE_NONE },
		{ "Authorization: Bearer\r\nx-api-key: key-a\r\n", 1, CAUSE_NONE },
		{ "Authorization:\r\nx-api-key: key-a\r\n", 1, CAUSE_NONE },
		{ "", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Bearer \r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization:\r\nx-api-key:\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Bearer key-c\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Bearer Key-a\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Bearer key-a, Bearer key-b\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Bearer \xc3\xa9\xff\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Bearerkey-a\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: key-a\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Basic key-a\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Basic eA==\r\nx-api-key: key-a\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Bearer key-a\r\nx-api-key: key-b\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Bearer key-a\r\nx-api-key: key-\r\n", 0, CAUSE_INVALID_KEY },
		{ "x_api_key: key-a\r\n", 0, CAUSE_INVALID_KEY },
		{ "Authorization: Bearer key-a\r\nAuthorization: Bearer key-a\r\n", 0, CAUSE_CREDENTIALS },
		{ "Authorization: Bearer key-a\r\nAuthorization:\r\n", 0, CAUSE_CREDENTIALS },
		{ "x-api-key: key-a\r\nX-Api-Key: key-b\r\n", 0, CAUSE_CREDENTIALS },
	};
	struct digester *d = digester_new();
	struct tenant_table *table = table_of_two(d);

	for (size_t i = 0; i < n_elems(rows); i++) {
		uint16_t tenant = 7;

		if (admit(table, d, rows[i].fields, &tenant) != rows[i].cause || tenant != rows[i].tenant)
			fail_msg("%s: tenant %u", rows[i].fields, tenant);
	}
	tenant_table_free(&table);
	assert_null(table);
	digester_free(&d);
}

static void a_long_key_is_nobodys(void **state) {
	struct digester *d = digester_new();
	struct tenant_table *table = tenant_table_new(two, n_elems(two));
	char fields[TENANT_KEY_MAX + 64], key[TENANT_KEY_MAX + 2];
	uint8_t digest[DIGEST_BYTES];
	uint16_t tenant;

	for (unsigned more = 0; more < 2; more++) {
		memset(key, 'k', TENANT_KEY_MAX + more);
		key[TENANT_KEY_MAX + more] = '\0';
		digester_sha256(d, slice_of(key), digest);
		assert_int_equal(tenant_table_add(table, 1, digest), 0);
		snprintf(fields, sizeof(fields), "x-api-key: %s\r\n", key);
		assert_int_equal(admit(table, d, fields, &tenant), more ? CAUSE_INVALID_KEY : CAUSE_NONE);
	}
	tenant_table_free(&table);
	digester_free(&d);
}

/* So many that the table grows, half of each; then no more. */
static void any_number_of_keys_is_found(void **state) {
	struct tenant_table *table = tenant_table_new(two, n_elems(two));
	uint8_t digest[DIGEST_BYTES] = { 0 };

	for (uint32_t i = 0; i < TENANT_KEYS_MAX; i++) {
		uint32_t spread = i * 2654435761u,
			 crowd = spread % 64 ? spread : i % 7; /* some begin alike */
		memcpy(digest, &crowd, sizeof(crowd));
		memcpy(digest + 20, &i, sizeof(i));
		assert_int_equal(tenant_table_add(table, 1 + i % 2, digest), 0);
		assert_int_equal(tenant_table_add(table, 1 + i % 2, digest), 0);
		assert_int_equal(tenant_table_add(table, 2 - i % 2, digest), TENANT_E_OTHERS);
	}
	for (uint32_t i = 0; i < TENANT_KEYS_MAX; i++) {
		uint32_t spread = i * 2654435761u, crowd = spread % 64 ? spread : i % 7;
		memcpy(digest, &crowd, sizeof(crowd));
		memcpy(digest + 20, &i, sizeof(i));
		assert_int_equal(tenant_table_find(table, digest), 1 + i % 2);
		digest[31] = 1;
		assert_int_equal(tenant_table_find(table, digest), TENANT_ANONYMOUS);
		digest[31] = 0;
	}
	digest[31] = 1;
	assert_int_equal(tenant_table_add(table, 1, digest), TENANT_E_FULL);
	tenant_table_free(&table);
}

static void tenants_have_names_and_salts(void **state) {
	struct tenant_table *table = tenant_table_new(two, n_elems(two)),
			    *again = tenant_table_new(two + 1, 1);

	assert_int_equal(tenant_table_n(table), 3);
	assert_int_equal(tenant_by_name(table, SLICE("b")), 2);
	assert_int_equal(tenant_by_name(table, SLICE("c")), TENANT_ANONYMOUS);
	assert_int_equal(tenant_by_name(NULL, SLICE("a")), TENANT_ANONYMOUS);
	assert_int_equal(tenant_get(table, 2)->weight, 3);
	assert_int_not_equal(tenant_get(table, 1)->salt, 0);
	assert_int_not_equal(tenant_get(table, 1)->salt, tenant_get(table, 2)->salt);
	/* of the name alone: another order, another start or another router change nothing */
	assert_int_equal(tenant_get(again, 2)->salt, tenant_get(table, 2)->salt);
	/* labels are for good: of what is put in force */
	assert_int_equal(tenant_get(table, 2)->label, LABEL_OTHER);
	tenant_table_label(table);
	tenant_table_label(again);
	assert_int_not_equal(tenant_get(table, 2)->label, LABEL_OTHER);
	assert_int_equal(tenant_get(again, 2)->label, tenant_get(table, 2)->label);
	tenant_table_free(&table);
	tenant_table_free(&again);
}

/* A tenant is counted by its number, also by requests of before a reload. */
static void a_number_is_kept_as_long_as_a_table_has_it(void **state) {
	static const struct tenant others[] = { { .name = "c", .weight = 1 }, { .name = "b", .weight = 1 } };
	struct tenant_table *old = tenant_table_new(two, n_elems(two)),
			    *now = tenant_table_new(others, n_elems(others));

	assert_int_equal(tenant_by_name(now, SLICE("b")), 2);
	assert_int_equal(tenant_by_name(now, SLICE("c")), 3); /* 1 is a's, of the old table */
	assert_false(tenant_is_there(now, 1));
	assert_true(tenant_is_there(now, TENANT_ANONYMOUS));
	assert_false(tenant_is_there(now, 4));
	assert_int_equal(tenant_by_name(now, SLICE("a")), TENANT_ANONYMOUS);
	tenant_table_free(&old);
	struct tenant_table *next = tenant_table_new(two, n_elems(two));
	assert_int_equal(tenant_by_name(next, SLICE("a")), 1);
	assert_int_equal(tenant_by_name(next, SLICE("b")), 2);
	tenant_table_free(&now);
	tenant_table_free(&next);
}

static void other_keys_have_another_sum(void **state) {
	struct tenant_table *a = tenant_table_new(two, n_elems(two)),
			    *b = tenant_table_new(two, n_elems(two));
	uint8_t digest[DIGEST_BYTES] = { 1, 2, 3 }, other[DIGEST_BYTES] = { 1, 2, 4 };

	assert_int_equal(tenant_keys_of(a, 1).n, 0);
	assert_int_equal(tenant_keys_of(NULL, 0).n, 0);
	assert_int_equal(tenant_table_add(a, 1, digest), 0);
	assert_int_equal(tenant_table_add(a, 2, other), 0);
	assert_int_equal(tenant_table_add(b, 1, digest), 0);
	struct tenant_keys x = tenant_keys_of(a, 1), y = tenant_keys_of(b, 1), z = tenant_keys_of(a, 2);
	assert_memory_equal(&x, &y, sizeof(x));
	assert_memory_not_equal(&x, &z, sizeof(x));
	tenant_table_free(&a);
	tenant_table_free(&b);
}

static void models_are_ids_or_beginnings(void **state) {
	static const struct {
		const char *model;
		bool may;
	} rows[] = { { "llama", true }, { "llama2", false }, { "Llama", false }, { "qwen-", true },
		{ "qwen-7b", true }, { "qwen", false }, { "", false }, { "x-qwen-7b", false } };
	static const char *const all[] = { "*" };
	const struct tenant any = { .name = "c" }, starred = { .name = "d", .models = { all, 1 } };

	for (size_t i = 0; i < n_elems(rows); i++) {
		assert_int_equal(tenant_may_use(&two[1], slice_of(rows[i].model)), rows[i].may);
		assert_true(tenant_may_use(&any, slice_of(rows[i].model)));
		assert_true(tenant_may_use(&starred, slice_of(rows[i].model)));
	}
}

#define ZEROES "00000000000000000000000000000000000000000000000000000000000000"

static void digests_are_read_from_text(void **state) {
	static const char *const bad[] = { "", "sha256:", "sha256:" ZEROES, "sha256:" ZEROES "0",
		"sha256:" ZEROES "000", "sha256:" ZEROES "0g", ZEROES "00", "sha512:" ZEROES "00",
		"sha256 " ZEROES "00" };
	uint8_t digest[DIGEST_BYTES];

	for (size_t i = 0; i < n_elems(bad); i++)
		assert_false(tenant_read_digest(slice_of(bad[i]), digest));
	assert_true(tenant_read_digest(SLICE("sha256:" ZEROES "fA"), digest));
	assert_int_equal(digest[31], 0xfa);
	assert_int_equal(digest[0], 0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everybody_is_anonymous_without_keys),
		cmocka_unit_test(a_key_says_whose_it_is),
		cmocka_unit_test(a_long_key_is_nobodys),
		cmocka_unit_test(any_number_of_keys_is_found),
		cmocka_unit_test(tenants_have_names_and_salts),
		cmocka_unit_test(a_number_is_kept_as_long_as_a_table_has_it),
		cmocka_unit_test(other_keys_have_another_sum),
		cmocka_unit_test(models_are_ids_or_beginnings),
		cmocka_unit_test(digests_are_read_from_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
