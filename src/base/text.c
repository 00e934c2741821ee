#include "base/text.h"

#include <arpa/inet.h>
#include <stdio.h>

enum { NAME_BYTES_MAX = 253, LABEL_BYTES_MAX = 63, DISTANCE_BYTES_MAX = 64 };

struct unit {
	struct slice name; /* lower case */
	uint64_t factor;
};

/* Largest first: that is the order in which the printers want them. */
static const struct unit duration_units[] = {
	{ { "h", 1 }, 3600000 },
	{ { "m", 1 }, 60000 },
	{ { "s", 1 }, 1000 },
	{ { "ms", 2 }, 1 },
};
static const struct unit size_units[] = {
	{ { "gib", 3 }, 1 << 30 },
	{ { "mib", 3 }, 1 << 20 },
	{ { "kib", 3 }, 1 << 10 },
	{ { "g", 1 }, 1 << 30 },
	{ { "m", 1 }, 1 << 20 },
	{ { "k", 1 }, 1 << 10 },
};

static bool is_digit(char c) {
	return c >= '0' && c <= '9';
}

static bool is_alpha(char c) {
	return ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z';
}

bool text_uint(struct slice s, uint64_t max, uint64_t *value_out) {
	uint64_t value = 0;

	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (!is_digit(s.p[i]))
			return false;
		uint64_t digit = (uint64_t)(s.p[i] - '0');
		if (digit > max || value > (max - digit) / 10)
			return false;
		value = value * 10 + digit;
	}
	*value_out = value;
	return true;
}

static size_t count_digits(struct slice s) {
	size_t n = 0;

	while (n < s.n && is_digit(s.p[n]))
		n++;
	return n;
}

static bool read_quantity(struct slice s, const struct unit *units, size_t n_units, uint64_t *value_out) {
	size_t n_digits = count_digits(s);
	struct slice name = slice_skip(s, n_digits);
	uint64_t value;

	for (size_t i = 0; i < n_units; i++) {
		if (!slice_is(name, units[i].name))
			continue;
		if (!text_uint(slice_head(s, n_digits), UINT64_MAX / units[i].factor, &value))
			return false;
		*value_out = value * units[i].factor;
		return true;
	}
	return false;
}

bool text_duration_ms(struct slice s, uint64_t *ms_out) {
	if (slice_eq(s, SLICE("0"))) {
		*ms_out = 0;
		return true;
	}
	return read_quantity(s, duration_units, n_elems(duration_units), ms_out);
}

bool text_size_bytes(struct slice s, uint64_t *bytes_out) {
	return text_uint(s, UINT64_MAX, bytes_out) ||
	    read_quantity(s, size_units, n_elems(size_units), bytes_out);
}

static bool is_address(int family, struct slice s) {
	char line[INET6_ADDRSTRLEN];
	struct in6_addr address; /* the larger of the two */

	if (s.n >= sizeof(line) || memchr(s.p, '\0', s.n))
		return false;
	memcpy(line, s.p, s.n);
	line[s.n] = '\0';
	return inet_pton(family, line, &address) == 1;
}

/*
 * A DNS name, with the underscore that container networks use. What ends in a label
 * of digits must be an IPv4 address: resolvers take "1.2.3" for 1.2.0.3.
 */
static bool is_name(struct slice s) {
	size_t label = 0, n_label_digits = 0;

	if (s.n == 0 || s.n > NAME_BYTES_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (c == '.') {
			if (label == 0)
				return false;
			if (i + 1 < s.n) /* a last dot ends the name, it begins no label */
				label = n_label_digits = 0;
			continue;
		}
		if (!is_alpha(c) && !is_digit(c) && c != '-' && c != '_')
			return false;
		n_label_digits += is_digit(c);
		if (++label > LABEL_BYTES_MAX)
			return false;
	}
	return n_label_digits < label || is_address(AF_INET, s);
}

bool text_is_host(struct slice s) {
	return is_name(s) || is_address(AF_INET6, s);
}

bool text_is_wildcard(struct slice host) {
	char text[INET6_ADDRSTRLEN];
	struct in6_addr in6;
	struct in_addr in;

	if (slice_eq(host, SLICE("*")))
		return true;
	if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
		host = (struct slice){ host.p + 1, host.n - 2 };
	if (host.n == 0 || host.n >= sizeof(text))
		return false;
	memcpy(text, host.p, host.n);
	text[host.n] = '\0';
	text[strcspn(text, "%")] = '\0'; /* a scope */
	if (inet_pton(AF_INET6, text, &in6) != 1)
		return inet_aton(text, &in) && in.s_addr == INADDR_ANY;
	memcpy(&in, in6.s6_addr + 12, sizeof(in));
	return IN6_IS_ADDR_UNSPECIFIED(&in6) || (IN6_IS_ADDR_V4MAPPED(&in6) && in.s_addr == INADDR_ANY);
}

bool text_authority(struct slice s, uint16_t port_default, struct slice *host_out, uint16_t *port_out) {
	bool bracketed = s.n > 0 && s.p[0] == '[';
	const char *end = s.n ? memchr(s.p, bracketed ? ']' : ':', s.n) : NULL;
	size_t host_at = bracketed, host_end = end ? (size_t)(end - s.p) : s.n;
	uint64_t port = port_default;

	if (bracketed && !end)
		return false;
	struct slice host = { s.p + host_at, host_end - host_at };
	struct slice rest = slice_skip(s, host_end + bracketed);
	if (bracketed ? !is_address(AF_INET6, host) : !is_name(host))
		return false;
	if (rest.n && (rest.p[0] != ':' || !text_uint(slice_skip(rest, 1), UINT16_MAX, &port) || port == 0))
		return false;
	*host_out = host;
	*port_out = (uint16_t)port;
	return true;
}

static bool is_scheme(struct slice s) {
	if (s.n == 0 || !is_alpha(s.p[0]))
		return false;
	for (size_t i = 1; i < s.n; i++)
		if (!is_alpha(s.p[i]) && !is_digit(s.p[i]) && !memchr("+-.", s.p[i], 3))
			return false;
	return true;
}

static uint16_t scheme_port(struct slice scheme) {
	if (slice_is(scheme, SLICE("http")))
		return 80;
	return slice_is(scheme, SLICE("https")) ? 443 : 0;
}

bool text_url(struct slice s, struct text_url *url_out) {
	struct text_url url;
	const char *mark = s.n ? memmem(s.p, s.n, "://", 3) : NULL;

	if (!mark)
		return false;
	url.scheme = slice_head(s, (size_t)(mark - s.p));
	struct slice rest = slice_skip(s, url.scheme.n + 3);
	const char *slash = rest.n ? memchr(rest.p, '/', rest.n) : NULL;
	struct slice authority = slice_head(rest, slash ? (size_t)(slash - rest.p) : rest.n);
	url.path = slice_skip(rest, authority.n);
	for (size_t i = 0; i < url.path.n; i++)
		if (url.path.p[i] <= ' ' || url.path.p[i] > '~' || url.path.p[i] == '#')
			return false;
	if (!is_scheme(url.scheme) ||
	    !text_authority(authority, scheme_port(url.scheme), &url.host, &url.port))
		return false;
	*url_out = url;
	return true;
}

const char *text_print_duration(uint64_t ms, char line[static TEXT_PRINT_BYTES]) {
	const struct unit *u = duration_units;

	while (ms % u->factor)
		u++;
	snprintf(line, TEXT_PRINT_BYTES, "%llu%s", (unsigned long long)(ms / u->factor), ms ? u->name.p : "");
	return line;
}

const char *text_print_size(uint64_t bytes, char line[static TEXT_PRINT_BYTES]) {
	static const char *const names[] = { "GiB", "MiB", "KiB" };
	unsigned shift = 30, i = 0;

	while (i < n_elems(names) && bytes & ((1ULL << shift) - 1))
		i++, shift -= 10;
	bool plain = bytes == 0 || i == n_elems(names);
	snprintf(line, TEXT_PRINT_BYTES, "%llu%s", (unsigned long long)(plain ? bytes : bytes >> shift),
	    plain ? "" : names[i]);
	return line;
}

/* Levenshtein's, one row at a time: row[j] is the distance of a's head to the first j bytes of b. */
unsigned text_distance(struct slice a, struct slice b) {
	unsigned row[DISTANCE_BYTES_MAX + 1];

	if (a.n > DISTANCE_BYTES_MAX || b.n > DISTANCE_BYTES_MAX)
		return UINT32_MAX;
	for (unsigned j = 0; j <= b.n; j++)
		row[j] = j;
	for (unsigned i = 1; i <= a.n; i++) {
		unsigned diagonal = row[0];
		row[0] = i;
		for (unsigned j = 1; j <= b.n; j++) {
			unsigned change = diagonal + (a.p[i - 1] != b.p[j - 1]);
			unsigned step = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
			diagonal = row[j];
			row[j] = change < step ? change : step;
		}
	}
	return row[b.n];
}

void text_print_url(char *url, size_t size, const char *host, uint16_t port) {
	snprintf(url, size, strchr(host, ':') ? "http://[%s]:%u" : "http://%s:%u", host, port);
}

void text_print_tls_url(char *url, size_t size, const char *host, uint16_t port) {
	snprintf(url, size, strchr(host, ':') ? "https://[%s]:%u" : "https://%s:%u", host, port);
}
