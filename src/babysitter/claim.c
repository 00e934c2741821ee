#include "babysitter/claim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "babysitter/cgroup.h"
#include "babysitter/process.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"

#define RETRY_MS    20
#define SCAN_MAX_MS 1000 /* pauses between looks at all processes double up to this */
#define COMPLAIN_MS 10000
#define ENVIRON_MAX (256 * 1024)
#define RECORD_MAX  4096

enum { BYTE_PLACE, BYTE_CHILD };

/* --- locks ---------------------------------------------------------------------------- */

/* False: somebody else has it. */
static bool lock_byte(int fd, int byte) {
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
	return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

/* --- the record ----------------------------------------------------------------------- */

static void boot_id(char id[64]) {
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, id, 63);
	id[n > 0 ? n : 0] = '\0';
	id[strcspn(id, "\n")] = '\0';
	if (fd >= 0)
		close(fd);
}

/* Torn by a power cut it is no JSON, or of another boot: then there is no process to find by it either. */
void claim_record(struct claim *c, pid_t leader, const char *cgroup) {
	struct process p = { .pid = 0 };
	char boot[64];
	boot_id(boot);
	bool is_known = leader && process_read(leader, &p);
	json_t *record = json_pack("{s:i,s:i,s:I,s:s,s:s}", "babysitter", (int)getpid(), "leader",
	    is_known ? (int)leader : 0, "start", (json_int_t)p.start, "boot", boot, "cgroup", cgroup);
	char text[RECORD_MAX];
	size_t n = record ? json_dumpb(record, text, sizeof(text) - 1, JSON_INDENT(1)) : 0;
	json_decref(record);
	if (n >= sizeof(text))
		return;
	text[n++] = '\n';
	if (pwrite(c->place_fd, text, n, 0) != (ssize_t)n || ftruncate(c->place_fd, (off_t)n) < 0)
		return; /* a full disk: the lock, the variable and the cgroup are found without it */
}

static json_t *read_record(struct claim *c) {
	char text[RECORD_MAX];
	ssize_t n = pread(c->place_fd, text, sizeof(text), 0);
	return n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
}

static int record_number(json_t *record, const char *key) {
	return (int)json_integer_value(json_object_get(record, key));
}

/* --- who is left of a predecessor ------------------------------------------------------ */

/* Does this descriptor carry a lock of its own on our file? A mere reader does not. */
static bool carries_lock(pid_t pid, const char *fd) {
	char path[80], text[2048];
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%.20s", (int)pid, fd);
	int info = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = info < 0 ? 0 : read(info, text, sizeof(text) - 1);
	if (info >= 0)
		close(info);
	text[n > 0 ? n : 0] = '\0';
	return strstr(text, "\nlock:");
}

/* file_name: "/NAME.lock", by which most descriptors are told apart: stat() may hang on a dead file server.
 */
static bool holds_lock(pid_t pid, const struct stat *file, const char *file_name) {
	char path[64];
	char target[PATH_MAX];
	struct stat st;
	bool is_holder = false;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *fds = opendir(path);
	if (!fds)
		return false;
	for (struct dirent *d = readdir(fds); d && !is_holder; d = readdir(fds)) {
		ssize_t n = readlinkat(dirfd(fds), d->d_name, target, sizeof(target));
		if (n > 0 && memmem(target, (size_t)n, file_name, strlen(file_name)) &&
		    fstatat(dirfd(fds), d->d_name, &st, 0) == 0 && st.st_dev == file->st_dev &&
		    st.st_ino == file->st_ino)
			is_holder = carries_lock(pid, d->d_name);
	}
	closedir(fds);
	return is_holder;
}

/* Is NAME=value in its environment? `room` takes ENVIRON_MAX bytes. */
static bool bears(pid_t pid, struct slice variable, char *room) {
	char path[40];
	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	size_t n = 0;
	for (ssize_t got = 1; got > 0 && n<ENVIRON_MAX; n += got> 0 ? (size_t)got : 0)
		got = read(fd, room + n, ENVIRON_MAX - n);
	close(fd);
	const char *at = room, *found; /* with its NUL; behind one, or it is a part of another one's value */
	while ((found = memmem(at, n - (size_t)(at - room), variable.p, variable.n + 1))) {
		if (found == room || found[-1] == '\0')
			return true;
		at = found + 1;
	}
	return false;
}

/* Us, and whom we descend from. */
static void unmark_ancestors(struct process_list *all) {
	struct process *p = process_list_find(all, getpid());
	for (unsigned i = 0; p && i < 1000; i++) {
		p->is_marked = false;
		p = process_list_find(all, p->parent);
	}
}

/* Descendants of a marked ancestor are not meant: ancestors are taken out before and after. */
static unsigned kill_marked(struct claim *c, struct process_list *all) {
	unsigned n_live = 0;
	unmark_ancestors(all);
	process_list_spread(all);
	unmark_ancestors(all);
	for (size_t i = 0; i < all->n; i++) {
		const struct process *p = &all->items[i];
		if (!p->is_marked || !process_is_live(p))
			continue;
		n_live++;
		if (process_signal(p, SIGKILL))
			c->n_killed++;
	}
	return n_live;
}

static void mark_recorded(json_t *record, struct process_list *all) {
	char boot[64];
	boot_id(boot);
	const char *recorded = json_string_value(json_object_get(record, "boot"));
	struct process *leader = process_list_find(all, record_number(record, "leader"));
	if (leader && recorded && strcmp(recorded, boot) == 0 &&
	    leader->start == (uint64_t)json_integer_value(json_object_get(record, "start")))
		leader->is_marked = true;
}

/* Kills what is found of a predecessor; how many lived. */
static unsigned kill_orphans(struct claim *c) {
	char variable[PATH_MAX + 32];
	struct process_list all = { .items = NULL };
	struct stat file;
	json_t *record = read_record(c);
	const char *cgroup = json_string_value(json_object_get(record, "cgroup"));

	/* Only ever a folder of our own making; we are never in it. */
	if (cgroup && strstr(cgroup, "/headrace-") && cgroup_is_populated(cgroup))
		cgroup_kill(cgroup);
	int n = snprintf(variable, sizeof(variable), CLAIM_VARIABLE "=%s", c->path);
	char *room = malloc(ENVIRON_MAX);
	process_list_read(&all);
	mark_recorded(record, &all);
	if (fstat(c->place_fd, &file) == 0)
		for (size_t i = 0; i < all.n; i++) {
			struct process *p = &all.items[i];
			if (!p->is_marked && process_is_live(p))
				p->is_marked = holds_lock(p->pid, &file, strrchr(c->path, '/')) ||
				    bears(p->pid, (struct slice){ variable, (size_t)n }, room);
		}
	unsigned n_live = kill_marked(c, &all);
	free(room);
	process_list_deinit(&all);
	json_decref(record);
	return n_live;
}

/* --- asking --------------------------------------------------------------------------- */

static void claim_answer(struct claim *c, bool is_ours) {
	c->is_ours = is_ours;
	if (is_ours && c->n_killed) {
		struct log_event e;
		log_begin(&e, LOG_WARN, "killed what a former babysitter left");
		line_text(&e.line, SLICE("lock"), slice_of(c->path));
		line_uint(&e.line, SLICE("processes"), c->n_killed);
		log_end(&e);
	}
	c->on_answer(c, is_ours);
}

static void claim_refuse(struct claim *c) {
	json_t *record = read_record(c);
	snprintf(c->why, sizeof(c->why), "another babysitter (process %d) has %.100s",
	    record_number(record, "babysitter"), c->path);
	json_decref(record);
	claim_answer(c, false);
}

static void claim_complain(struct claim *c) {
	uint64_t now_ms = loop_now_ms(c->loop);
	if (now_ms - c->complained_ms < COMPLAIN_MS)
		return;
	c->complained_ms = now_ms;
	struct log_event e;
	log_begin(&e, LOG_ERROR, "a former child cannot be ended: its lock is still held");
	line_text(&e.line, SLICE("lock"), slice_of(c->path));
	log_end(&e);
}

static void claim_on_retry(struct timer *t) {
	struct claim *c = container_of(t, struct claim, retry);
	uint64_t now_ms = loop_now_ms(c->loop);
	if (!c->has_place && !(c->has_place = lock_byte(c->place_fd, BYTE_PLACE)) &&
	    now_ms - c->asked_ms >= c->patience_ms) {
		claim_refuse(c);
		return;
	}
	/* Once it is ours, it stays so: the group tells when our own child is gone. */
	if (c->is_ours || (c->has_place && kill_orphans(c) == 0 && lock_byte(c->lock_fd, BYTE_CHILD))) {
		if (!c->is_ours)
			claim_record(c, 0, "");
		claim_answer(c, true);
		return;
	}
	loop_timer(c->loop, &c->retry, c->pause_ms);
	if (c->has_place) {
		claim_complain(c);
		c->pause_ms = u64_min(2 * c->pause_ms, SCAN_MAX_MS);
	}
}

void claim_ask(struct claim *c) {
	if (timer_is_running(&c->retry))
		return;
	c->asked_ms = c->complained_ms = clock_now_ns() / 1000000u;
	c->pause_ms = RETRY_MS;
	loop_timer(c->loop, &c->retry, 0);
}

/* --- life ----------------------------------------------------------------------------- */

static int open_lock(const char *path) {
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW, 0600);
	return fd < 0 ? -errno : fd;
}

int claim_open(
    struct claim *c, struct loop *loop, const char *state_dir, const char *name, claim_fn on_answer) {
	char folder[PATH_MAX];
	*c = (struct claim){ .loop = loop,
		.on_answer = on_answer,
		.place_fd = -1,
		.lock_fd = -1,
		.patience_ms = CLAIM_PATIENCE_MS };
	timer_init(&c->retry, claim_on_retry);
	if (!realpath(state_dir, folder))
		return -errno;
	if (asprintf(&c->path, "%s/%s.lock", folder, name) < 0)
		return -ENOMEM;
	for (char *p = c->path + strlen(folder) + 1; *p; p++)
		if (*p == '/')
			*p = '_';
	c->place_fd = open_lock(c->path);
	c->lock_fd = c->place_fd < 0 ? -1 : open_lock(c->path);
	if (c->place_fd >= 0 && c->lock_fd >= 0)
		return 0;
	int r = c->place_fd < 0 ? c->place_fd : c->lock_fd;
	claim_close(c);
	return r;
}

void claim_close(struct claim *c) {
	timer_stop(&c->retry);
	if (c->place_fd >= 0)
		close(c->place_fd);
	if (c->lock_fd >= 0)
		close(c->lock_fd);
	free(c->path);
	c->path = NULL;
	c->place_fd = c->lock_fd = -1;
}
