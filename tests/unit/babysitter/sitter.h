/*
 * sitter: a babysitter in a process of its own, to be killed: the test's program once more.
 *
 * main() of such a test calls sitter_enter() first; what that is given is made by
 * sitter_launch().
 */
#pragma once

#include <sched.h>

#include "unit/babysitter/yard.h"

#include "net/signals.h"

static struct yard sitter;

static void sitter_on_term(struct signals *s, int number) {
	keeper_tell(&sitter.keeper, CHILD_E_STOP);
}

/* Keeps this command running until SIGTERM. */
static _Noreturn void sitter_main(const char *folder, char *const *command) {
	static const int numbers[] = { SIGTERM };
	struct signals signals;
	sitter.config = (struct keeper_config){
		.name = "engine",
		.state_dir = folder,
		.plan = { .argv = (const char *const *)command, .cgroup_fd = -1, .kept_fd = -1 },
		.rules = { .stop_ms = 50,
		    .healthy_ms = CHILD_HEALTHY_MS,
		    .restart_delay_ms = 1,
		    .max_restarts = UINT32_MAX },
		.output = { .prefix = "" },
	};
	yard_open(&sitter, NULL);
	signals_init(&signals, &sitter.rig.loop, numbers, 1, sitter_on_term);
	keeper_tell(&sitter.keeper, CHILD_E_START);
	while (sitter.keeper.child.state != CHILD_STOPPED)
		uv_run(&sitter.rig.loop.uv, UV_RUN_ONCE);
	_exit(0);
}

/* Does not return where the program is to be a babysitter. */
static void sitter_enter(int argc, char **argv) {
	if (argc > 3 && strcmp(argv[1], "sitter") == 0)
		sitter_main(argv[2], argv + 3);
}

/* NULL-terminated words of the command; its lock is FOLDER/engine.lock. */
static pid_t sitter_launch(const char *folder, const char *const *command) {
	const char *argv[16] = { "/proc/self/exe", "sitter", folder };
	for (size_t i = 0; command[i]; i++) {
		assert_true(i + 4 < n_elems(argv));
		argv[i + 3] = command[i];
	}
	pid_t pid = fork();
	if (pid == 0) {
		dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
		execv(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	return pid;
}

static void sitter_kill(pid_t pid) {
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* As it would like to end: with nothing left of its child. */
static void sitter_stop(pid_t pid) {
	int status;
	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}
