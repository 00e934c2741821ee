"""The steps of a plan, each a function of the stage and the number of an engine.

What gives clients errors is told as a Fault: whose, from when to when, and which causes of the access log it explains.
A step that gives None may cost no request anything.
"""
import signal
import time
from dataclasses import dataclass

from program import eventually

BROKEN = {"upstream_closed", "stream_broken", "connect_failed"}
SILENT = {"first_byte_timeout", "stream_stalled"}


@dataclass
class Fault:
    kind: str
    instance: str
    causes: set
    began: float    # of time.monotonic(), as the callers' times are
    ended: float = float("inf")

    def explains(self, cause, instance, began, ended):
        return (instance == self.instance and cause in self.causes
                and began <= self.ended and self.began <= ended)


def ended(fault):
    fault.ended = time.monotonic()
    return fault


def replaced(stage, i, kind, end):
    """The engine ends by `end` and another one comes at its address."""
    fault = Fault(kind, stage.names[i], BROKEN, time.monotonic())
    end(stage.engines[i])
    stage.engines[i].restart()
    return ended(fault)


def kill(stage, i):
    return replaced(stage, i, "kill", lambda engine: engine.kill())


def restart(stage, i):
    """As an operator does it who does not drain: the mock engine ends at once."""
    return replaced(stage, i, "restart", lambda engine: engine.stop())


def drain(stage, i):
    """An engine is drained, replaced when its last request has ended, and let back in."""
    name = stage.names[i]
    stage.wish(name, "drain")
    eventually(lambda: stage.in_flight(name) == 0)
    stage.engines[i].restart()
    stage.wish(name, "undrain")


def armed(stage, i, kind, spec, causes, n=8):
    """The engine misbehaves until it has met n requests, or gets no more of them."""
    engine, fault = stage.engines[i], Fault(kind, stage.names[i], causes, time.monotonic())
    engine.fault(spec)
    eventually(lambda: engine.get("/mock/faults").json()["requests"] >= n or i not in stage.serving())
    engine.fault("none")
    return ended(fault)


def hang_head(stage, i):
    return armed(stage, i, "hang_head", "hang_head", SILENT)


def hang_stream(stage, i):
    return armed(stage, i, "hang_stream", "hang_stream:3", SILENT)


def reset_head(stage, i):
    return armed(stage, i, "reset_head", "reset:0", BROKEN)


def reset_body(stage, i):
    return armed(stage, i, "reset_body", "reset:3", BROKEN)


def garbage(stage, i):
    return armed(stage, i, "garbage", "garbage", {"upstream_malformed"})


def refuse(stage, i):
    """Another engine answers in its place, as far as the budget of retries goes. It gets few, since it asks for a rest."""
    return armed(stage, i, "refuse", "status:503", {"upstream_refused"}, n=2)


def bounce_registry(stage, _):
    """What the router knows stays as it is while nobody can be asked."""
    stage.registry.restart()


def upgrade(stage, _):
    """The same binary, as a package installs it, takes the place of the one that runs."""
    stage.router.replace()
    stage.router.upgrade()


def reload(stage, _):
    """Another value, which the admin port must show."""
    stage.n_reloads += 1
    wanted = f"{25 + stage.n_reloads}ms"
    stage.router.reconfigure(retry={"backoff": wanted})
    stage.router.signal(signal.SIGHUP)
    eventually(lambda: stage.router.admin("/config").json()["retry"]["backoff"] == wanted)
