/* fuzz_response_head: any bytes, as an answer to GET and to HEAD, and as a trailer section. */
#include "unit/http/head_oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	static struct head_room trailer;
	struct slice in = { (const char *)data, n };

	oracle_response(in, METHOD_GET);
	oracle_response(in, METHOD_HEAD);
	if (head_parse_trailer(&trailer, in) == 0)
		oracle_fields(&trailer.head, in);
	return 0;
}
