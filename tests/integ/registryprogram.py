"""headrace registry as an object, and what it is told and asked."""
import http.server as httpserver
import json
import re
import socket
import threading

from ports import free_port
from program import Program, http, read_to_end


class Registry(Program):
    """headrace registry with its state in a folder of its own; the same folder again with restart()."""

    def __init__(self, *flags, port=None, state_dir=None, env=None):
        self.flags, self.env = flags, env
        self.port = port or free_port()
        self.url = f"http{'s' if '--ssl-certfile' in flags else ''}://127.0.0.1:{self.port}"
        self.state_dir = state_dir
        where = ["--state-dir", state_dir] if state_dir else ["--store", "memory"]
        super().__init__("registry", "--port", self.port, *where, *flags, env=env)
        self.await_ready(lambda: self.get("/health").status_code == 200)

    def restart(self):
        """Dies as if shot and comes back at the same address."""
        self.kill()
        self.__init__(*self.flags, port=self.port, state_dir=self.state_dir, env=self.env)

    def ask(self, method, path, **how):
        with http() as client:
            return client.request(method, self.url + path, **how)

    def register(self, name="a", **more):
        return self.post("/services", json=service(name, **more))

    def record(self, name="a"):
        return self.get(f"/services/{name}").json()

    def names(self, query=""):
        return [s["name"] for s in self.get(f"/services{query}").json()["services"]]

    def metric(self, name, **labels):
        wanted = "".join(f'{k}="{v}"' for k, v in labels.items())
        wanted = f"{name}{{{wanted}}}" if wanted else name
        return float(re.search(rf"^{re.escape(wanted)} (\S+)$", self.get("/metrics").text, re.M)[1])

    def watch(self, since=None):
        return Watch(self.url, since)

    def poll(self, since=None, **how):
        query = {"watch": "1"} | ({"since": since} if since else {})
        return self.get("/services", params=query, **how).json()

    def version(self):
        """Where a watcher that knows everything goes on."""
        return mark(self.poll())

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), 60)

    def pipeline(self, requests, n_connections=16):
        """Many raw requests, as fast as they are taken; -> the status codes in their order."""
        codes = [None] * len(requests)

        def run(first):
            mine = range(first, len(requests), n_connections)
            with self.connect() as s:
                sender = threading.Thread(target=lambda: s.sendall(b"".join(requests[i] for i in mine)))
                sender.start()
                stream = s.makefile("rb")
                for i in mine:
                    codes[i] = int(stream.readline().split()[1])
                    length = 0
                    while (line := stream.readline()) != b"\r\n":
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    stream.read(length)
                sender.join()
        threads = [threading.Thread(target=run, args=(i,)) for i in range(min(n_connections, len(requests)))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return codes


def service(name="a", **more):
    """What an old babysitter sends."""
    return {"name": name, "host": "127.0.0.1", "port": 9, "hostname": "localhost", "url": "http://127.0.0.1:9",
            "status": "running"} | more


def raw(method, path, body=None):
    data = json.dumps(body).encode() if body is not None else b""
    return f"{method} {path} HTTP/1.1\r\nhost: r\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


def mark(event):
    return f"{event['epoch']}:{event['version']}"


class Watch:
    """The events of one watcher, by SSE."""

    def __init__(self, url, since=None):
        self.client = http()
        params = {"watch": "1"} | ({"since": since} if since else {})
        request = self.client.build_request("GET", url + "/services", params=params,
                                            headers={"accept": "text/event-stream"})
        self.answer = self.client.send(request, stream=True)
        assert self.answer.headers["content-type"] == "text/event-stream"
        self.lines = self.answer.iter_lines()

    def next(self):
        """The next event; None at an orderly end."""
        for line in self.lines:
            if line.startswith("data: "):
                return json.loads(line[6:])
            assert line == "" or line.startswith(":"), line
        return None

    def until(self, condition):
        while not condition(event := self.next()):
            pass
        return event

    def close(self):
        self.answer.close()
        self.client.close()


class HealthServer:
    """Something with a /health. `status` is what it says; it counts who asks at once."""

    def __init__(self, status=200, port=None):
        self.status, self.paths, self.n_active, self.n_active_max = status, [], 0, 0
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.Lock()
        outer = self

        class Handler(httpserver.BaseHTTPRequestHandler):
            def do_GET(self):
                with outer.lock:
                    outer.paths.append(self.path)
                    outer.n_active += 1
                    outer.n_active_max = max(outer.n_active, outer.n_active_max)
                outer.gate.wait(60)
                with outer.lock:
                    outer.n_active -= 1
                self.send_response(outer.status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        class Server(httpserver.ThreadingHTTPServer):
            request_queue_size = 512
            daemon_threads = True

        self.server = Server(("127.0.0.1", port or free_port()), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


def answers(s, request, until=b"}"):
    """The raw answer to a raw request."""
    s.sendall(request)
    return read_to_end(s, until)[0]


__all__ = ["HealthServer", "Registry", "Watch", "answers", "mark", "raw", "service"]
