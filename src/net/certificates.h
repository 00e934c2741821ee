/*
 * certificates: what a program speaks TLS with, read from its files at the start, again
 * when it is asked to, and every twelve hours: no key of a ticket is older than that, and
 * files that were changed without a word are found.
 *
 * A file that cannot be read changes nothing: the log says which and why. Whom the loop
 * connects to is asked with `client` (loop->tls). One thread, the loop's; what is held is
 * counted, and given to other threads by reference.
 */
#pragma once

#include "net/loop.h"
#include "net/tls_context.h"

struct certificates {
	/* The owner's, before certificates_open(); the files' names must outlive it. */
	const struct tls_server_files *server_files; /* n 0: clients speak no TLS */
	const struct tls_client_files *client_files; /* NULL: nobody is asked by TLS */
	void (*on_change)(struct certificates *c);   /* there are others now, or the first; may be NULL */

	struct tls_server *server;
	struct tls_client *client;
	struct loop *loop;
	struct timer renewal;
};

/* False: `why` says which file and what; nothing is held. on_change is not called. */
must_use bool certificates_open(struct certificates *c, struct loop *loop, char why[static TLS_WHY_BYTES]);
/* Reads all files again, and logs how that went. */
void certificates_reload(struct certificates *c);
/*
 * The same of files that may be others, in two steps: what they hold, or false and why; and, if all else is
 * good, that instead of what is held (on_change is called). The names must outlive the certificates. What is
 * not taken is dropped.
 */
struct certificates_fresh {
	const struct tls_server_files *server_files;
	const struct tls_client_files *client_files;
	struct tls_server *server;
	struct tls_client *client;
};
must_use bool certificates_fetch(struct certificates_fresh *fresh, char why[static TLS_WHY_BYTES]);
void certificates_take(struct certificates *c, struct certificates_fresh *fresh);
void certificates_drop(struct certificates_fresh *fresh);

/* While the loop still runs. */
void certificates_close(struct certificates *c);
/* Lets go of what is held, the loop's too; also of what was never opened. */
void certificates_deinit(struct certificates *c);
