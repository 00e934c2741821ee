#include "router/tenant.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "fleet/label.h"

#define SLOTS_MIN 64u

struct key {
	uint8_t digest[DIGEST_BYTES];
	uint32_t tenant; /* 0: free */
};

struct tenant_table {
	struct tenant *tenants; /* by number; without a name: nobody's */
	uint32_t n;
	struct key *keys; /* open addressing, never more than half full */
	uint32_t n_slots; /* a power of two */
	uint32_t n_keys;
};

static const struct tenant anonymous = { .name = "anonymous", .weight = 1 };

/* 0 is the anonymous one's, and of requests of before there were tenants. */
static uint64_t salt_of(const char *name) {
	uint64_t salt = XXH3_64bits_withSeed(name, strlen(name), UINT64_C(0x74656e616e7473));

	return salt ? salt : 1;
}

/* False: there is no number for it. */
static bool put_tenant(struct tenant_table *table, const struct tenant *tenant) {
	uint32_t number = tenant_number_take(slice_of(tenant->name));

	if (!number)
		return false;
	if (number >= table->n) {
		table->tenants = realloc(table->tenants, (number + 1) * sizeof(*table->tenants));
		memset(table->tenants + table->n, 0, (number + 1 - table->n) * sizeof(*table->tenants));
		table->n = number + 1;
	}
	assert(!table->tenants[number].name);
	table->tenants[number] = *tenant;
	table->tenants[number].salt = salt_of(tenant->name);
	return true;
}

struct tenant_table *tenant_table_new(const struct tenant *tenants, uint32_t n) {
	struct tenant_table *table = calloc(1, sizeof(*table));

	assert(n < TENANTS_MAX);
	table->n = 1;
	table->tenants = calloc(table->n, sizeof(*table->tenants));
	table->tenants[TENANT_ANONYMOUS] = anonymous;
	table->n_slots = SLOTS_MIN;
	table->keys = calloc(table->n_slots, sizeof(*table->keys));
	for (uint32_t i = 0; i < n && table; i++)
		if (!put_tenant(table, &tenants[i]))
			tenant_table_free(&table);
	return table;
}

void tenant_table_label(struct tenant_table *table) {
	for (uint32_t i = 1; i < tenant_table_n(table); i++)
		if (table->tenants[i].name)
			table->tenants[i].label =
			    label_intern(LABEL_TENANT, slice_of(table->tenants[i].name));
}

void tenant_table_free(struct tenant_table **table_ptr) {
	struct tenant_table *table = *table_ptr;

	*table_ptr = NULL;
	if (!table)
		return;
	for (uint32_t i = 1; i < table->n; i++)
		if (table->tenants[i].name)
			tenant_number_give(i);
	free(table->tenants);
	free(table->keys);
	free(table);
}

static uint32_t first_slot(const struct tenant_table *table, const uint8_t *digest) {
	uint64_t start;

	memcpy(&start, digest, sizeof(start));
	return (uint32_t)start & (table->n_slots - 1);
}

/* Its slot, or the free one where it would be. All that stand in between are compared, the right one too. */
static struct key *find(const struct tenant_table *table, const uint8_t *digest) {
	uint32_t at = first_slot(table, digest);
	struct key *found = NULL;

	for (; table->keys[at].tenant; at = (at + 1) & (table->n_slots - 1))
		if (digest_is_equal(table->keys[at].digest, digest, DIGEST_BYTES))
			found = &table->keys[at];
	return found ? found : &table->keys[at];
}

static void grow(struct tenant_table *table) {
	struct key *old = table->keys;
	uint32_t n_old = table->n_slots;

	table->n_slots *= 2;
	table->keys = calloc(table->n_slots, sizeof(*table->keys));
	for (uint32_t i = 0; i < n_old; i++)
		if (old[i].tenant)
			*find(table, old[i].digest) = old[i];
	free(old);
}

int tenant_table_add(struct tenant_table *table, uint32_t tenant, const uint8_t digest[static DIGEST_BYTES]) {
	struct key *key = find(table, digest);

	assert(tenant != TENANT_ANONYMOUS && tenant_is_there(table, tenant));
	if (key->tenant)
		return key->tenant == tenant ? 0 : TENANT_E_OTHERS;
	if (table->n_keys == TENANT_KEYS_MAX)
		return TENANT_E_FULL;
	memcpy(key->digest, digest, DIGEST_BYTES);
	key->tenant = tenant;
	if (++table->n_keys > table->n_slots / 2)
		grow(table);
	return 0;
}

uint32_t tenant_table_n(const struct tenant_table *table) {
	return table ? table->n : 1;
}

uint32_t tenant_table_find(const struct tenant_table *table, const uint8_t digest[static DIGEST_BYTES]) {
	return table ? find(table, digest)->tenant : TENANT_ANONYMOUS;
}

bool tenant_is_there(const struct tenant_table *table, uint32_t tenant) {
	return tenant < tenant_table_n(table) && (!table || table->tenants[tenant].name);
}

/* Digests are as good as random: what they come to by XOR is another sum for other keys. */
struct tenant_keys tenant_keys_of(const struct tenant_table *table, uint32_t tenant) {
	struct tenant_keys keys = { .n = 0 };

	for (uint32_t i = 0; table && i < table->n_slots; i++) {
		if (!table->keys[i].tenant || table->keys[i].tenant != tenant)
			continue;
		keys.n++;
		for (unsigned b = 0; b < DIGEST_BYTES; b++)
			keys.sum[b] ^= table->keys[i].digest[b];
	}
	return keys;
}

const struct tenant *tenant_get(const struct tenant_table *table, uint32_t tenant) {
	assert(tenant_is_there(table, tenant));
	return table ? &table->tenants[tenant] : &anonymous;
}

uint32_t tenant_by_name(const struct tenant_table *table, struct slice name) {
	for (uint32_t i = 1; i < tenant_table_n(table); i++)
		if (tenant_is_there(table, i) && slice_eq(name, slice_of(table->tenants[i].name)))
			return i;
	return TENANT_ANONYMOUS;
}

/* --- who asks ------------------------------------------------------------------------- */

static bool is_api_key(const struct head *head, const struct field *field) {
	return field->id == FIELD_OTHER && slice_is(head_name(head, field), SLICE("x-api-key"));
}

bool tenant_is_credential(const struct head *head, const struct field *field) {
	return field->id == FIELD_AUTHORIZATION || is_api_key(head, field);
}

/* The key behind `Bearer`, whose case is free (RFC 9110 section 11.1); empty: it is of another scheme. */
static struct slice bearer_of(struct slice value) {
	const struct slice scheme = SLICE("bearer ");

	return slice_is(slice_head(value, scheme.n), scheme) ? slice_trim(slice_skip(value, scheme.n))
							     : (struct slice){ NULL, 0 };
}

struct credentials {
	struct slice keys[2];
	unsigned n_authorizations, n_keys;
	bool is_bad; /* of a scheme that is none of ours */
};

/* What is empty, as clients without a key send it, is nothing. */
static void gather(struct credentials *c, const struct head *head) {
	for (unsigned i = 0; i < head->n_fields; i++) {
		const struct field *field = &head->fields[i];
		struct slice value = slice_trim(head_value(head, field));

		if (field->id == FIELD_AUTHORIZATION && c->n_authorizations++ == 0) {
			c->keys[0] = bearer_of(value);
			c->is_bad = value.n && !c->keys[0].n && !slice_is(value, SLICE("bearer"));
		} else if (is_api_key(head, field) && c->n_keys++ == 0) {
			c->keys[1] = value;
		}
	}
}

enum cause tenant_key(const struct head *request, struct slice *key_out) {
	struct credentials c = { .is_bad = false };

	gather(&c, request);
	if (c.n_authorizations > 1 || c.n_keys > 1) /* neither is a list: RFC 9110 section 5.3 */
		return CAUSE_CREDENTIALS;
	struct slice key = c.keys[0].n ? c.keys[0] : c.keys[1];
	bool is_one = !c.keys[1].n || digest_is_same_text(key, c.keys[1]);
	if (c.is_bad || !is_one || !key.n || key.n > TENANT_KEY_MAX)
		return CAUSE_INVALID_KEY;
	*key_out = key;
	return CAUSE_NONE;
}

enum cause tenant_admit(const struct tenant_table *table, struct digester *digester,
    const struct head *request, uint16_t *tenant_out) {
	uint8_t digest[DIGEST_BYTES];
	struct slice key;

	*tenant_out = TENANT_ANONYMOUS;
	if (!table)
		return CAUSE_NONE;
	enum cause cause = tenant_key(request, &key);
	if (cause)
		return cause;
	digester_sha256(digester, key, digest);
	*tenant_out = (uint16_t)tenant_table_find(table, digest);
	return *tenant_out == TENANT_ANONYMOUS ? CAUSE_INVALID_KEY : CAUSE_NONE;
}

/* --- what it may ask for ----------------------------------------------------------------- */

static bool matches(struct slice pattern, struct slice model) {
	if (pattern.n && pattern.p[pattern.n - 1] == '*')
		return slice_has_prefix(model, slice_head(pattern, pattern.n - 1));
	return slice_eq(pattern, model);
}

bool tenant_may_use(const struct tenant *tenant, struct slice model) {
	for (size_t i = 0; i < tenant->models.n; i++)
		if (matches(slice_of(tenant->models.items[i]), model) &&
		    (model.n || slice_is(slice_of(tenant->models.items[i]), SLICE("*"))))
			return true;
	return !tenant->models.n;
}

/* --- digests as text ----------------------------------------------------------------------- */

static int hex_digit(char c) {
	char lower = ascii_lower(c);

	return c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

bool tenant_read_digest(struct slice text, uint8_t digest_out[static DIGEST_BYTES]) {
	const struct slice prefix = SLICE("sha256:");

	if (text.n != prefix.n + 2 * DIGEST_BYTES || !slice_is(slice_head(text, prefix.n), prefix))
		return false;
	text = slice_skip(text, prefix.n);
	for (unsigned i = 0; i < DIGEST_BYTES; i++) {
		int high = hex_digit(text.p[2 * i]), low = hex_digit(text.p[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		digest_out[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}
