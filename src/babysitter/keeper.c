#include "babysitter/keeper.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static struct keeper *keeper_of(struct child *c) {
	return container_of(c, struct keeper, child);
}

static void keeper_log(struct keeper *k, struct log_event *e, enum log_level level, const char *event) {
	log_begin(e, level, event);
	line_text(&e->line, SLICE("service"), slice_of(k->config->name));
}

/* --- what the child asks for ---------------------------------------------------------- */

static void on_claim(struct child *c) {
	claim_ask(&keeper_of(c)->claim);
}

static int keeper_spawn_failed(struct keeper *k, int r) {
	struct log_event e;
	k->last_failure.error = -r;
	snprintf(k->last_failure.step, sizeof(k->last_failure.step), "fork");
	keeper_log(k, &e, LOG_ERROR, "no process can be made");
	line_text(&e.line, SLICE("error"), slice_of(strerror(-r)));
	log_end(&e);
	return r;
}

static int on_spawn(struct child *c) {
	struct keeper *k = keeper_of(c);
	struct spawned s;
	k->last_failure = (struct spawn_failure){ .error = 0 };
	int r = spawn_start(&k->plan, &s);
	if (r < 0)
		return keeper_spawn_failed(k, r);
	k->pid = s.pid;
	k->report_fd = s.report_fd;
	claim_record(&k->claim, s.pid, k->cgroup.path);
	output_attach(&k->output, s.out_fd, s.err_fd);
	if (group_adopt(&k->group, s.pid, s.pidfd) < 0) { /* SIGCHLD tells as well */
		struct log_event e;
		keeper_log(k, &e, LOG_WARN, "a pidfd cannot be watched");
		log_end(&e);
	}
	struct log_event e;
	keeper_log(k, &e, LOG_INFO, "child started");
	line_uint(&e.line, SLICE("pid"), (uint64_t)s.pid);
	line_text(&e.line, SLICE("command"), slice_of(k->plan.argv[0]));
	log_end(&e);
	return 0;
}

static void on_kill(struct child *c, int number) {
	group_signal(&keeper_of(c)->group, number);
}

static void on_set_timer(struct child *c, uint64_t delay_ms) {
	struct keeper *k = keeper_of(c);
	timer_stop(&k->timer);
	if (delay_ms != CHILD_NEVER)
		loop_timer(k->loop, &k->timer, delay_ms);
}

static void on_state(struct child *c, enum child_state before) {
	struct keeper *k = keeper_of(c);
	bool is_bad = c->state == CHILD_BACKOFF || c->state == CHILD_FAILED;
	struct log_event e;
	keeper_log(k, &e, is_bad ? LOG_WARN : LOG_INFO, "child state");
	line_text(&e.line, SLICE("state"), slice_of(child_state_name(c->state)));
	line_text(&e.line, SLICE("before"), slice_of(child_state_name(before)));
	if (is_bad)
		line_text(&e.line, SLICE("cause"), slice_of(child_cause_text(c->cause)));
	if (c->state == CHILD_BACKOFF)
		line_uint(&e.line, SLICE("delay_ms"), c->backoff_ms);
	if (c->n_failures)
		line_uint(&e.line, SLICE("failures"), c->n_failures);
	if (c->state == CHILD_FAILED && k->claim.why[0])
		line_text(&e.line, SLICE("error"), slice_of(k->claim.why));
	log_end(&e);
	loop_wake(k->loop, &k->change);
}

static const struct child_ops keeper_ops = {
	.claim = on_claim,
	.spawn = on_spawn,
	.kill = on_kill,
	.set_timer = on_set_timer,
	.on_state = on_state,
};

/* --- what happens --------------------------------------------------------------------- */

static void keeper_on_answer(struct claim *claim, bool is_ours) {
	struct keeper *k = container_of(claim, struct keeper, claim);
	if (is_ours && k->config->use_cgroup && !k->cgroup.path[0] &&
	    cgroup_open(&k->cgroup, k->config->name, claim->place_fd))
		k->plan.cgroup_fd = k->cgroup.procs_fd;
	child_handle(&k->child, is_ours ? CHILD_E_CLAIMED : CHILD_E_REFUSED);
}

/* Whether exec was reached is known for sure now. */
static void keeper_read_report(struct keeper *k) {
	if (spawn_failed(k->report_fd, &k->last_failure) < 0)
		k->last_failure = (struct spawn_failure){ .error = 0 };
	close(k->report_fd);
	k->report_fd = -1;
}

static void keeper_on_exit(struct group *group) {
	struct keeper *k = container_of(group, struct keeper, group);
	struct log_event e;
	keeper_read_report(k);
	k->last_exit = group->exit_code;
	k->last_signal = group->exit_signal;
	keeper_log(k, &e, LOG_INFO, "child ended");
	line_uint(&e.line, SLICE("pid"), (uint64_t)k->pid);
	if (k->last_failure.step[0]) {
		line_text(&e.line, SLICE("step"), slice_of(k->last_failure.step));
		line_text(&e.line, SLICE("error"), slice_of(strerror(k->last_failure.error)));
		line_text(&e.line, SLICE("command"), slice_of(k->plan.argv[0]));
	} else if (k->last_signal)
		line_uint(&e.line, SLICE("signal"), (uint64_t)k->last_signal);
	else
		line_uint(&e.line, SLICE("code"), (uint64_t)k->last_exit);
	log_end(&e);
	k->pid = 0;
	child_handle(&k->child, CHILD_E_EXITED);
}

static void keeper_on_gone(struct group *group) {
	struct keeper *k = container_of(group, struct keeper, group);
	child_handle(&k->child, CHILD_E_GONE);
}

static void keeper_on_timer(struct timer *t) {
	child_handle(&container_of(t, struct keeper, timer)->child, CHILD_E_TIMEOUT);
}

static void keeper_on_change(struct job *j) {
	struct keeper *k = container_of(j, struct keeper, change);
	k->on_change(k);
}

void keeper_tell(struct keeper *k, enum child_event event) {
	assert(event <= CHILD_E_DRAIN || (event >= CHILD_E_READY && event <= CHILD_E_UNREADY));
	child_handle(&k->child, event);
}

/* --- life ----------------------------------------------------------------------------- */

/* The environment of the plan, or ours, with the variable by which a successor finds strays. */
static const char **make_environment(const struct keeper *k) {
	const char *const *from = k->config->plan.env ? k->config->plan.env : (const char *const *)environ;
	size_t n = 0, n_out = 0;
	while (from[n])
		n++;
	const char **env = calloc(n + 2, sizeof(*env));
	env[n_out++] = k->variable; /* first: a reader of environments may stop early */
	for (size_t i = 0; i < n; i++)
		if (!slice_has_prefix(slice_of(from[i]), SLICE(CLAIM_VARIABLE "=")))
			env[n_out++] = from[i];
	return env;
}

static int keeper_fail(struct keeper *k, int r, const char *what) {
	snprintf(k->refused, sizeof(k->refused), "%s: %s", what, strerror(-r));
	return r;
}

int keeper_open(struct keeper *k, struct loop *loop, const struct keeper_config *config,
    struct log_ring *ring, keeper_change_fn on_change) {
	struct rng seed;
	*k = (struct keeper){ .loop = loop, .config = config, .on_change = on_change, .report_fd = -1 };
	k->plan = config->plan;
	k->last_exit = -1;
	k->cgroup.procs_fd = -1;
	timer_init(&k->timer, keeper_on_timer);
	job_init(&k->change, keeper_on_change);
	rng_init_random(&seed);
	child_init(&k->child, &keeper_ops, &config->rules, rng_next(&seed));
	int r = claim_open(&k->claim, loop, config->state_dir, config->name, keeper_on_answer);
	if (r < 0)
		return keeper_fail(k, r, config->state_dir);
	r = group_open(&k->group, loop, &k->cgroup, keeper_on_exit, keeper_on_gone);
	if (r < 0) {
		claim_close(&k->claim);
		return keeper_fail(k, r, "subreaper");
	}
	output_init(&k->output, loop, ring, &config->output);
	if (asprintf(&k->variable, CLAIM_VARIABLE "=%s", k->claim.path) < 0)
		abort();
	k->env = make_environment(k);
	k->plan.env = k->env;
	k->plan.kept_fd = k->claim.lock_fd;
	k->plan.cgroup_fd = -1; /* until the place is ours */
	return 0;
}

void keeper_close(struct keeper *k) {
	assert(!child_has_process(&k->child));
	timer_stop(&k->timer);
	job_cancel(&k->change);
	output_close(&k->output);
	group_close(&k->group);
	cgroup_close(&k->cgroup);
	claim_close(&k->claim);
	free(k->variable);
	free(k->env);
}
