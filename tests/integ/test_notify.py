"""What a service manager hears of each program (Type=notify), and when."""
import os
import select
import signal
import socket

import pytest

import babysitting
import registryprogram
from babysitting import Babysitter
from ports import free_port
from program import Program, Router, eventually
from registryprogram import HealthServer, service


class Manager:
    """The manager's end of NOTIFY_SOCKET, with a name in the file system or without."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path) if path else "")     # the system finds a free abstract name
        self.name = str(path) if path else self.socket.getsockname().decode().replace("\0", "@")
        self.socket.settimeout(60)
        self.env = {"NOTIFY_SOCKET": self.name}

    def hear(self):
        return self.socket.recv(64)

    def has_heard(self):
        return bool(select.select([self.socket], [], [], 0)[0])

    def stop(self):
        self.socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(start, request, tmp_path):
    return start(Manager, tmp_path / "notify" if request.param == "path" else None)


class Unawaited:
    """Not asked before the manager is told."""

    def await_ready(self, _):
        pass


class UnawaitedRouter(Unawaited, Router):
    pass


class UnawaitedRegistry(Unawaited, registryprogram.Registry):
    pass


class UnawaitedBabysitter(Unawaited, Babysitter):
    pass


def router(env, **tables):
    return UnawaitedRouter([f"http://127.0.0.1:{free_port()}"], env=env, **tables)


def registry(env):
    return UnawaitedRegistry(env=env)


def babysitter(env, *words, **more):
    """The engine never serves: the manager is told all the same."""
    return UnawaitedBabysitter({"type": "command", "command": "sh -c", "args": list(words or ["sleep 1000"])}, env=env,
                               babysitter=more)


@pytest.mark.parametrize("program, path, status", [
    (router, "/liveness", 200), (registry, "/health", 200), (babysitter, "/health", 503)])
def test_ready_when_it_listens(start, manager, program, path, status):
    one = start(program, manager.env)
    assert manager.hear() == b"READY=1"
    assert one.get(path).status_code == status      # at the first try
    assert not manager.has_heard()
    one.stop()
    assert manager.hear() == b"STOPPING=1"
    assert not manager.has_heard()


def test_a_start_that_fails_is_not_ready(start, manager):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        one = start(Program, "registry", "--store", "memory", "--port", taken.getsockname()[1], env=manager.env)
        assert one.wait() == 1
    assert not manager.has_heard()


def test_a_router_that_stops_still_serves(start, manager):
    one = start(router, manager.env, timeout={"announce": "60s"})
    assert manager.hear() == b"READY=1"
    one.process.terminate()
    assert manager.hear() == b"STOPPING=1"
    assert one.get("/readiness").status_code == 503
    one.process.terminate()
    assert one.wait() == 0


def test_a_registry_that_stops_answers_who_has_asked(start, manager):
    engine, one = start(HealthServer), start(registry, manager.env)
    assert manager.hear() == b"READY=1"
    assert one.post("/services", json=service("a", url=engine.url)).status_code == 201
    engine.gate.clear()
    with one.connect() as s:
        s.sendall(b"GET /services/a/health HTTP/1.1\r\nhost: r\r\n\r\n")
        eventually(lambda: engine.n_active)
        one.process.terminate()
        assert manager.hear() == b"STOPPING=1"
        engine.gate.set()
        assert s.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert one.wait() == 0


def test_a_babysitter_that_stops_waits_for_its_engine(start, manager):
    one = start(babysitter, manager.env, "trap '' TERM; echo deaf; while :; do sleep 0.1; done", stop_timeout="1h")
    assert manager.hear() == b"READY=1"
    eventually(lambda: "[eng] deaf" in one.output())
    one.process.terminate()
    assert manager.hear() == b"STOPPING=1"
    answer = one.get("/health")
    assert answer.status_code == 503 and answer.json()["state"] == "stopping"
    for pid in one.engines():
        os.kill(pid, signal.SIGKILL)
    assert one.wait() == 0
    assert not babysitting.processes(one.state_dir)
