"""Stand-ins for InfiniLM-SVC's registry, router and babysitter, written from the description of what they do on the wire.

They keep that system's habits, also the poor ones: a registry that judges by heartbeats alone, a router whose sync undoes
what its probes found, a babysitter that is always well and registers once. Not built: session and size routing, flags.
Their intervals are parameters, since tests do not wait for 30 s.
"""
import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
from datetime import datetime, timezone
from urllib.parse import parse_qs, urlsplit

import httpx

from program import Program, Router

ALIVE_S, SWEPT_S = 120, 300
FIELDS = "name", "host", "port", "hostname", "url", "status"
DROPPED = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers",
           "transfer-encoding", "upgrade", "host", "content-length"}


def now_text():
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Server:
    """An HTTP server whose requests go to answer(request, body); -> (status, JSON) or None when it has answered."""

    def __init__(self, port, host="127.0.0.1"):
        self.port, self.ending, self.jobs = port, threading.Event(), []
        self.url = f"http://127.0.0.1:{port}"
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                try:
                    found = server.answer(self, body)
                    if found:
                        self.reply(*found)
                except ConnectionError:
                    self.close_connection = True
            do_GET = do_POST = do_PUT = do_DELETE = serve

            def reply(self, status, value, kind="application/json"):
                data = json.dumps(value, separators=(",", ":")).encode() if kind == "application/json" else value
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 128
        self.listener = Listener((host, port), Handler)
        self.run(lambda: self.listener.serve_forever(poll_interval=0.02))

    def run(self, job):
        self.jobs.append(threading.Thread(target=job, daemon=True))
        self.jobs[-1].start()

    def every(self, seconds, job, at_once=True):
        def loop():
            if at_once:
                job()
            while not self.ending.wait(seconds):
                job()
        self.run(loop)

    certificate = None
    get, post = Program.get, Program.post

    def stop(self):
        self.ending.set()
        self.listener.shutdown()
        self.listener.server_close()
        for job in self.jobs:
            job.join()


def looked_up(url):
    """A bare root has no hosts file, and its C library does not know localhost by itself."""
    return url.replace("//localhost:", "//127.0.0.1:")


def ask(method, url, seconds, body=None):
    """-> (status, JSON or None); status 0 when there was no answer."""
    url = looked_up(url)
    try:
        answer = httpx.request(method, url, json=body, timeout=seconds) if body is not None else httpx.request(
            method, url, timeout=seconds)
    except httpx.TransportError:
        return 0, None
    try:
        return answer.status_code, answer.json()
    except ValueError:
        return answer.status_code, None


class OldRegistry(Server):
    def __init__(self, port, health_interval=0.2):
        self.records, self.lock, self.began = {}, threading.Lock(), time.time()
        super().__init__(port)
        self.every(health_interval, self.probe, at_once=False)
        self.every(1, self.sweep, at_once=False)

    @staticmethod
    def shown(record):
        alive = record["status"] == "running" and time.time() - record["last_heartbeat"] < ALIVE_S
        return record | {"is_healthy": alive}

    def probe_one(self, record):
        url = record["url"]
        if record["metadata"].get("type") == "openai-api":
            url = f"http://{record['host']}:{record['port'] + 1}"
        status, _ = ask("GET", url + "/health", 5)
        record["health_status"] = "healthy" if 200 <= status < 300 else "unhealthy"

    def probe(self):
        for record in list(self.records.values()):      # one after another
            self.probe_one(record)

    def sweep(self):
        with self.lock:
            self.records = {n: r for n, r in self.records.items() if time.time() - r["last_heartbeat"] <= SWEPT_S}

    def names(self):
        return list(self.records)

    def answer(self, request, body):
        url = urlsplit(request.path)
        method, parts = request.command, url.path.strip("/").split("/")
        if (method, url.path) == ("GET", "/health"):
            healthy = sum(self.shown(r)["is_healthy"] for r in list(self.records.values()))
            return 200, {"status": "healthy", "registry": "running", "registered_services": len(self.records),
                         "healthy_services": healthy, "timestamp": now_text()}
        if parts[0] != "services" or len(parts) > 3:
            return 404, {"error": "Not found"}
        if method == "POST" and len(parts) == 1:
            return self.register(request, body)
        if len(parts) == 1:
            return self.list(parse_qs(url.query, keep_blank_values=True))
        with self.lock:
            record = self.records.get(parts[1])
            if not record:
                return 404, {"error": f"Service '{parts[1]}' not found"}
            return self.one(method, parts, record, body)

    def list(self, query):
        found = [self.shown(r) for r in list(self.records.values())]
        if "status" in query:
            found = [r for r in found if r["status"] == query["status"][0]]
        if "healthy" in query:
            found = [r for r in found if r["is_healthy"] == (query["healthy"][0].lower() == "true")]
        return 200, {"services": found, "total": len(found), "timestamp": now_text()}

    def register(self, request, body):
        if request.headers.get_content_type() != "application/json":
            return 415, {"error": "Expected request with `Content-Type: application/json`"}
        try:
            wanted = json.loads(body)
        except ValueError:
            return 400, {"error": "Invalid JSON"}
        for field in FIELDS:
            if field not in wanted:
                return 400, {"error": f"Missing required field: {field}"}
        record = {f: wanted[f] for f in FIELDS} | {
            "metadata": wanted.get("metadata", {}), "timestamp": now_text(), "health_status": "unknown",
            "last_heartbeat": float(int(time.time()))}
        with self.lock:
            self.records[record["name"]] = record
        return 201, {"message": f"Service '{record['name']}' registered successfully", "service": self.shown(record)}

    def one(self, method, parts, record, body):
        name = parts[1]
        if method == "POST" and parts[2:] == ["heartbeat"]:
            record["last_heartbeat"] = float(int(time.time()))
            return 200, {"message": "Heartbeat received", "timestamp": now_text()}
        if method == "GET" and len(parts) == 2:
            return 200, self.shown(record)
        if method == "PUT" and len(parts) == 2:
            changes = {k: v for k, v in json.loads(body).items() if v is not None and k in (*FIELDS[1:], "metadata")}
            record.update(changes, last_heartbeat=float(int(time.time())))
            return 200, {"message": f"Service '{name}' updated successfully", "service": self.shown(record)}
        if method == "DELETE" and len(parts) == 2:
            del self.records[name]
            return 200, {"message": f"Service '{name}' unregistered successfully"}
        return 405, {"error": "Method not allowed"}


class OldBabysitter(Server):
    """`command` is split at white space, and so are its args. The child is left alone at the end: stop() kills it."""

    def __init__(self, name, port, command, registry_url, host="localhost", heartbeat_interval=0.3, restart_delay=0.05,
                 monitor_interval=0.05, ready_timeout=30):
        self.name, self.host, self.engine_port, self.registry_url = name, host, port, registry_url.rstrip("/")
        self.command, self.restart_delay = command.split(), restart_delay
        self.monitor_interval, self.ready_timeout = monitor_interval, ready_timeout
        self.child, self.detected, self.n_restarts = None, None, 0
        super().__init__(port + 1, host="0.0.0.0")
        self.run(self.supervise)
        self.run(self.register)
        self.every(heartbeat_interval, self.heartbeat, at_once=False)

    def supervise(self):
        while not self.ending.is_set() and self.n_restarts < 10000:
            self.child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL)
            self.await_port()
            while self.child.poll() is None and not self.ending.wait(self.monitor_interval):
                pass
            self.n_restarts += 1
            self.ending.wait(self.restart_delay)

    def await_port(self):
        """After the timeout the port is taken as good all the same."""
        deadline = time.monotonic() + self.ready_timeout
        while not self.ending.wait(0.1) and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.engine_port), 0.05).close()
            except OSError:
                continue
            if any(ask("GET", f"http://127.0.0.1:{self.engine_port}{path}", 0.5)[0] in (*range(200, 300), 404)
                   for path in ("/v1/models", "/models")):
                break
        self.detected = self.engine_port

    def models(self):
        for path in "/v1/models", "/models":
            status, found = ask("GET", f"http://127.0.0.1:{self.engine_port}{path}", 5)
            if status == 200:
                return found["data"] if isinstance(found, dict) else found
        return []

    def post_record(self, name, port, metadata):
        record = {"name": name, "host": self.host, "hostname": self.host, "port": port,
                  "url": f"http://{self.host}:{port}", "status": "running", "metadata": metadata}
        return 200 <= ask("POST", f"{self.registry_url}/services", 5, record)[0] < 300

    def register(self):
        self.post_record(self.name, self.port, {"type": "command", "babysitter": "enhanced"})   # one try only
        while not (self.detected and (models := self.models())):
            if self.ending.wait(0.05):
                return
        metadata = {"type": "openai-api", "parent_service": self.name, "babysitter": "enhanced",
                    "models": [m["id"] for m in models], "models_list": models}
        while not self.post_record(f"{self.name}-server", self.engine_port, metadata):
            if self.ending.wait(0.2):
                return

    def heartbeat(self):
        for name in [self.name] + ([f"{self.name}-server"] if self.detected else []):
            ask("POST", f"{self.registry_url}/services/{name}/heartbeat", 5)        # a 404 changes nothing

    def answer(self, request, body):
        if (request.command, request.path) == ("GET", "/health"):
            return 200, {"status": "healthy", "service": self.name, "babysitter": "enhanced",
                         "infinilm_server_running": self.child is not None, "infinilm_server_port": self.detected,
                         "timestamp": int(time.time())}
        if (request.command, request.path) == ("GET", "/info"):
            return 200, {"name": self.name, "host": self.host, "port": self.port, "service_type": "command",
                         "url": f"http://{self.host}:{self.port}", "infinilm_server_port": self.detected,
                         "uptime": 1, "restart_count": self.n_restarts}
        if (request.command, request.path) == ("GET", "/models"):
            status, found = ask("GET", f"http://{self.host}:{self.engine_port}/models", 5)
            return (200, found) if status == 200 else (503, {"error": "InfiniLM server not ready"})
        return 404, {"error": "Not found"}

    def engines(self):
        return [self.child.pid] if self.child and self.child.poll() is None else []

    def stop(self):
        super().stop()
        if self.child:
            self.child.kill()
            self.child.wait()


class OldRouter(Server):
    def __init__(self, port, registry_url, sync_interval=0.1, health_interval=0.1, grace=60):
        self.registry_url, self.grace = registry_url, grace
        self.services, self.lock, self.n_picked, self.n_syncs = {}, threading.Lock(), 0, 0
        super().__init__(port)
        self.every(sync_interval, self.sync)
        self.every(health_interval, self.probe)

    def sync(self):
        status, found = ask("GET", f"{self.registry_url}/services?healthy=true", 10)
        if not 200 <= status < 300 or not isinstance(found, dict):
            return
        records = found["services"]
        if not all(f in r for r in records for f in (*FIELDS, "timestamp")):
            return                      # one bad record fails it all
        now = time.monotonic()
        with self.lock:
            self.n_syncs += 1
            for r in records:
                if r.get("metadata", {}).get("type") == "openai-api":
                    self.take(r, now)
            for name in [n for n, s in self.services.items()
                         if now - s["last_seen"] >= self.grace and not s["metadata"].get("static")]:
                del self.services[name]

    def take(self, r, now):
        models = [m for m in r["metadata"].get("models", []) if isinstance(m, str)]
        new = {"request_count": 0, "error_count": 0, "response_time": 0.0, "weight": r.get("weight", 1)}
        s = self.services.setdefault(r["name"], new | {"name": r["name"], "url": f"http://{r['host']}:{r['port']}"})
        if "last_seen" in s:
            s["url"] = r["url"]
        s.update(host=r["host"], port=r["port"], metadata=r["metadata"], models=models, last_seen=now,
                 healthy=r.get("is_healthy", True), babysitter_url=f"http://{r['host']}:{r['port'] + 1}")

    def probe(self):
        def one(s):
            status, _ = ask("GET", s["babysitter_url"] + "/health", 5)
            s["healthy"] = 200 <= status < 300
            s["error_count"] = 0 if s["healthy"] else s["error_count"] + 1
        with self.lock:
            threads = [threading.Thread(target=one, args=(s,), daemon=True) for s in self.services.values()]
        for t in threads:
            t.start()

    def pick(self, model):
        with self.lock:
            found = [s for s in self.services.values() if s["healthy"] and (model is None or model in s["models"])]
            total = sum(s["weight"] for s in found)
            t, self.n_picked = self.n_picked % total if total else 0, self.n_picked + 1
            for s in found:
                if t < s["weight"]:
                    s["request_count"] += 1
                    return s
                t -= s["weight"]

    def answer(self, request, body):
        path = urlsplit(request.path).path
        with self.lock:
            infos = [{k: v for k, v in s.items() if k != "last_seen"} for s in self.services.values()]
        healthy = sum(s["healthy"] for s in infos)
        if request.command == "GET" and path in ("/health", "/status"):
            return 200, {"status": "healthy" if healthy else "running", "router": "running",
                         "healthy_services": f"{healthy}/{len(infos)}", "registry_url": self.registry_url,
                         "message": None if healthy else "No healthy services available", "timestamp": int(time.time())}
        if request.command == "GET" and path == "/services":
            return 200, {"services": infos, "total": len(infos), "registry_url": self.registry_url}
        if request.command == "GET" and path == "/models":
            models = {m["id"]: m for s in reversed(infos) if s["healthy"] for m in s["metadata"].get("models_list", [])}
            return 200, {"object": "list", "data": [models[m] for m in sorted(models)]}
        return self.forward(request, body)

    def forward(self, request, body):
        model = None
        if request.command == "POST":
            try:
                model = json.loads(body).get("model")
            except (ValueError, AttributeError):
                pass        # to any of them
        refusal = 503, {"error": "No services available"}
        for _ in range(3):
            s = self.pick(model)
            if not s:
                return 503, {"error": "No healthy services available" + (f" for model '{model}'" if model else "")}
            there = urlsplit(looked_up(s["url"]))
            link = http.client.HTTPConnection(there.hostname, there.port, timeout=30)
            try:
                link.request(request.command, request.path, body or None,
                             {k: v for k, v in request.headers.items() if k.lower() not in DROPPED})
                answer = link.getresponse()
            except OSError as error:
                s["healthy"], s["error_count"] = False, s["error_count"] + 1
                refused = isinstance(error, ConnectionRefusedError)
                refusal = (503, {"error": "Service unavailable - connection refused"}) if refused else (
                    502, {"error": "Bad gateway - error communicating with service"})
                continue
            self.relay(request, answer)
            link.close()
            s["request_count"] += 1
            return None
        return refusal

    @staticmethod
    def relay(request, answer):
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in DROPPED | {"date", "server"}:
                request.send_header(name, value)
        if "text/event-stream" not in answer.headers.get("content-type", "") and not answer.chunked:
            data = answer.read()
            request.send_header("content-length", str(len(data)))
            request.end_headers()
            request.wfile.write(data)
            return
        request.send_header("transfer-encoding", "chunked")
        request.end_headers()
        while piece := answer.read1(65536):
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\n\r\n")

    chat = Router.chat
