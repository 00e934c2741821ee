#include "engine/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool base64_add(struct bytes *out, struct slice data) {
	size_t n_before = out->n;
	for (size_t i = 0; i < data.n; i += 3) {
		size_t n = size_min(3, data.n - i);
		uint32_t bits = 0;
		for (size_t k = 0; k < 3; k++)
			bits = bits << 8 | (k < n ? (unsigned char)data.p[i + k] : 0);
		char group[4];
		for (size_t k = 0; k < 4; k++)
			group[k] = k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
		if (!bytes_add(out, (struct slice){ group, 4 })) {
			out->n = n_before;
			return false;
		}
	}
	return true;
}
