"""Engines come by the discovery socket and leave when they fall silent; what else is sent there does no harm."""
import os
import random
import socket
import struct
import subprocess
import threading
import time

import msgpack
import pytest
import zmq

from announcing import Announcer
from pairs import CHAT, CONNECTORS, Side, asking, is_idle, long_chat, transfers
from ports import free_port
from program import Engine, Router, chat_body, eventually, http
from upgrading import UpgradableRouter

QUICK = {"interval": "100ms", "slow_start": "0s"}
LEASE = 5


@pytest.fixture
def front(start):
    """A router that knows nobody."""
    def open_router(kind=Router, **tables):
        pd = {"discovery_address": f"127.0.0.1:{free_port()}"} | tables.pop("pd", {})
        router = start(kind, [], pd=pd, health=QUICK, **tables)
        router.discovery_port = int(pd["discovery_address"].rsplit(":", 1)[1])
        return router
    return open_router


@pytest.fixture
def announce(start):
    return lambda router, kind, engine, **more: start(Announcer, router.discovery_port, kind, engine.port, **more)


@pytest.fixture
def pair(engine, announce):
    """pair(router, *flags) -> a decode engine that serves, and who announces it; a prefill engine is there, too."""
    def announce_both(router, *flags):
        prefill, decode = engine(["m"]), engine(["m"], *flags)
        announce(router, "P", prefill)
        sender = announce(router, "D", decode)
        eventually(lambda: {prefill.port, decode.port} <= set(services(router)))
        return decode, sender
    return announce_both


def services(router):
    """{port: labels} of those that serve."""
    return {s["port"]: s["metadata"] for s in router.get("/services").json()["services"] if s["healthy"]}


def is_ready(router):
    return router.get("/readiness").status_code == 200


def test_a_pair_that_announces_itself_is_ready(engine, front, announce):
    router, prefill, decode = front(), engine(["m"]), engine(["m"])
    assert not is_ready(router)
    first = announce(router, "P", prefill)
    eventually(lambda: prefill.port in services(router))
    assert not is_ready(router)
    assert "pair" in router.get("/readiness").json()["reason"]
    assert router.get("/health").json()["status"] == "running"
    announce(router, "D", decode)
    eventually(lambda: is_ready(router))
    assert router.get("/health").json()["status"] == "healthy"
    assert services(router)[prefill.port] == {"role": "prefill", "zmq_address": first.message["zmq_address"], "kv_connector": "p2p_nccl"}
    assert services(router)[decode.port]["role"] == "decode"
    sources = {i["instance"]: i["source"] for i in router.admin("/instances").json()["instances"]}
    assert sources == {prefill.url: "zmq", decode.url: "zmq"}
    assert router.metric("headrace_zmq_instances", role="prefill") == 1


def test_who_falls_silent_leaves_and_its_stream_ends_well(front, announce, pair):
    router = front()
    worker, sender = pair(router, "--itl", "10ms")
    body = chat_body(stream=True, max_tokens=100000, ignore_eos=True)
    with http() as client, client.stream("POST", router.url + "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        began = time.monotonic()
        sender.stop()
        eventually(lambda: router.get("/services").json()["total"] == 1)
        assert time.monotonic() - began >= LEASE - 1
        for _ in range(20):
            next(lines)
    assert router.chat().status_code in (404, 503)
    announce(router, "D", worker)
    eventually(lambda: worker.port in services(router))


def test_the_first_mode_of_moriio_holds(engine, front, announce):
    router, reader, writer = front(), engine(["m"]), engine(["m"])
    announce(router, "P", reader, transfer_mode="READ", tp_size=8, dp_size=2)
    eventually(lambda: reader.port in services(router))
    announce(router, "D", writer, transfer_mode="WRITE")
    eventually(lambda: router.metric("headrace_zmq_messages_total", outcome="refused") > 3)
    now = services(router)
    assert list(now) == [reader.port]
    labels = now[reader.port]
    assert (labels["kv_connector"], labels["kv_mode"], labels["tp_size"], labels["dp_size"]) == ("moriio", "read", "8", "2")
    assert router.output().count("one of mode write is refused") == 1


def test_addresses_are_judged(engine, front, announce):
    router, worker = front(discovery={"allow": ["10.0.0.0/8"]}), engine(["m"])
    announce(router, "P", worker)
    eventually(lambda: "at an address that is not allowed" in router.output())
    assert services(router) == {}


def test_a_taken_address_stops_the_start(tmp_path):
    with socket.create_server(("127.0.0.1", free_port())) as other:
        address = "127.0.0.1:%d" % other.getsockname()[1]
        ended = subprocess.run([os.environ.get("HEADRACE_BIN", "build/release/headrace"), "router", "--port", str(free_port()), "--admin-port",
                                str(free_port()), "--vllm-discovery-address", address], capture_output=True, text=True, timeout=60,
                               env=os.environ | {"XDG_STATE_HOME": str(tmp_path)})
    assert ended.returncode == 1
    assert f"cannot listen at {address}: Address already in use" in ended.stderr


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "127.0.0.1:0", ":5", "tcp://h:1"])
def test_an_address_that_is_none_is_a_mistake(address):
    ended = subprocess.run([os.environ.get("HEADRACE_BIN", "build/release/headrace"), "router", "--check", "--vllm-discovery-address", address],
                           capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and "expected HOST:PORT" in ended.stderr


def flood(port, pieces):
    with zmq.Context() as context, context.socket(zmq.DEALER) as s:
        s.linger, s.sndtimeo = 0, 20000
        s.connect(f"tcp://127.0.0.1:{port}")
        for piece in pieces:
            s.send(piece)
        s.linger = 20000


def junk():
    rng = random.Random(7)
    return (rng.randbytes(rng.randrange(4096)) for _ in range(10000))


def oversized():
    return (b"x" * 100000 for _ in range(1000))


def huge_maps():
    claims = [b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\x91" * 4000, b"\x81\xa4type" + b"\xdc\xff\xff" * 1000,
              msgpack.packb({str(i): i for i in range(500)})]
    return (claims[i % len(claims)] for i in range(10000))


def strangers():
    return (msgpack.packb({"type": "P", "http_address": f"127.1.{i // 250}.{i % 250}:1", "zmq_address": "h:1"}) for i in range(5000))


@pytest.mark.parametrize("pieces", [junk, oversized, huge_maps, strangers], ids=lambda f: f.__name__)
def test_a_flood_grows_nothing(front, pair, pieces):
    router = front()
    worker, _ = pair(router)
    before, good = router.rss_bytes(), router.metric("headrace_zmq_messages_total", outcome="good")
    flood(router.discovery_port, pieces())
    said = {junk: "bad", huge_maps: "bad", strangers: "refused", oversized: "good"}[pieces]
    eventually(lambda: router.metric("headrace_zmq_messages_total", outcome=said) > 1000 or pieces is oversized)
    assert router.chat().status_code == 200
    eventually(lambda: router.metric("headrace_zmq_messages_total", outcome="good") > good + 5)      # the worker's own go on
    assert worker.port in services(router)
    assert router.rss_bytes() - before < (64 << 20 if pieces is strangers else 24 << 20)
    assert router.get("/services").json()["total"] <= 1024
    assert router.output().count("on the discovery socket is skipped") < 60


def test_what_is_no_zmq_does_no_harm(front, pair):
    router = front()
    rng = random.Random(11)
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\0NULL" + b"\0" * 48
    hello = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
    ready = greeting + bytes([4, len(hello)]) + hello
    starts = [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, greeting, greeting.replace(b"NULL\0", b"CURVE"), greeting.replace(b"NULL\0\0", b"GSSAPI"),
              ready, ready + b"\x02" + struct.pack(">Q", 1 << 62), ready + b"\x04\xff" + b"x" * 255]
    held = []
    for i in range(200):
        s = socket.create_connection(("127.0.0.1", router.discovery_port), 60)
        try:
            s.sendall(starts[i % len(starts)] + rng.randbytes(rng.randrange(300)))
        except ConnectionError:
            pass
        held.append(s)
    pair(router)
    assert router.chat().status_code == 200
    for s in held:
        s.close()


def test_a_reload_changes_nothing_of_it(engine, front, announce):
    router, worker = front(), engine(["m"])
    announce(router, "D", worker)
    eventually(lambda: worker.port in services(router))
    router.reconfigure(retry={"attempts": 2})
    with http() as client:
        assert client.post(router.admin_url + "/reload").status_code == 200
        assert worker.port in services(router)
        router.reconfigure(pd={"discovery_address": f"127.0.0.1:{free_port()}"})
        assert client.post(router.admin_url + "/reload").json()["error"]["code"] == "needs_restart"
    router.reconfigure(pd={"discovery_address": f"127.0.0.1:{router.discovery_port}"})


def test_an_upgrade_takes_over_socket_and_engines(engine, front, announce):
    router, prefill, decode = front(UpgradableRouter), engine(["m"]), engine(["m"])
    announce(router, "P", prefill), announce(router, "D", decode)
    eventually(lambda: is_ready(router))
    seen, ends = [], threading.Event()

    def look():
        while not ends.is_set():
            seen.append(is_ready(router))
    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    old = router.pid
    router.upgrade()
    router.await_end(old)
    eventually(lambda: router.metric("headrace_zmq_messages_total", outcome="good") > 10)
    time_is_up = time.monotonic() + LEASE + 1
    eventually(lambda: time.monotonic() > time_is_up)       # their leases are the new process's own
    ends.set()
    watcher.join(60)
    assert len(seen) > 100 and all(seen)
    assert set(services(router)) == {prefill.port, decode.port}


# --- engines that announce themselves, and do what they say ----------------------------------

ADDRESSED = [name for name, connector in CONNECTORS.items() if connector.has_address]


@pytest.fixture
def fleet(start, engine, front):
    """fleet(connector, n, ...) -> a router and n engines of each role, which it knows from themselves alone."""
    def open_fleet(name, n=1, *flags, **tables):
        router = front(**tables)
        address = f"127.0.0.1:{router.discovery_port}"
        engines = [start(Engine, ["m"], *Side(role, CONNECTORS[name]).flags, "--zmq-register", address, *flags)
                   for role in ("prefill", "decode") for _ in range(n)]
        eventually(lambda: len(services(router)) == len(engines))
        return router, engines[:n], engines[n:]
    return open_fleet


@pytest.mark.parametrize("name", ADDRESSED)
def test_what_engines_say_brings_them_together(fleet, name):
    router, (first,), (second,) = fleet(name)
    for stream in (False, True):
        answer = router.post(CHAT, json=long_chat(stream=stream))
        assert answer.status_code == 200 and '"error":{' not in answer.text
    eventually(lambda: is_idle(first) and is_idle(second))
    assert [[row["leg"] for row in e.ledger()["generations"]] for e in (first, second)] == [["prefill"] * 2, ["decode"] * 2]
    assert transfers(first)["fetched"] == 2
    assert services(router)[second.port]["kv_connector"] == CONNECTORS[name].router
    assert services(router)[second.port].get("kv_mode") == CONNECTORS[name].mode


@pytest.mark.parametrize("name", ["moriio_read", "moriio_write"])
def test_ranks_that_engines_announce(fleet, name):
    router, *engines = fleet(name, 1, "--data-parallel-size", "2", router={"threads": 1})
    assert [router.post(CHAT, json=long_chat(i)).status_code for i in range(4)] == [200] * 4
    for e, in engines:
        assert sorted(row["rank"] for row in e.ledger()["generations"]) == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ADDRESSED)
def test_who_dies_leaves_and_nothing_is_lost(fleet, name):
    """One of each role dies: the others have their requests, before those have left and after."""
    router, *engines = fleet(name, 2, retry={"sent": True, "budget": 1, "statuses": ["429", "500", "503"]})
    dying, staying = zip(*engines)
    with asking(lambda i: router.post(CHAT, json=long_chat(i)).status_code) as statuses:
        eventually(lambda: all(e.count("finished") > 10 for e in dying))
        for e in dying:
            e.kill()
        eventually(lambda: router.get("/services").json()["total"] == 2)
        before = [e.count("finished") for e in staying]
        eventually(lambda: all(e.count("finished") > n + 10 for e, n in zip(staying, before)))
    assert set(statuses) == {200}
    assert set(services(router)) == {e.port for e in staying}
    eventually(lambda: router.metric("headrace_in_flight") == 0 and not any(e.count("running") for e in staying))


def test_health_wants_both_halves_in_the_dialect(engine, front, announce):
    router = front(router={"dialect": "vllm"})
    seen = (lambda: [router.get(path).status_code for path in ("/health", "/readiness", "/liveness")])
    assert seen() == [503, 503, 200]
    assert router.get("/readiness").json() == {"status": "not_ready", "reason": "no instance is available", "total_workers": 0}
    assert router.chat().status_code == 503
    prefill = engine(["m"])
    announce(router, "P", prefill)
    eventually(lambda: prefill.port in services(router))
    assert seen() == [503, 503, 200]
    assert router.get("/health").text == "No pair of a prefill and a decode worker"
    announce(router, "D", engine(["m"]))
    eventually(lambda: seen() == [200, 200, 200])
    assert router.get("/health").text == "OK"
