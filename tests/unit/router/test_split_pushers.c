#include "unit/unit.h"

#include "router/split_pushers.h"

struct scene {
	struct split_pushers *pushers;
	struct instance *a, *b;
};

static struct instance *engine(const char *name) {
	struct slice text = slice_of(name);

	return instance_new(
	    &(struct instance_spec){ .name = text, .url = text, .authority = text, .host = text, .port = 1 });
}

static int open_scene(void **state) {
	struct scene *s = *state = calloc(1, sizeof(*s));

	s->a = engine("a");
	s->b = engine("b");
	return 0;
}

static int close_scene(void **state) {
	struct scene *s = *state;

	split_pushers_free(&s->pushers);
	instance_unref(&s->a);
	instance_unref(&s->b);
	free(s);
	return 0;
}

static void keep(struct scene *s, const struct instance *inst, const char *engine_id) {
	struct split_push push = { slice_of(engine_id), SLICE("\"h\""), SLICE("5600"), SLICE("8") };

	split_pushers_keep(&s->pushers, inst, &push);
}

/* NULL: not known. */
static void assert_known(const struct scene *s, const struct instance *inst, const char *engine_id) {
	struct split_push push;

	assert_int_equal(split_pushers_find(s->pushers, inst, &push), engine_id != NULL);
	if (!engine_id)
		return;
	assert_true(slice_eq(push.engine, slice_of(engine_id)));
	assert_true(slice_eq(push.host, SLICE("\"h\"")));
	assert_true(slice_eq(push.port, SLICE("5600")));
	assert_true(slice_eq(push.tp_size, SLICE("8")));
}

static void nobody_is_known_at_first(void **state) {
	struct scene *s = *state;

	assert_known(s, s->a, NULL);
	keep(s, s->a, "\"e1\"");
	assert_known(s, s->b, NULL);
}

static void what_it_said_last_counts(void **state) {
	struct scene *s = *state;

	keep(s, s->a, "\"e1\"");
	keep(s, s->b, "\"e2\"");
	assert_known(s, s->a, "\"e1\"");
	assert_known(s, s->b, "\"e2\"");
	keep(s, s->a, "\"another\"");
	assert_known(s, s->a, "\"another\"");
	assert_known(s, s->b, "\"e2\"");
}

static void who_was_started_again_is_somebody_else(void **state) {
	struct scene *s = *state;

	keep(s, s->a, "\"e1\"");
	s->a->learned.n_restarts++;
	assert_known(s, s->a, NULL);
	keep(s, s->a, "\"e2\"");
	assert_known(s, s->a, "\"e2\"");
}

static void who_is_forgotten_may_say_it_anew(void **state) {
	struct scene *s = *state;

	split_pushers_forget(s->pushers, s->a); /* there is no table yet */
	keep(s, s->a, "\"e1\"");
	keep(s, s->b, "\"e2\"");
	split_pushers_forget(s->pushers, s->a);
	assert_known(s, s->a, NULL);
	assert_known(s, s->b, "\"e2\"");
	keep(s, s->a, "\"e3\"");
	assert_known(s, s->a, "\"e3\"");
}

static void texts_of_any_length_fit(void **state) {
	struct scene *s = *state;
	char name[SPLIT_PUSH_BYTES - 7];

	memset(name, 'e', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	keep(s, s->a, name);
	assert_known(s, s->a, name);
}

/* The table does not grow. */
static void many_forget_each_other(void **state) {
	struct scene *s = *state;
	struct instance *all[1000];
	struct split_push push;
	unsigned n_known = 0;

	for (unsigned i = 0; i < n_elems(all); i++) {
		all[i] = engine("c");
		keep(s, all[i], "\"e\"");
		assert_known(s, all[i], "\"e\"");
	}
	for (unsigned i = 0; i < n_elems(all); i++) {
		n_known += split_pushers_find(s->pushers, all[i], &push);
		instance_unref(&all[i]);
	}
	assert_in_range(n_known, 50, 500);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nobody_is_known_at_first, open_scene, close_scene),
		cmocka_unit_test_setup_teardown(what_it_said_last_counts, open_scene, close_scene),
		cmocka_unit_test_setup_teardown(
		    who_was_started_again_is_somebody_else, open_scene, close_scene),
		cmocka_unit_test_setup_teardown(who_is_forgotten_may_say_it_anew, open_scene, close_scene),
		cmocka_unit_test_setup_teardown(texts_of_any_length_fit, open_scene, close_scene),
		cmocka_unit_test_setup_teardown(many_forget_each_other, open_scene, close_scene),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
