#include "net/certificates.h"

#include "unit/net/certs.h"
#include "unit/net/rig.h"

#define HOUR_NS 3600000000000u

static uint64_t now_ns;

static uint64_t still_clock(void) {
	return now_ns;
}

struct scene {
	struct rig rig;
	struct certs files;
	const struct cert *a, *next;
	struct tls_files pair;
	struct tls_server_files server_files;
	struct tls_client_files client_files;
	struct certificates c;
	unsigned n_changes;
};

static void on_change(struct certificates *c) {
	container_of(c, struct scene, c)->n_changes++;
}

static void scene_open(struct scene *s) {
	*s = (struct scene){ .n_changes = 0 };
	now_ns = 1;
	clock_set_source(still_clock);
	rig_open(&s->rig);
	certs_open(&s->files);
	s->a = certs_make(&s->files, "a", "DNS:a.example", NULL);
	s->next = certs_make(&s->files, "next", "DNS:a.example", NULL);
	s->pair = (struct tls_files){ s->a->path, s->a->path };
	s->server_files = (struct tls_server_files){ .certificates = &s->pair, .n = 1, .client_ca = "" };
	s->client_files = (struct tls_client_files){ .ca = s->a->path, .certificate = { "", "" } };
	s->c = (struct certificates){
		.server_files = &s->server_files, .client_files = &s->client_files, .on_change = on_change
	};
}

static void scene_close(struct scene *s) {
	certificates_close(&s->c);
	certificates_deinit(&s->c);
	assert_null(s->rig.loop.tls);
	rig_close(&s->rig);
	certs_close(&s->files);
	clock_set_source(NULL);
}

static void what_cannot_be_read_changes_nothing(void **state) {
	char why[TLS_WHY_BYTES];
	struct scene s;
	scene_open(&s);
	assert_true(certificates_open(&s.c, &s.rig.loop, why));
	struct tls_server *server = tls_server_ref(s.c.server); /* so that its place is not given again */
	struct tls_client *client = tls_client_ref(s.c.client);
	assert_ptr_equal(s.rig.loop.tls, client);

	s.pair.key = s.next->path; /* another's key: the client's files are good */
	certificates_reload(&s.c);
	s.pair.key = s.a->path;
	s.client_files.ca = "/nowhere"; /* the server's files are */
	certificates_reload(&s.c);
	assert_ptr_equal(s.c.server, server);
	assert_ptr_equal(s.c.client, client);
	assert_int_equal(s.n_changes, 0);

	s.client_files.ca = s.next->path;
	certificates_reload(&s.c);
	assert_ptr_not_equal(s.c.server, server);
	assert_ptr_not_equal(s.c.client, client);
	assert_ptr_equal(s.rig.loop.tls, s.c.client);
	assert_int_equal(s.n_changes, 1);
	tls_server_unref(&server);
	tls_client_unref(&client);
	scene_close(&s);
}

static void a_start_without_them_fails(void **state) {
	char why[TLS_WHY_BYTES];
	struct scene s;
	scene_open(&s);
	s.client_files.ca = "/nowhere";
	assert_false(certificates_open(&s.c, &s.rig.loop, why));
	assert_string_equal(why, "/nowhere: No such file or directory");
	assert_null(s.c.server);
	scene_close(&s);
}

static void they_are_read_twice_a_day(void **state) {
	char why[TLS_WHY_BYTES];
	struct scene s;
	scene_open(&s);
	assert_true(certificates_open(&s.c, &s.rig.loop, why));
	for (unsigned i = 0; i < 4; i++) {
		now_ns += 12 * HOUR_NS - 1000000000u;
		rig_spin(&s.rig, 3);
		assert_int_equal(s.n_changes, i);
		now_ns += 2000000000u;
		rig_spin(&s.rig, 3);
		assert_int_equal(s.n_changes, i + 1);
	}
	scene_close(&s);
}

static void who_speaks_none_has_none(void **state) {
	char why[TLS_WHY_BYTES];
	struct scene s;
	scene_open(&s);
	s.server_files.n = 0;
	s.c.client_files = NULL;
	assert_true(certificates_open(&s.c, &s.rig.loop, why));
	assert_true(!s.c.server && !s.c.client && !s.rig.loop.tls);
	assert_false(timer_is_running(&s.c.renewal));
	scene_close(&s);

	scene_open(&s); /* never opened */
	scene_close(&s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_cannot_be_read_changes_nothing),
		cmocka_unit_test(a_start_without_them_fails),
		cmocka_unit_test(they_are_read_twice_a_day),
		cmocka_unit_test(who_speaks_none_has_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
