/*
 * shape: what travels through the proxies: 16 models on 8 engines, answers of 600
 * bytes, stream events of 200. Load and sink build both from here, so that every
 * byte of an answer can be checked against the request it is for.
 *
 * An id is 16 hexadecimal digits that the load makes up and the sink gives back.
 * The fields that differ stand at fixed places. All of it is JSON of the API's form:
 * a router that reads its events and usage must find them.
 */
#pragma once

#include <string.h>

#include "base/defs.h"

#define SHAPE_N_ENGINES    8
#define SHAPE_N_MODELS     16
#define SHAPE_ID_BYTES     16
#define SHAPE_ANSWER_BYTES 600
#define SHAPE_EVENT_BYTES  200
#define SHAPE_EVENT_MS     50

/* Of a request: its id, and what the sink is to do. SGLang's router lets no field through but a few of known
 * names, and what begins like these. */
#define SHAPE_ID_FIELD   "x-request-id-bench"
#define SHAPE_WISH_FIELD "x-request-id-bench-wish"

/* Every model is on two engines, every engine has four models. */
static inline bool shape_serves(unsigned engine, unsigned model) {
	return engine == model % SHAPE_N_ENGINES || engine == (model + 1) % SHAPE_N_ENGINES;
}

/* `value` as `n` digits. */
static inline void shape_digits(char *at, size_t n, uint64_t value, unsigned base) {
	while (n-- > 0) {
		at[n] = "0123456789abcdef"[value % base];
		value /= base;
	}
}

static inline uint64_t shape_decimal(const char *at, size_t n) {
	uint64_t value = 0;

	for (size_t i = 0; i < n; i++)
		value = value * 10 + (uint64_t)(at[i] - '0');
	return value;
}

#define ANSWER_HEAD "{\"id\":\"chatcmpl-"
#define ANSWER_ENGINE                                                                                        \
	"\",\"object\":\"chat.completion\",\"created\":1700000000,\"system_fingerprint\":\"engine-"
#define ANSWER_TEXT "\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\""
#define ANSWER_TAIL                                                                                          \
	"\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":"                                      \
	"{\"prompt_tokens\":90,\"completion_tokens\":60,\"total_tokens\":150}}"
#define ANSWER_ID_AT     (sizeof(ANSWER_HEAD) - 1)
#define ANSWER_ENGINE_AT (ANSWER_ID_AT + SHAPE_ID_BYTES + sizeof(ANSWER_ENGINE) - 1)

#define EVENT_HEAD         "data: {\"id\":\"chatcmpl-"
#define EVENT_TIME         "\",\"object\":\"chat.completion.chunk\",\"t\":\""
#define EVENT_COUNT        "\",\"n\":\""
#define EVENT_TEXT         "\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\""
#define EVENT_TAIL         "\"},\"finish_reason\":null}]}\n\n"
#define EVENT_ID_AT        (sizeof(EVENT_HEAD) - 1)
#define EVENT_TIME_DIGITS  19
#define EVENT_TIME_AT      (EVENT_ID_AT + SHAPE_ID_BYTES + sizeof(EVENT_TIME) - 1)
#define EVENT_COUNT_DIGITS 6
#define EVENT_COUNT_AT     (EVENT_TIME_AT + EVENT_TIME_DIGITS + sizeof(EVENT_COUNT) - 1)

struct shape_writer {
	char *at;
};

static inline void shape_put(struct shape_writer *w, const char *text) {
	size_t n = strlen(text);

	memcpy(w->at, text, n);
	w->at += n;
}

static inline void shape_fill(struct shape_writer *w, size_t n, char c) {
	memset(w->at, c, n);
	w->at += n;
}

static inline void shape_answer(char answer_out[static SHAPE_ANSWER_BYTES]) {
	struct shape_writer w = { answer_out };

	shape_put(&w, ANSWER_HEAD);
	shape_fill(&w, SHAPE_ID_BYTES, '0');
	shape_put(&w, ANSWER_ENGINE "0" ANSWER_TEXT);
	shape_fill(&w, SHAPE_ANSWER_BYTES - (size_t)(w.at - answer_out) - sizeof(ANSWER_TAIL) + 1, 'a');
	shape_put(&w, ANSWER_TAIL);
	assert(w.at == answer_out + SHAPE_ANSWER_BYTES);
}

static inline void shape_event(char event_out[static SHAPE_EVENT_BYTES]) {
	struct shape_writer w = { event_out };

	shape_put(&w, EVENT_HEAD);
	shape_fill(&w, SHAPE_ID_BYTES, '0');
	shape_put(&w, EVENT_TIME);
	shape_fill(&w, EVENT_TIME_DIGITS, '0');
	shape_put(&w, EVENT_COUNT);
	shape_fill(&w, EVENT_COUNT_DIGITS, '0');
	shape_put(&w, EVENT_TEXT);
	shape_fill(&w, SHAPE_EVENT_BYTES - (size_t)(w.at - event_out) - sizeof(EVENT_TAIL) + 1, 'e');
	shape_put(&w, EVENT_TAIL);
	assert(w.at == event_out + SHAPE_EVENT_BYTES);
}
