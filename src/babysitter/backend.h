/*
 * backend: how an engine of each type is started, and what its record says of it.
 *
 * The argument vector and the environment are made once; they live until
 * backend_deinit() and point into the configuration, which must outlive them. Pure.
 */
#pragma once

#include "babysitter/babysitter_config.h"

struct backend {
	char **argv; /* NULL-terminated, owned, each string too */
	char **env;  /* as argv: our own environment with the configured one over it */
};

/* environment: our own. self: the path of our own binary, for the mock. */
void backend_init(
    struct backend *b, const struct babysitter_config *config, char *const *environment, const char *self);
void backend_deinit(struct backend *b);

/* The command on one line, for logs: words with spaces are quoted. The caller frees it. */
must_use char *backend_describe(const struct backend *b);

/*
 * infinilm-rust says in a line of its log where it listens: the port in a text such as
 * "listening on 0.0.0.0:8123". 0: this line says nothing of the kind.
 */
uint16_t backend_port_of_line(struct slice line);

/* The metadata of the two records, owned by the caller. models_list: an array of objects, as the engine
 * listed them; ids are taken from it. */
must_use json_t *backend_own_metadata(const struct babysitter_config *config, const char *state);
must_use json_t *backend_server_metadata(const struct babysitter_config *config, const json_t *models_list);
