"""Trees of large groups and large messages: bytes stream through them.

A tree of many nodes would need more pieces than a schedule has rows for, if every piece were to arrive whole before it goes
on: the way through the tree would take longer than the bytes. Here a member passes on the next piece once the one before it has
come, as it does with the chunks that such a piece has in NCCL; and what the chains (or the NVLink switch) of a node carry for
all rails is one message from each GPU to its neighbour. Links carry the same bytes in the same time; but a row then stands for
bytes that are only coming in, so such a schedule cannot be proved, and its payload is refused.

A row repeats every ``period``, in a slot of its own at both of its ports (a colouring of the edges of both trees), so that
ports which are busy all the time are not fought over. Its timer holds back its own next turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from distsim.collectives.blocks import balanced
from distsim.collectives.schedule import Schedule
from distsim.errors import CollectiveError
from distsim.nccl.plan import Plan
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.pace import Columns64, Leg, Paced, pipeline
from distsim.nccl.schedules.wires import Wires

_ROUNDS = 256  # at most
_TRIES = 3
IN, TREE, OUT = 0, 1, 2  #: kinds of rows: towards the heads of a node, between nodes, away from the heads


@dataclass(slots=True)
class _Stream:
    """The rows of one round. ``dep``: rows of the round before; without any, a row is held back by nothing but its time."""

    src: list[int] = field(default_factory=list)
    dst: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    rail: list[int] = field(default_factory=list)  #: of a row inside a node: place of the sender
    dep: list[list[int]] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)  #: ps after its round

    def add(self, src: int, dst: int, kind: int, rail: int, dep: list[int], begins: float) -> int:
        """Appends a row and returns its number."""
        self.src.append(src)
        self.dst.append(dst)
        self.kind.append(kind)
        self.rail.append(rail)
        self.dep.append(dep)
        self.begins.append(begins)
        return len(self.src) - 1


@dataclass(frozen=True, slots=True)
class _Times:
    """When rows begin.

    Attributes:
        intra, inter: ps of a hop. period: ps between two turns of a row. slots: slot of (tree, sender, receiver).
        count: slots of a period. shift: ps by which the rounds of each tree come later.
    """

    intra: float
    inter: float
    period: float
    slots: dict[tuple[int, int, int], int]
    count: int
    shift: float

    def in_slot(self, ready: float, tree: int, src: int, dst: int) -> float:
        """When a row between two nodes begins that would be ready for it: its slot next to that."""
        if not self.period:
            return ready
        phase = self.slots[tree, src, dst] * self.period / self.count - tree * self.shift
        return ready + ((phase - ready + self.period / 2) % self.period) - self.period / 2


def streaming_schedule(
    plan: Plan, grouping: Grouping, wires: Wires, trees: list[list[int]], rails: int, rows: int,
    inside: Callable[[Columns64, int], int], hops_inside: int,
) -> Paced:  # fmt: skip
    """An all_reduce by trees over the nodes.

    Args:
        plan, grouping, wires: as for every schedule.
        trees: parent of every node (-1: root); rounds take turns.
        rails: trees of a round.
        rows: that the schedule may have.
        inside: (bytes of every rail, place in the node) -> bytes that a GPU passes to its neighbour, to the heads and back.
        hops_inside: NCCL's hops inside a node, one way.
    """
    turns, per_node = len(trees), grouping.rails
    total = float(plan.time_ps - plan.base_ps)
    slots = slots_of(trees)
    count = max(slots.values(), default=0) + 1
    trial = [_stream(grouping, trees, tree, rails, _Times(0.0, 0.0, 0.0, slots, count, 0.0)) for tree in range(turns)]
    rounds = max(turns, min(_ROUNDS, (rows - sum(len(one.src) for one in trial)) // max(len(one.src) for one in trial)))
    rounds -= rounds % turns
    whole = plan.bytes / rounds
    most = max(inside(np.full(rails, int(whole / rails)), place) for place in range(per_node))
    depth = max(_depth(tree) for tree in trees)
    legs = [
        Leg(2 * (per_node > 1), max(1, hops_inside) * plan.intra_hop_ps, wires.intra.latency, wires.intra.latency),
        Leg(2 * depth, plan.inter_hop_ps, wires.inter.latency, wires.inter.latency),
    ]
    least_gap = max(2 * most * wires.intra.per_byte, count / turns * whole / rails * wires.inter.per_byte)
    (intra, inter), gap = pipeline(total, legs, rounds + turns, least_gap)
    tails = [wires.intra.ps(most), wires.inter.ps(whole / rails), wires.intra.ps(most)]
    streams: list[_Stream] = []
    for _ in range(_TRIES):  # what comes last is late by what it takes on its link, and by its slot, which moves with the gap
        times = _Times(intra, inter, turns * gap, slots, count, gap)
        streams = [_stream(grouping, trees, tree, rails, times) for tree in range(turns)]
        ends = [begins + tails[kind] for one in streams for kind, begins in zip(one.kind, one.begins, strict=True)]
        span = max(ends) - min(begins for one in streams for begins in one.begins)
        gap = max(least_gap, (total - span) / max(1, rounds - 1))
    return _laid_out(plan, grouping, streams, rails, rounds, gap, inside)


def _depth(tree: list[int]) -> int:
    """Hops from the root to the node furthest from it."""

    def up(node: int) -> int:
        return 0 if tree[node] < 0 else 1 + up(tree[node])

    return max(up(node) for node in range(len(tree)))


def slots_of(trees: list[list[int]]) -> dict[tuple[int, int, int], int]:
    """(tree, sender, receiver) -> slot, so that no node sends, or gets, twice in one; as few slots as that takes.

    Nodes as senders and nodes as receivers are the two sides of a graph, whose edges have as many colours as its busiest node
    has edges (Koenig): where no colour is free at both ends, two colours are swapped along a path.
    """
    at: dict[tuple[bool, int], dict[int, tuple[int, int, int]]] = {}  # (receives, node) -> slot -> edge
    slots: dict[tuple[int, int, int], int] = {}
    edges = [(tree, *ends) for tree, up in enumerate(trees) for node, above in enumerate(up) if above >= 0
             for ends in ((node, above), (above, node))]  # fmt: skip
    for edge in edges:
        ends = (False, edge[1]), (True, edge[2])
        sends, gets = (at.setdefault(end, {}) for end in ends)
        first = next(slot for slot in range(len(edges)) if slot not in sends)
        other = next(slot for slot in range(len(edges)) if slot not in gets)
        path, end, here = [], ends[1], first
        while here in at[end]:
            path.append(at[end][here])
            end = (not end[0], path[-1][1 if end[0] else 2])
            here = other if here == first else first
        for moved in path:
            for end in ((False, moved[1]), (True, moved[2])):
                if at[end].get(slots[moved]) == moved:
                    del at[end][slots[moved]]
            slots[moved] = other if slots[moved] == first else first
        for moved in [*path, edge]:
            slots.setdefault(moved, first)
            for end in ((False, moved[1]), (True, moved[2])):
                at[end][slots[moved]] = moved
    return slots


def _stream(grouping: Grouping, trees: list[list[int]], number: int, rails: int, times: _Times) -> _Stream:
    """One round of a tree: towards the heads, up, down, away from the heads."""
    rows, tree = _Stream(), trees[number]
    arrived: dict[int, int] = {}
    inside = grouping.rails > 1
    if inside:
        for members in grouping.nodes:
            for place, member in enumerate(members):
                arrived[members[place - 1]] = rows.add(member, members[place - 1], IN, place, [], 0.0)
    order = [node for node, above in enumerate(tree) if above < 0]
    for node in order:
        order += [below for below, above in enumerate(tree) if above == node]
    told: dict[int, int] = {}
    told_at: dict[int, float] = {}
    for rail in range(rails):
        heads = [members[rail] for members in grouping.nodes]
        here = [[arrived[head]] if inside else [] for head in heads]
        ready = [times.intra if inside else 0.0] * len(heads)
        for node in reversed(order):
            above = tree[node]
            if above >= 0:
                begins = times.in_slot(ready[node], number, node, above)
                here[above].append(rows.add(heads[node], heads[above], TREE, rail, here[node], begins))
                ready[above] = max(ready[above], ready[node] + times.inter)
        for node in order:
            above = tree[node]
            if above >= 0:
                ready[node] = ready[above] + times.inter
                begins = times.in_slot(ready[above], number, above, node)
                here[node] = [rows.add(heads[above], heads[node], TREE, rail, here[above], begins)]
            told[heads[node]], told_at[heads[node]] = here[node][0], ready[node]
    if inside:
        for members in grouping.nodes:
            for place, member in enumerate(members):
                head = member if member in told else members[0]
                rows.add(member, members[(place + 1) % len(members)], OUT, place, [told[head]], told_at[head])
    return rows


def _laid_out(
    plan: Plan, grouping: Grouping, streams: list[_Stream], rails: int, rounds: int, gap: float,
    inside: Callable[[Columns64, int], int],
) -> Paced:  # fmt: skip
    """All rounds. A row waits for its own timer of the round before and for what it passes on; in the first round of each tree,
    for a join that says when it begins."""
    turns, size = len(streams), grouping.size
    pieces = np.array(balanced(plan.bytes, rounds * rails), dtype=np.int64).reshape(rounds, rails)
    least = min(begins for stream in streams for begins in stream.begins)  # a slot may come before its round
    before = [0] * turns  # first timer of the round before, of every tree
    at = 0
    src, dst, amount, counts, deps, hop = [], [], [], [], [], []
    for number in range(rounds):
        stream = streams[number % turns]
        rows = len(stream.src)
        sender, receiver = np.array(stream.src, np.int32), np.array(stream.dst, np.int32)
        kind, rail = np.array(stream.kind), np.array(stream.rail)
        carried = np.array([inside(pieces[number], place) for place in range(grouping.rails)])
        moved = np.where(kind == TREE, pieces[number][rail % rails], carried[rail])
        nothing = np.zeros(rows, np.int64)
        if number < turns:
            count, waits = np.ones(rows, np.int64), at + np.arange(rows)
            joins = [(sender, nothing, plan.base_ps + gap * number + np.array(stream.begins) - least)]
            counts.append(nothing)
            at += rows
        else:
            first = before[number % turns]
            count = np.array([1 + len(passed) for passed in stream.dep])
            waits = np.array([row for own, passed in enumerate(stream.dep) for row in (own, *(rows + one for one in passed))])
            waits += first
            joins = []
        if number + turns < rounds:
            joins.append((sender, nothing, np.full(rows, turns * gap)))
            counts.append(count)
            deps.append(waits)
            before[number % turns] = at
            at += rows
        for member, none, delay in joins:
            src.append(member)
            dst.append(member)
            amount.append(none)
            hop.append(delay)
        src.append(sender)
        dst.append(receiver)
        amount.append(moved)
        hop.append(nothing.astype(np.float64))
        counts.append(count)
        deps.append(waits)
        at += rows
    senders, receivers = np.concatenate(src), np.concatenate(dst)

    def payload(row: int) -> list[int]:
        if senders[row] == receivers[row]:
            return []
        raise CollectiveError(f"pieces stream through a tree of {size}: too coarse to be proved")

    schedule = Schedule(
        size, senders, receivers, np.concatenate(amount),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))]),
        np.concatenate(deps).astype(np.int32), np.zeros(at, np.bool_), payload, rounds * rails,
    )  # fmt: skip
    return Paced(schedule, np.round(np.maximum(0.0, np.concatenate(hop))).astype(np.int64))
