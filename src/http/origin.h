/*
 * origin: a server that a control thread talks to by its url: the registry, an engine's
 * babysitter. Knows its addresses and which of them answered last.
 *
 * A name is resolved when it is first needed, again when it is needed 30 s later, and
 * after a failed connect (once a second at most); all addresses, IPv4 and IPv6, are
 * tried, each with the fetch's own deadline, before a request fails with
 * FETCH_E_CONNECT, or with FETCH_E_LOCAL if none could be tried. Several fetches may be under way to one
 * origin.
 */
#pragma once

#include "http/fetch.h"
#include "net/resolver.h"

#define ORIGIN_URL_MAX 512

struct origin; /* opaque, on the heap: lookups outlive it */

/* url: "http://host[:port]"; a trailing slash is cut, a path in it is put in front of every request's.
 * https where the loop has what it takes. NULL: not such a url. */
must_use struct origin *origin_new(struct loop *loop, struct slice url);
/* Cancels its fetches without a callback. */
void origin_free(struct origin **origin);

/* Addresses that `may_ask` says no to are left out, as if nobody had them. Before the first fetch. */
typedef bool (*origin_may_ask_fn)(void *context, const struct sockaddr_storage *address);
void origin_restrict(struct origin *o, origin_may_ask_fn may_ask, void *context);

/* With https: whom it must prove to be, in place of the url's host; `name` must outlive it. Before the first
 * fetch. */
void origin_expect(struct origin *o, const char *name);

/* "http://host:port", or https, NUL-terminated. */
const char *origin_url(const struct origin *o);

/*
 * As fetch_start(); authority is filled in, path is of the request. f->on_done is called
 * once, never from within, with FETCH_E_CONNECT if none of the addresses took the
 * connection; it may free the origin.
 */
void origin_fetch(struct origin *o, struct fetch *f, const struct fetch_request *request);
void origin_cancel(struct origin *o, struct fetch *f);
