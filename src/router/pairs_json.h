/*
 * pairs_json: names, and pairs of them, as JSON. New references; text that is not UTF-8 is "".
 */
#pragma once

#include <jansson.h>

#include "fleet/pair.h"

must_use json_t *text_json(struct slice text);

/* The keys, in their order. */
must_use json_t *pairs_json_keys(struct pairs pairs);

/* Key: value. */
must_use json_t *pairs_json(struct pairs pairs);
