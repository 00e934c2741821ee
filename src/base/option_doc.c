#include "base/option_doc.h"

#include "base/option_name.h"
#include "base/option_value.h"
#include "base/version.h"

enum { COLUMN = 32, COLUMNS_MAX = 100 };

/* ---- what both say about a row ---- */

static const char *arg_of(const struct option *row) {
	static const char *const by_type[] = {
		[OPTION_STRING] = "TEXT",
		[OPTION_BOOL] = "true|false",
		[OPTION_UINT] = "N",
		[OPTION_NUMBER] = "NUMBER",
		[OPTION_DURATION] = "TIME",
		[OPTION_SIZE] = "SIZE",
		[OPTION_ENUM] = "NAME",
		[OPTION_LIST] = "TEXT...",
		[OPTION_MAP] = "",
		[OPTION_ARRAY] = "",
		[OPTION_TREE] = "",
	};
	if (row->arg)
		return row->arg;
	return row->choices ? "NAME" : by_type[row->type];
}

static const char *default_of(const struct option *row, const struct option_dialect *dialect) {
	char path[OPTION_NAME_BYTES];

	option_name_path(row, path);
	for (size_t i = 0; dialect && i < dialect->n_defaults; i++)
		if (!strcmp(path, dialect->defaults[i].path))
			return dialect->defaults[i].text;
	return row->def ? row->def : "";
}

static const char *flag_of(const struct option_schema *schema, const struct option *row,
    const struct option_dialect *dialect, char line[static OPTION_NAME_BYTES]) {
	option_name_path(row, line);
	for (size_t i = 0; dialect && i < dialect->n_aliases; i++)
		if (!strcmp(line, dialect->aliases[i].path)) {
			snprintf(line, OPTION_NAME_BYTES, "--%s", dialect->aliases[i].flag);
			return line;
		}
	return option_name_flag(schema, row, line);
}

/* "one of a, b; 1 to 9; default 3": what the schema knows besides the sentence. */
static void facts_of(const struct option *row, const char *def_text, char line[static OPTION_LINE_BYTES]) {
	char choices[256] = "", range[128] = "", def[128] = "";
	const char *facts[] = { choices, range, row->required ? "required" : "", def,
		row->reserved ? "reserved: no effect yet" : "", row->fixed ? "not changed by a reload" : "" };
	size_t n = 0;

	if (row->choices) {
		memcpy(choices, "one of ", sizeof("one of "));
		option_value_choices(row, choices + strlen(choices), sizeof(choices) - strlen(choices));
	}
	option_value_range(row, range, sizeof(range));
	if (def_text[0])
		snprintf(def, sizeof(def), "default %s", def_text);
	line[0] = '\0';
	for (size_t i = 0; i < n_elems(facts); i++)
		if (facts[i][0] && n < OPTION_LINE_BYTES)
			n += (size_t)snprintf(
			    line + n, OPTION_LINE_BYTES - n, "%s%s", n ? "; " : "", facts[i]);
}

/* The rows of a table that have flags; those of "" stand in the file alone. */
static bool is_in(const struct option *row, const struct option_table *table) {
	return !strcmp(row->table, table->name) && option_name_is_flag(row);
}

/* ---- --help ---- */

/* Text from COLUMN on, `at` being the column reached so far, broken at spaces. */
static void print_wrapped(FILE *out, size_t at, const char *text) {
	if (at + 2 > COLUMN) {
		fputc('\n', out);
		at = 0;
	}
	fprintf(out, "%*s", (int)(COLUMN - at), "");
	for (at = COLUMN; *text;) {
		size_t n = strcspn(text, " ");
		if (at > COLUMN && at + 1 + n > COLUMNS_MAX) {
			fprintf(out, "\n%*s", COLUMN, "");
			at = COLUMN;
		}
		at += (size_t)fprintf(out, "%s%.*s", at > COLUMN ? " " : "", (int)n, text);
		text += n;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

static void help_row(FILE *out, const char *name, const struct option *row, const char *def_text) {
	char facts[OPTION_LINE_BYTES], text[2 * OPTION_LINE_BYTES];

	facts_of(row, def_text, facts);
	snprintf(text, sizeof(text), facts[0] ? "%s (%s)" : "%s%s", row->help, facts);
	print_wrapped(out, (size_t)fprintf(out, "  %s %s", name, arg_of(row)), text);
}

static void help_command(FILE *out, const char *name, const char *text) {
	print_wrapped(out, (size_t)fprintf(out, "  %s", name), text);
}

static void help_file_rows(const struct option_schema *schema, FILE *out) {
	for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++) {
		bool is_array = r->type == OPTION_ARRAY;
		char path[OPTION_NAME_BYTES];
		if (option_name_is_flag(r))
			continue;
		fprintf(out, "\n%s%s%s in the file: %s\n", is_array ? "[[" : "[", option_name_path(r, path),
		    is_array ? "]]" : "]", r->help);
		for (const struct option *f = r->fields; f < r->fields + r->n_fields; f++)
			help_row(out, f->key, f, f->def ? f->def : "");
	}
}

static void help_heading(const struct option_schema *schema, FILE *out, const struct option_table *table) {
	for (size_t i = 0; i < schema->n_groups; i++)
		if (!strcmp(schema->groups[i].table, table->name))
			fprintf(out, "\n---- %s ----\n", schema->groups[i].heading);
}

void option_doc_help(const struct option_schema *schema, const struct option_dialect *dialect, FILE *out) {
	char name[OPTION_NAME_BYTES];

	fprintf(out, "%s: %s\n\nUsage: %s [--config FILE] [--FLAG VALUE]...\n\n", schema->program,
	    schema->summary, schema->program);
	help_command(out, "--config FILE", "read this file, TOML or JSON; variables and flags go before it");
	help_command(out, "--check", "say what is wrong with file, variables and flags, and start nothing");
	help_command(out, "--help, --man, --version", "this text, the manual page, the version");
	for (const struct option_table *t = schema->tables; t < schema->tables + schema->n_tables; t++) {
		help_heading(schema, out, t);
		fprintf(out, "\n[%s] %s\n", t->name, t->help);
		for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++)
			if (is_in(r, t))
				help_row(out, flag_of(schema, r, dialect, name), r, default_of(r, dialect));
	}
	help_file_rows(schema, out);
	fprintf(out,
	    "\nTIME is a number with ms, s, m or h; SIZE a number with KiB, MiB or GiB, or bytes. Every "
	    "flag\n"
	    "is also --TABLE-KEY, %s_TABLE_KEY in the environment and KEY below [TABLE] in the file.\n",
	    schema->env_prefix);
}

/* ---- --man ---- */

static void print_troff(FILE *out, const char *text, size_t n) {
	for (size_t i = 0; i < n; i++) {
		char c = text[i];
		if (i == 0 && (c == '.' || c == '\''))
			fputs("\\&", out);
		if (c == '\\')
			fputs("\\e", out);
		else if (c == '-')
			fputs("\\-", out);
		else
			fputc(c, out);
	}
}

static void print_text(FILE *out, const char *text) {
	print_troff(out, text, strlen(text));
}

/* A section of prose in the form that struct option_page describes. */
static void man_prose(FILE *out, const char *title, const char *prose) {
	bool is_verbatim = false;

	if (!prose)
		return;
	fprintf(out, ".SH %s\n", title);
	for (const char *line = prose; *line;) {
		size_t n = strcspn(line, "\n");
		bool is_indented = line[0] == ' ';
		if (is_indented != is_verbatim)
			fputs(is_indented ? ".PP\n.nf\n" : ".fi\n", out);
		is_verbatim = is_indented;
		if (!is_verbatim)
			fputs(".PP\n", out);
		print_troff(out, line, n);
		fputc('\n', out);
		line += n + (line[n] == '\n');
	}
	if (is_verbatim)
		fputs(".fi\n", out);
}

/* One entry: the bold name, the value in italics, then sentence and facts. */
static void man_row(FILE *out, const char *name, const struct option *row) {
	char facts[OPTION_LINE_BYTES];

	facts_of(row, row->def ? row->def : "", facts);
	fputs(".TP\n\\fB", out);
	print_text(out, name);
	fprintf(out, "\\fR \\fI%s\\fR\n", arg_of(row));
	print_text(out, row->help);
	if (facts[0]) {
		fputs(" (", out);
		print_text(out, facts);
		fputc(')', out);
	}
	fputs(".\n", out);
}

static void man_options(const struct option_schema *schema, FILE *out) {
	char name[OPTION_NAME_BYTES];

	fputs(
	    ".SH OPTIONS\n"
	    ".TP\n\\fB\\-\\-config\\fR \\fIFILE\\fR\nread this file; see CONFIGURATION.\n"
	    ".TP\n\\fB\\-\\-check\\fR\nsay what is wrong with file, variables and flags, and start nothing.\n"
	    ".TP\n\\fB\\-\\-help\\fR, \\fB\\-\\-man\\fR, \\fB\\-\\-version\\fR\n"
	    "print a summary, this page, the version.\n",
	    out);
	for (const struct option_table *t = schema->tables; t < schema->tables + schema->n_tables; t++) {
		fprintf(out, ".SS [%s]\n", t->name);
		print_text(out, t->help);
		fputs(".\n", out);
		for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++)
			if (is_in(r, t))
				man_row(out, option_name_flag(schema, r, name), r);
	}
}

static void man_configuration(const struct option_schema *schema, FILE *out) {
	fputs(
	    ".SH CONFIGURATION\n"
	    "The file is TOML if its name ends in .toml, JSON if in .json; otherwise it is JSON if it "
	    "begins\n"
	    "with a brace. Each heading above is a table, or in JSON an object, and each flag a key of it:\n"
	    "\\fB\\-\\-a\\-b\\fR below \\fB[x]\\fR is the key \\fBa_b\\fR, and the flag "
	    "\\fB\\-\\-x\\-a\\-b\\fR\n"
	    "as well. Times are texts with ms, s, m or h; sizes are texts with KiB, MiB or GiB, or numbers\n"
	    "of bytes. A key that is not known is ",
	    out);
	fputs(schema->ignores_unknown ? "a warning" : "an error", out);
	fputs(". Flags go before variables, and these before\nthe file.\n", out);
	if (schema->main_at_top)
		fprintf(out, "The keys of \\fB[%s]\\fR may stand at the top as well.\n", schema->main_table);
	for (const struct option *r = schema->rows; r < schema->rows + schema->n_rows; r++) {
		bool is_array = r->type == OPTION_ARRAY;
		if (option_name_is_flag(r))
			continue;
		char path[OPTION_NAME_BYTES];
		fprintf(out, ".SS %s%s%s\n", is_array ? "[[" : "[", option_name_path(r, path),
		    is_array ? "]]" : "]");
		print_text(out, r->help);
		fputs(".\n", out);
		for (const struct option *f = r->fields; f < r->fields + r->n_fields; f++)
			man_row(out, f->key, f);
	}
}

static void man_generic(const struct option_schema *schema, FILE *out) {
	fprintf(out,
	    ".SH ENVIRONMENT\n"
	    "\\fIkey\\fR of \\fI[table]\\fR is \\fB%s_\\fITABLE\\fB_\\fIKEY\\fR, in capitals; lists are "
	    "separated\n"
	    "by commas or spaces. An empty variable counts as not set. Kubernetes sets variables like\n"
	    "these for a service that is called like a table; \\fBenableServiceLinks: false\\fR ends that.\n"
	    ".SH FILES\n"
	    "None is read unless \\fB\\-\\-config\\fR names it.\n"
	    ".SH EXIT STATUS\n"
	    ".TP\n0\ngood.\n.TP\n1\nfailed.\n.TP\n2\nwrong use or configuration.\n",
	    schema->env_prefix);
}

void option_doc_man(const struct option_schema *schema, FILE *out) {
	char page[OPTION_NAME_BYTES];

	snprintf(page, sizeof(page), "%s", schema->program);
	for (char *c = page; *c; c++)
		*c = *c == ' ' ? '-' : *c;
	fputs(".TH ", out);
	print_text(out, page);
	fputs(" 1 \"\" \"headrace " HEADRACE_VERSION "\" \"headrace manual\"\n.SH NAME\n", out);
	print_text(out, page);
	fputs(" \\- ", out);
	print_text(out, schema->summary);
	fprintf(out,
	    "\n.SH SYNOPSIS\n\\fB%s\\fR [\\fB\\-\\-config\\fR \\fIFILE\\fR] [\\fB\\-\\-\\fIFLAG "
	    "VALUE\\fR]...\n",
	    schema->program);
	man_prose(out, "DESCRIPTION", schema->page.description);
	man_options(schema, out);
	man_configuration(schema, out);
	man_generic(schema, out);
	man_prose(out, "SIGNALS", schema->page.signals);
	man_prose(out, "EXAMPLES", schema->page.examples);
}
