"""The whole stack: a registry with a store, babysitters with mock engines, and a router that believes the registry."""
import os
import signal
import tempfile
import time

from babysitting import Babysitter, mock, processes
from load import Death
from program import Engine, Router, eventually
from registryprogram import Registry

QUICK_HEALTH = {"interval": "200ms", "slow_start": "0s"}


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):      # the second when it goes while it is looked at
        return False


class Fleet:
    """start(Kind, ...) makes programs: the fixture in tests, Stack below elsewhere."""

    def __init__(self, start, n=3, itl="1ms", health=None, models=("m",), registry=None, **tables):
        self.start, self.itl, self.models = start, itl, models
        self.registry = registry or start(Registry, state_dir=tempfile.mkdtemp(prefix="roster-"))
        self.sitters = {}
        for i in range(n):
            self.sit(f"s{i}")
        self.router = start(Router, [], "--registry-url", self.registry.url, ready=n,
                            health=QUICK_HEALTH | (health or {}), **tables)
        eventually(lambda: self.states() == {f"s{i}-server": "ready" for i in range(n)})

    def sit(self, name, port=None, state_dir=None, ready=True):
        backend = mock(*self.models) | {"args": ["--itl", self.itl, "--prefill-rate", "0"]}
        sitter = self.start(Babysitter, backend, self.registry, name=name, port=port, state_dir=state_dir, ready=ready)
        self.sitters[name] = sitter
        return sitter

    def states(self):
        """name -> state as the router sees it"""
        return {s["name"]: s["status"] for s in self.router.get("/services").json()["services"]}

    def engine(self, name):
        """The engine's own pages."""
        return Page(self.sitters[name].engine_url)

    def kill_engine(self, name):
        """-> its Death"""
        ordered = time.monotonic()
        pid, = self.sitters[name].engines()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_alive(pid))
        return Death(f"{name}-server", ordered)

    def kill_sitter(self, name):
        """The babysitter dies as if shot and another takes its place. -> the Death of the engine"""
        old = self.sitters[name]
        pid, = old.engines()
        ordered = time.monotonic()
        old.kill()
        new = self.sit(name, port=old.engine_port, state_dir=old.state_dir, ready=False)
        eventually(lambda: not is_alive(pid))
        death = Death(f"{name}-server", ordered)
        eventually(lambda: new.get("/health").status_code == 200, seconds=60)
        return death

    def clear(self):
        """Ends engines whose babysitter has died and has no successor, as in a test that failed half-way."""
        for sitter in self.sitters.values():
            if sitter.process.poll() is not None:
                for pid in processes(sitter.state_dir):
                    os.kill(pid, signal.SIGKILL)

    def one_each(self):
        return all(len(processes(s.state_dir)) == 1 for s in self.sitters.values())


class Page:
    """What Engine says, of an engine that somebody else has started."""
    certificate = None
    get, post, fault, ledger, count = Engine.get, Engine.post, Engine.fault, Engine.ledger, Engine.count

    def __init__(self, url):
        self.url = url


class Stack:
    """The fixture `start` for what is no test."""

    def __init__(self):
        self.programs = []

    def __enter__(self):
        return self

    def __call__(self, kind, *args, **how):
        self.programs.append(kind(*args, **how))
        return self.programs[-1]

    def __exit__(self, kind, *_):
        errors = []
        for program in reversed(self.programs):
            try:
                program.stop()
            except Exception as error:  # noqa: BLE001
                errors.append(error)
        if errors and kind is None:
            raise errors[0]
