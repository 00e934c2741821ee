/*
 * service: one record of a registry, judged and read as an instance of the fleet.
 *
 * A registry holds what anybody sent it: each record is judged alone, and what is wrong
 * with one, too much of something included, is a sentence for the log. Only records with metadata.type
 * "openai-api" are engines. The weight, 0 to 1,000,000, stands at the top level or in the metadata, the
 * models in metadata.models (with their objects in metadata.models_list), role and labels in either place; of
 * the url the scheme and "@RANK" at its end count: https is an engine with TLS, whose certificate must name
 * the record's host; what else users write into the metadata is shown and never obeyed.
 *
 * A service owns all that its spec points to. One thread.
 */
#pragma once

#include <jansson.h>

#include "fleet/fleet.h"

#define SERVICE_BYTES_MAX (512u * 1024u) /* of a record, as compact JSON */

enum service_outcome {
	SERVICE_E_OTHER = 1, /* not an engine */
	SERVICE_E_BAD,
};

struct service {
	struct fleet_spec spec;
	json_t *kept;    /* the record without what changes all the time: equal means "no news" */
	size_t bytes;    /* of that, as compact JSON */
	bool is_alive;   /* has a lease, as the registry says; true when it does not say; or drains, since
			  * registries call nobody healthy who does */
	bool is_leaving; /* its status is neither "running" nor "draining": it serves no more */
	/* private */
	struct pair *models, *labels;
	char *url, *metadata;
};

/* 0 and a service, or an outcome and why: SERVICE_E_BAD's sentence is *why_out. */
must_use int service_parse(const json_t *record, struct service **service_out, const char **why_out);

/* The same of a record that somebody means to be an engine, whatever its type: 0 or SERVICE_E_BAD. */
must_use int service_read(const json_t *record, struct service **service_out, const char **why_out);

void service_free(struct service **service);

/* The record's name, if it has one; p NULL otherwise. Points into the record. */
struct slice service_name(const json_t *record);

/* Is it of a living engine that takes new work? A bad one says so, too. */
bool service_is_living(const json_t *record);
