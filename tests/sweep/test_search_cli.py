"""``distsim search`` on real plans: small enough to be searched by hand as well."""

from __future__ import annotations

import json

import pytest

from distsim.cli.main import main
from distsim.models.catalog import model
from distsim.registry import lookup
from distsim.sweep.kinds.training import evaluate
from distsim.sweep.points import Space, Tally
from distsim.sweep.space import shape, space
from distsim.training import bound

SMALL = [
    "search", "--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--global-batch", "16", "--seq", "2048", "--only",
    "tp=2,4,8", "--only", "pp=1,2", "--only", "micro_batch=1,2", "--only", "recompute=none,full", "--only", "vpp=1", "--only",
    "schedule=1f1b", "--only", "cp=1", "--workers", "1",
]  # fmt: skip


def test_the_plan_found_is_the_best_of_all_that_fit(capsys):
    assert main([*SMALL, "--json", "--against", "tp=8,recompute=full"]) == 0
    made = json.loads(capsys.readouterr().out)
    base = {"model": "llama3-8b", "cluster": "dgx_h100:gpus=8", "global_batch": 16, "seq": 2048}
    plans = space(model("llama3-8b"), shape(base["cluster"]), base, {name: made["space"][name] for name in made["space"]})
    steps = []
    for one in Space(plans, lookup("study", "training")).points(Tally()):
        limit = bound(one.point)["step_ps"]
        steps.append(evaluate(one.point)["step_ps"])
        assert limit <= steps[-1]
    assert made["best"]["columns"]["step_ps"] == min(steps)
    assert made["proven"] is True
    assert len(made["trials"]) - 1 + made["pruned_by_bound"] + sum(one["count"] for one in made["refused"]) == made["points"]
    assert made["against"]["plan"]["dp"] == 1
    assert made["against"]["columns"]["step_ps"] >= made["best"]["columns"]["step_ps"]


def test_the_screen_tells_plan_proof_and_space(capsys):
    assert main([*SMALL, "--against", "tp=8,recompute=full"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("best step ")
    assert "proven best of its space" in out.splitlines()[0]
    assert "slower: " in out.splitlines()[1]
    assert "pruned: their bound is not below the best" in out
    assert "space: tp 2 4 8; cp 1; pp 1 2;" in out


def test_a_plan_that_does_not_fit_is_compared_all_the_same(capsys):
    against = ["--against", "tp=1,pp=1,zero=0,micro_batch=2"]
    assert main([*SMALL, "--json", *against]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["against"]["columns"]["step_ps"] > 0
    assert made["best"]["plan"]["tp"] > 1
    assert made["proven"] is True
    assert main([*SMALL, *against]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("the given plan: step ")
    assert lines[2].startswith("but it does not fit in memory: stage 0 needs")


def test_uneven_chunks_are_in_the_space():
    # Llama 3's 126 layers on 16 stages: 7 or 8 each, and 1 or 2 of every virtual stage where there are 7
    base = {"model": "llama3-405b", "cluster": "h100_superpod:gpus=1024", "global_batch": 128, "seq": 8192}
    only = {"tp": [8], "pp": [16], "cp": [1], "schedule": ["interleaved"], "micro_batch": [1], "recompute": ["none"]}
    plans = space(model("llama3-405b"), shape(base["cluster"]), base, only)
    found = {(one.point["vpp"], one.point["zero"]) for one in Space(plans, lookup("study", "training")).points(Tally())}
    assert {(7, 1), (7, 2), (3, 1)} <= found
    assert not any(vpp > 7 for vpp, _ in found)


def test_a_memory_limit_excludes_plans(capsys):
    assert main([*SMALL, "--json", "--memory", "40GiB"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert all(one["columns"]["memory_bytes"] <= 40 * 2**30 for one in made["trials"])
    assert any("40 GiB" in one["reason"] for one in made["refused"])
    assert main([*SMALL, "--memory", "1GiB"]) == 1
    assert capsys.readouterr().out.startswith("no plan")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--only", "tq=1"], "tp"), (["--set", "micro_bach=1"], "micro_batch"), (["--against", "tp=3"], "does not divide"),
        (["--against", "tp"], "FIELD=VALUE"), (["--set", "clip"], "FIELD=VALUE"), (["--budget", "soon"], "time"),
        (["--memory", "much"], "size"), (["--workers", "-2"], "--workers"), (["--gpus", "0"], "--gpus"),
        (["--set", "tp=2", "--only", "zero=1", "--only", "zero=3"], "given twice"), (["--set", "model=x"], "model"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told(capsys, more, said):
    assert main([*SMALL, *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("distsim: ")
    assert said in error
