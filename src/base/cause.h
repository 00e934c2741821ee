/*
 * cause: the one table of why a request was refused or cut short.
 *
 * A cause decides status, stable code, message, whether waiting helps, and the label
 * in log and metrics, once. CAUSE_NONE means that all went well.
 */
#pragma once

#include "base/defs.h"

enum cause {
	CAUSE_NONE,
#define CAUSE(name, status, code, type, retry_after_s, message) CAUSE_##name,
#include "base/cause.tbl"
#undef CAUSE
	N_CAUSES
};

struct cause_row {
	const char *label; /* lower case, "none" for CAUSE_NONE */
	const char *code;
	const char *type; /* of OpenAI's error object */
	const char *message;
	uint16_t status;
	uint16_t retry_after_s;
};

const struct cause_row *cause_row(enum cause cause);

/* The error type of Anthropic's API for a status. */
const char *cause_anthropic_type(unsigned status);
