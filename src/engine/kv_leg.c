#include "engine/kv_leg.h"

#include <stdio.h>

#include "base/text.h"
#include "engine/api.h"

const char *kv_part_name(enum kv_role part) {
	static const char *const names[] = { [KV_PREFILL] = "prefill", [KV_DECODE] = "decode" };
	return names[part];
}

void kv_engine_id(const struct kv_rules *rules, uint32_t rank, char id[static KV_ENGINE_BYTES]) {
	if (rules->n_ranks > 1)
		snprintf(id, KV_ENGINE_BYTES, "%s_dp%u", rules->engine_id, rank);
	else
		snprintf(id, KV_ENGINE_BYTES, "%s", rules->engine_id);
}

void kv_leg_deinit(struct kv_leg *leg) {
	json_decref(leg->told);
	*leg = (struct kv_leg){ 0 };
}

void kv_set_peer(struct kv_leg *leg, const char *host, uint16_t port) {
	text_print_url(leg->peer, sizeof(leg->peer), host, port);
}

json_t *kv_block_ids(const struct kv_request *q) {
	uint32_t n_block_tokens = q->rules->n_block_tokens;
	uint32_t n = (q->n_prompt_tokens + n_block_tokens - 1) / n_block_tokens;
	json_t *ids = json_array();
	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(ids, json_integer((json_int_t)(q->nonce >> 16) + i));
	return ids;
}

/* --- what connectors look at ------------------------------------------------------ */

bool kv_expect_bool(const struct kv_request *q, const char *key, bool value, struct refusal *refusal) {
	const json_t *member = json_object_get(q->params, key);
	if (json_is_boolean(member) && json_is_true(member) == value)
		return true;
	return api_refuse(
	    refusal, 400, key, "kv_transfer_params.%s must be %s.", key, value ? "true" : "false");
}

bool kv_expect_nulls(const struct kv_request *q, const char *const *keys, struct refusal *refusal) {
	for (; *keys; keys++) {
		const json_t *member = json_object_get(q->params, *keys);
		if (member && !json_is_null(member))
			return api_refuse(refusal, 400, *keys, "kv_transfer_params.%s must be null.", *keys);
	}
	return true;
}

bool kv_expect_text(
    const struct kv_request *q, const char *key, char *room, size_t n_room, struct refusal *refusal) {
	const json_t *member = json_object_get(q->params, key);
	size_t n = json_string_length(member);

	if (n == 0 || n >= n_room)
		return api_refuse(refusal, 400, key,
		    "kv_transfer_params.%s must be a string of 1 to %zu bytes.", key, n_room - 1);
	memcpy(room, json_string_value(member), n + 1);
	return true;
}

bool kv_expect_count(const struct kv_request *q, const char *key, json_int_t max, json_int_t *value_out,
    struct refusal *refusal) {
	const json_t *member = json_object_get(q->params, key);
	*value_out = json_integer_value(member);
	if (json_is_integer(member) && *value_out >= 0 && *value_out <= max)
		return true;
	return api_refuse(refusal, 400, key, "kv_transfer_params.%s must be an integer from 0 to %lld.", key,
	    (long long)max);
}

bool kv_expect_peer(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	char host[KV_PEER_BYTES - 16];
	json_int_t port;

	if (!kv_expect_text(q, "remote_host", host, sizeof(host), refusal) ||
	    !kv_expect_count(q, "remote_port", UINT16_MAX, &port, refusal))
		return false;
	kv_set_peer(leg, host, (uint16_t)port);
	return true;
}

/* --- what all of them want -------------------------------------------------------- */

/* A prefill answers whole, with the one token that comes out of it. */
static bool check_limits(const struct api *api, const json_t *limits, struct refusal *refusal) {
	const char *const keys[] = { api->limit, "max_tokens", "max_completion_tokens" };
	bool has_limit = json_object_get(limits, api->limit) || json_object_get(limits, "max_tokens");
	json_int_t n;

	for (size_t i = 0; i < n_elems(keys); i++) {
		const json_t *member = json_object_get(limits, keys[i]);
		if (member && json_integer_value(member) != 1)
			return api_refuse(refusal, 400, keys[i], "A prefill must have %s 1.", keys[i]);
	}
	if (!has_limit)
		return api_refuse(refusal, 400, api->limit, "A prefill must have %s 1.", api->limit);
	n = json_integer_value(json_object_get(limits, "min_tokens"));
	return n <= 1 ||
	    api_refuse(refusal, 400, "min_tokens", "A prefill must not have min_tokens above 1.");
}

static bool check_prefill(const struct generation *g, const json_t *body, struct refusal *refusal) {
	const struct api *api = g->api;
	const json_t *limits = api->limits_in ? json_object_get(body, api->limits_in) : body;

	if (!check_limits(api, limits, refusal))
		return false;
	if (g->is_stream)
		return api_refuse(refusal, 400, "stream", "A prefill must not be streamed.");
	if (json_object_get(body, "stream_options"))
		return api_refuse(refusal, 400, "stream_options", "A prefill must not have stream_options.");
	return true;
}

static bool find_part(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	if (!q->rules->connector->has_params) {
		leg->part = q->rules->role;
		return true;
	}
	if (!q->params || json_is_null(q->params))
		return true;
	bool is_prefill = json_is_true(json_object_get(q->params, "do_remote_decode"));
	bool is_decode = json_is_true(json_object_get(q->params, "do_remote_prefill"));
	if (is_prefill == is_decode)
		return api_refuse(refusal, 400, "kv_transfer_params",
		    "One of do_remote_decode and do_remote_prefill must be true in kv_transfer_params.");
	leg->part = is_prefill ? KV_PREFILL : KV_DECODE;
	return true;
}

/* An engine of one role alone does nothing else; but a decode may prefill for itself. */
static bool check_role(const struct kv_rules *rules, const struct kv_leg *leg, struct refusal *refusal) {
	bool is_own = rules->role == KV_UNIFIED || leg->part == rules->role ||
	    (rules->role == KV_DECODE && leg->part == KV_UNIFIED);
	if (is_own)
		return true;
	return api_refuse(refusal, 400, "kv_transfer_params", "This engine is a %s, and this is %s%s.",
	    kv_part_name(rules->role), leg->part ? "a request for a " : "no leg of a pair",
	    leg->part ? kv_part_name(leg->part) : "");
}

/* The hash of all that comes before the answer. */
static uint64_t hash_of_prompts(const struct generation *g) {
	uint64_t hash = prompt_hash_of((struct slice){ g->said, g->n_said_bytes });
	for (size_t i = 0; i < g->n_prompts; i++) {
		uint64_t pair[] = { hash, g->prompts[i].hash };
		hash = prompt_hash_of((struct slice){ (const char *)pair, sizeof(pair) });
	}
	return hash;
}

bool kv_leg_read(struct generation *g, const struct kv_request *request, struct refusal *refusal) {
	const struct kv_connector *connector = request->rules->connector;
	struct kv_leg *leg = &g->leg;

	if (!connector || !g->api->limit)
		return true;
	leg->prompt = hash_of_prompts(g);
	if (!find_part(request, leg, refusal) || !check_role(request->rules, leg, refusal))
		return false;
	if (leg->part == KV_DECODE)
		return connector->read_decode(request, leg, refusal);
	if (leg->part == KV_UNIFIED)
		return true;
	if (connector->cuts_prefill)
		g->n_tokens_asked = 1;
	else if (!check_prefill(g, request->body, refusal))
		return false;
	return connector->read_prefill(request, leg, refusal);
}
