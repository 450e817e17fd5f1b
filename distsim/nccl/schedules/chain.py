"""NCCL's broadcast and reduce: once along the rings, from the root or to it, in many pieces.

In a group so large that pieces would be too few to fill the chain within the rows of a schedule, pieces *stream*: a member
passes on the next piece once the one before it has come (or, where links store them, one that is ``lag`` before it), as it does
with the slices that such a piece has in NCCL. Links and times are the same; but a row then stands for bytes that are only
coming in, so such a schedule cannot be proved, and its payload is refused.
"""

from __future__ import annotations

import numpy as np

from distsim.collectives.blocks import Layout
from distsim.collectives.pipeline import one_each
from distsim.collectives.schedule import Collective, Schedule
from distsim.errors import CollectiveError
from distsim.nccl.plan import Plan
from distsim.nccl.schedules import ring
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.pace import Columns64, Paced, in_step
from distsim.nccl.schedules.wires import Wires

_LAGS = 4  # links beyond the first that store what comes


def chain_schedule(plan: Plan, collective: Collective, grouping: Grouping, wires: Wires) -> Paced:
    """Rows: a join per piece, then by piece and hop.

    Hops take a multiple of the gap between two pieces of one ring: pieces of several rings keep their distance at every GPU.
    """
    n, reducing = collective.size, collective.operation == "reduce"
    orders = ring.ring_orders(grouping, plan.channels)
    rings = len(orders)
    crossing = ring.crossings(orders, grouping)
    for number in range(rings):
        turn = -(int(np.flatnonzero(orders[number] == collective.root)[0]) + reducing)
        orders[number], crossing[number] = np.roll(orders[number], turn), np.roll(crossing[number], turn)
    between = int(crossing[:, :-1].sum(axis=1).max())
    used = [wire for wire, there in ((wires.intra, between < n - 1), (wires.inter, between > 0)) if there]
    total = float(plan.time_ps - plan.base_ps)
    limit = max(1, ring.ROWS // ((n - 1) * rings))
    chunks = max(1, -(-plan.bytes // max(1, plan.channels * plan.chunk)))
    asked = (between * plan.inter_hop_ps + (n - 1 - between) * plan.intra_hop_ps) / (n - 1)
    pieces, hop, gap, fits = 1, 0.0, 0.0, False
    for pieces in sorted({min(limit, size) for size in (chunks, 4 * n, 8 * n, 32 * n) if size >= chunks}):
        size = plan.bytes / (pieces * rings)
        least_gap = max(wires.intra.per_byte * size if wires.intra in used else 0.0, wires.inter.per_byte * size / rings)
        least = max(wire.ps(size) for wire in used)
        hop, gap = in_step(total, n - 1, max(asked, least), pieces * rings, rings, least_gap)
        fits = gap >= least_gap and hop >= least
        if fits:
            break
    parts = pieces * rings
    streams, lag = not fits and pieces == limit, 0
    if streams:
        hop = min(max(asked, max(wire.latency for wire in used)), total / n)
        for lag in range(1, _LAGS + 1):
            gap = (total - (n - 1) * hop) / (parts + lag * rings - 1)
            if hop + lag * rings * gap >= max(wire.ps(plan.bytes / parts) for wire in used):
                break
    members = orders[np.arange(parts) % rings].astype(np.int32)
    hops = np.arange(n - 1)
    ahead = lag * rings  # pieces that do not wait for another
    first = parts + ahead * (n - 2)  # rows before are joins
    rows = first + np.arange(parts)[:, None] * (n - 1) + hops
    at, starts = members[:, 0], gap * np.arange(parts)
    dep = np.concatenate([np.arange(parts)[:, None], rows[:, :-1]], axis=1)
    if streams:
        # a hop waits for the piece before on the hop before; the first pieces of every ring, for their time
        dep[ahead:, 1:] = rows[:-ahead, :-1]
        dep[:ahead, 1:] = parts + np.arange(ahead)[:, None] * (n - 2) + hops[:-1]
        at = np.concatenate([at, members[:ahead, 1:-1].reshape(-1)])
        starts = np.concatenate([starts, (gap * np.arange(ahead)[:, None] + hop * hops[1:]).reshape(-1)])
        hop += gap * ahead
    sizes: Columns64 = np.repeat(Layout(collective, parts).sizes().sum(axis=1), n - 1)

    def payload(row: int) -> list[int]:
        if row < first:
            return []
        if streams:
            raise CollectiveError(f"pieces stream along a chain of {n}: too coarse to be proved")
        piece = (row - first) // (n - 1)
        return list(range(piece * n, piece * n + n))

    schedule = Schedule(
        n, np.concatenate([at, members[:, :-1].reshape(-1)]), np.concatenate([at, members[:, 1:].reshape(-1)]),
        np.concatenate([np.zeros(first, np.int64), sizes]),
        *one_each(first + parts * (n - 1), first, dep.reshape(-1).astype(np.int32)),
        np.concatenate([np.zeros(first, np.bool_), np.full(parts * (n - 1), reducing)]), payload, parts,
    )  # fmt: skip
    waits = np.concatenate([plan.base_ps + starts, np.full(parts * (n - 1), hop)])
    return Paced(schedule, np.round(np.maximum(0.0, waits)).astype(np.int64))
