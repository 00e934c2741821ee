#include "babysitter/idleness.h"

#include <stdlib.h>

#include "base/samples.h"

#define LOOK_MS       200
#define N_LOOKS       3 /* in a row without anything: a request may be on its way */
#define ANSWER_MS     2000
#define METRICS_BYTES (4u << 20)
#define ESTABLISHED   1u

static const char *const families[] = {
	"vllm:num_requests_running",
	"vllm:num_requests_waiting",
	"sglang:num_running_reqs",
	"sglang:num_queue_reqs",
	"llamacpp:requests_processing",
	"llamacpp:requests_deferred",
};

int64_t idleness_count_requests(struct slice metrics) {
	double n;

	if (!samples_sum(metrics, families, n_elems(families), &n))
		return -1;
	return n < 1e9 ? (int64_t)n : 1000000000;
}

/* "  0: 0100007F:1F90 0100007F:D2C4 01 ...": the second word is the local address, the fourth the state. */
static bool is_connection(char *line, uint16_t port) {
	char *rest = NULL;
	const char *words[4];

	for (size_t i = 0; i < n_elems(words); i++)
		if (!(words[i] = strtok_r(i ? NULL : line, " ", &rest)))
			return false;
	const char *colon = strrchr(words[1], ':');
	if (!colon)
		return false;
	unsigned long local = strtoul(colon + 1, NULL, 16); /* lint: allow, the kernel's hexadecimal */
	unsigned long state = strtoul(words[3], NULL, 16);  /* lint: allow, the same */
	return local == port && state == ESTABLISHED;
}

unsigned idleness_count_connections(FILE *table, uint16_t port) {
	char line[512];
	unsigned n = 0;

	while (fgets(line, sizeof(line), table))
		n += is_connection(line, port);
	return n;
}

static unsigned count_connections(uint16_t port) {
	static const char *const tables[] = { "/proc/net/tcp", "/proc/net/tcp6" };
	unsigned n = 0;

	for (size_t i = 0; i < n_elems(tables); i++) {
		FILE *table = fopen(tables[i], "re");
		if (!table)
			continue;
		n += idleness_count_connections(table, port);
		fclose(table);
	}
	return n;
}

static void idleness_learn(struct idleness *i, bool is_idle) {
	i->n_idle = is_idle ? i->n_idle + 1 : 0;
	if (i->n_idle < N_LOOKS && loop_now_ms(i->loop) < i->until_ms) {
		loop_timer(i->loop, &i->timer, LOOK_MS);
		return;
	}
	i->on_done(i, i->n_idle >= N_LOOKS);
}

static void idleness_on_answer(struct fetch *f, int outcome, unsigned status, struct slice body) {
	struct idleness *i = container_of(f, struct idleness, fetch);
	int64_t n = !outcome && status == 200 ? idleness_count_requests(body) : -1;

	i->is_asking = false;
	if (n < 0)
		i->origin = NULL; /* it does not say: connections are counted, one of ours among them while
				     readiness looks */
	idleness_learn(i, n == 0);
}

static void idleness_on_timer(struct timer *t) {
	struct idleness *i = container_of(t, struct idleness, timer);
	const struct fetch_request request = { .path = SLICE("/metrics"), .accept = SLICE("text/plain") };

	if (i->origin) {
		i->is_asking = true;
		origin_fetch(i->origin, &i->fetch, &request);
	} else {
		idleness_learn(i, count_connections(i->port) == 0);
	}
}

void idleness_start(struct idleness *i, struct loop *loop, struct origin *origin, uint16_t port,
    uint64_t timeout_ms, void (*on_done)(struct idleness *i, bool is_idle)) {
	*i = (struct idleness){
		.loop = loop,
		.origin = origin,
		.until_ms = loop_now_ms(loop) + timeout_ms,
		.port = port,
		.on_done = on_done,
	};
	timer_init(&i->timer, idleness_on_timer);
	fetch_init(&i->fetch, ANSWER_MS, METRICS_BYTES, idleness_on_answer);
	loop_timer(loop, &i->timer, LOOK_MS);
}

void idleness_stop(struct idleness *i) {
	if (!i->loop)
		return;
	timer_stop(&i->timer);
	if (i->is_asking)
		origin_cancel(i->origin, &i->fetch);
	i->loop = NULL;
}
