/*
 * admin: a small HTTP server for people and machines that look at a program.
 *
 * One table of endpoints, all GET (and HEAD). A handler writes its document to a
 * stream and says what it is; it runs on the control thread and must not block. The
 * same server may listen at several addresses, each with its own table.
 */
#pragma once

#include <stdio.h>

#include "http/server.h"

struct admin_endpoint {
	const char *path;
	const char *content_type;
	/* Writes the document. Returns the status, 200 or another. */
	unsigned (*write)(void *context, FILE *out);
};

struct admin {
	struct server server;
	const struct admin_endpoint *endpoints;
	size_t n_endpoints;
	void *context;
	struct slab calls;
	struct list active;
};

/* Takes the listening socket. */
must_use int admin_open(struct admin *a, struct loop *loop, int fd, const struct admin_endpoint *endpoints,
    size_t n_endpoints, void *context);
void admin_close(struct admin *a);

/* After the loop has ended. */
void admin_deinit(struct admin *a);
