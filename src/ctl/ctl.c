#include "ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/decimal.h"
#include "ctl/ctl_config.h"
#include "ctl/question.h"
#include "ctl/show.h"
#include "net/loop.h"

#define REQUEST_BYTES_MAX (8u << 20) /* what the admin port takes */
#define UPGRADE_MS        3660000    /* the router gives up before: [timeout] upgrade is an hour at most */
#define WEIGHT_MAX        1000000
#define TARGET_BYTES      2048u

struct verb;

/* What a verb makes of the arguments. False: it has said what is wrong with them. */
struct asking {
	const struct verb *verb;
	const struct ctl_config *config;
	const char *const *words; /* behind the verb */
};
typedef bool (*prepare_fn)(const struct asking *a, char *target, struct slice *body_out);
typedef void (*show_fn)(const json_t *answer, FILE *out);

struct verb {
	const char *name;
	const char *words; /* what it needs besides; NULL: nothing */
	const char *path;  /* on the admin port, or what that begins with */
	prepare_fn prepare;
	show_fn show;         /* NULL: the answer is printed as it came */
	uint64_t patience_ms; /* its answer may take as long; 0: no longer than others */
};

static bool say(const char *what, const char *why) {
	fprintf(stderr, "headrace ctl: %s: %s\n", what, why);
	return false;
}

/* --- the verbs ---------------------------------------------------------------------------- */

static bool read_file(const char *path, struct slice *body_out) {
	FILE *in = strcmp(path, "-") ? fopen(path, "re") : stdin;

	if (!in)
		return say(path, strerror(errno));
	char *text = malloc(REQUEST_BYTES_MAX + 1);
	size_t n = fread(text, 1, REQUEST_BYTES_MAX + 1, in);
	int error = ferror(in) ? errno : 0;

	if (in != stdin)
		fclose(in);
	*body_out = (struct slice){ text, n };
	if (error)
		return say(path, strerror(error));
	return n <= REQUEST_BYTES_MAX || say(path, "larger than 8 MiB");
}

static bool prepare_explain(const struct asking *a, char *target, struct slice *body_out) {
	snprintf(target, TARGET_BYTES, "%s%s%s", a->verb->path, a->config->path[0] ? "?path=" : "",
	    a->config->path);
	return read_file(a->config->file, body_out);
}

/* Names are checked: they stand in a query as they are. */
static bool prepare_decisions(const struct asking *a, char *target, struct slice *body_out) {
	const struct ctl_config *config = a->config;

	snprintf(target, TARGET_BYTES, "%s?limit=%u&model=%.512s&instance=%.512s&reason=%.512s",
	    a->verb->path, config->limit, config->model, config->instance, config->reason);
	return true;
}

static bool prepare_decision(const struct asking *a, char *target, struct slice *body_out) {
	for (const char *p = a->words[0]; *p; p++)
		if (*p <= ' ' || *p > '~' || strchr("/?#%", *p))
			return say(a->words[0], "is no id");
	snprintf(target, TARGET_BYTES, "%s/%.512s", a->verb->path, a->words[0]);
	return true;
}

static bool prepare_get(const struct asking *a, char *target, struct slice *body_out) {
	snprintf(target, TARGET_BYTES, "%s", a->verb->path);
	return true;
}

/* A body of no bytes. */
static bool prepare_post(const struct asking *a, char *target, struct slice *body_out) {
	*body_out = (struct slice){ calloc(1, 1), 0 };
	return prepare_get(a, target, body_out);
}

/* An act on somebody of this name. Names are urls where nobody gave one: they are percent-encoded. */
static void print_act(const struct asking *a, char *target) {
	static const char plain[] = "-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	size_t n = (size_t)snprintf(target, TARGET_BYTES, "%s/", a->verb->path);

	for (const char *p = a->words[0]; *p && n + 16 < TARGET_BYTES; p++)
		n += (size_t)snprintf(
		    target + n, TARGET_BYTES - n, strchr(plain, *p) ? "%c" : "%%%02X", (unsigned char)*p);
	snprintf(target + n, TARGET_BYTES - n, "/%s", a->verb->name);
}

static bool prepare_act(const struct asking *a, char *target, struct slice *body_out) {
	*body_out = (struct slice){ calloc(1, 1), 0 };
	print_act(a, target);
	return true;
}
static bool prepare_weight(const struct asking *a, char *target, struct slice *body_out) {
	bool is_default = !strcmp(a->words[1], "default");
	double weight = 0;

	if (!is_default && !decimal_parse(slice_of(a->words[1]), WEIGHT_MAX, &weight))
		return say(a->words[1], "is no weight: a number from 0 to 1000000, or default");
	json_t *body = json_pack("{s:o}", "weight", is_default ? json_null() : json_real(weight));
	*body_out = slice_of(json_dumps(body, JSON_COMPACT));
	json_decref(body);
	print_act(a, target);
	return true;
}

static const struct verb verbs[] = {
	{ "explain", NULL, "/explain", prepare_explain, show_explanation, 0 },
	{ "decisions", NULL, "/decisions", prepare_decisions, show_decisions, 0 },
	{ "decision", "ID", "/decisions", prepare_decision, show_decision, 0 },
	{ "breakers", NULL, "/breakers", prepare_get, show_breakers, 0 },
	{ "trip", "NAME", "/breakers", prepare_act, show_breakers, 0 },
	{ "reset", "NAME", "/breakers", prepare_act, show_breakers, 0 },
	{ "instances", NULL, "/instances", prepare_get, show_instances, 0 },
	{ "drain", "NAME", "/instances", prepare_act, show_instances, 0 },
	{ "undrain", "NAME", "/instances", prepare_act, show_instances, 0 },
	{ "disable", "NAME", "/instances", prepare_act, show_instances, 0 },
	{ "enable", "NAME", "/instances", prepare_act, show_instances, 0 },
	{ "weight", "NAME N", "/instances", prepare_weight, show_instances, 0 },
	{ "reload", NULL, "/reload", prepare_post, show_reload, 0 },
	{ "upgrade", NULL, "/upgrade", prepare_post, show_upgrade, UPGRADE_MS },
	{ "config", NULL, "/config", prepare_get, NULL, 0 },
	{ "metrics", NULL, "/metrics", prepare_get, NULL, 0 },
};

static unsigned count_words(const struct verb *verb) {
	return !verb->words ? 0 : strchr(verb->words, ' ') ? 2 : 1;
}

/* NULL: it has been said what is wrong. */
static const struct verb *find_verb(const struct ctl_words *words) {
	const struct verb *verb = NULL;

	for (size_t i = 0; words->n && i < n_elems(verbs); i++)
		if (!strcmp(words->items[0], verbs[i].name))
			verb = &verbs[i];
	if (!words->n)
		say("what?",
		    "explain, decisions, decision ID, breakers, trip NAME, reset NAME, instances, drain "
		    "NAME, "
		    "undrain NAME, disable NAME, enable NAME, weight NAME N, reload, upgrade, config or "
		    "metrics; "
		    "--help says "
		    "more");
	else if (!verb)
		say(words->items[0], "no such question; --help lists them");
	else if (words->n != 1u + count_words(verb))
		say(verb->name,
		    !verb->words                 ? "takes no more words"
			: count_words(verb) == 1 ? "needs one word more"
						 : "needs two words more");
	else
		return verb;
	return NULL;
}

/* --- the answer --------------------------------------------------------------------------- */

static bool say_refused(const json_t *answer, unsigned status) {
	const json_t *error = json_object_get(answer, "error");
	const char *message = json_string_value(json_object_get(error, "message"));
	const char *code = json_string_value(json_object_get(error, "code"));

	fprintf(stderr, "headrace ctl: %u %s: %s\n", status, code ? code : "-", message ? message : "-");
	show_mistakes(answer, stderr);
	return false;
}

static bool show_answer(
    const struct verb *verb, const struct ctl_config *config, const struct answer *answer) {
	json_t *json = json_loadb(answer->body, answer->n, JSON_ALLOW_NUL, NULL);
	bool is_good = answer->status == 200;

	if (!is_good) {
		say_refused(json, answer->status);
	} else if (config->is_json || !verb->show) {
		fwrite(answer->body, 1, answer->n, stdout);
		if (answer->n && answer->body[answer->n - 1] != '\n')
			putchar('\n');
	} else if (json_is_object(json)) {
		verb->show(json, stdout);
	} else {
		is_good = say(config->admin, "what it answers is not understood");
	}
	json_decref(json);
	return is_good && (fflush(stdout) == 0 || say("standard output", strerror(errno)));
}

static bool run(const struct verb *verb, const struct ctl_config *config, struct question *question) {
	struct answer answer;

	question_ask(question, &answer);
	bool is_good =
	    answer.failure ? say(config->admin, answer.failure) : show_answer(verb, config, &answer);
	free(answer.body);
	return is_good;
}

/* The head's lines of --header; the caller frees them. */
static char *join_headers(const struct option_list *headers) {
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);

	assert(out);
	for (size_t i = 0; i < headers->n; i++)
		fprintf(out, "%s\r\n", headers->items[i]);
	fclose(out);
	return text;
}

int ctl_main(int argc, char **argv) {
	struct ctl_config *config;
	struct ctl_words words;
	int code = ctl_config_load(argc, argv, &words, &config);

	if (code >= 0)
		return code;
	const struct verb *verb = find_verb(&words);
	char target[TARGET_BYTES];
	char *fields = join_headers(&config->headers);
	struct slice body = { NULL, 0 };
	struct question question = { .url = config->admin, .path = target };

	code = 2;
	const struct asking asking = { verb, config, words.items + 1 };
	if (verb && verb->prepare(&asking, target, &body)) {
		loop_setup_process();
		question.method = body.p ? SLICE("POST") : SLICE("GET");
		question.body = body;
		question.timeout_ms = u64_max(config->timeout_ms, verb->patience_ms);
		question.fields = (struct slice){ fields, strlen(fields) };
		code = run(verb, config, &question) ? 0 : 1;
	}
	free((char *)body.p);
	free(fields);
	ctl_config_free(&config);
	return code;
}
