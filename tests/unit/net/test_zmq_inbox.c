#include "unit/net/rig.h"

#include <zmq.h>

#include "net/zmq_inbox.h"

enum { PART_MAX = 100, TEXT_MAX = 4096 };

/* An inbox that remembers what it was given, and the peers' side of libzmq. */
struct scene {
	struct rig rig;
	struct zmq_inbox inbox;
	uint16_t port;
	void *peers;
	char text[TEXT_MAX]; /* of messages, a bar behind each */
	unsigned n;
	bool closes; /* with the next message */
};

static void on_message(struct zmq_inbox *b, struct slice message) {
	struct scene *s = container_of(b, struct scene, inbox);
	size_t n = strlen(s->text);

	s->n++;
	if (n + message.n + 2 < sizeof(s->text))
		snprintf(s->text + n, sizeof(s->text) - n, "%.*s|", (int)message.n, message.p);
	if (s->closes)
		zmq_inbox_close(b);
}

static struct scene *scene_open(void) {
	struct scene *s = calloc(1, sizeof(*s));

	rig_open(&s->rig);
	s->peers = zmq_ctx_new();
	s->inbox.on_message = on_message;
	int fd = rig_listen(&s->port);
	assert_int_equal(zmq_inbox_open(&s->inbox, &s->rig.loop, fd, PART_MAX), 0);
	return s;
}

static void scene_close(struct scene *s) {
	zmq_inbox_close(&s->inbox);
	zmq_inbox_close(&s->inbox);
	zmq_ctx_term(s->peers);
	rig_close(&s->rig);
	free(s);
}

static void *peer_open(struct scene *s, int type, const char *name) {
	void *peer = zmq_socket(s->peers, type);
	char endpoint[32];
	int none = 0;

	snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%u", s->port);
	assert_int_equal(zmq_setsockopt(peer, ZMQ_LINGER, &none, sizeof(none)), 0);
	assert_int_equal(zmq_setsockopt(peer, ZMQ_ROUTING_ID, name, strlen(name)), 0);
	assert_int_equal(zmq_connect(peer, endpoint), 0);
	return peer;
}

static void say(void *peer, const char *text, int flags) {
	assert_int_equal(zmq_send(peer, text, strlen(text), flags), strlen(text));
}

#define assert_heard(s, what)                                                                                \
	do {                                                                                                 \
		rig_until(&(s)->rig, strlen((s)->text) >= strlen(what));                                     \
		assert_string_equal((s)->text, what);                                                        \
	} while (0)

static void messages_come_without_their_envelope(void **state) {
	struct scene *s = scene_open();
	void *dealer = peer_open(s, ZMQ_DEALER, "one"), *req = peer_open(s, ZMQ_REQ, "two");

	say(dealer, "hello", 0);
	assert_heard(s, "hello|");
	say(req, "again", 0); /* behind an empty part */
	assert_heard(s, "hello|again|");
	say(dealer, "third", 0);
	assert_heard(s, "hello|again|third|");
	zmq_close(dealer);
	zmq_close(req);
	scene_close(s);
}

static void other_forms_are_empty_messages(void **state) {
	struct scene *s = scene_open();
	void *peer = peer_open(s, ZMQ_DEALER, "one");

	say(peer, "a", ZMQ_SNDMORE);
	say(peer, "b", 0);
	assert_heard(s, "|");
	for (unsigned i = 0; i < 20; i++)
		say(peer, i % 2 ? "a" : "", ZMQ_SNDMORE);
	say(peer, "b", 0);
	assert_heard(s, "||");
	say(peer, "", 0);
	say(peer, "good", 0);
	assert_heard(s, "|||good|");
	zmq_close(peer);
	scene_close(s);
}

/* Who sends too much loses the connection and comes again; others do not notice. */
static void long_parts_never_come(void **state) {
	struct scene *s = scene_open();
	void *peer = peer_open(s, ZMQ_DEALER, "one"), *other = peer_open(s, ZMQ_DEALER, "two");
	char text[PART_MAX + 2];

	memset(text, 'x', sizeof(text));
	text[PART_MAX] = '\0';
	say(peer, text, 0);
	rig_until(&s->rig, s->n == 1);
	assert_int_equal(strlen(s->text), PART_MAX + 1);
	text[PART_MAX] = 'x';
	text[PART_MAX + 1] = '\0';
	say(peer, text, 0);
	say(other, "well", 0);
	rig_until(&s->rig, s->n == 2);
	assert_string_equal(s->text + PART_MAX + 1, "well|");
	while (s->n == 2) { /* what is said before its connection is there again is lost */
		zmq_send(peer, "back", 4, ZMQ_DONTWAIT);
		rig_turn(&s->rig, "a peer that comes again");
	}
	assert_memory_equal(s->text + PART_MAX + 6, "back|", 5);
	zmq_close(peer);
	zmq_close(other);
	scene_close(s);
}

static void a_flood_is_taken_in_turns(void **state) {
	struct scene *s = scene_open();
	void *peer = peer_open(s, ZMQ_DEALER, "one");
	unsigned n_sent = 0, worst = 0;

	s->rig.since_ns = 0;
	while (s->n < 1000) {
		unsigned before = s->n;

		while (n_sent < 1000 && zmq_send(peer, "x", 1, ZMQ_DONTWAIT) == 1)
			n_sent++;
		rig_turn(&s->rig, "all of a flood");
		worst = s->n - before > worst ? s->n - before : worst;
	}
	assert_in_range(worst, 1, 128); /* two rounds of a turn at the most */
	zmq_close(peer);
	scene_close(s);
}

static void a_peer_takes_over_its_own_name(void **state) {
	struct scene *s = scene_open();
	void *old = peer_open(s, ZMQ_DEALER, "one");

	say(old, "old", 0);
	assert_heard(s, "old|");
	void *new = peer_open(s, ZMQ_DEALER, "one");
	say(new, "new", 0);
	assert_heard(s, "old|new|");
	zmq_close(old);
	zmq_close(new);
	scene_close(s);
}

static void it_may_be_closed_by_its_owner(void **state) {
	struct scene *s = scene_open();
	void *peer = peer_open(s, ZMQ_DEALER, "one");

	s->closes = true;
	say(peer, "one", 0);
	say(peer, "two", 0);
	rig_until(&s->rig, s->n == 1);
	rig_spin(&s->rig, 10);
	assert_int_equal(s->n, 1);
	zmq_close(peer);
	scene_close(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_come_without_their_envelope),
		cmocka_unit_test(other_forms_are_empty_messages),
		cmocka_unit_test(long_parts_never_come),
		cmocka_unit_test(a_flood_is_taken_in_turns),
		cmocka_unit_test(a_peer_takes_over_its_own_name),
		cmocka_unit_test(it_may_be_closed_by_its_owner),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
