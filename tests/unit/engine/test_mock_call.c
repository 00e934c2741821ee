/* A mock engine on a thread of its own, and clients that speak to it byte by byte over loopback. */
#include "unit/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"
#include "engine/mock.h"
#include "engine/random.h"

struct rig {
	struct mock mock;
	struct mock_config config;
	pthread_t thread;
	struct sockaddr_in at;
};

static void *run_mock(void *arg) {
	mock_run(arg);
	return NULL;
}

#define FLAGS_MAX 12

/* Flags end with NULL. */
static struct rig *rig_new(char *const *flags) {
	struct rig *rig = calloc(1, sizeof(*rig));
	char *argv[FLAGS_MAX] = { "mock-engine", "--models", "m", "--prefill-rate", "0" };
	socklen_t n = sizeof(rig->at);
	int argc = 5;

	while (*flags && argc < FLAGS_MAX)
		argv[argc++] = *flags++;
	assert_int_equal(mock_config_load(&rig->config, argc, argv), -1);
	rig->at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = listener_bind((struct sockaddr *)&rig->at, false);
	assert_true(fd >= 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&rig->at, &n), 0);
	assert_int_equal(mock_open(&rig->mock, &rig->config, fd), 0);
	assert_int_equal(pthread_create(&rig->thread, NULL, run_mock, &rig->mock), 0);
	return rig;
}

#define RIG(...) rig_new((char *[]){ __VA_ARGS__, NULL })

static void rig_free(struct rig **rig) {
	mock_stop(&(*rig)->mock);
	pthread_join((*rig)->thread, NULL);
	mock_close(&(*rig)->mock);
	mock_config_deinit(&(*rig)->config);
	free(*rig);
	*rig = NULL;
}

/* room_bytes: what the kernel may keep for a client that does not read; 0: as it likes. */
static int connect_with_room(const struct rig *rig, int room_bytes) {
	const struct timeval limit = { .tv_sec = 30 }; /* only ends what never comes */
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (room_bytes)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room_bytes, sizeof(room_bytes));
	assert_int_equal(connect(fd, (const struct sockaddr *)&rig->at, sizeof(rig->at)), 0);
	return fd;
}

static int connect_to(const struct rig *rig) {
	return connect_with_room(rig, 0);
}

static void send_text(int fd, const char *text) {
	size_t n = strlen(text);
	assert_int_equal(send(fd, text, n, MSG_NOSIGNAL), (ssize_t)n);
}

enum end { END_FIN, END_RESET, END_FOUND };

/* Appends what comes to `in` until `until` stands in it, or the connection ends. */
static enum end receive(int fd, struct bytes *in, const char *until) {
	char part[65536];
	for (;;) {
		if (until && in->n && memmem(in->p, in->n, until, strlen(until)))
			return END_FOUND;
		ssize_t n = recv(fd, part, sizeof(part), 0);
		if (n < 0 && errno != ECONNRESET)
			fail_msg("nothing comes any more: %s", strerror(errno));
		if (n <= 0)
			return n ? END_RESET : END_FIN;
		assert_true(bytes_add(in, (struct slice){ part, (size_t)n }));
	}
}

static bool has(const struct bytes *b, const char *text) {
	return b->n && memmem(b->p, b->n, text, strlen(text));
}

static size_t count(const struct bytes *b, const char *text) {
	size_t n = 0, n_text = strlen(text);
	for (size_t i = 0; i + n_text <= b->n; i++)
		n += b->p[i] == text[0] && memcmp(b->p + i, text, n_text) == 0;
	return n;
}

static void post(int fd, const char *path, const char *fields, const char *body) {
	char text[4096];
	snprintf(text, sizeof(text), "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n%s\r\n%s", path,
	    strlen(body), fields, body);
	send_text(fd, text);
}

/* One request on a connection of its own, read to its end. `in` is cleared first. */
static enum end ask(
    const struct rig *rig, const char *path, const char *fields, const char *body, struct bytes *in) {
	char all[256];
	int fd = connect_to(rig);
	snprintf(all, sizeof(all), "Connection: close\r\n%s", fields);
	post(fd, path, all, body);
	bytes_clear(in);
	enum end end = receive(fd, in, NULL);
	close(fd);
	return end;
}

/* Asks for `path` again and again until `text` stands in the answer. */
static void await(const struct rig *rig, const char *path, const char *text) {
	struct bytes in = { .n_max = 1 << 24 };
	int fd = connect_to(rig);
	char request[256];
	snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
	do {
		bytes_clear(&in);
		send_text(fd, request);
		receive(fd, &in, "\r\n\r\n");
		const char *length = memmem(in.p, in.n, "content-length: ", 16);
		assert_non_null(length);
		uint64_t n_left;
		assert_true(
		    text_uint((struct slice){ length + 16, strcspn(length + 16, "\r") }, 1 << 24, &n_left));
		char *body = (char *)memmem(in.p, in.n, "\r\n\r\n", 4) + 4;
		n_left -= (size_t)(in.p + in.n - body);
		while (n_left > 0) {
			char part[4096];
			ssize_t n = recv(fd, part, size_min(n_left, sizeof(part)), 0);
			assert_true(n > 0);
			bytes_add(&in, (struct slice){ part, (size_t)n });
			n_left -= (size_t)n;
		}
	} while (!has(&in, text));
	close(fd);
	bytes_deinit(&in);
}

#define CHAT          "/v1/chat/completions"
#define MESSAGES      "\"messages\":[{\"role\":\"user\",\"content\":\"one two three\"}]"
#define PLAIN         "{" MESSAGES "}"
#define STREAM        "{\"stream\":true," MESSAGES "}"
#define ENDLESS       "{\"stream\":true,\"max_tokens\":1000000," MESSAGES "}"
#define LEDGER(state) "\"" state "\":1"

static void a_plain_and_a_streamed_chat(void **state) {
	struct rig *rig = RIG("--reply", "echo", "--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	assert_int_equal(ask(rig, CHAT, "", PLAIN, &in), END_FIN);
	assert_true(has(&in, "HTTP/1.1 200 OK\r\n"));
	assert_true(has(&in, "connection: close\r\n"));
	assert_true(has(&in, "\"content\":\"one two three\""));
	assert_int_equal(ask(rig, CHAT, "", STREAM, &in), END_FIN);
	assert_true(has(&in, "content-type: text/event-stream; charset=utf-8\r\n"));
	assert_true(has(&in, "transfer-encoding: chunked\r\n"));
	assert_int_equal(count(&in, "\ndata: {"), 4);
	assert_true(has(&in, "data: [DONE]\n\n\r\n0\r\n\r\n"));
	await(rig, "/mock/ledger", "\"finished\":2");
	await(rig, "/load", "\"server_load\":0");
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_connection_serves_many_requests(void **state) {
	struct rig *rig = RIG("--reply", "echo", "--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	int fd = connect_to(rig);
	post(fd, CHAT, "", PLAIN);
	post(fd, CHAT, "", STREAM); /* pipelined */
	post(fd, "/v1/nowhere", "", "{}");
	receive(fd, &in, "Not Found");
	assert_int_equal(count(&in, "HTTP/1.1 200 OK"), 2);
	assert_int_equal(count(&in, "HTTP/1.1 404 Not Found"), 1);
	close(fd);
	bytes_deinit(&in);
	rig_free(&rig);
}

static void bodies_come_in_any_framing(void **state) {
	struct rig *rig = RIG("--reply", "echo", "--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	int fd = connect_to(rig);
	send_text(fd,
	    "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
	    "Expect: 100-continue\r\n\r\n");
	receive(fd, &in, "HTTP/1.1 100 Continue\r\n\r\n");
	send_text(fd, "a\r\n{\"prompt\":\r\n");
	send_text(fd, "b\r\n\"one two\" }\r\n0\r\n\r\n");
	receive(fd, &in, "\"text\":\"one two\"");
	assert_int_equal(count(&in, "100 Continue"), 1);
	bytes_clear(&in);
	send_text(
	    fd, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n");
	assert_int_equal(receive(fd, &in, NULL), END_FIN);
	assert_true(has(&in, "HTTP/1.1 400 Bad Request\r\n"));
	close(fd);
	bytes_deinit(&in);
	rig_free(&rig);
}

static void an_old_client_gets_a_stream_that_ends_with_the_connection(void **state) {
	struct rig *rig = RIG("--reply", "echo", "--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	char request[512];
	int fd = connect_to(rig);
	snprintf(request, sizeof(request),
	    "POST " CHAT " HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: %zu\r\n\r\n%s",
	    strlen(STREAM), STREAM);
	send_text(fd, request);
	assert_int_equal(receive(fd, &in, NULL), END_FIN);
	assert_false(has(&in, "chunked"));
	assert_true(has(&in, "connection: close\r\n"));
	assert_true(slice_eq(slice_skip(bytes_slice(&in), in.n - 14), SLICE("data: [DONE]\n\n")));
	close(fd);
	bytes_deinit(&in);
	rig_free(&rig);
}

static void too_large_a_body_is_refused(void **state) {
	struct rig *rig = RIG("--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	int fd = connect_to(rig);
	send_text(fd, "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n");
	receive(fd, &in, "\r\n\r\n");
	assert_true(has(&in, "HTTP/1.1 413 "));
	close(fd);
	bytes_deinit(&in);
	rig_free(&rig);
}

static void keys_are_asked_for_under_v1(void **state) {
	static const struct {
		const char *path, *fields;
		bool good;
	} rows[] = {
		{ CHAT, "", false },
		{ CHAT, "Authorization: Bearer wrong\r\n", false },
		{ CHAT, "Authorization: Bearer secre\r\n", false },
		{ CHAT, "Authorization: secret\r\n", false },
		{ CHAT, "Authorization: Bearer secret\r\n", true },
		{ CHAT, "authorization: bearer  secret\r\n", true },
		{ CHAT, "X-Api-Key: secret\r\n", true },
		{ CHAT, "X-Api-Key: secret2\r\n", false },
		{ "/v1/nowhere", "", false },
		{ "/mock/faults", "", true },
	};
	struct rig *rig = RIG("--itl", "0", "--api-key", "secret");
	struct bytes in = { .n_max = 1 << 20 };
	for (size_t i = 0; i < n_elems(rows); i++) {
		const char *body = strcmp(rows[i].path, CHAT) == 0 ? PLAIN : "none";
		ask(rig, rows[i].path, rows[i].fields, body, &in);
		assert_int_equal(has(&in, "HTTP/1.1 200 OK"), rows[i].good);
		assert_int_equal(has(&in, "HTTP/1.1 401 Unauthorized"), !rows[i].good);
		assert_int_equal(has(&in, "{\"error\":\"Unauthorized\"}"), !rows[i].good);
	}
	bytes_deinit(&in);
	rig_free(&rig);
}

static void refusals_have_the_shape_of_the_api(void **state) {
	struct rig *rig = RIG("--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	ask(rig, CHAT, "", "{\"model\":\"no\"," MESSAGES "}", &in);
	assert_true(has(&in, "HTTP/1.1 404 Not Found\r\n"));
	assert_true(has(&in, "\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404"));
	ask(rig, "/v1/messages", "", "{", &in);
	assert_true(has(&in, "HTTP/1.1 400 Bad Request\r\n"));
	assert_true(has(&in, "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\""));
	await(rig, "/mock/ledger", "\"started\":0");
	bytes_deinit(&in);
	rig_free(&rig);
}

static void the_request_id_is_kept(void **state) {
	struct rig *rig = RIG("--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	ask(rig, CHAT, "X-Request-Id: mine-7\r\n", PLAIN, &in);
	assert_true(has(&in, "\"id\":\"chatcmpl-mine-7\""));
	await(rig, "/mock/ledger", "\"id\":\"mine-7\"");
	bytes_deinit(&in);
	rig_free(&rig);
}

static void what_arrived_is_captured(void **state) {
	struct rig *rig = RIG("--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	ask(rig, CHAT "?a=b", "X-Field: value\r\n", PLAIN, &in);
	ask(rig, "/mock/faults", "", "none", &in);
	int fd = connect_to(rig);
	send_text(fd, "GET /captured_requests HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	bytes_clear(&in);
	receive(fd, &in, NULL);
	assert_int_equal(count(&in, "\"number\":"), 1); /* the mock's own endpoints are left out */
	assert_true(has(&in, "\"path\":\"" CHAT "?a=b\""));
	assert_true(has(&in, "[\"X-Field\",\"value\"]"));
	assert_true(has(&in, "one two three"));
	close(fd);
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_client_that_leaves_ends_its_generation(void **state) {
	struct rig *rig = RIG("--itl", "1ms");
	struct bytes in = { .n_max = 1 << 20 };
	for (int reset = 0; reset < 2; reset++) {
		struct linger now = { .l_onoff = 1 };
		int fd = connect_to(rig);
		post(fd, CHAT, "", ENDLESS);
		bytes_clear(&in);
		receive(fd, &in, "\"content\":\" ");
		if (reset)
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		close(fd);
		await(rig, "/mock/ledger", reset ? "\"cancelled\":2" : "\"cancelled\":1");
	}
	await(rig, "/metrics", "finished_reason=\"abort\",model_name=\"m\"} 2");
	await(rig, "/metrics", "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 0");
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_waiting_client_can_leave_and_the_next_one_runs(void **state) {
	struct rig *rig = RIG("--itl", "1ms", "--max-num-seqs", "1");
	struct bytes in = { .n_max = 1 << 20 };
	int running = connect_to(rig), leaving = connect_to(rig), next = connect_to(rig);
	post(running, CHAT, "", ENDLESS);
	receive(running, &in, "\"content\":\" ");
	post(leaving, CHAT, "", PLAIN);
	await(rig, "/metrics", "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 1");
	post(next, CHAT, "", PLAIN);
	await(rig, "/metrics", "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 2");
	close(leaving);
	await(rig, "/mock/ledger", "\"cancelled\":1");
	close(running); /* its place goes to the next */
	bytes_clear(&in);
	receive(next, &in, "\"object\":\"chat.completion\"");
	await(rig, "/mock/ledger", "\"finished\":1,\"cancelled\":2");
	close(next);
	bytes_deinit(&in);
	rig_free(&rig);
}

static void many_come_and_leave_when_they_like(void **state) {
	enum { N_CLIENTS = 300 };
	struct rig *rig = RIG("--itl", "1ms", "--max-num-seqs", "50");
	struct bytes in = { .n_max = 1 << 20 };
	int fds[N_CLIENTS], n_left = 0;
	char expected[64];
	for (size_t i = 0; i < N_CLIENTS; i++) {
		fds[i] = connect_to(rig);
		post(fds[i], CHAT, i % 2 ? "Connection: close\r\n" : "", i % 2 ? STREAM : ENDLESS);
	}
	await(rig, "/mock/ledger", "\"started\":300");
	for (size_t i = 0; i < N_CLIENTS; i++) {
		uint64_t dice = random_nth(1, i);
		bytes_clear(&in);
		if (i % 2) {
			assert_int_equal(receive(fds[i], &in, NULL), END_FIN);
			assert_true(has(&in, "[DONE]"));
		} else {
			n_left++;
			receive(fds[i], &in, dice % 2 ? "200 OK" : "\"content\":\" ");
		}
		close(fds[i]);
	}
	snprintf(expected, sizeof(expected), "\"running\":0,\"finished\":%d,\"cancelled\":%d,\"failed\":0",
	    N_CLIENTS - n_left, n_left);
	await(rig, "/mock/ledger", expected);
	await(rig, "/metrics", "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0\n");
	await(rig, "/load", "\"server_load\":0");
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_slow_reader_costs_no_memory(void **state) {
	struct rig *rig = RIG("--itl", "0");
	struct bytes in = { .n_max = 64 << 20 };
	int fd = connect_with_room(rig, 16384);
	post(fd, CHAT, "Connection: close\r\n", "{\"stream\":true,\"max_tokens\":100000," MESSAGES "}");
	await(rig, "/metrics", "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 100000");
	await(rig, "/health", "200 OK"); /* a turn later: what can be rendered is rendered */
	assert_true(atomic_load(&rig->mock.budget.used_bytes) < 1 << 20);
	assert_int_equal(receive(fd, &in, NULL), END_FIN);
	assert_int_equal(count(&in, "\ndata: {"), 100001);
	assert_true(has(&in, "data: [DONE]\n\n\r\n0\r\n\r\n"));
	close(fd);
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_fault_before_the_answer(void **state) {
	struct rig *rig = RIG("--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	assert_int_equal(ask(rig, CHAT, "x-mock-fault: reset:0\r\n", STREAM, &in), END_RESET);
	assert_int_equal(in.n, 0);
	assert_int_equal(ask(rig, CHAT, "x-mock-fault: garbage\r\n", STREAM, &in), END_FIN);
	assert_true(in.n > 0);
	assert_false(has(&in, "HTTP/1.1"));
	ask(rig, CHAT, "x-mock-fault: status:503\r\n", STREAM, &in);
	assert_true(has(&in, "HTTP/1.1 503 Service Unavailable\r\n"));
	assert_true(has(&in, "retry-after: 1\r\n"));
	ask(rig, "/v1/messages", "x-mock-fault: status:429\r\n", "{\"max_tokens\":1," MESSAGES "}", &in);
	assert_true(has(&in, "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\""));
	await(rig, "/mock/ledger", "\"failed\":4");
	await(rig, "/mock/ledger", "\"cause\":\"garbage\"");
	ask(rig, CHAT, "x-mock-fault: nonsense\r\n", PLAIN, &in);
	assert_true(has(&in, "HTTP/1.1 400 Bad Request\r\n"));
	assert_true(has(&in, "is no fault"));
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_fault_in_the_middle_of_a_stream(void **state) {
	struct rig *rig = RIG("--itl", "0", "--fault", "reset:3");
	struct bytes in = { .n_max = 1 << 20 };
	assert_int_equal(ask(rig, CHAT, "", STREAM, &in), END_RESET);
	assert_int_equal(count(&in, "\ndata: {"), 4); /* the role and three tokens */
	await(rig, "/mock/ledger", "\"failed\":1");

	int fd = connect_to(rig);
	post(fd, CHAT, "x-mock-fault: hang_stream:2\r\n", STREAM);
	bytes_clear(&in);
	receive(fd, &in, "}\n\n");
	await(rig, "/metrics", "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 1");
	shutdown(fd, SHUT_WR);
	receive(fd, &in, NULL);
	assert_int_equal(count(&in, "\ndata: {"), 3);
	await(rig, "/mock/ledger", "\"cause\":\"hang_stream\"");
	await(rig, "/mock/ledger", LEDGER("cancelled"));
	await(rig, "/metrics", "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 0");
	close(fd);
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_fault_in_the_middle_of_a_plain_answer(void **state) {
	struct rig *rig = RIG("--itl", "0", "--fault", "reset:1");
	struct bytes in = { .n_max = 1 << 20 };
	assert_int_equal(ask(rig, CHAT, "", PLAIN, &in), END_RESET);
	assert_true(has(&in, "HTTP/1.1 200 OK\r\n"));
	assert_true(has(&in, "{\"id\":"));
	assert_false(has(&in, "kv_transfer_params"));

	int fd = connect_to(rig);
	post(fd, CHAT, "x-mock-fault: hang_stream:0\r\n", PLAIN);
	bytes_clear(&in);
	receive(fd, &in, "\r\n\r\n");
	assert_false(has(&in, "{"));
	close(fd);
	await(rig, "/mock/ledger", LEDGER("cancelled"));
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_hung_engine_takes_requests_and_is_healthy(void **state) {
	struct rig *rig = RIG("--itl", "0", "--fault", "hang_head");
	int fd = connect_to(rig);
	post(fd, CHAT, "", STREAM);
	await(rig, "/mock/ledger", LEDGER("running"));
	await(rig, "/metrics", "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 1");
	await(rig, "/health", "200 OK");
	await(rig, "/v1/models", "200 OK");
	await(rig, "/metrics", "vllm:iteration_tokens_total_count{engine=\"0\",model_name=\"m\"} 0");
	await(rig, "/metrics", "vllm:prompt_tokens_total{engine=\"0\",model_name=\"m\"} 0");
	struct bytes in = { .n_max = 1 << 20 };
	ask(rig, CHAT, "x-mock-fault: none\r\n", PLAIN, &in); /* the header comes before the engine's */
	assert_true(has(&in, "200 OK"));
	close(fd);
	await(rig, "/mock/ledger", LEDGER("cancelled"));
	bytes_deinit(&in);
	rig_free(&rig);
}

static void the_place_of_a_hung_one_goes_to_the_next(void **state) {
	struct rig *rig = RIG("--itl", "0", "--max-num-seqs", "1");
	struct bytes in = { .n_max = 1 << 20 };
	int hung = connect_to(rig), next = connect_to(rig);
	post(hung, CHAT, "x-mock-fault: hang_head\r\n", PLAIN);
	await(rig, "/mock/ledger", LEDGER("running"));
	post(next, CHAT, "", PLAIN);
	await(rig, "/metrics", "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 1");
	close(hung);
	receive(next, &in, "\"object\":\"chat.completion\"");
	close(next);
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_header_that_comes_again_counts_on(void **state) {
	struct rig *rig = RIG("--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	static const char *const expected[] = { "503 ", "503 ", "200 ", "200 " };
	for (size_t i = 0; i < n_elems(expected); i++) {
		ask(rig, CHAT, "x-mock-fault: fail_first:2,status:503\r\n", PLAIN, &in);
		assert_true(has(&in, expected[i]));
	}
	ask(rig, CHAT, "x-mock-fault: fail_first:1\r\n", PLAIN, &in);
	assert_true(has(&in, "500 "));
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_header_reaches_every_path(void **state) {
	struct rig *rig = RIG("--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	ask(rig, "/tokenize", "x-mock-fault: status:500\r\n", "{}", &in);
	assert_true(has(&in, "HTTP/1.1 500 "));
	ask(rig, "/ping", "x-mock-fault: health:fail\r\n", "", &in);
	assert_true(has(&in, "HTTP/1.1 503 "));
	assert_int_equal(ask(rig, "/ping", "x-mock-fault: reset:5\r\n", "", &in), END_RESET);
	int fd = connect_to(rig);
	post(fd, "/ping", "x-mock-fault: hang_head\r\n", "");
	await(rig, "/captured_requests", "[\"x-mock-fault\",\"hang_head\"]");
	close(fd);
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_delayed_request_is_answered_or_left(void **state) {
	struct rig *rig = RIG("--itl", "0");
	struct bytes in = { .n_max = 1 << 20 };
	ask(rig, CHAT, "x-mock-fault: latency:20ms\r\n", PLAIN, &in);
	assert_true(has(&in, "200 OK"));
	ask(rig, "/ping", "x-mock-fault: latency:20ms\r\n", "", &in);
	assert_true(has(&in, "200 OK"));
	int fd = connect_to(rig);
	post(fd, CHAT, "x-mock-fault: latency:1h\r\n", PLAIN);
	await(rig, "/mock/ledger", LEDGER("running"));
	close(fd);
	await(rig, "/mock/ledger", LEDGER("cancelled"));
	bytes_deinit(&in);
	rig_free(&rig);
}

static void a_crash_ends_the_process(void **state) {
	pid_t child = fork();
	if (child == 0) {
		struct rig *rig = RIG("--itl", "0");
		post(connect_to(rig), CHAT, "x-mock-fault: crash\r\n", PLAIN);
		pause();
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void it_ends_in_the_middle_of_everything(void **state) {
	struct rig *rig = RIG("--itl", "1ms", "--max-num-seqs", "2");
	struct bytes in = { .n_max = 1 << 20 };
	int fds[6];
	for (size_t i = 0; i < n_elems(fds); i++) {
		fds[i] = connect_to(rig);
		post(fds[i], CHAT, i == 3 ? "x-mock-fault: hang_head\r\n" : "", ENDLESS);
	}
	send_text(fds[5], "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf");
	receive(fds[0], &in, "\"content\":\" ");
	await(rig, "/mock/ledger", "\"running\":6");
	rig_free(&rig);
	for (size_t i = 0; i < n_elems(fds); i++) {
		bytes_clear(&in);
		receive(fds[i], &in, NULL);
		close(fds[i]);
	}
	bytes_deinit(&in);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plain_and_a_streamed_chat),
		cmocka_unit_test(a_connection_serves_many_requests),
		cmocka_unit_test(bodies_come_in_any_framing),
		cmocka_unit_test(an_old_client_gets_a_stream_that_ends_with_the_connection),
		cmocka_unit_test(too_large_a_body_is_refused),
		cmocka_unit_test(keys_are_asked_for_under_v1),
		cmocka_unit_test(refusals_have_the_shape_of_the_api),
		cmocka_unit_test(the_request_id_is_kept),
		cmocka_unit_test(what_arrived_is_captured),
		cmocka_unit_test(a_client_that_leaves_ends_its_generation),
		cmocka_unit_test(a_waiting_client_can_leave_and_the_next_one_runs),
		cmocka_unit_test(many_come_and_leave_when_they_like),
		cmocka_unit_test(a_slow_reader_costs_no_memory),
		cmocka_unit_test(a_fault_before_the_answer),
		cmocka_unit_test(a_fault_in_the_middle_of_a_stream),
		cmocka_unit_test(a_fault_in_the_middle_of_a_plain_answer),
		cmocka_unit_test(a_hung_engine_takes_requests_and_is_healthy),
		cmocka_unit_test(the_place_of_a_hung_one_goes_to_the_next),
		cmocka_unit_test(a_header_that_comes_again_counts_on),
		cmocka_unit_test(a_header_reaches_every_path),
		cmocka_unit_test(a_delayed_request_is_answered_or_left),
		cmocka_unit_test(a_crash_ends_the_process),
		cmocka_unit_test(it_ends_in_the_middle_of_everything),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
