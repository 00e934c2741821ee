#include "router/retry.h"

#include <math.h>
#include <time.h>

#include "base/text.h"

#define BUDGET_MS 10000.0 /* what came then counts e times less */

static enum retry_status status_of(unsigned status) {
	static const uint16_t statuses[RETRY_STATUSES] = { 408, 429, 500, 502, 503, 504 };
	unsigned i = 0;

	while (i < RETRY_STATUSES && statuses[i] != status)
		i++;
	return (enum retry_status)i;
}

enum retry_status retry_status_read(struct slice text) {
	uint64_t status;

	return text_uint(text, 599, &status) ? status_of((unsigned)status) : RETRY_STATUSES;
}

const char *retry_bar_text(enum retry_bar bar) {
	static const char *const texts[RETRY_BARS] = {
		[RETRY_BAR_ATTEMPTS] = "attempts",
		[RETRY_BAR_BUDGET] = "budget",
		[RETRY_BAR_RETRY_AFTER] = "retry_after",
		[RETRY_BAR_NOT_REPLAYABLE] = "not_replayable",
		[RETRY_BAR_RESPONSE_OWNER] = "response_owner",
		[RETRY_BAR_MAY_HAVE_BEGUN] = "may_have_begun",
		[RETRY_BAR_ANSWER_BEGAN] = "answer_began",
	};

	assert(bar < RETRY_BARS);
	return texts[bar];
}

bool retry_is_refusal(const struct retry_options *options, unsigned status) {
	return options->refusals >> status_of(status) & 1;
}

uint64_t retry_wait_ms(const struct retry_options *options, uint32_t n_attempts, struct rng *rng) {
	double most = (double)options->backoff_max_ms;
	double wait = (double)options->backoff_ms;

	assert(n_attempts > 0 && options->multiplier >= 1);
	for (uint32_t i = 1; i < n_attempts && wait < most; i++)
		wait *= options->multiplier;
	if (wait > most)
		wait = most;
	double unit = (double)(rng_next(rng) >> 11) * 0x1p-53; /* 0 to 1 */

	return (uint64_t)(wait * (1 + options->jitter * (2 * unit - 1)));
}

static bool read_seconds(struct slice value, uint64_t *seconds_out) {
	uint64_t n = 0;

	for (size_t i = 0; i < value.n; i++) {
		if (value.p[i] < '0' || value.p[i] > '9')
			return false;
		n = u64_min(n * 10 + (uint64_t)(value.p[i] - '0'), RETRY_AFTER_MAX_MS);
	}
	*seconds_out = n;
	return value.n > 0;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT": the one form that is still generated (RFC 9110 section 5.6.7). */
static bool read_date(struct slice value, int64_t *seconds_out) {
	char text[32];
	struct tm tm = { .tm_year = 0 };

	if (!value.n || value.n >= sizeof(text))
		return false;
	memcpy(text, value.p, value.n);
	text[value.n] = '\0';
	const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);

	*seconds_out = (int64_t)timegm(&tm);
	return end && !*end;
}

uint64_t retry_after_ms(struct slice value, int64_t now_s) {
	uint64_t seconds;
	int64_t at_s;

	if (!read_seconds(value, &seconds)) {
		if (!read_date(value, &at_s) || at_s <= now_s)
			return 0;
		seconds = (uint64_t)(at_s - now_s);
	}
	return u64_min(seconds, RETRY_AFTER_MAX_MS / 1000) * 1000;
}

static void fade(struct retry_budget *b, uint64_t now_ms) {
	double part = exp(-(double)(now_ms - u64_min(b->at_ms, now_ms)) / BUDGET_MS);

	b->paid *= part;
	b->taken *= part;
	b->at_ms = now_ms;
}

void retry_budget_pay(struct retry_budget *b, const struct retry_options *options, uint64_t now_ms) {
	if (now_ms != b->at_ms)
		fade(b, now_ms);
	b->paid += options->budget;
}

bool retry_budget_take(struct retry_budget *b, const struct retry_options *options, uint64_t now_ms) {
	fade(b, now_ms);
	if (options->budget <= 0 || b->taken + 1 > b->paid + RETRY_BUDGET_FREE)
		return false;
	b->taken += 1;
	return true;
}
