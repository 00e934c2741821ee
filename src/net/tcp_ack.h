/* tcp_ack: what the peer's kernel has acknowledged. Apart from the rest: <linux/tcp.h> clashes with libuv's
 * headers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* True when the peer acknowledged none of the bytes behind the first `since` sent on this TCP socket (RFC
 * 4898). */
bool tcp_ack_is_none(int fd, uint64_t since);
