#include "router/rank_field.h"

#include "base/text.h"

enum cause rank_field_read(const struct head *head, struct rank_wish *wish_out) {
	*wish_out = (struct rank_wish){ .is_given = false };
	for (const struct field *f = head->fields; f < head->fields + head->n_fields; f++) {
		uint64_t rank;

		if (!rank_field_is(head_name(head, f)))
			continue;
		if (wish_out->is_given || !text_uint(slice_trim(head_value(head, f)), UINT16_MAX, &rank))
			return CAUSE_BAD_RANK;
		*wish_out = (struct rank_wish){ (uint16_t)rank, true };
	}
	return CAUSE_NONE;
}
