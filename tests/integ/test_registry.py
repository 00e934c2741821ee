"""The registry's endpoints: shapes, strings, codes, filters; leases; who may write what."""
import json
import os
import re
import socket
import subprocess

import pytest

from infinilm import InfiniRegistry
from ports import free_port
from program import Program, eventually, http, read_to_end
from registryprogram import HealthServer, Registry, answers, service

FIELDS = ["name", "host", "port", "hostname", "url", "status"]
OLD_RECORD = {*FIELDS, "timestamp", "last_heartbeat", "health_status", "is_healthy", "metadata"}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


@pytest.fixture
def registry(start):
    return lambda *flags, **how: start(Registry, *flags, **how)


@pytest.fixture
def one(registry):
    return registry("--health-interval", "off")


def error(answer):
    return answer.status_code, answer.json()["error"]


# --- shapes ------------------------------------------------------------------------------


def test_health(one):
    one.register("a")
    one.register("b", status="stopped")
    body = one.get("/health").json()
    assert TIMESTAMP.fullmatch(body.pop("timestamp"))
    assert body == {"status": "healthy", "registry": "running", "registered_services": 2, "healthy_services": 1}


def test_a_registration_of_an_old_client(one):
    answer = one.register("a", timestamp="1970-01-01T00:00:00", surprise=[1])
    body = answer.json()
    assert answer.status_code == 201 and answer.headers["content-type"] == "application/json"
    assert set(body) == {"message", "service"} and body["message"] == "Service 'a' registered successfully"
    record = body["service"]
    assert set(record) == OLD_RECORD and {k: record[k] for k in FIELDS} == service("a")
    assert TIMESTAMP.fullmatch(record["timestamp"]) and not record["timestamp"].startswith("1970")
    assert isinstance(record["last_heartbeat"], float) and b".0," in answer.content
    assert (record["health_status"], record["is_healthy"], record["metadata"]) == ("unknown", True, {})
    assert b'": ' not in answer.content and b", " not in answer.content


def test_new_fields_are_kept(one):
    new = {"weight": 3, "role": "decode", "labels": {"zone": "a"}, "ttl": 60, "metadata": {"models": ["m"], "x": None}}
    for record in (one.register("a", **new).json()["service"], one.record(), one.get("/services").json()["services"][0]):
        assert {k: record[k] for k in new} == new


def test_the_last_registration_wins(one):
    one.register("a", host="10.0.0.1", metadata={"x": 1})
    one.register("a", host="10.0.0.2")
    assert one.names() == ["a"]
    assert (one.record()["host"], one.record()["metadata"]) == ("10.0.0.2", {})


@pytest.mark.parametrize("missing", FIELDS)
def test_a_missing_field_is_named_in_order(one, missing):
    body = {k: v for k, v in service().items() if FIELDS.index(k) < FIELDS.index(missing)}
    assert error(one.post("/services", json=body)) == (400, f"Missing required field: {missing}")
    assert one.names() == []


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"name":"a"', b"\xff"])
def test_broken_json(one, body):
    one.register("a")
    assert error(one.post("/services", content=body)) == (400, "Invalid JSON")
    if body:
        assert error(one.ask("PUT", "/services/a", content=body)) == (400, "Invalid JSON")


@pytest.mark.parametrize("method,path", [("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/health"), ("POST", "/heartbeat")])
def test_an_unknown_service(one, method, path):
    answer = one.ask(method, "/services/nobody" + path, **({"json": {}} if method == "PUT" else {}))
    assert error(answer) == (404, "Service 'nobody' not found") and answer.json()["code"]


def test_one_record(one):
    registered = one.register("a").json()["service"]
    assert one.record() == registered


def test_an_update(one):
    one.register("a", metadata={"x": 1, "y": 2})
    answer = one.ask("PUT", "/services/a", json={"name": "b", "host": None, "port": 10, "metadata": {"z": 3}})
    assert answer.status_code == 200 and answer.json()["message"] == "Service 'a' updated successfully"
    record = answer.json()["service"]
    assert (record["name"], record["host"], record["port"], record["metadata"]) == ("a", "127.0.0.1", 10, {"z": 3})
    assert one.names() == ["a"] and one.record() == record


def test_a_deletion(one):
    one.register("a")
    answer = one.ask("DELETE", "/services/a")
    assert (answer.status_code, answer.json()) == (200, {"message": "Service 'a' unregistered successfully"})
    assert one.names() == [] and one.ask("DELETE", "/services/a").status_code == 404


def test_a_heartbeat(one):
    one.register("a")
    for content in (b"", b"{}", b"broken", b"[1]", b'{"status":7}'):
        body = one.post("/services/a/heartbeat", content=content).json()
        assert TIMESTAMP.fullmatch(body.pop("timestamp")) and body == {"message": "Heartbeat received"}
        assert one.record()["status"] == "running"
    assert one.post("/services/a/heartbeat", json={"status": "stopping"}).json()["message"] == "Heartbeat received"
    assert (one.record()["status"], one.record()["is_healthy"]) == ("stopping", False)


def test_filters(one):
    one.register("a")
    one.register("b", status="stopped")
    one.register("c", status="RUNNING")
    for query, names in {"": "abc", "?status=running": "a", "?status=stopped": "b", "?status=none": "",
                         "?healthy=true": "a", "?healthy=TRUE": "a", "?healthy=false": "bc", "?healthy=1": "bc",
                         "?healthy=true&status=stopped": "", "?healthy=no&status=stopped": "b", "?status=&healthy=": "abc",
                         "?unknown=1": "abc", "?status=runn%69ng": "a"}.items():
        body = one.get("/services" + query).json()
        assert ("".join(s["name"] for s in body["services"]), body["total"]) == (names, len(names)), query
        assert TIMESTAMP.fullmatch(body["timestamp"])


def test_stats(one):
    one.register("a", host="10.0.0.1")
    one.register("b", host="10.0.0.1", status="stopped")
    one.register("c", host="10.0.0.2")
    body = one.get("/stats").json()
    assert TIMESTAMP.fullmatch(body.pop("timestamp")) and isinstance(body.pop("uptime"), int)
    assert body == {"total_services": 3, "healthy_services": 2, "unhealthy_services": 1,
                    "status_distribution": {"running": 2, "stopped": 1},
                    "host_distribution": {"10.0.0.1": 2, "10.0.0.2": 1}}


@pytest.mark.parametrize("name", ["a/b", "a b", "50%", "ä€", 'quote"', "it's", "a?b", "a#b", "..", "\\"])
def test_names_of_all_kinds(one, name):
    from urllib.parse import quote
    path = f"/services/{quote(name, safe='')}".replace("..", "%2E%2E")
    assert one.register(name).json()["message"] == f"Service '{name}' registered successfully"
    with one.connect() as s:        # httpx would tidy the path
        head = answers(s, f"GET {path} HTTP/1.1\r\nhost: r\r\nconnection: close\r\n\r\n".encode(), None)
    assert json.loads(head.split(b"\r\n\r\n", 1)[1])["name"] == name
    assert one.names() == [name]


# --- what is refused ----------------------------------------------------------------------


def test_methods_and_paths(one):
    answer = one.ask("PATCH", "/services/a")
    assert answer.status_code == 405 and set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "DELETE"}
    assert one.get("/nothing").status_code == 404 and isinstance(one.get("/nothing").json()["error"], str)
    head = one.ask("HEAD", "/services")
    assert head.status_code == 200 and head.content == b"" and int(head.headers["content-length"]) > 0
    assert one.ask("HEAD", "/services?watch=1").status_code == 200


def test_large_bodies(registry):
    one = registry("--body-limit", "64KiB")
    assert one.register("a", metadata={"x": "y" * 60000}).status_code == 201
    assert one.register("a", metadata={"x": "y" * 70000}).status_code == 413
    assert one.post("/services", content=iter([b"x" * 40000] * 3)).status_code == 413
    assert one.get("/health").status_code == 200


def test_wrong_types(one):
    for wrong in ({"port": "x"}, {"port": 70000}, {"port": -1}, {"name": 7}, {"metadata": []}, {"labels": "x"}, {"ttl": -1}):
        assert one.post("/services", json=service() | wrong).status_code == 400, wrong
    assert one.names() == []


def test_a_token_is_for_writes(registry):
    one = registry(env={"HEADRACE_REGISTRY_TOKEN": "s3cret"})
    assert one.register("a").status_code == 401 and one.names() == []
    for wrong in ("Bearer s3cre", "Bearer s3crets", "Basic s3cret", "Bearer", "s3cret"):
        assert one.post("/services", json=service(), headers={"authorization": wrong}).status_code == 401
    right = {"authorization": "Bearer s3cret"}
    assert one.post("/services", json=service(), headers=right).status_code == 201
    for method, path in (("PUT", ""), ("DELETE", ""), ("POST", "/heartbeat")):
        assert one.ask(method, "/services/a" + path, json={}).status_code == 401
    for path in ("/services", "/services/a", "/health", "/stats", "/metrics", "/services/a/health", "/services?watch=1"):
        assert one.get(path).status_code == 200
    assert one.ask("DELETE", "/services/a", headers=right).status_code == 200
    assert "s3cret" not in one.output()


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "169.254.43518", "::ffff:169.254.169.254",
                                  "fe80::1", "fe80::1%eth0", "[fe80::1]", "100.100.100.200", "fd00:ec2::254"])
def test_metadata_addresses_are_refused(one, host):
    answer = one.register("a", host=host)
    assert answer.status_code == 403 and answer.json()["code"] == "address_denied"
    url = f"http://[{host}]:80" if ":" in host and "[" not in host and "%" not in host else f"http://{host}:80"
    if "%" not in host:
        assert one.register("a", url=url).status_code == 403
    one.register("b")
    assert one.ask("PUT", "/services/b", json={"host": host}).status_code == 403
    assert one.names() == ["b"] and one.record("b")["host"] == "127.0.0.1"


def test_only_what_is_allowed(registry):
    one = registry("--allow", "10.0.0.0/8,fd00::/8")
    def code(host): return one.register("a", host=host, url="http://engine.example:80").status_code
    assert [code(h) for h in ("10.1.2.3", "fd00::1", "engine.example")] == [201] * 3
    assert [code(h) for h in ("11.0.0.1", "fe00::1", "127.0.0.1", "localhost")] == [403] * 4


WILDCARDS = ["0.0.0.0", "::", "[::]", "*", "0", "::ffff:0.0.0.0"]


@pytest.mark.parametrize("wildcard", WILDCARDS)
def test_a_wildcard_becomes_the_address_that_sent_it(one, wildcard):
    """Old babysitters register 0.0.0.0, which would lead each router to itself."""
    in_url = f"[{wildcard}]" if wildcard.startswith("::") else wildcard
    placed = {"host": "127.0.0.1", "url": "http://127.0.0.1:8000/v1?x=*"}
    sent = {"host": wildcard, "url": f"http://{in_url}:8000/v1?x=*"}
    def place(answer): return {k: answer.json()["service"][k] for k in placed}
    assert place(one.register("a", **sent)) == placed
    one.register("b", host="10.0.0.1", url="http://10.0.0.1:8000")
    assert place(one.ask("PUT", "/services/b", json=sent)) == placed
    assert place(one.register("c", host="engine", url=sent["url"])) == placed | {"host": "engine"}
    assert {k: one.record("b")[k] for k in placed} == placed


def test_a_wildcard_sent_over_ipv6(start):
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    def place(answer): return answer.json()["service"]["host"], answer.json()["service"]["url"]
    sent = service(host="0.0.0.0", url="http://0.0.0.0:8000")
    port = free_port()
    one = start(Program, "registry", "--port", port, "--store", "memory", "--host", "::1", "--health-interval", "off")
    one.url = f"http://[::1]:{port}"
    one.await_ready(lambda: one.get("/health").status_code == 200)
    assert place(one.post("/services", json=sent)) == ("::1", "http://[::1]:8000")


def test_a_wildcard_of_this_machine_is_where_others_find_it(registry):
    one = registry("--host", "0.0.0.0", "--health-interval", "off")
    assert one.register("a", host="0.0.0.0", url="http://0.0.0.0:8000").status_code == 201
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))     # nothing is sent
            own = s.getsockname()[0]
        except OSError:                     # no way out of this machine
            own = "0.0.0.0"
    placed = {"host": own, "url": f"http://{own}:8000"}
    assert {k: one.record("a")[k] for k in placed} == placed


def test_who_may_not_be_registered_is_no_better_as_a_wildcard(registry):
    one = registry("--allow", "10.0.0.0/8")
    assert one.register("a", host="0.0.0.0", url="http://10.0.0.1:1").status_code == 403
    assert one.register("a", host="10.0.0.1", url="http://0.0.0.0:1").status_code == 403
    assert one.register("a", host="10.0.0.1", url="http://*/" + "x" * 1015).status_code == 400
    assert one.names() == []


def test_too_many_records(registry):
    one = registry("--max-records", 3)
    assert [one.register(n).status_code for n in "abcd"] == [201, 201, 201, 503]
    assert one.register("a", port=1).status_code == 201 and one.get("/health").json()["registered_services"] == 3
    one.ask("DELETE", "/services/a")
    assert one.register("d").status_code == 201


# --- leases and probes ---------------------------------------------------------------------


def test_a_lease_ends_and_is_renewed(one):
    one.register("a", ttl=1)
    one.register("b")
    eventually(lambda: not one.record()["is_healthy"])
    assert one.names("?healthy=true") == ["b"] and one.names("?healthy=false") == ["a"]
    assert one.get("/stats").json()["unhealthy_services"] == 1
    eventually(lambda: one.post("/services/a/heartbeat") and one.record()["is_healthy"])


def test_the_default_of_the_lease(registry):
    one = registry("--ttl", "1s")
    assert "ttl" not in one.register("a").json()["service"]
    assert one.register("b", ttl=60).json()["service"]["ttl"] == 60
    eventually(lambda: one.names("?healthy=true") == ["b"])


def test_probes_tell_health_apart_from_life(start, registry):
    engine = start(HealthServer)
    one = registry("--health-interval", "100ms")
    one.register("a", url=engine.url, port=engine.port)
    before = eventually(lambda: one.record()["health_status"] == "healthy" and one.record())
    engine.status = 503
    eventually(lambda: one.record()["health_status"] == "unhealthy")
    assert one.record()["is_healthy"] and one.record()["last_heartbeat"] == before["last_heartbeat"]
    engine.status = 204
    eventually(lambda: one.record()["health_status"] == "healthy")
    assert set(engine.paths) == {"/health"}


def test_an_engine_is_probed_at_its_babysitter(start, registry):
    port = free_port(2)
    babysitter = start(HealthServer, port=port + 1)
    one = registry("--health-interval", "off")
    one.register("a", port=port, url="http://127.0.0.1:9", metadata={"type": "openai-api"})
    assert one.get("/services/a/health").json()["health_status"] == "healthy" and babysitter.paths == ["/health"]
    one.register("b", port=65535, url=babysitter.url + "/", metadata={"type": "openai-api"})
    assert one.get("/services/b/health").json()["health_status"] == "healthy"


def test_a_probe_on_demand_renews_the_lease(start, one):
    engine = start(HealthServer, 503)
    one.register("a", url=engine.url, ttl=1)
    eventually(lambda: not one.record()["is_healthy"])
    body = one.get("/services/a/health").json()
    assert (body["health_status"], body["is_healthy"]) == ("unhealthy", False)
    engine.status = 200
    body = one.get("/services/a/health").json()
    assert TIMESTAMP.fullmatch(body.pop("timestamp")) and isinstance(body.pop("last_heartbeat"), float)
    assert body == {"service": "a", "health_status": "healthy", "is_healthy": True}


def test_probes_are_parallel_but_not_too_many(start, registry):
    engine = start(HealthServer)
    engine.gate.clear()
    one = registry("--health-interval", "100ms", "--health-timeout", "60s")
    for i in range(100):
        one.register(f"s{i}", url=engine.url)
    eventually(lambda: engine.n_active == 64)
    engine.gate.set()
    eventually(lambda: all(s["health_status"] == "healthy" for s in one.get("/services").json()["services"]))
    assert engine.n_active_max == 64


def test_a_probed_service_goes_away(start, one):
    engine = start(HealthServer)
    engine.gate.clear()
    one.register("a", url=engine.url)
    with one.connect() as s:
        s.sendall(b"GET /services/a/health HTTP/1.1\r\nhost: r\r\n\r\n")
        eventually(lambda: engine.n_active)
        one.ask("DELETE", "/services/a")
        assert s.recv(4096).startswith(b"HTTP/1.1 404 ")


# --- the program ----------------------------------------------------------------------------


def test_metrics(one):
    one.register("a")
    one.register("b", status="stopped")
    one.register("c", host=7)
    one.post("/services/a/heartbeat")
    assert (one.metric("headrace_registry_records"), one.metric("headrace_registry_healthy")) == (2, 1)
    assert one.metric("headrace_registry_heartbeats_total") == 1
    assert [one.metric("headrace_registry_writes_total", outcome=o) for o in ("done", "failed", "refused")] == [2, 0, 1]
    promtool = os.environ.get("PROMTOOL")
    if promtool and os.path.exists(promtool):
        done = subprocess.run([promtool, "check", "metrics"], input=one.get("/metrics").text, text=True, capture_output=True)
        assert done.returncode == 0 and not done.stderr, done.stderr


def test_by_the_other_name(start):
    one = start(InfiniRegistry)
    assert '"http://0.0.0.0:' in one.stderr.read_text()
    assert (one.state / "headrace/registry.db").is_file() and (one.state / "headrace").stat().st_mode & 0o777 == 0o700


def test_a_taken_port_and_a_taken_folder(registry, tmp_path):
    one = registry(state_dir=tmp_path / "state")
    for flags in (["--port", one.port, "--store", "memory"], ["--port", free_port(), "--state-dir", tmp_path / "state"]):
        other = Program("registry", *flags)
        assert other.wait() == 1 and other.output()
    assert one.register("a").status_code == 201


def test_requests_at_work_are_answered_before_the_end(start, one):
    engine = start(HealthServer)
    engine.gate.clear()
    one.register("a", url=engine.url)
    with one.connect() as s:
        s.sendall(b"GET /services/a/health HTTP/1.1\r\nhost: r\r\n\r\n")
        eventually(lambda: engine.n_active)
        one.process.terminate()
        eventually(lambda: '"stopping"' in one.output())
        engine.gate.set()
        assert b'"health_status":"healthy"' in read_to_end(s)[0]
    assert one.wait() == 0
