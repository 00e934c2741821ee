#include "policy/ticket.h"
#include "unit/policy/stands.h"

/* Two in our zone, one in our region, one elsewhere; of ten requests each. */
static const struct stand rings[] = { { .labels = "zone=z1 region=r1 capacity=10" },
	{ .labels = "zone=z1 region=r1 capacity=10" }, { .labels = "zone=z2 region=r1 capacity=10" },
	{ .labels = "zone=z3 region=r2 capacity=100" } };

static void open_at_z1(struct picks *p, const char *policy, const struct stand *stands, uint32_t n) {
	stands_open(p, policy, stands, n);
	p->options.locality = (struct locality_options){ LOCALITY_PREFER, traits_word(SLICE("z1")),
		traits_word(SLICE("r1")), 0.8, 64 };
}

/* One request that is given to somebody and is over at once: the rings move. */
static struct pick_result give(struct picks *p, const char *tried) {
	uint16_t slots[PICKS_ROWS_MAX];
	struct pick_input input = stands_input(p, tried, slots);
	struct ticket ticket = { .phase = TICKET_CLOSED };
	struct pick_result result;

	assert_int_equal(policy_pick(&p->set, &input, &result), 0);
	ticket_open(&ticket, &p->set, &input, &result);
	ticket_close(&ticket, &p->set, NULL);
	return result;
}

/* So many are in flight at this row. */
static void set_load(struct picks *p, uint32_t row, uint64_t n) {
	uint16_t slot = picks_instance(p, row)->slot;

	while (load_requests(p->load, slot) > n)
		load_release_prefill(p->load, 0, slot, 0);
	while (load_requests(p->load, slot) < n)
		load_charge(p->load, 0, slot, 0);
}

/* Of the zone: shared out over its two. */
static void set_zone_load(struct picks *p, uint64_t n) {
	set_load(p, 0, n / 2);
	set_load(p, 1, n - n / 2);
}

static void the_nearest_ring_gets_all_until_it_is_busy(void **state) {
	struct picks p;

	for (const struct policy *const *policy = policy_table; *policy; policy++) {
		open_at_z1(&p, policy_name(*policy), rings, 4);
		set_zone_load(&p, 15);
		assert_int_equal(give(&p, "").n_eligible, 2);
		set_zone_load(&p, 16);
		assert_int_equal(give(&p, "").n_eligible, 3);
		set_load(&p, 2, 8); /* 24 of 30 */
		assert_int_equal(give(&p, "").n_eligible, 4);
		picks_close(&p);
	}
	open_at_z1(&p, "round_robin", rings, 4);
	assert_string_equal(stands_picked(&p, ""), "ab");
	set_zone_load(&p, 16);
	give(&p, "");
	assert_string_equal(stands_picked(&p, ""), "abc");
	picks_close(&p);
}

/* 0.8 of 20 let it in, 0.75 of that lets it out. */
static void a_ring_is_let_out_well_below_what_let_it_in(void **state) {
	struct picks p;

	open_at_z1(&p, "round_robin", rings, 4);
	set_zone_load(&p, 16);
	assert_int_equal(give(&p, "").n_eligible, 3);
	for (uint64_t n = 16; n > 12; n--) {
		set_zone_load(&p, n);
		assert_int_equal(give(&p, "").n_eligible, 3);
	}
	set_zone_load(&p, 11);
	assert_int_equal(give(&p, "").n_eligible, 2);
	for (uint64_t n = 11; n < 16; n++) {
		set_zone_load(&p, n);
		assert_int_equal(give(&p, "").n_eligible, 2);
	}
	picks_close(&p);
}

/* Load that wavers about the threshold moves a ring once, not each time. */
static void rings_do_not_flap(void **state) {
	unsigned n_moves = 0, n_before = 2;
	struct rng rng;
	struct picks p;

	rng_init(&rng, 3);
	open_at_z1(&p, "least_load", rings, 4);
	for (unsigned i = 0; i < 10000; i++) {
		set_zone_load(&p, 13 + rng_below(&rng, 5)); /* 13 to 17 */
		unsigned n = give(&p, "").n_eligible;
		n_moves += n != n_before;
		n_before = n;
	}
	assert_int_equal(n_moves, 1);
	set_zone_load(&p, 0);
	assert_int_equal(give(&p, "").n_eligible, 2);
	picks_close(&p);
}

/* Requests that last, 11 at a time and then 40: what is too much for the zone spills, and returns. */
static void work_spills_and_returns(void **state) {
	struct ticket tickets[40] = { { .phase = TICKET_CLOSED } };
	unsigned far[4] = { 0 };
	struct rng rng;
	struct picks p;

	rng_init(&rng, 5);
	open_at_z1(&p, "least_load", rings, 4);
	for (unsigned i = 0; i < 8000; i++) {
		unsigned phase = i / 2000, n = phase % 2 ? 40 : 11;
		struct ticket *t = &tickets[rng_below(&rng, n)];
		uint16_t slots[PICKS_ROWS_MAX];
		struct pick_input input = stands_input(&p, "", slots);
		struct pick_result result;

		for (unsigned k = n; k < n_elems(tickets); k++)
			ticket_close(&tickets[k], &p.set, NULL);
		ticket_close(t, &p.set, NULL);
		assert_int_equal(policy_pick(&p.set, &input, &result), 0);
		ticket_open(t, &p.set, &input, &result);
		far[phase] += i % 2000 >= 200 && result.ring != PICK_RING_ZONE;
	}
	assert_int_equal(far[0], 0);
	assert_true(far[1] > 400);
	assert_int_equal(far[2], 0);
	assert_true(far[3] > 400);
	for (unsigned k = 0; k < n_elems(tickets); k++)
		ticket_close(&tickets[k], &p.set, NULL);
	picks_close(&p);
}

#define MS 1000000u

/* A stream of requests in virtual time, each at work for about a second. */
struct stream {
	struct picks p;
	struct rng rng;
	struct ticket tickets[64];
	uint64_t ends_ns[64], now_ns;
	unsigned last_ring, n_moves, n_by_ring[PICK_RINGS];
};

static void stream_end(struct stream *s, uint64_t by_ns) {
	for (unsigned k = 0; k < n_elems(s->tickets); k++) {
		if (!ticket_is_open(&s->tickets[k]) || s->ends_ns[k] > by_ns)
			continue;
		ticket_first(&s->tickets[k], &s->p.set, s->ends_ns[k]);
		ticket_close(&s->tickets[k], &s->p.set, NULL);
	}
}

static void stream_begin(struct stream *s) {
	uint16_t slots[PICKS_ROWS_MAX];
	struct pick_input input = stands_input(&s->p, "", slots);
	struct pick_result result;
	unsigned k = 0;

	while (ticket_is_open(&s->tickets[k]))
		assert_true(++k < n_elems(s->tickets));
	input.now_ns = s->now_ns;
	assert_int_equal(policy_pick(&s->p.set, &input, &result), 0);
	ticket_open(&s->tickets[k], &s->p.set, &input, &result);
	s->ends_ns[k] = s->now_ns + (900 + rng_below(&s->rng, 200)) * MS;
	s->n_by_ring[result.ring]++;
	s->n_moves += result.last_ring != s->last_ring;
	s->last_ring = result.last_ring;
}

/* So many a second, for so long. */
static void stream_run(struct stream *s, unsigned per_s, unsigned seconds) {
	memset(s->n_by_ring, 0, sizeof(s->n_by_ring));
	s->n_moves = 0;
	for (unsigned i = 0; i < per_s * seconds; i++) {
		stream_end(s, s->now_ns);
		stream_begin(s);
		s->now_ns += 1000 * MS / per_s;
	}
}

/* Peaks that come and go: each moves the rings once there and once back, however requests waver. */
static void a_peak_spills_and_returns_without_flapping(void **state) {
	static const struct stand stands[] = { { .labels = "zone=z3 region=r2 capacity=100" },
		{ .labels = "zone=z1 region=r1 capacity=10" }, { .labels = "zone=z2 region=r1 capacity=20" },
		{ .labels = "zone=z1 region=r1 capacity=10" } };
	static struct stream s;

	s = (struct stream){ .now_ns = 1000 * MS };
	for (unsigned k = 0; k < n_elems(s.tickets); k++)
		s.tickets[k].phase = TICKET_CLOSED;
	rng_init(&s.rng, 7);
	open_at_z1(&s.p, "least_load", stands, n_elems(stands));
	stream_run(&s, 10, 20);
	assert_int_equal(s.n_moves, 0);
	assert_int_equal(s.n_by_ring[PICK_RING_ZONE], 10 * 20);
	for (unsigned peak = 0; peak < 5; peak++) {
		unsigned per_s = 18 + 2 * peak; /* just too many for the zone, and far too many */

		stream_run(&s, per_s, 20);
		assert_int_equal(s.n_moves, 1);
		assert_int_equal(s.last_ring, PICK_RING_REGION);
		assert_in_range(s.n_by_ring[PICK_RING_REGION], per_s * 20 / 4, per_s * 20 / 2);
		assert_int_equal(s.n_by_ring[PICK_RING_FAR], 0);
		stream_run(&s, 10, 20);
		assert_int_equal(s.n_moves, 1);
		assert_int_equal(s.last_ring, PICK_RING_ZONE);
		assert_in_range(s.n_by_ring[PICK_RING_REGION], 0, 10 * 2); /* while the peak is worked off */
	}
	stream_end(&s, UINT64_MAX);
	picks_close(&s.p);
}

static void only_what_goes_there_moves_rings(void **state) {
	uint16_t slots[PICKS_ROWS_MAX];
	struct picks p;

	open_at_z1(&p, "round_robin", rings, 4);
	set_zone_load(&p, 16);
	assert_string_equal(stands_picked(&p, ""), "abc"); /* picks without a ticket */
	struct pick_input input = stands_input(&p, "", slots);
	struct filter_ask ask = filter_ask(&p.set, &input);
	assert_int_equal(filter_codes(&ask, 3), 0);
	set_zone_load(&p, 14);
	assert_string_equal(stands_picked(&p, ""), "ab");
	/* One of the zone was tried: what is left of it says nothing of the zone. */
	set_load(&p, 1, 9);
	assert_int_equal(give(&p, "a").n_eligible, 2);
	set_zone_load(&p, 14);
	assert_string_equal(stands_picked(&p, ""), "ab");
	picks_close(&p);
}

static void the_ring_is_reported_beside_the_reason(void **state) {
	struct picks p;

	open_at_z1(&p, "round_robin", rings, 4);
	assert_int_equal(give(&p, "").ring, PICK_RING_ZONE);
	assert_int_equal(give(&p, "").reason, PICK_ROUND_ROBIN);
	assert_int_equal(give(&p, "ab").ring, PICK_RING_REGION);
	assert_int_equal(give(&p, "ab").reason, PICK_ONLY_CANDIDATE);
	assert_int_equal(give(&p, "abc").ring, PICK_RING_FAR);
	assert_string_equal(pick_ring_text(PICK_RING_ZONE), "local_zone");
	assert_string_equal(pick_ring_text(PICK_RING_REGION), "spill_region");
	p.options.locality.mode = LOCALITY_OFF;
	assert_int_equal(give(&p, "").ring, PICK_RING_NONE);
	assert_string_equal(stands_picked(&p, ""), "abcd");
	picks_close(&p);
}

static void a_request_may_come_from_elsewhere(void **state) {
	struct picks p;

	open_at_z1(&p, "round_robin", rings, 4);
	p.demand.origin_zone = traits_word(SLICE("z3"));
	assert_string_equal(stands_picked(&p, ""), "d");
	p.demand.origin_zone = traits_word(SLICE("z2"));
	assert_string_equal(stands_picked(&p, ""), "c");
	assert_string_equal(stands_picked(&p, "c"), "ab"); /* of its region */
	/* Nobody knows that zone: our region, as for us, is the best guess. */
	p.demand.origin_zone = traits_word(SLICE("z9"));
	assert_string_equal(stands_picked(&p, ""), "abc");
	/* What spills from there moves no rings of ours. */
	p.demand.origin_zone = traits_word(SLICE("z2"));
	set_load(&p, 2, 9);
	assert_int_equal(give(&p, "").n_eligible, 3);
	p.demand.origin_zone = 0;
	assert_string_equal(stands_picked(&p, ""), "ab");
	picks_close(&p);
}

/* A ring without anybody is none; who says nothing of his place is elsewhere, and takes what is usual. */
static void empty_rings_are_passed_over(void **state) {
	static const struct stand stands[] = { { .labels = "zone=z2 region=r1" },
		{ .labels = "zone=z3 region=r2" }, { .labels = NULL } };
	struct picks p;

	open_at_z1(&p, "round_robin", stands, 3);
	assert_string_equal(stands_picked(&p, ""), "a");
	set_load(&p, 0, 51);
	assert_int_equal(give(&p, "").n_eligible, 1);
	set_load(&p, 0, 52); /* 0.8 of 64 is 51.2 */
	assert_int_equal(give(&p, "").n_eligible, 3);
	picks_close(&p);
}

static void rings_outlive_snapshots(void **state) {
	struct picks p;

	open_at_z1(&p, "round_robin", rings, 4);
	set_zone_load(&p, 16);
	give(&p, "");
	set_zone_load(&p, 13);
	assert_string_equal(stands_picked(&p, ""), "abc");
	stands_adopt(&p, rings, 4);
	assert_string_equal(stands_picked(&p, ""), "abc");
	picks_close(&p);
}

/* However busy the near ones are: the far one is not cleared. */
static void no_spill_crosses_a_clearance(void **state) {
	static const struct stand stands[] = { { .labels = "zone=z1 capacity=10 clearance=internal" },
		{ .labels = "zone=z2 region=r1" }, { .labels = "zone=z3 clearance=internal" } };
	struct picks p;

	open_at_z1(&p, "round_robin", stands, 3);
	p.demand.privacy = PRIVACY_INTERNAL;
	assert_string_equal(stands_picked(&p, ""), "a");
	set_load(&p, 0, 9);
	assert_string_equal(stands_picked(&p, ""), "ac");
	picks_close(&p);
}

/* Nobody nearer has it; and what is near goes on as before. */
static void a_stored_response_is_worth_the_way(void **state) {
	struct picks p;

	open_at_z1(&p, "least_load", rings, 4);
	picks_keep_response(&p, 3, 0x1234567, 0);
	p.demand.response = 0x1234567;
	for (unsigned i = 0; i < 4; i++) {
		struct pick_result pick = give(&p, "");

		assert_int_equal(pick.row, 3);
		assert_int_equal(pick.reason, PICK_RESPONSE_OWNER);
		assert_int_equal(pick.ring, PICK_RING_FAR);
		assert_int_equal(pick.last_ring, PICK_RING_ZONE);
	}
	p.demand.response = 0;
	assert_int_equal(give(&p, "").n_eligible, 2);
	picks_close(&p);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_nearest_ring_gets_all_until_it_is_busy),
		cmocka_unit_test(a_ring_is_let_out_well_below_what_let_it_in),
		cmocka_unit_test(rings_do_not_flap),
		cmocka_unit_test(work_spills_and_returns),
		cmocka_unit_test(a_peak_spills_and_returns_without_flapping),
		cmocka_unit_test(only_what_goes_there_moves_rings),
		cmocka_unit_test(the_ring_is_reported_beside_the_reason),
		cmocka_unit_test(a_request_may_come_from_elsewhere),
		cmocka_unit_test(empty_rings_are_passed_over),
		cmocka_unit_test(rings_outlive_snapshots),
		cmocka_unit_test(no_spill_crosses_a_clearance),
		cmocka_unit_test(a_stored_response_is_worth_the_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
