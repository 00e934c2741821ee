/*
 * One question is under way, or a timer runs that asks the next: registry_ask() and
 * registry_later() are the two doors. How an answer ended is decided in
 * registry_on_done() alone; parts of a watch only change the membership.
 */
#include "discovery/registry_source.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "net/file_save.h"

#define WATCH_SILENCE_MS 45000u /* the watch says something every 15 s */
#define LIST_TIMEOUT_MS  10000u
#define WATCH_RETRY_MS   60000u /* to a registry that has none, or none that reaches us */
#define WAIT_MIN_MS      100u
#define WAIT_MAX_MS      10000u
#define TICK_MS          250u
#define SAVE_MS          1000u
#define BYTES_MAX        (256u << 20) /* of a list */

static uint64_t source_now(const struct registry_source *s) {
	return loop_now_ms(s->loop);
}

static void source_log(
    const struct registry_source *s, enum log_level level, const char *event, const char *why) {
	struct log_event e;

	log_begin(&e, level, event);
	line_text(&e.line, SLICE("registry"), slice_of(origin_url(s->origin)));
	if (why)
		line_text(&e.line, SLICE("reason"), slice_of(why));
	log_end(&e);
}

/* --- the file ------------------------------------------------------------------------------ */

/* Compact JSON of the table, to free. */
static char *table_text(const struct registry_source *s, size_t *n_out) {
	json_t *table = json_pack(
	    "{s:s, s:o}", "registry", origin_url(s->origin), "services", membership_services(s->membership));
	char *text = json_dumps(table, JSON_COMPACT);

	json_decref(table);
	*n_out = strlen(text);
	return text;
}

static void source_on_saved(void *context, int error) {
	struct registry_source *s = context;

	if (error)
		s->counts.n_save_failures++;
	else
		s->counts.n_saves++;
	if (error && s->counts.n_save_failures == 1)
		source_log(s, s->options.is_file_ours ? LOG_WARN : LOG_ERROR,
		    "the table of the registry cannot be kept", strerror(-error));
	if (error)
		s->saved_version = UINT64_MAX; /* again */
}

/* What cannot be made shows when the file is saved. */
static void make_folders_of(const char *file) {
	char *path = strdup(file);

	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(path, 0700);
		*slash = '/';
	}
	free(path);
}

static void source_save(struct registry_source *s) {
	uint64_t version = membership_version(s->membership);
	size_t n;

	if (!s->save || s->saved_version == version || timer_is_running(&s->save_timer) ||
	    file_save_is_busy(s->save))
		return;
	char *text = table_text(s, &n);
	s->saved_version = version;
	loop_timer(s->loop, &s->save_timer, SAVE_MS);
	file_save_start(s->save, s->loop, text, n);
}

static void source_on_save_timer(struct timer *t) {
	source_save(container_of(t, struct registry_source, save_timer));
}

static void source_restore(struct registry_source *s) {
	json_error_t error;
	json_t *table = json_load_file(s->options.file, 0, &error);
	json_t *services = json_object_get(table, "services");
	const char *url = json_string_value(json_object_get(table, "registry"));

	if (!table && access(s->options.file, F_OK) == 0)
		source_log(s, LOG_WARN, "the kept table of the registry cannot be read", error.text);
	/* Of another registry: nobody knows what is left of it. */
	if (json_is_array(services) && url && strcmp(url, origin_url(s->origin)) == 0) {
		membership_restore(s->membership, services, source_now(s));
		s->saved_version = membership_version(s->membership);
		source_log(s, LOG_INFO, "the kept table of the registry is in use", NULL);
	}
	json_decref(table);
}

/* --- what it says ---------------------------------------------------------------------------- */

/* The fleet changes once, behind all that this turn has brought. */
static void source_on_change(struct job *job) {
	struct registry_source *s = container_of(job, struct registry_source, change);

	source_save(s);
	s->on_change(s);
}

static void source_changed(struct registry_source *s) {
	uint64_t version = membership_version(s->membership);

	if (version == s->published_version)
		return;
	s->published_version = version;
	loop_wake(s->loop, &s->change);
}

static void source_heard(struct registry_source *s) {
	if (s->is_silence_said)
		source_log(s, LOG_INFO, "the registry answers again", NULL);
	s->is_silence_said = false;
	s->is_heard = true;
	s->is_told = true;
	s->heard_ms = source_now(s);
	s->wait_ms = WAIT_MIN_MS;
}

/* It becomes part of a path. */
static bool is_epoch_ok(const char *epoch) {
	static const char letters[] = "0123456789-._~abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	size_t n = epoch ? strspn(epoch, letters) : 0;

	return n > 0 && n < REGISTRY_EPOCH_BYTES && epoch[n] == '\0';
}

/* Of a message: where the registry stands now. */
static void source_mark(struct registry_source *s, const json_t *message) {
	const char *epoch = json_string_value(json_object_get(message, "epoch"));

	snprintf(s->epoch, sizeof(s->epoch), "%s", is_epoch_ok(epoch) ? epoch : "");
	s->version = (uint64_t)json_integer_value(json_object_get(message, "version"));
}

static bool is_epoch_known(const struct registry_source *s, const json_t *message) {
	const char *epoch = json_string_value(json_object_get(message, "epoch"));

	return epoch && s->epoch[0] && strcmp(epoch, s->epoch) == 0;
}

static bool source_take_list(struct registry_source *s, const json_t *message) {
	const json_t *services = json_object_get(message, "services");

	if (!json_is_array(services))
		return false;
	membership_list(s->membership, services, source_now(s));
	source_mark(s, message);
	s->counts.n_lists++;
	return true;
}

static void source_take_change(struct registry_source *s, const json_t *change) {
	const char *op = json_string_value(json_object_get(change, "op"));
	const char *reason = json_string_value(json_object_get(change, "reason"));
	const json_t *name = json_object_get(change, "name");
	struct slice text = { json_string_value(name), json_string_length(name) };

	if (!op || strcmp(op, "delete") != 0 || !text.p)
		membership_put(s->membership, json_object_get(change, "record"), source_now(s));
	else if (reason && strcmp(reason, "expired") == 0)
		membership_expire(s->membership, text, source_now(s));
	else
		membership_delete(s->membership, text, source_now(s));
}

/* False: it makes no sense, and we begin anew. */
static bool source_take(struct registry_source *s, const json_t *message) {
	const json_t *changes = json_object_get(message, "changes");

	if (json_object_get(message, "services"))
		return source_take_list(s, message);
	if (!json_is_array(changes) || !is_epoch_known(s, message))
		return false;
	for (size_t i = 0; i < json_array_size(changes); i++)
		source_take_change(s, json_array_get(changes, i));
	source_mark(s, message);
	s->counts.n_events++;
	return true;
}

static bool source_take_text(struct registry_source *s, struct slice text) {
	json_t *message = json_loadb(text.p, text.n, 0, NULL);
	bool good = source_take(s, message);

	json_decref(message);
	if (good)
		source_heard(s);
	source_changed(s);
	return good;
}

static bool source_on_event(void *context, struct slice data) {
	struct registry_source *s = context;

	s->is_lack_said = false;
	s->has_watch = source_take_text(s, data);
	return s->has_watch;
}

/* --- questions --------------------------------------------------------------------------------- */

static void source_ask(struct registry_source *s) {
	char path[160];
	struct fetch_request request = { .bearer = slice_of(s->options.token) };

	s->question = source_now(s) >= s->watch_at_ms ? REGISTRY_WATCH : REGISTRY_LIST;
	s->has_begun = s->is_told = s->is_list = false;
	s->list_n = 0;
	event_reader_deinit(&s->events);
	if (s->question == REGISTRY_LIST)
		snprintf(path, sizeof(path), "/services?healthy=true");
	else if (s->epoch[0] && s->is_heard) /* else a list shows at once that it is back */
		snprintf(path, sizeof(path), "/services?watch=1&since=%s:%" PRIu64, s->epoch, s->version);
	else
		snprintf(path, sizeof(path), "/services?watch=1");
	request.path = slice_of(path);
	s->fetch.timeout_ms = LIST_TIMEOUT_MS;
	if (s->question == REGISTRY_WATCH) {
		request.accept = SLICE("text/event-stream, application/json;q=0.5");
		s->fetch.timeout_ms = WATCH_SILENCE_MS;
	}
	origin_fetch(s->origin, &s->fetch, &request);
}

static void source_later(struct registry_source *s, uint64_t delay_ms) {
	loop_timer(s->loop, &s->next, delay_ms);
}

static void source_on_next(struct timer *t) {
	source_ask(container_of(t, struct registry_source, next));
}

/* Others have lost it, too: not all at once. */
static void source_retry(struct registry_source *s) {
	source_later(s, s->wait_ms / 2 + rng_below(&s->rng, s->wait_ms / 2 + 1));
	s->wait_ms = u64_min(2 * s->wait_ms, u64_min(WAIT_MAX_MS, s->options.sync_interval_ms));
}

static void source_failed(struct registry_source *s, const char *why) {
	s->counts.n_failures++;
	s->is_heard = false;
	if (!s->is_silence_said)
		source_log(s, LOG_WARN, "the registry does not answer: the fleet stays as it is", why);
	s->is_silence_said = true;
	source_retry(s);
}

/* --- answers ------------------------------------------------------------------------------------- */

/* It begins like JSON: a registry that knows no watch has sent its list. */
static bool is_list_begun(struct slice part) {
	while (part.n && memchr(" \t\r\n", part.p[0], 4))
		part = slice_skip(part, 1);
	return part.n && part.p[0] == '{';
}

static bool source_keep_list(struct registry_source *s, struct slice part) {
	if (part.n > BYTES_MAX - s->list_n)
		return false;
	s->list = realloc(s->list, s->list_n + part.n + 1);
	memcpy(s->list + s->list_n, part.p, part.n);
	s->list_n += part.n;
	return true;
}

static void source_on_part(struct fetch *f, struct slice part) {
	struct registry_source *s = container_of(f, struct registry_source, fetch);
	bool good;

	if (s->question == REGISTRY_LIST || (!s->has_begun && is_list_begun(part)))
		s->is_list = true;
	s->has_begun = true;
	if (s->is_list) {
		good = source_keep_list(s, part);
	} else {
		good = event_reader_feed(&s->events, part, source_on_event, s);
		if (good && s->is_told) /* from now on comments are signs of life, too */
			source_heard(s);
	}
	if (good)
		return;
	origin_cancel(s->origin, f);
	s->epoch[0] = '\0'; /* from the beginning */
	source_failed(s, s->is_list ? "the list is too large" : "an event makes no sense");
}

/* A whole list, in answer to either question. */
static void source_listed(struct registry_source *s) {
	if (!source_take_text(s, (struct slice){ s->list, s->list_n })) {
		source_failed(s, "the answer is not a list of services");
		return;
	}
	if (s->question == REGISTRY_WATCH) {
		if (!s->is_lack_said)
			source_log(
			    s, LOG_INFO, "the registry has no watch: it is asked again and again", NULL);
		s->is_lack_said = true;
		s->watch_at_ms = source_now(s) + WATCH_RETRY_MS;
	}
	source_later(s, s->options.sync_interval_ms);
}

/*
 * Somebody is there, and no message came: something between us may hold events back, where a list would
 * come through. A watch that was good before may have had nothing to tell: it is asked for once more.
 */
static void source_watch_failed(struct registry_source *s) {
	if (!s->has_watch)
		s->watch_at_ms = source_now(s) + WATCH_RETRY_MS;
	s->has_watch = false;
}

static void source_on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct registry_source *s = container_of(f, struct registry_source, fetch);
	char text[32];

	if (outcome == 0 && status == 200 && s->is_list) {
		source_listed(s);
	} else if (s->question == REGISTRY_WATCH && s->is_told && !s->is_list) {
		source_retry(s); /* it ended, or was silent for long: on from there */
	} else if (s->question == REGISTRY_WATCH && outcome == 0 && status >= 400 && status < 500) {
		s->watch_at_ms = source_now(s) + WATCH_RETRY_MS; /* it does not know the question */
		source_ask(s);
	} else {
		if (s->question == REGISTRY_WATCH && outcome != FETCH_E_CONNECT)
			source_watch_failed(s);
		snprintf(text, sizeof(text), "status %u", status);
		source_failed(s, outcome ? fetch_outcome_text((enum fetch_outcome)outcome) : text);
	}
}

/* --- the whole --------------------------------------------------------------------------------------- */

static void source_on_tick(struct timer *t) {
	struct registry_source *s = container_of(t, struct registry_source, tick);

	loop_timer(s->loop, &s->tick, TICK_MS);
	membership_tick(s->membership, s->is_heard, source_now(s));
	source_changed(s);
	source_save(s);
}

bool registry_source_init(struct registry_source *s, struct loop *loop, struct fleet *fleet,
    const struct registry_options *options, void (*on_change)(struct registry_source *s)) {
	*s = (struct registry_source){
		.loop = loop, .options = *options, .wait_ms = WAIT_MIN_MS, .on_change = on_change
	};
	s->origin = origin_new(loop, slice_of(options->url));
	if (!s->origin)
		return false;
	s->membership = membership_new(fleet, options->grace_ms);
	fetch_init(&s->fetch, LIST_TIMEOUT_MS, 1u << 20, source_on_done);
	s->fetch.on_part = source_on_part;
	event_reader_init(&s->events, BYTES_MAX);
	rng_init_random(&s->rng);
	timer_init(&s->next, source_on_next);
	timer_init(&s->tick, source_on_tick);
	timer_init(&s->save_timer, source_on_save_timer);
	job_init(&s->change, source_on_change);
	if (options->file[0]) {
		if (options->is_file_ours)
			make_folders_of(options->file);
		s->save = file_save_new(options->file, source_on_saved, s);
		source_restore(s);
	}
	source_changed(s);
	source_later(s, 0);
	loop_timer(loop, &s->tick, TICK_MS);
	return true;
}

void registry_source_leave_file(struct registry_source *s) {
	timer_stop(&s->save_timer);
	file_save_free(&s->save);
}

void registry_source_retune(struct registry_source *s, const struct registry_options *options) {
	assert(!strcmp(s->options.url, options->url) && !strcmp(s->options.file, options->file));
	s->options = *options;
	membership_set_grace(s->membership, options->grace_ms);
}

void registry_source_deinit(struct registry_source *s) {
	timer_stop(&s->next);
	timer_stop(&s->tick);
	timer_stop(&s->save_timer);
	job_cancel(&s->change);
	origin_free(&s->origin);
	file_save_free(&s->save);
	event_reader_deinit(&s->events);
	free(s->list);
	membership_free(&s->membership);
}

uint64_t registry_source_age_ms(const struct registry_source *s) {
	if (!s->heard_ms)
		return UINT64_MAX;
	return source_now(s) - s->heard_ms;
}
