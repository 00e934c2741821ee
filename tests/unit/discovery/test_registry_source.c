/* What is asked next, and when: against a registry whose words the test says. */
#include "unit/discovery/far_engine.h"

#include "discovery/registry_source.h"

enum { SYNC_MS = 10000, GRACE_MS = 60000 };

#define WATCH "/services?watch=1"
#define POLL  "/services?healthy=true"

#define EVENTS "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
#define RECORDS                                                                                              \
	"\"epoch\":\"e\",\"version\":1,\"services\":[{\"name\":\"a\",\"host\":\"127.0.0.1\",\"port\":8000,"  \
	"\"status\":\"running\",\"metadata\":{\"type\":\"openai-api\",\"models\":[\"m\"]}}]"
#define RESET   "data: {\"reset\":true," RECORDS "}\n\n"
#define NOBODY  "data: {\"reset\":true,\"epoch\":\"e\",\"version\":2,\"services\":[]}\n\n"
#define TABLE   "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{" RECORDS "}"
#define NOT_NOW "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

struct scene {
	struct rig rig;
	struct far_engine far;
	struct fleet *fleet;
	struct registry_source source;
	char url[64];
};

static void on_change(struct registry_source *s) {}

static struct scene *scene_open(void) {
	struct scene *s = calloc(1, sizeof(*s));
	struct registry_options options = {
		.url = s->url, .token = "", .file = "", .sync_interval_ms = SYNC_MS, .grace_ms = GRACE_MS
	};

	far_clock_start();
	rig_open(&s->rig);
	far_open(&s->far);
	snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u", listener_port(s->far.listening));
	s->fleet = fleet_new();
	assert_true(registry_source_init(&s->source, &s->rig.loop, s->fleet, &options, on_change));
	return s;
}

static void scene_close(struct scene *s) {
	registry_source_deinit(&s->source);
	rig_close(&s->rig);
	far_close(&s->far);
	fleet_free(&s->fleet);
	clock_set_source(NULL);
	free(s);
}

/* The next question must be this one; how long it was waited for. */
static uint64_t answer(struct scene *s, const char *path, const char *text) {
	uint64_t since_ns = far_now_ns;

	far_answer(&s->rig, &s->far, path, slice_of(text));
	return (far_now_ns - since_ns) / 1000000;
}

static void a_watch_that_fails_without_a_word_gives_way_to_the_list(void **state) {
	static const char *const failures[] = { NOT_NOW, EVENTS, EVENTS ":\n\n", "" };

	for (size_t i = 0; i < n_elems(failures); i++) {
		struct scene *s = scene_open();
		uint64_t passed_ms = 0;

		answer(s, WATCH, failures[i]);
		assert_false(s->source.is_heard);
		answer(s, POLL, TABLE);
		assert_true(s->source.is_heard);
		for (unsigned k = 0; k < 5; k++)
			passed_ms += answer(s, POLL, TABLE);
		assert_in_range(passed_ms, 5 * SYNC_MS, 6 * SYNC_MS);
		answer(s, WATCH "&since=e:1", failures[i]); /* it is asked for again */
		answer(s, POLL, TABLE);
		scene_close(s);
	}
}

static void a_watch_that_has_spoken_goes_on(void **state) {
	struct scene *s = scene_open();

	for (unsigned i = 0; i < 20; i++) {
		uint64_t waited_ms = answer(s, i ? WATCH "&since=e:1" : WATCH, EVENTS RESET ":\n\n");

		assert_true(s->source.is_heard);
		assert_in_range(waited_ms, 0, 500); /* it does not grow */
	}
	scene_close(s);
}

/* It had nothing to tell: its next one shows whether it is well. */
static void a_resumed_watch_that_ends_is_asked_for_anew(void **state) {
	struct scene *s = scene_open();

	answer(s, WATCH, EVENTS RESET);
	for (unsigned i = 0; i < 3; i++) {
		answer(s, WATCH "&since=e:1", EVENTS ":\n\n");
		assert_false(s->source.is_heard);
		answer(s, WATCH, EVENTS RESET);
		assert_true(s->source.is_heard);
	}
	scene_close(s);
}

/* Comments are no answer: who says nothing else is asked less and less often. */
static void comments_alone_are_a_failure(void **state) {
	struct scene *s = scene_open();
	uint64_t waited_ms = 0;

	for (unsigned i = 0; i < 12; i++) {
		waited_ms = answer(
		    s, s->source.watch_at_ms > loop_now_ms(&s->rig.loop) ? POLL : WATCH, EVENTS ":\n\n");
		assert_int_equal(s->source.counts.n_failures, i + 1);
		assert_false(s->source.is_heard);
	}
	assert_true(waited_ms >= SYNC_MS / 2);
	scene_close(s);
}

/* It swept out whom it did not hear, or is a backup of itself: in neither case has anybody deregistered. */
static void a_reset_by_the_same_store_deletes_nobody(void **state) {
	struct scene *s = scene_open();
	struct membership_counts n;

	answer(s, WATCH, EVENTS RESET);
	answer(s, WATCH "&since=e:1", NOT_NOW);
	assert_false(s->source.is_heard);
	answer(s, WATCH, EVENTS NOBODY);
	assert_true(s->source.is_heard);
	membership_counts(s->source.membership, &n);
	assert_int_equal(n.n_members, 1);
	assert_int_equal(n.n_missing, 1);
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_watch_that_fails_without_a_word_gives_way_to_the_list),
		cmocka_unit_test(a_watch_that_has_spoken_goes_on),
		cmocka_unit_test(a_resumed_watch_that_ends_is_asked_for_anew),
		cmocka_unit_test(comments_alone_are_a_failure),
		cmocka_unit_test(a_reset_by_the_same_store_deletes_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
