/*
 * caller: who asks, where that decides what he may: a program on this machine, or the bringer of a token.
 *
 * Nothing here keeps state. Any thread, of heads and sessions that are its own.
 */
#pragma once

#include "http/server.h"

#define CALLER_PEER_BYTES 46

/* The client's address, also where it came as ::ffff:a.b.c.d an IPv4 one without that; no scope. */
struct slice caller_peer(const struct session *session, char room[static CALLER_PEER_BYTES]);

/* Whether the client is on this machine: its address is of the loopback. */
bool caller_is_local(const struct session *session);

/* The same of a program there, and no web page that its browser shows: those send an origin, or come by a
 * name. */
bool caller_is_of_here(const struct session *session, const struct head *head);

/* Whether it came with this bearer token, found in a time that says nothing about the token. */
bool caller_has_token(const struct head *head, struct slice token);
