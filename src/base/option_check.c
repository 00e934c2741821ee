#include "base/option_check.h"

#include "base/text.h"

const char *option_check_host(const char *text) {
	return text_is_host(slice_of(text)) ? NULL : "expected a host name or an address";
}

const char *option_check_token(const char *text) {
	for (; *text; text++)
		if (*text <= ' ' || *text > '~')
			return "expected printable ASCII without spaces";
	return NULL;
}
