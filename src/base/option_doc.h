/*
 * option_doc: the help and the manual page of a program, printed from its schema.
 */
#pragma once

#include "base/option.h"

/* Plain text, at most 100 columns. */
void option_doc_help(const struct option_schema *schema, FILE *out);

/* A troff page for man(1), section 1. */
void option_doc_man(const struct option_schema *schema, FILE *out);
