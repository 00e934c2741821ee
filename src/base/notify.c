#include "base/notify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

int notify_manager(const char *state) {
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;

	if (n == 0)
		return 0;
	if ((path[0] != '/' && path[0] != '@') || n < 2)
		return -EAFNOSUPPORT;
	if (n >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, n);
	if (path[0] == '@') /* an abstract name begins with a NUL and ends with its length */
		address.sun_path[0] = '\0';

	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	int r = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, bytes) < 0
	    ? -errno
	    : 0;
	close(fd);
	return r;
}

uint64_t notify_watchdog_ms(void) {
	const char *text = getenv("WATCHDOG_USEC");
	uint64_t us = 0;
	if (!getenv("NOTIFY_SOCKET") || !text || !text_uint(slice_of(text), UINT64_MAX, &us))
		return 0;
	return us / 1000;
}

/* What failed is in the log. */
static void tell(const char *state) {
	int error = notify_manager(state);
	struct log_event e;

	if (error >= 0)
		return;
	log_begin(&e, LOG_WARN, "the service manager could not be told");
	line_text(&e.line, SLICE("why"), slice_of(strerror(-error)));
	log_end(&e);
}

void notify_ready(void) {
	tell("READY=1");
}

void notify_reloading(void) {
	char state[64];

	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu",
	    (unsigned long long)(clock_now_ns() / 1000));
	tell(state);
}
