"""Engines that prefill and engines that decode, of one connector, before one router. Their ledgers are the witnesses."""
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from ports import free_port
from program import KEY, Engine, Router, chat_body, eventually

CHAT = "/v1/chat/completions"
LONG = "water " * 400       # more than the decoding engine would compute by itself


class Connector:
    """One way of a cache from a prefill to a decode: as engines call it, and as the router does."""

    def __init__(self, engines, router=None, mode=None, has_address=False, has_bootstrap=False, is_alone=False, is_concurrent=False):
        self.engines, self.router, self.mode = engines, router or engines, mode
        self.has_address, self.has_bootstrap = has_address, has_bootstrap
        self.is_alone = is_alone                # the decoding engine can compute a prompt by itself
        self.is_concurrent = is_concurrent      # both legs are sent at once


CONNECTORS = {
    "nixl": Connector("nixl", is_alone=True),
    "nixl_push": Connector("nixl_push", "nixl", is_alone=True),
    "mooncake": Connector("mooncake", has_bootstrap=True, is_alone=True),
    "moriio_read": Connector("moriio", mode="read", has_address=True),
    "moriio_write": Connector("moriio", mode="write", has_address=True, is_concurrent=True),
    "p2p_nccl": Connector("p2p_nccl", has_address=True),
    "sglang": Connector("sglang", has_bootstrap=True, is_concurrent=True),
}


class Side:
    """How to start an engine of this role, and what the router is told of it."""

    def __init__(self, role, connector):
        self.flags = ["--role", role, "--kv-connector", connector.engines]
        self.labels = {"role": role, "kv_connector": connector.router}
        if connector.has_address:
            self.tell("--zmq-address", "zmq_address", f"127.0.0.1:{free_port()}")
        if connector.mode:
            self.tell("--kv-mode", "kv_mode", connector.mode)
        if connector.has_bootstrap and role == "prefill":
            self.tell("--bootstrap-port", "bootstrap_port", str(free_port()))

    def tell(self, flag, label, value):
        self.flags += [flag, value]
        self.labels[label] = value


class Pairs:
    """start: the fixture. So many engines of each role; `flags` are for all of them, `prefill_flags` and `decode_flags` besides.

    Prompts of any length are shared, unless pd says otherwise. kind: of the router. others: engines that are there as well, of another
    fleet like this one, with their labels. has_keys: the router has a key of its own for each engine.
    """

    def __init__(self, start, name="nixl", prefills=1, decodes=1, unified=0, flags=(), prefill_flags=(), decode_flags=(), pd=None,
                 kind=Router, others=(), has_keys=False, **tables):
        self.start, self.connector = start, CONNECTORS[name]
        self.labels = []
        self.prefills = [self.engine("prefill", *flags, *prefill_flags) for _ in range(prefills)]
        self.decodes = [self.engine("decode", *flags, *decode_flags) for _ in range(decodes)]
        self.unified = [self.engine(None, *flags) for _ in range(unified)]
        self.engines = [*self.prefills, *self.decodes, *self.unified]
        for engine in self.engines if has_keys else ():
            engine.more = {"api_key": key_of(engine)}
        self.labels += [labels for _, labels in others]
        self.front = start(kind, [*self.engines, *(e for e, _ in others)], labels=self.labels,
                           pd={"min_uncached_tokens": 0} | (pd or {}), **tables)
        if name == "mooncake":
            eventually(lambda: all(self.kv_engines().values()))

    def engine(self, role, *flags):
        side = Side(role, self.connector) if role else None
        self.labels.append(side.labels if side else None)
        return self.start(Engine, ["m"], *(side.flags if side else ()), *flags)

    @property
    def pair(self):
        """-> the first prefill and the first decode."""
        return self.prefills[0], self.decodes[0]

    def kv_engines(self):
        """What its connector calls each instance that prefills; None: not known."""
        urls = {e.url for e in self.prefills}
        return {i["instance"]: i["kv_engine"] for i in self.front.admin("/instances").json()["instances"]
                if i["instance"].split("@")[0] in urls}

    def chat(self, i=0, headers=None, **more):
        """One long prompt, of which there are many. -> httpx.Response."""
        return self.front.post(CHAT, json=long_chat(i, **more), headers=headers)

    def legs(self):
        """What was worked on where: a list of legs for each engine; None is a whole request."""
        return [[row["leg"] for row in e.ledger()["generations"]] for e in self.engines]

    def unload(self):
        """No load is charged any more."""
        eventually(lambda: self.front.metric("headrace_in_flight") == 0)

    def rest(self):
        """No engine works, either."""
        self.unload()
        eventually(lambda: not any(e.count("running") for e in self.engines))

    def is_settled(self, engines=None):
        """Nothing is at work, no blocks wait for anybody, no load is charged."""
        return self.front.metric("headrace_in_flight") == 0 and all(is_idle(e) for e in engines or self.engines)

    def settle(self, engines=None):
        eventually(lambda: self.is_settled(engines))


def key_of(engine):
    return f"{KEY}-{engine.port}"


def long_chat(i=0, **more):
    return chat_body(messages=[{"role": "user", "content": f"{i} {LONG}"}], max_tokens=4, **more)


@contextmanager
def asking(ask, n=4):
    """Calls ask(i) again and again, i of n threads each, while the block lasts. -> the list of what that returned."""
    ends, returned = threading.Event(), []

    def run(i):
        while not ends.is_set():
            returned.append(ask(i))
    with ThreadPoolExecutor(n) as pool:
        running = [pool.submit(run, i) for i in range(n)]
        try:
            yield returned
        finally:
            ends.set()
    for thread in running:
        thread.result()


def transfers(engine):
    return engine.ledger().get("transfers") or {}


def is_idle(engine):
    ledger = engine.ledger()
    moved = ledger.get("transfers") or {}
    return ledger["counts"]["running"] == 0 and not any(moved.get(key) for key in ("asked", "making", "held"))


def headers_of(engine, path=CHAT):
    """Of each request that came, as a dictionary."""
    return [dict(r["headers"]) for r in engine.captured()["requests"] if r["path"] == path]


def bodies_of(engine, path=CHAT):
    """As bytes came, text."""
    return [r["body"] for r in engine.captured()["requests"] if r["path"] == path]
