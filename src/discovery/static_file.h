/*
 * static_file: engines that are named in a JSON file, read once at the start.
 *
 * The file is that of InfiniLM-SVC's --static-services, in any of its three shapes:
 * {"static_services": {"services": [...]}}, {"services": [...]} or the list itself. Of an
 * element count name, host, port, weight and metadata (models and labels are in there);
 * other keys are ignored. Unlike what a registry says, one bad element spoils the whole:
 * somebody wrote it and is there to mend it. Owns its services. One thread.
 */
#pragma once

#include "discovery/service.h"

#define STATIC_FILE_WHY_BYTES 512

struct static_file {
	struct service **services;
	size_t n;
};

/* 0, or -1 and what is wrong, with its place; the file is then empty. */
must_use int static_file_read(
    struct static_file *file, const char *path, char why[static STATIC_FILE_WHY_BYTES]);

void static_file_deinit(struct static_file *file);
