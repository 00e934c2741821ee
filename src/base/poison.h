/* poison: marks memory that is ours but lent to nobody, so that AddressSanitizer sees its use. */
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define POISON_WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISON_WITH_ASAN 1
#endif
#endif

#ifdef POISON_WITH_ASAN
#include <sanitizer/asan_interface.h>
#define poison_set(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define poison_clear(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define poison_set(p, n)   ((void)(p), (void)(n))
#define poison_clear(p, n) ((void)(p), (void)(n))
#endif
