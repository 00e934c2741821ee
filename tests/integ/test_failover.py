"""Engines that are dead, die, close and come back: what was not sent moves on, what was sent is not repeated."""
import threading
import time

from fakeworker import answer
from ports import free_port
from program import chat_body, eventually, http, raw_request, read_to_end


def chats(front, n, **how):
    with http(base_url=front.url) as client:
        return [client.post("/v1/chat/completions", json=chat_body(max_tokens=1),
                            headers={"x-request-id": f"r{i}"}).status_code for i in range(n)]


class Gone:
    """An engine that was declared and is not there."""

    def __init__(self):
        self.url, self.declared = f"http://127.0.0.1:{free_port()}", ["m"]


def test_a_dead_engine_costs_nothing(engine, router):
    alive = engine(["m"])
    front = router([alive, Gone()], ready=1)
    assert chats(front, 60) == [200] * 60
    assert alive.count("finished") == 60
    records = front.log(60)
    assert sum(r["attempts"] for r in records) < 60 + 30    # it is left alone after a refusal, not asked each time


def test_all_engines_dead(router):
    front = router([Gone(), Gone()], ready=0)
    replies = [front.chat() for _ in range(10)]
    assert {(r.status_code, r.json()["error"]["code"]) for r in replies} <= {(502, "upstream_failed"), (503, "no_healthy_instance")}


def test_an_engine_that_is_shot_under_load(engine, router):
    """What fails was begun before the dead engine was gone; each id was started once at most."""
    workers = [engine(["m"], "--fault", "latency:20ms") for _ in range(2)]
    front = router(workers)
    outcomes, begun = {}, {}

    def load(client_number):
        with http(base_url=front.url) as client:
            for i in range(60):
                name = f"c{client_number}-{i}"
                begun[name] = time.monotonic()
                outcomes[name] = client.post("/v1/chat/completions", json=chat_body(max_tokens=1),
                                             headers={"x-request-id": name}).status_code
    threads = [threading.Thread(target=load, args=(c,)) for c in range(6)]
    for t in threads:
        t.start()
    eventually(lambda: len(outcomes) > 60)
    workers[0].kill()
    gone = time.monotonic()
    for t in threads:
        t.join()
    failed = [name for name, status in outcomes.items() if status != 200]
    assert len(outcomes) == 360 and {outcomes[name] for name in failed} <= {502} and not [n for n in failed if begun[n] > gone]
    started = [row["id"] for row in workers[1].ledger()["generations"]]
    assert len(started) == len(set(started)) and not set(failed) & set(started)


def test_an_engine_that_comes_back(engine, router):
    worker = engine(["m"])
    front = router([worker])
    assert front.chat().status_code == 200
    worker.restart()
    eventually(lambda: front.chat().status_code == 200)
    worker.kill()
    assert front.chat().status_code in (502, 503)
    worker.restart()
    eventually(lambda: front.chat().status_code == 200)


def test_engines_that_restart_in_turn_lose_nothing_of_what_comes_later(engine, router):
    workers = [engine(["m"]) for _ in range(3)]
    front = router(workers)
    for worker in workers:
        worker.kill()
        assert chats(front, 20) == [200] * 20
        worker.restart()


def test_idle_connections_that_the_engine_closes_lose_nothing(fake, router):
    """A connection whose close was seen is not handed out again."""
    worker = fake(lambda peer: peer.request() and peer.send(answer()))
    front = router([worker], router={"threads": 1})
    for n in range(1, 9):
        assert front.chat().status_code == 200
        eventually(lambda: front.metric("headrace_connections", side="engine") == 0)
        assert worker.n_connections == n == len(worker.requests)


def test_a_request_that_an_engine_took_is_not_repeated(fake, router):
    """On a reused connection the engine reads the request and closes without a byte: it may have begun to work."""
    def script(peer):
        peer.request()
        peer.send(answer())
        peer.request()
    workers = [fake(script), fake(script)]
    front = router(workers, router={"threads": 1}, timeout={"pool_idle": "60s"})
    assert chats(front, 2) == [200, 200]
    before = sum(len(w.requests) for w in workers)
    assert chats(front, 1) == [502]
    assert sum(len(w.requests) for w in workers) == before + 1


def test_a_get_is_repeated(fake, router):
    def dropping(peer):
        peer.request()

    def good(peer):
        while peer.request():
            peer.send(answer())
    dropper = fake(dropping)
    front = router([dropper, fake(good)], router={"threads": 1})
    with http(base_url=front.url) as client:
        assert [client.get("/any").status_code for _ in range(6)] == [200] * 6
    assert len(dropper.requests) == 3


def test_a_large_body_moves_on_too(engine, router):
    alive = engine(["m"])
    front = router([Gone(), alive], ready=1, router={"threads": 1})
    body = chat_body(pad="x" * 3_000_000)
    for _ in range(4):
        assert front.post("/v1/chat/completions", json=body).status_code == 200
    assert alive.count("finished") == 4


def test_a_slow_engine_does_not_slow_the_others(engine, router):
    slow, quick = engine(["slow"], "--fault", "hang_head"), engine(["quick"])
    front = router([slow, quick], router={"threads": 1})
    waiting = [front.connect() for _ in range(100)]
    for s in waiting:
        s.sendall(raw_request(chat_body("slow")))
    eventually(lambda: slow.count("started") == 100)
    for _ in range(20):
        assert front.chat("quick").status_code == 200
    slow.kill()
    for s in waiting:
        assert read_to_end(s, b"}}")[0].startswith(b"HTTP/1.1 502 ")
