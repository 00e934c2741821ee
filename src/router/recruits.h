/*
 * recruits: the engines that were registered while the router runs, as the fleet's SOURCE_API.
 *
 * An engine that is new must answer its health question first, which is asked each second, or when it is its
 * turn, until it does or its time is over (a job); then it is in the fleet, and the job is done when the
 * fleet knows it: addresses, models, health. One that is there is put again to change its record in place; an
 * engine of the configuration with its url leaves for it. What failed is kept for a while, to be shown.
 *
 * A url without a rank is an engine as a whole, whose ranks the fleet makes of it, and those of its ranks
 * that were registered alone leave for it; where it is registered, none of them can be.
 *
 * With a file the table outlives the process: it is written, whole or not at all, after each change, and an
 * answer that tells of a change waits for that (recruits_answer()). What the file has is in the fleet from
 * the start; jobs that were under way begin anew. A file that cannot be read, or not all of it, is kept
 * beside the new one, FILE.bad.
 *
 * Control thread.
 */
#pragma once

#include "net/file_save.h"
#include "router/petition.h"
#include "router/recruit.h"

#define RECRUITS_MAX        1024u
#define RECRUITS_ASKED_MAX  64u /* at a time, for some seconds each; others wait for their turn */
#define RECRUITS_FAILED_MAX 64u /* are remembered */
#define RECRUITS_WAIT_MAX   32u /* petitions; who only looks finds a place among those that are left */

enum recruits_outcome {
	RECRUITS_E_FULL = 1, /* RECRUITS_MAX, or the fleet has no room */
	RECRUITS_E_LIMIT,    /* beyond a limit of the fleet */
	RECRUITS_E_ABSENT,
	RECRUITS_E_WHOLE, /* the rank's engine is registered as a whole */
};

enum recruit_status { RECRUIT_PENDING, RECRUIT_PROCESSING, RECRUIT_DONE, RECRUIT_FAILED };

/* "pending", "processing", "done", "failed". */
const char *recruit_status_text(enum recruit_status status);

/* Asked anew for each job: a reload may have changed them. Texts are good until then. */
struct recruits_terms {
	const char *health_path, *api_key;
	uint64_t startup_timeout_ms, answer_ms;
};

struct recruits_options {
	struct loop *loop;
	struct fleet *fleet;
	const char *file; /* "": none */
	struct recruits_terms (*terms)(void *context);
	void (*on_change)(void *context); /* the fleet is another: publish it */
	/* The job that a petition waits for has ended; error NULL: well. The petition is the callee's. */
	void (*on_end)(struct petition *p, const char *url, const char *error);
	void *context;
};

struct recruits;

/* Reads the file, if there is one, into the fleet. */
must_use struct recruits *recruits_new(const struct recruits_options *options);

/* The loop is about to end. Petitions that wait are petitions_close()'s. Accepts NULL, clears. */
void recruits_free(struct recruits **recruits);

/* Somebody else has the file from now on. */
void recruits_leave_file(struct recruits *r);

/* The fleet as it was published: jobs may be done, and engines of the configuration have to yield. */
void recruits_sync(struct recruits *r, const struct snapshot *snapshot);

/* Takes the recruit, also when it fails. */
must_use int recruits_put(struct recruits *r, struct recruit **recruit);

/* By the one form of its url. */
must_use int recruits_remove(struct recruits *r, struct slice url);

/* There are fewer than RECRUITS_WAIT_MAX. */
must_use bool recruits_can_wait(const struct recruits *r);

/* A job is under way: the petition waits for its end (on_end), unless who asked leaves. */
void recruits_wait(struct recruits *r, struct slice url, struct petition *p);

/* The petition has its answer: it goes out when all changes until now are on the disk. */
void recruits_answer(struct recruits *r, struct petition *p);

struct recruits_row {
	const struct recruit *recruit;
	enum recruit_status status;
	const char *error; /* of a failed one, or why it is waited for; "": nothing */
};

/* The one with this url, or else the one that this url is a rank of. False: there is none. Good until the
 * next change. */
must_use bool recruits_find(const struct recruits *r, struct slice url, struct recruits_row *row_out);

/* All of them, in the order in which they came. */
void recruits_each(
    const struct recruits *r, void (*see)(void *context, const struct recruits_row *row), void *context);
