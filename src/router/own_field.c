#include "router/own_field.h"

#include "base/decimal.h"
#include "base/text.h"
#include "fleet/privacy.h"
#include "fleet/traits.h"

#define WORD_BYTES_MAX 256
#define CLASS_LAST     7u

static const struct slice names[OWN_FIELDS] = {
	[OWN_FIELD_PRIVACY] = { "x-headrace-privacy", 18 },
	[OWN_FIELD_ORIGIN_ZONE] = { "x-headrace-origin-zone", 22 },
	[OWN_FIELD_COST_TOLERANCE] = { "x-headrace-cost-tolerance", 25 },
	[OWN_FIELD_DEADLINE_MS] = { "x-headrace-deadline-ms", 22 },
	[OWN_FIELD_ACCELERATOR] = { "x-headrace-accelerator", 22 },
	[OWN_FIELD_PRIORITY] = { "x-headrace-priority", 19 },
	[OWN_FIELD_WAIT] = { "x-headrace-wait", 15 },
	[OWN_FIELD_WORKER_PRIORITY] = { "x-worker-priority", 17 },
	[OWN_FIELD_MAX_COST] = { "x-max-cost", 10 },
};

static const struct slice answers[] = { { "x-headrace-instance", 19 }, { "x-headrace-reason", 17 },
	{ "x-headrace-attempts", 19 }, { "x-headrace-cache-hit", 20 }, { "x-headrace-decision", 19 } };

/* `n`: none of them. */
static size_t find(struct slice name, const struct slice *list, size_t n) {
	size_t i = 0;
	while (i < n && !slice_is(name, list[i]))
		i++;
	return i;
}

bool own_field_is_of_answers(struct slice name) {
	return find(name, answers, n_elems(answers)) < n_elems(answers);
}

static bool is_unknown(struct slice name) {
	return own_field_is_ours(name) && find(name, names, OWN_FIELDS) == OWN_FIELDS &&
	    !own_field_is_of_answers(name);
}

struct slice own_field_unknown(const struct head *head) {
	for (const struct field *f = head->fields; f < head->fields + head->n_fields; f++)
		if (is_unknown(head_name(head, f)))
			return head_name(head, f);
	return (struct slice){ NULL, 0 };
}

static bool read_privacy(uint8_t *privacy_out, struct slice value) {
	for (uint8_t i = 0; i < PRIVACY_LEVELS; i++)
		if (slice_is(value, slice_of(privacy_text((enum privacy)i)))) {
			*privacy_out = i;
			return true;
		}
	return false;
}

static bool read_word(uint64_t *word_out, struct slice value) {
	*word_out = traits_word(value);
	return value.n > 0 && value.n <= WORD_BYTES_MAX;
}

static bool read_cost_tolerance(uint8_t *percent_out, struct slice value) {
	uint64_t number;
	if (!text_uint(value, 100, &number))
		return false;
	*percent_out = (uint8_t)number;
	return true;
}

static bool read_deadline(uint32_t *deadline_ms_out, struct slice value) {
	uint64_t number;
	if (!text_uint(value, UINT32_MAX, &number))
		return false;
	*deadline_ms_out = (uint32_t)number;
	return number > 0;
}

static bool read_class(uint8_t *class_out, struct slice value) {
	static const struct {
		struct slice name;
		uint8_t class;
	} classes[] = { { { "high", 4 }, 2 }, { { "normal", 6 }, 4 }, { { "low", 3 }, 6 } };
	uint64_t number;
	if (text_uint(value, CLASS_LAST, &number)) {
		*class_out = (uint8_t)number;
		return true;
	}
	for (size_t i = 0; i < n_elems(classes); i++)
		if (slice_is(value, classes[i].name)) {
			*class_out = classes[i].class;
			return true;
		}
	return false;
}

static bool read_wait(uint64_t *wait_ms_out, struct slice value) {
	if (slice_is(value, SLICE("true"))) {
		*wait_ms_out = UINT64_MAX;
		return true;
	}
	return text_duration_ms(value, wait_ms_out) && *wait_ms_out;
}

static bool read_worker_priority(uint32_t *priority_out, struct slice value) {
	uint64_t number;
	if (!text_uint(value, TRAITS_PRIORITY_MAX, &number))
		return false;
	*priority_out = (uint32_t)number;
	return true;
}

static bool read_value(struct own_fields *own, enum own_field field, struct slice value) {
	switch (field) {
	case OWN_FIELD_PRIVACY:
		return read_privacy(&own->privacy, value);
	case OWN_FIELD_ORIGIN_ZONE:
		return read_word(&own->origin_zone, value);
	case OWN_FIELD_COST_TOLERANCE:
		return read_cost_tolerance(&own->cost_tolerance, value);
	case OWN_FIELD_DEADLINE_MS:
		return read_deadline(&own->deadline_ms, value);
	case OWN_FIELD_ACCELERATOR: /* parameters, such as a mere preference, are not known */
		return read_word(&own->accelerator, value) && !memchr(value.p, ';', value.n);
	case OWN_FIELD_PRIORITY:
		return read_class(&own->class, value);
	case OWN_FIELD_WAIT:
		return read_wait(&own->wait_ms, value);
	case OWN_FIELD_WORKER_PRIORITY:
		return read_worker_priority(&own->priority_min, value);
	case OWN_FIELD_MAX_COST:
		return decimal_parse(value, TRAITS_COST_MAX, &own->cost_max);
	case OWN_FIELDS:
		break;
	}
	assert(!"a field that was found");
	return false;
}

enum cause own_field_read(struct own_fields *own, struct slice name, struct slice value) {
	enum own_field field = (enum own_field)find(name, names, OWN_FIELDS);
	if (field == OWN_FIELDS)
		return own_field_is_of_answers(name) ? CAUSE_NONE : CAUSE_UNKNOWN_HEADER;
	bool is_first = !(own->given >> field & 1);
	own->given |= (uint16_t)(1u << field);
	return is_first && read_value(own, field, value) ? CAUSE_NONE : CAUSE_BAD_HEADER;
}
