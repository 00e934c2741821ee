/*
 * option_diff: what another reading of a program's options has brought.
 *
 * Values count by what they mean: "1m" and "60s" are the same. Arrays of tables are left out, since
 * only the program knows which item is which. Pure.
 */
#pragma once

#include "base/option.h"

/*
 * Rows whose value differs, in the order of the table: [{"option": path, "from": value, "to": value}].
 * Secrets are "(secret)" on both sides. `only_fixed`: of those alone that cannot change in a program that
 * runs. Both sets are of one schema, after option_store(). The caller owns the list.
 */
json_t *option_diff(const struct option_set *before, const struct option_set *after, bool only_fixed);
