#include "unit/discovery/far_engine.h"

#include <sys/resource.h>

#include "discovery/scrape.h"
#include "fleet/fleet.h"

enum { INTERVAL_MS = 2000, TIMEOUT_MS = 5000, MINUTE_MS = 60000 };

/* A fleet whose engines are all at one address, each a rank of its own, so that they are several targets. */
struct scene {
	struct rig rig;
	struct far_engine far;
	struct fleet *fleet;
	struct snapshot *snapshot;
	struct scraper scraper;
	struct load *load;
};

static void scene_add(struct scene *s, unsigned i) {
	static const struct pair model = { SLICE("m"), { NULL, 0 } };
	struct fleet_spec spec = { .weight = 1, .models = { &model, 1 } };
	char name[16];

	snprintf(name, sizeof(name), "e%u", i);
	spec.instance = (struct instance_spec){ .name = slice_of(name),
		.url = SLICE("http://e:1"),
		.authority = SLICE("e:1"),
		.host = SLICE("e"),
		.port = 1,
		.rank = (uint16_t)i };
	assert_int_equal(fleet_upsert(s->fleet, SOURCE_STATIC, &spec), 0);
}

static void scene_sync(struct scene *s) {
	struct snapshot *next = fleet_build(s->fleet);

	if (!next)
		return;
	snapshot_unref(&s->snapshot);
	s->snapshot = next;
	scraper_sync(&s->scraper, next);
}

static void on_change(struct scraper *scraper) {
	scene_sync(container_of(scraper, struct scene, scraper));
}

static struct scene *scene_open_every(unsigned n, uint64_t interval_ms) {
	struct load *load = load_new(1);
	const struct scrape_options options = {
		.interval_ms = interval_ms, .timeout_ms = TIMEOUT_MS, .api_key = "sesame", .load = load
	};
	struct scene *s = calloc(1, sizeof(*s));

	s->load = load;
	far_clock_start();
	rig_open(&s->rig);
	far_open(&s->far);
	s->fleet = fleet_new();
	for (unsigned i = 0; i < n; i++)
		scene_add(s, i);
	s->snapshot = fleet_build(s->fleet);
	for (uint32_t i = 0; i < n; i++)
		fleet_set_addresses(s->fleet, s->snapshot->rows[i].instance, &s->far.address, 1);
	scraper_init(&s->scraper, &s->rig.loop, s->fleet, &options, on_change);
	scene_sync(s);
	return s;
}

static struct scene *scene_open(unsigned n) {
	return scene_open_every(n, INTERVAL_MS);
}

static void scene_close(struct scene *s) {
	scraper_deinit(&s->scraper);
	rig_close(&s->rig);
	far_close(&s->far);
	snapshot_unref(&s->snapshot);
	fleet_free(&s->fleet);
	load_free(&s->load);
	clock_set_source(NULL);
	free(s);
}

static struct instance *first(const struct scene *s) {
	return s->snapshot->rows[0].instance;
}

static const struct learned *learned(const struct scene *s) {
	return &first(s)->learned;
}

static void say(struct scene *s, const char *status, const char *body) {
	char text[1024];

	snprintf(
	    text, sizeof(text), "HTTP/1.1 %s\r\ncontent-length: %zu\r\n\r\n%s", status, strlen(body), body);
	far_answer(&s->rig, &s->far, "/metrics", slice_of(text));
}

static void say_figures(struct scene *s, const char *body) {
	say(s, "200 OK", body);
}

static uint64_t now_ms(void) {
	return far_now_ns / 1000000;
}

/* How long it takes until it is asked again; the question is answered. */
static uint64_t asked_after_ms(struct scene *s, const char *status, const char *body) {
	uint64_t since_ms = now_ms();

	say(s, status, body);
	return now_ms() - since_ms;
}

static double strangers(struct scene *s) {
	return learned_strangers(learned(s));
}

static bool has_figure(const struct scene *s, enum figure figure, double is) {
	double value;

	return scraper_figure(&s->scraper, first(s), figure, &value) && value == is;
}

static bool says_rate(const struct scene *s) {
	double value;

	return scraper_figure(&s->scraper, first(s), FIGURE_GENERATION_RATE, &value);
}

#define LOAD(running, waiting)                                                                               \
	"vllm:num_requests_running " running "\nvllm:num_requests_waiting " waiting "\n"

static void what_is_not_ours_is_others(void **state) {
	struct scene *s = scene_open(1);

	say_figures(s, LOAD("1", "4"));
	assert_true(strangers(s) == 1);
	for (unsigned i = 0; i < 4; i++)
		load_charge(s->load, 0, first(s)->slot, 1);
	say_figures(s, LOAD("1", "4"));
	assert_true(strangers(s) > 0.5 && strangers(s) < 1);
	for (unsigned i = 0; i < 100; i++)
		say_figures(s, LOAD("1", "4"));
	assert_true(strangers(s) > 0.19 && strangers(s) < 0.21);
	/* An engine that does not say what runs says nothing of whose its requests are. */
	for (unsigned i = 0; i < 100; i++)
		say_figures(s, "vllm:num_requests_waiting 900\n");
	assert_true(strangers(s) > 0.19 && strangers(s) < 0.21);
	assert_true(learned_read(&learned(s)->n_waiting) == 900);
	/* Nor does it while some of ours are several to it. */
	atomic_store(&first(s)->learned.n_several, 1);
	for (unsigned i = 0; i < 100; i++)
		say_figures(s, LOAD("64", "0"));
	assert_true(strangers(s) > 0.19 && strangers(s) < 0.21);
	scene_close(s);
}

static void what_is_said_is_learned(void **state) {
	struct scene *s = scene_open(1);

	assert_int_equal(learned(s)->scraped_ms, 0);
	say_figures(s,
	    LOAD("3", "2") "vllm:kv_cache_usage_perc 0.5\n"
			   "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"10\"} 1\n");
	assert_true(learned_read(&learned(s)->n_running) == 3 && learned_read(&learned(s)->n_waiting) == 2);
	assert_true(learned_read(&learned(s)->kv_usage) == 0.5);
	assert_int_equal(learned(s)->cache_tokens, 160);
	assert_in_range(learned(s)->scraped_ms, now_ms() - 500, now_ms());
	assert_true(has_figure(s, FIGURE_RUNNING, 3) && has_figure(s, FIGURE_KV_USAGE, 0.5));
	/* A usage that cannot be stays as it was, and is not shown. */
	say_figures(s, LOAD("4", "0") "vllm:kv_cache_usage_perc NaN\n");
	assert_true(learned_read(&learned(s)->n_running) == 4 && learned_read(&learned(s)->n_waiting) == 0);
	assert_true(learned_read(&learned(s)->kv_usage) == 0.5);
	assert_true(has_figure(s, FIGURE_WAITING, 0) && !has_figure(s, FIGURE_KV_USAGE, 0.5));
	assert_int_equal(s->scraper.counts[SCRAPE_GOOD], 2);
	scene_close(s);
}

static void it_is_asked_with_the_key_and_again_each_interval(void **state) {
	struct scene *s = scene_open(1);
	struct heard heard;
	int fd = far_hear(&s->rig, &s->far, &heard);

	assert_in_range(now_ms(), 1000, 1000 + INTERVAL_MS + 200);
	assert_non_null(memmem(heard.p, heard.n, "\r\nauthorization: Bearer sesame\r\n", 31));
	heard_free(&heard);
	far_pass(&s->rig, TIMEOUT_MS - 500); /* never two at once */
	assert_int_equal(far_accept(&s->far), -1);
	far_say(
	    &s->rig, fd, SLICE("HTTP/1.1 200 OK\r\ncontent-length: 28\r\n\r\nvllm:num_requests_running 1\n"));
	far_await_end(&s->rig, fd);
	say_figures(s, LOAD("1", "0"));
	for (unsigned i = 0; i < 20; i++)
		assert_in_range(asked_after_ms(s, "200 OK", LOAD("1", "0")), INTERVAL_MS * 9 / 10 - 500,
		    INTERVAL_MS * 11 / 10 + 500);
	scene_close(s);
}

static void the_rate_is_what_the_counter_grew_by(void **state) {
	struct scene *s = scene_open(1);

	say_figures(s, LOAD("1", "0") "vllm:generation_tokens_total 100\n");
	uint64_t since_ms = learned(s)->scraped_ms;
	assert_false(says_rate(s));
	say_figures(s, LOAD("1", "0"));
	say_figures(s, LOAD("1", "0") "vllm:generation_tokens_total 600\n");
	double passed_s = (double)(learned(s)->scraped_ms - since_ms) / 1000;
	assert_true(has_figure(s, FIGURE_GENERATION_RATE, 500 * 1000 / (passed_s * 1000)));
	say_figures(s, "sglang:num_running_reqs 1\nsglang:gen_throughput 77\n");
	assert_true(has_figure(s, FIGURE_GENERATION_RATE, 77));
	say_figures(s, LOAD("1", "0")); /* it says nothing of it now */
	assert_false(says_rate(s));
	scene_close(s);
}

static void a_restart_shows(void **state) {
	static const struct {
		const char *before, *after;
		unsigned n;
	} rows[] = {
		{ "process_start_time_seconds 1000.25\n", "process_start_time_seconds 1003\n", 1 },
		{ "process_start_time_seconds 1000\n", "process_start_time_seconds 990\n", 1 },
		{ "process_start_time_seconds 1000\n", "process_start_time_seconds 1001\n",
		    0 }, /* a clock set */
		{ "process_start_time_seconds 1000\n", "process_start_time_seconds 1000\n", 0 },
		{ "process_start_time_seconds 1000\n", "", 0 },
		{ "", "process_start_time_seconds 1000\n", 0 },
		{ "vllm:generation_tokens_total 9\n", "vllm:generation_tokens_total 8\n", 1 },
		{ "vllm:generation_tokens_total 9\n", "vllm:generation_tokens_total 0\n", 1 },
		{ "vllm:generation_tokens_total 9\n", "vllm:generation_tokens_total 9\n", 0 },
		{ "vllm:generation_tokens_total 9\n", "vllm:generation_tokens_total NaN\n", 0 },
		{ "vllm:generation_tokens_total 9\nprocess_start_time_seconds 1000\n",
		    "vllm:generation_tokens_total 1\nprocess_start_time_seconds 1009\n", 1 },
	};

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open(1);
		char before[256], after[256];

		snprintf(before, sizeof(before), LOAD("0", "0") "%s", rows[i].before);
		snprintf(after, sizeof(after), LOAD("0", "0") "%s", rows[i].after);
		say_figures(s, before);
		say(s, "500 No", "");           /* meanwhile it fails, and what was known stays */
		say_figures(s, LOAD("0", "0")); /* and says less */
		assert_int_equal(learned(s)->n_restarts, 0);
		say_figures(s, after);
		if (learned(s)->n_restarts != rows[i].n)
			fail_msg("row %zu: %u", i, learned(s)->n_restarts);
		/* A counter that fell shows none. */
		bool stands = strstr(rows[i].after, "total 9\n");
		assert_int_equal(says_rate(s), stands);
		assert_int_equal(has_figure(s, FIGURE_GENERATION_RATE, 0), stands);
		say_figures(s, after);
		assert_int_equal(learned(s)->n_restarts, rows[i].n);
		scene_close(s);
	}
}

static void who_has_no_figures_is_asked_once_a_minute(void **state) {
	static const struct {
		const char *status, *body;
	} rows[] = { { "404 Not Found", "" }, { "405 No", "" }, { "501 No", "" }, { "200 OK", "garbage" },
		{ "200 OK", "" } };

	for (size_t i = 0; i < n_elems(rows); i++) {
		struct scene *s = scene_open(1);

		say(s, rows[i].status, rows[i].body);
		assert_in_range(asked_after_ms(s, "200 OK", LOAD("1", "0")), MINUTE_MS * 9 / 10 - 500,
		    MINUTE_MS * 11 / 10 + 500);
		assert_int_equal(s->scraper.counts[SCRAPE_NONE], 1);
		assert_true(has_figure(s, FIGURE_RUNNING, 1));
		assert_in_range(asked_after_ms(s, "200 OK", LOAD("1", "0")), 1, INTERVAL_MS * 11 / 10 + 500);
		scene_close(s);
	}
}

/* It keeps what it had until that is old, and is asked less often. */
static void a_failure_changes_nothing(void **state) {
	struct scene *s = scene_open(1);

	say_figures(s, LOAD("3", "2"));
	uint64_t said_ms = learned(s)->scraped_ms, waited_ms = 0;
	for (unsigned i = 0; i < 8; i++) {
		waited_ms = asked_after_ms(s, i % 2 ? "500 No" : "401 Who", LOAD("9", "9"));
		assert_true(learned_read(&learned(s)->n_running) == 3);
		assert_int_equal(learned(s)->scraped_ms, said_ms);
	}
	assert_in_range(waited_ms, 8 * INTERVAL_MS * 9 / 10 - 500, 8 * INTERVAL_MS * 11 / 10 + 500);
	assert_int_equal(s->scraper.counts[SCRAPE_FAILED], 8);
	assert_int_equal(first(s)->n_failures, 0);
	say_figures(s, LOAD("4", "0"));
	assert_in_range(asked_after_ms(s, "200 OK", LOAD("5", "0")), 1, INTERVAL_MS * 11 / 10 + 500);
	scene_close(s);
}

static void figures_are_shown_for_three_intervals(void **state) {
	struct scene *s = scene_open(1);

	say_figures(s, LOAD("3", "2"));
	uint64_t said_ms = learned(s)->scraped_ms;
	far_close(&s->far); /* nobody is there */
	far_until(&s->rig, now_ms() >= said_ms + 3 * INTERVAL_MS - 100);
	assert_true(has_figure(s, FIGURE_WAITING, 2));
	far_until(&s->rig, now_ms() >= said_ms + 3 * INTERVAL_MS + 100);
	assert_false(has_figure(s, FIGURE_WAITING, 2));
	assert_true(s->scraper.counts[SCRAPE_FAILED] > 0);
	far_open(&s->far);
	scene_close(s);
}

/* Fast and slow: bounded in bytes and time. */
static void metrics_without_end_are_given_up(void **state) {
	static const char head[] = "HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n" LOAD("1", "1");
	enum { N = 8 << 20 };
	char *text = malloc(N);

	memset(text, 'x', N);
	memcpy(text, head, sizeof(head) - 1);
	for (unsigned i = 0; i < 2; i++) {
		struct scene *s = scene_open(1);
		struct heard heard;
		int fd = far_hear(&s->rig, &s->far, &heard);
		uint64_t since_ms = now_ms();

		heard_free(&heard);
		if (i == 0)
			far_say(&s->rig, fd, (struct slice){ text, N });
		else
			assert_true(send(fd, text, 200, 0) == 200);
		far_await_end(&s->rig, fd);
		assert_in_range(now_ms() - since_ms, 0, TIMEOUT_MS + 200);
		rig_spin(&s->rig, 4);
		assert_int_equal(s->scraper.counts[SCRAPE_FAILED], 1);
		assert_int_equal(learned(s)->scraped_ms, 0);
		say_figures(s, LOAD("1", "1"));
		assert_true(has_figure(s, FIGURE_RUNNING, 1));
		scene_close(s);
	}
	free(text);
}

/* Nobody answers: all get a connection, and they keep half of those that may be. */
static void questions_at_once_are_bounded(void **state) {
	enum { N = 300 };
	struct scene *s = scene_open(N);
	unsigned n_most = 0;

	far_until(&s->rig,
	    (n_most = (unsigned)size_max(n_most, s->scraper.n_under_way),
		s->scraper.counts[SCRAPE_FAILED] >= N));
	assert_int_equal(n_most, 64);
	for (unsigned i = 0; i < 200; i++) {
		far_pass(&s->rig, FAR_STEP_MS);
		if (s->scraper.counts[SCRAPE_FAILED] >= 2 * N)
			break;
	}
	assert_in_range(s->scraper.n_under_way, 1, 32);
	scene_close(s);
}

static void who_leaves_is_let_go_and_its_question_with_it(void **state) {
	struct scene *s = scene_open(2);
	struct heard heard;
	int fds[2];

	for (unsigned i = 0; i < 2; i++) {
		fds[i] = far_hear(&s->rig, &s->far, &heard);
		heard_free(&heard);
	}
	for (unsigned i = 0; i < 2; i++) {
		char name[] = { 'e', (char)('0' + i), 0 };

		assert_int_equal(fleet_remove(s->fleet, SOURCE_STATIC, slice_of(name)), 0);
	}
	scene_sync(s);
	for (unsigned i = 0; i < 2; i++)
		far_await_end(&s->rig, fds[i]);
	far_pass(&s->rig, 3 * INTERVAL_MS);
	assert_int_equal(far_accept(&s->far), -1);
	assert_int_equal(s->scraper.counts[SCRAPE_FAILED], 0);
	scene_close(s);
}

static void one_target_is_asked_once(void **state) {
	struct scene *s = scene_open(1);
	struct fleet_spec spec = { .weight = 1 };
	struct heard heard;

	spec.instance = first(s)->spec;
	spec.instance.name = SLICE("twin");
	assert_int_equal(fleet_upsert(s->fleet, SOURCE_STATIC, &spec), 0);
	scene_sync(s);
	fleet_set_addresses(s->fleet, s->snapshot->rows[1].instance, &s->far.address, 1);
	scene_sync(s);
	assert_int_equal(s->snapshot->n_rows, 2);
	int fd = far_hear(&s->rig, &s->far, &heard);
	heard_free(&heard);
	far_pass(&s->rig, TIMEOUT_MS - 500);
	assert_int_equal(far_accept(&s->far), -1);
	close(fd);
	scene_close(s);
}

static void off_is_off(void **state) {
	struct scene *s = scene_open_every(1, 0);

	far_pass(&s->rig, 3 * MINUTE_MS);
	assert_int_equal(far_accept(&s->far), -1);
	assert_false(has_figure(s, FIGURE_RUNNING, 0));
	scene_close(s);
}

/* Our descriptors are used up: it has no part in that. */
static void when_we_cannot_ask_nothing_follows(void **state) {
	struct scene *s = scene_open(1);
	struct rlimit limit, none;

	say_figures(s, LOAD("1", "1"));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = (struct rlimit){ 0, limit.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	far_pass(&s->rig, 3 * INTERVAL_MS);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(s->scraper.counts[SCRAPE_FAILED], 0);
	assert_in_range(asked_after_ms(s, "200 OK", LOAD("2", "1")), 1, INTERVAL_MS * 11 / 10 + 500);
	scene_close(s);
}

/* In place of what there is: one engine, with so many ranks, or as many as it says. */
static struct scene *scene_open_ranks(uint16_t n_ranks) {
	static const struct pair model = { SLICE("m"), { NULL, 0 } };
	struct scene *s = scene_open(0);
	struct fleet_spec spec = { .weight = 1, .models = { &model, 1 }, .n_ranks = n_ranks };

	spec.instance = (struct instance_spec){ .name = SLICE("e"),
		.url = SLICE("http://e:1"),
		.authority = SLICE("e:1"),
		.host = SLICE("e"),
		.port = 1 };
	assert_int_equal(fleet_upsert(s->fleet, SOURCE_STATIC, &spec), 0);
	scene_sync(s);
	fleet_set_addresses(s->fleet, first(s), &s->far.address, 1);
	scene_sync(s);
	return s;
}

#define RANK(k, running) "vllm:num_requests_running{engine=\"" k "\"} " running "\n"

static double running(const struct scene *s, uint32_t row) {
	return learned_read(&s->snapshot->rows[row].instance->learned.n_running);
}

/* One question for all of them. */
static void ranks_learn_what_is_said_of_each(void **state) {
	struct scene *s = scene_open_ranks(3);
	double value;

	say_figures(s, RANK("0", "5") RANK("1", "6") RANK("2", "7"));
	for (uint32_t r = 0; r < 3; r++) {
		const struct instance *rank = s->snapshot->rows[r].instance;

		assert_true(running(s, r) == 5 + r);
		assert_true(scraper_figure(&s->scraper, rank, FIGURE_RUNNING, &value) && value == 5 + r);
	}
	assert_int_equal(far_accept(&s->far), -1);
	assert_in_range(asked_after_ms(s, "200 OK", RANK("0", "1") RANK("2", "1")), INTERVAL_MS * 8 / 10,
	    INTERVAL_MS * 12 / 10);
	assert_true(running(s, 1) == 6); /* nothing is said of it */
	assert_int_equal(s->scraper.counts[SCRAPE_GOOD], 2);
	scene_close(s);
}

static void an_engine_says_how_many_ranks_it_has(void **state) {
	struct scene *s = scene_open_ranks(RANKS_AUTO);

	assert_int_equal(s->snapshot->n_rows, 1);
	say_figures(s, RANK("0", "5"));
	assert_int_equal(s->snapshot->n_rows, 1);
	assert_true(running(s, 0) == 5);
	say_figures(s, RANK("0", "5") RANK("1", "6") RANK("2", "7"));
	assert_int_equal(s->snapshot->n_rows, 3);
	struct instance *kept = first(s);
	say_figures(s, RANK("0", "2") RANK("1", "3") RANK("2", "4"));
	assert_true(running(s, 2) == 4);
	say(s, "503 Busy", ""); /* it says nothing: that is no other number */
	say_figures(s, LOAD("1", "1"));
	assert_int_equal(s->snapshot->n_rows, 3);
	say_figures(s, RANK("0", "8") RANK("1", "9"));
	assert_int_equal(s->snapshot->n_rows, 2);
	assert_ptr_equal(first(s), kept);
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_said_is_learned),
		cmocka_unit_test(what_is_not_ours_is_others),
		cmocka_unit_test(it_is_asked_with_the_key_and_again_each_interval),
		cmocka_unit_test(the_rate_is_what_the_counter_grew_by),
		cmocka_unit_test(a_restart_shows),
		cmocka_unit_test(who_has_no_figures_is_asked_once_a_minute),
		cmocka_unit_test(a_failure_changes_nothing),
		cmocka_unit_test(figures_are_shown_for_three_intervals),
		cmocka_unit_test(metrics_without_end_are_given_up),
		cmocka_unit_test(questions_at_once_are_bounded),
		cmocka_unit_test(who_leaves_is_let_go_and_its_question_with_it),
		cmocka_unit_test(one_target_is_asked_once),
		cmocka_unit_test(off_is_off),
		cmocka_unit_test(when_we_cannot_ask_nothing_follows),
		cmocka_unit_test(ranks_learn_what_is_said_of_each),
		cmocka_unit_test(an_engine_says_how_many_ranks_it_has),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
