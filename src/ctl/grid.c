#include "ctl/grid.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void grid_init(struct grid *g, unsigned n_columns) {
	assert(n_columns > 0 && n_columns <= GRID_COLUMNS_MAX);
	*g = (struct grid){ .n_columns = n_columns };
}

void grid_deinit(struct grid *g) {
	for (size_t i = 0; i < g->n; i++)
		free(g->cells[i]);
	free(g->cells);
	*g = (struct grid){ .n = 0 };
}

void grid_add(struct grid *g, const char *format, ...) {
	char *cell;
	va_list args;

	va_start(args, format);
	int n = vasprintf(&cell, format, args);
	va_end(args);
	assert(n >= 0);
	for (char *p = cell; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	if (g->n == g->room) {
		g->room = g->room ? 2 * g->room : 64;
		g->cells = realloc(g->cells, g->room * sizeof(*g->cells));
	}
	g->cells[g->n++] = cell;
}

static size_t width_of(const struct grid *g, unsigned column) {
	size_t width = 0;

	for (size_t i = column; i < g->n; i += g->n_columns)
		if (strlen(g->cells[i]) > width)
			width = strlen(g->cells[i]);
	return width;
}

void grid_print(const struct grid *g, FILE *out) {
	size_t widths[GRID_COLUMNS_MAX];

	assert(g->n % g->n_columns == 0);
	for (unsigned c = 0; c < g->n_columns; c++)
		widths[c] = width_of(g, c);
	for (size_t i = 0; i < g->n; i++) {
		unsigned c = (unsigned)(i % g->n_columns);
		bool is_last = c + 1 == g->n_columns;

		if (g->is_number[c])
			fprintf(out, "%*s", (int)widths[c], g->cells[i]);
		else
			fprintf(out, "%-*s", is_last ? 0 : (int)widths[c], g->cells[i]);
		fputs(is_last ? "\n" : "  ", out);
	}
}
