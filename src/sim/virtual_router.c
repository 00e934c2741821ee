#include "sim/virtual_router.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mix.h"
#include "policy/session_table.h"
#include "sim/vllm_rule.h"

#define VLLM  SLICE("vllm")
#define MODEL SLICE("model")

_Static_assert(VIRTUAL_ENGINES_MAX <= INSTANCE_SLOTS_MAX, "one router has a slot for each engine");

struct virtual_router {
	struct rng rng;
	struct snapshot *snapshot;
	struct load *load;
	struct prefix_index *index;
	struct session_table *sessions;
	struct policy_options options;
	struct policy_set set;
	uint32_t n_block_tokens;
	uint64_t keys[PROMPT_BLOCKS_MAX]; /* of the request at hand */
	struct vllm_rule *vllm;           /* NULL: the set chooses */
	uint32_t in_flight[VIRTUAL_ENGINES_MAX];
};

bool virtual_router_knows(struct slice policy) {
	return slice_eq(policy, VLLM) || policy_find(policy);
}

static struct instance *new_instance(uint32_t engine) {
	char authority[32];
	int n = snprintf(authority, sizeof(authority), "engine-%u:8000", engine);
	struct slice text = { authority, (size_t)n };
	struct instance *instance = instance_new(&(struct instance_spec){
	    .name = text, .url = text, .authority = text, .host = text, .port = 8000 });

	assert(instance); /* main() has as many at a time as there may be */
	return instance;
}

static struct snapshot *new_snapshot(uint32_t n_engines) {
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(8000) };
	struct snapshot_row *rows = calloc(n_engines, sizeof(*rows));
	struct sockaddr_storage address = { 0 };
	struct pair model = { MODEL, { NULL, 0 } };

	memcpy(&address, &in, sizeof(in));
	for (uint32_t e = 0; e < n_engines; e++)
		rows[e] = (struct snapshot_row){
			.instance = new_instance(e),
			.state = INSTANCE_READY,
			.weight = INSTANCE_WEIGHT_ONE,
			.are_models_known = true,
			.primary = e,
			.addresses = &address,
			.n_addresses = 1,
			.models = { &model, 1 },
		};
	struct snapshot *snapshot = snapshot_new(1, rows, n_engines, (struct pairs){ NULL, 0 });
	for (uint32_t e = 0; e < n_engines; e++)
		instance_unref(&rows[e].instance);
	free(rows);
	return snapshot;
}

/* All that the router's policies need; false without the memory for the index. */
static bool start_policies(struct virtual_router *r, const struct virtual_router_options *options) {
	if (options->index_bytes && !(r->index = prefix_index_new(options->index_bytes)))
		return false;
	if (r->index)
		prefix_index_widen(r->index, options->n_engines);
	r->load = load_new(1);
	r->snapshot = new_snapshot(options->n_engines);
	r->sessions = session_table_new(1 << 16, SESSION_IDLE_MAX_S);
	r->options = (struct policy_options){ POLICY_OPTIONS_DEFAULTS,
		.policy = policy_find(slice_of(options->policy)) };
	r->set = (struct policy_set){ .options = &r->options,
		.load = r->load,
		.rng = &r->rng,
		.index = r->index,
		.sessions = r->sessions };
	policy_set_init(&r->set);
	policy_set_adopt(&r->set, r->snapshot);
	return true;
}

struct virtual_router *virtual_router_new(const struct virtual_router_options *options) {
	struct slice policy = slice_of(options->policy);
	struct virtual_router *r = calloc(1, sizeof(*r));

	assert(virtual_router_knows(policy));
	assert(options->n_engines > 0 && options->n_engines <= VIRTUAL_ENGINES_MAX);
	rng_init(&r->rng, options->seed);
	r->n_block_tokens = options->n_block_tokens;
	if (slice_eq(policy, VLLM)) {
		r->vllm = vllm_rule_new(options->n_engines);
	} else if (!start_policies(r, options)) {
		free(r);
		return NULL;
	}
	return r;
}

void virtual_router_free(struct virtual_router **router) {
	struct virtual_router *r = *router;

	if (!r)
		return;
	*router = NULL;
	vllm_rule_free(&r->vllm);
	if (r->snapshot)
		policy_set_deinit(&r->set);
	snapshot_unref(&r->snapshot);
	prefix_index_free(&r->index);
	session_table_free(&r->sessions);
	load_free(&r->load);
	free(r);
}

static struct demand demand_of(
    struct virtual_router *r, const struct trace *trace, const struct trace_request *request) {
	const uint64_t *blocks = trace_blocks(trace, request);
	uint64_t n_full = request->n_input_tokens / r->n_block_tokens;
	uint32_t n_keys = (uint32_t)u64_min(u64_min(n_full, request->n_blocks), PROMPT_BLOCKS_MAX);

	for (uint32_t i = 0; i < n_keys; i++)
		r->keys[i] = mix64(blocks[i] + 1); /* ids may be small numbers; keys are hashes */
	return (struct demand){
		.prompt_tokens = request->n_input_tokens,
		.output_tokens = policy_output_tokens(&r->set, snapshot_model(r->snapshot, MODEL)),
		.prompt_bytes = (uint64_t)request->n_input_tokens * PROMPT_BLOCK_BYTES / r->n_block_tokens,
		.keys = r->keys,
		.n_keys = n_keys,
		.session = request->session,
		.seed = mix64(request->row + 1),
	};
}

static uint32_t pick(
    struct virtual_router *r, struct ticket *ticket, const struct demand *demand, uint64_t now_ns) {
	struct pick_input input = {
		.model = snapshot_model(r->snapshot, MODEL),
		.demand = demand,
		.now_ns = now_ns,
	};
	struct pick_result result;
	int outcome = policy_pick(&r->set, &input, &result);

	assert(outcome == 0); /* nobody ever fails */
	ticket_open(ticket, &r->set, &input, &result);
	return result.row;
}

void virtual_router_arrive(struct virtual_router *router, struct passage *passage, const struct trace *trace,
    const struct trace_request *request, uint64_t now_ns) {
	if (router->vllm) {
		passage->engine = vllm_rule_pick(
		    router->vllm, trace_blocks(trace, request), request->n_blocks, router->in_flight);
		router->in_flight[passage->engine]++;
		return;
	}
	struct demand demand = demand_of(router, trace, request);
	passage->engine = pick(router, &passage->ticket, &demand, now_ns);
}

void virtual_router_hear(
    struct virtual_router *router, uint32_t engine, uint32_t n_running, uint32_t n_waiting, uint64_t now_ns) {
	if (router->vllm)
		return;
	struct instance *instance = router->snapshot->rows[engine].instance;
	struct learned *learned = &instance->learned;

	learned_hear_requests(learned, n_running, n_waiting, load_requests(router->load, instance->slot));
	/* 0 would be never. */
	atomic_store_explicit(&learned->scraped_ms, now_ns / 1000000 + 1, memory_order_relaxed);
}

void virtual_router_first_token(struct virtual_router *router, struct passage *passage, uint64_t now_ns) {
	if (!router->vllm)
		ticket_first(&passage->ticket, &router->set, now_ns);
}

void virtual_router_done(
    struct virtual_router *router, struct passage *passage, const struct ticket_usage *usage) {
	if (!router->vllm) {
		ticket_close(&passage->ticket, &router->set, usage);
		return;
	}
	assert(router->in_flight[passage->engine] > 0);
	router->in_flight[passage->engine]--;
}
