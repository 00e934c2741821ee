"""A router whose binary is replaced while it runs, and the processes that come of it."""
import os
import shutil
import signal
import stat
import threading
import time
from pathlib import Path

import httpx

import program
from program import Router, chat_body, eventually, http, raw_request, read_to_end


def is_alive(pid):
    """Also not a zombie: whoever inherits orphans here may be slow to reap them."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class UpgradableRouter(Router):
    """Started from a binary of its own, which may be replaced; pid is of the process that serves."""

    def __init__(self, engines, *flags, **tables):
        self.binary = Path(program.tempfile.mkdtemp(prefix="headrace-binary-"), "headrace")
        shutil.copy(program.BIN, self.binary)
        built, program.BIN = program.BIN, str(self.binary)
        try:
            super().__init__(engines, *flags, **tables)
        finally:
            program.BIN = built
        self.built, self.first, self.pids = built, self.process, [self.pid]

    def replace(self, text=None):
        """By a shell script, or by what it was: in one step, as a package does it."""
        new = self.binary.with_suffix(".new")
        if text is None:
            shutil.copy(self.built, new)
        else:
            new.write_text("#!/bin/sh\n" + text)
            new.chmod(new.stat().st_mode | stat.S_IXUSR)
        os.rename(new, self.binary)

    def ask_upgrade(self):
        with http() as client:
            return client.post(self.admin_url + "/upgrade", timeout=120)

    def upgrade(self):
        """-> the new process's id, which serves by then."""
        answer = self.ask_upgrade()
        assert answer.status_code == 200, answer.text
        self.pid = answer.json()["pid"]
        self.pids.append(self.pid)
        return self.pid

    def await_end(self, pid):
        """Of a process that another one has taken over from."""
        if pid == self.first.pid:
            assert self.wait() == 0
        eventually(lambda: not is_alive(pid))

    def signal(self, number):
        os.kill(self.pid, number)

    def stop(self):
        """All of them, the newest first; the first one, a child of ours, must end well."""
        for pid in reversed(self.pids):
            if pid == self.first.pid:
                break
            if is_alive(pid):
                os.kill(pid, signal.SIGTERM)
                eventually(lambda: not is_alive(pid))
        if len(self.pids) == 1:
            super().stop()
        else:
            self.expected_to_end = True
            assert self.first.wait(60) == 0, self.output()
        assert "assertion failed" not in self.output() and "Sanitizer" not in self.output()


class Knocker:
    """Clients that ask all the time, from threads. n_good counts; what goes wrong is in `wrong`.

    Those with `keeps` hold their connection for as long as the router does, the others make a new one each time.
    """

    def __init__(self, front, n=4, keeps=False, max_tokens=2):
        self.front, self.keeps = front, keeps
        self.request = raw_request(chat_body(stream=True, max_tokens=max_tokens), headers="" if keeps else "Connection: close\r\n")
        self.lock, self.ends, self.n_good, self.wrong = threading.Lock(), threading.Event(), 0, []
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(n)]
        for t in self.threads:
            t.start()

    def ask(self, s):
        """-> whether the connection may be used again."""
        s.sendall(self.request)
        reply, end = read_to_end(s, b"0\r\n\r\n")
        head = reply.partition(b"\r\n\r\n")[0].lower()
        if end or not reply.startswith(b"HTTP/1.1 200 ") or b"data: [DONE]" not in reply:
            raise ConnectionError(f"{end}: {reply[:300]}")
        with self.lock:
            self.n_good += 1
        return b"connection: close" not in head

    def run(self):
        s = None
        while not self.ends.is_set():
            try:
                s = s or self.front.connect()
                if not self.ask(s):
                    s.close()
                    s = None
            except OSError as error:
                self.wrong.append((time.monotonic(), error))
                s = None
        if s:
            s.close()

    def more(self, n):
        """Waits for that many more."""
        goal = self.n_good + n
        eventually(lambda: self.n_good >= goal or self.wrong)

    def stop(self):
        self.ends.set()
        for t in self.threads:
            t.join(60)
        assert not self.wrong, self.wrong[:5]
