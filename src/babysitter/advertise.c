#include "babysitter/advertise.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool advertise_is_loopback(const char *host) {
	return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

void advertise_by_name(char host[static ADVERTISE_BYTES]) {
	if (gethostname(host, ADVERTISE_BYTES) < 0 || !host[0])
		snprintf(host, ADVERTISE_BYTES, "localhost");
	host[ADVERTISE_BYTES - 1] = '\0';
}
