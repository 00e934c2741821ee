"""What a peer can make us hold has a ceiling."""
import json
import resource
import time

import pytest

from fakeworker import STREAM_HEAD, answer, chunk
from program import chat_body, eventually, hard_close, http, raw_request, read_to_end

MIB = 1 << 20
LARGE = b"x" * MIB


def padded(n):
    """A chat of exactly n bytes."""
    empty = json.dumps(chat_body(pad=""))
    return json.dumps(chat_body(pad="x" * (n - len(empty)))).encode()


@pytest.fixture
def one_mib(engine, router):
    return router([engine(["m"])], router={"body_limit": "1MiB", "inspect_limit": "64KiB", "hold_limit": "512KiB"})


def test_a_declared_body_over_the_limit_is_refused_unread(one_mib):
    with one_mib.connect() as s:
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MIB + 1))
        reply, _ = read_to_end(s, b"}}")
    assert reply.startswith(b"HTTP/1.1 413 ") and b'"body_too_large"' in reply


@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_limit_to_the_byte(one_mib, chunked):
    for n, status in ((MIB, 200), (MIB + 1, 413)):
        body = padded(n)
        reply = one_mib.post("/v1/chat/completions", content=iter([body[:5], body[5:]]) if chunked else body)
        assert reply.status_code == status, n


def test_a_chunked_body_is_cut_at_the_limit(fake, router):
    """The engine may have seen a part of it, never all of it."""
    worker = fake(lambda peer: peer.wait_for_end())
    front = router([worker], router={"body_limit": "1MiB"})
    with front.connect() as s:
        s.sendall(b'POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n' + chunk(LARGE) + chunk(b"y"))
        assert read_to_end(s)[0].startswith(b"HTTP/1.1 413 ")


def test_a_model_that_comes_too_late(engine, router):
    workers = [engine(["m"]), engine(["other"])]
    front = router(workers, router={"hold_limit": "256KiB", "inspect_limit": "64KiB"})
    late = b'{"pad":"%s","model":"m","messages":[{"role":"user","content":"x"}]}'
    assert front.post("/v1/chat/completions", content=late % (b"x" * (200 << 10))).status_code == 200
    reply = front.post("/v1/chat/completions", content=late % (b"x" * (700 << 10)))
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "model_not_found_in_time")
    assert sum(w.count("started") for w in workers) == 1


def test_nothing_is_held_for_a_single_model(fake, router):
    """The engine has the beginning of the body while the client still keeps the end."""
    def script(peer):
        while len(peer.buffer) < MIB:
            peer.receive()
        peer.send(answer())
    front = router([fake(script)], router={"inspect_limit": "64KiB"})
    with front.connect() as s:
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % (8 * MIB) + b'{"pad":"' + LARGE + LARGE)
        assert s.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_held_bytes_have_a_budget_and_come_back(engine, router):
    front = router([engine(["m"]), engine(["other"])],
                   router={"hold_memory": "4MiB", "hold_limit": "1MiB", "inspect_limit": "64KiB"})
    head = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2000000\r\n\r\n")
    holders = [front.connect() for _ in range(12)]
    for s in holders:
        s.sendall(head + b'{"pad":"' + LARGE[:900000])
        s.setblocking(False)
    refused = {}

    def those_beyond_the_budget_are_refused():
        for s in set(holders) - refused.keys():
            try:
                refused[s] = s.recv(65536)
            except BlockingIOError:
                pass
        return len(refused) >= 8
    eventually(those_beyond_the_budget_are_refused)
    for reply in refused.values():
        assert reply.startswith(b"HTTP/1.1 503 ") and b'"overloaded"' in reply and b"retry-after: " in reply.lower()
    assert front.metric("headrace_held_bytes") > 3 * MIB
    for s in holders:
        s.close()
    eventually(lambda: front.chat().status_code == 200)
    eventually(lambda: front.metric("headrace_held_bytes") < MIB)


def test_clients_that_do_not_read(fake, router):
    """20 x 20 MB wait in the engine and in the kernel, not in us."""
    def script(peer):
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (20 * MIB), LARGE * 20)
    front = router([fake(script)])
    before = front.rss_bytes()
    clients = [front.connect() for _ in range(20)]
    for s in clients:
        s.sendall(raw_request(chat_body()))
    eventually(lambda: front.metric("headrace_in_flight") == 20)
    for s in clients:       # each answer has begun, so what could be read ahead is being read
        s.recv(1)
    assert front.rss_bytes() - before < 20 * 128 * 1024 + 4 * MIB
    assert len(read_to_end(clients[0], b"x" * 1000)[0]) > 0
    for s in clients:
        s.close()
    eventually(lambda: front.metric("headrace_in_flight") == 0)


def test_each_event_is_passed_on_before_the_next_exists(fake, router):
    """In lockstep: the engine sends an event only when the client has the one before."""
    seen = []

    def script(peer):
        peer.request()
        peer.send(STREAM_HEAD)
        for i in range(200):
            peer.send(chunk(b"data: %d\n\n" % i))
            eventually(lambda i=i: len(seen) > i)
        peer.send(b"0\r\n\r\n")
    front = router([fake(script)])
    with http() as client, client.stream("POST", front.url + "/v1/chat/completions",
                                         json=chat_body(stream=True)) as stream:
        for line in stream.iter_lines():
            if line:
                seen.append(line)
    assert seen == [f"data: {i}" for i in range(200)]


def test_a_body_passes_while_it_still_arrives(fake, router):
    """In lockstep the other way: the client sends a piece only when the engine has the one before."""
    got = []

    def script(peer):
        while b"last" not in peer.buffer and peer.receive():
            got.append(len(peer.buffer))
        peer.send(answer())
    worker = fake(script)
    front = router([worker], router={"inspect_limit": "1KiB"})
    with front.connect() as s:
        s.sendall(b'POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n'
                  b'Transfer-Encoding: chunked\r\n\r\n' + chunk(b'{"model":"m","pad":"' + b"x" * 2000))
        for _ in range(50):
            n = len(got)
            s.sendall(chunk(b"y" * 100))
            eventually(lambda n=n: len(got) > n)
        s.sendall(chunk(b'last"}') + b"0\r\n\r\n")
        assert s.recv(1000).startswith(b"HTTP/1.1 200 ")


def few_descriptors(n):
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))}


def test_descriptors_used_up(engine, router):
    """With all at work those beyond the limit wait in the backlog and are served when others go; nobody spins meanwhile."""
    worker = engine(["m"])
    front = router([worker], router={"threads": 1}, how=few_descriptors(128))
    request = raw_request(chat_body())
    at_work = [front.connect() for _ in range(150)]
    for s in at_work[:-1]:
        s.sendall(request[:-1])
    at_work[0].sendall(request[-1:])
    assert at_work[0].recv(65536).startswith(b"HTTP/1.1 200 ")      # old ones live
    at_work[0].sendall(request[:-1])
    at_work[-1].sendall(request)
    at_work[-1].setblocking(False)
    before, started = front.cpu_seconds(), time.monotonic()
    eventually(lambda: time.monotonic() - started > 2)
    assert front.cpu_seconds() - before < 0.3 * (time.monotonic() - started)
    with pytest.raises(BlockingIOError):
        at_work[-1].recv(1)
    for s in at_work[1:-1]:
        s.close()
    at_work[-1].settimeout(60)
    assert at_work[-1].recv(65536).startswith(b"HTTP/1.1 200 ")
    at_work[0].close()
    at_work[-1].close()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("said", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost:"], ids=["idle", "half_a_head"])
def test_who_does_nothing_takes_no_place_from_others(engine, router, threads, said):
    """One client has taken all places, and more of its connections wait; no deadline but its own ends them."""
    front = router([engine(["m"])], router={"threads": threads}, timeout={"head": "1h", "keepalive": "1h"},
                   how=few_descriptors(128))
    request = raw_request(chat_body())
    at_work = front.connect()
    at_work.sendall(request[:-1])
    crowd = [front.connect() for _ in range(60)]
    for s in crowd:
        s.sendall(said)
    for _ in range(3):
        assert front.get("/health").status_code == 200
    at_work.sendall(request[-1:])
    assert at_work.recv(65536).startswith(b"HTTP/1.1 200 ")
    for s in [at_work, *crowd]:
        s.close()


def test_bodies_that_drip_give_their_places_back(engine, router):
    """All places are taken by requests whose bodies never come: their client gets 408, however often it sends a byte."""
    front = router([engine(["m"])], timeout={"body_idle": "1s"}, how=few_descriptors(128))
    drips = [front.connect() for _ in range(60)]
    for s in drips:
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                  b"Content-Length: 100000\r\n\r\n{")
        s.setblocking(False)
    told = set()

    def all_are_told():
        for s in set(drips) - told:
            try:
                s.send(b" ")
                if s.recv(65536).startswith(b"HTTP/1.1 408 "):
                    told.add(s)
                    s.close()
            except BlockingIOError:
                pass
        return len(told) == len(drips)
    eventually(all_are_told)
    assert front.get("/health").status_code == 200


def test_the_soft_limit_is_raised(engine, router):
    front = router([engine(["m"])], how={"preexec_fn": lambda: resource.setrlimit(
        resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))})
    soft, hard = resource.prlimit(front.pid, resource.RLIMIT_NOFILE)
    assert soft == hard > 64


def test_pipelined_requests_wait_in_the_kernel(fake, router):
    """A client that pipelines without end while its first request hangs must not be read without end."""
    def script(peer):
        peer.request()
        peer.wait_for_end()
    front = router([fake(script)])
    before = front.rss_bytes()
    with front.connect() as s:
        s.sendall(raw_request(chat_body()))
        s.settimeout(2)
        with pytest.raises(TimeoutError):
            for _ in range(64):
                s.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * (MIB // 28))
        assert front.rss_bytes() - before < 4 * MIB
        hard_close(s)


def test_a_head_may_have_a_hundred_fields(fake, router):
    front = router([fake(lambda peer: peer.request() and peer.send(answer()))])
    for n, status in ((100, b"200"), (101, b"431")):
        with front.connect() as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"X-A: b\r\n" * (n - 2) + b"\r\n")
            assert read_to_end(s)[0].split()[1] == status, n
