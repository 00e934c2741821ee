"""Refusals: status, stable code, and the shape of the API that was called."""
import gzip
import json
import resource
from http.client import HTTPConnection

import pytest

from program import chat_body, http, raw_request, read_to_end

PATHS = ["/v1/chat/completions", "/v1/embeddings", "/v1/messages", "/v1/messages/count_tokens"]


def check(reply, status, code, path):
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), reply.text
    assert reply.headers["content-type"].startswith("application/json")
    error = reply.json()["error"]
    assert error["message"] and error["type"]
    if path.startswith("/v1/messages"):
        assert reply.json()["type"] == "error"
    else:
        assert "param" in error and "type" not in reply.json()


DUPLICATE = b'{"model":"m","model":"m"}'
ESCAPED = rb'{"model":"m","m\u006fdel":"m"}'
DEEP = b'{"a":' + b"[" * 512 + b"]" * 512 + b',"model":"m"}'
REFUSED = {
    "unknown model": (404, "model_not_found", b'{"model":"no such"}'),
    "model in a string": (404, "model_not_found", rb'{"x":"\"model\":\"m\"","model":"no such"}'),
    "model in an object": (404, "model_not_found", b'{"x":{"model":"m"},"model":"no such"}'),
    "long model": (400, "bad_request", b'{"model":"%s"}' % (b"m" * 257)),
    "duplicate model": (400, "duplicate_model", DUPLICATE),
    "duplicate model, escaped": (400, "duplicate_model", ESCAPED),
    "broken JSON": (400, "invalid_json", b'{"model":"m"'),
    "junk after JSON": (400, "invalid_json", b'{"model":"m"} x'),
    "no body": (400, "invalid_json", b""),
    "too deep": (400, "invalid_json", DEEP),
}


@pytest.fixture
def fleet(engine, router):
    return router([engine(["m"]), engine(["other"])])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", REFUSED)
def test_bodies_that_are_refused(fleet, case, path):
    status, code, body = REFUSED[case]
    check(fleet.post(path, content=body, headers={"content-type": "application/json"}), status, code, path)


@pytest.mark.parametrize("path", PATHS)
def test_a_compressed_body(fleet, path):
    body = gzip.compress(json.dumps(chat_body()).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    check(fleet.post(path, content=body, headers=headers), 415, "unsupported_encoding", path)


def test_512_levels_are_allowed(fleet):
    body = b'{"a":' + b"[" * 511 + b"]" * 511 + b',"model":"m","messages":[{"role":"user","content":"x"}]}'
    assert fleet.post("/v1/chat/completions", content=body).status_code == 200


def test_a_hundred_thousand_levels(fleet):
    body = b'{"a":' + b"[" * 100000
    check(fleet.post("/v1/chat/completions", content=body), 400, "invalid_json", "/v1/chat/completions")


def test_depth_costs_no_stack(engine, router):
    """Each thread has 256 KiB of it."""
    limit = (256 << 10, 256 << 10)
    front = router([engine(["m"])], how={"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_STACK, limit)})
    for body, status in ((b'{"a":' + b"[" * 100000, 400), (b"[" * 100000 + b"]" * 100000, 400),
                         (b'{"a":' + b'{"a":' * 510 + b"1" + b"}" * 510 + b',"model":"m","messages":[{"role":"user","content":"x"}]}', 200)):
        reply = front.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert reply.status_code == status, reply.text
        with http() as client:      # and the control thread
            assert client.post(front.admin_url + "/explain", content=body, headers={"content-type": "application/json"}).status_code < 500


@pytest.mark.parametrize("path", PATHS)
def test_no_engine_at_all(router, path):
    reply = router([], ready=0).post(path, json=chat_body())
    check(reply, 503, "no_healthy_instance", path)
    assert int(reply.headers["retry-after"]) > 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_an_engine_that_talks_garbage(engine, router, path):
    reply = router([engine(["m"], "--fault", "garbage")]).post(path, json=chat_body(max_tokens=3))
    check(reply, 502, "upstream_failed", path)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_an_engine_that_resets_before_its_head(engine, router, path):
    reply = router([engine(["m"], "--fault", "reset:0")]).post(path, json=chat_body(max_tokens=3))
    check(reply, 502, "upstream_failed", path)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_never_answers(engine, router, path, stream):
    front = router([engine(["m"], "--fault", "hang_head")], timeout={"first_byte": "300ms"})
    check(front.post(path, json=chat_body(max_tokens=3, stream=stream)), 504, "timeout", path)


def test_the_total_limit(engine, router):
    front = router([engine(["m"], "--fault", "hang_head")], timeout={"total": "300ms"})
    check(front.chat(), 504, "timeout", "/v1/chat/completions")


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_the_engines_own_errors_pass_unchanged(engine, router, status):
    worker = engine(["m"], "--fault", f"status:{status}")
    through, direct = router([worker]).chat(), worker.post("/v1/chat/completions", json=chat_body())
    assert (through.status_code, through.content) == (status, direct.content)


@pytest.mark.parametrize("request_line", [b"CONNECT a.test:80 HTTP/1.1", b"TRACE / HTTP/1.1"])
def test_methods_that_are_not_relayed(fleet, request_line):
    with fleet.connect() as s:
        s.sendall(request_line + b"\r\nHost: a.test:80\r\nConnection: close\r\n\r\n")
        reply, _ = read_to_end(s)
    assert reply.startswith(b"HTTP/1.1 501 ") and b'"not_implemented"' in reply


def test_a_malformed_head_is_400_and_closes(fleet):
    with fleet.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        reply, end = read_to_end(s)
    assert reply.startswith(b"HTTP/1.1 400 ") and b'"bad_request"' in reply and end == "fin"


def test_a_head_that_does_not_end_is_408(router, engine):
    front = router([engine(["m"])], timeout={"head": "300ms"})
    with front.connect() as s:
        s.sendall(raw_request(chat_body())[:40])
        reply, _ = read_to_end(s)
    assert reply.startswith(b"HTTP/1.1 408 ") and b'"client_timeout"' in reply


def test_errors_do_not_end_the_connection(fleet):
    client = HTTPConnection("127.0.0.1", fleet.port, timeout=60)
    client.connect()
    client.auto_open = False        # one that was closed stays closed
    for body, status in [({"model": "no such"}, 404), (chat_body(), 200)] * 5:
        client.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        with client.getresponse() as reply:
            assert reply.read() and reply.status == status
    client.close()
