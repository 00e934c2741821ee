/*
 * tenant: who may ask the router for what: the table of tenants and of their keys.
 *
 * Made once of the configuration, then immutable and shared by all threads. Tenant 0, `anonymous`, is
 * everybody while there are no keys, and nobody once there is one; without keys there is no table at all
 * (NULL), and every function here takes that.
 *
 * Of a key its SHA-256 alone is kept. One is looked up by the first bytes of its digest and compared in
 * constant time with those that begin alike: how long that takes tells something of digests, which say
 * nothing of the keys that they are of, since keys are random and long.
 *
 * Tables come and go with configurations: a tenant has the same number in all that there are at a time
 * (router/tenant_number.h), so that numbers may be missing in a table.
 */
#pragma once

#include "base/cause.h"
#include "base/digest.h"
#include "base/option.h"
#include "fleet/privacy.h"
#include "http/head.h"
#include "router/tenant_number.h"

#define TENANTS_MAX         1000u /* with the anonymous one */
#define TENANT_KEYS_MAX     65536u
#define TENANT_NAME_MAX     64u
#define TENANT_KEY_MAX      512u /* bytes: longer ones are nobody's */
#define TENANT_PRIORITY_MAX 7u   /* the last of FAIR_CLASSES */
#define TENANT_ANONYMOUS    0u

/* As [[tenant]] has it, but for the salt and the label, which follow from the name. */
struct tenant {
	const char *name;
	struct option_list keys;   /* "sha256:" and 64 hexadecimal digits each */
	struct option_list models; /* ids, or what they begin with and a *; none: all */
	struct option_map labels;
	uint64_t requests_per_minute, tokens_per_minute; /* of each model; 0: no limit */
	uint64_t salt;                                   /* of its prompts, sessions and stored responses */
	uint32_t label;                                  /* of its name (fleet/label.h) */
	uint32_t max_requests;                           /* in flight; 0: no limit */
	uint32_t weight;                                 /* of its share, 1 or more */
	uint8_t priority;                                /* the best class that it may ask for: 0 is best */
	enum privacy privacy_floor;                      /* of all its requests */
};

struct tenant_table;

/* On the control thread. The tenants, of different names, are copied; their texts must outlive the table.
 * NULL: there are no numbers left for them. */
must_use struct tenant_table *tenant_table_new(const struct tenant *tenants, uint32_t n);
/* On any thread. */
void tenant_table_free(struct tenant_table **table); /* accepts NULL, clears */

/* Its tenants get the labels that they are counted by. Those are for good: of a table that is put in force,
 * on the control thread. NULL: there are none. */
void tenant_table_label(struct tenant_table *table);

enum tenant_outcome {
	TENANT_E_OTHERS = 1, /* it is the key of another tenant */
	TENANT_E_FULL,       /* there are TENANT_KEYS_MAX */
};

/* The key is the tenant's from now on. Again does nothing. 0 or an outcome. Before the table is shared. */
must_use int tenant_table_add(
    struct tenant_table *table, uint32_t tenant, const uint8_t digest[static DIGEST_BYTES]);

/* Numbers of tenants are below this; those of others may be, too. */
uint32_t tenant_table_n(const struct tenant_table *table);

/* Whether somebody in the table has the number: the anonymous one, or a tenant. */
bool tenant_is_there(const struct tenant_table *table, uint32_t tenant);

/* Of all keys of a tenant together: how many, and a sum that is another one for other keys. */
struct tenant_keys {
	uint32_t n;
	uint8_t sum[DIGEST_BYTES];
};
struct tenant_keys tenant_keys_of(const struct tenant_table *table, uint32_t tenant);

/* Whose key that is; TENANT_ANONYMOUS: nobody's. */
uint32_t tenant_table_find(const struct tenant_table *table, const uint8_t digest[static DIGEST_BYTES]);

/* Of a number that is there. */
const struct tenant *tenant_get(const struct tenant_table *table, uint32_t tenant);

/* By its name; TENANT_ANONYMOUS: there is none, or it is that one. */
uint32_t tenant_by_name(const struct tenant_table *table, struct slice name);

/*
 * The key in `Authorization: Bearer KEY` or `x-api-key: KEY`; both must be the same. Fields without a
 * value count as absent. CAUSE_NONE, CAUSE_INVALID_KEY when there is none that could be one, or
 * CAUSE_CREDENTIALS when a field is there twice.
 */
enum cause tenant_key(const struct head *request, struct slice *key_out);

/* Who asks, by that key. CAUSE_INVALID_KEY as well when it is nobody's. */
enum cause tenant_admit(const struct tenant_table *table, struct digester *digester,
    const struct head *request, uint16_t *tenant_out);

/* Whether it may ask for the model of this name; without a name: for any. */
bool tenant_may_use(const struct tenant *tenant, struct slice model);

/* "sha256:HEX" to a digest. False: it is no such text. */
must_use bool tenant_read_digest(struct slice text, uint8_t digest_out[static DIGEST_BYTES]);

/* Whether a field is a credential of the client's. */
bool tenant_is_credential(const struct head *head, const struct field *field);
