#include "router/aside.h"

void aside_put(struct exchange *x, struct aside *a) {
	assert(!aside_is_there(a));
	*a = (struct aside){ .up = x->up,
		.upstream = x->upstream,
		.held_head = x->held_head,
		.view = x->view,
		.model = x->model,
		.moved_ms = x->moved_ms,
		.connected_ns = x->at.connected,
		.deadline_ms = x->deadline_ms,
		.row = x->row,
		.permit = x->permit,
		.reason = x->reason,
		.first_address = x->first_address,
		.n_addresses = x->n_addresses,
		.n_interim = x->n_interim,
		.is_tls_refused = x->is_tls_refused };
	ticket_move(&a->ticket, &x->ticket);
	x->up = (struct call){ .conn = NULL };
	x->upstream = NULL;
	x->held_head = NULL;
	x->view = NULL;
	x->moved_ms = 0;
	x->n_interim = 0;
	x->row = EXCHANGE_NO_ROW;
}

void aside_take(struct exchange *x, struct aside *a) {
	assert(!x->upstream && !x->view && !x->held_head);
	x->up = a->up;
	x->upstream = a->upstream;
	x->held_head = a->held_head;
	x->view = a->view;
	x->model = a->model;
	x->moved_ms = a->moved_ms;
	x->at.connected = a->connected_ns;
	x->deadline_ms = a->deadline_ms;
	x->row = a->row;
	x->permit = a->permit;
	x->reason = a->reason;
	x->first_address = a->first_address;
	x->n_addresses = a->n_addresses;
	x->n_interim = a->n_interim;
	x->is_tls_refused = a->is_tls_refused;
	ticket_move(&x->ticket, &a->ticket);
	a->upstream = NULL;
	a->held_head = NULL;
	a->view = NULL;
}

void aside_swap(struct exchange *x, struct aside *a) {
	struct aside other = { .view = NULL };

	if (x->view)
		aside_put(x, &other);
	if (aside_is_there(a))
		aside_take(x, a);
	*a = other;
	a->ticket = (struct ticket){ .phase = TICKET_CLOSED };
	ticket_move(&a->ticket, &other.ticket);
}
