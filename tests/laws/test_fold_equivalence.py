"""Law 5, folding: one representative per class of symmetric ranks gives the times of all, to the picosecond."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from building import program
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.analysis.breakdown import PARTS, breakdown
from distsim.analysis.communication import traffic
from distsim.api import replay_folded
from distsim.topology.spec import build
from distsim.trace.graph import CollectiveType, Group, NodeType, PeerKind, TaskGraph

TOPOLOGIES = (
    "fat_tree", "fat_tree:oversubscription=4", "dgx_h100", "h100_superpod:nodes_per_unit=2,oversubscription=2", "torus",
    "switch", "rail_optimized:gpus_per_node=4,nodes_per_unit=2,oversubscription=2", "rail_optimized:gpus_per_node=4,rails=1",
)  # fmt: skip
KINDS = (
    CollectiveType.ALL_REDUCE, CollectiveType.ALL_GATHER, CollectiveType.REDUCE_SCATTER, CollectiveType.ALL_TO_ALL,
    CollectiveType.BROADCAST, CollectiveType.GATHER, CollectiveType.BARRIER,
)  # fmt: skip


def grid(pp, dp, tp):
    """Groups of ranks numbered tp fastest, then dp, then pp."""
    n, inner = pp * dp * tp, dp * tp
    tps = {r: tuple(range(r // tp * tp, r // tp * tp + tp)) for r in range(n)}
    dps = {r: tuple(range(r // inner * inner + r % tp, (r // inner + 1) * inner, tp)) for r in range(n)}
    return Group("tp", tps), Group("dp", dps)


@st.composite
def symmetric(draw):
    """SPMD: a program per stage, all of one random schedule of computation, collectives and messages."""
    pp, dp, tp = draw(st.sampled_from([(2, 2, 2), (1, 4, 4), (2, 4, 4), (4, 2, 4), (2, 2, 8), (4, 4, 4), (3, 4, 2)]))
    inner = dp * tp
    schedule = []
    for i in range(draw(st.integers(3, 12))):
        what = draw(st.sampled_from(["compute", "compute", "tp", "dp", "world", "pp", "pp back", "ring"]))
        deps = sorted(draw(st.sets(st.integers(0, i - 1), max_size=2))) if i else []
        schedule.append((what, deps, draw(st.sampled_from([1, 5000, 1 << 20, 1 << 24])), draw(st.sampled_from(KINDS))))
    times = draw(st.lists(st.integers(0, 400_000_000), min_size=5, max_size=5))
    programs = []
    for p in range(pp):
        rows, made = [], []
        for i, (what, deps, size, kind) in enumerate(schedule):
            before = [made[d] for d in deps]
            if what == "compute":
                added = [(NodeType.COMP, {"duration_ps": times[(i + 3 * p) % 5]})]
            elif what == "ring":
                values = {"peer_kind": PeerKind.IN_GROUP, "group": 0, "bytes": size, "tag": i}
                added = [(NodeType.COMM_SEND, {"peer": 1, **values}), (NodeType.COMM_RECV, {"peer": -1, **values})]
            elif what in ("pp", "pp back"):
                way = 1 if what == "pp" else -1
                sides = ((NodeType.COMM_SEND, way), (NodeType.COMM_RECV, -way))
                values = {"peer_kind": PeerKind.OFFSET, "bytes": size, "tag": i}
                added = [(k, {"peer": sign * inner, **values}) for k, sign in sides if 0 <= p + sign < pp]
            else:
                group = {"tp": 0, "dp": 1, "world": -1}[what]
                added = [(NodeType.COMM_COLL, {"collective": kind, "bytes": size, "group": group})]
            for kind_of, values in added:
                rows.append((len(rows), kind_of, before, values))
            if not added:
                rows.append((len(rows), NodeType.METADATA, before, {}))
            made.append(len(rows) - 1)
        programs.append(program(rows))
    return TaskGraph(tuple(programs), np.repeat(np.arange(pp, dtype=np.int32), inner), grid(pp, dp, tp), ("",), source="test")


def same(graph, topology, **options):
    """Run folded and unfolded; compare everything that both tell."""
    folded, whole = (replay_folded(graph, topology, fold=fold, **options) for fold in (True, False))
    assert whole.counts["classes"] == graph.ranks
    assert folded.makespan == whole.makespan
    assert folded.finish.tolist() == whole.finish.tolist()
    assert folded.links.bytes.tolist() == whole.links.bytes.tolist()
    assert folded.links.busy.tolist() == whole.links.busy.tolist()
    few, every = folded.spans(), whole.spans()
    assert few.multiplicity.sum() == len(every)
    for rank in range(graph.ranks):
        mine, stand_in = every.rank == rank, few.rank == folded.representative[rank]
        for column in ("node", "ready", "start", "end"):
            assert getattr(every, column)[mine].tolist() == getattr(few, column)[stand_in].tolist(), (rank, column)
    return folded


@settings(max_examples=60, deadline=None)
@given(graph=symmetric(), spec=st.sampled_from(TOPOLOGIES), level=st.sampled_from(["fluid", "fluid", "analytic"]))
def test_law_5_folded_is_unfolded(graph, spec, level):
    same(graph, build(spec, graph.ranks), network=level)


@settings(max_examples=20, deadline=None)
@given(graph=symmetric(), spec=st.sampled_from(TOPOLOGIES), slow=st.sampled_from([1.13, 1.5, 3]))
def test_law_5_folded_is_unfolded_with_interference(graph, spec, slow):
    same(graph, build(spec, graph.ranks), interfering=("dp", "tp"), slowdown=slow)


@settings(max_examples=30, deadline=None)
@given(graph=symmetric(), spec=st.sampled_from(TOPOLOGIES), odd=st.integers(0, 7), data=st.data())
def test_law_5_folded_is_unfolded_where_one_rank_is_slow(graph, spec, odd, data):
    number = int(graph.rank_program[odd])
    one = graph.programs[number]
    slow = dataclasses.replace(one, duration_ps=np.where(one.duration_ps > 0, one.duration_ps * 3 + 1, one.duration_ps))
    which = graph.rank_program.copy()
    which[odd] = len(graph.programs)
    broken = dataclasses.replace(graph, programs=(*graph.programs, slow), rank_program=which)
    folded = same(broken, build(spec, graph.ranks))
    assert folded.representative[odd] == odd
    assert np.count_nonzero(folded.representative == odd) == 1


@pytest.mark.parametrize("placing", ["reversed", "shuffled"])
@settings(max_examples=15, deadline=None)
@given(graph=symmetric(), spec=st.sampled_from(TOPOLOGIES), seed=st.integers(0, 99))
def test_law_5_folded_is_unfolded_however_ranks_are_placed(placing, graph, spec, seed):
    topology = build(spec, graph.ranks)
    every = np.arange(graph.ranks)
    hosts = every[::-1] if placing == "reversed" else np.random.default_rng(seed).permutation(every)
    same(graph, topology, hosts=hosts)


@settings(max_examples=15, deadline=None)
@given(graph=symmetric(), spec=st.sampled_from(TOPOLOGIES))
def test_law_5_the_breakdown_of_a_folded_run_is_that_of_all_ranks(graph, spec):
    topology = build(spec, graph.ranks)
    folded, whole = (replay_folded(graph, topology, fold=fold) for fold in (True, False))
    few, every = breakdown(folded), breakdown(whole)
    for part in (*PARTS, "waiting", "hidden"):
        assert getattr(few, part).tolist() == getattr(every, part).tolist(), part
    for column in ("rank", "kind", "group", "exposed", "hidden", "waiting"):
        assert getattr(few.shares, column).tolist() == getattr(every.shares, column).tolist(), column
    # which sender a receiver waited for is not in the span table, so that receives may differ (analysis/underway.py)
    mine, theirs = (
        [row for row in traffic(result, split) if row.operation != "recv"]
        for result, split in ((folded, few), (whole, every))
    )  # fmt: skip
    for row, other in zip(mine, theirs, strict=True):
        for name in ("operation", "group", "ranks", "count", "bytes", "algorithm"):
            assert getattr(row, name) == getattr(other, name), name
        for name in ("time_ps", "exposed_ps", "waiting_ps", "algbw", "busbw"):
            assert getattr(row, name) == pytest.approx(getattr(other, name)), name
