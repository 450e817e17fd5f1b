"""Laws of explain, on random graphs that are simulated again: the network reproduces the run, slack is exact, parts add up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from building import program
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from distsim import simulate
from distsim.analysis.activity import activities
from distsim.analysis.critical import critical_path
from distsim.analysis.explain.bounds import bounds
from distsim.analysis.explain.classes import left_of
from distsim.analysis.explain.findings import explain
from distsim.analysis.explain.slack import slack
from distsim.analysis.source import Source, source_of, told_by, with_senders
from distsim.analysis.underway import under_way
from distsim.cli.shipped import shipped
from distsim.trace.graph import CollectiveType, Group, NodeType, PeerKind, TaskGraph

KINDS = (CollectiveType.ALL_REDUCE, CollectiveType.ALL_TO_ALL, CollectiveType.BARRIER)


@st.composite
def graphs(draw):
    """Ranks with one schedule of computation on two streams, collectives of all or of pairs, and messages round a ring; times,
    and which of the earlier nodes a node waits for, differ by rank."""
    ranks = draw(st.sampled_from([2, 4]))
    count = draw(st.integers(2, 12))
    kinds = ["compute", "compute", "side", "delay", "world", "pair", "ring", "host"]
    sizes = [0, 4096, 1 << 20]
    schedule = [tuple(draw(st.sampled_from(one)) for one in (kinds, sizes, KINDS)) for _ in range(count)]
    pairs = {rank: (rank // 2 * 2, rank // 2 * 2 + 1) for rank in range(ranks)}
    programs = []
    for _ in range(ranks):
        rows, made = [], []
        for i, (what, size, kind) in enumerate(schedule):
            before = sorted({made[d] for d in draw(st.sets(st.integers(0, i - 1), max_size=3))}) if i else []
            ps = draw(st.integers(0, 60)) * 1_000_000
            if what in ("compute", "side", "host"):
                values = {"duration_ps": ps, "stream": ("compute", "side", "host").index(what), "cpu": what == "host"}
                rows.append((len(rows), NodeType.COMP, before, values))
            elif what == "delay":
                rows.append((len(rows), NodeType.DELAY, before, {"duration_ps": ps}))
            elif what == "ring":
                common = {"peer_kind": PeerKind.IN_GROUP, "group": -1, "bytes": size, "tag": i}
                rows.append((len(rows), NodeType.COMM_SEND, before, {"peer": 1, "stream": 3, **common}))
                rows.append((len(rows), NodeType.COMM_RECV, before, {"peer": -1, **common}))
            else:
                group = -1 if what == "world" else 0
                rows.append((len(rows), NodeType.COMM_COLL, before, {"collective": kind, "bytes": size, "group": group}))
            made.append(len(rows) - 1)
        programs.append(program(rows))
    return TaskGraph(
        tuple(programs), np.arange(ranks, dtype=np.int32), (Group("pair", pairs),), names=("work 1",),
        streams=("compute", "side", "host", "net"), source="random",
    )  # fmt: skip


def run(graph, network="analytic"):
    return simulate(graph, f"switch:hosts={graph.ranks},bandwidth=50GB/s", network=network)


def network_of(result, graph):
    told = told_by(result, source_of(result, graph))
    moving = with_senders(under_way(result), told, result.spans())
    return moving, activities(result, moving, told)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=graphs())
def test_law_the_network_of_activities_gives_back_the_run(graph):
    result = run(graph)
    moving, network = network_of(result, graph)
    assert (network.ends() == network.end).all()
    assert (network.lag == 0).all()
    path = critical_path(result, moving)
    assert (slack(result, network).end[path.row] == 0).all()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=graphs(), data=st.data())
def test_law_a_delay_moves_the_end_by_what_exceeds_the_slack(graph, data):
    result = run(graph)
    spans = result.spans()
    timed = [row for row in range(len(spans)) if spans.kinds[spans.kind[row]] in ("compute", "host", "delay")]
    if not timed:
        return
    row = data.draw(st.sampled_from(timed))
    free = slack(result, network_of(result, graph)[1]).end[row]
    more = data.draw(st.sampled_from([1, max(int(free) // 2, 1), int(free), int(free) + 1, int(free) + 7_000_000]))
    rank = int(spans.rank[row])
    at = int(np.flatnonzero(graph.programs[rank].id == spans.node[row])[0])
    longer = graph.programs[rank].duration_ps.copy()
    longer[at] += more
    programs = list(graph.programs)
    programs[rank] = dataclasses.replace(programs[rank], duration_ps=longer)
    again = run(dataclasses.replace(graph, programs=tuple(programs)))
    assert again.makespan == result.makespan + max(0, more - int(free))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=graphs())
def test_law_bounds_are_what_running_again_gives(graph):
    result = run(graph)
    moving, network = network_of(result, graph)
    found = {one.name: one.step_ps for one in bounds(result, moving, network, (), left_of(graph.names, Source(None)))}
    assert found["infinite_network"] == run(graph, "ideal").makespan
    quick = tuple(
        dataclasses.replace(one, duration_ps=np.where((one.type == NodeType.COMP) & ~one.cpu, 0, one.duration_ps))
        for one in graph.programs
    )
    assert found["infinite_compute"] == run(dataclasses.replace(graph, programs=quick)).makespan
    assert all(value <= result.makespan for value in found.values())


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=graphs())
def test_law_parts_of_every_rank_and_of_the_path_add_up(graph):
    result = run(graph)
    found = explain(result, graph=graph)
    assert all(sum(one.parts.values()) == result.makespan for one in found.ranks)
    assert all(time >= 0 for one in found.ranks for time in one.parts.values())
    assert sum(leg.ps for leg in found.story.legs) == result.makespan == found.end_ps
    assert sum(one.ps for one in found.story.told) == result.makespan
    assert sum(one.ps for one in found.story.contributions if one.by == "kind") == result.makespan
    assert not found.notes


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graph=graphs())
def test_law_without_the_trace_slack_is_an_upper_bound(graph):
    assume(all((one.type != NodeType.COMM_SEND).all() for one in graph.programs))  # messages are then found by their times
    result = run(graph)
    moving, network = network_of(result, graph)
    rough = activities(result, moving, None)
    assert not rough.complete
    assert (slack(result, rough).end >= slack(result, network).end).all()


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("pipeline_send_recv", "fluid"), ("pipeline_send_recv", "chunk"), ("dp_overlapped_buckets", "fluid"),
        ("dp_overlapped_buckets", "chunk"), ("moe_all_to_all", "chunk"),
    ],
)  # fmt: skip
def test_law_on_shipped_traces_the_path_has_no_slack_and_parts_add_up(name, network):
    result = simulate(shipped()[name], "fat_tree", network=network)
    found = explain(result)
    moving, network_ = network_of(result, None)
    assert (network_.ends() == network_.end).all()
    assert found.slack is not None
    assert found.slack.exact
    assert (found.slack.end[critical_path(result, moving).row] == 0).all()
    assert all(sum(one.parts.values()) == result.makespan for one in found.ranks)
    free = found.slack
    assert sum(one.tasks for one in free.bins) == np.count_nonzero(network_.length[: network_.spans] > 0)
    assert [chain.slack_ps for chain in free.chains] == sorted(chain.slack_ps for chain in free.chains)
