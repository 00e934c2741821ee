"""Our numbers under the names of vLLM's router: all that docs/api.md claims is there, and moves with what happens."""
import json
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from fakeworker import answer
from pairs import Pairs, long_chat
from program import KEY, chat_body, eventually, http, read_to_end, raw_request

PREFIX = "vllm_router_"
API = (Path(__file__).resolve().parents[2] / "docs/api.md").read_text()
ALONE = {"probe": False, "passive": False}      # nothing but breakers takes an engine out
VLLM = {"compat": "vllm"}
CHAT = "/v1/chat/completions"

COUNTERS = {
    "requests_total": "route", "request_errors_total": "route error_type", "retries_total": "route", "retries_exhausted_total": "route",
    "cb_state_transitions_total": "worker from to", "cb_outcomes_total": "worker outcome", "processed_requests_total": "worker",
    "policy_decisions_total": "policy worker", "cache_hits_total": "", "cache_misses_total": "", "load_balancing_events_total": "",
    "pd_requests_total": "route", "pd_prefill_requests_total": "worker", "pd_decode_requests_total": "worker", "pd_errors_total": "error_type",
    "pd_prefill_errors_total": "worker", "pd_decode_errors_total": "worker", "pd_stream_errors_total": "worker",
    "discovery_updates_total": "", "embeddings_total": "", "embeddings_errors_total": "error_type",
}
GAUGES = {
    "cb_state": "worker", "active_workers": "", "worker_health": "worker", "worker_load": "worker", "running_requests": "worker",
    "max_load": "", "min_load": "", "discovery_workers_added": "", "discovery_workers_removed": "",
}
HISTOGRAMS = {
    "request_duration_seconds": "route", "retry_backoff_duration_seconds": "attempt", "pd_request_duration_seconds": "route",
    "generate_duration_seconds": "", "embeddings_duration_seconds": "",
}
FAMILIES = {PREFIX + name: (kind, set(labels.split())) for kind, families in
            (("counter", COUNTERS), ("gauge", GAUGES), ("histogram", HISTOGRAMS)) for name, labels in families.items()}
EDGES = [.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 30, 45, 60, 90, 120, 180, 240, float("inf")]


def documented():
    rows = re.findall(r"^\| `(vllm_router_\w+)(?:\{([\w,]+)\})?` \| (\w+) \|", API, re.M)
    return {name: (kind, set(labels.split(",")) - {""}) for name, labels, kind in rows}


def shown(front):
    """As documented(), with the labels of rows where there are some."""
    types = dict(re.findall(rf"^# TYPE ({PREFIX}\w+) (\w+)$", front.metrics_text(), re.M))
    found = {name: (kind, set()) for name, kind in types.items()}
    for name, labels in front.metrics():
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        if name.startswith(PREFIX):
            assert name in found or found[family][0] == "histogram", name
            found[name if name in found else family][1].update({label for label, _ in labels} - {"le"})
    return found


def of(front, name, **labels):
    return front.metric(PREFIX + name, **labels)


def rows(front, name, label):
    """{value of the label: value}, of rows that are not 0"""
    return {dict(labels)[label]: value for (n, labels), value in front.metrics().items() if n == PREFIX + name and value}


def cut_stream(front):
    with front.connect() as s:
        s.sendall(raw_request(json.dumps(long_chat(9, stream=True)).encode()))
        read_to_end(s)


def always(data):
    def script(peer):
        while peer.request():
            peer.send(data)
    return script


@pytest.fixture
def pairs(start):
    return lambda *args, **how: Pairs(start, *args, metrics=VLLM, **how)


def test_what_is_claimed():
    assert documented() == FAMILIES


def test_on_in_the_dialect(engine, router):
    front = router([engine(["m"])], "--dialect", "vllm")
    assert {name: kind for name, (kind, _) in shown(front).items()} == {name: kind for name, (kind, _) in FAMILIES.items()}
    assert of(front, "worker_health", worker=front.engines[0].url) == 1


@pytest.mark.parametrize("flags", [[], ["--dialect", "vllm", "--metrics-compat", "none"]])
def test_off_elsewhere(engine, router, flags):
    front = router([engine(["m"])], *flags)
    front.chat()
    assert PREFIX not in front.metrics_text()


def test_a_reload_shows_and_hides_them(engine, router):
    """What happens while they are hidden is not counted."""
    front = router([engine(["m"])])
    for n, names in ((0, "none"), (1, "vllm"), (1, "none"), (2, "vllm")):
        front.reconfigure(metrics={"compat": names})
        with http() as client:
            assert client.post(front.admin_url + "/reload").status_code == 200
        front.chat()
        if names == "none":
            assert PREFIX not in front.metrics_text()
        else:
            eventually(lambda: of(front, "requests_total", route=CHAT) == n)     # noqa: B023


def test_requests_by_route(engine, router):
    worker = engine(["m"])
    front = router([worker], metrics=VLLM)
    for _ in range(3):
        front.chat()
    front.post("/v1/embeddings", json={"model": "m", "input": "water"})
    front.get("/v1/responses/resp_none")
    front.get("/v1/responses/resp_none/input?x=1")
    front.get("/some/path")
    front.get("/health")
    expected = {CHAT: 3, "/v1/embeddings": 1, "/v1/responses/{id}": 1, "/v1/responses/{id}/input": 1, "other": 1}
    eventually(lambda: expected.items() <= rows(front, "requests_total", "route").items())
    assert expected.items() <= rows(front, "request_duration_seconds_count", "route").items()
    assert of(front, "request_duration_seconds_sum", route=CHAT) > 0
    assert (of(front, "embeddings_total"), of(front, "embeddings_duration_seconds_count")) == (1, 1)
    assert of(front, "generate_duration_seconds_count") == 3
    edges = [float(dict(labels)["le"]) for name, labels in front.metrics() if name == PREFIX + "generate_duration_seconds_bucket"]
    assert sorted(edges) == EDGES
    assert of(front, "processed_requests_total", worker=worker.url) == of(front, "requests_total") == sum(expected.values())


def test_names_from_the_wire_make_no_series(engine, router):
    front = router([engine(["m"])], metrics=VLLM)
    front.chat()
    eventually(lambda: of(front, "requests_total", route=CHAT) == 1)
    front.get("/a")
    eventually(lambda: of(front, "requests_total", route="other") == 1)
    front.get("/v1/responses/a")
    eventually(lambda: of(front, "requests_total", route="/v1/responses/{id}") == 1)
    before = {row for row in front.metrics() if row[0].startswith(PREFIX)}
    for i in range(20):
        front.get(f"/{i}")
        front.get(f"/v1/responses/{i}")
    eventually(lambda: of(front, "requests_total", route="other") == 21)
    assert {row for row in front.metrics() if row[0].startswith(PREFIX)} == before


def test_errors_have_a_type(fake, router):
    front = router([fake(always(answer(b"{}", b"422 Unprocessable Content")))], metrics=VLLM, retry={"attempts": 1})
    front.chat()
    front.chat("no such")
    front.post("/v1/embeddings", content=b"{", headers={"content-type": "application/json"})
    with front.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")      # without a host
        read_to_end(s)
    eventually(lambda: of(front, "request_errors_total") == 4)
    assert rows(front, "embeddings_errors_total", "error_type") == {"invalid_json": 1}
    for route, error in ((CHAT, "status_4xx"), (CHAT, "model_not_found"), ("/v1/embeddings", "invalid_json"), ("other", "malformed")):
        assert of(front, "request_errors_total", route=route, error_type=error) == 1


def test_retries(fake, router):
    """Three attempts, and waits of 20 ms and 40 ms between them."""
    busy = [fake(always(answer(b"{}", b"503 Service Unavailable"))) for _ in range(3)]
    front = router(busy, metrics=VLLM, health=ALONE, retry={"attempts": 3, "backoff": "20ms", "jitter": 0, "multiplier": 2, "budget": 1})
    assert front.chat().status_code == 503
    eventually(lambda: of(front, "requests_total", route=CHAT) == 1)
    assert (of(front, "retries_total", route=CHAT), of(front, "retries_exhausted_total", route=CHAT)) == (2, 1)
    assert rows(front, "retry_backoff_duration_seconds_count", "attempt") == {"1": 1, "2": 1}
    assert of(front, "retry_backoff_duration_seconds_sum", attempt="1") == pytest.approx(0.02)
    assert of(front, "retry_backoff_duration_seconds_sum", attempt="2") == pytest.approx(0.04)
    assert of(front, "retry_backoff_duration_seconds_bucket", attempt="1", le="0.01") == 0
    assert of(front, "retry_backoff_duration_seconds_bucket", attempt="1", le="0.025") == 1


def test_breakers(fake, router):
    bad, good = fake(always(answer(b"{}", b"500 Internal Server Error"))), fake(always(answer()))
    front = router([bad, good], metrics=VLLM, breaker={"failures": 3, "open": "1h", "open_max": "1h"})
    assert rows(front, "worker_health", "worker") == {bad.url: 1, good.url: 1} and of(front, "cb_state") == 0
    for _ in range(10):
        front.chat()
    eventually(lambda: of(front, "requests_total", route=CHAT) == 10)
    assert rows(front, "cb_state", "worker") == {bad.url: 1}
    assert of(front, "cb_state_transitions_total", worker=bad.url, **{"from": "closed", "to": "open"}) == 1
    assert of(front, "cb_state_transitions_total") == 1
    assert (of(front, "cb_outcomes_total", worker=bad.url, outcome="failure"), of(front, "cb_outcomes_total", worker=bad.url)) == (3, 3)
    assert (of(front, "cb_outcomes_total", worker=good.url, outcome="success"), of(front, "cb_outcomes_total", worker=good.url)) == (7, 7)
    assert of(front, "request_errors_total", route=CHAT, error_type="status_5xx") == 3


def test_health_is_what_may_be_sent_to(engine, router):
    one, two = engine(["m"]), engine(["m"])
    front = router([one, two], metrics=VLLM)
    with http() as client:
        for verb, n in (("drain", 1), ("undrain", 2)):
            assert client.post(f"{front.admin_url}/instances/{quote(one.url, safe='')}/{verb}").status_code == 200
            assert (of(front, "active_workers"), of(front, "worker_health", worker=one.url), of(front, "worker_health", worker=two.url)) == (n, n - 1, 1)


def test_loads(engine, router):
    busy, idle = engine(["busy"]), engine(["idle"])
    front = router([busy, idle], metrics=VLLM)
    with http() as client, client.stream("POST", front.url + CHAT, json=chat_body("busy", stream=True, max_tokens=100000)) as stream:
        lines = stream.iter_lines()
        next(lines)
        assert rows(front, "worker_load", "worker") == rows(front, "running_requests", "worker") == {busy.url: 1}
        assert (of(front, "max_load"), of(front, "min_load")) == (1, 0)
    eventually(lambda: (of(front, "max_load"), of(front, "worker_load")) == (0, 0))


def test_policies(engine, router):
    """A prompt is new to all, then known to who had it."""
    workers = [engine(["m"]) for _ in range(2)]
    front = router(workers, metrics=VLLM, policy={"default": "cache_aware"})
    long = chat_body(messages=[{"role": "user", "content": "water " * 1000}], max_tokens=1)
    for _ in range(3):
        assert front.post(CHAT, json=long).status_code == 200
    eventually(lambda: of(front, "requests_total", route=CHAT) == 3)
    assert (of(front, "cache_misses_total"), of(front, "cache_hits_total")) == (1, 2)
    assert sorted(rows(front, "policy_decisions_total", "worker").values()) == [3]
    assert of(front, "policy_decisions_total", policy="cache_aware") == 3


def test_choices_by_load(engine, router):
    workers = [engine(["m"]) for _ in range(2)]
    front = router(workers, metrics=VLLM, policy={"default": "least_load"})
    for _ in range(4):
        front.chat()
    eventually(lambda: of(front, "load_balancing_events_total") == 4)
    assert of(front, "policy_decisions_total", policy="least_load") == 4


def test_engines_that_come_and_go(engine, router):
    front = router([], metrics=VLLM, ready=0, admin={"key": KEY})
    assert of(front, "discovery_updates_total") == 0
    workers = [engine(["m"]) for _ in range(2)]
    with http() as client:
        def ask(what, worker):
            assert client.post(f"{front.admin_url}/{what}_worker", params={"url": worker.url},
                               headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        for n, worker in enumerate(workers, 1):
            ask("add", worker)
            eventually(lambda: of(front, "discovery_updates_total") == n)     # noqa: B023
            assert (of(front, "discovery_workers_added"), of(front, "discovery_workers_removed")) == (1, 0)
        ask("remove", workers[0])
        eventually(lambda: of(front, "discovery_updates_total") == 3)
    assert (of(front, "discovery_workers_added"), of(front, "discovery_workers_removed")) == (0, 1)
    assert rows(front, "worker_health", "worker") == {workers[1].url: 1}


@pytest.mark.parametrize("name", ["nixl", "sglang"])
def test_legs(pairs, name):
    fleet = pairs(name)
    first, second = fleet.pair
    for i in range(3):
        assert fleet.chat(i).status_code == 200
    fleet.settle()
    front = fleet.front
    eventually(lambda: rows(front, "pd_requests_total", "route") == {CHAT: 3})
    assert rows(front, "pd_request_duration_seconds_count", "route") == {CHAT: 3}
    assert rows(front, "pd_prefill_requests_total", "worker") == {first.url: 3}
    assert rows(front, "pd_decode_requests_total", "worker") == {second.url: 3}
    for name in "pd_errors_total", "pd_prefill_errors_total", "pd_decode_errors_total", "pd_stream_errors_total":
        assert of(front, name) == 0


def test_legs_that_fail(pairs):
    """A prefill that says 500, then a stream that is cut."""
    fleet = pairs("nixl", retry={"attempts": 1}, health=ALONE)
    first, second = fleet.pair
    front = fleet.front
    first.fault("status:500")
    assert fleet.chat().status_code == 500
    eventually(lambda: rows(front, "pd_errors_total", "error_type") == {"status_5xx": 1})
    assert rows(front, "pd_prefill_errors_total", "worker") == {first.url: 1}
    assert of(front, "pd_decode_requests_total") == 0      # it was held, and nothing was sent to it
    first.fault("")
    second.fault("reset:2")
    cut_stream(front)
    eventually(lambda: rows(front, "pd_errors_total", "error_type") == {"status_5xx": 1, "stream_broken": 1})
    assert rows(front, "pd_decode_errors_total", "worker") == rows(front, "pd_stream_errors_total", "worker") == {second.url: 1}
    assert of(front, "pd_prefill_requests_total", worker=first.url) == 2


def test_each_leg_has_its_attempts(pairs):
    """The decode was sent once when it is to be sent again, whatever the prefill took."""
    fleet = pairs("nixl", retry={"attempts": 2, "budget": 1}, health=ALONE)
    fleet.decodes[0].fault("status:503")
    assert fleet.chat().status_code == 503
    eventually(lambda: of(fleet.front, "retries_total", route=CHAT) == 1)
    assert rows(fleet.front, "retry_backoff_duration_seconds_count", "attempt") == {"1": 1}


def test_all_families_have_rows_as_documented(pairs):
    """Everything happens at once: no name, type or label that was not claimed, and promtool finds nothing wrong."""
    fleet = pairs("nixl", health=ALONE, retry={"attempts": 2, "budget": 1})
    first, second = fleet.pair
    front = fleet.front
    fleet.chat()
    second.fault("reset:2")
    cut_stream(front)
    for one in fleet.pair:
        one.fault("status:503")
    assert fleet.chat(1).status_code == 503
    with http() as client:
        assert client.post(f"{front.admin_url}/breakers/{quote(first.url, safe='')}/trip").status_code == 200
    front.post("/v1/embeddings", content=b"{", headers={"content-type": "application/json"})
    eventually(lambda: of(front, "embeddings_total") == 1)
    eventually(lambda: of(front, "pd_errors_total", error_type="stream_broken") == 1)
    assert shown(front) == FAMILIES
    check = subprocess.run([os.environ.get("PROMTOOL", "promtool"), "check", "metrics"], input=front.metrics_text(), capture_output=True, text=True)
    assert check.returncode == 0 and check.stdout + check.stderr == ""
