"""The worker API of vLLM's router and SGLang's gateway: engines come, go and change while the router runs, are shown, and
are still there after a restart."""
import hashlib
import json
import os
import re
import socket
import subprocess
import threading
from collections import Counter
from urllib.parse import quote

import pytest

from fakeworker import answer
from ports import free_port
from program import BIN, KEY, Engine, Router, chat_body, eventually, hard_close, http, raw_request, read_to_end
from upgrading import UpgradableRouter
from workerapi import call, register, workers

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def keys_at(engine):
    """-> the values of Authorization that it got"""
    return {value for r in engine.captured()["requests"] for name, value in r["headers"] if name.lower() == "authorization"}


def chats(front, n, model="m"):
    return [front.chat(model).status_code for _ in range(n)]


# --- one comes, and goes ------------------------------------------------------------------------


def test_add_worker_waits_until_requests_may_come(vllm, engine):
    front, e = vllm(), engine("m")
    reply = front.post("/add_worker", params={"url": e.url})
    assert (reply.status_code, reply.text) == (200, f"Successfully added worker: {e.url}")
    assert chats(front, 4) == [200] * 4
    assert front.get("/list_workers").json() == {"urls": [e.url]}


def test_add_worker_waits_for_an_engine_that_is_not_up_yet(vllm, start):
    front, port = vllm(), free_port()
    with http() as client:
        replies = []
        asking = threading.Thread(target=lambda: replies.append(
            client.post(f"{front.url}/add_worker", params={"url": f"http://127.0.0.1:{port}"})))
        asking.start()
        eventually(lambda: "error" in workers(front).get(f"http://127.0.0.1:{port}", {}).get("job_status", {}))
        assert not replies
        start(Engine, ["m"], port=port)
        asking.join(60)
    assert replies[0].status_code == 200 and chats(front, 2) == [200, 200]


def test_add_worker_says_why_not(vllm, engine):
    e = engine("m")
    front = vllm([e], router={"worker_startup_timeout": "1s"})
    twice = front.post("/add_worker", params={"url": e.url})
    assert (twice.status_code, twice.text) == (400, f"Failed to add worker {e.url}: it is there already")
    silent = f"http://127.0.0.1:{free_port()}"
    late = front.post("/add_worker", params={"url": silent})
    assert late.status_code == 400 and late.text.startswith(f"Failed to add worker {silent}: its health: ")
    assert front.post("/add_worker").status_code == 400
    assert front.post("/add_worker", params={"url": "ftp://x"}).status_code == 400
    assert workers(front)[silent]["job_status"]["status"] == "failed"


def test_remove_worker_is_always_200(vllm, engine):
    front, a, b = vllm(), engine("m"), engine("m")
    for e in (a, b):
        register(front, e)
    assert front.post("/remove_worker", params={"url": a.url}).text == f"Successfully removed worker: {a.url}"
    again = front.post("/remove_worker", params={"url": a.url})
    assert (again.status_code, again.text) == (200, f"Worker {a.url} is not there")
    before = a.count("finished")
    assert chats(front, 6) == [200] * 6 and a.count("finished") == before
    assert front.post("/remove_worker").status_code == 400


@pytest.fixture
def slow(fake):
    """-> a worker that answers no request before it may, and that"""
    may_end = threading.Event()

    def script(peer):
        while request := peer.request():
            if request[0].startswith(b"POST"):
                assert may_end.wait(60)
            peer.send(answer(b'{"object":"list","data":[{"id":"m"}]}' if b"/v1/models" in request[0] else b"{}"))
    yield fake(script, declared=()), may_end
    may_end.set()


def begin_chat(front):
    """-> the client's connection; a worker has the request"""
    s = front.connect()
    s.sendall(raw_request(chat_body()))
    eventually(lambda: front.get("/workers").json()["stats"]["total_load"] == 1)
    return s


def end_chat(s, may_end):
    may_end.set()
    assert read_to_end(s, b"\r\n\r\n")[0].startswith(b"HTTP/1.1 200")


REMOVAL = {"status": "processing", "job_type": "RemoveWorker"}


def test_requests_in_flight_end_when_their_worker_is_removed(vllm, slow):
    front, (worker, may_end) = vllm(health={"passive": False}), slow
    register(front, worker, labels={"zone": "eu"})
    s, path = begin_chat(front), "/workers/" + quote(worker.url, safe="")
    for _ in range(2):
        reply = call(front, "DELETE", path)
        body = reply.json()
        assert reply.status_code == 202 and body["status"] == "accepted" and body["success"] is True and body["message"]
        assert body["location"] == "/workers/" + body["worker_id"] and body["job_id"] and body["worker"]["job_status"] == REMOVAL
        shown = front.get(body["location"]).json()
        assert shown["url"] == worker.url and shown["job_status"] == REMOVAL and shown["labels"] == {"zone": "eu"}
        assert (shown["load"], shown["is_healthy"], shown["state"]) == (1, False, "draining")
        assert front.get("/workers").json()["workers"] == [shown]
    assert front.get("/list_workers").json() == {"urls": []} and front.chat().status_code in (404, 503)
    end_chat(s, may_end)
    eventually(lambda: front.get(path).status_code == 404)
    assert workers(front) == {} and call(front, "DELETE", path).status_code == 404


def test_a_removal_is_shown_for_the_drain_time_at_most(vllm, slow):
    front, (worker, may_end) = vllm(health={"passive": False}, timeout={"drain": "1s"}), slow
    register(front, worker)
    s = begin_chat(front)
    assert front.post("/remove_worker", params={"url": worker.url}).text == f"Successfully removed worker: {worker.url}"
    eventually(lambda: not workers(front))
    end_chat(s, may_end)


@pytest.mark.parametrize("kind", ["whole", "each"])
def test_ranks_are_removed_as_one(vllm, slow, kind):
    """A request is at one of them."""
    front, (worker, may_end) = vllm(health={"passive": False}), slow
    for url in [worker.url] if kind == "whole" else [f"{worker.url}@{k}" for k in range(3)]:
        register(front, url, **{"dp_size": 3} if kind == "whole" else {})
    s = begin_chat(front)
    reply = call(front, "DELETE", "/workers/" + worker.url)
    assert reply.status_code == 202 and reply.json()["worker"]["url"] == worker.url
    assert [w["job_status"] for w in workers(front).values()] == [REMOVAL]
    shown = front.get("/workers/" + worker.url).json()
    assert (shown["url"], shown["load"], shown["job_status"]) == (worker.url, 1, REMOVAL)
    end_chat(s, may_end)
    eventually(lambda: not workers(front))


def test_one_of_the_configuration_is_shown_while_its_requests_last(vllm, slow):
    worker, may_end = slow
    front = vllm([worker], health={"passive": False})
    s = begin_chat(front)
    assert front.post("/remove_worker", params={"url": worker.url}).status_code == 200
    assert (w := workers(front)[worker.url])["job_status"] == REMOVAL and w["source"] == "static"
    end_chat(s, may_end)
    eventually(lambda: not workers(front))


def test_who_is_registered_again_is_not_shown_as_removed(vllm, slow):
    front, (worker, may_end) = vllm(health={"passive": False}), slow
    register(front, worker)
    s = begin_chat(front)
    assert call(front, "DELETE", "/workers/" + worker.url).status_code == 202
    register(front, worker)
    shown = workers(front)[worker.url]
    assert front.get("/workers").json()["total"] == 1 and (shown["job_status"]["status"], shown["load"]) == ("done", 0)
    end_chat(s, may_end)


# --- what is registered -----------------------------------------------------------------------------


def test_a_job_is_accepted_and_then_done(vllm, engine):
    front, e = vllm(), engine("m")
    reply = front.post("/workers", json={"url": e.url, "tokenizer_path": "/t", "reasoning_parser": None})
    body = reply.json()
    assert reply.status_code == 202 and body["status"] == "accepted" and body["success"] is True and body["message"]
    assert UUID.fullmatch(body["worker_id"]) and body["location"] == "/workers/" + body["worker_id"] and body["job_id"]
    assert body["worker"]["url"] == e.url and body["worker"]["job_status"]["status"] in ("pending", "processing")
    done = eventually(lambda: (w := front.get(body["location"]).json())["job_status"]["status"] == "done" and w)
    assert done["id"] == body["worker_id"] and done["is_healthy"] and done["model_id"] == "m"
    assert done["tokenizer_path"] == "/t" and "reasoning_parser" not in done


def test_all_that_is_given_is_shown(vllm, engine):
    front, e = vllm(), engine("m")
    register(front, e, model_id="mine", models=["mine", "lora"], priority=70, cost=0.25, worker_type="prefill",
             bootstrap_port="8998", labels={"zone": "eu", "role": "decode", "policy": "round_robin"}, api_key=KEY)
    listed = front.get("/workers").json()
    w = listed["workers"][0]
    assert (w["model_id"], w["models"], w["priority"], w["cost"]) == ("mine", ["mine", "lora"], 70, 0.25)
    assert (w["worker_type"], w["bootstrap_port"], w["policy"], w["source"]) == ("prefill", 8998, "round_robin", "api")
    assert w["labels"] == w["metadata"] == {"role": "prefill", "bootstrap_port": "8998", "priority": "70", "cost": "0.25",
                                            "zone": "eu", "policy": "round_robin"}
    assert (w["connection_mode"], w["load"], w["is_healthy"]) == ("http", 0, True)
    assert listed["total"] == 1 and listed["stats"] == {
        "prefill_count": 1, "decode_count": 0, "regular_count": 0, "total_workers": 1, "healthy_workers": 1, "total_models": 2,
        "total_load": 0, "by_type": {"regular": 0, "prefill": 1, "decode": 0}}
    assert KEY not in front.get("/workers").text
    front.chat("mine")
    assert keys_at(e) == {f"Bearer {KEY}"}


def test_workers_of_the_configuration_are_listed_too(vllm, engine):
    e = engine("m")
    front = vllm([e], labels=[{"role": "decode", "priority": "9"}])
    w = workers(front)[e.url]
    assert (w["source"], w["worker_type"], w["priority"], w["cost"], w["model_id"]) == ("static", "decode", 9, 1.0, "m")
    assert "job_status" not in w


def test_a_priority_has_the_whole_range_of_the_old_router(vllm, engine, start, tmp_path):
    a, b, front = engine("m"), engine("m"), vllm(router={"state_dir": str(tmp_path)})
    register(front, a, priority=4294967294)
    register(front, b, priority=4294967295)

    def check(front):
        shown = [(w["priority"], w["labels"]["priority"]) for w in workers(front).values()]
        before = b.count("finished")
        assert shown == [(4294967294, "4294967294"), (4294967295, "4294967295")]
        assert chats(front, 4) == [200] * 4 and b.count("finished") == before + 4
    check(front)
    front.kill()
    check(start(Router, [], ready=2, router={"dialect": "vllm", "state_dir": str(tmp_path)}))


@pytest.mark.parametrize("body, status", [
    (b"{", 400), (b"[]", 400), (b"{}", 400), (b'{"url": 7}', 400), (b'{"url": "ftp://h:1"}', 400), (b'{"url": "http://h:1/?q"}', 400),
    (b'{"url": "http://0.0.0.0:1"}', 400), (b'{"url": "http://h:1@x"}', 400), (b'{"url": "http://h:1@65536"}', 400),
    (b'{"url": "http://h:1/path"}', 422), (b'{"url": "http://h:1", "dp_size": 1025}', 422), (b'{"url": "http://h:1", "dp_size": "x"}', 422),
    (b'{"url": "http://h:1", "worker_type": "other"}', 422), (b'{"url": "http://h:1", "priority": -1}', 422),
    (b'{"url": "http://h:1", "priority": 4294967296}', 422), (b'{"url": "http://h:1", "cost": 1000000001}', 422),
    (b'{"url": "http://h:1", "priority": "1"}', 422), (b'{"url": "http://h:1", "cost": "1"}', 422),
    (b'{"url": "http://h:1", "bootstrap_port": 0}', 422), (b'{"url": "http://h:1", "bootstrap_port": "65536"}', 422),
    (b'{"url": "http://h:1", "labels": {"a": 1}}', 422), (b'{"url": "http://h:1", "labels": []}', 422),
    (b'{"url": "http://h:1", "api_key": "a b"}', 422), (b'{"url": "http://h:1", "models": [""]}', 422),
    (b'{"url": "http://h:1", "model_id": "%s"}' % (b"m" * 257), 422),
    (b'{"url": "http://h:1", "labels": {%s}}' % b",".join(b'"%d": ""' % i for i in range(49)), 422),
])
def test_what_makes_no_sense_is_refused(vllm, body, status):
    front = vllm()
    reply = front.post("/workers", content=body)
    assert reply.status_code == status, reply.text
    assert reply.json()["code"] == reply.json()["error"]["code"] == "ADD_WORKER_FAILED" and reply.json()["error"]["message"]
    assert front.get("/workers").json()["total"] == 0


@pytest.mark.parametrize("body, status, why", [
    (b'{"url": "http://h:1", "url": "http://h:2"}', 400, "a member twice"), (b"null", 400, "is no object"), (b"[]", 400, "is no object"),
    (b'{"url": "http://h:1", "cost": 1e999}', 400, "a number that is too large"), (b'{"url": "http://h\\u0000:1"}', 400, "\\u0000"),
    (b'{"\\u0000": 1}', 400, "\\u0000"), (b"[" * 3000, 400, "nested too deeply"), (b'{"url": ', 400, "not valid JSON"), (b"", 400, "not valid JSON"),
    *[(b'{"url": "http://h:1", "connection_mode": %s}' % mode, 422, "there is no other") for mode in (b'"grpc"', b'{"grpc": {}}', b'"Grpc"')]])
def test_a_refusal_says_what_is_wrong(vllm, engine, body, status, why):
    front = vllm()
    reply = front.post("/workers", content=body)
    assert (reply.status_code, reply.json()["code"]) == (status, "ADD_WORKER_FAILED") and why in reply.json()["error"]["message"]
    made = register(front, engine("m"), connection_mode="Http")
    changed = call(front, "PUT", made["location"], content=body)
    assert changed.status_code in (400, 422) and changed.json()["code"] == "UPDATE_WORKER_FAILED" and why in changed.json()["error"]["message"]


def test_a_body_has_a_limit(vllm):
    front = vllm()
    assert front.post("/workers", content=b" " * 65536 + b"{}").status_code == 413

    def endless():
        for _ in range(65):
            yield b" " * 1024
    assert front.post("/workers", content=endless()).status_code == 413
    assert front.post("/workers", content=b" " * 65534 + b"{}").status_code == 400


def test_who_wants_to_be_asked_for_the_body_is_asked(vllm):
    front = vllm()
    s = front.connect()
    s.sendall(b"POST /workers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert read_to_end(s, b"\r\n\r\n")[0].startswith(b"HTTP/1.1 100 ")
    s.sendall(b"{}")
    assert read_to_end(s, b"\r\n\r\n")[0].startswith(b"HTTP/1.1 400 ")


def test_who_is_registered_is_not_registered_again(vllm, engine):
    front, e, late = vllm(), engine("m"), f"http://127.0.0.1:{free_port()}"
    register(front, e, api_key=KEY, labels={"zone": "eu"})
    assert front.post("/workers", json={"url": late}).status_code == 202
    for url in (e.url, e.url.upper().replace("HTTP", "http") + "/", late):
        again = front.post("/workers", json={"url": url})
        assert (again.status_code, again.json()["code"]) == (400, "ADD_WORKER_FAILED") and "already" in again.json()["error"]["message"]
        assert front.post("/add_worker", params={"url": url}).status_code == 400
    assert workers(front)[e.url]["labels"] == {"zone": "eu"} and len(workers(front)) == 2
    front.chat()
    assert keys_at(e) == {f"Bearer {KEY}"}


def test_who_has_failed_may_be_registered_again(vllm, start):
    front, port = vllm(router={"worker_startup_timeout": "1s"}), free_port()
    assert register(front, f"http://127.0.0.1:{port}")["worker_id"]
    start(Engine, ["m"], port=port)
    register(front, f"http://127.0.0.1:{port}")
    assert chats(front, 2) == [200, 200]


def test_a_registered_worker_takes_the_place_of_one_of_the_configuration(vllm, engine):
    a, b = engine("m"), engine("m")
    front = vllm([a, b])
    register(front, a, priority=7)
    eventually(lambda: workers(front)[a.url]["source"] == "api")
    assert len(workers(front)) == 2 and workers(front)[a.url]["priority"] == 7
    with http() as client:
        assert client.post(front.admin_url + "/reload").status_code == 200
    eventually(lambda: [i["source"] for i in front.admin("/instances").json()["instances"]] == ["static", "api"])
    assert chats(front, 8) == [200] * 8


def test_one_of_the_configuration_serves_on_while_it_is_registered(vllm, fake):
    """Its models are asked for once; who asks again waits for ever."""
    asked_again = threading.Event()

    def script(peer):
        while request := peer.request():
            if b"/v1/models" in request[0] and sum(b"/v1/models" in head for head, _ in worker.requests) > 1:
                asked_again.set()
                return peer.wait_for_end()
            peer.send(answer(b'{"object":"list","data":[{"id":"m"}]}' if b"/v1/models" in request[0] else b"{}"))
    worker = fake(script, declared=())
    front = vllm([worker])
    assert chats(front, 2) == [200, 200]
    front.post("/workers", json={"url": worker.url, "labels": {"zone": "eu"}})
    eventually(lambda: workers(front)[worker.url]["source"] == "api")
    assert asked_again.wait(60)
    assert chats(front, 4) == [200] * 4


def test_put_changes_what_it_names(vllm, engine):
    front, e = vllm(), engine("m")
    made = register(front, e, labels={"zone": "eu"}, priority=1)
    reply = call(front, "PUT", made["location"], json={"priority": 2, "url": "http://other:1"})
    assert reply.status_code == 202, reply.text
    w = eventually(lambda: (w := workers(front)[e.url])["priority"] == 2 and w)
    assert w["labels"]["zone"] == "eu" and list(workers(front)) == [e.url]
    assert call(front, "PUT", made["location"], json={"cost": -1}).status_code == 422
    assert call(front, "PUT", made["location"], content=b"{").status_code == 400
    assert call(front, "PUT", "/workers/http://nobody:1", json={}).json()["code"] == "WORKER_NOT_FOUND"


def test_a_policy_that_is_none_is_told_of_whenever_it_is_named(vllm, engine):
    front, e = vllm(), engine("m")
    made = register(front, e, labels={"policy": "first"})
    for policy in ("second", "round_robin", "third"):
        assert call(front, "PUT", made["location"], json={"labels": {"policy": policy}}).status_code == 202
        eventually(lambda: workers(front)[e.url]["labels"]["policy"] == policy)
    eventually(lambda: front.output().count("there is no such policy") == 3)


def test_a_change_keeps_the_order(vllm):
    front, urls = vllm(), [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    for url in urls:
        assert front.post("/workers", json={"url": url}).status_code == 202
    assert call(front, "PUT", "/workers/" + urls[0], json={"priority": 1}).status_code == 202
    assert list(workers(front)) == urls and workers(front)[urls[0]]["priority"] == 1


def test_put_leaves_the_configuration_alone(vllm, engine):
    e = engine("m")
    assert call(vllm([e]), "PUT", "/workers/" + e.url, json={"priority": 2}).status_code == 409


# --- who is meant -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoded", "plain", "slash", "id"])
def test_a_worker_has_many_names(vllm, engine, name):
    front, e = vllm(), engine("m")
    made = register(front, e)
    path = "/workers/" + {"encoded": quote(e.url, safe=""), "plain": e.url, "slash": e.url + "/", "id": made["worker_id"]}[name]
    assert front.get(path).json()["url"] == e.url
    gone = call(front, "DELETE", path)
    assert gone.status_code == 200 and gone.json()["success"] is True and e.url in gone.json()["message"] or name == "id"
    for method in ("GET", "DELETE"):
        missing = call(front, method, path)
        assert missing.status_code == 404 and missing.json()["code"] == "WORKER_NOT_FOUND"


def test_a_url_may_be_as_long_as_an_id(vllm):
    url = f"http://127.0.0.1:{free_port()}/"
    url += "v" * (36 - len(url))
    front = vllm()
    reply = front.post("/workers", json={"url": url, "labels": {"provider": "openai"}})
    assert reply.status_code == 202 and reply.json()["worker"]["url"] == url
    for name in (url, reply.json()["worker_id"]):
        assert front.get("/workers/" + name).json()["url"] == url


@pytest.mark.parametrize("cut", range(4))
def test_who_is_quoted_is_quoted_in_whole_characters(vllm, cut):
    front, before = vllm(), "a" * (300 - cut)
    reply = call(front, "DELETE", f"/workers/{before}%F0%9F%98%80z")
    assert reply.status_code == 404 and reply.json()["error"]["message"] == f"Worker {before} is not there"
    with http() as client:
        reply = client.post(f"{front.url}/remove_worker?url={before}%F0%9F%98%80z")
    assert reply.status_code == 200 and reply.text == f"Worker {before} is not there"


def test_two_names_of_one_address_are_shown(vllm, engine):
    """Work is counted once, and goes on when one of them is removed."""
    e = engine("m")
    front, other = vllm([e]), e.url.replace("127.0.0.1", "localhost")
    assert front.post("/add_worker", params={"url": other}).status_code == 200
    both = [e.url, other]
    assert front.get("/list_workers").json()["urls"] == both and list(workers(front)) == both
    assert [w["worker"] for w in front.get("/get_loads").json()["workers"]] == both
    assert front.get("/workers").json()["total"] == 2 and front.get("/workers/" + other).json()["is_healthy"]
    assert chats(front, 4) == [200] * 4
    assert front.post("/remove_worker", params={"url": e.url}).status_code == 200
    eventually(lambda: front.get("/list_workers").json() == {"urls": [other]})
    assert chats(front, 2) == [200] * 2


def test_two_names_of_one_address_have_one_load(vllm, engine):
    e = engine("m", "--fault", "hang_head")
    front, other = vllm([e], discovery={"scrape": "off"}), e.url.replace("127.0.0.1", "localhost")
    assert front.post("/add_worker", params={"url": other}).status_code == 200
    s = front.connect()
    s.sendall(raw_request(chat_body()))
    eventually(lambda: {u: w["load"] for u, w in workers(front).items()} == {e.url: 1, other: 1})
    assert [(w["worker"], w["load"], w["in_flight"]) for w in front.get("/get_loads").json()["workers"]] == [(e.url, 1, 1), (other, 1, 1)]
    s.close()


def test_two_names_of_one_address_say_the_same(vllm, engine):
    e = engine("m")
    front, other = vllm([e], discovery={"scrape": "100ms"}), e.url.replace("127.0.0.1", "localhost")
    assert front.post("/add_worker", params={"url": other}).status_code == 200
    eventually(lambda: [w["running"] for w in front.get("/get_loads").json()["workers"]] == [0, 0])


def test_a_bare_url_removes_all_ranks(vllm, engine):
    front, e = vllm(), engine("m")
    for rank in range(3):
        register(front, f"{e.url}@{rank}")
    assert call(front, "DELETE", f"/workers/{e.url}@1").status_code == 200
    assert sorted(workers(front)) == [f"{e.url}@0", f"{e.url}@2"]
    assert front.post("/remove_worker", params={"url": e.url}).status_code == 200 and workers(front) == {}


def test_a_bare_url_changes_all_ranks(vllm, engine):
    front, e = vllm(), engine("m")
    for rank in range(3):
        register(front, f"{e.url}@{rank}")
    reply = call(front, "PUT", "/workers/" + e.url, json={"priority": 7})
    assert reply.status_code == 202 and reply.json()["worker"]["url"] == e.url
    assert call(front, "PUT", f"/workers/{e.url}@1", json={"priority": 8}).json()["worker"]["url"] == e.url + "@1"
    eventually(lambda: {u: w["priority"] for u, w in workers(front).items()} == {f"{e.url}@0": 7, f"{e.url}@1": 8, f"{e.url}@2": 7})
    assert call(front, "PUT", "/workers/" + e.url, json={"priority": -1}).status_code == 422


def test_a_change_leaves_a_failed_engine_for_its_rank_that_serves(vllm, engine, start):
    """Tried again it would be the engine of that rank, which had to leave for it."""
    front, port = vllm(router={"worker_startup_timeout": "1s"}), free_port()
    whole = f"http://127.0.0.1:{port}"
    register(front, whole, dp_size=1)
    assert workers(front)[whole]["job_status"]["status"] == "failed"
    start(Engine, ["m"], port=port)
    register(front, whole + "@0")
    assert call(front, "PUT", "/workers/" + whole, json={"priority": 7}).json()["worker"]["url"] == whole + "@0"
    assert chats(front, 2) == [200, 200]
    now = workers(front)
    assert (now[whole + "@0"]["job_status"]["status"], now[whole + "@0"]["priority"]) == ("done", 7)
    assert (now[whole]["job_status"]["status"], now[whole]["priority"]) == ("failed", 50)
    assert call(front, "DELETE", f"/workers/{whole}@0").status_code == 200
    assert call(front, "PUT", "/workers/" + whole, json={"priority": 8}).status_code == 202
    eventually(lambda: (w := workers(front)[whole])["job_status"]["status"] == "done" and w["priority"] == 8)


def test_a_worker_of_the_configuration_is_gone_until_that_is_read_again(vllm, engine):
    a, b = engine("m"), engine("m")
    front = vllm([a, b])
    assert call(front, "DELETE", "/workers/" + a.url).status_code == 200
    assert list(workers(front)) == [b.url] and chats(front, 4) == [200] * 4 and not a.count("finished")
    with http() as client:
        assert client.post(front.admin_url + "/reload").status_code == 200
    eventually(lambda: set(workers(front)) == {a.url, b.url})


# --- restarts ---------------------------------------------------------------------------------------------


def test_workers_survive_kill_9(vllm, engine, start, tmp_path):
    a, b, state = engine("m"), engine("m"), tmp_path / "state"
    state.mkdir()
    front = vllm(router={"state_dir": str(state)})
    ids = {e.url: register(front, e, api_key=KEY, priority=3)["worker_id"] for e in (a, b)}
    assert call(front, "PUT", "/workers/" + b.url, json={"priority": 4}).status_code == 202
    front.kill()
    assert (state / "workers.json").stat().st_mode & 0o777 == 0o600
    again = start(Router, [], ready=2, router={"dialect": "vllm", "state_dir": str(state)})
    assert {u: w["id"] for u, w in workers(again).items()} == ids and workers(again)[b.url]["priority"] == 4
    assert chats(again, 4) == [200] * 4 and keys_at(a) == {f"Bearer {KEY}"}
    assert call(again, "DELETE", "/workers/" + a.url).status_code == 200
    again.kill()
    third = start(Router, [], ready=1, router={"dialect": "vllm", "state_dir": str(state)})
    assert list(workers(third)) == [b.url]


def test_a_job_survives_kill_9(vllm, start, tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    front = vllm(router={"state_dir": str(tmp_path)})
    assert front.post("/workers", json={"url": url}).status_code == 202
    front.kill()
    again = start(Router, [], router={"dialect": "vllm", "state_dir": str(tmp_path)})
    eventually(lambda: workers(again)[url]["job_status"]["status"] == "processing")
    start(Engine, ["m"], port=port)
    eventually(lambda: workers(again)[url]["job_status"]["status"] == "done")
    assert chats(again, 2) == [200, 200]


@pytest.mark.parametrize("text, n_good", [
    ('{"workers": [', 0), ("", 0), ("[]", 0), ('{"workers": {}}', 0),
    ('{"workers": [1, {"url": 5}, {"worker": {"url": "http://127.0.0.1:1"}, "is_done": true}]}', 1)], ids=range(5))
def test_a_spoilt_file_is_no_reason_not_to_start(start, tmp_path, text, n_good):
    """What of it makes sense is in use, and the rest beside what is written next."""
    kept = {"dialect": "vllm", "state_dir": str(tmp_path)}
    (tmp_path / "workers.json").write_text(text)
    front = start(Router, [], router=kept)
    assert len(workers(front)) == n_good and "cannot be read" in front.output()
    assert (tmp_path / "workers.json.bad").read_text() == text
    eventually((tmp_path / "workers.json").exists)
    assert len(json.loads((tmp_path / "workers.json").read_text())["workers"]) == n_good
    front.kill()
    again = start(Router, [], router=kept)
    assert len(workers(again)) == n_good and "cannot be read" not in again.output()


def test_a_state_folder_is_made(vllm, engine, tmp_path):
    state = tmp_path / "a" / "b"
    register(vllm(router={"state_dir": str(state)}), engine("m"))
    assert (state / "workers.json").exists() and state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("state_dir, why", [("/proc/nope", "No such file or directory"), ("/dev/null", "Not a directory")])
def test_without_its_state_folder_it_does_not_start(bounds, state_dir, why):
    done = subprocess.run([BIN, "router", "--port", str(free_port()), "--admin-port", str(free_port()), "--state-dir", state_dir,
                           "--worker-urls", "http://127.0.0.1:1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"headrace router: router.state_dir: nothing can be kept in {state_dir}: {why}\n" in done.stderr


def test_workers_survive_an_upgrade(start, engine, tmp_path):
    e, gate = engine("m"), tmp_path / "gate"
    front = start(UpgradableRouter, [], router={"dialect": "vllm", "state_dir": str(tmp_path)})
    made = register(front, e, priority=7)
    os.mkfifo(gate)
    front.replace(f"read line < '{gate}'\nexit 1\n")
    asking = threading.Thread(target=front.ask_upgrade)
    asking.start()
    eventually(lambda: call(front, "PUT", made["location"], json={"priority": 8}).json().get("code") == "upgrade_running")
    gate.write_text("now\n")
    asking.join(120)
    assert call(front, "PUT", made["location"], json={"priority": 9}).status_code == 202
    front.replace()
    front.upgrade()
    assert workers(front)[e.url]["priority"] == 9 and chats(front, 2) == [200, 200]
    assert call(front, "PUT", made["location"], json={"priority": 10}).status_code == 202
    assert '"priority":10' in (tmp_path / "workers.json").read_text()


# --- who may ------------------------------------------------------------------------------------------------

ROUTES = [("GET", "/workers"), ("POST", "/workers"), ("GET", "/workers/x"), ("DELETE", "/workers/x"), ("PUT", "/workers/x"),
          ("POST", "/add_worker"), ("POST", "/remove_worker"), ("GET", "/list_workers"), ("POST", "/flush_cache"),
          ("GET", "/get_loads"), ("GET", "/get_load"), ("GET", "/load"), ("GET", "/scheduling/diagnostics")]


@pytest.mark.parametrize("method, path", ROUTES)
def test_only_this_machine_may_unless_somebody_says_otherwise(vllm, method, path):
    front = vllm()
    assert call(front, method, path).status_code != 401
    for stranger in ({"Origin": "http://127.0.0.1"}, {"Host": "evil.example"}):
        refused = call(front, method, path, headers=stranger)
        assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"


def test_with_a_key_it_is_the_key_that_counts(vllm):
    front = vllm(router={"worker_api": "key"}, admin={"key": KEY})
    assert front.get("/workers").status_code == 401
    assert call(front, "GET", "/workers", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert call(front, "GET", "/workers", headers={"Authorization": f"Bearer {KEY}", "Host": "x"}).status_code == 200


def test_open_is_open_also_where_clients_have_keys(vllm):
    front = vllm(router={"worker_api": "open"}, tenants=[{"name": "t", "keys": ["sha256:" + hashlib.sha256(KEY.encode()).hexdigest()]}])
    assert call(front, "GET", "/workers", headers={"Host": "x", "Origin": "http://y"}).status_code == 200
    assert front.get("/get_server_info").status_code == 401


def test_it_may_be_had_without_the_dialect(router, engine):
    front, e = router([], router={"worker_api": "loopback"}), engine("m")
    register(front, e)
    assert chats(front, 2) == [200, 200]
    assert front.get("/health_generate").status_code == 404 and "status" in front.get("/health").json()


def test_a_key_must_be_there_to_be_asked_for(tmp_path):
    (tmp_path / "router.toml").write_text('router.worker_api = "key"\n')
    ended = subprocess.run([BIN, "router", "--check", "--config", tmp_path / "router.toml"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and "router.worker_api" in ended.stderr + ended.stdout


def test_without_the_dialect_the_paths_are_the_engines(router, engine):
    e = engine("m")
    front = router([e])
    assert front.get("/workers").status_code == 404 and "/workers" in [r["path"] for r in e.captured()["requests"]]
    assert front.admin("/workers").json()["total"] == 1


def test_the_admin_port_has_it_whatever_the_dialect(router, engine):
    front, e = router([]), engine("m")
    with http() as client:
        reply = client.post(front.admin_url + "/add_worker", params={"url": e.url})
        assert (reply.status_code, reply.text) == (200, f"Successfully added worker: {e.url}")
        assert client.get(f"{front.admin_url}/workers/{e.url}").json()["url"] == e.url
        assert client.get(f"{front.admin_url}/workers/{quote(e.url, safe='')}").json()["url"] == e.url
        assert client.get(f"{front.admin_url}/list_workers").json() == {"urls": [e.url]}
        assert client.delete(f"{front.admin_url}/workers/{e.url}", headers={"Origin": "http://x"}).status_code == 401
        assert client.delete(f"{front.admin_url}/workers/{e.url}").status_code == 200
        assert client.get(front.admin_url + "/get_loads").json() == {"workers": []}


@pytest.mark.parametrize("body", [b'{"a":"\xf0\0\0\0"}', b'{"a":"\0', b"\0", b""])
def test_the_admin_port_reads_a_body_to_its_end_and_no_further(router, body):
    front = router([])
    with http() as client:
        reply = client.post(front.admin_url + "/workers", content=body)
    assert (reply.status_code, reply.json()["code"]) == (400, "ADD_WORKER_FAILED")


def test_an_engine_that_cannot_be_asked_is_refused(router):
    """A router that has no peers with TLS speaks none."""
    front, url = router([]), f"https://127.0.0.1:{free_port()}"
    with http() as client:
        reply = client.post(front.admin_url + "/add_worker", params={"url": url})
    assert (reply.status_code, reply.text) == (400, f"Failed to add worker {url}: nothing can be asked at this url")
    assert front.admin("/workers").json()["workers"][0]["job_status"]["status"] == "failed"


def test_who_leaves_while_his_job_runs_takes_nothing_along(vllm, start):
    port = free_port()
    front = vllm()
    for _ in range(70):                                       # more than may wait at once
        s = front.connect()
        s.sendall(b"POST /add_worker?url=http://127.0.0.1:%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % port)
        s.close()
    eventually(lambda: front.get("/workers").status_code == 200)      # 503 while all of them are there
    eventually(lambda: list(workers(front)) == [f"http://127.0.0.1:{port}"])
    start(Engine, ["m"], port=port)
    eventually(lambda: chats(front, 1) == [200])


@pytest.mark.parametrize("port", ["data", "admin"])
def test_who_waits_leaves_places_for_others(vllm, port):
    front, sockets = vllm(router={"worker_startup_timeout": "300s"}), []

    def ask(url):
        sockets.append(socket.create_connection(("127.0.0.1", front.port if port == "data" else front.admin_port)))
        sockets[-1].sendall(f"POST /add_worker?url={url} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    for _ in range(32):
        ask(f"http://127.0.0.1:{free_port()}")
    eventually(lambda: front.get("/workers").json()["total"] == 32)
    url = f"http://127.0.0.1:{free_port()}"
    refused = front.post("/add_worker", params={"url": url})
    assert (refused.status_code, refused.text) == (400, f"Failed to add worker {url}: too many calls wait for workers")
    assert front.post("/workers", json={"url": url}).status_code == 202
    for s in sockets[1:]:
        hard_close(s)                                                 # who says no more may still listen at the admin port
    late = f"http://127.0.0.1:{free_port()}"

    def is_taken():                                                   # who is refused leaves nothing behind
        ask(late)
        return late in workers(front)
    eventually(is_taken)
    for s in sockets:
        s.close()


class Silent:
    """A port of the whole machine that takes connections and says nothing; at each of its addresses it is another worker."""

    def __init__(self, n):
        self.listener, self.taken = socket.create_server(("", 0), backlog=1024), []
        self.addresses = [f"127.2.0.{i + 1}" for i in range(n)]
        threading.Thread(target=self.take, daemon=True).start()

    def urls(self):
        return [f"http://{address}:{self.listener.getsockname()[1]}" for address in self.addresses]

    def take(self):
        """They stay open: who asks gives up by himself."""
        while True:
            try:
                self.taken.append(self.listener.accept()[0])
            except OSError:
                return

    def asked(self):
        return Counter(s.getsockname()[0] for s in self.taken)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for s in self.taken:
            s.close()


@pytest.fixture
def silent():
    port = Silent(80)                                                 # more than are asked at a time
    yield port
    port.close()


@pytest.mark.parametrize("kind", ["refusing", "silent"])
def test_who_does_not_answer_is_in_nobodys_way(vllm, engine, silent, kind):
    front, e, port = vllm(router={"worker_startup_timeout": "300s"}, health={"timeout": "1s"}), engine("m"), free_port()
    for url in silent.urls() if kind == "silent" else [f"http://{address}:{port}" for address in silent.addresses]:
        assert front.post("/workers", json={"url": url}).status_code == 202
    assert front.post("/add_worker", params={"url": e.url}).text == f"Successfully added worker: {e.url}"
    assert front.get("/readiness").status_code == 200 and chats(front, 2) == [200, 200]


def test_those_who_do_not_answer_are_asked_in_turn(vllm, silent):
    front = vllm(router={"worker_startup_timeout": "300s"}, health={"timeout": "200ms"})
    for url in silent.urls():
        assert front.post("/workers", json={"url": url}).status_code == 202
    eventually(lambda: len(silent.asked()) == len(silent.addresses) and min(silent.asked().values()) >= 3)
    assert {w["job_status"]["status"] for w in workers(front).values()} == {"processing"}
    assert call(front, "DELETE", "/workers/" + silent.urls()[0]).status_code == 200


def test_a_stop_ends_who_waits(vllm):
    front = vllm()
    s = front.connect()
    s.sendall(b"POST /add_worker?url=http://127.0.0.1:%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % free_port())
    eventually(lambda: front.get("/workers").json()["total"])
    front.process.terminate()
    front.process.terminate()
    read_to_end(s)
    assert front.wait() == 0
