#include "unit/net/rig.h"

#include <pthread.h>

static uint64_t fake_ns;

static uint64_t fake_source(void) {
	return fake_ns;
}

/* --- jobs and timers, without events ------------------------------------------------ */

static struct loop *at_work;
static char journal[100];

static void note(char c) {
	size_t n = strlen(journal);
	assert_true(n + 1 < sizeof(journal));
	journal[n] = c;
	journal[n + 1] = '\0';
}

struct letter {
	struct job job;
	struct timer timer;
	struct mail mail;
	struct letter *wakes; /* once */
	char name;
};

static void letter_run(struct job *j) {
	struct letter *x = container_of(j, struct letter, job);
	note(x->name);
	if (x->wakes)
		loop_wake(at_work, &x->wakes->job);
	x->wakes = NULL;
}

static void letter_expired(struct timer *t) {
	struct letter *x = container_of(t, struct letter, timer);
	note((char)(x->name + 'A' - 'a'));
	loop_wake(at_work, &x->job);
}

static void letters_init(struct loop *l, struct letter *letters, size_t n) {
	at_work = l;
	journal[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		letters[i] = (struct letter){ .name = (char)('a' + i) };
		job_init(&letters[i].job, letter_run);
		timer_init(&letters[i].timer, letter_expired);
	}
}

static void jobs_run_once_in_the_order_of_waking(void **state) {
	struct letter x[3];
	struct rig r;
	rig_open(&r);
	letters_init(&r.loop, x, 3);

	loop_wake(&r.loop, &x[1].job);
	loop_wake(&r.loop, &x[0].job);
	loop_wake(&r.loop, &x[1].job);
	loop_wake(&r.loop, &x[2].job);
	job_cancel(&x[0].job);
	loop_turn(&r.loop);
	assert_string_equal(journal, "bc");
	loop_turn(&r.loop);
	assert_string_equal(journal, "bc");
	rig_close(&r);
}

static void a_job_woken_by_a_job_waits_for_the_next_round(void **state) {
	struct letter x[3];
	struct rig r;
	rig_open(&r);
	letters_init(&r.loop, x, 3);

	x[0].wakes = &x[0]; /* itself: after those that wait already */
	x[1].wakes = &x[2];
	loop_wake(&r.loop, &x[0].job);
	loop_wake(&r.loop, &x[1].job);
	loop_turn(&r.loop);
	assert_string_equal(journal, "ab");
	loop_turn(&r.loop);
	assert_string_equal(journal, "abac");
	rig_close(&r);
}

static void timers_come_before_jobs(void **state) {
	struct letter x[2];
	struct rig r;
	fake_ns = 5000000000;
	clock_set_source(fake_source);
	rig_open(&r);
	letters_init(&r.loop, x, 2);

	loop_timer(&r.loop, &x[1].timer, 10);
	loop_wake(&r.loop, &x[0].job);
	fake_ns += 9999999;
	loop_turn(&r.loop);
	assert_string_equal(journal, "a");
	assert_int_equal(loop_now_ms(&r.loop), 5009);
	loop_wake(&r.loop, &x[0].job);
	fake_ns += 1;
	loop_turn(&r.loop);
	assert_string_equal(journal, "aBab");
	rig_close(&r);
	clock_set_source(NULL);
}

static void start_timer(struct mail *m) {
	loop_timer(at_work, &container_of(m, struct letter, mail)->timer, 1000);
}

/* The loop slept for long; a delay that begins with the event that woke it begins now. */
static void a_delay_begins_when_it_is_asked_for(void **state) {
	struct letter x[1];
	struct rig r;
	fake_ns = 5000000000;
	clock_set_source(fake_source);
	rig_open(&r);
	letters_init(&r.loop, x, 1);

	fake_ns += 4000000000;
	loop_post(&r.loop, &x[0].mail, start_timer);
	rig_until(&r, timer_is_running(&x[0].timer) || journal[0]);
	bool is_early = journal[0];
	fake_ns += 999000000;
	loop_turn(&r.loop);
	is_early |= journal[0];
	fake_ns += 1000000;
	loop_turn(&r.loop);
	rig_close(&r);
	clock_set_source(NULL);
	assert_false(is_early);
	assert_string_equal(journal, "Aa");
}

static void slow_turns_are_counted(void **state) {
	struct rig r;
	fake_ns = 5000000000;
	clock_set_source(fake_source);
	rig_open(&r);
	rig_spin(&r, 1);
	loop_turn(&r.loop);
	fake_ns += 5000001;
	rig_spin(&r, 1);
	assert_int_equal(r.loop.n_slow_turns, 1);
	assert_int_equal(loop_take_lag(&r.loop), 5000001);
	assert_int_equal(loop_take_lag(&r.loop), 0);
	fake_ns += 5000000;
	rig_spin(&r, 1);
	assert_int_equal(r.loop.n_slow_turns, 1);
	rig_close(&r);
	clock_set_source(NULL);
}

/* --- the real thing ------------------------------------------------------------------ */

struct restless {
	struct job job;
	struct letter *other;
	unsigned n_runs;
};

/* Wakes itself for ever; its first run posts a letter by mail, which comes as an event. */
static void restless_run(struct job *j) {
	struct restless *x = container_of(j, struct restless, job);
	loop_wake(at_work, j);
	if (x->n_runs++ == 0)
		loop_post(at_work, &x->other->mail, start_timer);
}

static void a_job_that_wakes_itself_does_not_keep_events_away(void **state) {
	struct letter x[1];
	struct restless restless = { .other = &x[0] };
	struct rig r;
	rig_open(&r);
	letters_init(&r.loop, x, 1);
	job_init(&restless.job, restless_run);
	loop_wake(&r.loop, &restless.job);
	rig_until(&r, timer_is_running(&x[0].timer));
	assert_in_range(restless.n_runs, 1, 1000);
	job_cancel(&restless.job);
	timer_stop(&x[0].timer);
	rig_close(&r);
}

static void timers_wake_a_sleeping_loop(void **state) {
	struct letter x[3];
	struct rig r;
	rig_open(&r);
	letters_init(&r.loop, x, 3);
	uint64_t begin_ns = clock_now_ns();
	loop_timer(&r.loop, &x[1].timer, 30);
	loop_timer(&r.loop, &x[0].timer, 10);
	loop_timer(&r.loop, &x[2].timer, 20);
	while (strlen(journal) < 6)
		uv_run(&r.loop.uv, UV_RUN_ONCE); /* sleeps until it is woken */
	/* A machine that stalls may let several expire in one turn, before their jobs. */
	assert_true(
	    strchr(journal, 'A') < strchr(journal, 'C') && strchr(journal, 'C') < strchr(journal, 'B'));
	assert_true(clock_now_ns() - begin_ns >= 29000000); /* never early, but for the first millisecond */
	rig_close(&r);
}

static void stop_from_mail(struct mail *m) {
	loop_stop(at_work);
	note('s');
	loop_wake(at_work, &container_of(m, struct letter, mail)->job);
}

static void a_stop_lets_the_turn_end(void **state) {
	struct letter x[1];
	struct rig r;
	rig_open(&r);
	letters_init(&r.loop, x, 1);
	loop_post(&r.loop, &x[0].mail, stop_from_mail);
	loop_run(&r.loop);
	assert_string_equal(journal, "sa");
	rig_close(&r);
}

static int sleeps_after_stop_ms;

static void stop_from_job(struct job *j) {
	loop_stop(at_work);
	sleeps_after_stop_ms = uv_backend_timeout(&at_work->uv);
}

static void wake_on_close(uv_handle_t *handle) {
	loop_wake(at_work, handle->data);
}

/* A job that the last callbacks of a turn have woken may stop the loop, too: it must not sleep first. */
static void a_stop_between_turns_is_a_stop(void **state) {
	struct letter x[1];
	struct job stop;
	uv_timer_t handle;
	struct rig r;
	rig_open(&r);
	letters_init(&r.loop, x, 1);
	job_init(&stop, stop_from_job);
	uv_timer_init(&r.loop.uv, &handle);
	handle.data = &stop;
	uv_close((uv_handle_t *)&handle, wake_on_close);
	loop_timer(&r.loop, &x[0].timer, 100);
	loop_run(&r.loop);
	timer_stop(&x[0].timer);
	rig_close(&r);
	assert_int_equal(sleeps_after_stop_ms, 0);
}

/* --- mail ----------------------------------------------------------------------------- */

enum { N_SENDERS = 4, N_LETTERS = 5000 };

struct note {
	struct mail mail;
	unsigned sender, number;
};

static struct sender {
	pthread_t thread;
	struct loop *loop;
	struct note notes[N_LETTERS];
	unsigned n_delivered;
} senders[N_SENDERS];

static unsigned n_out_of_order;

static void note_arrived(struct mail *m) {
	struct note *n = container_of(m, struct note, mail);
	struct sender *s = &senders[n->sender];
	n_out_of_order += n->number != s->n_delivered++;
}

static void *sender_main(void *arg) {
	struct sender *s = arg;
	for (unsigned i = 0; i < N_LETTERS; i++) {
		s->notes[i].sender = (unsigned)(s - senders);
		s->notes[i].number = i;
		loop_post(s->loop, &s->notes[i].mail, note_arrived);
	}
	return NULL;
}

static bool all_delivered(void) {
	for (unsigned i = 0; i < N_SENDERS; i++)
		if (senders[i].n_delivered < N_LETTERS)
			return false;
	return true;
}

static void mail_of_each_thread_comes_in_order(void **state) {
	struct rig r;
	rig_open(&r);
	for (unsigned i = 0; i < N_SENDERS; i++) {
		senders[i].loop = &r.loop;
		pthread_create(&senders[i].thread, NULL, sender_main, &senders[i]);
	}
	rig_until(&r, all_delivered());
	for (unsigned i = 0; i < N_SENDERS; i++)
		pthread_join(senders[i].thread, NULL);
	rig_spin(&r, 2);
	for (unsigned i = 0; i < N_SENDERS; i++)
		assert_int_equal(senders[i].n_delivered, N_LETTERS);
	assert_int_equal(n_out_of_order, 0);
	rig_close(&r);
}

struct errand {
	struct mail mail;
	struct loop *loop;
	unsigned n_left;
};

static void errand_arrived(struct mail *m) {
	struct errand *e = container_of(m, struct errand, mail);
	if (e->n_left--)
		loop_post(e->loop, &e->mail, errand_arrived);
}

static void mail_that_is_left_is_delivered(void **state) {
	struct rig r;
	rig_open(&r);
	struct errand e[2] = { { .loop = &r.loop, .n_left = 3 }, { .loop = &r.loop } };
	for (unsigned i = 0; i < 2; i++)
		loop_post(&r.loop, &e[i].mail, errand_arrived);
	loop_deliver(&r.loop);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(e[i].n_left, UINT_MAX);
	loop_deliver(&r.loop);
	rig_close(&r);
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jobs_run_once_in_the_order_of_waking),
		cmocka_unit_test(a_job_woken_by_a_job_waits_for_the_next_round),
		cmocka_unit_test(timers_come_before_jobs),
		cmocka_unit_test(a_delay_begins_when_it_is_asked_for),
		cmocka_unit_test(slow_turns_are_counted),
		cmocka_unit_test(a_job_that_wakes_itself_does_not_keep_events_away),
		cmocka_unit_test(timers_wake_a_sleeping_loop),
		cmocka_unit_test(a_stop_lets_the_turn_end),
		cmocka_unit_test(a_stop_between_turns_is_a_stop),
		cmocka_unit_test(mail_of_each_thread_comes_in_order),
		cmocka_unit_test(mail_that_is_left_is_delivered),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
