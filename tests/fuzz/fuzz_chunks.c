/* fuzz_chunks: a chunked body has one outcome however it is cut, and that of a second, slow decoder. */
#include "unit/http/chunk_oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	if (n > CHUNK_TEXT_MAX)
		return 0;
	const char *wrong = chunk_judge((struct slice){ (const char *)data, n });
	if (wrong) {
		fprintf(stderr, "fuzz_chunks: %s\n", wrong);
		abort();
	}
	return 0;
}
