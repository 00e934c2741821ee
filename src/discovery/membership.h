/*
 * membership: who of a registry's engines is in the fleet, and since when who is not.
 *
 * Pure: what the registry said comes as JSON, with the time; the fleet is brought up to
 * date at once. A list that does not name an engine is a weaker word than a deletion:
 *
 *   its status is "draining"                         it stays and gets no new work
 *   deleted, or its status is any other but "running" it leaves at once
 *   not listed, its lease is over, or it expired     it leaves when the grace has passed
 *   the registry does not answer                     nobody leaves, and no grace passes
 *   more than 30 % would leave with one stroke       they stay for another 5 min
 *   it left and came back, again and again           it is held out, 1 s doubling to 5 min: the
 *                                                    last resort, as are the unhealthy
 *   the fleet is full                                it waits, and tries each second
 *
 * What an engine had keeps running in all cases. A bad record, or one too many, leaves
 * the older one and is counted and, once, logged; who lives by it is not missing.
 */
#pragma once

#include <jansson.h>

#include "fleet/fleet.h"

#define MEMBERSHIP_HOLD_MS   300000u
#define MEMBERSHIP_STEADY_MS 60000u /* so long a member, and earlier comings and goings are forgotten */
#define MEMBERSHIP_NAMES_MAX (2 * INSTANCE_SLOTS_MAX)
#define MEMBERSHIP_BYTES_MAX (64u << 20) /* of all records, as compact JSON */

struct membership_counts {
	uint32_t n_members, n_missing, n_waiting, n_held_back;
	uint64_t n_bad; /* records, ever */
};

struct membership;

/* The fleet is borrowed. What nobody serves any more stays a known model for the grace, too. */
must_use struct membership *membership_new(struct fleet *fleet, uint64_t grace_ms);

/* Another grace, for those who are missing already, too. */
void membership_set_grace(struct membership *m, uint64_t grace_ms);
/* Leaves the fleet as it is. */
void membership_free(struct membership **m);

/* A record of a watch, or of a list. */
void membership_put(struct membership *m, const json_t *record, uint64_t now_ms);
void membership_delete(struct membership *m, struct slice name, uint64_t now_ms);
/* The registry has swept it out, for its silence: nobody has asked for that. */
void membership_expire(struct membership *m, struct slice name, uint64_t now_ms);

/* All records there are: polled, or the reset of a watch, which may have swept or forgotten the others. */
void membership_list(struct membership *m, const json_t *services, uint64_t now_ms);

/* The records of an earlier run: members until the registry says otherwise, and then without a grace. */
void membership_restore(struct membership *m, const json_t *services, uint64_t now_ms);

/* Lets time pass. is_heard: the registry answers. */
void membership_tick(struct membership *m, bool is_heard, uint64_t now_ms);

/* The records of all members, for a later membership_restore(). A new reference. */
must_use json_t *membership_services(const struct membership *m);

/* Grows with every change that membership_services() would show. */
uint64_t membership_version(const struct membership *m);

void membership_counts(const struct membership *m, struct membership_counts *counts_out);
