"""A scripted engine for what the mock engine does not do: odd bytes, exact cuts, answers in lockstep."""
import socket
import threading

from ports import free_port
from program import hard_close

STREAM_HEAD = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
               b"Transfer-Encoding: chunked\r\n\r\n")


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(body=b"{}", status=b"200 OK", headers=b""):
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s" % (
        status, len(body), headers, body)


class Peer:
    """One connection of the router's, in the hands of a script."""

    def __init__(self, sock, n):
        self.sock, self.n, self.buffer = sock, n, b""
        sock.settimeout(60)

    def send(self, *pieces):
        for piece in pieces:
            self.sock.sendall(piece)

    def receive(self):
        """False at the end."""
        piece = self.sock.recv(65536)
        self.buffer += piece
        return bool(piece)

    def request(self):
        """-> (head, body) of the next request, or None when the router closed. Content-Length bodies only."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.receive():
                return None
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 0))
        while len(self.buffer) < length:
            if not self.receive():
                return None
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return head, body

    def wait_for_end(self):
        """Returns when the router has closed or reset."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def reset(self):
        hard_close(self.sock)


class FakeWorker:
    """Runs script(peer) in a thread for each connection and closes it afterwards.

    Keeps every request that peer.request() returned in `requests`, and what a script raised in `errors`.
    """

    def __init__(self, script, declared=("m",), port=None):
        self.script, self.declared = script, list(declared)
        self.requests, self.errors, self.n_connections = [], [], 0
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(Peer(sock, self.n_connections),), daemon=True).start()
            self.n_connections += 1

    def serve(self, peer):
        take = peer.request

        def request():
            found = take()
            if found:
                self.requests.append(found)
            return found
        peer.request = request
        try:
            self.script(peer)
        except OSError:
            pass        # the router left: most scripts end so
        except Exception as error:  # noqa: BLE001
            self.errors.append(error)
        finally:
            peer.sock.close()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        assert not self.errors
