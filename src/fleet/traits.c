#include "fleet/traits.h"

#include <jansson.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/text.h"

#define PRICE_MAX UINT64_C(1000000000000)

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

void traits_declare(struct traits *t, struct pairs labels, struct slice model, bool is_ours) {
	uint32_t may = is_ours ? UINT32_MAX : ~OURS;

	if (model.n)
		declare_all(t, labels, model, may, true);
	declare_all(t, labels, model, may, false);
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
