"""States of engines as the running router sees them: probes, failed requests, hung streams, babysitters."""
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

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
        Router, engines, *flags, **tables | {"health": QUICK | tables.get("health", {}),
                                             "discovery": {"scrape": "off"} | tables.get("discovery", {})})


class Scripted(FakeWorker):
    """Answers /health by `well`, lists model m, other paths by `pages[path](peer)`, all else by `reply(peer)`.

    It has no metrics unless `pages` says so.
    """

    def __init__(self, reply=None, well=200, has_page=True, pages=()):
        self.well, self.reply, self.has_page, self.asked = well, reply, has_page, []
        self.pages = {"/metrics": lambda peer: peer.send(answer(b"{}", b"404 None"))} | dict(pages)
        super().__init__(self.talk, declared=[])

    def talk(self, peer):
        while found := peer.request():
            path = found[0].split(b" ")[1].decode()
            self.asked.append(path)
            if path == "/v1/models":
                peer.send(answer(b'{"data":[{"id":"m"}]}'))
            elif path == "/health":
                peer.send(answer(b"{}", b"%d Word" % (self.well if self.has_page else 404)))
            elif path in self.pages:
                self.pages[path](peer)
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


def test_another_page_may_be_the_one_that_is_asked(start, front):
    """As vLLM's router has it: --health-check-endpoint, and so many good answers before it is back."""
    well = threading.Event()
    well.set()
    page = {"/well": lambda peer: peer.send(answer(b"{}", b"200 OK" if well.is_set() else b"500 Ill"))}
    worker = start(Scripted, pages=page)
    router = front([worker], health={"endpoint": "/well", "successes": 3})
    eventually(lambda: states(router)[worker.url] == "ready")
    assert "/health" not in worker.asked and "/well" in worker.asked
    well.clear()
    eventually(lambda: states(router)[worker.url] == "unhealthy")
    asked = len(worker.asked)
    well.set()
    eventually(lambda: states(router)[worker.url] in ("ready", "degraded"))
    assert worker.asked[asked:].count("/well") >= 3
    assert "/health" not in worker.asked
    router.reconfigure(health={"endpoint": "/health"})
    router.process.send_signal(signal.SIGHUP)
    eventually(lambda: "/health" in worker.asked)


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


def paths(engine):
    """What a mock engine was asked for of late."""
    return [request["path"] for request in engine.captured()["requests"]]


def hang(router, n=1):
    """Plain requests of which nobody awaits the answer."""
    peers = [router.connect() for _ in range(n)]
    for peer in peers:
        peer.sendall(raw_request(chat_body()))
    return peers


def let_go(peers):
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("canary", [True, False])
def test_an_engine_that_begins_no_answer_and_whose_counters_stand_still_is_out(engine, front, canary):
    hung, well = engine(["m"]), engine(["m"])
    router = front([hung, well], health={"stall_timeout": "300ms", "canary": canary})
    eventually(lambda: set(states(router).values()) == {"ready"})
    hung.fault("hang_head")
    peers = hang(router, 6)
    eventually(lambda: states(router)[hung.url] == "unhealthy")
    assert "/metrics" in paths(hung) and "/v1/completions" not in paths(hung)       # there are counters: no canary
    assert hung.get("/health").status_code == 200 and states(router)[well.url] != "unhealthy"
    assert '"reason":"requests wait, no progress"' in router.output()
    assert [router.chat().status_code for _ in range(10)] == [200] * 10
    hung.fault("none")
    let_go(peers)
    eventually(lambda: states(router)[hung.url] == "ready")
    assert ("/v1/completions" in paths(hung)) == canary
    assert "/metrics" not in paths(well)                                # nobody suspected it


def test_an_engine_without_counters_is_asked_for_one_token(start, front):
    """It hangs until the test lets it go on: the canary is not answered either, and brings it back once it is."""
    go_on = threading.Event()

    def reply(peer):
        go_on.wait(60)
        peer.send(answer())

    hung = start(Scripted, reply)
    router = front([hung], discovery={"engine_key": "sesame-street"}, health={"stall_timeout": "300ms"})
    eventually(lambda: states(router)[hung.url] == "ready")
    peers = hang(router)
    eventually(lambda: states(router)[hung.url] == "unhealthy")
    let_go(peers)
    canaries = [(head, body) for head, body in hung.requests if b"POST /v1/completions " in head]
    assert len(canaries) == 1 and b'"model":"m","max_tokens":1,"stream":false' in canaries[0][1]
    assert b"Bearer sesame-street" in canaries[0][0]
    eventually(lambda: hung.asked.count("/v1/completions") > 1)         # its time out is over, and it hangs still
    assert states(router)[hung.url] == "unhealthy"
    go_on.set()
    eventually(lambda: states(router)[hung.url] == "ready")


def test_who_answers_the_canary_is_only_slow(start, front):
    go_on = threading.Event()

    def reply(peer):
        go_on.wait(60)
        peer.send(answer())

    slow = start(Scripted, reply, pages={"/v1/completions": lambda peer: peer.send(answer())})
    router = front([slow], health={"stall_timeout": "1s"})
    eventually(lambda: states(router)[slow.url] == "ready")
    peers = hang(router, 3)
    eventually(lambda: slow.asked.count("/v1/completions") > 1)
    assert was_never_out(router)
    go_on.set()
    let_go(peers)


def test_a_slow_engine_that_works_stays(engine, front):
    """Its answers take many stall timeouts to begin, since they are whole, but its counters move."""
    slow = engine(["m"], "--itl", "10ms")
    router = front([slow], health={"stall_timeout": "500ms"})
    eventually(lambda: states(router)[slow.url] == "ready")
    with ThreadPoolExecutor(2) as pool:
        replies = [pool.submit(router.chat, body={"max_tokens": 500, "ignore_eos": True}) for _ in range(2)]
        assert [r.result().status_code for r in replies] == [200] * 2
    assert was_never_out(router)
    assert slow.count("started") == 2                                   # no canary
    assert paths(slow).count("/metrics") > 3


def endless(first):
    """A page that begins so and goes on until the router has had enough."""
    def page(peer):
        peer.send(first)
        while True:
            peer.send(b"vllm:generation_tokens_total{" + b"x" * 65536)
    return page


@pytest.mark.parametrize("page", [
    endless(b"HTTP/1.1 200 OK\r\n\r\n"), endless(b""),
    lambda peer: peer.send(answer(b"vllm:generation_tokens_total{" * 100000)),
    lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n") or peer.wait_for_end(),
], ids=["endless", "no-http", "garbage", "silent"])
def test_hostile_metrics_do_no_harm(start, front, page):
    go_on = threading.Event()
    hostile = start(Scripted, lambda peer: go_on.wait(60),
                    pages={"/metrics": page, "/v1/completions": lambda peer: peer.send(answer())})
    router = front([hostile], health={"stall_timeout": "100ms", "timeout": "300ms"})
    eventually(lambda: states(router)[hostile.url] == "ready")
    peers = hang(router, 2)
    eventually(lambda: hostile.asked.count("/v1/completions") > 2)      # the page has been got over
    before = router.rss_bytes(), router.descriptors()
    n = len(hostile.asked)
    eventually(lambda: hostile.asked[n:].count("/v1/completions") > 4)
    assert router.rss_bytes() < before[0] + (8 << 20) and router.descriptors() < before[1] + 8
    eventually(lambda: states(router)[hostile.url] == "ready")          # as soon as a canary is answered in time
    assert router.get("/liveness").status_code == 200
    go_on.set()
    let_go(peers)


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


def test_in_a_panic_a_babysitters_no_is_not_the_last_word(start, engine, front):
    """All are denied, and all would serve: it is the babysitters that err."""
    ports = [free_port(2) for _ in range(3)]
    workers = [engine(["m"], port=port) for port in ports]
    sitters = [start(Sitter, port + 1, b"200 OK") for port in ports]
    source = start(FakeRegistry, *[record(f"s{i}", port) for i, port in enumerate(ports)], watch=True)
    router = front([], discovery={"registry_url": source.url})
    eventually(lambda: set(states(router).values()) == {"ready"} and len(states(router)) == 3)
    sitters[0].status = b"503 No"
    eventually(lambda: states(router)["s0"] == "unhealthy")
    before = workers[0].count("started")
    assert [router.chat().status_code for _ in range(10)] == [200] * 10
    assert workers[0].count("started") == before        # no panic for one of three
    for sitter in sitters:
        sitter.status = b"503 No"
    eventually(lambda: set(states(router).values()) == {"unhealthy"})
    eventually(lambda: router.metric("headrace_panic_models") == 1)
    eventually(lambda: router.chat().status_code == 200 and all(w.count("finished") for w in workers))
    for sitter in sitters:
        sitter.status = b"200 OK"
    eventually(lambda: set(states(router).values()) == {"ready"})
    assert router.metric("headrace_panic_models") == 0


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
