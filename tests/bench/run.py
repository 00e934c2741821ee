#!/usr/bin/env python3
"""Measures headrace beside its peers: the proxy alone on one CPU, load and engines on another.

    script/bench [--smoke | --full] [--peers] [--json FILE] [--only WORKLOAD,...] [--subjects NAME,...]

A round measures every subject once, one after the other; rounds are repeated, so that what the machine
does meanwhile falls on all alike. Figures are medians over the rounds, ratios are medians of the ratios
within each round. CPU per operation is the growth of the CPU clocks of the proxy's processes
(clock_getcpuclockid: nanoseconds, all threads) in the window in which the operations were counted.

    chat        400-byte POST, 600-byte answer; 1, 64 and 256 connections in a closed loop
    sse         streams of 20 events a second, 200 bytes each; an operation is an event
    idle        silent streams; an operation is a stream opened. Memory per stream is (Rss with all
                streams open - Rss before) / streams. Before means after 64 connections of chat and a
                fiftieth of the streams, opened and closed, and both Rss are taken when they stand still
    prompt400k  400 KB POST with `messages` before `model`, 8 connections in a closed loop
    shared400k  400 KB POSTs at 100 requests a second, 95 % of each the same in all, over 100 engines
                that have one model
    latency     chat at a fixed rate, half of what the slowest of the subjects in C did with 64
                connections (aiohttp: half of its own); timed from when each request was due
    fleet       headrace alone, with a registry: how soon it is believed that an engine came, left,
                died or hangs. An operation is a repetition; p50 is the median, p99 the maximum
    registry    headrace alone: 10,000 records, then 1,000 heartbeats a second over kept connections, with
                probes as by default. An operation is a heartbeat, timed from when it was due
    flood       headrace alone: a tenant's 80 requests a second beside one that asks for 20 times its share (both may
                have 8 in flight, of 50 ms each). An operation is an answer to the quiet one; times are what is added
                to the engine's own. What the other one is refused is counted by code
    storm       headrace alone: half of the engines answer 500, or refuse connections, all the time, with retries
                of both. An operation is a request of a client; what counts is how many engines get for each
    tls         chat with 64 connections that speak TLS 1.3 and are kept; nginx, HAProxy and headrace, one P-256
                certificate for all
    tls_sse     sse over TLS, a quarter of the streams
    ranks       chat with 64 connections and one model: headrace with 8 engines, and with one of 8 data-parallel ranks
    pairs       chat with 64 connections and one model: headrace with 4 engines, and with these and 4 that prefill
                for them (NIXL: two requests of engines, one after the other)
    decide      headrace's policies alone: what a choice takes among 8, 64 and 1,000 instances, and the
                lookup of a prompt of 195 blocks in an index of 64 MiB. An operation is a choice

headrace runs with its default policy, cache_aware, in all workloads: what it costs beside peers is what users
get. headrace_rr is the same with round_robin, in those workloads where the policies' difference is asked for.

--peers adds vllm_router and sglang_router, the routers that vLLM and SGLang publish, to chat, sse, prompt400k and
latency; the rate of the last is theirs, too, where they are the slowest.

Ends with 1 when headrace did not run or had errors; a missed target is shown, not punished.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import beats
import delays
import flood
import report
from subjects import SUBJECTS, TLS_WORKLOADS, Place, Unavailable, end, pinned
from wheels import WHEELS

CHAT_CONNECTIONS = (1, 64, 256)
CHAT_CLOSE = 64  # the level that targets and rates refer to
PROMPT_CONNECTIONS = 8
PROMPT_BYTES = 400_000
SHARED_BYTES = PROMPT_BYTES * 95 // 100
SHARED_CONNECTIONS = 32
SHARED_RATE_PER_S = 100
PLAIN = ("chat", "sse", "idle", "prompt400k", "shared400k", "latency")
WORKLOADS = (*PLAIN, *TLS_WORKLOADS, "ranks", "pairs")
ALSO = ("fleet", "registry", "decide", "flood", "storm")  # of no subject but our own


@dataclass(frozen=True)
class Profile:
    rounds: int
    warm_ms: int
    chat_ms: int
    sse_ms: int
    prompt_ms: int
    latency_ms: int
    scan_ms: int
    repetitions: int
    shared_ms: int
    picks: int
    flood_ms: int
    storm_ms: int
    sse_streams: int = 2000
    idle_streams: int = 9000
    records: int = 10000
    beats: int = 10000


PROFILES = {
    "smoke": Profile(1, 100, 300, 700, 400, 400, 20, 3, 400, 300, 700, 700, sse_streams=200, idle_streams=500, records=1000, beats=1000),
    "default": Profile(3, 300, 1500, 3000, 1500, 2000, 200, 15, 3000, 3000, 6000, 10000),
    "full": Profile(7, 1000, 4000, 8000, 4000, 5000, 500, 50, 8000, 10000, 10000, 60000, beats=60000),
}


class Load:
    """Runs the load generator against a running subject and gives back what it measured."""

    def __init__(self, place, subject, running):
        self.place, self.subject, self.running = place, subject, running

    def run(self, mode, connections, *options, on_ready=lambda: None):
        """One run. `on_ready` is called as the window begins, or, with idle streams, once all are open."""
        command = [self.place.tool("load"), mode, "--connections", str(connections), *map(str, options)]
        command += ["--ports", ",".join(map(str, self.running.ports))]
        if pids := self.running.pids():
            command += ["--clock", ",".join(map(str, pids))]
        if self.subject.routed and not self.place.is_crowd:
            command += ["--routed"]
        if self.subject.is_tls:
            command += ["--tls"]
        child = subprocess.Popen(
            pinned(self.place.load_cpu, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        watchdog = threading.Timer(300, child.kill)
        watchdog.start()
        try:
            return self.talk(child, mode, on_ready)
        finally:
            watchdog.cancel()
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
            end(child)

    def talk(self, child, mode, on_ready):
        if child.stdout.readline() != b"ready\n":
            return {"ops": 0, "errors": 1, "faults": {"load": 1}, "words": self.words(child)}
        ready = on_ready()
        if mode == "idle":
            child.stdin.close()
        line = child.stdout.readline()
        if not line:
            return {"ops": 0, "errors": 1, "faults": {"load": 1}, "words": self.words(child)}
        result = json.loads(line)
        result["ready"] = ready
        result["rss_bytes"] = self.running.rss_bytes()
        if result["errors"]:
            child.stdin.close()
            result["words"] = self.words(child)
        return result

    def words(self, child):
        """Why: what the load says, and what the proxy said last."""
        said = child.stderr.read().decode(errors="replace").strip()
        return " | ".join(filter(None, [said, self.running.last_words()]))


def say_progress(text):
    if sys.stderr.isatty():
        print(f"\r{text:40}\r{text}", end="", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, place, profile, subjects):
        self.place, self.profile, self.subjects = place, profile, subjects
        self.crowd, self.pair = place.crowd(), place.pairs()
        self.samples = report.Samples()
        self.versions = {}

    def check_subjects(self):
        """Drops the subjects that cannot be had here, and says so."""
        for subject in list(self.subjects):
            try:
                self.versions[subject.name] = subject.version(self.place)
            except (Unavailable, OSError) as why:
                self.samples.miss(subject.name, str(why))
                self.subjects.remove(subject)

    def run(self, workloads):
        self.check_subjects()
        for workload in workloads:
            measure = getattr(self, workload)
            place = {"shared400k": self.crowd, "ranks": self.place.alike(), "pairs": self.pair}.get(workload, self.place)
            subjects = [s for s in self.subjects if workload in (s.workloads or PLAIN)]
            for index in range(self.profile.rounds):
                for subject in subjects:
                    say_progress(f"{workload} {index + 1}/{self.profile.rounds} {subject.name}")
                    try:
                        with subject.running(place) as running:
                            measure(index, subject, running, Load(place, subject, running))
                    except Unavailable as why:
                        self.samples.fail(workload, subject.name, str(why))
        say_progress("")

    def add(self, workload, index, subject, connections, result, **config):
        config = {"version": self.versions[subject.name], **config}
        self.samples.add(workload, index, subject.name, connections, result, config)

    def closed(self, load, connections, window_ms, *options, on_ready=lambda: None):
        warm = ("--warm-ms", self.profile.warm_ms, "--window-ms", window_ms)
        return load.run("closed", connections, *warm, *options, on_ready=on_ready)

    def chat(self, index, subject, running, load):
        for connections in CHAT_CONNECTIONS:
            # Asking costs allocations, too: how many is seen from asking twice.
            idle = [running.heap_allocations(), running.heap_allocations()]
            result = self.closed(load, connections, self.profile.chat_ms, on_ready=running.heap_allocations)
            after = running.heap_allocations()
            if after is not None and result.get("ready") is not None:
                taken = after - result["ready"] - (idle[1] - idle[0])
                result["heap_allocations_per_op"] = max(0, taken) / max(1, result["ops"])
            self.add("chat", index, subject, connections, result)

    def sse(self, index, subject, running, load):
        options = ("--warm-ms", self.profile.warm_ms, "--window-ms", self.profile.sse_ms)
        result = load.run("sse", self.profile.sse_streams, *options)
        self.add("sse", index, subject, self.profile.sse_streams, result, events_per_s=20, event_bytes=200)

    def tls(self, index, subject, running, load):
        result = self.closed(load, CHAT_CLOSE, self.profile.chat_ms)
        self.add("tls", index, subject, CHAT_CLOSE, result)

    def tls_sse(self, index, subject, running, load):
        options = ("--warm-ms", self.profile.warm_ms, "--window-ms", self.profile.sse_ms)
        streams = self.profile.sse_streams // 4  # the clients' TLS shares a CPU with the engines
        result = load.run("sse", streams, *options)
        self.add("tls_sse", index, subject, streams, result, events_per_s=20, event_bytes=200)

    def idle(self, index, subject, running, load):
        streams = min(self.profile.idle_streams, self.place.n_streams)
        n_warm = max(10, streams // 50)
        self.closed(load, 64, self.profile.warm_ms)
        load.run("idle", n_warm)
        before = running.settled_rss_bytes()
        result = load.run("idle", streams, on_ready=running.settled_rss_bytes)
        if running.process and result.get("ready") is not None:
            result["rss_bytes"] = result["ready"]
            result["rss_bytes_per_stream"] = (result["ready"] - before) / streams
        self.add("idle", index, subject, streams, result, warm_up_streams=n_warm, rss_bytes_before=before)

    def prompt400k(self, index, subject, running, load):
        options = ("--body-bytes", PROMPT_BYTES)
        result = self.closed(load, PROMPT_CONNECTIONS, self.profile.prompt_ms, *options)
        self.add("prompt400k", index, subject, PROMPT_CONNECTIONS, result, body_bytes=PROMPT_BYTES)

    def shared400k(self, index, subject, running, load):
        options = ("--warm-ms", max(1000, self.profile.warm_ms), "--window-ms", self.profile.shared_ms)
        options += ("--rate", SHARED_RATE_PER_S, "--body-bytes", PROMPT_BYTES, "--shared-bytes", SHARED_BYTES)
        result = load.run("open", SHARED_CONNECTIONS, *options, "--models", 1)
        config = {"body_bytes": PROMPT_BYTES, "shared_bytes": SHARED_BYTES, "rate_per_s": SHARED_RATE_PER_S}
        self.add("shared400k", index, subject, SHARED_CONNECTIONS, result, **config)

    def ranks(self, index, subject, running, load):
        result = self.closed(load, CHAT_CLOSE, self.profile.chat_ms, "--models", 1)
        self.add("ranks", index, subject, CHAT_CLOSE, result)

    def pairs(self, index, subject, running, load):
        result = self.closed(load, CHAT_CLOSE, self.profile.chat_ms, "--models", 1)
        self.add("pairs", index, subject, CHAT_CLOSE, result)

    def latency(self, index, subject, running, load):
        rate = self.half_load(subject, load)
        options = ("--warm-ms", self.profile.warm_ms, "--window-ms", self.profile.latency_ms, "--rate", rate)
        result = load.run("open", CHAT_CLOSE, *options)
        self.add("latency", index, subject, CHAT_CLOSE, result, rate_per_s=rate)

    def half_load(self, subject, load):
        """One rate for all subjects in C; a Python proxy would only show its queue at that."""
        rates = {s.name: self.samples.rate("chat", s.name, CHAT_CLOSE) for s in self.subjects}
        own = [rates[subject.name]] if subject.name == "aiohttp" else []
        common = [rate for name, rate in rates.items() if rate and name not in ("direct", "aiohttp")]
        found = min(filter(None, own or common), default=None)
        if not found:  # chat was not asked for
            result = self.closed(load, CHAT_CLOSE, self.profile.chat_ms)
            found = result["ops"] * 1000 / max(1, result.get("window_ms", 1))
        return max(1, int(found / 2))

    def run_also(self, workload):
        """Of headrace alone; the rows are made there."""
        if not any(s.name == "headrace" for s in self.subjects):
            return
        try:
            getattr(self, workload)(lambda what: say_progress(f"{workload} {what}"))
        except (Unavailable, OSError) as why:
            self.samples.fail(workload, "headrace", str(why))
        say_progress("")

    def fleet(self, say):
        """How soon the router believes."""
        found = delays.measure(self.place, self.profile.repetitions, say)
        self.samples.delays = [delays.row(one, self.versions["headrace"]) for one in found]

    def registry(self, say):
        """What records and heartbeats cost."""
        found = beats.measure(self.place, self.profile.records, self.profile.beats, say)
        self.samples.beats = [beats.row(found, self.versions["headrace"])]

    def decide(self, say):
        """What a choice takes."""
        runs = []
        for index in range(self.profile.rounds):
            say(f"{index + 1}/{self.profile.rounds}")
            runs.append(self.lines("decide", "--picks", self.profile.picks))
        self.samples.decide = [report.median_line(same) for same in zip(*runs)]

    def flood(self, say):
        """What a tenant that asks for too much costs another one."""
        rounds = []
        for index in range(self.profile.rounds):
            say(f"{index + 1}/{self.profile.rounds}")
            rounds.append(flood.flood(self.place, index, self.profile.flood_ms))
        self.samples.floods = [flood.flood_row(rounds, self.versions["headrace"])]

    def storm(self, say):
        """What retries make of engines that fail."""
        for how in flood.STORMS:
            say(how)
            found = flood.storm(self.place, 0, how, self.profile.storm_ms)
            self.samples.storms.append(flood.storm_row(how, found, self.versions["headrace"]))

    def scan(self):
        """The body scanner alone."""
        try:
            self.samples.scan = self.lines("scan", "--ms", self.profile.scan_ms)
        except Unavailable as why:
            self.samples.miss("scan", str(why))

    def lines(self, tool, *options):
        """JSON lines of a program that needs no other."""
        command = pinned(self.place.proxy_cpu, [self.place.tool(tool), *map(str, options)])
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise Unavailable(f"{tool} ended with {done.returncode}: {done.stderr.strip()}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@contextlib.contextmanager
def engines(place):
    """The engines, one process, beside the load."""
    prefilling = ["--prefilling", ",".join(map(str, place.prefill_ports))] if place.prefill_ports else []
    command = pinned(place.load_cpu, [place.tool("sink"), "--ports", place.engine_list(), *prefilling])
    sink = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield sink
        if sink.poll() is not None:
            raise SystemExit("bench: the engines died: nothing here can be trusted")
    finally:
        end(sink)


def choose_cpus():
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        print("bench: only one CPU: the proxy shares it with the load", file=sys.stderr)
    return cpus[-1], cpus[0]


def warn_of_company():
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"bench: others are at work on this machine (load {busy:.1f}): figures will be rough", file=sys.stderr)


def raise_descriptor_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = min(hard, 1 << 20) if hard != resource.RLIM_INFINITY else 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="script/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--smoke", dest="profile", action="store_const", const="smoke", help="short, no verdicts")
    length.add_argument("--full", dest="profile", action="store_const", const="full", help="long windows, 7 rounds")
    parser.add_argument("--peers", action="store_true", help="beside the routers of vLLM and SGLang, too")
    parser.add_argument("--json", metavar="FILE", help="write the rows there")
    parser.add_argument("--only", metavar="WORKLOAD,...", default=",".join([*WORKLOADS, *ALSO]))
    parser.add_argument("--subjects", metavar="NAME,...", default=",".join(s.name for s in SUBJECTS + WHEELS))
    parser.add_argument("--build", metavar="DIR", default=os.environ.get("HEADRACE_BUILD", "build"))
    arguments = parser.parse_args()
    arguments.profile = arguments.profile or "default"
    arguments.only = [w for w in [*WORKLOADS, *ALSO] if w in arguments.only.split(",")]
    subjects = SUBJECTS + WHEELS if arguments.peers else SUBJECTS
    arguments.subjects = [s for s in subjects if s.name in arguments.subjects.split(",")]
    if not arguments.only or not arguments.subjects:
        parser.error("nothing to measure")
    return arguments


def main():
    arguments = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    n_descriptors = raise_descriptor_limit()
    warn_of_company()
    proxy_cpu, load_cpu = choose_cpus()
    n_streams = min(PROFILES["default"].idle_streams, (n_descriptors - 600) // 2)
    folder = tempfile.mkdtemp(prefix="headrace-bench-")
    try:
        place = Place(Path(arguments.build).resolve(), folder, proxy_cpu, load_cpu, n_streams)
        bench = Bench(place, PROFILES[arguments.profile], arguments.subjects)
        with engines(place), engines(bench.crowd), engines(bench.pair):
            bench.run([w for w in arguments.only if w not in ALSO])
        for workload in ALSO:
            if workload in arguments.only:
                bench.run_also(workload)
        bench.scan()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = bench.samples.rows()
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")
    report.print_tables(bench.samples, verdicts=arguments.profile != "smoke")
    return 1 if bench.samples.troubles("headrace") else 0


if __name__ == "__main__":
    sys.exit(main())
