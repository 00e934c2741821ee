#include "engine/mock.h"

#include "base/clock.h"

#define LEDGER_ROWS  16384
#define BUDGET_BYTES (4ull << 30)
#define HEAD_MS      60000
#define KEEPALIVE_MS 5000 /* as uvicorn, vLLM's server, has it */
#define TICK_MS_MAX  3600000
#define EVENTS_BYTES (64ull << 20)
#define NS_PER_MS    1000000u

void mock_core_init(struct mock *m, const struct mock_config *config, uint64_t now_ns) {
	const struct scheduler_options options = {
		.latency = {
			.prefill_tokens_per_s = config->prefill_tokens_per_s,
			.inter_token_ns = config->inter_token_ms * NS_PER_MS,
			.n_running_max = config->n_running_max,
		},
		.n_cache_blocks = config->n_cache_blocks,
		.n_block_tokens = config->n_block_tokens,
		.n_ledger_rows = LEDGER_ROWS,
	};
	*m = (struct mock){
		.config = config,
		.rules = {
			.models = config->models.items,
			.n_models = config->models.n,
			.n_model_tokens = config->n_model_tokens,
			.n_tokens_default = config->n_tokens_default,
			.n_block_tokens = config->n_block_tokens,
			.seed = config->seed,
			.echoes = config->reply == MOCK_ECHO,
		},
		.fault.seed = config->seed,
		.header_fault.seed = config->seed,
		.created_s = (int64_t)(clock_wall_ms() / 1000),
	};
	fault_arm(&m->fault, &config->fault);
	scheduler_init(&m->scheduler, &options, now_ns);
	rng_init_random(&m->rng);
}

void mock_core_deinit(struct mock *m) {
	scheduler_deinit(&m->scheduler);
	capture_clear(&m->capture);
	stored_clear(&m->stored);
}

static void on_tick(struct timer *t) {
	mock_tick(container_of(t, struct mock, tick));
}

void mock_tick(struct mock *m) {
	uint64_t now_ns = clock_now_ns();
	struct generation *g;

	while ((g = scheduler_next(&m->scheduler, now_ns)))
		mock_call_wake(g);
	uint64_t due_ns = scheduler_due_ns(&m->scheduler);
	if (due_ns == LATENCY_NEVER) {
		timer_stop(&m->tick);
		return;
	}
	assert(due_ns > now_ns);
	/* The wheel counts from the start of the turn. */
	uint64_t delay_ms = (due_ns - m->loop.now_ns + NS_PER_MS - 1) / NS_PER_MS;
	loop_timer(&m->loop, &m->tick, u64_min(delay_ms, TICK_MS_MAX));
}

int mock_open(struct mock *m, const struct mock_config *config, int listen_fd) {
	const struct server_limits limits = { .head_ms = HEAD_MS, .keepalive_ms = KEEPALIVE_MS };

	mock_core_init(m, config, clock_now_ns());
	m->budget.max_bytes = BUDGET_BYTES;
	list_init(&m->calls);
	slab_init(&m->slab, mock_call_bytes);
	timer_init(&m->tick, on_tick);
	bytes_init(&m->events, EVENTS_BYTES);
	int r = loop_init(&m->loop, &m->budget);
	if (r < 0)
		return r;
	return server_open(&m->server, &m->loop, listen_fd, NULL, &limits, &mock_handler, m);
}

static void on_stop(struct mail *mail) {
	loop_stop(&container_of(mail, struct mock, stop)->loop);
}

void mock_run(struct mock *m) {
	loop_run(&m->loop);
}

void mock_stop(struct mock *m) {
	loop_post(&m->loop, &m->stop, on_stop);
}

void mock_close(struct mock *m) {
	list_each_safe (it, &m->calls)
		mock_call_cut(it);
	timer_stop(&m->tick);
	server_close(&m->server);
	loop_deinit(&m->loop);
	server_deinit(&m->server);
	slab_deinit(&m->slab);
	bytes_deinit(&m->events);
	mock_core_deinit(m);
}
