"""What the scripts promise besides their own work: where builds go, and how an interrupted run ends."""
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from program import BIN, eventually

TOP = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.fixture
def owner():
    """A plain user, for whom permissions count, as arguments for subprocess."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@pytest.fixture
def place(owner):
    """A folder of that user's that he can get to."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-place-", dir="/tmp"))
    if owner:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def choose_build(tree, owner, **env):
    """-> (HEADRACE_BUILD as a script in that tree gets it, what it says)"""
    subprocess.run(["mkdir", "-p", tree], check=True, **owner)
    commands = f'set -euo pipefail\n{(TOP / "script/lib.sh").read_text()}\nchoose_build; echo "$HEADRACE_BUILD"'
    run = subprocess.run(["bash", "-c", commands], cwd=tree, capture_output=True, text=True,
                         env={"PATH": os.environ["PATH"]} | {k: str(v) for k, v in env.items()}, **owner)
    return (run.stdout.strip() if run.returncode == 0 else None), run.stderr


def test_builds_go_into_the_tree(place, owner):
    assert choose_build(place / "tree", owner) == (str(place / "tree/build"), "")


def test_a_tree_with_spaces_in_its_path_is_built_elsewhere(place, owner):
    build, said = choose_build(place / "my tree", owner, HOME=place / "home")
    assert build == f"{place}/home/.cache/headrace" and build in said
    assert not (place / "my tree/build").exists()


@pytest.mark.parametrize("name", ["my build", "a:b", "$a", "a#b", "a&b", "it's"])
def test_what_make_cannot_spell_is_refused_in_one_sentence(place, owner, name):
    build, said = choose_build(place / "tree", owner, HEADRACE_BUILD=place / name)
    assert build is None and said.count("\n") == 1 and "HEADRACE_BUILD" in said and "spaces" in said
    build, said = choose_build(place / "my tree", owner, HOME=place / name)
    assert build is None and "set HEADRACE_BUILD" in said


@pytest.mark.parametrize("what", ["build", "build/tools", "build/release/src/net"])
def test_what_the_user_cannot_write_sends_builds_elsewhere(place, owner, what):
    """As after a run with sudo, which leaves folders of root's."""
    tree = place / "tree"
    subprocess.run(["mkdir", "-p", tree / what], check=True, **owner)
    (tree / what).chmod(0o555)
    build, said = choose_build(tree, owner, XDG_CACHE_HOME=place / "cache")
    assert build == f"{place}/cache/headrace" and build in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file of root's")
def test_a_file_of_roots_sends_builds_elsewhere(place, owner):
    tree = place / "tree"
    subprocess.run(["mkdir", "-p", tree / "build/release/src"], check=True, **owner)
    (tree / "build/release/src/main.o").touch()
    assert choose_build(tree, owner, HOME=place)[0] == f"{place}/.cache/headrace"


def test_a_link_to_a_program_of_roots_is_no_obstacle(place, owner):
    """As in every Python environment."""
    tree = place / "tree"
    subprocess.run(["mkdir", "-p", tree / "build/venv/bin"], check=True, **owner)
    (tree / "build/venv/bin/python").symlink_to("/bin/sh")
    assert choose_build(tree, owner)[0] == f"{tree}/build"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_before_its_check_fails(tmp_path, number):
    """While it waits for another build. The whole group gets the signal, as from a terminal."""
    stub = tmp_path / "bin/dpkg-query"
    stub.parent.mkdir()
    stub.write_text("#!/bin/sh\necho installed\n")
    stub.chmod(0o755)
    env = os.environ | {"HEADRACE_BUILD": str(tmp_path), "PATH": f"{stub.parent}:{os.environ['PATH']}"}
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        demo = subprocess.Popen([TOP / "script/demo", "--once"], env=env, stdin=subprocess.DEVNULL,
                                start_new_session=True,        # of a group in the background SIGINT is ignored
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

        def waits():
            children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
            try:
                return any(Path(f"/proc/{child}/comm").read_text() == "flock\n" for child in children)
            except (FileNotFoundError, ProcessLookupError):
                return False        # another child, gone before it was opened or read
        try:
            eventually(waits)
            os.killpg(demo.pid, number)
            assert demo.wait(60) == 128 + number
        finally:
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGKILL)
                demo.wait()


def install(folder):
    variant = Path(BIN).resolve().parent
    subprocess.run(["make", "-C", TOP, "-s", "install", f"DESTDIR={folder}", "PREFIX=/usr", f"BUILD={variant.parent}",
                    f"VARIANT={variant.name}"], check=True, timeout=240)


def test_what_is_installed(tmp_path):
    """What has one of the names already stays."""
    folder = tmp_path / "usr/bin"
    folder.mkdir(parents=True)
    (folder / "infini-router").write_text("theirs")
    for _ in range(2):
        install(tmp_path)
        assert (folder / "infini-router").read_text() == "theirs"
    for name in "vllm-router", "infini-registry", "infini-babysitter":
        assert (folder / name).resolve() == folder / "headrace"
    assert (tmp_path / "usr/share/man/man1/headrace-router.1").is_file()
    done = subprocess.run([folder / "vllm-router", "--check", "--mini-lb"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("--mini-lb: ")
