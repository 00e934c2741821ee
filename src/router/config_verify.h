/*
 * config_verify: what only the values of a configuration together can show: defaults that follow from
 * others, mistakes between them, and what is made of them, such as the list of engines. Part of reading the
 * configuration.
 *
 * Reads files that the configuration names, and the environment. One thread, as policy_config and
 * auth_config, which have the tables about picking and about who may ask.
 */
#pragma once

#include "router/config.h"

extern const struct option_dialect config_verify_infinilm;

/*
 * Completes *config, whose values were checked one by one and stored. What that points to is the set's, but
 * for the engines of a static file and the table of tenants, which the configuration owns also when there are
 * mistakes: those are the set's to tell.
 */
void config_verify(struct option_set *set, struct router_config *config);
