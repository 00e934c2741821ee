"""Data-parallel ranks: one server, eight engines behind it, each an instance of its own."""
import json
import re
import threading
from collections import Counter

import pytest

from fakeworker import FakeWorker, answer
from program import chat_body, eventually, http
from workerapi import call, register, workers

SIZE = 8
NEVER = {"discovery": {"interval": "1h", "scrape": "off"}, "health": {"interval": "1h"}}


class Server(FakeWorker):
    """Serves model m by `size` ranks.

    `ranks` has of each request what it said of its rank, `asked` how often each page was looked at; while `hold` is
    there, answers wait for it. Ranks that are `ill` fail.
    """

    def __init__(self, size=SIZE):
        self.size, self.ranks, self.asked, self.ill, self.hold, self.is_gone = size, [], Counter(), set(), None, False
        super().__init__(self.talk, declared=())

    def page(self, path):
        self.asked[path] += 1
        if path == "/v1/models":
            return json.dumps({"data": [{"id": "m"}]}).encode()
        if path == "/metrics":
            return "".join(f'vllm:num_requests_running{{engine="{k}"}} {10 + k}\n' for k in range(self.size)).encode()
        return b"{}"

    def talk(self, peer):
        while found := peer.request():
            method, path = found[0].decode().split(" ")[:2]
            if method == "GET":
                peer.send(answer(self.page(path)))
                continue
            ranks = re.findall(rb"(?im)^x-data-parallel-rank:(.*)\r$", found[0] + b"\r\n")
            self.ranks.append([rank.strip().decode() for rank in ranks])
            if self.hold:
                assert self.hold.wait(60)
            peer.send(answer(status=b"500 Ill" if self.ranks[-1] and self.ranks[-1][0] in self.ill else b"200 OK"))

    def stop(self):
        if not self.is_gone:
            super().stop()
        self.is_gone = True

    def counts(self):
        """Requests of each rank; every one has said it once."""
        assert all(len(said) == 1 for said in self.ranks), self.ranks
        return Counter(said[0] for said in self.ranks)


@pytest.fixture
def server(start):
    return start(Server)


@pytest.fixture
def front(server, router):
    """front(**tables): a router before the server, each of whose ranks is known."""
    def open_front(size=SIZE, **tables):
        rows = {"router": {"threads": 1, "data_parallel_size": size}} | tables
        rows["router"] |= {"threads": 1, "data_parallel_size": size}
        return router([server], ready=size if isinstance(size, int) else 1, **rows)
    return open_front


def ask(front, n=1, headers=None, **body):
    """-> the statuses of n requests, one after the other."""
    with http() as client:
        return [client.post(f"{front.url}/v1/chat/completions", json=chat_body(**body), headers=headers).status_code
                for _ in range(n)]


def ask_together(front, n):
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.extend(ask(front))) for _ in range(n)]
    for t in threads:
        t.start()
    return threads, statuses


def states(front):
    return Counter(row["status"] for row in front.get("/services").json()["services"])


class Asking:
    """Asks without a pause on several connections until it is stopped."""

    def __init__(self, front, n=4):
        self.statuses, self.ends = Counter(), threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(front,)) for _ in range(n)]
        for t in self.threads:
            t.start()

    def run(self, front):
        with http() as client:
            while not self.ends.is_set():
                self.statuses[client.post(f"{front.url}/v1/chat/completions", json=chat_body()).status_code] += 1

    def stop(self):
        self.ends.set()
        for t in self.threads:
            t.join()
        return self.statuses


def names(server, size=SIZE):
    return {str(k) for k in range(size)}


def test_round_robin_gives_each_rank_its_turn(server, front):
    assert set(ask(front(), 10 * SIZE)) == {200}
    assert server.counts() == dict.fromkeys(names(server), 10)


def test_least_load_levels_the_ranks(server, front):
    router = front(policy={"default": "least_load"})
    server.hold = threading.Event()
    threads, statuses = ask_together(router, 5 * SIZE)
    eventually(lambda: len(server.ranks) == 5 * SIZE)
    assert router.metric("headrace_in_flight", instance=f"{server.url}@0") == server.counts()["0"]
    server.hold.set()
    for t in threads:
        t.join()
    assert statuses == [200] * 5 * SIZE
    assert set(server.counts()) == names(server) and set(server.counts().values()) <= {4, 5, 6}


def test_a_prompt_returns_to_the_rank_that_has_it(server, front):
    """The default policy knows what each rank has in its cache."""
    router = front(policy={"default": "cache_aware"})
    prompts = [f"{i} " + f"word{i} " * 4000 for i in range(6)]
    homes = []
    for text in prompts:
        before = len(server.ranks)
        assert set(ask(router, 12, messages=[{"role": "user", "content": text}])) == {200}
        (home, n), = Counter(said[0] for said in server.ranks[before:]).most_common(1)
        assert n >= 10
        homes.append(home)
    assert len(set(homes)) > 1 and set(server.counts()) <= names(server)


def test_a_clients_own_header_is_left_out(server, front):
    assert set(ask(front(), 2 * SIZE, headers={"X-Data-Parallel-Rank": "3"})) == {200}
    assert server.counts() == dict.fromkeys(names(server), 2)


def test_an_engine_without_ranks_gets_no_such_header(server, router):
    plain = router([server])
    assert ask(plain, 2, headers={"x-data-parallel-rank": "3"}) == [200, 200]
    trusting = router([server], router={"trust_rank_header": True})
    assert ask(trusting, headers={"x-data-parallel-rank": "3"}) == [200]
    assert server.ranks == [[], [], ["3"]]


def test_a_trusted_client_chooses_the_rank(server, front):
    router = front(router={"trust_rank_header": True})
    assert set(ask(router, 6, headers={"x-data-parallel-rank": "5"})) == {200}
    assert server.counts() == {"5": 6}
    assert set(ask(router, SIZE)) == {200} and set(server.counts()) == names(server)
    for wrong in "8", "-1", "x", "":
        refused = router.chat(headers={"x-data-parallel-rank": wrong})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")
    twice = router.chat(headers=[("x-data-parallel-rank", "1"), ("x-data-parallel-rank", "1")])
    assert twice.status_code == 400
    with http() as client:
        explained = client.post(f"{router.admin_url}/explain", json=chat_body(), headers={"x-data-parallel-rank": "5"}).json()
    codes = {row["instance"]: row["codes"] for row in explained["rows"]}
    assert codes.pop(f"{server.url}@5") == [] and set(map(tuple, codes.values())) == {("rank_absent",)}


def test_ranks_of_several_servers(server, router, start):
    """A url may name one rank; where a client chooses, any server's will do."""
    other = start(Server)
    front = router([f"{server.url}@0", f"{server.url}@1", f"{other.url}@1"], router={"threads": 1, "trust_rank_header": True})
    assert set(ask(front, 30)) == {200}
    assert server.counts() == {"0": 10, "1": 10} and other.counts() == {"1": 10}
    assert set(ask(front, 10, headers={"x-data-parallel-rank": "1"})) == {200}
    assert server.counts()["0"] == 10 and server.counts()["1"] > 10 < other.counts()["1"]
    assert server.asked["/v1/models"] and other.asked["/v1/models"]


def test_a_rank_has_a_breaker_of_its_own(server, front):
    server.ill = {"2"}
    router = front(breaker={"failures": 3}, health={"passive": False})
    assert Counter(ask(router, 20 * SIZE)) == {500: 3, 200: 20 * SIZE - 3}
    rows = {row["instance"]: row["state"] for row in router.admin("/breakers").json()["breakers"]}
    assert rows == {f"{server.url}@{k}": "open" if k == 2 else "closed" for k in range(SIZE)}
    eventually(lambda: states(router) == {"ready": SIZE})


def test_one_question_is_for_all_ranks(server, front):
    router = front(**NEVER)
    eventually(lambda: states(router) == {"ready": SIZE})
    assert server.asked == {"/health": 1, "/v1/models": 1}
    assert router.metric("headrace_probes_total") == 1


def test_a_server_that_is_gone_takes_all_ranks_along(server, front):
    router = front(**NEVER)
    eventually(lambda: states(router) == {"ready": SIZE})
    server.stop()
    assert router.chat().status_code == 502
    eventually(lambda: states(router) == {"unhealthy": SIZE})


def test_what_the_server_says_of_each_rank_shows(server, front):
    router = front(discovery={"scrape": "100ms"})
    for k in range(SIZE):
        eventually(lambda: router.metric("headrace_engine_running", instance=f"{server.url}@{k}") == 10 + k)
    rows = {row["name"]: row for row in router.get("/services").json()["services"]}
    assert {(name, row["url"], row["rank"]) for name, row in rows.items()} == {
        (f"{server.url}@{k}", f"{server.url}@{k}", k) for k in range(SIZE)}


def test_the_server_says_how_many_ranks_it_has(server, front):
    router = front(size="auto", discovery={"scrape": "100ms"})
    eventually(lambda: router.ready_workers() == SIZE)
    load = Asking(router)
    for size in 12, 3, 5:
        server.size = size
        eventually(lambda: sum(states(router).values()) == size and router.ready_workers() == size)
    assert set(load.stop()) == {200}
    server.size = 1
    eventually(lambda: [row["name"] for row in router.get("/services").json()["services"]] == [server.url])
    assert router.chat().status_code == 200 and server.ranks[-1] == []


def test_more_and_fewer_ranks_lose_nothing(server, front):
    router = front(size=4)
    load = Asking(router)
    for size in 8, 2, 1, 4:
        before = len(server.ranks)
        router.reconfigure(router={"data_parallel_size": size})
        with http() as client:
            assert client.post(f"{router.admin_url}/reload").status_code == 200
        eventually(lambda: sum(states(router).values()) == size and router.ready_workers() == size)
        eventually(lambda: len(server.ranks) > before + 2 * size)
    assert set(load.stop()) == {200}
    assert ask(router) == [200] and server.ranks[-1][0] in names(server, 4)


def test_one_rank_drains_or_all(server, front):
    router = front()

    def act(name, verb):
        with http() as client:
            return client.post(f"{router.admin_url}/instances/{name.replace('/', '%2F')}/{verb}").json()["instances"]
    now, = act(f"{server.url}@3", "drain")
    assert (now["instance"], now["rank"], now["state"]) == (f"{server.url}@3", 3, "draining")
    assert set(ask(router, 3 * SIZE)) == {200} and "3" not in server.counts()
    assert Counter(row["state"] for row in act(server.url, "drain")) == {"draining": SIZE}
    assert ask(router) == [503]
    assert len(act(server.url, "undrain")) == SIZE
    eventually(lambda: states(router) == {"ready": SIZE})
    assert ask(router) == [200]


# --- registered while the router runs ---------------------------------------------------------


@pytest.fixture
def vllm(router):
    """vllm(**tables): a router in vLLM's dialect, with nobody behind it yet."""
    return lambda **tables: router([], ready=0, **tables | {"router": {"dialect": "vllm", "threads": 1} | tables.get("router", {})})


@pytest.mark.parametrize("more", [{"dp_size": SIZE}, {"data_parallel_size": str(SIZE)}, {"labels": {"dp_size": str(SIZE)}}, {"dp_size": "auto"},
                                  {}])
def test_an_engine_comes_with_its_ranks(server, vllm, more):
    front = vllm(discovery={"scrape": "100ms"}, router={} if more else {"data_parallel_size": SIZE})
    register(front, server.url, **more)
    eventually(lambda: len(workers(front)) == front.ready_workers() == SIZE)
    listed = workers(front)
    assert {(u, w["labels"]["dp_rank"], w["labels"]["dp_size"], w["metadata"]["dp_rank"]) for u, w in listed.items()} == {
        (f"{server.url}@{k}", str(k), str(SIZE), str(k)) for k in range(SIZE)}
    assert len({w["id"] for w in listed.values()}) == SIZE
    assert {w["job_status"]["status"] for w in listed.values()} == {"done"}
    assert sorted(front.get("/list_workers").json()["urls"]) == sorted(listed)
    assert set(ask(front, 2 * SIZE)) == {200}
    assert server.counts() == dict.fromkeys(names(server), 2)


def test_ranks_come_by_role(server, vllm):
    front = vllm(router={"data_parallel_size": 2, "prefill_data_parallel_size": 3, "decode_data_parallel_size": 1})
    made = register(front, server.url)
    for role, n in ("regular", 2), ("prefill", 3), ("decode", 1):
        assert call(front, "PUT", made["location"], json={"worker_type": role}).status_code == 202
        eventually(lambda: len(workers(front)) == n)
        assert {w["worker_type"] for w in workers(front).values()} == {role}


def test_an_engine_that_comes_is_asked_once(server, vllm):
    """For its health, and then, all ranks at once, by who watches the fleet."""
    front = vllm(**NEVER, router={"data_parallel_size": SIZE})
    assert front.post("/add_worker", params={"url": server.url}).status_code == 200
    eventually(lambda: front.ready_workers() == SIZE)
    assert server.asked == {"/health": 2, "/v1/models": 1}


def test_an_engine_is_one_worker_and_its_ranks_are_others(server, vllm):
    front = vllm()
    made = register(front, server.url, dp_size=3, priority=7)
    server.hold = threading.Event()
    threads, _ = ask_together(front, 6)
    eventually(lambda: sum(w["load"] for w in workers(front).values()) == 6)
    whole, rank = front.get(made["location"]).json(), front.get(f"/workers/{server.url}@2").json()
    assert whole == front.get("/workers/" + server.url).json()
    assert (whole["url"], whole["id"], whole["load"], whole["is_healthy"]) == (server.url, made["worker_id"], 6, True)
    assert whole["labels"] == {"dp_size": "3", "priority": "7"}
    assert (rank["url"], rank["load"], rank["labels"]["dp_rank"]) == (f"{server.url}@2", 2, "2")
    assert front.get("/workers/" + rank["id"]).json() == rank
    assert {w["worker"]: w["in_flight"] for w in front.get("/get_loads").json()["workers"]} == {f"{server.url}@{k}": 2 for k in range(3)}
    server.hold.set()
    for t in threads:
        t.join()


@pytest.mark.parametrize("source", ["api", "static"])
def test_an_engine_leaves_with_its_ranks(server, vllm, front, source):
    if source == "api":
        router = vllm()
        register(router, server.url, dp_size=SIZE)
    else:
        router = front(router={"dialect": "vllm"})
    refused = call(router, "DELETE", f"/workers/{server.url}@3")
    assert refused.status_code == 409 and refused.json()["code"] == "REMOVE_WORKER_FAILED"
    text = router.post("/remove_worker", params={"url": f"{server.url}@3"})
    assert text.status_code == 200 and text.text.startswith(f"Worker {server.url}@3 is a rank ") and len(workers(router)) == SIZE
    assert router.post("/remove_worker", params={"url": server.url}).text == f"Successfully removed worker: {server.url}"
    assert workers(router) == {} and ask(router) in ([404], [503])
    assert call(router, "DELETE", f"/workers/{server.url}@3").status_code == 404


def test_a_rank_comes_and_goes_alone(server, vllm):
    front = vllm(router={"data_parallel_size": SIZE})
    for k in 1, 5:
        register(front, f"{server.url}@{k}")
    assert set(ask(front, 4)) == {200} and server.counts() == {"1": 2, "5": 2}
    assert front.get("/workers/" + server.url).json()["url"] == server.url
    assert call(front, "DELETE", f"/workers/{server.url}@1").status_code == 200
    assert list(workers(front)) == [f"{server.url}@5"] and set(ask(front, 2)) == {200}
    assert server.counts() == {"1": 2, "5": 4}


def test_ranks_leave_for_their_engine(server, vllm):
    front = vllm()
    register(front, f"{server.url}@1")
    refused = front.post("/add_worker", params={"url": server.url})
    assert (refused.status_code, refused.text) == (400, f"Failed to add worker {server.url}: it is there already")
    register(front, server.url, dp_size=2)
    assert sorted(workers(front)) == [f"{server.url}@0", f"{server.url}@1"]
    refused = front.post("/workers", json={"url": f"{server.url}@1"})
    assert refused.status_code == 409 and refused.json()["code"] == "ADD_WORKER_FAILED"
    assert set(ask(front, 4)) == {200} and server.counts() == {"0": 2, "1": 2}


def test_what_is_configured_leaves_for_what_is_registered(server, front):
    """An engine with all of its ranks; a rank that is registered alone leaves it as it is."""
    router = front(router={"dialect": "vllm"}, size=4)
    register(router, f"{server.url}@3")
    assert {w["source"] for w in workers(router).values()} == {"static"} and len(workers(router)) == 4
    register(router, server.url, priority=9)
    eventually(lambda: [(w["source"], w["priority"]) for w in workers(router).values()] == [("api", 9)] * 4)
    assert len(router.get("/services").json()["services"]) == 4


def test_caches_are_flushed_once_for_all_ranks(server, vllm):
    front = vllm()
    register(front, server.url, dp_size=SIZE)
    done = front.post("/flush_cache")
    assert done.status_code == 200 and done.json()["successful"] == [server.url] and len(server.ranks) == 1


def test_ranks_survive_kill_9(server, vllm, tmp_path):
    front = vllm(router={"state_dir": str(tmp_path)})
    register(front, server.url, data_parallel_size=4)
    ids = {u: w["id"] for u, w in workers(front).items()}
    front.kill()
    again = vllm(router={"state_dir": str(tmp_path)})
    assert {u: w["id"] for u, w in workers(again).items()} == ids and len(ids) == 4
    eventually(lambda: again.ready_workers() == 4)
    assert set(ask(again, 4)) == {200} and server.counts() == dict.fromkeys(names(server, 4), 1)
    assert call(again, "DELETE", "/workers/" + server.url).status_code == 200
    again.kill()
    assert workers(vllm(router={"state_dir": str(tmp_path)})) == {}
