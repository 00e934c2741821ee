/*
 * registry_metrics: what GET /metrics of the registry shows, in Prometheus' text format.
 */
#pragma once

#include <stdio.h>

#include "registry/registry_routes.h"

/* context: a struct registry_routes. */
void registry_metrics_write(void *context, FILE *out);
