"""An operator takes single engines out and lets them back in; engines say themselves that they drain. What they have
goes on, nothing new comes, and it is no outage."""
import subprocess
import threading
from urllib.parse import quote

import pytest

from fakeregistry import FakeRegistry, record
from fakeworker import STREAM_HEAD, answer, chunk
from program import BIN, chat_body, eventually, http, raw_request, read_to_end


def act(front, name, verb, **how):
    with http() as client:
        return client.post(f"{front.admin_url}/instances/{quote(name, safe='')}/{verb}", **how)


def done(reply):
    """-> what a call that was obeyed shows"""
    assert reply.status_code == 200, reply.text
    return reply.json()["instances"]


def ctl(front, *arguments):
    ended = subprocess.run([BIN, "ctl", "--admin", front.admin_url, *arguments], capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


def shown(front):
    return {s["name"]: s for s in front.get("/services").json()["services"]}


def await_states(front, *states):
    eventually(lambda: {s["status"] for s in shown(front).values()} == set(states))


def ask(front, n, **more):
    """-> the statuses of n requests, each over a connection of its own"""
    return [front.post("/v1/chat/completions", json=chat_body(max_tokens=2), **more).status_code for _ in range(n)]


def begin(front, headers=""):
    s = front.connect()
    s.sendall(raw_request(chat_body(stream=True), headers=headers))
    read_to_end(s, b"data: ")
    return s


class Slow:
    """An engine whose streams go on until they may end."""

    def __init__(self, fake, **how):
        self.may_end, self.n = threading.Event(), 0
        self.worker = fake(self.serve, **how)
        self.url = self.worker.url

    def serve(self, peer):
        while request := peer.request():
            self.n += 1
            if b'"stream": true' not in request[1]:
                peer.send(answer())
                continue
            peer.send(STREAM_HEAD, chunk(b"data: 1\n\n"))
            assert self.may_end.wait(60)
            peer.send(chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")


@pytest.fixture
def pair(fake, router):
    """-> two engines of which the first has a stream, that stream, and the router"""
    engines = [Slow(fake), Slow(fake)]
    front = router([e.worker for e in engines])
    stream = begin(front)
    if engines[1].n:
        engines.reverse()
    yield *engines, stream, front
    for e in engines:
        e.may_end.set()


def test_streams_end_by_themselves_and_nothing_new_comes(pair):
    drained, other, stream, front = pair
    now, = done(act(front, drained.url, "drain"))
    assert (now["instance"], now["state"], now["drained_by"], now["in_flight"]) == (drained.url, "draining", "operator", 1)
    assert ask(front, 20) == [200] * 20
    assert (drained.n, other.n) == (1, 20)
    for path in "/services", "/stats":
        row, = (s for s in front.get(path).json()["services"] if s["name"] == drained.url)
        assert (row["status"], row["healthy"], row["in_flight"]) == ("draining", False, 1)
    assert front.metric("headrace_instance_state", instance=drained.url) == 4
    assert front.metric("headrace_in_flight", instance=drained.url) == 1
    assert front.metric("headrace_instance_routable", instance=drained.url) == 0
    with http() as client:
        rows = {r["instance"]: r for r in client.post(f"{front.admin_url}/explain", json=chat_body()).json()["rows"]}
    assert rows[drained.url]["codes"] == ["draining"]
    drained.may_end.set()
    assert b"data: [DONE]" in read_to_end(stream, b"0\r\n\r\n")[0]
    eventually(lambda: shown(front)[drained.url]["in_flight"] == 0)
    assert done(act(front, drained.url, "drain"))[0]["state"] == "draining"       # again: nothing changes
    assert front.metric("headrace_instance_transitions_total", to="draining") == 1
    assert front.metric("headrace_instance_transitions_total", to="unhealthy") == 0
    assert front.metric("headrace_breaker_outcomes_total", outcome="bad") == 0
    now, = done(act(front, drained.url, "undrain"))
    assert now["state"] == "ready" and now["drained_by"] is None
    assert ask(front, 20) == [200] * 20 and 10 <= drained.n <= 12


def test_an_answer_means_that_it_is_done(engine, router):
    """Whichever thread takes a request that comes after it."""
    workers = [engine(["m"]), engine(["m"])]
    front = router(workers, router={"threads": 4})
    for i in range(20):
        out, other = workers[i % 2], workers[1 - i % 2]
        done(act(front, out.url, "drain"))
        before = out.count("started")
        assert ask(front, 8) == [200] * 8
        assert out.count("started") == before
        done(act(front, out.url, "undrain"))
        assert shown(front)[other.url]["healthy"]


def test_the_only_one_is_no_last_resort(engine, router):
    a, b = engine(["m"]), engine(["m"])
    front = router([a, b], health={"interval": "100ms"})
    done(act(front, a.url, "drain"))
    b.kill()
    eventually(lambda: front.ready_workers() == 0)
    reply = front.chat()
    assert reply.status_code in (502, 503)
    eventually(lambda: shown(front)[b.url]["status"] == "unhealthy")
    done(act(front, b.url, "disable"))
    reply = front.chat()
    assert reply.status_code == 503 and reply.json()["error"]["code"] == "no_healthy_instance"
    assert shown(front)[b.url]["status"] == "disabled"
    assert front.metric("headrace_panic_models") == 0
    assert front.get("/readiness").status_code == 503 and front.get("/v1/models").json()["data"] == []
    assert a.count("started") == 0
    done(act(front, a.url, "undrain"))
    eventually(lambda: front.chat().status_code == 200)


def test_sessions_move(engine, router):
    workers = [engine(["m"]) for _ in range(3)]
    front = router(workers, policy={"default": "session"})
    session = {"headers": {"x-session-id": "talk"}}
    assert ask(front, 5, **session) == [200] * 5
    home, = (w for w in workers if w.count("started"))
    done(act(front, home.url, "drain"))
    assert ask(front, 5, **session) == [200] * 5
    assert home.count("started") == 5


def test_a_stored_response_is_gone_with_its_engine(engine, router):
    """Others say that they have none of that id: 404, so that a client sends the conversation anew."""
    workers = [engine(["m"]) for _ in range(2)]
    front = router(workers)
    made = front.post("/v1/responses", json={"model": "m", "input": "hello", "max_output_tokens": 2}).json()["id"]
    owner, = (w for w in workers if w.count("started"))
    assert front.get(f"/v1/responses/{made}").status_code == 200
    done(act(front, owner.url, "drain"))
    assert front.get(f"/v1/responses/{made}").status_code == 404
    follow = {"model": "m", "input": "and?", "previous_response_id": made, "max_output_tokens": 2}
    assert front.post("/v1/responses", json=follow).status_code == 404
    done(act(front, owner.url, "undrain"))
    eventually(lambda: front.get(f"/v1/responses/{made}").status_code == 200)


def test_the_word_outlives_the_record(engine, router, start):
    a, b = engine(["m"]), engine(["m"])
    source = start(FakeRegistry, record("a", a.port), record("b", b.port), watch=True)
    front = router([], "--registry-url", source.url, ready=2, health={"interval": "100ms"})
    done(act(front, "a", "drain"))
    source.put(record("a", a.port, weight=3))
    eventually(lambda: shown(front)["a"]["weight"] == 3)
    assert shown(front)["a"]["status"] == "draining"
    source.delete("a")
    eventually(lambda: set(shown(front)) == {"b"})
    absent, = (i for i in front.admin("/instances").json()["instances"] if i["instance"] == "a")
    assert absent["state"] is None and absent["wished"]["state"] == "draining"
    moved = engine(["m"])
    source.put(record("a", moved.port))             # the same name, elsewhere
    eventually(lambda: set(shown(front)) == {"a", "b"})
    assert shown(front)["a"]["status"] == "draining"
    assert ask(front, 10) == [200] * 10
    assert a.count("started") == moved.count("started") == 0
    source.delete("a")
    eventually(lambda: set(shown(front)) == {"b"})
    assert done(act(front, "a", "undrain")) == []   # also of one that is away
    assert act(front, "a", "undrain").status_code == 404
    source.put(record("a", moved.port))
    eventually(lambda: shown(front).get("a", {}).get("status") == "ready")


def test_two_names_of_one_engine_are_drained_together(engine, router, start):
    worker, spare = engine(["m"]), engine(["m"])
    source = start(FakeRegistry, record("twin", worker.port), watch=True)
    front = router([worker, spare], "--registry-url", source.url, ready=3)
    await_states(front, "ready")
    rows = done(act(front, "twin", "drain"))
    assert [(r["instance"], r["state"]) for r in rows] == [("twin", "draining")]
    both = {i["instance"]: (i["state"], i["wished"]["state"]) for i in front.admin("/instances").json()["instances"]}
    assert both == {"twin": ("draining", "draining"), worker.url: ("draining", "draining"), spare.url: ("ready", None)}
    assert ask(front, 6) == [200] * 6 and worker.count("started") == 0
    done(act(front, worker.url, "undrain"))
    eventually(lambda: ask(front, 4) == [200] * 4 and worker.count("started") > 0)
    eventually(lambda: shown(front)["twin"]["status"] == "ready")


def test_a_weight_by_hand(engine, router):
    a, b = engine(["m"]), engine(["m"])
    front = router([a, b], router={"threads": 1})
    await_states(front, "ready")
    now, = done(act(front, a.url, "weight", json={"weight": 3}))
    assert now["weight"] == 3 and now["wished"] == {"state": None, "weight": 3}
    assert ask(front, 40) == [200] * 40
    assert (a.count("started"), b.count("started")) == (30, 10)
    done(act(front, a.url, "weight", json={"weight": 0}))
    assert ask(front, 10) == [200] * 10 and a.count("started") == 30
    done(act(front, a.url, "weight", json={"weight": None}))
    assert shown(front)[a.url]["weight"] == 1
    for wrong in b"", b"{}", b'{"weight":-1}', b'{"weight":1000001}', b'{"weight":"1"}', b'{"weight":1,"more":1}', b"[1]":
        refused = act(front, a.url, "weight", content=wrong)
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "bad_request"


def test_who_is_not_there_and_who_may_not(engine, router):
    worker = engine(["m"])
    front = router([worker])
    for verb in "drain", "undrain", "disable", "enable":
        missing = act(front, "nobody", verb)
        assert missing.status_code == 404 and missing.json()["error"]["code"] == "not_found"
        refused = act(front, worker.url, verb, headers={"origin": "http://page.example"})
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"
        assert front.admin(f"/instances/{quote(worker.url, safe='')}/{verb}").status_code == 405
    assert act(front, "nobody", "weight", json={"weight": 1}).status_code == 404
    await_states(front, "ready")
    assert front.metric("headrace_instance_transitions_total", to="draining") == 0


def test_ctl(engine, router):
    a, b = engine(["m"]), engine(["m"])
    front = router([a, b])
    code, text, _ = ctl(front, "drain", a.url)
    assert code == 0 and text.splitlines()[0].split() == ["INSTANCE", "SOURCE", "STATE", "DRAINED_BY", "WEIGHT", "IN_FLIGHT"]
    assert text.splitlines()[1].split() == [a.url, "static", "draining", "operator", "1", "0"]
    assert ask(front, 4) == [200] * 4 and a.count("started") == 0
    assert ctl(front, "weight", b.url, "2.5")[1].splitlines()[1].split()[4] == "2.500"
    assert ctl(front, "weight", b.url, "default")[1].splitlines()[1].split()[4] == "1"
    assert ctl(front, "disable", a.url)[1].splitlines()[1].split()[2] == "disabled"
    assert len(ctl(front, "instances")[1].splitlines()) == 3
    code, text, _ = ctl(front, "enable", a.url)
    assert code == 0 and text.splitlines()[1].split()[3] == "-"
    eventually(lambda: front.ready_workers() == 2)
    assert ctl(front, "drain", "no?body/%")[::2] == (1, "headrace ctl: 404 not_found: there is no instance of that name\n")
    for wrong in ["drain"], ["weight", a.url], ["weight", a.url, "much"], ["instances", "all"]:
        assert ctl(front, *wrong)[0] == 2


# --- by the engine's own word --------------------------------------------------------------------


class Leaver(Slow):
    """Its health page says what it is told."""
    page = answer()

    def serve(self, peer):
        take = peer.request

        def request():
            while (found := take()) and found[0].startswith(b"GET "):
                peer.send(self.page if b"/health" in found[0].split(b"\r\n")[0] else answer(status=b"404 No"))
            return found
        peer.request = request
        super().serve(peer)


def test_an_engine_says_that_it_drains(fake, router):
    leaver, other = Leaver(fake), Leaver(fake)
    front = router([leaver.worker, other.worker], health={"probe": True, "passive": True, "interval": "100ms", "slow_start": "0s"})
    await_states(front, "ready")
    stream = begin(front)
    if other.n:
        leaver, other = other, leaver
    leaver.page = answer(status=b"503 Draining", headers=b"Retry-After: 5\r\n")
    eventually(lambda: shown(front)[leaver.url]["status"] == "draining")
    listed = {i["instance"]: i for i in front.admin("/instances").json()["instances"]}
    assert (listed[leaver.url]["drained_by"], listed[leaver.url]["in_flight"]) == ("engine", 1)
    before = leaver.n
    assert ask(front, 10) == [200] * 10 and leaver.n == before
    leaver.may_end.set()
    assert b"data: [DONE]" in read_to_end(stream, b"0\r\n\r\n")[0]
    leaver.page = answer(status=b"500 Ending")      # and then it is away: no outage of anybody
    n_probes = front.metric("headrace_probes_total", outcome="bad")
    eventually(lambda: front.metric("headrace_probes_total", outcome="bad") >= n_probes + 4)
    assert shown(front)[leaver.url]["status"] == "draining"
    assert front.metric("headrace_instance_transitions_total", to="unhealthy") == 0
    assert front.metric("headrace_breaker_transitions_total") == 0 and front.metric("headrace_panic_models") == 0
    leaver.page = answer()
    eventually(lambda: shown(front)[leaver.url]["status"] == "ready")
    assert ask(front, 10) == [200] * 10 and leaver.n > before
    other.may_end.set()
