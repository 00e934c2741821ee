"""What the registry acknowledged is there after it was killed; a full disk refuses changes and nothing else."""
import os
import subprocess
import threading

import httpx
import pytest

from program import Program, eventually, http
from registryprogram import Registry, raw, service


@pytest.fixture
def registry(start, tmp_path):
    return lambda *flags, **how: start(Registry, "--health-interval", "off", *flags,
                                       **{"state_dir": tmp_path / "state"} | how)


def test_changes_survive_a_kill_at_once(registry):
    one, expected = registry(), {}
    for n in range(20):
        name = f"s{n % 7}"
        if n % 3 == 2 and name in expected:
            assert one.ask("DELETE", f"/services/{name}").status_code == 200
            del expected[name]
        elif n % 3 == 1 and name in expected:
            assert one.ask("PUT", f"/services/{name}", json={"port": n}).status_code == 200
            expected[name]["port"] = n
        else:
            more = {"port": 1000 + n, "metadata": {"n": n}, "labels": {"zone": str(n)}, "weight": n + 1, "ttl": 300}
            expected[name] = one.register(name, **more).json()["service"]
        one.restart()
        found = {s["name"]: s for s in one.get("/services").json()["services"]}
        assert set(found) == set(expected)
        for name, record in expected.items():
            same = {k: v for k, v in record.items() if k not in ("last_heartbeat", "health_status")}
            assert {k: found[name][k] for k in same} == same
            assert found[name]["is_healthy"] and found[name]["health_status"] == "unknown"


def test_a_thousand_registrations_and_kills_in_between(registry):
    """Clients register without a pause; every name that was acknowledged is there, whenever the registry dies."""
    one, acknowledged, todo, lock = registry(), set(), [f"s{i}" for i in range(1000)], threading.Lock()
    retry = []

    def client():
        while True:
            with lock:
                if not todo:
                    return
                name = todo.pop()
            try:
                with http() as c:
                    while name:
                        if c.post(one.url + "/services", json=service(name)).status_code == 201:
                            with lock:
                                acknowledged.add(name)
                        else:
                            retry.append(name)
                        with lock:
                            name = todo.pop() if todo else None
            except httpx.TransportError:
                with lock:
                    todo.append(name)       # not acknowledged: again
    clients = [threading.Thread(target=client) for _ in range(8)]
    for c in clients:
        c.start()
    for killed_at in (50, 200, 400, 600, 800):
        eventually(lambda: len(acknowledged) >= killed_at)
        one.kill()
        before = set(acknowledged)
        one.__init__(*one.flags, port=one.port, state_dir=one.state_dir)
        assert before <= set(one.names())
    for c in clients:
        c.join()
    one.restart()
    assert set(one.names()) == acknowledged == {f"s{i}" for i in range(1000)} and not retry


def test_an_orderly_end_keeps_everything(registry):
    one = registry()
    assert set(one.pipeline([raw("POST", "/services", service(f"s{i}")) for i in range(200)])) == {201}
    one.process.terminate()
    assert one.wait() == 0
    one.restart()
    assert len(one.names()) == 200


def test_the_default_of_the_lease_is_that_of_this_start(registry):
    one = registry("--ttl", "1h")
    one.register("a")
    one.register("b", ttl=3600)
    one.flags = (*one.flags, "--ttl", "1s")
    one.restart()
    eventually(lambda: one.names("?healthy=true") == ["b"])


def test_ten_thousand_records(registry, tmp_path):
    one, names = registry(), [f"service-{i}" for i in range(10000)]
    metadata = {"type": "openai-api", "models": ["m1", "m2"]}
    codes = one.pipeline([raw("POST", "/services", service(n, metadata=metadata)) for n in names], 64)
    assert codes == [201] * len(names)
    assert set(one.pipeline([raw("POST", f"/services/{n}/heartbeat") for n in names], 8)) == {200}
    body = one.get("/services?healthy=true").json()
    assert body["total"] == 10000 and sorted(s["name"] for s in body["services"]) == sorted(names)
    watch = one.watch()
    assert len(watch.next()["services"]) == 10000
    one.register("one-more")
    assert [c["name"] for c in watch.next()["changes"]] == ["one-more"]
    watch.close()
    assert one.rss_bytes() < 200 << 20
    one.restart()
    assert one.get("/health").json()["healthy_services"] == 10001


def test_a_damaged_file_stops_the_start(registry, tmp_path):
    one = registry()
    one.register("a")
    one.stop()
    (tmp_path / "state/registry.db").write_bytes(b"this is no database" * 1000)
    other = Program("registry", "--port", one.port, "--state-dir", tmp_path / "state")
    assert other.wait() == 1 and "registry.db" in other.output()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder, mode):
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_start_on_a_read_only_disk_refuses_changes_and_nothing_else(registry, small_disk, ending):
    """After an orderly end there is no log, after a kill all that is new stands in it."""
    one = registry(state_dir=small_disk / "state")
    one.register("a")
    one.register("b", status="draining")
    getattr(one, ending)()
    assert (small_disk / "state/registry.db-wal").exists() == (ending == "kill")
    remount(small_disk, "ro")
    one.restart()
    assert one.names() == ["a", "b"] and one.record()["is_healthy"]
    assert "read-only" in one.output() and one.metric("headrace_registry_store_failing") == 1
    refused = one.register("c")
    assert refused.status_code == 503 and refused.json()["code"] == "overloaded"
    assert one.ask("PUT", "/services/a", json={"port": 7}).status_code == 503
    assert one.ask("DELETE", "/services/a").status_code == 503
    assert one.post("/services/a/heartbeat").status_code == 200
    assert one.names() == ["a", "b"] and one.record()["port"] == 9
    version = one.version()
    remount(small_disk, "rw")
    assert one.register("c").status_code == 201 and one.metric("headrace_registry_store_failing") == 0
    assert one.ask("DELETE", "/services/b").status_code == 200
    assert [c["name"] for c in one.poll(version)["changes"]] == ["c", "b"]
    one.restart()
    assert one.names() == ["a", "c"]


def test_a_full_disk_refuses_changes_and_nothing_else(registry, small_disk):
    one = registry(state_dir=small_disk / "state")
    assert one.register("a").status_code == 201
    with (small_disk / "filler").open("wb", buffering=0) as f:
        with pytest.raises(OSError):
            while True:
                f.write(b"x" * 4096)
    n = 0

    def is_full():
        nonlocal n
        n += 1
        return one.register(f"b{n}", metadata={"pad": "x" * 5000}).status_code == 503
    eventually(is_full)
    refused = one.register("refused", metadata={"pad": "x" * 5000})
    assert refused.json()["code"] == "overloaded" and int(refused.headers["retry-after"]) > 0
    assert one.get("/services/refused").status_code == 404 and one.record()["is_healthy"]
    assert one.post("/services/a/heartbeat").status_code == 200
    assert one.get("/health").json()["registered_services"] == n
    assert one.metric("headrace_registry_store_failing") == 1
    version = one.version()
    (small_disk / "filler").unlink()
    assert one.register("c").status_code == 201 and one.metric("headrace_registry_store_failing") == 0
    assert [c["name"] for c in one.poll(version)["changes"]] == ["c"]
    one.restart()
    assert set(one.names()) == {"a", "c"} | {f"b{i}" for i in range(1, n)}
