/*
 * SGLang: both legs get the same body at once, with the place of the prefill's bootstrap server
 * and a room of it in which they meet; arrays of these when there are several prompts.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/api.h"

#define PORT_DEFAULT 8998 /* of a null */

/* Of the nth prompt, whether the member is a value or an array of these. */
static const json_t *nth(const json_t *member, size_t i) {
	return json_is_array(member) ? json_array_get(member, i) : member;
}

/* One for each prompt; a single one may stand alone. */
static bool is_for_all(const json_t *member, size_t n_prompts) {
	return json_is_array(member) ? json_array_size(member) == n_prompts : member && n_prompts == 1;
}

static bool check_lengths(const struct kv_request *q, struct refusal *refusal) {
	static const char *const keys[] = { "bootstrap_host", "bootstrap_port", "bootstrap_room" };
	for (size_t i = 0; i < n_elems(keys); i++)
		if (!is_for_all(json_object_get(q->body, keys[i]), q->n_prompts))
			return api_refuse(refusal, 400, keys[i],
			    "Disaggregated request received without %s for each of its prompts.", keys[i]);
	return true;
}

static json_int_t port_of(const json_t *port) {
	return json_is_null(port) ? PORT_DEFAULT : json_integer_value(port);
}

/* All prompts of a request go to one prefill. */
static bool read_place(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	const json_t *hosts = json_object_get(q->body, "bootstrap_host");
	const json_t *ports = json_object_get(q->body, "bootstrap_port");
	const char *host = json_string_value(nth(hosts, 0));
	json_int_t port = port_of(nth(ports, 0));

	for (size_t i = 1; i < q->n_prompts; i++)
		if (!json_equal(nth(hosts, i), nth(hosts, 0)) || !json_equal(nth(ports, i), nth(ports, 0)))
			host = NULL;
	if (!host || !host[0] || strlen(host) > KV_PEER_BYTES - 16)
		return api_refuse(
		    refusal, 400, "bootstrap_host", "bootstrap_host must be the same host for all prompts.");
	if (port < 1 || port > UINT16_MAX)
		return api_refuse(
		    refusal, 400, "bootstrap_port", "bootstrap_port must be an integer from 1 to 65535.");
	if (leg->part == KV_PREFILL && port != q->rules->port)
		return api_refuse(refusal, 400, "bootstrap_port",
		    "bootstrap_port is %d, and this prefill's is %u.", (int)port, q->rules->port);
	kv_set_peer(leg, host, (uint16_t)port);
	return true;
}

static bool read_rooms(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	const json_t *rooms = json_object_get(q->body, "bootstrap_room");

	for (size_t i = 0; i < q->n_prompts; i++)
		if (!json_is_integer(nth(rooms, i)) || json_integer_value(nth(rooms, i)) < 0)
			return api_refuse(refusal, 400, "bootstrap_room",
			    "bootstrap_room must be an integer from 0 to 2^63-1.");
	char *text = json_dumps(rooms, JSON_COMPACT | JSON_ENCODE_ANY);
	snprintf(leg->key, sizeof(leg->key), "room-%016lx", prompt_hash_of(slice_of(text)));
	free(text);
	return true;
}

static bool read_leg(const struct kv_request *q, struct kv_leg *leg, struct refusal *refusal) {
	leg->awaits_decode = leg->part == KV_PREFILL;
	leg->awaits_prefill = leg->part == KV_DECODE;
	return check_lengths(q, refusal) && read_place(q, leg, refusal) && read_rooms(q, leg, refusal);
}

const struct kv_connector kv_sglang = {
	.name = "sglang",
	.cuts_prefill = true,
	.read_prefill = read_leg,
	.read_decode = read_leg,
};
