/*
 * option_check: checks of strings that several programs' tables share (struct option, check).
 */
#pragma once

/* A host's name or address. */
const char *option_check_host(const char *text);

/* A bearer token: it becomes a header's value. */
const char *option_check_token(const char *text);
