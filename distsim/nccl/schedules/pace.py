"""Pacing: how long every hop of a schedule shall take on idle links, so that all of it takes what the plan says.

NCCL is slower than the links it uses: it pays for synchronisation at each hop, and its channels do not fill a link. So every
row has a ``hop``: ps from its release to its delivery, at least. What goes on next waits for the transfer and for a *timer*, a
join of that length which starts with the transfer. Rows that meet on a link, or share it, or are stored on their way do not
delay what follows as long as they arrive in time: a schedule takes its time to the picosecond on every level. Where links are
slower than the plan, or others use them, transfers come after their timers, and the links decide.

Data is cut into *pieces* that follow one another at a distance of ``gap``: a pipeline of Q pieces over M hops takes
``M * hop + (Q - 1) * gap``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.collectives.schedule import Schedule

Columns64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Paced:
    """A schedule, and per row the least that it shall take (see the module). Of a join, ``hop`` is its delay."""

    schedule: Schedule
    hop: Columns64

    def timed(self, endpoint_ps: int = 0) -> Schedule:
        """The schedule with its timers: of every transfer, or one for all that wait for the same row and take as long.

        ``endpoint_ps``: what every delivery takes on top; timers take as much longer, the transfers themselves do not yet.
        """
        rows = self.schedule
        count, moves = len(rows), rows.src != rows.dst
        timed = np.flatnonzero(moves & (self.hop > 0))
        needs = np.diff(rows.dep_ptr)
        leader, shared = _leaders(rows, self.hop, timed, needs)
        # a timer comes right before the first row that it goes with
        leads = np.zeros(count, np.bool_)
        leads[leader[timed]] = True
        place = np.arange(count) + np.cumsum(leads)  # of a row, among rows and timers
        timer = np.where(leader >= 0, place[leader] - 1, -1)  # of the timer that goes with a row
        total = count + int(leads.sum())
        origin = np.empty(total, np.int64)  # row that each one is, or that a timer goes with
        origin[place], origin[place[leads] - 1] = np.arange(count), np.flatnonzero(leads)
        is_timer = np.ones(total, np.bool_)
        is_timer[place] = False

        lengths = needs[origin]
        starts = np.zeros(total, np.int64)
        np.cumsum(lengths[:-1], out=starts[1:])
        old = rows.dep[np.arange(int(lengths.sum())) + np.repeat(rows.dep_ptr[origin] - starts, lengths)]
        owner = np.repeat(np.arange(total), lengths)
        waits = timer[old]
        extra = waits >= 0
        extra[1:] &= (waits[1:] != waits[:-1]) | (owner[1:] != owner[:-1])  # a batch waits for its timer once
        found = np.stack((place[old], waits), axis=1)
        kept = np.stack((np.ones(len(old), np.bool_), extra), axis=1)
        ptr = np.zeros(total + 1, np.int64)
        np.cumsum(lengths + np.bincount(owner[extra], minlength=total), out=ptr[1:])

        src, dst = rows.src[origin], rows.dst[origin]
        end = np.where(is_timer, np.where(shared[origin], src, dst), 0).astype(np.int32)
        delay = np.where(is_timer, self.hop[origin] + endpoint_ps, np.where(moves[origin], 0, self.hop[origin]))
        return Schedule(
            rows.size, np.where(is_timer, end, src), np.where(is_timer, end, dst), np.where(is_timer, 0, rows.bytes[origin]),
            ptr, found[kept].astype(np.int32), rows.reduce[origin] & ~is_timer,
            lambda row: [] if is_timer[row] else rows.payload(int(origin[row])), rows.pieces, delay, rows.in_network,
        )  # fmt: skip


def _leaders(rows: Schedule, hop: Columns64, timed: Columns64, needs: Columns64) -> tuple[Columns64, NDArray[np.bool_]]:
    """Per row, the first one that has the same timer (-1: it has none); whether several rows have it."""
    leader = np.full(len(rows), -1, np.int64)
    leader[timed] = timed
    shared = np.zeros(len(rows), np.bool_)
    single = timed[needs[timed] == 1]
    if len(single):
        _, length = np.unique(hop[single], return_inverse=True)
        key = rows.dep[rows.dep_ptr[single]].astype(np.int64) * (int(length.max()) + 1) + length
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        leader[single] = single[first][group]
        shared[single] = np.bincount(group)[group] > 1
    return leader, shared


@dataclass(frozen=True, slots=True)
class Leg:
    """A kind of hop on the longest way of a piece.

    Attributes:
        count: how many of it the way has.
        hop: ps that each takes at least, by NCCL.
        least: ps that each takes at least, by the links.
        latency: what of ``least`` does not depend on bytes.
    """

    count: int
    hop: float
    least: float
    latency: float

    @property
    def bytes_ps(self) -> float:
        """What the bytes of a piece take of ``least``."""
        return self.least - self.latency


def pipeline(total: float, legs: Sequence[Leg], pieces: int, least_gap: float) -> tuple[list[float], float]:
    """Shares ``total`` ps out to the hops of every leg and to the gaps: (ps of a hop of every leg, gap).

    The hops take what NCCL and the links ask for, the gaps take the rest; where that leaves less than the links need between
    two pieces, or there is but one piece, it is the hops that give or take.
    """
    asked = [max(leg.hop, leg.least) for leg in legs]
    way = sum(leg.count * ps for leg, ps in zip(legs, asked, strict=True))
    if pieces > 1 and total - way >= (pieces - 1) * least_gap:
        return asked, (total - way) / (pieces - 1)
    gap = least_gap if pieces > 1 else 0.0
    left = total - (pieces - 1) * gap
    needed = sum(leg.count * leg.least for leg in legs)
    if way <= 0:
        return [0.0 for _ in legs], gap
    if left <= needed:
        return [leg.least for leg in legs], gap
    if left >= way:
        return [ps * left / way for ps in asked], gap
    give = (left - needed) / (way - needed)
    return [leg.least + (ps - leg.least) * give for leg, ps in zip(legs, asked, strict=True)], gap


def in_step(total: float, hops: int, hop: float, pieces: int, rings: int, least_gap: float) -> tuple[float, float]:
    """(ps of a hop, gap) of a pipeline whose hops take a multiple of ``rings`` gaps, and about ``hop`` ps."""

    def gap_of(multiple: int) -> float:
        return total / (hops * multiple * rings + pieces - 1)

    free = (total - hops * hop) / max(1, pieces - 1)
    multiple = max(1, round(hop / (rings * max(free, least_gap, 1.0))))
    if gap_of(multiple) < least_gap:
        multiple = max(1, int((total / least_gap - pieces + 1) / (hops * rings)))
    return multiple * rings * gap_of(multiple), gap_of(multiple)
