"""Each of our three programs with stand-ins for the other two: all eight combinations of ours and InfiniLM-SVC's."""
import itertools
import os
import tempfile
from pathlib import Path

import pytest

from babysitting import Babysitter
from fleet import QUICK_HEALTH, Page
from old_trio import OldBabysitter, OldRegistry, OldRouter
from ports import free_port
from program import BIN, Router, eventually
from registryprogram import Registry

combinations = [pytest.param(*old, id="-".join(("ours", "old")[o] for o in old))
                for old in itertools.product([False, True], repeat=3)]


class Trio:
    """A registry, a router, and babysitters a and b, whose engines serve a model of that name and one called both.

    An engine does not come up while a file called `down` is beside its script.
    """

    def __init__(self, start, old_registry, old_router, old_sitters):
        self.registry = start(OldRegistry, free_port()) if old_registry else start(Registry)
        self.sitters, self.downs = {}, {}
        for name in "a", "b":
            self.sit(start, name, old_sitters)
        self.router = start(OldRouter, free_port(), self.registry.url) if old_router else start(
            Router, [], "--registry-url", self.registry.url, ready=0, health=QUICK_HEALTH,
            discovery={"registry_sync_interval": "100ms"})

    def sit(self, start, name, old):
        port, folder = free_port(2), Path(tempfile.mkdtemp(prefix="engine-"))
        script, self.downs[name] = folder / "engine.sh", folder / "down"
        script.write_text(f"while [ -e {self.downs[name]} ]; do sleep 0.02; done\n"
                          f"exec {os.path.abspath(BIN)} mock-engine --itl 1ms --port {port} --models {name},both\n")
        if old:
            self.sitters[name] = start(OldBabysitter, name, port, f"sh {script}", self.registry.url)
        else:
            backend = {"type": "command", "command": "sh", "args": [str(script)]}
            self.sitters[name] = start(Babysitter, backend, self.registry, name=name, port=port, ready=False)

    def healthy(self):
        """Names of the engines that the router believes in."""
        return {s["name"] for s in self.router.get("/services").json()["services"] if s["healthy"]}

    def count(self, name):
        return Page(self.sitters[name].engine_url if hasattr(self.sitters[name], "engine_url")
                    else f"http://127.0.0.1:{self.sitters[name].engine_port}").count("finished")

    def kill_engine(self, name):
        """It stays away until its file is unlinked."""
        self.downs[name].touch()
        for pid in self.sitters[name].engines():
            os.kill(pid, 9)


@pytest.mark.parametrize("old_registry, old_router, old_sitters", combinations)
def test_any_of_the_three_may_be_the_old_one(start, old_registry, old_router, old_sitters):
    trio = Trio(start, old_registry, old_router, old_sitters)
    router = trio.router
    eventually(lambda: set(trio.registry.names()) == {"a", "a-server", "b", "b-server"})
    assert all(s["is_healthy"] for s in trio.registry.get("/services?healthy=true").json()["services"])
    assert trio.registry.get("/health").json()["healthy_services"] == 4
    eventually(lambda: trio.healthy() == {"a-server", "b-server"})
    assert router.get("/health").json()["healthy_services"] == "2/2"
    assert [m["id"] for m in router.get("/models").json()["data"]] == ["a", "b", "both"]

    for wanted, other in ("a", "b"), ("b", "a"):
        before = trio.count(wanted), trio.count(other)
        for stream in False, True:
            answer = router.chat(wanted, body={"stream": stream, "max_tokens": 3})
            assert answer.status_code == 200 and f'"{wanted}"' in answer.text.replace(" ", "")
            assert ("data: [DONE]" in answer.text) == stream
        eventually(lambda: trio.count(wanted) == before[0] + 2)
        assert trio.count(other) == before[1]
    before = {name: trio.count(name) for name in "ab"}
    assert [router.chat("both").status_code for _ in range(20)] == [200] * 20
    assert all(trio.count(name) - before[name] >= 8 for name in "ab")
    assert router.chat("nobody").status_code == (503 if old_router else 404)

    trio.kill_engine("a")
    if not (old_router and old_sitters):        # those two believe in it for ever
        eventually(lambda: trio.healthy() == {"b-server"})
    assert [router.chat("both").status_code for _ in range(10)] == [200] * 10
    # Who was deregistered has taken the name of the model along: 404, until it is back.
    assert router.chat("a").status_code in ([503] if old_router else [404, 502, 503])
    if not old_sitters:
        assert trio.sitters["a"].get("/health").status_code == 503
        eventually(lambda: "a-server" not in trio.registry.names())

    trio.downs["a"].unlink()
    eventually(lambda: trio.healthy() == {"a-server", "b-server"} and router.chat("a").status_code == 200)
    assert trio.count("a") >= 1 and "a-server" in trio.registry.names()


@pytest.mark.parametrize("old_router, old_sitters", [p.values[1:] for p in combinations[4:]],
                         ids=["ours-ours", "ours-old", "old-ours", "old-old"])
def test_an_old_registry_that_forgets_costs_nothing(start, old_router, old_sitters):
    """Restarted, the old one is empty. Our babysitters fill it again, theirs never do; requests are served all the same."""
    trio = Trio(start, True, old_router, old_sitters)
    eventually(lambda: trio.healthy() == {"a-server", "b-server"})
    trio.registry.records = {}
    if not old_sitters:
        eventually(lambda: set(trio.registry.names()) == {"a", "a-server", "b", "b-server"})
    elif old_router:
        seen = trio.router.n_syncs + 2
        eventually(lambda: trio.router.n_syncs >= seen)
    else:
        metric = trio.router.metric
        eventually(lambda: metric("headrace_registry_missing") + metric("headrace_registry_held_back") > 0)
    assert [trio.router.chat("both").status_code for _ in range(20)] == [200] * 20
    assert trio.healthy() == {"a-server", "b-server"}
