#include "base/descriptors.h"

struct rlimit descriptors_raise(void) {
	struct rlimit before = { 0, 0 };

	if (getrlimit(RLIMIT_NOFILE, &before) == 0)
		(void)setrlimit(RLIMIT_NOFILE,
		    &(struct rlimit){ .rlim_cur = before.rlim_max, .rlim_max = before.rlim_max });
	return before;
}
