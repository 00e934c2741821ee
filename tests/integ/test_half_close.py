"""half_close = "serve": a client that has ended its side is served, but only as long as it is there."""
import socket

import pytest

from program import chat_body, eventually, hard_close, raw_request, read_to_end


@pytest.mark.parametrize("fault", ["hang_head", "hang_stream:3"])
def test_a_reset_behind_the_end_is_a_departure(engine, router, fault):
    """The engine says nothing, so that no write could tell."""
    worker = engine(["m"], "--fault", fault)
    front = router([worker], router={"half_close": "serve"})
    s = front.connect()
    s.sendall(raw_request(chat_body(stream=True)))
    s.shutdown(socket.SHUT_WR)
    eventually(lambda: worker.count("started") == 1)
    if fault != "hang_head":
        read_to_end(s, b"data: ")
    assert worker.count("cancelled") == 0
    hard_close(s)
    eventually(lambda: worker.count("cancelled") == 1)
    eventually(lambda: front.metric("headrace_in_flight") == 0)
    record, = front.log(1)
    assert record["status"] == 499 and record["cause"] == "client_gone"
