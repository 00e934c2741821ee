/*
 * Operations of one name stand in a lane: the first is under way, the others wait. What is
 * under way goes to the queue, which the store's thread takes whole (up to GROUP_MAX): the
 * slower the disk, the larger the groups. Committed groups go to `acked`, and one mail
 * wakes the loop however many there are.
 *
 *     submit -> lane -> prepare -> queue | commit | acked -> mail -> done -> next of the lane
 *                       loop's thread    | store's thread   loop's thread
 */
#include "registry/store.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/clock.h"
#include "base/log.h"
#include "registry/store_backend.h"

#define GROUP_MAX     4096u
#define N_BUCKETS     4096u
#define TELL_PAUSE_NS 10000000000u /* between two complaints: a disk may be full every other commit */

struct store_lane {
	struct list link; /* of its bucket */
	struct list waiting;
	size_t n_name;
	char name[];
};

struct group {
	struct list link;
	struct list ops;
	enum store_outcome outcome;
};

struct store {
	struct store_backend *backend;
	struct loop *loop;
	pthread_t thread;
	bool is_started, is_closed;

	/* the loop's thread */
	struct list buckets[N_BUCKETS];
	uint32_t n_waiting; /* operations submitted and not over */
	size_t bytes_waiting;
	struct mail mail;

	pthread_mutex_t mutex; /* the rest */
	pthread_cond_t is_queued, is_acked;
	struct list queue;
	struct list acked;
	bool is_mail_posted, is_ending;
	struct store_counts counts;
	uint64_t told_ns; /* when a failure was logged */
	bool is_failure_told;
};

static void tell(enum log_level level, const char *event, const char *why) {
	struct log_event e;
	log_begin(&e, level, event);
	if (why[0])
		line_text(&e.line, SLICE("reason"), slice_of(why));
	log_end(&e);
}

static void begin_read_only(struct store *s, const char *state_dir) {
	s->counts.is_failing = s->is_failure_told = true;
	snprintf(s->counts.fault, sizeof(s->counts.fault), "the disk of %.256s is read-only", state_dir);
	tell(LOG_WARN, "store is read-only: writes are refused", s->counts.fault);
}

struct store *store_open(const char *state_dir, struct store_fault *fault_out) {
	struct store_backend *b = state_dir ? store_sqlite_open(state_dir, fault_out) : store_memory_open();
	if (!b)
		return NULL;
	struct store *s = calloc(1, sizeof(*s));
	s->backend = b;
	for (size_t i = 0; i < N_BUCKETS; i++)
		list_init(&s->buckets[i]);
	list_init(&s->queue);
	list_init(&s->acked);
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->is_queued, NULL);
	pthread_cond_init(&s->is_acked, NULL);
	if (b->is_read_only)
		begin_read_only(s, state_dir);
	return s;
}

bool store_load(struct store *s, store_each_fn each, void *context, struct store_fault *fault_out) {
	assert(!s->is_started);
	return s->backend->kind->load(s->backend, each, context, fault_out);
}

const char *store_epoch(const struct store *s) {
	return s->backend->epoch;
}

uint64_t store_version(const struct store *s) {
	return s->backend->version;
}

void store_free(struct store **sp) {
	struct store *s = *sp;
	*sp = NULL;
	if (!s)
		return;
	assert(!s->is_started || s->is_closed);
	if (s->backend)
		s->backend->kind->close(s->backend);
	pthread_cond_destroy(&s->is_acked);
	pthread_cond_destroy(&s->is_queued);
	pthread_mutex_destroy(&s->mutex);
	free(s);
}

/* --- the store's thread ------------------------------------------------------------------- */

/* The first operations of the queue; waits for one. False: the end. */
static bool take_group(struct store *s, struct group *g) {
	pthread_mutex_lock(&s->mutex);
	while (list_is_empty(&s->queue) && !s->is_ending)
		pthread_cond_wait(&s->is_queued, &s->mutex);
	for (unsigned n = 0; n < GROUP_MAX && !list_is_empty(&s->queue); n++) {
		struct list *first = s->queue.next;
		list_remove(first);
		list_push(&g->ops, first);
	}
	pthread_mutex_unlock(&s->mutex);
	return !list_is_empty(&g->ops);
}

/* With the mutex held. */
static void count_group(struct store *s, const struct group *g, const struct store_fault *fault) {
	bool was_failing = s->counts.is_failing;
	uint64_t n = 0;
	list_each (l, &g->ops)
		n++;
	s->counts.n_commits++;
	s->counts.is_failing = g->outcome != STORE_DONE;
	*(g->outcome == STORE_DONE ? &s->counts.n_done : &s->counts.n_failed) += n;
	snprintf(s->counts.fault, sizeof(s->counts.fault), "%s", fault->text);
	uint64_t now_ns = clock_now_ns();
	if (s->counts.is_failing && !was_failing && (!s->told_ns || now_ns - s->told_ns > TELL_PAUSE_NS)) {
		s->told_ns = now_ns;
		s->is_failure_told = true;
		tell(LOG_ERROR, "store fails: writes are refused", fault->text);
	} else if (s->is_failure_told && !s->counts.is_failing) {
		s->is_failure_told = false;
		tell(LOG_INFO, "store works again", "");
	}
}

static void deliver_mail(struct mail *m);

static void give_acked(struct store *s, struct group *g, const struct store_fault *fault) {
	pthread_mutex_lock(&s->mutex);
	count_group(s, g, fault);
	list_push(&s->acked, &g->link);
	bool must_post = !s->is_mail_posted;
	s->is_mail_posted = true;
	pthread_cond_signal(&s->is_acked);
	pthread_mutex_unlock(&s->mutex);
	if (must_post)
		loop_post(s->loop, &s->mail, deliver_mail);
}

static struct group *group_new(void) {
	struct group *g = calloc(1, sizeof(*g));
	list_init(&g->link);
	list_init(&g->ops);
	return g;
}

static void *store_main(void *arg) {
	struct store *s = arg;
	for (;;) {
		struct store_fault fault = { "" };
		struct group *g = group_new();
		if (!take_group(s, g)) {
			free(g);
			return NULL;
		}
		if (s->backend->kind->commit(s->backend, &g->ops, &fault) < 0)
			g->outcome = STORE_FAILED;
		give_acked(s, g, &fault);
	}
}

/* --- the loop's thread ------------------------------------------------------------------------ */

static struct list *bucket_of(struct store *s, struct slice name) {
	return &s->buckets[XXH3_64bits(name.n ? name.p : "", name.n) % N_BUCKETS];
}

static struct store_lane *lane_find(struct store *s, struct slice name) {
	struct list *bucket = bucket_of(s, name);
	list_each (l, bucket) {
		struct store_lane *lane = container_of(l, struct store_lane, link);
		if (slice_eq((struct slice){ lane->name, lane->n_name }, name))
			return lane;
	}
	return NULL;
}

static struct store_lane *lane_new(struct store *s, struct slice name) {
	struct store_lane *lane = malloc(sizeof(*lane) + name.n + 1);
	list_init(&lane->link);
	list_init(&lane->waiting);
	lane->n_name = name.n;
	memcpy(lane->name, name.n ? name.p : "", name.n);
	list_push(bucket_of(s, name), &lane->link);
	return lane;
}

static void hand_over(struct store *s, struct store_op *op) {
	s->bytes_waiting += op->n_json;
	if (s->backend->kind->is_instant) {
		struct group *g = group_new();
		list_push(&g->ops, &op->link);
		give_acked(s, g, &(struct store_fault){ "" });
		return;
	}
	pthread_mutex_lock(&s->mutex);
	list_push(&s->queue, &op->link);
	pthread_cond_signal(&s->is_queued);
	pthread_mutex_unlock(&s->mutex);
}

/* The next of the lane gets under way; an empty lane ends. None is under way now. */
static void lane_go_on(struct store *s, struct store_lane *lane) {
	struct list *first;
	while ((first = list_first(&lane->waiting))) {
		struct store_op *op = container_of(first, struct store_op, link);
		size_t n_held = op->n_held; /* what is refused is gone */
		list_remove(first);
		if (!op->prepare || op->prepare(op)) {
			hand_over(s, op);
			return;
		}
		s->n_waiting--;
		s->bytes_waiting -= n_held;
	}
	list_remove(&lane->link);
	free(lane);
}

bool store_submit(struct store *s, struct store_op *op) {
	assert(s->is_started && op->done);
	if (s->is_closed || s->n_waiting >= STORE_OPS_MAX || s->bytes_waiting >= STORE_BYTES_MAX)
		return false;
	struct store_lane *lane = lane_find(s, op->name);
	bool is_first = !lane;
	if (is_first)
		lane = lane_new(s, op->name);
	op->lane = lane;
	list_init(&op->link);
	list_push(&lane->waiting, &op->link);
	s->n_waiting++;
	s->bytes_waiting += op->n_held;
	if (is_first)
		lane_go_on(s, lane);
	return true;
}

static void op_end(struct store *s, struct store_op *op, enum store_outcome outcome) {
	struct store_lane *lane = op->lane;
	assert(s->n_waiting > 0 && s->bytes_waiting >= op->n_json + op->n_held);
	s->n_waiting--;
	s->bytes_waiting -= op->n_json + op->n_held;
	free(op->json);
	op->json = NULL;
	op->n_json = 0;
	op->done(op, outcome);
	lane_go_on(s, lane);
}

/* Ends the operations of all groups that are committed. */
static void deliver(struct store *s) {
	struct list groups = LIST_INIT(groups);
	pthread_mutex_lock(&s->mutex);
	list_splice(&groups, &s->acked);
	pthread_mutex_unlock(&s->mutex);
	while (!list_is_empty(&groups)) {
		struct group *g = container_of(groups.next, struct group, link);
		list_remove(&g->link);
		while (!list_is_empty(&g->ops)) {
			struct list *first = g->ops.next;
			list_remove(first);
			op_end(s, container_of(first, struct store_op, link), g->outcome);
		}
		free(g);
	}
}

static void deliver_mail(struct mail *m) {
	struct store *s = container_of(m, struct store, mail);
	pthread_mutex_lock(&s->mutex);
	s->is_mail_posted = false;
	pthread_mutex_unlock(&s->mutex);
	deliver(s);
}

void store_start(struct store *s, struct loop *loop) {
	assert(!s->is_started);
	s->loop = loop;
	s->is_started = true;
	if (s->backend->kind->is_instant)
		return;
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the control thread's */
	int r = pthread_create(&s->thread, NULL, store_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	assert(r == 0);
}

void store_close(struct store *s) {
	if (!s->is_started || s->is_closed)
		return;
	while (s->n_waiting > 0) {
		pthread_mutex_lock(&s->mutex);
		while (list_is_empty(&s->acked))
			pthread_cond_wait(&s->is_acked, &s->mutex);
		pthread_mutex_unlock(&s->mutex);
		deliver(s);
	}
	s->is_closed = true;
	if (!s->backend->kind->is_instant) {
		pthread_mutex_lock(&s->mutex);
		s->is_ending = true;
		pthread_cond_signal(&s->is_queued);
		pthread_mutex_unlock(&s->mutex);
		pthread_join(s->thread, NULL);
	}
	s->backend->kind->close(s->backend);
	s->backend = NULL;
}

void store_counts(struct store *s, struct store_counts *counts_out) {
	pthread_mutex_lock(&s->mutex);
	*counts_out = s->counts;
	pthread_mutex_unlock(&s->mutex);
	counts_out->n_waiting = s->n_waiting;
}
