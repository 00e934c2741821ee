/* Who asks, what it may ask for, and that what was reserved for it is settled once, whatever became of it. */
#include "virtual/expect.h"

#include "router/tenancy.h"

#define BODY  "{\"model\":\"m\",\"max_tokens\":10}"
#define USAGE "{\"usage\":{\"prompt_tokens\":30,\"completion_tokens\":20}}"

enum { A = 1, B };

/* Of m they have just so many tokens; a has m and those like x-1, b has all. */
#define A_TOKENS 1000u

static const char *const a_models[] = { "m", "x-*" };
static const struct tenant tenants[] = {
	{ .name = "a",
	    .weight = 1,
	    .models = { a_models, 2 },
	    .tokens_per_minute = A_TOKENS,
	    .requests_per_minute = 60 },
	{ .name = "b", .weight = 1, .privacy_floor = PRIVACY_INTERNAL },
};

static void add_key(struct world *w, uint32_t tenant, const char *key) {
	uint8_t digest[DIGEST_BYTES];

	digester_sha256(w->worker.digester, slice_of(key), digest);
	assert_int_equal(tenant_table_add(w->config.tenants, tenant, digest), 0);
}

static struct world *protect(struct world *w) {
	w->config.tenants = tenant_table_new(tenants, n_elems(tenants));
	world_reload(w);
	add_key(w, A, "key-a");
	add_key(w, B, "key-b");
	return w;
}

static void end(struct world *w, unsigned n_requests) {
	struct tenant_table *table = w->config.tenants;

	expect_end(w, n_requests);
	tenant_table_free(&table);
}

static struct peer *post_with(struct world *w, const char *fields, const char *body) {
	char text[5120];

	snprintf(text, sizeof(text),
	    "POST " CHAT
	    " HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n%scontent-length: %zu\r\n\r\n%s",
	    fields, strlen(body), body);
	return ask(w, text);
}

#define AS_A "authorization: Bearer key-a\r\n"
#define AS_B "x-api-key: key-b\r\n"

/* So many of a's for m are left, by this field. */
static uint64_t left_of(struct world *w, const char *name) {
	char room[RATE_FIELDS_BYTES];
	struct slice fields = rate_fields(w->router.settings->rates, A,
	    snapshot_model(w->worker.view->snapshot, SLICE("m"))->label, w->worker.loop.now_ns, room);
	const char *at = memmem(fields.p, fields.n, name, strlen(name));

	assert_non_null(at);
	return strtoul(at + strlen(name), NULL, 10);
}

static uint64_t tokens_left(struct world *w) {
	return left_of(w, "x-ratelimit-remaining-tokens: ");
}

static uint64_t requests_left(struct world *w) {
	return left_of(w, "x-ratelimit-remaining-requests: ");
}

/* Nothing is left open: time passes, and all is there again. */
static void expect_used(struct world *w, uint64_t least, uint64_t most) {
	assert_in_range(A_TOKENS - tokens_left(w), least, most);
	world_pass(w, 60000);
	assert_int_equal(tokens_left(w), A_TOKENS);
}

/* --- who asks ------------------------------------------------------------------------------ */

static void test_who_has_no_key_is_refused(void **state) {
	static const char *const fields[] = { "", "authorization: Bearer key-c\r\n", "x-api-key: key-A\r\n",
		AS_A "x-api-key: key-b\r\n" };
	struct world *w = protect(WORLD("m"));

	for (unsigned i = 0; i < n_elems(fields); i++) {
		struct peer *client = post_with(w, fields[i], BODY);
		struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 401, NULL);
		expect_field(&m, "www-authenticate", "Bearer");
		assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"invalid_api_key\""));
		expect_no_field(&m, "x-ratelimit-limit-tokens");
		parsed_deinit(&m);
		expect_logged(w, 401, "invalid_key");
	}
	expect_refusal(post_with(w, AS_A AS_A, BODY), 400, "bad_request");
	expect_logged(w, 400, "credentials");
	assert_null(net_newest(-1)); /* no engine has heard of it */
	assert_false(parsed_has(bytes_slice(&w->log), "key-"));
	assert_int_equal(metric_read(&w->worker.metrics->keys_refused), n_elems(fields) + 1);
	end(w, n_elems(fields) + 1);
}

static void test_health_needs_no_key_and_the_rest_does(void **state) {
	static const char *const open[] = { "/health", "/status", "/liveness", "/readiness" };
	static const char *const closed[] = { "/v1/models", "/models", "/services", "/stats" };
	struct world *w = protect(WORLD("m"));
	char text[128];

	for (unsigned i = 0; i < n_elems(open); i++) {
		snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nhost: h\r\n\r\n", open[i]);
		expect_answer(ask(w, text), 200, NULL);
		snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nhost: h\r\n\r\n", closed[i]);
		expect_refusal(ask(w, text), 401, "invalid_api_key");
		snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nhost: h\r\n" AS_B "\r\n", closed[i]);
		expect_answer(ask(w, text), 200, NULL);
	}
	end(w, 3 * n_elems(open));
}

/* The key is not the engine's business, unless the configuration says so. */
static void test_keys_stay_here(void **state) {
	struct world *w = protect(WORLD("m"));

	for (unsigned passes = 0; passes < 3; passes++) {
		w->config.passes_keys = passes;
		w->config.upstream_key = passes == 2 ? "ours" : NULL;
		struct peer *client = post_with(w, AS_A, BODY), *engine = net_newest(-1);
		struct parsed m = expect_request_head(engine, "POST " CHAT " HTTP/1.1");
		if (passes)
			expect_field(&m, "authorization", passes == 2 ? "Bearer ours" : "Bearer key-a");
		else
			expect_no_field(&m, "authorization");
		parsed_deinit(&m);
		say(w, engine, ANSWER_OK);
		expect_answer(client, 200, "ok");
	}
	end(w, 3);
}

/* --- what it may ask for ---------------------------------------------------------------------- */

static void test_models_that_are_not_for_it(void **state) {
	struct world *w = protect(WORLD("m,n,x-1"));

	expect_refusal(post_with(w, AS_A, "{\"model\":\"n\"}"), 403, "tenant_denied");
	expect_refusal(post_with(w, AS_A, "{\"model\":\"nobody-has-it\"}"), 403, "tenant_denied");
	expect_refusal(post_with(w, AS_A, "{\"prompt\":\"no model\"}"), 403, "tenant_denied");
	expect_refusal(post_with(w, AS_A, "{\"model\":\"x-2\"}"), 404, "model_not_found");
	expect_refusal(post_with(w, AS_B, "{\"model\":\"nobody-has-it\"}"), 404, "model_not_found");
	assert_null(net_newest(-1));
	struct peer *client = post_with(w, AS_A, "{\"model\":\"x-1\"}");
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	client = ask(w, "GET /v1/files HTTP/1.1\r\nhost: h\r\n" AS_A "\r\n"); /* it makes no model work */
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	assert_int_equal(
	    metric_read(&w->worker.tenants[tenant_get(w->config.tenants, A)->label].n_denied), 3);
	end(w, 7);
}

/* One model is there, and it is not for this one: that its name comes late must not help. */
static void test_a_late_name_is_waited_for(void **state) {
	struct world *w = protect(WORLD("n"));
	struct peer *client = net_client();

	say(w, client,
	    "POST " CHAT " HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n" AS_A
	    "content-length: 42\r\n\r\n{\"messages\":[],");
	assert_null(net_newest(-1));
	expect_nothing(client);
	say(w, client, "\"model\":        \"n\"   \n   }");
	expect_refusal(client, 403, "tenant_denied");
	end(w, 1);
}

static void test_a_list_has_its_models_alone(void **state) {
	struct world *w = protect(WORLD("m,n,x-1"));

	for (unsigned i = 0; i < 2; i++) {
		struct peer *client = ask(w,
		    i ? "GET /v1/models HTTP/1.1\r\nhost: h\r\n" AS_B "\r\n"
		      : "GET /v1/models HTTP/1.1\r\nhost: h\r\n" AS_A "\r\n");
		struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 200, NULL);
		assert_true(parsed_has(bytes_slice(&m.body), "\"id\":\"m\""));
		assert_true(parsed_has(bytes_slice(&m.body), "\"id\":\"x-1\""));
		assert_int_equal(parsed_has(bytes_slice(&m.body), "\"id\":\"n\""), i);
		parsed_deinit(&m);
	}
	end(w, 2);
}

/* Nobody is cleared for more than the lowest here. */
static void test_a_floor_holds_for_all_of_a_tenants_requests(void **state) {
	struct world *w = protect(WORLD("m"));

	expect_refusal(post_with(w, AS_B, BODY), 403, "privacy_violation");
	struct peer *client = post_with(w, AS_A, BODY);
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	end(w, 2);
}

/* --- what it may use --------------------------------------------------------------------------- */

static void test_usage_settles_what_was_reserved(void **state) {
	struct world *w = protect(WORLD("m"));
	struct peer *client = post_with(w, AS_A, BODY), *engine = net_newest(-1);

	assert_true(tokens_left(w) < A_TOKENS); /* reserved */
	say(w, engine,
	    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-ratelimit-limit-tokens: 5\r\n"
	    "x-ratelimit-other: 5\r\ncontent-length: 53\r\n\r\n" USAGE);
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 200, USAGE);
	expect_field(&m, "x-ratelimit-limit-tokens", "1000");
	expect_field(&m, "x-ratelimit-limit-requests", "60");
	expect_field(&m, "x-ratelimit-remaining-requests", "59");
	expect_field(&m, "x-ratelimit-reset-requests", "1s");
	expect_no_field(&m, "x-ratelimit-other");
	parsed_deinit(&m);
	expect_used(w, 50, 50);
	end(w, 1);
}

/* An end of each kind gives back what was not used. */
static void test_every_end_settles(void **state) {
	struct world *w = protect(WORLD("m"));
	struct peer *client = post_with(w, AS_A, BODY);
	peer_close(client); /* it leaves while the engine computes: the prompt was its */
	world_settle(w);
	expect_used(w, 0, 20);

	client = post_with(w, AS_A, BODY);
	say(w, net_newest(-1), "HTTP/1.1 400 No\r\ncontent-length: 2\r\n\r\nno");
	expect_answer(client, 400, "no");
	expect_used(w, 0, 0);

	client = post_with(w, AS_A, BODY);
	peer_close(net_newest(-1)); /* the engine dies */
	world_settle(w);
	expect_refusal(client, 502, "upstream_failed");
	expect_used(w, 0, 20);

	client = post_with(w, AS_A, "{\"model\":\"m\",\"max_tokens\":500,\"stream\":true}");
	struct peer *engine = net_newest(-1);
	say(w, engine, SSE_HEAD);
	for (unsigned i = 0; i < 3; i++)
		say_chunk(w, engine, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
	assert_true(tokens_left(w) < A_TOKENS);
	peer_close(client); /* it leaves in the middle: what was seen counts */
	world_settle(w);
	expect_used(w, 3, 30);
	end(w, 4);
}

/* Most of a minute's worth by its prompt. */
static const char *long_body(void) {
	static char text[4096];
	char prompt[2801];

	memset(prompt, 'a', sizeof(prompt) - 1);
	prompt[sizeof(prompt) - 1] = '\0';
	snprintf(text, sizeof(text), "{\"model\":\"m\",\"max_tokens\":10,\"prompt\":\"%s\"}", prompt);
	return text;
}

static void test_a_limit_is_told(void **state) {
	struct world *w = protect(WORLD("m"));
	struct peer *client = post_with(w, AS_A, long_body());

	say(w, net_newest(-1), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"); /* without usage */
	expect_answer(client, 200, "ok");
	client = post_with(w, AS_A, long_body());
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 429, NULL);
	assert_true(parsed_has(bytes_slice(&m.body), "\"code\":\"rate_limit_exceeded\""));
	assert_true(parsed_has(bytes_slice(&m.body), "tokens a minute"));
	assert_true(parsed_has(bytes_slice(&m.body), ": 1000, there is room for this request in "));
	expect_field(&m, "x-should-retry", "false");
	expect_field(&m, "x-ratelimit-limit-tokens", "1000");
	struct slice wait = parsed_field(&m, "retry-after");
	unsigned long wait_s = strtoul(wait.p, NULL, 10);
	assert_in_range(wait_s, 20, 60);
	parsed_deinit(&m);
	expect_logged(w, 429, "token_rate");
	/* the other tenant has nothing to do with it, and after that time there is room */
	world_pass(w, (wait_s - 1) * 1000);
	expect_refusal(post_with(w, AS_A, long_body()), 429, "rate_limit_exceeded");
	world_pass(w, 1000);
	client = post_with(w, AS_A, long_body());
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	end(w, 4);
}

/* Who is over a limit is told so, not kept waiting; who left the queue, or was turned away from it, has used
 * nothing. */
static void test_limits_come_before_the_queue(void **state) {
	struct world *w = protect(WORLD("m"));
	world_admit(
	    w, (struct router_admission){ .max_requests = 1, .queue_size = 1, .queue_timeout_ms = 5000 });
	struct peer *first = post_with(w, AS_A, BODY), *engine = net_newest(-1);

	struct peer *waits = post_with(w, AS_A, long_body());
	expect_nothing(waits);
	assert_true(tokens_left(w) < A_TOKENS / 2);
	expect_refusal(post_with(w, AS_A, long_body()), 429, "rate_limit_exceeded");
	assert_int_equal(requests_left(w), 58);
	expect_refusal(post_with(w, AS_A, BODY), 503, "overloaded"); /* the queue is full */
	assert_int_equal(requests_left(w), 58);
	peer_close(waits);
	world_settle(w);
	assert_int_equal(requests_left(w), 59);
	assert_in_range(tokens_left(w), A_TOKENS - 20, A_TOKENS - 1); /* the first one's */
	say(w, engine, ANSWER_OK);
	expect_answer(first, 200, "ok");
	end(w, 4);
}

/* Refused by an engine, and tried again at another: that is one request, reserved once. */
static void test_a_retry_reserves_nothing_more(void **state) {
	struct world *w = protect(WORLD("m", "m"));
	w->config.retry.attempts = 2;
	struct peer *client = post_with(w, AS_A, BODY);
	uint64_t left = tokens_left(w);

	say(w, net_newest(-1), "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy");
	world_pass(w, 51);
	assert_in_range(tokens_left(w), left, left + 1);
	say(w, net_newest(-1),
	    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 53\r\n\r\n" USAGE);
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 200, USAGE);
	expect_field(&m, "x-ratelimit-remaining-requests", "59");
	parsed_deinit(&m);
	expect_used(w, 49, 50);
	end(w, 1);
}

static void test_all_have_one_limit_a_second(void **state) {
	struct world *w = WORLD("m");
	w->config.requests_per_second = 2;
	world_reload(w);

	for (unsigned i = 0; i < 2; i++) {
		struct peer *client = post(w, CHAT, BODY);
		say(w, net_newest(-1), ANSWER_OK);
		struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 200, "ok");
		expect_no_field(&m, "x-ratelimit-limit-requests");
		parsed_deinit(&m);
	}
	struct peer *client = post(w, CHAT, BODY);
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 429, NULL);
	expect_field(&m, "retry-after", "1");
	expect_no_field(&m, "x-should-retry");
	assert_true(parsed_has(bytes_slice(&m.body), "requests a second is reached: 2, "));
	parsed_deinit(&m);
	expect_answer(ask(w, "GET /health HTTP/1.1\r\nhost: h\r\n\r\n"), 200, NULL);
	world_pass(w, 500);
	client = post(w, CHAT, BODY);
	say(w, net_newest(-1), ANSWER_OK);
	expect_answer(client, 200, "ok");
	end(w, 5);
}

/* --- who asks for too much ----------------------------------------------------------------------- */

#define FLOOD   8   /* connections on which one tenant asks again as soon as it is answered */
#define N_CALM  200 /* requests of the other one, one each CALM_MS */
#define CALM_MS 20u
#define STEP_MS 2u
#define WORK_MS 10u
#define EXPENSIVE                                                                                            \
	"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 54\r\n\r\n"                    \
	"{\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":490}}"

/* An engine's connection, and when what it has is answered; 0: it has nothing. */
static uint64_t due_ms[NET_PEERS_MAX];

static void engines_work(struct world *w, uint64_t now_ms) {
	for (unsigned i = 1; i < net.n_peers; i++) {
		struct peer *p = &net.peers[i];

		if (p->engine < 0 || p->was_closed)
			continue;
		if (!due_ms[i] && peer_unseen(p).n) {
			struct parsed m = expect_message(p, PARSED_REQUEST);
			parsed_deinit(&m);
			due_ms[i] = now_ms + WORK_MS;
		} else if (due_ms[i] && now_ms >= due_ms[i]) {
			due_ms[i] = 0;
			peer_says(p, EXPENSIVE);
		}
	}
}

static void ask_for(struct peer *client, const char *fields) {
	static const char body[] = "{\"model\":\"m\",\"max_tokens\":450}";
	char text[512];

	snprintf(text, sizeof(text),
	    "POST " CHAT
	    " HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n%scontent-length: %zu\r\n\r\n%s",
	    fields, strlen(body), body);
	peer_says(client, text);
}

/* The status of its answer, which a limit must have named when it is 429; 0: there is none yet. */
static unsigned answer_to(struct peer *client) {
	if (!peer_unseen(client).n)
		return 0;
	struct parsed m = expect_message(client, PARSED_RESPONSE);
	unsigned status = m.status;

	if (status == 429)
		assert_true(parsed_has(bytes_slice(&m.body), "tokens a minute"));
	parsed_deinit(&m);
	return status;
}

struct flood {
	struct peer *clients[FLOOD];
	unsigned n_clients, n[600]; /* answers, by status */
};

static void flood_on(struct flood *f, bool goes_on) {
	for (unsigned i = 0; i < f->n_clients; i++) {
		unsigned status = f->clients[i] ? answer_to(f->clients[i]) : 0;

		if (!status)
			continue;
		f->n[status]++;
		if (goes_on)
			ask_for(f->clients[i], AS_A);
		else
			f->clients[i] = NULL;
	}
}

static int u64_order(const void *a, const void *b) {
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* The 99th percentile of what b's requests take while a has so many connections; two requests are served at a
 * time. */
static uint64_t calm_p99_ms(unsigned n_flood, unsigned *n_refused_out) {
	static const struct tenant pair[] = {
		{ .name = "a", .tokens_per_minute = A_TOKENS, .weight = 1 },
		{ .name = "b", .weight = 1 },
	};
	struct world *w = WORLD("m");
	uint64_t took_ms[N_CALM], asked_ms = 0;
	struct flood flood = { .n_clients = n_flood };
	unsigned n_calm = 0, n_asked = 0;

	memset(due_ms, 0, sizeof(due_ms));
	w->config.tenants = tenant_table_new(pair, n_elems(pair));
	world_reload(w);
	add_key(w, A, "key-a");
	add_key(w, B, "key-b");
	world_admit(
	    w, (struct router_admission){ .max_requests = 2, .queue_size = 100, .queue_timeout_ms = 5000 });
	struct peer *calm = net_client();
	for (unsigned i = 0; i < n_flood; i++)
		ask_for(flood.clients[i] = net_client(), AS_A);
	for (uint64_t now_ms = 1; n_calm < N_CALM; now_ms += STEP_MS) {
		assert_in_range(now_ms, 1, 100 * N_CALM * CALM_MS);
		if (n_asked == n_calm && now_ms >= 1 + n_asked * CALM_MS) {
			ask_for(calm, AS_B);
			asked_ms = now_ms;
			n_asked++;
		}
		world_pass(w, STEP_MS);
		engines_work(w, now_ms);
		world_settle(w);
		flood_on(&flood, true);
		unsigned status = answer_to(calm);
		if (status) {
			assert_int_equal(status, 200);
			took_ms[n_calm++] = now_ms - asked_ms;
		}
	}
	for (uint64_t now_ms = 1u << 20; now_ms < (1u << 20) + 200; now_ms += STEP_MS) {
		world_pass(w, STEP_MS);
		engines_work(w, now_ms);
		world_settle(w);
		flood_on(&flood, false);
	}
	*n_refused_out = flood.n[429];
	unsigned n_served = flood.n[200];
	assert_in_range(n_served, n_flood ? 1 : 0, 3); /* its tokens are for no more */
	end(w, N_CALM + n_served + flood.n[429]);
	qsort(took_ms, N_CALM, sizeof(took_ms[0]), u64_order);
	return took_ms[N_CALM * 99 / 100];
}

static void test_who_is_over_its_tokens_keeps_nobody_else_waiting(void **state) {
	unsigned n_refused;
	uint64_t quiet_ms = calm_p99_ms(0, &n_refused);
	assert_int_equal(n_refused, 0);
	uint64_t flooded_ms = calm_p99_ms(FLOOD, &n_refused);

	assert_true(n_refused > 20 * N_CALM);
	assert_int_equal(flooded_ms, quiet_ms);
}

/* --- pages --------------------------------------------------------------------------------------- */

static const char *const pages[] = { "https://chat.example" };

static void test_pages_may_read_if_they_are_allowed(void **state) {
	static const char engines[] =
	    "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\naccess-control-allow-credentials: "
	    "true\r\ncontent-length: 2\r\n\r\nok";
	struct world *w = protect(WORLD("m"));
	w->config.cors_origins = (struct option_list){ pages, 1 };

	struct peer *client = ask(w,
	    "OPTIONS " CHAT " HTTP/1.1\r\nhost: h\r\norigin: https://chat.example\r\n"
	    "access-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n\r\n");
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 204, "");
	expect_field(&m, "access-control-allow-origin", "https://chat.example");
	expect_field(&m, "access-control-allow-headers", "authorization");
	parsed_deinit(&m);
	assert_null(net_newest(-1));
	for (unsigned i = 0; i < 2; i++) {
		client = post_with(w,
		    i ? AS_A "origin: https://evil.example\r\n" : AS_A "origin: https://chat.example\r\n",
		    BODY);
		say(w, net_newest(-1), engines);
		m = expect_answer_kind(client, PARSED_RESPONSE, 200, "ok");
		expect_no_field(&m, "access-control-allow-credentials");
		if (i)
			expect_no_field(&m, "access-control-allow-origin");
		else
			expect_field(&m, "access-control-allow-origin", "https://chat.example");
		expect_field(&m, "vary", "origin");
		parsed_deinit(&m);
	}
	client =
	    post_with(w, "origin: https://chat.example\r\n", BODY); /* a page can read why it is refused */
	m = expect_answer_kind(client, PARSED_RESPONSE, 401, NULL);
	expect_field(&m, "access-control-allow-origin", "https://chat.example");
	parsed_deinit(&m);
	client = ask(w, "GET /v1/models HTTP/1.1\r\nhost: h\r\n" AS_A "origin: https://chat.example\r\n\r\n");
	m = expect_answer_kind(client, PARSED_RESPONSE, 200, NULL);
	expect_field(&m, "access-control-allow-origin", "https://chat.example");
	parsed_deinit(&m);
	end(w, 5);
}

/* Without origins of ours it is the engine that answers. */
static void test_pages_are_engines_business_by_default(void **state) {
	struct world *w = WORLD("m");
	struct peer *client = ask(w,
	    "OPTIONS " CHAT " HTTP/1.1\r\nhost: h\r\norigin: https://chat.example\r\n"
	    "access-control-request-method: POST\r\n\r\n");

	say(w, net_newest(-1),
	    "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\ncontent-length: 2\r\n\r\nok");
	struct parsed m = expect_answer_kind(client, PARSED_RESPONSE, 200, "ok");
	expect_field(&m, "access-control-allow-origin", "*");
	parsed_deinit(&m);
	expect_end(w, 1);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_has_no_key_is_refused),
		cmocka_unit_test(test_health_needs_no_key_and_the_rest_does),
		cmocka_unit_test(test_keys_stay_here),
		cmocka_unit_test(test_models_that_are_not_for_it),
		cmocka_unit_test(test_a_late_name_is_waited_for),
		cmocka_unit_test(test_a_list_has_its_models_alone),
		cmocka_unit_test(test_a_floor_holds_for_all_of_a_tenants_requests),
		cmocka_unit_test(test_usage_settles_what_was_reserved),
		cmocka_unit_test(test_every_end_settles),
		cmocka_unit_test(test_a_limit_is_told),
		cmocka_unit_test(test_limits_come_before_the_queue),
		cmocka_unit_test(test_a_retry_reserves_nothing_more),
		cmocka_unit_test(test_all_have_one_limit_a_second),
		cmocka_unit_test(test_who_is_over_its_tokens_keeps_nobody_else_waiting),
		cmocka_unit_test(test_pages_may_read_if_they_are_allowed),
		cmocka_unit_test(test_pages_are_engines_business_by_default),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
