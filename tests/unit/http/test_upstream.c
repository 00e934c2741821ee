#include "unit/fleet/scene.h"
#include "unit/net/rig.h"

#include "http/upstream.h"

enum { N_FAR_MAX = 4 };

/* A pool, an instance, and the engine's ends of the connections to it. */
struct scene {
	struct rig rig;
	struct upstream_pool pool;
	struct instance *instance;
	struct sockaddr_storage address;
	struct job job;
	unsigned n_wakes;
	int listening, far[N_FAR_MAX];
	unsigned n_far;
};

static void on_event(struct job *job) {
	container_of(job, struct scene, job)->n_wakes++;
}

static struct scene *scene_open(uint64_t idle_ms) {
	struct scene *s = calloc(1, sizeof(*s));
	uint16_t port;
	rig_open(&s->rig);
	upstream_pool_init(&s->pool, &s->rig.loop, idle_ms);
	s->instance = scene_instance("one");
	s->listening = rig_listen(&port);
	s->address = rig_loopback(port);
	job_init(&s->job, on_event);
	return s;
}

/* Every reference on the instance is back, and every connection. */
static void scene_close(struct scene *s) {
	upstream_pool_close_idle(&s->pool);
	rig_spin(&s->rig, 3);
	assert_int_equal(s->instance->refs, 1);
	rig_close(&s->rig);
	upstream_pool_deinit(&s->pool);
	instance_unref(&s->instance);
	for (unsigned i = 0; i < s->n_far; i++)
		close(s->far[i]);
	close(s->listening);
	free(s);
}

/* A new connection, with its far end. */
static struct upstream *connected(struct scene *s) {
	struct upstream *up;
	assert_int_equal(upstream_connect(&s->pool, s->instance, &s->address, &s->job, &up), 0);
	rig_until(&s->rig, up->conn.state == CONN_OPEN);
	assert_true(s->n_far < N_FAR_MAX);
	rig_until(&s->rig, (s->far[s->n_far] = accept4(s->listening, NULL, NULL, SOCK_CLOEXEC)) >= 0);
	s->n_far++;
	return up;
}

static void send_text(struct upstream *up, struct slice text) {
	struct piece piece = { text.p, text.n, NULL };
	assert_int_equal(conn_send(&up->conn, &piece, 1), 0);
}

static void a_connection_is_used_again(void **state) {
	struct scene *s = scene_open(60000);
	assert_null(upstream_get(&s->pool, s->instance, &s->job));
	struct upstream *up = connected(s), *first = up;
	assert_false(up->is_reused);
	assert_int_equal(s->instance->refs, 2);
	assert_int_equal(s->pool.n_lent, 1);
	send_text(up, SLICE("request"));
	upstream_put(&up);
	assert_null(up);
	assert_int_equal(s->pool.n_lent, 0);
	assert_int_equal(s->pool.n_idle, 1);

	up = upstream_get(&s->pool, s->instance, &s->job);
	assert_ptr_equal(up, first);
	assert_true(up->is_reused);
	assert_int_equal(up->sent_before, 7);
	assert_int_equal(s->pool.n_idle, 0);
	assert_null(upstream_get(&s->pool, s->instance, &s->job));
	unsigned n_wakes = s->n_wakes;
	rig_say(s->far[0], SLICE("answer"));
	rig_until(&s->rig, s->n_wakes > n_wakes); /* its events are ours again */
	upstream_close(&up);
	assert_null(up);
	upstream_close(&up);
	assert_int_equal(s->pool.n_lent, 0);
	scene_close(s);
}

static void the_last_one_back_goes_first(void **state) {
	struct scene *s = scene_open(60000);
	struct upstream *a = connected(s), *b = connected(s), *c = connected(s);
	struct upstream *order[] = { b, c, a };
	upstream_put(&a);
	upstream_put(&c);
	upstream_put(&b);
	for (size_t i = 0; i < 3; i++) {
		struct upstream *up = upstream_get(&s->pool, s->instance, &s->job);
		assert_ptr_equal(up, order[i]);
		upstream_close(&up);
	}
	scene_close(s);
}

static void each_instance_has_its_own(void **state) {
	struct scene *s = scene_open(60000);
	struct instance *other = scene_instance("two");
	struct upstream *up = connected(s);
	upstream_put(&up);
	assert_null(upstream_get(&s->pool, other, &s->job));
	up = upstream_get(&s->pool, s->instance, &s->job);
	assert_non_null(up);
	upstream_close(&up);
	instance_unref(&other);
	scene_close(s);
}

static void all_idle_ones_can_be_closed(void **state) {
	struct scene *s = scene_open(60000);
	struct upstream *a = connected(s), *b = connected(s), *lent = connected(s);
	char c;
	upstream_put(&a);
	upstream_put(&b);
	upstream_pool_close_idle(&s->pool);
	assert_int_equal(s->pool.n_idle, 0);
	assert_int_equal(recv(s->far[0], &c, 1, 0), 0);
	assert_int_equal(recv(s->far[1], &c, 1, 0), 0);
	assert_int_equal(lent->conn.state, CONN_OPEN);
	upstream_close(&lent);
	scene_close(s);
}

/* The engine closes it, or speaks out of turn: that ends it. */
static void an_event_ends_an_idle_one(void **state) {
	for (unsigned speaks = 0; speaks < 2; speaks++) {
		struct scene *s = scene_open(60000);
		struct upstream *up = connected(s);
		upstream_put(&up);
		if (speaks)
			rig_say(s->far[0], SLICE("HTTP/1.1 408 Request Timeout\r\n\r\n"));
		else
			shutdown(s->far[0], SHUT_WR);
		rig_until(&s->rig, s->pool.n_idle == 0);
		assert_null(upstream_get(&s->pool, s->instance, &s->job));
		rig_spin(&s->rig, 2);
		assert_int_equal(s->instance->refs, 1);
		scene_close(s);
	}
}

/* What the events of this turn have ended already is not handed out by a job that runs before. */
static void a_recorded_event_is_enough(void **state) {
	struct scene *s = scene_open(60000);
	struct upstream *up = connected(s), *good = connected(s), *bad = up;
	upstream_put(&good);
	upstream_put(&up);
	loop_wake(&s->rig.loop, &bad->idle_job);
	up = upstream_get(&s->pool, s->instance, &s->job);
	assert_non_null(up);
	assert_ptr_not_equal(up, bad);
	upstream_close(&up);
	assert_null(upstream_get(&s->pool, s->instance, &s->job));
	rig_until(&s->rig, s->pool.n_idle == 0);
	scene_close(s);
}

static void idle_ones_end_in_time(void **state) {
	struct scene *s = scene_open(10);
	struct upstream *up = connected(s);
	upstream_put(&up);
	assert_int_equal(s->pool.n_idle, 1);
	rig_until(&s->rig, s->pool.n_idle == 0);
	char c;
	assert_int_equal(recv(s->far[0], &c, 1, 0), 0);

	up = connected(s);
	upstream_put(&up);
	up = upstream_get(&s->pool, s->instance, &s->job);
	rig_until(&s->rig, !timer_is_running(&up->idle_timer)); /* its time passes while it is lent */
	assert_int_equal(up->conn.state, CONN_OPEN);
	upstream_close(&up);
	scene_close(s);
}

static void what_is_not_clean_is_not_kept(void **state) {
	struct scene *s = scene_open(60000);
	struct upstream *up = connected(s);
	rig_say(s->far[0], SLICE("more than the answer"));
	rig_until(&s->rig, up->conn.can_read);
	assert_int_equal(conn_fill(&up->conn, 100), 0);
	upstream_put(&up);
	assert_int_equal(s->pool.n_idle, 0);

	up = connected(s);
	shutdown(s->far[1], SHUT_WR);
	rig_until(&s->rig, up->conn.peer_closed);
	upstream_put(&up);
	assert_int_equal(s->pool.n_idle, 0);
	assert_int_equal(s->pool.n_lent, 0);
	scene_close(s);
}

/* Bytes behind the answer that are still in the socket would be the next request's answer. */
static void what_may_have_more_is_not_kept(void **state) {
	struct scene *s = scene_open(60000);
	struct upstream *up = connected(s);
	rig_say(s->far[0], SLICE("answer|HTTP/1.1 200 OK\r\n\r\nfor somebody else"));
	rig_until(&s->rig, up->conn.can_read);
	assert_int_equal(conn_fill(&up->conn, 7), 0); /* a read that was filled to its limit */
	conn_consume(&up->conn, 7);
	upstream_put(&up);
	up = upstream_get(&s->pool, s->instance, &s->job); /* within the same turn */
	bool is_handed_out = up;
	upstream_close(&up);
	scene_close(s);
	assert_false(is_handed_out);
}

static void without_a_pool_nothing_is_kept(void **state) {
	struct scene *s = scene_open(0);
	struct upstream *up = connected(s);
	upstream_put(&up);
	assert_int_equal(s->pool.n_idle, 0);
	scene_close(s);
}

static void a_connect_that_fails_is_told(void **state) {
	struct scene *s = scene_open(60000);
	struct sockaddr_storage nowhere = { .ss_family = AF_UNSPEC };
	struct upstream *up = NULL;
	assert_true(upstream_connect(&s->pool, s->instance, &nowhere, &s->job, &up) < 0);
	assert_null(up);
	assert_int_equal(s->pool.n_lent, 0);
	assert_int_equal(s->instance->refs, 1);
	scene_close(s);
}

/* An engine that closed while the request was on its way has seen nothing of it. */
static void unsent_is_what_was_not_acknowledged(void **state) {
	struct scene *s = scene_open(60000);
	struct upstream *up = connected(s);
	char text[20];
	send_text(up, SLICE("request"));
	for (ssize_t n = 0; n < 7;)
		n += recv(s->far[0], text, sizeof(text), 0);
	rig_say(s->far[0], SLICE("answer"));
	rig_until(&s->rig, up->conn.can_read);
	assert_int_equal(conn_fill(&up->conn, 100), 0); /* and with it came the acknowledgement */
	conn_consume(&up->conn, 6);
	assert_false(upstream_is_unsent(up));
	upstream_put(&up);
	up = upstream_get(&s->pool, s->instance, &s->job);
	assert_true(upstream_is_unsent(up));
	close(s->far[0]);
	send_text(up, SLICE("again"));
	rig_until(&s->rig, up->conn.peer_closed);
	assert_true(upstream_is_unsent(up));
	upstream_close(&up);
	s->far[0] = dup(s->listening);
	scene_close(s);
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_connection_is_used_again),
		cmocka_unit_test(the_last_one_back_goes_first),
		cmocka_unit_test(each_instance_has_its_own),
		cmocka_unit_test(all_idle_ones_can_be_closed),
		cmocka_unit_test(an_event_ends_an_idle_one),
		cmocka_unit_test(a_recorded_event_is_enough),
		cmocka_unit_test(idle_ones_end_in_time),
		cmocka_unit_test(what_is_not_clean_is_not_kept),
		cmocka_unit_test(what_may_have_more_is_not_kept),
		cmocka_unit_test(without_a_pool_nothing_is_kept),
		cmocka_unit_test(a_connect_that_fails_is_told),
		cmocka_unit_test(unsent_is_what_was_not_acknowledged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
