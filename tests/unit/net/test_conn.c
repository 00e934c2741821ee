#include "unit/net/rig.h"

#include "base/rng.h"

/* Our end of a connection: counts what it is told. */
struct end {
	struct conn conn;
	struct job job;
	unsigned n_wakes, n_closed;
};

static void end_run(struct job *job) {
	container_of(job, struct end, job)->n_wakes++;
}

static void end_on_closed(struct conn *c) {
	container_of(c, struct end, conn)->n_closed++;
}

static void end_open_fd(struct end *e, struct rig *r, int fd) {
	*e = (struct end){ .n_wakes = 0 };
	job_init(&e->job, end_run);
	assert_int_equal(conn_open(&e->conn, &r->loop, fd, &e->job, end_on_closed), 0);
}

/* Returns the far end. */
static int end_open(struct end *e, struct rig *r) {
	int near, far;
	rig_pair(&near, &far);
	end_open_fd(e, r, near);
	return far;
}

/* The same over a local pair, whose buffers are small and never wait for an acknowledgement. */
static int end_open_narrow(struct end *e, struct rig *r) {
	int ends[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
	end_open_fd(e, r, ends[0]);
	return ends[1];
}

static void end_close(struct end *e, struct rig *r) {
	conn_close(&e->conn);
	rig_until(r, e->n_closed);
	assert_int_equal(e->n_closed, 1);
}

static int fill(struct end *e, size_t max) {
	return conn_fill(&e->conn, max);
}

static void assert_unread(const struct end *e, const char *text) {
	if (!slice_eq(e->conn.unread, slice_of(text)))
		fail_msg("\"%.*s\" is not \"%s\"", (int)e->conn.unread.n, e->conn.unread.p, text);
}

/* --- connecting ----------------------------------------------------------------------- */

static int end_connect(struct end *e, struct rig *r, uint16_t port) {
	struct sockaddr_storage at = rig_loopback(port);
	*e = (struct end){ .n_wakes = 0 };
	job_init(&e->job, end_run);
	return conn_connect(&e->conn, &r->loop, (struct sockaddr *)&at, &e->job, end_on_closed);
}

static void what_is_sent_before_is_sent_after(void **state) {
	struct heard heard = { .n = 0 };
	struct end e;
	struct rig r;
	uint16_t port;
	rig_open(&r);
	int listening = rig_listen(&port);
	assert_int_equal(end_connect(&e, &r, port), 0);
	assert_int_equal(e.conn.state, CONN_CONNECTING);
	struct piece early = { "early", 5, NULL };
	assert_int_equal(conn_send(&e.conn, &early, 1), 0);
	assert_int_equal(e.conn.out_bytes, 5);
	assert_int_equal(fill(&e, 100), CONN_E_AGAIN);

	rig_until(&r, e.conn.state == CONN_OPEN && !e.conn.out);
	assert_true(e.n_wakes > 0);
	assert_int_equal(e.conn.sent_bytes, 5);
	rig_assert_keep_alive(e.conn.fd);
	int far = rig_accept(listening);
	rig_listen_to(&r, far, &heard, 5);
	assert_true(slice_eq(rig_heard(&heard), SLICE("early")));
	end_close(&e, &r);
	heard_free(&heard);
	close(far);
	close(listening);
	rig_close(&r);
}

static void a_refusal_is_seen_after_a_wake(void **state) {
	struct sockaddr_storage at = rig_loopback(0);
	struct end e;
	struct rig r;
	rig_open(&r);
	int bound = socket(AF_INET, SOCK_STREAM, 0); /* bound, but nobody listens */
	assert_int_equal(bind(bound, (struct sockaddr *)&at, sizeof(struct sockaddr_in)), 0);
	int error = end_connect(&e, &r, listener_port(bound));
	if (error) {
		assert_int_equal(error, -ECONNREFUSED); /* the kernel may know at once */
	} else {
		rig_until(&r, e.n_wakes);
		assert_true(e.conn.is_broken);
		assert_int_equal(e.conn.state, CONN_CONNECTING);
		end_close(&e, &r);
	}
	close(bound);
	rig_close(&r);
}

static void what_cannot_be_opened_is_an_error(void **state) {
	struct sockaddr_in6 nowhere = { .sin6_family = AF_INET6, .sin6_port = htons(1) };
	struct end e = { .n_wakes = 0 };
	struct rig r;
	rig_open(&r);
	nowhere.sin6_addr.s6_addr[0] = 0xff; /* multicast */
	int lowest = dup(0);
	close(lowest);
	assert_true(conn_connect(&e.conn, &r.loop, (struct sockaddr *)&nowhere, &e.job, end_on_closed) < 0);
	nowhere.sin6_family = AF_UNSPEC;
	assert_true(conn_connect(&e.conn, &r.loop, (struct sockaddr *)&nowhere, &e.job, end_on_closed) < 0);
	assert_int_equal(dup(0), lowest); /* no descriptor is left behind */
	close(lowest);

	int other = open("/", O_RDONLY | O_DIRECTORY); /* epoll takes no directories */
	assert_true(conn_open(&e.conn, &r.loop, other, &e.job, end_on_closed) < 0);
	assert_int_equal(fcntl(other, F_GETFD), -1);
	assert_int_equal(e.n_closed, 0);
	rig_close(&r);
}

/* --- reading -------------------------------------------------------------------------- */

static void bytes_come_in_the_order_of_sending(void **state) {
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	assert_int_equal(fill(&e, 100), CONN_E_AGAIN);
	rig_say(far, SLICE("abcdefgh"));
	rig_until(&r, e.conn.can_read);
	assert_int_equal(e.n_wakes, 1);
	assert_int_equal(fill(&e, 3), 0);
	assert_unread(&e, "abc");
	conn_consume(&e.conn, 2);
	assert_int_equal(fill(&e, 100), 0); /* there is something already */
	assert_unread(&e, "c");
	conn_consume(&e.conn, 1);
	assert_int_equal(fill(&e, 100), 0); /* a full read: more may wait */
	assert_unread(&e, "defgh");
	conn_consume(&e.conn, 5);
	assert_int_equal(fill(&e, 100), CONN_E_AGAIN);
	end_close(&e, &r);
	close(far);
	rig_close(&r);
}

static void more_is_kept_in_one_piece(void **state) {
	static char text[5000];
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)('a' + i % 23);

	assert_int_equal(conn_more(&e.conn, 4000), CONN_E_AGAIN);
	for (size_t n = 0; n < 3999; n += 31) {
		rig_say(far, (struct slice){ text + n, 31 });
		rig_until(&r, e.conn.can_read);
		assert_int_equal(conn_more(&e.conn, 4000), 0);
		assert_true(slice_eq(e.conn.unread, (struct slice){ text, n + 31 }));
		assert_int_equal(conn_more(&e.conn, 4000), CONN_E_AGAIN);
	}
	assert_int_equal(e.conn.unread.n, 3999);
	rig_say(far, (struct slice){ text + 3999, 1000 });
	rig_until(&r, e.conn.can_read);
	assert_int_equal(conn_more(&e.conn, 4000), 0);
	assert_int_equal(conn_more(&e.conn, 4000), CONN_E_FULL);
	assert_true(slice_eq(e.conn.unread, (struct slice){ text, 4000 }));
	conn_consume(&e.conn, 3990);
	assert_int_equal(conn_more(&e.conn, 4000), 0);
	assert_true(slice_eq(e.conn.unread, (struct slice){ text + 3990, 1009 }));
	end_close(&e, &r);
	assert_int_equal(rig_lent(&r), 0);
	close(far);
	rig_close(&r);
}

/* All conns of a thread read into one buffer: who comes second moves what the first has left there. */
static void the_read_buffer_is_shared(void **state) {
	struct end a, b;
	struct rig r;
	rig_open(&r);
	int far_a = end_open(&a, &r), far_b = end_open(&b, &r);
	rig_say(far_a, SLICE("of a"));
	rig_say(far_b, SLICE("of b, more"));
	rig_until(&r, a.conn.can_read && b.conn.can_read);

	assert_int_equal(fill(&a, 100), 0);
	assert_ptr_equal(a.conn.unread.p, r.loop.read_buf);
	conn_consume(&a.conn, 3);
	assert_int_equal(fill(&b, 100), 0);
	assert_ptr_equal(b.conn.unread.p, r.loop.read_buf);
	assert_unread(&a, "a");
	assert_unread(&b, "of b, more");
	assert_int_equal(rig_lent(&r), 1024);

	rig_say(far_a, SLICE("!"));
	rig_until(&r, a.conn.can_read);
	assert_int_equal(conn_more(&a.conn, 100), 0);
	assert_unread(&a, "a!");
	assert_unread(&b, "of b, more");
	conn_consume(&a.conn, 2);
	conn_consume(&b.conn, 10);
	rig_say(far_a, SLICE("again"));
	rig_until(&r, a.conn.can_read);
	assert_int_equal(fill(&a, 100), 0); /* nothing of b is there to be moved */
	assert_unread(&a, "again");
	assert_int_equal(rig_lent(&r), 0);
	end_close(&a, &r);
	assert_null(r.loop.read_owner);
	end_close(&b, &r);
	close(far_a);
	close(far_b);
	rig_close(&r);
}

static void a_full_read_buffer_can_be_parked(void **state) {
	static char text[LOOP_READ_BYTES];
	struct end a, b;
	struct rig r;
	size_t said = 0;
	rig_open(&r);
	int far_a = end_open(&a, &r), far_b = end_open(&b, &r);
	struct heard heard = { .n = 0 };
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7 + i / 251);
	while (said < sizeof(text)) { /* the socket holds it in the end */
		ssize_t n = send(far_a, text + said, sizeof(text) - said, 0);
		if (n < 0)
			rig_spin(&r, 1);
		said += n > 0 ? (size_t)n : 0;
	}
	rig_say(far_b, SLICE("b"));
	rig_until(&r, a.conn.can_read && b.conn.can_read);
	while (heard.n < sizeof(text)) {
		rig_until(&r, a.conn.can_read);
		if (fill(&a, SIZE_MAX))
			continue;
		size_t n = a.conn.unread.n;
		b.conn.can_read = true;
		assert_true(fill(&b, 10) == 0 || n < sizeof(text));
		assert_memory_equal(a.conn.unread.p, text + heard.n, n);
		heard.n += n;
		conn_consume(&a.conn, n);
		conn_consume(&b.conn, b.conn.unread.n);
	}
	end_close(&a, &r);
	end_close(&b, &r);
	close(far_a);
	close(far_b);
	rig_close(&r);
}

/* A buf is lent while bytes wait in it, not longer: thousands of idle conns must cost nothing. */
static void a_parked_buf_goes_back_when_it_was_read(void **state) {
	struct end a, b;
	struct rig r;
	rig_open(&r);
	int far_a = end_open(&a, &r), far_b = end_open(&b, &r);
	rig_say(far_a, SLICE("of a"));
	rig_say(far_b, SLICE("of b"));
	rig_until(&r, a.conn.can_read && b.conn.can_read);
	assert_int_equal(fill(&a, 100), 0);
	assert_int_equal(fill(&b, 100), 0);
	conn_consume(&a.conn, 4);
	assert_int_equal(fill(&a, 100), CONN_E_AGAIN);
	uint64_t lent = rig_lent(&r);
	end_close(&a, &r);
	end_close(&b, &r);
	close(far_a);
	close(far_b);
	rig_close(&r);
	assert_int_equal(lent, 0);
}

/* --- interest ------------------------------------------------------------------------- */

static void unwanted_bytes_wait_in_the_socket(void **state) {
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	conn_want_read(&e.conn, false);
	rig_say(far, SLICE("one"));
	rig_until(&r, e.n_wakes);
	rig_spin(&r, 10);
	assert_int_equal(e.n_wakes, 1); /* then it is quiet */
	rig_say(far, SLICE(" two"));
	rig_spin(&r, 10);
	assert_int_equal(e.n_wakes, 1);
	conn_want_read(&e.conn, true);
	rig_until(&r, e.n_wakes == 2);
	assert_int_equal(fill(&e, 100), 0);
	assert_unread(&e, "one two");
	end_close(&e, &r);
	close(far);
	rig_close(&r);
}

static void the_end_is_told_to_who_does_not_read(void **state) {
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	conn_want_read(&e.conn, false);
	rig_say(far, SLICE("last words"));
	rig_until(&r, e.n_wakes == 1);
	assert_false(e.conn.peer_closed);
	shutdown(far, SHUT_WR);
	rig_until(&r, e.conn.peer_closed);
	rig_spin(&r, 10);
	unsigned n_wakes = e.n_wakes;
	assert_int_equal(fill(&e, 100), 0);
	assert_unread(&e, "last words");
	conn_consume(&e.conn, 10);
	assert_int_equal(fill(&e, 100), CONN_E_EOF);
	end_close(&e, &r);
	close(far);
	rig_close(&r);
	assert_int_equal(n_wakes, 2); /* told once, not in every turn */
}

/* Fills the socket and a queue behind it; how many bytes were sent. */
static size_t choke(struct end *e) {
	static const char text[16384];
	struct piece piece = { text, sizeof(text), NULL };
	size_t n = 0;
	while (!e->conn.out) {
		assert_int_equal(conn_send(&e->conn, &piece, 1), 0);
		n += sizeof(text);
	}
	return n;
}

/* half_close = "serve": a client that ended its side and reads slowly must not cost a thread all its time. */
static void a_half_closed_slow_reader_is_quiet(void **state) {
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	conn_want_read(&e.conn, false);
	choke(&e);
	shutdown(far, SHUT_WR);
	rig_until(&r, e.conn.peer_closed);
	conn_ignore_peer_close(&e.conn);
	unsigned n_wakes = e.n_wakes;
	rig_spin(&r, 10);
	n_wakes = e.n_wakes - n_wakes;
	end_close(&e, &r);
	close(far);
	rig_close(&r);
	assert_int_equal(n_wakes, 0);
}

/* Its end was heard and ignored, and nothing is wanted of it: a reset, after which no read tells of it, is
 * heard all the same. */
static void a_reset_by_who_has_ended_is_told(void **state) {
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	conn_want_read(&e.conn, false);
	shutdown(far, SHUT_WR);
	rig_until(&r, e.conn.peer_closed);
	conn_ignore_peer_close(&e.conn);
	rig_spin(&r, 2);
	unsigned n_wakes = e.n_wakes;
	assert_int_equal(e.conn.interest, UV_PRIORITIZED);
	rig_spin(&r, 10);
	assert_int_equal(e.n_wakes, n_wakes);
	assert_false(e.conn.has_failed);
	rig_reset(far);
	rig_until(&r, e.n_wakes > n_wakes);
	assert_true(e.conn.has_failed && e.conn.peer_closed);
	rig_spin(&r, 10);
	assert_int_equal(e.n_wakes, n_wakes + 1); /* told once */
	end_close(&e, &r);
	rig_close(&r);
}

static void a_reset_is_told(void **state) {
	for (unsigned wants = 0; wants < 2; wants++) {
		struct end e;
		struct rig r;
		rig_open(&r);
		int far = end_open(&e, &r);
		conn_want_read(&e.conn, wants);
		rig_spin(&r, 1);
		rig_reset(far);
		rig_until(&r, e.conn.peer_closed);
		assert_true(e.n_wakes > 0);
		assert_int_equal(fill(&e, 100), CONN_E_BROKEN);
		assert_true(e.conn.is_broken);
		struct piece piece = { "x", 1, NULL };
		assert_int_equal(conn_send(&e.conn, &piece, 1), CONN_E_BROKEN);
		assert_null(e.conn.out);
		end_close(&e, &r);
		rig_close(&r);
	}
}

static void writing_to_who_is_gone_breaks(void **state) {
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	size_t n = choke(&e);
	assert_true(e.conn.out_bytes > 0 && e.conn.sent_bytes + e.conn.out_bytes == n);
	rig_reset(far);
	rig_until(&r, e.conn.peer_closed || e.conn.is_broken);
	struct piece piece = { "x", 1, NULL };
	rig_until(&r, e.conn.is_broken || conn_send(&e.conn, &piece, 1) || fill(&e, 10) > CONN_E_AGAIN);
	end_close(&e, &r);
	assert_int_equal(rig_lent(&r), 0);
	rig_close(&r);
}

/* --- writing -------------------------------------------------------------------------- */

static void what_the_socket_does_not_take_is_kept(void **state) {
	static char text[3 << 20];
	struct heard heard = { .n = 0 };
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open_narrow(&e, &r);
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 31 + i / 65537);
	struct piece pieces[] = { { text, sizeof(text) / 2, NULL },
		{ text + sizeof(text) / 2, sizeof(text) - sizeof(text) / 2, NULL } };
	assert_int_equal(conn_send(&e.conn, pieces, 2), 0);
	assert_true(e.conn.out_bytes > 0);
	assert_int_equal(e.conn.sent_bytes + e.conn.out_bytes, sizeof(text));
	assert_true(rig_lent(&r) >= e.conn.out_bytes);
	assert_true(rig_lent(&r) <= e.conn.out_bytes + BUF_BYTES_MAX);

	struct piece last = { "last", 4, NULL }; /* does not overtake */
	assert_int_equal(conn_send(&e.conn, &last, 1), 0);
	rig_listen_to(&r, far, &heard, sizeof(text) + 4);
	assert_int_equal(heard.n, sizeof(text) + 4);
	assert_memory_equal(heard.p, text, sizeof(text));
	assert_memory_equal(heard.p + sizeof(text), "last", 4);
	assert_int_equal(e.conn.out_bytes, 0);
	assert_int_equal(e.conn.sent_bytes, sizeof(text) + 4);
	assert_int_equal(rig_lent(&r), 0);
	assert_true(e.n_wakes > 0);
	end_close(&e, &r);
	heard_free(&heard);
	close(far);
	rig_close(&r);
}

/* An owned piece is not copied: it waits where it stands, and its buf with it. */
static void an_owned_piece_keeps_its_buf(void **state) {
	struct heard heard = { .n = 0 };
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	size_t n = choke(&e);
	struct buf *b = buf_new(&r.loop.bufs, 200000), *body = b;
	memset(b->data, 'B', 200000);
	b->used = 200000;
	uint64_t lent = rig_lent(&r);
	struct piece pieces[] = { { b->data, 100000, b }, { b->data + 100000, 100000, b },
		{ "end", 3, NULL } };
	assert_int_equal(conn_send(&e.conn, pieces, 3), 0);
	assert_int_equal(rig_lent(&r), lent + 1024); /* for "end" */
	assert_int_equal(b->n_refs, 3);
	buf_unref(&r.loop.bufs, &b);
	assert_int_equal(body->n_refs, 2);
	assert_int_equal(rig_lent(&r), lent + 1024);

	n += 200003;
	rig_listen_to(&r, far, &heard, n);
	assert_int_equal(heard.n, n);
	for (size_t i = n - 200003; i < n - 3; i++)
		assert_int_equal(heard.p[i], 'B');
	assert_memory_equal(heard.p + n - 3, "end", 3);
	assert_int_equal(rig_lent(&r), 0);
	end_close(&e, &r);
	heard_free(&heard);
	close(far);
	rig_close(&r);
}

static unsigned count_out(const struct end *e) {
	unsigned n = 0;
	for (const struct conn_out *o = e->conn.out; o; o = o->next)
		n++;
	return n;
}

/* A stream of small events behind a slow reader fills bufs, it does not take one for each. */
static void small_pieces_share_a_buf(void **state) {
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	choke(&e);
	unsigned n_before = count_out(&e);
	uint64_t lent = rig_lent(&r);
	for (unsigned i = 0; i < 1000; i++) {
		struct piece piece = { "0123456789", 10, NULL };
		assert_int_equal(conn_send(&e.conn, &piece, 1), 0);
	}
	assert_true(count_out(&e) - n_before <= 11);
	assert_true(rig_lent(&r) - lent <= 11 * 1024);
	end_close(&e, &r);
	assert_int_equal(rig_lent(&r), 0);
	close(far);
	rig_close(&r);
}

/* Random pieces, owned and copied, empty and large, more than one call takes, to a reader that stutters. */
static void any_mixture_arrives_as_it_was_sent(void **state) {
	enum { N_PIECES = 150, TEXT_BYTES = 60000 };
	struct rig r;
	struct rng rng;
	rng_init(&rng, 1);
	rig_open(&r);
	for (unsigned round = 0; round < 20; round++) {
		struct heard heard = { .n = 0 }, sent = { .p = NULL };
		struct end e;
		int far = end_open_narrow(&e, &r);
		sent.p = malloc(4000000);
		for (unsigned burst = 0; burst < 12; burst++) {
			struct buf *b = buf_new(&r.loop.bufs, TEXT_BYTES);
			struct piece pieces[N_PIECES];
			size_t n = rng_below(&rng, N_PIECES);
			for (size_t i = 0; i < TEXT_BYTES; i++)
				b->data[i] = (char)rng_next(&rng);
			b->used = TEXT_BYTES;
			for (size_t i = 0; i < n; i++) {
				size_t at = rng_below(&rng, TEXT_BYTES),
				       max = rng_below(&rng, 3) ? 100 : 30000;
				pieces[i] = (struct piece){ b->data + at,
					size_min(rng_below(&rng, max), TEXT_BYTES - at),
					rng_below(&rng, 2) ? b : NULL };
				if (sent.n + pieces[i].n > 4000000)
					pieces[i].n = 0;
				memcpy(sent.p + sent.n, pieces[i].p, pieces[i].n);
				sent.n += pieces[i].n;
			}
			assert_int_equal(conn_send(&e.conn, pieces, n), 0);
			buf_unref(&r.loop.bufs, &b);
			rig_hear(far, &heard, rng_below(&rng, 100000));
			rig_spin(&r, 1);
		}
		rig_listen_to(&r, far, &heard, sent.n);
		assert_int_equal(heard.n, sent.n);
		assert_memory_equal(heard.p, sent.p, sent.n);
		rig_until(&r, e.conn.out_bytes == 0);
		assert_null(e.conn.out);
		assert_null(e.conn.out_last);
		end_close(&e, &r);
		assert_int_equal(rig_lent(&r), 0);
		heard_free(&heard);
		heard_free(&sent);
		close(far);
	}
	rig_close(&r);
}

/* --- ends ----------------------------------------------------------------------------- */

static void a_close_gives_all_back(void **state) {
	struct heard heard = { .n = 0 };
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	rig_say(far, SLICE("unread"));
	choke(&e);
	rig_until(&r, e.conn.can_read);
	assert_int_equal(fill(&e, 3), 0);
	conn_close(&e.conn);
	assert_int_equal(e.conn.state, CONN_CLOSED);
	assert_int_equal(rig_lent(&r), 0);
	assert_null(r.loop.read_owner);
	assert_int_equal(e.n_closed, 0); /* its memory is in use until the turn ends */
	conn_close(&e.conn);
	conn_reset(&e.conn);
	rig_until(&r, e.n_closed);
	rig_spin(&r, 2);
	assert_int_equal(e.n_closed, 1);
	rig_listen_to(&r, far, &heard, SIZE_MAX);
	heard_free(&heard);
	close(far);
	rig_close(&r);
}

static void a_reset_is_no_end(void **state) {
	for (unsigned resets = 0; resets < 2; resets++) {
		struct heard heard = { .n = 0 };
		struct end e;
		struct rig r;
		rig_open(&r);
		int far = end_open(&e, &r);
		if (resets)
			conn_reset(&e.conn);
		else
			conn_close(&e.conn);
		rig_until(&r, e.n_closed);
		rig_listen_to(&r, far, &heard, 1);
		assert_int_equal(heard.is_reset, resets);
		assert_int_equal(heard.is_ended, !resets);
		heard_free(&heard);
		close(far);
		rig_close(&r);
	}
}

static void after_a_shutdown_it_still_reads(void **state) {
	struct heard heard = { .n = 0 };
	struct end e;
	struct rig r;
	rig_open(&r);
	int far = end_open(&e, &r);
	struct piece piece = { "bye", 3, NULL };
	assert_int_equal(conn_send(&e.conn, &piece, 1), 0);
	conn_shutdown(&e.conn);
	rig_listen_to(&r, far, &heard, SIZE_MAX);
	assert_true(heard.is_ended && slice_eq(rig_heard(&heard), SLICE("bye")));
	rig_say(far, SLICE("and you"));
	rig_until(&r, e.conn.can_read);
	assert_int_equal(fill(&e, 100), 0);
	assert_unread(&e, "and you");
	end_close(&e, &r);
	heard_free(&heard);
	close(far);
	rig_close(&r);
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_sent_before_is_sent_after),
		cmocka_unit_test(a_refusal_is_seen_after_a_wake),
		cmocka_unit_test(what_cannot_be_opened_is_an_error),
		cmocka_unit_test(bytes_come_in_the_order_of_sending),
		cmocka_unit_test(more_is_kept_in_one_piece),
		cmocka_unit_test(the_read_buffer_is_shared),
		cmocka_unit_test(a_full_read_buffer_can_be_parked),
		cmocka_unit_test(a_parked_buf_goes_back_when_it_was_read),
		cmocka_unit_test(unwanted_bytes_wait_in_the_socket),
		cmocka_unit_test(the_end_is_told_to_who_does_not_read),
		cmocka_unit_test(a_half_closed_slow_reader_is_quiet),
		cmocka_unit_test(a_reset_by_who_has_ended_is_told),
		cmocka_unit_test(a_reset_is_told),
		cmocka_unit_test(writing_to_who_is_gone_breaks),
		cmocka_unit_test(what_the_socket_does_not_take_is_kept),
		cmocka_unit_test(an_owned_piece_keeps_its_buf),
		cmocka_unit_test(small_pieces_share_a_buf),
		cmocka_unit_test(any_mixture_arrives_as_it_was_sent),
		cmocka_unit_test(a_close_gives_all_back),
		cmocka_unit_test(a_reset_is_no_end),
		cmocka_unit_test(after_a_shutdown_it_still_reads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
