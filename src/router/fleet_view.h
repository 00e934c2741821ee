/*
 * fleet_view: the fleet as clients of vLLM's router and SGLang's gateway expect to see it: workers with ids.
 *
 * One worker is one target of the fleet, whatever sources name it; besides those, engines whose registration
 * is under way or has failed, and whose removal is under way (router/leavers.h). A worker's id looks like a
 * UUID and is made of its url: it is the same in every router and after every restart.
 *
 * Control thread.
 */
#pragma once

#include <jansson.h>

#include "router/recruits.h"
#include "router/report.h"

#define FLEET_VIEW_ID_BYTES 37u

void fleet_view_id(struct slice url, char id_out[static FLEET_VIEW_ID_BYTES]);

/* {"workers", "total", "stats"}. A new reference. */
must_use json_t *fleet_view_list(const struct report *report);

/* The worker that has this id, or this url; of an engine with ranks, when its url without one is meant, all
 * of them as one. NULL: there is none. A new reference. */
must_use json_t *fleet_view_one(const struct report *report, struct slice id_or_url);

/* Who has just been removed is shown while its requests last, or for the drain time. */
void fleet_view_leave(const struct report *report, const struct snapshot_row *row);

/* As fleet_view_one(), if requests are at it and that is all that it is there for. */
must_use json_t *fleet_view_leaver(const struct report *report, struct slice id_or_url);

/* {"urls"}. A new reference. */
must_use json_t *fleet_view_urls(const struct report *report);

/* {"workers"}: what each has to do. A new reference. */
must_use json_t *fleet_view_loads(const struct report *report);

/* Whether a worker with this url is meant; `id_or_url` is an id, or a url in its one form (recruit_url()), of
 * it or of the engine that it is a rank of. */
must_use bool fleet_view_is_meant(struct slice url, struct slice id_or_url);

/* The worker_type of whom has these labels: "prefill", "decode", or "regular". */
struct slice fleet_view_type(struct pairs labels);

/* The first engine of this worker_type that requests may go to; NULL: there is none. */
const struct snapshot_row *fleet_view_healthy(const struct snapshot *snapshot, struct slice type);
