"""One router before many models: other names for them, a policy for each, and workers that come first or cost less."""
import json
import re
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

from certs import Authority
from fakeregistry import FakeRegistry, record
from fakeworker import answer, chunk
from ports import free_port
from program import BIN, KEY, PROMPT, chat_body, eventually, http, raw_request, read_to_end
from sdk import sdk
from workerapi import call, register, workers

MESSAGES = [{"role": "user", "content": PROMPT}]
LARGE = "Größe \\u00e9 " * 4096 * 20


def ids(front, **how):
    return [m["id"] for m in front.get("/v1/models", **how).json()["data"]]


def reload(front, **changes):
    front.reconfigure(**changes)
    done = subprocess.run([BIN, "ctl", "--admin", front.admin_url, "reload"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- other names --------------------------------------------------------------------------

def test_the_official_sdk_by_an_alias(engine, router):
    engines = [engine(["org/large"]), engine(["org/small"])]
    front = router(engines, alias={"gpt-4": "org/large", "fast": "org/small"})
    with sdk(front) as client:
        assert [m.id for m in client.models.list()] == ["org/large", "org/small", "fast", "gpt-4"]
        plain = client.chat.completions.create(model="gpt-4", messages=MESSAGES, max_tokens=7)
        assert plain.model == "org/large" and plain.usage.completion_tokens == 7
        chunks = list(client.chat.completions.create(model="fast", messages=MESSAGES, max_tokens=7, stream=True))
        assert {c.model for c in chunks} == {"org/small"}
        assert client.embeddings.create(model="fast", input="a").model == "org/small"
        with pytest.raises(openai.NotFoundError, match="gpt-5"):
            client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert sorted(r["model"] for r in front.log(5) if r["path"].startswith("/v1/c")) == ["", "org/large", "org/small"]
    assert front.metric("headrace_requests_total", model="org/large") == 1
    assert front.admin("/decisions").json()["decisions"][0]["model_asked"] == "gpt-5"


def spliced(body, alias, model):
    """The one place, however it is spelt."""
    return re.sub(rb'("model"\s*:\s*)' + json.dumps(alias).encode(), lambda m: m[1] + json.dumps(model).encode(), body, count=1)


BODIES = [
    b'{"model":"al","messages":[{"role":"user","content":"al \\"model\\":\\"al\\""}],"x":1.0e+2}',
    b'{ "messages" : [],\n"n":1, "model" :\t"al" }',
    b'{"messages":[{"role":"user","content":"%s"}],"model":"al","stream":false}' % LARGE.encode(),
    b'{"model": "al","messages":[{"role":"user","content":"%s"}],"stream":false}' % LARGE.encode(),
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_nothing_but_the_name_is_another_byte(fake, router, body):
    """Bodies of a few bytes, and of more than can be replayed, with the name in front and at the end."""
    def script(peer):
        while peer.request():
            peer.send(answer())
    worker = fake(script, declared=["m \"1\""])
    front = router([worker], alias={"al": "m \"1\""})
    with front.connect() as s:
        s.sendall(raw_request(body) + raw_request(body.replace(b'"al"', b'"m \\"1\\""'), headers="Connection: close\r\n"))
        assert read_to_end(s)[0].count(b"200 OK") == 2
    sent = spliced(body, "al", 'm "1"')
    assert len(sent) != len(body)
    assert worker.requests[0][1] == sent
    assert f"\r\ncontent-length: {len(sent)}".encode() in worker.requests[0][0].lower()


def unchunked(data):
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body, data = body + data[:int(size, 16)], data[int(size, 16) + 2:]
    return body


def test_a_body_without_a_length_flows(fake, router):
    """The engine has the name before the client has sent the rest."""
    peers = []

    def script(peer):
        peers.append(peer)
        while not peer.buffer.endswith(b"0\r\n\r\n"):
            if not peer.receive():
                return
        peer.send(answer())
    worker = fake(script)
    front = router([worker], alias={"al": "m"})
    begin, piece = b'{"model":"al","prompt":"', b"x" * 65536
    with front.connect() as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nConnection: close\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n" + chunk(begin) + chunk(piece) * 17)
        eventually(lambda: peers and len(peers[0].buffer) > 1 << 20)
        s.sendall(chunk(piece) + chunk(b'"}') + b"0\r\n\r\n")
        assert b"200 OK" in read_to_end(s)[0]
    assert unchunked(peers[0].buffer.partition(b"\r\n\r\n")[2]) == b'{"model":"m","prompt":"' + piece * 18 + b'"}'


def test_forms_have_names_too(fake, router):
    def script(peer):
        while peer.request():
            peer.send(answer(b'{"text": "heard"}'))
    worker = fake(script, declared=["org/whisper"])
    front = router([worker], alias={"whisper-1": "org/whisper"})
    sound = bytes(range(256)) * 2000
    with sdk(front) as client:
        assert client.audio.transcriptions.create(model="whisper-1", file=("whisper-1.wav", sound)).text == "heard"
    head, body = worker.requests[0]
    boundary = re.search(rb"boundary=(\S+)", head)[1]
    assert dict(re.findall(rb'name="(\w+)"(?:;[^\r]*)?\r\n(?:[^\r]+\r\n)*\r\n(.*?)\r\n--' + boundary, body, re.S)) == \
        {b"model": b"org/whisper", b"file": sound}


def test_who_gets_it_next_gets_the_model(engine, router):
    """A refusal, then a stream that is cut: each engine is asked by the model's own name."""
    engines = [engine(["m"], "--fault", "fail_first:1"), engine(["m"], "--fault", "fail_first:1")]
    front = router(engines, alias={"al": "m"}, retry={"statuses": ["500", "503"], "budget": 1, "backoff": "1ms"})
    assert front.chat("al").json()["model"] == "m"
    asked = [json.loads(r["body"])["model"] for e in engines for r in e.captured()["requests"] if r["method"] == "POST"]
    assert len(asked) > 1 and set(asked) == {"m"}


def test_a_stream_goes_on_under_an_alias(engine, router):
    engines = [engine(["m"], "--itl", "10ms") for _ in range(2)]
    front = router(engines, alias={"another-name": "m"}, resume={"enabled": True}, retry={"budget": 1})
    with sdk(front) as client:
        plain = client.chat.completions.create(model="another-name", messages=MESSAGES, max_tokens=40)
        text = ""
        for i, part in enumerate(client.chat.completions.create(model="another-name", messages=MESSAGES, max_tokens=40, stream=True)):
            text += part.choices[0].delta.content or ""
            if i == 10:
                victim, = [e for e in engines if e.count("started") > e.count("finished")]
                victim.kill()
    assert text == plain.choices[0].message.content
    assert front.log(2)[1]["resumed"] == 1


def test_tenants_have_the_names_that_they_are_given(engine, router):
    front = router([engine(["m"])], alias={"al": "m"}, env={"HEADRACE_AUTH_KEYS": f"a={KEY}"},
                   tenants=[{"name": "a", "models": ["al"]}])
    bearer = {"Authorization": f"Bearer {KEY}"}
    assert ids(front, headers=bearer) == ["al"]
    assert front.chat("al", headers=bearer).status_code == 200
    refused = front.chat("m", headers=bearer)
    assert refused.status_code == 403 and "m" in refused.json()["error"]["message"]


def test_an_alias_comes_before_a_model_of_its_name(engine, router):
    front = router([engine(["m", "old"])], alias={"old": "m"})
    assert ids(front) == ["m", "old"]
    assert front.chat("old").json()["model"] == "m"


def test_aliases_are_read_again(engine, router):
    front = router([engine(["m", "n"])], "--model-alias", "fixed=m", alias={"al": "m"})
    assert front.chat("al").json()["model"] == front.chat("fixed").json()["model"] == "m"
    reload(front, alias={"al": "n", "more": "m"})
    assert ids(front) == ["m", "n", "al", "fixed", "more"]
    assert front.chat("al").json()["model"] == "n" and front.chat("more").json()["model"] == "m"
    reload(front, alias={"al": None})
    assert front.chat("al").status_code == 404


# --- policies, priorities, costs ----------------------------------------------------------

@pytest.fixture
def registry(start):
    return lambda *records, **how: start(FakeRegistry, *records, **how)


@pytest.fixture
def gateway(router):
    """gateway(registry, ready): a router that knows its workers from there alone."""
    return lambda source, ready, **tables: router(
        [], ready=ready, discovery={"registry_url": source.url, "registry_sync_interval": "100ms",
                                    "service_removal_grace_period": "0s"}, **tables)


def policy_of(front, model):
    with http() as client:
        return client.post(f"{front.admin_url}/explain", json=chat_body(model)).json()["policy"]


def test_models_come_and_go_each_with_its_policy(engine, registry, gateway):
    """Nobody says which models there are but the engines."""
    one, two, both = engine(["one"]), engine(["two"]), engine(["one", "two"])
    source = registry(record("a", one.port, labels={"policy": "power_of_two"}, models=()),
                      record("b", two.port, labels={"policy": "random"}, models=()))
    front = gateway(source, 2)
    eventually(lambda: sorted(ids(front)) == ["one", "two"])
    assert (policy_of(front, "one"), policy_of(front, "two")) == ("power_of_two", "random")
    with sdk(front) as client:
        assert client.chat.completions.create(model="two", messages=MESSAGES, max_tokens=2).model == "two"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="three", messages=MESSAGES)
        source.put(record("c", both.port, labels={"policy@two": "least_load"}, models=()))
        source.delete("b")
        eventually(lambda: policy_of(front, "two") == "least_load")
        assert policy_of(front, "one") == "power_of_two"
        source.delete("c")
        eventually(lambda: ids(front) == ["one"])
        assert client.chat.completions.create(model="one", messages=MESSAGES, max_tokens=2).model == "one"


def test_a_label_that_says_nothing_is_told_once(engine, registry, gateway):
    source = registry(record("a", engine(["m"]).port, labels={"policy": "fastest", "priority": "first", "tier": "x"}))
    front = gateway(source, 1)
    eventually(lambda: front.chat().status_code == 200)
    assert policy_of(front, "m") == "round_robin"
    said = [json.loads(line) for line in front.output().splitlines() if "label ignored" in line]
    assert sorted((s["instance"], s["label"]) for s in said) == [("a", "policy"), ("a", "priority")]


def test_who_comes_first_gets_all_until_it_is_full(engine, router):
    engines = [engine(["m"]), engine(["m"], "--itl", "20ms"), engine(["m"])]
    front = router(engines, labels=[{}, {"priority": "80", "capacity": "1"}, {"priority": "20"}])
    for _ in range(4):
        assert front.chat(body={"max_tokens": 2}).status_code == 200
        eventually(lambda: front.metric("headrace_in_flight") == 0)       # its place is free
    assert [e.count("finished") for e in engines] == [0, 4, 0]
    with front.connect() as s:
        s.sendall(raw_request(chat_body(stream=True, max_tokens=10000)))
        read_to_end(s, until=b"data: ")
        assert front.chat().status_code == 200
    assert [e.count("finished") for e in engines] == [1, 4, 0]
    engines[0].kill()
    engines[1].kill()
    eventually(lambda: front.chat().status_code == 200)
    assert engines[2].count("finished") >= 1


def test_clients_may_ask_for_a_priority_and_a_cost(engine, router):
    engines = [engine(["m"]), engine(["m"])]
    front = router(engines, labels=[{"priority": "90", "cost": "2.5"}, {"cost": "0.5"}])

    def ask(**headers):
        answer = front.chat(headers={name.replace("_", "-"): value for name, value in headers.items()})
        return answer.status_code, [e.count("finished") for e in engines]
    assert ask() == (200, [1, 0])
    assert ask(x_max_cost="1") == (200, [1, 1])
    assert ask(x_worker_priority="51") == (200, [2, 1])
    assert ask(x_max_cost="0.1")[0] == 403
    assert ask(x_worker_priority="91")[0] == 503
    assert ask(x_worker_priority="51", x_max_cost="1")[0] in (403, 503)
    assert ask(x_worker_priority="high")[0] == ask(x_max_cost="-1")[0] == 400
    plain = router([engine(["m"])])
    assert plain.chat(headers={"x-max-cost": "0", "x-worker-priority": "1000"}).status_code == 200


@pytest.mark.parametrize("policy", ["round_robin", "least_load", "weighted_random"])
def test_who_costs_less_gets_more(engine, router, policy):
    engines = [engine(["m"]), engine(["m"])]
    front = router(engines, labels=[{"cost": "3"}, None], policy={"default": policy}, router={"threads": 1})
    assert [front.chat().status_code for _ in range(100)] == [200] * 100
    dear, cheap = (e.count("finished") for e in engines)
    assert dear < cheap
    if policy == "round_robin":     # what came before both were ready is not exact
        assert 22 <= dear <= 28


# --- somebody else's models ---------------------------------------------------------------

class Provider:
    """An API like OpenAI's behind TLS, below a path of its own; knows one key."""

    def __init__(self, certificate, base="/v1beta/openai", key=KEY):
        self.base, self.key, self.asked, self.port, self.is_limited, self.list_status = base, key, [], free_port(), False, 200
        self.url = f"https://localhost:{self.port}{base}"
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                provider.asked.append((self.command, self.path, dict(self.headers), body))
                status, found = provider.answer(self.command, self.path, self.headers.get("authorization"), body)
                data = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.sni_callback = lambda _, name, __: self.names.add(name)
        self.names = set()
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, method, path, authorization, body):
        if authorization != f"Bearer {self.key}":
            return 401, {"error": {"message": "no such key"}}
        if self.is_limited:
            return 429, {"error": {"message": "too many requests"}}
        if (method, path) == ("GET", f"{self.base}/models"):
            return self.list_status, {"object": "list", "data": [{"id": "gpt-large", "object": "model", "owned_by": "provider"}]}
        if (method, path) == ("POST", f"{self.base}/chat/completions"):
            message = {"role": "assistant", "content": "far"}
            return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": json.loads(body)["model"],
                         "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
        return 404, {"error": {"message": "no such path"}}

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def provider(start):
    authority = Authority()
    made = start(Provider, authority.issue("DNS:localhost"))
    made.ca = str(authority.ca)
    return made


def test_a_provider_beside_engines(engine, provider, router):
    """Its models are found, its key is its own, and of clients it hears what it must to answer."""
    provider.more = {"api_key": KEY}
    near = engine(["m"], "--api-key", "near-key")
    near.declared = near.models
    front = router([near, provider], labels=[{}, {"provider": "openai"}], tls={"engine_ca": provider.ca}, alias={"gpt-4": "gpt-large"},
                   upstream={"api_key": "near-key"}, health={"probe": True, "interval": "100ms"}, discovery={"scrape": "100ms"})
    with sdk(front, key="of-the-client") as client:
        assert {m.id for m in client.models.list()} == {"m", "gpt-4", "gpt-large"}
        assert client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=2).model == "m"
        answer = client.chat.completions.create(model="gpt-4", messages=MESSAGES)
        assert (answer.choices[0].message.content, answer.model) == ("far", "gpt-large")
        for refused in (lambda: client.images.generate(model="gpt-large", prompt="x"), lambda: client.files.list()):
            with pytest.raises(openai.APIStatusError):
                refused()
    eventually(lambda: len(provider.asked) > 5)
    assert {(m, p) for m, p, _, _ in provider.asked} == {("GET", "/v1beta/openai/models"), ("POST", "/v1beta/openai/chat/completions")}
    assert {h["authorization"] for _, _, h, _ in provider.asked} == {f"Bearer {KEY}"} and provider.names == {"localhost"}
    heard = {name.lower() for _, _, h, _ in provider.asked for name in h}
    assert not heard & {"x-forwarded-for", "x-forwarded-host", "x-api-key", "cookie"} and "of-the-client" not in str(provider.asked)


def test_a_provider_lives_while_it_limits_us(provider, router):
    provider.more = {"api_key": KEY, "models": ["gpt-large"]}
    front = router([provider], labels=[{"provider": "openai"}], tls={"engine_ca": provider.ca}, health={"interval": "50ms", "max_errors": 1})
    state = lambda: front.admin("/instances").json()["instances"][0]["state"]    # noqa: E731
    eventually(lambda: state() == "ready")
    provider.is_limited = True
    n = len(provider.asked)
    eventually(lambda: len(provider.asked) > n + 3)
    assert state() == "ready"
    provider.is_limited, provider.list_status = False, 500
    eventually(lambda: state() == "unhealthy")


def test_a_provider_is_registered_while_the_router_runs(engine, provider, router, tmp_path):
    """With its path, which no engine has; whoever starts next knows it, and its key."""
    kept = {"dialect": "vllm", "state_dir": str(tmp_path)}
    front = router([engine(["m"], "--api-key", "near-key")], router=kept, upstream={"api_key": "near-key"}, tls={"engine_ca": provider.ca})
    refused = front.post("/workers", json={"url": provider.url, "api_key": KEY})
    assert refused.status_code == 422 and "provider" in refused.json()["error"]["message"] and not provider.asked
    register(front, provider, api_key=KEY, labels={"provider": "openai"})
    assert front.chat("gpt-large").json()["choices"][0]["message"]["content"] == "far"
    assert provider.url not in front.post("/flush_cache").text
    assert {(m, p) for m, p, _, _ in provider.asked} == {("GET", "/v1beta/openai/models"), ("POST", "/v1beta/openai/chat/completions")}
    assert {h["authorization"] for _, _, h, _ in provider.asked} == {f"Bearer {KEY}"}
    assert KEY not in front.get("/workers").text and workers(front)[provider.url]["labels"] == {"provider": "openai"}
    front.kill()
    again = router([], ready=1, router=kept, tls={"engine_ca": provider.ca})
    assert again.chat("gpt-large").json()["choices"][0]["message"]["content"] == "far"
    assert call(again, "DELETE", "/workers/" + provider.url).status_code == 200 and workers(again) == {}


def test_the_backend_openai_is_one_url(provider, router):
    front = router([], "--backend", "openai", "--worker-urls", provider.url, "--api-key", KEY, ready=1, tls={"engine_ca": provider.ca})
    assert ids(front) == ["gpt-large"]
    assert front.chat("gpt-large").json()["choices"][0]["message"]["content"] == "far"
    assert front.post("/tokenize", json={"model": "gpt-large", "prompt": "x"}).status_code == 400


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_provider_that_lists_nothing_serves_what_is_asked_of_it(provider, router, status):
    provider.list_status = status
    front = router([], "--backend", "openai", "--worker-urls", provider.url, "--api-key", KEY, ready=1, tls={"engine_ca": provider.ca},
                   health={"probe": True, "interval": "50ms", "max_errors": 1}, discovery={"interval": "100ms"})
    assert ids(front) == [] and front.chat("gpt-small").json()["model"] == "gpt-small"
    n = len(provider.asked)
    eventually(lambda: len(provider.asked) > n + 6)
    assert front.get("/readiness").status_code == 200 and front.chat("gpt-small").status_code == 200
    provider.list_status = 200
    eventually(lambda: ids(front) == ["gpt-large"])
    provider.list_status = status
    assert front.chat("gpt-large").json()["choices"][0]["message"]["content"] == "far"
    assert ids(front) == ["gpt-large"] and "does not list its models" in front.output()
