"""Ports for the programs under test."""
import random
import socket
import threading

BLOCKS, FIRST, SIZE = 80, 10000, 275        # below the range that outgoing connections take theirs from


class Ports:
    """This process' own: no other one of these tests takes them while it runs, whoever listens at the moment."""

    def __init__(self):
        """A name in the abstract namespace is held until the process ends, however it ends."""
        self.claim, self.lock = socket.socket(socket.AF_UNIX), threading.Lock()
        for block in random.sample(range(BLOCKS), BLOCKS):
            try:
                self.claim.bind(f"\0headrace-test-ports-{block}")
            except OSError:
                continue
            self.first, self.next = FIRST + block * SIZE, 0
            return
        raise RuntimeError("all ports for tests are taken")

    def take(self, n):
        """In turn: one that a killed program left, for its successor, comes last."""
        with self.lock:
            if self.next + n > SIZE:
                self.next = 0
            self.next += n
            return self.first + self.next - n


def is_free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("", port))
        except OSError:
            return False
        return True


def free_port(n=1):
    """The first of n neighbouring free ports."""
    while True:
        port = ports.take(n)
        if all(is_free(port + i) for i in range(n)):
            return port


ports = Ports()
