"""Decisions, explanations and what they say: of real traffic, without touching it."""
import json
import re
import subprocess
import threading
import urllib.parse
from http.client import HTTPConnection
from pathlib import Path

import httpx
import openai
import pytest

from ports import free_port
from program import BIN, KEY, PROMPT, chat_body, eventually, http

JSON = {"content-type": "application/json"}
SECRET = "marker-of-a-prompt-7d1c"


def decisions(front, query=""):
    answer = front.admin("/decisions" + query)
    assert answer.status_code == 200
    return answer.json()["decisions"]


def explain(front, body, query="", **how):
    with http() as client:
        return client.post(f"{front.admin_url}/explain{query}", json=body, **how)


@pytest.fixture
def trio(engine, router):
    engines = [engine(["m"]) for _ in range(3)]
    for one in engines:
        one.declared = one.models       # nothing is learned of them, so that no snapshot follows the first
    return lambda *flags, **tables: router(engines, *flags, **tables)


def test_a_decision_for_each_request(trio):
    front = trio("--policy", "round_robin", router={"threads": 2})
    with openai.OpenAI(base_url=front.url + "/v1", api_key=KEY, max_retries=0) as client:
        for i in range(9):
            client.chat.completions.create(**chat_body(max_tokens=3), extra_headers={"x-request-id": f"ask-{i}"})
        for event in client.chat.completions.create(**chat_body(max_tokens=3), stream=True):
            pass
        client.completions.create(model="m", prompt=PROMPT, max_tokens=2)
    front.chat("no such model")
    eventually(lambda: len([d for d in decisions(front) if d["settled"]]) == 12)
    refused, *found = decisions(front)
    assert (refused["refusal"], refused["status"], refused["chosen"]) == ("model_not_found", 404, None)
    assert [d["ts_ms"] for d in found] == sorted((d["ts_ms"] for d in found), reverse=True)
    assert len({d["id"] for d in found}) == 11
    assert {f"ask-{i}" for i in range(9)} <= {d["request_id"] for d in found}
    assert sorted(d["capability"] for d in found) == ["chat"] * 10 + ["completion"]
    by_id = {r["id"]: r for r in front.log(12)}
    for d in found:
        line = by_id[d["request_id"]]
        assert (d["status"], d["cause"], d["reason"]) == (200, "none", "round_robin")
        assert (d["model"], d["chosen"]["instance"], d["n_attempts"]) == ("m", line["instance"], line["attempts"])
        assert d["attempts"] == [{"instance": line["instance"], "cause": "none"}]
        assert (d["n_candidates"], d["n_eligible"], d["rejected"]) == (3, 3, [])
        assert d["refusal"] is None and d["queue_ms"] is not None
        assert d["pick_ns"] > 0 and abs(d["total_ms"] - line["total_ms"]) < 0.01


def test_decisions_are_found_by_what_they_are(trio, engine):
    front = trio()
    for i in range(6):
        front.chat(headers={"x-request-id": f"r{i}"})
    found = eventually(lambda: [d for d in [decisions(front)] if len(d) == 6])[0]
    one = found[2]
    assert front.admin("/decisions/" + one["id"]).json()["request_id"] == one["request_id"]
    assert front.admin("/decisions/" + one["request_id"]).json()["id"] == one["id"]
    for missing in ("0-99", "0-0", "0-999999999", "9-1", "r9", "x" * 200, "-"):
        answer = front.admin("/decisions/" + missing)
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"
    assert [d["id"] for d in decisions(front, "?limit=2")] == [d["id"] for d in found[:2]]
    where = one["chosen"]["instance"]
    assert decisions(front, f"?instance={where}") == [d for d in found if d["chosen"]["instance"] == where]
    assert decisions(front, "?model=other") == [] and len(decisions(front, "?model=m")) == 6
    assert len(decisions(front, f"?reason={one['reason']}")) == 6 and decisions(front, "?reason=last_resort") == []
    assert len(decisions(front, f"?since={found[-1]['ts_ms'] - 1000}")) == 6
    assert decisions(front, f"?since={found[0]['ts_ms'] + 1000000}") == []
    for bad in ("limit=0", "limit=1001", "limit=x", "since=-1", "reason=why"):
        answer = front.admin("/decisions?" + bad)
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "bad_request"


@pytest.mark.parametrize("method, target", [("GET", "/decisions?model=%zz"), ("GET", "/decisions?limit=5&instance=a%2"),
                                            ("GET", "/decisions?model=a%00"), ("POST", "/explain?path=/v1/completions%00"),
                                            ("POST", "/explain?p%th=/v1/completions")])
def test_a_query_that_is_badly_encoded(trio, method, target):
    line = HTTPConnection(urllib.parse.urlsplit(trio().admin_url).netloc, timeout=30)
    line.request(method, target, json.dumps(chat_body()) if method == "POST" else None, JSON)
    answer = line.getresponse()
    said = json.loads(answer.read())["error"]
    line.close()
    assert (answer.status, said["code"]) == (400, "bad_request") and "percent-encoded" in said["message"]


def test_the_ring_is_bounded_and_may_be_off(engine, router):
    workers = [engine(["m"]) for _ in range(3)]
    front = router(workers, router={"threads": 1}, explain={"ring": 5})
    for i in range(20):
        front.chat(headers={"x-request-id": f"r{i}"})
    assert [d["request_id"] for d in decisions(front)] == [f"r{i}" for i in range(19, 14, -1)]
    off = router(workers, explain={"ring": 0, "headers": True})
    answer = off.chat()
    assert "x-headrace-instance" in answer.headers and "x-headrace-decision" not in answer.headers
    assert decisions(off) == []


def test_a_long_ring_is_searched_to_its_end(engine, router):
    front = router([engine(["m"])], router={"threads": 2}, explain={"ring": 65536}, labels=[{"context": "1"}])
    body = json.dumps(chat_body(max_tokens=2)).encode()
    clients = [http(base_url=front.url) for _ in range(2)]
    for i in range(3000):
        clients[i % 2].post("/v1/chat/completions", content=body, headers=JSON | {"x-request-id": f"r{i}"})
    for client in clients:
        client.close()
    assert front.admin("/decisions/r0").json()["request_id"] == "r0"
    found = decisions(front, "?limit=1000")
    assert [d["request_id"] for d in found] == [f"r{i}" for i in range(2999, 1999, -1)]
    assert front.admin("/decisions/" + found[-1]["id"]).json() == found[-1]


def test_refusals_leave_a_record(engine, router):
    front = router([engine(["m"]) for _ in range(6)], labels=[{"context": "100"}] * 6, explain={"headers": True})
    asked = {"context_length_exceeded": ({"max_tokens": 2000}, {}, "context_too_small", {"context_tokens": 100}),
             "privacy_violation": ({}, {"x-headrace-privacy": "restricted"}, "clearance_low",
                                   {"needed": "restricted", "clearance": "public"})}
    for code, (body, headers, why, detail) in asked.items():
        answer = front.chat(body=body, headers=headers)
        assert answer.json()["error"]["code"] == code
        record = front.admin("/decisions/" + answer.headers["x-headrace-decision"]).json()
        assert (record["request_id"], record["refusal"]) == (answer.headers["x-request-id"], code)
        assert (record["chosen"], record["reason"], record["attempts"], record["alternatives"]) == (None, None, [], [])
        assert [r["code"] for r in record["rejected"]] == [why] * 4
        assert record["reasons"] == [] and record["reasoning"] == "nobody: " + answer.json()["error"]["message"]
        assert record["model_asked"] == "m" and detail.items() <= record["rejected"][0]["detail"].items()
        assert (record["n_candidates"], record["n_eligible"], record["n_rejected"], record["model"]) == (6, 0, 6, "m")
        record, = [d for d in eventually(lambda: [d for d in decisions(front) if d["settled"] and d["refusal"] == code])]
        assert (record["status"], record["queue_ms"]) == (answer.status_code, None) and record["total_ms"] is not None
    answer = front.chat("no such model", body={"user": "u", "stream": True})
    record = front.admin("/decisions/" + answer.headers["x-headrace-decision"]).json()
    assert record["features"] == ["stream"] and record["session"]
    answer = front.chat("no such model")
    record = front.admin("/decisions/" + answer.headers["x-headrace-decision"]).json()
    assert (record["refusal"], record["policy"], record["model"], record["rejected"]) == ("model_not_found", None, "other", [])
    assert record["prompt_bytes"] > 0 and record["seed"] != "0" * 16 and not record["session"]
    assert record["model_asked"] == "no such model" and record["reasoning"] == "nobody: no instance serves this model"
    assert len(decisions(front)) == 4 and decisions(front, "?reason=round_robin") == []
    quiet = router([engine(["m"])])
    assert "x-headrace-decision" not in quiet.chat("no such model").headers and len(decisions(quiet)) == 1


def test_a_request_outlives_its_record(engine, router):
    front = router([engine(["m"], "--itl", "5ms") for _ in range(3)], router={"threads": 1}, explain={"ring": 3})
    with http() as client:
        with client.stream("POST", front.url + "/v1/chat/completions", json=chat_body(stream=True, max_tokens=200),
                           headers={"x-request-id": "long"}) as stream:
            for _ in range(6):
                front.chat(body={"max_tokens": 1})
            assert "long" not in {d["request_id"] for d in decisions(front)}
            assert "[DONE]" in "".join(stream.iter_text())
    front.log(7)
    assert len([d for d in decisions(front) if d["settled"]]) == 3


def test_attempts_say_what_they_died_of(engine, router):
    workers = [engine(["m"]) for _ in range(3)]
    for worker in workers:
        worker.declared = ["m"]
    front = router(workers, "--policy", "round_robin", router={"threads": 1}, timeout={"pool_idle": "0s"})
    workers[1].kill()
    for i in range(3):
        assert front.chat(headers={"x-request-id": f"r{i}"}).status_code == 200
    failed, = [d for d in decisions(front) if d["n_attempts"] == 2]
    assert [a["cause"] for a in failed["attempts"]] == ["connect_failed", "none"]
    assert failed["attempts"][0]["instance"] == workers[1].url and failed["reasons"] == ["round_robin", "retry_exclude"]
    assert [d["id"] for d in decisions(front, "?reason=retry_exclude")] == [failed["id"]]
    for reason in ("panic_mode", "local_zone", "spill_region", "spill_far"):
        assert decisions(front, "?reason=" + reason) == []
    out, = [r for r in failed["rejected"] if r["instance"] == workers[1].url]
    assert out["code"] in ("avoided", "already_tried") and out["text"]
    rows = explain(front, chat_body()).json()["rows"]
    out = [r for r in rows if r["instance"] == workers[1].url][0]
    assert not out["eligible"] and "avoided" in out["codes"] and rows.index(out) == 2


def test_headers_say_how_it_was_chosen(trio):
    front = trio("--policy", "round_robin", explain={"headers": True})
    answer = front.chat()
    headers = answer.headers
    assert headers["x-headrace-reason"] == "round_robin" and headers["x-headrace-attempts"] == "1"
    assert int(headers["x-headrace-cache-hit"]) in range(101)
    record = front.admin("/decisions/" + headers["x-headrace-decision"]).json()
    assert record["chosen"]["instance"] == headers["x-headrace-instance"]
    assert record["request_id"] == headers["x-request-id"]
    silent = trio()
    assert not [name for name in silent.chat().headers if name.startswith("x-headrace")]


def test_the_first_row_is_where_the_next_request_goes(trio):
    for policy in ("round_robin", "rendezvous_hash", "cache_aware"):
        front = trio("--policy", policy, router={"threads": 1}, explain={"headers": True})
        seen = set()
        for i in range(12):
            body = chat_body(max_tokens=2, prompt_cache_key=f"talk-{i}")
            said = explain(front, body).json()
            assert said["policy"] == policy and len(said["rows"]) == 3
            assert explain(front, body).json()["rows"] == said["rows"]
            headers = front.post("/v1/chat/completions", json=body).headers
            assert headers["x-headrace-instance"] == said["rows"][0]["instance"]
            assert headers["x-headrace-reason"] == said["reason"]
            eventually(lambda: front.metric("headrace_in_flight") == 0)
            seen.add(headers["x-headrace-instance"])
        assert len(seen) > 1


def test_explanations_change_nothing(trio):
    """10,000 of them beside traffic: no pick is counted for them, and the turns go on as if they were not."""
    front = trio("--policy", "round_robin", router={"threads": 1}, explain={"headers": True, "ring": 4096})
    body = json.dumps(chat_body(max_tokens=1)).encode()
    failed = []

    def ask():
        with http(base_url=front.admin_url) as client:
            for _ in range(2500):
                if client.post("/explain?path=/v1/chat/completions", content=body, headers=JSON).status_code != 200:
                    failed.append(1)
    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    n, turns = 0, []
    with http(base_url=front.url) as client:
        while n < 300 or any(a.is_alive() for a in askers):
            turns.append(client.post("/v1/chat/completions", json=chat_body(max_tokens=1)).headers["x-headrace-instance"])
            n += 1
    for asker in askers:
        asker.join()
    assert not failed
    assert all(len(set(turns[i:i + 3])) == 3 for i in range(n - 2))     # three equal ones: each third pick is the same
    eventually(lambda: front.metric("headrace_picks_total") == n)
    assert front.metric("headrace_requests_total", model="m") == n and front.metric("headrace_in_flight") == 0


def test_what_the_router_refuses_is_refused(trio):
    front = trio()
    cases = [(b"{", 400, "invalid_json"), (b'{"model":"m","model":"m"}', 400, "duplicate_model"),
             (b'{"model":"none of ours","messages":[]}', 404, "model_not_found")]
    with http(base_url=front.admin_url) as client:
        for body, status, code in cases:
            answer = client.post("/explain", content=body, headers=JSON)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            same = front.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
            assert (same.status_code, same.json()) == (answer.status_code, answer.json())
        for path in ("nothing", "/a%20b", "/a%0d%0ab:c", "/" + "x" * 600):
            assert client.post("/explain?path=" + path, json=chat_body()).status_code == 400
        assert client.post("/explain", content=b" " * (9 << 20), headers=JSON).status_code == 413
        assert client.get("/explain").status_code == 405


def test_refusals_are_in_the_dialect(engine, router):
    front = router([engine(["m"])], "--dialect", "infinilm")
    body = chat_body("none of ours")
    answer, same = explain(front, body), front.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()) == (same.status_code, same.json()) and answer.status_code == 503
    plain = router([engine(["m"])])
    answer, same = explain(plain, body, "?path=/v1/messages"), plain.post("/v1/messages", json=body)
    assert (answer.status_code, answer.json()) == (same.status_code, same.json()) and answer.json()["type"] == "error"


def test_a_body_says_that_it_is_json(trio):
    front = trio()
    for kind, status in (("application/json; charset=utf-8", 200), ("application/x.y+json", 200), ("text/plain", 415),
                         ("application/x-www-form-urlencoded", 415), (None, 415)):
        with http() as client:
            answer = client.post(front.admin_url + "/explain", content=json.dumps(chat_body()).encode(),
                                 headers={"content-type": kind} if kind else {})
        assert answer.status_code == status
    assert answer.json()["error"]["code"] == "unsupported_media_type"


def test_a_form_is_explained(engine, router):
    front = router([engine(["whisper"]), engine(["m"])])
    for form, query, capability in (({"model": (None, "whisper")}, "", "transcription"),
                                    ({"model": (None, "whisper")}, "?path=/v1/audio/translations", "translation")):
        with http() as client:
            parts = {"file": ("a.wav", b"RIFF" + b"x" * 100000, "audio/wav")} | form
            said = client.post(f"{front.admin_url}/explain{query}", files=parts).json()
        assert (said["demand"]["model"], said["demand"]["capability"]) == ("whisper", capability)
        assert [row["eligible"] for row in said["rows"]] == [True, False]
    for files in ({"model": (None, "none of ours")}, {"model": (None, "w" * 300)}):
        with http() as client:
            refused = client.post(f"{front.admin_url}/explain", files=files)
            same = client.post(f"{front.url}/v1/audio/transcriptions", files=files)
        assert (refused.status_code, refused.json()) == (same.status_code, same.json()) and refused.status_code >= 400


def test_a_body_of_many_values_costs_no_tree(trio):
    front = trio()

    def peak():
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{front.pid}/status").read_text())[1]) << 10
    assert explain(front, chat_body()).status_code == 200
    before, body = peak(), b'{"model":"m","messages":[' + b"[]," * (2600 << 10) + b"[]]}"
    with http() as client:
        assert client.post(front.admin_url + "/explain", content=body, headers=JSON).json()["demand"]["capability"] == "chat"
    assert peak() - before < 64 << 20


@pytest.mark.parametrize("policy", ["round_robin", "cache_aware"])
def test_of_a_long_body_the_same_is_seen(trio, policy):
    """The data port picks before all of it has come; what follows counts for neither."""
    front = trio("--policy", policy, router={"threads": 1, "inspect_limit": "128KiB"})
    body = json.dumps(chat_body() | {"messages": [{"role": "user", "content": "w" * 400000}], "tools": [{"type": "function"}]})
    with http() as client:
        said = client.post(front.admin_url + "/explain", content=body.encode(), headers=JSON).json()
    with front.connect() as s:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        s.sendall(head.encode() + body[:150000].encode())
        record, = eventually(lambda: decisions(front))
        s.sendall(body[150000:].encode())
        assert s.recv(12) == b"HTTP/1.1 200"
    assert said["demand"]["features"] == record["features"] == [] and said["reason"] == record["reason"]
    assert said["rows"][0]["instance"] == record["chosen"]["instance"]
    assert [said["demand"][k] for k in ("prompt_bytes", "prompt_tokens")] == [record["prompt_bytes"], record["prompt_tokens"]]
    assert record["prompt_bytes"] == len(body)


def test_paths_are_guessed(trio):
    front = trio()
    bodies = {"chat": chat_body(), "completion": {"model": "m", "prompt": "x"},
              "embeddings": {"model": "m", "input": ["x"]},
              "responses": {"model": "m", "input": [{"role": "user", "content": "x"}]}}
    for capability, body in bodies.items():
        assert explain(front, body).json()["demand"]["capability"] == capability
    assert explain(front, chat_body(), "?path=/v1/messages").json()["demand"]["capability"] == "messages"


def test_the_last_resort_is_explained(engine, router):
    worker = engine(["m"])
    front = router([worker], health={"interval": "100ms", "max_errors": 1})
    worker.kill()
    eventually(lambda: front.ready_workers() == 0)
    said = explain(front, chat_body()).json()
    assert said["reason"] == "last_resort" and [r["eligible"] for r in said["rows"]] == [True]


def test_headers_count_as_the_requests_own(engine, router):
    workers = [engine(["m"]) for _ in range(3)]
    front = router(workers)
    secret = {"x-headrace-privacy": "restricted"}
    said = explain(front, chat_body(), headers=secret).json()
    answer = front.chat(headers=secret)
    assert said["reason"] is None and not any(row["eligible"] for row in said["rows"])
    assert all("clearance_low" in row["codes"] for row in said["rows"])
    assert said["refusal"] == {"status": answer.status_code, "code": answer.json()["error"]["code"]}
    assert explain(front, chat_body(), headers={"x-session-id": "a"}).json()["demand"]["session"]
    assert not explain(front, chat_body()).json()["demand"]["session"]
    bad = explain(front, chat_body(), headers={"x-headrace-privacy": "much"})
    assert (bad.status_code, bad.json()) == (400, front.chat(headers={"x-headrace-privacy": "much"}).json())


def test_a_misspelt_header_of_ours_is_named(engine, router):
    front = router([engine(["m"])])
    misspelt = {"X-Headrace-Privcy": "restricted"}
    answer, same = front.chat(headers=misspelt), explain(front, chat_body(), headers=misspelt)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert "x-headrace-privcy" in answer.json()["error"]["message"].lower()
    assert (same.status_code, same.json()) == (answer.status_code, answer.json())
    assert front.chat(headers={"x-headrace-instance": "of a router in front"}).status_code == 200


@pytest.mark.parametrize("policy", ["consistent_hash", "session", "bucket", "size_class", "composite", "least_latency"])
def test_each_policy_is_explained(trio, policy):
    front = trio("--policy", policy, router={"threads": 1}, explain={"headers": True})
    for i in range(6):
        body, ids = chat_body(max_tokens=1), {"x-session-id": f"talk-{i % 3}", "x-request-id": f"ask-{i}"}
        said = explain(front, body, headers=ids).json()
        headers = front.post("/v1/chat/completions", json=body, headers=ids).headers
        assert said["policy"] == policy and len(said["rows"]) == 3
        assert said["reasons"][0] == said["reason"] and said["reasoning"].startswith(said["rows"][0]["instance"] + ": ")
        if policy != "least_latency":       # in an idle fleet it draws among equals
            assert (headers["x-headrace-reason"], headers["x-headrace-instance"]) == (said["reason"], said["rows"][0]["instance"])
        eventually(lambda: front.metric("headrace_in_flight") == 0)


def test_no_text_of_a_prompt_anywhere(trio):
    front = trio("--policy", "cache_aware", explain={"headers": True})
    body = chat_body(max_tokens=2, user=SECRET, prompt_cache_key=SECRET)
    body["messages"] = [{"role": "system", "content": SECRET * 500}, {"role": "user", "content": SECRET}]
    headers = {"authorization": "Bearer " + SECRET, "x-session-id": SECRET}
    shown = ""
    for _ in range(5):
        answer = front.post("/v1/chat/completions", json=body, headers=headers)
        shown += str(answer.headers)
    shown += explain(front, body, headers=headers).text
    front.log(5)
    shown += front.admin("/decisions").text + front.metrics_text() + front.output() + front.access.read_text()
    assert '"decisions"' in shown and SECRET not in shown


def test_a_talk_stays_where_its_cache_is_and_says_so(trio):
    front = trio("--policy", "cache_aware", router={"threads": 1}, explain={"headers": True})
    body = chat_body(max_tokens=2)
    body["messages"] = [{"role": "user", "content": "water of the Aare " * 1000}]
    first = front.post("/v1/chat/completions", json=body)
    assert first.headers["x-headrace-reason"] == "lowest_ttft" and first.headers["x-headrace-cache-hit"] == "0"
    home = first.headers["x-headrace-instance"]
    for turn in range(4):
        body["messages"] += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": f"turn {turn}"}]
        row = explain(front, body).json()["rows"][0]
        answer = front.post("/v1/chat/completions", json=body)
        assert (answer.headers["x-headrace-instance"], answer.headers["x-headrace-reason"]) == (home, "prefix_hit")
        assert row["instance"] == home and row["cached_tokens"] > 0 and set(row["parts"]) >= {"queue_s", "uncached_s"}
        record = front.admin("/decisions/" + answer.headers["x-headrace-decision"]).json()
        assert record["prompt_bytes"] >= 18000 and record["predicted_cached_tokens"] == row["cached_tokens"]
        assert int(answer.headers["x-headrace-cache-hit"]) == 100 * record["predicted_cached_tokens"] // record["prompt_tokens"] > 50
        assert len(record["alternatives"]) == 2
        assert record["alternatives"][0]["score"] <= record["alternatives"][1]["score"]
        assert record["chosen"]["score"] < record["alternatives"][0]["score"]
        gap = record["alternatives"][0]["score"] - record["chosen"]["score"]
        assert abs(record["alternatives"][0]["gap"] - gap) < 1e-5
        assert record["reasoning"].startswith(f"{home}: its first token is expected soonest, with part of the prompt in its cache (prefix_hit); score ")


def test_an_accelerator_is_kept_to(engine, router):
    engines = [engine(["m"]) for _ in range(3)]
    front = router(engines, "--policy", "round_robin", labels=[{"accelerator": "h100"}, {"accelerator": "a100"}, {}],
                   explain={"headers": True})
    for _ in range(6):
        answer = front.chat(headers={"x-headrace-accelerator": "h100"})
        assert answer.headers["x-headrace-instance"] == engines[0].url
    rows = explain(front, chat_body(), headers={"x-headrace-accelerator": "h100"}).json()["rows"]
    assert [row["codes"] for row in rows] == [[], ["accelerator_missing"], ["accelerator_missing"]]
    refused = front.chat(headers={"x-headrace-accelerator": "tpu"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "slo_unattainable")
    for bad in ("", "h100;prefer", "x" * 257):
        assert front.chat(headers={"x-headrace-accelerator": bad}).status_code == 400
    assert len({front.chat().headers["x-headrace-instance"] for _ in range(6)}) == 3


def test_what_was_done_can_be_played_again(trio, tmp_path):
    log = tmp_path / "choices.jsonl"
    front = trio("--policy", "cache_aware", explain={"log": str(log)})
    body = chat_body(max_tokens=5, user=SECRET)
    body["messages"] = [{"role": "user", "content": SECRET * 500}]
    used = [front.post("/v1/chat/completions", json=body).json()["usage"] for _ in range(5)]
    front.chat("no such model")
    front.get("/metrics")
    eventually(lambda: log.exists() and len(log.read_text().splitlines()) == 5)
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert SECRET not in text
    assert [line["prompt_tokens"] for line in lines] == [u["prompt_tokens"] for u in used]
    assert [line["output_tokens"] for line in lines] == [5] * 5
    assert len(lines[0]["blocks"]) >= 5 and all(line["blocks"] == lines[0]["blocks"] for line in lines)
    assert len({line["session"] for line in lines}) == 1
    done = subprocess.run([BIN, "sim", "--trace", str(log), "--policy", "cache_aware,round_robin", "--engines", "2", "--json", "-"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {row["policy"]: row["hit_pct"] > 0 for row in json.loads(done.stdout)}["cache_aware"]
    front.stop()
    assert len(log.read_text().splitlines()) == 5


def test_every_code_is_given_to_whom_it_fits(engine, router):
    """One instance out for each reason, and one that is not. Who is drained or tried is in the tests of the filters."""
    base = {"region": "r1", "residency": "eu", "clearance": "restricted"}
    odd = {"capability_missing": {"capabilities": "rerank"}, "feature_missing": {"features": "stream"},
           "context_too_small": {"context": "10"}, "clearance_low": {"clearance": "internal"},
           "residency_missing": {"residency": "us"}, "region_denied": {"region": "r2"},
           "at_capacity": {"capacity": "1"}, "over_cost": {"price_out": "9000000"}, "model_absent": {}, "unhealthy": {}, "": {}}
    flags = {"at_capacity": ["--itl", "50ms"], "": ["--prefill-rate", "5000"]}
    models = {"at_capacity": ["m", "held"], "model_absent": ["other"], "unhealthy": ["m", "gone"]}
    engines = {code: engine(models.get(code, ["m"]), *flags.get(code, [])) for code in odd}
    for one in engines.values():
        one.declared = one.models
    silent = f"http://127.0.0.1:{free_port()}"
    front = router([*engines.values(), silent], labels=[*(base | more for more in odd.values()), base], ready=len(odd),
                   router={"threads": 1}, health={"probe": True, "interval": "100ms", "max_errors": 1},
                   locality={"region": "r1", "mode": "require"}, privacy={"residency": ["eu"]}, cost={"ceiling": 60})
    body = chat_body(max_tokens=100, tools=[{"type": "function", "function": {"name": "f"}}])
    private = {"x-headrace-privacy": "restricted"}

    def codes(**more):
        said = explain(front, body, headers=private | more).json()
        return {row["instance"]: row["codes"] for row in said["rows"]}
    engines["unhealthy"].kill()
    eventually(lambda: codes()[engines["unhealthy"].url])
    assert front.chat("gone", body={"max_tokens": 1}).status_code == 502
    found = codes()
    assert found.pop(engines["unhealthy"].url) == ["unhealthy", "avoided"]

    numbers = {"clearance_low": {"needed": "restricted", "clearance": "internal"}, "feature_missing": {"missing": ["tools"]},
               "over_cost": {"ceiling": 60}, "context_too_small": {"context_tokens": 10},
               "at_capacity": {"in_flight": 1, "capacity": 1}}

    def held(model):
        return client.stream("POST", front.url + "/v1/chat/completions", json=chat_body(model, stream=True, max_tokens=1000))
    with http() as client, held("held") as stream:
        assert stream.status_code == 200, stream.read()
        found = codes()
        for code in odd.keys() - {"unhealthy"}:
            assert found[engines[code].url] == [code] * bool(code), code
        assert "loading" in found[silent]
        rows = explain(front, body, headers=private).json()["rows"]
        said = {why["code"]: why for row in rows for why in row["rejections"] if row["codes"] == [why["code"]]}
        assert said.keys() >= odd.keys() - {"unhealthy", ""} and all(why["text"] for why in said.values())
        for code, detail in numbers.items():
            assert detail.items() <= said[code]["detail"].items(), said[code]
        assert said["context_too_small"]["detail"]["needed_tokens"] > 100 and said["over_cost"]["detail"]["price"] > 60
        assert said["region_denied"]["detail"] is None

    def late():
        front.chat(body={"max_tokens": 1, "messages": [{"role": "user", "content": "word " * 1000}]})
        return codes(**{"x-headrace-deadline-ms": "1"})[engines[""].url] == ["slo_unattainable"]
    eventually(late)


@pytest.mark.parametrize("attempt", range(4))
def test_a_stop_amid_questions_is_in_order(engine, router, attempt):
    workers = [engine(["m"]) for _ in range(3)]
    front = router(workers, "--policy", "cache_aware", router={"threads": 4}, explain={"ring": 4096},
                   timeout={"announce": "0s", "drain": "0s"})
    for _ in range(20):
        front.chat(body={"max_tokens": 1})
    asked, body = [], json.dumps(chat_body(user="x" * 50000)).encode()

    def ask(i):
        with http(base_url=front.admin_url) as client:
            try:
                while True:
                    if i % 2:
                        client.get("/decisions?limit=1000")
                    else:
                        client.post("/explain", content=body, headers=JSON)
                    asked.append(i)
            except httpx.HTTPError:
                pass
    askers = [threading.Thread(target=ask, args=(i,)) for i in range(24)]
    for asker in askers:
        asker.start()
    eventually(lambda: set(asked) == set(range(24)))
    front.process.terminate()
    assert front.wait() == 0, front.output()
    for asker in askers:
        asker.join()


# --- headrace ctl ---------------------------------------------------------------------------------


def ctl(front, *arguments, text=None):
    done = subprocess.run([BIN, "ctl", "--admin", front.admin_url, *arguments], input=text, capture_output=True, text=True,
                          timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_ctl_explains(trio, tmp_path):
    front = trio("--policy", "cache_aware", router={"threads": 1}, explain={"headers": True})
    request = tmp_path / "request.json"
    request.write_text(json.dumps(chat_body(max_tokens=1, prompt_cache_key="talk")))
    code, shown, _ = ctl(front, "explain", "-f", str(request))
    first = front.post("/v1/chat/completions", content=request.read_bytes(), headers={"content-type": "application/json"})
    where, reason = first.headers["x-headrace-instance"], first.headers["x-headrace-reason"]
    assert code == 0 and "policy   cache_aware" in shown
    assert f"chosen   {where}: its first token is expected soonest" in shown and reason == "lowest_ttft"
    heading, *rows = shown.split("\n\n")[1].splitlines()
    assert len(rows) == 3 and rows[0].split()[:2] == ["1", where] and rows[0].endswith("chosen")
    assert all(row.index("http") == heading.index("INSTANCE") for row in rows)
    assert ctl(front, "explain", text=request.read_text())[:2] == ctl(front, "explain", "--file", "-", text=request.read_text())[:2]
    code, shown, _ = ctl(front, "explain", "--json", "--path", "/v1/messages", "-f", str(request))
    assert code == 0 and json.loads(shown)["demand"]["capability"] == "messages"
    assert ctl(front, "explain", text="{")[::2] == (1, "headrace ctl: 400 invalid_json: the request body is not valid JSON\n")


def test_ctl_explains_what_headers_ask(engine, router):
    front = router([engine(["m"]) for _ in range(3)], "--policy", "session")
    text = json.dumps(chat_body())
    code, shown, _ = ctl(front, "explain", "--header", "x-session-id: talk", "--header", "X-Headrace-Deadline-Ms:5000", text=text)
    assert code == 0 and "of a session" in shown and "(sticky_new)" in shown
    code, shown, _ = ctl(front, "explain", "--header", "x-headrace-privacy: restricted", text=text)
    assert code == 0 and "refused  with 403 privacy_violation; nobody: " in shown
    assert shown.count("may not see such data: they are restricted, it is cleared for public") == 3
    assert "of no session" in ctl(front, "explain", text=text)[1]
    code, _, said = ctl(front, "explain", "--header", "x-headrace-privacy: much", text=text)
    assert code == 1 and said.startswith("headrace ctl: 400 bad_request: ")


def test_ctl_shows_decisions(trio):
    front = trio("--policy", "round_robin", router={"threads": 1})
    for i in range(4):
        front.chat(headers={"x-request-id": f"r{i}"})
    code, shown, _ = ctl(front, "decisions", "--limit", "3")
    heading, *rows = shown.splitlines()
    assert code == 0 and [row.split()[-1] for row in rows] == ["r3", "r2", "r1"]
    assert all("round_robin" in row and " 200 " in row for row in rows)
    code, shown, _ = ctl(front, "--json", "decisions")
    assert code == 0 and len(json.loads(shown)["decisions"]) == 4
    one = json.loads(shown)["decisions"][0]
    code, shown, _ = ctl(front, "decision", "r3")
    assert code == 0 and f"chosen   {one['chosen']['instance']}: it is its turn" in shown and "ended    with 200" in shown
    assert ctl(front, "decision", one["id"])[:2] == (0, shown)
    assert ctl(front, "decision", "r9")[::2] == (1, "headrace ctl: 404 not_found: no such decision is remembered\n")


def test_ctl_passes_on_what_is_text(trio):
    front = trio()
    code, shown, _ = ctl(front, "config")
    assert code == 0 and json.loads(shown) == front.admin("/config").json()
    code, shown, _ = ctl(front, "metrics")
    assert code == 0 and "headrace_requests_total" in shown


@pytest.mark.parametrize("arguments", [[], ["why"], ["decision"], ["decision", "a", "b"], ["decision", "a/b"], ["config", "x"],
                                       ["decisions", "--limit", "0"], ["decisions", "--reason", "a&b"], ["explain", "-f"],
                                       ["explain", "-f", "/no/such/file"], ["explain", "--path", "chat"],
                                       ["explain", "--header", "no colon"], ["explain", "--header", "a: b\r\nc: d"],
                                       ["explain", "--header", "Content-Length: 3"], ["explain", "--header", ": x"],
                                       ["--admin", "ftp://a", "config"], ["config", "--no-such-flag"]])
def test_ctl_usage(arguments):
    done = subprocess.run([BIN, "ctl", *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and done.stderr and not done.stdout


def test_ctl_without_a_router():
    done = subprocess.run([BIN, "ctl", "--admin", f"http://127.0.0.1:{free_port()}", "config"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 1 and "connect" in done.stderr
