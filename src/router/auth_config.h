/*
 * auth_config: what the tables about tenants, keys and origins say together: the table of tenants is made,
 * files of keys are read, mistakes in them reported. Part of reading the configuration.
 *
 * Keys of clients are digested as they are read; their text is wiped where it was found. The environment has
 * their digests afterwards, so that it can be read again. No complaint has a key. One thread, and at the
 * first reading no other one that looks at the environment.
 */
#pragma once

#include "router/config.h"

/* Fills config->tenants, which the configuration owns, and what stands in files of upstream keys. */
void auth_config_verify(struct option_set *set, struct router_config *config);

/* Checks of single values (struct option, check). */
const char *auth_config_check_digest(const char *text);
const char *auth_config_check_tenant(const char *text);
const char *auth_config_check_pattern(const char *text);
const char *auth_config_check_url(const char *text);

/* The same of URLs with commas or blanks in between. */
const char *auth_config_check_urls(const char *text);
