#include "engine/mock_call.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/text.h"

#define LEDGER_ROWS  16384
#define BUDGET_BYTES (4ull << 30)
#define HEAD_MS      60000
#define KEEPALIVE_MS 5000 /* as uvicorn, vLLM's server, has it */
#define TICK_MS_MAX  3600000
#define EVENTS_BYTES (64ull << 20)
#define NS_PER_MS    1000000u

static const struct kv_connector *const connectors[] = {
	[MOCK_KV_NIXL] = &kv_nixl,
	[MOCK_KV_NIXL_PUSH] = &kv_nixl_push,
	[MOCK_KV_MOONCAKE] = &kv_mooncake,
	[MOCK_KV_MORIIO] = &kv_moriio,
	[MOCK_KV_P2P] = &kv_p2p,
	[MOCK_KV_SGLANG] = &kv_sglang,
};

static void init_kv(struct mock *m, const struct mock_config *config) {
	struct kv_rules *kv = &m->rules.kv;

	*kv = (struct kv_rules){
		.connector = connectors[config->connector],
		.role = config->role,
		.writes = config->kv_mode == MOCK_KV_WRITE,
		.zmq_address = config->zmq_address,
		.host = text_is_wildcard(slice_of(config->host)) ? "127.0.0.1" : config->host,
		.n_ranks = config->n_ranks,
		.tp_size = config->tp_size,
		.n_block_tokens = config->n_block_tokens,
	};
	rng_init_random(&m->rng);
	snprintf(kv->engine_id, sizeof(kv->engine_id), "%016lx", rng_next(&m->rng));
	kv_channel_init(&m->channel, kv, config->kv_ttl_ms);
	m->channel.on_asked = mock_leg_on_asked;
}

void mock_core_init(struct mock *m, const struct mock_config *config, uint64_t now_ns) {
	const struct scheduler_options options = {
		.latency = {
			.prefill_tokens_per_s = config->prefill_tokens_per_s,
			.inter_token_ns = config->inter_token_ms * NS_PER_MS,
			.n_running_max = config->n_running_max,
		},
		.n_cache_blocks = config->n_cache_blocks,
		.n_block_tokens = config->n_block_tokens,
		.ledger = ledger_new(LEDGER_ROWS, now_ns),
	};
	*m = (struct mock){
		.config = config,
		.ranks = calloc(config->n_ranks, sizeof(struct scheduler)),
		.ledger = options.ledger,
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
	init_kv(m, config);
	fault_arm(&m->fault, &config->fault);
	for (uint32_t i = 0; i < config->n_ranks; i++)
		scheduler_init(&m->ranks[i], &options);
}

void mock_core_deinit(struct mock *m) {
	for (uint32_t i = 0; i < m->rules.kv.n_ranks; i++)
		scheduler_deinit(&m->ranks[i]);
	free(m->ranks);
	ledger_free(&m->ledger);
	kv_channel_deinit(&m->channel);
	capture_clear(&m->capture);
	stored_clear(&m->stored);
}

static void on_tick(struct timer *t) {
	mock_tick(container_of(t, struct mock, tick));
}

void mock_tick(struct mock *m) {
	uint64_t now_ns = clock_now_ns(), due_ns = LATENCY_NEVER;
	struct generation *g;

	for (uint32_t i = 0; i < m->rules.kv.n_ranks; i++) {
		while ((g = scheduler_next(&m->ranks[i], now_ns)))
			mock_call_wake(g);
		due_ns = u64_min(due_ns, scheduler_due_ns(&m->ranks[i]));
	}
	if (due_ns == LATENCY_NEVER) {
		timer_stop(&m->tick);
		return;
	}
	assert(due_ns > now_ns);
	/* The wheel counts from the start of the turn. */
	uint64_t delay_ms = (due_ns - m->loop.now_ns + NS_PER_MS - 1) / NS_PER_MS;
	loop_timer(&m->loop, &m->tick, u64_min(delay_ms, TICK_MS_MAX));
}

static int bind_channel(const struct mock_config *config) {
	char host[KV_PEER_BYTES];
	struct slice name;
	uint16_t port;

	if (!text_authority(slice_of(config->zmq_address), 0, &name, &port))
		return listener_bind_host(config->host, config->bootstrap_port, false);
	snprintf(host, sizeof(host), "%.*s", (int)name.n, name.p);
	return listener_bind_host(host, port, false);
}

/* Where its decodes find it. */
static int open_channel(struct mock *m) {
	struct kv_rules *kv = &m->rules.kv;
	if (!kv->connector)
		return 0;
	int fd = bind_channel(m->config);
	if (fd < 0)
		return fd;
	kv->port = listener_port(fd);
	return kv_channel_open(&m->channel, &m->loop, fd);
}

/* NULL: none is said. */
static const char *transfer_mode(const struct mock_config *config) {
	if (config->connector != MOCK_KV_MORIIO)
		return NULL;
	return config->kv_mode == MOCK_KV_WRITE ? "WRITE" : "READ";
}

/* To a router that finds its engines so. */
static int announce(struct mock *m, uint16_t port) {
	const struct mock_config *config = m->config;
	const struct kv_rules *kv = &m->rules.kv;
	char url[TEXT_URL_BYTES];

	if (!config->zmq_register[0])
		return 0;
	text_print_url(url, sizeof(url), kv->host, port);
	const struct announcement said = {
		.is_prefill = kv->role == KV_PREFILL,
		.http_address = url + strlen("http://"),
		.zmq_address = kv->zmq_address,
		.transfer_mode = transfer_mode(config),
		.tp_size = kv->tp_size,
		.dp_size = kv->n_ranks,
	};
	return announcer_open(&m->announcer, &m->loop, config->zmq_register, &said);
}

int mock_open(struct mock *m, const struct mock_config *config, int listen_fd) {
	const struct server_limits limits = { .head_ms = HEAD_MS, .keepalive_ms = KEEPALIVE_MS };

	mock_core_init(m, config, clock_now_ns());
	m->budget.max_bytes = BUDGET_BYTES;
	list_init(&m->calls);
	list_init(&m->awaiting);
	slab_init(&m->slab, mock_call_bytes);
	timer_init(&m->tick, on_tick);
	bytes_init(&m->events, EVENTS_BYTES);
	int r = loop_init(&m->loop, &m->budget);
	if (r < 0 || (r = open_channel(m)) < 0 || (r = announce(m, listener_port(listen_fd))) < 0)
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
	announcer_close(&m->announcer);
	server_close(&m->server);
	if (m->channel.loop)
		kv_channel_close(&m->channel);
	loop_deinit(&m->loop);
	server_deinit(&m->server);
	slab_deinit(&m->slab);
	bytes_deinit(&m->events);
	mock_core_deinit(m);
}
