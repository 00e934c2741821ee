"""A registry in a few lines: the old one, which knows no watch, or one with a watch (SSE), in the hands of a test."""
import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from ports import free_port


def record(name, port, models=("m",), host="127.0.0.1", **more):
    """As a babysitter registers its engine; metadata=... is merged over what stands there."""
    metadata = {"type": "openai-api", "parent_service": name, "babysitter": "enhanced", "models": list(models),
                "models_list": [{"id": m, "object": "model", "owned_by": name} for m in models]}
    metadata |= more.pop("metadata", {})
    return {"name": name, "host": host, "port": port, "hostname": host, "url": f"http://{host}:{port}",
            "status": "running", "timestamp": "2026-01-01T00:00:00+00:00", "last_heartbeat": 1.0,
            "health_status": "unknown", "is_healthy": True, "metadata": metadata} | more


class FakeRegistry:
    def __init__(self, *records, watch=False, port=None, token=None, epoch="e1"):
        self.records = {r["name"]: r for r in records}
        self.extra = []                 # sent along in lists: whatever a test wants there
        self.has_watch, self.token, self.epoch, self.version = watch, token, epoch, 1
        self.raw = None                 # answered to everything in place of a list, as (status, bytes)
        self.asked, self.watchers, self.lock = [], [], threading.RLock()
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.begin()

    def begin(self):
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                registry.answer(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address, daemon_threads = True, True

        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, request):
        url = urlsplit(request.path)
        query = parse_qs(url.query)
        with self.lock:
            self.asked.append(request.path)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return self.send(request, 401, b"{}")
        if self.raw:
            return self.send(request, *self.raw)
        if url.path != "/services":
            return self.send(request, 404, b"{}")
        if self.has_watch and "watch" in query:
            return self.stream(request, query.get("since", [""])[0])
        with self.lock:
            found = [r for r in self.records.values() if "healthy" not in query or r["is_healthy"]] + self.extra
        self.send(request, 200, json.dumps({"services": found, "total": len(found), "timestamp": "now"}).encode())

    def send(self, request, status, body):
        request.send_response(status)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def stream(self, request, since):
        events = queue.Queue()
        with self.lock:
            self.watchers.append(events)
            if since != f"{self.epoch}:{self.version}":
                events.put({"reset": True, "epoch": self.epoch, "version": self.version,
                            "services": list(self.records.values()) + self.extra})
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.send_header("connection", "close")
        request.end_headers()
        try:
            request.wfile.write(b": here\n\n")
            while (event := events.get()) is not None:
                text = event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode() + b"\n\n"
                request.wfile.write(text)
                request.wfile.flush()
        except OSError:
            pass
        request.close_connection = True

    def tell(self, event):
        """To all watchers; None ends them."""
        with self.lock:
            for events in self.watchers:
                events.put(event)
            if event is None:
                self.watchers.clear()

    def change(self, change):
        with self.lock:
            self.version += 1
            self.tell({"epoch": self.epoch, "version": self.version, "changes": [change]})

    def put(self, found):
        with self.lock:
            self.records[found["name"]] = found
            self.change({"op": "put", "name": found["name"], "record": found})

    def delete(self, name, **more):
        with self.lock:
            self.records.pop(name, None)
            self.change({"op": "delete", "name": name} | more)

    def down(self):
        """Nobody listens any more, and who listened is cut off."""
        self.server.shutdown()
        self.server.server_close()
        self.tell(None)

    def stop(self):
        self.down()
