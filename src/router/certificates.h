/*
 * certificates: TLS as the configuration has it, read from its files at the start and
 * again whenever somebody asks.
 *
 * Control thread only; what it holds is counted, and given to workers by reference.
 */
#pragma once

#include "net/tls_context.h"
#include "router/config.h"

struct certificates {
	const struct router_config *config;
	struct tls_server *server; /* NULL: clients speak no TLS */
	struct tls_client *client; /* NULL: neither engines nor the registry do */
};

/* The config must outlive it. False: `why` says which file and what; nothing is held. */
must_use bool certificates_init(
    struct certificates *c, const struct router_config *config, char why[static TLS_WHY_BYTES]);
void certificates_deinit(struct certificates *c);

/* Reads all files again. False: all is as it was. */
must_use bool certificates_reload(struct certificates *c, char why[static TLS_WHY_BYTES]);
