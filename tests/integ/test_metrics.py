"""/metrics and /config of the admin listener."""
import os
import random
import string
import subprocess
from concurrent.futures import ThreadPoolExecutor

from ports import free_port
from program import chat_body, eventually, http


def test_promtool_finds_nothing_wrong(engine, router):
    front = router([engine(["m"])])
    front.chat(body={"stream": True})
    front.chat("no such")
    check = subprocess.run([os.environ.get("PROMTOOL", "promtool"), "check", "metrics"],
                           input=front.metrics_text(), capture_output=True, text=True)
    assert check.returncode == 0 and check.stdout + check.stderr == ""


def test_the_contracts_names(engine, router):
    front = router([engine(["m"])])
    front.chat(body={"stream": True})
    names = {name for name, _ in front.metrics()}
    for histogram in ("request_seconds", "first_token_seconds", "inter_token_seconds"):
        assert {f"headrace_{histogram}_{part}" for part in ("bucket", "sum", "count")} <= names
    assert {"headrace_requests_total", "headrace_tokens_total", "headrace_in_flight", "headrace_connections"} <= names
    assert any(name.startswith("headrace_loop_lag_seconds") for name in names)
    assert any("held" in name for name in names)


def test_requests_and_tokens_are_counted(engine, router):
    front = router([engine(["m"]), engine(["other"])])
    usage = [front.chat(body={"max_tokens": n}).json()["usage"] for n in (3, 4, 5)]
    front.chat("no such")
    eventually(lambda: front.metric("headrace_requests_total", code="404") == 1)
    eventually(lambda: front.metric("headrace_requests_total", model="m", code="200") == 3)
    eventually(lambda: front.metric("headrace_request_seconds_count") == front.metric("headrace_requests_total"))
    kinds = {dict(labels)["kind"]: v for (name, labels), v in front.metrics().items() if name == "headrace_tokens_total"}
    assert set(kinds.values()) >= {sum(u["prompt_tokens"] for u in usage), 12}


def test_first_tokens_are_told_of_each_instance(engine, router):
    """A prompt takes the one engine at least 100 ms and the other no time; the third shows no first token."""
    slow, quick, idle = engine(["slow"], "--prefill-rate", "20"), engine(["quick"]), engine(["idle"])
    front = router([slow, quick, idle])
    for model in ("slow", "quick", "quick"):
        assert front.chat(model, body={"stream": True}).status_code == 200
    assert front.chat("idle").status_code == 200
    means = [front.metric("headrace_first_token_mean_seconds", instance=one.url) for one in (slow, quick, idle)]
    assert means[0] >= 0.1 and 0 < means[1] != means[0] and means[2] == 0


def test_streams_in_flight(engine, router):
    worker = engine(["m"])
    front = router([worker])
    with http() as client:
        with client.stream("POST", front.url + "/v1/chat/completions",
                           json=chat_body(stream=True, max_tokens=100000)) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert front.metric("headrace_in_flight") == 1
            eventually(lambda: front.metric("headrace_connections", side="client") == 1)
        eventually(lambda: front.metric("headrace_in_flight") == 0)


def test_names_from_the_wire_make_no_series(engine, router):
    front = router([engine(["m"]), engine(["other-model"])])
    dice = random.Random(3)

    def word():
        return "".join(dice.choices(string.printable, k=dice.randrange(1, 40)))

    def ask(words):
        with http(base_url=front.url) as client:
            for model, path, key, method in words:
                client.post("/v1/chat/completions", json={"model": model}, headers={"x-api-key": key})
                client.get("/" + path)
                client.request(method, "/v1/models")

    def round_of(n):
        words = [(word(), dice.randbytes(6).hex(), dice.randbytes(6).hex(), dice.choice(("PUT", "MKCOL", "COPY")))
                 for _ in range(n)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, [words[i::4] for i in range(4)]))
    round_of(40)
    for figure in "waiting", "generation_tokens_per_second":   # in the engines' own time
        eventually(lambda: sum(name == f"headrace_engine_{figure}" for name, _ in front.metrics()) == 2)
    before = front.metrics().keys()
    round_of(1000)
    assert front.metrics().keys() - before == set()
    eventually(lambda: front.metric("headrace_requests_total", model="other", code="404") >= 1000)


def test_the_admin_endpoints_are_not_on_the_data_port(engine, router):
    worker = engine(["m"])
    front = router([worker])
    assert "vllm:" in front.get("/metrics").text        # relayed like any other path
    assert front.get("/config").status_code == 404


def test_metrics_can_have_a_listener_of_their_own(engine, router):
    port = free_port()
    front = router([engine(["m"])], metrics={"port": port})
    with http() as client:
        assert "headrace_requests_total" in client.get(f"http://127.0.0.1:{port}/metrics").text
        assert client.get(f"http://127.0.0.1:{port}/config").status_code == 404


def test_config_shows_what_is_in_effect(engine, router):
    front = router([engine(["m"])], "--timeout-stream-idle", "7s", router={"body_limit": "3MiB"})
    shown = front.admin("/config").json()
    assert shown["router"]["port"] == front.port and "7" in str(shown["timeout"]["stream_idle"])
    assert str(shown["router"]["body_limit"]) in ("3MiB", str(3 << 20))


def test_admin_answers_while_the_data_port_is_busy(engine, router):
    front = router([engine(["m"], "--fault", "hang_head")], router={"threads": 1})
    clients = [front.connect() for _ in range(300)]
    assert front.admin("/metrics").status_code == 200
    eventually(lambda: front.metric("headrace_connections", side="client") == 300)
    for s in clients:
        s.close()
    eventually(lambda: front.metric("headrace_connections", side="client") == 0)
