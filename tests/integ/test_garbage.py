"""24,000 connections of garbage from clients, to engines that answer garbage: nothing ends, nothing is left, others are served."""
import random
import socket
import ssl
import threading

import pytest

from certs import Authority
from fakeworker import STREAM_HEAD, answer, chunk
from program import KEY, chat_body, eventually, hard_close, raw_request, read_to_end
from test_load_invariant import settle

N_PLAIN, N_TLS, N_AT_ONCE = 20000, 4000, 8
N_THREADS, SCRATCH_BYTES = 2, 4096       # which each of the router's threads has as long as it lives
GOOD = raw_request(chat_body("bad"), headers="Connection: close\r\n")
STREAM = raw_request(chat_body("bad", stream=True), headers="Connection: close\r\n")
HEAD = (b"POST /v1/chat/completions?a=%41 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: x\r\nContent-Type: application/json\r\n"
        b"X-Session-Id: s\r\nAuthorization: Bearer x\r\nConnection: close, x-a\r\nX-A: 1\r\n")
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n8;a=b\r\n{\"model\"\r\n7\r\n:\"bad\"}\r\n0\r\nT: 1\r\n\r\n"


def hello():
    """What a TLS client says first."""
    out = ssl.MemoryBIO()
    talk = ssl._create_unverified_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        talk.do_handshake()
    return out.read()


def broken(dice, text, n_max=4):
    """The same with a few bytes changed, left out or put in."""
    text = bytearray(text)
    for _ in range(dice.randint(1, n_max)):
        at = dice.randrange(len(text))
        what = dice.randrange(4)
        if what == 0:
            text[at] = dice.randrange(256)
        elif what == 1:
            del text[at]
        elif what == 2:
            text[at:at] = dice.choice((b"\r", b"\n", b"\0", b" ", b":", b"\r\n\r\n", b"ffffffffffffffff", dice.randbytes(9)))
        else:
            text[at:at] = text[dice.randrange(len(text)):][:40]
    return bytes(text)


def words(dice, first):
    """What a client says, in pieces."""
    kind = dice.randrange(8)
    if kind == 0:
        return []
    if kind == 1:
        return [dice.randbytes(dice.randint(1, 3000))]
    if kind == 2:
        return [broken(dice, HEAD + b"Content-Length: 15\r\n\r\n" + b'{"model":"bad"}')]
    if kind == 3:
        return [broken(dice, CHUNKS)]
    if kind == 4:
        return [broken(dice, GOOD + STREAM + b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 2)]
    if kind == 5:
        return [bytes([b]) for b in GOOD[:dice.randint(1, 60)]]
    if kind == 6:
        return [first[:dice.randint(1, len(first))]]
    return [broken(dice, first)]


def one(front, source, dice, first):
    """One connection, whatever becomes of it: every fifth is a good request, and waits for an engine's garbage."""
    s = front.connect(source)
    is_good = dice.randrange(5) == 0
    try:
        for piece in [dice.choice((GOOD, STREAM, CHUNKS))] if is_good else words(dice, first):
            s.sendall(piece)
        end = dice.randrange(3)
        if end == 0:
            hard_close(s)
        elif end == 1:
            if not is_good:
                s.shutdown(socket.SHUT_WR)
            read_to_end(s)
    except OSError:
        pass        # it had heard enough
    finally:
        s.close()


def pour(front, n, first):
    """n connections from N_AT_ONCE threads; each thread has an address of its own, so that no port runs out."""
    failures = []

    def some(i):
        dice = random.Random(i)
        try:
            for _ in range(n // N_AT_ONCE):
                one(front, f"127.0.1.{i + 1}", dice, first)
        except Exception as error:  # noqa: BLE001
            failures.append(error)
    threads = [threading.Thread(target=some, args=(i,), daemon=True) for i in range(N_AT_ONCE)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


ANSWERS = (answer(b'{"choices":[],"usage":{"completion_tokens":-5,"prompt_tokens":1e99}}'),
           STREAM_HEAD + chunk(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n') * 3 + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
           b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(status=b"503 Service Unavailable", headers=b"Retry-After: 0\r\n"))


def babble(peer):
    """An engine that has lost its mind; what it says is of its connection's number."""
    dice = random.Random(peer.n)
    while peer.receive():       # a request, or a part of one
        kind = dice.randrange(5)
        if kind == 0:
            return peer.reset()
        if kind == 1:
            return peer.send(dice.randbytes(dice.randint(1, 5000)))
        text = dice.choice(ANSWERS)
        if kind == 2:
            return peer.send(text[:dice.randrange(len(text))])
        if kind == 3:
            return peer.send(broken(dice, text))
        peer.send(text)


class Others:
    """A client that asks for something good all the while."""

    def __init__(self, ask):
        self.ask, self.wrong, self.n, self.ends = ask, [], 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.ends.is_set() and not self.wrong:
            reply = self.ask()
            if reply.status_code != 200:
                self.wrong.append(reply.text)
            self.n += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()


def test_connections_of_garbage_leave_nothing(engine, fake, router):
    certificate = Authority().issue("DNS:localhost", "IP:127.0.0.1")
    workers = [fake(babble, declared=["bad"]), fake(babble, declared=["bad"]), engine(["good"])]
    more = {"timeout": {"pool_idle": "200ms"}, "breaker": {"enabled": False}, "health": {"probe": False, "passive": False}}
    for tls, n in ({}, N_PLAIN), ({"tls": {"certificates": [certificate]}}, N_TLS):
        front = router(workers, ready=1, router={"threads": N_THREADS}, **more, **tls)
        first, headers = hello(), {"authorization": f"Bearer {KEY}"}
        eventually(lambda: front.chat("good", headers=headers).status_code == 200)      # its models are known by then
        eventually(lambda: front.metric("headrace_connections") == 0)
        descriptors = front.descriptors()
        with Others(lambda: front.chat("good", headers=headers)) as others:
            pour(front, n, first)
            served = others.n
            eventually(lambda: others.wrong or others.n > served)
        assert others.n > 10 and not others.wrong
        settle(front)
        eventually(lambda: front.metric("headrace_connections") == 0)
        eventually(lambda: front.metric("headrace_held_bytes") <= N_THREADS * SCRATCH_BYTES)
        eventually(lambda: front.descriptors() <= descriptors)
        front.stop()
