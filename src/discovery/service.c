#include "discovery/service.h"

#include "base/text.h"
#include "net/tls_options.h"

static struct slice text_in(const json_t *object, const char *key) {
	const json_t *value = json_object_get(object, key);

	return (struct slice){ json_string_value(value), json_string_length(value) };
}

struct slice service_name(const json_t *record) {
	return text_in(record, "name");
}

/* What is wrong with what every record must have; NULL: nothing. */
static const char *service_judge(const json_t *record) {
	const json_t *port = json_object_get(record, "port");
	struct slice name = service_name(record), host = text_in(record, "host");

	if (!json_is_object(record))
		return "not an object";
	if (name.n == 0 || name.n > FLEET_TEXT_BYTES_MAX)
		return "no name";
	if (!host.p || !text_is_host(host))
		return "no host";
	if (text_is_wildcard(host)) /* it would lead each router to its own machine */
		return "its host is a wildcard";
	if (!json_is_integer(port) || json_integer_value(port) < 1 || json_integer_value(port) > UINT16_MAX)
		return "no port";
	return NULL;
}

static bool is_alive(const json_t *record) {
	return !json_is_false(json_object_get(record, "is_healthy"));
}

static bool is_draining(const json_t *record) {
	return slice_eq(text_in(record, "status"), SLICE("draining"));
}

static bool is_running(const json_t *record) {
	struct slice status = text_in(record, "status");

	return !status.p || slice_eq(status, SLICE("running"));
}

bool service_is_living(const json_t *record) {
	return is_alive(record) && is_running(record);
}

static bool is_weight(const json_t *value) {
	return json_is_number(value) && json_number_value(value) >= 0;
}

/* Too much is as much as there can be; only 0 itself is 0. */
static uint32_t weight_of(const json_t *record, const json_t *metadata) {
	const json_t *weight = json_object_get(record, "weight");

	if (!is_weight(weight))
		weight = json_object_get(metadata, "weight");
	if (!is_weight(weight))
		return INSTANCE_WEIGHT_ONE;
	double thousandths = json_number_value(weight) * INSTANCE_WEIGHT_ONE;
	if (thousandths >= FLEET_WEIGHT_MAX)
		return FLEET_WEIGHT_MAX;
	return thousandths > 0 && thousandths < 1 ? 1 : (uint32_t)(thousandths + 0.5);
}

/* --- models ---------------------------------------------------------------------------- */

/* The engine's own objects, of each id the first. A new reference. */
static json_t *index_objects(const json_t *list) {
	json_t *by_id = json_object();

	for (size_t i = json_array_size(list); i-- > 0;) {
		json_t *object = json_array_get(list, i);
		const char *id = json_string_value(json_object_get(object, "id"));

		if (id)
			json_object_set(by_id, id, object);
	}
	return by_id;
}

/* What is no name is left out. NULL, or what there is too much of. */
static const char *add_models(struct service *s, const json_t *ids, const json_t *by_id) {
	size_t n = json_array_size(ids), bytes = 0;

	s->models = calloc(n + 1, sizeof(*s->models));
	s->spec.models.items = s->models;
	for (size_t i = 0; i < n; i++) {
		const json_t *id = json_array_get(ids, i);
		struct pair model = { .key = { json_string_value(id), json_string_length(id) } };

		if (model.key.n == 0)
			continue;
		if (model.key.n > FLEET_MODEL_BYTES_MAX)
			return "a model's name is too long";
		model.value = slice_of(json_dumps(json_object_get(by_id, model.key.p), JSON_COMPACT));
		s->models[s->spec.models.n++] = model;
		bytes += pairs_text_bytes((struct pairs){ &model, 1 });
		if (bytes > FLEET_MODELS_BYTES_MAX)
			return "its models are too large";
	}
	return NULL;
}

static const char *read_models(struct service *s, const json_t *metadata) {
	const json_t *ids = json_object_get(metadata, "models");
	const json_t *objects = json_object_get(metadata, "models_list");

	if (json_array_size(ids) > FLEET_MODELS_MAX || json_array_size(objects) > FLEET_MODELS_MAX)
		return "too many models";
	json_t *by_id = index_objects(objects);
	const char *why = add_models(s, ids, by_id);
	json_decref(by_id);
	return why;
}

/* --- labels ------------------------------------------------------------------------------ */

/* The first of a name counts; what is no text is left out. */
static void add_label(struct service *s, struct slice key, const json_t *value) {
	struct slice text = { json_string_value(value), json_string_length(value) };

	if (!text.p)
		return;
	for (uint32_t i = 0; i < s->spec.labels.n; i++)
		if (slice_eq(s->labels[i].key, key))
			return;
	s->labels[s->spec.labels.n++] = (struct pair){ key, text };
}

static void add_labels(struct service *s, json_t *labels) {
	const char *key;
	json_t *value;

	json_object_foreach(labels, key, value) {
		add_label(s, slice_of(key), value);
	}
}

/* NULL, or what there is too much of. */
static const char *read_labels(struct service *s, const json_t *record, const json_t *metadata) {
	json_t *own = json_object_get(record, "labels"), *others = json_object_get(metadata, "labels");
	struct pairs *labels = &s->spec.labels;

	if (json_object_size(own) > FLEET_LABELS_MAX || json_object_size(others) > FLEET_LABELS_MAX)
		return "too many labels";
	s->labels = calloc(2 + 2 * FLEET_LABELS_MAX, sizeof(*s->labels));
	labels->items = s->labels;
	add_label(s, SLICE("role"), json_object_get(record, "role"));
	add_label(s, SLICE("role"), json_object_get(metadata, "role"));
	add_labels(s, own);
	add_labels(s, others);
	if (labels->n > FLEET_LABELS_MAX)
		return "too many labels";
	return pairs_text_bytes(*labels) > FLEET_LABELS_BYTES_MAX ? "its labels are too large" : NULL;
}

/* --- the whole ----------------------------------------------------------------------------- */

static json_t *keep(const json_t *record) {
	static const char *const keys[] = { "name", "host", "port", "hostname", "url", "status", "is_healthy",
		"weight", "role", "labels", "metadata" };
	json_t *kept = json_object();

	for (size_t i = 0; i < n_elems(keys); i++) {
		json_t *value = json_object_get(record, keys[i]);

		if (value)
			json_object_set(kept, keys[i], value);
	}
	return kept;
}

static bool is_secure(const json_t *record) {
	const char *url = json_string_value(json_object_get(record, "url"));

	return url && tls_options_is_https(url);
}

/* The rank that the record's url names. */
static void read_rank(struct instance_spec *spec, const json_t *record) {
	struct rank_url at;

	if (!rank_url(text_in(record, "url"), &at))
		return;
	spec->rank = at.rank;
	spec->has_rank = at.has_rank;
}

static void read_target(struct service *s) {
	struct instance_spec *spec = &s->spec.instance;
	struct slice host = text_in(s->kept, "host");
	size_t room = sizeof("https://[]:65535") + RANK_SUFFIX_BYTES + host.n;

	s->url = malloc(room);
	spec->port = (uint16_t)json_integer_value(json_object_get(s->kept, "port"));
	spec->is_tls = is_secure(s->kept);
	(spec->is_tls ? text_print_tls_url : text_print_url)(s->url, room, host.p, spec->port);
	spec->name = service_name(s->kept);
	spec->host = host;
	spec->url = slice_of(s->url);
	spec->authority = slice_skip(spec->url, spec->is_tls ? strlen("https://") : strlen("http://"));
	read_rank(spec, s->kept);
	if (!spec->has_rank)
		return;
	snprintf(s->url + spec->url.n, room - spec->url.n, "@%u", spec->rank);
	spec->url = slice_of(s->url);
}

/* All that a record can have much of. NULL, or what there is too much of. */
static const char *read_all(struct service *s, const json_t *record, const json_t *metadata) {
	const char *why;

	s->bytes = json_dumpb(s->kept, NULL, 0, JSON_COMPACT);
	if (s->bytes > SERVICE_BYTES_MAX)
		return "it is too large";
	why = read_models(s, metadata);
	return why ? why : read_labels(s, record, metadata);
}

int service_parse(const json_t *record, struct service **service_out, const char **why_out) {
	const json_t *metadata = json_object_get(record, "metadata");

	*service_out = NULL;
	*why_out = NULL;
	if (json_is_object(record) && !slice_eq(text_in(metadata, "type"), SLICE("openai-api")))
		return SERVICE_E_OTHER;
	return service_read(record, service_out, why_out);
}

int service_read(const json_t *record, struct service **service_out, const char **why_out) {
	const json_t *metadata = json_object_get(record, "metadata");

	*service_out = NULL;
	*why_out = service_judge(record);
	if (*why_out)
		return SERVICE_E_BAD;
	struct service *s = calloc(1, sizeof(*s));
	s->kept = keep(record);
	*why_out = read_all(s, record, metadata);
	if (*why_out) {
		service_free(&s);
		return SERVICE_E_BAD;
	}
	s->spec.is_draining = is_draining(record);
	s->is_alive = is_alive(record) || s->spec.is_draining;
	s->is_leaving = !is_running(record) && !s->spec.is_draining;
	s->spec.weight = weight_of(record, metadata);
	read_target(s);
	s->metadata = metadata ? json_dumps(metadata, JSON_COMPACT) : strdup("{}");
	s->spec.metadata = slice_of(s->metadata);
	*service_out = s;
	return 0;
}

void service_free(struct service **sp) {
	struct service *s = *sp;

	*sp = NULL;
	if (!s)
		return;
	for (uint32_t i = 0; i < s->spec.models.n; i++)
		free((char *)s->models[i].value.p);
	free(s->models);
	free(s->labels);
	free(s->url);
	free(s->metadata);
	json_decref(s->kept);
	free(s);
}
