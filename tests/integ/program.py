"""The programs under test as objects: started on free ports, awaited by condition, ended by process id."""
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

import httpx

from ports import free_port

BIN = os.environ.get("HEADRACE_BIN", "build/release/headrace")

# They go through everything in every run and may be found in no log, metric or dump: Router.stop() looks.
KEY = "sk-canary-5e1f0a77"      # what begins with it is found as well
PROMPT = "canary prompt: the water of the Aare"
PAGES = ("/metrics", "/config", "/admission", "/decisions?limit=1000", "/breakers")


def eventually(condition, seconds=60):
    """Polls until condition() is true and returns what it gave. The deadline only ends what never comes true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"never true: {condition.__code__}"
        time.sleep(0.01)


def http(certificate=None, **how):
    verify = False                                            # the certificates take long to load
    if certificate:
        verify = ssl._create_unverified_context()
        verify.load_cert_chain(certificate)
    return httpx.Client(timeout=60, verify=verify, **how)


class Program:
    """A running headrace command. Its stdout and stderr go to files in its own folder.

    A command such as infini-router is a name that the binary is linked to and called by.
    """

    def __init__(self, command, *arguments, stdout=None, env=None, **how):
        self.folder = Path(tempfile.mkdtemp(prefix=f"headrace-{command}-"))
        called = [BIN, command]
        if command.startswith(("infini-", "vllm-")):
            called = [str(self.folder / command)]
            os.symlink(Path(BIN).resolve(), called[0])
        self.arguments = [*called, *map(str, arguments)]
        self.stderr = self.folder / "stderr"
        self.process = subprocess.Popen(
            self.arguments, cwd=self.folder, stdin=subprocess.DEVNULL, stderr=self.stderr.open("w"),
            stdout=stdout if stdout is not None else (self.folder / "stdout").open("w"),
            env=self.environment() | (env or {}), **how)
        self.pid = self.process.pid
        self.expected_to_end = False

    def environment(self):
        """Nothing is kept where the user's state is."""
        return {k: v for k, v in os.environ.items() if k != "STATE_DIRECTORY"} | {"XDG_STATE_HOME": str(self.folder / "state")}

    def output(self):
        return "\n".join(f.read_text(errors="replace") for f in self.folder.iterdir() if f.is_file() and not f.is_symlink())

    def await_ready(self, condition):
        def is_up():
            assert self.process.poll() is None, f"{self.arguments} ended:\n{self.output()}"
            try:
                return condition()
            except httpx.TransportError:
                return False
        eventually(is_up)

    def wait(self, seconds=60):
        """-> the exit code of a program that the test expects to end."""
        self.expected_to_end = True
        return self.process.wait(seconds)

    def kill(self):
        self.process.kill()
        self.wait()

    def stop(self):
        if self.expected_to_end:
            return
        self.expected_to_end = True
        assert self.process.poll() is None, f"ended by itself: {self.output()}"
        self.process.terminate()
        assert self.process.wait(60) == 0, self.output()

    certificate = None      # what http() shows where TLS asks for it

    def get(self, path, **how):
        with http(self.certificate) as client:
            return client.get(self.url + path, **how)

    def post(self, path, **how):
        with http(self.certificate) as client:
            return client.post(self.url + path, **how)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss_bytes(self):
        return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())[1]) * 1024

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Engine(Program):
    """headrace mock-engine."""

    def __init__(self, models, *flags, port=None, host="127.0.0.1"):
        self.models, self.flags, self.host = models, flags, host
        self.port = port or free_port()
        self.authority = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.url = f"http{'s' if '--ssl-certfile' in flags else ''}://{self.authority}"
        super().__init__("mock-engine", "--itl", "1ms", "--prefill-rate", 0, "--host", host, "--port", self.port, "--models", ",".join(models), *flags)
        self.await_ready(lambda: self.get("/v1/models").status_code in (200, 401))

    def restart(self, models=None):
        """Dies as if shot and comes back at the same address."""
        self.kill()
        self.__init__(models or self.models, *self.flags, port=self.port, host=self.host)

    def fault(self, spec):
        assert self.post("/mock/faults", json={"fault": spec}).status_code < 300

    def ledger(self):
        return self.get("/mock/ledger").json()

    def count(self, outcome):
        """started, finished, cancelled or failed generations."""
        return self.ledger()["counts"][outcome]

    def captured(self):
        """The requests as they came: method, path, headers, body."""
        return self.get("/captured_requests").json()


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(k))} = {toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)        # strings, numbers, booleans and lists are spelt alike


class Router(Program):
    """headrace router before the given engines.

    What has `declared` models (a FakeWorker) is not asked for them. Tables come as keyword arguments:
    Router([engine], timeout={"first_byte": "1s"}). ready is the number of workers to wait for. Requests go
    round, unless a test says otherwise: most count who got how many. A router that asks clients who they are is
    shown `certificate`.
    """

    def __init__(self, engines, *flags, port=None, ready=None, weights=None, labels=None, tenants=(), stdout=None, env=None, how=None,
                 certificate=None, **tables):
        self.port, self.admin_port, self.certificate = port or free_port(), free_port(), certificate
        scheme = "https" if {"certificate", "certificates"} & set(tables.get("tls", {})) else "http"
        self.url, self.admin_url = f"{scheme}://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"
        self.config = Path(tempfile.mkdtemp(prefix="headrace-config-"), "router.toml")
        self.access = self.config.with_name("access.log")
        self.engines, self.weights, self.labels, self.tenants = engines, weights, labels, tenants
        self.tables = {"router": {}, "admin": {}, "timeout": {}, "log": {}, "discovery": {}} | tables
        self.tables["router"] = {"port": self.port, "threads": 2} | self.tables["router"]
        self.tables["admin"] = {"port": self.admin_port} | self.tables["admin"]
        self.tables["timeout"] = {"announce": "0s", "drain": "10s"} | self.tables["timeout"]
        self.tables["log"] = {"access": str(self.access)} | self.tables["log"]
        self.tables["discovery"] = {"interval": "200ms"} | self.tables["discovery"]
        self.tables["policy"] = {"default": "round_robin"} | tables.get("policy", {})
        if any(getattr(engine, "declared", None) for engine in engines):     # a script counts on what it is asked
            self.tables["health"] = {"probe": False, "passive": False} | tables.get("health", {})
            self.tables["discovery"] = {"scrape": "off"} | self.tables["discovery"]
        self.write_config()
        super().__init__("router", "--config", self.config, *flags, stdout=stdout, env=env, **(how or {}))
        ready = len(engines) if ready is None else ready
        self.await_ready(lambda: self.ready_workers() >= ready)

    def write_config(self):
        lines = [f"{table}.{key} = {toml(value)}" for table, keys in self.tables.items() for key, value in keys.items()]
        for i, engine in enumerate(self.engines):
            url = engine if isinstance(engine, str) else engine.url
            lines += ["[[worker]]", f"url = {toml(url)}", f"weight = {self.weights[i] if self.weights else 1}"]
            if self.labels and self.labels[i]:
                lines.append(f"labels = {toml(self.labels[i])}")
            if getattr(engine, "declared", None):
                lines.append(f"models = {toml(engine.declared)}")
            lines += [f"{key} = {toml(value)}" for key, value in getattr(engine, "more", {}).items()]
        for tenant in self.tenants:
            lines += ["[[tenant]]", *(f"{key} = {toml(value)}" for key, value in tenant.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def reconfigure(self, engines=None, tenants=None, **tables):
        """Writes another file: tables as for the start, added to what there is; None takes a key out. Tells nobody."""
        self.engines = self.engines if engines is None else engines
        self.tenants = self.tenants if tenants is None else tenants
        for table, keys in tables.items():
            merged = self.tables.get(table, {}) | keys
            self.tables[table] = {key: value for key, value in merged.items() if value is not None}
        self.write_config()

    def ready_workers(self):
        answer = self.get("/readiness")
        return answer.json().get("healthy_workers", 0)

    def stop(self):
        exposed = "" if self.process.poll() is not None else "".join(self.admin(page).text for page in PAGES)
        super().stop()
        exposed += self.output() + (self.access.read_text(errors="replace") if self.access.is_file() else "")
        assert KEY not in exposed and PROMPT not in exposed

    def admin(self, path, **how):
        with http() as client:
            return client.get(self.admin_url + path, **how)

    def metrics_text(self):
        return self.admin("/metrics").text

    def metrics(self):
        """{(name, frozenset of label pairs): value}"""
        found = {}
        for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", self.metrics_text(), re.M):
            found[name, frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))] = float(value)
        return found

    def metric(self, name, **labels):
        """The sum over all series of that name that have these labels."""
        return sum(v for (n, have), v in self.metrics().items() if n == name and set(labels.items()) <= have)

    def log(self, n=None):
        """The access log's records but our own probes of readiness; with n, once there are that many."""
        def records():
            lines = self.access.read_text().splitlines(keepends=True) if self.access.exists() else []
            return [r for r in map(json.loads, lines) if r["path"] != "/readiness"]
        if n is not None:
            eventually(lambda: len(records()) >= n)
        return records()

    def connect(self, source=None):
        s = socket.create_connection(("127.0.0.1", self.port), 60, (source, 0) if source else None)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def chat(self, model="m", **how):
        """One plain chat; -> httpx.Response."""
        return self.post("/v1/chat/completions", json=chat_body(model, **how.pop("body", {})), **how)


def counts(engines, outcome):
    return sum(e.count(outcome) for e in engines)


def chat_body(model="m", **more):
    return {"model": model, "messages": [{"role": "user", "content": PROMPT}]} | more


def raw_request(body, path="/v1/chat/completions", version="1.1", headers=""):
    """The bytes of a POST of a JSON body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (f"POST {path} HTTP/{version}\r\nHost: test\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n{headers}\r\n").encode("latin-1") + data


def read_to_end(s, until=None):
    """-> (bytes, how the connection ended: "fin", "rst" or None when `until` was found first)."""
    data = bytearray()
    while until is None or until not in data:
        try:
            piece = s.recv(65536)
        except ConnectionResetError:
            return bytes(data), "rst"
        if not piece:
            return bytes(data), "fin"
        data += piece
    return bytes(data), None


def hard_close(s):
    """Ends the connection by reset."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()

