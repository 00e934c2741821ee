"""The programs of a run: mock engines, a registry that half of them come from, and the router in front."""
import tempfile
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from fleet import Stack
from program import Engine, eventually, http
from registryprogram import Registry
from upgrading import UpgradableRouter

# A hang costs what these say; the rest is as users have it, and retries are of refusals and of what was never sent.
TIMES = {"first_byte": "1s", "stream_idle": "1s", "connect": "1s", "announce": "500ms", "drain": "60s", "upgrade": "60s"}
HEALTH = {"interval": "100ms", "slow_start": "0s", "stall_timeout": "500ms"}
BREAKER = {"open": "300ms", "open_max": "600ms"}
LEASE_S = 86400


class Stage(Stack):
    def __init__(self, n_engines):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-chaos-"))
        self.n_reloads = 0
        self.ledger = self.folder / "ledger"
        flags = ("--reply", "echo", "--itl", "10ms", "--ledger", self.ledger)
        self.engines = [self(Engine, ["m"], *flags) for _ in range(n_engines)]
        self.registry = self(Registry, state_dir=tempfile.mkdtemp(prefix="roster-"))
        half = n_engines // 2
        for i, engine in enumerate(self.engines[:half]):
            self.registry.register(f"listed-{i}", port=engine.port, url=engine.url, ttl=LEASE_S,
                                   metadata={"type": "openai-api", "models": ["m"]})
        self.router = self(UpgradableRouter, self.engines[half:], "--registry-url", self.registry.url,
                           ready=n_engines, timeout=TIMES, health=HEALTH, breaker=BREAKER)
        shown = self.router.get("/services").json()["services"]
        self.names = [next(s["name"] for s in shown if s["port"] == e.port) for e in self.engines]

    def serving(self):
        """The numbers of the engines that get requests, as the router has it."""
        states = {s["name"]: s["status"] for s in self.router.get("/services").json()["services"]}
        breakers = {b["instance"]: b["state"] for b in self.router.admin("/breakers").json()["breakers"]}
        return [i for i, name in enumerate(self.names) if states.get(name) == "ready" and breakers.get(name, "closed") == "closed"]

    def settle(self):
        """Until more than half of them serve: who fails often is held out for long."""
        eventually(lambda: len(self.serving()) > len(self.engines) / 2, seconds=300)

    def next_serving(self, i):
        """The first from the i-th on."""
        found = self.serving()
        return min(found, key=lambda one: (one - i) % len(self.engines))

    def wish(self, name, verb):
        """As an operator, on the admin port."""
        with http() as client:
            answer = client.post(f"{self.router.admin_url}/instances/{quote(name, safe='')}/{verb}")
        assert answer.status_code == 200, answer.text

    def in_flight(self, name):
        shown = self.router.admin("/instances").json()["instances"]
        return next(one["in_flight"] for one in shown if one["instance"] == name)

    def begun(self):
        """id -> how many generations of it have begun, on all engines that ever were."""
        return Counter(self.ledger.read_text().splitlines())
