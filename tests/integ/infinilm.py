"""Our three programs under the names of InfiniLM-SVC's, with no flags but that system's, and its mock backend."""
import sys
import tempfile
from pathlib import Path

from ports import free_port
from program import Program, toml

# Written from the description of that system's mock_service.py: it registers itself and says which one it is.
MOCK = """
import argparse, json, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
p = argparse.ArgumentParser()
p.add_argument("--name", required=True)
p.add_argument("--port", type=int, required=True)
p.add_argument("--models", required=True)
p.add_argument("--registry-url")
a = p.parse_args()
models = a.models.split(",")
listed = [{"id": m, "object": "model", "created": 1} for m in models]
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/v1/models":
            return self.answer(200, {"object": "list", "data": listed})
        if self.path == "/health":
            return self.answer(200, {"status": "healthy", "service": a.name, "port": a.port})
        self.answer(404, {})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        model = body["model"]
        if model not in models:
            return self.answer(400, {"error": {"message": f"Model {model} not available on this service"}})
        text = f"Hello from {a.name} (model: {model})"
        if not body.get("stream"):
            return self.answer(200, {"id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()),
                "model": model, "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}})
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        chunks = [json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": model,
                  "choices": [{"index": 0, "delta": {"content": c}}]}) for c in text] + ["[DONE]"]
        for c in chunks:
            data = f"data: {c}\\n\\n".encode()
            self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(data), data))
        self.wfile.write(b"0\\r\\n\\r\\n")
class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
if a.registry_url:
    record = {"name": a.name, "host": "127.0.0.1", "port": a.port, "hostname": "localhost",
              "url": f"http://127.0.0.1:{a.port}", "status": "running",
              "metadata": {"type": "openai-api", "models": models, "models_list": listed}}
    urllib.request.urlopen(urllib.request.Request(a.registry_url + "/services", json.dumps(record).encode(),
                           {"content-type": "application/json"}))
Server(("127.0.0.1", a.port), Handler).serve_forever()
"""


def own_state():
    """Nothing is kept where the user's state is."""
    folder = tempfile.mkdtemp(prefix="state-")
    return {"XDG_STATE_HOME": folder, "XDG_RUNTIME_DIR": folder, "HOME": folder}


class InfiniRegistry(Program):
    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        env = own_state()
        self.state = Path(env["XDG_STATE_HOME"])
        super().__init__("infini-registry", "--port", self.port, "--health-interval", 30, "--health-timeout", 5,
                         "--cleanup-interval", 60, env=env)
        self.await_ready(lambda: self.get("/health").status_code == 200)


class InfiniBabysitter(Program):
    """One with a file as that system's tests write it. The backend registers itself, too, if `registers`."""

    def __init__(self, name, models, registry, registers=False, metadata=None):
        self.name, self.models, self.engine_port = name, models, free_port(2)
        self.port = self.engine_port + 1
        self.url = f"http://127.0.0.1:{self.port}"
        folder = Path(tempfile.mkdtemp(prefix="babysitter_test_configs-"))
        mock = folder / "mock_service.py"
        mock.write_text(MOCK)
        args = ["--name", name, "--port", str(self.engine_port), "--models", ",".join(models)]
        args += ["--registry-url", registry.url] if registers else []
        lines = [f"name = {toml(f'babysitter-{name}')}", f"port = {self.engine_port}",
                 f"registry_url = {toml(registry.url)}",
                 "[babysitter]", "max_restarts = 10", "restart_delay = 2", "heartbeat_interval = 10",
                 "[backend]", 'type = "command"', f"command = {toml(f'{sys.executable} {mock}')}", f"args = {toml(args)}"]
        if metadata:
            lines += ["[metadata]"] + [f"{k} = {toml(v)}" for k, v in metadata.items()]
        config = folder / f"{name}.toml"
        config.write_text("\n".join(lines) + "\n")
        super().__init__("infini-babysitter", "--config-file", config, env=own_state())

    def await_health(self):
        self.await_ready(lambda: self.get("/health").status_code == 200)
        return self


class InfiniRouter(Program):
    """infini-router; `flags` are that system's. What it has no flag for comes from the environment."""

    def __init__(self, *flags, env=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        more = {"HEADRACE_ADMIN_PORT": str(free_port()), "HEADRACE_TIMEOUT_ANNOUNCE": "0s", "HEADRACE_ROUTER_THREADS": "2"}
        super().__init__("infini-router", "--router-port", self.port, *flags, env=more | (env or {}))
        self.await_ready(lambda: self.get("/health").status_code == 200)

    def services(self):
        return self.get("/services").json()["services"]
