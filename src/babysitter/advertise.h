/*
 * advertise: the address under which others reach this machine.
 */
#pragma once

#include "base/defs.h"

#define ADVERTISE_BYTES 256

/* An address that is this machine's to itself alone. */
bool advertise_is_loopback(const char *host);

/* The name of this machine. */
void advertise_by_name(char host[static ADVERTISE_BYTES]);
