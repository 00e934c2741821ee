/*
 * callers: the clients of the fault suite: every request is one of its own, and every answer is
 * held against it.
 *
 *   callers --port P --connections N --requests N --rate N [--stream-share PERCENT] [--seed N]
 *
 * Requests are due at a fixed rate; while all connections are busy they wait. A request's id stands in its
 * `x-request-id` and its prompt, the engine says the prompt again: an answer is good when it is framed as
 * HTTP has it, has the request's id and text to the last byte and, as a stream, ends with [DONE]. Each
 * connection is closed after some requests, so that there are new ones all the time.
 *
 * On standard output, a line each: "at N" every hundred ends, "bad ID BEGAN ENDED KIND STATUS CODE" for
 * a request that did not end well (times of CLOCK_MONOTONIC in seconds), and in the end one of JSON.
 * KIND says what the client saw:
 *
 *   error    an error answer, whole
 *   event    a stream that ended in an error event
 *   cut      an answer that began and visibly is not complete
 *   silent   a new connection ended and nothing had come
 *   stale    the same of one that was kept, and was open when the request was sent
 *   refused  there was no connection
 *   late     nothing more came for LATE_S
 *   wrong    bytes that this request must not get, or an answer that seems complete and is not
 *
 * Ends when all requests have ended and standard input has: more are sent until then. One thread.
 */
#include <getopt.h>

#include "base/mix.h"
#include "bench/kit.h"
#include "bench/reader.h"
#include "bench/shape.h"

#define EVENTS_MAX  256
#define MS          UINT64_C(1000000)
#define LATE_S      20
#define TURN_MS     100 /* between looks at who is late */
#define ID_BYTES    10
#define PROMPT_ROOM 256
#define ANSWER_ROOM 16384
#define PROGRESS    100
#define KEPT_MAX    32 /* requests of a connection */

enum kind {
	KIND_GOOD,
	KIND_ERROR,
	KIND_EVENT,
	KIND_CUT,
	KIND_SILENT,
	KIND_STALE,
	KIND_REFUSED,
	KIND_LATE,
	KIND_WRONG,
	N_KINDS
};

static const char *const kind_names[] = { "good", "error", "event", "cut", "silent", "stale", "refused",
	"late", "wrong" };

struct caller {
	int fd; /* -1 between connections */
	bool is_busy, is_stream, is_new, has_head;
	unsigned status, n_left; /* requests that the connection is still for */
	uint64_t began_ns, heard_ns;
	char id[ID_BYTES + 1], prompt[PROMPT_ROOM], request[1024];
	size_t n_request, n_written, n_answer;
	char answer[ANSWER_ROOM];
	struct reader reader;
	struct caller *next_free;
};

struct callers {
	uint16_t port;
	unsigned n_callers, stream_percent;
	uint64_t n_wanted, interval_ns, seed;

	int epoll;
	bool is_told_to_end;
	struct caller *all, *first_free;
	uint64_t n_begun, n_ended, due_ns;
	uint64_t n_of_kind[N_KINDS], n_streams;
	uint64_t good_ns, pause_ns,
	    slowest_ns; /* the last good end, the longest time between two, the longest wait */
	char buffer[64 * 1024];
};

/* --- what is asked --- */

/* The prompt's words are the id's, so that no two answers are alike anywhere. */
static void compose(struct callers *a, struct caller *c) {
	static const char *const words[] = { "river", "weir", "mill", "wheel", "gate", "town", "hill",
		"water" };
	uint64_t n = a->n_begun, bits = mix64(n ^ a->seed);
	char body[PROMPT_ROOM + 128];

	shape_digits(c->id, ID_BYTES, n, 10);
	c->id[0] = 'c';
	c->id[ID_BYTES] = '\0';
	c->is_stream = bits % 100 < a->stream_percent;
	int n_prompt = snprintf(c->prompt, sizeof(c->prompt), "%s", c->id);
	for (unsigned i = 0; i < 7; i++, bits >>= 8)
		n_prompt += snprintf(c->prompt + n_prompt, sizeof(c->prompt) - (size_t)n_prompt, " %s%02x",
		    words[bits % n_elems(words)], (unsigned)(bits & 0xff));
	int n_body = snprintf(body, sizeof(body),
	    "{\"model\":\"m\",\"stream\":%s,\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}",
	    c->is_stream ? "true" : "false", c->prompt);
	c->n_request = (size_t)snprintf(c->request, sizeof(c->request),
	    "POST /v1/chat/completions HTTP/1.1\r\nhost: fleet\r\ncontent-type: application/json\r\n"
	    "x-request-id: %s\r\ncontent-length: %d\r\n\r\n%s",
	    c->id, n_body, body);
	assert(c->n_request < sizeof(c->request));
}

/* --- what comes of it --- */

static void hang_up(struct caller *c) {
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static void note_good(struct callers *a, const struct caller *c, uint64_t now_ns) {
	if (a->good_ns)
		a->pause_ns = u64_max(a->pause_ns, now_ns - a->good_ns);
	a->good_ns = now_ns;
	a->slowest_ns = u64_max(a->slowest_ns, now_ns - c->began_ns);
	a->n_streams += c->is_stream;
}

static double seconds(uint64_t ns) {
	return (double)ns / 1e9;
}

static void print_bad(const struct caller *c, enum kind kind, uint64_t now_ns) {
	static const char key[] = "\"code\":\"";
	const char *code = memmem(c->answer, c->n_answer, key, sizeof(key) - 1);
	int n_code = code ? (int)strcspn(code + sizeof(key) - 1, "\"") : 1;

	printf("bad %s %.6f %.6f %s %u %.*s\n", c->id, seconds(c->began_ns), seconds(now_ns),
	    kind_names[kind], c->status, n_code, code ? code + sizeof(key) - 1 : "-");
}

/* The one way in which a request ends. */
static void caller_end(struct callers *a, struct caller *c, enum kind kind) {
	uint64_t now_ns = kit_now_ns();

	assert(c->is_busy);
	c->is_busy = false;
	a->n_of_kind[kind]++;
	if (kind == KIND_GOOD)
		note_good(a, c, now_ns);
	else
		print_bad(c, kind, now_ns);
	if (++a->n_ended % PROGRESS == 0)
		printf("at %llu\n", (unsigned long long)a->n_ended);
	fflush(stdout);
	bool is_kept = kind == KIND_GOOD || kind == KIND_ERROR;
	if (!is_kept || c->reader.closes || --c->n_left == 0)
		hang_up(c);
	c->next_free = a->first_free;
	a->first_free = c;
}

/* The text of all of a stream's events, or of the one answer, as far as it came. */
static size_t gather(const struct caller *c, char text[static ANSWER_ROOM]) {
	static const char key[] = "\"content\":\"";
	struct slice rest = { c->answer, c->n_answer };
	size_t n = 0;

	for (const char *at; (at = memmem(rest.p, rest.n, key, sizeof(key) - 1));) {
		rest = slice_skip(rest, (size_t)(at - rest.p) + sizeof(key) - 1);
		const char *end = memchr(rest.p, '"', rest.n);
		size_t n_text = end ? (size_t)(end - rest.p) : rest.n;
		memcpy(text + n, rest.p, n_text);
		n += n_text;
		rest = slice_skip(rest, n_text);
	}
	return n;
}

static bool answer_has(const struct caller *c, const char *text) {
	return memmem(c->answer, c->n_answer, text, strlen(text));
}

/* No other id than this request's. */
static bool is_own(const struct caller *c) {
	static const char key[] = "\"id\":\"chatcmpl-";
	struct slice rest = { c->answer, c->n_answer };

	for (const char *at; (at = memmem(rest.p, rest.n, key, sizeof(key) - 1));) {
		rest = slice_skip(rest, (size_t)(at - rest.p) + sizeof(key) - 1);
		if (memcmp(rest.p, c->id, size_min(ID_BYTES, rest.n)) != 0)
			return false;
	}
	return true;
}

/* What has come of an answer with status 200: `is_whole` when its framing says that this is all. */
static enum kind judge(const struct caller *c, bool is_whole) {
	char text[ANSWER_ROOM];
	size_t n = gather(c, text), n_prompt = strlen(c->prompt);
	bool is_all = n == n_prompt;

	if (n > n_prompt || memcmp(text, c->prompt, n) != 0 || !is_own(c))
		return KIND_WRONG;
	if (answer_has(c, "data: {\"error\""))
		return is_whole || answer_has(c, "[DONE]") ? KIND_WRONG : KIND_EVENT;
	if (!is_whole)
		return KIND_CUT;
	return is_all && (!c->is_stream || answer_has(c, "data: [DONE]\n\n")) ? KIND_GOOD : KIND_WRONG;
}

/* All that will come has. */
static void caller_on_end(struct callers *a, struct caller *c, bool is_whole) {
	if (!c->has_head)
		caller_end(a, c,
		    c->n_answer || c->reader.n_head ? KIND_CUT
			: c->is_new                 ? KIND_SILENT
						    : KIND_STALE);
	else if (c->status == 200)
		caller_end(a, c, judge(c, is_whole));
	else
		caller_end(a, c, !is_whole ? KIND_CUT : answer_has(c, "\"error\"") ? KIND_ERROR : KIND_WRONG);
}

static bool caller_on_body(struct callers *a, struct caller *c, struct slice part) {
	if (c->n_answer + part.n > sizeof(c->answer)) {
		caller_end(a, c, KIND_WRONG);
		return false;
	}
	memcpy(c->answer + c->n_answer, part.p, part.n);
	c->n_answer += part.n;
	return true;
}

/* Bytes of an answer; those that nobody asked for are wrong. */
static void caller_take(struct callers *a, struct caller *c, struct slice in) {
	struct slice part;
	uint64_t status;

	for (;;) {
		switch (reader_next(&c->reader, &in, &part)) {
		case PART_MORE:
			return;
		case PART_HEAD:
			c->has_head = part.n > 12 && text_uint((struct slice){ part.p + 9, 3 }, 599, &status);
			c->status = c->has_head ? (unsigned)status : 0;
			if (c->has_head && c->reader.framed)
				break;
			caller_end(a, c, KIND_WRONG);
			return;
		case PART_BODY:
			if (!caller_on_body(a, c, part))
				return;
			break;
		case PART_END:
			if (in.n)
				caller_end(a, c, KIND_WRONG);
			else
				caller_on_end(a, c, true);
			return;
		case PART_BAD:
			caller_end(a, c, KIND_WRONG);
			return;
		}
	}
}

static void caller_read(struct callers *a, struct caller *c) {
	ssize_t n = recv(c->fd, a->buffer, sizeof(a->buffer), 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (!c->is_busy) { /* it was idle: closed, or told something that it did not ask */
		if (n > 0)
			a->n_of_kind[KIND_WRONG]++;
		hang_up(c);
		return;
	}
	c->heard_ns = kit_now_ns();
	if (n > 0)
		caller_take(a, c, (struct slice){ a->buffer, (size_t)n });
	else if (c->is_new && c->n_written == 0)
		caller_end(a, c, KIND_REFUSED);
	else
		caller_on_end(a, c, false);
}

static void caller_write(struct callers *a, struct caller *c) {
	ssize_t n = send(c->fd, c->request + c->n_written, c->n_request - c->n_written, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN) {
		caller_end(a, c, !c->is_new ? KIND_STALE : c->n_written ? KIND_SILENT : KIND_REFUSED);
		return;
	}
	c->n_written += n < 0 ? 0 : (size_t)n;
	if (c->n_written == c->n_request)
		kit_watch(a->epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
}

/* Whoever keeps connections looks whether they were closed before it sends. */
static bool is_kept(const struct caller *c) {
	char byte;

	return c->fd >= 0 && recv(c->fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

static bool caller_connect(struct callers *a, struct caller *c) {
	hang_up(c);
	c->n_left = 1 + (unsigned)(mix64(a->n_begun) % KEPT_MAX);
	c->reader = (struct reader){ .step = READER_HEAD };
	c->fd = kit_connect(a->port);
	if (c->fd >= 0)
		kit_watch(a->epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN | EPOLLOUT, c);
	return c->fd >= 0;
}

static void caller_begin(struct callers *a, struct caller *c) {
	a->n_begun++;
	compose(a, c);
	c->is_busy = true;
	c->has_head = false;
	c->status = 0;
	c->n_written = c->n_answer = 0;
	c->began_ns = c->heard_ns = kit_now_ns();
	c->is_new = !is_kept(c);
	if (!c->is_new)
		kit_watch(a->epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT, c);
	else if (!caller_connect(a, c))
		caller_end(a, c, KIND_REFUSED);
}

/* --- the run --- */

static void begin_due(struct callers *a, uint64_t now_ns) {
	bool is_enough = a->n_begun >= a->n_wanted && a->is_told_to_end;

	while (!is_enough && a->first_free && a->due_ns <= now_ns) {
		struct caller *c = a->first_free;
		a->first_free = c->next_free;
		a->due_ns = u64_max(a->due_ns + a->interval_ns, now_ns - u64_min(now_ns, 50 * MS));
		caller_begin(a, c);
	}
}

static void end_late(struct callers *a, uint64_t now_ns) {
	for (unsigned i = 0; i < a->n_callers; i++)
		if (a->all[i].is_busy && now_ns - a->all[i].heard_ns > LATE_S * 1000 * MS)
			caller_end(a, &a->all[i], KIND_LATE);
}

static void on_input(struct callers *a) {
	char byte;

	if (read(STDIN_FILENO, &byte, 1) > 0)
		return;
	a->is_told_to_end = true;
	if (epoll_ctl(a->epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL) < 0)
		kit_die("epoll_ctl: %m");
}

static void run(struct callers *a) {
	struct epoll_event events[EVENTS_MAX];
	uint64_t looked_ns = a->due_ns = kit_now_ns();

	while (!a->is_told_to_end || a->n_begun < a->n_wanted || a->n_begun > a->n_ended) {
		uint64_t now_ns = kit_now_ns();
		begin_due(a, now_ns);
		if (now_ns - looked_ns > TURN_MS * MS) {
			end_late(a, kit_now_ns());
			looked_ns = now_ns;
		}
		int n = epoll_wait(a->epoll, events, EVENTS_MAX, 1);
		for (int i = 0; i < n; i++) {
			struct caller *c = events[i].data.ptr;
			if (!c)
				on_input(a);
			else if (c->is_busy && c->n_written < c->n_request && (events[i].events & EPOLLOUT))
				caller_write(a, c);
			else
				caller_read(a, c);
		}
	}
}

static void print_end(const struct callers *a) {
	printf("{\"requests\":%llu", (unsigned long long)a->n_ended);
	for (enum kind k = 0; k < N_KINDS; k++)
		printf(",\"%s\":%llu", kind_names[k], (unsigned long long)a->n_of_kind[k]);
	printf(",\"good_streams\":%llu,\"pause_ms\":%.1f,\"slowest_ms\":%.1f}\n",
	    (unsigned long long)a->n_streams, seconds(a->pause_ns) * 1e3, seconds(a->slowest_ns) * 1e3);
}

static void parse(struct callers *a, int argc, char **argv) {
	static const struct option options[] = { { "port", 1, 0, 'p' }, { "connections", 1, 0, 'c' },
		{ "requests", 1, 0, 'n' }, { "rate", 1, 0, 'r' }, { "stream-share", 1, 0, 's' },
		{ "seed", 1, 0, 'e' }, { 0 } };
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t value = option == '?' ? 0 : kit_uint(optarg, 100000000);
		switch (option) {
		case 'p':
			a->port = (uint16_t)value;
			break;
		case 'c':
			a->n_callers = (unsigned)value;
			break;
		case 'n':
			a->n_wanted = value;
			break;
		case 'r':
			a->interval_ns = 1000 * MS / u64_max(1, value);
			break;
		case 's':
			a->stream_percent = (unsigned)value;
			break;
		case 'e':
			a->seed = value;
			break;
		default:
			exit(2);
		}
	}
	if (!a->port || !a->n_callers || !a->n_wanted || !a->interval_ns)
		kit_die("usage: callers --port P --connections N --requests N --rate N: see the top of "
			"callers.c");
}

int main(int argc, char **argv) {
	static struct callers callers = { .stream_percent = 50, .seed = 1 };
	struct callers *a = &callers;

	parse(a, argc, argv);
	kit_raise_limits();
	a->epoll = kit_epoll();
	a->all = calloc(a->n_callers, sizeof(*a->all));
	if (!a->all)
		kit_die("callers: out of memory");
	for (unsigned i = 0; i < a->n_callers; i++) {
		a->all[i].fd = -1;
		a->all[i].next_free = a->first_free;
		a->first_free = &a->all[i];
	}
	kit_watch(a->epoll, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, NULL);
	run(a);
	print_end(a);
}
