/*
 * inspect: what the router wants to know of a request before it picks an instance,
 * found while the body arrives.
 *
 * Only the body of a POST that is JSON is read, by its type or, where the client gave none, by
 * its first byte; all others are routed without a model.
 * The state lives in one lent buf that is given back when the body is complete.
 */
#pragma once

#include "http/head.h"
#include "router/scan.h"

struct inspect {
	struct buf *buf; /* scanner, values and text; NULL: the body is not read */
	bool is_guess;   /* no type was given and no byte has come yet */
	bool may_be_empty;
	enum cause cause;
	bool is_complete;
	bool is_streamed;
};

/* Decides by the head. A cause other than NONE refuses the request. */
enum cause inspect_init(struct inspect *in, struct buf_pool *pool, const struct head *head);
void inspect_deinit(struct inspect *in, struct buf_pool *pool);

/* The next bytes of the body. The cause is final. */
enum cause inspect_feed(struct inspect *in, struct buf_pool *pool, const char *p, size_t n);
/* The body is complete. */
enum cause inspect_finish(struct inspect *in, struct buf_pool *pool);

/* True when nothing more will be learned that picking needs. */
bool inspect_is_decided(const struct inspect *in);

/* The model as named by the client: p is NULL when none was (so far). A bad one is a cause of inspect_feed().
 */
struct slice inspect_model(const struct inspect *in);

/*
 * What requests of one session have in common: the text of the body's `prompt_cache_key`. 0: there is none,
 * none so far, or one that is no text of 1 to 256 bytes; of equal texts for different models the results
 * differ.
 */
uint64_t inspect_session(const struct inspect *in);
