#include "unit/net/rig.h"

#include "net/fd_event.h"

struct post {
	struct job job;
	struct fd_event event;
	int fd;
	unsigned n_runs, n_bytes;
	bool is_ended, reads;
};

static void post_run(struct job *j) {
	struct post *p = container_of(j, struct post, job);
	char c;
	p->n_runs++;
	if (!p->reads)
		return;
	ssize_t n = read(p->fd, &c, 1);
	p->n_bytes += n > 0;
	if (n == 0) {
		p->is_ended = true;
		fd_event_stop(&p->event);
	}
}

static int post_open(struct post *p, struct rig *r) {
	int fds[2];
	assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
	*p = (struct post){ .fd = fds[0], .reads = true };
	job_init(&p->job, post_run);
	assert_int_equal(fd_event_open(&p->event, &r->loop, p->fd, &p->job), 0);
	return fds[1];
}

static void bytes_and_the_end_wake_the_job(void **state) {
	struct rig r;
	struct post p;
	rig_open(&r);
	int far = post_open(&p, &r);
	rig_spin(&r, 3);
	assert_int_equal(p.n_runs, 0);
	assert_int_equal(write(far, "abc", 3), 3);
	rig_until(&r, p.n_bytes == 3); /* one a turn: it is told as long as there is something */
	close(far);
	rig_until(&r, p.is_ended);
	fd_event_close(&p.event);
	close(p.fd);
	rig_close(&r);
}

static void who_stopped_is_not_woken(void **state) {
	struct rig r;
	struct post p;
	rig_open(&r);
	int far = post_open(&p, &r);
	fd_event_stop(&p.event);
	assert_int_equal(write(far, "a", 1), 1);
	rig_spin(&r, 5);
	assert_int_equal(p.n_runs, 0);
	fd_event_start(&p.event);
	rig_until(&r, p.n_bytes == 1);
	fd_event_close(&p.event);
	close(p.fd);
	close(far);
	rig_close(&r);
}

/* The number of a descriptor that was closed at once may be watched again in the same turn. */
static void closed_and_opened_in_one_turn(void **state) {
	struct rig r;
	struct post p, q;
	rig_open(&r);
	int far = post_open(&p, &r);
	assert_int_equal(write(far, "a", 1), 1);
	fd_event_close(&p.event);
	fd_event_close(&p.event);
	close(p.fd);
	close(far);
	memset(&p, 0xee, sizeof(p)); /* nobody looks at it any more */
	far = post_open(&q, &r);
	assert_int_equal(write(far, "b", 1), 1);
	rig_until(&r, q.n_bytes == 1);
	fd_event_close(&q.event);
	close(q.fd);
	close(far);
	rig_close(&r);
}

static void a_regular_file_cannot_be_polled(void **state) {
	struct rig r;
	struct job job;
	struct fd_event e;
	rig_open(&r);
	job_init(&job, post_run);
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert_true(fd_event_open(&e, &r.loop, fd, &job) < 0);
	fd_event_close(&e);
	close(fd);
	rig_close(&r);
}

static void one_that_was_never_opened(void **state) {
	struct fd_event e = { .handle = NULL };
	fd_event_stop(&e);
	fd_event_start(&e);
	fd_event_close(&e);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_and_the_end_wake_the_job),
		cmocka_unit_test(who_stopped_is_not_woken),
		cmocka_unit_test(closed_and_opened_in_one_turn),
		cmocka_unit_test(a_regular_file_cannot_be_polled),
		cmocka_unit_test(one_that_was_never_opened),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
