/*
 * registry_config: the options of the registry, read once at the start, then immutable.
 *
 * Called as infini-registry it listens on all addresses unless told otherwise.
 */
#pragma once

#include "base/log.h"
#include "base/option.h"
#include "net/address_range.h"
#include "net/tls_options.h"

enum registry_store { REGISTRY_SQLITE, REGISTRY_MEMORY };

struct registry_config {
	struct option_set *options; /* owns the texts */
	const char *host;
	uint16_t port; /* 0: any */
	enum registry_store store;
	const char *state_dir; /* never "" with REGISTRY_SQLITE */
	const char *token;     /* "": none is asked for */
	struct option_list allow;
	const struct address_range *ranges; /* of allow */
	uint64_t ttl_ms;
	uint64_t health_interval_ms; /* 0: no probes */
	uint64_t health_timeout_ms;
	uint64_t cleanup_interval_ms;
	uint64_t body_limit_bytes;
	uint32_t n_records_max;
	struct tls_server_options tls;
	struct tls_client_files peer; /* for those who are probed by https */
	enum log_level log_level;
};

/* Returns -1 when the registry is to run, otherwise the exit code. To be deinitialised either way. */
must_use int registry_config_load(struct registry_config *config, int argc, char *const *argv);
void registry_config_deinit(struct registry_config *config);

/* Whether it listens where nobody but this machine reaches it. */
bool registry_config_is_local(const struct registry_config *config);

/* Whom a url means, in its brackets if it has them; a part of it, of no bytes if it names nobody. Also where
 * we would not take it for a url: other programs might. */
struct slice registry_url_host(struct slice url);

/* Whether a record with these may be taken; see [registry] allow. */
bool registry_config_allows(const struct registry_config *config, struct slice host, struct slice url);
/* Whether what is registered may be connected to where its name leads. */
bool registry_config_allows_address(
    const struct registry_config *config, const struct sockaddr_storage *address);
