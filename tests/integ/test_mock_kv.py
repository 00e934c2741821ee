"""Two mock engines as prefill and decode, and a plain client in place of the router, for each KV connector."""
import json

import pytest

from program import PROMPT, eventually, http

APIS = {
    "/v1/chat/completions": ({"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 4}, "max_tokens"),
    "/v1/completions": ({"prompt": PROMPT, "max_tokens": 4}, "max_tokens"),
    "/v1/responses": ({"input": PROMPT, "max_output_tokens": 4}, "max_output_tokens"),
}
CHAT = "/v1/chat/completions"
NULLS = {"remote_engine_id": None, "remote_block_ids": None, "remote_host": None, "remote_port": None}
PULL = {"do_remote_decode": True, "do_remote_prefill": False} | NULLS


@pytest.fixture
def pair(engine):
    """pair(connector, ...) -> a prefill and a decode that speak it."""
    return lambda connector, *flags: [
        engine(["m"], "--role", role, "--kv-connector", connector, *flags) for role in ("prefill", "decode")]


def transfers(engine):
    return engine.ledger()["transfers"]


def leg(path, params, **more):
    return APIS[path][0] | {"kv_transfer_params": params} | more


def prefill(engine, path=CHAT, params=PULL, **more):
    return engine.post(path, json=leg(path, params, **{APIS[path][1]: 1}) | more)


def message_of(answer):
    return answer.json()["error"]["message"]


@pytest.mark.parametrize("path", APIS)
def test_nixl_pulls_the_blocks_that_a_prefill_names(pair, engine, path):
    first, second = pair("nixl")
    told = prefill(first, path).json()["kv_transfer_params"]
    assert told["do_remote_prefill"] is True and told["do_remote_decode"] is False and told["tp_size"] == 1
    assert transfers(first)["held"] == 1
    answer = second.post(path, json=leg(path, told))
    assert answer.status_code == 200
    alone = engine(["m"]).post(path, json=APIS[path][0]).json()
    said = {"/v1/responses": "output", CHAT: "choices", "/v1/completions": "choices"}[path]
    assert json.dumps(alone[said]).split("text")[1:] == json.dumps(answer.json()[said]).split("text")[1:]
    assert transfers(first) == {"making": 0, "held": 0, "fetched": 1, "expired": 0, "failed": 0}


def test_a_decode_that_fetched_its_blocks_computes_nothing_of_the_prompt(engine):
    first = engine(["m"], "--role", "prefill", "--kv-connector", "nixl")
    second = engine(["m"], "--role", "decode", "--kv-connector", "nixl", "--prefill-rate", "1")    # it would take an hour
    long = {"messages": [{"role": "user", "content": "word " * 3000}]}
    told = prefill(first, **long).json()["kv_transfer_params"]
    usage = second.post(CHAT, json=leg(CHAT, told, **long)).json()["usage"]
    assert usage["prompt_tokens"] > 3000 and usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert [row["leg"] for e in (first, second) for row in e.ledger()["generations"]] == ["prefill", "decode"]


@pytest.mark.parametrize("change", [
    {"max_tokens": 2}, {"max_tokens": None}, {"max_completion_tokens": 2}, {"min_tokens": 2}, {"stream": True},
    {"stream_options": {}}, {"kv_transfer_params": None}, {"kv_transfer_params": {}},
    {"kv_transfer_params": PULL | {"do_remote_prefill": True}}, {"kv_transfer_params": PULL | {"remote_port": 1}},
    {"kv_transfer_params": {"do_remote_decode": False, "do_remote_prefill": True}}])
def test_a_prefill_that_is_none_is_refused(pair, change):
    first = pair("nixl")[0]
    assert prefill(first, **change).status_code == 400
    assert first.count("started") == 0


@pytest.mark.parametrize("change", [
    {"remote_engine_id": None}, {"remote_block_ids": []}, {"remote_block_ids": ["1"]}, {"remote_host": None},
    {"remote_port": "80"}, {"tp_size": None}, {"do_remote_decode": True}, {"do_remote_decode": None}])
def test_a_decode_without_all_params_is_refused(pair, change):
    first, second = pair("nixl")
    told = prefill(first).json()["kv_transfer_params"]
    assert second.post(CHAT, json=leg(CHAT, told | change)).status_code == 400
    assert transfers(first)["held"] == 1


def test_a_decode_may_prefill_for_itself(pair):
    second = pair("nixl")[1]
    assert second.post(CHAT, json=APIS[CHAT][0]).status_code == 200
    assert second.ledger()["generations"][0]["leg"] is None


def test_one_engine_may_be_both(engine):
    both = engine(["m"], "--kv-connector", "nixl")
    told = prefill(both).json()["kv_transfer_params"]
    assert both.post(CHAT, json=leg(CHAT, told)).status_code == 200
    assert [row["leg"] for row in both.ledger()["generations"]] == ["prefill", "decode"]


@pytest.mark.parametrize("change, why", [
    ({"kv_transfer_params": {"remote_block_ids": [1, 2]}}, "unknown"), ({"kv_transfer_params": {"remote_port": 1}}, "connect failed"),
    ({"kv_transfer_params": {"remote_engine_id": "somebody"}}, "of another engine or prompt"),
    ({"messages": [{"role": "user", "content": "else"}]}, "of another engine or prompt")])
def test_a_decode_of_blocks_that_are_not_there_fails(pair, change, why):
    first, second = pair("nixl")
    told = prefill(first).json()["kv_transfer_params"]
    body = leg(CHAT, told | change.get("kv_transfer_params", {})) | {k: v for k, v in change.items() if k == "messages"}
    answer = second.post(CHAT, json=body)
    assert answer.status_code == 500 and message_of(answer).endswith(why)
    assert second.ledger()["generations"][0]["cause"] == "kv_transfer"


def test_blocks_are_fetched_once(pair):
    first, second = pair("nixl")
    told = prefill(first).json()["kv_transfer_params"]
    assert [second.post(CHAT, json=leg(CHAT, told)).status_code for _ in range(2)] == [200, 500]
    assert transfers(first)["fetched"] == 1


def test_blocks_that_nobody_fetches_expire(pair):
    first, second = pair("nixl", "--kv-ttl", "10ms")
    told = prefill(first).json()["kv_transfer_params"]
    eventually(lambda: transfers(first)["expired"] == 1)
    answer = second.post(CHAT, json=leg(CHAT, told))
    assert answer.status_code == 500 and message_of(answer).endswith("expired")


def test_a_streamed_decode_fails_in_its_stream(pair):
    first, second = pair("nixl")
    told = prefill(first).json()["kv_transfer_params"] | {"remote_engine_id": "somebody"}
    answer = second.post(CHAT, json=leg(CHAT, told, stream=True))
    assert answer.status_code == 200 and json.loads(answer.text.removeprefix("data: "))["error"]["code"] == 500


def test_faults_meet_a_leg_as_any_request(pair):
    first, second = pair("nixl")
    first.fault("status:503,fail_first:1")
    assert [prefill(first).status_code for _ in range(2)] == [503, 200]
    assert first.count("failed") == 1 and transfers(first)["failed"] == 0
