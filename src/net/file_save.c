#include "net/file_save.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/slice.h"

struct file_save {
	uv_work_t request;
	file_save_fn on_done;
	void *context;
	char *text;
	size_t n;
	int error;
	bool is_busy;
	bool is_abandoned; /* freed by its owner: the callback frees the memory */
	char path[];
};

static bool is_at(int fd, const char *path) {
	struct stat own, named;

	return fstat(fd, &own) == 0 && stat(path, &named) == 0 && own.st_dev == named.st_dev &&
	    own.st_ino == named.st_ino;
}

/* The file of this name, which nobody else has locked. Who was waited for has taken it away, or left it. */
static int open_locked(const char *path) {
	for (;;) {
		int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

		if (fd < 0)
			return -errno;
		int r = flock(fd, LOCK_EX) < 0 ? -errno : 0;
		if (r == 0 && is_at(fd, path))
			return fd;
		close(fd);
		if (r && r != -EINTR)
			return r;
	}
}

/* In place of what it has. */
static int write_all(int fd, struct slice text) {
	off_t size = (off_t)text.n;

	while (text.n) {
		ssize_t n = write(fd, text.p, text.n);

		if (n < 0 && errno != EINTR)
			return -errno;
		text = slice_skip(text, n > 0 ? (size_t)n : 0);
	}
	return ftruncate(fd, size) < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int sync_folder(const char *path) {
	const char *slash = strrchr(path, '/');
	size_t n = slash ? (size_t)(slash - path) + 1 : 2;
	char folder[4096];

	if (n >= sizeof(folder))
		return -ENAMETOOLONG;
	memcpy(folder, slash ? path : "./", n);
	folder[n] = '\0';
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

int file_save_now(const char *path, struct slice text) {
	char beside[4096];

	if ((size_t)snprintf(beside, sizeof(beside), "%s.new", path) >= sizeof(beside))
		return -ENAMETOOLONG;
	int fd = open_locked(beside);
	if (fd < 0)
		return fd;
	int r = write_all(fd, text);
	if (r == 0 && rename(beside, path) < 0)
		r = -errno;
	if (r)
		unlink(beside);
	close(fd); /* not before: it is the lock, and all is on the disk */
	return r ? r : sync_folder(path);
}

struct file_save *file_save_new(const char *path, file_save_fn on_done, void *context) {
	size_t n = strlen(path) + 1;
	struct file_save *s = calloc(1, sizeof(*s) + n);

	memcpy(s->path, path, n);
	s->on_done = on_done;
	s->context = context;
	return s;
}

void file_save_free(struct file_save **sp) {
	struct file_save *s = *sp;

	*sp = NULL;
	if (!s)
		return;
	s->is_abandoned = true;
	if (!s->is_busy)
		free(s);
}

bool file_save_is_busy(const struct file_save *s) {
	return s->is_busy;
}

static void file_save_work(uv_work_t *request) {
	struct file_save *s = container_of(request, struct file_save, request);

	s->error = file_save_now(s->path, (struct slice){ s->text, s->n });
}

static void file_save_on_done(uv_work_t *request, int status) {
	struct file_save *s = container_of(request, struct file_save, request);

	free(s->text);
	s->is_busy = false;
	if (s->is_abandoned)
		free(s);
	else
		s->on_done(s->context, status < 0 ? status : s->error);
}

void file_save_start(struct file_save *s, struct loop *loop, char *text, size_t n) {
	assert(!s->is_busy && !s->is_abandoned);
	s->is_busy = true;
	s->text = text;
	s->n = n;
	int r = uv_queue_work(&loop->uv, &s->request, file_save_work, file_save_on_done);
	assert(r == 0);
}
