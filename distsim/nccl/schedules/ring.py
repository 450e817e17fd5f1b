"""NCCL's rings: one order of the members per rail, so that all NICs of a node carry all boundaries between nodes evenly.

Inside a node a ring visits all GPUs; it leaves node v on one rail and enters node v+1 on the same one. As it leaves by another
GPU than it entered by, a ring alternates between two rails (three where the number of nodes is odd), and ring c is ring 0
turned by c rails: over every boundary each ring goes once, each on a rail of its own. (NCCL swaps the ends of its rings on odd
nodes to the same end: ``crossNic``.)

Channels with one order are one ring with their joint bytes: inside one node all of them, as turns of a ring are alike on an
NVSwitch; between nodes those of a rail. NCCL's loops and slices are *pieces*, which follow one another round the ring.

In very large groups consecutive steps are one row, so that a schedule keeps to about a million rows, timers and all: the same
bytes on the same links in the same time. Where such a row takes longer than its steps, as it is stored on its way, the next row
does not wait for it, but for one that is ``lag`` rows before. Such a schedule is too coarse to be proved, and its payload is
refused.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distsim.collectives.blocks import Layout
from distsim.collectives.pipeline import one_each
from distsim.collectives.schedule import Collective, Schedule
from distsim.errors import CollectiveError
from distsim.nccl.plan import Plan
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.pace import Paced
from distsim.nccl.schedules.wires import Wires

ROWS = 1 << 19  #: rows that a schedule keeps to, before their timers
_PIECES = 32  # of one ring
_LAGS = 4  # links beyond the first that store what comes


def ends_of(ring: int, nodes: int, rails: int) -> list[tuple[int, int]]:
    """(rail by which the ring enters, rail by which it leaves) of every node.

    >>> ends_of(0, 4, 8), ends_of(7, 3, 8)
    ([(1, 0), (0, 1), (1, 0), (0, 1)], [(1, 7), (7, 0), (0, 1)])
    """
    leave = [(ring + node % 2) % rails for node in range(nodes)]
    if nodes % 2 and nodes > 1 and rails > 2:
        leave[-1] = (ring + 2) % rails
    enter = [leave[node - 1] for node in range(nodes)]
    if nodes % 2 and nodes > 1 and rails == 2:
        enter[0] = (ring + 1) % rails  # two rails cannot alternate round an odd circle: one hop changes rails
    return list(zip(enter, leave, strict=True))


def ring_orders(grouping: Grouping, channels: int) -> NDArray[np.int64]:
    """Members in the order of every ring, [ring, position]."""
    nodes, rails = grouping.nodes, grouping.rails
    if len(nodes) == 1 or rails == 1:
        return np.array([[member for node in nodes for member in node]])
    orders = []
    for ring in range(min(rails, channels)):
        order: list[int] = []
        for node, (enter, leave) in zip(nodes, ends_of(ring, len(nodes), rails), strict=True):
            inner = [(enter + step) % len(node) for step in range(1, len(node))]
            order += [node[enter], *(node[place] for place in inner if place != leave), node[leave]]
        orders.append(order)
    return np.array(orders)


def crossings(orders: NDArray[np.int64], grouping: Grouping) -> NDArray[np.bool_]:
    """Whether the hop from a position to the next goes to another node, [ring, position]."""
    node_of = np.empty(grouping.size, np.int64)
    for number, members in enumerate(grouping.nodes):
        node_of[list(members)] = number
    return np.asarray(node_of[orders] != node_of[np.roll(orders, -1, axis=1)])


def ring_schedule(plan: Plan, collective: Collective, grouping: Grouping, wires: Wires) -> Paced:
    """all_reduce, all_gather and reduce_scatter.

    Rows: a join per piece and member that lets it start; then by step, piece and position in the ring.

    Every hop takes the same time: a rank that has nothing to send waits all the same for the slowest of its round. Pieces
    start ``gap`` apart and keep that distance, so that they never meet on a link.
    """
    n, operation = collective.size, collective.operation
    orders = ring_orders(grouping, plan.channels)
    rings = len(orders)
    scatter = n - 1 if operation in ("all_reduce", "reduce_scatter") else 0
    steps = 2 * (n - 1) if operation == "all_reduce" else n - 1
    first = 1 if scatter else 0
    bulk = min(n, -(-steps * n * rings // ROWS))
    total = float(plan.time_ps - plan.base_ps)
    share = plan.bytes / n * bulk
    turns = steps / bulk
    used = [wire for wire, there in zip((wires.intra, wires.inter), _kinds(orders, grouping), strict=True) if there]

    loops = max(1, -(-plan.bytes // max(1, plan.channels * n * plan.chunk)))
    limit = max(1, min(_PIECES, ROWS // (steps * n * rings)))
    wanted = min(limit, plan.slices * loops, max(1, plan.bytes // (n * rings)))

    def turn(pieces: int, lag: int, together: bool) -> tuple[float, float, tuple[int, bool]]:
        """ps of a hop and of a gap with so many pieces; how far the links miss the total, in 1/200; whether pieces crowd.

        Pieces of a ring follow one another, or set out ``together`` where the links have no time for that.
        """
        parts = pieces * rings
        gap = wires.intra.per_byte * share / parts if wires.intra in used else 0.0
        if pieces > 1 and wires.inter in used:
            gap = max(gap, wires.inter.per_byte * share / parts / rings)
        hop = (total - (parts - 1) * gap) / (turns + lag)
        crowded = together or (pieces > 1 and hop < parts * gap)
        if together:
            hop, gap = total / (turns + lag), 0.0
        elif crowded:  # links without slack: pieces share a hop evenly
            hop = total / (turns + lag + (parts - 1) / parts)
            gap = hop / parts
        busy = max(wire.per_byte * share / (1 if wire is wires.intra else rings) for wire in used)
        loads = [share / parts, share / parts] if not together else [share, share / rings]
        there = zip((wires.intra, wires.inter), loads, strict=True)
        needed = max(wire.ps(share / parts, load) for wire, load in there if wire in used)
        missed = max(busy - hop, (needed - hop * (1 + lag)) / max(1, lag))
        return hop, gap, (max(0, int(200 * turns * missed / max(total, 1.0))), crowded)

    tried = [(size, 0, False) for size in (wanted, 16, 8, 4, 2, 1) if size <= wanted]
    tried += [(size, 0, False) for size in (2, 4, 8, 16, 32) if wanted < size <= limit]
    tried += [(limit, lag, False) for lag in range(1, min(_LAGS, int(turns) - 1) + 1)]
    tried += [(size, 0, True) for size in (1, 2, 4, 8, 16, 32) if size <= limit]
    pieces, lag, together = min(tried, key=lambda one: turn(*one)[2])
    hop, gap, _ = turn(pieces, lag, together)
    parts = pieces * rings
    segments = Layout(collective, parts).sizes()
    by_position = np.stack([segments[piece, orders[piece % rings]] for piece in range(parts)])
    upto = np.zeros((parts, 2 * n + 1), np.int64)
    np.cumsum(np.tile(by_position, 2), axis=1, out=upto[:, 1:])
    begins = np.arange(0, steps, bulk)
    lengths = np.minimum(begins + bulk, steps) - begins
    position = np.arange(n)
    start = (position - first - (begins + lengths)[:, None] + 1) % n  # segment that leaves last, [row of steps, position]
    sizes = upto[:, start + lengths[:, None]] - upto[:, start]  # [piece, row of steps, position]

    rows = len(begins) * parts * n
    ring_of = np.arange(parts) % rings
    members = orders[ring_of].astype(np.int32)  # [piece, position]
    src = np.tile(members.reshape(-1), len(begins))
    dst = np.tile(np.roll(members, -1, axis=1).reshape(-1), len(begins))
    left = (np.arange(parts)[:, None] * n + (position - 1) % n).reshape(-1)
    joins = min(1 + lag, len(begins)) * parts * n  # what lets rows in that wait for no other
    before = joins + np.arange(len(begins) - 1 - lag)[:, None] * (parts * n) + left
    dep = np.concatenate([np.arange(joins), before.reshape(-1)]).astype(np.int32)
    reduce = np.repeat(begins < scatter, parts * n)

    def payload(row: int) -> list[int]:
        if row < joins:
            return []
        if bulk > 1 or lag:
            raise CollectiveError(f"rows of a ring of {n} stand for several steps: too coarse to be proved")
        step, rest = divmod(row - joins, parts * n)
        piece, at = divmod(rest, n)
        return [piece * n + int(members[piece, (at - step - first) % n])]

    waiting = np.tile(members.reshape(-1), joins // (parts * n))
    schedule = Schedule(
        n, np.concatenate([waiting, src]), np.concatenate([waiting, dst]),
        np.concatenate([np.zeros(joins, np.int64), sizes.transpose(1, 0, 2).reshape(-1)]),
        *one_each(joins + rows, joins, dep), np.concatenate([np.zeros(joins, np.bool_), reduce]), payload, parts,
    )  # fmt: skip
    late = np.arange(joins // (parts * n))[:, None] * hop + gap * np.arange(parts)
    starts = np.repeat(plan.base_ps + late.reshape(-1), n)
    waits = np.repeat(hop * (lengths / bulk + lag), parts * n)
    return Paced(schedule, np.round(np.maximum(0.0, np.concatenate([starts, waits]))).astype(np.int64))


def _kinds(orders: NDArray[np.int64], grouping: Grouping) -> tuple[bool, bool]:
    """Whether a ring has hops inside nodes; between nodes."""
    crossing = crossings(orders, grouping)
    return not bool(crossing.all()), bool(crossing.any())
