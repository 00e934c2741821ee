#include "router/rate.h"

#include <stdlib.h>

#include "fleet/label.h"

#define SECOND_NS UINT64_C(1000000000)

struct limits { /* of one tenant and model */
	struct meter requests, tokens;
};

/* What there is of one tenant, in all tables that limit it alike. */
struct account {
	_Atomic uint32_t refs;
	struct limits limits[LABELS];
};

struct rate_table {
	const struct tenant_table *tenants;
	struct account **accounts; /* by tenant; NULL: without limits */
	uint32_t n;
	uint64_t per_second;
	struct meter all; /* its minute is a second: it is told of a time that runs sixty times as fast */
};

static bool has_limits(const struct tenant_table *tenants, uint32_t i) {
	const struct tenant *tenant = tenant_is_there(tenants, i) ? tenant_get(tenants, i) : NULL;

	return tenant && (tenant->requests_per_minute || tenant->tokens_per_minute);
}

static struct account *account_new(void) {
	struct account *account = calloc(1, sizeof(*account));

	atomic_init(&account->refs, 1);
	return account;
}

static void account_unref(struct account **account_ptr) {
	struct account *account = *account_ptr;

	*account_ptr = NULL;
	if (account && atomic_fetch_sub_explicit(&account->refs, 1, memory_order_acq_rel) == 1)
		free(account);
}

/* Its limits for a model; NULL: there are none. */
static struct limits *limits_of(const struct rate_table *table, uint32_t tenant, uint32_t label) {
	return table->accounts[tenant] ? &table->accounts[tenant]->limits[label] : NULL;
}

struct rate_table *rate_table_new(const struct tenant_table *tenants, uint64_t per_second) {
	uint32_t n = tenant_table_n(tenants);
	bool is_limited = per_second;

	for (uint32_t i = 0; i < n; i++)
		is_limited |= has_limits(tenants, i);
	if (!is_limited)
		return NULL;
	struct rate_table *table = calloc(1, sizeof(*table));
	*table = (struct rate_table){ .tenants = tenants, .n = n, .per_second = per_second };
	table->accounts = calloc(n, sizeof(struct account *));
	for (uint32_t i = 0; i < n; i++)
		if (has_limits(tenants, i))
			table->accounts[i] = account_new();
	return table;
}

static struct meter *meter_of(struct limits *limits, bool is_of_tokens) {
	return is_of_tokens ? &limits->tokens : &limits->requests;
}

static void follow_kind(struct account *account, struct account *before, bool is_of_tokens) {
	for (uint32_t label = 0; label < LABELS; label++)
		meter_follow(meter_of(&account->limits[label], is_of_tokens),
		    meter_of(&before->limits[label], is_of_tokens));
}

static void follow_tenant(struct rate_table *table, const struct rate_table *before, uint32_t i) {
	const struct tenant *now = tenant_get(table->tenants, i), *then = tenant_get(before->tenants, i);
	bool are_requests_eq = now->requests_per_minute == then->requests_per_minute;
	bool are_tokens_eq = now->tokens_per_minute == then->tokens_per_minute;

	assert(!strcmp(now->name, then->name)); /* one number, one tenant */
	if (are_requests_eq && are_tokens_eq) {
		account_unref(&table->accounts[i]);
		table->accounts[i] = before->accounts[i];
		atomic_fetch_add_explicit(&table->accounts[i]->refs, 1, memory_order_relaxed);
		return;
	}
	if (are_requests_eq)
		follow_kind(table->accounts[i], before->accounts[i], false);
	if (are_tokens_eq)
		follow_kind(table->accounts[i], before->accounts[i], true);
}

void rate_table_follow(struct rate_table *table, const struct rate_table *before) {
	if (!table || !before)
		return;
	if (table->per_second == before->per_second)
		meter_follow(&table->all, &before->all);
	for (uint32_t i = 0; i < table->n && i < before->n; i++)
		if (table->accounts[i] && before->accounts[i])
			follow_tenant(table, before, i);
}

void rate_table_free(struct rate_table **table_ptr) {
	struct rate_table *table = *table_ptr;

	*table_ptr = NULL;
	if (!table)
		return;
	for (uint32_t i = 0; i < table->n; i++)
		account_unref(&table->accounts[i]);
	free(table->accounts);
	free(table);
}

static uint16_t seconds_of(uint64_t ns) {
	return (uint16_t)u64_min(u64_max((ns + SECOND_NS - 1) / SECOND_NS, 1), UINT16_MAX);
}

static bool take_second(struct rate_table *table, uint64_t now_ns, uint64_t *wait_ns_out) {
	struct meter_view view;

	if (!table->per_second || meter_take(&table->all, table->per_second, 1, now_ns * 60, &view))
		return true;
	*wait_ns_out = view.wait_ns / 60;
	return false;
}

/* The tenant's two, then that of all: who is over the own limit takes nothing from the others. */
static enum cause take_all(struct rate_table *table, uint32_t tenant, const struct rate_claim *claim,
    uint64_t now_ns, uint64_t *wait_ns_out) {
	const struct tenant *of = tenant_get(table->tenants, tenant);
	struct limits *limits = limits_of(table, tenant, claim->label);
	uint64_t rpm = limits ? of->requests_per_minute : 0, tpm = limits ? of->tokens_per_minute : 0;
	struct meter_view view;

	if (rpm && !meter_take(&limits->requests, rpm, 1, now_ns, &view)) {
		*wait_ns_out = view.wait_ns;
		return CAUSE_REQUEST_RATE;
	}
	enum cause cause = CAUSE_NONE;
	bool has_tokens = !tpm || meter_take(&limits->tokens, tpm, claim->tokens, now_ns, &view);
	if (!has_tokens) {
		*wait_ns_out = view.wait_ns;
		cause = CAUSE_TOKEN_RATE;
	} else if (!take_second(table, now_ns, wait_ns_out)) {
		cause = CAUSE_ROUTER_RATE;
	}
	if (cause && tpm && has_tokens)
		meter_settle(&limits->tokens, tpm, claim->tokens, 0, now_ns);
	if (cause && rpm)
		meter_settle(&limits->requests, rpm, 1, 0, now_ns);
	return cause;
}

enum cause rate_take(struct rate_table *table, uint32_t tenant, uint32_t label, const struct demand *demand,
    uint64_t now_ns, struct rate_claim *claim) {
	uint64_t tokens = (uint64_t)demand->prompt_tokens + demand_expected_output(demand), wait_ns = 0;

	assert(!rate_is_taken(claim) && label < LABELS);
	claim->label = (uint16_t)label;
	claim->prompt_tokens = demand->prompt_tokens;
	/* At least one, so that who is in debt waits, whatever it asks for. */
	claim->tokens = (uint32_t)u64_min(u64_max(tokens, 1), UINT32_MAX);
	enum cause cause = table ? take_all(table, tenant, claim, now_ns, &wait_ns) : CAUSE_NONE;
	claim->wait_s = cause ? seconds_of(wait_ns) : 0;
	return cause;
}

/* What nobody was asked for is given back. */
static void return_request(
    struct rate_table *table, const struct tenant *of, struct limits *limits, uint64_t now_ns) {
	if (limits && of->requests_per_minute)
		meter_settle(&limits->requests, of->requests_per_minute, 1, 0, now_ns);
	if (table->per_second)
		meter_settle(&table->all, table->per_second, 1, 0, now_ns * 60);
}

void rate_settle(struct rate_table *table, uint32_t tenant, struct rate_use use, uint64_t now_ns,
    struct rate_claim *claim) {
	uint64_t reserved = rate_is_taken(claim) ? claim->tokens : 0;

	claim->tokens = 0;
	if (!table || !reserved)
		return;
	const struct tenant *of = tenant_get(table->tenants, tenant);
	struct limits *limits = limits_of(table, tenant, claim->label);
	if (limits && of->tokens_per_minute)
		meter_settle(&limits->tokens, of->tokens_per_minute, reserved, use.tokens, now_ns);
	if (!use.is_request)
		return_request(table, of, limits, now_ns);
}

bool rate_is_limited(const struct rate_table *table, uint32_t tenant) {
	return table && table->accounts[tenant];
}

/* As Go prints durations, which is what OpenAI sends: 20ms, 8.64s, 6m0s, 1h0m0s. Rounded up. */
static void print_duration(uint64_t ns, char text[static 32]) {
	uint64_t ms = (ns + 999999) / 1000000, s = ms / 1000;
	unsigned part = (unsigned)(ms % 1000);
	int digits = part % 10 ? 3 : part % 100 ? 2 : 1;
	int n = 0;

	if (ms < 1000) {
		snprintf(text, 32, "%ums", part);
		return;
	}
	if (s >= 3600)
		n += snprintf(text, 32, "%uh", (unsigned)(s / 3600));
	if (s >= 60)
		n += snprintf(text + n, 32 - (size_t)n, "%um", (unsigned)(s / 60 % 60));
	n += snprintf(text + n, 32 - (size_t)n, "%u", (unsigned)(s % 60));
	for (int i = digits; i < 3; i++)
		part /= 10;
	if (part)
		n += snprintf(text + n, 32 - (size_t)n, ".%0*u", digits, part);
	snprintf(text + n, 32 - (size_t)n, "s");
}

static size_t put_limit(
    char *at, size_t size, const char *kind, const struct meter *meter, uint64_t limit, uint64_t now_ns) {
	struct meter_view view = meter_look(meter, limit, now_ns);
	char reset[32];

	print_duration(view.full_in_ns, reset);
	int n = snprintf(at, size,
	    "x-ratelimit-limit-%s: %llu\r\nx-ratelimit-remaining-%s: %llu\r\nx-ratelimit-reset-%s: %s\r\n",
	    kind, (unsigned long long)limit, kind, (unsigned long long)view.remaining, kind, reset);
	assert(n > 0 && (size_t)n < size);
	return (size_t)n;
}

struct slice rate_fields(const struct rate_table *table, uint32_t tenant, uint32_t label, uint64_t now_ns,
    char room[static RATE_FIELDS_BYTES]) {
	size_t n = 0;

	if (!rate_is_limited(table, tenant))
		return (struct slice){ room, 0 };
	const struct tenant *of = tenant_get(table->tenants, tenant);
	const struct limits *limits = limits_of(table, tenant, label);
	if (of->requests_per_minute)
		n = put_limit(
		    room, RATE_FIELDS_BYTES, "requests", &limits->requests, of->requests_per_minute, now_ns);
	if (of->tokens_per_minute)
		n += put_limit(room + n, RATE_FIELDS_BYTES - n, "tokens", &limits->tokens,
		    of->tokens_per_minute, now_ns);
	return (struct slice){ room, n };
}
