"""docs/api.md and docs/policies.md against the tables of the sources, the systemd units against systemd."""
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
API = (TOP / "docs/api.md").read_text()
UNITS = TOP / "packaging/systemd"


def rows(source, pattern):
    found = re.findall(pattern, (TOP / "src" / source).read_text())
    assert found, source
    return found


def part(title):
    """From one heading of the second level to the next."""
    return re.search(rf"^## {title}$(.*?)(?=^## |\Z)", API, re.M | re.S)[1]


def endpoints():
    own = r'\{\s*(?:\.method = )?METHOD_([A-Z]+), (?:\.path = )?"([^"]+)"'
    for title, source in (("Registry", "registry/registry_routes.c"),
                          ("Babysitter", "babysitter/babysitter_routes.c"),
                          ("Router: admin port", "router/report.c")):
        for method, path in rows(source, own):
            yield title, method, path.replace("*}", "}")
    for method, path, takes_rest in rows("router/fleet_routes.c", r'\{ METHOD_([A-Z]+), \{ "([^"]+)", \d+ \}, (true|false)'):
        yield "Router: data port", method, path + ("{worker}" if takes_rest == "true" else "")
    for path, is_post in rows("router/local.c", r'\{ \{ "([^"]+)", \d+ \}, local_\w+, (true|false) \}'):
        yield "Router: data port", "POST" if is_post == "true" else "GET", path
    for method, path in rows("engine/mock_routes.c", r'\{ "([A-Z]+)", "([^"]+)", \w+, OF_\w+ \}'):
        yield "Mock engine", method, path


@pytest.mark.parametrize("title, method, path", sorted(set(endpoints())))
def test_every_endpoint_is_described(title, method, path):
    lines = [line for line in part(title).splitlines() if line.startswith(("###", "|"))]
    named = [line for line in lines if re.search(rf"(^|[ `]){re.escape(path)}($|[ `,?])", line)]
    assert named, "no heading and no row names it"
    if title != "Router: admin port" or method != "GET":       # where nearly all is GET
        assert any(re.search(rf"\b{method}\b", line) for line in named)


def test_every_policy_is_described():
    text = (TOP / "docs/policies.md").read_text()
    names = re.findall(r'"(\w+)"', re.search(r"policy_config_names\[\] = \{(.*?)\}",
                                             (TOP / "src/router/policy_config.c").read_text(), re.S)[1])
    headings = re.findall(r"\w+", " ".join(re.findall(r"(?m)^### (.*)$", text)))
    assert len(names) > 10 and set(names) == set(headings)


def words_of(source, table):
    return re.findall(r'= "(\w+)"', re.search(rf"{re.escape(table)} = \{{(.*?)\}};", (TOP / "src" / source).read_text(), re.S)[1])


@pytest.mark.parametrize("source, table, heading", [
    ("policy/policy.c", "text[PICK_REASONS]", "| reason | of |"),
    ("policy/policy.c", "text[PICK_RINGS]", "| reason | of |"),
    ("policy/filter.c", "words[FILTER_CODES]", "| code of a rejection |")])
def test_every_reason_and_code_is_described(source, table, heading):
    described = re.search(rf"(?m)^{re.escape(heading)}.*\n((?:\|.*\n)+)", API)[1]
    firsts = [line.split("|")[1] for line in described.splitlines()]
    words = [word for word in words_of(source, table) if word != "eligible"]
    assert len(words) >= 3
    for word in words:
        assert sum(f"`{word}`" in first for first in firsts) == 1, word


@pytest.mark.parametrize("page", ["docs/api.md", "docs/policies.md", "docs/deploy.md"])
def test_metrics_that_are_described_are_there(page):
    sources = "".join(p.read_text() for p in (TOP / "src").rglob("*.c")) + (TOP / "src/base/metric.tbl").read_text()
    for name in set(re.findall(r"headrace_\w+_\w+", (TOP / page).read_text())):
        assert f'"{name}"' in sources, name


# 499 is for logs: nobody is left to read it.
@pytest.mark.parametrize("status, code", sorted(set(
    row for row in rows("base/cause.tbl", r'(?m)^CAUSE\(\w+, (\d+), "(\w+)"') if row[0] != "499")))
def test_every_refusal_is_described(status, code):
    assert any(status in line.split("|")[1] and f"`{code}`" in line
               for line in API.splitlines() if line.startswith("|"))


@pytest.mark.parametrize("source", ["registry/registry_routes.c", "registry/registry_change.c", "registry/watchers.c",
                                    "babysitter/babysitter_routes.c", "http/endpoint.c"])
def test_every_code_of_an_error_is_described(source):
    text = (TOP / "src" / source).read_text()
    for status, code in re.findall(r'(\d{3}), "([a-z_]+)"', text):
        assert f"{status}" in API and f"`{code}`" in API, f"{status} {code}"


def verify(folder, tmp_path):
    """What systemd says of the units, in a root of its own that has the program and systemd's own units."""
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    program = tmp_path / "usr/local/bin/headrace"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = tmp_path / "etc/systemd/system"
    shutil.copytree(folder, units)
    names = [u.name.replace("@.", "@gpu0.") for u in units.glob("*.service")]
    assert len(names) == 3
    run = subprocess.run(["systemd-analyze", "verify", f"--root={tmp_path}", *names], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    return run.returncode, run.stdout


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


@needs_systemd
def test_units_are_clean(tmp_path):
    assert verify(UNITS, tmp_path) == (0, "")


@needs_systemd
def test_a_unit_with_a_mistake_is_not_clean(tmp_path):
    """Unknown keys are no error to systemd, only words."""
    shutil.copytree(UNITS, tmp_path / "units")
    unit = tmp_path / "units/headrace-router.service"
    unit.write_text(unit.read_text().replace("PrivateTmp", "PrivatTmp"))
    assert "PrivatTmp" in verify(tmp_path / "units", tmp_path / "root")[1]
