/*
 * wal: a look at SQLite's write-ahead log before SQLite opens it.
 *
 * SQLite reads such a log up to the first frame that is not as it was written, and takes
 * it for the end: what stands behind it is gone without a word. A power cut may leave
 * such a frame in the last transaction, which nobody was told of. Anywhere else it is
 * damage, and records that were acknowledged stand behind it.
 *
 * The log must have been written with synchronous=FULL, and must not have frames of an
 * abandoned transaction behind those of a later one (store_sqlite.c sees to that). A log
 * that ends between two transactions is whole: nothing shows that there was more.
 */
#pragma once

#include "base/defs.h"

enum wal_outcome {
	WAL_E_TORN = 1, /* something stands behind the last whole transaction, and no later one */
	WAL_E_DAMAGED,  /* transactions stand behind what cannot be read, or may: it is the header */
};

/* 0, an outcome, or a negative errno. end_out: where the last whole transaction ends. */
must_use int wal_look(int fd, uint64_t *end_out);
