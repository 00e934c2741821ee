"""Runs callers.c and keeps what it tells."""
import json
import subprocess
import threading
from dataclasses import dataclass


@dataclass
class Bad:
    """A request that did not end well, as its client saw it."""

    id: str
    began: float
    ended: float
    kind: str
    status: int
    code: str


class Callers:
    """They ask from the making until end()."""

    def __init__(self, program, port, form, seed, n_connections=200):
        command = [program, "--port", port, "--connections", n_connections, "--requests", form.n_requests,
                   "--rate", form.rate, "--seed", seed]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.bad, self.total, self.n_ended, self.moved = [], None, 0, threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            words = line.split()
            with self.moved:
                if words[0] == "at":
                    self.n_ended = int(words[1])
                elif words[0] == "bad":
                    self.bad.append(Bad(words[1], float(words[2]), float(words[3]), words[4], int(words[5]), words[6]))
                else:
                    self.total = json.loads(line)
                self.moved.notify_all()
        with self.moved:
            self.n_ended = float("inf")
            self.moved.notify_all()

    def await_ends(self, n):
        """Until so many requests have ended; what was asked for may be done long before."""
        with self.moved:
            self.moved.wait_for(lambda: self.n_ended >= n)
        assert self.process.poll() is None, "the clients ended by themselves"

    def end(self):
        """As soon as all were asked and answered. -> what they count"""
        self.process.stdin.close()
        self.reader.join()
        assert self.process.wait() == 0 and self.total, "the clients failed"
        return self.total

    def kill(self):
        self.process.kill()
        self.process.wait()
