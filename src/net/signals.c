#include "net/signals.h"

#include <signal.h>

static void signals_on_signal(uv_signal_t *handle, int number) {
	struct signals *s = handle->data;
	s->on_signal(s, number);
}

void signals_init(
    struct signals *s, struct loop *loop, const int *numbers, unsigned n, signals_fn on_signal) {
	assert(n <= SIGNALS_MAX);
	s->n = n;
	s->on_signal = on_signal;
	signal(SIGPIPE, SIG_IGN);
	for (unsigned i = 0; i < n; i++) {
		uv_signal_init(&loop->uv, &s->handles[i]);
		s->handles[i].data = s;
		uv_signal_start(&s->handles[i], signals_on_signal, numbers[i]);
	}
}

void signals_close(struct signals *s) {
	for (unsigned i = 0; i < s->n; i++)
		uv_close((uv_handle_t *)&s->handles[i], NULL);
}
