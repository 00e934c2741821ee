/*
 * registry: the program `headrace registry`: who is in the fleet. Keeps the records,
 * their leases and their health, on disk; answers and pushes.
 */
#pragma once

/* argv[0] "infini-registry" selects that system's defaults. Returns the exit code. */
int registry_main(int argc, char **argv);
