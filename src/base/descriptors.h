/*
 * descriptors: how many files and sockets the process may have open.
 */
#pragma once

#include <sys/resource.h>

/* Clients, engines, watchers and probes cost a descriptor each: takes as many as the hard limit allows.
 * Returns the limit as it was. */
struct rlimit descriptors_raise(void);
