#include "engine/kv_fetch.h"

#include <stdio.h>

#define ANSWER_BYTES_MAX 4096u
#define MARGIN_MS        10000u /* the prefill is the first to lose patience */

static void end(struct kv_fetch *f, bool is_good, const char *why) {
	origin_free(&f->origin);
	f->is_done = true;
	f->is_good = is_good;
	snprintf(f->why, sizeof(f->why), "%s", why);
	f->on_done(f);
}

static void on_fetched(struct fetch *fetch, int outcome, unsigned status, struct slice body) {
	struct kv_fetch *f = container_of(fetch, struct kv_fetch, fetch);
	json_t *answer = outcome ? NULL : json_loadb(body.p ? body.p : "", body.n, 0, NULL);
	const char *error = json_string_value(json_object_get(answer, "error"));

	if (outcome)
		error = fetch_outcome_text((enum fetch_outcome)outcome);
	else if (!error && !json_object_get(answer, "key"))
		error = "no side channel";
	end(f, status == 200 && !error, error ? error : "");
	json_decref(answer);
}

void kv_fetch_start(struct kv_fetch *f, struct loop *loop, const struct kv_leg *leg, uint64_t wait_ms,
    void (*on_done)(struct kv_fetch *f)) {
	char prompt[17];

	*f = (struct kv_fetch){ .on_done = on_done };
	f->origin = origin_new(loop, slice_of(leg->peer));
	if (!f->origin) {
		end(f, false, "no such address");
		return;
	}
	fetch_init(&f->fetch, wait_ms + MARGIN_MS, ANSWER_BYTES_MAX, on_fetched);
	snprintf(prompt, sizeof(prompt), "%016lx", leg->prompt);
	json_t *question = json_pack("{s:s, s:s, s:s, s:b}", "key", leg->key, "prompt", prompt, "engine_id",
	    leg->engine_id, "wait", leg->awaits_prefill);
	if (leg->has_peer_rank)
		json_object_set_new(question, "rank", json_integer(leg->peer_rank));
	char *text = json_dumps(question, JSON_COMPACT);
	origin_fetch(f->origin, &f->fetch,
	    &(struct fetch_request){
		.method = SLICE("POST"), .path = SLICE("/mock/kv/fetch"), .body = slice_of(text) });
	free(text);
	json_decref(question);
}

void kv_fetch_cancel(struct kv_fetch *f) {
	origin_free(&f->origin);
}
