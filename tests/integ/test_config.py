"""Flags, environment and file; what is wrong with them; exit codes."""
import json
import os
import subprocess

import pytest

from ports import free_port
from program import BIN, Program


def headrace(*arguments, env=None):
    return subprocess.run([BIN, *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          env=os.environ | (env or {}))


def check(path, *flags, **how):
    return headrace("router", "--check", "--config", path, *flags, **how)


@pytest.fixture
def file(tmp_path):
    def write(text, name="router.toml"):
        path = tmp_path / name
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path
    return write


GOOD = """
[router]
port = 31000
body_limit = "1MiB"
[timeout]
first_byte = "30s"
[[worker]]
url = "http://127.0.0.1:8000"
models = ["m"]
[retry]
attempts = 1
"""


def test_a_good_file(file):
    for path in (file(GOOD), file({"router": {"port": 31000}, "worker": [{"url": "http://a:1"}]}, "router.json")):
        assert check(path).returncode == 0


def test_every_mistake_is_named_with_its_line(file):
    wrong = GOOD.replace("port = 31000", 'prot = 31000\nhold_limit = "lots"').replace('"30s"', "true")
    done = check(file(wrong))
    text = done.stdout + done.stderr
    assert done.returncode == 2
    for line, key in ((3, "prot"), (4, "hold_limit"), (7, "first_byte")):
        assert [found for found in text.splitlines() if f":{line}:" in found and key in found], text


def test_every_mistake_is_named_with_its_key_path(file):
    done = check(file({"router": {"port": 70000}, "worker": [{"url": "http://a:1"}, {"url": "nonsense"}]}, "x.json"))
    assert done.returncode == 2
    assert "router.port" in done.stdout + done.stderr and "worker[1].url" in done.stdout + done.stderr


@pytest.mark.parametrize("text", ["[router", "port = 1\nport = 2", "x = '\x01'", "[router]\nport = 99999999999999999999",
                                  "[worker]\nurl = 1", '[[worker]]\nmodels = ["m"]', '[[worker]]\nurl = "ftp://a"'])
def test_files_that_are_refused(file, text):
    done = check(file(text))
    assert done.returncode == 2 and done.stdout + done.stderr


def test_a_file_that_is_not_there():
    assert check("/no/such/file.toml").returncode == 2


def test_reserved_keys_are_accepted(file):
    reserved = "[retry]\nattempts = 1\nsent = true\n[health]\npassive = false\nprobe = false\n[breaker]\nenabled = false\n"
    assert check(file(GOOD.replace("[retry]\nattempts = 1\n", reserved))).returncode == 0


@pytest.mark.parametrize("arguments", [["router", "--no-such-flag"], ["router", "--port"], ["router", "--port", "x"],
                                       ["no-such-command"], []])
def test_usage_errors(arguments):
    done = headrace(*arguments)
    assert done.returncode == 2 and done.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["router", "--help"], ["mock-engine", "--help"]])
def test_help_goes_to_stdout(arguments):
    done = headrace(*arguments)
    assert done.returncode == 0 and done.stdout and not done.stderr


def test_the_environment_beats_the_file(engine, router):
    one = router([engine(["m"])], timeout={"head": "1s", "connect": "1s", "stream_idle": "1s"},
                 env={"HEADRACE_TIMEOUT_CONNECT": "2s", "HEADRACE_TIMEOUT_STREAM_IDLE": "2s"})
    shown = one.admin("/config").json()["timeout"]
    assert [str(shown[k])[:1] for k in ("head", "connect", "stream_idle")] == ["1", "2", "2"]


def test_a_flag_wins(engine, router):
    one = router([engine(["m"])], "--timeout-connect", "3s", timeout={"connect": "1s"},
                 env={"HEADRACE_TIMEOUT_CONNECT": "2s"})
    assert str(one.admin("/config").json()["timeout"]["connect"])[:1] == "3"


def test_worker_urls_add_to_the_file(engine, router):
    first, second, third = engine(["a"]), engine(["b"]), engine(["c"])
    one = router([first], "--worker-urls", second.url, third.url, ready=3)
    assert [m["id"] for m in one.get("/v1/models").json()["data"]] == ["a", "b", "c"]


def test_a_taken_port_is_an_error(engine, router):
    one = router([engine(["m"])])
    for flags in (["--port", one.port, "--admin-port", free_port()], ["--port", free_port(), "--admin-port", one.admin_port]):
        second = Program("router", *flags)
        assert second.wait() == 1 and "in use" in second.output().lower()
    assert one.chat().status_code == 200


def test_the_manual_page_comes_from_the_same_table():
    page, help_text = headrace("router", "--man").stdout, headrace("router", "--help").stdout
    assert page.startswith((".TH", ".\\\""))
    for flag in ("worker-urls", "port", "hold-memory", "first-byte", "half-close"):
        assert flag in help_text and flag in page.replace("\\-", "-")
