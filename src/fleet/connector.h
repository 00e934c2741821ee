/*
 * connector: how a key-value cache goes from the instance that computed a prompt to the one that decodes,
 * and what part of that an instance has.
 *
 * The words are those of labels and flags. Constant tables; any thread.
 */
#pragma once

#include "base/slice.h"

enum role {
	ROLE_UNIFIED, /* computes prompts and decodes */
	ROLE_PREFILL,
	ROLE_DECODE,
};

#define ROLES 3

enum connector {
	CONNECTOR_ANY, /* nobody said which */
	CONNECTOR_NIXL,
	CONNECTOR_MOONCAKE,
	CONNECTOR_MORIIO,
	CONNECTOR_P2P_NCCL,
	CONNECTOR_SGLANG, /* its bootstrap server */
};

#define CONNECTORS 6

/* MoRIIO: who moves the blocks. */
enum kv_mode { KV_MODE_READ, KV_MODE_WRITE };

const char *role_text(enum role role);

/* "regular" is unified, too. False: it is no role. */
must_use bool role_find(struct slice word, enum role *role_out);

const char *connector_text(enum connector connector);
must_use bool connector_find(struct slice word, enum connector *connector_out);

/* Can an instance that decodes compute a prompt by itself? Some connectors refuse what no other one has
 * prefilled. */
bool connector_decodes_alone(enum connector connector);
