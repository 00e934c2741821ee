"""headrace sim: what it reads, what it prints, and that it says the same twice."""
import json
import os
import re
import subprocess
import xml.etree.ElementTree as xml

import pytest

from program import BIN

SMALL = ("--trace", "gen:agents,n=300,rate=20", "--engines", "3")
ROW = {"timestamp": 0, "input_length": 1000, "output_length": 10, "hash_ids": [1, 2]}
MEMBERS = ["policy", "hit_pct", "ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s", "imbalance"]


def sim(*arguments, **how):
    return subprocess.run([BIN, "sim", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          env=os.environ | how.pop("env", {}), **how)


def good(*arguments, **how):
    done = sim(*arguments, **how)
    assert done.returncode == 0 and done.stderr == "", done
    return done.stdout


@pytest.fixture
def trace(tmp_path):
    def write(*rows):
        path = tmp_path / "trace.txt"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path
    return write


@pytest.mark.parametrize("flags, word", [
    ([], "sim.trace"),
    (["--trace", "gen:nothing"], "gen:shared_prefix"),
    (["--trace", "gen:agents,n=0"], "n: expected"),
    ([*SMALL, "--policy", "round_robin,none_such"], "none_such"),
    ([*SMALL, "--policy", ""], "policy"),
    ([*SMALL, "--engines", "0"], "engines"),
    ([*SMALL, "--engines", "1025"], "engines"),
    ([*SMALL, "--engines", "1024", "--routers", "5"], "routers"),
    ([*SMALL, "--speed", "0"], "speed"),
    ([*SMALL, "--speed", "fast"], "speed"),
    ([*SMALL, "--model", "real"], "model"),
    ([*SMALL, "--prefill-rate", "0"], "prefill-rate"),
    ([*SMALL, "--block-tokens", "0"], "block-tokens"),
    ([*SMALL, "--json", "-", "--svg", "-"], "svg"),
    ([*SMALL, "--no-such-flag"], "no-such-flag"),
])
def test_bad_flags(flags, word):
    done = sim(*flags)
    assert done.returncode == 2 and word in done.stderr and done.stdout == "", done
    assert len(done.stderr.splitlines()) == 1, done


@pytest.mark.parametrize("rows, where", [
    ([], ":1: no requests"),
    ([ROW, '{"timestamp": 1, "inp'], ":2: broken JSON"),
    ([ROW, ROW | {"input_length": -5}], ":2: input_length"),
    ([ROW, ROW | {"output_length": -5}], ":2: output_length"),
    ([ROW, "", ROW | {"hash_ids": "1"}], ":3: hash_ids"),
    (["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:15:46.68,-1,5"], ":2: expected token counts"),
    (["what is this"], ":1: expected JSON lines"),
])
def test_bad_traces(trace, rows, where):
    path = trace(*rows)
    done = sim("--trace", path)
    assert done.returncode == 1 and done.stderr.startswith(f"headrace sim: {path}{where}") and done.stdout == "", done


def test_a_trace_that_is_not_there(tmp_path):
    done = sim("--trace", tmp_path / "none")
    assert done.returncode == 1 and "No such file" in done.stderr and done.stdout == ""


def test_an_output_that_cannot_be_written(tmp_path):
    for flag in ("--json", "--svg"):
        done = sim(*SMALL, flag, tmp_path / "none" / "file")
        assert done.returncode == 1 and "No such file" in done.stderr and done.stdout == ""
        done = sim(*SMALL, flag, "/dev/full")
        assert done.returncode == 1 and "No space left" in done.stderr


def test_every_format_makes_the_same_run(trace):
    times = [0, 1000, 2500, 2600]
    formats = {
        "mooncake": [ROW | {"timestamp": t, "hash_ids": []} for t in times],
        "decisions": [{"ts_ns": t * 1_000_000, "prompt_tokens": 1000, "output_tokens": 10, "id": "x"} for t in times],
        "azure": ["TIMESTAMP,ContextTokens,GeneratedTokens",
                  *(f"2023-11-16 23:59:{57 + t / 1000:010.7f},1000,10" for t in times)],
    }
    said = {name: good("--trace", trace(*rows), "--model", "simple") for name, rows in formats.items()}
    assert len(set(said.values())) == 1, said


def test_the_simple_model_by_hand(trace):
    """One engine, a token a ms: a miss, a hit behind it, a hit after a pause."""
    path = trace(ROW, ROW | {"timestamp": 100}, ROW | {"timestamp": 5000, "hash_ids": [1, 3]})
    said = json.loads(good("--trace", path, "--model", "simple", "--engines", 1, "--prefill-rate", 1000,
                           "--policy", "round_robin", "--json", "-"))
    assert said == [{"policy": "round_robin", "hit_pct": 50, "ttft_mean_s": pytest.approx((1 + 0.901 + 0.488) / 3),
                     "ttft_p50_s": 0.901, "ttft_p90_s": 1, "ttft_p99_s": 1, "imbalance": 1}]


def test_json_is_a_list_of_these_members():
    said = json.loads(good(*SMALL, "--policy", "vllm,random", "--json", "-"))
    assert [row["policy"] for row in said] == ["vllm", "random"]
    for row in said:
        assert list(row) == MEMBERS
        assert 0 <= row["hit_pct"] <= 100 and row["imbalance"] >= 1
        assert 0 < row["ttft_p50_s"] <= row["ttft_p90_s"] <= row["ttft_p99_s"]


def test_json_to_a_file_beside_the_table(tmp_path):
    table = good(*SMALL, "--policy", "vllm,random", "--json", tmp_path / "out.json")
    assert [line.split()[0] for line in table.splitlines()] == ["policy", "vllm", "random"]
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(
        good(*SMALL, "--policy", "vllm,random", "--json", "-"))


def test_curves_are_well_formed(trace, tmp_path):
    good("--trace", trace(*(ROW | {"timestamp": t} for t in range(100))), "--policy", "vllm,random", "--svg", tmp_path / "out.svg")
    root = xml.parse(tmp_path / "out.svg").getroot()
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"vllm", "random", "time to first token", "trace.txt: 100 requests, 8 engines, speed 1"} <= set(texts)
    curves = [e for e in root.iter("{http://www.w3.org/2000/svg}path") if e.get("fill") == "none"]
    assert len(curves) == 2
    for curve in curves:
        points = [tuple(map(float, p.split())) for p in re.split("[ML]", curve.get("d")) if p]
        assert points == sorted(points, key=lambda p: (p[0], -p[1])), "time and share only grow"


@pytest.mark.parametrize("model", ["simple", "mock"])
def test_the_same_bytes_twice_and_others_by_seed(model, tmp_path):
    def run(seed, name, *flags):
        table = good(*SMALL, "--model", model, "--policy", "random,round_robin,least_load,vllm", "--routers", 2, "--seed", seed,
                     "--svg", tmp_path / name, *flags)
        return table, (tmp_path / name).read_bytes()
    assert run(1, "a") == run(1, "b")
    assert run(1, "a") != run(2, "b")


def test_a_policy_scores_the_same_whatever_it_is_compared_with():
    def row(*policies):
        said = json.loads(good(*SMALL, "--routers", 2, "--policy", ",".join(policies), "--json", "-"))
        return [r for r in said if r["policy"] == "cache_aware"]
    alone = row("cache_aware")
    assert row("random", "cache_aware", "vllm", "cache_aware") == 2 * alone


def test_a_seed_is_for_the_choices_as_well(trace):
    path = trace(*(ROW | {"timestamp": t * 50} for t in range(200)))
    first, second, other = (good("--trace", path, "--policy", "random,round_robin", "--engines", 8, "--seed", seed).splitlines()
                            for seed in (1, 1, 2))
    assert first == second and first[1] != other[1]


@pytest.mark.parametrize("generator", ["gen:shared_prefix,groups=3", "gen:multi_turn", "gen:agents"])
def test_generators_have_prefixes_to_find(generator):
    """With one engine and room for all, what was said before is found; a policy that spreads finds less."""
    flags = ("--trace", f"{generator},n=400,rate=2", "--cache-blocks", 100000, "--policy", "round_robin", "--json", "-")
    alone, spread = (json.loads(good(*flags, "--engines", n))[0]["hit_pct"] for n in (1, 16))
    assert alone > 30 and spread < alone


def test_cpu_is_only_shown_when_asked_for():
    assert "cpu" not in good(*SMALL) and "cpu ns" in good(*SMALL, "--cpu")


def test_speed_is_load(trace):
    path = trace(*(ROW | {"timestamp": t * 500, "hash_ids": [t]} for t in range(100)))
    slow, fast = (json.loads(good("--trace", path, "--engines", 1, "--prefill-rate", 4000, "--speed", speed,
                                  "--policy", "round_robin", "--json", "-"))[0] for speed in ("0.5", "4"))
    assert slow["ttft_p99_s"] == 0.25 and fast["ttft_p99_s"] > 5
