"""What engines say of themselves at /metrics is asked for, and shown on the admin port."""
import os
import subprocess
import threading

import pytest

from fakeworker import FakeWorker, answer
from program import Router, chat_body, eventually, http

QUICK = {"scrape": "100ms", "timeout": "300ms"}


@pytest.fixture
def front(start):
    return lambda engines, **discovery: start(Router, engines, discovery=QUICK | discovery)


class Page(FakeWorker):
    """An engine that serves model m and has the given page of metrics; page(peer) answers."""

    def __init__(self, page):
        self.page, self.n_asked = page, 0
        super().__init__(self.talk)

    def talk(self, peer):
        while found := peer.request():
            if found[0].startswith(b"GET /metrics "):
                self.n_asked += 1
                self.page(peer)
            else:
                peer.send(answer(b"{}", b"404 None"))


def good(text):
    return lambda peer: peer.send(answer(text))


def has(router, name, **labels):
    return any(n == name and set(labels.items()) <= have for n, have in router.metrics())


def test_the_load_of_engines_shows(engine, front):
    busy, idle = engine(["m"], "--itl", "20ms", "--max-num-seqs", "1"), engine(["other"])
    router = front([busy, idle])
    eventually(lambda: has(router, "headrace_engine_running", instance=busy.url)
               and has(router, "headrace_engine_kv_usage", instance=idle.url))
    assert router.metric("headrace_engine_running") == 0
    body = chat_body(stream=True, max_tokens=100000, ignore_eos=True)
    with http() as client, client.stream("POST", router.url + "/v1/chat/completions", json=body) as one:
        lines = one.iter_lines()        # kept: the stream ends with it
        next(lines)
        with client.stream("POST", router.url + "/v1/chat/completions", json=body):
            eventually(lambda: router.metric("headrace_engine_running", instance=busy.url) == 1
                       and router.metric("headrace_engine_waiting", instance=busy.url) == 1
                       and router.metric("headrace_engine_kv_usage", instance=busy.url) > 0)
    assert router.metric("headrace_engine_running", instance=idle.url) == 0
    eventually(lambda: router.metric("headrace_engine_waiting", instance=busy.url) == 0)
    assert router.metric("headrace_scrapes_total", outcome="good") > 2
    check = subprocess.run([os.environ.get("PROMTOOL", "promtool"), "check", "metrics"],
                           input=router.metrics_text(), capture_output=True, text=True)
    assert check.returncode == 0 and check.stdout + check.stderr == ""


def test_figures_of_a_dead_engine_go_and_its_restart_shows(engine, front):
    worker = engine(["m"])
    router = front([worker])
    assert router.chat().status_code == 200
    made = eventually(lambda: router.metric("headrace_scrapes_total", outcome="good"))
    eventually(lambda: router.metric("headrace_scrapes_total", outcome="good") > made + 1)
    assert router.metric("headrace_engine_restarts_total", instance=worker.url) == 0
    worker.kill()
    eventually(lambda: not has(router, "headrace_engine_running"))
    assert router.metric("headrace_scrapes_total", outcome="failed") > 0
    worker.restart()
    eventually(lambda: has(router, "headrace_engine_running"))
    assert router.metric("headrace_engine_restarts_total", instance=worker.url) == 1


def test_an_engine_without_metrics_is_asked_rarely(start, front):
    bare, well = start(Page, lambda peer: peer.send(answer(b"{}", b"404 None"))), start(Page, good(b"sglang:num_running_reqs 7\n"))
    router = front([bare, well], scrape="100ms")
    eventually(lambda: well.n_asked >= 20)
    assert bare.n_asked == 1
    assert router.metric("headrace_scrapes_total", outcome="none") == 1
    assert router.metric("headrace_engine_running", instance=well.url) == 7
    assert not has(router, "headrace_engine_running", instance=bare.url)


def test_nobody_is_asked_when_it_is_off(start, front):
    page = start(Page, good(b"sglang:num_running_reqs 7\n"))
    off, on = front([page], scrape="off"), front([page])
    eventually(lambda: page.n_asked >= 10)
    assert off.metric("headrace_scrapes_total") == 0
    assert on.metric("headrace_scrapes_total") >= 9


def test_the_key_is_brought(start, front):
    page = start(Page, good(b"sglang:num_running_reqs 7\n"))
    front([page], engine_key="sesame-street")
    eventually(lambda: page.requests)
    assert b"\r\nauthorization: bearer sesame-street\r\n" in page.requests[0][0].lower() + b"\r\n"


def endless(first):
    def page(peer):
        peer.send(first)
        while True:
            peer.send(b"vllm:num_requests_running{" + b"x" * 65536)
    return page


@pytest.mark.parametrize("page", [
    endless(b"HTTP/1.1 200 OK\r\n\r\nvllm:num_requests_running 5\n"), endless(b""),
    good(b"vllm:num_requests_running{" * 70000),
    good(b"vllm:num_requests_running NaN\nvllm:num_requests_waiting -3\nvllm:num_requests_waiting 1e300\n" * 10000),
    lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n") or peer.wait_for_end(),
    lambda peer: peer.reset(),
], ids=["endless", "no-http", "garbage", "impossible", "silent", "reset"])
def test_a_hostile_page_does_no_harm(start, engine, front, page):
    done = threading.Event()

    def once_more(peer):
        try:
            page(peer)
        finally:
            done.set()
    hostile, well = start(Page, once_more), engine(["m"])
    router = front([hostile, well])
    eventually(done.is_set)
    eventually(lambda: router.metric("headrace_scrapes_total", outcome="failed")
               + router.metric("headrace_scrapes_total", outcome="none") >= 1)
    before = router.rss_bytes(), router.descriptors()
    n = router.metric("headrace_scrapes_total", outcome="good")
    eventually(lambda: router.metric("headrace_scrapes_total", outcome="good") > n + 10)
    assert router.rss_bytes() < before[0] + (8 << 20) and router.descriptors() < before[1] + 8
    assert not has(router, "headrace_engine_running", instance=hostile.url)
    assert has(router, "headrace_engine_running", instance=well.url)
    assert router.metric("headrace_instance_routable", instance=hostile.url) == 1       # no evidence of health
