"""What fails again and again is left alone: real engines, real connections, and counts of who was asked how often."""
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from fakeworker import answer
from ports import free_port
from program import BIN, chat_body, eventually, http

ALONE = {"probe": False, "passive": False}      # nothing but breakers takes an engine out
BROKEN = answer(b'{"error":"broken"}', b"500 Internal Server Error")


def breakers(front):
    return {b["instance"]: b for b in front.admin("/breakers").json()["breakers"]}


def ask(front, n):
    """-> the statuses of n requests, one after the other."""
    with http(base_url=front.url) as client:
        return [client.post("/v1/chat/completions", json=chat_body()).status_code for _ in range(n)]


def act(front, name, verb, **how):
    with http() as client:
        return client.post(f"{front.admin_url}/breakers/{quote(name, safe='')}/{verb}", **how)


def ctl(front, *arguments):
    done = subprocess.run([BIN, "ctl", "--admin", front.admin_url, *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def always(data):
    def script(peer):
        while peer.request():
            peer.send(data)
    return script


def test_who_fails_is_left_alone_and_everybody_is_told(fake, router):
    workers = [fake(always(BROKEN)), fake(always(answer()))]
    front = router(workers, breaker={"failures": 3, "open": "1h", "open_max": "1h"})
    bad, good = workers[0].url, workers[1].url
    assert sorted(ask(front, 30)) == [200] * 27 + [500] * 3
    assert len(workers[0].requests) == 3

    assert breakers(front)[good]["state"] == "closed"
    shown = breakers(front)[bad]
    assert shown["state"] == "open" and 3000_000 < shown["left_ms"] <= 3960_000 and shown["last_failure_ms"] >= 0
    assert shown["outcomes"] == {"good": 0, "bad": 3, "neutral": 0}
    services = {s["name"]: s for s in front.get("/services").json()["services"]}
    assert (services[bad]["breaker"], services[good]["breaker"]) == ("open", "closed")

    with http() as client:
        explained = client.post(f"{front.admin_url}/explain", json=chat_body()).json()
    rows = {r["instance"]: r for r in explained["rows"]}
    assert rows[bad]["codes"] == ["breaker_open"] and rows[bad]["breaker"] == "open" and not rows[bad]["eligible"]
    assert rows[bad]["rejections"][0]["detail"]["left_ms"] > 3000_000
    decision = front.admin("/decisions?limit=1").json()["decisions"][0]
    assert [(r["instance"], r["code"]) for r in decision["rejected"]] == [(bad, "breaker_open")]

    assert front.metric("headrace_breaker_state", instance=bad) == 1
    assert front.metric("headrace_breaker_state", instance=good) == 0
    assert front.metric("headrace_breaker_transitions_total", instance=bad, **{"from": "closed", "to": "open"}) == 1
    assert front.metric("headrace_breaker_transitions_total") == 1
    assert front.metric("headrace_breaker_outcomes_total", instance=good, outcome="good") == 27
    assert front.metric("headrace_breaker_outcomes_total") == 30
    assert front.stderr.read_text().count("breaker of an instance moved") == 1


def test_an_engine_that_recovers_is_asked_again(engine, router):
    """It fails five times. Each request that it gets meanwhile is a probe, and each probe one request."""
    worker = engine(["m"])
    front = router([worker], health=ALONE, breaker={"failures": 2, "successes": 2, "open": "40ms", "open_max": "80ms"})
    worker.fault("fail_first:5")
    statuses = []

    def is_closed():
        statuses.extend(ask(front, 1))
        return breakers(front)[worker.url]["state"] == "closed" and statuses[-1] == 200
    eventually(is_closed)
    assert set(statuses) <= {200, 500, 503} and statuses.count(500) == 5
    assert statuses.index(200) > max(i for i, s in enumerate(statuses) if s != 200 and s == 500)
    sent = front.metric("headrace_breaker_outcomes_total")
    assert sent == statuses.count(500) + statuses.count(200)
    assert front.metric("headrace_breaker_transitions_total", **{"from": "half_open", "to": "open"}) == 3
    assert front.metric("headrace_breaker_transitions_total", **{"from": "half_open", "to": "closed"}) == 1
    probes = [d for d in front.admin("/decisions?reason=probe_permit").json()["decisions"]]
    assert len(probes) == 3 + 2


def test_all_are_open(fake, router):
    workers = [fake(always(BROKEN)) for _ in range(2)]
    front = router(workers, breaker={"failures": 2, "open": "1h", "open_max": "1h"})
    assert ask(front, 4) == [500] * 4
    r = front.chat()
    assert r.status_code == 503 and r.json()["error"]["code"] == "no_healthy_instance"
    assert 3240 <= int(r.headers["retry-after"]) <= 3960 * 5 / 4 + 1
    assert [r["cause"] for r in front.log(5)].count("breakers_open") == 1
    assert sum(len(w.requests) for w in workers) == 4
    with http() as client:
        refusal = client.post(f"{front.admin_url}/explain", json=chat_body()).json()["refusal"]
    assert refusal == {"status": 503, "code": "no_healthy_instance"}


def test_a_dead_fleet_is_not_hammered(router):
    """Nobody listens. Clients may come as often as they like."""
    front = router([f"http://127.0.0.1:{free_port()}" for _ in range(3)], ready=0, health=ALONE,
                   breaker={"failures": 4, "open": "1h", "open_max": "1h"})
    with ThreadPoolExecutor(8) as pool:
        statuses = [s for found in pool.map(lambda _: ask(front, 50), range(8)) for s in found]
    assert set(statuses) <= {502, 503} and statuses.count(503) > 300
    assert front.metric("headrace_connect_failures_total") <= 3 * (4 + 8)


@pytest.mark.parametrize("refuses", [False, True])
def test_health_lets_a_restarted_engine_in_at_once(engine, router, refuses):
    """Its breaker would be open for an hour; its probes are good before that."""
    worker = engine(["m"])
    front = router([worker], health={"interval": "100ms", "slow_start": "0s"},
                   breaker={"failures": 2, "successes": 1, "open": "1h", "open_max": "1h"})
    assert ask(front, 1) == [200]
    worker.kill()
    eventually(lambda: ask(front, 1) == [503] and breakers(front)[worker.url]["state"] == "open")
    eventually(lambda: front.ready_workers() == 0)
    worker.__init__(worker.models, port=worker.port)
    if refuses:
        assert act(front, worker.url, "trip").status_code == 200
        eventually(lambda: front.ready_workers() == 1)
        assert ask(front, 3) == [503] * 3         # what was tripped by hand stays so
        act(front, worker.url, "reset")
    eventually(lambda: ask(front, 1) == [200])
    eventually(lambda: breakers(front)[worker.url]["state"] == "closed")   # once that request is settled


def test_of_many_requests_one_probes(fake, router):
    """Half-open, 48 at once from 48 clients and two threads: one is sent, and is the only one there until it ends."""
    n = 48
    others = threading.Semaphore(0)

    def script(peer):
        while peer.request():
            for _ in range(n - 1):
                assert others.acquire(timeout=60)
            peer.send(answer())
    worker = fake(script)
    front = router([worker], breaker={"successes": 2, "open": "1ms", "open_max": "1ms"})
    act(front, worker.url, "trip")
    eventually(lambda: breakers(front)[worker.url]["state"] == "half_open")

    def one(_):
        with http(base_url=front.url) as client:
            status = client.post("/v1/chat/completions", json=chat_body()).status_code
        others.release()
        return status
    with ThreadPoolExecutor(n) as pool:
        statuses = list(pool.map(one, range(n)))
    assert sorted(statuses) == [200] + [503] * (n - 1)
    assert len(worker.requests) == 1 and not worker.errors
    assert front.metric("headrace_breaker_outcomes_total") == 1


def test_a_storm_of_failures_is_bounded(fake, router):
    """Half of the engines fail all, and all that may be is sent again: what engines are asked stays near what
    clients ask, and soon all goes to those that work."""
    workers = [fake(always(BROKEN if i % 2 else answer())) for i in range(4)]
    front = router(workers, retry={"attempts": 5, "statuses": ["429", "500", "502", "503", "504"], "sent": True,
                                   "backoff": "1ms", "backoff_max": "2ms"}, breaker={"open": "200ms"})
    with ThreadPoolExecutor(8) as pool:
        statuses = [s for found in pool.map(lambda _: ask(front, 150), range(8)) for s in found]
    n_upstream = sum(len(w.requests) for w in workers)
    n_failed = sum(len(w.requests) for w in workers[1::2])
    assert len(statuses) == 1200 and set(statuses) <= {200, 500}
    assert 1200 <= n_upstream <= 1200 * 1.2
    assert n_failed < 200 and statuses.count(200) > 1100
    assert front.metric("headrace_breaker_outcomes_total") == n_upstream
    assert front.metric("headrace_breaker_outcomes_total", outcome="bad") == n_failed


def test_busy_and_bad_requests_open_nothing(fake, router):
    todo = [answer(status=s) for s in (b"503 Busy", b"429 Busy", b"400 Bad", b"404 None", b"501 No")] * 8

    def script(peer):
        while peer.request():
            peer.send(todo.pop())
    front = router([fake(script)], retry={"attempts": 1}, breaker={"failures": 1})
    assert sorted(ask(front, 40)) == sorted([503, 429, 400, 404, 501] * 8)
    assert front.metric("headrace_breaker_outcomes_total", outcome="neutral") == 40
    assert front.metric("headrace_breaker_state") == 0


def test_of_64_clients_one_probes_and_questions_are_none(fake, router):
    """Half-open: an engine that has failed gets one request of all that come at once, and none for being explained."""
    may_answer = threading.Event()
    todo = [BROKEN, BROKEN]

    def script(peer):
        while peer.request():
            if todo:
                peer.send(todo.pop())
                continue
            assert may_answer.wait(60)
            peer.send(answer())
    worker = fake(script)
    front = router([worker], router={"threads": 4}, breaker={"failures": 2, "successes": 1, "open": "50ms", "open_max": "50ms"})
    assert ask(front, 2) == [500, 500]
    eventually(lambda: breakers(front)[worker.url]["left_ms"] == 0)
    before = breakers(front)[worker.url]
    moves = front.metric("headrace_breaker_transitions_total")

    def explain(n):
        with http(base_url=front.admin_url) as client:
            return [client.post("/explain", json=chat_body()).status_code for _ in range(n)]
    with ThreadPoolExecutor(8) as pool:
        assert {s for found in pool.map(explain, [250] * 8) for s in found} == {200}
    now = breakers(front)[worker.url]
    assert now | {"last_failure_ms": 0} == before | {"last_failure_ms": 0}
    assert front.metric("headrace_breaker_transitions_total") == moves and len(worker.requests) == 2

    barrier, statuses = threading.Barrier(64), []

    def come():
        barrier.wait(60)
        statuses.extend(ask(front, 1))
    clients = [threading.Thread(target=come) for _ in range(64)]
    for c in clients:
        c.start()
    eventually(lambda: statuses.count(503) == 63)
    assert len(worker.requests) == 3 and breakers(front)[worker.url]["probed"]
    may_answer.set()
    for c in clients:
        c.join()
    assert statuses.count(200) == 1 and len(worker.requests) == 3
    eventually(lambda: breakers(front)[worker.url]["state"] == "closed")


# --- by hand -------------------------------------------------------------------------------------


def test_by_hand(engine, router):
    workers = [engine(["m"]) for _ in range(2)]
    front = router(workers, health=ALONE)
    name = workers[0].url
    tripped = act(front, name, "trip")
    assert tripped.status_code == 200 and tripped.json()["breakers"][0]["state"] == "open"
    assert ask(front, 10) == [200] * 10
    assert workers[0].count("started") == 0 and workers[1].count("started") == 10
    assert act(front, name, "reset").json()["breakers"][0]["state"] == "closed"
    ask(front, 10)
    assert workers[0].count("started") == 5
    missing = act(front, "nobody", "trip")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "not_found"
    assert front.admin(f"/breakers/{quote(name, safe='')}/trip").status_code == 405      # a look changes nothing


def test_ctl(engine, router):
    worker = engine(["m"])
    front = router([worker], health=ALONE)
    code, shown, _ = ctl(front, "breakers")
    assert code == 0 and shown.splitlines()[0].split()[:2] == ["INSTANCE", "STATE"]
    assert shown.splitlines()[1].split()[:2] == [worker.url, "closed"]
    code, shown, _ = ctl(front, "trip", worker.url)
    assert code == 0 and shown.splitlines()[1].split()[:2] == [worker.url, "open"]
    assert front.chat().status_code == 503
    code, shown, _ = ctl(front, "reset", worker.url)
    assert code == 0 and shown.splitlines()[1].split()[:2] == [worker.url, "closed"]
    assert front.chat().status_code == 200
    assert ctl(front, "trip", "no?body/%")[::2] == (1, "headrace ctl: 404 not_found: there is no instance of that name\n")
    assert ctl(front, "trip")[0] == 2


def own_address():
    """One of this machine that is not of the loopback; None: it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))     # sends nothing
        except OSError:
            return None
        return s.getsockname()[0]


def test_who_may(engine, router):
    address = own_address()
    if not address or address.startswith("127."):
        pytest.skip("this machine has no address but the loopback's")
    for key in None, "sk-admin":
        worker = engine(["m"])
        front = router([worker], health=ALONE, admin={"host": "0.0.0.0"} | ({"key": key} if key else {}))
        assert act(front, worker.url, "trip").status_code == 200      # from here, without a key
        front.admin_url = front.admin_url.replace("127.0.0.1", address)
        refused = act(front, worker.url, "reset")
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        assert act(front, worker.url, "reset", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert breakers(front)[worker.url]["state"] == "open"          # to look is free
        right = act(front, worker.url, "reset", headers={"authorization": "Bearer sk-admin"})
        assert right.status_code == (200 if key else 401)
        assert "sk-admin" not in front.admin("/config").text
