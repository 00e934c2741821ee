/*
 * grid: rows of cells, printed in columns as wide as their widest cell.
 *
 * The first row is the heading. Cells are copied; control bytes become "?".
 */
#pragma once

#include <stdio.h>

#include "base/defs.h"

#define GRID_COLUMNS_MAX 16

struct grid {
	char **cells; /* row by row */
	size_t n, room;
	unsigned n_columns;
	bool is_number[GRID_COLUMNS_MAX]; /* to the right */
};

void grid_init(struct grid *g, unsigned n_columns);
void grid_deinit(struct grid *g);

/* The next cell of the row at hand. */
void grid_add(struct grid *g, const char *format, ...) printf_like(2, 3);
void grid_print(const struct grid *g, FILE *out);
