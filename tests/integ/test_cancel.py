"""A client that leaves stops the engine's work, wherever its request stands. The engine's ledger is the witness."""
import random

import pytest

from fakeworker import answer
from program import chat_body, eventually, hard_close, raw_request, read_to_end

ENDLESS = chat_body(stream=True, max_tokens=100000)


def leave(s, how):
    hard_close(s) if how == "reset" else s.close()


def settled(front):
    """Nothing is in flight any more."""
    return front.metric("headrace_in_flight") == 0


@pytest.mark.parametrize("how", ["close", "reset"])
def test_in_the_middle_of_a_stream(engine, router, how):
    worker = engine(["m"])
    front = router([worker])
    s = front.connect()
    s.sendall(raw_request(ENDLESS))
    read_to_end(s, b"data: ")
    leave(s, how)
    eventually(lambda: worker.count("cancelled") == 1)
    eventually(lambda: settled(front))
    record, = front.log(1)
    assert record["status"] == 499 and record["cause"] == "client_gone" and record["bytes_out"] > 0


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("stream", [False, True])
def test_before_the_first_byte(engine, router, how, stream):
    worker = engine(["m"], "--fault", "hang_head")
    front = router([worker])
    s = front.connect()
    s.sendall(raw_request(chat_body(stream=stream)))
    eventually(lambda: worker.count("started") == 1)
    leave(s, how)
    eventually(lambda: worker.count("cancelled") == 1)
    eventually(lambda: settled(front))


def test_while_the_engine_lets_it_wait(engine, router):
    worker = engine(["m"], "--max-num-seqs", 1)
    front = router([worker])
    running, waiting = front.connect(), front.connect()
    running.sendall(raw_request(ENDLESS))
    read_to_end(running, b"data: ")
    waiting.sendall(raw_request(ENDLESS))
    eventually(lambda: worker.count("started") == 2)
    waiting.close()
    eventually(lambda: worker.count("cancelled") == 1)
    assert running.recv(65536)
    running.close()
    eventually(lambda: worker.count("cancelled") == 2)


def test_while_the_body_is_held(engine, router):
    workers = [engine(["m"]), engine(["other"])]
    front = router(workers)
    s = front.connect()
    s.sendall(b'POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n'
              b'Content-Length: 100000\r\n\r\n{"messages":[')
    eventually(lambda: front.metric("headrace_connections", side="client") >= 1)
    s.close()
    record, = front.log(1)
    assert record["status"] == 499 and record["instance"] in (None, "", "-")
    assert [w.count("started") for w in workers] == [0, 0]


def test_a_fin_is_a_departure(engine, router):
    worker = engine(["m"])
    front = router([worker])
    with front.connect() as s:
        s.sendall(raw_request(ENDLESS))
        read_to_end(s, b"data: ")
        s.shutdown(1)
        eventually(lambda: worker.count("cancelled") == 1)


def test_a_fin_is_served_when_told_so(engine, router):
    front = router([engine(["m"])], router={"half_close": "serve"})
    with front.connect() as s:
        s.sendall(raw_request(chat_body(stream=True, max_tokens=20)))
        s.shutdown(1)
        assert b"[DONE]" in read_to_end(s)[0]


def test_a_pipelined_request_of_a_leaver_is_not_started(fake, router):
    def hang(peer):
        peer.request()
        peer.wait_for_end()
    worker = fake(hang)
    front = router([worker])
    s = front.connect()
    s.sendall(raw_request(chat_body()) * 2)
    eventually(lambda: len(worker.requests) == 1)
    s.close()
    eventually(lambda: settled(front))
    assert len(worker.requests) == 1


def test_the_engines_connection_is_not_used_again(fake, router):
    """An answer that nobody waits for must never meet the next request."""
    def script(peer):
        while peer.request():
            if peer.n == 0:
                return peer.wait_for_end()
            peer.send(answer(b'"fresh"'))
    worker = fake(script)
    front = router([worker], router={"threads": 1})
    s = front.connect()
    s.sendall(raw_request(chat_body()))
    eventually(lambda: len(worker.requests) == 1)
    s.close()
    assert front.chat().json() == "fresh" and worker.n_connections == 2


def test_three_hundred_leavers_leave_nothing(engine, router):
    worker = engine(["m"], "--fault", "latency:5ms")
    front = router([worker])
    front.chat()
    before = front.descriptors()
    dice = random.Random(7)
    for _ in range(300):
        s = front.connect()
        s.sendall(raw_request(ENDLESS)[:dice.choice((30, 200, 10000))])
        leave(s, dice.choice(("close", "reset")))
    eventually(lambda: settled(front) and front.metric("headrace_connections", side="client") == 0)
    eventually(lambda: front.descriptors() <= before)
    eventually(lambda: is_settled(worker.ledger()["counts"]))


def is_settled(counts):
    return counts["started"] == counts["finished"] + counts["cancelled"]
