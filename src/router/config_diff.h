/*
 * config_diff: how one configuration differs from the one before it, for people and programs. Secrets
 * show that they changed and no more. Pure.
 */
#pragma once

#include <jansson.h>

#include "router/config.h"

/*
 * {"options": [{"option", "from", "to"}],
 *  "workers": {"added": [name], "removed": [name], "changed": [{"name", "changes": [{"option", "from",
 * "to"}]}]}, "tenants": the same}. Engines of the static file are workers, too. The caller owns it.
 */
json_t *config_diff(const struct router_config *before, const struct router_config *after);

/* There is no difference in it. */
bool config_diff_is_empty(const json_t *diff);
