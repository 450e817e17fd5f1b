"""Findings on real LLM traces, native and under the ASTRA-sim profile: the laws hold, and every span finds its collective."""

from __future__ import annotations

import json

import pytest

from distsim.analysis.breakdown import PARTS
from distsim.analysis.summary import summarise
from distsim.analysis.underway import LOCAL, POINT_TO_POINT, is_kind
from distsim.api import simulate
from distsim.profiles.astra.run import simulate_trace
from distsim.run_spec import RunSpec

DEVICE = {"compute": "roofline", "peak": "989TFLOPS", "memory_bandwidth": "3.35TB/s"}


@pytest.mark.parametrize("name", ["gpt8_dp2tp2pp2", "gpt8_fsdp8", "llama16_dp4tp4"])
@pytest.mark.parametrize("profile", ["native", "astra"])
def test_laws_hold_on_real_traces(astra_reference, name, profile):
    folder = astra_reference / "llm" / name
    known = json.loads((folder / "result_sw1d_aware.json").read_text())
    topo = f"switch:hosts={known['npus_count'][0]},bandwidth={known['bandwidth'][0]}GiBps,latency={known['latency'][0]}ns"
    spec = RunSpec(network="analytic", trace=str(folder / "et.tar.gz"), topo=topo, **DEVICE)
    result = simulate(spec) if profile == "native" else simulate_trace(spec)
    summary = summarise(result)
    split = summary.breakdown
    for rank in range(result.ranks):
        assert sum(int(getattr(split, part)[rank]) for part in PARTS) == result.makespan
        mine = split.shares.rank == rank
        assert split.shares.exposed[mine].sum() == split.exposed[rank]
        assert split.shares.hidden[mine].sum() == split.hidden[rank] <= split.compute[rank]
    assert (split.waiting <= split.idle).all()
    path = summary.critical
    assert (path.begin[1:] >= path.end[:-1]).all()
    assert path.end[-1] == result.makespan == sum(path.times.values())
    assert summary.moving.collective.max() < len(result.collectives)
    members = ~is_kind(result.spans(), *LOCAL, *POINT_TO_POINT)
    assert members.any()
    assert (summary.moving.collective[members] >= 0).all()
