#include "babysitter/advertise.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

bool advertise_is_loopback(const char *host) {
	return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

/* Connecting a datagram socket asks the routing table and sends nothing. */
bool advertise_by_route(const struct sockaddr_storage *remote, char host[static ADVERTISE_BYTES]) {
	struct sockaddr_storage local;
	socklen_t n = sizeof(local);
	bool is_v4 = remote->ss_family == AF_INET;
	int fd = socket(remote->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	bool is_found = connect(fd, (const struct sockaddr *)remote,
			    is_v4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) == 0 &&
	    getsockname(fd, (struct sockaddr *)&local, &n) == 0 &&
	    getnameinfo((struct sockaddr *)&local, n, host, ADVERTISE_BYTES, NULL, 0, NI_NUMERICHOST) == 0 &&
	    !text_is_wildcard(slice_of(host));
	close(fd);
	return is_found;
}

void advertise_by_name(char host[static ADVERTISE_BYTES]) {
	if (gethostname(host, ADVERTISE_BYTES) < 0 || !host[0])
		snprintf(host, ADVERTISE_BYTES, "localhost");
	host[ADVERTISE_BYTES - 1] = '\0';
}

void advertise_url(char url[static ADVERTISE_URL_BYTES], const char *host, uint16_t port) {
	snprintf(url, ADVERTISE_URL_BYTES, strchr(host, ':') ? "http://[%s]:%u" : "http://%s:%u", host, port);
}
