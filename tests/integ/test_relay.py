"""Messages through the relay, where the scripts of the wire suite cannot look: trailers, lengths, whole bodies."""
import hashlib
import random

import pytest

from fakeworker import chunk
from program import chat_body, http, raw_request, read_to_end

CHUNKED = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n%s\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def received(front, request):
    """What the client gets for a request that closes."""
    with front.connect() as s:
        s.sendall(request)
        return read_to_end(s)[0]


def test_trailers_of_a_request(fake, router):
    seen = []

    def script(peer):
        while not peer.buffer.endswith(b"\r\n\r\n") or b"\r\n0\r\n" not in peer.buffer:
            peer.receive()
        seen.append(peer.buffer)
        peer.send(OK)
    front = router([fake(script)])
    reply = received(front, CHUNKED % b"Trailer: X-Sum\r\nConnection: close\r\n" + chunk(b"hello") +
                     b"0\r\nX-Sum: 42\r\nConnection: x\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200 ")
    tail = seen[0].rpartition(b"\r\n0\r\n")[2].lower()
    assert tail == b"x-sum: 42\r\n\r\n"


def test_trailers_of_an_answer(fake, router):
    def script(peer):
        while peer.request():
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n", chunk(b"hello"),
                      b"0\r\nX-Sum: 42\r\n\r\n")
    front = router([fake(script)])
    reply = received(front, b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n")
    assert reply.lower().endswith(b"\r\n0\r\nx-sum: 42\r\n\r\n")
    reply = received(front, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")       # no place for them there
    assert reply.endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("chunked_in", [False, True])
@pytest.mark.parametrize("chunked_out", [False, True])
def test_large_bodies_arrive_whole(fake, router, chunked_in, chunked_out):
    dice = random.Random(5)
    body = dice.randbytes(5_000_000)

    def script(peer):
        """Sends back the hash of what came, then as many bytes."""
        while b"\r\n\r\n" not in peer.buffer:
            peer.receive()
        peer.buffer = peer.buffer.partition(b"\r\n\r\n")[2]
        got = b"".join(chunks(peer)) if chunked_in else sized(peer, len(body))
        answer = hashlib.sha256(got).digest() + body
        if chunked_out:
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(answer), 70_001):
                peer.send(chunk(answer[at:at + 70_001]))
            peer.send(b"0\r\n\r\n")
        else:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer), answer)
    front = router([fake(script)])
    pieces = (body[at:at + 33_333] for at in range(0, len(body), 33_333))
    with http() as client:
        reply = client.post(front.url + "/x", content=pieces if chunked_in else body)
    assert reply.content == hashlib.sha256(body).digest() + body


def sized(peer, n):
    while len(peer.buffer) < n:
        peer.receive()
    return peer.buffer[:n]


def chunks(peer):
    while True:
        while b"\r\n" not in peer.buffer:
            peer.receive()
        line, _, peer.buffer = peer.buffer.partition(b"\r\n")
        n = int(line, 16)
        data = sized(peer, n + 2)
        peer.buffer = peer.buffer[n + 2:]
        if n == 0:
            return
        yield data[:n]


def test_an_upgrade_is_not_taken_up(fake, router):
    """Upgrade is dropped for now, and an engine that switches unasked is no engine of ours."""
    def script(peer):
        peer.request()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        peer.wait_for_end()
    front = router([fake(script)])
    assert received(front, raw_request(chat_body(), headers="Connection: upgrade, close\r\nUpgrade: x\r\n")
                    ).startswith(b"HTTP/1.1 502 ")


def test_bytes_after_an_answer_end_that_connection(fake, router):
    """They must never be taken for the next answer."""
    def script(peer):
        while peer.request():
            peer.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    front = router([fake(script)], router={"threads": 1})
    with http(base_url=front.url) as client:
        assert {client.get("/").content for _ in range(10)} == {b"ok"}
