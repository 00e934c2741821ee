"""Two mock engines as prefill and decode, and a plain client in place of the router, for each KV connector."""
import json
import re
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from ports import free_port
from program import PROMPT, eventually, http, raw_request

APIS = {
    "/v1/chat/completions": ({"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 4}, "max_tokens"),
    "/v1/completions": ({"prompt": PROMPT, "max_tokens": 4}, "max_tokens"),
    "/v1/responses": ({"input": PROMPT, "max_output_tokens": 4}, "max_output_tokens"),
    "/v1/messages": ({"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 4}, "max_tokens"),
    "/generate": ({"text": PROMPT, "sampling_params": {"max_new_tokens": 4}}, "sampling_params"),
    "/inference/v1/generate": ({"token_ids": [1, 2, 3], "sampling_params": {"max_tokens": 4}}, "sampling_params"),
}
ONE = {"/generate": {"max_new_tokens": 1}, "/inference/v1/generate": {"max_tokens": 1}}     # in sampling_params
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
    return engine.post(path, json=leg(path, params, **{APIS[path][1]: ONE.get(path, 1)}) | more)


def said(answer):
    """The answer without what is another one's in each."""
    return re.sub(r'"(\w*id|created\w*)":("[^"]*"|\d+)', "", answer.text)


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
    alone = engine(["m"]).post(path, json=APIS[path][0])
    assert said(answer) == said(alone)
    assert transfers(first) == {"asked": 0, "making": 0, "held": 0, "fetched": 1, "expired": 0, "failed": 0}


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
    ({"kv_transfer_params": {"remote_engine_id": "somebody"}}, "of another engine, rank or prompt"),
    ({"messages": [{"role": "user", "content": "else"}]}, "of another engine, rank or prompt")])
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


def test_each_rank_is_an_engine_to_others(pair):
    first, second = pair("nixl", "--data-parallel-size", "2")
    told = [first.post(CHAT, json=leg(CHAT, PULL, max_tokens=1), headers={"X-data-parallel-rank": rank}).json()["kv_transfer_params"]
            for rank in "01"]
    wrong = told[0] | {"remote_engine_id": told[1]["remote_engine_id"]}
    assert [second.post(CHAT, json=leg(CHAT, params)).status_code for params in (wrong, *told)] == [500, 200, 200]


def test_a_prefill_tells_of_its_prompt_and_a_decode_does_not(pair):
    first, second = pair("nixl")
    more = {"echo": True, "logprobs": 1, "prompt_logprobs": 1}
    told = first.post("/v1/completions", json=leg("/v1/completions", PULL, max_tokens=1) | more).json()
    answer = second.post("/v1/completions", json=leg("/v1/completions", told["kv_transfer_params"]) | more).json()
    (one,), (two,) = told["choices"], answer["choices"]
    assert len(one["prompt_logprobs"]) == told["usage"]["prompt_tokens"] and two["prompt_logprobs"] is None
    assert one["logprobs"]["tokens"][0] == PROMPT[:4] and two["logprobs"]["text_offset"][0] == 0
    assert two["logprobs"]["tokens"][:-4] == one["logprobs"]["tokens"][:-1]
    assert set(two["logprobs"]["token_logprobs"][:-4]) == set(two["logprobs"]["top_logprobs"][:-4]) == {None}
    assert None not in two["logprobs"]["token_logprobs"][-4:] and None not in one["logprobs"]["token_logprobs"][1:]


# --- legs at once -------------------------------------------------------------------------

@pytest.fixture
def both():
    """both(f, g) -> what they return; each has a thread of its own."""
    with ThreadPoolExecutor(2) as pool:
        yield lambda *calls: [future.result() for future in [pool.submit(call) for call in calls]]


@pytest.fixture
def sglang(engine):
    """sglang(...) -> prefill, decode, and what a body must say to bring them together."""
    def start(*flags):
        port = free_port()
        flags = ("--kv-connector", "sglang", *flags)
        first = engine(["m"], "--role", "prefill", "--bootstrap-port", port, *flags)
        return first, engine(["m"], "--role", "decode", *flags), room(port)
    return start


def room(port, n=2**63 - 1):
    return {"bootstrap_host": "127.0.0.1", "bootstrap_port": port, "bootstrap_room": n}


@pytest.mark.parametrize("stream", [False, True])
def test_sglang_legs_meet_in_a_room(sglang, both, stream):
    first, second, place = sglang()
    body = APIS[CHAT][0] | place | {"stream": stream}
    answers = both(lambda: first.post(CHAT, json=body), lambda: second.post(CHAT, json=body))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [e.ledger()["generations"][0]["emitted_tokens"] for e in (first, second)] == [1, 4]
    assert transfers(first)["fetched"] == 1


def test_sglang_batches_have_a_room_for_each_prompt(sglang, both):
    first, second, place = sglang()
    arrays = {key: [value, value] for key, value in place.items()} | {"bootstrap_room": [5, 6]}
    body = {"prompt": [PROMPT, "else"], "max_tokens": 4} | arrays
    answers = both(lambda: first.post("/v1/completions", json=body), lambda: second.post("/v1/completions", json=body))
    assert [answer.status_code for answer in answers] == [200, 200] and len(answers[1].json()["choices"]) == 2
    for wrong in (place, arrays | {"bootstrap_room": [5]}, arrays | {"bootstrap_host": ["127.0.0.1", "localhost"]}):
        assert second.post("/v1/completions", json=body | place | wrong).status_code == 400


@pytest.mark.parametrize("key, value", [
    ("bootstrap_host", None), ("bootstrap_host", ""), ("bootstrap_port", 0), ("bootstrap_port", 65536),
    ("bootstrap_room", -1), ("bootstrap_room", 1.5), ("bootstrap_room", "5")])
def test_sglang_legs_without_a_room_are_refused(sglang, key, value):
    first, second, place = sglang()
    bodies = [APIS[CHAT][0] | place | {key: value}, {k: v for k, v in (APIS[CHAT][0] | place).items() if k != key}]
    assert {e.post(CHAT, json=body).status_code for e in (first, second) for body in bodies} == {400}


def test_a_prefill_refuses_the_port_of_another_one(sglang):
    first, _, place = sglang()
    assert first.post(CHAT, json=APIS[CHAT][0] | place | {"bootstrap_port": 1}).status_code == 400


@pytest.mark.parametrize("role, end", [(0, "no decode has come for it"), (1, "unknown")])
def test_a_leg_whose_other_one_does_not_come_fails(sglang, role, end):
    *engines, place = sglang("--kv-ttl", "10ms")
    answer = engines[role].post(CHAT, json=APIS[CHAT][0] | place)
    assert answer.status_code == 500 and message_of(answer).endswith(end)


def test_a_decode_fails_with_its_prefill(sglang, both):
    first, second, place = sglang("--itl", "1s", "--prefill-rate", "1")
    body = APIS[CHAT][0] | place
    with socket.create_connection(("127.0.0.1", first.port)) as s:
        s.sendall(raw_request(body))
        eventually(lambda: transfers(first)["making"] == 1)
        leave = (lambda: (eventually(lambda: second.count("running") == 1), s.close()))
        answer, _ = both(lambda: second.post(CHAT, json=body), leave)
    assert answer.status_code == 500 and message_of(answer).endswith("failed")
    assert first.count("cancelled") == 1 and transfers(first)["failed"] == 1


def test_a_prefill_sees_its_decode_leave(sglang):
    first, second, place = sglang("--kv-ttl", "1h")
    with socket.create_connection(("127.0.0.1", second.port)) as s:
        s.sendall(raw_request(APIS[CHAT][0] | place))
        eventually(lambda: transfers(first)["asked"] == 1)
    eventually(lambda: transfers(first)["asked"] == 0)
    assert second.count("cancelled") == 1
    with socket.create_connection(("127.0.0.1", first.port)) as s:      # nobody is in the room any more
        s.sendall(raw_request(APIS[CHAT][0] | place))
        eventually(lambda: transfers(first)["making"] == 1)
        assert first.ledger()["generations"][0]["first_token_ms"] is None
    eventually(lambda: transfers(first)["failed"] == 1)


# --- push ---------------------------------------------------------------------------------

def known(told):
    """What of a push prefill's answer is true of its next ones."""
    return {key: told[key] for key in ("remote_engine_id", "remote_host", "remote_port", "tp_size")}


def pushed(identity, request_id):
    return {"do_remote_prefill": True, "do_remote_decode": False, "remote_request_id": request_id} | identity


def test_nixl_pushes_to_a_decode_that_is_there_already(pair, both):
    first, second = pair("nixl_push")
    told = prefill(first).json()["kv_transfer_params"]
    assert told["transfer_mode"] == "push" and "remote_block_ids" not in told
    identity = known(told)
    answers = both(
        lambda: first.post(CHAT, json=leg(CHAT, PULL, max_tokens=1), headers={"x-request-id": "r1"}),
        lambda: second.post(CHAT, json=leg(CHAT, pushed(identity, "r1")), headers={"x-request-id": "r1"}))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert second.post(CHAT, json=leg(CHAT, pushed(identity, told["remote_request_id"]))).status_code == 200
    assert transfers(first)["fetched"] == 2
    assert second.post(CHAT, json=leg(CHAT, identity | pushed(identity, None))).status_code == 400


def test_a_push_that_fails_is_the_end_of_its_decode(pair, both):
    first, second = pair("nixl_push", "--max-num-seqs", "1")
    identity = known(prefill(first).json()["kv_transfer_params"])
    body = leg(CHAT, PULL, max_tokens=1)
    with socket.create_connection(("127.0.0.1", first.port)) as hung, socket.create_connection(("127.0.0.1", first.port)) as s:
        hung.sendall(raw_request(body, headers="x-mock-fault: hang_head\r\n"))
        eventually(lambda: first.count("running") == 1)
        s.sendall(raw_request(body, headers="x-request-id: r1\r\n"))      # waits for its turn
        leave = (lambda: (eventually(lambda: transfers(first)["asked"] == 1), s.close()))
        answer, _ = both(lambda: second.post(CHAT, json=leg(CHAT, pushed(identity, "r1"), stream=True)), leave)
    assert answer.status_code == 200 and json.loads(answer.text.removeprefix("data: "))["error"]["message"].endswith("failed")


# --- mooncake -----------------------------------------------------------------------------

@pytest.fixture
def mooncake(engine):
    """mooncake(...) -> prefill, decode, address of the first one's bootstrap server."""
    def start(*flags):
        port = free_port()
        flags = ("--kv-connector", "mooncake", *flags)
        return (engine(["m"], "--role", "prefill", "--bootstrap-port", port, *flags),
                engine(["m"], "--role", "decode", *flags), f"http://127.0.0.1:{port}")
    return start


def engine_ids(address):
    with http() as client:
        return client.get(address + "/query").json()


def test_mooncake_legs_share_a_transfer_id(mooncake):
    first, second, address = mooncake("--data-parallel-size", "2")
    ids = engine_ids(address)
    assert sorted(ids) == ["0", "1"] and ids["0"]["engine_id"] != ids["1"]["engine_id"]

    def legs(rank_told):
        params = {"do_remote_decode": True, "do_remote_prefill": False, "transfer_id": f"xfer-{uuid.uuid4()}"}
        made = first.post(CHAT, json=leg(CHAT, params, max_tokens=1), headers={"X-data-parallel-rank": "1"})
        assert made.status_code == 200 and made.json()["kv_transfer_params"] is None
        params |= {"do_remote_decode": False, "do_remote_prefill": True, "remote_bootstrap_addr": address,
                   "remote_engine_id": ids[rank_told]["engine_id"]}
        return second.post(CHAT, json=leg(CHAT, params)).status_code
    assert [legs("1"), legs("0")] == [200, 500]


@pytest.mark.parametrize("change", [{"transfer_id": "xfer-1"}, {"transfer_id": str(uuid.UUID(int=0))}, {"transfer_id": None},
                                    {"remote_bootstrap_addr": None}, {"remote_engine_id": ""}])
def test_mooncake_legs_without_all_params_are_refused(mooncake, change):
    first, second, address = mooncake()
    params = {"do_remote_decode": True, "do_remote_prefill": False, "transfer_id": f"xfer-{uuid.UUID(int=0)}"}
    if "transfer_id" in change:
        assert prefill(first, params=params | change).status_code == 400
    params |= {"do_remote_decode": False, "do_remote_prefill": True, "remote_bootstrap_addr": address, "remote_engine_id": "e"}
    assert second.post(CHAT, json=leg(CHAT, params | change)).status_code == 400


# --- addresses in request ids --------------------------------------------------------------

@pytest.fixture
def addressed(engine):
    """addressed(connector, ...) -> prefill, decode, and the beginning of their request ids."""
    def start(connector, *flags):
        places = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        engines = [engine(["m"], "--role", role, "--kv-connector", connector, "--zmq-address", place, *flags)
                   for role, place in zip(("prefill", "decode"), places)]
        return *engines, "___prefill_addr_{}___decode_addr_{}_".format(*places)
    return start


def named(engine, request_id, body):
    return engine.post(CHAT, json=body, headers={"x-request-id": request_id})


def test_p2p_nccl_legs_find_each_other_by_their_request_id(addressed, both):
    first, second, start = addressed("p2p_nccl")
    body, one = APIS[CHAT][0], APIS[CHAT][0] | {"max_tokens": 1}
    first_id, second_id = start + "0" * 32, start + "1" * 32
    assert [named(first, first_id, one).status_code, named(second, first_id, body).status_code] == [200, 200]
    answers = both(lambda: named(second, second_id, body), lambda: named(first, second_id, one))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert transfers(first)["fetched"] == 2


def test_p2p_nccl_legs_die_of_an_id_without_their_addresses(addressed):
    first, second, start = addressed("p2p_nccl")
    body, own = APIS[CHAT][0] | {"max_tokens": 1}, start + "0" * 32
    others = start.replace("___decode_addr_127.0.0.1", "___decode_addr_127.0.0.2").replace(
        "___prefill_addr_127.0.0.1", "___prefill_addr_127.0.0.2") + "0" * 32
    for wrong in ("r1", start + "0" * 31, start + "x" * 32, own.replace("_prefill", ""), others):
        assert [named(e, wrong, body).status_code for e in (first, second)] == [500, 500]
    assert first.post(CHAT, json=body).status_code == 500


def transfer(**more):
    return {"transfer_id": "tx-" + uuid.uuid4().hex, "remote_dp_size": 1, "remote_engine_id": None, "remote_block_ids": None} | more


def as_prefill(params):
    return APIS[CHAT][0] | {"max_tokens": 1, "kv_transfer_params": params | {"do_remote_decode": True, "do_remote_prefill": False}}


def as_decode(params):
    return APIS[CHAT][0] | {"kv_transfer_params": params | {"do_remote_decode": False, "do_remote_prefill": True}}


def test_moriio_reads_what_the_answer_names(addressed):
    first, second, start = addressed("moriio")
    request_id, params = start + "0" * 32, transfer()
    told = named(first, request_id, as_prefill(params)).json()["kv_transfer_params"]
    assert told["transfer_id"] == params["transfer_id"] and told["remote_block_ids"]
    assert named(second, request_id, as_decode(told)).status_code == 400
    assert named(second, request_id, as_decode(told | {"remote_dp_size": 1})).status_code == 200


def test_moriio_writes_to_a_decode_that_is_there_already(addressed, both):
    first, second, start = addressed("moriio", "--kv-mode", "write", "--data-parallel-size", "2")
    request_id, params = start + "0" * 32, transfer(remote_tp_size=1, remote_dp_size=2, remote_dp_rank=1)
    headers = {"x-request-id": request_id, "X-data-parallel-rank": "1"}
    answers = both(lambda: second.post(CHAT, json=as_decode(params), headers=headers),
                   lambda: first.post(CHAT, json=as_prefill(params), headers=headers))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].json()["kv_transfer_params"] is None
    params = transfer(remote_tp_size=1, remote_dp_size=2, remote_dp_rank=0)
    assert first.post(CHAT, json=as_prefill(params), headers=headers).status_code == 200
    assert second.post(CHAT, json=as_decode(params | {"remote_dp_rank": 1}), headers=headers).status_code == 200
    params = transfer(remote_tp_size=1, remote_dp_size=2, remote_dp_rank=0)     # the prefill is rank 1
    assert first.post(CHAT, json=as_prefill(params), headers=headers).status_code == 200
    assert second.post(CHAT, json=as_decode(params), headers=headers).status_code == 500


@pytest.mark.parametrize("change", [
    {"transfer_id": "tx-1"}, {"transfer_id": "xfer-" + "0" * 32}, {"remote_dp_size": 0}, {"remote_dp_size": None},
    {"remote_dp_size": 2}, {"remote_dp_size": 2, "remote_dp_rank": 2}, {"remote_tp_size": None}, {"remote_block_ids": [1]}])
def test_moriio_legs_without_all_params_are_refused(addressed, change):
    first, second, start = addressed("moriio", "--kv-mode", "write")
    params = transfer(remote_tp_size=1) | change
    assert named(first, start + "0" * 32, as_prefill(params)).status_code == 400
    assert named(second, start + "0" * 32, as_decode(params)).status_code == 400
