/*
 * engine_info: what vLLM's router passes to one of its engines, and many engines do not have:
 * /get_server_info, /get_model_info, /health_generate.
 *
 * One engine that may take requests is asked, and its answer is the answer. Where it has no such route it is
 * made here: of what is known of the fleet, or, of the health, by having that engine generate one token. For
 * its health one engine of each role is asked, in turn, until one is not well. Half of a pair is not made to
 * generate: its connector may not survive a request without the other half; it is asked whether it lives. A
 * client that leaves ends the question, and with it the engine's work.
 *
 * Control thread.
 */
#pragma once

#include "router/petition.h"
#include "router/report.h"

/* The petition's path is the question. */
void engine_info_ask(struct report *report, struct petition *p);

/* The loop is about to end: nobody is asked any more. Petitions are left to petitions_close(). */
void engine_info_close(struct report *report);
