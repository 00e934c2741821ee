#include "unit/net/rig.h"

#include "admin/admin.h"

#define ROUND SLICE("GET /round HTTP/1.1\r\nHost: x\r\n\r\n")

#define OK(type, n) "HTTP/1.1 200 OK\r\ncontent-type: " type "\r\ncontent-length: " n "\r\n\r\n"

enum { LARGE_BYTES = 32 << 20 };

struct scene {
	struct rig rig;
	struct admin admin;
	uint16_t port;
	unsigned n_written;
};

static unsigned write_round(void *context, FILE *out) {
	struct scene *s = context;
	fprintf(out, "round %u", ++s->n_written);
	return 200;
}

static unsigned write_busy(void *context, FILE *out) {
	fputs("{}", out);
	return 503;
}

static unsigned write_empty(void *context, FILE *out) {
	return 200;
}

static unsigned write_large(void *context, FILE *out) {
	for (unsigned i = 0; i < LARGE_BYTES / 16; i++)
		fprintf(out, "%15u\n", i);
	return 200;
}

static const struct admin_endpoint endpoints[] = {
	{ "/round", "text/plain", write_round },
	{ "/busy", "application/json", write_busy },
	{ "/empty", "text/plain", write_empty },
	{ "/large", "text/plain", write_large },
};

static struct scene *scene_open(void) {
	struct scene *s = calloc(1, sizeof(*s));
	rig_open(&s->rig);
	int fd = rig_listen(&s->port);
	assert_int_equal(admin_open(&s->admin, &s->rig.loop, fd, endpoints, n_elems(endpoints), s), 0);
	return s;
}

static void scene_close(struct scene *s) {
	admin_close(&s->admin);
	rig_close(&s->rig);
	admin_deinit(&s->admin);
	free(s);
}

/* The far end hears this, and no more for now. */
static void assert_hears(struct scene *s, int fd, const char *text) {
	struct heard heard = { .n = 0 };
	rig_listen_to(&s->rig, fd, &heard, strlen(text));
	if (!slice_eq(rig_heard(&heard), slice_of(text)))
		fail_msg("heard \"%.*s\", not \"%s\"", (int)heard.n, heard.p, text);
	heard_free(&heard);
}

/* It hears what begins like this and has these words in it, then the end. */
static void assert_last_words(struct scene *s, int fd, const char *first, const char *later) {
	struct heard heard = { .n = 0 };
	rig_listen_to(&s->rig, fd, &heard, SIZE_MAX);
	assert_true(heard.is_ended);
	if (!slice_eq(slice_head(rig_heard(&heard), strlen(first)), slice_of(first)) ||
	    !memmem(heard.p, heard.n, later, strlen(later)))
		fail_msg("heard \"%.*s\", not \"%s...%s\"", (int)heard.n, heard.p, first, later);
	heard_free(&heard);
}

static void each_path_has_its_document(void **state) {
	struct scene *s = scene_open();
	int fd = rig_connect(s->port);
	rig_say(fd, ROUND);
	assert_hears(s, fd, OK("text/plain", "7") "round 1");
	rig_say(fd, SLICE("GET /round?a=b HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(s, fd, OK("text/plain", "7") "round 2");
	rig_say(fd, SLICE("GET /busy HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(s, fd,
	    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
	    "content-length: 2\r\n\r\n{}");
	rig_say(fd, SLICE("GET /empty HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(s, fd, OK("text/plain", "0"));
	close(fd);
	scene_close(s);
}

static void head_has_the_head_alone(void **state) {
	struct scene *s = scene_open();
	int fd = rig_connect(s->port);
	rig_say(fd, SLICE("HEAD /round HTTP/1.1\r\nHost: x\r\n\r\nGET /round HTTP/1.1\r\nHost: x\r\n\r\n"));
	assert_hears(s, fd, OK("text/plain", "7") OK("text/plain", "7") "round 2");
	rig_say(fd, SLICE("HEAD /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
	struct heard heard = { .n = 0 };
	rig_listen_to(&s->rig, fd, &heard, SIZE_MAX);
	assert_true(slice_eq(slice_head(rig_heard(&heard), 13), SLICE("HTTP/1.1 404 ")));
	assert_memory_equal(heard.p + heard.n - 4, "\r\n\r\n", 4);
	heard_free(&heard);
	close(fd);
	scene_close(s);
}

static void what_is_not_there_is_refused(void **state) {
	static const struct {
		const char *text, *first, *later;
	} rows[] = {
		{ "GET /", "HTTP/1.1 404 Not Found\r\n", "there is nothing at this path" },
		{ "GET /roun", "HTTP/1.1 404 Not Found\r\n", "\"error\"" },
		{ "GET /round/", "HTTP/1.1 404 Not Found\r\n", "\"error\"" },
		{ "POST /none", "HTTP/1.1 404 Not Found\r\n", "\"error\"" },
		{ "POST /round", "HTTP/1.1 405 Method Not Allowed\r\n", "\r\nallow: GET, HEAD\r\n" },
		{ "DELETE /round", "HTTP/1.1 405 Method Not Allowed\r\n", "\r\nallow: GET, HEAD\r\n" },
		{ "OPTIONS /round", "HTTP/1.1 405 Method Not Allowed\r\n", "\r\nallow: GET, HEAD\r\n" },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open();
		int fd = rig_connect(s->port);
		char text[128];
		snprintf(
		    text, sizeof(text), "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", rows[i].text);
		rig_say(fd, slice_of(text));
		assert_last_words(s, fd, rows[i].first, rows[i].later);
		assert_int_equal(s->n_written, 0);
		close(fd);
		scene_close(s);
	}
}

/* Nobody wants the body: the answer says that the connection ends. */
static void a_body_ends_the_connection(void **state) {
	struct scene *s = scene_open();
	int fd = rig_connect(s->port);
	rig_say(fd, SLICE("GET /round HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"));
	assert_last_words(s, fd, "HTTP/1.1 200 OK\r\n", "\r\nconnection: close\r\n");
	close(fd);
	scene_close(s);
}

static void bad_heads_are_refused(void **state) {
	static char large[HEAD_BYTES_MAX + 100];
	int n = snprintf(large, sizeof(large), "GET /round HTTP/1.1\r\nHost: x\r\na: ");
	memset(large + n, 'y', sizeof(large) - (size_t)n);
	const struct {
		struct slice text;
		const char *first;
	} rows[] = {
		{ { large, sizeof(large) }, "HTTP/1.1 431 " },
		{ SLICE("round\r\n\r\n"), "HTTP/1.1 400 " },
		{ SLICE("GET /round HTTP/1.1\r\n\r\n"), "HTTP/1.1 400 " },
	};
	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open();
		int fd = rig_connect(s->port);
		for (size_t at = 0; at < rows[i].text.n; at += 9000) {
			rig_say(fd, slice_head(slice_skip(rows[i].text, at), 9000));
			rig_spin(&s->rig, 2);
		}
		assert_last_words(s, fd, rows[i].first, "\r\nconnection: close\r\n");
		assert_int_equal(s->n_written, 0);
		close(fd);
		scene_close(s);
	}
}

static void a_large_document_arrives_whole(void **state) {
	struct scene *s = scene_open();
	struct heard heard = { .n = 0 };
	int fd = rig_connect(s->port);
	rig_say(fd, SLICE("GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
	rig_spin(&s->rig, 5);
	assert_false(list_is_empty(&s->admin.active)); /* it does not fit into the socket */
	rig_listen_to(&s->rig, fd, &heard, SIZE_MAX);
	assert_true(heard.is_ended && heard.n > LARGE_BYTES);
	char last[17];
	snprintf(last, sizeof(last), "%15u\n", LARGE_BYTES / 16 - 1);
	assert_memory_equal(heard.p + heard.n - 16, last, 16);
	heard_free(&heard);
	close(fd);
	scene_close(s);
}

static uint64_t fake_ns;

static uint64_t fake_source(void) {
	return fake_ns;
}

static void who_does_not_read_is_cut(void **state) {
	fake_ns = 1000000000;
	clock_set_source(fake_source);
	struct scene *s = scene_open();
	int fd = rig_connect(s->port);
	rig_say(fd, SLICE("GET /large HTTP/1.1\r\nHost: x\r\n\r\n"));
	rig_spin(&s->rig, 10);
	fake_ns += 29000000000;
	rig_spin(&s->rig, 3);
	bool is_patient = !list_is_empty(&s->admin.active);
	fake_ns += 2000000000;
	rig_spin(&s->rig, 3);
	bool is_over = list_is_empty(&s->admin.active);
	close(fd);
	scene_close(s);
	clock_set_source(NULL);
	assert_true(is_patient);
	assert_true(is_over);
}

static void who_leaves_or_stays_to_the_end_leaves_nothing(void **state) {
	for (unsigned leaves = 0; leaves < 2; leaves++) {
		struct scene *s = scene_open();
		int fd = rig_connect(s->port);
		rig_say(fd, SLICE("GET /large HTTP/1.1\r\nHost: x\r\n\r\n"));
		rig_until(&s->rig, !list_is_empty(&s->admin.active));
		rig_spin(&s->rig, 3);
		if (leaves) {
			rig_reset(fd);
			rig_until(&s->rig, list_is_empty(&s->admin.active));
		}
		scene_close(s);
		if (!leaves)
			close(fd);
	}
}

int main(void) {
	loop_setup_process();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_path_has_its_document),
		cmocka_unit_test(head_has_the_head_alone),
		cmocka_unit_test(what_is_not_there_is_refused),
		cmocka_unit_test(a_body_ends_the_connection),
		cmocka_unit_test(bad_heads_are_refused),
		cmocka_unit_test(a_large_document_arrives_whole),
		cmocka_unit_test(who_does_not_read_is_cut),
		cmocka_unit_test(who_leaves_or_stays_to_the_end_leaves_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
