"""Folded replay on small cases whose times are known: coflows of collectives and messages, links, interference, errors."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from building import graph, program

from distsim.api import replay_folded, simulate
from distsim.errors import CollectiveError, ConfigError, DeadlockError, TopologyError, TraceError, UnknownNameError
from distsim.nccl.model import plan
from distsim.nccl.system import system_of_topology
from distsim.topology.spec import build
from distsim.trace.graph import CollectiveType, Group, NodeType, PeerKind, TaskGraph

SWITCH = "switch:bandwidth=50GBps,latency=500ns"  # 20 ps a byte, 1 us a path
MIB = 1 << 20


def compute(ps, *deps, **more):
    return (0, NodeType.COMP, list(deps), {"duration_ps": ps, **more})


def collective(kind, size, *deps, **more):
    return (0, NodeType.COMM_COLL, list(deps), {"collective": CollectiveType[kind.upper()], "bytes": size, **more})


def send(peer, size, *deps, **more):
    return (0, NodeType.COMM_SEND, list(deps), {"peer": peer, "bytes": size, "peer_kind": PeerKind.OFFSET, **more})


def receive(peer, size, *deps, **more):
    return (0, NodeType.COMM_RECV, list(deps), {"peer": peer, "bytes": size, "peer_kind": PeerKind.OFFSET, **more})


def spmd(ranks, *rows, groups=()):
    """All ranks run these rows."""
    return TaskGraph((program(rows),), np.zeros(ranks, np.int32), tuple(groups), ("",), source="test")


def links(result, *names):
    """Bytes of links by name."""
    number = {result.topology.link_name(i): i for i in range(result.topology.links)}
    return [int(result.links.bytes[number[name]]) for name in names]


# --- times ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "moved", "hops"), [
    ("all_reduce", 2 * 3 / 4, 6), ("reduce_scatter", 3 / 4, 3), ("all_gather", 3, 3), ("broadcast", 3 / 4, 3),
    ("barrier", 0, 3), ("all_to_all", 3 / 4, 1), ("gather", 3, 1), ("scatter", 3 / 4, 1),
])  # fmt: skip
def test_a_collective_alone_takes_its_closed_form(kind, moved, hops):
    result = replay_folded(spmd(4, collective(kind, 4 * MIB)), build(SWITCH, 4))
    assert result.makespan == moved * 4 * MIB * 20 + hops * 1_000_000
    if kind not in ("gather", "scatter"):  # every rank sends as much
        assert (result.links.bytes == moved * 4 * MIB).all()
        assert (result.links.busy == moved * 4 * MIB * 20).all()


def test_a_message_alone_takes_its_closed_form():
    result = replay_folded(graph(program([send(1, MIB)]), program([receive(-1, MIB)])), build(SWITCH, 2))
    assert result.makespan == MIB * 20 + 1_000_000
    assert sorted(result.links.bytes.tolist()) == [0, 0, MIB, MIB]


def test_collectives_and_messages_take_what_nccl_says_where_the_gpus_are_known():
    topology = build("dgx_h100", 16)
    system = system_of_topology(topology, list(range(16)))
    took = replay_folded(spmd(16, collective("all_reduce", 64 * MIB)), topology)
    assert took.makespan == plan("all_reduce", 64 * MIB, system).time_ps
    took = replay_folded(spmd(16, collective("all_gather", 4 * MIB)), topology)
    assert took.makespan == plan("all_gather", 64 * MIB, system).time_ps
    programs = (program([send(8, 64 * MIB)]), program([receive(-8, 64 * MIB)]))
    pairs = TaskGraph(programs, np.repeat(np.arange(2, dtype=np.int32), 8), (), ("",), source="test")
    alone = plan("send_recv", 64 * MIB, system_of_topology(topology, [0, 8])).time_ps
    assert replay_folded(pairs, topology).makespan == alone
    assert replay_folded(pairs, topology, nccl=False).makespan < alone


def test_devices_that_nccl_does_not_know_are_timed_by_their_links_and_said_so():
    result = replay_folded(spmd(64, collective("all_reduce", MIB)), build("tpu_v5p:dims=4x4x4", 64))
    assert result.makespan > 0
    assert any("timed by links alone" in warning for warning in result.warnings)


def test_rails_carry_a_ring_between_nodes_in_equal_parts():
    result = replay_folded(spmd(16, collective("all_reduce", 8 * MIB)), build("dgx_h100", 16))
    whole = 2 * 15 * 8 * MIB / 16
    names = [result.topology.node_names[i] for i in range(16)]
    for host in names:
        rail = int(host[3:]) % 8
        assert links(result, f"{host}->rail{rail}") == [whole / 8]
    nvlink = result.topology.link_domain == result.topology.domains.index("nvlink")
    assert result.links.bytes[nvlink].tolist() == [whole * 7 / 8] * 32


def test_two_messages_into_one_host_share_its_link():
    into = graph(program([receive(1, MIB), receive(2, MIB)]), program([send(-1, MIB)]), program([send(-2, MIB)]))
    alone = MIB * 20 + 1_000_000
    result = replay_folded(into, build(SWITCH, 3))
    # each asks for MIB * 20 / alone of the link
    assert result.makespan == pytest.approx(2 * MIB * 20, abs=2)
    assert replay_folded(into, build(SWITCH, 3), network="analytic").makespan == alone


def test_what_never_meets_is_never_slowed():
    shift = spmd(8, send(4, MIB, peer_kind=PeerKind.IN_GROUP), receive(4, MIB, peer_kind=PeerKind.IN_GROUP))
    result = replay_folded(shift, build(SWITCH, 8))
    assert result.makespan == MIB * 20 + 1_000_000
    assert result.counts["classes"] == 1
    assert result.counts["network_events"] == 0


@pytest.mark.parametrize("sources", [1, 2, 5])
def test_levels_agree_with_fluid_where_all_flows_are_alike(sources):
    """Incast without latency: max-min shares of flows and of coflows are the same."""
    rows = [program([receive(i + 1, MIB) for i in range(sources)])] + [program([send(-i - 1, MIB)]) for i in range(sources)]
    topology = build("switch:bandwidth=50GBps,latency=0", sources + 1)
    fluid = simulate(graph(*rows), topology, network="fluid")
    ours = replay_folded(graph(*rows), topology)
    assert ours.makespan == fluid.makespan == sources * MIB * 20
    assert ours.links.bytes.tolist() == fluid.links.bytes.tolist()


def test_the_last_byte_of_several_sizes_comes_as_in_fluid():
    """A busy link does as much on either level, though coflows share it by speed, flows by bytes."""
    rows = [program([receive(i, i * MIB) for i in (1, 2, 3)]), *(program([send(-i, i * MIB)]) for i in (1, 2, 3))]
    topology = build("switch:bandwidth=50GBps,latency=0", 4)
    assert replay_folded(graph(*rows), topology).makespan == pytest.approx(
        simulate(graph(*rows), topology, network="fluid").makespan, abs=5
    )


# --- folding ----------------------------------------------------------------------------------------------------------------


def stages(count, size):
    """``count`` stages of ``size`` ranks: each passes a message on and gathers its gradients beside it."""
    made = []
    for stage in range(count):
        rows = [] if stage == 0 else [receive(-size, 16 * MIB)]
        rows += [compute(10_000_000 * (stage + 1), *range(len(rows)))]
        if stage < count - 1:
            rows += [send(size, 16 * MIB, len(rows) - 1)]
        rows += [collective("all_reduce", 64 * MIB, len(rows) - 1 if stage == count - 1 else len(rows) - 2, group=0)]
        made.append(program(rows))
    groups = (Group("dp", {r: tuple(range(r // size * size, r // size * size + size)) for r in range(count * size)}),)
    return TaskGraph(tuple(made), np.repeat(np.arange(count, dtype=np.int32), size), groups, ("",), source="test")


def test_one_rank_per_stage_is_simulated_and_the_links_carry_all():
    trace, topology = stages(4, 64), build("h100_superpod", 256)
    result = replay_folded(trace, topology)
    assert result.counts["classes"] == 4
    assert result.representative.tolist() == np.repeat([0, 64, 128, 192], 64).tolist()
    assert result.folded == ("256 ranks run 4 programs",)
    assert result.spans().multiplicity.tolist() == [64] * len(result.spans())
    nics = np.flatnonzero((topology.link_src < 256) & (topology.link_domain == topology.domains.index("rail")))
    ring = 2 * 63 * 64 * MIB / 64 / 8
    assert result.links.bytes[nics].tolist() == [round(ring) + 16 * MIB] * 192 + [round(ring)] * 64
    assert result.finish.tolist() == replay_folded(trace, topology, fold=False).finish.tolist()


def test_16384_ranks_are_ordinary():
    """16 stages of 1,024: all links carry what they would, one rank per stage is simulated."""
    trace, topology = stages(16, 1024), build("h100_superpod", 16_384)
    before = time.process_time()
    result = replay_folded(trace, topology)
    assert time.process_time() - before < 10  # 0.4 s on an idle machine
    assert result.folded == ("16,384 ranks run 16 programs",)
    assert (result.counts["classes"], result.counts["simulated"]) == (16, 62)
    small = replay_folded(stages(16, 32), build("h100_superpod", 512), network="analytic")
    assert result.finish[0] > small.finish[0]  # larger rings
    assert int(result.links.bytes[topology.link_src < topology.hosts].sum()) == pytest.approx(
        16 * 2 * 1023 * 64 * MIB * (7 / 8 + 1 / 8) + 15 * 1024 * 16 * MIB
    )


def test_uneven_pods_unfold_as_far_as_they_differ_and_say_why():
    """Three nodes in units of two: the third's traffic alone crosses the thin spine."""
    shift = spmd(24, compute(1000), collective("all_gather", 4 * MIB, 0, group=0), send(8, MIB, 0, peer_kind=PeerKind.IN_GROUP),
                 receive(-8, MIB, peer_kind=PeerKind.IN_GROUP),
                 groups=[Group("pair", {r: (r // 2 * 2, r // 2 * 2 + 1) for r in range(24)})])  # fmt: skip
    spec = "rail_optimized:nodes=3,nodes_per_unit=2,rails=1,oversubscription=8"
    topology = build(spec, 24)
    result = replay_folded(shift, topology)
    by_place = "1 class of ranks became 3 by where they sit: their communication takes other times even on idle links"
    assert result.folded == ("24 ranks run 1 program", by_place)
    assert result.representative.tolist() == np.repeat([0, 8, 16], 8).tolist()
    assert result.finish.tolist() == replay_folded(shift, topology, fold=False).finish.tolist()
    topology = build(spec + ",latency=0,nvlink_latency=0", 24)  # now only the shared links tell them apart
    result = replay_folded(shift, topology)
    by_links = "1 class of ranks became 3 by the links that their communication shares with others"
    assert result.folded == ("24 ranks run 1 program", by_links)
    assert result.finish.tolist() == replay_folded(shift, topology, fold=False).finish.tolist()
    spans = result.spans()
    sends = spans.kind == spans.kinds.index("send")
    assert spans.rank[sends].tolist() == [0, 8, 16]
    # within the unit each over its own cables; from unit to unit eight over two
    assert (spans.end - spans.start)[sends].tolist() == [MIB * 20, 4 * MIB * 20, 4 * MIB * 20]
    assert replay_folded(shift, topology, network="analytic").counts["classes"] == 1


def test_ranks_that_wait_for_a_slow_one_are_told_apart():
    trace = stages(2, 8)
    which = trace.rank_program.copy()
    which[11] = 2
    slow = program([receive(-8, 16 * MIB), compute(500_000_000, 0), collective("all_reduce", 64 * MIB, 1, group=0)])
    trace = dataclasses.replace(trace, rank_program=which, programs=(*trace.programs[:2], slow))
    result = replay_folded(trace, build("switch", 16))
    assert result.counts["classes"] == 4  # the slow one, its stage, who sends to it, their stage
    assert result.folded[1] == "3 classes of ranks became 4 by what their communicators and peers are"
    assert result.finish.tolist() == replay_folded(trace, build("switch", 16), fold=False).finish.tolist()


def test_ranks_meet_themselves_in_a_ring():
    """All are of one class, and so are both ends of every message; two directions are not mixed up."""
    ring = [(0, kind, [], {"peer": by, "bytes": size, "peer_kind": PeerKind.IN_GROUP, "group": 0})
            for kind, by, size in ((NodeType.COMM_SEND, 1, 5000), (NodeType.COMM_SEND, -1, 70_000),
                                   (NodeType.COMM_RECV, -1, 5000), (NodeType.COMM_RECV, 1, 70_000))]  # fmt: skip
    groups = [Group("ring", {r: tuple(range(r // 4 * 4, r // 4 * 4 + 4)) for r in range(16)})]
    result = replay_folded(spmd(16, *ring, groups=groups), build(SWITCH, 16))
    assert result.counts["classes"] == 1


# --- interference -----------------------------------------------------------------------------------------------------------


def beside(start, work, **more):
    """Computation of ``work`` ps, and an all-reduce (19 us) that begins ``start`` ps after it."""
    rows = [compute(start, cpu=True), compute(work), collective("all_reduce", 450_000, 0, group=0)]
    group = Group("dp", {r: (0, 1) for r in range(2)})
    result = replay_folded(spmd(2, *rows, groups=[group]), build(SWITCH, 2), **more)
    spans = result.spans()
    assert result.collectives[0].end_ps - result.collectives[0].start_ps == 450_000 * 20 + 2_000_000
    return int(spans.end[1])


@pytest.mark.parametrize(("start", "work", "factor", "end"), [
    (1_000, 1_000, 2, 1_000),  # over before it begins
    (1_000, 11_001_000, 2, 1_000 + 11_000_000 + 5_500_000),  # all of it beside: half is done; the rest at full speed
    (1_000, 3_001_000, 2, 1_000 + 6_000_000),  # the rest of it beside, at half speed
    (1_000, 1_001_000, 1.13, 1_000 + 1_130_000),
    (1_000, 1_001, 1.13, 1_002),  # 1.13 ps of work, rounded up
    (1_000, 50_000_000, 1, 50_000_000),
])  # fmt: skip
def test_computation_is_slower_while_a_collective_runs(start, work, factor, end):
    assert beside(start, work, interfering=("dp",), slowdown=factor) == end


def test_only_named_communicators_interfere():
    assert beside(1_000, 3_001_000, interfering=("tp",), slowdown=2) == 3_001_000
    assert beside(1_000, 3_001_000, slowdown=2) == 3_001_000


def test_a_chain_of_tasks_is_slowed_task_by_task():
    rows = [compute(1000, cpu=True), *(compute(2_000_000, *([i] if i else [])) for i in range(8)),
            collective("all_reduce", 450_000, 0, group=0)]  # fmt: skip
    trace = spmd(2, *rows, groups=[Group("dp", {r: (0, 1) for r in range(2)})])
    spans = replay_folded(trace, build(SWITCH, 2), interfering=("dp",), slowdown=2).spans()
    # 1 ns at full speed, then 11 us beside the collective, in which 5.5 us of work are done
    assert spans.end[1:9].tolist() == [3_999_000, 7_999_000, *range(11_500_000, 21_500_001, 2_000_000)]


# --- errors -----------------------------------------------------------------------------------------------------------------


def test_a_member_that_never_comes_is_named():
    group = Group("dp", {r: tuple(range(8)) for r in range(8)})
    programs = (program([collective("all_reduce", MIB, group=0)]), program([compute(5)]))
    trace = TaskGraph(programs, np.array([0] * 7 + [1], np.int32), (group,), ("",), source="test")
    said = r"rank 0 waits in all_reduce number 0 of dp \(1048576 bytes\), where rank 7 never came"
    with pytest.raises(DeadlockError, match=said):
        replay_folded(trace, build("switch", 8))


def test_messages_that_nobody_sends_or_receives_are_named():
    with pytest.raises(DeadlockError, match="rank 1 waits for a message of 5 bytes from rank 0 with tag 0, which is"):
        replay_folded(graph(program([compute(1)]), program([receive(-1, 5)])), build("switch", 2))
    with pytest.raises(DeadlockError, match="rank 0 sent rank 1 5 bytes with tag 0, which are never received"):
        replay_folded(graph(program([send(1, 5)]), program([compute(1)])), build("switch", 2))


def test_sizes_must_agree():
    with pytest.raises(TraceError, match="rank 0 sends rank 1 5 bytes with tag 0, but the receive wants 6 bytes"):
        replay_folded(graph(program([send(1, 5)]), program([receive(-1, 6)])), build("switch", 2))
    with pytest.raises(CollectiveError, match="asks for bytes 5"):
        replay_folded(graph(program([collective("all_reduce", 5)]), program([collective("all_reduce", 6)])), build("switch", 2))


def test_members_must_agree_on_who_they_are():
    group = Group("odd", {0: (0, 1), 1: (1, 0), 2: (2, 3), 3: (2, 3)})
    with pytest.raises(CollectiveError, match="rank 1 and others of group 'odd' do not name the same members"):
        replay_folded(spmd(4, collective("all_reduce", 5, group=0), groups=[group]), build("switch", 4))
    with pytest.raises(TraceError, match="not a member"):
        replay_folded(spmd(4, collective("all_reduce", 5, group=0), groups=[Group("few", {0: (0,)})]), build("switch", 4))
    with pytest.raises(TraceError, match="names rank 4 as its peer"):
        replay_folded(spmd(4, send(1, 5)), build("switch", 4))


def test_bad_options_are_refused():
    trace = spmd(4, compute(5))
    with pytest.raises(UnknownNameError, match="fluid"):
        replay_folded(trace, build("switch", 4), network="fluide")
    with pytest.raises(ConfigError, match=r"0.5 times as long"):
        replay_folded(trace, build("switch", 4), interfering=("dp",), slowdown=0.5)
    with pytest.raises(TopologyError, match="2 hosts for 4 ranks"):
        replay_folded(trace, build("switch:hosts=2", 2))
    with pytest.raises(ConfigError, match="edges"):
        replay_folded(spmd(5000, collective("all_to_all", 5)), build("switch", 5000))
