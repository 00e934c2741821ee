"""Pairs of engines with data-parallel ranks: each leg goes to one rank, and what the legs are told of each other says which."""
import json
from collections import Counter

import pytest

from pairs import CONNECTORS, Pairs, bodies_of, headers_of, transfers

N = 12
SIZES = [(2, 2), (2, 1), (1, 3)]
ONE = {"threads": 1}        # they all go round together


@pytest.fixture
def pairs(start):
    """pairs(connector, (n, m)): a prefill with n ranks and a decode with m, as the router's configuration has it."""
    def open_pairs(name, sizes):
        flags = [["--data-parallel-size", str(n)] for n in sizes]
        router = ONE | {"prefill_data_parallel_size": sizes[0], "decode_data_parallel_size": sizes[1]}
        return Pairs(start, name, prefill_flags=flags[0], decode_flags=flags[1], router=router)
    return open_pairs


def ranks_of(engine):
    """As the engine has it."""
    return Counter(row["rank"] for row in engine.ledger()["generations"])


def legs_of(engine):
    """[(rank that was asked for, None without one; the leg's parameters)] in the order of their coming."""
    ranks = [headers.get("x-data-parallel-rank") for headers in headers_of(engine)]
    return list(zip(ranks, (json.loads(body).get("kv_transfer_params") for body in bodies_of(engine))))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", CONNECTORS)
def test_each_leg_goes_to_one_rank(pairs, name, sizes):
    fleet = pairs(name, sizes)
    for i in range(N):
        answer = fleet.chat(i, stream=i % 2 == 1)
        assert answer.status_code == 200 and '"error":{' not in answer.text, answer.text
    fleet.settle()
    assert fleet.legs() == [["prefill"] * N, ["decode"] * N]
    assert transfers(fleet.prefills[0])["fetched"] == N
    for engine, n in zip(fleet.pair, sizes):
        assert ranks_of(engine) == dict.fromkeys(range(n), N // n)
        asked = Counter(rank for rank, _ in legs_of(engine))
        assert asked == ({str(k): N // n for k in range(n)} if n > 1 else {None: N})


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ["moriio_read", "moriio_write"])
def test_moriio_is_told_the_other_rank(pairs, name, sizes):
    fleet = pairs(name, sizes)
    assert [fleet.chat(i).status_code for i in range(N)] == [200] * N
    fleet.settle()
    first, second = [{params["transfer_id"]: (rank, params) for rank, params in legs_of(engine)} for engine in fleet.pair]
    assert first.keys() == second.keys() and len(first) == N
    for transfer, (rank, params) in first.items():
        other_rank, other = second[transfer]
        assert [p["remote_dp_size"] for p in (params, other)] == [sizes[1], sizes[0]]
        assert params.get("remote_dp_rank") == (int(other_rank) if sizes[1] > 1 else None)
        if name == "moriio_write":      # otherwise the prefill's answer says it
            assert other.get("remote_dp_rank") == (int(rank) if sizes[0] > 1 else None)


@pytest.mark.parametrize("name", ["nixl", "mooncake"])
def test_the_rank_that_computed_a_prompt_is_named(pairs, name):
    fleet = pairs(name, (2, 2))
    assert [fleet.chat(i).status_code for i in range(N)] == [200] * N
    fleet.settle()
    assert set(Counter(params["remote_engine_id"] for _, params in legs_of(fleet.decodes[0])).values()) == {N // 2}
