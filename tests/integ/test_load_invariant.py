"""Whatever becomes of requests: all that were taken in are accounted for, and all that was charged is released."""
import asyncio
import random
import threading

import httpx
import pytest

from program import chat_body, eventually, raw_request

LIMIT = 64 << 10
AT_ONCE = 24
PATH = "/v1/chat/completions"
GAUGES = ("headrace_in_flight", "headrace_prefill_tokens", "headrace_decode_tokens")
OUTCOMES = ("succeeded", "failed", "rejected", "cancelled")


class Account:
    """One look at /metrics."""

    def __init__(self, front):
        self.series = front.metrics()
        self.accepted, self.active = self.sum("headrace_accepted_total"), self.sum("headrace_active")
        self.outcomes = {o: self.sum("headrace_outcomes_total", outcome=o) for o in OUTCOMES}
        self.unaccounted = self.accepted - self.active - sum(self.outcomes.values())
        self.n_outcomes = sum(n == "headrace_outcomes_total" for n, _ in self.series)

    def sum(self, name, **labels):
        return sum(v for (n, have), v in self.series.items() if n == name and set(labels.items()) <= have)

    def charges(self):
        """The gauges of each instance that are not 0."""
        return {(name, *labels): v for (name, labels), v in self.series.items() if name in GAUGES and v}

    def is_settled(self):
        return not self.active and not self.charges() and not self.unaccounted


def settle(front):
    """-> the account when nothing is at work: it is exact."""
    found = []

    def is_settled():
        found.append(Account(front))
        return found[-1].is_settled()
    try:
        eventually(is_settled, 30)
    except AssertionError:
        last = found[-1]
        raise AssertionError(f"{last.active} active, {last.unaccounted} unaccounted, {last.charges()}") from None
    assert found[-1].n_outcomes == len(OUTCOMES)
    return found[-1]


class Watch:
    """Looks at the metrics all the time until it is left. The pages are a moment long, so the sum may be out by those
    that come and go in it: never by more than are under way, while a leak grows."""

    def __init__(self, front):
        self.front, self.ends, self.wrong, self.n, self.busiest = front, threading.Event(), [], 0, 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.ends.is_set():
            now = Account(self.front)
            self.n, self.busiest = self.n + 1, max(self.busiest, now.active)
            if abs(now.unaccounted) > AT_ONCE or not 0 <= now.active <= 2 * AT_ONCE or \
                    any(not 0 <= v < 1 << 40 for v in now.charges().values()):
                self.wrong.append((now.accepted, now.active, now.outcomes, now.charges()))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()


class Client:
    """Each method is a request. Those that the router leaves no choice have a name in EXPECTED."""

    def __init__(self, front):
        self.front = front
        self.http = httpx.AsyncClient(base_url=front.url, timeout=60, verify=False,
                                      limits=httpx.Limits(max_connections=None, max_keepalive_connections=8))

    async def plain(self, **more):
        headers = more.pop("headers", None)
        return await self.http.post(PATH, json=chat_body(**{"max_tokens": 3} | more), headers=headers)

    async def prompt(self):
        """Long enough to be charged in tokens and noted in the index."""
        content = f"{random.random()} " + "word " * 2000
        return await self.plain(messages=[{"role": "user", "content": content}])

    async def stream(self, max_tokens=20, stop_after=None, **headers):
        body = chat_body(stream=True, max_tokens=max_tokens, ignore_eos=True)
        async with self.http.stream("POST", PATH, json=body, headers=headers) as answer:
            n = 0
            async for _ in answer.aiter_lines():
                n += 1
                if n == stop_after:
                    return

    async def leave_stream(self):
        await self.stream(max_tokens=100000, stop_after=random.randrange(1, 9))

    async def raw(self, request, until=None):
        """Sends it and leaves once until() has come true."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.front.port)
        writer.write(request)
        await writer.drain()
        if until:
            await until(reader)
        writer.transport.abort()

    async def answered(self, reader):
        await reader.read(1)

    async def at_an_engine(self, _):
        while not await asyncio.to_thread(self.front.metric, "headrace_in_flight"):
            pass

    async def leave_unanswered(self):
        await self.raw(raw_request(chat_body(max_tokens=100000, ignore_eos=True)), self.at_an_engine)

    async def leave_in_the_body(self):
        request = raw_request(chat_body(stream=True))
        await self.raw(request[:-20])

    async def unknown_model(self):
        return await self.plain(model="none of ours")

    async def no_json(self):
        return await self.http.post(PATH, content=b'{"model": "m", ]', headers={"content-type": "application/json"})

    async def bad_field(self):
        return await self.plain(headers={"x-headrace-privacy": "none"})

    async def oversized(self):
        request = raw_request(chat_body())
        head = request[:request.index(b"Content-Length")] + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1)
        await self.raw(head, self.answered)

    async def oversized_chunks(self):
        head = b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH.encode()
        await self.raw(head + b"10000\r\n" + b" " * 65536 + b"\r\n10000\r\n" + b" " * 65536, self.answered)

    async def engine_refuses(self):
        return await self.plain(headers={"x-mock-fault": "status:503"})

    async def engine_talks_nonsense(self):
        return await self.plain(headers={"x-mock-fault": "garbage"})

    async def engine_breaks_off(self):
        await self.stream(**{"x-mock-fault": "reset:5"})


EXPECTED = {
    "succeeded": ["plain", "prompt", "stream"],
    "cancelled": ["leave_stream", "leave_unanswered"],
    "rejected": ["unknown_model", "no_json", "bad_field", "oversized"],
    "failed": ["engine_refuses", "engine_breaks_off"],
}
ALL = [kind for kinds in EXPECTED.values() for kind in kinds] + ["leave_in_the_body", "oversized_chunks",
                                                                "engine_talks_nonsense"]


def load(front, kinds, beside=None):
    """All of these requests, AT_ONCE at a time, over and over until beside(), a thread, has ended. -> how many"""
    async def run():
        client, n = Client(front), 0
        other = asyncio.create_task(asyncio.to_thread(beside or bool))

        async def one_after_the_other():
            nonlocal n
            while n < len(kinds) or not other.done():
                n += 1
                try:
                    await getattr(client, kinds[(n - 1) % len(kinds)])()
                except (httpx.TransportError, OSError):
                    pass        # engines die: what came of it is the router's to count
        await asyncio.gather(*(one_after_the_other() for _ in range(min(AT_ONCE, len(kinds)))))
        await other
        await client.http.aclose()
        return n
    return asyncio.run(run())


@pytest.fixture
def front(engine, router):
    # Failures that are asked for are no reason to leave an engine alone: passive is off.
    engines = [engine(["m"], "--prefill-rate", 50000) for _ in range(3)]
    started = router(engines, "--policy", "cache_aware", router={"threads": 2, "body_limit": "64KiB"},
                     health={"slow_start": "0s", "passive": False})
    started.engines = engines
    return started


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_end_is_counted_once(front, outcome):
    for kind in EXPECTED[outcome]:
        before = settle(front)
        assert load(front, [kind] * 12) == 12
        now = eventually(lambda: (a := settle(front)).outcomes[outcome] >= before.outcomes[outcome] + 12 and a)
        assert now.outcomes == before.outcomes | {outcome: before.outcomes[outcome] + 12}, kind
        assert now.accepted == before.accepted + 12, kind


def test_nothing_leaks_under_load(front):
    kinds = ALL * 30
    random.Random(4).shuffle(kinds)

    def engines_die():
        """One after the other, while its requests run; there are always others."""
        for e in front.engines[:2] * 2:
            eventually(lambda: front.metric("headrace_in_flight", instance=e.url) > 0)
            e.restart()
    with Watch(front) as watch:
        n = load(front, kinds, engines_die)
    assert not watch.wrong and watch.n > 10 and watch.busiest > 2, (watch.wrong[:3], watch.n, watch.busiest)
    end = settle(front)
    assert end.accepted > n / 2 and min(end.outcomes.values()) > 0
    assert end.sum("headrace_connect_failures_total") + end.outcomes["failed"] > 0
