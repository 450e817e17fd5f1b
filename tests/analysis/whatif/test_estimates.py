"""Estimates and re-simulations of changed runs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from building import program
from whatif_cases import recorded_run

from distsim import simulate
from distsim.analysis.summary import summarise
from distsim.analysis.whatif.estimate import Recorded
from distsim.analysis.whatif.outcome import outcome
from distsim.cost.speeds import Speeds, classes_of
from distsim.errors import ConfigError, UnknownNameError
from distsim.report.document import document, dumps
from distsim.scenario import scenario_of
from distsim.trace.graph import NodeType, TaskGraph
from distsim.training import train

TRACES = "traces"
MS = 1_000_000_000


def whole(result):
    """Everything that is saved of a result but its columns."""
    return dumps(document(result, summarise(result)))


def test_knobs_at_one_change_nothing_byte_for_byte(tmp_path):
    recorded = recorded_run(5, tmp_path)[1]
    scenario = recorded.scenario
    ones = {one.name: "1x" for one in scenario.knobs() if one.continuous} | {"rank.1.compute": "+0%"}
    same = scenario.changed(ones)
    assert same.spec == scenario.spec
    after = same.run()
    assert whole(after) == whole(scenario.run())
    for column in ("ready", "start", "end", "released_by"):
        assert np.array_equal(getattr(after.spans(), column), getattr(recorded.result.spans(), column))
    assert recorded.estimate(same).makespan == recorded.result.makespan


def test_there_and_back_is_where_it_was(tmp_path):
    scenario = recorded_run(5, tmp_path)[1].scenario
    name = next(one.name for one in scenario.knobs() if one.name.endswith(".bandwidth"))
    back = scenario.changed({name: "2x", "gpu.compute": "4x"}).changed({name: "0.5x", "gpu.compute": "0.25x"})
    assert back.spec == scenario.spec


@pytest.mark.parametrize("seed", range(8))
def test_more_bandwidth_never_slows_a_run_without_contention(seed, tmp_path):
    recorded = recorded_run(seed, tmp_path, ("analytic",))[1]
    before = recorded.result.makespan
    for factor in ("1.1x", "2x", "10x"):
        changed = recorded.scenario.changed({"link.*.bandwidth": factor})
        assert changed.run().makespan <= before
        assert recorded.estimate(changed).makespan <= before


@pytest.mark.parametrize("seed", range(8))
def test_without_contention_and_with_the_same_order_estimates_are_exact(seed, tmp_path):
    recorded = recorded_run(seed, tmp_path, ("analytic",))[1]
    changed = recorded.scenario.changed({"link.*.bandwidth": "2x", "gpu.compute": "0.7x"})
    after = changed.run()
    told = outcome(recorded, recorded.estimate(changed), after)
    assert abs(told.error) < 1e-6 or any("another order" in sentence for sentence in told.why)
    assert told.why


def test_twice_the_compute_halves_computation_and_nothing_else(tmp_path):
    nodes = [{"op": "compute", "duration": "2ms"}, {"op": "all_reduce", "bytes": "8MiB"}, {"op": "load", "duration": "1ms",
              "tensor_size": 1000}]  # fmt: skip
    file = tmp_path / "t.json"
    file.write_text(json.dumps(
        {"format": "distsim-trace/1", "ranks": 4, "programs": [{"name": "r", "ranks": "all", "nodes": nodes}]}
    ))  # fmt: skip
    result = simulate(str(file), "switch")
    scenario = scenario_of(result.spec)
    assert scenario.changed({"gpu.compute": "2x"}).run().makespan == result.makespan - 1_000_000_000
    assert scenario.changed({"gpu.memory_bandwidth": "4x"}).run().makespan == result.makespan - 750_000_000
    one = scenario.changed({"rank.2.compute": "0.5x"})
    assert one.run().makespan == result.makespan + 2_000_000_000
    assert Recorded(scenario, result).estimate(one).makespan == result.makespan + 2_000_000_000
    assert one.spec.speeds == "rank.2.compute=0.5x"


@pytest.mark.parametrize(
    "settings",
    [{"collective.algorithm": "tree"}, {"collective.splits": "4"}, {"network": "chunk"}, {"link.host.latency": "5us"},
     {"topo": "switch"}],
)  # fmt: skip
def test_discrete_changes_of_communication_are_estimated_too(settings):
    result = simulate(f"{TRACES}/dp_overlapped_buckets.json", "fat_tree", network="analytic")
    recorded = Recorded(scenario_of(result.spec), result)
    changed = recorded.scenario.changed(settings)
    after = changed.run()
    assert after.makespan != result.makespan
    assert recorded.estimate(changed).makespan == pytest.approx(after.makespan, rel=0.02)


def test_a_plan_of_other_tasks_is_simulated_but_not_estimated():
    result = train(model="llama3-8b", cluster="dgx_h100:gpus=8", tp=2, global_batch=32, seq=4096).result
    recorded = Recorded(scenario_of(result.spec), result)
    changed = recorded.scenario.changed({"plan.tp": "4"})
    assert changed.spec.plan.dp == 2  # the same GPUs
    estimate = recorded.estimate(changed)
    assert estimate.makespan is None
    assert "other tasks" in estimate.reason
    assert changed.run().makespan == train(
        model="llama3-8b", cluster="dgx_h100:gpus=8", tp=4, global_batch=32, seq=4096
    ).step_ps  # fmt: skip
    folded = recorded.estimate(recorded.scenario.changed({"rank.3.compute": "0.5x"}))
    assert "one of" in folded.reason


def test_speeds_of_kernels_follow_a_roofline():
    result = train(model="llama3-8b", cluster="dgx_h100:gpus=8", tp=2, global_batch=32, seq=4096).result
    scenario = scenario_of(result.spec)
    times = {name: scenario.changed({name: "2x"}).run().makespan for name in ("gpu.compute", "gpu.memory_bandwidth")}
    both = scenario.changed(dict.fromkeys(times, "2x")).run().makespan
    assert result.makespan / 2 < both < min(times.values()) < max(times.values()) < result.makespan
    classes = {f"gpu.compute.{one}": "2x" for one in ("gemm", "attention")}
    assert scenario.changed(classes).run().makespan == times["gpu.compute"]
    absolute = scenario.changed({"gpu.memory_bandwidth": "6.7TB/s"})
    assert absolute.spec.speeds == "gpu.memory_bandwidth=2x"


def test_the_command_runs_the_scenario(tmp_path):
    import shlex

    from distsim.cli.main import main
    from distsim.report.reopen import reopen

    scenario = recorded_run(4, tmp_path)[1].scenario.changed({"link.*.bandwidth": "2x", "rank.1.compute": "2x"})
    assert main([*shlex.split(scenario.command)[1:], "-o", str(tmp_path / "out"), "--quiet"]) == 0
    assert reopen(tmp_path / "out").makespan == scenario.run().makespan


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"link.spin.bandwidth": "2x"}, "link.switch.bandwidth"), ({"gpu.compte": "2x"}, "gpu.compute"),
        ({"gpu.memory_bandwidth": "2x"}, "unknown knob"), ({"rank.99.compute": "2x"}, "no rank 99"),
        ({"link.switch.bandwidth": "0x"}, "positive"), ({"link.switch.bandwidth": "fast"}, "not a bandwidth"),
        ({"gpu.compute": "989TFLOPS"}, "no rate"), ({"collective.splits": "1.5x"}, "whole number"),
        ({"collectives": "mpi"}, "native"), ({"gpu.compute": ""}, "no value"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_in_words(settings, says, tmp_path):
    nodes = [{"op": "compute", "duration": "1ms"}, {"op": "all_reduce", "bytes": "1MiB"}]
    file = tmp_path / "t.json"
    file.write_text(json.dumps(
        {"format": "distsim-trace/1", "ranks": 2, "programs": [{"name": "r", "ranks": "all", "nodes": nodes}]}
    ))  # fmt: skip
    scenario = scenario_of(simulate(str(file), "switch").spec)
    with pytest.raises(ConfigError, match=says):
        scenario.changed(settings)


def test_scaled_topologies():
    from distsim.topology.spec import build

    plain, made = build("fat_tree:k=4"), build("fat_tree:k=4;spine.bandwidth=2x;*.latency=300ns;host.bandwidth=100Gbps")
    spine = plain.link_domain == plain.domains.index("spine")
    assert (made.link_bandwidth[spine] == 2 * plain.link_bandwidth[spine]).all()
    assert set(made.link_latency.tolist()) == {300_000}
    again = build(made.spec)
    assert again.spec == made.spec
    assert (again.link_bandwidth == made.link_bandwidth).all()
    ring = build("nd:dims=ring4+switch8;dim1.bandwidth=2x")
    assert [one.bandwidth for one in ring.dimensions] == [50e9, 100e9]
    with pytest.raises(UnknownNameError, match="spine"):
        build("fat_tree:k=4;spin.bandwidth=2x")
    for wrong in ("spine", "spine.width=2x", "spine.bandwidth=-1", "spine.bandwidth=0x", "spine.latency=fast"):
        with pytest.raises(ConfigError):
            build(f"fat_tree:k=4;{wrong}")


def captured_graph():
    """One rank of a captured trace: a matrix product of 2 ms, a norm of 1 ms, a kernel nobody knows of 1 ms."""
    rows = [(i, NodeType.COMP, [i - 1] if i else [], {"duration_ps": ps, "name": i}) for i, ps in enumerate([2 * MS, MS, MS])]
    names = ("ampere_sgemm_128x64_tn", "layer_norm_kernel", "mine")
    return TaskGraph(
        (program(rows),), np.zeros(1, np.int32), names=names, streams=("main", "gpu"), source="captured", captured=True
    )  # fmt: skip


def test_kernels_of_a_captured_trace_have_speeds_by_class():
    graph = captured_graph()
    assert classes_of(graph) == ("gemm", "norm", "other")
    expected = {
        "gpu.compute.gemm=2x": 3 * MS, "gpu.compute.norm=2x": 3.5 * MS, "gpu.compute=2x": 2 * MS,
        "gpu.compute=2x,gpu.compute.gemm=2x": 1.5 * MS, "rank.0.compute=2x,gpu.compute.norm=2x": 1.75 * MS,
    }  # fmt: skip
    for text, ps in expected.items():
        made = Speeds.parse(text).on(graph)
        assert made.program(0).duration_ps.sum() == ps
    with pytest.raises(ConfigError, match="no attention kernels"):
        Speeds.parse("gpu.compute.attention=2x").on(graph)
    with pytest.raises(ConfigError, match="does not tell classes"):
        Speeds.parse("gpu.compute.gemm=2x").on(dataclasses.replace(graph, captured=False))
    with pytest.raises(UnknownNameError):
        Speeds.parse("gpu.compute.gemms=2x")


def test_kernels_of_a_model_have_no_classes_by_name():
    with pytest.raises(ConfigError, match="captured traces"):
        train(model="llama3-8b", cluster="dgx_h100:gpus=8", tp=2, global_batch=32, seq=4096, speeds="gpu.compute.norm=2x")


def test_a_captured_run_has_its_classes_as_knobs(traces_reference):
    result = simulate(tuple(str(file) for file in sorted((traces_reference / "hta_ddp_2xA100").glob("kineto_rank*.json*"))))
    scenario = scenario_of(result.spec)
    names = [one.name for one in scenario.knobs() if one.name.startswith("gpu.compute.")]
    assert "gpu.compute.elementwise" in names
    recorded, changed = Recorded(scenario, result), scenario.changed({"gpu.compute.elementwise": "0.02x"})
    after = changed.run().makespan
    assert after > result.makespan
    assert recorded.estimate(changed).makespan == pytest.approx(after, rel=1e-6)
