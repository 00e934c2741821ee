/* What TLS changes for the owner of a conn; what stays is test_conn's. */
#include "unit/net/rig.h"

#include "unit/net/certs.h"

/* Our end, and the far one: a session by hand on the other socket. */
struct pair {
	struct rig rig;
	struct certs certs;
	const struct cert *ca, *a;
	struct tls_server *server;
	struct tls_client *client;
	struct conn conn;
	struct job job;
	struct tls *far;
	int far_fd;
	unsigned n_wakes, n_closed;
};

static void pair_run(struct job *job) {
	container_of(job, struct pair, job)->n_wakes++;
}

static void pair_on_closed(struct conn *c) {
	container_of(c, struct pair, conn)->n_closed++;
}

static void pair_open(struct pair *p) {
	char why[TLS_WHY_BYTES];
	*p = (struct pair){ .far_fd = -1 };
	rig_open(&p->rig);
	certs_open(&p->certs);
	p->ca = certs_make(&p->certs, "ca", NULL, NULL);
	p->a = certs_make(&p->certs, "a", "DNS:a.example", p->ca);
	const struct tls_files files = { p->a->path, p->a->path };
	p->server = tls_server_new(
	    &(struct tls_server_files){ .certificates = &files, .n = 1, .client_ca = "" }, why);
	p->client =
	    tls_client_new(&(struct tls_client_files){ .ca = p->ca->path, .certificate = { "", "" } }, why);
	assert_non_null(p->server);
	assert_non_null(p->client);
	job_init(&p->job, pair_run);
}

/* A client has come. */
static void pair_accept(struct pair *p) {
	int near;
	rig_pair(&near, &p->far_fd);
	p->far = tls_connect(p->client, "a.example");
	tls_bind(p->far, p->far_fd);
	assert_int_equal(conn_open(&p->conn, &p->rig.loop, near, &p->job, pair_on_closed), 0);
	conn_secure(&p->conn, tls_accept(p->server));
	assert_int_equal(p->conn.state, CONN_CONNECTING);
}

/* We go to a server. */
static void pair_connect(struct pair *p, const char *host) {
	uint16_t port;
	int listening = rig_listen(&port);
	struct sockaddr_storage at = rig_loopback(port);
	assert_int_equal(
	    conn_connect(&p->conn, &p->rig.loop, (struct sockaddr *)&at, &p->job, pair_on_closed), 0);
	conn_secure(&p->conn, tls_connect(p->client, host));
	p->far_fd = rig_accept(listening);
	close(listening);
	p->far = tls_accept(p->server);
	tls_bind(p->far, p->far_fd);
}

static bool is_shaken(struct pair *p) {
	int r = tls_is_shaking(p->far) || p->conn.state == CONN_CONNECTING ? tls_shake(p->far) : 0;
	assert_true(r <= TLS_E_AGAIN);
	return r == 0 && p->conn.state == CONN_OPEN;
}

static void pair_accept_open(struct pair *p) {
	pair_open(p);
	pair_accept(p);
	rig_until(&p->rig, is_shaken(p));
}

static void far_leaves(struct pair *p) {
	tls_free(&p->far);
	close(p->far_fd);
	p->far_fd = -1;
}

static void pair_close(struct pair *p) {
	conn_close(&p->conn);
	rig_until(&p->rig, p->n_closed);
	tls_free(&p->far);
	if (p->far_fd >= 0)
		close(p->far_fd);
	tls_server_unref(&p->server);
	tls_client_unref(&p->client);
	certs_close(&p->certs);
	rig_close(&p->rig);
}

static void far_says(struct pair *p, const char *text) {
	struct iovec piece = { (char *)text, strlen(text) };
	size_t n;
	assert_int_equal(tls_write(p->far, &piece, 1, &n), 0);
	assert_int_equal(n, piece.iov_len);
}

/* What the far end has heard by now, behind what it had. */
static bool far_hears(struct pair *p, char *room, size_t size, size_t *used) {
	size_t n = 0;
	int r = tls_read(p->far, room + *used, size - *used, &n);
	assert_true(r <= TLS_E_EOF);
	*used += n;
	return *used == size;
}

static void assert_unread(const struct pair *p, const char *text) {
	assert_int_equal(p->conn.unread.n, strlen(text));
	assert_memory_equal(p->conn.unread.p, text, p->conn.unread.n);
}

static void nothing_is_read_before_the_handshake_is_over(void **state) {
	struct pair p;
	pair_open(&p);
	pair_accept(&p);
	assert_int_equal(conn_fill(&p.conn, 100), CONN_E_AGAIN);
	p.conn.can_read = true;
	assert_int_equal(conn_fill(&p.conn, 100), CONN_E_AGAIN);
	rig_until(&p.rig, is_shaken(&p));
	far_says(&p, "question");
	rig_until(&p.rig, conn_fill(&p.conn, 100) == 0);
	assert_unread(&p, "question");
	pair_close(&p);
}

static void what_tls_holds_is_read_while_the_socket_is_silent(void **state) {
	struct pair p;
	pair_accept_open(&p);
	far_says(&p, "0123456789");
	rig_until(&p.rig, conn_fill(&p.conn, 4) == 0);
	assert_unread(&p, "0123");
	assert_true(p.conn.can_read);
	assert_int_equal(conn_more(&p.conn, 8), 0);
	assert_unread(&p, "01234567");
	assert_true(p.conn.can_read);
	assert_int_equal(conn_more(&p.conn, 100), 0);
	assert_unread(&p, "0123456789");
	assert_false(p.conn.can_read);
	pair_close(&p);
}

static void an_answer_larger_than_the_socket_arrives(void **state) {
	enum { BYTES = 8 << 20 };
	char *text = malloc(BYTES), *heard = malloc(BYTES);
	struct pair p;
	size_t n = 0;
	for (size_t i = 0; i < BYTES; i++)
		text[i] = (char)(i * 2654435761u >> 13);
	pair_accept_open(&p);
	struct piece pieces[] = { { text, 100, NULL }, { text + 100, BYTES - 300, NULL },
		{ text + BYTES - 200, 200, NULL } };
	assert_int_equal(conn_send(&p.conn, pieces, n_elems(pieces)), 0);
	assert_non_null(p.conn.out);
	rig_until(&p.rig, far_hears(&p, heard, BYTES, &n));
	assert_memory_equal(heard, text, BYTES);
	assert_null(p.conn.out);
	assert_true(p.conn.sent_bytes > BYTES);
	pair_close(&p);
	free(text);
	free(heard);
}

static void what_is_sent_before_is_sent_after(void **state) {
	char heard[5];
	struct pair p;
	size_t n = 0;
	pair_open(&p);
	pair_connect(&p, "a.example");
	struct piece early = { "early", 5, NULL };
	assert_int_equal(conn_send(&p.conn, &early, 1), 0);
	rig_until(&p.rig, is_shaken(&p));
	assert_true(p.n_wakes > 0);
	rig_until(&p.rig, far_hears(&p, heard, 5, &n));
	assert_memory_equal(heard, "early", 5);
	assert_null(conn_tls_failure(&p.conn));
	pair_close(&p);
}

static void another_server_breaks_it(void **state) {
	struct pair p;
	pair_open(&p);
	pair_connect(&p, "b.example");
	rig_until(&p.rig, tls_shake(p.far) && p.conn.is_broken);
	assert_true(p.n_wakes > 0);
	assert_int_equal(p.conn.state, CONN_CONNECTING);
	assert_string_equal(conn_tls_failure(&p.conn), "hostname mismatch");
	assert_int_equal(conn_fill(&p.conn, 100), CONN_E_BROKEN);
	pair_close(&p);
}

static void who_leaves_in_the_handshake_is_noticed(void **state) {
	struct pair p;
	pair_open(&p);
	pair_accept(&p);
	assert_int_equal(tls_shake(p.far), TLS_E_AGAIN);
	far_leaves(&p);
	rig_until(&p.rig, p.conn.is_broken && p.n_wakes);
	assert_int_equal(conn_fill(&p.conn, 100), CONN_E_BROKEN);
	pair_close(&p);
}

static void a_cut_is_no_end(void **state) {
	struct pair p;
	pair_accept_open(&p);
	far_says(&p, "part");
	char room;
	size_t n = 0;
	rig_until(&p.rig, !far_hears(&p, &room, 1, &n)); /* unread bytes would make it a reset */
	far_leaves(&p);
	rig_until(&p.rig, conn_fill(&p.conn, 100) == 0);
	assert_unread(&p, "part");
	conn_consume(&p.conn, 4);
	rig_until(&p.rig, conn_fill(&p.conn, 100) != CONN_E_AGAIN);
	assert_int_equal(conn_fill(&p.conn, 100), CONN_E_BROKEN);
	assert_false(p.conn.is_broken); /* it is not the socket's fault */
	pair_close(&p);
}

/* Its head is there, so that TLS waits for the rest while the socket has nothing to say but that it ended. */
static void a_cut_record_is_a_cut(void **state) {
	for (unsigned is_late = 0; is_late < 2; is_late++) {
		struct pair p;
		pair_accept_open(&p);
		char room;
		size_t n = 0;
		assert_false(far_hears(&p, &room, 1, &n)); /* unread bytes would make it a reset */
		conn_want_read(&p.conn, !is_late);
		rig_say(p.far_fd, SLICE("\x17\x03\x03\x00\x20 part"));
		if (!is_late)
			rig_until(&p.rig, p.conn.can_read && conn_fill(&p.conn, 100) == CONN_E_AGAIN);
		far_leaves(&p);
		rig_until(&p.rig, p.conn.peer_closed);
		rig_until(&p.rig, p.conn.can_read && conn_fill(&p.conn, 100) != CONN_E_AGAIN);
		assert_int_equal(conn_fill(&p.conn, 100), CONN_E_BROKEN);
		pair_close(&p);
	}
}

static void an_end_is_read_behind_what_came_before(void **state) {
	struct pair p;
	pair_accept_open(&p);
	far_says(&p, "whole");
	assert_int_equal(tls_finish(p.far), 0); /* no FIN: nothing but this tells */
	rig_until(&p.rig, conn_fill(&p.conn, 100) == 0);
	assert_unread(&p, "whole");
	conn_consume(&p.conn, 5);
	rig_until(&p.rig, conn_fill(&p.conn, 100) != CONN_E_AGAIN);
	assert_int_equal(conn_fill(&p.conn, 100), CONN_E_EOF);
	pair_close(&p);
}

static void who_leaves_while_nobody_reads_is_noticed(void **state) {
	struct pair p;
	pair_accept_open(&p);
	conn_want_read(&p.conn, false);
	far_says(&p, "more");
	far_leaves(&p);
	rig_until(&p.rig, p.conn.peer_closed);
	pair_close(&p);
}

static void a_farewell_while_nobody_reads_is_noticed(void **state) {
	struct pair p;
	pair_accept_open(&p);
	conn_want_read(&p.conn, false);
	assert_int_equal(tls_finish(p.far), 0);
	rig_until(&p.rig, p.conn.peer_closed);
	assert_int_equal(conn_fill(&p.conn, 100), CONN_E_EOF);
	pair_close(&p);
}

static void a_farewell_is_said(void **state) {
	char room[16];
	struct pair p;
	size_t n;
	pair_accept_open(&p);
	conn_shutdown(&p.conn);
	conn_shutdown(&p.conn);
	rig_until(&p.rig, tls_read(p.far, room, sizeof(room), &n) == TLS_E_EOF);
	char byte;
	rig_until(&p.rig, recv(p.far_fd, &byte, 1, 0) == 0); /* the FIN behind it */
	far_says(&p, "still");
	rig_until(&p.rig, conn_fill(&p.conn, 100) == 0);
	assert_unread(&p, "still");
	pair_close(&p);
}

static void closing_says_nothing(void **state) {
	char room[16];
	struct pair p;
	size_t n;
	pair_accept_open(&p);
	assert_int_equal(tls_read(p.far, room, sizeof(room), &n), TLS_E_AGAIN);
	conn_close(&p.conn);
	rig_until(&p.rig, tls_read(p.far, room, sizeof(room), &n) == TLS_E_TRUNCATED);
	pair_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_read_before_the_handshake_is_over),
		cmocka_unit_test(what_tls_holds_is_read_while_the_socket_is_silent),
		cmocka_unit_test(an_answer_larger_than_the_socket_arrives),
		cmocka_unit_test(what_is_sent_before_is_sent_after),
		cmocka_unit_test(another_server_breaks_it),
		cmocka_unit_test(who_leaves_in_the_handshake_is_noticed),
		cmocka_unit_test(a_cut_is_no_end),
		cmocka_unit_test(a_cut_record_is_a_cut),
		cmocka_unit_test(an_end_is_read_behind_what_came_before),
		cmocka_unit_test(who_leaves_while_nobody_reads_is_noticed),
		cmocka_unit_test(a_farewell_while_nobody_reads_is_noticed),
		cmocka_unit_test(a_farewell_is_said),
		cmocka_unit_test(closing_says_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
