#include "babysitter/group.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "babysitter/process.h"

#define SWEEPS_MAX 3

/* --- signals -------------------------------------------------------------------------- */

/*
 * Signals whoever descends from us; TERM only those that left the leader's process group, since the others
 * heard it with the leader. How many live ones were found.
 */
static unsigned group_sweep(struct group *g, int number) {
	struct process_list all = { .items = NULL };
	unsigned n_live = 0;
	process_list_read(&all);
	struct process *self = process_list_find(&all, getpid());
	if (self) {
		self->is_marked = true;
		process_list_spread(&all);
		self->is_marked = false;
	}
	for (size_t i = 0; i < all.n; i++) {
		const struct process *p = &all.items[i];
		if (!p->is_marked || !process_is_live(p))
			continue;
		n_live++;
		if (number == SIGKILL || p->group != g->process_group)
			process_signal(p, number);
	}
	process_list_deinit(&all);
	return n_live;
}

/* The leader is not reaped: its number is its own, and so is that of the group that it leads. */
static void group_signal_leader(struct group *g, int number) {
	assert(g->leader);
	if (getpgid(g->leader) == g->leader && kill(-g->leader, number) == 0)
		return;
	syscall(SYS_pidfd_send_signal, g->pidfd, number, NULL, 0); /* it has not come to setsid() yet */
}

void group_signal(struct group *g, int number) {
	if (!g->is_occupied)
		return;
	if (g->leader)
		group_signal_leader(g, number);
	if (number == SIGKILL) {
		if (g->cgroup)
			cgroup_kill(g->cgroup->path);
		/* Who forks while we look is found by the next look. */
		for (unsigned i = 0; i < SWEEPS_MAX && group_sweep(g, number); i++)
			;
	} else if (!g->leader) {
		group_sweep(g, number);
	}
	loop_wake(g->loop, &g->job);
}

/* --- exits ---------------------------------------------------------------------------- */

static void group_note_exit(struct group *g, const siginfo_t *info) {
	g->exit_code = info->si_code == CLD_EXITED ? info->si_status : -1;
	g->exit_signal = info->si_code == CLD_EXITED ? 0 : info->si_status;
}

/* True: the leader has ended and is reaped. */
static bool group_reap_leader(struct group *g) {
	siginfo_t info = { .si_pid = 0 };
	if (!g->leader || waitid(P_PIDFD, (id_t)g->pidfd, &info, WEXITED | WNOHANG) < 0 || !info.si_pid)
		return false;
	group_note_exit(g, &info);
	g->leader = 0;
	fd_event_close(&g->exit_event);
	close(g->pidfd);
	g->pidfd = -1;
	return true;
}

/* Re-parented descendants that have ended. True: the kernel knows of no child of ours, alive or not. */
static bool group_reap_others(struct group *g) {
	for (;;) {
		siginfo_t info = { .si_pid = 0 };
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
			return errno == ECHILD;
		if (!info.si_pid)
			return false;
		if (info.si_pid == g->leader) { /* ended since we looked: next turn */
			loop_wake(g->loop, &g->job);
			return false;
		}
		waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG);
	}
}

static void group_run(struct job *j) {
	struct group *g = container_of(j, struct group, job);
	bool has_exited = group_reap_leader(g);
	bool is_alone = group_reap_others(g);
	bool is_gone = g->is_occupied && !g->leader && is_alone;

	if (has_exited)
		g->on_exit(g);
	if (is_gone) {
		g->is_occupied = false;
		g->on_gone(g); /* last: it may adopt */
	}
}

static void group_on_sigchld(struct signals *signals, int number) {
	struct group *g = container_of(signals, struct group, signals);
	loop_wake(g->loop, &g->job);
}

/* --- life ----------------------------------------------------------------------------- */

int group_open(
    struct group *g, struct loop *loop, const struct cgroup *cgroup, group_fn on_exit, group_fn on_gone) {
	static const int numbers[] = { SIGCHLD };
	*g = (struct group){
		.loop = loop, .cgroup = cgroup, .on_exit = on_exit, .on_gone = on_gone, .pidfd = -1
	};
	job_init(&g->job, group_run);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return -errno;
	signals_init(&g->signals, loop, numbers, n_elems(numbers), group_on_sigchld);
	return 0;
}

int group_adopt(struct group *g, pid_t leader, int pidfd) {
	assert(!g->is_occupied && g->pidfd < 0);
	g->is_occupied = true;
	g->leader = g->process_group = leader;
	g->pidfd = pidfd;
	g->exit_code = -1;
	g->exit_signal = 0;
	loop_wake(g->loop, &g->job); /* it may have ended already */
	return fd_event_open(&g->exit_event, g->loop, pidfd, &g->job);
}

void group_close(struct group *g) {
	assert(!g->is_occupied);
	fd_event_close(&g->exit_event);
	job_cancel(&g->job);
	signals_close(&g->signals);
}
