"""A service manager with a watchdog hears of a program for as long as all its threads move."""
import ctypes
import os
import re
from pathlib import Path

import pytest

import test_notify
from program import eventually
from test_notify import manager  # noqa: F401, a fixture
from test_upgrade import upgradable  # noqa: F401

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 17, 0x4206, 0x4207, 0x40000000
LIMIT = {"WATCHDOG_USEC": "400000"}


class Still:
    """One thread of a program stands still inside the block."""

    def __init__(self, tid):
        self.tid, self.libc = tid, ctypes.CDLL(None, use_errno=True)

    def ask(self, request):
        return self.libc.ptrace(ctypes.c_long(request), ctypes.c_long(self.tid), None, None)

    def __enter__(self):
        if self.ask(PTRACE_SEIZE):
            pytest.skip(f"tracing is not allowed here: {os.strerror(ctypes.get_errno())}")
        assert self.ask(PTRACE_INTERRUPT) == 0
        os.waitpid(self.tid, WALL)

    def __exit__(self, *_):
        assert self.ask(PTRACE_DETACH) == 0


def wakes(pid):
    """How often the main thread has gone to sleep."""
    return int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/task/{pid}/status").read_text())[1])


@pytest.mark.parametrize("program", [test_notify.router, test_notify.registry, test_notify.babysitter])
def test_it_is_told_again_and_again(start, manager, program):  # noqa: F811
    start(program, manager.env | LIMIT)
    assert manager.hear() == b"READY=1"
    assert {manager.hear() for _ in range(5)} == {b"WATCHDOG=1"}


def test_a_thread_that_stands_still_is_the_end_of_that(start, manager):  # noqa: F811
    one = start(test_notify.router, manager.env | LIMIT, log={"access": "off"}, router={"threads": 2})
    assert manager.hear() == b"READY=1"
    threads = [int(t) for t in os.listdir(f"/proc/{one.pid}/task")]
    assert len(threads) == 3
    with Still(max(threads)):
        eventually(lambda: "threads stand still" in one.output())
        while manager.has_heard():
            assert manager.hear() == b"WATCHDOG=1"
        asleep = wakes(one.pid)
        eventually(lambda: wakes(one.pid) > asleep + 20)
        assert not manager.has_heard()
        assert one.admin("/metrics").status_code == 200       # the control thread itself is well
    assert manager.hear() == b"WATCHDOG=1"
    eventually(lambda: "all threads move again" in one.output())


def test_a_successor_is_told_of_as_well(upgradable, engine, manager):  # noqa: F811
    """It inherits the manager's wish from the process that started it."""
    front = upgradable([engine(["m"])], env=manager.env | LIMIT)
    assert manager.hear() == b"READY=1"
    old = front.pid
    front.upgrade()
    front.await_end(old)
    while manager.has_heard():
        manager.hear()
    assert {manager.hear() for _ in range(3)} == {b"WATCHDOG=1"}
