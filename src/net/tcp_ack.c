#include "net/tcp_ack.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

bool tcp_ack_is_none(int fd, uint64_t since) {
	struct tcp_info info = { .tcpi_state = 0 };
	socklen_t len = sizeof(info);
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return false;
	if (len < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(info.tcpi_bytes_acked))
		return false;
	return info.tcpi_bytes_acked <= since + 1; /* the SYN counts as one */
}
