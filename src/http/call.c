#include "http/call.h"

#include "http/status.h"

/* CALL_PIECES_MAX of these, a head and its chunk lines fit the scratch. */
#define SMALL_BYTES 2048u

void call_init(struct call *c, struct conn *conn, enum framing in, uint64_t in_length) {
	*c = (struct call){ .conn = conn };
	body_init(&c->in, in, in_length);
}

void call_deinit(struct call *c) {
	if (c->trailer)
		buf_unref(&c->conn->loop->bufs, &c->trailer);
	c->conn = NULL;
}

/* --- receiving ------------------------------------------------------------ */

static bool call_keep_trailer(struct call *c, struct slice part) {
	if (!c->trailer &&
	    (part.p[0] == '\r' || part.p[0] == '\n')) /* the empty line alone, as nearly always */
		return true;
	if (!c->trailer)
		c->trailer = buf_new_forced(&c->conn->loop->bufs, BODY_TRAILER_MAX);
	if (buf_room(c->trailer) < part.n)
		return false;
	memcpy(c->trailer->data + c->trailer->used, part.p, part.n);
	c->trailer->used += (uint32_t)part.n;
	return true;
}

/* The end of the connection is the end of the message only where nothing else could be. */
static int call_on_eof(struct call *c, int outcome, struct call_in *in) {
	/* A send that failed has swallowed the error that the read would have told. */
	if (outcome == CONN_E_EOF && !c->conn->is_broken && c->in.left == UINT64_MAX) {
		body_init(&c->in, FRAMING_NONE, 0);
		in->is_end = true;
		return 0;
	}
	return CALL_E_GONE;
}

/* Takes the framing off what is unread. */
static int call_decode(struct call *c, struct call_in *in) {
	struct slice rest = c->conn->unread, part;
	int r = 0;
	while (in->n < CALL_PIECES_MAX) {
		enum body_outcome outcome = body_next(&c->in, &rest, &part);
		if (outcome == BODY_DATA) {
			in->pieces[in->n++] = (struct piece){ part.p, part.n, NULL };
			in->bytes += part.n;
		} else if (outcome == BODY_TRAILER) {
			if (!call_keep_trailer(c, part))
				r = CALL_E_BAD;
		} else if (outcome == BODY_END) {
			in->is_end = true;
			break;
		} else {
			r = outcome == BODY_BAD ? CALL_E_BAD : r;
			break;
		}
		if (r)
			break;
	}
	conn_consume(c->conn, c->conn->unread.n - rest.n);
	c->in_bytes += in->bytes;
	if (in->is_end)
		conn_want_read(c->conn, false); /* what comes behind is not of this message */
	if (in->is_end && c->trailer) {
		struct head_room room;
		if (!call_trailer(c, &room))
			r = CALL_E_BAD;
	}
	return r;
}

int call_recv(struct call *c, size_t max, struct call_in *in) {
	in->n = in->bytes = 0;
	in->is_end = false;
	if (body_is_complete(&c->in)) {
		in->is_end = true;
		return 0;
	}
	for (;;) {
		int r = conn_fill(c->conn, max);
		if (r == CONN_E_AGAIN)
			return CALL_E_AGAIN;
		if (r)
			return call_on_eof(c, r, in);
		r = call_decode(c, in);
		if (r || in->n || in->is_end)
			return r;
	}
}

int call_recv_head(struct call *c, struct head_room *room, enum method method) {
	int r = conn_fill(c->conn, HEAD_BYTES_MAX);
	for (;;) {
		if (r == CONN_E_AGAIN)
			return CALL_E_AGAIN;
		if (r == CONN_E_FULL)
			return CALL_E_BAD;
		if (r)
			return CALL_E_GONE;
		if (head_is_worth_parsing(c->conn->unread, &c->seen_bytes)) {
			r = head_parse_response(room, c->conn->unread, method);
			if (r == HEAD_E_REFUSED)
				return CALL_E_BAD;
			if (r == 0)
				break;
		}
		r = conn_more(c->conn, HEAD_BYTES_MAX);
	}
	conn_consume(c->conn, room->head.bytes);
	c->seen_bytes = 0;
	if (room->head.status >= 200)
		body_init(&c->in, (enum framing)room->head.framing, room->head.content_length);
	return 0;
}

bool call_trailer(const struct call *c, struct head_room *room) {
	return c->trailer &&
	    head_parse_trailer(room, (struct slice){ c->trailer->data, c->trailer->used }) == 0;
}

/* --- sending -------------------------------------------------------------- */

void call_begin(struct call_out *o, struct call *c) {
	o->call = c;
	o->loop = c->conn->loop;
	o->scratch_used = o->n = 0;
}

static void put_piece(struct call_out *o, struct piece piece) {
	assert(o->n < n_elems(o->pieces));
	o->pieces[o->n++] = piece;
}

/* Room for n bytes in the thread's scratch, added to what is sent; neighbours there are one piece. */
static char *put_room(struct call_out *o, size_t n) {
	assert(o->scratch_used + n <= LOOP_SCRATCH_BYTES);
	char *at = o->loop->scratch + o->scratch_used;
	struct piece *last = o->n ? &o->pieces[o->n - 1] : NULL;
	o->scratch_used += n;
	if (last && last->p + last->n == at)
		last->n += n;
	else
		put_piece(o, (struct piece){ at, n, NULL });
	return at;
}

void call_put_text(struct call_out *o, struct slice text) {
	memcpy(put_room(o, text.n), text.p, text.n);
}

struct slice call_decimal(uint64_t n, char room[20]) {
	char *p = room + 20;
	do
		*--p = (char)('0' + n % 10);
	while (n /= 10);
	return (struct slice){ p, (size_t)(room + 20 - p) };
}

void call_put_request_line(struct call_out *o, struct slice method, struct slice base, struct slice target) {
	call_put_text(o, method);
	call_put_text(o, SLICE(" "));
	if (base.n)
		call_put_text(o, base);
	call_put_text(o, target);
	call_put_text(o, SLICE(" HTTP/1.1\r\n"));
}

void call_put_status_line(struct call_out *o, unsigned status) {
	char digits[20];
	call_put_text(o, SLICE("HTTP/1.1 "));
	call_put_text(o, call_decimal(status, digits));
	call_put_text(o, SLICE(" "));
	call_put_text(o, status_reason(status));
	call_put_text(o, SLICE("\r\n"));
}

void call_put_field(struct call_out *o, struct slice name, struct slice value) {
	char *p = put_room(o, name.n + value.n + 4);
	memcpy(p, name.p, name.n);
	memcpy(p + name.n, ": ", 2);
	memcpy(p + name.n + 2, value.p, value.n);
	memcpy(p + name.n + 2 + value.n, "\r\n", 2);
}

void call_put_head_end(struct call_out *o, enum framing framing, uint64_t length) {
	struct call *c = o->call;
	char digits[20];
	if (framing == FRAMING_LENGTH)
		call_put_field(o, SLICE("content-length"), call_decimal(length, digits));
	else if (framing == FRAMING_CHUNKED)
		call_put_field(o, SLICE("transfer-encoding"), SLICE("chunked"));
	call_put_text(o, SLICE("\r\n"));
	c->out_framing = (uint8_t)framing;
	c->out_left = framing == FRAMING_LENGTH ? length : 0;
	c->out_has_begun = true;
}

void call_put_interim_end(struct call_out *o) {
	call_put_text(o, SLICE("\r\n"));
}

/* Few bytes are cheaper to copy behind the head than to send as a piece of their own. */
static void put_bytes(struct call_out *o, struct piece piece) {
	if (piece.n <= SMALL_BYTES)
		call_put_text(o, (struct slice){ piece.p, piece.n });
	else
		put_piece(o, piece);
}

static void put_chunk_line(struct call_out *o, size_t n) {
	char line[20], *p = line + sizeof(line);
	*--p = '\n';
	*--p = '\r';
	do
		*--p = "0123456789abcdef"[n & 15];
	while (n >>= 4);
	call_put_text(o, (struct slice){ p, (size_t)(line + sizeof(line) - p) });
}

void call_put_data(struct call_out *o, const struct piece *pieces, size_t n) {
	struct call *c = o->call;
	size_t bytes = 0;
	for (size_t i = 0; i < n; i++)
		bytes += pieces[i].n;
	assert(c->out_framing != FRAMING_NONE && !c->out_is_done);
	if (bytes == 0) /* an empty chunk would be the last one */
		return;
	if (c->out_framing == FRAMING_LENGTH) {
		assert(bytes <= c->out_left);
		c->out_left -= bytes;
	} else if (c->out_framing == FRAMING_CHUNKED) {
		put_chunk_line(o, bytes);
	}
	for (size_t i = 0; i < n; i++)
		put_bytes(o, pieces[i]);
	if (c->out_framing == FRAMING_CHUNKED)
		call_put_text(o, SLICE("\r\n"));
	c->out_bytes += bytes;
}

void call_put_end(struct call_out *o, const struct head *trailers) {
	struct call *c = o->call;
	assert(!c->out_is_done && c->out_left == 0);
	c->out_is_done = true;
	if (c->out_framing != FRAMING_CHUNKED)
		return;
	call_put_text(o, SLICE("0\r\n"));
	for (unsigned i = 0; trailers && i < trailers->n_fields; i++) {
		const struct field *f = &trailers->fields[i];
		if (!f->is_named && !field_is_barred_from_trailer((enum field_id)f->id))
			call_put_field(o, head_name(trailers, f), head_value(trailers, f));
	}
	call_put_text(o, SLICE("\r\n"));
}

int call_flush(struct call_out *o) {
	return conn_send(o->call->conn, o->pieces, o->n) ? CALL_E_GONE : 0;
}
