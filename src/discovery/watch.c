#include "discovery/watch.h"

#include <jansson.h>

#include "base/log.h"
#include "http/fetch.h"
#include "net/resolver.h"

#define TICK_MS          250
#define FIRST_RETRY_MS   1000
#define RESOLVE_MIN_MS   1000 /* between lookups, whatever fails */
#define MODELS_BYTES_MAX (4u << 20)

struct watch {
	struct list link;
	struct watcher *watcher;
	struct instance *instance;
	struct watch
	    *first; /* of the ranks of its engine: it is asked for them; of who has no rank, itself */
	struct resolver *resolver;
	struct fetch fetch;
	struct sockaddr_storage
	    addresses[RESOLVER_ADDRESSES_MAX]; /* behind those that are allowed the others */
	size_t n_resolved, n_addresses;        /* all; allowed */
	size_t address;                        /* the one that is asked */
	uint64_t resolve_at_ms, models_at_ms;
	uint64_t resolve_soonest_ms;
	uint64_t avoid_until_seen_ms; /* moves with each connect failure of the workers that counts */
	unsigned said_status; /* of an answer that was no list, last in the log; 0: none since a list came */
	bool is_declared;
	bool has_answered;     /* with a list, the last time it was asked */
	bool is_unresolved;    /* said in the log */
	bool is_silent;        /* said in the log, since a list came last */
	bool is_cut;           /* said in the log: it lists more than is kept */
	bool tries_short_path; /* /models, after /v1/models was not there */
	bool is_judged;        /* its addresses are, since a registry has named it */
	bool is_listed;        /* by the snapshot at hand */
	bool are_models_known; /* likewise */
};

static uint64_t watch_now(const struct watch *w) {
	return loop_now_ms(w->watcher->loop);
}

static void watch_log(const struct watch *w, enum log_level level, const char *event) {
	struct log_event e;
	log_begin(&e, level, event);
	line_text(&e.line, SLICE("instance"), w->instance->spec.name);
	log_end(&e);
}

/* --- models ----------------------------------------------------------------- */

/* The `data` of a model list as pairs id -> object text; free with json_decref and the two free(). */
static struct pairs watch_parse_models(json_t *data, struct pair **items_out) {
	size_t n = json_array_size(data);
	size_t room = size_min(n, FLEET_MODELS_MAX + 1); /* one too many: the fleet says so */
	struct pair *items = calloc(room + 1, sizeof(*items));
	uint32_t used = 0;
	for (size_t i = 0; i < n && used < room; i++) {
		json_t *object = json_array_get(data, i);
		const char *id = json_string_value(json_object_get(object, "id"));
		if (!id)
			continue;
		items[used].key = slice_of(id);
		items[used++].value = slice_of(json_dumps(object, JSON_COMPACT));
	}
	*items_out = items;
	return (struct pairs){ items, used };
}

/* What it serves is known. */
static void watch_has_models(struct watch *w) {
	if (!w->has_answered)
		watch_log(w, LOG_INFO, "the models of an instance are known");
	if (!w->has_answered)
		w->models_at_ms = watch_now(w) + w->watcher->every.models_ms;
	w->has_answered = true;
	w->is_silent = false;
	w->said_status = 0;
}

static bool watch_learn_models(struct watch *w, struct slice body) {
	json_t *root = json_loadb(body.p, body.n, 0, NULL);
	json_t *data = json_is_array(root) ? root : json_object_get(root, "data");
	bool good = json_is_array(data);
	if (good) {
		struct pair *items;
		struct pairs models = watch_parse_models(data, &items);
		bool is_cut = fleet_set_models(w->watcher->fleet, w->instance, models) != 0;
		if (is_cut && !w->is_cut)
			watch_log(w, LOG_WARN, "the engine lists models that cannot be kept");
		w->is_cut = is_cut;
		for (uint32_t i = 0; i < models.n; i++)
			free((char *)items[i].value.p);
		free(items);
		watch_has_models(w);
		loop_wake(w->watcher->loop, &w->watcher->change);
	}
	json_decref(root);
	return good;
}

static void watch_ask_models(struct watch *w) {
	if (!w->n_addresses)
		return;
	w->models_at_ms = watch_now(w) + (w->has_answered ? w->watcher->every.models_ms : FIRST_RETRY_MS);
	const struct fetch_request request = {
		.authority = w->instance->spec.authority,
		.bearer = instance_key(&w->instance->spec, w->watcher->every.api_key),
		.tls_host = instance_tls_host(w->instance),
		.base = w->instance->spec.base,
		.path = instance_target(
		    &w->instance->spec, w->tries_short_path ? SLICE("/models") : SLICE("/v1/models")),
	};
	fetch_start(&w->fetch, w->watcher->loop, &w->addresses[w->address % w->n_addresses], &request);
}

/* Once that it does not answer, and once for each status that it answers with instead of a list. */
static bool watch_is_news(const struct watch *w, unsigned status) {
	return w->has_answered || (status ? status != w->said_status : !w->is_silent);
}

static void watch_not_listed(struct watch *w, int outcome, unsigned status) {
	struct log_event e;
	if (watch_is_news(w, status)) {
		log_begin(&e, LOG_WARN, "the engine does not list its models");
		line_text(&e.line, SLICE("instance"), w->instance->spec.name);
		if (status)
			line_uint(&e.line, SLICE("status"), status);
		if (outcome)
			line_text(&e.line, SLICE("reason"), slice_of(fetch_outcome_text(outcome)));
		else if (status == 200)
			line_text(&e.line, SLICE("reason"), SLICE("not a model list"));
		if (outcome == FETCH_E_TLS)
			line_text(&e.line, SLICE("tls"), slice_of(w->fetch.failure));
		log_end(&e);
	}
	if (status)
		w->said_status = status;
	else
		w->is_silent = true;
	w->has_answered = false;
}

/* Before its time, but never more than once a second. */
static void watch_resolve_soon(struct watch *w) {
	w->resolve_at_ms = u64_min(w->resolve_at_ms, w->resolve_soonest_ms);
}

/* A provider may keep its list to itself, or have none: it is there, for whatever model is asked of it. One
 * that has listed models serves those. */
static void watch_accept_reticence(struct watch *w, unsigned status) {
	if (!w->instance->spec.is_provider || !(status == 401 || status == 403 || status == 404))
		return;
	w->models_at_ms = watch_now(w) + w->watcher->every.models_ms;
	if (w->are_models_known)
		return;
	int outcome = fleet_set_models(w->watcher->fleet, w->instance, (struct pairs){ NULL, 0 });
	assert(!outcome);
	loop_wake(w->watcher->loop, &w->watcher->change);
}

static void watch_on_models(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct watch *w = container_of(f, struct watch, fetch);
	if (status == 200 && watch_learn_models(w, body))
		return;
	/* After any other failure it begins again with the long one. */
	w->tries_short_path = !w->tries_short_path && (status == 404 || status == 405);
	if (w->tries_short_path) {
		watch_ask_models(w);
		return;
	}
	if (outcome)
		w->address++; /* nobody there: the next address next time */
	if (outcome == FETCH_E_CONNECT)
		watch_resolve_soon(w);
	watch_not_listed(w, outcome, status);
	watch_accept_reticence(w, outcome ? 0 : status);
}

/* --- addresses ---------------------------------------------------------------- */

static bool is_among(
    const struct sockaddr_storage *address, const struct sockaddr_storage *addresses, size_t n) {
	for (size_t i = 0; i < n; i++)
		if (memcmp(address, &addresses[i], sizeof(*address)) == 0)
			return true;
	return false;
}

/* Resolvers turn the order round each time: that is no news. */
static bool watch_has_addresses(const struct watch *w, const struct sockaddr_storage *addresses, size_t n) {
	size_t known = 0;
	for (size_t i = 0; i < n; i++)
		known += is_among(&addresses[i], w->addresses, w->n_addresses);
	return known == n && n == w->n_addresses;
}

static bool watch_allows(const struct watch *w, const struct sockaddr_storage *address) {
	const struct watcher *watcher = w->watcher;
	return !w->is_judged || address_range_allow_address(watcher->ranges, watcher->every.allow.n, address);
}

static void watch_deny(struct watch *w, const struct sockaddr_storage *address) {
	char text[ADDRESS_TEXT_BYTES];
	struct log_event e;

	/* It was among the denied ones of the last answer, too. */
	if (is_among(address, w->addresses + w->n_addresses, w->n_resolved - w->n_addresses))
		return;
	w->watcher->n_denied++;
	address_print(address, text);
	log_begin(&e, LOG_WARN, "an engine that others have named is at an address that is not allowed");
	line_text(&e.line, SLICE("instance"), w->instance->spec.name);
	line_text(&e.line, SLICE("address"), slice_of(text));
	log_end(&e);
}

/* Those that are allowed first, in their order; how many they are. */
static size_t watch_judge(struct watch *w, const struct sockaddr_storage *addresses, size_t n,
    struct sockaddr_storage sorted[static RESOLVER_ADDRESSES_MAX]) {
	size_t n_allowed = 0, n_denied = 0;

	assert(n <= RESOLVER_ADDRESSES_MAX);
	for (size_t i = 0; i < n; i++)
		if (watch_allows(w, &addresses[i]))
			sorted[n_allowed++] = addresses[i];
	for (size_t i = 0; i < n; i++)
		if (!watch_allows(w, &addresses[i])) {
			watch_deny(w, &addresses[i]);
			sorted[n_allowed + n_denied++] = addresses[i];
		}
	return n_allowed;
}

static void watch_set_addresses(struct watch *w, const struct sockaddr_storage *addresses, size_t n) {
	struct sockaddr_storage sorted[RESOLVER_ADDRESSES_MAX];
	size_t n_allowed = watch_judge(w, addresses, n, sorted);
	bool is_news = !watch_has_addresses(w, sorted, n_allowed);

	size_t n_same = is_news ? 0 : n_allowed; /* in the order that w->address goes by */
	memcpy(w->addresses + n_same, sorted + n_same, (n - n_same) * sizeof(*addresses));
	w->n_resolved = n;
	w->n_addresses = n_allowed;
	if (!is_news)
		return;
	w->address = 0;
	fleet_set_addresses(w->watcher->fleet, w->instance, sorted, n_allowed);
	if (w->is_declared && n_allowed)
		watch_has_models(w);
	w->models_at_ms = 0;
	loop_wake(w->watcher->loop, &w->watcher->change);
}

static void watch_on_addresses(struct resolver *r, const struct sockaddr_storage *addresses, size_t n) {
	struct watch *w = resolver_context(r);
	if (n == 0) { /* the last good answer stays */
		if (!w->is_unresolved)
			watch_log(w, LOG_WARN, "the engine's name does not resolve");
		w->is_unresolved = true;
		return;
	}
	w->is_unresolved = false;
	w->resolve_at_ms = watch_now(w) + w->watcher->every.resolve_ms;
	watch_set_addresses(w, addresses, n);
}

static void watch_resolve(struct watch *w) {
	uint64_t now = watch_now(w);
	w->resolve_soonest_ms = now + RESOLVE_MIN_MS;
	w->resolve_at_ms = now + (w->n_resolved ? w->watcher->every.resolve_ms : FIRST_RETRY_MS);
	resolver_start(w->resolver, w->watcher->loop, w->instance->spec.host.p, w->instance->spec.port);
}

/* --- the table ------------------------------------------------------------------ */

static struct watch *watch_new(struct watcher *watcher, const struct snapshot_row *row) {
	struct watch *w = calloc(1, sizeof(*w));
	w->watcher = watcher;
	w->instance = instance_ref(row->instance);
	w->is_judged = fleet_source_is_foreign(row->source);
	w->resolver = resolver_new(watch_on_addresses, w);
	fetch_init(&w->fetch, watcher->every.models_timeout_ms, MODELS_BYTES_MAX, watch_on_models);
	list_init(&w->link);
	list_push(&watcher->watches, &w->link);
	assert(!watcher->by_slot[row->instance->slot]);
	watcher->by_slot[row->instance->slot] = w;
	return w;
}

static void watch_free(struct watch *w) {
	fetch_cancel(&w->fetch);
	resolver_free(&w->resolver);
	list_remove(&w->link);
	w->watcher->by_slot[w->instance->slot] = NULL;
	instance_unref(&w->instance);
	free(w);
}

static void watch_tick(struct watch *w) {
	uint64_t now = watch_now(w);
	uint64_t avoid_until_ms = instance_refused_until_ms(w->instance);
	if (avoid_until_ms && avoid_until_ms != w->avoid_until_seen_ms)
		watch_resolve_soon(w->first);
	w->avoid_until_seen_ms = avoid_until_ms;
	if (w->first != w)
		return;
	if (now >= w->resolve_at_ms)
		watch_resolve(w);
	if (!w->is_declared && now >= w->models_at_ms && !fetch_is_busy(&w->fetch))
		watch_ask_models(w);
}

/* Behind all that this turn has brought: instances are many, and a snapshot lists them all. */
static void watcher_on_change(struct job *job) {
	struct watcher *w = container_of(job, struct watcher, change);
	w->on_change(w);
}

static void watcher_on_tick(struct timer *t) {
	struct watcher *w = container_of(t, struct watcher, tick);
	loop_timer(w->loop, &w->tick, TICK_MS);
	list_each_safe (it, &w->watches)
		watch_tick(container_of(it, struct watch, link));
}

/* The texts may be gone before we are. */
static void watcher_set_options(struct watcher *w, const struct watch_intervals *every) {
	w->every = *every;
	w->every.allow.items = NULL;
	free(w->ranges);
	w->ranges = every->allow.n ? calloc(every->allow.n, sizeof(*w->ranges)) : NULL;
	for (size_t i = 0; i < every->allow.n; i++) {
		bool is_range = address_range_parse(slice_of(every->allow.items[i]), &w->ranges[i]);

		assert(is_range);
	}
}

void watcher_init(struct watcher *w, struct loop *loop, struct fleet *fleet,
    const struct watch_intervals *every, void (*on_change)(struct watcher *)) {
	*w = (struct watcher){ .loop = loop, .fleet = fleet, .on_change = on_change };
	watcher_set_options(w, every);
	list_init(&w->watches);
	timer_init(&w->tick, watcher_on_tick);
	job_init(&w->change, watcher_on_change);
	loop_timer(loop, &w->tick, 0);
}

void watcher_retune(struct watcher *w, const struct watch_intervals *every) {
	uint64_t now_ms = loop_now_ms(w->loop);

	watcher_set_options(w, every);
	list_each (it, &w->watches) {
		struct watch *watch = container_of(it, struct watch, link);
		struct sockaddr_storage addresses[RESOLVER_ADDRESSES_MAX];

		memcpy(addresses, watch->addresses, watch->n_resolved * sizeof(*addresses));
		watch_set_addresses(watch, addresses, watch->n_resolved);
		watch->fetch.timeout_ms = every->models_timeout_ms;
		watch->models_at_ms = u64_min(watch->models_at_ms, now_ms + every->models_ms);
		watch->resolve_at_ms = u64_min(watch->resolve_at_ms, now_ms + every->resolve_ms);
	}
}

void watcher_deinit(struct watcher *w) {
	timer_stop(&w->tick);
	job_cancel(&w->change);
	list_each_safe (it, &w->watches)
		watch_free(container_of(it, struct watch, link));
	free(w->ranges);
	w->ranges = NULL;
}

void watcher_sync(struct watcher *w, const struct snapshot *snapshot) {
	list_each (it, &w->watches)
		container_of(it, struct watch, link)->is_listed = false;
	for (uint32_t i = 0; i < snapshot->n_rows; i++) {
		struct watch *watch = w->by_slot[snapshot->rows[i].instance->slot];
		/* A slot is taken again only when nobody holds its last instance, and its watch does. */
		assert(!watch || watch->instance == snapshot->rows[i].instance);
		if (!watch) { /* without waiting for the next tick: it may be needed at once */
			watch = watch_new(w, &snapshot->rows[i]);
			timer_stop(&w->tick);
			loop_timer(w->loop, &w->tick, 0);
		}
		watch->is_listed = true;
		watch->first = w->by_slot[snapshot->rows[snapshot->rows[i].first_rank].instance->slot];
		watch->is_declared = snapshot->rows[i].are_models_declared;
		watch->are_models_known = snapshot->rows[i].are_models_known;
	}
	list_each_safe (it, &w->watches) {
		struct watch *watch = container_of(it, struct watch, link);
		if (!watch->is_listed)
			watch_free(watch);
	}
}
