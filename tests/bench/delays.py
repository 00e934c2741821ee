"""How soon the router believes what happens to an engine: a registry with a store, a router, mock engines.

Every repetition starts an engine that nobody has heard of, with a model of its own, so that each answer of the router
shows whether that engine is believed to be there. Times begin before the request that changes something is sent.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import time

from subjects import START_S, Unavailable, free_ports, spawn

STALL_S = 1  # how long a stream is silent before it counts as stalled
STREAM_EVERY_S = 0.01  # a new one, until the hung engine is out
POLL_S = 0.001
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Who is there?"}]


class Client:
    """One kept connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)

    def ask(self, method, path, body=None):
        """-> (status, JSON or None)"""
        try:
            self.connection.request(method, path, json.dumps(body) if body else None, {"content-type": "application/json"})
            answer = self.connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError):
            self.connection.close()
            return None, None

    def good(self, method, path, body=None):
        status, answer = self.ask(method, path, body)
        if status is None or status >= 300:
            raise Unavailable(f"{method} {path} was answered {status}")
        return answer


def until(condition, what):
    """The time at which it became true."""
    deadline = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > deadline:
            raise Unavailable(f"never seen: {what}")
        time.sleep(POLL_S)
    return time.monotonic()


class Delays:
    """The programs of one run; they end with the stack."""

    def __init__(self, place, stack):
        self.place, self.stack = place, stack
        self.folder = place.folder / "delays"
        self.folder.mkdir()
        self.log = stack.enter_context((self.folder / "output").open("wb"))
        self.n_engines = 0
        self.open()

    def start(self, cpu, command, *arguments):
        return spawn(self.place, self.stack, self.log, cpu, command, *arguments)

    def open(self):
        registry, router, admin = free_ports(3)
        self.start(self.place.load_cpu, "registry", "--port", registry, "--state-dir", self.folder)
        self.registry, self.router = Client(registry), Client(router)
        until(lambda: self.registry.ask("GET", "/health")[0] == 200, "a registry")
        config = self.folder / "router.toml"
        config.write_text(
            f'router.port = {router}\nadmin.port = {admin}\nlog.access = "off"\ntimeout.announce = "0s"\n'
            f'router.state_dir = "{self.folder}"\n'
            f'discovery.registry_url = "http://127.0.0.1:{registry}"\nhealth.stall_timeout = "{STALL_S * 1000:.0f}ms"\n'
        )
        self.start(self.place.proxy_cpu, "router", "--config", config)
        until(lambda: self.router.ask("GET", "/liveness")[0] == 200, "a router")
        steady = Engine(self)  # the others are there
        steady.register()
        until(steady.is_ready, "a fleet of one engine")


class Engine:
    def __init__(self, delays):
        self.delays = delays
        delays.n_engines += 1
        self.name = f"engine-{delays.n_engines}"
        (self.port,) = free_ports(1)
        flags = ["--models", self.name, "--itl", "1ms", "--prefill-rate", 0]
        self.process = delays.start(delays.place.load_cpu, "mock-engine", "--port", self.port, *flags)
        self.own = Client(self.port)
        until(lambda: self.own.ask("GET", "/v1/models")[0] == 200, "an engine")

    def register(self):
        record = {"name": self.name, "host": "127.0.0.1", "port": self.port, "hostname": "localhost"}
        record |= {"url": f"http://127.0.0.1:{self.port}", "status": "running"}
        record |= {"metadata": {"type": "openai-api", "models": [self.name]}}
        self.delays.registry.good("POST", "/services", record)

    def deregister(self):
        self.delays.registry.good("DELETE", f"/services/{self.name}")

    def chat(self):
        body = {"model": self.name, "messages": MESSAGES, "max_tokens": 1}
        return self.delays.router.ask("POST", CHAT, body)[0]

    def is_ready(self):
        services = self.delays.router.good("GET", "/services")["services"]
        return any(s["name"] == self.name and s["status"] == "ready" for s in services)

    def join(self):
        self.register()
        until(lambda: self.is_ready() and self.chat() == 200, "an engine that has joined")


def registered(delays):
    engine = Engine(delays)
    began = time.monotonic()
    engine.register()
    delay = until(lambda: engine.chat() == 200, "a first request") - began
    engine.deregister()
    return delay


def deregistered(delays):
    engine = Engine(delays)
    engine.join()
    began = time.monotonic()
    engine.deregister()
    return until(lambda: engine.chat() not in (200, None), "a last request") - began


def dead(delays):
    engine = Engine(delays)
    engine.join()
    began = time.monotonic()
    os.kill(engine.process.pid, signal.SIGKILL)
    delay = until(lambda: engine.chat() != 200 and not engine.is_ready(), "the death of an engine") - began
    engine.deregister()
    return delay


def hung(delays):
    engine = Engine(delays)
    engine.join()
    body = json.dumps({"model": engine.name, "messages": MESSAGES, "stream": True}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    began = time.monotonic()
    engine.own.good("POST", "/mock/faults", {"fault": "hang_stream:1"})
    with contextlib.ExitStack() as streams:

        def is_out():
            stream = socket.create_connection(("127.0.0.1", delays.router.connection.port), START_S)
            streams.enter_context(stream)
            stream.sendall(head.encode() + body)
            time.sleep(STREAM_EVERY_S)
            return not engine.is_ready()

        delay = until(is_out, "that an engine hangs") - began
    engine.deregister()
    return delay


# (what, how, goal in seconds)
ALL = (
    ("registered to first request", registered, 1),
    ("deregistered to last request", deregistered, 0.2),
    ("dead to ejected", dead, 1),
    (f"hung to ejected, stall_timeout {STALL_S} s", hung, STALL_S + 1),
)


def measure(place, n, say):
    """[{"what", "goal_s", "delays_s"}]"""
    with contextlib.ExitStack() as stack:
        delays, found = Delays(place, stack), []
        for what, how, goal_s in ALL:
            say(what)
            found.append({"what": what, "goal_s": goal_s, "delays_s": [how(delays) for _ in range(n)]})
        return found


def row(found, version):
    """Like those of the other workloads: p50 and p99 are median and maximum, an operation is a repetition."""
    delays = found["delays_s"]
    measured = {"ops": len(delays), "cpu_us_per_op": None, "p50_us": round(statistics.median(delays) * 1e6)}
    measured |= {"p95_us": None, "p99_us": round(max(delays) * 1e6), "rss_bytes": None, "rss_bytes_per_stream": None}
    config = {"version": version, "delay": found["what"], "goal_us": round(found["goal_s"] * 1e6)}
    return {"workload": "fleet", "subject": "headrace", "connections": 1, **measured, "errors": 0, "config": config}
