#include "unit/discovery/announcement.h"
#include "unit/discovery/far_engine.h"
#include "unit/discovery/kept_log.h"

#include "discovery/zmq_source.c" /* messages come from the test, not from a socket */

/* --- the scene ---------------------------------------------------------------------------- */

struct scene {
	struct rig rig;
	struct fleet *fleet;
	struct snapshot *snapshot; /* the last one */
	struct zmq_source source;
	unsigned n_changes;
};

static void on_change(struct zmq_source *source) {
	struct scene *s = container_of(source, struct scene, source);
	struct snapshot *next = fleet_build(s->fleet);

	s->n_changes++;
	if (!next)
		return;
	snapshot_unref(&s->snapshot);
	s->snapshot = next;
}

static struct scene *scene_open_of(const char *connector) {
	struct scene *s = calloc(1, sizeof(*s));

	log_bytes = 0;
	log_text[0] = '\0';
	far_clock_start();
	rig_open(&s->rig);
	s->fleet = fleet_new();
	s->snapshot = fleet_build(s->fleet);
	zmq_source_init(&s->source, &s->rig.loop, s->fleet, connector, on_change);
	return s;
}

static void scene_listen(struct scene *s) {
	uint16_t port;
	int fd = rig_listen(&port);

	rig_spin(&s->rig, 1); /* the loop knows the time */
	assert_int_equal(zmq_source_listen(&s->source, fd), 0);
}

static struct scene *scene_open(void) {
	struct scene *s = scene_open_of("p2p_nccl");

	scene_listen(s);
	return s;
}

static void scene_close(struct scene *s) {
	zmq_source_deinit(&s->source);
	rig_close(&s->rig);
	snapshot_unref(&s->snapshot);
	fleet_free(&s->fleet);
	clock_set_source(NULL);
	free(s);
}

static enum zmq_outcome say(struct scene *s, struct announcement *a) {
	enum zmq_outcome outcome = source_take(&s->source, announcement_end(a));

	rig_spin(&s->rig, 2);
	return outcome;
}

static enum zmq_outcome announce(struct scene *s, const char *type, unsigned port) {
	struct announcement a;

	announcement_begin(&a, type, port);
	return say(s, &a);
}

static enum zmq_outcome announce_mode(struct scene *s, const char *type, unsigned port, const char *mode) {
	struct announcement a;

	announcement_begin(&a, type, port);
	announcement_add(&a, "transfer_mode", mode);
	return say(s, &a);
}

/* "role=prefill ..." of the instance of that port; "": it is not there. */
static const char *labels_of(const struct scene *s, unsigned port) {
	static char text[512];
	size_t n = 0;

	text[0] = '\0';
	for (uint32_t r = 0; r < s->snapshot->n_rows; r++) {
		const struct snapshot_row *row = &s->snapshot->rows[r];

		if (row->instance->spec.port != port)
			continue;
		assert_int_equal(row->source, SOURCE_ZMQ);
		for (uint32_t i = 0; i < row->labels.n; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s=%s", i ? " " : "",
			    row->labels.items[i].key.p, row->labels.items[i].value.p);
	}
	return text;
}

/* --- the tests ------------------------------------------------------------------------------ */

static void an_engine_that_announces_itself_is_in_the_fleet(void **state) {
	struct scene *s = scene_open();

	assert_int_equal(announce(s, "P", 8000), ZMQ_GOOD);
	assert_int_equal(announce(s, "D", 8001), ZMQ_GOOD);
	assert_string_equal(
	    labels_of(s, 8000), "role=prefill zmq_address=127.0.0.1:18000 kv_connector=p2p_nccl");
	assert_string_equal(
	    labels_of(s, 8001), "role=decode zmq_address=127.0.0.1:18001 kv_connector=p2p_nccl");
	const struct instance_spec *spec = &s->snapshot->rows[0].instance->spec;
	assert_string_equal(spec->name.p, "http://127.0.0.1:8000");
	assert_string_equal(spec->url.p, "http://127.0.0.1:8000");
	assert_string_equal(spec->authority.p, "127.0.0.1:8000");
	assert_string_equal(spec->host.p, "127.0.0.1");
	assert_int_equal(s->source.n_prefill, 1);
	assert_int_equal(s->source.n_decode, 1);
	scene_close(s);
}

static void the_same_again_is_no_news(void **state) {
	struct scene *s = scene_open();

	announce(s, "P", 8000);
	struct instance *inst = s->snapshot->rows[0].instance;
	unsigned n = s->n_changes;
	assert_int_equal(announce(s, "P", 8000), ZMQ_GOOD);
	assert_int_equal(s->n_changes, n);
	/* Another role is, of the same instance. */
	assert_int_equal(announce(s, "D", 8000), ZMQ_GOOD);
	assert_int_equal(s->n_changes, n + 1);
	assert_ptr_equal(s->snapshot->rows[0].instance, inst);
	assert_non_null(strstr(labels_of(s, 8000), "role=decode"));
	assert_int_equal(s->source.n_prefill, 0);
	assert_int_equal(s->source.n_decode, 1);
	scene_close(s);
}

static void a_lease_ends_without_a_word(void **state) {
	struct scene *s = scene_open();

	announce(s, "P", 8000);
	announce(s, "D", 8001);
	for (unsigned i = 0; i < 4; i++) {
		far_pass(&s->rig, ZMQ_LEASE_MS - 1000);
		announce(s, "P", 8000);
	}
	assert_int_equal(s->snapshot->n_rows, 1);
	assert_string_equal(labels_of(s, 8001), "");
	assert_int_equal(said("do not announce themselves any more"), 1);
	assert_int_equal(s->source.n_decode, 0);
	far_pass(&s->rig, ZMQ_LEASE_MS - TICK_MS);
	assert_int_equal(s->snapshot->n_rows, 1);
	far_pass(&s->rig, 2 * TICK_MS);
	assert_int_equal(s->snapshot->n_rows, 0);
	/* It may come back. */
	assert_int_equal(announce(s, "P", 8000), ZMQ_GOOD);
	assert_int_equal(s->snapshot->n_rows, 1);
	scene_close(s);
}

static void a_standstill_of_ours_is_no_silence_of_theirs(void **state) {
	struct scene *s = scene_open();

	announce(s, "P", 8000);
	far_now_ns += 60000000000;
	rig_spin(&s->rig, 4);
	assert_int_equal(s->snapshot->n_rows, 1);
	far_pass(&s->rig, ZMQ_LEASE_MS + TICK_MS);
	assert_int_equal(s->snapshot->n_rows, 0);
	scene_close(s);
}

static void moriio_has_a_mode_and_sizes(void **state) {
	struct scene *s = scene_open();
	struct announcement a;

	assert_int_equal(announce_mode(s, "P", 8000, "READ"), ZMQ_GOOD);
	assert_string_equal(labels_of(s, 8000),
	    "role=prefill zmq_address=127.0.0.1:18000 kv_connector=moriio kv_mode=read tp_size=1 dp_size=1");
	announcement_begin(&a, "D", 8001);
	announcement_add(&a, "transfer_mode", "READ");
	announcement_number(&a, "tp_size", 8);
	announcement_number(&a, "dp_size", 2);
	assert_int_equal(say(s, &a), ZMQ_GOOD);
	assert_non_null(strstr(labels_of(s, 8001), "kv_mode=read tp_size=8 dp_size=2"));
	scene_close(s);
}

static void all_transfer_in_the_mode_of_the_first(void **state) {
	struct scene *s = scene_open();

	assert_int_equal(announce_mode(s, "P", 8000, "READ"), ZMQ_GOOD);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(announce_mode(s, "D", 8001, "WRITE"), ZMQ_REFUSED);
	assert_int_equal(said("transfer in mode read"), 1);
	assert_string_equal(labels_of(s, 8001), "");
	/* Those of another connector are not meant. */
	assert_int_equal(announce(s, "D", 8002), ZMQ_GOOD);
	/* Alone it may come back in another mode. */
	assert_int_equal(announce_mode(s, "P", 8000, "WRITE"), ZMQ_GOOD);
	assert_non_null(strstr(labels_of(s, 8000), "kv_mode=write"));
	assert_int_equal(announce_mode(s, "D", 8001, "WRITE"), ZMQ_GOOD);
	assert_int_equal(announce_mode(s, "P", 8000, "READ"), ZMQ_REFUSED);
	assert_non_null(strstr(labels_of(s, 8000), "kv_mode=write"));
	far_pass(&s->rig, ZMQ_LEASE_MS + 2 * TICK_MS);
	assert_int_equal(announce_mode(s, "D", 8001, "READ"), ZMQ_GOOD);
	assert_int_equal(announce_mode(s, "P", 8000, "WRITE"), ZMQ_REFUSED);
	assert_int_equal(said("transfer in mode read"), 2);
	scene_close(s);
}

static void the_routers_connector_is_said_of_who_says_none(void **state) {
	struct scene *s = scene_open_of("mooncake");

	assert_int_equal(announce(s, "P", 8000), ZMQ_GOOD);
	assert_non_null(strstr(labels_of(s, 8000), "kv_connector=mooncake"));
	assert_int_equal(announce_mode(s, "P", 8001, "WRITE"), ZMQ_GOOD);
	assert_non_null(strstr(labels_of(s, 8001), "kv_connector=moriio"));
	scene_close(s);
	s = scene_open_of("moriio");
	assert_int_equal(announce(s, "P", 8000), ZMQ_BAD);
	assert_int_equal(said("it has no transfer_mode"), 1);
	scene_close(s);
}

static void bad_messages_are_said_once_a_second(void **state) {
	struct scene *s = scene_open();

	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(source_take(&s->source, SLICE("junk")), ZMQ_BAD);
	assert_int_equal(said("is skipped"), 1);
	far_pass(&s->rig, SAID_MS);
	assert_int_equal(announce(s, "X", 8000), ZMQ_BAD);
	assert_int_equal(announce(s, "X", 8000), ZMQ_BAD);
	assert_int_equal(said("is skipped"), 2);
	assert_int_equal(s->snapshot->n_rows, 0);
	scene_close(s);
}

static void there_is_room_for_so_many(void **state) {
	struct scene *s = scene_open();

	for (unsigned i = 0; i < ZMQ_WORKERS_MAX; i++)
		assert_int_equal(announce(s, i % 2 ? "P" : "D", 1000 + i), ZMQ_GOOD);
	assert_int_equal(announce(s, "P", 999), ZMQ_REFUSED);
	assert_int_equal(said("too many have announced themselves"), 1);
	assert_int_equal(announce(s, "D", 1001), ZMQ_GOOD); /* who is known may say something else */
	assert_int_equal(s->snapshot->n_rows, ZMQ_WORKERS_MAX);
	far_pass(&s->rig, ZMQ_LEASE_MS + TICK_MS);
	assert_int_equal(s->snapshot->n_rows, 0);
	assert_int_equal(announce(s, "P", 999), ZMQ_GOOD);
	scene_close(s);
}

static void a_successor_begins_with_what_was_known(void **state) {
	struct scene *old = scene_open();

	announce(old, "P", 8000);
	announce_mode(old, "D", 8001, "WRITE");
	int fd = zmq_source_keep(&old->source);
	assert_true(fd >= 0);

	struct scene *new = scene_open_of("p2p_nccl");
	zmq_source_restore(&new->source, fd);
	rig_spin(&new->rig, 2);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_int_equal(new->snapshot->n_rows, 2);
	assert_non_null(strstr(labels_of(new, 8001), "kv_mode=write"));
	/* Nobody is late before we listen, nor once another one does. */
	far_pass(&new->rig, 10 * ZMQ_LEASE_MS);
	assert_int_equal(new->snapshot->n_rows, 2);
	scene_listen(new);
	far_pass(&new->rig, ZMQ_LEASE_MS - TICK_MS);
	assert_int_equal(new->snapshot->n_rows, 2);
	zmq_source_leave(&new->source);
	far_pass(&new->rig, 10 * ZMQ_LEASE_MS);
	assert_int_equal(new->snapshot->n_rows, 2);
	scene_close(new);
	scene_close(old);
}

static void what_is_kept_may_be_nothing_or_spoilt(void **state) {
	struct scene *s = scene_open_of("p2p_nccl");
	int fd = memfd_create("spoilt", MFD_CLOEXEC);

	zmq_source_restore(&s->source, zmq_source_keep(&s->source));
	assert_int_equal(write(fd, "\x81\xa4junk", 6), 6);
	zmq_source_restore(&s->source, fd);
	assert_null(s->source.workers);
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_engine_that_announces_itself_is_in_the_fleet),
		cmocka_unit_test(the_same_again_is_no_news),
		cmocka_unit_test(a_lease_ends_without_a_word),
		cmocka_unit_test(a_standstill_of_ours_is_no_silence_of_theirs),
		cmocka_unit_test(moriio_has_a_mode_and_sizes),
		cmocka_unit_test(all_transfer_in_the_mode_of_the_first),
		cmocka_unit_test(the_routers_connector_is_said_of_who_says_none),
		cmocka_unit_test(bad_messages_are_said_once_a_second),
		cmocka_unit_test(there_is_room_for_so_many),
		cmocka_unit_test(a_successor_begins_with_what_was_known),
		cmocka_unit_test(what_is_kept_may_be_nothing_or_spoilt),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
