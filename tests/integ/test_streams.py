"""Nine thousand streams at once, clients leaving at random: afterwards nothing of them is left."""
import random
import resource
import selectors

from program import chat_body, eventually, hard_close, raw_request

REQUEST = raw_request(chat_body(stream=True, max_tokens=12))


def n_streams():
    """As many as the descriptor limit of one process allows, which in the router pays for two sides."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(9000, (hard - 1000) // 2)


class Crowd:
    """Clients over one selector. Each reads its stream to the end, or leaves after some of its events."""

    def __init__(self, front, n, dice, requests=(REQUEST,)):
        self.selector, self.dice = selectors.DefaultSelector(), dice
        self.n, self.done, self.left, self.broken = n, 0, 0, []
        self.states = {}
        for i in range(n):
            s = front.connect(source=f"127.0.0.{2 + i % 8}")
            s.sendall(requests[i % len(requests)])
            s.setblocking(False)
            leaves_after = dice.randrange(12) if dice.random() < 0.6 else None
            self.states[s] = [0, leaves_after, b""]
            self.selector.register(s, selectors.EVENT_READ)

    def n_open(self):
        return len(self.states)

    def turn(self):
        for key, _ in self.selector.select(1):
            self.read(key.fileobj)

    def read(self, s):
        state = self.states[s]
        try:
            data = s.recv(65536)
        except ConnectionResetError:
            data = b""
        state[0] += data.count(b"data: ")
        state[2] = (state[2] + data)[-64:]
        if state[2].endswith(b"0\r\n\r\n"):
            self.done += b"[DONE]" in state[2]
            self.forget(s)
            s.close()
        elif not data:
            self.broken.append(state)
            self.forget(s)
        elif state[1] is not None and state[0] > state[1]:
            self.left += 1
            self.forget(s)
            hard_close(s) if self.dice.random() < 0.5 else s.close()

    def forget(self, s):
        self.selector.unregister(s)
        del self.states[s]


def run_crowd(front, n, dice):
    crowd = Crowd(front, n, dice)
    while crowd.n_open():
        crowd.turn()
    assert not crowd.broken and crowd.done + crowd.left == n
    return crowd


def nothing_in_flight(front):
    return front.metric("headrace_in_flight") == 0 and front.metric("headrace_connections", side="client") == 0


def test_streams_come_and_go(engine, router):
    n, dice = n_streams(), random.Random(9000)
    worker = engine(["m"], "--itl", "500ms", "--max-num-seqs", 20000)
    front = router([worker], timeout={"pool_idle": "1s"})
    run_crowd(front, n // 10, dice)          # what is kept for ever is there after this
    eventually(lambda: nothing_in_flight(front))
    descriptors, rss = front.descriptors(), front.rss_bytes()

    crowd = run_crowd(front, n, dice)
    assert crowd.left > n // 4 and crowd.done > n // 4
    eventually(lambda: nothing_in_flight(front))
    eventually(lambda: front.descriptors() <= descriptors)
    eventually(lambda: front.rss_bytes() <= rss * 1.1 + (2 << 20), seconds=40)
    eventually(lambda: sum(worker.count(k) for k in ("finished", "cancelled")) == worker.count("started"))


def test_all_are_open_at_once_and_cheap(engine, router):
    """Silent streams after their first event: memory is lent only while bytes wait."""
    n = n_streams()
    worker = engine(["m"], "--fault", "hang_stream:1", "--max-num-seqs", 20000)
    front = router([worker])
    assert front.get("/version").status_code == 200
    before = front.rss_bytes()
    streams = []
    for i in range(n):
        streams.append(front.connect(source=f"127.0.0.{2 + i % 8}"))
        streams[-1].sendall(REQUEST)
    eventually(lambda: front.metric("headrace_in_flight") == n, seconds=60)
    for s in streams:
        assert s.recv(65536)
    eventually(lambda: (front.rss_bytes() - before) / n < 4096)
    for s in streams:
        s.close()
    eventually(lambda: nothing_in_flight(front), seconds=60)


def test_cancels_and_breaks_balance(engine, router):
    """Ten thousand streams, a fifth of which their engine cuts in the middle, and clients that leave: what came is
    what succeeded, failed, was refused or was left, and nothing is at work any more."""
    n, rounds, dice = 1000, 10, random.Random(10)
    workers = [engine(["m"], "--itl", "10ms", "--max-num-seqs", 20000) for _ in range(2)]
    front = router(workers, health={"probe": False, "passive": False}, breaker={"enabled": False})
    cut = raw_request(chat_body(stream=True, max_tokens=12), headers="x-mock-fault: reset:6\r\n")
    done = left = broken = 0
    outcomes = {}

    def is_settled():
        """Nobody is at work, and `outcomes` are what has come of all so far."""
        series = front.metrics()
        outcomes.update({dict(labels)["outcome"]: v for (name, labels), v in series.items() if name == "headrace_outcomes_total"})
        return series["headrace_active", frozenset()] == 0
    eventually(is_settled)
    before, accepted = dict(outcomes), front.metric("headrace_accepted_total")      # of looks at the readiness
    for _ in range(rounds):
        crowd = Crowd(front, n, dice, (REQUEST, REQUEST, cut, REQUEST, REQUEST))
        while crowd.n_open():
            crowd.turn()
        done, left, broken = done + crowd.done, left + crowd.left, broken + len(crowd.broken)
    assert done + left + broken == n * rounds and min(done, left, broken) > n * rounds // 20
    eventually(lambda: nothing_in_flight(front))
    eventually(is_settled)
    outcomes = {outcome: count - before.get(outcome, 0) for outcome, count in outcomes.items()}
    assert front.metric("headrace_accepted_total") - accepted == sum(outcomes.values()) == n * rounds
    assert outcomes["rejected"] == 0 and broken <= outcomes["failed"] <= n * rounds // 5
    assert outcomes["cancelled"] <= left and outcomes["succeeded"] >= done
    assert front.metric("headrace_prefill_tokens") == front.metric("headrace_decode_tokens") == 0
    eventually(lambda: all(sum(w.count(k) for k in ("finished", "cancelled", "failed")) == w.count("started") for w in workers))
