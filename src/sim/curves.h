/*
 * curves: how many of the requests had their first token by when, a line for each
 * policy, as a picture (SVG). Time is logarithmic: policies differ by powers of ten.
 */
#pragma once

#include <stdio.h>

#include "sim/score.h"

/* `title` stands above; any text. */
void curves_print(const struct score *scores, size_t n, const char *title, FILE *out);
