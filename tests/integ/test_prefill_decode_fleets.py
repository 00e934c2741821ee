"""Pairs beside others: engines that do it all, other connectors, other models; who is picked of each role, and changes while they work."""
import json

import pytest

from fakeworker import answer
from pairs import CONNECTORS, Pairs, Side, long_chat
from program import Engine, chat_body, eventually, http, raw_request
from test_instances import act, done
from test_reload import reload
from upgrading import Knocker, UpgradableRouter

HOW = {"router": {"threads": 1}, "health": {"probe": False, "passive": False}}     # who is there stays as it is
ROUND = {"default": "round_robin", "prefill": "round_robin", "decode": "round_robin"}


@pytest.fixture
def pairs(start):
    return lambda *args, **how: Pairs(start, *args, **(HOW | how))


def begin(fleet, i=0):
    """A request that stays. -> its connection."""
    s = fleet.front.connect()
    s.sendall(raw_request(long_chat(i, stream=True)))
    return s


# --- who is picked

@pytest.mark.parametrize("name", CONNECTORS)
def test_unified_engines_and_pairs_have_one_model(pairs, name):
    fleet = pairs(name, unified=1)
    for i in range(6):
        assert fleet.chat(i).status_code == 200
    fleet.settle()
    assert fleet.legs() == [["prefill"] * 3, ["decode"] * 3, [None] * 3]


@pytest.mark.parametrize("busy", ["prefill", "unified"])
def test_the_policy_decides_for_each_request(pairs, busy):
    fleet = pairs(unified=1, policy={"default": "least_load"})
    prefill, decode, unified = fleet.engines
    held = {}
    for engine in (prefill, unified):
        engine.fault("hang_head")
    for i in range(2):      # one goes to each
        s = begin(fleet, i)
        eventually(lambda: prefill.count("running") + unified.count("running") == i + 1)
        held[next(e for e in (prefill, unified) if e not in held and e.count("running"))] = s
    idle = unified if busy == "prefill" else prefill
    held.pop(idle).close()
    eventually(lambda: fleet.front.metric("headrace_in_flight", instance=idle.url) == 0)
    idle.fault("none")
    for i in range(4):
        assert fleet.chat(i).status_code == 200
    assert (idle.count("finished"), decode.count("finished")) == (4, 0 if busy == "prefill" else 4)
    for s in held.values():
        s.close()
    fleet.rest()


def test_each_role_has_its_policy(pairs):
    fleet = pairs(prefills=2, decodes=3, policy=ROUND)
    for i in range(12):
        assert fleet.chat(i).status_code == 200
    fleet.settle()
    assert fleet.legs() == [["prefill"] * 6] * 2 + [["decode"] * 4] * 3


def test_sessions_stay_with_their_engines(pairs):
    fleet = pairs(prefills=3, decodes=3, policy={"prefill": "session", "decode": "session"})
    for i in range(9):
        assert fleet.chat(i, headers={"x-session-id": "one"}).status_code == 200
    fleet.settle()
    assert sorted(map(len, fleet.legs())) == [0, 0, 0, 0, 9, 9]


@pytest.mark.parametrize("names", [("nixl", "sglang"), ("moriio_read", "moriio_write"), ("p2p_nccl", "nixl")])
def test_connectors_are_not_mixed(start, names):
    """Engines refuse what is not of theirs."""
    sides = [(Side(role, CONNECTORS[names[1]])) for role in ("prefill", "prefill", "decode", "decode")]
    others = [(start(Engine, ["m"], *side.flags), side.labels) for side in sides]
    fleet = Pairs(start, names[0], prefills=2, decodes=2, others=others, policy=ROUND, **HOW)
    urls = {e.url for e in fleet.engines}
    for i in range(16):
        assert fleet.chat(i).status_code == 200
    records = fleet.front.log(16)
    assert all((r["prefill"] in urls) == (r["instance"] in urls) for r in records)
    assert len({r["prefill"] for r in records}) == 4


def test_other_models_have_no_part_in_it(pairs, engine):
    fleet = pairs(others=[(engine(["n"]), None)])
    assert fleet.front.chat("n").status_code == 200
    assert fleet.chat().status_code == 200
    fleet.settle()
    assert fleet.legs() == [["prefill"], ["decode"]]
    assert [r.get("prefill") for r in fleet.front.log(2)] == [None, fleet.prefills[0].url]


def test_pairs_are_of_one_model_where_none_is_asked_for(start, engine):
    """Where nobody knows the name, too, and it is relayed."""
    sides = [Side(role, CONNECTORS["nixl"]) for role in ("prefill", "decode")]
    others = [(start(Engine, ["n"], *side.flags), side.labels) for side in sides]
    fleet = Pairs(start, others=others, policy=ROUND | {"decode": "random"}, **HOW | {"router": {"threads": 1, "unknown_models": "relay"}})
    urls = {e.url for e in fleet.engines}
    for i in range(16):
        asked = long_chat(i) | {"model": "adapter"}
        if i % 2:
            del asked["model"]
        assert fleet.front.post("/v1/chat/completions", json=asked).status_code in (200, 404)    # no engine has an adapter
    records = fleet.front.log(16)
    assert all((r["prefill"] in urls) == (r["instance"] in urls) for r in records)
    assert len({r["prefill"] for r in records}) == 2


# --- what two cannot share

@pytest.mark.parametrize("name", CONNECTORS)
def test_what_is_no_prompt_goes_to_who_decodes(pairs, name):
    fleet = pairs(name)
    text = {"model": "m", "prompt": "a b"}
    assert fleet.front.post("/tokenize", json=text).status_code == 200
    assert fleet.front.post("/v1/embeddings", json={"model": "m", "input": "a"}).status_code == 200
    made = fleet.front.post("/v1/responses", json={"model": "m", "input": f"{long_chat()}", "max_output_tokens": 2})
    assert made.status_code == 200
    with http() as client:
        for method in ("GET", "DELETE"):
            assert client.request(method, f"{fleet.front.url}/v1/responses/{made.json()['id']}").status_code == 200
    fleet.settle()
    asked = [{r["path"] for r in e.captured()["requests"] if r["method"] != "GET"} for e in fleet.pair]
    assert asked[0] <= {"/v1/responses"} and {"/tokenize", "/v1/embeddings", "/v1/responses"} <= asked[1]


# --- what is not worth two

@pytest.mark.parametrize("name", CONNECTORS)
def test_short_prompts_are_computed_where_they_are_decoded(pairs, name):
    fleet = pairs(name, pd={"min_uncached_tokens": 256})
    assert fleet.front.chat().status_code == 200
    assert fleet.chat().status_code == 200
    fleet.settle()
    assert fleet.legs()[1] == ([None, "decode"] if CONNECTORS[name].is_alone else ["decode"] * 2)


def test_prompts_that_are_mostly_cached_likewise(pairs):
    fleet = pairs(pd={"min_uncached_tokens": 256}, policy={"default": "cache_aware"})
    for _ in range(3):
        assert fleet.chat().status_code == 200
    fleet.settle()
    assert fleet.legs() == [["prefill"], ["decode", None, None]]


# --- two that do not get on

def test_those_who_fail_together_are_kept_apart(pairs, fake):
    """Each of them does with others."""
    def script(peer):
        while True:
            request = peer.request()
            if not request:
                return
            params = json.loads(request[1]).get("kv_transfer_params") or {}
            peer.send(answer(status=b"500 Oops") if params.get("remote_engine_id") in enemies else answer())
    enemies = set()
    stranger = fake(script)
    fleet = pairs(prefills=2, others=[(stranger, {"role": "decode", "kv_connector": "nixl"})], breaker={"enabled": False},
                  policy=ROUND | {"decode": "random"})
    enemies.add(engine_id(fleet.prefills[0]))
    statuses = [fleet.chat(i).status_code for i in range(80)]
    assert statuses.count(500) == 3 and statuses.count(200) == 77
    records = fleet.front.log(80)
    assert [r["prefill"] for r in records if r["instance"] == stranger.url].count(fleet.prefills[0].url) == 3
    assert [r["prefill"] for r in records].count(fleet.prefills[0].url) == 40


def engine_id(prefill):
    """As its connector calls it."""
    asked = {"do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
             "remote_host": None, "remote_port": None}
    told = prefill.post("/v1/chat/completions", json=chat_body(max_tokens=1, kv_transfer_params=asked))
    return told.json()["kv_transfer_params"]["remote_engine_id"]


# --- changes while they work

TIMES = {"announce": "500ms", "drain": "60s", "upgrade": "60s"}


@pytest.mark.parametrize("name", ["nixl", "nixl_push", "sglang"])
def test_nothing_is_lost_by_reloads_and_upgrades(pairs, name):
    fleet = pairs(name, prefills=2, decodes=2, unified=1, kind=UpgradableRouter, timeout=TIMES, router={"threads": 2})
    knocker = Knocker(fleet.front, keeps=True, max_tokens=8)
    for i in range(3):
        knocker.more(30)
        reload(fleet.front, pd={"min_uncached_tokens": i})
        knocker.more(30)
        fleet.front.upgrade()
    knocker.more(30)
    knocker.stop()
    fleet.settle()
    assert all("prefill" in legs for legs in fleet.legs()[:2]) and all("decode" in legs for legs in fleet.legs()[2:4])


@pytest.mark.parametrize("role", ["prefills", "decodes"])
@pytest.mark.parametrize("name", ["nixl", "nixl_push", "sglang"])
def test_nothing_is_lost_when_one_drains(pairs, name, role):
    fleet = pairs(name, policy=ROUND, **{role: 2})
    leaves, stays = getattr(fleet, role)
    knocker = Knocker(fleet.front, max_tokens=8)
    for verb in ("drain", "undrain"):
        knocker.more(30)
        done(act(fleet.front, leaves.url, verb))
        eventually(lambda: verb == "undrain" or fleet.front.metric("headrace_in_flight", instance=leaves.url) == 0)
        n = leaves.count("started")
        knocker.more(30)
        assert (leaves.count("started") == n) == (verb == "drain")
    knocker.stop()
    fleet.settle()
