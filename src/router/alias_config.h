/*
 * alias_config: the table of aliases, made of [alias] and --model-alias. Part of reading the configuration.
 */
#pragma once

#include "router/config.h"

/* Fills config->aliases, whose items are the set's. After the workers are known: a name that one of them
 * declares is worth a word. */
void alias_config_verify(struct option_set *set, struct router_config *config);
