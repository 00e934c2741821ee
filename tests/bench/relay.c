/*
 * relay: the floor of the bench. Carries bytes between a client and an engine and
 * looks at none of them: what a proxy costs that does nothing but be there.
 *
 *   relay --port PORT --engines PORT,PORT,...
 *
 * One connection of a client is one connection to an engine, the engines taken in
 * turn. Level-triggered epoll; a read is written on at once, and what the other side
 * does not take is held while reading stops: at most one buffer a direction.
 */
#include <getopt.h>

#include "bench/kit.h"

#define BUFFER_BYTES (64 * 1024)
#define EVENTS_MAX   256

struct side {
	struct pair *pair; /* NULL in the listener's */
	int fd;
	char *held; /* for this side to take; NULL mostly */
	size_t held_at, n_held;
};

struct pair {
	struct side client, engine;
	struct pair *next_dead;
	bool dead;
};

static char buffer[BUFFER_BYTES];
static struct pair *dead_pairs; /* this turn's events may still name them */

static struct side *side_other(struct side *s) {
	return s == &s->pair->client ? &s->pair->engine : &s->pair->client;
}

static void pair_close(struct pair *p) {
	if (p->dead)
		return;
	p->dead = true;
	p->next_dead = dead_pairs;
	dead_pairs = p;
	close(p->client.fd);
	close(p->engine.fd);
	free(p->client.held);
	free(p->engine.held);
}

static void side_watch(int epoll, struct side *s) {
	uint32_t events = (s->held ? EPOLLOUT : 0) | (side_other(s)->held ? 0 : EPOLLIN);

	kit_watch(epoll, EPOLL_CTL_MOD, s->fd, events, s);
}

static void side_hold(struct side *s, const char *bytes, size_t n) {
	s->held = malloc(n);
	if (!s->held)
		kit_die("out of memory");
	memcpy(s->held, bytes, n);
	s->held_at = 0;
	s->n_held = n;
}

static void on_readable(int epoll, struct side *s) {
	struct side *to = side_other(s);
	ssize_t n = recv(s->fd, buffer, sizeof(buffer), 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		pair_close(s->pair); /* nothing is held for the other side: we would not have read */
		return;
	}
	ssize_t sent = send(to->fd, buffer, (size_t)n, MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN) {
		pair_close(s->pair);
		return;
	}
	if (sent < n) {
		size_t done = sent < 0 ? 0 : (size_t)sent;
		side_hold(to, buffer + done, (size_t)n - done);
		side_watch(epoll, s);
		side_watch(epoll, to);
	}
}

static void on_writable(int epoll, struct side *s) {
	ssize_t sent = send(s->fd, s->held + s->held_at, s->n_held - s->held_at, MSG_NOSIGNAL);

	if (sent < 0 && errno != EAGAIN) {
		pair_close(s->pair);
		return;
	}
	s->held_at += sent < 0 ? 0 : (size_t)sent;
	if (s->held_at < s->n_held)
		return;
	free(s->held);
	s->held = NULL;
	side_watch(epoll, s);
	side_watch(epoll, side_other(s));
}

static void on_client(int epoll, int listener, uint16_t engine_port) {
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	kit_nodelay(fd);
	int engine_fd = kit_connect(engine_port);
	if (engine_fd < 0) {
		close(fd);
		return;
	}
	struct pair *p = calloc(1, sizeof(*p));
	if (!p)
		kit_die("out of memory");
	p->client = (struct side){ .pair = p, .fd = fd };
	p->engine = (struct side){ .pair = p, .fd = engine_fd };
	kit_watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, &p->client);
	kit_watch(epoll, EPOLL_CTL_ADD, engine_fd, EPOLLIN, &p->engine);
}

static void on_event(int epoll, struct side *s, uint32_t events) {
	if (s->pair->dead)
		return;
	if (s->held && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		on_writable(epoll, s);
	else if (side_other(s)->held && (events & (EPOLLERR | EPOLLHUP)))
		pair_close(s->pair);
	else
		on_readable(epoll, s);
}

int main(int argc, char **argv) {
	static const struct option options[] = { { "port", 1, 0, 'p' }, { "engines", 1, 0, 'e' }, { 0 } };
	struct kit_ports engines = { .n = 0 };
	uint16_t port = 0;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'p')
			port = (uint16_t)kit_uint(optarg, UINT16_MAX);
		else if (option == 'e')
			engines = kit_ports(optarg);
		else
			return 2;
	}
	if (!port || !engines.n)
		kit_die("usage: relay --port PORT --engines PORT,...");
	kit_raise_limits();

	int epoll = kit_epoll(), listener = kit_listen(port);
	struct side listening = { .fd = listener };
	struct epoll_event events[EVENTS_MAX];
	kit_watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, &listening);
	for (size_t turn = 0;;) {
		int n = epoll_wait(epoll, events, EVENTS_MAX, -1);
		for (int i = 0; i < n; i++) {
			struct side *s = events[i].data.ptr;
			if (s->pair)
				on_event(epoll, s, events[i].events);
			else
				on_client(epoll, listener, engines.port[turn++ % engines.n]);
		}
		while (dead_pairs) {
			struct pair *p = dead_pairs;
			dead_pairs = p->next_dead;
			free(p);
		}
	}
}
