"""Mooncake's pairs: who prefills is asked at its bootstrap server what its connector calls it, and who decodes is told so."""
import json
import socket
import threading

import pytest

from pairs import Pairs, asking, bodies_of, transfers
from ports import free_port
from program import eventually, http

RETRY = {"sent": True, "budget": 1, "statuses": ["429", "500", "503"]}      # a decode answers 500 when its prefill dies
ONE = {"threads": 1}        # they all go round together
QUICK = {"health": {"interval": "100ms", "slow_start": "0s"}, "discovery": {"scrape": "100ms"}}


@pytest.fixture
def pairs(start):
    return lambda **how: Pairs(start, "mooncake", **QUICK | how)


def bootstrap_of(fleet, i):
    return f"http://127.0.0.1:{fleet.labels[i]['bootstrap_port']}"


def said_by(fleet, i):
    """{rank: engine id}, as the ith prefill's bootstrap server has it."""
    with http() as client:
        return {rank: row["engine_id"] for rank, row in client.get(bootstrap_of(fleet, i) + "/query").json().items()}


def params_of(engine):
    return [json.loads(body)["kv_transfer_params"] for body in bodies_of(engine)]


def test_several_of_each_find_the_right_one(pairs):
    fleet = pairs(prefills=2, decodes=2, router=ONE)
    for i in range(8):
        answer = fleet.chat(i, stream=i % 2 == 1)
        assert answer.status_code == 200 and '"error":{' not in answer.text
    fleet.settle()
    assert [transfers(e)["fetched"] for e in fleet.prefills] == [4, 4]
    assert sum(fleet.legs(), []).count(None) == 0
    told = {(p["remote_bootstrap_addr"], p["remote_engine_id"]) for e in fleet.decodes for p in params_of(e)}
    assert told == {(bootstrap_of(fleet, i), said_by(fleet, i)["0"]) for i in range(2)}
    ids = [[p["transfer_id"] for e in side for p in params_of(e)] for side in (fleet.prefills, fleet.decodes)]
    assert sorted(ids[0]) == sorted(ids[1]) and len(set(ids[0])) == 8


def come_back(fleet, i, port):
    """The ith prefill dies, is missed, and is there again with its bootstrap server at that port."""
    engine = fleet.prefills[i]
    engine.kill()
    eventually(lambda: fleet.kv_engines()[engine.url] is None)
    engine.flags = [*engine.flags, "--bootstrap-port", port]
    engine.restart()
    eventually(lambda: engine.url in serving(fleet))


def serving(fleet):
    return {s["url"] for s in fleet.front.get("/services").json()["services"] if s["healthy"]}


def test_a_prefill_whose_name_is_not_known_is_done_without(pairs):
    """Its bootstrap server is not where the router looks for it, until it is."""
    fleet = pairs()
    prefill = fleet.prefills[0]
    come_back(fleet, 0, str(free_port()))
    assert [fleet.chat(i).status_code for i in range(3)] == [200] * 3
    assert fleet.legs() == [[], [None] * 3]
    come_back(fleet, 0, fleet.labels[0]["bootstrap_port"])
    eventually(lambda: fleet.kv_engines() == {prefill.url: said_by(fleet, 0)["0"]})
    assert fleet.chat().status_code == 200
    fleet.settle()
    assert fleet.legs() == [["prefill"], [None] * 3 + ["decode"]]


def test_one_of_two_whose_name_is_not_known_costs_nothing(pairs):
    fleet = pairs(prefills=2)
    come_back(fleet, 0, str(free_port()))
    for i in range(6):
        answer = fleet.chat(i, stream=i % 2 == 1)
        assert answer.status_code == 200 and '"error":{' not in answer.text
    fleet.settle()
    assert fleet.legs()[0] == []


class Relay:
    """A port that leads to another one, until it is stopped."""

    def __init__(self, port, target):
        self.target, self.sockets = target, []
        self.listener = socket.create_server(("127.0.0.1", port))
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def accept(self):
        try:
            while True:
                peer, _ = self.listener.accept()
                other = socket.create_connection(("127.0.0.1", self.target))
                self.sockets += [peer, other]
                for source, sink in ((peer, other), (other, peer)):
                    self.threads.append(threading.Thread(target=self.copy, args=(source, sink), daemon=True))
                    self.threads[-1].start()
        except OSError:
            pass

    def copy(self, source, sink):
        try:
            while piece := source.recv(65536):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def stop(self):
        for s in (self.listener, *self.sockets):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize("prefills", [1, 2])
def test_a_bootstrap_server_that_dies_is_avoided(start, pairs, prefills):
    """The engine itself lives on. What it has prefilled is for nobody, so another one prefills, or nobody does."""
    fleet = pairs(prefills=prefills, retry=RETRY | {"attempts": 3})
    first = fleet.prefills[0]
    told, port = int(fleet.labels[0]["bootstrap_port"]), free_port()
    first.kill()
    eventually(lambda: fleet.kv_engines()[first.url] is None)
    relay = start(Relay, told, port)
    first.flags = [*first.flags, "--bootstrap-port", str(port)]
    first.restart()
    eventually(lambda: all(fleet.kv_engines().values()))
    eventually(lambda: fleet.chat().status_code == 200 and transfers(first)["fetched"] > 0)
    relay.stop()

    def is_avoided():
        n = first.count("started")
        return [fleet.chat(i).status_code for i in range(8)] == [200] * 8 and first.count("started") == n
    eventually(is_avoided)
    assert all(fleet.kv_engines().values())


@pytest.mark.parametrize("role", ["prefills", "decodes"])
def test_who_dies_is_done_without_and_taken_back(pairs, role):
    """A prefill has another name then; who waits for what the old one had is told so, and the request goes on."""
    fleet = pairs(prefills=2, decodes=2, flags=["--kv-ttl", "2s"], retry=RETRY)
    dies, stays = getattr(fleet, role)
    before = fleet.kv_engines()
    with asking(lambda i: fleet.chat(i).status_code) as statuses:
        eventually(lambda: dies.count("finished") > 10)
        dies.kill()
        n = stays.count("finished")
        eventually(lambda: stays.count("finished") > n + 20)
        dies.restart()
        eventually(lambda: dies.count("finished") > 10)
    assert set(statuses) == {200}
    eventually(lambda: fleet.front.metric("headrace_in_flight") == 0 and not any(e.count("running") for e in fleet.engines))
    if role == "prefills":
        eventually(lambda: fleet.kv_engines()[dies.url] == said_by(fleet, 0)["0"])
        assert fleet.kv_engines()[dies.url] != before[dies.url]


def test_each_rank_has_a_name_of_its_own(pairs):
    fleet = pairs(prefill_flags=["--data-parallel-size", "2"], router=ONE | {"prefill_data_parallel_size": 2})
    first, second = fleet.pair
    ids = said_by(fleet, 0)
    assert fleet.kv_engines() == {f"{first.url}@{rank}": ids[rank] for rank in "01"} and ids["0"] != ids["1"]
    assert [fleet.chat(i).status_code for i in range(4)] == [200] * 4
    fleet.settle()
    ranks = [row["rank"] for row in first.ledger()["generations"]]
    assert sorted(ranks) == [0, 0, 1, 1]
    assert sorted(p["remote_engine_id"] for p in params_of(second)) == sorted([ids["0"], ids["1"]] * 2)
    assert transfers(first)["fetched"] == 4
