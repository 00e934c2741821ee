"""Which engine a request goes to, and in what shape it arrives there."""
import json
import socket
from collections import Counter

import pytest

from fakeworker import answer
from program import PROMPT, chat_body, eventually, http, raw_request, read_to_end


def served(engines):
    return [e.count("started") for e in engines]


def echo(peer):
    """Answers with the request itself."""
    while request := peer.request():
        peer.send(answer(json.dumps([part.decode("latin-1") for part in request]).encode()))


@pytest.fixture
def mirror(fake, router):
    """A router whose only engine answers with the head and the body that it received."""
    return router([fake(echo)])


def test_a_model_goes_only_where_it_is_served(engine, router):
    engines = [engine(["a"]), engine(["a", "b"]), engine(["b"])]
    front = router(engines)
    for _ in range(12):
        assert front.chat("a").json()["model"] == "a"
    only_a = served(engines)
    assert only_a[2] == 0 and only_a[0] > 0 and only_a[1] > 0 and sum(only_a) == 12
    for _ in range(12):
        assert front.chat("b").json()["model"] == "b"
    assert served(engines)[0] == only_a[0] and sum(served(engines)) == 24


def shares(front, engines, n):
    """How n requests were shared out, after a few: the turns may start anew while the fleet is still being found."""
    with http(base_url=front.url) as client:
        for i in range(8 + n):
            if i == 8:
                before = served(engines)
            assert client.post("/v1/chat/completions", json=chat_body()).status_code == 200
    return [now - then for now, then in zip(served(engines), before)]


def test_round_robin_is_even(engine, router):
    engines = [engine(["m"]) for _ in range(3)]
    front = router(engines, router={"threads": 1})
    assert shares(front, engines, 30) == [10, 10, 10]


def test_round_robin_keeps_to_the_weights(engine, router):
    engines = [engine(["m"]) for _ in range(2)]
    front = router(engines, weights=[3, 1], router={"threads": 1})
    assert shares(front, engines, 40) == [30, 10]


def test_least_load_avoids_the_busy_engine(engine, router):
    engines = [engine(["m"]) for _ in range(2)]
    front = router(engines, policy={"default": "least_load"}, router={"threads": 1}, health={"slow_start": "0s"})
    eventually(lambda: [s["status"] for s in front.get("/services").json()["services"]] == ["ready"] * 2)   # else: few
    with http() as client, client.stream("POST", front.url + "/v1/chat/completions",
                                         json=chat_body(stream=True, max_tokens=100000)) as stream:
        lines = stream.iter_lines()
        next(lines)
        busy = served(engines).index(1)
        for n in range(1, 11):
            assert front.chat().status_code == 200
            front.log(n)        # its load is released
    assert served(engines)[busy] == 1 and sum(served(engines)) == 11


@pytest.mark.parametrize("policy", ["round_robin", "least_load", "least_connections", "power_of_two", "random",
                                    "weighted_random", "rendezvous_hash", "session"])
def test_every_policy_uses_every_engine(engine, router, policy):
    engines = [engine(["m"]) for _ in range(3)]
    front = router(engines, policy={"default": policy})
    assert {front.chat().status_code for _ in range(60)} == {200}
    assert min(served(engines)) > 0


def test_a_session_stays_with_its_engine_in_every_router(engine, router):
    """Also when its key comes at the end of a large body; and no longer than its engine lives."""
    engines = [engine(["m"]) for _ in range(3)]
    # One thread each: what it says of the fleet is what it picks from, and no other one learns of it later.
    fronts = [router(engines, policy={"default": "rendezvous_hash"}, router={"threads": 1}) for _ in range(2)]
    for front in fronts:
        eventually(lambda: [s["status"] for s in front.get("/services").json()["services"]] == ["ready"] * 3)

    def ask(session, n=2, **more):
        """-> the engines that answered."""
        before = served(engines)
        for i in range(n):
            assert fronts[i % 2].chat(body=more | {"prompt_cache_key": session}).status_code == 200
        return {e for e, was, now in zip(engines, before, served(engines)) if now > was}
    homes = {f"s{i}": ask(f"s{i}") for i in range(36)}      # an engine without any: one run in a million
    assert all(len(home) == 1 for home in homes.values())
    assert set.union(*homes.values()) == set(engines)
    assert ask("s0", pad="x" * 300_000) == homes["s0"]
    home, = homes["s0"]
    home.kill()
    engines.remove(home)
    assert len(ask("s0")) == 1
    assert all(ask(session) == there for session, there in homes.items() if there != {home})


def test_sessions_are_shared_by_all_threads_until_they_are_finished(engine, router):
    engines = [engine(["m"]) for _ in range(3)]
    front = router(engines, policy={"default": "session"}, router={"threads": 2})
    eventually(lambda: [s["status"] for s in front.get("/services").json()["services"]] == ["ready"] * 3)

    def ask(session):
        before = served(engines)
        assert front.chat(headers={"x-session-id": session}).status_code == 200
        return [now - then for now, then in zip(served(engines), before)].index(1)
    homes = {f"a b/{i}": ask(f"a b/{i}") for i in range(12)}
    assert sorted(Counter(homes.values()).values()) == [4, 4, 4]
    for _ in range(3):
        assert {session: ask(session) for session in homes} == homes

    def finish(query):
        done = http().post(front.url + "/finish_session" + query)
        return done.status_code, done.json().get("ended")
    ended = [session for session, home in homes.items() if home == 1]
    assert [finish("?x=1&session_id=a%20b%2F" + session[4:]) for session in ended] == [(200, True)] * 4
    assert finish("?session_id=a%20b%2F" + ended[0][4:]) == (200, False)
    assert finish("")[0] == finish("?session_id=")[0] == finish("?session_id=%4")[0] == finish("?session=a")[0] == 400
    assert [ask(f"new {i}") for i in range(4)] == [1] * 4        # where there is room now


def test_without_a_model_any_engine_may_serve(engine, router):
    engines = [engine(["a"]), engine(["b"])]
    front = router(engines, router={"threads": 1})
    assert {front.get("/version").status_code for _ in range(4)} == {200}
    ids = [request["path"] for e in engines for request in e.captured()["requests"]]
    assert Counter(ids)["/version"] == 4


@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_the_model_is_seen_however_the_request_is_cut(engine, router, pieces):
    """Also where there is but one model: what is logged, counted and refused does not depend on the network."""
    front = router([engine(["m"])], router={"threads": 1})
    for model, status in (("m", b"200"), ("no such", b"404")):
        request = raw_request(chat_body(model), headers="Connection: close\r\n")
        head = request.index(b"\r\n\r\n") + 4
        with front.connect() as s:
            for piece in [request] if pieces == 1 else [request[:head], *cut(request[head:], pieces - 1)]:
                s.sendall(piece)
            assert read_to_end(s)[0].split()[1] == status
    good, bad = front.log(2)
    assert good["model"] == "m" and bad["cause"] == "model_not_found"


def cut(data, n):
    return [data[i * len(data) // n:(i + 1) * len(data) // n] for i in range(n)]


@pytest.mark.parametrize("spelling", ['"b"', r'"\u0062"'])
def test_the_model_may_come_last_and_be_escaped(engine, router, spelling):
    engines = [engine(["a"]), engine(["b"])]
    front = router(engines)
    messages = json.dumps([{"role": "user", "content": 'say "model": "a" ' * 20000}])
    body = f'{{"messages": {messages}, "x": {{"model": "a"}}, "model" : {spelling}}}'
    reply = front.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 200 and served(engines) == [0, 1]


def test_the_body_arrives_byte_for_byte(mirror):
    body = '{ "model":"m" ,\n "messages":[], "x": 1e400, "ü": "\\u00fc", "x": 2 }\n'.encode()
    assert mirror.post("/v1/chat/completions", content=body).json()[1].encode("latin-1") == body


@pytest.mark.parametrize("target", ["/v1/chat/completions?a=1&b=%20&&c", "/odd//path/%2e%2E/x?", "/%e4?q=\xe9"])
def test_the_target_arrives_as_it_came(mirror, target):
    with mirror.connect() as s:
        s.sendall(raw_request(chat_body(), target, headers="Connection: close\r\n"))
        head, _, body = read_to_end(s)[0].partition(b"\r\n\r\n")
    assert json.loads(body)[0].startswith(f"POST {target} HTTP/1.1\r\n"), head


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "M-SEARCH"])
def test_every_method_is_relayed(mirror, method):
    with http() as client:
        assert client.request(method, mirror.url + "/any").json()[0].startswith(f"{method} /any HTTP/1.1\r\n")


def head_seen(router, **headers):
    head = router.post("/v1/chat/completions", json=chat_body(),
                       headers={k.replace("_", "-"): v for k, v in headers.items()}).json()[0]
    return dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])


def test_headers_between_two_hops(mirror):
    seen = head_seen(mirror, connection="keep-alive, x-mine", x_mine="1", keep_alive="timeout=5", te="trailers",
                     upgrade="h2c", authorization="Bearer of-the-client", x_forwarded_for="192.0.2.7")
    assert not {"x-mine", "keep-alive", "upgrade", "proxy-connection"} & seen.keys()
    assert seen["x-forwarded-for"] == "192.0.2.7, 127.0.0.1"
    assert seen["authorization"] == "bearer of-the-client"
    assert seen["x-forwarded-host"] == f"127.0.0.1:{mirror.port}"
    assert seen["host"] != seen["x-forwarded-host"]


@pytest.mark.parametrize("name", ["x-request-id", "x-correlation-id", "x-trace-id", "request-id"])
def test_a_good_request_id_is_kept(mirror, name):
    reply = mirror.post("/v1/chat/completions", json=chat_body(), headers={name: "a.B-9_z"})
    assert "a.B-9_z" in reply.json()[0] and reply.headers["x-request-id"] == "a.B-9_z"


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "x" * 129, '"'])
def test_another_request_id_is_replaced(mirror, bad):
    reply = mirror.post("/v1/chat/completions", json=chat_body(), headers={"x-request-id": bad})
    made = reply.headers["x-request-id"]
    assert made != bad and 1 <= len(made) <= 128
    assert f"x-request-id: {made}".lower() in reply.json()[0].lower()


def test_models_are_joined_sorted_and_whole(engine, router):
    engines = [engine(["b", "c"]), engine(["a", "b"])]
    front = router(engines)
    for path in ("/v1/models", "/models"):
        listed = front.get(path).json()
        assert listed["object"] == "list" and [m["id"] for m in listed["data"]] == ["a", "b", "c"]
    own = {m["id"]: m for e in engines for m in e.get("/v1/models").json()["data"]}
    for model in listed["data"]:
        assert model.keys() == own[model["id"]].keys() and model["owned_by"] == "vllm"


def test_shapes_of_the_local_endpoints(engine, router):
    front = router([engine(["a"]), engine(["b"])])
    assert front.get("/liveness").json() == {"status": "alive"}
    assert front.get("/readiness").json() == {"status": "ready", "healthy_workers": 2, "total_workers": 2}
    health = front.get("/health").json()
    assert health["status"] == "healthy" and health["router"] == "running" and health["healthy_services"] == "2/2"
    assert health["registry_url"] is None and health["message"] is None and isinstance(health["timestamp"], int)
    services = front.get("/services").json()
    assert services["total"] == 2 and services["registry_url"] is None
    info = {"name", "host", "port", "url", "babysitter_url", "healthy", "request_count", "error_count",
            "response_time", "weight", "models", "metadata"}
    assert all(info <= service.keys() for service in services["services"])
    assert sorted(m for service in services["services"] for m in service["models"]) == ["a", "b"]
    stats = front.get("/stats").json()
    assert stats["total_services"] == stats["healthy_services"] == 2 and len(stats["services"]) == 2


def test_shapes_without_any_engine(router):
    front = router([], ready=0)
    eventually(lambda: front.get("/liveness").status_code == 200)
    ready = front.get("/readiness")
    assert ready.status_code == 503 and ready.json()["status"] == "not_ready"
    assert ready.json()["total_workers"] == 0 and ready.json()["reason"]
    health = front.get("/health")
    assert health.status_code == 200 and health.json()["status"] == "running"
    assert health.json()["message"] == "No healthy services available"
    assert front.get("/models").json() == {"object": "list", "data": []}


def test_local_endpoints_answer_head(engine, router):
    front = router([engine(["a"])])
    with http() as client:
        for path in ("/health", "/liveness", "/readiness", "/models", "/services", "/stats"):
            reply = client.head(front.url + path)
            assert reply.status_code == 200 and reply.content == b""


def test_a_new_model_is_discovered(engine, router):
    first = engine(["old"])
    front = router([first])
    assert front.chat("new").status_code == 404
    first.restart(["new"])
    eventually(lambda: front.chat("new").status_code == 200)
    assert front.chat("old").status_code == 404


def test_declared_models_are_believed(fake, router):
    worker = fake(echo, declared=["d"])
    front = router([worker])
    assert front.chat("d").status_code == 200
    assert [head.split()[1] for head, _ in worker.requests] == [b"/v1/chat/completions"]


def test_a_name_with_two_addresses_one_of_them_dead(engine, router):
    try:
        addresses = {a[4][0] for a in socket.getaddrinfo("localhost", 80)}
    except OSError:
        addresses = set()
    if len(addresses) < 2:
        pytest.skip("localhost does not have two addresses here")
    worker = engine(["m"])
    front = router([f"http://localhost:{worker.port}"])
    assert {front.chat().status_code for _ in range(5)} == {200}


def test_an_engine_on_ipv6(engine, router):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    worker = engine(["m"], host="::1")
    assert PROMPT not in router([worker]).chat().text
