#include "router/held_head.h"

#include "router/steps.h"

bool held_head_is_stream(const struct head *head) {
	struct tap tap;

	if (head->status < 200 || head->status >= 300)
		return false;
	tap_init(&tap, head);
	return tap.kind == TAP_EVENTS;
}

int held_head_recv(struct exchange *x, struct call *up, struct buf **held, bool is_awaited,
    struct head_room *room, const struct head **head_out) {
	*head_out = &room->head;
	if (!*held) {
		int r = call_recv_head(up, room, x->is_head ? METHOD_HEAD : METHOD_OTHER);
		bool is_held = r == 0 && is_awaited && !up->conn->unread.n && !call_is_received(up);
		if (!is_held || !held_head_is_stream(&room->head))
			return r;
		*held = head_copy(exchange_bufs(x), &room->head);
	}
	*head_out = (const struct head *)(*held)->data;
	if (!is_awaited)
		return 0;
	int r = conn_fill(up->conn, HEAD_BYTES_MAX);
	if (r == CONN_E_AGAIN)
		return CALL_E_AGAIN;
	return r ? CALL_E_GONE : 0;
}
