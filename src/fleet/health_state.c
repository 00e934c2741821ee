#include "fleet/health_state.h"

#define HOLD_MIN_MS     1000u
#define HOLD_PASSIVE_MS 5000u  /* after failures that probes do not see */
#define STEADY_MIN_MS   60000u /* so long in health, and the past is forgotten */
#define QUICK_PROBE_MS  1000u
#define SHARE_TRIAL     1u
#define SHARE_DEGRADED  (INSTANCE_SHARE_FULL / 4)
#define RAMP_STEPS      4u

#define UNKNOWN   INSTANCE_UNKNOWN
#define READY     INSTANCE_READY
#define DEGRADED  INSTANCE_DEGRADED
#define UNHEALTHY INSTANCE_UNHEALTHY
#define DRAINING  INSTANCE_DRAINING
#define DISABLED  INSTANCE_DISABLED

/* clang-format off */
static const enum instance_state table[INSTANCE_STATES][HEALTH_EVENTS] = {
	/*               GOOD       DOUBT      BAD        SILENT     DRAIN     DISABLE   ENABLE */
	[UNKNOWN]   = { READY,     UNKNOWN,   UNHEALTHY, UNKNOWN,   DRAINING, DISABLED, UNKNOWN },
	[READY]     = { READY,     DEGRADED,  UNHEALTHY, UNKNOWN,   DRAINING, DISABLED, READY },
	[DEGRADED]  = { READY,     DEGRADED,  UNHEALTHY, UNKNOWN,   DRAINING, DISABLED, DEGRADED },
	[UNHEALTHY] = { READY,     UNHEALTHY, UNHEALTHY, UNHEALTHY, DRAINING, DISABLED, UNHEALTHY },
	[DRAINING]  = { DRAINING,  DRAINING,  DRAINING,  DRAINING,  DRAINING, DISABLED, UNKNOWN },
	[DISABLED]  = { DISABLED,  DISABLED,  DISABLED,  DISABLED,  DRAINING, DISABLED, UNKNOWN },
};
/* clang-format on */

#undef UNKNOWN
#undef READY
#undef DEGRADED
#undef UNHEALTHY
#undef DRAINING
#undef DISABLED

const char *health_cause_text(enum health_cause cause) {
	static const char *const text[HEALTH_CAUSES] = {
		[HEALTH_CAUSE_NEW] = "new",
		[HEALTH_CAUSE_PROBE] = "probe",
		[HEALTH_CAUSE_REFUSED] = "connect failed",
		[HEALTH_CAUSE_SITTER] = "babysitter says so",
		[HEALTH_CAUSE_IN_ROW] = "failed requests in a row",
		[HEALTH_CAUSE_HALF] = "half of the requests failed",
		[HEALTH_CAUSE_STALLED] = "streams stalled",
		[HEALTH_CAUSE_IDLE] = "requests wait, no progress",
		[HEALTH_CAUSE_SILENT] = "no news",
		[HEALTH_CAUSE_HELD_OUT] = "time out is over",
		[HEALTH_CAUSE_FLAPS] = "it comes and goes",
		[HEALTH_CAUSE_WILL] = "asked for",
		[HEALTH_CAUSE_LEAVES] = "it says that it drains",
	};
	assert(cause < HEALTH_CAUSES);
	return text[cause];
}

enum instance_state health_state_next(enum instance_state from, enum health_event event) {
	assert(from < INSTANCE_STATES && event < HEALTH_EVENTS);
	return table[from][event];
}

static bool is_probed(const struct health_state *h) {
	return h->limits->interval_ms > 0;
}

void health_state_init(struct health_state *h, const struct health_limits *limits, uint64_t now_ms) {
	*h = (struct health_state){ .limits = limits, .news_ms = now_ms };
	h->state = is_probed(h) ? INSTANCE_UNKNOWN : INSTANCE_READY;
}

/* --- ejecting ------------------------------------------------------------------------------- */

/* Probes see these causes, so that a good one is believed. */
static bool do_probes_see(enum health_cause cause) {
	return cause == HEALTH_CAUSE_PROBE || cause == HEALTH_CAUSE_REFUSED || cause == HEALTH_CAUSE_SITTER;
}

static uint64_t hold_ms(const struct health_state *h, enum health_cause cause) {
	uint64_t first = HOLD_PASSIVE_MS;
	unsigned n = h->n_flaps < 20 ? h->n_flaps : 20;

	if (do_probes_see(cause)) {
		if (n == 0)
			return is_probed(h) ? 0 : HOLD_MIN_MS;
		first = HOLD_MIN_MS;
		n--;
	}
	return u64_min(first << n, HEALTH_HOLD_MAX_MS);
}

static void health_eject(struct health_state *h, enum health_cause cause, uint64_t now_ms) {
	if (h->recovered_ms && now_ms - h->recovered_ms >= u64_max(STEADY_MIN_MS, 2 * h->held_ms))
		h->n_flaps = 0;
	h->held_ms = hold_ms(h, cause);
	h->held_until_ms = now_ms + h->held_ms;
	h->n_flaps++;
	h->n_faults_in_row = h->n_good_probes = 0;
	h->window = (struct health_window){ .second = 0 };
}

static void health_apply(
    struct health_state *h, enum health_event event, enum health_cause cause, uint64_t now_ms) {
	enum instance_state next = health_state_next(h->state, event);

	if (next == h->state)
		return;
	assert(instance_state_may_follow(h->state, next));
	if (next == INSTANCE_UNHEALTHY)
		health_eject(h, cause, now_ms);
	else if (h->state == INSTANCE_UNHEALTHY)
		h->recovered_ms = u64_max(now_ms, 1);
	h->state = next;
	h->cause = cause;
}

/* Nothing that was said speaks against it any more. */
static bool may_return(const struct health_state *h, uint64_t now_ms) {
	return !h->is_refused && !h->is_denied && h->n_stalled == 0 && h->n_mute == 0 &&
	    (h->state != INSTANCE_UNHEALTHY || now_ms >= h->held_until_ms);
}

void health_state_acquit(struct health_state *h, uint64_t now_ms) {
	h->n_mute = 0;
	h->trusted_ms = now_ms;
	if (h->state == INSTANCE_UNHEALTHY &&
	    (h->cause == HEALTH_CAUSE_STALLED || h->cause == HEALTH_CAUSE_IDLE))
		h->held_until_ms = u64_min(h->held_until_ms, now_ms);
}

/* Two witnesses of standstill, or all the streams there are. */
static void health_weigh_progress(struct health_state *h, uint64_t now_ms) {
	uint64_t n_witnesses = (uint64_t)h->n_stalled + h->n_mute;
	bool is_bad = n_witnesses >= 2 || h->n_stalled == h->n_streams;

	if (n_witnesses == 0)
		return;
	health_apply(h, is_bad ? HEALTH_EVENT_BAD : HEALTH_EVENT_DOUBT,
	    h->n_mute ? HEALTH_CAUSE_IDLE : HEALTH_CAUSE_STALLED, now_ms);
	if (is_bad &&
	    h->state == INSTANCE_UNHEALTHY) /* also when these streams are cut, it owes a sign of work */
		h->n_mute = (uint32_t)size_max(h->n_mute, h->n_stalled);
}

/* --- somebody's will --------------------------------------------------------------------------- */

/* As wanted by who wants most. */
static void health_heed(struct health_state *h, enum health_cause cause, uint64_t now_ms) {
	if (h->asked == INSTANCE_DISABLED) {
		health_apply(h, HEALTH_EVENT_DISABLE, cause, now_ms);
	} else if (h->asked == INSTANCE_DRAINING || h->is_leaving || h->is_sitter_leaving) {
		health_apply(h, HEALTH_EVENT_DRAIN, cause, now_ms);
	} else if (h->state >= INSTANCE_DRAINING) {
		health_apply(h, HEALTH_EVENT_ENABLE, cause, now_ms);
		if (!is_probed(h)) /* nobody would find out */
			health_apply(h, HEALTH_EVENT_GOOD, cause, now_ms);
	}
}

void health_state_will(struct health_state *h, enum instance_state asked, uint64_t now_ms) {
	assert(asked == INSTANCE_UNKNOWN || asked >= INSTANCE_DRAINING);
	if (asked == h->asked)
		return;
	h->asked = asked;
	h->news_ms = now_ms;
	health_heed(h, HEALTH_CAUSE_WILL, now_ms);
}

void health_state_begin(struct health_state *h, enum instance_state known, uint64_t now_ms) {
	if (known == INSTANCE_READY || known == INSTANCE_DEGRADED)
		health_apply(h, HEALTH_EVENT_GOOD, HEALTH_CAUSE_NEW, now_ms);
	else if (known == INSTANCE_UNHEALTHY) /* the next good probe ends it */
		health_apply(h, HEALTH_EVENT_BAD, HEALTH_CAUSE_PROBE, now_ms);
}

/* --- witnesses ------------------------------------------------------------------------------ */

void health_state_hold(struct health_state *h, uint64_t until_ms, uint64_t now_ms) {
	if (until_ms <= now_ms)
		return;
	health_apply(h, HEALTH_EVENT_BAD, HEALTH_CAUSE_FLAPS, now_ms);
	h->held_until_ms = until_ms;
	h->held_ms = until_ms - now_ms;
}

static bool is_proved(const struct health_state *h) {
	return h->state != INSTANCE_UNHEALTHY || h->n_good_probes >= h->limits->n_good_min;
}

void health_state_probe(struct health_state *h, enum health_verdict verdict, uint64_t now_ms) {
	h->news_ms = now_ms;
	switch (verdict) {
	case HEALTH_PROBE_GOOD:
		h->n_bad_probes = 0;
		h->n_good_probes++;
		h->is_refused = h->is_leaving = false;
		health_heed(h, HEALTH_CAUSE_PROBE, now_ms);
		if (may_return(h, now_ms) && is_proved(h))
			health_apply(h, HEALTH_EVENT_GOOD, HEALTH_CAUSE_PROBE, now_ms);
		return;
	case HEALTH_PROBE_BAD:
		h->is_refused = false; /* it took the connection */
		h->n_bad_probes++;
		h->n_good_probes = 0;
		health_apply(h,
		    h->n_bad_probes >= h->limits->errors_max ? HEALTH_EVENT_BAD : HEALTH_EVENT_DOUBT,
		    HEALTH_CAUSE_PROBE, now_ms);
		return;
	case HEALTH_PROBE_REFUSED:
		health_state_refused(h, now_ms);
		return;
	case HEALTH_PROBE_DRAINS:
		h->n_bad_probes = 0;
		h->is_refused = false;
		h->is_leaving = true;
		health_heed(h, HEALTH_CAUSE_LEAVES, now_ms);
		return;
	}
}

void health_state_word(struct health_state *h, enum health_word word, uint64_t now_ms) {
	h->is_denied = word == HEALTH_WORD_DENIES;
	h->is_sitter_leaving = word == HEALTH_WORD_DRAINS;
	health_heed(h, h->is_sitter_leaving ? HEALTH_CAUSE_LEAVES : HEALTH_CAUSE_SITTER, now_ms);
	if (h->is_denied)
		health_apply(h, HEALTH_EVENT_BAD, HEALTH_CAUSE_SITTER, now_ms);
}

void health_state_refused(struct health_state *h, uint64_t now_ms) {
	h->news_ms = now_ms;
	h->n_good_probes = 0;
	h->is_refused = true;
	health_state_acquit(h, now_ms); /* what hung is gone: whoever comes in its place is another */
	health_apply(h, HEALTH_EVENT_BAD, HEALTH_CAUSE_REFUSED, now_ms);
}

/* Old seconds are emptied as the window moves over them. */
static void window_add(struct health_window *w, uint32_t n_good, uint32_t n_faults, uint64_t now_ms) {
	uint64_t second = now_ms / 1000;

	if (second > w->second + HEALTH_WINDOW_S)
		*w = (struct health_window){ .second = second };
	for (; w->second < second; w->second++)
		w->n_good[(w->second + 1) % HEALTH_WINDOW_S] =
		    w->n_faults[(w->second + 1) % HEALTH_WINDOW_S] = 0;
	w->n_good[second % HEALTH_WINDOW_S] += n_good;
	w->n_faults[second % HEALTH_WINDOW_S] += n_faults;
}

static bool window_is_bad(const struct health_window *w) {
	uint64_t n_good = 0, n_faults = 0;

	for (unsigned i = 0; i < HEALTH_WINDOW_S; i++) {
		n_good += w->n_good[i];
		n_faults += w->n_faults[i];
	}
	return n_good + n_faults >= HEALTH_WINDOW_MIN && n_faults >= n_good;
}

void health_state_answers(struct health_state *h, uint32_t n_good, uint32_t n_faults, uint64_t now_ms) {
	if (n_good == 0 && n_faults == 0)
		return;
	if (n_good)
		h->news_ms = now_ms;
	if (h->state > INSTANCE_DEGRADED) /* what was sent before, or in a panic */
		return;
	/* The order within one call is not known: a good one among them ends the row. */
	h->n_faults_in_row = n_good ? 0 : h->n_faults_in_row + n_faults;
	window_add(&h->window, n_good, n_faults, now_ms);
	if (h->n_faults_in_row >= h->limits->errors_max)
		health_apply(h, HEALTH_EVENT_BAD, HEALTH_CAUSE_IN_ROW, now_ms);
	else if (window_is_bad(&h->window))
		health_apply(h, HEALTH_EVENT_BAD, HEALTH_CAUSE_HALF, now_ms);
	else if (n_good && !is_probed(h) && may_return(h, now_ms))
		health_apply(h, HEALTH_EVENT_GOOD, HEALTH_CAUSE_PROBE, now_ms);
}

void health_state_streams(struct health_state *h, uint32_t n_streams, uint32_t n_stalled, uint64_t now_ms) {
	assert(n_stalled <= n_streams);
	bool has_moved = h->n_stalled > 0 && n_stalled == 0 && n_streams > 0;

	h->n_streams = n_streams;
	h->n_stalled = n_stalled;
	if (has_moved)
		health_state_acquit(h, now_ms); /* bytes bring it back */
	else if (n_streams > n_stalled)
		h->trusted_ms = now_ms;
	health_weigh_progress(h, now_ms);
}

void health_state_waits(struct health_state *h, uint32_t n_waiting) {
	h->n_waiting = n_waiting;
	if (n_waiting == 0 && !health_state_is_hung(h)) /* what is hung has driven them away */
		h->n_mute = 0;
}

bool health_state_is_suspect(const struct health_state *h, uint64_t now_ms) {
	if (health_state_is_hung(h))
		return now_ms >= h->held_until_ms;
	return h->state <= INSTANCE_DEGRADED && h->n_waiting > 0 &&
	    now_ms >= h->trusted_ms + h->limits->stall_ms;
}

void health_state_join_hang(struct health_state *h, uint64_t now_ms) {
	if (h->state > INSTANCE_DEGRADED || h->n_streams > h->n_stalled ||
	    now_ms < h->trusted_ms + h->limits->stall_ms)
		return;
	h->n_mute = (uint32_t)size_max(h->n_mute, 1);
	health_apply(h, HEALTH_EVENT_BAD, HEALTH_CAUSE_IDLE, now_ms);
}

/* Still hung when its time out was over: twice as long. */
static void health_hold_on(struct health_state *h, uint64_t now_ms) {
	h->held_ms = u64_min(u64_max(2 * h->held_ms, HOLD_PASSIVE_MS), HEALTH_HOLD_MAX_MS);
	h->held_until_ms = now_ms + h->held_ms;
}

void health_state_progress(struct health_state *h, enum health_progress progress, uint64_t now_ms) {
	bool was_hung = health_state_is_hung(h);

	if (progress == HEALTH_PROGRESS_MOVES) {
		health_state_acquit(h, now_ms);
		return;
	}
	if (progress == HEALTH_PROGRESS_UNASKED) { /* later */
		if (was_hung)
			h->held_until_ms = now_ms + QUICK_PROBE_MS;
		else
			h->trusted_ms = now_ms;
		return;
	}
	h->n_mute = progress == HEALTH_PROGRESS_UNSAID ? 0 : h->n_waiting;
	h->n_mute += progress == HEALTH_PROGRESS_MUTE; /* our own request is a witness, too */
	if (h->n_mute == 0)
		h->trusted_ms = now_ms;
	else if (was_hung)
		health_hold_on(h, now_ms);
	else
		health_weigh_progress(h, now_ms);
}

void health_state_tick(struct health_state *h, uint64_t now_ms) {
	if (is_probed(h)) {
		if (now_ms - h->news_ms > 3 * h->limits->interval_ms)
			health_apply(h, HEALTH_EVENT_SILENT, HEALTH_CAUSE_SILENT, now_ms);
		return;
	}
	if (h->state == INSTANCE_UNHEALTHY && now_ms >= h->held_until_ms) {
		h->is_refused = false; /* nobody but a request will find out */
		if (may_return(h, now_ms))
			health_apply(h, HEALTH_EVENT_GOOD, HEALTH_CAUSE_HELD_OUT, now_ms);
	} else if (h->state == INSTANCE_DEGRADED && may_return(h, now_ms)) {
		health_apply(h, HEALTH_EVENT_GOOD, HEALTH_CAUSE_HELD_OUT, now_ms);
	}
}

void health_state_forgive(struct health_state *h, uint64_t gap_ms, uint64_t now_ms) {
	h->news_ms = u64_min(h->news_ms + gap_ms, now_ms);
}

/* --- what follows ------------------------------------------------------------------------------ */

static unsigned ramp_share(const struct health_state *h, uint64_t now_ms) {
	uint64_t since_ms = now_ms - h->recovered_ms;

	if (!h->recovered_ms || since_ms >= h->limits->slow_start_ms)
		return INSTANCE_SHARE_FULL;
	uint64_t step = since_ms * RAMP_STEPS / h->limits->slow_start_ms;
	return step ? (unsigned)step * INSTANCE_SHARE_FULL / RAMP_STEPS : SHARE_TRIAL;
}

unsigned health_state_share(const struct health_state *h, uint64_t now_ms) {
	switch (h->state) {
	case INSTANCE_UNKNOWN:
		return SHARE_TRIAL;
	case INSTANCE_READY:
		return ramp_share(h, now_ms);
	case INSTANCE_DEGRADED:
		return (unsigned)size_min(SHARE_DEGRADED, ramp_share(h, now_ms));
	case INSTANCE_UNHEALTHY: /* in a panic: those that are well come first */
		return SHARE_TRIAL;
	default:
		return INSTANCE_SHARE_FULL;
	}
}

uint64_t health_state_probe_wait_ms(const struct health_state *h) {
	return h->state == INSTANCE_UNHEALTHY ? u64_min(QUICK_PROBE_MS, h->limits->interval_ms)
					      : h->limits->interval_ms;
}
