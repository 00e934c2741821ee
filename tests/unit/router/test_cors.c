#include "unit/unit.h"

#include "router/cors.h"

static const char *const pages[] = { "https://chat.example", "http://localhost:3000" };
static const char *const anybody[] = { "*" };
static const struct option_list some = { pages, 2 }, all = { anybody, 1 }, none = { NULL, 0 };

static void parse(struct head_room *room, const char *method, const char *fields) {
	static char text[8192];
	enum cause cause;

	snprintf(text, sizeof(text), "%s / HTTP/1.1\r\nHost: x\r\n%s\r\n", method, fields);
	assert_int_equal(head_parse_request(room, slice_of(text), &cause), 0);
}

static void assert_has(struct slice fields, const char *line, bool has) {
	if ((memmem(fields.p, fields.n, line, strlen(line)) != NULL) != has)
		fail_msg("\"%.*s\": %s", (int)fields.n, fields.p, line);
}

static void origins_are_checked(void **state) {
	static const char *const good[] = { "*", "https://a.example", "http://localhost:3000",
		"http://[::1]:80", "app://localhost" };
	static const char *const bad[] = { "", "null", "a.example", "https://a.example/", "https://A.example",
		"https://", "https://u@a.example", "https://a.example\r\nx: y", "**" };

	for (size_t i = 0; i < n_elems(good); i++)
		assert_null(cors_mistake(good[i]));
	for (size_t i = 0; i < n_elems(bad); i++)
		assert_non_null(cors_mistake(bad[i]));
}

static void nothing_is_said_when_nobody_is_allowed(void **state) {
	struct head_room room;
	char text[CORS_FIELDS_BYTES];

	parse(&room, "OPTIONS", "Origin: https://chat.example\r\nAccess-Control-Request-Method: POST\r\n");
	assert_false(cors_is_preflight(&none, &room.head));
	assert_int_equal(cors_fields(&none, &room.head, text).n, 0);
}

static void allowed_pages_may_read(void **state) {
	struct head_room room;
	char text[CORS_FIELDS_BYTES];

	parse(&room, "POST", "Origin: http://localhost:3000\r\n");
	struct slice fields = cors_fields(&some, &room.head, text);
	assert_has(fields, "access-control-allow-origin: http://localhost:3000\r\nvary: origin\r\n", true);
	assert_has(fields, "access-control-expose-headers: x-request-id", true);
	fields = cors_fields(&all, &room.head, text);
	assert_has(fields, "access-control-allow-origin: *\r\n", true);
	assert_has(fields, "vary", false);
	assert_int_equal(fields.p[fields.n - 1], '\n');
}

static void others_may_not(void **state) {
	static const char *const others[] = { "Origin: https://evil.example\r\n", "Origin: null\r\n",
		"Origin: http://localhost:30000\r\n", "Origin: https://chat.example.evil\r\n",
		"Origin: HTTPS://chat.example\r\n", "Origin:\r\n", "" };
	struct head_room room;
	char text[CORS_FIELDS_BYTES];

	for (size_t i = 0; i < n_elems(others); i++) {
		parse(&room, "POST", others[i]);
		assert_true(slice_eq(cors_fields(&some, &room.head, text), SLICE("vary: origin\r\n")));
	}
	parse(&room, "POST", "");
	assert_int_equal(cors_fields(&all, &room.head, text).n, 0);
}

static void a_preflight_is_answered_by_what_it_asks(void **state) {
	struct head_room room;
	char text[CORS_FIELDS_BYTES];

	parse(&room, "OPTIONS",
	    "Origin: https://chat.example\r\nAccess-Control-Request-Method: POST\r\n"
	    "Access-Control-Request-Headers: authorization,x-stainless-os\r\n");
	assert_true(cors_is_preflight(&some, &room.head));
	struct slice fields = cors_preflight_fields(&some, &room.head, text);
	assert_has(fields, "access-control-allow-origin: https://chat.example\r\n", true);
	assert_has(fields, "access-control-allow-methods: GET, POST, DELETE, OPTIONS\r\n", true);
	assert_has(fields, "access-control-allow-headers: authorization,x-stainless-os\r\n", true);
	assert_has(fields, "access-control-max-age: 3600\r\n", true);
	parse(&room, "OPTIONS", "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n");
	assert_true(cors_is_preflight(&some, &room.head));
	assert_has(cors_preflight_fields(&some, &room.head, text), "access-control-", false);
	fields = cors_preflight_fields(&all, &room.head, text);
	assert_has(fields, "access-control-allow-origin: *\r\n", true);
	assert_has(fields, "access-control-allow-methods: GET, POST, PUT, PATCH, DELETE, OPTIONS\r\n", true);
	assert_has(fields, "access-control-allow-credentials", false);
}

static void what_cannot_be_said_back_is_not(void **state) {
	static const char *const lists[] = { "a\"b", "caf\xc3\xa9", "" };
	struct head_room room;
	char text[CORS_FIELDS_BYTES], fields[4096], list[2048];

	for (size_t i = 0; i <= n_elems(lists); i++) {
		memset(list, 'a', 1025);
		list[1025] = '\0';
		snprintf(fields, sizeof(fields),
		    "Origin: https://chat.example\r\nAccess-Control-Request-Method: POST\r\n"
		    "Access-Control-Request-Headers: %s\r\n",
		    i < n_elems(lists) ? lists[i] : list);
		parse(&room, "OPTIONS", fields);
		assert_has(cors_preflight_fields(&some, &room.head, text),
		    "access-control-allow-headers: authorization, content-type\r\n", true);
	}
	list[1024] = '\0';
	snprintf(fields, sizeof(fields),
	    "Origin: https://chat.example\r\nAccess-Control-Request-Headers: %s\r\n", list);
	parse(&room, "OPTIONS", fields);
	assert_has(cors_preflight_fields(&some, &room.head, text), list, true);
}

/* Only a browser's question is one: the rest is for engines. */
static void other_options_are_no_preflights(void **state) {
	struct head_room room;

	parse(&room, "OPTIONS", "Origin: https://chat.example\r\n");
	assert_false(cors_is_preflight(&some, &room.head));
	parse(&room, "OPTIONS", "Access-Control-Request-Method: POST\r\n");
	assert_false(cors_is_preflight(&some, &room.head));
	parse(&room, "POST", "Origin: https://chat.example\r\nAccess-Control-Request-Method: POST\r\n");
	assert_false(cors_is_preflight(&some, &room.head));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(origins_are_checked),
		cmocka_unit_test(nothing_is_said_when_nobody_is_allowed),
		cmocka_unit_test(allowed_pages_may_read),
		cmocka_unit_test(others_may_not),
		cmocka_unit_test(a_preflight_is_answered_by_what_it_asks),
		cmocka_unit_test(what_cannot_be_said_back_is_not),
		cmocka_unit_test(other_options_are_no_preflights),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
