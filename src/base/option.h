/*
 * option: the one table of a program's options, and the values found for it.
 *
 * A program describes its options once, as constant rows. From them come the flags
 * (--a-b), the keys of the TOML or JSON file ([x] a_b), the variables (PREFIX_X_A_B),
 * the checks, the defaults, --help, the manual page and the dump of what is in effect.
 * A source of a higher rank wins, in whatever order they are read: file, then
 * environment, then flags. What a source says is checked when it is read, so that a
 * mistake in the file is seen even if a flag hides the value.
 *
 * A set owns everything that the stored values point to: strings, lists, sub-tables.
 * It must outlive the struct that it filled. One thread. Nothing here fails: mistakes
 * are lines in the set, each with the place it came from.
 */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "base/slice.h"

enum option_type {       /* and the member that the value is stored in */
	OPTION_STRING,   /* const char *, never NULL */
	OPTION_BOOL,     /* bool */
	OPTION_UINT,     /* any unsigned integer that holds the row's max */
	OPTION_NUMBER,   /* double: finite, may have a fraction */
	OPTION_DURATION, /* uint64_t, milliseconds; off is 0 */
	OPTION_SIZE,     /* uint64_t, bytes */
	OPTION_ENUM,     /* an enum: the index in the row's choices */
	OPTION_LIST,     /* struct option_list */
	OPTION_MAP,      /* struct option_map; file only */
	OPTION_ARRAY,    /* struct option_array, an array of tables; file only */
	OPTION_TREE,     /* json_t *, a table of anything, the set's; file only */
};

struct option_list {
	const char *const *items;
	size_t n;
};

struct option_pair {
	const char *name, *value;
};

struct option_map {
	const struct option_pair *items;
	size_t n;
};

/* The stored member may be any struct of a typed pointer and a count. */
struct option_array {
	void *items;
	size_t n;
};

/* What is wrong with a string, an item of a list or a value of a map, as one sentence; NULL: nothing. */
typedef const char *(*option_check_fn)(const char *text);

/* 1 in the range of a NUMBER. */
#define OPTION_ONE 1000u

struct option {
	const char *table; /* "": the key stands at the top of the file */
	const char *key;   /* a_b */
	const char *flag;  /* "a-b" in place of the bare key; NULL: the key, if no other row has it */
	const char *also;  /* "a-b": what another system calls the flag; NULL: nothing */
	const char *arg;   /* the value's name in the help; NULL: by type */
	const char *help;  /* one sentence, small first letter, no full stop */
	const char *def;   /* the default as a flag would spell it; NULL: empty, false, 0 */
	/* NULL-terminated; ENUM, in small letters, and taken in any; or STRING that must be one of them */
	const char *const *choices;
	option_check_fn check; /* may be NULL */
	/* UINT, DURATION in ms, SIZE in bytes; max 0: what the member holds. NUMBER: in thousandths, see
	 * OPTION_ONE; its max is not 0. */
	uint64_t min, max;
	const struct option *fields; /* ARRAY: the rows of one item, their table is "" */
	size_t n_fields, item_bytes; /* ARRAY */
	size_t offset, bytes;        /* the member in the program's struct, or in the item's; 0 bytes: none */
	enum option_type type;
	/* DURATION: what a number without a unit counts; 0: the unit must be there. Of a second or a
	 * millisecond: the flag's names may end in -secs or -ms, or leave that away. */
	uint16_t unit_ms;
	bool at_spaces;   /* LIST: text is split at white space alone; items may be empty */
	bool is_whole;    /* LIST: a text is one item, whatever is in it */
	bool can_be_bare; /* LIST: a flag without a value has no items */
	bool can_be_off;  /* DURATION: "off" and 0 are taken although they are below min */
	bool can_be_auto; /* UINT: "auto" is taken, too, as the largest number that the member holds */
	bool required;    /* of a field: every item must have it */
	bool reserved;    /* for a later version: any value is taken, to no effect */
	bool secret;      /* never shown */
	bool fixed;       /* holds until the program ends: another value needs another start */
};

struct option_table {
	const char *name;
	const char *help;
};

/* Tables under one heading of the help: from this one to the next group's. */
struct option_group {
	const char *heading;
	const char *table;
};

struct option_default {
	const char *path, *text; /* as a flag would spell it */
};

struct option_alias {
	const char *path, *flag; /* "a-b" */
};

/* Another program that this one stands in for, with that one's defaults in place of the rows'. */
struct option_dialect {
	const char *name;   /* the value of the schema's dialect_path that chooses it */
	const char *called; /* the program's name that does, where no value is given */
	const struct option_default *defaults;
	size_t n_defaults;
	const struct option_alias *aliases; /* what the help calls flags in place of our names */
	size_t n_aliases;
};

/* The prose of the manual page: one line a paragraph; lines that begin with a space stand as they are. */
struct option_page {
	const char *description, *signals, *examples;
};

struct option_schema {
	const char *program;    /* "headrace router" */
	const char *summary;    /* one line */
	const char *main_table; /* its keys are bare flags even where others have the same key */
	const char *env_prefix; /* "HEADRACE" */
	const struct option_table *tables;
	size_t n_tables;
	const struct option_group *groups; /* NULL: tables stand without headings */
	size_t n_groups;
	const struct option *rows; /* those of a table stand together */
	size_t n_rows;
	const char *dialect_path; /* NULL: there are no dialects */
	const struct option_dialect *const *dialects;
	size_t n_dialects;
	struct option_page page;
	bool main_at_top;     /* the keys of the main table may stand at the top of the file as well */
	bool ignores_unknown; /* a key that nobody knows is a warning */
};

enum option_command { OPTION_RUN, OPTION_CHECK, OPTION_HELP, OPTION_MAN, OPTION_VERSION };

enum option_format { OPTION_TOML, OPTION_JSON };

struct option_set; /* the values and the mistakes of one reading */

/* The schema must outlive the set. */
struct option_set *option_set_new(const struct option_schema *schema);
void option_set_free(struct option_set **set);

/*
 * Reads flags from argv[1] on. A file named by --config is noted, not read: see
 * option_file(). argv may go away afterwards.
 */
enum option_command option_read_flags(struct option_set *set, int argc, char *const *argv);

/* The file named by --config, or NULL. */
const char *option_file(const struct option_set *set);

/* Reads a file of at most 1 MiB: by its name .toml or .json, else JSON if it begins with '{'. */
void option_read_file(struct option_set *set, const char *path);

/* The same from memory; `name` stands in the mistakes. */
void option_read_text(struct option_set *set, const char *name, enum option_format format, struct slice text);

/* Reads PREFIX_TABLE_KEY=value; an empty value counts as not given. */
void option_read_environment(struct option_set *set, char *const *environment);

/*
 * Fills every member of the program's struct: what was found, else the default. After
 * that option_mistake() may be called for what only the values together can show.
 * Call once, after all sources.
 */
void option_store(struct option_set *set, void *config);

/*
 * A mistake or a warning about a value, by its path ("router.hold_limit", "worker[2].url").
 * It is placed where the value came from.
 */
void option_mistake(struct option_set *set, const char *path, const char *format, ...) printf_like(3, 4);
void option_warning(struct option_set *set, const char *path, const char *format, ...) printf_like(3, 4);

size_t option_mistakes(const struct option_set *set);

/* Mistakes and warnings, one a line, in the order of the file, then variables, then flags. */
void option_print_mistakes(const struct option_set *set, FILE *out);

/* Is this one of those lines? */
bool option_has_said(const struct option_set *set, const char *line);

/* Did any source give this value, or is it the default? */
bool option_is_given(const struct option_set *set, const char *path);

/* Is it given, and not as false, or empty: as a dump of the default has it? */
bool option_is_on(const struct option_set *set, const char *path);

/* Was the program called by this name (argv[0] without its folder)? After option_read_flags(). */
bool option_is_called(const struct option_set *set, const char *name);

/*
 * Another default than the row's, as a flag would spell it, where no source gave a value: for
 * programs that stand in for others. After option_store(), into the same struct.
 */
void option_default(struct option_set *set, void *config, const char *path, const char *text);

/* All defaults of a dialect. */
void option_speak(struct option_set *set, void *config, const struct option_dialect *dialect);

/* The same whatever a source gave, for what goes before all of them; whose it is stays as it was. */
void option_replace(struct option_set *set, void *config, const char *path, const char *text);

/* Zeroed memory that lives as long as the set. */
void *option_alloc(struct option_set *set, size_t bytes);

/* The values in effect, by table, secrets masked. After option_store(). The caller owns the object. */
json_t *option_dump(const struct option_set *set);

/* Looks at what only the values together can show, calling option_mistake(). May be NULL. */
typedef void (*option_verify_fn)(struct option_set *set, void *config);

/*
 * All of the above for a program's main(): flags, file and environment into *config,
 * verified. --help, with the defaults and names of the dialect that flags and name choose, --man,
 * --version and --check are answered on stdout, mistakes go to stderr. Returns -1 when the program is to run,
 * otherwise its exit code (0 or 2).
 */
int option_start(struct option_set *set, int argc, char *const *argv, void *config, option_verify_fn verify);

/* The same sources again, for a program that runs: nothing is printed. Returns option_mistakes(). */
must_use size_t option_read_again(
    struct option_set *set, int argc, char *const *argv, void *config, option_verify_fn verify);
