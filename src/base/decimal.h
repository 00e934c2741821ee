/*
 * decimal: numbers with a fraction as people write them: "2", "0.5", "1.25".
 */
#pragma once

#include "base/slice.h"

/* Digits, with at most 9 behind a point; at most `max`. False on anything else, and *value_out is left alone.
 */
must_use bool decimal_parse(struct slice s, double max, double *value_out);
