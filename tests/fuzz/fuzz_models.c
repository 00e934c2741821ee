/*
 * fuzz_models: an engine says anything in its list of models, a babysitter in its /health. What is taken of
 * a list is within the fleet's limits and is what the list says; given again it is no news. What is not a
 * list changes nothing.
 */
#include "discovery/checkup.c"
#include "discovery/watch.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct loop loop;

static void on_change(struct watcher *w) {}

static struct fleet *fleet_of_one(void) {
	static const struct fleet_spec spec = { .instance = { .name = SLICE("one"),
						    .url = SLICE("http://engine:8000"),
						    .authority = SLICE("engine:8000"),
						    .host = SLICE("engine"),
						    .port = 8000 },
		.weight = INSTANCE_WEIGHT_ONE };
	struct fleet *fleet = fleet_new();
	int outcome = fleet_upsert(fleet, SOURCE_REGISTRY, &spec);

	assert(!outcome);
	return fleet;
}

/* One pair is one object of the list. */
static void check_model(const struct snapshot *snapshot, const struct pair *model) {
	json_t *object = json_loadb(model->value.p, model->value.n, 0, NULL);
	const char *id = json_string_value(json_object_get(object, "id"));

	assert(id && slice_eq(slice_of(id), model->key));
	assert(model->key.n && model->key.n <= FLEET_MODEL_BYTES_MAX);
	for (size_t i = 0; i < model->key.n; i++)
		assert((unsigned char)model->key.p[i] >= 0x20 && model->key.p[i] != 0x7f);
	assert(snapshot_model(snapshot, model->key));
	json_decref(object);
}

static void check_models(const struct snapshot *snapshot) {
	const struct pairs *models = &snapshot->rows[0].models;
	size_t n_bytes = 0;

	assert(models->n <= FLEET_MODELS_MAX);
	for (uint32_t i = 0; i < models->n; i++) {
		n_bytes += models->items[i].key.n + models->items[i].value.n;
		check_model(snapshot, &models->items[i]);
	}
	assert(n_bytes <= FLEET_MODELS_BYTES_MAX);
}

static void list_models(struct slice body) {
	static const struct watch_intervals every = {
		.models_ms = 1000, .models_timeout_ms = 1000, .resolve_ms = 1000
	};
	static struct watcher watcher;
	struct fleet *fleet = fleet_of_one();
	struct snapshot *first = fleet_build(fleet);

	watcher_init(&watcher, &loop, fleet, &every, on_change);
	watcher_sync(&watcher, first);
	struct watch *watch = watcher.by_slot[first->rows[0].instance->slot];
	bool is_list = watch_learn_models(watch, body), is_cut = watch->is_cut;
	struct snapshot *then = fleet_build(fleet);

	assert(is_list == (then != NULL) && is_list == watch->has_answered);
	if (then)
		check_models(then);
	bool is_list_again = watch_learn_models(watch, body);
	struct snapshot *again = fleet_build(fleet);
	assert(is_list_again == is_list && watch->is_cut == is_cut && !again);
	watcher_deinit(&watcher);
	snapshot_unref(&then);
	snapshot_unref(&first);
	fleet_free(&fleet);
}

/* Whether it is a babysitter at all is for its body to say, how it is for the status first. */
static void say_health(struct slice body) {
	bool is_sitter = judge_sitter(200, body) != CHECKUP_NOTHING;

	for (unsigned status = 100; status < 600; status += 100) {
		enum checkup_outcome outcome = judge_sitter(status, body);

		assert(outcome == judge_sitter(status, body));
		assert((outcome != CHECKUP_NOTHING) == is_sitter);
		assert((outcome == CHECKUP_GOOD) == (is_sitter && status == 200));
		assert(outcome == CHECKUP_NOTHING || outcome == CHECKUP_GOOD || outcome == CHECKUP_BAD ||
		    outcome == CHECKUP_DRAINS);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	if (!loop.read_buf) {
		static struct buf_budget budget = { .max_bytes = 1u << 20 };
		int r = loop_init(&loop, &budget);

		assert(r == 0);
		log_set_level(LOG_ERROR);
	}
	struct slice body = { (const char *)data, n };

	list_models(body);
	say_health(body);
	return 0;
}
