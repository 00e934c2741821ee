/* version: the one place where it is written. */
#pragma once

#define HEADRACE_VERSION "0.1.0"
