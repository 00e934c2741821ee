"""What goes wrong in a run, in which order and to whom: drawn from a seed, so that a run can be had again."""
import random
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Form:
    """n_requests are asked at `rate` a second or as fast as they are answered; `steps` says how often each is taken.

    An engine that fails again and again is held out for longer each time: many faults need many engines.
    """

    n_engines: int
    n_requests: int
    rate: int
    steps: dict = field(default_factory=dict)


FORMS = {
    "--short": Form(4, 20_000, 1000, {"kill": 5, "reload": 3, "upgrade": 2}),
    "--long": Form(16, 200_000, 1000, {
        "kill": 20, "restart": 20, "hang_head": 6, "hang_stream": 6, "reset_head": 8, "reset_body": 8, "garbage": 6,
        "refuse": 8, "drain": 10, "bounce_registry": 10, "reload": 50,
        "upgrade": 10}),
}


@dataclass(frozen=True)
class Step:
    name: str       # a function of steps.py
    engine: int     # whom it is done to, or, while that one is out, the next that serves
    due: int        # not before so many requests have ended


def draw(form, seed):
    """All steps in their order, spread evenly over the requests."""
    rng = random.Random(seed)
    names = [name for name, n in form.steps.items() for _ in range(n)]
    rng.shuffle(names)
    share = form.n_requests / (len(names) + 1)
    return [Step(name, rng.randrange(form.n_engines), int(share * (i + 0.5))) for i, name in enumerate(names)]
