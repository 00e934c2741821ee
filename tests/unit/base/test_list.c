#include "unit/unit.h"

#include "base/list.h"

struct member {
	struct list link;
	int n;
};

enum { N_MEMBERS = 6 };

static void members_init(struct member *members) {
	for (int i = 0; i < N_MEMBERS; i++) {
		list_init(&members[i].link);
		members[i].n = i;
	}
}

/* Forwards and backwards, as digits. */
static void assert_list(const struct list *head, const char *digits) {
	size_t n = strlen(digits), k = 0;
	list_each (it, head) {
		assert_true(k < n);
		assert_int_equal(container_of(it, struct member, link)->n, digits[k++] - '0');
	}
	assert_int_equal(k, n);
	for (const struct list *it = head->prev; it != head; it = it->prev)
		assert_int_equal(container_of(it, const struct member, link)->n, digits[--k] - '0');
	assert_int_equal(k, 0);
}

static void both_ends_take_members(void **state) {
	struct member m[N_MEMBERS];
	struct list head = LIST_INIT(head);
	members_init(m);

	assert_true(list_is_empty(&head));
	assert_null(list_first(&head));
	list_push(&head, &m[1].link);
	list_push(&head, &m[2].link);
	list_push_front(&head, &m[0].link);
	list_insert_after(&m[1].link, &m[5].link);
	assert_list(&head, "0152");
	assert_ptr_equal(list_first(&head), &m[0].link);
	assert_false(list_is_empty(&head));
}

static void a_member_may_leave_twice(void **state) {
	struct member m[N_MEMBERS];
	struct list head = LIST_INIT(head);
	members_init(m);

	assert_false(list_is_linked(&m[0].link));
	for (int i = 0; i < 3; i++)
		list_push(&head, &m[i].link);
	list_remove(&m[1].link);
	list_remove(&m[1].link);
	assert_false(list_is_linked(&m[1].link));
	assert_true(list_is_linked(&m[0].link));
	assert_list(&head, "02");
	list_push(&head, &m[1].link);
	assert_list(&head, "021");
}

static void a_walk_survives_removal(void **state) {
	struct member m[N_MEMBERS];
	struct list head = LIST_INIT(head), odd = LIST_INIT(odd);
	members_init(m);

	for (int i = 0; i < N_MEMBERS; i++)
		list_push(&head, &m[i].link);
	list_each_safe (it, &head) {
		if (container_of(it, struct member, link)->n % 2 == 0)
			continue;
		list_remove(it);
		list_push_front(&odd, it);
	}
	assert_list(&head, "024");
	assert_list(&odd, "531");
}

static void a_splice_moves_all(void **state) {
	struct member m[N_MEMBERS];
	struct list to = LIST_INIT(to), from = LIST_INIT(from);
	members_init(m);

	list_splice(&to, &from);
	assert_list(&to, "");
	for (int i = 0; i < 3; i++)
		list_push(&from, &m[i].link);
	list_splice(&to, &from);
	assert_list(&to, "012");
	assert_list(&from, "");
	list_push(&from, &m[3].link);
	list_push(&from, &m[4].link);
	list_splice(&to, &from);
	assert_list(&to, "01234");
	assert_true(list_is_empty(&from));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_ends_take_members),
		cmocka_unit_test(a_member_may_leave_twice),
		cmocka_unit_test(a_walk_survives_removal),
		cmocka_unit_test(a_splice_moves_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
