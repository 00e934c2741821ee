"""Another configuration while the router runs: whole or not at all, and no request notices."""
import hashlib
import json
import signal
import socket
import subprocess
import threading

import pytest

from fakeworker import STREAM_HEAD, answer, chunk
from ports import free_port
from program import BIN, KEY, chat_body, eventually, http, raw_request, read_to_end
from test_notify import Manager

SECOND_KEY = KEY + "-second"


def ctl_reload(front, *arguments):
    done = subprocess.run([BIN, "ctl", "--admin", front.admin_url, "reload", *arguments], capture_output=True, text=True,
                          timeout=60)
    return done.returncode, done.stdout, done.stderr


def reload(front, **changes):
    """-> what the router says has changed."""
    front.reconfigure(**changes)
    code, shown, mistakes = ctl_reload(front, "--json")
    assert code == 0, mistakes
    return json.loads(shown)


def reloads(front, outcome="applied"):
    return front.metric("headrace_reloads_total", outcome=outcome)


def events(front):
    return [json.loads(line) for line in front.output().splitlines() if line.startswith("{")]


def always(data):
    def script(peer):
        while peer.request():
            peer.send(data)
    return script


class FakeUrl:
    """An engine that is only named."""

    def __init__(self, url, more):
        self.url, self.more = url, more


def silent(peer):
    peer.request()
    peer.wait_for_end()


def digest(key):
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def tenant(name, *keys, **more):
    return {"name": name, "keys": [digest(key) for key in keys]} | more


def bearer(key):
    return {"authorization": f"Bearer {key}"}


class Gated:
    """An engine that begins streams, each of which goes on when it is told to."""

    def __init__(self, fake):
        self.gates = []         # in the order in which requests came
        self.worker = fake(self.script)

    def script(self, peer):
        while peer.request():
            gate = threading.Event()
            self.gates.append(gate)
            peer.send(STREAM_HEAD, chunk(b"data: {}\n\n"))
            gate.wait(60)
            peer.send(chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")

    def open(self, front, headers=""):
        """-> a connection on which the stream has begun, and its gate."""
        s = front.connect()
        s.sendall(raw_request(chat_body(stream=True), headers=headers))
        return self.begun(s)

    def begun(self, s):
        assert b"data: {}" in read_to_end(s, b"data: {}\n\n")[0]
        return s, self.gates[-1]

    def end(self, stream):
        """-> the connection, kept."""
        s, gate = stream
        gate.set()
        data, ended = read_to_end(s, b"0\r\n\r\n")
        assert ended is None and b"[DONE]" in data
        return s


# --- whole or not at all ----------------------------------------------------------------------------

def test_a_bad_file_changes_nothing(fake, router):
    front = router([fake(always(answer()))])
    before = front.admin("/config").json()
    front.reconfigure(timeout={"total": "5m", "heat": "1s"}, explain={"headers": True})
    code, shown, said = ctl_reload(front)
    assert code == 1 and not shown
    assert "bad_configuration: the configuration has mistakes" in said
    assert "timeout.heat: unknown key; did you mean timeout.head?" in said and str(front.config) in said
    assert front.admin("/config").json() == before
    assert "x-headrace-instance" not in front.chat().headers
    assert (reloads(front), reloads(front, "refused")) == (0, 1)
    front.process.send_signal(signal.SIGHUP)
    eventually(lambda: reloads(front, "refused") == 2)
    assert any("timeout.heat" in e.get("what", "") for e in events(front))
    front.config.unlink()
    assert ctl_reload(front)[0] == 1 and front.chat().status_code == 200


@pytest.mark.parametrize("name, changes", [
    ("router.port", {"router": {"port": 1}}), ("router.threads", {"router": {"threads": 3}}),
    ("router.host", {"router": {"host": "0.0.0.0"}}), ("admin.port", {"admin": {"port": 1}}),
    ("metrics.port", {"metrics": {"port": 2}}), ("router.hold_memory", {"router": {"hold_memory": "300MiB"}}),
    ("router.state_dir", {"router": {"state_dir": "/tmp"}}), ("policy.prefix_index_mb", {"policy": {"prefix_index_mb": 1}}),
    ("session.capacity", {"session": {"capacity": 64}}), ("log.access", {"log": {"access": "off"}}),
    ("explain.ring", {"explain": {"ring": 1}}), ("discovery.registry_url", {"discovery": {"registry_url": "http://r:1"}}),
])
def test_what_cannot_change_refuses_the_whole(fake, router, name, changes):
    front = router([fake(always(answer()))])
    front.reconfigure(**changes)
    front.reconfigure(cors={}, explain={"headers": True} | changes.get("explain", {}))
    code, _, said = ctl_reload(front)
    assert code == 1
    assert said == f"headrace ctl: 409 needs_restart: {name} cannot change while the router runs: a restart or an upgrade takes it\n"
    assert "x-headrace-instance" not in front.chat().headers


def test_what_is_wrong_with_files_refuses_the_whole(fake, router, tmp_path):
    keys, engine_key = tmp_path / "keys", tmp_path / "engine"
    keys.write_text(f"a {KEY}\n")
    engine_key.write_text("one\n")
    front = router([fake(always(answer()))], tenants=[{"name": "a"}], auth={"keys_file": str(keys)},
                   upstream={"api_key_file": str(engine_key)})
    keys.write_text(f"a {KEY}\nb {SECOND_KEY}\n")
    code, _, said = ctl_reload(front)
    assert code == 1 and "line 2: there is no such tenant" in said and SECOND_KEY not in said
    keys.write_text(f"a {SECOND_KEY}\n")
    engine_key.unlink()
    assert ctl_reload(front)[0] == 1
    assert front.chat(headers=bearer(KEY)).status_code == 200
    assert front.chat(headers=bearer(SECOND_KEY)).status_code == 401
    services = tmp_path / "services"
    services.write_text("[{}]")
    engine_key.write_text("two\n")
    assert ctl_reload(front)[0] == 0
    front.reconfigure(discovery={"static_services": str(services)})
    assert ctl_reload(front)[0] == 1
    assert front.chat(headers=bearer(SECOND_KEY)).status_code == 200


# --- what has changed -----------------------------------------------------------------------------------

def test_the_difference_is_told(fake, router):
    one, two = fake(always(answer())), fake(always(answer()))
    front = router([one], admin={"key": "k1"}, tenants=[tenant("a", KEY), tenant("b", "b-key")])
    assert ctl_reload(front)[:2] == (0, "the configuration was read again and applied\n")
    front.reconfigure(engines=[two], admin={"key": "k2"}, timeout={"total": "5m"},
                      tenants=[tenant("a", KEY, SECOND_KEY, max_requests=3), tenant("c", "c-key")])
    code, shown, _ = ctl_reload(front)
    assert code == 0
    assert shown.splitlines() == [
        'admin.key: "(secret)" -> "(secret)"', 'timeout.total: "off" -> "5m"',
        f"worker {two.url}: added", f"worker {one.url}: removed",
        "tenant c: added", "tenant b: removed",
        'tenant a: keys: "(secret)" -> "(secret)"', "tenant a: max_requests: 0 -> 3",
        "the configuration was read again and applied"]
    assert any(e["event"] == "option changed" and e["option"] == "timeout.total" and e["to"] == "5m" for e in events(front))
    assert front.admin("/config").json()["timeout"]["total"] == "5m"
    assert digest(KEY)[7:] not in front.output() and digest(SECOND_KEY)[7:] not in shown
    assert reload(front, timeout={"total": "300s"})["options"] == []     # it is the same


def test_sighup_is_the_same(start, fake, router, tmp_path):
    manager = start(Manager, tmp_path / "notify")
    front = router([fake(always(answer()))], env=manager.env)
    assert manager.hear() == b"READY=1"
    front.reconfigure(explain={"headers": True})
    front.process.send_signal(signal.SIGHUP)
    assert manager.hear().startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    assert manager.hear() == b"READY=1"
    eventually(lambda: "x-headrace-instance" in front.chat().headers)
    front.reconfigure(explain={"header": True})
    front.process.send_signal(signal.SIGHUP)
    assert manager.hear().startswith(b"RELOADING=1\n")
    assert manager.hear() == b"READY=1"         # it goes on as it was
    assert "x-headrace-instance" in front.chat().headers
    front.stop()
    assert manager.hear() == b"STOPPING=1"


def test_where_it_is_asked_for(fake, router):
    port = free_port()
    front = router([fake(always(answer()))], metrics={"port": port})
    with http() as client:
        assert client.get(f"{front.admin_url}/reload").status_code == 405
        assert client.post(f"http://127.0.0.1:{port}/reload").status_code == 404
    assert reloads(front) == 0


# --- each kind of option ------------------------------------------------------------------------------------

def test_timeouts(fake, router):
    front = router([fake(silent)])
    reload(front, timeout={"first_byte": "100ms"})
    assert front.chat().status_code == 504
    with front.connect() as s:
        reload(front, timeout={"head": "100ms"})
    with front.connect() as s:
        s.sendall(b"GET / HT")
        assert read_to_end(s)[0].startswith(b"HTTP/1.1 408 ")


def test_keepalive_of_idle_clients(fake, router):
    """Who is idle over a reload is not closed; the next idle time is the new one."""
    front = router([fake(always(answer()))])
    with front.connect() as s:
        s.sendall(raw_request(chat_body()))
        read_to_end(s, b"{}")
        reload(front, timeout={"keepalive": "100ms"})
        s.sendall(raw_request(chat_body()))
        assert read_to_end(s)[1] == "fin"


def test_retries_and_breakers(fake, router):
    bad, good = fake(always(answer(status=b"503 Busy"))), fake(always(answer()))
    front = router([bad, good], retry={"attempts": 1}, breaker={"enabled": False})
    eventually(lambda: front.chat().status_code == 503)
    reload(front, retry={"attempts": 2, "backoff": "1ms", "budget": 1})
    assert {front.chat().status_code for _ in range(4)} == {200}
    bad = fake(always(answer(status=b"500 Broken")))
    reload(front, engines=[bad, good], breaker={"enabled": True, "failures": 2, "open": "1h", "open_max": "1h"})
    statuses = []

    def has_failed_twice():                 # who is new gets few
        statuses.append(front.chat().status_code)
        return statuses.count(500) == 2
    eventually(has_failed_twice)
    assert {front.chat().status_code for _ in range(8)} == {200}
    reload(front, engines=[bad, good], breaker={"enabled": True, "failures": 2, "open": "30m", "open_max": "1h"})
    assert {front.chat().status_code for _ in range(4)} == {200}     # what was learned stays


def test_limits_and_headers(fake, router):
    front = router([fake(always(answer()))])
    reload(front, router={"body_limit": "1KiB", "hold_limit": "1KiB", "inspect_limit": "1KiB", "cors_origins": ["http://a"],
                          "request_id_headers": ["x-mine"], "dialect": "vllm"})
    assert front.post("/v1/chat/completions", content=b"x" * 2000).status_code == 413
    answered = front.chat(headers={"origin": "http://a", "x-mine": "this one"})
    assert answered.headers["access-control-allow-origin"] == "http://a"
    front.chat(headers={"x-mine": "other-one"})
    eventually(lambda: any(r["id"] == "other-one" for r in front.log()))


def test_admission(fake, router):
    gated = Gated(fake)
    front = router([gated.worker], admission={"queue_size": 0})
    first = gated.open(front)
    reload(front, admission={"max_requests": 1})
    second = gated.open(front)              # the first one is not counted: there was no cap
    assert front.chat().status_code == 503
    gated.end(first)
    reload(front, admission={"max_requests": 2})
    third = gated.open(front)
    reload(front, admission={"max_requests": 1, "queue_size": 1})       # two are in flight
    with front.connect() as waiting:
        waiting.sendall(raw_request(chat_body(stream=True)))
        eventually(lambda: front.metric("headrace_queue_requests") == 1)
        reload(front, admission={"max_requests": 3})        # there is room now
        for stream in (gated.begun(waiting), second, third):
            gated.end(stream)
    eventually(lambda: front.admin("/admission").json()["requests"] == 0)


def test_policies(fake, router):
    workers = [fake(always(answer())) for _ in range(4)]
    front = router(workers, explain={"headers": True})
    assert front.chat().headers["x-headrace-reason"] == "round_robin"
    for policy, reason in (("least_load", "least_loaded"), ("power_of_two", "power_of_two"),
                           ("weighted_random", "weighted_random"), ("round_robin", "round_robin")):
        reload(front, policy={"default": policy})
        assert front.chat().headers["x-headrace-reason"] == reason
    front.config.write_text(front.config.read_text().replace("[[worker]]", 'policy.models = { m = "random" }\n[[worker]]', 1))
    assert ctl_reload(front)[0] == 0
    assert front.chat().headers["x-headrace-reason"] == "random"


def test_health_scrapes_and_names(engine, router):
    one = engine(["m"])
    front = router([one], health={"probe": False}, discovery={"scrape": "off", "interval": "24h", "resolve": "24h"})
    assert front.metric("headrace_probes_total") == 0
    reload(front, health={"probe": True, "interval": "50ms"})
    eventually(lambda: front.metric("headrace_probes_total", outcome="good") > 2)
    reload(front, discovery={"scrape": "100ms"})
    eventually(lambda: front.metric("headrace_scrapes_total", outcome="good") > 2)
    assert f'headrace_engine_running{{instance="{one.url}"}}' in front.metrics_text()
    reload(front, discovery={"scrape": "off", "interval": "100ms"}, health={"probe": False})
    assert f'headrace_engine_running{{instance="{one.url}"}}' not in front.metrics_text()
    assert front.chat().status_code == 200


def test_keys_of_engines(fake, router, tmp_path):
    secret = tmp_path / "key"
    secret.write_text("first\n")
    worker = fake(always(answer()))
    front = router([worker], upstream={"api_key_file": str(secret)})
    front.chat()
    assert b"authorization: Bearer first" in worker.requests[-1][0]
    secret.write_text("second\n")
    assert [c["option"] for c in reload(front)["options"]] == ["upstream.api_key_file"]
    front.chat()
    assert b"authorization: Bearer second" in worker.requests[-1][0]


def test_log_level(fake, router):
    front = router([fake(always(answer()))], log={"level": "error"})
    reload(front, timeout={"total": "1h"})
    assert not events(front)
    reload(front, log={"level": "info"})
    assert any(e["event"].startswith("configuration read again") for e in events(front))


# --- tenants ------------------------------------------------------------------------------------------------

def test_tenants_come_and_go(fake, router):
    front = router([fake(always(answer()))])
    assert front.chat().status_code == 200
    assert reload(front, tenants=[tenant("a", KEY, requests_per_minute=2)])["tenants"]["added"] == ["a"]
    assert front.chat().status_code == 401
    assert front.chat(headers=bearer(KEY)).headers["x-ratelimit-remaining-requests"] == "1"
    reload(front, tenants=[tenant("z", SECOND_KEY), tenant("a", KEY, requests_per_minute=2)])
    assert front.chat(headers=bearer(KEY)).headers["x-ratelimit-remaining-requests"] == "0"      # as full as it was
    assert front.chat(headers=bearer(KEY)).status_code == 429
    reload(front, tenants=[tenant("z", SECOND_KEY), tenant("a", KEY, requests_per_minute=3)])
    assert front.chat(headers=bearer(KEY)).headers["x-ratelimit-remaining-requests"] == "2"      # another limit
    reload(front, tenants=[tenant("z", SECOND_KEY)])
    assert front.chat(headers=bearer(KEY)).status_code == 401
    assert front.metric("headrace_tenant_requests_total", tenant="a") == 0       # it is shown no more
    reload(front, tenants=[])
    assert front.chat().status_code == 200


def test_a_tenant_that_leaves_with_requests_in_flight(fake, router):
    gated = Gated(fake)
    a, b = tenant("a", KEY, max_requests=1), tenant("b", SECOND_KEY, max_requests=1)
    front = router([gated.worker], tenants=[a, b], admission={"queue_size": 0})
    mine = f"authorization: Bearer {KEY}\r\n"
    first = gated.open(front, mine)
    assert front.chat(headers=bearer(KEY)).status_code == 503
    reload(front, tenants=[b])
    assert front.chat(headers=bearer(KEY)).status_code == 401
    assert front.metric("headrace_settings_in_use") == 2
    reload(front, tenants=[tenant("c", "c-key", max_requests=1), b, a])
    assert front.chat(headers=bearer(KEY)).status_code == 503        # its place is taken still
    other = gated.open(front, "authorization: Bearer c-key\r\n")     # who came has one of its own
    gated.end(first)
    eventually(lambda: front.metric("headrace_settings_in_use") == 1)
    gated.end(gated.open(front, mine))
    gated.end(other)
    eventually(lambda: front.metric("headrace_active") == 0)


# --- requests in flight -----------------------------------------------------------------------------------------

def test_a_stream_ends_under_what_it_began_under(fake, router):
    """Its timeout, its engine and its tenant are gone: it goes on to its end."""
    gated = Gated(fake)
    other = fake(always(answer()))
    front = router([gated.worker], tenants=[tenant("a", KEY)], explain={"headers": False})
    stream = gated.open(front, f"authorization: Bearer {KEY}\r\n")
    reload(front, engines=[other], tenants=[tenant("b", SECOND_KEY)], timeout={"stream_idle": "1ms", "total": "1ms"})
    eventually(lambda: [i["name"] for i in front.get("/services", headers=bearer(SECOND_KEY)).json()["services"]] == [other.url])
    assert front.chat(headers=bearer(KEY)).status_code == 401
    assert front.metric("headrace_settings_in_use") == 2
    s = gated.end(stream)
    s.sendall(raw_request(chat_body(), headers=f"authorization: Bearer {KEY}\r\n"))
    assert read_to_end(s, b"\r\n\r\n")[0].startswith(b"HTTP/1.1 401 ")        # the connection's next one is new
    s.close()
    eventually(lambda: front.metric("headrace_settings_in_use") == 1)
    assert not gated.worker.errors


class Traffic:
    """Requests without a pause, over kept connections and over new ones, until end()."""

    def __init__(self, front, n=2):
        self.front, self.is_over, self.done, self.failures = front, False, 0, []
        self.threads = [threading.Thread(target=run) for run in [self.kept] * n + [self.fresh] * n]
        for t in self.threads:
            t.start()

    def one(self, s):
        s.sendall(raw_request(chat_body()))
        data, ended = read_to_end(s, b"{}")
        if ended or not data.startswith(b"HTTP/1.1 200 "):
            self.failures.append((data, ended))
        self.done += 1
        return not ended

    def kept(self):
        with self.front.connect() as s:
            while not self.is_over and self.one(s):
                pass

    def fresh(self):
        while not self.is_over:
            try:
                with self.front.connect() as s:
                    self.one(s)
            except OSError as e:
                self.failures.append(repr(e))

    def end(self):
        self.is_over = True
        for t in self.threads:
            t.join()


def test_many_reloads_under_load(fake, router):
    workers = [fake(always(answer())) for _ in range(3)]
    front = router(workers[:2])
    traffic = Traffic(front)
    for i in range(100):
        before = traffic.done
        reload(front, engines=workers[:2] if i % 2 else workers[1:], timeout={"total": f"{i + 60}s"},
               policy={"default": ("least_load", "round_robin", "cache_aware")[i % 3]},
               admission={"max_requests": (0, 50)[i % 2]})
        eventually(lambda: traffic.done > before)
    traffic.end()
    assert traffic.failures == [] and traffic.done > 200
    assert reloads(front) == 100
    eventually(lambda: front.metric("headrace_settings_in_use") == 1)
    eventually(lambda: front.metric("headrace_active") == 0)
    assert front.admin("/admission").json()["requests"] in (0, None)


def series_of(text):
    return [line.rsplit(" ", 1)[0] for line in text.splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize("names", [{}, {"name": "e"}], ids=["by url", "one name for both"])
def test_engines_that_leave_wait_for_those_that_come(engine, router, names):
    """No model is without anybody while a new engine is asked what it serves."""
    one, two = engine(["m"]), engine(["m"])
    one.more = two.more = names
    front = router([one])
    failures, is_over = [], threading.Event()

    def ask():
        with http(base_url=front.url) as client:
            while not is_over.is_set():
                answered = client.post("/v1/chat/completions", json=chat_body(max_tokens=1))
                if answered.status_code != 200:
                    failures.append(answered.text)
    asking = threading.Thread(target=ask)
    asking.start()
    for engines in ([two], [one]) * 5:
        reload(front, engines=engines)
        series = series_of(front.metrics_text())
        assert len(series) == len(set(series))
        wanted = [engines[0].url]
        eventually(lambda: [i["url"] for i in front.get("/services").json()["services"]] == wanted)
    is_over.set()
    asking.join()
    assert failures == []


def test_a_name_that_is_corrected_twice_leaves_no_gap(engine, router):
    """Who serves stays until somebody can take its place, however often that one changes."""
    good = engine(["m"])
    good.more = {"name": "e"}
    front = router([good])
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):             # nobody listens
            taken.bind(("127.0.0.1", 0))
            bad = FakeUrl(f"http://127.0.0.1:{taken.getsockname()[1]}", {"name": "e"})
            reload(front, engines=[bad])
            assert front.chat().status_code == 200


def test_another_key_of_an_engine_is_no_gap(fake, router, tmp_path):
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        file.write_text(file.name + "\n")
    worker = fake(always(answer()), declared=())
    worker.more = {"models": ["m"], "name": "e", "api_key_file": str(files[0])}
    front = router([worker])
    for i in (1, 0) * 5:
        worker.more["api_key_file"] = str(files[i])
        reload(front, engines=[worker])
        assert front.chat().status_code == 200
        eventually(lambda: len(front.get("/services").json()["services"]) == 1)
        assert front.chat().status_code == 200
        assert b"authorization: Bearer " + files[i].name.encode() in worker.requests[-1][0]


def test_an_engine_that_is_not_there_keeps_nobody_for_long(fake, router):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))         # nobody listens
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        one = fake(always(answer()))
        front = router([one])
        reload(front, engines=[dead])
        assert front.chat().status_code == 200
        eventually(lambda: [i["name"] for i in front.get("/services").json()["services"]] == [dead])
