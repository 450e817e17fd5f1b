"""``distsim serve --beside``: a training job on the same cluster."""

from __future__ import annotations

import json

import pytest
from building import ROOT

from distsim.cli.main import main

TRACE = str(ROOT / "traces" / "dp_overlapped_buckets.json")
WORDS = ["serve", "--model", "llama3-8b", "--gpu", "h100", "--requests", "poisson:qps=20",
         "--lengths", "fixed:prompt=500,output=6", "--cluster",
         "fat_tree:tiers=2,k=2,pods=2,hosts_per_leaf=18,bandwidth=100Gbps",
         "--n", "6"]  # fmt: skip
APART = ["--disaggregate", "prefill=1,decode=1", "--beside", TRACE]


def run(capsys, *words, code=0):
    assert main([*WORDS, *words]) == code
    return capsys.readouterr()


def test_both_on_one_screen(capsys):
    out = run(capsys, *APART).out
    assert "beside" in out
    for word in ("training step", "alone", "TTFT x", "latency x", "keys and values: whole, on fluid"):
        assert word in out
    lines = run(capsys, *APART, "--quiet", "--beside-steps", "2").out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("beside 2 training steps of ")


def test_json(capsys):
    found = json.loads(run(capsys, *APART, "--json", "--beside-steps", "1").out)["beside"]
    assert found["steps"] == 1
    assert found["finished"] == found["requests"] == 6
    assert all(found[name] >= 1.0 for name in ("training_slowdown", "ttft_slowdown", "latency_slowdown"))


@pytest.mark.parametrize(("words", "said"), [
    (["--disaggregate", "prefill=1,decode=1", "--beside-at", "0-3"], "without --beside"),
    ([*APART[:2], "--beside", "nowhere.json"], "nowhere.json"),
    ([*APART, "--beside-at", "0-99"], "no host"),
    ([*APART, "--serve-at", "x"], "names no hosts"),
    ([*APART, "--beside-steps", "-1"], "training steps"),
    ([*APART, "--network", "loggops"], "loggops is no level"),
])  # fmt: skip
def test_what_is_wrong_is_said(capsys, words, said):
    code = main([*WORDS, *words])
    captured = capsys.readouterr()
    assert code in (1, 2)
    assert said in captured.err
    assert not captured.out
