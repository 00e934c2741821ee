"""What vLLM's router and SGLang's gateway say of their engines, or have done by them: caches, loads, health, descriptions;
and what they relay."""
import pytest

from fakeworker import answer
from program import chat_body, eventually, raw_request
from workerapi import call, register


# --- caches, loads, questions to engines --------------------------------------------------------------------


def serving(**paths):
    """A script: 200 for each POST of these paths with what it says, a model list, else 404."""
    def script(peer):
        while request := peer.request():
            method, path = request[0].decode().split(" ")[:2]
            name = path.partition("?")[0].lstrip("/").replace("/", "_")
            if name in paths:
                peer.send(answer(*paths[name]))
            elif path == "/v1/models":
                peer.send(answer(b'{"object":"list","data":[{"id":"m"}]}'))
            elif path == "/health":
                peer.send(answer())
            else:
                peer.send(answer(b'{"detail":"Not Found"}', b"404 Not Found"))
    return script


@pytest.fixture
def engines_that(fake, vllm):
    """-> fakes of these scripts, and a router before them"""
    def begin(*scripts, **how):
        fakes = [fake(script, declared=()) for script in scripts]
        return (*fakes, vllm(fakes, **how))
    return begin


def asked(worker, start):
    return [head for head, _ in worker.requests if head.startswith(start)]


def test_caches_are_flushed_once_for_each_server(engines_that):
    sglang, other, front = engines_that(serving(flush_cache=()), serving(reset_prefix_cache=()))
    register(front, sglang.url + "@1")
    done = front.post("/flush_cache")
    assert done.status_code == 200 and sorted(done.json()["successful"]) == sorted([sglang.url, other.url])
    assert (done.json()["failed"], done.json()["total_workers"]) == ([], 2)
    assert len(asked(sglang, b"POST /flush_cache")) == 1 and len(asked(other, b"POST /reset_prefix_cache")) == 1


def test_a_cache_that_is_not_flushed_is_said(engines_that):
    good, bad, front = engines_that(serving(flush_cache=()), serving())
    done = front.post("/flush_cache")
    assert done.status_code == 500 and done.json()["successful"] == [good.url]
    assert done.json()["failed"] == [{"url": bad.url, "error": "status 404"}] and done.json()["message"]


def test_what_was_known_of_a_flushed_cache_is_forgotten(engines_that):
    worker, front = engines_that(serving(flush_cache=(), v1_chat_completions=()), policy={"default": "cache_aware"},
                                 explain={"headers": True})
    body = chat_body() | {"messages": [{"role": "user", "content": "word " * 4000}]}

    def hit():
        return int(front.post("/v1/chat/completions", json=body).headers["x-headrace-cache-hit"].rstrip("%"))
    assert hit() == 0 and hit() > 50
    assert front.post("/flush_cache").status_code == 200
    assert hit() == 0


def test_loads_are_shown(vllm, engine):
    e = engine("m")
    front = vllm([e], discovery={"scrape": "100ms"})
    for path in ("/get_loads", "/get_load", "/load"):
        load = eventually(lambda: (w := front.get(path).json()["workers"][0])["running"] is not None and w)
        assert load == {"worker": e.url, "load": 0, "in_flight": 0, "running": 0, "waiting": 0}


def test_loads_count_what_is_in_flight(vllm, engine):
    e = engine("m", "--fault", "hang_head")
    front = vllm([e], discovery={"scrape": "off"})
    s = front.connect()
    s.sendall(raw_request(chat_body()))
    eventually(lambda: front.get("/get_loads").json()["workers"][0]
               == {"worker": e.url, "load": 1, "in_flight": 1, "running": None, "waiting": None})
    s.close()


def test_info_is_the_engines(engines_that):
    _, front = engines_that(serving(get_server_info=(b'{"dp_size": 8}',), get_model_info=(b'{"model_path": "/x"}',), health_generate=(b"",)))
    assert front.get("/get_server_info").json() == {"dp_size": 8}
    assert front.get("/get_model_info").json() == {"model_path": "/x"}
    assert (front.get("/health_generate").status_code, front.get("/health_generate").text) == (200, "")


def test_info_is_made_of_what_is_known_where_the_engine_has_none(engines_that):
    _, front = engines_that(serving(), labels=[{"dp_size": "4"}])
    for path in ("/get_server_info", "/get_model_info"):
        assert front.get(path).json() == {"model_path": "m", "model_id": "m", "models": ["m"], "is_generation": True, "dp_size": 4,
                                          "worker_count": 4}


def test_health_by_generation(engines_that):
    worker, front = engines_that(serving(v1_chat_completions=(b'{"choices": []}',)))
    assert (front.get("/health_generate").status_code, front.get("/health_generate").text) == (200, "OK")
    assert asked(worker, b"POST /v1/completions") and asked(worker, b"POST /v1/chat/completions")


def test_health_by_generation_of_what_generates_nothing(engines_that):
    sick, front = engines_that(serving(v1_completions=(b'{"error": {}}', b"500 Oh")))
    assert front.get("/health_generate").status_code == 500
    _, front = engines_that(serving())
    assert front.get("/health_generate").status_code == 503


def ask_for_health(front):
    """-> a connection over which it is asked for"""
    s = front.connect()
    s.sendall(b"GET /health_generate HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return s


def test_who_leaves_ends_the_engines_work_and_frees_his_place(fake, vllm):
    """The client that was first and stays has no answer yet when the others' questions have ended."""
    ended = []

    def script(peer):
        while request := peer.request():
            if request[0].startswith(b"GET /health_generate"):
                peer.wait_for_end()
                return ended.append(peer)
            peer.send(answer(b'{"object":"list","data":[{"id":"m"}]}'))
    worker = fake(script, declared=())
    front = vllm([worker])
    stays = ask_for_health(front)
    for n in (63, 126):                                               # 64 of a kind may wait
        leave = [ask_for_health(front) for _ in range(63)]
        eventually(lambda: len(asked(worker, b"GET /health_generate")) == 1 + n)
        for s in leave:
            s.close()
        eventually(lambda: len(ended) == n)
    stays.setblocking(False)
    with pytest.raises(BlockingIOError):
        stays.recv(1)
    stays.close()
    eventually(lambda: len(ended) == 127)


def test_questions_without_an_engine(vllm):
    front = vllm()
    for path in ("/get_server_info", "/get_model_info", "/health_generate"):
        assert front.get(path).json()["error"]["code"] == "no_healthy_instance"
    diagnosis = front.get("/scheduling/diagnostics")
    assert diagnosis.status_code == 404 and diagnosis.json()["enabled"] is False and diagnosis.json()["error"]


def test_health_is_that_of_all(vllm, engine):
    a, b = engine("m"), engine("m")
    front = vllm([a, b], labels=[{"role": "prefill"}, {"role": "decode"}], health={"interval": "100ms"})
    assert (front.get("/health").status_code, front.get("/health").text) == (200, "OK")
    b.fault("health:fail")
    eventually(lambda: front.get("/health").status_code == 503)
    assert front.get("/health").text == f"Unhealthy workers: Decode: {b.url}"
    assert front.get("/status").json()["healthy_services"] == "1/2"


def test_health_of_nobody(vllm):
    assert vllm().get("/health").status_code == 503


# --- pairs --------------------------------------------------------------------------------------------------------


def halves(**prefill):
    """-> arguments of engines_that for one that prefills and one that decodes, neither with routes for its health"""
    return (serving(**prefill), serving(v1_completions=())), {"labels": [{"role": "prefill"}, {"role": "decode"}]}


def test_both_halves_are_asked_for_their_health(engines_that):
    scripts, how = halves(health_generate=(b"",))
    first, second, front = engines_that(*scripts, **how)
    reply = front.get("/health_generate")
    assert (reply.status_code, reply.text) == (200, "OK") and len(asked(first, b"GET /health_generate")) == 1
    lines = [head.partition(b" HTTP")[0] for head, _ in second.requests]
    assert b"GET /health" in lines[lines.index(b"GET /health_generate"):]
    assert not asked(second, b"POST")       # no half of a pair is made to generate


def test_one_half_that_is_not_well_is_enough(engines_that):
    scripts, how = halves(health_generate=(b'{"detail": "ill"}', b"500 Oh"))
    _, second, front = engines_that(*scripts, **how)
    assert (front.get("/health_generate").status_code, front.get("/health_generate").json()) == (500, {"detail": "ill"})
    assert not asked(second, b"GET /health_generate")


def test_info_of_pairs_is_that_of_who_prefills(engines_that):
    first, second, front = engines_that(serving(), serving(get_server_info=(b'{"dp_size": 8}',)),
                                        labels=[{"role": "decode"}, {"role": "prefill"}])
    assert front.get("/get_server_info").json() == {"dp_size": 8} and not asked(first, b"GET /get_server_info")


def test_who_prefills_alone_is_no_router(vllm, engine):
    prefill, decode = engine("m"), engine("m")
    front = vllm()
    register(front, prefill, worker_type="prefill")
    for path, said in ("/health", "No pair of a prefill and a decode worker"), ("/readiness", "no pair of a prefill and a decode instance"):
        reply = front.get(path)
        assert reply.status_code == 503 and said in reply.text
    register(front, decode, worker_type="decode")
    assert front.get("/health").text == "OK" and front.get("/readiness").status_code == 200
    assert front.chat().status_code == 200


# --- what is relayed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/embeddings", "/generate", "/inference/v1/generate", "/tokenize",
                                  "/detokenize", "/v1/messages", "/pooling", "/score"])
def test_bytes_query_and_headers_go_on_unchanged(engines_that, path):
    worker, front = engines_that(serving(**{path[1:].replace("/", "_"): (b'[{"score": 1}]',)}))
    body = b'{"b": 1.10, "a" :null,"model": "m",  "input":"x", "x": "\\u00e9"}'
    reply = front.post(path + "?q=a%20b&q=c", content=body, headers={"content-type": "application/json", "x-mine": "7"})
    assert reply.status_code == 200 and reply.content == b'[{"score": 1}]'
    head, sent = next((h, b) for h, b in worker.requests if h.startswith(b"POST " + path.encode()))
    assert sent == body and head.startswith(f"POST {path}?q=a%20b&q=c HTTP/1.1".encode()) and b"x-mine: 7" in head.lower()


def test_stored_responses_stay_with_their_maker(vllm, engine):
    front = vllm([engine("m"), engine("m"), engine("m")])
    ids = [front.post("/v1/responses", json={"model": "m", "input": "hello", "store": True}).json()["id"] for _ in range(6)]
    for i in ids:
        assert front.get(f"/v1/responses/{i}").status_code == 200
        assert call(front, "DELETE", f"/v1/responses/{i}").status_code == 200


