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
    algorithm: str  #: those of its collectives, joined; empty for messages and where a profile does not tell
    time_ps: float  #: from the last member's arrival to the last delivery, summed; mean over the ranks that take part
    exposed_ps: float  #: while it holds the rank up, by the same mean; overlapping communication counts once (see breakdown)
    waiting_ps: float  #: idle because issued but waiting for other ranks, by the same mean
    algbw: float | None  #: bytes/s; None where nothing took time, and for receives
    busbw: float | None


def traffic(result: Result, split: Breakdown) -> tuple[Traffic, ...]:
    """One row per operation and group, most exposed first."""
    spans, shares = result.spans(), split.shares
    keys = sorted(set(zip(shares.kind.tolist(), shares.group.tolist(), strict=True)))
    by_name: dict[tuple[str, str], list[CollectiveRow]] = {}
    for row in result.collectives:
        by_name.setdefault((row.operation, row.label), []).append(row)
    stand_for = result.stand_for
    found: list[tuple[int, Traffic]] = []
    ranks: tuple[int, ...]
    for kind, group in keys:
        operation, label = spans.kinds[kind], spans.groups[group] if group >= 0 else ""
        mine = (shares.kind == kind) & (shares.group == group)
        exposed, waiting = int(shares.exposed[mine].sum()), int(shares.waiting[mine].sum())
        rows = by_name.get((operation.removesuffix("_block"), label), [])
        if operation in ("send", "recv"):
            at = np.flatnonzero((spans.kind == kind) & (spans.group == group))
            each_for = stand_for[spans.rank[at]]
            count, size, ranks = int(each_for.sum()), int((spans.bytes[at] * each_for).sum()), ()
            time = int(((spans.end[at] - spans.start[at]) * each_for).sum())
            part, algorithm = int(stand_for[np.unique(spans.rank[at])].sum()), ""
            rate = _rate(size, time) if operation == "send" else None
            bus = rate
        else:
            count, size = sum(row.instances for row in rows), sum(row.bytes * row.ranks * row.instances for row in rows)
            ranks = tuple(sorted({row.ranks for row in rows}))
            time = sum((row.end_ps - row.start_ps) * row.ranks * row.instances for row in rows)
            part = sum(int(stand_for[member]) for member in {m for members in {row.members for row in rows} for m in members})
            algorithm = ", ".join(sorted({row.algorithm for row in rows if row.algorithm}))
            rate, bus = _rates(rows)
        each = max(1, part)
        entry = Traffic(
            operation, label, ranks, count, size, algorithm, time / each, exposed / each, waiting / each, rate, bus
        )  # fmt: skip
        found.append((exposed, entry))
    found.sort(key=lambda pair: (-pair[0], -pair[1].time_ps, pair[1].operation, pair[1].group))
    return tuple(row for _, row in found)


def _rates(rows: Iterable[CollectiveRow]) -> tuple[float | None, float | None]:
    """Time-weighted algbw and busbw of collectives of more than one member."""
    size, bus, time = 0, 0.0, 0
    for row in rows:
        members = row.ranks
        if members > 1 and row.bytes:
            whole = whole_buffer(row.operation, row.bytes, members)
            size += whole * row.instances
            bus += whole * bus_factor(row.operation, members) * row.instances
            time += (row.end_ps - row.start_ps) * row.instances
    return (_rate(size, time), _rate(bus, time)) if size else (None, None)


def _rate(size: float, ps: int) -> float | None:
    return size * 1e12 / ps if size and ps > 0 else None
