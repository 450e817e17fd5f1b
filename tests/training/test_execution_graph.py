"""Plans as execution graphs: both grains agree, the engine agrees with the longest path, folded agrees with unfolded."""

from __future__ import annotations

import pytest

from distsim import simulate
from distsim.api import replay_folded
from distsim.cost.kernel import Answer
from distsim.errors import ConfigError
from distsim.hardware.gpu import gpu
from distsim.models.spec import Model, Moe
from distsim.topology.spec import build as build_topology
from distsim.trace.convert import write_graph
from distsim.trace.graph import NodeType
from distsim.workload.training.bound import step_bound
from distsim.workload.training.costs import Costs
from distsim.workload.training.graph import build
from distsim.workload.training.plan import plan
from distsim.workload.training.stack import Stack
from distsim.workload.training.uncontended import step_ps

MODEL = Model(name="m", layers=8, hidden=2048, heads=16, kv_heads=8, head_dim=128, ffn_hidden=8192, vocab=32000, seq=2048)
SPARSE = MODEL.model_copy(update={"moe": Moe(experts=16, topk=2, ffn_hidden=1024, dense_layers=1)})

#: every strategy: name -> (model, plan)
STRATEGIES = {
    "dp": (MODEL, {"dp": 8}),
    "dp, zero 1": (MODEL, {"dp": 8, "zero": 1}),
    "dp, zero 2": (MODEL, {"dp": 8, "zero": 2}),
    "fsdp": (MODEL, {"dp": 8, "zero": 3}),
    "fsdp, kept": (MODEL, {"dp": 16, "zero": 3, "reshard": False}),
    "hsdp": (MODEL, {"dp": 16, "zero": 3, "shard_group": 8}),
    "tp": (MODEL, {"tp": 4, "dp": 4}),
    "tp, sequence parallel": (MODEL, {"tp": 8, "dp": 2, "sequence_parallel": True, "zero": 1}),
    "asynchronous tp": (MODEL, {"tp": 4, "dp": 2, "sequence_parallel": True, "tp_overlap": True}),
    "gpipe": (MODEL, {"pp": 4, "dp": 2, "schedule": "gpipe"}),
    "1f1b": (MODEL, {"pp": 4, "dp": 4, "tp": 2}),
    "interleaved": (MODEL, {"pp": 4, "vpp": 2, "dp": 2, "tp": 2, "zero": 1}),
    "zb_h1": (MODEL, {"pp": 4, "dp": 2, "schedule": "zb_h1"}),
    "dualpipe": (MODEL, {"pp": 4, "dp": 2, "schedule": "dualpipe"}),
    "uneven": (MODEL, {"pp": 4, "dp": 2, "layers_per_stage": (1, 3, 3, 1)}),
    "cp ring": (MODEL, {"cp": 4, "dp": 2, "tp": 2}),
    "cp gathered": (MODEL, {"cp": 4, "dp": 4, "cp_mode": "all_gather"}),
    "experts": (SPARSE, {"ep": 8, "dp": 16, "zero": 1}),
    "experts, pipeline": (SPARSE, {"ep": 4, "dp": 4, "pp": 2, "tp": 2, "sequence_parallel": True, "zero": 1}),
    "64 ranks": (MODEL, {"pp": 4, "dp": 8, "tp": 2, "vpp": 2, "sequence_parallel": True, "zero": 1}),
    "recompute": (MODEL, {"dp": 8, "recompute": "full"}),
    "no overlap": (
        MODEL,
        {"dp": 4, "pp": 2, "overlap_grad_reduce": False, "overlap_param_gather": False, "overlap_p2p": False, "zero": 1},
    ),
}


def answer(kernel, device) -> Answer:
    rate = device.peak.get(kernel.dtype, device.peak["bf16"])
    return Answer(max(kernel.flops / (0.6 * rate), kernel.bytes / (0.8 * device.memory_bandwidth)) + 2e-6, "test", 0.1)


def costs_of(name: str, cluster: str = "dgx_h100", **stack) -> Costs:
    model, options = STRATEGIES[name]
    made = plan(**{"global_batch": 16 * options.get("dp", 1), "seq": 2048, **options})
    usual = {
        "name": "s",
        "about": "",
        "gemm": {"*": 1.0},
        "attention": "flash2",
        "fusion": "fused",
        "launch": 1e-6,
        "sources": {},
        "overlap_grad_reduce": True,
        "overlap_param_gather": True,
        "overlap_p2p": True,
    }
    return Costs(model, made, Stack(**{**usual, **stack}), gpu("h100"), build_topology(cluster, made.world), answer)


@pytest.mark.parametrize("name", STRATEGIES)
def test_engine_without_contention_takes_the_longest_path(name):
    costs = costs_of(name)
    graph = build(costs)
    assert replay_folded(graph, costs.topology, network="analytic").makespan == step_ps(graph, costs)


@pytest.mark.parametrize("cluster", ["dgx_h100", "fat_tree"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_folded_is_unfolded_to_the_picosecond(name, cluster):
    costs = costs_of(name, cluster)
    for grain in ("block", "kernel") if cluster == "dgx_h100" and name in ("1f1b", "experts", "cp ring") else ("block",):
        graph = build(costs, grain)
        options = {"interfering": ("dp", "edp"), "slowdown": 2}
        folded = replay_folded(graph, costs.topology, **options)
        whole = replay_folded(graph, costs.topology, fold=False, **options)
        assert folded.makespan == whole.makespan
        assert (folded.finish == whole.finish).all()
        assert (folded.links.bytes == whole.links.bytes).all()
        assert folded.counts["simulated"] <= whole.counts["simulated"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_kernel_grain_takes_as_long_as_block_grain(name):
    # blocks are worked out on idle links; so are the kernels here. Schedules that split the backward pass move whole blocks of
    # weights' gradients: there, and where the host holds up a block, the grains may differ
    costs = costs_of(name, launch=0.0)
    block, kernel = step_ps(build(costs), costs), step_ps(build(costs, "kernel"), costs)
    assert kernel == pytest.approx(block, rel=0.01)
    if name in ("dp", "tp", "recompute", "fsdp"):
        assert kernel == block


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_step_beats_its_bound(name):
    costs = costs_of(name)
    assert step_bound(costs) <= step_ps(build(costs), costs)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_message_that_is_sent_is_received(name):
    graph = build(costs_of(name))
    sent, received = set(), set()
    for rank in range(graph.ranks):
        program = graph.program(rank)
        for row in range(len(program)):
            if program.type[row] == NodeType.COMM_SEND:
                sent.add((rank, graph.peer(rank, row), int(program.tag[row]), int(program.bytes[row])))
            elif program.type[row] == NodeType.COMM_RECV:
                received.add((graph.peer(rank, row), rank, int(program.tag[row]), int(program.bytes[row])))
    assert sent == received


def test_reduced_gradients_are_all_weights_once():
    for name, times in (("dp", 1), ("dp, zero 1", 1), ("dp, zero 2", 16), ("fsdp", 16)):
        costs = costs_of(name)
        program = build(costs).programs[0]
        names = build(costs).names
        reduced = sum(
            int(program.bytes[row])
            for row in range(len(program))
            if program.type[row] == NodeType.COMM_COLL and names[program.name[row]].startswith("reduce gradients")
        )
        assert reduced == times * sum(unit.dense for units in costs.units for unit in units) * 4


@pytest.mark.parametrize("name", ["step.json", "step.parquet", "et/step"])
def test_written_traces_replay_as_the_graph_in_memory(name, tmp_path):
    costs = costs_of("1f1b")
    graph = build(costs)
    (tmp_path / "et").mkdir()
    write_graph(graph, str(tmp_path / name))
    options = {"network": "analytic", "collectives": "nccl"}
    expected = simulate(graph, costs.topology, **options).makespan
    assert simulate(str(tmp_path / name), costs.topology, **options).makespan == expected


def test_plans_that_do_not_fit_are_refused():
    model = MODEL
    for options, word in (
        ({"tp": 3}, "attention heads"),
        ({"dp": 3, "global_batch": 4}, "no multiple"),
        ({"pp": 16}, "layers"),
        ({"vpp": 2}, "pipeline"),
        ({"ep": 2, "dp": 2}, "experts"),
        ({"layers_per_stage": (4, 5), "pp": 2}, "add up"),
    ):
        with pytest.raises(ConfigError, match=word):
            plan(**{"global_batch": 16, **options}).check(model)
