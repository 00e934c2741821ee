/*
 * scan: how fast the body scanner is alone, one core, texts hot in the cache.
 *
 *     scan [--ms N]       N milliseconds for each line, 200 unless told
 *
 * Prints one JSON object a line: {"workload","kernel","gb_per_s"} for large texts,
 * which arrive in pieces of 64 KiB, and {"workload","kernel","ns_per_doc"} for small
 * ones, which arrive whole. Each figure is the best of ten rounds. Small texts come
 * in 64 variants, so that no branch predictor knows the next one by heart.
 *
 * Requests have a line more, "kernel":"inspect": all that the router does with a body, from the
 * head to the demand, with the best kernel, its own wants and the hashes of the prompt.
 */
#include <jansson.h>

#include "bench/kit.h"
#include "router/inspect.h"
#include "router/scan_simd.h"

enum { PIECE_BYTES = 64 << 10, LARGE_BYTES = 256 << 10, LONG_BYTES = 400000, N_VARIANTS = 64, N_ROUNDS = 10 };

static const struct scan_want request_wants[] = {
	{ .path = "model", .text_bytes_max = 256, .unique = true },
	{ .path = "stream" },
	{ .path = "user", .text_bytes_max = 256 },
	{ .path = "session_id", .text_bytes_max = 256 },
	{ .path = "max_tokens" },
	{ .path = "messages" },
	{ .path = "prompt" },
	{ .path = "stream_options.include_usage" },
};

static const struct scan_want answer_wants[] = {
	{ .path = "model", .text_bytes_max = 256 },
	{ .path = "usage.prompt_tokens" },
	{ .path = "usage.completion_tokens" },
	{ .path = "usage.prompt_tokens_details.cached_tokens" },
	{ .path = "usage.input_tokens" },
	{ .path = "usage.output_tokens" },
};

struct workload {
	const char *name;
	json_t *(*make)(unsigned variant);
	const struct scan_want *wants;
	size_t n_wants;
	size_t dump_flags;
	unsigned n_docs;
};

/* `n_bytes` of text made of the words of `sample`, begun at another place for each variant. */
static json_t *text_of(const char *sample, size_t n_bytes, unsigned variant) {
	size_t n_sample = strlen(sample);
	char *text = malloc(n_bytes);
	assert(text);
	for (size_t i = 0; i < n_bytes; i++)
		text[i] = sample[(i + variant * 7) % n_sample];
	json_t *value = json_stringn_nocheck(text, n_bytes);
	free(text);
	return value;
}

static const char prose[] = "The quick brown fox jumps over the lazy dog while the other one sleeps on. ";
static const char code[] = "\tfor (size_t i = 0; i < n_rows_in_table; i++)\n"
			   "\t\tsum += table_row_weight(table, i, rows[i].label);\n"
			   "\tprintf(\"the sum of them all is %zu\\n\", sum);\n";

static json_t *make_large(const char *sample, size_t n_bytes) {
	return json_pack("{s:[{s:s,s:o}],s:s}", "messages", "role", "user", "content",
	    text_of(sample, n_bytes, 0), "model", "meta-llama/Llama-3.1-8B-Instruct");
}

static json_t *make_plain(unsigned variant) {
	return make_large(prose, LARGE_BYTES);
}

static json_t *make_long(unsigned variant) {
	return make_large(prose, LONG_BYTES);
}

static json_t *make_code(unsigned variant) {
	return make_large(code, LARGE_BYTES);
}

static json_t *make_unicode(unsigned variant) {
	return make_large("\xe8\xaf\xb7\xe7\x94\xa8", LARGE_BYTES / 12 * 6);
}

static json_t *make_token_ids(unsigned variant) {
	json_t *ids = json_array();
	for (unsigned i = 0; i < LARGE_BYTES / 6; i++)
		json_array_append_new(ids, json_integer(i * 7919 % 128000));
	return json_pack("{s:s,s:o}", "model", "meta-llama/Llama-3.1-8B-Instruct", "prompt", ids);
}

/* About 400 bytes, as an SDK sends it. */
static json_t *make_chat(unsigned variant) {
	return json_pack("{s:[{s:s,s:s},{s:s,s:o}],s:s,s:b,s:i,s:f,s:s}", "messages", "role", "system",
	    "content", "You are a helpful assistant. Answer in one sentence.", "role", "user", "content",
	    text_of(prose, 90 + variant * 37 % 64, variant), "model",
	    variant % 2 ? "meta-llama/Llama-3.1-8B-Instruct" : "Qwen/Qwen3-32B", "stream", variant % 2,
	    "max_tokens", 64 + variant, "temperature", 0.5, "user", "user-7f3a");
}

/* About 600 bytes, as vLLM answers. */
static json_t *make_answer(unsigned variant) {
	json_t *message = json_pack("{s:s,s:o,s:n,s:n,s:n,s:n,s:[]}", "role", "assistant", "content",
	    text_of(prose, 60 + variant * 37 % 64, variant), "refusal", "annotations", "audio",
	    "function_call", "tool_calls");
	json_t *usage = json_pack("{s:i,s:i,s:i,s:{s:i}}", "prompt_tokens", 20 + variant, "total_tokens",
	    90 + variant, "completion_tokens", 70, "prompt_tokens_details", "cached_tokens", variant % 16);
	return json_pack("{s:s,s:s,s:i,s:s,s:[{s:i,s:o,s:n,s:s,s:n}],s:n,s:o}", "id",
	    "chatcmpl-3f0b6c9de27f4e6e9d5c4c1c2b6a8f11", "object", "chat.completion", "created",
	    1750000000 + (int)variant, "model", "meta-llama/Llama-3.1-8B-Instruct", "choices", "index", 0,
	    "message", message, "logprobs", "finish_reason", "stop", "stop_reason", "service_tier", "usage",
	    usage);
}

static const struct workload workloads[] = {
	{ "plain", make_plain, request_wants, n_elems(request_wants), JSON_COMPACT, 1 },
	{ "long", make_long, request_wants, n_elems(request_wants), JSON_COMPACT, 1 },
	{ "code", make_code, request_wants, n_elems(request_wants), JSON_COMPACT, 1 },
	{ "unicode_escapes", make_unicode, request_wants, n_elems(request_wants), JSON_ENSURE_ASCII, 1 },
	{ "token_ids", make_token_ids, request_wants, n_elems(request_wants), 0, 1 },
	{ "chat", make_chat, request_wants, n_elems(request_wants), JSON_COMPACT, N_VARIANTS },
	{ "chat_spaced", make_chat, request_wants, n_elems(request_wants), 0, N_VARIANTS },
	{ "answer", make_answer, answer_wants, n_elems(answer_wants), JSON_COMPACT, N_VARIANTS },
};

static void scan_doc(const struct scan_table *table, struct slice doc) {
	struct scan s;
	struct scan_value values[SCAN_WANTS_MAX];
	char text[1024];
	scan_init(&s, table, values, text, sizeof(text));
	for (size_t at = 0; at < doc.n; at += PIECE_BYTES)
		if (scan_feed(&s, doc.p + at, size_min(doc.n - at, PIECE_BYTES)) > SCAN_COMPLETE)
			kit_die("refused at byte %llu", (unsigned long long)s.offset);
	if (scan_finish(&s) != SCAN_COMPLETE || !scan_found(&s, 0))
		kit_die("no model found");
}

static struct buf_budget budget = { .max_bytes = 64u << 20 };
static struct buf_pool pool;
static struct inspect_rules rules;
static struct head_room request;

static void inspect_begin(void) {
	static const char head[] =
	    "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nuser-agent: OpenAI/Python\r\n"
	    "accept: application/json\r\ncontent-type: application/json\r\n\r\n";
	static const char *const headers[] = { "x-session-id", "x-session-affinity", "x-smg-routing-key",
		"x-claude-code-session-id", "session-id", "session_id", "x-session-token" };
	struct slice rest = SLICE(INSPECT_MEMBERS_NAMES), member;
	enum cause cause;
	buf_pool_init(&pool, &budget);
	inspect_rules_init(&rules, headers, n_elems(headers));
	while (slice_next_member(&rest, &member))
		if (!inspect_rules_add(&rules, member))
			kit_die("%.*s is not known", (int)member.n, member.p);
	if (head_parse_request(&request, SLICE(head), &cause))
		kit_die("the head is refused");
}

static void inspect_doc(const struct scan_table *table, struct slice doc) {
	static uint64_t keys[PROMPT_BLOCKS_MAX];
	const struct inspect_salt salt = { .model = { "m", 1 } };
	struct inspect in;
	struct demand demand;
	if (inspect_init(&in, &rules, &pool, &request.head))
		kit_die("the head is refused");
	for (size_t at = 0; at < doc.n; at += PIECE_BYTES)
		if (inspect_feed(&in, doc.p + at, size_min(doc.n - at, PIECE_BYTES)))
			kit_die("the body is refused");
	if (inspect_finish(&in) || !inspect_model(&in).n)
		kit_die("no model found");
	inspect_demand(&in, &salt, keys, &demand);
	if (demand.n_keys != demand.prompt_bytes / PROMPT_BLOCK_BYTES)
		kit_die("%u keys", demand.n_keys);
	inspect_deinit(&in, &pool);
}

typedef void (*doc_fn)(const struct scan_table *table, struct slice doc);

/* Nanoseconds for one pass over all texts: the best of the rounds. */
static double measure(
    doc_fn read, const struct scan_table *table, const struct slice *docs, size_t n_docs, uint64_t ms) {
	double best_ns = 0;
	for (unsigned round = 0; round < N_ROUNDS; round++) {
		uint64_t begin_ns = kit_now_ns(), now_ns, n_passes = 0;
		do {
			for (size_t i = 0; i < n_docs; i++)
				read(table, docs[i]);
			n_passes++;
			now_ns = kit_now_ns();
		} while (now_ns - begin_ns < ms * 1000000 / N_ROUNDS);
		double ns = (double)(now_ns - begin_ns) / (double)n_passes;
		best_ns = round == 0 || ns < best_ns ? ns : best_ns;
	}
	return best_ns;
}

static void report(const struct workload *w, const char *kernel, double ns, size_t n_bytes) {
	json_t *line = json_pack("{s:s,s:s}", "workload", w->name, "kernel", kernel);
	if (w->n_docs == 1)
		json_object_set_new(line, "gb_per_s", json_real((double)n_bytes / ns));
	else
		json_object_set_new(line, "ns_per_doc", json_real(ns / w->n_docs));
	json_object_set_new(line, "bytes_per_doc", json_integer((json_int_t)(n_bytes / w->n_docs)));
	json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(4));
	putchar('\n');
	json_decref(line);
}

static void run(const struct workload *w, uint64_t ms) {
	struct slice docs[N_VARIANTS];
	size_t n_bytes = 0;
	for (unsigned i = 0; i < w->n_docs; i++) {
		json_t *doc = w->make(i);
		docs[i] = slice_of(json_dumps(doc, w->dump_flags));
		assert(doc && docs[i].p);
		n_bytes += docs[i].n;
		json_decref(doc);
	}
	struct scan_table table;
	scan_table_init(&table, w->wants, w->n_wants, NULL);
	if (scan_has_avx2())
		report(w, "avx2", measure(scan_doc, &table, docs, w->n_docs, ms), n_bytes);
	if (w->wants == request_wants)
		report(w, "inspect", measure(inspect_doc, &table, docs, w->n_docs, ms), n_bytes);
	table.skip = scan_skip_sse2;
	report(w, "sse2", measure(scan_doc, &table, docs, w->n_docs, ms), n_bytes);
	for (unsigned i = 0; i < w->n_docs; i++)
		free((char *)docs[i].p);
}

int main(int argc, char **argv) {
	uint64_t ms = 200;
	if (argc == 3 && strcmp(argv[1], "--ms") == 0)
		ms = kit_uint(argv[2], 60000);
	else if (argc != 1)
		kit_die("usage: scan [--ms N]");
	inspect_begin();
	for (size_t i = 0; i < n_elems(workloads); i++)
		run(&workloads[i], ms);
	return 0;
}
