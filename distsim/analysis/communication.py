"""Communication by operation and group: how much, how long, how fast.

Bandwidths are those of nccl-tests: *algbw* is the size S of an operation over its time from the last member's arrival to
the last delivery, *busbw* is what a link of every rank must carry for that, whatever the algorithm: S is the vector
of a rank, and for all_gather and gather the whole that is gathered. Means are weighted by time: sum of S / sum of time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from distsim.analysis.breakdown import Breakdown
from distsim.collectives.bandwidth import bus_factor, whole_buffer
from distsim.record import CollectiveRow
from distsim.result import Result


@dataclass(frozen=True, slots=True)
class Traffic:
    """All communication of one operation in one group, over all instances of the group."""

    operation: str
    group: str  #: empty: all ranks; or point to point
    ranks: tuple[int, ...]  #: sizes of the collectives, ascending; empty for messages
    count: int  #: collectives, or messages
    bytes: int  #: what members bring, or messages carry, summed
    time_ps: float  #: under way, mean over the ranks of the run; overlapping communication counts where it began first
    exposed_ps: float  #: of it, while nothing computes
    waiting_ps: float  #: idle because issued but waiting for other ranks, mean over the ranks of the run
    algbw: float | None  #: bytes/s; None where nothing took time, and for receives
    busbw: float | None


def traffic(result: Result, split: Breakdown) -> tuple[Traffic, ...]:
    """One row per operation and group, most exposed first."""
    spans, shares = result.spans(), split.shares
    keys = sorted(set(zip(shares.kind.tolist(), shares.group.tolist(), strict=True)))
    by_name: dict[tuple[str, str], list[CollectiveRow]] = {}
    for row in result.collectives:
        by_name.setdefault((row.operation, row.label), []).append(row)
    found = []
    ranks: tuple[int, ...]
    for kind, group in keys:
        operation, label = spans.kinds[kind], spans.groups[group] if group >= 0 else ""
        mine = (shares.kind == kind) & (shares.group == group)
        exposed, hidden, waiting = (int(c[mine].sum()) / result.ranks for c in (shares.exposed, shares.hidden, shares.waiting))
        rows = by_name.get((operation.removesuffix("_block"), label), [])
        if operation in ("send", "recv"):
            at = np.flatnonzero((spans.kind == kind) & (spans.group == group))
            count, size, ranks = len(at), int(spans.bytes[at].sum()), ()
            rate = _rate(size, int((spans.end[at] - spans.start[at]).sum())) if operation == "send" else None
            bus = rate
        else:
            count, size = len(rows), sum(row.bytes * len(row.members) for row in rows)
            ranks = tuple(sorted({len(row.members) for row in rows}))
            rate, bus = _rates(rows)
        found.append(Traffic(operation, label, ranks, count, size, exposed + hidden, exposed, waiting, rate, bus))
    return tuple(sorted(found, key=lambda t: (-t.exposed_ps, -t.time_ps, t.operation, t.group)))




def _rates(rows: Iterable[CollectiveRow]) -> tuple[float | None, float | None]:
    """Time-weighted algbw and busbw of collectives of more than one member."""
    size, bus, time = 0, 0.0, 0
    for row in rows:
        members = len(row.members)
        if members > 1 and row.bytes:
            whole = whole_buffer(row.operation, row.bytes, members)
            size += whole
            bus += whole * bus_factor(row.operation, members)
            time += row.end_ps - row.start_ps
    return (_rate(size, time), _rate(bus, time)) if size else (None, None)


def _rate(size: float, ps: int) -> float | None:
    return size * 1e12 / ps if size and ps > 0 else None
