/*
 * sim: headrace sim, the router's policies on a trace in virtual time.
 */
#pragma once

/* argv[0] is the name; returns the exit code. */
int sim_main(int argc, char **argv);
