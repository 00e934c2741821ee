"""Babysitters under test, what they start, and a small registry written from the description of InfiniLM-SVC's."""
import copy
import json
import os
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ports import free_port
from program import Program, toml

# An engine in a few lines: MODELS are listed at LIST (none: 404), /die ends it, /hang makes it accept and say nothing,
# HANGS does from the start.
ENGINE = """
import json, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
hangs = threading.Event()
never = threading.Event()
if os.environ.get("HANGS"):
    hangs.set()
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/hang":
            self.answer(200, {})
            hangs.set()
            return
        if self.path == "/die":
            os._exit(7)
        if self.path == "/arguments":
            return self.answer(200, sys.argv[2:])
        if self.path == "/environment":
            return self.answer(200, dict(os.environ))
        if self.path == "/where":
            return self.answer(200, os.getcwd())
        if hangs.is_set():
            never.wait()
        models = os.environ.get("MODELS")
        if self.path == os.environ.get("LIST", "/v1/models") and models:
            return self.answer(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in models.split()]})
        self.answer(404, {"error": "there is no such thing"})
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        completes = os.environ.get("COMPLETES", "")
        self.answer(200 if self.path in completes.split() and not os.path.exists("cold") else 404, {})
class Server(ThreadingHTTPServer):
    daemon_threads = True
if os.environ.get("LINE"):
    print(os.environ["LINE"], flush=True)
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def engine_script(folder=None):
    path = Path(folder or tempfile.mkdtemp(prefix="engine-"), "engine.py")
    path.write_text(ENGINE)
    return path


class Registry:
    """The endpoints that a babysitter uses. requests is everything that came: (method, path, body)."""

    def __init__(self, token=None, host="127.0.0.1"):
        self.port, self.token, self.host = free_port(), token, host
        self.url = f"http://{host}:{self.port}"
        self.lock = threading.Lock()
        self.server = None
        self.before_delete = lambda: None
        self.requests = []
        self.open()

    def open(self, records=None):
        """Starts, or starts again: with nothing in memory unless it is said."""
        registry = self
        self.records = records or {}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def serve(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if self.command == "DELETE":
                    registry.before_delete()
                with registry.lock:
                    status, value = registry.answer(self.command, self.path, self.headers, body)
                    registry.requests.append((self.command, self.path, json.loads(body) if body else None))
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            do_GET = do_POST = do_PUT = do_DELETE = serve

        class Server(ThreadingHTTPServer):
            daemon_threads = True
        self.server = Server((self.host, self.port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()
        self.server = None

    stop = close

    def answer(self, method, path, headers, body):
        name = path.removeprefix("/services").removeprefix("/").removesuffix("/heartbeat")
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"error": "token"}
        if (method, path) == ("POST", "/services"):
            if headers.get("content-type") != "application/json":
                return 415, {"error": "content-type"}
            record = json.loads(body)
            for field in ("name", "host", "port", "hostname", "url", "status"):
                if field not in record:
                    return 400, {"error": f"Missing required field: {field}"}
            self.records[record["name"]] = record | {"last_heartbeat": time.time()}
            return 201, {"message": f"Service '{record['name']}' registered successfully", "service": record}
        if name not in self.records:
            return 404, {"error": f"Service '{name}' not found"}
        if method == "DELETE":
            del self.records[name]
            return 200, {"message": f"Service '{name}' unregistered successfully"}
        if method == "POST" and path.endswith("/heartbeat"):
            self.records[name]["last_heartbeat"] = time.time()
            return 200, {"message": "Heartbeat received", "timestamp": "now"}
        return 405, {}

    def record(self, name):
        with self.lock:
            return copy.deepcopy(self.records.get(name))

    def names(self):
        with self.lock:
            return set(self.records)

    def count(self, method, path):
        with self.lock:
            return sum((m, p) == (method, path) for m, p, _ in self.requests)


def processes(state_dir):
    """Pids of everything that a babysitter with this state folder has started, whoever its parent is."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"HEADRACE_SITTER={state_dir}".encode() in (entry / "environ").read_bytes():
                if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    found.append(int(entry.name))
        except (OSError, PermissionError):
            pass
    return found


class Babysitter(Program):
    """headrace babysitter with a file made of tables; quick by default.

    `ready` False does not wait for the engine, and None for nothing: it may end at once.
    """

    def __init__(self, backend, registry=None, ready=True, name="eng", port=None, state_dir=None, flags=(), env=None,
                 metadata=None, babysitter=None, how=None, **tables):
        self.name, self.engine_port = name, port or free_port(2)
        self.port = self.engine_port + 1
        scheme = "https" if "certificates" in tables.get("tls", {}) else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.engine_url = f"{scheme}://127.0.0.1:{self.engine_port}"
        self.state_dir = state_dir or tempfile.mkdtemp(prefix="state-")
        config = Path(tempfile.mkdtemp(prefix="config-"), "babysitter.toml")
        top = {"name": name, "port": self.engine_port}
        if registry:
            top["registry_url"] = registry.url
        tables = {
            "babysitter": {"heartbeat_interval": "300ms", "restart_delay": "50ms", "stop_timeout": "5s",
                           "state_dir": self.state_dir, "cgroup": False} | (babysitter or {}),
            "backend": backend,
            "probe": {"interval": "100ms"} | tables.pop("probe", {}),
        } | tables
        if metadata:
            tables["metadata"] = metadata
        lines = [f"{key} = {toml(value)}" for key, value in top.items()]
        for table, keys in tables.items():
            lines += [f"[{table}]"] + [f"{key} = {toml(value)}" for key, value in keys.items()]
        config.write_text("\n".join(lines) + "\n")
        super().__init__("babysitter", "--config-file", config, *flags, env=env, **(how or {}))
        if ready is not None:
            self.await_ready(lambda: self.get("/health").status_code == 200 if ready else self.health())

    def health(self):
        return self.get("/health").json()

    def state(self):
        return self.health()["state"]

    def engines(self):
        return processes(self.state_dir)

    def kill_engine(self):
        pid, = self.engines()
        os.kill(pid, 9)

    def stop(self):
        if self.expected_to_end:
            return
        super().stop()
        assert not self.engines()


def mock(*models):
    return {"type": "mock", "models": list(models)}


def command(*args, env=None, **more):
    """Our little engine as a command; its first argument is the port."""
    return {"type": "command", "command": f"{sys.executable} {engine_script()}", "args": list(map(str, args)),
            "env": env or {}} | more
