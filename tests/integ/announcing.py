"""Engines that announce themselves on the router's discovery socket, as vLLM's connectors do."""
import threading

import msgpack
import zmq

from ports import free_port


class Announcer:
    """Says every fifth of a second that an engine is there, until it is stopped."""

    def __init__(self, discovery_port, kind, engine_port, **more):
        self.message = {"type": kind, "http_address": f"127.0.0.1:{engine_port}",
                        "zmq_address": f"127.0.0.1:{free_port()}"} | more
        self.port, self.ends = discovery_port, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.setsockopt_string(zmq.IDENTITY, self.message["zmq_address"])
            socket.connect(f"tcp://127.0.0.1:{self.port}")
            while True:
                socket.send(msgpack.packb(self.message))
                if self.ends.wait(0.2):
                    return

    def stop(self):
        self.ends.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
