"""Keys that other servers know: real servers that are asked about them, real engines."""
import signal
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

from certs import Authority
from ports import free_port
from program import KEY, PROMPT, chat_body, eventually, http, raw_request

OURS = KEY + "-ours"        # all begin like KEY, so that Router.stop() looks for them in all that is shown
BAD = KEY + "-bad"


class KeyServer:
    """Answers 200 to who brings one of `keys`, else 401; all of them `status`, if there is one; none while it is held."""

    def __init__(self, *keys, port=None, certificate=None):
        self.keys, self.asked, self.status, self.gate = set(keys), [], None, threading.Event()
        self.gate.set()
        self.port, self.certificate = port or free_port(), certificate
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}/check?scope=chat"
        self.start()

    def start(self):
        keeper = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                given = self.headers["authorization"].removeprefix("Bearer ")
                assert self.path == "/check?scope=chat"
                keeper.asked.append(given)
                keeper.gate.wait()
                self.send_response(keeper.status or (200 if given in keeper.keys else 401))
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 256

            def handle_error(self, *_):        # the router has left
                pass
        self.server = Server(("127.0.0.1", self.port), Handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self):
        self.gate.set()
        if self.server:
            self.server.shutdown()
            self.server.server_close()
        self.server = None


@pytest.fixture
def keeper(start):
    return lambda *keys, **how: start(KeyServer, *keys, **how)


def chat(front, key, **how):
    return front.chat(headers={"authorization": f"Bearer {key}"}, body={"max_tokens": 2}, **how)


def code(answer):
    return answer.json()["error"]["code"]


def test_who_is_valid_comes_in_and_is_asked_about_once(engine, router, keeper):
    workers, server = [engine(["m"])], keeper(KEY)
    front = router(workers, "--api-key-validation-urls", server.url)
    for _ in range(3):
        assert chat(front, KEY).status_code == 200
        refused = chat(front, BAD)
        assert (refused.status_code, code(refused)) == (401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"
    assert front.chat().status_code == 401
    assert front.get("/v1/models").status_code == 401
    assert front.get("/health").status_code == 200
    assert front.get("/v1/models", headers={"x-api-key": KEY}).status_code == 200
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key=KEY, http_client=http(), max_retries=0) as client:
        assert client.chat.completions.create(model="m", max_tokens=2, messages=[{"role": "user", "content": PROMPT}]).usage
    assert sorted(server.asked) == sorted([KEY, BAD])
    assert front.metric("headrace_key_questions_total", outcome="valid") == 1
    assert front.metric("headrace_key_questions_total", outcome="invalid") == 1
    assert front.metric("headrace_key_verdicts_used_total", verdict="valid") == 4
    assert front.metric("headrace_key_verdicts_used_total", verdict="invalid") == 2
    assert front.metric("headrace_key_verdicts") == 2
    assert KEY not in str(workers[0].captured())


@pytest.mark.parametrize("name", ["API_KEY_VALIDATION_URLS", "HEADRACE_AUTH_VALIDATION_URLS"])
def test_urls_from_the_environment(engine, router, keeper, name):
    one, other = keeper(), keeper(KEY)
    front = router([engine(["m"])], "--dialect", "vllm", env={name: f"{one.url},{other.url}"})
    assert chat(front, KEY).status_code == 200
    assert chat(front, BAD).status_code == 401
    assert one.asked[-1:] == other.asked[-1:] == [BAD]


def test_no_answer_is_no_verdict(engine, router, keeper):
    one, other = keeper(KEY), keeper()
    front = router([engine(["m"])], auth={"validation_urls": [one.url, other.url], "validation_ttl": "0s", "validation_grace": "0s"})
    one.stop()
    refused = chat(front, KEY)
    assert (refused.status_code, code(refused), refused.headers["retry-after"]) == (503, "upstream_failed", "1")
    one.start()
    assert chat(front, KEY).status_code == 200
    one.status = 500
    assert chat(front, KEY).status_code == 503
    one.status = 429
    assert chat(front, KEY).status_code == 503
    one.status = 403
    assert chat(front, KEY).status_code == 401
    assert front.metric("headrace_key_questions_total", outcome="failed") == 3
    assert front.output().count("does not say whether") == 2        # once each time that it began


def test_silence_is_no_verdict(engine, router, keeper):
    server = keeper(KEY)
    front = router([engine(["m"])], auth={"validation_urls": [server.url], "validation_timeout": "100ms"})
    server.gate.clear()
    refused = chat(front, KEY)
    assert (refused.status_code, code(refused)) == (503, "upstream_failed")
    server.gate.set()
    assert eventually(lambda: chat(front, KEY).status_code == 200)


def test_who_was_valid_is_so_while_nobody_answers(engine, router, keeper):
    server = keeper(KEY)
    front = router([engine(["m"])], auth={"validation_urls": [server.url], "validation_ttl": "0s"})
    assert chat(front, KEY).status_code == chat(front, KEY).status_code == 200
    assert server.asked == [KEY, KEY]
    server.stop()
    assert chat(front, KEY).status_code == 200
    assert chat(front, BAD).status_code == 503
    assert front.metric("headrace_key_verdicts_used_total", verdict="stale") == 1
    server.keys.clear()
    server.start()
    eventually(lambda: chat(front, KEY).status_code == 401)        # two seconds at most


def test_keys_of_ours_come_first(engine, router, keeper):
    server = keeper(KEY, OURS)
    front = router([engine(["m", "x"])], auth={"validation_urls": [server.url], "validation_tenant": "guests"},
                   tenants=[{"name": "us"}, {"name": "guests", "models": ["m"]}], env={"HEADRACE_AUTH_KEYS": f"us={OURS}"})
    assert chat(front, OURS, model="x").status_code == 200
    assert server.asked == []
    assert chat(front, KEY).status_code == 200
    denied = chat(front, KEY, model="x")
    assert (denied.status_code, code(denied)) == (403, "tenant_denied")
    assert chat(front, BAD).status_code == 401
    assert server.asked == [KEY, BAD]
    assert front.metric("headrace_tenant_requests_total", tenant="us") == 1
    assert front.metric("headrace_tenant_requests_total", tenant="guests") == 2


def test_many_with_one_key_are_one_question(engine, router, keeper):
    server = keeper(KEY)
    front = router([engine(["m"])], "--api-key-validation-urls", server.url, "--auth-validation-timeout", "60s")
    server.gate.clear()
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(chat, front, KEY) for _ in range(20)]
        eventually(lambda: front.metric("headrace_active") == 20)
        assert front.metric("headrace_key_questions") == 1
        with front.connect() as s:        # who leaves takes nobody along
            s.sendall(raw_request(chat_body(), headers=f"x-api-key: {KEY}\r\n"))
            eventually(lambda: front.metric("headrace_active") == 21)
        eventually(lambda: front.metric("headrace_active") == 20)
        server.gate.set()
        assert [a.result().status_code for a in answers] == 20 * [200]
    assert server.asked == [KEY]
    assert [r["status"] for r in front.log(21)].count(499) == 1


def test_a_flood_of_keys_is_bounded(engine, router, keeper):
    flood = [f"{KEY}-{i}" for i in range(64)]
    server = keeper(KEY, *flood)
    front = router([engine(["m"])], "--api-key-validation-urls", server.url, "--auth-validation-timeout", "60s")
    assert chat(front, KEY).status_code == 200
    server.gate.clear()
    with ThreadPoolExecutor(64) as pool:
        answers = [pool.submit(chat, front, key) for key in flood]
        eventually(lambda: front.metric("headrace_key_questions") == 64)
        refused = chat(front, BAD)
        assert (refused.status_code, code(refused), refused.headers["retry-after"]) == (503, "overloaded", "1")
        assert chat(front, KEY).status_code == 200
        assert chat(front, "two words").status_code == 401
        server.gate.set()
        assert [a.result().status_code for a in answers] == 64 * [200]
    assert chat(front, BAD).status_code == 401
    assert sorted(server.asked) == sorted([KEY, BAD, *flood])
    assert sorted(r["cause"] for r in front.log(69) if r["cause"] != "none") == ["invalid_key", "invalid_key", "keys_busy"]


@pytest.mark.parametrize("knows", [True, False])
def test_tls(engine, router, keeper, knows):
    authority = Authority()
    server = keeper(KEY, certificate=authority.issue("IP:127.0.0.1"))
    front = router([engine(["m"])], "--api-key-validation-urls", server.url,
                   "--engine-ca", authority.ca if knows else Authority("other").ca)
    assert chat(front, KEY).status_code == (200 if knows else 503)
    assert server.asked == ([KEY] if knows else [])


def test_a_stop_waits_for_nobody(engine, router, keeper):
    server = keeper(KEY)
    front = router([engine(["m"])], "--api-key-validation-urls", server.url, "--auth-validation-timeout", "60s")
    server.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(chat, front, KEY)
        eventually(lambda: server.asked)
        front.process.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping" in front.output())
        front.process.send_signal(signal.SIGTERM)
        assert answer.result().status_code == 503
        assert front.wait() == 0
