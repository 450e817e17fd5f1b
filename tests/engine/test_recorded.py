"""Delays, and collectives that take the transfer times that were recorded."""

from __future__ import annotations

import numpy as np
import pytest
from building import graph, program
from hypothesis import given
from hypothesis import strategies as st

from distsim.api import simulate
from distsim.errors import ConfigError
from distsim.trace.graph import CollectiveType, NodeType
from distsim.workload.captured import recorded


def captured(*programs):
    """A captured trace."""
    import dataclasses

    return dataclasses.replace(graph(*programs), captured=True, streams=("gpu", "comm"))


def ends(result):
    spans = result.spans()
    columns = (column.tolist() for column in (spans.rank, spans.node, spans.start, spans.end))
    return {(rank, node): (start, end) for rank, node, start, end in zip(*columns, strict=True)}


def test_delays_run_beside_each_other_and_beside_work():
    one = program([
        (0, NodeType.COMP, [], {"duration_ps": 10, "stream": 0}),
        (1, NodeType.DELAY, [], {"duration_ps": 7}),
        (2, NodeType.DELAY, [], {"duration_ps": 9}),
        (3, NodeType.COMP, [1, 2], {"duration_ps": 5, "stream": 0}),
    ])  # fmt: skip
    result = simulate(captured(one))
    assert ends(result) == {(0, 0): (0, 10), (0, 1): (0, 7), (0, 2): (0, 9), (0, 3): (10, 15)}
    spans = result.spans()
    assert [spans.kinds[k] for k in spans.kind] == ["compute", "delay", "delay", "compute"]


def test_a_delay_on_a_stream_passes_before_a_late_launch_arrives():
    """The gap after a kernel and the latency of the next launch run beside each other: the later one counts."""
    for launch, start in ((3, 14), (20, 20)):
        one = program([
            (0, NodeType.COMP, [], {"duration_ps": 10, "stream": 0}),
            (1, NodeType.DELAY, [], {"duration_ps": launch}),
            (2, NodeType.DELAY, [], {"duration_ps": 4, "stream": 0}),
            (3, NodeType.COMP, [1], {"duration_ps": 5, "stream": 0}),
        ])  # fmt: skip
        assert ends(simulate(captured(one)))[0, 3] == (start, start + 5)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=5))
def test_members_end_after_their_own_transfer_from_the_last_arrival(members):
    """(when it comes, its transfer) of every member."""
    programs = [
        program([
            (0, NodeType.COMP, [], {"duration_ps": comes, "stream": 0}),
            (1, NodeType.COMM_COLL, [0], {
                "collective": CollectiveType.ALL_REDUCE, "bytes": 1 << 20, "duration_ps": transfer, "stream": 1,
            }),
            (2, NodeType.COMP, [1], {"duration_ps": 1, "stream": 0}),
        ])
        for comes, transfer in members
    ]  # fmt: skip
    result = simulate(captured(*programs))
    last, found = max(comes for comes, _ in members), ends(result)
    for rank, (comes, transfer) in enumerate(members):
        assert found[rank, 1] == (comes, last + transfer)
        assert found[rank, 2] == (last + transfer, last + transfer + 1)
    (row,) = result.collectives
    assert (row.start_ps, row.end_ps, row.algorithm) == (last, last + max(t for _, t in members), "recorded")
    assert result.makespan == last + max(t for _, t in members) + 1
    assert not result.links.bytes.any()


def test_the_network_is_simulated_where_one_is_named():
    said = {"collective": CollectiveType.ALL_REDUCE, "bytes": 1 << 20, "duration_ps": 5, "stream": 1}
    one = [(0, NodeType.COMM_COLL, [], said)]
    trace = captured(program(one), program(one))
    kept = simulate(trace)
    assert kept.makespan == 5
    assert kept.spec["communication"] == "recorded"
    assert any("no network is simulated" in line for line in kept.provenance["inferred"])
    moved = simulate(trace, "switch:bandwidth=1GB/s")
    assert moved.makespan > 1_000_000
    assert moved.spec["communication"] == "simulated"
    assert simulate(trace, "switch:bandwidth=1GB/s", communication="recorded").makespan == 5
    assert simulate(trace, communication="simulated").makespan > 5


def test_recorded_times_are_refused_where_there_are_none():
    with pytest.raises(ConfigError, match="not captured"):
        recorded(graph(program([(0, NodeType.COMP, [], {"duration_ps": 1})])), "recorded", ())
    with pytest.raises(ConfigError, match="not captured"):
        simulate(graph(program([(0, NodeType.COMP, [], {"duration_ps": 1})])), communication="recorded")
    assert np.array_equal(simulate(captured(program([(0, NodeType.COMP, [], {"duration_ps": 1})]))).finish, [1])


def test_no_path_is_refused():
    with pytest.raises(ConfigError, match="no trace"):
        simulate(())
