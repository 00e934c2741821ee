#include "unit/discovery/far_engine.h"
#include "unit/discovery/kept_log.h"

#include <arpa/inet.h>

#include "base/log.h"
#include "discovery/watch.h"
#include "net/resolver.h"

enum { MODELS_MS = 10000, TIMEOUT_MS = 5000, RESOLVE_MS = 30000, LIST_BYTES_MAX = 4 << 20 };

#define LIST(text) SLICE("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"data\":[" text "]}")
#define NOT_FOUND  SLICE("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

/* --- names: what the one name of these tests stands for -------------------------------- */

static struct {
	struct sockaddr_storage addresses[RESOLVER_ADDRESSES_MAX];
	size_t n;
	unsigned n_lookups;
} names;

struct resolver *resolver_new(resolver_fn done, void *context) {
	struct resolver *r = calloc(1, sizeof(*r));
	r->on_done = done;
	r->request.data = context;
	return r;
}

void resolver_free(struct resolver **r) {
	free(*r);
	*r = NULL;
}

void resolver_start(struct resolver *r, struct loop *loop, const char *host, uint16_t port) {
	assert_string_equal(host, "engine");
	names.n_lookups++;
	r->on_done(r, names.addresses, names.n);
}

static void name_is(const struct far_engine *const *engines, size_t n) {
	for (size_t i = 0; i < n; i++)
		names.addresses[i] = engines[i]->address;
	names.n = n;
}

/* --- the scene --------------------------------------------------------------------------- */

/* A fleet of one and its watcher. */
struct scene {
	struct rig rig;
	struct far_engine engine;
	struct fleet *fleet;
	struct snapshot *snapshot;
	struct watcher watcher;
	unsigned n_changes;
};

static void on_change(struct watcher *w) {
	struct scene *s = container_of(w, struct scene, watcher);
	struct snapshot *next = fleet_build(s->fleet);
	s->n_changes++;
	if (!next)
		return;
	snapshot_unref(&s->snapshot);
	s->snapshot = next;
}

/* Those that allow addresses of these ranges alone; without any the default ones. */
static struct watch_intervals every_of(const char *const *ranges, size_t n) {
	return (struct watch_intervals){ .models_ms = MODELS_MS,
		.models_timeout_ms = TIMEOUT_MS,
		.resolve_ms = RESOLVE_MS,
		.allow = { ranges, n } };
}

/* declared: its one model, or NULL. */
static struct scene *scene_open_of(enum fleet_source source, const char *declared, const char *range) {
	const struct watch_intervals every = every_of(&range, range != NULL);
	struct scene *s = calloc(1, sizeof(*s));
	struct pair model = { .key = declared ? slice_of(declared) : (struct slice){ NULL, 0 } };
	struct fleet_spec spec = { .instance = { .name = SLICE("one"),
				       .url = SLICE("http://engine:8000"),
				       .authority = SLICE("engine:8000"),
				       .host = SLICE("engine"),
				       .port = 8000 },
		.weight = 1,
		.models = { &model, declared != NULL } };
	far_clock_start();
	rig_open(&s->rig);
	far_open(&s->engine);
	name_is((const struct far_engine *const[]){ &s->engine }, 1);
	names.n_lookups = 0;
	log_bytes = 0;
	log_text[0] = '\0';
	s->fleet = fleet_new();
	assert_int_equal(fleet_upsert(s->fleet, source, &spec), 0);
	s->snapshot = fleet_build(s->fleet);
	watcher_init(&s->watcher, &s->rig.loop, s->fleet, &every, on_change);
	watcher_sync(&s->watcher, s->snapshot);
	return s;
}

static struct scene *scene_open(const char *declared) {
	return scene_open_of(SOURCE_STATIC, declared, NULL);
}

static void scene_close(struct scene *s) {
	watcher_deinit(&s->watcher);
	rig_close(&s->rig);
	far_close(&s->engine);
	snapshot_unref(&s->snapshot);
	fleet_free(&s->fleet);
	clock_set_source(NULL);
	free(s);
}

static void answer(struct scene *s, const char *path, struct slice text) {
	far_answer(&s->rig, &s->engine, path, text);
}

static const struct snapshot_row *row(const struct scene *s) {
	assert_int_equal(s->snapshot->n_rows, 1);
	return &s->snapshot->rows[0];
}

/* Known well enough to get requests. */
static bool is_ready(const struct scene *s) {
	return snapshot_is_routable(s->snapshot, 0);
}

/* --- models -------------------------------------------------------------------------------- */

static void an_engine_is_asked_again_and_again(void **state) {
	struct scene *s = scene_open(NULL);
	answer(s, "/v1/models", LIST("{\"id\":\"a\",\"owned_by\":\"me\"},{\"no\":\"id\"},{\"id\":\"b\"}"));
	assert_true(is_ready(s));
	assert_int_equal(row(s)->models.n, 2);
	assert_true(slice_eq(
	    snapshot_model(s->snapshot, SLICE("a"))->object, SLICE("{\"id\":\"a\",\"owned_by\":\"me\"}")));
	assert_int_equal(said("the models of an instance are known"), 1);
	far_pass(&s->rig, MODELS_MS - 1000);
	assert_int_equal(far_accept(&s->engine), -1);

	unsigned n_changes = s->n_changes;
	answer(s, "/v1/models", SLICE("HTTP/1.1 200 OK\r\n\r\n[{\"id\":\"c\"}]")); /* a bare list will do */
	assert_int_equal(s->n_changes, n_changes + 1);
	assert_non_null(snapshot_model(s->snapshot, SLICE("c")));
	assert_null(snapshot_model(s->snapshot, SLICE("a")));
	assert_int_equal(said("\n"), 1);
	scene_close(s);
}

static void the_short_path_is_the_second_choice(void **state) {
	static const char *const rows[] = { "404 Not Found", "405 Method Not Allowed" };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open(NULL);
		char text[128];
		snprintf(text, sizeof(text), "HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n", rows[i]);
		answer(s, "/v1/models", slice_of(text));
		unsigned n_lookups = names.n_lookups;
		answer(s, "/models", LIST("{\"id\":\"a\"}"));
		assert_true(is_ready(s));
		assert_int_equal(names.n_lookups, n_lookups);
		answer(s, "/models", LIST("{\"id\":\"a\"}"));
		assert_int_equal(said("does not list"), 0);
		scene_close(s);
	}
}

static void an_engine_that_has_no_list_is_asked_on(void **state) {
	struct scene *s = scene_open(NULL);
	for (unsigned i = 0; i < 3; i++) {
		answer(s, "/v1/models", NOT_FOUND);
		answer(s, "/models", NOT_FOUND);
	}
	assert_false(row(s)->are_models_known);
	assert_int_equal(said("{\"event\":\"the engine does not list its models\",\"instance\":\"one\","
			      "\"status\":404}"),
	    1);
	answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
	assert_true(is_ready(s));
	answer(s, "/v1/models", NOT_FOUND);
	answer(s, "/models", NOT_FOUND);
	assert_int_equal(said("\"status\":404"), 2); /* it was well in between */
	scene_close(s);
}

/* What the short path says other than "not there" does not make it the one that is asked. */
static void the_long_path_is_the_first_choice_again(void **state) {
	static const char *const rows[] = { "HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP/1.1 500 Oh\r\n\r\n",
		"garbage\r\n\r\n" };
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open(NULL);
		answer(s, "/v1/models", NOT_FOUND);
		answer(s, "/models", slice_of(rows[i]));
		answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
		assert_true(is_ready(s));
		scene_close(s);
	}
}

static void what_is_no_list_is_said_so(void **state) {
	static const char *const bodies[] = { "", "{\"data\":[", "{}", "{\"data\":{}}", "7", "\"data\"",
		"{\"data\":[]}x", "{\"data\":[{\"id\":\"\xff\"}]}" };
	for (size_t i = 0; i < n_elems(bodies); i++) {
		struct scene *s = scene_open(NULL);
		char text[128];
		snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n\r\n%s", bodies[i]);
		answer(s, "/v1/models", slice_of(text));
		answer(s, "/v1/models", slice_of(text));
		assert_false(is_ready(s));
		assert_int_equal(said("\"status\":200,\"reason\":\"not a model list\"}"), 1);
		answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
		assert_true(is_ready(s));
		scene_close(s);
	}
}

/* While it starts nobody is there; then it wants a key. Both are news, once. */
static void each_new_reason_is_said_once(void **state) {
	struct scene *s = scene_open(NULL);
	static const char *const rows[] = { "", "garbage\r\n\r\n", "HTTP/1.1 401 Unauthorized\r\n\r\n",
		"HTTP/1.1 401 Unauthorized\r\n\r\n", "", "HTTP/1.1 500 Oh\r\n\r\n" };
	for (size_t i = 0; i < n_elems(rows); i++)
		answer(s, "/v1/models", slice_of(rows[i]));
	assert_int_equal(said("does not list"), 3);
	assert_int_equal(said("\"reason\":\"connection ended\"}"), 1);
	assert_int_equal(said("\"status\":401}"), 1);
	assert_int_equal(said("\"status\":500}"), 1);
	scene_close(s);
}

static void a_list_has_a_limit(void **state) {
	static const char head[] = "HTTP/1.1 200 OK\r\n\r\n", list[] = "{\"data\":[{\"id\":\"m\"}]}";
	char *text = malloc(sizeof(head) + LIST_BYTES_MAX + 1);
	memset(text, ' ', sizeof(head) + LIST_BYTES_MAX + 1);
	memcpy(text, head, sizeof(head) - 1);
	memcpy(text + sizeof(head) - 1, list, sizeof(list) - 1);
	for (unsigned over = 0; over < 2; over++) {
		struct scene *s = scene_open(NULL);
		answer(s, "/v1/models", (struct slice){ text, sizeof(head) - 1 + LIST_BYTES_MAX + over });
		assert_int_equal(is_ready(s), !over);
		assert_int_equal(said("\"reason\":\"too large\"}"), over);
		scene_close(s);
	}
	free(text);
}

static void more_models_than_are_kept_are_cut(void **state) {
	for (unsigned over = 0; over < 2; over++) {
		struct scene *s = scene_open(NULL);
		char text[65536], name[16];
		size_t n = (size_t)snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n\r\n{\"data\":[{}");
		for (unsigned i = 0; i < FLEET_MODELS_MAX + 76 * over; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, ",{\"id\":\"m%u\"}", i);
		n += (size_t)snprintf(text + n, sizeof(text) - n, "]}");
		answer(s, "/v1/models", (struct slice){ text, n });
		answer(s, "/v1/models", (struct slice){ text, n });
		assert_true(is_ready(s));
		assert_int_equal(s->snapshot->n_models, FLEET_MODELS_MAX);
		snprintf(name, sizeof(name), "m%u", FLEET_MODELS_MAX - 1);
		assert_non_null(snapshot_model(s->snapshot, slice_of(name)));
		assert_int_equal(said("lists models that cannot be kept"), over);
		scene_close(s);
	}
}

static void a_declared_engine_gets_no_request(void **state) {
	struct scene *s = scene_open("m");
	far_pass(&s->rig, 3 * RESOLVE_MS);
	assert_int_equal(far_accept(&s->engine), -1);
	assert_true(is_ready(s));
	assert_in_range(names.n_lookups, 3, 4);
	assert_int_equal(said("the models of an instance are known"), 1);
	scene_close(s);
}

/* All that one turn of the loop brings: a snapshot each would be n builds of n rows. */
static void many_are_one_change(void **state) {
	enum { N = 300 };
	struct scene *s = scene_open("m");
	const struct pair model = { .key = SLICE("m") };
	for (unsigned i = 0; i < N; i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%u", i);
		struct fleet_spec spec = {
			.instance = row(s)->instance->spec, .weight = 1, .models = { &model, 1 }
		};
		spec.instance.name = slice_of(name);
		assert_int_equal(fleet_upsert(s->fleet, SOURCE_STATIC, &spec), 0);
	}
	snapshot_unref(&s->snapshot);
	s->snapshot = fleet_build(s->fleet);
	watcher_sync(&s->watcher, s->snapshot);
	far_until(&s->rig, s->n_changes);
	assert_int_equal(names.n_lookups, N + 1);
	assert_int_equal(s->n_changes, 1);
	for (uint32_t r = 0; r < N + 1; r++) {
		assert_int_equal(s->snapshot->rows[r].n_addresses, 1);
		assert_true(snapshot_is_routable(s->snapshot, r));
	}
	far_pass(&s->rig, 1000);
	assert_int_equal(s->n_changes, 1);
	scene_close(s);
}

static const struct instance *instance_named(const struct scene *s, const char *name) {
	for (uint32_t i = 0; i < s->snapshot->n_rows; i++)
		if (slice_eq(s->snapshot->rows[i].instance->spec.name, slice_of(name)))
			return s->snapshot->rows[i].instance;
	fail_msg("%s is not there", name);
	return NULL;
}

static void add(struct scene *s, const char *name) {
	const struct pair model = { .key = SLICE("m") };
	struct fleet_spec spec = {
		.instance = instance_named(s, "one")->spec, .weight = 1, .models = { &model, 1 }
	};
	spec.instance.name = slice_of(name);
	assert_int_equal(fleet_upsert(s->fleet, SOURCE_STATIC, &spec), 0);
}

/* What the next snapshot lists is watched; what it does not is let go. */
static void watch_next(struct scene *s) {
	on_change(&s->watcher);
	watcher_sync(&s->watcher, s->snapshot);
}

/* Instances that stay keep their watch, whoever comes and goes; a slot that is taken again has a new one. */
static void each_slot_has_the_watch_of_its_instance(void **state) {
	enum { N = 5 };
	static const char *const names_of[N] = { "one", "a", "b", "c", "d" };
	struct scene *s = scene_open("m");
	const struct watch *watches[N];
	unsigned slots[N];
	for (unsigned i = 1; i < N; i++)
		add(s, names_of[i]);
	watch_next(s);
	for (unsigned i = 0; i < N; i++) {
		slots[i] = instance_named(s, names_of[i])->slot;
		watches[i] = s->watcher.by_slot[slots[i]];
		assert_non_null(watches[i]);
		for (unsigned k = 0; k < i; k++)
			assert_ptr_not_equal(watches[i], watches[k]);
	}
	far_until(&s->rig, names.n_lookups == N);
	assert_int_equal(fleet_remove(s->fleet, SOURCE_STATIC, SLICE("b")), 0);
	watch_next(s);
	for (unsigned i = 0; i < N; i++)
		assert_ptr_equal(s->watcher.by_slot[slots[i]], i == 2 ? NULL : watches[i]);
	add(s, "e");
	watch_next(s);
	assert_int_equal(instance_named(s, "e")->slot, slots[2]); /* nobody holds the last one any more */
	assert_non_null(s->watcher.by_slot[slots[2]]);
	far_until(&s->rig, names.n_lookups > N); /* at once, and only that one */
	rig_spin(&s->rig, 5);
	assert_int_equal(names.n_lookups, N + 1);
	for (unsigned i = 0; i < INSTANCE_SLOTS_MAX; i++) {
		bool is_known = false;
		for (unsigned k = 0; k < N; k++)
			is_known |= slots[k] == i;
		assert_int_equal(s->watcher.by_slot[i] != NULL, is_known);
	}
	scene_close(s);
}

static void what_somebody_drained_stays_so(void **state) {
	struct scene *s = scene_open(NULL);
	fleet_set_state(s->fleet, row(s)->instance, INSTANCE_DRAINING);
	answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
	assert_int_equal(row(s)->models.n, 1);
	assert_int_equal(row(s)->state, INSTANCE_DRAINING);
	scene_close(s);
}

static void an_engine_that_leaves_is_let_go(void **state) {
	struct scene *s = scene_open(NULL);
	struct heard heard;
	int fd = far_hear(&s->rig, &s->engine, &heard);
	heard_free(&heard);
	assert_int_equal(fleet_remove(s->fleet, SOURCE_STATIC, SLICE("one")), 0);
	on_change(&s->watcher);
	watcher_sync(&s->watcher, s->snapshot);
	far_await_end(&s->rig, fd);
	far_pass(&s->rig, 2 * RESOLVE_MS);
	assert_int_equal(names.n_lookups, 1);
	scene_close(s);
}

/* --- addresses ------------------------------------------------------------------------------- */

static void a_name_without_an_address_is_looked_up_on(void **state) {
	struct scene *s = scene_open(NULL);
	names.n = 0;
	far_pass(&s->rig, 10000);
	assert_in_range(names.n_lookups, 8, 11);
	assert_int_equal(row(s)->n_addresses, 0);
	assert_int_equal(said("the engine's name does not resolve"), 1);
	names.n = 1;
	answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
	assert_true(is_ready(s));
	scene_close(s);
}

static void the_last_good_address_stays(void **state) {
	struct scene *s = scene_open(NULL);
	answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
	names.n = 0;
	far_pass(&s->rig, MODELS_MS - 1000);
	for (unsigned i = 0; i < 4; i++)
		answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
	assert_int_equal(row(s)->n_addresses, 1);
	assert_int_equal(said("does not resolve"), 1);
	scene_close(s);
}

/* An engine that moved before its first answer, or after it, is found without waiting for the next round. */
static void a_failed_connect_looks_the_name_up(void **state) {
	for (unsigned was_there = 0; was_there < 2; was_there++) {
		struct scene *s = scene_open(NULL);
		struct far_engine moved;
		far_open(&moved);
		if (was_there)
			answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
		far_close(&s->engine);
		far_until(&s->rig, said("\"reason\":\"connect failed\"}"));
		uint64_t failed_at_ns = far_now_ns;
		name_is((const struct far_engine *const[]){ &moved }, 1);
		far_answer(&s->rig, &moved, "/v1/models", LIST("{\"id\":\"b\"}"));
		assert_in_range(far_now_ns - failed_at_ns, 0, 3000000000);
		assert_true(is_ready(s));
		assert_memory_equal(&row(s)->addresses[0], &moved.address, sizeof(moved.address));
		unsigned n_lookups = names.n_lookups;
		far_pass(&s->rig, MODELS_MS - 1000); /* and all is as it was */
		assert_int_equal(names.n_lookups, n_lookups);
		s->engine = moved;
		scene_close(s);
	}
}

static void a_dead_engine_costs_a_lookup_a_second_at_most(void **state) {
	struct scene *s = scene_open(NULL);
	far_close(&s->engine);
	far_pass(&s->rig, 20000);
	assert_in_range(names.n_lookups, 10, 21);
	for (unsigned i = 0; i < 20; i++) {
		atomic_fetch_add(&row(s)->instance->avoid_until_ms, 1); /* the workers see it, too */
		far_pass(&s->rig, 500);
	}
	assert_in_range(names.n_lookups, 15, 31);
	far_open(&s->engine);
	scene_close(s);
}

static void a_failure_of_the_workers_looks_the_name_up(void **state) {
	struct scene *s = scene_open("m");
	far_pass(&s->rig, 2000);
	assert_int_equal(names.n_lookups, 1);
	instance_avoid(row(s)->instance, loop_now_ms(&s->rig.loop));
	far_pass(&s->rig, 2000);
	assert_int_equal(names.n_lookups, 2);
	far_pass(&s->rig, RESOLVE_MS - 4000);
	assert_int_equal(names.n_lookups, 2);
	scene_close(s);
}

/* --- addresses that are not allowed ---------------------------------------------------------- */

static struct sockaddr_storage address_of(const char *host) {
	struct sockaddr_storage address = { .ss_family = strchr(host, ':') ? AF_INET6 : AF_INET };
	struct sockaddr_in *in = (struct sockaddr_in *)&address;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
	bool is_ipv4 = address.ss_family == AF_INET;
	void *bytes = is_ipv4 ? (void *)&in->sin_addr : (void *)&in6->sin6_addr;
	assert_int_equal(inet_pton(address.ss_family, host, bytes), 1);
	*(is_ipv4 ? &in->sin_port : &in6->sin6_port) = htons(8000);
	return address;
}

static void name_is_at(const char *const *hosts, size_t n) {
	for (size_t i = 0; i < n; i++)
		names.addresses[i] = address_of(hosts[i]);
	names.n = n;
}

static void retune(struct scene *s, const char *const *ranges, size_t n) {
	const struct watch_intervals every = every_of(ranges, n);
	watcher_retune(&s->watcher, &every);
}

/* Nobody is asked, no snapshot has the address. */
static void a_name_of_the_registry_leads_nowhere_else(void **state) {
	struct scene *s = scene_open_of(SOURCE_REGISTRY, NULL, "10.0.0.0/8");
	far_pass(&s->rig, 3 * RESOLVE_MS);
	assert_in_range(names.n_lookups, 3, 4);
	assert_int_equal(far_accept(&s->engine), -1);
	assert_int_equal(row(s)->n_addresses, 0);
	assert_int_equal(
	    said("is at an address that is not allowed\",\"instance\":\"one\",\"address\":\"127.0.0.1\"}"),
	    1);
	assert_int_equal(s->watcher.n_denied, 1);
	scene_close(s);
}

static void whom_the_configuration_names_may_be_anywhere(void **state) {
	struct scene *s = scene_open_of(SOURCE_STATIC, NULL, "10.0.0.0/8");
	answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
	assert_true(is_ready(s));
	assert_int_equal(said("not allowed"), 0);
	scene_close(s);
}

static void by_default_metadata_alone_is_out_of_reach(void **state) {
	static const char *const denied[] = { "169.254.169.254", "fe80::1", "fd00:ec2::254", "224.0.0.1",
		"::ffff:169.254.169.254" };
	for (size_t i = 0; i < n_elems(denied); i++) {
		struct scene *s = scene_open_of(SOURCE_REGISTRY, "m", NULL);
		far_until(&s->rig, is_ready(s)); /* loopback */
		name_is_at(&denied[i], 1);
		far_pass(&s->rig, RESOLVE_MS + 1000);
		assert_int_equal(row(s)->n_addresses, 0); /* its good one is not there any more */
		assert_false(is_ready(s));
		assert_int_equal(said("not allowed"), 1);
		scene_close(s);
	}
}

static void of_several_addresses_those_that_are_allowed_count(void **state) {
	static const char *const turns[][3] = { { "10.0.0.1", "127.0.0.1", "10.0.0.2" },
		{ "127.0.0.1", "10.0.0.2", "10.0.0.1" }, { "127.0.0.2", "10.0.0.1", "10.0.0.2" } };
	static const unsigned n_said[] = { 1, 1, 2 }; /* each new one, once */
	struct scene *s = scene_open_of(SOURCE_REGISTRY, "m", "10.0.0.0/8");
	for (size_t i = 0; i < n_elems(turns); i++) {
		name_is_at(turns[i], 3);
		far_pass(&s->rig, RESOLVE_MS + 1000);
		assert_int_equal(row(s)->n_addresses, 2);
		struct sockaddr_storage first = address_of("10.0.0.1"), second = address_of("10.0.0.2");
		assert_memory_equal(&row(s)->addresses[0], &first, sizeof(first));
		assert_memory_equal(&row(s)->addresses[1], &second, sizeof(second));
		assert_int_equal(said("not allowed"), n_said[i]);
	}
	scene_close(s);
}

/* Without a lookup: what is known is judged anew. The texts of the ranges need not stay. */
static void other_ranges_count_at_once(void **state) {
	struct scene *s = scene_open_of(SOURCE_REGISTRY, "m", "10.0.0.0/8");
	char text[] = "127.0.0.0/8";
	const char *const loopback = text, *const far = "10.0.0.0/8";
	far_pass(&s->rig, 1000);
	assert_false(is_ready(s));
	retune(s, &loopback, 1);
	memset(text, 'x', sizeof(text) - 1);
	rig_spin(&s->rig, 3);
	assert_true(is_ready(s));
	retune(s, &far, 1);
	rig_spin(&s->rig, 3);
	assert_false(is_ready(s));
	assert_int_equal(row(s)->n_addresses, 0);
	retune(s, NULL, 0);
	rig_spin(&s->rig, 3);
	assert_true(is_ready(s));
	assert_int_equal(names.n_lookups, 1);
	assert_int_equal(said("not allowed"), 2);
	scene_close(s);
}

/* Also late in an outage, when the wait does not grow any more. */
static void each_failure_of_a_long_outage_looks_the_name_up(void **state) {
	struct scene *s = scene_open("m");
	far_pass(&s->rig, 1000);
	struct instance *inst = row(s)->instance;
	uint64_t at_ms = loop_now_ms(&s->rig.loop);
	for (unsigned i = 0; i < 10; i++, at_ms += INSTANCE_AVOID_MAX_MS)
		instance_avoid(inst, at_ms);
	for (unsigned i = 0; i < 5; i++, at_ms += INSTANCE_AVOID_MAX_MS) {
		far_pass(&s->rig, 2000);
		unsigned n_lookups = names.n_lookups;
		far_pass(&s->rig, 1000);
		assert_int_equal(names.n_lookups, n_lookups);
		instance_avoid(inst, at_ms);
		far_pass(&s->rig, 1000);
		assert_int_equal(names.n_lookups, n_lookups + 1);
	}
	instance_succeeded(inst); /* which is no failure */
	unsigned n_lookups = names.n_lookups;
	far_pass(&s->rig, 2000);
	assert_int_equal(names.n_lookups, n_lookups);
	scene_close(s);
}

static void the_next_address_is_asked_next(void **state) {
	struct scene *s = scene_open(NULL);
	struct far_engine dead;
	far_open(&dead);
	far_close(&dead);
	name_is((const struct far_engine *const[]){ &dead, &s->engine }, 2);
	answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
	assert_true(is_ready(s));
	assert_int_equal(row(s)->n_addresses, 2);
	scene_close(s);
}

static void another_order_is_no_news(void **state) {
	struct scene *s = scene_open(NULL);
	struct far_engine other;
	far_open(&other);
	name_is((const struct far_engine *const[]){ &s->engine, &other }, 2);
	answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
	name_is((const struct far_engine *const[]){ &other, &s->engine }, 2);
	for (unsigned i = 0; i < 2 * RESOLVE_MS / MODELS_MS; i++)
		answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
	assert_int_equal(far_accept(&other), -1);
	assert_in_range(names.n_lookups, 2, 3);
	name_is((const struct far_engine *const[]){ &other }, 1); /* but one less is */
	far_until(&s->rig, row(s)->n_addresses == 1);
	far_answer(&s->rig, &other, "/v1/models", LIST("{\"id\":\"a\"}"));
	far_close(&other);
	scene_close(s);
}

/* One lookup and one question for all of them, whichever failed to connect. */
static void ranks_are_asked_once(void **state) {
	struct scene *s = scene_open(NULL);
	struct fleet_spec spec = { .instance = row(s)->instance->spec, .weight = 1, .n_ranks = 3 };
	assert_int_equal(fleet_upsert(s->fleet, SOURCE_STATIC, &spec), 0);
	on_change(&s->watcher);
	watcher_sync(&s->watcher, s->snapshot);
	names.n_lookups = 0;
	answer(s, "/v1/models", LIST("{\"id\":\"a\"}"));
	assert_int_equal(names.n_lookups, 1);
	assert_int_equal(s->snapshot->n_rows, 3);
	assert_int_equal(snapshot_model(s->snapshot, SLICE("a"))->n_candidates, 3);
	far_pass(&s->rig, MODELS_MS - 1000);
	assert_int_equal(far_accept(&s->engine), -1);
	instance_avoid(s->snapshot->rows[2].instance, far_now_ns / 1000000);
	far_pass(&s->rig, 1000);
	assert_int_equal(names.n_lookups, 2);
	scene_close(s);
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_engine_is_asked_again_and_again),
		cmocka_unit_test(the_short_path_is_the_second_choice),
		cmocka_unit_test(an_engine_that_has_no_list_is_asked_on),
		cmocka_unit_test(the_long_path_is_the_first_choice_again),
		cmocka_unit_test(what_is_no_list_is_said_so),
		cmocka_unit_test(each_new_reason_is_said_once),
		cmocka_unit_test(a_list_has_a_limit),
		cmocka_unit_test(more_models_than_are_kept_are_cut),
		cmocka_unit_test(a_declared_engine_gets_no_request),
		cmocka_unit_test(many_are_one_change),
		cmocka_unit_test(each_slot_has_the_watch_of_its_instance),
		cmocka_unit_test(what_somebody_drained_stays_so),
		cmocka_unit_test(an_engine_that_leaves_is_let_go),
		cmocka_unit_test(a_name_without_an_address_is_looked_up_on),
		cmocka_unit_test(the_last_good_address_stays),
		cmocka_unit_test(a_failed_connect_looks_the_name_up),
		cmocka_unit_test(a_dead_engine_costs_a_lookup_a_second_at_most),
		cmocka_unit_test(a_failure_of_the_workers_looks_the_name_up),
		cmocka_unit_test(each_failure_of_a_long_outage_looks_the_name_up),
		cmocka_unit_test(the_next_address_is_asked_next),
		cmocka_unit_test(another_order_is_no_news),
		cmocka_unit_test(a_name_of_the_registry_leads_nowhere_else),
		cmocka_unit_test(whom_the_configuration_names_may_be_anywhere),
		cmocka_unit_test(by_default_metadata_alone_is_out_of_reach),
		cmocka_unit_test(of_several_addresses_those_that_are_allowed_count),
		cmocka_unit_test(other_ranges_count_at_once),
		cmocka_unit_test(ranks_are_asked_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
