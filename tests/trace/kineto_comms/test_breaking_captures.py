"""Captures of made-up jobs, damaged at random: a run, or one clear refusal; never a traceback, a deadlock, or parts that do not
add up. And whole ones: what holds of every replay of a capture, from the run through the saved folder to explain and what-if.

The seeds stand for many more (`test_damaged_captures_end_in_a_run_or_a_refusal` was run over 1,200 when it was written).
"""

from __future__ import annotations

import json
import random

import pytest
from kineto_jobs import moe_job

from distsim import simulate
from distsim.cli.main import main
from distsim.report.reopen import reopen

NASTY = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e300, float("nan"), float("inf"), "", "x", "7", "\ud800",
    "é\u202e", "</script>", [], [0, 0], [1, [2]], {}, {"a": 1}, "[0, 1, ..., 99999999]", "[" + "9" * 5000 + "]",
)  # fmt: skip
EVERYWHERE = ("ts", "dur", "tid", "cat", "Process Group Ranks", "Seq", "Group size", "dtype")


def damaged(files, rng):
    """The files with some of their values, keys, events or bytes spoiled."""
    spoiled = []
    for data in files:
        document = json.loads(data)
        events = document["traceEvents"]
        for _ in range(rng.choice((0, 1, 3, 30))):
            place = rng.choice(events) if events else {}
            if rng.random() < 0.5 and isinstance(place.get("args"), dict):
                place = place["args"]
            if not place:
                continue
            key = rng.choice(sorted(place))
            if rng.random() < 0.2:
                del place[key]
            else:
                place[key] = rng.choice(NASTY)
        key, value = rng.choice(EVERYWHERE), rng.choice(NASTY)
        if rng.random() < 0.15:  # the same value everywhere
            for event in events:
                for place in (event, event.get("args")):
                    if isinstance(place, dict) and key in place:
                        place[key] = value
        if rng.random() < 0.3:
            rng.shuffle(events)
        if rng.random() < 0.3:
            place = rng.choice((document, document["distributedInfo"]))
            place[rng.choice(sorted(place))] = rng.choice(NASTY)
        text = json.dumps(document).encode("utf-8", "surrogatepass")
        if rng.random() < 0.15:
            text = text[: rng.randrange(len(text))]
        spoiled.append(text)
    return spoiled


def refused_or_run(capsys, *arguments):
    """The document that a command prints; None where it refuses, in one message."""
    code = main([str(one) for one in arguments])
    said = capsys.readouterr()
    assert code in (0, 1, 2)
    assert (code == 0) == (said.out != ""), said.err
    if code:
        assert said.err.startswith("distsim: ")
        return None
    return json.loads(said.out, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


@pytest.mark.parametrize("seed", range(24))
def test_damaged_captures_end_in_a_run_or_a_refusal(seed, tmp_path, capsys):
    rng = random.Random(seed)
    job = moe_job(seed, 1, rng.choice((2, 4)), steps=rng.choice((1, 2)), layers=1, style=rng.choice(("new", "old", "bare")))
    capture = tmp_path / "capture"
    capture.mkdir()
    for rank, data in enumerate(damaged(job.files[: rng.randint(1, 4)], rng)):
        (capture / f"rank{rank}.json").write_bytes(data)
    assert main(["trace", str(capture), "--json"]) in (0, 1)  # 1: refused, or defects that forbid a replay
    capsys.readouterr()
    refused_or_run(capsys, "run", capture, "--communication", "simulated", "--json", "--network", "analytic")
    made = refused_or_run(capsys, "run", capture, "--json", "-o", tmp_path / "out")
    assert (made is not None) == (tmp_path / "out").exists()
    if made is None:
        return
    assert reopen(tmp_path / "out").makespan == made["makespan_ps"]
    told = refused_or_run(capsys, "explain", tmp_path / "out", "--json")
    assert all(sum(one["parts_ps"].values()) == told["makespan_ps"] for one in told["per_rank"])


@pytest.mark.parametrize("seed", range(6))
def test_files_of_different_runs_are_replayed_without_a_deadlock(seed, tmp_path, capsys):
    """Their collectives do not fit: what has no counterpart, or ended before the others came, keeps its recorded time."""
    one, two = moe_job(seed, 2, 2), moe_job(seed + 100, 2, 2, steps=3, layers=1)
    for rank in range(4):
        (tmp_path / f"rank{rank}.json").write_bytes((one, two)[rank // 2].files[rank])
    made = refused_or_run(capsys, "run", tmp_path, "--json")
    assert made is not None
    assert made["warnings"]


@pytest.mark.parametrize(("seed", "hosts", "per_host"), [(1, 2, 4), (2, 8, 2), (3, 8, 8)])
def test_law_a_capture_is_the_same_from_the_run_to_what_is_found_in_its_folder(seed, hosts, per_host, tmp_path, capsys):
    """Clocks of hosts differ by milliseconds; 64 ranks the largest. Nothing changed is nothing changed, however it is said."""
    job = moe_job(seed, hosts, per_host, steps=1, layers=1, jitter_us=2)
    capture = tmp_path / "capture"
    capture.mkdir()
    for rank, data in enumerate(job.files):
        (capture / f"kineto_{rank}.json").write_bytes(data)
    out = tmp_path / "out"
    made = refused_or_run(capsys, "run", capture, "--json", "-o", out)
    assert simulate(str(capture), speeds="gpu.compute=1x", scale_compute="1x").makespan == made["makespan_ps"]
    again = reopen(out)
    assert (again.makespan, again.ranks) == (made["makespan_ps"], hosts * per_host)
    told = refused_or_run(capsys, "explain", out, "--json")
    assert told["makespan_ps"] == made["makespan_ps"]
    assert all(sum(one["parts_ps"].values()) == told["makespan_ps"] for one in told["per_rank"])
    for knob in ("gpu.compute=1x", "host.speed=1x", "rank.0.compute=1x"):
        found = refused_or_run(capsys, "whatif", out, "--set", knob, "--json", "--no-simulate")
        assert found["estimate_ps"] == found["before_ps"] == made["makespan_ps"]


def test_ranks_that_a_recorded_replay_has_not_are_refused(tmp_path, capsys):
    (tmp_path / "rank0.json").write_bytes(moe_job(2, 1, 4, pipeline=False).files[0])
    for options in ("--ranks 8", "--ranks 1000000000 --communication simulated", "--network loggops",
                    "--network coflow --communication recorded", "--profile astra --topo ring"):  # fmt: skip
        assert refused_or_run(capsys, "run", tmp_path, *options.split(), "--json") is None
    assert refused_or_run(capsys, "run", tmp_path, "--ranks", "8", "--communication", "simulated", "--json")["ranks"] == 8


def test_a_replay_of_recorded_times_has_no_network_to_change(tmp_path, capsys):
    for rank, data in enumerate(moe_job(4, 1, 2, steps=1, layers=1).files):
        (tmp_path / f"rank{rank}.json").write_bytes(data)
    out = tmp_path / "out"
    assert refused_or_run(capsys, "run", tmp_path, "--json", "-o", out)
    for knob in ("network=fluid", "topo=ring", "collective.algorithm=ring", "link.*.bandwidth=2x", "routing=ecmp"):
        for simulated in ([], ["--no-simulate"]):
            assert refused_or_run(capsys, "whatif", out, "--set", knob, "--json", *simulated) is None
    simulated = ("--set", "communication=simulated")
    assert refused_or_run(capsys, "whatif", out, "--set", "topo=ring", *simulated, "--json")["simulated_ps"] > 0
    knobs = {one["knob"] for one in refused_or_run(capsys, "whatif", out, "--knobs", "--json")["knobs"]}
    assert {"gpu.compute", "communication"} <= knobs
    assert not {"network", "topo", "routing"} & knobs


@pytest.mark.parametrize("text", ["\\ud800", "</script><script>alert(1)</script>", "\\u202e\\u0000"])
def test_names_of_kernels_are_kept_and_shown_as_text(text, tmp_path, capsys):
    data = moe_job(4, 1, 2, steps=1, layers=1, pipeline=False).files[0].replace(b"ampere_bf16_gemm", text.encode())
    (tmp_path / "rank0.json").write_bytes(data)
    assert refused_or_run(capsys, "run", tmp_path, "--json", "-o", tmp_path / "out")
    assert main(["report", str(tmp_path / "out"), "-o", str(tmp_path / "page.html")]) == 0
    assert "<script>alert" not in (tmp_path / "page.html").read_text(encoding="utf-8")
