/*
 * still_time: time stands still but for still_pass(), which moves it on by 50 ms with
 * each turn of the loop.
 */
#pragma once

#include "unit/net/rig.h"

#define STILL_STEP_MS 50

static uint64_t still_now_ns;

static inline uint64_t still_clock(void) {
	return still_now_ns;
}

static inline void still_open(struct rig *r) {
	still_now_ns = 1000000000;
	clock_set_source(still_clock);
	rig_open(r);
}

static inline void still_close(struct rig *r) {
	rig_close(r);
	clock_set_source(NULL);
}

static inline uint64_t still_now_ms(void) {
	return still_now_ns / 1000000u;
}

static inline void still_pass(struct rig *r, uint64_t ms) {
	for (uint64_t passed = 0; passed < ms; passed += STILL_STEP_MS) {
		still_now_ns += STILL_STEP_MS * 1000000u;
		rig_spin(r, 5); /* what that began goes as far as it can */
	}
}
