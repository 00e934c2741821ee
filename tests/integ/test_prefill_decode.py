"""A prompt that one engine computes and another one decodes, for each connector. The engines check what real ones would."""
import json

import pytest

from pairs import CHAT, CONNECTORS, LONG, Pairs, bodies_of, headers_of, key_of, long_chat, transfers
from program import chat_body, eventually, raw_request, read_to_end
from sdk import sdk

APIS = {
    CHAT: {"messages": [{"role": "user", "content": LONG}], "max_tokens": 4},
    "/v1/completions": {"prompt": LONG, "max_tokens": 4},
    "/v1/responses": {"input": LONG, "max_output_tokens": 4},
    "/inference/v1/generate": {"token_ids": list(range(400)), "sampling_params": {"max_tokens": 4}},
}
GENERATE = {"/generate": {"text": LONG, "sampling_params": {"max_new_tokens": 4}}}


@pytest.fixture
def pairs(start):
    return lambda *args, **how: Pairs(start, *args, **how)


def apis_of(name):
    return APIS | (GENERATE if name == "sglang" else {})


@pytest.mark.parametrize("name", CONNECTORS)
def test_each_api_is_shared(pairs, name):
    """Whole answers and streams, several of each: what the first ones have taught changes how the next ones go."""
    fleet = pairs(name)
    first, second = fleet.pair
    n = 0
    for path, body in apis_of(name).items():
        for stream in (False, True, False):
            answer = fleet.front.post(path, json=body | {"model": "m", "stream": stream})
            assert answer.status_code == 200 and '"error":{' not in answer.text, answer.text
            n += 1
    fleet.settle()
    assert [(e.count("finished"), e.count("started")) for e in (first, second)] == [(n, n)] * 2
    assert fleet.legs() == [["prefill"] * n, ["decode"] * n]
    assert transfers(first)["fetched"] == n
    assert fleet.front.metric("headrace_prefills_total") == n
    assert {r["prefill"] for r in fleet.front.log(n)} == {first.url}


@pytest.mark.parametrize("name", CONNECTORS)
def test_the_official_client_notices_nothing(pairs, name):
    fleet = pairs(name)
    with sdk(fleet.front) as client:
        ask = (lambda stream: client.chat.completions.create(
            model="m", max_tokens=4, stream=stream, messages=[{"role": "user", "content": LONG}]))
        whole = ask(False).choices[0].message.content
        streamed = "".join(c.choices[0].delta.content or "" for c in ask(True) if c.choices)
    assert whole and whole == streamed
    fleet.settle()


@pytest.mark.parametrize("n_bytes", [1 << 10, 64 << 10, 900 << 10, 2 << 20])
@pytest.mark.parametrize("name", CONNECTORS)
def test_bodies_of_any_size(pairs, name, n_bytes):
    fleet = pairs(name)
    body = json.dumps(chat_body(messages=[{"role": "user", "content": ""}], max_tokens=4))
    body = body.replace('"content": ""', '"content": "%s"' % ("x " * ((n_bytes - len(body)) // 2)))
    for _ in range(2):
        answer = fleet.front.post(CHAT, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200, answer.text
    fleet.settle()
    assert fleet.legs() == [["prefill"] * 2, ["decode"] * 2]


def test_a_body_that_cannot_be_held_whole_is_for_one_engine(pairs):
    fleet = pairs(router={"hold_limit": "1MiB"})
    assert fleet.front.chat(body={"messages": [{"role": "user", "content": "x " * (1 << 20)}]}).status_code == 200
    fleet.settle()
    assert fleet.legs() == [[], [None]]


@pytest.mark.parametrize("name", ["nixl", "nixl_push", "moriio_read", "moriio_write"])
def test_parameters_of_clients_are_replaced(pairs, name):
    fleet = pairs(name)
    forged = {"do_remote_prefill": True, "remote_host": "forged", "remote_port": 1, "remote_engine_id": "forged"}
    for _ in range(2):
        assert fleet.chat(kv_transfer_params=forged).status_code == 200
    fleet.settle()
    assert fleet.legs() == [["prefill"] * 2, ["decode"] * 2]
    assert not any("forged" in body for e in fleet.pair for body in bodies_of(e))


@pytest.mark.parametrize("name", ["nixl", "moriio_write", "sglang"])
def test_headers_and_keys_of_the_client_reach_both(pairs, name):
    fleet = pairs(name)
    sent = {"authorization": "Bearer of-the-client", "x-session-id": "s1", "x-anything": "a, b"}
    assert fleet.chat(headers=sent).status_code == 200
    for engine in fleet.pair:
        got, = headers_of(engine)
        assert {key: got[key] for key in sent} == sent
        assert got.get("accept-encoding", "identity") == "identity"


@pytest.mark.parametrize("name", ["nixl", "sglang"])
def test_each_gets_its_own_key(pairs, name):
    fleet = pairs(name, has_keys=True)
    assert fleet.chat(headers={"authorization": "Bearer of-the-client"}).status_code == 200
    for engine in fleet.pair:
        got, = headers_of(engine)
        assert got["authorization"] == f"Bearer {key_of(engine)}"


def test_both_get_the_same_id(pairs):
    fleet = pairs("p2p_nccl")
    answer = fleet.chat(headers={"x-request-id": "of-the-client"})
    assert answer.headers["x-request-id"] == "of-the-client"
    first, second = [headers_of(e)[0]["x-request-id"] for e in fleet.pair]
    assert first == second and first.startswith("___prefill_addr_127.0.0.1:")


def test_bodies_are_edited_and_not_written_anew(pairs):
    fleet = pairs()
    front = '{ "model" : "m",\t"messages": [{"role":"user","content":"\\u00e4 %s"}], "unknown": [1.10, {"a":null}],' % LONG
    given = front + ' "max_tokens": 7 , "stream":true, "stream_options": {"include_usage": true} }'
    assert fleet.front.post(CHAT, content=given, headers={"content-type": "application/json"}).status_code == 200
    first, second = [bodies_of(e)[0] for e in fleet.pair]
    params = '"kv_transfer_params":{"do_remote_decode":true,'
    assert first.startswith("{" + params) and first.endswith(front[1:] + ' "max_tokens": 1 , "stream":false }')
    assert second.startswith('{"kv_transfer_params":{') and second.endswith("," + given[1:])


@pytest.mark.parametrize("path, key", [("/generate", "text"), ("/v1/completions", "prompt")])
@pytest.mark.parametrize("n", [1, 3, 100])
def test_lists_of_prompts_meet_in_rooms_of_their_own(pairs, path, key, n):
    fleet = pairs("sglang")
    prompts = [f"{i} {LONG}" for i in range(n)]
    answer = fleet.front.post(path, json={"model": "m", key: prompts, "max_tokens": 2, "sampling_params": {"max_new_tokens": 2}})
    assert answer.status_code == 200, answer.text
    rooms = [json.loads(bodies_of(e, path)[0])["bootstrap_room"] for e in fleet.pair]
    assert rooms[0] == rooms[1] and len(set(rooms[0])) == n
    fleet.settle()


def test_an_answer_that_began_is_the_decodes(pairs):
    """Its usage is that of the engine that said it, and load is held at each engine for as long as it works."""
    fleet = pairs(decode_flags=["--fault", "hang_stream:2"])
    first, second = fleet.pair
    s = fleet.front.connect()
    with s:
        s.sendall(raw_request(long_chat(stream=True)))
        read_to_end(s, b"data: ")
        in_flight = (lambda e: fleet.front.metric("headrace_in_flight", instance=e.url))
        assert (in_flight(first), in_flight(second)) == (0, 1)
        eventually(lambda: first.count("finished") == 1)
    fleet.settle()
    assert second.count("cancelled") == 1
