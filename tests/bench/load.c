/*
 * load: the clients of the bench. Prints "ready", then one line of JSON.
 *
 *   load closed --ports P,.. --connections N --window-ms N [--warm-ms N] [--body-bytes N]
 *   load open   the same and --rate N: requests a second
 *   load sse    --ports P,.. --connections N --window-ms N [--warm-ms N]
 *   load idle   --ports P,.. --connections N
 *
 * Bodies are alike but for the model, one of 16 or of --models N in turn. With --shared-bytes N
 * what comes behind so many bytes is each request's own: its id stands there.
 *
 * A flow is one connection and what it asks for. Closed: each sends its next request
 * when the answer to the last is there. Open: requests are due at a fixed rate, whether
 * or not the last ones were answered, and are timed from when they were due, so that a
 * stall counts against every request that it delayed. Sse: every flow opens one stream
 * and times each event from the moment the sink wrote it. Idle: streams are opened,
 * "ready" says that all are, and they are held until standard input ends; the other
 * modes say "ready" when the window begins, and leave when standard input ends, so that
 * a proxy can be looked at before its clients are gone.
 *
 * With --late engines take 50 ms for an answer and say for how long they had it: what is timed is the rest.
 * With --refusals error answers are no fault but counted by their code. --key K is what is shown as bearer
 * token.
 *
 * With --tls the proxy is spoken to with TLS, whoever it is; handshakes are in the time of the first request
 * of a connection.
 *
 * Every byte of every answer is checked: status, framing, length, that it is for this
 * request, with --routed also that it came from an engine that has the model. What fails
 * is counted by kind, and the first one described on standard error. With --clock PID,..
 * the CPU time that these processes spent in the window is part of the result.
 */
#include <getopt.h>
#include <sys/uio.h>

#include "bench/histogram.h"
#include "bench/kit.h"
#include "bench/reader.h"
#include "bench/shape.h"
#include "net/tls.h"

#define BUFFER_BYTES (64 * 1024)
#define EVENTS_MAX   256
#define MS           UINT64_C(1000000)
#define HEAD_BYTES   512
#define TAIL_BYTES   96
#define CLOCKS_MAX   16
#define OPENING_MAX  64   /* streams that are being opened at a time: fewer than any backlog */
#define FAULTS_MAX   1000 /* then the run is given up */
#define MERGED_MS    5    /* events in one read that were sent further apart were held back */
#define OPENING_MS   60000
#define REFUSALS_MAX 8 /* codes that are told apart */
#define CODE_BYTES   32
#define RETRY_MS     10   /* after a flow that failed at once */
#define GRACE_MS     5000 /* for requests that were due in the window */

enum mode { MODE_CLOSED, MODE_OPEN, MODE_SSE, MODE_IDLE };

static const char *const mode_names[] = { "closed", "open", "sse", "idle" };

enum fault {
	FAULT_CONNECT,
	FAULT_CLOSED, /* before the answer was whole */
	FAULT_FRAMING,
	FAULT_STATUS,
	FAULT_CONTENT,
	FAULT_ROUTE,
	FAULT_UNANSWERED, /* when the run was over */
	N_FAULTS
};

static const char *const fault_names[] = { "connect", "closed", "framing", "status", "content", "route",
	"unanswered" };

enum flow_state { FLOW_FREE, FLOW_BUSY, FLOW_OPEN, FLOW_OVER };

struct flow {
	int fd;          /* -1 between connections */
	struct tls *tls; /* NULL: plain, or between connections */
	bool is_shaken, is_refused;
	uint64_t held_ns; /* by the engine */
	enum flow_state state;
	unsigned index, model;
	uint64_t due_ns;
	uint32_t n_requests, n_events;
	size_t n_written;
	bool blocked; /* waits for room to write */
	struct flow *next_free;
	size_t n_body;
	char id[SHAPE_ID_BYTES];
	char head[HEAD_BYTES];
	char body[SHAPE_ANSWER_BYTES]; /* of the answer, or of the event at hand */
	struct reader answer;
};

struct refusal {
	char code[CODE_BYTES];
	uint64_t n;
};

struct load {
	enum mode mode;
	bool routed, is_late, takes_refusals;
	const char *key;
	struct refusal refusals[REFUSALS_MAX];
	struct tls_client *tls; /* NULL: plain */
	struct kit_ports ports;
	unsigned n_flows;
	uint64_t window_ms, warm_ms, interval_ns;
	size_t body_bytes, shared_bytes;
	unsigned n_models;
	clockid_t clocks[CLOCKS_MAX];
	size_t n_clocks;

	int epoll;
	struct flow *flows, *first_free, **last_free;
	uint64_t next_due_ns, last_due_ns; /* open */
	uint64_t window_ns;                /* what is done from then on counts */
	size_t n_busy, n_open, n_over;

	char head[HEAD_BYTES], tail[SHAPE_N_MODELS][TAIL_BYTES], *body;
	size_t n_head, id_at, n_tail, n_prefix;
	size_t own_at, n_own; /* where the id stands in the body, if it does */
	char answer[SHAPE_ANSWER_BYTES], event[SHAPE_EVENT_BYTES], buffer[BUFFER_BYTES];

	struct histogram delay;
	uint64_t n_merged, n_reconnects, n_faults[N_FAULTS], n_faults_all, cpu_ns;
};

static bool is_streaming(const struct load *l) {
	return l->mode == MODE_SSE || l->mode == MODE_IDLE;
}

/* --- what is sent --- */

/* Prose as a prompt has it: an escape every hundred bytes or so. */
static void body_fill(char *at, size_t n) {
	static const char prose[] =
	    "The river rises in the hills above the town, and where it leaves them "
	    "the weir sends half of it to the mill.\\nThe miller said \\\"enough\\\", "
	    "shut the gate and went home; the wheel stood still until the morning. ";
	size_t n_prose = sizeof(prose) - 1, i = 0;

	for (; i + n_prose <= n; i += n_prose)
		memcpy(at + i, prose, n_prose);
	memset(at + i, '.', n - i);
}

/* The first place from shared_bytes on where digits can stand: no escape is cut. */
static void own_init(struct load *l) {
	l->own_at = l->n_prefix;
	if (l->shared_bytes == 0)
		return;
	l->n_own = SHAPE_ID_BYTES;
	for (l->own_at = l->shared_bytes; l->own_at + l->n_own < l->n_prefix; l->own_at++)
		if (!memchr(l->body + l->own_at - 1, '\\', l->n_own + 1))
			return;
	kit_die("load: there is no room behind %zu bytes", l->shared_bytes);
}

static void requests_init(struct load *l) {
	static const char begin[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful "
				    "assistant.\"},{\"role\":\"user\",\"content\":\"";

	for (unsigned model = 0; model < SHAPE_N_MODELS; model++)
		l->n_tail = (size_t)snprintf(l->tail[model], TAIL_BYTES,
		    "\"}],\"model\":\"model-%02u\",\"max_tokens\":60,\"stream\":%s}", model,
		    is_streaming(l) ? "true" : "false");
	if (l->body_bytes < sizeof(begin) + l->n_tail)
		kit_die("load: a body of %zu bytes is too small", l->body_bytes);
	l->n_prefix = l->body_bytes - l->n_tail;
	l->body = malloc(l->n_prefix);
	if (!l->body)
		kit_die("load: out of memory");
	memcpy(l->body, begin, sizeof(begin) - 1);
	body_fill(l->body + sizeof(begin) - 1, l->n_prefix - sizeof(begin) + 1);
	own_init(l);

	l->n_head = (size_t)snprintf(l->head, sizeof(l->head),
	    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAccept: application/json\r\n"
	    "Content-Type: application/json\r\nUser-Agent: bench/1\r\nAuthorization: Bearer %s\r\n"
	    "Content-Length: %zu\r\n%s" SHAPE_ID_FIELD ": 0000000000000000\r\n\r\n",
	    l->ports.port[0], l->key, l->body_bytes,
	    l->mode == MODE_SSE        ? SHAPE_WISH_FIELD ": sse\r\n"
		: l->mode == MODE_IDLE ? SHAPE_WISH_FIELD ": idle\r\n"
		: l->is_late           ? SHAPE_WISH_FIELD ": late\r\n"
				       : "");
	assert(l->n_head < sizeof(l->head));
	l->id_at = l->n_head - 4 - SHAPE_ID_BYTES;
	shape_answer(l->answer);
	shape_event(l->event);
}

/* --- flows --- */

static void flow_set_free(struct load *l, struct flow *f) {
	f->state = FLOW_FREE;
	f->next_free = NULL;
	*l->last_free = f;
	l->last_free = &f->next_free;
}

static void flow_close(struct flow *f) {
	tls_free(&f->tls);
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
}

/* A free flow can fail, too: by bytes that nobody asked for. */
static void flow_fail(struct load *l, struct flow *f, enum fault fault, struct slice what) {
	if (l->n_faults_all++ == 0)
		fprintf(stderr, "load: first error: %s %.*s\n", fault_names[fault],
		    (int)size_min(what.n, 200), what.p);
	l->n_faults[fault]++;
	l->n_busy -= f->state == FLOW_BUSY;
	l->n_open -= f->state == FLOW_OPEN;
	flow_close(f);
	if (is_streaming(l)) {
		f->state = FLOW_OVER;
		l->n_over++;
	} else if (f->state != FLOW_FREE) {
		flow_set_free(l, f);
	}
}

static void flow_count(struct load *l, uint64_t at_ns, uint64_t delay_ns) {
	if (at_ns >= l->window_ns)
		histogram_add(&l->delay, delay_ns);
}

/* As sendmsg(), behind the handshake. */
static ssize_t flow_send_tls(struct flow *f, const struct msghdr *message) {
	size_t n = 0;
	int r = f->is_shaken ? 0 : tls_shake(f->tls);

	f->is_shaken |= r == 0;
	if (r == 0)
		r = tls_write(f->tls, message->msg_iov, message->msg_iovlen, &n);
	if (n || r == 0)
		return (ssize_t)n;
	errno = r == TLS_E_AGAIN ? EAGAIN : EPROTO;
	return -1;
}

/* As recv(); an answer, or the events of one wake, fit the buffer. */
static ssize_t flow_recv_tls(struct load *l, struct flow *f) {
	size_t n;
	int r = tls_read(f->tls, l->buffer, sizeof(l->buffer), &n);

	errno = r == TLS_E_AGAIN ? EAGAIN : EPROTO;
	return r == 0 ? (ssize_t)n : r == TLS_E_EOF ? 0 : -1;
}

/* False when the flow failed. */
static bool flow_write(struct load *l, struct flow *f) {
	size_t own_end = l->own_at + l->n_own;
	struct slice piece[] = { { f->head, l->n_head }, { l->body, l->own_at }, { f->id, l->n_own },
		{ l->body + own_end, l->n_prefix - own_end }, { l->tail[f->model], l->n_tail } };
	struct iovec iov[n_elems(piece)];
	size_t skip = f->n_written, n_iov = 0, n_all = l->n_head + l->body_bytes;

	for (size_t i = 0; i < n_elems(piece); i++) {
		size_t n_skipped = size_min(skip, piece[i].n);
		skip -= n_skipped;
		if (n_skipped < piece[i].n)
			iov[n_iov++] =
			    (struct iovec){ (char *)piece[i].p + n_skipped, piece[i].n - n_skipped };
	}
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = n_iov };
	ssize_t n = f->tls ? flow_send_tls(f, &message) : sendmsg(f->fd, &message, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN) {
		flow_fail(l, f, FAULT_CLOSED, SLICE("while writing"));
		return false;
	}
	f->n_written += n < 0 ? 0 : (size_t)n;
	bool blocked = f->n_written < n_all && (!f->tls || tls_wants_write(f->tls));
	if (f->blocked != blocked) {
		f->blocked = !f->blocked;
		kit_watch(l->epoll, EPOLL_CTL_MOD, f->fd, EPOLLIN | (f->blocked ? EPOLLOUT : 0), f);
	}
	return true;
}

static void flow_start(struct load *l, struct flow *f, uint64_t due_ns) {
	f->state = FLOW_BUSY;
	l->n_busy++;
	f->due_ns = due_ns;
	if (f->fd < 0) {
		f->fd = kit_connect(l->ports.port[f->index % l->ports.n]);
		if (f->fd < 0) {
			flow_fail(l, f, FAULT_CONNECT, slice_of(strerror(errno)));
			return;
		}
		if (l->tls && (f->tls = tls_connect(l->tls, "localhost")))
			tls_bind(f->tls, f->fd);
		f->is_shaken = false;
		kit_watch(l->epoll, EPOLL_CTL_ADD, f->fd, EPOLLIN, f);
		f->blocked = false;
		f->answer.step = READER_HEAD;
		f->answer.n_head = 0;
	}
	f->model = (f->index + f->n_requests++) % l->n_models;
	f->n_written = f->n_body = 0;
	shape_digits(f->id, SHAPE_ID_BYTES, (uint64_t)f->index << 32 | f->n_requests, 16);
	memcpy(f->head, l->head, l->n_head);
	memcpy(f->head + l->id_at, f->id, SHAPE_ID_BYTES);
	flow_write(l, f);
}

static bool flow_on_head(struct load *l, struct flow *f, struct slice head) {
	struct slice line = reader_first_line(&head), name, value;

	f->is_refused =
	    l->takes_refusals && f->answer.framed && !slice_has_prefix(line, SLICE("HTTP/1.1 200"));
	f->held_ns = 0;
	while (l->is_late && reader_field(&head, &name, &value))
		if (slice_is(name, SLICE("x-bench-held")) && !text_uint(value, UINT32_MAX, &f->held_ns))
			f->held_ns = 0;
	if (!f->is_refused && !slice_has_prefix(line, SLICE("HTTP/1.1 200")))
		flow_fail(l, f, FAULT_STATUS, line);
	else if (f->state != FLOW_BUSY || f->blocked || !f->answer.framed)
		flow_fail(l, f, FAULT_FRAMING, line);
	else
		return true;
	return false;
}

static void flow_release(struct load *l, struct flow *f) {
	if (f->answer.closes) {
		l->n_reconnects++;
		flow_close(f);
	}
	l->n_busy--;
	flow_set_free(l, f);
}

/* An error answer, counted by its code; those beyond the table count with its last row. */
static void flow_refuse(struct load *l, struct flow *f, uint64_t now_ns) {
	static const char key[] = "\"code\":\"";
	const char *at = memmem(f->body, f->n_body, key, sizeof(key) - 1);
	struct slice rest = { at ? at + sizeof(key) - 1 : "none\"", 5 };
	size_t i = 0;

	if (at)
		rest.n = (size_t)(f->body + f->n_body - rest.p);
	const char *end = memchr(rest.p, '"', rest.n);
	rest.n = size_min(end ? (size_t)(end - rest.p) : rest.n, CODE_BYTES - 1);
	while (i + 1 < REFUSALS_MAX && l->refusals[i].n && !slice_eq(slice_of(l->refusals[i].code), rest))
		i++;
	if (now_ns >= l->window_ns && l->refusals[i].n++ == 0)
		memcpy(l->refusals[i].code, rest.p, rest.n);
	flow_release(l, f);
}

/* The answer's bytes, all of them, against those that this request must get. */
static void flow_finish(struct load *l, struct flow *f, uint64_t now_ns) {
	unsigned engine = (unsigned)(f->body[ANSWER_ENGINE_AT] - '0');

	memcpy(l->answer + ANSWER_ID_AT, f->id, SHAPE_ID_BYTES);
	l->answer[ANSWER_ENGINE_AT] = f->body[ANSWER_ENGINE_AT];
	if (f->n_body != SHAPE_ANSWER_BYTES || memcmp(f->body, l->answer, SHAPE_ANSWER_BYTES) != 0) {
		flow_fail(l, f, FAULT_CONTENT, (struct slice){ f->body, f->n_body });
		return;
	}
	if (engine >= SHAPE_N_ENGINES || (l->routed && !shape_serves(engine, f->model))) {
		flow_fail(l, f, FAULT_ROUTE, (struct slice){ l->tail[f->model], l->n_tail });
		return;
	}
	uint64_t own_ns = u64_min(f->held_ns, now_ns - f->due_ns);
	flow_count(l, l->mode == MODE_OPEN ? f->due_ns : now_ns, now_ns - f->due_ns - own_ns);
	flow_release(l, f);
}

/* One event that is whole. False when the flow failed. */
static bool flow_on_event(struct load *l, struct flow *f, uint64_t now_ns, uint64_t *sent_ns_out) {
	uint64_t sent_ns = shape_decimal(f->body + EVENT_TIME_AT, EVENT_TIME_DIGITS);

	memcpy(l->event + EVENT_ID_AT, f->id, SHAPE_ID_BYTES);
	shape_digits(l->event + EVENT_TIME_AT, EVENT_TIME_DIGITS, sent_ns, 10);
	shape_digits(l->event + EVENT_COUNT_AT, EVENT_COUNT_DIGITS, f->n_events++, 10);
	if (memcmp(f->body, l->event, SHAPE_EVENT_BYTES) != 0 || sent_ns > now_ns) {
		flow_fail(l, f, FAULT_CONTENT, (struct slice){ f->body, SHAPE_EVENT_BYTES });
		return false;
	}
	if (f->state == FLOW_BUSY) {
		f->state = FLOW_OPEN;
		l->n_busy--;
		l->n_open++;
	}
	flow_count(l, now_ns, now_ns - (l->mode == MODE_IDLE ? f->due_ns : sent_ns));
	*sent_ns_out = sent_ns;
	return true;
}

/* Body bytes of one read: `*first_ns` is when the first event in it was sent, 0 before that. */
static bool flow_on_body(
    struct load *l, struct flow *f, struct slice body, uint64_t now_ns, uint64_t *first_ns) {
	uint64_t sent_ns;

	if (f->is_refused) {
		size_t n = size_min(body.n, sizeof(f->body) - f->n_body);
		memcpy(f->body + f->n_body, body.p, n);
		f->n_body += n;
		return true;
	}
	while (body.n) {
		size_t n =
		    size_min(body.n, (is_streaming(l) ? SHAPE_EVENT_BYTES : SHAPE_ANSWER_BYTES) - f->n_body);
		if (n == 0) {
			flow_fail(l, f, FAULT_CONTENT, SLICE("too long"));
			return false;
		}
		memcpy(f->body + f->n_body, body.p, n);
		f->n_body += n;
		body = slice_skip(body, n);
		if (!is_streaming(l) || f->n_body < SHAPE_EVENT_BYTES)
			continue;
		f->n_body = 0;
		if (!flow_on_event(l, f, now_ns, &sent_ns))
			return false;
		if (*first_ns == 0)
			*first_ns = sent_ns;
		else if (sent_ns - *first_ns > MERGED_MS * MS && now_ns >= l->window_ns)
			l->n_merged++;
	}
	return true;
}

static void flow_on_end(struct load *l, struct flow *f, struct slice rest, uint64_t now_ns) {
	if (is_streaming(l))
		flow_fail(l, f, FAULT_CLOSED, SLICE("a stream that must not end"));
	else if (rest.n)
		flow_fail(l, f, FAULT_FRAMING, rest);
	else if (f->is_refused)
		flow_refuse(l, f, now_ns);
	else
		flow_finish(l, f, now_ns);
}

static void flow_read(struct load *l, struct flow *f) {
	if (f->tls && !f->is_shaken) {
		flow_write(l, f);
		return;
	}
	ssize_t n = f->tls ? flow_recv_tls(l, f) : recv(f->fd, l->buffer, sizeof(l->buffer), 0);
	uint64_t now_ns = kit_now_ns(), first_ns = 0;
	struct slice in = { l->buffer, n > 0 ? (size_t)n : 0 }, part;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0 && f->state == FLOW_FREE) {
		l->n_reconnects++;
		flow_close(f);
		return;
	}
	if (n <= 0) {
		flow_fail(l, f, FAULT_CLOSED, n ? slice_of(strerror(errno)) : SLICE("by the other side"));
		return;
	}
	for (bool ok = true; ok;) {
		switch (reader_next(&f->answer, &in, &part)) {
		case PART_MORE:
			return;
		case PART_BAD:
			flow_fail(l, f, FAULT_FRAMING, in);
			return;
		case PART_END:
			flow_on_end(l, f, in, now_ns);
			return;
		case PART_HEAD:
			ok = flow_on_head(l, f, part);
			break;
		case PART_BODY:
			ok = flow_on_body(l, f, part, now_ns, &first_ns);
			break;
		}
	}
}

/* --- the run --- */

static bool load_may_start(const struct load *l, uint64_t now_ns) {
	switch (l->mode) {
	case MODE_CLOSED:
		return true;
	case MODE_OPEN:
		return l->next_due_ns <= now_ns && l->next_due_ns < l->last_due_ns;
	default:
		return l->n_busy < OPENING_MAX;
	}
}

/* When there may be something to start again: the next request that is due, a flow that failed. */
static uint64_t load_next_start_ns(const struct load *l, uint64_t now_ns) {
	if (l->mode != MODE_OPEN)
		return now_ns + RETRY_MS * MS;
	return l->next_due_ns < l->last_due_ns ? u64_max(now_ns, l->next_due_ns) : UINT64_MAX;
}

static void load_start_due(struct load *l) {
	uint64_t now_ns = kit_now_ns();

	/* Those that fail at once are free again: each gets one try a turn. */
	for (unsigned n = l->n_flows; n && l->first_free && load_may_start(l, now_ns); n--) {
		struct flow *f = l->first_free;
		l->first_free = f->next_free;
		if (!l->first_free)
			l->last_free = &l->first_free;
		flow_start(l, f, l->mode == MODE_OPEN ? l->next_due_ns : now_ns);
		if (l->mode == MODE_OPEN)
			l->next_due_ns += l->interval_ns;
	}
}

static bool load_is_given_up(const struct load *l) {
	return !is_streaming(l) && l->n_faults_all >= FAULTS_MAX;
}

static bool load_is_opened(const struct load *l) {
	return l->n_open + l->n_over == l->n_flows;
}

static bool load_is_answered(const struct load *l) {
	return l->n_busy == 0 && l->next_due_ns >= l->last_due_ns;
}

/* Until the deadline, or until `is_done` says so; NULL never does. */
static void load_run(struct load *l, uint64_t deadline_ns, bool (*is_done)(const struct load *)) {
	struct epoll_event events[EVENTS_MAX];

	while (!load_is_given_up(l)) {
		load_start_due(l);
		uint64_t now_ns = kit_now_ns(), until_ns = deadline_ns;
		if (now_ns >= deadline_ns || (is_done && is_done(l)))
			return;
		if (l->first_free)
			until_ns = u64_min(until_ns, load_next_start_ns(l, now_ns));
		struct timespec wait = { (time_t)((until_ns - now_ns) / (1000 * MS)),
			(long)((until_ns - now_ns) % (1000 * MS)) };
		int n = epoll_pwait2(l->epoll, events, EVENTS_MAX, &wait, NULL);
		for (int i = 0; i < n; i++) {
			struct flow *f = events[i].data.ptr;
			if (f->blocked && (events[i].events & ~(uint32_t)EPOLLIN) && !flow_write(l, f))
				continue;
			if (events[i].events & ~(uint32_t)EPOLLOUT)
				flow_read(l, f);
		}
	}
}

static uint64_t load_cpu_ns(const struct load *l) {
	uint64_t sum_ns = 0;
	struct timespec t;

	for (size_t i = 0; i < l->n_clocks; i++) {
		if (clock_gettime(l->clocks[i], &t) < 0)
			kit_die("load: a process of --clock is gone");
		sum_ns += (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
	}
	return sum_ns;
}

static void say_ready(void) {
	puts("ready");
	fflush(stdout);
}

static void wait_for_end_of_input(void) {
	char byte;

	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
}

static void load_hold(struct load *l) {
	uint64_t cpu_ns = load_cpu_ns(l);

	l->window_ns = 0;
	load_run(l, kit_now_ns() + OPENING_MS * MS, load_is_opened);
	l->n_faults[FAULT_UNANSWERED] += l->n_flows - l->n_open - l->n_over;
	l->cpu_ns = load_cpu_ns(l) - cpu_ns;
	say_ready();
	wait_for_end_of_input();
	load_run(l, kit_now_ns() + 10 * MS, NULL); /* those that were closed meanwhile */
}

static void load_measure(struct load *l) {
	if (l->mode == MODE_SSE)
		load_run(l, kit_now_ns() + OPENING_MS * MS, load_is_opened);
	l->next_due_ns = kit_now_ns();
	l->last_due_ns = l->next_due_ns + (l->warm_ms + l->window_ms) * MS;
	load_run(l, l->next_due_ns + l->warm_ms * MS, NULL);
	l->window_ns = kit_now_ns();
	uint64_t cpu_ns = load_cpu_ns(l);
	say_ready();
	load_run(l, l->window_ns + l->window_ms * MS, NULL);
	if (l->mode == MODE_OPEN) {
		load_run(l, kit_now_ns() + GRACE_MS * MS, load_is_answered);
		l->n_faults[FAULT_UNANSWERED] += l->n_busy;
		if (l->next_due_ns < l->last_due_ns)
			l->n_faults[FAULT_UNANSWERED] += (l->last_due_ns - l->next_due_ns) / l->interval_ns;
	}
	l->n_faults[FAULT_UNANSWERED] += l->mode == MODE_SSE ? l->n_flows - l->n_open - l->n_over : 0;
	l->cpu_ns = load_cpu_ns(l) - cpu_ns;
	l->window_ms = (kit_now_ns() - l->window_ns) / MS;
}

static void load_print(const struct load *l) {
	static const struct {
		const char *name;
		double share;
	} quantiles[] = { { "p50", 0.5 }, { "p95", 0.95 }, { "p99", 0.99 }, { "p999", 0.999 } };
	uint64_t n_errors = 0;

	printf("{\"ops\":%llu,\"window_ms\":%llu,\"cpu_ns\":%llu", (unsigned long long)l->delay.n,
	    (unsigned long long)l->window_ms, (unsigned long long)l->cpu_ns);
	for (size_t i = 0; i < n_elems(quantiles); i++)
		printf(",\"%s_us\":%.1f", quantiles[i].name,
		    (double)histogram_quantile(&l->delay, quantiles[i].share) / 1000);
	if (l->mode == MODE_SSE)
		printf(",\"merged_reads\":%llu", (unsigned long long)l->n_merged);
	printf(",\"reconnects\":%llu,\"faults\":{", (unsigned long long)l->n_reconnects);
	for (size_t i = 0, n = 0; i < N_FAULTS; i++)
		if (l->n_faults[i]) {
			printf("%s\"%s\":%llu", n++ ? "," : "", fault_names[i],
			    (unsigned long long)l->n_faults[i]);
			n_errors += l->n_faults[i];
		}
	printf("},\"refusals\":{");
	for (size_t i = 0; i < REFUSALS_MAX && l->refusals[i].n; i++)
		printf(
		    "%s\"%s\":%llu", i ? "," : "", l->refusals[i].code, (unsigned long long)l->refusals[i].n);
	printf("},\"errors\":%llu}\n", (unsigned long long)n_errors);
	fflush(stdout);
}

static void load_init(struct load *l) {
	if (!l->ports.n || !l->n_flows || (l->mode == MODE_OPEN && !l->interval_ns))
		kit_die("usage: load closed|open|sse|idle --ports P,.. --connections N ...: see the top of "
			"load.c");
	requests_init(l);
	l->epoll = kit_epoll();
	l->last_free = &l->first_free;
	l->window_ns = UINT64_MAX;
	l->flows = calloc(l->n_flows, sizeof(*l->flows));
	if (!l->flows)
		kit_die("load: out of memory");
	for (unsigned i = 0; i < l->n_flows; i++) {
		l->flows[i].fd = -1;
		l->flows[i].index = i;
		flow_set_free(l, &l->flows[i]);
	}
}

static void load_add_clocks(struct load *l, const char *pids) {
	struct slice rest = slice_of(pids), member;
	uint64_t pid;

	while (slice_next_member(&rest, &member))
		if (l->n_clocks == CLOCKS_MAX || !text_uint(member, INT32_MAX, &pid) ||
		    clock_getcpuclockid((pid_t)pid, &l->clocks[l->n_clocks++]) != 0)
			kit_die("load: no such processes: %s", pids);
}

static void load_use_tls(struct load *l) {
	const struct tls_client_files any = { .ca = "", .certificate = { "", "" }, .is_insecure = true };
	char why[TLS_WHY_BYTES];

	l->tls = tls_client_new(&any, why);
	if (!l->tls)
		kit_die("load: %s", why);
}

static void load_parse(struct load *l, int argc, char **argv) {
	static const struct option options[] = { { "ports", 1, 0, 'p' }, { "connections", 1, 0, 'c' },
		{ "window-ms", 1, 0, 'w' }, { "warm-ms", 1, 0, 'm' }, { "rate", 1, 0, 'r' },
		{ "body-bytes", 1, 0, 'b' }, { "clock", 1, 0, 'k' }, { "routed", 0, 0, 'o' },
		{ "models", 1, 0, 'n' }, { "shared-bytes", 1, 0, 's' }, { "tls", 0, 0, 't' },
		{ "late", 0, 0, 'l' }, { "refusals", 0, 0, 'f' }, { "key", 1, 0, 'y' }, { 0 } };
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'p':
			l->ports = kit_ports(optarg);
			break;
		case 'c':
			l->n_flows = (unsigned)kit_uint(optarg, 100000);
			break;
		case 'w':
			l->window_ms = kit_uint(optarg, 3600000);
			break;
		case 'm':
			l->warm_ms = kit_uint(optarg, 3600000);
			break;
		case 'r':
			l->interval_ns = 1000 * MS / u64_max(1, kit_uint(optarg, 10000000));
			break;
		case 'b':
			l->body_bytes = kit_uint(optarg, 100000000);
			break;
		case 'k':
			load_add_clocks(l, optarg);
			break;
		case 'o':
			l->routed = true;
			break;
		case 'n':
			l->n_models = (unsigned)u64_max(1, kit_uint(optarg, SHAPE_N_MODELS));
			break;
		case 'l':
			l->is_late = true;
			break;
		case 'f':
			l->takes_refusals = true;
			break;
		case 'y':
			l->key = optarg;
			break;
		case 't':
			load_use_tls(l);
			break;
		case 's':
			l->shared_bytes = kit_uint(optarg, 100000000);
			break;
		default:
			exit(2);
		}
	}
	const char *mode = optind == argc - 1 ? argv[optind] : "";
	while (l->mode < n_elems(mode_names) && strcmp(mode, mode_names[l->mode]) != 0)
		l->mode++;
	if (l->mode == n_elems(mode_names) || !l->ports.n || !l->n_flows ||
	    (l->mode == MODE_OPEN && !l->interval_ns))
		kit_die("usage: load closed|open|sse|idle --ports P,.. --connections N ...: see the top of "
			"load.c");
}

int main(int argc, char **argv) {
	static struct load load = { .key = "sk-bench", .body_bytes = 400, .n_models = SHAPE_N_MODELS };

	load_parse(&load, argc, argv);
	kit_raise_limits();
	prctl(PR_SET_TIMERSLACK, 1UL);
	load_init(&load);
	if (load.mode == MODE_IDLE)
		load_hold(&load);
	else
		load_measure(&load);
	load_print(&load);
	if (load.mode != MODE_IDLE)
		wait_for_end_of_input();
}
