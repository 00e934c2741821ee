/*
 * registry_metrics: what GET /metrics of the registry shows, in Prometheus' text format.
 */
#pragma once

#include <stdio.h>

#include "registry/registry_routes.h"

void registry_metrics_write(struct registry_routes *r, FILE *out);
