#include "router/tenant_number.h"

#include <stdatomic.h>
#include <stdlib.h>

struct number {
	char *name;              /* the control thread's; of who has it, or had it last */
	_Atomic uint32_t n_held; /* tables that have it */
};

static struct number numbers[TENANT_NUMBERS_MAX];
static uint32_t n_used = 1; /* those from here on nobody ever had */

/* Acquire: who gave it back is done with what is counted by it. */
static bool is_held(const struct number *number) {
	return atomic_load_explicit(&number->n_held, memory_order_acquire) > 0;
}

/* Whether it is held is asked first: the name of one that nobody has is good, but not to go by. */
static uint32_t find(struct slice name) {
	for (uint32_t i = 1; i < n_used; i++)
		if (is_held(&numbers[i]) && slice_eq(slice_of(numbers[i].name), name))
			return i;
	return 0;
}

static uint32_t find_free(void) {
	for (uint32_t i = 1; i < n_used; i++)
		if (!is_held(&numbers[i]))
			return i;
	return n_used < TENANT_NUMBERS_MAX ? n_used++ : 0;
}

uint32_t tenant_number_take(struct slice name) {
	uint32_t i = find(name);

	if (!i && (i = find_free())) {
		free(numbers[i].name);
		numbers[i].name = strndup(name.p, name.n);
		assert(numbers[i].name);
	}
	if (i)
		atomic_fetch_add_explicit(&numbers[i].n_held, 1, memory_order_relaxed);
	return i;
}

const char *tenant_number_name(uint32_t number) {
	assert(number > 0 && number < n_used && numbers[number].name);
	return numbers[number].name;
}

void tenant_number_give(uint32_t number) {
	assert(number > 0 && number < TENANT_NUMBERS_MAX);
	uint32_t before = atomic_fetch_sub_explicit(&numbers[number].n_held, 1, memory_order_release);

	assert(before > 0);
}
