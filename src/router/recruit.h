/*
 * recruit: an engine as who registers it at run time describes it (POST /workers), judged and read as a
 * record of the fleet.
 *
 * Members that are known are judged strictly, those that are not are left out, null is as if it were not
 * there. What the fleet goes by as labels is written into these: worker_type (role), bootstrap_port,
 * priority, cost, dp_size; a label of the same name yields. The url is brought into the one form by which the
 * engine is known from then on: "http://host:port", with "@k" behind it for rank k. Without a rank it stands
 * for all that the engine has (fleet/rank.h). A path is for providers alone.
 *
 * A recruit owns all that its spec points to. Control thread.
 */
#pragma once

#include <jansson.h>

#include "fleet/fleet.h"

#define RECRUIT_BODY_BYTES_MAX 65536u
#define RECRUIT_PATH_BYTES_MAX 128u
#define RECRUIT_URL_BYTES      (300u + RECRUIT_PATH_BYTES_MAX) /* of the form above, with its NUL */
#define RECRUIT_LABELS_MAX     48u                             /* as given; some more are made */
#define RECRUIT_TEXT_BYTES_MAX 1024u

struct recruit {
	json_t *json;           /* what is kept and shown: the members that are known, in their one form */
	struct fleet_spec spec; /* its name is its url */
	struct slice base;      /* the url without a rank */
	/* private */
	struct pair *models, *labels;
	char url[RECRUIT_URL_BYTES];
	char host[256];
	char bootstrap_port[8], priority[12], cost[32], dp_size[8];
};

/* NULL, and a sentence that says what is wrong. */
must_use struct recruit *recruit_new(const json_t *body, const char **why_out);

/* The same with some members changed, but the url. */
must_use struct recruit *recruit_change(
    const struct recruit *recruit, const json_t *body, const char **why_out);

void recruit_free(struct recruit **recruit); /* accepts NULL, clears */

/* Brings an engine's url into its one form. False: it is none. */
must_use bool recruit_url(struct slice text, char url_out[static RECRUIT_URL_BYTES]);

/* A url in that form without its rank. */
struct slice recruit_base(struct slice url);
