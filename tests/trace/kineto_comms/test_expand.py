"""One captured rank becomes all ranks; what no network can be asked for is refused or kept, said plainly."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from kineto_jobs import moe_job

from distsim.api import simulate
from distsim.errors import ConfigError, TraceError
from distsim.trace.graph import NodeType
from distsim.trace.groups import instances
from distsim.trace.kineto.expand import expand
from distsim.trace.kineto.read import graph_of_captures
from distsim.trace.kineto.reading import read_capture


def graph_of(job, ranks):
    captures = [read_capture(job.files[rank], f"rank {rank}") for rank in ranks]
    graph, defects = graph_of_captures(captures, ranks, "made")
    return dataclasses.replace(graph, defects=tuple(defect.line() for defect in defects))


@pytest.mark.parametrize("rank", [0, 5])
def test_one_rank_becomes_the_job(rank):
    job = moe_job(1, 2, 4, pipeline=False)
    whole = expand(graph_of(job, [rank]), None)
    assert whole.ranks == 8
    assert len(whole.programs) == 1
    assert sorted(map(instances, whole.groups)) == sorted([job.groups["dp"], job.groups["ep"], job.groups["tp"]])
    assert any("1 of 8 ranks was captured" in line for line in whole.defects)
    result = simulate(whole, topology="fat_tree", communication="simulated")
    assert {len(row.members) for row in result.collectives} == {2, 4, 8}
    assert sum(row.operation == "all_reduce" for row in result.collectives) == 2


def test_more_ranks_than_were_there_keep_the_size_of_inner_groups():
    job = moe_job(1, 2, 4, pipeline=False)
    whole = expand(graph_of(job, [3]), 16)
    assert sorted(len(next(iter(g.members.values()))) for g in whole.groups) == [2, 4, 16]
    assert {g.members[13] for g in whole.groups} == {(12, 13), (12, 13, 14, 15), tuple(range(16))}
    with pytest.raises(ConfigError, match="does not divide 6 ranks"):
        expand(graph_of(job, [3]), 6)


def with_groups(graph, ranks):
    """The same, with its first communicator said to be of these ranks."""
    told = json.loads(graph.metadata["kineto.groups"])
    told[0] |= {"ranks": ranks, "size": len(ranks)}
    return dataclasses.replace(graph, metadata={**graph.metadata, "kineto.groups": json.dumps(told)})


def test_a_group_across_the_job_grows_with_it_and_an_uneven_one_is_refused():
    graph = graph_of(moe_job(1, 2, 4, pipeline=False), [1])
    assert expand(with_groups(graph, [1, 5]), 16).groups[0].members[2] == (2, 6, 10, 14)
    assert expand(with_groups(graph, [1, 3]), None).groups[0].members[6] == (4, 6)
    with pytest.raises(TraceError, match="not evenly spaced: 1, 2, 5"):
        expand(with_groups(graph, [1, 2, 5]), None)
    with pytest.raises(TraceError, match="not evenly spaced"):
        expand(with_groups(graph, [1, 2]), None)  # no block of two ranks in a row begins at 1


def test_captures_of_all_ranks_need_nothing():
    job = moe_job(2, 2, 2)
    graph = graph_of(job, range(4))
    whole = expand(graph, None)
    assert whole.rank_program.tolist() == [0, 1, 2, 3]
    assert whole.defects == graph.defects
    result = simulate(graph, topology="fat_tree", communication="simulated")
    assert sum(len(row.members) for row in result.collectives) == sum(map(len, job.kernels))
    with pytest.raises(ConfigError, match="4 ranks were captured, not 8"):
        expand(graph, 8)


def test_some_ranks_are_refused():
    with pytest.raises(TraceError, match="not captured"):
        expand(graph_of(moe_job(2, 2, 2, pipeline=False), [0, 1, 2]), None)


def test_a_pipeline_cannot_be_told_from_one_rank():
    with pytest.raises(TraceError, match="sends to or receives from single ranks"):
        expand(graph_of(moe_job(2, 2, 2), [0]), None)


def test_unknown_sizes_forbid_a_network_but_no_recorded_replay():
    job = moe_job(2, 2, 2, style="bare", pipeline=False)
    graph = graph_of(job, range(4))
    with pytest.raises(TraceError, match=r"bytes of .* are not told"):
        simulate(graph, topology="fat_tree", communication="simulated")
    assert simulate(graph, communication="recorded").makespan > 0


def test_what_has_no_counterpart_keeps_its_time_beside_the_network():
    graph = graph_of(moe_job(7, 2, 4, late={2: 1}), range(8))
    whole = expand(graph, None)
    kept = [np.count_nonzero((b.type == NodeType.DELAY) & (a.type == NodeType.COMM_COLL)) for a, b in zip(
        graph.programs, whole.programs, strict=True
    )]  # fmt: skip
    alone = [
        sum("unmatched" in graph.groups[g].name for g in p.group[p.type == NodeType.COMM_COLL].tolist()) for p in graph.programs
    ]
    assert kept == alone
    assert sum(kept) > 0
    assert any("keep their recorded time" in line for line in whole.defects)
    assert simulate(graph, topology="fat_tree", communication="simulated").makespan > 0


def test_other_traces_pass_through():
    graph = graph_of(moe_job(1, 1, 2, pipeline=False), range(2))
    other = dataclasses.replace(graph, captured=False)
    assert expand(other, None) is other
    with pytest.raises(ConfigError, match="has 2 ranks, not 3"):
        expand(other, 3)


def test_reference_ranks_are_laid_over_the_job(traces_reference):
    from distsim.trace.read import read_trace

    graph = expand(read_trace(str(traces_reference / "hta_rec_16xA100")), None)
    assert graph.ranks == 16
    assert sorted(len(g.members[0]) for g in graph.groups) == [8, 16, 16]
    assert any("nothing tells which 8 ranks" in line for line in graph.defects)


def test_a_communicator_that_is_called_by_its_ranks_is_called_by_those_of_the_job(traces_reference):
    from distsim.trace.read import read_trace

    captured = read_trace(str(traces_reference / "hta_rec_8xA100"))
    assert [group.name for group in captured.groups] == ["all 8 ranks"]
    assert [group.name for group in expand(captured, 16).groups] == ["all 16 ranks"]
