#include "unit/fleet/scene.h"

#include "router/leavers.h"

struct set {
	struct load *load;
	struct leavers *leavers;
};

static struct set opened(void) {
	struct load *load = load_new(1);

	return (struct set){ load, leavers_new(load) };
}

static void close_set(struct set *s) {
	leavers_free(&s->leavers);
	assert_null(s->leavers);
	leavers_free(&s->leavers);
	load_free(&s->load);
}

/* Leaves with so many requests, and is let go of by everybody else. -> its slot */
static unsigned leave(struct set *s, const char *name, unsigned n_requests, uint64_t until_ms) {
	const struct instance_spec spec = scene_target(name);
	struct instance *inst = instance_new(&spec);
	unsigned slot = inst->slot;

	for (unsigned i = 0; i < n_requests; i++)
		load_charge(s->load, 0, slot, 0);
	leavers_add(s->leavers, inst, json_string(name), until_ms, 0);
	instance_unref(&inst);
	return slot;
}

static void note(void *context, const json_t *worker, uint64_t n_requests) {
	char *seen = context;
	size_t n = strlen(seen);

	snprintf(seen + n, 100 - n, "%s=%u ", json_string_value(worker), (unsigned)n_requests);
}

static void assert_seen(const struct set *s, uint64_t now_ms, const char *expected) {
	char seen[100] = "";

	leavers_each(s->leavers, now_ms, note, seen);
	assert_string_equal(seen, expected);
}

static void they_stay_while_their_requests_last(void **state) {
	uint32_t n_free = instance_n_free();
	struct set s = opened();
	unsigned a = leave(&s, "a", 2, 100);

	leave(&s, "idle", 0, 100);
	unsigned b = leave(&s, "b", 1, 100);
	assert_int_equal(instance_n_free(), n_free - 2);
	assert_seen(&s, 1, "a=2 b=1 ");
	load_release_prefill(s.load, 0, a, 0);
	load_release_prefill(s.load, 0, b, 0);
	assert_seen(&s, 1, "a=1 ");
	assert_int_equal(instance_n_free(), n_free - 1);
	load_release_prefill(s.load, 0, a, 0);
	assert_seen(&s, 1, "");
	assert_int_equal(instance_n_free(), n_free);
	close_set(&s);
}

static void their_time_is_bounded(void **state) {
	uint32_t n_free = instance_n_free();
	struct set s = opened();

	leave(&s, "a", 1, 100);
	leave(&s, "b", 1, 101);
	assert_seen(&s, 99, "a=1 b=1 ");
	assert_seen(&s, 100, "b=1 ");
	close_set(&s);
	assert_int_equal(instance_n_free(), n_free);
}

static void count(void *context, const json_t *worker, uint64_t n_requests) {
	assert_string_equal(json_string_value(worker), "another");
	++*(unsigned *)context;
}

static void of_too_many_the_oldest_is_forgotten(void **state) {
	struct set s = opened();
	unsigned n = 0;

	leave(&s, "the first", 1, 100);
	for (unsigned i = 0; i < LEAVERS_MAX; i++)
		leave(&s, "another", 1, 100);
	leavers_each(s.leavers, 0, count, &n);
	assert_int_equal(n, LEAVERS_MAX);
	close_set(&s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(they_stay_while_their_requests_last),
		cmocka_unit_test(their_time_is_bounded),
		cmocka_unit_test(of_too_many_the_oldest_is_forgotten),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
