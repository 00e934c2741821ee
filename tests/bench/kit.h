/*
 * kit: what the three C tools of the bench share: time, arguments, sockets.
 *
 * All of it is for one thread and loopback. What goes wrong here means that the
 * bench cannot run, so every function ends the process with a message instead of
 * returning an error.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

#define KIT_PORTS_MAX 128

struct kit_ports {
	uint16_t port[KIT_PORTS_MAX];
	size_t n;
};

__attribute__((format(printf, 1, 2))) _Noreturn static inline void kit_die(const char *format, ...) {
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static inline uint64_t kit_now_ns(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline uint64_t kit_uint(const char *text, uint64_t max) {
	uint64_t value;

	if (!text_uint(slice_of(text), max, &value))
		kit_die("not a number of at most %llu: %s", (unsigned long long)max, text);
	return value;
}

/* "4001,4002": at least one. */
static inline struct kit_ports kit_ports(const char *text) {
	struct kit_ports ports = { .n = 0 };
	struct slice rest = slice_of(text), member;
	uint64_t port;

	while (slice_next_member(&rest, &member)) {
		if (ports.n == KIT_PORTS_MAX || !text_uint(member, UINT16_MAX, &port))
			kit_die("not a list of ports: %s", text);
		ports.port[ports.n++] = (uint16_t)port;
	}
	return ports;
}

/* As many descriptors as the machine allows. */
static inline void kit_raise_limits(void) {
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		kit_die("getrlimit: %m");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		kit_die("setrlimit: %m");
}

static inline struct sockaddr_in kit_loopback(uint16_t port) {
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)
	};
}

static inline void kit_nodelay(int fd) {
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)) < 0)
		kit_die("TCP_NODELAY: %m");
}

static inline int kit_listen(uint16_t port) {
	struct sockaddr_in address = kit_loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0 ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4096) < 0)
		kit_die("listen on port %u: %m", port);
	return fd;
}

/* Non-blocking both before and after; -1 with errno when refused at once. */
static inline int kit_connect(uint16_t port) {
	struct sockaddr_in address = kit_loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		kit_die("socket: %m");
	kit_nodelay(fd);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

static inline int kit_epoll(void) {
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	if (epoll < 0)
		kit_die("epoll_create1: %m");
	return epoll;
}

/* `op` is EPOLL_CTL_ADD or EPOLL_CTL_MOD. */
static inline void kit_watch(int epoll, int op, int fd, uint32_t events, void *object) {
	if (epoll_ctl(epoll, op, fd, &(struct epoll_event){ .events = events, .data.ptr = object }) < 0)
		kit_die("epoll_ctl: %m");
}
