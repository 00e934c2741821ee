"""How many requests are in flight at a time, and what becomes of those beyond."""
import concurrent.futures
import signal
import threading

import pytest

from fakeworker import answer
from program import chat_body, eventually, hard_close, raw_request, read_to_end


class Desk:
    """An engine that answers when it is told to, and knows how many requests it had at a time."""

    def __init__(self, fake, **how):
        self.lock, self.may_go = threading.Lock(), threading.Semaphore(0)
        self.n_now = self.n_most = self.n_all = 0
        self.worker = fake(self.serve, **how)

    def serve(self, peer):
        while peer.request():
            with self.lock:
                self.n_now += 1
                self.n_all += 1
                self.n_most = max(self.n_most, self.n_now)
            assert self.may_go.acquire(timeout=60)
            with self.lock:
                self.n_now -= 1
            peer.send(answer())

    def let_go(self, n=1):
        self.may_go.release(n)


@pytest.fixture
def desk(fake):
    return Desk(fake)


def code(reply):
    return reply.status_code, reply.json()["error"]["code"]


def in_background(n, call):
    pool = concurrent.futures.ThreadPoolExecutor(n)
    return [pool.submit(call, i) for i in range(n)]


def waiting(front):
    return sum(front.admin("/admission").json()["classes"])


def test_to_cancel_a_response_needs_no_place(desk, router):
    front = router([desk.worker], "--max-concurrent-requests", "1")
    chats = in_background(2, lambda _: front.chat().status_code)
    eventually(lambda: desk.n_now == 1 and waiting(front) == 1)
    cancels = in_background(1, lambda _: front.post("/v1/responses/resp_1/cancel").status_code)
    eventually(lambda: desk.n_now == 2)
    assert waiting(front) == 1
    desk.let_go(3)
    assert [done.result() for done in chats + cancels] == [200] * 3


def test_the_cap_holds_exactly(desk, router):
    """64 clients of two threads, at most 5 at a time: all of them are answered."""
    front = router([desk.worker], "--max-concurrent-requests", "5", router={"threads": 2})
    replies = in_background(64, lambda _: front.chat().status_code)
    eventually(lambda: desk.n_now == 5 and waiting(front) == 59)
    view = front.admin("/admission").json()
    assert (view["max_requests"], view["requests"], view["waiting"]) == (5, 5, 59)
    assert len(view["queue"]) == 59 and {w["class"] for w in view["queue"]} == {4}
    assert front.metric("headrace_queue_requests", **{"class": "4"}) == 59
    assert [front.metric("headrace_queue_position", **{"class": c}) for c in "0347"] == [0, 0, 59, 59]
    desk.let_go(64)
    assert [r.result(60) for r in replies] == [200] * 64
    assert desk.n_most == 5 and desk.n_all == 64
    eventually(lambda: front.admin("/admission").json()["requests"] == 0)
    assert front.metric("headrace_queue_wait_seconds_count") >= 59
    waits = sorted(line["queue_ms"] for line in front.log(64))
    assert waits[0] < waits[-1] and waits[-1] > 0


def test_the_capacity_of_an_engine_holds_exactly(fake, router):
    desks = [Desk(fake), Desk(fake)]
    front = router([d.worker for d in desks], labels=[{"capacity": "2"}, {"capacity": "3"}], router={"threads": 2})
    replies = in_background(40, lambda _: front.chat().status_code)
    eventually(lambda: [d.n_now for d in desks] == [2, 3] and waiting(front) == 35)
    for d in desks:
        d.let_go(40)
    assert [r.result(60) for r in replies] == [200] * 40
    assert [d.n_most for d in desks] == [2, 3]


@pytest.mark.parametrize("dialect, status", [("headrace", 503), ("vllm", 429)])
def test_without_a_queue_it_is_refused_at_once(desk, router, dialect, status):
    front = router([desk.worker], "--max-concurrent-requests", "1", "--queue-size", "0", "--dialect", dialect)
    first, = in_background(1, lambda _: front.chat().status_code)
    eventually(lambda: desk.n_now == 1)
    reply = front.chat()
    assert code(reply) == (status, "overloaded")
    assert reply.headers["retry-after"] == "1" and reply.headers["x-should-retry"] == "false"
    desk.let_go()
    assert first.result(60) == 200
    assert front.metric("headrace_queue_refused_total", why="full") == 1


@pytest.mark.parametrize("dialect, status", [("headrace", 503), ("vllm", 408)])
def test_a_wait_ends(desk, router, dialect, status):
    front = router([desk.worker], "--max-concurrent-requests", "1", "--queue-timeout-secs", "1", "--dialect", dialect)
    first, = in_background(1, lambda _: front.chat().status_code)
    eventually(lambda: desk.n_now == 1)
    reply = front.chat()
    assert code(reply) == (status, "overloaded") and 1 <= int(reply.headers["retry-after"]) <= 60
    assert front.log(1)[0]["queue_ms"] >= 1000
    desk.let_go()
    assert first.result(60) == 200 and desk.n_all == 1
    assert front.metric("headrace_queue_refused_total", why="expired") == 1


def test_who_leaves_the_queue_reaches_no_engine(desk, router):
    front = router([desk.worker], "--max-concurrent-requests", "1")
    first, = in_background(1, lambda _: front.chat().status_code)
    eventually(lambda: desk.n_now == 1)
    clients = [front.connect() for _ in range(3)]
    for s in clients:
        s.sendall(raw_request(chat_body()))
    eventually(lambda: waiting(front) == 3)
    hard_close(clients[0])
    clients[1].close()
    eventually(lambda: waiting(front) == 1)
    desk.let_go(2)
    assert first.result(60) == 200
    assert read_to_end(clients[2], b"{}")[0].startswith(b"HTTP/1.1 200 ")
    clients[2].close()
    assert desk.n_all == 2
    eventually(lambda: front.metric("headrace_client_aborts_total") == 2)


def test_high_goes_first_and_low_yields(desk, router):
    front = router([desk.worker], "--max-concurrent-requests", "1", "--queue-size", "2")
    order, lock = [], threading.Lock()

    def ask(priority):
        reply = front.chat(headers={"x-headrace-priority": priority})
        with lock:
            order.append((priority, reply.status_code))
    threads = []
    for n, priority in enumerate(["0", "low", "normal"]):
        threads.append(threading.Thread(target=ask, args=[priority]))
        threads[-1].start()
        eventually(lambda: desk.n_now == 1 and waiting(front) == n)
    threads.append(threading.Thread(target=ask, args=["high"]))
    threads[-1].start()
    eventually(lambda: order == [("low", 503)])
    for n in range(3):
        desk.let_go()
        eventually(lambda: len(order) == n + 2)
    for thread in threads:
        thread.join()
    assert order == [("low", 503), ("0", 200), ("high", 200), ("normal", 200)]


def test_an_engine_that_is_not_up_yet_is_waited_for(engine, router):
    late = engine(["m"])
    late.kill()
    front = router([late], ready=0, health={"interval": "200ms"})
    assert front.chat().status_code in (502, 503)
    reply, = in_background(1, lambda _: front.chat(headers={"x-headrace-wait": "30s"}).status_code)
    eventually(lambda: waiting(front) == 1)
    late.restart()
    late.expected_to_end = False
    assert reply.result(60) == 200


def test_a_stop_tells_those_who_wait(desk, router):
    front = router([desk.worker], "--max-concurrent-requests", "1", timeout={"announce": "0s", "drain": "100ms"})
    replies = in_background(4, lambda _: front.chat().status_code)
    eventually(lambda: desk.n_now == 1 and waiting(front) == 3)
    front.process.send_signal(signal.SIGTERM)
    assert [r.result(60) for r in replies] == [503] * 4
    desk.let_go(4)
    assert front.wait() == 0
    assert desk.n_all == 1
