/* babysitter: `headrace babysitter`, which starts, watches and restarts one engine and keeps it registered.
 */
#pragma once

/* argv[0] is the program's name. Returns the exit code. */
int babysitter_main(int argc, char **argv);
