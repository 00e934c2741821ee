"""States of engines as the running router sees them: probes, failed requests, hung streams, babysitters."""
import threading

import pytest

from fakeregistry import FakeRegistry, record
from fakeworker import STREAM_HEAD, FakeWorker, answer, chunk
from ports import free_port
from program import Router, chat_body, eventually, http, raw_request

QUICK = {"interval": "100ms", "timeout": "30s", "slow_start": "0s"}


def states(router):
    """name -> state"""
    return {s["name"]: s["status"] for s in router.get("/services").json()["services"]}


def was_never_out(router):
    """Also where a busy machine has kept probes waiting, and with them the word that all is well."""
    return router.metric("headrace_instance_transitions_total", to="unhealthy") == 0


@pytest.fixture
def front(start):
    return lambda engines, *flags, **tables: start(
        Router, engines, *flags, **tables | {"health": QUICK | tables.get("health", {})})


class Scripted(FakeWorker):
    """Answers /health by `well`, lists model m, and everything else by `reply(peer)`."""

    def __init__(self, reply=None, well=200, has_page=True):
        self.well, self.reply, self.has_page, self.asked = well, reply, has_page, []
        super().__init__(self.talk, declared=[])

    def talk(self, peer):
        while found := peer.request():
            path = found[0].split(b" ")[1].decode()
            self.asked.append(path)
            if path == "/v1/models":
                peer.send(answer(b'{"data":[{"id":"m"}]}'))
            elif path == "/health":
                peer.send(answer(b"{}", b"%d Word" % (self.well if self.has_page else 404)))
            elif self.reply:
                self.reply(peer)
            else:
                peer.send(answer())


def test_a_killed_engine_is_out_and_comes_back(engine, front):
    a, b = engine(["m"]), engine(["m"])
    router = front([a, b], health={"slow_start": "1s"})
    eventually(lambda: states(router) == {a.url: "ready", b.url: "ready"})
    a.kill()
    eventually(lambda: states(router)[a.url] == "unhealthy")
    assert router.ready_workers() == 1 and router.get("/health").json()["healthy_services"] == "1/2"
    assert [router.chat().status_code for _ in range(10)] == [200] * 10
    assert router.metric("headrace_instance_state", instance=a.url) == 3
    a.restart()
    eventually(lambda: states(router)[a.url] == "ready")
    eventually(lambda: router.chat().status_code == 200 and a.count("finished") > 0)
    assert router.metric("headrace_instance_transitions_total", to="unhealthy") == 1
    assert '"to":"unhealthy","reason":"connect failed"' in router.output()


def test_an_engine_that_says_it_is_ill_gets_no_requests(engine, front):
    a, b = engine(["m"]), engine(["m"])
    router = front([a, b])
    a.fault("health:fail")
    eventually(lambda: states(router)[a.url] == "unhealthy")
    before = a.count("started")
    assert [router.chat().status_code for _ in range(10)] == [200] * 10 and a.count("started") == before
    a.fault("health:ok")
    eventually(lambda: states(router)[a.url] == "ready")


def test_an_engine_without_a_health_page_is_asked_for_its_models(start, front):
    worker = start(Scripted, has_page=False)
    router = front([worker])
    eventually(lambda: states(router) == {worker.url: "ready"})
    assert "/health" in worker.asked


def test_failed_requests_eject_though_probes_are_good(start, engine, front):
    bad = start(Scripted, lambda peer: peer.send(answer(b"{}", b"500 Oh")))
    good = engine(["m"])
    router = front([bad, good])
    eventually(lambda: set(states(router).values()) == {"ready"})
    eventually(lambda: router.chat() and states(router)[bad.url] == "unhealthy")
    with http(base_url=router.url) as client:       # no time to lose: the hold ends after 5 s
        assert [client.post("/v1/chat/completions", json=chat_body()).status_code for _ in range(20)] == [200] * 20
    assert '"reason":"failed requests in a row","held_ms":5000' in router.output()


def test_who_refuses_for_lack_of_room_is_not_ill(start, front):
    worker = start(Scripted, lambda peer: peer.send(answer(b"{}", b"503 Full")))
    router = front([worker])
    eventually(lambda: states(router)[worker.url] == "ready")
    assert [router.chat().status_code for _ in range(10)] == [503] * 10
    probes = router.metric("headrace_probes_total", outcome="good")
    eventually(lambda: router.metric("headrace_probes_total", outcome="good") > probes + 2)
    assert was_never_out(router)


def test_passive_evidence_can_be_switched_off(start, front):
    worker = start(Scripted, lambda peer: peer.send(answer(b"{}", b"500 Oh")))
    router = front([worker], health={"passive": False})
    eventually(lambda: states(router)[worker.url] == "ready")
    assert [router.chat().status_code for _ in range(10)] == [500] * 10
    probes = router.metric("headrace_probes_total", outcome="good")
    eventually(lambda: router.metric("headrace_probes_total", outcome="good") > probes + 2)
    assert was_never_out(router)


def test_the_only_engine_is_always_tried(engine, front):
    a = engine(["m"])
    router = front([a])
    a.kill()
    eventually(lambda: states(router)[a.url] == "unhealthy")
    assert router.get("/readiness").status_code == 503 and router.get("/v1/models").json()["data"] == []
    assert router.chat().status_code == 502           # it was tried: nobody said that there is none
    assert router.metric("headrace_panic_models") == 0


def test_when_most_are_ill_all_are_served_but_the_refused(engine, front):
    ill, dead, well = [engine(["m"]), engine(["m"])], engine(["m"]), engine(["m"])
    router = front([*ill, dead, well])
    eventually(lambda: router.ready_workers() == 4)
    dead.kill()
    for worker in ill:
        worker.fault("health:fail")
    eventually(lambda: router.metric("headrace_panic_models") == 1)
    assert "get requests all the same" in router.output()
    eventually(lambda: router.chat().status_code == 200 and all(e.count("finished") for e in (*ill, well)))
    for worker in ill:
        worker.fault("health:ok")
    eventually(lambda: router.metric("headrace_panic_models") == 0)


def test_a_hung_engine_is_out_and_comes_back(start, front):
    """Its health page is well all the time; its streams stand still until the test lets them go on."""
    go_on = threading.Event()

    def stream(peer):
        peer.send(STREAM_HEAD, chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'))
        go_on.wait(60)
        peer.send(chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")

    hung = start(Scripted, stream)
    router = front([hung], health={"stall_timeout": "500ms"})
    eventually(lambda: states(router)[hung.url] == "ready")
    with http() as client, client.stream("POST", router.url + "/v1/chat/completions",
                                         json=chat_body(stream=True)) as reply:
        lines = reply.iter_lines()
        next(lines)
        eventually(lambda: states(router)[hung.url] == "unhealthy")
        assert '"reason":"streams stalled"' in router.output()
        go_on.set()
        assert "data: [DONE]" in list(lines)
    eventually(lambda: states(router)[hung.url] == "ready")


def test_a_stream_that_the_client_does_not_read_is_no_stall(start, engine, front):
    worker = engine(["m"], "--itl", "0ms")
    router = front([worker], health={"stall_timeout": "1s"})
    eventually(lambda: states(router)[worker.url] == "ready")
    s = router.connect()
    s.sendall(raw_request(chat_body(stream=True, max_tokens=200000)))
    s.recv(1)
    probes = router.metric("headrace_probes_total", outcome="good")
    eventually(lambda: router.metric("headrace_probes_total", outcome="good") > probes + 15)
    assert was_never_out(router)
    s.close()


class Sitter(FakeWorker):
    """A babysitter's /health."""

    def __init__(self, port, status, body=b'{"babysitter":"enhanced"}'):
        self.status, self.body = status, body
        super().__init__(self.talk, declared=[], port=port)

    def talk(self, peer):
        while peer.request():
            peer.send(answer(self.body, self.status))


@pytest.fixture
def pair(start, engine):
    """An engine of a registry, with something at the port next to it."""
    def begin(*sitter):
        port = free_port(2)
        worker = engine(["m"], port=port)
        return worker, start(Sitter, port + 1, *sitter), start(FakeRegistry, record("one", port), watch=True)
    return begin


def test_a_babysitter_that_says_no_is_believed(pair, front):
    worker, sitter, source = pair(b"200 OK")
    router = front([], discovery={"registry_url": source.url})
    eventually(lambda: states(router) == {"one": "ready"})
    sitter.status = b"503 No"
    eventually(lambda: states(router) == {"one": "unhealthy"})
    source.put(record("one", worker.port, weight=2))            # no sync undoes it
    eventually(lambda: router.get("/services").json()["services"][0]["weight"] == 2)
    assert states(router) == {"one": "unhealthy"}
    sitter.status = b"200 OK"
    eventually(lambda: states(router) == {"one": "ready"})


def test_what_is_no_babysitter_has_no_say(pair, front):
    """Another engine at the next port, and it is ill."""
    _, sitter, source = pair(b"503 No", b'{"status":"loading"}')
    router = front([], discovery={"registry_url": source.url})
    eventually(lambda: len(sitter.requests) > 3)
    assert was_never_out(router) and states(router).keys() == {"one"}


def test_static_engines_have_no_babysitter(start, engine, front):
    port = free_port(2)
    worker, other = engine(["m"], port=port), start(Sitter, port + 1, b"503 No")
    router = front([worker])
    eventually(lambda: router.metric("headrace_probes_total", outcome="good") > 5)
    assert other.requests == [] and was_never_out(router)
    assert router.get("/services").json()["services"][0]["babysitter_url"] is None


def test_probes_carry_the_engines_key(start, front):
    worker = start(Scripted)
    router = front([worker], discovery={"engine_key": "sesame-street"})
    eventually(lambda: states(router)[worker.url] == "ready")
    probes = [head for head, _ in worker.requests if b" /health " in head]
    assert probes and all(b"Bearer sesame-street" in head for head in probes)
    assert "sesame-street" not in router.admin("/config").text + router.output()


def test_probes_can_be_switched_off(start, front):
    worker = start(Scripted)
    router = front([worker], health={"probe": False})
    assert states(router) == {worker.url: "ready"} and router.chat().status_code == 200
    assert "/health" not in worker.asked
