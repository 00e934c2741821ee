"""Keys, tenants, what they may use, and web pages: real engines and the official SDKs."""
import hashlib
import re
import subprocess
import threading

import anthropic
import openai
import pytest

from fakeworker import answer
from program import BIN, KEY, PROMPT, chat_body, eventually, http, raw_request, read_to_end
from sdk import sdk

OTHER = KEY + "-other"        # begins like KEY, so that Router.stop() looks for it as well
MESSAGES = [{"role": "user", "content": PROMPT}]


def digest(key):
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def guarded(router, tmp_path):
    """guarded(engines, a={...}, b={...}): tenant a has KEY, from the file, b has OTHER, from the environment."""
    def make(engines, *flags, a=None, b=None, **how):
        keys = tmp_path / "keys"
        keys.write_text(f"# of the test\na {KEY}\n")
        how["auth"] = {"keys_file": str(keys)} | how.get("auth", {})
        return router(engines, *flags, tenants=[{"name": "a"} | (a or {}), {"name": "b"} | (b or {})],
                      env={"HEADRACE_AUTH_KEYS": f"b={OTHER}"}, **how)
    return make


def test_sdks_bring_their_keys(engine, guarded):
    workers = [engine(["m"])]
    front = guarded(workers)
    for key in (KEY, OTHER):
        with sdk(front, key) as client:
            assert client.chat.completions.create(model="m", max_tokens=2, messages=MESSAGES).usage
    claude = anthropic.Anthropic(base_url=front.url, api_key=OTHER, max_retries=0)
    assert claude.messages.create(model="m", max_tokens=2, messages=MESSAGES).content
    with sdk(front, "sk-wrong") as client, pytest.raises(openai.AuthenticationError) as refused:
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=front.url, api_key="sk-wrong", max_retries=0).messages.create(
            model="m", max_tokens=2, messages=MESSAGES)
    assert front.metric("headrace_tenant_requests_total", tenant="a") == 1
    assert front.metric("headrace_tenant_requests_total", tenant="b") == 2
    assert front.metric("headrace_keys_refused_total") == 2
    asked = workers[0].captured()["requests"]
    assert asked and KEY not in str(asked)        # OTHER begins like it
    assert not any(r["cause"] == "invalid_key" and r["instance"] for r in front.log(5))


@pytest.mark.parametrize("headers, status, code", [
    ("", 401, "invalid_api_key"),
    ("Authorization: Bearer \r\n", 401, "invalid_api_key"),
    ("Authorization: Basic dTpw\r\n", 401, "invalid_api_key"),
    ("Authorization: Bearer caf\xe9\r\n", 401, "invalid_api_key"),
    ("Authorization: Bearer " + 60000 * "k" + "\r\n", 401, "invalid_api_key"),
    (f"Authorization: Bearer {KEY}\r\nx-api-key: {OTHER}\r\n", 401, "invalid_api_key"),
    (f"Authorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}\r\n", 400, "bad_request"),
    (f"x-api-key: {KEY}\r\nx-api-key: {KEY}\r\n", 400, "bad_request"),
    (f"AUTHORIZATION: bEARER  {KEY} \r\nx-api-key: {KEY}\r\n", 200, None),
])
def test_odd_credentials(engine, guarded, headers, status, code):
    front = guarded([engine(["m"])])
    with front.connect() as s:
        s.sendall(raw_request(chat_body(max_tokens=2), headers="Connection: close\r\n" + headers))
        got = read_to_end(s)[0]
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert code is None or f'"code":"{code}"'.encode() in got
    assert (b"\r\nwww-authenticate: Bearer\r\n" in got) == (status == 401)


def test_health_is_open_and_lists_are_their_own(engine, guarded):
    front = guarded([engine(["m", "n"])], a={"models": ["m"]})
    for path in "/health", "/liveness", "/readiness", "/status":
        assert front.get(path).status_code == 200
    for path in "/v1/models", "/models", "/services", "/stats":
        assert front.get(path).status_code == 401
        assert front.get(path, headers=bearer(KEY)).status_code == 200
    with sdk(front, KEY) as a, sdk(front, OTHER) as b:
        assert [m.id for m in a.models.list()] == ["m"]
        assert sorted(m.id for m in b.models.list()) == ["m", "n"]
        with pytest.raises(openai.PermissionDeniedError) as refused:
            a.chat.completions.create(model="n", messages=MESSAGES)
        assert refused.value.code == "tenant_denied" and '"n"' not in refused.value.message
        assert b.chat.completions.create(model="n", max_tokens=2, messages=MESSAGES).usage
    assert front.metric("headrace_tenant_denied_total", tenant="a") == 1


def test_engines_get_keys_of_their_own(engine, guarded, tmp_path):
    """Each engine wants another key; probes and questions for models bring them as well."""
    secret = tmp_path / "secret"
    secret.write_text("sk-engine-2\n")
    workers = [engine(["m"], "--api-key", "sk-engine-1"), engine(["m"], "--api-key", "sk-engine-2")]
    workers[1].more = {"api_key_file": str(secret)}
    front = guarded(workers, "--api-key", "sk-engine-1")
    eventually(lambda: front.get("/v1/models", headers=bearer(KEY)).json()["data"])
    for _ in range(6):
        assert front.chat(headers=bearer(KEY), body={"max_tokens": 2}).status_code == 200
    assert all(w.count("finished") >= 2 for w in workers)
    shown = front.admin("/config").text
    assert "sk-engine" not in shown and "sk-engine" not in front.metrics_text()


def test_what_tenants_taught_is_not_shared(engine, guarded):
    """The same prompt of two tenants: to the index these are two."""
    workers = [engine(["m"]) for _ in range(2)]
    front = guarded(workers, policy={"default": "cache_aware"}, explain={"headers": True})
    prompt = {"messages": [{"role": "user", "content": PROMPT + 20000 * "x"}], "max_tokens": 1}

    def hit(key):
        r = front.chat(headers=bearer(key), body=prompt)
        assert r.status_code == 200
        return int(r.headers["x-headrace-cache-hit"])
    assert hit(KEY) == 0
    eventually(lambda: hit(KEY) > 50)
    assert hit(OTHER) == 0
    eventually(lambda: hit(OTHER) > 50)
    records = front.admin("/decisions").json()["decisions"]
    assert {r["tenant"] for r in records} == {"a", "b"}
    assert len({r["salt"] for r in records}) == 2


def test_explanations_are_for_a_tenant(engine, guarded):
    front = guarded([engine(["m", "n"])], a={"models": ["m"]})

    def explain(query, model):
        with http() as client:
            return client.post(f"{front.admin_url}/explain{query}", json=chat_body(model))
    assert explain("?tenant=a", "m").status_code == 200
    assert explain("?tenant=a", "n").status_code == 403
    assert explain("?tenant=b", "n").status_code == 200
    assert explain("?tenant=c", "n").status_code == 400


def test_limits_are_told_as_openai_tells_them(engine, guarded):
    front = guarded([engine(["m", "n"])], a={"requests_per_minute": 3, "tokens_per_minute": 100000})
    with sdk(front, KEY) as client:
        for left in "2", "1", "0":
            raw = client.chat.completions.with_raw_response.create(model="m", max_tokens=2, messages=MESSAGES)
            assert raw.headers["x-ratelimit-limit-requests"] == "3"
            assert raw.headers["x-ratelimit-remaining-requests"] == left
            assert re.fullmatch(r"(\d+m)?[\d.]+s", raw.headers["x-ratelimit-reset-requests"])
            assert raw.headers["x-ratelimit-limit-tokens"] == "100000"
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="m", messages=MESSAGES)
        assert refused.value.code == "rate_limit_exceeded" and "requests a minute" in refused.value.message
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 20
        assert client.chat.completions.create(model="n", max_tokens=2, messages=MESSAGES).usage
    r = front.chat(headers=bearer(OTHER), body={"max_tokens": 2})
    assert r.status_code == 200 and not [h for h in r.headers if h.startswith("x-ratelimit")]
    assert front.metric("headrace_tenant_limited_total", tenant="a") == 1


def test_sdks_do_not_repeat_what_cannot_help(engine, guarded):
    """Ten retries allowed, and none made: the refusal says that they would be in vain."""
    front = guarded([engine(["m"])], a={"requests_per_minute": 1})
    with sdk(front, KEY, max_retries=10) as client:
        assert client.chat.completions.create(model="m", max_tokens=2, messages=MESSAGES).usage
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="m", max_tokens=2, messages=MESSAGES)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert [r["status"] for r in front.log(2)] == [200, 429]


def test_tokens_are_settled_by_usage(fake, guarded):
    """Much is reserved and little used: without the settlement the third request would be one too many."""
    usage = answer(b'{"usage":{"prompt_tokens":5,"completion_tokens":5}}', headers=b"Content-Type: application/json\r\n")

    def script(peer):
        while peer.request():
            peer.send(usage)
    front = guarded([fake(script)], a={"tokens_per_minute": 1000})
    body = {"max_tokens": 400}
    for _ in range(5):
        r = front.chat(headers=bearer(KEY), body=body)
        assert r.status_code == 200
    eventually(lambda: len(front.log()) >= 5)
    assert front.metric("headrace_tenant_prompt_tokens_total", tenant="a") == 25
    assert front.metric("headrace_tenant_completion_tokens_total", tenant="a") == 25


def test_the_queue_is_shown_by_tenants(fake, guarded):
    """Their names, caps, and who waits."""
    may_go = threading.Semaphore(0)

    def script(peer):
        while peer.request():
            assert may_go.acquire(timeout=60)
            peer.send(answer())
    front = guarded([fake(script)], "--max-concurrent-requests", "4", "--queue-size", "10", a={"max_requests": 1})
    threads = [threading.Thread(target=front.chat, kwargs={"headers": bearer(KEY)}) for _ in range(3)]
    for thread in threads:
        thread.start()
    eventually(lambda: front.admin("/admission").json()["waiting"] == 2)
    view = front.admin("/admission").json()
    assert view["tenants"] == [{"tenant": "a", "max_requests": 1, "requests": 1, "waiting": 2}]
    assert [w["tenant"] for w in view["queue"]] == ["a", "a"]
    may_go.release(3)
    for thread in threads:
        thread.join()


def test_all_share_a_rate(engine, router):
    front = router([engine(["m"])], "--rate-limit-tokens-per-second", "1")
    assert front.chat(body={"max_tokens": 1}).status_code == 200
    refused = [front.chat(body={"max_tokens": 1}) for _ in range(5)]
    refused = [r for r in refused if r.status_code != 200]
    assert refused and {r.status_code for r in refused} == {429}
    assert {r.headers["retry-after"] for r in refused} == {"1"}


def test_pages_of_an_origin_may_read(engine, router):
    page = "https://chat.example"
    front = router([engine(["m"])], "--cors-allowed-origins", page, "http://localhost:3000")
    with http() as client:
        r = client.options(f"{front.url}/v1/chat/completions", headers={
            "origin": page, "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,x-stainless-lang"})
    assert r.status_code == 204 and not r.content
    assert r.headers["access-control-allow-origin"] == page
    assert "x-stainless-lang" in r.headers["access-control-allow-headers"]
    for origin in page, "https://evil.example":
        r = front.chat(headers={"origin": origin}, body={"max_tokens": 1})
        assert r.status_code == 200 and r.headers.get("access-control-allow-origin") == (page if origin == page else None)


@pytest.mark.parametrize("dialect, origins, allows", [
    ("vllm", None, True), ("vllm", [], False), ("vllm", ["https://chat.example"], False),
    ("headrace", None, False), ("infinilm", None, False)])
def test_whom_a_dialect_lets_read(engine, router, dialect, origins, allows):
    """vLLM's router allows any origin until it is told some; InfiniLM's lets the engine answer."""
    more = {} if origins is None else {"cors_origins": origins}
    front = router([engine(["m"])], "--dialect", dialect, router={"host": "127.0.0.1"} | more)
    asked = {"origin": "https://any.example", "access-control-request-method": "POST",
             "access-control-request-headers": "authorization,content-type"}
    with http() as client:
        r = client.options(f"{front.url}/v1/chat/completions", headers=asked)
    fields = {name for name in r.headers if name.startswith("access-control-")}
    if allows:
        assert r.status_code == 204 and r.headers["access-control-allow-origin"] == "*"
        assert r.headers["access-control-allow-headers"] == "authorization,content-type"
        assert fields == {f"access-control-{what}" for what in ("allow-origin", "allow-methods", "allow-headers", "max-age")}
    else:
        assert r.status_code == (204 if origins else 405) and not fields
    r = front.chat(headers={"origin": "https://any.example"}, body={"max_tokens": 1})
    assert r.status_code == 200 and r.headers.get("access-control-allow-origin") == ("*" if allows else None)


def test_a_configuration_with_a_mistake_tells_no_key(tmp_path):

    keys = tmp_path / "keys"
    keys.write_text(f"a {KEY}\nb {KEY}\n{OTHER}\n")
    config = tmp_path / "router.toml"
    config.write_text(f'auth.keys_file = "{keys}"\n[[tenant]]\nname = "a"\n[[tenant]]\nname = "b"\n')
    run = subprocess.run([BIN, "router", "--config", config, "--check"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert "line 2: this key is tenant a's already" in run.stderr and "line 3" in run.stderr
    assert KEY not in run.stdout + run.stderr
    config.write_text(f'[[tenant]]\nname = "a"\nkeys = ["{digest(KEY)}"]\n')
    run = subprocess.run([BIN, "router", "--config", config, "--check"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0


def test_keys_are_not_in_the_environment_of_the_process(engine, guarded):
    front = guarded([engine(["m"])])
    with open(f"/proc/{front.pid}/environ", "rb") as environ:
        assert KEY.encode() not in environ.read()
    assert front.get("/v1/models", headers=bearer(OTHER)).status_code == 200
