#include "http/caller.h"

#include "base/digest.h"
#include "base/text.h"

struct slice caller_peer(const struct session *session, char room[static CALLER_PEER_BYTES]) {
	static const struct slice mapped = { "::ffff:", 7 };
	struct slice peer = session_peer(session, room);
	bool is_mapped = slice_has_prefix(peer, mapped) && memchr(peer.p, '.', peer.n);

	return is_mapped ? slice_skip(peer, mapped.n) : peer;
}

bool caller_is_local(const struct session *session) {
	char room[CALLER_PEER_BYTES];
	struct slice peer = caller_peer(session, room);

	return slice_has_prefix(peer, SLICE("127.")) || slice_eq(peer, SLICE("::1"));
}

/* The host of an authority is this machine by its own name: no name that somebody's DNS leads here. */
static bool names_us(struct slice authority) {
	struct slice host;
	uint16_t port;

	return text_authority(authority, 80, &host, &port) &&
	    (slice_is(host, SLICE("localhost")) || slice_has_prefix(host, SLICE("127.")) ||
		slice_is(host, SLICE("::1")));
}

bool caller_is_of_here(const struct session *session, const struct head *head) {
	return caller_is_local(session) && names_us(head_find(head, FIELD_HOST)) &&
	    !head_find_name(head, SLICE("origin")).p;
}

bool caller_has_token(const struct head *head, struct slice token) {
	struct slice given = head_find(head, FIELD_AUTHORIZATION);

	return slice_is(slice_head(given, 7), SLICE("bearer ")) &&
	    digest_is_same_text(slice_trim(slice_skip(given, 7)), token);
}
