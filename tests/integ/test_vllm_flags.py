"""In place of vLLM's router: its command line as its Rust binary, its Python package and its README spell it, and its environment."""
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from fakeworker import FakeWorker, answer
from program import BIN, chat_body, eventually, http
from vllmrouter import VllmRouter

ONE = ["--worker-urls", "http://127.0.0.1:1"]
TWO = [*ONE, "http://127.0.0.1:2"]


@pytest.fixture
def checked(bounds, tmp_path):
    """checked(flags...): what vllm-router says of them without being started."""
    link = tmp_path / "vllm-router"
    link.symlink_to(Path(BIN).resolve())
    env = {k: v for k, v in os.environ.items() if k not in ("RUST_LOG", "API_KEY_VALIDATION_URLS")}

    def check(*flags):
        return subprocess.run([link, "--check", *map(str, flags)], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=env)
    return check


# flags, and where /config shows that they are understood
MEANT = [
    # general
    ("--host 0.0.0.0", "router.host", "0.0.0.0"),
    ("--max-payload-size 1048576", "router.body_limit", 1048576),
    ("--request-timeout-secs 14400", "timeout.total", 14400),
    ("--max-concurrent-requests 64", "admission.max_requests", 64),
    ("--queue-size 0", "admission.queue_size", 0),
    ("--queue-timeout-secs 1", "admission.queue_timeout", 1),
    ("--rate-limit-tokens-per-second 100", "rate.requests_per_second", 100),
    ("--cors-allowed-origins http://a http://b", "router.cors_origins", ["http://a", "http://b"]),
    # workers and back ends
    ("--intra-node-data-parallel-size 4", "router.data_parallel_size", 4),
    ("--data-parallel-size 4", "router.data_parallel_size", 4),
    ("--backend vllm", "router.backend", "vllm"),
    ("--runtime sglang", "router.backend", "sglang"),
    ("--enable-igw", "router.enable_igw", True),
    # policies
    *[(f"--policy {p}", "policy.default", p) for p in
      ("random", "round_robin", "cache_aware", "power_of_two", "consistent_hash", "rendezvous_hash")],
    ("--prefill-policy random", "policy.prefill", "random"),
    ("--decode-policy round_robin", "policy.decode", "round_robin"),
    ("--cache-threshold 0.5", "policy.cache_threshold", 0.5),
    ("--balance-abs-threshold 32", "policy.balance_abs_threshold", 32),
    ("--balance-rel-threshold 1.1", "policy.balance_rel_threshold", 1.1),
    # prefill and decode
    ("--vllm-pd-disaggregation --prefill http://127.0.0.1:3 none --prefill http://127.0.0.1:4 8998 --decode http://127.0.0.1:5",
     "pd.enabled", True),
    ("--pd-disaggregation --prefill http://127.0.0.1:3 8998 --decode http://127.0.0.1:5", "pd.prefill", ["http://127.0.0.1:3", "8998"]),
    ("--prefill http://127.0.0.1:3 --decode http://127.0.0.1:5 --decode http://127.0.0.1:6", "pd.decode",
     ["http://127.0.0.1:5", "http://127.0.0.1:6"]),
    ("--vllm-discovery-address 127.0.0.1:30001", "pd.discovery_address", "127.0.0.1:30001"),
    *[(f"--kv-connector {c}", "pd.connector", c) for c in ("nixl", "mooncake", "p2p_nccl", "sglang")],
    ("--kv-connector moriio --vllm-discovery-address 127.0.0.1:30001", "pd.connector", "moriio"),
    ("--prefill-data-parallel-size 2", "router.prefill_data_parallel_size", 2),
    ("--decode-data-parallel-size 8", "router.decode_data_parallel_size", 8),
    # reliability
    ("--retry-max-retries 2", "retry.attempts", 2),
    ("--retry-initial-backoff-ms 10", "retry.backoff", 10),
    ("--retry-max-backoff-ms 1000", "retry.backoff_max", 1000),
    ("--retry-backoff-multiplier 2.5", "retry.multiplier", 2.5),
    ("--retry-jitter-factor 0.5", "retry.jitter", 0.5),
    ("--disable-retries", "retry.disabled", True),
    ("--cb-failure-threshold 2", "breaker.failures", 2),
    ("--cb-success-threshold 1", "breaker.successes", 1),
    ("--cb-timeout-duration-secs 5", "breaker.open", 5),
    ("--cb-window-duration-secs 10", "breaker.window", 10),
    ("--disable-circuit-breaker", "breaker.disabled", True),
    ("--health-failure-threshold 1", "health.max_errors", 1),
    ("--health-success-threshold 1", "health.successes", 1),
    ("--health-check-timeout-secs 1", "health.timeout", 1),
    ("--health-check-interval-secs 1", "health.interval", 1),
    ("--health-check-endpoint /alive", "health.endpoint", "/alive"),
    # as good as never
    ("--request-timeout-secs 999999", "timeout.total", 999999),
    ("--worker-startup-timeout-secs 999999", "router.worker_startup_timeout", 999999),
    ("--queue-timeout-secs 999999", "admission.queue_timeout", 999999),
    ("--balance-abs-threshold 1000000000", "policy.balance_abs_threshold", 1000000000),
    ("--retry-initial-backoff-ms 600000 --retry-max-backoff-ms 7200000", "retry.backoff_max", 7200000),
    ("--retry-backoff-multiplier 1000", "retry.multiplier", 1000),
    ("--cb-timeout-duration-secs 999999", "breaker.open", 999999),
    ("--cb-window-duration-secs 999999", "breaker.window", 999999),
    ("--health-failure-threshold 100000", "health.max_errors", 100000),
    ("--health-success-threshold 100000", "health.successes", 100000),
    ("--health-check-timeout-secs 7200", "health.timeout", 7200),
    ("--health-check-interval-secs 7200", "health.interval", 7200),
    # logs and keys
    ("--log-dir .", "log.dir", "."),
    *[(f"--log-level {given}", "log.level", taken) for given, taken in
      (("debug", "debug"), ("info", "info"), ("warn", "warn"), ("error", "error"), ("warning", "warn"), ("critical", "error"),
       ("INFO", "info"), ("Warning", "warn"))],
    ("--prometheus-host 127.0.0.2", "metrics.host", "127.0.0.2"),
    ("--request-id-headers x-mine x-other", "router.request_id_headers", ["x-mine", "x-other"]),
    ("--api-key secret", "upstream.api_key", "(secret)"),
    ("--api-key-validation-urls http://a http://b", "auth.validation_urls", ["http://a", "http://b"]),
]

# taken, and told to be without effect
IDLE = ["--worker-startup-check-interval 1", "--history-backend memory", "--history-backend none", "--profile",
        "--eviction-interval 120", "--eviction-interval-secs 60", "--max-tree-size 67108864", "--enable-trace",
        "--otlp-traces-endpoint localhost:4317", "--otel-sampling-ratio 0.5", "--otel-excluded-paths /health /liveness"]

# taken, and refused: something else would be served
REFUSED = ["--enable-program-scheduling", "--enable-program-scheduling --program-scheduling-config-json {}",
           "--service-discovery", "--service-discovery --selector app=vllm tier=gpu",
           "--service-discovery --service-discovery-port 80 --service-discovery-namespace default",
           "--service-discovery --prefill-selector a=b c=d --decode-selector a=c",
           "--wasm-middleware filter.wasm", "--wasm-middleware filter.wasm --wasm-middleware-sha256 00",
           "--wasm-middleware filter.wasm --wasm-middleware-route /v1/completions --wasm-middleware-route /v1/embeddings",
           "--epd-config {}", "--kv-model Qwen/Qwen3-8B", "--kv-tokenizer-path /t", "--kv-hash-algo sha256_cbor", "--kv-block-size 16",
           "--kv-hash-seed 0", "--kv-events-topic-filter kv", "--kv-events-port 5557", "--kv-events-endpoint http://a=tcp://a:1",
           "--mini-lb"]


def spellings(flags):
    """As given, and with = for one value."""
    words = flags.split()
    yield words
    if len(words) == 2:
        yield ["=".join(words)]


@pytest.mark.parametrize("flags", [flags for flags, _, _ in MEANT])
def test_flags_are_taken(checked, flags):
    for words in spellings(flags):
        done = checked(*TWO, *words)
        assert (done.returncode, done.stderr) == (0, ""), words


def value_of(config, path):
    table, key = path.split(".")
    return config[table][key]


def batches():
    """Most of them as few command lines, each flag once in a line. Where ports are to be free is seen elsewhere."""
    lines = []
    for row in MEANT:
        names = {word for word in row[0].split() if word.startswith("--")}
        if names & {"--prometheus-host", "--vllm-discovery-address"}:
            continue
        line = next((line for line in lines if not names & line.keys() and row[1] not in line.values()), None)
        if line is None:
            lines.append(line := {})
        line.update({name: row[1] for name in names})
        line.setdefault("rows", []).append(row)
    return [line["rows"] for line in lines]


def quantity(value):
    """As a flag says it and as /config shows it: seconds and milliseconds with or without."""
    return re.sub(r"(?<=\d)m?s$", "", value) if isinstance(value, str) else str(value)


@pytest.mark.parametrize("line", batches(), ids=len)
def test_flags_mean_what_they_say(start, line):
    front = start(VllmRouter, *TWO, *" ".join(flags for flags, _, _ in line).split())
    config = front.config()
    assert config["router"]["dialect"] == "vllm"
    for flags, path, expected in line:
        assert quantity(value_of(config, path)) == quantity(expected), flags


@pytest.mark.parametrize("flags", IDLE)
def test_flags_without_effect_are_told_once(checked, flags):
    for words in spellings(flags):
        done = checked(*ONE, *words)
        line, = done.stderr.splitlines()
        assert done.returncode == 0 and line.startswith(flags.split()[0].removesuffix("-secs")) and ": warning: has no effect" in line


@pytest.mark.parametrize("flags, said", [
    ("--retry-max-retries 100", "100 is taken as 64"), ("--cb-failure-threshold 1000", "1000 is taken as 255"),
    ("--cb-timeout-duration-secs 99999999", "is taken as 8640h"),
    ("--worker-urls http://127.0.0.1:3 http://127.0.0.1:3", "http://127.0.0.1:3 is there twice")])
def test_what_is_more_than_there_can_be_is_told(checked, flags, said):
    done = checked(*ONE, *flags.split())
    line, = done.stderr.splitlines()
    assert done.returncode == 0 and line.startswith(f"{flags.split()[0]}: warning: ") and said in line


def test_an_engine_that_is_named_twice_is_one(start, engine):
    url = engine(["m"]).url
    front = start(VllmRouter, "--worker-urls", url, url).await_workers(1)
    assert [s["url"] for s in front.get("/services").json()["services"]] == [url]


@pytest.mark.parametrize("flags", REFUSED)
def test_what_is_not_there_stops_the_start(checked, flags):
    for words in spellings(flags):
        done = checked(*ONE, *words)
        line, = done.stderr.splitlines()
        assert done.returncode == 2 and line.startswith(flags.split()[0]) and "warning" not in line


@pytest.mark.parametrize("flags, said", [
    ("--policy power_of_two", "two engines"), ("--worker-urls grpc://127.0.0.1:3", "gRPC"), ("--worker-urls grpcs://127.0.0.1:3", "gRPC"),
    ("--backend openai http://127.0.0.1:3", "flag"), ("--port 0", "out of range"), ("--max-payload-size 0", "out of range"),
    ("--cache-threshold 1.1", "out of range"), ("--balance-rel-threshold 0.9", "1 or more"), ("--retry-max-retries 0", "out of range"),
    ("--retry-initial-backoff-ms 0", "more than 0"), ("--retry-max-backoff-ms 1", "less than"),
    ("--retry-backoff-multiplier 0.5", "out of range"), ("--retry-jitter-factor 1.5", "out of range"),
    ("--cb-failure-threshold 0", "out of range"), ("--cb-timeout-duration-secs 0", "out of range"),
    ("--worker-startup-timeout-secs 0", "out of range"), ("--eviction-interval 0", "out of range"), ("--max-tree-size 0", "out of range"),
    ("--prefill http://127.0.0.1:3 0 --decode http://127.0.0.1:4", "bootstrap port"), ("--vllm-pd-disaggregation", "prefill"),
    ("--vllm-pd-disaggregation --prefill http://127.0.0.1:3 none", "decode"), ("--kv-connector moriio", "--vllm-discovery-address")])
def test_mistakes_are_one_line(checked, flags, said):
    done = checked(*ONE, *flags.split())
    line, = done.stderr.splitlines()
    assert done.returncode == 2 and said in line


def test_openai_is_one_url(checked):
    assert checked(*ONE, "--backend", "openai").returncode == 0
    done = checked(*TWO, "--backend", "openai")
    assert done.returncode == 2 and "exactly one url" in done.stderr


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version(checked, flag):
    done = checked(flag)
    assert done.returncode == 0 and done.stdout.startswith("headrace ")


def default_in(text, flag):
    """As the help has it; None: it says none."""
    told = " ".join(re.search(rf"^  {flag} .*(\n {{10}}.*)*", text, re.M)[0].split())
    facts = re.search(r"\(([^()]*)\)$", told)
    found = facts and re.search(r"\bdefault ([^;]*)", facts[1])
    return found and found[1]


def named_in(text):
    return set(re.findall(r"^  (--[a-z0-9-]+)", text, re.M))


@pytest.mark.parametrize("flags, defaults", [
    ([], {"--worker-api": "loopback", "--cors-allowed-origins": "*", "--first-byte": "off", "--port": "30000"}),
    (["--dialect", "infinilm"], {"--worker-api": "off", "--port": "8080", "--host": "0.0.0.0"}),
    (["--dialect", "headrace"], {"--worker-api": "off", "--cors-allowed-origins": None, "--port": "30000", "--host": "127.0.0.1"})])
def test_the_help_has_the_dialects_defaults(checked, flags, defaults):
    text = checked(*flags, "--help").stdout
    assert {flag: default_in(text, flag) for flag in defaults} == defaults


def test_the_help_has_the_dialects_names(checked):
    """One name of each flag: those of the Rust binary, where they differ."""
    others = {"--data-parallel-size", "--runtime", "--pd-disaggregation", "--eviction-interval-secs"}
    flags = {word for line in [row[0] for row in MEANT] + IDLE + REFUSED for word in line.split() if word.startswith("--")} - others
    assert not flags - named_in(checked("--help").stdout)
    ours = {"--level", "--dir", "--total", "--health-interval"}
    assert ours <= named_in(checked("--dialect", "headrace", "--help").stdout) and not ours & named_in(checked("--help").stdout)


def test_the_help_has_groups(checked):
    text = checked("--help").stdout
    headings = [line.strip("- ") for line in text.splitlines() if line.startswith("----")]
    assert headings[0] == "general" and headings[-1] == "accepted for vLLM's router only" and len(headings) == 8
    assert max(map(len, text.splitlines())) <= 100


def test_lists_may_be_empty(checked):
    done = checked("--worker-urls", "--cors-allowed-origins", "--request-id-headers")
    assert done.returncode == 0 and "there is none" in done.stderr


def test_a_chat(start, engine):
    one, two = engine(["m"]), engine(["m"])
    front = start(VllmRouter, "--worker-urls", one.url, two.url, "--policy", "round_robin", "--max-payload-size", 1000).await_workers(2)
    with http() as client:
        statuses = [client.post(front.url + "/v1/chat/completions", json=chat_body()).status_code for _ in range(4)]
    assert statuses == [200] * 4 and one.count("finished") == two.count("finished") == 2
    assert front.post("/v1/chat/completions", json=chat_body(more="x" * 1000)).status_code == 413


def test_engines_that_prefill_and_that_decode(start, engine):
    first, second, third = (engine(["m"]) for _ in range(3))
    front = start(VllmRouter, "--vllm-pd-disaggregation", "--prefill", first.url, "none", "--prefill", second.url, 8998,
                  "--decode", third.url)
    services = {s["url"]: s["metadata"] for s in front.get("/services").json()["services"]}
    assert services == {first.url: {"role": "prefill"}, second.url: {"role": "prefill", "bootstrap_port": "8998"},
                        third.url: {"role": "decode"}}


# --- its environment ------------------------------------------------------------------------------------------------

def keeper(peer):
    """Says which keys are valid: one."""
    while request := peer.request():
        peer.send(answer(status=b"200 OK" if b"authorization: bearer good" in request[0].lower() else b"401 Unauthorized"))


def test_keys_are_asked_about_where_the_file_says(start, engine):
    knows = start(FakeWorker, keeper)
    front = start(VllmRouter, "--worker-urls", engine(["m"]).url, dotenv=f"# ours\nexport API_KEY_VALIDATION_URLS='{knows.url}/keys'\n")
    front.await_workers(1)
    assert front.config()["auth"]["validation_urls"] == [f"{knows.url}/keys"]
    assert front.chat(headers={"authorization": "Bearer good"}).status_code == 200
    assert front.chat(headers={"authorization": "Bearer bad"}).status_code == 401


@pytest.mark.parametrize("env, dotenv, level", [({"RUST_LOG": "debug"}, None, "debug"), ({}, "RUST_LOG=error\n", "error"),
                                                ({"RUST_LOG": "debug"}, "RUST_LOG=error\n", "debug"),
                                                ({"RUST_LOG": "hyper=debug,warn"}, None, "info")])
def test_levels_from_the_environment(start, env, dotenv, level):
    assert start(VllmRouter, *ONE, "--log-level", "info", env=env, dotenv=dotenv).config()["log"]["level"] == level


@pytest.mark.parametrize("dialect, code", [("headrace", 0), ("vllm", 2)])
def test_the_file_is_this_dialects_alone(checked, tmp_path, dialect, code):
    (tmp_path / ".env").write_text("API_KEY_VALIDATION_URLS=nonsense\n")
    assert checked(*ONE, "--dialect", dialect).returncode == code


def test_warnings_come_once(start, engine):
    """What was said at the start is not said at each reload; who asks is told all the same."""
    front = start(VllmRouter, "--worker-urls", engine(["m"]).url, "--profile", "--history-backend", "memory").await_workers(1)
    for n in (1, 2):
        front.process.send_signal(signal.SIGHUP)
        eventually(lambda: front.stderr.read_text().count("configuration read again: nothing has changed") == n)     # noqa: B023
    said = front.stderr.read_text()
    assert said.count("--profile: warning: ") == said.count("--history-backend: warning: ") == 1
    with http() as client:
        warnings = client.post(f"{front.admin_url}/reload").json()["warnings"]
    assert [line.split(":")[0] for line in warnings] == ["--profile", "--history-backend"]


def lines_of_days(folder):
    files = sorted(folder.iterdir())
    assert all(re.fullmatch(r"vllm-router\.\d{4}-\d\d-\d\d", file.name) for file in files)
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_logs_are_a_file_a_day(start, engine, tmp_path):
    folder = tmp_path / "logs" / "router"
    router = start(VllmRouter, "--log-dir", folder, "--worker-urls", engine(["m"]).url).await_workers(1)
    router.chat()
    eventually(lambda: any(line.get("path") == "/v1/chat/completions" for line in lines_of_days(folder)))
    assert "router is listening" in [line.get("event") for line in lines_of_days(folder)]
    assert "router is listening" in router.stderr.read_text()


@pytest.mark.parametrize("flags, is_daily", [(["--log-dir", "."], True), (["--log-dir", ".", "--access", "off"], False), ([], False)])
def test_what_is_no_file_has_no_days(checked, flags, is_daily):
    check = checked(*ONE, "--log-rotate", "daily", *flags)
    assert check.returncode == 0 and ("--log-rotate: warning: has no effect" in check.stderr) != is_daily
    check = checked(*ONE, *flags)
    assert check.returncode == 0 and "warning" not in check.stderr
