#include "registry/registry_core.h"

#include <time.h>

#include "base/clock.h"

uint64_t registry_core_now_ms(void) {
	return clock_now_ns() / 1000000u;
}

void registry_core_tick(struct registry_core *core) {
	roster_advance(core->roster, registry_core_now_ms());
	watchers_wake(core->watchers);
}

void registry_core_probe(struct registry_core *core, const struct record *record) {
	struct prober_target target = { .host = slice_of(record->host),
		.url = slice_of(record->url),
		.port = record->port,
		.is_openai = record->is_openai };

	prober_put(core->prober, slice_of(record->name), &target);
}

void registry_core_set_health(struct registry_core *core, struct slice name, bool is_healthy) {
	roster_set_health(
	    core->roster, name, is_healthy ? HEALTH_HEALTHY : HEALTH_UNHEALTHY, registry_core_now_ms());
	watchers_wake(core->watchers);
}

/* --- answers --------------------------------------------------------------------------- */

json_t *registry_core_timestamp(void) {
	time_t now = (time_t)(clock_wall_ms() / 1000);
	struct tm tm;
	char text[40];

	gmtime_r(&now, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S+00:00", &tm);
	return json_string(text);
}

void registry_core_answer_not_found(struct endpoint_call *c, struct slice name) {
	endpoint_answer_error(
	    c, 404, "not_found", "Service '%.*s' not found", (int)size_min(name.n, RECORD_NAME_MAX), name.p);
}
