/*
 * scene: what the tests of fleet/ and policy/ set up again and again. Everything made
 * here is the caller's to free; texts are literals.
 */
#pragma once

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fleet/fleet.h"

static inline struct instance_spec scene_target(const char *name) {
	return (struct instance_spec){
		.name = slice_of(name),
		.url = SLICE("http://engine:8000"),
		.authority = SLICE("engine:8000"),
		.host = SLICE("engine"),
		.port = 8000,
	};
}

static inline struct instance *scene_instance(const char *name) {
	struct instance_spec spec = scene_target(name);
	struct instance *inst = instance_new(&spec);

	assert_non_null(inst);
	return inst;
}

/* Of either family, as inet_pton() reads it. */
static inline struct sockaddr_storage scene_address(const char *text, uint16_t port) {
	struct sockaddr_storage address = { .ss_family = strchr(text, ':') ? AF_INET6 : AF_INET };

	if (address.ss_family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)&address;

		in->sin_port = htons(port);
		assert_int_equal(inet_pton(AF_INET, text, &in->sin_addr), 1);
	} else {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;

		in6->sin6_port = htons(port);
		assert_int_equal(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
	}
	return address;
}

/* Does this break an assertion? Tried in a process of its own. */
static inline bool scene_aborts(void (*act)(void *), void *object) {
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
		assert_non_null(freopen("/dev/null", "w", stderr));
		signal(SIGABRT, SIG_DFL);
		act(object);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}
