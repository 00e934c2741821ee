#include "fleet/connector.h"

static const char *const roles[ROLES] = {
	[ROLE_UNIFIED] = "unified",
	[ROLE_PREFILL] = "prefill",
	[ROLE_DECODE] = "decode",
};

static const struct {
	const char *name;
	bool decodes_alone;
} rows[CONNECTORS] = {
	[CONNECTOR_ANY] = { "any", true },
	[CONNECTOR_NIXL] = { "nixl", true },
	[CONNECTOR_MOONCAKE] = { "mooncake", true },
	[CONNECTOR_MORIIO] = { "moriio", false },
	[CONNECTOR_P2P_NCCL] = { "p2p_nccl", false },
	[CONNECTOR_SGLANG] = { "sglang", false },
};

const char *role_text(enum role role) {
	assert(role < ROLES);
	return roles[role];
}

bool role_find(struct slice word, enum role *role_out) {
	if (slice_eq(word, SLICE("regular"))) {
		*role_out = ROLE_UNIFIED;
		return true;
	}
	for (unsigned i = 0; i < ROLES; i++)
		if (slice_eq(word, slice_of(roles[i]))) {
			*role_out = (enum role)i;
			return true;
		}
	return false;
}

const char *connector_text(enum connector connector) {
	assert(connector < CONNECTORS);
	return rows[connector].name;
}

bool connector_find(struct slice word, enum connector *connector_out) {
	for (unsigned i = CONNECTOR_ANY + 1; i < CONNECTORS; i++)
		if (slice_eq(word, slice_of(rows[i].name))) {
			*connector_out = (enum connector)i;
			return true;
		}
	return false;
}

bool connector_decodes_alone(enum connector connector) {
	assert(connector < CONNECTORS);
	return rows[connector].decodes_alone;
}
