/*
 * fuzz_watch: a registry says anything in its watch; the fleet is the same however its words are cut, and
 * what is kept of it can be read again. The first byte says how they are cut.
 */
#include "discovery/registry_source.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct loop loop;

static void on_change(struct registry_source *s) {}

static void open_source(struct registry_source *s, struct fleet *fleet) {
	static const struct registry_options options = { .url = "http://127.0.0.1:1",
		.token = "",
		.file = "",
		.sync_interval_ms = 1000,
		.grace_ms = 1000 };
	bool is_open = registry_source_init(s, &loop, fleet, &options, on_change);
	assert(is_open);
}

/* What the members are after it; a new reference. */
static json_t *members_after(struct slice text, size_t step) {
	struct fleet *fleet = fleet_new();
	struct registry_source s;
	bool good = true;

	open_source(&s, fleet);
	for (size_t at = 0; good && at < text.n; at += step)
		good =
		    event_reader_feed(&s.events, slice_head(slice_skip(text, at), step), source_on_event, &s);
	membership_tick(s.membership, true, 5000);
	json_t *members = membership_services(s.membership);
	registry_source_deinit(&s);
	struct snapshot *snapshot = fleet_build(fleet);
	snapshot_unref(&snapshot);
	fleet_free(&fleet);
	return members;
}

static void restore(const json_t *members) {
	struct fleet *fleet = fleet_new();
	struct membership *m = membership_new(fleet, 1000);

	membership_restore(m, members, 1);
	json_t *again = membership_services(m);
	assert(json_equal(again, members));
	json_decref(again);
	membership_free(&m);
	fleet_free(&fleet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	if (n < 2)
		return 0;
	if (!loop.read_buf) {
		static struct buf_budget budget = { .max_bytes = 1u << 20 };
		int r = loop_init(&loop, &budget);
		assert(r == 0);
		log_set_level(LOG_ERROR);
	}
	struct slice text = { (const char *)data + 1, n - 1 };
	json_t *whole = members_after(text, text.n), *cut = members_after(text, data[0] + 1u);
	assert(json_equal(whole, cut));
	restore(whole);
	json_decref(whole);
	json_decref(cut);
	return 0;
}
