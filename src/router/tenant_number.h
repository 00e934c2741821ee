/*
 * tenant_number: the small numbers that tenants go by, the same for one name over all configurations that
 * are in use at a time.
 *
 * Places, waiters, meters and tokens are counted by number. A request keeps the configuration that it began
 * under, and with it the numbers of all tenants there. So a number is its tenant's for as long as any table
 * (router/tenant.h) has it, and may then become another's.
 *
 * Numbers are taken on the control thread, and given back on any.
 */
#pragma once

#include "base/slice.h"

#define TENANT_NUMBERS_MAX 4096u /* with 0, the anonymous one's */

/* The number of the tenant of this name, from 1 on: that of the tables that have it, else the least that
 * nobody has. 0: there is none left. To be given back as often as it was taken. */
must_use uint32_t tenant_number_take(struct slice name);

/* Control thread: who has it, or had it last. Valid until another takes it. */
const char *tenant_number_name(uint32_t number);

void tenant_number_give(uint32_t number);
