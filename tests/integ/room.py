"""A room of its own for a program: other files in /etc, for it alone. Needs the right to make mount namespaces."""
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest

from program import BIN

USUAL = {"nsswitch.conf": "hosts: files dns\n", "hosts": "127.0.0.1 localhost\n"}


class Room:
    """Room({"hosts": "127.0.0.1 engine\\n"}): skips the test where there can be none.

    Router(..., how=room.how) starts the program in it, under the process id that Popen knows.
    """

    def __init__(self, files):
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-room-"))
        for name, text in (USUAL | files).items():
            self.write(name, text)
        mounts = " && ".join(f"mount --bind {shlex.quote(str(self.folder / name))} /etc/{name}"
                             for name in USUAL | files)
        enter = "unshare --mount" + ("" if os.geteuid() == 0 else " --map-root-user") + " sh -c "
        trial = subprocess.run(["sh", "-c", enter + shlex.quote(mounts)], capture_output=True, text=True)
        if trial.returncode:
            pytest.skip(f"no mount namespace with files of its own in /etc: {trial.stderr.strip()}")
        door = self.folder / "door"
        inside = f'{mounts} && exec {shlex.quote(BIN)} "$@"'
        door.write_text(f'#!/bin/sh\nexec {enter}{shlex.quote(inside)} - "$@"\n')
        door.chmod(0o700)
        self.how = {"executable": str(door)}

    def write(self, name, text):
        """The program reads this from now on."""
        (self.folder / name).write_text(text)
