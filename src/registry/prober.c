#include "registry/prober.h"

#define BODY_BYTES_MAX (1u << 20)

enum probe_state {
	PROBE_IDLE = 1, /* its timer runs, if there is an interval */
	PROBE_WAITING,  /* in prober->waiting */
	PROBE_ACTIVE,   /* asked */
	PROBE_ENDED,    /* in prober->ended: the job tells */
};

struct probe {
	UT_hash_handle hh;
	struct prober *prober;
	struct list link;
	struct list wishes;
	struct timer timer;
	struct fetch fetch;
	struct origin *origin; /* while asked: a name is looked up each time */
	enum probe_state state;
	bool has_result, is_healthy;
	char url[PROBER_URL_MAX];
	size_t n_name;
	char name[];
};

bool prober_target_url(const struct prober_target *t, char url[static PROBER_URL_MAX]) {
	const char *scheme = slice_is(slice_head(t->url, 8), SLICE("https://")) ? "https" : "http";
	bool is_bare_ipv6 = t->host.n && memchr(t->host.p, ':', t->host.n) && t->host.p[0] != '[';
	int n;

	if (t->is_openai && t->port < UINT16_MAX)
		n = snprintf(url, PROBER_URL_MAX, "%s://%s%.*s%s:%u", scheme, is_bare_ipv6 ? "[" : "",
		    (int)t->host.n, t->host.p, is_bare_ipv6 ? "]" : "", t->port + 1u);
	else
		n = snprintf(url, PROBER_URL_MAX, "%.*s", (int)t->url.n, t->url.p);
	return n > 0 && n < PROBER_URL_MAX;
}

static struct probe *prober_find(struct prober *p, struct slice name) {
	struct probe *probe;

	HASH_FIND(hh, p->probes, name.p, name.n, probe);
	return probe;
}

/* --- one probe ---------------------------------------------------------------------- */

static void probe_rest(struct probe *probe, uint64_t delay_ms) {
	probe->state = PROBE_IDLE;
	if (probe->prober->interval_ms)
		loop_timer(probe->prober->loop, &probe->timer, delay_ms);
}

/* The interval, a tenth more or less. */
static uint64_t probe_delay_ms(struct prober *p) {
	return p->interval_ms - p->interval_ms / 10 + rng_below(&p->rng, p->interval_ms / 5 + 1);
}

static void probe_end(struct probe *probe, bool has_result, bool is_healthy) {
	assert(probe->state == PROBE_ACTIVE);
	probe->state = PROBE_ENDED;
	probe->has_result = has_result;
	probe->is_healthy = is_healthy;
	list_push(&probe->prober->ended, &probe->link);
	loop_wake(probe->prober->loop, &probe->prober->job);
}

static void probe_on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	probe_end(container_of(f, struct probe, fetch), outcome != FETCH_E_LOCAL,
	    outcome == 0 && status / 100 == 2);
}

static bool probe_may_ask(void *context, const struct sockaddr_storage *address) {
	struct prober *p = context;

	return p->may_ask(p, address);
}

static void probe_start(struct probe *probe) {
	const struct fetch_request request = { .path = SLICE("/health") };
	struct prober *p = probe->prober;

	assert(probe->state == PROBE_WAITING);
	list_remove(&probe->link);
	probe->state = PROBE_ACTIVE;
	p->n_active++;
	probe->origin = origin_new(p->loop, slice_of(probe->url));
	if (!probe->origin) {
		probe_end(probe, false, false);
		return;
	}
	origin_restrict(probe->origin, probe_may_ask, p);
	origin_fetch(probe->origin, &probe->fetch, &request);
}

/* Into the line, in front where somebody waits for the answer. */
static void probe_wait(struct probe *probe, bool is_wished) {
	struct prober *p = probe->prober;

	if (probe->state == PROBE_IDLE) {
		timer_stop(&probe->timer);
		probe->state = PROBE_WAITING;
	} else if (probe->state == PROBE_WAITING && is_wished) {
		list_remove(&probe->link);
	} else {
		return;
	}
	if (is_wished)
		list_push_front(&p->waiting, &probe->link);
	else
		list_push(&p->waiting, &probe->link);
	loop_wake(p->loop, &p->job);
}

static void probe_on_timer(struct timer *t) {
	probe_wait(container_of(t, struct probe, timer), false);
}

/* Whatever it was doing, it is idle afterwards, without a timer. */
static void probe_cancel(struct probe *probe) {
	if (probe->state == PROBE_ACTIVE || probe->state == PROBE_ENDED)
		probe->prober->n_active--;
	list_remove(&probe->link);
	timer_stop(&probe->timer);
	origin_free(&probe->origin);
	probe->state = PROBE_IDLE;
}

static void wishes_grant(struct list *wishes, bool is_healthy) {
	while (!list_is_empty(wishes)) {
		struct prober_wish *wish = container_of(wishes->next, struct prober_wish, link);
		list_remove(&wish->link);
		wish->on_done(wish, is_healthy);
	}
}

/* The probe may be gone afterwards: those who are told may remove it. */
static void probe_tell(struct probe *probe) {
	struct prober *p = probe->prober;
	struct list wishes = LIST_INIT(wishes);
	bool is_healthy = probe->is_healthy, has_result = probe->has_result;

	probe_cancel(probe);
	probe_rest(probe, probe_delay_ms(p));
	list_splice(&wishes, &probe->wishes);
	if (has_result) {
		p->n_healthy += is_healthy;
		p->n_unhealthy += !is_healthy;
		p->on_result(p, (struct slice){ probe->name, probe->n_name }, is_healthy);
	}
	wishes_grant(&wishes, is_healthy);
}

/* --- all of them --------------------------------------------------------------------- */

static void prober_run(struct job *job) {
	struct prober *p = container_of(job, struct prober, job);

	while (!list_is_empty(&p->ended))
		probe_tell(container_of(p->ended.next, struct probe, link));
	while (!list_is_empty(&p->waiting) && p->n_active < PROBER_ACTIVE_MAX)
		probe_start(container_of(p->waiting.next, struct probe, link));
}

void prober_init(struct prober *p, struct loop *loop, uint64_t interval_ms, uint64_t timeout_ms,
    prober_fn on_result, prober_may_ask_fn may_ask) {
	*p = (struct prober){ .loop = loop,
		.interval_ms = interval_ms,
		.timeout_ms = timeout_ms,
		.on_result = on_result,
		.may_ask = may_ask };
	rng_init_random(&p->rng);
	list_init(&p->waiting);
	list_init(&p->ended);
	job_init(&p->job, prober_run);
}

static void probe_free(struct probe *probe) {
	struct prober *p = probe->prober;
	struct list wishes = LIST_INIT(wishes);

	probe_cancel(probe);
	list_splice(&wishes, &probe->wishes);
	HASH_DEL(p->probes, probe);
	free(probe);
	wishes_grant(&wishes, false);
}

void prober_deinit(struct prober *p) {
	for (struct probe *probe = p->probes, *next; probe; probe = next) {
		next = probe->hh.next;
		probe_free(probe);
	}
	job_cancel(&p->job);
}

static struct probe *probe_new(struct prober *p, struct slice name) {
	struct probe *probe = calloc(1, sizeof(*probe) + name.n + 1);

	probe->prober = p;
	probe->state = PROBE_IDLE;
	list_init(&probe->link);
	list_init(&probe->wishes);
	timer_init(&probe->timer, probe_on_timer);
	fetch_init(&probe->fetch, p->timeout_ms, BODY_BYTES_MAX, probe_on_done);
	memcpy(probe->name, name.p, name.n);
	probe->n_name = name.n;
	HASH_ADD_KEYPTR(hh, p->probes, probe->name, probe->n_name, probe);
	return probe;
}

void prober_put(struct prober *p, struct slice name, const struct prober_target *target) {
	struct probe *probe = prober_find(p, name);
	char url[PROBER_URL_MAX];

	if (!prober_target_url(target, url))
		url[0] = '\0'; /* no origin has such a url */
	if (!probe)
		probe = probe_new(p, name);
	else if (strcmp(probe->url, url) == 0)
		return;
	else
		probe_cancel(probe); /* what is under way is about another place */
	memcpy(probe->url, url, sizeof(url));
	probe_rest(probe, p->interval_ms ? rng_below(&p->rng, p->interval_ms) : 0);
	if (!list_is_empty(&probe->wishes))
		probe_wait(probe, true);
	loop_wake(p->loop, &p->job); /* a place in the line may have come free */
}

void prober_remove(struct prober *p, struct slice name) {
	struct probe *probe = prober_find(p, name);

	if (!probe)
		return;
	probe_free(probe);
	loop_wake(p->loop, &p->job);
}

bool prober_ask(struct prober *p, struct slice name, struct prober_wish *wish) {
	struct probe *probe = prober_find(p, name);

	if (!probe)
		return false;
	list_init(&wish->link);
	list_push(&probe->wishes, &wish->link);
	probe_wait(probe, true);
	return true;
}
