#include "babysitter/backend.h"

#include "base/text.h"

#define SPACE " \t\r\n\f\v"

/* A NULL-terminated vector of owned strings. */
struct words {
	char **items;
	size_t n;
};

static void put_n(struct words *w, const char *text, size_t n) {
	w->items = realloc(w->items, (w->n + 2) * sizeof(*w->items));
	w->items[w->n++] = strndup(text, n);
	w->items[w->n] = NULL;
}

static void put(struct words *w, const char *text) {
	put_n(w, text, strlen(text));
}

/* "--flag value", unless there is no value. */
static void put_pair(struct words *w, const char *flag, const char *value) {
	if (!value[0])
		return;
	put(w, flag);
	put(w, value);
}

static void put_number(struct words *w, const char *flag, unsigned value) {
	char text[16];
	snprintf(text, sizeof(text), "%u", value);
	put_pair(w, flag, value ? text : "");
}

static void put_split(struct words *w, const char *text) {
	for (text += strspn(text, SPACE); *text; text += strspn(text, SPACE)) {
		size_t n = strcspn(text, SPACE);
		put_n(w, text, n);
		text += n;
	}
}

static void put_address(struct words *w, const struct babysitter_config *config) {
	put_number(w, "--port", config->port);
	put_pair(w, "--host", config->host);
}

/* --- one function a type ----------------------------------------------------------- */

static void put_vllm(struct words *w, const struct babysitter_config *config) {
	const struct babysitter_backend *b = &config->backend;
	const char *name = b->served_model;
	size_t n = strlen(b->model);

	put_split(w, "python3 -m vllm.entrypoints.openai.api_server");
	put_pair(w, "--model", b->model);
	put_address(w, config);
	while (n > 1 && b->model[n - 1] == '/')
		n--;
	if (name[0] && strcmp(name, "-") != 0) {
		put_pair(w, "--served-model-name", name);
	} else if (!name[0]) { /* so that its id is that of the other engines of this model */
		const char *slash = memrchr(b->model, '/', n);
		const char *last = slash && slash + 1 < b->model + n ? slash + 1 : b->model;
		put(w, "--served-model-name");
		put_n(w, last, (size_t)(b->model + n - last));
	}
}

static void put_infinilm(struct words *w, const struct babysitter_config *config) {
	const struct babysitter_backend *b = &config->backend;

	put(w, "python3");
	put(w, b->launch_script);
	put_pair(w, "--model-path", b->model_path);
	put_address(w, config);
	put_pair(w, "--dev", b->dev);
	put_number(w, "--ndev", b->n_dev);
	put_number(w, "--max-batch", b->n_batch_max);
	put_number(w, "--max-tokens", b->n_tokens_max);
	if (b->awq)
		put(w, "--awq");
}

/* Our mock does not listen on more than it is told to, and localhost is not always IPv4. */
static void put_mock(struct words *w, const struct babysitter_config *config, const char *self) {
	const struct option_list *models = &config->backend.models;
	bool is_local = strcmp(config->host, "localhost") == 0;

	put(w, self);
	put(w, "mock-engine");
	put_pair(w, "--host", is_local ? "127.0.0.1" : config->host);
	put_number(w, "--port", config->port);
	for (size_t i = 0; i < models->n; i++)
		put_pair(w, "--models", models->items[i]);
}

static void put_command_line(struct words *w, const struct babysitter_config *config, const char *self) {
	const struct babysitter_backend *b = &config->backend;

	switch (b->type) {
	case BACKEND_COMMAND:
		put_split(w, b->command);
		break;
	case BACKEND_VLLM:
		put_vllm(w, config);
		break;
	case BACKEND_MOCK:
		put_mock(w, config, self);
		break;
	case BACKEND_INFINILM:
		put_infinilm(w, config);
		break;
	case BACKEND_INFINILM_RUST:
		put_split(w, "xtask service");
		put(w, b->config_file);
		put_number(w, "-p", config->port);
		break;
	case BACKEND_SGLANG:
		put_split(w, "python3 -m sglang.launch_server");
		put_pair(w, "--model-path", b->model);
		put_address(w, config);
		break;
	case BACKEND_LLAMA_CPP:
		put(w, "llama-server");
		put_pair(w, "-m", b->model);
		put_address(w, config);
		break;
	case BACKEND_N_TYPES:
		assert(!"a type");
	}
	for (size_t i = 0; i < b->args.n; i++)
		put(w, b->args.items[i]);
}

/* --- environment --------------------------------------------------------------------- */

static bool is_variable(const char *entry, const char *name) {
	size_t n = strlen(name);
	return strncmp(entry, name, n) == 0 && entry[n] == '=';
}

/*
 * What is meant for us alone stays here: the service manager's socket, which the engine must not answer for
 * us, and our own options, among them the token.
 */
static bool is_ours(const char *entry) {
	static const char *const names[] = { "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID",
		"LISTEN_FDS", "LISTEN_FDNAMES" };
	static const char prefix[] = "HEADRACE_BABYSITTER_";
	for (size_t i = 0; i < n_elems(names); i++)
		if (is_variable(entry, names[i]))
			return true;
	return strncmp(entry, prefix, sizeof(prefix) - 1) == 0;
}

static bool is_configured(const struct option_map *env, const char *entry) {
	for (size_t i = 0; i < env->n; i++)
		if (is_variable(entry, env->items[i].name))
			return true;
	return false;
}

static void put_environment(struct words *w, const struct option_map *env, char *const *environment) {
	for (; *environment; environment++)
		if (!is_ours(*environment) && !is_configured(env, *environment))
			put(w, *environment);
	for (size_t i = 0; i < env->n; i++) {
		char *entry;
		if (asprintf(&entry, "%s=%s", env->items[i].name, env->items[i].value) < 0)
			abort();
		put(w, entry);
		free(entry);
	}
}

void backend_init(
    struct backend *b, const struct babysitter_config *config, char *const *environment, const char *self) {
	struct words argv = { .items = calloc(1, sizeof(char *)) };
	struct words env = { .items = calloc(1, sizeof(char *)) };

	put_command_line(&argv, config, self);
	put_environment(&env, &config->backend.env, environment);
	assert(argv.n > 0);
	*b = (struct backend){ .argv = argv.items, .env = env.items };
}

static void free_words(char **words) {
	for (char **word = words; word && *word; word++)
		free(*word);
	free(words);
}

void backend_deinit(struct backend *b) {
	free_words(b->argv);
	free_words(b->env);
	*b = (struct backend){ .argv = NULL };
}

char *backend_describe(const struct backend *b) {
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);

	assert(out);
	for (char **word = b->argv; *word; word++) {
		bool is_plain = (*word)[0] && !strpbrk(*word, SPACE "\"'\\");
		fprintf(out, is_plain ? "%s%s" : "%s'%s'", word == b->argv ? "" : " ", *word);
	}
	fclose(out);
	return text;
}

/* --- the port in a log line --------------------------------------------------------- */

/* Digits from `at` on that end with the line or something that is no part of a number or name. */
static uint16_t port_at(struct slice line, size_t at) {
	size_t n = 0;
	uint64_t port;

	while (at + n < line.n && line.p[at + n] >= '0' && line.p[at + n] <= '9')
		n++;
	bool is_end = at + n == line.n || strchr(" \t\r\"'`)]},;/.\033", line.p[at + n]);
	if (!is_end || !text_uint((struct slice){ line.p + at, n }, UINT16_MAX, &port))
		return 0;
	return (uint16_t)port;
}

/* An address ends there: a dotted quad, a bracket, "localhost". */
static bool is_address_end(struct slice before) {
	static const char host[] = "localhost";
	size_t n = before.n, n_dots = 0;

	if (n && before.p[n - 1] == ']')
		return true;
	if (n >= sizeof(host) - 1 && memcmp(before.p + n - (sizeof(host) - 1), host, sizeof(host) - 1) == 0)
		return true;
	for (; n && ((before.p[n - 1] >= '0' && before.p[n - 1] <= '9') || before.p[n - 1] == '.'); n--)
		n_dots += before.p[n - 1] == '.';
	return n_dots == 3;
}

/* A line about a connection to somewhere has an address too. */
static bool says_listening(struct slice line) {
	static const char *const words[] = { "listen", "serv", "bind", "bound", "running", "start" };
	char lower[512];
	size_t n = size_min(line.n, sizeof(lower) - 1);

	for (size_t i = 0; i < n; i++)
		lower[i] = line.p[i] ? ascii_lower(line.p[i]) : ' ';
	lower[n] = '\0';
	for (size_t i = 0; i < n_elems(words); i++)
		if (strstr(lower, words[i]))
			return true;
	return false;
}

uint16_t backend_port_of_line(struct slice line) {
	if (!says_listening(line))
		return 0;
	for (size_t i = 0; i < line.n; i++) {
		if (line.p[i] != ':' || !is_address_end(slice_head(line, i)))
			continue;
		uint16_t port = port_at(line, i + 1);
		if (port)
			return port;
	}
	return 0;
}

/* --- records --------------------------------------------------------------------------- */

json_t *backend_own_metadata(const struct babysitter_config *config, const char *state) {
	return json_pack("{s:s, s:s, s:s}", "type", babysitter_config_type_name(config->backend.type),
	    "babysitter", "enhanced", "state", state);
}

json_t *backend_server_metadata(const struct babysitter_config *config, const json_t *models_list) {
	json_t *ids = json_array(), *list = json_array(), *model;
	size_t i;

	json_array_foreach(models_list, i, model) {
		json_t *id = json_object_get(model, "id");
		if (!json_is_string(id))
			continue;
		json_array_append(ids, id);
		json_array_append_new(list, json_deep_copy(model));
	}
	json_t *metadata = json_pack("{s:s, s:s, s:s, s:o, s:o}", "type", "openai-api", "parent_service",
	    config->name, "babysitter", "enhanced", "models", ids, "models_list", list);
	json_t *extra = json_deep_copy(config->metadata);
	json_object_update(metadata, extra);
	json_decref(extra);
	return metadata;
}
