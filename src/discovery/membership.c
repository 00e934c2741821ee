/*
 * A name is a member from when it is first put. member_set_state() is the only place
 * that changes where it stands, counts it, and lets the fleet know. Names that left are
 * remembered for a while, so that it shows when they come and go.
 */
#include "discovery/membership.h"

#define HASH_FUNCTION HASH_SAX /* the default one falls through its cases, which clang refuses */
#include <uthash.h>

#include "base/log.h"
#include "discovery/service.h"

#define RETRY_MS      1000u /* to join a full fleet */
#define HOLD_MIN_MS   1000u
#define HOLD_MAX_MS   300000u
#define REMEMBERED_MS 600000u
#define STEP_MAX      3 / 10 /* of the members, that may leave with one stroke */
#define GAP_MS        5000u  /* between two ticks: the process stood still */
#define SAID_MAX      256u   /* bad records that the log remembers */

enum member_state {
	MEMBER_IN,
	MEMBER_MISSING, /* still in the fleet */
	MEMBER_WAITING, /* the fleet is full */
	MEMBER_GONE,
};

#define MEMBER_STATES 4

struct member {
	UT_hash_handle hh;
	enum member_state state;
	struct service *service; /* NULL when gone */
	uint64_t since_ms;       /* of the state */
	uint64_t joined_ms;      /* the fleet, last */
	uint64_t held_ms;        /* out, when it came last; 0: it was not */
	uint64_t held_until_ms;
	uint64_t round; /* the last list that named it */
	uint32_t n_flaps;
	bool is_restored; /* from an earlier run, and not seen in this one */
	char name[];
};

struct membership {
	struct fleet *fleet;
	struct member *members;
	uint32_t n[MEMBER_STATES], n_held_back;
	uint64_t grace_ms, round, version, ticked_ms, n_bad;
	bool is_holding_back; /* said so */
	uint64_t said[SAID_MAX];
	size_t n_said;
	size_t bytes; /* of all services */
};

static bool is_in_fleet(enum member_state state) {
	return state == MEMBER_IN || state == MEMBER_MISSING;
}

struct membership *membership_new(struct fleet *fleet, uint64_t grace_ms) {
	struct membership *m = calloc(1, sizeof(*m));

	m->fleet = fleet;
	m->grace_ms = grace_ms;
	return m;
}

void membership_set_grace(struct membership *m, uint64_t grace_ms) {
	m->grace_ms = grace_ms;
}

static size_t bytes_of(const struct service *service) {
	return service ? service->bytes : 0;
}

/* In place of the one it has, if any; takes it, and NULL too. */
static void member_set_service(struct membership *m, struct member *member, struct service *service) {
	m->bytes += bytes_of(service) - bytes_of(member->service);
	service_free(&member->service);
	member->service = service;
}

static void member_free(struct membership *m, struct member *member) {
	m->n[member->state]--;
	HASH_DEL(m->members, member);
	member_set_service(m, member, NULL);
	free(member);
}

void membership_free(struct membership **mp) {
	struct membership *m = *mp;
	struct member *member, *next;

	*mp = NULL;
	if (!m)
		return;
	HASH_ITER(hh, m->members, member, next) {
		member_free(m, member);
	}
	free(m);
}

/* --- the log --------------------------------------------------------------------------------- */

static void member_log(
    const struct member *member, enum log_level level, const char *event, const char *why) {
	struct log_event e;

	log_begin(&e, level, event);
	line_text(&e.line, SLICE("instance"), slice_of(member->name));
	if (why)
		line_text(&e.line, SLICE("reason"), slice_of(why));
	log_end(&e);
}

/* Was this said before? FNV-1a of name and reason. */
static bool is_said(struct membership *m, struct slice name, const char *why) {
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < name.n; i++)
		hash = (hash ^ (unsigned char)name.p[i]) * UINT64_C(0x100000001b3);
	for (const char *p = why; *p; p++)
		hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
	for (size_t i = 0; i < size_min(m->n_said, SAID_MAX); i++)
		if (m->said[i] == hash)
			return true;
	m->said[m->n_said++ % SAID_MAX] = hash;
	return false;
}

static void report_bad(struct membership *m, struct slice name, const char *why) {
	struct log_event e;

	m->n_bad++;
	if (is_said(m, name, why))
		return;
	log_begin(&e, LOG_WARN, "a record of the registry is skipped");
	line_text(&e.line, SLICE("name"), name);
	line_text(&e.line, SLICE("reason"), slice_of(why));
	log_end(&e);
}

/* --- states ------------------------------------------------------------------------------------ */

static struct member *member_find(struct membership *m, struct slice name) {
	struct member *member;

	HASH_FIND(hh, m->members, name.p, name.n, member);
	return member;
}

/* The one that left first is forgotten. False: none has left. */
static bool forget_one(struct membership *m) {
	struct member *oldest = NULL;

	for (struct member *member = m->members; member; member = member->hh.next)
		if (member->state == MEMBER_GONE && (!oldest || member->since_ms < oldest->since_ms))
			oldest = member;
	if (oldest)
		member_free(m, oldest);
	return oldest;
}

/* NULL: too many names. */
static struct member *member_new(struct membership *m, struct slice name) {
	if (HASH_COUNT(m->members) >= MEMBERSHIP_NAMES_MAX && !forget_one(m))
		return NULL;
	struct member *member = calloc(1, sizeof(*member) + name.n + 1);

	memcpy(member->name, name.p, name.n);
	member->state = MEMBER_GONE;
	m->n[MEMBER_GONE]++;
	HASH_ADD(hh, m->members, name[0], (unsigned)name.n, member);
	return member;
}

static void member_set_state(
    struct membership *m, struct member *member, enum member_state state, uint64_t now_ms) {
	if (state == member->state)
		return;
	if (is_in_fleet(member->state) && !is_in_fleet(state))
		fleet_remove(m->fleet, SOURCE_REGISTRY, slice_of(member->name));
	if (is_in_fleet(member->state) != is_in_fleet(state))
		m->version++;
	m->n[member->state]--;
	m->n[state]++;
	member->state = state;
	member->since_ms = now_ms;
	if (state == MEMBER_GONE)
		member_set_service(m, member, NULL);
}

/* Its record goes to the fleet; what is wrong with it now is for the log, and an older one stays. 0, or the
 * fleet's outcome. */
static int member_upsert(struct membership *m, struct member *member, struct service *service) {
	service->spec.held_until_ms = member->held_until_ms;
	int r = fleet_upsert(m->fleet, SOURCE_REGISTRY, &service->spec);

	if (r == FLEET_E_LIMIT)
		report_bad(m, slice_of(member->name), "beyond a limit of the fleet table");
	else if (r && member->state != MEMBER_WAITING)
		report_bad(m, slice_of(member->name), "the fleet is full");
	return r;
}

/* When the fleet is full it waits until somebody has left. */
static void member_join(struct membership *m, struct member *member, uint64_t now_ms) {
	int r = member_upsert(m, member, member->service);

	if (r == FLEET_E_FULL) {
		member_set_state(m, member, MEMBER_WAITING, now_ms);
		member->since_ms = now_ms;
		return;
	}
	if (r) {
		member_set_state(m, member, MEMBER_GONE, now_ms);
		member_set_service(m, member, NULL); /* it may never have left that state */
		return;
	}
	member_set_state(m, member, MEMBER_IN, now_ms);
	member->joined_ms = now_ms;
	member_log(member, LOG_INFO, "instance joined", NULL);
}

static void member_leave(struct membership *m, struct member *member, const char *why, uint64_t now_ms) {
	uint64_t steady_ms = u64_max(MEMBERSHIP_STEADY_MS, 2 * member->held_ms);

	if (is_in_fleet(member->state)) {
		if (now_ms - member->joined_ms >= steady_ms)
			member->n_flaps = 0;
		member_log(member, LOG_INFO, "instance left", why);
	}
	member_set_state(m, member, MEMBER_GONE, now_ms);
}

/* It was not there: new, or back. Who comes back again and again is held out. */
static void member_arrive(
    struct membership *m, struct member *member, struct service *service, uint64_t now_ms) {
	bool is_back = member->joined_ms != 0 && now_ms - member->since_ms < MEMBERSHIP_STEADY_MS;

	assert(member->state == MEMBER_GONE && !member->service);
	member_set_service(m, member, service);
	member->n_flaps = is_back ? member->n_flaps + 1 : 0;
	member->held_ms = 0;
	if (member->n_flaps >= 2)
		member->held_ms =
		    u64_min((uint64_t)HOLD_MIN_MS << size_min(member->n_flaps - 2, 20), HOLD_MAX_MS);
	member->held_until_ms = now_ms + member->held_ms;
	member_join(m, member, now_ms);
}

/* --- what the registry says ------------------------------------------------------------------- */

/* The registry names it; living, it is not missing, whatever becomes of its record. */
static void member_see(struct membership *m, struct member *member, bool is_living, uint64_t now_ms) {
	member->round = m->round;
	member->is_restored = false;
	if (is_living && member->state == MEMBER_MISSING)
		member_set_state(m, member, MEMBER_IN, now_ms);
}

/* A living engine's record. Takes the service. */
static void member_take(
    struct membership *m, struct member *member, struct service *service, uint64_t now_ms) {
	bool is_news;

	if (member->state == MEMBER_GONE) {
		member_arrive(m, member, service, now_ms);
		return;
	}
	is_news = !json_equal(member->service->kept, service->kept);
	if (is_in_fleet(member->state)) {
		if (is_news && member_upsert(m, member, service) != 0) {
			service_free(&service);
			return;
		}
		m->version += is_news;
	}
	member_set_service(m, member, service);
}

static bool has_room_for(struct membership *m, const struct member *member, const struct service *service) {
	size_t others = m->bytes - bytes_of(member ? member->service : NULL);

	if (service->bytes <= MEMBERSHIP_BYTES_MAX - others)
		return true;
	report_bad(m, service->spec.instance.name, "all records together are too large");
	return false;
}

static void put_service(struct membership *m, struct service *service, uint64_t now_ms) {
	struct slice name = service->spec.instance.name;
	struct member *member = member_find(m, name);
	bool is_living = service->is_alive && !service->is_leaving;
	bool is_taken = is_living && has_room_for(m, member, service);

	if (!member && is_taken) {
		member = member_new(m, name);
		if (!member)
			report_bad(m, name, "too many names");
	}
	if (!member) {
		service_free(&service);
		return;
	}
	member_see(m, member, is_living, now_ms);
	if (is_taken) {
		member_take(m, member, service, now_ms);
		return;
	}
	if (is_living) { /* its older record stays */
		service_free(&service);
		return;
	}
	if (service->is_leaving || member->state == MEMBER_WAITING)
		member_leave(m, member, "its status is not running", now_ms);
	else if (member->state == MEMBER_IN)
		member_set_state(m, member, MEMBER_MISSING, now_ms);
	service_free(&service);
}

void membership_put(struct membership *m, const json_t *record, uint64_t now_ms) {
	struct service *service;
	const char *why;
	int r = service_parse(record, &service, &why);
	struct slice name = service_name(record);
	struct member *member = name.p ? member_find(m, name) : NULL;

	if (r == 0) {
		put_service(m, service, now_ms);
	} else if (r == SERVICE_E_OTHER) {
		if (member)
			member_leave(m, member, "not an engine any more", now_ms);
	} else {
		report_bad(m, name, why);
		if (member)
			member_see(m, member, service_is_living(record), now_ms);
	}
}

void membership_delete(struct membership *m, struct slice name, uint64_t now_ms) {
	struct member *member = member_find(m, name);

	if (member)
		member_leave(m, member, "deregistered", now_ms);
}

/* A list does not name it. */
static void member_vanish(struct membership *m, struct member *member, uint64_t now_ms) {
	if (member->state == MEMBER_WAITING) {
		member_leave(m, member, "not listed any more", now_ms);
	} else if (member->state == MEMBER_IN) {
		member_set_state(m, member, MEMBER_MISSING, now_ms);
		member_log(member, LOG_INFO, "the registry does not list an instance", NULL);
	}
}

void membership_expire(struct membership *m, struct slice name, uint64_t now_ms) {
	struct member *member = member_find(m, name);

	if (member)
		member_vanish(m, member, now_ms);
}

void membership_list(struct membership *m, const json_t *services, uint64_t now_ms) {
	struct member *member, *next;

	m->round++;
	for (size_t i = 0; i < json_array_size(services); i++)
		membership_put(m, json_array_get(services, i), now_ms);
	HASH_ITER(hh, m->members, member, next) {
		if (member->round != m->round)
			member_vanish(m, member, now_ms);
	}
}

void membership_restore(struct membership *m, const json_t *services, uint64_t now_ms) {
	for (size_t i = 0; i < json_array_size(services); i++)
		membership_put(m, json_array_get(services, i), now_ms);
	for (struct member *member = m->members; member; member = member->hh.next)
		member->is_restored = true;
}

/* --- time ----------------------------------------------------------------------------------------- */

static bool is_due(const struct membership *m, const struct member *member, uint64_t now_ms) {
	return member->state == MEMBER_MISSING &&
	    (member->is_restored || now_ms - member->since_ms >= m->grace_ms);
}

/* Nor is one out of two or three many. */
static bool is_too_much(const struct membership *m, uint32_t n_due) {
	return n_due > 1 && n_due > (m->n[MEMBER_IN] + m->n[MEMBER_MISSING]) * STEP_MAX;
}

static void say_holding(struct membership *m, uint32_t n_due) {
	struct log_event e;

	if (!m->is_holding_back) {
		log_begin(&e, LOG_ERROR, "many instances would leave at once: they are kept for now");
		line_uint(&e.line, SLICE("leaving"), n_due);
		line_uint(&e.line, SLICE("members"), m->n[MEMBER_IN] + m->n[MEMBER_MISSING]);
		log_end(&e);
	}
	m->is_holding_back = true;
}

static void drop_due(struct membership *m, uint64_t now_ms) {
	struct member *member, *next;
	uint32_t n_due = 0;

	for (member = m->members; member; member = member->hh.next)
		n_due += is_due(m, member, now_ms);
	bool is_held = is_too_much(m, n_due);

	m->n_held_back = 0;
	HASH_ITER(hh, m->members, member, next) {
		if (!is_due(m, member, now_ms))
			continue;
		if (!is_held || now_ms - member->since_ms >= m->grace_ms + MEMBERSHIP_HOLD_MS)
			member_leave(m, member, "not listed any more", now_ms);
		else
			m->n_held_back++;
	}
	if (m->n_held_back)
		say_holding(m, n_due);
	else
		m->is_holding_back = false;
}

void membership_tick(struct membership *m, bool is_heard, uint64_t now_ms) {
	uint64_t passed_ms = m->ticked_ms ? now_ms - m->ticked_ms : 0;
	bool counts = is_heard && passed_ms < GAP_MS;
	struct member *member, *next;

	m->ticked_ms = now_ms;
	HASH_ITER(hh, m->members, member, next) {
		if (!counts && member->state == MEMBER_MISSING)
			member->since_ms = u64_min(member->since_ms + passed_ms, now_ms);
		else if (member->state == MEMBER_WAITING && now_ms - member->since_ms >= RETRY_MS)
			member_join(m, member, now_ms);
		else if (member->state == MEMBER_GONE && now_ms - member->since_ms >= REMEMBERED_MS)
			member_free(m, member);
	}
	if (!is_heard)
		return;
	drop_due(m, now_ms);
	fleet_forget(m->fleet, m->grace_ms, now_ms);
}

json_t *membership_services(const struct membership *m) {
	json_t *services = json_array();

	for (const struct member *member = m->members; member; member = member->hh.next)
		if (is_in_fleet(member->state))
			json_array_append(services, member->service->kept);
	return services;
}

uint64_t membership_version(const struct membership *m) {
	return m->version;
}

void membership_counts(const struct membership *m, struct membership_counts *counts_out) {
	*counts_out = (struct membership_counts){
		.n_members = m->n[MEMBER_IN] + m->n[MEMBER_MISSING],
		.n_missing = m->n[MEMBER_MISSING],
		.n_waiting = m->n[MEMBER_WAITING],
		.n_held_back = m->n_held_back,
		.n_bad = m->n_bad,
	};
}
