"""What a tenant that floods costs another one, and what engines that fail cost those that are asked instead.

Headrace alone, on its CPU, before engines of its own. In a flood an answer takes the engine 50 ms, and what is timed is
the rest: what router, loopback and clients add.
"""

import contextlib
import hashlib
import json
import subprocess
from pathlib import Path

from delays import Client, until
from subjects import N_ENGINES, Unavailable, end, free_ports, models_of, pinned, spawn

HELD_MS = 50  # sink.c: late
CAP = 8  # requests in flight of a tenant; half of the router's
SHARE_PER_S = CAP * 1000 // HELD_MS
QUIET_PER_S = SHARE_PER_S // 2
FLOOD_PER_S = 20 * SHARE_PER_S
FLOOD_CONNECTIONS = 256
STORM_PER_S = 1000
STORM_CONNECTIONS = 64
TENANTS = {"quiet": "sk-bench-quiet", "flood": "sk-bench-flood"}
STORMS = ("500", "refused")  # how half of the engines fail


def tenants():
    lines = [f"[admission]\nmax_requests = {CAP * len(TENANTS)}"]
    for name, key in TENANTS.items():
        digest = hashlib.sha256(key.encode()).hexdigest()
        lines.append(f'[[tenant]]\nname = "{name}"\nkeys = ["sha256:{digest}"]\nmax_requests = {CAP}')
    return "\n".join(lines)


RETRIES = '[retry]\nattempts = 3\nstatuses = ["429", "500", "502", "503", "504"]'


class Scene:
    """Engines, of which some fail or are not there, and a router; they end with the stack."""

    def __init__(self, place, stack, name, config, failing=(), absent=()):
        self.place, self.folder = place, place.folder / name
        self.folder.mkdir()
        log = stack.enter_context((self.folder / "output").open("wb"))
        self.port, self.admin_port, *ports = free_ports(2 + N_ENGINES)
        self.engine_ports = [port for i, port in enumerate(ports) if i not in absent]
        sink = [place.tool("sink"), "--ports", ",".join(map(str, self.engine_ports))]
        if failing:
            sink += ["--failing", ",".join(str(ports[i]) for i in failing)]
        process = subprocess.Popen(pinned(place.load_cpu, sink), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(end, process)
        for port in self.engine_ports:
            until(lambda: Client(port).ask("GET", "/requests")[0] == 200, "an engine")
        self.access = self.folder / "access.log"
        workers = [f'[[worker]]\nurl = "http://127.0.0.1:{p}"\nmodels = {json.dumps(models_of(i))}' for i, p in enumerate(ports)]
        head = f'[router]\nport = {self.port}\nthreads = 1\n[admin]\nport = {self.admin_port}\n[timeout]\nannounce = "0s"\n'
        head += f'[log]\naccess = "{self.access}"\n'
        file = Path(self.folder, "headrace.toml")
        file.write_text(head + "\n".join([config, *workers]) + "\n")
        self.router = spawn(place, stack, log, place.proxy_cpu, "router", "--config", file)
        until(lambda: Client(self.port).ask("GET", "/readiness")[0] == 200, "a router")

    def load(self, stack, connections, rate, window_ms, *options, before=()):
        """Clients whose window has begun."""
        command = [*before, self.place.tool("load"), "open", "--ports", self.port, "--connections", connections, "--rate", rate]
        command += ["--window-ms", window_ms, *options]
        child = subprocess.Popen(
            pinned(self.place.load_cpu, list(map(str, command))), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        stack.callback(end, child)
        if child.stdout.readline() != b"ready\n":
            raise Unavailable("the load did not begin")
        return child

    def requests_at_engines(self):
        return sum(Client(port).good("GET", "/requests")["requests"] for port in self.engine_ports)


def result(child):
    line = child.stdout.readline()
    child.stdin.close()
    if not line:
        raise Unavailable("the load ended without a result")
    return json.loads(line)


def quiet(scene, stack, window_ms):
    options = ("--warm-ms", 300, "--late", "--key", TENANTS["quiet"])
    return result(scene.load(stack, 2 * CAP, QUIET_PER_S, window_ms, *options))


def flood(place, index, window_ms):
    """-> results of the quiet tenant alone, of it beside the flood, and of the flood"""
    with contextlib.ExitStack() as stack:
        scene = Scene(place, stack, f"flood-{index}", tenants())
        alone = quiet(scene, stack, window_ms)
        options = ("--warm-ms", 500, "--late", "--refusals", "--key", TENANTS["flood"])
        # behind the quiet one's clients on their common CPU: the router is what is measured
        flooding = scene.load(stack, FLOOD_CONNECTIONS, FLOOD_PER_S, window_ms + 300, *options, before=("nice", "-n", "19"))
        beside = quiet(scene, stack, window_ms)
        return alone, beside, result(flooding)


def storm(place, index, how, window_ms):
    """-> (requests of clients, requests at engines, the clients' result)"""
    sick = range(1, N_ENGINES, 2)
    with contextlib.ExitStack() as stack:
        where = {"failing": sick} if how == "500" else {"absent": sick}
        scene = Scene(place, stack, f"storm-{how}-{index}", RETRIES, **where)
        before = scene.requests_at_engines()
        found = result(scene.load(stack, STORM_CONNECTIONS, STORM_PER_S, window_ms, "--warm-ms", 0, "--refusals"))
        n_asked = found["ops"] + sum(found["refusals"].values())
        n_had = scene.requests_at_engines() - before
    if how == "refused":  # who is not there cannot count what was tried
        rows = [json.loads(line) for line in scene.access.read_text().splitlines()]
        n_had = sum(row["attempts"] for row in rows if row["path"].startswith("/v1/chat"))
    return n_asked, n_had, found


def flood_row(rounds, version):
    """Like those of the other workloads: an operation is an answer to the quiet tenant beside the flood."""
    middle = sorted(rounds, key=ratio)[len(rounds) // 2]
    alone, beside, flooding = middle
    config = {"version": version, "rounds": len(rounds), "added_p99_ratio": round(ratio(middle), 3)}
    config |= {"quiet_per_s": QUIET_PER_S, "flood_per_s": FLOOD_PER_S, "cap": CAP}
    config |= {"alone_p50_us": alone["p50_us"], "alone_p99_us": alone["p99_us"], "flood_answered": flooding["ops"]}
    config |= {"flood_refused": flooding["refusals"], "quiet_refused": beside["refusals"]}
    row = {"workload": "flood", "subject": "headrace", "connections": FLOOD_CONNECTIONS, "ops": beside["ops"]}
    row |= {"cpu_us_per_op": None, "rss_bytes": None, "rss_bytes_per_stream": None}
    row |= {p: beside[p] for p in ("p50_us", "p95_us", "p99_us")}
    return row | {"errors": sum(one["errors"] for three in rounds for one in three), "config": config}


def ratio(three):
    alone, beside, _ = three
    return beside["p99_us"] / max(1, alone["p99_us"])


def storm_row(how, found, version):
    """An operation is a request of a client."""
    n_asked, n_had, clients = found
    config = {"version": version, "engines": how, "requests_at_engines": n_had, "per_request": round(n_had / max(1, n_asked), 4)}
    config |= {"answered": clients["ops"], "refused": clients["refusals"]}
    row = {"workload": "storm", "subject": "headrace", "connections": STORM_CONNECTIONS, "ops": n_asked}
    row |= dict.fromkeys(("cpu_us_per_op", "rss_bytes", "rss_bytes_per_stream"))
    row |= {p: clients[p] for p in ("p50_us", "p95_us", "p99_us")}
    return row | {"errors": clients["errors"], "config": config}
