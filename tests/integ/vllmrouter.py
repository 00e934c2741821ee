"""Our router under the name of vLLM's, with no flags but that system's, and the worker of that system's own tests."""
import itertools
import json
import re
import threading

from fakeworker import FakeWorker, answer
from ports import free_port
from program import Program, chat_body, eventually, http


class VllmRouter(Program):
    """vllm-router, with no flags but that system's. `dotenv` stands in its working directory."""

    QUICK = {"HEADRACE_ROUTER_THREADS": "2", "HEADRACE_TIMEOUT_ANNOUNCE": "0s", "HEADRACE_DISCOVERY_INTERVAL": "200ms"}

    def __init__(self, *flags, env=None, dotenv=None):
        self.port, self.admin_port = free_port(), free_port()
        self.url, self.admin_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"
        self.dotenv = dotenv
        super().__init__("vllm-router", "--port", self.port, "--prometheus-port", self.admin_port, *flags, env=self.QUICK | (env or {}))
        self.await_ready(lambda: self.get("/liveness").status_code == 200)

    def environment(self):
        """Without what the machine may have of it, and behind the file that it is to find."""
        if self.dotenv:
            (self.folder / ".env").write_text(self.dotenv)
        return {k: v for k, v in super().environment().items() if k not in ("RUST_LOG", "API_KEY_VALIDATION_URLS")}

    def config(self):
        with http() as client:
            return client.get(self.admin_url + "/config").json()

    def await_workers(self, n):
        eventually(lambda: self.get("/readiness").json().get("healthy_workers") == n)
        return self

    def chat(self, **how):
        return self.post("/v1/chat/completions", json=chat_body(), **how)


class ManagedRouter(VllmRouter):
    """As that system's tests start it and wait for it, and stop it: it has five seconds to end."""

    QUICK = {"HEADRACE_TIMEOUT_ANNOUNCE": "0s"}

    def __init__(self, *flags, env=None, **settings):
        """max_concurrent_requests=2 is --max-concurrent-requests 2; True is the flag alone."""
        for name, value in settings.items():
            flags += (f"--{name.replace('_', '-')}", *([] if value is True else value if isinstance(value, list) else [value]))
        super().__init__("--host", "127.0.0.1", "--prometheus-host", "127.0.0.1", *flags, env=env)
        self.await_ready(lambda: self.get("/health").status_code == 200)
        # Until its first probe a worker gets few requests where others have had theirs: who counts them waits for that.
        eventually(lambda: {s["status"] for s in self.get("/services").json()["services"]} == {"ready"})

    def complete(self, prompt="Hello", model="test-model", **how):
        return self.post("/v1/completions", json={"model": model, "prompt": prompt, "max_tokens": 1, "stream": False}, **how)

    def stop(self):
        if self.expected_to_end:
            return
        self.process.terminate()
        assert self.wait(5) == 0, self.output()


class Worker(FakeWorker):
    """Says who it is in each answer, and knows nothing of /metrics, nor of prefill and decode.

    Its first `fails` requests are answered by `status`; while `hold` is there, generations wait for it; with a `key` it
    wants that of whoever asks for tokens.
    """

    numbers = itertools.count()

    def __init__(self, fails=0, status=500, key=None):
        self.id, self.fails, self.status, self.key = f"worker-{next(self.numbers)}", fails, status, key
        self.hold, self.generations = None, []        # the heads, lower case, of those that came
        super().__init__(self.talk, declared=())

    def talk(self, peer):
        while found := peer.request():
            method, path = found[0].decode().split(" ")[:2]
            if method == "GET":
                peer.send(self.page(path))
            elif path in ("/generate", "/v1/completions", "/v1/chat/completions"):
                self.generations.append(found[0].lower().decode())
                peer.send(self.generate(self.generations[-1]))
            else:
                peer.send(self.say({"success": path == "/flush_cache"}, "200 OK" if path == "/flush_cache" else "404 Not Found"))

    def say(self, body, status="200 OK"):
        return answer(json.dumps({"worker_id": self.id} | body).encode(), status.encode(), f"X-Worker-Id: {self.id}\r\n".encode())

    def page(self, path):
        pages = {"/health": {}, "/health_generate": {}, "/load": {"server_load": 0}, "/get_server_info": {"dp_size": 1},
                 "/get_model_info": {}, "/v1/models": {"object": "list", "data": [{"id": "test-model", "object": "model"}]}}
        return self.say(pages[path]) if path in pages else self.say({}, "404 Not Found")

    def generate(self, head):
        if self.key and f"\r\nauthorization: bearer {self.key}" not in head:
            return self.say({"error": "key"}, "401 Unauthorized")
        if self.fails > 0:
            self.fails -= 1
            return self.say({"error": "asked to"}, f"{self.status} Asked to")
        if self.hold:
            assert self.hold.wait(60)
        return self.say({"object": "text_completion", "model": "test-model", "choices": [{"index": 0, "text": "ok", "finish_reason": "stop"}]})

    def ranks(self):
        """What each generation said of its rank."""
        return [re.findall(r"\r\nx-data-parallel-rank:\s*(\S+)", head) for head in self.generations]


def holding(workers):
    """Makes them hold what they get until the event that is returned is set."""
    hold = threading.Event()
    for worker in workers:
        worker.hold = hold
    return hold
