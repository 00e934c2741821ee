"""A babysitter with real engines, and a registry that comes and goes."""
import os
import re
import resource
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from babysitting import Babysitter, Registry, command, engine_script, mock, processes
from ports import free_port
from program import BIN, Program, chat_body, eventually, raw_request, read_to_end


@pytest.fixture
def registry(start):
    return start(Registry)


@pytest.fixture
def babysitter(start):
    return lambda *args, **how: start(Babysitter, *args, **how)


def python_engine(start_babysitter, *args, env=None, backend=None, **how):
    port = free_port(2)
    return start_babysitter(command(port, *args, env={"MODELS": "m"} | (env or {}), **(backend or {})), port=port, **how)


# --- health, models, info -------------------------------------------------------------------------------------------

def test_health_models_and_info_have_their_shapes(babysitter):
    sitter = babysitter(mock("a", "b"))
    answer = sitter.get("/health")
    health = answer.json()
    assert answer.status_code == 200
    assert health["status"] == "healthy" and health["service"] == "eng" and health["babysitter"] == "enhanced"
    assert health["infinilm_server_running"] is True and health["infinilm_server_port"] == sitter.engine_port
    assert isinstance(health["timestamp"], int) and health["state"] == "ready"
    info = sitter.get("/info").json()
    assert info["name"] == "eng" and info["host"] == "localhost" and info["port"] == sitter.port
    assert info["url"] == f"http://localhost:{sitter.port}" and info["service_type"] == "mock"
    assert info["infinilm_server_port"] == sitter.engine_port and info["restart_count"] == 0
    assert isinstance(info["uptime"], int)
    models = sitter.get("/models").json()
    assert [m["id"] for m in models["data"]] == ["a", "b"]
    assert 'headrace_babysitter_state{state="ready"} 1' in sitter.get("/metrics").text
    assert sitter.get("/nothing").status_code == 404 and sitter.post("/health").status_code == 405


def test_models_come_from_either_path(babysitter):
    sitter = python_engine(babysitter, env={"LIST": "/models", "MODELS": "x"})
    assert [m["id"] for m in sitter.get("/models").json()["data"]] == ["x"]


def test_an_engine_that_is_not_ready_is_503(babysitter):
    sitter = babysitter({"type": "command", "command": "sleep 1000"}, ready=False)
    eventually(lambda: sitter.state() == "starting")
    answer = sitter.get("/health")
    assert answer.status_code == 503 and answer.json()["status"] == "unhealthy"
    assert answer.json()["infinilm_server_running"] is True
    answer = sitter.get("/models")
    assert answer.status_code == 503 and answer.json()["error"] == "InfiniLM server not ready"


def test_an_engine_without_a_list_serves(babysitter, registry):
    sitter = python_engine(babysitter, env={"MODELS": ""}, registry=registry)
    eventually(lambda: registry.record("eng-server"))
    assert registry.record("eng-server")["metadata"]["models"] == []
    answer = sitter.get("/models")
    assert answer.status_code == 503 and answer.json()["error"] == "Service unavailable"


# --- records --------------------------------------------------------------------------------------------------------

def test_both_names_are_registered_as_specified(babysitter, registry):
    sitter = babysitter(mock("a", "b"), registry=registry, metadata={"zone": "x", "weight": 3, "nested": {"k": [1, 2]}})
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    eventually(lambda: registry.record("eng")["metadata"]["state"] == "ready")
    own, server = registry.record("eng"), registry.record("eng-server")
    own.pop("last_heartbeat"), server.pop("last_heartbeat")
    assert own == {"name": "eng", "host": "localhost", "hostname": "localhost", "port": sitter.port,
                   "url": f"http://localhost:{sitter.port}", "status": "running", "ttl": 5,
                   "metadata": {"type": "mock", "babysitter": "enhanced", "state": "ready"}}
    metadata = server.pop("metadata")
    assert server == {"name": "eng-server", "host": "localhost", "hostname": "localhost", "port": sitter.engine_port,
                      "url": f"http://localhost:{sitter.engine_port}", "status": "running", "ttl": 5}
    assert [m["id"] for m in metadata.pop("models_list")] == ["a", "b"]
    assert metadata == {"type": "openai-api", "parent_service": "eng", "babysitter": "enhanced", "models": ["a", "b"],
                        "zone": "x", "weight": 3, "nested": {"k": [1, 2]}}
    for name in ("eng", "eng-server"):
        eventually(lambda: registry.count("POST", f"/services/{name}/heartbeat") >= 3)
    assert registry.count("POST", "/services") <= 6      # a few states, no repetition


@pytest.mark.parametrize("heartbeat_s", [2, 30, 50])
def test_the_lease_is_three_heartbeats(babysitter, registry, heartbeat_s):
    babysitter(mock("a"), registry=registry, babysitter={"heartbeat_interval": heartbeat_s})
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    assert registry.record("eng")["ttl"] == registry.record("eng-server")["ttl"] == 3 * heartbeat_s


def test_a_killed_engine_is_off_the_registry(babysitter, registry):
    sitter = babysitter(mock("a"), registry=registry, babysitter={"restart_delay": "60s"})
    eventually(lambda: registry.record("eng-server"))
    sitter.kill_engine()
    eventually(lambda: sitter.get("/health").status_code == 503 and not registry.record("eng-server"))
    answer = sitter.get("/health")
    assert answer.status_code == 503 and answer.json()["infinilm_server_running"] is False
    eventually(lambda: registry.record("eng")["metadata"]["state"] != "ready")
    assert sitter.get("/models").status_code == 503


def test_a_killed_engine_comes_back_into_the_registry(babysitter, registry):
    sitter = babysitter(mock("a"), registry=registry)
    eventually(lambda: registry.record("eng-server"))
    before = registry.count("DELETE", "/services/eng-server")
    sitter.kill_engine()
    eventually(lambda: registry.count("DELETE", "/services/eng-server") > before and registry.record("eng-server"))
    assert sitter.get("/health").status_code == 200 and sitter.get("/info").json()["restart_count"] == 1


def test_a_registry_that_comes_back_empty_is_filled_again(babysitter, registry):
    babysitter(mock("a"), registry=registry)
    for _ in range(3):
        eventually(lambda: registry.names() == {"eng", "eng-server"})
        registry.close()
        registry.open()
    eventually(lambda: registry.names() == {"eng", "eng-server"})


def test_the_registry_may_start_last(babysitter, registry):
    registry.close()
    sitter = babysitter(mock("a"), registry=registry)
    assert sitter.state() == "ready"
    registry.open()
    eventually(lambda: registry.names() == {"eng", "eng-server"})


def test_an_engine_that_dies_during_an_outage_is_not_registered_after_it(babysitter, registry):
    sitter = babysitter(mock("a"), registry=registry, babysitter={"restart_delay": "60s"})
    eventually(lambda: registry.record("eng-server"))
    records = registry.records
    registry.close()
    sitter.kill_engine()
    eventually(lambda: sitter.state() == "backoff")
    registry.open(records)          # it has a memory, this time
    eventually(lambda: registry.names() == {"eng"})


def test_the_token_is_shown_to_the_registry(babysitter, start):
    registry = start(Registry, token="t0k3n")
    sitter = babysitter(mock("a"), registry=registry, env={"HEADRACE_BABYSITTER_TOKEN": "t0k3n"})
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    assert "t0k3n" not in sitter.output()
    assert "t0k3n" not in str(open(f"/proc/{sitter.engines()[0]}/environ", "rb").read())
    assert sitter.post("/drain").status_code == 401
    assert sitter.post("/drain", headers={"authorization": "Bearer t0k3n"}).status_code == 202


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_no_wildcard_is_advertised(babysitter, registry, wildcard):
    if ":" in wildcard and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    sitter = babysitter(mock("a"), registry=registry, flags=["--host", wildcard])
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    assert registry.record("eng-server")["host"] == "127.0.0.1"      # the way to this registry
    assert registry.record("eng")["url"] == f"http://127.0.0.1:{sitter.port}"


def outer_address():
    """An address of this machine that is not of the loopback, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))         # asks the routing table, sends nothing
            return s.getsockname()[0]
        except OSError:
            return None


def test_others_get_an_address_that_they_can_reach(babysitter, start):
    address = outer_address()
    if not address:
        pytest.skip("this machine has no network")
    registry = start(Registry, host=address)
    sitter = babysitter(mock("a"), registry=registry)
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    assert registry.record("eng")["host"] == registry.record("eng-server")["host"] == address
    models = httpx.get(registry.record("eng-server")["url"] + "/v1/models", timeout=60).json()
    assert [m["id"] for m in models["data"]] == ["a"]
    assert httpx.post(f"http://{address}:{sitter.port}/drain", timeout=60).status_code == 401       # it is no business of theirs
    assert httpx.get(f"http://{address}:{sitter.port}/health", timeout=60).status_code == 200


def test_an_address_of_this_machine_alone_is_not_registered_elsewhere():
    elsewhere = "--port", 8000, "--service-type", "mock", "--registry-url", "http://198.51.100.7:8081", "--check"
    for host in "localhost", "127.0.0.1", "::1":
        done = run(*elsewhere, "--host", host)
        assert done.returncode == 2 and "host: nobody but this machine" in done.stderr
        assert run(*elsewhere, "--host", host, "--advertise", "localhost").returncode == 0      # it is meant
    assert run(*elsewhere).returncode == run(*elsewhere, "--host", "10.0.0.7").returncode == 0


def test_the_advertised_address_may_be_said(babysitter, registry):
    babysitter(mock("a"), registry=registry, flags=["--advertise", "engine.example", "--host", "0.0.0.0"])
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    assert registry.record("eng-server")["hostname"] == "engine.example"


# --- the engine -----------------------------------------------------------------------------------------------------

def test_arguments_with_spaces_and_the_environment_survive(babysitter, tmp_path):
    work = tmp_path / "a folder"
    work.mkdir()
    args = ["--template", "{{ a b }}", "two  spaces", "", "comma,comma", "--x=y z", "ünïcode", '"quoted"', "$HOME *"]
    sitter = python_engine(babysitter, *args, env={"OF_OURS": "a b"}, backend={"work_dir": str(work)})
    assert httpx.get(sitter.engine_url + "/arguments", timeout=60).json() == args
    environment = httpx.get(sitter.engine_url + "/environment", timeout=60).json()
    assert environment["OF_OURS"] == "a b" and environment["PATH"] == os.environ["PATH"]
    assert httpx.get(sitter.engine_url + "/where", timeout=60).json() == str(work)


def test_limits_and_cpus_are_the_engines(babysitter):
    cpu = min(os.sched_getaffinity(0))
    sitter = babysitter(mock("a") | {"limits": {"nofile": "512:1024", "core": "0"}, "cpus": [str(cpu)]})
    pid, = sitter.engines()
    limits = open(f"/proc/{pid}/limits").read()
    # the engine raises its soft limit itself
    assert re.search(r"Max open files +\d+ +1024 ", limits) and re.search(r"Max core file size +0 +0 ", limits)
    assert os.sched_getaffinity(pid) == {cpu}


def test_its_own_limit_is_raised_and_the_engines_is_not(babysitter):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    sitter = babysitter({"type": "command", "command": "sleep 1000"}, ready=False, how={
        "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))})
    pid, = eventually(sitter.engines)
    eventually(lambda: "sleep" in open(f"/proc/{pid}/cmdline").read())
    assert resource.prlimit(sitter.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (64, hard)


def test_what_the_engine_says_is_kept_with_its_name(babysitter, tmp_path):
    log = tmp_path / "engine.log"
    python_engine(babysitter, env={"LINE": "hello from the engine"}, log={"file": str(log)})
    eventually(lambda: log.exists() and "[eng] hello from the engine\n" in log.read_text())


def shell(script):
    return {"type": "command", "command": "sh -c", "args": [script]}


def test_a_full_log_file_is_renamed(babysitter, tmp_path):
    log = tmp_path / "engine.log"
    line = "x" * 1000
    babysitter(shell(f"while :; do echo {line}; done"), ready=False,
               log={"file": str(log), "max_size": "64KiB", "max_files": 2})
    eventually(lambda: (tmp_path / "engine.log.2").exists())
    assert (tmp_path / "engine.log.2").stat().st_size >= 64 << 10
    assert not (tmp_path / "engine.log.3").exists()


def test_lines_above_the_rate_are_counted_and_not_written(babysitter, tmp_path):
    log = tmp_path / "engine.log"
    sitter = babysitter(shell("for i in $(seq 500); do echo line $i; done; exec sleep 1000"), ready=False,
                        log={"file": str(log), "rate": 10})
    eventually(lambda: "headrace_babysitter_output_lines_total 500" in sitter.get("/metrics").text)
    dropped = int(re.search(r"output_dropped_total (\d+)", sitter.get("/metrics").text)[1])
    assert 0 < dropped < 500
    eventually(lambda: "lines, " in log.read_text() and "were not written" in log.read_text())
    assert len(re.findall(r"^\[eng\] line ", log.read_text(), re.M)) == 500 - dropped


def test_a_crash_loop_ends_in_failed(babysitter, registry):
    sitter = babysitter({"type": "command", "command": "false"}, registry=registry, ready=False,
                        babysitter={"max_restarts": 3})
    eventually(lambda: sitter.state() == "failed")
    answer = sitter.get("/health")
    assert answer.status_code == 503 and answer.json()["status"] == "unhealthy" and answer.json()["cause"]
    assert 'headrace_babysitter_state{state="failed"} 1' in sitter.get("/metrics").text
    eventually(lambda: (registry.record("eng") or {}).get("metadata", {}).get("state") == "failed")
    assert registry.names() == {"eng"}


def test_a_crash_loop_may_end_the_babysitter(babysitter, registry):
    sitter = babysitter({"type": "command", "command": "/nowhere/at/all"}, registry=registry, ready=None,
                        babysitter={"max_restarts": 2, "exit_on_failed": True})
    assert sitter.wait() == 1
    assert registry.names() == set()


def test_an_engine_that_never_serves_is_started_again(babysitter):
    sitter = babysitter({"type": "command", "command": "sleep 1000"}, ready=False,
                        babysitter={"start_timeout": "300ms"})
    eventually(lambda: sitter.get("/info").json()["restart_count"] >= 2)
    assert len(sitter.engines()) <= 1


def test_an_engine_that_accepts_and_never_answers_is_started_again(babysitter):
    sitter = python_engine(babysitter, env={"HANGS": "1"}, ready=False, babysitter={"start_timeout": "2s"})
    eventually(lambda: sitter.get("/info").json()["restart_count"] >= 1)
    health = sitter.get("/health")
    assert health.status_code == 503 and health.json()["cause"] == "not ready in time"


def test_a_hung_engine_is_replaced(babysitter, registry):
    sitter = python_engine(babysitter, registry=registry, probe={"timeout": "1s", "failures": 2})
    eventually(lambda: registry.record("eng-server"))
    old, = sitter.engines()
    before = registry.count("DELETE", "/services/eng-server")
    httpx.get(sitter.engine_url + "/hang", timeout=60)
    eventually(lambda: sitter.get("/health").status_code == 503)
    eventually(lambda: registry.count("DELETE", "/services/eng-server") > before)
    eventually(lambda: sitter.get("/health").status_code == 200 and sitter.engines() not in ([], [old]))
    assert sitter.health()["cause"] == "did not answer"
    eventually(lambda: registry.record("eng-server"))


def test_a_hung_engine_may_be_left_alone(babysitter):
    sitter = python_engine(babysitter, probe={"timeout": "500ms", "failures": 0})
    pids = sitter.engines()
    httpx.get(sitter.engine_url + "/hang", timeout=60)
    eventually(lambda: sitter.state() == "unresponsive")
    assert sitter.get("/health").status_code == 503 and sitter.engines() == pids


def test_an_engine_that_stands_still_is_off_the_registry_meanwhile(babysitter, registry):
    sitter = babysitter(mock("a"), registry=registry, probe={"timeout": "500ms", "failures": 0})
    eventually(lambda: registry.record("eng-server"))
    pid, = sitter.engines()
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: sitter.get("/health").status_code == 503 and not registry.record("eng-server"))
        eventually(lambda: registry.record("eng")["metadata"]["state"] == "unresponsive")
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: sitter.get("/health").status_code == 200 and registry.record("eng-server"))
    assert sitter.engines() == [pid]


def test_ready_may_want_a_completion(babysitter, tmp_path):
    (tmp_path / "cold").touch()
    sitter = python_engine(babysitter, env={"COMPLETES": "/v1/chat/completions"}, ready=False,
                           backend={"work_dir": str(tmp_path)}, probe={"completion": True})
    eventually(lambda: httpx_ok(sitter.engine_url + "/v1/models"))
    assert sitter.state() == "starting"
    (tmp_path / "cold").unlink()
    eventually(lambda: sitter.get("/health").status_code == 200)


def httpx_ok(url):
    try:
        return httpx.get(url, timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def test_infinilm_rust_says_its_port_in_its_log(babysitter, registry, tmp_path):
    """xtask listens wherever it likes and says so."""
    elsewhere = free_port()
    script = tmp_path / "xtask"
    script.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/said\nexport LINE='INFO listening on 0.0.0.0:{elsewhere}' MODELS=r\n"
                      f"exec {sys.executable} {engine_script()} {elsewhere}\n")
    script.chmod(0o755)
    sitter = babysitter({"type": "infinilm-rust", "config_file": "the config.toml"}, registry=registry,
                        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (tmp_path / "said").read_text() == f"service the config.toml -p {sitter.engine_port}\n"
    assert sitter.health()["infinilm_server_port"] == elsewhere
    eventually(lambda: registry.record("eng-server"))
    assert registry.record("eng-server")["port"] == elsewhere
    assert sitter.get("/info").json()["service_type"] == "InfiniLM-Rust"


def test_infinilm_gets_its_model_and_arguments(babysitter, tmp_path):
    script = tmp_path / "launch.py"
    script.write_text("import sys, time\nprint(sys.argv[1:], flush=True)\ntime.sleep(1000)\n")
    sitter = babysitter({"type": "InfiniLM", "path": "/models/9g 8b", "args": ["--x", "a b"], "launch_script": str(script),
                         "ndev": 2}, ready=False)
    said = ["--model-path", "/models/9g 8b", "--port", str(sitter.engine_port), "--host", "localhost", "--ndev", "2",
            "--x", "a b"]
    eventually(lambda: f"[eng] {said}" in sitter.output())


# --- drain and the end ------------------------------------------------------------------------------------------------

def test_drain_lets_streams_finish(babysitter, registry):
    sitter = babysitter(mock("m") | {"args": ["--itl", "20ms"]}, registry=registry)
    eventually(lambda: registry.record("eng-server"))
    s = socket.create_connection(("127.0.0.1", sitter.engine_port), 60)
    s.sendall(raw_request(chat_body(stream=True, max_tokens=60)))
    read_to_end(s, b"data: ")
    answer = sitter.post("/drain")
    assert answer.status_code == 202 and answer.json()["state"] == "draining"
    eventually(lambda: not registry.record("eng-server"))
    assert sitter.get("/health").status_code == 503
    assert b"data: [DONE]" in read_to_end(s, b"data: [DONE]")[0]
    eventually(lambda: sitter.state() == "stopped")
    assert not sitter.engines()
    eventually(lambda: registry.record("eng")["metadata"]["state"] == "stopped")
    assert not registry.record("eng-server")


def test_drain_counts_connections_of_engines_without_metrics(babysitter):
    sitter = python_engine(babysitter)
    s = socket.create_connection(("127.0.0.1", sitter.engine_port), 60)
    eventually(lambda: sitter.post("/drain").status_code == 202)
    answer = sitter.get("/health")
    assert answer.status_code == 503 and answer.json()["state"] == "draining"
    with pytest.raises(AssertionError):
        eventually(lambda: sitter.state() != "draining", seconds=2)
    s.close()
    eventually(lambda: sitter.state() == "stopped")


def test_drain_has_an_end(babysitter):
    sitter = babysitter(mock("m") | {"args": ["--itl", "20ms"]}, babysitter={"drain_timeout": "500ms"})
    s = socket.create_connection(("127.0.0.1", sitter.engine_port), 60)
    s.sendall(raw_request(chat_body(stream=True, max_tokens=100000)))
    read_to_end(s, b"data: ")
    sitter.post("/drain")
    eventually(lambda: sitter.state() == "stopped")
    assert b"[DONE]" not in read_to_end(s)[0]


def open_stream(sitter, max_tokens):
    s = socket.create_connection(("127.0.0.1", sitter.engine_port), 60)
    s.sendall(raw_request(chat_body(stream=True, max_tokens=max_tokens)))
    read_to_end(s, b"data: ")
    return s


def test_a_signal_lets_streams_finish(babysitter, registry):
    sitter = babysitter(mock("m") | {"args": ["--itl", "20ms"]}, registry=registry)
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    s = open_stream(sitter, 60)
    sitter.process.terminate()
    assert b"data: [DONE]" in read_to_end(s, b"data: [DONE]")[0]
    assert sitter.wait() == 0 and not processes(sitter.state_dir)


def test_a_second_signal_waits_for_nothing(babysitter, registry):
    sitter = babysitter(mock("m") | {"args": ["--itl", "20ms"]}, registry=registry)
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    s = open_stream(sitter, 100000)
    sitter.process.terminate()
    eventually(lambda: not registry.names())
    answer = sitter.get("/health")
    assert answer.status_code == 503 and answer.json()["state"] == "draining"
    sitter.process.terminate()
    assert sitter.wait() == 0 and not processes(sitter.state_dir)
    assert b"[DONE]" not in read_to_end(s)[0]


def test_a_signal_does_not_wait_for_an_engine_that_stands_still(babysitter):
    sitter = python_engine(babysitter, probe={"timeout": "500ms", "failures": 0})
    httpx.get(sitter.engine_url + "/hang", timeout=60)
    eventually(lambda: sitter.state() == "unresponsive")
    with socket.create_connection(("127.0.0.1", sitter.engine_port), 60):
        sitter.process.terminate()
        assert sitter.wait() == 0 and not processes(sitter.state_dir)


def test_a_drain_does_not_wait_for_an_engine_that_hangs_meanwhile(babysitter):
    sitter = python_engine(babysitter, probe={"timeout": "500ms", "failures": 0})
    with socket.create_connection(("127.0.0.1", sitter.engine_port), 60):
        eventually(lambda: sitter.post("/drain").status_code == 202)
        assert sitter.state() == "draining"
        httpx.get(sitter.engine_url + "/hang", timeout=60)
        eventually(lambda: sitter.state() == "stopped")
    assert not sitter.engines()


def test_the_engine_does_not_wait_for_the_registry(babysitter, registry):
    """The registry answers when the engine is gone, which is told all the same."""
    sitter = babysitter({"type": "command", "command": "sleep 1000"}, registry=registry, ready=False)
    eventually(lambda: registry.names() == {"eng"})
    pid, = eventually(sitter.engines)
    registry.before_delete = lambda: eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    sitter.process.terminate()
    assert sitter.wait() == 0
    eventually(lambda: registry.count("DELETE", "/services/eng"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_deregisters_and_leaves_nothing_behind(babysitter, registry, number):
    sitter = babysitter(mock("a"), registry=registry)
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    sitter.process.send_signal(number)
    assert sitter.wait() == 0 and not processes(sitter.state_dir)
    eventually(lambda: registry.names() == set())    # it was told; nobody waits long for its answer
    assert registry.count("DELETE", "/services/eng") == 1


def test_what_a_killed_babysitter_left_in_the_registry_is_deleted(babysitter, registry):
    sitter = babysitter(mock("a"), registry=registry)
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    sitter.kill()
    assert registry.record("eng-server")
    sleeper = {"type": "command", "command": "sleep 1000"}
    babysitter(sleeper, registry=registry, port=sitter.engine_port, state_dir=sitter.state_dir, ready=False)
    eventually(lambda: registry.names() == {"eng"})


def test_grandchildren_and_the_deaf_end_too(babysitter, registry):
    deaf = "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 1000' & sleep 1000; sleep 1000"
    sitter = babysitter({"type": "command", "command": "sh -c", "args": [deaf]}, registry=registry, ready=False,
                        babysitter={"stop_timeout": "300ms"})
    eventually(lambda: len(sitter.engines()) >= 3)
    sitter.process.terminate()
    assert sitter.wait() == 0
    assert not processes(sitter.state_dir)


def test_it_ends_while_the_registry_is_away(babysitter, registry):
    sitter = babysitter(mock("a"), registry=registry)
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    registry.close()
    sitter.process.terminate()
    assert sitter.wait() == 0 and not processes(sitter.state_dir)


def test_a_killed_babysitter_and_its_successor_have_one_engine(babysitter, registry):
    port, state = free_port(2), None
    for _ in range(5):
        sitter = babysitter(mock("a"), registry=registry, port=port, state_dir=state)
        state = sitter.state_dir
        assert len(sitter.engines()) == 1
        eventually(lambda: registry.names() == {"eng", "eng-server"})
        sitter.kill()
    sitter = babysitter(mock("a"), registry=registry, port=port, state_dir=state)
    assert len(sitter.engines()) == 1


def test_a_second_one_of_the_same_name_ends_and_takes_nothing(babysitter, registry):
    first = babysitter(mock("a"), registry=registry)
    eventually(lambda: registry.names() == {"eng", "eng-server"})
    second = babysitter(mock("b"), registry=registry, state_dir=first.state_dir, ready=None)
    assert second.wait() == 1
    assert registry.names() == {"eng", "eng-server"} and registry.record("eng-server")["metadata"]["models"] == ["a"]
    assert len(first.engines()) == 1 and first.state() == "ready"


# --- options ----------------------------------------------------------------------------------------------------------

def run(*arguments):
    return subprocess.run([BIN, "babysitter", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_flags_of_the_other_system(start):
    port = free_port(2)
    sitter = start(Program, "babysitter", "-n", "x", "-p", port, "--service-type", "mock", "--router", "http://r:1",
                   "--max-restarts", "10", "--restart-delay", "5", "--heartbeat-interval", "30", "--env", "prod",
                   "--models", "a,b")
    sitter.url = f"http://127.0.0.1:{port + 1}"
    sitter.await_ready(lambda: sitter.get("/health").status_code == 200)
    assert sitter.get("/info").json()["name"] == "x"


def test_mistakes_end_it_with_2(tmp_path):
    assert run().returncode == 2
    bad = tmp_path / "bad.toml"
    bad.write_text('port = 8000\n[backend]\ntype = "vlm"\n')
    done = run("--config-file", bad)
    assert done.returncode == 2 and "backend.type" in done.stderr
    good = tmp_path / "good.toml"
    good.write_text('port = 8000\nfuture = 1\n[backend]\ntype = "vllm"\nmodel = "m"\nother = 2\n[metadata]\nx = 1979-05-27\n')
    done = run("--config", good, "--check")
    assert done.returncode == 0 and done.stderr.count("warning: unknown key") == 2


def test_a_taken_port_is_an_error():
    with socket.socket() as taken:
        port = free_port(2)
        taken.bind(("0.0.0.0", port + 1))
        taken.listen()
        done = run("--port", port, "--service-type", "mock")
    assert done.returncode == 1 and "cannot listen" in done.stderr
