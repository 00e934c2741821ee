#include "babysitter/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/text.h"

/* What /proc/PID/stat says after the name, which ends at the last ')': fields 3, 4, 5 and 22 of proc(5). */
static bool parse_stat(struct slice text, struct process *out) {
	const char *paren = memrchr(text.p, ')', text.n);
	if (!paren)
		return false;
	struct slice rest = slice_skip(text, (size_t)(paren - text.p) + 1);
	uint64_t numbers[20] = { 0 };
	for (unsigned i = 0; i < n_elems(numbers); i++) {
		if (rest.n && rest.p[0] == ' ')
			rest = slice_skip(rest, 1);
		const char *space = memchr(rest.p, ' ', rest.n);
		struct slice field = slice_head(rest, space ? (size_t)(space - rest.p) : rest.n);
		if (!field.n)
			return false;
		if (i == 0)
			out->state = field.p[0];
		else if (!text_uint(field, UINT64_MAX, &numbers[i]))
			numbers[i] = 0; /* some are negative; none of ours is */
		rest = slice_skip(rest, field.n);
	}
	out->parent = (pid_t)numbers[1];
	out->group = (pid_t)numbers[2];
	out->start = numbers[19];
	return true;
}

bool process_read(pid_t pid, struct process *out) {
	char path[40], text[1024];
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, sizeof(text));
	close(fd);
	*out = (struct process){ .pid = pid };
	return n > 0 && parse_stat((struct slice){ text, (size_t)n }, out);
}

static int by_pid(const void *a, const void *b) {
	const struct process *x = a, *y = b;
	return (x->pid > y->pid) - (x->pid < y->pid);
}

void process_list_read(struct process_list *l) {
	l->n = 0;
	DIR *proc = opendir("/proc");
	if (!proc)
		return;
	for (struct dirent *d = readdir(proc); d; d = readdir(proc)) {
		uint64_t pid;
		if (!text_uint(slice_of(d->d_name), INT32_MAX, &pid))
			continue;
		if (l->n == l->room) {
			l->room = l->room ? 2 * l->room : 256;
			l->items = realloc(l->items, l->room * sizeof(*l->items));
		}
		if (process_read((pid_t)pid, &l->items[l->n]))
			l->n++;
	}
	closedir(proc);
	qsort(l->items, l->n, sizeof(*l->items), by_pid);
}

void process_list_deinit(struct process_list *l) {
	free(l->items);
	*l = (struct process_list){ .items = NULL };
}

struct process *process_list_find(struct process_list *l, pid_t pid) {
	struct process key = { .pid = pid };
	return l->n ? bsearch(&key, l->items, l->n, sizeof(*l->items), by_pid) : NULL;
}

/* The list takes a while to read: a number in it may be another one's by now, and so are its children. */
static bool has_passed_on(const struct process *listed) {
	struct process now;
	return process_read(listed->pid, &now) && now.start != listed->start;
}

void process_list_spread(struct process_list *l) {
	for (bool is_done = false; !is_done;) { /* parents mostly have the lower number: two rounds */
		is_done = true;
		for (size_t i = 0; i < l->n; i++) {
			struct process *p = &l->items[i];
			struct process *parent = p->is_marked ? NULL : process_list_find(l, p->parent);
			if (parent && parent->is_marked && !has_passed_on(parent)) {
				p->is_marked = true;
				is_done = false;
			}
		}
	}
}

bool process_signal(const struct process *p, int number) {
	struct process now;
	int pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
	if (pidfd < 0)
		return false;
	/* If the one that the descriptor means is gone already, the signal reaches nobody. */
	bool is_same = process_read(p->pid, &now) && now.start == p->start;
	bool is_sent = is_same && syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0) == 0;
	close(pidfd);
	return is_sent;
}
