"""What the bench says in the end: rows for machines, tables and verdicts for people."""

import statistics
from collections import defaultdict

MEASURED = (
    ("cpu_us_per_op", "CPU us/op", "{:.2f}"),
    ("p50_us", "p50 us", "{:.0f}"),
    ("p95_us", "p95 us", "{:.0f}"),
    ("p99_us", "p99 us", "{:.0f}"),
    ("p999_us", "p99.9 us", "{:.0f}"),
    ("merged_reads", "merged", "{:.0f}"),
    ("heap_allocations_per_op", "mallocs/op", "{:.4f}"),
    ("rss_bytes", "Rss", "{:.0f}"),
    ("rss_bytes_per_stream", "B/stream", "{:.0f}"),
)
ROW = ("cpu_us_per_op", "p50_us", "p95_us", "p99_us", "rss_bytes", "rss_bytes_per_stream")
ALSO = ("ops_per_s", "p999_us", "merged_reads", "reconnects", "heap_allocations_per_op", "window_ms")


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


class Samples:
    """One sample a round for each (workload, subject, connections)."""

    def __init__(self):
        self.of = defaultdict(dict)  # (workload, subject, connections) -> {round: sample}
        self.configs = {}
        self.failures = []  # (workload, subject, why)
        self.missing = {}  # subject -> why
        self.scan = []
        self.delays = []  # rows of the workload `fleet`
        self.beats = []  # of `registry`
        self.floods = []  # of `flood`
        self.storms = []  # of `storm`
        self.decide = []  # lines of the program of that name

    def add(self, workload, index, subject, connections, result, config):
        sample = dict(result)
        if sample.get("window_ms"):
            sample["ops_per_s"] = sample["ops"] * 1000 / sample["window_ms"]
        timed = sample.get("cpu_ns") and sample["ops"]
        sample["cpu_us_per_op"] = sample["cpu_ns"] / 1000 / sample["ops"] if timed else None
        self.of[workload, subject, connections][index] = sample
        self.configs[workload, subject, connections] = config

    def fail(self, workload, subject, why):
        self.failures.append((workload, subject, why))

    def miss(self, subject, why):
        self.missing[subject] = why

    def median(self, workload, subject, connections, field):
        return median(sample.get(field) for sample in self.of[workload, subject, connections].values())

    def rate(self, workload, subject, connections):
        return self.median(workload, subject, connections, "ops_per_s")

    def connections(self, workload):
        return sorted({key[2] for key in self.of if key[0] == workload and self.of[key]})

    def ratio(self, workload, connections, field, subject, others):
        """Median over the rounds of the subject's figure by the least of the others'.

        A proxy that had to wait for its CPU reads many events at once and seems cheap: rounds in
        which more than one event in a hundred was merged are left out.
        """
        found = []
        for index, sample in self.of[workload, subject, connections].items():
            beside = [self.of[workload, other, connections].get(index, {}) for other in others]
            least = min((other[field] for other in beside if other.get(field)), default=None)
            merged = any(one.get("merged_reads", 0) > one.get("ops", 0) / 100 for one in [sample, *beside])
            if sample.get(field) and least and not merged:
                found.append(sample[field] / least)
        return median(found)

    def added(self, subject, connections, field, workload="latency"):
        found = [
            sample[field] - self.of[workload, "direct", connections][index][field]
            for index, sample in self.of[workload, subject, connections].items()
            if field in sample and field in self.of[workload, "direct", connections].get(index, {})
        ]
        return median(found)

    def row(self, key):
        workload, subject, connections = key
        samples = list(self.of[key].values())
        row = {"workload": workload, "subject": subject, "connections": connections}
        row["ops"] = int(median(sample["ops"] for sample in samples))
        row |= {field: rounded(self.median(*key, field)) for field in ROW}
        row["errors"] = sum(sample["errors"] for sample in samples)
        also = {field: rounded(self.median(*key, field)) for field in ALSO}
        config = self.configs[key] | {"rounds": len(samples)}
        row["config"] = config | {field: value for field, value in also.items() if value is not None}
        if workload == "latency" and subject != "direct":
            added = {p: rounded(self.added(subject, connections, p)) for p in ("p50_us", "p95_us", "p99_us")}
            row["config"]["added"] = added
        if workload == "shared400k" and subject != "direct":
            row["config"]["cores"] = rounded(self.cores(workload, subject))
        if workload == "prompt400k" and subject == "headrace" and self.scan:
            row["config"]["scan"] = self.scan
        return row

    def scanned(self, workload, kernels):
        """The slowest of the kernels, in GB/s."""
        found = [line["gb_per_s"] for line in self.scan if line["workload"] == workload and line["kernel"] in kernels]
        return min(found, default=None)

    def cores(self, workload, subject):
        """How many it kept busy."""
        connections = max(self.connections(workload), default=0)
        return median(
            sample["cpu_ns"] / sample["window_ms"] / 1e6
            for sample in self.of[workload, subject, connections].values()
            if sample.get("cpu_ns") and sample.get("window_ms")
        )

    def decided_us(self, instances):
        """The p99 of the policy that takes longest to choose among so many, and its name."""
        lines = [line for line in self.decide if "policy" in line and line["instances"] == instances]
        return max(((line["pick_p99_ns"] / 1000, line["policy"]) for line in lines), default=(None, "-"))

    def looked_up_us(self):
        """The median for a prompt that as many instances have as the index can tell."""
        found = [(line["lookup"], line["p50_ns"] / 1000) for line in self.decide if "lookup" in line]
        return max(found, default=(0, None))[1]

    def rows(self):
        rows = [self.row(key) for key in list(self.of) if self.of[key]]
        for workload, subject, why in self.failures:
            row = {"workload": workload, "subject": subject, "connections": None, "ops": 0}
            rows.append(row | dict.fromkeys(ROW) | {"errors": 1, "config": {"error": why}})
        return rows + self.delays + self.beats + self.floods + self.storms + [decide_row(line) for line in self.decide]

    def troubles(self, subject=None):
        """Everything that went wrong, in words."""
        found = [f"{name}: not measured: {why}" for name, why in self.missing.items() if subject in (None, name)]
        found += [f"{row['workload']}: {row['errors']} errors" for row in self.floods + self.storms if row["errors"]]
        found += [f"{w} {name}: {why}" for w, name, why in self.failures if subject in (None, name)]
        for (workload, name, connections), samples in self.of.items():
            if subject not in (None, name):
                continue
            for index, sample in samples.items():
                if sample["errors"]:
                    found.append(
                        f"{workload} {name}, {connections} connections, round {index + 1}: "
                        f"{sample['errors']} errors {sample['faults']} {sample.get('words', '')}"
                    )
        return found


def rounded(value):
    return round(value, 3) if isinstance(value, float) else value


def median_line(lines):
    """One line for those of all rounds."""
    times = {field: median(line[field] for line in lines) for field in lines[0] if field.endswith("_ns")}
    return lines[0] | times


def decide_row(line):
    """Like those of the other workloads: an operation is a choice, or a lookup."""
    row = {"workload": "decide", "subject": "headrace", "connections": None, "ops": line["timed"]} | dict.fromkeys(ROW)
    kind = "pick_" if "policy" in line else ""
    row |= {f"{p}_us": line[f"{kind}{p}_ns"] / 1000 for p in ("p50", "p99")}
    return row | {"errors": 0, "config": line}


def print_table(head, lines):
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    for line in [head, *lines]:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))
        ]
        print("  " + "  ".join(cells).rstrip())


def show(value, form):
    return "-" if value is None else form.format(value)


def size(value):
    return "-" if value is None else f"{value / 1048576:.1f} MiB"


def print_workload(samples, workload):
    keys = [key for key in samples.of if key[0] == workload and samples.of[key]]
    keys.sort(key=lambda key: key[2])  # stable: subjects stay in their order
    fields = [field for field in MEASURED if any(samples.median(*key, field[0]) is not None for key in keys)]
    head = ["subject", "conns", "ops/s"] + [title for _, title, _ in fields] + ["errors"]
    added = ("p50_us", "p95_us", "p99_us") if workload == "latency" else ()
    head += [f"+{field[:3]} us" for field in added]
    lines = []
    for key in keys:
        _, subject, connections = key
        line = [subject, str(connections), show(samples.rate(*key), "{:.0f}")]
        for field, _, form in fields:
            value = samples.median(*key, field)
            line.append(size(value) if field == "rss_bytes" else show(value, form))
        line.append(str(sum(sample["errors"] for sample in samples.of[key].values())))
        line += [show(samples.added(subject, connections, field), "{:.0f}") for field in added]
        lines.append(line)
    print(f"\n{workload}")
    print_table(head, lines)


def print_delays(rows, verdicts):
    print("\nfleet")
    lines = []
    for row in rows:
        goal_us = row["config"]["goal_us"]
        shown = [f"{value / 1000:.0f}" for value in (row["p50_us"], row["p99_us"], goal_us)]
        verdict = "good" if row["p99_us"] <= goal_us else "MISSED"
        lines.append([row["config"]["delay"], str(row["ops"]), *shown] + [verdict] * verdicts)
    print_table(["delay", "times", "median ms", "max ms", "goal ms"] + ["verdict"] * verdicts, lines)


def print_beats(rows, verdicts):
    print("\nregistry")
    lines = []
    for row in rows:
        config = row["config"]
        line = [f"{config['records']} records, {config['rate_per_s']} heartbeats/s", f"{config['cpu_s']:.2f}"]
        line += [f"{config['core_share']:.1%}", f"{row['p50_us']:.0f}", f"{row['p99_us']:.0f}", size(row["rss_bytes"])]
        is_good = config["core_share"] < 1 and config["rate_per_s"] >= 0.98 * config["asked_per_s"]
        lines.append(line + ["good" if is_good else "MISSED"] * verdicts)
    print_table(["load", "CPU s", "of a core", "p50 us", "p99 us", "Rss"] + ["verdict"] * verdicts, lines)


def words(counts):
    return ", ".join(f"{code} {n}" for code, n in counts.items()) or "-"


def print_floods(rows):
    print("\nflood, us that are added to an answer of the quiet tenant")
    lines = []
    for row in rows:
        config = row["config"]
        shown = [config["alone_p50_us"], config["alone_p99_us"], row["p50_us"], row["p99_us"]]
        line = [f"{config['quiet_per_s']} beside {config['flood_per_s']} a second", *(f"{one:.0f}" for one in shown)]
        lines.append([*line, str(config["flood_answered"]), words(config["flood_refused"]), str(row["errors"])])
    print_table(["requests", "p50 alone", "p99 alone", "p50", "p99", "flood: good", "refused", "errors"], lines)


def print_storms(rows):
    print("\nstorm")
    lines = []
    for row in rows:
        config = row["config"]
        line = [config["engines"], str(row["ops"]), str(config["requests_at_engines"]), f"{config['per_request']:.3f}"]
        lines.append([*line, str(config["answered"]), words(config["refused"]), str(row["errors"])])
    print_table(["half of them", "requests", "at engines", "ratio", "good", "refused", "errors"], lines)


def print_decide(lines):
    print("\ndecide, us: a choice alone, and with its ticket")
    sizes = sorted({line["instances"] for line in lines})
    cells = {}  # of a policy, by size
    for line in lines:
        if "policy" in line:
            ns = [line[f"{what}_ns"] for what in ("pick_p50", "pick_p99", "ticket_p50", "ticket_p99")]
            cells.setdefault(line["policy"], {})[line["instances"]] = [f"{one / 1000:.1f}" for one in ns]
    head = ["policy"] + [f"{size}: {what}" for size in sizes for what in ("p50", "p99", "t p50", "t p99")]
    print_table(head, [[name, *(cell for size in sizes for cell in of[size])] for name, of in cells.items()])
    for line in lines:
        if "lookup" in line:
            print(
                f"  lookup of {line['keys']} blocks that {line['lookup']} of {line['instances']} instances have: "
                f"p50 {line['p50_ns'] / 1000:.1f}, p99 {line['p99_ns'] / 1000:.1f}"
            )


def decide_targets(samples):
    for instances, limit in ((64, 20), (1000, 100)):
        measured, policy = samples.decided_us(instances)
        yield f"decide: p99 among {instances} instances, us ({policy})", measured, limit, "{:.1f}"
    yield "decide: lookup of 100,000 tokens that 64 have, us", samples.looked_up_us(), 30, "{:.1f}"


def flood_targets(samples):
    for row in samples.floods:
        yield "flood: added p99 of the quiet tenant, by itself", row["config"]["added_p99_ratio"], 2, "{:.2f}"
    for row in samples.storms:
        yield f"storm ({row['config']['engines']}): at engines by request", row["config"]["per_request"], 1.2, "{:.3f}"


def peer_targets(samples):
    """Of the routers of vLLM and SGLang, where they were measured."""
    for peer in ("vllm_router", "sglang_router"):
        for workload, field, what, limit in (
            ("chat", "cpu_us_per_op", "CPU", 0.20),
            ("chat", "p99_us", "p99", 0.50),
            ("chat", "rss_bytes", "memory", 0.20),
            ("prompt400k", "cpu_us_per_op", "CPU", 0.20),
            ("latency", "p99_us", "p99", 0.50),
        ):
            connections = 8 if workload == "prompt400k" else 64
            measured = samples.ratio(workload, connections, field, "headrace", [peer])
            if measured is not None:
                yield f"{workload}: {what} by {peer}", measured, limit, "{:.2f}"


def targets(samples):
    """(what, measured, limit, good): the project's targets; None where it could not be measured."""
    peers = ("nginx", "haproxy")
    streams = max(samples.connections("sse"), default=0)
    held = max(samples.connections("idle"), default=0)
    merged = samples.median("sse", "headrace", streams, "merged_reads")
    merged_anyway = max(samples.median("sse", other, streams, "merged_reads") or 0 for other in ("direct", "floor"))
    delay = samples.added("headrace", streams, "p999_us", "sse")
    cpu = "cpu_us_per_op"
    pairs = samples.ratio("pairs", 64, cpu, "headrace_pairs", ["headrace_4"])
    at_most = [
        (
            "chat: CPU by the better of nginx and HAProxy",
            samples.ratio("chat", 64, cpu, "headrace", peers),
            0.90,
            "{:.2f}",
        ),
        ("chat: CPU by the floor", samples.ratio("chat", 64, cpu, "headrace", ["floor"]), 1.20, "{:.2f}"),
        ("sse: CPU by nginx", samples.ratio("sse", streams, cpu, "headrace", ["nginx"]), 0.95, "{:.2f}"),
        ("sse: added delay p99.9, ms", delay and delay / 1000, 50, "{:.1f}"),
        ("sse: reads that merged events, beyond the floor", merged and max(0, merged - merged_anyway), 0, "{:.0f}"),
        ("idle: bytes a stream", samples.median("idle", "headrace", held, "rss_bytes_per_stream"), 2560, "{:.0f}"),
        ("prompt400k: CPU by nginx", samples.ratio("prompt400k", 8, cpu, "headrace", ["nginx"]), 1.25, "{:.2f}"),
        (
            "chat: CPU with cache_aware by round_robin",
            samples.ratio("chat", 64, cpu, "headrace", ["headrace_rr"]),
            1.05,
            "{:.2f}",
        ),
        (
            "prompt400k: CPU with cache_aware by round_robin",
            samples.ratio("prompt400k", 8, cpu, "headrace", ["headrace_rr"]),
            1.20,
            "{:.2f}",
        ),
        (
            "ranks: CPU with 8 ranks of one engine by 8 engines",
            samples.ratio("ranks", 64, cpu, "headrace_ranks", ["headrace_8"]),
            1.05,
            "{:.2f}",
        ),
        ("pairs: CPU of a pair by two plain requests", pairs and pairs / 2, 1.00, "{:.2f}"),
        *peer_targets(samples),
        ("shared400k: cores at 100 requests/s", samples.cores("shared400k", "headrace"), 0.05, "{:.3f}"),
        *decide_targets(samples),
        *flood_targets(samples),
        (
            "chat: heap allocations a request",
            samples.median("chat", "headrace", 64, "heap_allocations_per_op"),
            0,
            "{:.3f}",
        ),
        (
            "chat: memory by aiohttp (promised)",
            samples.ratio("chat", 64, "rss_bytes", "headrace", ["aiohttp"]),
            1 / 3,
            "{:.2f}",
        ),
    ]
    at_least = [
        ("scanner: GB/s on plain strings, AVX2", samples.scanned("plain", ["avx2"]), 15, "{:.1f}"),
        ("scanner: GB/s on plain strings, SSE2", samples.scanned("plain", ["sse2"]), 8, "{:.1f}"),
        ("scanner: GB/s on source code in strings", samples.scanned("code", ["avx2", "sse2"]), 2, "{:.1f}"),
        (
            "chat: requests a CPU second by aiohttp (promised)",
            samples.ratio("chat", 64, cpu, "aiohttp", ["headrace"]),
            5,
            "{:.1f}",
        ),
    ]
    for what, measured, limit, form in at_most:
        shown = None if measured is None else float(form.format(measured))
        yield what, show(measured, form), "<= " + form.format(limit), None if shown is None else shown <= limit
    for what, measured, limit, form in at_least:
        yield what, show(measured, form), ">= " + form.format(limit), None if measured is None else measured >= limit


def print_tables(samples, verdicts):
    for workload in dict.fromkeys(key[0] for key in samples.of):
        print_workload(samples, workload)
    if samples.delays:
        print_delays(samples.delays, verdicts)
    if samples.beats:
        print_beats(samples.beats, verdicts)
    if samples.floods:
        print_floods(samples.floods)
    if samples.storms:
        print_storms(samples.storms)
    if samples.decide:
        print_decide(samples.decide)
    if samples.scan:
        print("\nbody scanner")
        lines = [
            [
                line["workload"],
                line["kernel"],
                show(line.get("gb_per_s"), "{:.1f}"),
                show(line.get("ns_per_doc"), "{:.0f}"),
            ]
            for line in samples.scan
        ]
        print_table(["text", "kernel", "GB/s", "ns/text"], lines)
    print("\nheadrace against its targets")
    head = ["", "measured", "target"] + ["verdict"] * verdicts
    lines = []
    for what, measured, limit, good in targets(samples):
        verdict = "-" if good is None else "good" if good else "MISSED"
        lines.append([what, measured, limit] + [verdict] * verdicts)
    print_table(head, lines)
    troubles = samples.troubles()
    for trouble in troubles:
        print(f"! {trouble}")
    if not troubles:
        print("\nno errors")
