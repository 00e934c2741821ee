#include "router/petition.h"

#include <stdlib.h>

#include "base/percent.h"
#include "router/worker.h"

#define TYPE_JSON "application/json"
#define TYPE_TEXT "text/plain; charset=utf-8"

/* --- the ends of it -------------------------------------------------------------------------- */

static struct petition *make(struct petitions *petitions, enum petition_kind kind, const struct head *head) {
	struct slice target = head_target(head), path = head_path(head);
	_Atomic uint32_t *n_alive = &petitions->n_alive[kind];

	if (atomic_fetch_add(n_alive, 1) >= PETITIONS_MAX) {
		atomic_fetch_sub(n_alive, 1);
		return NULL;
	}
	struct petition *p = calloc(1, sizeof(*p) + target.n + 1);
	memcpy(p->target, target.p, target.n);
	p->petitions = petitions;
	p->n_refs = 1;
	p->kind = kind;
	p->method = head->method == METHOD_HEAD ? METHOD_GET : (enum method)head->method;
	p->path = (struct slice){ p->target, path.n };
	p->query = slice_skip((struct slice){ p->target, target.n }, size_min(path.n + 1, target.n));
	list_init(&p->link);
	list_init(&p->waiting);
	return p;
}

static void petition_unref(struct petition *p) {
	if (atomic_fetch_sub(&p->n_refs, 1) > 1)
		return;
	assert(!list_is_linked(&p->link) && !list_is_linked(&p->waiting));
	atomic_fetch_sub(&p->petitions->n_alive[p->kind], 1);
	free(p->body);
	free(p->text);
	free(p);
}

/* --- the answer's way -------------------------------------------------------------------------- */

/* On the worker's thread. */
static void deliver_home(struct mail *mail) {
	struct petition *p = container_of(mail, struct petition, mail);

	p->is_back = true;
	if (p->job)
		loop_wake(p->home, p->job);
	else
		petition_unref(p);
}

static void arrive(struct petition *p) {
	if (p->home && !p->has_left && !p->petitions->are_workers_gone) {
		loop_post(p->home, &p->mail, deliver_home);
		return;
	}
	if (p->call)
		endpoint_answer_text(p->call, p->status, p->type, slice_of(p->text));
	petition_unref(p);
}

static void go_on(struct petition *p);

static void deliver_back(struct mail *mail) {
	struct petition *p = container_of(mail, struct petition, mail);

	p->n_passed++;
	go_on(p);
}

/* On a worker's thread: what was published before has been delivered. */
static void deliver_there(struct mail *mail) {
	struct petition *p = container_of(mail, struct petition, mail);

	loop_post(p->petitions->loop, &p->mail, deliver_back);
}

static void go_on(struct petition *p) {
	const struct petitions *all = p->petitions;

	if (all->is_closed || p->has_left || p->n_passed == all->n_workers)
		arrive(p);
	else
		loop_post(&all->workers[p->n_passed].loop, &p->mail, deliver_there);
}

static void let_go(struct petition *p) {
	p->on_left = NULL;
	list_remove(&p->link);
	list_remove(&p->waiting);
}

void petition_release(struct petition *p) {
	assert(p->text);
	let_go(p);
	go_on(p);
}

void petition_keep(struct petition *p, petition_left_fn on_left, void *keeper) {
	p->on_left = on_left;
	p->keeper = keeper;
}

/* --- who asked has left --------------------------------------------------------------------------- */

static void note_left(struct petition *p) {
	petition_left_fn on_left = p->on_left;

	p->has_left = true;
	if (!on_left)
		return;
	let_go(p);
	on_left(p->keeper, p);
	petition_unref(p);
}

static void deliver_farewell(struct mail *mail) {
	struct petition *p = container_of(mail, struct petition, farewell);

	note_left(p);
	petition_unref(p);
}

/* --- the answer -------------------------------------------------------------------------------------- */

void petition_set_text(struct petition *p, unsigned status, struct slice text) {
	free(p->text);
	p->status = status;
	p->type = TYPE_TEXT;
	p->text = strndup(text.p ? text.p : "", text.n);
}

void petition_set_json(struct petition *p, unsigned status, json_t *json) {
	free(p->text);
	p->status = status;
	p->type = TYPE_JSON;
	p->text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15));
	json_decref(json);
	if (!p->text)
		petition_set_error(p, 500, "internal_error", "the answer is not valid JSON");
}

void petition_set_error(struct petition *p, unsigned status, const char *code, const char *message) {
	petition_set_json(p, status,
	    json_pack("{s:{s:s, s:s, s:n, s:s}, s:s}", "error", "message", message, "type",
		status < 500 ? "invalid_request_error" : "server_error", "param", "code", code, "code",
		code));
}

void petition_answer_json(struct petition *p, unsigned status, json_t *json) {
	petition_set_json(p, status, json);
	petition_release(p);
}

void petition_answer_text(struct petition *p, unsigned status, struct slice text) {
	petition_set_text(p, status, text);
	petition_release(p);
}

void petition_answer_error(struct petition *p, unsigned status, const char *code, const char *message) {
	petition_set_error(p, status, code, message);
	petition_release(p);
}

char *petition_query(const struct petition *p, const char *key) {
	char *room = malloc(p->query.n + 1);
	struct slice value = percent_query(p->query, slice_of(key), room);
	char *copy = value.p ? strndup(value.p, value.n) : NULL;

	free(room);
	return copy;
}

/* --- a worker's ---------------------------------------------------------------------------------- */

struct petition *petition_new(
    struct petitions *petitions, enum petition_kind kind, const struct head *head, struct loop *home) {
	struct petition *p = make(petitions, kind, head);

	if (p)
		p->home = home;
	return p;
}

bool petition_add_body(struct petition *p, const struct piece *pieces, size_t n) {
	for (size_t i = 0; i < n; i++) {
		if (pieces[i].n > PETITION_BODY_BYTES_MAX - p->body_bytes)
			return false;
		p->body = realloc(p->body, p->body_bytes + pieces[i].n + 1);
		memcpy(p->body + p->body_bytes, pieces[i].p, pieces[i].n);
		p->body_bytes += pieces[i].n;
	}
	return true;
}

static void take(struct petition *p) {
	list_push(&p->petitions->kept, &p->link);
	if (p->petitions->is_closed)
		petition_answer_error(p, 503, "overloaded", "the router is being stopped");
	else
		p->petitions->run(p);
}

static void deliver_to_control(struct mail *mail) {
	struct petition *p = container_of(mail, struct petition, mail);

	if (p->petitions->are_workers_gone)
		petition_unref(p);
	else
		take(p);
}

void petition_send(struct petition *p, struct job *job) {
	assert(p->home && !p->job);
	p->job = job;
	loop_post(p->petitions->loop, &p->mail, deliver_to_control);
}

bool petition_is_sent(const struct petition *p) {
	return p->job;
}

bool petition_is_back(const struct petition *p) {
	return p->is_back;
}

void petition_leave(struct petition **petition) {
	struct petition *p = *petition;

	*petition = NULL;
	if (!p)
		return;
	if (!p->job || p->is_back) {
		petition_unref(p);
		return;
	}
	p->job = NULL;
	atomic_fetch_add(&p->n_refs, 1);
	loop_post(p->petitions->loop, &p->farewell, deliver_farewell);
}

/* --- the admin port's -------------------------------------------------------------------------------- */

static void on_call_gone(void *owner) {
	struct petition *p = owner;

	p->call = NULL;
	note_left(p);
}

void petition_run(struct petitions *petitions, struct endpoint_call *call) {
	struct petition *p = make(petitions, PETITION_OF_OPERATOR, endpoint_head(call));
	struct slice body = endpoint_body(call);

	if (!p) {
		endpoint_answer_error(call, 503, "overloaded", "too many calls wait for their answers");
		return;
	}
	p->call = call;
	p->body = malloc(body.n + 1);
	memcpy(p->body, body.n ? body.p : "", body.n);
	p->body_bytes = body.n;
	endpoint_keep(call, on_call_gone, p);
	take(p);
}

/* --- the whole ------------------------------------------------------------------------------------------ */

void petitions_init(struct petitions *p, struct loop *loop, void (*run)(struct petition *p), void *context) {
	*p = (struct petitions){ .loop = loop, .run = run, .context = context };
	list_init(&p->kept);
}

void petitions_close(struct petitions *all) {
	all->is_closed = true;
	list_each_safe (it, &all->kept)
		petition_answer_error(container_of(it, struct petition, link), 503, "overloaded",
		    "the router is being stopped");
}

void petitions_forget_workers(struct petitions *p) {
	p->are_workers_gone = true;
}
