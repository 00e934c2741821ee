/*
 * readiness: finds out whether the engine serves, and goes on looking.
 *
 * An engine that was just started is tried after 100 ms, then in steps that double up to
 * 1 s: its port must be open, and it must list its models (GET /v1/models, else /models).
 * An answer of 404 to both, or one that wants a key, is an engine that serves without a
 * list. Where it is wanted, one token must be completed besides. From then on the list
 * is asked for every interval: that is the sign of life, and how models that come later
 * are learned. The first look that fails is followed by another within a second.
 *
 * The engine is looked for at its host and, if nothing listens there, at 127.0.0.1.
 * One thread, the loop's. Callbacks run from the loop, never from inside a call to here.
 */
#pragma once

#include <jansson.h>

#include "http/origin.h"

enum readiness_state {
	READINESS_IDLE = 1, /* told to look at nothing */
	READINESS_TRYING,   /* started, does not serve yet */
	READINESS_SERVING,  /* was found ready; looked at every interval */
};

struct readiness_rules {
	const char *host; /* where the engine listens; one that stands for all will do */
	uint64_t interval_ms, timeout_ms;
	bool completion;
	struct slice bearer;  /* the engine's key; empty: none */
	const char *tls_name; /* the engine speaks TLS, with a certificate of this name; NULL: plain */
};

struct readiness;

struct readiness_ops {
	void (*on_ready)(struct readiness *r);
	/* A look at a serving engine went well, or did not. */
	void (*on_look)(struct readiness *r, bool is_good);
	/* r->models is another list; told before on_ready and on_look. May be NULL. */
	void (*on_models)(struct readiness *r);
};

struct readiness {
	struct loop *loop;
	const struct readiness_rules *rules;
	const struct readiness_ops *ops;
	struct origin *origins[2]; /* the second may be NULL */
	unsigned origin;           /* the one that answered, or is tried */
	struct fetch fetch;
	struct timer timer;
	enum readiness_state state;
	unsigned step; /* enum readiness_step, private */
	bool has_tried_other;
	uint64_t pause_ms;
	uint16_t port;
	uint32_t n_failed; /* looks in a row that went wrong */
	bool has_list;     /* the engine lists its models */
	json_t *models;    /* array of objects with an id; never NULL */
};

/* rules and ops must outlive it. */
void readiness_init(struct readiness *r, struct loop *loop, const struct readiness_rules *rules,
    const struct readiness_ops *ops);
void readiness_deinit(struct readiness *r);

/* An engine was started that will listen on this port. */
void readiness_start(struct readiness *r, uint16_t port);
/* It is gone, or must not be looked at any more. Forgets its models. */
void readiness_stop(struct readiness *r);

/* Where the engine answers; NULL before it did, or after readiness_stop(). Valid until the next call. */
struct origin *readiness_origin(const struct readiness *r);

/* Serving, and the last looks do not all say otherwise. */
bool readiness_is_good(const struct readiness *r);

/* Writes "http://host:port", or https, of the place to look for an engine that listens at host. */
void readiness_url(char url[static ORIGIN_URL_MAX], const char *host, uint16_t port, bool is_tls);

/* The list in {"data": [...]} or [...], objects with an id alone; NULL: it is neither. */
must_use json_t *readiness_read_list(struct slice body);
