#include "router/succession.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool succession_begin(struct succession *s) {
	*s = (struct succession){ .channel = -1 };
	int r = handover_inherited();
	if (r == -1)
		return true;
	if (r >= 0) {
		s->channel = r;
		r = handover_receive(r, &s->handed);
	}
	if (r < 0)
		fprintf(stderr, "headrace router: no sockets from the process before this one: %s\n",
		    strerror(-r));
	return r >= 0;
}

static void succession_go(struct succession *s) {
	s->is_over = true;
	s->on_go(s);
}

/* It is gone: nobody else will accept. */
static void succession_inherit(struct succession *s) {
	succession_end(s);
	if (!s->is_over)
		succession_go(s);
}

static void succession_run(struct job *job) {
	struct succession *s = container_of(job, struct succession, job);
	char word[HANDOVER_WORD_BYTES];
	int r;
	while ((r = handover_hear(s->channel, word)) == 0)
		if (succession_is_offered(s) && strcmp(word, "go") == 0)
			succession_go(s);
	if (r != -EAGAIN)
		succession_inherit(s);
}

void succession_watch(struct succession *s, struct loop *loop, void (*on_go)(struct succession *s)) {
	assert(succession_has_predecessor(s));
	s->loop = loop;
	s->on_go = on_go;
	job_init(&s->job, succession_run);
	if (fd_event_open(&s->said, loop, s->channel, &s->job) < 0)
		succession_inherit(s);
}

void succession_offer(struct succession *s) {
	s->is_offered = true;
	if (handover_say(s->channel, "ready") < 0)
		succession_inherit(s);
}

/* From now on we write to where it does, and not through it. */
static void take_stderr(struct succession *s) {
	int fd = handed_take(&s->handed, "stderr");
	if (fd < 0)
		return;
	dup2(fd, STDERR_FILENO);
	close(fd);
}

static void succession_say(struct succession *s, const char *word) {
	if (s->channel >= 0 && handover_say(s->channel, word) < 0)
		succession_end(s);
}

void succession_say_serving(struct succession *s) {
	take_stderr(s);
	succession_say(s, "serving");
}

void succession_hurry(struct succession *s) {
	succession_say(s, "end");
}

void succession_end(struct succession *s) {
	if (s->channel < 0)
		return;
	if (s->said.handle) {
		job_cancel(&s->job);
		fd_event_close(&s->said);
	}
	close(s->channel);
	s->channel = -1;
}
