"""Who may get a request, and what a client is told when nobody may."""
import threading

from fakeworker import answer
from program import eventually


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


def test_who_is_full_gets_no_more(fake, router):
    """Two take one each, so that the third request must wait for one of them; the third engine serves another model."""
    done = threading.Event()

    def hold(peer):
        while peer.request():
            assert done.wait(60)
            peer.send(answer())
    engines = [fake(hold), fake(hold), fake(serve, declared=["other"])]
    front = router(engines, labels=[{"capacity": "1"}] * 3, router={"threads": 1})
    results = []
    held = [threading.Thread(target=lambda: results.append(front.chat().status_code)) for _ in range(2)]
    for thread in held:
        thread.start()
    eventually(lambda: count(engines) == [1, 1, 0])
    late = front.chat()
    assert refusal(late) == (503, "overloaded") and late.headers["retry-after"] == "1"
    assert front.chat("other").status_code == 200
    done.set()
    for thread in held:
        thread.join()
    assert results == [200, 200] and front.chat().status_code == 200

