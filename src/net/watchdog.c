#include "net/watchdog.h"

#include "base/log.h"
#include "base/notify.h"

struct watchdog_question {
	struct mail mail;
	struct loop *loop;
	_Atomic bool is_open; /* asked and not answered */
};

static void question_deliver(struct mail *m) {
	struct watchdog_question *q = container_of(m, struct watchdog_question, mail);
	atomic_store_explicit(&q->is_open, false, memory_order_release);
}

static unsigned count_open(const struct watchdog *w) {
	unsigned n = 0;
	for (unsigned i = 0; i < w->n; i++)
		n += atomic_load_explicit(&w->questions[i].is_open, memory_order_acquire);
	return n;
}

static void watchdog_ask(struct watchdog *w) {
	for (unsigned i = 0; i < w->n; i++) {
		struct watchdog_question *q = &w->questions[i];
		atomic_store_explicit(&q->is_open, true, memory_order_relaxed);
		loop_post(q->loop, &q->mail, question_deliver);
	}
}

static void watchdog_say(struct watchdog *w, unsigned n_open) {
	struct log_event e;
	if (w->is_silent == (n_open > 0))
		return;
	w->is_silent = n_open > 0;
	log_begin(&e, w->is_silent ? LOG_ERROR : LOG_INFO,
	    w->is_silent ? "threads stand still: the service manager will end the process"
			 : "all threads move again");
	line_uint(&e.line, SLICE("still"), n_open);
	log_end(&e);
}

static void watchdog_on_timer(struct timer *t) {
	struct watchdog *w = container_of(t, struct watchdog, timer);
	unsigned n_open = count_open(w);
	if (!n_open) {
		notify_manager("WATCHDOG=1");
		watchdog_ask(w);
	}
	watchdog_say(w, n_open);
	loop_timer(w->loop, &w->timer, w->every_ms);
}

void watchdog_start(struct watchdog *w, struct loop *loop, struct loop *const *others, unsigned n) {
	uint64_t limit_ms = notify_watchdog_ms();
	*w = (struct watchdog){ .loop = loop, .every_ms = u64_max(limit_ms / 4, 1) };
	if (!limit_ms)
		return;
	w->questions = calloc(n + 1u, sizeof(*w->questions));
	w->n = n;
	for (unsigned i = 0; i < n; i++)
		w->questions[i].loop = others[i];
	timer_init(&w->timer, watchdog_on_timer);
	loop_timer(loop, &w->timer, 0);
}

void watchdog_stop(struct watchdog *w) {
	if (w->questions)
		timer_stop(&w->timer);
}

void watchdog_free(struct watchdog *w) {
	free(w->questions);
	w->questions = NULL;
}
