"""What the programs may do, and what they do without: units, capabilities, the binary."""
import os
import pwd
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import program
from certs import Authority
from ports import free_port
from program import eventually, http

UNITS = Path(__file__).resolve().parents[2] / "packaging/systemd"
# By systemd's own measure. The engine runs below the babysitter's unit: devices, compilers and shared memory are open to it.
EXPOSURE = {"headrace-router.service": 2.0, "headrace-registry.service": 2.0, "headrace-babysitter@.service": 5.0}
EVERYWHERE = """Type=notify KillMode=mixed Restart=always DynamicUser=yes UMask=0077 NoNewPrivileges=yes CapabilityBoundingSet=
    AmbientCapabilities= ProtectSystem=strict PrivateTmp=yes PrivateMounts=yes ProtectClock=yes ProtectHostname=yes ProtectKernelLogs=yes
    ProtectKernelModules=yes ProtectKernelTunables=yes RestrictSUIDSGID=yes LockPersonality=yes SystemCallArchitectures=native""".split()
ALONE = """PrivateDevices=yes PrivateUsers=yes ProtectHome=yes ProtectControlGroups=yes ProtectProc=invisible ProcSubset=pid
    RestrictNamespaces=yes RestrictRealtime=yes MemoryDenyWriteExecute=yes SystemCallFilter=@system-service LimitCORE=0
    LimitNOFILE=1048576""".split()


@pytest.mark.parametrize("name", EXPOSURE)
def test_units_are_hardened(name):
    lines = (UNITS / name).read_text().splitlines()
    wanted = EVERYWHERE + (ALONE if EXPOSURE[name] <= 2 else [])
    assert set(wanted) <= set(lines)
    assert any(re.fullmatch(r"WatchdogSec=\d+s", line) for line in lines)
    if name == "headrace-router.service":
        assert "NotifyAccess=all" in lines          # a process that gave MAINPID away takes it back
    assert ("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6" in lines) == (EXPOSURE[name] <= 2)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("name", EXPOSURE)
def test_units_are_little_exposed(name):
    run = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", UNITS / name], capture_output=True, text=True, timeout=60)
    assert float(re.search(r"Overall exposure level for .*: ([\d.]+) ", run.stdout)[1]) <= EXPOSURE[name]


def powerless():
    """The command that takes all privileges away before it runs another; as nobody where we may choose."""
    who = pwd.getpwnam("nobody")
    if os.geteuid():
        return ["setpriv", "--no-new-privs", "--inh-caps=-all"]
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
            "--no-new-privs"]


@pytest.mark.parametrize("command", ["router", "registry"])
def test_no_capability_is_needed(engine, command, tmp_path):
    """The binary comes as a descriptor: nobody need not be able to reach where it lies."""
    port, admin = free_port(), free_port()
    flags = {"router": ["--worker-urls", engine(["m"]).url, "--admin-port", admin], "registry": ["--store", "memory"]}[command]
    with open(program.BIN, "rb") as binary, (tmp_path / "output").open("wb") as output:
        called = [*powerless(), f"/proc/self/fd/{binary.fileno()}", command, "--host", "127.0.0.1", "--port", port, *flags]
        child = subprocess.Popen(list(map(str, called)), cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                 pass_fds=[binary.fileno()])
    try:
        def answers():
            assert child.poll() is None, (tmp_path / "output").read_text()
            try:
                with http() as client:
                    return client.get(f"http://127.0.0.1:{port}" + {"router": "/readiness", "registry": "/health"}[command]).status_code == 200
            except program.httpx.TransportError:
                return False
        eventually(answers)
        status = dict(re.findall(r"(\w+):\s+(\S+)", Path(f"/proc/{child.pid}/status").read_text()))
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0 and status["NoNewPrivs"] == "1"
        assert os.geteuid() or (int(status["CapBnd"], 16) == 0 and status["Uid"] == str(pwd.getpwnam("nobody").pw_uid))
    finally:
        child.terminate()
        assert child.wait(60) == 0


def calls_of(group):
    """The system calls that a group of systemd's has."""
    run = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", group], capture_output=True, text=True, check=True, timeout=60)
    words = [word for word in run.stdout.split("\n")[1:] if word.strip() and not word.strip().startswith("#")]
    return {call for word in words for call in (calls_of(word.strip()) if "@" in word else {word.strip()})}


@pytest.mark.skipif(not (shutil.which("systemd-analyze") and shutil.which("strace")), reason="needs systemd-analyze and strace")
def test_the_filter_of_system_calls_lets_a_router_work(engine, router, tmp_path, monkeypatch):
    """With TLS on both sides, names to look up, and certificates that are read again; a new program may be executed."""
    text = (UNITS / "headrace-router.service").read_text()
    allowed, denied = ({call for group in re.search(rf"^SystemCallFilter={sign}(@.*)$", text, re.M)[1].split() for call in calls_of(group)}
                       for sign in ("", "~"))
    authority, trace, wrapper = Authority(), tmp_path / "trace", tmp_path / "traced"
    certificate = authority.issue("DNS:localhost", "IP:127.0.0.1")
    worker = engine(["m"], "--ssl-certfile", certificate)
    wrapper.write_text(f'#!/bin/sh\nexec strace -D -f -q -o {trace} {Path(program.BIN).resolve()} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr(program, "BIN", str(wrapper))
    front = router([f"https://localhost:{worker.port}"], "--engine-ca", authority.ca, tls={"certificates": [certificate]})
    if not trace.exists() or not trace.stat().st_size:
        pytest.skip("tracing is not allowed here")
    assert front.chat(body={"stream": True}).status_code == 200
    front.process.send_signal(signal.SIGHUP)
    eventually(lambda: "configuration read again" in front.output())
    assert front.chat().status_code == 200
    front.stop()

    def called():
        return set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.M))
    eventually(lambda: "exit_group" in called())
    assert {"clone3", "sendmsg", "accept4", "prlimit64", "execve"} <= called()
    assert called() <= allowed - denied, called() - (allowed - denied)


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf")
def test_the_binary_is_hardened():
    def readelf(what):
        return subprocess.run(["readelf", "-W", what, program.BIN], capture_output=True, text=True, check=True).stdout
    assert "Type:                              DYN" in readelf("-h")
    segments = readelf("-l")
    assert "GNU_RELRO" in segments and re.search(r"GNU_STACK\s.* RW\s", segments)
    assert not re.search(r"LOAD\s.* RWE\s", segments)
    assert re.search(r"FLAGS_1.*NOW.*PIE", readelf("-d"))
    assert "__stack_chk_fail" in readelf("--dyn-syms")
