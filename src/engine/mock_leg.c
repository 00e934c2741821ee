/* How a leg of a pair finds the other one: a prefill by what comes to its side channel, a decode by going
 * there. */
#include "engine/mock_call.h"

#include "base/clock.h"

static enum leg_outcome fail(struct refusal *why, uint32_t status, const char *what, const char *detail) {
	api_refuse(why, status, NULL, "%s: %s", what, detail);
	return LEG_FAILED;
}

/* --- prefill ---------------------------------------------------------------------- */

void mock_leg_on_asked(struct kv_channel *channel) {
	struct mock *m = container_of(channel, struct mock, channel);
	list_each_safe (it, &m->awaiting)
		loop_wake(&m->loop, &container_of(it, struct mock_call, await_link)->job);
}

static enum leg_outcome look_at_decode(struct mock_call *c, struct refusal *why) {
	bool is_asked = kv_table_is_asked(c->mock->channel.table, c->generation.leg.key);

	if (!is_asked && timer_is_running(&c->timer))
		return LEG_WAITS;
	timer_stop(&c->timer);
	list_remove(&c->await_link);
	return is_asked ? LEG_READY : fail(why, 500, "KV transfer", "no decode has come for it");
}

static enum leg_outcome begin_prefill(struct mock_call *c, struct refusal *why) {
	struct mock *m = c->mock;
	const struct generation *g = &c->generation;

	if (!kv_table_make(m->channel.table, &g->leg, g->rank, clock_now_ns()))
		return fail(why, 400, "KV transfer", "another request makes the same blocks");
	c->makes_blocks = true;
	if (!g->leg.awaits_decode)
		return LEG_READY;
	list_push(&m->awaiting, &c->await_link);
	loop_timer(&m->loop, &c->timer, m->config->kv_ttl_ms);
	return look_at_decode(c, why);
}

void mock_leg_hold(struct mock_call *c) {
	if (c->makes_blocks)
		kv_channel_hold(&c->mock->channel, c->generation.leg.key);
	c->makes_blocks = false;
}

void mock_leg_end(struct mock_call *c) {
	if (c->makes_blocks)
		kv_channel_fail(&c->mock->channel, c->generation.leg.key);
	c->makes_blocks = false;
}

/* --- decode ----------------------------------------------------------------------- */

static void on_fetched(struct kv_fetch *f) {
	struct mock_call *c = container_of(f, struct mock_call, fetch);
	loop_wake(&c->mock->loop, &c->job);
}

static enum leg_outcome look_at_fetch(struct mock_call *c, struct refusal *why) {
	if (!c->fetch.is_done)
		return LEG_WAITS;
	c->generation.is_fetched = c->fetch.is_good;
	return c->fetch.is_good ? LEG_READY : fail(why, 500, "The KV transfer has failed", c->fetch.why);
}

/* --- both ------------------------------------------------------------------------- */

enum leg_outcome mock_leg_begin(struct mock_call *c, struct refusal *why) {
	const struct kv_leg *leg = &c->generation.leg;
	struct mock *m = c->mock;

	assert(leg->part != KV_UNIFIED);
	if (leg->part == KV_PREFILL)
		return begin_prefill(c, why);
	kv_fetch_start(&c->fetch, &m->loop, leg, leg->awaits_prefill ? m->config->kv_ttl_ms : 0, on_fetched);
	return look_at_fetch(c, why);
}

enum leg_outcome mock_leg_look(struct mock_call *c, struct refusal *why) {
	return c->generation.leg.part == KV_PREFILL ? look_at_decode(c, why) : look_at_fetch(c, why);
}
