#include "unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/route.h"

static void the_way_to_oneself_is_oneself(void **state) {
	struct sockaddr_storage at = { .ss_family = AF_INET };
	char text[ROUTE_BYTES];
	((struct sockaddr_in *)&at)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	((struct sockaddr_in *)&at)->sin_port = htons(8081);
	assert_true(route_source(&at, text));
	assert_string_equal(text, "127.0.0.1");
}

static void no_way_is_no_address(void **state) {
	struct sockaddr_storage at = { .ss_family = AF_UNIX };
	char text[ROUTE_BYTES];
	assert_false(route_source(&at, text));
}

static void the_default_is_an_address_for_others(void **state) {
	char text[ROUTE_BYTES];
	struct in_addr in;
	if (!route_source_default(text))
		skip(); /* no way out of this machine */
	assert_int_equal(inet_pton(AF_INET, text, &in), 1);
	assert_true(ntohl(in.s_addr) >> 24 != 127 && in.s_addr != 0);
}

/* A network with nothing in it. */
static void without_a_network_there_is_no_default(void **state) {
	int status;
	pid_t child = fork();
	if (child == 0) {
		char text[ROUTE_BYTES];
		_exit(unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 ? 2 : route_source_default(text));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 2)
		skip(); /* no network namespace can be made here */
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_way_to_oneself_is_oneself),
		cmocka_unit_test(no_way_is_no_address),
		cmocka_unit_test(the_default_is_an_address_for_others),
		cmocka_unit_test(without_a_network_there_is_no_default),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
