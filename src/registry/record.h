/*
 * record: one registered service, as a client described it.
 *
 * record_parse() judges a body and makes a record of it, or of an older record with
 * what a PUT changes; record_new_stored() reads back what record_stored() wrote. Every
 * size is limited here. A record keeps what was sent as JSON text (metadata and labels
 * nowhere else: record_json() gives them as values), so its cost is what it says in
 * bytes. The roster owns the records that are in it and alone changes them. One thread.
 *
 * Bodies are a peer's: what is wrong with one is a refusal with the documented message.
 */
#pragma once

#include <jansson.h>

#include "base/slice.h"

#define RECORD_NAME_MAX   256u
#define RECORD_TEXT_MAX   1024u          /* host, hostname, url, status, role */
#define RECORD_JSON_MAX   (256u * 1024u) /* metadata and labels, each, in compact form */
#define RECORD_TTL_MAX_S  86400u
#define RECORD_WEIGHT_MAX 1000000u

/* What the last probe found; has no effect on is_healthy. */
enum record_health { HEALTH_UNKNOWN, HEALTH_HEALTHY, HEALTH_UNHEALTHY };

/* Immutable but for health and heartbeat_s, which the roster sets. One block of memory. */
struct record {
	const char *name, *host, *hostname, *url, *status;
	const char *role; /* NULL: not sent */
	double weight;    /* at top level, else metadata.weight, else 1 */
	bool has_weight;  /* one of the two was sent */
	bool is_running;  /* status is "running" */
	bool is_openai;   /* metadata.type is "openai-api": probed on port + 1, used by routers */
	uint16_t port;
	uint32_t ttl_s; /* 0: not sent */
	enum record_health health;
	int64_t registered_s; /* wall clock, Unix seconds: "timestamp" */
	int64_t heartbeat_s;  /* wall clock: "last_heartbeat"; for people, leases have the roster's time */
	size_t bytes;         /* of the block */
	struct slice head;    /* its JSON before last_heartbeat, */
	struct slice tail;    /* from metadata to the end, */
	size_t n_derived;     /* and how much of that, before the last brace, was not sent so */
};

/* An answer of 400: {"error": text}. */
struct record_refusal {
	char text[96]; /* "Invalid JSON", "Missing required field: <field>", "Invalid field: <field>" */
};

/*
 * A registration (base is NULL), or base with what the body says (PUT): null leaves a
 * field alone, metadata and labels are replaced whole, a name is ignored. wall_ms becomes
 * the heartbeat, and the time of registration of a new record. The health of base is kept.
 * NULL: refused.
 */
must_use struct record *record_parse(
    struct slice body, const struct record *base, uint64_t wall_ms, struct record_refusal *refusal_out);

/* A copy with another status: a heartbeat's body may set it. NULL: longer than it may be, or unprintable. */
must_use struct record *record_with_status(const struct record *r, struct slice status, uint64_t wall_ms);

void record_free(struct record **r);

/* JSON text for the store, without what a restart forgets (heartbeat, health). malloc'ed, terminated. */
must_use char *record_stored(const struct record *r, size_t *n_out);
/* What record_stored() wrote; wall_ms becomes the heartbeat. NULL: not a record. */
must_use struct record *record_new_stored(struct slice text, uint64_t wall_ms);

const char *record_health_name(enum record_health health);

/*
 * As clients see it: name, host, port, hostname, url, status, timestamp, last_heartbeat,
 * health_status, is_healthy, metadata, then weight (also when it stands in metadata only),
 * role, labels, ttl where they were sent. A new reference.
 */
must_use json_t *record_json(const struct record *r, bool is_healthy);

/* The same as compact text, many times as quick: for lists. A text starts as { .p = NULL }; free(t.p). */
struct record_text {
	char *p;
	size_t n, room;
};
void record_print(const struct record *r, bool is_healthy, struct record_text *t);
void record_text_put(struct record_text *t, struct slice bytes);
