#include "http/upstream.h"

#include <errno.h>

#include "net/tcp_ack.h"

#define TRIM_MS 5000

static void upstream_on_closed(struct conn *c) {
	struct upstream *up = container_of(c, struct upstream, conn);
	instance_unref(&up->instance);
	slab_put(&up->pool->slab, up);
}

static void upstream_end(struct upstream *up) {
	if (list_is_linked(&up->link)) {
		list_remove(&up->link);
		up->pool->n_idle--;
	} else {
		up->pool->n_lent--;
	}
	job_cancel(&up->idle_job);
	timer_stop(&up->idle_timer);
	conn_close(&up->conn);
}

/* An idle connection has nothing to say: it closed, or speaks out of turn (RFC 9112 section 9.2). */
static void upstream_on_idle_event(struct job *job) {
	upstream_end(container_of(job, struct upstream, idle_job));
}

static void upstream_on_idle_timer(struct timer *t) {
	struct upstream *up = container_of(t, struct upstream, idle_timer);
	if (list_is_linked(&up->link)) /* running on while lent is cheaper than stopping each time */
		upstream_end(up);
}

static void upstream_on_trim(struct timer *t) {
	struct upstream_pool *p = container_of(t, struct upstream_pool, trim);
	slab_trim(&p->slab);
	loop_timer(p->loop, &p->trim, TRIM_MS);
}

void upstream_pool_init(struct upstream_pool *p, struct loop *loop, uint64_t idle_ms) {
	*p = (struct upstream_pool){ .loop = loop, .idle_ms = idle_ms };
	slab_init(&p->slab, sizeof(struct upstream));
	p->idle = calloc(INSTANCE_SLOTS_MAX, sizeof(*p->idle));
	timer_init(&p->trim, upstream_on_trim);
	loop_timer(loop, &p->trim, TRIM_MS);
}

static struct list *upstream_idle_list(struct upstream_pool *p, const struct instance *inst) {
	struct list *idle = &p->idle[inst->slot];
	if (!idle->next)
		list_init(idle);
	return idle;
}

void upstream_pool_close_idle(struct upstream_pool *p) {
	for (unsigned slot = 0; p->n_idle && slot < INSTANCE_SLOTS_MAX; slot++)
		while (p->idle[slot].next && !list_is_empty(&p->idle[slot]))
			upstream_end(container_of(p->idle[slot].next, struct upstream, link));
}

void upstream_pool_deinit(struct upstream_pool *p) {
	assert(p->n_lent == 0 && p->n_idle == 0);
	timer_stop(&p->trim);
	slab_deinit(&p->slab);
	free(p->idle);
}

struct upstream *upstream_get(struct upstream_pool *p, struct instance *inst, struct job *job) {
	struct list *idle = upstream_idle_list(p, inst);
	struct upstream *up = NULL;
	list_each (it, idle) {
		struct upstream *candidate = container_of(it, struct upstream, link);
		/* An event that is recorded but not acted on yet ends it. */
		if (!list_is_linked(&candidate->idle_job.link)) {
			up = candidate;
			break;
		}
	}
	if (!up)
		return NULL;
	assert(up->instance == inst);
	list_remove(&up->link);
	p->n_idle--;
	p->n_lent++;
	up->conn.job = job;
	up->is_reused = true;
	up->sent_before = up->conn.sent_bytes;
	return up;
}

/* The session for a new connection; *tls_out NULL: it is plain. */
static int upstream_tls(const struct upstream_pool *p, const struct instance *inst, struct tls **tls_out) {
	*tls_out = NULL;
	if (!inst->spec.is_tls)
		return 0;
	if (!p->loop->tls)
		return -EPROTONOSUPPORT;
	*tls_out = tls_connect(p->loop->tls, inst->spec.host.p);
	return *tls_out ? 0 : -ENOMEM;
}

int upstream_connect(struct upstream_pool *p, struct instance *inst, const struct sockaddr_storage *addr,
    struct job *job, struct upstream **up_out) {
	struct tls *tls;
	int r = upstream_tls(p, inst, &tls);
	if (r < 0)
		return r;
	struct upstream *up = slab_get_zeroed(&p->slab);
	list_init(&up->link);
	job_init(&up->idle_job, upstream_on_idle_event);
	timer_init(&up->idle_timer, upstream_on_idle_timer);
	up->pool = p;
	r = conn_connect(&up->conn, p->loop, (const struct sockaddr *)addr, job, upstream_on_closed);
	if (r < 0) {
		tls_free(&tls);
		slab_put(&p->slab, up);
		return r;
	}
	if (tls)
		conn_secure(&up->conn, tls);
	up->instance = instance_ref(inst);
	p->n_lent++;
	*up_out = up;
	return 0;
}

void upstream_put(struct upstream **upp) {
	struct upstream *up = *upp;
	struct upstream_pool *p = up->pool;
	*upp = NULL;
	assert(!up->conn.out);
	bool may_have_more = up->conn.unread.n || up->conn.can_read;
	if (may_have_more || up->conn.peer_closed || up->conn.is_broken || !p->idle_ms) {
		upstream_end(up);
		return;
	}
	conn_relax(&up->conn);
	p->n_lent--;
	p->n_idle++;
	up->conn.job = &up->idle_job;
	list_push_front(upstream_idle_list(p, up->instance), &up->link);
	loop_timer(p->loop, &up->idle_timer, p->idle_ms);
	conn_want_read(&up->conn, true);
}

void upstream_close(struct upstream **upp) {
	struct upstream *up = *upp;
	*upp = NULL;
	if (up)
		upstream_end(up);
}

bool upstream_is_unsent(const struct upstream *up) {
	return tcp_ack_is_none(up->conn.fd, up->sent_before);
}
