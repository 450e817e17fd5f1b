"""NCCL's schedules without a network: every one is proved, and has the shape that NCCL's have."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nccl_schedules import WIRES, alone, cluster, grouped, handmade

from distsim.collectives.check import check
from distsim.collectives.schedule import Collective
from distsim.errors import CollectiveError
from distsim.nccl.schedules import exchange, ring
from distsim.nccl.schedules.build import SERVED, schedule_of
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.ring import ends_of, ring_orders
from distsim.nccl.schedules.streaming import slots_of
from distsim.nccl.schedules.tree import node_trees, parents

SHAPES = [(1, 2), (1, 3), (1, 8), (2, 1), (5, 1), (2, 2), (3, 2), (2, 3), (3, 4)]
CASES = [
    (algorithm, operation, nodes, per_node)
    for algorithm, operations in SERVED.items() for operation in operations for nodes, per_node in SHAPES
    if not (algorithm == "nvls" and nodes > 1) and not (algorithm == "nvls_tree" and nodes == 1)
    and not (algorithm == "pat" and per_node > 1)
]  # fmt: skip


def check_timers(paced):
    """Timers apart, the timed schedule is the schedule; whoever waits for a row also waits for a timer as long as its hop."""
    plain, timed = paced.schedule, paced.timed(7)
    deps = [timed.dep[timed.dep_ptr[row] : timed.dep_ptr[row + 1]].tolist() for row in range(len(timed))]
    moved, was = (np.flatnonzero(one.src != one.dst) for one in (timed, plain))
    for column in ("src", "dst", "bytes", "reduce"):
        assert np.array_equal(getattr(timed, column)[moved], getattr(plain, column)[was])
    assert [timed.payload(row) for row in moved] == [plain.payload(row) for row in was]
    assert not timed.delay[moved].any()
    old = dict(zip(moved.tolist(), was.tolist(), strict=True))
    for row, waits in enumerate(deps):
        assert all(before < row for before in waits)
        timers = {(tuple(deps[one]), timed.delay[one]) for one in waits if one not in old}
        for before in old.keys() & set(waits):
            hop = paced.hop[old[before]]
            assert hop == 0 or (tuple(deps[before]), hop + 7) in timers


def made(operation, algorithm, grouping, size=100_003, *, root=0, pxn=True, **more):
    collective = Collective(operation, grouping.size, size, root=root)
    plan = handmade(collective, len(grouping.nodes), algorithm, **more)
    return collective, schedule_of(plan, collective, grouping, WIRES, pxn=pxn)


@pytest.mark.parametrize(("algorithm", "operation", "nodes", "per_node"), CASES)
def test_every_schedule_is_proved(algorithm, operation, nodes, per_node):
    root = nodes * per_node // 3 if operation in ("broadcast", "reduce") else 0
    for size, chunk in ((100_003, 16384), (5, 512 << 10)):
        for pxn in (True, False) if algorithm == "p2p" else (True,):
            collective, paced = made(
                operation, algorithm, grouped(nodes, per_node), size, root=root, pxn=pxn, chunk=chunk, channels=6
            )
            check(paced.schedule, collective)
            assert len(paced.hop) == len(paced.schedule)
            assert (paced.hop >= 0).all()
            check_timers(paced)


@settings(max_examples=40, deadline=None)
@given(
    algorithm=st.sampled_from(["ring", "tree", "nvls_tree", "p2p"]), nodes=st.integers(1, 4), per_node=st.integers(1, 3),
    size=st.integers(0, 5000), channels=st.integers(1, 24), slices=st.integers(1, 2), data=st.data(),
)  # fmt: skip
def test_law_any_plan_is_proved_or_refused(algorithm, nodes, per_node, size, channels, slices, data):
    operation = data.draw(st.sampled_from(SERVED[algorithm]))
    if nodes * per_node < 2:
        return
    collective = Collective(operation, nodes * per_node, size, root=nodes * per_node - 1)
    plan = handmade(collective, nodes, algorithm, channels=channels, slices=slices, chunk=size // 4 + 1)
    paced = schedule_of(plan, collective, grouped(nodes, per_node), WIRES)
    if len(paced.schedule) <= 4000:
        check(paced.schedule, collective, seed=size)


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 4), min_size=2, max_size=5), operation=st.sampled_from([*SERVED["ring"], "all_to_all"]))
def test_law_uneven_nodes_have_rings_and_messages(counts, operation):
    grouping = Grouping.of([node for node, count in enumerate(counts) for _ in range(count)])
    collective, paced = made(operation, "p2p" if operation == "all_to_all" else "ring", grouping, 1009, chunk=1 << 20)
    if len(paced.schedule) <= 4000:
        check(paced.schedule, collective)


@given(ring=st.integers(0, 20), nodes=st.integers(2, 12), rails=st.integers(2, 20))
def test_law_a_ring_leaves_by_another_gpu_and_stays_on_its_rail(ring, nodes, rails):
    ends = ends_of(ring % rails, nodes, rails)
    assert all(enter != leave for enter, leave in ends)
    changed = sum(ends[node][1] != ends[(node + 1) % nodes][0] for node in range(nodes))
    assert changed == (1 if nodes % 2 and rails == 2 else 0)


@pytest.mark.parametrize(("nodes", "per_node"), [(2, 8), (3, 8), (5, 4), (4, 2), (7, 3)])
def test_rings_cross_every_boundary_once_on_rails_of_their_own(nodes, per_node):
    orders = ring_orders(grouped(nodes, per_node), 64)
    assert len(orders) == per_node
    boundaries: dict[tuple[int, int], list[int]] = {}
    for order in orders:
        assert sorted(order) == list(range(nodes * per_node))
        for here, there in zip(order, np.roll(order, -1), strict=True):
            if here // per_node != there // per_node:
                boundaries.setdefault((here // per_node, there // per_node), []).append(here % per_node)
    assert len(boundaries) == nodes
    assert all(sorted(rails) == list(range(per_node)) for rails in boundaries.values())


def test_channels_fewer_than_rails_are_fewer_rings():
    assert len(ring_orders(grouped(2, 8), 3)) == 3
    assert len(ring_orders(grouped(1, 8), 24)) == 1


def expected_parent(node, nodes):
    """Parent in NCCL's alternating-leaves b-tree, by its formula (spec section 6)."""
    if node == 0:
        return -1
    bit = node & -node
    up = (node ^ bit) | bit << 1
    return up if up < nodes else node ^ bit


@pytest.mark.parametrize("nodes", [2, 3, 4, 5, 8, 13, 32, 100])
def test_trees_are_nccls(nodes):
    first, second = node_trees(nodes)
    assert first == [expected_parent(node, nodes) for node in range(nodes)]
    place = [nodes - 1 - node if nodes % 2 == 0 else (node - 1) % nodes for node in range(nodes)]
    for node in range(nodes):
        above = expected_parent(place[node], nodes)
        assert second[node] == (-1 if above < 0 else place.index(above))
    inner = [{parent for parent in tree if parent >= 0} for tree in (first, second)]
    assert len(inner[0] & inner[1]) <= nodes % 2
    assert max(np.bincount([p for p in first if p >= 0])) <= 2


@given(nodes=st.integers(2, 140))
def test_law_no_port_carries_two_rows_of_a_slot(nodes):
    trees = node_trees(nodes)
    slots = slots_of(trees)
    assert len(slots) == 2 * sum(above >= 0 for tree in trees for above in tree)
    for end in (1, 2):
        ports = [(edge[end], slot) for edge, slot in slots.items()]
        assert len(set(ports)) == len(ports)
    busiest = max(np.bincount([edge[end] for edge in slots]).max() for end in (1, 2))
    assert max(slots.values()) + 1 == busiest


def test_a_chain_hangs_below_the_gpu_of_its_rail():
    up = parents(grouped(2, 4), 1, [-1, 0])
    assert up == [3, -1, 1, 2, 7, 1, 5, 6]


@pytest.mark.parametrize("per_node", [2, 4, 8])
def test_nvls_puts_the_buffer_once_up_and_once_down(per_node):
    size = 64 << 20
    collective, paced = made("all_reduce", "nvls", grouped(1, per_node), size)
    proof = check(paced.schedule, collective)
    assert proof.sent == proof.received == [size] * per_node
    collective, paced = made("all_reduce", "ring", grouped(1, per_node), size)
    assert check(paced.schedule, collective).sent[0] == pytest.approx(2 * (per_node - 1) / per_node * size, abs=16)


def test_pxn_gathers_by_rail_and_sends_one_message_per_node():
    nodes, per_node, size = 4, 4, 1 << 20
    _, paced = made("all_to_all", "p2p", grouped(nodes, per_node), size, hop_us=0)
    rows = paced.schedule
    moved = rows.src != rows.dst
    between = moved & (rows.src // per_node != rows.dst // per_node)
    assert (rows.src[between] % per_node == rows.dst[between] % per_node).all()
    assert between.sum() == nodes * per_node * (nodes - 1) * rows.pieces
    sent = np.bincount(rows.src[between], weights=rows.bytes[between])
    assert (sent == per_node * (nodes - 1) * size / (nodes * per_node)).all()
    _, direct = made("all_to_all", "p2p", grouped(nodes, per_node), size, pxn=False)
    rows = direct.schedule
    between = rows.src // per_node != rows.dst // per_node
    assert between.sum() == nodes * per_node * per_node * (nodes - 1) * rows.pieces


def test_eight_peers_at_a_time():
    """What a rank sends next waits until all of the last eight have arrived."""
    _, paced = made("all_to_all", "p2p", grouped(1, 20), 1 << 20)
    rows = paced.schedule
    own = [row for row in range(len(rows)) if rows.src[row] == 0 and rows.dst[row] != 0]
    gates = [rows.dep[rows.dep_ptr[row]] for row in own]
    assert [gates.count(gate) for gate in dict.fromkeys(gates)] == [exchange.PEERS, exchange.PEERS, 3]


def test_a_coarse_ring_moves_the_same_bytes_and_says_that_it_cannot_be_proved(monkeypatch):
    collective, fine = made("all_reduce", "ring", grouped(3, 4), 1 << 20, slices=1)
    monkeypatch.setattr(ring, "ROWS", 200)
    _, coarse = made("all_reduce", "ring", grouped(3, 4), 1 << 20, slices=1)
    assert len(coarse.schedule) < len(fine.schedule) / 3
    for side in ("src", "dst"):
        total = [np.bincount(getattr(one.schedule, side), weights=one.schedule.bytes) for one in (fine, coarse)]
        assert np.abs(total[0] - total[1]).max() <= 200  # parts are cut elsewhere: a byte each
    with pytest.raises(CollectiveError, match="too coarse"):
        check(coarse.schedule, collective)


@pytest.mark.parametrize("operation", ["broadcast", "reduce"])
def test_a_streaming_chain_moves_the_same_bytes_in_the_same_time(monkeypatch, operation):
    nodes = 4
    topology = cluster(nodes)
    collective = Collective(operation, 8 * nodes, 256 << 20, root=11)
    plan = handmade(collective, nodes, "ring", time_us=1000, hop_us=1)
    fine = alone(plan, collective, topology, "cut_through", grouped(nodes, 8))
    monkeypatch.setattr(ring, "ROWS", 8 * 31 * 40)  # 40 pieces a ring: by themselves they would take almost twice the time
    coarse = alone(plan, collective, topology, "cut_through", grouped(nodes, 8))
    assert fine[0] == pytest.approx(plan.time_ps, rel=0.03)
    assert coarse[0] == pytest.approx(plan.time_ps, rel=0.03)
    assert np.abs(fine[1].bytes - coarse[1].bytes).max() <= 2000  # cut elsewhere: a byte a piece
    paced = schedule_of(plan, collective, grouped(nodes, 8), WIRES)
    with pytest.raises(CollectiveError, match="too coarse"):
        check(paced.schedule, collective)


def test_what_there_is_no_schedule_for_is_refused():
    with pytest.raises(CollectiveError, match=r"collnet_direct(.|\n)*ring, tree, nvls, nvls_tree"):
        made("all_reduce", "collnet_direct", grouped(2, 2))
    with pytest.raises(CollectiveError, match="one node"):
        made("all_reduce", "nvls", grouped(2, 2))
    with pytest.raises(CollectiveError, match="one GPU per node"):
        made("all_gather", "pat", grouped(2, 2))
    with pytest.raises(CollectiveError, match="as many members on every node"):
        made("all_reduce", "tree", Grouping.of([0, 0, 1]))
    collective = Collective("all_reduce", 4, 1 << 20)
    plan = dataclasses.replace(handmade(collective, 2, "ring"), ranks=8)
    with pytest.raises(CollectiveError, match="8 ranks"):
        schedule_of(plan, collective, grouped(2, 2), WIRES)
