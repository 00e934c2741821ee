/*
 * The socket side of a conn: recording events, reading, writing, the output queue.
 *
 * Three habits keep this at the cost of bare epoll: the interest set hardly ever
 * changes, a short read is not followed by another one, and a send is tried before
 * anybody waits for a writable socket.
 */
#include "net/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define SEND_IOV_MAX 64
#define OUT_BUF_MIN  1024

#define KEEP_ALIVE_IDLE_S     60
#define KEEP_ALIVE_INTERVAL_S 15
#define KEEP_ALIVE_COUNT      4

static int conn_interest(const struct conn *c) {
	int interest = c->hears_close ? UV_DISCONNECT : 0;
	if (c->tls && tls_is_shaking(c->tls)) /* what the owner wants comes later */
		return interest | (tls_wants_write(c->tls) ? UV_WRITABLE : UV_READABLE);
	if (c->wants_read)
		interest |= UV_READABLE;
	if (c->out || c->state == CONN_CONNECTING || (c->tls && tls_wants_write(c->tls)))
		interest |= UV_WRITABLE;
	/* Who wants nothing still hears of a reset, which every registered socket reports. */
	return interest || c->has_failed ? interest : UV_PRIORITIZED;
}

static void conn_on_event(uv_poll_t *poll, int status, int events);

static void conn_apply_interest(struct conn *c, int interest) {
	if (interest == c->interest && uv_is_active((uv_handle_t *)&c->poll))
		return;
	c->interest = (uint8_t)interest;
	if (interest)
		uv_poll_start(&c->poll, interest, conn_on_event);
	else
		uv_poll_stop(&c->poll);
}

static void conn_flush(struct conn *c);

/* One step of the handshake. The first bytes have often come with its last ones. */
static void conn_shake(struct conn *c) {
	int r = tls_shake(c->tls);
	c->sent_bytes = tls_sent_bytes(c->tls);
	if (r == 0) {
		c->state = CONN_OPEN;
		c->can_read = true;
		conn_flush(c);
	} else if (r != TLS_E_AGAIN) {
		c->is_broken = c->can_read = true;
	}
	conn_apply_interest(c, conn_interest(c));
}

static void conn_on_connected(struct conn *c) {
	int error = 0;
	socklen_t len = sizeof(error);
	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error)
		c->is_broken = true;
	else if (c->tls) {
		conn_shake(c);
		return;
	} else
		c->state = CONN_OPEN;
	conn_flush(c);
	conn_apply_interest(c, conn_interest(c));
}

static void conn_on_connecting_event(struct conn *c, int events) {
	if (c->tls && tls_is_shaking(c->tls))
		conn_shake(c);
	else if (events & (UV_WRITABLE | UV_DISCONNECT))
		conn_on_connected(c);
}

static void conn_on_writable(struct conn *c) {
	conn_flush(c);
	if (unlikely(c->tls) && !c->out && tls_wants_write(c->tls)) /* who reads, or ends, goes on */
		c->can_read = true;
}

static void conn_on_event(uv_poll_t *poll, int status, int events) {
	struct conn *c = container_of(poll, struct conn, poll);

	if (status < 0 || events & UV_PRIORITIZED) { /* an error; the next read tells EOF from reset */
		c->interest = 0;
		uv_poll_stop(poll);
		c->can_read = c->peer_closed = c->has_failed = true;
		if (c->state == CONN_CONNECTING)
			c->is_broken = true;
		loop_wake(c->loop, c->job);
		return;
	}
	if (c->state == CONN_CONNECTING) {
		conn_on_connecting_event(c, events);
		loop_wake(c->loop, c->job);
		return;
	}
	if (events & UV_WRITABLE)
		conn_on_writable(c);
	if (events & UV_READABLE) {
		c->can_read = true;
		if (unlikely(c->tls) && !c->wants_read && tls_hears_end(c->tls)) /* a FIN may never follow */
			c->peer_closed = true;
	}
	if (events & UV_DISCONNECT) {
		c->peer_closed = c->can_read = true;
		c->hears_close = false; /* level-triggered: once is enough */
	}
	if (!c->wants_read || events & UV_DISCONNECT)
		conn_apply_interest(c, conn_interest(c));
	loop_wake(c->loop, c->job);
}

static int conn_start(struct conn *c, struct loop *l, int fd, struct job *job,
    void (*on_closed)(struct conn *), enum conn_state state) {
	*c = (struct conn){ .loop = l,
		.job = job,
		.on_closed = on_closed,
		.fd = fd,
		.wants_read = true,
		.hears_close = true };
	c->state = (uint8_t)state;
	int r = uv_poll_init(&l->uv, &c->poll, fd);
	if (r < 0) {
		close(fd);
		return r;
	}
	conn_apply_interest(c, conn_interest(c));
	return 0;
}

int conn_open(struct conn *c, struct loop *l, int fd, struct job *job, void (*on_closed)(struct conn *)) {
	return conn_start(c, l, fd, job, on_closed, CONN_OPEN);
}

void conn_keep_alive(int fd) {
	int on = 1, idle_s = KEEP_ALIVE_IDLE_S, interval_s = KEEP_ALIVE_INTERVAL_S, count = KEEP_ALIVE_COUNT;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

int conn_connect(struct conn *c, struct loop *l, const struct sockaddr *addr, struct job *job,
    void (*on_closed)(struct conn *)) {
	socklen_t len =
	    addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, addr, len) < 0 && errno != EINPROGRESS) {
		int error = errno;
		close(fd);
		return -error;
	}
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	conn_keep_alive(fd);
	return conn_start(c, l, fd, job, on_closed, CONN_CONNECTING);
}

void conn_secure(struct conn *c, struct tls *tls) {
	assert(!c->tls && c->state != CONN_CLOSED && !c->out);
	c->tls = tls;
	tls_bind(tls, c->fd);
	if (c->state == CONN_CONNECTING)
		return;
	c->state = CONN_CONNECTING;
	conn_shake(c); /* the first bytes are often here */
	if (c->is_broken)
		loop_wake(c->loop, c->job);
}

const char *conn_tls_failure(const struct conn *c) {
	return c->tls ? tls_failure(c->tls) : NULL;
}

static void conn_drop_out(struct conn *c) {
	while (c->out) {
		struct conn_out *o = c->out;
		c->out = o->next;
		buf_unref(&c->loop->bufs, &o->buf);
		slab_put(&c->loop->outs, o);
	}
	c->out_last = NULL;
	c->out_bytes = 0;
}

static void conn_on_handle_closed(uv_handle_t *handle) {
	struct conn *c = container_of((uv_poll_t *)handle, struct conn, poll);
	c->on_closed(c);
}

void conn_close(struct conn *c) {
	if (c->state == CONN_CLOSED)
		return;
	c->state = CONN_CLOSED;
	conn_drop_out(c);
	c->unread = (struct slice){ NULL, 0 };
	buf_unref(&c->loop->bufs, &c->stash);
	if (c->loop->read_owner == c)
		c->loop->read_owner = NULL;
	tls_free(&c->tls);
	uv_close((uv_handle_t *)&c->poll, conn_on_handle_closed);
	close(c->fd);
	c->fd = -1;
}

void conn_reset(struct conn *c) {
	if (c->state == CONN_CLOSED)
		return;
	struct linger now = { .l_onoff = 1 };
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	conn_close(c);
}

void conn_shutdown(struct conn *c) {
	assert(!c->out);
	if (c->tls && tls_finish(c->tls) == TLS_E_AGAIN) {
		conn_apply_interest(c, conn_interest(c));
		return;
	}
	shutdown(c->fd, SHUT_WR);
}

/* Moves what another conn left in the thread's read buffer to where it may stay. */
static void conn_park(struct conn *c, size_t room) {
	struct loop *l = c->loop;
	if (l->read_owner == c)
		l->read_owner = NULL;
	size_t need = c->unread.n + room;
	if (need == 0)
		return;
	if (c->stash && c->unread.p == c->stash->data && need <= c->stash->size)
		return;
	struct buf *b = buf_new_forced(&l->bufs, need);
	assert(need <= b->size);
	memcpy(b->data, c->unread.p, c->unread.n);
	buf_unref(&l->bufs, &c->stash);
	c->stash = b;
	c->unread.p = b->data;
}

/* An end that TLS has read out of the socket already makes no event. */
static int conn_read_tls(struct conn *c, char *at, size_t max, size_t *n_out) {
	if (c->state == CONN_CONNECTING) {
		c->can_read = false;
		return c->is_broken ? CONN_E_BROKEN : CONN_E_AGAIN;
	}
	int r = tls_read(c->tls, at, max, n_out);
	if (r == 0)
		c->can_read = *n_out == max || c->peer_closed || tls_has_ended(c->tls);
	else if (r == TLS_E_AGAIN)
		c->can_read = false;
	if (r == TLS_E_BROKEN)
		c->is_broken = true;
	if (r == TLS_E_AGAIN)
		conn_want_read(c, true);
	if (tls_wants_write(c->tls))
		conn_apply_interest(c, conn_interest(c));
	_Static_assert((int)TLS_E_AGAIN == CONN_E_AGAIN && (int)TLS_E_EOF == CONN_E_EOF, "one and the same");
	return r > TLS_E_EOF ? CONN_E_BROKEN : r;
}

static int conn_read(struct conn *c, char *at, size_t max, size_t *n_out) {
	if (unlikely(c->tls))
		return conn_read_tls(c, at, max, n_out);
	ssize_t n = recv(c->fd, at, max, 0);
	if (n > 0) {
		if ((size_t)n < max && !c->peer_closed)
			c->can_read = false;
		*n_out = (size_t)n;
		return 0;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->can_read = false;
		conn_want_read(c, true);
		return CONN_E_AGAIN;
	}
	if (n == 0)
		return CONN_E_EOF;
	c->is_broken = true;
	return CONN_E_BROKEN;
}

void conn_relax(struct conn *c) {
	if (!c->unread.n)
		buf_unref(&c->loop->bufs, &c->stash);
}

void conn_look(struct conn *c) {
	c->can_read = true;
}

int conn_fill(struct conn *c, size_t max) {
	struct loop *l = c->loop;
	if (c->unread.n)
		return 0;
	buf_unref(&l->bufs, &c->stash);
	if (!c->can_read)
		return CONN_E_AGAIN;
	if (l->read_owner && l->read_owner != c)
		conn_park(l->read_owner, 0);
	size_t n = 0;
	int r = conn_read(c, l->read_buf, size_min(max, LOOP_READ_BYTES), &n);
	c->unread = (struct slice){ l->read_buf, n };
	l->read_owner = n ? c : NULL;
	return r;
}

int conn_more(struct conn *c, size_t limit) {
	if (!c->unread.n)
		return conn_fill(c, limit);
	if (!c->can_read)
		return CONN_E_AGAIN;
	if (c->unread.n >= limit)
		return CONN_E_FULL;
	size_t room = size_min(limit - c->unread.n, size_max(c->unread.n, OUT_BUF_MIN));
	conn_park(c, room);
	size_t n = 0;
	int r = conn_read(c, c->stash->data + c->unread.n, room, &n);
	c->unread.n += n;
	return r;
}

static void conn_enqueue(struct conn *c, const char *p, size_t n, struct buf *owned) {
	struct conn_out *o = slab_get(&c->loop->outs);
	*o = (struct conn_out){ .buf = owned, .p = p, .n = n };
	if (c->out_last)
		c->out_last->next = o;
	else
		c->out = o;
	c->out_last = o;
	c->out_bytes += n;
}

/* Keeps a piece that the socket did not take. */
static void conn_keep(struct conn *c, const char *p, size_t n, struct buf *owner) {
	if (owner) {
		conn_enqueue(c, p, n, buf_ref(owner));
		return;
	}
	while (n) {
		struct buf *b = c->out_last ? c->out_last->buf : NULL;
		bool ours = b && b->n_refs == 1 && c->out_last->p + c->out_last->n == b->data + b->used;
		if (!ours || !buf_room(b)) {
			b = buf_new_forced(&c->loop->bufs, n);
			conn_enqueue(c, b->data, 0, b);
		}
		size_t part = size_min(n, buf_room(b));
		memcpy(b->data + b->used, p, part);
		b->used += (uint32_t)part;
		c->out_last->n += part;
		c->out_bytes += part;
		p += part;
		n -= part;
	}
}

static ssize_t conn_write_tls(struct conn *c, const struct iovec *iov, size_t n) {
	size_t taken = 0;
	int r = tls_write(c->tls, iov, n, &taken);
	c->sent_bytes = tls_sent_bytes(c->tls);
	if (r == 0 || r == TLS_E_AGAIN)
		return (ssize_t)taken;
	c->is_broken = c->can_read = true;
	return -1;
}

/* Bytes taken by the socket, 0 when it takes none now, -1 when it is broken. */
static ssize_t conn_write(struct conn *c, const struct iovec *iov, size_t n) {
	if (unlikely(c->tls))
		return conn_write_tls(c, iov, n);
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };
	ssize_t sent = n == 1 ? send(c->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
			      : sendmsg(c->fd, &msg, MSG_NOSIGNAL);
	if (sent >= 0) {
		c->sent_bytes += (size_t)sent;
		return sent;
	}
	if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)
		return 0;
	c->is_broken = c->can_read = true; /* what the peer said before may still be read */
	return -1;
}

static void conn_out_taken(struct conn *c, size_t sent) {
	c->out_bytes -= sent;
	while (c->out && sent >= c->out->n) {
		struct conn_out *o = c->out;
		sent -= o->n;
		c->out = o->next;
		buf_unref(&c->loop->bufs, &o->buf);
		slab_put(&c->loop->outs, o);
	}
	if (!c->out)
		c->out_last = NULL;
	else
		c->out->p += sent, c->out->n -= sent;
}

/* The socket can take more. */
static void conn_flush(struct conn *c) {
	struct iovec iov[SEND_IOV_MAX];
	size_t n = 0;
	for (struct conn_out *o = c->out; o && n < SEND_IOV_MAX; o = o->next)
		iov[n++] = (struct iovec){ (char *)o->p, o->n };
	if (!n)
		return;
	ssize_t sent = conn_write(c, iov, n);
	if (sent < 0)
		conn_drop_out(c);
	else
		conn_out_taken(c, (size_t)sent);
	if (!c->out)
		conn_apply_interest(c, conn_interest(c));
}

int conn_send(struct conn *c, const struct piece *pieces, size_t n) {
	size_t i = 0, done = 0; /* `done` bytes of pieces[i] are taken */

	while (i < n && !c->out && c->state == CONN_OPEN && !c->is_broken) {
		struct iovec iov[SEND_IOV_MAX];
		size_t n_iov = 0, bytes = 0;
		for (size_t k = i; k < n && n_iov < SEND_IOV_MAX; k++) {
			size_t skip = k == i ? done : 0;
			iov[n_iov++] = (struct iovec){ (char *)pieces[k].p + skip, pieces[k].n - skip };
			bytes += pieces[k].n - skip;
		}
		ssize_t sent = conn_write(c, iov, n_iov);
		if (sent < 0)
			break;
		size_t left = (size_t)sent;
		while (i < n && left >= pieces[i].n - done) {
			left -= pieces[i].n - done;
			done = 0;
			i++;
		}
		done += left;
		if ((size_t)sent < bytes)
			break;
	}
	if (c->is_broken)
		return CONN_E_BROKEN;
	for (; i < n; i++, done = 0)
		if (pieces[i].n > done)
			conn_keep(c, pieces[i].p + done, pieces[i].n - done, pieces[i].owner);
	if (c->out)
		conn_apply_interest(c, conn_interest(c));
	return 0;
}

void conn_want_read(struct conn *c, bool wants) {
	c->wants_read = wants;
	if (wants && !(c->interest & UV_READABLE) && c->state != CONN_CLOSED)
		conn_apply_interest(c, conn_interest(c));
}

void conn_ignore_peer_close(struct conn *c) {
	c->peer_closed = false;
}
