/*
 * mock: the mock engine as one process: its rules and its core, the faults that are
 * armed, what was captured, and the connections at work. Private to the engine.
 *
 * One thread, one loop. mock_core_init() alone makes all that needs no socket, which
 * is what mock_answer() works on. A call (mock_call.c) is one request: it receives the
 * body, is answered at once or handed to the scheduler, and ends through one function.
 */
#pragma once

#include "base/rng.h"
#include "engine/announcer.h"
#include "engine/api.h"
#include "engine/capture.h"
#include "engine/kv_channel.h"
#include "engine/mock_config.h"
#include "engine/scheduler.h"
#include "http/server.h"

#define MOCK_BODY_BYTES_MAX (256ull * 1024 * 1024)

struct mock {
	const struct mock_config *config;
	struct generation_rules rules;
	struct scheduler *ranks;   /* rules.kv.n_ranks of them */
	struct ledger *ledger;     /* of them all */
	uint64_t n_placed;         /* requests that named no rank */
	struct fault fault;        /* of --fault and POST /mock/faults */
	struct fault header_fault; /* of the last x-mock-fault: counts on while the same one comes again */
	struct capture capture;
	struct stored stored;
	struct rng rng;     /* for ids */
	uint32_t n_serving; /* generations from start to end */
	int64_t created_s;

	struct buf_budget budget;
	struct loop loop;
	struct server server;
	struct slab slab; /* of calls */
	struct list calls;
	struct kv_channel channel; /* what prefills keep for decodes */
	struct list awaiting;      /* prefills whose decodes have not come */
	struct timer tick;         /* the scheduler's next token */
	struct bytes events;       /* one rendering at a time */
	struct announcer announcer;
	struct mail stop;
};

/* What a request wants, as far as the answers at once need to know. */
struct mock_request {
	struct slice method, path, body;
	bool is_sick; /* its header asks for health:fail */
};

struct mock_response {
	uint32_t status;
	const char *content_type; /* NULL: no body */
	const char *allow;        /* with 405 */
	struct bytes body;
};

/* `now_ns` is the time of the clock, for the ledger. The config must outlive the mock. */
void mock_core_init(struct mock *m, const struct mock_config *config, uint64_t now_ns);
void mock_core_deinit(struct mock *m);

/*
 * Answers what needs no generation: lists, health, metrics, counting, the mock's own
 * endpoints, and what is not there (404, 405). The caller owns response->body.
 */
void mock_answer(struct mock *m, const struct mock_request *request, struct mock_response *response);

/* JSON as the body. Takes the reference. */
void mock_respond_json(struct mock_response *response, uint32_t status, json_t *json);
void mock_respond_refusal(struct mock_response *response, const struct refusal *refusal, bool is_anthropic);

/* Takes the listening socket; negative: it, the side channel's or the announcer's could not be opened. */
must_use int mock_open(struct mock *m, const struct mock_config *config, int listen_fd);

/* Serves until mock_stop(), which is safe in a signal handler and in another thread, once. */
void mock_run(struct mock *m);
void mock_stop(struct mock *m);

/* Cuts what is still at work. */
void mock_close(struct mock *m);

/* --- between mock.c and mock_call.c ---------------------------------------------- */

extern const struct server_handler mock_handler;
extern const size_t mock_call_bytes;

/* The generation's sequence has moved: whoever serves it looks at it in this turn. */
void mock_call_wake(struct generation *g);

/* Ends a call of m->calls without an answer. */
void mock_call_cut(struct list *link);

/* Moves the scheduler on to now and sets the timer for what comes next. */
void mock_tick(struct mock *m);
