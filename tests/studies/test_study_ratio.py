"""The ratio study: closed forms of the balance, laws of points and findings, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from distsim.errors import ConfigError, DistsimError, UnknownNameError
from distsim.models.catalog import model
from distsim.studies.balance import balance, between, inside
from distsim.studies.ratio import Asked, cases, conduct, findings, measure, prepared, variations
from distsim.studies.width import widened
from distsim.trace.graph import NodeType
from distsim.training import TrainSpec, execution_graph, job
from distsim.workload.training.memory import memory_of

STEP = {"model": "llama3-8b", "tp": 4, "zero": 3, "seq": 1024}


def asked(**changes):
    usual = {
        "step": STEP, "gpus": 8, "topologies": ("dgx_h100:nodes=2,gpus_per_node=4",), "levels": ("analytic", "cut_through"),
        "vary": {"bandwidth": ("1", "4")}, "tolerance": 0.05, "workers": 1,
    }  # fmt: skip
    return Asked(**{**usual, **changes})


def quiet(fraction, what):
    pass


def test_ratio_doubles_when_computation_takes_twice_as_long():
    (case,) = cases(asked(vary={"bandwidth": ("1",)}))
    work = prepared(case)
    graph, memory = execution_graph(work), memory_of(work.model, work.plan, work.stack, work.gpu)
    twice = dataclasses.replace(graph, programs=tuple(
        dataclasses.replace(one, duration_ps=np.where(one.type == NodeType.COMP, 2 * one.duration_ps, one.duration_ps))
        for one in graph.programs
    ))  # fmt: skip
    one, two = (balance(work, some, work.topology, "analytic", memory, "native") for some in (graph, twice))
    assert two.communication == one.communication > 0
    assert two.compute == pytest.approx(2 * one.compute, rel=1e-9)


def test_a_fabric_twice_as_fast_halves_what_crosses_it():
    """Native rings: latency is the rest, and small."""
    grain = {**STEP, "grain": "kernel"}
    slow, fast = (measure(case) for case in cases(asked(step=grain, vary={"bandwidth": ("0.1", "0.2")})))
    assert fast["compute_ps"] == slow["compute_ps"]
    assert fast["communication_ps"] == pytest.approx(slow["communication_ps"] / 2, rel=0.02)
    assert fast["ratio"] == pytest.approx(2 * slow["ratio"], rel=0.02)


def test_a_level_compared_with_itself_never_departs():
    found = conduct(asked(levels=("cut_through", "cut_through:size=1GiB")), quiet)
    (one,) = found.summary["departures"]
    assert one["departs"] == "never"
    assert one["largest_error"] == 0


def test_communication_is_what_its_tasks_take_on_idle_links():
    """One collective alone: every member counts it from its start to its end."""
    from distsim.api import replay
    from distsim.run_spec import RunSpec
    from distsim.topology.spec import build

    work = job(TrainSpec.of({"model": "llama3-8b", "cluster": "dgx_h100:nodes=2,gpus_per_node=4", "tp": 4, "dp": 2, "seq": 1024,
                             "global_batch": 2, "zero": 0, "memory": "ignore"}))  # fmt: skip
    graph, topology = execution_graph(work), build("dgx_h100:nodes=2,gpus_per_node=4", 8)
    result = replay(graph, topology, RunSpec(trace=graph.source, topo=topology.spec, network="analytic"), quiet)
    members = sum((row.end_ps - row.start_ps) * len(row.members) for row in result.collectives)
    assert between(result) == pytest.approx(members / result.ranks, rel=1e-9)
    blocks = [work.costs.block(0, way) for way in ("forward", "backward")]
    assert inside(work) == sum(sum(b.exposed.values()) + sum(b.hidden.values()) for b in blocks) > 0
    computing = sum(sum(b.computing.values()) + sum(b.exposed.values()) + b.launch for b in blocks)
    program = graph.program(0)
    tasks = program.duration_ps[(program.type == NodeType.COMP) & (program.duration_ps > 0)]
    assert computing <= int(tasks.sum())


def test_an_oversubscribed_fabric_parts_levels_and_a_free_one_does_not():
    topologies = ("dgx_h100:gpus_per_node=2", "dgx_h100:gpus_per_node=2,rails=1,nodes_per_unit=2,spine_bandwidth=25Gbps")
    step = {"model": "llama3-8b", "tp": 2, "zero": 3, "seq": 512}
    found = conduct(asked(step=step, topologies=topologies, vary={"bandwidth": ("0.25", "1", "4", "64")}), quiet)
    free, shared = found.summary["departures"]
    assert free["departs"] == "never"
    assert shared["departs"].startswith(("below", "always"))
    assert shared["largest_error"] < -0.05  # a level without contention is too fast, never too slow
    ratios = [row["ratio"] for row in found.rows[:4]]
    assert ratios == sorted(ratios)


def test_rows_are_the_same_whatever_ran_them():
    def told(workers):
        rows = conduct(asked(step={**STEP, "seq": 256}, workers=workers), quiet).rows
        return [{name: value for name, value in row.items() if "cpu_s" not in name} for row in rows]

    assert told(1) == told(2)


@pytest.mark.parametrize(
    ("variable", "values"),
    [("batch", ("1", "2")), ("seq", ("512", "1024")), ("hidden", ("2048", "4096")), ("gpu", ("h100_sxm", "a100_sxm"))],
)
def test_every_variable_moves_computation(variable, values):
    first, second = (measure(case) for case in cases(asked(vary={variable: values})))
    assert second["compute_ps"] > first["compute_ps"]


def test_batch_keeps_the_number_of_micro_batches():
    for case in cases(asked(vary={"batch": ("1", "4")})):
        assert prepared(case).plan.micro_batches == 1


def row(topology, ratio, error):
    return {
        "topology": topology, "variable": "bandwidth", "value": str(ratio), "ratio": ratio,
        "compute_ps": 1, "communication_ps": 1,
        **{f"analytic {name}": value for name, value in
           {"step_ps": 10, "error": error, "exposed_share": 0.1, "overlap": 0.5, "cpu_s": 0.1}.items()},
        **{f"cut_through {name}": value for name, value in
           {"step_ps": 10, "error": 0.0, "exposed_share": 0.1, "overlap": 0.5, "cpu_s": 0.1}.items()},
        "memory_bytes": 1, "fits": ratio < 3,
    }  # fmt: skip


def test_findings_say_the_break_down_ratio():
    rows = [row("rails", 1.0, 0.0), row("rails", 4.0, 0.0), row("racks", 1.0, -0.1), row("racks", 4.0, 0.0)]
    found = findings(asked(topologies=("rails", "racks")), rows)
    assert found.answer == (
        "llama3-8b on 8 GPUs, compute/communication 1 to 4; more than 5 % off cut_through: "
        "analytic never (rails), below 2 (racks)"
    )
    assert [one["departs"] for one in found.summary["departures"]] == ["never", "below 2"]
    assert found.warnings == ("2 of 4 points do not fit in the memory of their GPUs",)


def test_wider_models():
    base = model("llama3-70b")
    half = widened(base, 4096)
    assert (half.heads, half.kv_heads, half.ffn_hidden, half.layers) == (32, 8, base.ffn_hidden // 2, base.layers)
    assert widened(base, base.hidden) is base
    assert np.isclose(half.layer_parameters(0) / base.layer_parameters(0), 0.25, rtol=0.05)
    with pytest.raises(ConfigError, match="multiple of 128"):
        widened(base, 1000)
    with pytest.raises(ConfigError, match="compresses"):
        widened(model("deepseek-v3"), 3584)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tolerance": 0.0}, "no tolerance"),
        ({"levels": ("fluid",)}, "two or more"),
        ({"gpus": 6}, "does not divide 6 GPUs"),
        ({"vary": {"bandwidth": ("fast",)}}, "is no bandwidth"),
        ({"vary": {"bandwidth": ("-1",)}}, "is no bandwidth"),
        ({"vary": {"hidden": ("4097",)}}, "whole number of heads"),
        ({"vary": {"gpu": ("h101",)}}, "unknown GPU"),
        ({"topologies": ("dgx_h100@ecpm",)}, "ecmp"),
        ({"topologies": ("dgx_h1000",)}, "unknown topology"),
        ({"step": {"model": "llama9"}}, "unknown model"),
    ],
)
def test_refused_before_anything_runs(changes, said):
    with pytest.raises(ConfigError, match=said):
        conduct(asked(**changes), quiet)


def test_an_error_of_a_point_says_which(monkeypatch):
    with pytest.raises(DistsimError, match="bandwidth=1"):
        conduct(asked(levels=("analytic", "no_such_level"), workers=1), quiet)


def test_variations():
    assert variations(["bandwidth=1,2", "gpu=a100_sxm"]) == {"bandwidth": ("1", "2"), "gpu": ("a100_sxm",)}
    with pytest.raises(UnknownNameError, match="bandwidth"):
        variations(["bandwith=1"])
    for wrong in (["seq="], ["seq"], ["seq=1,1"], ["seq=1", "seq=2"]):
        with pytest.raises(ConfigError):
            variations(wrong)
