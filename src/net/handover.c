#include "net/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"

#define BATCH      64 /* descriptors in one message; the kernel takes 253 */
#define TEXT_BYTES (BATCH * HANDOVER_WORD_BYTES)
#define ITEMS_MAX  4096
#define WAIT_MS    60000
#define END        "end"

union control {
	struct cmsghdr header; /* for its alignment */
	char room[CMSG_SPACE(BATCH * sizeof(int))];
};

int handover_pair(int fds[2]) {
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0 ? -errno : 0;
}

static int send_message(int channel, struct msghdr *message) {
	ssize_t r;
	do
		r = sendmsg(channel, message, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* Their words, a line each, and they. */
static int give_batch(int channel, const struct handed *items, size_t n) {
	char text[TEXT_BYTES];
	union control control = { .room = { 0 } };
	struct iovec piece = { .iov_base = text };
	struct msghdr message = { .msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = control.room,
		.msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(n * sizeof(int));
	for (size_t i = 0; i < n; i++) {
		size_t bytes = strlen(items[i].what);
		assert(bytes > 0 && bytes < HANDOVER_WORD_BYTES);
		memcpy(text + piece.iov_len, items[i].what, bytes);
		text[piece.iov_len + bytes] = '\n';
		piece.iov_len += bytes + 1;
		memcpy(CMSG_DATA(header) + i * sizeof(int), &items[i].fd, sizeof(int));
	}
	return send_message(channel, &message);
}

int handover_give(int channel, const struct handed *items, size_t n) {
	int r = 0;
	for (size_t i = 0; i < n && r == 0; i += BATCH)
		r = give_batch(channel, items + i, n - i < BATCH ? n - i : BATCH);
	return r == 0 ? handover_say(channel, END) : r;
}

/* --- the other end ---------------------------------------------------------------------- */

/* Adds what came with a message; its text has a line for each. */
static int add_handed(struct handed_list *list, struct slice text, const int *fds, size_t n) {
	struct handed *items = realloc(list->items, (list->n + n) * sizeof(*items));
	assert(items);
	list->items = items;
	for (size_t i = 0; i < n; i++) {
		const char *end = text.n ? memchr(text.p, '\n', text.n) : NULL;
		size_t bytes = end ? (size_t)(end - text.p) : 0;
		struct handed *item = &list->items[list->n++];
		*item = (struct handed){ .fd = fds[i] };
		if (!bytes || bytes >= HANDOVER_WORD_BYTES)
			return -EPROTO; /* the list has all that is open but what follows */
		memcpy(item->what, text.p, bytes);
		text = slice_skip(text, bytes + 1);
	}
	return text.n ? -EPROTO : 0;
}

static void close_all(const int *fds, size_t n) {
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
}

/* 1: it was the last message. */
static int receive_batch(int channel, struct handed_list *list) {
	char text[TEXT_BYTES];
	union control control;
	struct iovec piece = { .iov_base = text, .iov_len = sizeof(text) };
	struct msghdr message = { .msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = control.room,
		.msg_controllen = sizeof(control.room) };
	ssize_t bytes;
	do
		bytes = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
	while (bytes < 0 && errno == EINTR);
	if (bytes <= 0)
		return bytes < 0 ? -errno : -EPIPE;

	const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int fds[BATCH];
	size_t n = 0;
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
		n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	assert(n <= BATCH);
	if (n)
		memcpy(fds, CMSG_DATA(header), n * sizeof(int));
	struct slice said = { text, (size_t)bytes };
	if (!n && slice_eq(said, SLICE(END)))
		return 1;
	if (!n || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || list->n + n > ITEMS_MAX) {
		close_all(fds, n);
		return message.msg_flags & MSG_CTRUNC ? -EMFILE : -EPROTO;
	}
	size_t n_before = list->n;
	int r = add_handed(list, said, fds, n);
	close_all(fds + (list->n - n_before), n - (list->n - n_before));
	return r;
}

int handover_receive(int channel, struct handed_list *out) {
	struct pollfd event = { .fd = channel, .events = POLLIN };
	int r = 0;
	*out = (struct handed_list){ .n = 0 };
	while (r == 0 || r == -EAGAIN) {
		r = poll(&event, 1, WAIT_MS); /* lint: allow, there is no loop yet */
		if (r < 0)
			r = errno == EINTR ? 0 : -errno;
		else
			r = r == 0 ? -ETIMEDOUT : receive_batch(channel, out);
	}
	if (r < 0)
		handed_list_free(out);
	return r < 0 ? r : 0;
}

int handed_take(struct handed_list *list, const char *what) {
	for (size_t i = 0; i < list->n; i++) {
		struct handed *item = &list->items[i];
		int fd = item->fd;
		if (fd < 0 || strcmp(item->what, what) != 0)
			continue;
		item->fd = -1;
		return fd;
	}
	return -1;
}

void handed_list_free(struct handed_list *list) {
	for (size_t i = 0; i < list->n; i++)
		if (list->items[i].fd >= 0)
			close(list->items[i].fd);
	free(list->items);
	*list = (struct handed_list){ .n = 0 };
}

/* --- words -------------------------------------------------------------------------------- */

int handover_say(int channel, const char *word) {
	struct iovec piece = { .iov_base = (char *)(uintptr_t)word, .iov_len = strlen(word) };
	struct msghdr message = { .msg_iov = &piece, .msg_iovlen = 1 };
	assert(piece.iov_len > 0 && piece.iov_len < HANDOVER_WORD_BYTES);
	return send_message(channel, &message);
}

int handover_hear(int channel, char word[HANDOVER_WORD_BYTES]) {
	ssize_t n;
	do
		n = recv(channel, word, HANDOVER_WORD_BYTES - 1, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 && errno != ECONNRESET ? -errno : -EPIPE;
	word[n] = '\0';
	return 0;
}

static bool is_channel(int fd) {
	int domain, type;
	socklen_t n = sizeof(int);
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0 || domain != AF_UNIX)
		return false;
	n = sizeof(int);
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_SEQPACKET;
}

int handover_inherited(void) {
	const char *text = getenv(HANDOVER_VARIABLE);
	uint64_t fd;
	if (!text)
		return -1;
	bool is_good = text_uint(slice_of(text), INT32_MAX, &fd) && fd > STDERR_FILENO && is_channel((int)fd);
	unsetenv(HANDOVER_VARIABLE);
	if (!is_good)
		return -EPROTO;
	fcntl((int)fd, F_SETFD, FD_CLOEXEC);
	fcntl((int)fd, F_SETFL, O_NONBLOCK);
	return (int)fd;
}
