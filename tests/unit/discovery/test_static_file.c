#include "unit/unit.h"

#include <unistd.h>

#include "discovery/static_file.h"

#define A "{\"name\":\"a\",\"host\":\"h\",\"port\":8000"
#define B "{\"name\":\"b\",\"host\":\"::1\",\"port\":65535}"

static char why[STATIC_FILE_WHY_BYTES];

/* Without the name of the file, which is another each time. */
static int read_text(struct static_file *file, const char *text) {
	char path[] = "/tmp/headrace-static-XXXXXX";
	FILE *out = fdopen(mkstemp(path), "w");

	fputs(text, out);
	fclose(out);
	why[0] = '\0';
	int r = static_file_read(file, path, why);
	unlink(path);
	if (strncmp(why, path, strlen(path)) == 0)
		memmove(why, why + strlen(path), strlen(why + strlen(path)) + 1);
	return r;
}

static void assert_text(struct slice text, const char *expected) {
	assert_true(slice_eq(text, slice_of(expected)));
}

static void three_shapes(void **state) {
	static const char *const shapes[] = {
		"{\"static_services\":{\"services\":[" A "}," B "],\"comment\":1},\"services\":[]}",
		"{\"services\":[" A "}," B "],\"version\":2}",
		"[" A "}," B "]",
	};
	struct static_file file;

	for (size_t i = 0; i < n_elems(shapes); i++) {
		assert_int_equal(read_text(&file, shapes[i]), 0);
		assert_int_equal(file.n, 2);
		assert_text(file.services[0]->spec.instance.name, "a");
		assert_text(file.services[0]->spec.instance.url, "http://h:8000");
		assert_int_equal(file.services[0]->spec.weight, INSTANCE_WEIGHT_ONE);
		assert_int_equal(file.services[0]->spec.models.n, 0);
		assert_text(file.services[0]->spec.metadata, "{}");
		assert_text(file.services[1]->spec.instance.url, "http://[::1]:65535");
		static_file_deinit(&file);
	}
	assert_int_equal(read_text(&file, "[]"), 0);
	assert_int_equal(file.n, 0);
	static_file_deinit(&file);
}

/* With the keys of that system's own sample. */
static void what_an_element_says(void **state) {
	struct static_file file;

	assert_int_equal(
	    read_text(&file,
		"[" A ",\"weight\":1000000,\"max_fails\":3,\"fail_timeout\":\"30s\",\"backup\":false,"
		"\"metadata\":{\"models\":[\"m\",\"n\"],\"static\":true,\"models_list\":"
		"[{\"id\":\"n\",\"owned_by\":\"x\"}],\"labels\":{\"zone\":\"z\"}}},{\"name\":\"b\",\"host\":"
		"\"h\",\"port\":1,\"weight\":0}]"),
	    0);
	const struct fleet_spec *spec = &file.services[0]->spec;
	assert_int_equal(spec->weight, FLEET_WEIGHT_MAX);
	assert_int_equal(file.services[1]->spec.weight, 0);
	assert_int_equal(spec->models.n, 2);
	assert_text(spec->models.items[0].key, "m");
	assert_int_equal(spec->models.items[0].value.n, 0);
	assert_text(spec->models.items[1].value, "{\"id\":\"n\",\"owned_by\":\"x\"}");
	assert_int_equal(spec->labels.n, 1);
	static_file_deinit(&file);
}

static void one_mistake_spoils_the_whole(void **state) {
	static const char *const rows[][2] = {
		{ "", ":1: '[' or '{' expected near end of file" },
		{ "[\n{,\n", ":2: string or '}' expected near ','" },
		{ "{}", ": expected a list of services" },
		{ "{\"services\":{}}", ": expected a list of services" },
		{ "{\"static_services\":[" A "}]}", ": expected a list of services" },
		{ "[" B ",7]", ": services[1]: not an object" },
		{ "[{\"host\":\"h\",\"port\":1}]", ": services[0]: no name" },
		{ "[{\"name\":\"a\",\"port\":1}]", ": services[0]: no host" },
		{ "[{\"name\":\"a\",\"host\":\"a b\",\"port\":1}]", ": services[0]: no host" },
		{ "[{\"name\":\"a\",\"host\":\"h\",\"port\":65536}]", ": services[0]: no port" },
		{ "[" A ",\"weight\":-1}]", ": services[0]: weight is not a number from 0 to 1000000" },
		{ "[" A ",\"weight\":1000001}]", ": services[0]: weight is not a number from 0 to 1000000" },
		{ "[" A ",\"weight\":\"2\"}]", ": services[0]: weight is not a number from 0 to 1000000" },
		{ "[" A ",\"metadata\":[]}]", ": services[0]: metadata is not an object" },
		{ "[" A ",\"metadata\":{\"models\":\"m\"}}]",
		    ": services[0]: metadata.models is not a list" },
		{ "[" A "}," A "}]", ": services[1]: its name is there twice" },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct static_file file;

		assert_int_equal(read_text(&file, rows[i][0]), -1);
		assert_string_equal(why, rows[i][1]);
		assert_int_equal(file.n, 0);
		assert_null(file.services);
		static_file_deinit(&file);
	}
}

static void a_file_that_is_not_there(void **state) {
	struct static_file file;

	assert_int_equal(static_file_read(&file, "/no/such/file", why), -1);
	assert_string_equal(why, "unable to open /no/such/file: No such file or directory");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(three_shapes),
		cmocka_unit_test(what_an_element_says),
		cmocka_unit_test(one_mistake_spoils_the_whole),
		cmocka_unit_test(a_file_that_is_not_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
