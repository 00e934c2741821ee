"""What only the engine that prefilled knows stands in the client's answer, which is the decoding engine's."""
import json
import re

import pytest

from pairs import CHAT, CONNECTORS, LONG, Pairs, long_chat
from program import Engine, chat_body, raw_request, read_to_end
from sdk import sdk

USAGE = {"stream_options": {"include_usage": True}}


@pytest.fixture
def pairs(start):
    return lambda *args, **how: Pairs(start, *args, **how)


def events_of(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def usage_of(answer):
    if "event-stream" in answer.headers["content-type"]:
        usage, = [e["usage"] for e in events_of(answer.text) if e.get("usage")]
    else:
        usage = answer.json()["usage"]
    return usage


def cached(answer):
    return usage_of(answer)["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize("name", CONNECTORS)
def test_cached_tokens_are_those_of_the_prefill(pairs, name):
    """To the decoding engine either all of the prompt was cached, since it was pulled, or nothing."""
    fleet = pairs(name)
    assert cached(fleet.chat()) == 0
    again = fleet.chat()
    assert 0 < cached(again) < usage_of(again)["prompt_tokens"]
    assert cached(fleet.chat(stream=True, **USAGE)) == cached(again)
    assert cached(fleet.chat(1, stream=True, **USAGE)) < cached(again)
    fleet.settle()
    assert fleet.legs() == [["prefill"] * 4, ["decode"] * 4]


def test_the_official_client_finds_them(pairs):
    fleet = pairs()
    with sdk(fleet.front) as client:
        said = [client.chat.completions.create(model="m", max_tokens=4, messages=[{"role": "user", "content": LONG}])
                for _ in range(2)]
    first, second = [one.usage.prompt_tokens_details.cached_tokens for one in said]
    assert first == 0 < second


def test_the_log_and_the_metrics_have_what_the_client_has(pairs):
    fleet = pairs()
    fleet.chat()
    again = fleet.chat(headers={"x-request-id": "again"})
    entry, = [r for r in fleet.front.log(2) if r["id"] == "again"]
    assert entry["tokens_in"] == usage_of(again)["prompt_tokens"]
    decision = fleet.front.admin("/decisions/again").json()
    assert (decision["prefill"], decision["chosen"]["instance"]) == (fleet.prefills[0].url, fleet.decodes[0].url)
    assert decision["actual_cached_tokens"] == cached(again)
    assert entry["bytes_out"] == len(again.content)


CASES = {
    CHAT: {"messages": [{"role": "user", "content": LONG}], "max_tokens": 4},
    "/v1/completions": {"prompt": LONG, "max_tokens": 4},
}


def without_names(answer):
    """What differs from answer to answer is left out."""
    return {key: value for key, value in answer.json().items() if key not in ("id", "created", "usage", "kv_transfer_params")}


@pytest.mark.parametrize("path", CASES)
@pytest.mark.parametrize("more", [{"prompt_logprobs": 1}, {"prompt_logprobs": 2, "logprobs": 1}])
def test_prompt_logprobs_are_those_of_one_engine(pairs, start, path, more):
    """As one engine says it all: what the pair says is the same, byte for byte where it was merged."""
    fleet, alone = pairs(), start(Engine, ["m"])
    more = {"prompt_logprobs": more["prompt_logprobs"], **({"logprobs": True} if path == CHAT and "logprobs" in more else
                                                            {"logprobs": 1} if "logprobs" in more else {})}
    body = CASES[path] | {"model": "m", "seed": 1} | more
    told, expected = fleet.front.post(path, json=body), alone.post(path, json=body)
    assert told.status_code == expected.status_code == 200, (told.text, expected.text)
    assert without_names(told) == without_names(expected)
    assert "prompt_logprobs" in told.text
    fleet.settle()
    assert fleet.legs() == [["prefill"], ["decode"]]


def test_echoed_prompts_have_their_logprobs(pairs, start):
    fleet, alone = pairs(), start(Engine, ["m"])
    body = {"model": "m", "prompt": LONG, "max_tokens": 3, "echo": True, "logprobs": 2, "seed": 1}
    told, expected = [e.post("/v1/completions", json=body) for e in (fleet.front, alone)]
    assert told.status_code == expected.status_code == 200, (told.text, expected.text)
    assert without_names(told) == without_names(expected)
    assert told.json()["choices"][0]["logprobs"]["token_logprobs"][1] is not None


def stream_of(engine, **body):
    """Its bytes, without what differs from answer to answer."""
    answer = engine.post("/v1/completions", json={"model": "m", "max_tokens": 3, "seed": 1, "stream": True} | body)
    assert answer.status_code == 200, answer.text
    return re.sub(r'("id":|"created":|"prompt_tokens_details":) *("[^"]*"|\d+|{[^}]*})', r"\1null", answer.text)


def logprobs_text(text, member):
    """The items of each list of that name, as the bytes are."""
    return re.findall(rf'"{member}": *\[(.*?)\](?=, *"|}})', text)


@pytest.mark.parametrize("name", ["nixl", "mooncake", "moriio_read", "p2p_nccl"])
@pytest.mark.parametrize("more", [{"logprobs": 2}, {"logprobs": 1, "n": 2}, {"logprobs": 0, "max_tokens": 0},
                                  {"logprobs": 1, "prompt": [LONG, "fire " * 300, LONG * 2]},
                                  {"logprobs": 1, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}],
                         ids=["one", "choices", "alone", "prompts", "usage"])
def test_echoed_prompts_have_their_logprobs_in_streams(pairs, start, name, more):
    """As one engine says it all, byte for byte; and as the whole answer has them."""
    fleet, alone = pairs(name), start(Engine, ["m"])
    body = {"prompt": LONG, "echo": True} | more
    told = stream_of(fleet.front, **body)
    assert told == stream_of(alone, **body)
    whole = stream_of(fleet.front, **{k: v for k, v in body.items() if k != "stream_options"}, stream=False)
    for member in ("token_logprobs", "top_logprobs", "tokens", "text_offset"):
        firsts, wholes = {}, logprobs_text(whole, member)
        for event in told.split("\n\n"):
            for items in logprobs_text(event, member):
                firsts.setdefault(json.loads(re.search(r'"index": *(\d+)', event)[1]), items)
        assert len(firsts) == len(wholes) > 0
        assert all(len(firsts[i]) > 100 and items.startswith(firsts[i]) for i, items in enumerate(wholes))
    fleet.settle()
    assert fleet.legs() == [["prefill"] * 2, ["decode"] * 2]


@pytest.mark.parametrize("words, is_merged", [(8000, True), (40000, False)])
def test_large_events_of_an_echo(pairs, words, is_merged):
    """Up to 1 MiB; what is larger goes on as it is, and what follows it is merged."""
    fleet = pairs()
    body = {"prompt": "word " * words, "echo": True, "logprobs": 1, **USAGE}
    first, again = [stream_of(fleet.front, **body) for _ in range(2)]
    assert first == again
    event = events_of(first)[0]["choices"][0]
    assert (event["logprobs"]["token_logprobs"][1] is not None) == is_merged
    assert len(event["logprobs"]["tokens"]) > words
    answer = fleet.front.post("/v1/completions", json={"model": "m", "max_tokens": 3, "stream": True} | body)
    assert 0 < cached(answer) < usage_of(answer)["prompt_tokens"]


@pytest.mark.parametrize("name", ["nixl_push", "moriio_write", "sglang"])
def test_of_legs_at_once_a_prompt_is_told_once(pairs, name):
    """Who prefills may answer behind the first event, which is not waited for: it has the logprobs then that it came with."""
    fleet = pairs(name)
    fleet.chat()        # of a prefill that pushes the router learns so
    for i in range(4):
        choices = [e["choices"][0] for e in events_of(stream_of(fleet.front, prompt=f"{i} {LONG}", echo=True, logprobs=1))]
        told = [c["logprobs"] for c in choices]
        assert sum([t["tokens"] for t in told], [])[:2] == [f"{i} wa", "ter "]
        assert len("".join(sum([t["tokens"] for t in told], []))) == len("".join(c["text"] for c in choices))
        assert len({p is None for p in told[0]["token_logprobs"][1:-1]}) == 1
        assert not any(None in t["token_logprobs"] for t in told[1:])
    fleet.settle()


def test_an_old_client_gets_it_to_the_end_of_the_connection(pairs):
    fleet = pairs()
    fleet.chat()
    s = fleet.front.connect()
    with s:
        s.sendall(raw_request(long_chat()).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        head, _, body = read_to_end(s)[0].partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower() and b"content-length" not in head.lower()
    assert json.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_a_large_answer_is_merged_too(pairs):
    fleet = pairs()
    body = chat_body(messages=[{"role": "user", "content": "word " * 20000}], max_tokens=4, prompt_logprobs=3)
    answer = fleet.front.post(CHAT, json=body)
    assert answer.status_code == 200
    told = answer.json()
    assert len(answer.content) > 4 << 20 and len(told["prompt_logprobs"]) == told["usage"]["prompt_tokens"]
    fleet.settle()


def test_what_nobody_merges_goes_on_as_it_is(pairs):
    """A request that one engine does alone keeps its length, and so does an error."""
    fleet = pairs(pd={"min_uncached_tokens": 100000})
    answer = fleet.chat()
    assert int(answer.headers["content-length"]) == len(answer.content)
    refused = fleet.front.post(CHAT, json=chat_body(messages=[{"role": "user", "content": LONG}], max_tokens=-1))
    assert refused.status_code == 400 and int(refused.headers["content-length"]) == len(refused.content)
