#include "base/clock.h"

#include <time.h>

static uint64_t clock_real_ns(void) {
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static clock_source_fn clock_source = clock_real_ns;

uint64_t clock_now_ns(void) {
	return clock_source();
}

static uint64_t clock_real_wall_ms(void) {
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

static clock_source_fn clock_wall_source = clock_real_wall_ms;

uint64_t clock_wall_ms(void) {
	return clock_wall_source();
}

void clock_set_source(clock_source_fn source) {
	clock_source = source ? source : clock_real_ns;
}

void clock_set_wall_source(clock_source_fn source) {
	clock_wall_source = source ? source : clock_real_wall_ms;
}
