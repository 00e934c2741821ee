"""Stored responses: only the engine that made one can go on from it or show it."""
import openai
import pytest

from program import PROMPT, chat_body, eventually, http
from sdk import sdk

N_CONVERSATIONS, N_TURNS = 30, 3


def owners(engines, response_id):
    """-> the numbers of the engines that have it, asked directly"""
    return [i for i, e in enumerate(engines) if e.get(f"/v1/responses/{response_id}").status_code == 200]


def turn(client, previous=None, stream=False, **more):
    """-> the id of one more response"""
    said = client.responses.create(model="m", input=PROMPT, max_output_tokens=4, stream=stream,
                                   **({"previous_response_id": previous} if previous else {}), **more)
    return next(iter([e.response.id for e in said if e.type == "response.created"])) if stream else said.id


def converse(router):
    """-> the ids of each conversation; turns of all of them take their turns, over connections of their own"""
    talks = [[] for _ in range(N_CONVERSATIONS)]
    for n in range(N_TURNS):
        for i, ids in enumerate(talks):
            with sdk(router) as client:
                ids.append(turn(client, ids[-1] if ids else None, stream=(i + n) % 3 == 0))
    return talks


@pytest.fixture
def trio(engine):
    return [engine(["m"]) for _ in range(3)]


@pytest.mark.parametrize("policy", ["round_robin", "cache_aware", "random"])
def test_a_conversation_stays_where_its_responses_are(trio, router, policy):
    front = router(trio, "--policy", policy, router={"threads": 2})
    talks = converse(front)
    homes = set()
    with sdk(front) as client:
        for ids in talks:
            home, = {tuple(owners(trio, one)) for one in ids}
            assert len(home) == 1
            homes.add(home)
            for one in ids:
                assert client.responses.retrieve(one).id == one
                with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
                    client.responses.cancel(one)
            client.responses.delete(ids[0])
            assert owners(trio, ids[0]) == []
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(ids[0])
    assert len(homes) > 1


def test_a_path_has_no_model(engine, router):
    """Of several models, each at some engines only."""
    engines = [engine(["m", "a"]), engine(["b", "m"]), engine(["m"])]
    front = router(engines, "--policy", "round_robin")
    with sdk(front) as client:
        for ids in (turn(client) for _ in range(12)):
            assert client.responses.retrieve(ids).id == ids
            with pytest.raises(openai.BadRequestError):
                client.responses.cancel(ids)
            with http() as plain:                                # as no SDK asks, with a body that is none
                how = {"headers": {"content-type": "application/json"}}
                assert plain.post(f"{front.url}/v1/responses/{ids}/cancel", **how).status_code == 400


@pytest.mark.parametrize("n_bytes", [300_000, 3 << 19])      # less and more than inspect_limit
def test_the_previous_one_may_be_named_behind_a_long_input(trio, router, n_bytes):
    front = router(trio, "--policy", "round_robin", router={"threads": 2})
    with sdk(front) as client:
        firsts = [turn(client) for _ in range(6)]
        for one in firsts:
            body = {"model": "m", "input": "x" * n_bytes, "max_output_tokens": 1, "previous_response_id": one}
            with http() as plain:
                reply = plain.post(front.url + "/v1/responses", json=body)
            assert reply.status_code == 200, reply.text
            assert owners(trio, reply.json()["id"]) == owners(trio, one)


def test_it_is_explained_and_remembered(trio, router):
    front = router(trio, "--policy", "round_robin", explain={"headers": True})
    with sdk(front) as client, http() as plain:
        for _ in range(6):
            made = client.responses.with_raw_response.create(model="m", input=PROMPT, max_output_tokens=1)
            at, one = made.headers["x-headrace-instance"], made.parse().id
            body = {"model": "m", "input": "go on", "previous_response_id": one}
            for _ in range(4):
                said = plain.post(front.admin_url + "/explain", json=body).json()
                assert (said["reason"], said["rows"][0]["instance"]) == ("response_owner", at)
            said = client.responses.with_raw_response.create(**body)
            assert (said.headers["x-headrace-reason"], said.headers["x-headrace-instance"]) == ("response_owner", at)
            got = plain.get(f"{front.url}/v1/responses/{one}")
            assert (got.headers["x-headrace-reason"], got.headers["x-headrace-instance"]) == ("response_owner", at)
            newest = front.admin("/decisions?reason=response_owner").json()["decisions"][0]
            assert (newest["reason"], newest["chosen"]["instance"]) == ("response_owner", at)


def stranger(engines, router, policy):
    """-> another router for these engines, which has seen none of their answers, and ids of responses, by engine"""
    before = router(engines, "--policy", "round_robin")
    with sdk(before) as client:
        ids = [turn(client) for _ in range(9)]
    before.stop()
    return router(engines, "--policy", policy), sorted(ids, key=lambda one: owners(engines, one))


@pytest.mark.parametrize("policy", ["round_robin", "random"])
def test_a_restart_loses_no_response(trio, router, policy):
    """One engine after another is asked, and who has it is known from then on."""
    front, ids = stranger(trio, router, policy)
    with sdk(front) as client:
        for one in ids:
            assert client.responses.retrieve(one).id == one
        for record in front.log(len(ids)):
            assert record["status"] == 200 and record["attempts"] <= 3
        assert any(record["attempts"] > 1 for record in front.log())
        for decision in front.admin("/decisions").json()["decisions"]:
            *before, last = [attempt["cause"] for attempt in decision["attempts"]]
            assert set(before) <= {"response_absent"} and last == "none" and decision["no_retry"] is None
        for one in ids:
            assert owners([trio[owners(trio, one)[0]]], turn(client, one)) == [0]
        assert all(record["attempts"] == 1 for record in front.log(2 * len(ids))[len(ids):])
        assert front.metric("headrace_retries_total") == front.metric("headrace_retries_denied_total") == 0


def test_another_router_cancels_and_deletes(trio, router):
    front, ids = stranger(trio, router, "round_robin")
    with sdk(front) as client:
        for one in ids:
            with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
                client.responses.cancel(one)
        for one in ids:
            client.responses.delete(one)
            assert owners(trio, one) == []
            with pytest.raises(openai.NotFoundError, match=f"{one}' not found"):
                client.responses.retrieve(one)
        for ask in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
            with pytest.raises(openai.NotFoundError, match="resp_unknown' not found"):
                ask("resp_unknown")
    records = front.log(3 * len(ids) + 3)
    assert [record["attempts"] for record in records if "resp_unknown" in record["path"]] == [3, 3, 3]


def is_not_found(ask):
    """-> whether the answer is 404; while the owner is only left alone for a moment it is another one"""
    try:
        ask()
    except openai.NotFoundError as e:
        assert "not found" in str(e)
        return True
    except openai.InternalServerError as e:
        assert (e.status_code, e.response.headers["retry-after"]) == (503, "1")
        return False
    raise AssertionError("it is there")


def test_an_owner_that_died_leaves_a_404(trio, router):
    """Of the others, who serve on: what is not there is the response, not the route."""
    front = router(trio, "--policy", "random")
    with sdk(front) as client:
        ids = [turn(client) for _ in range(18)]
        homes = {one: owners(trio, one)[0] for one in ids}
        lost = homes[ids[0]]
        trio[lost].kill()
        for one in ids:
            if homes[one] == lost:
                for ask in (lambda: client.responses.retrieve(one), lambda: turn(client, one),
                            lambda: turn(client, one, stream=True), lambda: client.responses.cancel(one)):
                    eventually(lambda: is_not_found(ask))
            else:
                assert client.responses.retrieve(one).id == one
                assert owners([trio[homes[one]]], turn(client, one)) == [0]
        left = [e for i, e in enumerate(trio) if i != lost]
        served = [e.count("started") for e in left]
        for _ in range(40):
            turn(client)
        assert all(e.count("started") > before for e, before in zip(left, served))
    assert front.metric("headrace_capability_cleared_total") == 0


def test_others_are_not_pinned(trio, router):
    """A chat may bring the member, which is a session there and nothing else."""
    for one in trio:
        one.declared = one.models       # no later snapshot changes whose turn it is
    front = router(trio, "--policy", "round_robin")
    with sdk(front) as client:
        one = turn(client)
        before = [e.count("started") for e in trio]
        for _ in range(9):
            client.chat.completions.create(**chat_body(max_tokens=1), extra_body={"previous_response_id": one})
        assert [e.count("started") - n for e, n in zip(trio, before)] == [3, 3, 3]
