#include "unit/net/rig.h"

#include <sys/resource.h>

enum { N_CLIENTS_MAX = 16 };

/* A listener and what came through it. */
struct door {
	struct rig rig;
	struct listener listener;
	struct client_budget budget;
	uint16_t port;
	int fds[N_CLIENTS_MAX];
	struct sockaddr_storage peers[N_CLIENTS_MAX];
	unsigned n, n_full;
	struct job full;
};

static void on_full(struct job *job) {
	container_of(job, struct door, full)->n_full++;
}

static void on_accept(struct listener *l, int fd, const struct sockaddr_storage *peer) {
	struct door *d = container_of(l, struct door, listener);
	assert_true(d->n < N_CLIENTS_MAX);
	d->peers[d->n] = *peer;
	d->fds[d->n++] = fd;
}

/* n_max 0: no budget. */
static void door_open(struct door *d, uint32_t n_max) {
	*d = (struct door){ .budget = { .n_max = n_max } };
	rig_open(&d->rig);
	int fd = rig_listen(&d->port);
	assert_int_equal(
	    listener_open(&d->listener, &d->rig.loop, fd, n_max ? &d->budget : NULL, on_accept), 0);
}

static void door_close(struct door *d) {
	listener_close(&d->listener);
	listener_close(&d->listener);
	for (unsigned i = 0; i < d->n; i++)
		close(d->fds[i]);
	rig_close(&d->rig);
}

static void clients_come_in(void **state) {
	struct door d;
	door_open(&d, 0);
	int client = rig_connect(d.port);
	struct sockaddr_in from;
	socklen_t n = sizeof(from);
	getsockname(client, (struct sockaddr *)&from, &n);
	rig_until(&d.rig, d.n == 1);
	assert_int_equal(((struct sockaddr_in *)&d.peers[0])->sin_port, from.sin_port);
	assert_true(fcntl(d.fds[0], F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(d.fds[0], F_GETFD) & FD_CLOEXEC);
	rig_assert_keep_alive(d.fds[0]);
	rig_say(client, SLICE("x"));
	door_close(&d);
	close(client);
}

static void a_port_is_taken_once(void **state) {
	struct sockaddr_storage at = rig_loopback(0);
	uint16_t port;
	int first = rig_listen(&port);
	assert_true(port > 0);
	((struct sockaddr_in *)&at)->sin_port = htons(port);
	assert_int_equal(listener_bind((struct sockaddr *)&at, false), -EADDRINUSE);
	assert_int_equal(listener_bind((struct sockaddr *)&at, true), -EADDRINUSE);
	close(first);

	at = rig_loopback(0);
	first = listener_bind((struct sockaddr *)&at, true);
	((struct sockaddr_in *)&at)->sin_port = htons(listener_port(first));
	int second = listener_bind((struct sockaddr *)&at, true);
	assert_true(first >= 0 && second >= 0);
	assert_int_equal(listener_port(first), listener_port(second));
	close(first);
	close(second);
	assert_int_equal(listener_port(-1), 0);
	at.ss_family = AF_UNSPEC;
	assert_int_equal(listener_bind((struct sockaddr *)&at, false), -EAFNOSUPPORT);
}

static void ipv6_has_ports_too(void **state) {
	struct sockaddr_in6 at = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int fd = listener_bind((struct sockaddr *)&at, false);
	if (fd == -EADDRNOTAVAIL || fd == -EAFNOSUPPORT)
		return; /* a machine without IPv6 */
	assert_true(fd >= 0);
	assert_true(listener_port(fd) > 0);
	close(fd);
}

static void who_finds_no_place_waits(void **state) {
	struct door d;
	int clients[3];
	door_open(&d, 2);
	job_init(&d.full, on_full);
	d.listener.full = &d.full;
	for (unsigned i = 0; i < 2; i++)
		clients[i] = rig_connect(d.port);
	rig_until(&d.rig, d.n == 2);
	rig_spin(&d.rig, 5);
	assert_false(d.listener.is_paused);
	assert_int_equal(d.n_full, 0); /* all are taken, but nobody waits */
	clients[2] = rig_connect(d.port);
	rig_until(&d.rig, d.listener.is_paused && d.n_full == 1);
	assert_int_equal(d.n, 2);
	assert_int_equal(d.budget.n_open, 2);
	rig_spin(&d.rig, 5);
	assert_int_equal(d.n, 2);

	listener_client_gone(&d.listener);
	assert_int_equal(d.budget.n_open, 1);
	rig_until(&d.rig, d.n == 3);
	assert_int_equal(d.budget.n_open, 2);
	for (unsigned i = 0; i < 3; i++)
		close(clients[i]);
	door_close(&d);
}

/* The place is given back on another thread, which tells nobody: the listener looks again by itself. */
static void a_place_elsewhere_is_found(void **state) {
	struct door d;
	door_open(&d, 1);
	d.budget.n_open = 1;
	int client = rig_connect(d.port);
	rig_until(&d.rig, d.listener.is_paused);
	assert_int_equal(d.n, 0);
	atomic_fetch_sub(&d.budget.n_open, 1);
	rig_until(&d.rig, d.n == 1);
	assert_int_equal(d.budget.n_open, 1);
	close(client);
	door_close(&d);
}

static void without_descriptors_it_waits(void **state) {
	struct rlimit old, none;
	struct door d;
	door_open(&d, 8);
	int client = rig_connect(d.port), free_fd = dup(0);
	close(free_fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ (rlim_t)free_fd, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	rig_until(&d.rig, d.listener.is_paused);
	assert_int_equal(d.n, 0);
	assert_int_equal(d.budget.n_open, 0);
	rig_spin(&d.rig, 5);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	rig_until(&d.rig, d.n == 1);
	assert_int_equal(d.budget.n_open, 1);
	close(client);
	door_close(&d);
}

/* Who was let in by the kernel would be reset by the close. */
static void a_close_takes_the_queue_first(void **state) {
	struct door d;
	int clients[5];
	door_open(&d, 8);
	for (unsigned i = 0; i < 5; i++)
		clients[i] = rig_connect(d.port);
	listener_close(&d.listener);
	assert_int_equal(d.n, 5);
	assert_int_equal(d.budget.n_open, 5);
	listener_client_gone(&d.listener); /* must not open it again */
	assert_int_equal(d.budget.n_open, 4);
	assert_false(timer_is_running(&d.listener.retry));
	struct sockaddr_storage at = rig_loopback(d.port);
	int late = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(late, (struct sockaddr *)&at, sizeof(struct sockaddr_in)), -1);
	close(late);
	for (unsigned i = 0; i < 5; i++)
		close(clients[i]);
	door_close(&d);
}

static void a_full_house_can_be_closed(void **state) {
	struct door d;
	door_open(&d, 1);
	int clients[2] = { rig_connect(d.port), rig_connect(d.port) };
	listener_close(&d.listener);
	assert_int_equal(d.n, 2); /* closing would reset the one that waits: it is taken beyond the budget */
	assert_false(timer_is_running(&d.listener.retry));
	close(clients[0]);
	close(clients[1]);
	door_close(&d);
}

static void a_socket_is_where_it_is(void **state) {
	uint16_t port;
	int fd = rig_listen(&port), plain = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_storage at = rig_loopback(0);
	assert_true(listener_is_at_host(fd, "127.0.0.1", port));
	assert_false(listener_is_at_host(fd, "127.0.0.1", (uint16_t)(port + 1)));
	assert_false(listener_is_at_host(fd, "127.0.0.2", port));
	assert_false(listener_is_at_host(fd, "::1", port));
	assert_false(listener_is_at_host(fd, "no.such.host.invalid", port));
	assert_int_equal(bind(plain, (struct sockaddr *)&at, sizeof(struct sockaddr_in)), 0);
	assert_false(listener_is_at_host(plain, "127.0.0.1", listener_port(plain))); /* it does not listen */
	assert_false(listener_is_at_host(STDIN_FILENO, "127.0.0.1", port));
	close(plain);
	close(fd);
}

static void ipv6_sockets_are_where_they_are(void **state) {
	int fd = listener_bind_host("::1", 0, true);
	if (fd < 0)
		skip(); /* no IPv6 here */
	assert_true(listener_is_at_host(fd, "::1", listener_port(fd)));
	assert_false(listener_is_at_host(fd, "::", listener_port(fd)));
	close(fd);
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clients_come_in),
		cmocka_unit_test(a_port_is_taken_once),
		cmocka_unit_test(ipv6_has_ports_too),
		cmocka_unit_test(who_finds_no_place_waits),
		cmocka_unit_test(a_place_elsewhere_is_found),
		cmocka_unit_test(without_descriptors_it_waits),
		cmocka_unit_test(a_close_takes_the_queue_first),
		cmocka_unit_test(a_full_house_can_be_closed),
		cmocka_unit_test(a_socket_is_where_it_is),
		cmocka_unit_test(ipv6_sockets_are_where_they_are),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
