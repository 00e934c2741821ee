"""Names and models as the running router learns them, and name servers that are silent."""
import json
import random
import signal
import socket

import pytest

from ports import free_port
from program import eventually
from room import Room


class SilentNameServer:
    """Takes every question and answers none: a lookup hangs for minutes."""

    def __init__(self):
        self.address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self.socket.bind((self.address, 53))
        except OSError as error:
            pytest.skip(f"no name server at port 53 here: {error}")
        self.configuration = f"nameserver {self.address}\noptions timeout:30 attempts:5\n"

    def await_question(self):
        self.socket.recv(4096)

    def stop(self):
        self.socket.close()


@pytest.fixture
def hung_router(start, engine, router):
    """A router that looks a name up and has no answer yet, before one engine that works."""
    def begin(**tables):
        server = start(SilentNameServer)
        where = Room({"resolv.conf": server.configuration})
        front = router([engine(["m"]), f"http://engine.example:{free_port()}"], ready=1, how=where.how, **tables)
        server.await_question()
        return front
    return begin


def test_a_lookup_that_hangs_holds_nobody_up(hung_router):
    front = hung_router()
    assert {front.chat().status_code for _ in range(5)} == {200}
    assert front.admin("/metrics").status_code == 200


@pytest.mark.parametrize("n_signals", [1, 2])
def test_a_lookup_that_hangs_does_not_hold_the_end_up(hung_router, n_signals):
    front = hung_router(timeout={"announce": "0s" if n_signals == 1 else "300s"})
    assert front.chat().status_code == 200
    front.process.terminate()
    if n_signals == 2:
        eventually(lambda: front.get("/readiness").status_code == 503)
        front.process.send_signal(signal.SIGINT)
    assert front.wait() == 0
    paths = [json.loads(line)["path"] for line in front.access.read_text().splitlines()]
    assert "/v1/chat/completions" in paths              # the log was written to its end


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_name_of_two_families_leads_to_the_one_that_answers(engine, router, host):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    where = Room({"hosts": "127.0.0.1 both.example\n::1 both.example\n"})
    worker = engine(["m"], host=host)
    front = router([f"http://both.example:{worker.port}"], how=where.how)
    assert [front.chat().status_code for _ in range(20)] == [200] * 20
    assert worker.count("finished") == 20


def test_an_engine_that_moves_before_its_first_answer_is_found(engine, router):
    """Long before names are looked up again by themselves."""
    where = Room({"hosts": "127.0.0.2 moving.example\n"})
    worker = engine(["m"])
    front = router([f"http://moving.example:{worker.port}"], ready=0, how=where.how, discovery={"resolve": "1h"})
    eventually(lambda: '"connect failed"' in front.output())
    where.write("hosts", "127.0.0.1 moving.example\n")
    eventually(lambda: front.ready_workers() == 1)
    assert front.chat().status_code == 200
