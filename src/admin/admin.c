#include "admin/admin.h"

#include "http/reply.h"

#define WRITE_MS 30000 /* for a client that does not read */

struct admin_call {
	struct call call;
	struct job job;
	struct timer timer;
	struct list link;
	struct admin *admin;
	struct buf *head;
	bool closes;
	bool is_broken;
};

static const struct admin_endpoint *admin_find(const struct admin *a, struct slice path) {
	for (size_t i = 0; i < a->n_endpoints; i++)
		if (slice_eq(path, slice_of(a->endpoints[i].path)))
			return &a->endpoints[i];
	return NULL;
}

static int admin_answer(struct admin_call *c, struct reply *reply) {
	const struct head *head = (const struct head *)c->head->data;
	const struct admin_endpoint *e = admin_find(c->admin, head_path(head));
	if (!e)
		return reply_refuse(&c->call, reply, CAUSE_NOT_FOUND, NULL, REPLY_OPENAI);
	if (head->method != METHOD_GET && head->method != METHOD_HEAD) {
		reply->allow = SLICE("GET, HEAD");
		return reply_refuse(&c->call, reply, CAUSE_NOT_ALLOWED, NULL, REPLY_OPENAI);
	}
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	assert(out);
	reply->status = e->write(c->admin->context, out);
	fclose(out);
	reply->content_type = slice_of(e->content_type);
	reply->body = (struct slice){ text, n };
	int r = reply_send(&c->call, reply);
	free(text);
	return r;
}

static void admin_end(struct admin_call *c) {
	struct admin *a = c->admin;
	buf_unref(&a->server.loop->bufs, &c->head);
	job_cancel(&c->job);
	timer_stop(&c->timer);
	list_remove(&c->link);
	if (c->is_broken)
		session_abort(&c->call, true);
	else
		session_next(&c->call, !c->closes);
	slab_put(&a->calls, c);
}

static void admin_run(struct job *job) {
	struct admin_call *c = container_of(job, struct admin_call, job);
	const struct head *head = (const struct head *)c->head->data;
	c->is_broken |= call_is_gone(&c->call);
	if (!c->is_broken && !c->call.out_has_begun) {
		struct reply reply = { .closes = false };
		reply_follow(
		    &reply, head, session_is_last(session_of(&c->call)) || !call_is_received(&c->call));
		c->closes = reply.closes;
		c->is_broken = admin_answer(c, &reply) != 0;
	}
	if (c->is_broken || !call_pending(&c->call))
		admin_end(c);
}

static void admin_on_timer(struct timer *t) {
	struct admin_call *c = container_of(t, struct admin_call, timer);
	c->is_broken = true;
	loop_wake(c->admin->server.loop, &c->job);
}

static struct job *admin_begin(struct server *server, struct session *session, const struct head *head) {
	struct admin *a = server->context;
	struct admin_call *c = slab_get_zeroed(&a->calls);
	c->admin = a;
	c->head = head_copy(&server->loop->bufs, head);
	job_init(&c->job, admin_run);
	timer_init(&c->timer, admin_on_timer);
	list_init(&c->link);
	list_push(&a->active, &c->link);
	session_take(session, &c->call, &c->job, head);
	loop_timer(server->loop, &c->timer, WRITE_MS);
	return &c->job;
}

static const struct server_handler handler = { .begin = admin_begin };

int admin_open(struct admin *a, struct loop *loop, int fd, const struct admin_endpoint *endpoints,
    size_t n_endpoints, void *context) {
	static const struct server_limits limits = { .head_ms = 10000, .keepalive_ms = 75000 };
	a->endpoints = endpoints;
	a->n_endpoints = n_endpoints;
	a->context = context;
	list_init(&a->active);
	slab_init(&a->calls, sizeof(struct admin_call));
	return server_open(&a->server, loop, fd, NULL, &limits, &handler, a);
}

void admin_close(struct admin *a) {
	server_drain(&a->server);
	list_each_safe (it, &a->active) {
		struct admin_call *c = container_of(it, struct admin_call, link);
		c->is_broken = true;
		admin_end(c);
	}
	server_close(&a->server);
}

void admin_deinit(struct admin *a) {
	server_deinit(&a->server);
	slab_deinit(&a->calls);
}
