"""In place of InfiniLM-SVC's three programs: its eight scenarios, with the assertions that they lack, and its errors."""
import collections
import json
import re
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from fakeworker import FakeWorker, answer
from infinilm import InfiniBabysitter, InfiniRegistry, InfiniRouter
from ports import free_port
from program import BIN, chat_body, eventually, http, read_to_end

MODELS = {"service-model-a": ["model-a", "model-shared"], "service-model-b": ["model-b", "model-shared"],
          "service-model-c": ["model-c"]}


def who(reply):
    """Which backend says that it answered, for which model."""
    content = reply.json()["choices"][0]["message"]["content"]
    return re.fullmatch(r"Hello from (.+) \(model: (.+)\)", content).groups()


def ask(client, router, model, **more):
    return client.post(router.url + "/v1/chat/completions", json=chat_body(model, **more))


def spread(router, model, n, **more):
    """How many of n requests each backend answered."""
    found = collections.Counter()
    with http() as client:
        for _ in range(n):
            reply = ask(client, router, model, **more)
            assert reply.status_code == 200 and who(reply)[1] == model
            found[who(reply)[0]] += 1
    return found


def check_spread(found, expected):
    assert found.keys() == expected.keys()
    for name, n in expected.items():
        assert abs(found[name] - n) <= n / 10, found


class Trio:
    """That system's test_integration.sh up to its first test: registry, three babysitters, router."""

    def __init__(self, start):
        self.registry = start(InfiniRegistry)
        self.sitters = [start(InfiniBabysitter, name, models, self.registry, registers=True)
                        for name, models in MODELS.items()]
        for sitter in self.sitters:
            sitter.await_health()
        self.router = start(InfiniRouter, "--registry-url", self.registry.url, "--health-interval", 5,
                            "--registry-sync-interval", 2)
        eventually(lambda: len(self.router.services()) == 6)
        eventually(lambda: all(s["healthy"] for s in self.router.services()))


@pytest.fixture
def trio(start):
    return Trio(start)


def test_the_eight_scenarios(trio):
    router = trio.router
    # 1: a babysitter's health
    health = trio.sitters[0].get("/health").json()
    assert health["status"] == "healthy" and health["service"] == "babysitter-service-model-a"
    assert health["infinilm_server_port"] == trio.sitters[0].engine_port
    # 2: all models
    models = router.get("/models")
    assert [m["id"] for m in models.json()["data"]] == ["model-a", "model-b", "model-c", "model-shared"]
    assert b'"id":"model-a"' in models.content      # scripts look for it without a space
    assert router.get("/v1/models").json() == models.json()
    # 3, 4: a model goes where it is served
    for letter in "abc":
        assert spread(router, f"model-{letter}", 20) == {f"service-model-{letter}": 20}
    # 5: one that two serve goes to both
    check_spread(spread(router, "model-shared", 200), {"service-model-a": 100, "service-model-b": 100})
    # and a conversation stays with one of them
    homes = [spread(router, "model-shared", 5, prompt_cache_key=f"conv_{n}") for n in range(12)]
    assert all(len(home) == 1 for home in homes) and len(set.union(*map(set, homes))) == 2
    # 6: one that nobody serves
    reply = router.post("/v1/chat/completions", json=chat_body("non-existent-model"))
    assert reply.status_code == 503 and reply.headers["content-type"] == "application/json"
    assert reply.json() == {"error": "No healthy services available for model 'non-existent-model'",
                            "code": "model_not_found"}
    # 7: a stream
    reply = router.post("/v1/chat/completions", json=chat_body("model-a", stream=True))
    events = [line[6:] for line in reply.text.splitlines() if line]
    assert all(line.startswith("data: ") for line in reply.text.splitlines() if line) and events[-1] == "[DONE]"
    text = "".join(json.loads(e)["choices"][0]["delta"]["content"] for e in events[:-1])
    assert text == "Hello from service-model-a (model: model-a)"
    # 8: what the router knows
    answer = router.get("/services").json()
    names = {n for m in MODELS for n in (m, f"babysitter-{m}-server")}
    assert {s["name"] for s in answer["services"]} == names and answer["total"] == 6
    assert answer["registry_url"] == trio.registry.url
    for s in answer["services"]:
        sitter = next(x for x in trio.sitters if x.name in s["name"])
        assert s["port"] == sitter.engine_port and s["models"] == sitter.models and s["weight"] == 1
        assert s["url"] == f"http://{s['host']}:{s['port']}" and s["metadata"]["type"] == "openai-api"
        assert s["babysitter_url"] == f"http://{s['host']}:{sitter.port}"


def test_the_routers_own_endpoints(trio):
    router = trio.router
    for path in "/health", "/status":
        answer = router.get(path).json()
        assert isinstance(answer.pop("timestamp"), int)
        assert answer == {"status": "healthy", "router": "running", "healthy_services": "6/6",
                          "registry_url": trio.registry.url, "message": None}
    stats = router.get("/stats").json()
    assert (stats["total_services"], stats["healthy_services"]) == (6, 6)
    assert {s["name"] for s in stats["services"]} == {s["name"] for s in router.services()}
    with http() as client:
        for path in "/health", "/status", "/stats", "/services", "/models":
            head = client.head(router.url + path)
            assert head.status_code == 200 and head.content == b"" and int(head.headers["content-length"]) > 0


def test_weights_come_with_the_registry(start):
    registry = start(InfiniRegistry)
    sitters = [start(InfiniBabysitter, f"w{w}", ["m"], registry, metadata={"weight": w}) for w in (1, 3)]
    for sitter in sitters:
        sitter.await_health()
    router = start(InfiniRouter, "--registry-url", registry.url)
    eventually(lambda: [s["status"] for s in router.services()] == ["ready"] * 2)
    check_spread(spread(router, "m", 200), {"w1": 50, "w3": 150})


# --- static services ------------------------------------------------------------------------------------------------

def services_file(services, shape=lambda services: services):
    path = Path(tempfile.mkdtemp(prefix="services-"), "services.json")
    path.write_text(json.dumps(shape(services)))
    return path


SHAPES = {"nested": lambda s: {"static_services": {"services": s}}, "object": lambda s: {"services": s}, "list": lambda s: s}


def static(name, port, models=("m",), **more):
    return {"name": name, "host": "127.0.0.1", "port": port, "max_fails": 3, "fail_timeout": "30s", "backup": False,
            "metadata": {"type": "openai-api", "static": True, "models": list(models)}} | more


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_static_services_get_their_share(start, engine, shape):
    engines = {"one": engine(["m"]), "three": engine(["m"])}
    path = services_file([static("one", engines["one"].port), static("three", engines["three"].port, weight=3)], shape)
    router = start(InfiniRouter, "--static-services", path)
    eventually(lambda: [s["status"] for s in router.services()] == ["ready"] * 2)
    with http() as client:
        assert [ask(client, router, "m", max_tokens=1).status_code for _ in range(200)] == [200] * 200
    check_spread({name: e.count("finished") for name, e in engines.items()}, {"one": 50, "three": 150})
    assert [(s["name"], s["weight"], s["models"]) for s in router.services()] == [("one", 1, ["m"]), ("three", 3, ["m"])]
    assert router.get("/health").json()["registry_url"] is None


def test_static_services_without_the_dialect(start, engine, router):
    worker = engine(["m"])
    front = router([], "--static-services", services_file([static("one", worker.port)]), ready=1)
    assert front.chat().status_code == 200 and front.chat("x").status_code == 404


@pytest.mark.parametrize("text, said", [
    (None, "unable to open"), ("[1", "']' expected"), ("{}", "expected a list of services"),
    ('[{"name":"a","host":"h"}]', "services[0]: no port")])
def test_a_bad_file_stops_the_start(bounds, text, said):
    path = Path(tempfile.mkdtemp(), "services.json")
    if text is not None:
        path.write_text(text)
    done = subprocess.run([BIN, "router", "--static-services", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    line, = done.stderr.splitlines()
    assert line.startswith("--static-services: ") and said in line and str(path) in line


# --- errors ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def before(start):
    """before(script, env=None): an infini-router before one scripted engine, or before a closed port."""
    def begin(script=None, env=None):
        port = start(FakeWorker, script).port if script else free_port()
        quiet = {"HEADRACE_HEALTH_PROBE": "false", "HEADRACE_HEALTH_PASSIVE": "false"}
        router = start(InfiniRouter, "--static-services", services_file([static("a", port)]), env=quiet | (env or {}))
        eventually(lambda: router.get("/health").json()["healthy_services"] == "1/1")
        return router
    return begin


def check(reply, status, error, code):
    assert reply.status_code == status and reply.headers["content-type"] == "application/json"
    assert reply.content == json.dumps({"error": error, "code": code}, separators=(",", ":")).encode()


def hang(peer):
    while peer.receive():
        pass


def test_nobody_at_all(start):
    router = start(InfiniRouter)
    check(router.post("/v1/chat/completions", json=chat_body()), 503, "No healthy services available for model 'm'",
          "no_healthy_instance")
    check(router.get("/other"), 503, "No healthy services available", "no_healthy_instance")
    answer = router.get("/health")
    assert answer.status_code == 200 and answer.json()["status"] == "running"
    assert answer.json()["message"] == "No healthy services available" and answer.json()["healthy_services"] == "0/0"
    assert router.get("/models").json() == {"object": "list", "data": []}


def test_nobody_listens(before):
    check(before().post("/v1/chat/completions", json=chat_body()), 503, "Service unavailable - connection refused",
          "upstream_failed")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_too_late_whatever_the_api(before, path):
    router = before(hang, env={"PROXY_TIMEOUT_SECONDS": "1"})
    check(router.post(path, json=chat_body()), 504, "Service timeout", "timeout")


@pytest.mark.parametrize("script", [lambda peer: peer.request(), lambda peer: (peer.request(), peer.send(b"nonsense\r\n\r\n"))],
                         ids=["closed", "garbage"])
def test_an_engine_that_does_not_answer(before, script):
    check(before(script).post("/v1/chat/completions", json=chat_body()), 502,
          "Bad gateway - error communicating with service", "upstream_failed")


@pytest.mark.parametrize("request_, status, error", [
    (b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
     400, "Failed to read request body"),
    (b"TRACE / HTTP/1.1\r\nHost: t\r\n\r\n", 400, "Invalid HTTP method")], ids=["body", "method"])
def test_requests_that_are_refused(before, request_, status, error):
    router = before(hang)
    with socket.create_connection(("127.0.0.1", router.port), 60) as s:
        s.sendall(request_)
        reply, _ = read_to_end(s)
    assert reply.startswith(b"HTTP/1.1 %d " % status) and json.loads(reply.partition(b"\r\n\r\n")[2])["error"] == error
    eventually(lambda: f'"status":{status}' in (router.folder / "stdout").read_text())     # in the access log, too


def test_the_engines_own_errors_and_preflights_pass(before):
    def script(peer):
        while peer.request():
            peer.send(answer(b'{"error":{"message":"mine"}}', b"404 Not Found"))
    router = before(script)
    reply = router.post("/v1/chat/completions", json=chat_body())
    assert (reply.status_code, reply.json()) == (404, {"error": {"message": "mine"}})
    with http() as client:
        reply = client.options(router.url + "/v1/chat/completions",
                               headers={"origin": "http://x", "access-control-request-method": "POST"})
    assert reply.status_code == 404 and not [h for h in reply.headers if h.startswith("access-control")]
