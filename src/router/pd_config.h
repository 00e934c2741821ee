/*
 * pd_config: engines that prefill and engines that decode, as flags name them: --prefill URL [PORT|none],
 * --decode URL. Part of reading the configuration.
 */
#pragma once

#include "router/config.h"

/* Checks of single values (struct option, check): --prefill has both urls and ports. */
bool pd_config_is_url(const char *text);
const char *pd_config_check_port(const char *text);
const char *pd_config_check_address(const char *text);

/*
 * Writes an engine for each url of the two lists to `workers`, which has room for as many as the lists have
 * items, and returns how many these are. Each has the labels that say what it is for.
 */
size_t pd_config_workers(
    struct option_set *set, const struct router_config *config, struct router_worker *workers);

/* Tells who is missing where both are asked for. After the list of engines was made. */
void pd_config_verify(struct option_set *set, const struct router_config *config);
