/*
 * engine: the program `headrace mock-engine`: an engine without a GPU that a client
 * cannot tell from vLLM, for demos, tests and benches.
 */
#pragma once

/* argv[0] is the command's name. Returns the exit code: 0 good, 1 failed, 2 usage. */
int engine_main(int argc, char **argv);
