"""Kills parts of a running fleet under load, again and again, and counts what that cost: see script/chaos --fleet."""
import os
import signal
import sys
import tempfile
import threading
import time

import httpx

from fleet import Fleet, Stack
from load import Death, Load
from program import eventually
from registryprogram import Registry, service

# Rounds of each kind, streamed requests in all, registrations; `settles` waits after each death until the router believes
# in all engines again, otherwise the next one dies as soon as the last one serves.
FORMS = {
    "--short": {"settles": True, "registry": 5, "babysitter": 5, "engine": 3, "hang": 1, "requests": 2000,
                "records": 300},
    "--long": {"settles": False, "registry": 20, "babysitter": 20, "engine": 20, "hang": 3, "requests": 10000,
               "records": 1000},
}


class Table:
    def __init__(self):
        self.lost = self.n_requests = 0
        print(f"{'what died':<34}{'rounds':>7}{'requests':>10}{'good':>8}{'excused':>9}{'lost':>6}{'seconds':>9}")

    def row(self, what, rounds, n, n_good, n_excused, n_lost, seconds):
        self.lost += n_lost
        print(f"{what:<34}{rounds:>7}{n:>10}{n_good:>8}{n_excused:>9}{n_lost:>6}{seconds:>9.1f}", flush=True)


def under_load(table, fleet, what, rounds, one_round):
    """one_round(load, i) gives a Death or None; what fails without one is lost."""
    began, load, deaths = time.monotonic(), Load(fleet.router), []
    try:
        for i in range(rounds):
            deaths.append(one_round(load, i))
        load.more(50)
    finally:
        load.stop()
    lost = load.lost([d for d in deaths if d])
    for failure in lost[:5]:
        print(f"  lost: {failure}", file=sys.stderr)
    table.n_requests += load.n_begun
    n_excused = len(load.failures) - len(lost)
    table.row(what, rounds, load.n_begun, load.n_done, n_excused, len(lost), time.monotonic() - began)


def settle(fleet, in_the_router=True):
    wanted = {f"{name}-server": "ready" for name in fleet.sitters}
    eventually(lambda: all(s.get("/health").status_code == 200 for s in fleet.sitters.values()), seconds=60)
    assert fleet.one_each(), "a babysitter without exactly one engine"
    eventually(lambda: wanted.keys() <= set(fleet.registry.names()), seconds=60)
    if in_the_router:
        eventually(lambda: fleet.states() == wanted, seconds=60)


def kill_registry(fleet):
    def one_round(load, _):
        load.more(40)
        fleet.registry.kill()
        load.more(40)
        fleet.registry.restart()
    return one_round


def kill_sitter(fleet, settles):
    def one_round(load, i):
        load.more(40)
        death = fleet.kill_sitter(f"s{i % 3}")
        settle(fleet, settles)
        return death
    return one_round


def kill_engine(fleet, settles):
    def one_round(load, i):
        load.more(40)
        name, sitter = f"s{i % 3}", fleet.sitters[f"s{i % 3}"]
        n = sitter.get("/info").json()["restart_count"]
        death = fleet.kill_engine(name)
        eventually(lambda: sitter.get("/info").json()["restart_count"] > n, seconds=60)
        settle(fleet, settles)
        return death
    return one_round


def hang_engine(fleet):
    def one_round(load, i):
        load.more(40)
        name, ordered = f"s{i % 3}", time.monotonic()
        fleet.engine(name).fault("hang_stream:2")
        eventually(lambda: fleet.states()[f"{name}-server"] == "unhealthy", seconds=60)
        death = Death(f"{name}-server", ordered)
        load.more(40)
        fleet.engine(name).fault("none")
        settle(fleet)
        return death
    return one_round


def registrations(table, start, n):
    """A registry killed while it is told things: what it has acknowledged must be there. Every third record is deleted."""
    began, n_deaths = time.monotonic(), 3
    registry = start(Registry, state_dir=tempfile.mkdtemp(prefix="roster-"))
    kept, gone, forgotten, lock = set(), set(), set(), threading.Lock()

    def until_told(client, method, url, good, **how):
        """Who gets no answer asks again. -> (the status, whether it is that of the first attempt)"""
        is_first = True
        while True:
            try:
                status = client.request(method, url, **how).status_code
                if status in good:
                    return status, is_first
            except httpx.TransportError:
                time.sleep(0.01)
            is_first = False

    def tell(first):
        with httpx.Client(timeout=30, verify=False) as client:
            for i in range(first, n, 8):
                name = f"x{i}"
                until_told(client, "POST", registry.url + "/services", (201,), json=service(name))
                if i % 3 == 0:
                    if until_told(client, "DELETE", f"{registry.url}/services/{name}", (200, 404)) == (404, True):
                        forgotten.add(name)
                with lock:
                    (gone if i % 3 == 0 else kept).add(name)
    threads = [threading.Thread(target=tell, args=(i,), daemon=True) for i in range(8)]
    for t in threads:
        t.start()
    for i in range(n_deaths):
        eventually(lambda: len(kept) + len(gone) >= n * (i + 1) // (n_deaths + 2), seconds=60)
        registry.restart()
    for t in threads:
        t.join()
    registry.restart()
    found = set(registry.names())
    n_lost = len(kept - found) + len(gone & found) + len(forgotten)
    table.row("registry, during registrations", n_deaths + 1, n, n - n_lost, 0, n_lost, time.monotonic() - began)


def phase(table, start, what, rounds, make_round, *args):
    """Before a fleet of its own."""
    fleet = Fleet(start, health={"stall_timeout": "500ms"}, timeout={"stream_idle": "3s"})
    try:
        under_load(table, fleet, what, rounds, make_round(fleet, *args))
    finally:
        fleet.clear()


def run(form):
    table = Table()
    with Stack() as start:
        phase(table, start, "registry", form["registry"], kill_registry)
        phase(table, start, "babysitter", form["babysitter"], kill_sitter, form["settles"])
        phase(table, start, "engine", form["engine"], kill_engine, form["settles"])
        phase(table, start, "nobody, but an engine hung", form["hang"], hang_engine)
        left = form["requests"] - table.n_requests
        phase(table, start, "nothing", 1, lambda _: lambda load, _: load.more(max(left, 200)))
        registrations(table, start, form["records"])
    print(f"{table.n_requests} streamed requests, {table.lost} lost")
    return 1 if table.lost else 0


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in FORMS:
        sys.exit("usage: script/chaos --fleet --short|--long")
    os.environ["NO_PROXY"] = "*"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # what was started ends, too
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        tempfile.tempdir = folder
        sys.exit(run(FORMS[sys.argv[1]]))


if __name__ == "__main__":
    main()
