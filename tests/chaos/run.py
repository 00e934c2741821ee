#!/usr/bin/env python3
"""Requests without a pause while engines, the registry and the router itself are done harm: see script/chaos."""
import argparse
import collections
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "integ"))


def parse_arguments():
    parser = argparse.ArgumentParser(prog="script/chaos")
    parser.add_argument("--build", type=Path, default=HERE.parents[1] / "build/release")
    parser.add_argument("--seed", type=int, default=1)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--short", dest="form", action="store_const", const="--short")
    form.add_argument("--long", dest="form", action="store_const", const="--long")
    return parser.parse_args()


def perform(stage, callers, plan):
    """All steps. -> (the faults among them, each step's name, begin and end)"""
    import steps
    faults, times = [], []
    for step in plan:
        callers.await_ends(step.due)
        stage.settle()
        began = time.monotonic()
        fault = getattr(steps, step.name)(stage, stage.next_serving(step.engine))
        if fault:
            faults.append(fault)
        times.append((step.name, began, time.monotonic()))
    return faults, times


def rows_of_log(router):
    rows = collections.defaultdict(list)
    for row in router.log():
        rows[row["id"]].append(row)
    return rows


def run(build, form, seed):
    """-> how many checks failed"""
    from callers import Callers
    from plan import draw
    from stage import Stage
    from verdict import Verdict
    plan, began = draw(form, seed), time.monotonic()
    with Stage(form.n_engines) as stage:
        callers = Callers(build / "tests/chaos/callers", stage.router.port, form, seed)
        try:
            faults, times = perform(stage, callers, plan)
            total = callers.end()
        finally:
            callers.kill()
    verdict = Verdict(total, callers.bad, faults, rows_of_log(stage.router), stage.begun(), times)
    n_failed = verdict.show()
    print(f"seed {seed}, {time.monotonic() - began:.0f} s\n{len(verdict.checks()) - n_failed} passed, {n_failed} failed")
    return n_failed


def main():
    arguments = parse_arguments()
    os.environ["NO_PROXY"] = "*"
    os.environ.setdefault("HEADRACE_BIN", str(arguments.build.resolve() / "headrace"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # what was started ends, too
    from plan import FORMS
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        tempfile.tempdir = folder
        sys.exit(1 if run(arguments.build, FORMS[arguments.form], arguments.seed) else 0)


if __name__ == "__main__":
    main()
