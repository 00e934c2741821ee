import os
import signal
import socket
import tempfile

import pytest

from fakeworker import FakeWorker
from program import Engine, Router

socket.setdefaulttimeout(60)
os.environ["NO_PROXY"] = "*"        # everything is on loopback, whatever the machine is told of proxies


@pytest.fixture(autouse=True)
def bounds(tmp_path):
    """Each test has a folder of its own and five minutes."""
    def too_long(*_):
        raise TimeoutError("the test did not end")
    tempfile.tempdir = str(tmp_path)
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(300)
    yield
    signal.alarm(0)
    tempfile.tempdir = None


@pytest.fixture
def start(bounds):
    """start(Kind, ...) makes a program; all of them are stopped in reverse and must end well."""
    running = []

    def start_program(kind, *args, **how):
        running.append(kind(*args, **how))
        return running[-1]
    yield start_program
    errors = []
    for program in reversed(running):
        try:
            program.stop()
        except Exception as error:  # noqa: BLE001
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.fixture
def engine(start):
    return lambda *models_and_flags, **how: start(Engine, *models_and_flags, **how)


@pytest.fixture
def fake(start):
    return lambda script, **how: start(FakeWorker, script, **how)


@pytest.fixture
def router(start):
    return lambda engines, *flags, **how: start(Router, engines, *flags, **how)


@pytest.fixture
def vllm(router):
    """-> a router in vLLM's dialect"""
    def begin(engines=(), *flags, **tables):
        more = {"dialect": "vllm", "worker_startup_timeout": "30s"} | tables.pop("router", {})
        return router(list(engines), *flags, router=more, **tables)
    return begin
