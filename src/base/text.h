/*
 * text: numbers, durations, sizes, hosts and URLs as people write them.
 *
 * Every reader takes the whole slice or nothing: no white space around it, no sign,
 * no locale. It returns false on anything else and leaves its out-parameters alone;
 * slices it hands out point into the input. Nothing here allocates or keeps state.
 */
#pragma once

#include "base/slice.h"

/* Decimal digits, at most `max`. */
must_use bool text_uint(struct slice s, uint64_t max, uint64_t *value_out);

/* "500ms", "3s", "2m", "1h"; a unit is needed, except that "0" is no time at all. */
must_use bool text_duration_ms(struct slice s, uint64_t *ms_out);

/* "64MiB", "256k", "1g", "512": k, m, g and KiB, MiB, GiB (any case) are powers of 1024. */
must_use bool text_size_bytes(struct slice s, uint64_t *bytes_out);

/* A DNS name, an IPv4 address, or an IPv6 address without brackets. */
must_use bool text_is_host(struct slice s);

/*
 * "0.0.0.0" and "::" in every spelling that a resolver takes without asking anybody, in brackets or not,
 * and "*": all addresses of a machine, and to others none.
 */
must_use bool text_is_wildcard(struct slice host);

/*
 * "host", "host:port", "[v6]" or "[v6]:port". The host comes without brackets;
 * a port that is not given is `port_default`. A given port is 1 to 65535.
 */
must_use bool text_authority(
    struct slice s, uint16_t port_default, struct slice *host_out, uint16_t *port_out);

struct text_url {
	struct slice scheme; /* as written: compare with slice_is() */
	struct slice host;   /* without brackets; a colon in it means IPv6 */
	struct slice path;   /* from the first '/' on, with the query; may be empty */
	uint16_t port;       /* of the scheme when not given: http 80, https 443, else 0 */
};

/* scheme://authority[/path]. User names, fragments, white space and control bytes fail. */
must_use bool text_url(struct slice s, struct text_url *url_out);

#define TEXT_PRINT_BYTES 32

/* The shortest exact spelling that the readers above take; both return `line`. */
const char *text_print_duration(uint64_t ms, char line[static TEXT_PRINT_BYTES]);
const char *text_print_size(uint64_t bytes, char line[static TEXT_PRINT_BYTES]);

#define TEXT_URL_BYTES 288 /* of any host and port */

/* "http://host:port", with an IPv6 address in brackets; cut to `size` bytes, the NUL among them. */
void text_print_url(char *url, size_t size, const char *host, uint16_t port);
/* The same with https. */
void text_print_tls_url(char *url, size_t size, const char *host, uint16_t port);

/*
 * How many letters must be put in, taken out or changed to make b of a: for "did you
 * mean". Names longer than 64 bytes are as far away from everything as can be.
 */
unsigned text_distance(struct slice a, struct slice b);
