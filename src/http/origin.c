/*
 * A fetch through an origin is an attempt: it waits for a lookup where no address is
 * known, then goes from address to address until one takes the connection. Whatever
 * concerns an attempt happens in its own job or in its fetch's callback, never within a
 * call of the owner's: on_done may free the origin.
 */
#include "http/origin.h"

#include <stdio.h>

#include "base/digest.h"
#include "base/text.h"

#define RESOLVE_MS     30000
#define RESOLVE_MIN_MS 1000 /* between lookups, whatever fails */

struct origin {
	struct loop *loop;
	struct resolver *resolver;
	struct list attempts;
	char url[ORIGIN_URL_MAX + 16]; /* as it is shown: the port is always there */
	char host[ORIGIN_URL_MAX + 1];
	char authority[ORIGIN_URL_MAX + 1]; /* as it was given */
	char path[ORIGIN_URL_MAX + 1];      /* put in front of every request's */
	struct sockaddr_storage addresses[RESOLVER_ADDRESSES_MAX];
	size_t n_addresses;
	size_t best; /* the one that answered last */
	uint64_t resolve_at_ms, resolve_soonest_ms;
	origin_may_ask_fn may_ask; /* NULL: all of them */
	void *context;
	uint16_t port;
	bool is_tls;
	const char *name; /* of its certificate */
	bool is_literal;  /* nothing to look up */
	bool is_resolving;
	bool has_failed; /* a connect, since the last lookup */
};

/* One fetch in hand. */
struct origin_try {
	struct list link; /* origin->attempts */
	struct origin *origin;
	struct fetch *fetch;
	fetch_fn on_done;
	struct job job;
	struct timer timer; /* for the lookup */
	struct fetch_request request;
	char *texts; /* of the request */
	size_t n_texts;
	struct sockaddr_storage addresses[RESOLVER_ADDRESSES_MAX];
	size_t n_addresses, next;
	bool has_addresses;
	bool is_refused; /* by one of them; else we ourselves could not ask */
	bool waits;      /* for a lookup */
};

/* --- addresses ------------------------------------------------------------------------ */

static void origin_prefer(struct origin *o, const struct sockaddr_storage *address, bool is_good) {
	for (size_t i = 0; i < o->n_addresses; i++)
		if (memcmp(&o->addresses[i], address, sizeof(*address)) == 0) {
			if (is_good)
				o->best = i;
			else if (o->best == i)
				o->best = (i + 1) % o->n_addresses;
			return;
		}
}

/* Copies what may be asked; `out` may be `in`. */
static size_t origin_choose(
    const struct origin *o, const struct sockaddr_storage *in, size_t n, struct sockaddr_storage *out) {
	size_t n_out = 0;
	for (size_t i = 0; i < n; i++)
		if (!o->may_ask || o->may_ask(o->context, &in[i]))
			out[n_out++] = in[i];
	return n_out;
}

static void origin_on_addresses(struct resolver *r, const struct sockaddr_storage *addresses, size_t n) {
	struct origin *o = resolver_context(r);
	struct sockaddr_storage chosen[RESOLVER_ADDRESSES_MAX];
	n = origin_choose(o, addresses, n, chosen);
	o->is_resolving = false;
	if (n) { /* otherwise the last good answer stays */
		struct sockaddr_storage best = o->addresses[o->best];
		memcpy(o->addresses, chosen, n * sizeof(*chosen));
		o->n_addresses = n;
		o->best = 0;
		origin_prefer(o, &best, true);
	}
	list_each (it, &o->attempts) {
		struct origin_try *t = container_of(it, struct origin_try, link);
		if (t->waits)
			loop_wake(o->loop, &t->job);
	}
}

/* Starts a lookup where one is due. */
static void origin_refresh(struct origin *o) {
	uint64_t now = loop_now_ms(o->loop);
	bool is_due = !o->n_addresses || o->has_failed || now >= o->resolve_at_ms;
	if (o->is_literal || o->is_resolving || !is_due || now < o->resolve_soonest_ms)
		return;
	o->has_failed = false;
	o->is_resolving = true;
	o->resolve_soonest_ms = now + RESOLVE_MIN_MS;
	o->resolve_at_ms = now + RESOLVE_MS;
	resolver_start(o->resolver, o->loop, o->host, o->port);
}

/* --- attempts ------------------------------------------------------------------------- */

static void origin_try_free(struct origin_try *t) {
	t->fetch->on_done = t->on_done;
	t->fetch->attempt = NULL;
	list_remove(&t->link);
	job_cancel(&t->job);
	timer_stop(&t->timer);
	digest_wipe(t->texts, t->n_texts); /* a bearer token may be in it */
	free(t->texts);
	free(t);
}

static void origin_try_end(struct origin_try *t, int outcome, unsigned status, struct slice body) {
	struct fetch *f = t->fetch;
	origin_try_free(t);
	f->on_done(f, outcome, status, body); /* may free the origin */
}

static void origin_on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct origin_try *t = f->attempt;
	struct origin *o = t->origin;
	const struct sockaddr_storage *address = &t->addresses[t->next - 1];
	if (outcome == FETCH_E_LOCAL) { /* EADDRNOTAVAIL: there may be no IPv6 here, but IPv4 */
		loop_wake(o->loop, &t->job);
		return;
	}
	if (outcome == 0)
		origin_prefer(o, address, true);
	else if (outcome != FETCH_E_MALFORMED && outcome != FETCH_E_TOO_LARGE)
		origin_prefer(o, address, false);
	if (outcome != FETCH_E_CONNECT) {
		origin_try_end(t, outcome, status, body);
		return;
	}
	t->is_refused = true;
	o->has_failed = true;
	origin_refresh(o);
	loop_wake(o->loop, &t->job); /* the next address */
}

/* The best one first. */
static void origin_try_take(struct origin_try *t) {
	const struct origin *o = t->origin;
	t->has_addresses = true;
	t->waits = false;
	timer_stop(&t->timer);
	t->n_addresses = o->n_addresses;
	for (size_t i = 0; i < o->n_addresses; i++)
		t->addresses[i] = o->addresses[(o->best + i) % o->n_addresses];
}

static void origin_try_run(struct job *job) {
	struct origin_try *t = container_of(job, struct origin_try, job);
	struct origin *o = t->origin;
	if (!t->has_addresses) {
		bool is_doubtful = !o->n_addresses || o->has_failed;
		if (!t->waits)
			origin_refresh(o);
		if (!t->waits && is_doubtful && o->is_resolving) {
			t->waits = true;
			loop_timer(o->loop, &t->timer, u64_min(t->fetch->timeout_ms, FETCH_CONNECT_MS));
			return;
		}
		origin_try_take(t);
	}
	if (t->next == t->n_addresses)
		origin_try_end(t, t->is_refused || !t->n_addresses ? FETCH_E_CONNECT : FETCH_E_LOCAL, 0,
		    (struct slice){ NULL, 0 });
	else
		fetch_start(t->fetch, o->loop, &t->addresses[t->next++], &t->request);
}

/* The lookup takes too long: with what is known, if anything is. */
static void origin_on_timer(struct timer *timer) {
	struct origin_try *t = container_of(timer, struct origin_try, timer);
	loop_wake(t->origin->loop, &t->job);
}

static struct slice origin_copy(char **at, struct slice text) {
	char *p = *at;
	if (!text.p)
		return text;
	memcpy(p, text.p, text.n);
	*at += text.n;
	return (struct slice){ p, text.n };
}

/* The texts must last until the last address was tried. */
static void origin_try_ask(struct origin_try *t, const struct fetch_request *q) {
	struct slice prefix = slice_of(t->origin->path);
	t->n_texts = q->method.n + prefix.n + q->path.n + q->accept.n + q->bearer.n + q->fields.n + q->body.n;
	char *at = t->texts = malloc(t->n_texts + 1);
	t->request.method = origin_copy(&at, q->method);
	t->request.path = origin_copy(&at, prefix);
	t->request.path.n += origin_copy(&at, q->path).n;
	t->request.accept = origin_copy(&at, q->accept);
	t->request.bearer = origin_copy(&at, q->bearer);
	t->request.fields = origin_copy(&at, q->fields);
	t->request.body = origin_copy(&at, q->body);
	t->request.authority = slice_of(t->origin->authority);
	t->request.tls_host = t->origin->is_tls ? t->origin->name : NULL;
}

void origin_fetch(struct origin *o, struct fetch *f, const struct fetch_request *request) {
	assert(!fetch_is_busy(f));
	struct origin_try *t = calloc(1, sizeof(*t));
	t->origin = o;
	t->fetch = f;
	t->on_done = f->on_done;
	f->on_done = origin_on_done;
	f->attempt = t;
	job_init(&t->job, origin_try_run);
	timer_init(&t->timer, origin_on_timer);
	list_init(&t->link);
	list_push(&o->attempts, &t->link);
	origin_try_ask(t, request);
	loop_wake(o->loop, &t->job);
}

void origin_cancel(struct origin *o, struct fetch *f) {
	if (!f->attempt)
		return;
	assert(f->attempt->origin == o);
	origin_try_free(f->attempt);
	fetch_cancel(f);
}

/* --- the origin ----------------------------------------------------------------------- */

/* What is in front of every request's path. */
static bool origin_take_path(struct origin *o, struct slice path) {
	while (path.n && path.p[path.n - 1] == '/')
		path.n--;
	if (memchr(path.n ? path.p : "", '?', path.n))
		return false;
	memcpy(o->path, path.p ? path.p : "", path.n);
	return true;
}

static bool origin_speaks(const struct loop *loop, struct slice scheme) {
	return slice_is(scheme, SLICE("http")) || (slice_is(scheme, SLICE("https")) && loop && loop->tls);
}

struct origin *origin_new(struct loop *loop, struct slice url) {
	struct text_url parts;
	if (url.n > ORIGIN_URL_MAX || !text_url(url, &parts) || !origin_speaks(loop, parts.scheme))
		return NULL;
	struct origin *o = calloc(1, sizeof(*o));
	if (!origin_take_path(o, parts.path)) {
		free(o);
		return NULL;
	}
	struct slice authority = slice_skip(url, parts.scheme.n + 3);
	authority.n -= parts.path.n;
	o->loop = loop;
	o->port = parts.port;
	memcpy(o->authority, authority.p, authority.n);
	memcpy(o->host, parts.host.p, parts.host.n);
	o->is_tls = slice_is(parts.scheme, SLICE("https"));
	o->name = o->host;
	(o->is_tls ? text_print_tls_url : text_print_url)(o->url, sizeof(o->url), o->host, o->port);
	list_init(&o->attempts);
	o->resolver = resolver_new(origin_on_addresses, o);
	o->is_literal = resolver_is_address(o->host, o->port, &o->addresses[0]);
	o->n_addresses = o->is_literal;
	return o;
}

void origin_free(struct origin **op) {
	struct origin *o = *op;
	*op = NULL;
	if (!o)
		return;
	while (!list_is_empty(&o->attempts))
		origin_cancel(o, container_of(list_first(&o->attempts), struct origin_try, link)->fetch);
	resolver_free(&o->resolver);
	free(o);
}

void origin_restrict(struct origin *o, origin_may_ask_fn may_ask, void *context) {
	assert(list_is_empty(&o->attempts));
	o->may_ask = may_ask;
	o->context = context;
	o->n_addresses = origin_choose(o, o->addresses, o->n_addresses, o->addresses);
}

void origin_expect(struct origin *o, const char *name) {
	o->name = name;
}

const char *origin_url(const struct origin *o) {
	return o->url;
}
