"""The router's engines as a registry names them: lists, watch, grace, outages, bad records."""
import json
import shutil

import pytest

from fakeregistry import FakeRegistry, record
from program import Router, chat_body, eventually, http
from test_reload import reload


@pytest.fixture
def registry(start):
    return lambda *records, **how: start(FakeRegistry, *records, **how)


@pytest.fixture
def front(start):
    """front(registry, ready=2, grace="1h"): a router with a short sync interval before that registry."""
    def begin(registry, *flags, ready=0, grace="60s", **tables):
        discovery = {"registry_url": registry.url, "registry_sync_interval": "100ms",
                     "service_removal_grace_period": grace} | tables.pop("discovery", {})
        return start(Router, [], *flags, ready=ready, discovery=discovery, **tables)
    return begin


def names(router):
    return {s["name"] for s in router.get("/services").json()["services"]}


both = pytest.mark.parametrize("watch", [False, True], ids=["polled", "watched"])


@both
def test_engines_of_the_registry_get_requests(engine, registry, front, watch):
    engines = [engine(["m"]), engine(["m"])]
    source = registry(*[record(f"s{i}", e.port) for i, e in enumerate(engines)], watch=watch)
    router = front(source, ready=2)
    assert [router.chat().status_code for _ in range(40)] == [200] * 40
    assert all(e.count("finished") > 5 for e in engines)
    kind = "/services?watch=1" if watch else "/services?healthy=true"
    assert kind in source.asked


@both
def test_what_the_registry_says_is_shown(engine, registry, front, watch):
    worker = engine(["m"])
    found = record("one", worker.port, weight=3, labels={"zone": "a"}, metadata={"cache_type": "paged", "role": "decode"})
    source = registry(found, watch=watch)
    router = front(source, ready=1)
    eventually(lambda: router.get("/services").json()["services"][0]["response_time"] > 0)
    answer = router.get("/services").json()
    info = answer["services"][0]
    assert answer["total"] == 1 and answer["registry_url"] == source.url
    assert info["metadata"] == found["metadata"] and info["weight"] == 3 and info["models"] == ["m"]
    assert info["babysitter_url"] == f"http://127.0.0.1:{worker.port + 1}" and info["url"] == worker.url
    assert info["healthy"] and info["status"] == "ready" and info["request_count"] == 0
    assert router.get("/models").json()["data"] == found["metadata"]["models_list"]
    router.chat()
    eventually(lambda: router.get("/stats").json()["services"][0]["request_count"] == 1)
    for path in "/health", "/status":
        assert router.get(path).json()["healthy_services"] == "1/1"
        assert router.get(path).json()["registry_url"] == source.url


@both
def test_a_name_leads_only_where_the_router_may_go(engine, registry, front, watch):
    """Whoever writes to a registry may name any host, and its name may lead anywhere: the registry never looks."""
    worker = engine(["m"])
    far = {"allow": ["10.0.0.0/8"]}
    router = front(registry(record("one", worker.port, host="localhost"), watch=watch), discovery=far)
    def said():
        lines = [json.loads(line) for line in router.output().splitlines() if line.startswith("{")]
        return [(e["level"], e["instance"], e["address"]) for e in lines if "not allowed" in e["event"]]
    eventually(said)
    assert set(said()) <= {("warn", "one", "127.0.0.1"), ("warn", "one", "::1")}
    assert router.metric("headrace_registry_addresses_denied_total") == len(said()) >= 1
    assert router.get("/readiness").status_code == 503 and router.chat().status_code == 503
    assert all(["host", f"localhost:{worker.port}"] not in r["headers"] for r in worker.captured()["requests"])

    reload(router, discovery={"allow": ["127.0.0.0/8", "::1"]})
    eventually(lambda: router.get("/readiness").status_code == 200)
    assert router.chat().status_code == 200 and worker.count("finished") == 1
    assert any(["host", f"localhost:{worker.port}"] in r["headers"] for r in worker.captured()["requests"])
    reload(router, discovery=far)
    eventually(lambda: router.get("/readiness").status_code == 503)
    assert router.chat().status_code == 503 and worker.count("started") == 1


@both
def test_a_weight_counts_wherever_it_stands(engine, registry, front, watch):
    one, three = engine(["m"]), engine(["m"])
    source = registry(record("one", one.port, weight=1), record("three", three.port, metadata={"weight": 3}), watch=watch)
    router = front(source, ready=2)
    eventually(lambda: [s["status"] for s in router.get("/services").json()["services"]] == ["ready"] * 2)
    for _ in range(80):
        assert router.chat().status_code == 200
    assert abs(three.count("finished") - 60) <= 4


def ready(router, n):
    return [s["status"] for s in router.get("/services").json()["services"]] == ["ready"] * n


@pytest.mark.parametrize("weights", [(3, 1), (3000, 1000), (0.75, 0.25), (1000000, 333333)], ids=str)
def test_weights_are_ratios_whatever_their_size(engine, registry, front, weights):
    large, small, none = engine(["m"]), engine(["m"]), engine(["m"])
    source = registry(record("large", large.port, weight=weights[0]), record("small", small.port, weight=weights[1]),
                      record("none", none.port, weight=0), watch=True)
    router = front(source, ready=3, health={"slow_start": "0s"})
    eventually(lambda: ready(router, 3))
    assert {s["name"]: s["weight"] for s in router.get("/services").json()["services"]} == {
        "large": weights[0], "small": weights[1], "none": 0}
    assert [router.chat().status_code for _ in range(200)] == [200] * 200
    assert 135 <= large.count("finished") <= 165 and 45 <= small.count("finished") <= 55
    assert none.count("started") == 0


def test_weight_0_is_asked_when_nobody_else_serves(engine, registry, front):
    one, spare = engine(["m"]), engine(["m"])
    source = registry(record("one", one.port), record("spare", spare.port, weight=0), watch=True)
    router = front(source, ready=2)
    assert [router.chat().status_code for _ in range(20)] == [200] * 20 and spare.count("started") == 0
    source.delete("one")
    eventually(lambda: names(router) == {"spare"})
    assert [router.chat().status_code for _ in range(20)] == [200] * 20 and spare.count("finished") == 20


def test_where_all_weigh_0_all_share(engine, registry, front):
    engines = [engine(["m"]) for _ in range(2)]
    source = registry(*[record(f"s{i}", e.port, weight=0) for i, e in enumerate(engines)])
    router = front(source, ready=2, health={"slow_start": "0s"})
    eventually(lambda: ready(router, 2))
    assert [router.chat().status_code for _ in range(200)] == [200] * 200
    assert all(90 <= e.count("finished") <= 110 for e in engines)


def test_models_that_no_record_names_are_asked_for(engine, registry, front):
    worker = engine(["x", "y"])
    found = record("one", worker.port)
    del found["metadata"]["models"]
    router = front(registry(found), ready=1)
    assert [m["id"] for m in router.get("/v1/models").json()["data"]] == ["x", "y"]


@both
def test_a_bad_record_stops_nobody(engine, registry, front, watch):
    worker = engine(["m"])
    bad = record("no-host", 1)
    del bad["host"]
    source = registry(record("good", worker.port), watch=watch)
    source.extra = [None, 7, "x", [], {}, {"metadata": {"type": "openai-api"}}, bad, record("port", 99999),
                    record("wrong-port", "80"), record("", worker.port), record("host", 80, host="a b"),
                    record("float", 80.5), record("\n", worker.port),
                    {"name": "sitter", "host": "127.0.0.1", "port": 1, "metadata": {"type": "vLLM"}}]
    router = front(source, ready=1)
    assert names(router) == {"good"} and router.chat().status_code == 200
    assert router.metric("headrace_registry_bad_records_total") >= 7
    eventually(lambda: source.has_watch or len(source.asked) > 10)
    assert router.output().count("a record of the registry is skipped") <= 10       # once each


@pytest.mark.parametrize("raw", [(200, b"[]"), (200, b"{\"services\": 7}"), (200, b"{\"services\": ["), (500, b"oh"),
                                 (200, b"<html>"), (404, b"")], ids=str)
def test_an_answer_without_sense_changes_nothing(engine, registry, front, raw):
    source = registry(record("one", engine(["m"]).port))
    router = front(source, ready=1, grace="0s")
    source.raw = raw
    failures = router.metric("headrace_registry_failures_total")
    eventually(lambda: router.metric("headrace_registry_failures_total") >= failures + 3)
    assert router.chat().status_code == 200 and router.metric("headrace_registry_up") == 0
    assert router.output().count("the registry does not answer") == 1
    source.raw = None
    eventually(lambda: router.metric("headrace_registry_up") == 1)


def test_deregistered_engines_get_no_new_work_but_finish_theirs(engine, registry, front):
    leaving, staying = engine(["m"], "--itl", "20ms"), engine(["m"])
    source = registry(record("leaving", leaving.port), watch=True)
    router = front(source, ready=1, grace="1h")
    with http() as client, client.stream("POST", router.url + "/v1/chat/completions",
                                         json=chat_body(stream=True, max_tokens=100)) as answer:
        lines = answer.iter_lines()
        next(lines)
        source.put(record("staying", staying.port))
        eventually(lambda: "staying" in names(router))
        source.delete("leaving")
        eventually(lambda: names(router) == {"staying"})
        assert [router.chat().status_code for _ in range(10)] == [200] * 10
        assert leaving.count("started") == 1 and staying.count("finished") == 10
        assert "data: [DONE]" in list(lines)


def test_one_that_is_no_longer_running_leaves_at_once(engine, registry, front):
    a, b = engine(["m"]), engine(["m"])
    source = registry(record("a", a.port), record("b", b.port), watch=True)
    router = front(source, ready=2, grace="1h")
    source.put(record("a", a.port, status="stopped"))
    eventually(lambda: names(router) == {"b"})


def test_one_that_drains_finishes_what_it_has(engine, registry, front):
    """By its status in the registry: a stream goes on, others go elsewhere, and it is no outage."""
    draining, other = engine(["m"], "--itl", "20ms"), engine(["m"])
    source = registry(record("draining", draining.port), watch=True)
    router = front(source, ready=1, grace="1h")
    with http() as client, client.stream("POST", router.url + "/v1/chat/completions",
                                         json=chat_body(stream=True, max_tokens=100)) as answer:
        lines = answer.iter_lines()
        next(lines)
        source.put(record("other", other.port))
        eventually(lambda: router.ready_workers() == 2)
        source.put(record("draining", draining.port, status="draining", is_healthy=False))
        eventually(lambda: router.ready_workers() == 1)
        shown = {s["name"]: s for s in router.get("/services").json()["services"]}
        assert shown["draining"]["status"] == "draining" and shown["draining"]["in_flight"] == 1
        assert [router.chat().status_code for _ in range(10)] == [200] * 10
        assert draining.count("started") == 1 and other.count("finished") == 10
        assert "data: [DONE]" in list(lines)
    assert router.metric("headrace_instance_transitions_total", to="unhealthy") == 0
    source.put(record("draining", draining.port))
    eventually(lambda: router.ready_workers() == 2)
    eventually(lambda: router.chat().status_code == 200 and draining.count("started") > 1)


@both
def test_one_that_is_not_listed_stays_for_the_grace(engine, registry, front, watch):
    a, b = engine(["m"]), engine(["m"])
    source = registry(record("a", a.port), record("b", b.port, metadata={"static": True}), watch=watch)
    patient, strict = front(source, ready=2, grace="1h"), front(source, ready=2, grace="300ms")
    if watch:
        source.put(record("b", b.port, is_healthy=False, metadata={"static": True}))
    else:
        del source.records["b"]
    eventually(lambda: names(strict) == {"a"})
    eventually(lambda: patient.metric("headrace_registry_missing") == 1)
    assert names(patient) == {"a", "b"}


def test_a_deletion_after_the_lease_is_one_and_a_sweep_is_none(engine, registry, front):
    records = [record(name, engine(["m"]).port) for name in ("deleted", "swept", "unseen", "stays")]
    source = registry(*records, watch=True)
    router = front(source, ready=4, grace="1h")
    for silent in records[:2]:
        source.put(silent | {"is_healthy": False})
    eventually(lambda: router.metric("headrace_registry_missing") == 2)
    source.delete("swept", reason="expired")
    source.delete("unseen", reason="expired")
    source.delete("deleted")
    eventually(lambda: names(router) == {"swept", "unseen", "stays"})
    assert router.metric("headrace_registry_missing") == 2


def test_one_that_comes_back_within_the_grace_never_left(engine, registry, front):
    a, b = engine(["m"]), engine(["m"])
    source = registry(record("a", a.port), record("b", b.port))
    router = front(source, ready=2, grace="1h")
    gone = source.records.pop("b")
    eventually(lambda: router.metric("headrace_registry_missing") == 1)
    source.records["b"] = gone
    eventually(lambda: router.metric("headrace_registry_missing") == 0)
    assert "instance left" not in router.output()


def test_many_that_vanish_at_once_are_kept(engine, registry, front):
    """Three records, and a registry that has forgotten them all."""
    source = registry(*[record(f"s{i}", engine(["m"]).port) for i in range(3)])
    router = front(source, ready=3, grace="100ms")
    source.records.clear()
    eventually(lambda: router.metric("headrace_registry_held_back") == 3)
    assert router.chat().status_code == 200 and len(names(router)) == 3
    assert router.output().count("many instances would leave at once") == 1


def test_many_that_are_deleted_at_once_leave(engine, registry, front):
    source = registry(*[record(f"s{i}", engine(["m"]).port) for i in range(3)], watch=True)
    router = front(source, ready=3, grace="1h")
    for i in range(3):
        source.delete(f"s{i}")
    eventually(lambda: names(router) == set())
    assert router.get("/readiness").status_code == 503


@both
def test_while_the_registry_is_away_the_fleet_stays(engine, registry, front, watch):
    a, b = engine(["m"]), engine(["m"])
    source = registry(record("a", a.port), record("b", b.port), watch=watch)
    router = front(source, ready=2, grace="100ms")
    source.down()
    eventually(lambda: router.metric("headrace_registry_failures_total") >= 3)
    assert names(router) == {"a", "b"} and router.metric("headrace_registry_up") == 0
    assert router.chat().status_code == 200
    source.records["c"] = record("c", engine(["m"]).port)
    source.version += 1
    source.begin()
    eventually(lambda: names(router) == {"a", "b", "c"})
    assert router.output().count("the registry answers again") == 1


def test_a_watch_goes_on_where_it_was(engine, registry, front):
    source = registry(record("a", engine(["m"]).port), watch=True)
    front(source, ready=1)
    source.tell(None)
    eventually(lambda: "/services?watch=1&since=e1:1" in source.asked)


def test_a_new_store_is_no_deregistration(engine, registry, front):
    """A registry without a memory was restarted: its engines are about to register again."""
    source = registry(record("a", engine(["m"]).port), watch=True)
    router = front(source, ready=1, grace="1h")
    kept, source.records, source.epoch = source.records, {}, "e2"
    source.tell(None)
    eventually(lambda: router.metric("headrace_registry_missing") == 1)
    assert router.chat().status_code == 200
    source.put(kept["a"])
    eventually(lambda: router.metric("headrace_registry_missing") == 0)


@pytest.mark.parametrize("is_down", [True, False], ids=["cut off", "restarted"])
def test_a_store_that_has_forgotten_all_is_no_deregistration(engine, registry, front, is_down):
    """It was cut off from its engines and swept them out, or was put back to a backup: the epoch is the same."""
    records = [record(f"s{i}", engine(["m"]).port) for i in range(3)]
    source = registry(*records, watch=True)
    router = front(source, ready=3, grace="100ms")
    if is_down:
        source.down()
        eventually(lambda: router.metric("headrace_registry_failures_total") >= 1)
    source.records, source.version = {}, 9
    source.begin() if is_down else source.tell(None)
    eventually(lambda: router.metric("headrace_registry_held_back") == 3)
    assert router.chat().status_code == 200 and len(names(router)) == 3
    for found in records:
        source.put(found)
    eventually(lambda: router.metric("headrace_registry_missing") == 0)
    assert "instance left" not in router.output()


def test_a_broken_event_leads_to_a_fresh_start(engine, registry, front):
    source = registry(record("a", engine(["m"]).port), watch=True)
    router = front(source, ready=1)
    source.tell(b"data: {\"epoch\": oh no}\n\n")
    eventually(lambda: source.asked.count("/services?watch=1") == 2)
    eventually(lambda: router.metric("headrace_registry_up") == 1)
    assert names(router) == {"a"}


def test_a_watch_that_appears_is_taken(engine, registry, front):
    """The old registry is replaced by one with a watch: the 60 s until it is looked for are not waited for."""
    source = registry(record("a", engine(["m"]).port), watch=True)
    source.has_watch = False
    router = front(source, ready=1)
    assert "/services?watch=1" in source.asked
    eventually(lambda: source.asked.count("/services?healthy=true") > 2)
    assert router.output().count("the registry has no watch") == 1


def test_a_router_started_while_the_registry_is_away_serves(engine, registry, front, tmp_path):
    a = engine(["m"])
    source = registry(record("a", a.port), watch=True)
    flags = "--state-dir", tmp_path
    first = front(source, *flags, ready=1)
    kept = tmp_path / "registry.json"
    eventually(kept.exists)
    assert [s["name"] for s in json.loads(kept.read_text())["services"]] == ["a"]
    first.stop()
    source.down()
    second = front(source, *flags, ready=1)
    assert second.chat().status_code == 200 and names(second) == {"a"}
    assert second.get("/services").json()["services"][0]["metadata"] == source.records["a"]["metadata"]
    # What left in the meantime leaves without a grace: nobody knows for how long it has been gone.
    del source.records["a"]
    source.records["b"], source.version = record("b", engine(["m"]).port), 9
    source.begin()
    eventually(lambda: names(second) == {"b"})
    eventually(lambda: [s["name"] for s in json.loads(kept.read_text())["services"]] == ["b"])


def test_the_table_is_kept_though_nobody_says_where(engine, registry, front, tmp_path):
    source = registry(record("a", engine(["m"]).port), watch=True)
    env = {"XDG_STATE_HOME": str(tmp_path / "not" / "there yet")}
    first = front(source, ready=1, env=env)
    kept = tmp_path / "not" / "there yet" / "headrace" / f"router-{first.port}.json"
    eventually(kept.exists)
    first.stop()
    source.down()
    second = front(source, ready=1, port=first.port, env=env)
    assert second.chat().status_code == 200 and names(second) == {"a"}
    other = front(source, env=env)      # another router of the same user
    eventually(lambda: other.metric("headrace_registry_failures_total") >= 1)
    assert names(other) == set()


def test_a_default_folder_that_cannot_be_is_no_more_than_a_warning(engine, registry, front, tmp_path):
    (tmp_path / "file").touch()
    router = front(registry(record("a", engine(["m"]).port)), ready=1, env={"XDG_STATE_HOME": str(tmp_path / "file")})
    eventually(lambda: router.metric("headrace_registry_save_failures_total") > 0)
    assert router.chat().status_code == 200
    said = [line for line in map(json.loads, router.stderr.read_text().splitlines())
            if "cannot be kept" in line.get("event", "")]
    assert [line["level"] for line in said] == ["warn"]


def test_without_a_registry_nothing_is_kept(engine, router):
    front = router([engine(["m"])])
    assert front.chat().status_code == 200 and not (front.folder / "state").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{\"services\": 3}", "\0\0\0"], ids=repr)
def test_a_kept_table_without_sense_is_passed_over(engine, registry, front, tmp_path, text):
    (tmp_path / "registry.json").write_text(text)
    source = registry(record("a", engine(["m"]).port))
    assert front(source, "--state-dir", tmp_path, ready=1).chat().status_code == 200


def test_a_state_folder_that_goes_away_is_said_and_no_more(engine, registry, front, tmp_path):
    source = registry(record("a", engine(["m"]).port))
    router = front(source, "--state-dir", tmp_path / "state", ready=1)
    eventually(lambda: (tmp_path / "state/registry.json").exists())
    shutil.rmtree(tmp_path / "state")
    source.put(record("b", engine(["m"]).port))
    eventually(lambda: router.metric("headrace_registry_save_failures_total") > 0)
    assert router.chat().status_code == 200
    assert router.output().count("cannot be kept") == 1


def test_the_token_is_sent_and_shown_nowhere(engine, registry, front):
    source = registry(record("a", engine(["m"]).port), token="sesame-street")
    router = front(source, ready=1, discovery={"registry_token": "sesame-street"})
    assert router.chat().status_code == 200
    assert "sesame-street" not in router.admin("/config").text + router.output()


def test_who_comes_and_goes_is_held_out_while_others_serve(engine, registry, front):
    a, b = engine(["m"]), engine(["m"])
    source = registry(record("a", a.port), record("b", b.port), watch=True)
    router = front(source, ready=2, health={"interval": "100ms"})

    def states():
        return {s["name"]: s["status"] for s in router.get("/services").json()["services"]}
    for _ in range(8):
        source.delete("a")
        source.put(record("a", a.port))
    eventually(lambda: states() == {"a": "unhealthy", "b": "ready"})
    n = a.count("started")
    assert [router.chat().status_code for _ in range(20)] == [200] * 20
    assert a.count("started") == n and '"reason":"it comes and goes","held_ms":' in router.output()
    source.delete("b")          # nobody else is left
    eventually(lambda: states() == {"a": "unhealthy"})
    assert [router.chat().status_code for _ in range(3)] == [200] * 3
    assert a.count("started") == n + 3


def test_a_model_whose_engines_restart_is_missing_not_unknown(engine, registry, front):
    a, b = engine(["m"]), engine(["x"])
    source = registry(record("a", a.port), record("b", b.port, models=["x"]), watch=True)
    router = front(source, ready=2)
    source.delete("a")
    eventually(lambda: names(router) == {"b"})
    answer = router.chat("m")
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "no_healthy_instance"
    assert router.chat("nobody's").status_code == 404 and router.chat("x").status_code == 200
    assert [m["id"] for m in router.get("/v1/models").json()["data"]] == ["x"]
    source.put(record("a", a.port))
    eventually(lambda: router.chat("m").status_code == 200)


@both
def test_a_record_with_too_much_is_skipped_and_said(engine, registry, front, watch):
    worker = engine(["m"])
    source = registry(record("good", worker.port), watch=watch)
    source.extra = [record("labels", 80, labels={f"k{i}": "v" for i in range(100)}),
                    record("models", 80, metadata={"models": [f"m{i}" for i in range(2000)]}),
                    record("long", 80, metadata={"models": ["m" * 257]}),
                    record("large", 80, metadata={"x": "x" * (1 << 20)})]
    router = front(source, ready=1)
    eventually(lambda: router.metric("headrace_registry_bad_records_total") >= 4)
    assert names(router) == {"good"} and router.chat().status_code == 200
    said = {line["name"]: line["reason"] for line in map(json.loads, router.stderr.read_text().splitlines())
            if line.get("event") == "a record of the registry is skipped"}
    assert said == {"labels": "too many labels", "models": "too many models", "long": "a model's name is too long",
                    "large": "it is too large"}


def test_static_engines_and_the_registry_together(engine, registry, start):
    a, b = engine(["m"]), engine(["m"])
    source = registry(record("b", b.port))
    router = start(Router, [a], ready=2, discovery={"registry_url": source.url})
    assert names(router) == {a.url, "b"}
    for _ in range(20):
        router.chat()
    assert a.count("finished") and b.count("finished")
