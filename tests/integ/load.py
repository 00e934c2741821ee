"""Streamed requests without a pause from several connections, and what became of each of them."""
import json
import socket
import threading
import time

from program import chat_body, eventually, raw_request


class Failure:
    """A request that did not end well. Times are of time.monotonic()."""

    def __init__(self, id, began, what):
        self.id, self.began, self.ended, self.what = id, began, time.monotonic(), what

    def __repr__(self):
        return f"{self.id}: {self.what}"


class Death:
    """An engine's end: not before `ordered`, not after `seen`."""

    def __init__(self, instance, ordered):
        self.instance, self.ordered, self.seen = instance, ordered, time.monotonic()


class Load:
    """Runs from its making to stop(). n_done counts the good ones."""

    def __init__(self, router, model="m", n_connections=6, max_tokens=8):
        self.router, self.n_begun, self.n_done, self.failures = router, 0, 0, []
        self.body = json.dumps(chat_body(model, stream=True, max_tokens=max_tokens)).encode()
        self.lock, self.ends = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(n_connections)]
        for t in self.threads:
            t.start()

    def next_id(self):
        with self.lock:
            if self.ends.is_set():
                return None
            self.n_begun += 1
            return f"load-{id(self):x}-{self.n_begun}"

    def run(self):
        s = None
        while name := self.next_id():
            began, what = time.monotonic(), None
            try:
                s = s or self.router.connect()
                s.sendall(raw_request(self.body, headers=f"x-request-id: {name}\r\n"))
                what = self.read(s)
            except OSError as error:
                what = repr(error)
            with self.lock:
                if what is None:
                    self.n_done += 1
                    continue
                self.failures.append(Failure(name, began, what))
            if s:
                s.close()
            s = None
            self.ends.wait(0.02)        # a refusal is quickly had
        if s:
            s.close()

    @staticmethod
    def read(s):
        """None for an answer that is whole, else what is wrong with it."""
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            piece = s.recv(65536)
            if not piece:
                break
            data += piece
            if b"\r\n\r\n" in data and b"\r\ntransfer-encoding:" not in data.partition(b"\r\n\r\n")[0].lower():
                break       # a refusal
        if data.startswith(b"HTTP/1.1 200 ") and b"data: [DONE]" in data and data.endswith(b"0\r\n\r\n"):
            return None
        return f"{data[:40]!r} ... {data[-160:]!r}" if data else "closed without an answer"

    def more(self, n=30):
        """Returns when so many more were answered well."""
        wanted = self.n_done + n
        eventually(lambda: self.n_done >= wanted, seconds=90)

    def stop(self):
        self.ends.set()
        for t in self.threads:
            t.join()

    def lost(self, deaths=()):
        """The failures that no death excuses: those that were not in flight on an engine when it died."""
        def where():
            return {r["id"]: r.get("instance") for r in self.router.log()} if self.failures else {}
        try:
            eventually(lambda: {f.id for f in self.failures} <= where().keys(), seconds=5)
        except AssertionError:
            pass        # what never got to the router has no line, and no excuse
        instance = where()
        return [f for f in self.failures if not any(
            d.instance == instance.get(f.id) and f.began <= d.seen and d.ordered <= f.ended for d in deaths)]
