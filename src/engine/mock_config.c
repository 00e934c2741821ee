#include "engine/mock_config.h"

#include "base/option_check.h"
#include "base/text.h"
#include "engine/prompt.h"

#define TOKENS_MAX 100000000u

/* It stands in the labels of metrics. */
static const char *check_model(const char *text) {
	for (const char *c = text; *c; c++)
		if (*c <= ' ' || *c > '~' || *c == '"' || *c == '\\')
			return "expected printable ASCII without spaces, quotes and backslashes";
	return text[0] ? NULL : "expected a model id";
}

static const char *check_fault(const char *text) {
	static _Thread_local char message[FAULT_TEXT_BYTES];
	struct fault_plan plan;
	return fault_plan_parse(slice_of(text), &plan, message) ? NULL : message;
}

static const char *check_address(const char *text) {
	struct slice host;
	uint16_t port;
	return text_authority(slice_of(text), 0, &host, &port) && port ? NULL : "expected host:port";
}

static const char *const replies[] = { "words", "echo", NULL };
static const char *const flavors[] = { "vllm", "sglang", NULL };
static const char *const roles[] = { "unified", "prefill", "decode", NULL };
static const char *const connectors[] = { "none", "nixl", "nixl_push", "mooncake", "moriio", "p2p_nccl",
	"sglang", NULL };
static const char *const kv_modes[] = { "read", "write", NULL };

#define AT(member)                                                                                           \
	.offset = offsetof(struct mock_config, member), .bytes = sizeof(((struct mock_config *)0)->member)

static const struct option rows[] = {
	{ "engine", "host", .arg = "HOST", .help = "address to listen on", .type = OPTION_STRING,
	    .def = "127.0.0.1", .check = option_check_host, AT(host) },
	{ "engine", "port", .help = "port to listen on; 0 takes a free one and says which",
	    .type = OPTION_UINT, .def = "8000", .max = UINT16_MAX, AT(port) },
	{ "engine", "models", .arg = "ID,...", .help = "model ids that it serves; the first is the default",
	    .type = OPTION_LIST, .def = "mock", .check = check_model, AT(models) },
	{ "engine", "api_key", .arg = "KEY", .help = "key that requests under /v1 must bring",
	    .type = OPTION_STRING, .secret = true, AT(api_key) },
	{ "engine", "prefill_rate", .arg = "TOKENS",
	    .help = "uncached prompt tokens per second; 0 is no time", .type = OPTION_UINT, .def = "20000",
	    .max = 1000000000, AT(prefill_tokens_per_s) },
	{ "engine", "itl", .help = "time between two output tokens of a request", .type = OPTION_DURATION,
	    .def = "10ms", .max = 3600000, AT(inter_token_ms) },
	{ "engine", "max_num_seqs", .help = "requests that run at once; the others wait", .type = OPTION_UINT,
	    .def = "256", .min = 1, .max = 1000000, AT(n_running_max) },
	{ "engine", "cache_blocks", .help = "capacity of the prefix cache, in blocks", .type = OPTION_UINT,
	    .def = "16384", .max = 100000000, AT(n_cache_blocks) },
	{ "engine", "block_tokens", .help = "tokens in a block of the prefix cache", .type = OPTION_UINT,
	    .def = "16", .min = 1, .max = PROMPT_BLOCK_TOKENS_MAX, AT(n_block_tokens) },
	{ "engine", "max_tokens", .help = "output tokens of a request that does not say how many",
	    .type = OPTION_UINT, .def = "16", .min = 1, .max = TOKENS_MAX, AT(n_tokens_default) },
	{ "engine", "max_model_len", .help = "prompt and output tokens of a request together, at most",
	    .type = OPTION_UINT, .def = "1048576", .min = 2, .max = TOKENS_MAX, AT(n_model_tokens) },
	{ "engine", "ssl_certfile", .arg = "FILE", .help = "certificate chain to speak TLS with",
	    .type = OPTION_STRING, AT(chain) },
	{ "engine", "ssl_keyfile", .arg = "FILE", .help = "and its key, if not in the same file",
	    .type = OPTION_STRING, AT(key) },
	{ "engine", "fault", .arg = "SPEC", .help = "failures from the start, such as reset:5,fail_rate:0.1",
	    .type = OPTION_STRING, .check = check_fault, AT(fault_text) },
	{ "engine", "ledger", .arg = "FILE",
	    .help =
		"file that gets a line for each generation that begins, its id; several engines may share it",
	    .type = OPTION_STRING, AT(ledger) },
	{ "engine", "reply", .help = "what is said: words made up, or the last message of the user again",
	    .type = OPTION_ENUM, .choices = replies, .def = "words", AT(reply) },
	{ "engine", "flavor", .help = "whose routes it has for its load, its cache and what it is",
	    .type = OPTION_ENUM, .choices = flavors, .def = "vllm", AT(flavor) },
	{ "engine", "role",
	    .help = "which leg of a prefill/decode pair it serves, or whole requests and both",
	    .type = OPTION_ENUM, .choices = roles, .def = "unified", AT(role) },
	{ "engine", "kv_connector", .help = "how the blocks of a prompt go from a prefill to a decode",
	    .type = OPTION_ENUM, .choices = connectors, .def = "none", AT(connector) },
	{ "engine", "kv_mode", .help = "with moriio: who moves the blocks, the decode or the prefill",
	    .type = OPTION_ENUM, .choices = kv_modes, .def = "read", AT(kv_mode) },
	{ "engine", "zmq_address", .arg = "HOST:PORT",
	    .help = "with moriio and p2p_nccl: where others find it by a request id", .type = OPTION_STRING,
	    .check = check_address, AT(zmq_address) },
	{ "engine", "zmq_register", .arg = "HOST:PORT",
	    .help = "with zmq_address: discovery socket of a router, which is told once a second that it is "
		    "there",
	    .type = OPTION_STRING, .check = check_address, AT(zmq_register) },
	{ "engine", "bootstrap_port",
	    .help = "port where decodes come for the blocks of this prefill; 0 takes a free one",
	    .type = OPTION_UINT, .def = "0", .max = UINT16_MAX, AT(bootstrap_port) },
	{ "engine", "kv_ttl",
	    .help = "how long blocks are kept for a decode, and one leg waits for the other",
	    .type = OPTION_DURATION, .def = "480s", .min = 1, .max = 3600000, AT(kv_ttl_ms) },
	{ "engine", "data_parallel_size", .arg = "N",
	    .help = "ranks with a prefix cache and a queue of their own; X-data-parallel-rank chooses one",
	    .type = OPTION_UINT, .def = "1", .min = 1, .max = 1024, AT(n_ranks) },
	{ "engine", "tp_size", .arg = "N", .help = "tensor-parallel size that its blocks are said to have",
	    .type = OPTION_UINT, .def = "1", .min = 1, .max = 1024, AT(tp_size) },
	{ "engine", "seed", .help = "another seed is another text, and other failures of fail_rate",
	    .type = OPTION_UINT, .def = "0", AT(seed) },
};

#undef AT

static const struct option_table tables[] = {
	{ "engine", "the mock engine" },
};

static const struct option_schema schema = {
	.program = "headrace mock-engine",
	.summary = "an engine without a GPU that speaks vLLM's API",
	.main_table = "engine",
	.env_prefix = "HEADRACE",
	.tables = tables,
	.n_tables = n_elems(tables),
	.rows = rows,
	.n_rows = n_elems(rows),
	.page = {
		.description =
		    "Answers chats, completions, embeddings, Anthropic messages and responses, streamed or not, with "
		    "made-up text that depends on model, prompt and seed alone. A latency model stands for the GPU: one "
		    "queue for the prefill of uncached tokens, one step a token, a limit of requests that run; a prefix "
		    "cache of blocks remembers prompts. A token is four bytes.\n"
		    "Faults are set by --fault, by POST /mock/faults and for one request by the header x-mock-fault, "
		    "joined by commas:\n"
		    " hang_head        an answer never begins\n"
		    " hang_stream:N    silence after N content events\n"
		    " reset:N          TCP reset after N content events, 0: before the head\n"
		    " garbage          bytes that are no HTTP\n"
		    " status:503       this status\n"
		    " crash            the process dies\n"
		    " latency:250ms    so much later\n"
		    " health:fail      /health answers 503\n"
		    " fail_first:N     the failures meet the first N requests only\n"
		    " fail_rate:0.1    they meet this share of the requests\n"
		    "GET /mock/ledger tells what became of each generation, GET /captured_requests what arrived, "
		    "POST /mock/reset forgets both and puts the faults of the start back.",
		.signals = "SIGTERM and SIGINT end it at once.",
		.examples = " headrace mock-engine --port 8001 --models llama,qwen --itl 20ms\n"
			    " curl -s localhost:8001/mock/faults -d hang_stream:3",
	},
};

static void verify(struct option_set *set, void *arg) {
	struct mock_config *config = arg;
	char message[FAULT_TEXT_BYTES];

	if (config->models.n == 0)
		option_mistake(set, "engine.models", "there is none");
	bool has_address = config->connector == MOCK_KV_MORIIO || config->connector == MOCK_KV_P2P;
	if (has_address != (config->zmq_address[0] != '\0'))
		option_mistake(set, "engine.zmq_address", "%s with this kv_connector",
		    has_address ? "is needed" : "is of no use");
	if (config->zmq_register[0] && (!has_address || config->role == KV_UNIFIED))
		option_mistake(set, "engine.zmq_register", "is for a prefill or a decode with a zmq_address");
	if (!fault_plan_parse(slice_of(config->fault_text), &config->fault, message))
		assert(option_mistakes(set) > 0); /* check_fault() has said so */
}

int mock_config_load(struct mock_config *config, int argc, char *const *argv) {
	*config = (struct mock_config){ .options = option_set_new(&schema) };
	return option_start(config->options, argc, argv, config, verify);
}

void mock_config_deinit(struct mock_config *config) {
	option_set_free(&config->options);
}
