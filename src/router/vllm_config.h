/*
 * vllm_config: what the dialect of vLLM's router is: its defaults and its own environment, what it refuses
 * that we would not, and its flags for what is not built here. Part of reading the configuration.
 *
 * Reads .env in the working directory, and the environment. One thread.
 */
#pragma once

#include "router/config.h"

extern const struct option_dialect vllm_config_dialect;

/* Puts its defaults where nobody said anything, before anything is made of the values. Without the dialect:
 * nothing. */
void vllm_config_apply(struct option_set *set, struct router_config *config);

/*
 * Tells of flags that have no effect, and refuses those that would change what is served; with the dialect
 * also what that router refuses. After the list of engines was made.
 */
void vllm_config_verify(struct option_set *set, const struct router_config *config);
