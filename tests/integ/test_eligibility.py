"""Who may get a request, and what a client is told when nobody may."""
import threading

import pytest

from fakeworker import answer
from program import eventually, http


def serve(peer):
    while peer.request():
        peer.send(answer())


def count(engines):
    return [len(e.requests) for e in engines]


def refusal(reply):
    """-> (status, code)"""
    return reply.status_code, reply.json()["error"]["code"]


def fleet(fake, router, labels, **tables):
    engines = [fake(serve) for _ in labels]
    return engines, router(engines, labels=labels, **tables)


def test_a_rerank_never_reaches_who_only_chats(fake, router):
    labels = [{"capabilities": "chat"}, {"capabilities": "rerank"}, {"capabilities": "chat,completion"}]
    engines, front = fleet(fake, router, labels)
    for _ in range(6):
        assert front.post("/v1/rerank", json={"model": "m", "query": "q"}).status_code == 200
    assert count(engines) == [0, 6, 0]
    for _ in range(6):
        assert front.chat().status_code == 200
    assert count(engines)[1] == 6 and sum(count(engines)) == 12
    assert refusal(front.post("/v1/embeddings", json={"model": "m", "input": "q"})) == (400, "unsupported_capability")
    assert sum(count(engines)) == 12 and "unsupported_capability" in [line["cause"] for line in front.log(13)]


def test_nobody_who_is_not_cleared_gets_a_private_request(fake, router):
    labels = [{"clearance": "internal"}, {"clearance": "confidential"}, {}]
    engines, front = fleet(fake, router, labels, privacy={"floor": "confidential"})
    for _ in range(6):
        assert front.chat().status_code == 200
    assert count(engines) == [0, 6, 0]
    assert refusal(router(engines, labels=labels, privacy={"floor": "restricted"}).chat()) == (403, "privacy_violation")
    assert count(engines) == [0, 6, 0]


def test_no_last_resort_is_less_private(fake, router):
    """Two of three are cleared and gone: the one that is left is not asked."""
    engines, front = fleet(fake, router, [{"clearance": "internal"}, {"clearance": "internal"}, {}],
                           privacy={"floor": "internal"})
    for e in engines[:2]:
        e.stop()
        e.stop = lambda: None
    for _ in range(3):
        assert refusal(front.chat()) == (502, "upstream_failed")
    assert count(engines) == [0, 0, 0]


def test_no_retry_is_less_private(fake, router):
    """All that are cleared refuse, and there are attempts left: neither who is cleared for less nor who is not
    labelled is asked, and no header of the client makes them eligible."""
    def refuse(peer):
        while peer.request():
            peer.send(answer(status=b"503 Busy"))
    engines = [fake(refuse), fake(refuse), fake(serve), fake(serve)]
    labels = [{"clearance": "confidential"}, {"clearance": "restricted"}, {"clearance": "internal"}, {}]
    front = router(engines, labels=labels, privacy={"floor": "confidential"},
                   retry={"attempts": 5, "backoff": "1ms", "backoff_max": "2ms", "budget": 1})
    for asked in None, "public", "internal":
        reply = front.chat(headers={"x-headrace-privacy": asked} if asked else {})
        assert reply.status_code == 503
    assert min(count(engines)[:2]) >= 3 and count(engines)[2:] == [0, 0]


def test_data_stays_where_it_may_reside(fake, router):
    labels = [{"residency": "eu"}, {"residency": "de, eu"}, {"residency": "us"}]
    engines, front = fleet(fake, router, labels, privacy={"residency": ["eu", "de"]})
    for _ in range(3):
        assert front.chat().status_code == 200
    assert count(engines) == [0, 3, 0]
    outside = router(engines, labels=labels, privacy={"residency": ["uk"]})
    assert refusal(outside.chat()) == (403, "privacy_violation")


def test_requests_stay_where_they_must(fake, router):
    labels = [{"zone": "z1", "region": "r1"}, {"zone": "z2", "region": "r1"}, {"zone": "z3", "region": "r2"}]
    engines, front = fleet(fake, router, labels, locality={"zone": "z1", "region": "r1", "mode": "require"})
    for _ in range(8):
        assert front.chat().status_code == 200
    assert count(engines)[2] == 0 and min(count(engines)[:2]) > 0
    outside = router(engines, labels=labels, locality={"region": "r3", "mode": "require"})
    assert refusal(outside.chat()) == (403, "privacy_violation")


def test_the_nearest_is_preferred(fake, router):
    labels = [{"zone": "z1"}, {"zone": "z2"}, {}]
    engines, front = fleet(fake, router, labels, locality={"zone": "z2"})
    for _ in range(6):
        assert front.chat().status_code == 200
    assert count(engines) == [0, 6, 0]


def test_what_spills_says_so(fake, router):
    """Two near ones take one each at a time; what comes while both are at work goes to the region, and says so."""
    done = threading.Event()

    def hold(peer):
        while peer.request():
            assert done.wait(60)
            peer.send(answer())
    labels = [{"zone": "z2", "region": "r1"}, {"zone": "z1", "region": "r1", "capacity": "1"},
              {"zone": "z3", "region": "r2"}, {"zone": "z1", "region": "r1", "capacity": "1"}]
    engines = [fake(serve), fake(hold), fake(serve), fake(hold)]
    front = router(engines, "--policy", "round_robin", labels=labels, router={"threads": 1},
                   locality={"zone": "z1", "region": "r1", "threshold": 0.5})

    def explained():
        with http() as client:
            answer = client.post(f"{front.admin_url}/explain", json={"model": "m", "messages": []}).json()
        return answer["rows"][0]["instance"], answer["ring"], sum(row["eligible"] for row in answer["rows"])
    assert explained()[1:] == ("local_zone", 2)
    held = [threading.Thread(target=front.chat) for _ in range(2)]
    for thread in held:
        thread.start()
    try:
        eventually(lambda: count(engines) == [0, 1, 0, 1])
        assert explained() == (engines[0].url, "spill_region", 1)
        assert front.chat().status_code == 200
    finally:
        done.set()
        for thread in held:
            thread.join()
    assert count(engines) == [1, 1, 0, 1]
    assert [d["ring"] for d in front.admin("/decisions").json()["decisions"]] == ["spill_region"] + ["local_zone"] * 2
    eventually(lambda: explained()[1:] == ("local_zone", 2))
    assert front.chat().status_code == 200 and count(engines)[0] == 1


@pytest.mark.parametrize("dialect, status", [("headrace", 503), ("vllm", 429)])
def test_who_is_full_gets_no_more(fake, router, dialect, status):
    """Two take one each, so that the third request must wait for one of them; the third engine serves another model."""
    done = threading.Event()

    def hold(peer):
        while peer.request():
            assert done.wait(60)
            peer.send(answer())
    engines = [fake(hold), fake(hold), fake(serve, declared=["other"])]
    front = router(engines, "--queue-size", "0", "--dialect", dialect, labels=[{"capacity": "1"}] * 3, router={"threads": 1})
    results = []
    held = [threading.Thread(target=lambda: results.append(front.chat().status_code)) for _ in range(2)]
    for thread in held:
        thread.start()
    eventually(lambda: count(engines) == [1, 1, 0])
    late = front.chat()
    assert refusal(late) == (status, "overloaded") and late.headers["retry-after"] == "1"
    with http() as client:
        explained = client.post(f"{front.admin_url}/explain", json={"model": "m", "messages": []}).json()
    assert explained["refusal"] == {"status": status, "code": "overloaded"}
    assert front.chat("other").status_code == 200
    done.set()
    for thread in held:
        thread.join()
    assert results == [200, 200] and front.chat().status_code == 200



def test_a_client_may_ask_for_more_privacy_and_for_no_less(fake, router):
    labels = [{"clearance": "internal"}, {"clearance": "restricted"}, {}]
    engines, front = fleet(fake, router, labels, privacy={"floor": "internal"})
    for _ in range(4):
        assert front.chat(headers={"x-headrace-privacy": "restricted"}).status_code == 200
    assert count(engines) == [0, 4, 0]
    for _ in range(8):
        assert front.chat(headers={"x-headrace-privacy": "public"}).status_code == 200
    assert count(engines)[2] == 0


def test_a_feature_that_nobody_has_is_refused(fake, router):
    labels = [{"features": "stream"}, {"features": "stream,tools"}, {"features": "tools"}]
    engines, front = fleet(fake, router, labels)
    tools = [{"type": "function", "function": {"name": "f"}}]
    for _ in range(4):
        assert front.chat(body={"tools": tools, "stream": True}).status_code == 200
    assert count(engines) == [0, 4, 0]
    reply = front.chat(body={"tools": tools, "n": 2})
    assert refusal(reply) == (400, "unsupported_feature")


def test_an_adapter_and_a_gap_go_where_they_can(fake, router):
    labels = [{"features": "stream"}, {"features": "stream,adapter", "capabilities": "chat,completion"},
              {"features": "stream", "capabilities": "completion,infill"}]
    engines, front = fleet(fake, router, labels)
    for _ in range(4):
        assert front.chat(body={"lora_path": "a"}).status_code == 200
    assert count(engines) == [0, 4, 0]
    for _ in range(6):          # who declares no capabilities may get it, too
        assert front.post("/v1/completions", json={"model": "m", "prompt": "p", "suffix": "s"}).status_code == 200
    assert count(engines)[1] == 4 and sum(count(engines)) == 10
    body = {"model": "m", "prompt": "p", "suffix": "s", "lora": [{"id": 0, "scale": 1}]}
    assert refusal(front.post("/v1/completions", json=body)) == (400, "unsupported_feature")


def test_what_is_longer_than_any_context_is_refused(fake, router):
    labels = [{"context": "100"}, {"context": "2000"}, {"context": "500"}]
    engines, front = fleet(fake, router, labels)
    for _ in range(4):
        assert front.chat(body={"max_tokens": 1000}).status_code == 200
    assert count(engines) == [0, 4, 0]
    assert refusal(front.chat(body={"max_tokens": 2001})) == (400, "context_length_exceeded")
    long = [{"role": "user", "content": "word " * 4000}]         # 20,000 bytes: about 5,000 tokens
    assert refusal(front.chat(body={"messages": long})) == (400, "context_length_exceeded")


def test_what_costs_too_much_is_refused(fake, router):
    labels = [{"price_out": "2000000"}, {"price_out": "500000"}, {"price_out": "9000000"}]
    engines, front = fleet(fake, router, labels, cost={"ceiling": 60})
    for _ in range(4):
        assert front.chat(body={"max_tokens": 100}).status_code == 200
    assert count(engines) == [0, 4, 0]
    assert front.chat(body={"max_tokens": 1}).status_code == 200
    dear = router(engines, labels=[{"price_out": "9000000"}] * 3, cost={"ceiling": 60})
    assert refusal(dear.chat(body={"max_tokens": 100})) == (403, "over_budget")


def test_a_deadline_that_nobody_makes_is_refused(engine, router):
    """How fast the engines work is learned first, from the usage of their answers."""
    engines = [engine(["m"], "--prefill-rate", "5000") for _ in range(3)]
    front = router(engines, router={"threads": 1})
    seen = iter(range(1000))

    def ask(deadline_ms):
        body = {"messages": [{"role": "user", "content": f"{next(seen)} " + "word " * 1000}], "max_tokens": 1}
        return front.chat(body=body, headers={"x-headrace-deadline-ms": str(deadline_ms)})
    eventually(lambda: ask(1).status_code == 503)
    late = ask(1)
    assert refusal(late) == (503, "slo_unattainable") and late.headers["retry-after"] == "1"
    assert ask(600000).status_code == 200
