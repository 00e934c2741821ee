"""The access log: one record a request, whatever the peers do and whatever becomes of the log."""
import json
import os
import subprocess

import pytest

from fakeworker import answer
from ports import free_port
from program import KEY, PAGES, PROMPT, chat_body, eventually, http, raw_request, read_to_end

FIELDS = set("ts id method path model instance status bytes_in bytes_out queue_ms connect_ms first_byte_ms "
             "first_token_ms total_ms tokens_in tokens_out tokens_estimated reason attempts cause".split())


def test_the_record_of_a_chat(engine, router):
    front = router([engine(["m"])])
    reply = front.chat(body={"max_tokens": 9}, headers={"x-request-id": "id-1"})
    record, = front.log(1)
    assert record.keys() == FIELDS
    assert (record["id"], record["method"], record["path"]) == ("id-1", "POST", "/v1/chat/completions")
    assert (record["model"], record["status"], record["attempts"]) == ("m", 200, 1)
    assert record["tokens_in"] == reply.json()["usage"]["prompt_tokens"] and record["tokens_out"] == 9
    assert not record["tokens_estimated"]
    assert record["bytes_in"] > 0 and record["bytes_out"] >= len(reply.content)
    assert 0 <= record["first_byte_ms"] <= record["total_ms"]


def test_tokens_of_a_stream(engine, router):
    front = router([engine(["m"])], router={"threads": 1})
    front.chat(body={"stream": True, "max_tokens": 9, "stream_options": {"include_usage": True}})
    front.chat(body={"stream": True, "max_tokens": 9})
    counted, estimated = front.log(2)
    assert (counted["tokens_out"], counted["tokens_estimated"]) == (9, False)
    assert estimated["tokens_estimated"] and abs(estimated["tokens_out"] - 9) <= 1
    assert counted["first_token_ms"] <= counted["total_ms"]


def test_refusals_are_logged_with_their_cause(engine, router):
    front = router([engine(["m"]), engine(["other"])])
    front.chat("no such")
    front.post("/v1/chat/completions", content=b"{")
    with front.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_to_end(s)
    assert {(r["status"], r["cause"]) for r in front.log(3)} == {
        (404, "model_not_found"), (400, "invalid_json"), (400, "malformed")}


def test_no_line_can_be_forged(fake, router):
    """Every byte in target, header, model and user agent: the log stays one JSON object a request."""
    def script(peer):
        while peer.request():
            peer.send(answer())
    front = router([fake(script)])
    n, get, post = 0, b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    fields = (b"User-Agent", b"X-Request-Id", b"X-Session-Id", b"Authorization", b"X-Api-Key", b"X-Headrace-Priority")
    for byte in range(256):
        forged = b'x"}%s{"status":200,"id":"forged' % bytes([byte])
        body = json.dumps({"model": forged.decode("latin-1")}).encode()
        for head, rest in ((b"GET /%s HTTP/1.1\r\n" % forged, b""), (post % len(body), body),
                           *((get + b"%s: %s\r\n" % (field, forged), b"") for field in fields)):
            with front.connect() as s:
                s.sendall(head + b"Host: a\r\nConnection: close\r\n\r\n" + rest)
                n += read_to_end(s)[0].startswith(b"HTTP/1.1 ")
    records = front.log(n)
    assert len(records) == n
    assert all(r.keys() == FIELDS and r["id"] != "forged" for r in records)
    assert n == 8 * 256 and {200, 400, 404} <= {r["status"] for r in records}
    assert all(json.loads(text) for text in (front.folder / "stderr").read_text().splitlines())
    decisions = front.admin("/decisions?limit=1000").json()["decisions"]
    assert decisions and all(d["id"] != "forged" for d in decisions)


def test_prompts_and_keys_are_in_no_log(engine, router):
    """The fixture looks for both in log, stderr, metrics and /config of every test; here they meet every exit."""
    front = router([engine(["m"], "--api-key", KEY, "--fault", "fail_rate:0.5,status:500")], ready=0, log={"level": "debug"})
    for headers in ({"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
        for path in ("/v1/chat/completions", "/v1/messages", f"/x?api_key={KEY}"):
            front.post(path, json=chat_body(), headers=headers)
            front.post(path, content=json.dumps(chat_body())[:-1], headers=headers)
    front.log(12)


def test_no_secret_comes_out(engine, router, tmp_path):
    """Keys of a tenant, of the administrator, of engines, of the registry; a prompt: right ones, wrong ones, and where they do not belong.
    All of them begin like KEY, so that the fixture looks for them wherever the router speaks."""
    keys = tmp_path / "keys"
    keys.write_text(f"a {KEY}-tenant\n")
    worker = engine(["m"], "--api-key", f"{KEY}-engine")
    front = router([worker], tenants=[{"name": "a"}], auth={"keys_file": str(keys)}, admin={"key": f"{KEY}-admin"}, log={"level": "debug"},
                   env={"HEADRACE_DISCOVERY_ENGINE_KEY": f"{KEY}-engine", "HEADRACE_DISCOVERY_REGISTRY_TOKEN": f"{KEY}-registry"},
                   discovery={"registry_url": f"http://127.0.0.1:{free_port()}"}, explain={"headers": True})
    heard = ""

    def ask(url, key, **how):
        with http() as client:
            reply = client.request(how.pop("method", "POST"), url, headers={"authorization": f"Bearer {KEY}-{key}"}, **how)
        return reply.status_code, str(reply.headers) + reply.text
    for key, wanted in (("tenant", 200), ("wrong", 401), ("admin", 401), ("engine", 401)):
        for body in {"json": chat_body()}, {"content": json.dumps(chat_body())[:-1]}, {"json": chat_body("other")}:
            status, text = ask(front.url + "/v1/chat/completions", key, **body)
            heard += text if status != 200 else ""
            assert status == wanted or wanted == 200
        heard += ask(front.url + "/v1/models", key, method="GET")[1]
        for path in "/explain", "/breakers/x/trip", "/nothing", "/config?key=" + KEY:
            heard += ask(front.admin_url + path, key, json=chat_body())[1]
    heard += "".join(front.admin(page).text for page in PAGES)
    assert len(front.log(12)) >= 12 and '"a"' in heard
    assert KEY not in heard and PROMPT not in heard


def test_off(engine, router):
    front = router([engine(["m"])], log={"access": "off"})
    assert front.chat().status_code == 200
    assert not front.access.exists() and '"status"' not in front.output()


def chats(front, n):
    with http(base_url=front.url) as client:
        return {client.post("/v1/chat/completions", json=chat_body(max_tokens=1)).status_code for _ in range(n)}


def answers(front, n):
    """Asks something cheap n times at once, for as many records; -> how many answers came."""
    with front.connect() as s:
        s.sendall(b"GET /liveness HTTP/1.1\r\nHost: a\r\n\r\n" * (n - 1) +
                  b"GET /liveness HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return read_to_end(s)[0].count(b"HTTP/1.1 200 ")


def dropped(front):
    return front.metric("headrace_log_lines_dropped_total")


def test_a_full_disk(engine, router):
    front = router([engine(["m"])], log={"access": "/dev/full"})
    eventually(lambda: answers(front, 1000) == 1000 and dropped(front) > 0, seconds=60)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small disk")
def test_a_disk_that_was_full_is_used_again(engine, router, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(60 * 1024))
        front = router([engine(["m"])], log={"access": str(disk / "access.log")})
        eventually(lambda: answers(front, 1000) == 1000 and dropped(front) > 0)
        ballast.unlink()
        before = (disk / "access.log").stat().st_size
        eventually(lambda: chats(front, 1) == {200} and (disk / "access.log").stat().st_size > before)
        front.stop()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_pipe_that_nobody_reads_and_then_somebody_does(engine, router):
    reader, writer = os.pipe()
    front = router([engine(["m"])], log={"access": "-"}, stdout=writer)
    os.close(writer)
    eventually(lambda: answers(front, 1000) == 1000 and dropped(front) > 0, seconds=60)
    os.set_blocking(reader, False)

    def fresh_record_arrives():
        chats(front, 1)
        try:
            while os.read(reader, 1 << 20):
                pass
        except BlockingIOError:
            pass
        before = dropped(front)
        return chats(front, 5) == {200} and dropped(front) == before
    eventually(fresh_record_arrives)
    os.close(reader)


def test_a_pipe_whose_reader_has_gone(engine, router):
    reader, writer = os.pipe()
    front = router([engine(["m"])], log={"access": "-"}, stdout=writer)
    os.close(writer)
    os.close(reader)
    eventually(lambda: answers(front, 1000) == 1000 and dropped(front) > 0, seconds=60)


def test_stdout_has_nothing_but_records(engine, router):
    front = router([engine(["m"])], log={"access": "-"})
    chats(front, 10)

    def records():
        return [json.loads(line) for line in (front.folder / "stdout").read_text().splitlines()]
    eventually(lambda: len([r for r in records() if r.get("method") == "POST"]) == 10)
