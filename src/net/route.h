/*
 * route: by which address of this machine others are reached.
 */
#pragma once

#include <sys/socket.h>

#include "base/defs.h"

#define ROUTE_BYTES 64 /* an IPv6 address with its scope */

/*
 * The address that packets to `remote` leave from, as text; the routing table is asked and nothing is sent.
 * False: there is no route.
 */
must_use bool route_source(const struct sockaddr_storage *remote, char text[static ROUTE_BYTES]);

/* The same towards everybody else: the default route of IPv4. False: there is none, or it stays here. */
must_use bool route_source_default(char text[static ROUTE_BYTES]);
