#include "net/zmq_inbox.h"

#include <errno.h>
#include <unistd.h>

#include <zmq.h>

#define BATCH        64 /* messages at a time */
#define PAUSE_MS     10 /* behind a whole batch */
#define HANDSHAKE_MS 5000

/* --- one message --------------------------------------------------------------------------- */

/* False: there is none. */
static bool inbox_part(struct zmq_inbox *b, zmq_msg_t *part) {
	zmq_msg_init(part);
	return zmq_msg_recv(part, b->socket, ZMQ_DONTWAIT) >= 0;
}

/* Behind the identity that libzmq puts in front. False: there is no message. */
static bool inbox_receive(struct zmq_inbox *b) {
	zmq_msg_t part;
	unsigned n = 0;
	bool is_good = true;
	size_t n_front = 0; /* bytes of what stands before the last part */

	if (!inbox_part(b, &part))
		return false;
	while (zmq_msg_more(&part)) { /* they have all come */
		n_front += n ? zmq_msg_size(&part) : 0;
		zmq_msg_close(&part);
		if (!inbox_part(b, &part))
			break;
		n++;
	}
	is_good = n == 1 || (n == 2 && n_front == 0);
	b->on_message(b, (struct slice){ zmq_msg_data(&part), is_good ? zmq_msg_size(&part) : 0 });
	zmq_msg_close(&part);
	return true;
}

static void inbox_run(struct job *job) {
	struct zmq_inbox *b = container_of(job, struct zmq_inbox, job);
	unsigned n = 0;

	while (n < BATCH && b->socket && inbox_receive(b))
		n++;
	if (n < BATCH || !b->socket)
		return;
	fd_event_stop(&b->event);
	loop_timer(b->loop, &b->pause, PAUSE_MS);
}

/* The descriptor tells of news alone, and not of what is left. */
static void inbox_on_pause(struct timer *t) {
	struct zmq_inbox *b = container_of(t, struct zmq_inbox, pause);

	fd_event_start(&b->event);
	loop_wake(b->loop, &b->job);
}

/* --- its socket ---------------------------------------------------------------------------- */

static bool inbox_set(struct zmq_inbox *b, int option, int value) {
	return zmq_setsockopt(b->socket, option, &value, sizeof(value)) == 0;
}

/* A peer that comes back under its name takes the place of the one that it was. */
static bool inbox_configure(struct zmq_inbox *b, size_t part_bytes_max) {
	int64_t bytes = (int64_t)part_bytes_max;

	return zmq_setsockopt(b->socket, ZMQ_MAXMSGSIZE, &bytes, sizeof(bytes)) == 0 &&
	    inbox_set(b, ZMQ_RCVHWM, ZMQ_INBOX_PEER_MESSAGES) && inbox_set(b, ZMQ_SNDHWM, 1) &&
	    inbox_set(b, ZMQ_LINGER, 0) && inbox_set(b, ZMQ_ROUTER_HANDOVER, 1) &&
	    inbox_set(b, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) && inbox_set(b, ZMQ_TCP_KEEPALIVE, 1);
}

/* With ZMQ_USE_FD the address says no more than what kind of socket it is. */
static bool inbox_listen(struct zmq_inbox *b, int fd, size_t part_bytes_max) {
	b->context = zmq_ctx_new();
	b->socket = b->context ? zmq_socket(b->context, ZMQ_ROUTER) : NULL;
	return b->socket && inbox_configure(b, part_bytes_max) && inbox_set(b, ZMQ_USE_FD, fd) &&
	    zmq_bind(b->socket, "tcp://127.0.0.1:1") == 0;
}

static int inbox_watch(struct zmq_inbox *b) {
	int events_fd;
	size_t size = sizeof(events_fd);

	if (zmq_getsockopt(b->socket, ZMQ_FD, &events_fd, &size) != 0)
		return -zmq_errno();
	return fd_event_open(&b->event, b->loop, events_fd, &b->job);
}

int zmq_inbox_open(struct zmq_inbox *b, struct loop *loop, int fd, size_t part_bytes_max) {
	b->loop = loop;
	job_init(&b->job, inbox_run);
	timer_init(&b->pause, inbox_on_pause);
	bool is_listening = inbox_listen(b, fd, part_bytes_max);
	int r = is_listening ? inbox_watch(b) : -zmq_errno();
	if (!is_listening)
		close(fd);
	if (r < 0)
		zmq_inbox_close(b);
	else
		loop_wake(loop, &b->job); /* what came before the descriptor was watched */
	return r;
}

void zmq_inbox_close(struct zmq_inbox *b) {
	if (b->loop) {
		timer_stop(&b->pause);
		job_cancel(&b->job);
		fd_event_close(&b->event);
	}
	if (b->socket)
		zmq_close(b->socket);
	b->socket = NULL;
	while (b->context && zmq_ctx_term(b->context) != 0 && zmq_errno() == EINTR)
		;
	b->context = NULL;
}
