/*
 * advertise: the address under which others reach this machine.
 */
#pragma once

#include "base/defs.h"

#define ADVERTISE_BYTES     256
#define ADVERTISE_URL_BYTES (ADVERTISE_BYTES + 32)

/* An address that is this machine's to itself alone. */
bool advertise_is_loopback(const char *host);

/* The name of this machine. */
void advertise_by_name(char host[static ADVERTISE_BYTES]);

/* "http://host:port", "http://[::1]:port" */
void advertise_url(char url[static ADVERTISE_URL_BYTES], const char *host, uint16_t port);
