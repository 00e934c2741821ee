/*
 * split_pushers: how prefill instances that push are reached, as their answers said: with it a decode can be
 * asked without waiting for the prefill.
 *
 * A table of fixed size, lossy: two in one cell forget each other, and who was started again is unknown. Of
 * one worker.
 */
#pragma once

#include "fleet/instance.h"
#include "router/split_wire.h"

struct split_pushers;

/* Makes the table when there is none yet. `push` points anywhere. */
void split_pushers_keep(
    struct split_pushers **pushers, const struct instance *inst, const struct split_push *push);

/* The texts are good until the next split_pushers_keep(). `pushers` may be NULL. */
must_use bool split_pushers_find(
    const struct split_pushers *pushers, const struct instance *inst, struct split_push *push_out);

/* The next answer says it anew. */
void split_pushers_forget(struct split_pushers *pushers, const struct instance *inst);

void split_pushers_free(struct split_pushers **pushers);
