/*
 * ctl: asks a running router on its admin port, and prints for people what it says.
 *
 * One question, one answer, one thread; nothing is kept.
 */
#pragma once

/* argv[0] is the program's name. Returns the exit code: 0 good, 1 failed, 2 usage. */
int ctl_main(int argc, char **argv);
