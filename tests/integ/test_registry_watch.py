"""Watchers of the registry: what they hear, where they go on, and how they end."""
import socket
import threading

import pytest

from program import eventually
from registryprogram import HealthServer, Registry, mark, service


@pytest.fixture
def registry(start):
    return lambda *flags, **how: start(Registry, *flags, **how)


@pytest.fixture
def one(registry):
    return registry("--health-interval", "off")


@pytest.fixture
def watch():
    open_ones = []

    def begin(one, since=None):
        open_ones.append(one.watch(since))
        return open_ones[-1]
    yield begin
    for w in open_ones:
        w.close()


def told(event):
    return [(c["op"], c["name"]) for c in event["changes"]]


def test_events(one, watch):
    one.register("a")
    w = watch(one)
    first = w.next()
    assert set(first) == {"reset", "epoch", "version", "services"} and first["reset"] is True
    assert first["services"] == [one.record("a")]
    one.register("b")
    event = w.next()
    assert set(event) == {"epoch", "version", "changes"}
    assert event["changes"] == [{"op": "put", "name": "b", "record": one.record("b")}]
    one.ask("PUT", "/services/b", json={"port": 77})
    second = w.next()
    assert told(second) == [("put", "b")] and second["changes"][0]["record"]["port"] == 77
    one.ask("DELETE", "/services/b")
    third = w.next()
    assert third["changes"] == [{"op": "delete", "name": "b"}]
    assert first["version"] < event["version"] < second["version"] < third["version"]
    assert len({e["epoch"] for e in (first, event, second, third)}) == 1


def test_life_and_health_are_changes_and_heartbeats_are_none(start, one, watch):
    engine = start(HealthServer)
    one.register("a", url=engine.url, ttl=600)
    w = watch(one)
    version = w.next()["version"]
    for _ in range(5):
        one.post("/services/a/heartbeat")
    assert mark(one.poll()).endswith(f":{version}")
    one.get("/services/a/health")
    assert w.next()["changes"][0]["record"]["health_status"] == "healthy"
    one.ask("PUT", "/services/a", json={"ttl": 1})
    w.until(lambda event: not event["changes"][0]["record"]["is_healthy"])      # nobody renews the lease
    one.post("/services/a/heartbeat")
    assert w.next()["changes"][0]["record"]["is_healthy"] is True
    one.post("/services/a/heartbeat", json={"status": "draining"})
    record = w.until(lambda event: event["changes"][0]["record"]["status"] == "draining")["changes"][0]["record"]
    assert record["is_healthy"] is False


def test_filters_do_not_apply(one, watch):
    one.register("a", status="stopped")
    assert [s["name"] for s in one.get("/services?watch=1&healthy=true&status=running").json()["services"]] == ["a"]


def test_going_on_where_one_was(one, watch):
    since = one.version()
    for name in "abc":
        one.register(name)
    one.register("a", port=10)
    one.ask("DELETE", "/services/b")
    for event in (watch(one, since).next(), one.poll(since)):
        assert sorted(told(event)) == [("delete", "b"), ("put", "a"), ("put", "c")]
        assert {c["name"]: c["record"]["port"] for c in event["changes"] if c["op"] == "put"} == {"a": 10, "c": 9}
    w = watch(one, one.version())
    one.register("d")
    assert told(w.next()) == [("put", "d")]


def test_a_long_poll_waits_for_news(one):
    since, found = one.version(), []
    poll = threading.Thread(target=lambda: found.append(one.poll(since)))
    poll.start()
    eventually(lambda: one.metric("headrace_registry_watchers") == 1)
    one.register("a")
    poll.join(60)
    assert told(found[0]) == [("put", "a")] and found[0]["changes"][0]["record"] == one.record("a")
    assert one.metric("headrace_registry_watchers") == 0


@pytest.mark.parametrize("since", ["nonsense", "0123456789abcdef:1", "EPOCH", "EPOCH:", "EPOCH:x", "EPOCH:-1",
                                   "EPOCH:99999999999999999", "EPOCH:99999999999999999999", ":", ":5"])
def test_an_unknown_beginning_is_a_reset(one, watch, since):
    one.register("a")
    since = since.replace("EPOCH", one.poll()["epoch"])
    for event in (one.poll(since), watch(one, since).next()):
        assert event["reset"] is True and [s["name"] for s in event["services"]] == ["a"]


def test_a_restart_of_a_registry_without_a_disk(one, watch):
    one.register("a")
    since = one.version()
    one.restart()
    event = watch(one, since).next()
    assert event["reset"] is True and event["services"] == [] and event["epoch"] != since.split(":")[0]


def test_a_restart_of_a_registry_with_a_disk(registry, watch, tmp_path):
    one = registry(state_dir=tmp_path / "state")
    one.register("a")
    since = one.version()
    one.restart()
    event = one.poll(since)
    assert event["reset"] is True and [s["name"] for s in event["services"]] == ["a"]
    assert event["epoch"] == since.split(":")[0] and event["version"] > int(since.split(":")[1])


def test_the_end_of_the_registry_is_the_end_of_the_stream(one, watch):
    w, found = watch(one), []
    w.next()
    poll = threading.Thread(target=lambda: found.append(one.poll(one_since)))
    one_since = one.version()
    poll.start()
    eventually(lambda: one.metric("headrace_registry_watchers") == 2)
    one.process.terminate()
    assert w.next() is None and one.wait() == 0
    poll.join(60)
    assert found[0]["changes"] == [] and mark(found[0]) == one_since


def test_many_watchers_hear_the_same(one, watch):
    watchers = [watch(one) for _ in range(100)]
    for w in watchers:
        assert w.next()["services"] == []
    one.register("a")
    events = [w.next() for w in watchers]
    assert all(e == events[0] for e in events) and told(events[0]) == [("put", "a")]
    for w in watchers[:50]:
        w.close()
    eventually(lambda: one.metric("headrace_registry_watchers") == 50)
    one.ask("DELETE", "/services/a")
    assert {tuple(told(w.next())) for w in watchers[50:]} == {(("delete", "a"),)}


def test_who_does_not_read_is_cut(one, watch):
    good = watch(one)
    good.next()
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", one.port))
        s.sendall(b"GET /services?watch=1 HTTP/1.1\r\nhost: r\r\naccept: text/event-stream\r\n\r\n")
        eventually(lambda: one.metric("headrace_registry_watchers") == 2)
        n = 0

        def is_cut():
            nonlocal n
            n += 1
            one.register("a", metadata={"pad": "x" * 200000, "n": n})
            assert good.next()["changes"][0]["record"]["metadata"]["n"] == n
            return one.metric("headrace_registry_watchers") == 1
        eventually(is_cut, 60)
    assert one.metric("headrace_registry_watchers_cut_total") == 1
    assert one.rss_bytes() < 200 << 20


def test_a_client_of_an_older_protocol(one):
    one.register("a")
    with one.connect() as s:
        s.sendall(b"GET /services?watch=1 HTTP/1.0\r\naccept: text/event-stream\r\n\r\n")
        data = b""
        while b"\n\n" not in data:
            data += s.recv(65536)
    assert b"transfer-encoding" not in data.lower() and b'\r\n\r\ndata: {"reset":true,' in data


def test_service_records_are_the_same_everywhere(one, watch):
    one.register("a", metadata={"models": ["m"], "s": "ä\"\\\n"}, labels={"z": "1"}, weight=2, role="prefill")
    record = one.record()
    assert record == one.get("/services").json()["services"][0] == watch(one).next()["services"][0]
    assert {k: record[k] for k in service("a")} == service("a")
