#include "base/cause.h"

#include "base/slice.h"

static struct cause_row rows[N_CAUSES] = {
	[CAUSE_NONE] = { .label = "none", .code = "", .type = "", .message = "", .status = 200 },
#define CAUSE(name, s, c, t, r, m)                                                                           \
	[CAUSE_##                                                                                            \
	    name] = { .label = #name, .code = c, .type = t, .message = m, .status = s, .retry_after_s = r },
#include "base/cause.tbl"
#undef CAUSE
};

/* The labels are the names in lower case; made once, before main. */
__attribute__((constructor)) static void cause_init(void) {
	static char text[N_CAUSES][32];
	for (unsigned i = 1; i < N_CAUSES; i++) {
		size_t n = strlen(rows[i].label);
		assert(n < sizeof(text[i]));
		for (size_t k = 0; k < n; k++)
			text[i][k] = ascii_lower(rows[i].label[k]);
		rows[i].label = text[i];
	}
}

const struct cause_row *cause_row(enum cause cause) {
	assert((unsigned)cause < N_CAUSES);
	return &rows[cause];
}

const char *cause_anthropic_type(unsigned status) {
	static const struct {
		unsigned status;
		const char *type;
	} types[] = {
		{ 401, "authentication_error" },
		{ 403, "permission_error" },
		{ 404, "not_found_error" },
		{ 408, "timeout_error" },
		{ 413, "request_too_large" },
		{ 429, "rate_limit_error" },
		{ 503, "overloaded_error" },
		{ 504, "timeout_error" },
	};
	for (size_t i = 0; i < n_elems(types); i++)
		if (types[i].status == status)
			return types[i].type;
	return status < 500 ? "invalid_request_error" : "api_error";
}
