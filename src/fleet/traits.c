#include "fleet/traits.h"

#include <jansson.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/decimal.h"
#include "base/text.h"

#define PRICE_MAX       UINT64_C(1000000000000)
#define PARALLEL_MAX    65536u
#define ZMQ_ADDRESS_MAX 255u

uint64_t traits_word(struct slice name) {
	uint64_t hash = name.n ? XXH3_64bits(name.p, name.n) : 0;

	return hash || !name.n ? hash : 1;
}

/* --- one label ------------------------------------------------------------------------------ */

static bool read_capabilities(struct traits *t, struct slice value) {
	return capability_mask(value, &t->capabilities) && t->capabilities;
}

static bool read_features(struct traits *t, struct slice value) {
	return feature_mask(value, &t->features) && t->features;
}

static bool read_context(struct traits *t, struct slice value) {
	uint64_t tokens;

	if (!text_uint(value, UINT32_MAX, &tokens) || tokens == 0)
		return false;
	t->context_tokens = (uint32_t)tokens;
	return true;
}

static bool read_clearance(struct traits *t, struct slice value) {
	return privacy_find(value, &t->clearance);
}

static bool read_residency(struct traits *t, struct slice value) {
	t->residency = value;
	return true;
}

static bool read_zone(struct traits *t, struct slice value) {
	t->zone = traits_word(value);
	return value.n > 0;
}

static bool read_region(struct traits *t, struct slice value) {
	t->region = traits_word(value);
	return value.n > 0;
}

static bool read_accelerator(struct traits *t, struct slice value) {
	t->accelerator = traits_word(value);
	return value.n > 0;
}

static bool read_price_in(struct traits *t, struct slice value) {
	return text_uint(value, PRICE_MAX, &t->price_in);
}

static bool read_price_cached(struct traits *t, struct slice value) {
	return text_uint(value, PRICE_MAX, &t->price_cached);
}

static bool read_price_out(struct traits *t, struct slice value) {
	return text_uint(value, PRICE_MAX, &t->price_out);
}

static bool read_capacity(struct traits *t, struct slice value) {
	uint64_t n;

	if (!text_uint(value, UINT32_MAX, &n))
		return false;
	t->capacity = (uint32_t)n;
	return true;
}

static bool read_role(struct traits *t, struct slice value) {
	enum role role;

	if (!role_find(value, &role))
		return false;
	t->kv.role = (uint8_t)role;
	return true;
}

static bool read_connector(struct traits *t, struct slice value) {
	enum connector connector;

	if (!connector_find(value, &connector))
		return false;
	t->kv.connector = (uint8_t)connector;
	return true;
}

static bool read_kv_mode(struct traits *t, struct slice value) {
	t->kv.mode = slice_eq(value, SLICE("write")) ? KV_MODE_WRITE : KV_MODE_READ;
	return t->kv.mode == KV_MODE_WRITE || slice_eq(value, SLICE("read"));
}

static bool read_bootstrap_port(struct traits *t, struct slice value) {
	uint64_t port;

	if (!text_uint(value, UINT16_MAX, &port) || port == 0)
		return false;
	t->kv.bootstrap_port = (uint16_t)port;
	return true;
}

/* It goes into bodies and request ids as it is. */
static bool read_zmq_address(struct traits *t, struct slice value) {
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]";
	bool is_good = value.n > 0 && value.n <= ZMQ_ADDRESS_MAX;

	for (size_t i = 0; is_good && i < value.n; i++)
		is_good = value.p[i] && strchr(letters, value.p[i]);
	t->kv.zmq_address = value;
	return is_good;
}

static bool read_size(struct slice value, uint32_t *size_out) {
	uint64_t n;

	if (!text_uint(value, PARALLEL_MAX, &n) || n == 0)
		return false;
	*size_out = (uint32_t)n;
	return true;
}

static bool read_tp_size(struct traits *t, struct slice value) {
	return read_size(value, &t->kv.tp_size);
}

static bool read_dp_size(struct traits *t, struct slice value) {
	return read_size(value, &t->kv.dp_size);
}

static bool read_priority(struct traits *t, struct slice value) {
	uint64_t n;

	if (!text_uint(value, TRAITS_PRIORITY_MAX, &n))
		return false;
	t->priority = (uint32_t)n;
	return true;
}

static bool read_cost(struct traits *t, struct slice value) {
	return decimal_parse(value, TRAITS_COST_MAX, &t->cost);
}

static bool read_policy(struct traits *t, struct slice value) {
	t->policy = value;
	return value.n > 0;
}

static bool read_provider(struct traits *t, struct slice value) {
	return slice_eq(value, SLICE("openai"));
}

#define SIZE_MISTAKE "expected a number of devices or ranks, 1 or more"

#define PRICE_MISTAKE "expected micro-units for a million tokens, a whole number up to 1000000000000"

static const struct {
	const char *name;
	bool (*read)(struct traits *t, struct slice value); /* on false *t is spoilt */
	const char *mistake;
} rows[TRAITS] = {
	[TRAIT_CAPABILITIES] = { "capabilities", read_capabilities,
	    "expected capabilities, separated by commas" },
	[TRAIT_FEATURES] = { "features", read_features, "expected features, separated by commas" },
	[TRAIT_CONTEXT] = { "context", read_context, "expected a number of tokens, 1 or more" },
	[TRAIT_CLEARANCE] = { "clearance", read_clearance,
	    "expected public, internal, confidential or restricted" },
	[TRAIT_RESIDENCY] = { "residency", read_residency, NULL },
	[TRAIT_ZONE] = { "zone", read_zone, "expected the name of a zone" },
	[TRAIT_REGION] = { "region", read_region, "expected the name of a region" },
	[TRAIT_ACCELERATOR] = { "accelerator", read_accelerator, "expected the name of an accelerator" },
	[TRAIT_PRICE_IN] = { "price_in", read_price_in, PRICE_MISTAKE },
	[TRAIT_PRICE_CACHED] = { "price_cached", read_price_cached, PRICE_MISTAKE },
	[TRAIT_PRICE_OUT] = { "price_out", read_price_out, PRICE_MISTAKE },
	[TRAIT_CAPACITY] = { "capacity", read_capacity, "expected a number of requests; 0 is no cap" },
	[TRAIT_ROLE] = { "role", read_role, "expected unified, prefill or decode" },
	[TRAIT_CONNECTOR] = { "kv_connector", read_connector,
	    "expected nixl, mooncake, moriio, p2p_nccl or sglang" },
	[TRAIT_KV_MODE] = { "kv_mode", read_kv_mode, "expected read or write" },
	[TRAIT_BOOTSTRAP_PORT] = { "bootstrap_port", read_bootstrap_port, "expected a port, 1 to 65535" },
	[TRAIT_ZMQ_ADDRESS] = { "zmq_address", read_zmq_address, "expected HOST:PORT" },
	[TRAIT_TP_SIZE] = { "tp_size", read_tp_size, SIZE_MISTAKE },
	[TRAIT_DP_SIZE] = { "dp_size", read_dp_size, SIZE_MISTAKE },
	[TRAIT_PRIORITY] = { "priority", read_priority, "expected 0 to 4294967295, the higher the sooner" },
	[TRAIT_COST] = { "cost", read_cost, "expected a decimal number, 0 or more" },
	[TRAIT_PROVIDER] = { "provider", read_provider, "expected openai" },
	[TRAIT_POLICY] = { "policy", read_policy, "expected the name of a policy" },
};

/* Only the operator can say these. */
#define OURS (UINT32_C(1) << TRAIT_CLEARANCE | UINT32_C(1) << TRAIT_RESIDENCY)

/* The trait that a label names, and the model it is for: p is NULL when it is for all. TRAITS: none. */
static unsigned find_trait(struct slice key, struct slice *model_out) {
	const char *at = key.n ? memchr(key.p, '@', key.n) : NULL;
	struct slice name = at ? slice_head(key, (size_t)(at - key.p)) : key;
	unsigned trait = 0;

	*model_out = at ? slice_skip(key, name.n + 1) : (struct slice){ NULL, 0 };
	while (trait < TRAITS && !slice_eq(slice_of(rows[trait].name), name))
		trait++;
	return trait;
}

const char *traits_mistake(struct slice key, struct slice value, bool is_ours) {
	struct traits scratch = { .known = 0 };
	struct slice model;
	unsigned trait = find_trait(key, &model);

	if (trait == TRAITS)
		return NULL;
	if (model.p && model.n == 0)
		return "expected the name of a model behind the @";
	if (!is_ours && OURS >> trait & 1)
		return "is not believed from a registry: it belongs into the router's own configuration";
	return rows[trait].read(&scratch, value) ? NULL : rows[trait].mistake;
}

struct slice traits_model(struct slice key) {
	struct slice model;

	return find_trait(key, &model) < TRAITS ? model : (struct slice){ NULL, 0 };
}

/* --- all that is said ------------------------------------------------------------------------- */

static void declare(struct traits *t, unsigned trait, struct slice value) {
	struct traits with = *t;

	if (!rows[trait].read(&with, value))
		return;
	with.known |= UINT32_C(1) << trait;
	*t = with;
}

static void declare_all(
    struct traits *t, struct pairs labels, struct slice model, uint32_t may, bool are_special) {
	for (uint32_t i = 0; i < labels.n; i++) {
		struct slice of;
		unsigned trait = find_trait(labels.items[i].key, &of);

		if (trait == TRAITS || (of.p != NULL) != are_special || !(may >> trait & 1))
			continue;
		if (!traits_has(t, (enum trait)trait) && (!are_special || slice_eq(of, model)))
			declare(t, trait, labels.items[i].value);
	}
}

/* What an API like OpenAI's has, when nobody says so. */
static void assume_openai(struct traits *t) {
	static const enum capability capabilities[] = { CAPABILITY_CHAT, CAPABILITY_RESPONSES,
		CAPABILITY_COMPLETION, CAPABILITY_EMBEDDINGS };

	for (size_t i = 0; i < n_elems(capabilities); i++)
		t->capabilities |= UINT32_C(1) << capabilities[i];
}

void traits_declare(struct traits *t, struct pairs labels, struct slice model, bool is_ours) {
	uint32_t may = is_ours ? UINT32_MAX : ~OURS;

	if (model.n)
		declare_all(t, labels, model, may, true);
	declare_all(t, labels, model, may, false);
	if (traits_has(t, TRAIT_PROVIDER) && !traits_has(t, TRAIT_CAPABILITIES))
		assume_openai(t);
}

void traits_discover(struct traits *t, struct slice object) {
	static const char key[] = "max_model_len";

	/* Most have none: they are not worth a parser. */
	if (traits_has(t, TRAIT_CONTEXT) || !object.n || !memmem(object.p, object.n, key, sizeof(key) - 1))
		return;
	json_t *parsed = json_loadb(object.p, object.n, 0, NULL);
	json_int_t tokens = json_integer_value(json_object_get(parsed, key));
	json_decref(parsed);
	if (tokens <= 0)
		return;
	t->context_tokens = (uint32_t)u64_min((uint64_t)tokens, UINT32_MAX);
	t->known |= UINT32_C(1) << TRAIT_CONTEXT;
}

void traits_join(struct traits_least *least, const struct traits *t) {
	least->known |= t->known;
	least->capabilities &= t->capabilities ? t->capabilities : UINT32_MAX;
	least->features &= t->features ? t->features : UINT32_MAX;
	if (t->context_tokens && t->context_tokens < least->context_tokens)
		least->context_tokens = t->context_tokens;
	if (t->clearance < least->clearance)
		least->clearance = t->clearance;
}

static bool has_tag(struct slice has, struct slice tag) {
	struct slice member;

	while (slice_next_member(&has, &member))
		if (slice_eq(member, tag))
			return true;
	return false;
}

bool traits_has_tags(struct slice has, struct slice tags) {
	struct slice tag;

	while (slice_next_member(&tags, &tag))
		if (tag.n && !has_tag(has, tag))
			return false;
	return true;
}
