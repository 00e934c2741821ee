"""Another binary takes over while the router runs: nothing is refused, reset or lost, and what cannot start changes nothing."""
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fakeworker import STREAM_HEAD, chunk
from ports import free_port
from program import BIN, Program, chat_body, eventually, http, raw_request, read_to_end
from test_notify import Manager
from upgrading import Knocker, UpgradableRouter, is_alive

TIMES = {"announce": "500ms", "drain": "60s", "upgrade": "60s"}


@pytest.fixture
def upgradable(start):
    return lambda engines, *flags, **tables: start(
        UpgradableRouter, engines, *flags, **{**tables, "timeout": {**TIMES, **tables.get("timeout", {})}})


class Gate:
    """An engine's script: streams that begin, and end when the gate is opened."""

    def __init__(self):
        self.opens = threading.Event()

    def __call__(self, peer):
        while peer.request():
            peer.send(STREAM_HEAD, chunk(b"data: 1\n\n"))
            self.opens.wait(120)
            peer.send(chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")


def begin_stream(front):
    s = front.connect()
    s.sendall(raw_request(chat_body(stream=True)))
    read_to_end(s, b"data: 1\n\n")
    return s


def config_of(front):
    return Path(front.arguments[front.arguments.index("--config") + 1])


def configure(front, old, new):
    text = config_of(front).read_text()
    assert old in text
    config_of(front).write_text(text.replace(old, new))


def status(pid, *names):
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: re.search(rf"^{name}:\s*(.*)$", text, re.M)[1] for name in names}


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("n", [5])
def test_nothing_is_lost_by_upgrades_in_a_row(fake, upgradable, engine, n):
    """New connections all the time, connections that are kept, and streams that began before."""
    gate = Gate()
    slow = fake(gate, declared=("slow",))
    front = upgradable([engine(["m"]), slow], health={"probe": False})
    loads = [Knocker(front), Knocker(front, keeps=True)]
    streams, streaming = [], raw_request(chat_body("slow", stream=True))
    for _ in range(n):
        s = front.connect()
        s.sendall(streaming)
        read_to_end(s, b"data: 1\n\n")
        streams.append(s)
        for load in loads:
            load.more(100)
        front.upgrade()
    for load in loads:
        load.more(100)
        load.stop()
    assert all(is_alive(pid) for pid in front.pids)
    gate.opens.set()
    for s in streams:
        reply, _ = read_to_end(s)
        assert b"data: [DONE]" in reply and reply.endswith(b"0\r\n\r\n")
    for pid in front.pids[:-1]:
        front.await_end(pid)
    assert front.chat().status_code == 200


BAD = {
    "exits": ("echo the first line >&2; echo nothing works here >&2; exit 2",
              "ended with exit status 2 before it was ready: nothing works here"),
    "is well, and ends": ("exit 0", "ended with exit status 0 before it was ready"),
    "dies": ("kill -SEGV $$", "was ended by signal 11 before it was ready"),
    "closes": ("exec bash -c \"exec $HEADRACE_HANDOVER>&-; exec sleep 1000\"", "was not ready within 500 ms"),
    "is silent": ("exec sleep 1000", "was not ready within 500 ms"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_binary_that_does_not_start_changes_nothing(upgradable, engine, name):
    front = upgradable([engine(["m"])], timeout={"upgrade": "500ms" if "not ready" in BAD[name][1] else "60s"})
    load = Knocker(front)
    load.more(50)
    before = descriptors(front.pid)
    front.replace(BAD[name][0])
    answers = [front.ask_upgrade() for _ in range(2)]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "upgrade_failed")
        assert BAD[name][1] in answer.json()["error"]["message"]
    assert front.output().count("upgrade failed: this process goes on") == 2
    assert not children(front.pid)
    load.more(50)
    load.stop()
    assert front.ready_workers() == 1
    eventually(lambda: descriptors(front.pid) <= before)
    front.replace()
    if "not ready" in BAD[name][1]:
        return                              # a sound one would have to be as quick
    front.upgrade()
    assert front.chat().status_code == 200


LAST = {
    "ends": ("sys.exit('no room left')", "60s", "ended with exit status 1 before it served: no room left"),
    "is silent": ("time.sleep(1000)", "5s", "did not serve within 5000 ms"),
}


@pytest.mark.parametrize("name", LAST)
def test_who_is_ready_and_does_not_serve_changes_nothing(upgradable, engine, start, tmp_path, name):
    script, timeout, why = LAST[name]
    manager = start(Manager, tmp_path / "notify")
    front = upgradable([engine(["m"])], env=manager.env, timeout={"upgrade": timeout})
    assert manager.hear() == b"READY=1"
    load = Knocker(front)
    load.more(50)
    program = tmp_path / "successor.py"
    program.write_text("import os, socket, sys, time\n"
                       "channel = socket.socket(fileno=int(os.environ['HEADRACE_HANDOVER']))\n"
                       "channel.setblocking(True)\n"
                       "channel.send(b'ready')\n"
                       "while channel.recv(64) != b'go':\n"      # the sockets come before it
                       "    pass\n" + script + "\n")
    front.replace(f"exec '{sys.executable}' '{program}'")
    answer = front.ask_upgrade()
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "upgrade_failed")
    assert why in answer.json()["error"]["message"]
    assert manager.hear().startswith(b"MAINPID=")
    assert manager.hear() == b"MAINPID=%d" % front.pid
    load.more(50)
    load.stop()
    assert not children(front.pid) and front.ready_workers() == 1
    front.replace()
    front.upgrade()
    assert front.chat().status_code == 200


def test_what_is_not_there_is_not_started(upgradable, engine):
    front = upgradable([engine(["m"])])
    front.binary.chmod(0o644)
    assert "exec: Permission denied" in front.ask_upgrade().json()["error"]["message"]
    front.binary.unlink()
    assert "exec: No such file or directory" in front.ask_upgrade().json()["error"]["message"]
    assert front.chat().status_code == 200
    front.replace()
    front.upgrade()


def test_a_mistake_in_the_configuration_is_told(upgradable, engine):
    front = upgradable([engine(["m"])])
    good = config_of(front).read_text()
    config_of(front).write_text(good + "\nrouter.no_such_key = 1\n")
    message = front.ask_upgrade().json()["error"]["message"]
    assert "ended with exit status 2" in message and "unknown key" in message
    config_of(front).write_text(good)
    front.upgrade()
    assert front.chat().status_code == 200


@pytest.mark.parametrize("before, after", [(1, 4), (4, 1), (3, 2)])
def test_threads_may_be_more_or_fewer(upgradable, engine, before, after):
    front = upgradable([engine(["m"])], router={"threads": before})
    load = Knocker(front, n=6)
    load.more(100)
    configure(front, f"router.threads = {before}", f"router.threads = {after}")
    for _ in range(2):                      # what one has adopted it passes on
        old = front.pid
        front.upgrade()
        assert front.admin("/config").json()["router"]["threads"] == after
        front.await_end(old)
        load.more(100)
    load.stop()


def test_admin_and_metrics_ports_go_on(upgradable, engine):
    port = free_port()
    front = upgradable([engine(["m"])], metrics={"host": "127.0.0.1", "port": port})
    wrong, ends = [], threading.Event()

    def look(url):
        while not ends.is_set():
            try:
                assert http().get(url).status_code == 200
            except Exception as error:  # noqa: BLE001
                wrong.append(error)
    threads = [threading.Thread(target=look, args=(url,)) for url in
               (front.admin_url + "/liveness", front.admin_url + "/metrics", f"http://127.0.0.1:{port}/metrics")]
    for t in threads:
        t.start()
    for _ in range(3):
        old = front.pid
        front.upgrade()
        front.await_end(old)
    ends.set()
    for t in threads:
        t.join()
    assert not wrong


def test_another_address_is_bound_anew(upgradable, engine):
    front = upgradable([engine(["m"])])
    port, admin = free_port(), free_port()
    configure(front, f"router.port = {front.port}", f"router.port = {port}")
    configure(front, f"admin.port = {front.admin_port}", f"admin.port = {admin}")
    old, gone = front.pid, front.url
    front.upgrade()
    front.url, front.admin_url, front.port = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", port
    assert front.chat().status_code == 200
    assert front.admin("/liveness").status_code == 200
    front.await_end(old)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(gone.rsplit(":", 1)[1])))


def test_it_is_told_by_each_answer_and_stays_ready(upgradable, fake, engine):
    """Who keeps a connection to the old process hears of it before it is closed."""
    gate = Gate()
    front = upgradable([engine(["m"]), fake(gate, declared=("slow",))], timeout={"announce": "60s"}, health={"probe": False})
    with http(base_url=front.url) as kept:
        assert kept.get("/readiness").status_code == 200
        configure(front, 'timeout.announce = "60s"', 'timeout.announce = "0s"')     # the new one's
        front.upgrade()
        answer = kept.get("/readiness")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert "connection" not in kept.get("/readiness").headers     # that was the new one
    front.first.terminate()
    eventually(lambda: "stopping: this process does so already" in front.output())
    front.first.send_signal(signal.SIGTERM)         # at once
    front.await_end(front.first.pid)


def test_by_a_signal(upgradable, engine):
    front = upgradable([engine(["m"])])
    old = front.pid
    front.signal(signal.SIGUSR2)
    found = eventually(lambda: re.search(r'"upgraded: [^}]*"pid":(\d+)', front.output()))
    front.pid = int(found[1])
    front.pids.append(front.pid)
    front.await_end(old)
    assert front.chat().status_code == 200


def test_one_at_a_time(upgradable, engine):
    front = upgradable([engine(["m"])])
    front.replace("exec sleep 1000")
    first = threading.Thread(target=lambda: answers.append(front.ask_upgrade()))
    answers = []
    first.start()
    eventually(lambda: children(front.pid))
    second = front.ask_upgrade()
    assert (second.status_code, second.json()["error"]["code"]) == (409, "upgrade_running")
    front.signal(signal.SIGUSR2)
    eventually(lambda: "an upgrade is under way" in front.output())
    front.process.terminate()               # calls it off
    first.join()
    assert answers[0].json()["error"]["message"] == "the router is being stopped"
    assert front.wait() == 0


def test_no_reload_meanwhile(upgradable, engine):
    """The new process has read the old file, or may have."""
    front = upgradable([engine(["m"])], explain={"headers": False})
    front.replace("exec sleep 1000")
    asking = threading.Thread(target=front.ask_upgrade)
    asking.start()
    child, = eventually(lambda: children(front.pid))
    configure(front, "headers = false", "headers = true")
    with http() as client:
        answer = client.post(front.admin_url + "/reload")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "upgrade_running")
    front.signal(signal.SIGHUP)
    eventually(lambda: front.metric("headrace_reloads_total", outcome="refused") == 2)
    os.kill(int(child), signal.SIGKILL)
    asking.join()
    front.signal(signal.SIGHUP)
    eventually(lambda: "x-headrace-instance" in front.chat().headers)


def test_a_reload_that_comes_too_early_is_done_later(upgradable, engine, fake):
    """The successor is asked before it accepts: it waits for an engine that is silent."""
    gate = threading.Event()

    def silent(peer):
        while peer.request():
            gate.wait(60)
    front = upgradable([engine(["m"]), fake(silent)], explain={"headers": False})
    front.signal(signal.SIGUSR2)
    child, = eventually(lambda: children(front.pid))

    def reads_signals():                # by itself: until its exec it has our handlers
        return b"HEADRACE_HANDOVER=" in Path(f"/proc/{child}/environ").read_bytes() and \
            int(status(child, "SigCgt")["SigCgt"], 16) & 1 << signal.SIGHUP - 1
    eventually(reads_signals)
    configure(front, "headers = false", "headers = true")
    os.kill(int(child), signal.SIGHUP)
    front.await_end(front.pid)
    front.pids.append(int(child))
    front.pid = int(child)
    eventually(lambda: "configuration read again, and applied" in front.output())
    assert front.admin("/config").json()["explain"]["headers"] is True
    gate.set()


def test_a_stop_calls_an_upgrade_off(upgradable, fake):
    gate = Gate()
    front = upgradable([fake(gate)])
    stream = begin_stream(front)
    front.replace("exec sleep 1000")
    front.signal(signal.SIGUSR2)
    child, = eventually(lambda: children(front.pid))
    front.process.terminate()
    eventually(lambda: not is_alive(child))
    assert front.process.poll() is None
    gate.opens.set()
    assert b"data: [DONE]" in read_to_end(stream)[0]
    assert front.wait() == 0


def test_who_stops_is_not_replaced(upgradable, fake):
    gate = Gate()
    front = upgradable([fake(gate)])
    stream = begin_stream(front)
    front.process.terminate()
    for event in ("stopping: not ready", "stopping: not accepting"):
        eventually(lambda: event in front.output())
        answer = front.ask_upgrade()
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "stopping")
    assert not children(front.pid)
    gate.opens.set()
    assert b"data: [DONE]" in read_to_end(stream)[0]
    assert front.wait() == 0


def replaced_and_stopped(upgradable, fake):
    """-> a router whose new process was told to stop, and a stream that the old one still has."""
    gate = Gate()
    front = upgradable([fake(gate)])
    stream = begin_stream(front)
    front.upgrade()
    front.signal(signal.SIGTERM)
    return front, gate, stream


def test_who_stops_the_new_one_waits_for_the_old_ones_streams(upgradable, fake):
    front, gate, stream = replaced_and_stopped(upgradable, fake)
    new = front.pid
    eventually(lambda: front.output().count("not accepting, requests at work finish") == 2)
    assert is_alive(new) and is_alive(front.first.pid)
    gate.opens.set()
    assert b"data: [DONE]" in read_to_end(stream)[0]
    front.await_end(front.first.pid)
    eventually(lambda: not is_alive(new))


def test_who_stops_the_new_one_twice_ends_the_old_ones_streams(upgradable, fake):
    front, gate, stream = replaced_and_stopped(upgradable, fake)
    new = front.pid
    eventually(lambda: "not ready, still accepting" in front.output())
    os.kill(new, signal.SIGTERM)
    assert b"the router is being stopped" in read_to_end(stream)[0]
    stream.close()
    front.await_end(front.first.pid)
    eventually(lambda: not is_alive(new))
    gate.opens.set()


def test_the_new_process_is_as_if_started_afresh(upgradable, engine):
    front = upgradable([engine(["m"])])
    fresh = front.pid
    eventually(lambda: front.chat().status_code == 200)
    names = ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd", "Umask")
    before = status(fresh, *names)
    before["SigIgn"] = f"{1 << signal.SIGPIPE - 1:016x}"        # whatever else who started us ignores
    front.upgrade()
    new = front.pid
    eventually(lambda: status(new, *names) == before)     # signals are blocked while threads are made
    front.await_end(fresh)
    words = Path(f"/proc/{new}/environ").read_bytes().split(b"\0")
    assert Path(f"/proc/{new}/cmdline").read_bytes() == b"\0".join(map(os.fsencode, front.arguments)) + b"\0"
    assert os.path.samefile(f"/proc/{new}/cwd", front.folder)
    assert os.readlink(f"/proc/{new}/fd/2") == str(front.stderr)
    # What it inherited is its end of a connection that is gone: nothing else has a number at its start.
    assert sum(word.startswith(b"HEADRACE_HANDOVER=") for word in words) == 1
    n = descriptors(new)
    front.upgrade()
    front.await_end(new)
    assert descriptors(front.pid) == n


def test_descriptors_of_ours_do_not_reach_it(upgradable, engine):
    """Not even those that somebody left open for us."""
    front = upgradable([engine(["m"])], how={"pass_fds": [1, 2, os.open("/etc/hostname", os.O_RDONLY)]})
    assert "/etc/hostname" in [os.readlink(f) for f in Path(f"/proc/{front.pid}/fd").iterdir()]
    old = front.pid
    front.upgrade()
    front.await_end(old)
    assert "/etc/hostname" not in [os.readlink(f) for f in Path(f"/proc/{front.pid}/fd").iterdir()]


def test_the_manager_is_told_whom_to_watch(upgradable, engine, start, tmp_path):
    manager = start(Manager, tmp_path / "notify")
    front = upgradable([engine(["m"])], env=manager.env)
    assert manager.hear() == b"READY=1"
    old = front.pid
    front.upgrade()
    assert manager.hear() == b"MAINPID=%d" % front.pid
    assert manager.hear() == b"READY=1"
    front.await_end(old)
    assert not manager.has_heard()          # the old one says nothing of its end
    front.replace("exit 1")
    assert front.ask_upgrade().status_code == 500
    assert not manager.has_heard()


def test_ctl_asks_for_it(upgradable, engine):
    front = upgradable([engine(["m"])])

    def ctl():
        return subprocess.run([BIN, "ctl", "upgrade", "--admin", front.admin_url], capture_output=True, text=True, timeout=120)
    front.replace("echo no >&2; exit 3")
    done = ctl()
    assert done.returncode == 1 and "exit status 3 before it was ready: no" in done.stderr
    front.replace()
    done = ctl()
    assert done.returncode == 0, done.stderr
    front.pid = int(re.search(r"\b(\d+)\b", done.stdout)[1])
    front.pids.append(front.pid)
    assert front.chat().status_code == 200


def test_a_web_page_may_not_ask_for_it(upgradable, engine):
    front = upgradable([engine(["m"])])
    refused = http().post(front.admin_url + "/upgrade", headers={"origin": "http://evil.example"})
    assert refused.status_code == 401
    assert not children(front.pid)


def test_a_stray_variable_is_an_error(start):
    one = start(Program, "router", "--worker-urls", "http://127.0.0.1:1", env={"HEADRACE_HANDOVER": "0"})
    assert one.wait() == 1
    assert "no sockets from the process before this one" in one.output()
