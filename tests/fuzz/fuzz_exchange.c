/*
 * A play (virtual/script.h) of clients and engines who say and do anything: bytes, pieces, stalls, ends,
 * time. Nothing is left of it, and all accounts agree (virtual/ledger.h). One act a line:
 *
 *     c client comes   >TEXT it says   f x k it ends, closes, breaks   rN it takes N bytes
 *     <TEXT an engine says   aN +N it answers in kind   F X K D its end   RN it takes N bytes
 *     @N #N choose client, engine   . w tN turn, settle, pass   mEM y v o moods, connects, fleet, options
 */
#include "virtual/ledger.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
	static struct world *world;
	if (!world)
		world = script_world();
	script_renew(world);
	const char *wrong = script_play(world, (struct slice){ (const char *)data, n });
	if (!wrong)
		wrong = ledger_check(world, false);
	if (wrong) {
		fprintf(stderr, "fuzz_exchange: %s\n%.*s", wrong, (int)world->log.n, world->log.p);
		abort();
	}
	return 0;
}
