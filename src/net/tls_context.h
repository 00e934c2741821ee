/*
 * tls_context: what TLS is spoken with: the certificates that a listener shows, and whom
 * we believe when we connect.
 *
 * Both are made whole from files, never changed, counted, and shared by all threads; who
 * has read the files again gives the new one to whoever begins sessions and lets go of
 * the old, which lives until its last session ends. A failed reading says which file and
 * why, and nothing else has happened. Files are read when it is made, so not on a worker.
 *
 * TLS 1.2 (ECDHE with AEAD alone) and 1.3; no renegotiation, compression or early data.
 * HTTP/1.1 is the one protocol of ALPN. Sessions are resumed by tickets, whose keys live
 * and die with the context and which are good for the server name that they were given
 * for alone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/defs.h"

#define TLS_WHY_BYTES 512

/* PEM. The chain begins with the certificate of the key. */
struct tls_files {
	const char *chain, *key;
};

struct tls_server_files {
	const struct tls_files *certificates; /* the first is shown to who names nobody we know */
	size_t n;                             /* not 0 */
	const char *client_ca; /* clients must show a certificate of these; "": none is asked for */
};

struct tls_client_files {
	const char *ca;               /* "": the system's */
	struct tls_files certificate; /* chain "": none is shown */
	bool is_insecure;             /* neither name nor certificate of the other side is looked at */
};

struct tls_server;
struct tls_client;

/* NULL: `why` says what is wrong with which file. */
must_use struct tls_server *tls_server_new(
    const struct tls_server_files *files, char why[static TLS_WHY_BYTES]);
/* These take NULL; unref clears the pointer. */
must_use struct tls_server *tls_server_ref(struct tls_server *s);
void tls_server_unref(struct tls_server **s);

must_use struct tls_client *tls_client_new(
    const struct tls_client_files *files, char why[static TLS_WHY_BYTES]);
must_use struct tls_client *tls_client_ref(struct tls_client *c);
void tls_client_unref(struct tls_client **c);

/* For net/tls.c: a session that is not begun, or NULL when there is no memory. */
struct ssl_st *tls_server_session(const struct tls_server *s);
/* host: NUL-terminated name or address that the other side must prove to be. */
struct ssl_st *tls_client_session(const struct tls_client *c, const char *host);
