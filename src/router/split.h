/*
 * split: a request whose prompt one instance computes and another one decodes (disaggregated prefill and
 * decode). docs/states/split.dot draws it, docs/prefill-decode.md says what engines get.
 *
 * An exchange gets a pair at its first pick, when its model has instances that prefill and others that
 * decode, its API can be shared, and its whole body is held. The policy picks among those who may compute a
 * prompt; when that is a unified one, the request goes there alone, as does one whose prompt is short or
 * mostly cached where it would be decoded. Otherwise both instances are picked and charged before anything is
 * sent; then the prefill leg is an attempt like any other, whose answer is kept and not passed on, and the
 * decode leg another one. While one leg is in hand the other one is aside. Where the connector wants both
 * at once, the prefill leg goes on aside and is listened to on the way.
 *
 *     FIRST    who computes the prompt is to be picked; who decodes may be aside
 *     SECOND   who decodes is to be picked; who prefills is aside, and has nothing yet
 *     PREFILL  the prefill leg is in hand, the decode leg aside
 *     DECODE   the decode leg is in hand; the prefill leg is over, or at work aside
 *     ALONE    one instance does it all
 *
 * Either leg may fail before the first byte of the answer and be had by another instance, as long as retries
 * may be made. What a decode leg was sent may have been fetched and let go by the prefill: it begins anew
 * with both, unless it was never sent, or refused for want of room; with another prefill where the decode
 * answered that it failed, for it may not have got what was prefilled. When nobody is left to prefill, or to
 * decode what another one has prefilled, the request goes on alone. Each leg holds its load to its own end; a
 * client that leaves ends both.
 *
 * Part of its exchange, on its thread, in a slab of the worker.
 */
#pragma once

#include "router/aside.h"
#include "router/split_params.h"
#include "router/split_relay.h"

enum split_phase { SPLIT_FIRST, SPLIT_SECOND, SPLIT_PREFILL, SPLIT_DECODE, SPLIT_ALONE };

struct split {
	struct aside prefill, decode; /* what is not in hand of them */
	struct view *prefill_view;    /* whose texts the wire has, once the prefill leg is over; else NULL */
	struct split_body body;
	struct split_params params; /* of the prefill's answer */
	struct hold answer;         /* the prefill's, as far as it has come */
	struct buf *places;         /* where a list of prompts meets; NULL: it is none */
	struct split_secret secret;
	struct kv_traits prefill_kv, decode_kv;
	struct instance *prefill_instance, *decode_instance; /* as long as the views are */
	struct slice prefill_engine;
	uint64_t prefill_begun_ns;
	uint64_t prefill_due_ms; /* of the prefill leg aside: its next byte; UINT64_MAX: whenever */
	uint8_t n_other_sends;   /* of the exchange's, those of the leg that is not in hand */
	uint8_t n_tried;         /* of the exchange's, without the enemies of this prefill */
	uint8_t phase;
	uint8_t connector;  /* enum connector, of who was picked first */
	bool was_avoiding;  /* who could prefill or decode, by itself or for the other one, failed lately */
	bool takes_avoided; /* and that did not do */
	bool has_answer;    /* the prefill's is complete */
	bool has_head;      /* that of the prefill leg aside has come */
	bool is_stream;     /* the prefill answers with events, as where both get the same request */
	bool is_unheard;    /* what the prefill leg aside says is too much: only its end counts */
	bool keeps_engine;  /* and its engine keeps the connection */
	struct split_wire wire;
	struct split_relay relay; /* of the client's answer */
};

enum next;

/* The one way from one phase to another. */
void split_set_phase(struct exchange *x, enum split_phase phase);

/* --- choice.c's ------------------------------------------------------------------------------- */

/* Before a pick, with x->model the model that was asked for: gives it a pair if it can be shared, says which
 * pool it is picked from (x->model then) and what for. */
void split_enter(struct exchange *x, struct demand *demand, struct pick_input *input);

/* Nobody who does whole requests was picked, and two cannot share it. True: who decodes may have it. */
must_use bool split_yields(const struct exchange *x, struct demand *demand);

/* The pick came to this; `pick` on 0. True: it goes on otherwise, with another pick. */
must_use bool split_declines(struct exchange *x, int outcome, const struct pick_result *pick);

/* Is who was picked to compute the prompt and no more? */
bool split_is_first(const struct exchange *x, const struct pick_result *pick);

/* Nobody was picked, and it waits for its turn: then it may have a pair again. */
void split_wait(struct exchange *x);

/* The attempt is begun. What follows. */
enum next split_picked(struct exchange *x, const struct pick_result *pick);

/* --- attempt.c's --------------------------------------------------------------------------------- */

/* What the leg in hand is sent: edits of the body, and the id; empty: the request's own. */
struct slice split_edit(const struct exchange *x, struct splice *out);

/* The prefill leg has its request and both are to be asked at once: goes on with the decode leg. */
must_use bool split_goes_on(struct exchange *x, enum next *next_out);

/* As call_recv_head() of the leg in hand; a decode's stream has not begun with its head alone, as long as its
 * prompt is being computed. The head is good until the next receive or attempt_drop(). */
must_use int split_recv_head(struct exchange *x, struct head_room *room, const struct head **head_out);

/* The leg in hand is answered with this status, be it taken or not, or by nothing (0): whether the two get
 * on. */
void split_judge(struct exchange *x, unsigned status);

/* An answer with this head has come to the leg in hand. True: it is the prefill's, and collected. */
must_use bool split_takes(struct exchange *x, const struct head *head);

/* Something may have come from a prefill leg aside, or it is late. True: *next_out follows. */
must_use bool split_hear(struct exchange *x, enum next *next_out);

/* When a prefill leg aside is late, monotonic; UINT64_MAX: never. */
uint64_t split_due_ms(const struct exchange *x);

/* Does a decode leg with this answer say what became of its prefill, which has not said it yet? */
bool split_is_doubted(const struct exchange *x, unsigned status);

enum next step_collect(struct exchange *x);

/* Is a leg in hand, of which the client has nothing yet? It may be had again. */
bool split_may_repeat(const struct exchange *x);

/* Is the prefill leg in hand? */
bool split_is_prefilling(const struct exchange *x);

/* How often what is in hand was sent: each leg has its attempts. Engines that were asked for a response that
 * they do not have (router/seek.h) do not count. */
unsigned split_sends(const struct exchange *x);

/* What was in hand is lost, or was answered with this status (0: by nothing), and is had elsewhere: what is
 * of no use for that ends now, while it waits. */
void split_step_back(struct exchange *x, unsigned status);

/* From aside to hand, to be worked on: what it waits for is counted from now on. */
void split_take(struct exchange *x, struct aside *a);

/* A prefill's answer is not listened to any more: what comes next is the client's, or another prefill's. */
void split_close_tap(struct exchange *x);

/* What is in hand ends without a word on how it did, and nothing is in hand. */
void split_let_go(struct exchange *x);

/* The client has its answer, or gets it from the leg in hand: the other one ends. */
void split_drop_aside(struct exchange *x);

/* The client's answer begins with this head: what is of no use any more is let go. True: it passes through
 * split_relay_put(), and may become longer than the head says. */
must_use bool split_answered(struct exchange *x, const struct head *answer);

/* Both legs of it end here, but for the one in hand; `cause` of the exchange. Without a pair does nothing. */
void split_end(struct exchange *x);
