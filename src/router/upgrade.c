/*
 * Everything that can be heard of the new process wakes one job, which looks at all of
 * it: its standard error, its words, its end. The end is looked at last, so that what a
 * process said before it died is known by then.
 */
#include "router/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/notify.h"
#include "router/explain_ask.h"

#define ARGV_BYTES_MAX (4u << 20)
#define STDERR_BYTES   4096

/* --- how we were started ------------------------------------------------------------------ */

/* All of a file of /proc; the caller frees it. */
static char *read_whole(const char *path, size_t *n_out) {
	char *text = NULL;
	size_t n = 0;
	ssize_t r = -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && n < ARGV_BYTES_MAX) {
		char *larger = realloc(text, n + STDERR_BYTES);
		text = larger;
		r = read(fd, text + n, STDERR_BYTES);
		if (r <= 0)
			break;
		n += (size_t)r;
	}
	if (fd >= 0)
		close(fd);
	if (r != 0 || !n || text[n - 1]) {
		free(text);
		return NULL;
	}
	*n_out = n;
	return text;
}

/* The pointers and, behind them, the strings. */
static char **read_argv(void) {
	size_t bytes, n = 0, at = 0;
	char *text = read_whole("/proc/self/cmdline", &bytes);
	if (!text)
		return NULL;
	for (size_t i = 0; i < bytes; i++)
		n += !text[i];
	char **argv = malloc((n + 1) * sizeof(*argv) + bytes);
	char *strings = (char *)(argv + n + 1);
	memcpy(strings, text, bytes);
	free(text);
	for (size_t i = 0; i < n; i++, at += strlen(strings + at) + 1)
		argv[i] = strings + at;
	argv[n] = NULL;
	return argv;
}

static char *join(struct slice folder, const char *name) {
	char *path = NULL;
	int r = asprintf(&path, "%.*s/%s", (int)folder.n, folder.p, name);
	assert(r > 0);
	return path;
}

/* As the shell found it. NULL: nowhere. */
static char *search_path(const char *name) {
	const char *rest = getenv("PATH");
	while (rest && *rest) {
		size_t n = strcspn(rest, ":");
		char *path = join((struct slice){ rest, n }, name);
		if (n && rest[0] == '/' && access(path, X_OK) == 0)
			return path;
		free(path);
		rest += n + (rest[n] == ':');
	}
	return NULL;
}

/* Links are not followed: which binary one leads to is what an upgrade changes. */
static char *find_path(const char *name) {
	char room[4096];
	if (name[0] == '/')
		return strdup(name);
	if (!strchr(name, '/'))
		return search_path(name);
	return getcwd(room, sizeof(room)) ? join(slice_of(room), name) : NULL;
}

/* --- the outcome ---------------------------------------------------------------------------- */

static void upgrade_close(struct upgrade *u) {
	timer_stop(&u->timer);
	job_cancel(&u->job);
	fd_event_close(&u->said);
	fd_event_close(&u->ended);
	fd_event_close(&u->wrote);
	const int fds[] = { u->channel, u->child.pidfd, u->child.report_fd, u->child.err_fd };
	for (size_t i = 0; i < n_elems(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	u->channel = -1;
	u->child = (struct spawned){ .pidfd = -1, .report_fd = -1, .out_fd = -1, .err_fd = -1 };
}

static void upgrade_answer(struct upgrade *u, bool is_good) {
	struct endpoint_call *call = u->asker;
	u->asker = NULL;
	if (call && is_good)
		endpoint_answer_json(
		    call, 200, json_pack("{s:i, s:s}", "pid", (int)u->child.pid, "path", u->path));
	else if (call)
		explain_error(call, 500, "upgrade_failed", u->why);
}

printf_like(2, 3) static void upgrade_say_why(struct upgrade *u, const char *format, ...) {
	va_list args;
	va_start(args, format);
	vsnprintf(u->why, sizeof(u->why), format, args);
	va_end(args);
}

/* The new process is gone; u->why says why it must go. */
static bool upgrade_fail(struct upgrade *u) {
	struct log_event e;
	log_begin(&e, LOG_ERROR, "upgrade failed: this process goes on");
	line_text(&e.line, SLICE("why"), slice_of(u->why));
	if (u->path)
		line_text(&e.line, SLICE("path"), slice_of(u->path));
	log_end(&e);
	upgrade_close(u);
	u->state = UPGRADE_IDLE;
	upgrade_answer(u, false);
	return false;
}

/* Whom to watch. */
static void upgrade_tell_manager(int pid) {
	char text[48];
	snprintf(text, sizeof(text), "MAINPID=%d", pid);
	int r = notify_manager(text);
	if (r >= 0)
		return;
	struct log_event e;
	log_begin(&e, LOG_ERROR, "the service manager could not be told whom to watch");
	line_text(&e.line, SLICE("why"), slice_of(strerror(-r)));
	log_end(&e);
}

/* It does not serve, and will not. */
static void upgrade_give_up(struct upgrade *u) {
	if (u->state == UPGRADE_GOING)
		upgrade_tell_manager((int)getpid());
	u->state = UPGRADE_ENDING;
}

/* By its descriptor: it cannot be another one's. Its end follows. */
static void upgrade_kill(struct upgrade *u) {
	assert(u->state == UPGRADE_STARTING || u->state == UPGRADE_GOING);
	upgrade_give_up(u);
	timer_stop(&u->timer);
	syscall(SYS_pidfd_send_signal, u->child.pidfd, SIGKILL, NULL, 0);
}

static void upgrade_finish(struct upgrade *u) {
	struct log_event e;
	u->state = UPGRADE_DONE;
	timer_stop(&u->timer);
	log_begin(&e, LOG_INFO, "upgraded: the new process accepts, this one does not any more");
	line_uint(&e.line, SLICE("pid"), (uint64_t)u->child.pid);
	log_end(&e);
	u->owner->on_done(u); /* before the answer: who asks again then asks the new one */
	upgrade_answer(u, true);
}

/* --- what is heard of it ------------------------------------------------------------------- */

static void upgrade_keep_line(struct upgrade *u, const char *p, size_t n) {
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n') {
			u->is_line_whole = true;
			continue;
		}
		if (u->is_line_whole)
			u->n_line = 0;
		u->is_line_whole = false;
		if (u->n_line < sizeof(u->line) - 1 && p[i] >= ' ')
			u->line[u->n_line++] = p[i];
	}
	u->line[u->n_line] = '\0';
}

/* Passed on as it comes. */
static void upgrade_relay(struct upgrade *u) {
	char text[STDERR_BYTES];
	ssize_t n = -1;
	while (u->child.err_fd >= 0 && (n = read(u->child.err_fd, text, sizeof(text))) > 0) {
		ssize_t written = write(STDERR_FILENO, text, (size_t)n);
		(void)written; /* nobody reads it: nothing can be done about it */
		upgrade_keep_line(u, text, (size_t)n);
	}
	if (u->child.err_fd < 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	fd_event_close(&u->wrote);
	close(u->child.err_fd);
	u->child.err_fd = -1;
}

/* The manager is told before it may hear anything of the new process itself. */
static void upgrade_on_ready(struct upgrade *u) {
	upgrade_tell_manager((int)u->child.pid);
	u->state = UPGRADE_GOING;
	loop_timer(u->loop, &u->timer, u->timeout_ms);
	if (handover_say(u->channel, "go") == 0)
		return;
	upgrade_say_why(u, "the new process ended when it was ready");
	upgrade_kill(u);
}

static void upgrade_listen(struct upgrade *u) {
	char word[HANDOVER_WORD_BYTES];
	int r = 0;
	while (u->state != UPGRADE_ENDING && (r = handover_hear(u->channel, word)) == 0)
		if (u->state == UPGRADE_STARTING && strcmp(word, "ready") == 0)
			upgrade_on_ready(u);
		else if (u->state == UPGRADE_GOING && strcmp(word, "serving") == 0)
			upgrade_finish(u);
		else if (u->state == UPGRADE_DONE && strcmp(word, "end") == 0)
			u->owner->on_hurry(u);
	if (r < 0 && r != -EAGAIN)
		fd_event_close(&u->said); /* its end follows, or its time runs out */
}

/* How it ended, unless it was us who killed it. */
static void upgrade_explain_end(struct upgrade *u, const siginfo_t *end) {
	struct spawn_failure failure;
	const char *colon = u->n_line ? ": " : "",
		   *before = u->state == UPGRADE_GOING ? "served" : "was ready";
	if (u->state == UPGRADE_ENDING)
		return;
	if (spawn_failed(u->child.report_fd, &failure) > 0)
		upgrade_say_why(
		    u, "the new process could not be started: %s: %s", failure.step, strerror(failure.error));
	else if (end->si_code == CLD_EXITED)
		upgrade_say_why(u, "the new process ended with exit status %d before it %s%s%s",
		    end->si_status, before, colon, u->line);
	else
		upgrade_say_why(u, "the new process was ended by signal %d before it %s%s%s", end->si_status,
		    before, colon, u->line);
}

/* Reaps it. */
static void upgrade_look_for_end(struct upgrade *u) {
	siginfo_t end = { .si_pid = 0 };
	if (waitid(P_PIDFD, (id_t)u->child.pidfd, &end, WEXITED | WNOHANG) < 0 || !end.si_pid)
		return;
	fd_event_close(&u->ended);
	if (u->state != UPGRADE_DONE) {
		upgrade_explain_end(u, &end);
		upgrade_give_up(u);
		upgrade_fail(u);
		return;
	}
	struct log_event e;
	log_begin(&e, LOG_ERROR, "the process that took over has ended");
	line_uint(&e.line, SLICE("pid"), (uint64_t)u->child.pid);
	log_end(&e);
}

static void upgrade_run(struct job *job) {
	struct upgrade *u = container_of(job, struct upgrade, job);
	upgrade_relay(u);
	if (u->state != UPGRADE_ENDING && u->said.handle)
		upgrade_listen(u);
	if (u->ended.handle)
		upgrade_look_for_end(u);
}

/* What it said in the last moment counts. */
static void upgrade_on_timer(struct timer *t) {
	struct upgrade *u = container_of(t, struct upgrade, timer);
	enum upgrade_state before = u->state;
	upgrade_listen(u);
	if (u->state != before)
		return;
	upgrade_say_why(u, "the new process %s within %llu ms",
	    u->state == UPGRADE_GOING ? "did not serve" : "was not ready", (unsigned long long)u->timeout_ms);
	upgrade_kill(u);
}

/* --- the start ------------------------------------------------------------------------------- */

/* Ours, and the channel's number; one block. */
static const char **make_environment(const char *variable) {
	size_t n = 0;
	while (environ[n])
		n++;
	const char **env = malloc((n + 2) * sizeof(*env));
	memcpy(env, environ, n * sizeof(*env));
	env[n] = variable;
	env[n + 1] = NULL;
	return env;
}

static int upgrade_spawn(struct upgrade *u, int channel) {
	char variable[48];
	snprintf(variable, sizeof(variable), HANDOVER_VARIABLE "=%d", channel);
	const char **env = make_environment(variable);
	const struct spawn_plan plan = { .argv = (const char *const *)u->argv,
		.env = env,
		.path = u->path,
		.cgroup_fd = -1,
		.kept_fd = channel,
		.keeps_session = true,
		.keeps_stdout = true };
	int r = spawn_start(&plan, &u->child);
	free(env);
	return r;
}

static int upgrade_give(struct upgrade *u) {
	struct handed *items = NULL;
	size_t n = u->owner->collect(u, &items);
	int r = handover_give(u->channel, items, n);
	free(items);
	return r;
}

/* The sockets lie ready before it looks for them. */
static int upgrade_begin(struct upgrade *u) {
	int fds[2], r = handover_pair(fds);
	if (r < 0)
		return r;
	u->channel = fds[0];
	r = upgrade_give(u);
	if (r == 0)
		r = upgrade_spawn(u, fds[1]);
	close(fds[1]);
	if (r < 0)
		return r;
	u->state = UPGRADE_STARTING;
	u->n_line = 0;
	u->is_line_whole = false;
	u->line[0] = '\0';
	loop_timer(u->loop, &u->timer, u->timeout_ms);
	r = fd_event_open(&u->said, u->loop, u->channel, &u->job);
	if (r == 0)
		r = fd_event_open(&u->wrote, u->loop, u->child.err_fd, &u->job);
	return r ? r : fd_event_open(&u->ended, u->loop, u->child.pidfd, &u->job);
}

static const char stopping[] = "the router is being stopped";

/* Why it cannot be; NULL: it can. */
static const char *upgrade_hindrance(const struct upgrade *u) {
	if (!u->path || !u->argv)
		return "it is not known how this process was started";
	if (getpid() == 1)
		return "this is process 1, whose end is that of all others: start it under an init";
	if (u->state == UPGRADE_DONE)
		return "this process has been upgraded already";
	if (!u->owner->may_start(u))
		return stopping;
	return u->state == UPGRADE_IDLE ? NULL : "an upgrade is under way";
}

bool upgrade_start(struct upgrade *u) {
	const char *hindrance = upgrade_hindrance(u);
	struct log_event e;
	if (hindrance) {
		upgrade_say_why(u, "%s", hindrance);
		log_begin(&e, LOG_ERROR, "no upgrade");
		line_text(&e.line, SLICE("why"), slice_of(u->why));
		log_end(&e);
		return false;
	}
	int r = upgrade_begin(u);
	if (r < 0 && u->state == UPGRADE_STARTING) { /* it cannot be watched */
		upgrade_kill(u);
		waitpid(u->child.pid, NULL, 0);
	}
	if (r < 0) {
		upgrade_say_why(u, "no process can be started: %s", strerror(-r));
		return upgrade_fail(u);
	}
	log_begin(&e, LOG_INFO, "upgrade: a new process starts");
	line_text(&e.line, SLICE("path"), slice_of(u->path));
	line_uint(&e.line, SLICE("pid"), (uint64_t)u->child.pid);
	log_end(&e);
	return true;
}

static void upgrade_on_gone(void *owner) {
	struct upgrade *u = owner;
	u->asker = NULL;
}

void upgrade_ask(struct upgrade *u, struct endpoint_call *call) {
	if (u->state != UPGRADE_DONE && !u->owner->may_start(u)) {
		explain_error(call, 409, "stopping", stopping);
	} else if (upgrade_is_running(u)) {
		explain_error(call, 409, "upgrade_running", "an upgrade is under way");
	} else if (!upgrade_start(u)) {
		explain_error(call, 500, "upgrade_failed", u->why);
	} else {
		u->asker = call;
		endpoint_keep(call, upgrade_on_gone, u);
	}
}

void upgrade_cancel(struct upgrade *u, const char *why) {
	if (u->state != UPGRADE_STARTING)
		return;
	upgrade_say_why(u, "%s", why);
	upgrade_kill(u);
}

void upgrade_init(struct upgrade *u, struct loop *loop, const struct upgrade_owner *owner) {
	*u = (struct upgrade){ .loop = loop,
		.owner = owner,
		.state = UPGRADE_IDLE,
		.channel = -1,
		.argv = read_argv(),
		.child = { .pidfd = -1, .report_fd = -1, .out_fd = -1, .err_fd = -1 } };
	if (u->argv && u->argv[0])
		u->path = find_path(u->argv[0]);
	job_init(&u->job, upgrade_run);
	timer_init(&u->timer, upgrade_on_timer);
}

void upgrade_deinit(struct upgrade *u) {
	upgrade_cancel(u, "the router is being stopped");
	if (u->state == UPGRADE_ENDING) {
		waitpid(u->child.pid, NULL, 0);
		upgrade_fail(u);
	}
	upgrade_close(u);
	free(u->path);
	free(u->argv);
	u->path = NULL;
	u->argv = NULL;
}
