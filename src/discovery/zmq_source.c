/*
 * A worker is what its last message said, byte by byte: the same again is only a lease. The messages
 * themselves, one behind the other, are what a successor is given.
 */
#include "discovery/zmq_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define HASH_FUNCTION HASH_SAX /* the default one falls through its cases, which clang refuses */
#include <uthash.h>

#include "base/log.h"
#include "base/msgpack.h"
#include "base/text.h"

#define TICK_MS     250u
#define GAP_MS      1000u /* between two ticks: the process stood still */
#define SAID_MS     1000u /* between two lines about what is bad */
#define URL_BYTES   TEXT_URL_BYTES
#define LABELS_MAX  6
#define NUMBER_TEXT 12

struct zmq_worker {
	UT_hash_handle hh;
	uint64_t lease_until_ms;
	bool is_prefill;
	enum zmq_mode mode;
	uint32_t n_bytes; /* of the message */
	char *message;
	char url[URL_BYTES];
};

const char *zmq_outcome_text(enum zmq_outcome outcome) {
	static const char *const texts[ZMQ_OUTCOMES] = { "good", "bad", "refused" };

	assert(outcome < ZMQ_OUTCOMES);
	return texts[outcome];
}

static uint64_t source_now(const struct zmq_source *s) {
	return loop_now_ms(s->loop);
}

/* --- the log --------------------------------------------------------------------------------- */

static void source_log(enum log_level level, const char *event, struct slice instance, const char *why) {
	struct log_event e;

	log_begin(&e, level, event);
	if (instance.n)
		line_text(&e.line, SLICE("instance"), instance);
	if (why)
		line_text(&e.line, SLICE("reason"), slice_of(why));
	log_end(&e);
}

/* Anybody may send anything as often as they like: one line a second says what is the matter. */
static void source_say_bad(struct zmq_source *s, struct slice instance, const char *why) {
	uint64_t now_ms = source_now(s);

	if (s->said_ms && now_ms - s->said_ms < SAID_MS)
		return;
	s->said_ms = now_ms;
	source_log(LOG_WARN, "a message on the discovery socket is skipped", instance, why);
}

static enum zmq_outcome source_refuse(struct zmq_source *s, const char *url, const char *why) {
	source_say_bad(s, slice_of(url), why);
	return ZMQ_REFUSED;
}

/* --- the table ------------------------------------------------------------------------------- */

/* `by` is 1 or -1. */
static void source_count(struct zmq_source *s, const struct zmq_worker *w, int by) {
	*(w->is_prefill ? &s->n_prefill : &s->n_decode) += (uint32_t)by;
	if (w->mode)
		s->n_moriio += (uint32_t)by;
	if (!s->n_moriio)
		s->is_mode_said = false;
}

static struct zmq_worker *source_find(const struct zmq_source *s, const char *url) {
	struct zmq_worker *w;

	HASH_FIND_STR(s->workers, url, w);
	return w;
}

static struct zmq_worker *source_add(struct zmq_source *s, const char *url) {
	struct zmq_worker *w = calloc(1, sizeof(*w));

	snprintf(w->url, sizeof(w->url), "%s", url);
	HASH_ADD_STR(s->workers, url, w);
	return w;
}

static void source_remove(struct zmq_source *s, struct zmq_worker *w) {
	source_count(s, w, -1);
	/* The analyser does not see that the last one takes the table along. */
	HASH_DEL(s->workers, w); /* NOLINT(clang-analyzer-unix.Malloc) */
	free(w->message);
	free(w);
}

static void worker_remember(struct zmq_worker *w, const struct zmq_message *m, struct slice bytes) {
	w->is_prefill = m->is_prefill;
	w->mode = m->mode;
	free(w->message);
	w->message = malloc(bytes.n);
	memcpy(w->message, bytes.p, bytes.n);
	w->n_bytes = (uint32_t)bytes.n;
}

/* --- what a message becomes ------------------------------------------------------------------ */

/* The texts of a record. */
struct record_text {
	struct pair labels[LABELS_MAX];
	uint32_t n_labels;
	char tp_size[NUMBER_TEXT], dp_size[NUMBER_TEXT];
	char host[URL_BYTES], url[URL_BYTES];
};

static void add_label(struct record_text *t, struct slice key, struct slice value) {
	assert(t->n_labels < LABELS_MAX);
	t->labels[t->n_labels++] = (struct pair){ key, value };
}

static void add_size(struct record_text *t, struct slice key, uint32_t size, char text[NUMBER_TEXT]) {
	if (!size)
		return;
	snprintf(text, NUMBER_TEXT, "%u", size);
	add_label(t, key, slice_of(text));
}

static void write_labels(const struct zmq_source *s, const struct zmq_message *m, struct record_text *t) {
	bool is_moriio = m->mode != ZMQ_MODE_NONE;

	add_label(t, SLICE("role"), slice_of(m->is_prefill ? "prefill" : "decode"));
	add_label(t, SLICE("zmq_address"), m->zmq_address);
	add_label(t, SLICE("kv_connector"), slice_of(is_moriio ? "moriio" : s->connector));
	if (is_moriio)
		add_label(t, SLICE("kv_mode"), slice_of(m->mode == ZMQ_MODE_READ ? "read" : "write"));
	add_size(t, SLICE("tp_size"), is_moriio && !m->tp_size ? 1 : m->tp_size, t->tp_size);
	add_size(t, SLICE("dp_size"), is_moriio && !m->dp_size ? 1 : m->dp_size, t->dp_size);
}

static int source_upsert(struct zmq_source *s, const struct zmq_message *m, struct record_text *t) {
	struct slice url = slice_of(t->url);

	write_labels(s, m, t);
	const struct fleet_spec spec = {
		.instance = { .name = url,
		    .url = url,
		    .authority = slice_skip(url, strlen("http://")),
		    .host = slice_of(t->host),
		    .port = m->http_port },
		.weight = INSTANCE_WEIGHT_ONE,
		.labels = { t->labels, t->n_labels },
	};
	return fleet_upsert(s->fleet, SOURCE_ZMQ, &spec);
}

/* --- messages -------------------------------------------------------------------------------- */

static enum zmq_outcome source_refuse_mode(struct zmq_source *s, const char *url) {
	if (!s->is_mode_said)
		source_log(LOG_WARN,
		    s->mode == ZMQ_MODE_READ ? "engines transfer in mode read: one of mode write is refused"
					     : "engines transfer in mode write: one of mode read is refused",
		    slice_of(url), NULL);
	s->is_mode_said = true;
	return ZMQ_REFUSED;
}

/* Whether others than `w`, which may be NULL, have another mode. */
static bool is_other_mode(
    const struct zmq_source *s, const struct zmq_worker *w, const struct zmq_message *m) {
	return m->mode && m->mode != s->mode && s->n_moriio > (w && w->mode);
}

static enum zmq_outcome source_learn(struct zmq_source *s, struct zmq_worker *w, const struct zmq_message *m,
    struct record_text *t, struct slice bytes) {
	if (is_other_mode(s, w, m))
		return source_refuse_mode(s, t->url);
	if (!w && s->n_prefill + s->n_decode == ZMQ_WORKERS_MAX)
		return source_refuse(s, t->url, "too many have announced themselves");
	int outcome = source_upsert(s, m, t);
	if (outcome)
		return source_refuse(s, t->url,
		    outcome == FLEET_E_FULL ? "the fleet has no room for it"
					    : "it is beyond a limit of the fleet");
	if (w)
		source_count(s, w, -1);
	else
		w = source_add(s, t->url);
	worker_remember(w, m, bytes);
	if (m->mode)
		s->mode = m->mode;
	source_count(s, w, 1);
	w->lease_until_ms = source_now(s) + ZMQ_LEASE_MS;
	loop_wake(s->loop, &s->change);
	return ZMQ_GOOD;
}

static enum zmq_outcome source_take(struct zmq_source *s, struct slice bytes) {
	struct record_text text = { .n_labels = 0 };
	struct zmq_message m;
	const char *mistake = zmq_message_read(bytes, &m);

	if (mistake || (!m.mode && strcmp(s->connector, "moriio") == 0)) {
		source_say_bad(s, (struct slice){ NULL, 0 }, mistake ? mistake : "it has no transfer_mode");
		return ZMQ_BAD;
	}
	snprintf(text.host, sizeof(text.host), "%.*s", (int)m.http_host.n, m.http_host.p);
	text_print_url(text.url, sizeof(text.url), text.host, m.http_port);
	struct zmq_worker *w = source_find(s, text.url);
	if (!w || !slice_eq((struct slice){ w->message, w->n_bytes }, bytes))
		return source_learn(s, w, &m, &text, bytes);
	w->lease_until_ms = source_now(s) + ZMQ_LEASE_MS;
	return ZMQ_GOOD;
}

static void source_on_message(struct zmq_inbox *inbox, struct slice message) {
	struct zmq_source *s = container_of(inbox, struct zmq_source, inbox);

	s->counts[source_take(s, message)]++;
}

/* --- leases ---------------------------------------------------------------------------------- */

static void source_expire(struct zmq_source *s, struct zmq_worker *w) {
	(void)fleet_remove(s->fleet, SOURCE_ZMQ, slice_of(w->url));
	source_remove(s, w);
	loop_wake(s->loop, &s->change);
}

/* One line for all, since anybody may bring and lose as many as there is room for. */
static void source_say_expired(const struct zmq_worker *last, uint32_t n) {
	struct log_event e;

	log_begin(&e, LOG_INFO, "engines that do not announce themselves any more leave");
	line_text(&e.line, SLICE("instance"), slice_of(last->url));
	line_uint(&e.line, SLICE("n"), n);
	log_end(&e);
}

static void source_sweep(struct zmq_source *s, uint64_t gap_ms) {
	uint64_t now_ms = source_now(s);
	struct zmq_worker *w, *next, *last = NULL;
	uint32_t n = 0;

	HASH_ITER(hh, s->workers, w, next) {
		w->lease_until_ms += gap_ms;
		if (now_ms >= w->lease_until_ms) {
			last = w;
			n++;
		}
	}
	if (!last)
		return;
	source_say_expired(last, n);
	HASH_ITER(hh, s->workers, w, next) {
		if (now_ms >= w->lease_until_ms)
			source_expire(s, w);
	}
}

static void source_on_tick(struct timer *t) {
	struct zmq_source *s = container_of(t, struct zmq_source, tick);
	uint64_t now_ms = source_now(s), passed_ms = now_ms - s->ticked_ms;

	source_sweep(s, passed_ms > GAP_MS ? passed_ms : 0);
	s->ticked_ms = now_ms;
	loop_timer(s->loop, &s->tick, TICK_MS);
}

/* --- a successor ----------------------------------------------------------------------------- */

int zmq_source_keep(const struct zmq_source *s) {
	int fd = memfd_create("headrace-zmq", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (const struct zmq_worker *w = s->workers; w; w = w->hh.next)
		if (write(fd, w->message, w->n_bytes) != (ssize_t)w->n_bytes) {
			close(fd);
			return -ENOSPC;
		}
	return fd;
}

void zmq_source_restore(struct zmq_source *s, int fd) {
	char *text = malloc(ZMQ_WORKERS_MAX * ZMQ_MESSAGE_BYTES_MAX);
	ssize_t n = pread(fd, text, ZMQ_WORKERS_MAX * ZMQ_MESSAGE_BYTES_MAX, 0);
	struct slice rest = { text, n > 0 ? (size_t)n : 0 }, message;

	while (msgpack_skip(&rest, &message))
		(void)source_take(s, message);
	free(text);
	close(fd);
}

/* --- the whole ------------------------------------------------------------------------------- */

static void source_on_change(struct job *job) {
	struct zmq_source *s = container_of(job, struct zmq_source, change);

	s->on_change(s);
}

void zmq_source_init(struct zmq_source *s, struct loop *loop, struct fleet *fleet, const char *connector,
    void (*on_change)(struct zmq_source *s)) {
	*s = (struct zmq_source){ .loop = loop, .fleet = fleet, .on_change = on_change };
	snprintf(s->connector, sizeof(s->connector), "%s", connector);
	s->inbox.on_message = source_on_message;
	timer_init(&s->tick, source_on_tick);
	job_init(&s->change, source_on_change);
}

int zmq_source_listen(struct zmq_source *s, int fd) {
	uint64_t now_ms = source_now(s);

	for (struct zmq_worker *w = s->workers; w; w = w->hh.next)
		w->lease_until_ms = now_ms + ZMQ_LEASE_MS;
	s->ticked_ms = now_ms;
	loop_timer(s->loop, &s->tick, TICK_MS);
	return zmq_inbox_open(&s->inbox, s->loop, fd, ZMQ_MESSAGE_BYTES_MAX);
}

void zmq_source_leave(struct zmq_source *s) {
	timer_stop(&s->tick);
	zmq_inbox_close(&s->inbox);
}

void zmq_source_deinit(struct zmq_source *s) {
	struct zmq_worker *w, *next;

	zmq_source_leave(s);
	job_cancel(&s->change);
	HASH_ITER(hh, s->workers, w, next) {
		source_remove(s, w);
	}
}
