"""The whole stack of our own programs under load, while parts of it die, hang, leave and return."""
import os
import signal

import pytest

from fleet import QUICK_HEALTH, Fleet
from load import Load
from program import Router, chat_body, eventually, http
from registryprogram import Registry

LONG = os.environ.get("HEADRACE_TEST_LONG") == "1"


@pytest.fixture
def fleet(start):
    made = []

    def begin(**how):
        made.append(Fleet(start, **how))
        return made[-1]
    yield begin
    for one in made:
        one.clear()


@pytest.fixture
def load():
    running = []

    def begin(fleet, **how):
        running.append(Load(fleet.router, **how))
        return running[-1]
    yield begin
    for one in running:
        one.stop()


def share(fleet, n=60):
    """name of the engine -> how many of n chats it answered"""
    before = {name: fleet.engine(name).count("finished") for name in fleet.sitters}
    assert [fleet.router.chat().status_code for _ in range(n)] == [200] * n
    return {name: fleet.engine(name).count("finished") - before[name] for name in fleet.sitters}


def test_requests_reach_every_engine(fleet):
    stack = fleet()
    names = {f"s{i}" for i in range(3)} | {f"s{i}-server" for i in range(3)}
    assert set(stack.registry.names()) == names
    assert [m["id"] for m in stack.router.get("/v1/models").json()["data"]] == ["m"]
    assert all(18 <= n <= 22 for n in share(stack).values())
    info = {s["name"]: s for s in stack.router.get("/services").json()["services"]}
    for name, sitter in stack.sitters.items():
        assert info[f"{name}-server"]["babysitter_url"].endswith(f":{sitter.port}")
        assert info[f"{name}-server"]["metadata"]["parent_service"] == name


def test_a_killed_engine_comes_back_and_serves(fleet, load):
    stack = fleet()
    run = load(stack)
    run.more()
    deaths = [stack.kill_engine("s1")]
    eventually(lambda: stack.sitters["s1"].get("/info").json()["restart_count"] == 1)
    eventually(lambda: stack.states().get("s1-server") == "ready")
    eventually(lambda: stack.engine("s1").count("finished") >= 10)
    run.stop()
    assert run.lost(deaths) == []
    assert stack.one_each() and run.n_done >= 30
    assert min(share(stack).values()) >= 15


@pytest.mark.parametrize("keeps", [True, False], ids=["sqlite", "memory"])
def test_the_registry_may_die_again_and_again(start, fleet, load, keeps):
    """20 times in the long form. One that has forgotten everything is filled again by heartbeats."""
    stack = fleet(registry=None if keeps else start(Registry))
    run = load(stack)
    for _ in range(20 if LONG else 6):
        run.more(40)
        stack.registry.kill()
        run.more(40)
        stack.registry.restart()
    eventually(lambda: stack.router.metric("headrace_registry_up") == 1)
    eventually(lambda: len(stack.registry.names()) == 6)
    run.more(40)
    run.stop()
    assert run.failures == []
    assert set(stack.states().values()) == {"ready"} and len(stack.states()) == 3
    assert min(share(stack).values()) >= 15


def test_a_registry_that_is_away_for_a_start_is_no_obstacle(fleet):
    """What happens while it is away is known when it is back."""
    stack = fleet()
    stack.registry.kill()
    stack.kill_engine("s0")
    stack.sit("s3")
    stack.registry.restart()
    eventually(lambda: stack.states() == {f"s{i}-server": "ready" for i in range(4)})
    eventually(lambda: min(share(stack).values()) > 0)


def test_a_killed_babysitter_costs_what_its_engine_was_doing(fleet, load):
    stack = fleet()
    run, deaths = load(stack), []
    for i in range(20 if LONG else 4):
        run.more()
        deaths.append(stack.kill_sitter(f"s{i % 3}"))
        assert stack.one_each()
    eventually(lambda: stack.states() == {f"s{i}-server": "ready" for i in range(3)})
    run.more()
    run.stop()
    assert run.lost(deaths) == []
    assert stack.one_each()
    assert min(share(stack).values()) >= 15


def test_who_came_and_went_is_tried_when_nobody_else_is_there(fleet):
    """Its engine died again and again, so it is held out for long; now it serves, and is the only one."""
    stack = fleet(n=1)
    router, sitter = stack.router, stack.sitters["s0"]
    held = '"reason":"it comes and goes","held_ms":16000'
    for i in range(30):         # a coming and going that is too short is not seen
        stack.kill_engine("s0")
        eventually(lambda: sitter.get("/info").json()["restart_count"] == i + 1 and sitter.state() == "ready")
        eventually(lambda: router.chat().status_code == 200)
        if held in router.output():
            break
    assert held in router.output() and stack.states() == {"s0-server": "unhealthy"}


def test_who_is_deregistered_gets_nothing_more(fleet, load):
    stack = fleet(n=2)
    run = load(stack)
    run.more()
    assert stack.sitters["s0"].post("/drain").status_code == 202
    eventually(lambda: stack.states() == {"s1-server": "ready"})
    eventually(lambda: stack.sitters["s0"].state() == "stopped")
    run.more()
    run.stop()
    assert run.failures == [] and not stack.sitters["s0"].engines()


def test_a_deletion_by_hand_is_seen_at_once(fleet):
    """The engine lives on: only the registry says that it has left, and no grace is kept."""
    stack = fleet(n=2, discovery={"service_removal_grace_period": "1h"})
    stack.sitters["s0"].process.send_signal(signal.SIGSTOP)     # it could register again
    try:
        assert stack.registry.ask("DELETE", "/services/s0-server").status_code == 200
        eventually(lambda: stack.states().keys() == {"s1-server"})
        before = stack.engine("s0").count("started")
        assert [stack.router.chat().status_code for _ in range(20)] == [200] * 20
        assert stack.engine("s0").count("started") == before
    finally:
        stack.sitters["s0"].process.send_signal(signal.SIGCONT)
    eventually(lambda: stack.states().keys() == {"s0-server", "s1-server"})     # a heartbeat was answered 404


def test_a_hung_engine_whose_health_is_well_is_out_until_it_recovers(fleet):
    stack = fleet(health={"stall_timeout": "500ms"})
    hung = stack.engine("s0")
    hung.fault("hang_stream:2")
    with http() as client:
        streams = []

        def hangs():        # each thread of the router has turns of its own: the third request need not be the third's
            streams.append(client.send(client.build_request("POST", stack.router.url + "/v1/chat/completions",
                                                            json=chat_body(stream=True)), stream=True))
            return hung.count("started")
        eventually(hangs)
        eventually(lambda: stack.states()["s0-server"] == "unhealthy")
        assert '"reason":"streams stalled"' in stack.router.output()
        assert hung.get("/health").status_code == 200 and stack.sitters["s0"].get("/health").status_code == 200
        assert share(stack, 20)["s0"] == 0
        hung.fault("none")
        for stream in streams:
            stream.close()
    eventually(lambda: stack.states()["s0-server"] == "ready")
    assert min(share(stack).values()) >= 15


def test_the_last_table_serves_a_router_without_a_registry(fleet, start, tmp_path):
    stack = fleet(router={"state_dir": str(tmp_path)})
    kept = tmp_path / "registry.json"
    eventually(lambda: kept.exists() and all(f'"{name}-server"' in kept.read_text() for name in stack.sitters))
    stack.router.stop()
    stack.registry.kill()
    stack.router = start(Router, [], "--registry-url", stack.registry.url, ready=3,
                         router={"state_dir": str(tmp_path)}, health=QUICK_HEALTH)
    assert min(share(stack).values()) >= 15
