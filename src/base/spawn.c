#include "base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIPE_BYTES (256 * 1024)

/* All that is opened before fork. */
struct spawn_pipes {
	int out[2], err[2], report[2], null;
};

/* What the child-side steps look at. Between fork and exec nothing may be called that takes a lock. */
struct spawn_steps {
	const struct spawn_plan *plan;
	const struct spawn_pipes *pipes;
	pid_t parent;
};

static int step_session(const struct spawn_steps *s) {
	return !s->plan->keeps_session && setsid() < 0 ? -errno : 0;
}

static int step_death_signal(const struct spawn_steps *s) {
	if (!s->plan->death_signal)
		return 0;
	if (prctl(PR_SET_PDEATHSIG, s->plan->death_signal) < 0)
		return -errno;
	return getppid() == s->parent ? 0 : -ESRCH; /* it died before we asked */
}

/* Descriptors of the parent's that somebody forgot to mark are closed by exec as well. */
static int step_descriptors(const struct spawn_steps *s) {
	const struct spawn_pipes *p = s->pipes;
	if (dup2(p->null, STDIN_FILENO) < 0 || dup2(p->err[1], STDERR_FILENO) < 0 ||
	    (p->out[1] >= 0 && dup2(p->out[1], STDOUT_FILENO) < 0))
		return -errno;
	if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) < 0 && errno != ENOSYS && errno != EINVAL)
		return -errno;
	if (s->plan->kept_fd >= 0 && fcntl(s->plan->kept_fd, F_SETFD, 0) < 0)
		return -errno;
	return 0;
}

/* The kernel may refuse (a delegation that ended, a controller's limit): then it goes without. */
static int step_cgroup(const struct spawn_steps *s) {
	ssize_t n = s->plan->cgroup_fd < 0 ? 0 : write(s->plan->cgroup_fd, "0", 1);
	(void)n;
	return 0;
}

static int step_affinity(const struct spawn_steps *s) {
	const cpu_set_t *cpus = s->plan->cpus;
	return cpus && sched_setaffinity(0, sizeof(*cpus), cpus) < 0 ? -errno : 0;
}

static int step_work_dir(const struct spawn_steps *s) {
	const char *dir = s->plan->work_dir;
	return dir && dir[0] && chdir(dir) < 0 ? -errno : 0;
}

static int step_limits(const struct spawn_steps *s) {
	for (size_t i = 0; i < s->plan->n_limits; i++) {
		const struct spawn_limit *l = &s->plan->limits[i];
		struct rlimit limit = { .rlim_cur = l->soft, .rlim_max = l->hard };
		if (setrlimit((__rlimit_resource_t)l->resource, &limit) < 0)
			return -errno;
	}
	return 0;
}

/*
 * The system call itself: sigaction() does not touch what the C library keeps to itself, and its
 * posix_spawn() leaves that ignored.
 */
static int step_signals(const struct spawn_steps *s) {
	static const unsigned long normal[8]; /* SIG_DFL, no flags, an empty mask */
	sigset_t none;
	for (int number = 1; number < NSIG; number++) /* two cannot be had: they are as they should be */
		syscall(SYS_rt_sigaction, number, normal, NULL, NSIG / 8);
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

static int step_exec(const struct spawn_steps *s) {
	if (s->plan->env)
		environ = (char **)(uintptr_t)s->plan->env;
	execvp(s->plan->path ? s->plan->path : s->plan->argv[0], (char *const *)(uintptr_t)s->plan->argv);
	return -errno;
}

static const struct {
	const char *name;
	int (*run)(const struct spawn_steps *s);
} steps[] = {
	{ "session", step_session },
	{ "death signal", step_death_signal },
	{ "descriptors", step_descriptors },
	{ "cgroup", step_cgroup },
	{ "affinity", step_affinity },
	{ "working dir", step_work_dir },
	{ "limits", step_limits },
	{ "signals", step_signals },
	{ "exec", step_exec },
};

struct report {
	uint32_t step;
	int32_t error;
};

_Noreturn static void run_steps(const struct spawn_steps *s) {
	for (uint32_t i = 0; i < n_elems(steps); i++) {
		int r = steps[i].run(s);
		if (r == 0)
			continue;
		struct report report = { .step = i, .error = -r };
		ssize_t n = write(s->pipes->report[1], &report, sizeof(report));
		(void)n;
		break;
	}
	_exit(127);
}

/* --- the parent's side ---------------------------------------------------------------- */

static void close_pair(int fds[2]) {
	for (unsigned i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static void pipes_close(struct spawn_pipes *p) {
	close_pair(p->out);
	close_pair(p->err);
	close_pair(p->report);
	if (p->null >= 0)
		close(p->null);
}

/* Above 2, wherever the process's own standard descriptors are: the child puts them there. */
static int lift(int fd) {
	if (fd < 0 || fd > STDERR_FILENO)
		return fd;
	int lifted = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	int error = errno;
	close(fd);
	errno = error;
	return lifted;
}

static int open_pair(int fds[2]) {
	if (pipe2(fds, O_CLOEXEC) < 0) {
		fds[0] = fds[1] = -1;
		return -errno;
	}
	fds[0] = lift(fds[0]);
	fds[1] = lift(fds[1]);
	if (fds[0] < 0 || fds[1] < 0 || fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

static int pipes_open(struct spawn_pipes *p, const struct spawn_plan *plan) {
	*p = (struct spawn_pipes){ { -1, -1 }, { -1, -1 }, { -1, -1 }, -1 };
	int r = plan->keeps_stdout ? 0 : open_pair(p->out);
	if (r == 0)
		r = open_pair(p->err);
	if (r == 0)
		r = open_pair(p->report);
	if (r == 0) {
		p->null = lift(open("/dev/null", O_RDONLY | O_CLOEXEC));
		r = p->null < 0 ? -errno : 0;
	}
	if (r < 0)
		pipes_close(p);
	else { /* may be refused: then it is the usual 64 KiB */
		fcntl(p->out[1], F_SETPIPE_SZ, PIPE_BYTES);
		fcntl(p->err[1], F_SETPIPE_SZ, PIPE_BYTES);
	}
	return r;
}

/* A signal that arrives in the child before its handlers are reset would run ours: none arrives. */
static pid_t fork_masked(const struct spawn_steps *s) {
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid_t pid = fork();
	if (pid == 0)
		run_steps(s);
	int error = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = error;
	return pid;
}

int spawn_start(const struct spawn_plan *plan, struct spawned *out) {
	struct spawn_pipes pipes;
	assert(plan->argv && plan->argv[0]);
	int r = pipes_open(&pipes, plan);
	if (r < 0)
		return r;
	struct spawn_steps s = { .plan = plan, .pipes = &pipes, .parent = getpid() };
	pid_t pid = fork_masked(&s);
	if (pid < 0) {
		r = -errno;
		pipes_close(&pipes);
		return r;
	}
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0); /* not reaped: it is still the one */
	if (pidfd < 0) {
		r = -errno;
		kill(pid, SIGKILL); /* for the same reason */
		waitpid(pid, NULL, 0);
		pipes_close(&pipes);
		return r;
	}
	*out = (struct spawned){ pid, pidfd, pipes.report[0], pipes.out[0], pipes.err[0] };
	if (pipes.out[1] >= 0)
		close(pipes.out[1]);
	close(pipes.err[1]);
	close(pipes.report[1]);
	close(pipes.null);
	return 0;
}

int spawn_failed(int report_fd, struct spawn_failure *out) {
	struct report report;
	ssize_t n;
	*out = (struct spawn_failure){ .error = 0 };
	do
		n = read(report_fd, &report, sizeof(report));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n != sizeof(report) || report.step >= n_elems(steps))
		return 0;
	snprintf(out->step, sizeof(out->step), "%s", steps[report.step].name);
	out->error = report.error;
	return 1;
}
