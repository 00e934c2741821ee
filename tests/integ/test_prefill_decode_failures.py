"""Either leg of a pair fails, before, during or after its work: what another one can do is done, and nothing is left behind."""
import pytest

from pairs import CONNECTORS, Pairs, long_chat, transfers
from program import eventually, hard_close, raw_request, read_to_end

RETRY = {"attempts": 3, "sent": True, "budget": 1, "backoff": "1ms"}
HOW = {"router": {"threads": 1}, "retry": RETRY, "health": {"probe": False, "passive": False}, "timeout": {"first_byte": "300ms"}}
ALONE = [name for name, c in CONNECTORS.items() if c.is_alone]
KEEPS = ["nixl", "moriio_read"]     # of a decode that refused: what was prefilled is for another one
LOST = ["reset:0", "garbage", "status:503", "status:429"]


@pytest.fixture
def pairs(start):
    return lambda *args, **how: Pairs(start, *args, **HOW | how)


def ask(fleet, n=6, **more):
    """-> the statuses of so many requests; streams must end well."""
    statuses = []
    for i in range(n):
        answer = fleet.chat(i, **more)
        if more.get("stream") and answer.status_code == 200:
            assert "[DONE]" in answer.text and '"error":{' not in answer.text, answer.text
        statuses.append(answer.status_code)
    return statuses


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("name", CONNECTORS)
def test_another_prefill_takes_over(pairs, name, fault):
    fleet = pairs(name, prefills=2)
    assert ask(fleet, 4) == [200] * 4       # push is known by then
    fleet.prefills[0].fault(fault)
    assert ask(fleet) == [200] * 6
    fleet.settle()
    assert fleet.prefills[1].count("finished") >= 6


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("name", ALONE)
def test_the_last_prefill_is_done_without(pairs, name, fault):
    fleet = pairs(name)
    assert ask(fleet, 2) == [200] * 2
    fleet.prefills[0].fault(fault)
    assert ask(fleet, 3) == [200] * 3
    fleet.settle()
    assert fleet.decodes[0].ledger()["generations"][-1]["leg"] is None


@pytest.mark.parametrize("name, stream", [(name, stream) for name, c in CONNECTORS.items() for stream in (False, True)
                                          if not (stream and c.is_concurrent)])
def test_a_prefill_that_hangs_is_given_up(pairs, name, stream):
    """Where both are asked at once a stream's head comes before there is anything to decode, and then both legs stay."""
    fleet = pairs(name, prefills=2)
    fleet.prefills[0].fault("hang_head")
    assert ask(fleet, 4, stream=stream) == [200] * 4
    fleet.settle()
    assert (fleet.prefills[0].count("cancelled"), fleet.prefills[1].count("finished")) == (2, 4)


@pytest.mark.parametrize("role", ["prefills", "decodes"])
@pytest.mark.parametrize("name", CONNECTORS)
def test_who_refused_once_is_asked_again_when_nobody_else_is_there(pairs, name, role):
    fleet = pairs(name)
    assert ask(fleet, 2) == [200] * 2
    engine, = getattr(fleet, role)
    engine.fault("status:503,fail_first:1")
    assert ask(fleet, 1) == [200]
    fleet.unload()
    assert fleet.legs()[1][-1] == ("decode" if role == "decodes" or name not in ALONE else None)
    if name in KEEPS:
        fleet.settle()


@pytest.mark.parametrize("status", [400, 404, 500])
@pytest.mark.parametrize("name", CONNECTORS)
def test_what_a_prefill_says_instead_is_the_answer(pairs, name, status):
    fleet = pairs(name)
    assert ask(fleet, 2) == [200] * 2
    fleet.prefills[0].fault(f"status:{status}")
    answer = fleet.chat(9)
    assert answer.status_code == status and answer.json()["error"]["code"] == status
    fleet.settle()
    assert fleet.decodes[0].count("finished") == 2


@pytest.mark.parametrize("how", ["beforehand", "at_work"])
@pytest.mark.parametrize("role", ["prefills", "decodes"])
@pytest.mark.parametrize("name", CONNECTORS)
def test_one_of_two_dies(pairs, name, role, how):
    fleet = pairs(name, **{role: 2})
    victim = getattr(fleet, role)[0]
    assert ask(fleet, 4) == [200] * 4
    if how == "beforehand":
        victim.kill()
    else:
        victim.fault("crash")
    assert ask(fleet) == [200] * 6
    victim.expected_to_end = True
    fleet.unload()
    if role == "prefills":      # what was prefilled for a decode that died is fetched by nobody
        fleet.settle([e for e in fleet.engines if e is not victim])


@pytest.mark.parametrize("fault", ["reset:0", "status:503", "status:429"])
@pytest.mark.parametrize("name", CONNECTORS)
def test_another_decode_takes_over(pairs, name, fault):
    fleet = pairs(name, decodes=2)
    assert ask(fleet, 4) == [200] * 4
    fleet.decodes[0].fault(fault)
    assert ask(fleet) == [200] * 6
    fleet.unload()
    assert fleet.decodes[1].count("finished") >= 6


@pytest.mark.parametrize("name", KEEPS)
def test_what_was_prefilled_is_given_to_who_takes_it(pairs, name):
    """A decode that refused, or was never reached, has fetched nothing: nobody prefills again."""
    fleet = pairs(name, decodes=2)
    fleet.decodes[0].fault("status:503")
    assert ask(fleet) == [200] * 6
    fleet.settle()
    assert fleet.prefills[0].count("started") == 6 and transfers(fleet.prefills[0])["fetched"] == 6


@pytest.mark.parametrize("name", CONNECTORS)
def test_attempts_are_counted_for_each_leg(pairs, name):
    fleet = pairs(name, decodes=3, retry=RETRY | {"attempts": 2})
    for engine in fleet.decodes:
        engine.fault("reset:0")
    assert ask(fleet, 1) == [502]
    fleet.unload()
    assert sum(e.count("started") for e in fleet.decodes) == 2
    assert fleet.prefills[0].count("started") == 2


@pytest.mark.parametrize("name", CONNECTORS)
def test_nothing_is_repeated_without_retries(pairs, name):
    fleet = pairs(name, prefills=2, decodes=2, retry={"attempts": 1})
    fleet.decodes[0].fault("reset:0")
    assert sorted(ask(fleet, 4)) == [200, 200, 502, 502]
    fleet.unload()


@pytest.mark.parametrize("name", CONNECTORS)
def test_a_stream_that_is_cut_is_seen_to_be(pairs, name):
    fleet = pairs(name)
    assert ask(fleet, 2, stream=True) == [200] * 2
    fleet.decodes[0].fault("reset:1")
    with fleet.front.connect() as s:
        s.sendall(raw_request(long_chat(3, stream=True)))
        answer, _ = read_to_end(s)
    assert answer.startswith(b"HTTP/1.1 200 ") and b'"error":{' in answer and not answer.endswith(b"0\r\n\r\n")
    fleet.settle()


LEAVING = {"prefill": ("prefills", "hang_head"), "decode": ("decodes", "hang_head"), "stream": ("decodes", "hang_stream:1")}


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("phase", LEAVING)
@pytest.mark.parametrize("name", CONNECTORS)
def test_who_leaves_is_worked_for_by_nobody(pairs, name, phase, how):
    fleet = pairs(name, timeout={})
    role, fault = LEAVING[phase]
    engine, = getattr(fleet, role)
    assert ask(fleet, 1) == [200]
    engine.fault(fault)
    s = fleet.front.connect()
    s.sendall(raw_request(long_chat(1, stream=True)))
    if phase == "stream":
        read_to_end(s, b"data: ")
    eventually(lambda: engine.count("started") == 2)
    hard_close(s) if how == "reset" else s.close()
    fleet.rest()
    assert engine.count("cancelled") == 1
    assert fleet.front.log(2)[-1]["cause"] == "client_gone"


def test_who_leaves_while_a_prefill_lets_it_wait(pairs):
    fleet = pairs(timeout={}, prefill_flags=["--max-num-seqs", "1", "--fault", "hang_head"])
    first, second = fleet.pair
    clients = [fleet.front.connect() for _ in range(2)]
    for i, s in enumerate(clients):
        s.sendall(raw_request(long_chat(i)))
        eventually(lambda: first.count("started") == i + 1)
    clients[1].close()
    eventually(lambda: first.count("cancelled") == 1)
    clients[0].close()
    fleet.rest()
    assert (first.count("cancelled"), second.count("started")) == (2, 0)
