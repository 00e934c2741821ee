#include "router/auth_config.h"

#include <errno.h>

#include "base/option_check.h"
#include "base/text.h"
#include "router/verdicts.h"

#define LINE_BYTES_MAX (TENANT_NAME_MAX + TENANT_KEY_MAX + 64u)
#define SHA256_PREFIX  "sha256:"
#define URL_BYTES_MAX  512u

const char *auth_config_check_digest(const char *text) {
	uint8_t digest[DIGEST_BYTES];

	return tenant_read_digest(slice_of(text), digest) ? NULL
							  : "expected sha256: and 64 hexadecimal digits";
}

const char *auth_config_check_tenant(const char *text) {
	if (!strcmp(text, "anonymous") || !strcmp(text, "other"))
		return "expected another name: this one is taken";
	if (!text[0] || strlen(text) > TENANT_NAME_MAX || strpbrk(text, "=,") || option_check_token(text))
		return "expected 1 to 64 printable ASCII characters without blanks, = and commas";
	return NULL;
}

const char *auth_config_check_pattern(const char *text) {
	const char *star = strchr(text, '*');

	return !text[0] || (star && star[1]) ? "expected a model id, or its beginning and a *" : NULL;
}

const char *auth_config_check_url(const char *text) {
	struct text_url url;

	if (!text_url(slice_of(text), &url) || strlen(text) > URL_BYTES_MAX ||
	    !(slice_is(url.scheme, SLICE("http")) || slice_is(url.scheme, SLICE("https"))))
		return "expected http://HOST[:PORT][/PATH] or https://HOST[:PORT][/PATH], of at most 512 "
		       "bytes";
	return NULL;
}

const char *auth_config_check_urls(const char *text) {
	const char *const separators = " \t,";
	char url[URL_BYTES_MAX + 2];

	for (size_t n; *text; text += n) {
		text += strspn(text, separators);
		n = strcspn(text, separators);
		snprintf(url, sizeof(url), "%.*s", (int)size_min(n, sizeof(url) - 1), text);
		if (n && auth_config_check_url(url))
			return auth_config_check_url(url);
	}
	return NULL;
}

/* One reading of all keys. */
struct reading {
	struct option_set *set;
	struct tenant_table *table;
	struct digester *digester;
	const char *path; /* of the option */
	char where[64];   /* in it: "line 3" */
	uint32_t n_keys;
};

static void complain(struct reading *r, const char *what) {
	option_mistake(r->set, r->path, "%s%s%s", r->where, r->where[0] ? ": " : "", what);
}

static void add_digest(struct reading *r, uint32_t tenant, const uint8_t *digest) {
	char text[TENANT_NAME_MAX + 64];

	switch (tenant_table_add(r->table, tenant, digest)) {
	case 0:
		r->n_keys++;
		return;
	case TENANT_E_OTHERS:
		snprintf(text, sizeof(text), "this key is tenant %s's already",
		    tenant_get(r->table, tenant_table_find(r->table, digest))->name);
		complain(r, text);
		return;
	default:
		complain(r, "there are more than 65536 keys");
	}
}

/* A key, or the digest of one. */
static void add_key(struct reading *r, uint32_t tenant, struct slice key) {
	bool is_digest = slice_has_prefix(key, SLICE(SHA256_PREFIX));
	uint8_t digest[DIGEST_BYTES];

	if (is_digest && !tenant_read_digest(key, digest)) {
		complain(r, "expected 64 hexadecimal digits behind sha256:");
		return;
	}
	if (!key.n || key.n > TENANT_KEY_MAX) {
		complain(r, key.n ? "a key is longer than 512 bytes" : "a key is empty");
		return;
	}
	for (size_t i = 0; i < key.n; i++)
		if (key.p[i] <= ' ' || key.p[i] > '~') {
			complain(r, "a key is printable ASCII without blanks");
			return;
		}
	if (!is_digest)
		digester_sha256(r->digester, key, digest);
	add_digest(r, tenant, digest);
}

/* NAME, then the key behind the separator. */
static void add_entry(struct reading *r, struct slice entry, const char *separators) {
	size_t n = 0;

	while (n < entry.n && !strchr(separators, entry.p[n]))
		n++;
	uint32_t tenant = tenant_by_name(r->table, slice_head(entry, n));
	if (n == entry.n)
		complain(
		    r, "there is no key behind the tenant's name"); /* maybe it is one: not to be shown */
	else if (tenant == TENANT_ANONYMOUS)
		complain(r, "there is no such tenant");
	else
		add_key(r, tenant, slice_trim(slice_skip(entry, n + 1)));
}

/* --- where keys come from ------------------------------------------------------------- */

/* [auth] keys, TENANT=KEY each. */
static void read_list(struct reading *r, const struct option_list *list) {
	r->path = "auth.keys";
	for (size_t i = 0; i < list->n; i++) {
		snprintf(r->where, sizeof(r->where), "key %zu", i + 1);
		add_entry(r, slice_of(list->items[i]), "=");
		digest_wipe((char *)list->items[i], strlen(list->items[i])); /* the set's own memory */
	}
}

/* Lines of a file, bounded; a longer one is cut, and no good. */
static void read_lines(struct reading *r, FILE *file) {
	char line[LINE_BYTES_MAX + 2];
	unsigned n_line = 0;

	while (fgets(line, sizeof(line), file)) {
		struct slice text = slice_of(line);
		bool is_long = text.n == sizeof(line) - 1 && line[text.n - 1] != '\n';

		snprintf(r->where, sizeof(r->where), "line %u", ++n_line);
		while (text.n && strchr("\r\n", text.p[text.n - 1]))
			text.n--;
		text = slice_trim(text);
		if (is_long) {
			complain(r, "a line is too long");
			break;
		}
		if (text.n && text.p[0] != '#')
			add_entry(r, text, " \t");
	}
	digest_wipe(line, sizeof(line));
}

static void read_file(struct reading *r, const char *name) {
	char buffer[4096]; /* ours, so that no key is left in one of stdio's */
	FILE *file = name[0] ? fopen(name, "re") : NULL;

	if (!name[0])
		return;
	r->path = "auth.keys_file";
	r->where[0] = '\0';
	if (!file) {
		option_mistake(r->set, r->path, "%s: %s", name, strerror(errno));
		return;
	}
	setvbuf(file, buffer, _IOFBF, sizeof(buffer));
	read_lines(r, file);
	if (ferror(file))
		option_mistake(r->set, r->path, "%s: cannot be read", name);
	fclose(file);
	digest_wipe(buffer, sizeof(buffer));
}

static void read_tables(struct reading *r, const struct router_tenants *tenants) {
	char path[64];

	r->path = path;
	r->where[0] = '\0';
	for (size_t i = 0; i < tenants->n; i++) {
		uint32_t tenant = tenant_by_name(r->table, slice_of(tenants->items[i].name));
		snprintf(path, sizeof(path), "tenant[%zu].keys", i);
		for (size_t k = 0; k < tenants->items[i].keys.n; k++)
			add_key(r, tenant, slice_of(tenants->items[i].keys.items[k]));
	}
	r->path = "tenant";
}

/* --- tenants ---------------------------------------------------------------------------- */

/* Two with one name would be one in all that they have: prefixes, meters, metrics. */
static bool verify_names(struct option_set *set, const struct router_tenants *tenants) {
	char path[64];
	bool is_good = tenants->n < TENANTS_MAX;

	if (!is_good)
		option_mistake(set, "tenant", "there are more than %u", TENANTS_MAX - 1);
	for (size_t i = 0; i < tenants->n && is_good; i++)
		for (size_t k = 0; k < i; k++)
			if (!strcmp(tenants->items[i].name, tenants->items[k].name)) {
				snprintf(path, sizeof(path), "tenant[%zu].name", i);
				option_mistake(set, path, "\"%s\" is there twice", tenants->items[i].name);
				is_good = false;
			}
	return is_good;
}

static void put_hex(FILE *out, const uint8_t *digest) {
	for (unsigned i = 0; i < DIGEST_BYTES; i++)
		fprintf(out, "%02x", digest[i]);
}

/* A TENANT=KEY with the key's digest in its place. What is no key, or a digest already, stays as it is. */
static bool put_entry(FILE *out, struct digester *digester, struct slice entry) {
	const char *equals = memchr(entry.p, '=', entry.n);
	size_t n_name = equals ? (size_t)(equals - entry.p) + 1 : entry.n;
	struct slice key = slice_skip(entry, n_name);
	uint8_t digest[DIGEST_BYTES];

	fprintf(out, "%.*s", (int)n_name, entry.p);
	if (!key.n || slice_has_prefix(key, SLICE(SHA256_PREFIX))) {
		fprintf(out, "%.*s", (int)key.n, key.p);
		return false;
	}
	digester_sha256(digester, key, digest);
	fputs(SHA256_PREFIX, out);
	put_hex(out, digest);
	return true;
}

/* The variable has digests from now on, so that the next reading finds the same keys, and nobody any text. */
static void digest_variable(struct digester *digester, const char *name) {
	char *old = getenv(name), *text = NULL;
	size_t n_text = 0, length = old ? strlen(old) : 0;
	bool is_other = false;

	if (!length)
		return;
	FILE *out = open_memstream(&text, &n_text);
	for (size_t at = 0, n; at < length; at += n + 1) {
		n = strcspn(old + at, " \t,");
		if (at)
			fputc(',', out);
		is_other |= put_entry(out, digester, (struct slice){ old + at, n });
	}
	fclose(out);
	if (is_other) {
		digest_wipe(old, length);
		setenv(name, text, 1);
	}
	free(text);
}

static void make_tenants(struct option_set *set, struct router_config *config) {
	const struct router_tenants *tenants = &config->tenant_items;
	bool has_keys = config->auth_keys.n || config->auth_keys_file[0];
	struct reading r = { .set = set };

	if (!tenants->n && has_keys)
		option_mistake(set, config->auth_keys.n ? "auth.keys" : "auth.keys_file",
		    "there is no [[tenant]] whose keys these could be");
	if (!tenants->n || !verify_names(set, tenants))
		return;
	r.table = tenant_table_new(tenants->items, (uint32_t)tenants->n);
	if (!r.table) {
		option_mistake(set, "tenant",
		    "there are too many with those of earlier configurations that requests still use");
		return;
	}
	r.digester = digester_new();
	config->tenants = r.table;
	read_tables(&r, tenants);
	read_list(&r, &config->auth_keys);
	read_file(&r, config->auth_keys_file);
	if (!r.n_keys && !config->validation.urls.n && !option_mistakes(set))
		option_mistake(set, "tenant", "no tenant has a key: nobody could ask for anything");
	digest_variable(r.digester, "HEADRACE_AUTH_KEYS");
	digester_free(&r.digester);
}

static void verify_validation(struct option_set *set, struct router_config *config) {
	struct router_validation *v = &config->validation;

	if (v->urls.n > VERDICT_URLS_MAX)
		option_mistake(set, "auth.validation_urls", "there are more than %u", VERDICT_URLS_MAX);
	if (!v->tenant_name[0] || option_mistakes(set))
		return;
	v->tenant = (uint16_t)tenant_by_name(config->tenants, slice_of(v->tenant_name));
	if (v->tenant == TENANT_ANONYMOUS)
		option_mistake(set, "auth.validation_tenant", "there is no such tenant");
}

/* --- keys for engines --------------------------------------------------------------------- */

/* The first line of a file, as text that the set owns; "" with the mistake told. */
static const char *read_secret(struct option_set *set, const char *path, const char *name) {
	char *text = option_alloc(set, LINE_BYTES_MAX + 1);
	FILE *file = fopen(name, "re");

	if (!file) {
		option_mistake(set, path, "%s: %s", name, strerror(errno));
		return text;
	}
	if (!fgets(text, (int)LINE_BYTES_MAX + 1, file))
		text[0] = '\0';
	fclose(file);
	text[strcspn(text, "\r\n")] = '\0';
	if (!text[0] || option_check_token(text) || strlen(text) > TENANT_KEY_MAX) {
		option_mistake(
		    set, path, "%s: expected a key of at most 512 characters in its first line", name);
		text[0] = '\0';
	}
	return text;
}

static void verify_upstream(struct option_set *set, const char *table, const char **key, const char *file) {
	char path[64];

	snprintf(path, sizeof(path), "%s.api_key_file", table);
	if (!file[0])
		return;
	if ((*key)[0])
		option_mistake(set, path, "there is an api_key, too");
	else
		*key = read_secret(set, path, file);
}

static void verify_workers_keys(struct option_set *set, struct router_config *config) {
	struct router_worker *workers = (struct router_worker *)config->workers.items; /* made by ourselves */
	char table[32];

	for (size_t i = 0; i < config->workers.n; i++) {
		snprintf(table, sizeof(table), "worker[%zu]", i);
		verify_upstream(set, table, &workers[i].api_key, workers[i].api_key_file);
	}
}

void auth_config_verify(struct option_set *set, struct router_config *config) {
	make_tenants(set, config);
	verify_validation(set, config);
	verify_upstream(set, "upstream", &config->upstream_key, config->upstream_key_file);
	if (!config->engine_key[0])
		config->engine_key = config->upstream_key;
	verify_workers_keys(set, config);
}
