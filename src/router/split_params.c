#include "router/split_params.h"

#include "router/scan.h"

enum want { WANT_PARAMS, WANT_MODE, WANT_ENGINE, WANT_HOST, WANT_PORT, WANT_TP_SIZE, WANTS };

#define MODE_BYTES 16u

static const struct scan_want wants[WANTS] = {
	[WANT_PARAMS] = { .path = "kv_transfer_params" },
	[WANT_MODE] = { .path = "kv_transfer_params.transfer_mode", .text_bytes_max = MODE_BYTES },
	[WANT_ENGINE] = { .path = "kv_transfer_params.remote_engine_id" },
	[WANT_HOST] = { .path = "kv_transfer_params.remote_host" },
	[WANT_PORT] = { .path = "kv_transfer_params.remote_port" },
	[WANT_TP_SIZE] = { .path = "kv_transfer_params.tp_size" },
};

static struct scan_table table;

__attribute__((constructor)) static void split_params_init(void) {
	scan_table_init(&table, wants, WANTS, NULL);
}

bool split_params_read(struct split_params *p, const struct hold *answer) {
	struct scan_value values[WANTS];
	char text[MODE_BYTES + 1];
	struct scan scan;
	enum scan_verdict verdict = SCAN_MORE;

	*p = (struct split_params){ .n = 0 };
	assert(table.text_bytes <= sizeof(text));
	scan_init(&scan, &table, values, text, sizeof(text));
	for (const struct buf *b = answer->first; b && verdict <= SCAN_COMPLETE; b = b->next)
		verdict = scan_feed(&scan, b->data, b->used);
	if (scan_finish(&scan) != SCAN_COMPLETE)
		return false;
	const struct scan_value *params = scan_found(&scan, WANT_PARAMS);
	const struct scan_value *mode = scan_found(&scan, WANT_MODE);
	if (!params || params->type != SCAN_OBJECT)
		return true;
	uint64_t from = params->offset + 1, end = params->offset + params->length - 1, cut_at = end,
		 cut_n = 0;
	if (mode)
		splice_find_member(answer, mode->offset, mode->length, &cut_at, &cut_n);
	if (hold_is_blank(answer, from, cut_at) && hold_is_blank(answer, cut_at + cut_n, end))
		return true;
	p->at = params->offset;
	p->n = params->length;
	if (!mode)
		return true;
	p->cut_at = cut_at;
	p->cut_n = cut_n;
	p->is_push = mode->type == SCAN_STRING && slice_eq(mode->text, SLICE("push"));
	for (unsigned i = 0; i < n_elems(p->identity); i++) {
		const struct scan_value *v = scan_found(&scan, WANT_ENGINE + i);

		if (!v || v->type == SCAN_OBJECT || v->type == SCAN_ARRAY)
			continue;
		p->identity[i].at = v->offset;
		p->identity[i].n = v->length;
	}
	return true;
}

unsigned split_params_ranges(
    const struct split_params *p, bool is_led, struct split_range ranges[static SPLIT_RANGES]) {
	uint64_t from = p->at + is_led, end = p->at + p->n;

	assert(p->n);
	ranges[0] = (struct split_range){ from, (p->cut_n ? p->cut_at : end) - from };
	if (!p->cut_n)
		return 1;
	ranges[1] = (struct split_range){ p->cut_at + p->cut_n, end - p->cut_at - p->cut_n };
	return 2;
}

bool split_params_push(const struct split_params *p, const struct hold *answer,
    char room[static SPLIT_PUSH_BYTES], struct split_push *push_out) {
	struct slice *values[] = { &push_out->engine, &push_out->host, &push_out->port, &push_out->tp_size };
	size_t used = 0;

	if (!p->is_push)
		return false;
	for (unsigned i = 0; i < n_elems(values); i++) {
		uint64_t n = p->identity[i].n;

		if (!n || n > SPLIT_PUSH_BYTES - used)
			return false;
		hold_copy(answer, p->identity[i].at, (size_t)n, room + used);
		*values[i] = (struct slice){ room + used, (size_t)n };
		used += (size_t)n;
	}
	return true;
}
