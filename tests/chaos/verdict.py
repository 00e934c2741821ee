"""Holds what clients saw against the router's log, the engines' ledger and the faults that were injected."""
from collections import Counter
from dataclasses import dataclass, field

LOST = ("silent", "stale", "refused", "late")


@dataclass
class Verdict:
    total: dict                 # as callers.c prints it
    bad: list
    faults: list
    log: dict                   # id -> rows of the access log
    begun: Counter              # id -> generations
    steps: list                 # (name, began, ended) in their order
    by_cause: Counter = field(default_factory=Counter)      # (fault, cause) -> errors
    unexplained: list = field(default_factory=list)

    def __post_init__(self):
        for bad in self.bad:
            if bad.kind not in LOST and bad.kind != "wrong":
                self.explain(bad)

    def explain(self, bad):
        """A client's error needs a row of the log, and that a fault at that engine at that time."""
        rows = self.log.get(bad.id, [])
        row = rows[0] if len(rows) == 1 else {}
        cause, instance = row.get("cause"), row.get("instance")
        for fault in self.faults:
            if fault.explains(cause, instance, bad.began, bad.ended):
                self.by_cause[fault.kind, cause] += 1
                return
        self.unexplained.append(f"{bad} {row} {self.meanwhile(bad)}")

    def lost(self):
        return [f"{b} {self.log.get(b.id)} {self.meanwhile(b)}" for b in self.bad if b.kind in LOST]

    def meanwhile(self, bad):
        """What was done while the request was under way, or last before."""
        found = [name for name, began, ended in self.steps if began <= bad.ended and bad.began <= ended]
        before = [name for name, began, _ in self.steps if began <= bad.ended]
        return f"during {found}" if found else f"after {before[-3:]}"

    def wrong(self):
        """Also a good answer that no engine has made."""
        bad = {b.id for b in self.bad}
        not_made = [i for i in self.asked() if i not in bad and i not in self.begun]
        return [str(b) for b in self.bad if b.kind == "wrong"] + not_made + self.unasked()

    def unasked(self):
        """Bytes on connections that waited for nothing."""
        n = self.total["wrong"] - sum(b.kind == "wrong" for b in self.bad)
        return [f"{n} bytes that nobody had asked for"] * (n > 0)

    def asked(self):
        return (f"c{n:09}" for n in range(1, self.total["requests"] + 1))

    def duplicated(self):
        return [f"{i}: {n} generations, {self.log.get(i)}" for i, n in self.begun.items() if n > 1 and i[0] == "c"]

    def not_once_in_log(self):
        silent = {b.id for b in self.bad if b.kind in LOST}
        return [i for i in self.asked() if i not in silent and len(self.log.get(i, [])) != 1]

    def harmless(self):
        """Faults that nobody noticed, all of a kind: nothing was shown. What is refused is asked elsewhere."""
        met = {kind for kind, _ in self.by_cause}
        return sorted({fault.kind for fault in self.faults} - met - {"refuse"})

    def checks(self):
        """-> (what, those that break it)"""
        return [("lost: accepted and never answered", self.lost()),
                ("wrong: answers of another request, or not whole", self.wrong()),
                ("duplicated generations", self.duplicated()),
                ("errors without a fault that explains them", self.unexplained),
                ("kinds of faults that met no request", self.harmless()),
                ("requests that are not once in the access log", self.not_once_in_log())]

    def show(self):
        t = self.total
        n_bad = len(self.bad)
        print(f"{t['requests']} requests: {t['good'] - t['good_streams']} good answers, {t['good_streams']} good streams, "
              f"{n_bad} others: {', '.join(f'{n} {kind}' for kind, n in Counter(b.kind for b in self.bad).items()) or 'none'}")
        print(f"worst pause {t['pause_ms']:.0f} ms without a good end, slowest good request {t['slowest_ms']:.0f} ms")
        print(f"{'step':<18}{'times':>6}{'errors':>8}  by cause")
        for name, n in sorted(Counter(name for name, _, _ in self.steps).items()):
            causes = {cause: k for (kind, cause), k in self.by_cause.items() if kind == name}
            print(f"{name:<18}{n:>6}{sum(causes.values()):>8}  {', '.join(f'{c} {k}' for c, k in sorted(causes.items()))}")
        for what, broken in self.checks():
            for one in broken[:5]:
                print(f"  {what}: {one}")
            print(f"{'not ok' if broken else 'ok'} {what}: {len(broken)}")
        return sum(bool(broken) for _, broken in self.checks())
