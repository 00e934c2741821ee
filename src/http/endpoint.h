/*
 * endpoint: a program's own endpoints: one table of methods and paths, and the server
 * that serves it on one loop.
 *
 * A request whose method and path match a row is received whole (within the row's
 * limit) and handed to the row's function, which answers at once or keeps the call and
 * answers later, always through one of the endpoint_answer functions; after the
 * answer the call is gone. A path without a row is 404, a known path with another
 * method 405 with Allow, a body beyond the limit 413, one that is not there after 30 s
 * 408, one for which there is no memory 503. Errors are JSON:
 * {"error": text, "code": stable word}. HEAD is served by the rows of GET.
 *
 * One thread, the loop's. A client that leaves ends its call; who has kept it is told
 * by `on_gone` and must not touch it any more. A client that only closes its side gets
 * the answer of a kept call, but no stream.
 */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "http/caller.h"

#define ENDPOINT_PEER_BYTES CALLER_PEER_BYTES

struct endpoint_call;
typedef void (*endpoint_fn)(struct endpoint_call *c);

struct endpoint { /* in the order in which a row is read: NOLINT(clang-analyzer-optin.performance.Padding) */
	enum method method;
	/* "/services/{name}/heartbeat": {...} stands for one whole segment, once a path; {...*}, at its end,
	 * for all that is left of it. */
	const char *path;
	endpoint_fn run;
	size_t body_bytes_max; /* 0: a body is read and thrown away, up to 64 KiB */
	bool writes;           /* changes something: needs the token, where there is one */
};

struct endpoint_server {
	struct server server;
	const struct endpoint *rows;
	size_t n_rows;
	void *context;
	const char *token; /* bearer token for rows that write; NULL or "": none needed */
	/* Set after opening: rows that write are for who brings the token, and for programs on this machine.
	 */
	bool is_guarded;
	/* private */
	struct client_budget clients; /* half of the descriptors that the process may have, at open */
	struct slab calls;
	struct list active;
	size_t bodies_bytes;           /* held by the calls, at most 256 MiB */
	struct endpoint_call *running; /* its run() has neither answered nor kept it so far */
};

/* Takes the listening socket. token: see above, must outlive the server. */
must_use int endpoint_server_open(struct endpoint_server *s, struct loop *loop, int fd,
    const struct endpoint *rows, size_t n_rows, void *context, const char *token);

/* Stops accepting; kept calls may still be answered; idle connections are closed. */
void endpoint_server_drain(struct endpoint_server *s);
/* Cuts what is left. */
void endpoint_server_close(struct endpoint_server *s);
/* After the loop has ended. */
void endpoint_server_deinit(struct endpoint_server *s);

/* --- what was asked; valid until the answer -------------------------------------- */

void *endpoint_context(const struct endpoint_call *c);
const struct head *endpoint_head(const struct endpoint_call *c);
/* The {...} segment, percent-decoded. */
struct slice endpoint_param(const struct endpoint_call *c);
/* The first value of a key of the query, percent-decoded; p is NULL when the key is not there. Valid until
 * the next call of this function. */
struct slice endpoint_query(struct endpoint_call *c, const char *key);
/* Whether the query is percent-encoded as it should be. Where it is not, the above has values as they stand
 * there. What it gave before is not valid any more. */
bool endpoint_query_is_good(struct endpoint_call *c);
struct slice endpoint_body(const struct endpoint_call *c);
/* The client's address, also where it came as ::ffff:a.b.c.d an IPv4 one without that; no scope. */
struct slice endpoint_peer(struct endpoint_call *c, char room[static ENDPOINT_PEER_BYTES]);
/* Whether the client is on this machine: its address is of the loopback. */
bool endpoint_is_local(struct endpoint_call *c);
/* Whether it came with this bearer token, found in a time that says nothing about the token. */
bool endpoint_has_token(const struct endpoint_call *c, struct slice token);
/* Whether the client asked for text/event-stream. */
bool endpoint_wants_events(const struct endpoint_call *c);

/* --- answers; the call is gone afterwards ----------------------------------------- */

/* Compact JSON. Takes the reference. */
void endpoint_answer_json(struct endpoint_call *c, unsigned status, json_t *json);
/* type NULL: no body. */
void endpoint_answer_text(struct endpoint_call *c, unsigned status, const char *type, struct slice body);
/* The same of a piece of a buf, which is kept instead of copied while the client does not take it. */
void endpoint_answer_piece(struct endpoint_call *c, unsigned status, const char *type, struct piece body);
/* 200 with what `write` writes of the endpoints' context, in Prometheus' text format. */
void endpoint_answer_metrics(struct endpoint_call *c, void (*write)(void *context, FILE *out));
/* {"error": message, "code": code}; retry-after: 1 with 503. */
void endpoint_answer_error(
    struct endpoint_call *c, unsigned status, const char *code, const char *format, ...) printf_like(4, 5);

/* --- later, and in parts ------------------------------------------------------------ */

/* Keeps the call beyond run(): `on_gone` is called with `owner` when the client leaves or the server closes.
 */
void endpoint_keep(struct endpoint_call *c, void (*on_gone)(void *owner), void *owner);

/* An answer in parts (events): begins it, on a kept call. */
void endpoint_stream_begin(struct endpoint_call *c, const char *type);
/*
 * False: more than 1 MiB waits for a client that does not read; the caller ends the stream. What is put while
 * nothing waits is taken whole, whatever its size. Text that has an owner is kept, other text is copied.
 */
must_use bool endpoint_stream_put(struct endpoint_call *c, struct piece text);
/* The call is gone afterwards. With cut the connection is reset, so that the end is not taken for one. */
void endpoint_stream_end(struct endpoint_call *c, bool cut);
