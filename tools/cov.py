#!/usr/bin/env python3
"""Sums gcov's JSON on stdin: a line of a source file counts as run when any program ran it.

    cov.py MINIMUM_PERCENT      exits 1 below it
"""
import json
import sys
from collections import defaultdict


def main(minimum):
    runs = defaultdict(bool)                    # (file, line) -> was it run
    for text in sys.stdin:
        for file in json.loads(text)["files"]:
            name = file["file"]
            if name.startswith("src/"):
                for line in file["lines"]:
                    runs[name, line["line_number"]] |= line["count"] > 0
    folders = defaultdict(lambda: [0, 0])
    for (name, _), was_run in runs.items():
        for folder in (name.rpartition("/")[0], "src, all of it"):
            folders[folder][0] += was_run
            folders[folder][1] += 1
    for folder in sorted(folders, key=lambda f: (f.startswith("src,"), f)):
        n, of = folders[folder]
        print(f"{folder:20} {100 * n / of:6.1f} %  {n:6} of {of} lines")
    n, of = folders["src, all of it"]
    if not of or 100 * n < minimum * of:
        print(f"coverage is below {minimum} %")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
