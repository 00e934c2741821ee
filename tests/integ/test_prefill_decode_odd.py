"""Engines of pairs that say and do what is odd: the client gets an answer, and who is well is neither blamed nor done without."""
import json

import pytest

from fakeworker import answer
from pairs import CHAT, Pairs, long_chat
from program import Router, eventually, raw_request

RETRY = {"attempts": 3, "sent": True, "budget": 1, "backoff": "1ms"}
GIVEN = {"remote_engine_id": "e", "remote_port": 1}
GIVING = {"choices": [], "kv_transfer_params": GIVEN}
SAID = answer(b'{"id":"x","choices":[{"index":0}]}')


def in_json(said, before=b""):
    return answer(before + json.dumps(said).encode())


def saying(*pieces):
    """A script that says the same to each request."""
    def script(peer):
        while peer.request():
            peer.send(*pieces)
    return script


def told(worker):
    """The bodies of all requests to it."""
    return [json.loads(body) for _, body in worker.requests]


def params_of(worker):
    return [body.get("kv_transfer_params") for body in told(worker)]


class Odd:
    """Scripts in the place of engines, before one router."""

    def __init__(self, start, fake, prefills, decodes, labels=None, **tables):
        self.prefills, self.decodes = [[fake(script) for script in side] for side in (prefills, decodes)]
        roles = [{"role": "prefill"}] * len(prefills) + [{"role": "decode"}] * len(decodes)
        self.front = start(Router, [*self.prefills, *self.decodes], labels=[r | (labels or {}) for r in roles],
                           **{"pd": {"min_uncached_tokens": 0}, "router": {"threads": 1}} | tables)

    def ask(self, n=1, **more):
        """-> the statuses of so many requests."""
        return [self.front.post(CHAT, json=long_chat(i, **more)).status_code for i in range(n)]


@pytest.fixture
def odd(start, fake):
    return lambda prefills, decodes, **how: Odd(start, fake, prefills, decodes, **how)


# --- what a prefill says ------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b" ", b"\n", b"\r\n\t "])
def test_white_space_before_what_a_prefill_says(odd, before):
    fleet = odd([saying(in_json(GIVING, before))], [saying(SAID)])
    assert fleet.ask(2) == [200] * 2
    assert params_of(fleet.decodes[0]) == [GIVEN] * 2


@pytest.mark.parametrize("said", [{}, {"kv_transfer_params": None}, {"kv_transfer_params": {}}, GIVING])
def test_the_parameters_are_never_the_clients(odd, said):
    fleet = odd([saying(in_json(said))], [saying(SAID)])
    assert fleet.ask(kv_transfer_params={"do_remote_prefill": True, "remote_host": "of the client"}) == [200]
    given, = params_of(fleet.decodes[0])
    assert (given or None) == (said.get("kv_transfer_params") or None)


@pytest.mark.parametrize("labels", [{}, {"kv_connector": "moriio", "kv_mode": "read", "zmq_address": "127.0.0.1:1"}])
@pytest.mark.parametrize("params", [b"{ }", b'{"transfer_mode":"push"}', b'{ "transfer_mode" : "push" }',
                                    b'{"a":1,"transfer_mode":"push"}'])
def test_parameters_that_say_little_leave_the_body_valid(odd, labels, params):
    fleet = odd([saying(answer(b'{"kv_transfer_params":' + params + b"}"))], [saying(SAID)], labels=labels)
    assert fleet.ask(2) == [200] * 2
    assert [body["messages"] for body in told(fleet.decodes[0])] == [long_chat(i)["messages"] for i in range(2)]


@pytest.mark.parametrize("params", [b"{}", b"{ }", b'{ "max_tokens":9 }', b"{\n}"])
def test_limits_in_an_odd_object(odd, params):
    fleet = odd([saying(in_json(GIVING))], [saying(SAID)])
    body = b'{"model":"m","token_ids":%s,"sampling_params":%s}' % (json.dumps([*range(400)]).encode(), params)
    how = {"content": body, "headers": {"content-type": "application/json"}}
    assert fleet.front.post("/inference/v1/generate", **how).status_code == 200
    assert [body["sampling_params"] for body in told(fleet.prefills[0])] == [{"max_tokens": 1}]
    assert [body["sampling_params"] for body in told(fleet.decodes[0])] == [json.loads(params)]


def hinting(*pieces):
    """A script that says so much to a request, and leaves."""
    def script(peer):
        if peer.request():
            peer.send(*pieces)
    return script


@pytest.mark.parametrize("hint", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_prefill_that_only_hints_is_lost_as_one_that_says_nothing(odd, hint):
    fleet = odd([hinting(hint), saying(in_json(GIVING))], [saying(SAID)], retry=RETRY)
    assert fleet.ask(4) == [200] * 4
    assert len(fleet.prefills[0].requests) == 2
    assert params_of(fleet.decodes[0]) == [GIVEN] * 4


# --- a prefill that is started again ------------------------------------------------------------------


class Pushing:
    """A prefill that pushes, and a decode that knows only the engine that is there now."""

    def __init__(self):
        self.engine, self.is_new = "old", False

    def start_again(self):
        self.engine, self.is_new = "new", True

    def prefill(self, peer):
        while peer.request():
            if self.is_new:             # it has no part in what the decode refuses
                self.is_new = False
                peer.wait_for_end()
                return
            peer.send(in_json({"kv_transfer_params": {
                "transfer_mode": "push", "remote_engine_id": self.engine, "remote_host": "h", "remote_port": 1, "tp_size": 1}}))

    def decode(self, peer):
        while found := peer.request():
            known = json.loads(found[1])["kv_transfer_params"]["remote_engine_id"] == self.engine
            peer.send(SAID if known else answer(status=b"500 Internal Server Error"))


def test_who_was_started_again_unseen_is_asked_for_its_name(odd):
    script = Pushing()
    fleet = odd([script.prefill], [script.decode], retry={"attempts": 1})
    assert fleet.ask(2) == [200] * 2
    script.start_again()
    fleet.ask()
    assert fleet.ask(2) == [200] * 2
    assert [params["remote_engine_id"] for params in params_of(fleet.decodes[0])] == ["old"] * 3 + ["new"] * 2


# --- a pair that does not get on ----------------------------------------------------------------------


def leaving(peer):
    """Without an answer."""


def hanging(peer):
    peer.wait_for_end()


class Picky:
    """A decode that loses what one of the prefills made."""

    def __init__(self, lose):
        self.lose, self.lost, self.done = lose, [], []

    def __call__(self, peer):
        while found := peer.request():
            maker = json.loads(found[1])["kv_transfer_params"]["remote_engine_id"]
            if maker == "one":
                self.lost.append(maker)
                return self.lose(peer)
            peer.send(SAID)
            self.done.append(maker)


def made_by(name):
    return saying(in_json({"kv_transfer_params": {"remote_engine_id": name}}))


@pytest.mark.parametrize("lose", [leaving, hanging])
def test_who_loses_what_one_prefill_made_decodes_for_the_other(odd, lose):
    """Three in a row, and for a while it gets no more of that one's."""
    picky = Picky(lose)
    fleet = odd([made_by("one"), made_by("other")], [picky, saying(SAID)], policy={"default": "random"}, retry=RETRY,
                timeout={"first_byte": "200ms"}, breaker={"disabled": True})
    eventually(lambda: fleet.ask() and len(picky.lost) == 3)
    n = len(picky.done)
    assert fleet.ask(30) == [200] * 30
    eventually(lambda: fleet.ask() == [200] and len(picky.done) > n)
    assert len(picky.lost) == 3


# --- sessions -----------------------------------------------------------------------------------------


def occupy(fleet, engine):
    """Sessions begin until one hangs there. -> the connections."""
    engine.fault("hang_head")
    clients = []
    while not engine.count("running"):
        clients.append(fleet.front.connect())
        clients[-1].sendall(raw_request(long_chat(len(clients)), headers=f"x-session-id: {len(clients)}\r\n"))
        eventually(lambda: engine.count("running") or fleet.is_settled())
    engine.fault("none")
    return clients


def test_a_session_stays_with_its_prefill_and_with_its_decode(start):
    """Also while others have less to do."""
    def ask(name):
        assert fleet.chat(headers={"x-session-id": "own", "x-request-id": name}).status_code == 200
        decision = fleet.front.admin(f"/decisions/{name}").json()
        return {side: next(e for e in engines if e.url == decision_of[side](decision)) for side, engines in sides.items()}

    fleet = Pairs(start, prefills=3, decodes=3, policy={"default": "session"}, router={"threads": 1})
    sides = {"prefill": fleet.prefills, "decode": fleet.decodes}
    decision_of = {"prefill": lambda d: d["prefill"], "decode": lambda d: d["chosen"]["instance"]}
    homes = ask("first")
    assert ask("again") == homes
    for role, engine in homes.items():
        clients = occupy(fleet, engine)
        assert ask(f"beside-{role}") == homes
        for client in clients:
            client.close()
        fleet.rest()
