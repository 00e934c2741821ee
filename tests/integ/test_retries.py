"""What engines refuse goes to others: real engines, real clients, and a ledger of who was asked how often."""
from concurrent.futures import ThreadPoolExecutor

import pytest

from fakeworker import answer
from program import chat_body, http
from sdk import sdk

BUSY = answer(b'{"error":{"message":"full","code":503}}', b"503 Service Unavailable")


def answering(*answers):
    """A script: these answers in turn, the last one again and again."""
    todo = list(answers)

    def script(peer):
        while peer.request():
            peer.send(todo[0])
            if len(todo) > 1:
                todo.pop(0)
    return script


def test_a_busy_engine_costs_no_request(engine, router):
    """One of three refuses everything: the others do its work, once each, and no client hears of it."""
    workers = [engine(["m"]) for _ in range(3)]
    workers[1].fault("status:503")
    front = router(workers, health={"probe": False, "passive": False}, retry={"budget": 1})
    with sdk(front) as client, ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda i: client.chat.completions.create(
            model="m", max_tokens=2, messages=[{"role": "user", "content": f"{i}"}]), range(90)))
    assert len({m.id for m in made}) == 90
    assert workers[1].count("finished") == 0
    assert workers[0].count("finished") + workers[2].count("finished") == 90
    assert {r["status"] for r in front.log(90)} == {200}
    assert front.metric("headrace_retries_total") == sum(r["attempts"] - 1 for r in front.log(90)) > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_begins_once(engine, router, stream):
    workers = [engine(["m"]) for _ in range(2)]
    workers[0].fault("status:503")
    front = router(workers, health={"probe": False, "passive": False}, retry={"budget": 1})
    with sdk(front) as client:
        for i in range(10):
            made = client.chat.completions.create(model="m", max_tokens=4, stream=stream,
                                                  messages=[{"role": "user", "content": f"{i}"}])
            if stream:
                chunks = list(made)
                assert len({c.id for c in chunks}) == 1 and chunks[-1].choices[0].finish_reason
    assert workers[1].count("finished") == 10


def test_the_clients_answer_is_the_engines(fake, router):
    """All refuse: the last refusal reaches the client as it is, after no more attempts than were allowed."""
    refusal = answer(b'{"error":{"message":"full"}}', b"429 Too Many Requests", b"Retry-After: 7\r\n")
    workers = [fake(answering(refusal)) for _ in range(3)]
    front = router(workers, retry={"attempts": 2})
    r = front.chat()
    assert (r.status_code, r.headers["retry-after"], r.json()) == (429, "7", {"error": {"message": "full"}})
    assert sum(len(w.requests) for w in workers) == 2


def test_what_was_begun_is_not_repeated_unless_allowed(fake, router):
    def dies(peer):
        peer.request()
    for sent, status, asked in (False, 502, 1), (True, 502, 2):
        workers = [fake(dies) for _ in range(2)]
        front = router(workers, retry={"attempts": 2, "sent": sent})
        assert front.chat().status_code == status
        assert sum(len(w.requests) for w in workers) == asked


def test_a_storm_is_bounded(fake, router):
    """Half of the engines refuse all: what they and the others are asked is little more than what clients ask."""
    workers = [fake(answering(BUSY if i % 2 else answer())) for i in range(4)]
    front = router(workers, retry={"attempts": 5, "backoff": "1ms", "backoff_max": "2ms"})

    def ask(n):
        with http(base_url=front.url) as client:
            return [client.post("/v1/chat/completions", json=chat_body()).status_code for _ in range(n)]
    with ThreadPoolExecutor(8) as pool:
        statuses = [s for found in pool.map(ask, [150] * 8) for s in found]
    n_upstream = sum(len(w.requests) for w in workers)
    assert set(statuses) == {200, 503} and len(statuses) == 1200
    free = 2 * 3 * 2        # of each worker thread, and once more for what fades meanwhile
    assert 1200 < n_upstream <= 1200 * 1.2 + free
    assert front.metric("headrace_retries_denied_total") > 0


def test_a_refusal_is_told_of(engine, router):
    """The record of the decision has both engines and why the first was left."""
    workers = [engine(["m"]) for _ in range(2)]
    workers[0].fault("status:503")
    front = router(workers, health={"probe": False, "passive": False}, retry={"budget": 1})
    for _ in range(4):
        assert front.chat().status_code == 200
    records = front.admin("/decisions").json()["decisions"]
    moved = [r for r in records if len(r["attempts"]) == 2]
    assert moved and all(r["attempts"][0]["cause"] == "upstream_refused" and r["attempts"][1]["cause"] == "none" for r in moved)
    assert {r["attempts"][0]["instance"] for r in moved} == {workers[0].url}


def test_a_choice_that_dies_before_a_byte_is_left_for_another(fake, router):
    """Its request is sent once more, elsewhere, and the record names both engines and what became of the first."""
    def dies(peer):
        peer.request()
    workers = [fake(dies), fake(answering(answer())), fake(answering(answer()))]
    front = router(workers, router={"threads": 1}, retry={"attempts": 2, "sent": True, "budget": 1}, breaker={"enabled": False})
    for i in range(6):
        assert front.chat(headers={"x-request-id": f"r{i}"}).status_code == 200
    n_died = len(workers[0].requests)
    assert n_died > 0 and sum(len(w.requests) for w in workers) == 6 + n_died
    moved = [d for d in front.admin("/decisions").json()["decisions"] if d["n_attempts"] == 2]
    assert len(moved) == n_died
    for d in moved:
        first, second = d["attempts"]
        assert first["instance"] == workers[0].url and first["cause"] != "none"
        assert second["instance"] == d["chosen"]["instance"] != workers[0].url and second["cause"] == "none"
        assert "retry_exclude" in d["reasons"]
        assert (workers[0].url, "already_tried") in [(r["instance"], r["code"]) for r in d["rejected"]]


def test_a_body_that_is_too_large_to_be_kept_says_so(fake, router):
    """Its refusal is the client's: the log and the decision say why nobody else was asked."""
    workers = [fake(answering(BUSY)) for _ in range(2)]
    front = router(workers, breaker={"enabled": False})
    reply = front.chat(body={"messages": [{"role": "user", "content": "x" * 1_600_000}]})
    assert reply.status_code == 503 and "x-should-retry" not in reply.headers
    line, = front.log(1)
    assert (line["attempts"], line["no_retry"]) == (1, "not_replayable")
    assert front.admin("/decisions").json()["decisions"][0]["no_retry"] == "not_replayable"


@pytest.mark.parametrize("flags, n_asked", [(["--disable-retries"], 1), ([], 2)])
def test_a_get_is_repeated_only_where_retries_are_on(fake, router, flags, n_asked):
    def dies(peer):
        peer.request()
    workers = [fake(dies) for _ in range(2)]
    front = router(workers, *flags, retry={} if flags else {"attempts": 2}, breaker={"enabled": False})
    with http() as client:
        assert client.get(f"{front.url}/any").status_code == 502
    assert sum(len(w.requests) for w in workers) == n_asked
    line, = front.log(1)
    assert line["no_retry"] == "attempts"
