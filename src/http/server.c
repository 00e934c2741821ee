/*
 * Sessions: one function a state, run by the session's job while no request is at
 * work. While one is, the job is out of play: the conn wakes the call's owner.
 */
#include "http/server.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>

#include "http/reply.h"

#define LINGER_MS        2000
#define LINGER_BYTES_MAX (1u << 20)
#define TRIM_MS          5000
#define HANDSHAKE_MS     5000
#define FAREWELL_MS      1000
#define SPARED_MS        1000 /* for the first request to come, or the next: nobody is ended for another before */
#define LOOKS_MAX        8    /* at clients that turn out not to be silent */
#define HUNGRY_HEAD_MAX  4096 /* bytes of an incomplete head that are kept while memory is short */

static void session_run(struct job *job);

static const struct head no_head = { .base = "" };

struct door {
	struct listener listener;
	struct server *server;
	struct list link;
};

/* Gives its place back, which may be what any of the doors waits for. */
static void server_client_gone(struct server *s) {
	struct list *first = list_first(&s->doors);
	list_each (it, &s->doors) {
		struct listener *l = &container_of(it, struct door, link)->listener;
		if (it == first)
			listener_client_gone(l);
		else
			listener_resume(l);
	}
}

static void session_on_closed(struct conn *c) {
	struct session *s = container_of(c, struct session, conn);
	slab_put(&s->server->slab, s);
}

static void server_count(struct server *s, int change) {
	uint32_t n = atomic_load_explicit(&s->n_sessions, memory_order_relaxed);
	atomic_store_explicit(&s->n_sessions, n + (uint32_t)change, memory_order_relaxed);
}

/* The one way to change it. Also to the state that it is in: from now on. */
static void session_set_state(struct session *s, enum session_state state) {
	assert(s->state != SESSION_CLOSED);
	list_remove(&s->link);
	s->state = (uint8_t)state;
	if (state == SESSION_CALL || state == SESSION_CLOSED)
		return;
	s->since_ms = loop_now_ms(s->conn.loop);
	list_push(&s->server->sessions[state], &s->link);
}

static void session_close(struct session *s, bool reset) {
	if (s->state == SESSION_HANDSHAKE)
		s->server->n_handshakes--;
	session_set_state(s, SESSION_CLOSED);
	timer_stop(&s->timer);
	job_cancel(&s->job);
	server_count(s->server, -1);
	if (reset)
		conn_reset(&s->conn);
	else
		conn_close(&s->conn);
	server_client_gone(s->server);
}

/* What is still to be sent is lost: its missing end must be seen, however the answer is framed. */
static void session_give_up(struct session *s) {
	session_close(s, s->conn.out);
}

/* Everything is said: FIN, then wait for the client's, so that unread input does not turn into a reset. */
static void session_linger(struct session *s) {
	session_set_state(s, SESSION_LINGER);
	s->conn.job = &s->job;
	loop_timer(s->conn.loop, &s->timer, LINGER_MS);
	if (!s->conn.out)
		conn_shutdown(&s->conn);
	conn_want_read(&s->conn, true);
	loop_wake(s->conn.loop, &s->job);
}

/*
 * Between requests. A request that has come since the last poll is answered instead: closed upon, it would be
 * reset and lost. A client with TLS is told, so that it sees no cut.
 */
static void session_dismiss(struct session *s) {
	conn_look(&s->conn);
	if (conn_fill(&s->conn, LOOP_READ_BYTES) == 0)
		loop_wake(s->conn.loop, &s->job);
	else if (s->conn.tls)
		session_linger(s);
	else
		session_close(s, false);
}

/* head: what was read of the request's. */
static void session_refuse(struct session *s, const struct head *head, enum cause cause) {
	struct call call;
	struct reply reply = { .closes = true, .is_head = head->method == METHOD_HEAD };
	struct slice path = head->target_n ? head_path(head) : SLICE("");
	enum reply_dialect dialect = reply_dialect((enum reply_dialect)s->server->dialect, path);
	reply.is_final = reply_is_final(cause, reply_error(cause, dialect).status);
	if (s->server->handler->refused)
		s->server->handler->refused(s->server, head, cause, &reply);
	call_init(&call, &s->conn, FRAMING_NONE, 0);
	bool sent = reply_refuse(&call, &reply, cause, NULL, dialect) == 0;
	call_deinit(&call);
	s->conn.unread.n = 0;
	if (sent)
		session_linger(s);
	else
		session_close(s, true);
}

static void session_run_head(struct session *s);

static void session_on_timer(struct timer *t) {
	struct session *s = container_of(t, struct session, timer);
	if (s->state == SESSION_HEAD) {
		if (s->conn.can_read) /* perhaps it is we who are late: what came is looked at, once */
			session_run_head(s);
		if (s->state == SESSION_HEAD)
			session_refuse(s, &no_head, CAUSE_HEAD_TIMEOUT);
	} else if (s->state == SESSION_IDLE && s->conn.can_read)
		loop_timer(s->conn.loop, &s->timer, s->server->limits.head_ms);
	else if (s->state == SESSION_IDLE)
		session_dismiss(s);
	else if (s->state != SESSION_CALL) /* running on during a call is cheaper than stopping for each */
		session_give_up(s);
}

static void session_begin(struct session *s, const struct head *head) {
	struct job *owner = s->server->handler->begin(s->server, s, head);
	assert(s->state == SESSION_CALL && s->conn.job == owner);
	conn_consume(&s->conn, head->bytes);
	job_cancel(owner);
	owner->run(owner); /* now: the body's first bytes stand in the read buffer */
}

/* One empty line before a request line is ignored (RFC 9112 section 2.2). False: there is nothing else yet.
 */
static bool session_skip_blank(struct session *s) {
	if (!s->has_skipped && s->seen_bytes <= 1 && slice_has_prefix(s->conn.unread, SLICE("\r\n"))) {
		conn_consume(&s->conn, 2);
		s->has_skipped = true;
		s->seen_bytes = 0;
	}
	return s->conn.unread.n > 0 && !slice_eq(s->conn.unread, SLICE("\r"));
}

/* Looks for a complete head in what has come. */
static void session_run_head(struct session *s) {
	int r = conn_fill(&s->conn, LOOP_READ_BYTES);
	while (r == 0) {
		struct head_room room;
		enum cause cause = CAUSE_NONE;
		int parsed = HEAD_E_MORE;
		if (session_skip_blank(s) && head_is_worth_parsing(s->conn.unread, &s->seen_bytes))
			parsed = head_parse_request(&room, s->conn.unread, &cause);
		if (parsed == 0) {
			session_begin(s, &room.head);
			return;
		}
		if (parsed == HEAD_E_REFUSED) {
			session_refuse(s, &room.head, cause);
			return;
		}
		if (s->state == SESSION_IDLE && s->conn.unread.n) {
			session_set_state(s, SESSION_HEAD);
			timer_stop(&s->timer); /* the keep-alive deadline may be later than this one */
			loop_timer(s->conn.loop, &s->timer, s->server->limits.head_ms);
		}
		if (s->conn.unread.n > HUNGRY_HEAD_MAX && buf_is_over_budget(&s->conn.loop->bufs)) {
			session_refuse(s, &no_head, CAUSE_OVERLOADED);
			return;
		}
		r = conn_more(&s->conn, HEAD_BYTES_MAX);
	}
	assert(r != CONN_E_FULL);
	if (r != CONN_E_AGAIN)
		session_close(s, false);
}

/* Reads and throws away until the client closes, or sends too much. */
static void session_run_linger(struct session *s) {
	if (s->conn.is_broken) {
		session_close(s, false);
		return;
	}
	if (!s->conn.out)
		conn_shutdown(&s->conn);
	int r = conn_fill(&s->conn, LOOP_READ_BYTES);
	s->lingered_bytes += (uint32_t)s->conn.unread.n;
	conn_consume(&s->conn, s->conn.unread.n);
	if ((r && r != CONN_E_AGAIN) || s->lingered_bytes > LINGER_BYTES_MAX)
		session_give_up(s);
}

/* Over it the client's first request has the time that it would have had without. */
static void session_run_handshake(struct session *s) {
	if (s->conn.is_broken) {
		session_close(s, false);
		return;
	}
	if (s->conn.state == CONN_CONNECTING)
		return;
	session_set_state(s, SESSION_IDLE);
	s->server->n_handshakes--;
	timer_stop(&s->timer);
	loop_timer(s->conn.loop, &s->timer, s->server->is_closing ? FAREWELL_MS : s->server->limits.head_ms);
	session_run_head(s);
}

static void session_run(struct job *job) {
	struct session *s = container_of(job, struct session, job);
	if (s->state == SESSION_HANDSHAKE)
		session_run_handshake(s);
	else if (s->state == SESSION_LINGER)
		session_run_linger(s);
	else if (s->state == SESSION_IDLE || s->state == SESSION_HEAD)
		session_run_head(s);
}

void session_take(struct session *s, struct call *call, struct job *job, const struct head *head) {
	assert(s->state == SESSION_IDLE || s->state == SESSION_HEAD);
	session_set_state(s, SESSION_CALL);
	s->n_requests++;
	s->seen_bytes = 0;
	s->has_skipped = false;
	s->conn.job = job;
	call_init(call, &s->conn, (enum framing)head->framing, head->content_length);
	conn_want_read(&s->conn, !call_is_received(call)); /* what is pipelined behind waits in the socket */
}

void session_next(struct call *call, bool keep) {
	struct session *s = session_of(call);
	assert(s->state == SESSION_CALL);
	bool received = call_is_received(call);
	call_deinit(call);
	conn_relax(&s->conn);
	s->conn.job = &s->job;
	if (!keep || !received || s->server->is_closing) {
		session_linger(s);
		return;
	}
	session_set_state(s, SESSION_IDLE);
	loop_timer(s->conn.loop, &s->timer, s->server->limits.keepalive_ms);
	conn_want_read(&s->conn, true);
	if (s->conn.unread.n || s->conn.can_read)
		loop_wake(s->conn.loop, &s->job);
}

void session_abort(struct call *call, bool reset) {
	struct session *s = session_of(call);
	call_deinit(call);
	session_close(s, reset);
}

/* Every request needs it: inet_ntop() formats IPv4 by sprintf. */
static struct slice peer_ipv4(const struct session *s, char room[46]) {
	const uint8_t *octets = (const uint8_t *)&s->peer.in.sin_addr;
	char *p = room, digits[20];
	for (unsigned i = 0; i < 4; i++) {
		struct slice d = call_decimal(octets[i], digits);
		memcpy(p, d.p, d.n);
		p += d.n;
		*p++ = '.';
	}
	return (struct slice){ room, (size_t)(p - 1 - room) };
}

struct slice session_peer(const struct session *s, char room[46]) {
	if (s->peer.sa.sa_family == AF_INET)
		return peer_ipv4(s, room);
	if (!inet_ntop(AF_INET6, &s->peer.in6.sin6_addr, room, 46))
		room[0] = '\0';
	return slice_of(room);
}

/* --- the server ----------------------------------------------------------- */

/* The one that has been in that state for longest, or NULL. */
static struct session *server_longest(struct server *s, enum session_state state) {
	struct list *first = list_first(&s->sessions[state]);
	return first ? container_of(first, struct session, link) : NULL;
}

/* Whoever has been at it for longest gives way: who means it needs milliseconds. */
static void server_limit_handshakes(struct server *s) {
	if (s->n_handshakes >= s->n_handshakes_max)
		session_close(server_longest(s, SESSION_HANDSHAKE), false);
}

/*
 * Ends it for one who waits, unless what has come since the last poll, or is on its way out, says that it is
 * at work. True: its place is free. There is no time to linger: all that came was read, but of a handshake,
 * so that no reset follows.
 */
static bool session_yield(struct session *s) {
	enum session_state state = (enum session_state)s->state;
	uint32_t n_requests = s->n_requests; /* one may come and be answered at once */
	if (state == SESSION_HANDSHAKE) {
		if (s->conn.state != CONN_CONNECTING) /* it is over, and its job is about to see that */
			return false;
	} else {
		conn_look(&s->conn);
		session_run_head(s);
	}
	if (s->state == SESSION_CLOSED)
		return true;
	if (s->state != state || s->n_requests != n_requests || s->conn.out)
		return false;
	if (state == SESSION_HEAD)
		session_refuse(s, &no_head, CAUSE_HEAD_TIMEOUT);
	else if (state == SESSION_IDLE && s->conn.tls)
		conn_shutdown(&s->conn);
	if (s->state != SESSION_CLOSED)
		session_close(s, false);
	return true;
}

/* True: a place is free. */
static bool server_make_room(struct server *s) {
	static const enum session_state order[] = { SESSION_IDLE, SESSION_HEAD, SESSION_HANDSHAKE };
	uint64_t now_ms = loop_now_ms(s->loop);
	for (size_t i = 0; i < n_elems(order); i++)
		for (unsigned k = 0; k < LOOKS_MAX; k++) {
			struct session *longest = server_longest(s, order[i]);
			if (!longest || longest->since_ms + SPARED_MS > now_ms)
				break;
			if (session_yield(longest))
				return true;
			if (longest->state == order[i])
				session_set_state(longest, order[i]); /* the others first */
		}
	return false;
}

/* Somebody waits at a door. Who is ended has the doors opened. */
static void server_on_full(struct job *job) {
	struct server *s = container_of(job, struct server, make_room);
	if (!server_make_room(s))
		atomic_store_explicit(&s->clients->is_awaited, true, memory_order_relaxed);
}

void server_yield(struct server *s) {
	struct client_budget *b = s->clients;
	if (atomic_load_explicit(&b->is_awaited, memory_order_relaxed) &&
	    (!client_budget_is_full(b) || server_make_room(s)))
		atomic_store_explicit(&b->is_awaited, false, memory_order_relaxed);
}

/* Nothing can be read before the handshake is over; it begins at once. */
static void session_secure(struct session *s, struct tls *tls) {
	server_limit_handshakes(s->server);
	s->server->n_handshakes++;
	loop_timer(s->conn.loop, &s->timer, HANDSHAKE_MS);
	session_set_state(s, SESSION_HANDSHAKE);
	conn_secure(&s->conn, tls);
}

static void server_on_accept(struct listener *l, int fd, const struct sockaddr_storage *peer) {
	struct server *server = container_of(l, struct door, listener)->server;
	struct tls *tls = server->tls ? tls_accept(server->tls) : NULL;
	if (server->tls && !tls) {
		close(fd);
		server_client_gone(server);
		return;
	}
	struct session *s = slab_get_zeroed(&server->slab);
	s->server = server;
	memcpy(&s->peer, peer, sizeof(s->peer));
	list_init(&s->link);
	job_init(&s->job, session_run);
	timer_init(&s->timer, session_on_timer);
	if (conn_open(&s->conn, server->loop, fd, &s->job, session_on_closed) < 0) {
		tls_free(&tls);
		slab_put(&server->slab, s);
		server_client_gone(server);
		return;
	}
	server_count(server, 1);
	if (tls) {
		session_secure(s, tls);
		return;
	}
	loop_timer(
	    server->loop, &s->timer, server->limits.head_ms); /* silence at the start is no keep-alive */
	session_set_state(s, SESSION_IDLE);
	s->conn.can_read = true; /* the request has often come with the connection */
	loop_wake(server->loop, &s->job);
}

static void server_on_trim(struct timer *t) {
	struct server *s = container_of(t, struct server, trim);
	slab_trim(&s->slab);
	loop_timer(s->loop, &s->trim, TRIM_MS);
}

int server_open(struct server *s, struct loop *loop, int fd, struct client_budget *budget,
    const struct server_limits *limits, const struct server_handler *handler, void *context) {
	*s = (struct server){ .loop = loop, .handler = handler, .context = context, .limits = *limits };
	for (unsigned i = 0; i < n_elems(s->sessions); i++)
		list_init(&s->sessions[i]);
	job_init(&s->make_room, server_on_full);
	s->n_handshakes_max = SERVER_HANDSHAKES_MAX;
	slab_init(&s->slab, sizeof(struct session));
	timer_init(&s->trim, server_on_trim);
	loop_timer(loop, &s->trim, TRIM_MS);
	s->clients = budget;
	list_init(&s->doors);
	return fd < 0 ? 0 : server_listen(s, fd);
}

int server_listen(struct server *s, int fd) {
	struct door *door = calloc(1, sizeof(*door));
	door->server = s;
	list_init(&door->link);
	list_push(&s->doors, &door->link);
	int r = listener_open(&door->listener, s->loop, fd, s->clients, server_on_accept);
	door->listener.full = &s->make_room;
	return r;
}

void server_leave(struct server *s) {
	list_each (it, &s->doors)
		listener_close(&container_of(it, struct door, link)->listener);
}

void server_drain(struct server *s) {
	if (s->is_closing)
		return;
	server_leave(s);
	s->is_closing = true;
	list_each_safe (it, &s->sessions[SESSION_IDLE]) {
		struct session *session = container_of(it, struct session, link);
		if (!session->n_requests) /* it has just come, perhaps out of the queue: its request may be on
					     the way */
			loop_timer(s->loop, &session->timer, FAREWELL_MS);
		else if (!session->conn.can_read && !session->conn.unread.n)
			session_dismiss(session);
	}
}

void server_end(struct server *s) {
	server_drain(s);
	list_each_safe (it, &s->sessions[SESSION_HEAD])
		session_refuse(container_of(it, struct session, link), &no_head, CAUSE_STOPPING);
}

void server_close(struct server *s) {
	server_drain(s);
	timer_stop(&s->trim);
	job_cancel(&s->make_room);
	for (unsigned i = 0; i < n_elems(s->sessions); i++)
		list_each_safe (it, &s->sessions[i])
			session_give_up(container_of(it, struct session, link));
	assert(atomic_load_explicit(&s->n_sessions, memory_order_relaxed) == 0);
}

void server_deinit(struct server *s) {
	list_each_safe (it, &s->doors)
		free(container_of(it, struct door, link));
	list_init(&s->doors);
	slab_deinit(&s->slab);
}
