"""What Mooncake's connector calls a prefill engine is asked for and shown, and nobody waits for it."""
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ports import free_port
from program import Router, eventually

QUICK = {"interval": "50ms", "timeout": "500ms", "slow_start": "0s"}


class Bootstrap:
    """A bootstrap server: answers /query with what it is told, or with nothing of the kind."""

    def __init__(self, port, engines):
        self.engines, outer = engines, self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                known = self.path == "/query" and outer.engines is not None
                body = (outer.engines if isinstance(outer.engines, bytes) else json.dumps(outer.engines).encode()) if known else b"{}"
                self.send_response(200 if known else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def front(start):
    def open_router(workers, ports, **pd):
        labels = [{"role": "prefill", "bootstrap_port": str(port)} for port in ports]
        router = start(Router, workers, ready=0, labels=labels, health=QUICK, discovery={"scrape": "100ms"},
                       pd={"connector": "mooncake"} | pd)
        eventually(lambda: all(i["state"] == "ready" for i in router.admin("/instances").json()["instances"]))
        return router
    return open_router


def names(router):
    return {i["instance"]: i["kv_engine"] for i in router.admin("/instances").json()["instances"]}


def test_it_is_learned_when_somebody_says_it(start, engine, front):
    port, worker = free_port(), engine(["m"])
    router = front([worker], [port])              # its instances are ready without it
    assert names(router) == {worker.url: None}
    eventually(lambda: "does not say what its connector calls it" in router.output())
    bootstrap = start(Bootstrap, port, {"0": {"engine_id": "one", "worker_addr": {"0": {"0": "tcp://h:1"}}}})
    eventually(lambda: names(router) == {worker.url: "one"})
    bootstrap.engines = {"0": {"engine_id": "two"}}
    worker.kill()
    eventually(lambda: names(router) == {worker.url: None})
    worker.restart()
    eventually(lambda: names(router) == {worker.url: "two"})


def test_only_who_has_that_connector_is_asked(start, engine, front):
    port, worker = free_port(), engine(["m"])
    start(Bootstrap, port, {"0": {"engine_id": "one"}})
    asked, other = front([worker], [port]), front([worker], [port], connector="nixl")
    eventually(lambda: names(asked) == {worker.url: "one"})
    assert names(other) == {worker.url: None}


@pytest.mark.parametrize("engines", [
    b"{" * 200000, b"[" * 1000000, b'{"0":{"engine_id":"' + b"x" * 5000000 + b'"}}', b'{"0":{"engine_id":"a\\u0000b"}}',
    b'{"0":{"engine_id":"\\r\\nx-evil: 1"}}', {"0": {"engine_id": "x" * 257}}, {"0": {"engine_id": ["x"]}}, b"\xff\xfe",
], ids=["deep", "deep-list", "long", "nul", "lines", "too-long", "list", "no-text"])
def test_nonsense_is_no_name(start, engine, front, engines):
    port, worker = free_port(), engine(["m"])
    bootstrap = start(Bootstrap, port, engines)
    router = front([worker], [port])
    eventually(lambda: "does not say what its connector calls it" in router.output())
    assert names(router) == {worker.url: None}
    assert router.get("/liveness").status_code == 200
    bootstrap.engines = {"0": {"engine_id": "one"}}
    eventually(lambda: names(router) == {worker.url: "one"})
