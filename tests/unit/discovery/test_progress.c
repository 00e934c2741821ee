#include "unit/discovery/far_engine.h"

#include <sys/resource.h>

#include "discovery/progress.h"

enum { ANSWER_MS = 3000, PAUSE_MS = 30000 };

#define NOTHING HEALTH_PROGRESS_UNASKED + 1 /* was said until now */

struct scene {
	struct rig rig;
	struct far_engine far;
	struct instance *instance;
	struct progress progress;
	int said;
	unsigned n_said;
};

static void on_progress(struct progress *p, enum health_progress progress) {
	struct scene *s = container_of(p, struct scene, progress);

	assert_false(progress_is_busy(p));
	s->said = (int)progress;
	s->n_said++;
}

static void scene_ask(struct scene *s, const char *model, bool is_hung) {
	s->said = NOTHING;
	progress_start(&s->progress,
	    &(struct progress_question){ .instance = s->instance,
		.address = &s->far.address,
		.bearer = SLICE("sesame"),
		.model = slice_of(model),
		.is_hung = is_hung });
}

static struct scene *scene_open(const char *model, bool is_hung) {
	struct scene *s = calloc(1, sizeof(*s));
	const struct instance_spec spec = { .name = SLICE("e"),
		.url = SLICE("http://e:1"),
		.authority = SLICE("e:1"),
		.host = SLICE("e"),
		.port = 1 };

	far_clock_start();
	rig_open(&s->rig);
	far_open(&s->far);
	s->instance = instance_new(&spec);
	progress_init(&s->progress, &s->rig.loop, ANSWER_MS, PAUSE_MS, on_progress);
	scene_ask(s, model, is_hung);
	return s;
}

static void scene_close(struct scene *s) {
	progress_cancel(&s->progress);
	rig_close(&s->rig);
	far_close(&s->far);
	instance_unref(&s->instance);
	clock_set_source(NULL);
	free(s);
}

#define ANSWER(status, length, body) "HTTP/1.1 " status "\r\ncontent-length: " length "\r\n\r\n" body
#define TOKENS(n)                    ANSWER("200 OK", "30", "vllm:generation_tokens_total " n)
#define NO_PAGE                      ANSWER("404 Not Found", "0", "")
#define NO_NAMES                     ANSWER("200 OK", "9", "process 1")

static void metrics(struct scene *s, const char *answer) {
	far_answer(&s->rig, &s->far, "/metrics", slice_of(answer));
}

/* What it was asked for; NULL: it says nothing. */
static void canary(struct scene *s, const char *path, const char *body, const char *answer) {
	struct heard heard;
	char head[64];
	int fd = far_hear(&s->rig, &s->far, &heard);

	far_until(&s->rig, (rig_hear(fd, &heard, SIZE_MAX), memmem(heard.p, heard.n, "}", 1)));
	snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\n", path);
	if (!slice_has_prefix(rig_heard(&heard), slice_of(head)) ||
	    !memmem(heard.p, heard.n, "\r\nauthorization: Bearer sesame\r\n", 31) ||
	    !memmem(heard.p, heard.n, body, strlen(body)))
		fail_msg("not %s: %.*s", path, (int)heard.n, heard.p);
	heard_free(&heard);
	if (answer)
		far_say(&s->rig, fd, slice_of(answer));
	far_await_end(&s->rig, fd);
	rig_spin(&s->rig, 4);
}

#define PLAIN "{\"model\":\"m\",\"max_tokens\":1,\"stream\":false,\"prompt\":\"Hi\"}"
#define CHAT                                                                                                 \
	"{\"model\":\"m\",\"max_tokens\":1,\"stream\":false,"                                                \
	"\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}"

static void nobody_asks(struct scene *s) {
	assert_int_equal(far_accept(&s->far), -1);
}

static void counters_are_read_twice(void **state) {
	static const struct {
		const char *second;
		int said;
	} rows[] = { { TOKENS("7"), HEALTH_PROGRESS_STILL }, { TOKENS("8"), HEALTH_PROGRESS_MOVES },
		{ TOKENS("0"), HEALTH_PROGRESS_MOVES }, /* another process */
		{ NO_PAGE, HEALTH_PROGRESS_UNSAID }, { NO_NAMES, HEALTH_PROGRESS_UNSAID } };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open("m", false);

		metrics(s, TOKENS("7"));
		far_pass(&s->rig, PAUSE_MS - 500);
		nobody_asks(s);
		assert_int_equal(s->said, NOTHING);
		metrics(s, rows[i].second);
		assert_int_equal(s->said, rows[i].said);
		assert_int_equal(s->n_said, 1);
		scene_close(s);
	}
}

static void without_counters_a_canary_is_sent(void **state) {
	static const struct {
		const char *metrics, *answer;
		int said;
	} rows[] = {
		{ NO_PAGE, ANSWER("200 OK", "2", "{}"), HEALTH_PROGRESS_MOVES },
		{ NO_NAMES, ANSWER("200 OK", "2", "{}"), HEALTH_PROGRESS_MOVES },
		{ ANSWER("500 No", "30", "vllm:generation_tokens_total 7"), ANSWER("401 Who", "0", ""),
		    HEALTH_PROGRESS_UNSAID }, /* nobody behind it was asked */
		{ "garbage\n", ANSWER("400 Bad", "0", ""), HEALTH_PROGRESS_UNSAID },
		{ NO_PAGE, ANSWER("503 Full", "0", ""), HEALTH_PROGRESS_UNSAID },
		{ NO_PAGE, ANSWER("200 OK", "9", "{"), HEALTH_PROGRESS_MUTE }, /* cut */
		{ NO_PAGE, "", HEALTH_PROGRESS_MUTE },
		{ NO_PAGE, NULL, HEALTH_PROGRESS_MUTE },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open("m", false);

		metrics(s, rows[i].metrics);
		canary(s, "/v1/completions", PLAIN, rows[i].answer);
		if (s->said != rows[i].said)
			fail_msg("row %zu: %d", i, s->said);
		nobody_asks(s);
		scene_close(s);
	}
}

static void who_has_no_completions_may_have_chat(void **state) {
	struct scene *s = scene_open("m", false);

	metrics(s, NO_PAGE);
	canary(s, "/v1/completions", PLAIN, ANSWER("405 No", "0", ""));
	canary(s, "/v1/chat/completions", CHAT, NULL);
	assert_int_equal(s->said, HEALTH_PROGRESS_MUTE);
	scene_ask(s, "m", false); /* it begins anew */
	metrics(s, NO_PAGE);
	canary(s, "/v1/completions", PLAIN, NO_PAGE);
	canary(s, "/v1/chat/completions", CHAT, NO_PAGE);
	assert_int_equal(s->said, HEALTH_PROGRESS_UNSAID);
	assert_int_equal(s->n_said, 2);
	scene_close(s);
}

/* Its counters stand still for want of work: it is given some. */
static void what_hangs_gets_a_canary_though_it_has_counters(void **state) {
	static const struct {
		const char *answer, *second;
		int said;
	} rows[] = { { ANSWER("200 OK", "2", "{}"), NULL, HEALTH_PROGRESS_MOVES },
		{ NULL, TOKENS("7"), HEALTH_PROGRESS_MUTE }, { NULL, TOKENS("8"), HEALTH_PROGRESS_MOVES },
		{ NULL, NO_PAGE, HEALTH_PROGRESS_MUTE },
		{ ANSWER("500 No", "0", ""), TOKENS("7"), HEALTH_PROGRESS_MUTE },
		{ ANSWER("401 Who", "0", ""), TOKENS("7"), HEALTH_PROGRESS_UNSAID },
		{ ANSWER("401 Who", "0", ""), TOKENS("8"), HEALTH_PROGRESS_MOVES } };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open("m", true);

		metrics(s, TOKENS("7"));
		canary(s, "/v1/completions", PLAIN, rows[i].answer);
		if (rows[i].second)
			metrics(s, rows[i].second);
		assert_int_equal(s->said, rows[i].said);
		scene_close(s);
	}
}

static void without_a_canary_counters_must_do(void **state) {
	struct scene *s = scene_open(NULL, false);

	metrics(s, NO_PAGE);
	assert_int_equal(s->said, HEALTH_PROGRESS_UNSAID);
	nobody_asks(s);
	scene_ask(s, NULL, true);
	metrics(s, TOKENS("7"));
	metrics(s, TOKENS("7"));
	assert_int_equal(s->said, HEALTH_PROGRESS_STILL);
	scene_close(s);
}

static void who_takes_no_connection_is_not_judged(void **state) {
	struct scene *s = scene_open("m", false);

	far_close(&s->far);
	far_until(&s->rig, s->said != NOTHING);
	assert_int_equal(s->said, HEALTH_PROGRESS_UNSAID);
	far_open(&s->far);
	scene_close(s);
}

/* Our descriptors are used up: it has no part in that. */
static void when_we_cannot_ask_nothing_follows(void **state) {
	struct scene *s = scene_open("m", false);
	struct rlimit limit, none;

	progress_cancel(&s->progress);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = (struct rlimit){ 0, limit.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	scene_ask(s, "m", false);
	far_until(&s->rig, s->said != NOTHING);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(s->said, HEALTH_PROGRESS_UNASKED);
	scene_close(s);
}

/* Metrics without an end, fast and slow: bounded in bytes and time, and no counters. */
static void metrics_without_end_are_no_counters(void **state) {
	static const char head[] = "HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n";
	enum { N = 8 << 20 };
	char *text = malloc(N);

	memset(text, 'x', N);
	memcpy(text, head, sizeof(head) - 1);
	for (unsigned i = 0; i < 2; i++) {
		struct scene *s = scene_open("m", false);
		struct heard heard;
		int fd = far_hear(&s->rig, &s->far, &heard);
		uint64_t since_ns = far_now_ns;

		heard_free(&heard);
		if (i == 0)
			far_say(&s->rig, fd, (struct slice){ text, N });
		else
			assert_true(send(fd, text, 100, 0) == 100);
		far_await_end(&s->rig, fd);
		assert_in_range(far_now_ns - since_ns, 0, (ANSWER_MS + 200) * UINT64_C(1000000));
		canary(s, "/v1/completions", PLAIN, NULL);
		assert_int_equal(s->said, HEALTH_PROGRESS_MUTE);
		scene_close(s);
	}
	free(text);
}

static void a_cancelled_question_is_taken_back(void **state) {
	for (unsigned i = 0; i < 2; i++) {
		struct scene *s = scene_open("m", false);

		metrics(s, i ? NO_PAGE : TOKENS("7")); /* now it pauses, or has sent its canary */
		assert_true(progress_is_busy(&s->progress));
		progress_cancel(&s->progress);
		assert_false(progress_is_busy(&s->progress));
		far_pass(&s->rig, 2 * PAUSE_MS);
		assert_int_equal(s->n_said, 0);
		scene_ask(s, "m", false);
		scene_close(s);
	}
}

/* A question for the engine is taken back, for one of its ranks. */
static void become_rank(struct scene *s, uint16_t rank) {
	struct instance_spec spec = s->instance->spec;
	struct instance *instance;

	progress_cancel(&s->progress);
	spec.rank = rank;
	spec.has_rank = true;
	instance = instance_new(&spec);
	instance_unref(&s->instance);
	s->instance = instance;
}

#define RANKS(first, second)                                                                                 \
	ANSWER("200 OK", "85",                                                                               \
	    "vllm:generation_tokens_total{engine=\"0\"} " first                                              \
	    "\nvllm:generation_tokens_total{engine=\"1\"} " second)

/* What the others do is no work of its own. */
static void a_rank_is_asked_for_itself(void **state) {
	struct scene *s = scene_open("m", false);
	struct heard heard;

	become_rank(s, 1);
	close(far_accept(&s->far));
	scene_ask(s, "m", false);
	metrics(s, RANKS("5", "7"));
	metrics(s, RANKS("6", "7"));
	assert_int_equal(s->said, HEALTH_PROGRESS_STILL);
	scene_ask(s, "m", false);
	metrics(s, RANKS("6", "7"));
	metrics(s, RANKS("6", "8"));
	assert_int_equal(s->said, HEALTH_PROGRESS_MOVES);
	scene_ask(s, "m", true);
	metrics(s, RANKS("6", "8"));
	int fd = far_hear(&s->rig, &s->far, &heard);
	assert_non_null(memmem(heard.p, heard.n, "\r\nx-data-parallel-rank: 1\r\n", 27));
	heard_free(&heard);
	close(fd);
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counters_are_read_twice),
		cmocka_unit_test(without_counters_a_canary_is_sent),
		cmocka_unit_test(who_has_no_completions_may_have_chat),
		cmocka_unit_test(what_hangs_gets_a_canary_though_it_has_counters),
		cmocka_unit_test(without_a_canary_counters_must_do),
		cmocka_unit_test(who_takes_no_connection_is_not_judged),
		cmocka_unit_test(when_we_cannot_ask_nothing_follows),
		cmocka_unit_test(metrics_without_end_are_no_counters),
		cmocka_unit_test(a_cancelled_question_is_taken_back),
		cmocka_unit_test(a_rank_is_asked_for_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
