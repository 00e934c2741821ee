/*
 * What is wanted and what is known decide the next request, in registrar_decide(), which
 * is called whenever one of the two has changed and no request is under way. Nothing
 * else starts one. An answer only changes what is known.
 */
#include "babysitter/registrar.h"

#include <stdlib.h>

#include "base/log.h"

enum registrar_request { ASK_NOTHING, ASK_REGISTER, ASK_HEARTBEAT, ASK_DELETE };

#define ANSWER_MS      5000
#define ANSWER_BYTES   (1u << 20) /* a registration is answered with the record, model list and all */
#define BACKOFF_MIN_MS 500
#define BACKOFF_MAX_MS 10000

static const char *const request_names[] = { "", "register", "heartbeat", "deregister" };

static char *percent_encode(const char *name) {
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
	char *text = malloc(3 * strlen(name) + 1), *to = text;

	for (; *name; name++)
		if (strchr(plain, *name))
			*to++ = *name;
		else
			to += snprintf(to, 4, "%%%02X", (unsigned char)*name);
	*to = '\0';
	return text;
}

static char *join(const char *a, const char *b, const char *c) {
	char *line;
	if (asprintf(&line, "%s%s%s", a, b, c) < 0)
		abort();
	return line;
}

/* --- requests --------------------------------------------------------------------- */

static void registrar_ask(struct registrar_record *rec, enum registrar_request what) {
	struct registrar *r = rec->owner;
	struct fetch_request request = {
		.method = SLICE("POST"),
		.path = slice_of(rec->path),
		.bearer = r->bearer,
	};
	assert(rec->asking == ASK_NOTHING && !rec->sending);
	timer_stop(&rec->timer);
	rec->asking = what;
	if (what == ASK_REGISTER) {
		rec->sending = strdup(rec->wanted);
		request.path = SLICE("/services");
		request.body = slice_of(rec->sending);
	} else if (what == ASK_HEARTBEAT) {
		request.path = slice_of(rec->path_heartbeat);
	} else {
		request.method = SLICE("DELETE");
	}
	origin_fetch(r->origin, &rec->fetch, &request);
}

static bool is_as_wanted(const struct registrar_record *rec) {
	if (!rec->wanted)
		return rec->state == REGISTRAR_ABSENT;
	return rec->state == REGISTRAR_PRESENT && strcmp(rec->present, rec->wanted) == 0;
}

/* The next request, or the wait for it. */
static void registrar_decide(struct registrar_record *rec) {
	if (rec->asking != ASK_NOTHING || rec->is_pausing || !rec->is_heard)
		return;
	if (!is_as_wanted(rec))
		registrar_ask(rec, rec->wanted ? ASK_REGISTER : ASK_DELETE);
	else if (!rec->wanted)
		timer_stop(&rec->timer);
	else if (!timer_is_running(&rec->timer))
		loop_timer(rec->owner->loop, &rec->timer, rec->owner->heartbeat_ms);
}

static void registrar_on_timer(struct timer *t) {
	struct registrar_record *rec = container_of(t, struct registrar_record, timer);
	rec->is_pausing = false;
	if (is_as_wanted(rec))
		registrar_ask(rec, ASK_HEARTBEAT);
	else
		registrar_decide(rec);
}

/* --- answers ------------------------------------------------------------------------ */

static void registrar_pause(struct registrar_record *rec) {
	rec->n_failures++;
	rec->is_pausing = true;
	loop_timer(rec->owner->loop, &rec->timer, rec->backoff_ms);
	rec->backoff_ms = u64_min(2 * rec->backoff_ms, BACKOFF_MAX_MS);
}

/* One line when the registry goes away and one when it is back; refusals each time. */
static void registrar_log(struct registrar_record *rec, int outcome, unsigned status) {
	struct registrar *r = rec->owner;
	bool is_refused = !outcome && (status < 200 || status >= 300) && status != 404;
	bool was_down = r->is_down;
	struct log_event e;

	r->is_down = outcome != 0;
	if (is_refused || r->is_down != was_down) {
		log_begin(&e, is_refused || outcome ? LOG_WARN : LOG_INFO,
		    is_refused    ? "registry refuses"
			: outcome ? "registry is away"
				  : "registry is there");
		line_text(&e.line, SLICE("registry"), slice_of(origin_url(r->origin)));
		line_text(&e.line, SLICE("request"), slice_of(request_names[rec->asking]));
		line_text(&e.line, SLICE("name"), slice_of(rec->name));
		if (outcome)
			line_text(&e.line, SLICE("cause"), slice_of(fetch_outcome_text(outcome)));
		else
			line_uint(&e.line, SLICE("status"), status);
		log_end(&e);
	}
}

static void registrar_log_change(const struct registrar_record *rec) {
	struct log_event e;
	log_begin(&e, LOG_INFO, rec->state == REGISTRAR_PRESENT ? "registered" : "deregistered");
	line_text(&e.line, SLICE("name"), slice_of(rec->name));
	log_end(&e);
}

static void registrar_set_state(struct registrar_record *rec, enum registrar_state state, char **present) {
	enum registrar_state old = rec->state;
	free(rec->present);
	rec->present = *present;
	*present = NULL;
	rec->state = state;
	assert((state == REGISTRAR_PRESENT) == (rec->present != NULL));
	if (state != old && (state == REGISTRAR_PRESENT || old == REGISTRAR_PRESENT) &&
	    state != REGISTRAR_UNKNOWN)
		registrar_log_change(rec);
}

/* True when the answer settles the request, for good or, as a heartbeat's 404, for bad. */
static bool registrar_learn(
    struct registrar_record *rec, enum registrar_request asked, unsigned status, char **sent) {
	bool is_good = status >= 200 && status < 300;
	char *none = NULL;

	if (asked == ASK_REGISTER && is_good) {
		registrar_set_state(rec, REGISTRAR_PRESENT, sent);
		rec->n_registered++;
	} else if (asked == ASK_HEARTBEAT && is_good) {
		rec->n_heartbeats++;
	} else if (asked != ASK_REGISTER && (is_good || status == 404)) {
		registrar_set_state(rec, REGISTRAR_ABSENT, &none);
	} else {
		return false;
	}
	return true;
}

static void registrar_on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct registrar_record *rec = container_of(f, struct registrar_record, fetch);
	struct registrar *r = rec->owner;
	enum registrar_request asked = rec->asking;
	char *sent = rec->sending, *none = NULL;

	registrar_log(rec, outcome, status);
	rec->sending = NULL;
	rec->asking = ASK_NOTHING;
	if (!outcome && registrar_learn(rec, asked, status, &sent)) {
		rec->backoff_ms = BACKOFF_MIN_MS;
	} else {
		/* Sent, perhaps, and perhaps acted upon. A heartbeat changes nothing. */
		if (outcome && outcome != FETCH_E_CONNECT && outcome != FETCH_E_LOCAL &&
		    asked != ASK_HEARTBEAT)
			registrar_set_state(rec, REGISTRAR_UNKNOWN, &none);
		registrar_pause(rec);
	}
	free(sent);
	registrar_decide(rec);
	if (r->on_answer)
		r->on_answer(r);
}

/* --- outside ------------------------------------------------------------------------- */

static void record_init(struct registrar *r, struct registrar_record *rec, const char *name) {
	char *encoded = percent_encode(name);
	*rec = (struct registrar_record){
		.owner = r,
		.name = strdup(name),
		.path = join("/services/", encoded, ""),
		.path_heartbeat = join("/services/", encoded, "/heartbeat"),
		.backoff_ms = BACKOFF_MIN_MS,
		.state = REGISTRAR_UNKNOWN,
	};
	free(encoded);
	timer_init(&rec->timer, registrar_on_timer);
	fetch_init(&rec->fetch, ANSWER_MS, ANSWER_BYTES, registrar_on_done);
}

void registrar_init(struct registrar *r, struct loop *loop, struct origin *origin, const char *name,
    struct slice bearer, uint64_t heartbeat_ms, void (*on_answer)(struct registrar *r)) {
	char *server = join(name, "-server", "");
	assert(heartbeat_ms > 0);
	*r = (struct registrar){
		.loop = loop,
		.origin = origin,
		.bearer = bearer,
		.heartbeat_ms = heartbeat_ms,
		.on_answer = on_answer,
	};
	record_init(r, &r->records[REGISTRAR_OWN], name);
	record_init(r, &r->records[REGISTRAR_SERVER], server);
	free(server);
}

void registrar_deinit(struct registrar *r) {
	for (unsigned i = 0; i < REGISTRAR_N; i++) {
		struct registrar_record *rec = &r->records[i];
		if (rec->asking != ASK_NOTHING)
			origin_cancel(r->origin, &rec->fetch);
		timer_stop(&rec->timer);
		free(rec->name);
		free(rec->path);
		free(rec->path_heartbeat);
		free(rec->wanted);
		free(rec->sending);
		free(rec->present);
	}
}

void registrar_want(struct registrar *r, unsigned which, json_t *record) {
	struct registrar_record *rec = &r->records[which];
	char *text = record ? json_dumps(record, JSON_COMPACT) : NULL;
	bool is_same = rec->is_heard && (text ? rec->wanted && strcmp(text, rec->wanted) == 0 : !rec->wanted);

	assert(which < REGISTRAR_N && (text || !record));
	json_decref(record);
	if (is_same) {
		free(text);
		return;
	}
	free(rec->wanted);
	rec->wanted = text;
	rec->is_heard = true;
	/* News do not wait for the end of a pause. */
	rec->is_pausing = false;
	rec->backoff_ms = BACKOFF_MIN_MS;
	if (rec->asking == ASK_NOTHING)
		timer_stop(&rec->timer);
	registrar_decide(rec);
}

bool registrar_is_settled(const struct registrar *r) {
	for (unsigned i = 0; i < REGISTRAR_N; i++)
		if (r->records[i].is_heard && !is_as_wanted(&r->records[i]))
			return false;
	return true;
}

bool registrar_is_in_vain(const struct registrar *r) {
	for (unsigned i = 0; i < REGISTRAR_N; i++)
		if (r->records[i].asking != ASK_NOTHING)
			return false;
	return r->is_down;
}

const char *registrar_name(const struct registrar *r, unsigned which) {
	return r->records[which].name;
}

bool registrar_is_present(const struct registrar *r, unsigned which) {
	return r->records[which].state == REGISTRAR_PRESENT;
}
