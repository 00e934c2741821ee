/* router: the program that takes requests and streams them to engines. */
#pragma once

/* argv[0] is the command's name. Returns the exit code: 0 good, 1 failed, 2 usage or configuration. */
int router_main(int argc, char **argv);
