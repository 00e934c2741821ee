"""What the tests of vLLM's router ask of a router by its command line alone, with workers like theirs."""
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from program import eventually
from test_vllm_flags import checked  # noqa: F401: a fixture
from vllmrouter import ManagedRouter, Worker, holding

FOREVER = 1_000_000
RETRIES = {"retry_max_retries": 3, "retry_initial_backoff_ms": 10, "retry_max_backoff_ms": 50}


@pytest.fixture
def worker(start):
    return lambda **how: start(Worker, **how)


@pytest.fixture
def front(start):
    """front(workers, **settings)"""
    def begin(workers, *flags, **settings):
        return start(ManagedRouter, *flags, "--worker-urls", *[w.url for w in workers], **settings)
    return begin


def who(reply):
    """-> the worker that has answered"""
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-worker-id"] == reply.json()["worker_id"]
    return reply.json()["worker_id"]


def spread(router, n, prompt="Hello {}", clients=1):
    """-> how many of n requests each worker answered"""
    with ThreadPoolExecutor(clients) as pool:
        return Counter(pool.map(lambda i: who(router.complete(prompt.format(i))), range(n)))


# --- distributions ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy, least, most", [("round_robin", 17, 23), ("random", 1, 58), ("power_of_two", 1, 58)])
def test_every_worker_gets_its_share(worker, front, policy, least, most):
    """Each of the router's threads goes round by itself."""
    workers = [worker() for _ in range(3)]
    counts = spread(front(workers, policy=policy), 60)
    assert set(counts) == {w.id for w in workers} and least <= min(counts.values()) and max(counts.values()) <= most


def test_power_of_two_goes_where_less_is_done(worker, front):
    """Their slow worker: one that keeps what it gets."""
    slow, fast = worker(), worker()
    hold = holding([slow])
    router = front([slow, fast], policy="power_of_two", worker_startup_check_interval=1)
    with ThreadPoolExecutor(32) as pool:
        replies = []
        for n in range(1, 33):
            replies.append(pool.submit(router.complete))
            eventually(lambda: len(slow.generations) + len(fast.generations) == n and sum(r.done() for r in replies) >= n - len(slow.generations))
        hold.set()
        counts = Counter(who(r.result(60)) for r in replies)
    assert counts[fast.id] >= 31 and sum(counts.values()) == 32


@pytest.mark.parametrize("prompt", ["repeated prompt for cache", "water " * 400])
def test_the_same_prompt_stays_with_one_worker(worker, front, prompt):
    counts = spread(front([worker(), worker()], policy="cache_aware"), 12, prompt)
    assert max(counts.values()) >= 10, counts


@pytest.mark.parametrize("prompt", ["repeated prompt for cache", "water " * 400])
def test_a_model_that_no_worker_lists_is_relayed(worker, front, prompt):
    """By the policy, as another: it stays with one, and what that says of it is the answer."""
    first, second = worker(), worker()
    router = front([first, second], policy="cache_aware")
    counts = Counter(who(router.complete(prompt, model="another")) for _ in range(12))
    assert max(counts.values()) >= 10, counts


def test_what_a_worker_says_of_an_unknown_model_is_the_answer(engine, front):
    router = front([engine(["m"]), engine(["m"])], *"--model-alias al=gone".split())
    answers = [router.complete(model="another") for _ in range(4)]
    assert {a.status_code for a in answers} == {404} and all("The model `another` does not exist" in a.text for a in answers)
    assert router.complete(model="m").status_code == 200
    alias = router.complete(model="al")
    assert alias.status_code == 404 and "no instance serves this model" in alias.text


def test_of_many_models_an_unknown_one_is_refused(worker, front):
    w = worker()
    refused = front([w], "--enable-igw").complete(model="another")
    assert refused.status_code == 404 and refused.json()["error"]["code"] == "model_not_found" and not w.generations


@pytest.mark.parametrize("role", ["user", "developer"])
def test_the_same_chat_stays_with_one_worker(worker, front, role):
    router = front([worker(), worker()], policy="cache_aware")
    body = {"model": "test-model", "messages": [{"role": role, "content": "be brief " * 200}, {"role": "user", "content": "Hi"}]}
    counts = Counter(who(router.post("/v1/chat/completions", json=body)) for _ in range(12))
    assert max(counts.values()) >= 10, counts


def test_prompts_that_differ_go_to_all(worker, front):
    workers = [worker() for _ in range(3)]
    router = front(workers, policy="cache_aware", cache_threshold=0.99, balance_abs_threshold=0, balance_rel_threshold=1.0)
    assert len(spread(router, 40, "prompt {} is of its own", clients=8)) == 3


@pytest.mark.parametrize("policy", ["consistent_hash", "rendezvous_hash"])
def test_a_session_stays_with_one_worker(worker, front, policy):
    router = front([worker() for _ in range(3)], policy=policy)
    homes = [{who(router.complete(f"turn {i}", headers={"x-session-id": f"session-{n}"})) for i in range(4)} for n in range(24)]
    assert all(len(home) == 1 for home in homes) and len(set.union(*homes)) > 1


# --- limits -----------------------------------------------------------------------------------------


def test_without_a_queue_what_is_too_much_is_429(worker, front):
    w = worker()
    hold = holding([w])
    router = front([w], policy="round_robin", max_concurrent_requests=2, queue_size=0)
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(router.complete) for _ in range(2)]
        eventually(lambda: len(w.generations) == 2)
        refused = [router.complete() for _ in range(8)]
        hold.set()
        assert [r.result(60).status_code for r in first] == [200, 200]
    assert {r.status_code for r in refused} == {429} and all(int(r.headers["retry-after"]) >= 1 for r in refused)
    assert router.complete().status_code == 200


def test_who_waits_too_long_gets_408(worker, front):
    w = worker()
    hold = holding([w])
    router = front([w], policy="round_robin", max_concurrent_requests=1, queue_size=1, queue_timeout_secs=1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(router.complete)
        eventually(lambda: len(w.generations) == 1)
        assert router.complete().status_code == 408 and len(w.generations) == 1
        hold.set()
        assert first.result(60).status_code == 200


def test_a_rate_is_a_limit_too(worker, front):
    router = front([worker()], policy="round_robin", max_concurrent_requests=1, rate_limit_tokens_per_second=1, queue_size=0)
    statuses = [router.complete().status_code for _ in range(10)]
    assert statuses[0] == 200 and statuses.count(429) >= 7 and set(statuses) == {200, 429}


def test_a_payload_has_its_limit(worker, front):
    w = worker()
    router = front([w], policy="round_robin", max_payload_size=1024)
    assert router.complete("x" * 2000).status_code == 413 and router.complete("x" * 200).status_code == 200
    assert len(w.generations) == 1


# --- data-parallel ranks ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["round_robin", "random", "cache_aware"])
def test_ranks_are_within_their_number(worker, front, policy):
    workers = [worker(), worker()]
    router = front(workers, policy=policy, intra_node_data_parallel_size=4)
    spread(router, 40)
    said = [rank for w in workers for rank in w.ranks()]
    assert len(said) == 40 and all(len(rank) == 1 and rank[0] in "0123" for rank in said)
    assert sorted(router.get("/list_workers").json()["urls"]) == sorted(f"{w.url}@{k}" for w in workers for k in range(4))


def test_eight_ranks_are_in_balance(worker, front):
    w = worker()
    spread(front([w], policy="round_robin", intra_node_data_parallel_size=8), 160, clients=8)
    counts = Counter(rank for rank, in w.ranks())
    assert set(counts) == set("01234567") and 16 <= min(counts.values()) and max(counts.values()) <= 24


# --- prefill and decode ---------------------------------------------------------------------------------


@pytest.fixture
def pairs(start, worker):
    """pairs(ports, **settings) -> a router, the workers that prefill, those that decode"""
    def begin(ports, **settings):
        first, second = [worker() for _ in ports], [worker() for _ in range(3)]
        flags = ["--vllm-pd-disaggregation"]
        for w, port in zip(first, ports):
            flags += ["--prefill", w.url, *([port] if port else [])]
        for w in second:
            flags += ["--decode", w.url]
        return start(ManagedRouter, *flags, **settings), first, second
    return begin


@pytest.mark.parametrize("policy, ports", [
    *[(policy, ("none", "none")) for policy in ("round_robin", "random", "power_of_two", "cache_aware", "consistent_hash")],
    ("round_robin", (None, None)), ("round_robin", ("none", 8998))], ids=str)
def test_answers_are_of_who_decodes(pairs, ports, policy):
    router, _, second = pairs(ports, policy=policy)
    counts = spread(router, 30, "p{}")
    assert set(counts) <= {w.id for w in second} and sum(counts.values()) == 30


def test_a_pair_gets_what_no_worker_lists(pairs):
    router, first, second = pairs(("none", "none"))
    answers = [who(router.complete(f"{n} " + "water " * 400, model="another")) for n in range(4)]
    assert set(answers) <= {w.id for w in second} and sum(len(w.generations) for w in first) == 4


def test_each_side_has_its_policy(pairs):
    router, first, second = pairs(("none", "none"), policy="random", prefill_policy="round_robin", decode_policy="round_robin")
    counts = spread(router, 60, "{} " + "water " * 400)
    assert set(counts) == {w.id for w in second} and 17 <= min(counts.values()) and max(counts.values()) <= 23
    assert sum(len(w.generations) for w in first) == 60 and 27 <= len(first[0].generations) <= 33


def test_sides_may_have_ranks_of_their_own(pairs):
    router, first, second = pairs(("none", "none"), policy="round_robin", prefill_data_parallel_size=2, decode_data_parallel_size=4)
    spread(router, 48, "{} " + "water " * 400)
    for workers, size in (first, 2), (second, 4):
        assert [{rank for rank, in w.ranks()} for w in workers] == [{str(k) for k in range(size)}] * len(workers)


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [{"fails": FOREVER}, {"fails": FOREVER, "status": 503}, {"fails": FOREVER, "status": 429}], ids=str)
def test_what_fails_is_tried_elsewhere(worker, front, failing):
    bad, good = worker(**failing), worker()
    router = front([bad, good], policy="round_robin", **RETRIES)
    assert spread(router, 10) == {good.id: 10} and bad.generations


def test_an_engine_that_hangs_up_is_tried_elsewhere(engine, front):
    bad, good = engine(["test-model"], "--fault", "reset:0"), engine(["test-model"])
    router = front([bad, good], policy="round_robin", **RETRIES)
    assert [router.complete().status_code for _ in range(10)] == [200] * 10 and bad.count("started")


def test_it_is_tried_again_where_there_is_nobody_else(worker, front):
    w = worker(fails=2)
    assert who(front([w], policy="round_robin", **RETRIES).complete()) == w.id and len(w.generations) == 3


def test_without_retries_failures_show(worker, front):
    bad, good = worker(fails=FOREVER), worker()
    router = front([bad, good], policy="round_robin", disable_retries=True, disable_circuit_breaker=True)
    seen = Counter(router.complete().status_code for _ in range(10))
    assert set(seen) == {200, 500} and 4 <= seen[500] <= 6         # each thread goes round by itself


def test_a_breaker_opens_and_closes(worker, front):
    w = worker(fails=3)
    router = front([w], policy="round_robin", cb_failure_threshold=3, cb_success_threshold=2, cb_timeout_duration_secs=1,
                   cb_window_duration_secs=10, disable_retries=True)
    assert [router.complete().status_code for _ in range(5)] == [500] * 3 + [503] * 2 and len(w.generations) == 3
    eventually(lambda: router.complete().status_code == 200)
    assert {router.complete().status_code for _ in range(5)} == {200}


def test_who_fails_its_probe_is_left_alone_again(worker, front):
    w = worker(fails=FOREVER)
    router = front([w], policy="round_robin", cb_failure_threshold=2, cb_success_threshold=2, cb_timeout_duration_secs=1, disable_retries=True)
    assert [router.complete().status_code for _ in range(3)] == [500, 500, 503]
    eventually(lambda: router.complete().status_code == 500)
    assert router.complete().status_code == 503 and len(w.generations) == 3


def test_a_breaker_that_is_off_never_opens(worker, front):
    router = front([worker(fails=FOREVER)], policy="round_robin", cb_failure_threshold=1, disable_circuit_breaker=True, disable_retries=True)
    assert {router.complete().status_code for _ in range(10)} == {500}


def test_each_worker_has_its_breaker(worker, front):
    bad, good = worker(fails=FOREVER), worker()
    router = front([bad, good], policy="round_robin", cb_failure_threshold=2, cb_timeout_duration_secs=60, disable_retries=True)
    assert Counter(router.complete().status_code for _ in range(20)) == {500: 2, 200: 18}


def test_it_ends_in_time(worker, start):
    """Their tests kill what has not ended in five seconds; it says first that it leaves."""
    router = start(ManagedRouter, "--worker-urls", worker().url, env={"HEADRACE_TIMEOUT_ANNOUNCE": ""})
    router.process.terminate()
    eventually(lambda: router.get("/readiness").status_code == 503)
    assert router.wait(5) == 0


# --- keys, web pages, other flags -----------------------------------------------------------------------------


def test_workers_get_the_routers_key(worker, front):
    router = front([worker(key="correct_api_key")], policy="round_robin", api_key="correct_api_key")
    assert router.complete().status_code == 200
    other = front([worker(key="correct_api_key")], policy="round_robin", api_key="wrong")
    assert other.complete().status_code == 401


def test_web_pages_may_ask(worker, front):
    how = {"headers": {"origin": "http://a.example"}}
    assert front([worker()]).complete(**how).headers["access-control-allow-origin"] in ("*", "http://a.example")
    choosy = front([worker()], cors_allowed_origins=["http://b.example", "http://c.example"])
    assert "access-control-allow-origin" not in choosy.complete(**how).headers
    allowed = choosy.complete(headers={"origin": "http://c.example"})
    assert allowed.headers["access-control-allow-origin"] == "http://c.example"


@pytest.mark.parametrize("flags", ["--service-discovery-port 8000", "--service-discovery-namespace default", "--selector app=vllm role=x",
                                   "--prefill-selector a=b", "--decode-selector a=b"])
def test_what_says_how_to_discover_and_not_to_is_told_of(checked, flags):  # noqa: F811
    done = checked("--worker-urls", "http://127.0.0.1:1", *flags.split())
    assert done.returncode == 0 and re.match(rf"{flags.split()[0]}: warning: ", done.stderr)
