#include "ctl/ctl_config.h"

#include <stdlib.h>

#include "base/text.h"

#define LIMIT_MAX 1000

static const char *check_url(const char *text) {
	struct text_url url;

	if (!text_url(slice_of(text), &url) || !slice_is(url.scheme, SLICE("http")) || strlen(text) > 512)
		return "expected http://HOST[:PORT]";
	return NULL;
}

static const char *check_path(const char *text) {
	for (const char *p = text; *p; p++)
		if (*p <= ' ' || *p > '~' || strchr("?#&%+", *p))
			return "expected a path, such as /v1/chat/completions";
	return !text[0] || text[0] == '/' ? NULL : "expected a path, such as /v1/chat/completions";
}

/* It becomes part of a query as it is. */
static const char *check_word(const char *text) {
	for (const char *p = text; *p; p++)
		if (*p <= ' ' || *p > '~' || strchr("&#%+", *p))
			return "expected a name without spaces, &, #, % and +";
	return NULL;
}

/* "name: value"; not what ctl says itself of the body and the connection. */
static const char *check_header(const char *text) {
	static const char *const ours[] = { "host", "connection", "content-length", "content-type",
		"transfer-encoding", "expect" };
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");

	for (const char *p = text; *p; p++)
		if ((*p >= 0 && *p < ' ' && *p != '\t') || *p == 0x7f)
			return "expected 'name: value' without control characters";
	for (size_t i = 0; i < n_elems(ours); i++)
		if (slice_is((struct slice){ text, n }, slice_of(ours[i])))
			return "expected another header: this one is of the connection";
	return n && text[n] == ':' ? NULL : "expected 'name: value'";
}

#define AT(member)                                                                                           \
	.offset = offsetof(struct ctl_config, member), .bytes = sizeof(((struct ctl_config *)0)->member)

static const struct option rows[] = {
	{ "ctl", "admin", .arg = "URL", .help = "the router's admin port", .type = OPTION_STRING,
	    .def = "http://127.0.0.1:29000", .check = check_url, AT(admin) },
	{ "ctl", "json", .help = "prints the answer as it came, for programs", .type = OPTION_BOOL,
	    .def = "false", AT(is_json) },
	{ "ctl", "timeout", .help = "for the answer", .type = OPTION_DURATION, .def = "10s", .min = 1,
	    .max = 3600000, AT(timeout_ms) },
	{ "ctl", "file", .arg = "FILE", .help = "explain: the request's body, also -f; - is standard input",
	    .type = OPTION_STRING, .def = "-", AT(file) },
	{ "ctl", "path", .arg = "PATH",
	    .help = "explain: where it would be sent; without one, by its members", .type = OPTION_STRING,
	    .check = check_path, AT(path) },
	{ "ctl", "header", .arg = "'NAME: VALUE'",
	    .help = "a header field of the request, of explain's too; may be repeated", .type = OPTION_LIST,
	    .is_whole = true, .check = check_header, AT(headers) },
	{ "ctl", "limit", .help = "decisions: how many, the newest first", .type = OPTION_UINT, .def = "20",
	    .min = 1, .max = LIMIT_MAX, AT(limit) },
	{ "ctl", "model", .help = "decisions: those of this model", .type = OPTION_STRING,
	    .check = check_word, AT(model) },
	{ "ctl", "instance", .help = "decisions: those for this instance", .type = OPTION_STRING,
	    .check = check_word, AT(instance) },
	{ "ctl", "reason", .help = "decisions: those for this reason", .type = OPTION_STRING,
	    .check = check_word, AT(reason) },
};

#undef AT

static const struct option_table tables[] = { { "ctl", "questions to a router" } };

static const struct option_schema schema = {
	.program = "headrace ctl",
	.summary = "ask a running router why requests went where they went, drain engines, move breakers, "
		   "reload and upgrade it",
	.main_table = "ctl",
	.env_prefix = "HEADRACE",
	.tables = tables,
	.n_tables = n_elems(tables),
	.rows = rows,
	.n_rows = n_elems(rows),
	.page = {
		.description =
		    "One of these words says what is asked; options stand before or behind it.\n"
		    "  explain        where a request would go now, and why, without sending it\n"
		    "  decisions      what was decided last\n"
		    "  decision ID    one decision: by its own id or by that of its request\n"
		    "  breakers       the circuit breakers of the engines\n"
		    "  trip NAME      opens the breaker of the engine of this name, for [breaker] open_max\n"
		    "  reset NAME     closes it\n"
		    "  instances      the engines: their state, who drains them, and their requests\n"
		    "  drain NAME     no new requests for the engine of this name; those it has end by themselves\n"
		    "  disable NAME   the same, for one that is meant to stay out\n"
		    "  undrain NAME, enable NAME\n"
		    "                 it may serve again\n"
		    "  weight NAME N  its share of the traffic; default: as the configuration or registry says\n"
		    "  reload         reads the router's configuration again, and applies it whole or not at all\n"
		    "  upgrade        starts the binary that stands where the router was started from; it takes over without "
		    "a request lost, or nothing changes and it is told why\n"
		    "  config         the router's values in effect\n"
		    "  metrics        its metrics, as they are scraped\n"
		    "Exit status: 0 when there was an answer, 1 when there was none or it says no, 2 for mistakes in "
		    "the arguments.\n",
		.examples =
		    "Where would this go?\n"
		    "  headrace ctl explain -f request.json\n"
		    "Where would it go as part of a session, and with a deadline?\n"
		    "  headrace ctl explain -f request.json --header 'x-session-id: 7' --header 'x-headrace-deadline-ms: "
		    "500'\n"
		    "Why did that go there? The id is in the answer's x-request-id:\n"
		    "  headrace ctl decision edace6085758a57e0000000000000005\n"
		    "Nothing more for this engine, for a while; from another machine, with the router's [admin] key:\n"
		    "  headrace ctl trip http://10.0.0.7:8000\n"
		    "  headrace ctl --admin http://10.0.0.5:29000 --header 'authorization: Bearer KEY' reset gpu-7\n"
		    "Take an engine out, see how many requests are still there, and let it back in:\n"
		    "  headrace ctl drain gpu-7\n"
		    "  headrace ctl instances\n"
		    "  headrace ctl undrain gpu-7\n"
		    "The file was changed: what is another value now? Not 0 when it has a mistake, and then nothing changed:\n"
		    "  headrace ctl reload\n"
		    "What was done for another router, for a program:\n"
		    "  headrace ctl --admin http://10.0.0.5:29000 decisions --limit 100 --json\n",
	},
};

static bool takes_value(const char *flag) {
	if (!strcmp(flag, "--config"))
		return true;
	for (size_t i = 0; i < n_elems(rows); i++)
		if (rows[i].type != OPTION_BOOL && !strcmp(flag + 2, rows[i].key))
			return true;
	return false;
}

/* Takes the words out of argv and spells -f in full; what remains is flags. Returns how many. */
static int take_words(int argc, char **argv, struct ctl_words *words) {
	static char file[] = "--file";
	int n = 1;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-f"))
			argv[i] = file;
		if (argv[i][0] != '-') {
			if (words->n < CTL_WORDS_MAX)
				words->items[words->n] = argv[i];
			words->n++;
			continue;
		}
		argv[n++] = argv[i];
		if (!strncmp(argv[i], "--", 2) && takes_value(argv[i]) && i + 1 < argc)
			argv[n++] = argv[++i];
	}
	return n;
}

int ctl_config_load(int argc, char **argv, struct ctl_words *words_out, struct ctl_config **config_out) {
	struct ctl_config *config = calloc(1, sizeof(*config));

	*words_out = (struct ctl_words){ .n = 0 };
	argc = take_words(argc, argv, words_out);
	config->options = option_set_new(&schema);
	int code = option_start(config->options, argc, argv, config, NULL);

	if (code >= 0)
		ctl_config_free(&config);
	*config_out = config;
	return code;
}

void ctl_config_free(struct ctl_config **config_inout) {
	struct ctl_config *config = *config_inout;

	*config_inout = NULL;
	if (!config)
		return;
	option_set_free(&config->options);
	free(config);
}
