/*
 * decide: what the choice of an instance takes, for each policy and size of the fleet.
 *
 *     decide [--picks N] [--policy NAME]      N are timed for each line, 10000 unless told
 *
 * Prints one JSON object a line. {"policy","instances",...}: policy_pick() alone, and with all
 * that becomes of the choice, which is a ticket opened, one moved on to its first token and one
 * closed with its usage. {"lookup",...}: the index asked for a prompt of 195 blocks that one
 * instance has, and for one that 64 have.
 *
 * Time is the router's own objects' alone, in a fleet at work: four requests in flight at each
 * instance on the average, from eight workers, as many of others, fresh figures of all engines, labels, an
 * index of 64 MiB that is full, as many sessions as it takes to miss the cache. A prompt is 400,000 bytes,
 * 100,000 tokens; all but the last twentieth of it is one of 256 beginnings, and every second request has the
 * first of them. Policies that do not look at prompts get them of all sizes. Before each choice the bytes of
 * a request pass through the processor's cache, as they do in the router. Choices during which the kernel
 * gave the processor to somebody else do not count: that is not of the policy's making.
 */
#include <getopt.h>
#include <jansson.h>

#include "base/mix.h"
#include "bench/histogram.h"
#include "bench/kit.h"
#include "policy/session_table.h"
#include "policy/ticket.h"

enum {
	N_KEYS = 195,
	N_SHARED_KEYS = 185,
	N_BEGINNINGS = 256,
	N_SESSIONS = 50000,
	PROMPT_BYTES = 400000,
	PROMPT_TOKENS = 100000,
	OPEN_PER_INSTANCE = 4,
	N_WORKERS = 8, /* that have requests in flight; one of them chooses */
	INDEX_BYTES = 64 << 20,
	INDEX_BLOCKS = INDEX_BYTES / 8,
	PASSING_BYTES = 256 << 10,
	INSTANCES_MAX = 1000,
};

static const uint32_t fleet_sizes[] = { 8, 64, INSTANCES_MAX };

/* A fleet of one size, and what is known of it. */
struct stage {
	struct rng rng;
	struct snapshot *snap;
	struct load *load;
	struct prefix_index *index;
	struct session_table *sessions;
};

/* A policy at work on it. */
struct work {
	struct stage *stage;
	struct policy_options options;
	struct policy_set set;
	const struct model *model;
	struct ticket tickets[OPEN_PER_INSTANCE * INSTANCES_MAX];
	uint32_t n_tickets, at;
	uint64_t salt; /* of its prompts: what the index holds of them is of its own making */
	uint64_t now_ns;
	uint64_t keys[N_KEYS];
	struct histogram pick, ticket;
};

/* What a request brings along: it leaves nothing of the policy in the fastest caches. */
static void let_body_pass(void) {
	static char body[PASSING_BYTES];

	for (size_t i = 0; i < PASSING_BYTES; i += 64)
		body[i]++;
	__asm__ volatile("" : : "r"(body) : "memory");
}

/* How often the kernel took the processor away. */
static long n_preemptions(void) {
	struct rusage use;

	if (getrusage(RUSAGE_THREAD, &use) < 0)
		kit_die("getrusage: %m");
	return use.ru_nivcsw + use.ru_nvcsw;
}

/* Keys are hashes: any well-mixed number will do. */
static uint64_t key_of(uint64_t prompt, uint64_t block) {
	return mix64(prompt * UINT64_C(0x9e3779b97f4a7c15) + block * UINT64_C(0xbf58476d1ce4e5b9) + 1);
}

static void fill_keys(uint64_t *keys, uint32_t begin, uint32_t end, uint64_t prompt) {
	for (uint32_t i = begin; i < end; i++)
		keys[i] = key_of(prompt, i);
}

/* --- the fleet ------------------------------------------------------------------------------- */

static struct instance *new_instance(uint32_t i) {
	char authority[32];
	int n = snprintf(authority, sizeof(authority), "engine-%u:8000", i);
	struct slice text = { authority, (size_t)n };
	struct instance *inst = instance_new(&(struct instance_spec){
	    .name = text, .url = text, .authority = text, .host = text, .port = 8000 });

	assert(inst);
	learned_write(&inst->learned.prefill_rate, 8000);
	learned_write(&inst->learned.first_token_s, 0.1 + i % 7 * 0.01);
	learned_hear_requests(&inst->learned, 7, 1, OPEN_PER_INSTANCE); /* half of them are others' */
	learned_write(&inst->learned.kv_usage, 0.5);
	atomic_store(&inst->learned.scraped_ms, UINT64_MAX / 2); /* the figures stay fresh */
	return inst;
}

/* All serve one model; half of them are of either class. */
static struct snapshot *new_snapshot(uint32_t n) {
	static const struct sockaddr_storage address = { .ss_family = AF_INET };
	static struct pair labels[2][4] = {
		{ { SLICE("cache_type"), SLICE("static") }, { SLICE("context"), SLICE("131072") },
		    { SLICE("price_in"), SLICE("0.5") }, { SLICE("zone"), SLICE("a") } },
		{ { SLICE("cache_type"), SLICE("paged") }, { SLICE("context"), SLICE("262144") },
		    { SLICE("price_in"), SLICE("0.7") }, { SLICE("zone"), SLICE("b") } },
	};
	static struct pair model = { SLICE("m"), { NULL, 0 } };
	static struct snapshot_row rows[INSTANCES_MAX];

	/* In memory they lie in no order: they come and go. 7919 is a prime, and no size of a fleet. */
	for (uint32_t i = 0, r = 0; i < n; i++, r = (r + 7919) % n)
		rows[r] = (struct snapshot_row){
			.instance = new_instance(r),
			.state = INSTANCE_READY,
			.weight = INSTANCE_WEIGHT_ONE,
			.are_models_known = true,
			.primary = r,
			.next_peer = SNAPSHOT_NO_ROW,
			.addresses = &address,
			.n_addresses = 1,
			.models = { &model, 1 },
			.labels = { labels[r % 2], n_elems(labels[0]) },
		};
	struct snapshot *snap = snapshot_new(1, rows, n, (struct pairs){ NULL, 0 });
	for (uint32_t r = 0; r < n; r++)
		instance_unref(&rows[r].instance);
	return snap;
}

static uint16_t slot_of(const struct stage *s, uint64_t row) {
	return s->snap->rows[row % s->snap->n_rows].instance->slot;
}

/* With prompts that nobody will ask for again. */
static void fill_index(struct stage *s) {
	uint64_t keys[N_KEYS];

	for (uint32_t r = 0; r < s->snap->n_rows; r++)
		prefix_index_own(s->index, slot_of(s, r), s->snap->rows[r].instance->serial);
	for (uint64_t i = 0; i < INDEX_BLOCKS / N_KEYS; i++) {
		fill_keys(keys, 0, N_KEYS, ~i);
		prefix_index_put(s->index, slot_of(s, i), keys, N_KEYS);
	}
}

static void stage_open(struct stage *s, uint32_t n_instances) {
	rng_init(&s->rng, n_instances);
	s->snap = new_snapshot(n_instances);
	s->load = load_new(N_WORKERS);
	s->index = prefix_index_new(INDEX_BYTES);
	s->sessions = session_table_new(131072, 7200);
	if (!s->index || !s->sessions)
		kit_die("decide: out of memory");
	prefix_index_widen(s->index, n_instances);
	fill_index(s);
}

static void stage_close(struct stage *s) {
	snapshot_unref(&s->snap);
	load_free(&s->load);
	prefix_index_free(&s->index);
	session_table_free(&s->sessions);
}

/* --- choices ---------------------------------------------------------------------------------- */

static void work_open(struct work *w, struct stage *s, const struct policy *policy) {
	*w = (struct work){
		.stage = s,
		.salt = rng_next(&s->rng),
		.options = { POLICY_OPTIONS_DEFAULTS, .policy = policy },
		.n_tickets = OPEN_PER_INSTANCE * s->snap->n_rows,
		.now_ns = 1000000000,
	};
	w->set = (struct policy_set){ .options = &w->options,
		.load = s->load,
		.rng = &s->rng,
		.index = s->index,
		.sessions = s->sessions };
	policy_set_init(&w->set);
	policy_set_adopt(&w->set, s->snap);
	w->model = snapshot_model(s->snap, SLICE("m"));
}

/* Requests come to all workers in turn, and stay. */
static void act_as_worker(struct work *w, const struct ticket *t) {
	w->set.worker = (unsigned)(t - w->tickets) % N_WORKERS;
}

static void work_close(struct work *w) {
	for (uint32_t i = 0; i < w->n_tickets; i++) {
		act_as_worker(w, &w->tickets[i]);
		ticket_close(&w->tickets[i], &w->set, NULL);
	}
	policy_set_deinit(&w->set);
}

static struct demand next_demand(struct work *w) {
	uint64_t drawn = rng_next(&w->stage->rng);
	struct demand demand = {
		.prompt_bytes = PROMPT_BYTES,
		.output_tokens = 200,
		.session = key_of(drawn % N_SESSIONS, N_KEYS),
		.seed = drawn,
	};

	if (policy_wants_prompt(&w->set, w->model)) {
		uint64_t beginning = drawn >> 63 ? drawn >> 32 & (N_BEGINNINGS - 1) : 0;

		fill_keys(w->keys, 0, N_SHARED_KEYS, w->salt + beginning);
		fill_keys(w->keys, N_SHARED_KEYS, N_KEYS, drawn);
		demand.keys = w->keys;
		demand.n_keys = N_KEYS;
	} else {
		demand.prompt_bytes = 1000 + (drawn >> 20) % PROMPT_BYTES;
	}
	demand.prompt_tokens = (uint32_t)(demand.prompt_bytes * PROMPT_TOKENS / PROMPT_BYTES);
	return demand;
}

/* What the engine would say of its ticket; as the index predicted, so that it stays believed. */
static struct ticket_usage usage_of(const struct ticket *t) {
	return (struct ticket_usage){ .prompt_tokens = t->prompt_tokens,
		.cached_tokens = t->cached_tokens,
		.output_tokens = 200,
		.has_cached = true };
}

/* One request comes, another one's first token, the oldest ends. False: the figures are not to be counted. */
static bool choose(struct work *w, bool is_timed) {
	struct ticket *own = &w->tickets[w->at];
	struct ticket *first = &w->tickets[(w->at + w->n_tickets - w->n_tickets / 4) % w->n_tickets];
	struct ticket *oldest = &w->tickets[(w->at + 1) % w->n_tickets];
	struct demand demand = next_demand(w);
	struct pick_input input = { .model = w->model, .demand = &demand, .now_ns = w->now_ns };
	struct ticket_usage usage = usage_of(oldest);
	struct pick_result result;

	let_body_pass();
	long n_before = n_preemptions();
	uint64_t begin_ns = kit_now_ns();
	int outcome = policy_pick(&w->set, &input, &result);
	uint64_t picked_ns = kit_now_ns();
	if (outcome)
		kit_die("decide: nobody was eligible: %d", outcome);
	uint64_t opened_ns = kit_now_ns();
	act_as_worker(w, own);
	ticket_open(own, &w->set, &input, &result);
	act_as_worker(w, first);
	ticket_first(first, &w->set, w->now_ns);
	act_as_worker(w, oldest);
	ticket_close(oldest, &w->set, &usage);
	uint64_t end_ns = kit_now_ns();

	w->at = (w->at + 1) % w->n_tickets;
	w->now_ns += 1000000000 / w->stage->snap->n_rows;
	if (!is_timed || n_preemptions() != n_before)
		return false;
	histogram_add(&w->pick, picked_ns - begin_ns);
	histogram_add(&w->ticket, picked_ns - begin_ns + end_ns - opened_ns);
	return true;
}

static json_t *quantiles(const char *p50, const char *p99, const struct histogram *h) {
	return json_pack("{s:I,s:I}", p50, (json_int_t)histogram_quantile(h, 0.5), p99,
	    (json_int_t)histogram_quantile(h, 0.99));
}

/* Takes both. */
static void say(json_t *line, json_t *more) {
	json_object_update(line, more);
	json_decref(more);
	json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(4));
	putchar('\n');
	fflush(stdout);
	json_decref(line);
}

static void run_policy(struct stage *s, const struct policy *policy, uint64_t n_picks) {
	static struct work work;
	struct work *w = &work;

	work_open(w, s, policy);
	for (uint64_t i = 0; i < 2 * w->n_tickets; i++)
		(void)choose(w, false);
	for (uint64_t n = 0; n < n_picks;)
		n += choose(w, true);
	work_close(w);
	json_t *line = json_pack("{s:s,s:I,s:I}", "policy", policy_name(policy), "instances",
	    (json_int_t)s->snap->n_rows, "timed", (json_int_t)n_picks);
	json_object_update_new(line, quantiles("pick_p50_ns", "pick_p99_ns", &w->pick));
	say(line, quantiles("ticket_p50_ns", "ticket_p99_ns", &w->ticket));
}

/* --- lookups ---------------------------------------------------------------------------------- */

/* Prompts that `n_owners` instances have each: the more that have them, the fewer such prompts there are. */
static void run_lookup(struct stage *s, uint32_t n_owners, uint64_t n_lookups) {
	uint64_t n_prompts = 1024 / n_owners;
	static struct prefix_scan scan;
	static struct histogram h;
	uint64_t keys[N_KEYS], first = rng_next(&s->rng), n_hits = 0, n_blocks = 0;

	h = (struct histogram){ .n = 0 };
	for (uint64_t p = 0; p < n_prompts; p++) {
		fill_keys(keys, 0, N_KEYS, first + p);
		for (uint32_t i = 0; i < n_owners; i++)
			prefix_index_put(s->index, slot_of(s, p + i), keys, N_KEYS);
	}
	while (h.n < n_lookups) {
		fill_keys(keys, 0, N_KEYS, first + rng_below(&s->rng, n_prompts));
		let_body_pass();
		long n_before = n_preemptions();
		uint64_t begin_ns = kit_now_ns();
		prefix_index_match(s->index, keys, N_KEYS, &scan);
		uint64_t end_ns = kit_now_ns();
		if (n_preemptions() != n_before)
			continue;
		histogram_add(&h, end_ns - begin_ns);
		n_hits += scan.n_hits;
		for (uint32_t i = 0; i < scan.n_hits; i++)
			n_blocks += scan.hits[i].n_blocks;
	}
	json_t *line = json_pack("{s:I,s:I,s:I,s:I,s:f,s:f}", "lookup", (json_int_t)n_owners, "keys",
	    (json_int_t)N_KEYS, "instances", (json_int_t)s->snap->n_rows, "timed", (json_int_t)h.n, "hits",
	    (double)n_hits / (double)h.n, "blocks", (double)n_blocks / (double)n_hits);
	say(line, quantiles("p50_ns", "p99_ns", &h));
}

static void run(uint32_t n_instances, const struct policy *only, uint64_t n_picks) {
	static struct stage stage;

	stage_open(&stage, n_instances);
	for (const struct policy *const *p = policy_table; *p; p++)
		if (!only || *p == only)
			run_policy(&stage, *p, n_picks);
	if (!only && n_instances == PREFIX_HITS_MAX) {
		run_lookup(&stage, 1, n_picks);
		run_lookup(&stage, PREFIX_HITS_MAX, n_picks);
	}
	stage_close(&stage);
}

int main(int argc, char **argv) {
	static const struct option options[] = { { "picks", 1, 0, 'n' }, { "policy", 1, 0, 'p' }, { 0 } };
	const struct policy *only = NULL;
	uint64_t n_picks = 10000;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'n')
			n_picks = kit_uint(optarg, 10000000);
		else if (option != 'p' || !(only = policy_find(slice_of(optarg))))
			kit_die("usage: decide [--picks N] [--policy NAME]");
	}
	for (size_t i = 0; i < n_elems(fleet_sizes); i++)
		run(fleet_sizes[i], only, u64_max(1, n_picks));
}
