/*
 * exchange: one request through the router, from its head to its one settlement.
 *
 * A sequence of named steps (docs/states/exchange.dot) run by one driver,
 * exchange_run(). A step returns NEXT, WAIT or DONE; events and timers only wake the
 * driver. Any step may fail the exchange with a cause, which leads to an answer that
 * says so or, once one has begun, to its cut; every exit passes settle once: load, counters, the access log
 * and both connections are dealt with there and nowhere else.
 *
 * An exchange belongs to its worker from exchange_begin() to settle and never leaves
 * that thread. It knows calls, not connections.
 */
#pragma once

#include "policy/ticket.h"
#include "router/cors.h"
#include "router/hold.h"
#include "router/inspect.h"
#include "router/rate.h"
#include "router/turn.h"
#include "router/worker.h"

enum exchange_step {
	STEP_BEGIN,
	STEP_VERIFY,
	STEP_ADMIT,
	STEP_LOCAL,
	STEP_SUBMIT,
	STEP_INSPECT,
	STEP_QUEUE,
	STEP_PICK,
	STEP_CONNECT,
	STEP_SEND,
	STEP_AWAIT_HEAD,
	STEP_COLLECT,
	STEP_BACK_OFF,
	STEP_RELAY,
	STEP_REFUSE,
	STEP_SETTLE,
};

#define EXCHANGE_TRIES_MAX  64 /* instances of which none took the request */
#define EXCHANGE_TEXT_MAX   136
#define EXCHANGE_METHOD_MAX 16
#define EXCHANGE_NO_ROW     UINT32_MAX

struct exchange_times { /* nanoseconds on the worker's clock; 0: has not happened */
	uint64_t begin, routed, connected, first_byte, first_token, last_token;
};

struct resume;
struct petition;
struct split;

struct exchange {
	struct call down; /* the client's */
	struct call up;   /* the engine's; no conn while there is none */
	struct worker *worker;
	struct upstream *upstream;
	struct job job;
	struct timer timer;
	struct list link;
	struct buf *head;      /* the request's, until the answer begins */
	struct buf *held_head; /* of an answer's, by held_head_recv(); NULL: none is held back */
	struct hold hold;
	struct resume *resume; /* NULL: its answer cannot be gone on with by another engine */
	struct buf *replay;    /* of replay_keep(), for the log; NULL: it is not logged */
	struct inspect inspect;
	struct tap tap;
	struct view *view;
	struct settings *settings; /* of when it began */
	const struct model *model; /* of the view; NULL until it is known */
	struct hedge *hedge;       /* what a second request is decided by, and who is aside; NULL: nothing */
	struct split *split;       /* prefill and decode; NULL: one instance does it */
	struct ticket ticket;      /* at the instance that has it; closed: none */
	struct turn turn;          /* its place among those in flight */
	union {                    /* on the control thread, while it waits for that; else NULL */
		struct inquiry *inquiry;   /* about its key */
		struct petition *petition; /* of STEP_SUBMIT: the request itself */
	};
	struct exchange_times at;
	uint64_t deadline_ms;    /* of what is waited for now; UINT64_MAX: none */
	uint64_t moved_ms;       /* since then it is the engine that is waited for; 0: it is not */
	uint64_t progress;       /* what had been achieved of it when the deadline was set */
	uint32_t row;            /* picked last, of the view's snapshot; EXCHANGE_NO_ROW: none */
	uint32_t backoff_ms;     /* of STEP_BACK_OFF */
	uint32_t asked_ms;       /* moved_ms, cut, of a stream whose begin is to be learned; 0: none is */
	uint32_t decision;       /* the record of its picks; DECISION_NONE: none */
	uint32_t prefill_label;  /* of who computed the prompt for another one; 0: nobody did */
	uint32_t prefill_ms;     /* how long that took */
	struct rate_claim claim; /* on what its tenant may use */
	uint16_t tried[EXCHANGE_TRIES_MAX];
	struct breaker_permit permit; /* of the ticket's instance, while that is open */
	uint16_t tenant;              /* whose it is */
	uint16_t n_attempts;
	uint8_t first_address; /* of the row, to begin with */
	uint8_t n_addresses;   /* of the row that were tried */
	uint8_t n_tried, n_sends, n_interim;
	uint8_t n_denied;      /* of the tried, the first: they do not have the response that it is about */
	uint16_t n_heartbeats; /* since bytes of the answer moved last */
	uint8_t step, cause, reason, dialect;
	uint8_t last_cause;        /* why the instance tried last did not do, until another is picked */
	uint8_t retry_bar;         /* enum retry_bar: why the last attempt was the last; none: it did well */
	uint8_t wait_cause;        /* what it means when the deadline passes */
	uint16_t status;           /* sent to the client; 0: none yet */
	uint16_t retry_after_s;    /* what a refusal says; 0: as its cause has it */
	bool was_retried : 1;      /* an engine that may have had it did not do, and it was sent again */
	bool may_return : 1;       /* those that refused it may be asked again */
	bool is_whole : 1;         /* two instances cannot share it (router/split.h) */
	bool has_continued : 1;    /* 100 Continue was sent */
	bool is_head : 1;          /* HEAD: the answer has no body */
	bool is_repeatable : 1;    /* GET, HEAD, OPTIONS: an engine that may have begun does no harm */
	bool keeps_replay : 1;     /* hold has the whole of what was sent */
	bool is_upload_broken : 1; /* the engine takes no more of the body; its answer may still come */
	bool is_tls_refused : 1;   /* by an address of this instance */
	bool is_engine_kept : 1;   /* the engine keeps its connection after this answer */
	bool ends_connection : 1;  /* the client's connection is not kept */
	uint8_t id_n, method_n, path_n;
	char text[EXCHANGE_TEXT_MAX]; /* request id, method, path without query (cut): what the log needs at
					 the end */
};

_Static_assert(sizeof(struct exchange) <= 952, "an open stream costs little");
_Static_assert(EXCHANGE_TEXT_MAX <= UINT8_MAX, "path_n");

/* For the server: a valid head has come. */
struct job *exchange_begin(struct server *server, struct session *session, const struct head *head);

/* What a client is told when a pick ends so (enum pick_outcome) at its first try. */
enum cause exchange_cause(int outcome);

/* For whom it is, as far as its body is known; NULL: nobody has such a model, and unknown ones are refused.
 */
const struct model *exchange_model(
    const struct router_config *config, const struct snapshot *snap, const struct inspect *in);

/* Whether an instance is picked by what the first n_bytes of a body have shown, on the worker's thread. */
must_use bool exchange_has_enough(const struct worker *w, const struct settings *settings,
    const struct tenant *tenant, const struct inspect *in, uint64_t n_bytes);

/* Ends it now, whatever it is doing (the worker stops). */
void exchange_kill(struct exchange *x, enum cause cause);

/* Whether an engine's event stream has brought content and only the engine holds it up, and how long it has
 * been silent. */
bool exchange_is_streaming(const struct exchange *x, uint64_t *silent_ms_out);

/* The same of a request for a model that an engine has had in full and brought nothing for: the head of a
 * stream may come before any work is done. */
bool exchange_is_waiting(const struct exchange *x, uint64_t *silent_ms_out);

/* What it goes by, from its begin to its end; but picks go by what is the worker's now. */
static inline const struct router_config *exchange_config(const struct exchange *x) {
	return x->settings->config;
}

static inline struct slice exchange_id(const struct exchange *x) {
	return (struct slice){ x->text, x->id_n };
}
static inline struct slice exchange_method(const struct exchange *x) {
	return (struct slice){ x->text + x->id_n, x->method_n };
}
static inline struct slice exchange_path(const struct exchange *x) {
	return (struct slice){ x->text + x->id_n + x->method_n, x->path_n };
}
