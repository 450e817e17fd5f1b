"""Explain on small runs worked by hand: a planted straggler and a planted slow link are named, repetitions fold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from building import graph, program

from distsim import simulate
from distsim.analysis.explain.classes import divided
from distsim.analysis.explain.findings import explain
from distsim.analysis.explain.story import Repeat
from distsim.errors import ConfigError, UnknownNameError
from distsim.report.explain import answer, text
from distsim.report.explain_document import document
from distsim.report.folder import save
from distsim.report.reopen import reopen
from distsim.topology.spec import build
from distsim.trace.graph import CollectiveType, NodeType, TaskGraph
from distsim.training import train

US = 1_000_000


def layers(count, compute, *, step=None, size=1 << 20):
    """``count`` times: compute (us, by layer), then an all_reduce of all ranks."""
    rows = []
    for i in range(count):
        before = [len(rows) - 1] if rows else []
        rows.append((len(rows), NodeType.COMP, before, {"duration_ps": compute(i) * US, "name": 0}))
        rows.append((len(rows), NodeType.COMM_COLL, [len(rows) - 1], {
            "collective": CollectiveType.ALL_REDUCE, "bytes": size, "name": 1,
        }))  # fmt: skip
    made = program(rows)
    if step is not None:
        made = dataclasses.replace(made, step=np.array([step(i) for i in range(count) for _ in range(2)], np.int32))
    return made


def graph_of(*programs, **more):
    return TaskGraph(
        tuple(programs), np.arange(len(programs), dtype=np.int32), (), names=("gemm 1", "sum"), source="made", **more
    )


def test_a_planted_straggler_is_named_with_what_it_spent_more_on():
    graph = graph_of(*(layers(3, lambda i, rank=rank: 100 + 60 * (rank == 2 and i == 1)) for rank in range(4)))
    found = explain(simulate(graph, "switch:hosts=4", network="analytic"), graph=graph)
    late = found.latecomers[0]
    assert (late.rank, late.after_ps, late.because) == (2, 60 * US, (("gemm", 60 * US),))
    assert [(one.rank, one.last, one.caused_ps, one.of) for one in found.stragglers] == [(2, 1, 3 * 60 * US, 1)]
    assert [one.parts["stragglers"] // US for one in found.ranks] == [60, 60, 0, 60]
    assert "waited 60 us for rank 2, which spent 60 us more on gemm" in " ".join(text(found).split())


def test_a_straggler_that_waited_itself_is_said_to_have_been_idle():
    slow = program([
        (0, NodeType.DELAY, [], {"duration_ps": 50 * US}),
        (1, NodeType.COMP, [0], {"duration_ps": 10 * US}),
        (2, NodeType.COMM_COLL, [1], {"collective": CollectiveType.ALL_REDUCE, "bytes": 1 << 20}),
    ])  # fmt: skip
    graph = graph_of(layers(1, lambda i: 10), layers(1, lambda i: 10), slow)
    found = explain(simulate(graph, "switch:hosts=3", network="analytic"), graph=graph)
    assert found.latecomers[0].rank == 2
    assert dict(found.latecomers[0].because) == {"delay": 50 * US}
    assert found.ranks[2].host >= 50 * US  # a latency: nothing else goes on


def test_a_planted_slow_link_is_named_and_its_load_told():
    topology = build("switch:hosts=4,bandwidth=50GB/s", 4)
    slow = next(i for i in range(topology.links) if topology.link_name(i).startswith("gpu2->"))
    rates = topology.link_bandwidth.copy()
    rates[slow] /= 4
    topology = dataclasses.replace(topology, link_bandwidth=rates)
    graph = graph_of(*(layers(4, lambda i: 10, size=1 << 24) for _ in range(4)))
    found = explain(simulate(graph, topology, network="fluid"), graph=graph)
    (one,) = found.communications
    assert one.load is not None
    assert (one.load.name, one.load.alike, one.load.bandwidth) == (topology.link_name(slow), 1, 12.5e9)
    assert one.load.share_in_use == pytest.approx(1.0, abs=0.02)
    assert one.wire_ps is not None
    assert one.wire_ps == pytest.approx(one.ps, rel=0.02)
    assert one.contended_ps == 0
    assert f"busiest of its links {topology.link_name(slow)}, " in " ".join(text(found).split())


def test_two_groups_over_one_link_are_under_way_beside_each_other():
    """Both ranks of a host pair send over the same two uplinks of a tapered tree at once."""
    from distsim.trace.graph import Group

    members = {0: (0, 2), 2: (0, 2), 1: (1, 3), 3: (1, 3)}
    rows = [(0, NodeType.COMM_COLL, [], {"collective": CollectiveType.ALL_REDUCE, "bytes": 1 << 24, "group": 0})]
    graph = TaskGraph((program(rows),), np.zeros(4, np.int32), (Group("dp", members),), names=("",), source="made")
    result = simulate(graph, "fat_tree:k=4", network="fluid")
    found = explain(result, graph=graph)
    (one,) = found.communications
    uplinks = [i for i in range(result.topology.links) if result.topology.domains[result.topology.link_domain[i]] == "leaf"]
    shared = max(result.links.bytes[uplinks]) == 2 * max(result.links.bytes[:2])
    assert (one.contended_ps == one.ps) == shared


def pairs_then_all(network, **options):
    """One all_reduce of ranks i and i + 8 each, then one of all: hierarchical, unless an algorithm is given."""
    from distsim.trace.graph import Group

    own = Group("dp", {rank: (rank % 8, rank % 8 + 8) for rank in range(16)})
    some = {"collective": CollectiveType.ALL_REDUCE, "bytes": 1 << 26}
    rows = [(0, NodeType.COMM_COLL, [], some | {"group": 0}), (1, NodeType.COMM_COLL, [0], some)]
    graph = TaskGraph((program(rows),), np.zeros(16, np.int32), (own,), names=("",), source="made")
    result = simulate(graph, "rail_optimized:nodes=2", network=network, **options)
    return explain(result, graph=graph).communications


@pytest.mark.parametrize("network", ["fluid", "cut_through"])
def test_no_link_is_busy_for_longer_than_it_is_in_use(network):
    for one in pairs_then_all(network):
        assert one.load is not None
        assert one.load.share_in_use is not None
        assert 0.8 < one.load.share_in_use <= 1.0
        assert one.contended_ps == 0


def test_who_is_on_a_link_is_not_told_of_algorithms_whose_routes_are_not_known():
    for one in pairs_then_all("fluid", algorithm="all_reduce=halving_doubling"):
        assert one.load is not None
        assert one.load.share_in_use is None
        assert one.contended_ps is None


def test_repetitions_are_folded_and_their_times_kept():
    graph = graph_of(*(layers(8, lambda i: 100 + i) for _ in range(2)))
    result = simulate(graph, "switch:hosts=2", network="analytic")
    found = explain(result, graph=graph)
    (told,) = found.story.told
    assert isinstance(told, Repeat)
    assert (told.count, len(told.legs), told.ps) == (8, 16, result.makespan)
    assert sum(leg.ps for leg in told.legs if leg.activity == "compute") == sum(100 + i for i in range(8)) * US


def test_an_off_path_task_has_its_slack_and_a_chain():
    rows = [
        (0, NodeType.COMP, [], {"duration_ps": 100 * US, "stream": 0}),
        (1, NodeType.COMP, [], {"duration_ps": 40 * US, "stream": 1}),
        (2, NodeType.COMP, [1], {"duration_ps": 30 * US, "stream": 1}),
        (3, NodeType.COMP, [0, 2], {"duration_ps": 10 * US, "stream": 0}),
    ]
    graph = TaskGraph((program(rows),), np.zeros(1, np.int32), (), names=("a",), streams=("x", "y"), source="made")
    found = explain(simulate(graph, "switch:hosts=2", network="ideal"), graph=graph)
    assert found.slack is not None
    assert (found.slack.end // US).tolist() == [0, 30, 30, 0]
    (chain,) = found.slack.chains
    assert (chain.slack_ps, chain.work_ps, chain.ranks, chain.tasks) == (30 * US, 70 * US, (0,), 2)


def test_the_path_to_one_rank_ends_with_it():
    graph = graph_of(layers(1, lambda i: 10), program([(0, NodeType.COMP, [], {"duration_ps": 3 * US})]))
    graph = dataclasses.replace(graph, rank_program=np.array([1, 1], np.int32))
    result = simulate(graph, "switch:hosts=2", network="ideal")
    found = explain(result, rank=1, graph=graph)
    assert found.end_ps == 3 * US == sum(leg.ps for leg in found.story.legs)
    assert answer(found).startswith("to the end of rank 1 3 us on 2 ranks")
    with pytest.raises(ConfigError, match="no rank 2"):
        explain(result, rank=2, graph=graph)


def test_a_step_is_explained_by_itself():
    graph = graph_of(*(layers(4, lambda i: 10 * (i + 1), step=lambda i: i // 2) for _ in range(2)), steps=("s#0", "s#1"))
    result = simulate(graph, "switch:hosts=2", network="analytic")
    first, second = (explain(result, step=name, graph=graph) for name in ("s#0", "1"))
    assert (first.step, second.step) == ("s#0", "s#1")
    assert first.result.makespan + second.result.makespan == result.makespan
    assert [one.parts["compute"] // US for one in second.ranks] == [70, 70]
    assert second.slack is not None
    assert second.slack.exact
    with pytest.raises(UnknownNameError):
        explain(result, step="s#2", graph=graph)
    with pytest.raises(ConfigError, match="no steps"):
        explain(simulate(graph_of(layers(1, lambda i: 1)), "switch:hosts=2"), step="s#2")


def test_a_folded_step_is_explained_as_the_unfolded_one(tmp_path):
    point = {"model": "llama3-8b", "cluster": "dgx_h100:gpus=16", "tp": 2, "pp": 2, "global_batch": 16}
    folded, whole = (explain(reopen(save(train(**point, fold=fold).result, tmp_path / str(fold)))) for fold in (True, False))
    for mine, other in zip(folded.ranks, whole.ranks, strict=True):
        assert mine.parts == other.parts
        assert sum(mine.parts.values()) == folded.result.makespan
    assert [(one.name, one.step_ps) for one in folded.bounds] == [(one.name, one.step_ps) for one in whole.bounds]
    assert folded.story.contributions == whole.story.contributions
    assert {part for one in folded.ranks for part in one.compute} >= {"gemm", "attention", "exposed tp"}
    assert not folded.notes


def test_shares_of_a_class_are_whole_and_add_up():
    assert divided({0: 10, -1: 3}, ({"gemm": 1 / 3, "tp": 2 / 3},)) == {"tp": 7, "gemm": 3, "unnamed": 3}


def test_nothing_ran():
    graph = TaskGraph((program([]),), np.zeros(2, np.int32), (), names=("",), source="empty")
    found = explain(simulate(graph, "switch:hosts=2"), graph=graph)
    assert answer(found).startswith("0 s on 2 ranks: the critical path is empty")
    assert text(found)
    assert document(found)["path"]["told"] == []


def test_bounds_know_the_communication_inside_blocks():
    step = train(model="llama3-8b", cluster="dgx_h100:gpus=8", tp=8, dp=1, global_batch=1, seq=2048)
    found = explain(step.result)
    limit = {one.name: one.step_ps for one in found.bounds}
    blocks = [step.job.costs.block(0, way) for way in ("forward", "backward")]
    waited = sum(block.exposed["tp"] for block in blocks)
    between = sum(found.ranks[0].exposed.values())
    assert waited > 0.1 * step.result.makespan
    assert limit["infinite_network"] == pytest.approx(step.result.makespan - waited - between, abs=10)
    both = sum(max(sum(block.exposed.values()) + sum(block.hidden.values()), block.host) for block in blocks)
    assert limit["infinite_compute"] == pytest.approx(both + between, abs=10)


def test_bounds_of_work_and_of_the_fastest_alike():
    """Two ranks of unequal work; two recorded transfers of one size that take 10 and 30 us."""
    programs = []
    for compute in (100, 160):
        made = layers(2, lambda i, compute=compute: compute)
        durations = made.duration_ps.copy()
        durations[[1, 3]] = [10 * US, 30 * US]
        programs.append(dataclasses.replace(made, duration_ps=durations))
    result = simulate(dataclasses.replace(graph(*programs), captured=True), communication="recorded")
    limit = {one.name: one.step_ps for one in explain(result).bounds}
    assert result.makespan == 360 * US
    assert limit["fastest_communication"] == 340 * US
    assert limit["no_bubbles"] == (320 + 40) * US
    assert limit["perfect_balance"] == (260 + 40) * US
