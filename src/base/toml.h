/*
 * toml: a TOML document as a jansson tree.
 *
 * Tables become objects, arrays arrays, numbers and booleans themselves, strings
 * strings; dates and times, infinity and NaN come as the text that TOML writes for
 * them. The parser behind it is C++: no exception leaves toml.cpp.
 */
#pragma once

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

struct toml_error {
	int line; /* from 1; 0: no line is to blame */
	char text[200];
};

/*
 * The root object, owned by the caller, or NULL with *error_out filled: bad syntax, a
 * duplicate key, bad UTF-8, a key with a NUL byte, or more than 64 levels. `lines` is an
 * object that gets path -> line for every value: "router.port", "worker[1].url".
 */
json_t *toml_read(const char *text, size_t n, json_t *lines, struct toml_error *error_out);

#ifdef __cplusplus
}
#endif
