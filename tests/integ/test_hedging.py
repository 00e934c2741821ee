"""A second engine for answers that are late: real engines, one of them slow, and their own accounts of who was asked."""
from concurrent.futures import ThreadPoolExecutor

import pytest

from program import chat_body, counts, eventually, raw_request
from sdk import sdk

ON = {"enabled": True, "wait_min": "60ms", "budget": 1}
QUIET = {"router": {"threads": 1}, "health": {"probe": False, "passive": False}}    # a thread learns for itself


@pytest.fixture
def pair(engine, router):
    def make(hedge=ON):
        engines = [engine(["m"]) for _ in range(2)]
        return router(engines, hedge=hedge, **QUIET), engines
    return make


def ask(client, i, stream=False):
    made = client.chat.completions.create(model="m", max_tokens=4, stream=stream,
                                          messages=[{"role": "user", "content": f"{i}"}])
    return "".join(c.choices[0].delta.content or "" for c in made if c.choices) if stream \
        else made.choices[0].message.content


def teach(front, stream=False):
    """What is usual: answers that come at once."""
    with sdk(front) as client:
        for i in range(40):
            assert ask(client, i, stream)


def settled(engines):
    """Nothing is at work at any engine."""
    def is_done():
        return all(e.count("started") == e.count("finished") + e.count("cancelled") + e.count("failed") for e in engines)
    eventually(is_done)


@pytest.mark.parametrize("stream, fault", [(False, "hang_head"), (True, "hang_head"), (True, "hang_stream:0")])
def test_a_hanging_engine_keeps_nobody_waiting(pair, stream, fault):
    """What it was asked is cancelled there, and answered by the other one; clients hear nothing of it."""
    front, engines = pair()
    teach(front, stream)
    settled(engines)
    before = [e.count("finished") for e in engines]
    hedges, cancelled = front.metric("headrace_hedges_total"), engines[0].count("cancelled")
    engines[0].fault(fault)
    with sdk(front) as client, ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda i: ask(client, 100 + i, stream), range(20)))
    assert all(texts)
    settled(engines)
    hedges = front.metric("headrace_hedges_total") - hedges
    assert hedges == engines[0].count("cancelled") - cancelled > 0
    assert front.metric("headrace_hedges_won_total") > 0
    assert engines[0].count("finished") == before[0]
    assert engines[1].count("finished") == before[1] + 20
    assert {r["status"] for r in front.log(60)} == {200}
    late = [r for r in front.log(60)[40:] if r["attempts"] == 2]
    assert len(late) == hedges and {r["instance"] for r in late} == {engines[1].url}


def test_the_slower_one_is_cancelled(pair):
    """Both work: the first good answer counts, whoever's it is, and each request has exactly one."""
    front, engines = pair()
    teach(front)
    engines[0].fault("latency:400ms")
    with sdk(front) as client:
        for i in range(6):
            assert ask(client, 100 + i)
    settled(engines)
    hedges = front.metric("headrace_hedges_total")
    assert hedges > 0
    assert counts(engines, "finished") + counts(engines, "cancelled") == counts(engines, "started") <= 46 + hedges
    assert {(r["status"], r["cause"]) for r in front.log(46)} == {(200, "none")}


def test_off_by_default(pair):
    front, engines = pair({})
    teach(front)
    engines[0].fault("latency:400ms")
    with sdk(front) as client:
        for i in range(4):
            assert ask(client, 100 + i)
    assert (counts(engines, "started"), front.metric("headrace_hedges_total")) == (44, 0)


def test_the_budget_holds_when_all_are_slow(pair):
    front, engines = pair(ON | {"budget": 0.05})
    teach(front)
    for e in engines:
        e.fault("latency:300ms")
    with sdk(front) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: ask(client, 100 + i), range(40)))
    settled(engines)
    assert front.metric("headrace_hedges_denied_total") > 0
    assert front.metric("headrace_hedges_total") <= 80 * 0.05
    assert counts(engines, "started") <= 80 * 1.05


def test_what_is_stored_is_made_once(pair):
    front, engines = pair()
    for i in range(40):
        assert front.post("/v1/responses", json={"model": "m", "input": f"{i}"}).status_code == 200
    for e in engines:
        e.fault("latency:300ms")
    for i in range(4):
        assert front.post("/v1/responses", json={"model": "m", "input": f"late {i}"}).status_code == 200
    assert (counts(engines, "started"), front.metric("headrace_hedges_total")) == (44, 0)


def test_a_client_that_leaves_ends_both(pair):
    front, engines = pair()
    teach(front)
    settled(engines)
    hedges = front.metric("headrace_hedges_total")       # a machine that stood still may have had some
    started, cancelled = counts(engines, "started"), counts(engines, "cancelled")
    for e in engines:
        e.fault("hang_head")
    with front.connect() as s:
        s.sendall(raw_request(chat_body(messages=[{"role": "user", "content": "1"}])))
        eventually(lambda: front.metric("headrace_hedges_total") == hedges + 1)
    settled(engines)
    assert counts(engines, "started") == started + 2
    assert counts(engines, "cancelled") == cancelled + 2
    eventually(lambda: front.metric("headrace_client_aborts_total") == 1)
    assert front.log(41)[-1]["status"] == 499
