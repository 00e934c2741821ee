/*
 * policy_config: what the tables about picking say together: names are turned into
 * policies, mistakes in them reported. Part of reading the configuration.
 */
#pragma once

#include "router/config.h"

/* The names of policy_table, aliases included, NULL at the end; good for the life of the process. */
extern const char *const policy_config_names[];

/* A mistake at `path` unless it is the id of a model as a request can name it. */
void policy_config_verify_model(struct option_set *set, const char *path, struct slice model);

/* Fills config->policies; what that points to is the set's. */
void policy_config_verify(struct option_set *set, struct router_config *config);
