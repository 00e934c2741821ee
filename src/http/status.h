/* status: the reason phrase of a status code, as the IANA registry has it; empty for others. */
#pragma once

#include "base/slice.h"

struct slice status_reason(unsigned status);
