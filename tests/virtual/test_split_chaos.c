/*
 * Thousands of seeded plays of requests of two engines, of which each may stall, refuse, talk nonsense or die
 * at any byte. What a client got is a decode's answer to it, whole or visibly cut, or a refusal; and nothing
 * is left, nowhere.
 *
 * A play that fails is repeated by its seed (HEADRACE_SEED=N).
 */
#include "router/split.h"
#include "virtual/ledger.h"
#include "virtual/pairs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SEEDS      1500
#define N_PREFILLS 2
#define N_DECODES  2

#define PARAMS "\"remote_engine_id\":\"e\",\"remote_host\":\"h\",\"remote_port\":1,\"tp_size\":1"

struct play {
	struct script script;
	struct rng rng;
	unsigned n_asked;
};

struct tally {
	unsigned n_asked, n_good, n_cut, n_merged;
};

static unsigned below(struct play *p, unsigned n) {
	return (unsigned)rng_below(&p->rng, n);
}

/* An act of plays, with a number. */
static void act(struct play *p, act_fn run, unsigned number) {
	char text[16];

	snprintf(text, sizeof(text), "%u", number);
	run(&p->script, slice_of(text));
}

/* --- what peers say ---------------------------------------------------------------------------- */

static void ask(struct play *p) {
	struct bytes body = { .n_max = SIZE_MAX };
	char tag[32], head[256];

	if (p->script.n_clients == SCRIPT_CLIENTS_MAX)
		return;
	snprintf(tag, sizeof(tag), "%u.0.%u.m.%c", p->script.n_clients, below(p, 4), "su"[below(p, 2)]);
	script_request_body(&body, slice_of(tag));
	snprintf(head, sizeof(head),
	    "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nx-tag: %s\r\ncontent-type: application/json\r\n"
	    "content-length: %zu\r\n\r\n",
	    tag, body.n);
	act(p, act_new_client, 0);
	peer_says(p->script.client, head);
	peer_say(p->script.client, bytes_slice(&body));
	bytes_deinit(&body);
	p->n_asked++;
}

/* How likely each of many tokens was. */
static void add_logprobs(struct bytes *out, unsigned n) {
	bytes_printf(out, ",\"prompt_logprobs\":[null");
	while (n--)
		bytes_printf(out, ",{\"%u\":-0.5}", n);
	bytes_printf(out, "]");
}

/* A cache that waits, or, of some, one that will be pushed; some know more than the decode will. */
static void answer_prefill(struct play *p, struct bytes *out) {
	static const char *const answers[] = { "{\"kv_transfer_params\":{" PARAMS "}",
		"{\"kv_transfer_params\":{\"transfer_mode\":\"push\"," PARAMS "}", "{\"choices\":[]",
		"none of JSON", "" };
	static const unsigned counts[] = { 0, 0, 10, 3000 };
	const char *text = answers[below(p, n_elems(answers))];
	unsigned n = counts[below(p, n_elems(counts))];
	struct bytes body = { .n_max = SIZE_MAX };

	bytes_printf(&body, "%s", text);
	if (n) {
		bytes_printf(&body, ",\"usage\":{\"prompt_tokens_details\":{\"cached_tokens\":%u}}", n);
		add_logprobs(&body, n);
	}
	if (text[0] == '{')
		bytes_printf(&body, "}");
	bytes_printf(out,
	    "HTTP/1.1 200 OK\r\nx-from: prefill\r\ncontent-type: application/json\r\ncontent-length: "
	    "%zu\r\n\r\n",
	    body.n);
	bytes_add(out, bytes_slice(&body));
	bytes_deinit(&body);
}

static void answer_decode(struct play *p, struct bytes *out, struct slice tag) {
	static const unsigned streams[] = { 1, 3, 8, 9 }, wholes[] = { 0, 2, 6, 6 };
	bool is_streamed = slice_eq(script_tag_part(tag, 4), SLICE("s"));

	script_answer(out, (is_streamed ? streams : wholes)[below(p, n_elems(wholes))], tag, false);
}

static void refuse(struct play *p, struct bytes *out) {
	static const unsigned statuses[] = { 503, 503, 429, 400, 500, 2000 };

	bytes_printf(
	    out, "HTTP/1.1 %u No\r\ncontent-length: 2\r\n\r\nno", statuses[below(p, n_elems(statuses))]);
}

/* Makes up what that engine is going to say to its next request. */
static void answer(struct play *p, struct peer *engine) {
	struct slice rest = peer_unseen(engine);
	struct parsed m;

	if (!parsed_next(&m, PARSED_REQUEST, &rest, false))
		return;
	assert_false(m.is_bad);
	if (m.is_whole) {
		engine->n_seen = engine->got.n - rest.n;
		if (!below(p, 12))
			refuse(p, &engine->todo);
		else if (engine->engine < N_PREFILLS)
			answer_prefill(p, &engine->todo);
		else
			answer_decode(p, &engine->todo, parsed_field(&m, "x-tag"));
	}
	parsed_deinit(&m);
}

/* --- one act after the other --------------------------------------------------------------------- */

static void act_in_order(struct play *p) {
	static const unsigned parts[] = { 0, 0, 0, 1, 30, 100, 300 };

	switch (below(p, 8)) {
	case 0:
		ask(p);
		break;
	case 1:
		act(p, act_turn, 0);
		break;
	case 2:
		act(p, act_settle, 0);
		break;
	case 3:
		act(p, act_pass, 1 + below(p, 300));
		break;
	default:
		act(p, act_pick_engine, below(p, 6));
		if (p->script.engine)
			answer(p, p->script.engine);
		act(p, act_say_on, parts[below(p, n_elems(parts))]);
	}
}

static void act_of_fate(struct play *p) {
	static const act_fn ends[] = { act_engine_closes, act_engine_breaks, act_engine_finishes,
		act_engine_deafens };
	static const act_fn departures[] = { act_client_closes, act_client_breaks, act_client_finishes };

	switch (below(p, 8)) {
	case 0:
	case 1:
		act(p, act_pick_engine, below(p, 6));
		act(p, ends[below(p, n_elems(ends))], 0);
		break;
	case 2:
		act(p, act_pick_client, below(p, SCRIPT_CLIENTS_MAX));
		act(p, departures[below(p, n_elems(departures))], 0);
		break;
	case 3:
		act(p, act_mood, 10 * below(p, N_PREFILLS + N_DECODES) + (below(p, 2) ? 0 : below(p, 3)));
		break;
	case 4:
		act(p, act_answer_connects, below(p, 3) == 0);
		break;
	case 5:
		act(p, act_pick_client, below(p, SCRIPT_CLIENTS_MAX));
		act(p, act_client_reads, below(p, 2000));
		break;
	case 6:
		act(p, act_pick_engine, below(p, 6));
		act(p, act_engine_reads, below(p, 2000));
		break;
	default:
		act(p, act_pass, 400 + below(p, 8000));
	}
}

/* --- the law ---------------------------------------------------------------------------------------- */

/* Each charge belongs to a leg. */
static bool is_load_right(const struct world *w) {
	uint64_t n = 0;

	list_each (it, &w->worker.active) {
		const struct exchange *x = container_of(it, struct exchange, link);

		n += x->ticket.instance != NULL;
		if (x->split)
			n += aside_is_there(&x->split->prefill) + aside_is_there(&x->split->decode);
	}
	return n == world_load(w);
}

/* Is it the decode's answer, but for what the prefill alone knows? */
static bool is_decodes(const struct parsed *m, const struct bytes *said) {
	json_t *got = json_loadb(m->body.p, m->body.n, 0, NULL),
	       *expected = json_loadb(said->p, said->n, 0, NULL);

	json_object_del(got, "prompt_logprobs");
	json_object_del(json_object_get(got, "usage"), "prompt_tokens_details");
	bool is_equal = json_equal(got, expected);
	json_decref(got);
	json_decref(expected);
	return is_equal;
}

/* An answer that was gathered, and went on with its end. */
static void check_whole(struct ledger *l, const struct parsed *m, unsigned kind, struct tally *t) {
	struct bytes said = { .n_max = SIZE_MAX };

	script_answer_body(&said, kind, parsed_field(m, "x-tag"));
	if (m->is_whole && !is_decodes(m, &said))
		ledger_blame(l, "a client got another answer than the engine gave");
	t->n_merged += m->is_whole && !slice_eq(bytes_slice(&m->body), bytes_slice(&said));
	bytes_deinit(&said);
}

/* What came of an engine. */
static void check_relayed(struct ledger *l, const struct parsed *m, unsigned number, struct tally *t) {
	struct ledger_row row = { .method = "POST", .has_clean_end = true };
	size_t kind = parsed_number(parsed_field(m, "x-kind"), 10);

	if (parsed_number(script_tag_part(parsed_field(m, "x-tag"), 0), 10) != number)
		ledger_blame(l, "a client got the answer of another one");
	else if (script_kinds[kind].is_sse)
		ledger_check_relayed(l, &row, number, m);
	else
		check_whole(l, m, (unsigned)kind, t);
}

static const char *check_client(unsigned number, const struct peer *client, struct tally *t) {
	static struct ledger ledger; /* large */
	bool has_ended = client->was_shut || (client->was_closed && !client->was_reset);
	struct slice rest = bytes_slice(&client->got);
	struct parsed m = { .is_bad = true };

	ledger.wrong = NULL;
	do { /* interim ones come before it */
		parsed_deinit(&m);
		if (!rest.n || !parsed_next(&m, PARSED_RESPONSE, &rest, has_ended))
			return NULL;
		if (m.is_bad)
			ledger_blame(&ledger, "a client got what is no answer");
	} while (m.status < 200 && !m.is_bad);
	if (parsed_field(&m, "x-from").p)
		ledger_blame(&ledger, "a client got a prefill's answer");
	if (parsed_field(&m, "x-kind").p)
		check_relayed(&ledger, &m, number, t);
	if (m.is_whole && rest.n)
		ledger_blame(&ledger, "a client was answered twice");
	t->n_good += m.status == 200 && m.is_whole;
	t->n_cut += m.status == 200 && !m.is_whole;
	parsed_deinit(&m);
	return ledger.wrong;
}

static const char *check(struct play *p, struct tally *t) {
	struct world *w = p->script.w;
	const char *wrong = p->script.wrong ? p->script.wrong : world_is_wrong(w);

	for (unsigned i = 0; i < p->script.n_clients && !wrong; i++)
		wrong = check_client(i, p->script.clients[i], t);
	return wrong;
}

/* --- the test ---------------------------------------------------------------------------------------- */

static void prepare(struct world *w, struct play *p, uint64_t seed) {
	script_renew(w);
	memset(&w->split_breaker, 0, sizeof(w->split_breaker));
	*p = (struct play){ .script = { .w = w } };
	rng_init(&p->rng, seed);
	pairs_configure(w);
	w->config.retry.sent = below(p, 3);
	w->config.breaker.limits.failures = below(p, 3) ? 0 : 3;
	w->config.timeout.total_ms = below(p, 6) ? 0 : 3000;
	w->router.budget.max_bytes = below(p, 6) ? 16u << 20 : 60000;
	net.read_max = below(p, 4) ? 0 : 10;
	net.write_max = below(p, 4) ? 0 : 50;
}

static const char *play_seed(struct world *w, uint64_t seed, struct tally *t) {
	struct play p;

	prepare(w, &p, seed);
	unsigned n_acts = 20 + below(&p, 150), calm = 4 + below(&p, 30);
	ask(&p);
	for (unsigned i = 0; i < n_acts && !p.script.wrong; i++) {
		if (below(&p, calm))
			act_in_order(&p);
		else
			act_of_fate(&p);
		if (!is_load_right(w))
			p.script.wrong = "load is not what is at work";
	}
	script_end(w);
	t->n_asked += p.n_asked;
	return check(&p, t);
}

static void play_seeds(const struct pairs_how *how) {
	struct world *w = pairs_world(how, N_PREFILLS, N_DECODES);
	const char *only = getenv("HEADRACE_SEED");
	size_t first = only ? parsed_number(slice_of(only), 10) : 0;
	struct tally t = { 0 };

	for (size_t seed = first; seed < (only ? first + 1 : SEEDS); seed++) {
		const char *wrong = play_seed(w, seed, &t);
		if (wrong)
			fail_msg(
			    "%s, seed %zu: %s\n%.*s", how->connector, seed, wrong, (int)w->log.n, w->log.p);
	}
	uint64_t n_prefills = metric_read(&w->worker.metrics->prefills);
	uint64_t n_retries = metric_read(&w->worker.metrics->retries);
	print_message("%s: %u asked, %u good, %u merged, %u cut, %llu prefills, %llu retries\n",
	    how->connector, t.n_asked, t.n_good, t.n_merged, t.n_cut, (unsigned long long)n_prefills,
	    (unsigned long long)n_retries);
	/* They are of use only if many go well, and many do not. */
	if (!only)
		assert_true(t.n_good > SEEDS && t.n_merged > SEEDS / 10 && t.n_cut > SEEDS / 10 &&
		    n_prefills > SEEDS && n_retries > SEEDS / 4);
	script_renew(w);
	assert_null(world_free(&w));
}

static void test_one_after_the_other(void **state) {
	play_seeds(&pairs_nixl);
}

static void test_both_at_once(void **state) {
	play_seeds(&pairs_moriio);
	play_seeds(&pairs_sglang);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_after_the_other),
		cmocka_unit_test(test_both_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
