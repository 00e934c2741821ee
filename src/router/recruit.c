#include "router/recruit.h"

#include <math.h>
#include <stdlib.h>
#include <strings.h>

#include "base/option_check.h"
#include "base/text.h"

/* --- the url ------------------------------------------------------------------------------ */

struct slice recruit_base(struct slice url) {
	struct slice base;
	uint16_t rank;

	return rank_split(url, &base, &rank) ? base : url;
}

/* Its path without slashes at the end. */
static bool read_url(struct slice text, struct rank_url *at) {
	if (!rank_url(text, at))
		return false;
	struct text_url *url = &at->url;

	while (url->path.n && url->path.p[url->path.n - 1] == '/')
		url->path.n--;
	return url->host.n < 256 && url->port && url->path.n <= RECRUIT_PATH_BYTES_MAX &&
	    (slice_is(url->scheme, SLICE("http")) || slice_is(url->scheme, SLICE("https"))) &&
	    !(url->path.n && memchr(url->path.p, '?', url->path.n)) && !text_is_wildcard(url->host);
}

static void lower(struct slice text, char to[static 256]) {
	for (size_t i = 0; i < text.n; i++)
		to[i] = ascii_lower(text.p[i]);
	to[text.n] = '\0';
}

static void print_url(const struct rank_url *at, char url_out[static RECRUIT_URL_BYTES]) {
	bool is_tls = slice_is(at->url.scheme, SLICE("https"));
	char host[256];

	lower(at->url.host, host);
	(is_tls ? text_print_tls_url : text_print_url)(url_out, RECRUIT_URL_BYTES, host, at->url.port);
	size_t n = strlen(url_out);
	n +=
	    (size_t)snprintf(url_out + n, RECRUIT_URL_BYTES - n, "%.*s", (int)at->url.path.n, at->url.path.p);
	if (at->has_rank)
		snprintf(url_out + n, RECRUIT_URL_BYTES - n, "@%u", at->rank);
}

bool recruit_url(struct slice text, char url_out[static RECRUIT_URL_BYTES]) {
	struct rank_url at;

	if (!read_url(text, &at))
		return false;
	print_url(&at, url_out);
	return true;
}

/* --- the members -------------------------------------------------------------------------- */

static bool is_text(const json_t *value) {
	const char *text = json_string_value(value);

	if (!text || json_string_length(value) > RECRUIT_TEXT_BYTES_MAX)
		return false;
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

static bool is_model(const json_t *value) {
	return is_text(value) && json_string_length(value) &&
	    json_string_length(value) <= FLEET_MODEL_BYTES_MAX;
}

static bool are_models(const json_t *value) {
	for (size_t i = 0; i < json_array_size(value); i++)
		if (!is_model(json_array_get(value, i)))
			return false;
	return json_is_array(value) && json_array_size(value) <= FLEET_MODELS_MAX;
}

static bool is_priority(const json_t *value) {
	json_int_t n = json_integer_value(value);

	return json_is_integer(value) && n >= 0 && n <= (json_int_t)TRAITS_PRIORITY_MAX;
}

static bool is_cost(const json_t *value) {
	double n = json_number_value(value);

	return json_is_number(value) && isfinite(n) && n >= 0 && n <= TRAITS_COST_MAX;
}

static bool is_worker_type(const json_t *value) {
	static const char *const types[] = { "regular", "prefill", "decode" };

	for (size_t i = 0; json_is_string(value) && i < n_elems(types); i++)
		if (!strcmp(json_string_value(value), types[i]))
			return true;
	return false;
}

/* Some clients write the number as text. 0: it is no port. */
static uint64_t port_of(const json_t *value) {
	uint64_t port = 0;

	if (json_is_integer(value) && json_integer_value(value) > 0 &&
	    json_integer_value(value) <= UINT16_MAX)
		return (uint64_t)json_integer_value(value);
	if (!json_is_string(value) || !text_uint(slice_of(json_string_value(value)), UINT16_MAX, &port))
		return 0;
	return port;
}

static bool is_port(const json_t *value) {
	return port_of(value);
}

/* A number, also as text, or "auto". 0: it is no number of ranks. */
static uint16_t ranks_of(const json_t *value) {
	json_int_t given = json_integer_value(value);
	uint16_t n = 0;

	if (json_is_integer(value) && given >= 0 && given <= RANKS_MAX)
		return given ? (uint16_t)given : RANKS_AUTO;
	if (!json_is_string(value) || !rank_count(slice_of(json_string_value(value)), &n))
		return 0;
	return n;
}

static bool are_ranks(const json_t *value) {
	return ranks_of(value);
}

static bool are_labels(const json_t *value) {
	const char *key;
	json_t *label;

	json_object_foreach((json_t *)value, key, label) {
		if (!key[0] || !is_text(label))
			return false;
	}
	return json_is_object(value) && json_object_size(value) <= RECRUIT_LABELS_MAX;
}

/* The only one, which others spell "Http", too. */
static bool is_connection_mode(const json_t *value) {
	return json_is_string(value) && !strcasecmp(json_string_value(value), "http");
}

static bool is_key(const json_t *value) {
	return is_text(value) && !option_check_token(json_string_value(value));
}

static const struct {
	const char *name;
	bool (*is_good)(const json_t *value);
	const char *why;
} members[] = {
	{ "model_id", is_model, "model_id is no text of 1 to 256 bytes" },
	{ "models", are_models, "models is no list of texts of 1 to 256 bytes" },
	{ "priority", is_priority, "priority is no integer from 0 to 4294967295" },
	{ "cost", is_cost, "cost is no number from 0 to 1000000000" },
	{ "worker_type", is_worker_type, "worker_type is none of regular, prefill, decode" },
	{ "bootstrap_port", is_port, "bootstrap_port is no number from 1 to 65535" },
	{ "dp_size", are_ranks, "dp_size is neither a number from 0 to 1024 nor auto" },
	{ "data_parallel_size", are_ranks, "data_parallel_size is neither a number from 0 to 1024 nor auto" },
	{ "connection_mode", is_connection_mode, "connection_mode is not http: there is no other" },
	{ "labels", are_labels, "labels is no object of at most 48 texts" },
	{ "api_key", is_key, "api_key is no printable text without blanks" },
	{ "tokenizer_path", is_text, "tokenizer_path is no text of at most 1024 bytes" },
	{ "reasoning_parser", is_text, "reasoning_parser is no text of at most 1024 bytes" },
	{ "tool_parser", is_text, "tool_parser is no text of at most 1024 bytes" },
};

/* What may be said in several ways is kept in one. */
static void unify_members(json_t *json) {
	const json_t *port = json_object_get(json, "bootstrap_port"),
		     *ranks = json_object_get(json, "data_parallel_size");

	if (port)
		json_object_set_new(json, "bootstrap_port", json_integer((json_int_t)port_of(port)));
	if (!ranks)
		ranks = json_object_get(json, "dp_size");
	uint16_t n = ranks_of(ranks);
	if (n)
		json_object_set_new(json, "dp_size", n == RANKS_AUTO ? json_string("auto") : json_integer(n));
	json_object_del(json, "data_parallel_size");
}

/* NULL, or what is wrong. */
static const char *take_members(json_t *json, const json_t *body) {
	for (size_t i = 0; i < n_elems(members); i++) {
		json_t *value = json_object_get(body, members[i].name);

		if (!value || json_is_null(value))
			continue;
		if (!members[i].is_good(value))
			return members[i].why;
		json_object_set_new(json, members[i].name, json_deep_copy(value));
	}
	unify_members(json);
	return NULL;
}

static bool is_provider(const json_t *json) {
	const json_t *label = json_object_get(json_object_get(json, "labels"), "provider");

	return json_is_string(label) && !strcmp(json_string_value(label), "openai");
}

/* --- the record --------------------------------------------------------------------------- */

static struct slice text_of(const json_t *json, const char *name) {
	const json_t *value = json_object_get(json, name);

	return (struct slice){ json_string_value(value), json_string_length(value) };
}

static void add_label(struct recruit *r, struct slice key, struct slice value) {
	if (value.n)
		r->labels[r->spec.labels.n++] = (struct pair){ key, value };
}

static bool has_label(const struct recruit *r, struct slice key) {
	for (uint32_t i = 0; i < r->spec.labels.n; i++)
		if (slice_eq(r->labels[i].key, key))
			return true;
	return false;
}

/* As traits read it: plain decimals, no exponent. */
static void print_cost(double cost, char *to, size_t size) {
	size_t n = (size_t)snprintf(to, size, "%.9f", cost);

	while (to[n - 1] == '0')
		n--;
	to[to[n - 1] == '.' ? n - 1 : n] = '\0';
}

/* Numbers as texts; "" where there is none. */
static void print_numbers(struct recruit *r) {
	const json_t *port = json_object_get(r->json, "bootstrap_port");
	const json_t *priority = json_object_get(r->json, "priority"),
		     *cost = json_object_get(r->json, "cost"), *ranks = json_object_get(r->json, "dp_size");

	if (port)
		snprintf(
		    r->bootstrap_port, sizeof(r->bootstrap_port), "%u", (unsigned)json_integer_value(port));
	if (priority)
		snprintf(r->priority, sizeof(r->priority), "%u", (unsigned)json_integer_value(priority));
	if (cost)
		print_cost(json_number_value(cost), r->cost, sizeof(r->cost));
	if (json_is_string(ranks))
		snprintf(r->dp_size, sizeof(r->dp_size), "auto");
	else if (ranks)
		snprintf(r->dp_size, sizeof(r->dp_size), "%u", (unsigned)json_integer_value(ranks));
}

static void make_labels(struct recruit *r) {
	json_t *labels = json_object_get(r->json, "labels"), *value;
	const char *key;

	r->labels = calloc(json_object_size(labels) + 5, sizeof(*r->labels));
	r->spec.labels.items = r->labels;
	print_numbers(r);
	add_label(r, SLICE("role"), text_of(r->json, "worker_type"));
	add_label(r, SLICE("bootstrap_port"), slice_of(r->bootstrap_port));
	add_label(r, SLICE("priority"), slice_of(r->priority));
	add_label(r, SLICE("cost"), slice_of(r->cost));
	add_label(r, SLICE("dp_size"), slice_of(r->dp_size));
	json_object_foreach(labels, key, value) {
		if (!has_label(r, slice_of(key)))
			add_label(r, slice_of(key), slice_of(json_string_value(value)));
	}
}

static void add_model(struct recruit *r, struct slice name) {
	for (uint32_t i = 0; i < r->spec.models.n; i++)
		if (slice_eq(r->models[i].key, name))
			return;
	if (name.n)
		r->models[r->spec.models.n++] = (struct pair){ .key = name };
}

static void make_models(struct recruit *r) {
	const json_t *ids = json_object_get(r->json, "models");

	r->models = calloc(json_array_size(ids) + 1, sizeof(*r->models));
	r->spec.models.items = r->models;
	add_model(r, text_of(r->json, "model_id"));
	for (size_t i = 0; i < json_array_size(ids); i++)
		add_model(r, slice_of(json_string_value(json_array_get(ids, i))));
}

static void make_target(struct recruit *r, const struct rank_url *given) {
	struct instance_spec *at = &r->spec.instance;

	lower(given->url.host, r->host);
	at->name = at->url = slice_of(r->url);
	r->base = recruit_base(at->url);
	at->is_tls = slice_is(given->url.scheme, SLICE("https"));
	at->authority = slice_skip(r->base, strlen(at->is_tls ? "https://" : "http://"));
	at->base = slice_skip(r->base, r->base.n - given->url.path.n);
	at->authority.n -= at->base.n;
	at->host = slice_of(r->host);
	at->key = text_of(r->json, "api_key");
	at->port = given->url.port;
	at->rank = given->rank;
	at->has_rank = given->has_rank;
	at->is_provider = is_provider(r->json);
}

struct recruit *recruit_new(const json_t *body, const char **why_out) {
	struct rank_url at;

	*why_out = json_is_object(body) ? "url is not http://HOST[:PORT] or https://HOST[:PORT]"
					: "the body is no object";
	if (!json_is_object(body) || !read_url(text_of(body, "url"), &at))
		return NULL;
	struct recruit *r = calloc(1, sizeof(*r));
	print_url(&at, r->url);
	r->json = json_pack("{s:s}", "url", r->url);
	*why_out = take_members(r->json, body);
	if (!*why_out && at.url.path.n && !is_provider(r->json))
		*why_out = "url has a path, which is for workers with the label provider = openai";
	if (*why_out) {
		recruit_free(&r);
		return NULL;
	}
	r->spec.weight = INSTANCE_WEIGHT_ONE;
	make_target(r, &at);
	make_labels(r);
	make_models(r);
	return r;
}

struct recruit *recruit_change(const struct recruit *recruit, const json_t *body, const char **why_out) {
	json_t *json = json_copy(recruit->json);
	struct recruit *changed = NULL;

	*why_out = "the body is no object";
	if (json_is_object(body)) {
		json_object_update(json, (json_t *)body);
		json_object_set_new(json, "url", json_string(recruit->url));
		changed = recruit_new(json, why_out);
	}
	json_decref(json);
	return changed;
}

void recruit_free(struct recruit **recruit) {
	struct recruit *r = *recruit;

	*recruit = NULL;
	if (!r)
		return;
	json_decref(r->json);
	free(r->models);
	free(r->labels);
	free(r);
}
