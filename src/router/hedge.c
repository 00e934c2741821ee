#include "router/hedge.h"

#include "router/held_head.h"
#include "router/journal.h"
#include "router/steps.h"

/* Of these an engine keeps nothing: what it did for the loser is lost and that is all. Responses are stored,
 * images may be; what we do not know may do anything. */
#define HARMLESS                                                                                             \
	(1u << CAPABILITY_CHAT | 1u << CAPABILITY_MESSAGES | 1u << CAPABILITY_COMPLETION |                   \
	    1u << CAPABILITY_INFILL | 1u << CAPABILITY_EMBEDDINGS | 1u << CAPABILITY_RERANK |                \
	    1u << CAPABILITY_SCORE | 1u << CAPABILITY_MODERATION | 1u << CAPABILITY_TOKENS |                 \
	    1u << CAPABILITY_TRANSCRIPTION | 1u << CAPABILITY_TRANSLATION | 1u << CAPABILITY_SPEECH)

#define GOOD_MAX 399u /* with a status beyond, one does not win */

static const struct hedge_options *options_of(const struct exchange *x) {
	return &exchange_config(x)->hedge;
}

static struct lateness_model *model_of(const struct exchange *x) {
	return &x->worker->lateness[x->model->label];
}

static struct lateness *lateness_of_hand(const struct exchange *x) {
	return lateness_of(model_of(x), x->ticket.charged_tokens, x->inspect.is_streamed);
}

static void learn(const struct exchange *x) {
	uint64_t now_ms = loop_now_ms(&x->worker->loop);

	if (x->moved_ms)
		lateness_learn(lateness_of_hand(x), now_ms - u64_min(x->moved_ms, now_ms));
}

/* --- whether and when ------------------------------------------------------------------------- */

static bool may_be_made_twice(const struct exchange *x) {
	bool is_kept = x->keeps_replay && x->hold.bytes <= REPLAY_BYTES_MAX && call_is_received(&x->down);

	return is_kept && HARMLESS >> inspect_capability(&x->inspect) & 1 && !x->at.first_byte &&
	    x->model->name.n && !inspect_names_response(&x->inspect) && x->model->n_candidates > 1;
}

void hedge_watch(struct exchange *x) {
	struct hedge *h = x->hedge;

	assert(x->moved_ms && options_of(x)->is_enabled);
	if (!h) {
		if (!may_be_made_twice(x))
			return;
		h = x->hedge = slab_get_zeroed(&x->worker->hedges);
		lateness_save(model_of(x), options_of(x));
	}
	assert(!x->held_head);
	h->due_ms = UINT64_MAX;
	if (h->was_begun)
		return;
	uint64_t late_ms = lateness_ms(lateness_of_hand(x), options_of(x));
	if (late_ms != LATENESS_NEVER)
		h->due_ms = x->moved_ms + u64_max(late_ms, 1);
}

/* It is late; and nothing has happened meanwhile that forbids it, and it can be paid for. */
static bool has_leave(struct exchange *x) {
	bool is_paid;

	if (!may_be_made_twice(x) || x->n_interim || x->n_tried + 1u >= x->model->n_candidates)
		return false;
	is_paid = lateness_spend(model_of(x));
	if (!is_paid)
		metric_add(&x->worker->metrics->hedges_denied, 1);
	return is_paid;
}

/* --- from hand to hand -------------------------------------------------------------------------- */

static void take_in_hand(struct exchange *x, struct aside *a) {
	aside_take(x, a);
	x->last_cause = CAUSE_NONE;
}

/* Who is aside is, as if it had been tried. */
static void exclude(struct exchange *x, uint16_t slot) {
	assert(x->n_tried < EXCHANGE_TRIES_MAX);
	x->tried[x->n_tried++] = slot;
}

static void include(struct exchange *x, uint16_t slot) {
	for (unsigned i = x->n_tried; i-- > 0;)
		if (x->tried[i] == slot) {
			x->tried[i] = x->tried[--x->n_tried];
			return;
		}
}

/* Who is aside has failed, or lost; `head` of what it answered, NULL: nothing. */
static void leave_aside(struct exchange *x, enum cause cause, const struct head *head) {
	struct hedge *h = x->hedge;
	struct aside second = { .view = NULL };

	aside_put(x, &second);
	take_in_hand(x, &h->aside);
	if (cause == CAUSE_HEDGE_LOST) {
		learn(x); /* it would have taken so long and longer */
		include(x, x->ticket.instance->slot);
	}
	if (head)
		(void)attempt_heed_rest(x, head);
	attempt_leave(x, cause, head ? head->status : 0);
	worker_view_release(x->worker, &x->view);
	take_in_hand(x, &second);
}

enum next hedge_begin(struct exchange *x) {
	struct hedge *h = x->hedge;

	assert(!hedge_is_out(x) && x->step == STEP_AWAIT_HEAD);
	h->due_ms = UINT64_MAX;
	h->was_begun = true;
	if (!has_leave(x))
		return NEXT;
	aside_put(x, &h->aside);
	exclude(x, h->aside.ticket.instance->slot);
	x->view = worker_view(x->worker);
	return exchange_go(x, STEP_PICK);
}

void hedge_sent(struct exchange *x) {
	if (x->hedge) /* whoever has it now is not late yet */
		x->hedge->due_ms = UINT64_MAX;
	if (!hedge_is_out(x))
		return;
	if (!x->hedge->sent)
		metric_add(&x->worker->metrics->hedges, 1);
	x->hedge->sent = x->n_sends;
}

enum next hedge_take_back(struct exchange *x) {
	struct hedge *h = x->hedge;

	assert(hedge_is_out(x) && !ticket_is_open(&x->ticket));
	if (x->view)
		worker_view_release(x->worker, &x->view);
	take_in_hand(x, &h->aside);
	include(x, x->ticket.instance->slot);
	if (!h->sent)
		lateness_give_back(model_of(x));
	h->sent = 0;
	/* Its time runs since it was sent, not anew. */
	x->wait_cause = CAUSE_FIRST_BYTE_TIMEOUT;
	x->progress = x->n_sends;
	journal_returned(x);
	return exchange_go(x, STEP_AWAIT_HEAD);
}

enum next hedge_fall_back(struct exchange *x, enum cause cause, unsigned status) {
	exclude(x, x->ticket.instance->slot);
	attempt_leave(x, cause, status);
	return hedge_take_back(x);
}

/* --- answers ------------------------------------------------------------------------------------- */

/* Is there, or may there be, another one to compare with? */
static bool is_race(const struct exchange *x) {
	return hedge_is_out(x) || x->hedge->due_ms != UINT64_MAX;
}

/* The head of the answer on `up`, with something behind it where that is to be awaited. */
static int recv_head(struct exchange *x, struct call *up, struct buf **held, struct head_room *room,
    const struct head **head_out) {
	int r = held_head_recv(x, up, held, is_race(x), room, head_out);

	return r == CALL_E_GONE && *held && !hedge_is_out(x) ? 0 : r; /* alone, the answer is what it is */
}

int hedge_recv_head(struct exchange *x, struct head_room *room, const struct head **head_out) {
	return recv_head(x, &x->up, &x->held_head, room, head_out);
}

bool hedge_hear(struct exchange *x, enum next *next_out) {
	struct hedge *h = x->hedge;
	struct head_room room;
	const struct head *head;
	int r = 0;

	do {
		if (!hedge_is_out(x))
			return false;
		r = recv_head(x, &h->aside.up, &h->aside.held_head, &room, &head);
		if (r == CALL_E_AGAIN)
			return false;
		if (r == CALL_E_GONE)
			leave_aside(x, CAUSE_UPSTREAM_CLOSED, NULL);
		else if (r || (head->status < 200 && ++h->aside.n_interim > INTERIM_MAX))
			leave_aside(x, CAUSE_UPSTREAM_MALFORMED, NULL);
		else if (head->status > GOOD_MAX && h->sent) /* else nobody else has the request */
			leave_aside(x, CAUSE_UPSTREAM_REFUSED, head);
	} while (!hedge_is_out(x) || head->status < 200);
	attempt_leave(x, CAUSE_HEDGE_LOST, 0);
	(void)hedge_take_back(x);
	*next_out = attempt_answered(x, head);
	return true;
}

bool hedge_does_lose(const struct exchange *x, const struct head *head) {
	return hedge_is_out(x) && head->status > GOOD_MAX;
}

void hedge_answer(struct exchange *x, const struct head *head) {
	const struct hedge *h = x->hedge;

	if (held_head_is_stream(head) && !x->upstream->conn.unread.n && !call_is_received(&x->up))
		x->asked_ms = (uint32_t)x->moved_ms;
	else if (head->status < 300)
		learn(x);
	if (h->sent && h->sent == x->n_sends)
		metric_add(&x->worker->metrics->hedges_won, 1);
	hedge_end(x, CAUSE_HEDGE_LOST);
}

void hedge_learn(struct exchange *x) {
	lateness_learn(lateness_of_hand(x), (uint32_t)loop_now_ms(&x->worker->loop) - x->asked_ms);
	x->asked_ms = 0;
}

void hedge_end(struct exchange *x, enum cause cause) {
	if (!x->hedge)
		return;
	if (hedge_is_out(x))
		leave_aside(x, cause, NULL);
	slab_put(&x->worker->hedges, x->hedge);
	x->hedge = NULL;
}

bool hedge_is_waiting(const struct exchange *x, uint16_t *slot_out, uint64_t *silent_ms_out) {
	uint64_t now_ms = loop_now_ms(&x->worker->loop);

	if (!hedge_is_out(x) || x->hedge->aside.n_interim || !x->hedge->aside.moved_ms)
		return false;
	*slot_out = x->hedge->aside.ticket.instance->slot;
	*silent_ms_out = now_ms - u64_min(x->hedge->aside.moved_ms, now_ms);
	return true;
}
