"""NCCL's rings: one order of the members per rail, so that all NICs of a node carry all boundaries between nodes evenly.

Inside a node a ring visits all GPUs; it leaves node v on one rail and enters node v+1 on the same one. As it leaves by another
GPU than it entered by, a ring alternates between two rails (three where the number of nodes is odd), and ring c is ring 0
turned by c rails: over every boundary each ring goes once, each on a rail of its own. (NCCL swaps the ends of its rings on odd
nodes to the same end: ``crossNic``.)

Channels with one order are one ring with their joint bytes: inside one node all of them, as turns of a ring are alike on an
NVSwitch; between nodes those of a rail. NCCL's loops and slices are *pieces*, which follow one another round the ring.

In very large groups consecutive steps are one row, so that a schedule keeps to about a million rows: the same bytes on the
same links in the same time; but such a schedule is too coarse to be proved, and its payload is refused.
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

ROWS = 1 << 20  #: rows that a schedule keeps to
_PIECES = 32  # of one ring


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

    def turn(pieces: int) -> tuple[float, float, tuple[int, bool]]:
        """ps of a hop and of a gap with so many pieces; how far the links miss the total, in 1/200; whether pieces crowd."""
        parts = pieces * rings
        gap = wires.intra.per_byte * share / parts if wires.intra in used else 0.0
        if pieces > 1 and wires.inter in used:
            gap = max(gap, wires.inter.per_byte * share / parts / rings)
        needed = max(wire.ps(share / parts) for wire in used)
        hop = (total - (parts - 1) * gap) / turns
        missed = turns * (needed - hop)
        crowded = pieces > 1 and hop < parts * gap
        if crowded:  # links without slack: pieces follow one another closely, only the last hop has time left
            hop = total - (turns - 1) * parts * gap - (parts - 1) * gap
            missed = needed - hop
        return hop, gap, (max(0, int(200 * missed / max(total, 1.0))), crowded)

    sizes_tried = [wanted, *(size for size in (16, 8, 4, 2, 1) if size < wanted)]
    sizes_tried += [size for size in (2, 4, 8, 16, 32) if wanted < size <= limit]
    pieces = min(sizes_tried, key=lambda size: turn(size)[2])
    hop, gap, _ = turn(pieces)
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
    own = np.arange(parts * n)
    dep = np.concatenate([own, (np.arange(1, len(begins))[:, None] * (parts * n) + left).reshape(-1)]).astype(np.int32)
    reduce = np.repeat(begins < scatter, parts * n)

    def payload(row: int) -> list[int]:
        if row < parts * n:
            return []
        if bulk > 1:
            raise CollectiveError(f"{bulk} steps of a ring of {n} are one transfer: too coarse to be proved")
        step, rest = divmod(row - parts * n, parts * n)
        piece, at = divmod(rest, n)
        return [piece * n + int(members[piece, (at - step - first) % n])]

    joins = members.reshape(-1)
    schedule = Schedule(
        n, np.concatenate([joins, src]), np.concatenate([joins, dst]),
        np.concatenate([np.zeros(parts * n, np.int64), sizes.transpose(1, 0, 2).reshape(-1)]),
        *one_each(parts * n + rows, parts * n, dep), np.concatenate([np.zeros(parts * n, np.bool_), reduce]), payload, parts,
    )  # fmt: skip
    starts = np.repeat(np.round(plan.base_ps + gap * np.arange(parts)), n)
    waits = np.repeat(np.round(max(0.0, hop) * lengths / bulk), parts * n)
    return Paced(schedule, np.concatenate([starts, waits]).astype(np.int64), schedule.bytes)


def _kinds(orders: NDArray[np.int64], grouping: Grouping) -> tuple[bool, bool]:
    """Whether a ring has hops inside nodes; between nodes."""
    crossing = crossings(orders, grouping)
    return not bool(crossing.all()), bool(crossing.any())
