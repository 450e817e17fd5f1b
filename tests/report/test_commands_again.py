"""The command that a summary tells, run again, gives the same folder."""

from __future__ import annotations

import json
import shlex

import pytest
from building import ROOT

from distsim.cli.main import main
from distsim.command import command_of
from distsim.scenario import scenario_of

TRACES = ROOT / "traces"
GOAL = "num_ranks 2\nrank 0 {\nl1: calc 500\nl2: send 1000b to 1\nl2 requires l1\n}\nrank 1 {\nl1: recv 1000b from 0\n}\n"
FILES = ("summary.json", "spans.parquet", "links.parquet", "collectives.parquet", "timeline.json.gz")

RUNS = {
    "native": [
        "run", f"{TRACES}/dp_overlapped_buckets.json", "--topo", "fat_tree:k=4", "--network", "chunk", "--splits", "2",
        "--repair", "--algorithm", "all_reduce=ring", "--speeds", "rank.1.compute=0.5x",
    ],
    "roofline": [
        "run", f"{TRACES}/pipeline_send_recv.json", "--network", "fluid:mtu=4096", "--compute", "roofline", "--peak",
        "989TFLOPS", "--memory-bandwidth", "3.35TB/s", "--strict",
    ],
    "coflow": ["run", f"{TRACES}/llama3_8b_tp8_dp8.json", "--topo", "dgx_h100", "--network", "coflow"],
    "astra": ["run", f"{TRACES}/dp_overlapped_buckets.json", "--topo", "ring", "--profile", "astra"],
    "loggops": ["run", "pair.goal", "--network", "loggops:preset=ai"],
    "events": ["run", f"{TRACES}/dp_overlapped_buckets.json", "--network", "analytic", "--events", "events.yaml"],
    "train": ["train", "--model", "llama3-8b", "--cluster", "dgx_h100:gpus=16", "--tp", "8", "--global-batch", "8"],
    "train with options": [
        "train", "--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--tp", "2", "--pp", "2",
        "--layers-per-stage", "17,15", "--no-sequence-parallel", "--no-fold", "--zero", "0", "--cuda-graphs",
        "--no-overlap-grad-reduce", "--memory", "warn",
        "--network", "analytic", "--ep-imbalance", "1.5", "--global-batch", "16", "--seq", "2048", "--speeds", "gpu.compute=2x",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_run_again_it_gives_the_same_bytes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pair.goal").write_text(GOAL)
    (tmp_path / "events.yaml").write_text("events: [{rank: 1, at: 0, slow: 2}]\n")
    _is_repeated(RUNS[name], tmp_path)


def test_a_captured_run_too(traces_reference, tmp_path):
    files = sorted(map(str, (traces_reference / "param_dlrm_8xV100").glob("kineto_rank*.json.gz")))
    _is_repeated(["run", *files, "--scale-compute", "1.5x"], tmp_path)


def _is_repeated(words, place):
    """The first run may infer a topology's size, which its command then says: that sentence alone may differ."""
    assert main([*words, "-o", str(place / "first"), "--quiet"]) == 0
    first = json.loads((place / "first" / "summary.json").read_text())
    again = shlex.split(first["command"])
    assert again[:2] == ["distsim", words[0]]
    for name in ("second", "third"):
        assert main([*again[1:], "-o", str(place / name), "--quiet"]) == 0
    for file in FILES:
        assert (place / "second" / file).read_bytes() == (place / "third" / file).read_bytes()
        if file != "summary.json":
            assert (place / "first" / file).read_bytes() == (place / "second" / file).read_bytes()
    second = json.loads((place / "second" / "summary.json").read_text())
    inferred = [set(one["provenance"].pop("inferred")) for one in (first, second)]
    assert inferred[1] <= inferred[0]
    assert all("inferred from" in sentence for sentence in inferred[0] - inferred[1])
    assert second == first


@pytest.mark.parametrize("name", ["native", "train", "train with options"])
def test_a_scenario_says_the_same_command(name, tmp_path):
    assert main([*RUNS[name], "-o", str(tmp_path / "out"), "--quiet"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert scenario_of(summary["spec"]).command == summary["command"] == command_of(summary["spec"])
