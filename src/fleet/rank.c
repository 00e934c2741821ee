#include "fleet/rank.h"

bool rank_split(struct slice name, struct slice *name_out, uint16_t *rank_out) {
	const char *at = name.n ? memrchr(name.p, '@', name.n) : NULL;
	uint64_t rank;

	if (!at || !text_uint(slice_skip(name, (size_t)(at + 1 - name.p)), RANKS_MAX - 1, &rank))
		return false;
	*name_out = slice_head(name, (size_t)(at - name.p));
	*rank_out = (uint16_t)rank;
	return true;
}

bool rank_url(struct slice text, struct rank_url *url_out) {
	struct rank_url url = { .rank = 0 };

	url.has_rank = rank_split(text, &text, &url.rank);
	if (!text_url(text, &url.url))
		return false;
	*url_out = url;
	return true;
}

const char *rank_url_mistake(const char *text) {
	struct rank_url at;

	if (!rank_url(slice_of(text), &at))
		return "expected http://HOST[:PORT] or https://HOST[:PORT]";
	if (slice_is(at.url.scheme, SLICE("grpc")) || slice_is(at.url.scheme, SLICE("grpcs")))
		return "engines are not asked by gRPC: expected http://HOST[:PORT] or https://HOST[:PORT]";
	if (!slice_is(at.url.scheme, SLICE("http")) && !slice_is(at.url.scheme, SLICE("https")))
		return "unknown scheme: expected http://HOST[:PORT] or https://HOST[:PORT]";
	return NULL;
}

bool rank_count(struct slice text, uint16_t *n_out) {
	uint64_t n;

	if (slice_eq(text, SLICE("auto")))
		n = 0;
	else if (!text_uint(text, RANKS_MAX, &n))
		return false;
	*n_out = n ? (uint16_t)n : RANKS_AUTO;
	return true;
}

static struct slice label_of(struct pairs labels, struct slice key) {
	for (uint32_t i = 0; i < labels.n; i++)
		if (slice_eq(labels.items[i].key, key))
			return labels.items[i].value;
	return (struct slice){ NULL, 0 };
}

uint16_t rank_count_of(struct pairs labels, const struct rank_defaults *defaults) {
	struct slice role = label_of(labels, SLICE("role"));
	uint16_t n = defaults->unified;

	if (rank_count(label_of(labels, SLICE("dp_size")), &n))
		return n;
	if (slice_eq(role, SLICE("prefill")))
		n = defaults->prefill;
	else if (slice_eq(role, SLICE("decode")))
		n = defaults->decode;
	return n ? n : 1;
}
