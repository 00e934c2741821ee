/*
 * fleet: the table of all records, and the maker of snapshots. Control thread only.
 *
 * Sources deliver records: replace, upsert, remove. A record is known by its source
 * and name and owns one instance for life; when its url, authority or rank changes it
 * becomes a new record with a new instance, of which nothing is known yet. What
 * discovery and probes learn is set by instance; when the instance has left the fleet
 * in the meantime, such a call does nothing.
 *
 * Records whose scheme, resolved addresses, port and rank are equal are one target:
 * the oldest routes for all of them (fleet/snapshot.h). Its row offers the models of
 * all, and if any of them is drained, disabled, or unhealthy since it refuses or its
 * babysitter denies it, so is the row.
 *
 * An engine with data-parallel ranks is several records, one for each (fleet/rank.h): NAME@K with the url
 * URL@K, as its source, its label dp_size, the fleet's default or its own word has it. To its source they are
 * one, known by the name without "@K". Addresses, models and states that are known of one rank go for new
 * ones, and models and addresses always for all; those of an engine of the configuration go for the record of
 * it that is registered at run time.
 *
 * What the operator wishes of a name is remembered here and goes before what sources say: it holds for all
 * records of that name, also for those that come later, until it is wished otherwise. Snapshots have it from
 * the next build on, whatever health still says.
 *
 * What sources and engines deliver is theirs: too much of it is a positive outcome,
 * never an assertion. All texts are copied.
 */
#pragma once

#include "fleet/rank.h"
#include "fleet/snapshot.h"

#define FLEET_TEXT_BYTES_MAX   1024 /* each of name, url, authority, host */
#define FLEET_WEIGHT_MAX       (1000000u * INSTANCE_WEIGHT_ONE)
#define FLEET_LABELS_MAX       64
#define FLEET_LABELS_BYTES_MAX 16384 /* all keys and values of one record */
#define FLEET_METADATA_MAX     65536 /* more of it is left out */
#define FLEET_MODELS_MAX       1024
#define FLEET_MODEL_BYTES_MAX  256                      /* one id */
#define FLEET_MODELS_BYTES_MAX (1u << 20)               /* ids and objects of one record */
#define FLEET_KV_ENGINE_BYTES  256                      /* what a KV connector calls an engine */
#define FLEET_LOST_MAX         4096                     /* models; more of them are forgotten at once */
#define FLEET_WISHES_MAX       (INSTANCE_SLOTS_MAX + 1) /* one more than can be of somebody in the fleet */

enum fleet_outcome {
	FLEET_E_FULL = 1, /* INSTANCE_SLOTS_MAX instances are alive */
	FLEET_E_LIMIT,    /* beyond one of the limits here, an empty text, or one with control bytes */
	FLEET_E_ABSENT,
};

struct fleet_spec {
	struct instance_spec instance;
	uint32_t weight; /* 0 to FLEET_WEIGHT_MAX, in thousandths; 0: only while nobody else serves */
	struct pairs
	    models; /* declared ids, with objects where the source has them; none: the engine is asked */
	struct pairs labels;
	struct slice metadata;  /* a JSON object, to be shown and no more; may be empty */
	uint64_t held_until_ms; /* a new instance is not believed before (fleet/health_state.h); 0: at once */
	/* Without a rank of its own: RANKS_AUTO, 1 to RANKS_MAX, or 0: as rank_count_of() has it by the
	 * labels and the fleet's defaults. 1 is an engine that knows of no ranks. */
	uint16_t n_ranks;
	bool is_draining; /* gets no new work, as its source wants it */
};

/* The operator's. */
struct fleet_wish {
	enum instance_state state; /* INSTANCE_DRAINING or INSTANCE_DISABLED; INSTANCE_UNKNOWN: neither */
	bool has_weight;
	uint32_t weight; /* in place of the source's, which 0 to FLEET_WEIGHT_MAX goes for, too */
};

struct fleet;

must_use struct fleet *fleet_new(void);
void fleet_free(struct fleet **fleet);

/* From now on; records that go by them become more, or fewer, as far as there is room. */
void fleet_set_rank_defaults(struct fleet *fleet, const struct rank_defaults *defaults);

/* Whether these records, of different names, could all be taken at once, with those that they replace still
 * there: 0, or FLEET_E_FULL or FLEET_E_LIMIT and who is refused. Changes nothing. */
must_use int fleet_check(const struct fleet *fleet, enum fleet_source source, const struct fleet_spec *specs,
    size_t n, struct slice *name_out);

/*
 * The whole of what a source knows: records it does not name are removed. Returns 0,
 * or the outcome of the last record that was refused; the others are taken, and a
 * refused one that is in the fleet stays as it is. A name given twice: the last wins.
 */
must_use int fleet_replace(
    struct fleet *fleet, enum fleet_source source, const struct fleet_spec *specs, size_t n);

/* 0, FLEET_E_FULL or FLEET_E_LIMIT; a refused record changes nothing. */
must_use int fleet_upsert(struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec);

/*
 * As fleet_upsert(), but the record of another target that had the name until now is not gone: it goes on in
 * SOURCE_LEAVING, until that is replaced by nothing. When one is there under the name already, the newer of
 * the two that has addresses and models stays.
 */
must_use int fleet_take_over(struct fleet *fleet, enum fleet_source source, const struct fleet_spec *spec);

/* Whether there are records of that source, or leaving, that fleet_replace() by these, which it has, would
 * remove. */
bool fleet_has_others(
    const struct fleet *fleet, enum fleet_source source, const struct fleet_spec *specs, size_t n);

/* With all of its ranks: 0 or FLEET_E_ABSENT. */
int fleet_remove(struct fleet *fleet, enum fleet_source source, struct slice name);

/*
 * Models of records that are gone stay known, with nobody who serves them, until this is called kept_ms
 * after it was called first since: an engine that restarts is missing, its model is not.
 */
void fleet_forget(struct fleet *fleet, uint64_t kept_ms, uint64_t now_ms);

/*
 * What the engine says it serves, id -> JSON object. Ids that are empty, too long,
 * too many or have control bytes are left out, and the outcome is FLEET_E_LIMIT. Declared models stay. New
 * objects for the ids that are known show in the next snapshot, but do not cause one.
 */
must_use int fleet_set_models(struct fleet *fleet, const struct instance *inst, struct pairs models);

/*
 * So many ranks its engine has, by its own word; 1: it knows of none. Where that is asked for (RANKS_AUTO)
 * new ones come and others go, those that stay are the same. 0 or FLEET_E_FULL, and all is as before.
 */
must_use int fleet_set_ranks(struct fleet *fleet, const struct instance *inst, uint32_t n);

/* Resolved, AF_INET or AF_INET6 with the port set; 0 of them is "not known". More than
 * INSTANCE_ADDRESSES_MAX are left out. */
void fleet_set_addresses(
    struct fleet *fleet, const struct instance *inst, const struct sockaddr_storage *addresses, size_t n);

/* Asserts instance_state_may_follow(). */
void fleet_set_state(struct fleet *fleet, const struct instance *inst, enum instance_state state);

/* What part of its weight counts, 1 to INSTANCE_SHARE_FULL; and whether it takes no connections, so that even
 * a panic leaves it out. */
void fleet_set_share(struct fleet *fleet, const struct instance *inst, unsigned share, bool is_refusing);

/* Whether its babysitter says that it does not serve. Others may have the same target and no babysitter. */
void fleet_set_denied(struct fleet *fleet, const struct instance *inst, bool is_denied);

/*
 * What its KV connector calls it: other engines are told, to find what it has computed. Empty: not known.
 * One after another counts as a restart of it (learned.n_restarts). 0, or FLEET_E_LIMIT for more than
 * FLEET_KV_ENGINE_BYTES or control bytes, which change nothing.
 */
must_use int fleet_set_kv_engine(struct fleet *fleet, const struct instance *inst, struct slice engine_id);

/* The state as set; a snapshot's row shows it from the next build on. False when it has left. */
bool fleet_state(const struct fleet *fleet, const struct instance *inst, enum instance_state *state_out);

/*
 * What the operator wishes of the records of this name, in the fleet or not; with nothing in it, nothing any
 * more. When FLEET_WISHES_MAX names have one already, the oldest that is of nobody in the fleet is forgotten.
 */
void fleet_set_wish(struct fleet *fleet, struct slice name, const struct fleet_wish *wish);

/* With nothing in it when there is none. */
struct fleet_wish fleet_wish(const struct fleet *fleet, struct slice name);

/* All names with a wish, in no order. */
void fleet_each_wish(const struct fleet *fleet,
    void (*see)(void *context, struct slice name, const struct fleet_wish *wish), void *context);

/* DRAINING or DISABLED as the operator or the record's source wants it; UNKNOWN: neither, or it has left. */
enum instance_state fleet_will(const struct fleet *fleet, const struct instance *inst);

/* The fleet as it is now, the reference the caller's; NULL when nothing changed since
 * the last one. The first call always builds. */
must_use struct snapshot *fleet_build(struct fleet *fleet);
