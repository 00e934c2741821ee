"""A stream whose engine is shot goes on at another one: real engines, the official SDK, and the same text to the byte."""
import re
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from program import PROMPT, chat_body, counts, eventually, raw_request, read_to_end
from sdk import sdk

ON = {"enabled": True}
MESSAGES = [{"role": "system", "content": "Quote \"\\ and é."}, {"role": "user", "content": PROMPT}]
PATHS = {
    "/v1/chat/completions": {"model": "m", "messages": MESSAGES},
    "/v1/completions": {"model": "m", "prompt": PROMPT + " \"\\ é"},
}


@pytest.fixture
def fleet(engine, router):
    def make(n=2, itl="10ms", **tables):
        engines = [engine(["m"], "--itl", itl) for _ in range(n)]
        tables = {"resume": ON, "retry": {"budget": 1}} | tables
        return router(engines, **tables), engines
    return make


def create(front, path):
    client = sdk(front)
    return client.chat.completions.create if "chat" in path else client.completions.create


def text_of(choice):
    return (choice.delta.content if hasattr(choice, "delta") else choice.text) or ""


def kill_who_works(engines):
    """-> the one that was at work on a stream and is not any more."""
    victim, = [e for e in engines if e.process.poll() is None and e.count("started") > e.count("finished")]
    victim.kill()
    return victim


@pytest.mark.parametrize("stream_options", [{"include_usage": True},
                                            {"include_usage": True, "continuous_usage_stats": True}])
@pytest.mark.parametrize("path", PATHS)
def test_the_sdk_gets_the_same_answer(fleet, path, stream_options):
    front, engines = fleet()
    ask = {"max_tokens": 60} | PATHS[path]
    plain = create(front, path)(**ask)
    chunks, n = [], 0
    for chunk in create(front, path)(**ask, stream=True, stream_options=stream_options):
        chunks.append(chunk)
        n += bool(chunk.choices and text_of(chunk.choices[0]))
        if n == 20:
            n += 1
            kill_who_works(engines)
    choice = plain.choices[0]
    assert "".join(text_of(c.choices[0]) for c in chunks if c.choices) == \
        (choice.message.content if "chat" in path else choice.text)
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    assert len({c.id for c in chunks}) == len({c.created for c in chunks}) == len({c.model for c in chunks}) == 1
    assert chunks[-1].usage.model_dump(exclude={"prompt_tokens_details"}) == \
        plain.usage.model_dump(exclude={"prompt_tokens_details"})
    record = front.log(2)[1]
    assert (record["resumed"], record["attempts"], record["cause"], record["status"]) == (1, 2, "none", 200)
    assert (record["tokens_in"], record["tokens_out"]) == (plain.usage.prompt_tokens, 60)
    assert front.metric("headrace_resumes_total") == front.metric("headrace_resumes_succeeded_total") == 1
    assert front.admin("/decisions").json()["decisions"][0]["resumed"] == 1


@pytest.mark.parametrize("path", PATHS)
def test_every_byte_is_as_without_the_death(fleet, path):
    """Of two streams with one id, one cut and one not, only the time of creation may differ."""
    body = PATHS[path] | {"stream": True, "max_tokens": 50, "stream_options": {"include_usage": True}}
    request = raw_request(body, path, headers="x-request-id: same\r\nConnection: close\r\n")
    replies = []
    for is_cut in (False, True):
        front, engines = fleet()
        with front.connect() as s:
            s.sendall(request)
            reply, _ = read_to_end(s, b"data: ")
            while reply.count(b"data: ") < 15:
                reply += read_to_end(s, b"data: ")[0]
            if is_cut:
                kill_who_works(engines)
            replies.append(reply + read_to_end(s)[0])
    events = [re.sub(rb'"created":\d+', b"", b"".join(re.findall(rb"data: .*\n\n", r))) for r in replies]
    assert events[0] == events[1]
    assert events[1].count(b"[DONE]") == 1 and all(r.endswith(b"\r\n0\r\n\r\n") for r in replies)


def test_many_streams_at_once(fleet):
    """One of three engines dies under 24 streams: each has its own text, whole."""
    front, engines = fleet(3, itl="20ms")
    client = sdk(front)

    def ask(i, stream):
        return client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": f"request {i}"}], max_tokens=100, stream=stream)
    with ThreadPoolExecutor(24) as pool:
        expected = list(pool.map(lambda i: ask(i, False).choices[0].message.content, range(24)))
        streams = [pool.submit(lambda i=i: "".join(text_of(c.choices[0]) for c in ask(i, True))) for i in range(24)]
        eventually(lambda: counts(engines, "started") == 48)
        eventually(lambda: front.metric("headrace_in_flight") == 24)
        engines[1].kill()
        assert [s.result() for s in streams] == expected
    n_resumed = sum(r.get("resumed", 0) for r in front.log(48))
    assert n_resumed == front.metric("headrace_resumes_succeeded_total") > 0
    eventually(lambda: front.metric("headrace_in_flight") == 0)


def test_a_stream_that_falls_silent_goes_on(fleet):
    front, engines = fleet(timeout={"stream_idle": "1s"}, router={"threads": 1})      # of two streams each gets one
    ask = {"max_tokens": 30} | PATHS["/v1/chat/completions"]
    plain = create(front, "chat")(**ask)
    engines[0].fault("hang_stream:5")
    for _ in range(2):
        chunks = create(front, "chat")(**ask, stream=True)
        assert "".join(text_of(c.choices[0]) for c in chunks) == plain.choices[0].message.content
    assert front.metric("headrace_resumes_succeeded_total") == 1


def test_when_all_reset_the_client_is_told(fleet):
    front, engines = fleet(4)
    for e in engines:
        e.fault("reset:3")
    texts = []
    with pytest.raises(openai.APIError):
        for chunk in create(front, "chat")(**PATHS["/v1/chat/completions"], max_tokens=90, stream=True):
            texts.append(text_of(chunk.choices[0]))
    assert len([t for t in texts if t]) == 9                  # three engines, three tokens each
    assert counts(engines, "started") == 3
    record, = front.log(1)
    assert (record["resumed"], record["cause"]) == (2, "stream_broken")
    assert front.metric("headrace_resumes_total") == 2 and front.metric("headrace_resumes_succeeded_total") == 0


@pytest.mark.parametrize("more", [{"n": 2}, {"logprobs": True}, {"response_format": {"type": "json_object"}}])
def test_what_is_not_sound_is_cut_as_before(fleet, more):
    front, engines = fleet()
    for e in engines:
        e.fault("reset:3")
    with front.connect() as s:
        s.sendall(raw_request(chat_body(stream=True, max_tokens=90, **more)))
        reply, _ = read_to_end(s)
    assert b'"upstream_failed"' in reply and b"[DONE]" not in reply
    assert counts(engines, "started") == 1 and front.metric("headrace_resumes_total") == 0


def test_it_is_off_by_default(fleet):
    front, engines = fleet(resume={})
    for e in engines:
        e.fault("reset:3")
    with front.connect() as s:
        s.sendall(raw_request(chat_body(stream=True, max_tokens=90)))
        reply, _ = read_to_end(s)
    assert b'"upstream_failed"' in reply and counts(engines, "started") == 1
