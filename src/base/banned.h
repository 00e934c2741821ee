/*
 * banned: functions that may not be used in this tree, force-included in every
 * C file. They overrun, hide errors, or read numbers by rules that are not ours.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Macros in some fortified headers. */
#undef sprintf
#undef vsprintf

#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf gets
#pragma GCC poison atoi atol atoll sscanf strtok
