/*
 * petition: a request that the control thread alone can answer: of the worker API, or a question about
 * engines.
 *
 * It comes from a client of the data port, by mail from the worker that has it, or from the admin port, whose
 * loop is the control thread's own. The control thread runs it (fleet_routes_run()), and sooner or later
 * gives it one answer. The answer goes past all workers on its way, behind whatever was published before it:
 * a change that a client has heard of holds for the requests it sends next, whichever worker gets them.
 *
 * Owned by who made it until petition_send() or petition_run(); from then on by the control thread, which
 * keeps it until its answer has arrived. A worker whose client has left lets go of it (petition_leave()) and
 * must not touch it any more; the control thread is told, by mail. A change that it asked for is made all the
 * same; whoever only waits, or asks an engine, for its sake ends that (petition_keep()), and it is over. At
 * most PETITIONS_MAX of a kind are alive.
 */
#pragma once

#include <jansson.h>

#include "http/endpoint.h"
#include "net/loop.h"

#define PETITIONS_MAX           64u
#define PETITION_BODY_BYTES_MAX 65536u

struct petition;

/* Nobody waits for it any more. It has left the list `waiting`, and is freed afterwards. */
typedef void (*petition_left_fn)(void *keeper, struct petition *p);

enum petition_kind {
	PETITION_OF_OPERATOR, /* of who may change the fleet */
	PETITION_OF_CLIENT,   /* of anybody who may send requests: they take no places from operators */
	PETITION_KINDS,
};

/* The control thread's end. Filled before the workers start. */
struct petitions {
	struct loop *loop;
	void *context; /* what they are run with: the report */
	void (*run)(struct petition *p);
	struct worker *workers; /* by whom answers go */
	unsigned n_workers;
	/* private */
	_Atomic uint32_t n_alive[PETITION_KINDS];
	struct list kept; /* run, and not answered */
	bool is_closed;
	bool are_workers_gone;
};

struct petition {
	struct petitions *petitions;
	enum petition_kind kind;
	enum method method;
	struct slice path, query; /* as they stand in the target */
	char *body;
	size_t body_bytes;
	struct list waiting; /* for whoever keeps it on the control thread */

	/* The answer. */
	unsigned status;
	const char *type;
	char *text;

	/* private */
	petition_left_fn on_left; /* NULL: it is answered in any case */
	void *keeper;
	struct list link;
	struct mail mail, farewell;
	_Atomic uint32_t n_refs; /* the answer's way, and the farewell's */
	bool has_left;           /* as the control thread knows */
	struct loop *home;       /* of the worker that made it; NULL: it is of the admin port */
	struct job *job;         /* of the worker: woken by the answer; NULL: it has let go */
	struct endpoint_call *call;
	unsigned n_passed; /* workers that its answer has gone by */
	bool is_back;
	char target[];
};

void petitions_init(struct petitions *p, struct loop *loop, void (*run)(struct petition *p), void *context);

/* Control thread, whose loop is about to end: what waits is answered, what comes is answered at once. */
void petitions_close(struct petitions *p);

/* All workers have ended: what is still under way is freed when it arrives. */
void petitions_forget_workers(struct petitions *p);

/* --- a worker's ------------------------------------------------------------------------ */

/* NULL: there are too many. */
must_use struct petition *petition_new(
    struct petitions *petitions, enum petition_kind kind, const struct head *head, struct loop *home);

/* False: its body would be too large. */
must_use bool petition_add_body(struct petition *p, const struct piece *pieces, size_t n);

/* `job` is woken when petition_is_back(). */
void petition_send(struct petition *p, struct job *job);

bool petition_is_sent(const struct petition *p);
bool petition_is_back(const struct petition *p);

/* Whoever made it is through with it, whatever has become of it. Clears. */
void petition_leave(struct petition **p);

/* --- the admin port's -------------------------------------------------------------------- */

/* Answers the call, sooner or later. */
void petition_run(struct petitions *petitions, struct endpoint_call *call);

/* --- the control thread's ------------------------------------------------------------------ */

/* A copy of the value in the query, decoded; NULL: it is not there. The caller's to free. */
must_use char *petition_query(const struct petition *p, const char *key);

/* Its answer, which goes out with petition_release(). Takes the reference; what cannot be written as JSON, as
 * NULL cannot, is 500 `internal_error`. The text is copied. */
void petition_set_json(struct petition *p, unsigned status, json_t *json);
void petition_set_text(struct petition *p, unsigned status, struct slice text);

/* The error object of OpenAI's API; `code` stands beside it as well, where clients of vLLM's router look for
 * it. */
void petition_set_error(struct petition *p, unsigned status, const char *code, const char *message);

/* Until it has its answer: when who asked leaves before, that is the end of it, and `keeper` is told. */
void petition_keep(struct petition *p, petition_left_fn on_left, void *keeper);

/* It has its answer, and is not the caller's any more. */
void petition_release(struct petition *p);

/* Both at once. */
void petition_answer_json(struct petition *p, unsigned status, json_t *json);
void petition_answer_text(struct petition *p, unsigned status, struct slice text);
void petition_answer_error(struct petition *p, unsigned status, const char *code, const char *message);
