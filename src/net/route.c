#include "net/route.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <unistd.h>

#include "base/text.h"

/* Connecting a datagram socket asks the routing table and sends nothing. */
bool route_source(const struct sockaddr_storage *remote, char text[static ROUTE_BYTES]) {
	struct sockaddr_storage local;
	socklen_t n = sizeof(local);
	bool is_v4 = remote->ss_family == AF_INET;
	int fd = socket(remote->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	bool is_found = connect(fd, (const struct sockaddr *)remote,
			    is_v4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) == 0 &&
	    getsockname(fd, (struct sockaddr *)&local, &n) == 0 &&
	    getnameinfo((struct sockaddr *)&local, n, text, ROUTE_BYTES, NULL, 0, NI_NUMERICHOST) == 0 &&
	    !text_is_wildcard(slice_of(text));
	close(fd);
	return is_found;
}

bool route_source_default(char text[static ROUTE_BYTES]) {
	struct sockaddr_storage nobody = { .ss_family = AF_INET };
	struct sockaddr_in *in = (struct sockaddr_in *)&nobody;

	in->sin_port = htons(9);
	in->sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1, which is nobody's (RFC 5737) */
	return route_source(&nobody, text) && strncmp(text, "127.", 4) != 0;
}
