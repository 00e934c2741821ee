#include "unit/unit.h"

#include <stdio.h>

#include "engine/stored.h"

static void put(struct stored *s, unsigned n) {
	char id[16];

	snprintf(id, sizeof(id), "resp_%u", n);
	stored_put(s, &(struct stored_response){ id, "m", n, true });
}

static const struct stored_response *find(const struct stored *s, unsigned n) {
	char id[16];

	snprintf(id, sizeof(id), "resp_%u", n);
	return stored_find(s, slice_of(id));
}

static void the_newest_are_kept(void **state) {
	struct stored s = { .n_put = 0 };

	assert_null(find(&s, 0));
	assert_null(stored_find(&s, SLICE("")));
	for (unsigned n = 0; n < STORED_MAX + 10; n++) {
		put(&s, n);
		assert_int_equal(find(&s, n)->created_s, n);
	}
	for (unsigned n = 0; n < STORED_MAX + 10; n++)
		assert_int_equal(find(&s, n) != NULL, n >= 10);
	stored_clear(&s);
	assert_null(find(&s, STORED_MAX));
	put(&s, 1);
	assert_non_null(find(&s, 1));
	stored_clear(&s);
}

static void one_can_be_removed(void **state) {
	struct stored s = { .n_put = 0 };

	put(&s, 1);
	put(&s, 2);
	stored_remove(&s, SLICE("resp_3"));
	stored_remove(&s, SLICE("resp_1"));
	assert_null(find(&s, 1));
	assert_non_null(find(&s, 2));
	stored_clear(&s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_newest_are_kept),
		cmocka_unit_test(one_can_be_removed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
