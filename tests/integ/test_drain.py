"""SIGTERM: nothing that was begun is lost, and there is an end to it."""
import signal
import threading

import httpx
import pytest

from fakeworker import STREAM_HEAD, chunk
from program import chat_body, eventually, http, raw_request, read_to_end


def begin_streams(front, n, tokens):
    streams = [front.connect() for _ in range(n)]
    for s in streams:
        s.sendall(raw_request(chat_body(stream=True, max_tokens=tokens)))
    for s in streams:
        read_to_end(s, b"data: ")
    return streams


def read_to_end_of_one(s):
    s.sendall(b"GET /liveness HTTP/1.1\r\nhost: t\r\n\r\n")
    return read_to_end(s, b'"alive"}')[0]


def refuses(front):
    try:
        front.connect().close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:        # it came between the last accept and the close
        return False
    return False


def test_streams_finish(fake, router):
    """The engine goes on when the router accepts no more."""
    go_on = threading.Event()

    def script(peer):
        peer.request()
        peer.send(STREAM_HEAD, chunk(b"data: 1\n\n"))
        go_on.wait(60)
        peer.send(chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")
        peer.wait_for_end()
    worker = fake(script)
    front = router([worker], timeout={"announce": "300ms", "drain": "60s"})
    streams = begin_streams(front, 100, 60)
    front.process.terminate()
    eventually(lambda: refuses(front))
    assert front.process.poll() is None
    go_on.set()
    for s in streams:
        assert b"data: [DONE]" in read_to_end(s)[0]
    assert front.wait() == 0
    assert len(worker.requests) == 100


def test_it_is_announced_first(engine, router):
    front = router([engine(["m"])], timeout={"announce": "300s"})
    front.process.terminate()
    eventually(lambda: front.get("/readiness").status_code == 503)
    assert front.chat().status_code == 200          # still accepting
    assert front.get("/liveness").status_code == 200
    front.process.terminate()                       # enough
    assert front.wait() == 0


def knock_all(knock, n=8):
    """Clients at once. -> their threads, and what went wrong with them"""
    lost = []

    def run():
        try:
            knock()
        except httpx.TransportError as error:
            lost.append(error)
    threads = [threading.Thread(target=run) for _ in range(n)]
    for t in threads:
        t.start()
    return threads, lost


def test_no_request_is_lost(engine, router):
    """Clients that knock all the time: each request is answered, or was never taken."""
    worker = engine(["m"])
    front = router([worker])
    answered = []

    def knock():
        client = http(base_url=front.url, limits=httpx.Limits(max_keepalive_connections=0))
        while True:
            try:
                answered.append(client.post("/v1/chat/completions", json=chat_body(max_tokens=2)).status_code)
            except httpx.ConnectError:
                return
    threads, lost = knock_all(knock)
    eventually(lambda: len(answered) > 200)
    front.process.terminate()
    for t in threads:
        t.join()
    assert front.wait() == 0
    assert set(answered) == {200} and not lost
    assert worker.count("finished") == len(answered)


def test_who_keeps_a_connection_is_told_before_it_is_closed(engine, router):
    worker = engine(["m"])
    front = router([worker], timeout={"announce": "300s"})
    answered = []

    def knock():
        client = http(base_url=front.url)
        while True:
            answer = client.post("/v1/chat/completions", json=chat_body(max_tokens=2))
            answered.append(answer.status_code)
            if answer.headers.get("connection") == "close":
                return
    threads, lost = knock_all(knock)
    eventually(lambda: len(answered) > 200)
    front.process.terminate()
    for t in threads:
        t.join()
    assert set(answered) == {200} and not lost
    assert worker.count("finished") == len(answered)
    front.process.terminate()                       # enough
    assert front.wait() == 0


def test_answers_after_the_signal_close_their_connection(engine, router):
    front = router([engine(["m"])], timeout={"announce": "300s"})
    with http(base_url=front.url) as client:
        assert "close" not in client.post("/v1/chat/completions", json=chat_body()).headers.get("connection", "")
        front.process.terminate()
        eventually(lambda: front.get("/readiness").status_code == 503)
        assert client.post("/v1/chat/completions", json=chat_body()).headers["connection"] == "close"
    front.process.terminate()
    assert front.wait() == 0


def test_idle_connections_do_not_hold_it_up(engine, router):
    front = router([engine(["m"])], timeout={"drain": "300s"})
    idle = [front.connect() for _ in range(20)]
    used = http(base_url=front.url)
    assert used.post("/v1/chat/completions", json=chat_body()).status_code == 200
    front.process.terminate()
    assert front.wait() == 0
    assert [s.recv(1) for s in idle] == [b""] * 20


def test_streams_that_outlast_the_limit_end_visibly(engine, router):
    worker = engine(["m"], "--itl", "20ms")
    front = router([worker], timeout={"drain": "500ms"})
    streams = begin_streams(front, 5, 100000)
    front.process.terminate()
    assert front.wait() == 0
    for s in streams:
        reply, _ = read_to_end(s)
        assert b"[DONE]" not in reply and not reply.endswith(b"0\r\n\r\n")
    eventually(lambda: worker.count("cancelled") == 5)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_and_everybody_is_told(fake, router, second):
    """Who waits for an answer, who is in the middle of one, who has not read what there is, who says nothing."""
    def script(peer):
        _, body = peer.request()
        if b"answer" in body:
            peer.wait_for_end()
        peer.send(STREAM_HEAD, *([chunk(b"data: " + b"x" * 60000 + b"\n\n")] * 100 if b"much" in body else []),
                  chunk(b"data: 1\n\n" + (b"data: half" if b"inside" in body else b"")))
        peer.wait_for_end()
    front = router([fake(script)], timeout={"announce": "300s", "drain": "300s"})
    clients = {}
    for what in ("answer", "boundary", "inside", "idle", "head"):
        clients[what] = s = front.connect()
        if what == "idle":
            assert read_to_end_of_one(s)
        elif what == "head":
            s.sendall(b"GET / HTTP/1.1\r\nhost: ")
        else:
            s.sendall(raw_request(chat_body(user=what, stream=what != "answer")))
            if what != "answer":
                read_to_end(s, b"data: half" if what == "inside" else b"data: 1\n\n")
    eventually(lambda: front.metric("headrace_active") == 3)
    eventually(lambda: front.metric("headrace_connections", side="client") == 5)
    front.process.terminate()
    eventually(lambda: front.get("/readiness").status_code == 503)
    front.process.send_signal(second)
    ends = {what: read_to_end(s) for what, s in clients.items()}
    for s in clients.values():
        s.close()
    assert front.wait() == 0
    assert {end for _, end in ends.values()} == {"fin"}
    for what in ("answer", "head"):
        assert ends[what][0].startswith(b"HTTP/1.1 503 ") and b"being stopped" in ends[what][0]
    assert b"being stopped" in ends["boundary"][0] and b"[DONE]" not in ends["boundary"][0]
    assert b"being stopped" not in ends["inside"][0]
    assert not any(ends[what][0].endswith(b"0\r\n\r\n") for what in ("boundary", "inside"))
    assert ends["idle"][0] == b""
    assert sorted(r["cause"] for r in front.log() if r["cause"] != "none") == ["stopping"] * 4


def test_who_reads_late_gets_what_was_written(fake, router):
    pieces = [chunk(b"data: " + b"x" * 60000 + b"\n\n")] * 100

    def script(peer):
        peer.request()
        peer.send(STREAM_HEAD, chunk(b"data: 1\n\n"))
        try:
            peer.sock.settimeout(1)
            peer.send(*pieces)      # more than the sockets on the way hold
        except TimeoutError:
            stuck.set()
        peer.sock.settimeout(60)
        peer.wait_for_end()
    stuck = threading.Event()
    front = router([fake(script)], timeout={"drain": "300s"})
    s, = begin_streams(front, 1, 1)
    assert stuck.wait(60)
    held = front.metric("headrace_held_bytes")
    assert held > 0
    front.process.terminate()
    eventually(lambda: refuses(front))
    front.process.send_signal(signal.SIGTERM)
    reply, end = read_to_end(s)
    s.close()
    assert end == "fin" and len(reply) > held and not reply.endswith(b"0\r\n\r\n")
    assert front.wait() == 0


def test_who_never_reads_does_not_hold_the_end_up(engine, router):
    """Nor do those who do not close."""
    worker = engine(["m"], "--itl", "20ms")
    front = router([worker], timeout={"drain": "300s"})
    streams = begin_streams(front, 5, 100000)
    front.process.terminate()
    eventually(lambda: refuses(front))
    assert front.process.poll() is None
    front.process.send_signal(signal.SIGTERM)
    assert front.wait() == 0
    eventually(lambda: worker.count("cancelled") == 5)
    for s in streams:
        reply, _ = read_to_end(s)
        assert b"[DONE]" not in reply and not reply.endswith(b"0\r\n\r\n")


def test_sigint_drains_too(engine, router):
    front = router([engine(["m"], "--itl", "20ms")], timeout={"drain": "60s"})
    stream, = begin_streams(front, 1, 40)
    front.process.send_signal(signal.SIGINT)
    assert b"data: [DONE]" in read_to_end(stream)[0]
    assert front.wait() == 0
