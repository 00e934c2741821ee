/*
 * precedence: of those that may get a request, those that the operator wants to have it first.
 *
 * Who has a higher priority (TRAIT_PRIORITY) comes before all others: these get requests while nobody above
 * them may, because those are full, late, avoided, out or were tried. Nothing is done, and nothing looked at,
 * where nobody has a priority. Private to this folder.
 */
#pragma once

#include "policy/filter.h"

/* Leaves of the eligible those of the highest priority. */
void precedence_narrow(struct policy_set *set, const struct pick_input *input, struct filtered *f);
