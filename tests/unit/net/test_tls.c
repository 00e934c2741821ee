#include "unit/net/rig.h"

#include "net/tls.c"
#include "unit/net/certs.h"

#include "base/rng.h"

#define STEPS_MAX 100000

/* What most tests need: a server of two certificates, and who trusts their signer. */
struct scene {
	struct certs certs;
	const struct cert *ca, *a, *wild, *client, *stranger;
	struct tls_files files[2];
	struct tls_server_files server_files;
	struct tls_client_files client_files;
};

static void scene_open(struct scene *s) {
	*s = (struct scene){ .ca = NULL };
	certs_open(&s->certs);
	s->ca = certs_make(&s->certs, "ca", NULL, NULL);
	s->a = certs_make(&s->certs, "a", "DNS:a.example,DNS:A2.example,IP:127.0.0.1", s->ca);
	s->wild = certs_make(&s->certs, "wild", "DNS:*.wild.example,DNS:sub.a.example", s->ca);
	s->client = certs_make(&s->certs, "client", NULL, s->ca);
	s->stranger = certs_make(&s->certs, "stranger", "DNS:a.example", NULL);
	s->files[0] = (struct tls_files){ s->a->path, s->a->path };
	s->files[1] = (struct tls_files){ s->wild->path, s->wild->path };
	s->server_files = (struct tls_server_files){ .certificates = s->files, .n = 2, .client_ca = "" };
	s->client_files = (struct tls_client_files){ .ca = s->ca->path, .certificate = { "", "" } };
}

static void scene_close(struct scene *s) {
	certs_close(&s->certs);
}

static struct tls_server *server_of(const struct scene *s) {
	char why[TLS_WHY_BYTES];
	struct tls_server *server = tls_server_new(&s->server_files, why);
	if (!server)
		fail_msg("%s", why);
	return server;
}

static struct tls_client *client_of(const struct scene *s) {
	char why[TLS_WHY_BYTES];
	struct tls_client *client = tls_client_new(&s->client_files, why);
	if (!client)
		fail_msg("%s", why);
	return client;
}

/* Both ends of one connection. */
struct link {
	struct tls *server, *client;
	int fds[2];
	int server_says, client_says; /* how the handshake went */
};

/* The contexts stay the caller's. */
static void link_open(
    struct link *l, struct tls_server *server, struct tls_client *client, const char *host) {
	*l = (struct link){ .server = tls_accept(server), .client = tls_connect(client, host) };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, l->fds), 0);
	tls_bind(l->server, l->fds[0]);
	tls_bind(l->client, l->fds[1]);
}

static void link_open_scene(struct link *l, const struct scene *s, const char *host) {
	struct tls_server *server = server_of(s);
	struct tls_client *client = client_of(s);
	link_open(l, server, client, host);
	tls_server_unref(&server); /* the sessions keep them */
	tls_client_unref(&client);
}

static void link_close(struct link *l) {
	tls_free(&l->server);
	tls_free(&l->client);
	close(l->fds[0]);
	if (l->fds[1] >= 0)
		close(l->fds[1]);
}

/* Until both sides are done or have failed. */
static void link_shake(struct link *l) {
	l->server_says = l->client_says = TLS_E_AGAIN;
	for (unsigned i = 0; i < 20; i++) {
		if (l->client_says == TLS_E_AGAIN)
			l->client_says = tls_shake(l->client);
		if (l->server_says == TLS_E_AGAIN)
			l->server_says = tls_shake(l->server);
	}
}

static bool link_shakes(struct link *l) {
	link_shake(l);
	return l->server_says == 0 && l->client_says == 0;
}

static void say(struct tls *t, const char *text) {
	struct iovec piece = { (char *)text, strlen(text) };
	size_t n;
	assert_int_equal(tls_write(t, &piece, 1, &n), 0);
	assert_int_equal(n, strlen(text));
}

static void assert_hears(struct tls *t, const char *text) {
	char room[256];
	size_t n;
	assert_int_equal(tls_read(t, room, sizeof(room), &n), 0);
	assert_int_equal(n, strlen(text));
	assert_memory_equal(room, text, n);
}

static int hears(struct tls *t) {
	char room[256];
	size_t n;
	return tls_read(t, room, sizeof(room), &n);
}

static bool is_shown(const struct link *l, const struct cert *cert) {
	return X509_cmp(SSL_get0_peer_certificate(l->client->ssl), cert->x509) == 0;
}

/* --- the handshake ---------------------------------------------------------------------- */

static void both_sides_hear_each_other(void **state) {
	struct scene s;
	struct link l;
	scene_open(&s);
	link_open_scene(&l, &s, "a.example");
	assert_true(link_shakes(&l));
	assert_int_equal(SSL_version(l.client->ssl), TLS1_3_VERSION);
	say(l.client, "question");
	assert_hears(l.server, "question");
	assert_int_equal(hears(l.server), TLS_E_AGAIN);
	say(l.server, "answer");
	assert_hears(l.client, "answer");
	assert_null(tls_failure(l.client));
	link_close(&l);
	scene_close(&s);
}

/* One byte from one to the other; false: there is none. */
static bool pass_byte(int from, int to) {
	char byte;
	return recv(from, &byte, 1, MSG_DONTWAIT) == 1 && send(to, &byte, 1, MSG_NOSIGNAL) == 1;
}

static void a_handshake_goes_byte_by_byte(void **state) {
	struct scene s;
	struct link l;
	int far[2], near[2], r[2] = { TLS_E_AGAIN, TLS_E_AGAIN };
	scene_open(&s);
	link_open_scene(&l, &s, "a.example");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, near), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, far), 0);
	l.server->fd = near[0];
	l.client->fd = far[0];
	unsigned n = 0;
	for (; n < STEPS_MAX && (r[0] || r[1]); n++) {
		if (r[0])
			r[0] = tls_shake(l.server);
		if (r[1])
			r[1] = tls_shake(l.client);
		assert_true(r[0] <= TLS_E_AGAIN && r[1] <= TLS_E_AGAIN);
		(void)pass_byte(near[1], far[1]);
		(void)pass_byte(far[1], near[1]);
	}
	assert_in_range(n, 500, STEPS_MAX - 1);
	say(l.client, "question");
	while (pass_byte(far[1], near[1]))
		if (hears(l.server) != TLS_E_AGAIN)
			break;
	assert_false(pass_byte(far[1], near[1])); /* it was the last byte that made it whole */
	for (unsigned i = 0; i < 2; i++) {
		close(near[i]);
		close(far[i]);
	}
	link_close(&l);
	scene_close(&s);
}

static void a_name_finds_its_certificate(void **state) {
	static const struct {
		const char *name;
		bool is_wild;
	} cases[] = {
		{ "a.example", false },
		{ "A.EXAMPLE", false },
		{ "a2.example", false },
		{ "x.wild.example", true },
		{ "X.Wild.Example", true },
		{ "sub.a.example", true },
		{ "x.y.wild.example", false },
		{ "wild.example", false },
		{ "nobody.example", false },
		{ "127.0.0.1", false },
	};
	struct scene s;
	scene_open(&s);
	s.client_files =
	    (struct tls_client_files){ .ca = "", .certificate = { "", "" }, .is_insecure = true };
	for (size_t i = 0; i < n_elems(cases); i++) {
		struct link l;
		link_open_scene(&l, &s, cases[i].name);
		assert_true(link_shakes(&l));
		if (!is_shown(&l, cases[i].is_wild ? s.wild : s.a))
			fail_msg("%s is shown the other certificate", cases[i].name);
		link_close(&l);
	}
	scene_close(&s);
}

static void who_is_not_meant_is_refused(void **state) {
	static const struct {
		const char *host;
		const char *failure; /* NULL: it is good */
	} cases[] = {
		{ "a.example", NULL },
		{ "127.0.0.1", NULL },
		{ "any.wild.example", NULL },
		{ "b.example", "hostname mismatch" },
		{ "127.0.0.2", "IP address mismatch" },
	};
	struct scene s;
	scene_open(&s);
	for (size_t i = 0; i < n_elems(cases); i++) {
		struct link l;
		link_open_scene(&l, &s, cases[i].host);
		assert_int_equal(link_shakes(&l), !cases[i].failure);
		if (cases[i].failure)
			assert_string_equal(tls_failure(l.client), cases[i].failure);
		link_close(&l);
	}
	s.client_files.ca = s.stranger->path;
	struct link l;
	link_open_scene(&l, &s, "a.example");
	assert_false(link_shakes(&l));
	assert_string_equal(tls_failure(l.client), "unable to get local issuer certificate");
	assert_non_null(tls_failure(l.server));
	link_close(&l);
	scene_close(&s);
}

/* --- what is not spoken ------------------------------------------------------------------ */

static void old_versions_and_ciphers_are_refused(void **state) {
	static const struct {
		int version;
		const char *ciphers;
		bool is_good;
	} cases[] = {
		{ TLS1_1_VERSION, "ALL:@SECLEVEL=0", false },
		{ TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256", true },
		{ TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", true },
		{ TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256", false },
		{ TLS1_3_VERSION, "ALL", true },
	};
	struct scene s;
	scene_open(&s);
	for (size_t i = 0; i < n_elems(cases); i++) {
		struct link l;
		link_open_scene(&l, &s, "a.example");
		SSL_set_min_proto_version(l.client->ssl, TLS1_VERSION);
		SSL_set_max_proto_version(l.client->ssl, cases[i].version);
		assert_int_equal(SSL_set_cipher_list(l.client->ssl, cases[i].ciphers), 1);
		if (link_shakes(&l) != cases[i].is_good)
			fail_msg("%s", cases[i].ciphers);
		link_close(&l);
	}
	scene_close(&s);
}

static void only_our_protocol_is_chosen(void **state) {
	static const struct {
		struct slice offer; /* empty: none is made */
		bool is_good;
	} cases[] = {
		{ { "", 0 }, true },
		{ SLICE("\x8http/1.1"), true },
		{ SLICE("\2h2\x8http/1.1"), true },
		{ SLICE("\2h2"), false },
		{ SLICE("\x8http/1.0"), false },
	};
	struct scene s;
	scene_open(&s);
	for (size_t i = 0; i < n_elems(cases); i++) {
		struct link l;
		link_open_scene(&l, &s, "a.example");
		SSL_set_alpn_protos(
		    l.client->ssl, (const unsigned char *)cases[i].offer.p, (unsigned)cases[i].offer.n);
		assert_int_equal(link_shakes(&l), cases[i].is_good);
		if (!cases[i].is_good)
			assert_string_equal(tls_failure(l.client), "tlsv1 alert no application protocol");
		link_close(&l);
	}
	scene_close(&s);
}

static void clients_must_show_who_they_are(void **state) {
	struct scene s;
	struct link l;
	scene_open(&s);
	s.server_files.client_ca = s.ca->path;

	link_open_scene(&l, &s, "a.example");
	link_shake(&l);
	assert_int_equal(l.server_says, TLS_E_BROKEN);
	assert_string_equal(tls_failure(l.server), "peer did not return a certificate");
	link_close(&l);

	s.client_files.certificate = (struct tls_files){ s.stranger->path, s.stranger->path };
	link_open_scene(&l, &s, "a.example");
	link_shake(&l);
	assert_int_equal(l.server_says, TLS_E_BROKEN);
	link_close(&l);

	s.client_files.certificate = (struct tls_files){ s.client->path, s.client->path };
	link_open_scene(&l, &s, "a.example");
	assert_true(link_shakes(&l));
	link_close(&l);
	scene_close(&s);
}

static void what_is_not_tls_is_refused(void **state) {
	struct scene s;
	struct link l;
	scene_open(&s);
	link_open_scene(&l, &s, "a.example");
	rig_say(l.fds[1], SLICE("GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
	assert_int_equal(tls_shake(l.server), TLS_E_BROKEN);
	assert_string_equal(tls_failure(l.server), "http request");
	assert_int_equal(tls_shake(l.server), TLS_E_BROKEN);
	link_close(&l);

	link_open_scene(&l, &s, "a.example");
	close(l.fds[1]);
	l.fds[1] = -1;
	assert_int_equal(tls_shake(l.server), TLS_E_BROKEN);
	assert_string_equal(tls_failure(l.server), "the connection ended in the handshake");
	link_close(&l);
	scene_close(&s);
}

/* What a client says first, as its bytes. */
static size_t record_hello(const struct scene *s, char *hello, size_t size) {
	struct link l;
	link_open_scene(&l, s, "a.example");
	assert_int_equal(tls_shake(l.client), TLS_E_AGAIN);
	ssize_t n = recv(l.fds[0], hello, size, 0);
	assert_true(n > 100 && (size_t)n < size);
	link_close(&l);
	return (size_t)n;
}

/* Lengths, the server name and protocols among them: nothing of it is believed unseen. */
static void a_garbled_hello_opens_nothing(void **state) {
	enum { ROUNDS = 3000 };
	char hello[2048], said[2048];
	struct scene s;
	struct rng rng;
	rng_init(&rng, 11);
	scene_open(&s);
	size_t n = record_hello(&s, hello, sizeof(hello)), n_broken = 0;
	struct tls_server *server = server_of(&s);
	struct tls_client *client = client_of(&s);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct link l;
		size_t from = rng_below(&rng, 4) ? 5 : 0; /* mostly behind the record's head */
		memcpy(said, hello, n);
		for (uint64_t i = rng_below(&rng, 4); i < 4; i++)
			said[from + rng_below(&rng, n - from)] = (char)rng_next(&rng);
		link_open(&l, server, client, "a.example");
		rig_say(l.fds[1], (struct slice){ said, n });
		int r = tls_shake(l.server);
		assert_true(r == TLS_E_AGAIN || r == TLS_E_BROKEN);
		n_broken += r == TLS_E_BROKEN;
		close(l.fds[1]);
		l.fds[1] = -1;
		assert_int_equal(tls_shake(l.server), TLS_E_BROKEN);
		assert_non_null(tls_failure(l.server));
		link_close(&l);
	}
	assert_true(n_broken > ROUNDS / 10 && n_broken < ROUNDS); /* some of each */
	tls_server_unref(&server);
	tls_client_unref(&client);
	scene_close(&s);
}

static void nobody_shakes_hands_again(void **state) {
	struct scene s;
	struct link l;
	scene_open(&s);
	link_open_scene(&l, &s, "a.example");
	SSL_set_max_proto_version(l.client->ssl, TLS1_2_VERSION); /* 1.3 has no such thing */
	SSL_clear_options(l.client->ssl, SSL_OP_NO_RENEGOTIATION);
	assert_true(link_shakes(&l));
	assert_int_equal(SSL_renegotiate(l.client->ssl), 1);
	assert_int_equal(tls_shake(l.client), TLS_E_AGAIN);
	assert_int_equal(hears(l.server), TLS_E_AGAIN);
	assert_int_equal(SSL_num_renegotiations(l.server->ssl), 0);
	assert_int_equal(tls_shake(l.client), TLS_E_BROKEN);
	assert_string_equal(tls_failure(l.client), "no renegotiation");
	link_close(&l);
	scene_close(&s);
}

/* --- tickets ----------------------------------------------------------------------------- */

/* One handshake; *session is offered, and then the newest. True: it was taken. */
static bool is_resumed(struct tls_server *server, struct tls_client *client, int version, const char *host,
    SSL_SESSION **session) {
	struct link l;
	link_open(&l, server, client, host);
	SSL_set_max_proto_version(l.client->ssl, version);
	if (*session)
		SSL_set_session(l.client->ssl, *session);
	assert_true(link_shakes(&l));
	say(l.server, "hello");
	assert_hears(l.client, "hello"); /* TLS 1.3 sends its ticket before */
	bool is = SSL_session_reused(l.client->ssl);
	SSL_SESSION_free(*session);
	*session = SSL_get1_session(l.client->ssl);
	assert_int_equal(tls_finish(l.client), 0); /* OpenSSL does not resume what was cut */
	link_close(&l);
	return is;
}

static void a_ticket_is_good_for_its_name_alone(void **state) {
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	struct scene s;
	scene_open(&s);
	for (size_t i = 0; i < n_elems(versions); i++) {
		SSL_SESSION *session = NULL;
		struct tls_server *server = server_of(&s), *next = server_of(&s);
		struct tls_client *client = client_of(&s);
		assert_false(is_resumed(server, client, versions[i], "a.example", &session));
		assert_true(is_resumed(server, client, versions[i], "a.example", &session));
		assert_false(is_resumed(server, client, versions[i], "x.wild.example", &session));
		assert_true(is_resumed(server, client, versions[i], "x.wild.example", &session));
		assert_false(is_resumed(server, client, versions[i], "y.wild.example", &session));
		assert_false(
		    is_resumed(next, client, versions[i], "y.wild.example", &session)); /* new keys */
		SSL_SESSION_free(session);
		tls_server_unref(&server);
		tls_server_unref(&next);
		tls_client_unref(&client);
	}
	scene_close(&s);
}

/* --- the end, and too much ----------------------------------------------------------------- */

static void an_end_without_a_word_is_a_cut(void **state) {
	struct scene s;
	struct link l;
	scene_open(&s);
	link_open_scene(&l, &s, "a.example");
	assert_true(link_shakes(&l));
	say(l.client, "part");
	assert_int_equal(hears(l.client), TLS_E_AGAIN); /* unread bytes would make it a reset */
	close(l.fds[1]);
	l.fds[1] = -1;
	assert_hears(l.server, "part");
	assert_int_equal(hears(l.server), TLS_E_TRUNCATED);
	assert_int_equal(hears(l.server), TLS_E_TRUNCATED);
	assert_true(tls_has_ended(l.server));
	link_close(&l);

	link_open_scene(&l, &s, "a.example");
	assert_true(link_shakes(&l));
	say(l.client, "whole");
	assert_int_equal(tls_finish(l.client), 0);
	assert_int_equal(tls_finish(l.client), 0);
	assert_hears(l.server, "whole");
	assert_true(tls_has_ended(l.server));
	assert_int_equal(hears(l.server), TLS_E_EOF);
	say(l.server, "still"); /* one side's end is not the other's */
	assert_hears(l.client, "still");
	link_close(&l);
	scene_close(&s);
}

/* What happens to the second of two records on its way. */
static void a_record_that_is_not_whole_is_never_heard(void **state) {
	static const struct {
		size_t at; /* 0: nothing is changed; the record begins with kind, version, length */
		unsigned char value;
		size_t n_cut;
		int outcome;
	} cases[] = {
		{ 0, 0, 1, TLS_E_TRUNCATED },  /* all but the last byte */
		{ 0, 0, 30, TLS_E_TRUNCATED }, /* its head and no more */
		{ 0, 0, 34, TLS_E_TRUNCATED }, /* one byte */
		{ 34, 0, 0, TLS_E_BROKEN },    /* the last byte of its tag */
		{ 5, 0, 0, TLS_E_BROKEN },     /* the first of what it carries */
		{ 3, 0xff, 0, TLS_E_BROKEN },  /* longer than any may be */
		{ 1, 9, 0, TLS_E_BROKEN },     /* a version that never was */
		{ 0, 0, 0, 0 },
	};
	static const char text[] = "0123456789abc";
	struct scene s;
	scene_open(&s);
	for (size_t i = 0; i < n_elems(cases); i++) {
		unsigned char record[64];
		struct link l;
		link_open_scene(&l, &s, "a.example");
		assert_true(link_shakes(&l));
		say(l.client, "whole");
		assert_hears(l.server, "whole");
		say(l.client, text);
		assert_int_equal(recv(l.fds[0], record, sizeof(record), 0), 35);
		if (cases[i].at)
			record[cases[i].at] =
			    (unsigned char)(record[cases[i].at] == cases[i].value ? 1 : cases[i].value);
		rig_say(l.fds[1], (struct slice){ (char *)record, 35 - cases[i].n_cut });
		if (cases[i].n_cut)
			shutdown(l.fds[1], SHUT_WR);
		if (cases[i].n_cut) /* the end is behind what is there */
			assert_int_equal(hears(l.server), TLS_E_AGAIN);
		if (cases[i].outcome == 0)
			assert_hears(l.server, text);
		else
			assert_int_equal(hears(l.server), cases[i].outcome);
		link_close(&l);
	}
	scene_close(&s);
}

/* Sends all of `pieces` and hears it at the other end, as far as the socket takes it each time. */
static size_t send_and_hear(struct link *l, struct iovec *pieces, size_t n, char *heard) {
	size_t done = 0, n_heard = 0, i = 0, total = 0;
	for (size_t k = 0; k < n; k++)
		total += pieces[k].iov_len;
	while (n_heard < total) {
		int r = i < n ? tls_write(l->server, pieces + i, n - i, &done) : 0;
		assert_true(r == 0 || r == TLS_E_AGAIN);
		assert_int_equal(r == TLS_E_AGAIN, tls_wants_write(l->server));
		for (; i < n && done >= pieces[i].iov_len; i++)
			done -= pieces[i].iov_len;
		if (i < n) {
			pieces[i].iov_base = (char *)pieces[i].iov_base + done;
			pieces[i].iov_len -= done;
			done = 0;
		}
		size_t got = 0;
		r = tls_read(l->client, heard + n_heard, total - n_heard, &got);
		assert_true(r == 0 || r == TLS_E_AGAIN);
		n_heard += got;
	}
	return n_heard;
}

static void pieces_of_all_sizes_arrive_in_order(void **state) {
	enum { PIECES = 60, BYTES = 1 << 20 };
	char *text = malloc(BYTES), *heard = malloc(BYTES);
	struct rng rng;
	struct scene s;
	struct link l;
	int small = 8192;
	rng_init(&rng, 5);
	for (size_t i = 0; i < BYTES; i++)
		text[i] = (char)rng_next(&rng);
	scene_open(&s);
	link_open_scene(&l, &s, "a.example");
	assert_true(link_shakes(&l));
	setsockopt(l.fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (unsigned round = 0; round < 40; round++) {
		struct iovec pieces[PIECES];
		size_t used = 0;
		for (size_t i = 0; i < PIECES; i++) {
			size_t n = rng_below(&rng, rng_below(&rng, 4) ? 300 : 40000);
			n = size_min(n, BYTES - used);
			pieces[i] = (struct iovec){ text + used, n };
			used += n;
		}
		assert_int_equal(send_and_hear(&l, pieces, PIECES, heard), used);
		assert_memory_equal(text, heard, used);
	}
	link_close(&l);
	scene_close(&s);
	free(text);
	free(heard);
}

static void small_pieces_share_a_record(void **state) {
	struct iovec pieces[50];
	struct scene s;
	struct link l;
	size_t n;
	scene_open(&s);
	link_open_scene(&l, &s, "a.example");
	assert_true(link_shakes(&l));
	for (size_t i = 0; i < n_elems(pieces); i++)
		pieces[i] = (struct iovec){ "0123456789", 10 };
	uint64_t before = tls_sent_bytes(l.server);
	assert_int_equal(tls_write(l.server, pieces, n_elems(pieces), &n), 0);
	assert_int_equal(n, 500);
	assert_int_equal(tls_sent_bytes(l.server) - before, 500 + 22); /* head, type and tag of one */
	link_close(&l);
	scene_close(&s);
}

static void a_farewell_waits_for_room(void **state) {
	static char filler[16384];
	struct iovec piece = { filler, sizeof(filler) };
	struct scene s;
	struct link l;
	size_t n;
	int small = 4096, r = 0;
	scene_open(&s);
	link_open_scene(&l, &s, "a.example");
	assert_true(link_shakes(&l));
	setsockopt(l.fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	while (r == 0)
		r = tls_write(l.server, &piece, 1, &n);
	assert_int_equal(r, TLS_E_AGAIN);
	while (r == TLS_E_AGAIN) { /* that record first; the next is not begun */
		char room[16384];
		size_t got;
		assert_true(tls_read(l.client, room, sizeof(room), &got) <= TLS_E_AGAIN);
		r = tls_write(l.server, &piece, 1, &n);
	}
	while (send(l.fds[0], "x", 1, MSG_DONTWAIT) == 1)
		; /* the socket is full of what is no record of ours */
	assert_int_equal(tls_finish(l.server), TLS_E_AGAIN);
	assert_true(tls_wants_write(l.server));
	assert_int_equal(hears(l.server), TLS_E_AGAIN);
	assert_true(tls_wants_write(l.server)); /* reading does not make it forget */
	char room[65536];
	while (recv(l.fds[1], room, sizeof(room), MSG_DONTWAIT) > 0)
		;
	assert_int_equal(tls_finish(l.server), 0);
	assert_false(tls_wants_write(l.server));
	assert_true(recv(l.fds[1], room, sizeof(room), MSG_DONTWAIT) > 0);
	link_close(&l);
	scene_close(&s);
}

/* --- files ------------------------------------------------------------------------------- */

static void assert_refused(const struct tls_server_files *files, const char *path, const char *what) {
	char why[TLS_WHY_BYTES], expected[TLS_WHY_BYTES];
	snprintf(expected, sizeof(expected), "%s: %s", path, what);
	assert_null(tls_server_new(files, why));
	assert_string_equal(why, expected);
}

static void what_is_wrong_with_a_file_is_said(void **state) {
	struct scene s;
	scene_open(&s);
	s.files[1] = (struct tls_files){ "/no/such", "/no/such" };
	assert_refused(&s.server_files, "/no/such", "No such file or directory");
	s.files[1] = (struct tls_files){ s.a->path, "/dev/null" };
	assert_refused(&s.server_files, "/dev/null", "there is no private key in it");
	s.files[1] = (struct tls_files){ "/dev/null", s.a->path };
	assert_refused(&s.server_files, "/dev/null", "there is no certificate in it");
	s.files[1] = (struct tls_files){ s.a->path, s.wild->path };
	assert_refused(&s.server_files, s.wild->path, "key values mismatch");
	s.files[1] = s.files[0];
	s.server_files.client_ca = "/dev/null";
	assert_refused(&s.server_files, "/dev/null", "no certificate or crl found");

	FILE *out = fopen(s.stranger->path, "w");
	PEM_write_PrivateKey(
	    out, s.a->key, EVP_aes_128_cbc(), (const unsigned char *)"secret", 6, NULL, NULL);
	fclose(out);
	s.files[1] = (struct tls_files){ s.a->path, s.stranger->path };
	s.server_files.client_ca = "";
	assert_refused(&s.server_files, s.stranger->path, "its key has a pass phrase"); /* nobody is asked */

	char why[TLS_WHY_BYTES];
	s.client_files.ca = "/no/such";
	assert_null(tls_client_new(&s.client_files, why));
	assert_string_equal(why, "/no/such: No such file or directory");
	scene_close(&s);
}

static void nothing_counted_is_nothing(void **state) {
	struct tls_server *server = tls_server_ref(NULL);
	struct tls_client *client = tls_client_ref(NULL);
	struct tls *t = NULL;
	tls_server_unref(&server);
	tls_client_unref(&client);
	tls_free(&t);
	assert_null(t);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_sides_hear_each_other),
		cmocka_unit_test(a_handshake_goes_byte_by_byte),
		cmocka_unit_test(a_name_finds_its_certificate),
		cmocka_unit_test(who_is_not_meant_is_refused),
		cmocka_unit_test(old_versions_and_ciphers_are_refused),
		cmocka_unit_test(only_our_protocol_is_chosen),
		cmocka_unit_test(clients_must_show_who_they_are),
		cmocka_unit_test(what_is_not_tls_is_refused),
		cmocka_unit_test(a_garbled_hello_opens_nothing),
		cmocka_unit_test(nobody_shakes_hands_again),
		cmocka_unit_test(a_ticket_is_good_for_its_name_alone),
		cmocka_unit_test(an_end_without_a_word_is_a_cut),
		cmocka_unit_test(a_record_that_is_not_whole_is_never_heard),
		cmocka_unit_test(pieces_of_all_sizes_arrive_in_order),
		cmocka_unit_test(small_pieces_share_a_record),
		cmocka_unit_test(a_farewell_waits_for_room),
		cmocka_unit_test(what_is_wrong_with_a_file_is_said),
		cmocka_unit_test(nothing_counted_is_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
