#include "router/flush.h"

#include <stdlib.h>

#include "router/pairs_json.h"
#include "router/recruit.h"

#define ANSWER_BYTES_MAX 65536u

struct flush;

/* One server. */
struct flush_host {
	struct flush *flush;
	const struct snapshot_row *row; /* the first of it */
	struct fetch fetch;
	bool is_second_path;
};

struct flush {
	struct list link; /* report->flushes */
	struct report *report;
	struct petition *petition;
	struct snapshot *snapshot;
	json_t *successful, *failed;
	uint32_t n_hosts, n_asked, n_done;
	bool is_going_on;
	struct flush_host hosts[];
};

static bool is_same_host(const struct snapshot_row *a, const struct snapshot_row *b) {
	const struct instance_spec *x = &a->instance->spec, *y = &b->instance->spec;

	return x->is_tls == y->is_tls && x->port == y->port && slice_eq(x->host, y->host);
}

static bool has_host(const struct flush *f, const struct snapshot_row *row) {
	for (uint32_t i = 0; i < f->n_hosts; i++)
		if (is_same_host(f->hosts[i].row, row))
			return true;
	return false;
}

static void flush_free(struct flush *f) {
	for (uint32_t i = 0; i < f->n_asked; i++)
		fetch_cancel(&f->hosts[i].fetch);
	list_remove(&f->link);
	json_decref(f->successful);
	json_decref(f->failed);
	snapshot_unref(&f->snapshot);
	free(f);
}

static void finish(struct flush *f) {
	size_t n_failed = json_array_size(f->failed);
	char message[96];

	if (n_failed)
		snprintf(message, sizeof(message), "%zu of %u workers did not flush their caches", n_failed,
		    f->n_hosts);
	else
		snprintf(message, sizeof(message), "all %u workers have flushed their caches", f->n_hosts);
	petition_answer_json(f->petition, n_failed ? 500 : 200,
	    json_pack("{s:s, s:O, s:O, s:I}", "message", message, "successful", f->successful, "failed",
		f->failed, "total_workers", (json_int_t)f->n_hosts));
	flush_free(f);
}

/* Requests that come now find nothing cached there. */
static void forget(const struct flush *f, const struct snapshot_row *host) {
	struct prefix_index *index = f->report->router->prefixes;

	for (uint32_t i = 0; index && i < f->snapshot->n_rows; i++)
		if (is_same_host(&f->snapshot->rows[i], host))
			prefix_index_forget(index, f->snapshot->rows[i].instance->slot);
}

static json_t *url_of(const struct flush_host *h) {
	return text_json(recruit_base(h->row->instance->spec.url));
}

static void go_on(struct flush *f);

/* why NULL: it did. */
static void host_done(struct flush_host *h, const char *why) {
	struct flush *f = h->flush;

	if (why) {
		json_array_append_new(f->failed, json_pack("{s:o, s:s}", "url", url_of(h), "error", why));
	} else {
		json_array_append_new(f->successful, url_of(h));
		forget(f, h->row);
	}
	f->n_done++;
}

static void on_done(struct fetch *fetch, int outcome, unsigned status, struct slice body);

static void ask(struct flush_host *h) {
	const struct snapshot_row *row = h->row;
	const struct instance_spec *spec = &row->instance->spec;
	const struct report *r = h->flush->report;
	const struct fetch_request request = { .method = SLICE("POST"),
		.authority = spec->authority,
		.path = h->is_second_path ? SLICE("/reset_prefix_cache") : SLICE("/flush_cache"),
		.bearer = instance_key(spec, r->router->settings->config->engine_key),
		.body = SLICE("{}"),
		.tls_host = instance_tls_host(row->instance) };

	fetch_init(&h->fetch, FLUSH_MS, ANSWER_BYTES_MAX, on_done);
	fetch_start(&h->fetch, r->explain.loop,
	    &row->addresses[instance_good_address(row->instance, row->n_addresses)], &request);
}

static void on_done(struct fetch *fetch, int outcome, unsigned status, struct slice body) {
	struct flush_host *h = container_of(fetch, struct flush_host, fetch);
	bool is_unknown = !outcome && (status == 404 || status == 405);
	char why[32];

	if (is_unknown && !h->is_second_path) {
		h->is_second_path = true;
		ask(h);
		return;
	}
	snprintf(why, sizeof(why), "status %u", status);
	host_done(h, outcome ? fetch_outcome_text((enum fetch_outcome)outcome) : status < 300 ? NULL : why);
	go_on(h->flush);
}

static void start(struct flush_host *h) {
	h->flush->n_asked++;
	if (h->row->n_addresses)
		ask(h);
	else
		host_done(h, "its name does not resolve");
}

/* May be called again from within: what could not be opened is done at once. */
static void go_on(struct flush *f) {
	bool is_outer = !f->is_going_on;

	f->is_going_on = true;
	while (is_outer && f->n_asked < f->n_hosts && f->n_asked - f->n_done < FLUSH_AT_ONCE)
		start(&f->hosts[f->n_asked]);
	if (!is_outer)
		return;
	f->is_going_on = false;
	if (f->n_done == f->n_hosts)
		finish(f);
}

void flush_caches(struct report *report, struct petition *p) {
	struct snapshot *snap = snapshot_ref((struct snapshot *)report->snapshot);
	struct flush *f = calloc(1, sizeof(*f) + snap->n_rows * sizeof(f->hosts[0]));

	list_init(&f->link);
	list_push(&report->flushes, &f->link);
	f->report = report;
	f->petition = p;
	f->snapshot = snap;
	f->successful = json_array();
	f->failed = json_array();
	for (uint32_t i = 0; i < snap->n_rows; i++)
		if (snap->rows[i].primary == i && !snap->rows[i].instance->spec.is_provider &&
		    !has_host(f, &snap->rows[i]))
			f->hosts[f->n_hosts++] = (struct flush_host){ .flush = f, .row = &snap->rows[i] };
	go_on(f);
}

void flush_close(struct report *report) {
	list_each_safe (it, &report->flushes)
		flush_free(container_of(it, struct flush, link));
}
