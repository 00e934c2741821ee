/*
 * Thousands of seeded plays of honest peers who stall, leave, die and come back at any
 * moment. A play that fails is printed: it can be repeated by its seed
 * (HEADRACE_SEED=N), and its text is a file for the fuzzer's corpus.
 */
#include "virtual/ledger.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SEEDS 3000

struct author {
	struct rng rng;
	struct bytes play;
	struct bytes todo[SCRIPT_CLIENTS_MAX]; /* what clients still have to say */
	size_t n_said[SCRIPT_CLIENTS_MAX];
	unsigned n_requests[SCRIPT_CLIENTS_MAX];
	unsigned n_clients, client;
};

static unsigned below(struct author *a, unsigned n) {
	return (unsigned)rng_below(&a->rng, n);
}

/* --- what a client is going to say ------------------------------------------------------- */

static void add_body(struct bytes *out, struct slice body, bool is_chunked, unsigned chunk_bytes) {
	if (!is_chunked) {
		bytes_printf(out, "content-length: %zu||", body.n);
		bytes_add(out, body);
		return;
	}
	bytes_printf(out, "transfer-encoding: chunked||");
	for (; body.n; body = slice_skip(body, size_min(body.n, chunk_bytes))) {
		struct slice chunk = slice_head(body, chunk_bytes);
		bytes_printf(out, "%zx|", chunk.n);
		bytes_add(out, chunk);
		bytes_printf(out, "|");
	}
	bytes_printf(out, "0||");
}

static void write_request(struct author *a) {
	static const char *const methods[] = { "POST", "POST", "POST", "POST", "GET", "HEAD", "OPTIONS",
		"DELETE" };
	static const char *const paths[] = { "/v1/chat/completions", "/v1/messages", "/v1/responses", "/x",
		"/health" };
	static const char *const models[] = { "m", "m", "m", "n", "z" };
	static const char *const sizes[] = { "0", "0", "1", "1", "2", "3" };
	struct bytes *out = &a->todo[a->client], body = { .n_max = SIZE_MAX };
	const char *method = methods[below(a, n_elems(methods))];
	char tag[48];
	snprintf(tag, sizeof(tag), "%u.%u.%s.%s.%s", a->client, a->n_requests[a->client]++,
	    sizes[below(a, n_elems(sizes))], models[below(a, n_elems(models))], below(a, 2) ? "s" : "u");
	bool is_old = !below(a, 8), has_body = strcmp(method, "POST") == 0;
	bytes_printf(
	    out, "%s %s HTTP/1.%d|host: h|x-tag: %s|", method, paths[below(a, n_elems(paths))], !is_old, tag);
	if (!below(a, 8))
		bytes_printf(out, "connection: %s|", is_old ? "keep-alive" : "close");
	if (!has_body) {
		bytes_printf(out, "|");
		return;
	}
	bytes_printf(out, "content-type: application/json|");
	if (!below(a, 6) && !is_old)
		bytes_printf(out, "expect: 100-continue|");
	script_request_body(&body, slice_of(tag));
	add_body(out, bytes_slice(&body), !is_old && below(a, 2), 1 + below(a, 5000));
	bytes_deinit(&body);
}

/* Says on, if there is something: all, a piece, or a byte. */
static void say_on(struct author *a) {
	struct bytes *todo = &a->todo[a->client];
	size_t *n_said = &a->n_said[a->client], n = todo->n - *n_said;
	if (!n)
		return;
	unsigned how = below(a, 4);
	size_t part = how < 2 ? n : how == 2 ? 1 + below(a, (unsigned)n) : size_min(n, 1 + below(a, 50));
	bytes_printf(&a->play, "@%u\n>", a->client);
	bytes_add(&a->play, (struct slice){ todo->p + *n_said, part });
	bytes_printf(&a->play, "\n");
	*n_said += part;
}

/* --- one act after the other ----------------------------------------------------------------- */

static void act_in_order(struct author *a) {
	static const unsigned parts[] = { 0, 0, 0, 1, 100, 3000 };
	switch (below(a, 11)) {
	case 0: /* a client comes, or another one goes on */
		if (a->n_clients < SCRIPT_CLIENTS_MAX && (!a->n_clients || below(a, 2))) {
			bytes_printf(&a->play, "c\n");
			a->client = a->n_clients++;
		} else {
			a->client = below(a, a->n_clients);
		}
		break;
	case 1:
	case 2:
		write_request(a);
		__attribute__((fallthrough));
	case 3:
		say_on(a);
		break;
	case 4:
		bytes_printf(&a->play, "#%u\n", below(a, 3));
		break;
	case 5:
	case 6:
		bytes_printf(&a->play, "a%u\n", below(a, below(a, 4) ? 3 : SCRIPT_KINDS));
		__attribute__((fallthrough));
	case 7:
		bytes_printf(&a->play, "+%u\n", parts[below(a, n_elems(parts))]);
		break;
	case 8:
		bytes_printf(&a->play, "w\n#0\na%u\n+0\nw\n", below(a, 3));
		break;
	case 9:
		bytes_printf(&a->play, "w\n");
		break;
	case 10:
		bytes_printf(&a->play, below(a, 4) ? ".\n" : "t%u\n", 1 + below(a, 400));
		break;
	}
}

/* An engine closes an idle connection while a request is on its way there. */
static void act_stale(struct author *a) {
	bytes_printf(&a->play, "w\n#%u\nD\n", below(a, 3));
	write_request(a);
	say_on(a);
	bytes_printf(&a->play, "w\n%s\n", below(a, 3) ? "F" : "K");
}

static void act_of_fate(struct author *a) {
	static const char *const ends[] = { "f", "x", "k", "F", "X", "K", "D", "X" };
	switch (below(a, 8)) {
	case 0:
	case 1:
		bytes_printf(&a->play, "%s\n", ends[below(a, n_elems(ends))]);
		break;
	case 2:
		act_stale(a);
		break;
	case 3:
		bytes_printf(&a->play, below(a, 2) ? "r%u\n" : "R%u\n", below(a, 300));
		break;
	case 4:
		bytes_printf(&a->play, "r\nR\n");
		break;
	case 5:
		bytes_printf(&a->play, "m%u%u\n", below(a, 4), below(a, 2) * (1 + below(a, 3)));
		break;
	case 6:
		bytes_printf(&a->play, "y%u\nv%u\n", below(a, 3) == 0, below(a, 4) ? 0 : below(a, 5));
		break;
	case 7:
		bytes_printf(&a->play, below(a, 3) ? "t%u\n" : "p%u\n", 400 + below(a, 8000));
		break;
	}
}

/* How this play differs from others from the start. */
static void set_the_stage(struct author *a) {
	static const char *const options[] = { "oa1", "oa2", "oa3", "oB1", "oB2", "oB3", "oi1048576", "oi500",
		"oh2000", "ob1000", "oc1", "of1", "om40000", "or1", "or20", "ow1", "ow20", "ot3000" };
	for (unsigned n = below(a, 4); n > 0; n--)
		bytes_printf(&a->play, "%s\n", options[below(a, n_elems(options))]);
	if (below(a, 2))
		bytes_printf(&a->play, "oH%u\n", below(a, 100));
}

static void write_play(struct author *a, uint64_t seed) {
	*a = (struct author){ .play.n_max = SIZE_MAX };
	rng_init(&a->rng, seed);
	for (unsigned i = 0; i < SCRIPT_CLIENTS_MAX; i++)
		a->todo[i].n_max = SIZE_MAX;
	set_the_stage(a);
	bytes_printf(&a->play, "c\n");
	a->n_clients = 1;
	unsigned n_acts = 10 + below(a, 120), calm = 2 + below(a, 20);
	for (unsigned i = 0; i < n_acts; i++)
		if (below(a, calm))
			act_in_order(a);
		else
			act_of_fate(a);
}

static void author_deinit(struct author *a) {
	bytes_deinit(&a->play);
	for (unsigned i = 0; i < SCRIPT_CLIENTS_MAX; i++)
		bytes_deinit(&a->todo[i]);
}

/* --- the test ----------------------------------------------------------------------------------- */

struct tally {
	unsigned n_requests, n_good, n_retries;
};

static void play_seed(struct world *w, uint64_t seed, struct tally *t) {
	struct author a;
	script_renew(w);
	write_play(&a, seed);
	const char *wrong = script_play(w, bytes_slice(&a.play));
	if (!wrong)
		wrong = ledger_check(w, true);
	if (wrong) {
		fprintf(stderr, "%.*s\n%.*s\n", (int)a.play.n, a.play.p, (int)w->log.n, w->log.p);
		fail_msg("seed %llu: %s", (unsigned long long)seed, wrong);
	}
	t->n_requests += w->n_lines;
	for (struct slice rest = bytes_slice(&w->log); parsed_has(rest, "\"cause\":\"none\""); t->n_good++) {
		const char *at = memmem(rest.p, rest.n, "\"cause\":\"none\"", 14);
		rest = slice_skip(rest, (size_t)(at + 14 - rest.p));
	}
	author_deinit(&a);
}

static void test_seeds(void **state) {
	struct world *w = script_world();
	struct tally t = { 0 };
	const char *only = getenv("HEADRACE_SEED");
	size_t seed = only ? parsed_number(slice_of(only), 10) : 0;
	for (uint64_t i = seed; i < (only ? seed + 1 : SEEDS); i++)
		play_seed(w, i, &t);
	if (only)
		return;
	/* They are of use only if most go well, and some do not. */
	uint64_t n_hedges = metric_read(&w->worker.metrics->hedges);
	uint64_t n_won = metric_read(&w->worker.metrics->hedges_won);
	print_message("%u requests, %u good, %llu hedges, %llu won\n", t.n_requests, t.n_good,
	    (unsigned long long)n_hedges, (unsigned long long)n_won);
	assert_true(n_won > 50 && n_hedges > n_won + 50);
	assert_true(t.n_requests > 2 * SEEDS && t.n_good > t.n_requests / 5 && t.n_good < t.n_requests);
	script_renew(w);
	assert_null(world_free(&w));
}

int main(void) {
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_seeds) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
