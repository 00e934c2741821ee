"""Ports for the programs under test."""
import random
import socket


def is_free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(n=1):
    """The first of n neighbouring free ports, below the range that outgoing connections take theirs from."""
    while True:
        port = random.randrange(10000, 32000)
        if all(is_free(port + i) for i in range(n)):
            return port
