/* fuzz_request_head: any bytes; what is accepted is sound and says the same when it is built anew. */
#include "unit/http/head_oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	oracle_request((struct slice){ (const char *)data, n });
	return 0;
}
