/*
 * cors: which web pages may read answers (the Fetch standard, section 3.2).
 *
 * Without allowed origins nothing here applies: what engines say goes on as it is. With them it is for the
 * router to say, on every answer, and a preflight is answered by it alone.
 */
#pragma once

#include "base/option.h"
#include "http/head.h"

#define CORS_FIELDS_BYTES 2048u
#define CORS_ORIGIN_MAX   256u

/* What is wrong with an origin as somebody configured it; NULL: nothing. */
const char *cors_mistake(const char *origin);

/* A browser asks whether a page may send a request, and somebody is allowed to. */
bool cors_is_preflight(const struct option_list *origins, const struct head *request);

/* Lines of an answer's head, each with its CRLF; empty: the page may not read it. */
struct slice cors_fields(
    const struct option_list *origins, const struct head *request, char room[static CORS_FIELDS_BYTES]);

/* The same of the answer to a preflight. */
struct slice cors_preflight_fields(
    const struct option_list *origins, const struct head *request, char room[static CORS_FIELDS_BYTES]);
