/*
 * health_state: what is believed of one instance, from what is heard of it.
 *
 * Pure: callers say what happened and when. Three witnesses speak: probes (of the
 * engine, and the word of its babysitter), the answers to requests, and progress: streams
 * that fall silent, and requests without a first byte while the engine does no work. What
 * they say is weighed here and becomes one of a few events; the table of states and events
 * (docs/states/instance.dot) does the rest.
 *
 * A request may wait for its first byte for good reasons, so that waiting alone makes a
 * suspect; whether the engine works meanwhile is asked (discovery/progress.h).
 *
 * What is ejected comes back by a good probe, slowly: its share of the traffic grows in
 * steps. What failed requests or was hung while its probes were good is held out first,
 * longer each time, since its probes prove little; so is what goes up and down, or comes and
 * goes. What did no work has to show some before its probes count again.
 *
 * What drains or is disabled, by an operator's will, a registry's or its own word, is judged by nobody: it
 * is well, gets no new work, and comes back as something new, on trial until a good probe.
 *
 * The data-parallel ranks of one engine have a state each: what probes, its babysitter and failed connects
 * say is said to all of them, what answers and streams show to their own; a rank that hangs takes along those
 * that have done nothing either.
 *
 * Times are monotonic milliseconds. One thread, the one that owns the fleet.
 */
#pragma once

#include "fleet/instance.h"

#define HEALTH_HOLD_MAX_MS 300000u
#define HEALTH_WINDOW_S    10u /* of the answers that half may fail in */
#define HEALTH_WINDOW_MIN  20u /* answers in it before that counts */

enum health_event {
	HEALTH_EVENT_GOOD,  /* it serves */
	HEALTH_EVENT_DOUBT, /* something is wrong, not enough to eject it */
	HEALTH_EVENT_BAD,
	HEALTH_EVENT_SILENT, /* nothing was heard for three intervals */
	HEALTH_EVENT_DRAIN,  /* somebody's will */
	HEALTH_EVENT_DISABLE,
	HEALTH_EVENT_ENABLE,
};

#define HEALTH_EVENTS 7

/* Why it is in its state; for log lines. */
enum health_cause {
	HEALTH_CAUSE_NEW,
	HEALTH_CAUSE_PROBE,
	HEALTH_CAUSE_REFUSED, /* a connect failed: a probe's or a worker's */
	HEALTH_CAUSE_SITTER,  /* its babysitter says that it does not serve */
	HEALTH_CAUSE_IN_ROW,
	HEALTH_CAUSE_HALF,
	HEALTH_CAUSE_STALLED,
	HEALTH_CAUSE_IDLE, /* requests wait for their first byte, and nothing is done for them */
	HEALTH_CAUSE_SILENT,
	HEALTH_CAUSE_HELD_OUT, /* its time out is over, and nobody probes it */
	HEALTH_CAUSE_FLAPS,    /* it leaves the fleet and comes back, again and again */
	HEALTH_CAUSE_WILL,
	HEALTH_CAUSE_LEAVES, /* it says itself that it drains */
};

#define HEALTH_CAUSES 13

const char *health_cause_text(enum health_cause cause);

enum health_verdict {
	HEALTH_PROBE_GOOD,
	HEALTH_PROBE_BAD,
	HEALTH_PROBE_REFUSED,
	HEALTH_PROBE_DRAINS, /* it takes no new work, by its own word, and is well */
};

/* A babysitter's, of its engine. */
enum health_word { HEALTH_WORD_DENIES, HEALTH_WORD_SERVES, HEALTH_WORD_DRAINS };

/* Does it work? */
enum health_progress {
	HEALTH_PROGRESS_MOVES,
	HEALTH_PROGRESS_STILL, /* its counters stand still */
	HEALTH_PROGRESS_MUTE,  /* it did not do a request of our own, either */
	HEALTH_PROGRESS_UNSAID,
	HEALTH_PROGRESS_UNASKED, /* we could not: nothing follows, but that it is to be asked later */
};

struct health_limits {
	uint64_t
	    interval_ms; /* between two probes; 0: there are none, and all are believed until they fail */
	uint64_t slow_start_ms; /* 0: full share at once */
	uint64_t stall_ms;      /* between two times that one is suspected without a reason */
	unsigned errors_max;    /* in a row */
	unsigned n_good_min;    /* probes in a row that bring back what is unhealthy; 0 is 1 */
};

struct health_window {
	uint64_t second; /* of the newest bucket */
	uint32_t n_good[HEALTH_WINDOW_S], n_faults[HEALTH_WINDOW_S];
};

struct health_state {
	const struct health_limits *limits;
	enum instance_state state;
	enum health_cause cause;
	uint32_t n_bad_probes, n_good_probes, n_faults_in_row; /* probes: in a row */
	uint32_t n_streams, n_stalled;                         /* as last told */
	uint32_t n_waiting;                                    /* requests that nothing was brought for */
	uint32_t n_mute;            /* of both, witnesses that it does no work, until it shows some */
	uint32_t n_flaps;           /* ejections without a long time of health between them */
	bool is_refused, is_denied; /* as the last connect, and the babysitter, say */
	/* It has said that it drains, and no good probe came since; its babysitter says so. */
	bool is_leaving, is_sitter_leaving;
	enum instance_state asked; /* DRAINING or DISABLED, by somebody's will; UNKNOWN: neither */
	uint64_t news_ms;          /* when anything was heard last */
	uint64_t trusted_ms;       /* when it worked last, or nobody could say */
	uint64_t held_until_ms;    /* of what is unhealthy */
	uint64_t held_ms;          /* how long it was held last */
	uint64_t recovered_ms;     /* 0: was never ejected */
	struct health_window window;
};

/* The state that follows, for the table's tests. */
enum instance_state health_state_next(enum instance_state from, enum health_event event);

/* The limits must outlive it. */
void health_state_init(struct health_state *h, const struct health_limits *limits, uint64_t now_ms);

/* --- what is heard; each may change the state -------------------------------------------- */

/* It is new, and of its engine, or of this rank of it, so much is known; not what is somebody's will. */
void health_state_begin(struct health_state *h, enum instance_state known, uint64_t now_ms);

/* It is new, and comes and goes: whatever is heard, it is ejected until then. */
void health_state_hold(struct health_state *h, uint64_t until_ms, uint64_t now_ms);

void health_state_probe(struct health_state *h, enum health_verdict verdict, uint64_t now_ms);

/* A babysitter answered: what of its engine? One that does not answer has nothing against it. */
void health_state_word(struct health_state *h, enum health_word word, uint64_t now_ms);

/* A worker's connect failed. */
void health_state_refused(struct health_state *h, uint64_t now_ms);

/* Answers since the last call. */
void health_state_answers(struct health_state *h, uint32_t n_good, uint32_t n_faults, uint64_t now_ms);

/* Streams that have brought something, now, and how many of them are silent for the stall timeout. */
void health_state_streams(struct health_state *h, uint32_t n_streams, uint32_t n_stalled, uint64_t now_ms);

/* Requests that wait for their first byte for the stall timeout, now. */
void health_state_waits(struct health_state *h, uint32_t n_waiting);

/* An answer began: it works, and is not held out for not doing so. */
void health_state_acquit(struct health_state *h, uint64_t now_ms);

/* It was asked, being suspect. */
void health_state_progress(struct health_state *h, enum health_progress progress, uint64_t now_ms);

/* Another rank of its engine does no work: nor does it, unless it has shown some within the stall timeout. */
void health_state_join_hang(struct health_state *h, uint64_t now_ms);

/* What is wanted of it by others: INSTANCE_DRAINING, INSTANCE_DISABLED, or INSTANCE_UNKNOWN for neither. It
 * takes work again when nobody wants otherwise and it does not say itself that it drains. */
void health_state_will(struct health_state *h, enum instance_state asked, uint64_t now_ms);

void health_state_tick(struct health_state *h, uint64_t now_ms);

/* The process stood still for that long: nobody can be blamed for the silence. */
void health_state_forgive(struct health_state *h, uint64_t gap_ms, uint64_t now_ms);

/* --- what follows ------------------------------------------------------------------------ */

/* 1 to INSTANCE_SHARE_FULL: what part of its weight counts now. */
unsigned health_state_share(const struct health_state *h, uint64_t now_ms);

/* No request gets through: the panic rule leaves it out, too. Whom its babysitter denies is not among them:
 * when most are ill, it may be the babysitters that err. */
static inline bool health_state_is_refusing(const struct health_state *h) {
	return h->is_refused;
}

/* Ejected for want of progress, and has shown none since. */
static inline bool health_state_is_hung(const struct health_state *h) {
	return h->state == INSTANCE_UNHEALTHY && h->n_mute > 0;
}

/* Whether it works is to be asked now; what is hung, whenever its time out is over. */
bool health_state_is_suspect(const struct health_state *h, uint64_t now_ms);

/* Until the next probe: what is out is asked more often. */
uint64_t health_state_probe_wait_ms(const struct health_state *h);
