#include "router/label_check.h"

#include "base/log.h"
#include "base/mix.h"
#include "policy/policy.h"

/* Without the model that it is for. */
static struct slice bare_name(struct slice name) {
	const char *at = name.n ? memchr(name.p, '@', name.n) : NULL;

	return at ? slice_head(name, (size_t)(at - name.p)) : name;
}

static const char *policy_mistake(struct slice name, struct slice value) {
	return slice_eq(bare_name(name), SLICE("policy")) && !policy_find(value) ? "there is no such policy"
										 : NULL;
}

const char *label_check_mistake(struct slice name, struct slice value, bool is_ours) {
	const char *mistake = policy_mistake(name, value);

	if (slice_eq(name, SLICE("cache_type")) && !slice_eq(value, SLICE("static")) &&
	    !slice_eq(value, SLICE("paged")))
		return "expected static or paged";
	return mistake ? mistake : traits_mistake(name, value, is_ours);
}

static void say(const struct snapshot_row *row, const struct pair *label, const char *mistake) {
	struct log_event e;

	log_begin(&e, LOG_WARN, "label ignored");
	line_text(&e.line, SLICE("instance"), row->instance->spec.name);
	line_text(&e.line, SLICE("label"), label->key);
	line_text(&e.line, SLICE("why"), slice_of(mistake));
	log_end(&e);
}

static uint64_t hash_add(uint64_t hash, struct slice text) {
	for (size_t i = 0; i < text.n; i++)
		hash = mix64(hash ^ (unsigned char)text.p[i]);
	return mix64(hash + text.n);
}

static uint64_t hash_of(const struct snapshot_row *row) {
	uint64_t hash = mix64(row->instance->serial);

	for (uint32_t i = 0; i < row->labels.n; i++)
		if (policy_mistake(row->labels.items[i].key, row->labels.items[i].value))
			hash = hash_add(hash_add(hash, row->labels.items[i].key), row->labels.items[i].value);
	return hash;
}

void label_check_see(struct label_check *check, const struct snapshot *snap) {
	for (uint32_t r = 0; r < snap->n_rows; r++) {
		const struct snapshot_row *row = &snap->rows[r];
		uint64_t hash = hash_of(row), *seen = &check->seen[row->instance->slot];

		for (uint32_t i = 0; i < row->labels.n && hash != *seen; i++) {
			const struct pair *label = &row->labels.items[i];
			const char *mistake = policy_mistake(label->key, label->value);

			if (mistake)
				say(row, label, mistake);
		}
		*seen = hash;
	}
}
