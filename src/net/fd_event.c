#include "net/fd_event.h"

#include <stdlib.h>

/* Outlives the event until libuv has closed it. */
struct fd_handle {
	uv_poll_t poll;
	struct fd_event *event;
};

static void fd_event_on_poll(uv_poll_t *poll, int status, int events) {
	struct fd_event *e = container_of(poll, struct fd_handle, poll)->event;
	(void)events;
	if (status < 0) /* libuv has stopped it; the next read says what is wrong */
		uv_poll_stop(poll);
	loop_wake(e->loop, e->job);
}

static void fd_event_on_closed(uv_handle_t *handle) {
	free(container_of((uv_poll_t *)handle, struct fd_handle, poll));
}

int fd_event_open(struct fd_event *e, struct loop *loop, int fd, struct job *job) {
	struct fd_handle *h = calloc(1, sizeof(*h));
	*e = (struct fd_event){ .loop = loop, .job = job };
	int r = uv_poll_init(&loop->uv, &h->poll, fd);
	if (r < 0) {
		free(h);
		return r;
	}
	h->event = e;
	e->handle = h;
	fd_event_start(e);
	return 0;
}

void fd_event_stop(struct fd_event *e) {
	if (e->handle)
		uv_poll_stop(&e->handle->poll);
}

void fd_event_start(struct fd_event *e) {
	if (e->handle)
		uv_poll_start(&e->handle->poll, UV_READABLE | UV_DISCONNECT, fd_event_on_poll);
}

void fd_event_close(struct fd_event *e) {
	if (!e->handle)
		return;
	uv_close((uv_handle_t *)&e->handle->poll, fd_event_on_closed);
	e->handle = NULL;
}
