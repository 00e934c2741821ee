/*
 * static_fleet: the engines that the configuration itself names, [[worker]]s and those of the static file,
 * as records of the fleet's static source.
 */
#pragma once

#include "router/config.h"

struct static_fleet {
	struct fleet_spec *specs;
	size_t n;
	struct pair *pairs; /* of the specs; private */
};

/* What the specs point to is the configuration's, or in `fleet`. */
void static_fleet_init(struct static_fleet *fleet, const struct router_config *config);
void static_fleet_deinit(struct static_fleet *fleet);
