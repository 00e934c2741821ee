#include "engine/announcer.h"

#include <errno.h>

#define PERIOD_MS 1000u

/* --- MessagePack --------------------------------------------------------------------- */

static bool add(struct announcer *a, const void *bytes, size_t n) {
	if (n > sizeof(a->message) - a->n)
		return false;
	memcpy(a->message + a->n, bytes, n);
	a->n += n;
	return true;
}

/* A type and 16 bits, which its length or its value is. */
static bool add_head(struct announcer *a, uint8_t type, size_t number) {
	const uint8_t bytes[] = { type, (uint8_t)(number >> 8), (uint8_t)number };

	return number <= UINT16_MAX && add(a, bytes, sizeof(bytes));
}

static bool add_str(struct announcer *a, const char *text) {
	size_t n = strlen(text);

	return add_head(a, 0xda, n) && add(a, text, n);
}

static bool add_text(struct announcer *a, const char *key, const char *value) {
	return add_str(a, key) && add_str(a, value);
}

static bool add_number(struct announcer *a, const char *key, uint32_t value) {
	return add_str(a, key) && add_head(a, 0xcd, value);
}

static bool write_message(struct announcer *a, const struct announcement *said) {
	a->n = 0;
	return add_head(a, 0xde, said->transfer_mode ? 6 : 3) &&
	    add_text(a, "type", said->is_prefill ? "P" : "D") &&
	    add_text(a, "http_address", said->http_address) &&
	    add_text(a, "zmq_address", said->zmq_address) &&
	    (!said->transfer_mode ||
		(add_text(a, "transfer_mode", said->transfer_mode) &&
		    add_number(a, "tp_size", said->tp_size) && add_number(a, "dp_size", said->dp_size)));
}

/* --- life ---------------------------------------------------------------------------- */

/* One that is dropped is followed by the next one. */
static void on_time(struct timer *t) {
	struct announcer *a = container_of(t, struct announcer, timer);

	(void)zmq_outbox_send(&a->outbox, (struct slice){ a->message, a->n });
	loop_timer(a->loop, &a->timer, PERIOD_MS);
}

int announcer_open(
    struct announcer *a, struct loop *loop, const char *address, const struct announcement *said) {
	if (!write_message(a, said))
		return -EMSGSIZE;
	int r = zmq_outbox_open(&a->outbox, address, said->zmq_address);
	if (r < 0)
		return r;
	a->loop = loop;
	timer_init(&a->timer, on_time);
	on_time(&a->timer);
	return 0;
}

void announcer_close(struct announcer *a) {
	if (a->loop)
		timer_stop(&a->timer);
	a->loop = NULL;
	zmq_outbox_close(&a->outbox);
}
