/*
 * registry_source: keeps the registry's part of the fleet as the registry says.
 *
 * The watch is asked for first: events that come as things change. A registry without
 * one answers that question with its list, and is then asked for it every
 * `sync_interval_ms` (GET /services?healthy=true), and now and then for the watch again;
 * so is one whose watch ends before its first message.
 * While the registry is away the fleet stays as it is, for ever; the last good table is
 * in a file, from which a router begins that is started in the meantime. What the words
 * of the registry mean is discovery/membership.h.
 *
 * Control thread. `on_change`, once for all that a turn of the loop has brought, asks
 * the owner to build and publish a snapshot.
 */
#pragma once

#include "base/rng.h"
#include "discovery/event_reader.h"
#include "discovery/membership.h"
#include "http/origin.h"

struct registry_options {
	const char *url;
	const char *token; /* bearer; "": none */
	const char *file;  /* of the last good table; "": none is kept */
	bool is_file_ours; /* nobody named it: its folder is made, and not to be able to is no error */
	uint64_t sync_interval_ms, grace_ms;
};

enum registry_question { REGISTRY_WATCH, REGISTRY_LIST };

struct registry_counts {
	uint64_t n_lists, n_events, n_failures, n_saves, n_save_failures;
};

#define REGISTRY_EPOCH_BYTES 64

struct registry_source {
	struct loop *loop;
	struct registry_options options;
	struct membership *membership;
	struct origin *origin;
	struct fetch fetch;
	enum registry_question question; /* the one that is asked now, or was last */
	struct event_reader events;
	char *list; /* what came in place of events: the whole of a list */
	size_t list_n;
	bool is_list;                     /* the first byte says so */
	bool has_begun;                   /* some byte came, since it was asked */
	bool is_told;                     /* a message came, since it was asked */
	bool has_watch;                   /* its watch has spoken, and has not failed since */
	bool is_heard;                    /* it answers: the last question was not in vain */
	bool is_silence_said;             /* in the log */
	bool is_lack_said;                /* of a watch; in the log */
	char epoch[REGISTRY_EPOCH_BYTES]; /* "": none */
	uint64_t version;
	uint64_t wait_ms;     /* after the next failure */
	uint64_t watch_at_ms; /* not before that: it has none */
	uint64_t heard_ms;    /* when it said something last; 0: never */
	struct timer next, tick, save_timer;
	struct job change;
	struct file_save *save;
	uint64_t saved_version, published_version;
	struct rng rng;
	struct registry_counts counts;
	void (*on_change)(struct registry_source *s);
};

/* Reads the file, and begins. The texts must outlive the source. False: not a url that can be asked. */
must_use bool registry_source_init(struct registry_source *s, struct loop *loop, struct fleet *fleet,
    const struct registry_options *options, void (*on_change)(struct registry_source *s));
/* Other options but url and file, from the next question on. */
void registry_source_retune(struct registry_source *s, const struct registry_options *options);
void registry_source_deinit(struct registry_source *s);

/* The file is somebody else's from now on. */
void registry_source_leave_file(struct registry_source *s);

/* Milliseconds since the registry was heard; UINT64_MAX: it never was. A watch that goes on is being heard.
 */
uint64_t registry_source_age_ms(const struct registry_source *s);
