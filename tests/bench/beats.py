"""What many records with heartbeats cost the registry: its store on disk, probes as often as by default.

Every record is an engine that is well when it is probed; what answers for all of them is one mock engine.
"""

import contextlib
import json
import socket
import statistics
import threading
import time

from delays import Client, until
from subjects import START_S, Running, Unavailable, free_ports, spawn

CONNECTIONS = 16
RATE_PER_S = 1000


def cpu_s(process):
    """Of all its threads: what clock_getcpuclockid() names, to the nanosecond."""
    return time.clock_gettime(~process.pid << 3 | 2)


def request(method, path, body=None):
    data = json.dumps(body).encode() if body else b""
    return f"{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


def ask(connection, text):
    """The status."""
    connection.sendall(text)
    answer = b""
    while not answer.endswith(b"}"):
        more = connection.recv(65536)
        if not more:
            raise Unavailable("the registry closed a connection")
        answer += more
    return int(answer.split(b" ", 2)[1])


class Talk:
    """All the requests, dealt out to kept connections; at a rate, or each as the last was answered."""

    def __init__(self, port, requests, rate_per_s=None):
        self.port, self.requests, self.rate_per_s = port, requests, rate_per_s
        self.delays_s, self.statuses, self.faults = [], [], []

    def run(self, good):
        """How long it took. Delays count from when a request was due."""
        self.began = time.monotonic()
        threads = [threading.Thread(target=self.one, args=(first,)) for first in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.monotonic() - self.began
        bad = [status for status in self.statuses if status != good]
        if bad or len(self.statuses) != len(self.requests):
            raise Unavailable(f"{len(bad)} bad answers {set(bad)}, {len(self.statuses)} in all {self.faults[:1]}")
        return took_s

    def one(self, first):
        try:
            with socket.create_connection(("127.0.0.1", self.port), START_S) as connection:
                for i in range(first, len(self.requests), CONNECTIONS):
                    due = self.began + i / self.rate_per_s if self.rate_per_s else time.monotonic()
                    time.sleep(max(0, due - time.monotonic()))
                    self.statuses.append(ask(connection, self.requests[i]))
                    self.delays_s.append(time.monotonic() - due)
        except (OSError, ValueError, Unavailable) as why:
            self.faults.append(why)


def record(name, engine):
    """Probes go to the next port: there the engine is."""
    there = {"host": "127.0.0.1", "port": engine - 1, "hostname": "localhost", "url": f"http://127.0.0.1:{engine - 1}"}
    return {"name": name, **there, "status": "running", "metadata": {"type": "openai-api", "models": ["model"]}}


def measure(place, n_records, n_beats, say):
    with contextlib.ExitStack() as stack:
        folder = place.folder / "registry"
        folder.mkdir()
        log = stack.enter_context((folder / "output").open("wb"))
        port, engine = free_ports(2)
        spawn(place, stack, log, place.load_cpu, "mock-engine", "--port", engine)
        registry = spawn(place, stack, log, place.proxy_cpu, "registry", "--port", port, "--state-dir", folder)
        until(lambda: Client(engine).ask("GET", "/v1/models")[0] == 200, "an engine")
        until(lambda: Client(port).ask("GET", "/health")[0] == 200, "a registry")

        say(f"{n_records} registrations")
        names = [f"engine-{i}" for i in range(n_records)]
        took_s = Talk(port, [request("POST", "/services", record(name, engine)) for name in names]).run(201)
        say(f"{n_beats} heartbeats")
        beats = [request("POST", f"/services/{names[i % n_records]}/heartbeat") for i in range(n_beats)]
        talk, before_s = Talk(port, beats, RATE_PER_S), cpu_s(registry)
        beats_s = talk.run(200)
        return {
            "records": n_records,
            "registered_per_s": round(n_records / took_s),
            "rate_per_s": round(n_beats / beats_s),
            "cpu_s": cpu_s(registry) - before_s,
            "window_s": beats_s,
            "delays_s": talk.delays_s,
            "rss_bytes": Running([port], registry).rss_bytes(),
        }


def row(found, version):
    """Like those of the other workloads: an operation is a heartbeat, delays count from when it was due."""
    delays, cpu = found["delays_s"], found["cpu_s"]
    cuts = [round(cut * 1e6) for cut in statistics.quantiles(delays, n=100, method="inclusive")]
    measured = {"ops": len(delays), "cpu_us_per_op": round(cpu / len(delays) * 1e6, 3), "p50_us": cuts[49]}
    measured |= {"p95_us": cuts[94], "p99_us": cuts[98], "rss_bytes": found["rss_bytes"], "rss_bytes_per_stream": None}
    config = {"version": version, "cpu_s": round(cpu, 3), "core_share": round(cpu / found["window_s"], 4)}
    config |= {name: found[name] for name in ("records", "registered_per_s", "rate_per_s")} | {"asked_per_s": RATE_PER_S}
    return {"workload": "registry", "subject": "headrace", "connections": CONNECTIONS, **measured, "errors": 0} | {
        "config": config
    }
