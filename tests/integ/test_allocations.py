"""A request takes nothing from the heap once the router is warm."""
from concurrent.futures import ThreadPoolExecutor

import pytest

from program import chat_body, eventually, http

N_CLIENTS = 4       # few enough for one block of each slab: how they overlap makes no difference
N_REQUESTS = 100    # of each


def published_allocations(front):
    """As of now: the worker publishes its gauges together, and the longest turn since the last time is a new figure."""
    old = front.metric("headrace_loop_lag_seconds")
    eventually(lambda: front.metric("headrace_loop_lag_seconds") != old)
    return front.metric("headrace_heap_allocations_total")


@pytest.mark.parametrize("models", [("m",), ("m", "other")])
@pytest.mark.parametrize("stream", [False, True])
def test_no_allocations_after_warm_up(engine, router, models, stream):
    """With one model the body passes, with two it is held until its model is known. No discovery: models are declared."""
    engines = [engine([model]) for model in models]
    for one in engines:
        one.declared = one.models
    front = router(engines, router={"threads": 1})
    clients = [http(base_url=front.url) for _ in range(N_CLIENTS)]

    def ask(client):
        for _ in range(N_REQUESTS):
            for model in models:
                reply = client.post("/v1/chat/completions", json=chat_body(model, stream=stream, max_tokens=3))
                assert reply.status_code == 200

    def round_of_requests():
        with ThreadPoolExecutor(N_CLIENTS) as pool:
            list(pool.map(ask, clients))
        return published_allocations(front)
    warm = round_of_requests()
    assert warm > 0
    assert round_of_requests() == warm
    for client in clients:
        client.close()
