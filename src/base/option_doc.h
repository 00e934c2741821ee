/*
 * option_doc: the help and the manual page of a program, printed from its schema.
 */
#pragma once

#include "base/option.h"

/* Plain text, at most 100 columns. `dialect`: whose defaults are shown; NULL: the rows'. */
void option_doc_help(const struct option_schema *schema, const struct option_dialect *dialect, FILE *out);

/* A troff page for man(1), section 1. */
void option_doc_man(const struct option_schema *schema, FILE *out);
