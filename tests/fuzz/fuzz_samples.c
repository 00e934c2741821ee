/* fuzz_samples: any text has a sum that is a number, and the sums of its lines make it up. */
#include "base/samples.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const names[] = { "a", "b:c_total" };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	struct slice text = { (const char *)data, n };
	double whole = 0, parts = 0;
	bool has_any = samples_sum(text, names, n_elems(names), &whole), has_part = false;

	while (text.n) {
		const char *end = memchr(text.p, '\n', text.n);
		size_t n_line = end ? (size_t)(end - text.p) : text.n;
		char *line = malloc(n_line + !n_line); /* with nothing of the next one behind it */
		double sum;
		struct slice rest, label;
		struct sample sample;

		memcpy(line, text.p, n_line);
		if (samples_sum((struct slice){ line, n_line }, names, n_elems(names), &sum)) {
			has_part = true;
			parts += sum;
		}
		rest = (struct slice){ line, n_line };
		if (samples_next(&rest, &sample) && sample_label(&sample, SLICE("k"), &label))
			assert(label.p >= line && label.p + label.n < line + n_line);
		free(line);
		text = slice_skip(text, size_min(n_line + 1, text.n));
	}
	assert(has_any == has_part && whole == parts && !isnan(whole));
	return 0;
}
