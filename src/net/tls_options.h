/*
 * tls_options: the files of TLS as programs' options name them.
 *
 * Each program has rows of its own for the members; these join what the rows gave, and
 * read the files once, so that a mistake in them is one of the configuration.
 */
#pragma once

#include "base/option.h"
#include "net/tls_context.h"

struct tls_server_options {
	struct option_list certificates; /* as written: "CHAIN:KEY", or one file with both */
	const char *chain, *key;         /* the same by the names of other servers' flags */
	struct tls_server_files files; /* its client_ca is a row's; the rest is made of these. n 0: no TLS */
};

/* The rows are tls.certificates, tls.certificate, tls.key and tls.client_ca. */
void tls_options_verify_server(struct option_set *set, struct tls_server_options *options);

/* prefix: what the paths of the rows begin with; "ca", "certificate" and "key" follow. */
void tls_options_verify_client(struct option_set *set, struct tls_client_files *files, const char *prefix);

/* Whether a url that was checked begins with https. */
bool tls_options_is_https(const char *url);
