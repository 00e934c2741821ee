#include "net/loop.h"

#include "base/clock.h"
#include "net/conn.h"

#define TRIM_INTERVAL_MS 5000
#define SLOW_TURN_NS     5000000u

void job_init(struct job *j, job_fn run) {
	j->run = run;
	list_init(&j->link);
}

void job_cancel(struct job *j) {
	list_remove(&j->link);
}

void loop_wake(struct loop *l, struct job *j) {
	if (!list_is_linked(&j->link))
		list_push(&l->ready, &j->link);
}

/* One round: who is woken meanwhile waits for the next one, so that nobody keeps the thread from its events.
 */
static void loop_run_ready(struct loop *l) {
	struct list round = LIST_INIT(round);
	list_splice(&round, &l->ready);
	while (!list_is_empty(&round)) {
		struct job *j = container_of(round.next, struct job, link);
		list_remove(&j->link);
		j->run(j);
	}
}

void loop_timer(struct loop *l, struct timer *t, uint64_t delay_ms) {
	if (!l->is_in_turn)
		l->now_ns = clock_now_ns();
	timer_start(&l->wheel, t, loop_now_ms(l) - l->wheel.now_ms + delay_ms);
}

void loop_turn(struct loop *l) {
	l->now_ns = clock_now_ns();
	l->is_in_turn = true;
	wheel_advance(&l->wheel, loop_now_ms(l));
	loop_run_ready(l);
}

static void loop_on_alarm(uv_timer_t *alarm) {
	/* The turn that follows does the work; the alarm only ends the sleep. */
	container_of(alarm, struct loop, alarm)->alarm_at_ms = 0;
}

/* Before the poll: the end of a turn. Sleeps until the next timer at most, not at all while jobs are ready.
 */
static void loop_on_prepare(uv_prepare_t *prepare) {
	struct loop *l = container_of(prepare, struct loop, prepare);
	loop_run_ready(l);
	l->is_in_turn = false;

	uint64_t took_ns = clock_now_ns() - l->now_ns;
	l->worst_turn_ns = u64_max(l->worst_turn_ns, took_ns);
	if (took_ns > SLOW_TURN_NS)
		l->n_slow_turns++;

	uint64_t delay_ms = list_is_empty(&l->ready) ? wheel_next_ms(&l->wheel) : 0;
	uint64_t at_ms = delay_ms == UINT64_MAX ? UINT64_MAX : l->wheel.now_ms + delay_ms;
	if (at_ms == UINT64_MAX || at_ms == l->alarm_at_ms)
		return;
	uint64_t now_ms = (l->now_ns + took_ns) / 1000000u;
	l->alarm_at_ms = at_ms;
	uv_timer_start(&l->alarm, loop_on_alarm, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

/* After the poll: all events are recorded, now decide. */
static void loop_on_check(uv_check_t *check) {
	struct loop *l = container_of(check, struct loop, check);
	loop_turn(l);
}

/* What has come until now; false: nothing. */
static bool loop_empty_inbox(struct loop *l) {
	struct mail *newest = atomic_exchange_explicit(&l->inbox, NULL, memory_order_acquire);
	struct mail *oldest = NULL;
	bool has_mail = newest;
	while (newest) {
		struct mail *next = newest->next;
		newest->next = oldest;
		oldest = newest;
		newest = next;
	}
	while (oldest) {
		struct mail *m = oldest;
		oldest = m->next;
		m->deliver(m);
	}
	return has_mail;
}

static void loop_on_doorbell(uv_async_t *doorbell) {
	loop_empty_inbox(container_of(doorbell, struct loop, doorbell));
}

void loop_deliver(struct loop *l) {
	while (loop_empty_inbox(l))
		;
}

void loop_post(struct loop *l, struct mail *m, mail_fn deliver) {
	m->deliver = deliver;
	m->next = atomic_load_explicit(&l->inbox, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(
	    &l->inbox, &m->next, m, memory_order_release, memory_order_relaxed))
		;
	uv_async_send(&l->doorbell);
}

static void loop_on_trim(struct timer *t) {
	struct loop *l = container_of(t, struct loop, trim);
	buf_pool_trim(&l->bufs);
	slab_trim(&l->outs);
	timer_start(&l->wheel, &l->trim, TRIM_INTERVAL_MS);
}

void loop_setup_process(void) {
	uv_replace_allocator(malloc, realloc, calloc, free);
}

int loop_init(struct loop *l, struct buf_budget *budget) {
	*l = (struct loop){ .now_ns = clock_now_ns() };
	int r = uv_loop_init(&l->uv);
	if (r < 0)
		return r;
	wheel_init(&l->wheel, l->now_ns / 1000000u);
	list_init(&l->ready);
	buf_pool_init(&l->bufs, budget);
	slab_init(&l->outs, sizeof(struct conn_out));
	l->read_buf = malloc(LOOP_READ_BYTES);
	l->scratch = malloc(LOOP_SCRATCH_BYTES);

	uv_prepare_init(&l->uv, &l->prepare);
	uv_check_init(&l->uv, &l->check);
	uv_timer_init(&l->uv, &l->alarm);
	uv_prepare_start(&l->prepare, loop_on_prepare);
	uv_check_start(&l->check, loop_on_check);
	timer_init(&l->trim, loop_on_trim);
	timer_start(&l->wheel, &l->trim, TRIM_INTERVAL_MS);
	return uv_async_init(&l->uv, &l->doorbell, loop_on_doorbell);
}

void loop_run(struct loop *l) {
	uv_run(&l->uv, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *l) {
	uv_stop(&l->uv);
}

void loop_deinit(struct loop *l) {
	timer_stop(&l->trim);
	uv_prepare_stop(&l->prepare);
	uv_check_stop(&l->check);
	uv_close((uv_handle_t *)&l->prepare, NULL);
	uv_close((uv_handle_t *)&l->check, NULL);
	uv_close((uv_handle_t *)&l->alarm, NULL);
	uv_close((uv_handle_t *)&l->doorbell, NULL);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	int r = uv_loop_close(&l->uv);
	assert(r == 0);
	slab_deinit(&l->outs);
	buf_pool_deinit(&l->bufs);
	free(l->read_buf);
	free(l->scratch);
}

uint64_t loop_take_lag(struct loop *l) {
	uint64_t worst_ns = l->worst_turn_ns;
	l->worst_turn_ns = 0;
	return worst_ns;
}
