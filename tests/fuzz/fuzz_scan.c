/*
 * fuzz_scan: any bytes, one outcome however they are cut, and that of jansson.
 */
#include "unit/router/scan_oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	const char *wrong = oracle_judge((struct slice){ (const char *)data, n }, 8);
	if (wrong) {
		fprintf(stderr, "fuzz_scan: %s\n", wrong);
		abort();
	}
	return 0;
}
