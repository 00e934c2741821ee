/*
 * sink: the engines of the bench: one process, one port an engine, keep-alive HTTP/1.1.
 *
 *   sink --ports PORT,PORT,... [--failing PORT,...] [--prefilling PORT,...]
 *
 * A POST is read to its end, then answered as its header `x-request-id-bench-wish` says: without one by
 * a chat completion of 600 bytes, "sse" by a stream of 20 events a second, "idle" by a
 * stream that falls silent behind its first event, "late" by the completion 50 ms later, whose field
 * `x-bench-held` says for how many nanoseconds the sink had it. Those that are --failing answer 500 to all of
 * them, and are well for whoever looks. Those that are --prefilling answer a completion as vLLM does that
 * computed a prompt for another engine (NIXL): with where its cache lies. Answers carry the request's
 * `x-request-id-bench` and the number of the engine; events carry the moment they were sent.
 * GET /v1/models lists the engine's models, GET /requests says how many POSTs it got, GET /health that it is
 * well. The engines beyond the eighth are like the first eight again, number and models alike.
 *
 * Streams stand in a wheel of one slot a millisecond of their period; each new one takes
 * the next slot, so that at any load a millisecond's work is small. An answer is sent
 * whole or its connection is closed: the sink holds nothing for a slow reader but what
 * the kernel does. A stream whose reader is that slow misses events, which the load sees.
 */
#include <getopt.h>

#include "bench/kit.h"
#include "bench/reader.h"
#include "bench/shape.h"

#define EVENTS_MAX     256
#define TICK_NS        1000000
#define CHUNK_HEAD     "c8\r\n"
#define CHUNK_OF_EVENT (sizeof(CHUNK_HEAD) - 1 + SHAPE_EVENT_BYTES + 2)

_Static_assert(SHAPE_EVENT_BYTES == 0xc8, "CHUNK_HEAD says so");

enum wish { WISH_ANSWER, WISH_SSE, WISH_IDLE, WISH_LATE, WISH_MODELS, WISH_COUNT, WISH_HEALTH, WISH_UNKNOWN };

struct conn {
	int fd;
	bool listens; /* the engine's own, which only accepts */
	struct engine *engine;
	struct reader request;
	enum wish wish;
	char id[SHAPE_ID_BYTES];
	uint64_t n_events;
	uint64_t came_ns;          /* a request that is answered late */
	struct conn *next, **link; /* in the wheel; NULL when not */
};

struct engine {
	struct conn listener;
	bool fails, prefills;
	uint64_t n_requests;
	char models[1024];
	size_t n_models;
};

struct sink {
	int epoll;
	struct engine engine[KIT_PORTS_MAX];
	struct conn *slot[SHAPE_EVENT_MS];
	size_t next_slot, n_streams;
	uint64_t tick; /* the next one to be served; tick % SHAPE_EVENT_MS is its slot */
	char answer[1024], stream_head[256], chunk[CHUNK_OF_EVENT];
	size_t n_answer_head, n_stream_head;
	char buffer[256 * 1024];
};

static struct sink sink;

static void conn_leave_wheel(struct conn *c) {
	if (!c->link)
		return;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->link = NULL;
	sink.n_streams--;
}

static void conn_close(struct conn *c) {
	conn_leave_wheel(c);
	close(c->fd);
	free(c);
}

static void conn_join_wheel(struct conn *c, uint64_t index) {
	struct conn **slot = &sink.slot[index % SHAPE_EVENT_MS];

	if (sink.n_streams++ == 0)
		sink.tick = kit_now_ns() / TICK_NS;
	c->next = *slot;
	c->link = slot;
	if (c->next)
		c->next->link = &c->next;
	*slot = c;
}

/* False when the connection must be closed. */
must_use static bool conn_send(struct conn *c, const char *bytes, size_t n) {
	return send(c->fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n;
}

must_use static bool conn_send_event(struct conn *c) {
	char *event = sink.chunk + sizeof(CHUNK_HEAD) - 1;

	memcpy(event + EVENT_ID_AT, c->id, SHAPE_ID_BYTES);
	shape_digits(event + EVENT_COUNT_AT, EVENT_COUNT_DIGITS, c->n_events++, 10);
	shape_digits(event + EVENT_TIME_AT, EVENT_TIME_DIGITS, kit_now_ns(), 10);
	ssize_t n = send(c->fd, sink.chunk, CHUNK_OF_EVENT, MSG_NOSIGNAL);
	return n == (ssize_t)CHUNK_OF_EVENT || (n < 0 && errno == EAGAIN);
}

must_use static bool conn_send_text(struct conn *c, const char *status, const char *body, size_t n_body) {
	char text[2048];
	int n = snprintf(text, sizeof(text),
	    "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%.*s", status,
	    n_body, (int)n_body, body);

	assert(n > 0 && (size_t)n < sizeof(text));
	return conn_send(c, text, (size_t)n);
}

/* The completion for this request. */
static char *conn_body(const struct conn *c) {
	char *body = sink.answer + sink.n_answer_head;

	memcpy(body + ANSWER_ID_AT, c->id, SHAPE_ID_BYTES);
	body[ANSWER_ENGINE_AT] = (char)('0' + (c->engine - sink.engine) % SHAPE_N_ENGINES);
	return body;
}

must_use static bool conn_answer_late(struct conn *c) {
	char text[1024];
	int n = snprintf(text, sizeof(text),
	    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nx-bench-held: "
	    "%llu\r\n\r\n%.*s",
	    SHAPE_ANSWER_BYTES, (unsigned long long)(kit_now_ns() - c->came_ns), SHAPE_ANSWER_BYTES,
	    conn_body(c));

	assert(n > 0 && (size_t)n < sizeof(text));
	conn_leave_wheel(c);
	return conn_send(c, text, (size_t)n);
}

/* Six blocks are what 90 tokens take. */
must_use static bool conn_answer_prefilled(struct conn *c) {
	static const char params[] =
	    ",\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":false,"
	    "\"remote_block_ids\":[[101,102,103,104,105,106]],\"remote_engine_id\":"
	    "\"6f1c2d3e-4a5b-4c6d-8e7f-90a1b2c3d4e5\",\"remote_request_id\":\"chatcmpl-0123456789abcdef\","
	    "\"remote_host\":\"127.0.0.1\",\"remote_port\":5600,\"tp_size\":1}}";
	char body[SHAPE_ANSWER_BYTES + sizeof(params)];
	size_t n = SHAPE_ANSWER_BYTES - 1; /* without its last brace */

	memcpy(body, conn_body(c), n);
	memcpy(body + n, params, sizeof(params) - 1);
	return conn_send_text(c, "200 OK", body, n + sizeof(params) - 1);
}

must_use static bool conn_answer(struct conn *c) {
	char text[64];

	if (c->engine->fails && c->wish <= WISH_LATE)
		return conn_send_text(c, "500 Internal Server Error", "{}", 2);
	if (c->engine->prefills && c->wish <= WISH_LATE)
		return conn_answer_prefilled(c);
	switch (c->wish) {
	case WISH_ANSWER:
		conn_body(c);
		return conn_send(c, sink.answer, sink.n_answer_head + SHAPE_ANSWER_BYTES);
	case WISH_SSE:
		if (!c->link)
			conn_join_wheel(c, sink.next_slot++);
		return conn_send(c, sink.stream_head, sink.n_stream_head);
	case WISH_IDLE:
		return conn_send(c, sink.stream_head, sink.n_stream_head) && conn_send_event(c);
	case WISH_LATE:
		c->came_ns = kit_now_ns();
		conn_join_wheel(c, c->came_ns / TICK_NS + SHAPE_EVENT_MS - 1);
		return true;
	case WISH_COUNT:
		snprintf(
		    text, sizeof(text), "{\"requests\":%llu}", (unsigned long long)c->engine->n_requests);
		return conn_send_text(c, "200 OK", text, strlen(text));
	case WISH_MODELS:
		return conn_send_text(c, "200 OK", c->engine->models, c->engine->n_models);
	case WISH_HEALTH:
		return conn_send_text(c, "200 OK", "", 0);
	case WISH_UNKNOWN:
		return conn_send_text(c, "404 Not Found", "{}", 2);
	}
	return false;
}

static void conn_on_head(struct conn *c, struct slice head) {
	struct slice name, value, line = reader_first_line(&head);

	c->wish = slice_has_prefix(line, SLICE("POST /"))      ? WISH_ANSWER
	    : slice_has_prefix(line, SLICE("GET /v1/models ")) ? WISH_MODELS
	    : slice_has_prefix(line, SLICE("GET /requests "))  ? WISH_COUNT
	    : slice_has_prefix(line, SLICE("GET /health "))    ? WISH_HEALTH
							       : WISH_UNKNOWN;
	c->engine->n_requests += c->wish == WISH_ANSWER;
	c->n_events = 0;
	memset(c->id, '0', sizeof(c->id));
	while (reader_field(&head, &name, &value)) {
		if (slice_is(name, SLICE(SHAPE_ID_FIELD)) && value.n == SHAPE_ID_BYTES)
			memcpy(c->id, value.p, SHAPE_ID_BYTES);
		else if (slice_is(name, SLICE(SHAPE_WISH_FIELD)))
			c->wish = slice_is(value, SLICE("sse")) ? WISH_SSE
			    : slice_is(value, SLICE("late"))    ? WISH_LATE
								: WISH_IDLE;
	}
}

/* False when the connection must be closed. */
must_use static bool conn_read(struct conn *c) {
	ssize_t n = recv(c->fd, sink.buffer, sizeof(sink.buffer), 0);

	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	struct slice in = { sink.buffer, (size_t)n }, part;
	for (;;) {
		switch (reader_next(&c->request, &in, &part)) {
		case PART_MORE:
			return true;
		case PART_BAD:
			return false;
		case PART_BODY:
			break;
		case PART_HEAD:
			conn_on_head(c, part);
			break;
		case PART_END:
			if (!conn_answer(c) || c->request.closes)
				return false;
			break;
		}
	}
}

static void engine_accept(struct engine *e) {
	int fd = accept4(e->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	struct conn *c = calloc(1, sizeof(*c));
	if (!c)
		kit_die("sink: out of memory");
	c->fd = fd;
	c->engine = e;
	kit_nodelay(fd);
	kit_watch(sink.epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
}

static void engine_init(struct engine *e, unsigned index, uint16_t port) {
	e->listener = (struct conn){ .fd = kit_listen(port), .listens = true, .engine = e };
	e->n_models = (size_t)snprintf(e->models, sizeof(e->models), "{\"object\":\"list\",\"data\":[");
	for (unsigned model = 0; model < SHAPE_N_MODELS; model++)
		if (shape_serves(index % SHAPE_N_ENGINES, model))
			e->n_models +=
			    (size_t)snprintf(e->models + e->n_models, sizeof(e->models) - e->n_models,
				"{\"id\":\"model-%02u\",\"object\":\"model\",\"created\":1700000000,\"owned_"
				"by\":\"bench\"},",
				model);
	e->n_models +=
	    (size_t)snprintf(e->models + e->n_models - 1, sizeof(e->models) - e->n_models + 1, "]}") - 1;
	kit_watch(sink.epoll, EPOLL_CTL_ADD, e->listener.fd, EPOLLIN, &e->listener);
}

static bool has_port(const struct kit_ports *ports, uint16_t port) {
	for (unsigned i = 0; i < ports->n; i++)
		if (ports->port[i] == port)
			return true;
	return false;
}

static void sink_init(
    const struct kit_ports *ports, const struct kit_ports *failing, const struct kit_ports *prefilling) {
	sink.epoll = kit_epoll();
	sink.n_answer_head = (size_t)snprintf(sink.answer, sizeof(sink.answer),
	    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
	    SHAPE_ANSWER_BYTES);
	shape_answer(sink.answer + sink.n_answer_head);
	sink.n_stream_head = (size_t)snprintf(sink.stream_head, sizeof(sink.stream_head),
	    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
	    "Transfer-Encoding: chunked\r\n\r\n");
	memcpy(sink.chunk, CHUNK_HEAD, sizeof(CHUNK_HEAD) - 1);
	shape_event(sink.chunk + sizeof(CHUNK_HEAD) - 1);
	memcpy(sink.chunk + CHUNK_OF_EVENT - 2, "\r\n", 2);
	for (unsigned i = 0; i < ports->n; i++) {
		engine_init(&sink.engine[i], i, ports->port[i]);
		sink.engine[i].fails = has_port(failing, ports->port[i]);
		sink.engine[i].prefills = has_port(prefilling, ports->port[i]);
	}
}

/*
 * Serves the ticks that are due: late ones at once, so that the rate holds, but no more
 * than a period of them, so that a sink that cannot keep up still reads and accepts.
 */
static void sink_turn_wheel(void) {
	uint64_t now_tick = kit_now_ns() / TICK_NS;

	sink.tick = u64_max(sink.tick, now_tick - SHAPE_EVENT_MS);
	for (; sink.n_streams && sink.tick <= now_tick; sink.tick++)
		for (struct conn *c = sink.slot[sink.tick % SHAPE_EVENT_MS], *next; c; c = next) {
			next = c->next;
			if (!(c->wish == WISH_LATE ? conn_answer_late(c) : conn_send_event(c)))
				conn_close(c);
		}
}

/* How long to wait for events; NULL is for ever. */
static struct timespec *sink_until_tick(struct timespec *t) {
	uint64_t now_ns = kit_now_ns(), due_ns = sink.tick * TICK_NS;

	*t = (struct timespec){ .tv_nsec = due_ns > now_ns ? (long)(due_ns - now_ns) : 0 };
	return sink.n_streams ? t : NULL;
}

int main(int argc, char **argv) {
	enum { PORTS, FAILING, PREFILLING, LISTS };
	static const struct option options[] = { { "ports", 1, 0, PORTS }, { "failing", 1, 0, FAILING },
		{ "prefilling", 1, 0, PREFILLING }, { 0 } };
	struct kit_ports lists[LISTS] = { 0 };
	struct epoll_event events[EVENTS_MAX];
	struct timespec wait;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option < 0 || option >= LISTS)
			return 2;
		lists[option] = kit_ports(optarg);
	}
	if (!lists[PORTS].n)
		kit_die(
		    "usage: sink --ports PORT,... (at most %d) [--failing PORT,...] [--prefilling PORT,...]",
		    KIT_PORTS_MAX);
	kit_raise_limits();
	prctl(PR_SET_TIMERSLACK, 1UL);
	sink_init(&lists[PORTS], &lists[FAILING], &lists[PREFILLING]);
	for (;;) {
		int n = epoll_pwait2(sink.epoll, events, EVENTS_MAX, sink_until_tick(&wait), NULL);
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;
			if (c->listens)
				engine_accept(c->engine);
			else if (!conn_read(c))
				conn_close(c);
		}
		sink_turn_wheel();
	}
}
