/*
 * fleet_routes: the worker API of vLLM's router and SGLang's gateway, and the other questions of theirs that
 * the control thread answers: which requests are such, and what is done with them.
 *
 * The table is read by workers, to see whom a request is for; all else is the control thread's.
 */
#pragma once

#include "router/petition.h"
#include "router/report.h"

/* Whether the table has this method and path, and for whom it is. Any thread. */
must_use bool fleet_routes_find(const struct head *request, enum petition_kind *kind_out);

/* Control thread: does it, and answers, at once or later. The petitions' context is the report. */
void fleet_routes_run(struct petition *p);

/* A job has ended that a petition waits for (recruits_options). */
void fleet_routes_added(struct petition *p, const char *url, const char *error);

/* In the admin table: passes the call on. */
void fleet_routes_call(struct endpoint_call *call);
