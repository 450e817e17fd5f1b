"""Sensitivities from the recorded run against finite differences of the simulation."""

from __future__ import annotations

import json

import pytest
from whatif_cases import case, recorded_run

from distsim import simulate
from distsim.analysis.whatif.estimate import Recorded
from distsim.analysis.whatif.levers import TOLERANCE, levers, sensitivity
from distsim.scenario import scenario_of
from distsim.training import train


def test_twenty_random_cases_agree_within_two_percent(tmp_path):
    """All of them, contended ones too. docs/whatif.md has 400."""
    found = [case(seed, tmp_path) for seed in range(20)]
    assert len({one.knob.split(".")[-1] for one in found}) >= 3  # bandwidths, latencies, computation
    assert len({one.recorded.scenario.spec.network for one in found}) == 4
    assert sum(one.recorded.contended() > 0 for one in found) >= 4
    assert not [str(one) for one in found if one.off > TOLERANCE]


@pytest.mark.parametrize("seed", [72, 82, 126, 128, 158, 252])
def test_cases_whose_path_shares_links_agree_too(seed, tmp_path):
    """Waits behind others in chunks, ties within one instant, computation that decides who comes first."""
    found = case(seed, tmp_path)
    assert found.recorded.contended() > 0
    assert found.off <= TOLERANCE, str(found)


@pytest.mark.parametrize("seed", range(6))
def test_sensitivities_of_all_that_takes_time_sum_to_the_makespan(seed, tmp_path):
    """Every ps on the path is computation, bytes or latency; without contention all of them 1 % faster saves 1 %."""
    recorded = recorded_run(seed, tmp_path, ("analytic",))[1]
    slopes = [sensitivity(recorded, name, 1e-4) for name in ("gpu.compute", "link.*.bandwidth", "link.*.latency")]
    total = -slopes[0].more - slopes[1].more + slopes[2].less
    assert total == pytest.approx(recorded.path.makespan, rel=2e-3)


def test_closed_form_of_a_ring_all_reduce(tmp_path):
    """2 (n - 1) steps of size / n bytes over two links of a switch: t = 2 (n - 1) (s / n / B + 2 L), so that dt / d ln B is the
    part of bytes, dt / d ln L that of latencies."""
    nodes = [{"op": "compute", "duration": "1ms"}, {"op": "all_reduce", "bytes": "64MB"}]
    file = tmp_path / "ring.json"
    file.write_text(json.dumps(
        {"format": "distsim-trace/1", "ranks": 4, "programs": [{"name": "r", "ranks": "all", "nodes": nodes}]}
    ))  # fmt: skip
    result = simulate(str(file), "switch:bandwidth=50GB/s,latency=500ns", network="analytic")
    recorded = Recorded(scenario_of(result.spec), result)
    moved, delays = 6 * 16e6 / 50e9 * 1e12, 6 * 2 * 500e3
    assert result.makespan == 1e9 + moved + delays
    bandwidth, latency, compute = (
        sensitivity(recorded, name, 1e-4) for name in ("link.switch.bandwidth", "link.switch.latency", "gpu.compute")
    )
    assert bandwidth.middle == pytest.approx(-moved, rel=1e-3)
    assert latency.middle == pytest.approx(delays, rel=1e-3)
    assert compute.middle == pytest.approx(-1e9, rel=1e-3)


def test_two_equal_paths_are_a_kink(tmp_path):
    nodes = [{"op": "compute", "duration": "1ms"}]
    programs = [{"name": f"r{rank}", "ranks": [rank], "nodes": nodes} for rank in range(2)]
    file = tmp_path / "kink.json"
    file.write_text(json.dumps({"format": "distsim-trace/1", "ranks": 2, "programs": programs}))
    result = simulate(str(file), "switch")
    slope = sensitivity(Recorded(scenario_of(result.spec), result), "rank.0.compute")
    assert slope.kinked
    assert slope.more == 0
    assert slope.less == pytest.approx(-1e9, rel=1e-2)
    (lever,) = [one for one in levers(Recorded(scenario_of(result.spec), result)) if one.knob.name == "rank.0.compute"]
    assert lever.saved == lever.simulated == 0  # the other rank ends no earlier
    assert lever.lost == pytest.approx(1e8, rel=1e-2)


def test_levers_of_a_folded_training_step_agree():
    """Folded, pipelined, with computation slowed beside communication."""
    result = train(model="llama3-8b", cluster="dgx_h100:gpus=16", tp=2, pp=2, global_batch=32, seq=4096).result
    recorded = Recorded(scenario_of(result.spec), result)
    found = levers(recorded)
    names = [one.knob.name for one in found]
    assert names[0].startswith("gpu.compute")
    assert {"gpu.memory_bandwidth", "host.speed", "link.nvlink.bandwidth", "link.rail.bandwidth"} <= set(names)
    assert [one.saved for one in found] == sorted((one.saved for one in found), reverse=True)
    worth = [one for one in found if abs(one.checked.middle) > 1e-4 * result.makespan]
    assert len(worth) >= 3
    assert not [(one.knob.name, one.error) for one in worth if abs(one.error) > TOLERANCE]
    assert all(one.reason for one in found if one.error is not None and abs(one.checked.middle) > 1e-4 * result.makespan
               and abs(one.error) > TOLERANCE)  # fmt: skip
