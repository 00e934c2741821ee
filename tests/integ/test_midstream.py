"""An engine that dies while it answers: the client must see it, and must never take the rest for the end."""
import gzip
import json

import openai
import pytest

from fakeworker import STREAM_HEAD, chunk
from program import KEY, chat_body, eventually, raw_request, read_to_end

ENDLESS = {"stream": True, "max_tokens": 100000}
DIALECTS = {
    "/v1/chat/completions": chat_body(**ENDLESS),
    "/v1/completions": {"model": "m", "prompt": "x"} | ENDLESS,
    "/v1/messages": chat_body(**ENDLESS),
    "/v1/responses": {"model": "m", "input": "x", "stream": True, "max_output_tokens": 100000},
}
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"w"}}]}\n\n'
CLEAN_ENDS = (b"[DONE]", b"\r\n0\r\n\r\n", b"message_stop", b"response.completed")


def check_cut(reply, path):
    """One error event in the path's dialect stands last, and nothing looks like an end."""
    assert not [end for end in CLEAN_ENDS if end in reply], reply[-300:]
    last = reply.rstrip(b"\r\n").rsplit(b"\n\n", 1)[-1].split(b"\r\n")[-1].strip()
    lines = dict(line.split(b": ", 1) for line in last.split(b"\n"))
    data = json.loads(lines[b"data"])
    if path == "/v1/messages":
        assert lines[b"event"] == b"error" and data["type"] == "error" and data["error"]["type"]
    elif path == "/v1/responses":
        assert lines[b"event"] == b"response.failed" and data["type"] == "response.failed"
        assert data["response"]["error"]["code"]
    else:
        assert data["error"]["code"] == "upstream_failed" and data["error"]["message"]


def decoded(reply):
    """The chunks' data of a reply that has no last chunk."""
    rest, data = reply.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        n = int(size, 16)
        data, rest = data + rest[:n], rest[n + 2:]
    return data


@pytest.mark.parametrize("path", DIALECTS)
def test_an_engine_that_is_shot(engine, router, path):
    worker = engine(["m"])
    front = router([worker])
    with front.connect() as s:
        s.sendall(raw_request(DIALECTS[path], path))
        first, _ = read_to_end(s, b"data: ")
        worker.kill()
        rest, _ = read_to_end(s)
    check_cut(first + rest, path)
    assert front.log(1)[0]["cause"] not in ("", "-", None)


@pytest.mark.parametrize("n", [1, 2, 5, 20])
@pytest.mark.parametrize("path", DIALECTS)
def test_an_engine_that_resets_after_n_events(engine, router, path, n):
    workers = [engine(["m"], "--fault", f"reset:{n}") for _ in range(2)]
    front = router(workers)
    with front.connect() as s:
        s.sendall(raw_request(DIALECTS[path], path))
        reply, _ = read_to_end(s)
    check_cut(reply, path)
    assert sum(w.count("started") for w in workers) == 1     # nothing is repeated after the first byte


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_stream_cut_between_events_by_fin(fake, router, version):
    def script(peer):
        peer.request()
        peer.send(STREAM_HEAD, chunk(EVENT), chunk(EVENT))
    with router([fake(script)]).connect() as s:
        s.sendall(raw_request(chat_body(stream=True), version=version))
        reply, end = read_to_end(s)
    assert EVENT in reply and b'"upstream_failed"' in reply and not [e for e in CLEAN_ENDS if e in reply]
    # Without chunks the end of the connection is the end of the answer: only a reset tells them apart.
    assert end == "rst" or version == "1.1"


def test_a_stream_cut_at_every_byte_of_an_event(fake, router):
    cuts = iter(range(1, len(EVENT) - 1))

    def script(peer):
        peer.request()
        peer.send(STREAM_HEAD, chunk(EVENT), chunk(EVENT[:next(cuts)]))
    front = router([fake(script)], breaker={"enabled": False})     # it fails again and again
    for cut in range(1, len(EVENT) - 1):
        with front.connect() as s:
            s.sendall(raw_request(chat_body(stream=True)))
            reply, _ = read_to_end(s)
        assert decoded(reply) == EVENT + EVENT[:cut], f"cut at {cut}"


def test_nothing_is_put_into_a_compressed_stream(fake, router):
    packed = gzip.compress(EVENT * 3)

    def script(peer):
        peer.request()
        peer.send(STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), chunk(packed))
    with router([fake(script)]).connect() as s:
        s.sendall(raw_request(chat_body(stream=True)))
        reply, _ = read_to_end(s)
    assert decoded(reply) == packed


def test_a_chunk_that_is_cut(fake, router):
    def script(peer):
        peer.request()
        peer.send(STREAM_HEAD, chunk(EVENT)[:20])
    with router([fake(script)]).connect() as s:
        s.sendall(raw_request(chat_body(stream=True)))
        reply, _ = read_to_end(s)
    assert b"0\r\n\r\n" not in reply and b"error" not in reply


@pytest.mark.parametrize("sent", [0, 1, 99])
def test_a_plain_answer_that_is_cut(fake, router, sent):
    def script(peer):
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * sent)
    with router([fake(script)]).connect() as s:
        s.sendall(raw_request(chat_body()))
        reply, _ = read_to_end(s)
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b" 502 " in head or (b"100" in head and body == b"x" * sent)


def test_a_stream_without_done_passes_as_it_is(fake, router):
    def script(peer):
        while peer.request():
            peer.send(STREAM_HEAD, chunk(EVENT), b"0\r\n\r\n")
    reply = router([fake(script)]).chat(body={"stream": True})
    assert reply.content == EVENT


def test_a_stream_that_falls_silent(engine, router):
    front = router([engine(["m"], "--fault", "hang_stream:3")], timeout={"stream_idle": "1s"})
    with front.connect() as s:
        s.sendall(raw_request(chat_body(**ENDLESS)))
        reply, _ = read_to_end(s)
    assert reply.count(b"data: ") >= 4 and b'"timeout"' in reply and not [e for e in CLEAN_ENDS if e in reply]


def test_the_sdk_sees_the_error(engine, router):
    front = router([engine(["m"], "--fault", "reset:3")])
    client = openai.OpenAI(base_url=front.url + "/v1", api_key=KEY, max_retries=0)
    texts = []
    with pytest.raises(openai.APIError):
        for event in client.chat.completions.create(**chat_body(**ENDLESS)):
            texts.append(event.choices[0].delta.content)
    assert len([t for t in texts if t]) == 3


def test_after_it_all_nothing_is_in_flight(engine, router):
    workers = [engine(["m"], "--fault", "reset:2") for _ in range(2)]
    front = router(workers, breaker={"enabled": False})        # they fail again and again
    for _ in range(50):
        with front.connect() as s:
            s.sendall(raw_request(chat_body(**ENDLESS)))
            assert b'"upstream_failed"' in read_to_end(s)[0]
    eventually(lambda: front.metric("headrace_in_flight") == 0)
    eventually(lambda: front.metric("headrace_connections", side="client") == 0)
