/*
 * A change is a struct change from its request to its answer. The store calls it twice:
 * prepare, when earlier changes of that name are done, judges and prints it; done takes
 * it into the roster. Its client may leave meanwhile: the change goes on without.
 */
#include "registry/registry_change.h"

#include "base/clock.h"
#include "base/text.h"
#include "net/route.h"

enum change_kind {
	CHANGE_POST,
	CHANGE_PUT,
	CHANGE_DELETE,
	CHANGE_STATUS,
	CHANGE_SWEEP,
	CHANGE_KEEP, /* the store gets back what a sweep took out too late: the roster still has it */
};

struct change {
	struct store_op op;
	struct registry_core *core;
	struct endpoint_call *call; /* NULL: nobody waits any more */
	struct record *record;      /* what is to be; NULL for a deletion */
	char *text;                 /* what the client said, until it can be judged */
	size_t n_text;
	struct slice peer; /* what wildcards of a PUT become; none: they stay */
	char peer_room[ROUTE_BYTES];
	uint64_t since_ns;
	struct change *next; /* swept out together */
	enum change_kind kind;
	char name[];
};

static void change_free(struct change *x) {
	record_free(&x->record);
	free(x->text);
	free(x);
}

static void change_on_gone(void *owner) {
	((struct change *)owner)->call = NULL;
}

static void change_refuse(struct change *x, unsigned status, const char *code, const char *message) {
	x->core->n_refused++;
	if (x->call)
		endpoint_answer_error(x->call, status, code, "%s", message);
}

static bool change_is_allowed(struct change *x) {
	if (registry_config_allows(x->core->config, slice_of(x->record->host), slice_of(x->record->url)))
		return true;
	change_refuse(x, 403, "address_denied", "This address may not be registered");
	return false;
}

/* The url with the peer in place of its host. */
static json_t *url_at(struct slice url, struct slice host, struct slice peer) {
	bool is_ipv6 = memchr(peer.p, ':', peer.n);

	return json_sprintf(is_ipv6 ? "%.*s[%.*s]%s" : "%.*s%.*s%s", (int)(host.p - url.p), url.p,
	    (int)peer.n, peer.p, host.p + host.n);
}

/*
 * Where routers find who sent this. Who is here is at the loopback for us alone, to routers elsewhere that
 * would be themselves: it is at this machine's address, if there is one.
 */
static struct slice peer_of(
    const struct registry_core *core, struct endpoint_call *c, char room[static ROUTE_BYTES]) {
	if (!endpoint_is_local(c) || registry_config_is_local(core->config))
		return endpoint_peer(c, room);
	return route_source_default(room) ? slice_of(room) : (struct slice){ NULL, 0 };
}

static struct slice member_text(const json_t *object, const char *name) {
	const json_t *v = json_object_get(object, name);
	return (struct slice){ json_string_value(v), json_string_length(v) };
}

/*
 * Who registers all addresses of its machine (old babysitters do) means that machine, and not each router's
 * own: the address that it was heard from, if there is one, stands in the place of those that it has sent.
 * Takes the record that was made of the body; NULL: refused.
 */
static struct record *record_placed(
    struct record *record, struct slice body, struct slice peer, struct record_refusal *refusal_out) {
	json_t *sent = json_loadb(body.p, body.n, 0, NULL), *places = json_object();
	struct slice url = member_text(sent, "url"), host = registry_url_host(url);

	if (text_is_wildcard(member_text(sent, "host")))
		json_object_set_new(places, "host", json_stringn(peer.p, peer.n));
	if (text_is_wildcard(host))
		json_object_set_new(places, "url", url_at(url, host, peer));
	if (json_object_size(places)) {
		char *text = json_dumps(places, JSON_COMPACT);
		struct record *placed = record_parse(slice_of(text), record, clock_wall_ms(), refusal_out);
		free(text);
		record_free(&record);
		record = placed;
	}
	json_decref(places);
	json_decref(sent);
	return record;
}

/* What a client says, over an older record or NULL. NULL: refused. */
static struct record *record_heard(
    struct slice body, const struct record *base, struct slice peer, struct record_refusal *refusal_out) {
	struct record *record = record_parse(body, base, clock_wall_ms(), refusal_out);

	return record && peer.n ? record_placed(record, body, peer, refusal_out) : record;
}

/* A heartbeat's own answer, also for one that changes the status. */
static void answer_heartbeat(struct endpoint_call *c) {
	endpoint_answer_json(c, 200,
	    json_pack("{s:s, s:o}", "message", "Heartbeat received", "timestamp", registry_core_timestamp()));
}

static void tell_swept(struct registry_core *core) {
	struct log_event e;

	if (!core->n_swept)
		return;
	log_begin(&e, LOG_INFO, "took out who was silent for too long");
	line_uint(&e.line, SLICE("services"), core->n_swept);
	log_end(&e);
	core->n_swept = 0;
}

/* The one end of a change that was submitted. */
static void change_end(struct change *x) {
	struct registry_core *core = x->core;

	core->n_writing--;
	if (x->kind == CHANGE_SWEEP && --core->n_sweeping == 0)
		tell_swept(core);
	change_free(x);
}

/* --- prepare: true when the store is to go on ------------------------------------------- */

static bool prepare_post(struct change *x, const struct roster_entry *old) {
	if (roster_has_room(x->core->roster, x->record))
		return true;
	change_refuse(x, 503, "overloaded", "Too many services are registered");
	return false;
}

static bool prepare_put(struct change *x, const struct roster_entry *old) {
	struct record_refusal refusal;

	x->record = record_heard((struct slice){ x->text, x->n_text }, old->record, x->peer, &refusal);
	if (!x->record) {
		change_refuse(x, 400, "bad_request", refusal.text);
		return false;
	}
	return change_is_allowed(x) && prepare_post(x, old);
}

static bool prepare_status(struct change *x, const struct roster_entry *old) {
	struct slice status = { x->text, x->n_text };

	if (!slice_eq(status, slice_of(old->record->status)))
		x->record = record_with_status(old->record, status, clock_wall_ms());
	if (x->record)
		return true;
	roster_heartbeat(x->core->roster, x->op.name, clock_wall_ms(), registry_core_now_ms());
	if (x->call)
		answer_heartbeat(x->call);
	watchers_wake(x->core->watchers);
	return false;
}

/* What the roster has now: earlier changes of that name are done. */
static bool prepare_keep(struct change *x, const struct roster_entry *old) {
	if (old)
		x->op.json = record_stored(old->record, &x->op.n_json);
	return old;
}

/* Is there still, or again, somebody of that name? The answers follow from that. */
static bool change_judge(struct change *x) {
	const struct roster_entry *old = roster_find(x->core->roster, x->op.name);

	switch (x->kind) {
	case CHANGE_POST:
		return prepare_post(x, old);
	case CHANGE_SWEEP:
		return old && roster_is_silent(x->core->roster, old);
	case CHANGE_KEEP:
		return prepare_keep(x, old);
	case CHANGE_PUT:
	case CHANGE_DELETE:
	case CHANGE_STATUS:
		break;
	}
	if (!old) {
		x->core->n_refused++;
		if (x->call)
			registry_core_answer_not_found(x->call, x->op.name);
		return false;
	}
	if (x->kind == CHANGE_PUT)
		return prepare_put(x, old);
	return x->kind == CHANGE_DELETE || prepare_status(x, old);
}

static bool change_prepare(struct store_op *op) {
	struct change *x = container_of(op, struct change, op);

	if (!change_judge(x)) {
		change_end(x);
		return false;
	}
	if (x->record)
		op->json = record_stored(x->record, &op->n_json);
	return true;
}

/* --- done ---------------------------------------------------------------------------------- */

static void answer_change(struct change *x, const struct roster_entry *e) {
	if (!x->call)
		return;
	if (x->kind == CHANGE_STATUS) {
		answer_heartbeat(x->call);
		return;
	}
	char message[RECORD_NAME_MAX + 64];
	const char *verb = x->kind == CHANGE_POST ? "registered"
	    : x->kind == CHANGE_PUT               ? "updated"
						  : "unregistered";
	snprintf(message, sizeof(message), "Service '%s' %s successfully", x->name, verb);
	json_t *answer = json_pack("{s:s}", "message", message);
	if (e)
		json_object_set_new(answer, "service", record_json(e->record, e->is_alive));
	endpoint_answer_json(x->call, x->kind == CHANGE_POST ? 201 : 200, answer);
}

static void log_change(const struct change *x) {
	static const char *const events[] = {
		[CHANGE_POST] = "registered",
		[CHANGE_PUT] = "updated",
		[CHANGE_DELETE] = "unregistered",
		[CHANGE_STATUS] = "status changed",
		[CHANGE_SWEEP] = "swept out",
		[CHANGE_KEEP] = "kept",
	};
	struct log_event e;

	log_begin(&e, LOG_DEBUG, events[x->kind]);
	line_text(&e.line, SLICE("name"), x->op.name);
	log_end(&e);
}

static struct change *change_new(struct registry_core *core, enum change_kind kind, struct slice name);
static void change_submit(struct change *x, struct endpoint_call *c);

/* Who was heard again while the store took it out is put there anew. */
static void apply_sweep(struct change *x) {
	struct registry_core *core = x->core;

	if (roster_sweep_one(core->roster, x->op.name, registry_core_now_ms())) {
		prober_remove(core->prober, x->op.name);
		core->n_swept++;
	} else {
		change_submit(change_new(core, CHANGE_KEEP, x->op.name), NULL);
	}
}

static void change_apply(struct change *x) {
	struct registry_core *core = x->core;
	const struct roster_entry *e = NULL;

	if (x->record) {
		e = roster_put(core->roster, x->record, registry_core_now_ms());
		x->record = NULL; /* the roster's now */
		registry_core_probe(core, e->record);
	} else if (x->kind == CHANGE_DELETE) {
		roster_delete(core->roster, x->op.name, registry_core_now_ms());
		prober_remove(core->prober, x->op.name);
	}
	if (x->kind == CHANGE_SWEEP)
		apply_sweep(x);
	log_change(x);
	answer_change(x, e);
	watchers_wake(core->watchers);
}

static void change_done(struct store_op *op, enum store_outcome outcome) {
	struct change *x = container_of(op, struct change, op);
	struct registry_core *core = x->core;

	if (outcome == STORE_DONE) {
		core->n_done++;
		core->write_ns += clock_now_ns() - x->since_ns;
		change_apply(x);
	} else {
		core->n_failed++;
		if (x->call)
			endpoint_answer_error(x->call, 503, "overloaded", "The change could not be stored");
	}
	change_end(x);
}

/* --- requests that change something ------------------------------------------------------------ */

static struct change *change_new(struct registry_core *core, enum change_kind kind, struct slice name) {
	struct change *x = calloc(1, sizeof(*x) + name.n + 1);

	x->core = core;
	x->kind = kind;
	x->since_ns = clock_now_ns();
	memcpy(x->name, name.p, name.n);
	x->op =
	    (struct store_op){ .name = { x->name, name.n }, .prepare = change_prepare, .done = change_done };
	return x;
}

static void change_keep_text(struct change *x, struct slice text) {
	x->text = malloc(text.n + 1);
	x->n_text = text.n;
	if (text.n)
		memcpy(x->text, text.p, text.n);
}

/* c NULL: nobody waits for it. */
static void change_submit(struct change *x, struct endpoint_call *c) {
	struct registry_core *core = x->core;

	x->call = c;
	x->op.n_held = sizeof(*x) + x->n_text + (x->record ? x->record->bytes : 0);
	if (c)
		endpoint_keep(c, change_on_gone, x);
	core->n_writing++;
	if (store_submit(core->store, &x->op))
		return;
	core->n_failed++;
	if (c)
		endpoint_answer_error(c, 503, "overloaded", "Too many changes wait to be stored");
	change_end(x);
}

void registry_change_post(struct registry_core *core, struct endpoint_call *c) {
	struct record_refusal refusal;
	char room[ROUTE_BYTES];
	struct record *record = record_heard(endpoint_body(c), NULL, peer_of(core, c, room), &refusal);

	if (!record) {
		core->n_refused++;
		endpoint_answer_error(c, 400, "bad_request", "%s", refusal.text);
		return;
	}
	struct change *x = change_new(core, CHANGE_POST, slice_of(record->name));
	x->record = record;
	x->call = c;
	if (change_is_allowed(x))
		change_submit(x, c);
	else
		change_free(x);
}

void registry_change_put(struct registry_core *core, struct endpoint_call *c) {
	struct change *x = change_new(core, CHANGE_PUT, endpoint_param(c));

	change_keep_text(x, endpoint_body(c));
	x->peer = peer_of(core, c, x->peer_room);
	change_submit(x, c);
}

void registry_change_delete(struct registry_core *core, struct endpoint_call *c) {
	change_submit(change_new(core, CHANGE_DELETE, endpoint_param(c)), c);
}

/* A broken body, or one without a status, is a heartbeat all the same. */
static json_t *status_of(struct slice body) {
	json_t *root = body.n ? json_loadb(body.p, body.n, 0, NULL) : NULL;
	json_t *status = json_incref(json_object_get(root, "status"));

	json_decref(root);
	if (json_is_string(status))
		return status;
	json_decref(status);
	return NULL;
}

void registry_change_heartbeat(struct registry_core *core, struct endpoint_call *c) {
	struct slice name = endpoint_param(c);
	json_t *status = status_of(endpoint_body(c));

	if (status && roster_find(core->roster, name)) {
		struct change *x = change_new(core, CHANGE_STATUS, name);
		change_keep_text(x, (struct slice){ json_string_value(status), json_string_length(status) });
		change_submit(x, c);
	} else if (roster_heartbeat(core->roster, name, clock_wall_ms(), registry_core_now_ms())) {
		answer_heartbeat(c);
		watchers_wake(core->watchers);
	} else {
		registry_core_answer_not_found(c, name);
	}
	json_decref(status);
}

struct sweep {
	struct registry_core *core;
	struct change *first;
};

static void on_swept(void *context, struct slice name) {
	struct sweep *sweep = context;
	struct change *x = change_new(sweep->core, CHANGE_SWEEP, name);

	x->next = sweep->first;
	sweep->first = x;
}

void registry_change_sweep(struct registry_core *core) {
	struct sweep sweep = { .core = core };

	core->n_sweeping += roster_each_silent(core->roster, registry_core_now_ms(), on_swept, &sweep);
	while (sweep.first) {
		struct change *x = sweep.first;
		sweep.first = x->next;
		change_submit(x, NULL);
	}
	watchers_wake(core->watchers);
}
