#include "discovery/checkup.h"

#include <jansson.h>
#include <netinet/in.h>

#include "base/clock.h"

#define BODY_BYTES_MAX (4u << 20) /* of a model list */

static void checkup_on_done(struct fetch *f, int outcome, unsigned status, struct slice body);

void checkup_init(
    struct checkup *c, struct loop *loop, enum checkup_kind kind, uint64_t timeout_ms, checkup_fn on_done) {
	*c = (struct checkup){ .loop = loop, .kind = kind, .path = SLICE("/health"), .on_done = on_done };
	fetch_init(&c->fetch, timeout_ms, BODY_BYTES_MAX, checkup_on_done);
}

void checkup_deinit(struct checkup *c) {
	fetch_cancel(&c->fetch);
}

static void port_next(struct sockaddr_storage *address) {
	in_port_t *port = address->ss_family == AF_INET ? &((struct sockaddr_in *)address)->sin_port
							: &((struct sockaddr_in6 *)address)->sin6_port;

	*port = htons((uint16_t)(ntohs(*port) + 1));
}

static bool is_provider(const struct checkup *c) {
	return c->spec->is_provider;
}

static void checkup_ask(struct checkup *c) {
	const struct fetch_request request = {
		.authority = c->spec->authority,
		.base = is_provider(c) ? c->spec->base : (struct slice){ NULL, 0 },
		.path = is_provider(c)  ? instance_target(c->spec, SLICE("/v1/models"))
		    : c->is_second_path ? SLICE("/v1/models")
					: c->path,
		.bearer = c->bearer,
		.tls_host = c->tls_host,
	};

	fetch_start(&c->fetch, c->loop, &c->addresses[(c->first + c->n_tried) % c->n_addresses], &request);
}

void checkup_start(struct checkup *c, const struct instance *inst, const struct sockaddr_storage *addresses,
    uint32_t n, struct slice bearer) {
	assert(!checkup_is_busy(c) && n > 0 && n <= INSTANCE_ADDRESSES_MAX);
	memcpy(c->addresses, addresses, n * sizeof(*addresses));
	c->n_addresses = n;
	c->n_tried = 0;
	c->first = instance_good_address(inst, n);
	c->is_second_path = false;
	c->began_ns = clock_now_ns();
	c->spec = &inst->spec;
	c->bearer = bearer;
	c->tls_host = instance_tls_host(inst); /* of both: the babysitter of such an engine does likewise */
	for (uint32_t i = 0; c->kind == CHECKUP_SITTER && i < n; i++)
		port_next(&c->addresses[i]);
	checkup_ask(c);
}

/* Another engine may be listening there: a babysitter says that it is one. */
static enum checkup_outcome judge_sitter(unsigned status, struct slice body) {
	json_t *health = json_loadb(body.p, body.n, 0, NULL);
	bool is_sitter =
	    json_object_get(health, "babysitter") || json_object_get(health, "infinilm_server_running");
	const char *state = json_string_value(json_object_get(health, "state"));
	bool is_draining = state && !strcmp(state, "draining");

	json_decref(health);
	if (!is_sitter)
		return CHECKUP_NOTHING;
	if (status >= 200 && status < 300)
		return CHECKUP_GOOD;
	return is_draining ? CHECKUP_DRAINS : CHECKUP_BAD;
}

/* We had no descriptor or port to ask with. Until fetch tells it apart, this never happens. */
static bool is_unasked(int outcome) {
	return outcome == FETCH_E_LOCAL;
}

/* A provider: that it keeps its models from us, has no list of them or has heard enough is an answer, too. */
static bool is_alive(unsigned status) {
	return status / 100 == 2 || status == 401 || status == 403 || status == 404 || status == 429;
}

static enum checkup_outcome checkup_judge(
    const struct checkup *c, int outcome, unsigned status, struct slice body) {
	if (is_unasked(outcome))
		return CHECKUP_UNASKED;
	if (c->kind == CHECKUP_SITTER)
		return outcome ? CHECKUP_NOTHING : judge_sitter(status, body);
	if (outcome == FETCH_E_CONNECT)
		return CHECKUP_REFUSED;
	if (is_provider(c))
		return !outcome && is_alive(status) ? CHECKUP_GOOD : CHECKUP_BAD;
	if (status == 503 && c->fetch.has_retry_after)
		return CHECKUP_DRAINS;
	return outcome || status >= 500 ? CHECKUP_BAD : CHECKUP_GOOD;
}

static void checkup_on_done(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct checkup *c = container_of(f, struct checkup, fetch);

	if (outcome == FETCH_E_CONNECT && ++c->n_tried < c->n_addresses) {
		checkup_ask(c);
		return;
	}
	if (c->kind == CHECKUP_ENGINE && !is_provider(c) && !c->is_second_path &&
	    (status == 404 || status == 405)) {
		c->is_second_path = true;
		checkup_ask(c);
		return;
	}
	c->on_done(c, checkup_judge(c, outcome, status, body), (clock_now_ns() - c->began_ns) / 1000);
}
