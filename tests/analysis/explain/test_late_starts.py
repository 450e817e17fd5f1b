"""Captured runs whose ranks begin at different times, and whose host works while the GPU waits: worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from building import program

from distsim import simulate
from distsim.analysis.explain.findings import explain
from distsim.report.explain import answer, text
from distsim.trace.graph import BEFORE_CAPTURE, CollectiveType, NodeType, TaskGraph

US = 1_000_000


@pytest.fixture(scope="module")
def found():
    """Two ranks: host 10 us, kernel 20 us, all_reduce; rank 1 begins 70 us late. The host of rank 0 works beside its wait."""
    programs = []
    for late in (0, 70):
        rows = [(0, NodeType.DELAY, [], {"duration_ps": late * US, "name": 0})]
        rows.append((1, NodeType.COMP, [0], {"duration_ps": 10 * US, "name": 1, "stream": 0, "cpu": True}))
        rows.append((2, NodeType.COMP, [1], {"duration_ps": 20 * US, "name": 2, "stream": 1}))
        rows.append((3, NodeType.COMM_COLL, [2], {"collective": CollectiveType.ALL_REDUCE, "bytes": 1024, "stream": 1}))
        rows.append((4, NodeType.COMP, [1], {"duration_ps": 40 * US, "name": 1, "stream": 0, "cpu": True}))
        programs.append(program(rows if late else [(i - 1, k, [d - 1 for d in deps if d], v) for i, k, deps, v in rows[1:]]))
    names = (BEFORE_CAPTURE, "host work before cudaLaunchKernel", "gemm")
    graph = TaskGraph(tuple(programs), np.arange(2, dtype=np.int32), (), names=names, streams=("host", "gpu"), source="made")
    return explain(simulate(graph, "switch:hosts=2", network="ideal"), graph=graph)


def test_a_late_start_is_named_in_the_answer_the_story_and_the_parts(found):
    assert [(one.rank, one.after_ps, one.first) for one in found.late_starts] == [(1, 70 * US, 0)]
    assert [one.parts["late_start"] // US for one in found.ranks] == [0, 70]
    assert "late start (rank 1 began 70 us after rank 0)" in answer(found)
    said = text(found)
    assert "late start: rank 1 began 70 us after rank 0" in said
    assert "latency" not in said
    assert "nothing known" not in said


def test_no_bound_of_the_host_takes_a_late_start_away(found):
    limit = {one.name: one.step_ps // US for one in found.bounds}
    assert (limit["free_host"], limit["no_late_start"]) == (90, 50)


def test_waiting_for_a_late_member_is_not_the_host_that_works_beside_it(found):
    first = found.ranks[0].parts
    # waits from 30 to 100 us, although its host works until 50 us
    assert (first["stragglers"], first["host"]) == (70 * US, 10 * US)
    assert [one.caused_ps for one in found.stragglers] == [first["stragglers"]]
    assert sum(first.values()) == found.result.makespan


def test_launches_are_counted_with_their_host_work(found):
    assert [(one.launches, one.host_work) for one in found.ranks] == [(2, 50 * US)] * 2
    assert "2 launches a rank, 25 us of host work each" in " ".join(text(found).split())
